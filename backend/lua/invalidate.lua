-- invalidate drops what is cached of a key, unless it is the only copy of what was written. A fill under way finds its
-- lease gone.
--
-- KEYS  1 image  2 aux  3 dirty  4 flushing  5 parked (all of one key and its partition)
--
-- Returns 1 if nothing is cached any more, 0 if the key is marked or parked.

local key = KEYS[1]
for i = 3, 4 do
  local marks = redis.call('ZMSCORE', KEYS[i], '+' .. key, '-' .. key, '?' .. key)
  if marks[1] or marks[2] or marks[3] then
    return 0
  end
end
if redis.call('HEXISTS', KEYS[5], key) == 1 then
  return 0
end
redis.call('DEL', key, KEYS[2])
return 1
