// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/lock_manager.hpp>

#include "support/catch2.hpp"
#include "support/fake_leasing_backend.hpp"
#include "support/thread.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::eventually;
using support::FakeLeasingBackend;
using support::FakeServer;

namespace {

using Clock = std::chrono::steady_clock;
using LocalManager = LockManager<LocalBackend>;
using LeasingManager = LockManager<FakeLeasingBackend>;

/// A backend that makes nothing but locks, for a manager without the other verbs. Its locks do what
/// the test wrote down for their name, and write down what they are asked for.
class ScriptedBackend {
  public:
    struct Script {
        /// How many calls of try_lock fail first.
        int busy = 0;
        /// Whether try_lock throws.
        bool broken = false;
        int held = 0;
        std::vector<Clock::time_point> deadlines{};
    };

    class Lock {
      public:
        explicit Lock(Script& script) : script_{script} {}
        Lock(const Lock&) = delete;
        Lock& operator=(const Lock&) = delete;

        void lock() { ++script_.held; }
        bool try_lock() {
            if (script_.broken) throw LockError{LockErrc::backend_unavailable, "scripted"};
            if (script_.busy > 0) return --script_.busy < 0;
            ++script_.held;
            return true;
        }
        bool try_lock_for(std::chrono::nanoseconds) { return false; }
        bool try_lock_until(Clock::time_point time) {
            script_.deadlines.push_back(time);
            ++script_.held;
            return true;
        }
        void unlock() noexcept { --script_.held; }

      private:
        Script& script_;
    };

    using lock_type = Lock;

    [[nodiscard]] Lock make_lock(std::string_view name) const {
        return Lock{(*scripts)[std::string{name}]};
    }

    std::shared_ptr<std::map<std::string, Script>> scripts =
        std::make_shared<std::map<std::string, Script>>();
};

template <class M>
concept HasReads = requires(M& manager) { manager.read("a"); };
template <class M>
concept HasPermits = requires(M& manager) { manager.permit("a", 1); };

static_assert(HasReads<LocalManager> && HasPermits<LocalManager>);
static_assert(!HasReads<LockManager<ScriptedBackend>> && !HasPermits<LockManager<ScriptedBackend>>);
static_assert(!std::is_copy_constructible_v<LocalManager>);
static_assert(!std::is_move_constructible_v<LocalManager>);

template <class Manager>
bool is_free(Manager& manager, std::string_view name) {
    return support::on_another_thread([&] { return manager.try_lock(name).owns_lock(); });
}

/// A verb of the manager, in all its forms, as functions that say whether they obtained.
struct Verb {
    std::string name;
    std::function<bool(LocalManager&, std::string_view)> plain, tried, in_time, by_time;
    std::function<bool(LocalManager&, std::string_view, std::error_code&)> plain_code, tried_code,
        in_time_code, by_time_code;
    /// Holds so that the verb is in the way of itself, until what it returns is destroyed.
    std::function<std::shared_ptr<void>(LocalManager&, std::string_view)> hold;
};

template <class Guard>
std::shared_ptr<void> kept(Guard guard) {
    return std::make_shared<Guard>(std::move(guard));
}

std::vector<Verb> all_verbs() {
    using M = LocalManager;
    using N = std::string_view;
    using E = std::error_code;
    const auto soon = 1ms;
    const auto then = [] { return Clock::now() + 1ms; };
    return {
        {"lock", [](M& m, N n) { return !!m.lock(n); }, [](M& m, N n) { return !!m.try_lock(n); },
         [=](M& m, N n) { return !!m.try_lock_for(n, soon); },
         [=](M& m, N n) { return !!m.try_lock_until(n, then()); },
         [](M& m, N n, E& e) { return !!m.lock(n, e); },
         [](M& m, N n, E& e) { return !!m.try_lock(n, e); },
         [=](M& m, N n, E& e) { return !!m.try_lock_for(n, soon, e); },
         [=](M& m, N n, E& e) { return !!m.try_lock_until(n, then(), e); },
         [](M& m, N n) { return kept(m.lock(n)); }},
        {"read", [](M& m, N n) { return !!m.read(n); }, [](M& m, N n) { return !!m.try_read(n); },
         [=](M& m, N n) { return !!m.try_read_for(n, soon); },
         [=](M& m, N n) { return !!m.try_read_until(n, then()); },
         [](M& m, N n, E& e) { return !!m.read(n, e); },
         [](M& m, N n, E& e) { return !!m.try_read(n, e); },
         [=](M& m, N n, E& e) { return !!m.try_read_for(n, soon, e); },
         [=](M& m, N n, E& e) { return !!m.try_read_until(n, then(), e); },
         [](M& m, N n) { return kept(m.write(n)); }},
        {"write", [](M& m, N n) { return !!m.write(n); },
         [](M& m, N n) { return !!m.try_write(n); },
         [=](M& m, N n) { return !!m.try_write_for(n, soon); },
         [=](M& m, N n) { return !!m.try_write_until(n, then()); },
         [](M& m, N n, E& e) { return !!m.write(n, e); },
         [](M& m, N n, E& e) { return !!m.try_write(n, e); },
         [=](M& m, N n, E& e) { return !!m.try_write_for(n, soon, e); },
         [=](M& m, N n, E& e) { return !!m.try_write_until(n, then(), e); },
         [](M& m, N n) { return kept(m.read(n)); }},
        {"permit", [](M& m, N n) { return !!m.permit(n, 1); },
         [](M& m, N n) { return !!m.try_permit(n, 1); },
         [=](M& m, N n) { return !!m.try_permit_for(n, 1, soon); },
         [=](M& m, N n) { return !!m.try_permit_until(n, 1, then()); },
         [](M& m, N n, E& e) { return !!m.permit(n, 1, e); },
         [](M& m, N n, E& e) { return !!m.try_permit(n, 1, e); },
         [=](M& m, N n, E& e) { return !!m.try_permit_for(n, 1, soon, e); },
         [=](M& m, N n, E& e) { return !!m.try_permit_until(n, 1, then(), e); },
         [](M& m, N n) { return kept(m.permit(n, 1)); }},
        {"lock_all",
         [](M& m, N n) {
             return !!m.lock_all({n, "z"});
         },
         [](M& m, N n) {
             return !!m.try_lock_all({n, "z"});
         },
         [=](M& m, N n) {
             return !!m.try_lock_all_for({n, "z"}, soon);
         },
         [=](M& m, N n) {
             return !!m.try_lock_all_until({n, "z"}, then());
         },
         [](M& m, N n, E& e) {
             return !!m.lock_all({n, "z"}, e);
         },
         [](M& m, N n, E& e) {
             return !!m.try_lock_all({n, "z"}, e);
         },
         [=](M& m, N n, E& e) {
             return !!m.try_lock_all_for({n, "z"}, soon, e);
         },
         [=](M& m, N n, E& e) {
             return !!m.try_lock_all_until({n, "z"}, then(), e);
         },
         [](M& m, N n) { return kept(m.lock(n)); }},
    };
}

}  // namespace

