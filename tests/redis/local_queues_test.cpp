// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/redis/local_queues.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using Entry = LocalQueue::Entry;
using GivenBack = LocalQueue::GivenBack;

/// As its namesake, where nobody waits that is to be woken.
GivenBack give_back(LocalQueue& queue, const std::shared_ptr<Tenure>& tenure, bool may_retain,
                    BootTime now) {
    codomyrmex::concurrency::detail::WaitWord::Wake wake;
    return queue.give_back(tenure, may_retain, now, wake);
}

constexpr BootTime start{1h};

std::shared_ptr<const LockIdentity> named(const std::string& name) {
    return std::make_shared<const LockIdentity>(make_identity("p:", name, {.ttl = 30s}));
}

std::shared_ptr<Tenure> live(const std::string& name) {
    auto tenure = std::make_shared<Tenure>(named(name), name);
    Grant grant;
    grant.fence = 1;
    grant.fences = 1000;
    grant.since = start;
    grant.ttl = 30s;
    REQUIRE(tenure->granted(grant, start));
    return tenure;
}

std::string_view key_of(const std::shared_ptr<Tenure>& tenure) {
    return tenure->identity().keys.main();
}

/// Somebody comes who wants what `tenure` is of, by an object of its own.
LocalQueues::Line& come(LocalQueues& queues, const std::shared_ptr<Tenure>& tenure) {
    return queues.come(named(tenure->name()));
}

/// Somebody comes, gets `tenure`, and stays.
void use(LocalQueues& queues, const std::shared_ptr<Tenure>& tenure) {
    LocalQueues::Line& line = come(queues, tenure);
    LocalWaiter waiter{tenure->identity()};
    const std::lock_guard guard{line.mutex};
    REQUIRE(line.queue.enter(waiter, true, start) == Entry::asks);
    line.queue.asked(tenure, start);
}

/// Somebody comes, gets `tenure`, and leaves it retained until `until`.
void retain(LocalQueues& queues, const std::shared_ptr<Tenure>& tenure, BootTime until) {
    use(queues, tenure);
    {
        const auto line = queues.find(key_of(tenure));
        const std::lock_guard guard{line->mutex};
        REQUIRE(give_back(line->queue, tenure, true, start) == GivenBack::retained);
        line->retained_until = until;
        line->timed = true;
    }
    queues.leave(key_of(tenure));
}

std::shared_ptr<Tenure> wanted(LocalQueues& queues, std::string_view key, BootTime now) {
    std::shared_ptr<Tenure> given;
    (void)queues.wanted(key, now, [&](const std::shared_ptr<Tenure>& tenure) { given = tenure; });
    return given;
}

struct TimeOut {
    std::shared_ptr<Tenure> tenure{};
    std::optional<BootTime> again{};
};

TimeOut time_out(LocalQueues& queues, std::string_view key, BootTime now) {
    TimeOut found;
    found.again = queues.time_out(
        key, now, [&](const std::shared_ptr<Tenure>& tenure) { found.tenure = tenure; });
    return found;
}

std::vector<std::shared_ptr<Tenure>> take_retained(LocalQueues& queues) {
    std::vector<std::shared_ptr<Tenure>> taken;
    queues.give_up_all([&](const std::shared_ptr<Tenure>& tenure) { taken.push_back(tenure); });
    return taken;
}

}  // namespace

TEST_CASE("A line is there from the first that comes to the last that leaves") {
    LocalQueues queues;
    const std::string_view a = "p:lock:{a}";
    const std::string_view b = "p:lock:{b}";
    CHECK(queues.find(a) == nullptr);
    const auto first = named("a");
    LocalQueues::Line& line = queues.come(first);
    CHECK(&queues.come(named("a")) == &line);
    CHECK(queues.find(a) == &line);
    CHECK(&queues.come(named("b")) != &line);
    queues.leave(a);
    CHECK(queues.find(a) == &line);
    line.wanted = true;
    queues.leave(a);
    CHECK(queues.find(a) == nullptr);
    CHECK(first.use_count() == 1);
    CHECK(queues.find(b) != nullptr);
    queues.leave(a);  // It is not there.
    CHECK(queues.find(a) == nullptr);
    // Whoever comes next has a fresh one.
    CHECK_FALSE(queues.come(first).wanted);
}

