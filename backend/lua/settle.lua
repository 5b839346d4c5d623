-- settle takes the marks of keys that are done out of flushing, and gives the keys that were not written again
-- meanwhile their residency.
--
-- KEYS 1 fence, 2 dirty, 3 flushing, 4 expire, 5 parked, 6 meta, where the marks removed are counted
-- ARGV 1 token, 2 what the name of an aux key has before the key, then two per key (for a thousand keys or two at most):
--      key, residency
--   residency  > 0 the row is written, the image stays for so many milliseconds
--              0   the row is written, the image stays
--              -1  the row is written, the image goes: what MySQL made of it may differ
--              -2  there was nothing to write
-- Returns the number of marks removed, or the error FENCED.
--
-- A deadline is held against the clock of Redis, since PEXPIREAT is too: that of the caller may be off. Calls for all
-- keys at once cost a fraction of as many calls.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED the partition has another owner')
end
local function drop(key)
  redis.call('DEL', key, ARGV[2] .. key .. '}')
end
local keys, written, marks = {}, {}, {}
for i = 3, #ARGV, 2 do
  local key = ARGV[i]
  keys[#keys + 1] = key
  if ARGV[i + 1] ~= '-2' then
    written[#written + 1] = key
  end
  marks[#marks + 1] = '+' .. key
  marks[#marks + 1] = '-' .. key
  marks[#marks + 1] = '?' .. key
end
local again, deadlines = {}, {}
if redis.call('EXISTS', KEYS[2]) == 1 then
  again = redis.call('ZMSCORE', KEYS[2], unpack(marks))
end
if redis.call('EXISTS', KEYS[4]) == 1 then
  deadlines = redis.call('HMGET', KEYS[4], unpack(keys))
end
local removed = redis.call('ZREM', KEYS[3], unpack(marks))
if #written > 0 and redis.call('EXISTS', KEYS[5]) == 1 then
  redis.call('HDEL', KEYS[5], unpack(written))
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(keys) do
  if not (again[3 * i - 2] or again[3 * i - 1] or again[3 * i]) then
    local residency, deadline = ARGV[2 * i + 2], deadlines[i]
    if deadline then
      redis.call('HDEL', KEYS[4], key)
      deadline = tonumber(deadline)
    end
    if residency == '-1' then
      drop(key)
    elseif residency == '-2' then
      -- no image to give a residency
    elseif deadline then
      if deadline <= now then
        drop(key)
      else
        redis.call('PEXPIREAT', key, string.format('%.0f', deadline))
      end
    elseif residency ~= '0' then
      redis.call('PEXPIRE', key, residency)
    end
  end
end
redis.call('HINCRBY', KEYS[6], 'settled', removed)
return removed
