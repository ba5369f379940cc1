// SPDX-License-Identifier: MIT
//
// The checker of histories finds what it is there to find: for each check a history that is right
// and the smallest one that is not; what a fault excuses and what it does not; what was recorded
// by a process that was killed; and that ten million operations take under a minute.

#include "faults/checker.hpp"

#include "faults/nemesis.hpp"
#include "faults/plan.hpp"
#include "faults/recorder.hpp"
#include "faults/tally.hpp"
#include "faults/timeline.hpp"
#include "support/catch2.hpp"
#include "support/fenced_register.hpp"
#include "support/process.hpp"
#include "support/temp_dir.hpp"

#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using namespace faults;
using test_support::ExitStatus;
using test_support::FencedRegister;
using test_support::Process;
using test_support::TempDir;

constexpr std::int64_t ms = 1'000'000;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
#else
constexpr bool sanitized = false;
#endif

constexpr Rules rules{
    .lateness = 100ms, .handover = 100ms, .ttl = 500ms, .grant_ttl = 200ms, .arrival = 10ms};

/// A history by hand, on one name. Times are in ms; a client is a process of its own unless said
/// otherwise.
class Story {
  public:
    explicit Story(Kind kind = Kind::lock, std::uint32_t capacity = 1)
        : kind_{kind}, capacity_{capacity} {}

    Story&& call(int client, std::int64_t time, std::int64_t deadline = 0) && {
        return step(client, time, Op::acquire, Step::call, Outcome::none, deadline * ms);
    }
    Story&& acquired(int client, std::int64_t time, std::uint64_t fence, std::int64_t until) && {
        auto&& self =
            std::move(*this).step(client, time, Op::acquire, Step::answer, Outcome::ok, until * ms);
        records_.back().fence = fence;
        records_.back().token = next_token_++;
        return std::move(self);
    }
    Story&& answered(int client, std::int64_t time, Outcome outcome) && {
        return step(client, time, Op::acquire, Step::answer, outcome, 0);
    }
    Story&& checked(int client, std::int64_t time, std::uint64_t fence, std::int64_t until) && {
        auto&& self =
            std::move(*this).step(client, time, Op::check, Step::answer, Outcome::ok, until * ms);
        records_.back().fence = fence;
        return std::move(self);
    }
    Story&& lost(int client, std::int64_t time) && {
        return step(client, time, Op::lost, Step::answer, Outcome::lost, 0);
    }
    /// Call and answer at once.
    Story&& released(int client, std::int64_t time, Outcome outcome = Outcome::ok) && {
        return std::move(*this)
            .step(client, time, Op::release, Step::call, Outcome::none, 0)
            .step(client, time, Op::release, Step::answer, outcome, 0);
    }
    Story&& releasing(int client, std::int64_t time, std::int64_t deadline = 0) && {
        return step(client, time, Op::release, Step::call, Outcome::none, deadline * ms);
    }
    Story&& gave_back(int client, std::int64_t time, Outcome outcome = Outcome::ok) && {
        return step(client, time, Op::release, Step::answer, outcome, 0);
    }
    Story&& wrote(int client, std::int64_t place, std::uint64_t fence, std::uint64_t token) && {
        auto&& self =
            std::move(*this).step(client, 50 + place, Op::write, Step::answer, Outcome::ok, place);
        records_.back().fence = fence;
        records_.back().token = token;
        return std::move(self);
    }
    Story&& happened(Op op, int process, std::int64_t time) && {
        return step(process, time, op, Step::answer, Outcome::ok, 0);
    }

    /// Call, acquired and released, one `apart` ms after the other.
    Story&& turn(int client, std::int64_t time, std::uint64_t fence, std::int64_t apart = 1) && {
        return std::move(*this)
            .call(client, time)
            .acquired(client, time + apart, fence, time + 400)
            .released(client, time + 2 * apart);
    }

    // What the last record, and the last acquisition for token and source, is different in.
    Story&& token(std::uint64_t token) && {
        records_.back().token = token;
        return std::move(*this);
    }
    Story&& source(Source source) && {
        records_.back().source = source;
        return std::move(*this);
    }
    Story&& weight(std::uint32_t weight) && {
        records_.back().weight = weight;
        return std::move(*this);
    }
    Story&& shared() && {
        records_.back().mode = Mode::shared;
        return std::move(*this);
    }
    /// Of one process from here on: 7.
    Story&& in_one_process() && {
        one_process_ = true;
        return std::move(*this);
    }

    [[nodiscard]] Report judge(std::vector<FaultWindow> windows = {},
                               const Rules& by = rules) const {
        Checker checker{by, std::move(windows)};
        for (const Record& record : records_)
            checker.add(record);
        return checker.finish();
    }

    [[nodiscard]] const std::vector<Record>& records() const { return records_; }

  private:
    Story&& step(int client, std::int64_t time, Op op, Step step, Outcome outcome,
                 std::int64_t until) {
        Record record;
        record.time = time * ms;
        record.until = until;
        record.name = 1;
        record.process = one_process_ ? 7 : client;
        record.thread = client;
        record.capacity = capacity_;
        record.kind = kind_;
        record.op = op;
        record.step = step;
        record.outcome = outcome;
        records_.push_back(record);
        return std::move(*this);
    }

    Kind kind_;
    std::uint32_t capacity_;
    bool one_process_ = false;
    std::uint64_t next_token_ = 1;
    std::vector<Record> records_;
};

/// Whether this check, and no other, found `count` violations.
struct Only {
    Check check;
    std::uint64_t count = 1;
    friend bool operator==(const Report& report, const Only& only) {
        return report.of(only.check) == only.count && report.total() == only.count;
    }
};

