// SPDX-License-Identifier: MIT
//
// What a client costs that does nothing: the memory of a lock that nobody holds, of a thread that
// waits and of a lease that is held; and what it takes to hold ten thousand leases, in processor
// time, writes and renewals, over five times their time to live, in which none may be lost.
//
// Memory is counted in two ways: what operator new gave and did not get back, with what the
// allocator rounds it up to, by an operator new that replaces the standard's; and what the kernel
// holds for the process (RSS), which also counts what malloc keeps and the stacks of threads.

#include <codomyrmex/concurrency/redis/lock.hpp>

#include "benchmarks/compare.hpp"
#include "benchmarks/options.hpp"
#include "benchmarks/plot.hpp"
#include "benchmarks/progress.hpp"
#include "support/redis_server.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <latch>
#include <list>
#include <malloc.h>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

using namespace benchmarks;
using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using test_support::RedisServer;

namespace {

std::atomic<std::int64_t> allocated{0};

void* counted(void* memory) {
    if (memory == nullptr) throw std::bad_alloc{};
    // The allocator keeps a word of its own before each block.
    allocated.fetch_add(
        static_cast<std::int64_t>(::malloc_usable_size(memory) + sizeof(std::size_t)),
        std::memory_order_relaxed);
    return memory;
}

void freed(void* memory) noexcept {
    if (memory == nullptr) return;
    allocated.fetch_sub(
        static_cast<std::int64_t>(::malloc_usable_size(memory) + sizeof(std::size_t)),
        std::memory_order_relaxed);
    std::free(memory);
}

}  // namespace

