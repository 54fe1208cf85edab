-- Charges a key for up to as many tokens as are wanted. Answers how many were granted, and in how many microseconds the
-- next one is to be had (0: at once).
-- KEYS[1]: the key's record. ARGV: tokens per second, burst in tokens, tokens wanted.
-- The record is "debt at": what was taken and has not flowed back, in millionths of a token, as of a time in microseconds.
-- All numbers are integers below 2^53, so doubles hold them exactly.
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]) * 1000000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local debt = 0
local kept = redis.call('GET', KEYS[1])
if kept then
  local owed, at = string.match(kept, '^(%d+) (%d+)$')
  if owed then
    debt = math.min(burst, math.max(0, owed - math.max(0, now - at) * rate))
  end
end
local granted = math.min(tonumber(ARGV[3]), math.floor((burst - debt) / 1000000))
if granted > 0 then
  debt = debt + granted * 1000000
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', debt, now), 'PX', math.ceil(debt / rate / 1000))
end
return { granted, math.max(0, math.ceil((debt + 1000000 - burst) / rate)) }
