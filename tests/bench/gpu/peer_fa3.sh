#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds libpeer_fa3.so, FlashAttention-3 for peers.py (peer_fa3.cu), in $OUT (build/gpu). Six kernels, some three minutes
# of one core. ORRERY_FLASH_ATTENTION: a checkout of FlashAttention (its hopper/), ORRERY_CUTLASS: one of CUTLASS.
# The definitions are those of FlashAttention's own build: without them its kernels are slower or do not compile.
set -euo pipefail
cd "$(dirname "$0")/../../.."
PATH=$PATH:/usr/local/cuda/bin
if [ -z "${ORRERY_FLASH_ATTENTION:-}" ] || [ -z "${ORRERY_CUTLASS:-}" ]; then
  echo "skipped: no FlashAttention-3 without ORRERY_FLASH_ATTENTION and ORRERY_CUTLASS"
  exit 77
fi
command -v nvcc >/dev/null || { echo "skipped: no nvcc"; exit 77; }
hopper=$ORRERY_FLASH_ATTENTION/hopper cutlass=$ORRERY_CUTLASS/include out=${OUT:-build/gpu}
[ -f "$hopper/flash_fwd_launch_template.h" ] || { echo "$hopper: no flash_fwd_launch_template.h there" >&2; exit 1; }
[ -f "$cutlass/cute/tensor.hpp" ] || { echo "$cutlass: no cute/tensor.hpp there" >&2; exit 1; }
mkdir -p "$out"
launcher=$(command -v ccache || true)
flags=(-std=c++17 -O3 --use_fast_math --expt-relaxed-constexpr --expt-extended-lambda "-gencode=arch=compute_90a,code=sm_90a"
  -DNDEBUG -DCUTE_SM90_EXTENDED_MMA_SHAPES_ENABLED -DCUTLASS_ENABLE_GDC_FOR_SM90 -DCUTLASS_DEBUG_TRACE_LEVEL=0
  -isystem "$hopper" -isystem "$cutlass" -Werror all-warnings -Xcompiler "-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Werror")
$launcher nvcc "${flags[@]}" -c tests/bench/gpu/peer_fa3.cu -o "$out/peer_fa3.o"
nvcc -shared -Xlinker -z,defs "$out/peer_fa3.o" -o "$out/libpeer_fa3.so"
