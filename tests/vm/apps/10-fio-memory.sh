#!/usr/bin/env bash
# fio with every kind of memory its --mem has.
. "$(dirname "$0")/../lib.sh"

start_file 128M
echo 64 >/proc/sys/vm/nr_hugepages
job() { # ARGUMENTS...
    LD_PRELOAD=$SHIM run_fio --name=j --filename="$DEVICE" --direct=1 --rw=randrw --bs=64k \
        --size=64M --verify=crc32c --verify_fatal=1 --iodepth=8 --ioengine=libaio \
        --hugepage-size=2m "$@"
}
# fio wants this file to be there, and large enough
truncate -s 2M /dev/shm/fio
for mem in malloc shm shmhuge mmap mmaphuge mmapshared:/dev/shm/fio; do
    # What the program shares itself is looked for from 1 MiB on.
    share_at_least 950 "fio --mem=${mem%%:*}" job --mem=$mem --iodepth=32
done
rm /dev/shm/fio
echo 0 >/proc/sys/vm/nr_hugepages
wait_for nothing_registered
wait_for none_pinned
