// SPDX-License-Identifier: MIT
//
// RedisLock: its rules on a client without a server, where every answer is chosen; then on a real
// one, where leases are renewed and lost.

#include <codomyrmex/concurrency/recursive.hpp>
#include <codomyrmex/concurrency/redis/lock.hpp>

#include "support/catch2.hpp"
#include "support/fake_client.hpp"
#include "support/fault_proxy.hpp"
#include "support/process.hpp"
#include "support/redis_cluster.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::eventually;
using test_support::FakeClient;
using test_support::Fault;
using test_support::FaultProxy;
using test_support::RedisServer;

namespace {

using FakeLock = BasicRedisLock<FakeClient>;

/// How long `call` takes.
std::chrono::milliseconds time_of(const std::function<void()>& call) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    return std::chrono::ceil<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
}

const std::string lock_key = "codomyrmex:lock:{name}";

}  // namespace

// --- Without a server
// -----------------------------------------------------------------------------

TEST_CASE("a free lock is held after lock() and free after unlock()") {
    FakeClient client;
    FakeLock lock{"name", client};
    CHECK(lock.fence() == 0);
    CHECK_FALSE(lock.valid());
    lock.lock();
    CHECK(lock.valid());
    CHECK(lock.fence() == 1);
    CHECK(lock.remaining() > 0s);
    CHECK(client.holder("name") == "token-1");
    lock.unlock();
    CHECK_FALSE(lock.valid());
    CHECK(lock.fence() == 0);
    CHECK(client.holder("name").empty());
    CHECK(client.reports().empty());
}

TEST_CASE("what is held elsewhere is contention: false, no error, error codes cleared") {
    FakeClient client;
    client.hold_elsewhere("name");
    FakeLock lock{"name", client};
    CHECK_FALSE(lock.try_lock());
    CHECK_FALSE(lock.try_lock_for(0s));
    CHECK_FALSE(lock.try_lock_for(-1h));
    CHECK_FALSE(lock.try_lock_until(std::chrono::system_clock::time_point{}));
    CHECK(client.acquires().size() == 4);
    for (const redis::Wait& wait : client.acquires())
        CHECK_FALSE(wait.for_holders);
    std::error_code code = LockErrc::not_held;
    CHECK_FALSE(lock.try_lock(code));
    CHECK_FALSE(code);
    CHECK_FALSE(lock.try_lease(code));
    CHECK_FALSE(code);
    CHECK(client.releases().empty());
}

TEST_CASE("waiting ends by its deadline") {
    FakeClient client;
    client.hold_elsewhere("name");
    FakeLock lock{"name", client};
    bool acquired = true;
    const auto took = time_of([&] { acquired = lock.try_lock_for(30ms); });
    CHECK_FALSE(acquired);
    CHECK(took >= 30ms);
    CHECK(took < 2s);
}

TEST_CASE("waiting ends when it is asked to stop") {
    FakeClient client;
    client.hold_elsewhere("name");
    FakeLock lock{"name", client};
    std::stop_source source;
    std::atomic<bool> acquired{true};
    std::thread waiter{[&] { acquired = lock.lock(source.get_token()); }};
    CHECK(eventually([&] { return client.acquires().size() == 1; }));
    source.request_stop();
    waiter.join();
    CHECK_FALSE(acquired);
    CHECK_FALSE(lock.lease(source.get_token()));
    CHECK_FALSE(lock.try_lock_for(1h, source.get_token()));
    CHECK_FALSE(lock.try_lease_until(std::chrono::steady_clock::now() + 1h, source.get_token()));
    CHECK_FALSE(lock.valid());
}

TEST_CASE("a timeout too large for the clock waits for good") {
    FakeClient client;
    FakeLock lock{"name", client};
    CHECK(lock.try_lock_for(std::chrono::hours::max()));
    lock.unlock();
    CHECK(lock.try_lock_until(std::chrono::steady_clock::time_point::max()));
    lock.unlock();
    CHECK(
        lock.try_lock_for(std::chrono::duration<double>{std::numeric_limits<double>::infinity()}));
    lock.unlock();
}

