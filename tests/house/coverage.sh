#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Line coverage of the unit, kernel and end-to-end tests, printed per room. Fails only when the tests do.
set -euo pipefail
command -v gcovr >/dev/null || { echo "skipped: no gcovr"; exit 77; }
build="$ORRERY_BUILD/coverage"
mkdir -p "$build"
cmake -S . -B "$build" -G Ninja -DCOVERAGE=ON -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" >"$build.log"
ninja -C "$build" -j 2 >>"$build.log" 2>&1 || { tail -50 "$build.log"; exit 1; }
ctest --test-dir "$build" -L 'unit|fault|e2e' -j 2 >"$build.tests.log" 2>&1 || { tail -60 "$build.tests.log"; exit 1; }
gcovr --root . --object-directory "$build" --exclude tests/ --gcov-ignore-parse-errors 2>/dev/null |
  awk '/^(base|comm|kernels|storage|trainer|launcher)\// { split($1, p, "/"); lines[p[1]] += $2; hit[p[1]] += $3 }
       /^TOTAL/ { print } END { for (r in lines) printf "%-10s %6d lines %5.1f %%\n", r, lines[r], 100 * hit[r] / lines[r] }'
