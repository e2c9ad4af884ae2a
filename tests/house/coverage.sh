#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Line coverage of the unit, fault and end-to-end tests together, per room: every one of them once more, nine minutes
# or so. (Of the unit tests alone: house.sanitize_address.) Usage: ORRERY_BUILD=build coverage.sh
set -euo pipefail
build="$ORRERY_BUILD/coverage"
mkdir -p "$build"
cmake -S . -B "$build" -G Ninja -DCOVERAGE=ON -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" >"$build.log"
ninja -C "$build" -j 2 >>"$build.log" 2>&1 || { tail -50 "$build.log"; exit 1; }
ctest --test-dir "$build" -L 'unit|fault|e2e' -j 2 >"$build.tests.log" 2>&1 || { tail -60 "$build.tests.log"; exit 1; }
tests/house/lines.sh "$build"
