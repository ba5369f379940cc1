// SPDX-License-Identifier: MIT
//
// What is asked of the operating system outside of sockets: a clock that runs through suspend, who
// this process is, and random bits. Porting the Redis half means changing this header and
// connection.hpp.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_SYSTEM_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_SYSTEM_HPP

#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <pthread.h>
#include <random>
#include <signal.h>
#include <string>
#include <unistd.h>

namespace codomyrmex::concurrency::detail {

/// Time since boot, suspend included where the system tells (CLOCK_BOOTTIME). A lease is judged by
/// it: a machine that slept through its lease must see that it is over.
struct BootClock {
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<BootClock>;
    static constexpr bool is_steady = true;

    [[nodiscard]] static time_point now() noexcept {
#if defined(CLOCK_BOOTTIME)
        constexpr clockid_t id = CLOCK_BOOTTIME;
#else
        constexpr clockid_t id = CLOCK_MONOTONIC;
#endif
        timespec value{};
        ::clock_gettime(id, &value);
        return time_point{std::chrono::seconds{value.tv_sec} +
                          std::chrono::nanoseconds{value.tv_nsec}};
    }
};

/// The number of this process; another one in the child of a fork.
[[nodiscard]] inline std::int64_t process_id() noexcept {
    return ::getpid();
}

/// The name of this machine, for people; "unknown" if it has none.
[[nodiscard]] inline std::string host_name() {
    std::array<char, 256> buffer{};
    if (::gethostname(buffer.data(), buffer.size() - 1) != 0 || buffer.front() == '\0') {
        return "unknown";
    }
    return buffer.data();
}

/// While it lives, signals are not delivered to this thread, nor to threads that it starts: the
/// program's handlers run on the program's threads.
class SignalsBlocked {
  public:
    SignalsBlocked() noexcept {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;
    ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

  private:
    sigset_t before_{};
};

/// 128 bits from the system's generator, as 32 hexadecimal digits.
/// Throws: std::exception where the system has no generator.
[[nodiscard]] inline std::string random_hex_128() {
    constexpr const char* digits = "0123456789abcdef";
    std::random_device device;
    std::string text;
    text.reserve(32);
    for (int word = 0; word < 4; ++word) {
        std::uint32_t bits = device();
        for (int digit = 0; digit < 8; ++digit, bits >>= 4U)
            text.push_back(digits[bits & 0xFU]);
    }
    return text;
}

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_SYSTEM_HPP