TEST_CASE("A line outlives the object of the first that came") {
    LocalQueues queues;
    LocalQueues::Line* line = nullptr;
    {
        const auto first = named("a name too long to be kept inside of a string");
        line = &queues.come(first);
    }
    const auto second = named("a name too long to be kept inside of a string");
    CHECK(&queues.come(second) == line);
    queues.leave(second->keys.main());
    CHECK(queues.find(second->keys.main()) == line);
    queues.leave(second->keys.main());
    CHECK(queues.find(second->keys.main()) == nullptr);
}

TEST_CASE("A million names that are not used any more cost nothing") {
    LocalQueues queues;
    int left_behind = 0;
    for (int i = 0; i < 1'000'000; ++i) {
        const auto identity = named(std::to_string(i));
        (void)queues.come(identity);
        queues.leave(identity->keys.main());
        left_behind += identity.use_count() == 1 ? 0 : 1;
    }
    CHECK(left_behind == 0);
    CHECK(queues.find("p:lock:{0}") == nullptr);
    CHECK(queues.retained() == 0);
}

TEST_CASE("Who is in use keeps the line, though all others left") {
    LocalQueues queues;
    const auto tenure = live("a");
    use(queues, tenure);
    (void)come(queues, tenure);
    queues.leave(key_of(tenure));
    const auto line = queues.find(key_of(tenure));
    REQUIRE(line != nullptr);
    CHECK_FALSE(line->queue.idle());
    {
        const std::lock_guard guard{line->mutex};
        CHECK(give_back(line->queue, tenure, false, start) == GivenBack::release);
        line->queue.next_asks();
    }
    queues.leave(key_of(tenure));
    CHECK(queues.find(key_of(tenure)) == nullptr);
}

TEST_CASE("A line that retains a lease stays, and goes once that was given back") {
    LocalQueues queues;
    const auto a = live("a");
    const auto b = live("b");
    CHECK(queues.retained() == 0);
    retain(queues, a, start + 5s);
    retain(queues, b, start + 9s);
    CHECK(queues.retained() == 2);

    SECTION("because its time is over") {
        const auto early = time_out(queues, key_of(a), start + 5s - 1ns);
        CHECK(early.tenure == nullptr);
        CHECK(early.again == start + 5s);
        CHECK(queues.retained() == 2);
        const auto due = time_out(queues, key_of(a), start + 5s);
        CHECK(due.tenure == a);
        CHECK_FALSE(due.again.has_value());
        CHECK(queues.find(key_of(a)) == nullptr);
        CHECK(queues.retained() == 1);
    }
    SECTION("because it is wanted elsewhere; and none is retained for a second") {
        CHECK(wanted(queues, key_of(a), start + 1s) == a);
        CHECK(queues.retained() == 1);
        CHECK(wanted(queues, key_of(a), start + 1s) == nullptr);
        const auto line = queues.find(key_of(a));
        REQUIRE(line != nullptr);
        CHECK(line->not_retained_before == start + 2s);
        // The timer remembers that, and lets go of the line after it.
        CHECK(time_out(queues, key_of(a), start + 2s - 1ns).again == start + 2s);
        const auto due = time_out(queues, key_of(a), start + 2s);
        CHECK(due.tenure == nullptr);
        CHECK_FALSE(due.again.has_value());
        CHECK(queues.find(key_of(a)) == nullptr);
    }
    SECTION("because it is lost") {
        queues.lost(a);
        CHECK(queues.retained() == 1);
        CHECK(a.use_count() == 1);
        CHECK(time_out(queues, key_of(a), start + 5s).tenure == nullptr);
        CHECK(queues.find(key_of(a)) == nullptr);
    }
    SECTION("all at once, where nobody could tell that they are wanted") {
        auto taken = take_retained(queues);
        REQUIRE(taken.size() == 2);
        if (taken[0] != a) std::swap(taken[0], taken[1]);
        CHECK(taken[0] == a);
        CHECK(taken[1] == b);
        CHECK(queues.retained() == 0);
        CHECK(take_retained(queues).empty());
        CHECK(time_out(queues, key_of(a), start + 1h).tenure == nullptr);
        CHECK(time_out(queues, key_of(b), start + 1h).tenure == nullptr);
        CHECK(queues.find(key_of(a)) == nullptr);
        CHECK(queues.find(key_of(b)) == nullptr);
    }
    SECTION("or is used again, which a timer leaves alone") {
        LocalQueues::Line& line = come(queues, a);
        LocalWaiter waiter{a->identity()};
        {
            const std::lock_guard guard{line.mutex};
            CHECK(line.queue.enter(waiter, false, start + 1s) == Entry::has);
        }
        CHECK(waiter.tenure == a);
        const auto due = time_out(queues, key_of(a), start + 5s);
        CHECK(due.tenure == nullptr);
        CHECK_FALSE(due.again.has_value());
        CHECK(queues.find(key_of(a)) == &line);
        CHECK_FALSE(line.timed);
    }
}

