// SPDX-License-Identifier: MIT
//
// Looks at the locks on a Redis server, and takes them away:
//
//     lockctl [--redis URL] [--prefix P] [--json] COMMAND
//
//     ls [PATTERN]            what is held: holder, age, remaining time, how many wait
//     who NAME                all who hold it
//     waiters NAME            who waits, in the order of service
//     release NAME [--yes]    shows the holder, asks, and frees it; the holder is told. Of several
//                             holders of a semaphore or read-write lock: the one with --token
//     top [PATTERN]           the same as ls, again and again; q or ctrl-C ends it
//     bench                   round trips, free cycles and hand-overs on this server
//
// Exit status:
//
//      0  done                                   64  the command line is wrong
//      1  nobody holds it; it was not released   69  Redis cannot be reached or refuses

#include <codomyrmex/concurrency/redis.hpp>

#include "lockctl/bench.hpp"
#include "lockctl/output.hpp"
#include "lockctl/top.hpp"

#include <CLI/CLI.hpp>

#include <chrono>
#include <exception>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

using namespace codomyrmex::concurrency;

namespace {

enum Status { done = 0, not_there = 1, usage = 64, unavailable = 69 };

struct Arguments {
    std::string url = "redis://localhost:6379";
    std::string prefix = "codomyrmex:";
    std::string pattern = "*";
    std::string name{};
    std::string kind = "lock";
    std::optional<std::string> token{};
    bool json = false;
    bool yes = false;
    double interval = 1;
    std::optional<unsigned> count{};
    double seconds = 1;
};

PrimitiveKind kind_of(std::string_view name) {
    for (const PrimitiveKind kind :
         {PrimitiveKind::semaphore, PrimitiveKind::read_write, PrimitiveKind::quorum}) {
        if (to_string(kind) == name) return kind;
    }
    return PrimitiveKind::lock;
}

int show_list(RedisClient& client, const Arguments& arguments) {
    const auto entries = client.list(arguments.pattern);
    if (arguments.json) {
        std::cout << lockctl::to_json(entries) << '\n';
    } else {
        lockctl::print(std::cout, entries, lockctl::Style::of(STDOUT_FILENO));
    }
    return done;
}

int show_holders(RedisClient& client, const Arguments& arguments) {
    const auto holders = client.holders(arguments.name, kind_of(arguments.kind));
    if (arguments.json) {
        std::cout << lockctl::to_json(holders) << '\n';
    } else {
        lockctl::print(std::cout, holders, lockctl::Style::of(STDOUT_FILENO));
    }
    if (!holders.empty()) return done;
    std::cerr << "lockctl: nobody holds '" << lockctl::shown(arguments.name) << "'\n";
    return not_there;
}

int show_waiters(RedisClient& client, const Arguments& arguments) {
    const auto waiters = client.waiters(arguments.name, kind_of(arguments.kind));
    if (arguments.json) {
        std::cout << lockctl::to_json(waiters) << '\n';
    } else {
        lockctl::print(std::cout, waiters, lockctl::Style::of(STDOUT_FILENO));
    }
    return done;
}

bool confirmed() {
    std::cerr << "Release it? The holder is told, but may go on until it notices. [y/N] "
              << std::flush;
    std::string answer;
    std::getline(std::cin, answer);
    return answer == "y" || answer == "Y" || answer == "yes";
}

int release(RedisClient& client, const Arguments& arguments) {
    const auto tell = [&](bool released, const char* why) {
        if (arguments.json) {
            std::cout << (released ? "{\"released\":true}\n" : "{\"released\":false}\n");
        }
        std::cerr << "lockctl: '" << lockctl::shown(arguments.name) << "' " << why << '\n';
        return released ? done : not_there;
    };
    auto holders = client.holders(arguments.name, kind_of(arguments.kind));
    if (holders.empty()) return tell(false, "is not held");
    if (arguments.token) {
        std::erase_if(holders, [&](const Holder& each) { return each.token != *arguments.token; });
        if (holders.empty()) return tell(false, "is not held under that token");
    } else if (holders.size() > 1) {
        lockctl::print(std::cerr, holders, lockctl::Style::of(STDERR_FILENO));
        std::cerr << "lockctl: these hold '" << lockctl::shown(arguments.name)
                  << "'; say which one with --token\n";
        return usage;
    }
    const Holder& holder = holders.front();
    if (!arguments.yes) {
        if (::isatty(STDIN_FILENO) == 0) {
            std::cerr << "lockctl: nobody can be asked here; say --yes to release it\n";
            return usage;
        }
        lockctl::print(std::cerr, holders, lockctl::Style::of(STDERR_FILENO));
        if (!confirmed()) return tell(false, "was left alone");
    }
    if (client.force_release(arguments.name, holder)) return tell(true, "was released");
    return tell(false, "was left alone: that holder has it no longer");
}

}  // namespace

