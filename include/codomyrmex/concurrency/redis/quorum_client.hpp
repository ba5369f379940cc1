// SPDX-License-Identifier: MIT
//
// Several independent Redis masters as one thing to lock with: the client of a QuorumLock. It asks
// all at once and goes by the majority, so any minority may be down, slow or forgetful. Where one
// master is enough, a RedisClient does more for less: queues, hand-over, retention.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_CLIENT_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_CLIENT_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/per_process.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/acquisition.hpp>
#include <codomyrmex/concurrency/redis/client.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/quorum_commands.hpp>
#include <codomyrmex/concurrency/redis/quorum_core.hpp>
#include <codomyrmex/concurrency/redis/quorum_options.hpp>
#include <codomyrmex/concurrency/redis/released.hpp>

#include <cstddef>
#include <exception>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency {

/// A cheap handle to a quorum of N independent masters, shared by its copies; it keeps a copy of
/// each client. Masters, not replicas of each other: what one forgets the others must know.
///
/// A majority is N/2 + 1. Three nodes go on with one down, five with two. An even number is allowed
/// and no better than one less; one alone is a RedisClient without its queue. All who lock a name
/// must name the same nodes.
///
/// The child of a fork() makes a core of its own at its first use; what the parent holds stays the
/// parent's.
///
/// Threads: safe.
class QuorumClient {
  public:
    /// A majority's leases add up to no count of permits or readers: two may be granted by
    /// majorities of different nodes. LockManager refuses those kinds for this reason.
    using holds_of_different_majorities_do_not_add_up = void;

    /// A quorum of these clients' servers. Sends nothing yet.
    /// Throws: LockError(invalid_argument) unless there are 1 to 64, at different servers and of
    /// one key prefix, and the options keep their bounds.
    // NOLINTBEGIN(google-explicit-constructor): `QuorumLock lock{"name", {a, b, c}}` and the like.
    QuorumClient(std::initializer_list<RedisClient> clients, QuorumOptions options = {})
        : QuorumClient{std::vector<RedisClient>(clients), std::move(options)} {}
    QuorumClient(std::span<const RedisClient> clients, QuorumOptions options = {})
        : QuorumClient{std::vector<RedisClient>(clients.begin(), clients.end()),
                       std::move(options)} {}
    QuorumClient(std::vector<RedisClient> clients, QuorumOptions options = {})
        : root_{std::make_shared<Root>(std::move(clients), std::move(options))} {}
    // NOLINTEND(google-explicit-constructor)

    /// The clients of its nodes, in the order in which they were named.
    [[nodiscard]] const std::vector<RedisClient>& clients() const noexcept {
        return root_->clients;
    }

    /// Its options, with the first client's hooks in place of those that were not set.
    [[nodiscard]] const QuorumOptions& options() const noexcept { return root_->options; }

    /// What it did so far.
    [[nodiscard]] QuorumStats stats() const { return root_->core().stats(); }

    // --- for the primitives; what a LockClient needs (lock.hpp) ---

    /// The keys and checked options of the lock `name`. Those that are about the queue or retention
    /// have no effect here.
    /// Throws: LockError(invalid_argument).
    [[nodiscard]] std::shared_ptr<const redis::LockIdentity> identify(std::string_view name,
                                                                      LeaseOptions options) const {
        return std::make_shared<const redis::LockIdentity>(redis::make_quorum_identity(
            root_->clients.front().options().prefix, name, std::move(options)));
    }

    /// Waits for the lock as `wait` says. Returns: null if it was not obtained.
    /// Throws: LockError: backend_unavailable, naming each node's reason, if no majority can be
    /// reached; whatever the nodes may have done is undone in the background.
    /// Cost: one round trip to the slowest of the fastest majority when free; one more where the
    /// nodes drew different fencing tokens, as for the first time.
    [[nodiscard]] std::shared_ptr<redis::Hold> acquire(
        const std::shared_ptr<const redis::LockIdentity>& identity, const redis::Wait& wait) {
        return root_->core().acquire(identity, wait);
    }

    /// Gives a hold back to all nodes and tells whether a majority still had it; `unknown` if no
    /// majority answers while the lease would have lasted.
    /// Cost: one round trip; none if the lease was lost before.
    [[nodiscard]] redis::Released release(const std::shared_ptr<redis::Hold>& hold,
                                          Deadline deadline) {
        if (hold->forked()) return redis::Released::lost;
        return root_->core().release(hold, deadline);
    }

