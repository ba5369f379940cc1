// SPDX-License-Identifier: MIT
//
// Every Lua script that runs in the server: one constant each, with its keys, arguments and
// answers. A script is the protocol; what it does is atomic. Times are the server's, never a
// client's. There is no roll-back, so what can fail comes before the write that counts: an acquire
// that fails half-way has at most skipped a fencing token.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_SCRIPTS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_SCRIPTS_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace codomyrmex::concurrency::redis {

/// Which script, as a number.
enum class ScriptId : std::uint8_t {
    acquire,
    release,
    renew,
    acquire_all,
    acquire_each,
    release_all,
    renew_all,
    acquire_permits,
    release_permits,
    renew_permits,
    reweigh,
    resize,
    quorum_acquire,
    quorum_raise,
    quorum_renew,
    quorum_release,
    look,
    look_many,
    force_release,
    force_release_permits,
};
inline constexpr std::size_t script_count = 20;

/// A script and the name by which EVALSHA calls it: the SHA-1 of the body in lower case. A wrong
/// `sha1` would still work, at the price of a second round trip each time; a test compares them.
struct Script {
    ScriptId id;
    std::string_view name;
    std::string_view sha1;
    std::string_view body;
};

/// A script's text, put together from parts.
template <std::size_t... Sizes>
[[nodiscard]] consteval auto concat(const char (&... parts)[Sizes]) {
    std::array<char, (Sizes + ...) - sizeof...(Sizes)> text{};
    char* end = text.data();
    ((end = std::copy_n(parts, Sizes - 1, end)), ...);
    return text;
}

// What the scripts have in common.
//
// A holder's value is `token`, or `token` and a space and text for people. Tokens have no space
// and differ before their ends, so comparing the front, space included, is comparing tokens.
// Tokens begin with their process' number, and what a process listens to is called after it.
//
// A waiter is `token ttl block text`: the time to live of its grant in ms, how many fencing tokens
// it wants (of a lock) or how many permits (else), the text for people. The queue is a sorted set
// of waiters by time of arrival, in microseconds; nobody overtakes though the clock step back.
//
// Each script writes before it says "not enough" or "not yours", if only a removal that finds
// nothing: a master that became a replica then answers READONLY instead of what it remembers.
//
// Each answers with words in one string, for an array costs the server twice as much. The last is
// the number that the request gave itself: by it a client knows that the reply is its own.
//
// Times and fences are decimal nanoseconds as strings of 19 digits, for Lua's numbers hold only 53
// bits. Strings of one length compare as the numbers do.
//
// A call from Lua costs the server about as much as all else together, and each new string or
// function some more, so the usual case stands in front with as few of them as will do.

// Gives time (as the server's TIME does) and now (19 digits).
inline constexpr char lua_time[] = R"lua(local time = redis.call('TIME')
local now = time[1] .. string.sub('000000' .. time[2], -6) .. '000'
)lua";

// Gives say(...), the words of an answer, and is_token(value, token).
inline constexpr char lua_words[] = R"lua(local function say(...)
    return table.concat({...}, ' ')
end
local function is_token(value, token)
    return value and string.find(value, token, 1, true) == 1 and
        (#value == #token or string.byte(value, #token + 1) == 32)
end
)lua";

// Gives draw(key, block): the first of `block` fencing tokens and how many there are; nothing if
// the key holds none, which is a foreign key. The first is the clock, or the last one plus one if
// the clock is not ahead of it: it increases though the key be lost, as long as the clock goes on,
// and the other way round. Only from the clock on there is more than one: blocks on top of blocks
// would run ahead of the clock, which then could not stand in for the key.
// What is written over and turns out to be foreign is put back, if without its expiry.
inline constexpr char lua_draw[] = R"lua(local function draw(key, block)
    local last = redis.call('SET', key, now, 'PX', '86400000', 'GET')
    if last and not (#last == 19 and string.find(last, '^%d+$')) then
        redis.call('SET', key, last)
        return nil
    end
    block = tonumber(block)
    if last and last >= now then
        redis.call('SET', key, last, 'PX', '86400000')
        redis.call('INCRBY', key, 1)
        return redis.call('GET', key), 1
    end
    if block > 1 then redis.call('INCRBY', key, block - 1) end
    return now, block
end
local foreign_fence = redis.error_reply('FOREIGNKEY the fence key holds no fencing token')
)lua";

