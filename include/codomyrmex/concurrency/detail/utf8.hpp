// SPDX-License-Identifier: MIT
//
// Names may have any bytes; texts that others read must be UTF-8.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_UTF8_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_UTF8_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace codomyrmex::concurrency::detail {

/// How many bytes the character has that `text` begins with; 0 if it begins with none.
[[nodiscard]] constexpr std::size_t utf8_character(std::string_view text) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
    if (text.empty()) return 0;
    const std::uint8_t first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || text.size() < size) return 0;
    for (std::size_t i = 1; i < size; ++i) {
        if ((byte(i) & 0xc0U) != 0x80) return 0;
    }
    // Written longer than need be, halves of pairs, beyond the last one.
    const std::uint8_t second = byte(1);
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
        (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) {
        return 0;
    }
    return size;
}

/// `text` as it is if it is UTF-8; else with each byte that is none written as \xNN.
[[nodiscard]] inline std::string utf8_or_escaped(std::string_view text) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string clean;
    clean.reserve(text.size());
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t size = utf8_character(text.substr(i));
        if (size != 0) {
            clean += text.substr(i, size);
            i += size;
            continue;
        }
        const auto byte = static_cast<std::uint8_t>(text[i++]);
        clean += "\\x";
        clean += digits[byte >> 4U];
        clean += digits[byte & 0xfU];
    }
    return clean;
}

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_UTF8_HPP
