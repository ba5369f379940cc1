// SPDX-License-Identifier: MIT
//
// Locks by name, for names that are known only at run time: accounts, files, tenants. The registry
// makes a lock at the first use of its name, hands out RAII guards, forgets what nobody uses, and
// can say who holds and who waits. It knows concepts only: what the locks are is the backend's
// business. Where the names are known when the program is written, a lock object of one's own is
// simpler and faster.

#ifndef CODOMYRMEX_CONCURRENCY_LOCK_MANAGER_HPP
#define CODOMYRMEX_CONCURRENCY_LOCK_MANAGER_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/backend_parts.hpp>
#include <codomyrmex/concurrency/detail/erased_lock.hpp>
#include <codomyrmex/concurrency/detail/probe.hpp>
#include <codomyrmex/concurrency/detail/registry.hpp>
#include <codomyrmex/concurrency/detail/registry_entry.hpp>
#include <codomyrmex/concurrency/detail/take.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/local_backend.hpp>
#include <codomyrmex/concurrency/lock_guards.hpp>
#include <codomyrmex/concurrency/lock_manager_types.hpp>
#include <codomyrmex/concurrency/on_error.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency {

/// A registry of locks, read-write locks and semaphores by name.
///
/// A name has 1 to 512 bytes of any kind. Each kind has a name space of its own. The manager
/// outlives its guards and handles.
///
/// All verbs come in four forms: the plain one waits for a holder as long as it takes; `try_` does
/// not wait; `try_..._for` and `try_..._until` wait at most so long, and try once if there is no
/// time left. Each returns a guard, empty if it was not obtained in time. Whoever waits for one
/// name holds up nobody who wants another.
///
/// Throws, every verb: LockError(invalid_argument) for a name that will not do, and what the
/// backend throws, LockError if it cannot answer; never on contention. The overload with a
/// `std::error_code&` last puts the error there instead and returns an empty guard; it clears it on
/// success and on contention, so that an empty guard without an error means "not in time".
///
/// Threads: all members are safe to call concurrently. A backend makes its primitives under a mutex
/// of the manager, so it must not call the manager.
/// Cost: a look-up of a name that is there takes no lock: a hash, a comparison and two atomic
/// instructions on a cache line of that name alone, about 20 ns. Many names in use at one time
/// leave less than 100 bytes each behind, until the manager goes.
template <class B = LocalBackend>
    requires Backend<B>
class LockManager {
    using LockPart = detail::LockPart<typename B::lock_type>;
    using ReadWritePart = detail::ReadWritePart<B>;
    using SemaphorePart = detail::SemaphorePart<B>;
    using LockAccess = typename LockPart::Access;
    using ReadAccess = typename ReadWritePart::ReadAccess;
    using WriteAccess = typename ReadWritePart::WriteAccess;
    using PermitAccess = typename SemaphorePart::Access;

  public:
    using backend_type = B;
    using guard_type = Guard<LockAccess>;
    using multi_guard_type = MultiGuard<LockAccess>;
    using handle_type = Handle<typename LockPart::HandleAccess>;
    using read_guard_type = Guard<ReadAccess>;
    using write_guard_type = Guard<WriteAccess>;
    using permit_type = Guard<PermitAccess>;

    /// A manager without entries.
    LockManager()
        requires std::default_initializable<B>
        : LockManager(B{}) {}

    /// The same over `backend`.
    /// Throws: LockError(invalid_argument) if an option is out of its bounds.
    explicit LockManager(B backend, LockManagerOptions options = {})
        : backend_(std::move(backend)),
          probes_(std::make_unique<Probes>(checked(options))),
          locks_(options, probes_->locks),
          read_writes_(options, probes_->read_writes),
          semaphores_(options, probes_->semaphores) {}

    LockManager(const LockManager&) = delete;
    LockManager& operator=(const LockManager&) = delete;

    /// Requires: no guard and no handle of it is left.
    ~LockManager() = default;

    // Locks: one holder a name.

