// SPDX-License-Identifier: MIT
//
// The Lua scripts of primitives that have more than one holder: a semaphore, of whose permits each
// holder has some, and a read-write lock, which is one: a reader takes one permit of very many, a
// writer all. See scripts.hpp for what all scripts have in common.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_PERMIT_SCRIPTS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_PERMIT_SCRIPTS_HPP

#include <codomyrmex/concurrency/redis/scripts.hpp>

namespace codomyrmex::concurrency::redis {

// The holders are a sorted set of tokens by when they expire, in microseconds of the server's time:
// each on its own. The key expires with the last of them. A hash beside it has `capacity`, how many
// permits there are; `used`, how many are out; for each holder `token` -> `weight text since`; and
// for one that was converted `token#` -> the number of the last conversion. It outlives them by up
// to two days, for the capacity to be known.
//
// Who stands first in the queue is served first: a large request is not starved by small ones
// behind it, nor a writer by readers.
//
// Gives set, fence_key, queue, meta, micros; purge(): removes the holders that ran out, at most
// 1,000, and says whether the key is foreign, and whether there are more; used(); remove(token),
// take(token, weight, ttl, text) and expire(), which sets the time to live of the keys.
inline constexpr char lua_permits[] =
    R"lua(local set, fence_key, queue, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local micros = time[1] * 1000000 + time[2]
local function used()
    return tonumber(redis.call('HGET', meta, 'used') or 0)
end
local function remove(token)
    local entry = redis.call('HGET', meta, token)
    redis.call('ZREM', set, token)
    if not entry then return end
    redis.call('HDEL', meta, token, token .. '#')
    redis.call('HINCRBY', meta, 'used', '-' .. string.match(entry, '^%d+'))
end
local function purge()
    local left = redis.call('PTTL', set)
    if left == -1 then return true, false end
    if left == -2 then
        if used() > 0 then
            local capacity = redis.call('HGET', meta, 'capacity')
            redis.call('DEL', meta)
            if capacity then
                redis.call('HSET', meta, 'capacity', capacity)
                redis.call('PEXPIRE', meta, '172800000')
            end
        end
        return false, false
    end
    local over = redis.call('ZRANGEBYSCORE', set, '-inf', string.format('%.0f', micros), 'LIMIT', 0, 1000)
    for _, token in ipairs(over) do remove(token) end
    return false, #over == 1000
end
local function expire()
    local last = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2]
    if last then redis.call('PEXPIREAT', set, string.format('%.0f', math.ceil(last / 1000))) end
    redis.call('PEXPIRE', meta, '172800000')
end
local function keep(token, ttl)
    redis.call('ZADD', set, string.format('%.0f', micros + ttl * 1000), token)
end
local function take(token, weight, ttl, text)
    local fence = draw(fence_key, 1)
    if not fence then return nil end
    redis.call('HINCRBY', meta, 'used', weight)
    redis.call('HSET', meta, token, weight .. ' ' .. text .. ' ' .. time[1])
    keep(token, ttl)
    expire()
    return fence
end
local foreign_set = redis.error_reply('FOREIGNKEY the holders have no expiry, so this library did not write them')
)lua";

// Gives admit(prefix, self): as many as there is room for of those who stand first, at most 32, are
// made holders and told. Dropped are dead ones, and who asks for more than there are in all since
// a resize: it stands in everybody's way, and is told when it asks again. Answers 'self' when
// `self` stands first, for the caller to see whether there is room; 'full' when there is none;
// 'none' when nobody waits; 'more' when it stopped looking; 'foreign'.
inline constexpr char lua_admit[] = R"lua(local function admit(prefix, self)
    local capacity = tonumber(redis.call('HGET', meta, 'capacity'))
    if not capacity then return 'full' end
    for _ = 1, 32 do
        local what, waiter, token, ttl, weight, text, channel = first_alive(queue, prefix, self)
        if what ~= 'waiter' then return what end
        if tonumber(weight) <= capacity then
            if used() + weight > capacity then return 'full' end
            local fence = take(token, weight, ttl, text)
            if not fence then return 'foreign' end
            redis.pcall('PUBLISH', channel, table.concat({'grant', token, fence, 1, now, ttl, set}, ' '))
        end
        redis.call('ZREM', queue, waiter)
    end
    return 'more'
