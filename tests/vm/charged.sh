# shellcheck shell=bash
# tests/vm/charged.sh - what a program is charged for, as its cgroup says. After lib.sh.
groups=/sys/fs/cgroup
mountpoint -q $groups || mount -t cgroup2 none $groups
echo +memory >$groups/cgroup.subtree_control || fail "no memory controller"

MIB=$((1 << 20))
# charge MIB COMMAND...: sets PEAK, the most bytes it was charged for with so much allowed
charge() {
    local group=$groups/client status=0 limit=$1
    shift
    mkdir $group
    echo $((limit * MIB)) >$group/memory.max
    (echo "$BASHPID" >$group/cgroup.procs && "$@") >"$SCRATCH/out" 2>&1 || status=$?
    PEAK=$(<$group/memory.peak)
    wait_for nothing_registered
    wait_for rmdir $group 2>/dev/null
    [ $status = 0 ] || fail "$* in $limit MiB: status $status: $(tail -3 "$SCRATCH/out")"
}

MOST=11 # tenths of what is charged without, and 16 MiB
# charge_likewise NAME MIB WITHOUT COMMAND...: not much more than WITHOUT bytes
charge_likewise() {
    local name=$1 limit=$2 without=$3
    shift 3
    charge "$limit" "$@"
    echo "  $name: $((PEAK / MIB)) MiB, without $((without / MIB)) MiB"
    [ "$PEAK" -le $((without * MOST / 10 + 16 * MIB)) ] || fail "$name: $PEAK bytes, without $without"
}
