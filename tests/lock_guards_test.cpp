// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/lock_guards.hpp>
#include <codomyrmex/concurrency/lock_manager.hpp>

#include "support/catch2.hpp"
#include "support/fake_leasing_backend.hpp"
#include "support/thread.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::FakeLeasingBackend;
using support::FakeServer;

namespace {

using LocalManager = LockManager<LocalBackend>;
using LeasingManager = LockManager<FakeLeasingBackend>;

template <class Guard>
concept MovesOnly =
    std::is_nothrow_move_constructible_v<Guard> && std::is_nothrow_move_assignable_v<Guard> &&
    std::is_nothrow_destructible_v<Guard> && !std::is_copy_constructible_v<Guard> &&
    !std::is_copy_assignable_v<Guard> && std::is_nothrow_default_constructible_v<Guard>;

static_assert(MovesOnly<LocalManager::guard_type>);
static_assert(MovesOnly<LocalManager::permit_type>);
static_assert(MovesOnly<LocalManager::multi_guard_type>);
static_assert(MovesOnly<LeasingManager::guard_type>);
static_assert(MovesOnly<LeasingManager::multi_guard_type>);
static_assert(!std::is_move_constructible_v<LocalManager::handle_type>);
static_assert(!std::is_copy_constructible_v<LocalManager::handle_type>);
static_assert(TimedLockable<LocalManager::handle_type>);
static_assert(TimedLockable<LeasingManager::handle_type>);
static_assert(noexcept(std::declval<LeasingManager::guard_type&>().unlock()));

template <class T>
concept TellsOfLease = requires(const T& guard) {
    guard.fence();
    guard.valid();
    guard.remaining();
};

static_assert(TellsOfLease<LeasingManager::guard_type>);
static_assert(TellsOfLease<LeasingManager::read_guard_type>);
static_assert(TellsOfLease<LeasingManager::write_guard_type>);
static_assert(TellsOfLease<LeasingManager::permit_type>);
static_assert(TellsOfLease<LeasingManager::handle_type>);
static_assert(!TellsOfLease<LocalManager::guard_type>);
static_assert(!TellsOfLease<LocalManager::handle_type>);

template <class Manager>
bool is_free(Manager& manager, std::string_view name) {
    return support::on_another_thread([&] { return manager.try_lock(name).owns_lock(); });
}

template <class Guard>
std::error_code unlock(Guard& guard) {
    // Not empty before, to see that it is cleared.
    std::error_code error = LockErrc::abandoned;
    guard.unlock(error);
    return error;
}

struct LeasingFixture {
    FakeLeasingBackend backend;
    FakeServer& server = *backend.server;
    LeasingManager manager{backend};
};

}  // namespace

TEST_CASE("A guard holds until the end of its scope") {
    LocalManager manager;
    {
        auto guard = manager.lock("a");
        CHECK(guard);
        CHECK(guard.owns_lock());
        CHECK(guard.name() == "a");
        CHECK_FALSE(is_free(manager, "a"));
    }
    CHECK(is_free(manager, "a"));
}

TEST_CASE("A guard releases when an exception leaves its scope, and lets it pass") {
    LocalManager manager;
    CHECK_THROWS_WITH(
        [&] {
            auto guard = manager.lock("a");
            throw std::runtime_error{"unharmed"};
        }(),
        "unharmed");
    CHECK(is_free(manager, "a"));
}

TEST_CASE("A guard is unlocked once; the second time is reported") {
    LocalManager manager;
    auto guard = manager.lock("a");
    CHECK_FALSE(unlock(guard));
    CHECK_FALSE(guard);
    CHECK(guard.name().empty());
    CHECK(is_free(manager, "a"));
    CHECK(unlock(guard) == LockErrc::not_held);
    guard.unlock();
    CHECK(manager.stats().releases == manager.stats().acquisitions);
}

TEST_CASE("An empty guard holds nothing") {
    LocalManager::guard_type guard;
    CHECK_FALSE(guard);
    CHECK(guard.name().empty());
    CHECK(unlock(guard) == LockErrc::not_held);
}

TEST_CASE("A guard that was moved from is empty, and the hold goes on in the other") {
    LocalManager manager;
    auto guard = manager.lock("a");
    auto other = std::move(guard);
    CHECK_FALSE(guard);
    CHECK(unlock(guard) == LockErrc::not_held);
    CHECK(other.name() == "a");
    CHECK_FALSE(is_free(manager, "a"));
    CHECK_FALSE(unlock(other));
    CHECK(is_free(manager, "a"));
}

