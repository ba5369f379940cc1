// SPDX-License-Identifier: MIT
//
// What a quorum asks one of its nodes, in the server's wire format, and what the node answers:
// where the scripts' arguments are made and their answers read. Without I/O.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_COMMANDS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_COMMANDS_HPP

#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/quorum_scripts.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// The identity of the quorum lock `name`: keys of its own, so that it never meets the lock of that
/// name on one server.
/// Throws: LockError(invalid_argument) for a name or options that break their bounds.
[[nodiscard]] inline LockIdentity make_quorum_identity(std::string_view prefix,
                                                       std::string_view name,
                                                       LeaseOptions options) {
    PrimitiveKeys keys = keys_of(prefix, PrimitiveKind::quorum, name);
    validate(options);
    return {.name = std::string{name},
            .kind = PrimitiveKind::quorum,
            .keys = std::move(keys),
            .options = std::move(options)};
}

/// A tenure that several nodes know of, each by itself.
class QuorumTenure : public Tenure {
  public:
    /// `text`: what the holder is called.
    QuorumTenure(
        std::shared_ptr<const LockIdentity> identity, std::string token, std::string text,
        std::shared_ptr<const detail::ForkMark> mark = std::make_shared<const detail::ForkMark>())
        : Tenure{std::move(identity), std::move(token), std::move(mark)}, text_{std::move(text)} {}

    [[nodiscard]] const std::string& text() const noexcept { return text_; }

    /// The lease's fencing token, for nodes that are given its key later.
    void set_fence(std::uint64_t fence) noexcept { fence_.store(fence); }
    [[nodiscard]] std::uint64_t fence() const noexcept { return fence_.load(); }

    // Nodes, of at most 64, as bits.

    /// That `node` was sent what gives the tenure its key there.
    void asked(std::size_t node) noexcept { asked_.fetch_or(bit(node)); }
    [[nodiscard]] bool was_asked(std::size_t node) const noexcept {
        return (asked_.load() & bit(node)) != 0;
    }
    /// That it was not sent after all.
    void not_asked(std::size_t node) noexcept { asked_.fetch_and(~bit(node)); }
    /// That such a request may be executed by `node` later, when the lease is over.
    void mark_doubtful_at(std::size_t node) noexcept { doubtful_.fetch_or(bit(node)); }
    [[nodiscard]] bool doubtful_at(std::size_t node) const noexcept {
        return (doubtful_.load() & bit(node)) != 0;
    }

    /// Runs `send()` unless the tenure was given back, which cannot happen meanwhile: so no request
    /// that would give it a key stands behind its release on any connection.
    template <class Send>
    void unless_given_back(Send send) {
        const std::lock_guard guard{sending_};
        if (!given_back_) send();
    }
    /// Returns: whether this call is the one that gives it back.
    [[nodiscard]] bool give_back() {
        const std::lock_guard guard{sending_};
        return !std::exchange(given_back_, true);
    }

  private:
    [[nodiscard]] static std::uint64_t bit(std::size_t node) noexcept {
        return std::uint64_t{1} << node;
    }

    const std::string text_;
    std::atomic<std::uint64_t> fence_{0};
    std::atomic<std::uint64_t> asked_{0};
    std::atomic<std::uint64_t> doubtful_{0};
    std::mutex sending_;
    bool given_back_ = false;
};

[[nodiscard]] inline Command quorum_acquire_command(const QuorumTenure& tenure,
                                                    std::string_view not_after,
                                                    std::string_view wish) {
    const LockIdentity& identity = tenure.identity();
    const std::string ttl = std::to_string(identity.options.ttl.count());
    return call_of(quorum_acquire_script, {"2", identity.keys.main(), identity.keys.fence(),
                                           tenure.token(), ttl, tenure.text(), not_after, wish});
}

[[nodiscard]] inline Command quorum_raise_command(const QuorumTenure& tenure, std::uint64_t fence,
                                                  std::string_view not_after) {
    const LockIdentity& identity = tenure.identity();
    return call_of(quorum_raise_script, {"2", identity.keys.main(), identity.keys.fence(),
                                         tenure.token(), std::to_string(fence), not_after});
}

