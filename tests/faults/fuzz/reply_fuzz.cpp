// SPDX-License-Identifier: MIT
//
// Any bytes from a server: the reader makes replies of them or says why it cannot, the same whether
// they come at once or in pieces, and never more than they were; and whatever an error says, the
// classifier's views stay inside its text.

#include <codomyrmex/concurrency/detail/reply_reader.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include "faults/fuzz/require.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace {

using codomyrmex::concurrency::detail::ReplyReader;
using codomyrmex::concurrency::redis::classify;
using codomyrmex::concurrency::redis::Reply;
using fuzz::require;

bool inside(std::string_view part, std::string_view whole) {
    if (part.empty()) return true;
    const std::less_equal<const char*> not_after;
    return not_after(whole.data(), part.data()) &&
           not_after(part.data() + part.size(), whole.data() + whole.size());
}

void look(std::string_view error) {
    const auto found = classify(error);
    require(found.word == "ERR" || inside(found.word, error), "the word is of the error's text");
    require(inside(found.message, error), "the message is of the error's text");
    require(!found.word.empty(), "an error has a word");
    require(classify(error).kind == found.kind, "the same error is of the same kind");
}

std::size_t elements_of(const Reply& reply) {
    if (reply.is_error()) look(reply.text);
    require(!reply.describe().empty(), "every reply has words");
    std::size_t count = 1;
    for (const Reply& element : reply.elements)
        count += elements_of(element);
    return count;
}

/// The words for each reply, in order, and at the end why there are no more.
std::vector<std::string> read(std::string_view bytes, std::size_t piece) {
    ReplyReader reader;
    std::vector<std::string> seen;
    std::string broken;
    std::size_t elements = 0;
    while (!bytes.empty() && broken.empty()) {
        const std::size_t size = std::min(piece, bytes.size());
        reader.feed(bytes.data(), size);
        bytes.remove_prefix(size);
        while (const auto reply = reader.next(broken)) {
            elements += elements_of(*reply);
            seen.push_back(reply->describe());
        }
    }
    require(elements <= (std::size_t{1} << 20U), "a reply is no larger than its bytes");
    seen.push_back(broken.empty() ? "more bytes" : "broken");
    return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    // The first byte says how the rest is cut into pieces.
    const std::size_t piece = 1 + data[0] % 16;
    const std::string bytes(data + 1, data + size);
    look(bytes);
    const auto whole = read(bytes, bytes.size() + 1);
    const auto cut = read(bytes, piece);
    require(whole == cut, "what a reply is does not hang on how it arrives");
    return 0;
}
