// SPDX-License-Identifier: MIT
//
// Several private redis-servers for a quorum, each behind a proxy or not, and what stands in them.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_QUORUM_NODES_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_QUORUM_NODES_HPP

#include <codomyrmex/concurrency/redis/client.hpp>
#include <codomyrmex/concurrency/redis/quorum_client.hpp>
#include <codomyrmex/concurrency/redis/quorum_options.hpp>

#include "support/fault_proxy.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace test_support {

/// N servers and as many proxies. Clients go through the proxies, `server(i).command()` does not.
class QuorumNodes {
  public:
    explicit QuorumNodes(std::size_t count, bool proxies = false) {
        for (std::size_t i = 0; i < count; ++i) {
            servers_.push_back(std::make_unique<RedisServer>());
            if (proxies) proxies_.push_back(std::make_unique<FaultProxy>(servers_.back()->url()));
        }
    }

    [[nodiscard]] std::size_t size() const noexcept { return servers_.size(); }
    [[nodiscard]] RedisServer& server(std::size_t node) { return *servers_[node]; }
    [[nodiscard]] FaultProxy& proxy(std::size_t node) { return *proxies_[node]; }
    [[nodiscard]] std::string url(std::size_t node) const {
        return proxies_.empty() ? servers_[node]->url() : proxies_[node]->url();
    }

    /// New clients of all of them, as of another process.
    [[nodiscard]] std::vector<codomyrmex::concurrency::RedisClient> clients(
        const codomyrmex::concurrency::ClientOptions& options = {}) const {
        std::vector<codomyrmex::concurrency::RedisClient> clients;
        for (std::size_t node = 0; node < size(); ++node)
            clients.emplace_back(url(node), options);
        return clients;
    }

    /// A quorum of new clients. The servers have just started, so that does not count.
    [[nodiscard]] codomyrmex::concurrency::QuorumClient quorum(
        codomyrmex::concurrency::QuorumOptions options = {},
        const codomyrmex::concurrency::ClientOptions& each = {}) const {
        if (!options.min_uptime) options.min_uptime = std::chrono::milliseconds{0};
        return {clients(each), options};
    }

    /// The token that has a node's vote; empty if it is free.
    [[nodiscard]] std::string holder(std::size_t node, const std::string& name) {
        const std::string value = server(node).command({"GET", key(name)}).text;
        return value.substr(0, value.find(' '));
    }
    [[nodiscard]] std::string fence(std::size_t node, const std::string& name) {
        return server(node).command({"GET", key(name) + ":fence"}).text;
    }
    /// How many nodes have given their vote.
    [[nodiscard]] std::size_t held(const std::string& name) {
        std::size_t count = 0;
        for (std::size_t node = 0; node < size(); ++node)
            if (!holder(node, name).empty()) ++count;
        return count;
    }
    /// Waits until `count` have. Returns: how many have then; another number if that does not come
    /// about.
    [[nodiscard]] std::size_t await_held(const std::string& name, std::size_t count) {
        std::size_t seen = 0;
        (void)support::eventually([&] { return (seen = held(name)) == count; });
        return seen;
    }

    /// A node's vote as another process has it, called `other`, for longer than a test lasts.
    static constexpr const char* other = "other";
    void give_to_other(std::size_t node, const std::string& name) {
        server(node).command({"SET", key(name), std::string{other} + " 1", "PX", "60000"});
    }
    /// Takes a node's vote from whoever has it, as if the node had forgotten.
    void forget(std::size_t node, const std::string& name) {
        server(node).command({"DEL", key(name)});
    }

    [[nodiscard]] static std::string key(const std::string& name) {
        return "codomyrmex:quorum:{" + name + "}";
    }

  private:
    std::vector<std::unique_ptr<RedisServer>> servers_;
    std::vector<std::unique_ptr<FaultProxy>> proxies_;
};

/// Every two of five.
[[nodiscard]] inline std::vector<std::array<std::size_t, 2>> pairs_of_five() {
    std::vector<std::array<std::size_t, 2>> all;
    for (std::size_t a = 0; a < 5; ++a)
        for (std::size_t b = a + 1; b < 5; ++b)
            all.push_back({a, b});
    return all;
}

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_QUORUM_NODES_HPP
