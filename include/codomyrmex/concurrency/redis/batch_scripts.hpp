// SPDX-License-Identifier: MIT
//
// The Lua scripts for several locks of one client at once: taken all or none, extended, given back.
// Each does for many in one call what its namesake in scripts.hpp does for one; see there for what
// all scripts have in common. All keys of a call must lie on one server.
//
// What is done for each is done through locals, for a global costs the server another look-up.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_BATCH_SCRIPTS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_BATCH_SCRIPTS_HPP

#include <codomyrmex/concurrency/redis/scripts.hpp>

namespace codomyrmex::concurrency::redis {

/// The renew script for several locks.
///
/// KEYS: for each the lock, its fence, its queue. ARGV: time to live in ms; the server time after
/// which nothing is to be done for any, or empty; the request's number; then the token of each.
/// Answers the server time and a word for each, as the renew script has it.
inline constexpr auto renew_all_body =
    concat(lua_time, lua_words, R"lua(local ttl, not_after, number = ARGV[1], ARGV[2], ARGV[3]
local count = #KEYS / 3
local queues, answers = {}, {now}
for i = 1, count do
    queues[i] = KEYS[3 * i]
    redis.call('PEXPIRE', KEYS[3 * i - 1], '86400000')
end
local late = not_after ~= '' and now > not_after
local wanted = redis.call('EXISTS', unpack(queues)) ~= 0
for i = 1, count do
    local lock, word = KEYS[3 * i - 2], 0
    local holder = redis.pcall('GET', lock)
    if type(holder) == 'string' and is_token(holder, ARGV[i + 3]) then
        word = 3
        if not late then
            redis.call('PEXPIRE', lock, ttl)
            word = wanted and redis.call('EXISTS', queues[i]) + 1 or 1
        end
    end
    answers[i + 1] = word
end
answers[count + 2] = number
return table.concat(answers, ' ')
)lua");
inline constexpr Script renew_all_script{ScriptId::renew_all,
                                         "renew all",
                                         "907bc8ded61552d86f3a0b5857271b90eb897e30",
                                         {renew_all_body.data(), renew_all_body.size()}};

/// Takes several locks, all or none, if each is free, or this token's already, and nobody waits for
/// any.
///
/// KEYS: for each the lock, its fence, its queue. ARGV: time to live in ms; text for people; the
/// server time after which nothing is to be done, or empty; how many fencing tokens for each; the
/// request's number; then the token of each.
/// Answers 1, server time, which is the first fencing token of each; 0, server time, which one is
/// held by another, counted from 0; 2, server time, if it came too late; 3, server time, if they
/// must be taken one by one, for only the acquire script knows what to do with one of them. Of what
/// is not taken, a fencing token may be skipped.
inline constexpr auto acquire_all_body = concat(
    lua_time, lua_words,
    R"lua(local ttl, text, not_after, block, number = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if not_after ~= '' and now > not_after then return say(2, now, number) end
local count = #KEYS / 3
local free, fences = {}, {}
for i = 1, count do
    free[2 * i - 1], fences[i], free[2 * i] = KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i]
end
local there = redis.call('EXISTS', unpack(free))
for i = 1, there == 0 and 0 or count do
    local holder = redis.call('GET', KEYS[3 * i - 2])
    if is_token(holder, ARGV[i + 5]) then
        there = there - 1
    elseif holder then
        redis.call('ZREM', KEYS[3 * i], '')
        if redis.call('PTTL', KEYS[3 * i - 2]) == -1 then return say(3, now, number) end
        return say(0, now, i - 1, number)
    end
end
if there ~= 0 then return say(3, now, number) end
local call, find, keys, words = redis.call, string.find, KEYS, ARGV
-- First what may be of another type.
for i = 1, count do
    local last = call('SET', fences[i], now, 'PX', '86400000', 'GET')
    if last and not (#last == 19 and last < now and not find(last, '%D')) then
        local ours = #last == 19 and not find(last, '%D')
        call('SET', fences[i], last, unpack(ours and {'PX', '86400000'} or {}))
        return say(3, now, number)
    end
    if block ~= '1' then call('INCRBY', fences[i], block - 1) end
end
local holder = ' ' .. text .. ' ' .. time[1]
-- With GET, for nothing costs less to answer than OK.
for i = 1, count do
    call('SET', keys[3 * i - 2], words[i + 5] .. holder, 'PX', ttl, 'GET')
end
return say(1, now, number)
)lua");
inline constexpr Script acquire_all_script{ScriptId::acquire_all,
                                           "acquire all",
                                           "9e32ca5696c6f5571d37106c2c88a3685a42c7be",
                                           {acquire_all_body.data(), acquire_all_body.size()}};

/// What the acquire script does for one lock, done for several that are asked for at the same time;
/// what comes of one says nothing of the others.
///
/// KEYS: for each the lock, its fence, its queue. ARGV: the request's number; the server time after
/// which nothing is to be done, or empty; time to live in ms; how many fencing tokens for each; the
/// prefix of channels; then of each the token, the waiter, or empty, and the text for people.
/// Answers for each what the acquire script does, without the number, and a comma; nothing before
/// the comma for one that is to be asked for by itself: by another time, or for its error.
inline constexpr auto acquire_each_body =
    concat(lua_time,
           R"lua(local not_after, ttl, block, prefix = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
-- What say() has for the last word: the caller knows the number of each request.
local number = ''
local count = #KEYS / 3
if not_after ~= '' and now > not_after then return string.rep(',', count) .. ARGV[1] end
)lua",
           lua_words, lua_stand, lua_held, lua_draw, lua_first_alive, lua_pass_on, lua_take,
           R"lua(local function acquire(lock, fence_key, queue, token, waiter, text)
    local there = redis.call('EXISTS', lock, queue)
    local holder = there ~= 0 and redis.call('GET', lock)
    return held(lock, queue, prefix, token, waiter, holder, there) or
        take(lock, fence_key, queue, prefix, token, waiter, ttl, text, block, false, holder, there)
end
local call, find, keys, words = redis.call, string.find, KEYS, ARGV
local places = {}
for i = 1, count do
    places[2 * i - 1], places[2 * i] = keys[3 * i - 2], keys[3 * i]
end
local free = block == '1' and call('EXISTS', unpack(places)) == 0
-- What each fence was before, zeros if it was not. All are drawn first, so that they are looked at together.
local lasts, sound = {}, free
for i = 1, count do
    if free or (block == '1' and call('EXISTS', keys[3 * i - 2], keys[3 * i]) == 0) then
        local last = redis.pcall('SET', keys[3 * i - 1], now, 'PX', '86400000', 'GET') or '0000000000000000000'
        lasts[i] = last
        -- An error is a table of no length.
        if #last ~= 19 or last >= now then sound = false end
    end
end
sound = sound and find(table.concat(lasts), '^%d*$')
local began, granted = ' ' .. time[1], '1 ' .. now .. ' ' .. now .. ' 1 '
local answers = {}
for i = 1, count do
    local lock, last, token, text = keys[3 * i - 2], lasts[i], words[3 * i + 3], words[3 * i + 5]
    if sound or (last and #last == 19 and last < now and find(last, '^%d+$')) then
        call('SET', lock, token .. ' ' .. text .. began, 'PX', ttl, 'GET')
        answers[i] = granted
    else
        local fence_key, queue, waiter = keys[3 * i - 1], keys[3 * i], words[3 * i + 4]
        -- If it was now, the same lock stands here twice, and the first has put it right.
        if type(last) == 'string' and last ~= now then
            local ours = #last == 19 and find(last, '^%d+$')
            call('SET', fence_key, last, unpack(ours and {'PX', '86400000'} or {}))
        end
        local done, answer = pcall(acquire, lock, fence_key, queue, token, waiter, text)
        answers[i] = done and type(answer) == 'string' and answer or ''
    end
end
answers[count + 1] = ARGV[1]
return table.concat(answers, ',')
)lua");
inline constexpr Script acquire_each_script{ScriptId::acquire_each,
                                            "acquire each",
                                            "168d86d4687f8a1d5feefad9f1a10697d4f6c8d5",
                                            {acquire_each_body.data(), acquire_each_body.size()}};

/// The release script for several locks whose tokens do not stand in a queue.
///
/// KEYS: for each the lock, its fence, its queue. ARGV: the request's number; the prefix of
/// channels; then the token of each.
/// Answers as acquire_each does: nothing for one whose release is an error.
inline constexpr auto release_all_body =
    concat(R"lua(local count = #KEYS / 3
local locks, queues = {}, {}
for i = 1, count do
    locks[i], queues[i] = KEYS[3 * i - 2], KEYS[3 * i]
end
local find, byte, words = string.find, string.byte, ARGV
local ours = 0
-- Without the right to do so, it is an error that has no elements.
for i, holder in ipairs(redis.pcall('MGET', unpack(locks))) do
    local token = words[i + 2]
    if holder and find(holder, token, 1, true) == 1 and byte(holder, #token + 1) == 32 then
        ours = ours + 1
    end
end
if ours == count and redis.call('EXISTS', unpack(queues)) == 0 then
    redis.call('DEL', unpack(locks))
    return string.rep('1 ,', count) .. ARGV[1]
end
)lua",
           lua_time, lua_words, lua_draw, lua_first_alive, lua_pass_on, lua_release,
           R"lua(local answers = {}
for i = 1, count do
    local done, answer = pcall(function()
        local holder = redis.call('GET', locks[i])
        return release(locks[i], KEYS[3 * i - 1], queues[i], ARGV[2], ARGV[i + 2], '', holder)
    end)
    answers[i] = done and answer .. ' ' or ''
end
answers[count + 1] = ARGV[1]
return table.concat(answers, ',')
)lua");
inline constexpr Script release_all_script{ScriptId::release_all,
                                           "release all",
                                           "349430e603a588e6e394ecafd588bcd277637116",
                                           {release_all_body.data(), release_all_body.size()}};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_BATCH_SCRIPTS_HPP
