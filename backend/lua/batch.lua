-- batch reads the oldest marks of a sweep and, for each of their keys once, the image as it is now: after the
-- take-over, so at or past every mark in flushing.
--
-- KEYS 1 fence, 2 dirty, 3 flushing
-- ARGV 1 token, 2 how many marks to pass over, 3 most marks to read, 4 bytes of images after which to stop (at least one
--      key is returned)
-- Returns a flat list of three per key: key, flags, image; or the error FENCED.
--   flags  1 '+' is in flushing, 2 '-' is, 4 '?' is, 8 '-' is in dirty (looked up only where there is no image),
--          16 the key holds neither a string nor a hash: its type stands in place of the image
--   image  a string, or the fields and values of a hash as a list; nil if the key does not exist
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the partition has another owner')
end
local seen, out, bytes = {}, {}, 0
local limit = tonumber(ARGV[4])
for _, member in ipairs(redis.call('ZRANGE', KEYS[3], ARGV[2], ARGV[2] + ARGV[3] - 1)) do
  local key = string.sub(member, 2)
  if not seen[key] then
    seen[key] = true
    local flags = 0
    local marks = redis.call('ZMSCORE', KEYS[3], '+' .. key, '-' .. key, '?' .. key)
    if marks[1] then flags = flags + 1 end
    if marks[2] then flags = flags + 2 end
    if marks[3] then flags = flags + 4 end
    local image = redis.pcall('GET', key)
    if type(image) == 'table' then
      image = redis.call('TYPE', key).ok
      if image == 'hash' then
        image = redis.call('HGETALL', key)
        for _, text in ipairs(image) do
          bytes = bytes + #text
        end
      else
        flags = flags + 16
      end
    elseif image then
      bytes = bytes + #image
    elseif redis.call('ZSCORE', KEYS[2], '-' .. key) then
      flags = flags + 8
    end
    out[#out + 1] = key
    out[#out + 1] = flags
    out[#out + 1] = image
    if bytes >= limit then
      break
    end
  end
end
return out
