# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by the job scripts beside it. `go COMMAND...` runs a command that exits with 75 when it has saved before it was
# done, and then puts this very job into the queue again. Signals: USR1 (the time limit is near): save, then run again.
# USR2 (scancel --batch --signal=USR2 JOB): save, and stay away. TERM (scancel, preempted without grace): Slurm decides.
go() {
    local again=1 heard=1 code=1 early='' got run
    SECONDS=0
    tell() { # a run that has just begun may not listen yet
        heard=1
        [ $SECONDS -gt 2 ] || sleep 1
        kill -"$1" $! 2>/dev/null || early=$1
    }
    trap 'tell USR1' USR1
    trap 'again=0; tell USR1' USR2
    trap 'again=0; tell TERM' TERM
    "$@" &
    run=$!
    [ -z "$early" ] || tell "$early"
    while [ $heard = 1 ]; do # a signal ends the wait, not the run
        heard=0
        wait $run
        got=$?
        [ $got = 127 ] || code=$got
    done
    if [ $code = 75 ] && [ $again = 1 ]; then
        scontrol requeue "$SLURM_JOB_ID" && sleep 60
    fi
    exit $code
}
