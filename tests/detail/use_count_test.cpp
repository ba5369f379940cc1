// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/detail/use_count.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <type_traits>

using codomyrmex::concurrency::detail::UseCount;

static_assert(!std::is_copy_constructible_v<UseCount> && !std::is_move_constructible_v<UseCount>);

TEST_CASE("Where nothing is, or nothing any more, there is nothing to use") {
    UseCount count;
    CHECK_FALSE(count.use(count.look()));
    count.come();
    CHECK(count.go());
    CHECK_FALSE(count.use(count.look()));
}

TEST_CASE("A thing goes when its last use has ended, and not before") {
    UseCount count;
    count.come();
    CHECK(count.use(count.look()));
    count.use_again();
    CHECK_FALSE(count.go());
    count.drop();
    CHECK_FALSE(count.go());
    count.drop();
    CHECK(count.go());
}

TEST_CASE("What was seen can be used as long as it is there, whoever used it meanwhile") {
    UseCount count;
    count.come();
    const auto seen = count.look();
    CHECK(count.use(count.look()));
    CHECK(count.use(seen));
    count.drop();
    count.drop();
    CHECK(count.use(seen));
    count.drop();
}

TEST_CASE("What was seen and has gone is not mistaken for the next, nor does that notice") {
    UseCount count;
    count.come();
    const auto seen = count.look();
    CHECK(count.go());
    CHECK_FALSE(count.use(seen));
    count.come();
    CHECK_FALSE(count.use(seen));
    CHECK(count.go());
}

TEST_CASE("Threads that use a thing never meet one that goes") {
    constexpr int users = 3;
    constexpr int least = 10'000;
    UseCount count;
    int thing = 0;  // plain: ThreadSanitizer tells if the order is missing
    std::atomic<int> said{0};
    std::atomic<int> wrong{0};
    std::atomic<int> used{0};
    std::atomic<bool> over{false};
    support::run_together(users + 1, [&](int thread) {
        if (thread == users) {
            for (int i = 1; i <= least || used < least; ++i) {
                thing = i;
                said.store(i, std::memory_order_relaxed);
                count.come();
                while (!count.go()) {
                }
                thing = 0;
            }
            over = true;
            return;
        }
        while (!over) {
            const auto seen = count.look();
            const int what = said.load(std::memory_order_relaxed);
            if (!count.use(seen)) continue;
            if (thing != what) ++wrong;
            ++used;
            count.drop();
        }
    });
    CHECK(wrong == 0);
}