// Gives stand(queue, waiter, alone): joins the queue, once; a repetition keeps its place, also in a
// server without room. `alone`: it is known that nobody waits. Answers how many stand before it; -1
// for an empty waiter, which does not join.
inline constexpr char lua_stand[] = R"lua(local function stand(queue, waiter, alone)
    if waiter == '' then
        redis.call('ZREM', queue, '')
        return -1
    end
    local score = string.sub(now, 1, 16)
    local rank = 0
    if redis.pcall('ZADD', queue, 'NX', score, waiter) ~= 1 then
        rank = redis.call('ZRANK', queue, waiter)
        if not rank then return redis.call('ZADD', queue, 'NX', score, waiter) end
    elseif not alone then
        rank = redis.call('ZCARD', queue) - 1
        if redis.call('ZRANK', queue, waiter) ~= rank then
            local last = redis.call('ZRANGE', queue, -1, -1, 'WITHSCORES')[2]
            redis.call('ZADD', queue, string.format('%.0f', last + 1), waiter)
        end
    end
    redis.call('PEXPIRE', queue, '60000')
    return rank
end
)lua";

// Gives first_alive(queue, prefix, self): 'waiter' and the parts of the first waiter that lives.
// Alive is whose process is subscribed; the count that PUBLISH returns would be no sign, for a
// monitor's pattern counts there too. Dead ones are dropped, at most 32 each time. Answers 'self'
// when the first is `self`, which may be empty for nobody; 'none' when nobody waits, or without the
// right to ask who is subscribed; 'more' when it stopped looking.
inline constexpr char lua_first_alive[] = R"lua(local function first_alive(queue, prefix, self)
    for _ = 1, 32 do
        local waiter = redis.call('ZRANGE', queue, 0, 0)[1]
        if not waiter then return 'none' end
        if waiter == self and self ~= '' then return 'self' end
        local token, ttl, block, text = string.match(waiter, '^(%S+) (%d+) (%d+) (.*)$')
        if token then
            local channel = prefix .. 'wake:' .. string.match(token, '^[^-]*')
            local listeners = redis.pcall('PUBSUB', 'NUMSUB', channel)
            if listeners.err then return 'none' end
            if listeners[2] > 0 then return 'waiter', waiter, token, ttl, block, text, channel end
        end
        redis.call('ZREM', queue, waiter)
    end
    return 'more'
end
)lua";

// Gives pass_on(lock, fence, queue, prefix, self), for a lock that nobody holds any more: makes the
// first waiter that lives the holder and tells its process. Answers 'self' when the first is
// `self`, for the caller to take the lock; 'granted' and for how long; 'none' when nobody waits;
// 'more' when it stopped looking; 'foreign'. It removes before it writes: a server without room
// takes what comes after that.
inline constexpr char lua_pass_on[] =
    R"lua(local function pass_on(lock, fence_key, queue, prefix, self)
    local what, waiter, token, ttl, block, text, channel = first_alive(queue, prefix, self)
    if what ~= 'waiter' then return what end
    redis.call('ZREM', queue, waiter)
    local fence, drawn = draw(fence_key, block)
    if not fence then return 'foreign' end
    redis.call('SET', lock, token .. ' ' .. text .. ' ' .. time[1], 'PX', ttl)
    redis.pcall('PUBLISH', channel, 'grant ' .. token .. ' ' .. fence .. ' ' .. drawn .. ' ' .. now .. ' ' .. ttl .. ' ' .. lock)
    return 'granted', tonumber(ttl)
