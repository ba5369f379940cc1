// SPDX-License-Identifier: MIT
//
// The tools that the other tests lean on do what they say: temporary directories, child processes,
// the private redis-server, and each fault of the proxy.

#include "support/catch2.hpp"
#include "support/fault_proxy.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"
#include "support/temp_dir.hpp"

#include <hiredis/hiredis.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/time.h>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using test_support::ExitStatus;
using test_support::Fault;
using test_support::FaultProxy;
using test_support::Pipe;
using test_support::Process;
using test_support::RedisReply;
using test_support::RedisServer;
using test_support::TempDir;

/// A plain client of the proxy. "closed", "timeout" and "error ..." stand for what is no reply.
class Client {
  public:
    explicit Client(const FaultProxy& proxy, std::chrono::milliseconds timeout = 5s) {
        const timeval limit{static_cast<time_t>(timeout.count() / 1000),
                            static_cast<suseconds_t>(timeout.count() % 1000 * 1000)};
        if (proxy.port() != 0) {
            context_.reset(redisConnectWithTimeout("127.0.0.1", proxy.port(), limit));
        } else {
            const std::string path = proxy.url().substr(std::string{"unix://"}.size());
            context_.reset(redisConnectUnixWithTimeout(path.c_str(), limit));
        }
        if (context_->err == 0) redisSetTimeout(context_.get(), limit);
    }

    [[nodiscard]] bool connected() const { return context_->err == 0; }

    void send(const std::vector<std::string>& words) {
        std::vector<const char*> argv;
        std::vector<std::size_t> sizes;
        for (const auto& word : words) {
            argv.push_back(word.data());
            sizes.push_back(word.size());
        }
        redisAppendCommandArgv(context_.get(), static_cast<int>(argv.size()), argv.data(),
                               sizes.data());
        const test_support::NoSigpipe no_sigpipe;
        for (int done = 0; done == 0 && context_->err == 0;) {
            redisBufferWrite(context_.get(), &done);
        }
    }

    std::string receive() {
        if (context_->err != 0) return failure();
        void* raw = nullptr;
        if (redisGetReply(context_.get(), &raw) != REDIS_OK) return failure();
        const std::unique_ptr<void, void (*)(void*)> owner{raw, freeReplyObject};
        const auto reply = RedisReply::from(*static_cast<const redisReply*>(raw));
        std::string text = reply.is_nil() ? "nil" : reply.text;
        for (const auto& element : reply.elements)
            text += (text.empty() ? "" : " ") + element.text;
        return text;
    }

    std::string ask(const std::vector<std::string>& words) {
        send(words);
        return receive();
    }

  private:
    struct FreeContext {
        void operator()(redisContext* context) const noexcept { redisFree(context); }
    };

    [[nodiscard]] std::string failure() const {
        const std::string_view text = context_->errstr;
        if (context_->err == REDIS_ERR_EOF || text.find("reset") != text.npos ||
            text.find("Broken pipe") != text.npos) {
            return "closed";
        }
        if (text.find("temporarily unavailable") != text.npos) return "timeout";
        return "error " + std::string{text};
    }

    std::unique_ptr<redisContext, FreeContext> context_;
};

}  // namespace

