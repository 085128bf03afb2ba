#!/usr/bin/env bash
# The command line's promises: clear errors, nothing left behind, clean ends.
. "$(dirname "$0")/../lib.sh"

expect_error() { # STATUS, PATTERN, ublkzc arguments...
    local status=0 wanted=$1 pattern=$2 text
    shift 2
    text=$("$UBLKZC" "$@" 2>&1) || status=$?
    [ "$status" = "$wanted" ] || fail "ublkzc $*: status $status, not $wanted: $text"
    grep -q -- "$pattern" <<<"$text" || fail "ublkzc $*: says '$text', not '$pattern'"
}
devices_before=$(ls /dev/ublk*)
expect_error 2 'there is no such engine' add -t nonsense
expect_error 2 'needs a PATH' add -t file
expect_error 2 'whole number' add -t null -q many
expect_error 1 'No such file' add -t file "$SCRATCH/missing"
expect_error 1 'neither a regular file' add -t file /dev/null
expect_error 1 'Is a directory' add -t file "$SCRATCH"
truncate -s 100 "$SCRATCH/tiny"
expect_error 1 'smaller than one block' add -t file "$SCRATCH/tiny"
expect_error 1 'no device 77' del -n 77
expect_error 1 'no server of ours' stat -n 77
expect_error 2 'which device' del
[ "$(ls /dev/ublk*)" = "$devices_before" ] || fail "a failed add left a device behind"

start -t mem --size 64M -n 5
[ "$DEVICE" = /dev/ublkb5 ] || fail "-n 5 made $DEVICE"
expect_error 1 'in use' add -t null -n 5

# somebody without privileges
text=$(setpriv --reuid=65534 --clear-groups "$UBLKZC" add -t null 2>&1) && fail "nobody may add"
grep -q 'needs root' <<<"$text" || fail "nobody was told: $text"

# read-only
truncate -s 16M "$SCRATCH/ro.img"
start -t file -r "$SCRATCH/ro.img"
[ "$(blockdev --getro "$DEVICE")" = 1 ] || fail "a read-only device is not"
dd if=/dev/zero of="$DEVICE" bs=4k count=1 oflag=direct 2>/dev/null && fail "a read-only device was written to"
"$UBLKZC" del -n "$ID"

# one file, one server
start_file 16M
expect_error 1 'in use by another server' add -t file "$SCRATCH/disk2.img"

# ps says which process is what
title=$(ps -o args= -p "$(server)")
[[ $title == *"/ublkzc: $DEVICE, file $SCRATCH/disk2.img" ]] || fail "the server's title: $title"
title=$(ps -o args= -p "$(keeper)")
[[ $title == *"/ublkzc: keeper of $DEVICE" ]] || fail "the keeper's title: $title"

# a device has three names, and what --json says is in ublkzc-json(5)
for name in "$ID" "ublkb$ID" "$DEVICE"; do
    "$UBLKZC" stat "$name" | grep -q "^$DEVICE: file" || fail "stat $name"
done
"$UBLKZC" list 2>/dev/null | grep -qE "^$DEVICE +file +16 MiB +[0-9]+ +1 x 128 +rw .* alive +$SCRATCH" ||
    fail "list: $("$UBLKZC" list)"
for verb in list stat features; do
    "$UBLKZC" $verb --json >"$SCRATCH/json"
    jq -r 'paths | map(strings) | last // empty' "$SCRATCH/json" | sort -u >"$SCRATCH/fields"
    [ -s "$SCRATCH/fields" ] || fail "$verb --json: $(cat "$SCRATCH/json")"
    while read -r field; do
        grep -qw -- "$field" "$TREE/docs/ublkzc-json.5" || fail "$verb --json has $field, which is not documented"
    done <"$SCRATCH/fields"
done

# discard and write zeroes read back as zeroes, and what was flushed is in the file
head -c 1M /dev/urandom >"$SCRATCH/random"
dd if="$SCRATCH/random" of="$DEVICE" bs=64k oflag=direct status=none
blkdiscard -o 65536 -l 65536 "$DEVICE"
blkdiscard -z -o 262144 -l 65536 "$DEVICE"
dd if=/dev/zero of="$SCRATCH/random" bs=64k seek=1 count=1 conv=notrunc status=none
dd if=/dev/zero of="$SCRATCH/random" bs=64k seek=4 count=1 conv=notrunc status=none
dd if="$DEVICE" bs=64k count=16 iflag=direct status=none | cmp - "$SCRATCH/random"
sync "$DEVICE"
cmp -n 1048576 "$SCRATCH/disk2.img" "$SCRATCH/random"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"

# SIGTERM ends it cleanly, kill -9 leaves something that del removes
pid=$("$UBLKZC" list --json | jq ".devices[] | select(.device == $ID) | .pid")
kill -TERM "$pid"
gone() { [ ! -e "$DEVICE" ] && [ ! -e "/run/ublkzc/ublkb$ID.sock" ]; }
wait_for gone
start -t mem --size 16M --recovery none # 85-server-dies.sh has the others
pid=$("$UBLKZC" list --json | jq ".devices[] | select(.device == $ID) | .pid")
kill -9 "$pid"
dead() { "$UBLKZC" list 2>/dev/null | grep -q ' dead '; }
wait_for dead
"$UBLKZC" del -n "$ID"
wait_for gone

