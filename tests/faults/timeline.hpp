// SPDX-License-Identifier: MIT
//
// A picture of what happened around a violation, as an SVG: a row for each client of one name, a
// thin bar while it asked, a thick one while its lease was valid, and the faults behind them. To
// hover over a bar shows its figures.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_TIMELINE_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_TIMELINE_HPP

#include "faults/acquisition.hpp"
#include "faults/fault_window.hpp"
#include "faults/report.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace faults {

[[nodiscard]] inline std::string escape_xml(std::string_view text) {
    std::string escaped;
    for (const char c : text) {
        switch (c) {
            case '<':
                escaped += "&lt;";
                break;
            case '>':
                escaped += "&gt;";
                break;
            case '&':
                escaped += "&amp;";
                break;
            default:
                escaped += c;
        }
    }
    return escaped;
}

/// Draws the acquisitions of one name from `around` before the violation to as long after.
[[nodiscard]] inline std::string draw_timeline(const History& history, const Violation& violation,
                                               const std::vector<FaultWindow>& windows,
                                               std::int64_t around) {
    const std::int64_t from = violation.time - around;
    const std::int64_t to = violation.time + around;
    constexpr int left = 170;
    constexpr int width = 1200;
    constexpr int row_height = 22;
    const auto x = [&](std::int64_t time) {
        const std::int64_t within = std::clamp(time, from, to) - from;
        return left + static_cast<double>(within) / static_cast<double>(to - from) * width;
    };
    const auto end_of_call = [&](const Acquisition& one) {
        return one.answered() ? one.begin : to;
    };

    std::map<std::pair<std::int32_t, std::int32_t>, int> rows;
    for (const Acquisition& one : history.acquisitions) {
        if (one.called > to || std::max(end_of_call(one), one.end) < from) continue;
        rows.emplace(std::pair{one.process, one.thread}, 0);
    }
    int next = 0;
    for (auto& [client, row] : rows)
        row = next++;
    const int height = 80 + next * row_height;

    std::ostringstream svg;
    svg << "<svg xmlns='http://www.w3.org/2000/svg' width='" << left + width + 20 << "' height='"
        << height << "' font-family='sans-serif' font-size='11'>\n"
        << "<rect width='100%' height='100%' fill='white'/>\n<text x='10' y='20' font-size='13'>"
        << escape_xml(to_string(violation.check)) << ", name " << violation.name << ": "
        << escape_xml(violation.text) << "</text>\n";
    const auto box = [&](std::int64_t begin, std::int64_t end, int y, int tall,
                         std::string_view colour, const std::string& title) {
        svg << "<rect x='" << x(begin) << "' y='" << y << "' width='"
            << std::max(x(end) - x(begin), 1.0) << "' height='" << tall << "' fill='" << colour
            << "'><title>" << escape_xml(title) << "</title></rect>\n";
    };
    for (const FaultWindow& window : windows) {
        if (window.begin > to || window.end < from) continue;
        box(window.begin, window.end, 40, height - 60, "#f6e7c9", window.fault);
    }
    for (const auto& [client, row] : rows) {
        svg << "<text x='10' y='" << 60 + row * row_height << "'>process " << client.first
            << " thread " << client.second << "</text>\n";
    }
    for (const Acquisition& one : history.acquisitions) {
        const auto found = rows.find({one.process, one.thread});
        if (found == rows.end() || one.called > to) continue;
        const int y = 48 + found->second * row_height;
        if (end_of_call(one) >= from) {
            box(one.called, end_of_call(one), y + 6, 3, "#9aa5b1", one.to_string());
        }
        if (one.valid() && one.end >= from) {
            box(one.begin, one.end, y, 14, one.lost ? "#e08e79" : "#4a90d9", one.to_string());
        }
    }
    svg << "<line x1='" << x(violation.time) << "' x2='" << x(violation.time) << "' y1='36' y2='"
        << height - 20 << "' stroke='#c0392b'/>\n<text x='" << left << "' y='" << height - 6 << "'>"
        << around / 1'000'000
        << " ms before and after; grey: asked, blue: valid, red: lost, behind: faults</text>\n"
        << "</svg>\n";
    return svg.str();
}

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_TIMELINE_HPP
