#!/usr/bin/env bash
# Storage that is an NBD server's: zero-copy between its socket and the client's memory, and nothing lost when it
# dies, or we do.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../nbd.sh"

# --- what cannot be is told -----------------------------------------------------------
refused() { # PATTERN, ADD ARGUMENTS...
    local pattern=$1
    shift
    ! "$UBLKZC" add -t "$NBD" "$@" 2>"$SCRATCH/err" || fail "accepted: $*"
    grep -q -- "$pattern" "$SCRATCH/err" || fail "$*: $(cat "$SCRATCH/err")"
}
refused 'is no NBD URI: give nbd://' /dev/null
refused 'an absolute path' 'nbd+unix:///?socket=nbd'
refused 'connections=0: give a whole number from 1 to 16' -o connections=0 "$URI"
refused 'No such file or directory' "$URI"
serve_nbdkit --filter=multi-conn memory 64M multi-conn-mode=disable
refused 'use one queue and -o connections=1' -q 2 "$URI"
stop_server

# --- zero copy ------------------------------------------------------------------------
serve_nbdkit memory 256M
start_nbd -q 2 -o connections=2
[ "$("$UBLKZC" list --json | jq -r '.devices[0].target')" = nbd ] || fail "list does not name the engine"
for bs in 64k-64k 1m-1m; do
    share_at_least 990 "fio, $bs" with_shim verified $bs
done
share_at_least 900 "fio, all sizes" with_shim verified 512-256k --size=8m
measure_share verified 64k-64k
expect_no_share "without the shim"
head -c 1048576 /dev/zero | tr '\0' x | dd of="$DEVICE" bs=64k oflag=direct iflag=fullblock status=none
blkdiscard --zeroout --length 65536 "$DEVICE"
blkdiscard --offset 65536 --length 65536 "$DEVICE"
cmp -n 131072 "$DEVICE" /dev/zero || fail "what was zeroed or discarded is not zero"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
"$UBLKZC" del -n "$ID"
stop_server

# --- with TLS -------------------------------------------------------------------------
# The engine's own code touches the data then, and it is still not copied.
if nbdkit --dump-config | grep -q '^tls=yes'; then
    psktool -u somebody -p "$SCRATCH/keys" >/dev/null 2>&1
    serve_nbdkit --tls=require --tls-psk="$SCRATCH/keys" memory 64M
    URI="nbds+unix://somebody@/?socket=$SOCKET&tls-psk-file=$SCRATCH/keys" start_nbd
    share_at_least 980 "fio, TLS" with_shim verified 64k-64k --size=8m
    "$UBLKZC" del -n "$ID"
    stop_server
else
    echo "  skipped: this nbdkit has no TLS"
fi

# --- servers that die -----------------------------------------------------------------
# The page cache outlives nbdkit, and so what it had acknowledged.
truncate -s 64M "$SCRATCH/disk"
serve_disk() { serve_nbdkit file "$SCRATCH/disk"; }
serve_disk
start_nbd -o cache=durable -o connections=2
AGAIN=serve_disk
under_deaths "$(times 4 20)" nbd_server_dies with_shim verified 64k-64k --ioengine=libaio --rate=16m
# And ours, with writes under way that the server takes its time for.
stop_server
serve_nbdkit --filter=delay file "$SCRATCH/disk" delay-write=1 delay-read=100ms
server_dies() {
    local before program
    before=$(recoveries)
    run_fio --name=ours --filename="$DEVICE" --direct=1 --rw=randwrite --bs=64k --size=4m --ioengine=libaio \
        --iodepth=16 --verify=crc32c --verify_fatal=1 &
    program=$!
    sleep 1
    kill -KILL "$(server)"
    wait $program || fail "requests failed when the device's own server died"
    wait_for recovered "$before"
    [ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
}
if is_our_driver; then
    server_dies
else
    echo "  skipped: the stock driver can be wedged by a server's death (docs/recovery.md, 89-killed.sh)"
fi
"$UBLKZC" del -n "$ID"
stop_server

# A flush after a death that took what was written with it: an error, once.
serve_nbdkit memory 64M
start_nbd
python3 - "$DEVICE" <<'PYTHON' &
import errno, mmap, os, sys, time
direct = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 65536)
os.pwritev(direct, [page], 0)
os.fsync(direct)
os.pwritev(direct, [page], 65536)
open("/tmp/written", "w").close()
while not os.path.exists("/tmp/again"):
    time.sleep(0.1)
try:
    os.fsync(direct)
    sys.exit("what is lost was flushed")
except OSError as e:
    assert e.errno == errno.EIO, e
os.fsync(direct)
PYTHON
program=$!
wait_for test -e /tmp/written
stop_server
serve_nbdkit memory 64M
touch /tmp/again
wait $program || fail "a flush did not say what was lost"

# --- a larger export ------------------------------------------------------------------
if has_feature UPDATE_SIZE; then
    stop_server
    serve_nbdkit memory 128M
    "$UBLKZC" resize -n "$ID"
    [ "$(blockdev --getsize64 "$DEVICE")" = $((128 << 20)) ] ||
        fail "the device has $(blockdev --getsize64 "$DEVICE") bytes"
    dd if=/dev/zero of="$DEVICE" bs=64k seek=1600 count=16 oflag=direct status=none
else
    echo "  skipped: this driver cannot resize"
fi
"$UBLKZC" del -n "$ID"
stop_server

# --- nobody there for too long ----------------------------------------------------------
serve_nbdkit memory 64M
start_nbd -o dead-timeout=2
stop_server
! dd if="$DEVICE" of=/dev/null bs=64k count=1 iflag=direct status=none 2>/dev/null || fail "a server that is away answered"
grep -q 'no connection for 2 seconds' "/run/ublkzc/ublkb$ID.log" || fail "the log does not say it"
serve_nbdkit memory 64M
wait_for dd if="$DEVICE" of=/dev/null bs=64k count=1 iflag=direct status=none 2>/dev/null
