#!/usr/bin/env bash
# Memory that a program itself shares is zero-copy without replacement: under the shim,
# and attached while it runs without the shim.
. "$(dirname "$0")/../lib.sh"

# Reads the device into one buffer of KIND for ever, in COUNT processes; says "wrong"
# when what it reads is not what is there.
cat >"$SCRATCH/reader.py" <<'PYTHON'
import ctypes, mmap, os, sys

device, kind, children = sys.argv[1], sys.argv[2], int(sys.argv[3])
SIZE = 4 << 20
libc = ctypes.CDLL(None, use_errno=True)

def shared_buffer():
    global memory
    if kind == "anonymous":
        return mmap.mmap(-1, SIZE)
    if kind == "sysv":
        libc.shmat.restype = ctypes.c_void_p
        segment = libc.shmget(0, SIZE, 0o600 | 0o1000)
        at = libc.shmat(segment, None, 0)
        libc.shmctl(segment, 0, None) # gone with its last user
        return (ctypes.c_char * SIZE).from_address(at)
    if kind == "memfd":
        memory = os.memfd_create("reader")
    else:
        memory = os.open("/dev/shm/reader", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(memory, SIZE)
    return mmap.mmap(memory, SIZE)

buffer = shared_buffer()
view = memoryview(buffer).cast("B")
if os.environ.get("TOUCH"):
    view[:] = bytes(SIZE)
for _ in range(children):
    if os.fork() == 0:
        break
fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
with open(os.environ["EXPECTED"], "rb") as f:
    expected = f.read()
rounds = int(os.environ.get("ROUNDS", 1 << 30))
for i in range(rounds):
    if os.environ.get("PUNCH"):  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        libc.fallocate(memory, 3, ctypes.c_long(1 << 20), ctypes.c_long(1 << 20))
    for at in range(0, SIZE, 1 << 18):
        os.preadv(fd, [view[at:at + (1 << 18)]], at)
    if view[:] != expected:
        print("wrong", flush=True)
        sys.exit(1)
PYTHON

start_file 64M
head -c 4M /dev/urandom >"$SCRATCH/expected"
export EXPECTED=$SCRATCH/expected
dd if="$EXPECTED" of="$DEVICE" bs=1M oflag=direct status=none

# Under the shim: what exists is registered at the open.
for kind in anonymous sysv memfd shm; do
    export ROUNDS=4
    measure_share env TOUCH=1 LD_PRELOAD="$SHIM" python3 "$SCRATCH/reader.py" "$DEVICE" $kind 0
    expect_share_at_least 950 "under the shim: $kind"
done
unset ROUNDS
wait_for nothing_registered

# Without the shim: attached while it runs.
reader() { # KIND CHILDREN: sets READER
    python3 "$SCRATCH/reader.py" "$DEVICE" "$1" "$2" >"$SCRATCH/reader.out" 2>&1 &
    READER=$!
    wait_for reads_go_on
}
reads_go_on() {
    local before
    before=$(all_bytes)
    sleep 0.3
    [ "$(all_bytes)" -gt "$before" ]
}
for kind in anonymous sysv memfd shm; do
    reader $kind 0
    measure_share sleep 1
    expect_no_share "not attached yet: $kind"
    "$UBLKZC" attach --dry-run --pid $READER | grep -q 'would register' ||
        fail "dry run finds nothing: $(grep ' rw-s ' /proc/$READER/maps)"
    "$UBLKZC" attach --pid $READER
    measure_share sleep 1
    expect_share_at_least 950 "attached: $kind"
    "$UBLKZC" attach --list --json | jq -e ".attached[0].pid == $READER and .attached[0].buffers == 1" >/dev/null ||
        fail "list: $("$UBLKZC" attach --list)"
    "$UBLKZC" detach --pid $READER
    wait_for nothing_registered
    measure_share sleep 1
    expect_no_share "detached: $kind"
    kill $READER
    wait $READER 2>/dev/null || :
    [ ! -s "$SCRATCH/reader.out" ] || fail "$kind: $(cat "$SCRATCH/reader.out")"
done
wait_for none_pinned

# A family of processes shares one segment, which is registered once; the parent's
# death ends nothing, the last one's death ends all.
reader anonymous 3
"$UBLKZC" attach --pid $READER --device "$DEVICE"
family_is_known() {
    "$UBLKZC" attach --list --json | jq -e '.attached[0].processes == 4 and .attached[0].buffers == 1' >/dev/null
}
wait_for family_is_known
measure_share sleep 1
expect_share_at_least 950 "four processes"
[ "$(stat_get .buffers)" = 1 ] || fail "one segment, $(stat_get .buffers) buffers"
children=$(pgrep -P $READER)
kill -9 $READER
measure_share sleep 3
expect_share_at_least 950 "its children, after the parent was killed"
# shellcheck disable=SC2086
kill -9 $children
wait_for nothing_registered
wait_for none_pinned
[ "$("$UBLKZC" attach --list)" = "" ] || fail "still attached: $("$UBLKZC" attach --list)"

# Memory that is punched and shrinks under the server harms only its owner: pages that
# came later are just not registered.
export PUNCH=1
reader shm 0
unset PUNCH
"$UBLKZC" attach --pid $READER
# Not at any moment: what was punched is looked for and registered again now and then, and what
# lies beside it with it, which is copied meanwhile.
mostly_zero_copy() {
    measure_share sleep 2
    [ "$SHARE" -ge 700 ]
}
wait_for mostly_zero_copy
[ ! -s "$SCRATCH/reader.out" ] || fail "after punching: $(cat "$SCRATCH/reader.out")"
expect_share_at_least 700 "attached, a quarter of it punched each time"
truncate -s 1M /dev/shm/reader
wait $READER 2>/dev/null && fail "the reader survived the loss of its memory"
wait_for nothing_registered
wait_for none_pinned
[ "$("$UBLKZC" list --json | jq '.devices[0].alive')" = true ] || fail "the server is dead"
dd if="$DEVICE" bs=1M count=4 iflag=direct status=none | cmp - "$EXPECTED"

# Shared memory that was never touched costs nothing, and is not touched by us; the part that
# the program reads into is zero-copy once it exists.
cat >"$SCRATCH/sparse.py" <<'PYTHON'
import mmap, os, sys, time
memory = mmap.mmap(-1, 1536 << 20)
view = memoryview(memory)
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
print("mapped", flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.05)
while True:
    for at in range(0, 4 << 20, 1 << 18):
        os.preadv(fd, [view[(700 << 20) + at:(700 << 20) + at + (1 << 18)]], at)
PYTHON
shmem_kib() { awk '/^Shmem:/ { print $2 }' /proc/meminfo; }
for how in shim attach; do
    rm -f "$SCRATCH/go"
    before=$(shmem_kib)
    preload=
    [ $how = attach ] || preload=$SHIM
    LD_PRELOAD=$preload python3 "$SCRATCH/sparse.py" "$DEVICE" "$SCRATCH/go" >"$SCRATCH/sparse.out" &
    READER=$!
    wait_for grep -q mapped "$SCRATCH/sparse.out"
    [ $how = shim ] || "$UBLKZC" attach --pid $READER
    sleep 4
    grew=$(($(shmem_kib) - before))
    [ $grew -lt 32768 ] || fail "$how: 1.5 GiB that nobody touched have become $grew KiB"
    touch "$SCRATCH/go"
    sleep 4
    measure_share sleep 1
    expect_share_at_least 900 "$how: a part of 1.5 GiB, of which $grew KiB existed before"
    grew=$(($(shmem_kib) - before))
    [ $grew -lt 65536 ] || fail "$how: 4 MiB that were touched have become $grew KiB"
    kill $READER
    wait $READER 2>/dev/null || :
    wait_for nothing_registered
done

# What cannot be attached is said.
says() { # EXPECTED TEXT, COMMAND...
    local want=$1
    shift
    "$@" >"$SCRATCH/said" 2>&1 && fail "$* succeeded"
    grep -q "$want" "$SCRATCH/said" || fail "$*: $(cat "$SCRATCH/said")"
}
says 'No such process' "$UBLKZC" attach --pid 999999
says 'not attached' "$UBLKZC" detach --pid $$ -n "$ID"
says 'no server' "$UBLKZC" attach --pid $$ -n 77
sleep 60 &
"$UBLKZC" attach --pid $! | grep -q 'shares no memory' || fail "nothing was said about private memory"
kill $!
says 'only root' setpriv --reuid 65534 --regid 65534 --clear-groups "$UBLKZC" attach --pid $$ -n "$ID"
