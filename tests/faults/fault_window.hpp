// SPDX-License-Identifier: MIT
//
// From when to when a fault could show, and what it excuses while it can. What no fault excuses has
// no flag here: a fenced register that takes an old write, a call that outlives its deadline, a
// call that never ends, two acquisitions under one owner token.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_FAULT_WINDOW_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_FAULT_WINDOW_HPP

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace faults {

/// What a fault excuses.
struct Allows {
    bool overlap = false;  ///< Two that are valid together.
    bool fence = false;  ///< Fencing tokens that go back: the data is lost and the clock set back.
    bool delay = false;  ///< A free lock that nobody is given.
    bool disorder = false;  ///< One that came later being served first.
    bool loss = false;      ///< A holder that loses its lease.
    bool error = false;     ///< A call that ends with an error.

    friend bool operator==(const Allows&, const Allows&) = default;
};

/// Everything but what no fault excuses.
inline constexpr Allows allows_all{true, true, true, true, true, true};

/// A fault as it happened, on the clock of the records. `end` is when its consequences are over,
/// not when it was healed: a lease that a failover forgot counts until it ends by itself.
struct FaultWindow {
    std::string fault{};
    std::int64_t begin = 0;
    std::int64_t end = 0;
    Allows allows{};
};

/// Stretches of time, joined where they meet, in order.
class Stretches {
  public:
    using Stretch = std::pair<std::int64_t, std::int64_t>;

    Stretches() = default;
    explicit Stretches(std::vector<Stretch> all) : all_{std::move(all)} {
        std::ranges::sort(all_);
        std::vector<Stretch> joined;
        for (const Stretch& one : all_) {
            if (one.second <= one.first) continue;
            if (!joined.empty() && one.first <= joined.back().second) {
                joined.back().second = std::max(joined.back().second, one.second);
            } else {
                joined.push_back(one);
            }
        }
        all_ = std::move(joined);
    }

    /// Those of the windows that allow what `flag` says.
    Stretches(const std::vector<FaultWindow>& windows, bool Allows::*flag)
        : Stretches{picked(windows, flag)} {}

    /// Whether some of [begin, end] is in one of them.
    [[nodiscard]] bool meet(std::int64_t begin, std::int64_t end) const {
        const auto next = after(begin);
        return next != all_.end() && next->first <= end;
    }

    [[nodiscard]] bool contain(std::int64_t time) const { return meet(time, time); }

    /// Calls `use(begin, end)` for each part of [begin, end) that is in none of them.
    template <class Use>
    void outside(std::int64_t begin, std::int64_t end, Use use) const {
        for (auto next = after(begin); next != all_.end() && next->first < end; ++next) {
            if (begin < next->first) use(begin, next->first);
            begin = std::max(begin, next->second);
        }
        if (begin < end) use(begin, end);
    }

    [[nodiscard]] const std::vector<Stretch>& all() const { return all_; }

  private:
    static std::vector<Stretch> picked(const std::vector<FaultWindow>& windows,
                                       bool Allows::*flag) {
        std::vector<Stretch> all;
        for (const FaultWindow& window : windows) {
            if (window.allows.*flag) all.emplace_back(window.begin, window.end);
        }
        return all;
    }

    /// The first that ends after `time`.
    [[nodiscard]] std::vector<Stretch>::const_iterator after(std::int64_t time) const {
        return std::ranges::upper_bound(all_, time, {}, &Stretch::second);
    }

    std::vector<Stretch> all_;
};

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_FAULT_WINDOW_HPP
