// SPDX-License-Identifier: MIT
//
// Who the calling thread is, in a way that tells it from a thread that ended. Not for users; the
// owner of a Recursive is recorded so.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_THREAD_IDENTITY_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_THREAD_IDENTITY_HPP

#include <thread>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace codomyrmex::concurrency::detail {

/// The number the kernel gave to the calling thread; 0 where we do not know how to ask.
[[nodiscard]] inline long kernel_thread_id() noexcept {
#if defined(__linux__)
    // Remembered, for it costs a system call. A child process made by fork() inherits the memory of
    // the one thread it has, so that thread goes on owning what it owned.
    static thread_local const long id = ::syscall(SYS_gettid);
    return id;
#else
    return 0;
#endif
}

/// Two numbers. A std::thread::id is used again for a new thread, soon after the thread that had it
/// has ended; the kernel's number only after it has counted through all others. Unlike the address
/// of a thread_local, or a counter of ours, the kernel's number is the same in every shared library
/// that asks.
struct ThreadIdentity {
    std::thread::id id;
    long kernel_id = 0;

    [[nodiscard]] static ThreadIdentity of_this_thread() noexcept {
        return {std::this_thread::get_id(), kernel_thread_id()};
    }

    friend bool operator==(const ThreadIdentity&, const ThreadIdentity&) noexcept = default;
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_THREAD_IDENTITY_HPP
