#!/usr/bin/env bash
# Buffers come and go at random under I/O, and every byte is checked: the server's own
# memory, and other processes' private memory in place.
. "$(dirname "$0")/../lib.sh"
"$BUILD/tests/vm/abi/registration_stress"
"$BUILD/tests/vm/abi/foreign_stress"
none_pinned || fail "$(pinned_pages) pages are still pinned"
