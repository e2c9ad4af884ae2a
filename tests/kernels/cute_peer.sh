#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The attention kernels' layouts against CUTLASS's (cute_peer.cu). ORRERY_CUTLASS names a checkout of CUTLASS; needs nvcc
# and a C++ compiler, no GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/local/cuda/bin
[ -n "${ORRERY_CUTLASS:-}" ] || { echo "skipped: ORRERY_CUTLASS names no checkout of CUTLASS"; exit 77; }
command -v nvcc >/dev/null || { echo "skipped: no nvcc"; exit 77; }
[ -f "$ORRERY_CUTLASS/include/cute/tensor.hpp" ] || { echo "$ORRERY_CUTLASS: no include/cute/tensor.hpp there" >&2; exit 1; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for source in tests/kernels/wgmma_forms_forward.cu tests/kernels/wgmma_forms_backward.cu tests/simt/simt.cc; do
  "${CXX:-c++}" -std=c++17 -O1 -Wall -Wextra -Wno-unused-parameter -Wno-unknown-pragmas -Wno-missing-field-initializers -Werror \
    -fno-strict-aliasing -D_GNU_SOURCE -Itests/simt/include -I. -xc++ -c "$source" -o "$out/$(basename "$source").o"
done
nvcc -std=c++17 -O1 -I. -isystem "$ORRERY_CUTLASS/include" --expt-relaxed-constexpr -Werror all-warnings -diag-suppress=177 \
  -gencode=arch=compute_90a,code=sm_90a tests/kernels/cute_peer.cu "$out"/*.o -o "$out/cute_peer"
"$out/cute_peer" | grep -v '^ERROR: cast_smem_ptr_to_uint' # what CuTe says of a host, where it has no addresses
