# shellcheck shell=bash
# tests/vm/lib.sh - for the scenarios: servers, shares of zero copy, and an end that
# leaves nothing behind. A scenario sources it, runs as root on a kernel with ublk, and
# fails by any command that fails.
set -eu

TREE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=${BUILD:-$TREE/build}
UBLKZC=$BUILD/server/ublkzc
# shellcheck disable=SC2034
SHIM=$BUILD/preload/libublkzc.so
# shellcheck disable=SC2034

# Emulated machines are slow; what is tested here is not how long a server may take.
export UBLKZC_CONNECT_MS=5000

SCRATCH=$(mktemp -d)
DEVICES=()
exec {SILENT}<> <(:) # never says anything

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# times FEW MANY: how often what differs by chance is repeated, in ./runtests and in tests/full
times() { if [ -n "${FULL-}" ]; then echo "$2"; else echo "$1"; fi; }

# at_end COMMAND: before what is there by then is taken down, whatever became of the scenario
AT_END=()
at_end() { AT_END=("$1" "${AT_END[@]}"); }
# Before the storage does: else what waits for the devices waits with them.
devices_end() {
    umount -q "$SCRATCH"/mnt* 2>/dev/null || :
    for device in "${DEVICES[@]}"; do
        "$UBLKZC" del -n "${device#/dev/ublkb}" 2>/dev/null || :
    done
    DEVICES=()
}
finish() {
    local status=$? command
    cd /
    for command in "${AT_END[@]}"; do eval "$command" || :; done
    devices_end
    rm -rf "$SCRATCH"
    exit "$status"
}
trap finish EXIT

