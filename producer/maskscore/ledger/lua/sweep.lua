#!lua flags=allow-oom
-- The sweeper's round, by one sweeper at a time: what time alone changes, and the tickets that are missing.
-- ARGV[2..]: sweeper, lock_ms, most jobs per step, most attempts
-- Returns whether this sweeper held the lock, the numbers of jobs whose lease had lapsed, that were poisoned, due and
-- expired, and of tickets that were missing, whether there is more to do at once, and the notes on what was put aside.
local sweeper, lock, limit, most_attempts = ARGV[2], prefix .. ':keeper', tonumber(ARGV[4]), tonumber(ARGV[5])
-- An entry that could not be handled is looked at again after so many milliseconds, behind the others.
local LATER = 60000
-- Tickets beyond the waiting jobs end by themselves; so many are left to it. Tenants are counted one by one up to this.
local SPARE, MOST_COUNTED = 1000, 1000
-- Release 0 sends messages that name a job, in its own order; its sweepers find this one's name there, and do nothing.
local KIND = 'tickets '
own(lock, 'string')
-- By the ledger's clock, too: a time to live is counted by Redis's, which may be put back.
local holder, held_until = redis.call('GET', lock), tonumber(redis.call('HGET', clock, 'held_until') or '')
local held = holder and string.sub(holder, 1, #KIND) == KIND and holder ~= KIND .. sweeper
if held and (not held_until or now < held_until) then return {0} end
redis.call('SET', lock, KIND .. sweeper, 'PX', ARGV[3])
redis.call('HSET', clock, 'held_until', now + ARGV[3])
local lapsed, poisoned, due, expired, missing = 0, 0, 0, 0, 0

-- What goes wrong with one entry is told, and does not keep the others from being handled.
local function each(name, step)
  local set = prefix .. ':' .. name
  local ids = redis.call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, limit)
  for _, id in ipairs(ids) do
    local done, why = pcall(step, id, set)
    if not done then
      redis.call('ZADD', set, 'XX', now + LATER, id)
      report(set, id, 'it could not be handled: ' .. tostring(type(why) == 'table' and why.err or why))
    end
  end
  return #ids >= limit
end

local more = take_over(limit) >= limit

-- A shard's image that was begun alone when the last attempt's worker was lost is left out from now on.
local function blame(job)
  local position, token = string.match(redis.call('HGET', job.key, 'trial') or '', '^(%d+) (%S+)')
  if not position or token ~= job.token then return false end
  local found = redis.call('HGET', job.key, 'poisoned')
  redis.call('HSET', job.key, 'poisoned', found and found .. ' ' .. position or position, 'attempts', 0)
  redis.call('HDEL', job.key, 'trial')
  return true
end

more = each('running', function(id, set)
  local job = entry_of(set, id)
  if not job then return end
  lapsed = lapsed + 1
  remember(job, job.worker, 'worker_lost',
    'The lease of attempt ' .. job.attempts .. ' lapsed: its worker was killed, crashed or was cut off.')
  if redis.call('HGET', job.key, 'committed') == job.token then
    -- It has committed a part of a shard: nothing says that the next one ends workers.
    redis.call('HSET', job.key, 'attempts', 0)
    wait(job)
  elseif job.attempts >= most_attempts and not job.cancel_requested and blame(job) then
    suspect(job)
    wait(job)
  elseif job.attempts >= most_attempts and not job.cancel_requested then
    poisoned = poisoned + 1
    bury(job, 'poisoned', job.attempts .. ' attempts in a row ended with their worker, the last of them ' ..
      'alone in its process, so this job probably kills it: look at its image and masks, and at the log of ' ..
      job.worker .. '. It is kept as a dead letter; `maskscore dead requeue` runs it again.')
  else
    suspect(job)
    wait(job)
  end
end) or more

more = each('delayed', function(id, set)
  local job = entry_of(set, id)
  if not job then return end
  due = due + 1
  wait(job)
end) or more

more = each('expiring', function(id, set)
  local job = load(id)
  redis.call('ZREM', set, id)
  if not job then return report(set, id, 'it has no record') end
  if job.state == 'waiting' or job.state == 'delayed' then
    expired = expired + 1
    move(job, 'expired')
  end
end) or more

-- Dead letters have no time at which they are looked at: a few in each round, all in turn.
local dead, from = prefix .. ':dead', tonumber(redis.call('HGET', clock, 'dead_from') or '') or 0
local letters = redis.call('ZRANGE', dead, from, from + 19)
for _, id in ipairs(letters) do
  local job = load(id)
  if not job or job.state ~= 'failed' then
    redis.call('ZREM', dead, id)
    report(dead, id, job and 'its record says ' .. job.state or 'it has no record')
  end
end
if #letters > 0 or from > 0 then redis.call('HSET', clock, 'dead_from', #letters == 20 and from + 20 or 0) end

