#!lua flags=allow-oom
-- The submitter does not want jobs any more: queued ones end at once, running ones are asked to stop.
-- ARGV[2..]: the jobs, so many that nobody waits long for the script
-- Returns a flat list of each one's state before and state after; '' and '' for an unknown one.
local states, failed = {}, nil
local function cancel(id)
  local job = load(id)
  if not job then return '', '' end
  local before = job.state
  if before == 'waiting' or before == 'delayed' then move(job, 'cancelled') end
  if before == 'running' then redis.call('HSET', job.key, 'cancel_requested', 1) end
  return before, job.state
end
for index = 2, #ARGV - 1 do
  local done, before, after = pcall(cancel, ARGV[index])
  -- What goes wrong with one does not keep the others from being cancelled.
  if not done then failed = failed or before end
  states[#states + 1], states[#states + 2] = before, after
end
if failed then error(failed) end
return states
