-- batch says of keys what their marks and their images are now: after the take-over, so at or past every mark in
-- flushing. Written keys whose images are strings are read without it, see owner.marked.
--
-- KEYS 1 fence, 2 dirty, 3 flushing
-- ARGV 1 token, 2 bytes of images after which to stop (at least one key is returned), then the keys
-- Returns a flat list of three per key: key, flags, image; or the error FENCED.
--   flags  1 '+' is in flushing, 2 '-' is, 4 '?' is,
--          8 '-' is in dirty (looked up only where there is no image),
--          16 the key holds neither a string nor a hash: its type stands in place of the image
--   image  a string, or the fields and values of a hash as a list; nil if the key does not exist
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the partition has another owner')
end
local out, bytes, limit = {}, 0, tonumber(ARGV[2])
for i = 3, #ARGV do
  local key = ARGV[i]
  local flags, image = 0, false
  local marks = redis.call('ZMSCORE', KEYS[3], '+' .. key, '-' .. key, '?' .. key)
  if marks[1] then flags = flags + 1 end
  if marks[2] then flags = flags + 2 end
  if marks[3] then flags = flags + 4 end
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' then
    image = redis.call('GET', key)
    bytes = bytes + #image
  elseif kind == 'hash' then
    image = redis.call('HGETALL', key)
    for _, text in ipairs(image) do
      bytes = bytes + #text
    end
  elseif kind ~= 'none' then
    flags = flags + 16
    image = kind
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
return out
