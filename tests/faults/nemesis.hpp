// SPDX-License-Identifier: MIT
//
// A registry of faults. Each has a name, how long it lasts, what it excuses (fault_window.hpp) and
// two functions, to inject and to heal it. Striking one gives the window that the checker needs.
// What the faults do is in server_faults.hpp and client_faults.hpp.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_NEMESIS_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_NEMESIS_HPP

#include "faults/fault_window.hpp"
#include "faults/recorder.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace faults {

/// The server cannot be reached, or does not do as it is told, for a while.
inline constexpr Allows trouble{.delay = true, .disorder = true, .loss = true, .error = true};

/// The server forgets what it granted, or believes that it ran out: only the fence protects.
inline constexpr Allows forgets{
    .overlap = true, .delay = true, .disorder = true, .loss = true, .error = true};

/// A fault that can be injected any number of times.
struct FaultKind {
    std::string name{};
    std::chrono::nanoseconds duration{0};  ///< From inject to heal.
    Allows allows{};
    std::function<void()> inject{};
    std::function<void()> heal{};  ///< Empty if there is nothing to heal.
};

/// Threads: one at a time.
class Nemesis {
  public:
    /// `aftermath`: how long after it is healed a fault may still show; the longest time to live.
    explicit Nemesis(std::chrono::nanoseconds aftermath) : aftermath_{aftermath} {}

    void add(FaultKind kind) {
        kinds_.push_back(std::move(kind));
        times_.push_back(0);
    }

    [[nodiscard]] const std::vector<FaultKind>& kinds() const { return kinds_; }
    /// How often the kind has been injected.
    [[nodiscard]] std::uint64_t times(std::size_t kind) const { return times_.at(kind); }
    /// All that has happened, for the checker.
    [[nodiscard]] const std::vector<FaultWindow>& windows() const { return windows_; }

    /// Injects the fault, waits as long as it lasts, heals it. It is healed, and its window kept,
    /// if anything here throws, too.
    FaultWindow strike(std::size_t kind) {
        FaultKind& fault = kinds_.at(kind);
        FaultWindow window{fault.name, boot_time(), 0, fault.allows};
        ++times_[kind];
        const auto finish = [&] {
            if (fault.heal) fault.heal();
            window.end = boot_time() + aftermath_.count();
            windows_.push_back(window);
        };
        try {
            fault.inject();
            std::this_thread::sleep_for(fault.duration);
        } catch (...) {
            finish();
            throw;
        }
        finish();
        return window;
    }

  private:
    std::chrono::nanoseconds aftermath_;
    std::vector<FaultKind> kinds_;
    std::vector<std::uint64_t> times_;
    std::vector<FaultWindow> windows_;
};

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_NEMESIS_HPP
