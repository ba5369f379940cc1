// SPDX-License-Identifier: MIT
//
// Tests of what connection_test.cpp does not reach of socket.hpp: the wait itself, of
// socket_wait.hpp, and the resolution of names, of resolution.hpp.

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/resolution.hpp>
#include <codomyrmex/concurrency/detail/socket_wait.hpp>

#include "support/catch2.hpp"
#include "support/process.hpp"

#include <arpa/inet.h>
#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <netinet/in.h>
#include <ostream>
#include <poll.h>
#include <string>
#include <thread>

namespace codomyrmex::concurrency::detail {

std::ostream& operator<<(std::ostream& out, SocketResult result) {
    switch (result) {
        case SocketResult::done:
            return out << "done";
        case SocketResult::timeout:
            return out << "timeout";
        case SocketResult::stopped:
            return out << "stopped";
        case SocketResult::failed:
            return out << "failed";
    }
    return out << "?";
}

}  // namespace codomyrmex::concurrency::detail

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::detail;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using test_support::Pipe;

}  // namespace

TEST_CASE("A wait ends when the descriptor is ready") {
    Pipe pipe;
    NoTick none;
    pipe.send("x");
    CHECK(wait_for(pipe.read_fd(), POLLIN, Deadline::never(), none) == SocketResult::done);
    CHECK(wait_for(pipe.write_fd(), POLLOUT, Deadline::never(), none) == SocketResult::done);
}

TEST_CASE("A wait looks once though the deadline be in the past") {
    Pipe pipe;
    NoTick none;
    CHECK(wait_for(pipe.read_fd(), POLLIN, Deadline::after(-1h), none) == SocketResult::timeout);
    pipe.send("x");
    CHECK(wait_for(pipe.read_fd(), POLLIN, Deadline::after(-1h), none) == SocketResult::done);
}

TEST_CASE("A wait ends by its deadline, neither sooner nor stretched by signals") {
    // The handler stays: a last signal may be delivered after the storm.
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGUSR1, &action, nullptr);
    std::atomic<bool> over{false};
    std::thread storm{[&, target = ::pthread_self()] {
        while (!over) {
            ::pthread_kill(target, SIGUSR1);
            std::this_thread::sleep_for(1ms);
        }
    }};
    Pipe pipe;
    NoTick none;
    const auto begin = Clock::now();
    const auto result = wait_for(pipe.read_fd(), POLLIN, Deadline::after(100ms), none);
    const auto took = Clock::now() - begin;
    over = true;
    storm.join();
    CHECK(result == SocketResult::timeout);
    CHECK(took >= 100ms);
    CHECK(took < 2s);
}

TEST_CASE("A tick is called every ten milliseconds and stops the wait") {
    Pipe pipe;
    int calls = 0;
    auto tick = [&] { return ++calls < 5; };
    const auto begin = Clock::now();
    CHECK(wait_for(pipe.read_fd(), POLLIN, Deadline::never(), tick) == SocketResult::stopped);
    CHECK(calls == 5);
    CHECK(Clock::now() - begin >= 5 * tick_interval);
    // What is ready is ready, whatever the tick says.
    pipe.send("x");
    CHECK(wait_for(pipe.read_fd(), POLLIN, Deadline::never(), tick) == SocketResult::done);
    CHECK(calls == 5);
}

TEST_CASE("The next wake-up is the deadline, or the next tick if that is sooner") {
    const Deadline far = Deadline::after(1h);
    const Deadline near = Deadline::after(0s);
    auto tick = [] { return true; };
    CHECK(next_wake<NoTick>(far) == far);
    CHECK(next_wake<decltype(tick)>(far) < Deadline::after(30min));
    CHECK(next_wake<decltype(tick)>(near) == near);
    CHECK(next_wake<NoTick>(Deadline::never()).is_never());
}

TEST_CASE("Addresses are resolved, numbers without asking anybody") {
    std::shared_ptr<Resolution> running;
    AddressList list;
    std::string error;
    NoTick none;
    REQUIRE(Resolution::resolve(running, "127.0.0.1", 6379, Deadline::after(-1h), none, list,
                                error) == SocketResult::done);
    REQUIRE(list != nullptr);
    REQUIRE(list->ai_family == AF_INET);
    const auto* const address = reinterpret_cast<const sockaddr_in*>(list->ai_addr);
    CHECK(ntohs(address->sin_port) == 6379);
    CHECK(ntohl(address->sin_addr.s_addr) == INADDR_LOOPBACK);

    REQUIRE(Resolution::resolve(running, "::1", 1, Deadline::after(-1h), none, list, error) ==
            SocketResult::done);
    CHECK(list->ai_family == AF_INET6);

    CHECK(Resolution::resolve(running, "localhost", 1, Deadline::after(20s), none, list, error) ==
          SocketResult::done);
    CHECK(list != nullptr);
    CHECK(error.empty());
}

TEST_CASE("A name that cannot be resolved says which") {
    std::shared_ptr<Resolution> running;
    AddressList list;
    std::string error;
    NoTick none;
    // Too late instead, where there is no name server.
    const auto result = Resolution::resolve(running, "no-such-host.invalid", 1, Deadline::after(5s),
                                            none, list, error);
    CHECK((result == SocketResult::failed || result == SocketResult::timeout));
    CHECK_THAT(error,
               Catch::Matchers::StartsWith("the name 'no-such-host.invalid' was not resolved"));
    CHECK(list == nullptr);
    // What was given up is left for the next call to go on with; what has ended is not.
    CHECK((running != nullptr) == (result == SocketResult::timeout));
}

TEST_CASE("A resolution that was given up is gone on with") {
    std::shared_ptr<Resolution> running;
    AddressList list;
    std::string error;
    NoTick none;
    const auto first =
        Resolution::resolve(running, "localhost", 1, Deadline::after(-1h), none, list, error);
    CHECK((first == SocketResult::timeout) == (running != nullptr));
    CHECK(Resolution::resolve(running, "localhost", 1, Deadline::after(20s), none, list, error) ==
          SocketResult::done);
    CHECK(list != nullptr);
    CHECK(running == nullptr);
}
