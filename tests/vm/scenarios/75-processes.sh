#!/usr/bin/env bash
# fork, exec, threads and limits while the shim is armed, in all fork modes; and with no
# server's directory there.
. "$(dirname "$0")/../lib.sh"

start_file 64M
suite() { # ENVIRONMENT..., under all tiers
    env UBLKZC_CAPTURE=all LD_PRELOAD="$SHIM" "$@" "$BUILD/tests/processes/processes" "$DEVICE" \
        >"$SCRATCH/suite" 2>&1 || fail "$*: $(grep -v '^ok' "$SCRATCH/suite")"
}
for mode in copy private auto; do
    measure_share suite UBLKZC_FORK=$mode
    expect_share_at_least 1 "fork mode $mode: $(tail -n 1 "$SCRATCH/suite")"
    wait_for nothing_registered
done
measure_share suite UBLKZC_SOCKET_DIR=/nonexistent UBLKZC_LEGACY_SOCKET_DIR=/nonexistent
expect_no_share "no directory of servers: $(tail -n 1 "$SCRATCH/suite")"
wait_for none_pinned
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
