#!/usr/bin/env bash
# When memory is short the kernel swaps to a ublkzc device, or writes back files on it, and its
# server itself needs memory: it must not wait for what only it can do. (Seen to
# hang for ever, within seconds, with a server that may not become an I/O flusher.)
. "$(dirname "$0")/../lib.sh"

# --- by the kernel's own flags: each thread of server, successor and keeper ----------------
# PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE of include/linux/sched.h, which prctl(2) sets.
FLAGS=$((0x80000 | 0x100000))
expect_flusher() { # PROCESS
    local task flags seen=0
    for task in /proc/"$1"/task/*; do
        # A worker of a ring may have ended.
        flags=$(sed 's/.*) //' "$task/stat" 2>/dev/null | cut -d' ' -f7)
        [ -n "$flags" ] || continue
        seen=$((seen + 1))
        [ $((flags & FLAGS)) = $FLAGS ] ||
            fail "$(cat "$task/comm"), thread ${task##*/} of $1, has flags $(printf %#x "$flags")"
    done
    [ $seen -gt 0 ] || fail "process $1 has no threads"
}
# Nothing of a program that the kernel could take away, and would have to read again.
expect_locked() { # PROCESS
    awk '/^[0-9a-f]+-/ { mapping = $0; code = $2 ~ /x/ && $6 ~ "^/" }
        /^Rss:/ { rss = $2 } /^Size:/ { size = $2 }
        /^VmFlags:/ && code { seen++; if (rss < size || !/ lo/) { print mapping, rss, "of", size, "KiB", $0; bad = 1 } }
        END { exit bad || !seen }' "/proc/$1/smaps" || fail "process $1 is not locked in memory"
}
start_file 64M -q 2
# so that the workers of its rings exist
LD_PRELOAD=$SHIM run_fio --name=t --filename="$DEVICE" --direct=1 --rw=randwrite --bs=64k --size=16m \
    --ioengine=libaio --iodepth=8 --fsync=4
expect_flusher "$(server)"
expect_flusher "$(keeper)"
expect_locked "$(server)"
expect_locked "$(keeper)"
kill -9 "$(server)"
wait_for recovered 0
expect_flusher "$(server)"
expect_locked "$(server)"
# What is only mapped costs nothing: one queue's own memory for copies is 128 MiB.
rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$(server)/status")
[ "$rss" -lt 65536 ] || fail "the server has $rss KiB in memory"
"$UBLKZC" del -n "$ID"
echo "  all threads are I/O flushers, and locked in memory; $rss KiB"

# --- swap on the device, and little memory ---------------------------------------------------
modprobe brd rd_nr=1 rd_size=$((300 << 10))
dd if=/dev/zero of=/dev/ram0 bs=1M status=none 2>/dev/null || : # so that it takes no memory later
mkfs.ext4 -qF -E nodiscard /dev/ram0
mkdir "$SCRATCH/mnt"
mount /dev/ram0 "$SCRATCH/mnt"
at_end 'echo 0 >/proc/sys/vm/nr_hugepages; swapoff -a'
cat >"$SCRATCH/hog.py" <<'PY'
import mmap, sys
size = 320 << 20
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for turn in range(2):
    for at in range(0, size, 4096):
        if turn and memory[at:at + 8] != (at + turn - 1).to_bytes(8, "little"):
            sys.exit(f"byte {at} is another in turn {turn}")
        memory[at:at + 8] = (at + turn).to_bytes(8, "little")
PY
add() { # options of add
    # WITHOUT=1: to see it fail
    DEVICE=$(${WITHOUT:+setpriv --bounding-set -sys_resource} "$UBLKZC" add -t file -d 4 "$@" "$SCRATCH/mnt/disk.img")
    ID=${DEVICE#/dev/ublkb}
    DEVICES+=("$DEVICE")
}
leave_free() { # MIB
    local free
    echo 3 >/proc/sys/vm/drop_caches
    # Huge pages are nobody's else.
    free=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
    echo $(((free - $1) / 2)) >/proc/sys/vm/nr_hugepages
}
written() {
    local in_place copied
    read -r in_place copied < <(stat_get .write.zero_copy.bytes .write.copied.bytes)
    echo $((in_place + copied))
}

# Programs want 320 MiB, and there are 160. All of the storage has been written before: a file system
# that has to allocate blocks needs memory for that, when there is none (docs/recovery.md).
dd if=/dev/zero of="$SCRATCH/mnt/disk.img" bs=1M count=200 status=none
sync
add
mkswap -q "$DEVICE"
swapon "$DEVICE"
leave_free 160
timeout 600 python3 "$SCRATCH/hog.py" || fail "programs that are swapped: status $?"
[ "$(written)" -gt $((40 << 20)) ] || fail "only $(written) bytes were swapped: there was no need"
echo "  direct I/O to a file: $(($(written) >> 20)) MiB were swapped"
echo 0 >/proc/sys/vm/nr_hugepages
swapoff "$DEVICE"
"$UBLKZC" del -n "$ID"

# A file of the device's file system, twice in the page cache: the writer's dirty pages must not
# hold up the server, whose own are what theirs become. (Not swap: docs/recovery.md.)
dd if=/dev/zero of="$SCRATCH/mnt/disk.img" bs=1M count=200 status=none
sync
add --buffered
mkfs.ext4 -qF "$DEVICE"
mkdir "$SCRATCH/files"
mount "$DEVICE" "$SCRATCH/files"
at_end 'umount "$SCRATCH/files" 2>/dev/null'
leave_free 160
blocks() { python3 -c 'import os
for i in range(150): os.write(1, i.to_bytes(8, "little") * (1 << 17))'; }
blocks | timeout 600 dd of="$SCRATCH/files/data" bs=1M iflag=fullblock conv=fsync status=none || fail "writes through the page cache: status $?"
[ "$(written)" -ge $((150 << 20)) ] || fail "only $(written) bytes were written"
echo 3 >/proc/sys/vm/drop_caches
blocks | cmp - "$SCRATCH/files/data" || fail "the file on the device is another"
echo "  the page cache of a file: $(($(written) >> 20)) MiB were written back"
umount "$SCRATCH/files"
"$UBLKZC" del -n "$ID"
