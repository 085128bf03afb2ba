#!/usr/bin/env bash
# The driver keeps the ABI of shared-memory zero copy.
. "$(dirname "$0")/../lib.sh"

# A disk file system, whose pages must not be pinned for the long term.
truncate -s 64M "$SCRATCH/disk"
mkfs.ext4 -q "$SCRATCH/disk"
modprobe loop
mkdir "$SCRATCH/mnt"
mount -o loop "$SCRATCH/disk" "$SCRATCH/mnt"
export ABI_DISK=$SCRATCH/mnt
for test in "$BUILD"/tests/vm/abi/*_test; do
    echo "${test##*/}"
    "$test"
done
none_pinned || fail "$(pinned_pages) pages are still pinned"
