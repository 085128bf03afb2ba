#!/usr/bin/env bash
# Who may register what: proof of access, silent clients, unprivileged users.
. "$(dirname "$0")/../lib.sh"

start_file 128M
socket=/run/ublkzc/ublkb$ID.sock
refused() { stat_get .refused; }

# A hundred connections that say nothing hold up nobody, and are hung up on.
python3 - "$socket" <<'PY' &
import socket, sys, time
held = []
for _ in range(100):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(sys.argv[1])
    held.append(s)
time.sleep(3)
PY
silent=$!
LD_PRELOAD=$SHIM measure_share run_fio --name=t --filename="$DEVICE" --direct=1 --rw=randread --bs=64k --size=32m
expect_share_at_least 990 "beside 100 silent clients"
wait $silent
wait_for nothing_registered

# A proof for another device, an O_PATH descriptor, nonsense, no descriptor, and a file
# system that bears the disk's name but is not on it.
before=$(refused)
mkdir "$SCRATCH/mnt-named"
mount -t tmpfs "$DEVICE" "$SCRATCH/mnt-named"
: >"$SCRATCH/mnt-named/file"
python3 - "$socket" "$DEVICE" "$SCRATCH/mnt-named/file" <<'PY'
import array, os, socket, struct, sys
path, device, named = sys.argv[1:]

def request(kind, seq=1, fds=(), size=64, magic=0x315a4355, length=0):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(10)
    s.connect(path)
    data = struct.pack("<IHHIIQQII24x", magic, 1, kind, seq, 0, 0, length, 0, 0)[:size]
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    s.sendmsg([data], control)
    return s

def answer(s):
    data = s.recv(64)
    if not data:
        return None
    return struct.unpack("<IHHIiHHIIIQ24x", data)

def expect(what, s, reason):
    got = answer(s)
    assert got and got[4] < 0 and got[5] == reason, (what, got)
    print("  refused:", what)

other = os.open("/dev/null", os.O_RDONLY)
plain = os.open("/proc/self/exe", os.O_RDONLY)
only_named = os.open(named, os.O_RDONLY)
as_path = os.open(device, os.O_PATH)
good = os.open(device, os.O_RDONLY)
expect("another kind of file", request(1, fds=[other]), 5)
expect("a file elsewhere", request(1, fds=[plain]), 6)
expect("a file system that is only named so", request(1, fds=[only_named]), 6)
expect("O_PATH", request(1, fds=[as_path]), 5)
expect("no descriptor", request(1), 3)
expect("two descriptors", request(1, fds=[good, good]), 3)
expect("ADD before HELLO", request(2, fds=[good]), 4)
expect("a short message", request(1, fds=[good], size=20), 1)
expect("a wrong magic", request(1, fds=[good], magic=1), 1)

# What one client may register unless the administrator says otherwise: half of the memory, so
# that nobody can have all that the device may have, three quarters.
with open("/proc/meminfo", encoding="ascii") as f:
    memory = int(f.readline().split()[1]) << 10
may = struct.unpack_from("<Q", request(1, fds=[good]).recv(64), 32)[0]
assert memory // 2 - (1 << 20) <= may <= memory // 2, (memory, may)

def add(fd, length, reason, what):
    s = request(1, fds=[good])
    got = answer(s)
    assert got and got[4] == 0, got
    data = struct.pack("<IHHIIQQII24x", 0x315a4355, 1, 2, 9, 0, 0, length, 0, 0)
    s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    expect(what, s, reason)

import fcntl
unsealed = os.memfd_create("u", os.MFD_ALLOW_SEALING)
os.ftruncate(unsealed, 1 << 20)
add(unsealed, 1 << 20, 7, "an unsealed memfd")
sealed = os.memfd_create("s", os.MFD_ALLOW_SEALING)
os.ftruncate(sealed, 1 << 20)
fcntl.fcntl(sealed, 1033, 1 | 2 | 4)  # F_ADD_SEALS: SEAL, SHRINK, GROW
add(sealed, (1 << 20) + 4096, 9, "a range beyond the memfd")
add(sealed, 100, 9, "an unaligned length")
add(sealed, 0, 9, "an empty range")
read_end, _ = os.pipe()
add(read_end, 4096, 8, "a pipe")
PY
umount "$SCRATCH/mnt-named"
[ "$(refused)" -gt "$before" ] || fail "refusals are not counted"
wait_for nothing_registered

# An unprivileged user with a file on a file system of the device, and one without.
mkdir -m 755 "$SCRATCH/mnt"
chmod a+rx "$SCRATCH" /run/tmp 2>/dev/null || :
mkfs.ext4 -qF "$DEVICE"
mount "$DEVICE" "$SCRATCH/mnt"
install -d -o 65534 "$SCRATCH/mnt/own"
as_nobody() { setpriv --reuid=65534 --clear-groups env LD_PRELOAD="$SHIM" "$@"; }
as_nobody dd if=/dev/zero of="$SCRATCH/mnt/own/data" bs=1M count=8 oflag=direct status=none
sync -f "$SCRATCH/mnt"
measure_share as_nobody dd if="$SCRATCH/mnt/own/data" of=/dev/null bs=1M iflag=direct status=none
expect_share_at_least 900 "an unprivileged user's file"
umount "$SCRATCH/mnt"
wait_for nothing_registered
wait_for none_pinned
