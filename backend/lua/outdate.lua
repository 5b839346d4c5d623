-- outdate takes away the images of keys whose rows were changed otherwise, and the leases under which somebody may have read
-- them before. An image that is not in MySQL yet goes when it is flushed.
--
-- KEYS 1 fence, 2 stale
-- ARGV 1 token, '' for who owns no partition and has no stale set; 2 prefix of the journal, then "<partition>:<key>" each
-- Returns OK, or the error FENCED.
--
-- DEL comes first because Redis refuses a script at maxmemory only before its first write.
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the partition has another owner')
end
for i = 3, #ARGV do
  local p, key = string.match(ARGV[i], '^(%d+):(.*)$')
  local name = ARGV[2] .. ':{' .. p .. '}:'
  redis.call('DEL', ARGV[2] .. ':aux:{' .. key .. '}')
  local waits = redis.call('HEXISTS', name .. 'parked', key) == 1
  for _, sign in ipairs({'+', '?'}) do
    waits = waits or redis.call('ZSCORE', name .. 'dirty', sign .. key) or redis.call('ZSCORE', name .. 'flushing', sign .. key)
  end
  if not waits then
    redis.call('DEL', key)
  elseif redis.call('EXISTS', key) == 1 then
    redis.call('HSET', name .. 'expire', key, '0')
  end
  if ARGV[1] ~= '' then
    redis.call('SREM', KEYS[2], ARGV[i])
  end
end
return redis.status_reply('OK')
