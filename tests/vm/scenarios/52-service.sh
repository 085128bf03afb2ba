#!/usr/bin/env bash
# The service file: its capabilities are enough, the manager is told when the device is
# live, and stopping the main process ends it. (There is no systemd in the guest.)
. "$(dirname "$0")/../lib.sh"
unit=$BUILD/packaging/ublkzc@.service

setting() { sed -n "s/^$1=//p" "$unit"; }
capabilities=-all
for capability in $(setting CapabilityBoundingSet); do
    capability=${capability#CAP_}
    capabilities+=,+${capability,,}
done

cat >"$SCRATCH/manager.py" <<'E2'
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
while True:
    said = s.recv(1000).decode() # its records' descriptors are for systemd
    if not said.startswith("FDSTORE"):
        print(said, flush=True)
E2
python3 "$SCRATCH/manager.py" "$SCRATCH/notify" >"$SCRATCH/notified" &
at_end "kill $!"
wait_for test -S "$SCRATCH/notify"
truncate -s 64M "$SCRATCH/disk.img"
[ "$(setting ExecStart | cut -d' ' -f2-)" = "serve -n %i \$OPTIONS" ] ||
    fail "the unit starts something else now: $(setting ExecStart)"
NOTIFY_SOCKET=$SCRATCH/notify setpriv --bounding-set "$capabilities" --no-new-privs \
    "$UBLKZC" serve -n 7 -t file "$SCRATCH/disk.img" 2>"$SCRATCH/err" >/dev/null &
main=$!
wait_for test -s "$SCRATCH/notified"
grep -q '^READY=1$' "$SCRATCH/notified" || fail "the manager was told $(cat "$SCRATCH/notified")"
DEVICE=/dev/ublkb7
# shellcheck disable=SC2034 # for lib.sh
ID=7
DEVICES+=("$DEVICE")

serves() {
    LD_PRELOAD=$SHIM measure_share run_fio --name=t --filename="$DEVICE" --direct=1 --rw=randwrite \
        --bs=64k --size=16m --ioengine=libaio --iodepth=4 --verify=crc32c
    expect_share_at_least 990 "$1"
}
serves "with the capabilities of the unit"
attach_shared() {
    python3 -c 'import mmap, time; m = mmap.mmap(-1, 4 << 20); m[0] = 1; print(1, flush=True); time.sleep(600)' \
        >"$SCRATCH/mapped" &
    wait_for test -s "$SCRATCH/mapped"
    "$UBLKZC" attach --pid $! --device "$DEVICE" >"$SCRATCH/attached"
    kill $!
    grep -q '1 buffer' "$SCRATCH/attached" || fail "attach: $(cat "$SCRATCH/attached")"
}
attach_shared
kill -9 "$(stat_get .pid)"
replaced() { [ "$(stat_get .recoveries)" = 1 ]; }
wait_for replaced
serves "after a server was replaced"
[ "$(setting ExecReload | cut -d' ' -f2-)" = "upgrade -n %i" ] || fail "the unit reloads by something else now"
"$UBLKZC" upgrade -n "$ID" || fail "an upgrade of the service: $(cat "$SCRATCH/err")"

gone() { [ ! -e "$DEVICE" ]; }
kill -TERM $main
wait $main || fail "the main process ended with $?"
gone || fail "the device is still there when the main process has ended"
! grep -E 'cannot|errno' "$SCRATCH/err" || fail "the server misses something"
