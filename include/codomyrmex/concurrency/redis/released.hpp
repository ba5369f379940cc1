// SPDX-License-Identifier: MIT
//
// What came of giving a lease back, as a client tells it to its locks.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_RELEASED_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_RELEASED_HPP

#include <codomyrmex/concurrency/error.hpp>

#include <cstdint>
#include <system_error>

namespace codomyrmex::concurrency::redis {

/// What came of giving a lock back.
enum class Released : std::uint8_t { ours, lost, unknown };

/// The error that unlock() leaves; none if it was ours.
[[nodiscard]] inline std::error_code error_of(Released released) noexcept {
    switch (released) {
        case Released::ours:
            break;
        case Released::lost:
            return LockErrc::lease_lost;
        case Released::unknown:
            return LockErrc::unknown_outcome;
    }
    return {};
}

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_RELEASED_HPP
