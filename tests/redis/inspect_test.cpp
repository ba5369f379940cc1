// SPDX-License-Identifier: MIT
//
// Tests of inspect.hpp through RedisClient's members for operators, against a real server: who
// holds, who waits, what there is, and taking it away.

#include <codomyrmex/concurrency/redis/inspect.hpp>
#include <codomyrmex/concurrency/redis/lock.hpp>
#include <codomyrmex/concurrency/redis/read_write_lock.hpp>
#include <codomyrmex/concurrency/redis/semaphore.hpp>

#include "support/catch2.hpp"
#include "support/fault_proxy.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace std::string_literals;
using support::error_of;
using support::eventually;
using test_support::Fault;
using test_support::FaultProxy;
using test_support::RedisServer;

namespace {

std::vector<std::string> names_of(const std::vector<RedisEntry>& entries) {
    std::vector<std::string> names;
    for (const RedisEntry& entry : entries)
        names.push_back(entry.name);
    return names;
}

/// A client that hears what is published to it: it has waited for a lock once.
struct Listening {
    explicit Listening(const RedisServer& server, ClientOptions options = {})
        : client{server.url(), std::move(options)} {
        RedisClient other{server.url()};
        RedisLock held{"make it listen", other};
        RedisLock wanted{"make it listen", client};
        const Lease lease = held.lease();
        // A wait that ends before it listens does not go on to.
        REQUIRE(eventually([&] {
            // Perhaps too short for an answer, which is an error.
            std::error_code slow;
            CHECK_FALSE(wanted.try_lease_for(10ms, slow));
            return client.stats().connections >= 2;
        }));
    }
    RedisClient client;
};

/// One of those who holds something for long, and what its hook is told of.
struct Told {
    explicit Told(const RedisServer& server)
        : listening{server, {.hooks = {.on_lost = [this](const LostLease& loss) {
                                 lost = loss;
                                 told.set();
                             }}}} {}

    support::Event told;
    LostLease lost;
    Listening listening;

    /// Waits until it is told, which is of the loss of `lease`, by force, and of no other.
    void check_revoked(const Lease& lease) {
        REQUIRE(told.wait());
        CHECK(lease.stop_token().stop_requested());
        CHECK_FALSE(lease.valid());
        CHECK(lost.name == lease.name());
        CHECK(lost.fence == lease.fence());
        CHECK(lost.reason.find("revoked") != std::string::npos);
        CHECK(listening.client.stats().leases_lost == 1);
    }
};

}  // namespace

TEST_CASE("nobody holds a lock that is free") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    CHECK_FALSE(client.holder("name").has_value());
    CHECK(client.holders("name").empty());
    CHECK(client.waiters("name").empty());
    CHECK(client.list().empty());
}

TEST_CASE("the holder is seen as it is, and redis-cli shows it to people") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client, {.ttl = 20s, .label = "nightly job"}};
    const Lease lease = lock.lease();
    RedisClient operators{server.url()};
    const auto who = operators.holder("name");
    REQUIRE(who.has_value());
    CHECK(who->kind == PrimitiveKind::lock);
    CHECK(who->pid == ::getpid());
    CHECK(who->thread != 0);
    CHECK(who->label == "nightly job");
    CHECK(who->token == lease.token());
    CHECK(who->fence == lease.fence());
    CHECK(who->ttl > 10s);
    CHECK(who->ttl <= 20s);
    CHECK(who->age < 10s);
    CHECK(who->weight == 1);
    CHECK_FALSE(who->retains);
    CHECK(operators.holders("name").size() == 1);

    std::array<char, 256> host{};
    REQUIRE(::gethostname(host.data(), host.size()) == 0);
    CHECK(who->host == host.data());
    const std::string value = server.command({"GET", "codomyrmex:lock:{name}"}).text;
    const auto since = std::to_string(who->since.time_since_epoch().count());
    CHECK(value == who->token + ' ' + host.data() + ':' + std::to_string(who->pid) + ':' +
                       std::to_string(who->thread) + " nightly job " + since);
}

TEST_CASE("a lease that is kept between uses is told apart") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client, {.ttl = 20s, .retain = 20s}};
    lock.lock();
    lock.unlock();
    const auto who = client.holder("name");
    REQUIRE(who.has_value());
    CHECK(who->retains);
}

