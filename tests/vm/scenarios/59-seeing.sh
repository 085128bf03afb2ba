#!/usr/bin/env bash
# What "ublkzc stat --interval" shows of I/O that is under way: as fio counts it, in each direction.
. "$(dirname "$0")/../lib.sh"

start_file 64M
fio --name=t --filename="$DEVICE" --direct=1 --rw=randread --bs=64k --ioengine=libaio --iodepth=4 \
    --time_based --runtime=600 --output-format=json --output="$SCRATCH/fio.out" &
fio=$!
until [ "$(stat_get .read.copied.requests)" -gt 100 ]; do sleep 0.2; done
"$UBLKZC" stat "$DEVICE" --interval 2 --count 3 --json >"$SCRATCH/json"
"$UBLKZC" stat --interval 1 --count 2 >"$SCRATCH/text"
kill -INT $fio
wait $fio || :

sed -n '/^{/,$p' "$SCRATCH/fio.out" >"$SCRATCH/fio" # it says that it was interrupted, too

# Three lines; each is what the schema says, and of reads only. (Of a request under way one counter can
# be seen and the other not.)
[ "$(wc -l <"$SCRATCH/json")" = 3 ] || fail "$(wc -l <"$SCRATCH/json") lines: $(cat "$SCRATCH/json")"
split -l 1 "$SCRATCH/json" "$SCRATCH/line."
"$TREE/tests/check-json" "$SCRATCH"/line.* || fail "not what the schema says: $(cat "$SCRATCH/json")"
jq -e '.interval | .seconds > 1.9 and (.devices[0]
    | .read.copied.requests > 0 and (.read.copied.bytes - 65536 * .read.copied.requests | fabs) <= 4 * 65536
    and .write.copied.requests == 0 and .read.latency_ns.p50 > 0
    and .read.latency_ns.p99 >= .read.latency_ns.p50
    and .queue_depth > 0 and .queue_depth < 5)' "$SCRATCH/json" >/dev/null || fail "it shows $(cat "$SCRATCH/json")"
# The server's time is a part of what fio waits.
ours=$(jq -s '[.[].interval.devices[0].read.latency_ns.p50] | min' "$SCRATCH/json")
whole=$(jq '.jobs[0].read.clat_ns.percentile["99.000000"]' "$SCRATCH/fio")
[ "$ours" -lt "$whole" ] || fail "half of the requests took the server $ours ns, and fio waits $whole at most"
echo "p50 of the server $ours ns; fio: $(jq -c '.jobs[0].read.clat_ns.percentile | [.["50.000000"], .["99.000000"]]' "$SCRATCH/fio")"
grep -qE "^$DEVICE +read +[1-9][0-9]* +[0-9.]+ [KM]iB/s +64 KiB .* 0\.0 % " "$SCRATCH/text" ||
    fail "the table: $(cat "$SCRATCH/text")"
[ "$(grep -c "^$DEVICE  write" "$SCRATCH/text")" = 2 ] || fail "the table: $(cat "$SCRATCH/text")"

# With the shim the same is zero-copy, now, whatever was before.
LD_PRELOAD=$SHIM fio --name=t --filename="$DEVICE" --direct=1 --rw=randwrite --bs=64k --ioengine=libaio \
    --iodepth=4 --time_based --runtime=600 >/dev/null &
fio=$!
until [ "$(stat_get .write.zero_copy.requests)" -gt 100 ]; do sleep 0.2; done
"$UBLKZC" stat --interval 1 --count 1 --json >"$SCRATCH/json"
kill -INT $fio
wait $fio || :
jq -e '.interval.devices[0] | .write.zero_copy.requests > 0 and .write.copied.requests == 0
    and .read.copied.requests == 0 and .write.latency_ns.p50 > 0' "$SCRATCH/json" >/dev/null ||
    fail "it shows $(cat "$SCRATCH/json")"

# The same for monitoring. What fio had is given back when there is time for it.
wait_for nothing_registered
"$UBLKZC" stat "$DEVICE" --openmetrics "$SCRATCH/metrics"
for line in "up{device=\"ublkb$ID\"} 1" \
    "requests_total{device=\"ublkb$ID\",op=\"write\",how=\"zero_copy\"} $(stat_get .write.zero_copy.requests)" \
    "request_seconds_count{device=\"ublkb$ID\",op=\"write\"} [1-9]" '^# EOF$'; do
    grep -q -- "$line" "$SCRATCH/metrics" || fail "no '$line' in: $(cat "$SCRATCH/metrics")"
done
printf 'GET /metrics HTTP/1.1\r\n\r\n' | "$UBLKZC" stat "$DEVICE" --openmetrics - --http >"$SCRATCH/http"
sed '1,/^\r$/d' "$SCRATCH/http" | cmp - "$SCRATCH/metrics" || fail "HTTP gives something else: $(cat "$SCRATCH/http")"
[ "$(grep -c "seconds_bucket.*op=\"read\"" "$SCRATCH/metrics")" = 24 ] || fail "buckets: $(cat "$SCRATCH/metrics")"

# A device that is served by memory is answered at once; one in seven of its requests is timed.
start -t mem --size 64M
run_fio --name=m --filename="$DEVICE" --direct=1 --rw=randread --bs=4k --size=8M
[ "$(stat_get .read.latency_ns.p50)" -gt 0 ] || fail "a mem device has no latency: $(stat_json)"
threads=$(cat /proc/"$(stat_get .pid)"/task/*/comm)
"$UBLKZC" del "$DEVICE"
start -t null --verbose
setpriv --reuid 65534 --regid 65534 --clear-groups "$UBLKZC" resize "$DEVICE" 2>/dev/null || :
until grep -qE '^20[0-9-]+T[0-9:.]+Z info ublkzc: process .* refused' "/run/ublkzc/ublkb$ID.log"; do sleep 0.1; done
grep -vE '^20[0-9-]+T[0-9:.]+Z (error|warning|info|debug) ublkzc: ' "/run/ublkzc/ublkb$ID.log" &&
    fail "a line of the log has no time or level: $(cat "/run/ublkzc/ublkb$ID.log")"
grep -qx "ublkzc-q0" <<<"$threads" || fail "no thread has a queue's name: $threads"
