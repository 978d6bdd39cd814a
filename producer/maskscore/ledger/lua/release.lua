#!lua flags=allow-oom
-- A worker that shuts down gives a job back, which costs no attempt.
-- ARGV[3..]: token, what is wrong with the worker's device ('' = nothing: it was asked to stop)
-- Returns the state it is in then; '' where the attempt is stale.
local job = load(ARGV[2])
if not holds(job, ARGV[3]) then return '' end
local fault = ARGV[4]
if fault ~= '' and not job.cancel_requested then
  -- A device breaks without any job's doing, too, and with it go all jobs in flight. One that was there each time is
  -- run alone, as a suspect of the sweeper's is, and is given up only where the device breaks then as well.
  local SUSPICIOUS = 3
  local faults = redis.call('HINCRBY', job.key, 'device_faults', 1)
  remember(job, job.worker, 'device_broken', fault)
  if job.suspect and faults > SUSPICIOUS then
    bury(job, 'poisoned', 'A device broke ' .. faults .. ' times while it ran this job, the last time alone, so this ' ..
      'job probably breaks it: look at its image and masks, and at the log of ' .. job.worker .. '. It is kept as a ' ..
      'dead letter; `maskscore dead requeue` runs it again.')
    return job.state
  end
  if faults >= SUSPICIOUS then suspect(job) end
end
redis.call('HINCRBY', job.key, 'attempts', -1)
redis.call('HDEL', job.key, 'token')
wait(job)
return job.state
