// SPDX-License-Identifier: MIT
//
// Tests of permit.hpp: over a local semaphore, over one of the standard, and over a fake one whose
// permits are leases.

#include <codomyrmex/concurrency/local_semaphore.hpp>
#include <codomyrmex/concurrency/permit.hpp>

#include "support/catch2.hpp"
#include "support/fake_semaphore.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::error_of;
using support::FakeSemaphore;

namespace {

using LocalPermit = Permit<LocalSemaphore>;
using LeasedPermit = Permit<FakeSemaphore>;

static_assert(!std::is_copy_constructible_v<LocalPermit> &&
              !std::is_copy_assignable_v<LocalPermit>);
static_assert(std::is_nothrow_move_constructible_v<LocalPermit>);
static_assert(std::is_nothrow_move_assignable_v<LocalPermit>);
static_assert(std::is_nothrow_swappable_v<LocalPermit>);
static_assert(std::is_nothrow_destructible_v<LocalPermit>);
static_assert(!std::is_convertible_v<LocalSemaphore&, LocalPermit>);
static_assert(!std::is_convertible_v<LocalPermit, bool>);
static_assert(!std::is_default_constructible_v<LocalPermit>);
static_assert(!std::is_constructible_v<LocalPermit, LocalSemaphore&, std::defer_lock_t>);
static_assert(sizeof(LocalPermit) == sizeof(void*));

template <class P>
concept TellsOfALease = requires(const P& permit) {
    permit.fence();
    permit.valid();
    permit.remaining();
    permit.stop_token();
};
static_assert(TellsOfALease<LeasedPermit> && !TellsOfALease<LocalPermit>);
static_assert(!TellsOfALease<Permit<std::counting_semaphore<>>>);

struct UntimedSemaphore {
    void acquire();
    bool try_acquire();
    void release();
};
static_assert(std::is_constructible_v<Permit<UntimedSemaphore>, UntimedSemaphore&>);
static_assert(
    !std::is_constructible_v<Permit<UntimedSemaphore>, UntimedSemaphore&, std::chrono::seconds>);

}  // namespace

TEST_CASE("a permit is taken by the constructor and given back by the destructor") {
    LocalSemaphore semaphore{5};
    {
        const Permit permit{semaphore};
        CHECK(permit);
        CHECK(permit.owns_permit());
        CHECK(semaphore.available() == 4);
    }
    CHECK(semaphore.available() == 5);
}

TEST_CASE("a permit that cannot be had in time is empty and gives nothing back") {
    LocalSemaphore semaphore{1};
    const Permit only{semaphore};
    if (const Permit permit{semaphore, 1ms}) FAIL("a second permit of one");
    if (const Permit permit{semaphore, -1h}) FAIL("a second permit of one");
    if (const Permit permit{semaphore, std::try_to_lock}) FAIL("a second permit of one");
    if (const Permit permit{semaphore, std::chrono::steady_clock::now() + 1ms}) {
        FAIL("a second permit of one");
    }
    CHECK(semaphore.available() == 0);
}

TEST_CASE("a permit that is free is had with any timeout, at once") {
    LocalSemaphore semaphore{5};
    const Permit tried{semaphore, std::try_to_lock};
    const Permit timed{semaphore, 100ms};
    const Permit late{semaphore, -1h};
    const Permit patient{semaphore, std::chrono::hours::max()};
    const Permit until{semaphore, std::chrono::system_clock::time_point::max()};
    CHECK((tried && timed && late && patient && until));
    CHECK(semaphore.available() == 0);
}

TEST_CASE("a permit can be adopted") {
    LocalSemaphore semaphore{1};
    semaphore.acquire();
    {
        const Permit permit{semaphore, std::adopt_lock};
        CHECK(permit);
        CHECK(semaphore.available() == 0);
    }
    CHECK(semaphore.available() == 1);
}

TEST_CASE("a permit over a semaphore of the standard works the same") {
    std::counting_semaphore<> semaphore{1};
    {
        const Permit permit{semaphore};
        CHECK(permit);
        CHECK_FALSE(Permit{semaphore, 0ms}.owns_permit());
    }
    CHECK(Permit{semaphore, std::try_to_lock}.owns_permit());
}

