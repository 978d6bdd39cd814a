#!lua flags=allow-oom
-- A worker takes the next job of its model: waiting -> running, attempts + 1, a new lease.
-- ARGV[2..]: token of this attempt, worker, lease_ms, model, '1' where nothing else runs in the worker's process
-- Returns 'claimed', id, attempts, retries, now, submitted_at, traceparent, the parts of the document, and of a shard its
-- cursor and the positions of images that ended workers; or 'empty', or 'suspect' (claim again when nothing else runs; it is kept for a token that asks again), or 'more' (claim again: only what could not run was found).
local token, worker, lease_ms, model, alone = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1'
local MOST, TOKEN_MS = 100, 600000
-- A suspect is kept for a worker that waits until it is alone, and asks again with its token meanwhile. Where that worker
-- is killed, too, the suspect is not kept for much longer.
local KEPT_MS = math.floor(lease_ms / 10)

local function give(job)
  move(job, 'running', now + lease_ms)
  local f = redis.call('HMGET', job.key, 'submitted_at', 'traceparent', 'cursor', 'poisoned', unpack(PARTS))
  local document = {}
  for index = 5, #f do
    if f[index] then document[#document + 1] = f[index] end
  end
  return {'claimed', job.id, job.attempts, job.retries, wall, f[1], f[2] or '', table.concat(document), f[3] or '',
    f[4] or ''}
end

local suspects = suspects_key(model)

-- Asked again, since the first answer was lost on its way, or to go on waiting for a suspect.
local asked = own(prefix .. ':claim:' .. token, 'string')
local given = redis.call('GET', asked)
local kept = string.match(given or '', '^suspect (.*)$')
local function keep(suspect)
  redis.call('ZADD', suspects, 'XX', now + KEPT_MS, suspect)
  redis.call('SET', asked, 'suspect ' .. suspect, 'PX', TOKEN_MS)
  return {'suspect'}
end
if kept and not alone then return keep(kept) end
if given and not kept then
  local job = load(given)
  if job and job.state == 'running' and job.token == token then return give(job) end
end

resume(MOST)

-- The oldest job of the tenant whose turn it is. A turn costs the less the more weight a tenant has: start-time fair
-- queueing, Goyal, Vin and Cheng 1996.
local looked, blocked = 0, false
local function next_entry()
  for _, priority in ipairs(PRIORITIES) do
    local tenants, rank = tenants_key(priority, model), 0
    while looked < MOST do
      local found = redis.call('ZRANGE', tenants, rank, rank, 'WITHSCORES')
      if not found[1] then break end
      local tenant, turn = found[1], tonumber(found[2])
      local queue, limit = queue_key(priority, model, tenant), limits_of(tenant)
      local id = redis.call('ZRANGE', queue, 0, 0)[1]
      if not id then
        looked = looked + 1
        redis.call('ZREM', tenants, tenant)
      elseif limit.most_running and count_running(tenant, limit.most_running) >= limit.most_running then
        -- It stays where it is, so that looking again would find it again: it is passed, and not counted as looked at.
        rank, blocked = rank + 1, true
      elseif limit.masks_per_second and paid_until(tenant) > now then
        pause(tenant, priority, model, turn, paid_until(tenant))
      else
        return queue, id, function(job)
          -- One that was at its limit has not saved up turns.
          local field = 'turn:' .. priority .. ':' .. model
          turn = math.max(turn, tonumber(redis.call('HGET', clock, field) or '') or 0)
          redis.call('HSET', clock, field, turn)
          turn = turn + 1 / limit.weight
          redis.call('ZADD', tenants, turn, tenant)
          if not limit.masks_per_second then return end
          local masks, taken = unpack(redis.call('HMGET', job.key, 'masks', 'taken'))
          masks, taken = tonumber(masks or '') or 1, tonumber(taken or '') or 0
          redis.call('HSET', job.key, 'taken', math.max(masks, taken))
          local paid = take_masks(tenant, limit.masks_per_second, math.max(0, masks - taken))
          if redis.call('ZCARD', queue) <= 1 then return end
          if paid > now then return pause(tenant, priority, model, turn, paid) end
          -- While the bucket was empty, its tickets were used up.
          local there = 0
          for number = 0, 5 do there = there + redis.call('LLEN', own(queue_list(model, number), 'list')) end
          if there < (tonumber(redis.call('HGET', depth, model) or '') or 0) - 1 then
            send_ticket(model, priority, next_number())
          end
        end
      end
    end
  end
end

if not alone then
  local suspect = redis.call('ZRANGEBYSCORE', suspects, '-inf', now, 'LIMIT', 0, 1)[1]
  if suspect then return keep(suspect) end
end
while looked < MOST do
  looked = looked + 1
  local queue, id, advance
  if alone then
    queue, id = suspects, redis.call('ZRANGE', suspects, 0, 0)[1]
  else
    queue, id, advance = next_entry()
  end
  if not id then
    if looked >= MOST then break end
    if alone then return {'empty'} end
    if take_over(MOST) == 0 then
      -- What was counted is not there: somebody has removed it.
      for _, priority in ipairs(PRIORITIES) do
        blocked = blocked or redis.call('EXISTS', resting_key(priority, model)) == 1
      end
      if not blocked and redis.call('ZCARD', suspects) == 0 then redis.call('HDEL', depth, model) end
      return {'empty'}
    end
  else
    local number = redis.call('ZSCORE', queue, id)
    local job = entry_of(queue, id)
    if not job then
      count_waiting(model, -1)
    elseif job.expires_at and job.expires_at <= now then
      move(job, 'expired')
    else
      if advance then advance(job) end
      job.attempts = redis.call('HINCRBY', job.key, 'attempts', 1)
      redis.call('HSET', job.key, 'token', token, 'worker', worker, 'claimed_at', wall)
      if not job.suspect then redis.call('HSET', job.key, 'number', number) end
      redis.call('SET', asked, id, 'PX', TOKEN_MS)
      return give(job)
    end
  end
end
return {'more'}
