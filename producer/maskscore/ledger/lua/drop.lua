#!lua flags=allow-oom
-- A dead letter is taken off the list; its failure can be read until its time to live has passed, as any other.
-- Returns 1, or 0 where it was not on the list.
local job = load(ARGV[2])
local removed = redis.call('ZREM', prefix .. ':dead', ARGV[2])
if job and removed == 1 then redis.call('PEXPIRE', job.key, ttl_ms) end
return removed
