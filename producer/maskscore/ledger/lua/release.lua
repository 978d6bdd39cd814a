#!lua flags=allow-oom
-- A worker that shuts down gives a job back, which costs no attempt.
-- ARGV[3..]: token
-- Returns the state it is in then, and its lane; '' and '' where the attempt is stale.
local job = load(ARGV[2])
if not holds(job, ARGV[3]) then return {'', ''} end
redis.call('HINCRBY', job.key, 'attempts', -1)
redis.call('HDEL', job.key, 'token')
wait_again(job)
return {job.state, job.lane}
