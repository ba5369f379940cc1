// SPDX-License-Identifier: MIT
//
// One connection that many threads share, with no thread in between. A caller adds its request; if
// nobody drives the socket, it becomes the driver: it writes all that was added, reads, hands each
// reply to its owner, and when its own has come passes the driving on to one that still waits.
// Requests that come meanwhile do not wait for that: the first of those that come together lets the
// others add theirs and writes them all. One thread alone pays what a connection of its own would
// cost; many share their system calls. Replies that nobody waits for are read by whoever drives
// next, or by the keeper, which is asked to have a look.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_PIPELINE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_PIPELINE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/request_queue.hpp>
#include <codomyrmex/concurrency/redis/retry.hpp>
#include <codomyrmex/concurrency/redis/yield_policy.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Threads: safe, but for the destructor.
class Pipeline {
  public:
    /// How long nothing must have come for a request to be worth a look before it whether the
    /// server is still there, and has said nothing that nobody asked for. One that closed the
    /// connection since makes the request `unknown` where it otherwise would not be sent.
    static constexpr std::chrono::milliseconds look_before{1};

    /// `attend`: called, with no lock held, when replies are owed and no thread drives: within the
    /// time given, pump() should be called. It must not call the pipeline.
    /// Requires: the first two outlive the pipeline. Does not connect yet.
    Pipeline(const Endpoint& endpoint, const ClientOptions& options,
             std::function<void(std::chrono::nanoseconds)> attend)
        : endpoint_{endpoint},
          options_{options},
          attend_{std::move(attend)},
          queue_{options.max_pending} {}
    Pipeline(const Pipeline&) = delete;
    Pipeline& operator=(const Pipeline&) = delete;
    ~Pipeline() = default;

    /// Sends the command `bytes` and waits for its reply, at most until `deadline`. A connection on
    /// which no reply comes for `response_timeout` is dropped, and this ends as unknown; a caller
    /// whose deadline comes first leaves it to the others, and its late reply is dropped.
    /// Throws: std::bad_alloc. Cost: one round trip.
    [[nodiscard]] Exchange request(std::string bytes, Deadline deadline) {
        const auto mine = std::make_shared<Request>();
        mine->bytes = std::move(bytes);
        mine->deadline = deadline;
        const Present present{callers_};
        Lock lock{mutex_};
        if (!add(mine)) return overflow();
        if (!std::exchange(driving_, true)) {
            drive(lock, mine);
        } else {
            // Not at the end of the round trip that is under way.
            gather(lock, deadline);
            if (!gathers_) write_now();
            lock.unlock();
            wait(mine);
        }
        return std::move(mine->exchange);
    }

    /// Sends the command `bytes` and returns. `then` is called once, with no lock held, by whoever
    /// reads the reply; it must be brief and must not call back. `repeat`: sent again after the
    /// connection broke, before all that comes later, until `deadline`. `corked`: leaves the
    /// writing to the next pump(), so that many go in one write.
    /// Throws: std::bad_alloc. Cost: nothing that the caller waits for.
    void send(std::string bytes, Deadline deadline, bool repeat,
              std::function<void(Exchange&)> then, bool corked = false) {
        const auto request = std::make_shared<Request>();
        request->bytes = std::move(bytes);
        request->deadline = deadline;
        request->repeat = repeat;
        request->then = std::move(then);
        Lock lock{mutex_};
        if (!add(request)) {
            lock.unlock();
            request->exchange = overflow();
            request->then(request->exchange);
            return;
        }
        if (corked || corks_ != 0) return;
        // The sender may hold locks of its own, so it does not wait for others to add theirs.
        if (!gathers_) write_now();
        call_for_attention(lock);
    }

    /// While it lives, what is sent and nobody waits for is not written by its sender, so that many
    /// go in one write: at its end, or with what somebody waits for.
    class Cork {
      public:
        explicit Cork(Pipeline& pipeline) : pipeline_{pipeline} {
            const Lock lock{pipeline_.mutex_};
            ++pipeline_.corks_;
        }
        Cork(const Cork&) = delete;
        Cork& operator=(const Cork&) = delete;
        ~Cork() {
            Lock lock{pipeline_.mutex_};
            if (--pipeline_.corks_ != 0 || pipeline_.queue_.unsent() == 0) return;
            pipeline_.write_now();
            pipeline_.call_for_attention(lock);
        }

      private:
        Pipeline& pipeline_;
    };