TEST_CASE("a look costs one request") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client};
    lock.lock();
    const auto before = client.stats().requests;
    (void)client.holder("name");
    CHECK(client.stats().requests == before + 1);
    lock.unlock();
}

TEST_CASE("names of any bytes are listed as they are, and only those that match") {
    if (!RedisServer::available()) SKIP("no redis-server");
    if (RedisServer::least_rights()) SKIP("keys of another prefix");
    RedisServer server;
    // A prefix that would match others, were it taken for a pattern.
    RedisClient client{server.url(), {.prefix = "p?[ab]*:"}};
    RedisClient stranger{server.url(), {.prefix = "pxbc:"}};
    const std::vector<std::string> names{"plain",      "pl{in", "pl%in", "a\0b"s,
                                         "a\r\n\xff"s, "*",     "{}"};
    std::vector<std::unique_ptr<RedisLock>> locks;
    for (const std::string& name : names) {
        locks.push_back(std::make_unique<RedisLock>(name, client));
        locks.back()->lock();
    }
    RedisLock other{"plain", stranger};
    other.lock();
    auto sorted = names;
    std::ranges::sort(sorted);
    CHECK(names_of(client.list()) == sorted);
    CHECK(names_of(client.list("pl?in")) == std::vector<std::string>{"pl%in", "plain", "pl{in"});
    CHECK(names_of(client.list("pl[{%]in")) == std::vector<std::string>{"pl%in", "pl{in"});
    CHECK(names_of(client.list("\\*")) == std::vector<std::string>{"*"});
    CHECK(names_of(client.list("a?b")) == std::vector<std::string>{"a\0b"s});
    CHECK(names_of(client.list("{}")) == std::vector<std::string>{"{}"});
    CHECK(client.list("nothing*").empty());
    CHECK(names_of(stranger.list()) == std::vector<std::string>{"plain"});
    CHECK(server.command_stats("keys").calls == 0);
    for (const auto& lock : locks)
        lock->unlock();
    other.unlock();
}

TEST_CASE("a list tells of holders, waiters, kinds and what is foreign") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"held", client, {.label = "me"}};
    const Lease lease = lock.lease();
    server.command({"ZADD", "codomyrmex:lock:{held}:queue", "1", "b-1 1000 1 h:1:2"});
    server.command({"SET", "codomyrmex:lock:{foreign}", "x"});
    server.command({"LPUSH", "codomyrmex:rw:{list}", "x"});
    server.command({"ZADD", "codomyrmex:sem:{pool}", "4000000000000001", "a-1", "4000000000000002",
                    "a-2", "1", "dead"});
    server.command({"HSET", "codomyrmex:sem:{pool}:meta", "capacity", "5", "used", "3", "a-1",
                    "2 h:1:2 first 1700000000", "a-2", "1 h:1:3 1700000000"});
    server.command({"ZADD", "codomyrmex:sem:{over}", "1", "dead"});
    const auto entries = client.list();
    REQUIRE(names_of(entries) == std::vector<std::string>{"foreign", "held", "list", "pool"});
    CHECK(entries[0].foreign);
    CHECK_FALSE(entries[0].holder.has_value());
    CHECK_FALSE(entries[1].foreign);
    CHECK(entries[1].kind == PrimitiveKind::lock);
    CHECK(entries[1].holder.value().label == "me");
    CHECK(entries[1].holders == 1);
    CHECK(entries[1].waiting == 1);
    CHECK(entries[1].capacity == 1);
    CHECK(entries[2].foreign);
    CHECK(entries[2].kind == PrimitiveKind::read_write);
    CHECK(entries[3].kind == PrimitiveKind::semaphore);
    CHECK(entries[3].holders == 2);
    CHECK(entries[3].capacity == 5);
    CHECK(entries[3].holder.value().token == "a-1");

    CHECK(client.holder("pool", PrimitiveKind::semaphore).value().weight == 2);
    const auto holders = client.holders("pool", PrimitiveKind::semaphore);
    REQUIRE(holders.size() == 2);
    CHECK(holders[1].token == "a-2");
    CHECK(error_of([&] { (void)client.holder("foreign"); }) == LockErrc::foreign_key);
    CHECK(error_of([&] { (void)client.holders("list", PrimitiveKind::read_write); }) ==
          LockErrc::foreign_key);
    // It has no expiry, so nobody of ours holds it.
    CHECK(error_of([&] { client.force_release("pool", holders[0]); }) == LockErrc::foreign_key);
}

