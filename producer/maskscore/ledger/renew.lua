-- The lease of a running job is moved on, if the attempt is still the current one.
-- KEYS: record, running   ARGV: id, attempt, lease_ms
-- Returns 'renewed', 'cancelled' (renewed, but its submitter wants it to stop), or 'lost'.
local record = redis.call('HMGET', KEYS[1], 'state', 'attempts', 'cancel_requested')
if record[1] ~= 'running' or record[2] ~= ARGV[2] then return 'lost' end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3], ARGV[1])
if record[3] then return 'cancelled' end
return 'renewed'
