// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/detail/wire_format.hpp>

#include "support/catch2.hpp"

#include <hiredis/hiredis.h>

#include <cstddef>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace std::string_view_literals;
using namespace codomyrmex::concurrency::detail;

std::string format(const std::vector<std::string_view>& command) {
    std::string output;
    format_command(command, output);
    return output;
}

}  // namespace

TEST_CASE("A command is formatted by lengths, so any bytes may stand in it") {
    CHECK(format({"PING"}) == "*1\r\n$4\r\nPING\r\n");
    CHECK(format({"SET", "k\r\n", "a\0b"sv}) ==
          "*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$3\r\na\0b\r\n"sv);
    CHECK(format({"GET", ""}) == "*2\r\n$3\r\nGET\r\n$0\r\n\r\n");
    CHECK(format({"GET", std::string_view{}}) == "*2\r\n$3\r\nGET\r\n$0\r\n\r\n");
    std::string output = "before";
    format_command(std::vector<std::string_view>{"A"}, output);
    format_command(std::vector<std::string_view>{"B"}, output);
    CHECK(output == "before*1\r\n$1\r\nA\r\n*1\r\n$1\r\nB\r\n");
}

TEST_CASE("A command is formatted as hiredis formats it") {
    std::mt19937 random{20};
    for (int i = 0; i < 200; ++i) {
        std::vector<std::string> words(1 + random() % 40);
        for (std::string& word : words) {
            word.resize(random() % (i % 10 == 0 ? 20'000 : 30));
            for (char& byte : word)
                byte = static_cast<char>(random());
        }
        std::vector<const char*> bytes;
        std::vector<std::size_t> sizes;
        for (const std::string& word : words) {
            bytes.push_back(word.data());
            sizes.push_back(word.size());
        }
        char* expected = nullptr;
        const auto size = redisFormatCommandArgv(&expected, static_cast<int>(words.size()),
                                                 bytes.data(), sizes.data());
        REQUIRE(size > 0);
        const std::unique_ptr<char, decltype(&redisFreeCommand)> owner{expected, redisFreeCommand};
        CHECK(format({words.begin(), words.end()}) ==
              std::string_view(expected, static_cast<std::size_t>(size)));
    }
}

TEST_CASE("How long a word will be is known before") {
    for (const std::size_t size : {0U, 1U, 9U, 10U, 99U, 100U, 12'345U}) {
        const std::string word(size, 'x');
        std::string output;
        append_word(word, output);
        CHECK(encoded_size(word) == output.size());
    }
}
