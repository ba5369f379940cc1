// SPDX-License-Identifier: MIT
//
// One socket to a Redis server. hiredis parses the replies; the socket is ours, with absolute
// deadlines that no signal and no slow drip of bytes can stretch, and without SIGPIPE. (A hiredis
// context answers the next command with the late reply of one that timed out; here any doubt about
// the order of replies closes the connection.) Not thread-safe: pipeline.hpp and keeper.hpp decide
// who drives it. The only includer of hiredis.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_CONNECTION_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_CONNECTION_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/reply_reader.hpp>
#include <codomyrmex/concurrency/detail/socket.hpp>
#include <codomyrmex/concurrency/detail/socket_wait.hpp>
#include <codomyrmex/concurrency/detail/wire_format.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// How an operation of a Connection ended.
enum class Io : std::uint8_t {
    done,
    timeout,  ///< the deadline passed; what was asked for may still come
    stopped,  ///< the caller's tick asked to stop
    failed,   ///< the connection is closed; error() says why
    refused,  ///< the connection is closed; the server said no, error() holds its words
};

/// A command in the server's wire format. Any bytes may stand in its words.
/// Requires: at least one. Throws: std::bad_alloc.
[[nodiscard]] inline std::string encode(std::span<const std::string_view> command) {
    std::string bytes;
    detail::format_command(command, bytes);
    return bytes;
}
[[nodiscard]] inline std::string encode(std::initializer_list<std::string_view> command) {
    return encode(std::span{command.begin(), command.size()});
}

/// A connection, open or closed. It opens again after it was closed.
class Connection {
  public:
    Connection() = default;

    /// Connects, logs in, selects the database and names the connection; closes what was open.
    /// `tick` as in detail::wait_for: called now and then while waiting, returns false to stop.
    /// Returns: done, or anything else with the connection closed and error() set.
    template <class Tick = detail::NoTick>
    [[nodiscard]] Io open(const Endpoint& endpoint, const ClientOptions& options, Deadline deadline,
                          Tick&& tick = {}) {
        close();
        const Io connected = from(socket_.connect(address_of(endpoint), deadline, tick));
        if (connected != Io::done) return fail(connected, "cannot connect: " + socket_.error());
        const Io greeted = greet(endpoint, options, deadline, tick);
        if (greeted == Io::timeout) return fail(greeted, "no answer to the login in time");
        if (greeted != Io::done) return fail(greeted, std::move(error_));
        return Io::done;
    }

    [[nodiscard]] bool is_open() const noexcept { return socket_.is_open(); }

    /// Whether it is open and fit for the next request: the server has neither closed it nor sent
    /// what nobody asked for, which would be taken for the reply.
    /// Requires: outstanding() == 0. Cost: one system call.
    [[nodiscard]] bool is_ready() const noexcept { return is_open() && socket_.is_quiet(); }

    /// Adds a command to what the next flush() sends. Requires: open.
    void append(std::span<const std::string_view> command) {
        detail::format_command(command, output_);
        ++outstanding_;
    }
    void append(std::initializer_list<std::string_view> command) {
        append(std::span{command.begin(), command.size()});
    }

    /// Sends all that was appended. Returns: done, or anything else with the connection closed:
    /// what was sent in part cannot be taken back.
    template <class Tick = detail::NoTick>
    [[nodiscard]] Io flush(Deadline deadline, Tick&& tick = {}) {
        const Io sent = from(socket_.send_all(output_, deadline, tick));
        output_.clear();
        if (sent == Io::timeout) return fail(sent, "the request could not be sent in time");
        if (sent == Io::failed) return fail_with_last_words(socket_.error());
        if (sent != Io::done) return fail(sent, socket_.error());
        return Io::done;
    }