TEST_CASE("unlocking what is not held is told and sends nothing") {
    FakeClient client;
    FakeLock lock{"name", client};
    std::error_code code;
    lock.unlock(code);
    CHECK(code == LockErrc::not_held);
    lock.lock();
    lock.unlock(code);
    CHECK_FALSE(code);
    lock.unlock(code);
    CHECK(code == LockErrc::not_held);
    lock.unlock();
    CHECK(client.releases().size() == 1);
    CHECK(client.reports() ==
          std::vector{LockErrc::not_held, LockErrc::not_held, LockErrc::not_held});
}

TEST_CASE("a lost lock may be locked again, and the late unlock leaves the new hold alone") {
    FakeClient client;
    FakeLock lock{"name", client};
    std::error_code first_unlock;
    std::atomic<bool> second_holds{false};
    std::atomic<bool> first_done{false};
    lock.lock();
    client.lose("name");
    CHECK_FALSE(lock.valid());
    CHECK(lock.stop_token().stop_requested() == true);
    std::thread second{[&] {
        lock.lock();
        second_holds = true;
        while (!first_done)
            std::this_thread::yield();
        lock.unlock();
    }};
    CHECK(eventually([&] { return second_holds.load(); }));
    lock.unlock(first_unlock);
    CHECK(first_unlock == LockErrc::lease_lost);
    CHECK(client.holder("name") == "token-2");
    CHECK(lock.valid());
    first_done = true;
    second.join();
    CHECK(client.holder("name").empty());
}

TEST_CASE("the same thread may lock again what it lost, and unlocks both") {
    FakeClient client;
    FakeLock lock{"name", client};
    std::unique_lock first{lock};
    client.lose("name");
    {
        std::unique_lock second{lock};
        CHECK(lock.valid());
    }
    CHECK(client.holder("name").empty());
    std::error_code code;
    lock.unlock(code);
    CHECK(code == LockErrc::lease_lost);
    first.release();
}

TEST_CASE("a guard may be unlocked on another thread") {
    FakeClient client;
    FakeLock lock{"name", client};
    std::unique_lock guard{lock};
    std::thread{[moved = std::move(guard)]() mutable { moved.unlock(); }}.join();
    CHECK(client.holder("name").empty());
    CHECK(client.reports().empty());
}

TEST_CASE("an exception in the critical section releases and goes on") {
    FakeClient client;
    FakeLock lock{"name", client};
    CHECK_THROWS_AS(
        [&] {
            const std::scoped_lock guard{lock};
            throw std::logic_error("ours");
        }(),
        std::logic_error);
    CHECK(client.holder("name").empty());
}

TEST_CASE("lock(ec) holds if and only if there is no error") {
    FakeClient client;
    bool failing = true;
    client.on_acquire([&] {
        if (failing) throw LockError(LockErrc::backend_refused, "no");
    });
    FakeLock lock{"name", client};
    std::error_code code;
    lock.lock(code);
    CHECK(code == LockErrc::backend_refused);
    CHECK_FALSE(lock.valid());
    CHECK_THROWS_AS(lock.lock(), LockError);
    CHECK_THROWS_AS((void)lock.try_lease(), LockError);
    failing = false;
    lock.lock(code);
    CHECK_FALSE(code);
    CHECK(lock.valid());
    lock.unlock();
}

TEST_CASE("threads that share a lock exclude each other and all get their turn") {
    FakeClient client;
    FakeLock lock{"name", client};
    int inside = 0;
    int most = 0;
    int total = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            for (int turn = 0; turn < 200; ++turn) {
                const std::scoped_lock guard{lock};
                most = std::max(most, ++inside);
                ++total;
                --inside;
            }
        });
    }
    for (std::thread& each : threads)
        each.join();
    CHECK(most == 1);
    CHECK(total == 800);
}

TEST_CASE("destroying a lock releases what it holds inside") {
    FakeClient client;
    {
        FakeLock lock{"name", client};
        lock.lock();
    }
    CHECK(client.holder("name").empty());
}

