-- release: what the holder of leases does who could not read, so that the next reader need not wait for them to run out.
--
-- KEYS  images
-- ARGV  1 token  2 what the name of an aux key has before the key
--
-- Returns the number of leases that were still held.

local released = 0
for _, key in ipairs(KEYS) do
  local aux = ARGV[2] .. key .. '}'
  local held = redis.pcall('GET', aux)
  if held == ARGV[1] then
    released = released + redis.call('DEL', aux)
  elseif type(held) == 'table' and redis.call('HGET', aux, 'token') == ARGV[1] then
    redis.call('HDEL', aux, 'token', 'lease')
    released = released + 1
  end
end
return released
