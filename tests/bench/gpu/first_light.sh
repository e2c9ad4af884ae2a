#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All that a first half hour on a GPU should tell, in one command, most valuable first: builds, runs every op's test on
# the device, compute-sanitizer, training on GPU beside CPU and twice for its bits, tables of times. What it finds lies
# in $OUT (default: out). No step ends the others. Usage: tests/bench/gpu/first_light.sh [MINUTES]
set -uo pipefail
cd "$(dirname "$0")/../../.."
OUT=${OUT:-out}
limit=$((60 * ${1:-25}))
begun=$SECONDS
build=${BUILD:-build/gpu}
mkdir -p "$OUT"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ORRERY_TEST_DEVICE=cuda

step() { # step NAME SECONDS COMMAND...: output to $OUT/NAME.log, a line to $OUT/summary.txt
  local name=$1 most=$2 at=$SECONDS rc
  shift 2
  if [ $((SECONDS - begun)) -ge "$limit" ]; then echo "$name: no time left" | tee -a "$OUT/summary.txt"; return 1; fi
  timeout "$most" "$@" >"$OUT/$name.log" 2>&1
  rc=$?
  echo "$name: exit $rc, $((SECONDS - at)) s" | tee -a "$OUT/summary.txt"
  [ $rc = 0 ] || tail -n 15 "$OUT/$name.log"
  return $rc
}

build_all() {
  cmake -S . -B "$build" -G Ninja -DORRERY_CUDA=ON -DORRERY_WERROR=ON
  ninja -C "$build" orrery_cuda orrery-rank orrery test_ops
}
ops() { ORRERY_CUDA_PLUGIN=$PWD/$build/bin/liborrery_cuda.so ORRERY_TEST_SEED=${2:-1} "$build/tests/test_ops" ${1:+"$1"}; }
sanitized() { # sanitized TOOL OP
  ORRERY_CUDA_PLUGIN=$PWD/$build/bin/liborrery_cuda.so ORRERY_TEST_SEED=1 \
    compute-sanitizer --tool "$1" --error-exitcode 9 "$build/tests/test_ops" "$2"
}
steps() { "$build/bin/orrery-rank" --config "$OUT/steps.yaml" --task step-bench "$@"; }
export -f build_all ops sanitized steps
export build OUT

cat >"$OUT/steps.yaml" <<'Y'
run: {dir: /tmp/first-light}
train: {steps: 200, batch: 12}
Y
cat >"$OUT/one_b.yaml" <<'Y'
run: {dir: /tmp/first-light-1b}
data: {frames: 32}
model: {width: 2048, layers: 24, head_dim: 128, cond_width: 256}
video: {height: 128, width: 128, channels: 3, patch: 8, margin: 4}
train: {steps: 10, batch: 4}
comm: {shards: 4}
optim: {kind: adamw, lr: 0.0003}
Y

nvidia-smi | tee "$OUT/gpu.txt"
step build 600 bash -c build_all || exit 1
step ops 400 bash -c 'ops'
step ops_again 400 bash -c 'ops "" 2'
for device in cpu cuda; do step "steps_$device" 300 bash -c "steps device=$device"; done
step steps_fp32 300 bash -c 'steps device=cuda cuda.precision=fp32'
step steps_again 300 bash -c 'steps device=cuda'
step steps_plain 300 bash -c 'steps device=cuda cuda.graph=off'
step steps_two_ranks 300 mpirun --oversubscribe -n 2 "$build/bin/orrery-rank" --config "$OUT/steps.yaml" \
  --task step-bench device=cuda cuda.share=true
for log in steps_cpu steps_cuda steps_fp32 steps_again steps_plain steps_two_ranks; do
  echo "$log $(grep -ao '"loss": *[0-9.e-]*' "$OUT/$log.log") $(grep -ao '"weights_sha256": *"[0-9a-f]*"' "$OUT/$log.log")"
done | tee -a "$OUT/summary.txt" # cuda, again, plain and two_ranks: one digest
step bench_kernels 300 "$build/bin/orrery" bench kernels "$OUT/one_b.yaml" --csv device=cuda
step bench_step 300 "$build/bin/orrery" bench step "$OUT/one_b.yaml" device=cuda
step peers 300 python3 tests/bench/gpu/peers.py
for op in norm_mod_backward gated_add_backward qk_rope_backward col_sum loss attention attention_backward gemm muon noise; do
  step "memcheck_$op" 120 bash -c "sanitized memcheck $op"
done
for op in norm_mod_backward col_sum loss sum_squares attention; do
  step "racecheck_$op" 120 bash -c "sanitized racecheck $op"
done
cat "$OUT/summary.txt"
