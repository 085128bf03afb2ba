#!/usr/bin/env bash
# fio under the shim on the raw device: every engine, processes and threads, 4k to 1M,
# verified; at 64k and above 99 % of the bytes are zero-copy, without the shim none.
# Each engine has each size, and by turns processes or threads; in tests/full both.
. "$(dirname "$0")/../lib.sh"

start_file 256M -q 2
job() { # ENGINE, BLOCK SIZE, THREAD, more...
    local engine=$1 bs=$2 thread=$3
    shift 3
    run_fio --name=t --filename="$DEVICE" --direct=1 --rw=randwrite --bs="$bs" --size=8m \
        --numjobs=2 --offset_increment=64m --ioengine="$engine" --iodepth=8 \
        --thread="$thread" --verify=crc32c --verify_fatal=1 "$@"
}
job_with_shim() { LD_PRELOAD=$SHIM job "$@"; }

turn=0
for engine in psync libaio io_uring; do
    for bs in 4k 64k 256k 1m; do
        turn=$((turn + 1))
        for thread in $(times $((turn % 2)) "0 1"); do
            size=8m
            [ $bs != 4k ] || size=1m
            minimum=990
            [ $bs != 4k ] || minimum=900
            share_at_least $minimum "$engine, $bs, thread=$thread" \
                job_with_shim $engine $bs $thread --size=$size
        done
    done
    turn=$((turn + 1))
done
share_at_least 990 "io_uring, registered buffers" \
    job_with_shim io_uring 64k 1 --fixedbufs=1 --registerfiles=1

measure_share job libaio 64k 0
expect_no_share "without the shim"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
wait_for nothing_registered
wait_for none_pinned
