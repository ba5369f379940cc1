// SPDX-License-Identifier: MIT
//
// One process of a fault run: several threads that lock several names in every way that the library
// has, and record all that they do. The one part of the run that is built against the library. With
// a FIFO of commands it does as it is told instead, for the scenarios. It prints what it found
// wrong itself, a line each, and last what its client did.

#include <codomyrmex/concurrency/redis/lock.hpp>

#include "faults/plan.hpp"
#include "faults/recorder.hpp"
#include "support/fenced_register.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <sstream>
#include <stop_token>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace faults;
using std::chrono::milliseconds;
using test_support::FencedRegister;

// What signals ask for; the next thread that comes by does it.
// NOLINTBEGIN(cppcoreguidelines-avoid-non-const-global-variables)
std::atomic<int> forks_wanted{0};
std::atomic<int> exits_wanted{0};
std::atomic<int> thread_ends_wanted{0};
// NOLINTEND(cppcoreguidelines-avoid-non-const-global-variables)
static_assert(std::atomic<int>::is_always_lock_free);

void on_signal(int signal) {
    if (signal == ask_to_fork) ++forks_wanted;
    if (signal == ask_to_exit) ++exits_wanted;
    if (signal == ask_thread_end) ++thread_ends_wanted;
}

bool take_one(std::atomic<int>& wanted) {
    int left = wanted.load();
    while (left > 0) {
        if (wanted.compare_exchange_weak(left, left - 1)) return true;
    }
    return false;
}

void say(const std::string& line) {
    const std::string text = line + '\n';
    (void)!::write(STDOUT_FILENO, text.data(), text.size());
}

/// Tells whether a lease was handed from thread to thread: it keeps its owner token then.
class Tokens {
  public:
    Source source_of(std::uint32_t name, std::string_view token, std::uint64_t fence) {
        // The server gives whole microseconds; what comes after them was reserved in the process.
        if (fence % 1'000 != 0) return Source::local;
        const std::lock_guard guard{mutex_};
        auto& last = last_[name];
        if (std::ranges::find(last, token) != last.end()) return Source::local;
        last.emplace_back(token);
        if (last.size() > 16) last.pop_front();
        return Source::none;
    }

  private:
    std::mutex mutex_;
    std::map<std::uint32_t, std::deque<std::string>> last_;
};

/// The hold inside a lock, with what a lease has: no token is shown of it, so its fence must do.
struct Inside {
    const RedisLock* lock;
    std::string name{};

    explicit Inside(const RedisLock& of) : lock{&of}, name{"fence " + std::to_string(of.fence())} {}
    [[nodiscard]] std::uint64_t fence() const { return lock->fence(); }
    [[nodiscard]] auto remaining() const { return lock->remaining(); }
    [[nodiscard]] std::string_view token() const { return name; }
    /// As Tokens::source_of().
    [[nodiscard]] Source source() const {
        return fence() % 1'000 == 0 ? Source::none : Source::local;
    }
};

/// What a lease was a moment ago, and a little less of it, for it took time to look.
struct Seen {
    explicit Seen(const Lease& lease)
        : number{lease.fence()}, owner{lease.token()}, left{lease.remaining() - 1ms} {}
    [[nodiscard]] std::uint64_t fence() const { return number; }
    [[nodiscard]] std::string_view token() const { return owner; }
    [[nodiscard]] std::chrono::nanoseconds remaining() const { return left; }

    std::uint64_t number;
    std::string_view owner;
    std::chrono::nanoseconds left;
};

/// What all threads of the process share.
struct Worker {
    explicit Worker(Plan with) : plan{std::move(with)}, client{plan.url, client_options(plan)} {}

    static ClientOptions client_options(const Plan& plan) {
        ClientOptions options;
        options.patience = milliseconds{plan.patience_ms};
        options.connect_timeout = milliseconds{plan.response_ms};
        options.response_timeout = milliseconds{plan.response_ms};
        options.grant_ttl = milliseconds{plan.grant_ttl_ms};
        return options;
    }

