// SPDX-License-Identifier: MIT
//
// Writes and reads histories. Each thread of each process appends what it does to one file before
// it acts on it, in a way that its death by kill -9 cannot undo: write(2) to a file opened with
// O_APPEND, one for each record. What was written is in the kernel's hands; only a crash of the
// machine takes it away.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_RECORDER_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_RECORDER_HPP

#include "faults/record.hpp"
#include "support/boot_time.hpp"
#include "support/process.hpp"

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

namespace faults {

using test_support::boot_time;

/// What is acquired: a name, and how.
struct Target {
    std::uint32_t name = 0;
    Kind kind = Kind::lock;
    Mode mode = Mode::exclusive;
    std::uint32_t weight = 1;
    std::uint32_t capacity = 1;
};

/// Appends the records of one client to the history's file.
/// Threads: one object each; all of a history append to one file.
class Recorder {
  public:
    Recorder(const std::string& path, int process, int thread)
        : file_{::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)},
          process_{process},
          thread_{thread} {
        if (!file_) test_support::throw_errno("open " + path);
    }

    /// The server that grants from now on, by its run id.
    void server(std::string_view run_id) {
        server_ = static_cast<std::uint32_t>(digest(run_id) >> 32U);
    }

    /// Is about to call; the call must end by `timeout` from now. Negative: there is no deadline.
    void call(const Target& target, Op op, std::chrono::nanoseconds timeout) {
        Record record = make(target, op, Step::call, Outcome::none);
        record.until = timeout.count() < 0 ? 0 : record.time + timeout.count();
        append(record);
    }

    /// An acquisition that succeeded. The time comes before the question how long the lease lasts,
    /// so `until` is never later than what the lease promised, and the lease did hold at `time` if
    /// it held when asked.
    template <class Lease>
    void acquired(const Target& target, const Lease& lease, Source source = Source::none) {
        Record record = make(target, Op::acquire, Step::answer, Outcome::ok);
        fill(record, lease);
        record.source = source;
        record.server = server_;
        append(record);
    }

    /// The lease is looked at again: still held if it has time left, else lost.
    template <class Lease>
    void checked(const Target& target, const Lease& lease) {
        Record record = make(target, Op::check, Step::answer, Outcome::ok);
        fill(record, lease);
        if (record.until <= record.time) record.op = Op::lost;
        append(record);
    }

    /// The holder was told that its lease is gone.
    void lost(const Target& target) { append(make(target, Op::lost, Step::answer, Outcome::lost)); }

    /// Any other answer to a call.
    void answered(const Target& target, Op op, Outcome outcome) {
        append(make(target, op, Step::answer, outcome));
    }

    /// A fenced register took the write (ok), as its `place`-th, or turned it away (refused).
    template <class Lease>
    void wrote(const Target& target, const Lease& lease, Outcome outcome, std::uint64_t place) {
        Record record = make(target, Op::write, Step::answer, outcome);
        record.fence = lease.fence();
        record.token = digest(lease.token());
        record.until = static_cast<std::int64_t>(place);
        append(record);
    }

    /// What somebody did to a process: killed, stopped or continued.
    void process(Op op, int process) {
        Record record = make({}, op, Step::answer, Outcome::ok);
        record.process = process;
        append(record);
    }

  private:
    [[nodiscard]] Record make(const Target& target, Op op, Step step, Outcome outcome) const {
        Record record;
        record.time = boot_time();
        record.name = target.name;
        record.process = process_;
        record.thread = thread_;
        record.weight = target.weight;
        record.capacity = target.capacity;
        record.kind = target.kind;
        record.mode = target.mode;
        record.op = op;
        record.step = step;
        record.outcome = outcome;
        return record;
    }

    template <class Lease>
    static void fill(Record& record, const Lease& lease) {
        const auto left = std::chrono::nanoseconds{lease.remaining()}.count();
        record.until = record.time + left;
        record.fence = lease.fence();
        record.token = digest(lease.token());
    }

    void append(const Record& record) {
        ssize_t written = 0;
        do {
            written = ::write(file_.get(), &record, sizeof record);
        } while (written < 0 && errno == EINTR);
        if (written != static_cast<ssize_t>(sizeof record)) {
            test_support::throw_errno("write to the history");
        }
    }

    test_support::Fd file_;
    int process_;
    int thread_;
    std::uint32_t server_ = 0;
};

/// Calls `use` with each whole record of a history's file, in the order in which they were written:
/// those of one client in its order. Nothing but one block is kept in memory.
template <class Use>
void for_each_record(const std::string& path, Use use) {
    const test_support::Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!file) test_support::throw_errno("open " + path);
    std::vector<Record> block(std::size_t{1} << 14U);
    const std::size_t room = block.size() * sizeof(Record);
    for (std::size_t kept = 0;;) {
        auto* const bytes = reinterpret_cast<char*>(block.data());
        const ssize_t got = ::read(file.get(), bytes + kept, room - kept);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) test_support::throw_errno("read " + path);
        if (got == 0) return;
        kept += static_cast<std::size_t>(got);
        const std::size_t whole = kept / sizeof(Record);
        for (std::size_t i = 0; i < whole; ++i)
            use(block[i]);
        kept %= sizeof(Record);
        // A read from a file may end anywhere; its last, partial record goes to the front.
        if (kept != 0) block[0] = block[whole];
    }
}

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_RECORDER_HPP
