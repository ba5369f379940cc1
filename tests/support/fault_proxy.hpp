// SPDX-License-Identifier: MIT
//
// A proxy between a client under test and a Redis server, in this process on a thread of its own,
// that does to their conversation what networks and servers do on bad days: it delays, drips, holds
// back, answers nothing, refuses, cuts, loses a reply after its request was executed, and puts
// words into the server's mouth. It reads whole requests and replies (RESP2), so that a fault hits
// exactly the request that a test names. Every change is in force when the call that makes it
// returns.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAULT_PROXY_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAULT_PROXY_HPP

#include "support/process.hpp"
#include "support/temp_dir.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <list>
#include <mutex>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <utility>
#include <vector>

namespace test_support {

/// The length of the first whole RESP value (request or reply) in `bytes`; 0 if more must come.
inline std::size_t resp_length(std::string_view bytes) {
    const auto line_end = bytes.find("\r\n");
    if (line_end == std::string_view::npos) return 0;
    std::size_t size = line_end + 2;
    if (bytes[0] != '$' && bytes[0] != '*') return size;  // Status, error, integer, inline command.
    const long long count = std::atoll(std::string{bytes.substr(1, line_end - 1)}.c_str());
    if (count < 0) return size;
    if (bytes[0] == '$') {
        size += static_cast<std::size_t>(count) + 2;
        return size <= bytes.size() ? size : 0;
    }
    for (long long i = 0; i < count; ++i) {
        const std::size_t element = resp_length(bytes.substr(size));
        if (element == 0) return 0;
        size += element;
    }
    return size;
}

/// What to do with certain requests: an action, and the requests that it is for. Without on(),
/// after() and times() that is the next request of whatever connection.
///
///     proxy.add(Fault::lose_reply().on("EVALSHA"));            // the next with these bytes in it
///     proxy.add(Fault::reply("-LOADING x\r\n").after(2).times(3));    // the 3rd, 4th and 5th
class Fault {
  public:
    /// The request is not forwarded; `bytes` are the answer (none at all if empty).
    static Fault reply(std::string bytes) { return {Action::reply, std::move(bytes)}; }
    /// The request is forwarded; `bytes` take the place of the server's reply.
    static Fault replace_reply(std::string bytes) { return {Action::replace, std::move(bytes)}; }
    /// `bytes` follow the server's reply.
    static Fault append(std::string bytes) { return {Action::append, std::move(bytes)}; }
    /// The connection is cut; the request is not forwarded.
    static Fault cut() { return {Action::cut, {}}; }
    /// The request is forwarded; when its reply comes, the connection is cut instead.
    static Fault lose_reply() { return {Action::lose_reply, {}}; }
    /// The request, and what follows on its connection, is kept until release(); it is forwarded
    /// then even if the client has gone: a command that runs after its sender gave up.
    static Fault hold_request() { return {Action::hold_request, {}}; }
    /// The request is forwarded; its reply, and what follows it, is kept until release().
    static Fault hold_reply() { return {Action::hold_reply, {}}; }

    /// Only requests whose bytes contain `text`.
    Fault on(std::string text) && {
        text_ = std::move(text);
        return std::move(*this);
    }
    /// Let the first `count` of them pass.
    Fault after(std::size_t count) && {
        after_ = count;
        return std::move(*this);
    }
    /// Hit `count` of them, not just one.
    Fault times(std::size_t count) && {
        times_ = count;
        return std::move(*this);
    }
    /// Hit all of them from then on.
    Fault always() && { return std::move(*this).times(SIZE_MAX); }

  private:
    friend class FaultProxy;
    enum class Action { none, reply, replace, append, cut, lose_reply, hold_request, hold_reply };

    Fault(Action action, std::string bytes) : action_{action}, bytes_{std::move(bytes)} {}

    /// Counts the request if it is meant; returns whether to act on it.
    bool hits(std::string_view request) {
        if (request.find(text_) == std::string_view::npos) return false;
        if (seen_++ < after_ || hits_ >= times_) return false;
        ++hits_;
        return true;
    }

    Action action_;
    std::string bytes_;
    std::string text_;
    std::size_t after_ = 0;
    std::size_t times_ = 1;
    std::size_t seen_ = 0;
    std::size_t hits_ = 0;
};

/// The proxy. Threads: every member may be called from any thread.
class FaultProxy {
  public:
    using nanoseconds = std::chrono::nanoseconds;

    enum class Listen { unix_socket, tcp };

