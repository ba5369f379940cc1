// SPDX-License-Identifier: MIT
//
// The scripts for several locks that are asked for, or given back, at the same time do for each of
// them exactly what the scripts for one lock do. Shown by chance that is the same each time: a
// state is drawn for each lock and a request, the scripts for one run one after the other, the
// joint one runs on the same state, and then the answers, the keys and what was published are
// compared.
//
//   CODOMYRMEX_JOINT_SEED    other cases
//   CODOMYRMEX_JOINT_CASES   more of them

#include <codomyrmex/concurrency/redis/batch_scripts.hpp>
#include <codomyrmex/concurrency/redis/command.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include "support/catch2.hpp"
#include "support/environment.hpp"
#include "support/listener.hpp"
#include "support/redis_server.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace codomyrmex::concurrency::redis;
using test_support::Listener;
using test_support::number_from;
using test_support::RedisReply;
using test_support::RedisServer;
using Strings = std::vector<std::string>;
using Commands = std::vector<Strings>;

const std::string prefix = "codomyrmex:";
const std::string past = "1700000000000000000";
const std::string ahead = "4000000000000000000";

// --- What is compared.

/// The times to live that occur, in ms: of a grant, of what was there before, of a lease, of a
/// queue and of a fence. They are far apart, so that what is left of one shows which it was.
constexpr std::array<long long, 7> lives{12'000, 20'000,     30'000,    45'000,
                                         60'000, 40'000'000, 86'400'000};
constexpr long long for_years = 200'000'000'000;

/// Which of them it was; a lock that is held for years is said to be for 1e11 ms.
std::string life(long long left) {
    if (left < 0) return std::to_string(left);
    const auto* const found = std::ranges::lower_bound(lives, left);
    return found != lives.end() ? "<" + std::to_string(*found) + " ms>" : "<years>";
}

/// The text with marks in place of the numbers that are the server's clock: 19 digits in ns, of
/// which the last three stay, for there blocks of fencing tokens are counted; 16 in us; 10 in s.
std::string without_times(std::string_view text) {
    using namespace std::chrono;
    const auto now = duration_cast<seconds>(system_clock::now().time_since_epoch()).count();
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    std::string result;
    while (!text.empty()) {
        const auto* const end = is_digit(text.front()) ? std::ranges::find_if_not(text, is_digit)
                                                       : std::ranges::find_if(text, is_digit);
        const std::string_view part{text.begin(), end};
        text.remove_prefix(part.size());
        const bool time = is_digit(part.front()) &&
                          (part.size() == 19 || part.size() == 16 || part.size() == 10) &&
                          std::abs(std::stoll(std::string{part.substr(0, 10)}) - now) < 100;
        result += !time               ? std::string{part}
                  : part.size() == 19 ? "<ns>" + std::string{part.substr(16)}
                  : part.size() == 16 ? "<us>"
                                      : "<s>";
    }
    return result;
}

/// An answer of a script without its number: the acquire script's last word, where it is not had,
/// is what remains to the holder.
std::string comparable(std::string_view answer) {
    std::string text = without_times(answer);
    if (!text.starts_with("0 <ns>")) return text;
    text.pop_back();
    const std::size_t last = text.rfind(' ') + 1;
    return text.substr(0, last) + life(std::stoll(text.substr(last))) + ' ';
}

std::string to_text(const RedisReply& reply) {
    if (reply.is_nil()) return "nil";
    if (reply.is_error()) return "-";  // the command is for another type
    if (reply.kind != RedisReply::Kind::array) return without_times(reply.text);
    std::string text = "[";
    for (const RedisReply& each : reply.elements)
        text += to_text(each) + ", ";
    return text + "]";
}

// --- What is drawn.

struct Keys {
    explicit Keys(std::string_view name) {
        const PrimitiveKeys keys =
            keys_of(prefix, codomyrmex::concurrency::PrimitiveKind::lock, name);
        lock = keys.main();
        fence = keys.fence();
        queue = keys.queue();
    }
    [[nodiscard]] Strings all() const { return {lock, fence, queue}; }

    std::string lock, fence, queue;
};

struct Request {
    Keys keys;
    std::string token;
    std::string waiter{};  ///< empty to try only
    std::string not_after{};
};

struct Case {
    bool release = false;
    std::vector<Keys> locks{};
    Commands state{};
    std::vector<Request> requests{};  ///< of one lock two, now and then
    std::string block = "1";

    [[nodiscard]] std::string not_after() const {
        return std::ranges::min(requests, {}, &Request::not_after).not_after;
    }
    /// For people, who want to see it happen again.
    [[nodiscard]] std::string to_string() const {
        std::string text = release ? "released" : "acquired, block " + block;
        for (const Request& each : requests)
            text += "\n  " + each.keys.lock + " by " + each.token + ", waiter '" + each.waiter +
                    "', not after '" + each.not_after + "'";
        for (const Strings& command : state) {
            text += "\n ";
            for (const std::string& word : command)
                text += " '" + word + "'";
        }
        return text;
    }
};

class Draw {
  public:
    explicit Draw(std::uint64_t seed) : random_{seed} {}

    Case acquire() {
        Case drawn;
        if (one_in(3)) drawn.block = "10";
        const bool late = one_in(20);
        draw_locks(drawn, [&](const Keys& keys, const std::string& token, bool calm) {
            Request request{keys, token};
            if (one_in(2)) request.waiter = token + " 12000 " + drawn.block + " host:1:main";
            request.not_after = late && one_in(2) ? "1000000000000000000" : ahead;
            if (!calm) held_by(drawn.state, keys, token);
            return request;
        });
        return drawn;
    }

    Case release() {
        Case drawn;
        drawn.release = true;
        draw_locks(drawn, [&](const Keys& keys, const std::string& token, bool calm) {
            if (calm || one_in(3)) {
                drawn.state.push_back(
                    {"SET", keys.lock, token + " host:1:main 1700000000", "PX", "20000"});
            } else {
                held_by(drawn.state, keys, token);
            }
            return Request{keys, token};
        });
        return drawn;
    }

  private:
    std::uint64_t below(std::uint64_t sides) { return random_() % sides; }
    bool one_in(std::uint64_t sides) { return below(sides) == 0; }

    /// `lock_and_request`: draws what holds the lock, and the request.
    void draw_locks(Case& drawn, auto lock_and_request) {
        // All is as usual, which the joint scripts do in a shorter way.
        const bool calm = one_in(3);
        const std::uint64_t count = 1 + below(4);
        for (std::uint64_t i = 0; i < count; ++i) {
            const std::string token = "a11ce-" + std::to_string(i + 1);
            if (i > 0 && one_in(12)) {
                // Also one that is asked for already.
                Request again = drawn.requests[below(i)];
                again.token = token;
                if (!again.waiter.empty()) again.waiter = token + " 12000 1 host:1:main";
                drawn.requests.push_back(again);
                continue;
            }
            const Keys keys{"job" + std::to_string(i)};
            drawn.locks.push_back(keys);
            drawn.requests.push_back(lock_and_request(keys, token, calm));
            fence(drawn.state, keys.fence, calm);
            if (!calm) queue(drawn.state, keys.queue, drawn.requests.back());
        }
    }

    void held_by(Commands& state, const Keys& keys, const std::string& token) {
        const std::string text = " host:1:main 1700000000";
        const auto set = [&](const std::string& value, const std::string& ms = "20000") {
            state.push_back({"SET", keys.lock, value, "PX", ms});
        };
        switch (below(16)) {
            case 0:
                return set("b0b-7" + text);
            case 1:
                return set("b0b-7" + text, std::to_string(for_years));
            case 2:
                return set(token + text);
            case 3:
                return set(token);
            case 4:
                return set(token + "1" + text);  // another's, that begins as this one
            case 5:
                return set("ee9-3r" + text);  // a retained one
            case 6:
                return state.push_back({"RPUSH", keys.lock, "text"});
            case 7:
                return state.push_back({"SET", keys.lock, "b0b-7" + text});
            case 8:
                return state.push_back({"SET", keys.lock, token + text});
            default:
                return;
        }
    }

    void fence(Commands& state, const std::string& key, bool calm) {
        const auto set = [&](const std::string& value) {
            state.push_back({"SET", key, value});
            if (!one_in(3)) state.push_back({"PEXPIRE", key, "40000000"});
        };
        switch (below(calm ? 20 : 12)) {
            case 0:
                return set(ahead);
            case 1:
                return set("170000000000 000000");
            case 2:
                return set("");
            case 3:
                return set("text");
            case 4:
                return set("9223372036854775807");  // It cannot grow.
            case 5:
                return state.push_back({"RPUSH", key, past});
            case 6:
            case 7:
                return;
            default:
                return set(past);
        }
    }

    void queue(Commands& state, const std::string& key, const Request& request) {
        if (one_in(2)) return;
        if (one_in(8)) return state.push_back({"SET", key, "text"});
        const bool years_ahead = one_in(6);
        const auto add = [&](const std::string& waiter) {
            const std::string score = std::to_string(state.size());
            state.push_back({"ZADD", key, years_ahead ? "400000000000" + score : score, waiter});
        };
        // More than are looked at in one call.
        if (one_in(12)) {
            for (int i = 0; i < 40; ++i)
                add("dead-" + std::to_string(i) + " 12000 1 host:2:main");
        }
        for (std::uint64_t left = 1 + below(3); left > 0; --left) {
            const std::string block = one_in(2) ? " 12000 1 " : " 12000 10 ";
            switch (below(6)) {
                case 0:
                case 1:
                    add("b0b-" + std::to_string(left) + block + "host:2:main");
                    break;
                case 2:
                    add("ca401-" + std::to_string(left) + block + "host:3:main text");
                    break;
                case 3:
                    add("dead-" + std::to_string(left) + block + "host:4:main");
                    break;
                case 4:
                    add("no waiter");
                    break;
                default:
                    add(request.waiter.empty() ? "dead-1 1 1 " : request.waiter);
                    break;
            }
        }
        if (!one_in(3)) state.push_back({"PEXPIRE", key, "45000"});
    }

    std::mt19937_64 random_;
};

// --- Both ways to do it.

class Bench {
  public:
    /// What both ways left: the answers, in words that can be compared, the keys and the messages.
    using Seen = std::string;

    /// By the scripts for one lock, one after the other.
    Seen one_by_one(const Case& what) {
        prepare(what);
        Strings answers;
        // The joint script has the soonest of all times.
        const bool late = !what.release && what.not_after() < past;
        for (const Request& each : what.requests) {
            answers.emplace_back();
            if (late) continue;
            const Script& script = what.release ? release_script : acquire_script;
            Strings words{"EVAL", std::string{script.body}, "3"};
            add(words, each.keys.all());
            if (what.release) {
                add(words, {each.token, prefix, "", "7"});
            } else {
                add(words, {each.token, each.waiter, "host:1:main", "30000", what.block, prefix,
                            each.not_after, "7"});
            }
            const RedisReply reply = server_.command(words);
            // An error is said by the script for one only: the joint one has no answer then.
            if (reply.is_error()) continue;
            CAPTURE(reply.text);
            REQUIRE(reply.text.ends_with(" 7"));
            answers.back() = reply.text.substr(0, reply.text.size() - 1);
        }
        return look(what, answers);
    }

    /// By the joint script, of which this is the text.
    Seen together(const Case& what, const std::string& body) {
        prepare(what);
        Strings words{"EVAL", body, std::to_string(3 * what.requests.size())};
        for (const Request& each : what.requests)
            add(words, each.keys.all());
        if (what.release) {
            add(words, {"7", prefix});
            for (const Request& each : what.requests)
                words.push_back(each.token);
        } else {
            add(words, {"7", what.not_after(), "30000", what.block, prefix});
            for (const Request& each : what.requests)
                add(words, {each.token, each.waiter, "host:1:main"});
        }
        Reply reply;
        const RedisReply answer = server_.command(words);
        reply.type = answer.is_error() ? Reply::Type::error : Reply::Type::string;
        reply.text = answer.text;
        const auto answers = split_joint(reply, what.requests.size(), "7");
        if (answers.empty()) return "the whole call: " + reply.text;
        return look(what, {answers.begin(), answers.end()});
    }

  private:
    static void add(Strings& words, const Strings& more) {
        words.insert(words.end(), more.begin(), more.end());
    }

    void prepare(const Case& what) {
        Commands commands{{"FLUSHALL"}};
        commands.insert(commands.end(), what.state.begin(), what.state.end());
        for (const RedisReply& reply : server_.commands(commands))
            REQUIRE_FALSE(reply.is_error());
    }

    Seen look(const Case& what, const Strings& answers) {
        Commands commands;
        for (const Keys& lock : what.locks) {
            for (const std::string& key : lock.all()) {
                commands.push_back({"PTTL", key});
                commands.push_back({"TYPE", key});
                commands.push_back({"GET", key});
                commands.push_back({"LRANGE", key, "0", "-1"});
                commands.push_back({"ZRANGE", key, "0", "-1", "WITHSCORES"});
            }
        }
        commands.push_back({"DBSIZE"});
        for (const Ear& ear : ears_)
            commands.push_back({"PUBLISH", ear.channel, "end"});
        const auto replies = server_.commands(commands);

        Seen seen;
        std::map<std::string, std::string> fences;
        std::size_t next = 0;
        for (const Keys& lock : what.locks) {
            fences[lock.fence] = replies.at(next + 7).text;
            for (const std::string& key : lock.all()) {
                seen += "  " + key + ": " + life(replies.at(next++).number);
                for (int i = 0; i < 4; ++i)
                    seen += " " + to_text(replies.at(next++));
                seen += '\n';
            }
        }
        seen += "  " + replies.at(next).text + " keys\n";
        for (Ear& ear : ears_) {
            std::string message;
            while ((message = ear.listener.next()) != "end") {
                REQUIRE_FALSE(message.empty());
                seen += "  " + ear.channel + ": " + without_times(message) + '\n';
            }
        }
        for (std::size_t i = 0; i < answers.size(); ++i) {
            seen += "  answer '" + comparable(answers[i]) + "'";
            if (!what.release && answers[i].starts_with("1 ")) {
                seen += fence_is_sound(answers[i], fences.at(what.requests[i].keys.fence));
            }
            seen += '\n';
        }
        return seen;
    }

    // Of an answer "1 time fence how-many ": the fence is the time, or was counted from what stood
    // there, and all of them are drawn.
    static std::string fence_is_sound(const std::string& answer, const std::string& drawn) {
        RedisReply reply;
        reply.text = answer;
        const auto words = reply.split().elements;
        const std::string& time = words.at(1).text;
        const std::string& fence = words.at(2).text;
        const std::string last = std::to_string(words[2].number + words.at(3).number - 1);
        if (fence < time) return " a fence behind the clock";
        if (fence != time && fence < ahead) return " a fence from nowhere";
        return last <= drawn ? "" : " a fence that is not drawn: " + drawn;
    }

    struct Ear {
        explicit Ear(const RedisServer& server, const std::string& process)
            : channel{prefix + "wake:" + process}, listener{server, channel} {}
        std::string channel;
        Listener listener;
    };

    RedisServer server_;
    std::array<Ear, 3> ears_{Ear{server_, "b0b"}, Ear{server_, "ca401"}, Ear{server_, "ee9"}};
};

/// The first of some cases that both ways do not do alike; empty if there is none. `tally`: what
/// was seen, one after the other.
std::string first_difference(Bench& bench, bool release, const std::string& body,
                             std::string* tally = nullptr) {
    const std::uint64_t seed = number_from("CODOMYRMEX_JOINT_SEED", 1);
    const std::uint64_t cases = number_from("CODOMYRMEX_JOINT_CASES", 800);
    Draw draw{seed};
    for (std::uint64_t i = 0; i < cases; ++i) {
        const Case drawn = release ? draw.release() : draw.acquire();
        const Bench::Seen expected = bench.one_by_one(drawn);
        const Bench::Seen seen = bench.together(drawn, body);
        if (seen != expected) {
            return "seed " + std::to_string(seed) + ", case " + std::to_string(i) + ": " +
                   drawn.to_string() + "\none by one:\n" + expected + "together:\n" + seen;
        }
        if (tally != nullptr) *tally += seen;
    }
    return {};
}

std::size_t count(std::string_view text, std::string_view what) {
    std::size_t found = 0;
    for (std::size_t at = 0; (at = text.find(what, at)) != text.npos; ++at)
        ++found;
    return found;
}

/// The script with one thing done otherwise.
std::string broken(const Script& script, std::string_view what, std::string_view instead) {
    std::string body{script.body};
    const std::size_t at = body.find(what);
    CAPTURE(std::string{what});
    REQUIRE(at != std::string::npos);
    return body.replace(at, what.size(), instead);
}

}  // namespace

