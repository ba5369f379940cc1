// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/redis/mailbox.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;

constexpr BootTime start{1h};

/// A grant for `token`, whose text goes away with its argument.
Message grant_for(const std::string& token, std::uint64_t fence = 7) {
    Message message;
    message.verb = "grant";
    message.token = token;
    message.key = token;
    message.fence = fence;
    message.fences = 2;
    message.time = ServerTime{1'700'000'000s};
    message.ttl = 1s;
    return message;
}

/// As its namesake, with the waking at once.
bool deliver(Mailbox& box, const Message& grant, BootTime received) {
    codomyrmex::concurrency::detail::WaitWord::Wake wake;
    const bool known = box.deliver(grant, received, wake);
    wake();
    return known;
}

bool woken(const GrantWaiter& waiter) {
    return waiter.state.load() == GrantWaiter::woken;
}

}  // namespace

TEST_CASE("An empty box knows nobody") {
    Mailbox box;
    CHECK(box.waiting() == 0);
    CHECK_FALSE(deliver(box, grant_for("a"), start));
    box.settle("a");
    box.forget("a");
    box.wake_all();
    CHECK(box.waiting() == 0);
}

TEST_CASE("A grant goes to who waits for its token, and wakes it") {
    Mailbox box;
    GrantWaiter a;
    GrantWaiter b;
    box.wait("a", a);
    box.wait("b", b);
    CHECK(box.waiting() == 2);
    CHECK(deliver(box, grant_for("b"), start));
    CHECK(woken(b));
    REQUIRE(b.grant.has_value());
    CHECK(b.grant->message.fence == 7);
    CHECK(b.grant->message.fences == 2);
    CHECK(b.grant->message.time == ServerTime{1'700'000'000s});
    CHECK(b.grant->message.ttl == 1s);
    CHECK(b.grant->received == start);
    CHECK_FALSE(woken(a));
    CHECK_FALSE(a.grant.has_value());
    CHECK_FALSE(deliver(box, grant_for("c"), start));
}

TEST_CASE("What is delivered does not point into the message, which is gone by then") {
    Mailbox box;
    GrantWaiter waiter;
    box.wait("a", waiter);
    {
        const std::string text = "a";
        CHECK(deliver(box, grant_for(text), start));
    }
    CHECK(waiter.grant->message.verb.data() == nullptr);
    CHECK(waiter.grant->message.token.data() == nullptr);
    CHECK(waiter.grant->message.key.data() == nullptr);
}

TEST_CASE("Of two grants of one token the last counts") {
    // The server makes it the holder anew if the first was not confirmed in time.
    Mailbox box;
    GrantWaiter waiter;
    box.wait("a", waiter);
    CHECK(deliver(box, grant_for("a", 7), start));
    CHECK(deliver(box, grant_for("a", 9), start + 1s));
    CHECK(waiter.grant->message.fence == 9);
    CHECK(waiter.grant->received == start + 1s);
}

TEST_CASE("A grant of a token that has its lease already is not to be given back") {
    Mailbox box;
    GrantWaiter waiter;
    box.wait("a", waiter);
    box.settle("a");
    CHECK(box.waiting() == 0);
    CHECK(deliver(box, grant_for("a"), start));
    // Its waiter may be gone by now; it was not touched.
    CHECK_FALSE(waiter.grant.has_value());
    CHECK_FALSE(woken(waiter));
    box.settle("a");
    CHECK(box.waiting() == 0);
}

TEST_CASE("A grant of a token that was given up is to be given back") {
    Mailbox box;
    GrantWaiter waiter;
    box.wait("a", waiter);
    box.forget("a");
    CHECK(box.waiting() == 0);
    CHECK_FALSE(deliver(box, grant_for("a"), start));
    CHECK_FALSE(woken(waiter));
    box.wait("a", waiter);
    box.settle("a");
    box.forget("a");
    CHECK_FALSE(deliver(box, grant_for("a"), start));
}

TEST_CASE("Who waits twice is counted once, and only the last is told") {
    Mailbox box;
    GrantWaiter first;
    GrantWaiter second;
    box.wait("a", first);
    box.wait("a", second);
    CHECK(box.waiting() == 1);
    CHECK(deliver(box, grant_for("a"), start));
    CHECK_FALSE(woken(first));
    CHECK(woken(second));
    // After it was settled, it may wait again.
    box.settle("a");
    box.wait("a", first);
    CHECK(box.waiting() == 1);
    CHECK(deliver(box, grant_for("a"), start));
    CHECK(woken(first));
}

TEST_CASE("After messages may have been missed all are woken who wait, without a grant") {
    Mailbox box;
    GrantWaiter a;
    GrantWaiter b;
    GrantWaiter settled;
    box.wait("a", a);
    box.wait("b", b);
    box.wait("c", settled);
    box.settle("c");
    box.wake_all();
    CHECK(woken(a));
    CHECK(woken(b));
    CHECK_FALSE(woken(settled));
    CHECK_FALSE(a.grant.has_value());
    CHECK(box.waiting() == 2);
}

TEST_CASE("A thread that sleeps on its waiter is woken by the grant") {
    Mailbox box;
    GrantWaiter waiter;
    box.wait("a", waiter);
    std::jthread server{[&] { (void)deliver(box, grant_for("a"), start); }};
    CHECK(waiter.state.wait_while(GrantWaiter::waiting, Deadline::after(20s)));
    server.join();
    CHECK(waiter.grant.has_value());
}
