#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and runs the attention kernels alone, without CMake: `check` compares with float64 and stops, otherwise the
# table of times follows; the peers (peers.py) may be run between two calls. Usage: tests/bench/gpu/attention.sh [check]
# ARCH=80|90a|100 (90a), OUT: where the program goes (build/gpu).
set -euo pipefail
cd "$(dirname "$0")/../../.."
command -v nvcc >/dev/null || { echo "skipped: no nvcc"; exit 77; }
arch=${ARCH:-90a} out=${OUT:-build/gpu}
mkdir -p "$out"
flags=(-std=c++17 -O3 -I. "-gencode=arch=compute_$arch,code=sm_$arch")
objects=()
for name in kernels/cuda/attention{,_sm80,_sm90_forward,_sm90_backward} tests/bench/gpu/bench_attention; do
  objects+=("$out/$(basename $name).o")
  nvcc "${flags[@]}" -c $name.cu -o "${objects[-1]}" &
done
for name in kernels/cuda/schedule kernels/mask base/err; do
  objects+=("$out/$(basename $name).o")
  cc -std=c11 -O2 -D_GNU_SOURCE -I. -c $name.c -o "${objects[-1]}"
done
wait
nvcc "${flags[@]}" "${objects[@]}" -o "$out/bench_attention"
[ "${1:-}" = build ] || "$out/bench_attention" "$@"
