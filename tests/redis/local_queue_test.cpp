// SPDX-License-Identifier: MIT
//
// Tests of local_queue.hpp, without threads and without a clock: a test says who comes and when.

#include <codomyrmex/concurrency/redis/local_queue.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using Entry = LocalQueue::Entry;
using GivenBack = LocalQueue::GivenBack;

constexpr BootTime start{1h};

using IdentityPtr = std::shared_ptr<const LockIdentity>;

IdentityPtr identity(LeaseOptions options = {.ttl = 30s}) {
    return std::make_shared<const LockIdentity>(make_identity("p:", "name", std::move(options)));
}

/// A tenure that was granted at `start` with so many fencing tokens. Of 30 s it is valid for
/// 29.698 s, and handed on until a third of its time is left.
std::shared_ptr<Tenure> live(const IdentityPtr& of, std::uint64_t fences = 1000) {
    auto tenure = std::make_shared<Tenure>(of, "token");
    Grant grant;
    grant.fence = 1;
    grant.fences = fences;
    grant.since = start;
    grant.ttl = of->options.ttl;
    REQUIRE(tenure->granted(grant, start));
    return tenure;
}

std::uint32_t state(const LocalWaiter& waiter) {
    return waiter.state.load();
}

/// A queue that somebody came to, who asked and got `tenure`.
struct Used {
    IdentityPtr mine;
    LocalQueue queue;
    LocalWaiter user;
    std::shared_ptr<Tenure> tenure;

    explicit Used(LeaseOptions options = {.ttl = 30s}, std::uint64_t fences = 1000)
        : mine{identity(std::move(options))}, user{*mine}, tenure{live(mine, fences)} {
        REQUIRE(queue.enter(user, true, start) == Entry::asks);
        queue.asked(tenure, start);
    }
};

/// As its namesake, with the waking at once.
GivenBack give_back(LocalQueue& queue, const std::shared_ptr<Tenure>& tenure, bool may_retain,
                    BootTime now) {
    codomyrmex::concurrency::detail::WaitWord::Wake wake;
    const GivenBack outcome = queue.give_back(tenure, may_retain, now, wake);
    wake();
    return outcome;
}

/// When a lease of `tenure` is no longer handed on, but still valid.
BootTime too_late(const Tenure& tenure) {
    return tenure.deadline() - tenure.term() / 3;
}

}  // namespace

TEST_CASE("The first to come asks the server, and the others stand in line") {
    const auto mine = identity();
    LocalQueue queue;
    CHECK(queue.idle());
    LocalWaiter a{*mine};
    LocalWaiter b{*mine};
    LocalWaiter c{*mine};
    CHECK(queue.enter(a, true, start) == Entry::asks);
    CHECK_FALSE(queue.idle());
    CHECK_FALSE(queue.waited_for());
    CHECK(queue.enter(b, true, start) == Entry::line);
    CHECK(queue.enter(c, true, start) == Entry::line);
    CHECK(queue.waited_for());
    CHECK(state(b) == LocalWaiter::waiting);
    // One that will not wait does not stand in line.
    LocalWaiter d{*mine};
    CHECK(queue.enter(d, false, start) == Entry::busy);
    CHECK_FALSE(queue.leave(d));
}

TEST_CASE("One that will not wait asks the server if nobody else does") {
    const auto mine = identity();
    LocalQueue queue;
    LocalWaiter a{*mine};
    CHECK(queue.enter(a, false, start) == Entry::asks);
    queue.asked(nullptr, start);
    CHECK(queue.idle());
    CHECK(queue.enter(a, false, start) == Entry::asks);
}

TEST_CASE("A lease goes to those in line in the order of their coming") {
    Used used;
    LocalWaiter b{*used.mine};
    LocalWaiter c{*used.mine};
    REQUIRE(used.queue.enter(b, true, start) == Entry::line);
    REQUIRE(used.queue.enter(c, true, start) == Entry::line);
    CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::handed);
    CHECK(state(b) == LocalWaiter::has);
    CHECK(b.tenure == used.tenure);
    CHECK(state(c) == LocalWaiter::waiting);
    CHECK(c.tenure == nullptr);
    // Who comes now is behind those who wait, though nobody stands before the lease.
    LocalWaiter d{*used.mine};
    CHECK(used.queue.enter(d, true, start) == Entry::line);
    CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::handed);
    CHECK(state(c) == LocalWaiter::has);
    CHECK(state(d) == LocalWaiter::waiting);
    CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::handed);
    CHECK(state(d) == LocalWaiter::has);
    CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::release);
    used.queue.next_asks();
    CHECK(used.queue.idle());
}