TEST_CASE("Every form of every verb obtains what is free and gives it back") {
    for (const Verb& verb : all_verbs()) {
        INFO(verb.name);
        LocalManager manager;
        CHECK(verb.plain(manager, "a"));
        CHECK(verb.tried(manager, "a"));
        CHECK(verb.in_time(manager, "a"));
        CHECK(verb.by_time(manager, "a"));
        std::error_code error;
        for (const auto& form :
             {verb.plain_code, verb.tried_code, verb.in_time_code, verb.by_time_code}) {
            error = LockErrc::abandoned;
            CHECK(form(manager, "a", error));
            CHECK_FALSE(error);
        }
        const auto stats = manager.stats();
        CHECK(stats.acquisitions == (verb.name == "lock_all" ? 16 : 8));
        CHECK(stats.releases == stats.acquisitions);
        CHECK(stats.active == 0);
        CHECK(stats.contended == 0);
        CHECK(stats.timeouts == 0);
    }
}

TEST_CASE("Every form that does not wait for good is empty while somebody is in the way") {
    for (const Verb& verb : all_verbs()) {
        INFO(verb.name);
        LocalManager manager;
        const auto holder = verb.hold(manager, "a");
        std::error_code error = LockErrc::abandoned;
        // On another thread, as the standard wants it of a mutex.
        support::Thread{[&] {
            const bool none[] = {verb.tried(manager, "a"), verb.in_time(manager, "a"),
                                 verb.by_time(manager, "a"), verb.tried_code(manager, "a", error)};
            if (std::count(std::begin(none), std::end(none), true) != 0) {
                error = LockErrc::unknown_outcome;
            }
        }}.join();
        CHECK_FALSE(error);
        auto stats = manager.stats();
        CHECK(stats.contended == 4);
        CHECK(stats.timeouts == 2);
        CHECK(stats.active == 1);
        support::Thread{[&] {
            error = LockErrc::abandoned;
            if (verb.in_time_code(manager, "a", error)) error = LockErrc::unknown_outcome;
            std::error_code other = LockErrc::abandoned;
            if (verb.by_time_code(manager, "a", other) || other) error = LockErrc::unknown_outcome;
        }}.join();
        CHECK_FALSE(error);
        stats = manager.stats();
        CHECK(stats.timeouts == 4);
        CHECK(stats.waiting == 0);
    }
}

TEST_CASE("Every form that waits obtains what is given back in time") {
    for (const Verb& verb : all_verbs()) {
        INFO(verb.name);
        LocalManager manager;
        auto holder = verb.hold(manager, "a");
        std::atomic<bool> obtained{false};
        support::Thread waiter{[&] { obtained = verb.plain(manager, "a"); }};
        CHECK(eventually([&] { return manager.stats().waiting == 1; }));
        CHECK_FALSE(obtained);
        holder.reset();
        waiter.join();
        CHECK(obtained);
        CHECK(manager.stats().contended >= 1);
        CHECK(manager.stats().active == 0);
    }
    LocalManager manager;
    auto holder = manager.lock("a");
    std::atomic<int> obtained{0};
    support::Thread one{[&] { obtained += !!manager.try_lock_for("a", support::patience); }};
    support::Thread two{
        [&] { obtained += !!manager.try_lock_until("a", Clock::time_point::max()); }};
    support::Thread three{[&] { obtained += !!manager.try_lock_all_for({"a", "b"}, 1h); }};
    CHECK(eventually([&] { return manager.stats().waiting == 3; }));
    holder.unlock();
    one.join();
    two.join();
    three.join();
    CHECK(obtained == 3);
}

