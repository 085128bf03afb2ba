#!/usr/bin/env bash
# The command line: whatever a verb tells a program is what the schema says; what is not as asked
# for is said; a user who may not is told so, and nothing else.
. "$(dirname "$0")/../lib.sh"

as_user() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
mkdir "$SCRATCH/json"
speaks() { # verbs that print JSON..., which is LAST, and looked at in the end
    LAST="$SCRATCH/json/$(tr -cd 'a-z0-9-' <<<"$*")"
    "$UBLKZC" "$@" >"$LAST" || fail "ublkzc $*: status $?"
}
says() { # TEXT, COMMAND...: it fails, and says TEXT in one line
    local text=$1 said
    shift
    if said=$("$@" 2>&1); then fail "'$*' succeeds"; fi
    grep -qF -- "$text" <<<"$said" || fail "'$*' says '$said', not '$text'"
    [ "$(wc -l <<<"$said")" = 1 ] || fail "'$*' says more than one thing: '$said'"
}

# What is less than what was asked for.
start -t null -q 32 2>"$SCRATCH/said"
grep -q "hardware queues instead of 32" "$SCRATCH/said" || fail "fewer queues: '$(cat "$SCRATCH/said")'"
truncate -s 1000001 "$SCRATCH/odd"
start -t file "$SCRATCH/odd" 2>"$SCRATCH/said"
grep -q "its last .* bytes are less than a block" "$SCRATCH/said" || fail "a tail: '$(cat "$SCRATCH/said")'"
start -t mem --size 64M

# JSON of every verb that has it.
python3 -c 'import mmap, time
memory = mmap.mmap(-1, 16 << 20)
memory[:] = b"x" * (16 << 20)
print("ready", flush=True)
time.sleep(600)' >"$SCRATCH/ready" &
program=$!
until grep -q ready "$SCRATCH/ready"; do sleep 0.1; done
speaks list --json
speaks stat --json
speaks features --json
speaks attach --pid $program --device "$DEVICE" --json
jq -e '.attached[0].buffers > 0' "$LAST" >/dev/null || fail "nothing attached: $(cat "$LAST")"
speaks attach --list --json
jq -e ".attached[0].pid == $program" "$LAST" >/dev/null || fail "not listed: $(cat "$LAST")"
speaks clients "$DEVICE" --json
jq -e ".clients[] | select(.pid == $program) | .how == \"attached\" and .bytes == 16777216 and .uid == 0" "$LAST" >/dev/null ||
    fail "who holds memory: $(cat "$LAST")"
"$UBLKZC" attach --list --device /dev/ublkb0 | grep -q . && fail "--device does not choose"
"$UBLKZC" attach --list --device "$DEVICE" | grep -q 'MiB' || fail "no unit: $("$UBLKZC" attach --list)"
"$UBLKZC" attach --list --bytes | grep -qw $((16 << 20)) || fail "no bytes: $("$UBLKZC" attach --list --bytes)"
kill $program
if has_feature UPDATE_SIZE; then
    speaks resize "$DEVICE" --size 128M --json
    "$UBLKZC" resize "$DEVICE" --size 256M | grep -q ': 256 MiB$' || fail "resize has no unit"
fi
"$UBLKZC" run --quiet --json "$SCRATCH/json/run" dd if="$DEVICE" of=/dev/null iflag=direct bs=1M count=8 2>/dev/null
jq -e ".run.status == 0 and ([.run.devices[] | select(.device == $ID) | .read | .zero_copy.bytes + .copied.bytes]
    | add >= 8 * 1024 * 1024)" "$SCRATCH/json/run" >/dev/null || fail "run counts $(cat "$SCRATCH/json/run")"
"$TREE/tests/check-json" "$SCRATCH"/json/* || fail "that is not what the schema says"

# A user who may not.
says "needs root" as_user "$UBLKZC" add -t null
says "needs root" as_user "$UBLKZC" features
says "only root" as_user "$UBLKZC" upgrade "$DEVICE"
says "only root" as_user "$UBLKZC" resize "$DEVICE"
says "only root" as_user "$UBLKZC" del "$DEVICE"
as_user "$UBLKZC" stat "$DEVICE" | grep -q '^/dev/ublkb' || fail "a user may look"
