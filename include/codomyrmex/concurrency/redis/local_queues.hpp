// SPDX-License-Identifier: MIT
//
// The lines of this process, by name: a LocalQueue for each name that somebody wants, has or
// retains here. A name that nobody uses costs nothing.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_LOCAL_QUEUES_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_LOCAL_QUEUES_HPP

#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/local_queue.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// Threads: safe.
class LocalQueues {
  public:
    /// The line for one name. `mutex` guards the rest.
    struct Line {
        std::mutex mutex{};
        LocalQueue queue{};
        std::string failure{};        ///< why the last to ask had no answer; empty if it had
        BootTime unanswered_since{};  ///< and since when nobody had one
        BootTime retained_until{};
        bool wanted = false;             ///< somebody elsewhere wants what is held here
        BootTime not_retained_before{};  ///< somebody elsewhere wanted it of late
        bool timed = false;              ///< the keeper will look at it

      private:
        friend class LocalQueues;
        std::size_t users_ = 0;  // guarded by the shard
    };

    /// The line of the lock `key`, which stays until leave() was called as often.
    [[nodiscard]] std::shared_ptr<Line> come(const std::string& key) {
        Shard& shard = shard_of(key);
        const std::lock_guard guard{shard.mutex};
        auto found = shard.lines.find(key);
        if (found == shard.lines.end()) {
            found = shard.lines.emplace(key, std::make_shared<Line>()).first;
        }
        ++found->second->users_;
        return found->second;
    }

    /// The line of the lock `key`, if there is one.
    [[nodiscard]] std::shared_ptr<Line> find(const std::string& key) const {
        const Shard& shard = shard_of(key);
        const std::lock_guard guard{shard.mutex};
        const auto found = shard.lines.find(key);
        return found == shard.lines.end() ? nullptr : found->second;
    }

    /// Requires: the caller does not hold the line's mutex.
    void leave(const std::string& key) noexcept {
        Shard& shard = shard_of(key);
        const std::lock_guard guard{shard.mutex};
        const auto found = shard.lines.find(key);
        if (found == shard.lines.end()) return;
        --found->second->users_;
        sweep(shard, found);
    }

    /// `tenure` is lost: who stands in line for it has another chance.
    void lost(const std::shared_ptr<Tenure>& tenure) {
        const auto line = find(tenure->identity().lock_key);
        if (!line) return;
        {
            const std::lock_guard guard{line->mutex};
            line->queue.lost(tenure);
        }
        tidy(tenure->identity().lock_key);
    }

    /// Somebody elsewhere wants the lock `key`, which is therefore not retained for a while. Calls
    /// `give(tenure)` for a lease that was retained, before anybody else can ask.
    /// Returns: when to look at the line again, should nobody do that yet.
    template <class Give>
    std::optional<BootTime> wanted(const std::string& key, BootTime now, Give give) {
        const auto line = find(key);
        if (!line) return std::nullopt;
        const std::lock_guard guard{line->mutex};
        line->wanted = true;
        line->not_retained_before = now + std::chrono::seconds{1};
        if (const auto tenure = line->queue.take_retained()) give(tenure);
        if (std::exchange(line->timed, true)) return std::nullopt;
        return line->not_retained_before;
    }

    /// Calls `give(tenure)` for all leases that are retained, which are so no longer.
    template <class Give>
    void give_up_all(Give give) {
        for (Shard& shard : shards_) {
            const std::lock_guard guard{shard.mutex};
            for (auto& [key, line] : shard.lines) {
                const std::lock_guard inner{line->mutex};
                if (const auto tenure = line->queue.take_retained()) give(tenure);
            }
        }
    }

    /// The time has come to look at the line `key`. Calls `give(tenure)` for a lease that was
    /// retained for long enough. Returns: when to look again.
    template <class Give>
    std::optional<BootTime> time_out(const std::string& key, BootTime now, Give give) {
        if (const auto line = find(key)) {
            const std::lock_guard guard{line->mutex};
            const BootTime due =
                line->queue.retained() ? line->retained_until : line->not_retained_before;
            if (due > now) return due;
            line->timed = false;
            if (const auto tenure = line->queue.take_retained()) give(tenure);
        }
        tidy(key);
        return std::nullopt;
    }

    /// How many leases are retained.
    [[nodiscard]] std::size_t retained() const {
        std::size_t count = 0;
        for (const Shard& shard : shards_) {
            const std::lock_guard guard{shard.mutex};
            for (const auto& [key, line] : shard.lines) {
                const std::lock_guard inner{line->mutex};
                if (line->queue.retained()) ++count;
            }
        }
        return count;
    }

  private:
    struct Shard {
        mutable std::mutex mutex;
        std::unordered_map<std::string, std::shared_ptr<Line>> lines;
    };

    void tidy(const std::string& key) noexcept {
        Shard& shard = shard_of(key);
        const std::lock_guard guard{shard.mutex};
        const auto found = shard.lines.find(key);
        if (found != shard.lines.end()) sweep(shard, found);
    }

    static void sweep(Shard& shard,
                      std::unordered_map<std::string, std::shared_ptr<Line>>::iterator found) {
        if (found->second->users_ != 0) return;
        {
            const std::lock_guard guard{found->second->mutex};
            if (!found->second->queue.idle() || found->second->timed) return;
        }
        shard.lines.erase(found);
    }

    [[nodiscard]] Shard& shard_of(const std::string& key) noexcept {
        return shards_[std::hash<std::string>{}(key) % shards_.size()];
    }
    [[nodiscard]] const Shard& shard_of(const std::string& key) const noexcept {
        return shards_[std::hash<std::string>{}(key) % shards_.size()];
    }

    std::array<Shard, 16> shards_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_LOCAL_QUEUES_HPP
