-- older counts marks up to a score, in all partitions at one moment: a mark moves from dirty to flushing and back.
-- (MULTI would do, but at maxmemory Redis takes no commands into one.)
--
-- KEYS dirty and flushing of each partition, in turn
-- ARGV the highest score, for each partition
-- Returns the number of marks.
local n = 0
for i = 1, #ARGV do
  n = n + redis.call('ZCOUNT', KEYS[2 * i - 1], '-inf', ARGV[i]) + redis.call('ZCOUNT', KEYS[2 * i], '-inf', ARGV[i])
end
return n
