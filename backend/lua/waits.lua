-- waits tells how many marks of one key wait, at one moment: a mark moves from dirty to flushing and back.
--
-- KEYS 1 dirty, 2 flushing
-- ARGV 1 key, 2 the highest score of a mark to count
-- Returns {number of marks up to that score, highest score of any mark or ''}.
local n, highest = 0, ''
for _, set in ipairs(KEYS) do
  for _, score in ipairs(redis.call('ZMSCORE', set, '+' .. ARGV[1], '-' .. ARGV[1], '?' .. ARGV[1])) do
    if score then
      if tonumber(score) <= tonumber(ARGV[2]) then
        n = n + 1
      end
      if highest == '' or tonumber(score) > tonumber(highest) then
        highest = score
      end
    end
  end
end
return {n, highest}
