// SPDX-License-Identifier: MIT
//
// One connection (link.hpp) that many threads share, with no thread in between. A caller adds its
// request; if nobody drives the link, it becomes the driver: it writes all that was added, reads,
// hands each reply to its owner, and when its own has come passes the driving on to one that still
// waits. Requests that come meanwhile do not wait for that: the first of those that come together
// lets the others add theirs (gathering.hpp) and writes them all; only beside threads that compute
// they are left to the driver, who writes them when it has its reply. One thread alone pays what a
// connection of its own would cost; many share their system calls. Replies that nobody waits for
// are read by whoever drives next, or by the keeper, which is asked to have a look.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_PIPELINE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_PIPELINE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/socket_wait.hpp>
#include <codomyrmex/concurrency/redis/command.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/gathering.hpp>
#include <codomyrmex/concurrency/redis/link.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/request_queue.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unistd.h>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// Threads: safe, but for the destructor.
class Pipeline {
  public:
    /// How long nothing must have come for a request to be worth a look before it whether the
    /// server is still there, and has said nothing that nobody asked for. One that closed the
    /// connection since makes the request `unknown` where it otherwise would not be sent.
    static constexpr std::chrono::milliseconds look_before = Link::look_before;

    /// `attend`: called, with no lock held, when replies are owed and no thread drives: within the
    /// time given, pump() should be called. It must not call the pipeline.
    /// Requires: the first two outlive the pipeline. Does not connect yet.
    Pipeline(const Endpoint& endpoint, const ClientOptions& options,
             std::function<void(std::chrono::nanoseconds)> attend)
        : options_{options}, attend_{std::move(attend)}, link_{endpoint, options} {}
    Pipeline(const Pipeline&) = delete;
    Pipeline& operator=(const Pipeline&) = delete;
    ~Pipeline() = default;

    /// Sends `command` and waits for its reply, at most until `deadline`. A connection on
    /// which no reply comes for `response_timeout` is dropped, and this ends as unknown; a caller
    /// whose deadline comes first leaves it to the others, and its late reply is dropped.
    /// Throws: std::bad_alloc. Cost: one round trip.
    [[nodiscard]] Exchange request(Command command, Deadline deadline) {
        const auto mine = std::make_shared<Request>();
        mine->command = std::move(command);
        mine->deadline = deadline;
        const SendsWhatWasLeft last{*this};
        const Gathering::Present present{gathering_};
        Lock lock{mutex_};
        if (!add(mine)) return overflow();
        if (!std::exchange(driving_, true)) {
            drive(lock, mine);
        } else {
            // Mostly not at the end of the round trip that is under way.
            gathering_.gather(lock, deadline);
            if (!gathering_.left_to_others(owed(), driven_soon())) write_now();
            lock.unlock();
            wait(mine);
        }
        return std::move(mine->exchange);
    }