TEST_CASE("Locks that are asked for together are taken exactly as one by one") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    std::string tally;
    REQUIRE(first_difference(bench, false, std::string{acquire_each_script.body}, &tally) == "");
    // And not for nothing was there much to compare.
    for (const char* what :
         {"answer '1 <ns>000 <ns>000 1 '", "answer '1 <ns>000 <ns>000 10 '",
          "answer '1 <ns>000 4000000000000000001 1 '", "answer '0 <ns>000 -1 ",
          "answer '0 <ns>000 0 ", "answer '0 <ns>000 1 ", "<years> '", "answer ''",
          "b0b: grant b0b-", "ca401: grant ca401-", "ee9: wanted"}) {
        CAPTURE(what);
        CHECK(count(tally, what) >= 10);
    }
}

TEST_CASE("Locks that are given back together are given back exactly as one by one") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    std::string tally;
    REQUIRE(first_difference(bench, true, std::string{release_all_script.body}, &tally) == "");
    for (const char* what : {"answer '1 '", "answer '0 '", "answer '2 '", "answer '3 '",
                             "answer ''", "b0b: grant b0b-", "ca401: grant ca401-"}) {
        CAPTURE(what);
        CHECK(count(tally, what) >= 5);
    }
}

TEST_CASE("A joint script that does one thing otherwise is found out") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const auto found = [&](const Script& script, const char* what, const char* instead) {
        CAPTURE(what, instead);
        const bool release = script.id == ScriptId::release_all;
        CHECK(first_difference(bench, release, broken(script, what, instead)) != "");
    };
    const Script& acquire = acquire_each_script;
    found(acquire, "call('EXISTS', unpack(places)) == 0", "true");  // Whoever holds it or waits.
    found(acquire, "began, 'PX', ttl, 'GET'", "began, 'GET'");
    found(acquire, "now, 'PX', '86400000', 'GET') or", "now, 'GET') or");
    found(acquire, "'SET', keys[3 * i - 1], now, 'PX', '86400000', 'GET'",
          "'GET', keys[3 * i - 1]");  // The fence is not raised.
    found(acquire, "sound and find(table.concat(lasts), '^%d*$')", "sound");
    found(acquire, "call('SET', fence_key, last, unpack", "type(unpack");  // Not put back.
    found(acquire, "and last ~= now", "");  // A lock that is asked for twice: put back too late.
    // A fence that is empty, not absent.
    found(acquire, "if sound or", "if sound or last == '' or");
    const Script& release = release_all_script;
    found(release, "and redis.call('EXISTS', unpack(queues)) == 0", "");  // Whoever waits.
    found(release, "and byte(holder, #token + 1) == 32", "");  // A token that begins as this one.
    found(release, "ours == count", "ours > 0");
}
