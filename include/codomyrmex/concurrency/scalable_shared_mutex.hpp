// SPDX-License-Identifier: MIT
//
// A shared mutex for data that many threads read at once and seldom write: readers on different
// processors touch different cache lines, so that reads scale. It pays for that with its size, half
// a kilobyte and more, and with a slower first write after many reads; so it is for a few hot
// locks. Where locks are many, or writes are, take std::shared_mutex, or ReadWriteLock with it.

#ifndef CODOMYRMEX_CONCURRENCY_SCALABLE_SHARED_MUTEX_HPP
#define CODOMYRMEX_CONCURRENCY_SCALABLE_SHARED_MUTEX_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/spin.hpp>
#include <codomyrmex/concurrency/detail/thread_slot.hpp>
#include <codomyrmex/concurrency/detail/timed_wait.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>

namespace codomyrmex::concurrency {

/// A SharedTimedMutex, as the standard has it, with `Slots` reader counters on cache lines of their
/// own. Nobody starves:
///
/// 1. A writer tries a few times to find nobody inside. If there is somebody each time, after
///    about half a millisecond new readers wait until it has had its turn.
/// 2. A reader waits for one writer's turn at most: whoever waits to read when a writer unlocks is
///    let in before the next writer.
/// 3. Writers among themselves have no order, as with std::mutex.
///
/// So a thread that has a shared hold must not ask for a second one: a writer that comes between
/// would make it wait for itself.
///
/// | slots | means | a reader comes or goes by |
/// | --- | --- | --- |
/// | open | no writer is at work | one atomic instruction on a slot |
/// | closed | one is, or reads between writes are too few to be worth opening | a mutex, a count |
///
/// A hold belongs to no thread, a shared one or the exclusive one: any thread may end it. It may be
/// destroyed as soon as nobody has a hold or asks for one, even if the unlock that let the last
/// user in has not returned.
///
/// Cost: a read is two atomic instructions while the slots are open. A write is two cycles of an
/// uncontended mutex; after reads also one atomic instruction a slot; and the wait for the readers
/// inside. `sizeof` is 64 bytes a slot and about 200 more.
template <std::size_t Slots>
class BasicScalableSharedMutex {
    static_assert(std::has_single_bit(Slots) && Slots <= 4096,
                  "Slots must be a power of two, at most 4096");

  public:
    /// It keeps writers from starving itself: BasicReadWriteLock needs no gate in front of it.
    static constexpr bool is_fair = true;

    /// A lock nobody holds.
    BasicScalableSharedMutex() = default;

    BasicScalableSharedMutex(const BasicScalableSharedMutex&) = delete;
    BasicScalableSharedMutex& operator=(const BasicScalableSharedMutex&) = delete;

    /// Requires: nobody has a hold or waits for one.
    ~BasicScalableSharedMutex() {
        // A writer that unlocks opens the slots one by one, and a reader may have come and gone
        // through the first before the last is open. It does so under the mutex: wait for it.
        const std::lock_guard guard{mutex_};
    }

    /// Waits for the exclusive hold.
    /// Requires: the calling thread has no hold.
    /// Throws: std::system_error if std::mutex does.
    /// Threads: safe to call concurrently, as every member.
    void lock() { lock_until(Deadline::never()); }

    /// Takes the exclusive hold if nobody has a hold and no writer waits.
    /// Requires: as lock().
    /// Returns: true if acquired.
    /// Throws: as lock().
    [[nodiscard]] bool try_lock() {
        const std::lock_guard guard{mutex_};
        if (writer_ || writers_waiting_ != 0) return false;
        if (!closed_) {
            // First a look that does not disturb the readers. Relaxed: it decides only whether to
            // look again.
            std::uint64_t sum = 0;
            for (const Slot& slot : slots_)
                sum += slot.word.load(std::memory_order_relaxed);
            if (holds_in(sum) != 0) return false;
            close();
        }
        if (!is_free()) {
            open_if_it_pays(expected_reads_);
            return false;
        }
        begin_write();
        return true;
    }

