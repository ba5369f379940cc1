#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh lockctl_test.sh LOCKCTL: what the tool promises, on the server that CODOMYRMEX_REDIS_URL names
# (a unix socket: redis-cli, or valkey-cli, is called on it). Prints what it checks; fails at the
# first that is wrong.

set -u
tool=$1
socket=${CODOMYRMEX_REDIS_URL#unix://}
cli=$(command -v redis-cli || command -v valkey-cli)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
token=00112233445566778899aabbccddeeff
line_feed='
'

expect() {
    what=$1 wanted=$2 got=$3
    if [ "$wanted" != "$got" ]; then
        echo "FAILED: $what: wanted '$wanted', got '$got'"
        exit 1
    fi
    echo "ok: $what"
}
status_of() {
    "$@" >"$folder/out" 2>"$folder/err" </dev/null
    echo $?
}
has() { grep -qF -- "$1" "$folder/${2:-out}" && echo yes; }
redis() { "$cli" -s "$socket" "$@" >/dev/null; }
# hold NAME [LABEL]: as a holder that never renews.
hold() { redis SET "codomyrmex:lock:{$1}" "$token-1 host:12:34${2:+ $2} 1700000000" PX 600000; }

expect 'help' 0 "$(status_of "$tool" --help)"
expect 'help tells of the exit status' yes "$(has 'Exit status')"
expect 'no command' 64 "$(status_of "$tool")"
expect 'an unknown command' 64 "$(status_of "$tool" frobnicate)"
expect 'no name' 64 "$(status_of "$tool" who)"
expect 'an unknown kind' 64 "$(status_of "$tool" who a --kind door)"
expect 'a malformed URL' 64 "$(status_of "$tool" --redis nonsense ls)"
expect 'a malformed pattern' 64 "$(status_of "$tool" ls '[')"
expect 'a name that is too long' 64 "$(status_of "$tool" who "$(printf %0600d 1)")"

expect 'nothing is held' 0 "$(status_of "$tool" ls)"
expect 'only the head of the table' 1 "$(wc -l <"$folder/out" | tr -d ' ')"
expect 'nothing is held, in JSON' '[]' "$("$tool" --json ls)"
expect 'nobody holds it' 1 "$(status_of "$tool" who a)"
expect 'that is said' yes "$(has "nobody holds 'a'" err)"
expect 'nobody waits' 0 "$(status_of "$tool" waiters a)"
expect 'what is not held is not released' 1 "$(status_of "$tool" release a --yes)"

hold a 'nightly job'
hold ab
redis ZADD 'codomyrmex:lock:{a}:queue' 1700000000000001 'b0b-1 1000 1 other:5:6 second'
expect 'ls' 0 "$(status_of "$tool" ls)"
expect 'two locks' 3 "$(wc -l <"$folder/out" | tr -d ' ')"
expect 'the holder is shown' yes "$(has 'host:12:34')"
expect 'and its label' yes "$(has 'nightly job')"
expect 'a pattern' 0 "$(status_of "$tool" ls '?')"
expect 'only what matches' 2 "$(wc -l <"$folder/out" | tr -d ' ')"
expect 'no colours in a pipe' '' "$(grep -q "$(printf '\033')" "$folder/out" && echo yes)"
expect 'who' 0 "$(status_of "$tool" who a)"
expect 'the token is shown' yes "$(has "$token-1")"
expect 'since when' yes "$(has '2023-11-14T22:13:20Z')"
expect 'options may follow the command' 0 "$(status_of "$tool" who a --json)"
expect 'JSON of a holder' yes "$(has '"host":"host","pid":12,"thread":34,"label":"nightly job","since":1700000000')"
expect 'JSON of a waiter' '[{"host":"other","pid":5,"thread":6,"label":"second","since_us":1700000000000001,"token":"b0b-1","weight":1}]' \
    "$("$tool" --json waiters a)"
expect 'waiters' 0 "$(status_of "$tool" waiters a)"
expect 'their places' yes "$(has '1      other:5:6  2023-11-14T22:13:20Z  b0b-1  second')"

expect 'another prefix sees nothing' '[]' "$("$tool" --json --prefix other: ls)"
if command -v python3 >/dev/null; then
    for command in ls 'who a' 'waiters a' 'top --count 2 --interval 0.05' 'bench --seconds 0.05'; do
        # shellcheck disable=SC2086  # a command and its arguments
        "$tool" --json $command >"$folder/out"
        expect "all lines of $command are JSON" yes "$(python3 -c '
import json, sys
lines = [json.loads(line) for line in sys.stdin]
print("yes" if lines else "none")' <"$folder/out")"
    done
fi

hold "c$(printf '\033')[31m${line_feed}d" "$(printf '\007')"
expect 'names with control characters' 0 "$(status_of "$tool" ls 'c*')"
expect 'are shown escaped' yes "$(has 'c\x1b[31m\nd')"
expect 'and so are labels' yes "$(has '\x07')"
expect 'in JSON, too' yes "$("$tool" --json ls 'c*' | grep -qF '"name":"c\u001b[31m\nd"' && echo yes ||
    "$tool" --json ls 'c*' | grep -qF '"name":"c\u001b[31m\u000ad"' && echo yes)"
expect 'a cry for it in an error is escaped' 1 "$(status_of "$tool" who "$(printf 'x\033')")"
expect 'as in a table' yes "$(has 'x\x1b' err)"
redis SET 'codomyrmex:lock:{foreign}' nonsense
expect 'what is not ours is shown as such' 0 "$(status_of "$tool" ls foreign)"
expect 'in a word' yes "$(has '(not ours)')"
expect 'and asking who holds it is an error' 69 "$(status_of "$tool" who foreign)"

expect 'release asks, and so needs a terminal' 64 "$(status_of "$tool" release a)"
expect 'it says how to do without' yes "$(has '--yes' err)"
expect 'it is still held' 0 "$(status_of "$tool" who a)"
expect 'release --yes' 0 "$(status_of "$tool" release a --yes)"
expect 'it is held no more' 1 "$(status_of "$tool" who a)"
expect 'release in JSON' '{"released":true}' "$("$tool" --json release ab --yes 2>/dev/null)"
expect 'release twice' '{"released":false}' "$("$tool" --json release ab --yes 2>/dev/null)"
hold ac
expect 'a token that does not hold it' 1 "$(status_of "$tool" release ac --token b0b-1 --yes)"
expect 'is said not to' yes "$(has 'is not held under that token' err)"
expect 'and the one that does, does' 0 "$(status_of "$tool" release ac --token "$token-1" --yes)"

for kind in semaphore read_write; do
    case $kind in semaphore) key='codomyrmex:sem:{pool}' ;; *) key='codomyrmex:rw:{pool}' ;; esac
    redis ZADD "$key" 4000000000000001 "$token-1" 4000000000000002 "$token-2"
    redis PEXPIRE "$key" 600000
    redis HSET "$key:meta" capacity 5 used 3 "$token-1" '2 host:12:34 first 1700000000' \
        "$token-2" '1 host:12:35 second 1700000000'
    expect "a lock of the name of a $kind" 1 "$(status_of "$tool" release pool --yes)"
    expect 'of several holders none is released unasked' 64 \
        "$(status_of "$tool" release pool --kind $kind --yes)"
    expect 'all are shown' 'first second' "$(sed -n 's/^label  *//p' "$folder/err" | tr '\n' ' ' | sed 's/ $//')"
    expect 'with their tokens' 2 "$(grep -c "^token  *$token-[12]\$" "$folder/err")"
    expect 'and how to say which' yes "$(has '--token' err)"
    expect 'nobody can be asked, with a token either' 64 \
        "$(status_of "$tool" release pool --kind $kind --token "$token-2")"
    expect 'nobody was released' 2 "$("$tool" who pool --kind $kind | grep -c '^holder')"
    expect 'a token that is none of theirs' 1 \
        "$(status_of "$tool" release pool --kind $kind --token "$token-3" --yes)"
    expect 'one of them' '{"released":true}' \
        "$("$tool" --json release pool --kind $kind --token "$token-2" --yes 2>/dev/null)"
    expect 'the other holds on' "token   $token-1" "$("$tool" who pool --kind $kind | grep '^token')"
    expect 'the same again' '{"released":false}' \
        "$("$tool" --json release pool --kind $kind --token "$token-2" --yes 2>/dev/null)"
    expect 'the last needs no token' 0 "$(status_of "$tool" release pool --kind $kind --yes)"
    expect 'nobody is left' 1 "$(status_of "$tool" who pool --kind $kind)"
    expect 'and nothing to release' 1 "$(status_of "$tool" release pool --kind $kind --yes)"