    /// What is done to all connections.
    enum class Mode {
        forward,     ///< Pass on, with whatever faults were added.
        black_hole,  ///< Accept, and neither read nor answer. What came meanwhile is not lost.
        cut,         ///< Accept and cut at once; connections that stand are cut.
        refuse,      ///< Do not listen: ECONNREFUSED. Connections that stand go on.
        unreachable  ///< Do not answer to connect(2), which on a unix socket gives EAGAIN.
    };

    /// Starts to forward to `upstream`: "unix:///path" or "redis://127.0.0.1:port". It need not
    /// be there yet: a client's connection is cut if the server cannot be reached.
    explicit FaultProxy(const std::string& upstream, Listen listen = Listen::unix_socket)
        : upstream_{address_of(upstream)} {
        own_ = listen == Listen::tcp ? loopback(0) : unix_address(dir_.file("proxy.sock"));
        wake_ = Fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
        if (!wake_) throw_errno("eventfd");
        open_listener();
        thread_ = std::thread{[this] { run(); }};
    }

    FaultProxy(const FaultProxy&) = delete;
    FaultProxy& operator=(const FaultProxy&) = delete;

    ~FaultProxy() {
        change([this] { ending_ = true; });
        thread_.join();
    }

    /// Where the client shall connect to. It stays the same in every mode.
    [[nodiscard]] std::string url(std::string_view userinfo = {}) const {
        const std::string user = userinfo.empty() ? "" : std::string{userinfo} + "@";
        if (own_.generic.ss_family == AF_UNIX) return "unix://" + user + dir_.file("proxy.sock");
        return "redis://" + user + "127.0.0.1:" + std::to_string(port());
    }
    /// The TCP port; 0 if it listens on a unix socket.
    [[nodiscard]] std::uint16_t port() const {
        sockaddr_in address{};
        std::memcpy(&address, &own_.generic, sizeof address);
        return address.sin_family == AF_INET ? ntohs(address.sin_port) : std::uint16_t{0};
    }

    void set(Mode mode) {
        change([&] { mode_ = mode; });
    }
    /// What comes from the server from now on reaches the client so much later. Zero: at once.
    void delay(nanoseconds time) {
        change([&] { delay_ = time; });
    }
    /// What comes from the server from now on reaches the client in pieces of `bytes`, `interval`
    /// apart. Zero bytes: at once.
    void drip(std::size_t bytes, nanoseconds interval) {
        change([&] { drip_bytes_ = bytes, drip_interval_ = interval; });
    }
    /// Adds a fault; of several that hit a request, the first added acts. Returns its number.
    std::size_t add(Fault fault) {
        std::size_t number = 0;
        change([&] {
            number = faults_.size();
            faults_.push_back(std::move(fault));
        });
        return number;
    }
    /// No faults any more; numbers start from 0 again. What is held stays held.
    void clear() {
        change([&] { faults_.clear(); });
    }
    /// Lets go what hold_request() and hold_reply() keep.
    void release() {
        change([&] { release_ = true; });
    }
    /// Cuts every connection that stands, in any mode.
    void cut_connections() {
        change([&] { cut_ = true; });
    }

    /// Connections accepted so far.
    [[nodiscard]] std::size_t connections() const { return read(connections_); }
    /// Whole requests received so far.
    [[nodiscard]] std::size_t requests() const { return read(requests_); }
    /// How often the fault of that number has hit.
    [[nodiscard]] std::size_t hits(std::size_t fault) const {
        const std::lock_guard guard{mutex_};
        return faults_.at(fault).hits_;
    }
    /// Waits until the fault has hit `count` times; false if the time is up first.
    [[nodiscard]] bool wait_hits(std::size_t fault, std::size_t count = 1,
                                 nanoseconds timeout = std::chrono::seconds{10}) const {
        return wait([&] { return faults_.at(fault).hits_ >= count; }, timeout);
    }
    [[nodiscard]] bool wait_connections(std::size_t count,
                                        nanoseconds timeout = std::chrono::seconds{10}) const {
        return wait([&] { return connections_ >= count; }, timeout);
    }
    [[nodiscard]] bool wait_requests(std::size_t count,
                                     nanoseconds timeout = std::chrono::seconds{10}) const {
        return wait([&] { return requests_ >= count; }, timeout);
    }

  private:
    using clock = std::chrono::steady_clock;
    using Action = Fault::Action;

    struct Address {
        sockaddr_storage generic{};
        socklen_t size = 0;
    };

    /// A request whose reply the client does not have yet.
    struct Pending {
        Action action = Action::none;
        std::string bytes;        // The fault's.
        std::size_t missing = 1;  // Replies that the server still owes.
        std::string replies;      // Those that it sent.
    };

