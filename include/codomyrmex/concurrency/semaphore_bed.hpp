// SPDX-License-Identifier: MIT
//
// What the waiters of a BasicLocalSemaphore sleep on. The semaphore itself counts; a bed only parks
// threads and wakes as many as it is told to. Include it to choose a bed or to write one; users of
// LocalSemaphore need not.

#ifndef CODOMYRMEX_CONCURRENCY_SEMAPHORE_BED_HPP
#define CODOMYRMEX_CONCURRENCY_SEMAPHORE_BED_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/timed_wait.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <semaphore>
#include <type_traits>

// libstdc++'s std::counting_semaphore loses wake-ups (seen in 12 to 14: eight threads that acquire
// and release in bursts hang within a minute): an acquirer goes to sleep on a value that is stale,
// and a releaser that saw a positive count skips the wake-up. libc++'s did not. When a release of
// libstdc++ is known to be sound, name it here.
#if defined(__GLIBCXX__)
#define CODOMYRMEX_CONCURRENCY_SOUND_COUNTING_SEMAPHORE 0
#else
#define CODOMYRMEX_CONCURRENCY_SOUND_COUNTING_SEMAPHORE 1
#endif

namespace codomyrmex::concurrency {

/// Where threads sleep until they are posted.
///
/// 1. A fresh bed has no posts. `post(n)` adds n of them; each lets one wait end, be it under way
///    or yet to come.
/// 2. `wait()` takes a post, sleeping until there is one. `wait_until(deadline)` does the same
///    until the deadline and returns true if and only if it took a post.
/// 3. What was written before a post is seen by who takes it.
/// 4. The bed may be destroyed as soon as the wait has returned that took the last post: by then
///    `post` does not touch it any more.
/// 5. None of the members throws.
template <class B>
concept SemaphoreBed =
    std::default_initializable<B> && requires(B& bed, std::ptrdiff_t count, Deadline deadline) {
        bed.post(count);
        bed.wait();
        { bed.wait_until(deadline) } -> std::same_as<bool>;
    };

/// A bed made of a mutex and a condition variable: sound everywhere.
class ConditionVariableBed {
  public:
    void post(std::ptrdiff_t count) noexcept {
        // Notified while the mutex is held: a waiter cannot return, and have the bed destroyed,
        // before notify_one() is done with the condition variable.
        const std::scoped_lock guard{mutex_};
        posts_ += count;
        for (; count > 0; --count)
            posted_.notify_one();
    }

    void wait() noexcept { wait_until(Deadline::never()); }

    bool wait_until(Deadline deadline) noexcept {
        std::unique_lock guard{mutex_};
        const auto posted = [this] { return posts_ > 0; };
        if (!detail::wait_until(posted_, guard, deadline, posted)) return false;
        --posts_;
        return true;
    }

  private:
    std::mutex mutex_;
    std::condition_variable posted_;
    std::ptrdiff_t posts_ = 0;
};

/// A bed made of std::counting_semaphore. Where that loses wake-ups, waits look again every 20 ms,
/// so that a lost one costs time but never hangs.
class CountingSemaphoreBed {
  public:
    void post(std::ptrdiff_t count) noexcept { semaphore_.release(count); }

    void wait() noexcept { wait_until(Deadline::never()); }

    bool wait_until(Deadline deadline) noexcept {
        if constexpr (CODOMYRMEX_CONCURRENCY_SOUND_COUNTING_SEMAPHORE) {
            if (deadline.is_never()) {
                semaphore_.acquire();
                return true;
            }
            return semaphore_.try_acquire_until(deadline.time());
        } else {
            constexpr std::chrono::nanoseconds slice = std::chrono::milliseconds{20};
            bool taken = semaphore_.try_acquire();
            while (!taken && !deadline.expired()) {
                taken = semaphore_.try_acquire_for(std::min(slice, deadline.remaining()));
            }
            return taken;
        }
    }

  private:
    std::counting_semaphore<> semaphore_{0};
};

/// The bed of LocalSemaphore: std::counting_semaphore where it is sound.
using DefaultSemaphoreBed = std::conditional_t<CODOMYRMEX_CONCURRENCY_SOUND_COUNTING_SEMAPHORE,
                                               CountingSemaphoreBed, ConditionVariableBed>;

static_assert(SemaphoreBed<ConditionVariableBed>);
static_assert(SemaphoreBed<CountingSemaphoreBed>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_SEMAPHORE_BED_HPP
