-- announce notes keys whose images have to go once a transaction is committed.
--
-- KEYS 1 fence, 2 stale
-- ARGV 1 token, then "<partition>:<key>" each
-- Returns OK, or the error FENCED.
--
-- SREM comes first because Redis refuses a script at maxmemory only before its first write.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the partition has another owner')
end
redis.call('SREM', KEYS[2], '')
redis.call('SADD', KEYS[2], unpack(ARGV, 2))
return redis.status_reply('OK')