    struct Chunk {
        clock::time_point due;
        std::string bytes;
    };

    struct Connection {
        Fd client;
        Fd server;
        std::string from_client;
        std::string from_server;
        std::string to_server;
        std::deque<Pending> pending;
        std::deque<Chunk> to_client;
        bool stalled = false;   // hold_request
        bool closing = false;   // Cut once to_client is written.
        bool finished = false;  // Nothing more will be sent to the server.
        bool dead = false;
    };

    // --- What other threads call.

    /// Makes a change and waits until the proxy's thread has taken it in.
    template <class Change>
    void change(Change&& make) {
        std::unique_lock lock{mutex_};
        make();
        const auto mine = ++wanted_;
        const std::uint64_t one = 1;
        if (::write(wake_.get(), &one, sizeof one) < 0 && errno != EAGAIN) throw_errno("eventfd");
        changed_.wait(lock, [&] { return applied_ >= mine; });
    }

    [[nodiscard]] std::size_t read(const std::size_t& counter) const {
        const std::lock_guard guard{mutex_};
        return counter;
    }

    template <class Condition>
    bool wait(Condition&& condition, nanoseconds timeout) const {
        std::unique_lock lock{mutex_};
        return changed_.wait_until(lock, clock::now() + timeout, condition);
    }

    // --- The proxy's thread. All state is touched under the mutex, which is free during poll.

