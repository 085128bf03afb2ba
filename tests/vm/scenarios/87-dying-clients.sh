#!/usr/bin/env bash
# Clients die at any moment and leave nothing behind; and clients that read nothing, send a
# byte or say nothing hold up nobody. CLIENTS and SEED can be set.
. "$(dirname "$0")/../lib.sh"

CLIENTS=${CLIENTS:-$(times 100 500)}
SEED=${SEED:-$RANDOM}
verify() {
    LD_PRELOAD=$SHIM run_fio --name=v --filename="$DEVICE" --direct=1 --rw=randwrite --bs=64k \
        --ioengine=libaio --iodepth=8 --verify=crc32c --verify_fatal=1 --size=8m
}
kill_clients() { # COUNT
    "$TREE/tests/vm/dying_clients.py" "/run/ublkzc/ublkb$ID.sock" "$DEVICE" "$SHIM" \
        "$BUILD/tests/processes/churn" "$1" "$SEED" || fail "clients to kill, seed $SEED"
}
# Something that died may be an orphan of a client for a moment: hence wait_for.
as_before() { [ "$(resources)" = "$before" ] && [ "$(server_maps)" -le $((maps + THREAD_MAPS)) ]; }
# The thread that closes what clients left unread has a stack and a heap, which the C
# library keeps for the next one. What is forgotten for each client is far more.
THREAD_MAPS=10
server_maps() { count_maps "$(server)"; }
nothing_is_left() {
    local until=$((SECONDS + 20))
    while ! as_before; do
        [ $SECONDS -lt $until ] || fail "$1, seed $SEED: before: $before $maps; now: $(resources) $(server_maps)"
        sleep 0.1
    done
}

start_file 64M -q 2
verify
kill_clients 30 # all that is allocated once, is
wait_for nothing_registered
wait_for none_pinned
before=$(resources) maps=$(server_maps)
started=$SECONDS
kill_clients "$CLIENTS"
echo "  in $((SECONDS - started)) s"
nothing_is_left "$CLIENTS clients were killed"
echo "  before and after: $before; mappings of the server: $maps, $(server_maps)"
measure_share verify
expect_share_at_least 990 "after $CLIENTS clients were killed"
wait_for nothing_registered

mkfifo "$SCRATCH/enough"
"$TREE/tests/vm/slow_clients.py" "/run/ublkzc/ublkb$ID.sock" "/run/ublk/ublkb$ID.sock" "$DEVICE" 1000 \
    >"$SCRATCH/slow" <"$SCRATCH/enough" &
slow=$!
exec 5>"$SCRATCH/enough"
all_there() { grep -q ready "$SCRATCH/slow"; }
wait_for all_there
measure_share verify
kill -0 $slow || fail "the slow clients have ended meanwhile"
expect_share_at_least 990 "beside 1000 connections and clients that read nothing or say nothing"
echo >&5
wait $slow || fail "slow clients: $(cat "$SCRATCH/slow")"
grep held "$SCRATCH/slow"
exec 5>&-
nothing_is_left "slow clients"

# Descriptors of a file system whose server never answers hold up nobody.
modprobe fuse
python3 "$TREE/tests/vm/silent_fs.py" "/run/ublkzc/ublkb$ID.sock" "/run/ublk/ublkb$ID.sock" "$DEVICE" ||
    fail "a file system that does not answer"
wait_for nothing_registered

# By the older protocol a process holds its memory for as long as it lives. One that has died before
# the server looks is not the one that has its number since.
cat >"$SCRATCH/gone.py" <<'PYTHON'
import os, socket, struct, sys
sys.path.insert(0, sys.argv[1])
from wire_client import sealed_memfd

memory = sealed_memfd(65536)
os.pwrite(memory, b"x" * 65536, 0)
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[2])
socket.send_fds(sock, [b"x"], [memory])
if os.fork():
    print(os.getpid(), flush=True)
    os._exit(0)
print("registered as", *struct.unpack("i", sock.recv(4)), flush=True)  # its child has the connection
PYTHON
kill -STOP "$(server)"
python3 "$SCRATCH/gone.py" "$TREE/tests/vm" "/run/ublk/ublkb$ID.sock" >"$SCRATCH/gone"
gone=$(head -n 1 "$SCRATCH/gone")
for ((i = 0; i < 50; i++)); do
    echo $((gone - 1)) >/proc/sys/kernel/ns_last_pid
    sleep 3600 &
    [ $! != "$gone" ] || break
    kill $!
done
[ $! = "$gone" ] || fail "no process with the number $gone"
kill -CONT "$(server)"
wait_for grep -q "registered as [0-9]" "$SCRATCH/gone"
wait_for nothing_registered
kill -0 "$gone" || fail "process $gone, which had nothing to do with it, has ended"
kill "$gone"
echo "  what a dead process had registered is not who has its number"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
