// SPDX-License-Identifier: MIT
//
// What a fencing token protects: a shared value that remembers the largest token it has seen and
// turns away whoever comes with a smaller one. A file under flock(2), so that it stands on nothing
// of what it tests and survives the death of those who use it.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FENCED_REGISTER_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FENCED_REGISTER_HPP

#include "support/process.hpp"

#include <cstdint>
#include <fcntl.h>
#include <optional>
#include <string>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace test_support {

/// A number in a file that its users read and then write. Each access is appended to the file, the
/// last one is the state. Reads are fenced too: if they were not, a late writer could come between
/// the read and the write of the next holder, who would then write over it.
/// Threads: one object each; flock(2) tells open files apart, not threads.
class FencedRegister {
  public:
    /// An access that was let through. A power of two in size, so that none lies across two pages
    /// and none is ever written by half, whenever its writer is killed.
    struct Access {
        std::uint64_t fence = 0;
        std::uint64_t value = 0;  ///< What was read, or what was written.
        std::uint64_t wrote = 0;  ///< 1 for a write.
        std::uint64_t unused = 0;
    };
    static_assert(sizeof(Access) == 32);

    explicit FencedRegister(const std::string& path)
        : file_{::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600)} {
        if (!file_) throw_errno("open " + path);
    }

    /// The value; nothing if a larger token was here before.
    [[nodiscard]] std::optional<std::uint64_t> read(std::uint64_t fence) {
        const Locked locked{file_.get()};
        const Access last = this->last();
        if (fence < last.fence) return std::nullopt;
        append({fence, last.value, 0, 0});
        return last.value;
    }

    /// Writes the value; false if a larger token was here before.
    [[nodiscard]] bool write(std::uint64_t fence, std::uint64_t value) {
        const Locked locked{file_.get()};
        if (fence < last().fence) return false;
        append({fence, value, 1, 0});
        return true;
    }

    /// Which of all accesses the last one was that this object was let through with, from 1 on.
    [[nodiscard]] std::uint64_t place() const noexcept { return place_; }

    /// All that was let through, in order.
    [[nodiscard]] std::vector<Access> accesses() const {
        std::vector<Access> all(size() / sizeof(Access));
        for (std::size_t i = 0; i < all.size(); ++i)
            all[i] = at(i);
        return all;
    }

  private:
    class Locked {
      public:
        explicit Locked(int file) : file_{file} {
            while (::flock(file_, LOCK_EX) != 0) {
                if (errno != EINTR) throw_errno("flock");
            }
        }
        Locked(const Locked&) = delete;
        Locked& operator=(const Locked&) = delete;
        ~Locked() { ::flock(file_, LOCK_UN); }

      private:
        int file_;
    };

    [[nodiscard]] std::size_t size() const {
        struct stat status {};
        if (::fstat(file_.get(), &status) != 0) throw_errno("fstat");
        return static_cast<std::size_t>(status.st_size);
    }

    [[nodiscard]] Access at(std::size_t index) const {
        Access access;
        const auto offset = static_cast<off_t>(index * sizeof access);
        if (::pread(file_.get(), &access, sizeof access, offset) !=
            static_cast<ssize_t>(sizeof access)) {
            throw_errno("pread");
        }
        return access;
    }

    [[nodiscard]] Access last() const {
        const std::size_t count = size() / sizeof(Access);
        return count == 0 ? Access{} : at(count - 1);
    }

    void append(const Access& access) {
        if (::write(file_.get(), &access, sizeof access) != static_cast<ssize_t>(sizeof access)) {
            throw_errno("write");
        }
        place_ = size() / sizeof(Access);
    }

    Fd file_;
    std::uint64_t place_ = 0;
};

/// What is wrong with the accesses of a register: a smaller token after a larger one, or an update
/// that was lost where each user writes one more than it has read.
[[nodiscard]] inline std::vector<std::string> violations_of(
    const std::vector<FencedRegister::Access>& accesses) {
    std::vector<std::string> violations;
    FencedRegister::Access last;
    for (const auto& access : accesses) {
        if (access.fence < last.fence) {
            violations.push_back("the register let fence " + std::to_string(access.fence) +
                                 " in after " + std::to_string(last.fence));
        }
        if (access.value != last.value + access.wrote) {
            violations.push_back(
                "the register had " + std::to_string(last.value) +
                (access.wrote == 1 ? " and was overwritten with " : " and was read as ") +
                std::to_string(access.value) + ": an update is lost");
        }
        last = access;
    }
    return violations;
}

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FENCED_REGISTER_HPP
