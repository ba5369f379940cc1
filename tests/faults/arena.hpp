// SPDX-License-Identifier: MIT
//
// A place of a fault run: a server of its own, worker processes that fight over its names, and a
// nemesis that strikes them at random. There are several, for a fault that excuses two holders at
// once (a server that forgets, or whose clock is set) must not excuse them where nothing of that
// kind was done. All goes in rounds: workers start, faults strike, workers end, the records are
// checked and dropped; so memory, files and keys stay as they are however long the run is.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_ARENA_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_ARENA_HPP

#include "faults/client_faults.hpp"
#include "faults/crew.hpp"
#include "faults/judge.hpp"
#include "faults/nemesis.hpp"
#include "faults/plan.hpp"
#include "faults/scenarios.hpp"
#include "faults/server_faults.hpp"
#include "faults/tally.hpp"
#include "support/fault_proxy.hpp"
#include "support/redis_server.hpp"
#include "support/temp_dir.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace faults {

/// What all arenas of a run have in common.
struct RunOptions {
    std::string worker{};      ///< the worker's program
    std::string clock_shim{};  ///< empty: no clocks are set
    std::int64_t seed = 1;
    std::chrono::milliseconds round{5'000};
    int processes = 2;
    int threads = 4;
};

/// One round of one arena.
struct Round {
    std::string arena{};
    std::int64_t number = 0;
    Tally tally{};
};

/// What an arena is made for.
enum class Ground : std::uint8_t {
    network,  ///< The server cannot be reached, refuses, stops, restarts with its data.
    people,   ///< Only the workers fare badly, so no call may fail and no waiter wait too long.
    amnesia,  ///< The server loses what it granted.
    clock,    ///< The server's clock is set.
};

[[nodiscard]] constexpr const char* to_string(Ground ground) noexcept {
    switch (ground) {
        case Ground::network:
            return "network";
        case Ground::people:
            return "people";
        case Ground::amnesia:
            return "amnesia";
        case Ground::clock:
            return "clock";
    }
    return "";
}

/// To be used on one thread, which starts the processes and so must outlive them.
class Arena {
  public:
    Arena(Ground ground, const RunOptions& options, const StallWatch& stalls, Gallery& gallery)
        : ground_{ground},
          options_{options},
          stalls_{stalls},
          gallery_{gallery},
          random_{static_cast<std::uint64_t>(options.seed) * 8 +
                  static_cast<std::uint64_t>(ground)} {
        if (ground_ == Ground::clock) {
            clock_.emplace(options_.clock_shim, folder_.file("clock"));
        }
        server_ = std::make_unique<test_support::RedisServer>(server_options());
        if (ground_ == Ground::amnesia) {
            replica_ = std::make_unique<test_support::RedisServer>(
                test_support::RedisServerOptions{.tcp = true});
        }
        proxy_ = std::make_unique<test_support::FaultProxy>(server_->url());
    }

    /// How many kinds of fault it has.
    [[nodiscard]] std::size_t kinds() const { return kinds_; }

