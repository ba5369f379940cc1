// SPDX-License-Identifier: MIT
//
// Commands in the server's wire format: an array of strings of any bytes, each with its length in
// front.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_WIRE_FORMAT_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_WIRE_FORMAT_HPP

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace codomyrmex::concurrency::detail {

/// How many bytes append_count() appends.
[[nodiscard]] constexpr std::size_t size_of_count(std::size_t count) noexcept {
    std::size_t digits = 1;
    for (; count >= 10; count /= 10)
        ++digits;
    return 1 + digits + 2;
}

/// How many bytes append_word() appends.
[[nodiscard]] constexpr std::size_t encoded_size(std::string_view word) noexcept {
    return size_of_count(word.size()) + word.size() + 2;
}

/// Writes the beginning of an array of `count` words, `kind` being '*', or of a word of `count`
/// bytes, `kind` being '$'. Requires: there is room. Returns: where it ends.
inline char* put_count(char kind, std::size_t count, char* to) noexcept {
    char* const end = to + size_of_count(count);
    *to++ = kind;
    to = std::to_chars(to, end, count).ptr;
    *to++ = '\r';
    *to++ = '\n';
    return to;
}

/// Writes a word. Requires, returns: as put_count().
inline char* put_word(std::string_view word, char* to) noexcept {
    to = put_count('$', word.size(), to);
    to = std::copy(word.begin(), word.end(), to);
    *to++ = '\r';
    *to++ = '\n';
    return to;
}

/// As put_count(). Throws: std::bad_alloc.
inline void append_count(char kind, std::size_t count, std::string& output) {
    const std::size_t before = output.size();
    output.resize(before + size_of_count(count));
    put_count(kind, count, output.data() + before);
}

/// As put_word(). Throws: std::bad_alloc.
inline void append_word(std::string_view word, std::string& output) {
    const std::size_t before = output.size();
    output.resize(before + encoded_size(word));
    put_word(word, output.data() + before);
}

/// Appends a command. (What hiredis has for this prints each length with vsprintf(), which takes a
/// quarter of the time that a request costs its process.)
/// Throws: std::bad_alloc.
inline void format_command(std::span<const std::string_view> command, std::string& output) {
    const std::size_t before = output.size();
    std::size_t size = size_of_count(command.size());
    for (const std::string_view word : command)
        size += encoded_size(word);
    output.resize(before + size);
    char* end = put_count('*', command.size(), output.data() + before);
    for (const std::string_view word : command)
        end = put_word(word, end);
}

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_WIRE_FORMAT_HPP
