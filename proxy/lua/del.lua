-- del serves DEL and UNLINK with mapped keys among the keys, as one step.
--
-- KEYS  the keys of the command
-- ARGV  1 'DEL' or 'UNLINK'  2 journal prefix  3 now, Unix ms
--       then three per key:
--         'plain'  an unmapped key
--         'cache'  a mapped key whose cached copy is dropped
--         'row'    a mapped key whose row is deleted
--         partition of the key
--         '?' nobody asked MySQL yet, '1' MySQL had the row, '0' it had not
--       then how many marks had been settled before it was asked, as returned; and 'both', or 'n' inside a client's MULTI,
--       where no row is '?' and that number is ''
--
-- Returns {keys that were there, marks added}, with 'n' the first alone, or, having changed nothing, {-1, marks settled, i,
-- …}: the places in KEYS of rows that are not in Redis and have to be looked up in MySQL, so that the answer can say whether
-- they were there.
--
-- That MySQL had a row is old by the time it is told. Who has asked for it has cached it, so it is in Redis; if not,
-- another DEL may have been there first, and that its mark is gone may only say that it was flushed. So it is believed
-- only if nothing was flushed since; else MySQL is asked again. In a MULTI it cannot be, and the row is taken to be there.
--
-- Every branch begins with a DEL: Redis refuses a script at maxmemory only before its first write. The mark comes before
-- the row goes: who has no right to ZADD is refused there, and an image that goes without its mark may be the only copy.

local prefix, now, asked = ARGV[2], ARGV[3], ARGV[#ARGV - 1]
local settled = redis.call('HGET', prefix .. ':meta', 'settled') or '0'

local function part(i, name)
  return prefix .. ':{' .. ARGV[2 + 3 * i] .. '}:' .. name
end

local function aux(key)
  return prefix .. ':aux:{' .. key .. '}'
end

-- stuck: the row is deleted, but MySQL refused it.
local function stuck(i, key)
  local why = redis.call('HGET', part(i, 'parked'), key)
  return why and string.sub(why, 1, 10) == '{"mark":"-'
end

-- gone: the row is deleted already, though MySQL may still have it.
local function gone(i, key)
  local member = '-' .. key
  return redis.call('ZSCORE', part(i, 'dirty'), member) or redis.call('ZSCORE', part(i, 'flushing'), member)
    or stuck(i, key)
end

-- waiting: the image is the only copy of what was written.
local function waiting(i, key)
  for _, sign in ipairs({'+', '?'}) do
    if redis.call('ZSCORE', part(i, 'dirty'), sign .. key) or redis.call('ZSCORE', part(i, 'flushing'), sign .. key) then
      return true
    end
  end
  return redis.call('HEXISTS', part(i, 'parked'), key) == 1
end

-- Whoever may not use the keys of the journal is refused here, before anything is changed.
local unknown, found = {-1, tonumber(settled)}, {}
for i, key in ipairs(KEYS) do
  if ARGV[1 + 3 * i] ~= 'plain' then
    local deleted, negative = gone(i, key), redis.pcall('GET', aux(key)) == '-'
    if ARGV[1 + 3 * i] == 'row' and ARGV[3 + 3 * i] ~= '0' and redis.call('EXISTS', key) == 0
        and not deleted and not negative then
      found[i] = ARGV[3 + 3 * i] == '1' and (asked == '' or asked == settled)
      if not found[i] then
        unknown[#unknown + 1] = i
      end
    end
  end
end
if #unknown > 2 then
  return unknown
end

local there, marked = 0, 0
for i, key in ipairs(KEYS) do
  local what = ARGV[1 + 3 * i]
  if what == 'plain' then
    there = there + redis.call(ARGV[1], key)
  elseif what == 'cache' then
    redis.call('DEL', aux(key))
    if redis.call('EXISTS', key) == 1 then
      there = there + 1
      if waiting(i, key) then
        redis.call('HSET', part(i, 'expire'), key, '0')
      else
        redis.call(ARGV[1], key)
      end
    end
  else
    local image = redis.call('EXISTS', key) == 1
    if image or found[i] and not gone(i, key) then
      redis.call('DEL', aux(key))
      marked = marked + redis.call('ZADD', part(i, 'dirty'), 'NX', now, '-' .. key)
      redis.call('HDEL', part(i, 'expire'), key)
      redis.call(ARGV[1], key)
      there = there + 1
    elseif stuck(i, key) then
      -- Deleting it again is how it is tried again.
      redis.call('DEL', aux(key))
      marked = marked + redis.call('ZADD', part(i, 'dirty'), 'NX', now, '-' .. key)
    end
  end
end
if ARGV[#ARGV] == 'n' then
  return there
end
return {there, marked}
