// SPDX-License-Identifier: MIT
//
// A lock of one's own in the registry. Any TimedLockable will do: here a file lock, flock(2), which
// other programs respect too. Prints
//
//     another program gets the file: no, then yes

#include <codomyrmex/concurrency.hpp>

#include <chrono>
#include <fcntl.h>
#include <iostream>
#include <sys/file.h>
#include <thread>
#include <unistd.h>

using namespace codomyrmex::concurrency;

class FileLock {
  public:
    explicit FileLock(const char* path) : fd_{::open(path, O_RDONLY | O_CLOEXEC)} {}
    FileLock(const FileLock&) = delete;
    FileLock& operator=(const FileLock&) = delete;
    ~FileLock() { ::close(fd_); }

    void lock() { ::flock(fd_, LOCK_EX); }
    [[nodiscard]] bool try_lock() { return ::flock(fd_, LOCK_EX | LOCK_NB) == 0; }
    void unlock() { ::flock(fd_, LOCK_UN); }

    [[nodiscard]] bool try_lock_for(std::chrono::nanoseconds timeout) {
        return try_lock_until(std::chrono::steady_clock::now() + timeout);
    }
    [[nodiscard]] bool try_lock_until(std::chrono::steady_clock::time_point end) {
        while (!try_lock()) {  // flock(2) knows no deadline
            if (std::chrono::steady_clock::now() >= end) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds{1});
        }
        return true;
    }

  private:
    int fd_;
};
static_assert(TimedLockable<FileLock>);  // says what is missing, if something is

int main(int, char** argv) {
    FileLock ours{argv[0]}, theirs{argv[0]};  // two descriptors, as two programs have
    LockManager manager;
    manager.register_lock("program", ours);

    auto guard = manager.lock("program");
    const bool during = theirs.try_lock();
    guard.unlock();
    const bool after = theirs.try_lock();
    std::cout << "another program gets the file: " << (during ? "yes" : "no") << ", then "
              << (after ? "yes" : "no") << '\n';
    return !during && after ? 0 : 1;
}
