#!/usr/bin/env bash
# dd, mkfs.xfs, xfs_repair and e2fsck under the shim do what they do without it.
. "$(dirname "$0")/../lib.sh"

start_file 400M
head -c 32M /dev/urandom >"$SCRATCH/random"
under_shim() { LD_PRELOAD=$SHIM "$@"; }

measure_share under_shim dd if="$SCRATCH/random" of="$DEVICE" bs=1M oflag=direct status=none
expect_share_at_least 990 "dd oflag=direct"
measure_share under_shim dd if="$DEVICE" of="$SCRATCH/back" bs=1M count=32 iflag=direct status=none
expect_share_at_least 990 "dd iflag=direct"
cmp "$SCRATCH/random" "$SCRATCH/back"
# and what was stored, seen through the copy path
dd if="$DEVICE" bs=1M count=32 iflag=direct status=none | cmp - "$SCRATCH/random"

mkdir "$SCRATCH/mnt"
measure_share under_shim mkfs.xfs -qf "$DEVICE"
expect_share_at_least 950 "mkfs.xfs"
mount -t xfs "$DEVICE" "$SCRATCH/mnt"
cp -r /usr/share/doc/coreutils "$SCRATCH/mnt/"
umount "$SCRATCH/mnt"
repair() { under_shim xfs_repair "$DEVICE" >/dev/null 2>&1 || fail "xfs_repair under the shim"; }
measure_share repair
expect_share_at_least 950 "xfs_repair"
xfs_repair -n "$DEVICE" >/dev/null 2>&1 || fail "xfs_repair -n does not accept what was repaired under the shim"
mount -t xfs "$DEVICE" "$SCRATCH/mnt"
diff -r /usr/share/doc/coreutils "$SCRATCH/mnt/coreutils"
umount "$SCRATCH/mnt"

measure_share under_shim mkfs.ext4 -qF -D "$DEVICE"
echo "  mkfs.ext4 -D: $SHARE per mille of $BYTES bytes zero-copy"
mount -t ext4 "$DEVICE" "$SCRATCH/mnt"
cp -r /usr/share/doc/coreutils "$SCRATCH/mnt/"
umount "$SCRATCH/mnt"
measure_share under_shim e2fsck -fp "$DEVICE" >/dev/null || fail "e2fsck under the shim"
echo "  e2fsck, which is buffered: $SHARE per mille of $BYTES bytes zero-copy"
e2fsck -fn "$DEVICE" >/dev/null 2>&1 || fail "e2fsck -fn does not accept what was checked under the shim"
mount -t ext4 "$DEVICE" "$SCRATCH/mnt"
diff -r /usr/share/doc/coreutils "$SCRATCH/mnt/coreutils"
umount "$SCRATCH/mnt"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
