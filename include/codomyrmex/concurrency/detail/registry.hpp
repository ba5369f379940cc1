// SPDX-License-Identifier: MIT
//
// A map from names to primitives for many threads: sharded by hash, made at first use, and without
// a memory for names that nobody uses any more. It knows how to find, count and forget; what a
// primitive is and how it is taken is the business of its users.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_REGISTRY_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_REGISTRY_HPP

#include <codomyrmex/concurrency/detail/probe.hpp>
#include <codomyrmex/concurrency/detail/registry_entry.hpp>
#include <codomyrmex/concurrency/detail/registry_table.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/lock_manager_types.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace codomyrmex::concurrency::detail {

/// The map. An entry without a Reference is idle; it stays, for the case that its name comes up
/// again, until its shard is full. The shard then forgets all that is idle, and counts as full once
/// it has twice as many as it kept: so an insertion costs O(1) on average, a look-up never scans,
/// and there are at most twice the entries in use plus a constant. The places of a RegistryTable
/// stay as many as there once were.
///
/// A look-up that finds its name writes to one cache line, that of the entry, and takes no lock.
///
/// Threads: all members are safe to call concurrently. Primitives are made under the mutex of their
/// shard, and must not call back.
template <class Primitive>
class Registry {
    using Table = RegistryTable<Primitive>;

  public:
    using entry_type = RegistryEntry<Primitive>;
    using reference_type = Reference<Primitive>;

    /// Requires: `probe` outlives it.
    Registry(const LockManagerOptions& options, Probe& probe)
        : probe_{probe},
          mask_{std::bit_ceil(options.shards) - 1},
          cached_{std::max<std::size_t>(options.cached_per_shard, 1)},
          shards_{std::make_unique<Shard[]>(mask_ + 1)} {
        for (std::size_t i = 0; i <= mask_; ++i)
            shards_[i].full = cached_;
    }

    /// The entry of that name; if there is none, or only an idle one of another capacity, one that
    /// holds what `make()` returns.
    /// Throws: LockError(mismatch) if the entry is in use with another capacity; what `make`
    /// throws.
    template <class Make>
    [[nodiscard]] reference_type find_or_make(std::string_view name, std::ptrdiff_t capacity,
                                              Make&& make) {
        const std::size_t hash = std::hash<std::string_view>{}(name);
        Shard& shard = shard_of(hash);
        if (auto used = shard.table.use(name, hash, capacity)) [[likely]]
            return used;
        return find_or_make_locked(shard, name, hash, capacity, std::forward<Make>(make));
    }

    /// Puts what `make()` returns under that name, to stay until `unpin`. Takes the place of an
    /// idle entry.
    /// Returns: false, and does nothing, if a pinned entry or one in use has the name.
    template <class Make>
    [[nodiscard]] bool pin(std::string_view name, Make&& make) {
        const std::size_t hash = std::hash<std::string_view>{}(name);
        Shard& shard = shard_of(hash);
        Discarded idle;
        Owner entry;
        const std::lock_guard guard{shard.mutex};
        Place* const place = shard.table.find(name, hash);
        if (place != nullptr && place->entry->pinned) return false;
        entry = std::make_unique<entry_type>(name, true, probe_, std::forward<Make>(make));
        if (place != nullptr && !forget(shard, *place, idle)) return false;
        insert(shard, std::move(entry), hash, 0, idle);
        return true;
    }

    /// Takes a pinned entry away.
    /// Returns: false, and does nothing, if no pinned entry has the name.
    /// Throws: LockError(in_use).
    bool unpin(std::string_view name) {
        const std::size_t hash = std::hash<std::string_view>{}(name);
        Shard& shard = shard_of(hash);
        Discarded forgotten;
        const std::lock_guard guard{shard.mutex};
        Place* const place = shard.table.find(name, hash);
        if (place == nullptr || !place->entry->pinned) return false;
        if (!forget(shard, *place, forgotten)) {
            throw LockError(LockErrc::in_use, "somebody holds the registered lock '" +
                                                  place->entry->name +
                                                  "', waits for it or has a handle on it");
        }
        return true;
    }

    /// Calls `visit(entry)` for each entry, holding the mutex of its shard.
    template <class Visit>
    void for_each(Visit visit) const {
        for (std::size_t i = 0; i <= mask_; ++i) {
            const std::lock_guard guard{shards_[i].mutex};
            shards_[i].table.for_each(visit);
        }
    }

    /// Calls `visit(entry)` for the entry of that name, if there is one, holding its shard's mutex.
    template <class Visit>
    void visit(std::string_view name, Visit visit) const {
        const std::size_t hash = std::hash<std::string_view>{}(name);
        Shard& shard = shard_of(hash);
        const std::lock_guard guard{shard.mutex};
        if (const Place* place = shard.table.find(name, hash)) visit(std::as_const(*place->entry));
    }

