#!lua flags=allow-oom
-- A worker that shuts down will not begin a job whose message it has taken.
-- Returns the state it is in, and its lane; '' and '' for an unknown job.
local job = load(ARGV[2])
if not job then return {'', ''} end
if job.state == 'waiting' then wait_again(job) end
return {job.state, job.lane}
