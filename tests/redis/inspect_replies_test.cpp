// SPDX-License-Identifier: MIT
//
// Tests of inspect_replies.hpp: what is made of answers, of ours and of hostile ones.

#include <codomyrmex/concurrency/redis/inspect_replies.hpp>

#include "support/catch2.hpp"
#include "support/replies.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using namespace std::string_literals;
using test_support::replies::array;
using test_support::replies::number;
using test_support::replies::text;

namespace {

const std::string now = "1700000100000000000";
const std::string token = "00112233445566778899aabbccddeeff-1f";

Reply look_at(const std::string& value, std::int64_t left = 25'000,
              const std::string& fence = "1700000090000000001", std::int64_t waiting = 2) {
    return array({text(now), text(value), number(left), text(fence), number(waiting)});
}

Holder holder_of(const std::string& value) {
    const auto look = read_look(look_at(value), PrimitiveKind::lock);
    REQUIRE(look.has_value());
    REQUIRE(look->holders.size() == 1);
    return look->holders.front();
}

}  // namespace

TEST_CASE("a holder is read whole") {
    const auto look = read_look(
        look_at(token + " db-1.example:4711:4712 nightly backup 1700000090"), PrimitiveKind::lock);
    REQUIRE(look.has_value());
    CHECK(look->held == 1);
    CHECK(look->waiting == 2);
    CHECK(look->capacity == 1);
    CHECK_FALSE(look->foreign);
    const Holder& holder = look->holders.at(0);
    CHECK(holder.token == token);
    CHECK(holder.host == "db-1.example");
    CHECK(holder.pid == 4711);
    CHECK(holder.thread == 4712);
    CHECK(holder.label == "nightly backup");
    CHECK(holder.since == std::chrono::sys_seconds{1700000090s});
    CHECK(holder.age == 10s);
    CHECK(holder.ttl == 25s);
    CHECK(holder.fence == 1700000090000000001U);
    CHECK(holder.weight == 1);
    CHECK_FALSE(holder.retains);
}

TEST_CASE("a free lock has no holder") {
    const auto look = read_look(array({text(now), text(""), number(0), text(""), number(3)}),
                                PrimitiveKind::lock);
    REQUIRE(look.has_value());
    CHECK(look->holders.empty());
    CHECK(look->held == 0);
    CHECK(look->waiting == 3);
    CHECK_FALSE(look->foreign);
}

TEST_CASE("a holder without a label, one that retains, an address with colons") {
    CHECK(holder_of(token + " h:1:2 1700000090").label.empty());
    CHECK(holder_of(token + "r h:1:2 1700000090").retains);
    CHECK(holder_of(token + " fe80::1:1:2 x 1700000090").host == "fe80::1");
}

TEST_CASE("text of strangers is shown as it is and trusted in nothing") {
    struct Row {
        std::string value;
        std::string label;
    };
    for (const Row& row : {
             Row{"someone", ""},
             Row{"someone else", "else"},
             Row{token + " 1700000090", ""},
             Row{token + "  1700000090", ""},
             Row{token + " h:1 1700000090", "h:1"},
             Row{token + " :1:2 1700000090", ":1:2"},
             Row{token + " h:-1:2 1700000090", "h:-1:2"},
             Row{token + " h:1:2x 1700000090", "h:1:2x"},
             Row{token + " h:99999999999999999999:2 1700000090", "h:99999999999999999999:2"},
             Row{token + " \x1b[31m\r\n\0 x"s, "\x1b[31m\r\n\0 x"s},
             Row{token + " h::: 1700000090", "h:::"},
             Row{token + " : 1700000090", ":"},
             Row{token + " :: 1700000090", "::"},
         }) {
        CAPTURE(row.value);
        const Holder holder = holder_of(row.value);
        CHECK(holder.host.empty());
        CHECK(holder.pid == 0);
        CHECK(holder.thread == 0);
        CHECK(holder.label == row.label);
    }
    // A time that cannot be one is no time.
    const Holder late = holder_of(token + " h:1:2 label 9223372036854775807");
    CHECK(late.since == std::chrono::sys_seconds{});
    CHECK(late.label == "label 9223372036854775807");
    // One in the future is none in the past.
    CHECK(holder_of(token + " h:1:2 1800000000").age == 0s);
    CHECK(holder_of(token + " h:1:2 1700000090").token == token);
}

