// SPDX-License-Identifier: MIT
//
// The code that the documentation shows for local locks and for the registry, as it stands there.

#include <codomyrmex/concurrency.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <iostream>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

namespace {

/// Whether another thread gets `lock` without waiting.
template <class Lock>
bool another_gets(Lock& lock) {
    return support::on_another_thread([&] {
        return std::unique_lock{lock, std::try_to_lock}.owns_lock();
    });
}

/// Catches what is written to std::cout while it lives.
class CaughtOutput {
  public:
    CaughtOutput() : old_{std::cout.rdbuf(text_.rdbuf())} {}
    CaughtOutput(const CaughtOutput&) = delete;
    CaughtOutput& operator=(const CaughtOutput&) = delete;
    ~CaughtOutput() { std::cout.rdbuf(old_); }
    [[nodiscard]] std::string text() const { return text_.str(); }

  private:
    std::ostringstream text_;
    std::streambuf* old_;
};

}  // namespace

TEST_CASE("A LocalLock is a mutex with a name") {
    LocalLock lock{"my_resource"};
    CHECK(lock.name() == "my_resource");
    {
        std::scoped_lock guard{lock};
        CHECK_FALSE(another_gets(lock));
    }
    CHECK(another_gets(lock));
}

TEST_CASE("A TimedLocalLock is waited for with a limit") {
    TimedLocalLock timed{"with_deadlines"};
    bool held = false;
    if (std::unique_lock guard{timed, 200ms}) {
        held = true;
        CHECK_FALSE(support::on_another_thread([&] {
            return std::unique_lock{timed, 1ms}.owns_lock();
        }));
    }
    CHECK(held);
    CHECK(another_gets(timed));
}

TEST_CASE("A BasicLocalLock of a WordMutex is waited for with a limit too") {
    BasicLocalLock<WordMutex> one_of_many{"account 4711"};
    std::unique_lock guard{one_of_many, 200ms};
    CHECK(guard.owns_lock());
    CHECK_FALSE(another_gets(one_of_many));
}

TEST_CASE("A BasicLocalLock is as recursive as its mutex") {
    BasicLocalLock<std::recursive_mutex> nested{"tree"};
    CHECK(nested.name() == "tree");
    std::scoped_lock outer{nested};
    { std::scoped_lock inner{nested}; }
    CHECK_FALSE(another_gets(nested));
    static_assert(!TimedLockable<BasicLocalLock<std::recursive_mutex>>);
}

TEST_CASE("A LocalSemaphore lets so many in, and a Permit is one of them") {
    LocalSemaphore semaphore{5};
    {
        Permit permit{semaphore};
        CHECK(semaphore.available() == 4);
    }
    if (Permit permit{semaphore, 100ms}) {
        CHECK(semaphore.available() == 4);
    }
    CHECK(semaphore.available() == 5);
    {
        Permit tried{semaphore, std::try_to_lock};
        CHECK(tried);
        semaphore.acquire();
        Permit adopted{semaphore, std::adopt_lock};
        CHECK(semaphore.available() == 3);
    }
    CHECK(semaphore.available() == 5);
    CHECK(support::error_of([] { LocalSemaphore none{0}; }) == LockErrc::invalid_argument);
}

TEST_CASE("A ReadWriteLock is held by many readers or one writer") {
    ReadWriteLock rw;
    {
        auto r = rw.read();
        CHECK(support::on_another_thread([&] { return rw.try_read().owns_lock(); }));
        CHECK_FALSE(support::on_another_thread([&] { return rw.try_write().owns_lock(); }));
    }
    {
        auto w = rw.write();
        CHECK_FALSE(support::on_another_thread([&] { return rw.try_read().owns_lock(); }));
    }
    bool written = false;
    if (auto w = rw.try_write()) {
        written = true;
    }
    CHECK(written);

    TimedReadWriteLock timed_rw;
    written = false;
    if (auto w = timed_rw.try_write_for(50ms)) {
        written = true;
        CHECK_FALSE(
            support::on_another_thread([&] { return timed_rw.try_read_for(1ms).owns_lock(); }));
        CHECK_FALSE(support::on_another_thread(
            [&] { return timed_rw.try_read_until(std::chrono::steady_clock::now()).owns_lock(); }));
    }
    CHECK(written);
    CHECK(timed_rw.try_write_until(std::chrono::steady_clock::now() + 1s));
}

TEST_CASE("A ScalableReadWriteLock is used as the others are") {
    ScalableReadWriteLock hot;
    {
        auto r = hot.read();
        CHECK(support::on_another_thread([&] { return hot.try_read().owns_lock(); }));
        CHECK_FALSE(support::on_another_thread([&] { return hot.try_write_for(1ms).owns_lock(); }));
    }
    bool written = false;
    if (auto w = hot.try_write_for(50ms)) {
        written = true;
    }
    CHECK(written);
}

TEST_CASE("A LockManager hands out guards by name") {
    LockManager manager;
    static_assert(std::same_as<decltype(manager), LockManager<LocalBackend>>);
    const auto another_takes = [&](std::string_view name) {
        return support::on_another_thread([&] { return manager.try_lock(name).owns_lock(); });
    };
    {
        auto guard = manager.lock("resource_a");
        CHECK_FALSE(another_takes("resource_a"));
    }
    bool held = false;
    if (auto guard = manager.try_lock_for("resource_a", 250ms)) {
        held = true;
        CHECK_FALSE(another_takes("resource_a"));
    }
    CHECK(held);
    auto lock = manager.get_lock("resource_a");
    {
        std::scoped_lock guard{lock};
        CHECK_FALSE(another_takes("resource_a"));
    }
    {
        auto both = manager.lock_all({"b", "a"});
        CHECK(both.size() == 2);
        CHECK_FALSE(another_takes("a"));
        CHECK_FALSE(another_takes("b"));
    }
    CHECK(manager.try_lock_all_for({"b", "a"}, 250ms));
    {
        auto r = manager.read("config");
        auto p = manager.permit("pool", 5);
        auto stats = manager.stats();
        CHECK(stats.active == 2);
        CHECK(stats.registered == 5);
    }
    auto stats = manager.stats();
    CHECK(stats.active == 0);
    CHECK(stats.acquisitions == stats.releases);
    CHECK(stats.contended == 5);
    CHECK(stats.timeouts == 0);
    CHECK(stats.lost == 0);

    std::timed_mutex my_lock;
    manager.register_lock("mine", my_lock);
    {
        auto guard = manager.lock("mine");
        CHECK_FALSE(another_gets(my_lock));
    }
    manager.register_lock("shared", std::make_shared<TimedLocalLock>());

    const CaughtOutput output;
    for (const auto& entry : manager.list()) {
        std::cout << entry.name << '\n';
    }
    CHECK(output.text() == "a\nb\nconfig\nmine\npool\nresource_a\nshared\n");
}