TEST_CASE("release gives back once and says so; a second one is not_held") {
    LocalSemaphore semaphore{2};
    const Permit other{semaphore};
    Permit permit{semaphore};
    CHECK(permit.release());
    CHECK_FALSE(permit);
    CHECK(semaphore.available() == 1);
    CHECK(error_of([&] { permit.release(); }) == LockErrc::not_held);
    std::error_code ec;
    CHECK_FALSE(permit.release(ec));
    CHECK(ec == LockErrc::not_held);
    CHECK(semaphore.available() == 1);
}

TEST_CASE("release clears the error_code when it succeeds") {
    LocalSemaphore semaphore{1};
    Permit permit{semaphore};
    std::error_code ec = LockErrc::mismatch;
    CHECK(permit.release(ec));
    CHECK_FALSE(ec);
    CHECK(semaphore.available() == 1);
}

TEST_CASE("a permit that was never had cannot be released") {
    LocalSemaphore semaphore{1};
    const Permit only{semaphore};
    Permit empty{semaphore, std::try_to_lock};
    CHECK(error_of([&] { empty.release(); }) == LockErrc::not_held);
    CHECK(semaphore.available() == 0);
}

TEST_CASE("what the semaphore says against a release reaches the caller, and never a destructor") {
    LocalSemaphore semaphore{1};
    Permit permit{semaphore};
    semaphore.release();  // behind the permit's back
    CHECK(error_of([&] { permit.release(); }) == LockErrc::not_held);
    CHECK_FALSE(permit);
    { const Permit wrong{semaphore, std::adopt_lock}; }
    Permit wrong{semaphore, std::adopt_lock};
    std::error_code ec;
    CHECK_FALSE(wrong.release(ec));
    CHECK(ec == LockErrc::not_held);
    CHECK(semaphore.available() == 1);
}

TEST_CASE("an exception in the critical section gives the permit back and goes on unharmed") {
    LocalSemaphore semaphore{1};
    try {
        const Permit permit{semaphore};
        throw std::runtime_error{"from within"};
    } catch (const std::runtime_error& error) {
        CHECK(std::string{error.what()} == "from within");
    }
    CHECK(semaphore.available() == 1);
}

TEST_CASE("moving hands the permit over and leaves nothing behind") {
    LocalSemaphore semaphore{1};
    std::optional<LocalPermit> first{std::in_place, semaphore};
    Permit second{std::move(*first)};
    CHECK(second);
    CHECK_FALSE(*first);
    CHECK(error_of([&] { first->release(); }) == LockErrc::not_held);
    first.reset();
    CHECK(semaphore.available() == 0);
    second.release();
    CHECK(semaphore.available() == 1);
}

TEST_CASE("assignment gives back what was held before, and to oneself changes nothing") {
    LocalSemaphore left{1};
    LocalSemaphore right{1};
    Permit permit{left};
    Permit other{right};
    permit = std::move(other);
    CHECK(left.available() == 1);
    CHECK(right.available() == 0);
    CHECK(permit);
    CHECK_FALSE(other);
    auto& itself = permit;
    permit = std::move(itself);
    CHECK(permit);
    CHECK(right.available() == 0);
    permit.release();
    CHECK(right.available() == 1);
}

TEST_CASE("swap exchanges what two permits stand for") {
    LocalSemaphore semaphore{1};
    Permit full{semaphore};
    Permit empty{semaphore, std::try_to_lock};
    swap(full, empty);
    CHECK_FALSE(full);
    CHECK(empty);
    full.swap(empty);
    CHECK(full);
    CHECK(semaphore.available() == 0);
}

TEST_CASE("a permit may be given back on another thread") {
    LocalSemaphore semaphore{1};
    Permit permit{semaphore};
    CHECK(support::on_another_thread([&] { return Permit{std::move(permit)}.release(); }));
    CHECK(semaphore.available() == 1);
}

