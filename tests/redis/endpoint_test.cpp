// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <cstddef>
#include <iterator>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace {

using namespace std::chrono_literals;
using codomyrmex::concurrency::Endpoint;
using codomyrmex::concurrency::LockErrc;
using codomyrmex::concurrency::LockError;
using codomyrmex::concurrency::Secret;
using codomyrmex::concurrency::Transport;

/// What parse() says of a URL that it does not take; empty if it takes it.
std::string refusal(std::string_view url) {
    try {
        (void)Endpoint::parse(url);
        return {};
    } catch (const LockError& error) {
        CHECK(error.code() == LockErrc::invalid_argument);
        return error.what();
    }
}

template <class T>
concept Printable = requires(std::ostream& out, const T& value) { out << value; };

static_assert(!Printable<Secret>);
static_assert(!std::is_convertible_v<Secret, std::string>);
static_assert(!std::is_convertible_v<std::string, Secret>);

}  // namespace

TEST_CASE("A URL that leaves everything out means the local server") {
    for (const char* url : {"redis://", "redis:///", "redis://?", "tcp://", "valkey://127.0.0.1",
                            "REDIS://127.0.0.1:6379", "redis://127.0.0.1:6379/0", "redis://@"}) {
        CAPTURE(url);
        CHECK(Endpoint::parse(url) == Endpoint{});
    }
    const Endpoint endpoint = Endpoint::parse("redis://");
    CHECK(endpoint.transport == Transport::tcp);
    CHECK(endpoint.host == "127.0.0.1");
    CHECK(endpoint.port == 6379);
    CHECK(endpoint.user.empty());
    CHECK(endpoint.password.empty());
    CHECK(endpoint.database == 0);
    CHECK_FALSE(endpoint.client_name.has_value());
    CHECK_FALSE(endpoint.connect_timeout.has_value());
    CHECK_FALSE(endpoint.response_timeout.has_value());
    CHECK_FALSE(endpoint.patience.has_value());
}

TEST_CASE("The scheme chooses the transport") {
    for (const char* scheme : {"redis", "valkey", "tcp"}) {
        CHECK(Endpoint::parse(std::string{scheme} + "://h").transport == Transport::tcp);
    }
    for (const char* scheme : {"rediss", "valkeys", "RedisS"}) {
        CHECK(Endpoint::parse(std::string{scheme} + "://h").transport == Transport::tls);
    }
    for (const char* scheme : {"unix", "redis+unix"}) {
        CHECK(Endpoint::parse(std::string{scheme} + ":///s").transport == Transport::unix_socket);
    }
}

TEST_CASE("Every part of a URL finds its place") {
    const Endpoint endpoint = Endpoint::parse(
        "rediss://alice:s3cret@cache-1.example_x.org:7000/12?client_name=job%2D7&patience=1m&"
        "connect_timeout=250ms&response_timeout=1500us");
    CHECK(endpoint.transport == Transport::tls);
    CHECK(endpoint.user == "alice");
    CHECK(endpoint.password.reveal() == "s3cret");
    CHECK(endpoint.host == "cache-1.example_x.org");
    CHECK(endpoint.port == 7000);
    CHECK(endpoint.path.empty());
    CHECK(endpoint.database == 12);
    CHECK(endpoint.client_name == "job-7");
    CHECK(endpoint.patience == 1min);
    CHECK(endpoint.connect_timeout == 250ms);
    CHECK(endpoint.response_timeout == 1500us);
    CHECK(Endpoint::parse("redis://?patience=2s").patience == 2s);
    CHECK(Endpoint::parse("redis://?patience=3h").patience == 3h);
    CHECK(Endpoint::parse("redis://h?db=4").database == 4);
    CHECK(Endpoint::parse("redis://h/2147483647").database == 2147483647);
    CHECK(Endpoint::parse("redis://h:1").port == 1);
    CHECK(Endpoint::parse("redis://:65535").port == 65535);
    CHECK(Endpoint::parse("redis:///3").database == 3);
}