TEST_CASE("When asking brought nothing, it is the next one's turn to ask") {
    const auto mine = identity();
    LocalQueue queue;
    LocalWaiter a{*mine};
    LocalWaiter b{*mine};
    LocalWaiter c{*mine};
    REQUIRE(queue.enter(a, true, start) == Entry::asks);
    REQUIRE(queue.enter(b, true, start) == Entry::line);
    REQUIRE(queue.enter(c, true, start) == Entry::line);
    queue.asked(nullptr, start);
    CHECK(state(b) == LocalWaiter::asks);
    CHECK(b.tenure == nullptr);
    CHECK(state(c) == LocalWaiter::waiting);
    queue.asked(live(mine), start);
    CHECK(state(c) == LocalWaiter::waiting);
    CHECK_FALSE(queue.idle());
}

TEST_CASE("A run is bounded by a count; then the server decides who is next") {
    Used used{{.ttl = 30s, .max_local_handovers = 2}};
    LocalWaiter b{*used.mine};
    LocalWaiter c{*used.mine};
    LocalWaiter d{*used.mine};
    for (LocalWaiter* each : {&b, &c, &d})
        REQUIRE(used.queue.enter(*each, true, start) == Entry::line);
    CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::handed);
    CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::handed);
    CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::release);
    CHECK(state(d) == LocalWaiter::waiting);
    used.queue.next_asks();
    CHECK(state(d) == LocalWaiter::asks);
    // With what it gets a new run begins.
    const auto fresh = live(used.mine);
    used.queue.asked(fresh, start);
    LocalWaiter e{*used.mine};
    REQUIRE(used.queue.enter(e, true, start) == Entry::line);
    CHECK(give_back(used.queue, fresh, false, start) == GivenBack::handed);
}

TEST_CASE("A bound of zero means that no lease is handed on") {
    Used used{{.ttl = 30s, .max_local_handovers = 0}};
    LocalWaiter b{*used.mine};
    REQUIRE(used.queue.enter(b, true, start) == Entry::line);
    CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::release);
    CHECK(state(b) == LocalWaiter::waiting);
}

TEST_CASE("A run is bounded by a time, counted from when the lease was got") {
    Used used{{.ttl = 30s, .max_local_run = 100ms}};
    LocalWaiter b{*used.mine};
    LocalWaiter c{*used.mine};
    REQUIRE(used.queue.enter(b, true, start) == Entry::line);
    REQUIRE(used.queue.enter(c, true, start) == Entry::line);
    CHECK(give_back(used.queue, used.tenure, false, start + 100ms - 1ns) == GivenBack::handed);
    CHECK(give_back(used.queue, used.tenure, false, start + 100ms) == GivenBack::release);
    CHECK(state(c) == LocalWaiter::waiting);
}

TEST_CASE("A lease is handed on only while a third of its time remains, or it is renewed") {
    Used used{{.ttl = 30s, .max_local_run = 24h}};
    LocalWaiter b{*used.mine};
    LocalWaiter c{*used.mine};
    REQUIRE(used.queue.enter(b, true, start) == Entry::line);
    REQUIRE(used.queue.enter(c, true, start) == Entry::line);
    const BootTime end = too_late(*used.tenure);
    CHECK(give_back(used.queue, used.tenure, false, end - 1ns) == GivenBack::handed);
    SECTION("not past it") {
        CHECK(give_back(used.queue, used.tenure, false, end) == GivenBack::release);
    }
    SECTION("after a renewal it is another time") {
        REQUIRE(used.tenure->renewed(end - 1s, end));
        CHECK(give_back(used.queue, used.tenure, false, end) == GivenBack::handed);
    }
}

TEST_CASE("A lease without a fencing token left, over or in doubt is not handed on") {
    const std::string why = GENERATE("no fence", "closed", "doubtful");
    CAPTURE(why);
    Used used{{.ttl = 30s}, why == "no fence" ? 1U : 10U};
    (void)used.tenure->take_fence();  // the user's own
    LocalWaiter b{*used.mine};
    REQUIRE(used.queue.enter(b, true, start) == Entry::line);
    if (why == "closed") used.tenure->close();
    if (why == "doubtful") used.tenure->mark_doubtful();
    CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::release);
    CHECK(state(b) == LocalWaiter::waiting);
    used.queue.next_asks();
    CHECK(state(b) == LocalWaiter::asks);
}

TEST_CASE("Whether somebody stands behind the user of a lease is known before it is given back") {
    Used used;
    CHECK(used.queue.alone_with(*used.tenure));
    CHECK_FALSE(used.queue.alone_with(*live(used.mine)));  // another one
    LocalWaiter next{*used.mine};
    REQUIRE(used.queue.enter(next, true, start) == Entry::line);
    CHECK_FALSE(used.queue.alone_with(*used.tenure));
}

