#!/usr/bin/env bash
# Buffers come and go at random under I/O, and every byte is checked: the server's own
# memory, and other processes' private memory in place.
. "$(dirname "$0")/../lib.sh"
"$BUILD/tests/vm/abi/registration_stress"
# tests/full: a million requests, while memory is also swapped out, made huge and moved between nodes.
requests=()
if [ -n "${FULL-}" ] && [ -d /sys/devices/system/node/node1 ]; then
    modprobe zram
    echo 512M >/sys/block/zram0/disksize
    mkswap -q /dev/zram0
    swapon /dev/zram0
    requests=(8 1000000)
fi
"$BUILD/tests/vm/abi/foreign_stress" "${requests[@]}"
none_pinned || fail "$(pinned_pages) pages are still pinned"