end
)lua";

// Gives held(...): what the acquire script answers if another holds the lock; nothing if it is
// free, or this token's. `there`: how many there are of the lock and its queue.
inline constexpr char lua_held[] =
    R"lua(local function held(lock, queue, prefix, token, waiter, holder, there)
    if not holder or is_token(holder, token) then return nil end
    local left = redis.call('PTTL', lock)
    if left == -1 then
        return redis.error_reply('FOREIGNKEY the lock key has no expiry, so this library did not write it')
    end
    local rank = stand(queue, waiter, there == 1)
    local keeps = string.match(holder, '^(%x+)%-%x+r ')
    if rank >= 0 and keeps then redis.pcall('PUBLISH', prefix .. 'wake:' .. keeps, 'wanted ' .. lock) end
    return say(0, now, rank, left > 1e11 and 1e11 or left, number)
end
)lua";

// Gives take(...): the same if it is free, or this token's.
inline constexpr char lua_take[] =
    R"lua(local function take(lock, fence_key, queue, prefix, token, waiter, ttl, text, block, late, holder, there)
    if holder and is_token(holder, token) then
        local fence, drawn = draw(fence_key, block)
        if not fence then return foreign_fence end
        redis.call('PEXPIRE', lock, ttl)
        return say(1, now, fence, drawn, number)
    end
    if late then return say(2, now, number) end
    local first = there ~= 0 and redis.call('ZRANGE', queue, 0, 0)[1]
    if first and first ~= waiter then
        if waiter ~= '' then stand(queue, waiter) end
        local outcome, left = pass_on(lock, fence_key, queue, prefix, waiter)
        if outcome == 'foreign' then return foreign_fence end
        if outcome == 'granted' or outcome == 'more' then
            return say(0, now, stand(queue, waiter), left or 0, number)
        end
    end
    local fence, drawn = draw(fence_key, block)
    if not fence then return foreign_fence end
    if first and waiter ~= '' then redis.call('ZREM', queue, waiter) end
    redis.call('SET', lock, token .. ' ' .. text .. ' ' .. time[1], 'NX', 'PX', ttl)
    return say(1, now, fence, drawn, number)
end
)lua";

/// Takes the lock if it is free and nobody waits longer, or again if it is this token's already
/// (then the reply of an earlier try was lost; the lease begins anew, under a larger fencing token:
/// with the old one and what was left of the old time, two holders could believe to be valid
/// together). Else, if a waiter is given, joins the queue, once: a repetition keeps its place.
/// A free lock that others wait for is passed on, perhaps to oneself.
///
/// KEYS: the lock, its fence, its queue. ARGV: token; the waiter, or empty to try only; text for
/// people; time to live in ms; how many fencing tokens; the prefix of channels; the server time
/// after which nothing is to be done, or empty; the request's number.
/// Answers 1, server time, fence, how many; or, held by another, 0, server time, how many wait
/// before this one or -1 if it does not wait, the holder's remaining ms; or, too late, 2, server
/// time.
/// Error FOREIGNKEY: a holder without an expiry or a fence that is none; neither is ours.
inline constexpr auto acquire_body = concat(
    lua_time,
    R"lua(local there = redis.call('EXISTS', KEYS[1], KEYS[3])
if there == 0 and ARGV[5] == '1' and (ARGV[7] == '' or now <= ARGV[7]) then
    local last = redis.call('SET', KEYS[2], now, 'PX', '86400000', 'GET')
    if not last or (#last == 19 and last < now and string.find(last, '^%d+$')) then
        redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[3] .. ' ' .. time[1], 'NX', 'PX', ARGV[4])
        return '1 ' .. now .. ' ' .. now .. ' 1 ' .. ARGV[8]
    end
    redis.call('SET', KEYS[2], last)
end
local lock, fence_key, queue = KEYS[1], KEYS[2], KEYS[3]
local token, waiter, text, ttl, block, prefix, not_after, number =
    ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local holder = there ~= 0 and redis.call('GET', lock)
local late = not_after ~= '' and now > not_after
)lua",
    lua_words, lua_stand, lua_held,
    R"lua(local answer = not late and held(lock, queue, prefix, token, waiter, holder, there)
