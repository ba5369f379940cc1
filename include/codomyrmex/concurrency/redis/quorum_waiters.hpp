// SPDX-License-Identifier: MIT
//
// The threads of this process that wait for another try at a quorum's lock. A quorum has no queue:
// each sleeps for a pause of its own, but an unlock in the same process wakes the first of them.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_WAITERS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_WAITERS_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/wait_word.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <list>
#include <mutex>
#include <stop_token>
#include <string_view>

namespace codomyrmex::concurrency::redis {

/// Threads: safe.
class QuorumWaiters {
  public:
    /// One thread's place among them. Threads: by that thread.
    class Place {
      public:
        /// Requires: `among` and what `key` points to outlive it. Throws: std::bad_alloc.
        Place(QuorumWaiters& among, std::string_view key) : among_{among}, key_{key} {
            const std::lock_guard guard{among_.mutex_};
            among_.places_.push_back(this);
        }
        Place(const Place&) = delete;
        Place& operator=(const Place&) = delete;
        ~Place() {
            const std::lock_guard guard{among_.mutex_};
            among_.places_.remove(this);
        }

        /// Sleeps for `pause` at most, or until `deadline`; less if it is woken, or was since it
        /// slept last, or if `stop` asks. Returns: whether it was woken, by either.
        bool sleep(std::chrono::nanoseconds pause, Deadline deadline,
                   const std::stop_token& stop = {}) {
            const std::stop_callback wake{stop, [this] { state_.set(awake); }};
            const bool woken =
                state_.wait_while(asleep, std::min(deadline, Deadline::after(pause)));
            const std::lock_guard guard{among_.mutex_};
            state_.set(asleep);
            return woken;
        }

      private:
        friend class QuorumWaiters;

        static constexpr std::uint32_t asleep = 0;
        static constexpr std::uint32_t awake = 1;

        QuorumWaiters& among_;
        const std::string_view key_;
        detail::WaitWord state_{asleep};
    };

    /// Lets the first that waits for `key` try at once: it was given back.
    void wake_first(std::string_view key) noexcept {
        const std::lock_guard guard{mutex_};
        const auto first =
            std::ranges::find_if(places_, [&](const Place* place) { return place->key_ == key; });
        if (first != places_.end()) (*first)->state_.set(Place::awake);
    }

  private:
    std::mutex mutex_;
    std::list<Place*> places_;  // the longest waiting first
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_WAITERS_HPP