[[nodiscard]] inline Command quorum_renew_command(const QuorumTenure& tenure,
                                                  std::string_view not_after) {
    const LockIdentity& identity = tenure.identity();
    const std::string ttl = std::to_string(identity.options.ttl.count());
    return call_of(quorum_renew_script,
                   {"2", identity.keys.main(), identity.keys.fence(), tenure.token(), ttl,
                    tenure.text(), not_after, std::to_string(tenure.fence())});
}

[[nodiscard]] inline Command quorum_release_command(const QuorumTenure& tenure) {
    const LockIdentity& identity = tenure.identity();
    return call_of(quorum_release_script,
                   {"2", identity.keys.main(), identity.keys.fence(), tenure.token()});
}

/// What a node answers to an acquisition.
struct QuorumAcquireAnswer {
    enum class Outcome : std::uint8_t { held, granted, late };

    Outcome outcome = Outcome::held;
    ServerTime time{};                 ///< when it was executed
    std::uint64_t fence = 0;           ///< if granted
    std::chrono::milliseconds left{};  ///< if held: the holder's time, unless it is renewed
};

/// Returns: nothing for what the script does not answer.
[[nodiscard]] inline std::optional<QuorumAcquireAnswer> read_quorum_acquire(const Reply& reply) {
    if (reply.type != Reply::Type::array || reply.elements.size() != 3) return std::nullopt;
    const auto kind = reply.elements[0].as_integer();
    const auto time = read_stamp(reply.elements[1].as_text().value_or(""));
    if (!kind || !time || *kind < 0 || *kind > 2) return std::nullopt;
    QuorumAcquireAnswer answer;
    answer.outcome = static_cast<QuorumAcquireAnswer::Outcome>(*kind);
    answer.time = to_server_time(*time);
    if (answer.outcome == QuorumAcquireAnswer::Outcome::granted) {
        const auto fence = read_stamp(reply.elements[2].as_text().value_or(""));
        if (!fence) return std::nullopt;
        answer.fence = *fence;
        return answer;
    }
    const auto left = reply.elements[2].as_integer();
    if (!left) return std::nullopt;
    answer.left = std::chrono::milliseconds{std::max<std::int64_t>(*left, 0)};
    return answer;
}

/// What a node answers to a renewal or to a fence that is written back.
struct QuorumStepAnswer {
    std::int64_t kind = 0;  ///< as the script says
    ServerTime time{};
};

/// Returns: nothing for what the scripts do not answer.
[[nodiscard]] inline std::optional<QuorumStepAnswer> read_quorum_step(const Reply& reply) {
    if (reply.type != Reply::Type::array || reply.elements.size() != 2) return std::nullopt;
    const auto kind = reply.elements[0].as_integer();
    const auto time = read_stamp(reply.elements[1].as_text().value_or(""));
    if (!kind || !time || *kind < 0 || *kind > 3) return std::nullopt;
    return QuorumStepAnswer{*kind, to_server_time(*time)};
}

/// What a node answers to a release: whether it had the lease.
/// Returns: nothing for what the script does not answer.
[[nodiscard]] inline std::optional<bool> read_quorum_release(const Reply& reply) {
    const auto kind = reply.as_integer();
    return kind ? std::optional{*kind != 0} : std::nullopt;
}

/// For how long the server is up, of the text that INFO gives; nothing if it does not say.
[[nodiscard]] inline std::optional<std::chrono::seconds> read_uptime(std::string_view info) {
    constexpr std::string_view field = "uptime_in_seconds:";
    const auto found = info.find(field);
    if (found == info.npos || (found != 0 && info[found - 1] != '\n')) return std::nullopt;
    info.remove_prefix(found + field.size());
    info = info.substr(0, info.find_first_of("\r\n"));
    std::int64_t seconds = 0;
    const char* const end = info.data() + info.size();
    const auto [stop, error] = std::from_chars(info.data(), end, seconds);
    if (error != std::errc{} || stop != end || seconds < 0) return std::nullopt;
    return std::chrono::seconds{std::min<std::int64_t>(seconds, 1'000'000'000)};
}

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_COMMANDS_HPP
