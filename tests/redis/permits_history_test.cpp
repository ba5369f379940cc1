// SPDX-License-Identifier: MIT
//
// Many processes with many threads use one RedisSemaphore, or one RedisReadWriteLock, while some of
// them are killed with -9, others are stopped past the end of their leases and continued, and all
// their connections are killed again and again. What they recorded is judged afterwards. Prints
// what was judged.
//
//   CODOMYRMEX_PERMITS_SECONDS   how long each history is; 12 if not set
//   CODOMYRMEX_PERMITS_SEED      repeats a run: whom to kill or stop, and when

#include <codomyrmex/concurrency/redis/read_write_lock.hpp>
#include <codomyrmex/concurrency/redis/semaphore.hpp>

#include "faults/checker.hpp"
#include "faults/fault_window.hpp"
#include "faults/recorder.hpp"
#include "support/catch2.hpp"
#include "support/environment.hpp"
#include "support/fenced_register.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"
#include "support/temp_dir.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <random>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace faults;
using test_support::FencedRegister;
using test_support::number_from;
using test_support::Process;
using test_support::RedisServer;
using test_support::TempDir;

namespace {

constexpr std::size_t processes = 8;
constexpr int threads_each = 3;
constexpr std::ptrdiff_t permits = 5;
constexpr std::chrono::milliseconds ttl = 2s;
constexpr std::chrono::milliseconds grant_ttl = 500ms;
constexpr std::uint32_t name = 1;

constexpr Target reading{name, Kind::read_write, Mode::shared, 1, 1};
constexpr Target writing{name, Kind::read_write, Mode::exclusive, 1, 1};

struct Plan {
    std::string url{};
    std::string history{};
    std::string resource{};
    std::uint64_t seed = 0;
    std::int64_t end = 0;  ///< when to stop, on the clock of the records
};

/// One thread of one process: what it does again and again until the end.
class Worker {
  public:
    Worker(const Plan& plan, RedisClient client, int process, int thread)
        : plan_{plan},
          client_{std::move(client)},
          recorder_{plan.history, process, thread},
          converts_{plan.history, process, thread + threads_each},
          random_{plan.seed + static_cast<std::uint64_t>(process * threads_each + thread)} {}

    void use_semaphore() {
        RedisSemaphore pool{"history", client_, permits, {.ttl = ttl}};
        while (boot_time() < plan_.end) {
            const std::ptrdiff_t count = 1 + below(3);
            const Target target{name, Kind::semaphore, Mode::exclusive,
                                static_cast<std::uint32_t>(count),
                                static_cast<std::uint32_t>(permits)};
            Lease lease = acquire(target, [&](std::chrono::milliseconds wait, auto& error) {
                return wait == 0ms ? pool.try_lease(count, error)
                                   : pool.try_lease_for(wait, count, error);
            });
            if (!lease) continue;
            work();
            give_back(target, lease);
        }
    }

    void use_read_write_lock() {
        RedisReadWriteLock lock{"history", client_, {.ttl = ttl}};
        FencedRegister resource{plan_.resource};
        while (boot_time() < plan_.end) {
            const bool writes = one_in(4);
            const Target& target = writes ? writing : reading;
            Lease lease = acquire(target, [&](std::chrono::milliseconds wait, auto& error) {
                if (writes) return lock.try_write_for(wait, error);
                return lock.try_read_for(wait, error);
            });
            if (!lease) continue;
            if (writes) write(resource, lease);
            work();
            if (one_in(3) && (writes ? downgrade(lock, lease) : upgrade(lock, resource, lease))) {
                continue;
            }
            give_back(target, lease);
        }
    }

  private:
    template <class Ask>
    Lease acquire(const Target& target, Ask ask) {
        const std::chrono::milliseconds wait = one_in(4) ? 0ms : 3s;
        std::error_code error;
        recorder_.call(target, Op::acquire, wait);
        Lease lease = ask(wait, error);
        if (lease) {
            recorder_.acquired(target, lease);
            return lease;
        }
        recorder_.answered(target, Op::acquire, error ? Outcome::failed : Outcome::refused);
        std::this_thread::sleep_for(std::chrono::microseconds{below(5000)});
        return lease;
    }

