// SPDX-License-Identifier: MIT
//
// Commands in the server's wire format: an array of strings of any bytes, each with its length in
// front.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_WIRE_FORMAT_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_WIRE_FORMAT_HPP

#include <array>
#include <charconv>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace codomyrmex::concurrency::detail {

/// Appends the beginning of an array of `count` words, `kind` being '*', or of a word of `count`
/// bytes, `kind` being '$'. Throws: std::bad_alloc.
inline void append_count(char kind, std::size_t count, std::string& output) {
    std::array<char, 24> text{};
    char* end = text.data();
    *end++ = kind;
    end = std::to_chars(end, text.data() + text.size() - 2, count).ptr;
    *end++ = '\r';
    *end++ = '\n';
    output.append(text.data(), end);
}

/// Throws: std::bad_alloc.
inline void append_word(std::string_view word, std::string& output) {
    append_count('$', word.size(), output);
    output.append(word).append("\r\n");
}

/// How many bytes append_word() appends.
[[nodiscard]] constexpr std::size_t encoded_size(std::string_view word) noexcept {
    std::size_t digits = 1;
    for (std::size_t size = word.size(); size >= 10; size /= 10)
        ++digits;
    return 1 + digits + 2 + word.size() + 2;
}

/// Appends a command. (What hiredis has for this prints each length with vsprintf(), which takes a
/// quarter of the time that a request costs its process.)
/// Throws: std::bad_alloc.
inline void format_command(std::span<const std::string_view> command, std::string& output) {
    std::size_t size = 16;
    for (const std::string_view word : command)
        size += word.size() + 16;
    output.reserve(output.size() + size);
    append_count('*', command.size(), output);
    for (const std::string_view word : command)
        append_word(word, output);
}

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_WIRE_FORMAT_HPP
