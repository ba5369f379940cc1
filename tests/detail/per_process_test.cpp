// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/detail/per_process.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

namespace {

using codomyrmex::concurrency::detail::PerProcess;

/// One that believes in a fork when it is told of it.
class Core {
  public:
    explicit Core(std::atomic<int>& alive) : alive_{alive} { ++alive_; }
    Core(const Core&) = delete;
    Core& operator=(const Core&) = delete;
    ~Core() { --alive_; }

    void fork() noexcept { forked_ = true; }
    [[nodiscard]] bool forked() const noexcept { return forked_; }
    void close_in_child() noexcept { ++closed_; }
    [[nodiscard]] int closed() const noexcept { return closed_; }

  private:
    std::atomic<int>& alive_;
    std::atomic<bool> forked_{false};
    std::atomic<int> closed_{0};
};

}  // namespace

TEST_CASE("A process has one from the beginning, which ends with it") {
    std::atomic<int> alive{0};
    const auto make = [&] { return std::make_unique<Core>(alive); };
    {
        PerProcess<Core> own{make()};
        Core& first = own.get(make);
        CHECK(&own.get(make) == &first);
        CHECK(alive == 1);
    }
    CHECK(alive == 0);
}

TEST_CASE("What was taken is gone when it is let go") {
    std::atomic<int> alive{0};
    const auto make = [&] { return std::make_unique<Core>(alive); };
    PerProcess<Core> own{make()};
    CHECK(own.take() != nullptr);
    CHECK(alive == 0);
    CHECK(own.take() == nullptr);
}

TEST_CASE("Threads of a child make one for all, and the parent's is closed once and lives on") {
    std::atomic<int> alive{0};
    const auto make = [&] { return std::make_unique<Core>(alive); };
    auto made = make();
    Core* const parents = made.get();
    {
        PerProcess<Core> own{std::move(made)};
        parents->fork();
        std::array<Core*, 4> got{};
        support::run_together(4,
                              [&](int i) { got.at(static_cast<std::size_t>(i)) = &own.get(make); });
        for (const Core* each : got)
            CHECK(each == got[0]);
        CHECK(got[0] != parents);
        CHECK(parents->closed() == 1);
        CHECK(alive == 2);
    }
    CHECK(alive == 1);
    delete parents;
}

TEST_CASE("A child that made none has nothing to end") {
    std::atomic<int> alive{0};
    auto made = std::make_unique<Core>(alive);
    Core* const parents = made.get();
    {
        PerProcess<Core> own{std::move(made)};
        parents->fork();
        CHECK(own.take() == nullptr);
    }
    CHECK(alive == 1);
    delete parents;
}