TEST_CASE("an unlock without an answer is unknown, never lost") {
    FakeClient client;
    FakeLock lock{"name", client};
    client.answer_releases(redis::Released::unknown);
    lock.lock();
    std::error_code code;
    lock.unlock(code);
    CHECK(code == LockErrc::unknown_outcome);
}

TEST_CASE("the standard's guards and a condition variable work with it") {
    FakeClient client;
    FakeLock a{"a", client};
    FakeLock b{"b", client};
    {
        const std::scoped_lock both{a, b};
        CHECK((a.valid() && b.valid()));
    }
    if (const std::unique_lock guard{a, 100ms}) CHECK(a.valid());
    std::condition_variable_any changed;
    bool ready = false;
    std::thread other{[&] {
        const std::scoped_lock guard{a};
        ready = true;
        changed.notify_one();
    }};
    {
        std::unique_lock guard{a};
        changed.wait(guard, [&] { return ready; });
        CHECK(a.valid());
    }
    other.join();
    CHECK(client.holder("a").empty());
}

TEST_CASE("Recursive lets the holding thread in again") {
    FakeClient client;
    Recursive<FakeLock> lock{"name", client};
    lock.lock();
    lock.lock();
    CHECK(client.acquires().size() == 1);
    CHECK(lock.fence() == 1);
    lock.unlock();
    CHECK_FALSE(client.holder("name").empty());
    lock.unlock();
    CHECK(client.holder("name").empty());
}

TEST_CASE("names and options out of bounds are refused before anything is sent") {
    FakeClient client;
    const auto refused = [&](const std::string& name, LeaseOptions options) {
        try {
            const FakeLock lock{name, client, options};
        } catch (const LockError& error) {
            return error.code() == LockErrc::invalid_argument;
        }
        return false;
    };
    CHECK(refused("", {}));
    CHECK(refused(std::string(513, 'x'), {}));
    CHECK(refused("x", {.ttl = 0ms}));
    CHECK(refused("x", {.ttl = -1ms}));
    CHECK(refused("x", {.ttl = 9ms}));
    CHECK(refused("x", {.ttl = 24h + 1ms}));
    CHECK(refused("x", {.max_hold = -1ms}));
    CHECK_FALSE(refused(std::string(512, 'x'), {.ttl = 10ms}));
    CHECK_FALSE(refused(std::string("\r\n\0{}%", 6), {.ttl = 24h}));
    CHECK(client.acquires().empty());
}

// --- With a server
// --------------------------------------------------------------------------------

TEST_CASE("two clients exclude each other, and fencing tokens increase") {
    RedisServer server;
    RedisClient one{server.url()};
    RedisClient two{server.url()};
    std::uint64_t last = 0;
    for (int i = 0; i < 20; ++i) {
        RedisLock a{"name", one};
        RedisLock b{"name", two};
        const Lease lease = a.lease();
        CHECK(lease.fence() > last);
        last = lease.fence();
        CHECK_FALSE(b.try_lock());
        CHECK_FALSE(lease.contended());
    }
    CHECK(server.command({"KEYS", "*lock:{name}"}).elements.empty());
    // A restart that forgets everything: the clock goes on.
    server.restart();
    RedisLock a{"name", one};
    CHECK(a.lease().fence() > last);
}

TEST_CASE("names with any bytes exclude each other and stay apart from others") {
    RedisServer server;
    RedisClient client{server.url()};
    const std::vector<std::string> names{"a",     "{a}", "%7Ba%7D", std::string("a\0", 2),
                                         "a\r\n", "}"};
    std::vector<Lease> leases;
    for (const std::string& name : names) {
        RedisLock lock{name, client};
        leases.push_back(lock.try_lease());
        CAPTURE(name);
        CHECK(leases.back().valid());
        RedisLock again{name, client};
        CHECK_FALSE(again.try_lock());
    }
}

