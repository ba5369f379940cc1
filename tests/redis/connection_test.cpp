// SPDX-License-Identifier: MIT
//
// Tests of connection.hpp against a real server, with a proxy in between that does to the
// conversation what networks and hostile servers do.

#include <codomyrmex/concurrency/redis/connection.hpp>

#include "support/catch2.hpp"
#include "support/fault_proxy.hpp"
#include "support/redis_server.hpp"
#include "support/temp_dir.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <fstream>
#include <future>
#include <initializer_list>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <type_traits>
#include <unistd.h>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
using test_support::Fault;
using test_support::FaultProxy;
using test_support::RedisServer;
using test_support::RedisServerOptions;

static_assert(!std::is_copy_constructible_v<Connection>);

// Long enough for whatever this machine does meanwhile; reached only when a test fails.
Deadline soon() {
    return Deadline::after(20s);
}

/// How long `action` takes.
template <class Action>
std::chrono::milliseconds time_of(Action action) {
    const auto begin = std::chrono::steady_clock::now();
    action();
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                                 begin);
}

Io connect(Connection& connection, const std::string& url, Deadline deadline = soon(),
           const ClientOptions& options = {}) {
    return connection.open(Endpoint::parse(url), options, deadline);
}

/// An open connection to `url`.
struct Client : Connection {
    explicit Client(const std::string& url, const ClientOptions& options = {}) {
        const Io opened = connect(*this, url, soon(), options);
        CAPTURE(error());
        REQUIRE(opened == Io::done);
    }

    void send(std::initializer_list<std::string_view> command) {
        append(command);
        REQUIRE(flush(soon()) == Io::done);
    }

    /// The text of the next reply, an integer in digits; else how it ended, in brackets.
    std::string next() {
        Reply reply;
        switch (receive(reply, soon())) {
            case Io::done:
                break;
            case Io::timeout:
                return "[timeout]";
            case Io::failed:
                return "[" + error() + "]";
            default:
                return "[?]";
        }
        if (const auto number = reply.as_integer()) return std::to_string(*number);
        return reply.text;
    }

    std::string ask(std::initializer_list<std::string_view> command) {
        send(command);
        return next();
    }
};

/// Signals the thread that made it every millisecond; no call that they interrupt is restarted.
class SignalStorm {
  public:
    SignalStorm() {
        // It stays: a last signal may be delivered after the storm.
        struct sigaction action {};
        action.sa_handler = [](int) {};
        ::sigaction(SIGUSR1, &action, nullptr);
        thread_ = std::jthread{[this, target = ::pthread_self()](const std::stop_token& stop) {
            while (!stop.stop_requested()) {
                ::pthread_kill(target, SIGUSR1);
                ++sent_;
                std::this_thread::sleep_for(1ms);
            }
        }};
    }

    [[nodiscard]] int sent() const noexcept { return sent_.load(); }

  private:
    std::atomic<int> sent_{0};
    std::jthread thread_;
};

/// Kilobytes of address space that this process has taken.
long address_space() {
    long pages = 0;
    std::ifstream{"/proc/self/statm"} >> pages;
    return pages * (::sysconf(_SC_PAGESIZE) / 1024);
}

}  // namespace

TEST_CASE("A connection opens, exchanges and closes, over a unix socket and over TCP") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server{RedisServerOptions{.tcp = true}};
    for (const std::string& url : {server.url(), server.tcp_url()}) {
        CAPTURE(url);
        Client client{url};
        CHECK(client.is_open());
        CHECK(client.is_ready());
        CHECK(client.outstanding() == 0);
        CHECK(client.ask({"SET", "key", std::string_view{"a\0\r\n", 4}}) == "OK");
        CHECK(client.ask({"GET", "key"}) == std::string{"a\0\r\n", 4});
        CHECK(client.ask({"STRLEN", "key"}) == "4");
        CHECK(client.ask({"NOSUCH"}).starts_with("ERR unknown command"));
        CHECK(client.is_ready());
        client.close();
        CHECK_FALSE(client.is_open());
        CHECK_FALSE(client.is_ready());
    }
}

