-- change runs a command that writes one mapped key and needs what is there, as one step with its mark.
--
-- KEYS  1 the key
-- ARGV  1 journal prefix  2 partition of the key  3 now, Unix ms
--       4 'asked' if MySQL was asked just now and has no image for the key; else ''
--       5 residency: 'keep' the time that the image stays; 'drop' it; or a deadline to arm when flushed, Unix ms
--       6 how many of the arguments behind the next make the hash of a row that is not there, field and value in turn;
--         '-1' if none can be made
--       7 what to do
--       8 … these, then what that takes:
--         run  when, command …   when says of which replies the command has written: 'always', 'nonzero', or 'NX' and
--                                'XX' for all of a key that was not there, or was
--         add  field, scale, low, high, units, command …
--                                the command adds units of 10^-scale, and the sum is to be from low to high units;
--                                it is run itself where the scale is 0. A field '' here and below: the key is a string
--         try  field, command …  only says what the command would make of the field
--         swap field, '1' if it was there, what it held, what to put there
--         take 'row' or 'cache'  GETDEL, with the meanings of DEL
--
-- Returns an array, or an error, and then nothing was changed:
--   DONE marks reply   it was run; so many marks are new; with add, the sum in place of the reply
--   ABSENT             Redis does not have the image, and MySQL has to be asked
--   NONE               there is no row, and none can be made
--   RANGE sum          the sum is out of range; nothing was changed
--   TRIED old new reply   of try: what the field holds, and would hold, null for nothing
--   OTHER              of swap: the field holds something else
--
-- The mark comes before the change. It is what Redis refuses where there is no memory, or the user has no right to the
-- journal; and an image that is changed without a mark would be lost.

local key, prefix = KEYS[1], ARGV[1]
local what, made = ARGV[7], tonumber(ARGV[6])
local rest = 8 + math.max(made, 0)

local function part(name)
  return prefix .. ':{' .. ARGV[2] .. '}:' .. name
end
local dirty, expire, aux = part('dirty'), part('expire'), prefix .. ':aux:{' .. key .. '}'

-- deleted: the row is deleted, though MySQL may still have it.
local function deleted()
  local member = '-' .. key
  if redis.call('ZSCORE', dirty, member) or redis.call('ZSCORE', part('flushing'), member) then
    return true
  end
  local why = redis.call('HGET', part('parked'), key)
  return why and string.sub(why, 1, 10) == '{"mark":"-'
end

-- waiting: the image is the only copy of what was written.
local function waiting()
  for _, sign in ipairs({'+', '?'}) do
    if redis.call('ZSCORE', dirty, sign .. key) or redis.call('ZSCORE', part('flushing'), sign .. key) then
      return true
    end
  end
  return redis.call('HEXISTS', part('parked'), key) == 1
end

local existed = redis.call('EXISTS', key) == 1
if not existed and ARGV[4] ~= 'asked' and redis.pcall('GET', aux) ~= '-' and not deleted() then
  return {'ABSENT'}
end

local marked = 0

local function mark(sign)
  local n = redis.pcall('ZADD', dirty, 'NX', ARGV[3], sign .. key)
  if type(n) == 'table' then
    return n
  end
  marked = n
end

local function unmark()
  if marked == 1 then
    redis.call('ZREM', dirty, '+' .. key)
  end
end

local function failed(reply)
  return type(reply) == 'table' and reply.err
end

local function get(field)
  if field == '' then
    return redis.pcall('GET', key)
  end
  return redis.pcall('HGET', key, field)
end

local function put(field, value)
  if field == '' then
    return redis.call('SET', key, value, 'KEEPTTL')
  end
  return redis.call('HSET', key, field, value)
end

-- undo puts back what was there before the command.
local function undo(field, old)
  if not existed then
    redis.call('DEL', key)
  elseif get(field) == old then
    return
  elseif old then
    put(field, old)
  else
    redis.call('HDEL', key, field)
  end
end

-- done ends a command that has written.
local function done(reply, left)
  if ARGV[5] == 'drop' then
    redis.call('HDEL', expire, key)
  elseif ARGV[5] ~= 'keep' then
    redis.call('HSET', expire, key, ARGV[5])
  elseif left > 0 and redis.call('HEXISTS', expire, key) == 0 then
    local time = redis.call('TIME')
    redis.call('HSET', expire, key, string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + left))
  end
  redis.call('PERSIST', key)
  redis.call('DEL', aux)
  return {'DONE', marked, reply}
