// SPDX-License-Identifier: MIT
//
// A read-write lock is made of a mutex that can be shared.

#include <codomyrmex/concurrency/read_write_lock.hpp>

#include <mutex>
#include <shared_mutex>

#ifdef REFUSED
using Subject = std::mutex;
#else
using Subject = std::shared_mutex;
#endif

codomyrmex::concurrency::BasicReadWriteLock<Subject> subject;