done
expect 'a quorum is not on one server' 64 "$(status_of "$tool" release a --kind quorum --yes)"

hold a
expect 'top without a terminal looks once' 0 "$(status_of "$tool" top)"
expect 'and shows what is held' yes "$(has 'held, 0 waiting')"
expect 'without a screen' '' "$(grep -q "$(printf '\033')" "$folder/out" && echo yes)"
expect 'top so many times' 0 "$(status_of "$tool" top --count 3 --interval 0.05)"
expect 'looks so often' 3 "$(grep -c 'held, 0 waiting' "$folder/out")"
expect 'and tells of hand-overs from the second on' 2 "$(grep -c '0.0 hand-overs a second' "$folder/out")"

expect 'bench' 0 "$(status_of "$tool" bench --seconds 0.05)"
expect 'measures hand-overs' yes "$(has 'contended by another')"
expect 'no server' 69 "$(status_of "$tool" --redis 'unix:///no/such.sock?patience=50ms' ls)"

# On a terminal: script(1) of util-linux makes one.
if script -qec true /dev/null >/dev/null 2>&1; then
    on_terminal() { script -qec "$1" /dev/null; }
    yes | head -n 1 | on_terminal "'$tool' release a" >"$folder/out" 2>&1
    expect 'on a terminal, release shows the holder' yes "$(has 'host:12:34')"
    expect 'asks' yes "$(has '[y/N]')"
    expect 'and does it after a yes' 1 "$(status_of "$tool" who a)"
    hold a
    echo n | on_terminal "'$tool' release a" >"$folder/out" 2>&1
    expect 'and not after a no' 0 "$(status_of "$tool" who a)"

    (sleep 0.5; printf q) | on_terminal "'$tool' top --interval 0.1; echo ended \$?; stty -a" >"$folder/out"
    expect 'q ends top' yes "$(has 'ended 0')"
    expect 'which took the screen' yes "$(has "$(printf '\033[?1049h')")"
    expect 'and gave it back' yes "$(has "$(printf '\033[?1049l')")"
    expect 'with its cursor' yes "$(has "$(printf '\033[?25h')")"
    expect 'and its echo' yes "$(grep -E '(^| )echo( |;|$)' "$folder/out" >/dev/null && echo yes)"
    expect 'in colour' yes "$(has "$(printf '\033[1m')")"
    (sleep 0.5; printf '\003') | on_terminal "trap : INT; '$tool' top --interval 0.1; echo ended \$?" >"$folder/out"
    expect 'ctrl-C ends top as well' yes "$(has 'ended 0')"
    on_terminal "NO_COLOR=1 '$tool' ls" >"$folder/out" </dev/null
    expect 'NO_COLOR is respected' '' "$(has "$(printf '\033[1m')")"
    expect 'and the table is there' yes "$(has 'HOLDER')"
fi
