// SPDX-License-Identifier: MIT
//
// Both umbrellas, and what the other translation unit sees of them.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_LINK_BOTH_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_LINK_BOTH_HPP

#include <codomyrmex/concurrency.hpp>
#ifdef WITH_REDIS
#include <codomyrmex/concurrency/redis.hpp>
#endif

#include <system_error>

const std::error_category& category_seen_by_the_other() noexcept;
const codomyrmex::concurrency::Version& version_seen_by_the_other() noexcept;

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_LINK_BOTH_HPP
