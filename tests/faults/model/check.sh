#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Runs Spin over the models of the protocol: what must hold is verified in every state, and each
# variant that breaks a rule must be caught. Says what was searched; fails if a good model fails, if
# a bad variant passes, or if a search was cut short.
#
#   sh check.sh [safety | liveness | broken]      one part; without an argument all of them

set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
part=${1:-all}
wrong=0
optimise=-O2

# search MODEL MACRO...: verdict, states and depth into $verdict, $states, $depth, $violated.
search() {
    model=$1
    shift
    cp "$here/$model.pml" "$work/model.pml"
    (
        cd "$work"
        rm -f pan* model.pml.trail
        spin -a "$@" model.pml >spin.log 2>&1 || { cat spin.log; exit 1; }
        "${CC:-cc}" "$optimise" -w -DSAFETY -DNOCLAIM -DCOLLAPSE -DMEMLIM=1000 -o pan pan.c
        # -E: a process may stop anywhere; that is no deadlock.
        ./pan -m100000 -n -E >pan.log 2>&1 || true
    )
    states=$(sed -nE 's/^ *([0-9.e+]+) states, stored.*/\1/p' "$work/pan.log")
    depth=$(sed -nE 's/.*depth reached ([0-9]+).*/\1/p' "$work/pan.log")
    seconds=$(sed -nE 's/.*elapsed time ([0-9.]+).*/\1/p' "$work/pan.log")
    violated=$(sed -nE 's/.*assertion violated (.*) \(at depth.*/\1/p' "$work/pan.log" | head -n 1)
    if [ -n "$violated" ]; then
        verdict=violated
    elif grep -q 'errors: 0' "$work/pan.log" &&
        ! grep -qE 'Search not completed|max search depth too small|out of memory|reached -DMEMLIM' "$work/pan.log"; then
        verdict=holds
    else
        verdict=unfinished
        cat "$work/pan.log"
    fi
}

# expect VERDICT WHAT MODEL MACRO...
expect() {
    expected=$1
    what=$2
    shift 2
    search "$@"
    note=ok
    if [ "$verdict" != "$expected" ]; then
        note="WRONG, should be: $expected"
        wrong=1
    fi
    printf '%-9s %-58s %9s states, depth %-6s %6s s  %s\n' \
        "$verdict" "$what" "$states" "$depth" "$seconds" "$note"
}

small='-DRETRIES=0 -DRENEWALS=0 -DLOST_REPLIES=0'
one="$small -DATTEMPTS=1 -DHORIZON=4"

# shellcheck disable=SC2086  # several words each
if [ "$part" = safety ] || [ "$part" = all ]; then
    echo 'Safety: exclusion, fences and the order of writes, in every interleaving'
    expect holds 'two clients, a retry' lease $small -DRETRIES=1
    expect holds 'two clients, a renewal and a lost reply' lease -DRETRIES=0 -DHORIZON=4
    expect holds 'two clients, a retry and a lost reply, less time' lease -DRENEWALS=0 -DHORIZON=3
    expect holds 'three clients' lease $one -DN=3 -DHORIZON=3
    expect holds 'two clients and a fenced store' lease $small -DWRITES -DATTEMPTS=1
    expect holds 'a retained lease and a fenced store' lease $small -DWRITES -DATTEMPTS=1 -DRETAIN
    expect holds 'a failover that forgets, and a fenced store' lease $one -DWRITES -DFAILOVER
fi

# shellcheck disable=SC2086
if [ "$part" = liveness ] || [ "$part" = all ]; then
    echo 'Liveness: how long a live waiter waits beside a lock that no live client holds'
    expect holds 'whoever dies, twice: TTL + 4 grant TTLs' handover
    expect holds 'no faults: served at once' handover -DWAITERS -DFAULTS=0 -DN=4
    expect holds 'waiters die, twice: 2 grant TTLs each' handover -DWAITERS
    expect holds 'a waiter dies, of a longer queue: 3 grant TTLs' handover -DWAITERS -DFAULTS=1 -DN=4
fi

# shellcheck disable=SC2086
if [ "$part" = broken ] || [ "$part" = all ]; then
    echo 'Broken: each of these must be caught'
    optimise=-O0  # Found in a moment; compiling takes longest.
    expect violated 'no fence at the store' lease $one -DWRITES -DNO_FENCE
    expect violated 'fences from a counter, and a failover' lease $one -DWRITES -DFAILOVER -DCOUNTER
    expect violated 'a failover before the clock is past the last fence' lease $one -DWRITES -DFAILOVER -DAT_ONCE
    expect violated 'exclusion across a failover' lease $one -DFAILOVER -DUNFENCED
    expect violated "a grant's validity from its receipt" lease -DFROM_RECEIPT
    expect violated "a lease's validity from the reply" lease -DFROM_REPLY
    expect violated 'a repeated acquire gets the old token and time' lease -DOLD_TTL
    expect violated 'a release frees the lock of another' lease -DPLAIN_DELETE
    expect violated 'a retained lease used past its deadline' lease $small -DRETAIN_UNCHECKED
    expect violated 'a retained lease under its old fence' lease $small -DWRITES -DRETAIN_SAME_FENCE
    expect violated 'a waiter that does not ask again' handover -DNO_RETRY
    expect violated 'a grant with the full time to live' handover -DFULL_GRANT -DWAITERS -DFAULTS=1
    expect violated 'a release that tells nobody' handover -DNO_PASSING -DWAITERS -DFAULTS=0
    expect violated "a waiter that sleeps as long as a lease may last" handover -DSLEEP_OUT -DWAITERS -DFAULTS=1
    expect violated 'one grant TTL for each waiter that dies' handover -DPROMISED -DWAITERS -DFAULTS=1
fi

if [ $wrong -ne 0 ]; then
    echo 'Some of the verdicts are wrong.'
    exit 1
fi
echo 'All as it must be.'
