#!lua flags=allow-oom
-- The holder of a shard's lease begins an image alone, since attempts ended with their worker. Where this one does, too,
-- and attempts are used up, the image is to blame (sweep.lua). Images before the one that was tried last were scored then.
-- ARGV[3..]: token, position of the image in the shard
-- Returns 'noted', or 'lost'.
local job = load(ARGV[2])
if not holds(job, ARGV[3]) then return 'lost' end
local position = tonumber(ARGV[4])
-- The last image that was tried, by which attempt, and the last one of the attempts before.
local tried, by, before = string.match(redis.call('HGET', job.key, 'trial') or '', '^(%d+) (%S+) ?(%d*)$')
if by ~= ARGV[3] then before = tried or '' end
if tried and position < tonumber(tried) then return 'noted' end
-- An attempt that is past the image at which an earlier one ended has made progress.
if before ~= '' and position > tonumber(before) then redis.call('HSET', job.key, 'attempts', 1) end
redis.call('HSET', job.key, 'trial', ARGV[4] .. ' ' .. ARGV[3] .. ' ' .. before)
return 'noted'
