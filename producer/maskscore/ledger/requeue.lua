#!lua
-- A job that ended without a result gets all its attempts again.
-- Returns the state before and its lane; '' and '' for an unknown job.
local job = load(ARGV[2])
if not job then return {'', ''} end
local before = job.state
if ENDED[before] and before ~= 'succeeded' then
  -- What has ended workers before runs alone from the start.
  local poisoned = redis.call('HGET', job.key, 'error_code') == 'poisoned'
  redis.call('HSET', job.key, 'attempts', 0, 'retries', 0)
  redis.call('HDEL', job.key, 'first_fault_at', 'expires_at', 'worker', 'claimed_at')
  job.expires_at = false
  wait_again(job)
  if poisoned then redis.call('HSET', job.key, 'suspect', 1) end
end
return {before, job.lane}
