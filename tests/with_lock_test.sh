#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh with_lock_test.sh WITH_LOCK: what the tool promises, on the server that CODOMYRMEX_REDIS_URL
# names (a unix socket: redis-cli, or valkey-cli, is called on it). Prints what it checks; fails at the first that
# is wrong.

set -u
tool=$1
socket=${CODOMYRMEX_REDIS_URL#unix://}
cli=$(command -v redis-cli || command -v valkey-cli)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

expect() {
    what=$1 wanted=$2 got=$3
    if [ "$wanted" != "$got" ]; then
        echo "FAILED: $what: wanted '$wanted', got '$got'"
        exit 1
    fi
    echo "ok: $what"
}
status_of() {
    "$@" >"$folder/out" 2>"$folder/err"
    echo $?
}
await_file() {
    tries=0
    until [ -e "$1" ]; do
        tries=$((tries + 1))
        [ $tries -lt 500 ] || { echo "FAILED: $1 did not appear"; exit 1; }
        sleep 0.02
    done
}

expect 'exit status of the command' 7 "$(status_of "$tool" a -- sh -c 'exit 7')"
expect 'a command that a signal ended' 137 "$(status_of "$tool" a -- sh -c 'kill -9 $$')"
expect 'no such command' 127 "$(status_of "$tool" a -- /no/such/command)"
expect 'a command that is none' 126 "$(status_of "$tool" a -- /etc)"
cp /bin/true "$folder/not_executable" && chmod a-x "$folder/not_executable"
expect 'a command that may not run' 126 "$(status_of "$tool" a -- "$folder/not_executable")"
expect 'a script without a first line' 5 "$(
    echo 'exit 5' >"$folder/script" && chmod a+x "$folder/script" && status_of "$tool" a -- "$folder/script"
)"
expect 'help' 0 "$(status_of "$tool" --help)"
expect 'help tells of the exit status' yes "$(grep -q 'Exit status' "$folder/out" && echo yes)"
expect 'a URL that needs TLS' 64 "$(status_of "$tool" --redis rediss://localhost a -- true)"
expect 'no name' 64 "$(status_of "$tool")"
expect 'a malformed time' 64 "$(status_of "$tool" --ttl soon a -- true)"
expect 'a ttl out of bounds' 64 "$(status_of "$tool" --ttl 1ms a -- true)"
expect 'a malformed URL' 64 "$(status_of "$tool" --redis nonsense a -- true)"
expect 'no server' 69 "$(status_of "$tool" --redis unix:///no/such.sock --wait 100ms a -- true)"
expect 'standard input reaches the command' hello "$(echo hello | "$tool" a -- cat)"
expect 'released afterwards' 0 "$("$cli" -s "$socket" EXISTS 'codomyrmex:lock:{a}')"

first=$("$tool" a -- sh -c 'echo "$CODOMYRMEX_FENCE"')
second=$("$tool" a -- sh -c 'echo "$CODOMYRMEX_FENCE"')
expect 'the fencing token increases' yes "$([ "$second" -gt "$first" ] && echo yes)"

mkfifo "$folder/go"
"$tool" b -- sh -c ": >'$folder/inside'; read line <'$folder/go'" &
holder=$!
await_file "$folder/inside"
expect 'held by another' 75 "$(status_of "$tool" --wait 50ms b -- true)"
"$tool" --wait 1m b -- true &
waiter=$!
sleep 0.5
kill -TERM $waiter
wait $waiter
expect 'a signal while it waits ends it' 143 $?
echo >"$folder/go"
wait $holder
expect 'the holder ended well' 0 $?

"$tool" c -- sh -c "trap 'exit 9' TERM; : >'$folder/c'; while :; do sleep 0.02; done" &
holder=$!
await_file "$folder/c"
kill -TERM $holder
wait $holder
expect 'signals are handed on' 9 $?

"$tool" --ttl 1s k -- sh -c "trap ': >$folder/orphan; exit' TERM; : >'$folder/k'; while :; do sleep 0.02; done" &
holder=$!
await_file "$folder/k"
kill -KILL $holder
wait $holder 2>/dev/null
if [ "$(uname)" = Linux ]; then
    await_file "$folder/orphan"
    echo 'ok: the command does not outlive with_lock unasked'
fi

"$tool" --ttl 1s d -- sh -c "trap ': >$folder/asked; exit 0' TERM; : >'$folder/d'; while :; do sleep 0.02; done" \
    2>"$folder/err" &
holder=$!
await_file "$folder/d"
"$cli" -s "$socket" DEL 'codomyrmex:lock:{d}' >/dev/null
wait $holder
expect 'a lost lock' 76 $?
expect 'the command was asked to end' yes "$([ -e "$folder/asked" ] && echo yes)"

"$tool" --ttl 1s --grace 100ms e -- sh -c "trap '' TERM; : >'$folder/e'; while :; do sleep 0.02; done" \
    2>"$folder/err" &
holder=$!
await_file "$folder/e"
"$cli" -s "$socket" DEL 'codomyrmex:lock:{e}' >/dev/null
wait $holder
expect 'a command that does not end is killed' 76 $?
