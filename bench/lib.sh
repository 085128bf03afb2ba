# shellcheck shell=bash
# bench/lib.sh - measuring one fio run on a ublkzc device, with or without the shim.
#
# Sourced by bench/inside and by quickstart's inner script.  Needs jq and fio, runs
# as root on a kernel with ublk.  Set BUILD (build directory) before sourcing.

UBLKZC=$BUILD/server/ublkzc
SHIM=$BUILD/preload/libublkzc.so

# device_add ARGUMENTS...: start a server; sets DEVICE (/dev/ublkbN) and DEVICE_ID.
# The device goes away when the script ends.
device_add() {
    DEVICE=$("$UBLKZC" add "$@") || {
        echo "could not start a server: ublkzc add $*" >&2
        return 1
    }
    DEVICE_ID=${DEVICE#/dev/ublkb}
    trap '"$UBLKZC" del -n "$DEVICE_ID" >/dev/null 2>&1 || :' EXIT
}

# server_counts: "requests zero-copy, bytes zero-copy, requests, bytes" so far.
server_counts() {
    "$UBLKZC" stat -n "$DEVICE_ID" --json | jq -r '
        [.read, .write] as $rw
        | ($rw | map(.zero_copy.requests) | add) as $zr
        | ($rw | map(.zero_copy.bytes) | add) as $zb
        | ($rw | map(.copied.requests) | add) as $cr
        | ($rw | map(.copied.bytes) | add) as $cb
        | "\($zr) \($zb) \($zr + $cr) \($zb + $cb)"'
}

# preload_of MODE: what LD_PRELOAD is in that mode.
preload_of() {
    case $1 in
    copy) echo "" ;;
    shim) echo "$SHIM" ;;
    *)
        echo "unknown mode '$1': copy or shim" >&2
        return 1
        ;;
    esac
}

# measure MODE RW BS SECONDS [fio arguments...]: one timed run, after a second that
# does not count (opening the file makes the session and populates the arena).  Prints
# "bytes/s,requests zero-copy,bytes zero-copy,requests,bytes".
measure() {
    local mode=$1 rw=$2 bs=$3 seconds=$4 preload before after json speed
    shift 4
    preload=$(preload_of "$mode")
    before=$(server_counts)
    json=$(LD_PRELOAD=$preload fio --name=bench --filename="$DEVICE" --direct=1 \
        --rw="$rw" --bs="$bs" --ioengine=libaio --iodepth=8 \
        --time_based --ramp_time=1 --runtime="$seconds" --randrepeat=1 --norandommap \
        --output-format=json "$@")
    after=$(server_counts)
    speed=$(jq -r '[.jobs[] | .read.bw_bytes + .write.bw_bytes] | add' <<<"$json")
    read -r b1 b2 b3 b4 <<<"$before"
    read -r a1 a2 a3 a4 <<<"$after"
    echo "$speed,$((a1 - b1)),$((a2 - b2)),$((a3 - b3)),$((a4 - b4))"
}
