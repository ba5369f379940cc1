// SPDX-License-Identifier: MIT
//
// What chance would seldom hit: each scenario brings one known way to break a lease about, step by
// step, with workers that do as they are told and a proxy that holds back what it is asked to. A
// library that is right comes through unharmed; what it did is recorded and checked as all else.
// Under load a scenario may not come about; it then proves nothing, and is not counted.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_SCENARIOS_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_SCENARIOS_HPP

#include <codomyrmex/concurrency/redis/scripts.hpp>

#include "faults/crew.hpp"
#include "faults/nemesis.hpp"
#include "faults/recorder.hpp"
#include "faults/tally.hpp"
#include "support/fault_proxy.hpp"
#include "support/redis_server.hpp"
#include "support/temp_dir.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace faults {

/// What a scenario has to work with: a server, a proxy before it, and workers.
class Stage {
  public:
    Stage(std::string program, test_support::RedisServer& server, const std::string& history,
          const std::string& folder, std::uint32_t name, std::int32_t& next_number)
        : program_{std::move(program)},
          server_{server},
          history_{history},
          folder_{folder},
          name_{name},
          next_number_{next_number},
          recorder_{history, -1, 0} {}

    /// A worker that obeys; its connections go through the proxy, or past it.
    [[nodiscard]] WorkerProcess worker(bool through_proxy, std::int64_t response_ms = 2'000,
                                       int hands = 1) {
        next_number_ += numbers_of_a_worker;
        Plan plan;
        plan.url = through_proxy ? proxy_.url() : server_.url();
        plan.history = history_;
        plan.folder = folder_;
        plan.commands = folder_ + "/commands-" + std::to_string(next_number_);
        plan.number = next_number_;
        plan.threads = hands;
        plan.grant_ttl_ms = 400;
        plan.response_ms = response_ms;
        plan.patience_ms = 3'000;
        return WorkerProcess{program_, plan};
    }

    [[nodiscard]] test_support::FaultProxy& proxy() { return proxy_; }
    [[nodiscard]] test_support::RedisServer& server() { return server_; }
    [[nodiscard]] Recorder& recorder() { return recorder_; }

    /// "take" of one of the scenario's names.
    [[nodiscard]] std::string take(int ttl_ms, int timeout_ms, std::uint32_t which = 0) const {
        return "take " + std::to_string(name_ + which) + ' ' + std::to_string(ttl_ms) + ' ' +
               std::to_string(timeout_ms);
    }
    [[nodiscard]] std::string queue() const {
        return "codomyrmex:lock:{name " + std::to_string(name_) + "}:queue";
    }

    /// Renewals are answered that the server is busy, the first of a connection too, which brings
    /// the script's body along.
    void refuse_renewals() {
        for (const std::string_view text :
             {codomyrmex::concurrency::redis::renew_script.sha1,
              std::string_view{"return say(redis.call('EXISTS', KEYS[3]) + 1, now"}}) {
            proxy_.add(test_support::Fault::reply("-BUSY as the scenario wants it\r\n")
                           .on(std::string{text})
                           .always());
        }
    }

    /// Both give back what they have.
    static void give_back(WorkerProcess& one, WorkerProcess& other) {
        for (WorkerProcess* who : {&one, &other})
            (void)who->ask("give");
    }

  private:
    std::string program_;
    test_support::RedisServer& server_;
    std::string history_;
    std::string folder_;
    std::uint32_t name_;
    std::int32_t& next_number_;
    Recorder recorder_;
    test_support::FaultProxy proxy_{server_.url()};
};

/// A scenario: what it is called, and what it does. It gives what it found wrong itself to `wrong`,
/// hands its workers over to be ended, and returns whether it came about.
struct Scenario {
    using Wrong = std::vector<std::string>;
    using Workers = std::vector<std::unique_ptr<WorkerProcess>>;
    const char* name;
    bool (*play)(Stage&, Workers&, Wrong&);
};