    void write(FencedRegister& resource, const Lease& lease) {
        const auto value = resource.read(lease.fence());
        const bool taken = value && resource.write(lease.fence(), *value + 1);
        recorder_.wrote(writing, lease, taken ? Outcome::ok : Outcome::refused, resource.place());
    }

    /// Time goes by, now and then enough to need a renewal.
    void work() {
        if (one_in(100)) std::this_thread::sleep_for(ttl / 2);
        if (one_in(10)) std::this_thread::sleep_for(std::chrono::milliseconds{below(200)});
        std::this_thread::sleep_for(std::chrono::microseconds{below(2000)});
    }

    void give_back(const Target& target, Lease& lease, bool converted = false) {
        Recorder& recorder = converted ? converts_ : recorder_;
        std::error_code error;
        recorder.checked(target, lease);
        recorder.call(target, Op::release, -1ns);
        const bool ours = lease.release(error);
        recorder.answered(target, Op::release,
                          error  ? Outcome::unknown
                          : ours ? Outcome::ok
                                 : Outcome::lost);
    }

    // A conversion ends one hold and begins another, which is recorded as if of another thread. The
    // writer's hold ends, for the judge, before it asks to become a reader; the reader's only when
    // it knows to be a writer.

    /// Returns: whether the lease is done with.
    bool downgrade(RedisReadWriteLock& lock, Lease& lease) {
        std::error_code error;
        converts_.call(reading, Op::acquire, -1ns);
        recorder_.checked(writing, lease);
        recorder_.call(writing, Op::release, -1ns);
        lock.downgrade(lease, error);
        recorder_.answered(writing, Op::release, error ? Outcome::lost : Outcome::ok);
        if (error) {
            converts_.answered(reading, Op::acquire, Outcome::refused);
            (void)lease.release(error);
            return true;
        }
        converts_.acquired(reading, lease, Source::local);
        work();
        give_back(reading, lease, true);
        return true;
    }

    /// Returns: whether the lease is done with.
    bool upgrade(RedisReadWriteLock& lock, FencedRegister& resource, Lease& lease) {
        std::error_code error;
        converts_.call(writing, Op::acquire, -1ns);
        const bool upgraded = lock.try_upgrade(lease, error);
        if (!upgraded) {
            const bool failed = error && error != LockErrc::lease_lost;
            converts_.answered(writing, Op::acquire, failed ? Outcome::failed : Outcome::refused);
            return false;
        }
        recorder_.call(reading, Op::release, -1ns);
        recorder_.answered(reading, Op::release, Outcome::ok);
        converts_.acquired(writing, lease, Source::local);
        write(resource, lease);
        work();
        give_back(writing, lease, true);
        return true;
    }

    [[nodiscard]] bool one_in(std::uint64_t n) { return random_() % n == 0; }
    [[nodiscard]] std::ptrdiff_t below(std::uint64_t n) {
        return static_cast<std::ptrdiff_t>(random_() % n);
    }

    const Plan& plan_;
    RedisClient client_;
    Recorder recorder_;
    Recorder converts_;
    std::mt19937_64 random_;
};

template <class Use>
int run_workers(const Plan& plan, int process, Use use) {
    RedisClient client{plan.url, {.grant_ttl = grant_ttl}};
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < threads_each; ++thread) {
        threads.emplace_back([&, thread] {
            Worker worker{plan, client, process, thread};
            use(worker);
        });
    }
    return 0;
}

/// The keys that would stay for ever.
std::vector<std::string> keys_without_expiry(RedisServer& server) {
    std::vector<std::string> found;
    for (const auto& key : server.command({"KEYS", "*"}).elements) {
        if (server.command({"PTTL", key.text}).number == -1) found.push_back(key.text);
    }
    return found;
}

/// The processes of a history, by their numbers in it. A number is never used twice.
template <class Use>
class Crowd {
  public:
    Crowd(const Plan& plan, Use use) : plan_{plan}, use_{std::move(use)} {
        for (std::size_t i = 0; i < processes; ++i)
            members_.push_back(start());
    }

    [[nodiscard]] Process& at(std::size_t i) { return members_.at(i).process; }
    [[nodiscard]] int number(std::size_t i) const { return members_.at(i).number; }
    void replace(std::size_t i) { members_.at(i) = start(); }

