#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every libFuzzer target for ORRERY_FUZZ_SECONDS (default 20) under address and undefined-behaviour sanitizers.
set -euo pipefail
command -v clang >/dev/null || { echo "skipped: no clang"; exit 77; }
build="$ORRERY_BUILD/fuzz"
mkdir -p "$build"
cmake -S . -B "$build" -G Ninja -DFUZZ=ON -DSANITIZE=address,undefined -DCMAKE_C_COMPILER=clang \
  -DCMAKE_BUILD_TYPE=RelWithDebInfo >"$build.log"
ninja -C "$build" -j 2 fuzzers >>"$build.log" 2>&1 || { tail -50 "$build.log"; exit 1; }
export LSAN_OPTIONS="suppressions=$PWD/tests/house/lsan.supp:print_suppressions=0"
found=0
for target in "$build"/fuzz/fuzz_*; do
  name=$(basename "$target")
  new="$build/new/$name"
  mkdir -p "$new"
  "$target" -max_total_time="${ORRERY_FUZZ_SECONDS:-20}" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
    -artifact_prefix="$build/$name-" "$new" "tests/fuzz/corpus/${name#fuzz_}" >"$build/$name.log" 2>&1 ||
    { echo "$name failed"; tail -40 "$build/$name.log"; exit 1; }
  echo "$name: $(awk '/number_of_executed_units/ { print $2 }' "$build/$name.log") inputs, no finding"
  found=$((found + 1))
done
[ "$found" -gt 0 ]
