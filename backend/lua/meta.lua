-- meta compares the layout of the journal with the caller's and writes the caller's where there is none, or where
-- no key is pending or parked in the other one.
--
-- KEYS 1 meta
-- ARGV 1 format, 2 partitions, 3 prefix of the journal, 4 '1' to write, '0' to compare only, 5 an epoch, to be written
--      where there is none
-- Returns {format in force, partitions in force, number of marks, number of parked keys, epoch in force or ''}; the
-- numbers are of the layout found where that differs, else 0.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
local format = redis.call('HGET', KEYS[1], 'format')
local partitions = redis.call('HGET', KEYS[1], 'partitions')
local marks, parked = 0, 0
if format and partitions and (format ~= ARGV[1] or partitions ~= ARGV[2]) then
  for p = 0, (tonumber(partitions) or 0) - 1 do
    local name = ARGV[3] .. ':{' .. p .. '}:'
    marks = marks + redis.call('ZCARD', name .. 'dirty') + redis.call('ZCARD', name .. 'flushing')
    parked = parked + redis.call('HLEN', name .. 'parked')
  end
  if marks + parked > 0 then
    return {format, partitions, marks, parked, epoch or ''}
  end
end
if ARGV[4] == '1' and (format ~= ARGV[1] or partitions ~= ARGV[2] or not epoch) then
  epoch = epoch or ARGV[5]
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'partitions', ARGV[2], 'epoch', epoch)
end
return {ARGV[1], ARGV[2], 0, 0, epoch or ''}
