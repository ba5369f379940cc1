// SPDX-License-Identifier: MIT
//
// The plain values that go into a LockManager and come out of it: its options, its counts and the
// list of its entries. <codomyrmex/concurrency/lock_manager.hpp> brings them along.

#ifndef CODOMYRMEX_CONCURRENCY_LOCK_MANAGER_TYPES_HPP
#define CODOMYRMEX_CONCURRENCY_LOCK_MANAGER_TYPES_HPP

#include <codomyrmex/concurrency/hand_over.hpp>
#include <codomyrmex/concurrency/histogram.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <ranges>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

namespace codomyrmex::concurrency {

/// What an entry of a LockManager is. Each kind has a name space of its own.
enum class LockKind {
    /// Made by `lock` and its kin, by `get_lock` or by `register_lock`.
    lock,
    /// Made by `read`, `write` and their kin.
    read_write,
    /// Made by `permit` and its kin.
    semaphore,
};

/// "lock", "read_write", "semaphore".
[[nodiscard]] constexpr std::string_view to_string(LockKind kind) noexcept {
    switch (kind) {
        case LockKind::lock:
            return "lock";
        case LockKind::read_write:
            return "read_write";
        case LockKind::semaphore:
            return "semaphore";
    }
    return "unknown";
}

/// Something that happened to an entry of a LockManager.
struct LockEvent {
    std::string_view name{};  ///< good for the time of the call
    LockKind kind = LockKind::lock;
    std::chrono::nanoseconds waited{0};   ///< of an acquisition: zero where nobody was in the way
    HandOver hand_over = HandOver::none;  ///< of an acquisition, where the backend knows
    std::chrono::nanoseconds held{0};     ///< of a loss: how long, if hold times are measured
    std::uint64_t fence = 0;              ///< of a lease
};

/// Calls into the program. A hook runs on the thread that uses the manager, within the call that it
/// tells of, and no lock of the library's own is held: it may call the manager. What it throws is
/// swallowed and counted in LockManagerStats::hook_exceptions. Several threads may call one hook at
/// a time. They work over any backend; what befalls a lease between its acquisition and its release
/// is told at once by the backend's own hooks, such as ClientHooks::on_lost.
struct LockManagerHooks {
    /// A hold was obtained. The caller has it already, so a hook that wants the same lock waits for
    /// itself.
    std::function<void(const LockEvent&)> on_acquired{};

    /// A call found somebody in the way. Where a try costs no round trip, it is told before the
    /// call begins to wait; of a lease, when the waiting is over.
    std::function<void(const LockEvent&)> on_contended{};

    /// A release found that the lease had been lost before.
    std::function<void(const LockEvent&)> on_lost{};

    /// A verb failed or a release was in doubt: the error, and what it says.
    std::function<void(const LockEvent&, const std::error_code&, const std::string&)> on_error{};
};

/// Which holds have their duration measured. Two readings of the clock for each cost about as much
/// as taking and giving back an uncontended local lock, and nothing beside a round trip.
enum class HoldTimes : std::uint8_t {
    none,
    leases,  ///< those that are leases
    all,
};

/// How a LockManager keeps its entries, what it measures and whom it tells.
struct LockManagerOptions {
    /// How many parts each kind of entry is spread over, by the hash of the name. Names that come
    /// and go in different parts do not wait for each other. 1 to 65,536, rounded up to a power of
    /// two.
    std::size_t shards = 64;

    /// How many entries a shard may have before it looks for idle ones to forget. An entry in use
    /// is never forgotten, an idle one is made anew when its name comes up again.
    std::size_t cached_per_shard = 64;

    /// How long holds lasted, in LockManagerStats::holds. How long calls waited is measured anyway:
    /// only those do it that have to wait.
    HoldTimes hold_times = HoldTimes::leases;

    /// Measures times also for each name, in LockEntry. 5.3 KiB for each entry there is.
    bool times_per_name = false;

