// SPDX-License-Identifier: MIT
//
// One connection and the requests that go over it: it connects, and again after a pause that grows;
// writes what was added, reads, finds the request that each reply belongs to; and drops a
// connection that broke, does not answer, or says what nobody asked for. It starts no thread and
// wakes none: who uses it, and when, is for pipeline.hpp to decide, and so is the mutex that guards
// it.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_LINK_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_LINK_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/request_queue.hpp>
#include <codomyrmex/concurrency/redis/retry.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Its user has one mutex for it, and one thread at a time that drives it. The mutex is held in all
/// calls but those that say otherwise. What takes a `lock`, which holds it, is for the driver alone
/// and drops it around the I/O; others may add requests and call write_now() meanwhile.
class Link {
  public:
    using Lock = std::unique_lock<std::mutex>;
    /// Requests that are finished, whose owners are to be told without the mutex.
    using Ended = std::vector<RequestPtr>;

    /// How long nothing must have come for a request to be worth a look before it whether the
    /// server is still there, and has said nothing that nobody asked for.
    static constexpr std::chrono::milliseconds look_before{1};

    /// What is to be sent, and what was. Here requests are added.
    RequestQueue queue;

    /// Requires: both outlive the link. Does not connect yet.
    Link(const Endpoint& endpoint, const ClientOptions& options)
        : queue{options.max_pending}, endpoint_{endpoint}, options_{options} {}
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    ~Link() = default;

    [[nodiscard]] bool connected() const noexcept { return connected_; }

    /// Whether the connection is to be dropped by the next one that drives.
    [[nodiscard]] bool broken() const noexcept { return broken_; }
    void give_connection_up() noexcept { broken_ = true; }

    /// In how long it may connect again; zero if it may at once.
    [[nodiscard]] std::chrono::nanoseconds pause() const noexcept {
        return std::max(reconnect_at_.remaining(), std::chrono::nanoseconds::zero());
    }

    /// How long the last reply took to come from when its request was sent; zero if there was none.
    [[nodiscard]] std::chrono::nanoseconds round_trip() const noexcept { return round_trip_; }

    /// The number of the open file; -1 if closed.
    [[nodiscard]] int descriptor() const noexcept { return connection_.descriptor(); }

    /// What there was so far; the first is also the number of the connection that is open.
    /// Threads: safe, without the mutex.
    [[nodiscard]] std::uint64_t connections() const noexcept { return connections_.load(); }
    [[nodiscard]] std::uint64_t requests() const noexcept { return requests_.load(); }
    [[nodiscard]] std::uint64_t writes() const noexcept { return writes_.load(); }

    // --- For the driver. What ends goes into `ended`.

    /// Drops a connection that was given up, or that the server closed.
    /// Throws: std::bad_alloc. Cost: a system call after a pause, see look_before.
    void drop_unfit(Ended& ended) {
        if (broken_) drop("the connection was given up", ended);
        if (connected_ && unfit()) drop("the server closed the connection", ended);
    }

    /// Connects, unless the last attempt was too short a time ago. If there is no connection then,
    /// what was to be sent ends, but for what is to be repeated. `tick`: called now and then;
    /// returns false to stop.
    /// Requires: not connected. Returns: whether it is now. Throws: std::bad_alloc.
    template <class Tick>
    [[nodiscard]] bool connect(Lock& lock, Deadline deadline, Tick& tick, Ended& ended) {
        if (!reconnect_at_.expired()) {
            settle(queue.not_connected(last_error_), ended);
            return false;
        }
        lock.unlock();
        const Deadline limit = std::min(deadline, Deadline::after(options_.connect_timeout));
        const Io opened = connection_.open(endpoint_, options_, limit, tick);
        lock.lock();
        if (opened == Io::done) {
            connected_ = true;
            connections_.fetch_add(1);
            backoff_ = Backoff{};
            return true;
        }
        if (opened == Io::stopped) return false;
        last_error_ = connection_.error();
        if (opened != Io::timeout || !deadline.expired()) {
            reconnect_at_ = Deadline::after(backoff_.next());
        }
        std::vector<RequestPtr> failed = queue.not_connected(last_error_);
        if (opened == Io::refused) {
            // The server's word; the caller knows what it means.
            for (const RequestPtr& request : failed) {
                request->exchange.outcome = Exchange::Outcome::answered;
                request->exchange.reply.type = Reply::Type::error;
                request->exchange.reply.text = last_error_;
            }
        }
        settle(std::move(failed), ended);
        return false;
    }

    /// Sends what is unsent, as much as the system takes at once; drops a connection that broke.
    /// Requires: connected. Throws: std::bad_alloc. Cost: one system call.
    void write(Lock& lock, Ended& ended) {
        fill_output();
        if (output_.empty()) return;
        std::string why;
        writes_.fetch_add(1, std::memory_order_relaxed);
        sending_ = true;
        lock.unlock();
        const std::optional<std::size_t> sent = connection_.send_some(output_, why);
        lock.lock();
        sending_ = false;
        if (sent) {
            output_.erase(0, *sent);
            return;
        }
        // Some may have been answered before it broke.
        read_ready(ended);
        if (connected_) drop(why, ended);
    }