FaultWindow window(std::int64_t begin, std::int64_t end, Allows allows) {
    return {"a fault", begin * ms, end * ms, allows};
}

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
    const char* const text = std::getenv(variable);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace

TEST_CASE("A history without fault has no violation and its figures are right") {
    const Report report = Story{}
                              .call(1, 10)
                              .acquired(1, 11, 100, 300)
                              .call(2, 12, 200)
                              .call(3, 13, 30)
                              .checked(1, 20, 100, 320)
                              .answered(3, 31, Outcome::refused)
                              .released(1, 40)
                              .acquired(2, 45, 101, 300)
                              .wrote(2, 1, 101, 2)
                              .released(2, 60)
                              .judge();
    CAPTURE(report.to_string());
    CHECK(report.total() == 0);
    CHECK(report.operations == 7);
    CHECK(report.acquired == 2);
    CHECK(report.refused == 1);
    CHECK(report.writes == 1);
    CHECK(report.worst_delay == 5 * ms);
    CHECK(report.worst_wait == 33 * ms);
    CHECK(report.worst_late == 1 * ms);
}

TEST_CASE("An empty history is right") {
    CHECK(Story{}.judge().total() == 0);
}

// --- Overlaps.

TEST_CASE("Two holders of a lock that are valid together are found") {
    auto story =
        Story{}.call(1, 10).acquired(1, 11, 100, 300).call(2, 12).acquired(2, 20, 101, 300);
    SECTION("the first released later") {
        CHECK(std::move(story).released(1, 21).released(2, 22).judge() == Only{Check::overlap});
    }
    SECTION("the first was killed, and its lease had not ended") {
        CHECK(std::move(story).happened(Op::killed, 1, 12).released(2, 22).judge() ==
              Only{Check::overlap});
    }
    SECTION("the first was stopped, and its lease had not ended") {
        CHECK(std::move(story)
                  .happened(Op::stopped, 1, 12)
                  .happened(Op::continued, 1, 30)
                  .released(1, 31)
                  .released(2, 32)
                  .judge() == Only{Check::overlap});
    }
    SECTION("the release of the first was called, but was not answered well") {
        auto other = Story{}.call(1, 10).acquired(1, 11, 100, 300).call(2, 12);
        CHECK(std::move(other)
                  .released(1, 19, Outcome::ok)
                  .acquired(2, 20, 101, 300)
                  .released(2, 22)
                  .judge()
                  .total() == 0);
    }
}

TEST_CASE("An overlap that only a renewal makes is found") {
    CHECK(Story{}
              .call(1, 10)
              .acquired(1, 11, 100, 50)
              .call(2, 12)
              .checked(1, 40, 100, 90)
              .acquired(2, 60, 101, 300)
              .released(2, 61)
              .released(1, 95)
              .judge() == Only{Check::overlap});
}

TEST_CASE("An overlap behind a longer hold is found") {
    CHECK(Story{}
              .call(1, 10)
              .call(2, 10)
              .call(3, 10)
              .acquired(1, 11, 100, 400)
              .acquired(2, 12, 101, 400)
              .released(2, 13)
              .acquired(3, 20, 102, 400)
              .released(3, 21)
              .released(1, 30)
              .judge() == Only{Check::overlap, 2});
}

TEST_CASE("A hold that ended before the next began is no overlap") {
    SECTION("its process died and its lease ran out") {
        const Report report = Story{}
                                  .call(1, 10)
                                  .acquired(1, 11, 100, 90)
                                  .call(2, 12)
                                  .happened(Op::killed, 1, 20)
                                  .acquired(2, 90, 101, 300)
                                  .released(2, 91)
                                  .judge();
        CHECK(report.total() == 0);
        CHECK(report.cut_off == 1);
    }
    SECTION("it was late to give it back, and was told so") {
        const Report report = Story{}
                                  .call(1, 10)
                                  .acquired(1, 11, 100, 90)
                                  .call(2, 12)
                                  .acquired(2, 95, 101, 300)
                                  .released(1, 99, Outcome::lost)
                                  .released(2, 100)
                                  .judge({window(80, 99, {.loss = true})});
        CHECK(report.total() == 0);
        CHECK(report.excused_of(Check::loss) == 1);
    }
    SECTION("it had seen that it was lost") {
        CHECK(Story{}
                  .call(1, 10)
                  .acquired(1, 11, 100, 400)
                  .lost(1, 20)
                  .call(2, 12)
                  .acquired(2, 21, 101, 300)
                  .released(2, 22)
                  .released(1, 23, Outcome::lost)
                  .judge() == Only{Check::loss});
    }
}

TEST_CASE("Holds may seem to overlap by the clock's resolution") {
    const auto story = Story{}
                           .call(1, 10)
                           .acquired(1, 11, 100, 300)
                           .call(2, 12)
                           .acquired(2, 19, 101, 300)
                           .released(1, 20)
                           .released(2, 22);
    Rules coarse = rules;
    coarse.resolution = 1ms;
    CHECK(story.judge({}, coarse).total() == 0);
    CHECK(story.judge() == Only{Check::overlap});
}

