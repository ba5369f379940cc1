// SPDX-License-Identifier: MIT
//
// From entries to guards: one name, or several all or none. What LockManager's verbs come down to.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_TAKE_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_TAKE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/obtain.hpp>
#include <codomyrmex/concurrency/detail/probe.hpp>
#include <codomyrmex/concurrency/detail/registry_entry.hpp>
#include <codomyrmex/concurrency/lock_guards.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <optional>
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

/// Several can be tried in one round trip, all or none.
template <class Access>
concept TriesTogether = requires(const std::vector<typename Access::primitive_type*>& primitives,
                                 std::vector<typename Access::hold_type>& holds, Deadline until) {
    { Access::try_take_all(primitives, holds, until) } -> std::same_as<std::optional<std::size_t>>;
};

/// Tries all but `held`, which is held already, together; for an answer at most until `deadline`,
/// unless that has passed already.
/// Returns: one that is missing, for somebody else holds it, and then none was taken; how many
/// there are if none is; nothing if that cannot be told so.
template <TriesTogether Access>
[[nodiscard]] std::optional<std::size_t> try_together(
    const std::vector<ReferenceFor<Access>>& entries, std::vector<Guard<Access>>& guards,
    std::size_t held, Deadline deadline) {
    std::vector<typename Access::primitive_type*> primitives;
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if (i == held) continue;
        primitives.push_back(&entries[i]->primitive);
        places.push_back(i);
    }
    std::vector<typename Access::hold_type> holds(places.size());
    const auto missing = Access::try_take_all(primitives, holds, deadline);
    if (!missing) return std::nullopt;
    if (*missing < places.size()) {
        entries[places[*missing]]->counters.contended();
        return places[*missing];
    }
    for (std::size_t i = 0; i < places.size(); ++i) {
        auto& entry = *entries[places[i]];
        const HoldStart start = begin_hold<Access>(entry, holds[i], true);
        guards[places[i]] = Guard<Access>{entries[places[i]].share(), std::move(holds[i]), start};
    }
    return entries.size();
}

/// Tries all but `held` one by one, until one is missing, or the deadline of who waits has passed.
/// Returns: as above; nothing if that came first.
template <class Access>
[[nodiscard]] std::optional<std::size_t> try_in_turn(
    const std::vector<ReferenceFor<Access>>& entries, std::vector<Guard<Access>>& guards,
    std::size_t held, bool waits, Deadline deadline) {
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if (i == held) continue;
        // A try may cost a round trip. A caller who does not wait has each tried once.
        if (waits && deadline.expired()) return std::nullopt;
        guards[i] = try_take<Access>(entries[i].share());
        if (!guards[i]) return i;
    }
    return entries.size();
}

/// Ends what is held of them, in one write where that can be.
template <class Access>
void end_all(std::vector<Guard<Access>>& guards) noexcept {
    MultiGuard<Access>{std::move(guards)}.unlock();
    guards.clear();
}

/// Tries each once. Returns: all or none.
template <class Access>
[[nodiscard]] MultiGuard<Access> try_all_in_turn(const std::vector<ReferenceFor<Access>>& entries) {
    std::vector<Guard<Access>> guards(entries.size());
    const auto missing =
        try_in_turn<Access>(entries, guards, entries.size(), false, Deadline::never());
    if (*missing < entries.size()) return {};
    return MultiGuard<Access>{std::move(guards)};
}

/// Waits until the deadline. Returns: all or none.
///
/// As std::lock does it: who has to wait holds nothing. It waits for one, tries the others, and if
/// one of them is missing gives all back and waits for that one. So no circle of threads can wait
/// for each other, in whatever order they lock, and whatever else takes the same locks. Where a try
/// is a round trip, all are tried in one first.
template <class Access>
[[nodiscard]] MultiGuard<Access> take_all(const std::vector<ReferenceFor<Access>>& entries,
                                          Deadline deadline) {
    const std::size_t count = entries.size();
    const bool waits = !deadline.expired();
    std::vector<Guard<Access>> guards(count);
    const auto try_others = [&](std::size_t held) -> std::optional<std::size_t> {
        if constexpr (TriesTogether<Access>) {
            if (waits && deadline.expired()) return std::nullopt;
            if (const auto missing = try_together<Access>(entries, guards, held, deadline)) {
                return missing;
            }
        }
        return try_in_turn<Access>(entries, guards, held, waits, deadline);
    };
    std::size_t missing = 0;
    if constexpr (TriesTogether<Access>) {
        // If that cannot be told so, who waits begins with the first, which waits for the server,
        // too, as long as one lock would.
        const auto first = count > 1 ? try_together<Access>(entries, guards, count, deadline)
                                     : std::optional{missing};
        if (!first && !waits) return try_all_in_turn<Access>(entries);
        missing = first.value_or(0);
        if (missing < count && count > 1 && !waits) return {};
    }
    while (missing < count) {
        const std::size_t first = missing;
        guards[first] = take<Access>(entries[first].share(), deadline);
        if (!guards[first]) return {};
        if (count == 1) break;
        const auto next = try_others(first);
        if (!next) return {};
        missing = *next;
        if (missing < count) {
            end_all(guards);
            guards.resize(count);
        }
    }
    return MultiGuard<Access>{std::move(guards)};
}

/// Does not wait. Returns: all or none.
template <class Access>
[[nodiscard]] MultiGuard<Access> try_take_all(const std::vector<ReferenceFor<Access>>& entries) {
    if constexpr (TriesTogether<Access>) {
        std::vector<Guard<Access>> guards(entries.size());
        const auto missing = try_together<Access>(
            entries, guards, entries.size(), Deadline::after(std::chrono::nanoseconds::zero()));
        if (missing && *missing < entries.size()) return {};
        if (missing) return MultiGuard<Access>{std::move(guards)};
    }
    return try_all_in_turn<Access>(entries);
}

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_TAKE_HPP
