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
share_at_least 990 "mem=mmap, two threads" \
    job --mem=mmap --ioengine=psync --thread=1 --numjobs=2 --offset_increment=64M

# With the shim a program gets along with as many huge pages as without it.
huge_job() { job --mem=mmaphuge --hugepage-size=2m --ioengine=psync; }
hugepages() { # N: so many there are then, or it is said
    echo 3 >/proc/sys/vm/drop_caches
    echo 1 >/proc/sys/vm/compact_memory
    echo "$1" >/proc/sys/vm/nr_hugepages
    [ "$(</proc/sys/vm/nr_hugepages)" = "$1" ] || fail "the guest has no $1 huge pages"
}
needed=0
for ((n = 1; n <= 8 && !needed; n++)); do
    hugepages $n
    (SHIM='' huge_job) >/dev/null 2>&1 && needed=$n
done
((needed)) || fail "fio does not run in 8 huge pages, without the shim"
hugepages $needed
for ((i = 0; i < 3; i++)); do
    measure_share huge_job
    expect_share_at_least 990 "mem=mmaphuge in $needed huge pages"
done
hugepages 0

wait_for nothing_registered
wait_for none_pinned
