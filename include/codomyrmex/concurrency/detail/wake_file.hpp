// SPDX-License-Identifier: MIT
//
// A file that becomes readable when another thread wants it to: how to wake a thread that sleeps in
// poll(). POSIX behind one owner type.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_WAKE_FILE_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_WAKE_FILE_HPP

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>

namespace codomyrmex::concurrency::detail {

/// Threads: signal() by any; the rest by the thread that sleeps.
class WakeFile {
  public:
    /// Throws: std::system_error if the process has no files left.
    WakeFile() {
        if (::pipe(files_.data()) != 0) {
            throw std::system_error{errno, std::generic_category(), "cannot make a pipe"};
        }
        for (const int file : files_) {
            ::fcntl(file, F_SETFD, FD_CLOEXEC);
            ::fcntl(file, F_SETFL, ::fcntl(file, F_GETFL) | O_NONBLOCK);
        }
    }
    WakeFile(const WakeFile&) = delete;
    WakeFile& operator=(const WakeFile&) = delete;
    ~WakeFile() { close_in_child(); }

    void signal() const noexcept {
        // A full pipe wakes as well.
        const char byte = 0;
        [[maybe_unused]] const auto written = ::write(files_[1], &byte, 1);
    }

    void drain() const noexcept {
        std::array<char, 64> bytes{};
        while (::read(files_[0], bytes.data(), bytes.size()) > 0) {
        }
    }

    [[nodiscard]] int descriptor() const noexcept { return files_[0]; }

    /// In the child of a fork, where nobody ever uses or destroys it: closes it without a change.
    void close_in_child() const noexcept {
        for (const int file : files_)
            ::close(file);
    }

  private:
    std::array<int, 2> files_{-1, -1};
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_WAKE_FILE_HPP
