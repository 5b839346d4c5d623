-- fence makes the caller the newest owner of a partition: from here on every script of an older owner is refused.
--
-- KEYS 1 fence
-- ARGV 1 the caller's token
-- Returns OK.
--
-- DEL comes first because Redis refuses a script at maxmemory only before its first write. The flush is what gives
-- memory back, so it has to go on there.
redis.call('DEL', KEYS[1])
return redis.call('SET', KEYS[1], ARGV[1])
