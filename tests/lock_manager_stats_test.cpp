// SPDX-License-Identifier: MIT
//
// Tests of what a LockManager tells of itself beyond its counts: times, hand-overs, single names,
// and hooks; over local locks and over leases.

#include <codomyrmex/concurrency/lock_manager.hpp>

#include "support/catch2.hpp"
#include "support/fake_leasing_backend.hpp"
#include "support/thread.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::eventually;

namespace {

/// What hooks were told, in order.
class Told {
  public:
    [[nodiscard]] LockManagerHooks hooks() {
        return {.on_acquired = [this](const LockEvent& event) { note("acquired", event); },
                .on_contended = [this](const LockEvent& event) { note("contended", event); },
                .on_lost = [this](const LockEvent& event) { note("lost", event); },
                .on_error = [this](const LockEvent& event, const std::error_code& code,
                                   const std::string&) { note("error " + code.message(), event); }};
    }
    [[nodiscard]] std::vector<std::string> all() const {
        const std::lock_guard guard{mutex_};
        return all_;
    }

  private:
    void note(const std::string& what, const LockEvent& event) {
        const std::lock_guard guard{mutex_};
        all_.push_back(what + ' ' + std::string{event.name} + ' ' +
                       std::string{to_string(event.kind)});
    }
    mutable std::mutex mutex_;
    std::vector<std::string> all_;
};

using Lines = std::vector<std::string>;

/// Lets another thread wait for `name` behind a guard of this one until it is given up.
void contend(LockManager<>& manager, const std::string& name) {
    auto guard = manager.lock(name);
    support::Thread other{[&] { const auto second = manager.lock(name); }};
    REQUIRE(eventually([&] { return manager.stats().waiting == 1; }));
    guard.unlock();
}

}  // namespace

TEST_CASE("who waited is timed, and had the lock from another thread") {
    LockManager manager;
    contend(manager, "a");
    const LockManagerStats stats = manager.stats();
    CHECK(stats.acquisitions == 2);
    CHECK(stats.contended == 1);
    CHECK(stats.local_handovers == 1);
    CHECK(stats.remote_handovers == 0);
    CHECK(stats.waits.count() == 1);
    CHECK(stats.waits.sum() > 0ns);
    CHECK(stats.waits.quantile(0.99) <= stats.waits.max());
    // Of local locks only on request.
    CHECK(stats.holds.count() == 0);
}

TEST_CASE("a wait that was given up is timed, a try is no wait") {
    LockManager manager;
    const auto guard = manager.lock("a");
    support::on_another_thread([&] { return manager.try_lock("a").owns_lock(); });
    CHECK(manager.stats().waits.count() == 0);
    support::on_another_thread([&] { return manager.try_lock_for("a", 3ms).owns_lock(); });
    CHECK(manager.stats().waits.count() == 1);
    CHECK(manager.stats().waits.sum() >= 3ms);
    CHECK(manager.stats().local_handovers == 0);
}

TEST_CASE("hold times of local locks are measured on request, of every kind and handle") {
    LockManager manager{LocalBackend{}, {.hold_times = HoldTimes::all}};
    {
        const auto guard = manager.lock("a");
        const auto read = manager.read("b");
        const auto permit = manager.permit("c", 2);
        const auto both = manager.lock_all({"d", "e"});
        auto handle = manager.get_lock("f");
        const std::scoped_lock held{handle};
        CHECK(manager.stats().holds.count() == 0);
        std::this_thread::sleep_for(1ms);
    }
    const LockManagerStats stats = manager.stats();
    CHECK(stats.holds.count() == 6);
    CHECK(stats.holds.sum() >= 6ms);
    CHECK(stats.holds.quantile(0.01) >= 900us);
}

TEST_CASE("a moved guard keeps when it began") {
    LockManager manager{LocalBackend{}, {.hold_times = HoldTimes::all}};
    auto guard = manager.lock("a");
    std::this_thread::sleep_for(1ms);
    auto other = manager.lock("b");
    other = std::move(guard);
    CHECK(manager.stats().holds.count() == 1);
    other.unlock();
    CHECK(manager.stats().holds.count() == 2);
    CHECK(manager.stats().holds.max() >= 1ms);
}

