-- fill: what the holder of leases does once it has read from MySQL. Caches what was read, or that there was nothing, of
-- each key that nobody wrote, deleted or invalidated since acquire: each of them deletes aux.
--
-- KEYS  images, at most 1000
-- ARGV  1 token  2 what the name of an aux key has before the key
--       3 how much longer in ms to keep a copy of each image in aux, for when MySQL is down; '0': no copy
--       4 '1': the images are there, and to be replaced: they were read before they expired
--       5 … for each image
--           how long in ms to keep the image or the negative entry, '0': the image for ever, the negative entry not at all
--           the command that makes the image: SET, HSET, RPUSH, SADD, ZADD or RENAME; '': there is nothing to cache
--           the number of its arguments behind the key, and these; of RENAME the one key where the image was built
--
-- Returns an array with one of these for each image:
--   FILLED           the token was there: what was read is the truth, and cached
--   {UNCACHED, why}  the token was there: what was read is the truth, but Redis refused to take it
--   LOST             the token was gone, or what was built aside, or there is an image not to be replaced: nothing was
--                    changed

local longer, replace = ARGV[3], ARGV[4] == '1'

-- store makes the image. It returns true; false if there was one, stored past keyrow, which is newer than what was read,
-- or if nothing was built aside; or the error if Redis does not take it. Lua passes on some 8,000 arguments at most.
local function store(key, ttl, command, from, to)
  if command == 'RENAME' and redis.call('EXISTS', ARGV[from]) == 0 then
    return false
  end
  if replace then
    redis.call('UNLINK', key)
  end
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
  if replace then
    redis.call('UNLINK', key)
  elseif redis.call('EXISTS', key) == 1 then
    return false
  end
  return ttl == '0' or redis.pcall('SET', aux, '-', 'PX', ttl).err or true
end

-- keep replaces the lease by a copy of the image.
local function keep(key, aux, ttl)
  redis.call('DEL', aux)
  local time = redis.call('TIME')
  local life = ttl + longer
  redis.call('HSET', aux, 'image', redis.call('DUMP', key),
    'until', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + life))
  redis.call('PEXPIRE', aux, string.format('%.0f', life))
end

local aux = {}
for i, key in ipairs(KEYS) do
  aux[i] = ARGV[2] .. key .. '}'
end
local tokens = redis.call('MGET', unpack(aux))

-- The leases go in the end: Redis refuses a script at maxmemory only before its first write.
local results, over = {}, {}
local at = 5
for i, key in ipairs(KEYS) do
  local ttl, command, from = ARGV[at], ARGV[at + 1], at + 3
  at = from + ARGV[at + 2]
  local stored = false
  -- MGET sees no token beside a copy.
  if (tokens[i] or redis.call('HGET', aux[i], 'token')) == ARGV[1] then
    if command == '' then
      stored = deny(key, aux[i], ttl)
    else
      stored = store(key, ttl, command, from, at - 1)
    end
    if stored == true and command ~= '' and longer ~= '0' and ttl ~= '0' then
      keep(key, aux[i], ttl)
    elseif stored ~= true or command ~= '' or ttl == '0' then
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
