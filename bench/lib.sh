# shellcheck shell=bash
# bench/lib.sh - measuring one fio run on a ublkzc device, with or without the shim.
#
# Sourced by bench/inside and by quickstart's inner script.  Needs jq and fio, runs
# as root on a kernel with ublk.  Set BUILD (build directory) before sourcing.

UBLKZC=$BUILD/server/ublkzc
SHIM=$BUILD/preload/libublkzc.so

# What is measured is not how long a server may take: emulated machines are slow, and the clock of
# one whose clock counts instructions leaps whenever it waits for its host.
export UBLKZC_CONNECT_MS=5000

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
server_counts() { server_stat | counts_of; }
server_stat() { "$UBLKZC" stat "$DEVICE_ID" --json | jq '.devices[0]'; }
counts_of() {
    jq -r '
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

# when_warm BYTES FILE: the counts of the first of the samples in FILE ("MICROSECONDS JSON" a
# line) that is a second after the first one with I/O beyond BYTES; else of that one.
when_warm() {
    local time json counts bytes first='' found=''
    while read -r time json; do
        [ -z "$first" ] || [ $((time - first)) -ge 1000000 ] || continue
        counts=$(counts_of <<<"$json")
        read -r _ _ _ bytes <<<"$counts"
        [ "$bytes" -gt "$1" ] || continue
        found=$counts
        [ -z "$first" ] || break
        first=$time
    done <"$2"
    echo "$found"
}

# measure MODE RW BS SECONDS [fio arguments...]: one timed run, after a second that does not
# count, for neither speed nor shares: opening the file makes the session, and what is read
# and written before the server has registered the memory is copied.  Prints
# "bytes/s,requests zero-copy,bytes zero-copy,requests,bytes".
measure() {
    local mode=$1 rw=$2 bs=$3 seconds=$4 preload before after cold speed pid work
    shift 4
    preload=$(preload_of "$mode")
    work=$(mktemp -d)
    read -r _ _ _ cold < <(server_counts)
    LD_PRELOAD=$preload fio --name=bench --filename="$DEVICE" --direct=1 \
        --rw="$rw" --bs="$bs" --ioengine=libaio --iodepth=8 \
        --time_based --ramp_time=1 --runtime="$seconds" --randrepeat=1 --norandommap \
        --output-format=json "$@" >"$work/fio" &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        echo "${EPOCHREALTIME/./} $(server_stat | tr -d '\n')"
        sleep 0.1
    done >"$work/samples"
    wait "$pid"
    after=$(server_counts)
    before=$(when_warm "$cold" "$work/samples")
    speed=$(jq -r '[.jobs[] | .read.bw_bytes + .write.bw_bytes] | add' "$work/fio")
    rm -rf "$work"
    read -r b1 b2 b3 b4 <<<"$before"
    read -r a1 a2 a3 a4 <<<"$after"
    echo "$speed,$((a1 - b1)),$((a2 - b2)),$((a3 - b3)),$((a4 - b4))"
}
