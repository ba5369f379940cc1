// SPDX-License-Identifier: MIT
//
// The five use cases of the library, one after another on real work: threads on a shared
// structure; processes on a shared file, one of them killed with -9; a rate limit; a read-mostly
// cache; a connection pool. Prints a table and a time line; exits with 1 if a verdict is wrong.
//
// It starts a redis-server of its own and ends it, unless it is given one: demo --redis URL, or
// CODOMYRMEX_REDIS_URL. Without any it says so and shows what local locks can do.

#include <codomyrmex/concurrency.hpp>
#include <codomyrmex/concurrency/redis.hpp>

#include "demo/private_redis.hpp"
#include "demo/processes.hpp"
#include "demo/report.hpp"
#include "demo/threads.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

static int show(const std::string& program, std::string url) {
    std::optional<demo::PrivateRedis> server;
    if (url.empty()) {
        try {
            server.emplace();
            url = server->url();
            std::cout << "Redis: a server of our own, which ends with the demo\n";
        } catch (const std::runtime_error& error) {
            std::cout << "Redis: none (" << error.what()
                      << "); local locks only, unless you give --redis URL\n";
        }
    } else {
        codomyrmex::concurrency::RedisClient client{url};
        client.ping();
        std::cout << "Redis: " << client.endpoint().to_string() << '\n';
    }

    std::vector<demo::History> histories;
    std::vector<demo::Result> results;
    results.push_back(demo::run(1, "threads, one structure", demo::shared_structure));
    results.push_back(demo::run(2, "processes, one file",
                                [&] { return demo::shared_file(program, url, histories); }));
    results.push_back(demo::run(3, "rate limit", demo::rate_limit));
    results.push_back(demo::run(4, "read-mostly cache", demo::read_mostly_cache));
    results.push_back(demo::run(5, "connection pool", [&] { return demo::connection_pool(url); }));

    std::cout << '\n';
    demo::print_table(results);
    if (!histories.empty()) demo::print_time_line(histories);
    const bool wrong = std::ranges::any_of(
        results, [](const demo::Result& each) { return each.verdict == demo::Verdict::wrong; });
    std::cout << (wrong         ? "\nSomething is WRONG.\n"
                  : url.empty() ? "\nAll that ran is as it should be.\n"
                                : "\nAll is as it should be.\n");
    return wrong ? 1 : 0;
}

int main(int argc, char** argv) try {
    CLI::App app{"Shows local and distributed locks at work."};
    std::string url;
    app.add_option("--redis", url, "a Redis server to use, as redis://host:port or unix:///path")
        ->envname("CODOMYRMEX_REDIS_URL");

    demo::Job job;
    CLI::App* const worker = app.add_subcommand("worker", "one of the processes")->group("");
    worker->add_option("--redis", job.url);
    worker->add_option("--file", job.file);
    worker->add_option("--log", job.log);
    worker->add_option("--rounds", job.rounds);
    worker->add_option("--die-in", job.die_in);
    CLI11_PARSE(app, argc, argv);

    if (worker->parsed()) return demo::work(job);
    // A bare name was found on the PATH, and will be again.
    const std::string program{argv[0]};
    const bool bare = program.find('/') == std::string::npos;
    return show(bare ? program : std::filesystem::absolute(program).string(), url);
} catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
}
