#!lua
-- A part of a shard is stored: the shard goes on after it, whoever runs it then. The lease is moved on, too.
-- ARGV[3..]: token, lease_ms, cursor, images, masks and parts committed so far
-- Returns 'committed', 'cancelled' (committed, but its submitter wants it to stop), 'yield' (committed, and a job of a
-- higher priority waits for a place), or 'lost'.
local job = load(ARGV[2])
if not holds(job, ARGV[3]) then return 'lost' end
-- Attempts and retries count from the last part on: a shard that makes progress is not given up.
redis.call('HSET', job.key, 'cursor', ARGV[5], 'progress', ARGV[6] .. ' ' .. ARGV[7] .. ' ' .. ARGV[8],
  'committed', ARGV[3], 'attempts', 1, 'retries', 0)
redis.call('HDEL', job.key, 'first_fault_at', 'device_faults', 'trial')
local limit, masks = limits_of(job.tenant), tonumber(ARGV[7])
if limit.masks_per_second then
  local taken = tonumber(redis.call('HGET', job.key, 'taken') or '') or 0
  redis.call('HSET', job.key, 'taken', masks)
  take_masks(job.tenant, limit.masks_per_second, masks - taken)
end
move(job, 'running', now + ARGV[4])
redis.call('HDEL', job.key, 'suspect')
if job.cancel_requested then return 'cancelled' end
local MOST = 100
for _, priority in ipairs(PRIORITIES) do
  if priority == job.priority then break end
  for _, tenant in ipairs(redis.call('ZRANGE', tenants_key(priority, job.model), 0, MOST - 1)) do
    local most = limits_of(tenant).most_running
    if redis.call('ZCARD', queue_key(priority, job.model, tenant)) > 0
      and not (most and count_running(tenant, most) >= most) then
      return 'yield'
    end
  end
end
return 'committed'
