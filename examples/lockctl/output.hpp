// SPDX-License-Identifier: MIT
//
// How lockctl shows things: tables for people, JSON for programs. Names, labels and hosts were
// written by others and may hold anything, so no byte of them reaches a terminal unescaped.

#ifndef CODOMYRMEX_CONCURRENCY_EXAMPLES_LOCKCTL_OUTPUT_HPP
#define CODOMYRMEX_CONCURRENCY_EXAMPLES_LOCKCTL_OUTPUT_HPP

#include <codomyrmex/concurrency/detail/utf8.hpp>
#include <codomyrmex/concurrency/redis/holder.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iomanip>
#include <ostream>
#include <sstream>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>
#include <vector>

namespace lockctl {

using codomyrmex::concurrency::Holder;
using codomyrmex::concurrency::RedisEntry;
using codomyrmex::concurrency::Waiter;
using codomyrmex::concurrency::detail::utf8_character;

/// The first character of `text`, if it is one that a terminal can be trusted with: no control
/// characters, nor those that change the direction of writing or are not seen.
inline std::string_view harmless(std::string_view text) {
    const std::string_view first = text.substr(0, utf8_character(text));
    const bool control = first.size() == 1 && (first < " " || first == "\x7f");
    const bool c1 = first.size() == 2 && first < "\xc2\xa0";
    const bool unseen = (first >= "\xe2\x80\x80" && first <= "\xe2\x80\x8f") ||
                        (first >= "\xe2\x80\xa8" && first <= "\xe2\x80\xae") ||
                        (first >= "\xe2\x81\xa0" && first <= "\xe2\x81\xaf");
    return control || c1 || unseen ? std::string_view{} : first;
}

/// What is harmless as it is, all else as \n, \t or \xNN; a backslash is doubled.
inline std::string shown(std::string_view text) {
    std::string safe;
    while (!text.empty()) {
        const std::string_view first = harmless(text);
        if (first == "\\") {
            safe += "\\\\";
        } else if (!first.empty()) {
            safe += first;
        } else if (text.front() == '\n') {
            safe += "\\n";
        } else if (text.front() == '\t') {
            safe += "\\t";
        } else {
            std::array<char, 8> hex{};
            std::snprintf(hex.data(), hex.size(), "\\x%02x",
                          static_cast<unsigned char>(text.front()));
            safe += hex.data();
        }
        text.remove_prefix(std::max<std::size_t>(first.size(), 1));
    }
    return safe;
}

/// How many characters it has.
inline std::size_t width_of(std::string_view text) {
    return static_cast<std::size_t>(
        std::ranges::count_if(text, [](char byte) { return (byte & 0xc0) != 0x80; }));
}

/// 850ms, 12s, 3m05s, 2h05m, 3d04h.
inline std::string shown(std::chrono::milliseconds time) {
    const auto all = std::chrono::floor<std::chrono::seconds>(time).count();
    const auto pair = [](std::int64_t high, char unit, std::int64_t low, char its) {
        std::ostringstream text;
        text << high << unit << std::setw(2) << std::setfill('0') << low << its;
        return text.str();
    };
    if (time.count() < 10'000) return std::to_string(time.count()) + "ms";
    if (all < 60) return std::to_string(all) + "s";
    if (all < 3600) return pair(all / 60, 'm', all % 60, 's');
    if (all < 86'400) return pair(all / 3600, 'h', all / 60 % 60, 'm');
    return pair(all / 86'400, 'd', all / 3600 % 24, 'h');
}

/// Colours, where a terminal shows them and nobody has asked for none.
struct Style {
    std::string_view bold{};
    std::string_view red{};
    std::string_view plain{};

    static Style of(int file) {
        const char* const no_color = std::getenv("NO_COLOR");
        if (::isatty(file) == 0 || (no_color != nullptr && *no_color != '\0')) return {};
        return {"\033[1m", "\033[31m", "\033[0m"};
    }
};

/// Columns as wide as they must be. No line ends in blanks.
inline void print_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows,
                        const Style& style) {
    std::vector<std::size_t> widths;
    for (const auto& row : rows) {
        widths.resize(std::max(widths.size(), row.size()));
        for (std::size_t i = 0; i < row.size(); ++i)
            widths[i] = std::max(widths[i], width_of(row[i]));
    }
    for (std::size_t line = 0; line < rows.size(); ++line) {
        const auto& row = rows[line];
        std::string text;
        for (std::size_t i = 0; i < row.size(); ++i) {
            text += row[i];
            if (i + 1 < row.size()) text.append(widths[i] - width_of(row[i]) + 2, ' ');
        }
        out << (line == 0 ? style.bold : "") << text << (line == 0 ? style.plain : "") << '\n';
    }
}

template <class Somebody>
std::string who(const Somebody& somebody) {
    if (somebody.host.empty()) return "?";
    return shown(somebody.host) + ':' + std::to_string(somebody.pid) + ':' +
           std::to_string(somebody.thread);
}

/// "2026-01-31T12:00:00Z".
inline std::string shown(std::chrono::sys_seconds time) {
    const auto day = std::chrono::floor<std::chrono::days>(time);
    const std::chrono::year_month_day date{day};
    const std::chrono::hh_mm_ss clock{time - day};
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%04d-%02u-%02uT%02d:%02d:%02dZ",
                  static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                  static_cast<unsigned>(date.day()), static_cast<int>(clock.hours().count()),
                  static_cast<int>(clock.minutes().count()),
                  static_cast<int>(clock.seconds().count()));
    return text.data();
}

/// The cells that ls and top have in common.
inline std::vector<std::string> cells(const RedisEntry& entry) {
    std::vector<std::string> row{std::string{to_string(entry.kind)}, shown(entry.name)};
    if (entry.foreign) {
        row.insert(row.end(), {"(not ours)", "", "", "", "", ""});
    } else if (entry.holder) {
        const std::string others =
            entry.holders > 1 ? " and " + std::to_string(entry.holders - 1) + " more" : "";
        row.insert(row.end(), {who(*entry.holder) + others, shown(entry.holder->age),
                               shown(entry.holder->ttl), std::to_string(entry.waiting),
                               std::to_string(entry.holder->fence), shown(entry.holder->label)});
    }
    return row;
}

inline const std::vector<std::string> entry_titles{"KIND", "NAME",    "HOLDER", "AGE",
                                                   "TTL",  "WAITING", "FENCE",  "LABEL"};

inline void print(std::ostream& out, const std::vector<RedisEntry>& entries, const Style& style) {
    std::vector<std::vector<std::string>> rows{entry_titles};
    for (const RedisEntry& entry : entries)
        rows.push_back(cells(entry));
    print_table(out, rows, style);
}

inline void print(std::ostream& out, const std::vector<Holder>& holders, const Style& style) {
    for (const Holder& holder : holders) {
        const auto line = [&](std::string_view title, std::string_view value) {
            out << style.bold << title << style.plain << std::string(8 - title.size(), ' ') << value
                << '\n';
        };
        line("holder", who(holder));
        if (!holder.label.empty()) line("label", shown(holder.label));
        line("since", shown(holder.since) + " (" + shown(holder.age) + ")");
        line("ttl", shown(holder.ttl));
        line("fence", std::to_string(holder.fence));
        line("token", shown(holder.token));
        if (holder.weight != 1) line("weight", std::to_string(holder.weight));
        if (holder.retains) line("note", "its process may keep it between uses");
    }
}

inline void print(std::ostream& out, const std::vector<Waiter>& waiters, const Style& style) {
    std::vector<std::vector<std::string>> rows{{"PLACE", "WAITER", "SINCE", "TOKEN", "LABEL"}};
    for (std::size_t i = 0; i < waiters.size(); ++i) {
        const Waiter& waiter = waiters[i];
        rows.push_back({std::to_string(i + 1), who(waiter),
                        shown(std::chrono::floor<std::chrono::seconds>(waiter.since)),
                        shown(waiter.token), shown(waiter.label)});
    }
    print_table(out, rows, style);
}

// --- JSON. Its strings are made of characters, names of bytes. What is not UTF-8 has each byte
// stand as the character of that number, as in ISO 8859-1.

inline bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const std::size_t size = utf8_character(text);
        if (size == 0) return false;
        text.remove_prefix(size);
    }
    return true;
}

