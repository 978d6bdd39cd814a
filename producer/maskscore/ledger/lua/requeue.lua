#!lua
-- A job that ended without a result gets all its attempts again.
-- ARGV[3]: codes, separated by spaces; a job that ended with another one stays as it is ('' = any code).
-- Returns the state before, and '1' where it is queued again; '' and '' for an unknown job.
local job = load(ARGV[2])
if not job then return {'', ''} end
local before = job.state
if not ENDED[before] or before == 'succeeded' then return {before, ''} end
-- Jobs that were cancelled or expired have no code but the name of their state.
local code = redis.call('HGET', job.key, 'error_code') or before
if ARGV[3] ~= '' and not string.find(' ' .. ARGV[3] .. ' ', ' ' .. code .. ' ', 1, true) then return {before, ''} end
redis.call('HSET', job.key, 'attempts', 0, 'retries', 0)
redis.call('HDEL', job.key, 'first_fault_at', 'device_faults', 'expires_at', 'worker', 'claimed_at', 'taken',
  'committed', 'trial')
job.expires_at = false
-- What has ended workers before runs alone from the start.
if code == 'poisoned' then suspect(job) end
wait(job)
return {before, '1'}