    void run() {
        std::unique_lock lock{mutex_};
        while (!ending_) {
            std::vector<pollfd> set{{wake_.get(), POLLIN, 0}};
            if (accepting()) set.push_back({listener_.get(), POLLIN, 0});
            auto next = clock::time_point::max();
            if (mode_ != Mode::black_hole) {
                for (auto& connection : all_)
                    add_to(set, connection, next);
            }
            timespec pause{};
            if (next != clock::time_point::max()) {
                const auto left = std::max(nanoseconds{next - clock::now()}, nanoseconds{0});
                pause.tv_sec = static_cast<time_t>(left.count() / 1'000'000'000);
                pause.tv_nsec = static_cast<long>(left.count() % 1'000'000'000);
            }
            lock.unlock();
            ::ppoll(set.data(), set.size(), next == clock::time_point::max() ? nullptr : &pause,
                    nullptr);
            lock.lock();
            std::uint64_t ignored = 0;
            while (::read(wake_.get(), &ignored, sizeof ignored) > 0) {
            }
            round();
            changed_.notify_all();
        }
        applied_ = wanted_;
        changed_.notify_all();
    }

    static void add_to(std::vector<pollfd>& set, const Connection& c, clock::time_point& next) {
        short client = c.client && !c.closing ? POLLIN : 0;
        if (!c.to_client.empty()) {
            if (c.to_client.front().due <= clock::now()) client |= POLLOUT;
            next = std::min(next, c.to_client.front().due);
        }
        if (c.client) set.push_back({c.client.get(), client, 0});
        const short server = static_cast<short>(POLLIN | (c.to_server.empty() ? 0 : POLLOUT));
        if (c.server) set.push_back({c.server.get(), server, 0});
    }

    void round() {
        if (mode_ == Mode::refuse) listener_.reset();
        if (mode_ == Mode::unreachable && fillers_.empty()) fill_backlog();
        if (mode_ != Mode::unreachable && !fillers_.empty()) {
            fillers_.clear();
            listener_.reset();
        }
        if (mode_ != Mode::refuse && !listener_) open_listener();
        if (accepting()) accept_all();
        if (cut_ || mode_ == Mode::cut) all_.clear();
        cut_ = false;
        if (std::exchange(release_, false)) {
            for (auto& connection : all_) {
                connection.stalled = false;
                for (auto& entry : connection.pending) {
                    if (entry.action == Action::hold_reply) entry.action = Action::none;
                }
            }
        }
        if (mode_ != Mode::black_hole) {
            for (auto& connection : all_)
                serve(connection);
            std::erase_if(all_, [](const Connection& c) { return c.dead; });
        }
        applied_ = wanted_;
    }

    [[nodiscard]] bool accepting() const { return listener_ && mode_ != Mode::unreachable; }

    /// A listener whose queue is full of our own connections answers nobody.
    void fill_backlog() {
        listener_.reset();
        open_listener(0);
        for (int i = 0; i < 4; ++i)
            fillers_.push_back(connect_to(own_));
    }

    void accept_all() {
        for (;;) {
            Fd client{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
            if (!client) return;
            ++connections_;
            no_delay(client);
            all_.emplace_back().client = std::move(client);
        }
    }

    /// All that one connection can do now, without waiting.
    void serve(Connection& c) {
        if (c.client && !c.closing && !read_all(c.client, c.from_client)) hang_up(c);
        take_requests(c);
        send(c);
        if (!c.client && !c.stalled && !c.finished && c.to_server.empty()) {
            // Half closed, so that the server reads all before it sees the end.
            if (!c.server || ::shutdown(c.server.get(), SHUT_WR) != 0) c.dead = true;
            c.finished = true;
        }
        if (c.server && !read_all(c.server, c.from_server)) {
            c.server.reset();
            c.closing = true;
        }
        take_replies(c);
        while (!c.to_client.empty() && c.to_client.front().due <= clock::now()) {
            std::string& bytes = c.to_client.front().bytes;
            if (!write_some(c.client, bytes)) {
                hang_up(c);
            } else if (bytes.empty()) {
                c.to_client.pop_front();
            } else {
                break;
            }
        }
        if (c.closing && c.to_client.empty()) c.dead = true;
    }

    static void hang_up(Connection& c) {
        c.client.reset();
        c.to_client.clear();
    }

    /// Reads whole requests and decides what becomes of each.
    void take_requests(Connection& c) {
        while (!c.stalled && !c.closing && !c.dead) {
            const std::size_t size = resp_length(c.from_client);
            if (size == 0) return;
            const std::string request = c.from_client.substr(0, size);
            c.from_client.erase(0, size);
            ++requests_;
            Pending entry{Action::none, {}, replies_to(request), {}};
            for (auto& fault : faults_) {
                if (!fault.hits(request)) continue;
                entry.action = fault.action_;
                entry.bytes = fault.bytes_;
                break;
            }
            if (entry.action == Action::cut || entry.action == Action::hold_request) {
                send(c);  // What came before is not concerned.
                c.dead = c.dead || entry.action == Action::cut;
                c.stalled = entry.action == Action::hold_request;
            }
            if (entry.action == Action::reply) {
                entry.missing = 0;
            } else {
                c.to_server += request;
            }
            c.pending.push_back(std::move(entry));
        }
    }

    /// How many replies a request has: those of the SUBSCRIBE family have one for each channel.
    static std::size_t replies_to(std::string_view request) {
        std::string head{request.substr(0, 40)};
        for (char& c : head)
            c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        if (head.find("subscribe\r\n") == std::string::npos || head[0] != '*') return 1;
        return static_cast<std::size_t>(std::max(std::atoi(head.c_str() + 1) - 1, 1));
    }

    /// A message to a subscriber: the one thing that a server sends unasked.
    static bool is_push(std::string_view reply) {
        return reply.starts_with("*3\r\n$7\r\nmessage\r\n") ||
               reply.starts_with("*3\r\n$8\r\nsmessage\r\n") ||
               reply.starts_with("*4\r\n$8\r\npmessage\r\n");
    }

    /// Gives each reply of the server to its request, then passes on what is next in order.
    void take_replies(Connection& c) {
        for (std::size_t size = resp_length(c.from_server); size != 0;
             size = resp_length(c.from_server)) {
            std::string reply = c.from_server.substr(0, size);
            c.from_server.erase(0, size);
            const auto owner = std::find_if(c.pending.begin(), c.pending.end(),
                                            [](const Pending& entry) { return entry.missing > 0; });
            const bool push = is_push(reply);
            if (owner == c.pending.end() || (push && owner->replies.empty())) {
                c.pending.insert(owner, Pending{Action::none, {}, 0, std::move(reply)});
            } else {
                owner->replies += reply;
                if (!push) --owner->missing;
            }
        }
        while (!c.closing && !c.pending.empty() && c.pending.front().missing == 0) {
            Pending& entry = c.pending.front();
            switch (entry.action) {
                case Action::hold_reply:
                    return;
                case Action::lose_reply:
                    c.closing = true;
                    break;
                case Action::reply:
                case Action::replace:
                    emit(c, entry.bytes);
                    break;
                case Action::append:
                    emit(c, entry.replies + entry.bytes);
                    break;
                case Action::none:
                case Action::cut:
                case Action::hold_request:
                    emit(c, entry.replies);
                    break;
            }
            c.pending.pop_front();
        }
    }

    /// Queues bytes for the client, with the delay and in the pieces that are in force.
    void emit(Connection& c, std::string_view bytes) const {
        if (!c.client) return;
        auto due = clock::now() + delay_;
        if (!c.to_client.empty()) due = std::max(due, c.to_client.back().due);
        const std::size_t piece = drip_bytes_ == 0 ? bytes.size() : drip_bytes_;
        for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size()))) {
            c.to_client.push_back({due, std::string{bytes.substr(0, piece)}});
            if (drip_bytes_ != 0) due += drip_interval_;
        }
    }

