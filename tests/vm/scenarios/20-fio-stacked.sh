#!/usr/bin/env bash
# The same on a partition, on device-mapper, and on files of ext4, xfs and btrfs: the
# device is found behind all of them.
. "$(dirname "$0")/../lib.sh"

job() { # FILE
    run_fio --name=t --filename="$1" --direct=1 --rw=randrw --bs=128k --size=48m \
        --ioengine=libaio --iodepth=8 --verify=crc32c --verify_fatal=1 --fallocate=none
}

start_file 512M

printf 'label: dos\n,,83\n' | sfdisk -q "$DEVICE" 2>/dev/null || fail "sfdisk"
wait_for test -b "${DEVICE}p1"
LD_PRELOAD=$SHIM measure_share job "${DEVICE}p1"
expect_share_at_least 990 "partition"
measure_share job "${DEVICE}p1"
expect_no_share "partition, without the shim"

modprobe dm_mod
sectors=$(blockdev --getsz "${DEVICE}p1")
dmsetup --noudevsync create under-test --table "0 $sectors linear ${DEVICE}p1 0"
[ -b /dev/mapper/under-test ] || dmsetup mknodes under-test
LD_PRELOAD=$SHIM measure_share job /dev/mapper/under-test
dmsetup --noudevsync remove under-test
expect_share_at_least 990 "device-mapper on a partition"
wipefs -aq "$DEVICE"

mkdir "$SCRATCH/mnt"
for fs in ext4 xfs; do
    case $fs in
    ext4) mkfs.ext4 -qF -E lazy_itable_init=0,lazy_journal_init=0 "$DEVICE" ;;
    xfs) mkfs.xfs -qf "$DEVICE" ;;
    esac
    mount -t $fs "$DEVICE" "$SCRATCH/mnt"
    # Blocks allocated and the journal quiet first, so that the count is of the data.
    dd if=/dev/zero of="$SCRATCH/mnt/data" bs=1M count=48 conv=fsync status=none
    sync -f "$SCRATCH/mnt"
    LD_PRELOAD=$SHIM measure_share job "$SCRATCH/mnt/data"
    expect_share_at_least 990 "a file on $fs"
    measure_share job "$SCRATCH/mnt/data"
    expect_no_share "a file on $fs, without the shim"
    umount "$SCRATCH/mnt"
done

# btrfs has a device number of its own for each subvolume. Its direct writes may be copies
# (it checksums them), so the reads are counted.
modprobe btrfs
mkfs.btrfs -qf "$DEVICE" >/dev/null
mount -t btrfs "$DEVICE" "$SCRATCH/mnt"
btrfs -q subvolume create "$SCRATCH/mnt/sub"
dd if=/dev/zero of="$SCRATCH/mnt/sub/data" bs=1M count=48 conv=fsync status=none
sync -f "$SCRATCH/mnt"
read_job() {
    run_fio --name=t --filename="$SCRATCH/mnt/sub/data" --readonly --direct=1 --rw=randread \
        --bs=128k --size=48m --ioengine=libaio --iodepth=8
}
LD_PRELOAD=$SHIM measure_share read_job
expect_share_at_least 900 "a file in a subvolume of btrfs"
measure_share read_job
expect_no_share "a file on btrfs, without the shim"
umount "$SCRATCH/mnt"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
