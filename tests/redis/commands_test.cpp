// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/redis/commands.hpp>

#include "support/catch2.hpp"

#include <charconv>
#include <chrono>
#include <cstddef>
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

using Strings = std::vector<std::string>;

/// The words of one command in the server's format; none if it is not exactly one.
Strings decode(std::string_view bytes) {
    const auto number = [&bytes](char mark) -> std::size_t {
        std::size_t value = 0;
        const std::size_t end = bytes.find("\r\n");
        if (bytes.empty() || bytes[0] != mark || end == bytes.npos) return 0;
        std::from_chars(bytes.data() + 1, bytes.data() + end, value);
        bytes.remove_prefix(end + 2);
        return value;
    };
    Strings words;
    const std::size_t count = number('*');
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t size = number('$');
        if (bytes.size() < size + 2 || bytes.substr(size, 2) != "\r\n") return {};
        words.emplace_back(bytes.substr(0, size));
        bytes.remove_prefix(size + 2);
    }
    if (!bytes.empty()) return {};
    return words;
}
Strings decode(const std::string& bytes) {
    return decode(std::string_view{bytes});
}
Strings decode(const Command& command) {
    return decode(command.bytes);
}

Tenure tenure_of(std::string_view name, LeaseOptions options = {.ttl = 30s}) {
    return {std::make_shared<const LockIdentity>(make_identity("p:", name, std::move(options))),
            "abc-1f"};
}

const RequestNumber number{7};

}  // namespace

TEST_CASE("An acquire has its keys, and its arguments in the order that the script reads") {
    const Tenure tenure = tenure_of("job");
    CHECK(decode(acquire_command(tenure, "p:", "host:1:2 label", "1700000000000000000", 33,
                                 "abc-1f 1000 33 host:1:2 label", RequestNumber{0x2a})) ==
          Strings{"EVALSHA", std::string{acquire_script.sha1}, "3", "p:lock:{job}",
                  "p:lock:{job}:fence", "p:lock:{job}:queue", "abc-1f",
                  "abc-1f 1000 33 host:1:2 label", "host:1:2 label", "30000", "33",
                  "p:", "1700000000000000000", "2a"});
}

TEST_CASE("An acquire that does not wait and knows no time says so by empty words") {
    const Tenure tenure = tenure_of("job");
    const Strings words = decode(acquire_command(tenure, "p:", "", "", 1, "", number));
    REQUIRE(words.size() == 14);
    CHECK(words[7] == "");
    CHECK(words[8] == "");
    CHECK(words[10] == "1");
    CHECK(words[12] == "");
}

TEST_CASE("A release has the waiter with it that the tenure stood as") {
    Tenure tenure = tenure_of("job");
    CHECK(decode(release_command(tenure, "p:", number)) ==
          Strings{"EVALSHA", std::string{release_script.sha1}, "3", "p:lock:{job}",
                  "p:lock:{job}:fence", "p:lock:{job}:queue", "abc-1f", "p:", "", "7"});
    tenure.stand_as("abc-1f 1000 1 text");
    const Strings words = decode(release_command(tenure, "p:", number));
    REQUIRE(words.size() == 10);
    CHECK(words[8] == "abc-1f 1000 1 text");
}

TEST_CASE("A renewal is for the full time to live, whatever was granted") {
    Tenure tenure = tenure_of("job");
    Grant grant;
    grant.since = BootTime{1h};
    grant.ttl = 1s;
    REQUIRE(tenure.granted(grant, BootTime{1h}));
    CHECK(decode(renew_command(tenure, "1700000000000000000", number)) ==
          Strings{"EVALSHA", std::string{renew_script.sha1}, "3", "p:lock:{job}",
                  "p:lock:{job}:fence", "p:lock:{job}:queue", "abc-1f", "30000",
                  "1700000000000000000", "7"});
}

