// SPDX-License-Identifier: MIT
//
// From keys and patterns of names to names: which name a key stands for, and how to ask the server
// for keys whose names match a pattern. Pure functions. Names may have any bytes, so the pattern is
// judged here; the server only narrows down. Which keys a name has stands in identity.hpp.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_KEY_NAMES_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_KEY_NAMES_HPP

#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/holder.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// All kinds.
inline constexpr std::array kinds{PrimitiveKind::lock, PrimitiveKind::semaphore,
                                  PrimitiveKind::read_write, PrimitiveKind::quorum};

/// encode_name() backwards. Returns: nothing for what that does not write.
[[nodiscard]] inline std::optional<std::string> decode_name(std::string_view text) {
    std::string name;
    name.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '{' || text[i] == '}') return std::nullopt;
        if (text[i] != '%') {
            name += text[i];
            continue;
        }
        const std::string_view code = text.substr(i + 1, 2);
        if (code != "7B" && code != "7D" && code != "25") return std::nullopt;
        name += code == "7B" ? '{' : code == "7D" ? '}' : '%';
        i += 2;
    }
    if (name.empty() || name.size() > 512) return std::nullopt;
    return name;
}

/// What a key under `prefix` stands for. Returns: nothing for queues, fences and strangers.
[[nodiscard]] inline std::optional<std::pair<PrimitiveKind, std::string>> name_of_key(
    std::string_view prefix, std::string_view key) {
    if (!key.starts_with(prefix) || !key.ends_with('}')) return std::nullopt;
    key.remove_prefix(prefix.size());
    for (const PrimitiveKind kind : kinds) {
        const std::string_view word = key_word(kind);
        if (!key.starts_with(word)) continue;
        key.remove_prefix(word.size());
        if (key.size() < 2 || key.front() != '{') return std::nullopt;
        auto name = decode_name(key.substr(1, key.size() - 2));
        if (!name) return std::nullopt;
        return std::pair{kind, *std::move(name)};
    }
    return std::nullopt;
}

/// A pattern of names, as Redis has them: `*` any bytes, `?` one byte, `[abc]`, `[a-z]`, `[^a]` one
/// of a set or not, `\x` the byte x itself.
class NamePattern {
  public:
    /// Throws: LockError(invalid_argument) for more than 1,024 bytes, an unclosed `[`, a `\` at the
    /// end.
    explicit NamePattern(std::string_view pattern) : pattern_{pattern} {
        if (pattern.size() > 1024) {
            throw LockError(LockErrc::invalid_argument,
                            "a pattern of names must have at most 1,024 bytes, not " +
                                std::to_string(pattern.size()));
        }
        for (std::size_t at = 0; at < pattern_.size();)
            at = end_of_part(at);
    }

    /// Whether the whole name matches. Cost: the product of both lengths at most, whatever the
    /// pattern is.
    [[nodiscard]] bool matches(std::string_view name) const {
        std::size_t at = 0;
        std::size_t byte = 0;
        // Where to go on when it fails: behind the last star, which takes one byte more.
        std::size_t star = std::string::npos;
        std::size_t taken = 0;
        while (byte < name.size()) {
            if (at < pattern_.size() && pattern_[at] == '*') {
                star = ++at;
                taken = byte;
            } else if (at < pattern_.size() && part_takes(at, name[byte])) {
                at = end_of_part(at);
                ++byte;
            } else if (star != std::string::npos) {
                at = star;
                byte = ++taken;
            } else {
                return false;
            }
        }
        while (at < pattern_.size() && pattern_[at] == '*')
            ++at;
        return at == pattern_.size();
    }

    /// The pattern of keys to ask the server for: all that match are among those, and few others.
    /// What stands for one byte of a name may be three of a key, so it becomes a star.
    [[nodiscard]] std::string of_keys(std::string_view prefix) const {
        std::string keys;
        for (const char byte : prefix)
            add_literal(keys, byte);
        keys += "*:{";
        for (std::size_t at = 0; at < pattern_.size(); at = end_of_part(at)) {
            const char first = pattern_[at];
            if (first == '*' || first == '?' || first == '[') {
                if (!keys.ends_with('*')) keys += '*';
            } else {
                for (const char byte :
                     encode_name({&pattern_[first == '\\' ? at + 1 : at], std::size_t{1}})) {
                    add_literal(keys, byte);
                }
            }
        }
        keys += '}';
        return keys;
    }

  private:
    static void add_literal(std::string& keys, char byte) {
        if (std::string_view{"*?[]^-\\"}.find(byte) != std::string_view::npos) keys += '\\';
        keys += byte;
    }

    [[nodiscard]] std::size_t end_of_part(std::size_t at) const {
        const auto broken = [this](const char* why) {
            return LockError(LockErrc::invalid_argument,
                             "the pattern '" + pattern_ + "' has " + why);
        };
        if (pattern_[at] == '\\') {
            if (at + 1 == pattern_.size()) throw broken("a \\ at its end");
            return at + 2;
        }
        if (pattern_[at] != '[') return at + 1;
        ++at;
        if (at < pattern_.size() && pattern_[at] == '^') ++at;
        while (at < pattern_.size() && pattern_[at] != ']')
            at += pattern_[at] == '\\' ? 2U : 1U;
        if (at >= pattern_.size()) throw broken("a [ without its ]");
        return at + 1;
    }

    // Requires: no star stands at `at`.
    [[nodiscard]] bool part_takes(std::size_t at, char byte) const {
        const char first = pattern_[at];
        if (first == '?') return true;
        if (first == '\\') return pattern_[at + 1] == byte;
        if (first != '[') return first == byte;
        const std::size_t end = end_of_part(at) - 1;
        ++at;
        const bool negated = pattern_[at] == '^';
        if (negated) ++at;
        bool found = false;
        while (at < end) {
            const unsigned char low = literal(at);
            unsigned char high = low;
            if (at + 1 < end && pattern_[at] == '-') {
                ++at;
                high = literal(at);
            }
            const auto value = static_cast<unsigned char>(byte);
            found = found || (value >= std::min(low, high) && value <= std::max(low, high));
        }
        return found != negated;
    }

    [[nodiscard]] unsigned char literal(std::size_t& at) const {
        if (pattern_[at] == '\\') ++at;
        return static_cast<unsigned char>(pattern_[at++]);
    }

    const std::string pattern_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_KEY_NAMES_HPP
