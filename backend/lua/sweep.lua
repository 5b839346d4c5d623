-- sweep takes over the marks of a partition: dirty becomes flushing, unless flushing still holds marks of a sweep
-- that did not end.
--
-- KEYS 1 fence, 2 dirty, 3 flushing
-- ARGV 1 token
-- Returns {1 if marks were taken over or else 0, number of marks in flushing}, or the error FENCED.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the partition has another owner')
end
local taken = 0
if redis.call('EXISTS', KEYS[3]) == 0 and redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('RENAME', KEYS[2], KEYS[3])
  taken = 1
end
return {taken, redis.call('ZCARD', KEYS[3])}