TEST_CASE("Assigning to a guard releases what it held") {
    LocalManager manager;
    auto guard = manager.lock("a");
    guard = manager.lock("b");
    CHECK(guard.name() == "b");
    CHECK(is_free(manager, "a"));
    CHECK_FALSE(is_free(manager, "b"));
    auto& same = guard;
    guard = std::move(same);
    CHECK(guard.name() == "b");
    CHECK_FALSE(is_free(manager, "b"));
}

TEST_CASE("A permit may be released on another thread") {
    LocalManager manager;
    auto permit = manager.permit("pool", 1);
    support::Thread{[permit = std::move(permit)]() mutable { permit.unlock(); }}.join();
    CHECK(manager.try_permit("pool", 1));
}

TEST_CASE("A multi-guard is a range of its guards, sorted by name") {
    LocalManager manager;
    auto all = manager.lock_all({"c", "a", "b", "a"});
    std::vector<std::string_view> names;
    for (const auto& guard : all)
        names.push_back(guard.name());
    CHECK(names == std::vector<std::string_view>{"a", "b", "c"});
    CHECK(all.size() == 3);
    CHECK(all.owns_lock());
}

TEST_CASE("A multi-guard releases all, once") {
    LocalManager manager;
    auto all = manager.lock_all({"a", "b"});
    CHECK_FALSE(is_free(manager, "a"));
    CHECK_FALSE(is_free(manager, "b"));
    CHECK_FALSE(unlock(all));
    CHECK_FALSE(all);
    CHECK(all.size() == 0);
    CHECK(is_free(manager, "a"));
    CHECK(is_free(manager, "b"));
    CHECK(unlock(all) == LockErrc::not_held);
    { auto again = manager.lock_all({"a", "b"}); }
    CHECK(is_free(manager, "a"));
    CHECK(is_free(manager, "b"));
}

TEST_CASE("A multi-guard that was moved from is empty; assigning releases what was held") {
    LocalManager manager;
    auto all = manager.lock_all({"a", "b"});
    auto other = std::move(all);
    CHECK_FALSE(all);
    CHECK(all.size() == 0);
    CHECK(unlock(all) == LockErrc::not_held);
    CHECK(other.size() == 2);
    other = manager.lock_all({"c"});
    CHECK(is_free(manager, "a"));
    CHECK_FALSE(is_free(manager, "c"));
    auto& same = other;
    other = std::move(same);
    CHECK(other.size() == 1);
    CHECK_FALSE(is_free(manager, "c"));
}

TEST_CASE("A multi-guard over no names owns nothing and is true, as std::scoped_lock<>") {
    LocalManager manager;
    auto none = manager.lock_all({});
    CHECK(none);
    CHECK(none.size() == 0);
    CHECK_FALSE(unlock(none));
    CHECK_FALSE(none);
    CHECK(unlock(none) == LockErrc::not_held);
    CHECK(manager.try_lock_all({}));
    CHECK(manager.stats().registered == 0);
}

TEST_CASE("A handle works with the guards of the standard") {
    LocalManager manager;
    auto a = manager.get_lock("a");
    auto b = manager.get_lock("b");
    CHECK(a.name() == "a");
    {
        const std::scoped_lock guard{a, b};
        CHECK_FALSE(is_free(manager, "a"));
        CHECK_FALSE(is_free(manager, "b"));
    }
    {
        std::unique_lock guard{a, std::try_to_lock};
        CHECK(guard);
        CHECK_FALSE(is_free(manager, "a"));
    }
    {
        std::unique_lock guard{a, 1s};
        CHECK(guard);
        CHECK_FALSE(support::on_another_thread([&] {
            return std::unique_lock{a, 1ms}.owns_lock();
        }));
    }
    {
        std::unique_lock guard{a, std::chrono::steady_clock::now()};
        CHECK(guard);
    }
    CHECK(is_free(manager, "a"));
    CHECK(is_free(manager, "b"));
    CHECK(manager.stats().acquisitions == manager.stats().releases);
}

TEST_CASE("std::condition_variable_any waits on a handle") {
    LocalManager manager;
    auto lock = manager.get_lock("queue");
    std::condition_variable_any filled;
    bool ready = false;
    support::Thread producer{[&] {
        const auto guard = manager.lock("queue");
        ready = true;
        filled.notify_one();
    }};
    std::unique_lock guard{lock};
    filled.wait(guard, [&] { return ready; });
    CHECK(ready);
}

