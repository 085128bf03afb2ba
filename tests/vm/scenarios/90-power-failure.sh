#!/usr/bin/env bash
# FLUSH and FUA reach the storage: what was made durable is there after a power failure at
# any moment, on the raw device and in a file system, also when the server is killed.
. "$(dirname "$0")/../lib.sh"
replay=$(dirname "$0")/../storage/replay.py
durable=$(dirname "$0")/../storage/durable.py
export PYTHONDONTWRITEBYTECODE=1

modprobe dm_mod
modprobe dm_log_writes
modprobe loop
SIZE=$((32 << 20))
truncate -s $SIZE "$SCRATCH/disk.img"

# start_logged: a device whose storage writes down what becomes durable, in a new log.
start_logged() {
    truncate -s 0 "$SCRATCH/log.img"
    truncate -s 1G "$SCRATCH/log.img"
    disk=$(losetup -f --show "$SCRATCH/disk.img")
    log=$(losetup -f --show "$SCRATCH/log.img")
    dmsetup --noudevsync create logged --table "0 $((SIZE / 512)) log-writes $disk $log"
    [ -b /dev/mapper/logged ] || dmsetup mknodes logged
    start -t file /dev/mapper/logged
}

stop_logged() {
    "$UBLKZC" del -n "$ID"
    dmsetup --noudevsync remove logged
    losetup -d "$disk" "$log"
}

start_logged
LD_PRELOAD=$SHIM measure_share "$durable" "$DEVICE" logged 100
expect_share_at_least 900 "durable records"
stop_logged
"$replay" "$SCRATCH/log.img" $SIZE records

# ext4: files that were synced are there, and the file system is sound. The server is
# killed meanwhile, so the order holds across servers too.
start_logged
mkfs.ext4 -qF "$DEVICE"
mkdir "$SCRATCH/mnt"
mount "$DEVICE" "$SCRATCH/mnt"
for i in $(seq 40); do
    head -c "$((RANDOM * 2))" /dev/urandom >"$SCRATCH/file$i"
    dd if="$SCRATCH/file$i" of="$SCRATCH/mnt/file$i" bs=1M conv=fsync status=none
    sync -f "$SCRATCH/mnt" # the directory
    dmsetup message logged 0 mark "$i"
    [ $((i % 10)) != 5 ] || kill -9 "$(server)"
    rm -f "$SCRATCH/mnt/file$((i - 20))"
done
umount "$SCRATCH/mnt"
[ "$(stat_get .recoveries)" -ge 3 ] || fail "the server was not killed: $(stat_json)"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
stop_logged
for i in 1 13 25 26 40; do
    "$replay" "$SCRATCH/log.img" $SIZE image "$i" "$SCRATCH/crashed.img"
    mount -o loop "$SCRATCH/crashed.img" "$SCRATCH/mnt" # replays the journal
    for ((j = i > 19 ? i - 19 : 1; j <= i; j++)); do
        cmp "$SCRATCH/file$j" "$SCRATCH/mnt/file$j" || fail "file $j after a failure at mark $i"
    done
    umount "$SCRATCH/mnt"
    e2fsck -fn "$SCRATCH/crashed.img" >"$SCRATCH/fsck" 2>&1 || fail "e2fsck at mark $i: $(cat "$SCRATCH/fsck")"
    echo "  ext4 after a power failure at mark $i: sound, and all synced files are there"
done
