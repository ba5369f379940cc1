// SPDX-License-Identifier: MIT
//
// What is counted, timed and told when a primitive of the registry is taken and given back, once
// for all kinds of it. Which members that calls, a policy of access.hpp says; the guards around it
// are lock_guards.hpp's subject.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_OBTAIN_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_OBTAIN_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/probe.hpp>
#include <codomyrmex/concurrency/detail/registry_entry.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/hand_over.hpp>
#include <codomyrmex/concurrency/lock_manager_types.hpp>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <system_error>

namespace codomyrmex::concurrency::detail {

/// Whether the lease had to wait for somebody, where it can tell. (The lease is asked, not the
/// hold: the arrow of libc++'s std::optional is not noexcept.)
template <class Hold>
[[nodiscard]] bool was_contended(const Hold& hold) noexcept {
    if constexpr (requires(decltype(*hold) lease) {
                      { lease.contended() } noexcept -> std::same_as<bool>;
                  }) {
        return hold && hold->contended();
    } else {
        return false;
    }
}

/// How the lease came from the one before it, where it can tell.
template <class Hold>
[[nodiscard]] HandOver hand_over_of(const Hold& hold) noexcept {
    if constexpr (requires(decltype(*hold) lease) {
                      { lease.hand_over() } noexcept -> std::same_as<HandOver>;
                  }) {
        return hold ? hold->hand_over() : HandOver::none;
    } else {
        return HandOver::none;
    }
}

/// The fencing token of a hold that is a lease; 0 otherwise.
template <class Hold>
[[nodiscard]] std::uint64_t fence_in(const Hold& hold) {
    if constexpr (requires { hold->fence(); }) {
        return hold ? hold->fence() : 0;
    } else {
        return 0;
    }
}

/// Counts a call among the waiting ones while it lives.
class Waiting {
  public:
    explicit Waiting(Counters& counters) noexcept : counters_{counters} { counters.wait_begins(); }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;
    ~Waiting() { counters_.wait_ends(); }

  private:
    Counters& counters_;
};

template <class Access>
using EntryFor = RegistryEntry<typename Access::primitive_type>;

/// A hold begins that had to wait for so long: counts it, and tells who wants to know.
/// Returns: when it began, if its duration is measured.
template <class Access>
[[nodiscard]] HoldStart begin_hold(EntryFor<Access>& entry, const typename Access::hold_type& hold,
                                   bool leases, std::chrono::nanoseconds waited = {},
                                   HandOver how = HandOver::none) {
    entry.counters.acquired(Access::exclusive && !leases);
    if (entry.probe.is_quiet(leases)) [[likely]]
        return {};
    entry.probe.acquired({.name = entry.name,
                          .waited = waited,
                          .hand_over = how,
                          .fence = leases ? fence_in(hold) : 0});
    return entry.probe.times_holds(leases) ? HoldStart{HoldStart::clock::now()} : HoldStart{};
}

/// Tells of an error, and throws it on. Requires: an exception is being handled.
template <class Access>
[[noreturn]] void fail(EntryFor<Access>& entry) {
    try {
        throw;
    } catch (const std::system_error& failure) {
        entry.probe.error({.name = entry.name}, failure.code(), failure.what());
        throw;
    }
}

/// Takes without waiting, and counts. `start`: set to when it began, if that is measured.
template <class Access>
[[nodiscard]] bool try_obtain(EntryFor<Access>& entry, typename Access::hold_type& hold,
                              HoldStart& start) {
    bool obtained = false;
    try {
        obtained = Access::try_take(entry.primitive, hold);
    } catch (...) {
        fail<Access>(entry);
    }
    if (!obtained) {
        entry.counters.contended();
        entry.probe.contended({.name = entry.name});
        return false;
    }
    start = begin_hold<Access>(entry, hold, Access::leases(entry.primitive));
    return true;
}

/// Takes, waiting until the deadline if need be, and counts. `start`: as of try_obtain().
/// Returns: false if the deadline came first.
template <class Access>
[[nodiscard]] bool obtain(EntryFor<Access>& entry, typename Access::hold_type& hold,
                          HoldStart& start, Deadline deadline) {
    // Where a try costs no more than a look, it tells whether this call has to wait. Where it is a
    // round trip, the call that waits is the first one.
    const bool leases = Access::leases(entry.primitive);
    if (!leases && try_obtain<Access>(entry, hold, start)) return true;
    bool obtained = true;
    const HoldStart asked{HoldStart::clock::now()};
    try {
        const Waiting waiting{entry.counters};
        if (deadline.is_never()) {
            Access::take(entry.primitive, hold);
        } else {
            obtained = Access::try_take_until(entry.primitive, hold, deadline);
        }
    } catch (...) {
        fail<Access>(entry);
    }
    std::chrono::nanoseconds waited{0};
    if (!leases || !obtained || was_contended(hold)) {
        waited = asked.elapsed();
        entry.probe.times.waits.record(waited);
        if (entry.times) entry.times->waits.record(waited);
        if (leases) {
            entry.counters.contended();
            entry.probe.contended({.name = entry.name, .waited = waited});
        }
    }
    if (!obtained) {
        entry.counters.timed_out();
        return false;
    }
    // Who waited for a local lock had it from another thread.
    const HandOver how = leases ? hand_over_of(hold) : HandOver::local;
    if (how != HandOver::none) entry.counters.handed_over(how);
    start = begin_hold<Access>(entry, hold, leases, waited, how);
    return true;
}

/// Gives back what `obtain` or `try_obtain` took, and counts. `error` is written only if something
/// was wrong.
template <class Access>
void give_back(EntryFor<Access>& entry, typename Access::hold_type& hold, HoldStart start,
               std::error_code& error) noexcept {
    const bool leases = Access::leases(entry.primitive);
    std::chrono::nanoseconds held{0};
    if (start) held = start.elapsed();
    const auto record = [&] {
        if (!start) return;
        entry.probe.times.holds.record(held);
        if (entry.times) entry.times->holds.record(held);
    };
    if (!leases) {
        // While it is held, so that nobody else counts at the same time, nor takes the entry away.
        record();
        entry.counters.released(Access::exclusive);
        Access::give_back(entry.primitive, hold, error);
        return;
    }
    const std::uint64_t fence = entry.probe.is_quiet(leases) ? 0 : fence_in(hold);
    Access::give_back(entry.primitive, hold, error);
    if (error && error != LockErrc::lease_lost) {
        entry.probe.error({.name = entry.name, .held = held, .fence = fence}, error, "");
    }
    if (error == LockErrc::not_held) return;
    record();
    entry.counters.released(false);
    if (error != LockErrc::lease_lost) return;
    entry.counters.lost();
    entry.probe.lost({.name = entry.name, .held = held, .fence = fence});
}

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_OBTAIN_HPP
