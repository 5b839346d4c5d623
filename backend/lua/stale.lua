-- stale: what the holder of leases does for whom MySQL is down. Gives them back, and puts the copies of the images, of
-- those keys that have one, into their places again for a moment.
--
-- KEYS  images
-- ARGV  1 token  2 what the name of an aux key has before the key  3 'GET' for images that are strings, 'EXISTS' for
--       others  4 the moment in ms
--
-- Returns an array with one of these for each image:
--   {STALE, image}  the copy is the image now
--   STALE           the same with EXISTS
--   {HIT, image}    there is an image
--   HIT             the same with EXISTS
--   NONE            there is no copy, or it is too old, or the lease was gone
--   the error of reading the image, WRONGTYPE, or of taking the copy
--
-- Whoever writes, deletes or invalidates the key deletes aux, so a copy that is beside the token is the last image there
-- was.

-- restore puts the copy into the place of the image. It returns nil if there is none that is good still.
local function restore(key, aux)
  local time = redis.call('TIME')
  local left = redis.call('HGET', aux, 'until') - (time[1] * 1000 + math.floor(time[2] / 1000))
  if left <= 0 then
    return nil
  end
  local ttl = string.format('%.0f', math.min(left, ARGV[4]))
  local restored = redis.pcall('RESTORE', key, ttl, redis.call('HGET', aux, 'image'))
  if restored.err then
    return restored
  end
  if ARGV[3] == 'EXISTS' then
    return 'STALE'
  end
  local image = redis.pcall('GET', key)
  return type(image) == 'table' and image or {'STALE', image}
end

local function stale(key, aux)
  local image = redis.pcall(ARGV[3], key)
  if type(image) == 'table' then
    return image
  end
  if image == 0 then
    image = false
  end
  local held = redis.pcall('GET', aux)
  if held == ARGV[1] then
    redis.call('DEL', aux)
  elseif type(held) == 'table' and redis.call('HGET', aux, 'token') == ARGV[1] then
    redis.call('HDEL', aux, 'token', 'lease')
    local restored = not image and restore(key, aux)
    if restored then
      return restored
    end
  end
  if not image then
    return 'NONE'
  end
  return ARGV[3] == 'GET' and {'HIT', image} or 'HIT'
end

local results = {}
for i, key in ipairs(KEYS) do
  results[i] = stale(key, ARGV[2] .. key .. '}')
end
return results