TEST_CASE("A semaphore gives out its capacity by weight and no more") {
    auto story = Story{Kind::semaphore, 3}
                     .call(1, 10)
                     .weight(2)
                     .acquired(1, 11, 7, 300)
                     .weight(2)
                     .call(2, 10)
                     .acquired(2, 12, 5, 300)
                     .call(3, 10);
    SECTION("three of three are right, whatever their fences are") {
        CHECK(std::move(story)
                  .released(1, 20)
                  .acquired(3, 21, 5, 300)
                  .released(2, 22)
                  .released(3, 23)
                  .judge()
                  .total() == 0);
    }
    SECTION("four of three are too many") {
        CHECK(std::move(story)
                  .acquired(3, 13, 9, 300)
                  .released(1, 20)
                  .released(2, 22)
                  .released(3, 23)
                  .judge() == Only{Check::overlap});
    }
    SECTION("a weight that does not fit is too much") {
        CHECK(std::move(story)
                  .released(2, 20)
                  .acquired(3, 21, 9, 300)
                  .call(2, 21)
                  .weight(2)
                  .acquired(2, 22, 8, 300)
                  .released(1, 23)
                  .released(2, 24)
                  .released(3, 25)
                  .judge()
                  .of(Check::overlap) == 1);
    }
}

TEST_CASE("Readers are valid together and a writer is valid alone") {
    auto story = Story{Kind::read_write}
                     .call(1, 10)
                     .shared()
                     .acquired(1, 11, 100, 300)
                     .shared()
                     .call(2, 10)
                     .shared()
                     .acquired(2, 12, 100, 300)
                     .shared()
                     .call(3, 13);
    SECTION("the writer came after the readers") {
        CHECK(std::move(story)
                  .released(1, 20)
                  .released(2, 21)
                  .acquired(3, 22, 101, 300)
                  .released(3, 23)
                  .judge()
                  .total() == 0);
    }
    SECTION("a writer beside a reader") {
        CHECK(std::move(story)
                  .released(1, 20)
                  .acquired(3, 21, 101, 300)
                  .released(2, 22)
                  .released(3, 23)
                  .judge() == Only{Check::overlap});
    }
    SECTION("a reader beside a writer") {
        CHECK(std::move(story)
                  .released(1, 20)
                  .released(2, 21)
                  .acquired(3, 22, 101, 300)
                  .call(1, 22)
                  .shared()
                  .acquired(1, 23, 102, 300)
                  .shared()
                  .released(3, 24)
                  .released(1, 25)
                  .judge() == Only{Check::overlap});
    }
    SECTION("a writer whose fence is not above that of a reader before it") {
        CHECK(std::move(story)
                  .released(1, 20)
                  .released(2, 21)
                  .answered(3, 21, Outcome::refused)
                  .call(3, 22)
                  .acquired(3, 23, 100, 300)
                  .released(3, 24)
                  .judge() == Only{Check::fence});
    }
}

// --- Fences and tokens.

TEST_CASE("A later holder with a smaller fence is found, though it asked early") {
    CHECK(Story{}
              .call(1, 10)
              .call(2, 10)
              .acquired(1, 20, 100, 90)
              .released(1, 30)
              .acquired(2, 31, 99, 95)
              .released(2, 40)
              .judge() == Only{Check::order});
}

TEST_CASE("A fence that is not above that of a grant before the call is found") {
    SECTION("though the grant was never valid") {
        CHECK(
            Story{}.call(1, 10).acquired(1, 20, 100, 20).released(1, 30).turn(2, 31, 99).judge() ==
            Only{Check::fence});
    }
    SECTION("though others were granted between") {
        const Report report =
            Story{}.turn(1, 10, 102).turn(2, 20, 103).turn(3, 30, 104).turn(4, 40, 101).judge();
        CHECK(report.of(Check::fence) == 1);
        CHECK(report.of(Check::order) == 1);
    }
}

TEST_CASE("A fence that comes twice and a fence that is none are found") {
    CHECK(Story{}
              .call(1, 10)
              .call(2, 10)
              .acquired(1, 20, 100, 20)
              .released(1, 30)
              .acquired(2, 31, 100, 95)
              .released(2, 40)
              .judge() == Only{Check::fence});
    CHECK(Story{}.turn(1, 10, 0).judge() == Only{Check::fence});
}

TEST_CASE("An owner token that comes twice is found, but for a lease that stays in its process") {
    CHECK(Story{}
              .call(1, 10)
              .acquired(1, 11, 100, 90)
              .token(7)
              .released(1, 12)
              .call(2, 13)
              .acquired(2, 14, 101, 95)
              .token(7)
              .released(2, 15)
              .judge() == Only{Check::token});
    CHECK(Story{}
              .call(1, 10)
              .acquired(1, 11, 100, 90)
              .token(7)
              .released(1, 12)
              .call(2, 13)
              .acquired(2, 14, 101, 95)
              .token(7)
              .source(Source::local)
              .released(2, 15)
              .judge()
              .total() == 0);
}

TEST_CASE("A fenced register that takes an old write is found") {
    CHECK(Story{}.wrote(1, 1, 100, 1).wrote(1, 2, 100, 1).wrote(2, 3, 101, 2).judge().total() == 0);
    CHECK(Story{}.wrote(1, 1, 101, 1).wrote(2, 2, 100, 2).judge() == Only{Check::stale_write});
    SECTION("in the register's order, not in that of the records") {
        CHECK(Story{}.wrote(1, 2, 101, 1).wrote(2, 1, 100, 2).judge().total() == 0);
    }
    SECTION("below the highest, not only below the last") {
        CHECK(Story{}.wrote(1, 1, 105, 1).wrote(2, 2, 103, 2).wrote(3, 3, 104, 3).judge() ==
              Only{Check::stale_write, 2});
    }
    SECTION("with the fence of another holder") {
        CHECK(Story{}.wrote(1, 1, 100, 1).wrote(2, 2, 100, 2).judge() == Only{Check::stale_write});
    }
    SECTION("and no fault excuses it") {
        CHECK(
            Story{}.wrote(1, 1, 101, 1).wrote(2, 2, 100, 2).judge({window(0, 1000, allows_all)}) ==
            Only{Check::stale_write});
    }
}

// --- Waiting.

