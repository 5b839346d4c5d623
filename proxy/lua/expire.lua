-- expire serves EXPIRE and its likes, PERSIST and GETEX of a mapped key: they say how long its image stays in Redis. A
-- key that is not in MySQL yet may not leave Redis, so it has no TTL: what was asked for is kept until it is flushed.
--
-- KEYS  1 image  2 aux  3 dirty  4 flushing  5 parked  6 expire
-- ARGV  1 what to do: 'at' a deadline, 'in' so many ms, 'never' leave, '' leave it as it is
--       2 the deadline, Unix ms, or the ms
--       3 'GETEX' to return the image, else whether anything was set
--       4 'm' inside a client's MULTI
--       5 … conditions of EXPIRE: NX, XX, GT, LT
--
-- Returns {reply}, or {} having changed nothing if there is no image; with 'm' the reply as it is.

local key, what = KEYS[1], ARGV[1]
local image = redis.call('EXISTS', key) == 1
if not image and ARGV[4] ~= 'm' then
  return {}
end

local value
if ARGV[3] == 'GETEX' then
  value = redis.pcall('GET', key)
  if type(value) == 'table' then
    return value
  end
end

local function answer(set)
  local reply = set
  if ARGV[3] == 'GETEX' then
    reply = value
  end
  if ARGV[4] == 'm' then
    return reply
  end
  return {reply}
end

if not image or what == '' then
  return answer(0)
end
-- Redis refuses a script at maxmemory only before its first write, and this takes no memory worth it. Whoever holds a
-- lease beside an image has read it before that was there.
redis.call('DEL', KEYS[2])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local deadline = tonumber(ARGV[2])
if what == 'in' then
  deadline = math.min(now + deadline, 2 ^ 53)
end

local waiting = redis.call('HEXISTS', KEYS[5], key) == 1
for _, sign in ipairs({'+', '?'}) do
  waiting = waiting or redis.call('ZSCORE', KEYS[3], sign .. key) or redis.call('ZSCORE', KEYS[4], sign .. key)
end

if not waiting then
  if what == 'never' then
    return answer(redis.call('PERSIST', key))
  end
  return answer(redis.call('PEXPIREAT', key, string.format('%.0f', deadline), unpack(ARGV, 5)))
end

local before = tonumber(redis.call('HGET', KEYS[6], key) or '')
if before and before <= now then
  return answer(0) -- it goes when it is flushed: it was deleted, say
end
if what == 'never' then
  redis.call('HSET', KEYS[6], key, 'never')
  return answer(before and 1 or 0)
end
for i = 5, #ARGV do
  local condition = string.upper(ARGV[i])
  if condition == 'NX' and before or condition == 'XX' and not before
    or condition == 'GT' and (not before or deadline <= before) or condition == 'LT' and before and deadline >= before then
    return answer(0)
  end
end
redis.call('HSET', KEYS[6], key, string.format('%.0f', deadline > now and deadline or 0))
return answer(1)
