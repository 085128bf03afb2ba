#!/usr/bin/env bash
# What a program is charged for, with the shim and without, as its cgroup says: pages it
# touched, pages that were touched in its name, and those that only the server holds.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../charged.sh"

start_file 256M
WORK=$SCRATCH
declare -A read_before=()
compare() { # NAME MIB COMMAND...
    local name=$1 limit=$2
    shift 2
    # The first reads the program from disk, which is charged too.
    [ -n "${read_before[$1]-}" ] || charge "$limit" "$@"
    read_before[$1]=1
    charge "$limit" "$@"
    charge_likewise "$name" "$limit" "$PEAK" env LD_PRELOAD="$SHIM" "$@"
}
hostile="$BUILD/tests/hostile/hostile"
compare "fio's default" 512 fio --name=j --filename="$DEVICE" --direct=1 --rw=randrw --bs=4k \
    --ioengine=psync --size=16M --thread=1 --output="$WORK/fio"
compare "120 MiB of blocks where 180 are allowed" 180 "$hostile" touched-blocks "$DEVICE"
compare "512 MiB of a block, hardly touched" 180 "$hostile" sparse-block "$DEVICE"
MOST=15 compare "100 000 blocks of 512 bytes" 512 "$hostile" small-blocks "$DEVICE"
export UBLKZC_CAPTURE=all
compare "512 MiB mapped, hardly touched" 180 "$hostile" sparse-mapping "$DEVICE"
compare "blocks that were freed" 512 "$hostile" freed-blocks "$DEVICE"
compare "a thousand forks" 512 "$hostile" a-thousand-forks "$DEVICE"
wait_for none_pinned
unset UBLKZC_CAPTURE

# A machine that promises no more memory than it has: what is granted can be touched.
counted() { # COMMAND...: with so much promised already, and 300 MiB more
    local status=0
    awk '/^Committed_AS/ { print $2 + 300 * 1024 }' /proc/meminfo >/proc/sys/vm/overcommit_kbytes
    echo 2 >/proc/sys/vm/overcommit_memory
    "$@" >"$WORK/out" 2>&1 || status=$?
    echo 0 >/proc/sys/vm/overcommit_memory
    echo 50 >/proc/sys/vm/overcommit_ratio
    return $status
}
counted "$TREE/tests/hostile/run" --build "$BUILD" --strict --jobs 1 --mode default --mode all promised-memory ||
    fail "with vm.overcommit_memory=2: $(cat "$WORK/out")"
grep -q 'without:ok.*default:ok.*all:ok' "$WORK/out" || fail "not tried: $(cat "$WORK/out")"
