# shellcheck shell=bash
# tests/vm/nbd.sh - NBD servers for scenarios, and devices on them.
. "$TREE/tests/vm/remote.sh"
NBD=$BUILD/engines/nbd/nbd.so
[ -e "$NBD" ] || fail "the engine nbd is not built: install libnbd-dev (packaging/install-deps)"
SOCKET=$SCRATCH/nbd
URI="nbd+unix:///?socket=$SOCKET"
NBD_SERVER='' # its pid, or -ID of a process group
at_end 'devices_end; stop_server'

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
    kill -KILL -- "$NBD_SERVER" || :
    wait -- "$NBD_SERVER" 2>/dev/null || :
    NBD_SERVER=''
}

# start_nbd ADD OPTIONS...: a device on the server; sets DEVICE and ID
start_nbd() { start -t "$NBD" "$@" "$URI"; }

# A DEATH, for under_deaths: of the NBD server that was begun by the function that AGAIN names
nbd_server_dies() {
    stop_server
    sleep "0.$((RANDOM % 5))"
    $AGAIN
}