    /// Whether all end well, of those that were not killed.
    [[nodiscard]] bool all_end_well() {
        bool well = true;
        for (Member& member : members_) {
            const auto status = member.process.wait(60s);
            well = well && status && status->success();
        }
        return well;
    }

  private:
    struct Member {
        Process process;
        int number = 0;
    };
    Member start() {
        const int number = started_++;
        return {Process::run([&] { return run_workers(plan_, number, use_); }), number};
    }

    const Plan& plan_;
    Use use_;
    int started_ = 0;
    std::vector<Member> members_;
};

Plan make_plan(const RedisServer& server, const TempDir& directory, std::chrono::seconds length) {
    return {.url = server.url(),
            .history = directory.file("history"),
            .resource = directory.file("resource"),
            .seed = number_from("CODOMYRMEX_PERMITS_SEED", std::random_device{}()),
            .end = boot_time() + std::chrono::nanoseconds{length}.count()};
}

const Rules rules{.lateness = 4s, .handover = 4s, .ttl = ttl, .grant_ttl = grant_ttl};

Report judge(const Plan& plan, std::vector<FaultWindow> windows) {
    Checker checker{rules, std::move(windows)};
    for_each_record(plan.history, [&](const Record& record) { checker.add(record); });
    return checker.finish();
}

/// Lets the processes work, does to them what this file's head says, and judges.
template <class Use>
void check_history(const char* what, Use use) {
    const std::chrono::seconds length{number_from("CODOMYRMEX_PERMITS_SECONDS", 12)};
    RedisServer server;
    const TempDir directory;
    const Plan plan = make_plan(server, directory, length);
    CAPTURE(plan.seed);
    std::mt19937_64 random{plan.seed};
    Crowd crowd{plan, use};
    Recorder recorder{plan.history, -1, 0};
    std::vector<FaultWindow> windows;
    std::size_t kills = 0;
    std::size_t stops = 0;
    for (int i = 0; boot_time() < plan.end - std::chrono::nanoseconds{ttl}.count(); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds{100 + random() % 300});
        const std::size_t victim = random() % processes;
        if (i % 4 == 0) {
            crowd.at(victim).kill();
            recorder.process(Op::killed, crowd.number(victim));
            crowd.replace(victim);
            ++kills;
        } else if (i % 4 == 2) {
            recorder.process(Op::stopped, crowd.number(victim));
            crowd.at(victim).stop();
            // Past the end of its leases, or not.
            std::this_thread::sleep_for(random() % 2 == 0 ? ttl + ttl / 4 : ttl / 8);
            crowd.at(victim).cont();
            recorder.process(Op::continued, crowd.number(victim));
            ++stops;
        } else {
            // No lease is lost by it.
            FaultWindow window{"connections killed", boot_time(), 0,
                               Allows{.delay = true, .disorder = true, .error = true}};
            server.command(
                {"CLIENT", "KILL", "TYPE", i % 4 == 1 ? "normal" : "pubsub", "SKIPME", "yes"});
            window.end = boot_time() + std::chrono::nanoseconds{1s}.count();
            windows.push_back(window);
        }
    }
    CHECK(crowd.all_end_well());
    const std::size_t cuts = windows.size();
    const Report report = judge(plan, std::move(windows));
    std::cout << what << ": " << processes << " processes x " << threads_each << " threads, "
              << length.count() << " s, seed " << plan.seed << ", " << kills << " killed, " << stops
              << " stopped, connections killed " << cuts << " times: " << report.to_string();
    CAPTURE(report.to_string());
    CHECK(report.total() == 0);
    CHECK(keys_without_expiry(server).empty());
    // That it happened as planned.
    CHECK(report.acquired > 50);
    CHECK(kills > 0);
    CHECK(stops > 0);
    CHECK(cuts > 0);
}

/// The same, but the server forgets the holders again and again, and nobody is excused.
template <class Use>
Report history_of_a_forgetful_server(const std::string& key, Use use) {
    RedisServer server;
    const TempDir directory;
    const Plan plan = make_plan(server, directory, 3s);
    Crowd crowd{plan, use};
    while (boot_time() < plan.end) {
        server.command({"DEL", key, key + ":meta"});
        std::this_thread::sleep_for(3ms);
    }
    CHECK(crowd.all_end_well());
    return judge(plan, {});
}

}  // namespace