TEST_CASE("a permit of a leasing semaphore tells of its lease") {
    FakeSemaphore semaphore{2};
    const Permit first{semaphore};
    const Permit second{semaphore, std::try_to_lock};
    CHECK(first.fence() == 1);
    CHECK(second.fence() == 2);
    CHECK(second.valid());
    CHECK(second.remaining() == 7ms);
    CHECK_FALSE(second.stop_token().stop_requested());
    const auto token = second.stop_token();
    semaphore.backend->lost.request_stop();
    CHECK(token.stop_requested());
    CHECK_FALSE(second.valid());
    CHECK(second.remaining() == 0ns);
    CHECK(second.owns_permit());
}

TEST_CASE("a lease is given back once, by the permit that has it last") {
    FakeSemaphore semaphore{1};
    {
        std::optional<LeasedPermit> first{std::in_place, semaphore};
        Permit second{std::move(*first)};
        CHECK_FALSE(*first);
        CHECK(first->fence() == 0);
        first.reset();
        CHECK(semaphore.backend->releases == 0);
        Permit third{semaphore, 5ms};
        CHECK_FALSE(third);
        third = std::move(second);
        CHECK(third.fence() == 1);
    }
    CHECK(semaphore.backend->releases == 1);
    CHECK(semaphore.backend->free == 1);
    CHECK(semaphore.plain_releases == 0);
}

TEST_CASE("assignment over a lease gives the old one back") {
    FakeSemaphore semaphore{2};
    Permit permit{semaphore};
    permit = Permit{semaphore};
    CHECK(semaphore.backend->releases == 1);
    CHECK(permit.fence() == 2);
    auto& itself = permit;
    permit = std::move(itself);
    CHECK(permit.fence() == 2);
    CHECK(semaphore.backend->releases == 1);
}

TEST_CASE("an empty permit of a leasing semaphore knows no lease") {
    FakeSemaphore semaphore{0};
    Permit permit{semaphore, std::try_to_lock};
    CHECK_FALSE(permit);
    CHECK(permit.fence() == 0);
    CHECK_FALSE(permit.valid());
    CHECK(permit.remaining() == 0ns);
    CHECK_FALSE(permit.stop_token().stop_possible());
    CHECK(error_of([&] { permit.release(); }) == LockErrc::not_held);
}

TEST_CASE("timeouts reach the leasing semaphore") {
    FakeSemaphore semaphore{2};
    const auto when = std::chrono::steady_clock::now() + 1h;
    CHECK(Permit{semaphore, 5ms}.owns_permit());
    CHECK(semaphore.last_timeout == 5ms);
    CHECK(Permit{semaphore, when}.owns_permit());
    CHECK(semaphore.last_time == when);
}

TEST_CASE("release tells whether the lease was still there, and throws when it cannot know") {
    FakeSemaphore semaphore{3};
    Permit kept{semaphore};
    Permit lost{semaphore};
    Permit unknown{semaphore};
    CHECK(kept.release());
    semaphore.backend->reachable = false;
    CHECK(error_of([&] { unknown.release(); }) == LockErrc::unknown_outcome);
    CHECK_FALSE(unknown);
    semaphore.backend->reachable = true;
    semaphore.backend->lost.request_stop();
    std::error_code ec = LockErrc::mismatch;
    CHECK_FALSE(lost.release(ec));
    CHECK_FALSE(ec);
    CHECK_FALSE(lost);
}

TEST_CASE("an adopted permit of a leasing semaphore is given back through the semaphore") {
    FakeSemaphore semaphore{1};
    semaphore.acquire();
    {
        Permit adopted{semaphore, std::adopt_lock};
        CHECK(adopted);
        CHECK(adopted.fence() == 0);
        CHECK_FALSE(adopted.valid());
        const Permit moved{std::move(adopted)};
        CHECK(moved);
    }
    CHECK(semaphore.plain_releases == 1);
    CHECK(semaphore.backend->releases == 0);
}

TEST_CASE("a permit with a lease outlives its semaphore") {
    auto semaphore = std::make_unique<FakeSemaphore>(1);
    const auto backend = semaphore->backend;
    {
        const Permit permit{*semaphore};
        semaphore.reset();
        CHECK(permit.valid());
    }
    CHECK(backend->free == 1);
}
