#!lua flags=allow-oom
-- The keeper's round, by one keeper at a time: what time alone changes, and whose message has to be sent (again).
-- ARGV[2..]: keeper, lock_ms, most jobs per step, most attempts, stranded_after_ms, the queue's keys by lane
-- Returns whether this keeper held the lock, the numbers of jobs whose lease had lapsed, that were poisoned, due,
-- expired and stranded, and then id and lane of each job that needs a message.
local keeper, lock, limit = ARGV[2], prefix .. ':keeper', ARGV[4]
local most_attempts, stranded_after = tonumber(ARGV[5]), tonumber(ARGV[6])
local holder = redis.call('GET', lock)
if holder and holder ~= keeper then return {0} end
redis.call('SET', lock, keeper, 'PX', ARGV[3])
local lapsed, poisoned, due, expired, stranded = 0, 0, 0, 0, 0
local send = {}

local function ready(job)
  wait_again(job)
  if job.state == 'waiting' then
    send[#send + 1] = job.id
    send[#send + 1] = job.lane
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. ':running', '-inf', now, 'LIMIT', 0, limit)) do
  local job = load(id)
  lapsed = lapsed + 1
  if not job then
    redis.call('ZREM', prefix .. ':running', id)
  else
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
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. ':delayed', '-inf', now, 'LIMIT', 0, limit)) do
  local job = load(id)
  due = due + 1
  if job then ready(job) else redis.call('ZREM', prefix .. ':delayed', id) end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. ':expiring', '-inf', now, 'LIMIT', 0, limit)) do
  local job = load(id)
  redis.call('ZREM', prefix .. ':expiring', id)
  if job and (job.state == 'waiting' or job.state == 'delayed') then
    expired = expired + 1
    move(job, 'expired')
  end
end

-- Messages of one lane come out in the order they went in. So a job that still waits, although one sent later was
-- taken a while ago, has lost its message; and so has one that waits for a while beside an empty queue. `reached` is
-- how far claims have come now, `seen` at the time `seen_at`, `passed` at least stranded_after before now.
local reached = prefix .. ':reached'
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
    stranded = stranded + 1
    ready(load(old[index]))
  end
end

return {1, lapsed, poisoned, due, expired, stranded, unpack(send)}
