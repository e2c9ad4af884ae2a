#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the attention kernels alone, without CMake: needs nvcc and a C compiler, nothing else. Then runs what is asked:
#   attention.sh build           bench_attention, probes and libbench_attention.so (for peers.py) in $OUT, no run
#   attention.sh probes          each reading of the PTX ISA alone (probes.cu)
#   attention.sh [check | time]  compare with float64 on the device; print the table of times; both without an argument
# ARCH=80|90a|100 (90a; probes: 90a only), OUT: where the programs go (build/gpu).
set -euo pipefail
cd "$(dirname "$0")/../../.."
PATH=$PATH:/usr/local/cuda/bin
command -v nvcc >/dev/null || { echo "skipped: no nvcc"; exit 77; }
arch=${ARCH:-90a} out=${OUT:-build/gpu}
mkdir -p "$out"
flags=(-std=c++17 -O3 -I. -Xcompiler -fPIC -diag-suppress=177 "-gencode=arch=compute_$arch,code=sm_$arch")
common=() running=()
for name in kernels/cuda/attention{,_schedules,_sm80,_sm90_forward,_sm90_backward} tests/bench/gpu/{standalone,bench_attention,probes}; do
  object=$out/$(basename "$name").o
  case $name in */bench_attention | */probes) ;; *) common+=("$object") ;; esac
  nvcc "${flags[@]}" -c "$name.cu" -o "$object" &
  running+=($!)
done
for name in kernels/cuda/{schedule,sizes} kernels/mask base/err; do
  common+=("$out/$(basename "$name").o")
  cc -std=c11 -O2 -D_GNU_SOURCE -fPIC -I. -c "$name.c" -o "${common[-1]}"
done
for pid in "${running[@]}"; do wait "$pid"; done
nvcc "${flags[@]}" "${common[@]}" "$out/bench_attention.o" -o "$out/bench_attention"
nvcc "${flags[@]}" "${common[@]}" "$out/probes.o" -o "$out/probes"
nvcc "${flags[@]}" -shared "${common[@]}" "$out/bench_attention.o" -o "$out/libbench_attention.so"
case ${1:-} in
  build) ;;
  probes) "$out/probes" ;;
  *) "$out/bench_attention" "$@" ;;
esac