TEST_CASE("one name can be asked for, of its kind") {
    LockManager manager;
    CHECK_FALSE(manager.stats("a").has_value());
    contend(manager, "a");
    const auto guard = manager.read("a");
    const auto lock = manager.stats("a");
    REQUIRE(lock.has_value());
    CHECK(lock->name == "a");
    CHECK(lock->acquisitions == 2);
    CHECK(lock->releases == 2);
    CHECK(lock->contended == 1);
    CHECK(lock->local_handovers == 1);
    CHECK(lock->held == 0);
    CHECK(lock->waits.count() == 0);
    const auto read = manager.stats("a", LockKind::read_write);
    REQUIRE(read.has_value());
    CHECK(read->held == 1);
    CHECK_FALSE(manager.stats("a", LockKind::semaphore).has_value());
    const auto entries = manager.list();
    REQUIRE(entries.size() == 2);
    CHECK(entries[0].acquisitions == 2);
}

TEST_CASE("times by name are there on request") {
    LockManager manager{LocalBackend{}, {.hold_times = HoldTimes::all, .times_per_name = true}};
    contend(manager, "a");
    { const auto guard = manager.lock("b"); }
    CHECK(manager.stats("a").value().waits.count() == 1);
    CHECK(manager.stats("a").value().holds.count() == 2);
    CHECK(manager.stats("b").value().waits.count() == 0);
    CHECK(manager.stats("b").value().holds.count() == 1);
    CHECK(manager.stats().holds.count() == 3);
}

TEST_CASE("counts of names that were forgotten stay in the totals") {
    LockManager manager{LocalBackend{},
                        {.shards = 1, .cached_per_shard = 1, .hold_times = HoldTimes::all}};
    contend(manager, "a");
    for (int i = 0; i < 10; ++i)
        const auto guard = manager.lock(std::to_string(i));
    CHECK_FALSE(manager.stats("a").has_value());
    const LockManagerStats stats = manager.stats();
    CHECK(stats.acquisitions == 12);
    CHECK(stats.local_handovers == 1);
    CHECK(stats.holds.count() == 12);
}

TEST_CASE("hooks are told what happens, in its order") {
    Told told;
    LockManager manager{LocalBackend{}, {.hooks = told.hooks()}};
    auto guard = manager.lock("a");
    support::on_another_thread([&] { return manager.try_lock("a").owns_lock(); });
    support::on_another_thread([&] { return manager.try_lock_for("a", 1ms).owns_lock(); });
    guard.unlock();
    const auto read = manager.read("b");
    CHECK(told.all() == Lines{"acquired a lock", "contended a lock", "contended a lock",
                              "acquired b read_write"});
}

TEST_CASE("a hook is told how long it was waited for") {
    std::atomic<std::chrono::nanoseconds> waited{0ns};
    LockManager manager{LocalBackend{}, {.hooks = {.on_acquired = [&](const LockEvent& event) {
                                             if (event.hand_over == HandOver::local) {
                                                 waited = event.waited;
                                             }
                                         }}}};
    contend(manager, "a");
    CHECK(waited.load() == manager.stats().waits.max());
}

TEST_CASE("a hook may call the manager, and what it throws is counted") {
    LockManager<>* self = nullptr;
    LockManager manager{LocalBackend{}, {.hooks = {.on_acquired = [&](const LockEvent& event) {
                                             (void)self->stats();
                                             (void)self->list();
                                             if (event.name == "a") {
                                                 const auto other = self->lock("b");
                                             }
                                             throw std::runtime_error{"from a hook"};
                                         }}}};
    self = &manager;
    const auto guard = manager.lock("a");
    CHECK(guard.owns_lock());
    CHECK(manager.stats().hook_exceptions == 2);
}

