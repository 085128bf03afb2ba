# shellcheck shell=bash
# tests/vm/suite.sh - packages of a newer Debian suite than this machine's, through an apt
# configuration of its own: nothing of the system's changes. Mirror and keyring are the
# system's. Source it; the caller sets cache.
cache=${cache:?"suite.sh: cache is not set"}
suite_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
apt_options=() # of the suite in use; none: this machine's own

# use_suite SUITE
use_suite() {
    local own=$cache/apt/$1 mirror
    mirror=$("$(dirname "${BASH_SOURCE[0]}")/mirror") || return 1
    mkdir -p "$own/lists/partial" "$own/cache/archives/partial"
    echo "deb [signed-by=$suite_keyring] $mirror $1 main" >"$own/sources.list"
    apt_options=(-o "Dir::Etc::sourcelist=$own/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$own/lists" -o "Dir::Cache=$own/cache")
    (
        flock 6
        apt-get -qq "${apt_options[@]}" update 2>/dev/null
    ) 6>"$own/.lock"
}

# suite_with PACKAGE SUITE...: uses the first suite that has it
suite_with() {
    local package=$1 suite
    shift
    for suite in "$@"; do
        use_suite "$suite" || continue
        if apt-cache "${apt_options[@]}" show "$package" >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

# unpack_packages DIRECTORY PACKAGE...: from the suite in use, in DIRECTORY
unpack_packages() {
    local into=$1 debs deb status=0
    shift
    debs=$(mktemp -d)
    (cd "$debs" && apt-get -qq "${apt_options[@]}" -o APT::Sandbox::User=root download "$@" >/dev/null) ||
        status=1
    for deb in "$debs"/*.deb; do
        [ $status != 0 ] || dpkg-deb -x "$deb" "$into" || status=1
    done
    rm -rf "$debs"
    return $status
}
