#!/usr/bin/env bash
# A full /run, a driver that refuses, storage and programs of odd alignment: clear errors,
# nothing left behind, and what can work works.
. "$(dirname "$0")/../lib.sh"

nothing_left() { [ -z "$(find /dev -name 'ublk[bc]*')" ] && ! pgrep -x ublkzc >/dev/null; }
refused() { # WHY, COMMAND...
    local why=$1 text status=0
    shift
    text=$(timeout 60 "$@" 2>&1) || status=$?
    [ "$status" = 1 ] || fail "$*: status $status: $text"
    grep -q -- "$why" <<<"$text" || fail "$*: says '$text', not '$why'"
    wait_for nothing_left
    echo "  $why: said, and nothing is left"
}
truncate -s 64M "$SCRATCH/disk.img"

# --- the driver refuses a FETCH ---------------------------------------------------------------
refused 'the driver refuses tag' env LD_PRELOAD="$BUILD/tests/faults/librefuse_fetch.so" \
    "$UBLKZC" add -t file -q 2 "$SCRATCH/disk.img"
refused 'the driver refuses tag' env LD_PRELOAD="$BUILD/tests/faults/librefuse_fetch.so" \
    "$UBLKZC" add -t file --recovery none "$SCRATCH/disk.img"

# --- /run is full -------------------------------------------------------------------------------
mkdir -p /run/ublkzc
mount -t tmpfs -o size=64k,mode=755 tmpfs /run/ublkzc
at_end 'umount -l /run/ublkzc'
dd if=/dev/zero of=/run/ublkzc/filler bs=4k status=none 2>/dev/null || :
refused 'No space left on device' "$UBLKZC" add -t file "$SCRATCH/disk.img"
"$UBLKZC" list >"$SCRATCH/out" || fail "list with a full /run: $?"
refused 'No space left on device' "$UBLKZC" add -t file --recovery none "$SCRATCH/disk.img"
rm /run/ublkzc/filler
start -t file "$SCRATCH/disk.img"
dd if=/dev/zero of=/run/ublkzc/filler bs=4k status=none 2>/dev/null || :
kill -9 "$(server)"
wait_for recovered 0
run_fio --name=t --filename="$DEVICE" --direct=1 --rw=randwrite --bs=64k --size=4m --verify=crc32c
"$UBLKZC" list | grep -q "$DEVICE" || fail "list does not show $DEVICE"
"$UBLKZC" del -n "$ID"
wait_for nothing_left
umount /run/ublkzc
trap finish EXIT

# --- storage that does not name its alignment, programs with one of their own ---------------------
cat >"$SCRATCH/aligned.py" <<'PY'
import mmap, os, sys, time
device, align = sys.argv[1], int(sys.argv[2])
memory = mmap.mmap(-1, 4 << 20)
memory[:] = os.urandom(4 << 20)
view = memoryview(memory)
fd = os.open(device, os.O_RDWR | os.O_DIRECT)
deadline = time.monotonic() + 3
turn = 0
while turn < 20 or time.monotonic() < deadline:  # so that the memory is registered meanwhile
    turn += 1
    at = 8192 * (turn % 100) + align
    data = bytes(view[at:at + 65536])
    assert os.pwritev(fd, [view[at:at + 65536]], 0) == 65536
    view[2 << 20:(2 << 20) + 131072] = bytes(131072)
    into = (2 << 20) + align
    assert os.preadv(fd, [view[into:into + 65536]], 0) == 65536
    assert bytes(view[into:into + 65536]) == data, f"turn {turn}"
    assert bytes(view[into + 65536:into + 70000]) == bytes(4464), f"turn {turn}: behind it"
PY
start_file 64M # on tmpfs
dma=$(cat "/sys/block/${DEVICE#/dev/}/queue/dma_alignment")
[ "$dma" -le 511 ] || fail "programs must align to $((dma + 1)) bytes"
for align in 4096 1024 512 4; do
    [ $align -gt "$dma" ] || { echo "  $align bytes: before Linux 6.15 the block layer refuses it" && continue; }
    LD_PRELOAD=$SHIM measure_share timeout 60 python3 "$SCRATCH/aligned.py" "$DEVICE" $align ||
        fail "a program that aligns to $align bytes: $?"
    expect_share_at_least 1 "memory aligned to $align bytes"
    [ $align = 4096 ] || [ "$(stat_get .bounced)" -gt 0 ] || fail "nothing was bounced: $(stat_json)"
done
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