TEST_CASE("A temporary directory is fresh and goes away with what is in it") {
    std::string path;
    {
        const TempDir first;
        const TempDir second;
        path = first.path();
        CHECK(first.path() != second.path());
        std::ofstream{first.file("x")} << "text";
        CHECK(std::filesystem::exists(path + "/x"));
    }
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("A function runs in a child and its result is the exit code") {
    CHECK(Process::run([] { return 7; }).wait() == ExitStatus{7, 0});
    CHECK(Process::run([]() -> int { throw std::runtime_error{"on purpose"}; }).wait() ==
          ExitStatus{126, 0});
}

TEST_CASE("Lines go through a pipe in order, and its end is noticed") {
    Pipe to_child;
    Pipe to_parent;
    Process child = Process::run([&] {
        to_child.close_write();
        while (const auto line = to_child.receive())
            to_parent.send("<" + *line + ">");
        return 0;
    });
    to_child.close_read();
    to_parent.close_write();
    to_child.send("one");
    to_child.send("");
    CHECK(to_parent.receive() == "<one>");
    CHECK(to_parent.receive() == "<>");
    CHECK_FALSE(to_parent.receive(1ms).has_value());
    to_child.close_write();
    CHECK(child.wait() == ExitStatus{0, 0});
    CHECK_FALSE(to_parent.receive().has_value());
}

TEST_CASE("A child is stopped, continued, waited for with a limit and killed") {
    Pipe pipe;
    Process child = Process::run([&] {
        for (;;)
            ::pause();
        return 0;
    });
    CHECK_FALSE(child.wait(1ms).has_value());
    child.stop();
    CHECK(child.running());
    child.cont();
    CHECK(child.kill() == ExitStatus{-1, SIGKILL});
    CHECK_FALSE(child.running());
    CHECK(child.kill() == ExitStatus{-1, SIGKILL});
}

TEST_CASE("A child that nobody waits for ends with its object") {
    pid_t pid = 0;
    {
        const Process child = Process::run([] {
            for (;;)
                ::pause();
            return 0;
        });
        pid = child.pid();
        CHECK(::kill(pid, 0) == 0);
    }
    CHECK(::kill(pid, 0) != 0);
}

TEST_CASE("A program gets its arguments and environment, and its output can be read") {
    Pipe pipe;
    Process child = Process::spawn({"sh", "-c", "echo \"$1 $WORD\"; exit 3", "sh", "a b"},
                                   {.output_fd = pipe.write_fd(), .environment = {"WORD=c"}});
    pipe.close_write();
    CHECK(pipe.receive() == "a b c");
    CHECK(child.wait() == ExitStatus{3, 0});
    CHECK(Process::spawn({"no-such-program-anywhere"}).wait() == ExitStatus{127, 0});
}

TEST_CASE("A program that ignores SIGTERM is killed after the grace") {
    Pipe pipe;
    Process child = Process::spawn({"sh", "-c", "trap '' TERM; echo ready; while :; do :; done"},
                                   {.output_fd = pipe.write_fd()});
    REQUIRE(pipe.receive() == "ready");
    CHECK(child.terminate(1ms) == ExitStatus{-1, SIGKILL});
}

TEST_CASE("A private server answers, counts commands, restarts empty and leaves nothing behind") {
    if (!RedisServer::available()) SKIP("no redis-server");
    std::string path;
    {
        RedisServer server;
        path = server.socket_path();
        CHECK(server.url() == "unix://" + path);
        CHECK(server.url("u:p") == "unix://u:p@" + path);
        CHECK(server.command({"SET", std::string{"k\0\r\n", 4}, "v"}).text == "OK");
        CHECK(server.command({"GET", std::string{"k\0\r\n", 4}}).text == "v");
        CHECK(server.command({"LPUSH", std::string{"k\0\r\n", 4}, "v"}).is_error());
        CHECK(server.command_stats("set").calls == 1);
        CHECK(server.command_stats("lpush").failed_calls == 1);
        CHECK(server.command_stats("getdel").calls == 0);
        CHECK(server.command({"DBSIZE"}).number == 1);
        CHECK_FALSE(server.info("redis_version").empty());
        const pid_t before = server.pid();
        const std::string run = server.info("run_id");
        server.kill();
        CHECK_FALSE(server.running());
        CHECK_THROWS_AS(server.command({"PING"}), std::runtime_error);
        server.restart();
        CHECK(server.pid() != before);
        CHECK(server.info("run_id") != run);
        CHECK_THROWS_AS(server.command({"SHUTDOWN", "NOSAVE"}), std::runtime_error);
        server.restart();
        CHECK(server.command({"DBSIZE"}).number == 0);
        CHECK_THROWS_AS(server.tcp_url(), std::logic_error);
    }
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("A private server listens on TCP, has a password and allows DEBUG when asked to") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server{{.tcp = true, .password = "s3cret", .debug = true}};
    CHECK(server.tcp_url() == "redis://127.0.0.1:" + std::to_string(server.port()));
    CHECK(server.command({"DEBUG", "SLEEP", "0"}).text == "OK");
    const FaultProxy proxy{server.tcp_url()};
    Client client{proxy};
    CHECK(client.ask({"PING"}) == "NOAUTH Authentication required.");
    CHECK(client.ask({"AUTH", "s3cret"}) == "OK");
}

TEST_CASE("With the least of rights the code under test may do what it needs and no more") {
    if (!RedisServer::available()) SKIP("no redis-server");
    const char* const variable = "CODOMYRMEX_LEAST_RIGHTS";
    const bool set = std::getenv(variable) != nullptr;
    ::setenv(variable, "1", 1);
    {
        RedisServer server;
        const FaultProxy proxy{server.url()};
        Client client{proxy};
        CHECK(client.ask({"SET", "codomyrmex:a", "1"}) == "OK");
        CHECK(client.ask({"SET", "other", "1"}).find("NOPERM") != std::string::npos);
        CHECK(client.ask({"KEYS", "*"}).find("NOPERM") != std::string::npos);
        CHECK(server.command({"SET", "other", "1"}).text == "OK");
    }
    if (!set) ::unsetenv(variable);
}

TEST_CASE("A server that cannot start says why") {
    if (!RedisServer::available()) SKIP("no redis-server");
    std::string what;
    try {
        const RedisServer server{{"--no-such-option", "1"}};
    } catch (const std::runtime_error& error) {
        what = error.what();
    }
    INFO(what);
    CHECK(what.find("exit code 1") != std::string::npos);
    CHECK(what.find("no-such-option") != std::string::npos);
}

TEST_CASE("The length of a RESP value is known once all of it is there") {
    for (const std::string_view whole :
         {"+OK\r\n", "-ERR x\r\n", ":12\r\n", "$-1\r\n", "$0\r\n\r\n", "$4\r\na\r\nb\r\n",
          "*-1\r\n", "*0\r\n", "*2\r\n$1\r\nx\r\n*1\r\n:1\r\n", "PING\r\n"}) {
        CAPTURE(std::string{whole});
        for (std::size_t part = 0; part < whole.size(); ++part) {
            CHECK(test_support::resp_length(whole.substr(0, part)) == 0);
        }
        CHECK(test_support::resp_length(std::string{whole} + "+more\r\n") == whole.size());
    }
}

TEST_CASE("The proxy passes on requests, replies and messages, in order") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    const auto listen = GENERATE(FaultProxy::Listen::unix_socket, FaultProxy::Listen::tcp);
    FaultProxy proxy{server.url(), listen};
    Client client{proxy};
    for (int i = 0; i < 100; ++i)
        client.send({"ECHO", std::to_string(i)});
    for (int i = 0; i < 100; ++i)
        CHECK(client.receive() == std::to_string(i));
    CHECK(client.ask({"GET", "nothing"}) == "nil");
    CHECK(client.ask({"SET", "big", std::string(1 << 20, 'x')}) == "OK");
    CHECK(client.ask({"GET", "big"}) == std::string(1 << 20, 'x'));
    CHECK(proxy.requests() == 103);
    CHECK(proxy.connections() == 1);

    Client subscriber{proxy};
    CHECK(subscriber.ask({"SUBSCRIBE", "a", "b"}) == "subscribe a 1");
    CHECK(subscriber.receive() == "subscribe b 2");
    server.command({"PUBLISH", "b", "hello"});
    CHECK(subscriber.receive() == "message b hello");
    CHECK(subscriber.ask({"UNSUBSCRIBE", "a"}) == "unsubscribe a 1");
    CHECK(proxy.connections() == 2);
}