    /// Writes to the server what waits for it, connecting first if need be.
    void send(Connection& c) const {
        if (c.stalled || c.dead || c.to_server.empty()) return;
        if (!c.server && !c.finished) c.server = connect_to(upstream_);
        if (!c.server || !write_some(c.server, c.to_server)) c.dead = true;
    }

    // --- Sockets.

    [[nodiscard]] static Fd connect_to(const Address& address) {
        Fd socket{
            ::socket(address.generic.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
        if (!socket) throw_errno("socket");
        no_delay(socket);
        if (::connect(socket.get(), generic(address), address.size) != 0 && errno != EINPROGRESS) {
            return Fd{};
        }
        return socket;
    }

    void open_listener(int backlog = 128) {
        Fd socket{::socket(own_.generic.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
        if (!socket) throw_errno("socket");
        const bool tcp = own_.generic.ss_family == AF_INET;
        const int on = 1;
        if (tcp) ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (!tcp) ::unlink(dir_.file("proxy.sock").c_str());
        if (::bind(socket.get(), generic(own_), own_.size) != 0) throw_errno("bind");
        if (::listen(socket.get(), backlog) != 0) throw_errno("listen");
        if (tcp && port() == 0) {
            auto* const address = reinterpret_cast<sockaddr*>(&own_.generic);
            if (::getsockname(socket.get(), address, &own_.size) != 0) throw_errno("getsockname");
        }
        listener_ = std::move(socket);
    }

    static void no_delay(const Fd& socket) {
        const int on = 1;  // Fails on a unix socket, where there is nothing to do.
        (void)::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }

    /// Reads what is there; false at the end of the stream.
    static bool read_all(const Fd& fd, std::string& to) {
        for (char bytes[16384];;) {
            const ssize_t n = ::recv(fd.get(), bytes, sizeof bytes, 0);
            if (n > 0) to.append(bytes, static_cast<std::size_t>(n));
            if (n == 0) return false;
            if (n < 0 && errno != EINTR) {
                return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOTCONN;
            }
        }
    }

    /// Writes what the socket takes and removes it from `bytes`; false if the peer is gone.
    static bool write_some(const Fd& fd, std::string& bytes) {
        while (!bytes.empty()) {
            const ssize_t n = ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (n > 0) bytes.erase(0, static_cast<std::size_t>(n));
            if (n < 0 && errno != EINTR) {
                return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINPROGRESS;
            }
        }
        return true;
    }

    static Address unix_address(const std::string& path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path.size() >= sizeof address.sun_path) throw std::invalid_argument{"path too long"};
        std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
        Address result{{}, sizeof address};
        std::memcpy(&result.generic, &address, sizeof address);
        return result;
    }

    static Address loopback(std::uint16_t port) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(port);
        Address result{{}, sizeof address};
        std::memcpy(&result.generic, &address, sizeof address);
        return result;
    }

    static Address address_of(const std::string& url) {
        constexpr std::string_view unix_scheme = "unix://";
        constexpr std::string_view tcp_scheme = "redis://127.0.0.1:";
        if (url.starts_with(unix_scheme)) return unix_address(url.substr(unix_scheme.size()));
        if (!url.starts_with(tcp_scheme)) throw std::invalid_argument{"FaultProxy: " + url};
        return loopback(static_cast<std::uint16_t>(std::stoi(url.substr(tcp_scheme.size()))));
    }

    static const sockaddr* generic(const Address& address) {
        return reinterpret_cast<const sockaddr*>(&address.generic);
    }

    TempDir dir_;
    Address upstream_;
    Address own_;
    Fd wake_;
    Fd listener_;
    std::vector<Fd> fillers_;  // Connections that keep the listener busy, in Mode::unreachable.

    mutable std::mutex mutex_;  // Guards all below, and the two above.
    mutable std::condition_variable changed_;
    std::uint64_t wanted_ = 0;   // Changes made,
    std::uint64_t applied_ = 0;  // and taken in by the proxy's thread.
    bool ending_ = false;
    bool cut_ = false;
    bool release_ = false;
    Mode mode_ = Mode::forward;
    nanoseconds delay_{};
    std::size_t drip_bytes_ = 0;
    nanoseconds drip_interval_{};
    std::vector<Fault> faults_;
    std::list<Connection> all_;
    std::size_t connections_ = 0;
    std::size_t requests_ = 0;

    std::thread thread_;
};

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAULT_PROXY_HPP
