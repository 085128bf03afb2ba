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

share_at_least 950 "dd oflag=direct" \
    under_shim dd if="$SCRATCH/random" of="$DEVICE" bs=1M oflag=direct
share_at_least 950 "dd iflag=direct" \
    under_shim dd if="$DEVICE" of="$SCRATCH/back" bs=1M count=64 iflag=direct
cmp "$SCRATCH/random" "$SCRATCH/back"

rescue() {
    rm -f "$SCRATCH/back" "$SCRATCH/map"
    under_shim ddrescue -d -s 64Mi "$DEVICE" "$SCRATCH/back" "$SCRATCH/map"
}
share_at_least 950 "ddrescue -d" rescue
cmp "$SCRATCH/random" "$SCRATCH/back"

share_at_least 950 "ioping -D" \
    under_shim ioping -D -q -c 200 -i 0 -s 64k "$DEVICE"
share_at_least 950 "ioping -D -A" \
    under_shim ioping -D -A -q -c 200 -i 0 -s 64k "$DEVICE"

share_at_least 950 "qemu-img bench, native aio" \
    under_shim qemu-img bench -t none -n -f raw -c 500 -s 64k "$DEVICE"
share_at_least 950 "qemu-img bench, io_uring" \
    under_shim qemu-img bench -t none -i io_uring -f raw -c 500 -s 64k "$DEVICE"
share_at_least 950 "qemu-img bench, threads, writing" \
    under_shim qemu-img bench -t none -w --pattern=77 -f raw -c 500 -s 64k "$DEVICE"
restore
share_at_least 950 "qemu-img convert from the device" \
    under_shim qemu-img convert -T none -f raw -O qcow2 "$DEVICE" "$SCRATCH/q.qcow2"
share_at_least 950 "qemu-img convert to the device" \
    under_shim qemu-img convert -t none -n -f qcow2 -O raw "$SCRATCH/q.qcow2" "$DEVICE"
dd if="$DEVICE" bs=1M count=64 iflag=direct status=none | cmp - "$SCRATCH/random"
share_at_least 950 "qemu-io" \
    under_shim qemu-io -t none -f raw -c 'write -P 0x5a 1M 8M' -c 'read -P 0x5a 1M 8M' "$DEVICE"
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
share_at_least 950 "sysbench fileio, sync" \
    fileio_under_shim sync --validate=on run
# With asynchronous I/O its validation fails anywhere: it looks before the data is there.
share_at_least 950 "sysbench fileio, async" \
    fileio_under_shim async run
cd /
umount "$SCRATCH/mnt"
e2fsck -fn "$DEVICE" >/dev/null 2>&1 || fail "e2fsck after sysbench"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
