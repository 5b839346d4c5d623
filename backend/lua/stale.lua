-- stale: what the holder of a lease does for whom MySQL is down. Gives the lease back, and puts the copy of the image,
-- if there is one, into its place again for a moment.
--
-- KEYS  1 image  2 aux
-- ARGV  1 token  2 'GET' for images that are strings, 'EXISTS' for others  3 the moment in ms
--
-- Returns an array:
--   STALE image   the copy is the image now; with EXISTS it is not returned
--   HIT image     there is an image
--   NONE          there is no copy, or it is too old, or the lease was gone
-- or the error of reading the image, WRONGTYPE.
--
-- Whoever writes, deletes or invalidates the key deletes aux, so a copy that is beside the token is the last image there
-- was.

local image = redis.pcall(ARGV[2], KEYS[1])
if type(image) == 'table' then
  return image
end
local aux = redis.pcall('GET', KEYS[2])
if type(aux) ~= 'table' then
  if aux == ARGV[1] then
    redis.call('DEL', KEYS[2])
  end
elseif redis.call('HGET', KEYS[2], 'token') == ARGV[1] then
  redis.call('HDEL', KEYS[2], 'token', 'lease')
  if not image or image == 0 then
    local time = redis.call('TIME')
    local left = redis.call('HGET', KEYS[2], 'until') - (time[1] * 1000 + math.floor(time[2] / 1000))
    if left > 0 then
      redis.call('RESTORE', KEYS[1], string.format('%.0f', math.min(left, ARGV[3])), redis.call('HGET', KEYS[2], 'image'))
      return {'STALE', ARGV[2] == 'GET' and redis.call('GET', KEYS[1])}
    end
  end
end
if image == 1 then
  return {'HIT'}
end
if image and image ~= 0 then
  return {'HIT', image}
end
return {'NONE'}
