// SPDX-License-Identifier: MIT
//
// What befalls clients: their connections, by the proxy that they go through, and their processes.
// The objects named must outlive the kinds made of them.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_CLIENT_FAULTS_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_CLIENT_FAULTS_HPP

#include "faults/nemesis.hpp"
#include "support/fault_proxy.hpp"
#include "support/process.hpp"

#include <chrono>
#include <csignal>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

namespace faults {

/// Every connection is cut; new ones are taken.
[[nodiscard]] inline FaultKind connections_cut(test_support::FaultProxy& proxy) {
    return {"connections cut", {}, trouble, [&proxy] { proxy.cut_connections(); }, {}};
}

/// Replies come late.
[[nodiscard]] inline FaultKind replies_delayed(test_support::FaultProxy& proxy,
                                               std::chrono::nanoseconds by,
                                               std::chrono::nanoseconds duration) {
    return {"replies delayed", duration, trouble, [&proxy, by] { proxy.delay(by); },
            [&proxy] { proxy.delay({}); }};
}

/// Replies come byte by byte.
[[nodiscard]] inline FaultKind replies_dripped(test_support::FaultProxy& proxy,
                                               std::chrono::nanoseconds interval,
                                               std::chrono::nanoseconds duration) {
    return {"replies dripped", duration, trouble, [&proxy, interval] { proxy.drip(1, interval); },
            [&proxy] { proxy.drip(0, {}); }};
}

/// Connections stay open and nothing comes back.
[[nodiscard]] inline FaultKind black_hole(test_support::FaultProxy& proxy,
                                          std::chrono::nanoseconds duration) {
    using test_support::FaultProxy;
    return {"black hole", duration, trouble, [&proxy] { proxy.set(FaultProxy::Mode::black_hole); },
            [&proxy] { proxy.set(FaultProxy::Mode::forward); }};
}

/// Requests with `text` in them are executed; then the connection is cut instead of a reply.
[[nodiscard]] inline FaultKind replies_lost(test_support::FaultProxy& proxy, std::string text,
                                            std::chrono::nanoseconds duration) {
    return {"replies lost", duration, trouble,
            [&proxy, text = std::move(text)] {
                proxy.add(test_support::Fault::lose_reply().on(text).always());
            },
            [&proxy] { proxy.clear(); }};
}

/// Calls `before` and stops the process, continues it and calls `after`: for the records that the
/// checker needs. It excuses nothing: what does not run is answerable for nothing.
[[nodiscard]] inline FaultKind client_stopped(test_support::Process& process,
                                              std::chrono::nanoseconds duration,
                                              std::function<void()> before,
                                              std::function<void()> after) {
    return {"client stopped", duration, Allows{.disorder = true},
            [&process, before = std::move(before)] {
                before();
                process.stop();
            },
            [&process, after = std::move(after)] {
                process.cont();
                after();
            }};
}

/// Kills the process and calls `after`, for the record that the checker needs.
[[nodiscard]] inline FaultKind client_killed(test_support::Process& process,
                                             std::function<void()> after) {
    return {"client killed",
            {},
            Allows{.disorder = true},
            [&process, after = std::move(after)] {
                process.kill();
                after();
            },
            {}};
}

/// A signal every `interval`, for a process that handles it: system calls are interrupted.
[[nodiscard]] inline FaultKind signal_storm(test_support::Process& process, int signal,
                                            std::chrono::nanoseconds interval,
                                            std::chrono::nanoseconds duration) {
    const auto storm = std::make_shared<std::jthread>();
    const pid_t pid = process.pid();
    return {"signal storm", duration, Allows{},
            [=] {
                *storm = std::jthread{[=](const std::stop_token& stop) {
                    while (!stop.stop_requested() && ::kill(pid, signal) == 0)
                        std::this_thread::sleep_for(interval);
                }};
            },
            [=] { *storm = {}; }};
}

/// One signal, by which the process is asked for what only it can do to itself: to fork.
[[nodiscard]] inline FaultKind client_asked(std::string name, test_support::Process& process,
                                            int signal) {
    return {std::move(name), {}, Allows{}, [&process, signal] { process.signal(signal); }, {}};
}

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_CLIENT_FAULTS_HPP