inline std::string json_text(std::string_view text) {
    const bool utf8 = is_utf8(text);
    std::string json = "\"";
    for (const char byte : text) {
        const auto value = static_cast<unsigned char>(byte);
        if (byte == '"' || byte == '\\') {
            (json += '\\') += byte;
        } else if (value < 0x20 || value == 0x7f || (!utf8 && value >= 0x80)) {
            std::array<char, 8> code{};
            std::snprintf(code.data(), code.size(), "\\u%04x", value);
            json += code.data();
        } else {
            json += byte;
        }
    }
    return json + '"';
}

/// An object, of values that are JSON already.
inline std::string object(const std::vector<std::pair<std::string, std::string>>& members) {
    std::string json = "{";
    for (const auto& [name, value] : members) {
        if (json.size() > 1) json += ',';
        json += json_text(name) + ':' + value;
    }
    return json + '}';
}

inline std::string to_json(const Holder& holder) {
    return object({{"host", json_text(holder.host)},
                   {"pid", std::to_string(holder.pid)},
                   {"thread", std::to_string(holder.thread)},
                   {"label", json_text(holder.label)},
                   {"since", std::to_string(holder.since.time_since_epoch().count())},
                   {"age_seconds", std::to_string(holder.age.count())},
                   {"ttl_ms", std::to_string(holder.ttl.count())},
                   // Beyond what a double holds exactly.
                   {"fence", json_text(std::to_string(holder.fence))},
                   {"token", json_text(holder.token)},
                   {"weight", std::to_string(holder.weight)},
                   {"retains", holder.retains ? "true" : "false"}});
}

inline std::string to_json(const Waiter& waiter) {
    return object({{"host", json_text(waiter.host)},
                   {"pid", std::to_string(waiter.pid)},
                   {"thread", std::to_string(waiter.thread)},
                   {"label", json_text(waiter.label)},
                   {"since_us", std::to_string(waiter.since.time_since_epoch().count())},
                   {"token", json_text(waiter.token)},
                   {"weight", std::to_string(waiter.weight)}});
}

inline std::string to_json(const RedisEntry& entry) {
    return object({{"name", json_text(entry.name)},
                   {"name_is_utf8", is_utf8(entry.name) ? "true" : "false"},
                   {"kind", json_text(to_string(entry.kind))},
                   {"holders", std::to_string(entry.holders)},
                   {"waiting", std::to_string(entry.waiting)},
                   {"capacity", std::to_string(entry.capacity)},
                   {"foreign", entry.foreign ? "true" : "false"},
                   {"holder", entry.holder ? to_json(*entry.holder) : "null"}});
}

template <class T>
std::string to_json(const std::vector<T>& values) {
    std::string json = "[";
    for (const T& value : values) {
        if (json.size() > 1) json += ',';
        json += to_json(value);
    }
    return json + ']';
}

}  // namespace lockctl

#endif  // CODOMYRMEX_CONCURRENCY_EXAMPLES_LOCKCTL_OUTPUT_HPP
