// SPDX-License-Identifier: MIT
//
// From a host's name to its addresses, within a deadline.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_RESOLUTION_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_RESOLUTION_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/socket_wait.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <netdb.h>
#include <string>
#include <sys/socket.h>
#include <system_error>
#include <thread>
#include <utility>

namespace codomyrmex::concurrency::detail {

struct AddressInfoDelete {
    void operator()(addrinfo* list) const noexcept { ::freeaddrinfo(list); }
};
using AddressList = std::unique_ptr<addrinfo, AddressInfoDelete>;

/// getaddrinfo() within a deadline. It cannot be interrupted, so unless the host is a number it
/// runs on a thread of its own, which is left behind if it takes too long.
class Resolution {
  public:
    /// `running`: the resolution that an earlier call for the same host left behind, or null.
    /// Returns: done with `list` set, or anything else with `error` set.
    template <class Tick>
    [[nodiscard]] static SocketResult resolve(std::shared_ptr<Resolution>& running,
                                              const std::string& host, std::uint16_t port,
                                              Deadline deadline, Tick& tick, AddressList& list,
                                              std::string& error) {
        const std::string service = std::to_string(port);
        if (query(host, service, AI_NUMERICHOST, list) == 0) return SocketResult::done;

        if (running == nullptr) {
            try {
                running = start(host, service);
            } catch (const std::system_error&) {
                error = "the name '" + host + "' was not resolved: no thread could be started";
                return SocketResult::failed;
            }
        }
        // It stays there if this call gives up, so that the next one waits for the same thread.
        const std::shared_ptr<Resolution> shared = running;
        std::unique_lock guard{shared->mutex_};
        while (!shared->finished_) {
            const auto left = std::min<std::chrono::nanoseconds>(
                next_wake<Tick>(deadline).remaining(), std::chrono::hours{1});
            shared->changed_.wait_for(guard, left);
            if (shared->finished_) break;
            if (deadline.expired()) {
                error = "the name '" + host + "' was not resolved in time";
                return SocketResult::timeout;
            }
            if (!keep_going(tick)) return SocketResult::stopped;
        }
        running = nullptr;
        if (shared->code_ != 0) {
            error = "the name '" + host + "' was not resolved: " + ::gai_strerror(shared->code_);
            return SocketResult::failed;
        }
        list = std::move(shared->list_);
        return SocketResult::done;
    }

  private:
    [[nodiscard]] static std::shared_ptr<Resolution> start(const std::string& host,
                                                           const std::string& service) {
        auto shared = std::make_shared<Resolution>();
        const SignalsBlocked blocked;
        std::thread{[shared, host, service] {
            AddressList found;
            const int code = query(host, service, AI_ADDRCONFIG, found);
            const std::lock_guard guard{shared->mutex_};
            shared->list_ = std::move(found);
            shared->code_ = code;
            shared->finished_ = true;
            shared->changed_.notify_one();
        }}.detach();
        return shared;
    }

    [[nodiscard]] static int query(const std::string& host, const std::string& service, int flags,
                                   AddressList& list) {
        addrinfo hints{};
        hints.ai_family = AF_UNSPEC;
        hints.ai_socktype = SOCK_STREAM;
        hints.ai_flags = flags | AI_NUMERICSERV;
        addrinfo* found = nullptr;
        const int code = ::getaddrinfo(host.c_str(), service.c_str(), &hints, &found);
        list.reset(code == 0 ? found : nullptr);
        return code;
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    bool finished_ = false;
    int code_ = 0;
    AddressList list_;
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_RESOLUTION_HPP
