// SPDX-License-Identifier: MIT
//
// Processes fight for one QuorumLock over five masters while any two of these are killed and come
// back empty, are stopped, or answer late; what the processes recorded is judged afterwards: no
// violation, no error, and somebody is served all the time.
//
//   CODOMYRMEX_QUORUM_SECONDS   how long it goes on; 10 if not set
//   CODOMYRMEX_HISTORY_SEED     repeats a run: which nodes, and what happens to them

#include <codomyrmex/concurrency/redis/quorum_lock.hpp>

#include "faults/checker.hpp"
#include "faults/recorder.hpp"
#include "support/catch2.hpp"
#include "support/process.hpp"
#include "support/quorum_nodes.hpp"
#include "support/temp_dir.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace test_support;

namespace {

constexpr int processes = 4;
constexpr std::chrono::milliseconds ttl = 1s;
constexpr faults::Target ledger{.name = 1, .kind = faults::Kind::quorum};

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
    const char* const text = std::getenv(variable);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

int work(const QuorumNodes& nodes, const std::string& history, int process, std::int64_t until,
         std::uint64_t seed) {
    faults::Recorder recorder{history, process, 0};
    std::mt19937_64 random{seed * 100 + static_cast<std::uint64_t>(process)};
    QuorumClient client{nodes.clients(), {.node_timeout = 100ms}};
    QuorumLock lock{"history", client, {.ttl = ttl}};
    while (faults::boot_time() < until) {
        recorder.call(ledger, faults::Op::acquire, 5s);
        std::error_code error;
        QuorumLease lease = lock.try_lease_for(5s, error);
        if (!lease) {
            if (error) std::cerr << error.message() << '\n';
            recorder.answered(ledger, faults::Op::acquire,
                              error ? faults::Outcome::failed : faults::Outcome::refused);
            continue;
        }
        recorder.acquired(ledger, lease);
        std::this_thread::sleep_for(std::chrono::microseconds{random() % 3000});
        // Long enough, now and then, to need renewals.
        if (random() % 100 == 0) std::this_thread::sleep_for(ttl);
        recorder.checked(ledger, lease);
        recorder.call(ledger, faults::Op::release, -1ns);
        const bool ours = lease.release(error);
        recorder.answered(ledger, faults::Op::release,
                          error  ? faults::Outcome::unknown
                          : ours ? faults::Outcome::ok
                                 : faults::Outcome::lost);
        std::this_thread::sleep_for(std::chrono::microseconds{random() % 2000});
    }
    return 0;
}

/// Waits until the node has been up for long enough to vote.
void wait_until_it_votes(RedisServer& server) {
    // One second for the whole seconds that it counts, and one to be sure.
    const auto needed = std::chrono::ceil<std::chrono::seconds>(ttl).count() + 2;
    while (std::stoll(server.info("uptime_in_seconds")) < needed)
        std::this_thread::sleep_for(50ms);
}

}  // namespace

TEST_CASE("A quorum serves all the time, and one at a time, whatever becomes of any two of five") {
    if (!RedisServer::available()) SKIP("no redis-server");
    const auto seconds = number_from("CODOMYRMEX_QUORUM_SECONDS", 10);
    const auto seed = number_from("CODOMYRMEX_HISTORY_SEED", std::random_device{}());
    QuorumNodes nodes{5};
    for (std::size_t node = 0; node < nodes.size(); ++node)
        wait_until_it_votes(nodes.server(node));
    const TempDir dir;
    const std::string history = dir.file("history");
    const std::int64_t until =
        faults::boot_time() + static_cast<std::int64_t>(seconds) * 1'000'000'000;
    std::vector<Process> workers;
    for (int process = 0; process < processes; ++process)
        workers.push_back(Process::run([&] { return work(nodes, history, process, until, seed); }));

    std::mt19937_64 random{seed};
    std::array<int, 3> struck{};
    // A lease that was won with three votes may lose two of them with their nodes, or for longer
    // than an answer is waited for. Until the others are given its key, at the next renewal, a
    // release cannot tell what a majority had.
    std::vector<faults::FaultWindow> windows;
    while (faults::boot_time() < until) {
        std::array<std::size_t, 5> order{0, 1, 2, 3, 4};
        std::ranges::shuffle(order, random);
        const std::array<std::size_t, 2> victims{order[0], order[1]};
        const std::uint64_t fault = random() % 3;
        ++struck[fault];
        const std::chrono::milliseconds time{fault == 2 ? 1000 : 100 + random() % 400};
        const std::int64_t began = faults::boot_time();
        for (const std::size_t node : victims) {
            RedisServer& server = nodes.server(node);
            if (fault == 0) server.kill();
            if (fault == 1) server.stop();
            if (fault == 2)
                server.command({"CLIENT", "PAUSE", std::to_string(time.count()), "ALL"});
        }
        std::this_thread::sleep_for(time);
        for (const std::size_t node : victims) {
            RedisServer& server = nodes.server(node);
            if (fault == 0) server.restart();
            if (fault == 1) server.cont();
        }
        // Until then these two are as good as down, and no other may be.
        for (const std::size_t node : victims)
            wait_until_it_votes(nodes.server(node));
        if (fault != 1) {
            const bool paused = fault == 2;
            windows.push_back({paused ? "paused" : "killed",
                               began,
                               faults::boot_time(),
                               {.loss = paused, .error = true}});
        }
        std::this_thread::sleep_for(50ms);
    }
    for (Process& worker : workers)
        CHECK(worker.wait(60s) == ExitStatus{0, 0});

    faults::Checker checker{{.lateness = 3s, .handover = 20s, .ttl = ttl}, windows};
    std::vector<std::int64_t> served;
    std::uint64_t errors = 0;
    faults::for_each_record(history, [&](const faults::Record& record) {
        checker.add(record);
        if (record.op != faults::Op::acquire || record.step != faults::Step::answer) return;
        if (record.outcome == faults::Outcome::ok) served.push_back(record.time);
        if (record.outcome == faults::Outcome::failed) ++errors;
    });
    const faults::Report report = checker.finish();
    REQUIRE(served.size() > 1);
    std::ranges::sort(served);
    std::int64_t longest = 0;
    for (std::size_t i = 1; i < served.size(); ++i)
        longest = std::max(longest, served[i] - served[i - 1]);
    std::cout << "quorum history: seed " << seed << ", " << seconds << " s, two of five killed "
              << struck[0] << ", stopped " << struck[1] << ", paused " << struck[2]
              << " times: " << report.acquired << " acquired, " << report.refused << " refused, "
              << report.failed << " failed, " << report.lost << " lost, " << report.unknown
              << " unknown, " << report.total() << " violations; longest without an acquisition "
              << static_cast<double>(longest) / 1e9 << " s\n";
    for (const faults::Violation& violation : report.first)
        std::cout << to_string(violation.check) << ": " << violation.text << '\n';
    CHECK(report.total() == 0);
    CHECK(errors == 0);
    CHECK(report.acquired > seconds);
    // A holder that waits for renewals takes one ttl; a server that does not answer, much less.
    CHECK(longest < 5'000'000'000);
}
