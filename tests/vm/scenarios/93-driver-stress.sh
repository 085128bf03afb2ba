#!/usr/bin/env bash
# Buffers come and go at random under I/O, and every byte is checked.
. "$(dirname "$0")/../lib.sh"
"$BUILD/tests/vm/abi/registration_stress"
none_pinned || fail "$(pinned_pages) pages are still pinned"