TEST_CASE("A waiter that is forgotten beside a free lock is found") {
    auto held = Story{}.call(1, 10).acquired(1, 11, 100, 400).call(2, 12).released(1, 20);
    SECTION("it was served late") {
        CHECK(std::move(held).acquired(2, 121, 101, 500).released(2, 130).judge() ==
              Only{Check::forgotten});
    }
    SECTION("it was served in time") {
        CHECK(std::move(held).acquired(2, 120, 101, 500).released(2, 130).judge().total() == 0);
    }
    SECTION("it was never served, and gave up at its deadline") {
        CHECK(Story{}
                  .call(1, 10)
                  .acquired(1, 11, 100, 400)
                  .call(2, 12, 130)
                  .released(1, 20)
                  .answered(2, 130, Outcome::refused)
                  .judge() == Only{Check::forgotten});
    }
    SECTION("nobody had ever held it") {
        CHECK(Story{}.call(1, 10).acquired(1, 111, 100, 400).released(1, 112).judge() ==
              Only{Check::forgotten});
    }
    SECTION("another came and was served while it waited") {
        CHECK(
            std::move(held).turn(3, 121, 101).acquired(2, 124, 102, 500).released(2, 130).judge() ==
            Only{Check::forgotten});
    }
}

TEST_CASE("A waiter beside held permits is forgotten only if there was room for it") {
    auto story = Story{Kind::semaphore, 2}
                     .call(1, 10)
                     .acquired(1, 11, 7, 900)
                     .call(2, 10)
                     .acquired(2, 12, 5, 900)
                     .call(3, 15);
    SECTION("there was room") {
        CHECK(std::move(story)
                  .released(1, 20)
                  .acquired(3, 200, 9, 900)
                  .released(2, 300)
                  .released(3, 301)
                  .judge() == Only{Check::forgotten});
    }
    SECTION("there was none") {
        CHECK(std::move(story)
                  .released(1, 200)
                  .acquired(3, 201, 9, 900)
                  .released(2, 300)
                  .released(3, 301)
                  .judge()
                  .total() == 0);
    }
}

TEST_CASE("A holder that died holds up the others for the time to live of its lease") {
    auto died =
        Story{}.call(1, 10).acquired(1, 11, 100, 100).call(2, 12).happened(Op::killed, 1, 80);
    CHECK(Story{died}.acquired(2, 680, 101, 900).released(2, 690).judge().total() == 0);
    CHECK(Story{died}.acquired(2, 681, 101, 900).released(2, 690).judge() ==
          Only{Check::forgotten});
}

TEST_CASE("A holder that was stopped or lost its lease holds up the others for its time to live") {
    const auto served = [](Story story, std::int64_t time) {
        return std::move(story).acquired(2, time, 101, 2000).released(2, time + 1).judge();
    };
    auto stopped = Story{}
                       .call(1, 10)
                       .acquired(1, 11, 100, 100)
                       .call(2, 12)
                       .happened(Op::stopped, 1, 80)
                       .happened(Op::continued, 1, 1500);
    CHECK(served(stopped, 680).total() == 0);
    CHECK(served(stopped, 681) == Only{Check::forgotten});
    auto unclear = Story{}
                       .call(1, 10)
                       .acquired(1, 11, 100, 400)
                       .call(2, 12)
                       .releasing(1, 20)
                       .gave_back(1, 30, Outcome::unknown);
    CHECK(served(unclear, 630).of(Check::forgotten) == 0);
    CHECK(served(unclear, 631).of(Check::forgotten) == 1);
}

TEST_CASE("A waiter that was stopped or killed holds up the others for a grant's time to live") {
    const Op how = GENERATE(Op::killed, Op::stopped);
    auto story = Story{}
                     .call(1, 10)
                     .acquired(1, 11, 100, 2000)
                     .call(2, 12)
                     .call(3, 13)
                     .happened(how, 2, 500)
                     .checked(1, 590, 100, 2000)
                     .released(1, 600);
    CHECK(Story{story}.acquired(3, 900, 101, 3000).released(3, 950).judge().of(Check::forgotten) ==
          0);
    CHECK(Story{story}.acquired(3, 901, 101, 3000).released(3, 950).judge().of(Check::forgotten) ==
          1);
}

TEST_CASE("Who came later and was served first is found where order is promised") {
    Rules fair = rules;
    fair.overtaken = 0;
    auto story = Story{}.call(1, 10).acquired(1, 11, 100, 400).call(2, 20).call(3, 40);
    SECTION("in order") {
        CHECK(std::move(story)
                  .released(1, 50)
                  .acquired(2, 51, 101, 400)
                  .released(2, 60)
                  .acquired(3, 61, 102, 400)
                  .released(3, 90)
                  .judge({}, fair)
                  .total() == 0);
    }
    auto out_of_order = Story{story}
                            .released(1, 50)
                            .acquired(3, 51, 101, 400)
                            .released(3, 60)
                            .acquired(2, 62, 102, 400)
                            .released(2, 90);
    SECTION("out of order") {
        CHECK(out_of_order.judge({}, fair) == Only{Check::overtaken});
        CHECK(out_of_order.judge({}, fair).worst_overtaken == 1);
    }
    SECTION("out of order, where it is not promised") {
        CHECK(out_of_order.judge().total() == 0);
    }
    SECTION("out of order by no more than is allowed") {
        fair.overtaken = 1;
        CHECK(out_of_order.judge({}, fair).total() == 0);
    }
    SECTION("out of order, too close to tell") {
        fair.arrival = 20ms;
        CHECK(out_of_order.judge({}, fair).total() == 0);
    }
    SECTION("out of order while a fault allows it") {
        const Report report = out_of_order.judge({window(55, 58, {.disorder = true})}, fair);
        CHECK(report.total() == 0);
        CHECK(report.excused_of(Check::overtaken) == 1);
    }
    SECTION("it gave up, having been overtaken") {
        CHECK(Story{}
                  .call(1, 10)
                  .acquired(1, 11, 100, 400)
                  .call(2, 20, 80)
                  .call(3, 40)
                  .released(1, 50)
                  .acquired(3, 51, 101, 400)
                  .answered(2, 80, Outcome::refused)
                  .released(3, 90)
                  .judge({}, fair) == Only{Check::overtaken});
    }
    SECTION("it only tried, so it did not wait") {
        CHECK(Story{}
                  .call(1, 10)
                  .acquired(1, 11, 100, 400)
                  .call(2, 20, 20)
                  .call(3, 40)
                  .released(1, 50)
                  .acquired(3, 51, 101, 400)
                  .answered(2, 80, Outcome::refused)
                  .released(3, 90)
                  .judge({}, fair)
                  .total() == 0);
    }
}

