// SPDX-License-Identifier: MIT
//
// A thing of which each process has its own: the child of a fork() makes one at its first use. The
// parent's, of which the child has a copy with threads missing and mutexes in any state, is never
// touched there.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_PER_PROCESS_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_PER_PROCESS_HPP

#include <atomic>
#include <memory>

namespace codomyrmex::concurrency::detail {

/// A Core tells by forked() whether this is the child of the process that made it.
/// Threads: safe, but for take() and the destructor.
template <class Core>
class PerProcess {
  public:
    explicit PerProcess(std::unique_ptr<Core> core) noexcept : core_{core.release()} {}
    PerProcess(const PerProcess&) = delete;
    PerProcess& operator=(const PerProcess&) = delete;
    ~PerProcess() { (void)take(); }

    /// This process' own. If it has none yet, `make()` gives it.
    template <class Make>
    [[nodiscard]] Core& get(Make make) {
        Core* current = core_.load(std::memory_order_acquire);
        if (!current->forked()) return *current;
        std::unique_ptr<Core> fresh = make();
        if (core_.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel)) {
            // So that the server sees the parent's connections end when the parent does.
            if constexpr (requires { current->close_in_child(); }) current->close_in_child();
            return *fresh.release();
        }
        return *current;
    }

    /// This process' own, or null if it has none. Nothing else may be called after it.
    [[nodiscard]] std::unique_ptr<Core> take() noexcept {
        Core* const last = core_.exchange(nullptr, std::memory_order_acq_rel);
        return std::unique_ptr<Core>{last == nullptr || last->forked() ? nullptr : last};
    }

  private:
    std::atomic<Core*> core_;
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_PER_PROCESS_HPP
