#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy over the rooms, with the checks of .clang-tidy; findings fail. Needs the build folder's compile commands.
# Of the kernels those that are compiled once: an op of the CPU is one file for all instruction sets, and all of them take minutes.
set -euo pipefail
command -v clang-tidy >/dev/null || { echo "skipped: no clang-tidy"; exit 77; }
[ -f "$ORRERY_BUILD/compile_commands.json" ] || { echo "skipped: no compile_commands.json in $ORRERY_BUILD"; exit 77; }
# What the build leaves out for want of FFmpeg's headers cannot be read either.
without=()
grep -q trainer/ffmpeg "$ORRERY_BUILD/compile_commands.json" || without=(':!trainer/ffmpeg')
{ git ls-files 'base/*.c' 'comm/*.c' 'storage/*.c' 'trainer/*.c' 'launcher/*.c' "${without[@]}"; git grep -L CPU_FN -- 'kernels/*.c'; } |
  xargs -P 2 -n 8 clang-tidy -p "$ORRERY_BUILD" --quiet --warnings-as-errors='*' 2>&1 | grep -v 'warnings generated' || test ${PIPESTATUS[1]} = 0