TEST_CASE("Two handles and the guards of a name are one lock") {
    LocalManager manager;
    auto one = manager.get_lock("a");
    auto two = manager.get_lock("a");
    const std::scoped_lock guard{one};
    CHECK_FALSE(support::on_another_thread([&] { return two.try_lock(); }));
    CHECK_FALSE(is_free(manager, "a"));
}

TEST_CASE("A handle reports errors where it is told to, and contention is none") {
    LeasingFixture fixture;
    auto lock = fixture.manager.get_lock("a");
    std::error_code error = LockErrc::abandoned;
    lock.lock(error);
    CHECK_FALSE(error);
    error = LockErrc::abandoned;
    CHECK_FALSE(lock.try_lock(error));
    CHECK_FALSE(error);
    error = LockErrc::abandoned;
    CHECK_FALSE(lock.try_lock_for(1ms, error));
    CHECK_FALSE(error);
    error = LockErrc::abandoned;
    CHECK_FALSE(lock.try_lock_until(std::chrono::steady_clock::now(), error));
    CHECK_FALSE(error);
    CHECK_FALSE(unlock(lock));

    fixture.server.fail_with(LockErrc::backend_unavailable);
    lock.lock(error);
    CHECK(error == LockErrc::backend_unavailable);
    error.clear();
    CHECK_FALSE(lock.try_lock(error));
    CHECK(error == LockErrc::backend_unavailable);
    error.clear();
    CHECK_FALSE(lock.try_lock_for(1ms, error));
    CHECK(error == LockErrc::backend_unavailable);
    error.clear();
    CHECK_FALSE(lock.try_lock_until(std::chrono::steady_clock::now(), error));
    CHECK(error == LockErrc::backend_unavailable);
    CHECK(support::error_of([&] { lock.lock(); }) == LockErrc::backend_unavailable);
    CHECK(fixture.manager.stats().active == 0);
}

TEST_CASE("A handle over a leasing lock keeps the lease in the lock and tells of it") {
    LeasingFixture fixture;
    auto lock = fixture.manager.get_lock("a");
    CHECK(lock.fence() == 0);
    CHECK_FALSE(lock.valid());
    CHECK(unlock(lock) == LockErrc::not_held);
    lock.lock();
    CHECK(lock.fence() == 1);
    CHECK(lock.valid());
    CHECK(lock.remaining() == 7ms);
    fixture.server.lose("lock:a");
    CHECK_FALSE(lock.valid());
    CHECK(unlock(lock) == LockErrc::lease_lost);
    const auto stats = fixture.manager.stats();
    CHECK(stats.acquisitions == 1);
    CHECK(stats.releases == 1);
    CHECK(stats.lost == 1);
    CHECK(stats.active == 0);
}

TEST_CASE("A guard of a leasing backend tells of its lease") {
    LeasingFixture fixture;
    auto guard = fixture.manager.lock("a");
    CHECK(guard.fence() == 1);
    CHECK(guard.valid());
    CHECK(guard.remaining() == 7ms);
    CHECK_FALSE(unlock(guard));
    CHECK(guard.fence() == 0);
    CHECK_FALSE(guard.valid());
    CHECK(guard.remaining() == 0ns);
    CHECK(fixture.server.used("lock:a") == 0);
    guard = fixture.manager.lock("a");
    CHECK(guard.fence() == 2);
    auto other = std::move(guard);
    CHECK(guard.fence() == 0);
    CHECK(other.fence() == 2);
    CHECK(other.valid());
}

TEST_CASE("A guard whose lease was lost says so, and disturbs nobody when it unlocks") {
    LeasingFixture fixture;
    auto guard = fixture.manager.lock("a");
    fixture.server.lose("lock:a");
    CHECK_FALSE(guard.valid());
    CHECK(guard.remaining() == 0ns);
    CHECK(guard.owns_lock());
    auto next = fixture.manager.lock("a");
    CHECK(next.fence() == 2);
    CHECK(unlock(guard) == LockErrc::lease_lost);
    CHECK(next.valid());
    CHECK(fixture.server.used("lock:a") == 1);
    CHECK(unlock(guard) == LockErrc::not_held);
    CHECK(fixture.manager.stats().lost == 1);
    CHECK(fixture.manager.stats().active == 1);
}

#if defined(__cpp_lib_jthread)
template <class T>
concept HasStopToken = requires(const T& guard) { guard.stop_token(); };