    /// Waits at most until `until` for replies, or until more can be sent, and reads what came.
    /// Drops a connection on which no reply comes for `response_timeout`. `tick` as in connect().
    /// Requires: connected, and something is unanswered. Throws: std::bad_alloc.
    template <class Tick>
    void read(Lock& lock, Deadline until, Tick& tick, Ended& ended) {
        const bool sending = !output_.empty();
        const Deadline overdue = Deadline::at(queue.oldest() + options_.response_timeout);
        lock.unlock();
        const Deadline limit = std::min(until, overdue);
        std::vector<Reply> replies;
        const auto take = [&](Reply&& reply) { replies.push_back(std::move(reply)); };
        Io got = Io::timeout;
        if (!sending) {
            got = connection_.receive_soon(take, limit, tick);
        } else if (connection_.wait(sending, limit, tick) == Io::done) {
            got = connection_.receive_ready(take);
        }
        lock.lock();
        accept(std::move(replies), got, ended);
        if (connected_ && queue.unanswered() != 0 &&
            Deadline::at(queue.oldest() + options_.response_timeout).expired()) {
            drop("no reply in time", ended);
        }
    }

    /// Reads what has come, without waiting. Requires: connected. Throws: std::bad_alloc.
    void read_ready(Ended& ended) {
        std::vector<Reply> replies;
        const Io got =
            connection_.receive_ready([&](Reply&& reply) { replies.push_back(std::move(reply)); });
        accept(std::move(replies), got, ended);
    }

    // --- For anybody.

    /// The same as write() for who does not drive: without waiting, and what goes wrong is left to
    /// the driver. Does nothing if that one has to connect or to go on writing first. `driven`:
    /// some thread drives.
    void write_now(bool driven) noexcept {
        if (queue.unsent() == 0) return;
        try {
            try_write(driven);
        } catch (const std::exception&) {
            broken_ = true;
        }
    }

  private:
    void drop(const std::string& why, Ended& ended) {
        connection_.close(queue.unanswered() != 0);
        connected_ = false;
        broken_ = false;
        output_.clear();
        settle(queue.disconnect(why), ended);
    }

    // Closed meanwhile, or with something in it that nobody asked for. Cost: a system call, but
    // none while replies are owed or shortly after one came: a server seldom closes then, and what
    // nobody asked for is told from a reply by the number that the reply repeats.
    [[nodiscard]] bool unfit() const {
        return queue.unanswered() == 0 && Deadline::clock::now() - heard_ > look_before &&
               !connection_.is_ready();
    }

    // Moves what is unsent into the output.
    void fill_output() {
        if (queue.unsent() == 0) return;
        requests_.fetch_add(
            queue.take(output_, detail::BootClock::now(), Deadline::clock::now(), connections()),
            std::memory_order_relaxed);
    }

    void try_write(bool driven) {
        if (!connected_ || broken_ || sending_ || !output_.empty()) return;
        if (!driven && unfit()) {
            broken_ = true;
            return;
        }
        fill_output();
        std::string why;
        writes_.fetch_add(1, std::memory_order_relaxed);
        const std::optional<std::size_t> sent = connection_.send_some(output_, why);
        if (sent) {
            output_.erase(0, *sent);
        } else {
            broken_ = true;
        }
    }

    void accept(std::vector<Reply> replies, Io got, Ended& ended) {
        const bool all = replies.size() == queue.unanswered();
        if (replies.size() > queue.unanswered() || (all && connection_.has_surplus())) {
            // Which of them answers what is anybody's guess.
            return drop("the server sent more replies than were asked for", ended);
        }
        if (!replies.empty()) {
            heard_ = Deadline::clock::now();
            round_trip_ = heard_ - queue.oldest();
        }
        const bool fit = std::ranges::all_of(
            replies, [&](Reply& reply) { return queue.answer(std::move(reply), ended); });
        if (!fit) return drop("the server sent the reply to another request", ended);
        if (got == Io::failed) drop(connection_.error(), ended);
    }

    static void settle(std::vector<RequestPtr> requests, Ended& ended) {
        for (RequestPtr& request : requests) {
            request->finished = true;
            if (!request->abandoned) ended.push_back(std::move(request));
        }
    }

    const Endpoint& endpoint_;
    const ClientOptions& options_;
    std::atomic<std::uint64_t> connections_{0};
    std::atomic<std::uint64_t> requests_{0};  // commands that were written, each copy of them
    std::atomic<std::uint64_t> writes_{0};
    std::string output_;      // taken from the queue and not sent yet
    bool sending_ = false;    // the driver writes, without the mutex
    bool connected_ = false;  // as far as is known
    bool broken_ = false;     // to be dropped by the next driver
    Connection connection_;   // the driver uses it without the mutex
    Deadline reconnect_at_ = Deadline::after(std::chrono::nanoseconds::zero());
    Backoff backoff_;                      // of the next attempt to connect
    std::string last_error_;               // of the last attempt
    Deadline::clock::time_point heard_{};  // when the last reply came
    std::chrono::nanoseconds round_trip_{};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_LINK_HPP
