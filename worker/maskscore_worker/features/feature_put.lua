#!lua
-- KEYS[1]: prefix. ARGV: time to live in ms, most bytes, then keys and values in turn.
-- The sorted set at the prefix holds 'size:key' by the time of the last use; ':bytes' is the sum of its sizes.
local prefix, ttl, most = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local OVERHEAD = 300
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local total = tonumber(redis.call('GET', prefix .. ':bytes') or '0')

local function forget(member)
  local colon = string.find(member, ':', 1, true)
  redis.call('UNLINK', prefix .. ':' .. string.sub(member, colon + 1))
  redis.call('ZREM', prefix, member)
  total = total - tonumber(string.sub(member, 1, colon - 1)) - OVERHEAD
end

for i = 3, #ARGV, 2 do
  local key, value = ARGV[i], ARGV[i + 1]
  redis.call('SET', prefix .. ':' .. key, value, 'PX', ttl)
  if redis.call('ZADD', prefix, now, #value .. ':' .. key) == 1 then
    total = total + #value + OVERHEAD
  end
end
-- What Redis has let go itself, at its time to live.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', prefix, '-inf', now - ttl, 'LIMIT', 0, 1000)) do
  forget(member)
end
-- A little more than what came at most: where `most` was lowered, making room all at once would hold up the queue.
for _ = 1, #ARGV + 100 do
  local oldest = total > most and redis.call('ZRANGE', prefix, 0, 0)[1]
  if not oldest then break end
  forget(oldest)
end
redis.call('SET', prefix .. ':bytes', total, 'PX', 2 * ttl)
redis.call('PEXPIRE', prefix, 2 * ttl)
