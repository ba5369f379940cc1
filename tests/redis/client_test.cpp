// SPDX-License-Identifier: MIT
//
// Tests of client.hpp, with client_options.hpp: what a RedisClient goes by, what its copies share,
// how it ends, and what becomes of it in the child of a fork.

#include <codomyrmex/concurrency/redis/client.hpp>
#include <codomyrmex/concurrency/redis/lock.hpp>

#include "support/catch2.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using support::error_of;
using support::eventually;
using support::message_of;
using test_support::ExitStatus;
using test_support::Process;
using test_support::RedisServer;

namespace {

const std::string lock_key = "codomyrmex:lock:{name}";

}  // namespace

TEST_CASE("a timeout in the URL goes before that of the options, which are checked with it") {
    const ClientOptions options{.patience = 1s, .connect_timeout = 2s, .response_timeout = 3s};
    const RedisClient client{"unix:///no/such.sock?connect_timeout=20s&response_timeout=30s",
                             options};
    CHECK(client.options().patience == 1s);
    CHECK(client.options().connect_timeout == 20s);
    CHECK(client.options().response_timeout == 30s);
    // One that the URL mends.
    const RedisClient mended{"unix:///no/such.sock?patience=10s", {.patience = 0s}};
    CHECK(mended.options().patience == 10s);
}

TEST_CASE("options that will not do are refused by their name before anything is sent") {
    struct Row {
        std::string what;
        ClientOptions options;
    };
    for (const Row& row :
         {Row{"patience", {.patience = 0s}}, Row{"connect_timeout", {.connect_timeout = -1ns}},
          Row{"response_timeout", {.response_timeout = 0s}}, Row{"grant_ttl", {.grant_ttl = 9ms}},
          Row{"grant_ttl", {.grant_ttl = 1h + 1ms}}, Row{"max_pending", {.max_pending = 0}},
          Row{"prefix", {.prefix = ""}}, Row{"prefix", {.prefix = "a{b:"}},
          Row{"prefix", {.prefix = "a}b:"}}}) {
        CAPTURE(row.what);
        const auto make = [&] { RedisClient{"unix:///no/such.sock", row.options}; };
        CHECK(error_of(make) == LockErrc::invalid_argument);
        CHECK_THAT(message_of(make), ContainsSubstring("ClientOptions::" + row.what));
    }
    for (const ClientOptions& options :
         {ClientOptions{.patience = 1ns, .connect_timeout = 1ns, .response_timeout = 1ns},
          ClientOptions{.grant_ttl = 10ms}, ClientOptions{.grant_ttl = 1h, .max_pending = 1}}) {
        CHECK(error_of([&] { RedisClient{"unix:///no/such.sock", options}; }) == std::error_code{});
    }
}

TEST_CASE("copies share one connection and its counts, and the last to go closes it") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    const auto clients = [&] { return server.info("connected_clients"); };
    REQUIRE(clients() == "1");  // that which asks
    const auto connections = [&] { return std::stoull(server.info("total_connections_received")); };
    const auto before = connections();
    {
        std::optional<RedisClient> client{std::in_place, server.url()};
        CHECK(client->stats().connections == 0);
        CHECK(clients() == "1");
        RedisClient copy{*client};
        std::vector<Lease> leases;
        for (int i = 0; i < 50; ++i) {
            leases.push_back(RedisLock{std::to_string(i), i % 2 == 0 ? copy : *client}.lease());
        }
        CHECK(clients() == "2");
        CHECK(copy.stats().connections == 1);
        CHECK(copy.stats().leases_watched == 50);
        CHECK(copy.stats().requests == client->stats().requests);
        client.reset();
        CHECK(leases.front().renew());
        CHECK(clients() == "2");
    }
    CHECK(eventually([&] { return clients() == "1"; }));
    CHECK(connections() == before + 1);
    // Each was given back on the way.
    CHECK(server.command({"KEYS", "codomyrmex:lock:*}"}).elements.empty());
}

TEST_CASE("a client's end does not wait for a server that stopped, which still gets its release") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    std::optional<RedisClient> client{std::in_place, server.url()};
    std::optional<Lease> lease{RedisLock{"name", *client, {.ttl = 10min}}.lease()};
    server.stop();
    const auto begin = std::chrono::steady_clock::now();
    client.reset();
    lease.reset();
    const auto took = std::chrono::steady_clock::now() - begin;
    server.cont();
    // 120 ms are promised; the machine may be busy.
    CHECK(took < 2s);
    CHECK(eventually([&] { return server.command({"EXISTS", lock_key}).number == 0; }));
}

TEST_CASE("hooks may throw, call back, and drop the last handle") {
    RedisServer server;
    std::atomic<int> calls{0};
    std::optional<RedisClient> client;
    std::optional<RedisLock> other;
    std::optional<Lease> lease;
    const auto hook = [&](const LostLease&) {
        other->lock();
        other->unlock();
        lease.reset();
        other.reset();
        client.reset();
        ++calls;
        throw std::runtime_error("ours");
    };
    client.emplace(server.url(), ClientOptions{.hooks = {.on_lost = hook}});
    other.emplace("other", *client);
    lease = RedisLock{"name", *client, {.ttl = 100ms}}.lease();
    server.command({"DEL", lock_key});
    CHECK(eventually([&] { return calls.load() == 1; }));

    RedisClient throwing{server.url(),
                         {.hooks = {.on_error = [](const auto&, const auto&) { throw 1; }}}};
    RedisLock lock{"name", throwing};
    lock.unlock();
    CHECK(throwing.stats().hook_exceptions == 1);
}

TEST_CASE("the child of a fork has no part in its parent's lease and a client of its own") {
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client, {.ttl = 2s}};
    Lease lease = lock.lease();
    const std::string parents_token{lease.token()};
    Process child = Process::run([&] {
        if (lease.valid() || lease.remaining() > 0s || lease.renew()) return 1;
        std::error_code code;
        lease.unlock(code);
        if (code != LockErrc::lease_lost) return 2;
        RedisLock own{"child", client};
        const Lease mine = own.try_lease_for(5s);
        if (!mine || mine.token().substr(0, 32) == parents_token.substr(0, 32)) return 3;
        if (client.stats().connections != 1) return 4;
        RedisLock same{"name", client};
        return same.try_lock() ? 5 : 0;
    });
    CHECK(child.wait() == ExitStatus{0, 0});
    CHECK(lease.valid());
    CHECK(lease.renew());
    CHECK(client.stats().connections == 1);
    CHECK(lease.release());
}
