#!/usr/bin/env bash
# Memory of huge pages (hugetlbfs): what the client has touched is registered, what he has not is
# neither allocated nor registered by the server, and what he touches later is registered later.
# And the library's memory is huge pages, where the system lets it.
. "$(dirname "$0")/../lib.sh"

MIB=$((1 << 20)) HUGE=$((2 << 20))
echo 64 >/proc/sys/vm/nr_hugepages
at_end 'echo 0 >/proc/sys/vm/nr_hugepages'
free_pages() { awk '/^HugePages_Free/ { print $2 }' /proc/meminfo; }
all_free() { [ "$(free_pages)" = "$(cat /proc/sys/vm/nr_hugepages)" ]; }
[ "$(free_pages)" -ge 40 ] || fail "only $(free_pages) huge pages could be had"
grep -q 'Hugepagesize: *2048 kB' /proc/meminfo || fail "huge pages of another size: $(grep Hugepagesize /proc/meminfo)"

start_file 64M
cat >"$SCRATCH/client.py" <<'PYTHON'
import fcntl, mmap, os, sys
sys.path.insert(0, sys.argv[1])
from wire_client import ADD, HELLO, REMOVE, Client

path, device = sys.argv[2:]
HUGE = 2 << 20
proof = os.open(device, os.O_RDWR | os.O_DIRECT)
client = Client(path)
client.ask(HELLO, proof)

def step(what):
    print(what, flush=True)
    return sys.stdin.readline()

def huge(pages, touched):
    fd = os.memfd_create("huge", os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    os.ftruncate(fd, pages * HUGE)
    fcntl.fcntl(fd, 1033, 1 | 2 | 4)  # F_ADD_SEALS: SEAL, SHRINK, GROW
    memory = mmap.mmap(fd, pages * HUGE)
    for page in touched:
        memory[page * HUGE] = 1
    return fd, memory

def read(memory, page, length=HUGE):
    view = memoryview(memory)
    for at in range(page * HUGE, page * HUGE + length, 1 << 18):
        assert os.preadv(proof, [view[at:at + (1 << 18)]], at) == 1 << 18

whole, whole_memory = huge(8, range(8))
step("touched whole")
number = client.ask(ADD, whole, length=8 * HUGE)
step("added")
for page in range(8):
    read(whole_memory, page)
step("read")
client.ask(REMOVE, index=number)
step("removed")
sparse, sparse_memory = huge(16, range(0, 16, 2))
step("touched every second")
client.ask(ADD, sparse, length=16 * HUGE)
step("added")
for page in range(0, 16, 2):
    read(sparse_memory, page)
step("read")
read(sparse_memory, 5, 1 << 18)  # exists from now on
step("read into a hole")
# Until what has come to be is registered, too.
while step("again") != "enough\n":
    read(sparse_memory, 5)
PYTHON
coproc CLIENT { python3 "$SCRATCH/client.py" "$TREE/tests/vm" "/run/ublkzc/ublkb$ID.sock" "$DEVICE"; }
# Bash forgets these when it ends.
client=$CLIENT_PID from=${CLIENT[0]} to=${CLIENT[1]}
expect() { # STEP that the client has come to
    local said
    read -r said <&"$from" || fail "the client has ended before '$1'"
    [ "$said" = "$1" ] || fail "the client has come to '$said', and not '$1'"
}
no_buffers() { [ "$(stat_get .buffers)" = 0 ]; }
go_on() { echo "${1-}" >&"$to"; }
expect_registered() { # BYTES
    [ "$(stat_get .buffer_bytes)" = "$1" ] || fail "$(stat_get .buffer_bytes) bytes are registered, and not $1"
}
expect_free() { [ "$(free_pages)" = "$1" ] || fail "$(free_pages) huge pages are free, and not $1: $2"; }

# --- all of it exists ------------------------------------------------------------------------
expect "touched whole"
free=$(free_pages)
go_on
expect "added"
expect_registered $((8 * HUGE))
expect_free "$free" "the server took some"
whole_is_read() { go_on && expect "read"; }
measure_share whole_is_read
expect_share_at_least 1000 "memory of huge pages"
go_on
expect "removed"
wait_for no_buffers
go_on
# --- every second page of it ------------------------------------------------------------------
expect "touched every second"
free=$(free_pages)
go_on
expect "added"
expect_free "$free" "the server allocated what the client never touched"
expect_registered $((8 * HUGE))
measure_share whole_is_read
expect_share_at_least 1000 "the half of it that exists"
hole_is_read() { go_on && expect "read into a hole"; }
measure_share hole_is_read
expect_no_share "what did not exist"
expect_free $((free - 1)) "the client read into one page that did not exist"
go_on
expect "again"
read_again() { go_on && expect "again"; }
registered_too() { sleep 0.3; measure_share read_again; [ "$SHARE" = 1000 ]; }
wait_for registered_too
expect_registered $((9 * HUGE))
expect_free $((free - 1)) "the server took some, later"
echo "  $((BYTES / MIB)) MiB that were touched later are registered too; the server allocated none"
go_on enough
wait "$client" || fail "the client: status $?"
wait_for nothing_registered
wait_for none_pinned
wait_for all_free

# --- the library's own, where the system lets shared memory have huge pages --------------------
shmem_may_be_huge advise
# Many buffers in one block, of which most is touched by I/O alone.
(LD_PRELOAD=$SHIM run_fio --name=j --thread=1 --filename="$DEVICE" --direct=1 --rw=randread --bs=1m --size=64M \
    --ioengine=io_uring --iodepth=24 --time_based --runtime=600) >"$SCRATCH/fio" 2>&1 &
job=$!
buffers_are_huge() { [ "$(awk '/^ShmemHugePages/ { print $2 }' /proc/meminfo)" -ge $((24 << 10)) ]; }
(wait_for buffers_are_huge) || fail "$(grep ShmemHuge /proc/meminfo); $(cat "$SCRATCH/fio")"
echo "  24 buffers of 1 MiB are huge pages"
pkill -INT -P $job fio
wait $job || : # it was told to end
