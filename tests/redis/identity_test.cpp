// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/redis/identity.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <limits>
#include <memory>
#include <string>
#include <string_view>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using std::chrono::milliseconds;
using support::error_of;
using support::message_of;

/// That `options` are refused, in words that name the member and show its value.
void check_refused(const LeaseOptions& options, const std::string& member,
                   const std::string& value) {
    CAPTURE(member, value);
    const auto check = [&] { validate(options); };
    CHECK(error_of(check) == LockErrc::invalid_argument);
    CHECK_THAT(message_of(check), Catch::Matchers::ContainsSubstring("LeaseOptions::" + member) &&
                                      Catch::Matchers::ContainsSubstring(value));
}

}  // namespace

TEST_CASE("The defaults are within their bounds") {
    CHECK_NOTHROW(validate(LeaseOptions{}));
}

TEST_CASE("A time to live has from 10 ms to 24 hours") {
    for (const auto good : {10ms, 11ms, 30'000ms, milliseconds{24h}}) {
        CAPTURE(good.count());
        CHECK_NOTHROW(validate(LeaseOptions{.ttl = good}));
    }
    for (const auto bad : {9ms, 1ms, 0ms, -1ms, -30'000ms, milliseconds{24h} + 1ms,
                           milliseconds::max(), milliseconds::min()}) {
        check_refused(LeaseOptions{.ttl = bad}, "ttl", std::to_string(bad.count()));
    }
}

TEST_CASE("max_hold may be anything but negative") {
    CHECK_NOTHROW(validate(LeaseOptions{.max_hold = 0ms}));
    CHECK_NOTHROW(validate(LeaseOptions{.max_hold = milliseconds::max()}));
    for (const auto bad : {-1ms, milliseconds::min()}) {
        check_refused(LeaseOptions{.max_hold = bad}, "max_hold", std::to_string(bad.count()));
    }
}

TEST_CASE("A lease goes from thread to thread at most a million times") {
    for (const int good : {0, 1, 32, 1'000'000}) {
        CAPTURE(good);
        CHECK_NOTHROW(validate(LeaseOptions{.max_local_handovers = good}));
    }
    for (const int bad :
         {-1, 1'000'001, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
        check_refused(LeaseOptions{.max_local_handovers = bad}, "max_local_handovers",
                      std::to_string(bad));
    }
}

TEST_CASE("max_local_run may be anything but negative") {
    for (const auto good : {0ms, 1ms, milliseconds{24h}, milliseconds::max()}) {
        CAPTURE(good.count());
        CHECK_NOTHROW(validate(LeaseOptions{.max_local_run = good}));
    }
    for (const auto bad : {-1ms, milliseconds::min()}) {
        check_refused(LeaseOptions{.max_local_run = bad}, "max_local_run",
                      std::to_string(bad.count()));
    }
}

TEST_CASE("A lease is retained for at most its time to live") {
    for (const auto good : {0ms, 1ms, 5000ms}) {
        CAPTURE(good.count());
        CHECK_NOTHROW(validate(LeaseOptions{.ttl = 5s, .retain = good}));
    }
    for (const auto bad : {-1ms, 5001ms, milliseconds::max(), milliseconds::min()}) {
        check_refused(LeaseOptions{.ttl = 5s, .retain = bad}, "retain",
                      std::to_string(bad.count()));
    }
}

TEST_CASE("A name has from 1 to 512 bytes of any kind") {
    CHECK(error_of([] { validate_name(""); }) == LockErrc::invalid_argument);
    CHECK_NOTHROW(validate_name("x"));
    CHECK_NOTHROW(validate_name(std::string(512, 'x')));
    CHECK(error_of([] { validate_name(std::string(513, 'x')); }) == LockErrc::invalid_argument);
    CHECK_THAT(message_of([] { validate_name(std::string(513, 'x')); }),
               Catch::Matchers::ContainsSubstring("513"));

    std::string every_byte;
    for (int byte = 0; byte < 256; ++byte)
        every_byte += static_cast<char>(byte);
    CHECK_NOTHROW(validate_name(every_byte));
    CHECK_NOTHROW(validate_name(std::string_view{"\0", 1}));
}

TEST_CASE("Only what could end the hash tag is percent-encoded in a name") {
    CHECK(encode_name("plain/name:1") == "plain/name:1");
    CHECK(encode_name("{") == "%7B");
    CHECK(encode_name("}") == "%7D");
    CHECK(encode_name("%") == "%25");
    CHECK(encode_name("a{b}c%d") == "a%7Bb%7Dc%25d");
    // What is encoded already is another name.
    CHECK(encode_name("%7B") == "%257B");
    CHECK(encode_name(std::string_view{"a\0\r\n\xFF", 5}) == std::string_view{"a\0\r\n\xFF", 5});
    CHECK(encode_name("") == "");
}

TEST_CASE("The keys of a lock share one hash tag") {
    const LockIdentity plain = make_identity("codomyrmex:", "job", {.ttl = 5s, .label = "me"});
    CHECK(plain.name == "job");
    CHECK(plain.keys.main() == "codomyrmex:lock:{job}");
    CHECK(plain.keys.fence() == "codomyrmex:lock:{job}:fence");
    CHECK(plain.keys.queue() == "codomyrmex:lock:{job}:queue");
    CHECK(plain.options.ttl == 5s);
    CHECK(plain.options.label == "me");

    const LockIdentity odd = make_identity("", "}{", {});
    CHECK(odd.name == "}{");
    CHECK(odd.keys.main() == "lock:{%7D%7B}");
}

TEST_CASE(
    "Each kind has keys of its own, whatever the name is, and more where there are many holders") {
    const PrimitiveKeys lock = keys_of("p:", PrimitiveKind::lock, "a{b}%");
    CHECK(lock.main() == "p:lock:{a%7Bb%7D%25}");
    CHECK(lock.fence() == "p:lock:{a%7Bb%7D%25}:fence");
    CHECK(lock.queue() == "p:lock:{a%7Bb%7D%25}:queue");
    CHECK(lock.meta().empty());
    const PrimitiveKeys semaphore = keys_of("p:", PrimitiveKind::semaphore, "n");
    CHECK(semaphore.main() == "p:sem:{n}");
    CHECK(semaphore.fence() == "p:sem:{n}:fence");
    CHECK(semaphore.queue() == "p:sem:{n}:queue");
    CHECK(semaphore.meta() == "p:sem:{n}:meta");
    CHECK(keys_of("p:", PrimitiveKind::read_write, "n").main() == "p:rw:{n}");
    CHECK(keys_of("p:", PrimitiveKind::read_write, "n").meta() == "p:rw:{n}:meta");
    CHECK(keys_of("p:", PrimitiveKind::quorum, "n").main() == "p:quorum:{n}");
    CHECK(keys_of("p:", PrimitiveKind::quorum, "n").meta().empty());
    CHECK(error_of([] { (void)keys_of("p:", PrimitiveKind::lock, ""); }) ==
          LockErrc::invalid_argument);
}

TEST_CASE("A copy of keys is as good as what it was copied from") {
    auto original = std::make_unique<PrimitiveKeys>(keys_of("", PrimitiveKind::semaphore, "n"));
    const PrimitiveKeys copy = *original;
    original.reset();
    CHECK(copy.main() == "sem:{n}");
    CHECK(copy.meta() == "sem:{n}:meta");
}

TEST_CASE("An identity has neither a name nor options out of their bounds") {
    CHECK(error_of([] { (void)make_identity("p:", "", {}); }) == LockErrc::invalid_argument);
    CHECK(error_of([] { (void)make_identity("p:", "x", {.ttl = 9ms}); }) ==
          LockErrc::invalid_argument);
    CHECK(error_of([] { (void)make_identity("p:", "x", {.ttl = 1s, .retain = 2s}); }) ==
          LockErrc::invalid_argument);
    // The bound is the name's, not the key's: encoding may make it longer.
    CHECK(make_identity("p:", std::string(512, '%'), {}).keys.main().size() == 8 + 1536 + 1);
}

TEST_CASE("What a message knows only the key of has the keys that its name would give it") {
    const LockIdentity named = make_identity("codomyrmex:", std::string_view{"a b\0{", 5}, {});
    const LockIdentity keyed = identity_of_key("codomyrmex:", named.keys.main());
    CHECK(keyed.keys.main() == named.keys.main());
    CHECK(keyed.keys.fence() == named.keys.fence());
    CHECK(keyed.keys.queue() == named.keys.queue());
    CHECK(keyed.name.empty());
    CHECK_NOTHROW(validate(keyed.options));
}

TEST_CASE("Each kind has keys of its own, and is known by them") {
    const LockIdentity permits = make_permit_identity("p:", "job", 5, 2, {.ttl = 5s});
    CHECK(permits.kind == PrimitiveKind::semaphore);
    CHECK(permits.keys.main() == "p:sem:{job}");
    CHECK(permits.keys.meta() == "p:sem:{job}:meta");
    CHECK(permits.capacity == 5);
    CHECK(permits.weight == 2);
    const LockIdentity reader = make_read_write_identity("p:", "job", false, {.ttl = 5s});
    const LockIdentity writer = make_read_write_identity("p:", "job", true, {.ttl = 5s});
    CHECK(reader.keys.main() == "p:rw:{job}");
    CHECK(writer.keys.main() == reader.keys.main());
    CHECK(reader.weight == 1);
    CHECK(writer.weight == reader.capacity);
    CHECK(make_identity("p:", "job", {}).keys.meta().empty());

    CHECK(identity_of_key("p:", permits.keys.main()).kind == PrimitiveKind::semaphore);
    CHECK(identity_of_key("p:", permits.keys.main()).keys.meta() == permits.keys.meta());
    CHECK(identity_of_key("p:", reader.keys.main()).kind == PrimitiveKind::read_write);
    CHECK(identity_of_key("p:", "p:lock:{sem:{}").kind == PrimitiveKind::lock);
    CHECK(identity_of_key("a longer prefix than the key", "p:").kind == PrimitiveKind::lock);
}

TEST_CASE("Numbers of permits out of their bounds, and retention of permits, are refused") {
    const auto refused = [](std::ptrdiff_t capacity, std::ptrdiff_t weight,
                            LeaseOptions options = {}) {
        return error_of([&] {
                   (void)make_permit_identity("p:", "x", capacity, weight, options);
               }) == LockErrc::invalid_argument;
    };
    CHECK(refused(0, 1));
    CHECK(refused(-1, 1));
    CHECK(refused(most_permits + 1, 1));
    CHECK(refused(5, 0));
    CHECK(refused(5, 6));
    CHECK(refused(5, 1, {.ttl = 1s, .retain = 1s}));
    CHECK_FALSE(refused(most_permits, most_permits));
    CHECK(error_of([] { (void)make_read_write_identity("p:", "", true, {}); }) ==
          LockErrc::invalid_argument);
}
