-- release: what the holder of a lease does who could not read the row, so that the next reader need not wait for the
-- lease to run out.
--
-- KEYS  1 aux
-- ARGV  1 token
--
-- Returns 1 if the lease was still held, else 0.

if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
