// SPDX-License-Identifier: MIT
//
// The clock of all records that processes make for a test.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_BOOT_TIME_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_BOOT_TIME_HPP

#include <cstdint>
#include <ctime>

namespace test_support {

/// Nanoseconds since boot, on a clock that all processes share and that runs through suspend.
[[nodiscard]] inline std::int64_t boot_time() {
    timespec value{};
    ::clock_gettime(CLOCK_BOOTTIME, &value);
    return std::int64_t{value.tv_sec} * 1'000'000'000 + value.tv_nsec;
}

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_BOOT_TIME_HPP
