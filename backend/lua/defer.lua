-- defer puts the marks of keys that cannot be flushed yet back into dirty, as old as they are, so that flushing
-- empties and the other keys go on.
--
-- KEYS 1 fence, 2 dirty, 3 flushing
-- ARGV 1 token, then the keys
-- Returns the number of marks moved, or the error FENCED.
--
-- ZADD LT: a key that was marked again meanwhile gets its older score back. ZREM comes before ZADD because Redis
-- refuses a script at maxmemory only before its first write.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the partition has another owner')
end
local moved = 0
for i = 2, #ARGV do
  for _, sign in ipairs({'+', '-', '?'}) do
    local member = sign .. ARGV[i]
    local score = redis.call('ZSCORE', KEYS[3], member)
    if score then
      redis.call('ZREM', KEYS[3], member)
      redis.call('ZADD', KEYS[2], 'LT', score, member)
      moved = moved + 1
    end
  end
end
return moved
