# shellcheck shell=bash
# tests/steps.sh - steps of a test run, some side by side: sourced by runtests and tests/full.
#
#   step WHAT COMMAND...    runs it and shows its output as it comes
#   beside WHAT COMMAND...  starts it as soon as fewer than JOBS run; its output is shown, whole,
#                           when it has ended
#   all_done                waits for those
#   skip WHAT REASON        counts as a skip, not as a pass
#   verdict                 all_done, what failed and what it said of that, the closing line, and
#                           its status
#
# Beside the seconds that a step took it says those of processors (a guest's emulator is a
# child too): what decides how long a whole run takes.
#
# A command that exits with 77 has skipped itself; the last line it printed is the reason.
# JOBS: a guest has two processors and does not always use both, a build takes what it
# gets: three things at once on four processors, but two at least.
JOBS=${JOBS:-$(($(nproc) * 3 / 4 > 2 ? $(nproc) * 3 / 4 : 2))}
passed=0 failed=0 skipped=0 said=''
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

# timed FILE COMMAND...: in a sub-shell; leaves in FILE the processor seconds of all its children
timed() {
    local times=$1 status
    shift
    "$@"
    status=$?
    times >"$times" # in a pipe it would be that of another shell
    return $status
}
processor_seconds() { # FILE, with what times printed: MmS.SSSs, four of them
    awk '{ for (i = 1; i <= NF; i++) { split($i, t, /[ms]/); all += 60 * t[1] + t[2] } }
        END { print int(all + .5) }' "$1"
}

# Of a long log, the lines that a reader who sees only the end of it wants.
what_failed() { # WHAT, TIME, LOG
    echo "=== FAILED: $1 ($2)"
    grep -anE 'FAILED|\*\*\*|^failed on |ERROR|error:|unexplained' "$3" | tail -n 12 | cut -c1-300
    tail -n 3 "$3" | cut -c1-300
}

count() { # STATUS, WHAT, SECONDS, LOG
    local time
    time="$3 s, $(processor_seconds "$4.times") s of processors"
    case $1 in
    0)
        passed=$((passed + 1))
        echo "=== ok: $2 ($time)"
        ;;
    77)
        skipped=$((skipped + 1))
        echo "=== skipped: $2: $(tail -n 1 "$4")"
        ;;
    *)
        failed=$((failed + 1))
        said+=$(what_failed "$2" "$time" "$4")$'\n'
        echo "=== FAILED: $2 ($time)"
        ;;
    esac
}

step() {
    local what=$1 since=$SECONDS status=0
    shift
    echo
    echo "=== $what"
    timed "$steps_logs/step.times" "$@" 2>&1 </dev/null | tee "$steps_logs/step"
    status=${PIPESTATUS[0]}
    count "$status" "$what" $((SECONDS - since)) "$steps_logs/step"
    return "$status"
}

one_ends() {
    local pid status=0
    wait -n -p pid "${!step_what[@]}" || status=$?
    echo
    echo "=== ${step_what[$pid]}"
    cat "$steps_logs/$pid"
    count "$status" "${step_what[$pid]}" $((SECONDS - step_since[$pid])) "$steps_logs/$pid"
    unset "step_what[$pid]" "step_since[$pid]"
}

beside() {
    local what=$1
    shift
    while [ ${#step_what[@]} -ge "$JOBS" ]; do one_ends; done
    (exec >"$steps_logs/$BASHPID" 2>&1 </dev/null && timed "$steps_logs/$BASHPID.times" "$@") &
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
    printf '%s' "$said"
    times >"$steps_logs/times"
    echo "$((SECONDS / 60)) minutes, $(($(processor_seconds "$steps_logs/times") / 60)) of processors"
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}
