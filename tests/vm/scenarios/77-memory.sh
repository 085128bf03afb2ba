#!/usr/bin/env bash
# What a program is charged for, with the shim and without, as its cgroup says: pages it
# touched, pages that were touched in its name, and those that only the server holds.
. "$(dirname "$0")/../lib.sh"

start_file 256M
groups=/sys/fs/cgroup
mountpoint -q $groups || mount -t cgroup2 none $groups
echo +memory >$groups/cgroup.subtree_control || fail "no memory controller"

MIB=$((1 << 20))
peak() { # MIB COMMAND...: sets PEAK, the most bytes it was charged for with so much allowed
    local group=$groups/client status=0 limit=$1
    shift
    mkdir $group
    echo $((limit * MIB)) >$group/memory.max
    (echo "$BASHPID" >$group/cgroup.procs && exec "$@") >"$WORK/out" 2>&1 || status=$?
    PEAK=$(<$group/memory.peak)
    wait_for nothing_registered
    rmdir $group
    [ $status = 0 ] || fail "$* in $limit MiB: status $status: $(tail -3 "$WORK/out")"
}
MOST=11 # tenths of what is charged without, and 16 MiB
compare() { # NAME MIB COMMAND...
    local name=$1 without
    shift
    peak "$@" # reads the program from disk, which is charged too
    peak "$@"
    without=$PEAK
    peak "$1" env LD_PRELOAD="$SHIM" "${@:2}"
    echo "  $name: $((PEAK / MIB)) MiB, without $((without / MIB)) MiB"
    [ "$PEAK" -le $((without * MOST / 10 + 16 * MIB)) ] || fail "$name: $PEAK bytes, without $without"
}
hostile="$BUILD/tests/hostile/hostile"
WORK=$SCRATCH
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
