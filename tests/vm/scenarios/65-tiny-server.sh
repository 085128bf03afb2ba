#!/usr/bin/env bash
# A ublk server that is not ours: examples/tiny-server serves programs under the shim through
# libublkzc-server, while they die, and while it does.
. "$(dirname "$0")/../lib.sh"
TINY=$BUILD/examples/tiny-server
N=7
DEVICE=/dev/ublkb$N
IMAGE=$SCRATCH/disk.img
truncate -s 128M "$IMAGE"
zero_copy=0 copied=0 clients=0 buffers=0 # as tell finds them

live() { grep -q "^$DEVICE" "$SCRATCH/said"; }
serve() { # [--recover]
    "$TINY" "$@" "$IMAGE" $N >"$SCRATCH/said" 2>"$SCRATCH/complaints" &
    tiny=$!
    wait_for live
    # What is merged from unrelated buffers matches none of them.
    echo 2 >/sys/block/ublkb$N/queue/nomerges
}
answered() { [ "$(grep -c zero_copy= "$SCRATCH/said")" -gt "$1" ]; }
# tell: sets zero_copy, copied, clients, buffers to what it says now
tell() {
    local before
    before=$(grep -c zero_copy= "$SCRATCH/said" || :)
    kill -USR1 $tiny
    wait_for answered "$before"
    eval "$(tail -n 1 "$SCRATCH/said")"
}
is_idle() {
    tell
    [ "$clients" = 0 ] && [ "$buffers" = 0 ]
}
serves_somebody() {
    tell
    [ "$buffers" -gt 0 ] && [ "$zero_copy" -gt "${1:-0}" ]
}
# expect_share WHAT COMMAND...: at least 990 per mille of its requests in place
expect_share() {
    local what=$1 zero_before copied_before
    shift
    tell
    zero_before=$zero_copy copied_before=$copied
    "$@"
    tell
    SHARE=$(((zero_copy - zero_before) * 1000 / (zero_copy - zero_before + copied - copied_before)))
    [ "$SHARE" -ge 990 ] ||
        fail "$what: $SHARE per mille of requests in place: $(cat "$SCRATCH/said" "$SCRATCH/complaints")"
    echo "  $what: $SHARE per mille of requests in place"
}
fio_job=(--name=t --filename="$DEVICE" --direct=1 --rw=randrw --bsrange=4k-256k --ioengine=libaio
    --iodepth=16 --verify=crc32c --verify_fatal=1)
with_shim() { LD_PRELOAD=$SHIM run_fio "$@"; }

serve
# ---- who has the shim, and who has not ----
expect_share "fio with the shim" with_shim "${fio_job[@]}" --size=32m
tell
before=$zero_copy
run_fio "${fio_job[@]}" --size=4m
tell
[ "$zero_copy" = "$before" ] || fail "$((zero_copy - before)) requests in place without the shim"
[ "$copied" -gt 0 ] || fail "nothing was copied"
# The bytes are where they should be: written through the shim, read from the file.
head -c 8M /dev/urandom >"$SCRATCH/bytes"
write_bytes() { LD_PRELOAD=$SHIM dd if="$SCRATCH/bytes" of="$DEVICE" bs=1M oflag=direct 2>"$SCRATCH/dd"; }
write_bytes || fail "$(cat "$SCRATCH/dd")"
cmp -n 8388608 "$SCRATCH/bytes" "$IMAGE"
LD_PRELOAD=$SHIM dd if="$DEVICE" bs=1M count=8 iflag=direct 2>/dev/null | cmp "$SCRATCH/bytes" -
wait_for is_idle

# ---- clients die ----
for ((i = 0; i < $(times 3 30); i++)); do
    tell
    LD_PRELOAD=$SHIM fio "${fio_job[@]}" --thread --size=64m --time_based --runtime=600 "${BURSTS[@]}" >/dev/null 2>&1 &
    fio=$!
    wait_for serves_somebody "$zero_copy"
    kill -9 $fio
    wait $fio 2>/dev/null || :
    wait_for is_idle
done
wait_for none_pinned
echo "  clients that are killed leave nothing behind"

# ---- the server dies: I/O waits for the next one, and nobody's fails ----
for ((i = 0; i < $(times 2 20); i++)); do
    tell
    LD_PRELOAD=$SHIM fio "${fio_job[@]}" --thread --size=64m --time_based --runtime=15 "${BURSTS[@]}" \
        --output="$SCRATCH/fio.out" &
    fio=$!
    wait_for serves_somebody "$zero_copy"
    kill -9 $tiny
    wait $tiny 2>/dev/null || :
    serve --recover
    wait $fio || fail "fio beside a server that died: $(cat "$SCRATCH/fio.out")"
    wait_for is_idle
    wait_for none_pinned
    expect_share "fio with the shim, after restart $((i + 1))" with_shim "${fio_job[@]}" --size=16m
done
[ ! -s "$SCRATCH/complaints" ] || sed 's/^/  /' "$SCRATCH/complaints"

# ---- and it ends ----
wait_for is_idle
kill -TERM $tiny
wait $tiny || fail "status $? at the end: $(cat "$SCRATCH/complaints")"
[ ! -e "$DEVICE" ] || fail "$DEVICE is still there"
[ ! -e /run/ublkzc/ublkb$N.sock ] || fail "its socket is still there"
wait_for none_pinned