TEST_CASE("a value without a token is foreign") {
    const auto look = read_look(look_at(" x"), PrimitiveKind::lock);
    REQUIRE(look.has_value());
    CHECK(look->foreign);
    CHECK(look->holders.empty());
}

TEST_CASE("times to live are kept within bounds") {
    CHECK(read_look(look_at(token, INT64_MAX), PrimitiveKind::lock)->holders.at(0).ttl <= 24000h);
    CHECK(read_look(look_at(token, -2), PrimitiveKind::lock)->holders.at(0).ttl == 0ms);
    CHECK(read_look(look_at(token, 1, "nonsense"), PrimitiveKind::lock)->holders.at(0).fence == 0);
}

TEST_CASE("what the scripts do not answer is no answer") {
    const auto lock = PrimitiveKind::lock;
    const Reply good = look_at(token);
    for (std::size_t i = 0; i < good.elements.size(); ++i) {
        CAPTURE(i);
        Reply bad = good;
        bad.elements[i] = array({});
        CHECK_FALSE(read_look(bad, lock).has_value());
        bad.elements.erase(bad.elements.begin() + static_cast<std::ptrdiff_t>(i));
        CHECK_FALSE(read_look(bad, lock).has_value());
    }
    CHECK_FALSE(read_look(Reply{}, lock).has_value());
    CHECK_FALSE(read_look(look_at(token, 1, "", -1), lock).has_value());
    Reply no_time = good;
    no_time.elements[0] = text("yesterday");
    CHECK_FALSE(read_look(no_time, lock).has_value());
}

TEST_CASE("many holders are read with their weights") {
    const auto kind = PrimitiveKind::semaphore;
    const Reply reply =
        array({text(now), text("5"), text("1700000090000000001"), number(4), number(7), text(token),
               text("1700000101500000"), text("2 h:1:2 api 1700000040"), text("other"),
               text("1700000102000000"), text("")});
    const auto look = read_look_many(reply, kind);
    REQUIRE(look.has_value());
    CHECK(look->capacity == 5);
    CHECK(look->waiting == 4);
    CHECK(look->held == 7);
    REQUIRE(look->holders.size() == 2);
    CHECK(look->holders[0].weight == 2);
    CHECK(look->holders[0].host == "h");
    CHECK(look->holders[0].label == "api");
    CHECK(look->holders[0].age == 60s);
    CHECK(look->holders[0].ttl == 1500ms);
    CHECK(look->holders[0].kind == kind);
    CHECK(look->holders[1].token == "other");
    CHECK(look->holders[1].weight == 1);
    CHECK(look->holders[1].ttl == 2s);

    for (std::size_t i = 0; i < reply.elements.size(); ++i) {
        CAPTURE(i);
        Reply bad = reply;
        bad.elements[i] = array({});
        CHECK_FALSE(read_look_many(bad, kind).has_value());
        bad.elements.resize(i);
        if (i < 5 || (i - 5) % 3 != 0) CHECK_FALSE(read_look_many(bad, kind).has_value());
    }
    CHECK_FALSE(read_look_many(Reply{}, kind).has_value());
    const auto hostile =
        read_look_many(array({text(now), text("-5"), text(""), number(0), number(1), text(""),
                              text("inf"), text("99999999999999999999 x")}),
                       kind);
    REQUIRE(hostile.has_value());
    CHECK(hostile->capacity == 0);
    CHECK(hostile->holders.at(0).ttl == 0ms);
    CHECK(hostile->holders.at(0).weight == 1);
    CHECK(hostile->holders.at(0).label == "99999999999999999999 x");
}

