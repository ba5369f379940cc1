// SPDX-License-Identifier: MIT
//
// Tests of acquisition.hpp: one thread that asks a server for a lock, through a proxy where answers
// must be late or lost. How many of them wait is hand_over_test.cpp's.

#include <codomyrmex/concurrency/redis/acquisition.hpp>

#include "support/catch2.hpp"
#include "support/fault_proxy.hpp"
#include "support/keeper_bench.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using support::error_of;
using support::eventually;
using test_support::Fault;
using test_support::FaultProxy;
using test_support::KeeperBench;
using test_support::patient;
using test_support::RedisServer;

const std::string lock_key = "codomyrmex:lock:{name}";

bool exists(RedisServer& server) {
    return server.command({"EXISTS", lock_key}).number == 1;
}
/// Who stands in line, with its score.
std::string line(RedisServer& server) {
    std::string text;
    for (const auto& each :
         server.command({"ZRANGE", lock_key + ":queue", "0", "-1", "WITHSCORES"}).elements)
        text += each.text + '\n';
    return text;
}
/// How many scripts were called.
std::uint64_t scripts_run(RedisServer& server) {
    return server.command_stats("evalsha").calls + server.command_stats("eval").calls;
}
/// Has a connection made, if there is none.
void connect(const KeeperBench& keeper) {
    (void)keeper.state->pipeline.request(encode({"PING"}), Deadline::after(support::patience));
}
/// Somebody else holds it.
void hold_elsewhere(RedisServer& server) {
    server.command({"SET", lock_key, "another h:1:2 1700000000", "PX", "600000"});
}

/// One that asks for "name", once.
class Asking {
  public:
    explicit Asking(KeeperBench& keeper, Wait wait = wait_until(Deadline::never()),
                    std::chrono::milliseconds ttl = 10min, bool contended = false)
        : keeper_{*keeper.state},
          wait_{std::move(wait)},
          tenure_{keeper.claimant.make_tenure(std::make_shared<const LockIdentity>(
              make_identity("codomyrmex:", "name", {.ttl = ttl})))},
          acquisition_{std::in_place,
                       keeper_,
                       tenure_,
                       keeper.claimant.text(tenure_->identity()),
                       1,
                       wait_,
                       Deadline::after(keeper_.options.patience),
                       contended} {}
    Asking(const Asking&) = delete;
    Asking& operator=(const Asking&) = delete;
    ~Asking() {
        if (obtained_) give_back();
    }

    bool run() { return obtained_ = acquisition_->run(); }
    /// Ends it, which gives up what was not obtained.
    void end() { acquisition_.reset(); }
    /// Gives back what was obtained.
    void give_back() {
        obtained_ = false;
        keeper_.release(tenure_, nullptr);
    }

    [[nodiscard]] const Acquisition& acquisition() const { return acquisition_.value(); }
    [[nodiscard]] Tenure& tenure() const { return *tenure_; }
    [[nodiscard]] bool valid() const { return tenure_->valid_at(detail::BootClock::now()); }

  private:
    KeeperState& keeper_;
    const Wait wait_;
    const std::shared_ptr<Tenure> tenure_;
    std::optional<Acquisition> acquisition_;
    bool obtained_ = false;
};

}  // namespace

TEST_CASE("Who has no time left tries once, and who has waits until then or until asked to stop") {
    CHECK_FALSE(wait_not().for_holders);
    CHECK_FALSE(wait_until(Deadline::after(-1h)).for_holders);
    CHECK(wait_until(Deadline::never()).for_holders);
    const Deadline later = Deadline::after(1h);
    std::stop_source source;
    const Wait wait = wait_until(later, source.get_token());
    CHECK(wait.for_holders);
    CHECK(wait.deadline == later);
    CHECK_FALSE(wait.stop.stop_requested());
    source.request_stop();
    CHECK(wait.stop.stop_requested());
}

TEST_CASE(
    "A waiter asks again when the lease, a grant's time or ten seconds are over, not at once") {
    CHECK(ask_again_after(300ms, 1s) == 300ms);
    CHECK(ask_again_after(30s, 1s) == 1s);
    CHECK(ask_again_after(30s, 20s) == 10s);
    CHECK(ask_again_after(24h, 1h) == 10s);
    CHECK(ask_again_after(0ms, 1s) == 1ms);
    CHECK(ask_again_after(-5ms, 1s) == 1ms);
}

TEST_CASE("validity counts from before the request was sent") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    KeeperBench keeper{proxy.url()};
    proxy.delay(100ms);
    Asking asking{keeper, wait_not(), 10s};
    REQUIRE(asking.run());
    CHECK(asking.valid());
    CHECK(asking.tenure().deadline() - detail::BootClock::now() <=
          10s - 100ms - drift_allowance(10s));
    CHECK(keeper.state->watched() == 1);
}

TEST_CASE("an answer that takes longer than the lease is an error, and nothing is left behind") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    KeeperBench keeper{proxy.url()};
    proxy.delay(60ms);
    Asking asking{keeper, wait_until(Deadline::after(support::patience)), 50ms};
    CHECK(error_of([&] { (void)asking.run(); }) == LockErrc::validity_exhausted);
    CHECK(server.command_stats("set").calls == 2);  // the lock, and its fencing token
    CHECK_FALSE(asking.valid());
    asking.end();
    // By its release, which does not wait for its time.
    CHECK(eventually([&] { return scripts_run(server) == 2; }));
    CHECK(eventually([&] { return !exists(server); }));
    CHECK(keeper.state->watched() == 0);
}

