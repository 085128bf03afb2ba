# shellcheck shell=bash
# tests/steps.sh - steps of a test run, some side by side: sourced by runtests and tests/full.
#
#   step WHAT COMMAND...    runs it and shows its output as it comes
#   beside WHAT COMMAND...  starts it as soon as fewer than JOBS run; its output is shown, whole,
#                           when it has ended
#   all_done                waits for those
#   skip WHAT REASON        counts as a skip, not as a pass
#   verdict                 all_done, the closing line, and its status
#
# A command that exits with 77 has skipped itself; the last line it printed is the reason.
# JOBS: a guest has two processors and does not always use both, a build takes what it
# gets: as many at once as there are processors and half as many again fit, but two at least.
JOBS=${JOBS:-$(($(nproc) * 3 / 4 > 2 ? $(nproc) * 3 / 4 : 2))}
passed=0 failed=0 skipped=0
steps_logs=$(mktemp -d)
declare -A step_what=() step_since=()
trap 'stop_steps' EXIT
trap 'exit 130' INT TERM

stop_steps() {
    local pid
    for pid in "${!step_what[@]}"; do
        pkill -TERM -P "$pid" 2>/dev/null
        kill "$pid" 2>/dev/null
    done
    rm -rf "$steps_logs"
}

count() { # STATUS, WHAT, SECONDS, LAST LINE
    case $1 in
    0)
        passed=$((passed + 1))
        echo "=== ok: $2 ($3 s)"
        ;;
    77)
        skipped=$((skipped + 1))
        echo "=== skipped: $2: $4"
        ;;
    *)
        failed=$((failed + 1))
        echo "=== FAILED: $2 ($3 s)"
        ;;
    esac
}

step() {
    local what=$1 since=$SECONDS status=0
    shift
    echo
    echo "=== $what"
    "$@" 2>&1 </dev/null | tee "$steps_logs/step"
    status=${PIPESTATUS[0]}
    count "$status" "$what" $((SECONDS - since)) "$(tail -n 1 "$steps_logs/step")"
    return "$status"
}

one_ends() {
    local pid status=0
    wait -n -p pid "${!step_what[@]}" || status=$?
    echo
    echo "=== ${step_what[$pid]}"
    cat "$steps_logs/$pid"
    count "$status" "${step_what[$pid]}" $((SECONDS - step_since[$pid])) \
        "$(tail -n 1 "$steps_logs/$pid")"
    unset "step_what[$pid]" "step_since[$pid]"
}

beside() {
    local what=$1
    shift
    while [ ${#step_what[@]} -ge "$JOBS" ]; do one_ends; done
    (exec >"$steps_logs/$BASHPID" 2>&1 </dev/null && "$@") &
    step_what[$!]=$what step_since[$!]=$SECONDS
    echo "... $what"
}

all_done() { while [ ${#step_what[@]} -gt 0 ]; do one_ends; done; }

skip() {
    skipped=$((skipped + 1))
    echo
    echo "=== skipped: $1: $2"
}

verdict() {
    all_done
    echo
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}
