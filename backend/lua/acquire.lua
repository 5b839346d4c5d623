-- acquire: what a reader does who found no images. Looks again, in one step with the journal, and takes the leases of
-- the keys whose values have to be read from MySQL.
--
-- KEYS  1 dirty  2 flushing  3 parked, of one partition  4 … images of keys of that partition, at most 1000
-- ARGV  1 token, unique to this call  2 lease in ms  3 'GET' for images that are strings, 'EXISTS' for others
--       4 what the name of an aux key has before the key
--
-- Returns an array with one of these for each image:
--   {HIT, image}  the image is there
--   HIT           the same with EXISTS; it may be of any type
--   GONE          the row is deleted, though MySQL may still have it
--   NEG           a negative entry: there was nothing a moment ago
--   WAIT          another reader has the lease
--   GRANTED       the lease is taken: aux holds the token, beside the copy if there is one
--   {FULL, why}   there is no memory for a lease; the value may be read, but not cached
--   the error of reading the image, WRONGTYPE, or of taking the lease

local first = 4
-- What is mostly not there is looked for in all keys at a time, for each call costs more than what it does.
local there, dirty, flushing, parked = redis.call('EXISTS', unpack(KEYS)) > 0, {}, {}, {}
if there then
  local deleted = {}
  for i = first, #KEYS do
    deleted[i - first + 1] = '-' .. KEYS[i]
  end
  there = redis.call('EXISTS', unpack(KEYS, first)) > 0
  dirty = redis.call('ZMSCORE', KEYS[1], unpack(deleted))
  flushing = redis.call('ZMSCORE', KEYS[2], unpack(deleted))
  parked = redis.call('HMGET', KEYS[3], unpack(KEYS, first))
end

-- found is what there is of an image, nil if it has to be read.
local function found(key, n)
  local image = there and redis.pcall(ARGV[3], key)
  if type(image) == 'table' then
    return image
  end
  if image == 1 then
    return 'HIT'
  end
  if image and image ~= 0 then
    return {'HIT', image}
  end
  if dirty[n] or flushing[n] or parked[n] and string.sub(parked[n], 1, 10) == '{"mark":"-' then
    return 'GONE'
  end
end

-- beside takes a lease in an aux that holds a copy. It returns nil if another reader has it, else what Redis said.
local function beside(aux)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  if now < tonumber(redis.call('HGET', aux, 'lease') or 0) then
    return nil
  end
  local taken = redis.pcall('HSET', aux, 'token', ARGV[1], 'lease', string.format('%.0f', now + ARGV[2]))
  if redis.call('PTTL', aux) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', aux, ARGV[2])
  end
  return taken
end

local function lease(aux)
  local taken = redis.pcall('SET', aux, ARGV[1], 'NX', 'PX', ARGV[2])
  if not taken then
    local held = redis.pcall('GET', aux)
    if held == '-' then
      return 'NEG'
    end
    taken = type(held) == 'table' and beside(aux)
    if not taken then
      return 'WAIT'
    end
  end
  if type(taken) == 'table' and taken.err then
    return string.find(taken.err, 'OOM', 1, true) and {'FULL', taken.err} or taken
  end
  return 'GRANTED'
end

local results = {}
for i = first, #KEYS do
  local n = i - first + 1
  results[n] = found(KEYS[i], n) or lease(ARGV[4] .. KEYS[i] .. '}')
end
return results
