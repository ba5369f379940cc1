// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/redis/reply.hpp>

#include "support/catch2.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace {

using codomyrmex::concurrency::redis::Reply;
using Type = Reply::Type;

Reply text(Type type, std::string bytes) {
    Reply reply;
    reply.type = type;
    reply.text = std::move(bytes);
    return reply;
}

Reply integer(std::int64_t value) {
    Reply reply;
    reply.type = Type::integer;
    reply.integer = value;
    return reply;
}

Reply array(std::size_t size) {
    Reply reply;
    reply.type = Type::array;
    reply.elements.resize(size);
    return reply;
}

}  // namespace

TEST_CASE("A fresh reply is nil") {
    CHECK(Reply{}.type == Type::nil);
    CHECK_FALSE(Reply{}.is_error());
    CHECK_FALSE(Reply{}.as_integer().has_value());
    CHECK_FALSE(Reply{}.as_text().has_value());
}

TEST_CASE("Only an integer is taken for an integer") {
    CHECK(integer(-5).as_integer() == -5);
    CHECK(integer(0).as_integer() == 0);
    for (const Reply& other : {text(Type::string, "1"), text(Type::status, "1"),
                               text(Type::error, "1"), array(1), Reply{}}) {
        CAPTURE(other.describe());
        CHECK_FALSE(other.as_integer().has_value());
    }
}

TEST_CASE("Only a string or a status is taken for text, with all its bytes") {
    const std::string bytes{"a\0\r\n", 4};
    CHECK(text(Type::string, bytes).as_text() == std::string_view{bytes});
    CHECK(text(Type::status, "OK").as_text() == "OK");
    CHECK(text(Type::string, "").as_text() == "");
    for (const Reply& other : {text(Type::error, "ERR x"), integer(1), array(1), Reply{}}) {
        CAPTURE(other.describe());
        CHECK_FALSE(other.as_text().has_value());
    }
}

TEST_CASE("Only an error is an error") {
    CHECK(text(Type::error, "ERR x").is_error());
    for (const Reply& other :
         {text(Type::string, "ERR x"), text(Type::status, "ERR x"), integer(1), array(1)}) {
        CHECK_FALSE(other.is_error());
    }
}

TEST_CASE("A reply describes itself, without the bytes of a string") {
    CHECK(Reply{}.describe() == "nil");
    CHECK(text(Type::status, "OK").describe() == "the status 'OK'");
    CHECK(text(Type::error, "LOADING x").describe() == "the error 'LOADING x'");
    CHECK(integer(-12).describe() == "the integer -12");
    CHECK(text(Type::string, "secret").describe() == "a string of 6 bytes");
    CHECK(array(3).describe() == "an array of 3");
}
