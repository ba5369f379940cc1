// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/redis/batch_scripts.hpp>
#include <codomyrmex/concurrency/redis/request_queue.hpp>

#include "support/catch2.hpp"
#include "support/replies.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using test_support::replies::error;
using test_support::replies::status;
using test_support::replies::text;
using Outcome = Exchange::Outcome;

constexpr BootTime boot{1h};
constexpr Deadline::time_point steady{2h};

RequestPtr request(std::string bytes, bool repeat = false) {
    auto made = std::make_shared<Request>();
    made->command = std::move(bytes);
    made->repeat = repeat;
    return made;
}

/// Whom `reply` answers; null if it is no answer, or nobody is interested in it any more.
RequestPtr answer(RequestQueue& queue, Reply reply) {
    std::vector<RequestPtr> answered;
    if (!queue.answer(std::move(reply), answered)) return nullptr;
    REQUIRE(answered.size() <= 1);
    if (answered.empty()) return nullptr;
    CHECK(answered.front()->finished);
    return answered.front();
}

/// What is sent when `queue` is asked for all that is unsent.
std::string take(RequestQueue& queue, BootTime now = boot, std::uint64_t connection = 1) {
    std::string output;
    queue.take(output, now, steady, connection);
    return output;
}

}  // namespace

TEST_CASE("An empty queue has nothing to send and nobody to answer") {
    RequestQueue queue{10};
    CHECK(queue.size() == 0);
    CHECK(take(queue) == "");
    CHECK(answer(queue, status("OK")) == nullptr);
    CHECK(queue.first_waiting() == nullptr);
    CHECK(queue.disconnect("why").empty());
    CHECK(queue.not_connected("why").empty());
}

TEST_CASE("Requests are sent in their order, and replies belong to them in that order") {
    RequestQueue queue{10};
    const auto a = request("a");
    const auto b = request("b");
    const auto c = request("c");
    REQUIRE(queue.add(a));
    REQUIRE(queue.add(b));
    CHECK(queue.unsent() == 2);
    CHECK(queue.unanswered() == 0);
    CHECK(take(queue, boot, 7) == "ab");
    CHECK(queue.unsent() == 0);
    CHECK(queue.unanswered() == 2);
    REQUIRE(queue.add(c));
    CHECK(queue.size() == 3);
    CHECK(take(queue, boot + 1s, 7) == "c");

    CHECK(answer(queue, status("1")) == a);
    CHECK(answer(queue, status("2")) == b);
    CHECK(answer(queue, status("3")) == c);
    CHECK(answer(queue, status("4")) == nullptr);
    CHECK(queue.size() == 0);
    for (const auto& [each, reply] : {std::pair{a, "1"}, std::pair{b, "2"}, std::pair{c, "3"}}) {
        CHECK(each->exchange.outcome == Outcome::answered);
        CHECK(each->exchange.reply.text == reply);
        CHECK(each->exchange.connection == 7);
        CHECK_FALSE(each->exchange.repeated);
    }
    CHECK(a->exchange.sent == boot);
    CHECK(c->exchange.sent == boot + 1s);
}

TEST_CASE("What is sent is appended to what is to be sent already") {
    RequestQueue queue{10};
    REQUIRE(queue.add(request("b")));
    std::string output = "a";
    queue.take(output, boot, steady, 1);
    CHECK(output == "ab");
}

TEST_CASE("The oldest that is unanswered is known by when it was sent") {
    RequestQueue queue{10};
    REQUIRE(queue.add(request("a")));
    std::string output;
    queue.take(output, boot, steady, 1);
    REQUIRE(queue.add(request("b")));
    queue.take(output, boot, steady + 1s, 1);
    CHECK(queue.oldest() == steady);
    (void)answer(queue, status("OK"));
    CHECK(queue.oldest() == steady + 1s);
}

