// SPDX-License-Identifier: MIT
//
// How a hold came from the one before it: what a lease can say of itself, and statistics count.

#ifndef CODOMYRMEX_CONCURRENCY_HAND_OVER_HPP
#define CODOMYRMEX_CONCURRENCY_HAND_OVER_HPP

#include <cstdint>

namespace codomyrmex::concurrency {

/// How a hold was obtained.
enum class HandOver : std::uint8_t {
    none,    ///< it was free, or found free by asking again
    local,   ///< another thread of this process passed it on
    remote,  ///< another process' release passed it on
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_HAND_OVER_HPP