TEST_CASE("No more permits are valid together than there are, whoever dies, stops or is cut off") {
    if (!RedisServer::available()) SKIP("no redis-server");
    check_history("semaphore", [](Worker& worker) { worker.use_semaphore(); });
}

TEST_CASE("No writer is valid beside a reader, whoever dies, stops, converts or is cut off") {
    if (!RedisServer::available()) SKIP("no redis-server");
    check_history("read-write lock", [](Worker& worker) { worker.use_read_write_lock(); });
}

TEST_CASE("Connections that are killed every 25 ms let no more in, and no call hangs") {
    if (!RedisServer::available()) SKIP("no redis-server");
    const std::chrono::seconds length{number_from("CODOMYRMEX_PERMITS_SECONDS", 12) / 3};
    RedisServer server;
    const TempDir directory;
    const Plan plan = make_plan(server, directory, length);
    CAPTURE(plan.seed);
    Crowd crowd{plan, [](Worker& worker) { worker.use_semaphore(); }};
    // No lease is lost by it.
    FaultWindow window{"connections killed", boot_time(), 0,
                       Allows{.delay = true, .disorder = true, .error = true}};
    long long killed = 0;
    while (boot_time() < plan.end) {
        for (const char* type : {"normal", "pubsub"})
            killed += server.command({"CLIENT", "KILL", "TYPE", type, "SKIPME", "yes"}).number;
        std::this_thread::sleep_for(25ms);
    }
    CHECK(crowd.all_end_well());
    window.end = boot_time();
    const Report report = judge(plan, {window});
    std::cout << "semaphore, every 25 ms: " << length.count() << " s, seed " << plan.seed << ", "
              << killed << " connections killed: " << report.to_string();
    CAPTURE(report.to_string());
    CHECK(report.total() == 0);
    CHECK(report.acquired > 50);
    CHECK(killed > 0);
    CHECK(keys_without_expiry(server).empty());
    RedisClient client{server.url()};
    CHECK(RedisSemaphore{"history", client, permits}.try_lease_for(60s, permits));
}

TEST_CASE("Three hundred permits of one client are renewed, and none is lost") {
    if (!RedisServer::available()) SKIP("no redis-server");
    constexpr std::ptrdiff_t count = 300;
    constexpr std::chrono::milliseconds life{1000};
    RedisServer server;
    RedisClient client{server.url()};
    RedisSemaphore pool{"pool", client, count, {.ttl = life}};
    std::vector<Lease> leases;
    for (std::ptrdiff_t i = 0; i < count; ++i)
        leases.push_back(pool.lease());
    std::this_thread::sleep_for(5 * life);
    const ClientStats stats = client.stats();
    std::cout << "permits: " << count << " of " << life.count()
              << " ms for five times that: " << stats.leases_lost << " lost, " << stats.renewals
              << " renewals\n";
    CHECK(stats.leases_lost == 0);
    CHECK(std::ranges::all_of(leases, &Lease::valid));
    CHECK(server.command({"ZCARD", "codomyrmex:sem:{pool}"}).number == count);
    CHECK_FALSE(pool.try_acquire());
}

TEST_CASE("A server that forgets its holders is found out, and the fenced register still holds") {
    if (!RedisServer::available()) SKIP("no redis-server");
    const Report permits_given = history_of_a_forgetful_server(
        "codomyrmex:sem:{history}", [](Worker& worker) { worker.use_semaphore(); });
    CAPTURE(permits_given.to_string());
    CHECK(permits_given.of(Check::overlap) > 0);
    const Report read_and_written = history_of_a_forgetful_server(
        "codomyrmex:rw:{history}", [](Worker& worker) { worker.use_read_write_lock(); });
    CAPTURE(read_and_written.to_string());
    CHECK(read_and_written.of(Check::overlap) > 0);
    CHECK(read_and_written.of(Check::fence) == 0);
    CHECK(read_and_written.of(Check::stale_write) == 0);
}
