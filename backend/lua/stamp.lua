-- stamp makes a write that every replica gets, however little memory there is: what they have of the stream of writes up to
-- it includes whatever was run before.
--
-- KEYS  1 what is written
--
-- DEL comes first because Redis refuses a script at maxmemory only before its first write.
redis.call('DEL', KEYS[1])
return redis.call('SET', KEYS[1], '')
