// SPDX-License-Identifier: MIT
//
// A local lock over a mutex without deadlines has none either.

#include <codomyrmex/concurrency/local_lock.hpp>

#include <chrono>
#include <mutex>

#ifdef REFUSED
using Subject = std::mutex;
#else
using Subject = std::timed_mutex;
#endif

bool try_for_a_second(codomyrmex::concurrency::BasicLocalLock<Subject>& subject) {
    return subject.try_lock_for(std::chrono::seconds{1});
}
