-- batch reads the oldest marks of a sweep and, for each of their keys once, the image as it is now: after the
-- take-over, so at or past every mark in flushing.
--
-- KEYS 1 fence, 2 dirty, 3 flushing
-- ARGV 1 token, 2 how many marks to pass over, 3 most marks to read (a thousand or two), 4 bytes of images after which to
--      stop (at least one key is returned)
-- Returns a flat list of three per key: key, flags, image; or the error FENCED.
--   flags  1 '+' is in flushing, 2 '-' is, 4 '?' is (of a key that has a '+' and a string, the others are not looked up),
--          8 '-' is in dirty (looked up only where there is no image),
--          16 the key holds neither a string nor a hash: its type stands in place of the image
--   image  a string, or the fields and values of a hash as a list; nil if the key does not exist
--
-- Calls for all keys at once cost a fraction of as many calls.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the partition has another owner')
end
local members = redis.call('ZRANGE', KEYS[3], ARGV[2], ARGV[2] + ARGV[3] - 1)
if #members == 0 then
  return {}
end
local seen, keys, signs = {}, {}, {}
for _, member in ipairs(members) do
  local key = string.sub(member, 2)
  if not seen[key] then
    seen[key] = true
    keys[#keys + 1] = key
    signs[#keys] = string.byte(member)
  end
end
local out, bytes, limit = {}, 0, tonumber(ARGV[4])
-- As many strings at a time as will hardly be more than there is room for, going by those before.
local strings, first, read, largest = {}, 1, 0, 1024 * 1024
for i, key in ipairs(keys) do
  if i > read then
    local last = math.min(#keys, i + math.max(0, math.min(63, math.floor((limit - bytes) / largest))))
    strings, largest = redis.call('MGET', unpack(keys, i, last)), 64
    for _, text in ipairs(strings) do
      largest = math.max(largest, text and 2 * #text or 0)
    end
    first, read = i, last
  end
  local flags, image = 1, strings[i - first + 1]
  if not image or signs[i] ~= 43 then -- '+'
    local marks = redis.call('ZMSCORE', KEYS[3], '+' .. key, '-' .. key, '?' .. key)
    flags = 0
    if marks[1] then flags = flags + 1 end
    if marks[2] then flags = flags + 2 end
    if marks[3] then flags = flags + 4 end
  end
  if image then
    bytes = bytes + #image
  else
    local kind = redis.call('TYPE', key).ok
    if kind == 'hash' then
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
  end
  out[#out + 1] = key
  out[#out + 1] = flags
  out[#out + 1] = image
  if bytes >= limit then
    break
  end
end
return out
