// SPDX-License-Identifier: MIT
//
// The registry refuses what makes no locks.

#include <codomyrmex/concurrency/local_backend.hpp>
#include <codomyrmex/concurrency/lock_manager.hpp>

#include <mutex>

struct MakesNothing {
    using lock_type = std::timed_mutex;
};

#ifdef REFUSED
using Subject = MakesNothing;
#else
using Subject = codomyrmex::concurrency::LocalBackend;
#endif

void use(codomyrmex::concurrency::LockManager<Subject>& subject);
void call(codomyrmex::concurrency::LockManager<Subject>& subject) {
    use(subject);
}
