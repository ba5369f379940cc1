// SPDX-License-Identifier: MIT
//
// Recursive refuses what cannot be unlocked.

#include <codomyrmex/concurrency/recursive.hpp>

#include <mutex>

struct NoUnlock {
    void lock();
    bool try_lock();
};

#ifdef REFUSED
using Subject = NoUnlock;
#else
using Subject = std::mutex;
#endif

codomyrmex::concurrency::Recursive<Subject> subject;
