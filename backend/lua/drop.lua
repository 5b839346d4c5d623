-- drop gives up a parked key: its image goes, so that the next reader gets the row as MySQL has it.
--
-- KEYS 1 image, 2 aux, 3 dirty, 4 flushing, 5 parked, 6 expire (all of one key and its partition)
-- ARGV 1 key
-- Returns what parked said of it, nil if it is not parked; or the error MARKED if it was written again or is being
-- tried again: what is dropped then might be another write than the one that was parked.
local why = redis.call('HGET', KEYS[5], ARGV[1])
if not why then
  return nil
end
for _, set in ipairs({KEYS[3], KEYS[4]}) do
  local marks = redis.call('ZMSCORE', set, '+' .. ARGV[1], '-' .. ARGV[1], '?' .. ARGV[1])
  if marks[1] or marks[2] or marks[3] then
    return redis.error_reply('MARKED the key is on its way to mysql again')
  end
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('HDEL', KEYS[6], ARGV[1])
return why
