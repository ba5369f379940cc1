// SPDX-License-Identifier: MIT
//
// One line of a history: what one client of the library was about to do, or was told, or what was
// done to it. Plain bytes of one size, so that a process can append a record by a single write(2)
// and a reader needs no parser. What a history must look like to be right is checker.hpp's subject.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_RECORD_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_RECORD_HPP

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace faults {

/// The primitive that a name belongs to. Each kind has names of its own.
enum class Kind : std::uint8_t { lock, semaphore, read_write, quorum };

/// What a record is about. Those without a call have an answer only.
enum class Op : std::uint8_t {
    acquire,    ///< `until` of the call: its deadline, 0 for none, the time of call for a try.
    check,      ///< No call. Still held, until `until`: it may have been renewed.
    lost,       ///< No call. The holder saw that its lease is gone.
    release,    ///< `until` of the call: its deadline, 0 for none.
    write,      ///< No call. To a fenced register; `until` is its place in the register's order.
    killed,     ///< No call. `process` was killed; nothing of it comes later.
    stopped,    ///< No call. `process` was stopped: recorded before the signal is sent.
    continued,  ///< No call. `process` goes on: recorded after the signal was sent.
};

enum class Step : std::uint8_t { call, answer };

/// How a call ended. `unknown`: it may have taken effect (Knossos' "info").
enum class Outcome : std::uint8_t { none, ok, refused, lost, failed, unknown };

/// How an acquisition came about.
enum class Source : std::uint8_t { none, direct, grant, retry, local, retained };

/// A reader shares a read-write lock with others. All else is exclusive or counted by weight.
enum class Mode : std::uint8_t { exclusive, shared };

/// A record. 64 bytes, so that none lies across two pages and none is ever written by half,
/// whenever its writer is killed.
struct Record {
    std::int64_t time = 0;     ///< Nanoseconds since boot; read before the step that it tells of.
    std::int64_t until = 0;    ///< Of an acquisition or a check: valid until then. See also Op.
    std::uint64_t fence = 0;   ///< Of an acquisition, a check or a write.
    std::uint64_t token = 0;   ///< The owner token's digest(), of an acquisition or a write.
    std::uint32_t server = 0;  ///< Of an acquisition: the run id of the server, shortened.
    std::uint32_t name = 0;
    std::int32_t process = 0;  ///< Unique in the history; a process identifier may come again.
    std::int32_t thread = 0;   ///< One for each hold that a thread has of one name at a time.
    std::uint32_t weight = 1;
    std::uint32_t capacity = 1;
    Kind kind = Kind::lock;
    Op op = Op::acquire;
    Step step = Step::call;
    Outcome outcome = Outcome::none;
    Source source = Source::none;
    Mode mode = Mode::exclusive;
    std::uint16_t unused = 0;
};
static_assert(sizeof(Record) == 64);
static_assert(std::is_trivially_copyable_v<Record>);

/// A text of any length as a number that is the same in every process (FNV-1a): two tokens of a
/// history of ten million have one digest with a chance of about 1 in 400,000.
[[nodiscard]] constexpr std::uint64_t digest(std::string_view text) noexcept {
    std::uint64_t hash = 0xcbf29ce484222325U;
    for (const char c : text) {
        hash ^= static_cast<unsigned char>(c);
        hash *= 0x100000001b3U;
    }
    return hash;
}

[[nodiscard]] constexpr std::string_view to_string(Source source) noexcept {
    switch (source) {
        case Source::none:
            return "";
        case Source::direct:
            return "direct";
        case Source::grant:
            return "grant";
        case Source::retry:
            return "retry";
        case Source::local:
            return "local";
        case Source::retained:
            return "retained";
    }
    return "";
}

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_RECORD_HPP
