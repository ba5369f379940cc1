// SPDX-License-Identifier: MIT
//
// Tests of lease.hpp on a client without a server: what a lease says of itself in each of its
// states, and that it ends once.

#include <codomyrmex/concurrency/redis/lease.hpp>

#include "support/catch2.hpp"
#include "support/fake_client.hpp"
#include "support/process.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <optional>
#include <stop_token>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using support::error_of;
using support::message_of;
using test_support::ExitStatus;
using test_support::FakeClient;
using test_support::Process;

using FakeLock = BasicRedisLock<FakeClient>;
using FakeLease = BasicLease<FakeClient>;

// A guard: it moves, and nothing it does on the way can fail.
static_assert(!std::is_copy_constructible_v<Lease> && !std::is_copy_assignable_v<Lease>);
static_assert(std::is_nothrow_move_constructible_v<Lease> &&
              std::is_nothrow_move_assignable_v<Lease> && std::is_nothrow_destructible_v<Lease>);
static_assert(!std::is_convertible_v<Lease, bool>);

// Only of a client that can end them together.
template <class L>
concept EndsTogether = requires(const L& lease) { lease.together(); };
static_assert(EndsTogether<Lease> && !EndsTogether<FakeLease>);

}  // namespace

TEST_CASE("A lease that is held, lost or released says so by each of its members") {
    FakeClient client;
    FakeLock lock{"name", client};
    FakeLease lease = lock.lease();
    const auto stop = lease.stop_token();
    CHECK(lease);
    CHECK(lease.valid());
    CHECK(lease.remaining() > 0s);
    CHECK(lease.fence() == 1);
    CHECK(lease.name() == "name");
    CHECK(lease.token() == client.holder("name"));
    CHECK_FALSE(stop.stop_requested());
    CHECK(lease.renew());
    CHECK(client.renewals() == 1);

    int called = 0;
    const std::stop_callback callback{stop, [&] { ++called; }};
    client.lose("name");
    FakeLease next = lock.lease();
    CHECK(called == 1);
    CHECK(lease);
    CHECK_FALSE(lease.valid());
    CHECK(lease.remaining() == 0s);
    CHECK(lease.fence() == 1);
    CHECK_FALSE(lease.renew());
    CHECK_FALSE(lease.release());
    CHECK(client.holder("name") == next.token());
    CHECK(next.valid());
    CHECK(next.fence() == 2);

    CHECK_FALSE(lease);
    CHECK_FALSE(lease.valid());
    CHECK(lease.remaining() == 0s);
    CHECK(lease.fence() == 0);
    CHECK(lease.name().empty());
    CHECK(lease.token().empty());
    CHECK_FALSE(lease.contended());
    CHECK(lease.hand_over() == HandOver::none);
    CHECK_FALSE(lease.stop_token().stop_possible());
    CHECK(error_of([&] { (void)lease.renew(); }) == LockErrc::not_held);
    CHECK(error_of([&] { (void)lease.release(); }) == LockErrc::not_held);
    // Its end is no loss of the other, nor the other way round.
    CHECK(next.release());
    CHECK(called == 1);
    CHECK_FALSE(Lease{}.together().has_value());
}

TEST_CASE("a lease is released once: by release(), by unlock(), by its destructor, by assignment") {
    FakeClient client;
    FakeLock lock{"name", client};
    auto lease = lock.lease();
    auto moved = std::move(lease);
    CHECK_FALSE(lease);
    CHECK_FALSE(lease.valid());
    CHECK(lease.fence() == 0);
    CHECK_THROWS_AS(lease.release(), LockError);
    std::error_code code;
    CHECK_FALSE(lease.renew(code));
    CHECK(code == LockErrc::not_held);
    CHECK(moved.release());
    moved.release(code);
    CHECK(code == LockErrc::not_held);

    moved = lock.lease();
    moved.unlock(code);
    CHECK_FALSE(code);
    moved.unlock(code);
    CHECK(code == LockErrc::not_held);

    moved = lock.lease();
    moved = {};
    CHECK(client.holder("name").empty());
    CHECK(client.releases().size() == 3);
}

TEST_CASE("an assignment gives back what was held before, a swap and one to itself nothing") {
    FakeClient client;
    FakeLock a{"a", client};
    FakeLock b{"b", client};
    FakeLease first = a.lease();
    FakeLease second = b.lease();
    const std::string first_token{first.token()};
    const std::string second_token{second.token()};
    swap(first, second);
    CHECK(first.token() == second_token);
    CHECK(second.token() == first_token);
    FakeLease& same = first;
    first = std::move(same);
    CHECK(first.valid());
    CHECK(client.releases().empty());
    second = std::move(first);
    CHECK(client.releases() == std::vector{first_token});
    CHECK(second.token() == second_token);
    CHECK(second.valid());
    CHECK_FALSE(first);
}

TEST_CASE("a lease outlives its lock, and the lock does not hold what it gave away") {
    FakeClient client;
    std::optional<FakeLock> lock{std::in_place, "name", client};
    auto lease = lock->lease();
    CHECK(lease.valid());
    CHECK(lease.name() == "name");
    std::error_code code;
    lock->unlock(code);
    CHECK(code == LockErrc::not_held);
    lock.reset();
    CHECK(client.holder("name") == lease.token());
    CHECK(lease.release());
    CHECK(client.holder("name").empty());
}

TEST_CASE("a lease whose release has no answer is unknown and gone, never lost") {
    FakeClient client;
    FakeLock lock{"name", client};
    client.answer_releases(redis::Released::unknown);
    FakeLease lease = lock.lease();
    std::error_code code;
    CHECK_FALSE(lease.release(code));
    CHECK(code == LockErrc::unknown_outcome);
    CHECK_FALSE(lease);
    lease = lock.lease();
    CHECK_THAT(message_of([&] { (void)lease.release(); }),
               ContainsSubstring("the release of 'name' was not answered"));
    lease = lock.lease();
    lease.unlock(code);
    CHECK(code == LockErrc::unknown_outcome);
    CHECK_FALSE(lease);
}

TEST_CASE("in the child of a fork a lease is neither valid nor over: it is the parent's") {
    FakeClient client;
    FakeLock lock{"name", client};
    FakeLease lease = lock.lease();
    Process child = Process::run([&] {
        if (!lease || lease.valid() || lease.remaining() != 0ns) return 1;
        if (lease.stop_token().stop_requested()) return 2;
        return lease.fence() == 1 && lease.name() == "name" ? 0 : 3;
    });
    CHECK(child.wait() == ExitStatus{0, 0});
    CHECK(lease.valid());
    CHECK(lease.release());
}
