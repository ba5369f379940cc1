// SPDX-License-Identifier: MIT
//
// A local semaphore sleeps on what threads can sleep on.

#include <codomyrmex/concurrency/local_semaphore.hpp>

#ifdef REFUSED
using Subject = int;
#else
using Subject = codomyrmex::concurrency::ConditionVariableBed;
#endif

codomyrmex::concurrency::BasicLocalSemaphore<Subject> subject{1};
