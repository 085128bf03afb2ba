#!/usr/bin/env bash
# Engines that are shared objects: one whose code touches the bytes, over clients' memory that goes away under it; and
# one whose storage is another process, which must be fenced when a server has died.
. "$(dirname "$0")/../lib.sh"
engines=$BUILD/tests/engines

# --- found by name, where the package has them ---------------------------------------
directory=$("$UBLKZC" engines | sed -n '1s/.* in \(.*\)\.$/\1/p')
mkdir -p "$directory"
cp "$engines/crypt.so" "$directory/"
echo "no engine" >"$directory/broken.so"
! "$UBLKZC" engines >"$SCRATCH/out" 2>"$SCRATCH/err" || fail "a broken engine is no error"
grep -q '^-t crypt FILE:' "$SCRATCH/out" || fail "crypt is not listed: $(cat "$SCRATCH/out")"
grep -q "$directory/broken.so: " "$SCRATCH/err" || fail "nothing is said of the broken one"
rm "$directory/broken.so"

# --- one that touches the bytes -------------------------------------------------------
truncate -s 64M "$SCRATCH/secret.img"
head -c 64 /dev/urandom >"$SCRATCH/key"
cd "$SCRATCH" || exit
start -t crypt -o key=key secret.img -q 2 # relative: successors find both
cd / || exit
[ "$("$UBLKZC" list --json | jq -r '.devices[0].target')" = crypt ] || fail "list does not name the engine"

measure_share env LD_PRELOAD="$SHIM" fio --name=crypt --filename="$DEVICE" --direct=1 --rw=randrw \
    --bsrange=4k-256k --ioengine=io_uring --iodepth=8 --size=24m --verify=crc32c --verify_fatal=1 \
    --output-format=normal --output="$SCRATCH/fio.out"
expect_share_at_least 900 "fio, encrypted"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"

# What dm-crypt makes of the file is what the device shows; where the kernel has it.
if modprobe dm-crypt 2>/dev/null && modprobe loop; then
    loop=$(losetup --find --show "$SCRATCH/secret.img")
    dmsetup create plain --table "0 $((64 << 11)) crypt aes-xts-plain64 $(od -An -v -tx1 "$SCRATCH/key" | tr -d ' \n') 0 $loop 0"
    [ -b /dev/mapper/plain ] || dmsetup mknodes plain
    dd if="$DEVICE" of="$SCRATCH/ours" bs=1M count=24 iflag=direct status=none
    dd if=/dev/mapper/plain of="$SCRATCH/theirs" bs=1M count=24 iflag=direct status=none
    dmsetup remove --retry plain
    losetup -d "$loop"
    cmp "$SCRATCH/ours" "$SCRATCH/theirs" || fail "dm-crypt reads something else"
    ! cmp -s "$SCRATCH/ours" "$SCRATCH/secret.img" || fail "nothing is encrypted"
    echo "  dm-crypt reads the same"
else
    echo "  skipped: dm-crypt is not in this kernel"
fi

# --- memory that goes away under it ---------------------------------------------------
# Writes and reads with memory that it truncates or punches while the I/O is under way; what was acknowledged must be
# there. "wire" brings the memory sealed, and so can only punch it; "attach" leaves it to the server.
cat >"$SCRATCH/vanish.py" <<'PYTHON'
import ctypes, mmap, os, random, sys, threading, time

device, how, log, go = sys.argv[1:5]
SIZE = 512 << 10  # one bio, so that all its pages are pinned together
MEMORY = 4 << 20
libc = ctypes.CDLL(None, use_errno=True)
memory = os.memfd_create("vanish", os.MFD_ALLOW_SEALING)
os.ftruncate(memory, MEMORY)
if how == "wire":
    import fcntl, socket, struct
    fcntl.fcntl(memory, 1033, 1 | 2 | 4)  # F_ADD_SEALS: SEAL, SHRINK, GROW
whole = mmap.mmap(memory, MEMORY)
whole[:] = bytes(MEMORY)
view = memoryview(whole)[:SIZE]
disk = os.open(device, os.O_RDWR | os.O_DIRECT)
if how == "wire":  # the older protocol: one byte and the memory
    number = device[len("/dev/ublkb"):]
    sock = socket.socket(socket.AF_UNIX)
    sock.connect("/run/ublk/ublkb%s.sock" % number)
    socket.send_fds(sock, [b"x"], [memory])
    index, = struct.unpack("i", sock.recv(4))
    if index < 0:
        sys.exit("not registered: %d" % index)
plain = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
random.seed(1)
print("ready", flush=True)
while not os.path.exists(go):
    time.sleep(0.05)

def vanish():
    if how == "wire":
        libc.fallocate(memory, 3, ctypes.c_long(0), ctypes.c_long(SIZE))
    else:
        os.ftruncate(memory, 0)

