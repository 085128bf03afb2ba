#!/usr/bin/env bash
# The server is killed, again and again: I/O only pauses, and is zero-copy afterwards.
. "$(dirname "$0")/../lib.sh"

# By a signal, or "memory": the kernel picks it when memory runs out.
kill_server() { # SIGNAL
    local before
    before=$(recoveries)
    if [ "$1" = memory ]; then
        echo 1000 >"/proc/$(server)/oom_score_adj"
        echo f >/proc/sysrq-trigger
    else
        kill -"$1" "$(server)"
    fi
    wait_for recovered "$before"
}
ways=(KILL SEGV KILL ABRT KILL BUS KILL memory)
[ -e /proc/sysrq-trigger ] || { # user-mode Linux
    echo "  skipped: memory running out: no /proc/sysrq-trigger"
    unset 'ways[-1]'
}

# verify_through_kills KILLS: fio writes and verifies under the shim meanwhile.
verify_through_kills() {
    local i fio
    LD_PRELOAD=$SHIM fio --filename="$DEVICE" --direct=1 --rw=randrw --rwmixread=40 \
        --bsrange=4k-256k --ioengine=libaio --iodepth=8 --verify=crc32c --verify_backlog=64 \
        --verify_fatal=1 --verify_dump=0 --size=24m --time_based --runtime=600 "${BURSTS[@]}" \
        --output-format=json --output="$SCRATCH/fio.json" --name=one --name=two --offset=64m \
        2>"$SCRATCH/fio.err" &
    fio=$!
    wait_for something_is_zero_copy
    for ((i = 0; i < $1; i++)); do
        sleep "0.$((RANDOM % 9 + 1))"
        kill_server "${ways[i % ${#ways[@]}]}"
    done
    sleep 1
    measure_share sleep 2
    # Its status tells of the signal only.
    kill -INT $fio
    wait $fio || :
    sed -n '/^{/,$p' "$SCRATCH/fio.json" | jq -e '[.jobs[].error] | length == 2 and all(. == 0)' >/dev/null ||
        fail "errors of fio: $(cat "$SCRATCH/fio.err" "$SCRATCH/fio.json")"
    ! grep -v 'terminating on signal' "$SCRATCH/fio.err" || fail "fio complains"
    expect_share_at_least 990 "the same fio after $1 servers were killed"
    [ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
}
something_is_zero_copy() { [ "$(byte_counts | cut -d' ' -f1)" -gt 1000000 ]; }

start_file 128M -q 2
verify_through_kills "$(times 8 20)"
wait_for nothing_registered
wait_for none_pinned

# A RAM disk's contents are in the keeper's hands.
start -t mem --size 128M
verify_through_kills "$(times 2 5)"
wait_for nothing_registered

# The keeper dies: the server serves on. Then both: recovery by hand.
start_file 64M
dd if=/dev/urandom of="$SCRATCH/data" bs=1M count=8 status=none
dd if="$SCRATCH/data" of="$DEVICE" bs=1M oflag=direct status=none
keeper=$(keeper)
kill -9 "$keeper"
LD_PRELOAD=$SHIM measure_share cmp -n 8388608 "$SCRATCH/data" "$DEVICE"
"$UBLKZC" recover -n "$ID" 2>"$SCRATCH/err" && fail "recover of a live server is accepted"
grep -q "has a server" "$SCRATCH/err" || fail "recover says: $(cat "$SCRATCH/err")"
LD_PRELOAD=$SHIM dd if="$DEVICE" of=/dev/null bs=64k iflag=direct status=none &
reader=$!
kill -9 "$(server)"
sleep 1
[ "$("$UBLKZC" recover -n "$ID")" = "$DEVICE" ] || fail "recover by hand"
wait $reader || fail "a reader during recovery by hand"
cmp -n 8388608 "$SCRATCH/data" "$DEVICE"
LD_PRELOAD=$SHIM measure_share dd if="$DEVICE" of=/dev/null bs=1M iflag=direct status=none
expect_share_at_least 990 "after recovery by hand"
kill_server KILL # and the new keeper keeps
wait_for nothing_registered
wait_for none_pinned

# Another program takes over a live device.
before=$(server)
"$UBLKZC" upgrade -n "$ID"
[ "$(server)" != "$before" ] || fail "upgrade left the server as it was"
cmp -n 8388608 "$SCRATCH/data" "$DEVICE"

# --recovery none: the device dies with its server; fail: errors meanwhile.
start_file 64M --recovery none
kill -9 "$(server)"
wait_for eval "! dd if=$DEVICE of=/dev/null bs=4k count=1 iflag=direct status=none 2>/dev/null"
"$UBLKZC" del -n "$ID"
if "$UBLKZC" add -t mem --size 64M --recovery fail >"$SCRATCH/fail" 2>&1; then
    DEVICE=$(cat "$SCRATCH/fail") ID=${DEVICE#/dev/ublkb}
    DEVICES+=("$DEVICE")
    kill_server KILL
    dd if="$DEVICE" of=/dev/null bs=1M iflag=direct status=none || fail "not served again"
else
    grep -q "Linux 6.13" "$SCRATCH/fail" || fail "--recovery fail: $(cat "$SCRATCH/fail")"
    echo "  --recovery fail: $(cat "$SCRATCH/fail")"
fi
