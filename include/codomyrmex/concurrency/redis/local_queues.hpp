// SPDX-License-Identifier: MIT
//
// The lines of this process, by name: a LocalQueue for each name that somebody wants, has or
// retains here. A name that nobody uses costs nothing.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_LOCAL_QUEUES_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_LOCAL_QUEUES_HPP

#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/local_queue.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// That the server did not answer.
struct Silence {
    std::string reason{};
    BootTime since{};
};

/// Threads: safe.
class LocalQueues {
  public:
    /// The line for one name. `mutex` guards the rest; a release is sent while it is held, so who
    /// waits for it had better sleep than spin, as a WordMutex would.
    struct Line {
        std::mutex mutex{};
        LocalQueue queue{};
        std::unique_ptr<Silence> silence{};  ///< null if the last to ask had an answer
        BootTime retained_until{};
        BootTime not_retained_before{};  ///< somebody elsewhere wanted it of late
        bool wanted = false;             ///< somebody elsewhere wants what is held here
        bool timed = false;              ///< the keeper will look at it

      private:
        friend class LocalQueues;
        // Guarded by the shard.
        std::uint32_t users_ = 0;
        std::shared_ptr<const LockIdentity> first_;  // of whom the line began with: it has the key
    };

    /// The line of the lock that `identity` names, which stays until leave() was called as often.
    [[nodiscard]] Line& come(const std::shared_ptr<const LockIdentity>& identity) {
        const std::string_view key = identity->keys.main();
        Shard& shard = shard_of(key);
        const std::lock_guard guard{shard.mutex};
        const auto [place, fresh] = shard.lines.try_emplace(key);
        Line& line = place->second;
        if (fresh) line.first_ = identity;
        ++line.users_;
        return line;
    }

    /// The line of the lock `key`; null if there is none. It stays as long as somebody who came has
    /// not left.
    [[nodiscard]] Line* find(std::string_view key) {
        Shard& shard = shard_of(key);
        const std::lock_guard guard{shard.mutex};
        const auto found = shard.lines.find(key);
        return found == shard.lines.end() ? nullptr : &found->second;
    }

    /// One that came to the line of the lock `key` is done with it. Does nothing if there is none.
    /// Requires: the caller does not hold the line's mutex.
    void leave(std::string_view key) noexcept {
        Shard& shard = shard_of(key);
        const std::lock_guard guard{shard.mutex};
        const auto found = shard.lines.find(key);
        if (found == shard.lines.end()) return;
        Line& line = found->second;
        --line.users_;
        // Without users, nobody has its mutex or waits for it.
        if (line.users_ == 0 && line.queue.idle() && !line.timed) shard.lines.erase(found);
    }

    /// `tenure` is lost: who stands in line for it has another chance.
    void lost(const std::shared_ptr<Tenure>& tenure) {
        const Visit visit{*this, tenure->identity().keys.main()};
        if (visit.line == nullptr) return;
        const std::lock_guard guard{visit.line->mutex};
        visit.line->queue.lost(tenure);
    }

    /// Somebody elsewhere wants the lock `key`, which is therefore not retained for a while. Calls
    /// `give(tenure)` for a lease that was retained, before anybody else can ask.
    /// Returns: when to look at the line again, should nobody do that yet.
    template <class Give>
    std::optional<BootTime> wanted(std::string_view key, BootTime now, Give give) {
        const Visit visit{*this, key};
        if (visit.line == nullptr) return std::nullopt;
        Line& line = *visit.line;
        const std::lock_guard guard{line.mutex};
        line.wanted = true;
        line.not_retained_before = now + std::chrono::seconds{1};
        if (const auto tenure = line.queue.take_retained()) give(tenure);
        if (std::exchange(line.timed, true)) return std::nullopt;
        return line.not_retained_before;
    }

    /// Calls `give(tenure)` for all leases that are retained, which are so no longer.
    template <class Give>
    void give_up_all(Give give) {
        for (Shard& shard : shards_) {
            const std::lock_guard guard{shard.mutex};
            for (auto& [key, line] : shard.lines) {
                const std::lock_guard inner{line.mutex};
                if (const auto tenure = line.queue.take_retained()) give(tenure);
            }
        }
    }

    /// The time has come to look at the line `key`. Calls `give(tenure)` for a lease that was
    /// retained for long enough. Returns: when to look again.
    template <class Give>
    std::optional<BootTime> time_out(std::string_view key, BootTime now, Give give) {
        const Visit visit{*this, key};
        if (visit.line == nullptr) return std::nullopt;
        Line& line = *visit.line;
        const std::lock_guard guard{line.mutex};
        const BootTime due = line.queue.retained() ? line.retained_until : line.not_retained_before;
        if (due > now) return due;
        line.timed = false;
        if (const auto tenure = line.queue.take_retained()) give(tenure);
        return std::nullopt;
    }

    /// How many leases are retained.
    [[nodiscard]] std::size_t retained() {
        std::size_t count = 0;
        for (Shard& shard : shards_) {
            const std::lock_guard guard{shard.mutex};
            for (auto& [key, line] : shard.lines) {
                const std::lock_guard inner{line.mutex};
                if (line.queue.retained()) ++count;
            }
        }
        return count;
    }

  private:
    struct Shard {
        std::mutex mutex;
        // Each key is one of its line's first identity.
        std::unordered_map<std::string_view, Line> lines;
    };

    // Comes to the line of the lock `key` if there is one, and leaves it at the end.
    struct Visit {
        LocalQueues& queues;
        const std::string_view key;
        Line* const line;
        Visit(LocalQueues& of, std::string_view name)
            : queues{of}, key{name}, line{of.visit(name)} {}
        Visit(const Visit&) = delete;
        Visit& operator=(const Visit&) = delete;
        ~Visit() {
            if (line != nullptr) queues.leave(key);
        }
    };

    [[nodiscard]] Line* visit(std::string_view key) {
        Shard& shard = shard_of(key);
        const std::lock_guard guard{shard.mutex};
        const auto found = shard.lines.find(key);
        if (found == shard.lines.end()) return nullptr;
        ++found->second.users_;
        return &found->second;
    }

    [[nodiscard]] Shard& shard_of(std::string_view key) noexcept {
        return shards_[std::hash<std::string_view>{}(key) % shards_.size()];
    }

    std::array<Shard, 16> shards_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_LOCAL_QUEUES_HPP
