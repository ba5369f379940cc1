// SPDX-License-Identifier: MIT
//
// Each fault that the suite injects does what its name says, to a real private redis-server or a
// real process, and is gone when it is healed.

#include "faults/nemesis.hpp"

#include "faults/client_faults.hpp"
#include "faults/server_faults.hpp"
#include "support/catch2.hpp"
#include "support/fault_proxy.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"
#include "support/temp_dir.hpp"

#include <hiredis/hiredis.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <ctime>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/time.h>
#include <unistd.h>
#include <vector>

namespace {

using namespace std::chrono_literals;
using namespace faults;
using test_support::ExitStatus;
using test_support::FaultProxy;
using test_support::Pipe;
using test_support::Process;
using test_support::RedisServer;
using test_support::TempDir;

constexpr std::chrono::milliseconds patience = 300ms;

/// A client of its own: one command at a time. What is no reply is "closed", "timeout" or
/// "refused".
class Client {
  public:
    explicit Client(const std::string& url) : path_{url.substr(std::string{"unix://"}.size())} {}

    std::string ask(const std::vector<std::string>& words) {
        const test_support::NoSigpipe no_sigpipe;
        if (!context_) {
            const timeval limit{0, std::chrono::microseconds{patience}.count()};
            context_.reset(redisConnectUnixWithTimeout(path_.c_str(), limit));
            if (context_->err != 0) return gone("refused");
            redisSetTimeout(context_.get(), limit);
        }
        std::vector<const char*> argv;
        for (const auto& word : words)
            argv.push_back(word.c_str());
        const std::unique_ptr<void, void (*)(void*)> raw{
            redisCommandArgv(context_.get(), static_cast<int>(argv.size()), argv.data(), nullptr),
            freeReplyObject};
        if (!raw)
            return gone(context_->err == REDIS_ERR_IO && errno == EAGAIN ? "timeout" : "closed");
        const auto reply =
            test_support::RedisReply::from(*static_cast<const redisReply*>(raw.get()));
        return reply.is_nil() ? "nil" : reply.text;
    }

  private:
    struct Free {
        void operator()(redisContext* context) const noexcept { redisFree(context); }
    };

    std::string gone(const char* how) {
        context_.reset();
        return how;
    }

    std::string path_;
    std::unique_ptr<redisContext, Free> context_;
};

/// Injects the kind, calls `during`, heals it.
template <class During>
void with(const FaultKind& kind, During during) {
    INFO(kind.name);
    kind.inject();
    try {
        during();
    } catch (...) {
        if (kind.heal) kind.heal();
        throw;
    }
    if (kind.heal) kind.heal();
}

bool starts(const std::string& text, const std::string& with) {
    CAPTURE(text);
    return text.starts_with(with);
}

/// How far its clock is from ours.
std::chrono::seconds step_of(RedisServer& server) {
    return std::chrono::seconds{std::stoll(server.command({"TIME"}).elements.at(0).text) -
                                ::time(nullptr)};
}

bool near(std::chrono::seconds value, std::chrono::seconds expected) {
    CAPTURE(value.count(), expected.count());
    return value >= expected - 2s && value <= expected + 2s;
}

// A signal handler's count.
volatile std::sig_atomic_t signals =
    0;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

}  // namespace

#define NEEDS_REDIS \
    if (!RedisServer::available()) SKIP("no redis-server")

