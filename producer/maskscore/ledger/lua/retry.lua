#!lua flags=allow-oom
-- A transient fault ended the attempt in good order: running -> delayed, and the attempt is given back.
-- ARGV[3..]: token, delay_ms, most retries, milliseconds after the first fault in which to retry, worker, code, message
-- Returns 'delayed', 'cancelled', 'expired', 'exhausted' (nothing was changed but the reasons), or '' where stale.
local job = load(ARGV[2])
if not holds(job, ARGV[3]) then return '' end
remember(job, ARGV[7], ARGV[8], ARGV[9])
if job.cancel_requested then
  move(job, 'cancelled')
  return job.state
end
local due = now + ARGV[4]
redis.call('HSETNX', job.key, 'first_fault_at', now)
if job.retries >= tonumber(ARGV[5]) or due > redis.call('HGET', job.key, 'first_fault_at') + ARGV[6] then
  return 'exhausted'
end
if job.expires_at and job.expires_at <= due then
  move(job, 'expired')
  return job.state
end
redis.call('HINCRBY', job.key, 'attempts', -1)
redis.call('HINCRBY', job.key, 'retries', 1)
redis.call('HDEL', job.key, 'token')
move(job, 'delayed', due)
return job.state