# Before that the program takes away what it is about to write, and then that is what is written.
def wait_until_under_way(thread):
    with open("/sys/block/%s/inflight" % os.path.basename(device)) as f:
        while thread.is_alive():
            f.seek(0)
            if int(f.read().split()[1]):
                return

def said():
    with open(log) as f:
        return "while the engine touched it" in f.read()

begin = time.monotonic()
rounds = 0
while rounds < 10 or not said():
    if rounds >= 10 and time.monotonic() - begin > 600:
        sys.exit("it was never touched while it was gone, in %d rounds" % rounds)
    pattern = bytes([rounds % 255 + 1]) * SIZE
    at = rounds % 8 * SIZE
    view[:] = pattern
    result = []

    def write():
        try:
            result.append(os.pwritev(disk, [view], at))
        except OSError:
            result.append(0)

    thread = threading.Thread(target=write)
    thread.start()
    wait_until_under_way(thread)
    time.sleep(random.random() * 0.04)
    vanish()
    thread.join()
    if how != "wire":
        os.ftruncate(memory, MEMORY)
    os.preadv(disk, [plain], at)
    if plain[:result[0]] != pattern[:result[0]]:
        sys.exit("round %d: what was written is not there" % rounds)
    rounds += 1
    time.sleep(0.02)
print("well", rounds, flush=True)
PYTHON

vanishes() { # HOW
    local before program
    : >"/run/ublkzc/ublkb$ID.log"
    before=$(recoveries)
    python3 "$SCRATCH/vanish.py" "$DEVICE" "$1" "/run/ublkzc/ublkb$ID.log" \
        "$SCRATCH/go.$1" >"$SCRATCH/out" 2>&1 &
    program=$!
    wait_for grep -q ready "$SCRATCH/out"
    [ "$1" != attach ] || "$UBLKZC" attach -n "$ID" --pid $program
    touch "$SCRATCH/go.$1"
    wait $program || fail "$1: $(cat "$SCRATCH/out" "/run/ublkzc/ublkb$ID.log")"
    [ "$(recoveries)" = "$before" ] || fail "$1: the server died: $(cat "/run/ublkzc/ublkb$ID.log")"
    echo "  $1: $(sed -n 's/^well //p' "$SCRATCH/out") rounds, nothing lost, the server lives"
}
vanishes attach
"$UBLKZC" del -n "$ID"
start -t crypt -o key="$SCRATCH/key" "$SCRATCH/secret.img"
vanishes wire

# It is zero-copy again for who behaves, and a successor has the engine and its options.
kill -KILL "$(server)"
wait_for recovered 0
measure_share env LD_PRELOAD="$SHIM" dd if="$DEVICE" of=/dev/null bs=256k count=64 iflag=direct status=none
expect_share_at_least 900 "dd, with a successor"
"$UBLKZC" del -n "$ID"

# --- storage that is elsewhere --------------------------------------------------------
# fence=yes: what the dead server had under way is stopped before anything is submitted
# again. fence=no shows what would happen: the old write comes after the new one.
stale_write() { # yes|no, what becomes of the dead server's write
    local storage writer
    truncate -s 1M "$SCRATCH/remote.img"
    rm -f "$SCRATCH/remote"
    "$engines/storage" "$SCRATCH/remote" "$SCRATCH/remote.img" >"$SCRATCH/storage.out" &
    storage=$!
    wait_for test -S "$SCRATCH/remote"
    start -t "$engines/remote.so" -o fence="$1" "$SCRATCH/remote"
    run_fio --name=elsewhere --filename="$DEVICE" --direct=1 --rw=randrw --bs=4k --ioengine=libaio \
        --iodepth=16 --offset=64k --size=512k --verify=crc32c --verify_fatal=1
    yes old | head -c 4096 >"$SCRATCH/old"
    yes new | head -c 4096 >"$SCRATCH/new"
    dd if="$SCRATCH/old" of="$DEVICE" bs=4096 oflag=direct status=none &
    writer=$!
    wait_for grep -q '^kept: 4096 bytes at 0' "$SCRATCH/storage.out"
    kill -KILL "$(server)"
    wait $writer || fail "a write failed because the server died"
    dd if="$SCRATCH/new" of="$DEVICE" bs=4096 oflag=direct status=none
    kill -USR1 $storage
    wait_for grep -q "^$2: 4096 bytes at 0" "$SCRATCH/storage.out"
    head -c 4096 "$SCRATCH/remote.img" >"$SCRATCH/now"
    "$UBLKZC" del -n "$ID"
    kill $storage
    wait $storage || :
}
stale_write yes fenced
cmp "$SCRATCH/now" "$SCRATCH/new" || fail "a dead server's write has destroyed a newer one"
stale_write no late
cmp "$SCRATCH/now" "$SCRATCH/old" || fail "without a fence the dead server's write did not come: this tests nothing"
echo "  a dead server's write is fenced; without the fence it destroys a newer one"
