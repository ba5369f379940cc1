// SPDX-License-Identifier: MIT
//
// What can go wrong, as an enumeration, an error category and one exception. Contention and
// time-outs are not errors: they are `false` or an empty guard. An error means that the caller
// misused something, or that a backend could not do what it was asked.

#ifndef CODOMYRMEX_CONCURRENCY_ERROR_HPP
#define CODOMYRMEX_CONCURRENCY_ERROR_HPP

#include <cstring>
#include <string>
#include <system_error>
#include <type_traits>

namespace codomyrmex::concurrency {

/// Every error of this library. Each is raised as a LockError, or left in the `std::error_code&`
/// of the overload that takes one.
enum class LockErrc {
    /// An argument breaks a documented requirement. Nothing was sent, nothing has changed.
    invalid_argument = 1,
    /// Release of what is not held: never acquired, released before, or moved from.
    not_held,
    /// The lease ran out or was taken away before it was released; somebody else may hold it now.
    lease_lost,
    /// The backend could not be reached or could not serve until the deadline. Trying later helps.
    backend_unavailable,
    /// The backend refuses for good: no permission, wrong password, unknown command.
    backend_refused,
    /// Acquired, but the answer took longer than the lease is valid. It was given back; ask for a
    /// longer time to live.
    validity_exhausted,
    /// A key of this library's name is there that this library did not write.
    foreign_key,
    /// The same name is in use elsewhere with another capacity.
    mismatch,
    /// The request was sent, and whether it took effect cannot be told.
    unknown_outcome,
    /// This build cannot do what is asked, such as TLS without a hiredis that has it.
    unsupported,
    /// The entry cannot be removed while somebody holds it, waits for it or has a handle on it.
    in_use,
    /// The thread that held a recursive lock ended without unlocking it.
    abandoned,
};

}  // namespace codomyrmex::concurrency

template <>
struct std::is_error_code_enum<codomyrmex::concurrency::LockErrc> : std::true_type {};

// Exceptions and categories cross shared libraries by their type information, so these two must
// stay visible even where a user compiles with -fvisibility=hidden.
#if defined(__GNUC__)
#define CODOMYRMEX_CONCURRENCY_VISIBLE __attribute__((visibility("default")))
#else
#define CODOMYRMEX_CONCURRENCY_VISIBLE
#endif

namespace codomyrmex::concurrency {

namespace detail {

class CODOMYRMEX_CONCURRENCY_VISIBLE LockCategory final : public std::error_category {
  public:
    [[nodiscard]] const char* name() const noexcept override { return "codomyrmex.concurrency"; }

    [[nodiscard]] std::string message(int value) const override {
        switch (static_cast<LockErrc>(value)) {
            case LockErrc::invalid_argument:
                return "invalid argument";
            case LockErrc::not_held:
                return "not held";
            case LockErrc::lease_lost:
                return "the lease was lost";
            case LockErrc::backend_unavailable:
                return "the backend is unavailable";
            case LockErrc::backend_refused:
                return "the backend refused";
            case LockErrc::validity_exhausted:
                return "the lease ran out before the answer came";
            case LockErrc::foreign_key:
                return "the key was not written by this library";
            case LockErrc::mismatch:
                return "in use elsewhere with another capacity";
            case LockErrc::unknown_outcome:
                return "whether it took effect is unknown";
            case LockErrc::unsupported:
                return "not supported by this build";
            case LockErrc::in_use:
                return "still in use";
            case LockErrc::abandoned:
                return "the thread that held it ended without unlocking";
        }
        return "unknown error " + std::to_string(value);
    }

    [[nodiscard]] std::error_condition default_error_condition(int value) const noexcept override {
        switch (static_cast<LockErrc>(value)) {
            case LockErrc::invalid_argument:
            case LockErrc::mismatch:
                return std::errc::invalid_argument;
            case LockErrc::not_held:
                return std::errc::operation_not_permitted;
            case LockErrc::backend_unavailable:
                return std::errc::resource_unavailable_try_again;
            case LockErrc::backend_refused:
                return std::errc::permission_denied;
            case LockErrc::unsupported:
                return std::errc::not_supported;
            case LockErrc::in_use:
                return std::errc::device_or_resource_busy;
            case LockErrc::lease_lost:
            case LockErrc::abandoned:
                return std::errc::owner_dead;
            case LockErrc::validity_exhausted:
                return std::errc::timed_out;
            case LockErrc::foreign_key:
            case LockErrc::unknown_outcome:
                break;
        }
        return {value, *this};
    }
};

}  // namespace detail

/// The category of LockErrc; its name is "codomyrmex.concurrency".
/// Threads: safe.
CODOMYRMEX_CONCURRENCY_VISIBLE inline const std::error_category& lock_category() noexcept {
    static const detail::LockCategory category;
    return category;
}

[[nodiscard]] inline std::error_code make_error_code(LockErrc errc) noexcept {
    return {static_cast<int>(errc), lock_category()};
}

/// Compares by the category's name, not its address: a program and a shared library that it loads
/// may each have a category object of their own.
[[nodiscard]] inline bool operator==(const std::error_code& code, LockErrc errc) noexcept {
    return code.value() == static_cast<int>(errc) &&
           std::strcmp(code.category().name(), lock_category().name()) == 0;
}

/// The one exception of this library: a std::system_error whose code() is a LockErrc and whose
/// what() says what was wrong and what to do. No credentials stand in it.
class CODOMYRMEX_CONCURRENCY_VISIBLE LockError : public std::system_error {
  public:
    LockError(LockErrc errc, const std::string& what)
        : std::system_error(make_error_code(errc), what) {}
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_ERROR_HPP
