#!/usr/bin/env bash
# Commands reach the right processes: other pid namespaces, hung servers, locks, descriptors.
. "$(dirname "$0")/../lib.sh"

# ---- a server in another pid namespace, whose numbers are other processes' here ----

sleepers=()
for _ in $(seq 40); do
    sleep 3600 &
    sleepers+=($!)
done
all_live() {
    local pid
    for pid in "${sleepers[@]}"; do
        kill -0 "$pid" 2>/dev/null || fail "process $pid, which has nothing to do with it, has ended $1"
    done
}
is_a_sleeper() { [[ " ${sleepers[*]} " == *" $1 "* ]]; }

add_elsewhere() { # sets DEVICE and ID
    unshare --pid --fork --mount-proc bash -c "
        echo $((sleepers[0] + 1)) >/proc/sys/kernel/ns_last_pid
        $UBLKZC add -t mem --size 64M >'$SCRATCH/elsewhere'
        sleep 3600" 2>/dev/null &
    namespace=$!
    wait_for test -s "$SCRATCH/elsewhere"
    DEVICE=$(cat "$SCRATCH/elsewhere")
    ID=${DEVICE#/dev/ublkb}
    DEVICES+=("$DEVICE")
    is_a_sleeper "$(server)" || fail "its server says it is process $(server), which is not taken here"
}
end_namespace() {
    # Its first process is the child of unshare; with it go all that are in it.
    kill -KILL "$(ps -o pid= --ppid $namespace | tr -d ' ')" 2>/dev/null || :
    wait $namespace 2>/dev/null || :
    rm -f "$SCRATCH/elsewhere"
}

add_elsewhere
echo "  in its namespace the server is process $(server), which is a sleeper here"
"$UBLKZC" list 2>/dev/null | grep "^$DEVICE" | grep -q ' alive ' || fail "list: $("$UBLKZC" list)"
"$UBLKZC" recover -n "$ID" 2>/dev/null && fail "recover of a live server elsewhere"
dd if=/dev/urandom of="$SCRATCH/data" bs=1M count=4 status=none
dd if="$SCRATCH/data" of="$DEVICE" bs=1M oflag=direct status=none
"$UBLKZC" upgrade -n "$ID" || fail "upgrade elsewhere: $(cat "/run/ublkzc/ublkb$ID.log")"
recovered 0 || fail "no other server elsewhere"
cmp -n 4194304 "$SCRATCH/data" "$DEVICE"
all_live "at upgrade"
"$UBLKZC" del -n "$ID" || fail "del elsewhere"
[ ! -e "$DEVICE" ] || fail "del left $DEVICE"
all_live "at del"
end_namespace

# The namespace ends, and with it server and keeper; their numbers live on here.
add_elsewhere
end_namespace
dead() { "$UBLKZC" list 2>/dev/null | grep "^$DEVICE" | grep -q ' dead '; }
wait_for dead
"$UBLKZC" upgrade -n "$ID" 2>"$SCRATCH/err" && fail "upgrade of a dead server"
grep -q "no server" "$SCRATCH/err" || fail "upgrade of a dead server: $(cat "$SCRATCH/err")"
"$UBLKZC" del -n "$ID"
[ ! -e "$DEVICE" ] || fail "del left $DEVICE"
all_live "when a namespace had ended"
kill "${sleepers[@]}"

# ---- a server that does not answer ----

start_file 64M
before=$(server)
kill -STOP "$before"
"$UBLKZC" del --force -n "$ID" 2>"$SCRATCH/err" || fail "del of a stopped server: $(cat "$SCRATCH/err")"
grep -q "does not answer" "$SCRATCH/err" || fail "del of a stopped server says: $(cat "$SCRATCH/err")"
[ ! -e "$DEVICE" ] || fail "del left $DEVICE"
for kind in sock stat args lock; do
    [ ! -e "/run/ublkzc/ublkb$ID.$kind" ] || fail "del left its $kind file"
done
[ ! -e "/proc/$before" ] || fail "the stopped server is still there"

# ---- what others may hold ----

start -t mem --size 16M --recovery none
for file in /run/ublkzc/ublkb"$ID".*; do
    setpriv --reuid=65534 --clear-groups flock --nonblock "$file" sleep 3600 2>/dev/null &
done
sleep 1
kill -KILL "$(server)"
wait_for dead
setpriv --reuid=65534 --clear-groups "$UBLKZC" list 2>/dev/null | grep "^$DEVICE" | grep -q ' dead ' ||
    fail "somebody without privileges is told otherwise"
"$UBLKZC" del -n "$ID"
pkill -P $$ sleep || :

# ---- what we do not hold ----

exec 9>"$SCRATCH/lock"
flock 9
start -t mem --size 16M
exec 9>&-
flock --nonblock "$SCRATCH/lock" true || fail "the keeper has its caller's lock"
for pid in $(server) $(keeper); do
    ! find "/proc/$pid/fd" -lname "$SCRATCH/lock" | grep -q . || fail "process $pid has its caller's descriptor"
done
"$UBLKZC" del -n "$ID"

# ---- what our caller had closed, ignored or limited ----

serves_on() { # HOW: after a crash
    local before
    before=$(recoveries)
    kill -KILL "$(server)"
    wait_for recovered "$before"
    dd if=/dev/zero of="$DEVICE" bs=1M seek=32 count=1 oflag=direct status=none || fail "$1: no I/O"
    "$UBLKZC" del "$ID" || fail "$1: del"
}
added() { # sets DEVICE and ID
    DEVICE=$(cat "$SCRATCH/added")
    ID=${DEVICE#/dev/ublkb}
    DEVICES+=("$DEVICE")
}
truncate -s 64M "$SCRATCH/caller.img"
"$UBLKZC" add -t file "$SCRATCH/caller.img" <&- >"$SCRATCH/added" 2>&- || fail "add without a terminal"
added
serves_on "with standard streams closed"
"$UBLKZC" help >&- 2>/dev/null && fail "help to nowhere is no error"

(
    ulimit -f 1024 # KiB
    ulimit -t 60
    ulimit -v 8000000
    exec "$UBLKZC" add -t file "$SCRATCH/caller.img" >"$SCRATCH/added"
)
added
for pid in $(server) $(keeper); do
    for limit in "Max cpu time" "Max file size" "Max address space" "Max data size"; do
        grep -qE "^$limit +unlimited +unlimited" "/proc/$pid/limits" ||
            fail "process $pid has its caller's limits: $(cat "/proc/$pid/limits")"
    done
done
serves_on "with limits"

without_sigchld() {
    python3 -c 'import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])' "$@"
}
without_sigchld "$UBLKZC" add -t file "$SCRATCH/caller.img" >"$SCRATCH/added"
added
mkfs.ext4 -qF "$DEVICE"
mkdir "$SCRATCH/mnt-caller"
mount "$DEVICE" "$SCRATCH/mnt-caller"
without_sigchld "$UBLKZC" del "$ID" 2>"$SCRATCH/err" && fail "a mounted device was removed"
grep -q "is in use: mounted" "$SCRATCH/err" || fail "del: $(cat "$SCRATCH/err")"
umount "$SCRATCH/mnt-caller"
serves_on "with SIGCHLD ignored"

LD_PRELOAD=$SHIM UBLKZC_CAPTURE=all "$UBLKZC" add -t file "$SCRATCH/caller.img" >"$SCRATCH/added"
added
LD_PRELOAD=$SHIM run_fio --name=t --filename="$DEVICE" --direct=1 --rw=randwrite --bs=64k --size=8m --verify=crc32c
LD_PRELOAD=$SHIM UBLKZC_CAPTURE=all "$UBLKZC" upgrade "$ID" || fail "an upgrade under the shim"
serves_on "itself under the shim"

# ---- directories and files, whatever the umask and however full ----

rm -rf /run/ublkzc /run/ublk
(umask 077 && "$UBLKZC" add -t mem --size 16M >"$SCRATCH/added")
DEVICE=$(cat "$SCRATCH/added") ID=${DEVICE#/dev/ublkb}
DEVICES+=("$DEVICE")
[ "$(stat -c %a /run/ublkzc)" = 755 ] || fail "/run/ublkzc has mode $(stat -c %a /run/ublkzc)"
for kind in sock:666 stat:644 lock:600 args:600; do
    mode=$(stat -c %a "/run/ublkzc/ublkb$ID.${kind%:*}")
    [ "$mode" = "${kind#*:}" ] || fail "with umask 077 the ${kind%:*} file has mode $mode"
done
setpriv --reuid=65534 --clear-groups "$UBLKZC" list 2>/dev/null | grep "^$DEVICE" | grep -q ' alive ' ||
    fail "others cannot ask for the server"
"$UBLKZC" del -n "$ID"

mount -t tmpfs -o size=16k tmpfs /run/ublkzc
dd if=/dev/zero of=/run/ublkzc/full bs=4k 2>/dev/null || :
devices_before=$(ls /dev/ublk*)
"$UBLKZC" add -t mem --size 16M >"$SCRATCH/added" 2>"$SCRATCH/err" && fail "add with a full /run"
grep -q "ublkb.*stat: No space left on device" "$SCRATCH/err" || fail "a full /run: $(cat "$SCRATCH/err")"
[ "$(ls /dev/ublk*)" = "$devices_before" ] || fail "a full /run: add left $(ls /dev/ublk*)"
[ "$(ls /run/ublkzc)" = full ] || fail "a full /run: add left $(ls /run/ublkzc)"
"$UBLKZC" list >"$SCRATCH/listed" || fail "list with a full /run"
umount /run/ublkzc
