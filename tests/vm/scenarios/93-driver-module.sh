#!/usr/bin/env bash
# The module goes and comes back, with devices and without; buffers go with it.
. "$(dirname "$0")/../lib.sh"

load() {
    # the guest's own: 6.12 has ours in place of the distribution's
    if [ -n "${UBLK_MODULE-}" ]; then insmod "$UBLK_MODULE" "$@"; else modprobe ublk_drv "$@"; fi
}
unload() { rmmod ublk_drv; }
reads() { dd if="$DEVICE" of=/dev/null bs=64k count=8 iflag=direct status=none; }

# It says whose it is, and for which kernels.
line=$(uname -r | cut -d. -f1-2)
expected="the stock driver of $line"
! is_our_driver || expected="ublkzc's driver $(sed 's/-ublkzc//' /sys/module/ublk_drv/version) for $line"
said=$("$UBLKZC" features | sed -n 1p)
[ "$said" = "$expected" ] || fail "features says '$said', not '$expected'"

# A device that is served holds it.
start -t mem --size 16M
if unload 2>"$SCRATCH/out"; then fail "the module went while a device was served"; fi
grep -q "in use" "$SCRATCH/out" || fail "unloading: $(cat "$SCRATCH/out")"
measure_share env LD_PRELOAD="$SHIM" dd if="$DEVICE" of=/dev/null bs=64k count=64 iflag=direct status=none
expect_share_at_least 900 "before"
"$UBLKZC" del -n "$ID"
DEVICES=()
none_pinned || fail "$(pinned_pages) pages are pinned after del"

# Devices that nobody has open go with it, and so do their buffers.
"$BUILD/tests/vm/abi/leave_device" >/dev/null
"$BUILD/tests/vm/abi/leave_device" >/dev/null
[ "$(pinned_pages)" = 128 ] || fail "$(pinned_pages) pages are pinned, not 128"
unload
wait_for none_pinned
[ ! -e /dev/ublk-control ] || fail "the control device is still there"
[ -z "$(find /dev -name 'ublk*')" ] || fail "devices are left: $(find /dev -name 'ublk*')"
load
unload
load
echo "  unloaded: nothing is pinned"

# With foreign_memory=0 no server can have other processes' memory.
foreign='SHMEM_(FOREIGN|HINTS)'
if is_our_driver; then
    [ "$("$UBLKZC" features | grep -cE "$foreign")" = 2 ] || fail "no foreign memory: $("$UBLKZC" features)"
    unload
    load foreign_memory=0
    said=$("$UBLKZC" features)
    [[ ! $said =~ $foreign ]] || fail "foreign_memory=0: $said"
    unload
    load
fi

# It serves as before.
start -t mem --size 16M
reads
measure_share env LD_PRELOAD="$SHIM" dd if="$DEVICE" of=/dev/null bs=64k count=64 iflag=direct status=none
expect_share_at_least 900 "after"
