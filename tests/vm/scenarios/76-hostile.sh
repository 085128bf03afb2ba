#!/usr/bin/env bash
# Programs that are right without the shim, with it armed: those that have to do with
# what is registered; all of them with FULL=1.
. "$(dirname "$0")/../lib.sh"

start_file 64M
attacks=('uring-*' '*-while-forking' 'semaphore-over-fork' 'children-live-on' 'sparse-mapping'
    'touched-blocks' 'memory-cannot-be-reopened' 'data-file-as-stderr' 'sandboxed-opens' 'advised-alike')
[ -z "${FULL-}" ] || attacks=('*')
"$TREE/tests/hostile/run" --build "$BUILD" --file "$DEVICE" --quick --known-out --timeout 300 \
    --mode default --mode all "${attacks[@]}" || fail "see above"
[ "$(stat_get .errors)" = 0 ] || fail "requests failed: $(stat_json)"
