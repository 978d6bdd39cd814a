#!lua
-- A text that is kept with a batch, and goes with it.
-- ARGV[2..]: batch, field, text
-- Returns 1, or 0 for a batch that is not there (any more): a note must not outlive it.
local counts = batch_keys(ARGV[2])
if redis.call('EXISTS', counts) == 0 then return 0 end
redis.call('HSET', counts, ARGV[3], ARGV[4])
return 1
