#!/usr/bin/env bash
# Storage that is an image of a Ceph cluster: a whole one, in this guest. Zero copy, a file system, and nothing lost
# when the device's server dies, or the cluster does not answer for a while.
. "$(dirname "$0")/../lib.sh"
RBD=$BUILD/engines/rbd/rbd.so
[ -e "$RBD" ] || fail "the engine rbd is not built: install librbd-dev (packaging/install-deps packages-apps)"
export WAIT=300
CEPH=$SCRATCH/ceph
export CEPH_CONF=$CEPH/ceph.conf

# After a failure there may be a device, whose requests would wait for the cluster for ever.
stop_cluster() {
    kill -CONT "$(osd)" || :
    umount -q "$SCRATCH/mnt" || :
    "$UBLKZC" del -a 2>/dev/null || :
    cat "$CEPH"/run/*.pid | xargs -r kill -KILL
}
osd() { cat "$CEPH/run/osd.0.pid"; }
at_end stop_cluster
"$TREE/tests/vm/ceph-one-node" "$CEPH"
echo "  the cluster is there after $SECONDS seconds"

# --- what cannot be is told -------------------------------------------------------------
refused() { # PATTERN, ADD ARGUMENTS...
    local pattern=$1
    shift
    ! "$UBLKZC" add -t "$RBD" -o conf="$CEPH_CONF" "$@" 2>"$SCRATCH/err" || fail "accepted: $*"
    grep -q -- "$pattern" "$SCRATCH/err" || fail "$*: $(cat "$SCRATCH/err")"
}
refused 'no pool is named: give POOL/IMAGE' disk
refused 'give none, writethrough or writeback' -o cache=yes rbd/disk
refused "there is no image 'disk' in rbd" rbd/disk

# --- zero copy --------------------------------------------------------------------------
rbd create --size 64M disk
start -t "$RBD" -q 2 -o conf="$CEPH_CONF" rbd/disk
[ "$("$UBLKZC" list --json | jq -r '.devices[0].target')" = rbd ] || fail "list does not name the engine"
job() { # BLOCK SIZES, more...
    local bs=$1
    shift
    run_fio --name=rbd --filename="$DEVICE" --direct=1 --rw=randrw --bsrange="$bs" --size=16m \
        --ioengine=io_uring --iodepth=8 --verify=crc32c --verify_fatal=1 "$@"
}
for bs in 64k-64k 1m-1m; do
    LD_PRELOAD=$SHIM share_at_least 990 "fio, $bs" job $bs
done
LD_PRELOAD=$SHIM share_at_least 900 "fio, all sizes" job 512-256k --size=4m
measure_share job 64k-64k --size=4m
expect_no_share "without the shim"
head -c 1048576 /dev/zero | tr '\0' x | dd of="$DEVICE" bs=64k oflag=direct iflag=fullblock status=none
blkdiscard --zeroout --length 65536 "$DEVICE"
cmp -n 65536 "$DEVICE" /dev/zero || fail "what was zeroed is not zero"
# The cluster has it: read with Ceph's own program.
rbd export --no-progress disk - | cmp - "$DEVICE" || fail "the image is not what the device has"

# --- a larger image ---------------------------------------------------------------------
rbd resize --no-progress --size 96M disk
wait_for grep -q '100663296 bytes now' "/run/ublkzc/ublkb$ID.log"
if has_feature UPDATE_SIZE; then
    "$UBLKZC" resize -n "$ID"
    [ "$(blockdev --getsize64 "$DEVICE")" = $((96 << 20)) ] ||
        fail "the device has $(blockdev --getsize64 "$DEVICE") bytes"
    dd if=/dev/zero of="$DEVICE" bs=64k seek=1500 count=16 oflag=direct status=none
fi

# --- the cluster does not answer for a while ------------------------------------------------
LD_PRELOAD=$SHIM run_fio --name=away --filename="$DEVICE" --direct=1 --rw=randrw --bs=64k --size=16m --rate=2m \
    --ioengine=libaio --iodepth=8 --verify=crc32c --verify_fatal=1 &
program=$!
sleep 2
kill -STOP "$(osd)"
sleep 10
kill -CONT "$(osd)"
wait $program || fail "requests failed while the cluster did not answer"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"

# --- servers that die -----------------------------------------------------------------------
mkdir "$SCRATCH/mnt"
mkfs.ext4 -qF "$DEVICE"
mount "$DEVICE" "$SCRATCH/mnt"
die() { # COMMAND... that kills, and returns when the device is served again
    local program
    LD_PRELOAD=$SHIM run_fio --name=dies --directory="$SCRATCH/mnt" --direct=1 --rw=randwrite --bs=64k --size=8m \
        --rate=2m --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --fsync=16 &
    program=$!
    sleep 2
    "$@"
    wait $program || fail "requests failed when the device's own server died"
    [ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
}
kill_server() {
    local before
    before=$(recoveries)
    kill -KILL "$(server)"
    wait_for recovered "$before"
}
# Nobody is left who knows the dead server's address, nor how often there was one: the lock is what there is.
kill_both() {
    kill -KILL "$(keeper)" "$(server)"
    sleep 1
    "$UBLKZC" recover -n "$ID"
}
if is_our_driver; then
    for ((i = 0; i < $(times 3 20); i++)); do die kill_server; done
    # Each was cut off before the next began.
    [ "$(ceph osd blocklist ls 2>/dev/null | grep -c ^127)" -ge "$(times 3 20)" ] ||
        fail "the dead are not on the cluster's list"
    die kill_both
else
    echo "  skipped: the stock driver can be wedged by a server's death (docs/recovery.md, 89-killed.sh)"
fi
umount "$SCRATCH/mnt"
e2fsck -fn "$DEVICE" >"$SCRATCH/out" || fail "ext4 is broken: $(cat "$SCRATCH/out")"
echo "  ext4 is whole"

# --- the image is this device's alone ----------------------------------------------------------
refused 'which is alive: end what uses it there' rbd/disk
"$UBLKZC" del -n "$ID"
rbd snap create --no-progress disk@now
start -t "$RBD" -o conf="$CEPH_CONF" rbd/disk@now
[ "$(blockdev --getro "$DEVICE")" = 1 ] || fail "a snapshot can be written"
rbd export --no-progress disk@now - | cmp - "$DEVICE" || fail "the snapshot is not what the device has"
"$UBLKZC" del -n "$ID"

# --- the engine alone: fences, errors, snapshots, ... ----------------------------------
UBLKZC_CEPH=$CEPH "$BUILD/tests/unit/rbd/test_rbd_cluster" >"$SCRATCH/out" 2>&1 || fail "$(cat "$SCRATCH/out")"
echo "  the engine alone: $(grep PASSED "$SCRATCH/out"), after $SECONDS seconds"