TEST_CASE("Replies come in the order of the commands, however many are under way") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Client client{server.url()};
    for (int i = 0; i < 1000; ++i)
        client.append({"ECHO", std::to_string(i)});
    CHECK(client.outstanding() == 1000);
    REQUIRE(client.flush(soon()) == Io::done);
    for (int i = 0; i < 1000; ++i)
        REQUIRE(client.next() == std::to_string(i));
    CHECK(client.outstanding() == 0);
    // Larger than what a socket takes at once, both ways.
    const std::string large(4 << 20, 'x');
    CHECK(client.ask({"ECHO", large}) == large);
}

TEST_CASE("Opening again closes what was open and forgets what was under way") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Client client{proxy.url()};
    client.append({"SET", "never", "sent"});
    REQUIRE(connect(client, proxy.url()) == Io::done);
    CHECK(client.outstanding() == 0);
    CHECK(client.ask({"GET", "never"}).empty());
    CHECK(proxy.connections() == 2);

    client.send({"ECHO", "abandoned"});
    client.close();
    CHECK(client.outstanding() == 0);
    REQUIRE(connect(client, proxy.url()) == Io::done);
    CHECK(client.ask({"ECHO", "mine"}) == "mine");
}

TEST_CASE("It logs in as the URL says") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server{RedisServerOptions{.tcp = true, .password = "s3cret"}};
    server.command({"ACL", "SETUSER", "bob", "on", ">b:ob", "~*", "+@all"});
    server.command({"ACL", "SETUSER", "guest", "on", "nopass", "~*", "+@all"});
    CHECK(Client{server.url(":s3cret")}.ask({"ACL", "WHOAMI"}) == "default");
    CHECK(Client{server.tcp_url(":s3cret")}.ask({"ACL", "WHOAMI"}) == "default");
    CHECK(Client{server.url("default:s3cret")}.ask({"ACL", "WHOAMI"}) == "default");
    CHECK(Client{server.url("bob:b%3Aob")}.ask({"ACL", "WHOAMI"}) == "bob");
    CHECK(Client{server.url("guest:")}.ask({"ACL", "WHOAMI"}) == "guest");
}

TEST_CASE("A login that the server refuses says so in its words, never with the password") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server{{.password = "s3cret"}};
    Connection connection;
    for (const char* user : {":wr0ng", "default:wr0ng", "nobody:wr0ng"}) {
        CAPTURE(user);
        CHECK(connect(connection, server.url(user)) == Io::refused);
        CHECK_THAT(connection.error(), StartsWith("WRONGPASS "));
        CHECK(connection.error().find("wr0ng") == std::string::npos);
        CHECK_FALSE(connection.is_open());
    }
    CHECK(connect(connection, server.url()) == Io::refused);
    CHECK_THAT(connection.error(), StartsWith("NOAUTH "));

    RedisServer open_to_all;
    CHECK(connect(connection, open_to_all.url(":wr0ng")) == Io::refused);
    CHECK_THAT(connection.error(), ContainsSubstring("without any password configured"));
    CHECK(connection.error().find("wr0ng") == std::string::npos);

    // And then it can still be opened.
    CHECK(connect(connection, server.url(":s3cret")) == Io::done);
    CHECK(connection.is_open());
}

TEST_CASE("A server that quotes the password is not quoted") {
    FaultProxy proxy{"unix:///nonexistent/redis.sock"};
    Connection connection;
    for (const std::string words :
         {"ERR unknown command 'AUTH', with args beginning with: 's3cret' ",
          "ERR unknown command `AUTH`, with args beginning with: `s3c",
          "ERR no such user:s3cret"}) {
        CAPTURE(words);
        proxy.add(Fault::reply("-" + words + "\r\n").on("AUTH"));
        proxy.add(Fault::reply("+OK\r\n").on("SETNAME"));
        CHECK(connect(connection, proxy.url(":s3cret")) == Io::refused);
        CHECK_THAT(connection.error(), StartsWith("ERR "));
        CHECK(connection.error().find("s3c") == std::string::npos);
        proxy.clear();
    }
}

TEST_CASE("A server that takes nobody now says so while opening") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Connection connection;
    for (const std::string words : {"LOADING Redis is loading", "ERR max number of clients reached",
                                    "NOAUTH Authentication required."}) {
        proxy.add(Fault::reply("-" + words + "\r\n").on("SETNAME"));
        CHECK(connect(connection, proxy.url()) == Io::refused);
        CHECK(connection.error() == words);
    }
}