TEST_CASE("That a lock was wanted elsewhere is remembered until its timer looks, though all left") {
    LocalQueues queues;
    const auto tenure = live("a");
    retain(queues, tenure, start + 5s);
    REQUIRE(wanted(queues, key_of(tenure), start) == tenure);
    (void)come(queues, tenure);
    queues.leave(key_of(tenure));
    const auto line = queues.find(key_of(tenure));
    REQUIRE(line != nullptr);
    CHECK(line->not_retained_before == start + 1s);
    CHECK_FALSE(time_out(queues, key_of(tenure), start + 1s).again.has_value());
    CHECK(queues.find(key_of(tenure)) == nullptr);
}

TEST_CASE("A name that is not used here is neither wanted, lost nor timed out") {
    LocalQueues queues;
    const auto tenure = live("a");
    CHECK(wanted(queues, "p:lock:{a}", start) == nullptr);
    queues.lost(tenure);
    const auto due = time_out(queues, "p:lock:{a}", start);
    CHECK(due.tenure == nullptr);
    CHECK_FALSE(due.again.has_value());
    CHECK(queues.find("p:lock:{a}") == nullptr);
}

TEST_CASE("What is wanted while it is in use is not taken from its user") {
    LocalQueues queues;
    const auto tenure = live("a");
    use(queues, tenure);
    CHECK(wanted(queues, key_of(tenure), start) == nullptr);
    const auto line = queues.find(key_of(tenure));
    CHECK(line->not_retained_before == start + 1s);
    CHECK(give_back(line->queue, tenure, false, start) == GivenBack::release);
}

TEST_CASE("The loss of a lease in use gives the first in line another chance") {
    LocalQueues queues;
    const auto tenure = live("a");
    use(queues, tenure);
    LocalQueues::Line& line = come(queues, tenure);
    LocalWaiter waiter{tenure->identity()};
    {
        const std::lock_guard guard{line.mutex};
        REQUIRE(line.queue.enter(waiter, true, start) == Entry::line);
    }
    queues.lost(tenure);
    CHECK(waiter.state.load() == LocalWaiter::asks);
    // The other has left; the line is this one's.
    queues.leave(key_of(tenure));
    CHECK(queues.find(key_of(tenure)) == &line);
}

TEST_CASE("Threads that come and go by the same names find one line a name, and leave none") {
    LocalQueues queues;
    support::Occupancy section;
    std::atomic<int> guarded{0};
    int count = 0;
    support::run_together(4, [&](int index) {
        for (int i = 0; i < 2000; ++i) {
            const auto identity = named(std::to_string((i + index) % 3));
            const std::string_view key = identity->keys.main();
            LocalQueues::Line& line = queues.come(identity);
            if (identity->name == "0") {
                const std::lock_guard guard{line.mutex};
                section.enter();
                ++count;
                section.leave();
                ++guarded;
            }
            (void)queues.find(key);
            (void)queues.retained();
            (void)wanted(queues, key, start);
            queues.leave(key);
        }
    });
    CHECK(section.most() == 1);
    CHECK(count == guarded);
    for (const char* key : {"p:lock:{0}", "p:lock:{1}", "p:lock:{2}"}) {
        // A timer goes on for those that were wanted elsewhere.
        (void)time_out(queues, key, start + 1h);
        CHECK(queues.find(key) == nullptr);
    }
}