end
)lua";

/// Takes permits if there are enough and nobody waits longer, or again if they are this token's
/// already; else, if a waiter is given, joins the queue. As the acquire script of a lock.
///
/// KEYS: the holders, their fence, their queue, their hash. ARGV: token; time to live in ms; text
/// for people; the server time after which nothing is to be done, or empty; how many permits; the
/// prefix of channels; the waiter, or empty to try only; how many permits there are in all; the
/// request's number.
/// Answers 1, server time, fence, 1; or, not enough, 0, server time, how many wait before this
/// one or -1, ms until a holder's time is over; or, too late, 2, server time.
/// Error FOREIGNKEY: holders without an expiry or a fence that is none; neither is ours.
/// Error MISMATCH and how many: there are not as many permits in all as was said.
inline constexpr auto acquire_permits_body =
    concat(lua_time, lua_words, lua_draw, lua_stand, lua_first_alive, lua_permits, lua_admit,
           R"lua(local token, ttl, text, not_after, weight, prefix, waiter, capacity, number =
    ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
if purge() then return foreign_set end
local stored = redis.call('HGET', meta, 'capacity')
if stored and stored ~= capacity then
    local known = redis.call('ZSCORE', set, token) or redis.call('ZSCORE', queue, waiter)
    if not known or tonumber(weight) > tonumber(stored) then
        redis.call('ZREM', queue, waiter)
        return redis.error_reply('MISMATCH ' .. stored)
    end
    capacity = stored
end
local function has()
    return redis.call('ZSCORE', set, token)
end
local function again()
    local fence = draw(fence_key, 1)
    if not fence then return foreign_fence end
    keep(token, ttl)
    expire()
    return say(1, now, fence, 1, number)
end
if has() then return again() end
if not_after ~= '' and now > not_after then return say(2, now, number) end
if not stored then
    redis.call('HSET', meta, 'capacity', capacity)
    redis.call('PEXPIRE', meta, '172800000')
end
local first = redis.call('ZRANGE', queue, 0, 0)[1]
local outcome = 'none'
if first and first ~= waiter then
    if waiter ~= '' then stand(queue, waiter) end
    outcome = admit(prefix, waiter)
    if outcome == 'foreign' then return foreign_fence end
    -- An earlier request of this token stood in line as another waiter.
    if has() then return again() end
end
if (outcome == 'none' or outcome == 'self') and used() + weight <= tonumber(capacity) then
    local fence = take(token, weight, ttl, text)
    if not fence then return foreign_fence end
    if waiter ~= '' then redis.call('ZREM', queue, waiter) end
    if first then admit(prefix, '') end
    return say(1, now, fence, 1, number)
end
local rank = stand(queue, waiter)
local soonest = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
local left = 0
if soonest and outcome ~= 'more' then left = math.ceil((soonest - micros) / 1000) end
return say(0, now, rank, left, number)
)lua");
inline constexpr Script acquire_permits_script{
    ScriptId::acquire_permits,
    "acquire permits",
    "1889e68522a6124b44169ecb8139a79d81698632",
    {acquire_permits_body.data(), acquire_permits_body.size()}};

/// Gives the permits of this token back, or gives up waiting for them; serves those who wait and
/// for whom there is room. Idempotent. As the release script of a lock.
///
/// KEYS: the holders, their fence, their queue, their hash. ARGV: token; the prefix of channels;
/// the waiter, or empty; the request's number.
/// Answers 1 if there were any, else 0; and 2 more if it should be called again.
inline constexpr auto release_permits_body =
    concat(lua_time, lua_words, lua_draw, lua_first_alive, lua_permits, lua_admit,
           R"lua(local token, prefix, waiter, number = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
redis.call('ZREM', queue, waiter)
local foreign, more = purge()
if foreign then return say(0, number) end
local ours = redis.call('ZSCORE', set, token)
if ours then
    remove(token)
    if not more then expire() end
end
if admit(prefix, '') == 'more' then more = true end
return say((ours and 1 or 0) + (more and 2 or 0), number)
)lua");
inline constexpr Script release_permits_script{
    ScriptId::release_permits,
    "release permits",
    "7fc3b84c64b0e3b81a54f6ef68f135e6287a9da6",
    {release_permits_body.data(), release_permits_body.size()}};

