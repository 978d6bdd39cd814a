#!lua flags=allow-oom
-- Returns the tenants that have jobs waiting or running, and those with limits of their own: a flat list of name, waiting,
-- running, and milliseconds until its bucket is no longer empty (0 where it is not); then how many jobs wait and run in
-- all, since only the first tenants and running jobs are looked at.
local MOST = 1000
local rows, order = {}, {}
local function add(tenant, place, count)
  if not rows[tenant] then
    rows[tenant] = {0, 0}
    order[#order + 1] = tenant
  end
  rows[tenant][place] = rows[tenant][place] + count
end
local waiting, counts = 0, redis.call('HGETALL', depth)
for index = 1, #counts, 2 do
  local model = counts[index]
  waiting = waiting + math.max(0, tonumber(counts[index + 1]) or 0)
  for _, priority in ipairs(PRIORITIES) do
    for _, tenant in ipairs(tenants_of(priority, model, MOST)) do
      local count = redis.call('ZCARD', queue_key(priority, model, tenant))
      if count > 0 then add(tenant, 1, count) end
    end
  end
end
local running = prefix .. ':running'
for _, id in ipairs(redis.call('ZRANGE', running, 0, MOST - 1)) do
  local job = load(id)
  if job then add(job.tenant, 2, 1) end
end
for _, tenant in ipairs(fields_of(limits)) do add(tenant, 1, 0) end
local answer = {}
for _, tenant in ipairs(order) do
  local row = rows[tenant]
  for _, value in ipairs({tenant, row[1], row[2], math.ceil(math.max(0, paid_until(tenant) - now))}) do
    answer[#answer + 1] = value
  end
end
return {answer, waiting, redis.call('ZCARD', running)}