    [[nodiscard]] LeaseOptions options_of(std::uint32_t name) const {
        const milliseconds shortest{plan.ttl_ms};
        LeaseOptions options;
        options.ttl = shortest * 2;
        if (name % 2 == 0) options.ttl = shortest;
        if (name % 4 == 1) options.max_local_handovers = 0;
        if (name % 4 == 2) options.retain = shortest;
        if (name % 4 == 3) options.max_local_handovers = 3;
        if (name % 4 == 3) options.max_local_run = 20ms;
        if (name == left_behind_name) options.max_hold = shortest / 2;
        if (name >= first_own_name && name % 2 == 1) options.retain = shortest;
        return options;
    }

    [[nodiscard]] std::string register_of(std::uint32_t name) const {
        return plan.folder + "/register-" + std::to_string(name);
    }

    const Plan plan;
    RedisClient client;
    Tokens tokens;
    std::stop_source at_end;
    std::atomic<std::int32_t> children{0};
    std::atomic<int> notes{0};
};

/// One name as one thread uses it.
struct Place {
    Place(Worker& worker, std::uint32_t number)
        : target{.name = number},
          options{worker.options_of(number)},
          lock{"name " + std::to_string(number), worker.client, options},
          fenced{worker.register_of(number)} {}

    Target target;
    LeaseOptions options;
    RedisLock lock;
    FencedRegister fenced;
};

constexpr std::chrono::nanoseconds no_deadline{-1};

class Thread {
  public:
    Thread(Worker& worker, std::int32_t number)
        : worker_{worker},
          recorder_{worker.plan.history, static_cast<std::int32_t>(worker.plan.number), number},
          number_{number},
          random_{static_cast<std::uint64_t>(worker.plan.seed * 64 + number)} {
        for (std::uint32_t name = 0; name < contended_names; ++name)
            places_.push_back(std::make_unique<Place>(worker, name));
        own_ = std::make_unique<Place>(
            worker, first_own_name + static_cast<std::uint32_t>(worker.plan.slot) * most_threads +
                        static_cast<std::uint32_t>(number));
        left_behind_ = std::make_unique<Place>(worker, left_behind_name);
    }

    void run() {
        while (boot_time() < worker_.plan.end) {
            if (take_one(thread_ends_wanted)) leave_behind();
            const auto kind = random_() % 16;
            if (kind < 10) {
                // The first of them most.
                turn(*places_[std::min(random_() % places_.size(), random_() % places_.size())]);
            } else if (kind < 11) {
                turn(*own_);
            } else {
                for (int i = 0; i < 32; ++i)
                    quick_turn(*own_);
            }
        }
    }

  private:
    [[nodiscard]] bool one_in(std::uint64_t n) { return random_() % n == 0; }

    // --- Taking.

    /// Returns: false if it throws. The first few times, says what.
    template <class Ask>
    bool attempt(const Place& place, Ask ask) {
        try {
            ask();
            return true;
        } catch (const LockError& error) {
            if (worker_.notes.fetch_add(1) < 20) {
                say("note: at " + std::to_string(boot_time()) + ", name " +
                    std::to_string(place.target.name) + ", thread " + std::to_string(number_) +
                    ": " + error.what());
            }
            return false;
        }
    }

    /// Asks in one of the ways that give a lease.
    Lease take(Place& place) {
        RedisLock& lock = place.lock;
        Lease lease;
        std::chrono::nanoseconds time{0};
        bool failed = false;
        const auto call = [&](auto ask) {
            recorder_.call(place.target, Op::acquire, time);
            failed = !attempt(place, [&] { lease = ask(); });
        };
        switch (random_() % 6) {
            case 0:
                call([&] { return lock.try_lease(); });
                break;
            case 1:
                time =
                    milliseconds{worker_.plan.shortest_wait_ms + static_cast<int>(random_() % 60)};
                call([&] { return lock.try_lease_for(time); });
                break;
            case 2:
                time =
                    milliseconds{worker_.plan.shortest_wait_ms + static_cast<int>(random_() % 400)};
                call([&] { return lock.try_lease_until(std::chrono::steady_clock::now() + time); });
                break;
            case 3:
                call([&] { return lock.try_lease_for(-1s); });
                break;
            case 4:
                time = milliseconds{200};
                call([&] { return lock.try_lease_for(time, worker_.at_end.get_token()); });
                break;
            default:
                time = no_deadline;
                call([&] { return lock.lease(worker_.at_end.get_token()); });
        }
        if (lease) {
            recorder_.acquired(
                place.target, lease,
                worker_.tokens.source_of(place.target.name, lease.token(), lease.fence()));
        } else {
            recorder_.answered(place.target, Op::acquire,
                               failed ? Outcome::failed : Outcome::refused);
        }
        return lease;
    }

