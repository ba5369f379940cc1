// SPDX-License-Identifier: MIT
//
// Any text as a URL: it is parsed or refused with invalid_argument; neither the refusal nor the
// normal form has the password in it; and the normal form means what the text meant.

#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>

#include "faults/fuzz/require.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace {

using codomyrmex::concurrency::Endpoint;
using codomyrmex::concurrency::LockErrc;
using codomyrmex::concurrency::LockError;
using codomyrmex::concurrency::Secret;
using fuzz::require;

constexpr std::string_view password = "qXz7Jw";  // In no word of ours.

void parse(const std::string& url, bool has_password) {
    try {
        const Endpoint endpoint = Endpoint::parse(url);
        const std::string normal = endpoint.to_string();
        if (has_password) {
            require(endpoint.password.reveal() == password, "the password is the one in the URL");
            require(normal.find(password) == normal.npos, "the normal form hides the password");
        }
        Endpoint again = Endpoint::parse(normal);
        if (!endpoint.password.empty()) {
            require(again.password.reveal() == "***", "stars stand for a password");
            again.password = endpoint.password;
        }
        require(again == endpoint, "the normal form means the same");
        require(again.to_string() == normal, "the normal form is its own");
    } catch (const LockError& error) {
        require(error.code() == LockErrc::invalid_argument, "a refusal is invalid_argument");
        const std::string_view what = error.what();
        require(what.find(password) == what.npos, "a refusal does not quote");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(data, data + size);
    if (text.find(password) == text.npos) parse(text, false);
    // Again, with a password where one belongs.
    const auto slashes = text.find("://");
    if (slashes != text.npos && text.find('@') == text.npos && text.find(password) == text.npos) {
        std::string url = text;
        url.insert(slashes + 3, ":" + std::string{password} + "@");
        parse(url, true);
    }
    return 0;
}
