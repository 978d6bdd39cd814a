#!lua flags=allow-oom
-- A worker takes a job: waiting -> running, attempts + 1, a new lease.
-- ARGV[3..]: token of this attempt, worker, lease_ms, '1' where nothing else runs in the worker's process
-- Returns 'claimed', attempts, retries, now, submitted_at, document, traceparent; or why it was not claimed:
-- 'unknown', 'suspect' (claim it again when nothing else runs), or the state it is in.
local id, token = ARGV[2], ARGV[3]
local job = load(id)
if not job then return {'unknown'} end
-- Asked again, since the first answer was lost on its way.
local again = job.state == 'running' and job.token == token
if not again then
  if job.state ~= 'waiting' then return {job.state} end
  if job.expires_at and job.expires_at <= now then
    move(job, 'expired')
    return {'expired'}
  end
  if job.suspect and ARGV[6] ~= '1' then return {'suspect'} end
  -- How far the queue has come: what was sent before and is still waiting has lost its message.
  local sent = tonumber(redis.call('ZSCORE', waiting_key(job.lane), id) or 0)
  local reached = tonumber(redis.call('HGET', prefix .. ':reached', job.lane) or 0)
  if sent > reached then redis.call('HSET', prefix .. ':reached', job.lane, sent) end
  job.attempts = redis.call('HINCRBY', job.key, 'attempts', 1)
  redis.call('HSET', job.key, 'token', token, 'worker', ARGV[4], 'claimed_at', wall)
end
move(job, 'running', now + ARGV[5])
local rest = redis.call('HMGET', job.key, 'submitted_at', 'document', 'traceparent')
return {'claimed', job.attempts, job.retries, wall, rest[1], rest[2], rest[3] or ''}
