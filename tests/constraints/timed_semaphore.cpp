// SPDX-License-Identifier: MIT
//
// A permit of a semaphore without deadlines has none either.

#include <codomyrmex/concurrency/permit.hpp>

#include <chrono>
#include <semaphore>

struct NoDeadlines {
    void acquire();
    bool try_acquire();
    void release();
};

#ifdef REFUSED
using Subject = NoDeadlines;
#else
using Subject = std::counting_semaphore<>;
#endif

bool try_for_a_second(Subject& subject) {
    return static_cast<bool>(
        codomyrmex::concurrency::Permit<Subject>{subject, std::chrono::seconds{1}});
}
