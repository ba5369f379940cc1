// SPDX-License-Identifier: MIT
//
// Where a Redis server is and how to talk to it: a URL, parsed once into a plain value. The parser
// takes any bytes; what it does not understand it refuses, naming the part of the URL and never
// quoting it, since a mistyped URL may have its password anywhere. Nothing here opens a connection.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_ENDPOINT_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_ENDPOINT_HPP

#include <codomyrmex/concurrency/error.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace codomyrmex::concurrency {

/// A password. It has no operator<< and no conversion to a string, so that it reaches a log or a
/// message only where somebody writes reveal(). Its bytes are overwritten when it ends; that is a
/// courtesy, not a guarantee.
class Secret {
  public:
    Secret() = default;
    explicit Secret(std::string text) : text_{std::move(text)} { wipe(text); }
    Secret(const Secret&) = default;
    Secret(Secret&& other) noexcept : text_{std::move(other.text_)} { wipe(other.text_); }
    Secret& operator=(Secret other) noexcept {
        text_.swap(other.text_);
        return *this;
    }
    ~Secret() { wipe(text_); }

    /// The password itself. Hand it to the server and to nobody else.
    [[nodiscard]] const std::string& reveal() const noexcept { return text_; }

    [[nodiscard]] bool empty() const noexcept { return text_.empty(); }

    friend bool operator==(const Secret&, const Secret&) = default;

  private:
    // A moved-from string may still have the bytes.
    static void wipe(std::string& text) noexcept {
        // NOLINTNEXTLINE(clang-analyzer-cplusplus.Move)
        text.resize(text.capacity());  // Within the capacity: it does not allocate.
        // Through volatile, since a compiler may drop writes to what nobody reads again.
        for (volatile char* byte = text.data(); byte != text.data() + text.size(); ++byte) {
            *byte = '\0';
        }
        text.clear();
    }

    std::string text_;
};

/// How bytes travel to the server.
enum class Transport {
    tcp,          ///< redis://, valkey://, tcp://
    tls,          ///< rediss://, valkeys://; needs a hiredis with TLS
    unix_socket,  ///< unix://, redis+unix://
};

/// A Redis server's address, credentials and options. An aggregate: fill it in by hand, or parse().
struct Endpoint {
    Transport transport = Transport::tcp;
    std::string host{"127.0.0.1"};  ///< Name or address (IPv6 without brackets); not for unix.
    std::uint16_t port = 6379;      ///< Not for unix.
    std::string path{};             ///< Of the unix socket; empty otherwise.
    std::string user{};             ///< ACL user; empty: the default user.
    Secret password{};              ///< Without user and password no AUTH is sent.
    int database = 0;               ///< For SELECT.

    // These override the client's options where they are given.
    std::optional<std::string> client_name{};                    ///< For CLIENT SETNAME.
    std::optional<std::chrono::nanoseconds> connect_timeout{};   ///< More than zero.
    std::optional<std::chrono::nanoseconds> response_timeout{};  ///< More than zero.
    std::optional<std::chrono::nanoseconds> patience{};          ///< More than zero.

    /// Parses a URL:
    ///
    ///     redis://[[user]:password@][host][:port][/database][?options]
    ///     unix://[[user]:password@]/path/of/socket[?options]
    ///
    /// Schemes: redis, valkey, tcp; rediss, valkeys (TLS); unix, redis+unix. Upper case will do.
    /// User info without a colon is a password, as for redis-cli; "user:" is an empty password.
    /// The host is 127.0.0.1 if left out; an IPv6 address stands in brackets.
    /// Options, each at most once: `db` (instead of /database), `client_name`, `connect_timeout`,
    /// `response_timeout`, `patience`; times are whole numbers with a unit: us, ms, s, m or h.
    /// User, password, path of a socket and options may be percent-encoded, and must be where
    /// they have a character of the URL's own syntax.
    /// Throws: LockError(invalid_argument) that names the part which is wrong, without its text.
    [[nodiscard]] static Endpoint parse(std::string_view url);

    /// The URL in its normal form, with "***" in place of a password.
    [[nodiscard]] std::string to_string() const;

    friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

namespace detail {

/// Reads one URL. Each member takes one part of the grammar.
class EndpointParser {
  public:
    [[nodiscard]] Endpoint parse(std::string_view url) {
        for (const char c : url) {
            const auto byte = static_cast<unsigned char>(c);
            if (byte <= 0x20 || byte == 0x7F) fail("text", "a blank or control character");
        }
        const auto colon = url.find("://");
        if (colon == url.npos) fail("scheme", "missing; a URL begins like redis://");
        scheme(url.substr(0, colon));
        url.remove_prefix(colon + 3);
        if (url.find('#') != url.npos) fail("fragment", "not allowed; write # as %23");

        const auto question = url.find('?');
        const std::string_view before = url.substr(0, question);
        const auto slash = std::min(before.find('/'), before.size());
        authority(before.substr(0, slash));
        path(before.substr(slash));
        if (question != url.npos) query(url.substr(question + 1));
        return std::move(endpoint_);
    }

