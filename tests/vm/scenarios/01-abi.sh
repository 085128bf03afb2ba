#!/usr/bin/env bash
# The driver keeps the ABI of shared-memory zero copy.
. "$(dirname "$0")/../lib.sh"
"$BUILD/tests/vm/abi/abi_test"
none_pinned || fail "$(pinned_pages) pages are still pinned"