namespace scenarios {

using namespace std::chrono_literals;
using test_support::Fault;
using Wrong = Scenario::Wrong;
using Workers = Scenario::Workers;

// How a request for a lock begins, by digest or with its body: the only one with 14 words.
inline constexpr const char* acquire_request = "*14\r\n";

inline WorkerProcess& add(Workers& workers, WorkerProcess worker) {
    return *workers.emplace_back(std::make_unique<WorkerProcess>(std::move(worker)));
}

/// A holder is stopped past its time to live and then gives back what another has by now.
inline bool stopped_holder(Stage& stage, Workers& workers, Wrong&) {
    auto& first = add(workers, stage.worker(false));
    auto& second = add(workers, stage.worker(false));
    auto& third = add(workers, stage.worker(false));
    if (first.ask(stage.take(300, 1'000)) != "held") return false;
    stage.recorder().process(Op::stopped, first.number());
    first.process().stop();
    const bool passed = second.ask(stage.take(2'000, 5'000)) == "held";
    first.process().cont();
    stage.recorder().process(Op::continued, first.number());
    (void)first.ask("give");
    if (passed && third.ask(stage.take(500, 0)) == "held") (void)third.ask("give");
    if (passed) (void)second.ask("give");
    return passed;
}

/// The answer to an acquire comes when most of the lease is over.
inline bool late_answer(Stage& stage, Workers& workers, Wrong&) {
    auto& first = add(workers, stage.worker(true));
    auto& second = add(workers, stage.worker(false));
    const auto held_back = stage.proxy().add(Fault::hold_reply().on(acquire_request));
    stage.refuse_renewals();
    first.tell(stage.take(600, 3'000));
    const bool hit = stage.proxy().wait_hits(held_back);
    std::this_thread::sleep_for(400ms);
    stage.proxy().release();
    if (!hit || first.answer() != "held") return false;
    const bool passed = second.ask(stage.take(2'000, 3'000)) == "held";
    if (passed) Stage::give_back(first, second);
    return passed;
}

/// A grant comes when most of it is over.
inline bool late_grant(Stage& stage, Workers& workers, Wrong&) {
    auto& first = add(workers, stage.worker(false));
    auto& second = add(workers, stage.worker(true));
    auto& third = add(workers, stage.worker(false));
    if (first.ask(stage.take(5'000, 1'000)) != "held") return false;
    second.tell(stage.take(5'000, 5'000));
    if (!support::eventually(
            [&] {
                return stage.server().command({"ZCARD", stage.queue()}).number == 1;
            },
            3s)) {
        return false;
    }
    // It has just asked again, and will not for a while.
    const auto asked = stage.proxy().add(Fault::append("").on(acquire_request).always());
    if (!stage.proxy().wait_hits(asked)) return false;
    std::this_thread::sleep_for(10ms);
    stage.refuse_renewals();
    stage.proxy().delay(300ms);
    (void)first.ask("give");
    if (second.answer() != "held") return false;
    stage.proxy().set(test_support::FaultProxy::Mode::black_hole);
    const bool passed =
        support::eventually([&] { return third.ask(stage.take(2'000, 0)) == "held"; }, 3s);
    stage.proxy().delay(0ms);
    stage.proxy().set(test_support::FaultProxy::Mode::forward);
    (void)second.ask("give");
    if (passed) (void)third.ask("give");
    return passed;
}

/// The answer to an acquire is lost. The request is repeated and finds that it had the lock.
inline bool repeated_acquire(Stage& stage, Workers& workers, Wrong&) {
    auto& first = add(workers, stage.worker(true, 300));
    auto& second = add(workers, stage.worker(false));
    const auto held_back = stage.proxy().add(Fault::hold_reply().on(acquire_request));
    stage.refuse_renewals();
    first.tell(stage.take(700, 3'000));
    const bool hit = stage.proxy().wait_hits(held_back);
    if (first.answer() != "held" || !hit) return false;
    const bool passed = second.ask(stage.take(2'000, 3'000)) == "held";
    if (passed) Stage::give_back(first, second);
    return passed;
}

/// A caller gives up; the reply to it comes when the next request of the connection is under way.
inline bool reply_after_giving_up(Stage& stage, Workers& workers, Wrong&) {
    auto& other = add(workers, stage.worker(false));
    auto& two = add(workers, stage.worker(true, 2'000, 2));
    if (other.ask(stage.take(5'000, 1'000, 1)) != "held") return false;
    // Connected, and the scripts known.
    if (two.ask(stage.take(1'000, 0, 2)) != "held") return false;
    (void)two.ask("give");
    const auto held_back = stage.proxy().add(Fault::hold_reply().on(acquire_request));
    two.tell(stage.take(3'000, 200), 0);
    if (!stage.proxy().wait_hits(held_back)) return false;
    two.tell(stage.take(3'000, 3'000, 1), 1);
    (void)two.answer(0);
    std::this_thread::sleep_for(50ms);
    stage.proxy().release();
    std::this_thread::sleep_for(100ms);
    (void)other.ask("check");
    (void)other.ask("give");
    if (two.answer(1) == "held") (void)two.ask("give", 1);
    return true;
}

/// A waiter gives up: nobody stands in the queue any more.
inline bool waiter_gives_up(Stage& stage, Workers& workers, Wrong& wrong) {
    auto& holder = add(workers, stage.worker(false));
    auto& waiter = add(workers, stage.worker(false));
    if (holder.ask(stage.take(5'000, 1'000)) != "held") return false;
    waiter.tell(stage.take(1'000, 200));
    const auto standing = [&] { return stage.server().command({"ZCARD", stage.queue()}).number; };
    const bool stood = support::eventually([&] { return standing() == 1; }, 3s);
    (void)waiter.answer();
    if (!stood) return false;
    if (!support::eventually([&] { return standing() == 0; }, 3s)) {
        wrong.emplace_back("a waiter that gave up still stands in the queue");
    }
    (void)holder.ask("give");
    return true;
}

/// A lease is given back: it is not renewed after that.
inline bool no_renewal_after_release(Stage& stage, Workers& workers, Wrong& wrong) {
    auto& holder = add(workers, stage.worker(true));
    const auto renewals =
        stage.proxy().add(Fault::append("")
                              .on(std::string{codomyrmex::concurrency::redis::renew_script.sha1})
                              .always());
    if (holder.ask(stage.take(300, 1'000)) != "held") return false;
    if (!stage.proxy().wait_hits(renewals, 2)) return false;
    (void)holder.ask("give");
    const std::size_t before = stage.proxy().hits(renewals);
    std::this_thread::sleep_for(400ms);
    if (const std::size_t after = stage.proxy().hits(renewals); after != before) {
        wrong.push_back(std::to_string(after - before) + " renewals came after the release");
    }
    return true;
}

/// A process forks while it holds. The child asks for that name and for another, the parent then
/// for the other, too.
inline bool fork_in_mid_lease(Stage& stage, Workers& workers, Wrong& wrong) {
    auto& parent = add(workers, stage.worker(false));
    if (parent.ask(stage.take(1'000, 1'000)) != "held") return false;
    const std::string outcome = parent.ask("fork");
    if (outcome != "forked") wrong.emplace_back("the child of a fork hung, or died");
    (void)parent.ask("give");
    if (parent.ask(stage.take(1'000, 1'000, 1)) == "held") (void)parent.ask("give");
    return true;
}

/// Two threads of one process hand a lock to each other.
inline bool handed_over_at_home(Stage& stage, Workers& workers, Wrong&) {
    auto& two = add(workers, stage.worker(false, 2'000, 2));
    for (int turn = 0; turn < 8; ++turn) {
        const int one = turn % 2;
        if (turn == 0 && two.ask(stage.take(1'000, 2'000), 0) != "held") return false;
        two.tell(stage.take(1'000, 2'000), 1 - one);
        std::this_thread::sleep_for(5ms);
        (void)two.ask("give", one);
        if (two.answer(1 - one) != "held") return false;
    }
    return two.ask("give", 0) == "given";
}

inline constexpr Scenario all[] = {
    {"holder stopped past its lease gives back", stopped_holder},
    {"answer held back for most of a lease", late_answer},
    {"grant held back for most of it", late_grant},
    {"answer lost, acquire repeated", repeated_acquire},
    {"reply after its caller gave up", reply_after_giving_up},
    {"waiter gives up", waiter_gives_up},
    {"lease given back between renewals", no_renewal_after_release},
    {"fork in mid-lease, by the book", fork_in_mid_lease},
    {"handed over between threads", handed_over_at_home},
};

}  // namespace scenarios

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_SCENARIOS_HPP
