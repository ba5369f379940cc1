// SPDX-License-Identifier: MIT
//
// The holds that a lock or a semaphore keeps inside for those who use the verbs of the standard,
// which hand out nothing that a hold could stand in. Without I/O.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_KEPT_HOLDS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_KEPT_HOLDS_HPP

#include <codomyrmex/concurrency/redis/hold.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Of an exclusive lock: one that stands, and such as were lost and wait for their unlock().
/// Threads: safe.
class ThreadHolds {
    // A hold and the thread that locked: not its owner, but the most likely one to unlock it.
    struct Seat {
        std::shared_ptr<Hold> hold{};
        std::thread::id thread{};
    };

  public:
    /// Made before a hold is acquired, for what was acquired must not be dropped: a place for one
    /// that was lost, which steps aside until its own unlock() comes.
    class Place {
        friend class ThreadHolds;
        std::list<Seat> seats_{1};
    };

    /// Keeps `hold` as the one that stands.
    void put(std::shared_ptr<Hold> hold, Place& place) noexcept {
        const std::lock_guard guard{mutex_};
        if (current_.hold) {
            place.seats_.front() = std::move(current_);
            aside_.splice(aside_.end(), place.seats_);
        }
        current_ = {std::move(hold), std::this_thread::get_id()};
    }

    /// The hold that an unlock() on this thread means; null if there is none.
    [[nodiscard]] std::shared_ptr<Hold> take() noexcept {
        const std::lock_guard guard{mutex_};
        std::shared_ptr<Hold> hold;
        const auto mine = std::ranges::find(aside_, std::this_thread::get_id(), &Seat::thread);
        const bool current_is_mine = current_.thread == std::this_thread::get_id();
        if (current_.hold && (current_is_mine || mine == aside_.end())) {
            hold = std::exchange(current_, {}).hold;
        } else if (!aside_.empty()) {
            const auto meant = mine == aside_.end() ? aside_.begin() : mine;
            hold = std::move(meant->hold);
            aside_.erase(meant);
        }
        return hold;
    }

    [[nodiscard]] std::shared_ptr<Hold> current() const noexcept {
        const std::lock_guard guard{mutex_};
        return current_.hold;
    }

  private:
    mutable std::mutex mutex_;
    Seat current_;
    std::list<Seat> aside_;
};

/// Of a semaphore, or of readers: any number, which nobody can tell apart.
/// Threads: safe.
class PooledHolds {
  public:
    /// Makes room for one more, which a put() for it then takes.
    /// Throws: std::bad_alloc.
    void reserve() {
        const std::lock_guard guard{mutex_};
        ++reserved_;
        try {
            holds_.reserve(holds_.size() + reserved_);
        } catch (...) {
            --reserved_;
            throw;
        }
    }
    void put(std::shared_ptr<Hold> hold) noexcept {
        const std::lock_guard guard{mutex_};
        --reserved_;
        holds_.push_back(std::move(hold));
    }
    /// Nothing was acquired.
    void unreserve() noexcept {
        const std::lock_guard guard{mutex_};
        --reserved_;
    }

    /// Holds of `weight` permits together, to give back: of those that fit, the ones of most
    /// permits first, then one that was lost before one that stands, and then the one that ends
    /// soonest. Returns: nothing if these do not add up to it. Throws: std::bad_alloc, and nothing
    /// has changed.
    [[nodiscard]] std::optional<std::vector<std::shared_ptr<Hold>>> take(std::uint64_t weight) {
        const std::lock_guard guard{mutex_};
        std::ranges::sort(holds_, before);
        std::vector<std::shared_ptr<Hold>> taken;
        std::vector<std::shared_ptr<Hold>> kept;
        taken.reserve(holds_.size());
        kept.reserve(holds_.size() + reserved_);
        for (const auto& hold : holds_) {
            const bool fits = weight_of(*hold) <= weight;
            if (fits) weight -= weight_of(*hold);
            (fits ? taken : kept).push_back(hold);
        }
        if (weight != 0) return std::nullopt;
        holds_.swap(kept);
        return taken;
    }

    [[nodiscard]] std::vector<std::shared_ptr<Hold>> take_all() noexcept {
        const std::lock_guard guard{mutex_};
        return std::exchange(holds_, {});
    }

    /// How many permits there are.
    [[nodiscard]] std::uint64_t weight() const noexcept {
        const std::lock_guard guard{mutex_};
        std::uint64_t sum = 0;
        for (const auto& hold : holds_)
            sum += weight_of(*hold);
        return sum;
    }

  private:
    [[nodiscard]] static std::uint64_t weight_of(const Hold& hold) noexcept {
        return hold.tenure()->identity().weight;
    }
    [[nodiscard]] static bool before(const std::shared_ptr<Hold>& a,
                                     const std::shared_ptr<Hold>& b) noexcept {
        if (weight_of(*a) != weight_of(*b)) return weight_of(*a) > weight_of(*b);
        // One that is over has the clock's beginning for a deadline.
        return a->tenure()->deadline() < b->tenure()->deadline();
    }

    mutable std::mutex mutex_;
    std::vector<std::shared_ptr<Hold>> holds_;
    std::size_t reserved_ = 0;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_KEPT_HOLDS_HPP
