// SPDX-License-Identifier: MIT
//
// A read-write lock over a shared mutex without deadlines has none either.

#include <codomyrmex/concurrency/read_write_lock.hpp>

#include <chrono>
#include <shared_mutex>

#ifdef REFUSED
using Subject = std::shared_mutex;
#else
using Subject = std::shared_timed_mutex;
#endif

bool try_for_a_second(codomyrmex::concurrency::BasicReadWriteLock<Subject>& subject) {
    return static_cast<bool>(subject.try_read_for(std::chrono::seconds{1}));
}