TEST_CASE("The proxy hits the requests that a fault names and no others") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Client client{proxy};

    SECTION("a scripted reply instead of the server's, in its place among others") {
        const auto fault = proxy.add(Fault::reply("-LOADING now\r\n").on("b").after(1).times(2));
        for (const char* word : {"a", "b", "b", "c", "b", "b"})
            client.send({"ECHO", word});
        for (const char* word : {"a", "b", "LOADING now", "c", "LOADING now", "b"}) {
            CHECK(client.receive() == word);
        }
        CHECK(proxy.hits(fault) == 2);
        CHECK(server.command_stats("echo").calls == 4);
    }
    SECTION("a reply of another type, after the command was executed") {
        proxy.add(Fault::replace_reply("*1\r\n+OK\r\n").on("INCR"));
        CHECK(client.ask({"INCR", "n"}) == "OK");
        CHECK(client.ask({"INCR", "n"}) == "2");
    }
    SECTION("surplus bytes") {
        proxy.add(Fault::append(":99\r\n").on("INCR"));
        CHECK(client.ask({"INCR", "n"}) == "1");
        CHECK(client.receive() == "99");
    }
    SECTION("garbage") {
        proxy.add(Fault::reply("?!\r\n"));
        CHECK(client.ask({"PING"}).starts_with("error Protocol error"));
    }
    SECTION("a cut before the request is forwarded") {
        proxy.add(Fault::cut().on("INCR"));
        CHECK(client.ask({"INCR", "n"}) == "closed");
        CHECK(server.command({"GET", "n"}).is_nil());
    }
    SECTION("a reply lost after the request was executed") {
        proxy.add(Fault::lose_reply().on("INCR"));
        client.send({"PING"});
        client.send({"INCR", "n"});
        CHECK(client.receive() == "PONG");
        CHECK(client.receive() == "closed");
        CHECK(server.command({"GET", "n"}).text == "1");
        CHECK(Client{proxy}.ask({"INCR", "n"}) == "2");
    }
    SECTION("no answer at all, on a connection that goes on") {
        proxy.add(Fault::reply("").on("lost"));
        client.send({"ECHO", "lost"});
        CHECK(client.ask({"ECHO", "found"}) == "found");
    }
    SECTION("a request that is executed after its sender has gone") {
        const auto fault = proxy.add(Fault::hold_request().on("INCR"));
        {
            Client gone{proxy};
            CHECK(gone.ask({"PING"}) == "PONG");
            gone.send({"INCR", "n"});
            REQUIRE(proxy.wait_hits(fault));
        }
        CHECK(client.ask({"GET", "n"}) == "nil");
        proxy.release();
        // The server takes requests in the order in which the proxy wrote them to it.
        std::string seen;
        for (int i = 0; i < 10'000 && seen != "1"; ++i)
            seen = client.ask({"GET", "n"});
        CHECK(seen == "1");
    }
    SECTION("a reply that comes late") {
        const auto fault = proxy.add(Fault::hold_reply().on("INCR"));
        client.send({"INCR", "n"});
        client.send({"PING"});
        REQUIRE(proxy.wait_hits(fault));
        CHECK(Client{proxy}.ask({"INCR", "n"}) == "2");
        proxy.release();
        CHECK(client.receive() == "1");
        CHECK(client.receive() == "PONG");
    }
    SECTION("faults that are cleared hit no more") {
        proxy.add(Fault::cut().always());
        proxy.clear();
        CHECK(client.ask({"PING"}) == "PONG");
    }
}