TEST_CASE("A limit that is zero, negative or has passed tries once; a huge one saturates") {
    LocalManager manager;
    CHECK(manager.try_lock_for("a", 0s));
    CHECK(manager.try_lock_for("a", -1h));
    CHECK(manager.try_lock_until("a", Clock::time_point::min()));
    CHECK(manager.try_lock_for("a", std::chrono::hours::max()));
    CHECK(manager.try_lock_until("a", std::chrono::system_clock::time_point::max()));
    const auto holder = manager.lock("a");
    CHECK_FALSE(support::on_another_thread([&] {
        return manager.try_lock_for("a", 0s) || manager.try_lock_for("a", -1h) ||
               manager.try_lock_for("a", std::chrono::hours::min()) ||
               manager.try_lock_until("a", Clock::time_point::min()) ||
               manager.try_lock_all_for({"b", "a"}, -1s);
    }));
    CHECK(is_free(manager, "b"));
}

TEST_CASE("Threads exclude each other through a name") {
    LocalManager manager;
    int count = 0;
    support::run_together(4, [&](int) {
        for (int i = 0; i < 2'000; ++i) {
            const auto guard = manager.lock("counter");
            ++count;
        }
    });
    CHECK(count == 8'000);
    const auto stats = manager.stats();
    CHECK(stats.acquisitions == 8'000);
    CHECK(stats.releases == 8'000);
    CHECK(stats.active == 0);
    CHECK(stats.waiting == 0);
    CHECK(stats.registered == 1);
}

TEST_CASE("A permit is one of so many") {
    LocalManager manager;
    support::Occupancy inside;
    support::run_together(6, [&](int) {
        for (int i = 0; i < 300; ++i) {
            const auto permit = manager.permit("pool", 3);
            inside.enter();
            std::this_thread::yield();
            inside.leave();
        }
    });
    CAPTURE(inside.most());
    CHECK(inside.most() <= 3);
    CHECK(manager.stats().acquisitions == 1'800);
    const auto one = manager.permit("pool", 3);
    const auto two = manager.permit("pool", 3);
    const auto three = manager.permit("pool", 3);
    CHECK_FALSE(manager.try_permit("pool", 3));
}

TEST_CASE("Readers share a name, a writer has it alone") {
    LocalManager manager;
    {
        const auto reader = manager.read("config");
        CHECK(support::on_another_thread([&] { return !!manager.try_read("config"); }));
        CHECK_FALSE(support::on_another_thread([&] { return !!manager.try_write("config"); }));
    }
    const auto writer = manager.write("config");
    CHECK_FALSE(support::on_another_thread([&] { return !!manager.try_read("config"); }));
}

TEST_CASE("Each kind has a name space of its own") {
    LocalManager manager;
    const auto lock = manager.lock("same");
    const auto write = manager.write("same");
    const auto permit = manager.permit("same", 1);
    CHECK(manager.stats().active == 3);
    std::vector<LockKind> kinds;
    for (const auto& entry : manager.list()) {
        CHECK(entry.name == "same");
        CHECK(entry.held == 1);
        kinds.push_back(entry.kind);
    }
    CHECK(kinds ==
          std::vector<LockKind>{LockKind::lock, LockKind::read_write, LockKind::semaphore});
}

TEST_CASE("Who waits for a name holds up nobody who wants another, in the same shard too") {
    LocalManager manager{LocalBackend{}, {.shards = 1}};
    auto holder = manager.lock("a");
    support::Thread waiter{[&] { const auto guard = manager.lock("a"); }};
    CHECK(eventually([&] { return manager.stats().waiting == 1; }));
    CHECK(manager.try_lock("b"));
    CHECK(manager.lock_all({"b", "c"}));
    CHECK(manager.list().size() == 3);
    holder.unlock();
}

TEST_CASE("lock_all holds all of its names or none") {
    LocalManager manager;
    auto c = manager.lock("c");
    CHECK_FALSE(support::on_another_thread([&] {
        return manager.try_lock_all({"a", "b", "c", "d"}) ||
               manager.try_lock_all_for({"a", "b", "c", "d"}, 1ms);
    }));
    for (const auto& entry : manager.list()) {
        CAPTURE(entry.name);
        CHECK(entry.held == (entry.name == "c" ? 1U : 0U));
    }
    c.unlock();
    const auto all = manager.try_lock_all({"a", "b", "c", "d"});
    CHECK(all);
    for (const std::string name : {"a", "b", "c", "d"})
        CHECK_FALSE(is_free(manager, name));
}

TEST_CASE("Who waits in lock_all holds none of its names meanwhile") {
    LocalManager manager;
    auto b = manager.lock("b");
    std::atomic<bool> obtained{false};
    support::Thread waiter{[&] { obtained = !!manager.lock_all({"a", "b", "c"}); }};
    const auto waits_for_b = [&] {
        const auto entries = manager.list();
        return std::any_of(entries.begin(), entries.end(), [](const LockEntry& entry) {
            return entry.name == "b" && entry.waiting == 1;
        });
    };
    CHECK(eventually(waits_for_b));
    CHECK(is_free(manager, "a"));
    CHECK(is_free(manager, "c"));
    CHECK_FALSE(obtained);
    b.unlock();
    waiter.join();
    CHECK(obtained);
}

TEST_CASE("lock_all has one deadline for all waits") {
    ScriptedBackend backend;
    LockManager manager{backend};
    // The first is busy; while it is waited for the second gets busy, and so on.
    (*backend.scripts)["a"].busy = 2;
    (*backend.scripts)["b"].busy = 2;
    (*backend.scripts)["c"].busy = 2;
    const auto deadline = Clock::now() + 1h;
    const auto all = manager.try_lock_all_until({"c", "b", "a"}, deadline);
    REQUIRE(all);
    int waits = 0;
    for (const auto& [name, script] : *backend.scripts) {
        CAPTURE(name);
        CHECK(script.held == 1);
        for (const auto time : script.deadlines) {
            ++waits;
            CHECK(time == deadline);
        }
    }
    CAPTURE(waits);
    CHECK(waits >= 3);

    auto& script = (*backend.scripts)["d"];
    script.busy = 1;
    const auto before = Clock::now();
    CHECK(manager.try_lock_all_for({"d"}, 1h));
    REQUIRE(script.deadlines.size() == 1);
    CHECK(script.deadlines[0] >= before + 1h);
    CHECK(script.deadlines[0] <= Clock::now() + 1h);
}

TEST_CASE("lock_all that fails midway gives back what it had") {
    ScriptedBackend backend;
    LockManager manager{backend};
    (*backend.scripts)["b"].broken = true;
    CHECK(support::error_of([&] {
              auto all = manager.lock_all({"a", "b", "c"});
          }) == LockErrc::backend_unavailable);
    CHECK(support::error_of([&] {
              auto all = manager.try_lock_all({"a", "b", "c"});
          }) == LockErrc::backend_unavailable);
    std::error_code error;
    CHECK_FALSE(manager.try_lock_all_for({"a", "b", "c"}, 1s, error));
    CHECK(error == LockErrc::backend_unavailable);
    CHECK((*backend.scripts)["a"].held == 0);
    CHECK((*backend.scripts)["c"].held == 0);
    const auto stats = manager.stats();
    CHECK(stats.acquisitions == 3);
    CHECK(stats.active == 0);
    CHECK(stats.waiting == 0);
}

TEST_CASE("lock_all takes a name that comes twice once, and any range of names") {
    LocalManager manager;
    CHECK(manager.lock_all({"a", "b", "a", "a"}).size() == 2);
    const std::vector<std::string> names{"y", "x", "y"};
    CHECK(manager.lock_all(names).size() == 2);
    CHECK(manager.try_lock_all(std::array{"q", "p"}).size() == 2);
    CHECK(manager.try_lock_all_until(names, Clock::now()).size() == 2);
}

TEST_CASE("Threads that lock the same names in any order all come through") {
    LocalManager manager;
    const std::vector<std::vector<std::string>> orders{
        {"a", "b", "c"}, {"c", "b", "a"}, {"b", "a"}, {"c", "a"}};
    int total = 0;
    std::map<std::string, int> each{{"a", 0}, {"b", 0}, {"c", 0}};
    std::atomic<int> timed_out{0};
    support::run_together(4, [&](int index) {
        const auto& names = orders[static_cast<std::size_t>(index)];
        for (int i = 0; i < 500; ++i) {
            auto all = i % 2 == 0 ? manager.lock_all(names)
                                  : manager.try_lock_all_for(names, support::patience);
            if (!all) {
                ++timed_out;
                continue;
            }
            // "a" is in all of them.
            ++total;
            for (const auto& name : names)
                ++each.at(name);
        }
    });
    CHECK(timed_out == 0);
    CHECK(total == 2'000);
    CHECK(each == std::map<std::string, int>{{"a", 2'000}, {"b", 1'500}, {"c", 1'500}});
    CHECK(manager.stats().active == 0);
}

TEST_CASE("lock_all gets along with threads that hold one name and ask for another") {
    LocalManager manager;
    std::atomic<int> done{0};
    support::run_together(3, [&](int index) {
        for (int i = 0; i < 300; ++i) {
            if (index == 0) {
                const auto outer = manager.lock("z");
                const auto inner = manager.lock("a");
            } else {
                const auto all = manager.lock_all({"a", "z"});
            }
            ++done;
        }
    });
    CHECK(done == 900);
}

TEST_CASE("The registry forgets what nobody uses, and keeps what somebody does") {
    LocalManager manager{LocalBackend{}, {.shards = 1, .cached_per_shard = 4}};
    const auto held = manager.lock("held");
    auto handle = manager.get_lock("handle");
    const auto read = manager.read("held");
    std::timed_mutex mine;
    manager.register_lock("mine", mine);
    std::size_t most = 0;
    for (int i = 0; i < 1'000; ++i) {
        const auto guard = manager.lock("name " + std::to_string(i));
        most = std::max(most, manager.stats().registered);
    }
    CAPTURE(most);
    // Three in use and the one of the moment, twice, and the read-write lock.
    CHECK(most <= 9);
    CHECK(manager.stats().acquisitions == 1'002);
    CHECK(manager.stats().releases == 1'000);
    CHECK(held.name() == "held");
    CHECK_FALSE(is_free(manager, "held"));
    {
        const std::scoped_lock guard{handle};
        CHECK_FALSE(is_free(manager, "handle"));
    }
    const std::scoped_lock guard{mine};
    CHECK_FALSE(is_free(manager, "mine"));
}

TEST_CASE("An entry that is waited for is not forgotten") {
    LocalManager manager{LocalBackend{}, {.shards = 1, .cached_per_shard = 1}};
    auto holder = manager.lock("a");
    bool obtained = false;
    support::Thread waiter{[&] {
        const auto guard = manager.lock("a");
        obtained = true;
    }};
    CHECK(eventually([&] { return manager.stats().waiting == 1; }));
    for (int i = 0; i < 100; ++i)
        CHECK(manager.try_lock(std::to_string(i)));
    holder.unlock();
    waiter.join();
    CHECK(obtained);
    CHECK(manager.stats().contended == 1);
}

TEST_CASE("After a crowd has gone the registry is small again") {
    LocalManager manager{LocalBackend{}, {.shards = 1, .cached_per_shard = 8}};
    {
        // Permits, for ThreadSanitizer cannot see a thread with more than 64 mutexes.
        std::vector<LocalManager::permit_type> crowd;
        for (int i = 0; i < 1'000; ++i)
            crowd.push_back(manager.permit(std::to_string(i), 1));
        CHECK(manager.stats().registered == 1'000);
        CHECK(manager.stats().active == 1'000);
        CHECK(manager.list().size() == 1'000);
    }
    for (int i = 0; i < 2'100; ++i)
        CHECK(manager.permit("later " + std::to_string(i), 1));
    CHECK(manager.stats().registered <= 2'000);
    for (int i = 0; i < 100; ++i)
        CHECK(manager.permit("last " + std::to_string(i), 1));
    CHECK(manager.stats().registered <= 108);
    CHECK(manager.stats().acquisitions == 3'200);
    CHECK(manager.stats().releases == 3'200);
}

TEST_CASE("Entries come and go under threads without losing exclusion or counts") {
    LocalManager manager{LocalBackend{}, {.shards = 2, .cached_per_shard = 2}};
    constexpr int names = 16;
    std::array<int, names> counts{};
    support::run_together(4, [&](int index) {
        for (int i = 0; i < 2'000; ++i) {
            const int number = (i * 7 + index * 5) % names;
            const auto guard = manager.lock("name " + std::to_string(number));
            ++counts[static_cast<std::size_t>(number)];
        }
    });
    int total = 0;
    for (const int count : counts)
        total += count;
    CHECK(total == 8'000);
    CHECK(manager.stats().acquisitions == 8'000);
    CHECK(manager.stats().releases == 8'000);
}

TEST_CASE("A lock of the user's own is served under its name") {
    LocalManager manager;
    TimedLocalLock mine;
    manager.register_lock("mine", mine);
    {
        const auto guard = manager.lock("mine");
        CHECK_FALSE(support::on_another_thread([&] { return mine.try_lock(); }));
        CHECK_FALSE(is_free(manager, "mine"));
    }
    {
        auto handle = manager.get_lock("mine");
        const std::scoped_lock guard{handle};
        CHECK_FALSE(support::on_another_thread([&] { return mine.try_lock(); }));
    }
    {
        const std::scoped_lock guard{mine};
        CHECK_FALSE(is_free(manager, "mine"));
        CHECK_FALSE(
            support::on_another_thread([&] { return !!manager.try_lock_for("mine", 1ms); }));
        CHECK_FALSE(support::on_another_thread([&] {
            return !!manager.try_lock_all({"a", "mine"});
        }));
    }
    CHECK(manager.lock_all({"a", "mine"}).size() == 2);
    CHECK(manager.stats().active == 0);
    CHECK(manager.unregister_lock("mine"));
    const std::scoped_lock guard{mine};
    CHECK(is_free(manager, "mine"));
}

TEST_CASE("A name is registered once") {
    LocalManager manager;
    std::timed_mutex one;
    std::timed_mutex two;
    manager.register_lock("mine", one);
    CHECK(support::error_of([&] { manager.register_lock("mine", two); }) ==
          LockErrc::invalid_argument);
    std::error_code error;
    manager.register_lock("mine", two, error);
    CHECK(error == LockErrc::invalid_argument);
    const auto holder = manager.lock("in use");
    manager.register_lock("in use", two, error);
    CHECK(error == LockErrc::invalid_argument);
    manager.register_lock("free", two, error);
    CHECK_FALSE(error);
    // Still the first.
    const std::scoped_lock guard{one};
    CHECK_FALSE(is_free(manager, "mine"));
}

TEST_CASE("An idle entry, which the registry may forget at any time, does not stand in the way") {
    LocalManager manager;
    CHECK(manager.lock("a"));
    std::timed_mutex mine;
    manager.register_lock("a", mine);
    const std::scoped_lock guard{mine};
    CHECK_FALSE(is_free(manager, "a"));
    CHECK(manager.stats().acquisitions == 1);
    CHECK(manager.stats().registered == 1);
}

TEST_CASE("A registered lock is taken back when nobody uses it") {
    LocalManager manager;
    std::timed_mutex mine;
    CHECK_FALSE(manager.unregister_lock("mine"));
    CHECK_FALSE(manager.unregister_lock(""));
    CHECK(manager.lock("made here"));
    CHECK_FALSE(manager.unregister_lock("made here"));

    manager.register_lock("mine", mine);
    std::error_code error;
    {
        auto guard = manager.lock("mine");
        CHECK(support::error_of([&] { manager.unregister_lock("mine"); }) == LockErrc::in_use);
        CHECK_FALSE(manager.unregister_lock("mine", error));
        CHECK(error == LockErrc::in_use);
        support::Thread waiter{[&] { const auto waited = manager.lock("mine"); }};
        CHECK(eventually([&] { return manager.stats().waiting == 1; }));
        guard.unlock();
    }
    {
        const auto handle = manager.get_lock("mine");
        CHECK_FALSE(manager.unregister_lock("mine", error));
        CHECK(error == LockErrc::in_use);
    }
    CHECK(manager.unregister_lock("mine", error));
    CHECK_FALSE(error);
    CHECK_FALSE(manager.unregister_lock("mine", error));
    CHECK_FALSE(error);
    CHECK(manager.stats().acquisitions == 3);
    CHECK(manager.stats().registered == 1);
    manager.register_lock("mine", mine);
    CHECK(manager.lock("mine"));
}

TEST_CASE("A share in a registered lock is kept until it is taken back") {
    struct CallsBack : std::timed_mutex {
        explicit CallsBack(LocalManager& its_manager) : manager{its_manager} {}
        ~CallsBack() { entries = manager.list().size(); }
        LocalManager& manager;
        std::size_t entries = 0;
    };
    LocalManager manager{LocalBackend{}, {.shards = 1}};
    auto mine = std::make_shared<CallsBack>(manager);
    const std::weak_ptr<CallsBack> watched = mine;
    manager.register_lock("mine", mine);
    mine.reset();
    CHECK_FALSE(watched.expired());
    CHECK(manager.lock("mine"));
    // The destructor asks the manager, so the manager must not have its mutex then.
    CHECK(manager.unregister_lock("mine"));
    CHECK(watched.expired());
    CHECK(support::error_of([&] {
              manager.register_lock("null", std::shared_ptr<std::timed_mutex>{});
          }) == LockErrc::invalid_argument);
    CHECK(manager.stats().registered == 0);
}

TEST_CASE("The number of permits is fixed while the name is in use") {
    LocalManager manager;
    {
        const auto permit = manager.permit("pool", 5);
        const auto wrong = [&] { auto other = manager.permit("pool", 7); };
        CHECK(support::error_of(wrong) == LockErrc::mismatch);
        const auto message = support::message_of(wrong);
        CAPTURE(message);
        CHECK(message.find("pool") != std::string::npos);
        CHECK(message.find('5') != std::string::npos);
        CHECK(message.find('7') != std::string::npos);
        std::error_code error;
        CHECK_FALSE(manager.try_permit("pool", 4, error));
        CHECK(error == LockErrc::mismatch);
        CHECK(manager.try_permit("pool", 5));
    }
    const auto one = manager.permit("pool", 1);
    CHECK_FALSE(manager.try_permit("pool", 1));
    CHECK(manager.stats().acquisitions == 3);
    CHECK(manager.stats().registered == 1);
}

TEST_CASE("A number of permits under one is refused") {
    LocalManager manager;
    CHECK(manager.permit("pool", 1));
    for (const std::ptrdiff_t number : {0, -1}) {
        CAPTURE(number);
        CHECK(support::error_of([&] { auto none = manager.permit("pool", number); }) ==
              LockErrc::invalid_argument);
        std::error_code error;
        CHECK_FALSE(manager.try_permit_for("other", number, 1ms, error));
        CHECK(error == LockErrc::invalid_argument);
    }
    CHECK(manager.permit("pool", 1));
    CHECK(manager.stats().active == 0);
}

TEST_CASE("A name has 1 to 512 bytes of any kind") {
    LocalManager manager;
    const std::string longest(512, 'x');
    const std::string too_long(513, 'x');
    const std::string bytes{"\0\r\n\xff{}%", 7};
    for (const std::string_view name : {std::string_view{}, std::string_view{too_long}}) {
        CAPTURE(name.size());
        for (const Verb& verb : all_verbs()) {
            INFO(verb.name);
            CHECK(support::error_of([&] { verb.plain(manager, name); }) ==
                  LockErrc::invalid_argument);
            CHECK(support::error_of([&] { verb.tried(manager, name); }) ==
                  LockErrc::invalid_argument);
            for (const auto& form :
                 {verb.plain_code, verb.tried_code, verb.in_time_code, verb.by_time_code}) {
                std::error_code error;
                CHECK_FALSE(form(manager, name, error));
                CHECK(error == LockErrc::invalid_argument);
            }
        }
        CHECK(support::error_of([&] { auto lock = manager.get_lock(name); }) ==
              LockErrc::invalid_argument);
        std::timed_mutex mine;
        CHECK(support::error_of([&] { manager.register_lock(name, mine); }) ==
              LockErrc::invalid_argument);
    }
    // Only "z", the companion in lock_all, may have come in.
    CHECK(manager.stats().registered <= 1);
    CHECK(manager.stats().acquisitions == 0);
    CHECK(manager.lock(longest).name() == longest);
    const auto guard = manager.lock(bytes);
    CHECK(guard.name() == bytes);
    CHECK(guard.name().size() == 7);
    CHECK(is_free(manager, std::string_view{bytes}.substr(0, 1)));
    CHECK_FALSE(is_free(manager, bytes));
}

TEST_CASE("The counts tell what happened") {
    LocalManager manager;
    auto a = manager.lock("a");
    auto r = manager.read("r");
    auto p = manager.permit("p", 2);
    support::Thread waiter{[&] { const auto guard = manager.lock("a"); }};
    CHECK(eventually([&] { return manager.stats().waiting == 1; }));
    CHECK_FALSE(support::on_another_thread([&] { return !!manager.try_write_for("r", 1ms); }));
    auto stats = manager.stats();
    CHECK(stats.registered == 3);
    CHECK(stats.active == 3);
    CHECK(stats.waiting == 1);
    CHECK(stats.acquisitions == 3);
    CHECK(stats.releases == 0);
    CHECK(stats.contended == 2);
    CHECK(stats.timeouts == 1);
    CHECK(stats.lost == 0);
    const auto entries = manager.list();
    REQUIRE(entries.size() == 3);
    CHECK(entries[0].name == "a");
    CHECK(entries[0].held == 1);
    CHECK(entries[0].waiting == 1);
    CHECK(entries[1].name == "p");
    CHECK(entries[1].kind == LockKind::semaphore);
    CHECK(entries[2].name == "r");
    CHECK(entries[2].kind == LockKind::read_write);
    CHECK(entries[2].waiting == 0);
    a.unlock();
    r.unlock();
    p.unlock();
    waiter.join();
    stats = manager.stats();
    CHECK(stats.active == 0);
    CHECK(stats.waiting == 0);
    CHECK(stats.acquisitions == 4);
    CHECK(stats.releases == 4);
}

TEST_CASE("Counts and list may be asked for while all is in motion, and make sense") {
    LocalManager manager{LocalBackend{}, {.shards = 2, .cached_per_shard = 2}};
    std::atomic<bool> done{false};
    std::atomic<int> nonsense{0};
    support::Thread observer{[&] {
        while (!done) {
            const auto stats = manager.stats();
            // Two threads hold at most three each; a difference below zero would be huge.
            if (stats.active > 6 || stats.waiting > 2) ++nonsense;
            const auto by_name = [](const LockEntry& x, const LockEntry& y) {
                return x.name < y.name;
            };
            const auto entries = manager.list();
            if (!std::is_sorted(entries.begin(), entries.end(), by_name)) ++nonsense;
        }
    }};
    support::run_together(2, [&](int index) {
        for (int i = 0; i < 1'000; ++i) {
            const auto all = manager.lock_all({"a", std::to_string((i + index) % 8)});
            const auto reader = manager.read("r");
        }
    });
    done = true;
    observer.join();
    CHECK(nonsense == 0);
    CHECK(manager.stats().active == 0);
}

TEST_CASE("Options out of bounds are refused, and within them they all work") {
    for (const std::size_t shards : {std::size_t{0}, std::size_t{65'537}}) {
        CAPTURE(shards);
        CHECK(support::error_of([&] {
                  LockManager manager{LocalBackend{}, {.shards = shards}};
              }) == LockErrc::invalid_argument);
    }
    for (const std::size_t shards : {1U, 3U, 65'536U}) {
        for (const std::size_t cached : {0U, 1U}) {
            CAPTURE(shards, cached);
            LockManager manager{LocalBackend{}, {.shards = shards, .cached_per_shard = cached}};
            for (int i = 0; i < 20; ++i)
                CHECK(manager.lock("name " + std::to_string(i)));
            CHECK(manager.stats().acquisitions == 20);
        }
    }
}

TEST_CASE("A leasing backend is asked once for a lock, contended or not") {
    const FakeLeasingBackend backend;
    FakeServer& server = *backend.server;
    LockManager manager{backend};
    static_assert(std::same_as<decltype(manager), LeasingManager>);
    auto guard = manager.lock("a");
    CHECK(server.requests() == 1);
    CHECK(manager.stats().contended == 0);
    support::Thread waiter{[&] { const auto waited = manager.lock("a"); }};
    CHECK(eventually([&] { return server.requests() == 2; }));
    CHECK(manager.stats().waiting == 1);
    guard.unlock();
    waiter.join();
    CHECK(server.requests() == 2);
    auto stats = manager.stats();
    CHECK(stats.contended == 1);
    CHECK(stats.waiting == 0);
    guard = manager.lock("a");
    CHECK_FALSE(manager.try_lock_for("a", 1ms));
    CHECK_FALSE(manager.try_lock("a"));
    CHECK(server.requests() == 5);
    stats = manager.stats();
    CHECK(stats.contended == 3);
    CHECK(stats.timeouts == 1);
}

TEST_CASE("An error of the backend is thrown or left in the code, and nothing is held") {
    const FakeLeasingBackend backend;
    LockManager manager{backend};
    backend.server->fail_with(LockErrc::backend_unavailable);
    CHECK(support::error_of([&] { auto guard = manager.lock("a"); }) ==
          LockErrc::backend_unavailable);
    std::error_code error;
    CHECK_FALSE(manager.try_lock_for("a", 1s, error));
    CHECK(error == LockErrc::backend_unavailable);
    error.clear();
    CHECK_FALSE(manager.read("a", error));
    CHECK(error == LockErrc::backend_unavailable);
    error.clear();
    CHECK_FALSE(manager.permit("a", 3, error));
    CHECK(error == LockErrc::backend_unavailable);
    const auto stats = manager.stats();
    CHECK(stats.active == 0);
    CHECK(stats.waiting == 0);
    CHECK(stats.timeouts == 0);
    backend.server->fail_with(std::nullopt);
    CHECK(manager.lock("a", error));
    CHECK_FALSE(error);
}

TEST_CASE("A local lock registered with a leasing backend has a guard that never worries") {
    LockManager manager{FakeLeasingBackend{}};
    std::timed_mutex mine;
    manager.register_lock("mine", mine);
    auto guard = manager.lock("mine");
    CHECK(guard.fence() == 0);
    CHECK(guard.valid());
    CHECK(guard.remaining() == std::chrono::nanoseconds::max());
    CHECK_FALSE(support::on_another_thread([&] { return mine.try_lock(); }));
    CHECK_FALSE(is_free(manager, "mine"));
    std::error_code error;
    guard.unlock(error);
    CHECK_FALSE(error);
    CHECK_FALSE(guard.valid());
    const auto stats = manager.stats();
    CHECK(stats.acquisitions == 1);
    CHECK(stats.contended == 1);
    CHECK(stats.active == 0);
    const auto both = manager.lock_all({"mine", "leased"});
    CHECK(both.begin()->fence() == 1);
    CHECK(std::next(both.begin())->fence() == 0);
}

TEST_CASE("A leasing lock registered elsewhere keeps its lease, and its loss is counted") {
    const FakeLeasingBackend backend;
    const auto leasing = [&](auto& manager) {
        auto mine = std::make_shared<support::FakeLeasingLock>(backend.server, "lock:mine", 1);
        manager.register_lock("mine", mine);
        auto guard = manager.lock("mine");
        if constexpr (requires { guard.fence(); }) {
            CHECK(guard.fence() == mine->fence());
            CHECK(guard.valid());
            CHECK(guard.remaining() == 7ms);
        }
        CHECK(mine->fence() > 0);
        const int requests = backend.server->requests();
        CHECK_FALSE(manager.try_lock_for("mine", 1ms));
        CHECK(backend.server->requests() == requests + 1);
        backend.server->lose("lock:mine");
        if constexpr (requires { guard.fence(); }) CHECK_FALSE(guard.valid());
        std::error_code error;
        guard.unlock(error);
        CHECK(error == LockErrc::lease_lost);
        const auto stats = manager.stats();
        CHECK(stats.lost == 1);
        CHECK(stats.contended == 1);
        CHECK(stats.timeouts == 1);
        CHECK(stats.active == 0);
    };
    LockManager local;
    leasing(local);
    LockManager distributed{FakeLeasingBackend{}};
    leasing(distributed);
}

#if defined(__cpp_lib_jthread)
TEST_CASE("A guard of a registered lock has the lock's token, or one that is never asked to stop") {
    LockManager manager{FakeLeasingBackend{}};
    std::timed_mutex mine;
    manager.register_lock("mine", mine);
    CHECK_FALSE(manager.lock("mine").stop_token().stop_possible());
    const FakeLeasingBackend elsewhere;
    manager.register_lock(
        "leased", std::make_shared<support::FakeLeasingLock>(elsewhere.server, "lock:leased", 1));
    const auto guard = manager.lock("leased");
    const auto stop = guard.stop_token();
    CHECK(stop.stop_possible());
    CHECK_FALSE(stop.stop_requested());
    elsewhere.server->lose("lock:leased");
    CHECK(stop.stop_requested());
}
#endif

TEST_CASE("An entry of a leasing backend is forgotten only after its lease has ended") {
    const FakeLeasingBackend backend;
    LockManager manager{backend, {.shards = 1, .cached_per_shard = 1}};
    {
        const auto guard = manager.lock("a");
        for (int i = 0; i < 50; ++i)
            CHECK(manager.lock(std::to_string(i)));
        CHECK(guard.valid());
        CHECK(backend.server->used("lock:a") == 1);
    }
    CHECK(backend.server->used("lock:a") == 0);
    CHECK(manager.stats().acquisitions == 51);
}