    /// Plays a round. `stop`: ends it early.
    [[nodiscard]] Round round(std::int64_t number, const std::stop_token& stop) {
        Round round{to_string(ground_), number, {}};
        const std::string history = folder_.file("history");
        std::filesystem::remove(history);
        for (std::uint32_t name = 0; name < names(); ++name)
            std::filesystem::remove(folder_.file("register-" + std::to_string(name)));
        Recorder recorder{history, -1, 0};
        recorder_ = &recorder;
        began_ = boot_time();
        end_ = began_ + std::chrono::nanoseconds{options_.round}.count();
        for (int slot = 0; slot < options_.processes; ++slot)
            start(slot);
        for (const auto& worker : workers_)
            (void)worker->await_ready();

        Nemesis nemesis{aftermath()};
        add_kinds(nemesis);
        kinds_ = nemesis.kinds().size();
        // Stays a little before the end, so that it ends in calm weather.
        const std::int64_t calm = 300'000'000;
        while (boot_time() < end_ - calm && !stop.stop_requested()) {
            if (bag_.empty()) refill_bag(nemesis.kinds());
            const std::size_t kind = bag_.back();
            bag_.pop_back();
            try {
                nemesis.strike(kind);
            } catch (const std::exception& error) {
                // The fault could not be brought about, or healed: that is our failure.
                round.tally.find(
                    {"nemesis", round.arena + ", " + nemesis.kinds()[kind].name, error.what()});
            }
            std::this_thread::sleep_for(std::chrono::milliseconds{2 + pick(30)});
        }
        for (auto* crew : {&workers_, &gone_}) {
            for (const auto& worker : *crew)
                finish(*worker, round);
            crew->clear();
        }
        std::vector<FaultWindow> windows = nemesis.windows();
        std::vector<FaultWindow> excuses = stalls_.within(began_, boot_time(), aftermath().count());
        if (ground_ != Ground::people) {
            // One that tries gives the server little time.
            excuses.push_back({"little time", began_, boot_time(), {.error = true}});
        }
        judge(history, rules(), windows, excuses, round.arena, gallery_, round.tally);
        look_at_keys(*server_, std::uint64_t{3} * names(), round.arena, round.tally);
        // An error that nothing excuses is explained by what was said of it.
        const auto by_error = [](const Finding& finding) { return finding.check == "error"; };
        if (std::ranges::any_of(round.tally.findings, by_error)) {
            for (const std::string& note : notes_)
                round.tally.keep({"note", round.arena, note});
        }
        notes_.clear();
        return round;
    }

  private:
    using FaultProxy = test_support::FaultProxy;
    using Fault = test_support::Fault;
    using milliseconds = std::chrono::milliseconds;

    [[nodiscard]] test_support::RedisServerOptions server_options() const {
        test_support::RedisServerOptions options;
        options.debug = true;
        if (ground_ == Ground::network) {
            // Without fsync, for a server that was killed leaves its writes to the system; with one
            // each second it holds them back while the disk is busy, and then loses them.
            options.args = {
                "--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-min-size", "4mb"};
        }
        if (ground_ == Ground::amnesia) options.tcp = true;
        if (ground_ == Ground::clock) options.environment = clock_->environment();
        return options;
    }

    // Where no fault excuses a loss, leases are long enough for a machine that has much to do.
    [[nodiscard]] std::int64_t ttl_ms() const { return ground_ == Ground::people ? 1'000 : 300; }
    [[nodiscard]] milliseconds longest_ttl() const { return milliseconds{2 * ttl_ms()}; }
    [[nodiscard]] std::chrono::nanoseconds aftermath() const {
        return longest_ttl() + milliseconds{500};
    }
    [[nodiscard]] std::uint32_t names() const {
        return names_of(static_cast<std::uint32_t>(options_.processes));
    }

    [[nodiscard]] Rules rules() const {
        Rules rules;
        rules.lateness = std::chrono::seconds{3};
        rules.hurry = std::chrono::seconds{1};
        rules.handover = std::chrono::seconds{2};
        rules.ttl = longest_ttl();
        rules.grant_ttl = milliseconds{Plan{}.grant_ttl_ms};
        return rules;
    }

    [[nodiscard]] int pick(int below) {
        return static_cast<int>(random_() % static_cast<std::uint64_t>(below));
    }

    // Every kind once, in any order; four times if it is light.
    void refill_bag(const std::vector<FaultKind>& kinds) {
        for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
            const bool heavy =
                kinds[kind].duration > milliseconds{100} || heavy_.contains(kinds[kind].name);
            bag_.insert(bag_.end(), heavy ? 1 : 4, kind);
        }
        std::ranges::shuffle(bag_, random_);
    }

    // --- Workers.

    void start(int slot) {
        next_number_ += numbers_of_a_worker;
        Plan plan;
        plan.url = slot % 2 == 0 ? proxy_->url() : server_->url();
        plan.history = folder_.file("history");
        plan.folder = folder_.path();
        plan.number = next_number_;
        plan.slot = slot;
        plan.seed = static_cast<std::int64_t>(random_() >> 16U);
        plan.end = end_;
        plan.threads = options_.threads;
        plan.ttl_ms = ttl_ms();
        if (ground_ == Ground::people) {
            // A call may fail that has too little time for an answer.
            plan.shortest_wait_ms = 300;
            plan.response_ms = 1'500;
        }
        workers_.push_back(std::make_unique<WorkerProcess>(options_.worker, plan));
    }

