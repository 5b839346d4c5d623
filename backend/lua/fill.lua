-- fill: what the holder of a lease does once it has read from MySQL. Caches what was read, or that there was nothing,
-- if nobody wrote, deleted or invalidated the key since acquire: each of them deletes aux.
--
-- KEYS  1 image  2 aux  3 dirty  4 flushing  5 parked (all of one key and its partition)
--       6 the image as it was built aside, with RENAME
-- ARGV  1 token  2 'GET' for images that are strings, 'EXISTS' for others
--       3 how long in ms to keep the image or the negative entry, '0': the image for ever, the negative entry not at all
--       4 how much longer in ms to keep a copy of the image in aux, for when MySQL is down; '0': no copy
--       5 '1': the image is there, and to be replaced: it was read before it expired
--       6 the command that makes the image: SET, HSET, RPUSH, SADD, ZADD or RENAME; '': there is nothing to cache
--       7 … its arguments behind the key
--
-- Returns an array:
--   FILLED        the token was there: what was read is the truth, and cached
--   UNCACHED why  the token was there: what was read is the truth, but Redis refused to take it
--   HIT image     the token was gone; this is what is there now (with EXISTS it is not returned)
--   GONE          the token was gone, and the row is deleted
--   NEG           the token was gone; another reader found nothing
--   LOST          the token was gone, or what was built aside, and nothing tells what became of the key
-- or the error of reading the image, WRONGTYPE.

local ttl, longer, replace, command = ARGV[3], ARGV[4], ARGV[5] == '1', ARGV[6]

-- held is the token in aux, or '-'.
local function held()
  local aux = redis.pcall('GET', KEYS[2])
  if type(aux) == 'table' then
    return redis.call('HGET', KEYS[2], 'token')
  end
  return aux
end

-- store makes the image, of a key that does not exist, and returns the error if Redis does not take it. Lua passes on
-- some 8,000 arguments at most.
local function store()
  if command == 'RENAME' then
    redis.call('RENAME', KEYS[6], KEYS[1])
  else
    for i = 7, #ARGV, 1000 do
      local stored = redis.pcall(command, KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
      if type(stored) == 'table' and stored.err then
        redis.call('DEL', KEYS[1])
        return stored.err
      end
    end
  end
  if ttl ~= '0' then
    redis.call('PEXPIRE', KEYS[1], ttl)
  elseif command == 'RENAME' then
    redis.call('PERSIST', KEYS[1])
  end
end

-- keep replaces the lease by a copy of the image.
local function keep()
  redis.call('DEL', KEYS[2])
  if longer ~= '0' and ttl ~= '0' then
    local time = redis.call('TIME')
    local life = ttl + longer
    redis.call('HSET', KEYS[2], 'image', redis.call('DUMP', KEYS[1]),
      'until', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + life))
    redis.call('PEXPIRE', KEYS[2], string.format('%.0f', life))
  end
end

if held() == ARGV[1] then
  if redis.call('EXISTS', KEYS[1]) == 1 and not replace then
    redis.call('DEL', KEYS[2]) -- somebody stored it past keyrow: that is newer than what was read
  elseif command == 'RENAME' and redis.call('EXISTS', KEYS[6]) == 0 then
    redis.call('DEL', KEYS[2])
  else
    if replace then
      redis.call('UNLINK', KEYS[1])
    end
    local refused
    if command ~= '' then
      refused = store()
    elseif ttl ~= '0' then
      refused = redis.pcall('SET', KEYS[2], '-', 'PX', ttl).err
    end
    if refused or command == '' and ttl == '0' then
      redis.call('DEL', KEYS[2])
    elseif command ~= '' then
      keep()
    end
    if refused then
      return {'UNCACHED', refused}
    end
    return {'FILLED'}
  end
end
if KEYS[6] then
  redis.call('UNLINK', KEYS[6])
end

local image = redis.pcall(ARGV[2], KEYS[1])
if type(image) == 'table' then
  return image
end
if image == 1 then
  return {'HIT'}
end
if image and image ~= 0 then
  return {'HIT', image}
end
local deleted = '-' .. KEYS[1]
if redis.call('ZSCORE', KEYS[3], deleted) or redis.call('ZSCORE', KEYS[4], deleted) then
  return {'GONE'}
end
local why = redis.call('HGET', KEYS[5], KEYS[1])
if why and string.sub(why, 1, 10) == '{"mark":"-' then
  return {'GONE'}
end
if held() == '-' then
  return {'NEG'}
end
return {'LOST'}
