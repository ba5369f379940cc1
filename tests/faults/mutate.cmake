# SPDX-License-Identifier: MIT
#
# Makes a copy of the library with one thing broken in it.
#
#   cmake -DMUTANT=<name> -DFROM=<include folder> -DTO=<folder> -P mutate.cmake
#
# Fails unless each text to be replaced is there, exactly once: a mutant that is none would prove
# that nothing is found.

cmake_minimum_required(VERSION 3.24)

set(redis codomyrmex/concurrency/redis)
set(detail codomyrmex/concurrency/detail)

file(REMOVE_RECURSE "${TO}")
file(COPY "${FROM}/" DESTINATION "${TO}")

# mutate(<file> <text> <other text>)
function(mutate file text other)
    file(READ "${TO}/${file}" content)
    string(LENGTH "${content}" before)
    string(LENGTH "${text}" length)
    string(REPLACE "${text}" "" without "${content}")
    string(LENGTH "${without}" after)
    math(EXPR missing "${before} - ${after}")
    if(NOT missing EQUAL length)
        math(EXPR times "${missing} / ${length}")
        message(FATAL_ERROR "mutant ${MUTANT}: ${file} has ${times} times, not once: ${text}")
    endif()
    string(REPLACE "${text}" "${other}" content "${content}")
    file(WRITE "${TO}/${file}" "${content}")
endfunction()

if(MUTANT STREQUAL "plain_del")
    # Whoever holds it: a release deletes it.
    mutate(${redis}/scripts.hpp "        if holder then return 0 end\n" "        ours = true\n")
elseif(MUTANT STREQUAL "validity_from_reply")
    mutate(${redis}/acquisition.hpp "acquired->fences, answer.sent, options().ttl"
           "acquired->fences, detail::BootClock::now(), options().ttl")
elseif(MUTANT STREQUAL "constant_fence")
    mutate(${redis}/scripts.hpp "    block = tonumber(block)\n"
           "    if true then return '1700000000000000000', block end\n")
    mutate(${redis}/scripts.hpp "return '1 ' .. now .. ' ' .. now .. ' 1 '"
           "return '1 ' .. now .. ' 1700000000000000000 1 '")
    mutate(${redis}/batch_scripts.hpp "'1 ' .. now .. ' ' .. now .. ' 1 '"
           "'1 ' .. now .. ' 1700000000000000000 1 '")
elseif(MUTANT STREQUAL "fence_stands")
    # From thread to thread.
    mutate(${redis}/hold.hpp "return next_fence_++" "return next_fence_")
elseif(MUTANT STREQUAL "renewed_after_release")
    mutate(${redis}/agenda.hpp
           "        schedule.remove(tenure);\n        if (tenure.stood())"
           "        if (tenure.stood())")
elseif(MUTANT STREQUAL "late_reply_accepted")
    # The reply to a request that was given up goes to the next one.
    mutate(${redis}/request_queue.hpp "        request->abandoned = true"
           "        std::erase_if(sent_, [&](const SentCall& call) { return call.first == request; })")
    mutate(${redis}/command.hpp "!reply.text.ends_with(text())) return false;"
           "reply.text.size() <= size_) return false;")
elseif(MUTANT STREQUAL "waiter_stays")
    mutate(${redis}/scripts.hpp "redis.call('ZREM', queue, waiter)\n        if holder"
           "redis.call('ZREM', queue, '')\n        if holder")
elseif(MUTANT STREQUAL "grant_from_receipt")
    mutate(${redis}/grant.hpp "grant.since = std::min(received, asked + waited)"
           "grant.since = std::max(received, asked)")
elseif(MUTANT STREQUAL "old_lease_again")
    # To the token that has it already, with what is left of the time, and the old fence.
    mutate(
        ${redis}/scripts.hpp
        "        local fence, drawn = draw(fence_key, block)\n        if not fence then return foreign_fence end\n        redis.call('PEXPIRE', lock, ttl)\n"
        "        local fence, drawn = redis.call('GET', fence_key), 1\n        if not fence then return foreign_fence end\n")
elseif(MUTANT STREQUAL "child_is_parent")
    mutate(${detail}/fork_mark.hpp "return mark_->load(std::memory_order_relaxed) == 0;"
           "return false;")
elseif(MUTANT STREQUAL "renewal_revives")
    # Whoever holds it: a renewal makes it ours.
    mutate(${redis}/scripts.hpp
           "if not is_token(redis.call('GET', KEYS[1]), ARGV[1]) then return say(0, now, ARGV[4]) end"
           "redis.call('SET', KEYS[1], ARGV[1] .. ' again', 'PX', ARGV[2])")
    mutate(${redis}/batch_scripts.hpp
           "    if type(holder) == 'string' and is_token(holder, ARGV[i + 3]) then"
           "    redis.call('SET', lock, ARGV[i + 3] .. ' again', 'PX', ttl)\n    if true then")
elseif(MUTANT STREQUAL "no_expiry")
    mutate(${redis}/scripts.hpp "'NX', 'PX', ttl)\n" "'NX')\n")
    mutate(${redis}/scripts.hpp "'NX', 'PX', ARGV[4])" "'NX')")
    mutate(${redis}/batch_scripts.hpp "text .. began, 'PX', ttl, 'GET')" "text .. began)")
else()
    message(FATAL_ERROR "no such mutant: ${MUTANT}")
endif()
