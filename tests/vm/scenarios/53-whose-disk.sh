#!/usr/bin/env bash
# A disk that somebody has is not served by mistake, and not removed under who has it; and
# what serves is where the kernel's need of memory cannot reach it.
. "$(dirname "$0")/../lib.sh"
modprobe loop
modprobe dm_mod
export LC_ALL=C

refused() { # WHY, ublkzc arguments...
    local why=$1 text
    shift
    text=$("$UBLKZC" "$@" 2>&1) && fail "ublkzc $*: no error"
    grep -q -- "$why" <<<"$text" || fail "ublkzc $*: says '$text', not '$why'"
    echo "  $why: refused"
}

# --- a mounted disk, a mounted partition of a disk -------------------------------------
truncate -s 64M "$SCRATCH/real.img"
disk=$(losetup -P -f --show "$SCRATCH/real.img")
mkfs.ext4 -qF "$disk"
mkdir "$SCRATCH/mnt"
mount "$disk" "$SCRATCH/mnt"
head -c 1M /dev/urandom >"$SCRATCH/mnt/precious"
sum=$(sha256sum <"$SCRATCH/mnt/precious")
refused "$disk is in use: mounted on $SCRATCH/mnt" add -t file "$disk"
refused "$disk is in use: mounted on $SCRATCH/mnt" add -t file -r "$disk"
refused "$disk is in use: mounted on $SCRATCH/mnt" serve -t file "$disk"
# The administrator may know better, and is told what that overrides.
start -t file --force -r "$disk" 2>"$SCRATCH/warning"
grep -q "mounted on $SCRATCH/mnt; served all the same" "$SCRATCH/warning" || fail "--force: $(cat "$SCRATCH/warning")"
[ "$(blockdev --getsize64 "$DEVICE")" = $((64 << 20)) ] || fail "--force serves something else"
"$UBLKZC" del -n "$ID"
echo 3 >/proc/sys/vm/drop_caches
[ "$(sha256sum <"$SCRATCH/mnt/precious")" = "$sum" ] || fail "the file system was damaged"
umount "$SCRATCH/mnt"

printf 'label: dos\nstart=2048, size=65536\n' | sfdisk -q "$disk" 2>/dev/null
# There is no udev that would make the node.
IFS=: read -r major minor <"/sys/class/block/${disk#/dev/}p1/dev"
[ -b "${disk}p1" ] || mknod "${disk}p1" b "$major" "$minor"
mkfs.ext4 -qF "${disk}p1"
mount "${disk}p1" "$SCRATCH/mnt"
refused "$disk is in use: mounted on $SCRATCH/mnt" add -t file "$disk"
umount "$SCRATCH/mnt"

# --- swap, a member of another device ---------------------------------------------------
mkswap -q "${disk}p1"
swapon "${disk}p1"
refused 'is in use: swap' add -t file "${disk}p1"
swapoff "${disk}p1"
dmsetup --noudevsync create above --table "0 65536 linear $disk 0"
refused "$disk is in use: part of /dev/dm-" add -t file "$disk"
dmsetup --noudevsync remove above

# --- another server, also after another took over; and what is below may not go ----------
start -t file "$disk"
refused "$disk is in use: served as $DEVICE" add -t file "$disk"
refused "$disk is in use" add -t file -r "$disk"
kill -9 "$(server)"
wait_for recovered 0
refused "$disk is in use: served as $DEVICE" add -t file "$disk"
mkfs.ext4 -qF "$disk" >"$SCRATCH/mkfs" 2>&1 && fail "mkfs may write to a disk that is served"
below=$DEVICE below_id=$ID
start -t file "$below"
refused "$below is in use: served as $DEVICE" del -n "$below_id"
refused "$below is in use: served as $DEVICE" add -t file "$below"
run_fio --name=t --filename="$DEVICE" --direct=1 --rw=randwrite --bs=64k --size=16m --ioengine=libaio \
    --iodepth=4 --verify=crc32c
# All of them go, the upper one first, whichever has the smaller number.
"$UBLKZC" del -a
[ -z "$(find /dev -name 'ublkb*')" ] || fail "del -a left devices"
start -t file "$disk"
"$UBLKZC" del -n "$ID"
losetup -d "$disk"

# --- what is no disk at all ---------------------------------------------------------------
mkfifo "$SCRATCH/pipe"
timeout 20 "$UBLKZC" add -t file "$SCRATCH/pipe" >"$SCRATCH/out" 2>&1 && fail "a pipe is served"
grep -q 'neither a regular file nor a block device' "$SCRATCH/out" || fail "a pipe: $(cat "$SCRATCH/out")"
