#!/usr/bin/env bash
# Storage that fails, fills up, shrinks or vanishes; devices that grow, are mounted, or are
# removed under load. With and without zero copy.
. "$(dirname "$0")/../lib.sh"
modprobe dm_mod
modprobe loop

# try NAME ERROR COMMAND...: it must fail with that message, under the shim and without.
must_fail() {
    local what=$1 error=$2
    shift 2
    for preload in "" "$SHIM"; do
        if LD_PRELOAD=$preload "$@" >"$SCRATCH/out" 2>&1; then fail "$what: no error"; fi
        grep -q "$error" "$SCRATCH/out" || fail "$what: $(cat "$SCRATCH/out")"
    done
    echo "  $what: $error"
}
must_work() {
    local what=$1
    shift
    for preload in "" "$SHIM"; do
        LD_PRELOAD=$preload "$@" >"$SCRATCH/out" 2>&1 || fail "$what: $(cat "$SCRATCH/out")"
    done
    echo "  $what: works"
}
reading() { dd if="$DEVICE" of=/dev/null bs=64k skip=$(($1 * 16)) count=$(($2 * 16)) iflag=direct status=none; }
writing() { dd if=/dev/zero of="$DEVICE" bs=64k seek=$(($1 * 16)) count=$(($2 * 16)) oflag=direct status=none; }

# One megabyte of the disk is bad.
truncate -s 64M "$SCRATCH/bad.img"
loop=$(losetup -f --show "$SCRATCH/bad.img")
dmsetup --noudevsync create bad <<TABLE
0 16384 linear $loop 0
16384 2048 error
18432 112640 linear $loop 18432
TABLE
[ -b /dev/mapper/bad ] || dmsetup mknodes bad
start -t file /dev/mapper/bad
must_fail "reading a bad part" "Input/output error" reading 8 1
must_fail "writing a bad part" "Input/output error" writing 8 1
must_fail "reading into a bad part" "Input/output error" reading 7 2
must_work "reading before it" reading 0 8
must_work "writing behind it" writing 9 10
[ "$(stat_get .errors)" -gt 0 ] || fail "errors are not counted"
"$UBLKZC" del -n "$ID"
dmsetup --noudevsync remove bad
losetup -d "$loop"

# The file system below is full, and then is not.
mkdir "$SCRATCH/mnt-small"
mount -t tmpfs -o size=16M tmpfs "$SCRATCH/mnt-small"
dd if=/dev/zero of="$SCRATCH/mnt-small/other" bs=1M count=12 status=none
truncate -s 64M "$SCRATCH/mnt-small/disk.img"
start -t file "$SCRATCH/mnt-small/disk.img"
must_work "writing while there is room" writing 0 2
must_fail "writing to a full disk" "No space left on device" writing 2 10
must_work "reading what is there" reading 0 2
rm "$SCRATCH/mnt-small/other"
must_work "writing when there is room again" writing 2 10

# The backing file is cut short behind our back, and its name goes.
must_work "reading the end" reading 60 4
truncate -s 32M "$SCRATCH/mnt-small/disk.img"
must_fail "reading what is no more" "Input/output error" reading 40 4
must_work "reading what is left" reading 0 12
rm "$SCRATCH/mnt-small/disk.img"
must_work "reading a file that has no name any more" reading 0 12
"$UBLKZC" del -n "$ID"
umount "$SCRATCH/mnt-small"

# Mounted devices are not removed by mistake.
start_file 64M
mkfs.ext4 -qF "$DEVICE"
mkdir "$SCRATCH/mnt"
mount "$DEVICE" "$SCRATCH/mnt"
echo precious >"$SCRATCH/mnt/file"
must_fail "removing a mounted device" "mounted on $SCRATCH/mnt" "$UBLKZC" del -n "$ID"
[ "$(cat "$SCRATCH/mnt/file")" = precious ] || fail "the file is gone"
umount "$SCRATCH/mnt"
mount -r "$DEVICE" "$SCRATCH/mnt"
[ "$(cat "$SCRATCH/mnt/file")" = precious ] || fail "the file is gone"
must_fail "removing a mounted device" "mounted on $SCRATCH/mnt" "$UBLKZC" del -n "$ID"
"$UBLKZC" del --force -n "$ID" 2>"$SCRATCH/out"
grep -q "still has it open or mounted" "$SCRATCH/out" || fail "del --force: $(cat "$SCRATCH/out")"
[ ! -e "$DEVICE" ] || fail "del --force left $DEVICE"
umount "$SCRATCH/mnt"
echo "  removing a mounted device by force: does not hang"

# Removed under load: errors, but no hang, and nothing is left.
start_file 64M
LD_PRELOAD=$SHIM fio --name=t --filename="$DEVICE" --direct=1 --rw=randrw --bs=64k --ioengine=libaio \
    --iodepth=16 --size=64m --time_based --runtime=60 >"$SCRATCH/fio.out" 2>&1 &
fio=$!
busy() { [ "$(all_bytes)" -gt 1000000 ]; }
wait_for busy
"$UBLKZC" del -n "$ID"
wait $fio && fail "fio noticed nothing"
[ ! -e "$DEVICE" ] || fail "del left $DEVICE"
wait_for none_pinned
echo "  removed under load: fio has errors, nothing is left"

# Growing: a file as it has grown, RAM as asked.
start_file 64M
grow() { "$UBLKZC" resize -n "$ID" "$@"; }
if "$UBLKZC" features | grep -q UPDATE_SIZE; then
    truncate -s 96M "$SCRATCH/disk$((${#DEVICES[@]} - 1)).img"
    grow
    [ "$(blockdev --getsize64 "$DEVICE")" = $((96 << 20)) ] || fail "the device did not grow"
    must_work "writing the new part" writing 64 32
    must_fail "shrinking" "less than the old" grow --size 32M
    truncate -s 32M "$SCRATCH/disk$((${#DEVICES[@]} - 1)).img"
    must_fail "shrinking with the file" "less than the old" grow
    start -t mem --size 16M
    grow --size 32M
    must_work "writing the new part of a RAM disk" writing 16 16
    kill -9 "$(stat_get .pid)"
    must_work "reading it from another server" reading 16 16
    must_fail "no size for a RAM disk" "less than the old" grow
else
    must_fail "growing" "Linux 6.16" grow
    [ "$(blockdev --getsize64 "$DEVICE")" = $((64 << 20)) ] || fail "the device's size changed"
fi
