#!lua flags=allow-oom
-- Returns how many jobs wait, run, are delayed and are dead letters, and for how many milliseconds the one that has
-- waited longest among the first tenants' has waited.
local waiting, oldest, MOST = 0, now, 1000
local counts = redis.call('HGETALL', depth)
for index = 1, #counts, 2 do
  local model = counts[index]
  waiting = waiting + (tonumber(counts[index + 1]) or 0)
  for _, priority in ipairs(PRIORITIES) do
    for _, tenant in ipairs(redis.call('ZRANGE', tenants_key(priority, model), 0, MOST - 1)) do
      local first = redis.call('ZRANGE', queue_key(priority, model, tenant), 0, 0, 'WITHSCORES')
      if first[2] then oldest = math.min(oldest, first[2] / 1000) end
    end
  end
end
for _, set in ipairs(OLD_SETS) do waiting = waiting + redis.call('ZCARD', own(set, 'zset')) end
local answer = {waiting}
for _, name in ipairs({'running', 'delayed', 'dead'}) do
  answer[#answer + 1] = redis.call('ZCARD', prefix .. ':' .. name)
end
answer[#answer + 1] = math.floor(now - oldest)
return answer
