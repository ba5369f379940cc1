// SPDX-License-Identifier: MIT
//
// A lock that many may hold for reading or one for writing, for the threads of one process: a
// shared mutex of the standard, with a gate in front that keeps either side from starving the
// other, or our own that scales. Worth it where reads are long or many; for short critical sections
// LocalLock is faster.
// For one between processes see redis/read_write_lock.hpp.

#ifndef CODOMYRMEX_CONCURRENCY_READ_WRITE_LOCK_HPP
#define CODOMYRMEX_CONCURRENCY_READ_WRITE_LOCK_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/timed_wait.hpp>
#include <codomyrmex/concurrency/scalable_shared_mutex.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <type_traits>
#include <utility>

namespace codomyrmex::concurrency {

namespace detail {

/// Where readers wait for writers that wait; and writers for readers whose turn has come and who
/// do not get in, for not every shared mutex prefers readers as libstdc++'s does: libc++'s lets
/// chance decide.
class ReadWriteGate {
  public:
    /// A writer that waits. Readers that come meanwhile wait at the gate.
    class WaitingWriter {
      public:
        explicit WaitingWriter(ReadWriteGate& gate) : gate_{gate} {
            const std::scoped_lock guard{gate_.mutex_};
            ++gate_.writers_waiting_;
            held_up_ = gate_.readers_to_pass_ != 0 &&
                       Deadline::clock::now() - gate_.readers_turn_ > patience_of_readers;
        }

        WaitingWriter(const WaitingWriter&) = delete;
        WaitingWriter& operator=(const WaitingWriter&) = delete;

        ~WaitingWriter() {
            const std::scoped_lock guard{gate_.mutex_};
            --gate_.writers_waiting_;
            // A writer that gave up is nobody's turn; it opens the gate only if it was the last.
            if (got_lock_) {
                ++gate_.turn_;
                if (gate_.readers_waiting_ != 0) {
                    if (gate_.readers_to_pass_ == 0) gate_.readers_turn_ = Deadline::clock::now();
                    gate_.readers_to_pass_ += std::exchange(gate_.readers_waiting_, 0);
                }
            }
            gate_.moved_.notify_all();
        }

        /// Lets readers go first whose turn came long ago. Returns: false if the deadline came.
        bool pass(Deadline deadline) {
            if (!held_up_) return true;
            std::unique_lock guard{gate_.mutex_};
            return wait_until(gate_.moved_, guard, deadline,
                              [this] { return gate_.readers_to_pass_ == 0; });
        }

        void got_lock() noexcept { got_lock_ = true; }

      private:
        ReadWriteGate& gate_;
        bool held_up_ = false;
        bool got_lock_ = false;
    };

    /// A reader on its way through the gate and into the mutex behind it.
    class PassingReader {
      public:
        explicit PassingReader(ReadWriteGate& gate) noexcept : gate_{gate} {}

        PassingReader(const PassingReader&) = delete;
        PassingReader& operator=(const PassingReader&) = delete;

        ~PassingReader() {
            if (!has_turn_) return;
            const std::scoped_lock guard{gate_.mutex_};
            if (--gate_.readers_to_pass_ == 0) gate_.moved_.notify_all();
        }

        /// Waits until no writer waits or one has had its turn. Returns: false if the deadline
        /// came.
        bool pass(Deadline deadline) {
            if (!gate_.writer_waits()) return true;
            std::unique_lock guard{gate_.mutex_};
            const auto turn = gate_.turn_;
            ++gate_.readers_waiting_;
            const bool passed = wait_until(gate_.moved_, guard, deadline, [&] {
                return !gate_.writer_waits() || gate_.turn_ != turn;
            });
            has_turn_ = gate_.turn_ != turn;
            if (!has_turn_) --gate_.readers_waiting_;
            return passed;
        }

      private:
        ReadWriteGate& gate_;
        bool has_turn_ = false;
    };

    // Relaxed: the gate only decides who waits; exclusion and visibility are the mutex's. A reader
    // that misses a writer which has just come gets in as if it had come before; one that sees a
    // writer which has just left finds out at the gate, under its mutex. Each thread can slip past
    // a waiting writer once or so: an atomic change is seen in a finite time.
    [[nodiscard]] bool writer_waits() const noexcept {
        return writers_waiting_.load(std::memory_order_relaxed) != 0;
    }

  private:
    // Long enough for threads to wake up. If writers always gave way to readers that are being
    // woken, the lock would be idle most of the time.
    static constexpr std::chrono::milliseconds patience_of_readers{1};

