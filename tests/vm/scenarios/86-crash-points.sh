#!/usr/bin/env bash
# The server dies at the worst moments of a buffer's life; and a server that knows no
# buffer serves requests that name one.
. "$(dirname "$0")/../lib.sh"
UBLKZC=$BUILD/tests/faults/ublkzc-faults # says at which moment to die: tests/faults/fault.c

one_buffer_or_more() { [ "$(stat_get .buffers)" -ge 1 ]; }
verify() {
    LD_PRELOAD=$SHIM run_fio --name=v --filename="$DEVICE" --direct=1 --rw=randwrite --bs=64k \
        --ioengine=libaio --iodepth=4 --verify=crc32c --do_verify=1 --size=8m
}

# A client that does not wait for us as long as one usually would notices nothing either.
for moment in greeted registering asked registered live; do
    UBLKZC_FAULT=$moment:$SCRATCH/fault start_file 32M
    touch "$SCRATCH/fault"
    verify
    [ ! -e "$SCRATCH/fault" ] || fail "no server came to the moment '$moment'"
    wait_for recovered 0
    [ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
    wait_for nothing_registered
    measure_share verify
    expect_share_at_least 990 "after a server died when it was '$moment'"
    wait_for nothing_registered
    wait_for none_pinned
done

# And while what nobody wants any more is given back.
for moment in unregistering unregistered; do
    UBLKZC_FAULT=$moment:$SCRATCH/fault start_file 32M
    verify
    wait_for nothing_registered
    touch "$SCRATCH/fault"
    verify
    wait_for recovered 0
    [ ! -e "$SCRATCH/fault" ] || fail "no server came to the moment '$moment'"
    wait_for nothing_registered
    wait_for none_pinned
    measure_share verify
    expect_share_at_least 990 "after a server died when it was '$moment'"
done

# Server and keeper die under I/O: what the driver matches is unknown to the next server,
# which copies it, and right.
start_file 64M
LD_PRELOAD=$SHIM fio --name=v --filename="$DEVICE" --direct=1 --rw=randrw --bs=64k \
    --ioengine=libaio --iodepth=16 --verify=crc32c --verify_backlog=32 --verify_fatal=1 \
    --size=32m --time_based --runtime=600 >"$SCRATCH/fio.out" 2>&1 &
fio=$!
wait_for one_buffer_or_more
sleep 1
server=$(stat_get .pid)
kill -9 "$(ps -o ppid= -p "$server" | tr -d ' ')"
kill -9 "$server"
sleep 1
"$UBLKZC" recover -n "$ID" >/dev/null
unknown() { stat_get .not_zero_copy.unknown_buffer; }
some_are_unknown() { [ "$(unknown)" -gt 0 ]; }
wait_for some_are_unknown
echo "  $(unknown) requests named a buffer of the dead server, and were copied"
kill -0 $fio || fail "fio has ended: $(cat "$SCRATCH/fio.out")"
kill -INT $fio
wait $fio || : # its status tells of the signal only
! grep -E 'err=[ ]*[1-9]|verify:' "$SCRATCH/fio.out" || fail "fio: $(cat "$SCRATCH/fio.out")"
wait_for nothing_registered
wait_for none_pinned

# The keeper is dead, and then the server dies before it has told anybody of a buffer that
# the driver has: one that lists its buffers tells the next server.
if has_feature SHMEM_LIST; then
    UBLKZC_FAULT=registered:$SCRATCH/fault start_file 32M
    kill -9 "$(ps -o ppid= -p "$(stat_get .pid)" | tr -d ' ')"
    touch "$SCRATCH/fault"
    verify &
    client=$!
    wait_for eval "[ ! -e '$SCRATCH/fault' ]"
    wait_for eval "\"$UBLKZC\" recover -n $ID >/dev/null 2>'$SCRATCH/recover.err'"
    wait $client || fail "the client of two dead servers"
    grep -q "1 buffers of the dead server" "$SCRATCH/recover.err" ||
        fail "recover says: $(cat "$SCRATCH/recover.err")"
    echo "  a buffer that was not told of is found and unregistered"
    wait_for nothing_registered
    wait_for none_pinned
fi