TEST_CASE("User info without a colon is a password, as for redis-cli") {
    const auto credentials = [](std::string_view info) {
        const Endpoint endpoint = Endpoint::parse("redis://" + std::string{info} + "@h:1");
        CHECK(endpoint.host == "h");
        return std::pair{endpoint.user, endpoint.password.reveal()};
    };
    using Pair = std::pair<std::string, std::string>;
    CHECK(credentials("pw") == Pair{"", "pw"});
    CHECK(credentials(":pw") == Pair{"", "pw"});
    CHECK(credentials("user:pw") == Pair{"user", "pw"});
    CHECK(credentials("user:p:w") == Pair{"user", "p:w"});
    CHECK(credentials("user:") == Pair{"user", ""});
    CHECK(credentials(":") == Pair{"", ""});
    CHECK(credentials("us%3Aer:p%40%2F%25%3f%23w%0D%0A") == Pair{"us:er", "p@/%?#w\r\n"});
    CHECK(credentials("\xC3\xA9:\xC3\xA8") == Pair{"\xC3\xA9", "\xC3\xA8"});
}

TEST_CASE("An IPv6 address stands in brackets, with a zone if need be") {
    CHECK(Endpoint::parse("redis://[::1]").host == "::1");
    CHECK(Endpoint::parse("redis://[::1]").port == 6379);
    CHECK(Endpoint::parse("redis://u:p@[2001:DB8::7]:7000/1").host == "2001:DB8::7");
    CHECK(Endpoint::parse("redis://u:p@[2001:DB8::7]:7000/1").port == 7000);
    CHECK(Endpoint::parse("redis://[::ffff:10.0.0.1]").host == "::ffff:10.0.0.1");
    CHECK(Endpoint::parse("redis://[fe80::1%25eth0]:1").host == "fe80::1%eth0");
    for (const char* host :
         {"[::1", "[]", "[1]", "[::g]", "[::1]x", "[::1]x:1", "[%3a]", "[::1]]", "[::1%eth0]"}) {
        CAPTURE(host);
        CHECK(refusal(std::string{"redis://"} + host).find("host") != std::string::npos);
    }
    CHECK(refusal("redis://::1").find("port") != std::string::npos);
    CHECK(refusal("redis://x[::1]").find("port") != std::string::npos);
}

TEST_CASE("A unix socket has a path, and its database among the options") {
    const Endpoint endpoint = Endpoint::parse("unix://u:p@/run/my%20redis/r.sock?db=3");
    CHECK(endpoint.transport == Transport::unix_socket);
    CHECK(endpoint.path == "/run/my redis/r.sock");
    CHECK(endpoint.host.empty());
    CHECK(endpoint.user == "u");
    CHECK(endpoint.password.reveal() == "p");
    CHECK(endpoint.database == 3);
    CHECK(Endpoint::parse("unix:///r") == Endpoint::parse("redis+unix:///r"));
    CHECK(refusal("unix://run/r.sock").find("host") != std::string::npos);
    CHECK(refusal("unix://").find("path") != std::string::npos);
    CHECK(refusal("unix:///").find("path") != std::string::npos);
    CHECK(refusal("unix:///a%00b").find("path") != std::string::npos);
}

