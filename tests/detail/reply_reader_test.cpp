// SPDX-License-Identifier: MIT
//
// Tests of reply_reader.hpp: bytes in, replies or a refusal out. No server.

#include <codomyrmex/concurrency/detail/reply_reader.hpp>

#include "support/catch2.hpp"

#include <hiredis/hiredis.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace std::string_view_literals;
using codomyrmex::concurrency::detail::ReplyBuilder;
using codomyrmex::concurrency::detail::ReplyReader;
using codomyrmex::concurrency::redis::Reply;
using Type = Reply::Type;

/// A reply written out, with its structure.
std::string show(const Reply& reply) {
    if (reply.type == Type::string) return "\"" + reply.text + "\"";
    if (reply.type != Type::array) return reply.describe();
    std::string text = "[";
    for (const Reply& element : reply.elements)
        text += show(element) + ",";
    return text + "]";
}

/// What becomes of `bytes`: the first reply, "more" if it is not whole, or "broken".
std::string read(std::string_view bytes) {
    ReplyReader reader;
    reader.feed(bytes.data(), bytes.size());
    std::string broken;
    const std::optional<Reply> reply = reader.next(broken);
    if (reply) return show(*reply);
    return broken.empty() ? "more" : "broken";
}

}  // namespace

TEST_CASE("Every kind of reply is read") {
    CHECK(read("+OK\r\n") == "the status 'OK'");
    CHECK(read("-ERR x\r\n") == "the error 'ERR x'");
    CHECK(read(":-12\r\n") == "the integer -12");
    CHECK(read(":9223372036854775807\r\n") ==
          "the integer " + std::to_string(std::numeric_limits<std::int64_t>::max()));
    CHECK(read("$5\r\na\0\r\nb\r\n"sv) == "\"a\0\r\nb\""sv);
    CHECK(read("$0\r\n\r\n") == "\"\"");
    CHECK(read("$-1\r\n") == "nil");
    CHECK(read("*-1\r\n") == "nil");
    CHECK(read("*0\r\n") == "[]");
    CHECK(read("*3\r\n:1\r\n$1\r\nx\r\n$-1\r\n") == "[the integer 1,\"x\",nil,]");
    CHECK(read("*3\r\n*2\r\n+a\r\n*1\r\n:1\r\n*0\r\n-E\r\n") ==
          "[[the status 'a',[the integer 1,],],[],the error 'E',]");
}

TEST_CASE("A reply may come in any pieces") {
    const std::string_view bytes =
        "*3\r\n$5\r\nhello\r\n*2\r\n:1\r\n+OK\r\n$-1\r\n-ERR x\r\n:7\r\n";
    for (std::size_t piece = 1; piece <= bytes.size(); ++piece) {
        CAPTURE(piece);
        ReplyReader reader;
        std::string seen;
        std::string broken;
        for (std::size_t at = 0; at < bytes.size(); at += piece) {
            const std::string_view part = bytes.substr(at, piece);
            reader.feed(part.data(), part.size());
            while (const auto reply = reader.next(broken))
                seen += show(*reply) + ";";
            REQUIRE(broken.empty());
        }
        CHECK(seen ==
              "[\"hello\",[the integer 1,the status 'OK',],nil,];the error 'ERR x';the integer 7;");
        CHECK_FALSE(reader.has_surplus());
    }
}

TEST_CASE("What is not yet whole waits for more") {
    for (const std::string_view bytes :
         {""sv, "+"sv, "+OK"sv, "+OK\r"sv, "$3\r\nab"sv, "$3\r\nabc\r"sv, "*2\r\n:1\r\n"sv,
          "*1000000\r\n:1\r\n"sv}) {
        CAPTURE(std::string{bytes});
        CHECK(read(bytes) == "more");
    }
}

TEST_CASE("What can never become a reply is refused") {
    for (const std::string_view bytes :
         {"?\r\n"sv, "OK\r\n"sv, "\0\r\n"sv, ":x\r\n"sv, ":1x\r\n"sv, ":99999999999999999999\r\n"sv,
          "$x\r\n"sv, "$-2\r\n"sv, "$99999999999999999999\r\n"sv, "*x\r\n"sv, "*-2\r\n"sv,
          "*99999999999999999999\r\n"sv, "*1\r\n?\r\n"sv,
          // RESP3
          "_\r\n"sv, "#t\r\n"sv, ",1.5\r\n"sv, "%1\r\n+a\r\n+b\r\n"sv, "~1\r\n+a\r\n"sv,
          ">1\r\n+a\r\n"sv, "*1\r\n,1.5\r\n"sv, "=5\r\ntxt:x\r\n"sv, "(123\r\n"sv}) {
        CAPTURE(std::string{bytes});
        CHECK(read(bytes) == "broken");
    }
}

