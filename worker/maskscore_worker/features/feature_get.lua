#!lua flags=allow-oom
-- KEYS[1]: prefix. ARGV: time to live in ms, then keys. Answers their values, '' for those that are not there, and
-- notes their use. Nothing grows, so it may run in a Redis that is full.
local prefix, ttl = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local values = {}
for i = 2, #ARGV do
  local value = redis.call('GET', prefix .. ':' .. ARGV[i])
  if value then
    redis.call('PEXPIRE', prefix .. ':' .. ARGV[i], ttl)
    redis.call('ZADD', prefix, 'XX', now, #value .. ':' .. ARGV[i])
  end
  values[i - 1] = value or ''
end
return values
