// SPDX-License-Identifier: MIT
//
// Catch2, whichever the system has: 2.13 (Debian 12) or 3 (Ubuntu 24.04, Debian 13). Tests include
// it from here only. Where 2 and 3 differ, the names of 3 are given to 2.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_CATCH2_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_CATCH2_HPP

#if __has_include(<catch2/catch_test_macros.hpp>)

#include <catch2/catch_approx.hpp>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/catch_tostring.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_adapters.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_predicate.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

// Catch2 has SKIP from 3.3 on.
#ifndef SKIP
#define CODOMYRMEX_CONCURRENCY_TESTS_NEED_SKIP
#endif

#else

#include <catch2/catch.hpp>

#include <string>

#define CODOMYRMEX_CONCURRENCY_TESTS_NEED_SKIP

namespace Catch::Matchers {

inline auto ContainsSubstring(const std::string& part,
                              CaseSensitive::Choice casing = CaseSensitive::Yes) {
    return Contains(part, casing);
}

}  // namespace Catch::Matchers

#endif

#ifdef CODOMYRMEX_CONCURRENCY_TESTS_NEED_SKIP
// Says why and leaves the test; to be used in the body of a test case only. Takes what INFO takes.
#define SKIP(...)                      \
    do {                               \
        WARN("skipped: " __VA_ARGS__); \
        return;                        \
    } while (false)
#endif

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_CATCH2_HPP
