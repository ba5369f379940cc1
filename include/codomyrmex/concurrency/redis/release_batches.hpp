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
    /// Opens a batch of the calling thread. Throws: std::bad_alloc.
    /// Requires: it has none open.
    void open() {
        const std::lock_guard guard{mutex_};
        batches_[std::this_thread::get_id()];
        open_.fetch_add(1, std::memory_order_relaxed);
    }

    /// Puts `what` into the batch of the calling thread.
    /// Returns: false if it has none open. Throws: std::bad_alloc.
    [[nodiscard]] bool collect(const GivenUp& what) {
        // A thread sees what it opened itself.
        if (open_.load(std::memory_order_relaxed) == 0) return false;
        const std::lock_guard guard{mutex_};
        const auto found = batches_.find(std::this_thread::get_id());
        if (found == batches_.end()) return false;
        found->second.push_back(what);
        return true;
    }

    /// Closes the batch of the calling thread. Returns: what it collected.
    [[nodiscard]] std::vector<GivenUp> close() noexcept {
        const std::lock_guard guard{mutex_};
        const auto found = batches_.find(std::this_thread::get_id());
        if (found == batches_.end()) return {};
        std::vector<GivenUp> collected = std::move(found->second);
        batches_.erase(found);
        open_.fetch_sub(1, std::memory_order_relaxed);
        return collected;
    }

  private:
    std::atomic<std::size_t> open_{0};
    std::mutex mutex_;
    std::map<std::thread::id, std::vector<GivenUp>> batches_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_RELEASE_BATCHES_HPP
