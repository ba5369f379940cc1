// SPDX-License-Identifier: MIT
//
// Draws line charts as an SVG file: one panel for each question, one line for each answer.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_PLOT_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_PLOT_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace benchmarks {

/// A line: its name and its points from left to right.
struct Line {
    std::string name;
    std::vector<std::pair<int, double>> points;
};

/// A chart with a title.
struct Panel {
    std::string title;
    std::vector<Line> lines;
};

/// The file's text. Points of one x stand above each other, at equal distances; y begins at 0.
inline std::string svg(const std::string& title, const std::string& x_axis,
                       const std::string& y_axis, const std::vector<Panel>& panels) {
    constexpr int width = 440;
    constexpr int height = 320;
    constexpr int left = 52;
    constexpr int bottom = 40;
    constexpr int top = 50;
    constexpr int legend = 190;
    constexpr std::size_t columns = 2;
    static constexpr std::array colours{"#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e",
                                        "#8c564b", "#17becf", "#7f7f7f", "#e377c2"};
    const std::size_t rows = (panels.size() + columns - 1) / columns;
    std::ostringstream out;
    out.precision(4);
    out << "<svg xmlns='http://www.w3.org/2000/svg' font-family='sans-serif' font-size='11' width='"
        << columns * (width + legend) << "' height='" << rows * height + 40
        << "'>\n<rect width='100%' height='100%' fill='white'/>\n<text x='12' y='24' "
           "font-size='16'>"
        << title << "</text>\n";
    for (std::size_t p = 0; p < panels.size(); ++p) {
        const Panel& panel = panels[p];
        double most = 0;
        std::map<int, double> places;
        for (const Line& line : panel.lines) {
            for (const auto& [x, y] : line.points) {
                most = std::max(most, y);
                places[x] = 0;
            }
        }
        if (places.empty()) continue;
        double place = left;
        const double step =
            places.size() > 1 ? (width - left - 20.0) / static_cast<double>(places.size() - 1) : 0;
        for (auto& [x, at] : places) {
            at = place;
            place += step;
        }
        const auto y_of = [&](double y) {
            return height - bottom - y / most * (height - bottom - top);
        };
        out << "<g transform='translate(" << p % columns * (width + legend) << ","
            << 40 + p / columns * height << ")'>\n<text x='" << left << "' y='16' font-size='13'>"
            << panel.title << "</text>\n";
        for (int tick = 0; tick <= 4; ++tick) {
            const double value = most * tick / 4;
            out << "<line x1='" << left << "' x2='" << width - 20 << "' y1='" << y_of(value)
                << "' y2='" << y_of(value) << "' stroke='#ddd'/><text text-anchor='end' x='"
                << left - 5 << "' y='" << y_of(value) + 4 << "'>" << value << "</text>\n";
        }
        for (const auto& [x, at] : places) {
            out << "<text text-anchor='middle' x='" << at << "' y='" << height - bottom + 15 << "'>"
                << x << "</text>\n";
        }
        out << "<text text-anchor='middle' x='" << width / 2 << "' y='" << height - 8 << "'>"
            << x_axis << "</text><text x='" << left << "' y='34'>" << y_axis << "</text>\n";
        for (std::size_t i = 0; i < panel.lines.size(); ++i) {
            const Line& line = panel.lines[i];
            const std::string colour = colours[i % colours.size()];
            out << "<polyline fill='none' stroke-width='2' stroke='" << colour << "' points='";
            for (const auto& [x, y] : line.points)
                out << places[x] << ',' << y_of(y) << ' ';
            out << "'/>\n";
            for (const auto& [x, y] : line.points) {
                out << "<circle r='3' cx='" << places[x] << "' cy='" << y_of(y) << "' fill='"
                    << colour << "'/>";
            }
            const std::size_t at = top + 10 + 16 * i;
            out << "<rect x='" << width - 8 << "' y='" << at - 9
                << "' width='10' height='10' fill='" << colour << "'/><text x='" << width + 6
                << "' y='" << at << "'>" << line.name << "</text>\n";
        }
        out << "</g>\n";
    }
    out << "</svg>\n";
    return out.str();
}

}  // namespace benchmarks

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_PLOT_HPP
