// SPDX-License-Identifier: MIT
//
// The last parameter of a verb that can fail: where the error goes. It makes one function out of
// the throwing form and the one with a std::error_code&; nobody names it in a call.

#ifndef CODOMYRMEX_CONCURRENCY_ON_ERROR_HPP
#define CODOMYRMEX_CONCURRENCY_ON_ERROR_HPP

#include <system_error>
#include <type_traits>

namespace codomyrmex::concurrency {

/// Where an error goes: into the std::error_code that a caller gives, or, if it gives none, out as
/// an exception.
///
///     guard_type lock(std::string_view name, OnError error = {});
///
///     auto guard = manager.lock("a");          // throws LockError
///     auto guard = manager.lock("a", code);    // `code` says what was wrong, and the guard is
///     empty
class OnError {
  public:
    /// Throws.
    OnError() noexcept = default;

    /// Leaves the error in `code`. Requires: `code` outlives the call.
    // NOLINTNEXTLINE(google-explicit-constructor): it stands for the argument of the call.
    OnError(std::error_code& code) noexcept : code_{&code} {}

    /// Returns: what `call()` returns; if that throws a std::system_error (as LockError is) and
    /// there is a place for it, a value-initialised result. That place is cleared in all other
    /// cases. Throws: what `call` throws; given a place, only what is no std::system_error, such as
    /// std::bad_alloc.
    template <class Call>
    std::invoke_result_t<Call> run(Call call) const {
        if (code_ == nullptr) return call();
        code_->clear();
        try {
            return call();
        } catch (const std::system_error& failure) {
            *code_ = failure.code();
            return std::invoke_result_t<Call>();
        }
    }

  private:
    std::error_code* code_ = nullptr;
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_ON_ERROR_HPP