    // One that still runs; of those whose connections can be cut if it matters.
    [[nodiscard]] WorkerProcess& victim() {
        for (int tries = 0; tries < 20; ++tries) {
            WorkerProcess& one = *workers_[random_() % workers_.size()];
            if (one.process().running()) return one;
        }
        return *workers_.back();
    }

    // Another takes its place.
    void replace(WorkerProcess& worker) {
        const auto slot = static_cast<int>(worker.plan().slot);
        const auto found =
            std::ranges::find_if(workers_, [&](const auto& one) { return one.get() == &worker; });
        gone_.push_back(std::move(*found));
        workers_.erase(found);
        start(slot);
        (void)workers_.back()->await_ready();
    }

    void finish(WorkerProcess& worker, Round& round) {
        const std::int64_t left = std::max<std::int64_t>(end_ - boot_time(), 0);
        for (const std::string& wrong : worker.finish(
                 std::chrono::nanoseconds{left} + std::chrono::seconds{20}, round.tally.deeds)) {
            round.tally.find({"worker", round.arena, wrong});
        }
        notes_.insert(notes_.end(), worker.notes().begin(), worker.notes().end());
    }

    // --- Faults.

    // A kind whose victim is chosen when it strikes.
    template <class Make>
    void add_with_victim(Nemesis& nemesis, std::string name, std::chrono::nanoseconds duration,
                         Make make) {
        const auto current = std::make_shared<FaultKind>();
        const Allows allows = make(victim()).allows;
        nemesis.add({std::move(name), duration, allows,
                     [this, current, make] {
                         *current = make(victim());
                         current->inject();
                     },
                     [current] {
                         if (current->heal) current->heal();
                     }});
    }

    [[nodiscard]] milliseconds brief() { return milliseconds{10 + pick(40)}; }

    void add_kinds(Nemesis& nemesis) {
        switch (ground_) {
            case Ground::network:
                add_network(nemesis);
                add_server(nemesis);
                break;
            case Ground::people:
                add_clients(nemesis);
                break;
            case Ground::amnesia:
                nemesis.add(flushed(*server_));
                nemesis.add(server_restarted(*server_, false, brief()));
                nemesis.add(failed_over(*server_, *replica_, brief()));
                for (const char* policy :
                     {"allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru",
                      "volatile-lfu", "volatile-random", "volatile-ttl"}) {
                    nemesis.add(evicting(*server_, policy, brief()));
                }
                break;
            case Ground::clock:
                using namespace std::chrono_literals;
                nemesis.add(clock_stepped(*clock_, 60s, brief()));
                nemesis.add(clock_stepped(*clock_, -1h, brief()));
                nemesis.add(clock_stepped(*clock_, 1s, brief()));
                nemesis.add(clock_stepped(*clock_, -1s, brief()));
                break;
        }
    }