TEST_CASE("Order among the threads of one process is judged by itself") {
    Rules fair = rules;
    fair.overtaken_in_process = 0;
    const auto out_of_order = [](Story story) {
        return std::move(story)
            .call(1, 10)
            .acquired(1, 11, 100, 400)
            .call(2, 20)
            .call(3, 40)
            .released(1, 50)
            .acquired(3, 51, 101, 400)
            .released(3, 60)
            .acquired(2, 62, 102, 400)
            .released(2, 90);
    };
    CHECK(out_of_order(Story{}).judge({}, fair).total() == 0);
    CHECK(out_of_order(Story{}.in_one_process()).judge({}, fair) == Only{Check::overtaken});
}

TEST_CASE("Overtaking is counted for each waiter") {
    std::vector<Turn> turns;
    // The first comes first and is served last; the others come and go in order.
    turns.push_back({0, 1000, 0, true, true});
    for (std::size_t i = 1; i <= 100; ++i) {
        const auto at = static_cast<std::int64_t>(i);
        turns.push_back({at, at + 5, i, i % 2 == 0, true});
    }
    std::vector<std::pair<std::size_t, std::uint64_t>> found;
    count_overtaking(turns, 0, [&](const Turn& turn, std::uint64_t count) {
        found.emplace_back(turn.who, count);
    });
    // Half of them were served.
    CHECK(found == std::vector<std::pair<std::size_t, std::uint64_t>>{{0, 50}});
}

// --- Ends of calls, losses, errors.

TEST_CASE("A call that outlives its deadline is found") {
    auto held = Story{}.call(1, 10).acquired(1, 11, 100, 900).call(2, 20, 30);
    SECTION("by more than a scheduling delay") {
        CHECK(std::move(held).answered(2, 131, Outcome::refused).released(1, 132).judge() ==
              Only{Check::late});
    }
    SECTION("by less") {
        CHECK(std::move(held).answered(2, 130, Outcome::refused).released(1, 132).judge().total() ==
              0);
    }
    SECTION("unless its process was stopped, and whatever else was wrong") {
        const auto late = std::move(held)
                              .happened(Op::stopped, 2, 25)
                              .happened(Op::continued, 2, 500)
                              .answered(2, 501, Outcome::refused)
                              .released(1, 502);
        CHECK(late.judge().total() == 0);
        CHECK(late.judge().excused_of(Check::late) == 1);
    }
    SECTION("and no fault excuses it") {
        CHECK(std::move(held)
                  .answered(2, 131, Outcome::refused)
                  .released(1, 132)
                  .judge({window(0, 1000, allows_all)}) == Only{Check::late});
    }
    SECTION("when it releases") {
        CHECK(Story{}
                  .call(1, 10)
                  .acquired(1, 11, 100, 900)
                  .releasing(1, 20, 30)
                  .gave_back(1, 131)
                  .judge() == Only{Check::late});
    }
}

TEST_CASE("A call that never ends is found") {
    auto held = Story{}.call(1, 10).acquired(1, 11, 100, 900).call(2, 20);
    SECTION("an acquisition") {
        CHECK(std::move(held).released(1, 30).judge() == Only{Check::hung});
    }
    SECTION("a release") {
        CHECK(Story{}.call(1, 10).acquired(1, 11, 100, 900).releasing(1, 20).judge() ==
              Only{Check::hung});
    }
    SECTION("unless its process was killed") {
        const Report report = std::move(held).happened(Op::killed, 2, 25).released(1, 30).judge();
        CHECK(report.total() == 0);
        CHECK(report.cut_off == 1);
    }
    SECTION("and it was forgotten, if it waited beside a free lock") {
        const Report report =
            std::move(held).released(1, 30).turn(3, 200, 101).turn(3, 300, 102).judge();
        CHECK(report.of(Check::hung) == 1);
        CHECK(report.of(Check::forgotten) == 1);
    }
}

TEST_CASE("A lease that is lost without a cause is found") {
    auto story = Story{}.call(1, 10).acquired(1, 11, 100, 900).lost(1, 50);
    SECTION("as the holder saw") {
        CHECK(std::move(story).released(1, 60, Outcome::lost).judge() == Only{Check::loss});
    }
    SECTION("as the release said") {
        CHECK(
            Story{}.call(1, 10).acquired(1, 11, 100, 900).released(1, 60, Outcome::lost).judge() ==
            Only{Check::loss});
    }
    SECTION("unless a fault allows it") {
        CHECK(std::move(story)
                  .released(1, 60, Outcome::lost)
                  .judge({window(40, 45, {.loss = true})})
                  .total() == 0);
    }
    SECTION("unless its process was stopped") {
        CHECK(Story{}
                  .call(1, 10)
                  .acquired(1, 11, 100, 900)
                  .happened(Op::stopped, 1, 20)
                  .happened(Op::continued, 1, 45)
                  .lost(1, 50)
                  .released(1, 60, Outcome::lost)
                  .judge()
                  .total() == 0);
    }
}