  private:
    [[noreturn]] static void fail(const char* part, const char* problem) {
        throw LockError{LockErrc::invalid_argument,
                        std::string{"Redis URL, "} + part + ": " + problem};
    }

    [[nodiscard]] static bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
    [[nodiscard]] static bool is_letter(char c) noexcept {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    }
    /// The value of a hexadecimal digit, or -1.
    [[nodiscard]] static int hex(char c) noexcept {
        if (is_digit(c)) return c - '0';
        if (c >= 'a' && c <= 'f') return c - 'a' + 10;
        if (c >= 'A' && c <= 'F') return c - 'A' + 10;
        return -1;
    }

    [[nodiscard]] static std::string decoded(std::string_view text, const char* part) {
        std::string result;
        result.reserve(text.size());  // One buffer, so that a password leaves no copies behind.
        for (std::size_t i = 0; i < text.size(); ++i) {
            char c = text[i];
            if (c == '%') {
                const int high = i + 1 < text.size() ? hex(text[i + 1]) : -1;
                const int low = i + 2 < text.size() ? hex(text[i + 2]) : -1;
                if (high < 0 || low < 0) fail(part, "% without two hexadecimal digits");
                c = static_cast<char>(high * 16 + low);
                if (c == '\0') fail(part, "a NUL character");
                i += 2;
            }
            result += c;
        }
        return result;
    }

    /// A whole number of digits alone, at most `most`.
    template <class Number>
    [[nodiscard]] static Number number(std::string_view text, Number most, const char* part,
                                       const char* problem) {
        Number value{};
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool whole = error == std::errc{} && end == text.data() + text.size();
        if (!whole || !is_digit(text.front()) || value > most) fail(part, problem);
        return value;
    }

    void scheme(std::string_view text) {
        std::string lower{text};
        for (char& c : lower) {
            if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
        }
        if (lower == "redis" || lower == "valkey" || lower == "tcp") {
            endpoint_.transport = Transport::tcp;
        } else if (lower == "rediss" || lower == "valkeys") {
            endpoint_.transport = Transport::tls;
        } else if (lower == "unix" || lower == "redis+unix") {
            endpoint_.transport = Transport::unix_socket;
            endpoint_.host.clear();
            endpoint_.port = 0;
        } else {
            fail("scheme", "unknown; redis, rediss, valkey, valkeys, tcp and unix are known");
        }
    }

    void authority(std::string_view text) {
        if (const auto at = text.find('@'); at != text.npos) {
            if (text.find('@', at + 1) != text.npos) fail("user info", "write @ in it as %40");
            user_info(text.substr(0, at));
            text.remove_prefix(at + 1);
        }
        if (endpoint_.transport == Transport::unix_socket) {
            if (!text.empty()) fail("host", "a unix socket has none; write unix:///path");
            return;
        }
        const auto bracket = text.starts_with('[') ? text.find(']') : 0;
        if (bracket == text.npos) fail("host", "a bracket is not closed");
        const auto colon = text.find(':', bracket);
        if (colon != text.npos) {
            const char* problem = "not a number from 1 to 65535";
            endpoint_.port = number<std::uint16_t>(text.substr(colon + 1), 65535, "port", problem);
            if (endpoint_.port == 0) fail("port", problem);
            text = text.substr(0, colon);
        }
        if (!text.empty()) host(text);
    }

    void user_info(std::string_view text) {
        const auto colon = text.find(':');
        if (colon != text.npos) {
            endpoint_.user = decoded(text.substr(0, colon), "user");
            text.remove_prefix(colon + 1);
        }
        endpoint_.password = Secret{decoded(text, "password")};
    }

    void host(std::string_view text) {
        if (text.starts_with('[')) {
            if (!text.ends_with(']')) fail("host", "something follows the bracket");
            text = text.substr(1, text.size() - 2);
            const auto zone = std::min(text.find('%'), text.size());
            if (text.find(':') >= zone) fail("host", "no IPv6 address in brackets");
            for (const char c : text.substr(0, zone)) {
                if (hex(c) < 0 && c != ':' && c != '.') fail("host", "no IPv6 address in brackets");
            }
            endpoint_.host = decoded(text, "host");
            return;
        }
        for (const char c : text) {
            const bool plain = is_letter(c) || is_digit(c) || c == '-' || c == '.' || c == '_';
            if (!plain) fail("host", "a character that no host name has");
        }
        endpoint_.host = text;
    }

    void path(std::string_view text) {
        if (endpoint_.transport == Transport::unix_socket) {
            endpoint_.path = decoded(text, "path");
            if (endpoint_.path.size() < 2) fail("path", "missing; write unix:///path");
        } else if (text.size() > 1) {
            database(text.substr(1));
        }
    }