    void add_network(Nemesis& nemesis) {
        using namespace std::chrono_literals;
        nemesis.add(connections_cut(*proxy_));
        nemesis.add(replies_delayed(*proxy_, milliseconds{5 + pick(80)}, brief()));
        nemesis.add(replies_dripped(*proxy_, 1ms, brief()));
        nemesis.add(black_hole(*proxy_, brief()));
        FaultKind long_hole = black_hole(*proxy_, 400ms);
        long_hole.name = "black hole, longer than a lease";
        nemesis.add(std::move(long_hole));
        nemesis.add(replies_lost(*proxy_, "EVAL", brief()));
        nemesis.add(by_proxy("request cut off", Fault::cut().on("EVAL").after(2)));
        nemesis.add(by_proxy("request executed late", Fault::hold_request().on("EVAL").after(1),
                             milliseconds{50 + pick(300)}));
        nemesis.add(by_proxy("reply held back", Fault::hold_reply().on("EVAL").after(1),
                             milliseconds{50 + pick(200)}));
        nemesis.add(by_proxy("reply too many", Fault::append(":1\r\n").on("EVAL")));
        nemesis.add(
            by_proxy("reply of another type", Fault::replace_reply("$3\r\nfoo\r\n").on("EVAL")));
        nemesis.add(by_proxy("reply that breaks the protocol",
                             Fault::replace_reply("what?\r\n").on("EVAL")));
        nemesis.add(by_proxy("LOADING", Fault::reply("-LOADING Redis is loading the dataset in "
                                                     "memory\r\n")
                                            .on("EVAL")
                                            .times(5)));
        nemesis.add(by_mode("connections refused", FaultProxy::Mode::refuse));
        nemesis.add(by_mode("server unreachable", FaultProxy::Mode::unreachable));
    }

    void add_server(Nemesis& nemesis) {
        nemesis.add(server_stopped(*server_, brief()));
        FaultKind stopped = server_stopped(*server_, longest_ttl() + brief());
        stopped.name = "server stopped, longer than a lease";
        nemesis.add(std::move(stopped));
        nemesis.add(server_restarted(*server_, true, brief()));
        nemesis.add(clients_paused(*server_, brief()));
        nemesis.add(clients_killed(*server_));
        nemesis.add(subscribers_cut());
        nemesis.add(busy(*server_, brief()));
        nemesis.add(out_of_memory(*server_, brief()));
        nemesis.add(misconfigured(*server_, brief()));
        nemesis.add(late_replies());
        FaultKind limited = clients_limited(*server_, brief());
        limited.inject = [inject = limited.inject, this] {
            inject();
            proxy_->cut_connections();
        };
        nemesis.add(std::move(limited));
    }

    void add_clients(Nemesis& nemesis) {
        nemesis.add(scripts_flushed(*server_));
        for (const bool past : {false, true}) {
            const std::chrono::nanoseconds time = past ? milliseconds{ttl_ms() + 200} : brief();
            add_with_victim(
                nemesis, past ? "client stopped past its lease" : "client stopped", time,
                [this, time](WorkerProcess& worker) {
                    return client_stopped(
                        worker.process(), time,
                        [this, &worker] { recorder_->process(Op::stopped, worker.number()); },
                        [this, &worker] { recorder_->process(Op::continued, worker.number()); });
                });
        }
        nemesis.add({"client killed",
                     {},
                     Allows{.disorder = true},
                     [this] {
                         WorkerProcess& one = victim();
                         one.kill(*recorder_);
                         replace(one);
                     },
                     {}});
        nemesis.add({"process exits while it holds",
                     {},
                     Allows{.disorder = true},
                     [this] {
                         WorkerProcess& one = victim();
                         one.process().signal(ask_to_exit);
                         one.exited(*recorder_, std::chrono::seconds{10});
                         replace(one);
                     },
                     {}});
        add_with_victim(nemesis, "signal storm", brief(), [](WorkerProcess& worker) {
            return signal_storm(worker.process(), mere_noise, milliseconds{1}, {});
        });
        add_with_victim(nemesis, "fork in mid-lease", {}, [](WorkerProcess& worker) {
            return client_asked("", worker.process(), ask_to_fork);
        });
        add_with_victim(nemesis, "thread ends while it holds", {}, [](WorkerProcess& worker) {
            return client_asked("", worker.process(), ask_thread_end);
        });
    }

    // --- Kinds made of the blocks of the proxy.

    [[nodiscard]] FaultKind by_proxy(std::string name, const Fault& fault,
                                     milliseconds duration = milliseconds{15}) {
        return {std::move(name), duration, trouble, [this, fault] { proxy_->add(fault); },
                [this] {
                    proxy_->clear();
                    proxy_->release();
                }};
    }
    [[nodiscard]] FaultKind by_mode(std::string name, FaultProxy::Mode mode) {
        return {std::move(name), brief(), trouble,
                [this, mode] {
                    proxy_->set(mode);
                    proxy_->cut_connections();
                },
                [this] { proxy_->set(FaultProxy::Mode::forward); }};
    }

