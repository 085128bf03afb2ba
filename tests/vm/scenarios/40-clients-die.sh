#!/usr/bin/env bash
# A client killed in the middle of its I/O leaves no registration, no pinned page and a
# working device; two clients at once do not disturb each other.
. "$(dirname "$0")/../lib.sh"

start_file 256M -q 2
holds_buffers() { [ "$(stat_get .buffers)" -gt 0 ]; }
for round in 1 2 3; do
    LD_PRELOAD=$SHIM fio --name=victim --filename="$DEVICE" --direct=1 --rw=randrw --bs=64k \
        --size=128m --time_based --runtime=60 --ioengine=libaio --iodepth=16 --numjobs=2 \
        >/dev/null 2>&1 &
    wait_for holds_buffers
    pkill -9 fio
    wait || :
    wait_for nothing_registered
    wait_for none_pinned
    echo "  round $round: killed, nothing left"
done

first=$SCRATCH/first.out
LD_PRELOAD=$SHIM fio --name=one --filename="$DEVICE" --direct=1 --rw=randwrite --bs=64k --size=32m \
    --offset=0 --ioengine=libaio --iodepth=4 --verify=crc32c --verify_fatal=1 >"$first" 2>&1 &
one=$!
LD_PRELOAD=$SHIM measure_share run_fio --name=two --filename="$DEVICE" --direct=1 --rw=randwrite \
    --bs=64k --size=32m --offset=128m --ioengine=io_uring --iodepth=4 --verify=crc32c --verify_fatal=1
wait $one || {
    cat "$first"
    fail "the first of two clients"
}
expect_share_at_least 990 "two clients at once"
wait_for nothing_registered
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