// The rest of the standard's operators call these.
void* operator new(std::size_t size) {
    return counted(std::malloc(std::max<std::size_t>(size, 1)));
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    const auto unit = static_cast<std::size_t>(alignment);
    return counted(
        std::aligned_alloc(unit, (std::max<std::size_t>(size, 1) + unit - 1) / unit * unit));
}
void operator delete(void* memory) noexcept {
    freed(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
    freed(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
    freed(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
    freed(memory);
}

namespace {

/// Of this process, in bytes.
std::int64_t resident() {
    std::int64_t whole = 0;
    std::int64_t pages = 0;
    std::ifstream{"/proc/self/statm"} >> whole >> pages;
    return pages * ::sysconf(_SC_PAGESIZE);
}

std::chrono::duration<double> processor_time() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto of = [](const timeval& time) {
        return std::chrono::duration<double>{static_cast<double>(time.tv_sec) +
                                             static_cast<double>(time.tv_usec) * 1e-6};
    };
    return of(usage.ru_utime) + of(usage.ru_stime);
}

void wait_until(const std::function<bool()>& condition) {
    const Deadline limit = Deadline::after(60s);
    while (!condition()) {
        if (limit.expired()) {
            std::fputs("what was waited for did not come about\n", stderr);
            std::abort();
        }
        std::this_thread::sleep_for(1ms);
    }
}

/// Counts memory from its making on.
class Memory {
  public:
    /// With few threads, what the kernel tells is what it has of their stacks.
    enum class Show { both, without_resident };

    void print(const char* what, std::int64_t count, Show show, const char* target) const {
        const auto each = [count](std::int64_t bytes) { return std::to_string(bytes / count); };
        std::printf("%-52s %8lld %14s %14s  %s\n", what, static_cast<long long>(count),
                    each(allocated - allocated_).c_str(),
                    show == Show::both ? each(resident() - resident_).c_str() : "-", target);
        std::fflush(stdout);
    }

  private:
    std::int64_t allocated_ = allocated;
    std::int64_t resident_ = resident();
};

long long in_line(RedisServer& server, const std::string& name) {
    return server.command({"ZCARD", "codomyrmex:lock:{" + name + "}:queue"}).number;
}

/// Threads that wait for a lock which another client holds; `name_of(i)` is what thread i waits
/// for.
template <class NameOf>
void print_waiters(RedisServer& server, const char* what, int count, int names, NameOf name_of,
                   const std::function<void(const std::vector<std::string>&)>& until_waiting) {
    RedisClient holder{server.url()};
    std::vector<std::string> all;
    std::vector<Lease> leases;
    for (int i = 0; i < names; ++i) {
        all.push_back(name_of(i));
        leases.push_back(RedisLock{all.back(), holder}.lease());
    }
    RedisClient client{server.url()};
    client.ping();
    std::list<RedisLock> locks;
    for (int i = 0; i < count; ++i)
        locks.emplace_back(name_of(i % names), client);
    std::latch ready{count + 1};
    std::latch go{1};
    std::vector<std::jthread> threads;
    for (RedisLock& lock : locks) {
        threads.emplace_back([&] {
            ready.count_down();
            go.wait();
            lock.lock();
            lock.unlock();
        });
    }
    ready.arrive_and_wait();
    const Memory memory;
    go.count_down();
    until_waiting(all);
    memory.print(what, count, Memory::Show::without_resident, "-");
    leases.clear();
}

void print_memory(RedisServer& server, int count) {
    std::printf("\nBytes for each\n\n%-52s %8s %14s %14s  %s\n", "", "number", "operator new",
                "RSS", "target (operator new)");
    {
        RedisClient client{server.url()};
        client.ping();
        const std::string name = "a lock of some name, number 12345";
        std::list<RedisLock> locks;
        const Memory memory;
        for (int i = 0; i < count; ++i)
            locks.emplace_back(name + std::to_string(i), client);
        memory.print("lock that nobody holds (a list's node included)", count, Memory::Show::both,
                     "-");
    }
    constexpr int threads = 200;
    print_waiters(
        server, "thread that waits in the server's line", threads, threads,
        [](int i) { return "own " + std::to_string(i); },
        [&](const std::vector<std::string>& names) {
            wait_until([&] {
                return std::ranges::all_of(
                    names, [&](const std::string& name) { return in_line(server, name) == 1; });
            });
        });
    print_waiters(
        server, "thread that waits behind another of its process", threads, 1,
        [](int) { return std::string{"one"}; },
        [&](const std::vector<std::string>& names) {
            wait_until([&] { return in_line(server, names.front()) == 1; });
            // Nothing tells that the others have come as far as they go.
            std::this_thread::sleep_for(200ms);
        });
}

/// What the server and the client counted so far.
struct Counts {
    std::uint64_t renewals = 0;
    std::uint64_t writes = 0;
    std::uint64_t reads_of_server = 0;
    std::uint64_t bytes = 0;
    std::chrono::duration<double> processor{0};
    Clock::time_point time = Clock::now();
};

Counts counts(RedisServer& server, const RedisClient& client) {
    const ClientStats stats = client.stats();
    return {stats.renewals, stats.writes, std::stoull(server.info("total_reads_processed")),
            std::stoull(server.info("total_net_input_bytes")), processor_time()};
}

struct Settings {
    int leases = 10'000;
    int ttl = 30;
    int lives = 5;
};

void print_holding(RedisServer& server, const Settings& settings) {
    const std::chrono::seconds ttl{settings.ttl};
    RedisClient client{server.url()};
    client.ping();
    std::vector<Lease> leases;
    leases.reserve(static_cast<std::size_t>(settings.leases));
    {
        const Memory memory;
        for (int i = 0; i < settings.leases; ++i) {
            leases.push_back(RedisLock{
                "a lock of some name, number 12345" + std::to_string(i),
                client,
                {.ttl = ttl}}.lease());
        }
        memory.print("lease that is held (the lock is gone)", settings.leases, Memory::Show::both,
                     "< 1024");
    }

    // Not from the beginning: acquiring is no part of it.
    std::this_thread::sleep_for(ttl / 3 + 1s);
    const Counts first = counts(server, client);
    Line used{"% of a processor", {}};
    Line wrote{"writes", {}};
    Counts last = first;
    const int rounds = settings.lives * 3;
    {
        Progress progress{"renewal rounds", rounds};
        for (int round = 1; round <= rounds; ++round) {
            progress.step();
            std::this_thread::sleep_until(first.time + ttl * round / 3);
            const Counts now = counts(server, client);
            used.points.emplace_back(
                round, 100 * ((now.processor - last.processor) / (now.time - last.time)));
            wrote.points.emplace_back(round, static_cast<double>(now.writes - last.writes));
            last = now;
        }
    }
    const double renewals = static_cast<double>(last.renewals - first.renewals);
    const double turns = renewals / settings.leases;
    const double writes = static_cast<double>(last.writes - first.writes);
    // Each INFO of ours is a read too; there were two for each look.
    const double reads =
        static_cast<double>(last.reads_of_server - first.reads_of_server) - 2.0 * rounds;
    const auto processor = last.processor - first.processor;
    const auto valid = std::ranges::count_if(leases, &Lease::valid);

    std::printf("\n%d leases of %d s held by an idle client for %d times that\n\n%-52s %14s  %s\n",
                settings.leases, settings.ttl, settings.lives, "", "", "target");
    const auto line = [](const char* what, double value, const char* target) {
        std::printf("%-52s %14.2f  %s\n", what, value, target);
    };
    line("lost", static_cast<double>(client.stats().leases_lost), "0");
    line("still valid", static_cast<double>(valid), std::to_string(settings.leases).c_str());
    line("rounds of renewals", turns, "-");
    line("renewals a round", renewals / rounds, "-");
    line("writes a round, as the client counts them", writes / turns, "-");
    line("leases renewed by a write", renewals / writes, ">= 128");
    line("reads a round, as the server counts them", reads / turns, "-");
    line("bytes for each renewal, to the server",
         static_cast<double>(last.bytes - first.bytes) / renewals, "-");
    line("processor, % of one", 100 * (processor / (last.time - first.time)),
         settings.ttl == 30 ? "< 2" : "< 2 (of leases of 30 s)");
    line("processor, microseconds for each renewal", processor.count() * 1e6 / renewals, "-");

    const std::string path = std::string{BENCHMARK_OUTPUT} + "/redis_idle.svg";
    std::ofstream{path} << svg("codomyrmex-concurrency: a client that only holds leases",
                               "round of renewals", "",
                               {{"processor time, % of one", {used}}, {"writes", {wrote}}});
    std::printf("\nDrawn into %s\n", path.c_str());
}

}  // namespace

int main(int count, char** words) {
    Settings settings;
    read_options(count, words,
                 {{"--leases", settings.leases, 1, "how many are held"},
                  {"--ttl", settings.ttl, 1, "their time to live in seconds"},
                  {"--lives", settings.lives, 1, "how many times that they are held"}});
    if (!RedisServer::available()) {
        std::puts("no redis-server in PATH");
        return 0;
    }
    RedisServer server;
    std::printf("An idle client, over a unix socket, %s\n",
                is_pinned() ? "all on one processor" : "not pinned");
    print_memory(server, settings.leases);
    print_holding(server, settings);
}