TEST_CASE("A lease of other options is not handed on") {
    const std::string what = GENERATE("ttl", "max_hold", "retain", "label", "the same");
    CAPTURE(what);
    Used used;
    LeaseOptions options = used.mine->options;
    if (what == "ttl") options.ttl = 20s;
    if (what == "max_hold") options.max_hold = 1s;
    if (what == "retain") options.retain = 1s;
    if (what == "label") options.label = "another";
    const auto other = identity(options);
    LocalWaiter b{*other};
    REQUIRE(used.queue.enter(b, true, start) == Entry::line);
    const bool alike = what == "label" || what == "the same";
    CHECK(give_back(used.queue, used.tenure, false, start) ==
          (alike ? GivenBack::handed : GivenBack::release));
}

TEST_CASE("Who gives up leaves the line, and the others keep their places") {
    Used used;
    LocalWaiter b{*used.mine};
    LocalWaiter c{*used.mine};
    LocalWaiter d{*used.mine};
    for (LocalWaiter* each : {&b, &c, &d})
        REQUIRE(used.queue.enter(*each, true, start) == Entry::line);
    CHECK(used.queue.leave(c));
    CHECK_FALSE(used.queue.leave(c));
    CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::handed);
    CHECK(state(b) == LocalWaiter::has);
    CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::handed);
    CHECK(state(d) == LocalWaiter::has);
    CHECK(state(c) == LocalWaiter::waiting);
}

TEST_CASE("Who gives up as its turn comes is told that it came") {
    SECTION("with a lease, that it must give back") {
        Used used;
        LocalWaiter b{*used.mine};
        LocalWaiter c{*used.mine};
        REQUIRE(used.queue.enter(b, true, start) == Entry::line);
        REQUIRE(used.queue.enter(c, true, start) == Entry::line);
        CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::handed);
        CHECK_FALSE(used.queue.leave(b));
        CHECK(give_back(used.queue, b.tenure, false, start) == GivenBack::handed);
        CHECK(state(c) == LocalWaiter::has);
    }
    SECTION("to ask, which it must pass on") {
        const auto mine = identity();
        LocalQueue queue;
        LocalWaiter a{*mine};
        LocalWaiter b{*mine};
        LocalWaiter c{*mine};
        REQUIRE(queue.enter(a, true, start) == Entry::asks);
        REQUIRE(queue.enter(b, true, start) == Entry::line);
        REQUIRE(queue.enter(c, true, start) == Entry::line);
        queue.asked(nullptr, start);
        CHECK_FALSE(queue.leave(b));
        queue.asked(nullptr, start);
        CHECK(state(c) == LocalWaiter::asks);
    }
}

// --- Retention.

TEST_CASE("A lease that nobody waits for is retained, if it may be, for whoever comes next") {
    Used used;
    CHECK(give_back(used.queue, used.tenure, true, start) == GivenBack::retained);
    CHECK(used.queue.retained() == used.tenure);
    CHECK_FALSE(used.queue.idle());
    LocalWaiter b{*used.mine};
    const bool may_wait = GENERATE(true, false);
    CHECK(used.queue.enter(b, may_wait, start) == Entry::has);
    CHECK(b.tenure == used.tenure);
    CHECK(used.queue.retained() == nullptr);
    // It is in use again.
    LocalWaiter c{*used.mine};
    CHECK(used.queue.enter(c, true, start) == Entry::line);
    CHECK(give_back(used.queue, used.tenure, true, start) == GivenBack::handed);
    CHECK(state(c) == LocalWaiter::has);
}

TEST_CASE("What may not be retained is released") {
    Used used;
    CHECK(give_back(used.queue, used.tenure, false, start) == GivenBack::release);
    CHECK(used.queue.retained() == nullptr);
    used.queue.next_asks();
    CHECK(used.queue.idle());
}

TEST_CASE("A lease that will not do for another holder is not retained") {
    const std::string why = GENERATE("no fence", "closed", "doubtful", "late");
    CAPTURE(why);
    Used used{{.ttl = 30s}, why == "no fence" ? 1U : 10U};
    (void)used.tenure->take_fence();
    if (why == "closed") used.tenure->close();
    if (why == "doubtful") used.tenure->mark_doubtful();
    const BootTime now = why == "late" ? too_late(*used.tenure) : start;
    CHECK(give_back(used.queue, used.tenure, true, now) == GivenBack::release);
    CHECK(used.queue.retained() == nullptr);
}

