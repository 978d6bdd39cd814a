#!lua
-- A new job: its record, its place in the queue, and a ticket; a known one only joins the batch.
-- ARGV[3..]: digest, document, batch ('' = none), priority, expires_in_ms ('' = never), most jobs queued ('' = any),
-- traceparent of the span that submits it ('' = none), which ended job another document replaces: '' (none), 'failed'
-- (one without a result), 'ended' (any), tenant ('' = the batch), model ('' = the default one), how many
-- masks ('' = not known), '1' where another tenant's job or batch of this id is none that it may join
-- Returns 'new', or 'known' and its state, or 'conflict' where the document is another one, or 'full' and the depth, or
-- 'tenant' and the depth where the job's tenant has as many queued as it may, or 'batches' and their number where it is
-- in as many as a job may be, or 'foreign' and the tenant where the batch is another tenant's.
local id, batch, MOST_BATCHES = ARGV[2], ARGV[5], 1000
local tenant, model = ARGV[11] ~= '' and ARGV[11] or batch, ARGV[12]
local job = load(id)
local known = job ~= nil
if ARGV[14] == '1' then
  if job and job.tenant ~= tenant then return {'conflict', job.state} end
  local counts = batch ~= '' and batch_keys(batch)
  if counts and redis.call('EXISTS', counts) == 1 then
    -- That of its first job; without an entry, the batch is the tenant.
    local owner = redis.call('HGET', counts, 'tenant') or batch
    if owner ~= tenant then return {'foreign', owner} end
  end
end

local function write(key)
  redis.call('HDEL', key, unpack(PARTS))
  -- Redis keeps a hash compact as long as none of its values is longer than that.
  if #ARGV[4] > 64 * (#PARTS - 1) then
    redis.call('HSET', key, 'document', ARGV[4])
  else
    for index = 2, math.ceil(#ARGV[4] / 64) + 1 do
      redis.call('HSET', key, PARTS[index], string.sub(ARGV[4], 64 * index - 127, 64 * index - 64))
    end
  end
  redis.call('HSET', key, 'digest', ARGV[3], 'lane', ARGV[6], 'attempts', 0, 'retries', 0)
  -- What is not known counts as one, too, until it is.
  if ARGV[13] ~= '' and ARGV[13] ~= '1' then redis.call('HSET', key, 'masks', ARGV[13]) end
  if ARGV[7] ~= '' then
    redis.call('HSET', key, 'expires_at', now + ARGV[7])
    redis.call('ZADD', prefix .. ':expiring', now + ARGV[7], id)
  end
end

if job then
  if redis.call('HGET', job.key, 'digest') ~= ARGV[3] then
    local may = ENDED[job.state] and (ARGV[10] == 'ended' or (ARGV[10] == 'failed' and job.state ~= 'succeeded'))
    if not may then return {'conflict', job.state} end
    redis.call('HDEL', job.key, 'first_fault_at', 'device_faults', 'expires_at', 'worker', 'claimed_at', 'result',
      'result_uri', 'masks', 'taken', 'cursor', 'progress', 'committed', 'trial', 'poisoned')
    write(job.key)
    job.priority, job.expires_at, job.model = ARGV[6], false, model
    redis.call('HDEL', job.key, 'model')
    if model ~= '' then redis.call('HSET', job.key, 'model', model) end
    wait(job)
  elseif job.state == 'waiting' then
    -- Its place may have been lost, and its ticket, too.
    local number = next_number()
    wait_in_queue(job, number)
    send_ticket(job.model, job.priority, number)
  elseif job.home then
    redis.call('ZADD', job.home, 'NX', now, id)
  end
  if ENDED[job.state] then keep_longer(job, batch) end
else
  if ARGV[8] ~= '' then
    local queued, counts = redis.call('ZCARD', prefix .. ':delayed'), redis.call('HGETALL', depth)
    for index = 2, #counts, 2 do queued = queued + (tonumber(counts[index]) or 0) end
    if queued >= tonumber(ARGV[8]) then return {'full', queued} end
  end
  local most = limits_of(tenant).most_queued
  local queued = most and count_queued(tenant)
  if most and queued >= most then return {'tenant', queued} end
  local key = prefix .. ':job:' .. id
  redis.call('HSET', key, 'state', 'waiting', 'submitted_at', wall)
  write(key)
  if ARGV[9] ~= '' then redis.call('HSET', key, 'traceparent', ARGV[9]) end
  -- Where it is not that of the first batch.
  if tenant ~= batch or batch == '' then redis.call('HSET', key, 'tenant', tenant) end
  if model ~= '' then redis.call('HSET', key, 'model', model) end
  if batch ~= '' then redis.call('HSET', key, 'batches', batch) end
  job = load(id)
  wait_in_queue(job, next_number())
  send_ticket(model, job.priority, latest)
end
if batch ~= '' and not (known and string.find(' ' .. job.batches .. ' ', ' ' .. batch .. ' ', 1, true)) then
  -- Each change of the job is told to each of them, in one script, while everybody else waits.
  local _, spaces = string.gsub(job.batches, ' ', '')
  if spaces + 1 >= MOST_BATCHES then return {'batches', spaces + 1} end
  if known then
    -- Where it waits is decided when it is submitted first.
    if job.batches == '' then redis.call('HSETNX', job.key, 'tenant', job.tenant) end
    redis.call('HSET', job.key, 'batches', job.batches == '' and batch or job.batches .. ' ' .. batch)
  end
  local counts, jobs = batch_keys(batch)
  if redis.call('RPUSH', jobs, id) == 1 and job.tenant ~= batch then redis.call('HSET', counts, 'tenant', job.tenant) end
  tell(batch, job, nil, job.state)
  if ENDED[job.state] then redis.call('PUBLISH', prefix .. ':ended:' .. id, job.state .. ' ' .. batch) end
end
return {known and 'known' or 'new', job.state}
