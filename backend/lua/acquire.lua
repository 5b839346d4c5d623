-- acquire: what a reader does who found no image. Looks again, in one step with the journal, and takes the lease of
-- the key if its value has to be read from MySQL.
--
-- KEYS  1 image  2 aux  3 dirty  4 flushing  5 parked (all of one key and its partition)
-- ARGV  1 token, unique to this call  2 lease in ms  3 'GET' for images that are strings, 'EXISTS' for others
--
-- Returns an array:
--   HIT image   the image is there; with EXISTS it is not returned, and may be of any type
--   GONE        the row is deleted, though MySQL may still have it
--   NEG         a negative entry: there was nothing a moment ago
--   WAIT        another reader has the lease
--   GRANTED     the lease is taken: aux holds the token, beside the copy if there is one
--   FULL why    there is no memory for a lease; the value may be read, but not cached
-- or the error of reading the image, WRONGTYPE.

local image = redis.pcall(ARGV[3], KEYS[1])
if type(image) == 'table' then
  return image
end
if image == 1 then
  return {'HIT'}
end
if image and image ~= 0 then
  return {'HIT', image}
end

local deleted = '-' .. KEYS[1]
if redis.call('ZSCORE', KEYS[3], deleted) or redis.call('ZSCORE', KEYS[4], deleted) then
  return {'GONE'}
end
local why = redis.call('HGET', KEYS[5], KEYS[1])
if why and string.sub(why, 1, 10) == '{"mark":"-' then
  return {'GONE'}
end

local aux = redis.pcall('GET', KEYS[2])
if aux == '-' then
  return {'NEG'}
end
if type(aux) == 'string' then
  return {'WAIT'}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if aux and now < tonumber(redis.call('HGET', KEYS[2], 'lease') or 0) then
  return {'WAIT'}
end

local taken
if aux then
  taken = redis.pcall('HSET', KEYS[2], 'token', ARGV[1], 'lease', string.format('%.0f', now + ARGV[2]))
  if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[2])
  end
else
  taken = redis.pcall('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
if type(taken) == 'table' and taken.err then
  if string.find(taken.err, 'OOM', 1, true) then
    return {'FULL', taken.err}
  end
  return taken
end
return {'GRANTED'}