    guard_type lock(std::string_view name, OnError error = {}) {
        return error.run(
            [&] { return detail::take<LockAccess>(lock_entry(name), Deadline::never()); });
    }
    guard_type try_lock(std::string_view name, OnError error = {}) {
        return error.run([&] { return detail::try_take<LockAccess>(lock_entry(name)); });
    }
    template <class Rep, class Period>
    guard_type try_lock_for(std::string_view name,
                            const std::chrono::duration<Rep, Period>& timeout, OnError error = {}) {
        return error.run(
            [&] { return detail::take<LockAccess>(lock_entry(name), Deadline::after(timeout)); });
    }
    template <class Clock, class Duration>
    guard_type try_lock_until(std::string_view name,
                              const std::chrono::time_point<Clock, Duration>& time,
                              OnError error = {}) {
        return error.run(
            [&] { return detail::take<LockAccess>(lock_entry(name), Deadline::at(time)); });
    }

    // Several locks: all or none, in any order, and never in a circle of threads that wait for each
    // other: who has to wait holds none of them meanwhile. One deadline is for all. A name that
    // comes twice is taken once; the guard over no names owns nothing and is true, as
    // std::scoped_lock<>.
    //
    // Cost: over Redis one round trip to try all, and one write to give them back. Where one of
    // them is held elsewhere: another round trip when that one has come free.

    multi_guard_type lock_all(const LockNames& names, OnError error = {}) {
        return error.run(
            [&] { return detail::take_all<LockAccess>(lock_entries(names), Deadline::never()); });
    }
    multi_guard_type try_lock_all(const LockNames& names, OnError error = {}) {
        return error.run([&] { return detail::try_take_all<LockAccess>(lock_entries(names)); });
    }
    template <class Rep, class Period>
    multi_guard_type try_lock_all_for(const LockNames& names,
                                      const std::chrono::duration<Rep, Period>& timeout,
                                      OnError error = {}) {
        return error.run([&] {
            return detail::take_all<LockAccess>(lock_entries(names), Deadline::after(timeout));
        });
    }
    template <class Clock, class Duration>
    multi_guard_type try_lock_all_until(const LockNames& names,
                                        const std::chrono::time_point<Clock, Duration>& time,
                                        OnError error = {}) {
        return error.run(
            [&] { return detail::take_all<LockAccess>(lock_entries(names), Deadline::at(time)); });
    }

    /// Returns: the lock of that name, to lock it oneself: std::scoped_lock guard{lock}.
    [[nodiscard]] handle_type get_lock(std::string_view name) {
        return handle_type{lock_entry(name)};
    }

    // Read-write locks, where the backend makes them: many readers or one writer a name.

    read_guard_type read(std::string_view name, OnError error = {})
        requires detail::MakesReadWrite<B>
    {
        return error.run(
            [&] { return detail::take<ReadAccess>(read_write_entry(name), Deadline::never()); });
    }
    read_guard_type try_read(std::string_view name, OnError error = {})
        requires detail::MakesReadWrite<B>
    {
        return error.run([&] { return detail::try_take<ReadAccess>(read_write_entry(name)); });
    }
    template <class Rep, class Period>
    read_guard_type try_read_for(std::string_view name,
                                 const std::chrono::duration<Rep, Period>& timeout,
                                 OnError error = {})
        requires detail::MakesReadWrite<B>
    {
        return error.run([&] {
            return detail::take<ReadAccess>(read_write_entry(name), Deadline::after(timeout));
        });
    }
    template <class Clock, class Duration>
    read_guard_type try_read_until(std::string_view name,
                                   const std::chrono::time_point<Clock, Duration>& time,
                                   OnError error = {})
        requires detail::MakesReadWrite<B>
    {
        return error.run(
            [&] { return detail::take<ReadAccess>(read_write_entry(name), Deadline::at(time)); });
    }

    write_guard_type write(std::string_view name, OnError error = {})
        requires detail::MakesReadWrite<B>
    {
        return error.run(
            [&] { return detail::take<WriteAccess>(read_write_entry(name), Deadline::never()); });
    }
    write_guard_type try_write(std::string_view name, OnError error = {})
        requires detail::MakesReadWrite<B>
    {
        return error.run([&] { return detail::try_take<WriteAccess>(read_write_entry(name)); });
    }
    template <class Rep, class Period>
    write_guard_type try_write_for(std::string_view name,
                                   const std::chrono::duration<Rep, Period>& timeout,
                                   OnError error = {})
        requires detail::MakesReadWrite<B>
    {
        return error.run([&] {
            return detail::take<WriteAccess>(read_write_entry(name), Deadline::after(timeout));
        });
    }
    template <class Clock, class Duration>
    write_guard_type try_write_until(std::string_view name,
                                     const std::chrono::time_point<Clock, Duration>& time,
                                     OnError error = {})
        requires detail::MakesReadWrite<B>
    {
        return error.run(
            [&] { return detail::take<WriteAccess>(read_write_entry(name), Deadline::at(time)); });
    }

