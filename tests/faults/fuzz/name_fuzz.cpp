// SPDX-License-Identifier: MIT
//
// Any bytes as the name of a lock: two names have one key only if they are one name, no name closes
// or opens the key's hash tag, and what is refused is refused by its length alone.

#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>

#include "faults/fuzz/require.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace {

using codomyrmex::concurrency::LockError;
using codomyrmex::concurrency::redis::encode_name;
using codomyrmex::concurrency::redis::validate_name;
using fuzz::require;

std::string decoded(std::string_view text) {
    std::string name;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            name += text[i];
            continue;
        }
        require(i + 2 < text.size(), "% stands for a byte");
        const std::string_view code = text.substr(i + 1, 2);
        require(code == "7B" || code == "7D" || code == "25", "only three bytes are encoded");
        name += code == "7B" ? '{' : code == "7D" ? '}' : '%';
        i += 2;
    }
    return name;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(data, data + size);
    const std::string encoded = encode_name(text);
    require(encoded.find('{') == encoded.npos, "no { in a key's tag");
    require(encoded.find('}') == encoded.npos, "no } in a key's tag");
    require(decoded(encoded) == text, "an encoded name is one name's");

    const std::string one = text.substr(0, text.size() / 2);
    const std::string other = text.substr(text.size() / 2);
    require((encode_name(one) == encode_name(other)) == (one == other), "two names have two keys");

    bool taken = true;
    try {
        validate_name(text);
    } catch (const LockError&) {
        taken = false;
    }
    require(taken == (!text.empty() && text.size() <= 512), "a name has 1 to 512 bytes");
    return 0;
}
