// SPDX-License-Identifier: MIT
//
// Numbers by which a test is made longer, or repeated, from outside.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_ENVIRONMENT_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_ENVIRONMENT_HPP

#include <cstdint>
#include <cstdlib>

namespace test_support {

/// The number in an environment variable; `otherwise` if that is not set.
[[nodiscard]] inline std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
    const char* const text = std::getenv(variable);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_ENVIRONMENT_HPP
