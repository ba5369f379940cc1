// SPDX-License-Identifier: MIT
//
// A program that uses the local half compiles without hiredis.

#include <codomyrmex/concurrency.hpp>

#ifdef REFUSED
#include <codomyrmex/concurrency/redis.hpp>
#endif

codomyrmex::concurrency::LockManager manager;
