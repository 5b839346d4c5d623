-- msetnx serves MSETNX with mapped keys among the keys, as one step with their marks.
--
-- KEYS  the keys of the command
-- ARGV  1 journal prefix  2 now, Unix ms
--       then three per key:
--         the value
--         partition of the key, '' if it is not mapped
--         'asked' if MySQL was asked just now and has no image for the key; else ''
--
-- Returns {1, marks added}, {0, 0} if one of the keys is there, or, having changed nothing, {-1, i, …}: the places in
-- KEYS of rows that MySQL has to be asked for.

local prefix = ARGV[1]

local function part(i, name)
  return prefix .. ':{' .. ARGV[1 + 3 * i] .. '}:' .. name
end

local function aux(key)
  return prefix .. ':aux:{' .. key .. '}'
end

-- deleted: the row is deleted, though MySQL may still have it.
local function deleted(i, key)
  local member = '-' .. key
  if redis.call('ZSCORE', part(i, 'dirty'), member) or redis.call('ZSCORE', part(i, 'flushing'), member) then
    return true
  end
  local why = redis.call('HGET', part(i, 'parked'), key)
  return why and string.sub(why, 1, 10) == '{"mark":"-'
end

local unknown, set = {-1}, {}
for i, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then
    return {0, 0}
  end
  if ARGV[1 + 3 * i] ~= '' and ARGV[2 + 3 * i] ~= 'asked' and redis.pcall('GET', aux(key)) ~= '-' and not deleted(i, key) then
    unknown[#unknown + 1] = i
  end
  set[#set + 1] = key
  set[#set + 1] = ARGV[3 * i]
end
if #unknown > 1 then
  return unknown
end

-- The marks come first: they are what Redis refuses where there is no memory, or the user has no right to the journal.
local marks = {}
local function unmark()
  for i, key in pairs(marks) do
    redis.call('ZREM', part(i, 'dirty'), '+' .. key)
  end
end
local marked = 0
for i, key in ipairs(KEYS) do
  if ARGV[1 + 3 * i] ~= '' then
    local n = redis.pcall('ZADD', part(i, 'dirty'), 'NX', ARGV[2], '+' .. key)
    if type(n) == 'table' then
      unmark()
      return n
    end
    if n == 1 then
      marks[i] = key
      marked = marked + 1
    end
  end
end
local reply = redis.pcall('MSETNX', unpack(set))
if type(reply) == 'table' then
  unmark()
  return reply
end
for i, key in ipairs(KEYS) do
  if ARGV[1 + 3 * i] ~= '' then
    redis.call('HDEL', part(i, 'expire'), key)
    redis.call('DEL', aux(key))
  end
end
return {1, marked}