TEST_CASE("The nemesis keeps a window for each fault, until its aftermath is over") {
    Nemesis nemesis{1s};
    std::string log;
    nemesis.add({"one", 5ms, trouble, [&] { log += "i"; }, [&] { log += "h"; }});
    nemesis.add(
        {"bad", 0ms, forgets, [] { throw std::runtime_error{"on purpose"}; }, [&] { log += "!"; }});
    const FaultWindow window = nemesis.strike(0);
    CHECK(log == "ih");
    CHECK(window.fault == "one");
    CHECK(window.allows == trouble);
    CHECK(window.end - window.begin >= 1'005'000'000);
    CHECK_THROWS(nemesis.strike(1));
    CHECK(log == "ih!");
    CHECK(nemesis.times(0) == 1);
    CHECK(nemesis.windows().size() == 2);
}

TEST_CASE("The faults of the proxy do to a conversation what they say") {
    NEEDS_REDIS;
    RedisServer server;
    FaultProxy proxy{server.url()};
    Client client{proxy.url()};
    REQUIRE(client.ask({"PING"}) == "PONG");
    with(connections_cut(proxy), [&] { CHECK(client.ask({"PING"}) == "closed"); });
    CHECK(client.ask({"PING"}) == "PONG");
    with(replies_delayed(proxy, 50ms, 0ms), [&] {
        const auto start = std::chrono::steady_clock::now();
        CHECK(client.ask({"PING"}) == "PONG");
        CHECK(std::chrono::steady_clock::now() - start >= 50ms);
    });
    with(replies_dripped(proxy, 10ms, 0ms), [&] {
        const auto start = std::chrono::steady_clock::now();
        CHECK(client.ask({"PING"}) == "PONG");  // Seven bytes.
        CHECK(std::chrono::steady_clock::now() - start >= 60ms);
    });
    with(black_hole(proxy, 0ms), [&] { CHECK(client.ask({"PING"}) == "timeout"); });
    CHECK(client.ask({"PING"}) == "PONG");
    with(replies_lost(proxy, "INCR", 0ms), [&] { CHECK(client.ask({"INCR", "n"}) == "closed"); });
    CHECK(client.ask({"GET", "n"}) == "1");
}

TEST_CASE("A client's process is stopped, continued and killed, and the records are asked for") {
    Process child = Process::run([] {
        for (;;)
            ::pause();
        return 0;
    });
    std::string log;
    const auto note = [&](const char* what) { return [&log, what] { log += what; }; };
    with(client_stopped(child, 0ms, note("s"), note("c")), [&] {
        CHECK(log == "s");
        CHECK(child.running());
    });
    CHECK(log == "sc");
    with(client_killed(child, note("k")), [] {});
    CHECK(log == "sck");
    CHECK(child.wait(0s) == ExitStatus{-1, SIGKILL});
}

TEST_CASE("A storm of signals reaches a process again and again, and ends") {
    Pipe pipe;
    Process child = Process::run([&] {
        struct sigaction action {};
        action.sa_handler = [](int) { signals = signals + 1; };
        ::sigaction(SIGUSR2, &action, nullptr);
        pipe.send("ready");
        while (signals < 50)
            ::pause();
        pipe.send("enough");
        return 0;
    });
    pipe.close_write();
    REQUIRE(pipe.receive() == "ready");
    with(signal_storm(child, SIGUSR2, 1ms, 0ms), [&] { CHECK(pipe.receive() == "enough"); });
    CHECK(child.wait(5s).has_value());
}

TEST_CASE("A process that is asked to fork forks") {
    Pipe pipe;
    Process child = Process::run([&] {
        sigset_t set;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGUSR1);
        ::sigprocmask(SIG_BLOCK, &set, nullptr);
        pipe.send("ready");
        int signal = 0;
        ::sigwait(&set, &signal);
        const pid_t parent = ::getpid();
        return Process::run([&] { return ::getppid() == parent ? 0 : 1; }).wait()->code;
    });
    pipe.close_write();
    REQUIRE(pipe.receive() == "ready");
    with(client_asked("fork", child, SIGUSR1), [] {});
    CHECK(child.wait() == ExitStatus{0, 0});
}

TEST_CASE("A stopped server answers nobody and goes on where it was") {
    NEEDS_REDIS;
    RedisServer server;
    Client client{server.url()};
    REQUIRE(client.ask({"SET", "k", "v"}) == "OK");
    with(server_stopped(server, 0ms), [&] { CHECK(client.ask({"GET", "k"}) == "timeout"); });
    CHECK(client.ask({"GET", "k"}) == "v");
}

TEST_CASE("A server that is killed and restarted keeps its data if it has a file to keep it in") {
    NEEDS_REDIS;
    const bool keeps = GENERATE(false, true);
    RedisServer server{keeps ? std::vector<std::string>{"--appendonly", "yes"}
                             : std::vector<std::string>{}};
    const std::string run_id = server.info("run_id");
    Client client{server.url()};
    REQUIRE(client.ask({"SET", "k", "v", "PX", "60000"}) == "OK");
    const FaultKind kind = server_restarted(server, keeps, 0ms);
    with(kind, [&] { CHECK(client.ask({"PING"}) == "closed"); });
    CHECK(client.ask({"GET", "k"}) == (keeps ? "v" : "nil"));
    CHECK(server.info("run_id") != run_id);
    CHECK(kind.allows.overlap == !keeps);
}

TEST_CASE("A failover keeps what the replica had and loses what it missed") {
    NEEDS_REDIS;
    RedisServer server{test_support::RedisServerOptions{.tcp = true}};
    RedisServer replica{test_support::RedisServerOptions{.tcp = true}};
    for (int round = 0; round < 2; ++round) {
        server.command({"DEL", "missed"});
        server.command({"SET", "seen", "1"});
        with(failed_over(server, replica, 0ms), [&] { server.command({"SET", "missed", "1"}); });
        CHECK(server.command({"GET", "seen"}).text == "1");
        CHECK(server.command({"GET", "missed"}).is_nil());
        CHECK(server.info("role") == "master");
        CHECK(server.command({"SET", "k", "v"}).text == "OK");
    }
}

