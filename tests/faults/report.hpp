// SPDX-License-Identifier: MIT
//
// What the checker found: how often each check was broken, how often a fault excused it, the first
// few violations in words, and the worst figures of a history that is right.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_REPORT_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_REPORT_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace faults {

/// What can be wrong with a history. The comments say when it is.
enum class Check : std::uint8_t {
    malformed,  ///< The records of one client make no sense.
    overlap,    ///< More were valid together than the name has room for.
    order,      ///< Who was valid later had no larger fence.
    fence,      ///< Who asked after another was answered had no larger fence; or none; or the same.
    token,      ///< Two acquisitions had one owner token.
    stale_write,  ///< A fenced register took a fence below its highest, or another holder's.
    revived,      ///< A lease was valid again after it was lost.
    loss,         ///< A lease was lost, and no fault explains it.
    error,        ///< A call ended with an error, and no fault explains it.
    late,         ///< A call went on after its deadline.
    hung,         ///< A call never ended, and its process lived.
    forgotten,    ///< A waiter waited although there was room for it.
    overtaken,    ///< A waiter was overtaken by more than it may be.
};

inline constexpr std::size_t check_count = 13;

[[nodiscard]] constexpr std::string_view to_string(Check check) noexcept {
    constexpr std::array<std::string_view, check_count> names{
        "malformed", "overlap", "order", "fence", "token",     "stale write", "revived",
        "loss",      "error",   "late",  "hung",  "forgotten", "overtaken"};
    return names[static_cast<std::size_t>(check)];
}

struct Violation {
    Check check = Check::malformed;
    std::uint32_t name = 0;
    std::int64_t time = 0;
    std::string text{};
};

struct Report {
    std::array<std::uint64_t, check_count> violations{};
    std::array<std::uint64_t, check_count> excused{};
    std::vector<Violation> first{};  ///< The first few of each check.

    std::uint64_t operations = 0;  ///< Records, less the calls: an operation is its answer.
    std::uint64_t acquired = 0;
    std::uint64_t refused = 0;
    std::uint64_t failed = 0;
    std::uint64_t lost = 0;
    std::uint64_t unknown = 0;
    std::uint64_t cut_off = 0;  ///< Held, or asked for, when the process was killed.
    std::uint64_t writes = 0;   ///< That registers took.
    std::uint64_t turned_away = 0;

    std::int64_t worst_delay = 0;  ///< A waiter's longest time beside room for it, in ns.
    std::int64_t worst_wait = 0;   ///< From call to answer of an acquisition, in ns.
    std::int64_t worst_late = 0;   ///< A call's longest time after its deadline, in ns.
    std::uint64_t worst_overtaken = 0;

    static constexpr std::size_t most_of_each = 10;

    [[nodiscard]] std::uint64_t of(Check check) const {
        return violations[static_cast<std::size_t>(check)];
    }
    [[nodiscard]] std::uint64_t excused_of(Check check) const {
        return excused[static_cast<std::size_t>(check)];
    }
    [[nodiscard]] std::uint64_t total() const {
        return std::accumulate(violations.begin(), violations.end(), std::uint64_t{0});
    }

    /// Counts a violation, or an excused one. `text` makes the words, if they are wanted at all.
    template <class Text>
    void add(Check check, bool is_excused, std::uint32_t name, std::int64_t time, Text text) {
        const auto at = static_cast<std::size_t>(check);
        if (is_excused) {
            ++excused[at];
        } else if (violations[at]++ < most_of_each) {
            first.push_back({check, name, time, text()});
        }
    }

    /// The figures, then the first violations, one a line.
    [[nodiscard]] std::string to_string() const {
        const auto ms = [](std::int64_t ns) { return std::to_string(ns / 1'000'000) + " ms"; };
        std::string text =
            std::to_string(operations) + " operations: " + std::to_string(acquired) +
            " acquired, " + std::to_string(refused) + " refused, " + std::to_string(failed) +
            " failed, " + std::to_string(unknown) + " unknown, " + std::to_string(lost) +
            " lost, " + std::to_string(cut_off) + " cut off; " + std::to_string(writes) +
            " writes taken, " + std::to_string(turned_away) + " turned away; worst delay " +
            ms(worst_delay) + ", worst wait " + ms(worst_wait) + ", worst overtaken " +
            std::to_string(worst_overtaken) + "; " + std::to_string(total()) + " violations\n";
        for (std::size_t i = 0; i < check_count; ++i) {
            if (violations[i] == 0 && excused[i] == 0) continue;
            text += "  " + std::string{faults::to_string(static_cast<Check>(i))} + ": " +
                    std::to_string(violations[i]) + " violations, " + std::to_string(excused[i]) +
                    " excused\n";
        }
        for (const Violation& one : first) {
            text += "  " + std::string{faults::to_string(one.check)} + ", name " +
                    std::to_string(one.name) + " at " + std::to_string(one.time) + ": " + one.text +
                    "\n";
        }
        return text;
    }
};

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_REPORT_HPP
