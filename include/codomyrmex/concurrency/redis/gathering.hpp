// SPDX-License-Identifier: MIT
//
// How requests of many threads come to share the writes and reads of one connection: before a write
// the first of those who come together lets the others add theirs, and before it sleeps a thread
// lets those run who may read its reply. Each is a yield of the processor, where that was seen to
// pay. Without I/O.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_GATHERING_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_GATHERING_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/redis/yield_policy.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// "The mutex" below is one that its user has.
class Gathering {
  public:
    /// What a yield may cost beside a thread that computes, and some more.
    static constexpr std::chrono::milliseconds time_slice{10};

    /// Counts a thread that waits for a reply, as long as this lives. Threads: safe.
    class Present {
      public:
        explicit Present(Gathering& gathering) noexcept : count_{gathering.callers_} {
            count_.fetch_add(1);
        }
        Present(const Present&) = delete;
        Present& operator=(const Present&) = delete;
        ~Present() { count_.fetch_sub(1); }

      private:
        std::atomic<int>& count_;
    };

    /// Whether a request that nobody waits for may be left unsent: other threads, whose replies
    /// have come, are about to leave, and the first of them sends it, should nobody else have done
    /// so by then (left_behind()). Mostly this thread itself does, with its next request.
    /// Requires: the mutex is held, and no thread waits for the server.
    [[nodiscard]] bool leave_behind() noexcept {
        if (callers_.load(std::memory_order_relaxed) == 0 || !gathering_.pays()) return false;
        // Sequentially consistent, as the count is and left_behind(). Either it is seen by whoever
        // leaves, or that one is seen to have left.
        left_.store(true);
        return callers_.load() != 0;
    }

    /// For a thread that has left: whether it is to see to it that what was left is sent.
    /// Threads: safe.
    [[nodiscard]] bool left_behind() noexcept { return left_.load() && left_.exchange(false); }

    /// A request was added. Requires: the mutex is held.
    void added() noexcept {
        added_.store(added_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }

    /// Whether some thread gathers; it then sees to it that all is written. Requires: the mutex is
    /// held.
    [[nodiscard]] bool under_way() const noexcept { return gathers_; }

    /// Whether yields of late cost slices that others computed away. Requires: the mutex is held.
    [[nodiscard]] bool crowded() const noexcept { return gathering_.crowded(); }

    /// Whether the request that this thread added is for another one to write: for the one that
    /// gathers, unless all that are here have come by now; then the last of them writes for all,
    /// and nobody gathers any more. Or, where others compute beside, for the one that waits for the
    /// server and writes when that has answered: each request by itself would cost more time than
    /// the wait. `owed`: that replies are. `soon`: that some thread waits for them, and that they
    /// come soon.
    /// Requires: the mutex is held.
    [[nodiscard]] bool left_to_others(bool owed, bool soon) noexcept {
        if (!gathers_) return owed && soon && crowded();
        ++come_;
        if (owed || crowded() || come_ < callers_.load(std::memory_order_relaxed)) return true;
        gathers_ = false;
        complete_at_ = added_.load(std::memory_order_relaxed);
        return false;
    }

    /// Lets others add what they are about to send, where that was seen to pay and `deadline`
    /// leaves the time. The first of those who come together does so, and then writes for all,
    /// unless left_to_others() has another do so; so nothing is left behind.
    /// Requires: `lock` holds the mutex. It is dropped meanwhile. Cost: a few yields at most.
    template <class Lock>
    void gather(Lock& lock, Deadline deadline) {
        left_.store(false, std::memory_order_relaxed);
        const bool others = callers_.load(std::memory_order_relaxed) > 1;
        if (!others || gathers_ || deadline.expired_within(time_slice) || !gathering_.worth_it()) {
            return;
        }
        gathers_ = true;
        const std::uint64_t before = added_.load(std::memory_order_relaxed);
        come_ = 1;
        const std::uint64_t usual = usual_;
        const std::uint64_t round = ++round_;
        const auto begin = Deadline::clock::now();
        lock.unlock();
        std::uint64_t came = 0;
        for (int yields = 0; yields < most_yields; ++yields) {
            std::this_thread::yield();
            const std::uint64_t now = added_.load(std::memory_order_relaxed) - before;
            const std::uint64_t with_this = now - std::exchange(came, now);
            // One yield lets not all of many run. Another, if it may bring a good part of the rest.
            if (came >= usual || 4 * with_this <= usual - came) break;
            if (deadline.expired_within(time_slice)) break;
        }
        const auto took = Deadline::clock::now() - begin;
        lock.lock();
        if (round != round_) {
            // So long that others have gathered since.
            came = 0;
        } else if (std::exchange(gathers_, false)) {
            came = added_.load(std::memory_order_relaxed) - before;
        } else {
            came = complete_at_ - before;
        }
        usual_ = std::max(came, usual_ - (usual_ + 7) / 8);
        gathering_.learn(came, took);
    }

    /// Before a thread sleeps: what it waits for may be on its way, `done()` says whether it came.
    /// In vain if something else was computed in the meantime than what other threads asked for.
    /// Not where `deadline` does not leave the time, and not after a yield that cost a slice.
    /// Requires: the mutex is not held by this thread. Threads: safe. Cost: some yields at most.
    template <class Done>
    void linger(Deadline deadline, Done done) {
        if (deadline.expired_within(time_slice) || !lingering_.worth_it()) return;
        const auto begin = Deadline::clock::now();
        const std::uint64_t before = added_.load(std::memory_order_relaxed);
        auto now = begin;
        bool came = false;
        bool slice = false;
        for (int yields = 0; yields < most_lingering && !came && !slice; ++yields) {
            std::this_thread::yield();
            came = done();
            const auto last = std::exchange(now, Deadline::clock::now());
            slice = now - last > YieldPolicy::slice;
        }
        const std::uint64_t others = added_.load(std::memory_order_relaxed) - before;
        lingering_.learn(came ? others + 1 : 0, now - begin);
    }

  private:
    static constexpr int most_yields = 3;
    // Of one that lingers. In vain they cost about what it costs to be put to sleep and woken; and
    // where several processors are, the server needs some time for what came together.
    static constexpr int most_lingering = 20;

    std::atomic<std::uint64_t> added_{0};  // requests; changed under the mutex
    std::atomic<int> callers_{0};          // threads that wait for replies
    std::atomic<bool> left_{false};        // something may have been left unsent
    YieldPolicy gathering_;                // whether to yield before a write
    YieldPolicy lingering_;                // whether to yield before a sleep
    std::uint64_t usual_ = 0;              // how many requests come together; under the mutex
    std::uint64_t complete_at_ = 0;        // `added_` when all had come; under the mutex
    int come_ = 0;                         // threads, since one gathers; under the mutex
    std::uint64_t round_ = 0;              // how often some thread gathered; under the mutex
    bool gathers_ = false;                 // some thread gathers; under the mutex
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_GATHERING_HPP
