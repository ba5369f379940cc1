// SPDX-License-Identifier: MIT
//
// The version of the library, for the preprocessor and for programs. CMake reads it from here, so
// that it is written once. Nothing to use from it unless you support several versions at a time.

#ifndef CODOMYRMEX_CONCURRENCY_VERSION_HPP
#define CODOMYRMEX_CONCURRENCY_VERSION_HPP

#define CODOMYRMEX_CONCURRENCY_VERSION_MAJOR 0
#define CODOMYRMEX_CONCURRENCY_VERSION_MINOR 1
#define CODOMYRMEX_CONCURRENCY_VERSION_PATCH 0

/// One number that grows with each version: 10000 * major + 100 * minor + patch.
#define CODOMYRMEX_CONCURRENCY_VERSION                                                           \
    (CODOMYRMEX_CONCURRENCY_VERSION_MAJOR * 10000 + CODOMYRMEX_CONCURRENCY_VERSION_MINOR * 100 + \
     CODOMYRMEX_CONCURRENCY_VERSION_PATCH)

namespace codomyrmex::concurrency {

/// The three parts of the version this program was compiled with.
struct Version {
    int major_number = CODOMYRMEX_CONCURRENCY_VERSION_MAJOR;
    int minor_number = CODOMYRMEX_CONCURRENCY_VERSION_MINOR;
    int patch_number = CODOMYRMEX_CONCURRENCY_VERSION_PATCH;
};

/// The version this program was compiled with.
inline constexpr Version version{};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_VERSION_HPP
