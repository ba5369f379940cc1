// SPDX-License-Identifier: MIT
//
// A registry that is asked for a million names does not grow with their number.

#include <codomyrmex/concurrency/lock_manager.hpp>

#include "support/catch2.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <string>
#include <unistd.h>

using namespace codomyrmex::concurrency;

namespace {

constexpr int million = 1'000'000;

/// The memory of this process that is in use now, in KiB; 0 where the system does not tell.
std::size_t resident() {
    std::ifstream file{"/proc/self/statm"};
    std::size_t size = 0;
    std::size_t pages = 0;
    if (!(file >> size >> pages)) return 0;
    return pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) / 1024;
}

constexpr bool sanitized =
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    true;
#else
    false;
#endif
#else
    false;
#endif

/// Uses a million names by `use` and sees what is kept of them.
template <class Use>
void check_a_million(Use use) {
    LockManager manager;
    const LockManagerOptions defaults;
    const std::size_t bound = defaults.shards * defaults.cached_per_shard;
    for (int i = 0; i < million / 10; ++i)
        use(manager, "name number " + std::to_string(i));
    const std::size_t early = resident();
    std::size_t most = 0;
    for (int i = million / 10; i < million; ++i) {
        use(manager, "name number " + std::to_string(i));
        if (i % 50'000 == 0) most = std::max(most, manager.stats().registered);
    }
    const std::size_t late = resident();
    CAPTURE(early, late, most, bound);
    CHECK(most <= bound);
    CHECK(most > 0);
    CHECK(manager.stats().acquisitions == million);
    CHECK(manager.stats().releases == million);
    // A tenth of the names were used before: had each left but 16 bytes, this would be 14 MiB more.
    if (early != 0 && !sanitized) CHECK(late <= early + 2 * 1024);
}

}  // namespace

TEST_CASE("A million locks by name leave no memory behind") {
    check_a_million(
        [](auto& manager, const std::string& name) { const auto guard = manager.lock(name); });
}

TEST_CASE("A million read-write locks by name leave no memory behind") {
    check_a_million(
        [](auto& manager, const std::string& name) { const auto guard = manager.write(name); });
}

TEST_CASE("A million semaphores by name leave no memory behind") {
    check_a_million(
        [](auto& manager, const std::string& name) { const auto guard = manager.permit(name, 2); });
}

TEST_CASE("A million handles by name leave no memory behind") {
    check_a_million([](auto& manager, const std::string& name) {
        auto handle = manager.get_lock(name);
        handle.lock();
        handle.unlock();
    });
}
