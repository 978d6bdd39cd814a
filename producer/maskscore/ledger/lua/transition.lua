-- Goes before every script: the clock, the record, the waiting jobs, and the one place where a job changes its state.
-- KEYS[1]: the namespace. The other keys are made from it, which Redis Cluster would not allow; Celery's transport does
-- not work there either. ARGV[1]: milliseconds that ended jobs are kept. ARGV[2]: the job's id, where there is one. The last
-- one of ARGV: what holds for a tenant for which nothing else is set, as JSON.
-- TICKET is a Celery message with two gaps for its id.
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
local owned = {}
local function own(key, kind)
  if owned[key] then return key end
  owned[key] = true
  local found = redis.call('TYPE', key).ok
  if found == kind or found == 'none' then return key end
  local aside = strays .. ':' .. wall .. ':' .. string.sub(key, #prefix + 2)
  redis.call('RENAME', key, aside)
  report(key, '', 'it was a ' .. found .. ' where the ledger keeps a ' .. kind .. ', and is ' .. aside .. ' now')
  return key
end
own(strays, 'list')

-- By HGETALL, which everybody's rights have; HKEYS is in nobody's.
local function fields_of(hash)
  local fields, entries = {}, redis.call('HGETALL', hash)
  for at = 1, #entries, 2 do fields[#fields + 1] = entries[at] end
  return fields
end

-- The ledger's clock, which decides what is due when, never goes back. Where Redis's own does (it was corrected, or a
-- replica with another clock became the master), `ahead` grows by the step. `last` is written once a second: a step of
-- less delays what is due by as much.
local clock = own(prefix .. ':clock', 'hash')
local marks = redis.call('HMGET', clock, 'last', 'ahead', 'sequence')
local last, ahead = tonumber(marks[1] or 0) or 0, tonumber(marks[2] or 0) or 0
local now, latest = wall + ahead, tonumber(marks[3] or 0) or 0
if now < last then
  now, ahead = last, last - wall
  redis.call('HSET', clock, 'ahead', ahead)
elseif now - last >= 1000 then
  redis.call('HSET', clock, 'last', now)
end

-- A number greater than all before, and about the microseconds of the ledger's clock: it orders jobs, and tells how long
-- one has waited.
local function next_number()
  latest = math.max(latest + 1, now * 1000)
  redis.call('HSET', clock, 'sequence', latest)
  return latest
end

-- The fields that hold a document: as a whole, or in pieces.
local PARTS = {'document', 'd1', 'd2', 'd3', 'd4', 'd5', 'd6', 'd7', 'd8', 'd9'}
-- In the order in which they are served, with the priorities that their tickets have as Celery's messages.
local PRIORITIES, CELERY_PRIORITY = {'high', 'normal', 'low'}, {high = 1, normal = 3, low = 5}
local ENDED = {succeeded = true, failed = true, cancelled = true, expired = true}
local GOING = {waiting = true, running = true, delayed = true}

-- Before the first change: a script that fails half-way has changed what came before.
for _, name in ipairs({'running', 'delayed', 'expiring', 'dead'}) do own(prefix .. ':' .. name, 'zset') end
local depth, limits = own(prefix .. ':depth', 'hash'), own(prefix .. ':tenants', 'hash')

-- A sorted set per priority, model and tenant holds its waiting jobs by their numbers. Another one per priority and
-- model holds the tenants by their next turn. Suspects wait apart, by the time from which a worker may look at them.
local function tenants_key(priority, model) return own(prefix .. ':turns:' .. priority .. ':' .. model, 'zset') end
-- Tenants whose bucket is empty rest in a set apart, with the turn that they keep.
local function resting_key(priority, model) return own(prefix .. ':resting:' .. priority .. ':' .. model, 'zset') end
local function queue_key(priority, model, tenant)
  return own(prefix .. ':queue:' .. priority .. ':' .. model .. ':' .. tenant, 'zset')
end
local function suspects_key(model) return own(prefix .. ':suspects:' .. model, 'zset') end
local function busy_key(tenant) return own(prefix .. ':busy:' .. tenant, 'zset') end

-- The sorted set that holds a job in a state; none for those that have ended.
local function place(job, state)
  if state == 'waiting' then
    return job.suspect and suspects_key(job.model) or queue_key(job.priority, job.model, job.tenant)
  end
  if state == 'running' or state == 'delayed' then return prefix .. ':' .. state end
end

-- The record of a job; nil where there is none. What is in its place and is no record is renamed.
local function load(id)
  local key = own(prefix .. ':job:' .. id, 'hash')
  local f = redis.call('HMGET', key, 'state', 'lane', 'batches', 'token', 'attempts', 'retries', 'suspect',
    'expires_at', 'cancel_requested', 'worker', 'reasons', 'tenant', 'model', 'number')
  if not f[1] then return nil end
  local attempts, retries = tonumber(f[5] or ''), tonumber(f[6] or '')
  -- Release 0 wrote `normal.again` for what had been queued before.
  local priority = string.match(f[2] or '', '^%a+')
  if not (ENDED[f[1]] or GOING[f[1]]) or not CELERY_PRIORITY[priority] or not attempts or not retries then
    local aside = strays .. ':' .. wall .. ':job:' .. id
    redis.call('RENAME', key, aside)
    report(key, id, 'its state, lane or counts are damaged; the record is ' .. aside .. ' now')
    return nil
  end
  local batches = f[3] or ''
  local job = {id = id, key = key, state = f[1], priority = priority, batches = batches, token = f[4],
    attempts = attempts, retries = retries, suspect = f[7], cancel_requested = f[9],
    expires_at = f[8] and tonumber(f[8]), worker = f[10] or '', reasons = f[11] or '',
    tenant = f[12] or string.match(batches, '^%S*'), model = f[13] or '', number = tonumber(f[14] or '')}
  job.home = place(job, job.state)
  return job
end

local function public(state)
  if state == 'waiting' or state == 'delayed' then return 'queued' end
  return state
end

local function batch_keys(batch)
  local key = prefix .. ':batch:'
  return own(key .. 'counts:' .. batch, 'hash'), own(key .. 'jobs:' .. batch, 'list'),
    own(key .. 'events:' .. batch, 'stream')
end

-- An ended job's record and batch are kept as long again as from its end: somebody wants them.
local function keep_longer(job, batch)
  -- A dead letter has no time to live, and gets none.
  if redis.call('PTTL', job.key) >= 0 then redis.call('PEXPIRE', job.key, ttl_ms) end
  if batch == '' then return end
  for _, key in ipairs({batch_keys(batch)}) do
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
  local key = own(prefix .. ':failures:' .. math.floor(wall / 60000), 'hash')
  redis.call('HINCRBY', key, redis.call('HGET', job.key, 'error_code') or '', 1)
  redis.call('EXPIRE', key, 3600)
end

-- A ticket entitles the worker that takes it to the next job of a model, whichever that is. `pcall`: one that is not
-- sent is made good by the sweeper, which counts.
local function queue_list(model, number)
  local queue = prefix .. (model == '' and '' or '.' .. model)
  return prefix .. ':celery:' .. queue .. (number == 0 and '' or '\6\22' .. number)
end
local function send_ticket(model, priority, number)
  local id = string.format('%.0f', number)
  redis.pcall('LPUSH', queue_list(model, CELERY_PRIORITY[priority]), string.format(TICKET, id, id))
end

-- What is set for a tenant, and for all without their own: its weight, the most jobs it may have queued and running, and
-- the masks per second that its bucket is filled with.
local function limits_of(tenant)
  local held, text = cjson.decode(ARGV[#ARGV]), redis.call('HGET', limits, tenant)
  held.weight = held.weight or 1
  if not text then return held end
  local readable, set = pcall(cjson.decode, text)
  readable = readable and type(set) == 'table'
  for _, value in pairs(readable and set or {}) do readable = readable and type(value) == 'number' end
  if not (readable and (set.weight or 1) > 0 and (set.masks_per_second or 1) > 0) then
    redis.call('HDEL', limits, tenant)
    report(limits, tenant, 'these are no limits of a tenant, and are removed: ' .. string.sub(text, 1, 200))
    return held
  end
  for name, value in pairs(set) do held[name] = value end
  return held
end

-- How many jobs of a tenant wait, of any model.
local function count_queued(tenant)
  local queued = 0
  for _, model in ipairs(fields_of(depth)) do
    for _, priority in ipairs(PRIORITIES) do
      queued = queued + redis.call('ZCARD', queue_key(priority, model, tenant))
    end
  end
  return queued
end

-- A tenant's bucket holds masks, and is kept as the time until which those that were taken are paid for: in the future
-- where it is empty, and BURST_MS ago, or no entry, where it is full. The time is the ledger's, which never goes back;
-- where Redis's clock leaps ahead, buckets are full at once, and no fuller than that. One job may take more than there
-- is, so that any job is run some time; the next one waits for it.
local BURST_MS = 2000
local buckets, paused = own(prefix .. ':buckets', 'zset'), own(prefix .. ':paused', 'zset')
local function paid_until(tenant) return tonumber(redis.call('ZSCORE', buckets, tenant) or '') or 0 end
local function take_masks(tenant, per_second, masks)
  local paid = math.max(paid_until(tenant), now - BURST_MS) + masks * 1000 / per_second
  redis.call('ZADD', buckets, paid, tenant)
  return paid
end

-- A tenant with an empty bucket takes no turns until it is filled.
local function pause(tenant, priority, model, turn, paid)
  redis.call('ZREM', tenants_key(priority, model), tenant)
  redis.call('ZADD', resting_key(priority, model), turn, tenant)
  redis.call('ZADD', paused, paid, tenant)
end

-- Those whose bucket is filled again take turns again; a ticket each, since they have none.
local function resume(most)
  for _, tenant in ipairs(redis.call('ZRANGEBYSCORE', paused, '-inf', now, 'LIMIT', 0, most)) do
    redis.call('ZREM', paused, tenant)
    for _, model in ipairs(fields_of(depth)) do
      for _, priority in ipairs(PRIORITIES) do
        local resting = resting_key(priority, model)
        local turn = redis.call('ZSCORE', resting, tenant)
        if turn then
          redis.call('ZREM', resting, tenant)
          redis.call('ZADD', tenants_key(priority, model), turn, tenant)
          if redis.call('EXISTS', queue_key(priority, model, tenant)) == 1 then
            send_ticket(model, priority, next_number())
          end
        end
      end
    end
  end
end

-- The tenants that may have jobs waiting: those that take turns, and those that rest; `most` of each.
local function tenants_of(priority, model, most)
  local found = redis.call('ZRANGE', tenants_key(priority, model), 0, most - 1)
  for _, tenant in ipairs(redis.call('ZRANGE', resting_key(priority, model), 0, most - 1)) do
    found[#found + 1] = tenant
  end
  return found
end

-- How many jobs of a tenant run, `most` of which may. Where it has as many, those that were counted and do not run any
-- more are taken off. `pcall`: what is in a record's place may be none.
local function count_running(tenant, most)
  local busy = busy_key(tenant)
  local running = redis.call('ZCARD', busy)
  if running < most then return running end
  for _, id in ipairs(redis.call('ZRANGE', busy, 0, -1)) do
    if redis.pcall('HGET', prefix .. ':job:' .. id, 'state') ~= 'running' then
      running = running - redis.call('ZREM', busy, id)
    end
  end
  return running
end

-- The jobs of named models that run or are delayed, by `state:model`; the others in those sets are the default one's.
local going = own(prefix .. ':going', 'hash')
local function count_going(model, state, change)
  if model == '' or not (state == 'running' or state == 'delayed') then return end
  local field = state .. ':' .. model
  if redis.pcall('HINCRBY', going, field, change) == 0 then redis.call('HDEL', going, field) end
end

-- `pcall`: where somebody else has written, the sweeper counts anew.
local function count_waiting(model, change) redis.pcall('HINCRBY', depth, model, change) end

-- A suspect waits by the time from which a worker may look at it: at once.
local function wait_in_queue(job, number)
  if redis.call('ZADD', job.home, 'NX', job.suspect and now or number, job.id) == 1 then
    count_waiting(job.model, 1)
  end
  if job.suspect or redis.call('ZSCORE', resting_key(job.priority, job.model), job.tenant) then return end
  -- A new tenant begins at the present turn: it neither waits for those before it, nor has saved up turns.
  local turn = redis.call('HGET', clock, 'turn:' .. job.priority .. ':' .. job.model)
  redis.call('ZADD', tenants_key(job.priority, job.model), 'NX', tonumber(turn or '') or 0, job.tenant)
end

-- The job of an entry of a sorted set; nil where the entry does not belong there, and then it is gone from there.
local function entry_of(set, id)
  local job = load(id)
  if job and job.home == set then return job end
  redis.call('ZREM', set, id)
  if job and job.state == 'waiting' then
    wait_in_queue(job, next_number())
  elseif job and job.home then
    -- Due now: whoever looks there next finds out what is to be done.
    redis.call('ZADD', job.home, 'NX', now, id)
  end
  report(set, id, job and 'its record says ' .. job.state or 'it has no record')
end

local function leave_queue(job)
  if redis.call('ZREM', job.home, job.id) == 0 then return end
  count_waiting(job.model, -1)
  if job.suspect or redis.call('ZCARD', job.home) > 0 then return end
  -- One whose next turn is still to come stays until then, or it could come back for another turn at once.
  local tenants = tenants_key(job.priority, job.model)
  local turn = tonumber(redis.call('HGET', clock, 'turn:' .. job.priority .. ':' .. job.model) or '') or 0
  if (tonumber(redis.call('ZSCORE', tenants, job.tenant) or '') or 0) <= turn then
    redis.call('ZREM', tenants, job.tenant)
  end
end

-- A tenant that had as many running as it may had no tickets for its others, which may be of other models.
local function send_tickets_of(tenant)
  for _, model in ipairs(fields_of(depth)) do
    for _, priority in ipairs(PRIORITIES) do
      if redis.call('EXISTS', queue_key(priority, model, tenant)) == 1 then
        send_ticket(model, priority, next_number())
        break
      end
    end
  end
end

-- Another state, and with it another place, the counts and events of the batches, and the time to live. `score`
-- orders the job in its new place: its number (waiting), when the lease ends (running), when it is due (delayed).
local function move(job, after, score)
  local home = place(job, after)
  if job.home and job.home ~= home then
    if job.state == 'waiting' then leave_queue(job) else redis.call('ZREM', job.home, job.id) end
    if job.state == 'running' and redis.call('ZREM', busy_key(job.tenant), job.id) == 1
      and limits_of(job.tenant).most_running then
      send_tickets_of(job.tenant)
    end
  end
  if after == 'running' and job.state ~= after then redis.call('ZADD', busy_key(job.tenant), now, job.id) end
  job.home = home
  if job.state ~= after then
    count_going(job.model, job.state, -1)
    count_going(job.model, after, 1)
  end
  if after == 'waiting' then wait_in_queue(job, score) elseif home then redis.call('ZADD', home, score, job.id) end
  if ENDED[after] then
    redis.call('HSET', job.key, 'state', after, 'finished_at', wall)
    if after == 'failed' then count_failure(job) end
    redis.call('HDEL', job.key, 'token', 'cancel_requested', 'suspect', 'number')
    -- All ends there ever were, for the exporter. `pcall`: a count that fails must not keep a job from ending.
    local code = after == 'failed' and redis.call('HGET', job.key, 'error_code') or ''
    redis.pcall('HINCRBY', prefix .. ':totals', after .. ':' .. code, 1)
    if job.expires_at then redis.call('ZREM', prefix .. ':expiring', job.id) end
    redis.call('PEXPIRE', job.key, ttl_ms)
    -- For whoever waits for this one job, or for one of its batches; nobody has to.
    redis.call('PUBLISH', prefix .. ':ended:' .. job.id, after .. ' ' .. job.batches)
  else
    redis.call('HSET', job.key, 'state', after)
    if ENDED[job.state] then
      redis.call('PERSIST', job.key)
      redis.call('HDEL', job.key, 'finished_at', 'error_code', 'error_message')
      redis.call('ZREM', prefix .. ':dead', job.id)
    end
  end
  if public(job.state) ~= public(after) then
    for batch in string.gmatch(job.batches, '%S+') do tell(batch, job, job.state, after) end
  end
  job.state = after
end

-- Into the queue, and a ticket with it. One that was there before has its old number, and goes ahead of what came later;
-- one whose time in the queue is over is not run any more.
local function wait(job)
  if job.cancel_requested then return move(job, 'cancelled') end
  if job.expires_at and job.expires_at <= now then return move(job, 'expired') end
  local number = next_number()
  move(job, 'waiting', job.number or number)
  send_ticket(job.model, job.priority, number)
end

-- Jobs that release 0 queued lie in sets of their own, by when their message was sent. Returns how many were taken over.
local OLD_SETS = {}
for _, lane in ipairs({'high.again', 'high', 'normal.again', 'normal', 'low.again', 'low'}) do
  OLD_SETS[#OLD_SETS + 1] = prefix .. ':waiting:' .. lane
end
local function take_over(most)
  local taken = 0
  for _, set in ipairs(OLD_SETS) do
    own(set, 'zset')
    local entries = redis.call('ZRANGE', set, 0, most - taken - 1, 'WITHSCORES')
    for index = 1, #entries, 2 do
      local job = load(entries[index])
      redis.call('ZREM', set, entries[index])
      taken = taken + 1
      if job and job.state == 'waiting' then
        wait_in_queue(job, entries[index + 1] * 1000)
      else
        report(set, entries[index], job and 'its record says ' .. job.state or 'it has no record')
      end
    end
    if taken >= most then break end
  end
  return taken
end

-- Whether the attempt that the token stands for may still speak for the job: it runs, or its lease has lapsed and
-- nobody else has taken it (fencing: a worker that was frozen cannot overwrite a newer attempt).
local function holds(job, token)
  return job and (job.state == 'running' or job.state == 'waiting') and job.token == token
end

-- What may end its worker or break its device runs alone from now on.
local function suspect(job)
  if job.suspect then return end
  -- Where it waits as another, it leaves before.
  if job.state == 'waiting' then leave_queue(job) end
  redis.call('HSET', job.key, 'suspect', 1)
  job.suspect = '1'
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