TEST_CASE("thousands are listed, page by page, in few writes") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    server.command(
        {"EVAL",
         "for i = 1, 2500 do redis.call('SET', 'codomyrmex:lock:{' .. i .. '}', 'a-' .. "
         "i .. ' h:1:2 1700000000', 'PX', 600000) redis.call('ZADD', "
         "'codomyrmex:sem:{pool}', 4000000000000000 + i, 't' .. i) "
         "redis.call('ZADD', 'codomyrmex:lock:{1}:queue', i, 'w' .. i .. ' 1000 1 x') end",
         "0"});
    RedisClient client{server.url()};
    const auto before = client.stats();
    const auto entries = client.list();
    CHECK(entries.size() == 2501);
    CHECK(std::ranges::all_of(entries,
                              [](const RedisEntry& each) { return each.holder.has_value(); }));
    CHECK(client.stats().writes - before.writes <= 20);
    CHECK(client.list("12??").size() == 100);

    const auto holders = client.holders("pool", PrimitiveKind::semaphore);
    REQUIRE(holders.size() == 2500);
    CHECK(holders.front().token == "t1");
    CHECK(holders.back().token == "t2500");
    const auto waiters = client.waiters("1");
    REQUIRE(waiters.size() == 2500);
    CHECK(waiters.back().token == "w2500");
}

TEST_CASE("who waits is seen in the order in which they are served") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient holder{server.url()};
    RedisLock lock{"name", holder};
    lock.lock();
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < 3; ++i) {
        threads.emplace_back([&server, i](const std::stop_token& stop) {
            RedisClient client{server.url()};
            RedisLock wanted{"name", client, {.label = "number " + std::to_string(i)}};
            CHECK_FALSE(wanted.lock(stop));
        });
        REQUIRE(eventually([&] { return holder.waiters("name").size() == i + 1; }));
    }
    const auto waiters = holder.waiters("name");
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(waiters[i].label == "number " + std::to_string(i));
        CHECK(waiters[i].pid == ::getpid());
        CHECK(waiters[i].since.time_since_epoch() > 24h * 365);
        if (i > 0) CHECK(waiters[i - 1].since < waiters[i].since);
    }
    CHECK(holder.list().at(0).waiting == 3);
    threads.clear();
    CHECK(holder.waiters("name").empty());
    lock.unlock();
}

TEST_CASE("a lock that is taken away is lost to its holder at once, and free") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Told holder{server};
    // Its own renewal would come after 200 s, which is more than the test waits for.
    RedisLock lock{"name", holder.listening.client, {.ttl = 10min}};
    Lease lease = lock.lease();
    RedisClient operators{server.url()};
    const auto seen = operators.holder("name");
    REQUIRE(seen.has_value());
    CHECK(operators.force_release("name", *seen));
    CHECK_FALSE(operators.holder("name").has_value());
    holder.check_revoked(lease);
    CHECK_FALSE(lease.release());
    // The next one has a larger fencing token, and nobody takes that away with the old one.
    const Lease next = lock.lease();
    CHECK(next.fence() > seen->fence);
    CHECK_FALSE(operators.force_release("name", *seen));
    CHECK(next.valid());
}

TEST_CASE("a lock that is taken away goes to whoever waits") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Listening listening{server};
    RedisLock lock{"name", listening.client, {.ttl = 10min}};
    const Lease lease = lock.lease();
    RedisClient operators{server.url()};
    RedisClient waiting{server.url()};
    RedisLock wanted{"name", waiting, {.ttl = 10min}};
    Lease second;
    std::jthread thread{[&] { second = wanted.lease(); }};
    REQUIRE(eventually([&] { return operators.waiters("name").size() == 1; }));
    CHECK(operators.force_release("name", operators.holder("name").value()));
    thread.join();
    CHECK(second.valid());
    CHECK(second.fence() > lease.fence());
    CHECK(eventually([&] { return !lease.valid(); }));
    CHECK(operators.holder("name").value().token == second.token());
    // Handed over, not found by asking again.
    CHECK(waiting.stats().grants == 1);
}

TEST_CASE("a thread that waits behind the former holder in its process gets its turn") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Listening listening{server};
    RedisLock lock{"name", listening.client, {.ttl = 10min}};
    const Lease first = lock.lease();
    Lease second;
    std::jthread thread{[&] { second = lock.lease(); }};
    RedisClient operators{server.url()};
    CHECK(operators.force_release("name", operators.holder("name").value()));
    thread.join();
    CHECK(second.valid());
    CHECK_FALSE(first.valid());
    CHECK(second.fence() > first.fence());
}

