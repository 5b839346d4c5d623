-- set replaces a row that is in Redis, as the write path does, in one step with finding out that it is.
--
-- KEYS  1 image  2 aux  3 dirty  4 flushing  5 parked  6 expire
-- ARGV  1 the new image  2 its deadline, Unix ms, '0' for none  3 now, Unix ms
--
-- Returns {1, marks added}, or {0, 0} having changed nothing if the row is not in Redis and the journal knows nothing of
-- it: then MySQL is to be written first.
--
-- The mark comes first. It is what Redis refuses where there is no memory, or the user has no right to the journal; and an
-- image that is set without a mark never reaches MySQL.

local key, deleted = KEYS[1], '-' .. KEYS[1]
if redis.call('EXISTS', key) == 0 and not redis.call('ZSCORE', KEYS[3], deleted)
  and not redis.call('ZSCORE', KEYS[4], deleted) and redis.call('HEXISTS', KEYS[5], key) == 0 then
  return {0, 0}
end
local marked = redis.call('ZADD', KEYS[3], 'NX', ARGV[3], '+' .. key)
redis.call('DEL', KEYS[2])
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[6], key)
else
  redis.call('HSET', KEYS[6], key, ARGV[2])
end
redis.call('SET', key, ARGV[1])
return {1, marked}
