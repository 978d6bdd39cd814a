-- Goes before every script: the clock, the record, and the one place where a job changes its state.
-- KEYS[1]: the namespace. The other keys are made from it, which Redis Cluster would not allow; Celery's transport does
-- not work there either. ARGV[1]: milliseconds that ended jobs are kept. ARGV[2]: the job's id, where there is one.
local prefix, ttl_ms = KEYS[1], ARGV[1]
local strays = prefix .. ':stray'
local time = redis.call('TIME')
-- Redis's own time: what people are shown.
local wall = time[1] * 1000 + math.floor(time[2] / 1000)

-- The ledger's notes of what it found and did not write are read and logged by the sweeper.
local function report(where, id, why)
  local note = {at = wall, where = string.sub(where, 1, 200), id = string.sub(id, 1, 200), why = why}
  redis.call('RPUSH', strays, cjson.encode(note))
  redis.call('LTRIM', strays, -1000, -1)
end

-- A key of another type than the ledger writes is somebody else's: it is renamed, or no command on it would work.
local function own(key, kind)
  local found = redis.call('TYPE', key).ok
  if found == kind or found == 'none' then return end
  local aside = strays .. ':' .. wall .. ':' .. string.sub(key, #prefix + 2)
  redis.call('RENAME', key, aside)
  report(key, '', 'it was a ' .. found .. ' where the ledger keeps a ' .. kind .. ', and is ' .. aside .. ' now')
end
own(strays, 'list')

-- The ledger's clock, which decides what is due when, never goes back. Where Redis's own does (it was corrected, or a
-- replica with another clock became the master), `ahead` grows by the step. `last` is written once a second: a step of
-- less delays what is due by as much.
local clock = prefix .. ':clock'
own(clock, 'hash')
local marks = redis.call('HMGET', clock, 'last', 'ahead')
local last, ahead = tonumber(marks[1] or 0) or 0, tonumber(marks[2] or 0) or 0
local now = wall + ahead
if now < last then
  now, ahead = last, last - wall
  redis.call('HSET', clock, 'ahead', ahead)
elseif now - last >= 1000 then
  redis.call('HSET', clock, 'last', now)
end

-- In the order in which their messages are served. What was queued before goes ahead of what has not been, so that a
-- long queue does not make a job wait all over again.
local LANES = {'high.again', 'high', 'normal.again', 'normal', 'low.again', 'low'}
local ENDED = {succeeded = true, failed = true, cancelled = true, expired = true}
local GOING = {waiting = true, running = true, delayed = true}
local IS_LANE = {}
for _, lane in ipairs(LANES) do IS_LANE[lane] = true end

local function waiting_key(lane) return prefix .. ':waiting:' .. lane end

-- Before the first change: a script that fails half-way has changed what came before.
for _, name in ipairs({'running', 'delayed', 'expiring', 'dead'}) do own(prefix .. ':' .. name, 'zset') end
for _, lane in ipairs(LANES) do own(waiting_key(lane), 'zset') end
own(prefix .. ':reached', 'hash')

-- The sorted set that holds the jobs of a state; none for those that have ended.
local function place(state, lane)
  if state == 'waiting' then return waiting_key(lane) end
  if state == 'running' or state == 'delayed' then return prefix .. ':' .. state end
end

-- The record of a job; nil where there is none. What is in its place and is no record is renamed.
local function load(id)
  local key = prefix .. ':job:' .. id
  own(key, 'hash')
  local f = redis.call('HMGET', key, 'state', 'lane', 'batches', 'token', 'attempts', 'retries', 'suspect',
    'expires_at', 'cancel_requested', 'worker', 'reasons')
  if not f[1] then return nil end
  local attempts, retries = tonumber(f[5] or ''), tonumber(f[6] or '')
  if not (ENDED[f[1]] or GOING[f[1]]) or not IS_LANE[f[2]] or not attempts or not retries then
    local aside = strays .. ':' .. wall .. ':job:' .. id
    redis.call('RENAME', key, aside)
    report(key, id, 'its state, lane or counts are damaged; the record is ' .. aside .. ' now')
    return nil
  end
  return {id = id, key = key, state = f[1], lane = f[2], batches = f[3] or '', token = f[4], attempts = attempts,
    retries = retries, suspect = f[7], cancel_requested = f[9], expires_at = f[8] and tonumber(f[8]),
    worker = f[10] or '', reasons = f[11] or ''}
end

-- The job of an entry of a sorted set; nil where the entry does not belong there, and then it is gone from there.
local function entry_of(set, id)
  local job = load(id)
  local home = job and place(job.state, job.lane)
  if home == set then return job end
  redis.call('ZREM', set, id)
  -- Due now: whoever looks there next finds out what is to be done.
  if home then redis.call('ZADD', home, 'NX', now, id) end
  report(set, id, job and 'its record says ' .. job.state or 'it has no record')
end

local function public(state)
  if state == 'waiting' or state == 'delayed' then return 'queued' end
  return state
end

local function batch_keys(batch)
  local key = prefix .. ':batch:'
  local counts, jobs, events = key .. 'counts:' .. batch, key .. 'jobs:' .. batch, key .. 'events:' .. batch
  own(counts, 'hash')
  own(jobs, 'list')
  own(events, 'stream')
  return counts, jobs, events
end

-- An ended job's record and batch are kept as long again as from its end: somebody wants them.
local function keep_longer(job, batch)
  -- A dead letter has no time to live, and gets none.
  if redis.call('PTTL', job.key) >= 0 then redis.call('PEXPIRE', job.key, ttl_ms) end
  if batch == '' then return end
  local counts, jobs, events = batch_keys(batch)
  for _, key in ipairs({counts, jobs, events}) do
    if redis.call('PTTL', key) >= 0 then redis.call('PEXPIRE', key, ttl_ms) end
  end
end

-- A batch hears of a job's change: its counts, an event for a job that has ended, and how long it is kept.
local function tell(batch, job, before, after)
  local counts, jobs, events = batch_keys(batch)
  if before then redis.call('HINCRBY', counts, public(before), -1) end
  redis.call('HINCRBY', counts, public(after), 1)
  if ENDED[after] then
    redis.call('XADD', events, '*', 'job_id', job.id, 'state', after)
    local left = redis.call('HMGET', counts, 'queued', 'running')
    if tonumber(left[1] or 0) + tonumber(left[2] or 0) == 0 then
      for _, key in ipairs({counts, jobs, events}) do redis.call('PEXPIRE', key, ttl_ms) end
    end
  elseif not before or ENDED[before] then
    for _, key in ipairs({counts, jobs, events}) do redis.call('PERSIST', key) end
  end
end

-- How many jobs failed with which code in each minute, for an hour.
local function count_failure(job)
  local key = prefix .. ':failures:' .. math.floor(wall / 60000)
  own(key, 'hash')
  redis.call('HINCRBY', key, redis.call('HGET', job.key, 'error_code') or '', 1)
  redis.call('EXPIRE', key, 3600)
end

-- Another state, and with it another place, the counts and events of the batches, and the time to live. `score`
-- orders the job in its new place: when its message was sent (waiting), when the lease ends (running), when it is due
-- (delayed).
local function move(job, after, score)
  local left, entered = place(job.state, job.lane), place(after, job.lane)
  if left and left ~= entered then redis.call('ZREM', left, job.id) end
  if entered then redis.call('ZADD', entered, score, job.id) end
  redis.call('HSET', job.key, 'state', after)
  if ENDED[after] then
    redis.call('HSET', job.key, 'finished_at', wall)
    if after == 'failed' then count_failure(job) end
    redis.call('HDEL', job.key, 'token', 'cancel_requested', 'suspect')
    -- All ends there ever were, for the exporter. `pcall`: a count that fails must not keep a job from ending.
    local code = after == 'failed' and redis.call('HGET', job.key, 'error_code') or ''
    redis.pcall('HINCRBY', prefix .. ':totals', after .. ':' .. code, 1)
    redis.call('ZREM', prefix .. ':expiring', job.id)
    redis.call('PEXPIRE', job.key, ttl_ms)
    -- For whoever waits for this one job, or for one of its batches; nobody has to.
    redis.call('PUBLISH', prefix .. ':ended:' .. job.id, after .. ' ' .. job.batches)
  elseif ENDED[job.state] then
    redis.call('PERSIST', job.key)
    redis.call('HDEL', job.key, 'finished_at', 'error_code', 'error_message')
    redis.call('ZREM', prefix .. ':dead', job.id)
  end
  if public(job.state) ~= public(after) then
    for batch in string.gmatch(job.batches, '%S+') do tell(batch, job, job.state, after) end
  end
  job.state = after
end

-- Into the queue again; a job whose time in the queue is over is not run any more.
local function wait_again(job)
  if job.cancel_requested then return move(job, 'cancelled') end
  if job.expires_at and job.expires_at <= now then return move(job, 'expired') end
  local left = place(job.state, job.lane)
  if left then redis.call('ZREM', left, job.id) end
  job.lane = string.match(job.lane, '^%a+') .. '.again'
  redis.call('HSET', job.key, 'lane', job.lane)
  move(job, 'waiting', now)
end

-- Whether the attempt that the token stands for may still speak for the job: it runs, or its lease has lapsed and
-- nobody else has taken it (fencing: a worker that was frozen cannot overwrite a newer attempt).
local function holds(job, token)
  return job and (job.state == 'running' or job.state == 'waiting') and job.token == token
end

-- Why an attempt did not end its job, for whoever looks at it later.
local function remember(job, worker, code, message)
  job.reasons = job.reasons .. cjson.encode({at = wall, worker = worker, code = code, message = message}) .. '\n'
  redis.call('HSET', job.key, 'reasons', job.reasons)
end

-- Failed, and kept without a time to live on the list of dead letters, since its input may be fine.
local function bury(job, code, message)
  redis.call('HSET', job.key, 'error_code', code, 'error_message', message)
  move(job, 'failed')
  redis.call('PERSIST', job.key)
  redis.call('ZADD', prefix .. ':dead', wall, job.id)
end
