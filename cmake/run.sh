#!/bin/sh
# SPDX-License-Identifier: MIT
#
# One command from a fresh machine to a running program: installs what is missing with the system's
# package manager, builds into build/, runs. See `sh cmake/run.sh help`.

set -eu

usage() {
    cat <<'END'
usage: sh cmake/run.sh COMMAND [ARGUMENTS]

  demo [--redis URL]    build and run the demo: local and distributed locks at work
  test [CTEST-OPTION]   build and run the test suite, except what is labelled slow
  bench [NAME [OPTION]...]
                        build and run the benchmarks, or those whose names begin so, with their
                        options: local_benchmark, local_peers_benchmark, redis_benchmark,
                        redis_hand_over_benchmark, redis_idle_benchmark, redis_threads_benchmark;
                        `taskset -c 0` before sh keeps them on one processor, where a round trip
                        to the server is short and figures repeat
  faults [OPTION]       build and run the fault run: processes fight over locks while faults
                        strike, and every record is checked; --minutes N, --seed S, --help
  mutants               build broken copies of the library and show what the fault run finds
  help                  this

Needs cmake, a C++20 compiler, ninja or make, hiredis and redis-server; for the tests also Catch2,
CLI11, pkg-config and SQLite. What is missing is installed with apt, dnf, apk, pacman or brew, as
root or with sudo. No service is started. Everything built goes into build/.

  CXX                     the compiler, as for any CMake build; c++ if not set
  CODOMYRMEX_REDIS_URL    a Redis server for the demo; without one it starts its own and ends it
  NO_COLOR                no colours
END
}

root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build
log=$build/run.log

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$(printf '\033[1m') red=$(printf '\033[31m') plain=$(printf '\033[0m')
else
    bold='' red='' plain=''
fi

say() { printf '%s==>%s %s\n' "$bold" "$plain" "$*"; }
die() {
    printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command with its output in the log, which is shown only if the command fails.
quietly() {
    if ! "$@" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        die "this failed: $* (all of its output is in $log)"
    fi
}

# --- What is missing -----------------------------------------------------------------------------

have_header() {
    for folder in /usr/include /usr/local/include /opt/homebrew/include /opt/local/include; do
        [ -e "$folder/$1" ] && return 0
    done
    return 1
}

there() {
    case $1 in
        cmake) have cmake ;;
        compiler) have "${CXX:-c++}" ;;
        ninja) have ninja || have make ;;
        pkg-config) have pkg-config || have pkgconf ;;
        redis) have redis-server || have valkey-server ;;
        hiredis) have_header hiredis/hiredis.h ;;
        catch2) have_header catch2/catch_test_macros.hpp || have_header catch2/catch.hpp ;;
        cli11) have_header CLI/CLI.hpp ;;
        # An SDK of macOS brings its own; where there is none, one example is left out.
        sqlite) [ "$(uname)" = Darwin ] || have_header sqlite3.h ;;
        benchmark) have_header benchmark/benchmark.h ;;
    esac
}

package_manager() {
    for manager in apt-get dnf apk pacman brew; do
        if have $manager; then
            echo $manager
            return
        fi
    done
}

# What the package manager $1 calls $2.
package_of() {
    case $1:$2 in
        apt-get:compiler) echo g++ ;;
        apt-get:ninja) echo ninja-build ;;
        apt-get:redis) echo redis-server ;;
        apt-get:hiredis) echo libhiredis-dev ;;
        apt-get:cli11) echo libcli11-dev ;;
        apt-get:sqlite) echo libsqlite3-dev ;;
        apt-get:benchmark) echo libbenchmark-dev ;;
        dnf:compiler) echo gcc-c++ ;;
        dnf:ninja) echo ninja-build ;;
        dnf:pkg-config) echo pkgconf-pkg-config ;;
        dnf:hiredis) echo hiredis-devel ;;
        dnf:catch2) echo catch-devel ;;
        dnf:cli11) echo cli11-devel ;;
        dnf:sqlite) echo sqlite-devel ;;
        dnf:benchmark) echo google-benchmark-devel ;;
        apk:compiler) echo g++ ;;
        apk:ninja) echo samurai ;;
        apk:pkg-config) echo pkgconf ;;
        apk:hiredis) echo hiredis-dev ;;
        apk:catch2) echo catch2-3 ;;
        apk:sqlite) echo sqlite-dev ;;
        apk:benchmark) echo benchmark-dev ;;
        pacman:compiler) echo gcc ;;
        pacman:pkg-config) echo pkgconf ;;
        pacman:redis) echo valkey ;;
        brew:compiler) echo llvm ;;
        brew:benchmark) echo google-benchmark ;;
        *) echo "$2" ;;
    esac
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this must be run as root, and there is no sudo: $*"
    fi
}

