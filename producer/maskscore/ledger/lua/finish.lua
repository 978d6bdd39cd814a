#!lua
-- An attempt ends its job.
-- ARGV[3..]: token, state, result, result_uri, error_code, error_message, '1' for a dead letter, how many masks it had
-- ('' = not known)
-- Returns the state it ended in ('cancelled' where that was asked for meanwhile), or '' where the attempt is stale.
local job = load(ARGV[2])
if not holds(job, ARGV[3]) then return '' end
local masks, limit = tonumber(ARGV[10]), limits_of(job.tenant)
if masks and limit.masks_per_second then
  -- How many masks an object holds is known only now.
  take_masks(job.tenant, limit.masks_per_second, masks - (tonumber(redis.call('HGET', job.key, 'taken') or '') or 0))
end
if job.cancel_requested then
  move(job, 'cancelled')
elseif ARGV[4] == 'succeeded' then
  if ARGV[5] ~= '' then redis.call('HSET', job.key, 'result', ARGV[5]) end
  if ARGV[6] ~= '' then redis.call('HSET', job.key, 'result_uri', ARGV[6]) end
  move(job, 'succeeded')
elseif ARGV[9] == '1' then
  bury(job, ARGV[7], ARGV[8])
else
  redis.call('HSET', job.key, 'error_code', ARGV[7], 'error_message', ARGV[8])
  move(job, ARGV[4])
end
return job.state