    /// Waits for the next reply; replies come in the order of the commands.
    /// Requires: outstanding() > 0. Returns: done; timeout with the connection still open and the
    /// reply still owed; else with the connection closed.
    template <class Tick = detail::NoTick>
    [[nodiscard]] Io receive(Reply& reply, Deadline deadline, Tick&& tick = {}) {
        for (bool first = true;; first = false) {
            std::string broken;
            if (std::optional<Reply> next = reader_.next(broken)) {
                reply = std::move(*next);
                --outstanding_;
                if (outstanding_ == 0 && reader_.has_surplus()) {
                    return fail(Io::failed, "the server sent more replies than were asked for");
                }
                return Io::done;
            }
            if (!broken.empty()) return fail(Io::failed, "protocol error: " + broken);
            // A server that never stops sending must not keep us past the deadline.
            if (!first && deadline.expired()) return Io::timeout;
            const Io got = from(socket_.receive_some(
                [this](const char* bytes, std::size_t size) { reader_.feed(bytes, size); },
                deadline, tick));
            if (got == Io::timeout || got == Io::stopped) return got;
            if (got != Io::done) return fail(got, socket_.error());
        }
    }

    // For who keeps the order of requests and replies itself (pipeline.hpp): beside append(),
    // flush() and receive(), not mixed with them.

    /// Sends as much of `bytes` as the system takes at once. Requires: open.
    /// Returns: how much; nothing if the connection is broken, with `why` set. Does not close.
    /// Threads: may be called beside the other two.
    [[nodiscard]] std::optional<std::size_t> send_some(std::string_view bytes,
                                                       std::string& why) const {
        std::size_t sent = 0;
        int code = 0;
        if (socket_.send_some(bytes, sent, code) == detail::SocketResult::done) return sent;
        why = std::generic_category().message(code);
        return std::nullopt;
    }

    /// Waits until there is something to receive, or, if `sending`, to send. Requires: open.
    template <class Tick = detail::NoTick>
    [[nodiscard]] Io wait(bool sending, Deadline deadline, Tick&& tick = {}) const {
        return from(socket_.wait(sending, deadline, tick));
    }

    /// Gives each reply that has come to `take(reply)`, without waiting. Requires: open.
    /// Returns: done, though none may have come; failed with error() set, after what came before
    /// that. Does not close.
    template <class Take>
    [[nodiscard]] Io receive_ready(Take take) {
        return read_replies(socket_.receive_now([this](const char* bytes, std::size_t size) {
            reader_.feed(bytes, size);
        }),
                            take);
    }

    /// The same, and waits until something comes. Returns: also timeout or stopped.
    template <class Take, class Tick = detail::NoTick>
    [[nodiscard]] Io receive_soon(Take take, Deadline deadline, Tick&& tick = {}) {
        const auto got = socket_.receive_soon(
            [this](const char* bytes, std::size_t size) { reader_.feed(bytes, size); }, deadline,
            tick);
        if (got == detail::SocketResult::timeout || got == detail::SocketResult::stopped) {
            return from(got);
        }
        return read_replies(got, take);
    }

    /// Whether receive_ready() was left with a part of a reply.
    [[nodiscard]] bool has_surplus() const noexcept { return surplus_; }

    /// The number of the open file, for poll(); -1 if closed.
    [[nodiscard]] int descriptor() const noexcept { return socket_.descriptor(); }

    /// How many replies are owed.
    [[nodiscard]] std::size_t outstanding() const noexcept { return outstanding_; }

    /// Why the last operation did not end with done.
    [[nodiscard]] const std::string& error() const noexcept { return error_; }

    /// Closes the socket and forgets all that was under way. `unanswered`: something was asked for
    /// and not answered; it should not be executed later, if that can be helped.
    void close() noexcept { close(outstanding_ != 0); }
    void close(bool unanswered) noexcept {
        if (unanswered) socket_.discard_unsent();
        socket_.close();
        reader_.reset();
        output_.clear();
        outstanding_ = 0;
        surplus_ = false;
    }

  private:
    // After something was received, or not.
    template <class Take>
    [[nodiscard]] Io read_replies(detail::SocketResult got, Take& take) {
        std::string broken;
        for (bool more = got == detail::SocketResult::done; more;) {
            std::optional<Reply> next = reader_.next(broken);
            surplus_ = !next || reader_.has_surplus();
            more = next && surplus_;
            if (next) take(std::move(*next));
        }
        if (!broken.empty()) {
            error_ = "protocol error: " + broken;
            return Io::failed;
        }
        if (got != detail::SocketResult::failed) return Io::done;
        error_ = socket_.error();
        return Io::failed;
    }