TEST_CASE("Several locks are asked for with their keys first, and then a token for each") {
    std::vector<std::shared_ptr<Tenure>> tenures;
    for (const char* name : {"a", "b"}) {
        tenures.push_back(std::make_shared<Tenure>(
            std::make_shared<const LockIdentity>(make_identity("p:", name, {.ttl = 30s})),
            std::string{"abc-"} + name));
    }
    const Strings keys{"6",          "p:lock:{a}",       "p:lock:{a}:fence", "p:lock:{a}:queue",
                       "p:lock:{b}", "p:lock:{b}:fence", "p:lock:{b}:queue"};
    const auto expected = [&](const Script& script, const Strings& rest) {
        Strings words{"EVALSHA", std::string{script.sha1}};
        words.insert(words.end(), keys.begin(), keys.end());
        words.insert(words.end(), rest.begin(), rest.end());
        return words;
    };
    CHECK(decode(acquire_all_command(tenures, "host:1:2", "1700000000000000000", 33, number)) ==
          expected(acquire_all_script,
                   {"30000", "host:1:2", "1700000000000000000", "33", "7", "abc-a", "abc-b"}));
    CHECK(decode(release_all_command(tenures, "p:", number)) ==
          expected(release_all_script, {"7", "p:", "abc-a", "abc-b"}));
    CHECK(decode(renew_all_command(tenures, "1700000000000000000", number)) ==
          expected(renew_all_script, {"30000", "1700000000000000000", "7", "abc-a", "abc-b"}));
}

TEST_CASE("Names may have any bytes, the server's own syntax too") {
    std::string every_byte;
    for (int byte = 0; byte < 256; ++byte)
        every_byte += static_cast<char>(byte);
    const std::string name = GENERATE_COPY(std::string{"a\r\n$1\r\nb"}, every_byte);
    const Tenure tenure = tenure_of(name);
    for (const Command& command :
         {acquire_command(tenure, "p:", every_byte, "", 1, "t 1 1 " + every_byte, number),
          release_command(tenure, "p:", number), renew_command(tenure, "", number)}) {
        const Strings words = decode(command);
        REQUIRE(words.size() > 6);
        CHECK(words[3] == "p:lock:{" + encode_name(name) + "}");
        CHECK(words[4] == words[3] + ":fence");
        CHECK(words[5] == words[3] + ":queue");
    }
}

TEST_CASE("A waiter says for how long it can be made the holder: its own time or a grant's") {
    CHECK(make_waiter(tenure_of("job", {.ttl = 30s}), 1s, 33, "host:1:2 a b") ==
          "abc-1f 1000 33 host:1:2 a b");
    CHECK(make_waiter(tenure_of("job", {.ttl = 500ms}), 1s, 1, "") == "abc-1f 500 1 ");
}

TEST_CASE("Permits are asked for with how many there are, and have a key more") {
    Tenure tenure{std::make_shared<const LockIdentity>(
                      make_permit_identity("p:", "pool", 5, 2, {.ttl = 30s})),
                  "abc-1f"};
    const Strings keys{"4", "p:sem:{pool}", "p:sem:{pool}:fence", "p:sem:{pool}:queue",
                       "p:sem:{pool}:meta"};
    const auto check = [&](const Command& command, const Script& script, const Strings& arguments) {
        Strings expected{"EVALSHA", std::string{script.sha1}};
        expected.insert(expected.end(), keys.begin(), keys.end());
        expected.insert(expected.end(), arguments.begin(), arguments.end());
        CHECK(decode(command) == expected);
    };
    check(acquire_command(tenure, "p:", "host:1:2", "9", 1, "waiter", number),
          acquire_permits_script,
          {"abc-1f", "30000", "host:1:2", "9", "2", "p:", "waiter", "5", "7"});
    check(renew_command(tenure, "9", number), renew_permits_script, {"abc-1f", "30000", "9", "7"});
    check(reweigh_command(tenure, 3, "p:", 12, number), reweigh_script,
          {"abc-1f", "3", "p:", "12", "7"});
    check(resize_command(tenure.identity(), 9, "p:", "8", number), resize_script,
          {"9", "p:", "8", "7"});
    CHECK(make_waiter(tenure, 1s, 1, "text") == "abc-1f 1000 2 text");
    tenure.stand_as("abc-1f 1000 2 text");
    check(release_command(tenure, "p:", number), release_permits_script,
          {"abc-1f", "p:", "abc-1f 1000 2 text", "7"});
}

