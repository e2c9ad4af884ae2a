#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds under sanitizers and runs the unit and kernel tests there. Usage: sanitize.sh address,undefined|thread LABELS
set -euo pipefail
kind=$1 labels=$2
build="$ORRERY_BUILD/sanitize-${kind%%,*}"
mkdir -p "$build"
# Open MPI keeps memory until the end by design; leaks of ours still show.
export LSAN_OPTIONS="suppressions=$PWD/tests/house/lsan.supp:print_suppressions=0"
# Not detect_stack_use_after_return: GCC's fake stack does not keep the 64-byte alignment that AVX-512 locals need.
export ASAN_OPTIONS="detect_stack_use_after_return=0"
export UBSAN_OPTIONS="print_stacktrace=1"
cmake -S . -B "$build" -G Ninja -DSANITIZE="$kind" -DCMAKE_BUILD_TYPE=RelWithDebInfo >"$build.log"
ninja -C "$build" -j 2 >>"$build.log" 2>&1 || { tail -50 "$build.log"; exit 1; }
ctest --test-dir "$build" -L "$labels" -j 2 --output-on-failure
