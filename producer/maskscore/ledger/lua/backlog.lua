#!lua flags=allow-oom
-- Returns how many jobs wait, run, are delayed and are dead letters, for how many milliseconds the one that has waited
-- longest among the first tenants' has waited, and all but the dead letters by model, in one flat list: name, waiting,
-- running, delayed, milliseconds.
local waiting, oldest, MOST = 0, now, 1000
local models, order = {}, {}
local function add(model, state, count)
  if not models[model] then
    models[model] = {waiting = 0, running = 0, delayed = 0, oldest = now}
    order[#order + 1] = model
  end
  models[model][state] = models[model][state] + math.max(0, count)
end
local counts = redis.call('HGETALL', depth)
for index = 1, #counts, 2 do
  local model = counts[index]
  local count = tonumber(counts[index + 1]) or 0
  waiting = waiting + count
  add(model, 'waiting', count)
  for _, priority in ipairs(PRIORITIES) do
    for _, tenant in ipairs(tenants_of(priority, model, MOST)) do
      local first = redis.call('ZRANGE', queue_key(priority, model, tenant), 0, 0, 'WITHSCORES')
      if first[2] then models[model].oldest = math.min(models[model].oldest, first[2] / 1000) end
    end
  end
  oldest = math.min(oldest, models[model].oldest)
end
for _, set in ipairs(OLD_SETS) do
  local count = redis.call('ZCARD', own(set, 'zset'))
  waiting = waiting + count
  add('', 'waiting', count)
end
local answer = {waiting}
for _, name in ipairs({'running', 'delayed', 'dead'}) do
  answer[#answer + 1] = redis.call('ZCARD', prefix .. ':' .. name)
end
answer[#answer + 1] = math.floor(now - oldest)
local unnamed, named = {running = answer[2], delayed = answer[3]}, redis.call('HGETALL', going)
for index = 1, #named, 2 do
  local state, model = string.match(named[index], '^(%a+):(.+)$')
  local count = tonumber(named[index + 1]) or 0
  if unnamed[state] then
    add(model, state, count)
    unnamed[state] = unnamed[state] - count
  end
end
for state, count in pairs(unnamed) do add('', state, count) end
local by_model = {}
for _, model in ipairs(order) do
  local of = models[model]
  local values = {model, of.waiting, of.running, of.delayed, math.floor(now - of.oldest)}
  for _, value in ipairs(values) do by_model[#by_model + 1] = value end
end
answer[#answer + 1] = by_model
return answer
