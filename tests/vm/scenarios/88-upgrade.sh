#!/usr/bin/env bash
# Upgrades: under load they cost a pause, and a program that does not work changes nothing.
. "$(dirname "$0")/../lib.sh"
UPGRADES=${UPGRADES:-$(times 5 50)}

# What is "installed" in this scenario, and the program that all servers begin with.
installed=$SCRATCH/bin/ublkzc
mkdir "$SCRATCH/bin"
install_program() { # FILE: as a package manager does
    cp "$1" "$installed.new"
    mv "$installed.new" "$installed"
}
install_program "$UBLKZC"

upgrade() { "$UBLKZC" upgrade -n "$ID"; }
something_is_zero_copy() { [ "$(byte_counts | cut -d' ' -f1)" -gt 1000000 ]; }

# ---- again and again, under fio that verifies, and clients that add and remove buffers ----

rm -f /run/ublkzc/*.log # of scenarios that do kill servers
UBLKZC=$installed start_file 128M -q 2
LD_PRELOAD=$SHIM fio --filename="$DEVICE" --direct=1 --rw=randrw --rwmixread=40 \
    --bsrange=4k-1m --ioengine=libaio --iodepth=32 --verify=crc32c --verify_backlog=64 \
    --verify_fatal=1 --verify_dump=0 --size=24m --time_based --runtime=3000 "${BURSTS[@]}" \
    --output-format=json --output="$SCRATCH/fio.json" --name=one --name=two --offset=64m \
    2>"$SCRATCH/fio.err" &
fio=$!
wait_for something_is_zero_copy
python3 "$TREE/tests/vm/churn_clients.py" "/run/ublkzc/ublkb$ID.sock" "$DEVICE" 3 >"$SCRATCH/churn" 2>&1 &
churn=$!
churning() { [ "$(grep -c 'has begun' "$SCRATCH/churn")" -ge 3 ]; }
wait_for churning # Python starts slowly on a busy machine
for ((i = 1; i <= UPGRADES; i++)); do
    before=$(server)
    upgrade || fail "upgrade $i: $(tail -n 5 /run/ublkzc/ublkb"$ID".log)"
    [ "$(server)" != "$before" ] || fail "upgrade $i left the server as it was"
    kill -0 $fio || fail "fio has ended: $(cat "$SCRATCH/fio.err" "$SCRATCH/fio.json")"
    kill -0 $churn || fail "clients have ended: $(cat "$SCRATCH/churn")"
done
[ "$(recoveries)" = "$UPGRADES" ] || fail "$(recoveries) servers took over in $UPGRADES upgrades"
kill -TERM $churn
wait $churn || fail "clients that add and remove: status $?: $(cat "$SCRATCH/churn")"
[ "$(grep -c 'added and removed' "$SCRATCH/churn")" = 3 ] || fail "clients: $(cat "$SCRATCH/churn")"
grep 'added and removed' "$SCRATCH/churn"
measure_share sleep 2
kill -INT $fio
wait $fio || : # its status tells of the signal only
sed -n '/^{/,$p' "$SCRATCH/fio.json" | jq -e '[.jobs[].error] | length == 2 and all(. == 0)' >/dev/null ||
    fail "errors of fio: $(cat "$SCRATCH/fio.err" "$SCRATCH/fio.json")"
! grep -v 'terminating on signal' "$SCRATCH/fio.err" || fail "fio complains"
expect_share_at_least 990 "the same fio after $UPGRADES upgrades"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
! grep -q 'killed by signal' "/run/ublkzc/ublkb$ID.log" || fail "a server was killed: $(cat "/run/ublkzc/ublkb$ID.log")"
wait_for nothing_registered
wait_for none_pinned
"$UBLKZC" del -n "$ID"

# ---- programs that do not work ----

# What starts here can be told to die at a moment, and so can its successors.
UBLKZC=$installed UBLKZC_FAULT=serving:$SCRATCH/fault start_file 64M
dd if=/dev/urandom of="$SCRATCH/data" bs=1M count=8 status=none
dd if="$SCRATCH/data" of="$DEVICE" bs=1M oflag=direct status=none
serves() { cmp -n 8388608 "$SCRATCH/data" "$DEVICE" || fail "$1: the device does not serve"; }

refuses() { # PROGRAM, PATTERN: the server that was there goes on, and the command says why
    local before status=0
    before=$(server)
    install_program "$1"
    upgrade 2>"$SCRATCH/err" || status=$?
    [ $status = 1 ] || fail "upgrade to $1: status $status"
    grep -q "goes on with the program it had.*$2" "$SCRATCH/err" ||
        fail "upgrade to $1 says: $(cat "$SCRATCH/err")"
    [ "$(server)" = "$before" ] || fail "upgrade to $1 replaced the server"
    [ "$(recoveries)" = 0 ] || fail "upgrade to $1: a server took over"
    serves "after upgrade to $1"
    sed 's/^/  /' "$SCRATCH/err"
}
refuses /bin/false "does not work"
refuses /bin/true "does not work"
refuses "$BUILD/tests/faults/ublkzc-other-state" "another version of the state"
refuses "$BUILD/tests/faults/ublkzc-other-records" "does not understand this server's records"
rm "$installed"
upgrade 2>"$SCRATCH/err" && fail "an upgrade to no program"
grep -q "cannot be started" "$SCRATCH/err" || fail "no program: $(cat "$SCRATCH/err")"

# A crash meanwhile: the program that worked, which is open, comes back.
kill -KILL "$(server)"
wait_for recovered 0
serves "after a crash, with another program installed"

comes_back() { # WHEN: the program that worked, after the new one has died
    local before
    before=$(recoveries)
    upgrade 2>"$SCRATCH/err" && fail "an upgrade to a program that dies $1"
    [ ! -e "$SCRATCH/fault" ] || fail "it did not die $1"
    grep -q "took over and died" "$SCRATCH/err" || fail "one that dies $1: $(cat "$SCRATCH/err")"
    wait_for recovered "$before"
    serves "after a program that died $1"
    echo "  dies $1: $(cat "$SCRATCH/err")"
}
install_program "$BUILD/tests/faults/ublkzc-faults"
touch "$SCRATCH/fault"
comes_back "when it is live"
echo 500 >"$SCRATCH/fault" # ms after it is live, at the next look, which is each second
comes_back "after a second"

# And the installed program is used when it works, and asked for once: of two at the same time one
# is refused, whichever that is.
install_program "$UBLKZC"
before=$(recoveries)
upgrade 2>"$SCRATCH/first" &
first=$!
refused=0 other=''
is_refused() { grep -q "another upgrade is not over yet" "$1" || fail "another says: $(cat "$1")"; }
while kill -0 $first 2>/dev/null; do
    if upgrade 2>"$SCRATCH/err"; then
        other=yes
        break
    fi
    is_refused "$SCRATCH/err"
    refused=$((refused + 1))
done
if ! wait $first; then
    is_refused "$SCRATCH/first"
    [ -n "$other" ] || fail "nobody's upgrade, after all that: $(cat "/run/ublkzc/ublkb$ID.log")"
    refused=$((refused + 1))
fi
recovered "$before" || fail "no other server"
echo "  $refused that were asked for meanwhile were refused"
serves "after an upgrade after all that"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"

# Nobody but root, and nobody without a keeper.
setpriv --reuid=65534 --clear-groups "$UBLKZC" upgrade -n "$ID" 2>"$SCRATCH/err" && fail "nobody may upgrade"
grep -q "only root" "$SCRATCH/err" || fail "nobody was told: $(cat "$SCRATCH/err")"
setpriv --reuid=65534 --clear-groups "$UBLKZC" del -n "$ID" 2>/dev/null && fail "nobody may remove a device"
UBLKZC=$installed start -t null --recovery none
upgrade 2>"$SCRATCH/err" && fail "an upgrade without a keeper"
grep -q "no keeper" "$SCRATCH/err" || fail "without a keeper: $(cat "$SCRATCH/err")"
