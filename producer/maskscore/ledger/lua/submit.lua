#!lua
-- A new job: its record, and its place in `waiting`; a known one only joins the batch.
-- ARGV[3..]: digest, document, batch ('' = none), priority, expires_in_ms ('' = never), most jobs queued ('' = any),
-- traceparent of the span that submits it ('' = none), which ended job another document replaces: '' (none), 'failed'
-- (one without a result), 'ended' (any)
-- Returns 'new', or 'known' and its state, or 'conflict' where the document is another one, or 'full' and the depth, or
-- 'batches' and their number where it is in as many as a job may be.
local id, batch, MOST_BATCHES = ARGV[2], ARGV[5], 1000
local job = load(id)
if job then
  if redis.call('HGET', job.key, 'digest') ~= ARGV[3] then
    local may = ENDED[job.state] and (ARGV[10] == 'ended' or (ARGV[10] == 'failed' and job.state ~= 'succeeded'))
    if not may then return {'conflict', job.state} end
    redis.call('HSET', job.key, 'digest', ARGV[3], 'document', ARGV[4], 'lane', ARGV[6], 'attempts', 0, 'retries', 0)
    redis.call('HDEL', job.key, 'first_fault_at', 'device_faults', 'expires_at', 'worker', 'claimed_at', 'result',
      'result_uri')
    job.lane, job.expires_at = ARGV[6], false
    if ARGV[7] ~= '' then
      redis.call('HSET', job.key, 'expires_at', now + ARGV[7])
      redis.call('ZADD', prefix .. ':expiring', now + ARGV[7], id)
    end
    move(job, 'waiting', now)
  end
  if ENDED[job.state] then keep_longer(job, batch) end
  -- Its place may have been lost.
  local home = place(job.state, job.lane)
  if home then redis.call('ZADD', home, 'NX', now, id) end
else
  if ARGV[8] ~= '' then
    local depth = redis.call('ZCARD', prefix .. ':delayed')
    for _, lane in ipairs(LANES) do depth = depth + redis.call('ZCARD', waiting_key(lane)) end
    if depth >= tonumber(ARGV[8]) then return {'full', depth} end
  end
  local key = prefix .. ':job:' .. id
  redis.call('HSET', key, 'state', 'waiting', 'digest', ARGV[3], 'document', ARGV[4], 'lane', ARGV[6],
    'submitted_at', wall, 'attempts', 0, 'retries', 0)
  if ARGV[9] ~= '' then redis.call('HSET', key, 'traceparent', ARGV[9]) end
  if ARGV[7] ~= '' then
    redis.call('HSET', key, 'expires_at', now + ARGV[7])
    redis.call('ZADD', prefix .. ':expiring', now + ARGV[7], id)
  end
  redis.call('ZADD', waiting_key(ARGV[6]), now, id)
end
local known = job ~= nil
job = job or load(id)
if batch ~= '' and not string.find(' ' .. job.batches .. ' ', ' ' .. batch .. ' ', 1, true) then
  -- Each change of the job is told to each of them, in one script, while everybody else waits.
  local _, spaces = string.gsub(job.batches, ' ', '')
  if spaces + 1 >= MOST_BATCHES then return {'batches', spaces + 1} end
  redis.call('HSET', job.key, 'batches', job.batches == '' and batch or job.batches .. ' ' .. batch)
  local _, jobs = batch_keys(batch)
  redis.call('RPUSH', jobs, id)
  tell(batch, job, nil, job.state)
  if ENDED[job.state] then redis.call('PUBLISH', prefix .. ':ended:' .. id, job.state .. ' ' .. batch) end
end
return {known and 'known' or 'new', job.state}
