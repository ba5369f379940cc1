// SPDX-License-Identifier: MIT
//
// What a registry keeps under a name: the primitive and its counts, and apart from that, in a place
// that outlives it, how many use it. A Reference keeps an entry from going; guards and handles are
// made of one.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_REGISTRY_ENTRY_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_REGISTRY_ENTRY_HPP

#include <codomyrmex/concurrency/detail/probe.hpp>
#include <codomyrmex/concurrency/detail/use_count.hpp>
#include <codomyrmex/concurrency/hand_over.hpp>
#include <codomyrmex/concurrency/lock_manager_types.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace codomyrmex::concurrency::detail {

/// What happened to one entry. Written by whoever uses it, read by statistics at any time.
class Counters {
  public:
    /// A hold begins. `alone`: nobody else can hold the entry at the same time, which spares the
    /// atomic read-modify-write.
    void acquired(bool alone) noexcept { add(acquisitions_, alone, std::memory_order_relaxed); }

    /// A hold ends. If `alone`, to be called while it lasts.
    void released(bool alone) noexcept { add(releases_, alone, std::memory_order_release); }

    void contended() noexcept { contended_.fetch_add(1, std::memory_order_relaxed); }
    void timed_out() noexcept { timeouts_.fetch_add(1, std::memory_order_relaxed); }
    void lost() noexcept { lost_.fetch_add(1, std::memory_order_relaxed); }
    void handed_over(HandOver how) noexcept {
        if (how == HandOver::local) local_handovers_.fetch_add(1, std::memory_order_relaxed);
        if (how == HandOver::remote) remote_handovers_.fetch_add(1, std::memory_order_relaxed);
    }
    void wait_begins() noexcept { waiting_.fetch_add(1, std::memory_order_relaxed); }
    void wait_ends() noexcept { waiting_.fetch_sub(1, std::memory_order_relaxed); }

    [[nodiscard]] std::size_t waiting() const noexcept {
        return waiting_.load(std::memory_order_relaxed);
    }

    /// Adds them to what has counts of the same names.
    template <class Counts>
    void add_to(Counts& counts, std::size_t& active) const noexcept {
        // Ends before beginnings: whoever sees an end sees the beginning that came before it, so
        // that the difference is never negative.
        const auto releases = releases_.load(std::memory_order_acquire);
        const auto acquisitions = acquisitions_.load(std::memory_order_relaxed);
        active += static_cast<std::size_t>(acquisitions - releases);
        counts.acquisitions += acquisitions;
        counts.releases += releases;
        counts.contended += contended_.load(std::memory_order_relaxed);
        counts.timeouts += timeouts_.load(std::memory_order_relaxed);
        counts.lost += lost_.load(std::memory_order_relaxed);
        counts.local_handovers += local_handovers_.load(std::memory_order_relaxed);
        counts.remote_handovers += remote_handovers_.load(std::memory_order_relaxed);
    }

  private:
    using Count = std::atomic<std::uint64_t>;

    static void add(Count& count, bool alone, std::memory_order order) noexcept {
        if (alone) {
            count.store(count.load(std::memory_order_relaxed) + 1, order);
        } else {
            count.fetch_add(1, order);
        }
    }

    Count acquisitions_{0};
    Count releases_{0};
    Count contended_{0};
    Count timeouts_{0};
    Count lost_{0};
    Count local_handovers_{0};
    Count remote_handovers_{0};
    std::atomic<std::size_t> waiting_{0};
};

template <class Primitive>
struct RegistryPlace;

/// What the registry keeps under a name. On cache lines of its own, so that threads with different
/// names do not slow each other down: first what is only read, then what every hold writes to.
template <class Primitive>
struct alignas(64) RegistryEntry {
    template <class Make>
    RegistryEntry(std::string_view its_name, bool is_pinned, Probe& its_probe, Make&& make)
        : name{its_name},
          pinned{is_pinned},
          probe{its_probe},
          times{its_probe.times_per_name ? std::make_unique<Times>() : nullptr},
          primitive(std::forward<Make>(make)()) {}

    const std::string name;
    // Put there by the user: only the user takes it away.
    const bool pinned;
    Probe& probe;
    // Of this name alone, or null.
    const std::unique_ptr<Times> times;
    // Where it is found and its uses are counted. Set once, before anybody can find it.
    RegistryPlace<Primitive>* place = nullptr;

    // A local lock, its acquisitions and its releases: one line of 64 bytes.
    alignas(64) Primitive primitive;
    Counters counters;
    // Of the hold that is in the primitive itself, for a Handle; HoldStart::raw().
    std::atomic<std::int64_t> held_since{0};
    // The next of those that were taken out of the registry.
    std::unique_ptr<RegistryEntry> next;
};

/// Where the look-up finds an entry. It stays when the entry is gone, for another one, and nobody
/// frees it while the registry lives: so a look-up needs no lock to read it, and may find that it
/// has changed. On a cache line of its own, the one that a look-up writes to.
template <class Primitive>
struct alignas(64) RegistryPlace {
    using entry_type = RegistryEntry<Primitive>;

    UseCount uses;
    // The hash of the name, and what a semaphore was made with; 0 for what has no capacity.
    // Atomic, because they are read to find out whether this is the place to look at.
    std::atomic<std::size_t> hash{0};
    std::atomic<std::ptrdiff_t> capacity{0};
    // The next of its chain, or of the places without an entry.
    std::atomic<RegistryPlace*> next{nullptr};
    // To be read by whoever uses it or has the shard's mutex; written under that, while nobody
    // uses it.
    std::unique_ptr<entry_type> entry;
};

/// Keeps an entry from being forgotten while it lives. Moves only; may be empty. Takes no lock.
template <class Primitive>
class Reference {
  public:
    using entry_type = RegistryEntry<Primitive>;

    Reference() noexcept = default;

    /// For the registry: takes over a use of the entry.
    explicit Reference(entry_type& entry) noexcept : entry_{&entry} {}

    Reference(Reference&& other) noexcept : entry_{std::exchange(other.entry_, nullptr)} {}

    Reference& operator=(Reference&& other) noexcept {
        if (this != &other) {
            reset();
            entry_ = std::exchange(other.entry_, nullptr);
        }
        return *this;
    }

    ~Reference() { reset(); }

    /// Another one. Requires: not empty.
    [[nodiscard]] Reference share() const noexcept {
        entry_->place->uses.use_again();
        return Reference{*entry_};
    }

    void reset() noexcept {
        if (entry_ == nullptr) return;
        std::exchange(entry_, nullptr)->place->uses.drop();
    }

    explicit operator bool() const noexcept { return entry_ != nullptr; }

    /// Requires: not empty.
    entry_type* operator->() const noexcept { return entry_; }
    entry_type& operator*() const noexcept { return *entry_; }

  private:
    entry_type* entry_ = nullptr;
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_REGISTRY_ENTRY_HPP
