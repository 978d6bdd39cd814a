-- The submitter does not want the job any more: a queued one ends at once, a running one is asked to stop.
-- KEYS: record, waiting, delayed   ARGV: id, ttl_ms
-- Returns the state before and the state after; '' and '' for an unknown job.
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return {'', ''} end
if state == 'waiting' or state == 'delayed' then
  local time = redis.call('TIME')
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('HSET', KEYS[1], 'state', 'cancelled', 'finished_at', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {state, 'cancelled'}
end
if state == 'running' then redis.call('HSET', KEYS[1], 'cancel_requested', 1) end
return {state, state}