-- How many of a tenant's waiting jobs could be started now: the others need no tickets yet. Of one with a bucket, it is
-- one at a time; each claim sends the next one's ticket.
local function startable(tenant, count)
  local limit = limits_of(tenant)
  if limit.most_running then
    count = math.min(count, math.max(0, limit.most_running - count_running(tenant, limit.most_running)))
  end
  if limit.masks_per_second then count = paid_until(tenant) > now and 0 or math.min(count, 1) end
  return count
end

-- The jobs of a model that wait, and those of them that could not be taken now. The former as counted with each change,
-- and counted anew where that is little work, since others may have changed the sets.
local function recount_waiting(model, counted)
  local tenants, queued, blocked, anew = 0, {}, 0, redis.call('ZCARD', suspects_key(model))
  for _, priority in ipairs(PRIORITIES) do
    tenants = tenants + redis.call('ZCARD', tenants_key(priority, model))
      + redis.call('ZCARD', resting_key(priority, model))
  end
  local few = tenants <= MOST_COUNTED
  local own_limits = few and {} or fields_of(limits)
  for _, priority in ipairs(PRIORITIES) do
    for _, tenant in ipairs(few and tenants_of(priority, model, MOST_COUNTED) or own_limits) do
      local count = redis.call('ZCARD', queue_key(priority, model, tenant))
      anew = anew + count
      queued[tenant] = (queued[tenant] or 0) + count
    end
  end
  for tenant, count in pairs(queued) do blocked = blocked + count - startable(tenant, count) end
  if not few then return math.max(counted, 1), blocked end
  if anew ~= counted then redis.call('HSET', depth, model, anew) end
  return anew, blocked
end

-- Anybody may ask for any name: of a model without jobs and turns nothing is kept.
local function forget(model)
  for _, priority in ipairs(PRIORITIES) do
    if redis.call('EXISTS', tenants_key(priority, model), resting_key(priority, model)) > 0 then return end
  end
  redis.call('HDEL', depth, model)
  for _, priority in ipairs(PRIORITIES) do redis.call('HDEL', clock, 'turn:' .. priority .. ':' .. model) end
end

resume(limit)
-- A bucket that is full needs no entry.
redis.call('ZREMRANGEBYSCORE', buckets, '-inf', now - BURST_MS)
local counts = redis.call('HGETALL', depth)
for index = 1, #counts, 2 do
  local model = counts[index]
  local waiting, blocked = recount_waiting(model, tonumber(counts[index + 1]) or 0)
  local needed = waiting - blocked
  local there = 0
  -- Those that workers have taken ahead are not among them. They may be late, or lost; one too many costs little.
  for number = 0, 5 do there = there + redis.call('LLEN', own(queue_list(model, number), 'list')) end
  for _ = there + 1, math.min(needed, there + limit) do
    send_ticket(model, 'normal', next_number())
    missing = missing + 1
  end
  more = more or needed > there + limit
  local idle = model ~= '' and waiting == 0
  -- Of a named model there may be no worker that ends them.
  local spare = there - needed - (idle and 0 or SPARE)
  for number = 5, 0, -1 do
    if spare > 0 then
      local list = queue_list(model, number)
      local length = redis.call('LLEN', list)
      if length > spare then redis.call('LTRIM', list, 0, length - 1 - spare) else redis.call('DEL', list) end
      spare = spare - length
    end
  end
  if idle then forget(model) end
end

-- The jobs of named models that run or are delayed are counted anew, too, where they are few.
local function recount_going(state)
  local set, counted = prefix .. ':' .. state, {}
  if redis.call('ZCARD', set) > MOST_COUNTED then return end
  for _, id in ipairs(redis.call('ZRANGE', set, 0, -1)) do
    local model = redis.pcall('HGET', prefix .. ':job:' .. id, 'model')
    if type(model) == 'string' and model ~= '' then counted[model] = (counted[model] or 0) + 1 end
  end
  for _, field in ipairs(fields_of(going)) do
    if string.match(field, '^%a+') == state then redis.call('HDEL', going, field) end
  end
  for model, count in pairs(counted) do redis.call('HSET', going, state .. ':' .. model, count) end
end
if redis.call('EXISTS', going) == 1 then
  recount_going('running')
  recount_going('delayed')
end

-- The latest notes are kept for whoever looks into the ledger later.
local notes, noted = redis.call('LRANGE', strays, 0, -1), strays .. ':noted'
if #notes > 0 then
  own(noted, 'list')
  redis.call('RPUSH', noted, unpack(notes))
  redis.call('LTRIM', noted, -100, -1)
  redis.call('EXPIRE', noted, 7 * 86400)
  redis.call('DEL', strays)
end
return {1, lapsed, poisoned, due, expired, missing, more and 1 or 0, notes}