    // What is published meanwhile is missed.
    [[nodiscard]] FaultKind subscribers_cut() {
        return {"subscribers cut",
                {},
                trouble,
                [this] {
                    detail::must(*server_, {"CLIENT", "KILL", "TYPE", "pubsub"});
                },
                {}};
    }

    [[nodiscard]] FaultKind late_replies() {
        const auto connection = std::make_shared<test_support::Fd>();
        return {"DEBUG SLEEP", milliseconds{60}, trouble,
                [this, connection] {
                    *connection = detail::send_only(*server_, {"DEBUG", "SLEEP", "0.05"});
                },
                [connection] { connection->reset(); }};
    }

    Ground ground_;
    const RunOptions& options_;
    const StallWatch& stalls_;
    Gallery& gallery_;
    std::mt19937_64 random_;
    test_support::TempDir folder_;
    std::optional<ServerClock> clock_;
    std::unique_ptr<test_support::RedisServer> server_;
    std::unique_ptr<test_support::RedisServer> replica_;
    std::unique_ptr<test_support::FaultProxy> proxy_;
    std::vector<std::unique_ptr<WorkerProcess>> workers_;
    std::vector<std::unique_ptr<WorkerProcess>> gone_;
    std::vector<std::string> notes_;  // of the round
    std::vector<std::size_t> bag_;
    // After these it takes a while until all is as before.
    const std::set<std::string> heavy_{"client killed", "process exits while it holds",
                                       "failover that lost writes", "MISCONF"};
    Recorder* recorder_ = nullptr;
    std::int64_t began_ = 0;
    std::int64_t end_ = 0;
    std::int32_t next_number_ = 0;
    std::size_t kinds_ = 0;
};

/// Plays all scenarios, on one server, as rounds of a run.
class Theatre {
  public:
    Theatre(const RunOptions& options, const StallWatch& stalls, Gallery& gallery)
        : options_{options}, stalls_{stalls}, gallery_{gallery} {}

    [[nodiscard]] Round round(std::int64_t number, const std::stop_token& stop) {
        Round round{"scenarios", number, {}};
        const test_support::TempDir folder;
        const std::string history = folder.file("history");
        const std::int64_t began = boot_time();
        std::vector<FaultWindow> windows;
        // Each has three names.
        std::uint32_t name = 0;
        for (const Scenario& scenario : scenarios::all) {
            if (stop.stop_requested()) break;
            name += 3;
            Scenario::Workers workers;
            std::vector<std::string> wrong;
            Stage stage{options_.worker, server_, history, folder.path(), name, next_number_};
            FaultWindow window{scenario.name, boot_time(), 0, trouble};
            const bool came_about = scenario.play(stage, workers, wrong);
            for (const auto& worker : workers) {
                for (std::string& more :
                     worker->finish(std::chrono::seconds{10}, round.tally.deeds))
                    wrong.push_back(std::move(more));
            }
            window.end = boot_time();
            if (came_about) windows.push_back(window);
            for (const std::string& text : wrong) {
                round.tally.find({"scenario", std::string{"scenarios, "} + scenario.name, text});
                ++round.tally.rows[scenario.name].violations;
            }
        }
        Rules rules;
        rules.lateness = std::chrono::seconds{4};
        rules.ttl = std::chrono::seconds{5};
        FaultWindow all{"scenarios", began, boot_time(), trouble};
        std::vector<FaultWindow> excuses =
            stalls_.within(began, boot_time(), std::chrono::nanoseconds{rules.ttl}.count());
        excuses.push_back(all);
        judge(history, rules, windows, excuses, round.arena, gallery_, round.tally);
        look_at_keys(server_, 3 * (name + 3), round.arena, round.tally);
        return round;
    }

  private:
    const RunOptions& options_;
    const StallWatch& stalls_;
    Gallery& gallery_;
    test_support::RedisServer server_;
    std::int32_t next_number_ = 0;
};

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_ARENA_HPP
