-- A new job: its record, and its place in `waiting`.
-- KEYS: record, waiting, running   ARGV: id, digest, document, batch_id, priority, expires_in_ms ('' = never)
-- Returns 'new'; for a known id 'same' and its state ('lapsed' for one that runs under a lease that has ended), or
-- 'conflict' where the document is another one.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local digest = redis.call('HGET', KEYS[1], 'digest')
if digest then
  if digest ~= ARGV[2] then return {'conflict', ''} end
  local lease = redis.call('ZSCORE', KEYS[3], ARGV[1])
  if lease and tonumber(lease) <= now then return {'same', 'lapsed'} end
  return {'same', redis.call('HGET', KEYS[1], 'state')}
end
redis.call('HSET', KEYS[1], 'state', 'waiting', 'digest', ARGV[2], 'document', ARGV[3], 'batch_id', ARGV[4],
  'priority', ARGV[5], 'submitted_at', now, 'attempts', 0)
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'expires_at', now + ARGV[6]) end
redis.call('ZADD', KEYS[2], now, ARGV[1])
return {'new', 'waiting'}