TEST_CASE("an error of the backend goes to the hook and to the caller") {
    Told told;
    LockManager manager{LocalBackend{}, {.hooks = told.hooks()}};
    struct Broken {
        void lock() { throw LockError(LockErrc::backend_unavailable, "no"); }
        bool try_lock() { throw LockError(LockErrc::backend_unavailable, "no"); }
        bool try_lock_for(std::chrono::nanoseconds) { return try_lock(); }
        bool try_lock_until(std::chrono::steady_clock::time_point) { return try_lock(); }
        void unlock() {}
    } broken;
    manager.register_lock("a", broken);
    CHECK(support::error_of([&] { (void)manager.lock("a"); }) == LockErrc::backend_unavailable);
    std::error_code code;
    CHECK_FALSE(manager.try_lock("a", code).owns_lock());
    CHECK(code == LockErrc::backend_unavailable);
    const std::string line = "error " + code.message() + " a lock";
    CHECK(told.all() == Lines{line, line});
    CHECK(manager.stats().acquisitions == 0);
}

TEST_CASE("many threads with hooks and times lose no count") {
    std::atomic<int> acquired{0};
    LockManager manager{LocalBackend{},
                        {.hold_times = HoldTimes::all,
                         .times_per_name = true,
                         .hooks = {.on_acquired = [&](const LockEvent&) { ++acquired; }}}};
    constexpr int each = 2000;
    support::run_together(4, [&](int) {
        for (int i = 0; i < each; ++i) {
            const auto guard = manager.lock(i % 2 == 0 ? "a" : "b");
            if (i % 500 == 0) (void)manager.stats("a");
        }
    });
    const LockManagerStats stats = manager.stats();
    CHECK(acquired == 4 * each);
    CHECK(stats.acquisitions == 4 * each);
    CHECK(stats.holds.count() == 4 * each);
    CHECK(stats.waits.count() == stats.contended);
    CHECK(stats.local_handovers == stats.contended);
    CHECK(manager.stats("a").value().holds.count() == 2 * each);
}

TEST_CASE("leases are timed as they are, and a loss is told at the release") {
    Told told;
    const auto server = std::make_shared<support::FakeServer>();
    LockManager manager{support::FakeLeasingBackend{server}, {.hooks = told.hooks()}};
    auto guard = manager.lock("a");
    std::this_thread::sleep_for(1ms);
    server->lose("lock:a");
    CHECK_FALSE(guard.valid());
    guard.unlock();
    CHECK(manager.stats().lost == 1);
    CHECK(manager.stats().holds.count() == 1);
    CHECK(manager.stats().holds.max() >= 1ms);
    // A round trip that nobody was in the way of is no wait.
    CHECK(manager.stats().waits.count() == 0);
    const auto second = manager.lock("a");
    CHECK_FALSE(manager.try_lock_for("a", 1ms).owns_lock());
    CHECK(manager.stats().waits.count() == 1);
    CHECK(told.all() ==
          Lines{"acquired a lock", "lost a lock", "acquired a lock", "contended a lock"});
}

TEST_CASE("hold times of leases can be left out") {
    LockManager manager{support::FakeLeasingBackend{std::make_shared<support::FakeServer>()},
                        {.hold_times = HoldTimes::none}};
    { const auto guard = manager.lock("a"); }
    CHECK(manager.stats().acquisitions == 1);
    CHECK(manager.stats().holds.count() == 0);
}

TEST_CASE("a release whose outcome nobody knows is an error that the hook is told of") {
    Told told;
    const auto server = std::make_shared<support::FakeServer>();
    LockManager manager{support::FakeLeasingBackend{server}, {.hooks = told.hooks()}};
    auto guard = manager.lock("a");
    server->fail_with(LockErrc::backend_unavailable);
    guard.unlock();
    const std::error_code code = LockErrc::backend_unavailable;
    CHECK(told.all() == Lines{"acquired a lock", "error " + code.message() + " a lock"});
}
