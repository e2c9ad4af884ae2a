#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# cppcheck over the rooms; findings fail. It does not follow the names of the CPU's ops, one for each instruction set.
set -euo pipefail
command -v cppcheck >/dev/null || { echo "skipped: no cppcheck"; exit 77; }
{ git ls-files 'base/*.c' 'comm/*.c' 'storage/*.c' 'trainer/*.c' 'launcher/*.c'; git grep -L CPU_FN -- 'kernels/*.c'; } |
  xargs cppcheck --quiet --std=c11 -I . -D__x86_64__ -D_GNU_SOURCE -DORRERY_VERSION='"0"' --max-configs=1 -j 2 \
    --enable=warning,portability,performance --error-exitcode=1 --inline-suppr \
    --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches
