// SPDX-License-Identifier: MIT
//
// Tests of gathering.hpp: who lets others go first, and when not. What a yield is worth is tested
// with yield_policy.hpp.

#include <codomyrmex/concurrency/redis/gathering.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <functional>
#include <thread>

namespace {

using codomyrmex::concurrency::Deadline;
using codomyrmex::concurrency::redis::Gathering;
using namespace std::chrono_literals;

/// One with two threads that wait for replies.
struct GatheringOfTwo : Gathering {
    Present one{*this};
    Present other{*this};
};

/// Counts, and does what others do while it is not held.
struct FakeLock {
    std::function<void()> meanwhile{};
    int dropped = 0;
    bool held = true;

    void unlock() {
        held = false;
        ++dropped;
        if (meanwhile) meanwhile();
    }
    void lock() { held = true; }
};

}  // namespace

TEST_CASE("Who is alone does not drop the lock") {
    Gathering gathering;
    FakeLock lock;
    const Gathering::Present one{gathering};
    gathering.gather(lock, Deadline::never());
    CHECK(lock.dropped == 0);
    {
        const Gathering::Present other{gathering};
        gathering.gather(lock, Deadline::never());
        CHECK(lock.dropped == 1);
    }
    // Enough for the yield above to be forgotten, should it have cost much.
    for (int i = 0; i < 2000; ++i)
        gathering.gather(lock, Deadline::never());
    CHECK(lock.dropped == 1);
}

TEST_CASE("Of several the first gathers for all, and holds the lock again when it is done") {
    GatheringOfTwo gathering;
    CHECK_FALSE(gathering.under_way());
    FakeLock second;
    bool seen = false;
    FakeLock first{[&] {
        seen = gathering.under_way();
        gathering.gather(second, Deadline::never());
    }};
    gathering.gather(first, Deadline::never());
    CHECK(first.dropped == 1);
    CHECK(first.held);
    CHECK(seen);
    CHECK(second.dropped == 0);
    CHECK_FALSE(gathering.under_way());
}

TEST_CASE("Who has less than a time slice left does not let others go first") {
    GatheringOfTwo gathering;
    FakeLock lock;
    gathering.gather(lock, Deadline::after(0ms));
    gathering.gather(lock, Deadline::after(Gathering::time_slice));
    CHECK(lock.dropped == 0);
    gathering.gather(lock, Deadline::after(1h));
    CHECK(lock.dropped == 1);
}

TEST_CASE("It is done again as long as others add requests meanwhile") {
    GatheringOfTwo gathering;
    // So many that they are worth seconds: a slow machine must not look like a vain yield.
    FakeLock lock{[&] {
        for (int i = 0; i < 200'000; ++i)
            gathering.added();
    }};
    for (int i = 0; i < 5; ++i)
        gathering.gather(lock, Deadline::never());
    CHECK(lock.dropped == 5);
}

TEST_CASE("It is not done again at once when nobody added any") {
    GatheringOfTwo gathering;
    FakeLock lock;
    gathering.gather(lock, Deadline::never());
    gathering.gather(lock, Deadline::never());
    CHECK(lock.dropped == 1);
}

TEST_CASE("Who lingers looks after each yield, and stops when its reply has come") {
    const int when = GENERATE(1, 2, 3);
    CAPTURE(when);
    Gathering gathering;
    int looks = 0;
    gathering.linger(Deadline::never(), [&] { return ++looks == when; });
    CHECK(looks == when);
}

TEST_CASE("Who lingered in vain does not do it again at once") {
    Gathering gathering;
    int looks = 0;
    const auto never = [&] {
        ++looks;
        return false;
    };
    gathering.linger(Deadline::never(), never);
    CHECK(looks == 20);
    gathering.linger(Deadline::never(), never);
    CHECK(looks == 20);
}

TEST_CASE("The last of all that are here writes at once, and then nobody gathers any more") {
    GatheringOfTwo gathering;
    const Gathering::Present third{gathering};
    bool left = false;
    bool last = true;
    FakeLock lock{[&] {
        gathering.added();
        left = gathering.left_to_others(false, false);
        gathering.added();
        last = gathering.left_to_others(false, false);
        CHECK_FALSE(gathering.under_way());
    }};
    gathering.gather(lock, Deadline::never());
    CHECK(left);
    CHECK_FALSE(last);
    CHECK_FALSE(gathering.left_to_others(false, false));
}

TEST_CASE("While replies are owed more may come than are here, so nobody is the last") {
    GatheringOfTwo gathering;
    FakeLock lock{[&] {
        gathering.added();
        CHECK(gathering.left_to_others(true, true));
        CHECK(gathering.under_way());
    }};
    gathering.gather(lock, Deadline::never());
    CHECK(lock.dropped == 1);
    CHECK_FALSE(gathering.under_way());
}

TEST_CASE("Who comes after the last gathers anew, and the first does not end that") {
    GatheringOfTwo gathering;
    // It is still held when the first is done.
    FakeLock second{[&] { CHECK(gathering.under_way()); }};
    FakeLock first{[&] {
        gathering.added();
        CHECK_FALSE(gathering.left_to_others(false, false));
        gathering.gather(second, Deadline::never());
        CHECK_FALSE(gathering.under_way());
    }};
    gathering.gather(first, Deadline::never());
    CHECK(second.dropped == 1);
    CHECK_FALSE(gathering.under_way());
}

TEST_CASE("After a yield that cost a slice, what is added is left to who waits for the server") {
    using codomyrmex::concurrency::redis::YieldPolicy;
    GatheringOfTwo gathering;
    CHECK_FALSE(gathering.left_to_others(true, true));
    FakeLock slow{[] { std::this_thread::sleep_for(25 * YieldPolicy::saving); }};
    gathering.gather(slow, Deadline::never());
    CHECK(gathering.crowded());
    CHECK(gathering.left_to_others(true, true));
    // Not where the answer takes long, nor where none is owed.
    CHECK_FALSE(gathering.left_to_others(true, false));
    CHECK_FALSE(gathering.left_to_others(false, true));
}

TEST_CASE("Beside who computes the last of all leaves the writing to the one that gathers") {
    using codomyrmex::concurrency::redis::YieldPolicy;
    GatheringOfTwo gathering;
    bool left = false;
    FakeLock lock{[&] {
        gathering.added();
        left = gathering.left_to_others(false, false);
        std::this_thread::sleep_for(25 * YieldPolicy::saving);
    }};
    gathering.gather(lock, Deadline::never());
    CHECK_FALSE(left);
    CHECK(gathering.crowded());
    // It is not done again at once.
    for (int i = 0; i < 1000 && lock.dropped == 1; ++i)
        gathering.gather(lock, Deadline::never());
    CHECK(lock.dropped == 2);
    CHECK(left);
}

TEST_CASE("Who has less than a time slice left does not linger") {
    Gathering gathering;
    int looks = 0;
    gathering.linger(Deadline::after(Gathering::time_slice), [&] { return ++looks == 1; });
    CHECK(looks == 0);
    gathering.linger(Deadline::after(1h), [&] { return ++looks == 1; });
    CHECK(looks == 1);
}

TEST_CASE("A yield that cost a slice is the last for who lingers") {
    using codomyrmex::concurrency::redis::YieldPolicy;
    Gathering gathering;
    int looks = 0;
    gathering.linger(Deadline::never(), [&] {
        ++looks;
        std::this_thread::sleep_for(2 * YieldPolicy::slice);
        return false;
    });
    CHECK(looks == 1);
}

TEST_CASE("What nobody waits for is left to a thread that is about to leave, if there is one") {
    Gathering gathering;
    CHECK_FALSE(gathering.leave_behind());
    CHECK_FALSE(gathering.left_behind());
    {
        const Gathering::Present one{gathering};
        CHECK(gathering.leave_behind());
    }
    CHECK(gathering.left_behind());
    CHECK_FALSE(gathering.left_behind());  // It has been seen to.
}

TEST_CASE("Who gathers sends also what was left behind") {
    Gathering gathering;
    FakeLock lock;
    const Gathering::Present one{gathering};
    CHECK(gathering.leave_behind());
    gathering.gather(lock, Deadline::never());
    CHECK_FALSE(gathering.left_behind());
}

TEST_CASE("Nothing is left behind where others were let go first in vain") {
    GatheringOfTwo gathering;
    FakeLock lock;
    for (int i = 0; i < 3; ++i)
        gathering.gather(lock, Deadline::never());
    CHECK_FALSE(gathering.leave_behind());
}
