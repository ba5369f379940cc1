// SPDX-License-Identifier: MIT
//
// One command on its way and what comes of it. Without I/O.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_REQUEST_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_REQUEST_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/wait_word.hpp>
#include <codomyrmex/concurrency/redis/command.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// What came of one request.
struct Exchange {
    enum class Outcome : std::uint8_t {
        not_sent,  ///< surely not executed
        unknown,   ///< sent, in part at least, and no reply: executed or not
        answered,  ///< `reply` is the server's, an error reply perhaps
    };

    Outcome outcome = Outcome::not_sent;
    bool repeated = false;         ///< sent more than once: an earlier copy may have been executed
    Reply reply{};                 ///< if answered
    BootTime sent{};               ///< read before the first byte of the last copy went out
    std::uint64_t connection = 0;  ///< the number of the connection that it went over
    std::string error{};           ///< what went wrong, unless answered
};

/// One command on its way.
struct Request {
    /// What its thread waits for.
    static constexpr std::uint32_t waiting = 0;
    static constexpr std::uint32_t drive = 1;  ///< it is this thread's turn to use the socket
    static constexpr std::uint32_t done = 2;   ///< `exchange` is final

    Request() = default;
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    virtual ~Request() = default;

    Command command{};
    Deadline deadline = Deadline::never();  ///< when nobody is interested any more
    bool repeat = false;                    ///< to be sent again after a connection broke
    bool waited_for = true;                 ///< by a thread; else tell() is called

    Exchange exchange{};
    bool abandoned = false;  ///< its caller gave up
    bool finished = false;   ///< `exchange` is final, though the thread may not know yet
    detail::WaitWord state{waiting};

    [[nodiscard]] bool has_thread() const noexcept { return waited_for && !abandoned; }

    /// Where no thread waits for it: `exchange` is final.
    virtual void tell() {}
};

/// One that no thread waits for. `then`: called with the exchange when that is final.
template <class Then>
struct RequestThen final : Request {
    explicit RequestThen(Then what) : then{std::move(what)} { waited_for = false; }
    void tell() override { then(exchange); }

    Then then;
};

using RequestPtr = std::shared_ptr<Request>;

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_REQUEST_HPP
