// SPDX-License-Identifier: MIT
//
// The way to servers that are far off: forwards bytes between unix sockets, and those that come
// back so much later. One thread for all ways, and no look at the bytes, so that it takes as little
// as it can of the processors that are measured. (fault_proxy.hpp is the one that knows requests.)

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_DELAY_LINE_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_DELAY_LINE_HPP

#include "support/process.hpp"
#include "support/temp_dir.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <iterator>
#include <list>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace benchmarks {

class DelayLine {
  public:
    using Clock = std::chrono::steady_clock;

    /// To each of these sockets there is a way, `url(i)`.
    DelayLine(std::vector<std::string> sockets, std::chrono::nanoseconds delay)
        : sockets_{std::move(sockets)}, delay_{delay}, end_{::eventfd(0, EFD_CLOEXEC)} {
        for (std::size_t i = 0; i < sockets_.size(); ++i) {
            test_support::Fd listener{open()};
            const sockaddr_un own = address(dir_.file("way" + std::to_string(i)));
            const auto* const generic = reinterpret_cast<const sockaddr*>(&own);
            if (::bind(listener.get(), generic, sizeof own) != 0 ||
                ::listen(listener.get(), 16) != 0) {
                test_support::throw_errno("listen");
            }
            listeners_.push_back(std::move(listener));
        }
        thread_ = std::thread{[this] { run(); }};
    }
    DelayLine(const DelayLine&) = delete;
    DelayLine& operator=(const DelayLine&) = delete;
    ~DelayLine() {
        const std::uint64_t one = 1;
        if (::write(end_.get(), &one, sizeof one) < 0) std::abort();
        thread_.join();
    }

    [[nodiscard]] std::string url(std::size_t way) const {
        return "unix://" + dir_.file("way" + std::to_string(way));
    }

  private:
    struct Late {
        Clock::time_point due;
        std::string bytes;
    };
    struct Way {
        test_support::Fd client;
        test_support::Fd server;
        std::deque<Late> back;
    };

    static int open() {
        const int file = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (file < 0) test_support::throw_errno("socket");
        return file;
    }
    static sockaddr_un address(const std::string& path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path.size() >= sizeof address.sun_path) std::abort();
        std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
        return address;
    }

    void run() {
        std::vector<pollfd> files;
        for (;;) {
            files.assign({{end_.get(), POLLIN, 0}});
            for (const auto& listener : listeners_)
                files.push_back({listener.get(), POLLIN, 0});
            auto next = Clock::time_point::max();
            for (const Way& way : ways_) {
                files.push_back({way.client.get(), POLLIN, 0});
                files.push_back({way.server.get(), POLLIN, 0});
                if (!way.back.empty()) next = std::min(next, way.back.front().due);
            }
            timespec pause{};
            if (next != Clock::time_point::max()) {
                const auto left = std::max(next - Clock::now(), Clock::duration::zero());
                pause.tv_sec = static_cast<time_t>(left.count() / 1'000'000'000);
                pause.tv_nsec = static_cast<long>(left.count() % 1'000'000'000);
            }
            ::ppoll(files.data(), files.size(), next == Clock::time_point::max() ? nullptr : &pause,
                    nullptr);
            if (files[0].revents != 0) return;
            std::size_t file = 1 + listeners_.size();
            for (auto way = ways_.begin(); way != ways_.end(); file += 2)
                way = serve(*way, files[file].revents, files[file + 1].revents) ? std::next(way)
                                                                                : ways_.erase(way);
            for (std::size_t i = 0; i < listeners_.size(); ++i)
                if (files[1 + i].revents != 0) accept(i);
        }
    }

    void accept(std::size_t i) {
        Way way;
        way.client =
            test_support::Fd{::accept4(listeners_[i].get(), nullptr, nullptr, SOCK_CLOEXEC)};
        way.server = test_support::Fd{open()};
        const sockaddr_un to = address(sockets_[i]);
        const auto* const generic = reinterpret_cast<const sockaddr*>(&to);
        if (::connect(way.server.get(), generic, sizeof to) == 0) ways_.push_back(std::move(way));
    }

    // Returns: false when one end is gone.
    bool serve(Way& way, short from_client, short from_server) {
        std::array<char, 65536> bytes;
        if (from_client != 0) {
            const ssize_t size = ::recv(way.client.get(), bytes.data(), bytes.size(), 0);
            if (size <= 0) return false;
            const std::string_view got{bytes.data(), static_cast<std::size_t>(size)};
            if (::send(way.server.get(), got.data(), got.size(), MSG_NOSIGNAL) != size)
                return false;
        }
        if (from_server != 0) {
            const ssize_t size = ::recv(way.server.get(), bytes.data(), bytes.size(), 0);
            if (size <= 0) return false;
            way.back.push_back(
                {Clock::now() + delay_, std::string(bytes.data(), static_cast<std::size_t>(size))});
        }
        for (; !way.back.empty() && way.back.front().due <= Clock::now(); way.back.pop_front()) {
            const std::string& late = way.back.front().bytes;
            if (::send(way.client.get(), late.data(), late.size(), MSG_NOSIGNAL) < 0) return false;
        }
        return true;
    }

    test_support::TempDir dir_;
    const std::vector<std::string> sockets_;
    const std::chrono::nanoseconds delay_;
    const test_support::Fd end_;
    std::vector<test_support::Fd> listeners_;
    std::list<Way> ways_;
    std::thread thread_;
};

}  // namespace benchmarks

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_DELAY_LINE_HPP
