-- fill: what the holder of a lease does once it has read the row. Caches the row, or that there is none, if nobody
-- wrote, deleted or invalidated the key since acquire: each of them deletes aux.
--
-- KEYS  1 image  2 aux  3 dirty  4 flushing  5 parked (all of one key and its partition)
-- ARGV  1 token  2 '1': there is a row, '0': there is none
--       3 how long in ms to keep the image or the negative entry, '0': the image for ever, the negative entry not at all
--       4 image
--
-- Returns an array:
--   FILLED        the token was there: what was read is the truth, and cached
--   UNCACHED why  the token was there: what was read is the truth, but Redis refused to take it
--   HIT image     the token was gone; this is what is there now
--   GONE          the token was gone, and the row is deleted
--   NEG           the token was gone; another reader found no row
--   LOST          the token was gone, and nothing tells what became of the key
-- or the error of reading the image, WRONGTYPE.

if redis.call('GET', KEYS[2]) == ARGV[1] then
  if ARGV[2] == '1' then
    -- NX: an image that someone stored past keyrow is newer than the row.
    local stored
    if ARGV[3] == '0' then
      stored = redis.pcall('SET', KEYS[1], ARGV[4], 'NX')
    else
      stored = redis.pcall('SET', KEYS[1], ARGV[4], 'NX', 'PX', ARGV[3])
    end
    redis.pcall('DEL', KEYS[2])
    if type(stored) == 'table' then
      if stored.err then
        return {'UNCACHED', stored.err}
      end
      return {'FILLED'}
    end
  elseif redis.call('EXISTS', KEYS[1]) == 0 then
    if ARGV[3] == '0' then
      redis.pcall('DEL', KEYS[2])
    else
      local stored = redis.pcall('SET', KEYS[2], '-', 'PX', ARGV[3])
      if stored.err then
        redis.pcall('DEL', KEYS[2])
        return {'UNCACHED', stored.err}
      end
    end
    return {'FILLED'}
  else
    redis.call('DEL', KEYS[2])
  end
end

local image = redis.pcall('GET', KEYS[1])
if type(image) == 'table' then
  return image
end
if image then
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
if redis.call('GET', KEYS[2]) == '-' then
  return {'NEG'}
end
return {'LOST'}
