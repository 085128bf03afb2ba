#!/usr/bin/env bash
# The short form of the soak: nothing grows by a few rounds of everything at once.
set -eu
cd "$(dirname "$0")/../.."
samples=$(mktemp)
trap 'rm -f "$samples"' EXIT
./soak --minutes 1 >"$samples" || {
    cat "$samples"
    exit 1
}
