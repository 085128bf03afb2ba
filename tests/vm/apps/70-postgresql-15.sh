#!/usr/bin/env bash
# PostgreSQL 15 (Debian 12): direct I/O is for the write-ahead log only, so the log alone
# lies on the device.
# shellcheck disable=SC2034 # for postgresql.sh
PGBIN=$(dirname "$(find /usr/lib/postgresql -name initdb | sort -V | head -n 1)")
# shellcheck disable=SC2034
PGROOT=
. "$(dirname "$0")/../postgresql.sh"

start_file 512M
make_file_system
PGDATA=$SCRATCH/data
install -d -o postgres -m 700 "$PGDATA"
make_cluster --waldir="$SCRATCH/mnt/wal"
for type in mmap sysv; do
    start_postgres wal_sync_method=open_datasync wal_level=minimal max_wal_senders=0 \
        archive_mode=off shared_memory_type=$type
    pgbench_quiet -i -s 1 -q
    in_pg psql -qc checkpoint
    measure_direct_share pgbench_quiet -n -c 4 -j 2 -t 200
    expect_share_at_least 950 "shared_memory_type=$type: direct WAL under pgbench"
    check_database
    kill -9 "$(postmaster_pid)"
    wait "$POSTGRES" 2>/dev/null || :
    wait_for sh -c '! pgrep -u postgres postgres >/dev/null'
    # what the log holds is all there is: recovered without the shim
    PRELOAD='' start_postgres
    check_database
    stop_postgres
    check_checksums
done
umount "$SCRATCH/mnt"