    /// Waits at most `timeout` for the exclusive hold.
    /// Requires: as lock().
    /// Returns: true if acquired. Zero or negative tries once; too large to add to now waits for as
    /// long as it takes.
    /// Throws: as lock().
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& timeout) {
        return lock_until(Deadline::after(timeout));
    }

    /// Waits until `when` for the exclusive hold; otherwise as try_lock_for(). time_point::max() is
    /// never.
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& when) {
        return lock_until(Deadline::at(when));
    }

    /// Ends the exclusive hold.
    /// Requires: somebody has it.
    void unlock() noexcept {
        const std::lock_guard guard{mutex_};
        writer_ = false;
        at_work_ = writers_waiting_ != 0;
        if (readers_waiting_ != 0) {
            admit_readers();
        } else if (writers_waiting_ != 0) {
            // While the mutex is held, as wherever we notify: whoever is notified may be the last
            // to use the lock, and cannot return and destroy it before we are done with it.
            writer_may_go_.notify_one();
        }
        open_if_it_pays(expected_reads_);
    }

    /// Waits for a shared hold.
    /// Requires: the calling thread has no hold.
    /// Throws: as lock().
    void lock_shared() {
        if (!enter_slot()) lock_shared_until(Deadline::never());
    }

    /// Takes a shared hold if no writer holds the lock or keeps new readers out.
    /// Requires: as lock_shared().
    /// Returns: true if acquired.
    /// Throws: as lock().
    [[nodiscard]] bool try_lock_shared() {
        if (enter_slot()) return true;
        const std::lock_guard guard{mutex_};
        return enter();
    }

    /// Waits at most `timeout` for a shared hold.
    /// Requires: as lock_shared().
    /// Returns: as try_lock_for().
    /// Throws: as lock().
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_shared_for(const std::chrono::duration<Rep, Period>& timeout) {
        return enter_slot() || lock_shared_until(Deadline::after(timeout));
    }

    /// Waits until `when` for a shared hold; otherwise as try_lock_shared_for().
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& when) {
        return enter_slot() || lock_shared_until(Deadline::at(when));
    }

    /// Ends a shared hold.
    /// Requires: somebody has one.
    void unlock_shared() noexcept {
        std::atomic<std::uint64_t>& word = slot();
        auto seen = word.load(std::memory_order_relaxed);
        while ((seen & closed_bit) == 0) {
            // Release: what the reader did comes before the writer that closes the slot; see
            // close(). The slot need not be the one in which the hold began, so a slot may count
            // below zero: only the sum of all means something. The exchange is the last that this
            // does to the lock, for a writer may take it then and destroy it.
            if (word.compare_exchange_weak(seen, seen - one_hold, std::memory_order_release,
                                           std::memory_order_relaxed)) {
                return;
            }
        }
        // The lock is there as long as the hold is counted, which ends under the mutex.
        const std::lock_guard guard{mutex_};
        if (closed_) {
            readers_ = readers_ - 1;
            if (readers_ == 0 && writers_waiting_ != 0) writer_may_go_.notify_one();
        } else {
            word.fetch_sub(one_hold, std::memory_order_release);
        }
    }

  private:
    // A slot's word has, from its lowest bit: whether the slot is closed; 31 bits of holds begun
    // less holds ended; 32 bits of holds begun. They wrap, and one may borrow from the next; in the
    // sum over all slots they are right.
    static constexpr std::uint64_t closed_bit = 1;
    static constexpr std::uint64_t one_hold = 2;
    static constexpr std::uint64_t one_begin = std::uint64_t{1} << 32;

    static constexpr std::uint64_t holds_in(std::uint64_t sum) noexcept {
        return (sum & (one_begin - 1)) / one_hold;
    }

    // With fewer reads than this between two writes, to open the slots and close them again costs
    // more than the reads gain.
    static constexpr std::uint64_t reads_that_pay = 6;

    // How often who meets somebody looks again before it does something slower: about as long as
    // a short hold takes, and less than to fall asleep and be woken.
    static constexpr int looks = 64;

    // For how long a writer tries to find nobody inside before it keeps new readers out, and how
    // long it stands back after each try. Where threads are more than processors, some were put
    // aside in the middle of a read, and it takes far longer than a read until they run again. If
    // each writer kept the others out for so long, all would wait most of the time. So would they
    // if it tried often: a try wakes a thread for nothing.
    static constexpr std::chrono::microseconds patience{400};
    static constexpr std::chrono::microseconds pause{200};

    struct alignas(64) Slot {
        std::atomic<std::uint64_t> word{0};
    };

    /// Written under the mutex; read without it by who only wants a hint. So relaxed is enough:
    /// whoever acts on it looks again under the mutex.
    template <class T>
    class Hint {
      public:
        // NOLINTNEXTLINE(google-explicit-constructor): reads as the plain value that it is
        operator T() const noexcept { return value_.load(std::memory_order_relaxed); }
        Hint& operator=(T value) noexcept {
            value_.store(value, std::memory_order_relaxed);
            return *this;
        }

      private:
        std::atomic<T> value_{};
    };

    [[nodiscard]] std::atomic<std::uint64_t>& slot() noexcept {
        return slots_[detail::thread_slot(Slots)].word;
    }

    /// Takes a shared hold if the thread's slot is open.
    [[nodiscard]] bool enter_slot() noexcept {
        std::atomic<std::uint64_t>& word = slot();
        auto seen = word.load(std::memory_order_relaxed);
        while ((seen & closed_bit) == 0) {
            // Acquire: reads what open() stored or what came of it by exchanges, so it comes after
            // all writers before. The bit and the count are in one word, so that no writer can
            // close the slot between the look and the count.
            if (word.compare_exchange_weak(seen, seen + one_hold + one_begin,
                                           std::memory_order_acquire, std::memory_order_relaxed)) {
                return true;
            }
            // Somebody else uses this slot right now.
            if ((seen & closed_bit) == 0) detail::move_thread_slot();
        }
        return false;
    }

    // From here on the mutex is held, and a slot that is closed is changed by its holder only.

    /// Makes all readers come and go under the mutex, and `readers_` the number of those inside.
    void close() noexcept {
        if (closed_) return;
        closed_ = true;
        std::uint64_t sum = 0;
        for (Slot& slot : slots_) {
            // Acquire: comes after every reader that left by this slot. An open slot is changed by
            // exchanges only, so each of them began or went on with the release sequence that this
            // exchange reads from.
            //
            // The slots are not closed in one moment, but the sum is exact. Every hold began by a
            // slot that was open, so its beginning is in the sum. Its end is too, if it came by an
            // open slot; if not, the thread waits for the mutex and takes it off `readers_` later.
            sum += slot.word.exchange(closed_bit, std::memory_order_acquire);
        }
        readers_ = holds_in(sum);
        reads_ += sum / one_begin;
    }

    /// Lets readers come and go by the slots again, those inside too.
    void open() noexcept {
        closed_ = false;
        // Those inside may be counted in any slot. Release: who comes by a slot comes after the
        // last writer, who unlocked under the mutex before this.
        slots_[0].word.store(readers_ * one_hold, std::memory_order_release);
        for (std::size_t i = 1; i < Slots; ++i)
            slots_[i].word.store(0, std::memory_order_release);
    }

    void open_if_it_pays(std::uint64_t reads) noexcept {
        if (closed_ && !writer_ && writers_waiting_ == 0 && reads >= reads_that_pay) open();
    }

    [[nodiscard]] bool is_free() const noexcept { return !writer_ && readers_ == 0; }

    /// Requires: closed, and is_free().
    void begin_write() noexcept {
        writer_ = true;
        at_work_ = true;
        expected_reads_ = reads_;
        reads_ = 0;
    }

    /// Takes a shared hold if no writer holds the lock or waits.
    [[nodiscard]] bool enter() noexcept {
        if (writer_ || writers_waiting_ != 0) return false;
        if (closed_) {
            readers_ = readers_ + 1;
            ++reads_;
            open_if_it_pays(reads_);
        } else {
            // Relaxed: the mutex has brought what the last writer wrote.
            slot().fetch_add(one_hold + one_begin, std::memory_order_relaxed);
        }
        return true;
    }

    /// Lets all in who wait to read.
    void admit_readers() noexcept {
        readers_ = readers_ + readers_waiting_;
        reads_ += readers_waiting_;
        readers_waiting_ = 0;
        ++admissions_;
        readers_may_go_.notify_all();
    }

    /// What a writer does that tried in vain: those whom it kept out need not wait for it.
    void stand_back() noexcept {
        if (writer_ || writers_waiting_ != 0) return;
        at_work_ = false;
        if (readers_waiting_ != 0) admit_readers();
        open_if_it_pays(std::max(expected_reads_, reads_));
    }

    // From here on it is not.

    bool lock_until(Deadline deadline) {
        std::unique_lock guard{mutex_};
        auto impatient = Deadline::never();
        while (!try_closed(guard)) {
            if (deadline.expired()) {
                stand_back();
                return false;
            }
            if (impatient.is_never()) impatient = Deadline::after(patience);
            if (impatient.expired()) return wait_for_turn(guard, deadline);
            stand_back();
            guard.unlock();
            std::this_thread::sleep_until(std::min(deadline, Deadline::after(pause)).time());
            guard.lock();
        }
        begin_write();
        return true;
    }

    /// Keeps readers out for as long as a short hold takes. Returns: whether all have left.
    [[nodiscard]] bool try_closed(std::unique_lock<std::mutex>& guard) {
        close();
        if (is_free()) return true;
        at_work_ = true;
        // Without the mutex, which they need to leave.
        guard.unlock();
        (void)detail::spin_until(looks, [this] { return is_free(); });
        guard.lock();
        close();
        return is_free();
    }

    /// Keeps new readers out until all have left.
    bool wait_for_turn(std::unique_lock<std::mutex>& guard, Deadline deadline) {
        ++writers_waiting_;
        const bool free =
            detail::wait_until(writer_may_go_, guard, deadline, [this] { return is_free(); });
        --writers_waiting_;
        if (free) {
            begin_write();
        } else {
            stand_back();
        }
        return free;
    }

    bool lock_shared_until(Deadline deadline) {
        if (detail::spin_until(looks, [this] { return !at_work_; }) && enter_slot()) return true;
        std::unique_lock guard{mutex_};
        if (enter()) return true;
        ++readers_waiting_;
        const auto admitted = [this, before = admissions_] { return admissions_ != before; };
        if (detail::wait_until(readers_may_go_, guard, deadline, admitted)) return true;
        --readers_waiting_;
        return false;
    }

    std::array<Slot, Slots> slots_;
    std::mutex mutex_;
    std::condition_variable writer_may_go_;
    std::condition_variable readers_may_go_;
    std::uint64_t reads_ = 0;           // since the last write began, as far as they are known
    std::uint64_t expected_reads_ = 0;  // how many there were between the last two writes
    std::uint64_t admissions_ = 0;      // how often admit_readers() was called
    Hint<std::uint64_t> readers_;       // shared holds, while closed
    std::size_t readers_waiting_ = 0;
    std::size_t writers_waiting_ = 0;  // that keep new readers out
    Hint<bool> writer_;                // there is an exclusive hold
    Hint<bool> at_work_;               // a writer has the lock or will soon, or give up soon
    bool closed_ = false;
};

/// With as many slots as serve some dozens of processors. 704 bytes with libstdc++ on x86-64.
using ScalableSharedMutex = BasicScalableSharedMutex<8>;

static_assert(TimedSharedLockable<ScalableSharedMutex>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_SCALABLE_SHARED_MUTEX_HPP
