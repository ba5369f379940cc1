// SPDX-License-Identifier: MIT
//
// Tests of permits.hpp: conversions and resizings whose answers are late, lost or against us. What
// comes of them otherwise is seen in read_write_lock_test.cpp and semaphore_test.cpp.

#include <codomyrmex/concurrency/redis/permits.hpp>

#include "support/catch2.hpp"
#include "support/fault_proxy.hpp"
#include "support/keeper_bench.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using support::error_of;
using support::eventually;
using test_support::Fault;
using test_support::FaultProxy;
using test_support::KeeperBench;
using test_support::patient;
using test_support::RedisServer;

const std::string pool_key = "codomyrmex:sem:{pool}";

/// Permits of a semaphore of five, from a server behind a proxy.
struct Bench {
    RedisServer server;
    FaultProxy proxy{server.url()};
    std::mutex mutex;
    std::vector<LostLease> told;
    KeeperBench keeper{proxy.url(), options()};
    Permits permits{keeper.claimant};

    ClientOptions options() {
        ClientOptions all = patient();
        all.hooks.on_lost = [this](const LostLease& loss) {
            const std::lock_guard guard{mutex};
            told.push_back(loss);
        };
        return all;
    }

    [[nodiscard]] static std::shared_ptr<const LockIdentity> identity(std::ptrdiff_t weight) {
        return std::make_shared<const LockIdentity>(
            make_permit_identity("codomyrmex:", "pool", 5, weight, {.ttl = 10min}));
    }
    std::shared_ptr<Hold> acquire(std::ptrdiff_t weight) {
        auto hold = permits.acquire(identity(weight), wait_not());
        REQUIRE(hold);
        return hold;
    }
    /// As a client gives it back, which a lost one must be, too.
    void give_back(const std::shared_ptr<Hold>& hold) {
        hold->end();
        hold->tenure()->used_by(nullptr);
        keeper.state->release(hold->tenure(), nullptr);
    }

    /// What the server says that all have together.
    std::string used() { return server.command({"HGET", pool_key + ":meta", "used"}).text; }
    std::string capacity() { return server.command({"HGET", pool_key + ":meta", "capacity"}).text; }
    std::string fence() { return server.command({"GET", pool_key + ":fence"}).text; }
    std::vector<LostLease> losses() {
        const std::lock_guard guard{mutex};
        return told;
    }
};

}  // namespace

TEST_CASE("A conversion whose answer was lost is repeated, and done once") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const auto hold = bench.acquire(4);
    const auto stop = hold->stop_token();
    const auto lost = bench.proxy.add(Fault::lose_reply().on("EVAL"));
    const auto next = bench.permits.reweigh(hold, 2, Deadline::never());
    CHECK(bench.proxy.hits(lost) == 1);
    REQUIRE(next);
    CHECK(next->valid());
    CHECK_FALSE(hold->valid());
    CHECK_FALSE(hold->held());
    CHECK(next->token() == hold->token());
    CHECK(next->fence() > hold->fence());
    CHECK(std::to_string(next->fence()) == bench.fence());
    CHECK(next->stop_token() == stop);
    CHECK(bench.used() == "2");
    // Whoever finds it lost tells the one that took its place.
    CHECK(next->tenure()->user() == next);
    bench.give_back(next);
    CHECK(eventually([&] { return bench.server.command({"EXISTS", pool_key}).number == 0; }));
}

TEST_CASE("A conversion without room, or without an answer, leaves the hold as it was") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const auto other = bench.acquire(3);
    const auto hold = bench.acquire(1);
    CHECK_FALSE(bench.permits.reweigh(hold, 3, Deadline::never()));
    CHECK(hold->valid());
    CHECK(bench.used() == "4");

    // What is executed late, when that was given up, takes no effect after the next conversion.
    const auto held = bench.proxy.add(Fault::hold_request().on("EVALSHA"));
    std::string what;
    try {
        (void)bench.permits.reweigh(hold, 2, Deadline::after(200ms));
    } catch (const LockError& error) {
        CHECK(error.code() == LockErrc::backend_unavailable);
        what = error.what();
    }
    CHECK_THAT(what, ContainsSubstring("cannot convert 'pool'"));
    REQUIRE(bench.proxy.hits(held) == 1);
    CHECK(hold->valid());
    CHECK(hold->tenure()->user() == hold);
    bench.give_back(other);
    bench.keeper.state->pipeline.disconnect(1);
    const auto next = bench.permits.reweigh(hold, 5, Deadline::never());
    REQUIRE(next);
    CHECK(bench.used() == "5");
    const auto calls = bench.server.command_stats("evalsha").calls;
    bench.proxy.release();
    CHECK(eventually([&] { return bench.server.command_stats("evalsha").calls > calls; }));
    CHECK(bench.used() == "5");
    CHECK(next->valid());
    CHECK(bench.losses().empty());
    bench.give_back(next);
}

TEST_CASE("A conversion of what the server no longer has is a loss, told once") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const auto hold = bench.acquire(2);
    CHECK(bench.keeper.state->watched() == 1);
    bench.server.command({"DEL", pool_key, pool_key + ":meta"});
    CHECK(error_of([&] { (void)bench.permits.reweigh(hold, 1, Deadline::never()); }) ==
          LockErrc::lease_lost);
    CHECK_FALSE(hold->valid());
    CHECK(hold->stop_token().stop_requested());
    CHECK(bench.keeper.state->watched() == 0);
    REQUIRE(bench.losses().size() == 1);
    CHECK(bench.losses()[0].name == "pool");
    CHECK(bench.losses()[0].fence == hold->fence());
    // And nothing is asked of the server for what is known to be lost.
    const auto requests = bench.keeper.state->pipeline.requests();
    CHECK(error_of([&] { (void)bench.permits.reweigh(hold, 1, Deadline::never()); }) ==
          LockErrc::lease_lost);
    CHECK(bench.keeper.state->pipeline.requests() == requests);
    CHECK(bench.losses().size() == 1);
    bench.give_back(hold);
}

TEST_CASE(
    "By a wrong idea of the server's clock a resizing is too late, learns better and is done") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const auto hold = bench.acquire(2);
    const auto resize = [&](std::uint64_t capacity) {
        return bench.permits.resize(*Bench::identity(1), capacity, Deadline::never());
    };
    CHECK(resize(7) == 5);
    const auto now = std::chrono::system_clock::now();
    bench.keeper.state->clock.learn(std::chrono::time_point_cast<ServerTime::duration>(now - 1h),
                                    detail::BootClock::now());
    const auto requests = bench.keeper.state->pipeline.requests();
    // Not 9: the first of the two requests changed nothing.
    CHECK(resize(9) == 7);
    CHECK(bench.keeper.state->pipeline.requests() == requests + 2);
    CHECK(bench.capacity() == "9");
    CHECK(resize(5) == 9);
    CHECK(bench.keeper.state->pipeline.requests() == requests + 3);
    CHECK(hold->valid());
    bench.give_back(hold);
}
