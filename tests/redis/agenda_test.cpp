// SPDX-License-Identifier: MIT
//
// Tests of agenda.hpp, without a keeper: the thread that is begun here does nothing, and the test
// does what it would do.

#include <codomyrmex/concurrency/redis/agenda.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <memory>
#include <poll.h>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;

/// An agenda, and how often its thread was begun.
struct Bench {
    int begun = 0;
    Agenda agenda{[this] {
        ++begun;
        return std::thread{[] {}};
    }};

    Bench() = default;
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;
    ~Bench() { agenda.stop(); }

    void sleep_until(BootTime until) {
        const Agenda::Guard guard = agenda.lock();
        agenda.fall_asleep(until);
    }

    [[nodiscard]] Agenda::Work take(BootTime now) {
        const Agenda::Guard guard = agenda.lock();
        return agenda.take(now);
    }

    /// Whether the thread, should it sleep, was woken; no longer afterwards.
    [[nodiscard]] bool woken() const {
        pollfd file{agenda.wake_file().descriptor(), POLLIN, 0};
        const bool yes = ::poll(&file, 1, 0) == 1;
        agenda.wake_file().drain();
        return yes;
    }
};

/// A tenure that was granted at `since`. Its lease of 10 s is valid for a bit less.
std::shared_ptr<Tenure> live(const std::string& name, BootTime since) {
    auto tenure = std::make_shared<Tenure>(
        std::make_shared<const LockIdentity>(make_identity("p:", name, LeaseOptions{.ttl = 10s})),
        name);
    Grant grant;
    grant.fence = 1;
    grant.since = since;
    grant.ttl = tenure->ttl();
    REQUIRE(tenure->granted(grant, since));
    return tenure;
}

}  // namespace

TEST_CASE("An agenda with nothing to do has nothing due, and begins no thread") {
    Bench bench;
    const BootTime now = detail::BootClock::now();
    CHECK(bench.take(now + 24h).empty());
    CHECK(bench.agenda.next_due(now) == now + 24h);
    CHECK(bench.agenda.pump_at().is_never());
    CHECK_FALSE(bench.agenda.timed());
    CHECK(bench.begun == 0);
    CHECK_FALSE(bench.agenda.stop());
}

TEST_CASE("The first thing to do begins the thread, and the next do not") {
    Bench bench;
    const BootTime now = detail::BootClock::now();
    bench.agenda.look_at("a", now + 1s);
    CHECK(bench.begun == 1);
    bench.agenda.add({.tenure = live("b", now)}, now + 1s);
    bench.agenda.attend(1s);
    CHECK(bench.begun == 1);
    CHECK(bench.agenda.stop());
    bench.agenda.look_at("c", now + 1s);
    CHECK(bench.begun == 1);
}

TEST_CASE("What is due is taken, once") {
    Bench bench;
    const BootTime now = detail::BootClock::now();
    bench.agenda.look_at("later", now + 2s);
    bench.agenda.look_at("sooner", now + 1s);
    bench.agenda.add({.tenure = live("renewed", now)}, now + 3s);
    bench.agenda.attend(0ns);
    bench.agenda.tell_later({.name = "lost", .fence = 7, .reason = "why"});
    bench.agenda.answered({.tasks = {{.tenure = live("answered", now)}}});

    Agenda::Work work = bench.take(now + 1s);
    CHECK(work.lines == std::vector<std::string>{"sooner"});
    CHECK(work.due.empty());
    CHECK(work.pump);
    REQUIRE(work.losses.size() == 1);
    CHECK(work.losses.front().name == "lost");
    REQUIRE(work.answers.size() == 1);
    CHECK(work.answers.front().tasks.front().tenure->name() == "answered");

    CHECK(bench.take(now + 1s).empty());
    CHECK(bench.agenda.timed());

    work = bench.take(now + 3s);
    CHECK(work.lines == std::vector<std::string>{"later"});
    REQUIRE(work.due.work.size() == 1);
    CHECK(work.due.work.front().tenure->name() == "renewed");
    CHECK_FALSE(work.pump);
    CHECK_FALSE(bench.agenda.timed());
}

