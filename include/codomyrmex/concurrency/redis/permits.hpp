// SPDX-License-Identifier: MIT
//
// What can have many holders: permits of a semaphore, readers of a read-write lock. A process may
// have many, so each thread stands in the server's queue itself, and those who fit beside each
// other are served together.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_PERMITS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_PERMITS_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/acquisition.hpp>
#include <codomyrmex/concurrency/redis/caller.hpp>
#include <codomyrmex/concurrency/redis/claimant.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/permit_scripts.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace codomyrmex::concurrency::redis {

/// Threads: safe.
class Permits {
  public:
    /// Requires: `claimant` outlives it.
    explicit Permits(Claimant& claimant) noexcept
        : claimant_{claimant}, keeper_{claimant.keeper()}, caller_{keeper_} {}

    /// Waits for the permits as `wait` says. Returns: null if they were not obtained.
    /// Throws: LockError.
    [[nodiscard]] std::shared_ptr<Hold> acquire(const std::shared_ptr<const LockIdentity>& identity,
                                                const Wait& wait) {
        for (bool contended = false;;) {
            const Deadline reach = Deadline::after(keeper_.options.patience);
            const auto tenure = claimant_.acquire(identity, 1, wait, reach, false, contended);
            if (!tenure) return nullptr;
            if (auto hold = use(tenure, contended)) return hold;
        }
    }

    /// Changes how many permits `hold` has. Returns: the hold that takes its place, under a new
    /// fencing token; null if there is no room, and `hold` stands as it did.
    /// Throws: LockError(lease_lost); LockError if the outcome is not known by the deadline.
    [[nodiscard]] std::shared_ptr<Hold> reweigh(const std::shared_ptr<Hold>& hold,
                                                std::uint64_t weight, Deadline deadline) {
        const std::shared_ptr<Tenure>& tenure = hold->tenure();
        if (!hold->valid()) {
            throw LockError(LockErrc::lease_lost,
                            "'" + hold->name() + "' was lost before it could be converted");
        }
        const std::uint64_t order = tenure->next_conversion();
        std::optional<ReweighAnswer> word;
        const Answer answer = caller_.run(
            caller_.limit(deadline),
            [&](BootTime, RequestNumber number) {
                return reweigh_command(*tenure, weight, keeper_.name.prefix, order, number);
            },
            [&](const Reply& reply) {
                word = read_reweigh(reply);
                return word.has_value();
            });
        if (!answer.ok) throw caller_.failure(answer, "cannot convert '" + hold->name() + '\'');
        keeper_.clock.learn(word->time, answer.sent);
        if (word->outcome == ReweighAnswer::Outcome::no_room) return nullptr;
        if (word->outcome == ReweighAnswer::Outcome::lost || !hold->valid()) {
            keeper_.unwatch(*tenure);
            keeper_.lose(tenure, KeeperState::not_ours);
            throw LockError(LockErrc::lease_lost,
                            "'" + hold->name() + "' was lost before it could be converted");
        }
        auto next = std::make_shared<Hold>(*hold, word->fence);
        if (!hold->end()) {
            throw LockError(LockErrc::lease_lost,
                            "'" + hold->name() + "' was lost while it was converted");
        }
        tenure->used_by(next);
        if (!tenure->valid_at(detail::BootClock::now()) && next->lose()) {
            keeper_.events->lost(
                {next->name(), next->fence(), "it ran out while it was converted"});
        }
        return next;
    }

    /// Changes how many permits the semaphore has. Returns: how many it had; 0 if it was unknown.
    /// Throws: LockError.
    std::uint64_t resize(const LockIdentity& identity, std::uint64_t capacity, Deadline deadline) {
        const Deadline limit = caller_.limit(deadline);
        for (;;) {
            std::optional<ResizeAnswer> word;
            const Answer answer = caller_.run(
                limit,
                [&](BootTime give_up, RequestNumber number) {
                    return resize_command(identity, capacity, keeper_.name.prefix,
                                          keeper_.clock.at(give_up), number);
                },
                [&](const Reply& reply) {
                    word = read_resize(reply);
                    return word.has_value();
                });
            if (!answer.ok) throw caller_.failure(answer, "cannot resize '" + identity.name + '\'');
            keeper_.clock.learn(word->time, answer.sent);
            if (word->old) return *word->old;
            // By a wrong idea of the server's clock, perhaps, which is right now.
            if (limit.expired()) {
                throw LockError(LockErrc::backend_unavailable,
                                keeper_.endpoint.to_string() + ": the resizing of '" +
                                    identity.name + "' was executed too late");
            }
        }
    }

  private:
    // Returns: null if it is lost already; it is then given back.
    [[nodiscard]] std::shared_ptr<Hold> use(const std::shared_ptr<Tenure>& tenure, bool contended) {
        std::shared_ptr<Hold> hold;
        try {
            hold = std::make_shared<Hold>(tenure, contended);
        } catch (...) {
            keeper_.unwatch(*tenure);
            keeper_.release(tenure, nullptr);
            throw;
        }
        tenure->used_by(hold);
        // After that: whoever finds it lost from now on tells this hold.
        if (tenure->valid_at(detail::BootClock::now())) return hold;
        hold->end();
        tenure->used_by(nullptr);
        keeper_.release(tenure, nullptr);
        return nullptr;
    }

    Claimant& claimant_;
    KeeperState& keeper_;
    Caller caller_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_PERMITS_HPP