TEST_CASE("What is wrong with a URL is named by its part") {
    const std::pair<std::string_view, std::string_view> cases[] = {
        {"", "scheme"},
        {"localhost", "scheme"},
        {"localhost:6379", "scheme"},
        {"redis:/h", "scheme"},
        {"://h", "scheme"},
        {"http://h", "scheme"},
        {"redis2://h", "scheme"},
        {"redis://h h", "text"},
        {"redis://h\n", "text"},
        {std::string_view{"redis://h\0", 10}, "text"},
        {"redis://h\x7F", "text"},
        {"redis://h#x", "fragment"},
        {"redis://a@b@h", "user info"},
        {"redis://%zz:p@h", "user"},
        {"redis://%00:p@h", "user"},
        {"redis://:p%@h", "password"},
        {"redis://:p%4@h", "password"},
        {"redis://:p%4g@h", "password"},
        {"redis://:p%00@h", "password"},
        {"redis://h!", "host"},
        {"redis://h%41", "host"},
        {"redis://h,i", "host"},
        {"redis://h:", "port"},
        {"redis://h:0", "port"},
        {"redis://h:65536", "port"},
        {"redis://h:99999999999", "port"},
        {"redis://h:-1", "port"},
        {"redis://h:+1", "port"},
        {"redis://h:1x", "port"},
        {"redis://h:x", "port"},
        {"redis://h:1:2", "port"},
        {"redis://h/x", "database"},
        {"redis://h/-1", "database"},
        {"redis://h/1/", "database"},
        {"redis://h//1", "database"},
        {"redis://h/%31", "database"},
        {"redis://h/2147483648", "database"},
        {"redis://h?db=", "database"},
        {"redis://h?db=-1", "database"},
        {"redis://h?db=1&db=1", "database"},
        {"redis://h/1?db=1", "database"},
        {"redis://h?color=red", "options"},
        {"redis://h?DB=1", "options"},
        {"redis://h?db", "options"},
        {"redis://h?=1", "options"},
        {"redis://h?db=1&", "options"},
        {"redis://h?&db=1", "options"},
        {"redis://h?client_name=%", "options"},
        {"redis://h?client_name=%00", "options"},
        {"redis://h?client_name=", "option client_name"},
        {"redis://h?client_name=a%20b", "option client_name"},
        {"redis://h?client_name=\xC3\xA9", "option client_name"},
        {"redis://h?client_name=a&client_name=b", "option client_name"},
        {"redis://h?connect_timeout=1", "option connect_timeout"},
        {"redis://h?connect_timeout=s", "option connect_timeout"},
        {"redis://h?connect_timeout=", "option connect_timeout"},
        {"redis://h?connect_timeout=0s", "option connect_timeout"},
        {"redis://h?connect_timeout=-1s", "option connect_timeout"},
        {"redis://h?connect_timeout=1.5s", "option connect_timeout"},
        {"redis://h?connect_timeout=1S", "option connect_timeout"},
        {"redis://h?connect_timeout=1s%20", "option connect_timeout"},
        {"redis://h?response_timeout=9223372037s", "option response_timeout"},
        {"redis://h?response_timeout=99999999999999999999us", "option response_timeout"},
        {"redis://h?patience=1s&patience=1s", "option patience"},
    };
    for (const auto& [url, part] : cases) {
        const std::string said = refusal(url);
        CAPTURE(std::string{url}, said);
        CHECK(said.starts_with("Redis URL, " + std::string{part} + ": "));
    }
    CHECK(Endpoint::parse("redis://?patience=9223372036s").patience == 9223372036s);
}

TEST_CASE("No message quotes a password, wherever a mistake puts it") {
    for (const char* url :
         {"hunter2", "hunter2://", "redis://:hunter2/@h", "redis://:hunter2?@h",
          "redis://:x?hunter2=1@h", "redis://:hunter2#@h", "redis://:hunter2@@h",
          "redis://:hunter2%@h", "redis://:hunter2 @h", "redis://user:hunter2",
          "redis://:p/hunter2@h", "redis://h?db=hunter2", "redis://h?patience=hunter2",
          "redis://hunter2]", "unix://hunter2/s", "redis://:hunter2@h?x=y"}) {
        CAPTURE(url);
        const std::string said = refusal(url);
        CAPTURE(said);
        CHECK_FALSE(said.empty());
        CHECK(said.find("hunter2") == std::string::npos);
    }
}