TEST_CASE("No more requests are taken than the bound, those under way included") {
    RequestQueue queue{3};
    REQUIRE(queue.add(request("a")));
    (void)take(queue);
    REQUIRE(queue.add(request("b")));
    REQUIRE(queue.add(request("c")));
    const auto surplus = request("d");
    CHECK_FALSE(queue.add(surplus));
    CHECK(queue.size() == 3);
    CHECK(surplus.use_count() == 1);
    (void)answer(queue, status("OK"));
    CHECK(queue.add(surplus));
    CHECK(take(queue) == "bcd");
}

TEST_CASE("A request whose caller gave up keeps its place once it was sent, and drops its reply") {
    RequestQueue queue{10};
    const auto a = request("a");
    const auto b = request("b");
    REQUIRE(queue.add(a));
    REQUIRE(queue.add(b));
    (void)take(queue);
    queue.give_up(a);
    CHECK(queue.unanswered() == 2);
    // The late reply is not b's.
    CHECK(answer(queue, status("late")) == nullptr);
    CHECK(queue.unanswered() == 1);
    CHECK(a->exchange.outcome == Outcome::unknown);
    CHECK(a->exchange.reply.type == Reply::Type::nil);
    CHECK(answer(queue, status("OK")) == b);
    CHECK(b->exchange.reply.text == "OK");
}

TEST_CASE("A request whose caller gave up before it was sent never is") {
    RequestQueue queue{10};
    const auto a = request("a");
    const auto b = request("b");
    REQUIRE(queue.add(a));
    REQUIRE(queue.add(b));
    queue.give_up(a);
    CHECK(queue.unsent() == 1);
    CHECK(a->exchange.outcome == Outcome::not_sent);
    CHECK(take(queue) == "b");
    queue.give_up(a);  // again: it is not there
    CHECK(queue.unanswered() == 1);
}

TEST_CASE("When the connection breaks, what was sent is unknown and what was not stays") {
    RequestQueue queue{10};
    const auto sent = request("a");
    const auto unsent = request("b");
    REQUIRE(queue.add(sent));
    (void)take(queue);
    REQUIRE(queue.add(unsent));
    const auto ended = queue.disconnect("it broke");
    CHECK(ended == std::vector{sent});
    CHECK(sent->exchange.outcome == Outcome::unknown);
    CHECK(sent->exchange.error == "it broke");
    CHECK(queue.unanswered() == 0);
    CHECK(unsent->exchange.outcome == Outcome::not_sent);
    CHECK(unsent->exchange.error.empty());
    CHECK(take(queue, boot, 2) == "b");
    CHECK(answer(queue, status("OK")) == unsent);
    CHECK_FALSE(unsent->exchange.repeated);
}

TEST_CASE("What is to be repeated is sent again, before what comes later, and says so") {
    RequestQueue queue{10};
    const auto a = request("a", true);
    const auto b = request("b");
    const auto c = request("c", true);
    const auto d = request("d");
    for (const auto& each : {a, b, c})
        REQUIRE(queue.add(each));
    (void)take(queue, boot, 1);
    REQUIRE(queue.add(d));
    CHECK(queue.disconnect("it broke") == std::vector{b});
    CHECK(take(queue, boot + 5s, 2) == "acd");
    CHECK(a->exchange.repeated);
    CHECK(c->exchange.repeated);
    CHECK_FALSE(d->exchange.repeated);
    // The answer is of the second copy, and counts from when that went out.
    CHECK(answer(queue, status("OK")) == a);
    CHECK(a->exchange.outcome == Outcome::answered);
    CHECK(a->exchange.sent == boot + 5s);
    CHECK(a->exchange.connection == 2);
}

TEST_CASE("What nobody is interested in any more is not sent again") {
    RequestQueue queue{10};
    const auto a = request("a", true);
    REQUIRE(queue.add(a));
    (void)take(queue);
    queue.give_up(a);
    CHECK(queue.disconnect("it broke").empty());
    CHECK(queue.size() == 0);
    CHECK(a.use_count() == 1);
    CHECK(take(queue) == "");
}

