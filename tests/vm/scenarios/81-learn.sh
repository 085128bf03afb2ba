#!/usr/bin/env bash
# "ublkzc run --learn" finds what programs that nobody has told it of need, writes it where the
# library finds it, and says so when nothing helps.
. "$(dirname "$0")/../lib.sh"

start_file 64M
export HOME=$SCRATCH/home
mkdir "$HOME"
chmod 755 "$SCRATCH"
chmod 666 "$DEVICE"
learn() { # NAME COMMAND...: a copy of the test's program by that name
    local name=$1
    shift
    cp "$BUILD/tests/vm/learnt" "$SCRATCH/$name"
    "$UBLKZC" run --learn --library "$SHIM" -- "$SCRATCH/$name" "$@" "$DEVICE" 2>"$SCRATCH/said"
}
profiles=$SCRATCH/home/.config/ublkzc/profiles
as_user() { setpriv --reuid=65534 --clear-groups "$@"; }
chown 65534 "$HOME"

# finds NAME WORDS MEMORY: as a user, into his own profiles; then all by itself.
finds() {
    cp "$BUILD/tests/vm/learnt" "$SCRATCH/$1"
    as_user "$UBLKZC" run --learn --library "$SHIM" -- "$SCRATCH/$1" "$3" "$DEVICE" 2>"$SCRATCH/said" ||
        fail "learn $1: $(cat "$SCRATCH/said")"
    sed 's/^/  /' "$SCRATCH/said"
    grep -qx "$1 $2" "$profiles/$1" || fail "learnt '$(tail -n 1 "$profiles/$1")', not '$1 $2'"
    share_at_least 950 "$1 by its profile" as_user "$UBLKZC" run --quiet --library "$SHIM" -- "$SCRATCH/$1" "$3" "$DEVICE"
    share_at_least 950 "$1, told where" as_user env UBLKZC_PROFILES="$profiles" LD_PRELOAD="$SHIM" "$SCRATCH/$1" "$3" "$DEVICE"
}
finds news malloc malloc
finds arenas mmap arena

learn alignedly aligned || fail "aligned: $(cat "$SCRATCH/said")"
grep -q "needs no profile" "$SCRATCH/said" || fail "aligned: $(cat "$SCRATCH/said")"
learn fixedly fixed && fail "its buffers are not to be captured: $(cat "$SCRATCH/said")"
grep -q "no profile makes it zero-copy" "$SCRATCH/said" || fail "fixed: $(cat "$SCRATCH/said")"
"$UBLKZC" run --learn --library "$SHIM" -- false 2>/dev/null && fail "what does not work is learnt"
"$UBLKZC" run --learn --library "$SHIM" -- true 2>"$SCRATCH/said" && fail "what does nothing is learnt"
grep -q "did no I/O on a ublkzc device" "$SCRATCH/said" || fail "true: $(cat "$SCRATCH/said")"

# Root's are everybody's.
at_end 'rm -rf /etc/ublkzc/profiles'
learn ours malloc || fail "root: $(cat "$SCRATCH/said")"
grep -qx "ours malloc" /etc/ublkzc/profiles/ours || fail "root learnt elsewhere: $(cat "$SCRATCH/said")"
share_at_least 950 "what root has learnt, as a user" as_user "$UBLKZC" run --quiet --library "$SHIM" -- "$SCRATCH/ours" malloc "$DEVICE"

# A real one.
if type -p bonnie++ >/dev/null; then
    mkfs.ext4 -q "$DEVICE"
    mkdir "$SCRATCH/mnt"
    mount "$DEVICE" "$SCRATCH/mnt"
    bonnie() { "$@" bonnie++ -D -q -u root -d "$SCRATCH/mnt" -s 16M:64k -r 8M -n 0 -f -x 1 >/dev/null; }
    "$UBLKZC" run --learn --library "$SHIM" -- bonnie++ -D -q -u root -d "$SCRATCH/mnt" -s 16M:64k -r 8M -n 0 -f \
        >/dev/null 2>"$SCRATCH/said" || :
    sed 's/^/  bonnie++: /' "$SCRATCH/said"
    umount "$SCRATCH/mnt"
else
    echo "  skipped: bonnie++ is not installed"
fi
