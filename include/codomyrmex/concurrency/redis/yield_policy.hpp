// SPDX-License-Identifier: MIT
//
// Whether to let other threads go first, which pays while they are about to send requests that can
// share a write, or to take a lock over without a request, and costs a time slice beside a thread
// that computes. Learns from what each yield brought and how long it took: what one saved may be
// spent on some that bring nothing. When that is used up, it is not tried again for a while, which
// doubles each time. Without I/O and without a clock.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_YIELD_POLICY_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_YIELD_POLICY_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace codomyrmex::concurrency::redis {

/// Threads: safe; what two threads learn at the same time may be lost, which does no harm.
class YieldPolicy {
  public:
    /// What a request saves that shares the write and the read of another: about two system calls
    /// and a change of threads.
    static constexpr std::chrono::microseconds saving{20};
    /// A yield that takes longer gave its time to who computes.
    static constexpr std::chrono::microseconds slice = 25 * saving;
    /// How much of what was saved is kept to be spent.
    static constexpr std::chrono::nanoseconds most_credit = 10 * saving;

    /// Whether to yield this time.
    [[nodiscard]] bool worth_it() noexcept {
        forget(1);
        const std::uint32_t left = skip_.load(std::memory_order_relaxed);
        if (left == 0) return true;
        skip_.store(left - 1, std::memory_order_relaxed);
        return false;
    }

    /// Whether worth_it() would say so. Changes nothing.
    [[nodiscard]] bool pays() const noexcept { return skip_.load(std::memory_order_relaxed) == 0; }

    /// Whether something else computes here: a yield cost a slice, and not many that did not have
    /// followed, nor very many askings.
    [[nodiscard]] bool crowded() const noexcept {
        return crowded_.load(std::memory_order_relaxed) != 0;
    }

    /// A yield took so long and brought so many requests.
    void learn(std::size_t gained, std::chrono::nanoseconds took) noexcept {
        const auto saved = saving * static_cast<std::int64_t>(gained);
        const std::chrono::nanoseconds credit{credit_.load(std::memory_order_relaxed)};
        if (took > slice) {
            crowded_.store(remembered, std::memory_order_relaxed);
        } else {
            forget(remembered / 64);
        }
        if (gained != 0 && took <= saved * 2) {
            penalty_.store(0, std::memory_order_relaxed);
            credit_.store(std::min<std::chrono::nanoseconds>(credit + saved, most_credit).count(),
                          std::memory_order_relaxed);
            return;
        }
        credit_.store(std::max(credit - took, std::chrono::nanoseconds::zero()).count(),
                      std::memory_order_relaxed);
        if (took <= credit) return;
        // A slice that somebody else computed away costs hundreds of what a vain yield costs.
        const std::uint32_t step = took > slice ? 64 : 1;
        const std::uint32_t old = penalty_.load(std::memory_order_relaxed);
        const std::uint32_t next = std::clamp(old * 2, step, longest);
        penalty_.store(next, std::memory_order_relaxed);
        skip_.store(next, std::memory_order_relaxed);
    }

  private:
    void forget(std::uint32_t part) noexcept {
        const std::uint32_t left = crowded_.load(std::memory_order_relaxed);
        if (left != 0) crowded_.store(left - std::min(part, left), std::memory_order_relaxed);
    }

    static constexpr std::uint32_t longest = 1024;
    // For how many askings a yield that cost a slice is remembered: until the next are tried.
    static constexpr std::uint32_t remembered = 2 * longest;

    std::atomic<std::uint32_t> skip_{0};
    std::atomic<std::uint32_t> penalty_{0};
    std::atomic<std::int64_t> credit_{0};    // nanoseconds
    std::atomic<std::uint32_t> crowded_{0};  // what is left of `remembered`
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_YIELD_POLICY_HPP
