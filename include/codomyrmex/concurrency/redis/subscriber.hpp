// SPDX-License-Identifier: MIT
//
// The connection on which this process hears what is published to it: grants, and that somebody
// wants what it retains. At the start it probes whether hand-over is permitted at all. Never waits
// but while it connects; the keeper polls it among other files. Not thread-safe.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_SUBSCRIBER_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_SUBSCRIBER_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

namespace codomyrmex::concurrency::redis {

class Subscriber {
  public:
    enum class State : std::uint8_t {
        closed,
        open,
        forbidden,  ///< the user may not publish or listen: nobody can be handed anything
    };

    /// Silence for so long, with somebody waiting, is looked into.
    static constexpr std::chrono::seconds silence{5};

    [[nodiscard]] State state() const noexcept { return state_; }
    [[nodiscard]] const std::string& error() const noexcept { return error_; }
    [[nodiscard]] int descriptor() const noexcept { return connection_.descriptor(); }

    /// Connects and subscribes to `channel`. Returns: whether it is open.
    template <class Tick>
    bool open(const Endpoint& endpoint, const ClientOptions& options, const std::string& channel,
              Tick&& tick) {
        const Deadline deadline = Deadline::after(options.connect_timeout);
        state_ = State::closed;
        if (connection_.open(endpoint, options, deadline, tick) != Io::done) {
            return fail(connection_.error());
        }
        // What the scripts will need, asked for once here.
        connection_.append({"PUBLISH", channel, "probe"});
        connection_.append({"PUBSUB", "NUMSUB", channel});
        connection_.append({"SUBSCRIBE", channel});
        if (connection_.flush(deadline, tick) != Io::done) return fail(connection_.error());
        // Messages may follow on the heels of the last answer. They are dropped, as is all that was
        // published while nobody listened: whoever waits asks again after this.
        int answers = 0;
        std::string refusal;
        while (answers < 3) {
            Io got = connection_.wait(false, deadline, tick);
            if (got == Io::done) {
                got = connection_.receive_ready([&](Reply&& reply) {
                    if (++answers <= 3 && reply.is_error() && refusal.empty()) {
                        refusal = std::move(reply.text);
                    }
                });
            }
            if (!refusal.empty()) {
                connection_.close();
                if (classify(refusal).kind == ServerErrorKind::refused) state_ = State::forbidden;
                return fail(refusal);
            }
            if (got != Io::done) {
                connection_.close();
                return fail(got == Io::failed ? connection_.error()
                                              : "no answer to a subscription in time");
            }
        }
        state_ = State::open;
        heard_ = Deadline::clock::now();
        asked_ = false;
        return true;
    }

    /// Gives the text of each message that has come to `take(text)`. Requires: open.
    /// Returns: false if the connection is closed now.
    template <class Take>
    bool receive(Take take) {
        heard_ = Deadline::clock::now();
        asked_ = false;
        const Io got = connection_.receive_ready([&](const Reply& reply) {
            if (reply.type != Reply::Type::array || reply.elements.size() != 3) return;
            if (reply.elements[0].as_text() != "message") return;
            if (const auto text = reply.elements[2].as_text()) take(*text);
        });
        if (got != Io::done) close(connection_.error());
        return state_ == State::open;
    }

    /// When it will have been silent for so long that this is worth a look.
    [[nodiscard]] Deadline silent_at() const noexcept { return Deadline::at(heard_ + silence); }
    [[nodiscard]] bool silent() const noexcept { return silent_at().expired(); }

    /// Requires: open. Looks after a connection that is silent: asks for a sign of life, and closes
    /// it when none came for `patience`. Returns: when to look again.
    Deadline look_after(std::chrono::nanoseconds patience) {
        if (!silent()) return silent_at();
        if (!asked_) {
            std::string why;
            if (!connection_.send_some(encode({"PING"}), why)) close(why);
            asked_ = true;
            ping_limit_ = Deadline::after(patience);
        } else if (ping_limit_.expired()) {
            close("no answer to a ping");
        }
        return ping_limit_;
    }

    void close(std::string why) {
        connection_.close();
        state_ = State::closed;
        error_ = std::move(why);
    }

  private:
    bool fail(const std::string& why) {
        error_ = why;
        return false;
    }

    Connection connection_;
    State state_ = State::closed;
    std::string error_;
    Deadline::clock::time_point heard_{};
    bool asked_ = false;
    Deadline ping_limit_ = Deadline::never();
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_SUBSCRIBER_HPP
