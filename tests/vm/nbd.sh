# shellcheck shell=bash
# tests/vm/nbd.sh - NBD servers for scenarios, and devices on them.
NBD=$BUILD/engines/nbd/nbd.so
[ -e "$NBD" ] || fail "the engine nbd is not built: install libnbd-dev (packaging/install-deps)"
SOCKET=$SCRATCH/nbd
URI="nbd+unix:///?socket=$SOCKET"
NBD_SERVER='' # its pid
at_end 'stop_server'

# serve COMMAND...: an NBD server that stays in the foreground and listens on $SOCKET
serve() {
    rm -f "$SOCKET"
    "$@" >>"$SCRATCH/server.out" 2>&1 &
    NBD_SERVER=$!
    wait_for listens
}
# The socket is there a moment before somebody listens on it.
listens() { grep -q " 00010000 0001 .* $SOCKET\$" /proc/net/unix; }
# serve_nbdkit ARGUMENTS...: of nbdkit
serve_nbdkit() { serve nbdkit --foreground --exit-with-parent --unix "$SOCKET" "$@"; }

# At once: nbdkit that is asked to end waits for its clients.
stop_server() {
    [ -n "$NBD_SERVER" ] || return 0
    kill -KILL "$NBD_SERVER" || :
    wait "$NBD_SERVER" 2>/dev/null || :
    NBD_SERVER=''
}

# start_nbd ADD OPTIONS...: a device on the server; sets DEVICE and ID
start_nbd() { start -t "$NBD" "$@" "$URI"; }

# under_kills TIMES, COMMAND... that begins the server anew, --, COMMAND...: the server is killed so often while the
# second command runs, which must not notice.
under_kills() {
    local times=$1 again=() program i
    shift
    while [ "$1" != -- ]; do
        again+=("$1")
        shift
    done
    shift
    "$@" &
    program=$!
    for ((i = 0; i < times; i++)); do
        sleep "0.$((RANDOM % 9 + 1))"
        kill -0 $program 2>/dev/null || break
        stop_server
        sleep "0.$((RANDOM % 5))"
        "${again[@]}"
    done
    echo "  the server was killed $i times"
    [ "$i" -gt 0 ] || fail "it was over before a server was killed: $*"
    wait $program || fail "with a server that was killed $i times: $*: $(tail -5 "/run/ublkzc/ublkb$ID.log")"
}
