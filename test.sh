#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds with warnings as errors, and runs every test that needs no GPU.
# Usage: ./test.sh [ctest arguments]. BUILD=folder (default build/test).
set -euo pipefail
cd "$(dirname "$0")"
deploy/bootstrap.sh test

build=${BUILD:-build/test}
jobs=$(nproc)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

cmake -S . -B "$build" -G Ninja -DORRERY_WERROR=ON -DCMAKE_EXPORT_COMPILE_COMMANDS=ON >/dev/null
ninja -C "$build" -j "$jobs"
ctest --test-dir "$build" --output-on-failure -j "$jobs" "$@"
