// SPDX-License-Identifier: MIT
//
// One command on its way to the server: its bytes, its number, and, where several that are alike
// may go in one call of a script, which of its bytes are put together how. Without I/O.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_COMMAND_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_COMMAND_HPP

#include <codomyrmex/concurrency/detail/wire_format.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// How a script is called: by its digest, or with its body, which also loads it.
enum class Call : std::uint8_t { digest, body };

/// A number for each request that it has in common with no other of this process, and that its
/// reply repeats.
class RequestNumber {
  public:
    explicit RequestNumber(std::uint64_t number) noexcept {
        const auto end = std::to_chars(text_.data(), text_.data() + text_.size(), number, 16);
        size_ = static_cast<std::size_t>(end.ptr - text_.data());
    }
    [[nodiscard]] std::string_view text() const noexcept { return {text_.data(), size_}; }

    /// Whether `reply` repeats it, as its last word; it is then taken off, so that the answer is
    /// left.
    [[nodiscard]] bool take_from(Reply& reply) const {
        if (reply.type != Reply::Type::string || !reply.text.ends_with(text())) return false;
        std::size_t left = reply.text.size() - size_;
        if (left != 0 && reply.text[--left] != ' ') return false;
        reply.text.resize(left);
        return true;
    }

  private:
    std::array<char, 16> text_{};
    std::size_t size_ = 0;
};

/// A script that does for several requests at once what another does for one. Its arguments are the
/// number of the call; the time after which nothing is to be done, if `timed`; what the requests
/// have in common; then what each has of its own. It answers a text for each request, to which the
/// request's number is to be added; empty for one that is to be sent by itself. Behind each text
/// stands a comma, behind the last of them the call's number.
struct JointScript {
    const Script& script;
    bool timed;
    /// Those of the lower rank are executed first: a lock is given back before it is asked for.
    int rank;
};

/// Which parts of a command's bytes go into a joint call; each begins where the one before ends.
struct Parts {
    const JointScript* joint = nullptr;  ///< null: it goes by itself
    std::size_t own_words = 0;           ///< how many arguments are its own
    std::size_t common_words = 0;        ///< how many are common
    std::uint32_t keys = 0;              ///< where its three keys begin
    std::uint32_t own = 0;               ///< where its own arguments do
    std::uint32_t common = 0;            ///< where the common ones do
    std::uint32_t time = 0;              ///< where the time does; if not `timed`, what is left out
    std::uint32_t number = 0;            ///< where its number does, the last of its words
};

/// What is sent: a command of the server's, or a call of a script, alone or with others.
struct Command {
    std::string bytes{};             ///< in the server's format; a script is called by its digest
    const Script* script = nullptr;  ///< which that is; null for a command of the server's
    Parts parts{};

    Command() = default;
    /// One of the server's. Of a string, for it is nothing but that.
    Command(std::string text) noexcept : bytes{std::move(text)} {}  // NOLINT
    Command(const Script& its, std::string text) noexcept : bytes{std::move(text)}, script{&its} {}

    [[nodiscard]] std::string_view keys() const noexcept { return from(parts.keys, parts.own); }
    [[nodiscard]] std::string_view own() const noexcept { return from(parts.own, parts.common); }
    [[nodiscard]] std::string_view common() const noexcept {
        return from(parts.common, parts.time);
    }
    [[nodiscard]] std::string_view time() const noexcept { return from(parts.time, parts.number); }
    /// Its number as it stands there, and without the length in front and the line's end behind.
    [[nodiscard]] std::string_view number() const noexcept {
        return from(parts.number, bytes.size());
    }
    [[nodiscard]] std::string_view number_text() const noexcept {
        const std::string_view word = number();
        const std::size_t begin = word.find('\n') + 1;
        return word.substr(begin, word.size() - begin - 2);
    }

    /// Whether both can go in one call.
    [[nodiscard]] bool joins(const Command& other) const noexcept {
        return parts.joint == other.parts.joint && common() == other.common();
    }

