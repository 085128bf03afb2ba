#!/usr/bin/env bash
# What "ublkzc doctor" says of the machine and its devices is so, and what it says to do next helps:
# as root, as a user, in namespaces of a container's kind, and with each thing missing in turn.
. "$(dirname "$0")/../lib.sh"

trap 'echo "line $LINENO: status $?" >&2' ERR
as_user() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
doctor() { # STATUS, arguments: what it says is in SAID
    local want=$1 status=0
    shift
    SAID=$("$UBLKZC" doctor "$@") || status=$?
    [ $status = "$want" ] || fail "doctor $* ends with $status: $SAID"
}
says() { # PATTERN of a line, before it was wrapped
    sed -z 's/\n  \+/ /g' <<<"$SAID" | grep -qE -- "$1" || fail "no '$1' in: $SAID"
}
next() { sed -n 's/^next: *//p' <<<"$SAID"; }

shmem_may_be_huge never
doctor 1
says '^memory +note .*not in huge pages .*-> echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled'
shmem_may_be_huge advise
doctor 1
says '^driver +ok .*has shared-memory zero copy'
says '^io_uring +ok'
says '^memory +ok'
says '^device +bad +no device is served'
[ "$(next)" = "ublkzc add -t file PATH" ] || fail "next: $(next)"

start_file 64M
doctor 0 dd
says "^device +ok +$DEVICE .*is served with zero copy"
says '^verdict: ready for zero copy'
[ "$(next)" = "ublkzc run --explain -- dd ..." ] || fail "next: $(next)"
said=$("$UBLKZC" run --explain -- dd if="$DEVICE" of=/dev/null bs=1M iflag=direct 2>&1)
grep -q '(100.0 %)' <<<"$said" || fail "what it says to do is not zero-copy: $said"

# A user: who may not ask the driver, but knows from the server.
SAID=$(as_user "$UBLKZC" doctor) || fail "a user: $SAID"
says '^driver +note .*root may ask'
says "^device +note +$DEVICE may not be opened by this user"
says "^device +ok +$DEVICE .*is served with zero copy"
says '^verdict: ready'

# A container: other processes and users, and of the host only what was mounted.
in_container() { # SCRIPT
    unshare --user --map-root-user --pid --fork --mount --mount-proc bash -c "$1"
}
SAID=$(in_container "$UBLKZC doctor") || fail "a container: $SAID"
says '^place +note +in a container, with users of its own and with processes'
says "^device +ok +$DEVICE"
if SAID=$(in_container "mount -t tmpfs tmpfs /run/ublkzc && $UBLKZC doctor"); then fail "ready without a socket: $SAID"; fi
says '^device +bad .*is there, but its server is not reached'
says '^next: .*mount the host.s /run/ublkzc into the container'

# Only what copies, then beside one that does not.
"$UBLKZC" del "$DEVICE"
start -t null --copy-only
doctor 1
says '^device +bad .*copies all'
start -t null
doctor 0
says '^device +note .*copies all'
"$UBLKZC" del --all

# Server and keeper dead. (A stock driver of 7.x does not always survive that: docs/recovery.md.)
if is_our_driver; then
    start_file 64M
    kill -9 "$(keeper)" "$(server)"
    until "$UBLKZC" list 2>/dev/null | grep -q dead; do sleep 0.1; done
    doctor 1
    says '^device +bad .*its server is dead'
    PATH=$BUILD/server:$PATH bash -c "$(next)"
    doctor 0
    "$UBLKZC" del --all
fi

# The module gone: what it says brings it back. (The guest's own is not modprobe's.)
rmmod ublk_drv
doctor 1
says '^driver +bad +ublk_drv is installed, but not loaded'
[ "$(next)" = "modprobe ublk_drv" ] || fail "next: $(next)"
if [ -n "${UBLK_MODULE-}" ]; then insmod "$UBLK_MODULE"; else modprobe ublk_drv; fi

# io_uring forbidden.
if [ -e /proc/sys/kernel/io_uring_disabled ]; then
    sysctl -qw kernel.io_uring_disabled=2
    doctor 1
    says '^io_uring +bad .*io_uring_disabled'
    bash -c "$(next)" >/dev/null
    doctor 1
    says '^io_uring +ok'
fi
