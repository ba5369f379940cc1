// SPDX-License-Identifier: MIT
//
// Waiting for a socket with an absolute deadline. Every wait goes on with what is left of it after
// a signal. A tick, if there is one, is called meanwhile and may stop the wait.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_SOCKET_WAIT_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_SOCKET_WAIT_HPP

#include <codomyrmex/concurrency/deadline.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <poll.h>
#include <type_traits>

namespace codomyrmex::concurrency::detail {

enum class SocketResult : std::uint8_t { done, timeout, stopped, failed };

/// Waits undisturbed.
struct NoTick {};

/// How often a wait with a tick calls it.
inline constexpr std::chrono::milliseconds tick_interval{10};

/// The next time to wake up on the way to `deadline`.
template <class Tick>
[[nodiscard]] Deadline next_wake(Deadline deadline) noexcept {
    if constexpr (std::is_same_v<Tick, NoTick>) {
        return deadline;
    } else {
        return std::min(deadline, Deadline::after(tick_interval));
    }
}

/// Calls the tick, if there is one. Returns: false if it asks to stop.
template <class Tick>
[[nodiscard]] bool keep_going(Tick& tick) {
    if constexpr (std::is_same_v<Tick, NoTick>) {
        return true;
    } else {
        return tick();
    }
}

/// Waits until `file` is ready for `events`, the deadline has passed, or `tick` returns false.
/// Looks at least once, though the deadline be in the past. Returns: never failed; an error of
/// the socket is left for the call that follows to meet.
template <class Tick>
[[nodiscard]] SocketResult wait_for(int file, short events, Deadline deadline, Tick& tick) {
    for (;;) {
        const Deadline wake = next_wake<Tick>(deadline);
        // Rounded up: to wake early would be to spin until the time has come.
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(wake.remaining()).count();
        const int wait = static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000));
        pollfd ready{file, events, 0};
        const int count = ::poll(&ready, 1, wait);
        if (count > 0) return SocketResult::done;
        if (count < 0 && errno != EINTR && errno != EAGAIN) return SocketResult::done;
        if (deadline.expired()) return SocketResult::timeout;
        if (!keep_going(tick)) return SocketResult::stopped;
    }
}

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_SOCKET_WAIT_HPP
