// SPDX-License-Identifier: MIT
//
// How all nodes of a quorum are asked at once: each over the connection of its own client, and
// their answers counted on whatever thread reads them. It never waits for a node: who is slow or
// down is left to the thread of that node's client, which connects and reads.
//
// It is kept by requests under way, too, so it refers to the clients' connections without owning
// them: they own the requests.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_CALLER_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_CALLER_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/quorum_ballot.hpp>
#include <codomyrmex/concurrency/redis/quorum_node.hpp>
#include <codomyrmex/concurrency/redis/quorum_options.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <poll.h>
#include <string>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Nodes are named by their numbers, from 0. Threads: safe.
class QuorumCaller : public std::enable_shared_from_this<QuorumCaller> {
  public:
    /// One node. What changes is guarded by lock().
    struct Node {
        explicit Node(const std::shared_ptr<KeeperState>& to)
            : link{*to}, owner{to}, name{to->endpoint.to_string()} {}
        KeeperState& link;
        const std::weak_ptr<KeeperState> owner;
        const std::string name;
        NodeMemory memory{};
        std::string trouble{};      ///< the last, unless it answered since
        std::uint64_t to_drop = 0;  ///< a connection whose order or server is in doubt

        /// For people.
        [[nodiscard]] std::string why_silent() const {
            return trouble.empty() ? "it does not answer" : trouble;
        }
    };

    /// While a node whose answer is waited for has no connection, or another thread reads there.
    static constexpr std::chrono::milliseconds look_again{16};

    /// Requires of who calls any other member: that the clients of `links` live meanwhile.
    QuorumCaller(const std::vector<std::shared_ptr<KeeperState>>& links, QuorumOptions with)
        : options{std::move(with)} {
        nodes_.reserve(links.size());
        for (const auto& link : links)
            nodes_.push_back(std::make_unique<Node>(link));
    }

    const QuorumOptions options;
    Desks desks;  ///< for the threads that wait for answers

    [[nodiscard]] std::size_t size() const noexcept { return nodes_.size(); }
    [[nodiscard]] Node& node(std::size_t number) noexcept { return *nodes_[number]; }

    /// The clients' connections, kept while the result lives. Returns: none if one is gone.
    [[nodiscard]] std::vector<std::shared_ptr<KeeperState>> keep_links() const {
        std::vector<std::shared_ptr<KeeperState>> links;
        for (const auto& node : nodes_)
            links.push_back(node->owner.lock());
        if (std::ranges::find(links, nullptr) != links.end()) links.clear();
        return links;
    }

    /// Guards ballots, desks and nodes. Not to be held while something is sent.
    [[nodiscard]] std::unique_lock<std::mutex> lock() const { return std::unique_lock{mutex_}; }

    /// Whether that node is not to be asked at `now`, for an answer is not to be expected.
    [[nodiscard]] bool silent(std::size_t number, BootTime now) const {
        const auto guard = lock();
        return nodes_[number]->memory.silent(now, options.node_timeout);
    }

    /// Whether a request to that node has not ended.
    [[nodiscard]] bool owes(std::size_t number) const {
        const auto guard = lock();
        return nodes_[number]->memory.owed() != 0;
    }

    /// Sends `command` to a node. `then(exchange)`: called once when it has ended, under the lock,
    /// by whatever thread; must not throw but for want of memory. `repeat`: to be sent again after
    /// a connection broke, until `deadline`. `corked`: more follows at once. Requires: the lock is
    /// not held. Throws: std::bad_alloc.
    template <class Then>
    // NOLINTNEXTLINE(performance-unnecessary-value-param): it is moved on.
    void send(std::size_t number, Command command, Deadline deadline, bool repeat, Then then,
              bool corked = false) {
        Node& node = *nodes_[number];
        std::uint64_t drop = 0;
        {
            const auto guard = lock();
            drop = std::exchange(node.to_drop, 0);
            node.memory.asked(detail::BootClock::now());
        }
        if (drop != 0) node.link.pipeline.disconnect(drop);
        try {
            node.link.pipeline.send(
                std::move(command), deadline, repeat,
                [self = shared_from_this(), &node, then = std::move(then)](Exchange& exchange) {
                    const auto guard = self->lock();
                    const bool answered = exchange.outcome == Exchange::Outcome::answered;
                    node.memory.ended(detail::BootClock::now(), answered);
                    try {
                        node.trouble = answered ? std::string{} : exchange.error;
                        then(exchange);
                    } catch (const std::exception&) {
                        // Out of memory: as if there had been no answer.
                    }
                },
                corked);
        } catch (...) {
            const auto guard = lock();
            node.memory.ended(detail::BootClock::now(), false);
            throw;
        }
    }

