// SPDX-License-Identifier: MIT
//
// Tests of claimant.hpp: under which names this process asks, and what it counts.

#include <codomyrmex/concurrency/redis/claimant.hpp>

#include "support/catch2.hpp"
#include "support/keeper_bench.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using support::eventually;
using test_support::KeeperBench;
using test_support::patient;
using test_support::RedisServer;

std::shared_ptr<const LockIdentity> identity(LeaseOptions options = {}) {
    return std::make_shared<const LockIdentity>(
        make_identity("codomyrmex:", "name", std::move(options)));
}

constexpr const char* nowhere = "unix:///no/such.sock";

}  // namespace

TEST_CASE("A process is called anew each time, and hears under its prefix") {
    const ProcessName one = make_process_name("p:");
    const ProcessName two = make_process_name("p:");
    CHECK(one.id.size() == 32);
    CHECK(one.id.find_first_not_of("0123456789abcdef") == std::string::npos);
    CHECK(one.id != two.id);
    CHECK(one.prefix == "p:");
    CHECK(one.channel == "p:wake:" + one.id);
    // For people it is the same process.
    CHECK(one.holder == two.holder);
    CHECK(one.holder.ends_with(':' + std::to_string(::getpid()) + ':'));
}

TEST_CASE("Tokens begin with the process' name, never repeat, and tell if one will be retained") {
    KeeperBench keeper{nowhere};
    constexpr int threads = 4;
    constexpr std::size_t each = 500;
    std::array<std::vector<std::string>, threads> made;
    const auto usual = identity();
    support::run_together(threads, [&](int thread) {
        for (std::size_t i = 0; i < each; ++i)
            made.at(static_cast<std::size_t>(thread))
                .push_back(keeper.claimant.make_tenure(usual)->token());
    });
    std::set<std::string> all;
    for (const auto& tokens : made)
        all.insert(tokens.begin(), tokens.end());
    CHECK(all.size() == threads * each);
    const std::string head = keeper.state->name.id + '-';
    CHECK(std::ranges::all_of(all, [&](const std::string& token) {
        return token.starts_with(head) && token.size() > head.size() &&
               token.find_first_not_of("0123456789abcdef", head.size()) == std::string::npos;
    }));
    const std::string retained = keeper.claimant.make_tenure(identity({.retain = 1s}))->token();
    CHECK(retained.starts_with(head));
    CHECK(retained.ends_with('r'));
    CHECK_FALSE(keeper.claimant.make_tenure(usual)->forked());
}

TEST_CASE("A holder is called by its thread and its label, in which nothing controls a terminal") {
    KeeperBench keeper{nowhere};
    const std::string plain = keeper.claimant.text(*identity());
    CHECK(plain.starts_with(keeper.state->name.holder));
    CHECK(plain.find(' ') == std::string::npos);
    CHECK(plain != support::on_another_thread([&] { return keeper.claimant.text(*identity()); }));
    // Bytes above ASCII stay: a label may be in any language.
    const std::string label{"a\0b\x1b[2J\x7f\n\xc3\xa4 z", 13};
    CHECK(keeper.claimant.text(*identity({.label = label})) == plain + " a?b?[2J??\xc3\xa4 z");
}

TEST_CASE("It tells that another was seen to hold it, and counts what another's release gave it") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    KeeperBench keeper{server.url()};
    KeeperBench elsewhere{server.url()};
    const auto ask = [](Claimant& who, const Wait& wait, bool& contended) {
        return who.acquire(identity({.ttl = 10min}), 1, wait, Deadline::after(20s), false,
                           contended);
    };
    bool contended = false;
    const auto first = ask(elsewhere.claimant, wait_until(Deadline::never()), contended);
    REQUIRE(first);
    CHECK_FALSE(contended);
    CHECK_FALSE(ask(keeper.claimant, wait_not(), contended));
    CHECK(contended);

    contended = false;
    std::shared_ptr<Tenure> second;
    std::jthread waiter{[&] {
        second = ask(keeper.claimant, wait_until(Deadline::after(support::patience)), contended);
    }};
    CHECK(eventually([&] {
        return server.command({"ZCARD", "codomyrmex:lock:{name}:queue"}).number == 1;
    }));
    elsewhere.state->release(first, nullptr);
    waiter.join();
    REQUIRE(second);
    CHECK(contended);
    CHECK(keeper.claimant.grants() == 1);
    CHECK(elsewhere.claimant.grants() == 0);
    // What was known before stays known.
    keeper.state->release(second, nullptr);
    const auto third = ask(keeper.claimant, wait_until(Deadline::never()), contended);
    REQUIRE(third);
    CHECK(contended);
    CHECK(keeper.claimant.grants() == 1);
    keeper.state->release(third, nullptr);
}
