-- settle takes the marks of keys that are done out of flushing, and gives the keys that were not written again
-- meanwhile their residency.
--
-- KEYS 1 fence, 2 dirty, 3 flushing, 4 expire, 5 parked, 6 meta, where the marks removed are counted
-- ARGV 1 token, 2 what the name of an aux key has before the key, then three per key (for a thousand keys or two at
--   most): key, residency, how much longer in ms to keep a copy of the image in aux, for when MySQL is down (0: no copy)
--   residency  > 0 the row is written, the image stays for so many milliseconds
--              0   the row is written, the image stays
--              -1  the row is written, the image goes: what MySQL made of it may differ
--              -2  there was nothing to write
-- Returns the number of marks removed, or the error FENCED.
--
-- A deadline is held against the clock of Redis, since PEXPIREAT is too: that of the caller may be off. Calls for all
-- keys at once cost a fraction of as many calls, and what is done for every key counts: numbers stay text while they
-- are only handed on.
local call = redis.call
if call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the partition has another owner')
end
local function drop(key)
  call('DEL', key, ARGV[2] .. key .. '}')
end
local keys, written, marks = {}, {}, {}
for i = 3, #ARGV, 3 do
  local key, n = ARGV[i], i / 3
  keys[n] = key
  if ARGV[i + 1] ~= '-2' then
    written[#written + 1] = key
  end
  marks[i - 2], marks[i - 1], marks[i] = '+' .. key, '-' .. key, '?' .. key
end
local again, deadlines = {}, {}
local expiries = {} -- by residency, which many keys share; Redis makes PEXPIREAT of a PEXPIRE, at more cost
if call('EXISTS', KEYS[2]) == 1 then
  again = call('ZMSCORE', KEYS[2], unpack(marks))
end
if call('EXISTS', KEYS[4]) == 1 then
  deadlines = call('HMGET', KEYS[4], unpack(keys))
end
local removed = call('ZREM', KEYS[3], unpack(marks))
if #written > 0 and call('EXISTS', KEYS[5]) == 1 then
  call('HDEL', KEYS[5], unpack(written))
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- keep makes the copy of an image that expires at deadline.
local function keep(key, deadline, longer)
  local image = longer ~= '0' and call('DUMP', key)
  if image then
    local aux, last = ARGV[2] .. key .. '}', string.format('%.0f', deadline + longer)
    call('DEL', aux)
    call('HSET', aux, 'image', image, 'until', last)
    call('PEXPIREAT', aux, last)
  end
end
for i, key in ipairs(keys) do
  if not (again[3 * i - 2] or again[3 * i - 1] or again[3 * i]) then
    local residency, longer, deadline = ARGV[3 * i + 1], ARGV[3 * i + 2], deadlines[i]
    if deadline then
      call('HDEL', KEYS[4], key)
    end
    if residency == '-1' then
      drop(key)
    elseif residency == '-2' then
      -- no image to give a residency
    elseif deadline == 'never' then
      call('PERSIST', key)
    elseif deadline then
      if tonumber(deadline) <= now then
        drop(key)
      else
        call('PEXPIREAT', key, deadline)
        keep(key, tonumber(deadline), longer)
      end
    elseif residency ~= '0' then
      local at = expiries[residency]
      if not at then
        at = string.format('%.0f', now + residency)
        expiries[residency] = at
      end
      call('PEXPIREAT', key, at)
      keep(key, tonumber(at), longer)
    end
  end
end
call('HINCRBY', KEYS[6], 'settled', removed)
return removed
