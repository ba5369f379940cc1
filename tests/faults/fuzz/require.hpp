// SPDX-License-Identifier: MIT
//
// What a fuzz target holds true: unlike assert() it is there in every build, and it ends in a way
// that libFuzzer sees.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_FUZZ_REQUIRE_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_FUZZ_REQUIRE_HPP

#include <cstdio>
#include <cstdlib>

namespace fuzz {

inline void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "does not hold: %s\n", what);
    std::abort();
}

}  // namespace fuzz

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_FUZZ_REQUIRE_HPP
