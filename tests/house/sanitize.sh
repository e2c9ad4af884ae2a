#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds under sanitizers and runs tests there. Usage: sanitize.sh address,undefined|thread LABELS. The first counts
# lines too, and prints how many its tests reach. CI runs unit tests; whole runs, 14 minutes: address,undefined 'e2e|fault'.
set -euo pipefail
kind=$1 labels=$2
build="$ORRERY_BUILD/sanitize-${kind%%,*}"
mkdir -p "$build"
# Open MPI keeps memory until the end by design; leaks of ours still show.
export LSAN_OPTIONS="suppressions=$PWD/tests/house/lsan.supp:print_suppressions=0"
# Not detect_stack_use_after_return: GCC's fake stack does not keep the 64-byte alignment that AVX-512 locals need.
export ASAN_OPTIONS="detect_stack_use_after_return=0"
export UBSAN_OPTIONS="print_stacktrace=1"
case $labels in
  # Modules that Open MPI has unloaded have no names to suppress; ranks must die of the signals that faults send them.
  *e2e* | *fault*) ASAN_OPTIONS+=":detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_abort=0" ;;
esac
lines=OFF
[ "$kind" = thread ] || lines=ON
cmake -S . -B "$build" -G Ninja -DSANITIZE="$kind" -DCOVERAGE=$lines -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_C_FLAGS_DEBUG="-O1 -g1" >"$build.log"
ninja -C "$build" -j 2 >>"$build.log" 2>&1 || { tail -50 "$build.log"; exit 1; }
ctest --test-dir "$build" -L "$labels" -E 'e2e[.](listing|plan)$' -j 2 --output-on-failure # those two measure memory
[ $lines = OFF ] || tests/house/lines.sh "$build"
