#!lua flags=allow-oom
-- The submitter does not want the job any more: a queued one ends at once, a running one is asked to stop.
-- Returns the state before and the state after; '' and '' for an unknown job.
local job = load(ARGV[2])
if not job then return {'', ''} end
local before = job.state
if before == 'waiting' or before == 'delayed' then move(job, 'cancelled') end
if before == 'running' then redis.call('HSET', job.key, 'cancel_requested', 1) end
return {before, job.state}