TEST_CASE("A lease that is valid again after it was lost is found, whatever the fault") {
    CHECK(Story{}
              .call(1, 10)
              .acquired(1, 11, 100, 900)
              .lost(1, 50)
              .checked(1, 55, 100, 900)
              .released(1, 60, Outcome::lost)
              .judge({window(0, 1000, allows_all)}) == Only{Check::revived});
}

TEST_CASE("An error without a cause is found") {
    SECTION("of an acquisition") {
        const auto story = Story{}.call(1, 10).answered(1, 20, Outcome::failed);
        CHECK(story.judge() == Only{Check::error});
        CHECK(story.judge({window(15, 16, {.error = true})}).total() == 0);
    }
    SECTION("of a release") {
        const auto story =
            Story{}.call(1, 10).acquired(1, 11, 100, 900).released(1, 60, Outcome::unknown);
        CHECK(story.judge() == Only{Check::error});
        CHECK(story.judge({window(15, 61, {.error = true})}).total() == 0);
    }
}

// --- What faults excuse.

TEST_CASE("A call that had little time may fail, and no other") {
    Rules hurried = rules;
    hurried.hurry = 100ms;
    const auto story = [&](std::int64_t deadline) {
        return Story{}.call(1, 10, deadline).answered(1, 100, Outcome::failed).judge({}, hurried);
    };
    CHECK(story(60).total() == 0);
    CHECK(story(60).excused_of(Check::error) == 1);
    CHECK(story(200) == Only{Check::error});
    CHECK(story(0) == Only{Check::error});
    CHECK(story(10).of(Check::error) == 1);  // One that tries.
}

TEST_CASE("A fault excuses an overlap while it lasts and not later") {
    const auto story = Story{}
                           .call(1, 10)
                           .acquired(1, 11, 100, 300)
                           .call(2, 12)
                           .acquired(2, 20, 101, 300)
                           .released(1, 21)
                           .released(2, 22);
    CHECK(story.judge({window(15, 30, {.overlap = true})}).total() == 0);
    CHECK(story.judge({window(15, 30, {.overlap = true})}).excused_of(Check::overlap) == 1);
    CHECK(story.judge({window(0, 19, {.overlap = true})}) == Only{Check::overlap});
    CHECK(story.judge({window(15, 30, {.delay = true, .loss = true})}) == Only{Check::overlap});
}

TEST_CASE("A fault that lets fences go back excuses those on either side, and none after it") {
    const Allows fences{.fence = true};
    const auto story = Story{}.turn(1, 10, 100).turn(2, 40, 50).turn(1, 50, 51);
    CHECK(story.judge({window(20, 30, fences)}).of(Check::fence) == 0);
    CHECK(story.judge({}).of(Check::fence) == 2);
    CHECK(Story{}
              .turn(1, 10, 100)
              .turn(2, 40, 50)
              .turn(1, 50, 49)
              .judge({window(20, 30, fences)})
              .of(Check::fence) == 1);
    // Of one that came while the fault lasted, nothing can be said.
    const Report during = Story{}.turn(1, 10, 100).turn(2, 24, 50).judge({window(20, 30, fences)});
    CHECK(during.total() == 0);
    CHECK(during.excused_of(Check::fence) == 1);
}

TEST_CASE("A fence that its process reserved before the server forgot it may be smaller") {
    // The first's lease is forgotten, another is granted; the first's is handed on at home.
    const auto story = [](Source source, std::int64_t forgot) {
        return Story{}
            .call(1, 10)
            .acquired(1, 11, 100, 400)
            .token(1)
            .released(1, 20)
            .turn(2, 30, 200)
            .call(3, 40)
            .acquired(3, 41, 101, 400)
            .token(1)
            .source(source)
            .released(3, 45)
            .judge({window(forgot, 500, forgets)});
    };
    CHECK(story(Source::local, 25).total() == 0);
    CHECK(story(Source::local, 25).excused_of(Check::fence) == 1);
    // Not of one that asked the server, nor where the server forgot nothing.
    CHECK(story(Source::direct, 25).of(Check::fence) == 1);
    CHECK(story(Source::local, 450).of(Check::fence) == 1);
}

TEST_CASE("The delay of each acquisition is told: its time beside room for it") {
    Checker checker{rules};
    std::vector<std::pair<std::int64_t, std::int64_t>> delays;
    checker.on_delay(
        [&](std::int64_t time, std::int64_t delay) { delays.emplace_back(time / ms, delay / ms); });
    const Story story =
        Story{}.turn(1, 10, 100, 5).call(2, 12).acquired(2, 27, 101, 400).released(2, 30);
    for (const Record& record : story.records())
        checker.add(record);
    CHECK(checker.finish().total() == 0);
    // The first waited for the answer alone; the second from the first's release on.
    CHECK(delays == std::vector<std::pair<std::int64_t, std::int64_t>>{{15, 5}, {27, 7}});
    CHECK(checker.history(1).acquisitions.size() == 2);
}

