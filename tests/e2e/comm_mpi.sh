#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The MPI back end under real mpirun: every collective, the exact reduction's bits for 1 to 4 ranks, a late and a
# dead peer.
set -u
program=$ORRERY_BUILD/tests/comm_mpi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
# Open MPI keeps memory to its end, which is no leak of ours.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0}
command -v mpirun >/dev/null || { echo "no mpirun"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "FAILED: $*" >&2
    cat "$work"/* >&2
    exit 1
}
ranks() { # ranks N ARGUMENTS...
    local n=$1
    shift
    timeout 120 mpirun --oversubscribe -n "$n" "$program" "$@"
}

for n in 1 2 3 4; do
    ranks $n check >"$work/check" 2>"$work/err" || fail "check on $n ranks"
    grep -q "agree on $n ranks" "$work/check" || fail "check on $n ranks says nothing"
    ranks $n exact 4 5 6 7 8 12 >"$work/exact-$n" 2>"$work/err" || fail "exact on $n ranks"
    [ "$(wc -l <"$work/exact-$n")" = 6 ] || fail "exact on $n ranks prints too little"
    cmp "$work/exact-1" "$work/exact-$n" || fail "the bits differ between 1 and $n ranks"
done

ranks 2 late >"$work/out" 2>"$work/err"
code=$?
grep -q "rank 0 waited 300 ms in collective 1 (the late barrier)" "$work/err" || fail "the deadline names nothing"
[ $code = 76 ] || fail "a passed deadline gives exit $code, not 76"

begun=$(date +%s)
ranks 3 die >"$work/out" 2>"$work/err" && fail "a dead rank passes"
[ $(($(date +%s) - begun)) -lt 60 ] || fail "the peers of a dead rank wait for their deadline"
echo "ok"
