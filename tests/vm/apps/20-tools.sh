#!/usr/bin/env bash
# Tools that copy, measure and convert: dd, ddrescue, ioping, sysbench fileio, qemu-img
# and qemu-io.
. "$(dirname "$0")/../lib.sh"

start_file 256M
head -c 64M /dev/urandom >"$SCRATCH/random"
under_shim() { LD_PRELOAD=$SHIM "$@" >"$SCRATCH/out" 2>&1 || {
    cat "$SCRATCH/out" >&2
    fail "$*"
}; }
restore() { dd if="$SCRATCH/random" of="$DEVICE" bs=1M oflag=direct status=none; }

measure_share under_shim dd if="$SCRATCH/random" of="$DEVICE" bs=1M oflag=direct
expect_share_at_least 950 "dd oflag=direct"
measure_share under_shim dd if="$DEVICE" of="$SCRATCH/back" bs=1M count=64 iflag=direct
expect_share_at_least 950 "dd iflag=direct"
cmp "$SCRATCH/random" "$SCRATCH/back"

rm -f "$SCRATCH/back"
measure_share under_shim ddrescue -d -s 64Mi "$DEVICE" "$SCRATCH/back" "$SCRATCH/map"
expect_share_at_least 950 "ddrescue -d"
cmp "$SCRATCH/random" "$SCRATCH/back"

measure_share under_shim ioping -D -q -c 200 -i 0 -s 64k "$DEVICE"
expect_share_at_least 950 "ioping -D"
measure_share under_shim ioping -D -A -q -c 200 -i 0 -s 64k "$DEVICE"
expect_share_at_least 950 "ioping -D -A"

measure_share under_shim qemu-img bench -t none -n -f raw -c 500 -s 64k "$DEVICE"
expect_share_at_least 950 "qemu-img bench, native aio"
measure_share under_shim qemu-img bench -t none -i io_uring -f raw -c 500 -s 64k "$DEVICE"
expect_share_at_least 950 "qemu-img bench, io_uring"
measure_share under_shim qemu-img bench -t none -w --pattern=77 -f raw -c 500 -s 64k "$DEVICE"
expect_share_at_least 950 "qemu-img bench, threads, writing"
restore
measure_share under_shim qemu-img convert -T none -f raw -O qcow2 "$DEVICE" "$SCRATCH/q.qcow2"
expect_share_at_least 950 "qemu-img convert from the device"
measure_share under_shim qemu-img convert -t none -n -f qcow2 -O raw "$SCRATCH/q.qcow2" "$DEVICE"
expect_share_at_least 950 "qemu-img convert to the device"
dd if="$DEVICE" bs=1M count=64 iflag=direct status=none | cmp - "$SCRATCH/random"
measure_share under_shim qemu-io -t none -f raw -c 'write -P 0x5a 1M 8M' -c 'read -P 0x5a 1M 8M' "$DEVICE"
expect_share_at_least 950 "qemu-io"
grep -q 'Pattern verification failed' "$SCRATCH/out" && fail "qemu-io: $(cat "$SCRATCH/out")"

# sysbench wants files
mkfs.ext4 -qF -O ^has_journal "$DEVICE"
mkdir "$SCRATCH/mnt"
mount -o noatime "$DEVICE" "$SCRATCH/mnt"
cd "$SCRATCH/mnt" || exit
fileio() { # sync|async, further arguments
    local mode=$1
    shift
    sysbench fileio --file-num=2 --file-total-size=64M --file-block-size=16384 \
        --file-extra-flags=direct --file-io-mode="$mode" --file-test-mode=rndrw \
        --threads=2 --time=0 --events=2000 "$@"
}
fileio sync --validate=on prepare >/dev/null
sync
fileio_under_shim() { under_shim bash -c "$(declare -f fileio); fileio $*"; }
measure_share fileio_under_shim sync --validate=on run
expect_share_at_least 950 "sysbench fileio, sync"
# With asynchronous I/O its validation fails anywhere: it looks before the data is there.
measure_share fileio_under_shim async run
expect_share_at_least 950 "sysbench fileio, async"
cd /
umount "$SCRATCH/mnt"
e2fsck -fn "$DEVICE" >/dev/null 2>&1 || fail "e2fsck after sysbench"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
