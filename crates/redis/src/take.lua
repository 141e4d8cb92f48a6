-- Takes from all buckets or from none. The rules are those of `tenantry_domain::TokenBucket`, in the same grains; every
-- number stays below 2^53, up to which doubles are exact.
--
-- KEYS     the buckets, all in one slot
-- ARGV     for each of them: grains a microsecond, grains when full, grains to take (negative: to give back)
-- returns  for each of them what was in it before anything was taken
local HELD = 10000000

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local levels, stamps, enough = {}, {}, true

for i, key in ipairs(KEYS) do
    local rate, full, price = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
    local kept = redis.pcall('HMGET', key, 'level', 'at')
    if kept.err then
        -- Something else lies where the bucket belongs.
        redis.call('DEL', key)
        kept = {}
    end
    local level, at = tonumber(kept[1]), tonumber(kept[2])
    -- What is no number is no bucket; what reads as a number and is none differs from itself.
    if not (level and at) or level ~= level or at ~= at then
        level, at = full, now
    end
    if now > at then
        level = level + math.min(now - at, math.ceil(full / rate)) * rate
        at = now
    elseif at - now > HELD then
        at = now
    end
    levels[i], stamps[i] = math.max(0, math.min(level, full)), at
    enough = enough and levels[i] >= price
end

for i, key in ipairs(KEYS) do
    local rate, full, price = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
    local left = levels[i]
    if enough then
        left = math.min(left - price, full)
    end
    redis.call('HSET', key, 'level', string.format('%.0f', left), 'at', string.format('%.0f', stamps[i]))
    -- From when it is full on, it is the same as none; a second more, so that a clock held back finds it.
    redis.call('PEXPIRE', key, math.ceil((full - left) / rate / 1000) + 1000)
end

return levels