TEST_CASE("a holder that does not listen finds out at its next renewal") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client, {.ttl = 600ms}};
    const Lease lease = lock.lease();
    CHECK(client.stats().connections == 1);
    RedisClient operators{server.url()};
    CHECK(operators.force_release("name", operators.holder("name").value()));
    CHECK(eventually([&] { return lease.stop_token().stop_requested(); }));
}

namespace {

/// Who holds `name` under the token of `lease`, as an operator sees it.
Holder holder_of(RedisClient& operators, std::string_view name, PrimitiveKind kind,
                 const Lease& lease) {
    for (Holder& each : operators.holders(name, kind)) {
        if (each.token == lease.token()) return std::move(each);
    }
    throw std::runtime_error{"it is not among the holders"};
}

}  // namespace

TEST_CASE("permits are taken from one holder, which loses them at once, and from no other") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Told holder{server};
    // Its own renewal would come after 200 s, which is more than the test waits for.
    RedisSemaphore pool{"pool", holder.listening.client, 3, {.ttl = 10min}};
    Lease two = pool.lease(2);
    const Lease one = pool.lease();
    RedisClient operators{server.url()};
    const Holder seen = holder_of(operators, "pool", PrimitiveKind::semaphore, two);
    CHECK(seen.weight == 2);
    CHECK(operators.force_release("pool", seen));
    const auto left = operators.holders("pool", PrimitiveKind::semaphore);
    REQUIRE(left.size() == 1);
    CHECK(left[0].token == one.token());
    holder.check_revoked(two);
    CHECK(one.valid());
    CHECK_FALSE(two.release());

    // Whoever has them next keeps them, however often the former holder is forced out.
    const Lease next = pool.lease(2);
    CHECK_FALSE(operators.force_release("pool", seen));
    Holder wrong = seen;
    wrong.token = std::string{one.token()} + '0';
    CHECK_FALSE(operators.force_release("pool", wrong));
    wrong = left[0];
    wrong.kind = PrimitiveKind::read_write;
    CHECK_FALSE(operators.force_release("pool", wrong));
    CHECK_FALSE(operators.force_release("another pool", left[0]));
    CHECK(operators.holders("pool", PrimitiveKind::semaphore).size() == 2);
    CHECK(holder.listening.client.stats().leases_lost == 1);
}

TEST_CASE("permits that are taken away go to whoever waits and has room") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Listening listening{server};
    RedisSemaphore pool{"pool", listening.client, 3, {.ttl = 10min}};
    const Lease two = pool.lease(2);
    const Lease one = pool.lease();
    RedisClient operators{server.url()};
    RedisClient waiting{server.url()};
    RedisSemaphore wanted{"pool", waiting, 3, {.ttl = 10min}};
    Lease served;
    std::jthread thread{[&] { served = wanted.try_lease_for(support::patience, 2); }};
    const auto line = [&] { return operators.waiters("pool", PrimitiveKind::semaphore).size(); };
    REQUIRE(eventually([&] { return line() == 1; }));
    // Too few for the one that waits.
    CHECK(operators.force_release("pool",
                                  holder_of(operators, "pool", PrimitiveKind::semaphore, one)));
    CHECK(line() == 1);
    CHECK(operators.force_release("pool",
                                  holder_of(operators, "pool", PrimitiveKind::semaphore, two)));
    thread.join();
    CHECK(served.valid());
    CHECK(eventually([&] { return !one.valid() && !two.valid(); }));
    CHECK(operators.holders("pool", PrimitiveKind::semaphore).size() == 1);
    // Handed over, not found by asking again.
    CHECK(waiting.stats().grants == 1);
}

