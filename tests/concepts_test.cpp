// SPDX-License-Identifier: MIT
//
// Tests of concepts.hpp: what the standard's types are, and are not. All of it is decided when this
// file is compiled; the one test case says that it was.

#include <codomyrmex/concurrency/concepts.hpp>

#include "support/catch2.hpp"
#include "support/fake_semaphore.hpp"

#include <chrono>
#include <memory>
#include <mutex>
#include <semaphore>
#include <shared_mutex>
#include <string_view>

using namespace codomyrmex::concurrency;

namespace {

// One row a type: what it is, and that it is no more.

static_assert(Lockable<std::mutex> && BasicLockable<std::mutex>);
static_assert(!TimedLockable<std::mutex> && !SharedLockable<std::mutex>);
static_assert(Lockable<std::recursive_mutex>);
static_assert(!TimedLockable<std::recursive_mutex> && !SharedLockable<std::recursive_mutex>);

static_assert(TimedLockable<std::timed_mutex> && TimedLockable<std::recursive_timed_mutex>);
static_assert(!SharedLockable<std::timed_mutex> && !TimedSharedLockable<std::timed_mutex>);

static_assert(SharedLockable<std::shared_mutex>);
static_assert(!TimedLockable<std::shared_mutex> && !TimedSharedLockable<std::shared_mutex>);

static_assert(TimedSharedLockable<std::shared_timed_mutex>);
static_assert(TimedLockable<std::shared_timed_mutex> && SharedLockable<std::shared_timed_mutex>);

static_assert(TimedLockable<std::unique_lock<std::timed_mutex>>);
static_assert(!SharedLockable<std::unique_lock<std::shared_mutex>>);
static_assert(!BasicLockable<std::scoped_lock<std::mutex>> && !BasicLockable<int>);

static_assert(TimedSemaphore<std::counting_semaphore<>> && TimedSemaphore<std::binary_semaphore>);
static_assert(Semaphore<std::counting_semaphore<5>>);
static_assert(!Lockable<std::binary_semaphore> && !Leasing<std::binary_semaphore>);
static_assert(!Semaphore<std::mutex> && !Semaphore<int>);

static_assert(!Leasing<std::mutex> && !LeaseLike<std::unique_lock<std::mutex>>);
static_assert(!Backend<std::mutex> && !Backend<int>);

// A type lacks one thing each.

struct NoUnlock {
    void lock();
};
static_assert(!BasicLockable<NoUnlock>);

struct NoTry : NoUnlock {
    void unlock();
};
static_assert(BasicLockable<NoTry> && !Lockable<NoTry>);

struct TryTellsNothing : NoTry {
    void try_lock();
};
static_assert(!Lockable<TryTellsNothing>);

struct OnlyFor : NoTry {
    bool try_lock();
    bool try_lock_for(std::chrono::nanoseconds);
};
static_assert(Lockable<OnlyFor> && !TimedLockable<OnlyFor>);

struct SharedWithoutUnlock : OnlyFor {
    void lock_shared();
    bool try_lock_shared();
};
static_assert(!SharedLockable<SharedWithoutUnlock>);

struct SharedWithoutTimes : SharedWithoutUnlock {
    void unlock_shared();
    bool try_lock_until(std::chrono::steady_clock::time_point);
};
static_assert(SharedLockable<SharedWithoutTimes> && TimedLockable<SharedWithoutTimes>);
static_assert(!TimedSharedLockable<SharedWithoutTimes>);

struct NeverGivesBack {
    void acquire();
    bool try_acquire();
};
static_assert(!Semaphore<NeverGivesBack>);

struct Untimed : NeverGivesBack {
    void release();
};
static_assert(Semaphore<Untimed> && !TimedSemaphore<Untimed>);

// Leases.

using support::FakeLease;
static_assert(LeaseLike<FakeLease>);

struct Copyable : FakeLease {
    Copyable(const Copyable&);
    Copyable& operator=(const Copyable&);
};
static_assert(!LeaseLike<Copyable>);

struct FenceMayThrow : FakeLease {
    std::uint64_t fence() const;
};
static_assert(!LeaseLike<FenceMayThrow>);

struct FenceIsSmall : FakeLease {
    int fence() const noexcept;
};
static_assert(!LeaseLike<FenceIsSmall>);

struct ReleaseTellsNothing : FakeLease {
    void release();
};
static_assert(!LeaseLike<ReleaseTellsNothing>);

static_assert(Leasing<support::FakeSemaphore>);

struct OtherLease : support::FakeSemaphore {
    std::unique_ptr<FakeLease> try_lease();
};
static_assert(!Leasing<OtherLease>);

// Backends.

struct Mutexes {
    using lock_type = std::timed_mutex;
    lock_type make_lock(std::string_view) const;
};
static_assert(Backend<Mutexes>);

struct UntimedMutexes {
    using lock_type = std::mutex;
    lock_type make_lock(std::string_view) const;
};
static_assert(!Backend<UntimedMutexes>);

struct MakesByPointer {
    using lock_type = std::timed_mutex;
    std::unique_ptr<lock_type> make_lock(std::string_view) const;
};
static_assert(!Backend<MakesByPointer>);

struct NotCopied : Mutexes {
    NotCopied(const NotCopied&) = delete;
};
static_assert(!Backend<NotCopied>);

}  // namespace

TEST_CASE("the standard's types are what our concepts say, and no more") {
    SUCCEED("decided at compile time");
}