if answer then return answer end
)lua",
    lua_draw, lua_first_alive, lua_pass_on, lua_take,
    R"lua(return take(lock, fence_key, queue, prefix, token, waiter, ttl, text, block, late, holder, there)
)lua");
inline constexpr Script acquire_script{ScriptId::acquire,
                                       "acquire",
                                       "9debfd6c06ef29a780c8432b0593582daa8065b8",
                                       {acquire_body.data(), acquire_body.size()}};

// Gives release(lock, fence, queue, prefix, token, waiter, holder), `holder` being the lock's
// value: what the release script answers for one lock.
inline constexpr char lua_release[] =
    R"lua(local function release(lock, fence_key, queue, prefix, token, waiter, holder)
    local ours = is_token(holder, token)
    -- Also a removal before all that writes.
    if not ours then
        redis.call('ZREM', queue, waiter)
        if holder then return 0 end
    end
    local outcome = pass_on(lock, fence_key, queue, prefix, '')
    if ours and outcome ~= 'granted' then redis.call('DEL', lock) end
    return (ours and 1 or 0) + (outcome == 'more' and 2 or 0)
end
)lua";

/// Gives the lock back if it is this token's, or gives up waiting for it; passes it on if it is
/// free now. Idempotent, and also the way to cancel an acquire whose answer never came.
///
/// KEYS: the lock, its fence, its queue. ARGV: token; the prefix of channels; the waiter, or empty;
/// the request's number.
/// Answers 1 if it was this token's, else 0; and 2 more if it stopped looking for a waiter that
/// lives, and should be called again.
inline constexpr auto release_body = concat(
    R"lua(local token, number = ARGV[1], ARGV[4]
local holder = redis.call('GET', KEYS[1])
if holder and string.find(holder, token, 1, true) == 1 and
    (#holder == #token or string.byte(holder, #token + 1) == 32) and
    redis.call('EXISTS', KEYS[3]) == 0 then
    redis.call('DEL', KEYS[1])
    return '1 ' .. number
end
)lua",
    lua_time, lua_words, lua_draw, lua_first_alive, lua_pass_on, lua_release,
    R"lua(return say(release(KEYS[1], KEYS[2], KEYS[3], ARGV[2], token, ARGV[3], holder), number)
)lua");
inline constexpr Script release_script{ScriptId::release,
                                       "release",
                                       "dee6eaae166003e09074e5d04008c77e123f9e5d",
                                       {release_body.data(), release_body.size()}};

/// Extends the lease if it is this token's, and keeps the fence alive with it.
///
/// KEYS: the lock, its fence, its queue. ARGV: token; time to live in ms; the server time after
/// which nothing is to be done, or empty; the request's number.
/// Answers 0 if it is not this token's, 1 if it was extended, 2 if moreover somebody waits, 3 if it
/// came too late; and the server time. Never brings a lease back.
inline constexpr auto renew_body =
    concat(lua_time, lua_words, R"lua(redis.call('PEXPIRE', KEYS[2], '86400000')
if not is_token(redis.call('GET', KEYS[1]), ARGV[1]) then return say(0, now, ARGV[4]) end
if ARGV[3] ~= '' and now > ARGV[3] then return say(3, now, ARGV[4]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return say(redis.call('EXISTS', KEYS[3]) + 1, now, ARGV[4])
)lua");
inline constexpr Script renew_script{ScriptId::renew,
                                     "renew",
                                     "205e06a637a930e9b69787d9730a09daad90ba6b",
                                     {renew_body.data(), renew_body.size()}};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_SCRIPTS_HPP