TEST_CASE("What a server says before it hangs up is read, though the request cannot be sent") {
    const test_support::TempDir directory;
    const std::string path = directory.file("socket");
    const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(listener, 1) == 0);
    std::promise<void> greeted;
    std::jthread server{[listener, go = greeted.get_future()] {
        const auto say = [](int file, std::string_view words) {
            return ::write(file, words.data(), words.size());
        };
        const int file = ::accept(listener, nullptr, nullptr);
        char byte = 0;
        while (byte != '\n' && ::read(file, &byte, 1) == 1) {
        }
        (void)say(file, "+OK\r\n");
        go.wait();
        (void)say(file, "-ERR max number of clients reached\r\n");
        ::close(file);
    }};
    Connection connection;
    const Io opened = connect(connection, "unix://" + path);
    greeted.set_value();
    server.join();
    ::close(listener);
    REQUIRE(opened == Io::done);
    connection.append({"PING"});
    CHECK(connection.flush(soon()) == Io::refused);
    CHECK(connection.error() == "ERR max number of clients reached");
    CHECK_FALSE(connection.is_open());
}

TEST_CASE("It selects the database of the URL") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    {
        Client client{server.url() + "?db=3"};
        CHECK(client.ask({"SET", "key", "value"}) == "OK");
    }
    CHECK(server.info("db3").starts_with("keys=1"));
    CHECK(server.info("db0").empty());
    Connection connection;
    CHECK(connect(connection, server.url() + "?db=99") == Io::refused);
    CHECK_THAT(connection.error(), ContainsSubstring("DB index is out of range"));
}

TEST_CASE("It names itself, with a dash for what Redis does not allow in a name") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    CHECK(Client{server.url()}.ask({"CLIENT", "GETNAME"}) == "codomyrmex-concurrency");
    CHECK(Client{server.url(), {.client_name = "a b\r\nc\x7F\xFF!~"}}.ask({"CLIENT", "GETNAME"}) ==
          "a-b--c--!~");
    CHECK(Client{server.url(), {.client_name = std::string{"\0", 1}}}.ask({"CLIENT", "GETNAME"}) ==
          "-");
    CHECK(Client{server.url(), {.client_name = ""}}.ask({"CLIENT", "GETNAME"}).empty());
    CHECK(Client{server.url() + "?client_name=job-7"}.ask({"CLIENT", "GETNAME"}) == "job-7");
}

TEST_CASE("A server that knows no names is used without one") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    proxy.add(Fault::reply("-ERR unknown command 'CLIENT'\r\n").on("SETNAME"));
    CHECK(Client{proxy.url()}.ask({"ECHO", "in"}) == "in");
}

TEST_CASE("A user who may not name itself is let in, one who may not select is not") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    server.command({"ACL", "SETUSER", "bob", "on", ">b", "~*", "+echo"});
    CHECK(Client{server.url("bob:b")}.ask({"ECHO", "in"}) == "in");
    Connection connection;
    CHECK(connect(connection, server.url("bob:b") + "?db=1") == Io::refused);
    CHECK_THAT(connection.error(), StartsWith("NOPERM "));
}

TEST_CASE("Nobody there: the error says what the system says") {
    Connection connection;
    CHECK(connect(connection, "unix:///nonexistent/redis.sock") == Io::failed);
    CHECK_THAT(connection.error(),
               StartsWith("cannot connect: ") && ContainsSubstring("No such file"));
    CHECK_FALSE(connection.is_open());

    CHECK(connect(connection, "unix:///" + std::string(200, 'x')) == Io::failed);
    CHECK_THAT(connection.error(), ContainsSubstring("longer than this system allows"));

    const auto listen = GENERATE(FaultProxy::Listen::unix_socket, FaultProxy::Listen::tcp);
    FaultProxy proxy{"unix:///nonexistent/redis.sock", listen};
    proxy.set(FaultProxy::Mode::refuse);
    CHECK(connect(connection, proxy.url()) == Io::failed);
    CHECK_THAT(connection.error(), ContainsSubstring("Connection refused"));
    proxy.set(FaultProxy::Mode::cut);
    CHECK(connect(connection, proxy.url()) == Io::failed);
    CHECK_FALSE(connection.is_open());
}