TEST_CASE("Without a connection, what was to be sent for the first time ends as not sent") {
    RequestQueue queue{10};
    const auto once = request("a");
    const auto again = request("b", true);
    const auto late = request("c", true);
    late->deadline = Deadline::after(0ns);
    for (const auto& each : {once, again, late})
        REQUIRE(queue.add(each));
    CHECK(queue.not_connected("refused") == std::vector{once, late});
    CHECK(once->exchange.outcome == Outcome::not_sent);
    CHECK(once->exchange.error == "refused");
    CHECK(late->exchange.error == "refused");
    CHECK(queue.unsent() == 1);
    CHECK(take(queue) == "b");
    CHECK_FALSE(again->exchange.repeated);  // the first that went out
}

TEST_CASE("What was sent once stays unknown though its next connection cannot be had") {
    RequestQueue queue{10};
    const auto a = request("a", true);
    a->deadline = Deadline::after(0ns);
    REQUIRE(queue.add(a));
    (void)take(queue);
    CHECK(queue.disconnect("it broke").empty());
    CHECK(queue.not_connected("refused") == std::vector{a});
    // It may have been executed, so it must not end as surely not executed.
    CHECK(a->exchange.outcome == Outcome::unknown);
}

TEST_CASE("The next to drive is the first whose thread waits, the sent ones first") {
    RequestQueue queue{10};
    const auto called = request("a");
    called->waited_for = false;
    const auto gone = request("b");
    const auto first = request("c");
    const auto second = request("d");
    for (const auto& each : {called, gone, first})
        REQUIRE(queue.add(each));
    (void)take(queue);
    queue.give_up(gone);
    CHECK(queue.first_waiting() == first);
    REQUIRE(queue.add(second));
    CHECK(queue.first_waiting() == first);
    queue.give_up(first);
    CHECK(queue.first_waiting() == second);
    queue.give_up(second);
    CHECK(queue.first_waiting() == nullptr);
    CHECK(queue.size() == 3);
}

// --- Calls of scripts.

namespace {

RequestPtr calling(const Script& script) {
    auto made = std::make_shared<Request>();
    made->command = call_of(script, {"1", "key"});
    return made;
}

/// What is sent of such a request, and another.
std::string sent_of(RequestQueue& queue, const Script& script, std::uint64_t connection) {
    REQUIRE(queue.add(calling(script)));
    REQUIRE(queue.add(request("end")));
    return take(queue, boot, connection);
}

const std::string with_digest = "*4\r\n$7\r\nEVALSHA\r\n$40\r\n" + std::string{renew_script.sha1} +
                                "\r\n$1\r\n1\r\n$3\r\nkey\r\nend";
const std::string with_body = "*4\r\n$4\r\nEVAL\r\n$" + std::to_string(renew_script.body.size()) +
                              "\r\n" + std::string{renew_script.body} +
                              "\r\n$1\r\n1\r\n$3\r\nkey\r\nend";

}  // namespace

TEST_CASE("The first call of a script that goes over a connection brings its body along") {
    RequestQueue queue{100};
    CHECK(sent_of(queue, renew_script, 3) == with_body);
    CHECK(sent_of(queue, renew_script, 3) == with_digest);
    CHECK(sent_of(queue, release_script, 3).find(release_script.body) != std::string::npos);
    CHECK(sent_of(queue, renew_script, 3) == with_digest);
    (void)queue.disconnect("it broke");
    CHECK(sent_of(queue, renew_script, 4) == with_body);
    CHECK(sent_of(queue, renew_script, 4) == with_digest);
}

TEST_CASE("A script that the server forgot goes with its body again, the others do not") {
    RequestQueue queue{100};
    CHECK(sent_of(queue, renew_script, 3) == with_body);
    (void)sent_of(queue, release_script, 3);
    std::vector<RequestPtr> ended;
    for (const char* reply : {"1", "end", "1", "end"})
        REQUIRE(queue.answer(status(reply), ended));
    (void)sent_of(queue, renew_script, 3);
    ended.clear();
    REQUIRE(queue.answer(error("NOSCRIPT No matching script. Please use EVAL."), ended));
    // It is its caller's to ask again.
    REQUIRE(ended.size() == 1);
    CHECK(ended[0]->exchange.reply.is_error());
    CHECK(sent_of(queue, renew_script, 3) == with_body);
    CHECK(sent_of(queue, release_script, 3).find("EVALSHA") != std::string::npos);
}

