-- release: what the holder of a lease does who could not read the row, so that the next reader need not wait for the
-- lease to run out.
--
-- KEYS  1 aux
-- ARGV  1 token
--
-- Returns 1 if the lease was still held, else 0.

local aux = redis.pcall('GET', KEYS[1])
if type(aux) == 'table' then
  if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
    return 0
  end
  redis.call('HDEL', KEYS[1], 'token', 'lease')
  return 1
end
if aux == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
