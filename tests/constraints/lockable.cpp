// SPDX-License-Identifier: MIT
//
// A local lock is made of a mutex that can be tried.

#include <codomyrmex/concurrency/local_lock.hpp>

#include <mutex>

struct NoTry {
    void lock();
    void unlock();
};

#ifdef REFUSED
using Subject = NoTry;
#else
using Subject = std::mutex;
#endif

codomyrmex::concurrency::BasicLocalLock<Subject> subject;