    // --- Using.

    template <class Held>
    void write(Place& place, const Held& held) {
        const bool taken = place.fenced.write(held.fence(), random_());
        recorder_.wrote(place.target, held, taken ? Outcome::ok : Outcome::refused,
                        place.fenced.place());
    }

    /// Works under the lease: mostly for a moment, sometimes past its time to live.
    template <class Held>
    void use(Place& place, const Held& held) {
        write(place, held);
        if (take_one(exits_wanted)) std::exit(0);
        if (take_one(forks_wanted)) fork_in(place, held);
        const bool contended = place.target.name < contended_names;
        const auto time = one_in(200)                 ? place.options.ttl * 5 / 4
                          : one_in(contended ? 3 : 8) ? milliseconds{1 + random_() % 6}
                                                      : 0ms;
        const auto until = boot_time() + std::chrono::nanoseconds{time}.count();
        while (boot_time() < std::min(until, worker_.plan.end)) {
            std::this_thread::sleep_for(std::min<milliseconds>(time, 3ms));
            recorder_.checked(place.target, held);
            if (held.remaining() == 0ns) break;
        }
        if (time != 0ms) write(place, held);
    }

    // --- Giving back.

    void give_back(Place& place, Lease& lease) {
        std::error_code error;
        recorder_.checked(place.target, lease);
        if (one_in(5)) {
            recorder_.call(place.target, Op::release, milliseconds{worker_.plan.patience_ms});
            const bool ours = lease.release(error);
            recorder_.answered(place.target, Op::release,
                               error  ? Outcome::unknown
                               : ours ? Outcome::ok
                                      : Outcome::lost);
            return;
        }
        recorder_.call(place.target, Op::release, 0ns);
        lease.unlock(error);
        recorder_.answered(place.target, Op::release, error ? Outcome::lost : Outcome::ok);
    }

    // --- Turns.

    void turn(Place& place) {
        if (one_in(5)) return turn_of_a_mutex(place);
        Lease lease = take(place);
        if (!lease) return;
        use(place, lease);
        give_back(place, lease);
    }

    /// The same by the members of a mutex.
    void turn_of_a_mutex(Place& place) {
        bool held = false;
        const auto time = one_in(2) ? 0ms : 200ms;
        recorder_.call(place.target, Op::acquire, time);
        const bool answered = attempt(place, [&] {
            held = time == 0ms ? place.lock.try_lock() : place.lock.try_lock_for(time);
        });
        if (!held) {
            recorder_.answered(place.target, Op::acquire,
                               answered ? Outcome::refused : Outcome::failed);
            return;
        }
        const Inside inside{place.lock};
        recorder_.acquired(place.target, inside, inside.source());
        use(place, inside);
        recorder_.checked(place.target, inside);
        recorder_.call(place.target, Op::release, 0ns);
        std::error_code error;
        place.lock.unlock(error);
        recorder_.answered(place.target, Op::release, error ? Outcome::lost : Outcome::ok);
    }

    /// In and out, as fast as it goes.
    void quick_turn(Place& place) {
        Lease lease;
        recorder_.call(place.target, Op::acquire, 0ns);
        const bool answered = attempt(place, [&] { lease = place.lock.try_lease(); });
        if (!lease) {
            recorder_.answered(place.target, Op::acquire,
                               answered ? Outcome::refused : Outcome::failed);
            return;
        }
        recorder_.acquired(
            place.target, lease,
            worker_.tokens.source_of(place.target.name, lease.token(), lease.fence()));
        give_back(place, lease);
    }

    /// A thread takes a lease and ends. The process holds it on, until max_hold ends it.
    void leave_behind() {
        Place& place = *left_behind_;
        Lease lease;
        const auto began = boot_time();
        std::thread{[&] { lease = take(place); }}.join();
        if (!lease) return;
        // That it is lost in the end is in order.
        for (Seen seen{lease}; seen.left > 0ns; seen = Seen{lease}) {
            recorder_.checked(place.target, seen);
            std::this_thread::sleep_for(5ms);
        }
        while (lease.valid())
            std::this_thread::sleep_for(1ms);
        const bool in_order =
            boot_time() - began >= std::chrono::nanoseconds{place.options.max_hold}.count();
        recorder_.call(place.target, Op::release, 0ns);
        std::error_code error;
        lease.unlock(error);
        recorder_.answered(place.target, Op::release, in_order ? Outcome::ok : Outcome::lost);
    }