    /// Sends `command` and returns. `then` is called once, with no lock held, by whoever
    /// reads the reply; it must be brief and must not call back. `repeat`: sent again after the
    /// connection broke, before all that comes later, until `deadline`. `corked`: leaves the
    /// writing to the next pump(), so that many go in one write.
    /// Throws: std::bad_alloc. Cost: nothing that the caller waits for.
    template <std::invocable<Exchange&> Then>
    void send(Command command, Deadline deadline, bool repeat, Then then, bool corked = false) {
        const RequestPtr request = std::make_shared<RequestThen<Then>>(std::move(then));
        request->command = std::move(command);
        request->deadline = deadline;
        request->repeat = repeat;
        Lock lock{mutex_};
        if (!add(request)) {
            lock.unlock();
            request->exchange = overflow();
            request->tell();
            return;
        }
        if (corked || corks_ != 0) return;
        // The sender may hold locks of its own, so it does not wait for others to add theirs.
        const bool later =
            gathering_.under_way() || (driving_ ? owed() && driven_soon() && gathering_.crowded()
                                                : gathering_.leave_behind());
        if (!later) write_now();
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
            if (--pipeline_.corks_ != 0 || pipeline_.link_.queue.unsent() == 0) return;
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
    /// Throws: std::bad_alloc.
    template <class Tick>
    [[nodiscard]] std::optional<std::chrono::nanoseconds> pump(Deadline deadline, Tick&& tick) {
        Lock lock{mutex_};
        Ended ended;
        const bool free = !std::exchange(driving_, true);
        try {
            if (free) {
                const Deadline at_once = Deadline::after(std::chrono::nanoseconds::zero());
                step(lock, at_once, deadline, tick, ended);
            } else {
                write_now();
            }
        } catch (...) {
            // Out of memory. Others go on with a connection whose state they can rely on.
            if (!lock.owns_lock()) lock.lock();
            link_.give_connection_up();
            attended_ = false;
            hand_on(lock, ended);
            throw;
        }
        std::optional<std::chrono::nanoseconds> again;
        if (link_.queue.size() != 0) again = attention();
        attended_ = again.has_value();
        if (free) hand_on(lock, ended);
        return again;
    }

    /// For who waits for the replies of several pipelines: sends what is unsent and reads what has
    /// come, unless another thread does it. Neither waits nor connects.
    /// Throws: std::bad_alloc.
    void pump_now() {
        Lock lock{mutex_};
        if (driving_ || !link_.connected() || link_.queue.size() == 0) return;
        driving_ = true;
        Ended ended;
        try {
            link_.drop_unfit(ended);
            if (link_.connected()) link_.write(lock, ended);
            if (link_.connected() && link_.queue.unanswered() != 0) link_.read_ready(ended);
        } catch (...) {
            // Out of memory. Others go on with a connection whose state they can rely on.
            if (!lock.owns_lock()) lock.lock();
            link_.give_connection_up();
            hand_on(lock, ended);
            throw;
        }
        hand_on(lock, ended);
    }

    /// Waits for the replies that are owed, sending and connecting once if it must.
    /// Requires: no other thread uses the pipeline any more. Throws: std::bad_alloc.
    void drain(Deadline deadline) {
        Lock lock{mutex_};
        driving_ = true;
        attended_ = true;
        bool connected = true;
        while (connected && link_.queue.size() != 0 && !deadline.expired()) {
            Ended ended;
            detail::NoTick undisturbed;
            step(lock, deadline, deadline, undisturbed, ended);
            connected = link_.connected();
            lock.unlock();
            tell(ended);
            lock.lock();
        }
    }

    /// The file to poll for replies; -1 if none are owed, or some thread drives.
    [[nodiscard]] int awaited_file() const {
        const Lock lock{mutex_};
        return link_.connected() && !driving_ && link_.queue.unanswered() != 0 ? link_.descriptor()
                                                                               : -1;
    }

    /// Drops the connection number `connection`, as after a reply that says it leads to the wrong
    /// server; does nothing if that is gone already.
    void disconnect(std::uint64_t connection) {
        const Lock lock{mutex_};
        if (link_.connected() && connections() == connection) link_.give_connection_up();
    }

    /// How many there were so far; the first is also the number of the connection that is open.
    [[nodiscard]] std::uint64_t connections() const noexcept { return link_.connections(); }
    [[nodiscard]] std::uint64_t requests() const noexcept { return link_.requests(); }
    [[nodiscard]] std::uint64_t writes() const noexcept { return link_.writes(); }

    /// In the child of a fork: closes the parent's socket there. Nothing else may be called.
    void close_in_child() const noexcept {
        if (const int file = link_.descriptor(); file >= 0) ::close(file);
    }

  private:
    using Lock = Link::Lock;
    using Ended = Link::Ended;

    // What a thread does whatever way it leaves, when it is not present any more.
    struct SendsWhatWasLeft {
        Pipeline& pipeline;
        explicit SendsWhatWasLeft(Pipeline& of) noexcept : pipeline{of} {}
        SendsWhatWasLeft(const SendsWhatWasLeft&) = delete;
        SendsWhatWasLeft& operator=(const SendsWhatWasLeft&) = delete;
        ~SendsWhatWasLeft() {
            if (!pipeline.gathering_.left_behind()) return;
            const Lock lock{pipeline.mutex_};
            const bool by_others = pipeline.driving_ || pipeline.gathering_.under_way();
            if (!by_others) pipeline.write_now();
        }
    };

    // How soon the keeper looks after replies that nobody waits for.
    static constexpr std::chrono::milliseconds look_after{20};

    [[nodiscard]] bool owed() const noexcept { return link_.queue.unanswered() != 0; }
    // Whether some thread drives that will write again soon. Over a long way it will not.
    [[nodiscard]] bool driven_soon() const noexcept {
        return driving_ && link_.round_trip() < Gathering::time_slice;
    }

    [[nodiscard]] Exchange overflow() const {
        Exchange exchange;
        exchange.error = "more than " + std::to_string(options_.max_pending) +
                         " requests are under way (ClientOptions::max_pending)";
        return exchange;
    }

    [[nodiscard]] bool add(const RequestPtr& request) {
        if (!link_.queue.add(request)) return false;
        gathering_.added();
        return true;
    }

    // --- Waiting for one's reply or one's turn.

    void wait(const RequestPtr& mine) {
        gathering_.linger(mine->deadline, [&] { return mine->state.load() != Request::waiting; });
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

    void give_up(const RequestPtr& mine) {
        link_.queue.give_up(mine);
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
            link_.give_connection_up();
            hand_on(lock, ended);
            throw;
        }
        hand_on(lock, ended);
    }

    // The next one that waits drives, or nobody.
    void hand_on(Lock& lock, const Ended& ended) {
        const RequestPtr next = link_.queue.first_waiting();
        driving_ = next != nullptr;
        // Under the lock, so that it cannot give up in between.
        const bool wake = next && next->state.set_quietly(Request::drive);
        // What came while this thread read, and nobody waits for.
        if (!next && link_.queue.unsent() != 0) write_now();
        const bool call = !driving_ && link_.queue.size() != 0 && !std::exchange(attended_, true);
        const std::chrono::nanoseconds within = attention();
        lock.unlock();
        // First those who are served: what they ask next shares the write of the next driver.
        tell(ended);
        if (wake) next->state.wake();
        if (call) attend_(within);
    }

    static void tell(const Ended& ended) {
        for (const RequestPtr& request : ended) {
            if (request->waited_for) {
                request->state.set(Request::done);
            } else {
                request->tell();
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
        if (link_.connected() && !link_.broken()) return look_after;
        return std::min<std::chrono::nanoseconds>(link_.pause(), look_after);
    }

    // One turn: connects if there is no connection and something to send, writes, waits at most
    // until `until` for replies, reads them. Collects in `ended` what is finished.
    template <class Tick>
    void step(Lock& lock, Deadline until, Deadline connect_by, Tick& tick, Ended& ended) {
        link_.drop_unfit(ended);
        if (!link_.connected()) {
            if (link_.queue.unsent() == 0 || !link_.connect(lock, connect_by, tick, ended)) return;
        }
        if (link_.queue.unsent() != 0) {
            gathering_.gather(lock, until);
            if (link_.broken()) return;
        }
        link_.write(lock, ended);
        // What came while it wrote.
        if (link_.connected() && link_.queue.unsent() != 0) link_.write(lock, ended);
        if (link_.connected() && link_.queue.unanswered() != 0) {
            link_.read(lock, until, tick, ended);
        }
    }

    void write_now() noexcept { link_.write_now(driving_); }

    const ClientOptions& options_;
    const std::function<void(std::chrono::nanoseconds)> attend_;  // asks for pump()
    Gathering gathering_;

    mutable std::mutex mutex_;  // guards all below; the driver uses the connection without it
    bool driving_ = false;      // some thread drives
    bool attended_ = false;     // pump() will be called
    int corks_ = 0;             // that live
    Link link_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_PIPELINE_HPP
