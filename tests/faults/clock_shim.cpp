// SPDX-License-Identifier: MIT
//
// A library to preload into a redis-server, that sets its wall clock back or forward while it runs,
// and nobody else's: CODOMYRMEX_CLOCK_FILE names a file whose first eight bytes are the step in
// nanoseconds. Steady clocks go on untouched, as they would. (libfaketime shifts those, too, and
// redis-server does not survive it.)

#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

namespace {

const volatile std::int64_t* map_step() {
    const char* const path = std::getenv("CODOMYRMEX_CLOCK_FILE");
    if (path == nullptr) return nullptr;
    const int file = ::open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return nullptr;
    void* const bytes = ::mmap(nullptr, sizeof(std::int64_t), PROT_READ, MAP_SHARED, file, 0);
    ::close(file);
    return bytes == MAP_FAILED ? nullptr : static_cast<const volatile std::int64_t*>(bytes);
}

std::int64_t step() {
    // No local static: its guard may call what calls us.
    static const volatile std::int64_t* mapped = nullptr;
    static bool tried = false;
    if (!tried) {
        tried = true;
        mapped = map_step();
    }
    return mapped == nullptr ? 0 : *mapped;
}

int stepped(clockid_t clock, timespec* time) {
    const long result = ::syscall(SYS_clock_gettime, clock, time);
    if (result != 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) {
        return static_cast<int>(result);
    }
    constexpr std::int64_t second = 1'000'000'000;
    const std::int64_t ns = std::int64_t{time->tv_sec} * second + time->tv_nsec + step();
    time->tv_sec = ns / second;
    time->tv_nsec = ns % second;
    return 0;
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) noexcept {
    return stepped(clock, time);
}

int gettimeofday(timeval* time, void* /*zone*/) noexcept {
    timespec now{};
    const int result = stepped(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return result;
}

time_t time(time_t* result) noexcept {
    timespec now{};
    stepped(CLOCK_REALTIME, &now);
    if (result != nullptr) *result = now.tv_sec;
    return now.tv_sec;
}

}  // extern "C"
