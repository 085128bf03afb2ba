#!/usr/bin/env bash
# Memory that does not exist is not made to: an ordinary user with memfds of any shape cannot
# have a server killed that may use 256 MiB, and what he touches is charged to his own cgroup.
. "$(dirname "$0")/../lib.sh"

CGROUPS=$SCRATCH/mnt-cgroups
mkdir "$CGROUPS"
mount -t cgroup2 cgroup2 "$CGROUPS" 2>/dev/null || {
    echo "  skipped: no cgroup v2 here"
    exit 0
}
echo +memory >"$CGROUPS/cgroup.subtree_control" 2>/dev/null || {
    echo "  skipped: no memory controller"
    umount "$CGROUPS"
    exit 0
}
for name in server client; do
    mkdir -p "$CGROUPS/ublkzc-$name"
    [ ! -e "$CGROUPS/ublkzc-$name/memory.swap.max" ] || echo 0 >"$CGROUPS/ublkzc-$name/memory.swap.max"
done
echo 256M >"$CGROUPS/ublkzc-server/memory.max"
echo 512M >"$CGROUPS/ublkzc-client/memory.max"
in_cgroup() { # NAME COMMAND...
    local name=$1
    shift
    bash -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$CGROUPS/ublkzc-$name" "$@"
}
of_cgroup() { cat "$CGROUPS/ublkzc-$1/$2"; } # NAME FILE

truncate -s 64M "$SCRATCH/disk.img"
DEVICE=$(in_cgroup server "$UBLKZC" add -t file "$SCRATCH/disk.img")
ID=${DEVICE#/dev/ublkb}
DEVICES+=("$DEVICE")
chmod 666 "$DEVICE"
chmod a+rx "$SCRATCH" /run/tmp 2>/dev/null || :
before=$(server)

cat >"$SCRATCH/shapes.py" <<'PYTHON'
import mmap, os, sys, threading, time
sys.path.insert(0, sys.argv[1])
from wire_client import ADD, HELLO, REMOVE, Client, HungUp, Refused, sealed_memfd

path, device = sys.argv[2:]
MIB = 1 << 20
proof = os.open(device, os.O_RDWR | os.O_DIRECT)
client = Client(path)
client.ask(HELLO, proof)

def add(fd, size):
    try:
        return client.ask(ADD, fd, length=size)
    except Refused as refusal:
        return refusal

def shape(name, size, touch):
    fd = sealed_memfd(size)
    memory = mmap.mmap(fd, size)
    touched = touch(memory)
    print(f"  {name}: {size >> 20} MiB, {touched >> 10} KiB touched: {add(fd, size)!r}", flush=True)
    return fd, memory

def every(step, until):
    def touch(memory):
        for at in range(0, until, step):
            memory[at] = 1
        return until // step * 4096
    return touch

kept = [
    shape("nothing of it", 512 * MIB, lambda memory: 0),
    shape("one page", 1024 * MIB, every(1024 * MIB, 1024 * MIB)),
    shape("every second page", 64 * MIB, every(8192, 64 * MIB)),
    shape("every 2 MiB", 512 * MIB, every(2 * MIB, 512 * MIB)),
    shape("whole", 96 * MIB, every(4096, 96 * MIB)),
]

# Read into memory that does not exist yet, so that the server looks again and again.
hole = kept[0][1]
view = memoryview(hole)
for at in range(0, 64 * MIB, MIB):
    os.preadv(proof, [view[at:at + MIB]], 0)

# Holes that come and go while the memory is registered and read into.
fd, memory = kept[4]
stop = time.monotonic() + 8
def punch():
    while time.monotonic() < stop:
        for at in range(0, 96 * MIB, 4 * MIB):
            memory.madvise(mmap.MADV_REMOVE, at, 2 * MIB)
            memory[at] = 1
def readd():
    while time.monotonic() < stop:
        number = add(fd, 96 * MIB)
        if isinstance(number, int):
            client.ask(REMOVE, index=number)
threads = [threading.Thread(target=punch), threading.Thread(target=readd)]
for thread in threads:
    thread.start()
window = memoryview(memory)
while time.monotonic() < stop:
    for at in range(0, 96 * MIB, 4 * MIB):
        try:
            os.preadv(proof, [window[at:at + MIB]], 0)
        except OSError:
            pass  # his own request
for thread in threads:
    thread.join()
more = [shape("another", 256 * MIB, lambda memory: 0) for _ in range(100)]
print("done", flush=True)
PYTHON
in_cgroup client setpriv --reuid=65534 --clear-groups \
    /usr/bin/python3 "$SCRATCH/shapes.py" "$TREE/tests/vm" "/run/ublkzc/ublkb$ID.sock" "$DEVICE" >"$SCRATCH/shapes" ||
    fail "the hostile client: $(cat "$SCRATCH/shapes")"
grep -v another "$SCRATCH/shapes"
[ "$(server)" = "$before" ] || fail "the server was killed"
[ "$(recoveries)" = 0 ] || fail "the server was replaced"
! grep -q 'oom_kill [1-9]' "$CGROUPS/ublkzc-server/memory.events" ||
    fail "out of memory: $(of_cgroup server memory.events)"
used=$(of_cgroup server memory.peak 2>/dev/null || of_cgroup server memory.current)
echo "  the server has used $((used >> 20)) MiB at most, the client's cgroup $(($(of_cgroup client memory.peak 2>/dev/null || echo 0) >> 20)) MiB"
[ "$used" -lt $((128 << 20)) ] || fail "charged to the server: $used bytes"
wait_for nothing_registered
wait_for none_pinned
LD_PRELOAD=$SHIM measure_share run_fio --name=t --filename="$DEVICE" --direct=1 --rw=randread --bs=64k \
    --size=32m --time_based --runtime=3
expect_share_at_least 500 "somebody else, afterwards"
wait_for nothing_registered
"$UBLKZC" del -n "$ID"
DEVICES=()
rmdir "$CGROUPS"/ublkzc-server "$CGROUPS"/ublkzc-client
umount "$CGROUPS"
