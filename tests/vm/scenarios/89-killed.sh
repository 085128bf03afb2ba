#!/usr/bin/env bash
# Servers are killed while buffers are registered and unregistered under much I/O. Our driver
# has no moment in which that is too much. The stock one has (docs/recovery.md): there this
# shows it, when WEDGE=1 asks for a guest that may be stuck afterwards.
. "$(dirname "$0")/../lib.sh"
KILLS=${KILLS:-$(times 6 50)}

ours=''
"$UBLKZC" features | grep -q SHMEM_LIST && ours=1
if [ -z "$ours" ] && [ -z "${WEDGE-}" ]; then
    echo "  skipped: the stock driver can be wedged by that; WEDGE=1 shows it"
    exit 0
fi

start_file 256M
fio --name=load --filename="$DEVICE" --direct=1 --rw=randrw --bs=1m --iodepth=64 --ioengine=libaio \
    --size=256m --time_based --runtime=3000 >"$SCRATCH/fio.out" 2>&1 &
fio=$!
python3 "$TREE/tests/vm/churn_clients.py" "/run/ublkzc/ublkb$ID.sock" "$DEVICE" 3 crashes \
    >"$SCRATCH/churn" 2>&1 &
churn=$!
churning() { [ "$(grep -c 'has begun' "$SCRATCH/churn")" -ge 3 ]; }
wait_for churning # Python starts slowly on a busy machine

# Does the device do I/O within a minute? A process that waits for ever cannot be killed.
does_io() {
    local reader
    dd if="$DEVICE" of=/dev/null bs=4k count=1 iflag=direct status=none &
    reader=$!
    local until=$((SECONDS + ${ours:+1}60)) # a busy machine may take its time
    while [ "$SECONDS" -lt $until ]; do
        kill -0 $reader 2>/dev/null || return 0
        sleep 0.1
    done
    return 1
}
show_wedge() { # AFTER HOW MANY
    local task
    echo "  the stock driver is wedged after $1 kills: I/O has waited for a minute, and"
    for task in $(pgrep 'ublkzc|iou-wrk'); do
        grep -hE 'freeze|io_wq_put' /proc/"$task"/task/*/stack 2>/dev/null || :
    done | sort -u
    trap - EXIT # nothing can remove the device; the guest ends
    exit 0
}
for ((i = 1; i <= KILLS; i++)); do
    sleep "0.$((RANDOM % 9 + 1))"
    kill -KILL "$(server)" 2>/dev/null || :
    if ! does_io; then
        [ -z "$ours" ] || fail "I/O hangs after $i kills"
        show_wedge "$i"
    fi
done
kill -TERM $churn
wait $churn || fail "clients: status $?: $(cat "$SCRATCH/churn")"
grep 'added and removed' "$SCRATCH/churn"
grep -q 'removed [1-9]' "$SCRATCH/churn" || fail "nothing was registered meanwhile"
kill -0 $fio || fail "fio has ended: $(cat "$SCRATCH/fio.out")"
kill -INT $fio
wait $fio || :
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
echo "  $KILLS servers were killed, and I/O went on"
wait_for nothing_registered
