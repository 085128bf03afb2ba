#!/usr/bin/env bash
# PostgreSQL 17 (Debian 13) with direct data files and log, on both kinds of shared
# memory, under the shim; and once without it, attached while it runs.
# shellcheck disable=SC2034
PGROOT=$("$(dirname "$0")/../fetch-postgresql")
# shellcheck disable=SC2034 # for postgresql.sh
PGBIN=/usr/lib/postgresql/17/bin
. "$(dirname "$0")/../postgresql.sh"

direct=('debug_io_direct=data,wal' io_combine_limit=1)
start_file 1G
make_file_system
make_cluster
for type in mmap sysv; do
    start_postgres "${direct[@]}" shared_memory_type=$type
    pgbench_quiet -i -s 5 -q
    in_pg psql -qc checkpoint
    measure_direct_share pgbench_quiet -n -c 4 -j 2 -t 200
    expect_share_at_least 950 "shared_memory_type=$type: pgbench"
    measure_direct_share in_pg psql -qAtc 'select count(*) from pgbench_accounts'
    expect_share_at_least 950 "shared_memory_type=$type: a table read from end to end"
    check_database
    stop_postgres
    check_checksums
done

PRELOAD='' start_postgres "${direct[@]}"
measure_direct_share pgbench_quiet -n -c 4 -j 2 -t 100
expect_no_share "without the shim"
"$UBLKZC" attach --pid "$(postmaster_pid)"
measure_direct_share pgbench_quiet -n -c 4 -j 2 -t 200
expect_share_at_least 950 "attached while it runs: pgbench"
check_database
stop_postgres
check_checksums
wait_for nothing_registered
leave_root
umount "$SCRATCH/mnt"