TEST_CASE("a lease is renewed far beyond its time to live, and not after its release") {
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client, {.ttl = 600ms}};
    Lease lease = lock.lease();
    CHECK(eventually([&] { return client.stats().renewals >= 6; }));
    CHECK(lease.valid());
    CHECK_FALSE(lease.stop_token().stop_requested());
    CHECK(lease.release());
    const auto renewals = client.stats().renewals;
    std::this_thread::sleep_for(300ms);
    CHECK(client.stats().renewals == renewals);
    CHECK(client.stats().leases_watched == 0);
}

TEST_CASE("a lease that another took over is lost, is told, and leaves the other alone") {
    RedisServer server;
    std::mutex mutex;
    std::vector<LostLease> told;
    RedisClient client{server.url(), {.hooks = {.on_lost = [&](const LostLease& lease) {
                                          const std::lock_guard guard{mutex};
                                          told.push_back(lease);
                                      }}}};
    RedisLock lock{"name", client, {.ttl = 150ms}};
    Lease lease = lock.lease();
    const auto fence = lease.fence();
    server.command({"SET", lock_key, "somebody else", "PX", "60000"});
    CHECK(eventually([&] { return lease.stop_token().stop_requested(); }));
    CHECK_FALSE(lease.valid());
    CHECK(lease.remaining() == 0s);
    CHECK_FALSE(lease.renew());
    CHECK_FALSE(lease.release());
    CHECK(server.command({"GET", lock_key}).text == "somebody else");
    CHECK(eventually([&] {
        const std::lock_guard guard{mutex};
        return told.size() == 1;
    }));
    CHECK(told.at(0).name == "name");
    CHECK(told.at(0).fence == fence);
    CHECK(client.stats().leases_lost == 1);
}

TEST_CASE("a loss that the release finds is told by it and by the stop token") {
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client};
    Lease lease = lock.lease();
    const auto token = lease.stop_token();
    server.command({"DEL", lock_key});
    CHECK_FALSE(lease.release());
    CHECK(token.stop_requested());
    lock.lock();
    server.command({"DEL", lock_key});
    // An unlock does not wait for the answer: the hooks and the counts tell.
    lock.unlock();
    CHECK(eventually([&] { return client.stats().leases_lost == 2; }));
}

TEST_CASE("max_hold ends the renewals, and the lease with them") {
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client, {.ttl = 100ms, .max_hold = 150ms}};
    const Lease lease = lock.lease();
    CHECK(eventually([&] { return lease.stop_token().stop_requested(); }));
    CHECK_FALSE(lease.valid());
    RedisLock other{"name", client};
    CHECK(other.try_lock_for(5s));
}

TEST_CASE("a release whose reply was lost is unknown, and the lock is free") {
    RedisServer server;
    FaultProxy proxy{server.url()};
    RedisClient client{proxy.url()};
    RedisLock lock{"name", client};
    { const std::scoped_lock warm_up{lock}; }
    Lease lease = lock.lease();
    proxy.add(Fault::lose_reply().on("EVALSHA"));
    std::error_code code;
    lease.release(code);
    CHECK(code == LockErrc::unknown_outcome);
    CHECK(eventually([&] { return server.command({"EXISTS", lock_key}).number == 0; }));
}

TEST_CASE("a server that stops: calls end in time, and it goes on where it was") {
    RedisServer server;
    RedisClient client{server.url(), {.patience = 300ms, .response_timeout = 100ms}};
    RedisLock held{"held", client};
    held.lock();
    std::optional<Lease> lease{RedisLock{"leased", client}.lease()};
    server.stop();
    RedisLock lock{"name", client};
    std::error_code code;
    auto took = time_of([&] { lock.lock(code); });
    CHECK(code == LockErrc::backend_unavailable);
    CHECK(took < 2s);
    took = time_of([&] { (void)lock.try_lock_for(50ms, code); });
    CHECK(code == LockErrc::backend_unavailable);
    CHECK(took < 1s);
    // 200 ms are promised; the machine may be busy.
    took = time_of([&] {
        lease.reset();
        held.unlock();
    });
    CHECK(took < 1s);
    server.cont();
    CHECK(eventually([&] {
        return server
                   .command(
                       {"EXISTS", "codomyrmex:lock:{held}", "codomyrmex:lock:{leased}", lock_key})
                   .number == 0;
    }));
    lock.lock(code);
    CHECK_FALSE(code);
}