    /// What a node answered, as `read` reads it; what that means for the next request
    /// to the node is learned, and its clock where the answer has a `time`.
    /// Requires: the lock is held.
    /// Returns: nothing if there was no answer, an error, or what nobody reads.
    template <class Read>
    [[nodiscard]] auto hear(Node& node, const Exchange& exchange, Read read)
        -> decltype(read(exchange.reply)) {
        if (exchange.outcome != Exchange::Outcome::answered) return {};
        if (exchange.reply.is_error()) {
            learn_error(node, exchange);
            return {};
        }
        auto answer = read(exchange.reply);
        if (!answer) {
            node.to_drop = exchange.connection;
        } else if constexpr (requires { answer->time; }) {
            node.link.clock.learn(answer->time, exchange.sent);
        }
        return answer;
    }

    /// What an error reply means for the next request to that node. Requires: the lock is held.
    /// Returns: what is to be told of it; backend_unavailable for what passes.
    LockErrc learn_error(Node& node, const Exchange& exchange) {
        switch (classify(exchange.reply.text).kind) {
            case ServerErrorKind::rediscover:
                node.to_drop = exchange.connection;
                break;
            case ServerErrorKind::foreign_key:
                return LockErrc::foreign_key;
            case ServerErrorKind::redirect:
                return LockErrc::unsupported;
            case ServerErrorKind::refused:
                return LockErrc::backend_refused;
            case ServerErrorKind::load_script:
            case ServerErrorKind::retry:
            case ServerErrorKind::mismatch:
            case ServerErrorKind::unknown_outcome:
                break;
        }
        return LockErrc::backend_unavailable;
    }

    /// Waits until `ballot` is decided, at most until `limit`, and reads answers meanwhile.
    /// Requires: it has a desk, at which no other thread waits.
    template <class Content>
    void await(Ballot<Content>& ballot, Deadline limit) {
        std::vector<std::size_t> waited_for;
        waited_for.reserve(size());
        for (std::chrono::milliseconds look{1};; look = std::min(look * 2, look_again)) {
            waited_for.clear();
            {
                const auto guard = lock();
                if (ballot.content.decided()) return;
                for (std::size_t number = 0; number < size(); ++number)
                    if (ballot.content.waits_for(number)) waited_for.push_back(number);
                ballot.desk->sleep_begins();
            }
            sleep(*ballot.desk, waited_for, limit, look);
            if (limit.expired()) return;
        }
    }

    /// Sleeps at `desk` until it is notified or a node of `waited_for` answers, which is then read;
    /// at most until `limit`, and for `look` where such a node has no connection to wait for.
    /// Requires: under the lock, sleep_begins() was called. Threads: whoever sits at the desk.
    void sleep(Desk& desk, const std::vector<std::size_t>& waited_for, Deadline limit,
               std::chrono::milliseconds look) {
        std::vector<pollfd>& files = desk.files;
        files.clear();
        files.push_back({desk.descriptor(), POLLIN, 0});
        for (const std::size_t number : waited_for) {
            const int file = nodes_[number]->link.pipeline.awaited_file();
            if (file < 0) limit = std::min(limit, Deadline::after(look));
            files.push_back({file, POLLIN, 0});
        }
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(limit.remaining()).count();
        ::poll(files.data(), static_cast<nfds_t>(files.size()),
               static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000)));
        {
            const auto guard = lock();
            desk.sleep_ends();
        }
        if (files[0].revents != 0) desk.drain();
        for (std::size_t i = 0; i < waited_for.size(); ++i)
            if (files[i + 1].revents != 0) nodes_[waited_for[i]]->link.pipeline.pump_now();
    }

  private:
    std::vector<std::unique_ptr<Node>> nodes_;
    mutable std::mutex mutex_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_CALLER_HPP