// --- Several in one call of a script.

namespace {

const JointScript first_of_all{release_all_script, false, 0};
const JointScript behind{acquire_each_script, false, 1};

/// A request that goes together with others of the same `common`: its name is its own argument.
RequestPtr joinable(const std::string& name, const JointScript& script = behind,
                    const std::string& common = "c") {
    auto made = std::make_shared<Request>();
    std::string bytes = "<" + name + ">";
    Parts parts;
    parts.joint = &script;
    parts.own_words = parts.common_words = 1;
    const auto add = [&bytes](std::string_view word) {
        const auto begin = static_cast<std::uint32_t>(bytes.size());
        bytes += word;
        return begin;
    };
    parts.keys = add("k" + name + " ");
    parts.own = add("o" + name + " ");
    parts.common = add(common + " ");
    parts.time = parts.number = add("$2\r\n#" + name + "\r\n");
    made->command = std::move(bytes);
    made->command.parts = parts;
    return made;
}

/// The call for them: of a script that the server knows, or not.
std::string call(const JointScript& joint, bool known, const std::vector<std::string>& names) {
    std::string output;
    const std::string keys = std::to_string(3 * names.size());
    codomyrmex::concurrency::detail::append_count('*', 5 + 4 * names.size(), output);
    codomyrmex::concurrency::detail::append_word(known ? "EVALSHA" : "EVAL", output);
    codomyrmex::concurrency::detail::append_word(known ? joint.script.sha1 : joint.script.body,
                                                 output);
    codomyrmex::concurrency::detail::append_word(keys, output);
    for (const std::string& name : names)
        output += "k" + name + " ";
    output += "$2\r\n#" + names.front() + "\r\nc ";
    for (const std::string& name : names)
        output += "o" + name + " ";
    return output;
}

}  // namespace

TEST_CASE("Requests that are alike go in one call, and each gets its own answer") {
    RequestQueue queue{10};
    const auto a = joinable("a");
    const auto b = joinable("b");
    REQUIRE(queue.add(a));
    REQUIRE(queue.add(b));
    CHECK(take(queue, boot, 7) == call(behind, false, {"a", "b"}));
    CHECK(queue.size() == 2);
    CHECK(queue.unanswered() == 1);
    CHECK(queue.first_waiting() == a);
    std::vector<RequestPtr> answered;
    REQUIRE(queue.answer(text("1 ,0 ,#a"), answered));
    CHECK(answered == std::vector{a, b});
    CHECK(a->exchange.reply.text == "1 #a");
    CHECK(b->exchange.reply.text == "0 #b");
    for (const auto& each : {a, b}) {
        CHECK(each->exchange.outcome == Outcome::answered);
        CHECK(each->exchange.sent == boot);
        CHECK(each->exchange.connection == 7);
    }
    CHECK(queue.size() == 0);
    // The server knows the script from then on, but another one may not.
    for (const auto& each : {joinable("a"), joinable("b"), joinable("d")})
        REQUIRE(queue.add(each));
    CHECK(take(queue, boot, 7) == call(behind, true, {"a", "b", "d"}));
    (void)queue.disconnect("it broke");
    for (const auto& each : {joinable("a"), joinable("b")})
        REQUIRE(queue.add(each));
    CHECK(take(queue, boot, 8) == call(behind, false, {"a", "b"}));
}

TEST_CASE("One alone goes by itself, and so does what has not the rest in common") {
    RequestQueue queue{10};
    for (const auto& each : {joinable("a"), joinable("b", behind, "other")})
        REQUIRE(queue.add(each));
    const std::string output = take(queue);
    CHECK(output.starts_with("<a>"));
    CHECK(output.find("<b>") != output.npos);
    CHECK(queue.unanswered() == 2);
}

