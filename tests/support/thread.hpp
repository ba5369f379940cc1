// SPDX-License-Identifier: MIT
//
// The standard's thread that joins, and its request to stop; where the library lacks them (libc++
// 16 does), as much of them as the tests of the local half use.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_THREAD_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_THREAD_HPP

#include <thread>

#if defined(__cpp_lib_jthread)

#include <stop_token>

namespace support {

using Thread = std::jthread;
using StopSource = std::stop_source;
using StopToken = std::stop_token;

}  // namespace support

#else

#include <atomic>
#include <memory>
#include <utility>

namespace support {

class Thread : public std::thread {
  public:
    using std::thread::thread;
    Thread(Thread&&) noexcept = default;
    Thread& operator=(Thread&&) noexcept = default;
    ~Thread() {
        if (joinable()) join();
    }
};

class StopToken {
  public:
    StopToken() = default;
    explicit StopToken(std::shared_ptr<const std::atomic<bool>> requested)
        : requested_{std::move(requested)} {}

    [[nodiscard]] bool stop_possible() const noexcept { return requested_ != nullptr; }
    [[nodiscard]] bool stop_requested() const noexcept { return requested_ && *requested_; }

  private:
    std::shared_ptr<const std::atomic<bool>> requested_;
};

class StopSource {
  public:
    [[nodiscard]] StopToken get_token() const { return StopToken{requested_}; }
    [[nodiscard]] bool stop_requested() const noexcept { return *requested_; }
    bool request_stop() noexcept { return !requested_->exchange(true); }

  private:
    std::shared_ptr<std::atomic<bool>> requested_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace support

#endif

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_THREAD_HPP
