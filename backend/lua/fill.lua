-- fill: what the holder of leases does once it has read from MySQL. Caches what was read, or that there was nothing, of
-- each key that nobody wrote, deleted or invalidated since acquire: each of them deletes aux.
--
-- KEYS  images, at most 1000
-- ARGV  1 token  2 what the name of an aux key has before the key
--       3 … for each image
--           how long in ms to keep the image or the negative entry, '0': the image for ever, the negative entry not at all
--           the command that makes the image: SET, HSET, RPUSH, SADD, ZADD or RENAME; '': there is nothing to cache
--           the number of its arguments behind the key, and these; of RENAME the one key where the image was built
--
-- Returns an array with one of these for each image:
--   FILLED           the token was there: what was read is the truth, and cached
--   {UNCACHED, why}  the token was there: what was read is the truth, but Redis refused to take it
--   LOST             the token was gone, or what was built aside, or there is an image: nothing was changed

-- store makes the image. It returns true; false if there was one, stored past keyrow, which is newer than what was read;
-- or the error if Redis does not take it. Lua passes on some 8,000 arguments at most.
local function store(key, ttl, command, from, to)
  if command == 'SET' then
    local stored
    if ttl == '0' then
      stored = redis.pcall('SET', key, ARGV[from], 'NX')
    else
      stored = redis.pcall('SET', key, ARGV[from], 'NX', 'PX', ttl)
    end
    return stored and (stored.err or true)
  end
  if redis.call('EXISTS', key) == 1 then
    return false
  end
  if command == 'RENAME' then
    if redis.call('EXISTS', ARGV[from]) == 0 then
      return false
    end
    redis.call('PERSIST', ARGV[from])
    redis.call('RENAME', ARGV[from], key)
  else
    for i = from, to, 1000 do
      local stored = redis.pcall(command, key, unpack(ARGV, i, math.min(i + 999, to)))
      if type(stored) == 'table' and stored.err then
        if i > from then
          redis.call('DEL', key)
        end
        return stored.err
      end
    end
  end
  if ttl ~= '0' then
    redis.call('PEXPIRE', key, ttl)
  end
  return true
end

-- deny makes the negative entry, in place of the lease, and returns as store does.
local function deny(key, aux, ttl)
  if redis.call('EXISTS', key) == 1 then
    return false
  end
  return ttl == '0' or redis.pcall('SET', aux, '-', 'PX', ttl).err or true
end

local aux = {}
for i, key in ipairs(KEYS) do
  aux[i] = ARGV[2] .. key .. '}'
end
local held = redis.call('MGET', unpack(aux))

-- The leases go in the end: Redis refuses a script at maxmemory only before its first write.
local results, over = {}, {}
local at = 3
for i, key in ipairs(KEYS) do
  local ttl, command, from = ARGV[at], ARGV[at + 1], at + 3
  at = from + ARGV[at + 2]
  local stored = false
  if held[i] == ARGV[1] then
    if command == '' then
      stored = deny(key, aux[i], ttl)
    else
      stored = store(key, ttl, command, from, at - 1)
    end
    if command ~= '' or ttl == '0' or stored ~= true then
      over[#over + 1] = aux[i]
    end
  end
  if not stored and command == 'RENAME' then
    over[#over + 1] = ARGV[from]
  end
  if stored == true then
    results[i] = 'FILLED'
  else
    results[i] = stored and {'UNCACHED', stored} or 'LOST'
  end
end
if #over > 0 then
  redis.call('UNLINK', unpack(over))
end
return results