# --shm-file: memory that clients map themselves, and that exists
head -c 16M /dev/zero >/dev/shm/pool
start_file 64M --shm-file /dev/shm/pool
measure_share run_fio --name=t --filename="$DEVICE" --direct=1 --rw=randwrite --bs=64k --size=16m \
    --ioengine=libaio --iodepth=4 --mem=mmapshared:/dev/shm/pool --verify=crc32c
rm /dev/shm/pool
expect_share_at_least 990 "fio --mem=mmapshared with --shm-file"

# no feature asked for: served by copy, and said so
start -t mem --size 64M --copy-only
LD_PRELOAD=$SHIM measure_share run_fio --name=t --filename="$DEVICE" --direct=1 --rw=write --bs=64k \
    --size=16m --verify=crc32c
expect_no_share "--copy-only"
"$UBLKZC" stat -n "$ID" | grep -q 'copy-only was given' || fail "stat does not say why: $("$UBLKZC" stat -n "$ID")"
"$UBLKZC" del -a
[ "$(ls /dev/ublk*)" = "$devices_before" ] || fail "del -a left devices behind"

# A server that is live has given up what it does not need, its threads all of it: what its
# threads try fails, and does not for a program that has given up nothing.
mkdir -m 755 "$SCRATCH/probe"
export UBLKZC_PROBE=$SCRATCH/probe
setpriv --reuid=1 --clear-groups sleep 600 &
export UBLKZC_PROBE_PID=$!
install -m 600 -o 1 /dev/null "$UBLKZC_PROBE/private"
# probed WHO, COMMAND...: what was tried and refused
probed() {
    local who=$1
    touch "$UBLKZC_PROBE/$who"
    shift
    "$@"
    wait_for test -e "$UBLKZC_PROBE/$who.said"
    [ "$(wc -l <"$UBLKZC_PROBE/$who.said")" = 17 ] || fail "not all was tried: $(cat "$UBLKZC_PROBE/$who.said")"
    awk '$2 == 1 || $2 == 13 { printf "%s ", $1 }' "$UBLKZC_PROBE/$who.said" # EPERM, EACCES
}
calls="execve fork ptrace mount umount chroot setns unshare bpf module mknod setuid setgroups reboot "
got=$(LD_PRELOAD=$BUILD/tests/faults/libprobe.so probed start /bin/true)
[ -z "$got" ] || fail "an ordinary program cannot: $got"
LD_PRELOAD=$BUILD/tests/faults/libprobe.so start_file 64M -q 2
got=$(probed queue dd if="$DEVICE" of=/dev/null bs=4k count=16 iflag=direct status=none)
[ "$got" = "${calls}CAP_CHOWN CAP_KILL CAP_DAC_OVERRIDE " ] || fail "a thread that serves cannot: $got"
got=$(probed main true)
[ "$got" = "${calls}CAP_CHOWN CAP_KILL " ] || fail "the control thread cannot: $got"
kill $UBLKZC_PROBE_PID
unset UBLKZC_PROBE UBLKZC_PROBE_PID
"$UBLKZC" del -n "$ID"

# And by the kernel's word, for every thread there is.
start_file 64M -q 2
server=$(stat_get .pid)
for task in /proc/"$server"/task/*; do
    want=0000000000000000
    # Workers of io_urings end when they have nothing to do: then there is nothing to look at.
    name=$(cat "$task/comm" 2>"$SCRATCH/err") || continue
    status=$(cat "$task/status" 2>"$SCRATCH/err") || continue
    # Commands to the driver are carried out by a worker of the control thread's io_uring.
    case ${task##*/}:$name in
    "$server":* | *:iou-wrk-"$server") want=0000000000284002 ;; # SYS_ADMIN, SYS_PTRACE, IPC_LOCK, DAC_OVERRIDE
    esac
    got=$(awk '/^CapPrm/ { print $2 }' <<<"$status")
    [ "$got" = $want ] || fail "thread ${task##*/} has capabilities $got, not $want"
    grep -q '^Seccomp:.2' <<<"$status" || fail "thread ${task##*/} has no filter of system calls"
    grep -q '^NoNewPrivs:.1' <<<"$status" || fail "thread ${task##*/} may gain privileges"
done
# A queue's thread stays on the processors whose requests come to it.
for queue in 0 1; do
    comm=$(grep -lx "ublkzc-q$queue" /proc/"$server"/task/*/comm)
    want=$(cat "/sys/block/ublkb$ID/mq/$queue/cpu_list")
    got=$(awk '/^Cpus_allowed_list/ { print $2 }' "${comm%comm}status")
    [ "$got" = "$want" ] || fail "queue $queue is served on processors $got, not $want"
done
[ "$(cat /proc/"$(ps -o ppid= -p "$server" | tr -d ' ')"/oom_score_adj)" = -1000 ] ||
    fail "the keeper is not spared when memory runs out"
[ "$(cat /proc/"$server"/oom_score_adj)" = 0 ] || fail "the server is spared"
