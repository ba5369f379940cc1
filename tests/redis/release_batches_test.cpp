// SPDX-License-Identifier: MIT
//
// Tests of release_batches.hpp.

#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/release_batches.hpp>

#include "support/catch2.hpp"

#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace codomyrmex::concurrency::redis;

GivenUp given_up(const std::string& name) {
    return {std::make_shared<Tenure>(
                std::make_shared<const LockIdentity>(make_identity("p:", name, {})), "abc-1"),
            nullptr};
}

std::string names(const std::vector<GivenUp>& all) {
    std::string text;
    for (const GivenUp& each : all)
        text += each.tenure->name() + ' ';
    return text;
}

}  // namespace

TEST_CASE("What a thread gives back is collected while it has a batch open, and not else") {
    ReleaseBatches batches;
    CHECK_FALSE(batches.collect(given_up("a")));
    batches.open();
    CHECK(batches.collect(given_up("b")));
    CHECK(batches.collect(given_up("c")));
    CHECK(names(batches.close()) == "b c ");
    CHECK_FALSE(batches.collect(given_up("d")));
    CHECK(batches.take().empty());
}

TEST_CASE("What was collected can be taken out before the end") {
    ReleaseBatches batches;
    batches.open();
    CHECK(batches.collect(given_up("a")));
    CHECK(names(batches.take()) == "a ");
    CHECK(batches.take().empty());
    CHECK(batches.collect(given_up("b")));
    CHECK(names(batches.close()) == "b ");
}

TEST_CASE("A batch that was opened twice is closed twice") {
    ReleaseBatches batches;
    batches.open();
    batches.open();
    CHECK(batches.collect(given_up("a")));
    CHECK(names(batches.close()) == "a ");
    CHECK(batches.collect(given_up("b")));
    CHECK(names(batches.close()) == "b ");
    CHECK_FALSE(batches.collect(given_up("c")));
    batches.open();
    CHECK(batches.close().empty());
    CHECK_FALSE(batches.collect(given_up("d")));
}

TEST_CASE("Each thread has a batch of its own") {
    ReleaseBatches batches;
    batches.open();
    std::string theirs;
    bool before = true;
    std::jthread{[&] {
        before = batches.collect(given_up("x"));
        batches.open();
        const bool during = batches.collect(given_up("y"));
        theirs = during ? names(batches.close()) : "nothing";
    }}.join();
    CHECK_FALSE(before);
    CHECK(theirs == "y ");
    CHECK(batches.collect(given_up("z")));
    CHECK(names(batches.close()) == "z ");
}