TEST_CASE("Whoever comes finds a retained lease that will not do, gives it back and asks") {
    const std::string why = GENERATE("late", "over", "other options");
    CAPTURE(why);
    Used used;
    REQUIRE(give_back(used.queue, used.tenure, true, start) == GivenBack::retained);
    BootTime now = start;
    if (why == "late") now = too_late(*used.tenure);
    if (why == "over") now = start + 1h;
    const auto other = why == "other options" ? identity({.ttl = 20s}) : used.mine;
    LocalWaiter b{*other};
    CHECK(used.queue.enter(b, true, now) == Entry::asks);
    CHECK(b.tenure == used.tenure);
    CHECK(used.queue.retained() == nullptr);
    LocalWaiter c{*other};
    CHECK(used.queue.enter(c, false, now) == Entry::busy);
    const auto fresh = live(other);
    used.queue.asked(fresh, now);
    CHECK(give_back(used.queue, used.tenure, true, now) == GivenBack::foreign);
    CHECK(give_back(used.queue, fresh, false, start) == GivenBack::release);
}

TEST_CASE("A retained lease can be taken away once, and then the next one asks") {
    Used used;
    CHECK(used.queue.take_retained() == nullptr);
    REQUIRE(give_back(used.queue, used.tenure, true, start) == GivenBack::retained);
    CHECK(used.queue.take_retained() == used.tenure);
    CHECK(used.queue.take_retained() == nullptr);
    CHECK(used.queue.idle());
    LocalWaiter b{*used.mine};
    CHECK(used.queue.enter(b, false, start) == Entry::asks);
    CHECK(b.tenure == nullptr);
}

// --- Loss.

TEST_CASE("A lease that is lost in use makes the first in line ask, its user still there") {
    Used used;
    LocalWaiter b{*used.mine};
    LocalWaiter c{*used.mine};
    REQUIRE(used.queue.enter(b, true, start) == Entry::line);
    REQUIRE(used.queue.enter(c, true, start) == Entry::line);
    used.queue.lost(used.tenure);
    CHECK(state(b) == LocalWaiter::asks);
    CHECK(state(c) == LocalWaiter::waiting);
    const auto fresh = live(used.mine);
    used.queue.asked(fresh, start);
    // The old user comes back late and harms nobody.
    CHECK(give_back(used.queue, used.tenure, true, start) == GivenBack::foreign);
    CHECK(state(c) == LocalWaiter::waiting);
    used.queue.lost(used.tenure);
    CHECK(state(c) == LocalWaiter::waiting);
    CHECK(give_back(used.queue, fresh, true, start) == GivenBack::handed);
    CHECK(state(c) == LocalWaiter::has);
}

TEST_CASE("A lease that is lost with nobody in line leaves the place free") {
    Used used;
    used.queue.lost(used.tenure);
    CHECK(used.queue.idle());
    LocalWaiter b{*used.mine};
    CHECK(used.queue.enter(b, false, start) == Entry::asks);
    CHECK(give_back(used.queue, used.tenure, true, start) == GivenBack::foreign);
    CHECK(used.queue.retained() == nullptr);
}

TEST_CASE("A lease that is lost while retained is forgotten") {
    Used used;
    REQUIRE(give_back(used.queue, used.tenure, true, start) == GivenBack::retained);
    used.queue.lost(used.tenure);
    CHECK(used.queue.retained() == nullptr);
    CHECK(used.queue.idle());
    CHECK(used.tenure.use_count() == 1);
    LocalWaiter b{*used.mine};
    CHECK(used.queue.enter(b, true, start) == Entry::asks);
    CHECK(b.tenure == nullptr);
}

TEST_CASE("The loss of another lease changes nothing") {
    Used used;
    LocalWaiter b{*used.mine};
    REQUIRE(used.queue.enter(b, true, start) == Entry::line);
    const auto other = live(used.mine);
    used.queue.lost(other);
    CHECK(state(b) == LocalWaiter::waiting);
    REQUIRE(used.queue.leave(b));
    REQUIRE(give_back(used.queue, used.tenure, true, start) == GivenBack::retained);
    used.queue.lost(other);
    CHECK(used.queue.retained() == used.tenure);
}

TEST_CASE("Whoever comes when the lease in use has run out need not wait for its loss to be told") {
    Used used;
    LocalWaiter b{*used.mine};
    SECTION("but asks, if nobody is before it") {
        CHECK(used.queue.enter(b, false, start + 1h) == Entry::asks);
    }
    SECTION("and the first in line asks, if there is one") {
        LocalWaiter c{*used.mine};
        REQUIRE(used.queue.enter(b, true, start) == Entry::line);
        CHECK(used.queue.enter(c, true, start + 1h) == Entry::line);
        CHECK(state(b) == LocalWaiter::asks);
        CHECK(state(c) == LocalWaiter::waiting);
    }
    CHECK(give_back(used.queue, used.tenure, true, start + 1h) == GivenBack::foreign);
}