end

if what == 'take' then
  local value = redis.pcall('GET', key)
  if failed(value) then
    return value
  end
  if not value then
    return {'DONE', 0, value}
  end
  if ARGV[rest] == 'row' then
    local refused = mark('-')
    if refused then
      return refused
    end
    redis.call('HDEL', expire, key)
    redis.call('DEL', key, aux)
  elseif waiting() then
    redis.call('HSET', expire, key, '0')
    redis.call('DEL', aux)
  else
    redis.call('DEL', key, aux)
  end
  return {'DONE', marked, value}
end

if made < 0 and not existed then
  return {'NONE'}
end

if what == 'try' then
  local field = ARGV[rest]
  local old = get(field)
  if failed(old) then
    return old
  end
  local reply = redis.pcall(unpack(ARGV, rest + 1))
  if failed(reply) then
    return reply
  end
  local new = get(field)
  undo(field, old)
  return {'TRIED', old, new, reply}
end

local left = redis.call('PTTL', key)
local refused = mark('+')
if not refused and made > 0 and not existed then
  local new = redis.pcall('HSET', key, unpack(ARGV, 8, rest - 1))
  if failed(new) then
    refused = new
    unmark()
  end
end
if refused then
  return refused
end

if what == 'run' then
  local when = ARGV[rest]
  local reply = redis.pcall(unpack(ARGV, rest + 1))
  if failed(reply) then
    if not existed then
      redis.call('DEL', key)
    end
    unmark()
    return reply
  end
  if when == 'nonzero' and reply == 0 or when == 'NX' and existed or when == 'XX' and not existed then
    unmark()
    return {'DONE', 0, reply}
  end
  return done(reply, left)
end

local field = ARGV[rest]
local old = get(field)
if failed(old) then
  unmark()
  return old
end

if what == 'swap' then
  if old ~= (ARGV[rest + 1] == '1' and ARGV[rest + 2]) then
    undo(field, old)
    unmark()
    return {'OTHER'}
  end
  put(field, ARGV[rest + 3])
  return done(false, left)
end

-- units makes a number a decimal of units; nil if it is none.
local function units(text, scale)
  local sign, whole, fraction = string.match(text, '^(-?)(%d+)%.?(%d*)$')
  if not whole or #fraction > scale then
    return nil
  end
  local digits = string.gsub(whole .. fraction .. string.rep('0', scale - #fraction), '^0+(%d)', '%1')
  return digits == '0' and digits or sign .. digits
end

local function shown(number, scale)
  local sign, digits = string.match(number, '^(-?)(%d+)$')
  digits = string.rep('0', scale + 1 - #digits) .. digits
  return sign .. string.sub(digits, 1, -1 - scale) .. (scale > 0 and '.' .. string.sub(digits, -scale) or '')
end

-- less compares decimals of any length; the numbers of Lua have 53 bits.
local function less(a, b)
  local minus = string.sub(a, 1, 1) == '-'
  if minus ~= (string.sub(b, 1, 1) == '-') then
    return minus
  end
  if #a ~= #b then
    return (#a < #b) ~= minus
  end
  return a ~= b and (a < b) ~= minus
end

-- add
local scale = tonumber(ARGV[rest + 1])
local reply
if scale == 0 then
  reply = redis.pcall(unpack(ARGV, rest + 5))
else
  local from = units(old or '0', scale)
  if not from then
    undo(field, old)
    unmark()
    return redis.error_reply(field == '' and 'ERR value is not a valid float' or 'ERR hash value is not a float')
  end
  put(field, from)
  if field == '' then
    reply = redis.pcall('INCRBY', key, ARGV[rest + 4])
  else
    reply = redis.pcall('HINCRBY', key, field, ARGV[rest + 4])
  end
end
if failed(reply) then
  undo(field, old)
  unmark()
  return reply
end
local sum = get(field)
if less(sum, ARGV[rest + 2]) or less(ARGV[rest + 3], sum) then
  undo(field, old)
  unmark()
  return {'RANGE', shown(sum, scale)}
end
if scale > 0 then
  sum = shown(sum, scale)
  put(field, sum)
end
return done(sum, left)
