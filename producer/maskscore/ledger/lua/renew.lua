#!lua flags=allow-oom
-- The lease of a running job is moved on; a job whose lease has lapsed runs on where nobody else has taken it.
-- ARGV[3..]: token, lease_ms
-- Returns 'renewed', 'cancelled' (renewed, but its submitter wants it to stop), or 'lost'.
local job = load(ARGV[2])
if not holds(job, ARGV[3]) then return 'lost' end
local waited = job.state == 'waiting'
move(job, 'running', now + ARGV[4])
if waited then redis.call('HDEL', job.key, 'suspect') end
if job.cancel_requested then return 'cancelled' end
return 'renewed'
