// SPDX-License-Identifier: MIT
//
// The Lua scripts of a lock over several independent masters. Each runs in one of them and knows of
// no other: a majority is counted by the client. So there is no queue and no hand-over here, which
// would split the votes, and a fencing token that one master draws is raised to the highest of all.
// What the scripts of one master have in common (scripts.hpp) holds for these: times are the
// server's, times and fences are 19 digits, and what can fail comes before the write that counts.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_SCRIPTS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_SCRIPTS_HPP

#include <codomyrmex/concurrency/redis/scripts.hpp>

namespace codomyrmex::concurrency::redis {

// Gives time, now (19 digits), is_token(value, token) and last_fence(key): the fencing token that
// the key holds, '' if there is none, nothing if it holds something else.
inline constexpr char lua_quorum[] = R"lua(local time = redis.call('TIME')
local now = time[1] .. string.sub('000000' .. time[2], -6) .. '000'
local function is_token(value, token)
    return value and string.sub(value .. ' ', 1, #token + 1) == token .. ' '
end
local function last_fence(key)
    local last = redis.call('GET', key)
    if not last then return '' end
    if #last == 19 and string.find(last, '^%d+$') then return last end
end
local foreign_fence = redis.error_reply('FOREIGNKEY the fence key holds no fencing token')
)lua";

/// Takes this master's vote if nobody has it, or again if it is this token's already.
///
/// The fencing token is the wish, if that is ahead of this master's clock, by a second at most, and
/// else the clock; but more than the last one in any case. Masters that are asked with the same
/// wish so draw the same, unless their clocks or their last tokens are apart.
///
/// KEYS: the lock, its fence. ARGV: token; time to live in ms; text for people; the server time
/// after which nothing is to be done, or empty; the fencing token that is wished for, or empty.
/// Answers {1, server time, fence}; or, held by another, {0, server time, its remaining ms}; or,
/// too late, {2, server time, 0}.
/// Error FOREIGNKEY: a holder without an expiry or a fence that is none; neither is ours.
inline constexpr auto quorum_acquire_body =
    concat(lua_quorum, R"lua(local lock, fence_key = KEYS[1], KEYS[2]
local token, ttl, text, not_after, wish = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local holder = redis.call('GET', lock)
local ours = is_token(holder, token)
if holder and not ours then
    redis.call('PEXPIRE', fence_key, 86400000)
    local left = redis.call('PTTL', lock)
    if left == -1 then
        return redis.error_reply('FOREIGNKEY the lock key has no expiry, so this library did not write it')
    end
    return {0, now, left}
end
if not ours and not_after ~= '' and now > not_after then return {2, now, 0} end
local last = last_fence(fence_key)
if not last then return foreign_fence end
local fence = now
if #wish == 19 and wish > now and tonumber(string.sub(wish, 1, 13)) - tonumber(string.sub(now, 1, 13)) <= 1000 then
    fence = wish
end
if last >= fence then
    redis.call('INCRBY', fence_key, 1)
    redis.call('PEXPIRE', fence_key, 86400000)
    fence = redis.call('GET', fence_key)
else
    redis.call('SET', fence_key, fence, 'PX', 86400000)
end
redis.call('SET', lock, token .. ' ' .. text .. ' ' .. time[1], 'PX', ttl)
return {1, now, fence}
)lua");
inline constexpr Script quorum_acquire_script{
    ScriptId::quorum_acquire,
    "quorum_acquire",
    "e44124958b45e3c4865e85790cbb79d3a1689491",
    {quorum_acquire_body.data(), quorum_acquire_body.size()}};

/// Makes the lease's fencing token the last one of this master, on condition that the token has its
/// vote and that it has drawn no larger one for it.
///
/// KEYS: the lock, its fence. ARGV: token; the fencing token; the server time after which nothing
/// is to be done, or empty.
/// Answers {1, server time} if the fence key holds just that now, else {0, server time}; or, too
/// late, {2, server time}. Error FOREIGNKEY: the fence is none.
inline constexpr auto quorum_raise_body =
    concat(lua_quorum, R"lua(local lock, fence_key = KEYS[1], KEYS[2]
local token, fence, not_after = ARGV[1], ARGV[2], ARGV[3]
redis.call('PEXPIRE', fence_key, 86400000)
if not is_token(redis.call('GET', lock), token) then return {0, now} end
if not_after ~= '' and now > not_after then return {2, now} end
local last = last_fence(fence_key)
if not last then return foreign_fence end
if last > fence then return {0, now} end
if last < fence then redis.call('SET', fence_key, fence, 'PX', 86400000) end
return {1, now}
)lua");
inline constexpr Script quorum_raise_script{ScriptId::quorum_raise,
                                            "quorum_raise",
                                            "1cb807562ed5acc5dd6081f53c1f8baaedc642c2",
                                            {quorum_raise_body.data(), quorum_raise_body.size()}};

/// Extends the lease where this token has the vote, and gives it the vote where nobody has it: a
/// master that lost the key, or was not reached when the lease was acquired. Not where another has.
/// The fence of such a master is raised to the lease's.
///
/// KEYS: the lock, its fence. ARGV: token; time to live in ms; text for people; the server time
/// after which nothing is to be done, or empty; the lease's fencing token.
/// Answers {0, server time} if another has the vote, {1, server time} if it was extended, {2,
/// server time} if it was set, {3, server time} if it came too late. Error FOREIGNKEY: the fence is
/// none.
inline constexpr auto quorum_renew_body =
    concat(lua_quorum, R"lua(local lock, fence_key = KEYS[1], KEYS[2]
local token, ttl, text, not_after, fence = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
redis.call('PEXPIRE', fence_key, 86400000)
local holder = redis.call('GET', lock)
if holder and not is_token(holder, token) then return {0, now} end
if not_after ~= '' and now > not_after then return {3, now} end
local last = last_fence(fence_key)
if not last then return foreign_fence end
if last < fence then redis.call('SET', fence_key, fence, 'PX', 86400000) end
if holder then
    redis.call('PEXPIRE', lock, ttl)
    return {1, now}
end
redis.call('SET', lock, token .. ' ' .. text .. ' ' .. time[1], 'PX', ttl)
return {2, now}
)lua");
inline constexpr Script quorum_renew_script{ScriptId::quorum_renew,
                                            "quorum_renew",
                                            "9cc014e20161f9e4216d34b8daac80303cabd674",
                                            {quorum_renew_body.data(), quorum_renew_body.size()}};

/// Takes the vote back if it is this token's. Idempotent, and also the way to undo an acquisition
/// that failed elsewhere.
///
/// KEYS: the lock, its fence. ARGV: token.
/// Answers 1 if it was this token's, else 0.
inline constexpr auto quorum_release_body =
    concat(lua_quorum, R"lua(redis.call('PEXPIRE', KEYS[2], 86400000)
if not is_token(redis.call('GET', KEYS[1]), ARGV[1]) then return 0 end
return redis.call('DEL', KEYS[1])
)lua");
inline constexpr Script quorum_release_script{
    ScriptId::quorum_release,
    "quorum_release",
    "95d8abb541dc19ad1069dad18ba017217aaf5b49",
    {quorum_release_body.data(), quorum_release_body.size()}};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_SCRIPTS_HPP
