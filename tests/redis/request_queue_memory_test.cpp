// SPDX-License-Identifier: MIT
//
// Tests of request_queue.hpp where each allocation fails in turn: no request may be lost by that.

#include <codomyrmex/concurrency/redis/batch_scripts.hpp>
#include <codomyrmex/concurrency/redis/request_queue.hpp>

#include "support/catch2.hpp"
#include "support/replies.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

/// How many allocations succeed before one fails; negative: all do.
long before_failure = -1;

[[maybe_unused]] void* allocate(std::size_t size) {
    if (before_failure == 0) throw std::bad_alloc{};
    if (before_failure > 0) --before_failure;
    if (void* const memory = std::malloc(size)) return memory;
    throw std::bad_alloc{};
}

}  // namespace

// The thread sanitizer lets nobody else allocate.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ALLOCATES_BY_ITSELF
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define ALLOCATES_BY_ITSELF
#endif

#if defined(ALLOCATES_BY_ITSELF)
#define REQUIRE_FAILING_ALLOCATIONS() SKIP("the thread sanitizer allocates by itself")
#else
#define REQUIRE_FAILING_ALLOCATIONS() static_cast<void>(0)

void* operator new(std::size_t size) {
    return allocate(size);
}
void* operator new(std::size_t size, const std::nothrow_t& /*unused*/) noexcept {
    return std::malloc(size);
}
void operator delete(void* memory) noexcept {
    std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}
#endif

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
namespace replies = test_support::replies;

constexpr std::size_t count = 40;
const JointScript joint{acquire_each_script, false, 1};

RequestPtr joinable(char name) {
    auto made = std::make_shared<Request>();
    std::string bytes;
    Parts parts;
    parts.joint = &joint;
    parts.own_words = parts.common_words = 1;
    const auto add = [&bytes](std::string_view word) {
        const auto begin = static_cast<std::uint32_t>(bytes.size());
        bytes += word;
        return begin;
    };
    parts.keys = add("k");
    parts.own = add("o");
    parts.common = add("c");
    parts.time = parts.number = add(std::string{"$2\r\n#"} + name + "\r\n");
    made->command = std::move(bytes);
    made->command.parts = parts;
    made->waited_for = false;
    return made;
}

/// A queue with requests that were sent in one call.
struct Bench {
    RequestQueue queue{1000};
    std::vector<RequestPtr> all;

    Bench() {
        for (std::size_t i = 0; i < count; ++i) {
            all.push_back(joinable(static_cast<char>('A' + i)));
            REQUIRE(queue.add(all.back()));
        }
        std::string output;
        queue.take(output, {}, {}, 1);
        REQUIRE(queue.unanswered() == 1);
    }
};

Reply reply_of(const std::string& text, bool error) {
    if (error) return replies::error(text);
    std::string texts;
    for (std::size_t i = 0; i < count; ++i)
        texts += text;
    return replies::text(texts + "#A");
}

}  // namespace

TEST_CASE("A joint call that cannot be answered for want of memory stays as it was") {
    REQUIRE_FAILING_ALLOCATIONS();
    const bool error = GENERATE(true, false, false);
    const std::string text =
        error ? "CROSSSLOT" : GENERATE(as<std::string>{}, "1 a long text of the server's ,", ",");
    long failures = 0;
    for (bool answered = false; !answered; ++failures) {
        Bench bench;
        Reply reply = reply_of(text, error);
        std::vector<RequestPtr> ended;
        before_failure = failures;
        try {
            answered = bench.queue.answer(std::move(reply), ended);
        } catch (const std::bad_alloc&) {
        }
        before_failure = -1;
        CAPTURE(text, failures, answered, ended.size(), bench.queue.size());
        CHECK(bench.queue.size() + ended.size() == count);
        if (!answered) {
            REQUIRE(ended.empty());
            REQUIRE(bench.queue.unanswered() == 1);
            REQUIRE(bench.queue.unsent() == 0);
            REQUIRE(bench.queue.disconnect("out of memory").size() == count);
        }
    }
    CHECK(failures > 2);
}

TEST_CASE("A connection that breaks without memory left leaves all requests where they were") {
    REQUIRE_FAILING_ALLOCATIONS();
    long failures = 0;
    for (bool done = false; !done; ++failures) {
        Bench bench;
        for (std::size_t i = 0; i < count; i += 2)
            bench.all[i]->repeat = true;
        std::size_t ended = 0;
        before_failure = failures;
        try {
            ended = bench.queue.disconnect("it broke, for a long reason that takes memory").size();
            done = true;
        } catch (const std::bad_alloc&) {
        }
        before_failure = -1;
        CAPTURE(failures, ended);
        REQUIRE(bench.queue.size() + ended == count);
        if (!done) REQUIRE(bench.queue.disconnect("again").size() == count / 2);
    }
    CHECK(failures > 2);
}