int main(int argc, char** argv) try {
    Arguments arguments;
    CLI::App app{"Looks at the locks on a Redis server, and takes them away."};
    app.require_subcommand(1);
    app.fallthrough();
    app.add_option("--redis", arguments.url, "the server, as redis://host:port or unix:///path")
        ->envname("CODOMYRMEX_REDIS_URL")
        ->type_name("URL")
        ->capture_default_str();
    app.add_option("--prefix", arguments.prefix, "what the keys begin with")->capture_default_str();
    app.add_flag("--json", arguments.json, "output for programs: a JSON value a line");
    app.footer(
        "PATTERN: * any bytes, ? one, [a-z] a set, \\x the byte x itself.\n"
        "Exit status: 0 done; 1 nobody holds it, or it was not released; 64 wrong usage;\n"
        "  69 no answer from Redis. NO_COLOR turns colours off.");

    const auto command = [&](const char* name, const char* what) {
        return app.add_subcommand(name, what);
    };
    const auto add_name = [&](CLI::App* to) {
        to->add_option("NAME", arguments.name, "of the lock")->required();
    };
    const auto add_kind = [&](CLI::App* to, const std::vector<std::string>& kinds) {
        to->add_option("--kind", arguments.kind, "what it is")
            ->check(CLI::IsMember(kinds))
            ->capture_default_str();
    };
    const std::vector<std::string> of_one_server{"lock", "semaphore", "read_write"};
    const std::vector<std::string> all_kinds{"lock", "semaphore", "read_write", "quorum"};
    CLI::App* const ls = command("ls", "what is held");
    ls->add_option("PATTERN", arguments.pattern, "of names")->capture_default_str();
    CLI::App* const who = command("who", "all who hold it");
    add_name(who);
    add_kind(who, all_kinds);
    CLI::App* const waiters = command("waiters", "who waits, in the order of service");
    add_name(waiters);
    add_kind(waiters, all_kinds);
    CLI::App* const free = command("release", "takes it from its holder, after a question");
    add_name(free);
    add_kind(free, of_one_server);
    free->add_option("--token", arguments.token, "of the holder, as who shows it")
        ->type_name("TOKEN");
    free->add_flag("--yes,-y", arguments.yes, "do not ask");
    CLI::App* const top = command("top", "what is held, again and again; q ends it");
    top->add_option("PATTERN", arguments.pattern, "of names")->capture_default_str();
    top->add_option("--interval", arguments.interval, "seconds from one look to the next")
        ->check(CLI::Range(0.05, 3600.0))
        ->capture_default_str();
    top->add_option("--count", arguments.count,
                    "how many looks; without a terminal 1 if not given");
    CLI::App* const bench = command("bench", "measures locks on this server");
    bench->add_option("--seconds", arguments.seconds, "for each measurement")
        ->check(CLI::Range(0.05, 3600.0))
        ->capture_default_str();
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? done : usage;
    }

    RedisClient client{arguments.url, {.prefix = arguments.prefix, .client_name = "lockctl"}};
    if (ls->parsed()) return show_list(client, arguments);
    if (who->parsed()) return show_holders(client, arguments);
    if (waiters->parsed()) return show_waiters(client, arguments);
    if (free->parsed()) return release(client, arguments);
    if (top->parsed()) {
        lockctl::run_top(client, {.pattern = arguments.pattern,
                                  .interval = std::chrono::duration<double>{arguments.interval},
                                  .count = arguments.count,
                                  .json = arguments.json});
        return done;
    }
    lockctl::run_bench(arguments.url, client.options(),
                       std::chrono::duration<double>{arguments.seconds}, arguments.json);
    return done;
} catch (const LockError& error) {
    std::cerr << "lockctl: " << lockctl::shown(error.what()) << '\n';
    const bool wrong =
        error.code() == LockErrc::invalid_argument || error.code() == LockErrc::unsupported;
    return wrong ? usage : unavailable;
} catch (const std::exception& error) {
    std::cerr << "lockctl: " << error.what() << '\n';
    return unavailable;
}