TEST_CASE("What is asked for and given back at the same time goes in one call of a script each") {
    const std::string a = "abc-1";
    const std::string b = "abc-2";
    const auto tenure = [](const std::string& name, const std::string& token) {
        return Tenure{std::make_shared<const LockIdentity>(make_identity("p:", name, {.ttl = 30s})),
                      token};
    };
    const Tenure first = tenure("a", a);
    const Tenure second = tenure("b", b);
    const auto joint = [](const Command& one, const Command& other) {
        REQUIRE(one.parts.joint != nullptr);
        REQUIRE(one.joins(other));
        std::string output;
        append_joint(output, Call::digest, {&one, &other});
        return decode(std::string_view{output});
    };
    const Strings keys{"6",          "p:lock:{a}",       "p:lock:{a}:fence", "p:lock:{a}:queue",
                       "p:lock:{b}", "p:lock:{b}:fence", "p:lock:{b}:queue"};
    const auto expected = [&](const Script& script, const Strings& rest) {
        Strings words{"EVALSHA", std::string{script.sha1}};
        words.insert(words.end(), keys.begin(), keys.end());
        words.insert(words.end(), rest.begin(), rest.end());
        return words;
    };
    // It is too late for all when it is for the first of them.
    const Command one = acquire_command(first, "p:", "host:1:2", "1700000000000000009", 1,
                                        "abc-1 1000 1 host:1:2", RequestNumber{0x2a});
    const Command two = acquire_command(second, "p:", "host:1:3", "1700000000000000001", 1, "",
                                        RequestNumber{0x2b});
    CHECK(joint(one, two) ==
          expected(acquire_each_script, {"2a", "1700000000000000001", "30000", "1", "p:", a,
                                         "abc-1 1000 1 host:1:2", "host:1:2", b, "", "host:1:3"}));
    CHECK(joint(release_command(first, "p:", RequestNumber{0x2a}),
                release_command(second, "p:", RequestNumber{0x2b})) ==
          expected(release_all_script, {"2a", "p:", a, b}));
}

TEST_CASE("A request goes by itself whose time is unknown, or that gives up a place in the queue") {
    Tenure tenure = tenure_of("job");
    const std::string time = "1700000000000000000";
    CHECK(acquire_command(tenure, "p:", "", time, 1, "", number).parts.joint == &joint_acquire);
    CHECK(acquire_command(tenure, "p:", "", "", 1, "", number).parts.joint == nullptr);
    tenure.stand_as("abc-1f 1000 1 text");
    CHECK(release_command(tenure, "p:", number).parts.joint == nullptr);
    tenure.leave_queue();
    CHECK(release_command(tenure, "p:", number).parts.joint == &joint_release);

    const Tenure permits{std::make_shared<const LockIdentity>(
                             make_permit_identity("p:", "pool", 5, 2, {.ttl = 30s})),
                         "abc-1f"};
    CHECK(acquire_command(permits, "p:", "", time, 1, "", number).parts.joint == nullptr);
    CHECK(release_command(permits, "p:", number).parts.joint == nullptr);
}

TEST_CASE("Only those go in one call that have the rest in common") {
    const std::string time = "1700000000000000000";
    const auto acquire = [&](std::chrono::seconds ttl, std::uint64_t block) {
        return acquire_command(tenure_of("job", {.ttl = ttl}), "p:", "", time, block, "", number);
    };
    CHECK(acquire(30s, 1).joins(acquire(30s, 1)));
    CHECK_FALSE(acquire(30s, 1).joins(acquire(31s, 1)));
    CHECK_FALSE(acquire(30s, 1).joins(acquire(30s, 2)));
    CHECK_FALSE(acquire(30s, 1).joins(release_command(tenure_of("job"), "p:", number)));
}
