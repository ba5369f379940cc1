// SPDX-License-Identifier: MIT
//
// What all entries of one kind report to: hold and wait times, and the program's hooks. Made so
// that who wants none of it pays one look at a flag.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_PROBE_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_PROBE_HPP

#include <codomyrmex/concurrency/histogram.hpp>
#include <codomyrmex/concurrency/lock_manager_types.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <system_error>

namespace codomyrmex::concurrency::detail {

/// How long calls waited and holds lasted.
struct Times {
    Histogram waits{};
    Histogram holds{};
};

/// When a hold began; nothing where that is not measured.
class HoldStart {
  public:
    using clock = std::chrono::steady_clock;

    HoldStart() noexcept = default;
    explicit HoldStart(clock::time_point at) noexcept : at_{at.time_since_epoch().count()} {}

    [[nodiscard]] explicit operator bool() const noexcept { return at_ != 0; }

    /// How long it has lasted. Requires: it was measured.
    [[nodiscard]] std::chrono::nanoseconds elapsed() const noexcept {
        return clock::now() - clock::time_point{clock::duration{at_}};
    }

    /// As a number, to be kept in an atomic, and back.
    [[nodiscard]] std::int64_t raw() const noexcept { return at_; }
    [[nodiscard]] static HoldStart from_raw(std::int64_t raw) noexcept {
        return HoldStart{clock::time_point{clock::duration{raw}}};
    }

  private:
    std::int64_t at_ = 0;
};

/// Threads: safe, as far as the hooks are.
class Probe {
  public:
    Probe(LockKind kind, const LockManagerOptions& options)
        : times_per_name{options.times_per_name},
          kind_{kind},
          hooks_{options.hooks},
          times_local_{options.hold_times == HoldTimes::all},
          times_leases_{options.hold_times != HoldTimes::none},
          hooked_{hooks_.on_acquired || hooks_.on_contended || hooks_.on_lost || hooks_.on_error} {}
    Probe(const Probe&) = delete;
    Probe& operator=(const Probe&) = delete;

    /// Whether entries measure times of their own, too.
    const bool times_per_name;
    Times times{};

    /// Nobody wants to know when a hold begins and ends. `leases`: whether it is a lease.
    [[nodiscard]] bool is_quiet(bool leases) const noexcept {
        return !hooked_ && !times_holds(leases);
    }
    [[nodiscard]] bool times_holds(bool leases) const noexcept {
        return leases ? times_leases_ : times_local_;
    }

    // Requires for these: no lock of the library is held.

    void acquired(LockEvent event) const noexcept { tell(hooks_.on_acquired, event); }
    void contended(LockEvent event) const noexcept { tell(hooks_.on_contended, event); }
    void lost(LockEvent event) const noexcept { tell(hooks_.on_lost, event); }
    void error(LockEvent event, const std::error_code& code, const char* what) const noexcept {
        if (!hooks_.on_error) return;
        event.kind = kind_;
        guarded([&] { hooks_.on_error(event, code, what); });
    }

    [[nodiscard]] std::uint64_t hook_exceptions() const noexcept {
        return exceptions_.load(std::memory_order_relaxed);
    }

  private:
    template <class Hook>
    void tell(const Hook& hook, LockEvent& event) const noexcept {
        if (!hook) return;
        event.kind = kind_;
        guarded([&] { hook(event); });
    }

    template <class Call>
    void guarded(Call call) const noexcept {
        try {
            call();
        } catch (...) {
            exceptions_.fetch_add(1, std::memory_order_relaxed);
        }
    }

    const LockKind kind_;
    const LockManagerHooks hooks_;
    const bool times_local_;
    const bool times_leases_;
    const bool hooked_;
    mutable std::atomic<std::uint64_t> exceptions_{0};
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_PROBE_HPP
