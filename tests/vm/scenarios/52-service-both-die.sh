#!/usr/bin/env bash
# Under a service manager that keeps descriptors, keeper and server are killed together: the unit starts
# another, which has all that they had. I/O only pauses, and is zero-copy afterwards. Where the
# manager keeps nothing, programs are copied from then on.
. "$(dirname "$0")/../lib.sh"
unit=$BUILD/packaging/ublkzc@.service
export SCRATCH UBLKZC
ID=7 DEVICE=/dev/ublkb7
DEVICES+=("$DEVICE")
program=$SCRATCH/ublkzc # "installed"

# manage ROOM OPTIONS...: the service, of the unit, by a manager that keeps ROOM descriptors
manage() {
    local room=$1
    shift
    rm -f "$SCRATCH"/notify.*
    : >"$SCRATCH/manager"
    cp "$UBLKZC" "$program"
    python3 "$TREE/tests/vm/service_manager.py" "$unit" "$ID" "$room" "$program" serve -n "$ID" "$@" \
        >>"$SCRATCH/manager" 2>"$SCRATCH/err" &
    manager=$!
    wait_for grep -q '^ready' "$SCRATCH/manager"
}
at_end 'kill $manager 2>/dev/null && wait $manager'
at_end '[ $status = 0 ] || cat "$SCRATCH/manager" "$SCRATCH/err" >&2'
times_ready() { [ "$(grep -c '^ready' "$SCRATCH/manager")" = "$1" ]; }

stops_with_nothing_left() {
    kill "$manager"
    wait "$manager" || fail "the service ended with $?: $(cat "$SCRATCH/manager" "$SCRATCH/err")"
    [ ! -e "$DEVICE" ] || fail "the device is still there"
    [ -z "$(ls /run/ublkzc/ublkb$ID.* 2>/dev/null)" ] || fail "files are left: $(ls /run/ublkzc)"
}

start_verifying() {
    LD_PRELOAD=$SHIM fio --filename="$DEVICE" --direct=1 --rw=randrw --rwmixread=40 --bsrange=4k-256k \
        --ioengine=libaio --iodepth=8 --verify=crc32c --verify_backlog=64 --verify_fatal=1 \
        --verify_dump=0 --size=24m --time_based --runtime=600 "${BURSTS[@]}" --output-format=json \
        --output="$SCRATCH/fio.json" --name=one 2>"$SCRATCH/fio.err" &
    fio=$!
    wait_for something_is_zero_copy
}
something_is_zero_copy() { [ "$(byte_counts | cut -d' ' -f1)" -gt 1000000 ]; }
end_verifying() {
    kill -INT $fio
    wait $fio || : # its status tells of the signal only
    sed -n '/^{/,$p' "$SCRATCH/fio.json" | jq -e '[.jobs[].error] | length == 1 and all(. == 0)' >/dev/null ||
        fail "errors of fio: $(cat "$SCRATCH/fio.err" "$SCRATCH/fio.json")"
    ! grep -v 'terminating on signal' "$SCRATCH/fio.err" || fail "fio complains"
    [ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
}

kill_both() {
    local server keeper
    server=$(server) keeper=$(keeper)
    # Neither has a moment in which the other is dead.
    kill -STOP "$server" "$keeper"
    kill -KILL "$server" "$keeper"
}
# A stock driver may wait for itself if its server is killed while memory is registered.
nothing_changes() {
    local before
    before=$(stat_get .buffers)
    sleep 0.5
    [ "$before" = "$(stat_get .buffers)" ]
}
zero_copy_again() {
    measure_share sleep 0.5
    [ "$SHARE" -ge 990 ]
}

truncate -s 64M "$SCRATCH/disk.img"
manage 8192 -t file "$SCRATCH/disk.img"
start_verifying
for who in both "the keeper"; do
    before=$(recoveries)
    wait_for nothing_changes
    if [ "$who" = both ]; then kill_both; else kill -KILL "$(keeper)"; fi
    wait_for recovered "$before"
    wait_for zero_copy_again
    expect_share_at_least 990 "the same fio after $who died"
done
wait_for times_ready 3
kill -KILL "$(server)" # the new keeper keeps
wait_for recovered 2
wait_for zero_copy_again
end_verifying
wait_for nothing_registered
wait_for none_pinned
! grep -E "cannot be restored|it stays" "$SCRATCH/err" || fail "a successor misses something"
stops_with_nothing_left

# A RAM disk's contents are with the manager.
manage 8192 -t mem --size 64M
dd if=/dev/urandom of="$SCRATCH/data" bs=1M count=8 status=none
dd if="$SCRATCH/data" of="$DEVICE" bs=1M oflag=direct status=none
kill_both
wait_for times_ready 2
cmp -n 8388608 "$SCRATCH/data" "$DEVICE" || fail "a RAM disk has lost its contents"
stops_with_nothing_left

# What the manager has is another version's. Or it keeps nothing, or there is room for a few.
for room in $(times 8192 "8192 0 3"); do
    manage "$room" -t file "$SCRATCH/disk.img"
    start_verifying
    wait_for nothing_changes
    [ "$room" != 8192 ] ||
        cp --remove-destination "$BUILD/tests/faults/ublkzc-other-records" "$program"
    kill_both
    wait_for times_ready 2
    end_verifying
    LD_PRELOAD=$SHIM measure_share dd if="$DEVICE" of=/dev/null bs=1M iflag=direct status=none
    expect_share_at_least 990 "a new program, room for $room"
    wait_for nothing_registered
    wait_for none_pinned
    stops_with_nothing_left
    echo "  room for $room: $(tail -1 "$SCRATCH/err")"
done

# Who serves the device already keeps it.
"$UBLKZC" add -n "$ID" -t mem --size 64M >/dev/null
rm -f "$SCRATCH"/notify.*
python3 "$TREE/tests/vm/service_manager.py" "$unit" "$ID" 0 "$UBLKZC" serve -n "$ID" -t mem --size 64M \
    >"$SCRATCH/manager" 2>&1 && fail "the device of another is served"
"$UBLKZC" del --orphan -n "$ID" 2>"$SCRATCH/err" &&
    fail "the device of another was removed"
grep -q "has a server" "$SCRATCH/err" || fail "del --orphan says: $(cat "$SCRATCH/err")"
dd if="$DEVICE" of=/dev/null bs=1M count=1 iflag=direct status=none