    /// Gives a hold back without waiting for the nodes. Returns: lost if that is known here
    /// already; else ours.
    redis::Released give_back(const std::shared_ptr<redis::Hold>& hold) noexcept {
        if (hold->forked()) return redis::Released::lost;
        return root_->core().give_back(hold);
    }

    /// Renews a lease at a majority now. Returns: false if it was lost.
    /// Throws: LockError(backend_unavailable) if no majority answers by the deadline.
    /// Cost: one round trip.
    bool renew(const std::shared_ptr<redis::Hold>& hold, Deadline deadline) {
        if (hold->forked()) return false;
        return root_->core().renew(hold, deadline);
    }

    /// Tells the hook `on_error` of a misuse that nobody else can be told of.
    void report(LockErrc errc, const std::string& what) noexcept {
        root_->core().report(errc, what);
    }

  private:
    // What outlives a fork.
    struct Root {
        Root(std::vector<RedisClient> of, QuorumOptions with)
            : clients{checked(std::move(of))},
              options{effective(clients, std::move(with))},
              core_{make_core()} {}
        Root(const Root&) = delete;
        Root& operator=(const Root&) = delete;

        ~Root() {
            std::unique_ptr<redis::QuorumCore> last = core_.take();
            if (!last) return;
            std::vector<bool> owes;
            for (std::size_t node = 0; node < clients.size(); ++node)
                owes.push_back(last->owes(node));
            last.reset();
            end_side_by_side(owes);
        }

        [[nodiscard]] redis::QuorumCore& core() {
            return core_.get([this] { return make_core(); });
        }

        std::vector<RedisClient> clients;
        const QuorumOptions options;

      private:
        [[nodiscard]] std::unique_ptr<redis::QuorumCore> make_core() {
            std::vector<std::shared_ptr<redis::KeeperState>> links;
            for (RedisClient& client : clients)
                links.push_back(client.link());
            return std::make_unique<redis::QuorumCore>(links, options);
        }

        // A client that is ours alone waits a little for what is unanswered; several, together.
        void end_side_by_side(const std::vector<bool>& owes) noexcept {
            try {
                std::vector<std::jthread> threads;
                for (std::size_t node = 0; node < clients.size(); ++node) {
                    if (!owes[node]) continue;
                    const detail::SignalsBlocked blocked;
                    threads.emplace_back([client = std::move(clients[node])] {});
                }
            } catch (const std::exception&) {
                // Then one after the other.
            }
        }

        [[nodiscard]] static bool same_server(const Endpoint& a, const Endpoint& b) {
            return a.transport == b.transport && a.path == b.path &&
                   (a.transport == Transport::unix_socket ||
                    (a.host == b.host && a.port == b.port));
        }

        [[nodiscard]] static std::vector<RedisClient> checked(std::vector<RedisClient> clients) {
            const auto refuse = [](const std::string& why) {
                throw LockError(LockErrc::invalid_argument, "QuorumClient: " + why);
            };
            if (clients.empty() || clients.size() > 64) {
                refuse("a quorum has 1 to 64 clients, not " + std::to_string(clients.size()));
            }
            for (std::size_t i = 0; i < clients.size(); ++i) {
                if (clients[i].options().prefix != clients[0].options().prefix) {
                    refuse("the clients have different key prefixes");
                }
                for (std::size_t j = 0; j < i; ++j) {
                    if (same_server(clients[i].endpoint(), clients[j].endpoint())) {
                        refuse("the server " + clients[i].endpoint().to_string() +
                               " is named twice; one server has one vote");
                    }
                }
            }
            return clients;
        }

        [[nodiscard]] static QuorumOptions effective(const std::vector<RedisClient>& clients,
                                                     QuorumOptions options) {
            redis::validate(options);
            const ClientHooks& first = clients.front().options().hooks;
            if (!options.hooks.on_lost) options.hooks.on_lost = first.on_lost;
            if (!options.hooks.on_error) options.hooks.on_error = first.on_error;
            return options;
        }

        detail::PerProcess<redis::QuorumCore> core_;
    };

    std::shared_ptr<Root> root_;
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_CLIENT_HPP
