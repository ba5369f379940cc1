// SPDX-License-Identifier: MIT
//
// A map from names to primitives for many threads: sharded by hash, made at first use, and without
// a memory for names that nobody uses any more. It knows how to find, count and forget; what a
// primitive is and how it is taken is the business of its users.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_REGISTRY_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_REGISTRY_HPP

#include <codomyrmex/concurrency/detail/probe.hpp>
#include <codomyrmex/concurrency/detail/registry_entry.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/lock_manager_types.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::detail {

/// The map. An entry without a Reference is idle; it stays, for the case that its name comes up
/// again, until its shard is full. The shard then forgets all that is idle, and counts as full once
/// it has twice as many as it kept: so an insertion costs O(1) on average, a look-up never scans,
/// and the memory is bounded by twice the entries in use plus a constant.
///
/// A hash table of our own: with powers of two instead of std::unordered_map's division by primes,
/// and the entry's lines laid out for it, a look-up takes two thirds of the time.
///
/// Threads: all members are safe to call concurrently. Primitives are made and forgotten under the
/// mutex of their shard, and must not call back.
template <class Primitive>
class Registry {
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
        // Destroyed last, when the mutex is free: the destructor of a primitive may take its time.
        Discarded idle;
        shard.foresee(hash);
        const std::lock_guard guard{shard.mutex};
        Link& link = shard.find(name, hash);
        if (link != nullptr && link->capacity == capacity) [[likely]]
            return reference_type{*link};
        if (link != nullptr) {
            if (link->in_use()) throw_mismatch(*link, capacity);
            idle.add(shard.forget(link));
        }
        return reference_type{insert(shard,
                                     std::make_unique<entry_type>(name, hash, false, capacity,
                                                                  probe_, std::forward<Make>(make)),
                                     idle)};
    }

    /// Puts what `make()` returns under that name, to stay until `unpin`. Takes the place of an
    /// idle entry.
    /// Returns: false, and does nothing, if a pinned entry or one in use has the name.
    template <class Make>
    [[nodiscard]] bool pin(std::string_view name, Make&& make) {
        const std::size_t hash = std::hash<std::string_view>{}(name);
        Shard& shard = shard_of(hash);
        Discarded idle;
        const std::lock_guard guard{shard.mutex};
        Link& link = shard.find(name, hash);
        if (link != nullptr && (link->pinned || link->in_use())) return false;
        auto entry =
            std::make_unique<entry_type>(name, hash, true, 0, probe_, std::forward<Make>(make));
        if (link != nullptr) idle.add(shard.forget(link));
        insert(shard, std::move(entry), idle);
        return true;
    }

    /// Takes a pinned entry away.
    /// Returns: false, and does nothing, if no pinned entry has the name.
    /// Throws: LockError(in_use).
    bool unpin(std::string_view name) {
        const std::size_t hash = std::hash<std::string_view>{}(name);
        Shard& shard = shard_of(hash);
        // Destroyed last, when the mutex is free: it may run a destructor of the user's.
        std::unique_ptr<entry_type> forgotten;
        const std::lock_guard guard{shard.mutex};
        Link& link = shard.find(name, hash);
        if (link == nullptr || !link->pinned) return false;
        if (link->in_use()) {
            throw LockError(LockErrc::in_use, "somebody holds the registered lock '" + link->name +
                                                  "', waits for it or has a handle on it");
        }
        forgotten = shard.forget(link);
        return true;
    }

    /// Calls `visit(entry)` for each entry, holding the mutex of its shard.
    template <class Visit>
    void for_each(Visit visit) const {
        for (std::size_t i = 0; i <= mask_; ++i) {
            const std::lock_guard guard{shards_[i].mutex};
            shards_[i].for_each(visit);
        }
    }

    /// Calls `visit(entry)` for the entry of that name, if there is one, holding its shard's mutex.
    template <class Visit>
    void visit(std::string_view name, Visit visit) const {
        const std::size_t hash = std::hash<std::string_view>{}(name);
        Shard& shard = shard_of(hash);
        const std::lock_guard guard{shard.mutex};
        if (const Link& link = shard.find(name, hash); link != nullptr) visit(*link);
    }

    void add_to(LockManagerStats& stats) const {
        for (std::size_t i = 0; i <= mask_; ++i) {
            const Shard& shard = shards_[i];
            const std::lock_guard guard{shard.mutex};
            stats.registered += shard.size;
            stats.acquisitions += shard.forgotten.acquisitions;
            stats.releases += shard.forgotten.releases;
            stats.contended += shard.forgotten.contended;
            stats.timeouts += shard.forgotten.timeouts;
            stats.lost += shard.forgotten.lost;
            stats.local_handovers += shard.forgotten.local_handovers;
            stats.remote_handovers += shard.forgotten.remote_handovers;
            shard.for_each([&](const entry_type& entry) {
                entry.counters.add_to(stats, stats.active);
                stats.waiting += entry.counters.waiting();
            });
        }
        stats.waits.merge(probe_.times.waits.snapshot());
        stats.holds.merge(probe_.times.holds.snapshot());
        stats.hook_exceptions += probe_.hook_exceptions();
    }

  private:
    using Link = std::unique_ptr<entry_type>;

    // Entries that were taken out, to be destroyed when no mutex is held.
    struct Discarded {
        Discarded() = default;
        Discarded(const Discarded&) = delete;
        Discarded& operator=(const Discarded&) = delete;
        // One by one: a long chain would recurse too deeply.
        ~Discarded() {
            while (first != nullptr)
                first = std::move(first->next);
        }
        void add(Link entry) noexcept {
            entry->next = std::move(first);
            first = std::move(entry);
        }
        Link first{};
    };

    struct Forgotten {
        std::uint64_t acquisitions = 0;
        std::uint64_t releases = 0;
        std::uint64_t contended = 0;
        std::uint64_t timeouts = 0;
        std::uint64_t lost = 0;
        std::uint64_t local_handovers = 0;
        std::uint64_t remote_handovers = 0;
    };

    struct alignas(64) Shard {
        mutable std::mutex mutex;
        // Chains of entries by the lowest bits of the hash: a power of two, at least `size`.
        std::vector<Link> buckets{8};
        std::size_t size = 0;
        // The number of entries at which the next insertion looks for idle ones.
        std::size_t full = 0;
        // The counts of the entries that are no more.
        Forgotten forgotten;
        // Where an entry of such a hash was put last; it may be gone.
        std::array<std::atomic<const void*>, 32> places{};

        [[nodiscard]] std::atomic<const void*>& place(std::size_t hash) noexcept {
            return places[hash % places.size()];
        }

        /// Before the mutex is had: the entry's line comes from another processor, most likely, as
        /// the mutex' does, and so both come at the same time.
        void foresee([[maybe_unused]] std::size_t hash) noexcept {
#if defined(__GNUC__)
            __builtin_prefetch(place(hash).load(std::memory_order_relaxed), 1);
#endif
        }

        [[nodiscard]] Link& bucket(std::size_t hash) noexcept {
            return buckets[hash & (buckets.size() - 1)];
        }

        /// The link that holds the entry, or a null one.
        [[nodiscard]] Link& find(std::string_view name, std::size_t hash) noexcept {
            Link* link = &bucket(hash);
            while (*link != nullptr && !((*link)->hash == hash && (*link)->name == name)) {
                link = &(*link)->next;
            }
            return *link;
        }

        /// Takes an idle entry out. Afterwards `link` holds the one that came behind.
        Link forget(Link& link) noexcept {
            Link entry = std::exchange(link, std::move(link->next));
            std::size_t active = 0;
            entry->counters.add_to(forgotten, active);
            --size;
            return entry;
        }

        void put(Link entry) noexcept {
            place(entry->hash).store(entry.get(), std::memory_order_relaxed);
            Link& front = bucket(entry->hash);
            entry->next = std::move(front);
            front = std::move(entry);
            ++size;
        }

        /// Spreads the entries over so many buckets, a power of two.
        void rehash(std::size_t count) {
            std::vector<Link> old(count);
            old.swap(buckets);
            size = 0;
            for (Link& chain : old) {
                while (chain != nullptr)
                    put(std::exchange(chain, std::move(chain->next)));
            }
        }

        template <class Visit>
        void for_each(Visit visit) const {
            for (const Link& chain : buckets) {
                for (const entry_type* entry = chain.get(); entry != nullptr;
                     entry = entry->next.get()) {
                    visit(*entry);
                }
            }
        }
    };

    [[nodiscard]] Shard& shard_of(std::size_t hash) const noexcept {
        return shards_[(hash >> 16) & mask_];
    }

    // What a sweep takes out goes to `idle`, for the caller to destroy.
    entry_type& insert(Shard& shard, Link entry, Discarded& idle) {
        if (shard.size >= shard.full) sweep(shard, idle);
        if (shard.size >= shard.buckets.size()) shard.rehash(2 * shard.buckets.size());
        entry_type& inserted = *entry;
        shard.put(std::move(entry));
        return inserted;
    }

    void sweep(Shard& shard, Discarded& idle) {
        for (Link& chain : shard.buckets) {
            for (Link* link = &chain; *link != nullptr;) {
                if ((*link)->pinned || (*link)->in_use()) {
                    link = &(*link)->next;
                } else {
                    idle.add(shard.forget(*link));
                }
            }
        }
        shard.full = std::max(cached_, 2 * shard.size);
        // What a crowd that is gone has left.
        if (shard.buckets.size() > 2 * shard.full) shard.rehash(std::bit_ceil(shard.full));
    }

    [[noreturn]] static void throw_mismatch(const entry_type& entry, std::ptrdiff_t wanted) {
        throw LockError(LockErrc::mismatch, "'" + entry.name + "' is in use with " +
                                                std::to_string(entry.capacity) + " permits, not " +
                                                std::to_string(wanted));
    }

    Probe& probe_;
    const std::size_t mask_;
    const std::size_t cached_;
    const std::unique_ptr<Shard[]> shards_;
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_REGISTRY_HPP