TEST_CASE("Names are resolved") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server{RedisServerOptions{.tcp = true}};
    const std::string port = std::to_string(server.port());
    CHECK(Client{"redis://localhost:" + port}.ask({"ECHO", "x"}) == "x");
    CHECK(Client{"redis://127.0.0.1:" + port}.ask({"ECHO", "x"}) == "x");

    Connection connection;
    const Io unknown = connect(connection, "redis://no-such-host.invalid", Deadline::after(5s));
    // Where there is no name server it is too late instead.
    CHECK((unknown == Io::failed || unknown == Io::timeout));
    CHECK_THAT(connection.error(), ContainsSubstring("'no-such-host.invalid' was not resolved"));
}

TEST_CASE("A connect that nobody answers ends by its deadline") {
    const auto listen = GENERATE(FaultProxy::Listen::unix_socket, FaultProxy::Listen::tcp);
    FaultProxy proxy{"unix:///nonexistent/redis.sock", listen};
    proxy.set(FaultProxy::Mode::unreachable);
    Connection connection;
    Io opened{};
    const auto took =
        time_of([&] { opened = connect(connection, proxy.url(), Deadline::after(200ms)); });
    CHECK(opened == Io::timeout);
    CHECK_THAT(connection.error(), ContainsSubstring("no connection in time"));
    CHECK_FALSE(connection.is_open());
    CHECK(took >= 200ms);
    CHECK(took < 2s);
}

TEST_CASE("A login that nobody answers ends by its deadline") {
    const auto listen = GENERATE(FaultProxy::Listen::unix_socket, FaultProxy::Listen::tcp);
    FaultProxy proxy{"unix:///nonexistent/redis.sock", listen};
    proxy.set(FaultProxy::Mode::black_hole);
    Connection connection;
    Io opened{};
    const auto took =
        time_of([&] { opened = connect(connection, proxy.url(), Deadline::after(200ms)); });
    CHECK(opened == Io::timeout);
    CHECK_THAT(connection.error(), ContainsSubstring("login"));
    CHECK_FALSE(connection.is_open());
    CHECK(took >= 200ms);
    CHECK(took < 2s);
}

TEST_CASE("Neither a slow drip of bytes nor signals stretch a deadline") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Client client{proxy.url()};
    proxy.drip(1, 20ms);
    Reply reply;
    SECTION("of a reply") {
        const SignalStorm storm;
        client.send({"ECHO", std::string(500, 'x')});
        Io got{};
        const auto took = time_of([&] { got = client.receive(reply, Deadline::after(200ms)); });
        CHECK(got == Io::timeout);
        CHECK(took >= 200ms);
        CHECK(took < 2s);
        CHECK(storm.sent() > 10);
        // The reply is still owed, and comes if one waits for it.
        CHECK(client.is_open());
        CHECK(client.outstanding() == 1);
        proxy.drip(0, 0ms);
        CHECK(client.next() == std::string(500, 'x'));
    }
    SECTION("of a login: it is one for all its replies") {
        proxy.drip(1, 60ms);  // each of the two replies takes 5 times as long
        const SignalStorm storm;
        Connection connection;
        Io opened{};
        const auto took = time_of(
            [&] { opened = connect(connection, proxy.url() + "?db=1", Deadline::after(400ms)); });
        CHECK(opened == Io::timeout);
        CHECK(took >= 400ms);
        CHECK(took < 2s);
    }
}

TEST_CASE("Signals do no harm to what succeeds") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server{RedisServerOptions{.tcp = true}};
    const SignalStorm storm;
    const std::string large(1 << 20, 'x');
    for (int i = 0; i < 20; ++i) {
        Client client{i % 2 == 0 ? server.tcp_url() : server.url()};
        REQUIRE(client.ask({"ECHO", large}) == large);
    }
}

TEST_CASE("A request that the server does not read ends by its deadline") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Client client{proxy.url()};
    proxy.set(FaultProxy::Mode::black_hole);
    client.append({"ECHO", std::string(16 << 20, 'x')});
    Io sent{};
    const auto took = time_of([&] { sent = client.flush(Deadline::after(100ms)); });
    CHECK(sent == Io::timeout);
    CHECK_THAT(client.error(), ContainsSubstring("could not be sent in time"));
    CHECK_FALSE(client.is_open());  // A part of it has gone out.
    CHECK(took >= 100ms);
    CHECK(took < 2s);
}

