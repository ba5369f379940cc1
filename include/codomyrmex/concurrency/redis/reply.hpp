// SPDX-License-Identifier: MIT
//
// A reply of a Redis server as a value of our own, so that nothing above connection.hpp knows
// hiredis. What an error reply means is server_error.hpp's subject.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_REPLY_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_REPLY_HPP

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// One reply. Only the member that `type` names has a meaning.
struct Reply {
    enum class Type : std::uint8_t { nil, status, error, integer, string, array };

    Type type = Type::nil;
    std::int64_t integer = 0;
    std::string text{};  ///< of a status, an error or a string
    std::vector<Reply> elements{};

    [[nodiscard]] bool is_error() const noexcept { return type == Type::error; }

    /// The integer, if it is one.
    [[nodiscard]] std::optional<std::int64_t> as_integer() const noexcept {
        if (type != Type::integer) return std::nullopt;
        return integer;
    }

    /// The bytes of a string or a status, if it is one.
    [[nodiscard]] std::optional<std::string_view> as_text() const noexcept {
        if (type != Type::string && type != Type::status) return std::nullopt;
        return std::string_view{text};
    }

    /// A word for people: "an array of 3", "the error 'LOADING ...'".
    [[nodiscard]] std::string describe() const {
        switch (type) {
            case Type::nil:
                return "nil";
            case Type::status:
                return "the status '" + text + "'";
            case Type::error:
                return "the error '" + text + "'";
            case Type::integer:
                return "the integer " + std::to_string(integer);
            case Type::string:
                return "a string of " + std::to_string(text.size()) + " bytes";
            case Type::array:
                return "an array of " + std::to_string(elements.size());
        }
        return "nothing";
    }
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_REPLY_HPP
