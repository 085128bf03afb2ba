#!/usr/bin/env bash
# Processes that are stopped are not dead, a clock that jumps is nobody's deadline, and a
# read-only /run is an error that is said; none of it costs a request or a successor.
. "$(dirname "$0")/../lib.sh"

start_file 64M
cat >"$SCRATCH/client.py" <<'PYTHON'
import os, sys
sys.path.insert(0, sys.argv[1])
from wire_client import ADD, HELLO, REMOVE, Client, sealed_memfd

client = Client(sys.argv[2], timeout=300)
client.ask(HELLO, os.open(sys.argv[3], os.O_RDWR))
memory = []
for _ in range(20):
    memory.append(sealed_memfd(4096))
    os.pwrite(memory[-1], b"x" * 4096, 0)
def add():
    return [client.ask(ADD, fd, seq=i, length=4096) for i, fd in enumerate(memory)]
# What was removed is kept for a while: it is registered once, and recorded each time.
for _ in range(int(sys.argv[4])):
    for index in add():
        client.ask(REMOVE, index=index)
add()
print("added", flush=True)
sys.stdin.readline()
PYTHON
mkfifo "$SCRATCH/go"
client() { # [ROUNDS], in the background, sets CLIENT; says what it has done in $SCRATCH/said
    : >"$SCRATCH/said"
    python3 "$SCRATCH/client.py" "$TREE/tests/vm" "/run/ublkzc/ublkb$ID.sock" "$DEVICE" "${1-1}" \
        <"$SCRATCH/go" >"$SCRATCH/said" 2>&1 &
    CLIENT=$!
    exec 7>"$SCRATCH/go"
}
added() { grep -q added "$SCRATCH/said"; }
ends() {
    echo >&7
    exec 7>&-
    wait "$CLIENT" || fail "$1: $(cat "$SCRATCH/said")"
}
all_gone() { wait_for nothing_registered && wait_for none_pinned; }
verify() { run_fio --name=v --filename="$DEVICE" --direct=1 --rw=randwrite --bs=64k --size=4m --verify=crc32c "$@"; }

# ---- the server: I/O and clients wait, and that is all ----
kill -STOP "$(server)"
verify &
fio=$!
client
sleep 2
kill -0 $fio || fail "somebody else serves while the server is stopped: $(cat "$SCRATCH/fio.out")"
added && fail "a server that is stopped has answered"
kill -CONT "$(server)"
wait $fio || fail "I/O beside a server that was stopped"
wait_for added
ends "a client of a server that was stopped"
all_gone
[ "$(recoveries)" = 0 ] || fail "a server that was stopped was replaced"
echo "  a server that is stopped goes on"

# ---- and whoever asks it is told so, also when others who ask fill its queue ----
cat >"$SCRATCH/crowd.py" <<'PYTHON'
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
crowd = []
try:
    while True:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        s.connect(sys.argv[1])
        crowd.append(s)
except BlockingIOError:
    print(len(crowd), flush=True)
sys.stdin.readline()
PYTHON
kill -STOP "$(server)"
mkfifo "$SCRATCH/leave"
python3 "$SCRATCH/crowd.py" "/run/ublkzc/ublkb$ID.sock" <"$SCRATCH/leave" >"$SCRATCH/crowd" &
crowd=$!
exec 8>"$SCRATCH/leave"
wait_for test -s "$SCRATCH/crowd"
timeout 100 "$UBLKZC" clients 2>"$SCRATCH/clients" &
clients=$!
timeout 100 "$UBLKZC" upgrade -n "$ID" 2>"$SCRATCH/err" && fail "an upgrade of a stopped server"
grep -q "takes no connections" "$SCRATCH/err" || fail "an upgrade of a stopped server: $(cat "$SCRATCH/err")"
wait $clients && fail "clients of a stopped server"
grep -q "takes no connections" "$SCRATCH/clients" || fail "clients of a stopped server: $(cat "$SCRATCH/clients")"
kill -CONT "$(server)"
exec 8>&-
wait $crowd
wait_for nothing_registered
timeout 100 "$UBLKZC" upgrade -n "$ID" || fail "an upgrade after a crowd of $(cat "$SCRATCH/crowd")"
echo "  $(cat "$SCRATCH/crowd") connections to a stopped server, and it goes on"

# ---- the keeper: the server serves; what it cannot say yet, it does not do ----
keeper=$(keeper)
kill -STOP "$keeper"
client 15 # more records than a socket takes
verify
added && fail "a socket took all records: this shows nothing"
kill -CONT "$keeper"
wait_for added
ends "a client while the keeper was stopped"
all_gone
# And it has missed nothing, also when the server dies first.
kill -STOP "$keeper"
client 15
sleep 1
before=$(recoveries)
kill -KILL "$(server)"
sleep 1
kill -CONT "$keeper"
wait_for recovered "$before"
exec 7>&-
wait "$CLIENT" || : # an answer to it may have been lost with the server
verify
all_gone
echo "  a keeper that was stopped knows everything"

