// SPDX-License-Identifier: MIT
//
// This process as one that asks the server for leases, each under an owner token that no other has.
// Which thread asks, and when, is said by local_turns.hpp for locks and permits.hpp for the rest.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_CLAIMANT_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_CLAIMANT_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/redis/acquisition.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/holder_text.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>

#include <array>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// A name for this process that no other has, nor another client of it.
/// Throws: std::exception if the system has no random numbers.
[[nodiscard]] inline ProcessName make_process_name(std::string prefix) {
    ProcessName name;
    name.id = detail::random_hex_128();
    name.holder = process_text();
    name.channel = prefix + "wake:" + name.id;
    name.prefix = std::move(prefix);
    return name;
}

/// Threads: safe.
class Claimant {
  public:
    /// Requires: `keeper` outlives it.
    explicit Claimant(KeeperState& keeper) noexcept : keeper_{keeper} {}

    [[nodiscard]] KeeperState& keeper() const noexcept { return keeper_; }

    /// A tenure under a token of its own, not asked for yet.
    [[nodiscard]] std::shared_ptr<Tenure> make_tenure(
        const std::shared_ptr<const LockIdentity>& identity) {
        return std::make_shared<Tenure>(identity, new_token(identity->options), keeper_.mark);
    }

    /// What the calling thread is called as its holder.
    [[nodiscard]] std::string text(const LockIdentity& identity) const {
        return holder_text(keeper_.name.holder, identity.options.label);
    }

    /// Asks the server, as an Acquisition does with these. `contended`: set if another was seen to
    /// hold it. Returns: what was obtained, live and renewed from here on; or null.
    /// Throws: LockError.
    [[nodiscard]] std::shared_ptr<Tenure> acquire(
        const std::shared_ptr<const LockIdentity>& identity, std::uint64_t block, const Wait& wait,
        Deadline reach, bool seen_held, bool& contended) {
        auto tenure = make_tenure(identity);
        Acquisition acquisition{keeper_, tenure, text(*identity), block, wait, reach, seen_held};
        if (!acquisition.run()) tenure = nullptr;
        contended = contended || acquisition.contended();
        if (acquisition.handed_over()) grants_.fetch_add(1, std::memory_order_relaxed);
        return tenure;
    }

    /// How many leases were passed on to it by another process' release.
    [[nodiscard]] std::uint64_t grants() const noexcept {
        return grants_.load(std::memory_order_relaxed);
    }

  private:
    // 128 bits of the process, a number, and a mark for those who want what we retain.
    [[nodiscard]] std::string new_token(const LeaseOptions& options) {
        std::array<char, 17> number{};
        const auto end = std::to_chars(number.data(), number.data() + number.size(),
                                       counter_.fetch_add(1, std::memory_order_relaxed), 16);
        std::string token;
        // It is kept: no more than it takes.
        token.reserve(keeper_.name.id.size() + 2 +
                      static_cast<std::size_t>(end.ptr - number.data()));
        token += keeper_.name.id;
        token += '-';
        token.append(number.data(), end.ptr);
        if (options.retain != options.retain.zero()) token += 'r';
        return token;
    }

    KeeperState& keeper_;
    std::atomic<std::uint64_t> counter_{1};
    std::atomic<std::uint64_t> grants_{0};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_CLAIMANT_HPP
