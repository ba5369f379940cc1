// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/redis/events.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using codomyrmex::concurrency::redis::Events;

static_assert(noexcept(std::declval<Events&>().lost(LostLease{})));
static_assert(noexcept(std::declval<Events&>().error(LockErrc::not_held, std::string{})));

}  // namespace

TEST_CASE("A hook is told what happened") {
    std::vector<LostLease> lost;
    std::vector<std::error_code> codes;
    std::vector<std::string> texts;
    Events events{{.on_lost = [&](const LostLease& lease) { lost.push_back(lease); },
                   .on_error =
                       [&](const std::error_code& code, const std::string& text) {
                           codes.push_back(code);
                           texts.push_back(text);
                       }}};
    events.lost({.name = "job", .fence = 12, .reason = "it ran out"});
    REQUIRE(lost.size() == 1);
    CHECK(lost[0].name == "job");
    CHECK(lost[0].fence == 12);
    CHECK(lost[0].reason == "it ran out");
    CHECK(codes.empty());

    events.error(LockErrc::backend_unavailable, "down");
    REQUIRE(codes.size() == 1);
    CHECK(codes[0] == LockErrc::backend_unavailable);
    CHECK(texts[0] == "down");
    CHECK(lost.size() == 1);

    CHECK(events.leases_lost() == 1);
    CHECK(events.exceptions() == 0);
}

TEST_CASE("Without hooks losses are counted all the same") {
    Events events{{}};
    events.lost({});
    events.lost({});
    events.error(LockErrc::not_held, "x");
    CHECK(events.leases_lost() == 2);
    CHECK(events.exceptions() == 0);
}

TEST_CASE("What a hook throws is swallowed and counted, whatever it is") {
    int calls = 0;
    Events events{{.on_lost =
                       [&](const LostLease&) {
                           if (++calls == 1) throw std::runtime_error{"of the standard"};
                           throw 42;
                       },
                   .on_error = [](const std::error_code& code,
                                  const std::string&) { throw std::system_error{code}; }}};
    events.lost({});
    events.lost({});
    CHECK(calls == 2);
    CHECK(events.leases_lost() == 2);
    CHECK(events.exceptions() == 2);
    events.error(LockErrc::not_held, "x");
    CHECK(events.exceptions() == 3);
}

TEST_CASE("A hook may call back") {
    Events* self = nullptr;
    int errors = 0;
    Events events{
        {.on_lost = [&](const LostLease&) { self->error(LockErrc::lease_lost, "from a hook"); },
         .on_error = [&](const std::error_code&, const std::string&) { ++errors; }}};
    self = &events;
    events.lost({});
    CHECK(errors == 1);
    CHECK(events.exceptions() == 0);
}

TEST_CASE("Losses and exceptions are counted from many threads") {
    Events events{{.on_lost = [](const LostLease&) { throw 1; }}};
    support::run_together(4, [&](int) {
        for (int i = 0; i < 250; ++i)
            events.lost({});
    });
    CHECK(events.leases_lost() == 1000);
    CHECK(events.exceptions() == 1000);
}
