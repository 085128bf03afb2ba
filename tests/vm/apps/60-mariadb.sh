#!/usr/bin/env bash
# MariaDB with innodb_flush_method=O_DIRECT under sysbench; tables must have the same
# checksum after a restart, with the shim and without. The file system has no journal:
# its blocks are not the database's I/O.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../charged.sh"

start_file 768M
mkfs.ext4 -qF -O ^has_journal "$DEVICE"
mkdir "$SCRATCH/mnt"
mount -o noatime "$DEVICE" "$SCRATCH/mnt"
data=$SCRATCH/mnt/data
socket=$SCRATCH/mysql.sock
chmod 755 "$SCRATCH"

mariadb-install-db --no-defaults --user=root --datadir="$data" --skip-test-db \
    --auth-root-authentication-method=normal >"$SCRATCH/out" 2>&1 || fail "install: $(cat "$SCRATCH/out")"

start_mariadb() { # PRELOAD, POOL
    LD_PRELOAD=$1 mariadbd --no-defaults --user=root --datadir="$data" --socket="$socket" \
        --skip-networking --pid-file="$SCRATCH/pid" --innodb-flush-method=O_DIRECT \
        --innodb-buffer-pool-size="${2-64M}" --innodb-log-file-size=32M --innodb-use-native-aio=1 \
        --innodb-buffer-pool-dump-at-shutdown=0 >"$SCRATCH/mariadb.log" 2>&1 &
    MARIADB=$!
    wait_for answers
}
answers() {
    kill -0 $MARIADB || fail "mariadbd: $(tail -20 "$SCRATCH/mariadb.log")"
    sql 'select 1' >/dev/null 2>&1
}
sql() { mariadb --no-defaults -u root -S "$socket" -N -e "$1"; }
stop_mariadb() {
    mariadb-admin --no-defaults -u root -S "$socket" shutdown
    wait $MARIADB || fail "mariadbd's end: $(tail -20 "$SCRATCH/mariadb.log")"
}
load() {
    sysbench oltp_read_write --db-driver=mysql --mysql-socket="$socket" --mysql-user=root \
        --mysql-db=sbtest --tables=2 --table-size=60000 --threads=2 --time=0 --events=400 "$@" \
        >"$SCRATCH/sysbench" 2>&1 || fail "sysbench: $(cat "$SCRATCH/sysbench")"
}
checksums() { sql 'checksum table sbtest.sbtest1, sbtest.sbtest2'; }

start_mariadb "$SHIM"
sql 'create database sbtest'
measure_direct_share load prepare
expect_share_at_least 950 "sysbench prepare"
measure_direct_share load run
expect_share_at_least 950 "sysbench oltp_read_write"
checksums >"$SCRATCH/before"
# Its buffer pool shrinks and grows while it runs.
sql 'set global innodb_buffer_pool_size = 32 * 1024 * 1024'
checksums | diff "$SCRATCH/before" -
sql 'set global innodb_buffer_pool_size = 64 * 1024 * 1024'
checksums >/dev/null
stop_mariadb
# The pool is registered as it comes into use: what is read into a page of it for the first
# time is copied. With a pool that is smaller than the data each is used again.
start_mariadb "$SHIM" 16M
measure_direct_share checksums >"$SCRATCH/first"
diff "$SCRATCH/before" "$SCRATCH/first"
echo "  reading after a restart, into a fresh pool: $SHARE per mille"
sleep 2
measure_direct_share checksums >"$SCRATCH/again"
expect_share_at_least 950 "reading again, into a pool in use"
diff "$SCRATCH/before" "$SCRATCH/again"
stop_mariadb
# What it is charged for, with a pool of 64 MiB and its other caches as they are.
use_it() { # PRELOAD
    start_mariadb "$1"
    checksums >"$SCRATCH/used"
    load run
    stop_mariadb
}
charge 512 use_it ""
charge 512 use_it ""
charge_likewise "mariadbd" 512 "$PEAK" use_it "$SHIM"
start_mariadb "$SHIM"
# killed under load, recovered by its log
(load run) >/dev/null 2>&1 &
sleep 2
kill -9 $MARIADB
wait $MARIADB 2>/dev/null || :
wait
start_mariadb "$SHIM"
sql 'check table sbtest.sbtest1, sbtest.sbtest2' | grep -v 'OK$' && fail "check table"
checksums >"$SCRATCH/before"
stop_mariadb
start_mariadb ""
checksums | diff "$SCRATCH/before" -
stop_mariadb
umount "$SCRATCH/mnt"
e2fsck -fn "$DEVICE" >/dev/null 2>&1 || fail "e2fsck"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