# ---- a server that takes long to die: its last close is of a disk that does not answer ----
modprobe loop
modprobe dm_mod
truncate -s 64M "$SCRATCH/slow.img"
slow=$(losetup -f --show "$SCRATCH/slow.img")
dmsetup --noudevsync create slow --table "0 131072 linear $slow 0"
dmsetup mknodes
at_end 'dmsetup resume slow; dmsetup --noudevsync remove slow; losetup -d "$slow"'
cat >"$SCRATCH/sender.py" <<'PYTHON'
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from wire_client import HELLO, Client, request

path, server = sys.argv[2], int(sys.argv[3])
disk = os.open("/dev/mapper/slow", os.O_RDWR)
os.pwrite(disk, b"x" * (1 << 20), 0)  # as far as the page cache
held = len(os.listdir(f"/proc/{server}/fd"))
client = Client(path)
while len(os.listdir(f"/proc/{server}/fd")) <= held:  # accepted
    time.sleep(0.01)
os.kill(server, signal.SIGSTOP)
client.send(request(HELLO), disk)
os.close(disk)
print("sent", flush=True)
sys.stdin.readline()
PYTHON
dying=$(server)
before=$(recoveries)
mkfifo "$SCRATCH/send"
dmsetup suspend --noflush --nolockfs slow
python3 "$SCRATCH/sender.py" "$TREE/tests/vm" "/run/ublkzc/ublkb$ID.sock" "$dying" \
    <"$SCRATCH/send" >"$SCRATCH/sender" 2>&1 &
sender=$!
exec 6>"$SCRATCH/send"
wait_for grep -q sent "$SCRATCH/sender"
kill -KILL "$dying"
sleep 12 # more than a keeper once waited
[ -e "/proc/$dying" ] || fail "that server has died at once: this shows nothing"
dmsetup resume slow
wait_for recovered "$before"
verify
exec 6>&-
wait $sender || :
wait_for nothing_registered
echo "  a server that takes long to die has a successor"

# ---- a clock that jumps ----
# As little I/O as tells: the clients need the processors too.
LD_PRELOAD=$SHIM fio --name=v --filename="$DEVICE" --direct=1 --rw=randrw --bs=64k --ioengine=libaio \
    --iodepth=8 --verify=crc32c --verify_backlog=16 --verify_fatal=1 --size=16m --loops=1000 \
    --time_based --runtime=3000 --rate_iops=100 >"$SCRATCH/clock" 2>&1 &
fio=$!
for jump in '+1 year' '-2 years' '+1 year'; do
    date -s "$(date -d "$jump")" >/dev/null
    client
    wait_for added
    ends "a client after the clock has jumped by $jump"
done
"$UBLKZC" upgrade -n "$ID" || fail "an upgrade: $(cat "/run/ublkzc/ublkb$ID.log")"
kill -0 $fio || fail "fio has ended: $(cat "$SCRATCH/clock")"
kill -INT $fio
wait $fio || :
! grep -E 'err=[1-9]|verify:' "$SCRATCH/clock" || fail "fio: $(cat "$SCRATCH/clock")"
all_gone
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
echo "  the clock jumped, and nobody noticed"
"$UBLKZC" del -n "$ID"

# ---- devices come and go while another is upgraded ----
start_file 64M
come_and_go() {
    local i other
    for ((i = 0; i < 4; i++)); do
        other=$("$UBLKZC" add -t mem --size 16M) || return 1
        "$UBLKZC" del "$other" || return 1
    done
}
come_and_go 2>"$SCRATCH/others" &
others=$!
for i in 1 2; do "$UBLKZC" upgrade -n "$ID" || fail "upgrade $i: $(cat "/run/ublkzc/ublkb$ID.log")"; done
wait $others || fail "add and del beside an upgrade: $(cat "$SCRATCH/others")"

# ---- /run is read-only: no new device, and the one that there is lives, and goes ----
mount -t tmpfs -o mode=755 tmpfs /run/ublkzc
at_end 'umount -lq /run/ublkzc 2>/dev/null'
mount -o remount,ro /run/ublkzc
devices_before=$(ls /dev/ublk*)
"$UBLKZC" add -t mem --size 16M >"$SCRATCH/out" 2>"$SCRATCH/err" && fail "add with a read-only /run"
grep -q 'Read-only file system' "$SCRATCH/err" || fail "a read-only /run: $(cat "$SCRATCH/err")"
[ "$(ls /dev/ublk*)" = "$devices_before" ] || fail "a read-only /run: add left $(ls /dev/ublk*)"
umount /run/ublkzc
mount --bind /run/ublkzc /run/ublkzc
mount -o remount,ro,bind /run/ublkzc
before=$(recoveries)
kill -KILL "$(server)"
wait_for recovered "$before"
verify
"$UBLKZC" del -n "$ID" || fail "del with a read-only /run"
[ ! -e "$DEVICE" ] || fail "del left $DEVICE"
umount /run/ublkzc
# What it could not remove is no obstacle, and goes with the next.
"$UBLKZC" list 2>/dev/null | grep -q "^$DEVICE .*alive" && fail "list: $("$UBLKZC" list)"
start -t mem --size 16M -n "$ID"
"$UBLKZC" del -n "$ID"
[ -z "$(find /run/ublkzc -name "ublkb$ID.*" ! -name '*.log')" ] || fail "left: $(ls /run/ublkzc)"
echo "  a read-only /run: said, and survived"
