#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The share of lines, per room, that the tests run in a build with COVERAGE=ON have reached. Usage: lines.sh BUILD
set -euo pipefail
command -v gcovr >/dev/null || { echo "lines are not counted: no gcovr"; exit 0; }
gcovr --root . --object-directory "$1" --exclude tests/ --gcov-ignore-parse-errors 2>/dev/null |
  awk '/^(base|comm|kernels|storage|trainer|launcher)\// { split($1, p, "/"); lines[p[1]] += $2; hit[p[1]] += $3 }
       /^TOTAL/ { print } END { for (r in lines) printf "%-10s %6d lines %5.1f %%\n", r, lines[r], 100 * hit[r] / lines[r] }'
