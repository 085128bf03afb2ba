#!/usr/bin/env bash
# RocksDB with direct reads, flushes and compactions. Its write-ahead log and manifest
# are never direct, so they live elsewhere, or are switched off.
. "$(dirname "$0")/../lib.sh"

start_file 512M --block-size 4096
mkfs.xfs -qf "$DEVICE"
mkdir "$SCRATCH/mnt" "$SCRATCH/wal"
mount -o noatime "$DEVICE" "$SCRATCH/mnt"
db=$SCRATCH/mnt/db
bench() { # BENCHMARKS, ARGUMENTS...
    local what=$1
    shift
    LD_PRELOAD=$SHIM db_bench --db="$db" --wal_dir="$SCRATCH/wal" --disable_wal=1 \
        --benchmarks="$what" --num=30000 --value_size=1000 --compression_type=none \
        --use_direct_reads --use_direct_io_for_flush_and_compaction \
        --write_buffer_size=4194304 --cache_size=1048576 --verify_checksum=1 "$@" >"$SCRATCH/out" 2>&1 || {
        tail -20 "$SCRATCH/out" >&2
        fail "db_bench $what"
    }
}
MEASURE=measure_direct_share
share_at_least 950 "db_bench fillrandom, compact" bench fillrandom,compact,stats
share_at_least 950 "db_bench readrandom, readseq" \
    bench readrandom,readseq --use_existing_db=1 --reads=10000
measure_direct_share bench verifychecksum --use_existing_db=1
LD_PRELOAD=$SHIM ldb --db="$db" checkconsistency >"$SCRATCH/out" 2>&1 || fail "ldb: $(cat "$SCRATCH/out")"
grep -q '^OK' "$SCRATCH/out" || fail "ldb: $(cat "$SCRATCH/out")"
umount "$SCRATCH/mnt"
xfs_repair -n "$DEVICE" >/dev/null 2>&1 || fail "xfs_repair"
