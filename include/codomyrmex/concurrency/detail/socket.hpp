// SPDX-License-Identifier: MIT
//
// A stream socket with absolute deadlines: POSIX behind one owner type. Waiting is polling
// (socket_wait.hpp), but for a receive with much time left: that sleeps in recv() itself, in
// slices, which saves a system call for each reply.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_SOCKET_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_SOCKET_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/resolution.hpp>
#include <codomyrmex/concurrency/detail/socket_wait.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/un.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

namespace codomyrmex::concurrency::detail {

/// Where to connect to.
struct SocketAddress {
    bool unix_socket = false;
    std::string host{};
    std::uint16_t port = 0;
    std::string path{};
};

/// A socket, connected or closed. Neither copies nor moves; not thread-safe.
class Socket {
  public:
    Socket() = default;
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    ~Socket() { close(); }

    [[nodiscard]] bool is_open() const noexcept { return file_ >= 0; }

    /// Why the last operation failed or ended early.
    [[nodiscard]] const std::string& error() const noexcept { return error_; }

    /// Makes close() throw away what the system has not sent yet, instead of sending it still.
    void discard_unsent() const noexcept {
        const linger at_once{1, 0};
        if (file_ >= 0) ::setsockopt(file_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }

    void close() noexcept {
        if (file_ >= 0) ::close(std::exchange(file_, -1));
    }

    /// Connects to the first address that answers.
    template <class Tick>
    [[nodiscard]] SocketResult connect(const SocketAddress& address, Deadline deadline,
                                       Tick& tick) {
        close();
        error_.clear();
        if (address.unix_socket) return connect_unix(address.path, deadline, tick);
        AddressList list;
        const SocketResult resolved = Resolution::resolve(resolution_, address.host, address.port,
                                                          deadline, tick, list, error_);
        if (resolved != SocketResult::done) return resolved;
        std::int64_t addresses = 0;
        for (const addrinfo* each = list.get(); each != nullptr; each = each->ai_next)
            ++addresses;
        SocketResult result = SocketResult::failed;
        for (const addrinfo* each = list.get(); each != nullptr; each = each->ai_next) {
            // Each its share of the time: one that swallows packets must not use it up.
            const Deadline share =
                std::min(deadline, Deadline::after(deadline.remaining() / addresses--));
            result = connect_to(each->ai_family, each->ai_addr, each->ai_addrlen, share, tick);
            if (result == SocketResult::done) {
                const int on = 1;
                ::setsockopt(file_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                ::setsockopt(file_, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
            }
            if (result == SocketResult::done || result == SocketResult::stopped) break;
        }
        return result;
    }

    /// Whether the peer is there and has sent nothing that was not received.
    [[nodiscard]] bool is_quiet() const noexcept {
        char byte = 0;
        return ::recv(file_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && would_block(errno);
    }

    /// Sends all of `bytes`.
    template <class Tick>
    [[nodiscard]] SocketResult send_all(std::string_view bytes, Deadline deadline, Tick& tick) {
        while (!bytes.empty()) {
            const ssize_t sent = ::send(file_, bytes.data(), bytes.size(), send_flags);
            if (sent > 0) {
                bytes.remove_prefix(static_cast<std::size_t>(sent));
            } else if (sent < 0 && would_block(errno)) {
                const SocketResult ready = wait_for(file_, POLLOUT, deadline, tick);
                if (ready != SocketResult::done) return ready;
            } else if (sent < 0 && errno != EINTR) {
                return fail(errno);
            }
        }
        return SocketResult::done;
    }

    /// Sends as much of `bytes` as the system takes at once. Returns: done with `sent` set, perhaps
    /// to 0; failed without error(), for this may be called beside a receive on another thread.
    [[nodiscard]] SocketResult send_some(std::string_view bytes, std::size_t& sent,
                                         int& code) const noexcept {
        sent = 0;
        while (sent < bytes.size()) {
            const ssize_t count =
                ::send(file_, bytes.data() + sent, bytes.size() - sent, send_flags);
            if (count > 0) {
                sent += static_cast<std::size_t>(count);
            } else if (count < 0 && would_block(errno)) {
                break;
            } else if (count < 0 && errno != EINTR) {
                code = errno;
                return SocketResult::failed;
            }
        }
        return SocketResult::done;
    }

    /// Waits until there are bytes, or, if `sending`, room for some. Returns: done, timeout, or
    /// stopped.
    template <class Tick>
    [[nodiscard]] SocketResult wait(bool sending, Deadline deadline, Tick& tick) const {
        const short events = sending ? static_cast<short>(POLLIN | POLLOUT) : POLLIN;
        return wait_for(file_, events, deadline, tick);
    }

    /// The number of the open file; -1 if closed.
    [[nodiscard]] int descriptor() const noexcept { return file_; }

    /// Waits for bytes and hands what came to `take(data, size)`, once.
    template <class Take, class Tick>
    [[nodiscard]] SocketResult receive_some(Take take, Deadline deadline, Tick& tick) {
        for (;;) {
            const SocketResult ready = wait_for(file_, POLLIN, deadline, tick);
            if (ready != SocketResult::done) return ready;
            const SocketResult got = receive_now(take);
            if (got != SocketResult::timeout) return got;
        }
    }

    /// The same in one system call, where the deadline is far and there is no tick.
    template <class Take, class Tick>
    [[nodiscard]] SocketResult receive_soon(Take take, Deadline deadline, Tick& tick) {
        if constexpr (std::is_same_v<Tick, NoTick>) {
            // With some to spare, for the system may sleep a tick or two longer.
            while (deadline.remaining() > receive_slice + std::chrono::milliseconds{10}) {
                const SocketResult got = receive(take, 0);
                if (got != SocketResult::timeout) return got;
            }
        }
        return receive_some(take, deadline, tick);
    }

    /// Hands what is there to `take(data, size)`, once. Returns: timeout if nothing is there.
    template <class Take>
    [[nodiscard]] SocketResult receive_now(Take take) {
        return receive(take, MSG_DONTWAIT);
    }

  private:
#if defined(MSG_NOSIGNAL)
    // A write to a closed peer must not kill the process.
    static constexpr int send_flags = MSG_NOSIGNAL | MSG_DONTWAIT;
#else
    static constexpr int send_flags = MSG_DONTWAIT;
#endif

    // How long a recv() sleeps at most.
    static constexpr std::chrono::milliseconds receive_slice{50};

    template <class Take>
    [[nodiscard]] SocketResult receive(Take& take, int flags) {
        // Not initialised: recv() fills what is used.
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init)
        std::array<char, 16384> buffer;
        ssize_t got = 0;
        do {
            got = ::recv(file_, buffer.data(), buffer.size(), flags);
            // One that sleeps has a deadline to look at first.
        } while (got < 0 && errno == EINTR && flags != 0);
        if (got > 0) {
            take(buffer.data(), static_cast<std::size_t>(got));
            return SocketResult::done;
        }
        if (got < 0 && (would_block(errno) || errno == EINTR)) return SocketResult::timeout;
        if (got < 0) return fail(errno);
        error_ = "the server closed the connection";
        return SocketResult::failed;
    }

    [[nodiscard]] static bool would_block(int code) noexcept {
        return code == EAGAIN || code == EWOULDBLOCK;
    }

    SocketResult fail(int code) {
        error_ = std::generic_category().message(code);
        return SocketResult::failed;
    }

    [[nodiscard]] bool create(int family) {
#if defined(SOCK_CLOEXEC)
        file_ = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
#else
        file_ = ::socket(family, SOCK_STREAM, 0);
#endif
        if (file_ < 0) return false;
        ::fcntl(file_, F_SETFD, FD_CLOEXEC);
        ::fcntl(file_, F_SETFL, ::fcntl(file_, F_GETFL) | O_NONBLOCK);
#if defined(SO_NOSIGPIPE)
        const int on = 1;
        ::setsockopt(file_, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
        return true;
    }

    template <class Tick>
    [[nodiscard]] SocketResult connect_unix(const std::string& path, Deadline deadline,
                                            Tick& tick) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path.size() >= sizeof address.sun_path) {
            error_ = "the socket's path is longer than this system allows: " + path;
            return SocketResult::failed;
        }
        std::memcpy(address.sun_path, path.data(), path.size());
        const SocketResult result = connect_to(AF_UNIX, reinterpret_cast<const sockaddr*>(&address),
                                               sizeof address, deadline, tick);
        // So that thousands of renewals go in few writes, as TCP's own room allows. Less is no
        // failure.
        const int room = 512 * 1024;
        if (is_open()) ::setsockopt(file_, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
        return result;
    }

    template <class Tick>
    [[nodiscard]] SocketResult connect_to(int family, const sockaddr* address, socklen_t size,
                                          Deadline deadline, Tick& tick) {
        close();
        if (!create(family)) return fail(errno);
        for (;;) {
            if (::connect(file_, address, size) == 0) return connected();
            if (errno == EINTR) continue;
            if (errno == EINPROGRESS || errno == EALREADY) break;
            if (errno == EISCONN) return connected();
            if (!would_block(errno)) return fail_closed(errno);
            // A unix socket whose queue is full: nothing to poll for, so look again soon.
            if (deadline.expired()) return late();
            if (!keep_going(tick)) return SocketResult::stopped;
            std::this_thread::sleep_for(std::chrono::milliseconds{1});
        }
        const SocketResult ready = wait_for(file_, POLLOUT, deadline, tick);
        if (ready == SocketResult::timeout) return late();
        if (ready != SocketResult::done) {
            close();
            return ready;
        }
        int code = 0;
        socklen_t length = sizeof code;
        if (::getsockopt(file_, SOL_SOCKET, SO_ERROR, &code, &length) != 0) code = errno;
        return code == 0 ? connected() : fail_closed(code);
    }

    // From here on who must not sleep says so with each call.
    SocketResult connected() {
        const timeval slice{
            0, static_cast<suseconds_t>(std::chrono::microseconds{receive_slice}.count())};
        const int flags = ::fcntl(file_, F_GETFL);
        if (::setsockopt(file_, SOL_SOCKET, SO_RCVTIMEO, &slice, sizeof slice) != 0 || flags < 0 ||
            ::fcntl(file_, F_SETFL, flags & ~O_NONBLOCK) != 0) {
            return fail_closed(errno);
        }
        return SocketResult::done;
    }

    SocketResult fail_closed(int code) {
        close();
        return fail(code);
    }

    SocketResult late() {
        close();
        error_ = "no connection in time";
        return SocketResult::timeout;
    }

    int file_ = -1;
    std::string error_;
    std::shared_ptr<Resolution> resolution_;
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_SOCKET_HPP
