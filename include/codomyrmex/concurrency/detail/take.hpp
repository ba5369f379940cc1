// SPDX-License-Identifier: MIT
//
// From entries to guards: one name, or several all or none. What LockManager's verbs come down to.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_TAKE_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_TAKE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/access.hpp>
#include <codomyrmex/concurrency/detail/probe.hpp>
#include <codomyrmex/concurrency/detail/registry_entry.hpp>
#include <codomyrmex/concurrency/lock_guards.hpp>

#include <cstddef>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::detail {

template <class Access>
using ReferenceFor = Reference<typename Access::primitive_type>;

/// Waits until the deadline. Returns: an empty guard if that came first.
template <class Access>
[[nodiscard]] Guard<Access> take(ReferenceFor<Access> entry, Deadline deadline) {
    typename Access::hold_type hold;
    HoldStart start;
    if (!obtain<Access>(*entry, hold, start, deadline)) return {};
    return Guard<Access>{std::move(entry), std::move(hold), start};
}

/// Does not wait. Returns: an empty guard if somebody is in the way.
template <class Access>
[[nodiscard]] Guard<Access> try_take(ReferenceFor<Access> entry) {
    typename Access::hold_type hold;
    HoldStart start;
    if (!try_obtain<Access>(*entry, hold, start)) return {};
    return Guard<Access>{std::move(entry), std::move(hold), start};
}

/// Does not wait. Returns: all or none.
template <class Access>
[[nodiscard]] MultiGuard<Access> try_take_all(std::vector<ReferenceFor<Access>> entries) {
    std::vector<Guard<Access>> guards;
    guards.reserve(entries.size());
    for (auto& entry : entries) {
        auto guard = try_take<Access>(std::move(entry));
        if (!guard) return {};
        guards.push_back(std::move(guard));
    }
    return MultiGuard<Access>{std::move(guards)};
}

/// Waits until the deadline. Returns: all or none.
///
/// As std::lock does it: who has to wait holds nothing. It waits for one, tries the others, and if
/// one of them is missing gives all back and waits for that one. So no circle of threads can wait
/// for each other, in whatever order they lock, and whatever else takes the same locks.
template <class Access>
[[nodiscard]] MultiGuard<Access> take_all(const std::vector<ReferenceFor<Access>>& entries,
                                          Deadline deadline) {
    const std::size_t count = entries.size();
    const bool waits = !deadline.expired();
    std::vector<Guard<Access>> guards(count);
    std::size_t missing = 0;
    while (missing < count) {
        const std::size_t first = missing;
        guards[first] = take<Access>(entries[first].share(), deadline);
        if (!guards[first]) return {};
        missing = count;
        for (std::size_t i = 0; i < count && missing == count; ++i) {
            if (i == first) continue;
            // A try may cost a round trip. A caller who does not wait has each tried once.
            if (waits && deadline.expired()) return {};
            guards[i] = try_take<Access>(entries[i].share());
            if (!guards[i]) missing = i;
        }
        if (missing < count) {
            for (Guard<Access>& guard : guards)
                guard.unlock();
        }
    }
    return MultiGuard<Access>{std::move(guards)};
}

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_TAKE_HPP