    std::atomic<std::size_t> writers_waiting_{0};  // changes under mutex_
    std::size_t readers_waiting_ = 0;              // for the turn of a writer
    std::size_t readers_to_pass_ = 0;              // have waited for one and are not inside yet
    std::uint64_t turn_ = 0;                       // writers that waited and got the lock
    Deadline::clock::time_point readers_turn_;     // when the first of readers_to_pass_ had passed
    std::mutex mutex_;
    std::condition_variable moved_;
};

/// For a shared mutex that needs no gate.
struct NoReadWriteGate {
    struct WaitingWriter {
        explicit WaitingWriter(NoReadWriteGate&) noexcept {}
        static constexpr bool pass(Deadline) noexcept { return true; }
        void got_lock() noexcept {}
    };
    struct PassingReader {
        explicit PassingReader(NoReadWriteGate&) noexcept {}
        static constexpr bool pass(Deadline) noexcept { return true; }
    };
    [[nodiscard]] static constexpr bool writer_waits() noexcept { return false; }
};

/// A shared mutex in which readers that overlap do not starve a writer, and says so.
template <class SharedMutex>
concept FairSharedMutex = requires { requires SharedMutex::is_fair; };

}  // namespace detail

/// A shared mutex in which nobody starves.
///
/// std::shared_mutex lets readers in as long as one is inside, so that four that overlap keep a
/// writer out for good. Here, while a writer waits:
///
/// 1. A reader that comes waits at the gate; those inside leave, and the writer gets its turn.
/// 2. A reader at the gate is let go on as soon as one writer has got the lock since it came, even
///    if more writers wait; should it then not get in within a millisecond or so, writers that come
///    wait until it has.
/// 3. try_lock_shared() fails, though only readers may be inside.
///
/// A mutex that says `is_fair`, such as ScalableSharedMutex, gets no gate: its own rules hold.
///
/// So a thread that has a shared hold must not ask for a second one: a writer that comes between
/// would make it wait for itself. Apart from that the rules are the mutex's: of those of the
/// standard the thread that locked unlocks. It may be destroyed as soon as its last unlock lets
/// another thread in.
template <SharedLockable SharedMutex>
class BasicReadWriteLock {
  public:
    BasicReadWriteLock() = default;
    BasicReadWriteLock(const BasicReadWriteLock&) = delete;
    BasicReadWriteLock& operator=(const BasicReadWriteLock&) = delete;
    ~BasicReadWriteLock() = default;

    /// Waits for a shared hold.
    /// Requires: the calling thread has no hold.
    /// Returns: the hold, as a guard.
    /// Threads: safe to call concurrently, as every member.
    [[nodiscard]] std::shared_lock<BasicReadWriteLock> read() { return std::shared_lock{*this}; }

    /// Takes a shared hold if no writer holds the lock or waits for it, else returns an empty
    /// guard.
    [[nodiscard]] std::shared_lock<BasicReadWriteLock> try_read() {
        return std::shared_lock{*this, std::try_to_lock};
    }

    /// Waits at most `timeout` for a shared hold. Zero or negative tries once.
    template <class Rep, class Period>
        requires TimedSharedLockable<SharedMutex>
    [[nodiscard]] std::shared_lock<BasicReadWriteLock> try_read_for(
        const std::chrono::duration<Rep, Period>& timeout) {
        return std::shared_lock{*this, timeout};
    }

    /// Waits until `when` for a shared hold. A time that has passed tries once.
    template <class Clock, class Duration>
        requires TimedSharedLockable<SharedMutex>
    [[nodiscard]] std::shared_lock<BasicReadWriteLock> try_read_until(
        const std::chrono::time_point<Clock, Duration>& when) {
        return std::shared_lock{*this, when};
    }

    /// Waits for the exclusive hold.
    /// Requires: the calling thread has no hold.
    /// Returns: the hold, as a guard.
    [[nodiscard]] std::unique_lock<BasicReadWriteLock> write() { return std::unique_lock{*this}; }

    /// Takes the exclusive hold if nobody holds the lock, else returns an empty guard.
    [[nodiscard]] std::unique_lock<BasicReadWriteLock> try_write() {
        return std::unique_lock{*this, std::try_to_lock};
    }

    /// Waits at most `timeout` for the exclusive hold. Zero or negative tries once.
    template <class Rep, class Period>
        requires TimedSharedLockable<SharedMutex>
    [[nodiscard]] std::unique_lock<BasicReadWriteLock> try_write_for(
        const std::chrono::duration<Rep, Period>& timeout) {
        return std::unique_lock{*this, timeout};
    }

