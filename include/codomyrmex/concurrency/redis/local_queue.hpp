// SPDX-License-Identifier: MIT
//
// The threads of one process that want one name, without I/O. One of them at a time asks the server
// or has the lease; the others stand in line here, first come first served, and only the first will
// stand in the server's queue. A lease that is given back goes straight to the next in line, for a
// bounded run, or is retained for whoever comes next.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_LOCAL_QUEUE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_LOCAL_QUEUE_HPP

#include <codomyrmex/concurrency/detail/wait_word.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// A thread in line.
struct LocalWaiter {
    static constexpr std::uint32_t waiting = 0;
    static constexpr std::uint32_t asks = 1;  ///< it is its turn to ask the server
    static constexpr std::uint32_t has = 2;   ///< `tenure` is its own
    static constexpr std::uint32_t left = 3;  ///< it was told to give up

    explicit LocalWaiter(const LockIdentity& wanted) noexcept : identity{wanted} {}

    const LockIdentity& identity;
    detail::WaitWord state{waiting};
    std::shared_ptr<Tenure> tenure{};
    LocalWaiter* next = nullptr;  ///< who stands behind it
};

/// Not thread-safe. A waiter must take the lock that guards this before it goes.
class LocalQueue {
  public:
    enum class Entry : std::uint8_t {
        asks,  ///< go and ask the server; asked() must follow
        has,   ///< the waiter has the lease that was retained
        line,  ///< stands in line
        busy,  ///< it is taken, and the caller will not wait
    };

    /// A thread comes. If it may not use the lease that is retained, it finds that in its `tenure`,
    /// to be given back, and asks.
    [[nodiscard]] Entry enter(LocalWaiter& waiter, bool may_wait, BootTime now) {
        if (busy_ && tenure_ && !tenure_->valid_at(now)) next_asks();
        if (busy_) {
            if (!may_wait) return Entry::busy;
            (first_ == nullptr ? first_ : last_->next) = &waiter;
            last_ = &waiter;
            return Entry::line;
        }
        busy_ = true;
        if (!tenure_) return Entry::asks;
        waiter.tenure = tenure_;
        if (alike(tenure_->identity(), waiter.identity) && usable(*tenure_, now)) return Entry::has;
        tenure_ = nullptr;
        return Entry::asks;
    }

    /// A thread in line gives up. Returns: false if it is not in line: its turn has come.
    [[nodiscard]] bool leave(LocalWaiter& waiter) {
        LocalWaiter* before = nullptr;
        LocalWaiter* each = first_;
        while (each != nullptr && each != &waiter) {
            before = each;
            each = each->next;
        }
        if (each == nullptr) return false;
        (before == nullptr ? first_ : before->next) = waiter.next;
        if (last_ == &waiter) last_ = before;
        return true;
    }

    /// The one that asks has got `tenure`; or nothing, and it is the next one's turn.
    void asked(std::shared_ptr<Tenure> tenure, BootTime now) {
        tenure_ = std::move(tenure);
        run_ = 0;
        run_began_ = now;
        if (!tenure_) next_asks();
    }

    enum class GivenBack : std::uint8_t {
        release,   ///< give it back to the server, then call next_asks()
        foreign,   ///< give it back to the server; it was lost here before
        handed,    ///< the next in line has it
        retained,  ///< it is kept
    };

    /// Whoever has `tenure` is done with it. `may_retain`: that it may be kept. `wake`: wakes who
    /// has it now, and is to be called, best when the lock that guards this is not held.
    [[nodiscard]] GivenBack give_back(const std::shared_ptr<Tenure>& tenure, bool may_retain,
                                      BootTime now, detail::WaitWord::Wake& wake) {
        if (!busy_ || tenure_ != tenure) return GivenBack::foreign;
        if (first_ != nullptr) {
            if (!may_hand_on(first_->identity, now)) return GivenBack::release;
            ++run_;
            LocalWaiter& next = take_first();
            next.tenure = tenure;
            wake = next.state.set_and_wake_later(LocalWaiter::has);
            return GivenBack::handed;
        }
        if (!may_retain || !usable(*tenure, now)) return GivenBack::release;
        busy_ = false;
        return GivenBack::retained;
    }

    /// The lease is with nobody here any more: the first in line goes and asks.
    void next_asks() {
        tenure_ = nullptr;
        busy_ = first_ != nullptr;
        if (busy_) take_first().state.set(LocalWaiter::asks);
    }

    /// `tenure` is lost, whether in use or retained.
    void lost(const std::shared_ptr<Tenure>& tenure) {
        if (tenure_ == tenure) next_asks();
    }

    /// The lease that is retained, which is so no longer; null if there is none.
    [[nodiscard]] std::shared_ptr<Tenure> take_retained() noexcept {
        return busy_ ? nullptr : std::exchange(tenure_, nullptr);
    }
    [[nodiscard]] std::shared_ptr<Tenure> retained() const noexcept {
        return busy_ ? nullptr : tenure_;
    }

    /// Whether somebody stands in line.
    [[nodiscard]] bool waited_for() const noexcept { return first_ != nullptr; }
    /// Whether nobody does, and `tenure` is in use.
    [[nodiscard]] bool alone_with(const Tenure& tenure) const noexcept {
        return first_ == nullptr && tenure_.get() == &tenure;
    }
    [[nodiscard]] bool idle() const noexcept { return !busy_ && !tenure_; }

  private:
    LocalWaiter& take_first() noexcept {
        LocalWaiter& taken = *first_;
        first_ = taken.next;
        if (first_ == nullptr) last_ = nullptr;
        return taken;
    }

    [[nodiscard]] static bool alike(const LockIdentity& a, const LockIdentity& b) noexcept {
        return &a == &b ||
               (a.options.ttl == b.options.ttl && a.options.max_hold == b.options.max_hold &&
                a.options.retain == b.options.retain);
    }

    // With time and a fencing token for one more.
    [[nodiscard]] static bool usable(const Tenure& tenure, BootTime now) noexcept {
        return tenure.has_fence() && !tenure.doubtful() && tenure.valid_at(now) &&
               tenure.renewable_at(now) && tenure.deadline() - now > tenure.term() / 3;
    }

    // Whether what is in use may go to one of that identity. Requires: something is.
    [[nodiscard]] bool may_hand_on(const LockIdentity& next, BootTime now) const noexcept {
        const LeaseOptions& options = tenure_->identity().options;
        return alike(tenure_->identity(), next) && run_ < options.max_local_handovers &&
               now - run_began_ < options.max_local_run && usable(*tenure_, now);
    }

    std::shared_ptr<Tenure> tenure_;  // what is in use, or is retained if it is not busy
    // The line: each waiter knows who stands behind it. There is none unless it is busy.
    LocalWaiter* first_ = nullptr;
    LocalWaiter* last_ = nullptr;
    BootTime run_began_{};
    int run_ = 0;
    bool busy_ = false;  // somebody asks or has it
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_LOCAL_QUEUE_HPP
