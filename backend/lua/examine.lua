-- examine: what there is of a key, in one step with the journal, for a comparison with its row.
--
-- KEYS  1 image  2 aux  3 dirty  4 flushing  5 parked (all of one key and its partition)
-- ARGV  1 'GET' for images that are strings, 'HGETALL' for hashes
--
-- Returns an array:
--   PENDING       it was written or deleted, and not flushed yet
--   PARKED        it was written or deleted, and its row could not be
--   IMAGE values  the image
--   TYPE type     the key holds no image, but a value of this type
--   NEG           a negative entry: there was nothing a moment ago
--   NONE          nothing

local key = KEYS[1]
for i = 3, 4 do
  local marks = redis.call('ZMSCORE', KEYS[i], '+' .. key, '-' .. key, '?' .. key)
  if marks[1] or marks[2] or marks[3] then
    return {'PENDING'}
  end
end
if redis.call('HEXISTS', KEYS[5], key) == 1 then
  return {'PARKED'}
end
local image = redis.pcall(ARGV[1], key)
if type(image) == 'table' and image.err then
  return {'TYPE', redis.call('TYPE', key).ok}
end
if ARGV[1] == 'GET' and image then
  return {'IMAGE', {image}}
end
if ARGV[1] == 'HGETALL' and #image > 0 then
  return {'IMAGE', image}
end
local aux = redis.pcall('GET', KEYS[2])
if aux == '-' then
  return {'NEG'}
end
return {'NONE'}