/// Extends the lease of this token, and of no other. As the renew script of a lock.
///
/// KEYS: the holders, their fence, their queue, their hash. ARGV: token; time to live in ms; the
/// server time after which nothing is to be done, or empty; the request's number.
/// Answers as the renew script of a lock. Never brings a lease back.
inline constexpr auto renew_permits_body = concat(lua_time, lua_words, lua_draw, lua_permits,
                                                  R"lua(redis.call('PEXPIRE', fence_key, '86400000')
local score = redis.call('ZSCORE', set, ARGV[1])
if not score or tonumber(score) <= micros then return say(0, now, ARGV[4]) end
if ARGV[3] ~= '' and now > ARGV[3] then return say(3, now, ARGV[4]) end
keep(ARGV[1], ARGV[2])
expire()
return say(redis.call('EXISTS', queue) + 1, now, ARGV[4])
)lua");
inline constexpr Script renew_permits_script{
    ScriptId::renew_permits,
    "renew permits",
    "59953852e1c91f136205cac9f2ab17127d8e95d3",
    {renew_permits_body.data(), renew_permits_body.size()}};

/// Changes how many permits this token has, without giving up those that it keeps: a writer
/// becomes a reader, or the only reader a writer. Serves those for whom there is room then.
/// Overtakes who waits: it stands in nobody's way who was not behind it before. A conversion that
/// comes after a later one, for a copy of it was under way long, changes nothing.
///
/// KEYS: the holders, their fence, their queue, their hash. ARGV: token; how many; the prefix of
/// channels; a number that increases from conversion to conversion; the request's number.
/// Answers 1, server time, fence, 1, with a new fencing token; 0, server time if it has none;
/// 3, server time if there is no room, or a later conversion came before.
inline constexpr auto reweigh_body = concat(
    lua_time, lua_words, lua_draw, lua_first_alive, lua_permits, lua_admit,
    R"lua(local token, weight, prefix, order, number = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
redis.call('ZREM', queue, '')
local entry = not purge() and redis.call('HGET', meta, token)
if not entry then return say(0, now, number) end
if tonumber(redis.call('HGET', meta, token .. '#') or 0) > tonumber(order) then
    return say(3, now, number)
end
local old, text = string.match(entry, '^(%d+)(.*)$')
if used() - old + weight > tonumber(redis.call('HGET', meta, 'capacity') or 0) then
    return say(3, now, number)
end
local fence = draw(fence_key, 1)
if not fence then return foreign_fence end
redis.call('HSET', meta, token, weight .. text, token .. '#', order)
redis.call('HINCRBY', meta, 'used', string.format('%.0f', weight - old))
admit(prefix, '')
return say(1, now, fence, 1, number)
)lua");
inline constexpr Script reweigh_script{ScriptId::reweigh,
                                       "reweigh",
                                       "1c1fb6ff0fc1fae41a9f834c9b3ea055a8139f09",
                                       {reweigh_body.data(), reweigh_body.size()}};

/// Changes how many permits there are in all. With fewer than are out nothing is taken away; none
/// is given until enough have come back.
///
/// KEYS: the holders, their fence, their queue, their hash. ARGV: how many; the prefix of channels;
/// the server time after which nothing is to be done, or empty; the request's number.
/// Answers how many there were, or 0; or -1 if it came too late; and the server's time.
inline constexpr auto resize_body =
    concat(lua_time, lua_words, lua_draw, lua_first_alive, lua_permits, lua_admit,
           R"lua(if purge() then return foreign_set end
if ARGV[3] ~= '' and now > ARGV[3] then return say(-1, now, ARGV[4]) end
local old = redis.call('HGET', meta, 'capacity')
redis.call('HSET', meta, 'capacity', ARGV[1])
redis.call('PEXPIRE', meta, '172800000')
admit(ARGV[2], '')
return say(old or 0, now, ARGV[4])
)lua");
inline constexpr Script resize_script{ScriptId::resize,
                                      "resize",
                                      "c3d2a9c1cc4d6ecdfee7f41ece54bb7da2b3e3b9",
                                      {resize_body.data(), resize_body.size()}};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_PERMIT_SCRIPTS_HPP
