#!/usr/bin/env bash
# The short form of the soak: nothing grows by a few rounds of everything at once.
set -eu
cd "$(dirname "$0")/../.."
# It is dear, and the driver under which servers may be killed has more that could grow.
if [ -z "${FULL-}" ] && [[ $(cat /sys/module/ublk_drv/version 2>/dev/null) != *-ublkzc ]]; then
    echo "  skipped: with the stock driver only in tests/full (FULL=1)"
    exit 0
fi
samples=$(mktemp)
trap 'rm -f "$samples"' EXIT
./soak --minutes 1 >"$samples" || {
    cat "$samples"
    exit 1
}
