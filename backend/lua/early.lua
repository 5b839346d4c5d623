-- early: takes the lease of a key whose image is still there, to read it anew before it expires.
--
-- KEYS  1 image  2 aux  3 dirty  4 flushing  5 parked (all of one key and its partition)
-- ARGV  1 token, unique to this call  2 lease in ms  3 the most ms that may be left of the ttl
--
-- Returns a number:
--   0   the lease is taken: aux holds the token, beside the copy if there is one
--   > 0 so many ms are left, which is more than ARGV[3]: nothing was done
--   -1  the image does not expire, or it was written and MySQL does not have it yet
--   -2  there is no image
--   -3  another reader has the lease, or there is no memory for one
--
-- What was written and not flushed must not be replaced by what MySQL has. Such an image has no ttl, and it has a mark.

local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > tonumber(ARGV[3]) then
  return left
end
for i = 3, 4 do
  for _, sign in ipairs({'+', '-', '?'}) do
    if redis.call('ZSCORE', KEYS[i], sign .. KEYS[1]) then
      return -1
    end
  end
end
if redis.call('HEXISTS', KEYS[5], KEYS[1]) == 1 then
  return -1
end

local aux = redis.pcall('GET', KEYS[2])
if type(aux) == 'string' then
  return -3
end
local taken
if aux then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  if now < tonumber(redis.call('HGET', KEYS[2], 'lease') or 0) then
    return -3
  end
  taken = redis.pcall('HSET', KEYS[2], 'token', ARGV[1], 'lease', string.format('%.0f', now + ARGV[2]))
else
  taken = redis.pcall('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
if type(taken) == 'table' and taken.err then
  return -3
end
return 0
