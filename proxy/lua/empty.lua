-- empty runs FLUSHALL, FLUSHDB or SWAPDB if nothing would be lost by it that is not in MySQL, as one step with finding
-- that out. What names the journal and its owners stays.
--
-- KEYS  1 meta, then dirty, flushing, parked and fence of each partition
-- ARGV  the command
--
-- Returns the command's reply, or, having changed nothing, {marks, parked keys}.

local marks, parked = 0, 0
for i = 2, #KEYS, 4 do
  marks = marks + redis.call('ZCARD', KEYS[i]) + redis.call('ZCARD', KEYS[i + 1])
  parked = parked + redis.call('HLEN', KEYS[i + 2])
end
if marks + parked > 0 then
  return {marks, parked}
end

-- Taken out before, so that SWAPDB does not carry them away.
local meta = redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1])
local fences = {}
for i = 5, #KEYS, 4 do
  fences[i] = redis.call('GET', KEYS[i])
  redis.call('DEL', KEYS[i])
end
local reply = redis.pcall(unpack(ARGV))
redis.call('DEL', KEYS[1])
if #meta > 0 then
  redis.call('HSET', KEYS[1], unpack(meta))
end
for i = 5, #KEYS, 4 do
  if fences[i] then
    redis.call('SET', KEYS[i], fences[i])
  end
end
return reply
