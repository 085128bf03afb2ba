#!/usr/bin/env bash
# Server and clients in containers of their own, as docs/containers.md has it: zero-copy by a
# device and a socket, memory limits hold for each, and numbers of processes say nothing.
. "$(dirname "$0")/../lib.sh"

in_container() { "$TREE/tests/vm/in_container" "$@"; }
kill_container() { echo 1 >"$groups/$1/cgroup.kill"; } # NAME
groups=/sys/fs/cgroup
mountpoint -q $groups || mount -t cgroup2 none $groups
grep -qw memory $groups/cgroup.controllers || {
    echo "  skipped: no memory controller"
    exit 0
}

# ---- a server: privileged, with the host's /dev and /run/ublkzc ----

mkdir -p /run/ublkzc
truncate -s 128M "$SCRATCH/disk.img"
in_container --name server --memory 256M --keep "$SCRATCH/server.memory" --share /dev --share /sys --share /run/ublkzc \
    --share "$SCRATCH" --share "$TREE" --share "$BUILD" \
    "$UBLKZC" serve -t file -n 7 "$SCRATCH/disk.img" >"$SCRATCH/server.log" 2>&1 &
container=$!
ID=7 DEVICE=/dev/ublkb7
DEVICES+=("$DEVICE")
at_end 'cat "$SCRATCH/server.log" >&2'
served() { [ -b "$DEVICE" ] && "$UBLKZC" stat "$ID" >/dev/null 2>&1; }
wait_for served
chmod 666 "$DEVICE"

# ---- a client: root nowhere but in its own eyes, with the device and the socket ----

client=(--share "$DEVICE" --share "/run/ublkzc/ublkb$ID.sock" --share "$TREE" --share "$BUILD")
client() { in_container --name client --user 100033 "${client[@]}" "$@"; }
fio=(fio --filename="$DEVICE" --direct=1 --rw=randrw --bs=64k --iodepth=16 --ioengine=libaio
    --verify=crc32c --verify_fatal=1 --size=32m --verify_state_save=0 --thread --name=one --output=/tmp/fio)
share_at_least 990 "a client in a container" client env LD_PRELOAD="$SHIM" "${fio[@]}"

# Who holds what is told by user; numbers of processes that mean nothing here are said to.
client env LD_PRELOAD="$SHIM" python3 -c '
import ctypes, os, sys, time
os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
libc = ctypes.CDLL(None)
at = ctypes.c_void_p()
assert libc.posix_memalign(ctypes.byref(at), 4096, 8 << 20) == 0
ctypes.memset(at, 1, 8 << 20)
os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
print(os.getuid(), os.getpid(), flush=True)
time.sleep(600)' "$DEVICE" >"$SCRATCH/holder" &
holder=$!
wait_for test -s "$SCRATCH/holder"
grep -q '^0 [0-9]$' "$SCRATCH/holder" || fail "no container: $(cat "$SCRATCH/holder")"
holds() { "$UBLKZC" clients "$ID" --json 2>/dev/null | jq -e '.clients[0] | .uid == 100033 and .bytes >= 8388608' >/dev/null; }
wait_for holds
"$UBLKZC" clients "$ID" >"$SCRATCH/said" 2>&1
grep -q "another pid namespace" "$SCRATCH/said" || fail "whose numbers? $(cat "$SCRATCH/said")"
sed 's/^/  /' "$SCRATCH/said"
kill_container client
wait $holder 2>/dev/null || :
wait_for nothing_registered

# ---- limits: whoever uses more than its own ends alone ----

before=$(stat_get .pid)
client --memory 128M --keep "$SCRATCH/client.memory" env LD_PRELOAD="$SHIM" python3 -c '
import ctypes, os, sys
libc = ctypes.CDLL(None)
device = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
kept = []
while True:
    at = ctypes.c_void_p()
    assert libc.posix_memalign(ctypes.byref(at), 4096, 4 << 20) == 0
    ctypes.memset(at, 1, 4 << 20)
    kept.append(at)
    os.close(os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT))' "$DEVICE" >/dev/null 2>&1 &&
    fail "a client of 128 MiB took all memory"
oom_kills() { awk '$1 == "oom_kill" { print $2 }' "$1"; }
[ "$(oom_kills "$SCRATCH/client.memory")" -ge 1 ] || fail "the client's group: $(cat "$SCRATCH/client.memory")"
[ "$(stat_get .pid)" = "$before" ] || fail "the server went with its client"
wait_for nothing_registered
share_at_least 990 "a client after that" client env LD_PRELOAD="$SHIM" "${fio[@]}"

# ---- without the socket it works as ever, and says why ----

without=(--name without --user 100033 --share "$DEVICE" --share "$TREE" --share "$BUILD")
without_socket() {
    in_container "${without[@]}" env UBLKZC_STATS=1 LD_PRELOAD="$SHIM" "${fio[@]}" 2>"$SCRATCH/said" >&2
}
measure_share without_socket || fail "without a socket: $(cat "$SCRATCH/said")"
expect_no_share "without the socket"
grep -q "no server behind $DEVICE" "$SCRATCH/said" || fail "nobody said why: $(cat "$SCRATCH/said")"

# ---- the server's container is killed: I/O waits for another, on the host ----

dd if=/dev/urandom of="$SCRATCH/data" bs=1M count=4 status=none
dd if="$SCRATCH/data" of="$DEVICE" bs=1M oflag=direct status=none
kill_container server
wait $container 2>/dev/null || :
[ "$(oom_kills "$SCRATCH/server.memory")" = 0 ] || fail "the server's group: $(cat "$SCRATCH/server.memory")"
echo "  the server has used $(($(head -n 1 "$SCRATCH/server.memory") >> 20)) MiB at most"
"$UBLKZC" list 2>/dev/null | grep "^$DEVICE" | grep -qw dead || fail "not dead: $("$UBLKZC" list)"
"$UBLKZC" recover -n "$ID" || fail "recover, on the host: $(cat "/run/ublkzc/ublkb$ID.log")"
cmp -n 4194304 "$SCRATCH/data" "$DEVICE" || fail "other data on the host"
share_at_least 990 "a client of the server on the host" client env LD_PRELOAD="$SHIM" "${fio[@]}"
