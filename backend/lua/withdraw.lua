-- withdraw takes away the images of rows that are about to be committed, and leases their keys to who commits them, so
-- that nobody caches what the rows were.
--
-- KEYS none: the keys belong to several partitions
-- ARGV 1 token, 2 lease in ms, 3 prefix of the journal, 4 how many keys are of the rows themselves,
--      then "<partition>:<key>" each, these first, behind them those that other mappings have for the rows
-- Returns 1, or 0 having changed nothing if one of the rows themselves has a mark or is parked.
--
-- DEL comes first because Redis refuses a script at maxmemory only before its first write.
local keys = {}
for i = 5, #ARGV do
  local p, key = string.match(ARGV[i], '^(%d+):(.*)$')
  local name = ARGV[3] .. ':{' .. p .. '}:'
  local waits = redis.call('HEXISTS', name .. 'parked', key) == 1
  for _, set in ipairs({'dirty', 'flushing'}) do
    for _, sign in ipairs({'+', '?', '-'}) do
      waits = waits or redis.call('ZSCORE', name .. set, sign .. key)
    end
  end
  if waits and i < 5 + ARGV[4] then
    return 0
  end
  keys[#keys + 1] = {key = key, waits = waits, expire = name .. 'expire', aux = ARGV[3] .. ':aux:{' .. key .. '}'}
end
for _, k in ipairs(keys) do
  redis.call('DEL', k.aux)
  if not k.waits then
    redis.call('DEL', k.key)
    redis.call('SET', k.aux, ARGV[1], 'PX', ARGV[2])
  elseif redis.call('EXISTS', k.key) == 1 then
    redis.call('HSET', k.expire, k.key, '0')
  end
end
return 1
