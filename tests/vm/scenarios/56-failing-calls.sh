#!/usr/bin/env bash
# Each system call that leads to a live device fails once, with the error it has when a machine
# is out of something: add says so, ends, and leaves nothing behind; or it serves all the same.
# EVERY=1 tries each of them (some two hundred), as tests/full does, the default every ninth; FROM=, TO= bound them.
. "$(dirname "$0")/../lib.sh"
EVERY=${EVERY:-$(times 9 1)}
failcall=$BUILD/tests/faults/failcall
truncate -s 16M "$SCRATCH/disk.img"
report=$SCRATCH/report

left() {
    find /dev -name 'ublk[bc]*'
    find /run/ublkzc /run/ublk -mindepth 1 ! -name '*.log' 2>/dev/null
    pgrep -a -x ublkzc
}
nothing_left() { [ -z "$(left)" ]; }
within() { (wait_for "$@") 2>/dev/null; }
tell() {
    echo "call $1: $(cat "$report"); add said: $(cat "$SCRATCH/err")"
    left
    for pid in $(pgrep -x ublkzc); do cat /proc/"$pid"/task/*/stack; done
}

# fail_call N[+]: the N-th from the moment on when add begins to start something
fail_call() {
    rm -f "$report"
    "$failcall" pipe2 "$1" "$report" "$UBLKZC" add -t file -d 4 "$SCRATCH/disk.img" \
        >"$SCRATCH/out" 2>"$SCRATCH/err" </dev/null &
    within test -e "$report" || fail "add does not end: $(tell "$1")"
    read -r status call <"$report"
    if [ "$status" = 0 ]; then
        served=$((served + 1))
        DEVICE=$(cat "$SCRATCH/out")
        ID=${DEVICE#/dev/ublkb}
        timeout 20 dd if=/dev/zero of="$DEVICE" bs=64k count=2 oflag=direct status=none ||
            fail "the device does not work: $(tell "$1")"
        timeout 20 "$UBLKZC" del -n "$ID" >/dev/null 2>"$SCRATCH/del" || fail "del: $(cat "$SCRATCH/del"): $(tell "$1")"
    else
        refused=$((refused + 1))
        [ "$status" = 1 ] || fail "add ended with status $status: $(tell "$1")"
        [ -s "$SCRATCH/err" ] || [[ $call == write\(0x2,* ]] || fail "add says nothing: $(tell "$1")"
    fi
    within nothing_left || fail "something is left: $(tell "$1")"
    [ -z "${VERBOSE-}" ] || echo "  $1: $call: $status $(head -n 1 "$SCRATCH/err")"
}

served=0 refused=0
# Once, and (+) all of that name from then on: what has run out stays so.
for once in "" +; do
    call=
    for ((n = ${FROM:-1}; n <= ${TO:-5000}; n += EVERY)); do
        fail_call "$n$once"
        [ "$call" != none ] || break
    done
    EVERY=$((EVERY * 2))
done
if [ $refused -lt "${LEAST:-3}" ] || [ $served -lt "${LEAST:-3}" ]; then
    fail "$refused times add ended, $served times it served: too few to believe it"
fi
echo "  of $((served + refused)) calls that failed add ended with an error $refused times, and served all the same $served times"

# Nobody would know which device it is.
"$UBLKZC" add -t null >/dev/full 2>"$SCRATCH/err" && fail "add: who cannot be told the device is told that it went well"
grep -q 'is removed, as its name cannot be written to standard output: No space left' "$SCRATCH/err" ||
    fail "add into a full disk said: $(cat "$SCRATCH/err")"
within nothing_left || fail "a device that nobody was told of is left: $(left)"
(trap - PIPE; "$UBLKZC" add -t null 2>"$SCRATCH/err" || echo $? >"$SCRATCH/status") | true
[ "$(cat "$SCRATCH/status")" = 1 ] || fail "add into a pipe that nobody reads: status $(cat "$SCRATCH/status")"
within nothing_left || fail "a device that nobody was told of is left: $(left)"
