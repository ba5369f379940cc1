// SPDX-License-Identifier: MIT
//
// What this process knows of the server's clock, learnt from the times in its answers. It serves to
// say until when a request makes sense, so that a command its sender gave up on does nothing when
// it is executed late; nothing that must be safe depends on it.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_SERVER_CLOCK_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_SERVER_CLOCK_HPP

#include <codomyrmex/concurrency/redis/grant.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

namespace codomyrmex::concurrency::redis {

/// Threads: safe.
class ServerClock {
  public:
    /// An answer to a request that was sent at `sent` showed `time`. The estimate is fast by the
    /// way there and never slow, so that no request is refused too early.
    void learn(ServerTime time, BootTime sent) noexcept {
        ahead_.store((time.time_since_epoch() - sent.time_since_epoch()).count(),
                     std::memory_order_relaxed);
    }

    /// The server's time at `when`, in 19 digits; empty as long as nothing is known.
    [[nodiscard]] std::string at(BootTime when) const {
        const std::int64_t ahead = ahead_.load(std::memory_order_relaxed);
        if (ahead == unknown) return {};
        const std::int64_t stamp = when.time_since_epoch().count() + ahead;
        std::string digits = std::to_string(stamp);
        if (digits.size() != 19) digits.clear();
        return digits;
    }

  private:
    static constexpr std::int64_t unknown = 0;

    std::atomic<std::int64_t> ahead_{unknown};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_SERVER_CLOCK_HPP
