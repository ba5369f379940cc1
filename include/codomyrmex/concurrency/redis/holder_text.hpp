// SPDX-License-Identifier: MIT
//
// What a holder is called, for people: "host:pid:thread label". It stands in the server beside the
// owner token; inspect_replies.hpp takes it apart again.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_HOLDER_TEXT_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_HOLDER_TEXT_HPP

#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/detail/thread_identity.hpp>

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>

namespace codomyrmex::concurrency::redis {

/// What all holders of this process begin with: "host:pid:".
[[nodiscard]] inline std::string process_text() {
    return detail::host_name() + ':' + std::to_string(detail::process_id()) + ':';
}

/// The calling thread of `process`, as process_text() gave it. Control characters of the label
/// become '?'.
[[nodiscard]] inline std::string holder_text(const std::string& process, std::string_view label) {
    std::string text = process + std::to_string(detail::kernel_thread_id());
    if (label.empty()) return text;
    text += ' ';
    std::ranges::replace_copy_if(
        label, std::back_inserter(text),
        [](char byte) { return static_cast<unsigned char>(byte) < ' ' || byte == '\x7f'; }, '?');
    return text;
}

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_HOLDER_TEXT_HPP
