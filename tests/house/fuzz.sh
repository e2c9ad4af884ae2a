#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every libFuzzer target for ORRERY_FUZZ_SECONDS (default 60) under address and undefined-behaviour sanitizers, as
# many at a time as there are cores. Arguments: only targets whose names hold one.
set -euo pipefail
command -v clang >/dev/null || { echo "skipped: no clang"; exit 77; }
build="$ORRERY_BUILD/fuzz"
mkdir -p "$build"
cmake -S . -B "$build" -G Ninja -DFUZZ=ON -DSANITIZE=address,undefined -DCMAKE_C_COMPILER=clang \
  -DCMAKE_BUILD_TYPE=RelWithDebInfo >"$build.log"
ninja -C "$build" -j 2 fuzzers >>"$build.log" 2>&1 || { tail -50 "$build.log"; exit 1; }
export LSAN_OPTIONS="suppressions=$PWD/tests/house/lsan.supp:print_suppressions=0"
export ORRERY_FUZZ_SECONDS=${ORRERY_FUZZ_SECONDS:-60}

one() { # BUILD TARGET
  local build=$1 target=$2 name
  name=$(basename "$target")
  mkdir -p "$build/new/$name"
  "$target" -max_total_time="$ORRERY_FUZZ_SECONDS" -timeout=25 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
    -artifact_prefix="$build/$name-" "$build/new/$name" "tests/fuzz/corpus/${name#fuzz_}" >"$build/$name.log" 2>&1 ||
    { echo "$name failed"; tail -40 "$build/$name.log"; return 1; }
  echo "$name: $(awk '/number_of_executed_units/ { print $2 }' "$build/$name.log") inputs, no finding"
}
export -f one

targets=()
for target in "$build"/fuzz/fuzz_*; do
  for part in "${@:-fuzz_}"; do
    case $(basename "$target") in *"$part"*) targets+=("$target") && break ;; esac
  done
done
[ "${#targets[@]}" -gt 0 ]
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'one "$1" "$2"' _ "$build" {}