    /// Does what there is to do while no thread drives: sends, connects if it must, reads what has
    /// come, gives up a connection that does not answer. Does not wait for replies. `tick`: called
    /// now and then while it connects; returns false to stop.
    /// Returns: within what time to call it again; nothing if there is no need.
    template <class Tick>
    [[nodiscard]] std::optional<std::chrono::nanoseconds> pump(Deadline deadline, Tick&& tick) {
        Lock lock{mutex_};
        Ended ended;
        const bool free = !std::exchange(driving_, true);
        try {
            if (free) step(lock, at_once(), deadline, tick, ended);
            if (!free) write_now();
        } catch (...) {
            // Out of memory. Others go on with a connection whose state they can rely on.
            if (!lock.owns_lock()) lock.lock();
            broken_ = true;
            attended_ = false;
            hand_on(lock, ended);
            throw;
        }
        std::optional<std::chrono::nanoseconds> again;
        if (queue_.size() != 0) again = attention();
        attended_ = again.has_value();
        if (free) hand_on(lock, ended);
        return again;
    }

    /// For who waits for the replies of several pipelines: sends what is unsent and reads what has
    /// come, unless another thread does it. Neither waits nor connects.
    void pump_now() {
        Lock lock{mutex_};
        if (driving_ || !connected_ || queue_.size() == 0) return;
        driving_ = true;
        Ended ended;
        try {
            if (broken_) drop("the connection was given up", ended);
            if (connected_ && unfit()) drop("the server closed the connection", ended);
            if (connected_) write(lock, ended);
            if (connected_ && queue_.unanswered() != 0) read_ready(ended);
        } catch (...) {
            // Out of memory. Others go on with a connection whose state they can rely on.
            if (!lock.owns_lock()) lock.lock();
            broken_ = true;
            hand_on(lock, ended);
            throw;
        }
        hand_on(lock, ended);
    }

    /// Waits for the replies that are owed, sending and connecting once if it must.
    /// Requires: no other thread uses the pipeline any more.
    void drain(Deadline deadline) {
        Lock lock{mutex_};
        driving_ = true;
        attended_ = true;
        bool connected = true;
        while (connected && queue_.size() != 0 && !deadline.expired()) {
            Ended ended;
            detail::NoTick undisturbed;
            step(lock, deadline, deadline, undisturbed, ended);
            connected = connected_;
            lock.unlock();
            tell(ended);
            lock.lock();
        }
    }

    /// The file to poll for replies; -1 if none are owed, or some thread drives.
    [[nodiscard]] int awaited_file() const {
        const Lock lock{mutex_};
        return connected_ && !driving_ && queue_.unanswered() != 0 ? connection_.descriptor() : -1;
    }

    /// Drops the connection number `connection`, as after a reply that says it leads to the wrong
    /// server; does nothing if that is gone already.
    void disconnect(std::uint64_t connection) {
        const Lock lock{mutex_};
        if (connected_ && connections() == connection) broken_ = true;
    }

    [[nodiscard]] std::uint64_t connections() const noexcept { return connections_.load(); }
    [[nodiscard]] std::uint64_t requests() const noexcept { return requests_.load(); }
    [[nodiscard]] std::uint64_t writes() const noexcept { return writes_.load(); }

    /// In the child of a fork: closes the parent's socket there. Nothing else may be called.
    void close_in_child() const noexcept {
        if (const int file = connection_.descriptor(); file >= 0) ::close(file);
    }

  private:
    using Lock = std::unique_lock<std::mutex>;
    // Counts a thread as long as it lives.
    class Present {
      public:
        explicit Present(std::atomic<int>& count) noexcept : count_{count} {
            count_.fetch_add(1, std::memory_order_relaxed);
        }
        Present(const Present&) = delete;
        Present& operator=(const Present&) = delete;
        ~Present() { count_.fetch_sub(1, std::memory_order_relaxed); }

      private:
        std::atomic<int>& count_;
    };
    // What is done and is to be told without the lock.
    using Ended = std::vector<RequestPtr>;

    // How soon the keeper looks after replies that nobody waits for.
    static constexpr std::chrono::milliseconds look_after{20};
    // What a yield may cost beside a thread that computes, and some more.
    static constexpr std::chrono::milliseconds time_slice{10};

    [[nodiscard]] static Deadline at_once() noexcept {
        return Deadline::after(std::chrono::nanoseconds::zero());
    }

    [[nodiscard]] Exchange overflow() const {
        Exchange exchange;
        exchange.error = "more than " + std::to_string(options_.max_pending) +
                         " requests are under way (ClientOptions::max_pending)";
        return exchange;
    }