TEST_CASE("Nesting is limited") {
    const auto nested = [](int depth) {
        std::string bytes;
        for (int i = 0; i < depth; ++i)
            bytes += "*1\r\n";
        return bytes + ":1\r\n";
    };
    CHECK(read(nested(5)) == "[[[[[the integer 1,],],],],]");
    CHECK(read(nested(100)) == "broken");
    CHECK(read(nested(100'000)) == "broken");
}

TEST_CASE("Bytes, elements and what a server announces are capped") {
    SECTION("a string that never ends") {
        ReplyReader reader;
        reader.feed("$536000000\r\n", 12);
        std::string broken;
        const std::string part(1 << 20, 'x');
        int parts = 0;
        for (; broken.empty() && parts < 100; ++parts) {
            reader.feed(part.data(), part.size());
            REQUIRE_FALSE(reader.next(broken).has_value());
        }
        CHECK(broken == "a reply of more than 16 MiB");
        CHECK(parts == 16);
    }
    SECTION("a line that never ends") {
        ReplyReader reader;
        std::string broken;
        const std::string part(1 << 20, '+');
        int parts = 0;
        for (; broken.empty() && parts < 100; ++parts) {
            reader.feed(part.data(), part.size());
            REQUIRE_FALSE(reader.next(broken).has_value());
        }
        CHECK(parts == 17);
    }
    SECTION("elements") {
        const auto whole = [](std::size_t count) {
            std::string bytes = "*" + std::to_string(count) + "\r\n";
            bytes.reserve(count * 4 + 20);
            for (std::size_t i = 0; i < count; ++i)
                bytes += ":1\r\n";
            return bytes;
        };
        CHECK(read(whole(ReplyBuilder::most_elements)) != "broken");
        CHECK(read(whole(ReplyBuilder::most_elements + 1)) == "broken");
    }
    SECTION("the cap is of one reply, not of all") {
        ReplyReader reader;
        std::string broken;
        const std::string reply = "$1048576\r\n" + std::string(1 << 20, 'x') + "\r\n";
        for (int i = 0; i < 40; ++i) {
            reader.feed(reply.data(), reply.size());
            const auto got = reader.next(broken);
            REQUIRE(got.has_value());
            REQUIRE(got->text.size() == 1 << 20);
        }
    }
}

TEST_CASE("After a refusal or a reset nothing of the former is left") {
    ReplyReader reader;
    std::string broken;
    reader.feed("*2\r\n$1\r\nx\r\n?", 12);
    CHECK_FALSE(reader.next(broken).has_value());
    CHECK_FALSE(broken.empty());
    reader.reset();
    broken.clear();
    CHECK_FALSE(reader.has_surplus());
    CHECK_FALSE(reader.next(broken).has_value());
    CHECK(broken.empty());
    reader.feed("*2\r\n$1\r\nx\r\n", 11);
    CHECK_FALSE(reader.next(broken).has_value());
    CHECK(broken.empty());
    reader.reset();
    reader.feed(":5\r\n", 4);
    const auto reply = reader.next(broken);
    REQUIRE(reply.has_value());
    CHECK(reply->as_integer() == 5);
}

TEST_CASE("Surplus is what no reply was made of") {
    ReplyReader reader;
    std::string broken;
    CHECK_FALSE(reader.has_surplus());
    reader.feed(":5\r\n:", 5);
    REQUIRE(reader.next(broken).has_value());
    CHECK(reader.has_surplus());
    reader.feed("6\r\n", 3);
    REQUIRE(reader.next(broken).has_value());
    CHECK_FALSE(reader.has_surplus());
}

TEST_CASE("Random bytes never crash the reader") {
    std::mt19937 random{7};
    const std::string_view alphabet = "+-:$*0123456789\r\n\r\n\r\n?x\0_#,%~>"sv;
    for (int round = 0; round < 20'000; ++round) {
        std::string bytes;
        for (std::size_t size = random() % 40; size > 0; --size)
            bytes += alphabet[random() % alphabet.size()];
        ReplyReader reader;
        reader.feed(bytes.data(), bytes.size());
        std::string broken;
        while (const auto reply = reader.next(broken))
            REQUIRE_FALSE(show(*reply).empty());
    }
}
