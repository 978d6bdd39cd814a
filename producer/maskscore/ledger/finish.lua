-- A running job ends, if the attempt is still the current one (fencing: a worker that was frozen cannot overwrite).
-- KEYS: record, running   ARGV: id, attempt, state, result, result_uri, error_code, error_message, ttl_ms
-- Returns the state it ended in ('cancelled' where that was asked for meanwhile), or '' where the attempt is stale.
local record = redis.call('HMGET', KEYS[1], 'state', 'attempts', 'cancel_requested')
if record[1] ~= 'running' or record[2] ~= ARGV[2] then return '' end
local time = redis.call('TIME')
local state = ARGV[3]
if record[3] then state = 'cancelled' end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], 'state', state, 'finished_at', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HDEL', KEYS[1], 'cancel_requested')
if state == 'succeeded' then
  if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'result', ARGV[4]) end
  if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'result_uri', ARGV[5]) end
elseif state == 'failed' then
  redis.call('HSET', KEYS[1], 'error_code', ARGV[6], 'error_message', ARGV[7])
end
redis.call('PEXPIRE', KEYS[1], ARGV[8])
return state
