#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every tracked C and CUDA file is as clang-format leaves it.
set -euo pipefail
command -v clang-format >/dev/null || { echo "skipped: no clang-format"; exit 77; }
git ls-files '*.c' '*.h' '*.cc' '*.cu' '*.cuh' | xargs clang-format --dry-run -Werror
