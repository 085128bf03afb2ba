# shellcheck shell=bash
# tests/packaging/lib.sh - a root of a Debian suite that may be changed at will, and
# packages for it. Source it as the first thing, with the script's arguments.
set -eu

HERE=$(cd "$(dirname "$0")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
CACHE=${UBLKZC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublkzc}

fail() {
    echo "tests/packaging/$(basename "$0"): $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "needs root, to enter another root"
# Mounts vanish with the process, however it ends.
if [ -z "${OWN_MOUNTS-}" ]; then
    OWN_MOUNTS=1 exec unshare --mount --propagation private "$0" "$@"
fi

# enter_root SUITE [KIND]: sets BASE, which is read-only, and WORK with the changes in root/
enter_root() {
    BASE=$("$HERE/root" "${2:-modules}" "$1")
    WORK=$(mktemp -d "$CACHE/packaging.XXXXXX")
    trap 'umount -R "$WORK/root" 2>/dev/null || :; umount "$WORK/rw" 2>/dev/null || :
        rm -rf "$WORK"' EXIT
    mkdir "$WORK/rw" "$WORK/root"
    mount -t tmpfs tmpfs "$WORK/rw"
    mkdir "$WORK/rw/upper" "$WORK/rw/work"
    mount -t overlay -o "lowerdir=$BASE,upperdir=$WORK/rw/upper,workdir=$WORK/rw/work" \
        overlay "$WORK/root"
    mount -t proc proc "$WORK/root/proc"
    mkdir "$WORK/root/debs"
}

inside() { DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$WORK/root" "$@"; }

dpkg_do() {
    inside dpkg "$@" >"$WORK/dpkg.log" 2>&1 || {
        tail -n 40 "$WORK/dpkg.log" >&2
        fail "dpkg $* failed"
    }
}

# make_deb PACKAGE [TREE]: builds it from TREE (this one) and prints its path
make_deb() {
    local tree=${2:-$TOP}
    "$tree/packaging/build-debs" >"$WORK/debs.log" 2>&1 || {
        cat "$WORK/debs.log" >&2
        fail "the packages do not build in $tree"
    }
    grep "/$1_[^/]*\.deb\$" "$WORK/debs.log"
}
