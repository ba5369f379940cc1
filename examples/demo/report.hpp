// SPDX-License-Identifier: MIT
//
// What the demo measures of each use case, and the table that it prints at the end.

#ifndef CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_REPORT_HPP
#define CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_REPORT_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace demo {

using Clock = std::chrono::steady_clock;
using Waits = std::vector<std::chrono::nanoseconds>;

enum class Verdict { right, wrong, skipped };

struct Result {
    std::string use_case{};
    std::string primitive{};
    std::size_t operations = 0;
    Waits waits{};  // how long each operation waited for its turn
    Verdict verdict = Verdict::wrong;
    std::string finding{};  // what the verdict rests on
};

/// The time that a fraction of all waits did not exceed, in words.
inline std::string percentile(Waits waits, double fraction) {
    if (waits.empty()) return "-";
    const auto rank = static_cast<std::size_t>(fraction * static_cast<double>(waits.size() - 1));
    std::ranges::nth_element(waits, waits.begin() + static_cast<std::ptrdiff_t>(rank));
    const double ns = static_cast<double>(waits[rank].count());
    std::ostringstream text;
    text << std::fixed << std::setprecision(1);
    if (ns < 1e3) {
        text << ns << " ns";
    } else if (ns < 1e6) {
        text << ns / 1e3 << " us";
    } else {
        text << ns / 1e6 << " ms";
    }
    return text.str();
}

inline const char* word(Verdict verdict) {
    switch (verdict) {
        case Verdict::right:
            return "right";
        case Verdict::wrong:
            return "WRONG";
        case Verdict::skipped:
            break;
    }
    return "skipped";
}

inline void print_table(const std::vector<Result>& results) {
    const auto row = [](const auto& use, const auto& primitive, const auto& count, const auto& p50,
                        const auto& p99, const auto& verdict) {
        std::cout << std::left << std::setw(28) << use << std::setw(16) << primitive << std::right
                  << std::setw(11) << count << std::setw(11) << p50 << std::setw(11) << p99 << "  "
                  << std::left << verdict << '\n';
    };
    row("use case", "primitive", "operations", "wait p50", "wait p99", "verdict");
    for (const Result& each : results) {
        row(each.use_case, each.primitive, each.operations, percentile(each.waits, 0.5),
            percentile(each.waits, 0.99), word(each.verdict));
        std::cout << "    " << each.finding << '\n';
    }
}

/// Runs one use case with a line of progress.
template <class Case>
Result run(int number, const std::string& name, Case use_case) {
    std::cout << '[' << number << "/5] " << name << " ... " << std::flush;
    const auto begin = Clock::now();
    Result result = use_case();
    result.use_case = name;
    const auto took = std::chrono::duration<double>(Clock::now() - begin).count();
    std::cout << word(result.verdict) << " (" << std::fixed << std::setprecision(1) << took
              << " s)\n";
    return result;
}

}  // namespace demo

#endif  // CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_REPORT_HPP
