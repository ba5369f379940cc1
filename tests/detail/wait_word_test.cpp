// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/detail/wait_word.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <csignal>
#include <cstdint>
#include <exception>
#include <pthread.h>
#include <stop_token>
#include <thread>
#include <type_traits>

namespace {

using codomyrmex::concurrency::Deadline;
using codomyrmex::concurrency::detail::WaitWord;
using namespace std::chrono_literals;

static_assert(!std::is_copy_constructible_v<WaitWord> && !std::is_move_constructible_v<WaitWord>);

/// Waits until somebody sleeps on `word`, and lets it sleep on. Requires: its value is `value`.
/// Whoever sets the same value again learns whether somebody sleeps and takes the mark away, so it
/// must be woken to put that back.
bool has_sleeper(WaitWord& word, std::uint32_t value) {
    return support::eventually([&] {
        const bool sleeps = word.set_quietly(value);
        if (sleeps) word.wake();
        return sleeps;
    });
}

}  // namespace

TEST_CASE("A word has the value that it was given last") {
    WaitWord word;
    CHECK(word.load() == 0);
    word.set(3);
    CHECK(word.load() == 3);
    WaitWord other{7};
    CHECK(other.load() == 7);
    other.set(WaitWord::asleep - 1);
    CHECK(other.load() == WaitWord::asleep - 1);
}

TEST_CASE("A wait for a value that it does not have ends at once, whatever the deadline") {
    WaitWord word{1};
    CHECK(word.wait_while(0, Deadline::never()));
    CHECK(word.wait_while(2, Deadline::after(0ns)));
    CHECK(word.load() == 1);
}

TEST_CASE("A wait ends at its deadline, and not before") {
    WaitWord word;
    const auto begin = std::chrono::steady_clock::now();
    CHECK_FALSE(word.wait_while(0, Deadline::after(30ms)));
    CHECK(std::chrono::steady_clock::now() - begin >= 30ms);
    CHECK(word.load() == 0);
    // Nobody sleeps any more, so nobody must be woken.
    CHECK_FALSE(word.set_quietly(1));
}

TEST_CASE("A deadline in the past is no wait, but it is looked") {
    WaitWord word;
    for (const auto past : {0ns, -1ns, std::chrono::nanoseconds{-1h}}) {
        CHECK_FALSE(word.wait_while(0, Deadline::after(past)));
    }
    CHECK_FALSE(word.wait_while(0, Deadline::at(Deadline::time_point::min())));
    word.set(1);
    CHECK(word.wait_while(0, Deadline::at(Deadline::time_point::min())));
}

TEST_CASE("Another value wakes who sleeps, long before its deadline") {
    for (const Deadline deadline : {Deadline::never(), Deadline::after(1h)}) {
        WaitWord word;
        int written = 0;
        std::jthread waker{[&] {
            if (!has_sleeper(word, 0)) std::terminate();
            written = 42;
            word.set(2);
        }};
        CHECK(word.wait_while(0, deadline));
        CHECK(word.load() == 2);
        CHECK(written == 42);
    }
}

TEST_CASE("Whether somebody must be woken is said when the value is set") {
    WaitWord word;
    CHECK_FALSE(word.set_quietly(0));
    support::Event woken;
    std::jthread sleeper{[&] {
        if (word.wait_while(0, Deadline::after(support::patience)) && word.load() == 5) woken.set();
    }};
    CHECK(has_sleeper(word, 0));
    CHECK(word.load() == 0);
    CHECK(has_sleeper(word, 0));  // It went on sleeping.
    if (word.set_quietly(5)) word.wake();
    CHECK(woken.wait());
    CHECK_FALSE(word.set_quietly(5));
}

TEST_CASE("Who sleeps is woken later, also when the word is gone by then") {
    WaitWord::Wake never;
    never();  // Nobody slept.
    support::Event awake;
    WaitWord::Wake wake;
    std::jthread sleeper;
    {
        WaitWord word;
        wake = word.set_and_wake_later(0);
        wake();
        sleeper = std::jthread{[&] {
            word.wait_while(0, Deadline::never());
            awake.set();
        }};
        CHECK(has_sleeper(word, 0));
        wake = word.set_and_wake_later(5);
        CHECK(word.load() == 5);
        wake();
        CHECK(awake.wait());
        sleeper.join();
    }
    wake();
}

TEST_CASE("Being woken for nothing does not end a wait") {
    WaitWord word;
    support::Event ended;
    std::jthread sleeper{[&] {
        word.wait_while(0, Deadline::never());
        ended.set();
    }};
    CHECK(has_sleeper(word, 0));
    for (int i = 0; i < 50; ++i)
        word.wake();
    CHECK(has_sleeper(word, 0));
    CHECK_FALSE(ended.wait(0ms));
    word.set(1);
    CHECK(ended.wait());
}

TEST_CASE("Signals neither end a wait nor stretch it") {
    // It stays: a last signal may be delivered after the storm.
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGUSR1, &action, nullptr);
    WaitWord word;
    const auto begin = std::chrono::steady_clock::now();
    std::jthread storm{[target = ::pthread_self()](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            ::pthread_kill(target, SIGUSR1);
            std::this_thread::sleep_for(1ms);
        }
    }};
    CHECK_FALSE(word.wait_while(0, Deadline::after(50ms)));
    const auto took = std::chrono::steady_clock::now() - begin;
    CHECK(took >= 50ms);
    CHECK(took < 10s);
}

TEST_CASE("No value is missed when it is set as the other falls asleep") {
    WaitWord ping;
    WaitWord pong;
    constexpr std::uint32_t rounds = 5000;
    bool all = true;
    std::jthread other{[&] {
        for (std::uint32_t i = 0; i < rounds; ++i) {
            if (!ping.wait_while(i, Deadline::after(support::patience))) return;
            pong.set(i + 1);
        }
    }};
    for (std::uint32_t i = 0; i < rounds && all; ++i) {
        ping.set(i + 1);
        all = pong.wait_while(i, Deadline::after(support::patience));
    }
    CHECK(all);
    CHECK(pong.load() == rounds);
}

TEST_CASE("A deadline and a value that come together end the wait one way or the other") {
    int seen = 0;
    for (int round = 0; round < 300; ++round) {
        WaitWord word;
        bool changed = false;
        std::jthread sleeper{
            [&] { changed = word.wait_while(0, Deadline::after(std::chrono::microseconds{100})); }};
        std::this_thread::sleep_for(std::chrono::microseconds{round});
        word.set(1);
        sleeper.join();
        REQUIRE(word.load() == 1);
        // Whoever missed it sees it by looking again, at once.
        REQUIRE(word.wait_while(0, Deadline::after(0ns)));
        seen += changed ? 1 : 0;
    }
    INFO("seen in time: " << seen << " of 300");
    SUCCEED();
}