    void add_to(LockManagerStats& stats) const {
        for (std::size_t i = 0; i <= mask_; ++i) {
            const Shard& shard = shards_[i];
            const std::lock_guard guard{shard.mutex};
            stats.registered += shard.table.size();
            stats.acquisitions += shard.forgotten.acquisitions;
            stats.releases += shard.forgotten.releases;
            stats.contended += shard.forgotten.contended;
            stats.timeouts += shard.forgotten.timeouts;
            stats.lost += shard.forgotten.lost;
            stats.local_handovers += shard.forgotten.local_handovers;
            stats.remote_handovers += shard.forgotten.remote_handovers;
            shard.table.for_each([&](const entry_type& entry) {
                entry.counters.add_to(stats, stats.active);
                stats.waiting += entry.counters.waiting();
            });
        }
        stats.waits.merge(probe_.times.waits.snapshot());
        stats.holds.merge(probe_.times.holds.snapshot());
        stats.hook_exceptions += probe_.hook_exceptions();
    }

  private:
    using Owner = std::unique_ptr<entry_type>;
    using Place = typename Table::Place;

    // Entries that were taken out, to be destroyed when no mutex is held: the destructor of a
    // primitive may take its time, and may be the user's.
    struct Discarded {
        Discarded() = default;
        Discarded(const Discarded&) = delete;
        Discarded& operator=(const Discarded&) = delete;
        // One by one: a long chain would recurse too deeply.
        ~Discarded() {
            while (first != nullptr)
                first = std::move(first->next);
        }
        void add(Owner entry) noexcept {
            entry->next = std::move(first);
            first = std::move(entry);
        }
        Owner first{};
    };

    struct Forgotten {
        std::uint64_t acquisitions = 0;
        std::uint64_t releases = 0;
        std::uint64_t contended = 0;
        std::uint64_t timeouts = 0;
        std::uint64_t lost = 0;
        std::uint64_t local_handovers = 0;
        std::uint64_t remote_handovers = 0;

        void add(const entry_type& entry) noexcept {
            std::size_t active = 0;
            entry.counters.add_to(*this, active);
        }
    };

    struct Shard {
        Table table;
        mutable std::mutex mutex;
        // The number of entries at which the next insertion looks for idle ones.
        std::size_t full = 0;
        // The counts of the entries that are no more.
        Forgotten forgotten;
    };

    [[nodiscard]] Shard& shard_of(std::size_t hash) const noexcept {
        return shards_[(hash >> 16) & mask_];
    }

    template <class Make>
    [[nodiscard]] reference_type find_or_make_locked(Shard& shard, std::string_view name,
                                                     std::size_t hash, std::ptrdiff_t capacity,
                                                     Make&& make) {
        Discarded idle;
        const std::lock_guard guard{shard.mutex};
        Place* place = shard.table.find(name, hash);
        if (place != nullptr && place->capacity != capacity) {
            if (!forget(shard, *place, idle)) throw_mismatch(*place, capacity);
            place = nullptr;
        }
        if (place == nullptr) {
            place = &insert(
                shard, std::make_unique<entry_type>(name, false, probe_, std::forward<Make>(make)),
                hash, capacity, idle);
        }
        place->uses.use_again();
        return reference_type{*place->entry};
    }

    // The following are for who holds the shard's mutex. What they take out goes to `idle`.

    // Returns: false, and does nothing, if the entry is in use.
    [[nodiscard]] static bool forget(Shard& shard, Place& place, Discarded& idle) noexcept {
        Owner entry = shard.table.remove(place);
        if (entry == nullptr) return false;
        shard.forgotten.add(*entry);
        idle.add(std::move(entry));
        return true;
    }

    Place& insert(Shard& shard, Owner entry, std::size_t hash, std::ptrdiff_t capacity,
                  Discarded& idle) {
        if (shard.table.size() >= shard.full) sweep(shard, idle);
        return shard.table.insert(std::move(entry), hash, capacity);
    }

    void sweep(Shard& shard, Discarded& idle) {
        shard.table.remove_idle([&](Owner entry) {
            shard.forgotten.add(*entry);
            idle.add(std::move(entry));
        });
        shard.full = std::max(cached_, 2 * shard.table.size());
        // What a crowd that is gone has left.
        if (shard.table.width() > 2 * shard.full) shard.table.spread(std::bit_ceil(shard.full));
    }

    [[noreturn]] static void throw_mismatch(const Place& place, std::ptrdiff_t wanted) {
        throw LockError(LockErrc::mismatch, "'" + place.entry->name + "' is in use with " +
                                                std::to_string(place.capacity) + " permits, not " +
                                                std::to_string(wanted));
    }

    Probe& probe_;
    const std::size_t mask_;
    const std::size_t cached_;
    const std::unique_ptr<Shard[]> shards_;
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_REGISTRY_HPP
