#!/usr/bin/env bash
# Storage that is an image of a Ceph cluster: a whole one, in this guest. Zero copy, a file system, and nothing lost
# when the device's server dies, or the cluster does not answer for a while.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../remote.sh"
RBD=$BUILD/engines/rbd/rbd.so
[ -e "$RBD" ] || fail "the engine rbd is not built: install librbd-dev (packaging/install-deps)"
export WAIT=300
CEPH=$SCRATCH/ceph
export CEPH_CONF=$CEPH/ceph.conf

# After a failure there may be a device, whose requests would wait for the cluster for ever.
stop_cluster() {
    kill -CONT "$(osd)" || :
    devices_end
    cat "$CEPH"/run/*.pid | xargs -r kill -KILL
}
osd() { cat "$CEPH/run/osd.0.pid"; }
at_end stop_cluster
CEPH_STORE=bluestore "$TREE/tests/vm/ceph-one-node" "$CEPH" 2>"$SCRATCH/out" || fail "no cluster: $(tail "$SCRATCH/out")"
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
for bs in 64k-64k 1m-1m; do
    share_at_least 990 "fio, $bs" with_shim verified $bs
done
share_at_least 900 "fio, all sizes" with_shim verified 512-256k --size=4m
measure_share verified 64k-64k --size=4m
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

# --- servers, and the OSD, that die -------------------------------------------------------------
mkdir "$SCRATCH/mnt"
"$UBLKZC" del -n "$ID"
rbd create --size 512M data # xfs is 300 at least
start -t "$RBD" -q 2 -o conf="$CEPH_CONF" rbd/data
# What it had acknowledged is in its file.
osd_dies() {
    kill -KILL "$(osd)"
    sleep "$((RANDOM % 3))"
    ceph-osd -i 0 2>/dev/null || { sleep 2 && ceph-osd -i 0; }
}
for fs in ext4 xfs; do
    make_fs $fs
    mount "$DEVICE" "$SCRATCH/mnt"
    if is_our_driver; then
        under_deaths "$(times 3 20)" own_server_dies with_shim files --size=8m
    else
        echo "  skipped: the stock driver can be wedged by a server's death (docs/recovery.md, 89-killed.sh)"
    fi
    under_deaths "$(times 1 5)" osd_dies with_shim files --size=8m
    umount "$SCRATCH/mnt"
    check_fs $fs
done
if is_our_driver; then
    # Each was cut off before the next began.
    all_dead_are_listed() { [ "$(ceph osd blocklist ls 2>/dev/null | grep -c ^127)" -ge $(($(times 3 20) * 2)) ]; }
    # A monitor may refuse to be asked: ceph-one-node.
    WAIT=20 wait_for all_dead_are_listed
    # Nobody is left who knows the dead server's address, nor how often there was one: the lock is what there is.
    kill -KILL "$(keeper)" "$(server)"
    sleep 1
    "$UBLKZC" recover -n "$ID"
    with_shim verified 64k-64k --size=4m
fi

# --- a database --------------------------------------------------------------------------------
make_fs ext4
mount -o noatime "$DEVICE" "$SCRATCH/mnt"
begin_mariadb
if is_our_driver; then under_deaths "$(times 2 20)" own_server_dies load run; fi
under_deaths "$(times 1 5)" osd_dies load run
checksums_of_tables
kill -KILL "$MARIADB"
wait "$MARIADB" || :
mariadb_has_what_it_had
umount "$SCRATCH/mnt"
check_fs ext4
"$UBLKZC" del -n "$ID"
start -t "$RBD" -o conf="$CEPH_CONF" rbd/disk

# --- the image is this device's alone ----------------------------------------------------------
refused 'which is alive: end what uses it there' rbd/disk
"$UBLKZC" del -n "$ID"
rbd snap create --no-progress disk@now
start -t "$RBD" -o conf="$CEPH_CONF" rbd/disk@now
[ "$(blockdev --getro "$DEVICE")" = 1 ] || fail "a snapshot can be written"
rbd export --no-progress disk@now - | cmp - "$DEVICE" || fail "the snapshot is not what the device has"
"$UBLKZC" del -n "$ID"