  private:
    [[nodiscard]] std::string_view from(std::size_t begin, std::size_t end) const noexcept {
        return std::string_view{bytes}.substr(begin, end - begin);
    }
};

/// A call of `script`; `words`: how many keys there are, the keys, the arguments.
/// Throws: std::bad_alloc.
[[nodiscard]] inline Command call_of(const Script& script,
                                     std::span<const std::string_view> words) {
    constexpr std::string_view verb = "EVALSHA";
    std::size_t size = detail::size_of_count(2 + words.size()) + detail::encoded_size(verb) +
                       detail::encoded_size(script.sha1);
    for (const std::string_view word : words)
        size += detail::encoded_size(word);
    std::string bytes(size, '\0');
    char* end = detail::put_count('*', 2 + words.size(), bytes.data());
    end = detail::put_word(verb, end);
    end = detail::put_word(script.sha1, end);
    for (const std::string_view word : words)
        end = detail::put_word(word, end);
    return {script, std::move(bytes)};
}
[[nodiscard]] inline Command call_of(const Script& script,
                                     std::initializer_list<std::string_view> words) {
    return call_of(script, std::span{words.begin(), words.size()});
}

/// Appends `command` to `output`. Requires: it calls a script, or `call` is digest.
/// Throws: std::bad_alloc.
inline void append(std::string& output, Call call, const Command& command) {
    if (call == Call::digest) {
        output += command.bytes;
        return;
    }
    // How many words, and then those two.
    const std::size_t begin = command.bytes.find('\n') + 1;
    const std::size_t end =
        begin + detail::encoded_size("EVALSHA") + detail::encoded_size(command.script->sha1);
    output.append(command.bytes, 0, begin);
    detail::append_word("EVAL", output);
    detail::append_word(command.script->body, output);
    output.append(command.bytes, end);
}

/// Appends one call for all of `commands` to `output`. It has the number of the first of them.
/// Requires: at least one; each joins the others. Throws: std::bad_alloc.
inline void append_joint(std::string& output, Call call,
                         const std::vector<const Command*>& commands) {
    const Command& first = *commands.front();
    const JointScript& joint = *first.parts.joint;
    const std::size_t keys = 3 * commands.size();
    // The call, the script, how many keys; the number.
    const std::size_t words = 4 + keys + (joint.timed ? 1 : 0) + first.parts.common_words +
                              first.parts.own_words * commands.size();
    detail::append_count('*', words, output);
    detail::append_word(call == Call::body ? "EVAL" : "EVALSHA", output);
    detail::append_word(call == Call::body ? joint.script.body : joint.script.sha1, output);
    detail::append_word(std::to_string(keys), output);
    std::string_view soonest = first.time();
    for (const Command* command : commands) {
        output += command->keys();
        // All have 19 digits.
        soonest = std::min(soonest, command->time());
    }
    output += first.number();
    if (joint.timed) output += soonest;
    output += first.common();
    for (const Command* command : commands)
        output += command->own();
}

/// What a joint call answered, for each of `count` commands; a text without the command's number.
/// Returns: nothing for the answer to another call than the one of that number.
/// Throws: std::bad_alloc.
[[nodiscard]] inline std::vector<std::string_view> split_joint(const Reply& reply,
                                                               std::size_t count,
                                                               std::string_view number) {
    std::vector<std::string_view> answers;
    if (reply.type != Reply::Type::string) return answers;
    std::string_view text = reply.text;
    if (std::ranges::count(text, ',') != static_cast<std::ptrdiff_t>(count)) return answers;
    if (!text.ends_with(number) || text[text.size() - number.size() - 1] != ',') return answers;
    answers.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t comma = text.find(',');
        answers.push_back(text.substr(0, comma));
        text.remove_prefix(comma + 1);
    }
    return answers;
}

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_COMMAND_HPP
