// SPDX-License-Identifier: MIT
//
// The command line of a benchmark: numbers by name, as in `--busy 2`. An unknown one, or --help,
// prints what there is and ends the program.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_OPTIONS_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_OPTIONS_HPP

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace benchmarks {

/// A number that can be set.
struct Option {
    std::string_view name;  ///< with its dashes
    int& value;             ///< holds what it is if not set
    int least;
    std::string_view what;
};

inline void read_options(int count, char** words, const std::vector<Option>& options) {
    const std::vector<std::string_view> given(words + 1, words + count);
    for (std::size_t i = 0; i < given.size(); i += 2) {
        const auto option = std::ranges::find(options, given[i], &Option::name);
        if (option != options.end() && i + 1 < given.size()) {
            const std::string_view text = given[i + 1];
            int value = 0;
            const auto [end, error] =
                std::from_chars(text.data(), text.data() + text.size(), value);
            if (error == std::errc{} && end == text.data() + text.size() &&
                value >= option->least) {
                option->value = value;
                continue;
            }
        }
        std::FILE* const to = given[i] == "--help" ? stdout : stderr;
        std::fprintf(to, "usage: %s [OPTION NUMBER]...\n\n", words[0]);
        for (const Option& each : options) {
            std::fprintf(to, "  %-12s %s; %d if not given, at least %d\n",
                         std::string{each.name}.c_str(), std::string{each.what}.c_str(), each.value,
                         each.least);
        }
        std::exit(to == stdout ? 0 : 2);
    }
}

}  // namespace benchmarks

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_OPTIONS_HPP
