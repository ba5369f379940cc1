// SPDX-License-Identifier: MIT
//
// What a thread gives back together, so that it goes to the server in one request: collected from
// when the thread opens a batch until it closes it. Without I/O.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_RELEASE_BATCHES_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_RELEASE_BATCHES_HPP

#include <codomyrmex/concurrency/redis/hold.hpp>

#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// A tenure that is given back. `hold`: of whom a loss is told that the answer shows, or null.
struct GivenUp {
    std::shared_ptr<Tenure> tenure{};
    std::shared_ptr<Hold> hold{};
};

/// Threads: safe.
class ReleaseBatches {
  public:
    /// Opens the batch of the calling thread, or has it closed once more. Throws: std::bad_alloc.
    void open() {
        const std::lock_guard guard{mutex_};
        if (++batches_[std::this_thread::get_id()].opened == 1) {
            open_.fetch_add(1, std::memory_order_relaxed);
        }
    }

    /// Puts `what` into the batch of the calling thread.
    /// Returns: false if it has none open. Throws: std::bad_alloc.
    [[nodiscard]] bool collect(const GivenUp& what) {
        if (none()) return false;
        const std::lock_guard guard{mutex_};
        const auto found = batches_.find(std::this_thread::get_id());
        if (found == batches_.end()) return false;
        found->second.collected.push_back(what);
        return true;
    }

    /// Returns: what the batch of the calling thread, if it has one, collected since the last call.
    [[nodiscard]] std::vector<GivenUp> take() noexcept {
        if (none()) return {};
        const std::lock_guard guard{mutex_};
        const auto found = batches_.find(std::this_thread::get_id());
        if (found == batches_.end()) return {};
        return std::exchange(found->second.collected, {});
    }

    /// Closes the batch of the calling thread. Requires: it has one open. Returns: as take(); what
    /// was opened twice stays open.
    [[nodiscard]] std::vector<GivenUp> close() noexcept {
        const std::lock_guard guard{mutex_};
        const auto found = batches_.find(std::this_thread::get_id());
        std::vector<GivenUp> collected = std::exchange(found->second.collected, {});
        if (--found->second.opened == 0) {
            batches_.erase(found);
            open_.fetch_sub(1, std::memory_order_relaxed);
        }
        return collected;
    }

  private:
    struct Batch {
        int opened = 0;
        std::vector<GivenUp> collected{};
    };

    // A thread sees what it opened itself.
    [[nodiscard]] bool none() const noexcept { return open_.load(std::memory_order_relaxed) == 0; }

    std::atomic<std::size_t> open_{0};  // threads that have one
    std::mutex mutex_;
    std::map<std::thread::id, Batch> batches_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_RELEASE_BATCHES_HPP