TEST_CASE("A picture shows those around a violation, and the faults behind them") {
    Checker checker{rules};
    const Story story = Story{}
                            .turn(1, 10, 100)
                            .call(2, 1000)
                            .acquired(2, 1001, 101, 1500)
                            .call(3, 1010)
                            .acquired(3, 1020, 102, 1500)
                            .released(3, 1030)
                            .released(2, 1040);
    for (const Record& record : story.records())
        checker.add(record);
    const Report report = checker.finish();
    REQUIRE(report == Only{Check::overlap});
    const std::string picture =
        draw_timeline(checker.history(1), report.first.front(),
                      {window(900, 1100, trouble), window(1, 2, trouble)}, 200 * ms);
    const auto has = [&](const char* text) { return picture.find(text) != std::string::npos; };
    CHECK(has("<svg xmlns="));
    CHECK(has("valid together: process 2"));
    CHECK(has(">process 2 thread 2</text>"));
    CHECK(has(">process 3 thread 3</text>"));
    CHECK_FALSE(has(">process 1 thread 1</text>"));
    CHECK(escape_xml("a<b>&c") == "a&lt;b&gt;&amp;c");
}

TEST_CASE("What happens belongs to the fault that was struck last") {
    Blame blame{
        {{"late", 200, 300, trouble}, {"early", 100, 150, trouble}, {"late", 400, 1, trouble}}};
    ++blame.at(50).operations;
    ++blame.at(100).operations;
    blame.at(199).worst_delay = 7;
    blame.at(500).operations += 5;
    auto rows = blame.rows();
    CHECK(rows.at(Blame::nothing).operations == 1);
    CHECK(rows.at(Blame::nothing).times == 0);
    CHECK(rows.at("early").operations == 1);
    CHECK(rows.at("early").worst_delay == 7);
    CHECK(rows.at("late").times == 2);
    CHECK(rows.at("late").operations == 5);
    Tally tally;
    tally.rows = rows;
    CHECK(tally.faults() == 3);
    CHECK(tally.table().find("early") != std::string::npos);
}

TEST_CASE("What a worker is started with comes back from its arguments") {
    Plan plan;
    plan.url = "unix:///a=b";
    plan.number = 4'000;
    plan.end = 1'234'567'890'123;
    const Plan back = Plan::from_arguments(plan.to_arguments());
    CHECK(back.url == plan.url);
    CHECK(back.number == plan.number);
    CHECK(back.end == plan.end);
    CHECK(back.to_arguments() == plan.to_arguments());
    CHECK_THROWS(Plan::from_arguments({"seed=many"}));
    CHECK_THROWS(Plan::from_arguments({"colour=red"}));
}

TEST_CASE("A fault excuses a delay while it lasts and no longer") {
    const auto story = Story{}
                           .call(1, 10)
                           .acquired(1, 11, 100, 900)
                           .call(2, 12)
                           .released(1, 20)
                           .acquired(2, 700, 101, 900)
                           .released(2, 710);
    CHECK(story.judge({window(15, 600, {.delay = true})}).total() == 0);
    CHECK(story.judge({window(15, 599, {.delay = true})}) == Only{Check::forgotten});
    CHECK(story.judge({window(15, 300, {.delay = true}), window(250, 620, {.delay = true})})
              .total() == 0);
}

TEST_CASE("Stretches of time join where they meet and leave the rest outside") {
    const Stretches stretches{{{30, 40}, {10, 20}, {15, 25}, {25, 26}, {50, 50}}};
    CHECK(stretches.all() == std::vector<Stretches::Stretch>{{10, 26}, {30, 40}});
    CHECK(stretches.contain(10));
    CHECK_FALSE(stretches.contain(26));
    CHECK(stretches.meet(0, 10));
    CHECK(stretches.meet(26, 30));
    CHECK_FALSE(stretches.meet(26, 29));
    std::vector<Stretches::Stretch> rest;
    stretches.outside(5, 35, [&](auto begin, auto end) { rest.emplace_back(begin, end); });
    CHECK(rest == std::vector<Stretches::Stretch>{{5, 10}, {26, 30}});
}

// --- What cannot be.

TEST_CASE("Records that make no sense are found") {
    CHECK(Story{}.acquired(1, 20, 100, 90).judge() == Only{Check::malformed});
    CHECK(Story{}.call(1, 10).call(1, 11).answered(1, 12, Outcome::refused).judge() ==
          Only{Check::malformed});
    CHECK(Story{}.call(1, 10).released(1, 11).answered(1, 12, Outcome::refused).judge() ==
          Only{Check::malformed, 2});
    CHECK(Story{}.turn(1, 10, 1).turn(1, 5, 2).judge().of(Check::malformed) == 1);
    CHECK(
        Story{}.call(1, 10).acquired(1, 20, 1, 90).checked(1, 21, 2, 90).released(1, 22).judge() ==
        Only{Check::malformed});
    CHECK(Story{}.wrote(1, 1, 100, 1).wrote(2, 1, 101, 2).judge() == Only{Check::malformed});
    CHECK(Story{}.wrote(1, 0, 100, 1).judge() == Only{Check::malformed});
}

TEST_CASE("Two capacities of one semaphore are found") {
    Checker checker{rules};
    Record record;
    record.kind = Kind::semaphore;
    record.capacity = 3;
    record.time = 1;
    record.until = 1;
    checker.add(record);
    record.process = 2;
    record.capacity = 4;
    checker.add(record);
    CHECK(checker.finish().of(Check::malformed) == 1);
}

TEST_CASE("Names are judged apart from each other") {
    Checker checker{rules};
    for (std::uint32_t name = 1; name <= 2; ++name) {
        Record record;
        record.name = name;
        record.process = static_cast<std::int32_t>(name);
        record.time = 1;
        checker.add(record);
        record.step = Step::answer;
        record.outcome = Outcome::ok;
        record.fence = 100;
        record.until = 10;
        checker.add(record);
    }
    CHECK(checker.finish().total() == 0);
}