TEST_CASE("to_string gives the normal form with the password hidden") {
    const std::pair<std::string_view, std::string_view> cases[] = {
        {"redis://", "redis://127.0.0.1:6379"},
        {"valkey://h/2", "redis://h:6379/2"},
        {"redis://user:pw@host/2", "redis://user:***@host:6379/2"},
        {"valkeys://pw@host:1", "rediss://:***@host:1"},
        {"redis://us%3aer:@host", "redis://us%3Aer:@host:6379"},
        {"redis://[fe80::1%25eth0]:1", "redis://[fe80::1%25eth0]:1"},
        {"redis+unix://:pw@/a%20b/c?db=1", "unix://:***@/a%20b/c?db=1"},
        {"redis://?patience=1s&client_name=a%26b&connect_timeout=2ms&response_timeout=3us",
         "redis://127.0.0.1:6379?client_name=a%26b&connect_timeout=2000us&response_timeout=3us&"
         "patience=1000000us"},
    };
    for (const auto& [url, normal] : cases) {
        CAPTURE(std::string{url});
        CHECK(Endpoint::parse(url).to_string() == normal);
    }
}

TEST_CASE("The normal form of a URL without a password is parsed to an equal endpoint") {
    for (const char* url :
         {"redis://", "rediss://example.org:7000/3", "redis://us%3aer:@host",
          "redis://[fe80::1%25eth0]:1", "unix:///a%20b/%C3%A9/c%25?db=1&client_name=%7E",
          "redis://?patience=1h&connect_timeout=2ms&response_timeout=3us"}) {
        CAPTURE(url);
        const Endpoint endpoint = Endpoint::parse(url);
        CHECK(Endpoint::parse(endpoint.to_string()) == endpoint);
    }
}

TEST_CASE("Endpoints that differ in anything are not equal") {
    const Endpoint endpoint = Endpoint::parse("redis://u:p@h:1/1?client_name=n");
    CHECK(endpoint == Endpoint::parse("redis://u:p@h:1?client_name=n&db=1"));
    for (const char* other : {"rediss://u:p@h:1/1?client_name=n", "redis://v:p@h:1/1?client_name=n",
                              "redis://u:q@h:1/1?client_name=n", "redis://u:p@i:1/1?client_name=n",
                              "redis://u:p@h:2/1?client_name=n", "redis://u:p@h:1/2?client_name=n",
                              "redis://u:p@h:1/1?client_name=m", "redis://u:p@h:1/1",
                              "redis://u:p@h:1/1?client_name=n&patience=1s"}) {
        CAPTURE(other);
        CHECK(endpoint != Endpoint::parse(other));
    }
}

TEST_CASE("A secret copies and moves, and a secret moved from is empty") {
    for (const std::size_t size : {std::size_t{4}, std::size_t{100}}) {
        Secret secret{std::string(size, 'x')};
        const Secret copy{secret};
        CHECK(copy == secret);
        const Secret moved{std::move(secret)};
        CHECK(moved.reveal() == std::string(size, 'x'));
        CHECK(secret.empty());  // NOLINT(bugprone-use-after-move): that is what it promises.
        secret = moved;
        CHECK(secret == moved);
        secret = Secret{"y"};
        CHECK(secret.reveal() == "y");
        CHECK_FALSE(secret == moved);
    }
}

TEST_CASE("Any bytes are either taken or refused as invalid") {
    std::mt19937 random{20240601};
    const std::string_view pieces[] = {
        "redis", "unix", "://", ":", "@", "/",    "?", "&",           "=",    "%",
        "%2",    "%41",  "#",   "[", "]", "::1",  "0", "65536",       "host", "db",
        "1s",    "-",    "\n",  " ", ".", "\xFF", "",  "patience=1s", "%00",  "client_name"};
    std::size_t taken = 0;
    for (int i = 0; i < 20'000; ++i) {
        std::string url = random() % 2 == 0 ? "redis://" : "";
        for (auto n = random() % 8; n > 0; --n)
            url += pieces[random() % std::size(pieces)];
        try {
            (void)Endpoint::parse(url).to_string();
            ++taken;
        } catch (const LockError& error) {
            if (error.code() != LockErrc::invalid_argument) FAIL(url << ": " << error.what());
        }
    }
    INFO(taken << " of 20000 taken");
    CHECK(taken > 100);
    CHECK(taken < 19'900);
}
