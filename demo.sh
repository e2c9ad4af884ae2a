#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to a trained, evaluated world model: installs, builds, simulates, trains, evaluates, reports.
# Usage: ./demo.sh [key=value ...]    e.g. ./demo.sh train.steps=500
set -euo pipefail
cd "$(dirname "$0")"

step() { printf '\n== %s\n' "$*" >&2; }

step "1/4 packages and build"
deploy/bootstrap.sh build
cmake -S . -B build/demo -G Ninja -DORRERY_TESTS=OFF -DORRERY_CUDA=OFF >/dev/null
ninja -C build/demo
orrery=build/demo/bin/orrery

step "2/4 simulated episodes: data/demo"
"$orrery" simulate table --out data/demo/train --episodes 1500
"$orrery" simulate table --out data/demo/eval --episodes 64 --first 1000000 --split eval

step "3/4 training, evaluation and pictures: runs/demo"
"$orrery" run configs/demo.yaml -n 2 "$@"

step "4/4 report"
"$orrery" report runs/demo
