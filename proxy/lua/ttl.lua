-- ttl serves TTL and its likes of a mapped key. A key that is not in MySQL yet has no TTL; what it was promised is told
-- instead.
--
-- KEYS  1 image  2 expire
-- ARGV  1 TTL, PTTL, EXPIRETIME or PEXPIRETIME
--
-- Returns what the command returns.

local n = redis.call(ARGV[1], KEYS[1])
if n ~= -1 then
  return n
end
local deadline = tonumber(redis.call('HGET', KEYS[2], KEYS[1]) or '')
if not deadline then
  return -1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
deadline = math.max(deadline, now)
if ARGV[1] == 'TTL' or ARGV[1] == 'PTTL' then
  deadline = deadline - now
end
if ARGV[1] == 'TTL' or ARGV[1] == 'EXPIRETIME' then
  deadline = math.floor((deadline + 500) / 1000)
end
return deadline