TEST_CASE("a writer that is forced out makes room for all who wait to read") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Listening listening{server};
    RedisReadWriteLock config{"config", listening.client, {.ttl = 10min}};
    const Lease writer = config.write();
    RedisClient operators{server.url()};
    RedisClient waiting{server.url()};
    RedisReadWriteLock wanted{"config", waiting, {.ttl = 10min}};
    std::array<Lease, 2> readers;
    std::vector<std::jthread> threads;
    for (Lease& reader : readers)
        threads.emplace_back([&] { reader = wanted.try_read_for(support::patience); });
    const auto kind = PrimitiveKind::read_write;
    REQUIRE(eventually([&] { return operators.waiters("config", kind).size() == 2; }));
    CHECK(operators.force_release("config", holder_of(operators, "config", kind, writer)));
    threads.clear();
    CHECK(readers[0].valid());
    CHECK(readers[1].valid());
    CHECK(readers[0].fence() > writer.fence());
    CHECK(eventually([&] { return !writer.valid(); }));
    CHECK(waiting.stats().grants == 2);
}

TEST_CASE("one reader is forced out of two, then the other, though it is a writer by then") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Listening listening{server};
    RedisReadWriteLock config{"config", listening.client, {.ttl = 10min}};
    const Lease first = config.read();
    Lease last = config.read();
    RedisClient operators{server.url()};
    const auto kind = PrimitiveKind::read_write;
    CHECK(operators.force_release("config", holder_of(operators, "config", kind, first)));
    CHECK(eventually([&] { return !first.valid(); }));
    REQUIRE(config.try_upgrade(last));
    RedisClient waiting{server.url()};
    RedisReadWriteLock wanted{"config", waiting, {.ttl = 10min}};
    Lease writer;
    std::jthread thread{[&] { writer = wanted.try_write_for(support::patience); }};
    REQUIRE(eventually([&] { return operators.waiters("config", kind).size() == 1; }));
    CHECK(operators.force_release("config", holder_of(operators, "config", kind, last)));
    thread.join();
    CHECK(writer.valid());
    CHECK(writer.fence() > last.fence());
    CHECK(eventually([&] { return !last.valid(); }));
    CHECK(waiting.stats().grants == 1);
}

TEST_CASE("when the answer is lost, that the holder is out is known, and not by whom") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    RedisClient client{server.url()};
    RedisSemaphore pool{"pool", client, 3, {.ttl = 10min}};
    const Lease lease = pool.lease();
    RedisClient operators{proxy.url()};
    const Holder seen = holder_of(operators, "pool", PrimitiveKind::semaphore, lease);
    proxy.add(Fault::lose_reply().on("tell_revoked"));
    CHECK(error_of([&] { operators.force_release("pool", seen); }) == LockErrc::unknown_outcome);
    CHECK(operators.holders("pool", PrimitiveKind::semaphore).empty());
}

TEST_CASE("a holder of permits that does not listen finds out at its next renewal") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisSemaphore pool{"pool", client, 3, {.ttl = 600ms}};
    const Lease lease = pool.lease();
    CHECK(client.stats().connections == 1);
    RedisClient operators{server.url()};
    CHECK(operators.force_release("pool",
                                  operators.holder("pool", PrimitiveKind::semaphore).value()));
    CHECK(eventually([&] { return lease.stop_token().stop_requested(); }));
}

TEST_CASE("a message about another lock or token takes nothing away") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Listening listening{server};
    RedisLock lock{"name", listening.client, {.ttl = 10min}};
    RedisLock last{"last", listening.client, {.ttl = 10min}};
    const Lease lease = lock.lease();
    const Lease end = last.lease();
    const std::string token{lease.token()};
    const std::string channel = "codomyrmex:wake:" + token.substr(0, token.find('-'));
    for (const std::string& message :
         {"revoked " + token + " codomyrmex:lock:{other}", "revoked " + token + " ", "revoked"s,
          "revoked  codomyrmex:lock:{name}"s, "revoked " + token + "0 codomyrmex:lock:{name}",
          "revoked " + std::string{end.token()} + " codomyrmex:lock:{last}"}) {
        CHECK(server.command({"PUBLISH", channel, message}).number == 1);
    }
    // Messages come in order.
    CHECK(eventually([&] { return !end.valid(); }));
    CHECK(lease.valid());
}

TEST_CASE("waiters that are dead are skipped, however many") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client};
    const Lease lease = lock.lease();
    server.command({"EVAL",
                    "for i = 1, 100 do redis.call('ZADD', 'codomyrmex:lock:{name}:queue', i, "
                    "'dead-' .. i .. ' 1000 1 x') end",
                    "0"});
    CHECK(client.force_release("name", client.holder("name").value()));
    CHECK(client.waiters("name").empty());
    CHECK_FALSE(client.holder("name").has_value());
}