TEST_CASE("waiters are read in their order") {
    const Reply reply =
        array({text(token + " 1000 33 h:1:2 label of mine"), text("1700000000000001"),
               text("b-2 500 1 g:3:4"), text("1700000000000002")});
    const auto waiters = read_waiters(reply, PrimitiveKind::lock);
    REQUIRE(waiters.has_value());
    REQUIRE(waiters->size() == 2);
    const Waiter& first = waiters->front();
    CHECK(first.token == token);
    CHECK(first.host == "h");
    CHECK(first.pid == 1);
    CHECK(first.thread == 2);
    CHECK(first.label == "label of mine");
    CHECK(first.weight == 1);
    CHECK(first.since.time_since_epoch() == 1700000000000001us);
    CHECK(waiters->back().host == "g");
    CHECK(read_waiters(reply, PrimitiveKind::semaphore)->front().weight == 33);

    const auto strange =
        read_waiters(array({text(""), text("x"), text("a b c"), text("1.5")}), PrimitiveKind::lock);
    REQUIRE(strange.has_value());
    CHECK(strange->at(0).token.empty());
    CHECK(strange->at(1).token == "a");
    CHECK(strange->at(1).label == "b c");
    CHECK(strange->at(1).since.time_since_epoch() == 0us);
    CHECK(read_waiters(array({}), PrimitiveKind::lock)->empty());
    CHECK_FALSE(read_waiters(array({text("a")}), PrimitiveKind::lock).has_value());
    CHECK_FALSE(read_waiters(array({text("a"), number(1)}), PrimitiveKind::lock).has_value());
    CHECK_FALSE(read_waiters(text("a"), PrimitiveKind::lock).has_value());
}

TEST_CASE("a page of a scan is a cursor and keys") {
    const auto page = read_scan(array({text("17"), array({text("a"), text("b\0c"s)})}));
    REQUIRE(page.has_value());
    CHECK(page->cursor == "17");
    CHECK(page->keys == std::vector<std::string>{"a", "b\0c"s});
    CHECK(read_scan(array({text("0"), array({})}))->keys.empty());
    for (const Reply& bad :
         {Reply{}, array({text("0")}), array({text(""), array({})}), array({text("-1"), array({})}),
          array({text(std::string(21, '1')), array({})}), array({text("0"), text("a")}),
          array({text("0"), array({number(1)})}), array({number(0), array({})})}) {
        CHECK_FALSE(read_scan(bad).has_value());
    }
}

TEST_CASE("commands name their keys, and text goes in arguments only") {
    const PrimitiveKeys keys = keys_of("p:", PrimitiveKind::lock, "n");
    CHECK(look_command(keys).bytes.starts_with("*6\r\n$7\r\nEVALSHA\r\n"));
    CHECK(look_command(keys).script == &look_script);
    CHECK(look_many_command(keys, 5, 7).bytes.ends_with("$1\r\n5\r\n$1\r\n7\r\n"));
    CHECK(force_release_command(keys, token, "p:").bytes.ends_with(token + "\r\n$2\r\np:\r\n"));
    const PrimitiveKeys pool = keys_of("p:", PrimitiveKind::semaphore, "n");
    CHECK(force_release_permits_command(pool, token, "p:")
              .bytes.ends_with("$1\r\n4\r\n$9\r\np:sem:{n}\r\n$15\r\np:sem:{n}:fence\r\n"
                               "$15\r\np:sem:{n}:queue\r\n$14\r\np:sem:{n}:meta\r\n$35\r\n" +
                               token + "\r\n$2\r\np:\r\n"));
    CHECK(waiters_command(keys, 0, 9) ==
          "*5\r\n$6\r\nZRANGE\r\n$16\r\np:lock:{n}:queue\r\n$1\r\n0\r\n$1\r\n9\r\n$"
          "10\r\nWITHSCORES\r\n");
    CHECK(scan_command("7", "p:*").starts_with("*6\r\n$4\r\nSCAN\r\n$1\r\n7\r\n$5\r\nMATCH\r\n"));
}