TEST_CASE("Of many violations all are counted and the first few are told") {
    Story story;
    for (int i = 0; i < 50; ++i)
        story = Story{story}.turn(i, 10 + 10 * i, 0);
    const Report report = story.judge();
    CHECK(report.of(Check::fence) > 50);
    CHECK(report.first.size() <= 2 * Report::most_of_each);
    CHECK_THAT(report.to_string(), Catch::Matchers::ContainsSubstring("no fence"));
}

// --- The recorder.

namespace {

struct FakeLease {
    std::uint64_t number = 0;
    std::string text{};
    std::chrono::nanoseconds left{0};

    [[nodiscard]] std::chrono::nanoseconds remaining() const { return left; }
    [[nodiscard]] std::uint64_t fence() const { return number; }
    [[nodiscard]] const std::string& token() const { return text; }
};

}  // namespace

TEST_CASE("What a process recorded survives its death by kill -9 and is judged") {
    const TempDir dir;
    const Target target{.name = 5};
    Process worker = Process::run([&] {
        Recorder recorder{dir.file("history"), 1, 0};
        FencedRegister resource{dir.file("register")};
        recorder.server("some run id");
        recorder.call(target, Op::acquire, -1ns);
        const FakeLease lease{100, "a", 10s};
        recorder.acquired(target, lease, Source::grant);
        const bool taken = resource.write(lease.fence(), 1);
        recorder.wrote(target, lease, taken ? Outcome::ok : Outcome::refused, resource.place());
        ::kill(::getpid(), SIGKILL);
        return 0;
    });
    CHECK(worker.wait() == ExitStatus{-1, SIGKILL});
    Recorder recorder{dir.file("history"), 2, 0};
    recorder.process(Op::killed, 1);
    recorder.call(target, Op::acquire, 1s);
    const FakeLease lease{101, "b", 10s};
    recorder.acquired(target, lease);
    recorder.checked(target, lease);
    recorder.call(target, Op::release, 1s);
    recorder.answered(target, Op::release, Outcome::ok);

    Checker checker{rules};
    std::vector<Record> records;
    for_each_record(dir.file("history"), [&](const Record& record) {
        records.push_back(record);
        checker.add(record);
    });
    REQUIRE(records.size() == 9);
    CHECK(records[0].until == 0);
    CHECK(records[1].source == Source::grant);
    CHECK(records[1].server != 0);
    CHECK(records[1].until - records[1].time == 10'000'000'000);
    CHECK(records[2].until == 1);
    CHECK(records[4].until - records[4].time == 1'000'000'000);
    const Report report = checker.finish();
    CAPTURE(report.to_string());
    CHECK(report == Only{Check::overlap});
    CHECK(report.cut_off == 1);
    CHECK(report.writes == 1);
}

TEST_CASE("A lease without time left is recorded as lost") {
    const TempDir dir;
    {
        Recorder recorder{dir.file("history"), 1, 0};
        recorder.checked({}, FakeLease{100, "a", 0s});
        recorder.lost({});
    }
    std::vector<Op> ops;
    for_each_record(dir.file("history"), [&](const Record& record) { ops.push_back(record.op); });
    CHECK(ops == std::vector<Op>{Op::lost, Op::lost});
}

TEST_CASE("A file of many records is read whole, and a torn end is left out") {
    const TempDir dir;
    {
        Recorder recorder{dir.file("history"), 1, 0};
        for (int i = 0; i < 40'000; ++i)
            recorder.lost({.name = static_cast<std::uint32_t>(i)});
    }
    std::filesystem::resize_file(dir.file("history"), 40'000 * sizeof(Record) - 1);
    std::uint32_t next = 0;
    bool in_order = true;
    for_each_record(dir.file("history"),
                    [&](const Record& record) { in_order = in_order && record.name == next++; });
    CHECK(in_order);
    CHECK(next == 39'999);
}

// --- Speed.

TEST_CASE("Operations are checked at the rate of ten million in a minute") {
    // Eight names, 64 processes; each operation is an acquisition, a check or a release.
    const auto operations = number_from("CODOMYRMEX_CHECKER_OPERATIONS", 600'000);
    Rules fair = rules;
    fair.overtaken = 0;
    fair.overtaken_in_process = 0;
    const auto start = std::chrono::steady_clock::now();
    Checker checker{fair, {window(1, 2, allows_all)}};
    struct Name {
        std::int64_t time = 1'000'000;
        std::uint64_t fence = 1;
        std::int32_t process = 0;
    };
    std::array<Name, 8> names{};
    for (std::uint64_t done = 0, turn = 0; done < operations; done += 3, ++turn) {
        const auto index = turn % names.size();
        Name& name = names[index];
        Record record;
        record.name = static_cast<std::uint32_t>(index);
        record.process = name.process = (name.process + 1) % 64;
        record.token = turn + 1;
        // It called while the eight before it held.
        record.time = name.time - 8 * 5'000;
        checker.add(record);
        record.step = Step::answer;
        record.outcome = Outcome::ok;
        record.fence = name.fence++;
        record.time = name.time;
        record.until = record.time + 10'000'000;
        checker.add(record);
        record.op = Op::check;
        record.time += 1'000;
        checker.add(record);
        record.op = Op::release;
        record.step = Step::call;
        record.until = 0;
        record.time += 1'000;
        checker.add(record);
        record.step = Step::answer;
        record.time += 1'000;
        checker.add(record);
        name.time += 5'000;
    }
    const Report report = checker.finish();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::cout << "checked " << report.operations << " operations in " << took.count() << " s, "
              << static_cast<double>(report.operations) / took.count() / 1e6
              << " million a second\n";
    CAPTURE(report.to_string());
    CHECK(report.total() == 0);
    CHECK(report.operations >= operations);
    if (sanitized) return;  // Many times slower, and no matter.
    CHECK(took.count() * 10e6 / static_cast<double>(report.operations) < 60);
}