static_assert(HasStopToken<LeasingManager::guard_type>);
static_assert(HasStopToken<LeasingManager::read_guard_type>);
static_assert(HasStopToken<LeasingManager::write_guard_type>);
static_assert(HasStopToken<LeasingManager::permit_type>);
static_assert(HasStopToken<LeasingManager::handle_type>);
static_assert(!HasStopToken<LocalManager::guard_type>);
static_assert(!HasStopToken<LocalManager::handle_type>);

TEST_CASE("The token of a guard is asked to stop when the lease is lost, and only then") {
    LeasingFixture fixture;
    auto guard = fixture.manager.lock("a");
    const auto stop = guard.stop_token();
    CHECK(stop.stop_possible());
    CHECK_FALSE(stop.stop_requested());
    SECTION("unlocked") {
        CHECK_FALSE(unlock(guard));
        CHECK_FALSE(stop.stop_requested());
        CHECK_FALSE(guard.stop_token().stop_possible());
    }
    SECTION("lost") {
        fixture.server.lose("lock:a");
        CHECK(stop.stop_requested());
    }
}

TEST_CASE("The token of a handle over a leasing lock is asked to stop when the lease is lost") {
    LeasingFixture fixture;
    auto lock = fixture.manager.get_lock("a");
    lock.lock();
    const auto stop = lock.stop_token();
    CHECK_FALSE(stop.stop_requested());
    fixture.server.lose("lock:a");
    CHECK(stop.stop_requested());
    CHECK(unlock(lock) == LockErrc::lease_lost);
}
#endif

TEST_CASE("A guard reports what the backend says at the release, and is empty all the same") {
    LeasingFixture fixture;
    auto guard = fixture.manager.lock("a");
    fixture.server.fail_with(LockErrc::unknown_outcome);
    CHECK(unlock(guard) == LockErrc::unknown_outcome);
    CHECK_FALSE(guard);
    CHECK(fixture.manager.stats().active == 0);
    CHECK(fixture.manager.stats().lost == 0);
}

TEST_CASE("A destructor is silent when the backend fails") {
    LeasingFixture fixture;
    {
        auto guard = fixture.manager.lock("a");
        auto both = fixture.manager.lock_all({"b", "c"});
        fixture.server.fail_with(LockErrc::backend_unavailable);
    }
    CHECK(fixture.manager.stats().active == 0);
}

TEST_CASE("Guards of reads, writes and permits keep leases too") {
    LeasingFixture fixture;
    {
        auto one = fixture.manager.read("config");
        auto two = fixture.manager.try_read("config");
        CHECK(one.fence() == 1);
        CHECK(two.fence() == 2);
        CHECK(fixture.server.used("read_write:config") == 2);
        CHECK_FALSE(fixture.manager.try_write("config"));
        CHECK_FALSE(fixture.manager.try_write_for("config", 1ms));
        fixture.server.lose("read_write:config");
        CHECK_FALSE(one.valid());
        CHECK(unlock(two) == LockErrc::lease_lost);
    }
    {
        auto writer = fixture.manager.write("config");
        CHECK(writer.fence() == 3);
        CHECK_FALSE(fixture.manager.try_read_for("config", 1ms));
    }
    CHECK(fixture.server.used("read_write:config") == 0);
    CHECK(fixture.manager.try_read_until("config", std::chrono::steady_clock::now()));
    CHECK(fixture.manager.try_write_until("config", std::chrono::steady_clock::now()));
    {
        auto one = fixture.manager.permit("pool", 2);
        auto two = fixture.manager.permit("pool", 2);
        CHECK(two.fence() == 2);
        CHECK(two.valid());
        CHECK_FALSE(fixture.manager.try_permit("pool", 2));
        CHECK(fixture.server.used("semaphore:pool") == 2);
    }
    CHECK(fixture.server.used("semaphore:pool") == 0);
    const auto stats = fixture.manager.stats();
    CHECK(stats.active == 0);
    CHECK(stats.lost == 2);
}

TEST_CASE("A multi-guard reports the first thing that was wrong and releases the rest") {
    LeasingFixture fixture;
    auto all = fixture.manager.lock_all({"a", "b", "c"});
    fixture.server.lose("lock:b");
    CHECK(unlock(all) == LockErrc::lease_lost);
    CHECK(fixture.server.used("lock:a") == 0);
    CHECK(fixture.server.used("lock:c") == 0);
    CHECK(fixture.manager.stats().lost == 1);
}
