#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh with_redis.sh COMMAND...: runs the command with CODOMYRMEX_REDIS_URL naming a redis-server of
# its own, on a unix socket in a temporary folder; both are gone afterwards. Exit status: the
# command's.

set -eu

server=$(command -v redis-server || command -v valkey-server) || {
    echo "no redis-server" >&2
    exit 1
}
folder=$(mktemp -d)
pid=
finish() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    [ -z "$pid" ] || wait "$pid" 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$server" --port 0 --unixsocket "$folder/redis.sock" --dir "$folder" --save '' --appendonly no \
    >"$folder/log" 2>&1 &
pid=$!
until [ -S "$folder/redis.sock" ]; do
    kill -0 "$pid" 2>/dev/null || {
        cat "$folder/log" >&2
        exit 1
    }
    sleep 0.05
done

CODOMYRMEX_REDIS_URL=unix://$folder/redis.sock
export CODOMYRMEX_REDIS_URL
status=0
"$@" || status=$?
exit $status
