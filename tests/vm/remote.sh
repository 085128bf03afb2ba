# shellcheck shell=bash
# tests/vm/remote.sh - what devices on remote storage are tried with, for scenarios: verified I/O, file systems and a
# database, while one end or the other dies.
with_shim() { LD_PRELOAD=$SHIM "$@"; }

# verified BLOCK SIZES, fio arguments...: reads and writes anywhere on DEVICE, or in files in DIRECTORY, verified
verified() {
    local bs=$1 where=--filename=$DEVICE
    [ -z "${DIRECTORY-}" ] || where=--directory=$DIRECTORY
    shift
    run_fio --name=verified "$where" --direct=1 --rw=randrw --bsrange="$bs" --size=16m \
        --ioengine=io_uring --iodepth=8 --verify=crc32c --verify_fatal=1 "$@"
}

# under_deaths TIMES, DEATH, COMMAND...: the second command runs, again and again and always well, while the first, which
# ends when all is there again, is done so often.
under_deaths() {
    local times=$1 death=$2 program i
    shift 2
    rm -f "$SCRATCH/enough"
    (while [ ! -e "$SCRATCH/enough" ]; do "$@"; done) &
    program=$!
    for ((i = 0; i < times; i++)); do
        sleep "$((RANDOM % 2)).$((RANDOM % 9 + 1))"
        kill -0 $program 2>/dev/null || break
        $death
    done
    touch "$SCRATCH/enough"
    wait $program || fail "with $i of $times deaths ($death): $*: $(tail -5 "/run/ublkzc/ublkb$ID.log")"
    [ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
    echo "  $death: $i times"
}
# A DEATH: of the device's own server
own_server_dies() {
    local before
    before=$(recoveries)
    kill -KILL "$(server)"
    wait_for recovered "$before"
}

# --- file systems --------------------------------------------------------------------
make_fs() { if [ "$1" = ext4 ]; then mkfs.ext4 -qF "$DEVICE"; else mkfs.xfs -qf "$DEVICE"; fi; }
check_fs() {
    if [ "$1" = ext4 ]; then e2fsck -fn "$DEVICE"; else xfs_repair -n "$DEVICE"; fi >"$SCRATCH/out" 2>&1 ||
        fail "$1 is broken: $(cat "$SCRATCH/out")"
    echo "  $1 is whole"
}
files() { DIRECTORY=$SCRATCH/mnt verified 64k-64k --size=12m --numjobs=2 --fsync=16 --rate=8m; }

# --- MariaDB, its data in $SCRATCH/mnt -------------------------------------------------
DATABASE=$SCRATCH/mysql.sock
sql() { mariadb --no-defaults -u root -S "$DATABASE" -N -e "$1"; }
answers() {
    kill -0 "$MARIADB" || fail "mariadbd: $(tail -20 "$SCRATCH/mariadb.log")"
    sql 'select 1' >/dev/null 2>&1
}
start_mariadb() {
    LD_PRELOAD=$SHIM mariadbd --no-defaults --user=root --datadir="$SCRATCH/mnt/data" --socket="$DATABASE" \
        --skip-networking --pid-file="$SCRATCH/pid" --innodb-flush-method=O_DIRECT --innodb-buffer-pool-size=32M \
        --innodb-log-file-size=32M >"$SCRATCH/mariadb.log" 2>&1 &
    MARIADB=$!
    wait_for answers
}
load() { # prepare|run, more...
    sysbench oltp_read_write --db-driver=mysql --mysql-socket="$DATABASE" --mysql-user=root --mysql-db=sbtest \
        --tables=2 --table-size="$(times 5000 20000)" --threads=2 --time=0 --events=200 "$@" \
        >"$SCRATCH/sysbench" 2>&1 || fail "sysbench: $(cat "$SCRATCH/sysbench")"
}
begin_mariadb() {
    chmod 755 "$SCRATCH"
    mariadb-install-db --no-defaults --user=root --datadir="$SCRATCH/mnt/data" --skip-test-db \
        --auth-root-authentication-method=normal >"$SCRATCH/out" 2>&1 || fail "install: $(cat "$SCRATCH/out")"
    start_mariadb
    sql 'create database sbtest'
    load prepare
}
checksums_of_tables() { sql 'checksum table sbtest.sbtest1, sbtest.sbtest2' >"$SCRATCH/before"; }
# After its death: starts it, compares, and ends it.
mariadb_has_what_it_had() {
    start_mariadb
    sql 'checksum table sbtest.sbtest1, sbtest.sbtest2' | diff "$SCRATCH/before" - || fail "tables are not what they were"
    ! sql 'check table sbtest.sbtest1, sbtest.sbtest2' | grep -v OK || fail "a table is broken"
    sql shutdown
    wait "$MARIADB" || fail "mariadbd's end: $(tail -20 "$SCRATCH/mariadb.log")"
    echo "  MariaDB has what it had"
}