TEST_CASE("Locks are given back before others are asked for, and nothing overtakes the rest") {
    RequestQueue queue{20};
    for (const auto& each :
         {joinable("x"), joinable("r", first_of_all), joinable("y"), joinable("s", first_of_all)})
        REQUIRE(queue.add(each));
    // By themselves, for their joint call might be refused.
    CHECK(take(queue) == joinable("r")->command.bytes + joinable("s")->command.bytes +
                             call(behind, false, {"x", "y"}));
    std::vector<RequestPtr> answered;
    for (const char* reply : {"1 #r", "1 #s", "1 ,1 ,#x"})
        REQUIRE(queue.answer(text(reply), answered));
    CHECK(answered.size() == 4);
    for (const auto& each : {joinable("a"), joinable("r", first_of_all), joinable("b"),
                             joinable("s", first_of_all), request("by itself"), joinable("d"),
                             joinable("t", first_of_all), joinable("u", first_of_all)})
        REQUIRE(queue.add(each));
    const std::string d = joinable("d")->command.bytes;
    CHECK(take(queue) == call(first_of_all, false, {"r", "s"}) + call(behind, true, {"a", "b"}) +
                             "by itself" + call(first_of_all, true, {"t", "u"}) + d);
}

TEST_CASE("No more go in one call than the bound") {
    RequestQueue queue{1000};
    for (std::size_t i = 0; i < RequestQueue::most_joint + 2; ++i)
        REQUIRE(queue.add(joinable("x")));
    const std::string output = take(queue);
    CHECK(queue.unanswered() == 2);
    CHECK(output.ends_with(call(behind, true, {"x", "x"})));
}

TEST_CASE("What has no answer in a joint call is asked for by itself, before what comes later") {
    RequestQueue queue{10};
    const auto a = joinable("a");
    const auto b = joinable("b");
    const auto c = joinable("c");
    for (const auto& each : {a, b, c})
        REQUIRE(queue.add(each));
    (void)take(queue, boot, 7);
    REQUIRE(queue.add(request("later")));
    std::vector<RequestPtr> answered;
    REQUIRE(queue.answer(text(",1 ,,#a"), answered));
    CHECK(answered == std::vector{b});
    CHECK(queue.size() == 3);
    CHECK(take(queue, boot + 1s, 7) == a->command.bytes + c->command.bytes + "later");
    CHECK(a->exchange.repeated);
    CHECK(answer(queue, text("1 #a")) == a);
    CHECK(answer(queue, text("1 #c")) == c);
    CHECK(c->exchange.reply.text == "1 #c");
}

TEST_CASE("Who gave up gets no answer of a joint call, and is not asked for again") {
    RequestQueue queue{10};
    const auto a = joinable("a");
    const auto b = joinable("b");
    const auto c = joinable("c");
    for (const auto& each : {a, b, c})
        REQUIRE(queue.add(each));
    (void)take(queue);
    queue.give_up(a);
    queue.give_up(b);
    CHECK(queue.first_waiting() == c);
    std::vector<RequestPtr> answered;
    SECTION("answered") {
        REQUIRE(queue.answer(text("1 ,,1 ,#a"), answered));
        CHECK(queue.unsent() == 0);
    }
    SECTION("refused") {
        REQUIRE(queue.answer(error("ERR no"), answered));
        CHECK(queue.unsent() == 1);
    }
    CHECK(a->exchange.outcome == Outcome::unknown);
    CHECK(a->exchange.reply.type == Reply::Type::nil);
    CHECK(b->exchange.outcome == Outcome::unknown);
}

