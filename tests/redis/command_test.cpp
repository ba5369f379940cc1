// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/redis/command.hpp>

#include "support/catch2.hpp"
#include "support/replies.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace codomyrmex::concurrency::redis;
using test_support::replies::text;

}  // namespace

TEST_CASE("A reply is that of a request if it ends with the request's number") {
    const RequestNumber mine{0xabc};
    CHECK(mine.text() == "abc");
    const RequestNumber copy = mine;
    CHECK(copy.text() == "abc");

    Reply reply = text("1 2 abc");
    REQUIRE(mine.take_from(reply));
    CHECK(reply.text == "1 2");
    CHECK_FALSE(mine.take_from(reply));

    Reply echo = text("abc");
    CHECK(mine.take_from(echo));
    CHECK(echo.text.empty());
    Reply status = text("1 abc");
    status.type = Reply::Type::status;
    Reply error = text("ERR abc");
    error.type = Reply::Type::error;
    for (Reply none : {text("1 abd"), text("1 2abc"), text("abc 1"), text("ab"), text(""), status,
                       error, Reply{}}) {
        CAPTURE(none.text);
        const std::string before = none.text;
        CHECK_FALSE(mine.take_from(none));
        CHECK(none.text == before);
    }
}

TEST_CASE("The answer of a joint call has a text for each, and ends with the call's number") {
    using Texts = std::vector<std::string_view>;
    const Reply three = text("1 2 ,,0 ,2a");
    CHECK(split_joint(three, 3, "2a") == Texts{"1 2 ", "", "0 "});
    const Reply one = text(",2a");
    CHECK(split_joint(one, 1, "2a") == Texts{""});
    Reply status = three;
    status.type = Reply::Type::status;
    Reply error = three;
    error.type = Reply::Type::error;
    for (const Reply& none :
         {text(""), text("2a"), text("1 ,2 ,2a"), text("1 ,2 ,3 ,4 ,2a"), text("1 ,2 ,3 ,2b"),
          text("1 ,2 ,3 ,2"), text("1 ,2 ,3 ,12a"), text("1 ,2 ,3 , 2a"), status, error, Reply{}}) {
        CAPTURE(none.text);
        CHECK(split_joint(none, 3, "2a").empty());
    }
}
