#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The attention kernels still build and link alone, as tests/bench/gpu does on a machine with nvcc and little else.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
OUT=$out tests/bench/gpu/attention.sh build
for made in probes bench_attention libbench_attention.so; do
  [ -s "$out/$made" ] || { echo "attention.sh built no $made" >&2; exit 1; }
done
if nvidia-smi >/dev/null 2>&1; then exit 0; fi # its checks are first_light.sh's
said=$("$out/probes" 2>&1) && { echo "probes succeeded without a GPU" >&2; exit 1; }
[ "$(wc -l <<<"$said")" = 1 ] || { echo "probes, without a GPU, said: $said" >&2; exit 1; }
