// SPDX-License-Identifier: MIT
//
// The commands that speak of a tenure, in the server's wire format: what the scripts' arguments are
// made of stands here and nowhere else. Without I/O.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_COMMANDS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_COMMANDS_HPP

#include <codomyrmex/concurrency/redis/batch_scripts.hpp>
#include <codomyrmex/concurrency/redis/command.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/permit_scripts.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// What a process calls itself, and where it listens.
struct ProcessName {
    std::string prefix{};   ///< of keys and channels
    std::string id{};       ///< 128 random bits in hexadecimal; its tokens begin with them
    std::string holder{};   ///< "host:pid:", for people
    std::string channel{};  ///< what it is subscribed to
};

/// The scripts of one kind.
struct Scripts {
    const Script& acquire;
    const Script& release;
    const Script& renew;
};
[[nodiscard]] inline Scripts scripts_of(PrimitiveKind kind) noexcept {
    if (kind == PrimitiveKind::lock) return {acquire_script, release_script, renew_script};
    return {acquire_permits_script, release_permits_script, renew_permits_script};
}

/// A call of `script` about what `identity` names.
[[nodiscard]] inline Command call_script(const Script& script, const LockIdentity& identity,
                                         std::initializer_list<std::string_view> arguments) {
    // The number of keys, four keys and nine arguments.
    std::array<std::string_view, 14> words{};
    auto* end = words.begin();
    *end++ = identity.kind == PrimitiveKind::lock ? "3" : "4";
    const PrimitiveKeys& keys = identity.keys;
    end = std::ranges::copy(std::array{keys.main(), keys.fence(), keys.queue()}, end).out;
    if (identity.kind != PrimitiveKind::lock) *end++ = keys.meta();
    end = std::ranges::copy(arguments, end).out;
    return call_of(script, std::span<const std::string_view>{words.begin(), end});
}

/// A call of `script` about several locks, `tenures` of which it is; `arguments`: of all of them
/// first, then of each.
[[nodiscard]] inline Command call_script_for_all(
    const Script& script, const std::vector<std::shared_ptr<Tenure>>& tenures,
    const std::vector<std::string_view>& arguments) {
    const std::string keys = std::to_string(3 * tenures.size());
    std::vector<std::string_view> words{keys};
    words.reserve(words.size() + 3 * tenures.size() + arguments.size());
    for (const auto& tenure : tenures) {
        const PrimitiveKeys& each = tenure->identity().keys;
        words.insert(words.end(), {each.main(), each.fence(), each.queue()});
    }
    words.insert(words.end(), arguments.begin(), arguments.end());
    return call_of(script, words);
}

/// The request for several locks, all or none: they have their time to live, the text and how many
/// fencing tokens in common.
[[nodiscard]] inline Command acquire_all_command(
    const std::vector<std::shared_ptr<Tenure>>& tenures, std::string_view text,
    std::string_view not_after, std::uint64_t block, RequestNumber number) {
    const std::string ttl = std::to_string(tenures.front()->identity().options.ttl.count());
    const std::string fences = std::to_string(block);
    std::vector<std::string_view> words{ttl, text, not_after, fences, number.text()};
    for (const auto& tenure : tenures)
        words.push_back(tenure->token());
    return call_script_for_all(acquire_all_script, tenures, words);
}

/// The request to extend several leases. Requires: they have their time to live in common.
[[nodiscard]] inline Command renew_all_command(const std::vector<std::shared_ptr<Tenure>>& tenures,
                                               std::string_view not_after, RequestNumber number) {
    const std::string ttl = std::to_string(tenures.front()->identity().options.ttl.count());
    std::vector<std::string_view> words{ttl, not_after, number.text()};
    for (const auto& tenure : tenures)
        words.push_back(tenure->token());
    return call_script_for_all(renew_all_script, tenures, words);
}

/// The request to give several locks back. Requires: none of them stood in a queue.
[[nodiscard]] inline Command release_all_command(
    const std::vector<std::shared_ptr<Tenure>>& tenures, std::string_view prefix,
    RequestNumber number) {
    std::vector<std::string_view> words{number.text(), prefix};
    for (const auto& tenure : tenures)
        words.push_back(tenure->token());
    return call_script_for_all(release_all_script, tenures, words);
}

/// Those that take and give back several locks in one call, each by itself.
inline constexpr JointScript joint_release{release_all_script, false, 0};
inline constexpr JointScript joint_acquire{acquire_each_script, true, 1};

