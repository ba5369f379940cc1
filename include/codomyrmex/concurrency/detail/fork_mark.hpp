// SPDX-License-Identifier: MIT
//
// Tells the child of a fork() that it is one. A page of memory that the kernel wipes in the child
// (Linux, MADV_WIPEONFORK) costs a load to look at, where getpid() costs a system call, and needs
// neither a handler nor a global; elsewhere it is getpid().

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_FORK_MARK_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_FORK_MARK_HPP

#include <codomyrmex/concurrency/detail/system.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <sys/mman.h>
#include <unistd.h>

namespace codomyrmex::concurrency::detail {

/// Threads: safe.
class ForkMark {
  public:
    ForkMark() noexcept {
#if defined(MADV_WIPEONFORK)
        void* const page =
            ::mmap(nullptr, size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) return;
        // Emulators were seen that say yes to any advice, and wipe nothing.
        const bool says_yes = ::madvise(page, size(), -1) == 0;
        if (says_yes || ::madvise(page, size(), MADV_WIPEONFORK) != 0) {
            ::munmap(page, size());
            return;
        }
        mark_ = ::new (page) std::atomic<std::uint32_t>{1};
#endif
    }
    ForkMark(const ForkMark&) = delete;
    ForkMark& operator=(const ForkMark&) = delete;
    ~ForkMark() {
        if (mark_ != nullptr) ::munmap(mark_, size());
    }

    /// Whether this process is not the one that made it.
    [[nodiscard]] bool in_child() const noexcept {
        // Relaxed: it says nothing about other memory.
        if (mark_ != nullptr) return mark_->load(std::memory_order_relaxed) == 0;
        return process_id() != process_;
    }

  private:
    [[nodiscard]] static std::size_t size() noexcept {
        return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    }

    const std::int64_t process_ = process_id();
    std::atomic<std::uint32_t>* mark_ = nullptr;
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_FORK_MARK_HPP
