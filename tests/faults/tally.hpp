// SPDX-License-Identifier: MIT
//
// What a fault run has seen: sums, and a row for each kind of fault. An operation belongs to the
// fault that was struck last before its answer.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_TALLY_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_TALLY_HPP

#include "faults/crew.hpp"
#include "faults/fault_window.hpp"
#include "faults/report.hpp"

#include <algorithm>
#include <cstdint>
#include <iomanip>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace faults {

/// What came of one kind of fault.
struct FaultRow {
    std::uint64_t times = 0;
    std::uint64_t operations = 0;
    std::uint64_t violations = 0;
    std::int64_t worst_delay = 0;  ///< A waiter's time beside room for it, in ns.

    FaultRow& operator+=(const FaultRow& more) {
        times += more.times;
        operations += more.operations;
        violations += more.violations;
        worst_delay = std::max(worst_delay, more.worst_delay);
        return *this;
    }
};

/// Finds the fault that something belongs to.
class Blame {
  public:
    /// The name of the time before the first fault.
    static constexpr const char* nothing = "(none yet)";

    explicit Blame(const std::vector<FaultWindow>& windows) {
        for (const FaultWindow& window : windows)
            strikes_.emplace_back(window.begin, window.fault);
        std::ranges::stable_sort(strikes_, {}, &Strike::first);
        rows_.resize(strikes_.size() + 1);
        for (std::size_t i = 1; i < rows_.size(); ++i)
            rows_[i].times = 1;
    }

    [[nodiscard]] FaultRow& at(std::int64_t time) {
        const auto after = std::ranges::upper_bound(strikes_, time, {}, &Strike::first);
        return rows_[static_cast<std::size_t>(after - strikes_.begin())];
    }

    /// The rows by name, faults of one name summed up.
    [[nodiscard]] std::map<std::string, FaultRow> rows() const {
        std::map<std::string, FaultRow> all;
        for (std::size_t i = 0; i < rows_.size(); ++i)
            all[i == 0 ? nothing : strikes_[i - 1].second] += rows_[i];
        if (all[nothing].operations == 0) all.erase(nothing);
        return all;
    }

  private:
    using Strike = std::pair<std::int64_t, std::string>;

    std::vector<Strike> strikes_;
    std::vector<FaultRow> rows_;
};

/// A violation, of whatever sort.
struct Finding {
    std::string check{};  ///< which check found it
    std::string where{};  ///< arena and fault
    std::string text{};

    [[nodiscard]] std::string arena() const { return where.substr(0, where.find(',')); }
};

struct Tally {
    std::uint64_t operations = 0;
    std::uint64_t acquired = 0;
    std::uint64_t writes = 0;
    std::uint64_t turned_away = 0;
    std::uint64_t excused = 0;
    std::uint64_t violations = 0;
    std::uint64_t keys = 0;  ///< The most that were left after a round.
    Deeds deeds{};
    std::map<std::string, FaultRow> rows{};
    std::vector<Finding> findings{};  ///< The first few.

    [[nodiscard]] std::uint64_t faults() const {
        std::uint64_t sum = 0;
        for (const auto& [name, row] : rows)
            sum += row.times;
        return sum;
    }

    /// A violation. Of each sort only the first few are kept.
    void find(Finding finding) {
        ++violations;
        keep(std::move(finding));
    }

    /// What explains a violation.
    void keep(Finding finding) {
        const auto alike = std::ranges::count_if(
            findings, [&](const Finding& one) { return one.check == finding.check; });
        if (alike < 6) findings.push_back(std::move(finding));
    }

    Tally& operator+=(const Tally& more) {
        operations += more.operations;
        acquired += more.acquired;
        writes += more.writes;
        turned_away += more.turned_away;
        excused += more.excused;
        violations += more.violations;
        keys = std::max(keys, more.keys);
        deeds += more.deeds;
        for (const auto& [name, row] : more.rows)
            rows[name] += row;
        for (const Finding& finding : more.findings)
            keep(finding);
        return *this;
    }

    /// The table: fault, times injected, operations checked, violations, worst delay.
    [[nodiscard]] std::string table() const {
        std::size_t width = 5;
        for (const auto& [name, row] : rows)
            width = std::max(width, name.size());
        std::ostringstream text;
        const auto line = [&](const std::string& name, const auto& times, const auto& done,
                              const auto& wrong, const std::string& delay) {
            text << std::left << std::setw(static_cast<int>(width)) << name << std::right
                 << std::setw(8) << times << std::setw(12) << done << std::setw(12) << wrong
                 << std::setw(13) << delay << '\n';
        };
        const auto ms = [](std::int64_t ns) { return std::to_string(ns / 1'000'000) + " ms"; };
        line("fault", "times", "operations", "violations", "worst delay");
        std::int64_t worst = 0;
        for (const auto& [name, row] : rows) {
            line(name, row.times, row.operations, row.violations, ms(row.worst_delay));
            worst = std::max(worst, row.worst_delay);
        }
        line("together", faults(), operations, violations, ms(worst));
        return text.str();
    }
};

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_TALLY_HPP