# start_file SIZE [add options...]: sets DEVICE and ID
start_file() {
    local size=$1 file
    shift
    file=$SCRATCH/disk${#DEVICES[@]}.img
    truncate -s "$size" "$file"
    start -t file "$@" "$file"
}

start() {
    DEVICE=$("$UBLKZC" add "$@")
    ID=${DEVICE#/dev/ublkb}
    DEVICES+=("$DEVICE")
}

# Which driver answers. Never by the kernel's version: kernel-patch/ is for more than one.
is_our_driver() { [[ $(cat /sys/module/ublk_drv/version 2>/dev/null) = *-ublkzc ]]; }
has_feature() { "$UBLKZC" features | grep -w -- "$1" >/dev/null; } # as named there

stat_json() { "$UBLKZC" stat "$ID" --json | jq '.devices[0]'; }

# shmem_may_be_huge advise|never: until the end
shmem_may_be_huge() {
    local setting=/sys/kernel/mm/transparent_hugepage/shmem_enabled
    at_end "echo $(sed 's/.*\[\(.*\)\].*/\1/' $setting) >$setting"
    echo "$1" >$setting
}

# stat_get PATH...: of ublkzc stat --json, as .errors or .read.copied.bytes; several are of one look.
# Not by jq, which takes a third of a second of an emulated processor: here a step down is two more
# spaces, so that a line of the right depth and name is the right one.
stat_get() {
    local all path rest key indent values=()
    all=$("$UBLKZC" stat "$ID" --json) || return
    for path; do
        rest=$all indent=$'\n      '
        for key in ${path//./ }; do
            [[ $rest = *"$indent\"$key\": "* ]] || fail "no $path in $all"
            rest=${rest#*"$indent\"$key\": "}
            indent+='  '
        done
        rest=${rest%%[,$'\n']*}
        values+=("${rest//\"/}")
    done
    echo "${values[*]}"
}

# Bytes that were zero-copy and all bytes, so far; in one look, as I/O may be going on.
byte_counts() {
    local read written read_copied written_copied
    read -r read written read_copied written_copied < <(stat_get .read.zero_copy.bytes \
        .write.zero_copy.bytes .read.copied.bytes .write.copied.bytes)
    echo "$((read + written)) $((read + written + read_copied + written_copied))"
}
all_bytes() {
    local zero all
    read -r zero all < <(byte_counts)
    echo "$all"
}

# measure_share COMMAND...: runs it, sets SHARE (zero-copy per mille of bytes) and BYTES.
measure_share() {
    local zero all zero_now all_now
    read -r zero all < <(byte_counts)
    "$@"
    read -r zero_now all_now < <(byte_counts)
    BYTES=$((all_now - all))
    SHARE=$((BYTES ? (zero_now - zero) * 1000 / BYTES : 0))
}

# measure_direct_share COMMAND...: the same, but for what the file system itself reads and
# writes, which is nobody's direct I/O: the block layer marks it as metadata (M).
measure_direct_share() {
    local tracing=/sys/kernel/tracing metadata
    # Switched on once and left on, and without the names of processes: each change
    # patches the running kernel, which emulated processors do not always survive.
    if ! mountpoint -q $tracing; then
        mount -t tracefs tracefs $tracing
        echo 65536 >$tracing/buffer_size_kb
        echo 0 >$tracing/options/record-cmd
        echo 1 >$tracing/events/block/block_bio_queue/enable
    fi
    echo >$tracing/trace
    measure_share "$@"
    grep -q 'entries-in-buffer/entries-written: \([0-9]*\)/\1 ' $tracing/trace ||
        fail "the trace overflowed: $(grep entries-in $tracing/trace)"
    metadata=$(awk '$0 ~ "block_bio_queue: " major "," minor " [A-Z]*M" {
            for (i = 1; i < NF; i++) if ($i == "+") sectors += $(i + 1)
        } END { print sectors * 512 }' major="$(stat -c %Hr "$DEVICE")" minor="$(stat -c %Lr "$DEVICE")" \
        $tracing/trace)
    SHARE=$((BYTES > metadata ? SHARE * BYTES / (BYTES - metadata) : 0))
    BYTES=$((BYTES - metadata))
    [ "$SHARE" -le 1000 ] || SHARE=1000 # metadata of just before was written meanwhile
}

expect_share_at_least() { # PER MILLE, DESCRIPTION
    [ "$BYTES" -gt 0 ] || fail "$2: no I/O reached the device"
    [ "$SHARE" -ge "$1" ] || fail "$2: $SHARE per mille of $BYTES bytes zero-copy, not $1: $(stat_json)"
    echo "  $2: $SHARE per mille of $BYTES bytes zero-copy"
}

# share_at_least PER MILLE, DESCRIPTION, COMMAND...: in one of three runs. On a busy machine a
# server may register what a program has just allocated later than the program uses it.
# With MEASURE=measure_direct_share it counts as that does.
share_at_least() {
    local minimum=$1 what=$2 tries
    shift 2
    for tries in 1 2; do
        "${MEASURE:-measure_share}" "$@"
        [ "$SHARE" -lt "$minimum" ] || break
        echo "  $what: $SHARE per mille in run $tries; again"
    done
    [ "$SHARE" -ge "$minimum" ] || "${MEASURE:-measure_share}" "$@"
    expect_share_at_least "$minimum" "$what"
}

expect_no_share() { # DESCRIPTION
    [ "$BYTES" -gt 0 ] || fail "$1: no I/O reached the device"
    [ "$SHARE" = 0 ] || fail "$1: $SHARE per mille zero-copy without the shim"
    echo "  $1: 0 of $BYTES bytes zero-copy"
}

# wait_for COMMAND...: until it succeeds, at most WAIT (300) seconds. That long on a busy
# machine, where a look alone may take seconds.
wait_for() {
    local end=$((SECONDS + ${WAIT:-300}))
    while [ $SECONDS -lt $end ]; do
        if "$@"; then return 0; fi
        read -rt 0.1 -u "$SILENT" || : # a sleep that is no program
    done
    fail "still not so after ${WAIT:-300} seconds: $*"
}

nothing_registered() { [ "$(stat_get .buffers .clients)" = "0 0" ]; }

# Pages pinned for the long term now, by anybody.
pinned_pages() {
    # The counters are folded about once a second, or now.
    # There is nothing to fold, and no such file, with one processor.
    [ ! -e /proc/sys/vm/stat_refresh ] || echo 1 >/proc/sys/vm/stat_refresh
    awk '/^nr_foll_pin_acquired/ { a = $2 } /^nr_foll_pin_released/ { r = $2 } END { print a - r }' \
        /proc/vmstat
}
none_pinned() { [ "$(pinned_pages)" = 0 ]; }

server() { stat_get .pid; }
keeper() { ps -o ppid= -p "$(server)" | tr -d ' '; }
recoveries() { stat_get .recoveries; }
recovered() { [ "$(recoveries)" -gt "$1" ]; } # since there were that many

# What the device's server and its keeper hold now, in one line: equal lines, equal
# resources.  Only meaningful while nobody does I/O.
count_fds() { find "/proc/$1/fd" -mindepth 1 | wc -l; }
count_maps() { wc -l <"/proc/$1/maps"; }
resources() {
    local server keeper buffers bytes clients
    read -r server buffers bytes clients < <(stat_get .pid .buffers .buffer_bytes .clients)
    keeper=$(keeper)
    echo "buffers=$buffers bytes=$bytes clients=$clients" \
        "server_fds=$(count_fds "$server")" \
        "keeper_fds=$(count_fds "$keeper") keeper_maps=$(count_maps "$keeper")" \
        "pinned_pages=$(pinned_pages)"
}

# For a fio that others only need to be busy: full queues, and pauses in which whoever watches has
# the processors.
# shellcheck disable=SC2034
BURSTS=(--thinktime=100ms --thinktime_blocks=32)

# run_fio ARGUMENTS...: quiet when all is well
run_fio() {
    fio --output-format=normal "$@" >"$SCRATCH/fio.out" 2>&1 || {
        cat "$SCRATCH/fio.out" >&2
        fail "fio $*"
    }
}
