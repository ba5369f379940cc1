// SPDX-License-Identifier: MIT
//
// The server's protocol: a function that formats a command, and hiredis behind a reader that builds
// our Reply from bytes. Nothing else of hiredis is used, and nothing above connection.hpp sees it.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_REPLY_READER_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_REPLY_READER_HPP

#include <codomyrmex/concurrency/redis/reply.hpp>

#include <hiredis/hiredis.h>

#include <cstddef>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#if HIREDIS_MAJOR < 1
#include <hiredis/alloc.h>
#endif

namespace codomyrmex::concurrency::detail {

/// Makes the headers of one hiredis with the library of another a link error: their structures
/// differ, and the mixture fails in silence. Each major version has a symbol the other lacks.
inline void require_matching_hiredis() noexcept {
#if HIREDIS_MAJOR < 1
    [[maybe_unused]] auto* const volatile symbol = &::hi_malloc;
#else
    [[maybe_unused]] auto* const volatile symbol = &::redisSetPushCallback;
#endif
}

/// The callbacks by which redisReader builds a redis::Reply. They return null to refuse, which the
/// reader turns into an error; no exception may pass through its C frames.
struct ReplyBuilder {
    /// What one reply may hold: a hostile server must not make us allocate without bound.
    static constexpr std::size_t most_elements = 1U << 20U;

    std::size_t elements = 0;

    static void* make(const redisReadTask* task, redis::Reply reply) noexcept {
        auto* const builder = static_cast<ReplyBuilder*>(task->privdata);
        try {
            if (task->parent == nullptr) {
                builder->elements = 0;
                return std::make_unique<redis::Reply>(std::move(reply)).release();
            }
            if (++builder->elements > most_elements) return nullptr;
            // The parent stays where it is while its children come: its own siblings come later.
            auto* const parent = static_cast<redis::Reply*>(task->parent->obj);
            return &parent->elements.emplace_back(std::move(reply));
        } catch (const std::exception&) {
            return nullptr;
        }
    }

    static void* text(const redisReadTask* task, char* bytes, std::size_t size) noexcept {
        using Type = redis::Reply::Type;
        redis::Reply reply;
        switch (task->type) {
            case REDIS_REPLY_STATUS:
                reply.type = Type::status;
                break;
            case REDIS_REPLY_ERROR:
                reply.type = Type::error;
                break;
            case REDIS_REPLY_STRING:
                reply.type = Type::string;
                break;
            default:
                return nullptr;  // a type of RESP3, which we did not ask for
        }
        try {
            reply.text.assign(bytes, size);
        } catch (const std::exception&) {
            return nullptr;
        }
        return make(task, std::move(reply));
    }

    static void* integer(const redisReadTask* task, long long value) noexcept {
        redis::Reply reply;
        reply.type = redis::Reply::Type::integer;
        reply.integer = value;
        return make(task, std::move(reply));
    }

    static void* nil(const redisReadTask* task) noexcept { return make(task, {}); }

    // int in hiredis 0.14, std::size_t since 1.0. Nothing is reserved on the word of the server.
    template <class Count>
    static void* array(const redisReadTask* task, Count /*count*/) noexcept {
        if (task->type != REDIS_REPLY_ARRAY) return nullptr;
        redis::Reply reply;
        reply.type = redis::Reply::Type::array;
        return make(task, std::move(reply));
    }

    static void free(void* reply) noexcept { delete static_cast<redis::Reply*>(reply); }

    [[nodiscard]] static redisReplyObjectFunctions functions() noexcept {
        redisReplyObjectFunctions table{};
        table.createString = &text;
        table.createArray = &array;
        table.createInteger = &integer;
        table.createNil = &nil;
        table.freeObject = &free;
#if HIREDIS_MAJOR >= 1
        // Without these the reader makes up objects that are no pointers.
        table.createDouble = [](const redisReadTask*, double, char*, std::size_t) -> void* {
            return nullptr;
        };
        table.createBool = [](const redisReadTask*, int) -> void* { return nullptr; };
#endif
        return table;
    }
};

/// Turns bytes into replies. Not thread-safe; neither copies nor moves.
class ReplyReader {
  public:
    ReplyReader() {
        require_matching_hiredis();
        reset();
    }
    ReplyReader(const ReplyReader&) = delete;
    ReplyReader& operator=(const ReplyReader&) = delete;
    ~ReplyReader() = default;

    /// Takes bytes as they come from the socket. An allocation that fails shows in next().
    void feed(const char* bytes, std::size_t size) noexcept {
        fed_ += size;
        if (reader_ != nullptr) ::redisReaderFeed(reader_.get(), bytes, size);
    }

    /// The next whole reply, if there is one. Otherwise, `broken` is left empty if more bytes are
    /// needed, or says why the bytes can never become a reply.
    [[nodiscard]] std::optional<redis::Reply> next(std::string& broken) {
        if (reader_ == nullptr) {
            broken = "out of memory";
            return std::nullopt;
        }
        void* parsed = nullptr;
        if (::redisReaderGetReply(reader_.get(), &parsed) != REDIS_OK) {
            broken = reader_->errstr;
            if (broken.empty()) broken = "malformed reply";
            return std::nullopt;
        }
        if (parsed == nullptr) {
            if (fed_ > most_bytes) broken = "a reply of more than 16 MiB";
            return std::nullopt;
        }
        const std::unique_ptr<redis::Reply> reply{static_cast<redis::Reply*>(parsed)};
        fed_ = surplus();
        return std::move(*reply);
    }

    /// Whether bytes are left over that no reply was made of.
    [[nodiscard]] bool has_surplus() const noexcept { return surplus() != 0; }

    /// Forgets everything, as for a new connection.
    void reset() noexcept {
        fed_ = 0;
        reader_.reset(::redisReaderCreateWithFunctions(&functions_));
        if (reader_ != nullptr) reader_->privdata = &builder_;
    }

  private:
    static constexpr std::size_t most_bytes = 16U << 20U;

    struct Free {
        void operator()(redisReader* reader) const noexcept { ::redisReaderFree(reader); }
    };

    [[nodiscard]] std::size_t surplus() const noexcept {
        return reader_ == nullptr ? 0 : reader_->len - reader_->pos;
    }

    redisReplyObjectFunctions functions_ = ReplyBuilder::functions();
    ReplyBuilder builder_;
    std::size_t fed_ = 0;
    std::unique_ptr<redisReader, Free> reader_;
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_REPLY_READER_HPP
