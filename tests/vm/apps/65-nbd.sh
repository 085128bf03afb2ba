#!/usr/bin/env bash
# A database and file systems on NBD servers of all kinds, which are killed under them.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../nbd.sh"
export WAIT=600

end() {
    "$UBLKZC" del -n "$ID"
    stop_server
}

# --- qemu-nbd: qcow2, whose tables are in its memory until a flush ---------------------
qemu-img create -q -f qcow2 "$SCRATCH/disk.qcow2" 256M
serve_qcow2() { serve qemu-nbd -t -e 8 -f qcow2 -k "$SOCKET" "$SCRATCH/disk.qcow2"; }
serve_qcow2
start_nbd -q 2 -o connections=2
for bs in 512 4k 16k; do with_shim verified $bs-$bs --size=4m; done
for bs in 64k 256k 1m; do share_at_least 990 "fio, qemu-nbd, $bs" with_shim verified $bs-$bs --size=32m; done
"$UBLKZC" del -n "$ID"
start_nbd -o cache=writethrough
AGAIN=serve_qcow2
under_deaths "$(times 4 20)" nbd_server_dies with_shim verified 4k-256k
end
# 3: clusters that nobody has any more; who is killed does not free them
checked=0
qemu-img check -q "$SCRATCH/disk.qcow2" >"$SCRATCH/out" 2>&1 || checked=$?
[ $checked = 0 ] || [ $checked = 3 ] || fail "the qcow2 file is broken: $(cat "$SCRATCH/out")"

# --- nbd-server: a process for each connection ------------------------------------------
truncate -s 512M "$SCRATCH/disk"
cat >"$SCRATCH/nbd.conf" <<CONFIG
[generic]
    allowlist = true
    unixsock = $SOCKET
    max_threads = 4
[disk]
    exportname = $SCRATCH/disk
    flush = true
    fua = true
    trim = true
CONFIG
serve_nbd_server() {
    rm -f "$SOCKET"
    head -c 1 /dev/random >/dev/null # it waits for the kernel's first random numbers after it listens
    nbd-server -C "$SCRATCH/nbd.conf" -p "$SCRATCH/nbd.pid" >>"$SCRATCH/server.out" 2>&1
    wait_for listens
    NBD_SERVER=-$(cat "$SCRATCH/nbd.pid") # and its children
}
serve_nbd_server
URI="nbd+unix:///disk?socket=$SOCKET" start_nbd -o cache=durable
for bs in 512 4k 16k; do with_shim verified $bs-$bs --size=4m; done
for bs in 64k 256k 1m; do share_at_least 990 "fio, nbd-server, $bs" with_shim verified $bs-$bs --size=32m; done
AGAIN=serve_nbd_server
under_deaths "$(times 4 20)" nbd_server_dies with_shim verified 4k-256k
end

# --- ours dies ---------------------------------------------------------------------------
serve_disk() { serve_nbdkit file "$SCRATCH/disk"; }
AGAIN=serve_disk
if is_our_driver; then
    serve_disk
    start_nbd -q 2 -o cache=durable -o connections=2
    under_deaths 20 own_server_dies with_shim verified 4k-256k --rate=16m
    end
else
    echo "  skipped: the stock driver can be wedged by a server's death (docs/recovery.md, 89-killed.sh)"
fi

# --- every kind of URI ---------------------------------------------------------------------
PKI=$SCRATCH/pki
make_certificates() {
    local who
    mkdir "$PKI"
    printf 'cn = "trials"\nca\ncert_signing_key\n' >"$PKI/ca.cfg"
    printf 'cn = "localhost"\ndns_name = "localhost"\ntls_www_server\nsigning_key\n' >"$PKI/server.cfg"
    for who in ca server; do certtool --generate-privkey --key-type ecdsa --outfile "$PKI/$who-key.pem"; done
    certtool --generate-self-signed --load-privkey "$PKI/ca-key.pem" --template "$PKI/ca.cfg" --outfile "$PKI/ca-cert.pem"
    certtool --generate-certificate --load-privkey "$PKI/server-key.pem" --load-ca-certificate "$PKI/ca-cert.pem" \
        --load-ca-privkey "$PKI/ca-key.pem" --template "$PKI/server.cfg" --outfile "$PKI/server-cert.pem"
    psktool -u somebody -p "$SCRATCH/keys"
}
make_certificates >"$SCRATCH/out" 2>&1 || fail "no certificates: $(cat "$SCRATCH/out")"
ip link set lo up
answers_tcp() { (exec 3<>/dev/tcp/localhost/10809) 2>/dev/null; }
reached() { # URI, nbdkit's arguments...
    local uri=$1
    shift
    nbdkit --foreground --exit-with-parent --port 10809 "$@" memory 64M >>"$SCRATCH/server.out" 2>&1 &
    NBD_SERVER=$!
    wait_for answers_tcp
    URI=$uri start_nbd -q 2 -o connections=2
    share_at_least 900 "$uri" with_shim verified 64k-64k --size=4m
    end
}
reached nbd://localhost/name --exportname name
reached "nbds://localhost/?tls-certificates=$PKI" --tls=require --tls-certificates="$PKI"
reached "nbds://somebody@localhost/?tls-psk-file=$SCRATCH/keys" --tls=require --tls-psk="$SCRATCH/keys"

