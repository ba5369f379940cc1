// SPDX-License-Identifier: MIT
//
// How often each waiter of a queue was overtaken: by how many that came clearly after it and were
// served clearly before it. Counting pairs would be quadratic; a Fenwick tree over the times of
// arrival makes it n log n.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_OVERTAKING_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_OVERTAKING_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace faults {

/// One that stood in the queue.
struct Turn {
    std::int64_t called = 0;
    std::int64_t ended = 0;
    std::size_t who = 0;  ///< For the caller.
    bool served = true;   ///< Only who was served has overtaken anybody.
    bool waited = true;   ///< Only who stood in the queue was overtaken.
};

/// Calls `use(turn, count)` for each turn that was overtaken: by `count` that called more than
/// `slack` after it and were served more than `slack` before its end. Sorts the turns.
template <class Use>
void count_overtaking(std::vector<Turn>& turns, std::int64_t slack, Use use) {
    std::vector<std::int64_t> arrivals;
    arrivals.reserve(turns.size());
    for (const Turn& turn : turns)
        arrivals.push_back(turn.called);
    std::ranges::sort(arrivals);
    std::ranges::sort(turns, {}, &Turn::ended);

    // Counts the served by the rank of their arrival, the latest first.
    std::vector<std::uint32_t> tree(turns.size() + 1);
    const auto later_than = [&](std::int64_t time) {
        const auto after = std::ranges::upper_bound(arrivals, time);
        std::uint64_t count = 0;
        for (auto i = static_cast<std::size_t>(arrivals.end() - after); i > 0; i &= i - 1)
            count += tree[i];
        return count;
    };
    const auto insert = [&](std::int64_t time) {
        const auto at = std::ranges::upper_bound(arrivals, time) - arrivals.begin();
        for (auto i = turns.size() + 1 - static_cast<std::size_t>(at); i < tree.size();
             i += i & (~i + 1))
            ++tree[i];
    };
    std::size_t inserted = 0;
    for (const Turn& turn : turns) {
        for (; turns[inserted].ended + slack < turn.ended; ++inserted) {
            if (turns[inserted].served) insert(turns[inserted].called);
        }
        if (!turn.waited) continue;
        if (const auto count = later_than(turn.called + slack); count != 0) use(turn, count);
    }
}

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_OVERTAKING_HPP