TEST_CASE("an acquire whose reply was lost is resolved by its token") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    KeeperBench keeper{proxy.url()};
    proxy.add(Fault::lose_reply().on("EVAL"));
    Asking asking{keeper};
    REQUIRE(asking.run());
    CHECK(proxy.hits(0) == 1);
    CHECK(asking.valid());
    CHECK_FALSE(asking.acquisition().contended());
    // A copy may be executed once more, after the release.
    CHECK(asking.tenure().doubtful());
    CHECK(server.command({"GET", lock_key}).text.starts_with(asking.tenure().token() + ' '));
    // The fence went on: nobody can have seen that of the first copy.
    CHECK(server.command({"GET", lock_key + ":fence"}).text ==
          std::to_string(asking.tenure().take_fence()));
    asking.give_back();
    CHECK(eventually([&] { return !exists(server); }));
}

TEST_CASE("A request that the server executes after it was given up leaves no lock") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    KeeperBench keeper{proxy.url()};
    connect(keeper);
    const auto held = proxy.add(Fault::hold_request().on("EVAL"));
    Asking asking{keeper, wait_until(Deadline::after(300ms))};
    CHECK(error_of([&] { (void)asking.run(); }) == LockErrc::backend_unavailable);
    REQUIRE(proxy.hits(held) == 1);
    // Its release overtakes it by another connection, and finds nothing yet.
    keeper.state->pipeline.disconnect(1);
    asking.end();
    REQUIRE(eventually([&] { return scripts_run(server) == 1; }));
    CHECK(keeper.state->releasing() == 1);
    proxy.release();
    CHECK(eventually([&] { return server.command_stats("set").calls == 2; }));
    CHECK(eventually([&] { return !exists(server) && keeper.state->releasing() == 0; }));
}

TEST_CASE("By a wrong idea of the server's clock it asks too late, learns better and has it") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    KeeperBench keeper{server.url()};
    const auto now = std::chrono::system_clock::now();
    keeper.state->clock.learn(std::chrono::time_point_cast<ServerTime::duration>(now - 1h),
                              detail::BootClock::now());
    Asking asking{keeper};
    REQUIRE(asking.run());
    CHECK(keeper.state->pipeline.requests() == 2);
    CHECK(asking.valid());
    CHECK_FALSE(asking.acquisition().contended());
    Asking again{keeper, wait_not()};
    CHECK_FALSE(again.run());
    CHECK(again.acquisition().contended());
    CHECK(keeper.state->pipeline.requests() == 3);
}

TEST_CASE("A time that is over without an answer is an error, unless it was seen to be held") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    KeeperBench keeper{proxy.url()};
    connect(keeper);
    proxy.set(FaultProxy::Mode::black_hole);
    Asking first{keeper, wait_until(Deadline::after(100ms))};
    CHECK(error_of([&] { (void)first.run(); }) == LockErrc::backend_unavailable);
    Asking contended{keeper, wait_until(Deadline::after(100ms)), 10min, true};
    CHECK_FALSE(contended.run());
    // The request may yet be executed.
    CHECK(contended.tenure().doubtful());
}

TEST_CASE("Who asks again and again stands in line once, and leaves it when asked to stop") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    hold_elsewhere(server);
    ClientOptions options = patient();
    options.grant_ttl = 10ms;
    KeeperBench keeper{server.url(), options};
    std::stop_source source;
    Asking asking{keeper, wait_until(Deadline::never(), source.get_token())};
    bool obtained = true;
    std::jthread thread{[&] { obtained = asking.run(); }};
    CHECK(eventually([&] { return !line(server).empty(); }));
    const std::string place = line(server);
    CHECK(place.starts_with(asking.tenure().token() + " 10 1 "));
    const auto asked = keeper.state->pipeline.requests();
    CHECK(eventually([&] { return keeper.state->pipeline.requests() >= asked + 5; }));
    CHECK(line(server) == place);
    source.request_stop();
    thread.join();
    CHECK_FALSE(obtained);
    CHECK(asking.acquisition().contended());
    asking.end();
    CHECK(eventually([&] { return line(server).empty(); }));
    CHECK(exists(server));
}

TEST_CASE("A grant is taken up as it comes, but on a connection made since it is asked for again") {
    if (!RedisServer::available()) SKIP("no redis-server");
    const bool reconnects = GENERATE(false, true);
    CAPTURE(reconnects);
    RedisServer server;
    // So that it does not ask again by itself while the test lasts, nor renews.
    ClientOptions options = patient();
    options.grant_ttl = 10min;
    KeeperBench keeper{server.url(), options};
    KeeperBench elsewhere{server.url(), options};
    Asking holder{elsewhere};
    REQUIRE(holder.run());
    Asking asking{keeper, wait_until(Deadline::after(support::patience))};
    bool obtained = false;
    std::jthread thread{[&] { obtained = asking.run(); }};
    REQUIRE(eventually([&] { return !line(server).empty(); }));
    if (reconnects) {
        // Once it has its answer, for that comes before this one's.
        connect(keeper);
        keeper.state->pipeline.disconnect(1);
        // Perhaps to another server, for all it knows.
        connect(keeper);
        REQUIRE(keeper.state->pipeline.connections() == 2);
    }
    const auto asked = keeper.state->pipeline.requests();
    holder.give_back();
    thread.join();
    REQUIRE(obtained);
    CHECK(asking.valid());
    CHECK(asking.acquisition().contended());
    CHECK(asking.acquisition().handed_over() == !reconnects);
    CHECK(keeper.state->pipeline.requests() == asked + (reconnects ? 1 : 0));
}