    /// The child has no lease, must not get the one of its parent, and can lock what is free.
    template <class Held>
    void fork_in(Place& place, const Held& held) {
        const auto child =
            static_cast<std::int32_t>(worker_.plan.number) + 1 + worker_.children.fetch_add(1);
        const pid_t pid = ::fork();
        if (pid != 0) return;
        ::alarm(5);
        ::signal(SIGALRM, SIG_DFL);
        Recorder recorder{worker_.plan.history, child, 0};
        const auto ask = [&](Place& at, std::chrono::nanoseconds time) {
            std::error_code error;
            recorder.call(at.target, Op::acquire, time);
            Lease lease = at.lock.try_lease_for(time, error);
            if (!lease) {
                recorder.answered(at.target, Op::acquire,
                                  error ? Outcome::failed : Outcome::refused);
                return;
            }
            recorder.acquired(at.target, lease);
            recorder.checked(at.target, lease);
            recorder.call(at.target, Op::release, 0ns);
            lease.unlock(error);
            recorder.answered(at.target, Op::release, error ? Outcome::lost : Outcome::ok);
        };
        if (held.remaining() != 0ns) {
            recorder.call(place.target, Op::acquire, 0ns);
            recorder.acquired(place.target, held);
            recorder.call(place.target, Op::release, 0ns);
            recorder.answered(place.target, Op::release, Outcome::ok);
        }
        ask(place, 0ns);
        ask(*left_behind_, 100ms);
        ::_exit(0);
    }

    Worker& worker_;
    Recorder recorder_;
    std::int32_t number_;
    std::mt19937_64 random_;
    std::vector<std::unique_ptr<Place>> places_;
    std::unique_ptr<Place> own_;
    std::unique_ptr<Place> left_behind_;
};

// --- By command.

/// A thread that does as it is told: "take NAME TTL TIMEOUT" (a timeout of 0 tries), "check",
/// "give", "fork". Each is answered with a line: "HAND held", "refused", "failed", "valid", "lost",
/// "given", "forked", "hung".
class Hand {
  public:
    Hand(Worker& worker, std::int32_t number)
        : worker_{worker},
          number_{number},
          recorder_{worker.plan.history, static_cast<std::int32_t>(worker.plan.number), number},
          thread_{[this](const std::stop_token& stop) { run(stop); }} {}

    void tell(std::string command) {
        const std::lock_guard guard{mutex_};
        commands_.push_back(std::move(command));
        told_.notify_one();
    }

  private:
    void run(const std::stop_token& stop) {
        for (;;) {
            std::string command;
            {
                std::unique_lock guard{mutex_};
                if (!told_.wait(guard, stop, [this] { return !commands_.empty(); })) return;
                command = std::move(commands_.front());
                commands_.pop_front();
            }
            std::istringstream words{command};
            std::string verb;
            words >> verb;
            std::string answer = "failed";
            if (verb == "take") answer = take(words);
            if (verb == "check") answer = check();
            if (verb == "give") answer = give();
            if (verb == "fork") answer = fork();
            say(std::to_string(number_) + ' ' + answer);
        }
    }

    std::string take(std::istringstream& words) {
        std::uint32_t name = 0;
        std::int64_t ttl = 0;
        std::int64_t timeout = 0;
        words >> name >> ttl >> timeout;
        target_.name = name;
        lock_.emplace("name " + std::to_string(name), worker_.client,
                      LeaseOptions{.ttl = milliseconds{ttl}});
        return take_it(recorder_, *lock_, lease_, milliseconds{timeout});
    }

    std::string take_it(Recorder& recorder, RedisLock& lock, Lease& lease, milliseconds time) {
        std::error_code error;
        recorder.call(target_, Op::acquire, time);
        lease = lock.try_lease_for(time, error);
        if (!lease) {
            recorder.answered(target_, Op::acquire, error ? Outcome::failed : Outcome::refused);
            return error ? "failed" : "refused";
        }
        recorder.acquired(target_, lease,
                          worker_.tokens.source_of(target_.name, lease.token(), lease.fence()));
        return "held";
    }

