#!lua flags=allow-oom
-- The sweeper's round, by one sweeper at a time: what time alone changes, and whose message has to be sent (again).
-- ARGV[2..]: sweeper, lock_ms, most jobs per step, most attempts, stranded_after_ms, the queue's keys by lane
-- Returns whether this sweeper held the lock, the numbers of jobs whose lease had lapsed, that were poisoned, due,
-- expired and stranded, the notes on what was put aside, and then id and lane of each job that needs a message.
local sweeper, lock, limit = ARGV[2], prefix .. ':keeper', ARGV[4]
local most_attempts, stranded_after = tonumber(ARGV[5]), tonumber(ARGV[6])
local reached = prefix .. ':reached'
-- An entry that could not be handled is looked at again after so many milliseconds, behind the others.
local LATER = 60000
own(lock, 'string')
-- By the ledger's clock, too: a time to live is counted by Redis's, which may be put back.
local holder, held_until = redis.call('GET', lock), tonumber(redis.call('HGET', clock, 'held_until') or '')
if holder and holder ~= sweeper and (not held_until or now < held_until) then return {0} end
redis.call('SET', lock, sweeper, 'PX', ARGV[3])
redis.call('HSET', clock, 'held_until', now + ARGV[3])
local lapsed, poisoned, due, expired, stranded = 0, 0, 0, 0, 0
local send = {}

local function ready(job)
  wait_again(job)
  if job.state == 'waiting' then
    send[#send + 1] = job.id
    send[#send + 1] = job.lane
  end
end

-- What goes wrong with one entry is told, and does not keep the others from being handled.
local function handle(set, id, step)
  local done, why = pcall(step, id)
  if done then return end
  redis.call('ZADD', set, 'XX', now + LATER, id)
  report(set, id, 'it could not be handled: ' .. tostring(type(why) == 'table' and why.err or why))
end

local function each(name, step)
  local set = prefix .. ':' .. name
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, limit)) do handle(set, id, step) end
end

each('running', function(id)
  local job = entry_of(prefix .. ':running', id)
  if not job then return end
  lapsed = lapsed + 1
  remember(job, job.worker, 'worker_lost',
    'The lease of attempt ' .. job.attempts .. ' lapsed: its worker was killed, crashed or was cut off.')
  if job.attempts >= most_attempts and not job.cancel_requested then
    poisoned = poisoned + 1
    bury(job, 'poisoned', job.attempts .. ' attempts in a row ended with their worker, the last of them ' ..
      'alone in its process, so this job probably kills it: look at its image and masks, and at the log of ' ..
      job.worker .. '. It is kept as a dead letter; `maskscore dead requeue` runs it again.')
  else
    redis.call('HSET', job.key, 'suspect', 1)
    ready(job)
  end
end)

each('delayed', function(id)
  local job = entry_of(prefix .. ':delayed', id)
  if not job then return end
  due = due + 1
  ready(job)
end)

each('expiring', function(id)
  local job = load(id)
  redis.call('ZREM', prefix .. ':expiring', id)
  if not job then return report(prefix .. ':expiring', id, 'it has no record') end
  if job.state == 'waiting' or job.state == 'delayed' then
    expired = expired + 1
    move(job, 'expired')
  end
end)

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

-- Messages of one lane come out in the order they went in. So a job that still waits, although one sent later was
-- taken a while ago, has lost its message; and so has one that waits for a while beside an empty queue. `reached` is
-- how far claims have come now, `seen` at the time `seen_at`, `passed` at least stranded_after before now.
for number, lane in ipairs(LANES) do
  local marks = redis.call('HMGET', reached, lane, lane .. ':seen', lane .. ':seen_at', lane .. ':passed')
  local passed = tonumber(marks[4] or 0)
  if not marks[3] or now - marks[3] >= stranded_after then
    passed = tonumber(marks[2] or 0)
    redis.call('HSET', reached, lane .. ':seen', marks[1] or 0, lane .. ':seen_at', now, lane .. ':passed', passed)
  end
  local empty = redis.call('LLEN', ARGV[6 + number]) == 0
  local old = redis.call('ZRANGEBYSCORE', waiting_key(lane), '-inf', now - stranded_after, 'WITHSCORES', 'LIMIT', 0, limit)
  for index = 1, #old, 2 do
    if not empty and tonumber(old[index + 1]) >= passed then break end
    handle(waiting_key(lane), old[index], function(id)
      local job = entry_of(waiting_key(lane), id)
      if not job then return end
      stranded = stranded + 1
      ready(job)
    end)
  end
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
return {1, lapsed, poisoned, due, expired, stranded, notes, unpack(send)}
