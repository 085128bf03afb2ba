# shellcheck shell=bash
# tests/vm/postgresql.sh - for the PostgreSQL applications: a cluster on the device.
# Before it is sourced: PGROOT, the root directory it runs in ("" for this one), and
# PGBIN, its programs. The server runs as user postgres, as always.
. "$(dirname "$0")/../lib.sh"

chmod 755 "$SCRATCH"
PGDATA=$SCRATCH/mnt/data
PRELOAD=$SHIM
MOUNTED=()

# in_pg COMMAND...: as user postgres, in its root, with its programs
in_pg() {
    chroot "${PGROOT:-/}" setpriv --reuid postgres --regid postgres --clear-groups \
        env -i PATH="$PGBIN:/usr/bin:/bin" LC_ALL=C PGHOST="$SCRATCH" PGUSER=postgres \
        PGDATABASE=postgres "$@" </dev/null
}

make_file_system() {
    mkfs.ext4 -qF -O ^has_journal "$DEVICE"
    mkdir "$SCRATCH/mnt"
    mount -o noatime "$DEVICE" "$SCRATCH/mnt"
    chmod 777 "$SCRATCH/mnt" "$SCRATCH"
    # The other root sees what is mounted now.
    local dir
    # (what is temporary lies below /run in the guest)
    for dir in dev proc sys run "$BUILD"; do
        [ -n "$PGROOT" ] || break
        mkdir -p "$PGROOT/${dir#/}"
        mount --rbind "/${dir#/}" "$PGROOT/${dir#/}"
        MOUNTED+=("$PGROOT/${dir#/}")
    done
}

make_cluster() { # initdb arguments...
    in_pg initdb -D "$PGDATA" --data-checksums --auth=trust "$@" >"$SCRATCH/initdb" 2>&1 ||
        fail "initdb: $(cat "$SCRATCH/initdb")"
    sync
}

# start_postgres SETTING=VALUE...
start_postgres() {
    local settings=() setting
    for setting in "$@"; do
        settings+=(-c "$setting")
    done
    in_pg env ${PRELOAD:+LD_PRELOAD="$PRELOAD"} UBLKZC_CONNECT_MS=5000 postgres -D "$PGDATA" -k "$SCRATCH" \
        -c listen_addresses= -c shared_buffers=64MB -c max_connections=20 \
        -c wal_init_zero=off -c max_wal_size=256MB "${settings[@]}" >"$SCRATCH/pg.log" 2>&1 &
    POSTGRES=$!
    wait_for pg_answers
}
pg_answers() {
    kill -0 $POSTGRES || fail "postgres: $(tail -20 "$SCRATCH/pg.log")"
    in_pg psql -qAtc 'select 1' >/dev/null 2>&1
}
postmaster_pid() { head -n 1 "$PGDATA/postmaster.pid"; }
stop_postgres() {
    kill -INT "$(postmaster_pid)"
    wait $POSTGRES || fail "postgres' end: $(tail -20 "$SCRATCH/pg.log")"
}
pgbench_quiet() { in_pg pgbench "$@" >"$SCRATCH/pgbench" 2>&1 || fail "pgbench $*: $(cat "$SCRATCH/pgbench")"; }

# Every table, index and page is sound; the sums of pgbench agree.
check_database() {
    in_pg pg_amcheck --all --install-missing >"$SCRATCH/amcheck" 2>&1 ||
        fail "pg_amcheck: $(tail -5 "$SCRATCH/amcheck")"
    local sums
    sums=$(in_pg psql -qAtc 'select (select sum(abalance) from pgbench_accounts) =
        (select sum(delta) from pgbench_history) and (select sum(bbalance) from
        pgbench_branches) = (select sum(tbalance) from pgbench_tellers)')
    [ "$sums" = t ] || fail "pgbench's sums do not agree"
}
check_checksums() {
    in_pg pg_checksums --check -D "$PGDATA" >"$SCRATCH/sums" 2>&1 || fail "pg_checksums: $(cat "$SCRATCH/sums")"
}

leave_root() {
    local i
    for ((i = ${#MOUNTED[@]} - 1; i >= 0; i--)); do
        umount -lR "${MOUNTED[i]}"
    done
}