TEST_CASE("a server that was killed: the lease is lost in time, and locks work after it is back") {
    RedisServer server;
    RedisClient client{server.url(), {.patience = 5s}};
    RedisLock lock{"name", client, {.ttl = 200ms}};
    Lease lease = lock.lease();
    const auto fence = lease.fence();
    server.kill();
    CHECK(eventually([&] { return lease.stop_token().stop_requested(); }));
    CHECK_FALSE(lease.release());
    server.restart();
    CHECK(lock.lease().fence() > fence);
}

TEST_CASE("scripts that the server forgot and connections that it closed cost nothing") {
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client, {.ttl = 900ms}};
    for (int i = 0; i < 3; ++i) {
        Lease lease = lock.lease();
        server.command({"SCRIPT", "FLUSH"});
        server.command({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
        const auto before = client.stats().renewals;
        CHECK(eventually([&] { return client.stats().renewals > before; }));
        CHECK(lease.valid());
        CHECK(lease.release());
    }
}

TEST_CASE("ten leases are renewed over one connection beside the commands") {
    RedisServer server;
    RedisClient client{server.url()};
    std::vector<Lease> leases;
    for (int i = 0; i < 10; ++i) {
        leases.push_back(RedisLock{std::to_string(i), client, {.ttl = 900ms}}.lease());
    }
    CHECK(eventually([&] { return client.stats().renewals >= 40; }));
    CHECK(client.stats().connections == 1);
    for (const Lease& lease : leases)
        CHECK(lease.valid());
    CHECK(client.stats().leases_watched == 10);
}

TEST_CASE("leases are renewed one by one where their keys may not share a script call") {
    if (!RedisServer::available()) SKIP("no redis-server");
    test_support::RedisCluster server;
    RedisClient client{server.url()};
    std::vector<Lease> leases;
    for (const char* name : {"a", "b", "c"})
        leases.push_back(RedisLock{name, client, {.ttl = 600ms}}.lease());
    // More than two times to live.
    REQUIRE(eventually([&] { return client.stats().renewals >= 21; }));
    for (const Lease& lease : leases)
        CHECK(lease.valid());
    CHECK(client.stats().leases_lost == 0);
}

TEST_CASE("the holder can be read by people, and no key is without an expiry") {
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client, {.label = "nightly\nbackup"}};
    const Lease lease = lock.lease();
    const std::string holder = server.command({"GET", lock_key}).text;
    CAPTURE(holder);
    CHECK(holder.starts_with(std::string{lease.token()} + ' '));
    CHECK(holder.find(':' + std::to_string(::getpid()) + ':') != std::string::npos);
    CHECK(holder.find(" nightly?backup ") != std::string::npos);
    for (const auto& key : server.command({"KEYS", "*"}).elements) {
        CAPTURE(key.text);
        CHECK(server.command({"PTTL", key.text}).number > 0);
    }
}

TEST_CASE("locks of several processes exclude each other") {
    RedisServer server;
    std::vector<test_support::Process> workers;
    for (int i = 0; i < 3; ++i) {
        workers.push_back(test_support::Process::run([url = server.url(), &server] {
            RedisClient client{url};
            RedisLock lock{"name", client};
            for (int turn = 0; turn < 30; ++turn) {
                const std::scoped_lock guard{lock};
                // Not atomic: get, then set.
                const auto seen = server.command({"GET", "count"});
                const long long count = seen.is_nil() ? 0 : std::stoll(seen.text);
                server.command({"SET", "count", std::to_string(count + 1)});
            }
            return 0;
        }));
    }
    for (auto& worker : workers) {
        const auto status = worker.wait();
        REQUIRE(status);
        CHECK(status->code == 0);
    }
    CHECK(server.command({"GET", "count"}).text == "90");
}
