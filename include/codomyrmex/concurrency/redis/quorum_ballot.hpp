// SPDX-License-Identifier: MIT
//
// A question to all nodes of a quorum while its answers come in: the ballot, on which they are
// counted, and the desk, at which the thread sleeps that waits until it is decided. Who asks is
// quorum_caller.hpp's subject; how votes are counted, quorum_round.hpp's.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_BALLOT_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_BALLOT_HPP

#include <codomyrmex/concurrency/detail/wake_file.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <poll.h>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Where one thread at a time sleeps, in poll().
/// Threads: what is said of sleep, under the lock of whoever counts; the rest by the sleeper.
class Desk {
  public:
    /// Its thread is about to sleep: from here on notify() wakes it.
    void sleep_begins() noexcept { asleep_ = true; }
    void sleep_ends() noexcept { asleep_ = false; }

    /// Wakes the thread, if it sleeps: what it waits for may have come true.
    void notify() noexcept {
        if (std::exchange(asleep_, false)) wake_.signal();
    }

    /// Readable once notify() woke it, until it is drained.
    [[nodiscard]] int descriptor() const noexcept { return wake_.descriptor(); }
    void drain() const noexcept { wake_.drain(); }

    std::vector<pollfd> files{};  ///< room for what the sleeper gives to poll()

  private:
    detail::WakeFile wake_{};
    bool asleep_ = false;
};

/// Desks that nobody sits at, for a new one costs two files.
/// Threads: safe.
class Desks {
  public:
    /// A desk for as long as this lives.
    class Loan {
      public:
        /// Requires: `from` outlives it. Throws: std::exception if a new one cannot be made.
        explicit Loan(Desks& from) : from_{from}, desk_{from.take()} {}
        Loan(const Loan&) = delete;
        Loan& operator=(const Loan&) = delete;
        ~Loan() { from_.put(desk_); }

        /// Answers that come late may keep it for longer.
        [[nodiscard]] const std::shared_ptr<Desk>& desk() const noexcept { return desk_; }

      private:
        Desks& from_;
        const std::shared_ptr<Desk> desk_;
    };

  private:
    [[nodiscard]] std::shared_ptr<Desk> take() {
        {
            const std::lock_guard guard{mutex_};
            if (!free_.empty()) {
                auto desk = std::move(free_.back());
                free_.pop_back();
                return desk;
            }
        }
        return std::make_shared<Desk>();
    }

    void put(const std::shared_ptr<Desk>& desk) noexcept {
        const std::lock_guard guard{mutex_};
        try {
            if (free_.size() < most) free_.push_back(desk);
        } catch (const std::exception&) {
            // Then the next one makes its own.
        }
    }

    static constexpr std::size_t most = 16;

    std::mutex mutex_;
    std::vector<std::shared_ptr<Desk>> free_;
};

/// A question, and how it stands. `Content`: QuorumVotes, or what counts like it.
/// Not thread-safe.
template <class Content>
struct Ballot {
    Content content;
    std::shared_ptr<Desk> desk{};  ///< of who waits for it, if anybody does
    bool closed = false;           ///< the decision was acted upon

    /// To be called after a vote. Returns: true once, when it is decided.
    [[nodiscard]] bool take_decision() { return content.decided() && !std::exchange(closed, true); }
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_BALLOT_HPP
