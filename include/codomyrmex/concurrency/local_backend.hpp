// SPDX-License-Identifier: MIT
//
// The backend of a LockManager whose locks are for the threads of one process. It is the default,
// so its name is seldom written.

#ifndef CODOMYRMEX_CONCURRENCY_LOCAL_BACKEND_HPP
#define CODOMYRMEX_CONCURRENCY_LOCAL_BACKEND_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/local_lock.hpp>
#include <codomyrmex/concurrency/local_semaphore.hpp>
#include <codomyrmex/concurrency/read_write_lock.hpp>
#include <codomyrmex/concurrency/word_mutex.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace codomyrmex::concurrency {

/// Makes local primitives. It has no state: locks exclude each other because the manager makes one
/// a name, so two managers with this backend have nothing in common.
struct LocalBackend {
    // There may be very many of them, so each is small.
    using lock_type = BasicLocalLock<WordMutex>;
    using read_write_type = TimedReadWriteLock;
    using semaphore_type = LocalSemaphore;

    [[nodiscard]] lock_type make_lock(std::string_view name) const {
        return lock_type{std::string{name}};
    }

    [[nodiscard]] read_write_type make_read_write(std::string_view) const { return {}; }

    /// Throws: LockError(invalid_argument) if `permits` is under 1.
    [[nodiscard]] semaphore_type make_semaphore(std::string_view, std::ptrdiff_t permits) const {
        return semaphore_type{permits};
    }
};

static_assert(Backend<LocalBackend>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_LOCAL_BACKEND_HPP
