# shellcheck shell=bash
# tests/apps/lib.sh - for the entries: WORK, SHIM and TREE are set by tests/apps/run.
set -eu
cd "$WORK"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
skip() {
    echo "$*"
    exit 77
}
need() { command -v "$1" >/dev/null || skip "$1 is not installed"; }

# The ways in which each entry is run; "" is without the shim.
MODES=("" auto all)
under() { # MODE COMMAND...
    local mode=$1
    shift
    if [ -z "$mode" ]; then
        "$@"
    else
        env LD_PRELOAD="$SHIM" UBLKZC_CAPTURE="$mode" "$@"
    fi
}

# same COMMAND...: output and status are the same in all modes
same() {
    local mode status reference=
    for mode in "${MODES[@]}"; do
        status=0
        under "$mode" "$@" >"out.$mode" 2>&1 </dev/null || status=$?
        echo "status $status" >>"out.$mode"
        if [ -z "$mode" ]; then
            reference=out.
        else
            diff "$reference" "out.$mode" || fail "mode $mode: $*"
        fi
    done
}
