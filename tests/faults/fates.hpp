// SPDX-License-Identifier: MIT
//
// What was done to the processes of a history: when each was killed, and when it was stopped. A
// process that does not run is answerable for nothing, and what it holds goes on until it ends.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_FATES_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_FATES_HPP

#include "faults/record.hpp"

#include <cstdint>
#include <limits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace faults {

class Fates {
  public:
    static constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();

    /// Takes a record of killed, stopped or continued; those of one process in their order.
    void add(const Record& record) {
        Fate& fate = all_[record.process];
        if (record.op == Op::killed) fate.killed = record.time;
        if (record.op == Op::stopped) fate.stops.emplace_back(record.time, never);
        if (record.op == Op::continued && !fate.stops.empty()) {
            fate.stops.back().second = record.time;
        }
    }

    /// When it was killed; never, if it was not.
    [[nodiscard]] std::int64_t killed(std::int32_t process) const {
        const auto found = all_.find(process);
        return found == all_.end() ? never : found->second.killed;
    }

    /// Calls `use(from, to)` for each time that it was stopped for some of [begin, end].
    template <class Use>
    void stops(std::int32_t process, std::int64_t begin, std::int64_t end, Use use) const {
        if (all_.empty()) return;
        const auto found = all_.find(process);
        if (found == all_.end()) return;
        for (const auto& [from, to] : found->second.stops) {
            if (from <= end && begin <= to) use(from, to);
        }
    }

    /// Whether it was stopped for some of [begin, end].
    [[nodiscard]] bool stopped(std::int32_t process, std::int64_t begin, std::int64_t end) const {
        bool any = false;
        stops(process, begin, end, [&](std::int64_t, std::int64_t) { any = true; });
        return any;
    }

    /// Whether nothing was done to any process.
    [[nodiscard]] bool empty() const { return all_.empty(); }

  private:
    struct Fate {
        std::int64_t killed = never;
        std::vector<std::pair<std::int64_t, std::int64_t>> stops{};
    };

    std::unordered_map<std::int32_t, Fate> all_;
};

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_FATES_HPP
