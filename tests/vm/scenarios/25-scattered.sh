#!/usr/bin/env bash
# Requests made of several buffers: our driver lists them, and they are zero-copy; the stock
# one copies them. Right they are on both.
. "$(dirname "$0")/../lib.sh"

lists() { has_feature SHMEM_SEGS; }
scattered() { stat_get .scattered; }

expect_listed() { # DESCRIPTION
    if lists; then
        expect_share_at_least 950 "$1"
        [ "$(scattered)" -gt 0 ] || fail "$1: nothing was scattered: $(stat_json)"
    else
        [ "$(scattered)" = 0 ] || fail "$1: scattered without a driver that says so"
        echo "  $1: $SHARE per mille of $BYTES bytes zero-copy (a driver without lists)"
    fi
}

# ROUNDS times, or (0) until the file "stop" is there, writes random data out of so many
# random pieces of three buffers, and reads it into others. SHIFT bytes off the pages.
cat >"$SCRATCH/vectors.py" <<'PYTHON'
import itertools, mmap, os, random, sys

device, (piece, count, rounds, shift) = sys.argv[1], map(int, sys.argv[2:])
SIZE = 1 << 20
buffers = [mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(3)]
for b in buffers:
    b[:] = bytes(SIZE)  # a server registers what exists
pieces = [memoryview(b)[at:at + piece]
          for b in buffers for at in range(shift, SIZE - piece, piece)]
fd = os.open(device, os.O_RDWR | os.O_DIRECT)
random.seed(piece)
stop = os.path.join(os.path.dirname(sys.argv[0]), "stop")
for i in range(rounds) if rounds else itertools.count():
    if os.path.exists(stop):
        break
    chosen = random.sample(pieces, 2 * count)
    data = os.urandom(count * piece)
    for n, p in enumerate(chosen[:count]):
        p[:] = data[n * piece:(n + 1) * piece]
    at = random.randrange(0, 16 << 20, 4096)
    if os.pwritev(fd, chosen[:count], at) != len(data):
        sys.exit("short write")
    if os.preadv(fd, chosen[count:], at) != len(data):
        sys.exit("short read")
    if b"".join(chosen[count:]) != data:
        sys.exit(f"round {i} at {at}: read what was not written")
PYTHON
vectors() { # BYTES COUNT ROUNDS SHIFT
    UBLKZC_CAPTURE=mmap LD_PRELOAD=$SHIM python3 "$SCRATCH/vectors.py" "$DEVICE" "$@"
}

pieces() { # TARGET, BYTES...
    local target=$1 piece
    shift
    measure_share vectors "$1" 1 20 0
    expect_share_at_least 950 "$target, one piece"
    for piece in "$@"; do
        measure_share vectors "$piece" 12 20 0
        expect_listed "$target, pieces of $piece bytes"
    done
    [ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
    wait_for nothing_registered
}
start_file 32M --block-size 4096
pieces file 4096 20480
start -t mem --size 32M
pieces mem 512 4096 20480

# Pieces that the storage cannot take directly are copied. (A driver that can ask for
# alignment has no such requests.)
if lists; then
    truncate -s 32M "$SCRATCH/loop.img"
    modprobe loop
    loop=$(losetup --find --show "$SCRATCH/loop.img")
    start -t file "$loop"
    vectors 4096 12 20 4
    [ "$(stat_get .scattered)" = 0 ] || fail "misaligned for the storage: $(stat_json)"
    [ "$(stat_get .not_zero_copy.misaligned)" -gt 0 ] || fail "nothing was misaligned"
    measure_share vectors 4096 12 20 0
    expect_listed "aligned for direct I/O to a block device"
    "$UBLKZC" del -n "$ID"
    losetup --detach "$loop"
fi

# Merged requests of one program's many buffers.
start_file 64M --merges
LD_PRELOAD=$SHIM measure_share run_fio --name=t --filename="$DEVICE" --direct=1 --rw=write \
    --bs=4k --size=8m --ioengine=libaio --iodepth=32 --iodepth_batch=16 \
    --verify=crc32c --verify_fatal=1
expect_listed "merged requests"

# The server dies meanwhile, three times.
start_file 32M
vectors 4096 12 0 0 &
program=$!
for _ in 1 2 3; do
    sleep 1
    before=$(stat_get .recoveries)
    kill -9 "$(stat_get .pid)"
    wait_for eval "[ \$(stat_get .recoveries) -gt $before ]"
done
touch "$SCRATCH/stop"
wait $program || fail "what was read is not what was written"
wait_for nothing_registered
wait_for none_pinned