TEST_CASE("A deadline in the past looks once") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Client client{server.url()};
    client.send({"ECHO", "there already"});
    REQUIRE(support::eventually([&] { return !client.is_ready(); }));
    Reply reply;
    CHECK(client.receive(reply, Deadline::after(-1s)) == Io::done);
    CHECK(reply.text == "there already");
    client.append({"PING"});
    CHECK(client.flush(Deadline::after(-1s)) == Io::done);
    CHECK(client.next() == "PONG");

    // Once, though there be more: a server that never stops sending must not keep us for ever.
    const std::string large(60'000, 'x');
    client.send({"ECHO", large});
    REQUIRE(support::eventually([&] { return !client.is_ready(); }));
    server.command({"PING"});  // By now all of it has been sent.
    CHECK(client.receive(reply, Deadline::after(-1s)) == Io::timeout);
    CHECK(client.outstanding() == 1);
    CHECK(client.next() == large);
}

TEST_CASE("A server that closes is noticed, and its end does not kill by SIGPIPE") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    const auto listen = GENERATE(FaultProxy::Listen::unix_socket, FaultProxy::Listen::tcp);
    FaultProxy proxy{server.url(), listen};
    Client client{proxy.url()};

    SECTION("while a reply is owed") {
        proxy.add(Fault::lose_reply().on("INCR"));
        CHECK(client.ask({"INCR", "n"}) == "[the server closed the connection]");
        CHECK_FALSE(client.is_open());
        CHECK(client.outstanding() == 0);
    }
    SECTION("before the next request") {
        proxy.cut_connections();
        REQUIRE(support::eventually([&] { return !client.is_ready(); }));
        CHECK(client.is_open());
        // TCP takes one write before it knows.
        for (int i = 0; i < 100 && client.is_open(); ++i) {
            client.append({"PING"});
            (void)client.flush(soon());
        }
        CHECK_FALSE(client.is_open());
        CHECK_FALSE(client.error().empty());
    }
    REQUIRE(connect(client, proxy.url()) == Io::done);
    CHECK(client.ask({"ECHO", "again"}) == "again");
}

TEST_CASE("Bytes that are no reply close the connection") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    for (const std::string bytes :
         {"?!\r\n", "HTTP/1.1 400 Bad Request\r\n", "\r\n", ":12x\r\n", ":\r\n", "$abc\r\n",
          "$-2\r\n", "*-2\r\n", "*x\r\n", "$3\r\nabcdef\r\n", "*99999999999999999999\r\n",
          "$99999999999999999999\r\n",
          // RESP3, which was not asked for
          "%1\r\n+a\r\n+b\r\n", "_\r\n", "#t\r\n", ",1.5\r\n", ">2\r\n+a\r\n+b\r\n",
          // deeper than anything that we ask for
          "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"}) {
        CAPTURE(bytes);
        Client client{proxy.url()};
        proxy.add(Fault::reply(bytes).on("PING"));
        const std::string got = client.ask({"PING"});
        CHECK_THAT(got, StartsWith("[protocol error: ") ||
                            Catch::Matchers::Equals("[the server sent more replies than were asked "
                                                    "for]"));
        CHECK_FALSE(client.is_open());
    }
}

TEST_CASE("More replies than were asked for close the connection") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Client client{proxy.url()};

    SECTION("when they come with the last one") {
        for (const char* surplus : {":99\r\n", ":9", "+", "$3\r\nab"}) {
            CAPTURE(surplus);
            REQUIRE(connect(client, proxy.url()) == Io::done);
            proxy.add(Fault::append(surplus).on("ECHO"));
            CHECK(client.ask({"ECHO", "x"}) ==
                  "[the server sent more replies than were asked for]");
            CHECK_FALSE(client.is_open());
        }
    }
    SECTION("when they come later, before the next request") {
        proxy.add(Fault::append(":99\r\n").on("ECHO"));
        proxy.drip(7, 10ms);  // the length of the reply
        CHECK(client.ask({"ECHO", "x"}) == "x");
        CHECK(support::eventually([&] { return !client.is_ready(); }));
    }
    SECTION("but not while others are owed") {
        client.append({"ECHO", "a"});
        client.append({"ECHO", "b"});
        REQUIRE(client.flush(soon()) == Io::done);
        CHECK(client.next() == "a");
        CHECK(client.is_open());
        CHECK(client.next() == "b");
        CHECK(client.is_ready());
    }
}

