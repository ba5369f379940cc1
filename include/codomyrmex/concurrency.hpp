// SPDX-License-Identifier: MIT
//
// The local half: locks, semaphores and read-write locks for the threads of one process, and the
// registry that makes them by name. Needs nothing but the standard library. The locks over Redis
// are in <codomyrmex/concurrency/redis.hpp>.

#ifndef CODOMYRMEX_CONCURRENCY_HPP
#define CODOMYRMEX_CONCURRENCY_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/hand_over.hpp>
#include <codomyrmex/concurrency/histogram.hpp>
#include <codomyrmex/concurrency/local_backend.hpp>
#include <codomyrmex/concurrency/local_lock.hpp>
#include <codomyrmex/concurrency/local_semaphore.hpp>
#include <codomyrmex/concurrency/lock_guards.hpp>
#include <codomyrmex/concurrency/lock_manager.hpp>
#include <codomyrmex/concurrency/lock_manager_types.hpp>
#include <codomyrmex/concurrency/on_error.hpp>
#include <codomyrmex/concurrency/permit.hpp>
#include <codomyrmex/concurrency/prometheus.hpp>
#include <codomyrmex/concurrency/read_write_lock.hpp>
#include <codomyrmex/concurrency/recursive.hpp>
#include <codomyrmex/concurrency/scalable_shared_mutex.hpp>
#include <codomyrmex/concurrency/semaphore_bed.hpp>
#include <codomyrmex/concurrency/version.hpp>
#include <codomyrmex/concurrency/word_mutex.hpp>

#endif  // CODOMYRMEX_CONCURRENCY_HPP
