// SPDX-License-Identifier: MIT
//
// Every Lua script that runs in the server: one constant each, with its keys, arguments and
// answers. A script is the protocol; what it does is atomic. Times are the server's, never a
// client's. There is no roll-back, so what can fail comes before the write that counts: an acquire
// that fails half-way has at most skipped a fencing token.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_SCRIPTS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_SCRIPTS_HPP

#include <string_view>

namespace codomyrmex::concurrency::redis {

/// A script and the name by which EVALSHA calls it: the SHA-1 of the body in lower case. A wrong
/// `sha1` would still work, at the price of a second round trip each time; a test compares them.
struct Script {
    std::string_view name;
    std::string_view sha1;
    std::string_view body;
};

// Each script writes before it says "held by another" or "not yours", if only a removal that finds
// nothing: a master that became a replica then answers READONLY instead of what it remembers.
//
// A holder's value is `token`, or `token` and a space and text for people. Tokens have no space
// and differ before their ends, so comparing the front, space included, is comparing tokens.

/// Takes the lock if it is free, or again if it is this token's already (then the reply of an
/// earlier try was lost; the lease begins anew, under a larger fencing token: with the old one and
/// what was left of the old time, two holders could believe to be valid together).
///
/// KEYS: the lock, its fence, its queue. ARGV: token, time to live in ms, text for people.
/// Answers {1, fence, server time} or, held by another, {0, its remaining ms, server time}; times
/// and fences are decimal nanoseconds as strings, for Lua's numbers hold only 53 bits.
/// The next fence is the clock, or the last one plus one if the clock is not ahead of it: it
/// increases though the key be lost, as long as the clock goes on, and the other way round.
/// Error FOREIGNKEY: a holder without an expiry or a fence that is none; neither is ours.
inline constexpr Script acquire_script{"acquire", "7e04a9ec639f8edc1741f39c9666bdc674a3303a",
                                       R"lua(local holder = redis.call('GET', KEYS[1])
local time = redis.call('TIME')
local now = time[1] .. string.sub('000000' .. time[2], -6) .. '000'
if holder and string.sub(holder .. ' ', 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then
    local left = redis.call('PTTL', KEYS[1])
    if left == -1 then
        return redis.error_reply('FOREIGNKEY the lock key has no expiry, so this library did not write it')
    end
    redis.call('ZREM', KEYS[3], ARGV[1])
    return {0, left, now}
end
local last = redis.call('GET', KEYS[2])
if last and not (#last == 19 and string.find(last, '^%d+$')) then
    return redis.error_reply('FOREIGNKEY the fence key holds no fencing token')
end
local fence = now
if last and last >= now then
    redis.call('INCRBY', KEYS[2], 1)
    redis.call('PEXPIRE', KEYS[2], 86400000)
    fence = redis.call('GET', KEYS[2])
else
    redis.call('SET', KEYS[2], now, 'PX', 86400000)
end
if holder then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
    redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[3] .. ' ' .. time[1], 'NX', 'PX', ARGV[2])
end
return {1, fence, now}
)lua"};

/// Gives the lock back if it is this token's. Idempotent, and also the way to cancel an acquire
/// whose answer never came.
///
/// KEYS: the lock, its queue. ARGV: token. Answers 1 if it was this token's, else 0.
inline constexpr Script release_script{"release", "5d06d97030dab5e10c5e4e4e51a74ab59d3d6f46",
                                       R"lua(redis.call('ZREM', KEYS[2], ARGV[1])
local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder .. ' ', 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then
    redis.call('DEL', KEYS[1])
    return 1
end
return 0
)lua"};

/// Extends the lease if it is this token's, and keeps the fence alive with it.
///
/// KEYS: the lock, its fence. ARGV: token, time to live in ms. Answers 1 if it was this token's,
/// else 0; never brings a lease back.
inline constexpr Script renew_script{"renew", "08f8624bdc615844a88c9c2e3e6c5d99e6178bda",
                                     R"lua(redis.call('PEXPIRE', KEYS[2], 86400000)
local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder .. ' ', 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return 1
end
return 0
)lua"};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_SCRIPTS_HPP