TEST_CASE("The proxy's modes concern all connections, and end") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    const auto listen = GENERATE(FaultProxy::Listen::unix_socket, FaultProxy::Listen::tcp);
    FaultProxy proxy{server.url(), listen};
    Client client{proxy};
    REQUIRE(client.ask({"PING"}) == "PONG");

    SECTION("a black hole accepts and does not answer; what was sent comes late") {
        proxy.set(FaultProxy::Mode::black_hole);
        Client other{proxy, 10ms};
        CHECK(other.connected());
        CHECK(other.ask({"PING"}) == "timeout");
        client.send({"INCR", "n"});
        CHECK(server.command({"GET", "n"}).is_nil());
        proxy.set(FaultProxy::Mode::forward);
        CHECK(client.receive() == "1");
    }
    SECTION("refused connections, on the same address open again afterwards") {
        proxy.set(FaultProxy::Mode::refuse);
        CHECK_FALSE(Client{proxy}.connected());
        CHECK(client.ask({"PING"}) == "PONG");
        proxy.set(FaultProxy::Mode::forward);
        CHECK(Client{proxy}.ask({"PING"}) == "PONG");
    }
    SECTION("a connect that is not answered") {
        proxy.set(FaultProxy::Mode::unreachable);
        CHECK_FALSE(Client{proxy, 50ms}.connected());
        CHECK(client.ask({"PING"}) == "PONG");
        proxy.set(FaultProxy::Mode::forward);
        CHECK(Client{proxy}.ask({"PING"}) == "PONG");
    }
    SECTION("connections cut at once") {
        proxy.set(FaultProxy::Mode::cut);
        CHECK(client.ask({"PING"}) == "closed");
        CHECK(Client{proxy}.ask({"PING"}) == "closed");
        proxy.set(FaultProxy::Mode::forward);
        CHECK(Client{proxy}.ask({"PING"}) == "PONG");
    }
    SECTION("standing connections cut, new ones served") {
        proxy.cut_connections();
        CHECK(client.ask({"PING"}) == "closed");
        CHECK(Client{proxy}.ask({"PING"}) == "PONG");
        CHECK(proxy.wait_connections(2));
    }
    SECTION("a delay, and then none") {
        proxy.delay(30ms);
        const auto begin = std::chrono::steady_clock::now();
        CHECK(client.ask({"PING"}) == "PONG");
        CHECK(std::chrono::steady_clock::now() - begin >= 30ms);
        proxy.delay(0ms);
        CHECK(client.ask({"PING"}) == "PONG");
    }
    SECTION("a slow drip: one byte each few milliseconds") {
        proxy.drip(1, 5ms);
        const auto begin = std::chrono::steady_clock::now();
        CHECK(client.ask({"PING"}) == "PONG");  // +PONG\r\n: 7 bytes, 6 pauses
        CHECK(std::chrono::steady_clock::now() - begin >= 30ms);
        proxy.drip(0, 0ms);
        CHECK(client.ask({"PING"}) == "PONG");
    }
    SECTION("a server that is gone cuts the connections; a new one is reached") {
        server.kill();
        CHECK(client.ask({"PING"}) == "closed");
        CHECK(Client{proxy}.ask({"PING"}) == "closed");
        server.restart();
        CHECK(Client{proxy}.ask({"PING"}) == "PONG");
    }
}