    // Semaphores, where the backend makes them: at most `permits` holders a name. The number is
    // fixed while the name is in use.
    //
    // Throws: also LockError(mismatch) if it is in use with another number,
    // LockError(invalid_argument) if the number will not do, such as one under 1.

    permit_type permit(std::string_view name, std::ptrdiff_t permits, OnError error = {})
        requires detail::MakesSemaphores<B>
    {
        return error.run([&] {
            return detail::take<PermitAccess>(semaphore_entry(name, permits), Deadline::never());
        });
    }
    permit_type try_permit(std::string_view name, std::ptrdiff_t permits, OnError error = {})
        requires detail::MakesSemaphores<B>
    {
        return error.run(
            [&] { return detail::try_take<PermitAccess>(semaphore_entry(name, permits)); });
    }
    template <class Rep, class Period>
    permit_type try_permit_for(std::string_view name, std::ptrdiff_t permits,
                               const std::chrono::duration<Rep, Period>& timeout,
                               OnError error = {})
        requires detail::MakesSemaphores<B>
    {
        return error.run([&] {
            return detail::take<PermitAccess>(semaphore_entry(name, permits),
                                              Deadline::after(timeout));
        });
    }
    template <class Clock, class Duration>
    permit_type try_permit_until(std::string_view name, std::ptrdiff_t permits,
                                 const std::chrono::time_point<Clock, Duration>& time,
                                 OnError error = {})
        requires detail::MakesSemaphores<B>
    {
        return error.run([&] {
            return detail::take<PermitAccess>(semaphore_entry(name, permits), Deadline::at(time));
        });
    }

    // Locks of the user's own, of any TimedLockable type.

    /// Puts `lock` under that name: from now on all that asks for the name's lock gets this one. It
    /// stays until unregister_lock(). If it has fence(), valid(), remaining() and stop_token(), the
    /// guards of a leasing backend tell what it says.
    /// Requires: `lock` outlives the entry.
    /// Throws: LockError(invalid_argument) for a name that will not do, is registered, or is in
    /// use.
    template <TimedLockable L>
    void register_lock(std::string_view name, L& lock, OnError error = {}) {
        error.run([&] { register_erased(name, detail::ErasedLock{lock}); });
    }

    /// As above, and keeps a share in the lock.
    /// Throws: also LockError(invalid_argument) for a null pointer.
    template <TimedLockable L>
    void register_lock(std::string_view name, std::shared_ptr<L> lock, OnError error = {}) {
        error.run([&] {
            if (!lock) throw LockError(LockErrc::invalid_argument, "register_lock: a null pointer");
            register_erased(name, detail::ErasedLock{std::move(lock)});
        });
    }

    /// Takes back what register_lock() did; the name is free again.
    /// Returns: false if no lock is registered under that name.
    /// Throws: LockError(in_use) while somebody holds the lock through this manager, waits for it
    /// or has a handle on it.
    bool unregister_lock(std::string_view name, OnError error = {}) {
        return error.run([&] { return locks_.unpin(name); });
    }

    // What goes on.

    /// Returns: the counts. Cost: looks at every entry, a shard at a time.
    [[nodiscard]] LockManagerStats stats() const {
        LockManagerStats stats;
        visit_kinds([&](const auto& registry, LockKind) { registry.add_to(stats); });
        return stats;
    }

    /// Returns: the counts of one name; nothing if there is no such entry, or no longer.
    /// Cost: a look-up.
    [[nodiscard]] std::optional<LockEntry> stats(std::string_view name,
                                                 LockKind kind = LockKind::lock) const {
        std::optional<LockEntry> found;
        visit_kinds([&](const auto& registry, LockKind each) {
            if (each != kind) return;
            registry.visit(name, [&](const auto& entry) { found = describe(entry, kind); });
        });
        return found;
    }