    [[nodiscard]] static Io from(detail::SocketResult result) noexcept {
        switch (result) {
            case detail::SocketResult::done:
                return Io::done;
            case detail::SocketResult::timeout:
                return Io::timeout;
            case detail::SocketResult::stopped:
                return Io::stopped;
            case detail::SocketResult::failed:
                break;
        }
        return Io::failed;
    }

    [[nodiscard]] static detail::SocketAddress address_of(const Endpoint& endpoint) {
        return {endpoint.transport == Transport::unix_socket, endpoint.host, endpoint.port,
                endpoint.path};
    }

    // Closes. A reason comes by value, for close() must not clear what it is made of.
    Io fail(Io how, std::string why) {
        close();
        error_ = std::move(why);
        return how;
    }

    // A server that takes nobody says why and closes, which a write may meet before the words are
    // read.
    Io fail_with_last_words(std::string why) {
        detail::NoTick undisturbed;
        std::string broken;
        std::optional<Reply> words;
        const auto got = socket_.receive_some(
            [this](const char* bytes, std::size_t size) { reader_.feed(bytes, size); },
            Deadline::after(std::chrono::nanoseconds::zero()), undisturbed);
        if (got == detail::SocketResult::done) words = reader_.next(broken);
        if (words && words->is_error()) return fail(Io::refused, std::move(words->text));
        return fail(Io::failed, std::move(why));
    }

    template <class Tick>
    [[nodiscard]] Io greet(const Endpoint& endpoint, const ClientOptions& options,
                           Deadline deadline, Tick& tick) {
        if (!endpoint.user.empty()) {
            append({"AUTH", endpoint.user, endpoint.password.reveal()});
        } else if (!endpoint.password.empty()) {
            append({"AUTH", endpoint.password.reveal()});
        }
        if (endpoint.database != 0) append({"SELECT", std::to_string(endpoint.database)});
        const std::size_t required = outstanding_;
        append({"CLIENT", "SETNAME", printable_name(endpoint, options)});
        const Io sent = flush(deadline, tick);
        if (sent == Io::refused) return fail(sent, without_secrets(std::move(error_), endpoint));
        if (sent != Io::done) return sent;
        for (std::size_t answered = 0; outstanding_ > 0; ++answered) {
            Reply reply;
            const Io got = receive(reply, deadline, tick);
            if (got != Io::done) return got;
            if (!reply.is_error()) continue;
            // A user without the right to name itself may still lock, and so may one of a server
            // that has no names; any other refusal of the name is the server's way to say that it
            // takes nobody.
            const bool harmless =
                reply.text.starts_with("NOPERM") || reply.text.starts_with("ERR unknown");
            if (answered < required || !harmless) {
                return fail(Io::refused, without_secrets(std::move(reply.text), endpoint));
            }
        }
        return Io::done;
    }

    // A server may quote a command that it does not know, and that may be AUTH.
    [[nodiscard]] static std::string without_secrets(std::string text, const Endpoint& endpoint) {
        const std::string& password = endpoint.password.reveal();
        if (const auto quoted = text.find(", with args"); quoted != std::string::npos) {
            text.resize(quoted);
        }
        if (!password.empty() && text.find(password) != std::string::npos) {
            return "ERR the login was refused, in words that quote the password";
        }
        return text;
    }

    // CLIENT SETNAME takes printable ASCII without spaces.
    [[nodiscard]] static std::string printable_name(const Endpoint& endpoint,
                                                    const ClientOptions& options) {
        std::string name = endpoint.client_name.value_or(options.client_name);
        std::ranges::replace_if(
            name, [](char byte) { return byte <= ' ' || byte > '~'; }, '-');
        return name;
    }

    detail::Socket socket_;
    detail::ReplyReader reader_;
    std::string output_;
    std::size_t outstanding_ = 0;
    bool surplus_ = false;
    std::string error_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_CONNECTION_HPP
