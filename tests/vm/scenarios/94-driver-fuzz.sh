#!/usr/bin/env bash
# Sequences of control commands, I/O, deaths and recoveries do what the model of the ABI says.
. "$(dirname "$0")/../lib.sh"
# The same sequences each time, as far as the time goes: what ./runtests says must not depend on luck.
# tests/full begins where nobody has been.
first=(--seed 1)
[ -z "${FULL-}" ] || first=()
"$BUILD/tests/vm/fuzz/fuzz_driver" "${first[@]}" --seconds "$(times 45 600)"
none_pinned || fail "$(pinned_pages) pages are still pinned"