/// Where the parts of a lock's command begin that ends with these words: its own, the common ones,
/// the time (or what is in no joint call), its number.
[[nodiscard]] inline Parts parts_of(const JointScript& joint, const std::string& bytes,
                                    const LockIdentity& identity,
                                    std::initializer_list<std::string_view> own,
                                    std::initializer_list<std::string_view> common,
                                    std::string_view time, RequestNumber number) noexcept {
    const auto before = [](std::size_t end, std::initializer_list<std::string_view> words) {
        for (const std::string_view word : words)
            end -= detail::encoded_size(word);
        return static_cast<std::uint32_t>(end);
    };
    Parts parts;
    parts.joint = &joint;
    parts.own_words = own.size();
    parts.common_words = common.size();
    parts.number = before(bytes.size(), {number.text()});
    parts.time = before(parts.number, {time});
    parts.common = before(parts.time, common);
    parts.own = before(parts.common, own);
    parts.keys =
        before(parts.own, {identity.keys.main(), identity.keys.fence(), identity.keys.queue()});
    return parts;
}

/// The request for a lease. `waiter`: as in make_waiter(), or empty to try only. `block`: how many
/// fencing tokens, of a lock.
[[nodiscard]] inline Command acquire_command(const Tenure& tenure, std::string_view prefix,
                                             std::string_view text, std::string_view not_after,
                                             std::uint64_t block, std::string_view waiter,
                                             RequestNumber number) {
    const LockIdentity& identity = tenure.identity();
    const std::string ttl = std::to_string(identity.options.ttl.count());
    if (identity.kind == PrimitiveKind::lock) {
        const std::string& token = tenure.token();
        const std::string fences = std::to_string(block);
        Command command =
            call_script(acquire_script, identity,
                        {token, waiter, text, ttl, fences, prefix, not_after, number.text()});
        // Without a time it would be given another's.
        if (not_after.empty()) return command;
        command.parts = parts_of(joint_acquire, command.bytes, identity, {token, waiter, text},
                                 {ttl, fences, prefix}, not_after, number);
        return command;
    }
    const std::string weight = std::to_string(identity.weight);
    const std::string capacity = std::to_string(identity.capacity);
    return call_script(
        acquire_permits_script, identity,
        {tenure.token(), ttl, text, not_after, weight, prefix, waiter, capacity, number.text()});
}

/// How a waiter stands in the queue: with all that whoever makes it the holder must know.
[[nodiscard]] inline std::string make_waiter(const Tenure& tenure,
                                             std::chrono::milliseconds grant_ttl,
                                             std::uint64_t block, std::string_view text) {
    const LockIdentity& identity = tenure.identity();
    std::string waiter = tenure.token();
    waiter += ' ';
    waiter += std::to_string(std::min(grant_ttl, identity.options.ttl).count());
    waiter += ' ';
    waiter += std::to_string(identity.kind == PrimitiveKind::lock ? block : identity.weight);
    waiter += ' ';
    waiter += text;
    return waiter;
}

[[nodiscard]] inline Command release_command(const Tenure& tenure, std::string_view prefix,
                                             RequestNumber number) {
    const LockIdentity& identity = tenure.identity();
    const std::string_view waiter = tenure.waiter();
    Command command = call_script(scripts_of(identity.kind).release, identity,
                                  {tenure.token(), prefix, waiter, number.text()});
    if (identity.kind != PrimitiveKind::lock || !waiter.empty()) return command;
    command.parts = parts_of(joint_release, command.bytes, identity, {tenure.token()}, {prefix},
                             waiter, number);
    return command;
}

[[nodiscard]] inline Command renew_command(const Tenure& tenure, std::string_view not_after,
                                           RequestNumber number) {
    const std::string ttl = std::to_string(tenure.identity().options.ttl.count());
    return call_script(scripts_of(tenure.identity().kind).renew, tenure.identity(),
                       {tenure.token(), ttl, not_after, number.text()});
}

/// The request to have `weight` permits from now on. `order`: larger than that of the conversion
/// before.
[[nodiscard]] inline Command reweigh_command(const Tenure& tenure, std::uint64_t weight,
                                             std::string_view prefix, std::uint64_t order,
                                             RequestNumber number) {
    return call_script(
        reweigh_script, tenure.identity(),
        {tenure.token(), std::to_string(weight), prefix, std::to_string(order), number.text()});
}

/// The request that the semaphore shall have `capacity` permits.
[[nodiscard]] inline Command resize_command(const LockIdentity& identity, std::uint64_t capacity,
                                            std::string_view prefix, std::string_view not_after,
                                            RequestNumber number) {
    return call_script(resize_script, identity,
                       {std::to_string(capacity), prefix, not_after, number.text()});
}

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_COMMANDS_HPP