    /// Waits until `when` for the exclusive hold. A time that has passed tries once.
    template <class Clock, class Duration>
        requires TimedSharedLockable<SharedMutex>
    [[nodiscard]] std::unique_lock<BasicReadWriteLock> try_write_until(
        const std::chrono::time_point<Clock, Duration>& when) {
        return std::unique_lock{*this, when};
    }

    // The standard's verbs, for the standard's guards. The contracts are those of the verbs above.

    void lock() {
        if (try_lock_past_gate()) return;
        WaitingWriter writer{gate_};
        writer.pass(Deadline::never());
        mutex_.lock();
        writer.got_lock();
    }

    [[nodiscard]] bool try_lock() {
        // Not past writers that wait: they and the readers that wait for them came first.
        return !gate_.writer_waits() && mutex_.try_lock();
    }

    void unlock() noexcept { mutex_.unlock(); }

    template <class Rep, class Period>
        requires TimedSharedLockable<SharedMutex>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& timeout) {
        return try_lock_past_gate() || lock_until(Deadline::after(timeout));
    }

    template <class Clock, class Duration>
        requires TimedSharedLockable<SharedMutex>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& when) {
        return try_lock_past_gate() || lock_until(Deadline::at(when));
    }

    void lock_shared() {
        PassingReader reader{gate_};
        reader.pass(Deadline::never());
        mutex_.lock_shared();
    }

    [[nodiscard]] bool try_lock_shared() {
        return !gate_.writer_waits() && mutex_.try_lock_shared();
    }

    void unlock_shared() noexcept { mutex_.unlock_shared(); }

    template <class Rep, class Period>
        requires TimedSharedLockable<SharedMutex>
    [[nodiscard]] bool try_lock_shared_for(const std::chrono::duration<Rep, Period>& timeout) {
        return try_lock_shared_past_gate() || lock_shared_until(Deadline::after(timeout));
    }

    template <class Clock, class Duration>
        requires TimedSharedLockable<SharedMutex>
    [[nodiscard]] bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& when) {
        return try_lock_shared_past_gate() || lock_shared_until(Deadline::at(when));
    }

  private:
    static constexpr bool gated = !detail::FairSharedMutex<SharedMutex>;
    using Gate = std::conditional_t<gated, detail::ReadWriteGate, detail::NoReadWriteGate>;
    using WaitingWriter = typename Gate::WaitingWriter;
    using PassingReader = typename Gate::PassingReader;

    // A first try before a wait. A mutex that needs no gate makes its own.
    bool try_lock_past_gate() {
        if constexpr (gated) {
            return try_lock();
        } else {
            return false;
        }
    }

    bool try_lock_shared_past_gate() {
        if constexpr (gated) {
            return try_lock_shared();
        } else {
            return false;
        }
    }

    bool lock_until(Deadline deadline) {
        if (gated && deadline.expired()) return false;
        WaitingWriter writer{gate_};
        if (!writer.pass(deadline)) return false;
        const bool acquired = detail::try_lock_until(mutex_, deadline);
        if (acquired) writer.got_lock();
        return acquired;
    }

    bool lock_shared_until(Deadline deadline) {
        if (gated && deadline.expired()) return false;
        PassingReader reader{gate_};
        if (!reader.pass(deadline)) return false;
        return detail::try_lock_shared_until(mutex_, deadline);
    }

    // unlock() and unlock_shared() touch the mutex and nothing else, so that whoever they let in
    // may destroy the lock.
    SharedMutex mutex_;
    [[no_unique_address]] Gate gate_;
};

/// The read-write lock to take by default. It cannot be waited for with a limit.
using ReadWriteLock = BasicReadWriteLock<std::shared_mutex>;

/// A read-write lock that can be waited for with a limit.
using TimedReadWriteLock = BasicReadWriteLock<std::shared_timed_mutex>;

/// A read-write lock whose reads scale with the processors, for a few locks that many threads read
/// at once: see ScalableSharedMutex for its cost. It can be waited for with a limit, and a hold may
/// end on another thread than it began on.
using ScalableReadWriteLock = BasicReadWriteLock<ScalableSharedMutex>;

static_assert(SharedLockable<ReadWriteLock> && !TimedLockable<ReadWriteLock>);
static_assert(TimedSharedLockable<TimedReadWriteLock>);
static_assert(TimedSharedLockable<ScalableReadWriteLock>);
static_assert(sizeof(ScalableReadWriteLock) == sizeof(ScalableSharedMutex));

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_READ_WRITE_LOCK_HPP