TEST_CASE("errors go where the caller wants them") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisClient nowhere{"unix:///no/such.sock", {.patience = 50ms}};
    CHECK(error_of([&] { (void)nowhere.holder("name"); }) == LockErrc::backend_unavailable);
    std::error_code error;
    CHECK_FALSE(nowhere.holder("name", error).has_value());
    CHECK(error == LockErrc::backend_unavailable);
    CHECK(nowhere.holders("name", PrimitiveKind::lock, error).empty());
    CHECK(error == LockErrc::backend_unavailable);
    CHECK(nowhere.waiters("name", PrimitiveKind::lock, error).empty());
    CHECK(error == LockErrc::backend_unavailable);
    CHECK(nowhere.list("*", error).empty());
    CHECK(error == LockErrc::backend_unavailable);
    Holder seen;
    seen.token = "a-1";
    CHECK_FALSE(nowhere.force_release("name", seen, error));
    CHECK(error == LockErrc::backend_unavailable);

    RedisServer server;
    RedisClient client{server.url()};
    CHECK_FALSE(client.force_release("name", seen, error));
    CHECK_FALSE(error);
    CHECK_FALSE(client.holder("", error).has_value());
    CHECK(error == LockErrc::invalid_argument);
    CHECK(client.list("[", error).empty());
    CHECK(error == LockErrc::invalid_argument);
    CHECK_FALSE(client.force_release("name", Holder{}, error));
    CHECK(error == LockErrc::invalid_argument);
    seen.token = "a b";
    CHECK_FALSE(client.force_release("name", seen, error));
    CHECK(error == LockErrc::invalid_argument);

    server.command({"ACL", "SETUSER", "guest", "on", "nopass", "~codomyrmex:*", "+evalsha", "+eval",
                    "+time", "+get", "+ping", "+auth", "+client|setname", "+select"});
    RedisClient guest{server.url("guest:x")};
    CHECK(guest.list("*", error).empty());
    CHECK(error == LockErrc::backend_refused);
}

TEST_CASE("an operator needs these permissions and no more") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client};
    const Lease lease = lock.lease();
    RedisSemaphore pool{"pool", client, 3, {.ttl = 10min}};
    const Lease permits = pool.lease(3);
    RedisClient waiting{server.url()};
    RedisSemaphore wanted{"pool", waiting, 3, {.ttl = 10min}};
    Lease served;
    std::jthread thread{[&] { served = wanted.try_lease_for(support::patience); }};
    const auto kind = PrimitiveKind::semaphore;
    REQUIRE(eventually([&] { return client.waiters("pool", kind).size() == 1; }));
    server.command({"ACL", "SETUSER", "op", "on", "nopass", "~codomyrmex:*", "&codomyrmex:*",
                    "+evalsha", "+eval", "+time", "+get", "+set", "+del", "+pttl", "+pexpire",
                    "+incrby", "+zrem", "+zrange", "+zcard", "+zcount", "+hget", "+scan", "+ping",
                    "+auth", "+client|setname", "+publish", "+pubsub|numsub",
                    // To take permits away, too.
                    "+zadd", "+zscore", "+zrangebyscore", "+hset", "+hdel", "+hincrby",
                    "+pexpireat"});
    RedisClient op{server.url("op:x")};
    CHECK(op.list().size() == 2);
    CHECK(op.waiters("name").empty());
    CHECK(op.holders("pool", kind).size() == 1);
    CHECK(op.force_release("name", op.holder("name").value()));
    CHECK(op.force_release("pool", op.holder("pool", kind).value()));
    thread.join();
    CHECK(served.valid());
    CHECK(waiting.stats().grants == 1);
}

TEST_CASE("looking on disturbs nobody") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    std::atomic<int> inside{0};
    std::atomic<int> violations{0};
    std::atomic<bool> done{false};
    std::jthread operators{[&] {
        while (!done) {
            for (const RedisEntry& entry : client.list()) {
                if (entry.foreign || entry.name != "name") ++violations;
            }
            (void)client.holder("name");
            (void)client.waiters("name");
        }
    }};
    support::run_together(3, [&](int) {
        RedisLock lock{"name", client};
        for (int i = 0; i < 200; ++i) {
            const std::scoped_lock guard{lock};
            if (++inside != 1) ++violations;
            --inside;
        }
    });
    done = true;
    operators.join();
    CHECK(violations == 0);
}