    void database(std::string_view text) {
        if (std::exchange(has_database_, true)) fail("database", "given twice");
        endpoint_.database =
            number<int>(text, std::numeric_limits<int>::max(), "database", "not a number from 0");
    }

    void query(std::string_view text) {
        while (!text.empty()) {
            const auto end = text.find('&');
            option(text.substr(0, end));
            if (end == text.npos) return;
            text.remove_prefix(end + 1);
            if (text.empty()) fail("options", "an & at the end");
        }
    }

    void option(std::string_view text) {
        const auto equals = text.find('=');
        if (equals == text.npos) fail("options", "one without =");
        const std::string_view name = text.substr(0, equals);
        const std::string value = decoded(text.substr(equals + 1), "options");
        if (name == "db") {
            database(value);
        } else if (name == "client_name") {
            client_name(value);
        } else if (name == "connect_timeout") {
            duration(endpoint_.connect_timeout, value, "option connect_timeout");
        } else if (name == "response_timeout") {
            duration(endpoint_.response_timeout, value, "option response_timeout");
        } else if (name == "patience") {
            duration(endpoint_.patience, value, "option patience");
        } else {
            fail("options",
                 "one is unknown; db, client_name, connect_timeout, response_timeout "
                 "and patience are known");
        }
    }

    void client_name(const std::string& value) {
        if (endpoint_.client_name) fail("option client_name", "given twice");
        for (const char c : value) {
            if (c <= ' ' || c > '~') fail("option client_name", "Redis takes printable ASCII only");
        }
        if (value.empty()) fail("option client_name", "empty");
        endpoint_.client_name = value;
    }

    static void duration(std::optional<std::chrono::nanoseconds>& to, std::string_view value,
                         const char* part) {
        if (to) fail(part, "given twice");
        std::size_t digits = 0;
        while (digits < value.size() && is_digit(value[digits]))
            ++digits;
        const std::string_view unit = value.substr(digits);
        long long factor = 0;
        if (unit == "us") factor = 1'000;
        if (unit == "ms") factor = 1'000'000;
        if (unit == "s") factor = 1'000'000'000;
        if (unit == "m") factor = 60'000'000'000;
        if (unit == "h") factor = 3'600'000'000'000;
        if (factor == 0) fail(part, "not a whole number with a unit: us, ms, s, m or h");
        const auto most = std::numeric_limits<long long>::max() / factor;
        const auto count = number<long long>(value.substr(0, digits), most, part,
                                             "no number, or one that is too large");
        if (count == 0) fail(part, "zero");
        to = std::chrono::nanoseconds{count * factor};
    }

    Endpoint endpoint_;
    bool has_database_ = false;
};

/// Percent-encodes what is neither unreserved in RFC 3986 nor in `also`.
[[nodiscard]] inline std::string percent_encoded(std::string_view text,
                                                 std::string_view also = {}) {
    constexpr std::string_view plain =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    constexpr std::string_view digits = "0123456789ABCDEF";
    std::string result;
    for (const char c : text) {
        if (plain.find(c) != plain.npos || also.find(c) != also.npos) {
            result += c;
        } else {
            const auto byte = static_cast<unsigned char>(c);
            result += {'%', digits[byte / 16], digits[byte % 16]};
        }
    }
    return result;
}

}  // namespace detail

inline Endpoint Endpoint::parse(std::string_view url) {
    return detail::EndpointParser{}.parse(url);
}

inline std::string Endpoint::to_string() const {
    std::string url;
    switch (transport) {
        case Transport::tcp:
            url = "redis://";
            break;
        case Transport::tls:
            url = "rediss://";
            break;
        case Transport::unix_socket:
            url = "unix://";
            break;
    }
    if (!user.empty() || !password.empty()) {
        url += detail::percent_encoded(user) + (password.empty() ? ":@" : ":***@");
    }
    char next = '?';
    const auto option = [&](const char* name, const std::string& value) {
        url += std::exchange(next, '&');
        url += std::string{name} + "=" + value;
    };
    if (transport == Transport::unix_socket) {
        url += detail::percent_encoded(path, "/");
        if (database != 0) option("db", std::to_string(database));
    } else {
        const bool six = host.find(':') != host.npos;
        url += six ? "[" + detail::percent_encoded(host, ":") + "]" : host;
        url += ":" + std::to_string(port);
        if (database != 0) url += "/" + std::to_string(database);
    }
    const auto duration = [&](const char* name, std::optional<std::chrono::nanoseconds> value) {
        if (!value) return;
        const auto rounded = std::chrono::ceil<std::chrono::microseconds>(*value);
        option(name, std::to_string(rounded.count()) + "us");
    };
    if (client_name) option("client_name", detail::percent_encoded(*client_name));
    duration("connect_timeout", connect_timeout);
    duration("response_timeout", response_timeout);
    duration("patience", patience);
    return url;
}

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_ENDPOINT_HPP