    LockManagerHooks hooks{};
};

/// One entry of a LockManager, as it was when its shard was looked at. Counts are of the time since
/// the entry was made; an idle one may be forgotten and made anew.
struct LockEntry {
    std::string name;
    LockKind kind = LockKind::lock;
    /// How many hold it: guards, and handles that are locked.
    std::size_t held = 0;
    /// How many calls wait for it.
    std::size_t waiting = 0;

    // As in LockManagerStats.

    std::uint64_t acquisitions = 0;
    std::uint64_t releases = 0;
    std::uint64_t contended = 0;
    std::uint64_t timeouts = 0;
    std::uint64_t lost = 0;
    std::uint64_t local_handovers = 0;
    std::uint64_t remote_handovers = 0;
    HistogramSnapshot waits{};  ///< if LockManagerOptions::times_per_name
    HistogramSnapshot holds{};  ///< the same, and HoldTimes say so
};

/// The counts of a LockManager, over all of its kinds. Entries that were forgotten still count.
/// They are collected while others go on: each is right by itself, together they are approximate
/// until nobody else uses the manager.
struct LockManagerStats {
    /// Entries there are now: in use, registered by the user, or idle and not yet forgotten.
    std::size_t registered = 0;
    /// Holds there are now.
    std::size_t active = 0;
    /// Calls that wait now.
    std::size_t waiting = 0;
    /// Holds obtained, those included that `lock_all` gave back because another was missing.
    std::uint64_t acquisitions = 0;
    /// Holds that ended.
    std::uint64_t releases = 0;
    /// Calls that found somebody else in the way. A distributed lock counts where its lease tells.
    std::uint64_t contended = 0;
    /// Calls with a limit that gave up when it came.
    std::uint64_t timeouts = 0;
    /// Holds whose lease turned out at the release to have been lost before.
    std::uint64_t lost = 0;
    /// Holds that another thread of this process passed on. Of a local lock: those waited for.
    std::uint64_t local_handovers = 0;
    /// Holds that another process' release passed on.
    std::uint64_t remote_handovers = 0;
    /// How long those calls waited that found somebody in the way, whether they obtained it or not;
    /// not those that did not want to wait.
    HistogramSnapshot waits{};
    /// How long holds lasted that ended: those that LockManagerOptions::hold_times names.
    HistogramSnapshot holds{};
    /// What hooks threw.
    std::uint64_t hook_exceptions = 0;
};

/// The names that `lock_all` takes: a list in braces, or any range of strings. Sorted, each once.
/// It refers to the strings and does not copy them, so it is a parameter and nothing to keep.
class LockNames {
  public:
    LockNames() noexcept = default;

    // Not explicit, so that a call reads lock_all({"b", "a"}) and lock_all(names).
    LockNames(std::initializer_list<std::string_view> names) : names_{names} { tidy(); }

    template <std::ranges::input_range Range>
        requires std::convertible_to<std::ranges::range_reference_t<Range>, std::string_view> &&
                 (std::is_lvalue_reference_v<std::ranges::range_reference_t<Range>> ||
                  std::same_as<std::ranges::range_value_t<Range>, std::string_view>) &&
                 (!std::same_as<std::remove_cvref_t<Range>, LockNames>)
    // NOLINTNEXTLINE(google-explicit-constructor, bugprone-forwarding-reference-overload)
    LockNames(Range&& names) {
        for (auto&& name : names)
            names_.push_back(name);
        tidy();
    }

    [[nodiscard]] auto begin() const noexcept { return names_.begin(); }
    [[nodiscard]] auto end() const noexcept { return names_.end(); }
    [[nodiscard]] std::size_t size() const noexcept { return names_.size(); }

  private:
    void tidy() {
        std::sort(names_.begin(), names_.end());
        names_.erase(std::unique(names_.begin(), names_.end()), names_.end());
    }

    std::vector<std::string_view> names_;
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_LOCK_MANAGER_TYPES_HPP