TEST_CASE("The thread may sleep until the first of its tasks") {
    Bench bench;
    const BootTime now = detail::BootClock::now();
    bench.agenda.add({.tenure = live("a", now)}, now + 3s);
    CHECK(bench.agenda.next_due(now) == now + 3s);
    bench.agenda.look_at("b", now + 2s);
    CHECK(bench.agenda.next_due(now) == now + 2s);
}

TEST_CASE("What is due before the thread would rise wakes it, and nothing else does") {
    Bench bench;
    const BootTime now = detail::BootClock::now();
    bench.agenda.look_at("while it is up", now + 1s);
    CHECK_FALSE(bench.woken());

    bench.sleep_until(now + 5s);
    bench.agenda.look_at("later", now + 6s);
    bench.agenda.add({.tenure = live("at the same time", now)}, now + 5s);
    CHECK_FALSE(bench.woken());
    bench.agenda.look_at("sooner", now + 4s);
    CHECK(bench.woken());
    // It rises already.
    bench.agenda.look_at("sooner still", now + 3s);
    CHECK_FALSE(bench.woken());
}

TEST_CASE("The thread sleeps no longer than until that for which it was woken last") {
    Bench bench;
    const BootTime now = detail::BootClock::now();
    const auto brief = live("brief", now);
    bench.sleep_until(now + 5s);
    bench.agenda.add({.tenure = brief}, now + 3s);
    REQUIRE(bench.woken());
    bench.agenda.remove(*brief);
    // So that the next brief one, due a bit later, need not wake it.
    CHECK(bench.agenda.next_due(now) == now + 3s);
    CHECK(bench.agenda.next_due(now + 3s) == now + 3s + 24h);
}

TEST_CASE("An answer, a loss, the pipeline and the end wake the thread") {
    Bench bench;
    const BootTime far = detail::BootClock::now() + 1h;
    bench.sleep_until(far);
    bench.agenda.answered({});
    CHECK(bench.woken());
    bench.sleep_until(far);
    bench.agenda.tell_later({});
    CHECK(bench.woken());
    bench.sleep_until(far);
    bench.agenda.attend(1h);
    CHECK(bench.woken());
    bench.sleep_until(far);
    bench.agenda.stop();
    CHECK(bench.woken());
}

TEST_CASE("Of the times at which the pipeline wants to be looked after the first counts") {
    Bench bench;
    bench.agenda.attend(2h);
    const Deadline first = bench.agenda.pump_at();
    bench.agenda.attend(3h);
    bench.agenda.attend_again(3h);
    CHECK(bench.agenda.pump_at() == first);
    bench.agenda.attend_again(1h);
    CHECK(bench.agenda.pump_at() < first);
}

TEST_CASE("A tenure that is removed is not renewed, and nobody waits for it") {
    Bench bench;
    const BootTime now = detail::BootClock::now();
    const auto tenure = live("a", now);
    tenure->stand_as("waiter");
    GrantWaiter waiter;
    bench.agenda.add({.tenure = tenure}, now + 1s);
    bench.agenda.mailbox.wait(tenure->token(), waiter);
    bench.agenda.remove(*tenure);
    CHECK(bench.take(now + 2s).empty());
    CHECK(bench.agenda.mailbox.waiting() == 0);
}

TEST_CASE("Who connects goes on until a lease runs out, or as long as nothing is due") {
    Bench bench;
    const BootTime now = detail::BootClock::now();
    CHECK(bench.agenda.tick(true));
    bench.agenda.add({.tenure = live("due", now)}, now - 1s);
    CHECK_FALSE(bench.agenda.tick(true));
    CHECK(bench.agenda.tick(false));
    bench.agenda.add({.tenure = live("over", now - 20s)}, now - 1s);
    CHECK_FALSE(bench.agenda.tick(false));
}

TEST_CASE("Who connects stops when the thread is to end") {
    Bench bench;
    CHECK(bench.agenda.tick(false));
    bench.agenda.stop();
    CHECK_FALSE(bench.agenda.tick(false));
}
