// SPDX-License-Identifier: MIT
//
// What the parts of a keeper share: whom they ask and how, what there is to do, and who is told.
// The parts are releases.hpp, duties.hpp and grant_listener.hpp; keeper.hpp puts them together.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_KEEPER_BASE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_KEEPER_BASE_HPP

#include <codomyrmex/concurrency/detail/fork_mark.hpp>
#include <codomyrmex/concurrency/redis/agenda.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/local_queues.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/pipeline.hpp>
#include <codomyrmex/concurrency/redis/release_batches.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>
#include <codomyrmex/concurrency/redis/server_clock.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// Threads: safe.
class KeeperBase {
  public:
    /// `begin`: begins the keeper's thread, when there is something to do for it.
    KeeperBase(const Endpoint& to, const ClientOptions& with, ProcessName self,
               std::shared_ptr<Events> tell, std::function<std::thread()> begin)
        : endpoint{to},
          options{with},
          name{std::move(self)},
          events{std::move(tell)},
          agenda{std::move(begin)},
          pipeline{endpoint, options,
                   [this](std::chrono::nanoseconds within) { agenda.attend(within); }} {}
    KeeperBase(const KeeperBase&) = delete;
    KeeperBase& operator=(const KeeperBase&) = delete;
    ~KeeperBase() = default;

    const Endpoint endpoint;
    const ClientOptions options;
    const ProcessName name;
    const std::shared_ptr<Events> events;
    const std::shared_ptr<const detail::ForkMark> mark = std::make_shared<detail::ForkMark>();
    ServerClock clock;       ///< what is known of the server's
    LocalQueues queues;      ///< who waits in this process, and what it retains
    ReleaseBatches batches;  ///< what threads collect to give back together
    Agenda agenda;
    Pipeline pipeline;  ///< the one connection for requests

    /// Why a lease is lost of which the server says so.
    static constexpr const char* not_ours = "the server no longer has it under this token";
    /// Why, when nobody said so in time.
    static constexpr const char* ran_out = "it ran out before a renewal was confirmed";
    /// A script that takes long holds up everybody: so many leases at most in one call.
    static constexpr std::size_t most_together = 200;

    /// For the next request: one that no other had.
    [[nodiscard]] RequestNumber next_number() noexcept {
        return RequestNumber{numbers_.fetch_add(1, std::memory_order_relaxed)};
    }

    /// No renewal of `tenure` begins after this; one under way can no longer do harm.
    void unwatch(const Tenure& tenure) noexcept { agenda.remove(tenure); }

    /// Tells that `tenure` is lost, and gives who waits here for it another chance.
    /// Requires: the caller holds no lock, for a hook is called.
    void lose(const std::shared_ptr<Tenure>& tenure, const char* reason) {
        tenure->close();
        const std::shared_ptr<Hold> user = tenure->user();
        if (!user) unwatch(*tenure);
        queues.lost(tenure);
        if (user && user->lose()) events->lost({user->name(), user->fence(), reason});
    }

  private:
    std::atomic<std::uint64_t> numbers_{1};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_KEEPER_BASE_HPP