TEST_CASE("A late reply goes to the request that it belongs to") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Client client{proxy.url()};
    proxy.add(Fault::hold_reply().on("first"));
    client.send({"ECHO", "first"});
    Reply reply;
    CHECK(client.receive(reply, Deadline::after(10ms)) == Io::timeout);
    CHECK(client.outstanding() == 1);
    client.send({"ECHO", "second"});
    CHECK(client.outstanding() == 2);
    proxy.release();
    CHECK(client.next() == "first");
    CHECK(client.next() == "second");
}

TEST_CASE("A size that a server announces is not believed") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    for (const std::string bytes :
         {"$536870911\r\nx", "$2147483647\r\nx", "*1073741823\r\n:1\r\n", "*2147483647\r\n:1\r\n",
          "*2\r\n*1000000000\r\n*1000000000\r\n:1\r\n"}) {
        CAPTURE(bytes);
        Client client{proxy.url()};
        proxy.add(Fault::reply(bytes).on("PING"));
        client.send({"PING"});
        const long before = address_space();
        Reply reply;
        const Io got = client.receive(reply, Deadline::after(30ms));
        const long grown = address_space() - before;
        CHECK((got == Io::timeout || got == Io::failed));
        CAPTURE(grown);
        CHECK(grown < 64 * 1024);
    }
}

TEST_CASE("A reply that is too large in fact closes the connection") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Client client{server.url()};
    server.command({"SETRANGE", "large", std::to_string((20 << 20) - 1), "x"});
    CHECK(client.ask({"STRLEN", "large"}) == std::to_string(20 << 20));
    CHECK_THAT(client.ask({"GET", "large"}), StartsWith("[protocol error: a reply of more than"));
    CHECK_FALSE(client.is_open());
}

TEST_CASE("A tick is called now and then, and can stop the wait") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    const Endpoint endpoint = Endpoint::parse(proxy.url());
    int calls = 0;
    const auto three_times = [&] { return ++calls < 3; };

    SECTION("while a reply is owed, which may still come") {
        Client client{proxy.url()};
        proxy.add(Fault::hold_reply().on("ECHO"));
        client.send({"ECHO", "late"});
        Reply reply;
        const auto took = time_of(
            [&] { CHECK(client.receive(reply, Deadline::never(), three_times) == Io::stopped); });
        CHECK(calls == 3);
        CHECK(took >= 2 * detail::tick_interval);
        CHECK(client.outstanding() == 1);
        proxy.release();
        CHECK(client.next() == "late");
    }
    SECTION("without making it last longer than the deadline") {
        Client client{proxy.url()};
        proxy.add(Fault::hold_reply().on("ECHO"));
        client.send({"ECHO", "late"});
        Reply reply;
        const auto took = time_of([&] {
            const auto go_on = [&] { return ++calls > 0; };
            CHECK(client.receive(reply, Deadline::after(100ms), go_on) == Io::timeout);
        });
        CHECK(took >= 100ms);
        CHECK(took < 2s);
        CHECK(calls >= 1);
        CHECK(calls <= 11);
    }
    SECTION("while connecting") {
        proxy.set(FaultProxy::Mode::unreachable);
        Connection connection;
        CHECK(connection.open(endpoint, {}, Deadline::never(), three_times) == Io::stopped);
        CHECK(calls == 3);
        CHECK_FALSE(connection.is_open());
    }
    SECTION("while logging in") {
        proxy.set(FaultProxy::Mode::black_hole);
        Connection connection;
        CHECK(connection.open(endpoint, {}, Deadline::never(), three_times) == Io::stopped);
        CHECK(calls == 3);
        CHECK_FALSE(connection.is_open());
    }
    SECTION("while sending, which closes the connection") {
        Client client{proxy.url()};
        proxy.set(FaultProxy::Mode::black_hole);
        client.append({"ECHO", std::string(16 << 20, 'x')});
        CHECK(client.flush(Deadline::never(), three_times) == Io::stopped);
        CHECK(calls == 3);
        CHECK_FALSE(client.is_open());
    }
}