TEST_CASE("A joint call that is refused is asked again one by one, and then each goes by itself") {
    RequestQueue queue{10};
    const auto a = joinable("a");
    const auto b = joinable("b");
    for (const auto& each : {a, b})
        REQUIRE(queue.add(each));
    (void)take(queue, boot, 7);
    std::vector<RequestPtr> answered;
    const auto joins_on = [&](std::uint64_t connection) {
        REQUIRE(queue.add(joinable("x")));
        REQUIRE(queue.add(joinable("y")));
        (void)take(queue, boot, connection);
        const bool joined = queue.unanswered() == 1;
        (void)queue.disconnect("it broke");
        return joined;
    };
    SECTION("for good") {
        const auto why = GENERATE(as<std::string>{}, "CROSSSLOT Keys in request don't hash",
                                  "NOPERM No permissions", "MOVED 1 127.0.0.1:1");
        REQUIRE(queue.answer(error(why), answered));
        CHECK(take(queue, boot, 7) == a->command.bytes + b->command.bytes);
        CHECK(answer(queue, text("1 #a")) == a);
        CHECK(answer(queue, error(why)) == b);
        CHECK(b->exchange.reply.text == why);
        CHECK_FALSE(joins_on(7));
        CHECK(joins_on(8));
    }
    SECTION("for a while") {
        const auto why =
            GENERATE(as<std::string>{}, "BUSY somebody", "READONLY a replica", "WRONGTYPE of one");
        REQUIRE(queue.answer(error(why), answered));
        CHECK(take(queue, boot, 7) == a->command.bytes + b->command.bytes);
        CHECK(answer(queue, text("1 #a")) == a);
        CHECK(answer(queue, text("1 #b")) == b);
        CHECK(joins_on(7));
    }
    CHECK(answered.empty());
}

TEST_CASE(
    "Of a joint call that was refused nothing was executed, but of a copy before it perhaps") {
    RequestQueue queue{10};
    const auto once = joinable("a");
    const auto again = joinable("b");
    again->repeat = true;
    REQUIRE(queue.add(again));
    (void)take(queue, boot, 7);
    (void)queue.disconnect("it broke");
    REQUIRE(queue.add(once));
    (void)take(queue, boot, 8);
    REQUIRE(queue.unanswered() == 1);
    std::vector<RequestPtr> answered;
    const auto why = GENERATE(as<std::string>{}, "NOSCRIPT No matching script", "OOM no room",
                              "ERR Script killed by user with SCRIPT KILL");
    REQUIRE(queue.answer(error(why), answered));
    (void)take(queue, boot, 8);
    CAPTURE(why);
    CHECK(once->exchange.repeated == why.starts_with("ERR"));
    CHECK(again->exchange.repeated);
}

TEST_CASE("After a joint call of a script that the server forgot, the next has its body") {
    RequestQueue queue{10};
    const auto a = joinable("a");
    const auto b = joinable("b");
    for (const auto& each : {a, b})
        REQUIRE(queue.add(each));
    (void)take(queue, boot, 7);
    std::vector<RequestPtr> answered;
    REQUIRE(queue.answer(error("NOSCRIPT No matching script"), answered));
    CHECK(answered.empty());
    CHECK(take(queue, boot, 7) == a->command.bytes + b->command.bytes);
    for (const auto& each : {joinable("a"), joinable("b")})
        REQUIRE(queue.add(each));
    CHECK(take(queue, boot, 7) == call(behind, false, {"a", "b"}));
}

TEST_CASE("A joint call whose answer is another's, or none, is not answered by it") {
    RequestQueue queue{10};
    const auto once = joinable("a");
    const auto repeated = joinable("b");
    repeated->repeat = true;
    for (const auto& each : {once, repeated})
        REQUIRE(queue.add(each));
    (void)take(queue);
    std::vector<RequestPtr> answered;
    for (const Reply& wrong : {text("1 ,1 ,#b"), text("1 ,#a"), text(""), status("OK")})
        CHECK_FALSE(queue.answer(wrong, answered));
    CHECK(answered.empty());
    CHECK(queue.unanswered() == 1);
    CHECK(queue.disconnect("it broke") == std::vector{once});
    CHECK(once->exchange.outcome == Outcome::unknown);
    CHECK(queue.size() == 1);
    CHECK(take(queue) == repeated->command.bytes);
    CHECK(repeated->exchange.repeated);
}
