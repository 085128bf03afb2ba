#!/usr/bin/env bash
# Sequences of control commands, I/O, deaths and recoveries do what the model of the ABI says.
. "$(dirname "$0")/../lib.sh"
"$BUILD/tests/vm/fuzz/fuzz_driver" --seconds 45
none_pinned || fail "$(pinned_pages) pages are still pinned"
