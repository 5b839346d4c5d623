-- retry marks parked keys again, so that the next sweep takes them.
--
-- KEYS 1 dirty, 2 parked
-- ARGV 1 now in ms, then two per key: key, sign of its mark
-- Returns the number of keys that were parked still.
--
-- Anybody may run it at any time: a mark too many makes the image be written once more. HDEL comes before ZADD because
-- Redis refuses a script at maxmemory only before its first write.
local retried = 0
for i = 2, #ARGV, 2 do
  if redis.call('HDEL', KEYS[2], ARGV[i]) == 1 then
    redis.call('ZADD', KEYS[1], 'NX', ARGV[1], ARGV[i + 1] .. ARGV[i])
    retried = retried + 1
  end
end
return retried