    /// Returns: the entries, sorted by name and then by kind; idle ones too, until they are
    /// forgotten. Cost: as stats(), and a copy of every name.
    [[nodiscard]] std::vector<LockEntry> list() const {
        std::vector<LockEntry> entries;
        visit_kinds([&](const auto& registry, LockKind kind) {
            registry.for_each([&](const auto& entry) { entries.push_back(describe(entry, kind)); });
        });
        std::sort(entries.begin(), entries.end(), [](const LockEntry& a, const LockEntry& b) {
            return std::tie(a.name, a.kind) < std::tie(b.name, b.kind);
        });
        return entries;
    }

  private:
    static const LockManagerOptions& checked(const LockManagerOptions& options) {
        if (options.shards < 1 || options.shards > 65'536) {
            throw LockError(LockErrc::invalid_argument,
                            "LockManagerOptions::shards must be from 1 to 65536, not " +
                                std::to_string(options.shards));
        }
        return options;
    }

    static void check_name(std::string_view name) {
        if (name.empty() || name.size() > 512) [[unlikely]] {
            throw LockError(LockErrc::invalid_argument,
                            "a name must have 1 to 512 bytes, not " + std::to_string(name.size()));
        }
    }

    [[nodiscard]] auto lock_entry(std::string_view name) {
        check_name(name);
        return locks_.find_or_make(name, 0,
                                   [&] { return Slot{[&] { return backend_.make_lock(name); }}; });
    }

    [[nodiscard]] auto lock_entries(const LockNames& names) {
        std::vector<detail::Reference<Slot>> entries;
        entries.reserve(names.size());
        for (const std::string_view name : names)
            entries.push_back(lock_entry(name));
        return entries;
    }

    [[nodiscard]] auto read_write_entry(std::string_view name) {
        check_name(name);
        return read_writes_.find_or_make(name, 0, [&] { return backend_.make_read_write(name); });
    }

    [[nodiscard]] auto semaphore_entry(std::string_view name, std::ptrdiff_t permits) {
        check_name(name);
        return semaphores_.find_or_make(name, permits,
                                        [&] { return backend_.make_semaphore(name, permits); });
    }

    void register_erased(std::string_view name, detail::ErasedLock lock) {
        check_name(name);
        if (!locks_.pin(name, [&] { return Slot{std::move(lock)}; })) {
            throw LockError(LockErrc::invalid_argument,
                            "register_lock: the name '" + std::string{name} + "' is taken");
        }
    }

    template <class Entry>
    [[nodiscard]] static LockEntry describe(const Entry& entry, LockKind kind) {
        LockEntry described;
        described.name = entry.name;
        described.kind = kind;
        entry.counters.add_to(described, described.held);
        described.waiting = entry.counters.waiting();
        if (entry.times) {
            described.waits = entry.times->waits.snapshot();
            described.holds = entry.times->holds.snapshot();
        }
        return described;
    }

    template <class Visit>
    void visit_kinds(Visit visit) const {
        visit(locks_, LockKind::lock);
        if constexpr (detail::MakesReadWrite<B>) visit(read_writes_, LockKind::read_write);
        if constexpr (detail::MakesSemaphores<B>) visit(semaphores_, LockKind::semaphore);
    }

    // Apart from the manager, for they are large.
    struct Probes {
        explicit Probes(const LockManagerOptions& options)
            : locks{LockKind::lock, options},
              read_writes{LockKind::read_write, options},
              semaphores{LockKind::semaphore, options} {}
        detail::Probe locks;
        detail::Probe read_writes;
        detail::Probe semaphores;
    };

    using Slot = detail::LockSlot<typename B::lock_type>;

    // Declared first, so destroyed last: the primitives may refer to what it keeps.
    const B backend_;
    const std::unique_ptr<Probes> probes_;
    typename LockPart::Registry locks_;
    [[no_unique_address]] typename ReadWritePart::Registry read_writes_;
    [[no_unique_address]] typename SemaphorePart::Registry semaphores_;
};

static_assert(TimedLockable<LockManager<>::handle_type>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_LOCK_MANAGER_HPP