TEST_CASE("Data and scripts are flushed") {
    NEEDS_REDIS;
    RedisServer server;
    server.command({"SET", "k", "v"});
    const std::string sha = server.command({"SCRIPT", "LOAD", "return 1"}).text;
    with(scripts_flushed(server), [&] {
        CHECK(starts(server.command({"EVALSHA", sha, "0"}).text, "NOSCRIPT"));
    });
    CHECK(server.command({"GET", "k"}).text == "v");
    with(flushed(server), [&] { CHECK(server.command({"GET", "k"}).is_nil()); });
}

TEST_CASE("A policy that evicts evicts, and the foreign keys go afterwards") {
    NEEDS_REDIS;
    const std::string policy =
        GENERATE("allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu",
                 "volatile-random", "volatile-ttl");
    CAPTURE(policy);
    RedisServer server;
    for (int i = 0; i < 100; ++i)
        server.command({"SET", "lock" + std::to_string(i), "v", "PX", "1000"});
    with(evicting(server, policy, 0ms), [&] { CHECK(server.info("evicted_keys") != "0"); });
    CHECK(server.command({"KEYS", "foreign:*"}).elements.empty());
    CHECK(server.command({"SET", "k", "v"}).text == "OK");
}

TEST_CASE("Paused clients are answered when the pause is over") {
    NEEDS_REDIS;
    RedisServer server;
    Client client{server.url()};
    REQUIRE(client.ask({"PING"}) == "PONG");
    with(clients_paused(server, 100ms), [&] {
        const auto start = std::chrono::steady_clock::now();
        CHECK(client.ask({"PING"}) == "PONG");
        CHECK(std::chrono::steady_clock::now() - start >= 80ms);
    });
}

TEST_CASE("Killed clients are cut off and may come again") {
    NEEDS_REDIS;
    RedisServer server;
    Client client{server.url()};
    REQUIRE(client.ask({"PING"}) == "PONG");
    with(clients_killed(server), [&] { CHECK(client.ask({"PING"}) == "closed"); });
    CHECK(client.ask({"PING"}) == "PONG");
}

TEST_CASE("A server with as many clients as it takes turns others away") {
    NEEDS_REDIS;
    RedisServer server;
    server.command({"PING"});
    with(clients_limited(server, 0ms), [&] {
        const std::string answer = Client{server.url()}.ask({"PING"});
        // It may cut the connection before the request is written.
        const bool refused = answer == "closed" || answer.starts_with("ERR max number of clients");
        CAPTURE(answer);
        CHECK(refused);
    });
    CHECK(Client{server.url()}.ask({"PING"}) == "PONG");
}

TEST_CASE("A busy server, one out of memory and one that cannot save refuse to write, and say so") {
    NEEDS_REDIS;
    RedisServer server;
    Client client{server.url()};
    const std::vector<std::string> write{"SET", "k", "v"};
    with(busy(server, 0ms), [&] { CHECK(starts(client.ask(write), "BUSY")); });
    CHECK(client.ask(write) == "OK");
    with(out_of_memory(server, 0ms), [&] {
        CHECK(starts(client.ask(write), "OOM"));
        CHECK(client.ask({"GET", "k"}) == "v");
    });
    CHECK(client.ask(write) == "OK");
    with(misconfigured(server, 0ms), [&] { CHECK(starts(client.ask(write), "MISCONF")); });
    CHECK(client.ask(write) == "OK");
}

TEST_CASE("A server's clock jumps forward and back while it runs, and only its wall clock") {
    NEEDS_REDIS;
    const TempDir dir;
    ServerClock clock{CODOMYRMEX_CLOCK_SHIM, dir.file("clock")};
    RedisServer server{test_support::RedisServerOptions{.environment = clock.environment()}};
    CHECK(near(step_of(server), 0s));
    server.command({"SET", "lease", "v", "PX", "30000"});

    with(clock_stepped(clock, -1h, 0ms), [&] {
        CHECK(near(step_of(server), -1h));
        CHECK(server.command({"PTTL", "lease"}).number > 3'600'000);
    });
    CHECK(near(step_of(server), 0s));
    CHECK(server.command({"PTTL", "lease"}).number <= 30'000);

    with(clock_stepped(clock, 60s, 0ms), [&] {
        CHECK(near(step_of(server), 60s));
        CHECK(server.command({"GET", "lease"}).is_nil());
    });
    CHECK(near(step_of(server), 0s));
}
