// SPDX-License-Identifier: MIT
//
// The scripts of those who look on: who holds, and taking that away. Documented as those of
// scripts.hpp and permit_scripts.hpp, whose parts they are made of. The first two only read, so a
// replica answers them, too, from what it knows.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_INSPECT_SCRIPTS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_INSPECT_SCRIPTS_HPP

#include <codomyrmex/concurrency/redis/permit_scripts.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

namespace codomyrmex::concurrency::redis {

/// Who holds a lock. Of one moment: GET and PTTL one after another could tell of two holders.
///
/// KEYS: the lock, its fence, its queue.
/// Answers {server time, the holder's value or '', its remaining ms, the last fence or '', how many
/// wait}. Error FOREIGNKEY: another type, or no expiry; neither is ours.
inline constexpr auto look_body = concat(lua_time, R"lua(local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'table' then return redis.error_reply('FOREIGNKEY the lock key is no string') end
local waiting = redis.call('ZCARD', KEYS[3])
if not holder then return {now, '', 0, '', waiting} end
local left = redis.call('PTTL', KEYS[1])
if left == -1 then
    return redis.error_reply('FOREIGNKEY the lock key has no expiry, so this library did not write it')
end
return {now, holder, left, redis.call('GET', KEYS[2]) or '', waiting}
)lua");
inline constexpr Script look_script{ScriptId::look,
                                    "look",
                                    "201b1cb65e17a2cd4ce53cb8dfb02df152f854b3",
                                    {look_body.data(), look_body.size()}};

/// Who holds what can have many holders: a sorted set of tokens by expiry, in microseconds of the
/// server's time, and a hash with the capacity and, by token, `weight text since`.
///
/// KEYS: the set, its fence, its queue, its hash. ARGV: how many holders to skip, how many to give.
/// Answers {server time, capacity or '', the last fence or '', how many wait, how many hold}, and
/// for each given holder, those first that end first: token, expiry, value or ''.
/// Error FOREIGNKEY: another type; not ours.
inline constexpr auto look_many_body =
    concat(lua_time, R"lua(local from = '(' .. string.sub(now, 1, 16)
local found = redis.pcall('ZRANGE', KEYS[1], from, '+inf', 'BYSCORE', 'LIMIT', ARGV[1], ARGV[2], 'WITHSCORES')
if found.err then return redis.error_reply('FOREIGNKEY the key is no sorted set') end
local answer = {now, redis.call('HGET', KEYS[4], 'capacity') or '', redis.call('GET', KEYS[2]) or '',
    redis.call('ZCARD', KEYS[3]), redis.call('ZCOUNT', KEYS[1], from, '+inf')}
for i = 1, #found, 2 do
    answer[#answer + 1] = found[i]
    answer[#answer + 1] = found[i + 1]
    answer[#answer + 1] = redis.call('HGET', KEYS[4], found[i]) or ''
end
return answer
)lua");
inline constexpr Script look_many_script{ScriptId::look_many,
                                         "look_many",
                                         "082d638eb65f49ef005cc3d039b8a6181df2f7b1",
                                         {look_many_body.data(), look_many_body.size()}};

// Gives tell_revoked(prefix, token, key): tells the process of `token` that it was taken away.
inline constexpr char lua_tell_revoked[] = R"lua(local function tell_revoked(prefix, token, key)
    redis.pcall('PUBLISH', prefix .. 'wake:' .. string.match(token, '^[^-]*'), 'revoked ' .. token .. ' ' .. key)
end
)lua";

/// Takes a lock from whoever holds it under this token, as that one's release would, and tells its
/// process. A free lock that somebody waits for is passed on.
///
/// KEYS: the lock, its fence, its queue. ARGV: token; the prefix of channels.
/// Answers and idempotence as release's. Publishes "revoked <token> <key>".
inline constexpr auto force_release_body =
    concat(lua_time, lua_words, lua_draw, lua_first_alive, lua_pass_on, lua_tell_revoked,
           R"lua(local lock, fence_key, queue = KEYS[1], KEYS[2], KEYS[3]
local token, prefix = ARGV[1], ARGV[2]
redis.call('ZREM', queue, '')
local holder = redis.call('GET', lock)
local ours = is_token(holder, token)
if holder and not ours then return 0 end
local outcome = pass_on(lock, fence_key, queue, prefix, '')
if ours then
    if outcome ~= 'granted' then redis.call('DEL', lock) end
    tell_revoked(prefix, token, lock)
end
return (ours and 1 or 0) + (outcome == 'more' and 2 or 0)
)lua");
inline constexpr Script force_release_script{
    ScriptId::force_release,
    "force_release",
    "bda298db94d2c3cb60fa0e05992d967667fd63df",
    {force_release_body.data(), force_release_body.size()}};

/// Takes the permits from whoever holds them under this token, as that one's release would, and
/// tells its process. Serves those who wait and for whom there is room.
///
/// KEYS: the holders, their fence, their queue, their hash. ARGV: token; the prefix of channels.
/// Answers and idempotence as the release script's of permits; publishes as force_release.
/// Error FOREIGNKEY: holders without an expiry; not ours.
inline constexpr auto force_release_permits_body =
    concat(lua_time, lua_words, lua_draw, lua_first_alive, lua_permits, lua_admit, lua_tell_revoked,
           R"lua(local token, prefix = ARGV[1], ARGV[2]
redis.call('ZREM', queue, '')
local foreign, more = purge()
if foreign then return foreign_set end
local ours = tonumber(redis.call('ZSCORE', set, token) or 0) > micros
if ours then
    remove(token)
    if not more then expire() end
    tell_revoked(prefix, token, set)
end
if admit(prefix, '') == 'more' then more = true end
return (ours and 1 or 0) + (more and 2 or 0)
)lua");
inline constexpr Script force_release_permits_script{
    ScriptId::force_release_permits,
    "force_release_permits",
    "55103aa7c638f499e2f960490c92bff8eb8ff6d3",
    {force_release_permits_body.data(), force_release_permits_body.size()}};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_INSPECT_SCRIPTS_HPP
