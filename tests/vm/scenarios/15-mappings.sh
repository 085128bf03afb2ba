#!/usr/bin/env bash
# Private anonymous mappings: fio's --mem=mmap and mmaphuge, and a mapping that is
# protected, unmapped in part and committed again while it is used.
. "$(dirname "$0")/../lib.sh"

start_file 256M
job() { # ARGUMENTS...
    LD_PRELOAD=$SHIM run_fio --name=j --filename="$DEVICE" --direct=1 --rw=randrw --bs=64k \
        --size=64M --verify=crc32c --verify_fatal=1 "$@"
}
for engine in psync libaio; do
    measure_share job --mem=mmap --ioengine=$engine --iodepth=4
    expect_share_at_least 990 "mem=mmap $engine"
done
measure_share job --mem=mmap --ioengine=psync --thread=1 --numjobs=2 --offset_increment=64M
expect_share_at_least 990 "mem=mmap, two threads"

echo 64 >/proc/sys/vm/nr_hugepages
measure_share job --mem=mmaphuge --hugepage-size=2m --ioengine=psync
expect_share_at_least 990 "mem=mmaphuge"
echo 0 >/proc/sys/vm/nr_hugepages

wait_for nothing_registered
wait_for none_pinned
