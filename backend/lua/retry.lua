-- retry marks parked keys again, so that the next sweep takes them. They stay parked until their rows are written.
--
-- KEYS 1 dirty, 2 parked
-- ARGV 1 now in ms, then the keys
-- Returns the number of marks added.
--
-- Anybody may run it at any time: a mark too many makes the image be written once more.
local retried = 0
for i = 2, #ARGV do
  local why = redis.call('HGET', KEYS[2], ARGV[i])
  if why then
    retried = retried + redis.call('ZADD', KEYS[1], 'NX', ARGV[1], string.sub(why, 10, 10) .. ARGV[i])
  end
end
return retried