    [[nodiscard]] bool add(const RequestPtr& request) {
        if (!queue_.add(request)) return false;
        added_.store(added_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        return true;
    }

    // --- Waiting for one's reply or one's turn.

    void wait(const RequestPtr& mine) {
        if (lingering_.worth_it()) linger(*mine);
        for (;;) {
            const std::uint32_t state = mine->state.load();
            if (state == Request::done) return;
            if (state == Request::waiting) {
                if (mine->state.wait_while(Request::waiting, mine->deadline)) continue;
                const Lock lock{mutex_};
                if (mine->finished) return;
                if (mine->state.load() == Request::waiting) return give_up(mine);
            }
            Lock lock{mutex_};
            if (mine->finished) return hand_on(lock, {});
            return drive(lock, mine);
        }
    }

    // Before it sleeps: the reply may be on its way. In vain if something else was computed in the
    // meantime than what other threads asked for.
    void linger(const Request& mine) {
        const auto begin = Deadline::clock::now();
        const std::uint64_t before = added_.load(std::memory_order_relaxed);
        bool done = false;
        for (int i = 0; i < 3 && !done; ++i) {
            std::this_thread::yield();
            done = mine.state.load() != Request::waiting;
        }
        const std::uint64_t others = added_.load(std::memory_order_relaxed) - before;
        lingering_.learn(done ? others + 1 : 0, Deadline::clock::now() - begin);
    }

    void give_up(const RequestPtr& mine) {
        queue_.give_up(mine);
        mine->finished = true;
        mine->exchange.error = mine->exchange.outcome == Exchange::Outcome::not_sent
                                   ? "it could not be sent before the deadline"
                                   : "no reply in time";
    }

    // --- Driving. Requires: driving_, set by this thread or for it.

    // Until `mine` is finished; then passes the driving on.
    void drive(Lock& lock, const RequestPtr& mine) {
        Ended ended;
        try {
            detail::NoTick undisturbed;
            while (!mine->finished) {
                if (mine->deadline.expired()) {
                    give_up(mine);
                    break;
                }
                step(lock, mine->deadline, mine->deadline, undisturbed, ended);
                if (mine->finished || ended.empty()) continue;
                lock.unlock();
                tell(ended);
                ended.clear();
                lock.lock();
            }
        } catch (...) {
            // Out of memory. Others go on with a connection whose state they can rely on.
            if (!lock.owns_lock()) lock.lock();
            if (!mine->finished) give_up(mine);
            broken_ = true;
            hand_on(lock, ended);
            throw;
        }
        hand_on(lock, ended);
    }

    // The next one that waits drives, or nobody.
    void hand_on(Lock& lock, const Ended& ended) {
        const RequestPtr next = queue_.first_waiting();
        driving_ = next != nullptr;
        // Under the lock, so that it cannot give up in between.
        const bool wake = next && next->state.set_quietly(Request::drive);
        // What came while this thread read, and nobody waits for.
        if (!next && queue_.unsent() != 0) write_now();
        const bool call = !driving_ && queue_.size() != 0 && !std::exchange(attended_, true);
        const std::chrono::nanoseconds within = attention();
        lock.unlock();
        // First those who are served: what they ask next shares the write of the next driver.
        tell(ended);
        if (wake) next->state.wake();
        if (call) attend_(within);
    }

    static void tell(const Ended& ended) {
        for (const RequestPtr& request : ended) {
            if (request->then) {
                request->then(request->exchange);
            } else {
                request->state.set(Request::done);
            }
        }
    }

    void call_for_attention(Lock& lock) {
        const bool call = !driving_ && !std::exchange(attended_, true);
        const std::chrono::nanoseconds within = attention();
        lock.unlock();
        if (call) attend_(within);
    }

    [[nodiscard]] std::chrono::nanoseconds attention() const noexcept {
        if (connected_ && !broken_) return look_after;
        return std::clamp<std::chrono::nanoseconds>(reconnect_at_.remaining(),
                                                    std::chrono::nanoseconds::zero(), look_after);
    }

    void settle(RequestPtr request, Ended& ended) {
        request->finished = true;
        if (!request->abandoned) ended.push_back(std::move(request));
    }
    void settle(std::vector<RequestPtr> requests, Ended& ended) {
        for (RequestPtr& request : requests)
            settle(std::move(request), ended);
    }

    // One turn: connects if there is no connection and something to send, writes, waits at most
    // until `until` for replies, reads them. Collects in `ended` what is finished.
    template <class Tick>
    void step(Lock& lock, Deadline until, Deadline connect_by, Tick& tick, Ended& ended) {
        if (broken_) drop("the connection was given up", ended);
        if (connected_ && unfit()) drop("the server closed the connection", ended);
        if (!connected_) {
            if (queue_.unsent() == 0 || !connect(lock, connect_by, tick, ended)) return;
        }
        if (queue_.unsent() != 0) {
            gather(lock, until);
            if (broken_) return;
        }
        write(lock, ended);
        // What came while it wrote.
        if (connected_ && queue_.unsent() != 0) write(lock, ended);
        if (connected_ && queue_.unanswered() != 0) read(lock, until, tick, ended);
    }

    template <class Tick>
    [[nodiscard]] bool connect(Lock& lock, Deadline deadline, Tick& tick, Ended& ended) {
        if (!reconnect_at_.expired()) {
            settle(queue_.not_connected(last_error_), ended);
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
        std::vector<RequestPtr> failed = queue_.not_connected(last_error_);
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

    void drop(const std::string& why, Ended& ended) {
        connection_.close(queue_.unanswered() != 0);
        connected_ = false;
        broken_ = false;
        output_.clear();
        settle(queue_.disconnect(why), ended);
    }

    // Closed meanwhile, or with something in it that nobody asked for. Cost: a system call, but
    // none while replies are owed or shortly after one came: a server seldom closes then, and what
    // nobody asked for is told from a reply by the number that the reply repeats.
    [[nodiscard]] bool unfit() const {
        return queue_.unanswered() == 0 && Deadline::clock::now() - heard_ > look_before &&
               !connection_.is_ready();
    }

    // Lets others add what they are about to send, where that was seen to pay. The first of those
    // who come together does so, and then writes for all.
    void gather(Lock& lock, Deadline deadline) {
        const bool others = callers_.load(std::memory_order_relaxed) > 1;
        if (!others || gathers_ || deadline.expired_within(time_slice) || !gathering_.worth_it()) {
            return;
        }
        gathers_ = true;
        const std::uint64_t before = added_.load(std::memory_order_relaxed);
        lock.unlock();
        const auto begin = Deadline::clock::now();
        std::this_thread::yield();
        const auto took = Deadline::clock::now() - begin;
        lock.lock();
        gathers_ = false;
        gathering_.learn(added_.load(std::memory_order_relaxed) - before, took);
    }

    // Moves what is unsent into the output.
    void fill_output() {
        if (queue_.unsent() == 0) return;
        requests_.fetch_add(queue_.unsent(), std::memory_order_relaxed);
        queue_.take(output_, detail::BootClock::now(), Deadline::clock::now(), connections());
    }

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

    // The same for who does not drive: without waiting, and what goes wrong is left to the driver.
    void write_now() noexcept {
        if (queue_.unsent() == 0) return;
        try {
            try_write();
        } catch (const std::exception&) {
            broken_ = true;
        }
    }

    void try_write() {
        if (!connected_ || broken_ || sending_ || !output_.empty()) return;
        if (!driving_ && unfit()) {
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

    template <class Tick>
    void read(Lock& lock, Deadline until, Tick& tick, Ended& ended) {
        const bool sending = !output_.empty();
        const Deadline overdue = Deadline::at(queue_.oldest() + options_.response_timeout);
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
        if (connected_ && queue_.unanswered() != 0 &&
            Deadline::at(queue_.oldest() + options_.response_timeout).expired()) {
            drop("no reply in time", ended);
        }
    }

    void read_ready(Ended& ended) {
        std::vector<Reply> replies;
        const Io got =
            connection_.receive_ready([&](Reply&& reply) { replies.push_back(std::move(reply)); });
        accept(std::move(replies), got, ended);
    }

    void accept(std::vector<Reply> replies, Io got, Ended& ended) {
        const bool all = replies.size() == queue_.unanswered();
        if (replies.size() > queue_.unanswered() || (all && connection_.has_surplus())) {
            // Which of them answers what is anybody's guess.
            return drop("the server sent more replies than were asked for", ended);
        }
        if (!replies.empty()) {
            heard_ = Deadline::clock::now();
        }
        for (Reply& reply : replies)
            settle(queue_.answer(std::move(reply)), ended);
        if (got == Io::failed) drop(connection_.error(), ended);
    }

    const Endpoint& endpoint_;
    const ClientOptions& options_;
    const std::function<void(std::chrono::nanoseconds)> attend_;
    std::atomic<std::uint64_t> connections_{0};
    std::atomic<std::uint64_t> requests_{0};
    std::atomic<std::uint64_t> writes_{0};
    std::atomic<std::uint64_t> added_{0};  // requests; changed under the mutex
    std::atomic<int> callers_{0};          // threads that wait for replies
    YieldPolicy gathering_;
    YieldPolicy lingering_;

    mutable std::mutex mutex_;  // guards all below; the driver uses the connection without it
    RequestQueue queue_;
    std::string output_;    // taken from the queue and not sent yet
    bool driving_ = false;  // some thread drives
    bool gathers_ = false;  // some thread gathers, and then writes
    bool sending_ = false;  // the driver writes, without the lock
    bool connected_ = false;
    bool broken_ = false;    // to be dropped by the next driver
    bool attended_ = false;  // pump() will be called
    int corks_ = 0;
    Connection connection_;
    Deadline reconnect_at_ = at_once();
    Backoff backoff_;
    std::string last_error_;
    Deadline::clock::time_point heard_{};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_PIPELINE_HPP
