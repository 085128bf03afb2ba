#!/usr/bin/env bash
# Registering and unregistering buffers holds nobody up, and no page is let go under a request.
. "$(dirname "$0")/../lib.sh"
"$BUILD/tests/vm/abi/no_stall"
none_pinned || fail "$(pinned_pages) pages are still pinned"