# --- file systems, under deaths ------------------------------------------------------------
mkdir -p "$SCRATCH/mnt"
for fs in ext4 xfs; do
    serve_disk
    start_nbd -o cache=durable -o connections=2
    make_fs $fs
    mount "$DEVICE" "$SCRATCH/mnt"
    under_deaths "$(times 6 20)" nbd_server_dies with_shim files
    if is_our_driver; then under_deaths "$(times 3 20)" own_server_dies with_shim files; fi
    umount "$SCRATCH/mnt"
    check_fs $fs
    end
done

# --- power cuts at the other end -------------------------------------------------------------
# What nbdkit has not been asked to flush is in a file that dies with it.
serve_cached() { TMPDIR=$SCRATCH serve_nbdkit --filter=cache file "$SCRATCH/disk" cache=writeback; }
head -c 262144 /dev/urandom >"$SCRATCH/bytes"
write_files() { # until one cannot be written; those that were made stable are named in $SCRATCH/stable
    local i
    for ((i = 0; ; i++)); do
        [ ! -e "$SCRATCH/enough" ] || return 0
        LD_PRELOAD=$SHIM dd if="$SCRATCH/bytes" of="$SCRATCH/mnt/$1.$i" bs=64k oflag=direct conv=fsync status=none || return 0
        sync "$SCRATCH/mnt" || return 0 # its name, too
        echo "$1.$i" >>"$SCRATCH/stable"
    done
}
power_cuts() { # FILE SYSTEM
    local round writer file
    for ((round = 0; round < $(times 3 20); round++)); do
        rm -f "$SCRATCH/enough"
        write_files $round 2>/dev/null &
        writer=$!
        sleep "$((RANDOM % 3 + 1)).$((RANDOM % 10))"
        stop_server
        serve_cached
        sleep 1
        touch "$SCRATCH/enough"
        wait $writer
        umount "$SCRATCH/mnt"
        # What fails is what could not be flushed; the journal has the rest.
        [ "$1" != ext4 ] || e2fsck -fp "$DEVICE" >"$SCRATCH/out" || [ $? = 1 ] || fail "e2fsck: $(cat "$SCRATCH/out")"
        mount "$DEVICE" "$SCRATCH/mnt"
        while read -r file; do
            cmp "$SCRATCH/bytes" "$SCRATCH/mnt/$file" || fail "$1: $file was stable before power cut $round"
        done <"$SCRATCH/stable"
        umount "$SCRATCH/mnt"
        check_fs "$1" >/dev/null
        mount "$DEVICE" "$SCRATCH/mnt"
        rm -f "$SCRATCH/mnt"/[0-9]*
        sync "$SCRATCH/mnt"
        echo "  $1 after power cut $round: $(wc -l <"$SCRATCH/stable") files that were stable are there"
        : >"$SCRATCH/stable"
    done
}
for fs in ext4 xfs; do
    serve_cached
    start_nbd
    make_fs $fs
    mount "$DEVICE" "$SCRATCH/mnt"
    : >"$SCRATCH/stable"
    power_cuts $fs
    umount "$SCRATCH/mnt"
    end
done

# --- MariaDB, under deaths ---------------------------------------------------------------
serve_disk
start_nbd -q 2 -o cache=durable -o connections=2
mkfs.ext4 -qF "$DEVICE"
mount -o noatime "$DEVICE" "$SCRATCH/mnt"
begin_mariadb
under_deaths "$(times 6 20)" nbd_server_dies load run
if is_our_driver; then under_deaths "$(times 3 20)" own_server_dies load run; fi
checksums_of_tables
kill -KILL "$MARIADB"
wait "$MARIADB" || :
stop_server
serve_disk
mariadb_has_what_it_had
umount "$SCRATCH/mnt"
check_fs ext4
