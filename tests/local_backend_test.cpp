// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/local_backend.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

using namespace codomyrmex::concurrency;

TEST_CASE("The local backend makes free primitives of the types that it names") {
    const LocalBackend backend;

    auto lock = backend.make_lock("a name");
    static_assert(std::same_as<decltype(lock), BasicLocalLock<WordMutex>>);
    CHECK(lock.name() == "a name");
    REQUIRE(lock.try_lock());
    lock.unlock();

    auto read_write = backend.make_read_write("a name");
    static_assert(std::same_as<decltype(read_write), TimedReadWriteLock>);
    CHECK(read_write.try_write());

    auto semaphore = backend.make_semaphore("a name", 2);
    static_assert(std::same_as<decltype(semaphore), LocalSemaphore>);
    CHECK(semaphore.permits() == 2);
    CHECK(semaphore.available() == 2);
}

TEST_CASE("Two locks that the local backend makes for one name have nothing in common") {
    const LocalBackend backend;
    auto one = backend.make_lock("same");
    auto other = backend.make_lock("same");
    const std::scoped_lock guard{one};
    CHECK(other.try_lock());
    other.unlock();
}

TEST_CASE("The local backend makes no semaphore without permits") {
    const LocalBackend backend;
    CHECK(support::error_of([&] {
              [[maybe_unused]] auto none = backend.make_semaphore("pool", 0);
          }) == LockErrc::invalid_argument);
}
