-- park takes the marks of keys whose rows cannot be written out of flushing and records why. The images stay,
-- without a residency.
--
-- KEYS 1 fence, 2 flushing, 3 parked
-- ARGV 1 token, then two per key: key, the entry as JSON that ends in "at":<now in ms>,"tries":1}
-- Returns the number of marks removed, or the error FENCED.
--
-- A key that is parked already stays so since when it was, and counts its tries on. ZREM comes before HSET because Redis refuses a script at
-- maxmemory only before its first write.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the partition has another owner')
end
local removed = 0
for i = 2, #ARGV, 2 do
  local key, entry = ARGV[i], ARGV[i + 1]
  local earlier = redis.call('HGET', KEYS[3], key)
  local at, tries = string.match(earlier or '', '"at":(%d+),"tries":(%d+)}$')
  if at then
    entry = string.gsub(entry, '"at":%d+,"tries":1}$', '"at":' .. at .. string.format(',"tries":%.0f}', tries + 1))
  end
  removed = removed + redis.call('ZREM', KEYS[2], '+' .. key, '-' .. key, '?' .. key)
  redis.call('HSET', KEYS[3], key, entry)
end
return removed
