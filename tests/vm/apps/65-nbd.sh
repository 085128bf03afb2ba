#!/usr/bin/env bash
# A database and file systems on NBD servers of all kinds, which are killed under them.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../nbd.sh"
export WAIT=600

verify() { # more...
    LD_PRELOAD=$SHIM run_fio --name=verify --direct=1 --rw=randrw --bs=64k --ioengine=libaio --iodepth=8 \
        --verify=crc32c --verify_fatal=1 "$@"
}
end() {
    "$UBLKZC" del -n "$ID"
    stop_server
}

# --- qemu-nbd: qcow2, whose tables are in its memory until a flush ---------------------
qemu-img create -q -f qcow2 "$SCRATCH/disk.qcow2" 256M
serve_qcow2() { serve qemu-nbd -t -e 8 -f qcow2 -k "$SOCKET" "$SCRATCH/disk.qcow2"; }
serve_qcow2
start_nbd -q 2 -o connections=2
measure_share verify --filename="$DEVICE" --size=64m
expect_share_at_least 990 "fio, qemu-nbd"
"$UBLKZC" del -n "$ID"
start_nbd -o cache=writethrough
under_kills "$(times 4 20)" serve_qcow2 -- verify --filename="$DEVICE" --size=32m --rate=4m
end
# 3: clusters that nobody has any more; who is killed does not free them
checked=0
qemu-img check -q "$SCRATCH/disk.qcow2" >"$SCRATCH/out" 2>&1 || checked=$?
[ $checked = 0 ] || [ $checked = 3 ] || fail "the qcow2 file is broken: $(cat "$SCRATCH/out")"

# --- nbd-server -------------------------------------------------------------------------
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
URI="nbd+unix:///disk?socket=$SOCKET"
serve_nbd_server() { serve nbd-server -C "$SCRATCH/nbd.conf" -d; }
serve_nbd_server
start_nbd # which serves one connection in the foreground
measure_share verify --filename="$DEVICE" --size=64m
expect_share_at_least 990 "fio, nbd-server"
end
URI="nbd+unix:///?socket=$SOCKET"

# --- file systems, under kills ----------------------------------------------------------
serve_disk() { serve_nbdkit file "$SCRATCH/disk"; }
mkdir -p "$SCRATCH/mnt"
for fs in ext4 xfs; do
    serve_disk
    start_nbd -o cache=durable -o connections=2
    if [ $fs = ext4 ]; then mkfs.ext4 -qF "$DEVICE"; else mkfs.xfs -qf "$DEVICE"; fi
    mount "$DEVICE" "$SCRATCH/mnt"
    under_kills "$(times 6 20)" serve_disk -- verify --directory="$SCRATCH/mnt" --size=24m --numjobs=2 \
        --fsync=16 --rate=4m
    umount "$SCRATCH/mnt"
    if [ $fs = ext4 ]; then e2fsck -fn "$DEVICE" >"$SCRATCH/out"; else xfs_repair -n "$DEVICE" >"$SCRATCH/out" 2>&1; fi ||
        fail "$fs is broken: $(cat "$SCRATCH/out")"
    [ "$(stat_get .errors)" = 0 ] || fail "$fs: requests failed: $(stat_json)"
    echo "  $fs is whole"
    end
done

# --- MariaDB, under kills ---------------------------------------------------------------
serve_disk
start_nbd -q 2 -o cache=durable -o connections=2
mkfs.ext4 -qF "$DEVICE"
mount -o noatime "$DEVICE" "$SCRATCH/mnt"
data=$SCRATCH/mnt/data
socket=$SCRATCH/mysql.sock
chmod 755 "$SCRATCH"
mariadb-install-db --no-defaults --user=root --datadir="$data" --skip-test-db \
    --auth-root-authentication-method=normal >"$SCRATCH/out" 2>&1 || fail "install: $(cat "$SCRATCH/out")"
sql() { mariadb --no-defaults -u root -S "$socket" -N -e "$1"; }
answers() {
    kill -0 $MARIADB || fail "mariadbd: $(tail -20 "$SCRATCH/mariadb.log")"
    sql 'select 1' >/dev/null 2>&1
}
start_mariadb() {
    LD_PRELOAD=$SHIM mariadbd --no-defaults --user=root --datadir="$data" --socket="$socket" --skip-networking \
        --pid-file="$SCRATCH/pid" --innodb-flush-method=O_DIRECT --innodb-buffer-pool-size=32M \
        --innodb-log-file-size=32M >"$SCRATCH/mariadb.log" 2>&1 &
    MARIADB=$!
    wait_for answers
}
load() {
    sysbench oltp_read_write --db-driver=mysql --mysql-socket="$socket" --mysql-user=root --mysql-db=sbtest \
        --tables=2 --table-size=20000 --threads=2 --time=0 --events="$(times 400 4000)" "$@" \
        >"$SCRATCH/sysbench" 2>&1 || fail "sysbench: $(cat "$SCRATCH/sysbench")"
}
start_mariadb
sql 'create database sbtest'
load prepare
under_kills "$(times 6 20)" serve_disk -- load run
sql 'checksum table sbtest.sbtest1, sbtest.sbtest2' >"$SCRATCH/before"
kill -KILL $MARIADB
wait $MARIADB || :
stop_server
serve_disk
start_mariadb
sql 'checksum table sbtest.sbtest1, sbtest.sbtest2' | diff "$SCRATCH/before" -
sql 'check table sbtest.sbtest1, sbtest.sbtest2' | grep -v OK && fail "a table is broken"
sql shutdown
wait $MARIADB || fail "mariadbd's end: $(tail -20 "$SCRATCH/mariadb.log")"
umount "$SCRATCH/mnt"
e2fsck -fn "$DEVICE" >"$SCRATCH/out" || fail "ext4 under MariaDB is broken: $(cat "$SCRATCH/out")"
echo "  MariaDB has what it had"