    std::string check() {
        recorder_.checked(target_, lease_);
        return lease_.valid() ? "valid" : "lost";
    }

    std::string give() { return give_it(recorder_, lease_); }

    std::string give_it(Recorder& recorder, Lease& lease) {
        std::error_code error;
        recorder.checked(target_, lease);
        recorder.call(target_, Op::release, milliseconds{worker_.plan.patience_ms});
        const bool ours = lease.release(error);
        recorder.answered(target_, Op::release,
                          error  ? Outcome::unknown
                          : ours ? Outcome::ok
                                 : Outcome::lost);
        return "given";
    }

    // The child asks for what its parent holds, then for another name, which the parent has next.
    std::string fork() {
        const auto child = static_cast<std::int32_t>(worker_.plan.number) + 1;
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::signal(SIGALRM, SIG_DFL);
            ::alarm(4);
            Recorder recorder{worker_.plan.history, child, 0};
            if (lease_.valid()) {
                recorder.call(target_, Op::acquire, 0ns);
                recorder.acquired(target_, lease_);
                recorder.call(target_, Op::release, 0ns);
                recorder.answered(target_, Op::release, Outcome::ok);
            }
            Lease lease;
            if (take_it(recorder, *lock_, lease, 0ms) == "held") give_it(recorder, lease);
            ++target_.name;
            RedisLock next{"name " + std::to_string(target_.name),
                           worker_.client,
                           {.ttl = lock_->options().ttl}};
            if (take_it(recorder, next, lease, 1s) == "held") give_it(recorder, lease);
            ::_exit(0);
        }
        int status = 0;
        while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        return WIFEXITED(status) ? "forked" : "hung";
    }

    Worker& worker_;
    std::int32_t number_;
    Recorder recorder_;
    Target target_;
    std::optional<RedisLock> lock_;
    Lease lease_;
    std::mutex mutex_;
    std::condition_variable_any told_;
    std::deque<std::string> commands_;
    std::jthread thread_;
};

void obey(Worker& worker) {
    std::deque<Hand> hands;
    for (std::int32_t hand = 0; hand < worker.plan.threads; ++hand)
        hands.emplace_back(worker, hand);
    std::ifstream commands{worker.plan.commands};
    say("ready");
    for (std::string line; std::getline(commands, line);) {
        const auto hand = static_cast<std::size_t>(line.at(0) - '0');
        hands.at(hand).tell(line.substr(2));
    }
}

void storm(Worker& worker) {
    {
        std::deque<Thread> threads;
        for (std::int32_t number = 0; number < worker.plan.threads; ++number)
            threads.emplace_back(worker, number);
        say("ready");
        std::vector<std::jthread> running;
        for (Thread& thread : threads)
            running.emplace_back([&thread] { thread.run(); });
        while (boot_time() < worker.plan.end)
            std::this_thread::sleep_for(5ms);
        worker.at_end.request_stop();
    }
    // Whoever forked waits for nobody; a child ends within five seconds.
    while (::wait(nullptr) > 0 || errno == EINTR) {
    }
}

}  // namespace

int main(int argc, char** argv) {
    try {
        struct sigaction action {};
        action.sa_handler = on_signal;
        for (const int signal : {ask_to_fork, ask_to_exit, ask_thread_end, mere_noise})
            ::sigaction(signal, &action, nullptr);
        Worker worker{Plan::from_arguments({argv + 1, argv + argc})};
        worker.plan.commands.empty() ? storm(worker) : obey(worker);
        ClientStats stats = worker.client.stats();
        // One that runs out at this very time is no longer watched, and retained for a moment more.
        for (int i = 0; i < 200 && stats.leases_watched != stats.leases_retained; ++i) {
            std::this_thread::sleep_for(5ms);
            stats = worker.client.stats();
        }
        if (stats.leases_watched != stats.leases_retained) {
            say("wrong: " + std::to_string(stats.leases_watched - stats.leases_retained) +
                " leases are renewed that nobody holds any more");
        }
        say("did " + std::to_string(stats.renewals) + ' ' + std::to_string(stats.local_handovers) +
            ' ' + std::to_string(stats.grants) + ' ' + std::to_string(stats.leases_lost) + ' ' +
            std::to_string(stats.connections));
        return 0;
    } catch (const std::exception& error) {
        say(std::string{"wrong: the worker ended by an exception: "} + error.what());
        return 1;
    }
}
