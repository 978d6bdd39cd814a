-- A worker takes a job: waiting (or running under a lease that has lapsed) -> running, attempts + 1, a new lease.
-- KEYS: record, waiting, running   ARGV: id, worker, lease_ms, ttl_ms
-- Returns 'claimed', attempts, now, submitted_at, document; or why it was not claimed: 'unknown', or the state it is in.
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
  return {'unknown'}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if state == 'running' then
  local lease = redis.call('ZSCORE', KEYS[3], ARGV[1])
  if lease and tonumber(lease) > now then return {'running'} end
elseif state ~= 'waiting' then
  return {state}
end
local expires_at = redis.call('HGET', KEYS[1], 'expires_at')
if state == 'waiting' and expires_at and tonumber(expires_at) <= now then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HSET', KEYS[1], 'state', 'expired', 'finished_at', now)
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return {'expired'}
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], now + ARGV[3], ARGV[1])
local attempts = redis.call('HINCRBY', KEYS[1], 'attempts', 1)
redis.call('HSET', KEYS[1], 'state', 'running', 'worker', ARGV[2], 'claimed_at', now)
return {'claimed', attempts, now, redis.call('HGET', KEYS[1], 'submitted_at'), redis.call('HGET', KEYS[1], 'document')}