# Debian starts a service when it installs it. The server is for our tests, which start their own:
# where systemd runs, keep the service from starting now, and disabled afterwards.
apt_install() {
    mask=
    case " $* " in
        *" redis-server "*) [ -d /run/systemd/system ] && mask=redis-server.service ;;
    esac
    [ -z "$mask" ] || quietly as_root systemctl mask --runtime $mask
    quietly as_root apt-get update
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
    [ -z "$mask" ] || quietly as_root systemctl unmask --runtime $mask
    [ -z "$mask" ] || quietly as_root systemctl disable $mask
}

need() {
    manager=$(package_manager)
    missing=
    packages=
    for thing in "$@"; do
        if ! there "$thing"; then
            missing="$missing $thing"
            packages="$packages $(package_of "$manager" "$thing")"
        fi
    done
    [ -n "$missing" ] || return 0
    [ -n "$manager" ] || die "please install:$missing (no package manager that this script knows)"

    say "Installing with $manager:$packages"
    # shellcheck disable=SC2086  # one word for each package
    case $manager in
        apt-get) apt_install $packages ;;
        dnf) quietly as_root dnf install -y $packages ;;
        apk) quietly as_root apk add $packages ;;
        pacman) quietly as_root pacman -Sy --needed --noconfirm $packages ;;
        brew) quietly brew install $packages ;;
    esac
    for thing in $missing; do
        there "$thing" || die "$thing is still missing after the installation"
    done
}

# --- Build ---------------------------------------------------------------------------------------

processors() { getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2; }

# configure OPTION...
configure() {
    generator=
    if [ ! -e "$build/CMakeCache.txt" ] && have ninja; then
        generator='-G Ninja'
    fi
    # A compiler newer than ours may warn of more; that should stop us (.ci/run), not a user.
    # shellcheck disable=SC2086  # two words, or none
    quietly cmake -S "$root" -B "$build" $generator -DCMAKE_BUILD_TYPE=Release \
        -DCODOMYRMEX_CONCURRENCY_WERROR="${CODOMYRMEX_CONCURRENCY_WERROR:-OFF}" "$@"
}

# compile TARGET
compile() {
    start=$(date +%s)
    if [ -t 1 ]; then
        cmake --build "$build" --target "$1" --parallel "$(processors)"
    else
        quietly cmake --build "$build" --target "$1" --parallel "$(processors)"
    fi
    say "Built in $(($(date +%s) - start)) s"
}

# --- Commands ------------------------------------------------------------------------------------

command=${1:-help}
[ $# -eq 0 ] || shift
mkdir -p "$build"

case $command in
    demo)
        need cmake compiler ninja hiredis redis cli11
        say "Building the demo"
        configure -DCODOMYRMEX_CONCURRENCY_TESTS=OFF -DCODOMYRMEX_CONCURRENCY_EXAMPLES=ON
        compile demo
        exec "$build/examples/demo" "$@"
        ;;
    test)
        need cmake compiler ninja pkg-config hiredis redis catch2 cli11 sqlite
        say "Building the tests (some minutes, the first time)"
        configure -DCODOMYRMEX_CONCURRENCY_TESTS=ON -DCODOMYRMEX_CONCURRENCY_EXAMPLES=ON \
            -DCODOMYRMEX_CONCURRENCY_MUTANTS=OFF
        compile all
        cd "$build"
        exec ctest -j"$(processors)" --output-on-failure --no-tests=error --no-label-summary \
            -LE '^slow$' "$@"
        ;;
    bench)
        need cmake compiler ninja hiredis redis benchmark
        say "Building the benchmarks"
        configure -DCODOMYRMEX_CONCURRENCY_TESTS=OFF -DCODOMYRMEX_CONCURRENCY_BENCHMARKS=ON
        compile benchmarks
        name=${1:-}
        [ $# -eq 0 ] || shift
        ran=0
        for benchmark in "$build"/tests/benchmarks/bin/"$name"*; do
            [ -x "$benchmark" ] || continue
            say "$(basename "$benchmark")"
            "$benchmark" "$@"
            ran=1
        done
        [ $ran -eq 1 ] || die "no such benchmark: ${name:-any}"
        ;;
    faults)
        need cmake compiler ninja pkg-config hiredis redis catch2 cli11
        say "Building the fault run"
        configure -DCODOMYRMEX_CONCURRENCY_TESTS=ON
        compile faults_run
        exec "$build/tests/faults/faults_run" "$@"
        ;;
    mutants)
        need cmake compiler ninja pkg-config hiredis redis catch2 cli11
        say "Building the mutants (some minutes, the first time)"
        configure -DCODOMYRMEX_CONCURRENCY_TESTS=ON -DCODOMYRMEX_CONCURRENCY_MUTANTS=ON
        compile mutants
        missed=0
        for mutant in "$build"/tests/faults/mutants/bin/mutant_*; do
            printf '%s: ' "${mutant##*/mutant_}"
            "$build/tests/faults/faults_run" --worker "$mutant" --expect-violation --quiet \
                --minutes 2 --arenas scenarios,people,network --out "$build" || missed=1
        done
        [ $missed -eq 0 ] || die "a mutant was not caught"
        ;;
    help | -h | --help) usage ;;
    *)
        usage >&2
        die "unknown command: $command"
        ;;
esac
