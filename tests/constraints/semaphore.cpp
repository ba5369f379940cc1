// SPDX-License-Identifier: MIT
//
// A permit is of what can be acquired, tried and released.

#include <codomyrmex/concurrency/permit.hpp>

#include <semaphore>

struct NoRelease {
    void acquire();
    bool try_acquire();
};

#ifdef REFUSED
using Subject = NoRelease;
#else
using Subject = std::counting_semaphore<>;
#endif

using Result = codomyrmex::concurrency::Permit<Subject>;
static_assert(sizeof(Result) > 0);
