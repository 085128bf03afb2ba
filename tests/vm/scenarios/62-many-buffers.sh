#!/usr/bin/env bash
# A client with a thousand buffers leaves at once, and the driver keeps none of them.
. "$(dirname "$0")/../lib.sh"

start_file 64M --max-buffers 1000
mkfifo "$SCRATCH/leave"
PYTHONPATH=$TREE/tests/vm python3 - "/run/ublkzc/ublkb$ID.sock" "$DEVICE" "$SCRATCH/leave" <<'PY' &
import os, sys
from wire_client import ADD, HELLO, Client, sealed_memfd

client = Client(sys.argv[1], timeout=300)
client.ask(HELLO, os.open(sys.argv[2], os.O_RDONLY))
for i in range(1000):
    memory = sealed_memfd(8192)
    os.pwrite(memory, b"x" * 8192, 0)
    client.ask(ADD, memory, seq=i + 2, length=8192)
    os.close(memory)
open(sys.argv[3], "w").close()
open(sys.argv[3]).read()
PY
client=$!
cat "$SCRATCH/leave" # until all are registered
pinned=$(pinned_pages)
[ "$pinned" -ge 2000 ] || fail "1000 buffers of two pages, and $pinned pages are pinned"
kill -KILL $client
wait_for nothing_registered
wait_for none_pinned
echo "  of 1000 buffers nothing is pinned any more"
