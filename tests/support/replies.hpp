// SPDX-License-Identifier: MIT
//
// Replies of a server, made without one.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_REPLIES_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_REPLIES_HPP

#include <codomyrmex/concurrency/redis/reply.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace test_support::replies {

using codomyrmex::concurrency::redis::Reply;

inline Reply status(std::string_view bytes) {
    return {Reply::Type::status, 0, std::string{bytes}};
}
inline Reply error(std::string_view bytes) {
    return {Reply::Type::error, 0, std::string{bytes}};
}
inline Reply text(std::string_view bytes) {
    return {Reply::Type::string, 0, std::string{bytes}};
}
inline Reply number(std::int64_t value) {
    return {Reply::Type::integer, value};
}
inline Reply array(std::vector<Reply> elements) {
    return {Reply::Type::array, 0, {}, std::move(elements)};
}

}  // namespace test_support::replies

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_REPLIES_HPP
