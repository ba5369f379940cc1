// SPDX-License-Identifier: MIT
//
// The second translation unit.

#include "both.hpp"

const std::error_category& category_seen_by_the_other() noexcept {
    return codomyrmex::concurrency::lock_category();
}

const codomyrmex::concurrency::Version& version_seen_by_the_other() noexcept {
    return codomyrmex::concurrency::version;
}
