// SPDX-License-Identifier: MIT
//
// Tests of schedule.hpp. No clock: a test says what time it is.

#include <codomyrmex/concurrency/redis/schedule.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;

constexpr BootTime start{1h};

/// A tenure of `options`, named, and granted at `start` for `granted`; zero: for its whole time to
/// live. A lease of 1 s is valid for 988 ms.
std::shared_ptr<Tenure> live(const std::string& name, LeaseOptions options = {.ttl = 1s},
                             std::chrono::milliseconds granted = 0ms) {
    auto tenure = std::make_shared<Tenure>(
        std::make_shared<const LockIdentity>(make_identity("p:", name, std::move(options))), name);
    Grant grant;
    grant.fence = 1;
    grant.since = start;
    grant.ttl = granted == 0ms ? tenure->ttl() : granted;
    REQUIRE(tenure->granted(grant, start));
    return tenure;
}

std::vector<std::string> names(const std::vector<Task>& tasks) {
    std::vector<std::string> list;
    for (const Task& task : tasks)
        list.push_back(task.tenure->name());
    return list;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("An empty schedule never has anything due") {
    Schedule schedule;
    CHECK(schedule.next_due() == BootTime::max());
    CHECK(schedule.take_due(start + 24h).empty());
    CHECK_FALSE(schedule.has_lost(start + 24h));
    CHECK(schedule.take_releases().empty());
    CHECK(schedule.count(Duty::renew) == 0);
}

TEST_CASE("Tasks come in the order of their due times, and not before") {
    Schedule schedule;
    const auto a = live("a");
    const auto b = live("b");
    const auto c = live("c");
    schedule.add({.tenure = a}, start + 300ms);
    schedule.add({.tenure = b}, start + 100ms);
    schedule.add({.tenure = c}, start + 200ms);
    CHECK(schedule.count(Duty::renew) == 3);
    CHECK(schedule.count(Duty::release) == 0);
    CHECK(schedule.next_due() == start + 100ms);
    CHECK(schedule.take_due(start + 100ms - 1ns).empty());

    CHECK(names(schedule.take_due(start + 100ms).work) == Names{"b"});
    CHECK(schedule.next_due() == start + 200ms);
    CHECK(names(schedule.take_due(start + 200ms).work) == Names{"c"});
    CHECK(names(schedule.take_due(start + 300ms).work) == Names{"a"});
}

TEST_CASE("What is due within a twelfth of its term goes in the same write") {
    Schedule schedule;
    const auto a = live("a", {.ttl = 120ms});
    const auto b = live("b", {.ttl = 1200ms});
    const auto c = live("c", {.ttl = 1200ms});
    const auto d = live("d", {.ttl = 120ms});
    schedule.add({.tenure = d}, start + 50ms + 10ms + 1ns);
    schedule.add({.tenure = c}, start + 50ms + 100ms + 1ns);
    schedule.add({.tenure = b}, start + 50ms + 100ms);
    schedule.add({.tenure = a}, start + 50ms);
    CHECK(schedule.take_due(start + 49ms).empty());  // not without something that is due
    CHECK(names(schedule.take_due(start + 50ms).work) == Names{"a", "b"});
    CHECK(schedule.next_due() == start + 60ms + 1ns);
}

TEST_CASE("Ten thousand leases taken over a second come to be renewed together") {
    Schedule schedule;
    std::vector<std::shared_ptr<Tenure>> leases;
    for (int i = 0; i < 10'000; ++i) {
        leases.push_back(live(std::to_string(i), {.ttl = 30s}));
        schedule.add({.tenure = leases.back()}, start + 1s + i * 100us);
    }
    CHECK(schedule.take_due(start + 1s).work.size() == 10'000);
    CHECK(schedule.take_due(start + 2s).empty());
}

TEST_CASE("One that is due and many that are not cost a short look") {
    Schedule schedule;
    std::vector<std::shared_ptr<Tenure>> leases;
    for (int i = 0; i < 100; ++i) {
        leases.push_back(live(std::to_string(i), {.ttl = 30s}));
        schedule.add({.tenure = leases.back()}, start + 5s);
    }
    const auto soon = live("soon");
    schedule.add({.tenure = soon}, start + 100ms);
    CHECK(names(schedule.take_due(start + 100ms).work) == Names{"soon"});
}

TEST_CASE("A renewal of which nothing is heard is due again after a third of the time to live") {
    Schedule schedule;
    const auto tenure = live("a", {.ttl = 3s});
    schedule.add({.tenure = tenure}, start + 500ms);
    CHECK(names(schedule.take_due(start + 500ms).work) == Names{"a"});
    CHECK(schedule.next_due() == start + 1500ms);
    CHECK(names(schedule.take_due(start + 1600ms).work) == Names{"a"});
    CHECK(schedule.next_due() == start + 2600ms);
    CHECK(schedule.contains(*tenure, Duty::renew));
}

TEST_CASE("A postponed renewal is due then, but not later than its lease runs out") {
    Schedule schedule;
    const auto tenure = live("a");
    schedule.add({.tenure = tenure}, start + 100ms);
    schedule.postpone(*tenure, start + 400ms);
    CHECK(schedule.next_due() == start + 400ms);
    schedule.postpone(*tenure, start + 300ms);  // It may also be hastened.
    CHECK(schedule.next_due() == start + 300ms);
    schedule.postpone(*tenure, start + 2s);
    CHECK(schedule.next_due() == start + 988ms);

    const auto other = live("b");
    schedule.postpone(*other, start);  // It is not there.
    CHECK_FALSE(schedule.contains(*other, Duty::renew));
    CHECK(schedule.next_due() == start + 988ms);

    const auto released = live("c");
    schedule.add({.tenure = released, .duty = Duty::release, .until = start + 5s}, start);
    schedule.postpone(*released, start + 2s);  // Its lease does not matter.
    schedule.remove(*tenure);
    CHECK(schedule.next_due() == start + 2s);
}

TEST_CASE("The last retry is not later than the end of the lease") {
    Schedule schedule;
    const auto tenure = live("a");
    schedule.add({.tenure = tenure}, start + 950ms);
    CHECK(names(schedule.take_due(start + 950ms).work) == Names{"a"});
    CHECK(schedule.next_due() == start + 988ms);
    const auto due = schedule.take_due(start + 988ms);
    CHECK(due.work.empty());
    CHECK(names(due.lost) == Names{"a"});
    CHECK(schedule.next_due() == BootTime::max());
    CHECK_FALSE(schedule.contains(*tenure, Duty::renew));
}

TEST_CASE("An answered renewal is moved to its next time") {
    Schedule schedule;
    const auto a = live("a");
    const auto b = live("b");
    schedule.add({.tenure = a}, start + 100ms);
    schedule.add({.tenure = b}, start + 200ms);
    schedule.move(*a, start + 400ms);
    CHECK(schedule.next_due() == start + 200ms);
    schedule.move(*b, start + 500ms);
    CHECK(schedule.next_due() == start + 400ms);
    CHECK(names(schedule.take_due(start + 400ms).work) == Names{"a"});
    schedule.move(*a, start + 400ms);
    CHECK(names(schedule.take_due(start + 400ms).work) == Names{"a"});
}

TEST_CASE("Adding a task replaces the one that the same tenure has") {
    Schedule schedule;
    const auto tenure = live("a");
    schedule.add({.tenure = tenure}, start + 100ms);
    schedule.add({.tenure = tenure, .duty = Duty::release, .until = start + 2s}, start + 300ms);
    CHECK(schedule.count(Duty::renew) == 0);
    CHECK(schedule.count(Duty::release) == 1);
    CHECK_FALSE(schedule.contains(*tenure, Duty::renew));
    CHECK(schedule.contains(*tenure, Duty::release));
    CHECK(schedule.next_due() == start + 300ms);
    const auto due = schedule.take_due(start + 300ms);
    REQUIRE(due.work.size() == 1);
    CHECK(due.work[0].duty == Duty::release);
    CHECK(due.work[0].tenure == tenure);
}

TEST_CASE("A removed task is not there any more, and removing it again does nothing") {
    Schedule schedule;
    const auto a = live("a");
    const auto b = live("b");
    schedule.add({.tenure = a}, start + 100ms);
    schedule.add({.tenure = b}, start + 200ms);
    schedule.remove(*a);
    schedule.remove(*a);
    CHECK(schedule.next_due() == start + 200ms);
    CHECK_FALSE(schedule.contains(*a, Duty::renew));
    CHECK(names(schedule.take_due(start + 1h).lost) == Names{"b"});
    CHECK(a.use_count() == 1);
    CHECK(b.use_count() == 1);
}

TEST_CASE("A lease is found by its token as long as it is renewed") {
    Schedule schedule;
    const auto a = live("a");
    const auto b = live("b");
    schedule.add({.tenure = a}, start + 100ms);
    schedule.add({.tenure = b, .duty = Duty::release, .until = start + 1h}, start + 100ms);
    CHECK(schedule.find("a") == a);
    CHECK(schedule.find("b") == nullptr);
    CHECK(schedule.find("") == nullptr);
    schedule.remove(*a);
    CHECK(schedule.find("a") == nullptr);
}

TEST_CASE("Two tasks due at one moment are two") {
    Schedule schedule;
    const auto a = live("a");
    const auto b = live("b");
    schedule.add({.tenure = a}, start + 100ms);
    schedule.add({.tenure = b}, start + 100ms);
    CHECK(schedule.take_due(start + 100ms).work.size() == 2);
    schedule.remove(*a);
    CHECK(schedule.contains(*b, Duty::renew));
    CHECK(schedule.next_due() == start + 100ms + std::chrono::nanoseconds{1s} / 3);
}

TEST_CASE("Only what ran out is taken as lost, and only renewals") {
    Schedule schedule;
    const auto short_lived = live("short");
    const auto long_lived = live("long", {.ttl = 10s});
    const auto released = live("released");
    schedule.add({.tenure = short_lived}, start + 100ms);
    schedule.add({.tenure = long_lived}, start + 100ms);
    schedule.add({.tenure = released, .duty = Duty::release, .until = start + 500ms},
                 start + 100ms);
    CHECK_FALSE(schedule.has_lost(start + 987ms));
    CHECK(schedule.has_lost(start + 988ms));
    CHECK(names(schedule.take_due(start + 988ms).lost) == Names{"short"});
    CHECK_FALSE(schedule.contains(*short_lived, Duty::renew));
    CHECK(schedule.contains(*long_lived, Duty::renew));
    CHECK_FALSE(schedule.has_lost(start + 988ms));
}

TEST_CASE("A lease that was closed by whoever looked at it is lost when it comes up") {
    Schedule schedule;
    const auto tenure = live("a");
    schedule.add({.tenure = tenure}, start + 100ms);
    CHECK_FALSE(tenure->valid_at(start + 1h));
    const auto due = schedule.take_due(start + 100ms);
    CHECK(due.work.empty());
    CHECK(names(due.lost) == Names{"a"});
}

TEST_CASE("Past max_hold a lease is not renewed any more but seen to its end") {
    Schedule schedule;
    const auto tenure = live("a", {.ttl = 1s, .max_hold = 300ms});
    schedule.add({.tenure = tenure}, start + 299ms);
    CHECK(names(schedule.take_due(start + 299ms).work) == Names{"a"});
    schedule.move(*tenure, start + 300ms);
    CHECK(schedule.take_due(start + 300ms).empty());
    CHECK(schedule.next_due() == start + 988ms);
    CHECK(schedule.take_due(start + 987ms).empty());
    CHECK(names(schedule.take_due(start + 988ms).lost) == Names{"a"});
}

TEST_CASE("A release is repeated until the key is gone by itself, and then forgotten") {
    Schedule schedule;
    const auto tenure = live("a");
    tenure->close();  // That the lease is over does not matter to its release.
    schedule.add({.tenure = tenure, .duty = Duty::release, .until = start + 2500ms}, start);
    int sent = 0;
    for (BootTime now = start; schedule.next_due() != BootTime::max(); now += 100ms) {
        const auto due = schedule.take_due(now);
        CHECK(due.lost.empty());
        sent += static_cast<int>(due.work.size());
    }
    CHECK(sent == 3);  // at 0, 1 and 2 s
    CHECK_FALSE(schedule.contains(*tenure, Duty::release));
    CHECK(tenure.use_count() == 1);
}

TEST_CASE("Releases that were not answered can be taken out at once, due or not") {
    Schedule schedule;
    const auto a = live("a");
    const auto b = live("b");
    const auto c = live("c");
    schedule.add({.tenure = a, .duty = Duty::release, .until = start + 1s}, start + 900ms);
    schedule.add({.tenure = b}, start + 100ms);
    schedule.add({.tenure = c, .duty = Duty::release, .until = start + 1s}, start + 100ms);
    CHECK(schedule.take_releases().size() == 2);
    CHECK(schedule.take_releases().empty());
    CHECK(schedule.count(Duty::release) == 0);
    CHECK(schedule.contains(*b, Duty::renew));
    CHECK(schedule.next_due() == start + 100ms);
}

TEST_CASE(
    "A lease that was handed over for a short time is renewed by that time, not its longest") {
    Schedule schedule;
    const auto tenure = live("a", {.ttl = 30s}, 900ms);
    schedule.add({.tenure = tenure}, tenure->renewal_due(start));
    CHECK(schedule.next_due() == start + 300ms);
    CHECK(names(schedule.take_due(start + 300ms).work) == Names{"a"});
    CHECK(schedule.next_due() == start + 600ms);

    // The first renewal takes it to its full time.
    REQUIRE(tenure->renewed(start + 300ms, start + 310ms));
    schedule.move(*tenure, tenure->renewal_due(start + 300ms));
    CHECK(schedule.next_due() == start + 10'300ms);
    CHECK(names(schedule.take_due(start + 10'300ms).work) == Names{"a"});
    CHECK(schedule.next_due() == start + 20'300ms);
}

TEST_CASE("What is handed out as work says how long it is to be repeated") {
    Schedule schedule;
    const auto tenure = live("a");
    schedule.add({.tenure = tenure, .duty = Duty::release, .until = start + 2s, .to_the_end = true},
                 start);
    const auto due = schedule.take_due(start);
    REQUIRE(due.work.size() == 1);
    CHECK(due.work[0].until == start + 2s);
    CHECK(due.work[0].to_the_end);
    CHECK_FALSE(due.empty());
    // One that is answered "not yours" is looked at again; nothing else is due meanwhile.
    schedule.postpone(*tenure, start + 1s);
    CHECK(schedule.take_due(start + 999ms).empty());
    CHECK(schedule.take_due(start + 1s).work.size() == 1);
    // Past its time nothing is sent any more, and nobody is told of a loss.
    CHECK(schedule.take_due(start + 2s).empty());
    CHECK(schedule.count(Duty::release) == 0);
}

TEST_CASE("A schedule keeps its tenures alive") {
    Schedule schedule;
    std::weak_ptr<Tenure> watch;
    {
        const auto tenure = live("a");
        watch = tenure;
        schedule.add({.tenure = tenure}, start + 100ms);
    }
    CHECK_FALSE(watch.expired());
    schedule.remove(*watch.lock());
    CHECK(watch.expired());
}

TEST_CASE("Renewals of locks with one time to live go in one request, up to so many") {
    std::vector<Task> work;
    for (const char* name : {"a", "b", "c", "d", "e"})
        work.push_back({.tenure = live(name)});
    work.push_back({.tenure = live("long", {.ttl = 2s})});
    work.push_back({.tenure = live("f")});
    work.push_back({.tenure = live("released"), .duty = Duty::release});
    const auto semaphore = [](const char* name) {
        return std::make_shared<Tenure>(std::make_shared<const LockIdentity>(make_permit_identity(
                                            "p:", name, 2, 1, LeaseOptions{.ttl = 1s})),
                                        name);
    };
    work.push_back({.tenure = semaphore("s")});
    work.push_back({.tenure = semaphore("t")});
    work.push_back({.tenure = live("g")});

    std::vector<Names> requests;
    for (const auto& tasks : in_requests(std::move(work), 3))
        requests.push_back(names(tasks));
    CHECK(requests ==
          std::vector<Names>{
              {"a", "b", "c"}, {"d", "e", "f"}, {"long"}, {"released"}, {"s"}, {"t"}, {"g"}});
    CHECK(in_requests({}, 3).empty());
}
