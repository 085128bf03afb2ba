#!/usr/bin/env bash
# What "ublkzc run --explain" says is what happened.
. "$(dirname "$0")/../lib.sh"

start_file 64M
job() { # fio arguments
    "$UBLKZC" run --explain --library "$SHIM" -- fio --name=j --filename="$DEVICE" --rw=randread \
        --bs=64k --size=16M "$@" >"$SCRATCH/out" 2>"$SCRATCH/said" || fail "$(cat "$SCRATCH/said")"
}
says() { # TEXT, DESCRIPTION
    grep -q -- "$1" "$SCRATCH/said" || fail "$2: no '$1' in: $(cat "$SCRATCH/said")"
    echo "  $2: $(grep -m 1 -- "$1" "$SCRATCH/said")"
}
says_not() {
    grep -q -- "$1" "$SCRATCH/said" && fail "$2: '$1' in: $(cat "$SCRATCH/said")"
    return 0
}

job --direct=1
says "$DEVICE: 16 MiB of 16 MiB zero-copy (100.0 %)" "all is well"
says "sessions with a server" "all is well"
says_not "opened .* without O_DIRECT" "all is well"

# A server that does not answer in time: zero-copy begins when it has, and what was copied
# until then is said to be that. What is copied before the server has seen that it was asked
# it cannot know; on a busy machine once that may be most of it.
late() {
    local zero all zero_now all_now copied unanswered
    read -r zero all < <(byte_counts)
    unanswered=$(stat_get .unanswered_bytes)
    UBLKZC_CONNECT_MS=0 measure_share job --direct=1 --time_based --runtime=4 --iodepth=8 --ioengine=libaio
    read -r zero_now all_now < <(byte_counts)
    copied=$((all_now - zero_now - (all - zero))) unanswered=$(($(stat_get .unanswered_bytes) - unanswered))
    says "server took longer than UBLKZC_CONNECT_MS" "a late server"
    expect_share_at_least 500 "a late server: $(grep zero-copy "$SCRATCH/said")"
    [ "$unanswered" -le "$copied" ] || fail "$copied bytes were copied, $unanswered before it had answered"
    [ "$unanswered" -gt 0 ] && [ $((unanswered * 2)) -ge "$copied" ]
}
for try in 1 2 3 4 never; do
    late && break
done
[ "$try" != never ] || fail "it is not known how much was copied before the server had answered"
says "were copied before the server had answered" "a late server"

job --direct=0
says "fio opened $DEVICE without O_DIRECT" "no direct I/O"

job --direct=1 --name=k --filename="$DEVICE" --rw=read --bs=64k --size=16M --direct=0
says "fio also opened $DEVICE without O_DIRECT" "some of it buffered"

job --direct=1 --numjobs=3 --thread=0
says "fio (4 processes)" "jobs that end by _exit are counted"

# The file with most copied bytes is named, not the first that was opened.
mkdir "$SCRATCH/fs"
mkfs.ext4 -q "$DEVICE" && mount "$DEVICE" "$SCRATCH/fs"
head -c 1M /dev/urandom >"$SCRATCH/fs/first"
mkdir "$SCRATCH/fs/the data"
head -c 16M /dev/urandom >"$SCRATCH/fs/the data/big"
head -c 2M /dev/urandom >"$SCRATCH/fs/last"
sync && echo 3 >/proc/sys/vm/drop_caches
"$UBLKZC" run -e --library "$SHIM" -- cat "$SCRATCH/fs/first" "$SCRATCH/fs/the data/big" "$SCRATCH/fs/last" \
    >/dev/null 2>"$SCRATCH/said"
says "what was copied is of $SCRATCH/fs/the data/big" "the file with most copied bytes"
percent=$(sed -n 's/.*: \([0-9]*\) % of what was copied.*/\1/p' "$SCRATCH/said")
[ "$percent" -ge 60 ] && [ "$percent" -lt 96 ] || fail "16 of 19 MiB are said to be $percent %"
says "cat also opened\|cat opened $SCRATCH/fs/first without O_DIRECT" "the first is named as such"
# Direct I/O in memory that is not captured is copied too, and what is zero-copy is of no account.
"$UBLKZC" run -e --library "$SHIM" -- fio --name=zc --filename="$SCRATCH/fs/the data/big" --rw=read --bs=64k \
    --size=16M --direct=1 --name=dd --exec_prerun="env -u LD_PRELOAD dd if=$SCRATCH/fs/last of=/dev/null bs=1M iflag=direct" \
    --filename="$SCRATCH/fs/last" --rw=read --bs=64k --size=1M --direct=1 >/dev/null 2>"$SCRATCH/said"
says "what was copied is of $SCRATCH/fs/last" "the file that was copied, though more was read of another"
umount "$SCRATCH/fs"

"$UBLKZC" run -e --library "$SHIM" --capture aligned -- fio --name=j --filename="$DEVICE" --rw=read \
    --bs=64k --size=16M --direct=1 >/dev/null 2>"$SCRATCH/said"
says "try UBLKZC_PROFILE='fio malloc" "its buffers are not captured"
says "256 requests copied: their memory was not registered" "its buffers are not captured"
UBLKZC_PROFILE='other malloc' "$UBLKZC" run -e --library "$SHIM" --profile 'fio malloc mmap=4096' -- \
    fio --name=j --filename="$DEVICE" --rw=read --bs=64k --size=16M --direct=1 >/dev/null 2>"$SCRATCH/said"
says "(100.0 %)" "with the profile it is told to try"

# A device whose server is not there for clients.
mv "/run/ublkzc/ublkb$ID.sock" "/run/ublkzc/away"
mv "/run/ublk/ublkb$ID.sock" "/run/ublk/away"
job --direct=1
says "no server behind $DEVICE" "no socket"
mv /run/ublkzc/away "/run/ublkzc/ublkb$ID.sock"
mv /run/ublk/away "/run/ublk/ublkb$ID.sock"

(ulimit -v 4000000 && job --direct=1)
says "no memory could be shared: RLIMIT_AS" "a limit"

start_file 64M --copy-only
job --direct=1
says "--copy-only was given" "a server that copies"

# What is not on a ublk disk is said to be so.
truncate -s 16M "$SCRATCH/plain"
"$UBLKZC" run -e --library "$SHIM" -- dd if="$SCRATCH/plain" of=/dev/null bs=64k iflag=direct \
    >/dev/null 2>"$SCRATCH/said" || :
says "did not go to a ublk disk" "another disk"
