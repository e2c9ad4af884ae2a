#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All that a GPU's first minutes should tell, most valuable first, within MINUTES in all:
#   probes      each reading of the PTX ISA alone               1_probes.log
#   attention   against float64 on the device, sm_90a and sm_80 2_attention.log
#   peers       times beside PyTorch's, and the bars            3_peers.csv
#   ops         every op through the plug-in                    4_ops.log
#   steps       losses and digests: bf16, again, two ranks, fp32, CPU; a step of 1B parameters   5_steps.log
#   sanitizer   compute-sanitizer on the smallest attention     4_ops.log
#   kernels     bench kernels beside peers.py rest; ncu on attention and on a step   7_kernels.csv
# No stage ends the others; each has its own limit and says what it lacks. $OUT (out) gets summary.txt, these files as
# they grow, none above 8 MB, and 6_clocks.csv: clocks, power and temperature once a second. The first three need nvcc
# and cc only, or a folder made by pack.sh; the others such a folder, or what a build with CMake needs. Usage: first_light.sh [MINUTES]   PACK: the folder (this script's, else
# ../pack of a repository); PLUGIN: another plug-in; STAGES: names, to run only those.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
if [ ! -f "$root/CMakeLists.txt" ]; then root=$(cd "$here/../.." && pwd); fi # from build/pack, to build what does not start
OUT=$(mkdir -p "${OUT:-out}" && cd "${OUT:-out}" && pwd)
end=$((SECONDS + 60 * ${1:-12}))
build=${BUILD:-$root/build/gpu}
PACK=${PACK:-$here}
[ -x "$PACK/bin/probes" ] || PACK=$root/build/pack
stages=" ${STAGES:-probes attention peers ops steps sanitizer kernels} "
PATH=$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin:$(ls -d /opt/nvidia/nsight-compute/* 2>/dev/null | tail -n 1)
export HOME=${HOME:-/root} # without one mpirun ends with a fault
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PYTHONUNBUFFERED=1

say() { echo "$*" | tee -a "$OUT/summary.txt"; }
left() { echo $((end - SECONDS)); }
wanted() { [[ $stages == *" $1 "* ]]; }

last_words() { # last_words FILE LINES: of its end, what speaks of errors, else the last lines
  local text
  text=$(tail -c 4000 "$1" | tr -d '\000' | grep -avE '^#|^ *$|^-+$')
  { grep -aE 'rror|CUDA|fault|annot' <<<"$text" || echo "$text"; } | grep -av FAILED | tail -n "$2" | cut -c1-200 | paste -sd'|'
}

step() { # step FILE NAME SECONDS COMMAND...: output at the end of $OUT/FILE, a line in the summary
  local file=$OUT/$1 name=$2 most=$3 at=$SECONDS rc
  shift 3
  if [ "$(left)" -lt 5 ]; then say "$name: no time left"; return 1; fi
  if [ "$most" -gt "$(left)" ]; then most=$(left); fi
  echo "# $name: $*" >>"$file"
  # Into a file, not a pipe, and not waited for beyond its limit: what cannot be killed or left a child holds nothing up.
  timeout -k 5 "$most" "$@" >>"$file" 2>&1 &
  while kill -0 $! 2>/dev/null && [ $((SECONDS - at)) -lt $((most + 8)) ]; do sleep 0.1; done
  if kill -0 $! 2>/dev/null; then rc=137; else wait $!; rc=$?; fi
  if [ "$(wc -c <"$file")" -gt 8000000 ]; then truncate -s 8000000 "$file"; fi
  case $rc in 0) say "$name: $((SECONDS - at)) s" ;; 77) say "$name: $(tail -n 1 "$file")" ;;
    124 | 137) say "$name: cut off after $most s: $(last_words "$file" 1)" ;;
    *) say "$name: exit $rc, $((SECONDS - at)) s: $(last_words "$file" 3)" ;; esac
  return "$rc"
}

cuda_libraries() { # folders of libcublasLt and libnccl, wherever CUDA or PyTorch left them
  ls -d /usr/local/cuda/lib64 2>/dev/null
  python3 -c 'import glob, sysconfig
for d in glob.glob(sysconfig.get_paths()["purelib"] + "/nvidia/*/lib"): print(d)' 2>/dev/null
}

use_pack() { # programs and libraries of pack.sh; false: they do not start here
  local lib=$PACK/lib libraries missing
  libraries=$lib:$(cuda_libraries | paste -sd:)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}:/usr/local/nvidia/lib64 # the driver's too
  run=(env "LD_LIBRARY_PATH=$libraries" "OPAL_PREFIX=$PACK" "OPAL_LIBDIR=$lib" "OPAL_PKGLIBDIR=$lib/openmpi3"
    "OPAL_PKGDATADIR=$PACK/share/openmpi" "OMPI_MCA_mca_base_component_path=$lib/openmpi3" "PMIX_PREFIX=$PACK"
    "PMIX_MCA_mca_base_component_path=$lib/pmix" OMPI_MCA_plm=isolated "OMPI_MCA_btl=self,vader" OMPI_MCA_pml=ob1
    OMPI_MCA_btl_vader_single_copy_mechanism=none)
  mpirun=$PACK/bin/mpirun bin=$PACK/bin tests=$PACK/bin plugin=$PACK/bin/liborrery_cuda.so attention=$PACK/bin
  missing=$(for f in "$bin"/*; do env "LD_LIBRARY_PATH=$libraries" ldd "$f" 2>&1; done | grep -E "not found|version" | sort -u)
  if [ -z "$missing" ]; then return 0; fi
  say "the packed programs lack: $(echo "$missing" | tr -s ' \t\n' ' ' | cut -c1-300)"
  [[ $missing != *GLIBC* ]]
}

full_build() { # the plug-in and the programs with CMake, beside the first stages
  local lack=()
  for tool in cmake ninja cc; do command -v $tool >/dev/null || lack+=("$tool"); done
  for library in yaml-0.1 jansson cmocka libcurl ompi; do pkg-config --exists $library 2>/dev/null || lack+=("$library"); done
  if [ ${#lack[@]} -gt 0 ]; then echo "not built: this machine has no ${lack[*]}"; return 1; fi
  cmake -S "$root" -B "$build" -G Ninja -DORRERY_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90a-real &&
    ninja -C "$build" -j 10 orrery_cuda orrery-rank orrery test_ops
}

: >"$OUT/summary.txt"
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)
scratch=$(mktemp -d)
# Also keeps the driver awake: without a client it may start the GPU anew for every process.
nvidia-smi --query-gpu=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active \
  --format=csv,noheader,nounits -l 1 >"$OUT/6_clocks.csv" 2>&1 &
clocks=$!
trap 'kill $clocks 2>/dev/null; rm -rf "$scratch"' EXIT
say "first light, $(date -u +%FT%TZ), ${1:-12} minutes, ${gpu:-no nvidia-smi here}, $(cat "$PACK/COMMIT" 2>/dev/null)"
run=() builder="" mpirun=mpirun
ip link set lo up 2>/dev/null # mpirun's ranks meet there
if ! { [ -x "$PACK/bin/probes" ] && use_pack; }; then
  bin=$build/bin tests=$build/tests plugin=$build/bin/liborrery_cuda.so attention=$build
  if wanted ops || wanted steps || wanted sanitizer || wanted kernels; then
    full_build >"$OUT/4_ops.log" 2>&1 &
    builder=$!
  fi
  if [ -x "$root/tests/bench/gpu/attention.sh" ]; then
    step 1_probes.log "build of the attention kernels" 150 env "OUT=$build" "$root/tests/bench/gpu/attention.sh" build
  fi
fi
export ORRERY_CUDA_PLUGIN=${PLUGIN:-$plugin} ORRERY_TEST_DEVICE=cuda

if wanted probes; then
  step 1_probes.log probes 60 "${run[@]}" "$attention/probes"
  grep -E "^(WRONG|note|probes|  +but)" "$OUT/1_probes.log" | tee -a "$OUT/summary.txt"
fi
if wanted attention; then
  step 2_attention.log "attention sm_90a against float64" 75 env ORRERY_ATTENTION_PAIRS=never "${run[@]}" "$attention/bench_attention" check
  case $? in 0) ;; 1) say "sm_90a: WRONG numbers above; it is timed all the same" ;; *) hopper=broken ;; esac
  pairs() { step 2_attention.log "attention sm_90a in pairs of blocks" 60 env ORRERY_ATTENTION_PAIRS=always "${run[@]}" "$attention/bench_attention" check; }
  if [ "${hopper:-}" = broken ] || ! pairs; then
    say "sm_90a: pairs of blocks are not right; nothing below uses them"
    export ORRERY_ATTENTION_PAIRS=never
  fi
  step 2_attention.log "attention sm_80 against float64" 60 env ORRERY_ATTENTION_SM80=1 "${run[@]}" "$attention/bench_attention" check
  grep -E "BAD|DIFFER" "$OUT/2_attention.log" | tee -a "$OUT/summary.txt"
fi
check_ops() {
  step 4_ops.log ops 60 env ORRERY_TEST_SEED=1 "${run[@]}" "$tests/test_ops" && return
  # A fault sticks to its process, so those behind it failed too: each by itself. After a hang: the one that hung is said above.
  local failed
  failed=$(sed -nE 's/^\[  FAILED  \] ([a-z_0-9]+)\/.*/\1/p' "$OUT/4_ops.log" | sort -u)
  for op in $failed; do step 4_ops.log "op $op alone" 15 env ORRERY_TEST_SEED=1 "${run[@]}" "$tests/test_ops" "$op" >/dev/null; done
  grep -a "^ERROR: " "$OUT/4_ops.log" | cut -c8-190 | sort -u | head -n 25 | tee -a "$OUT/summary.txt"
}
ops_done=""
if wanted ops && [ -x "$tests/test_ops" ]; then check_ops; ops_done=1; fi
if wanted peers; then
  if [ "${hopper:-}" = broken ]; then
    say "sm_90a faulted or hung: the times are those of the sm_80 kernels"
    export ORRERY_ATTENTION_SM80=1
  fi
  step 3_peers.csv "attention beside PyTorch" 200 python3 "$here/peers.py" attention "$attention/libbench_attention.so" 150
  if ! grep -q "^[a-z]* ours .*TFLOP" "$OUT/3_peers.csv"; then
    step 3_peers.csv "attention alone" 60 "${run[@]}" "$attention/bench_attention" time
  fi
  grep -E "^BAR|^# .*(Error|fa3|left)" "$OUT/3_peers.csv" | cut -c1-160 | tee -a "$OUT/summary.txt"
  awk -F, '/TFLOP/ {printf "%s %s: %s ms %s\n", $1, $2, $3, $4}
    /^(forward|backward)/ {printf "%s %s %s D %s: %s ms %s\n", $1, $2, $3, $5, $6, $7}' "$OUT/3_peers.csv" | tee -a "$OUT/summary.txt"
fi

if [ -n "$builder" ]; then
  while kill -0 "$builder" 2>/dev/null && [ "$(left)" -gt 30 ]; do sleep 1; done
fi
if [ ! -x "$tests/test_ops" ]; then
  say "no programs for the other stages: $(tail -n 1 "$OUT/4_ops.log" 2>/dev/null)"
  exit 0
fi
if wanted ops && [ -z "$ops_done" ]; then check_ops; fi
cat >"$scratch/steps.yaml" <<Y
run: {dir: $scratch/run}
train: {steps: ${STEPS:-200}, batch: 12}
Y
cat >"$scratch/one_b.yaml" <<Y
run: {dir: $scratch/one_b}
data: {frames: 32}
model: {width: 2048, layers: 24, head_dim: 128, cond_width: 256}
video: {height: 128, width: 128, channels: 3, patch: 8, margin: 4}
train: {steps: 10, batch: 4}
comm: {shards: 4}
optim: {kind: adamw, lr: 0.0003}
Y
steps() { # steps NAME SECONDS COMMAND...: and the loss and digest into the summary; $took: milliseconds of a step
  local name=$1 at line
  touch "$OUT/5_steps.log"
  at=$(wc -c <"$OUT/5_steps.log")
  shift
  step 5_steps.log "steps, $name" "$@"
  line=$(tail -c +$((at + 1)) "$OUT/5_steps.log" 2>/dev/null |
    sed -nE 's/^\{.*"loss":([^,]{1,10})[^,]*,"weights_sha256":"(.{12}).*"s_to_first_step":([^,]{1,5}).*"ms_median":([^,]{1,7}).*"gflop_per_s":([^,.]*).*/  loss \1, digest \2, first step \3 s, \4 ms, \5 GFLOP\/s/p')
  if [ -n "$line" ]; then say "$line"; fi
  took=$(sed -nE 's/.* s, ([0-9.]+) ms.*/\1/p' <<<"$line")
}
rank=("${run[@]}" "$bin/orrery-rank" --task step-bench)
if wanted steps; then
  small=("${rank[@]}" --config "$scratch/steps.yaml")
  one_b=("${rank[@]}" --config "$scratch/one_b.yaml" device=cuda)
  two=("${run[@]}" "$mpirun" --oversubscribe -n 2 "$bin/orrery-rank" --task step-bench --config "$scratch/steps.yaml"
    device=cuda cuda.share=true)
  steps bf16 40 "${small[@]}" device=cuda
  steps CPU 40 "${small[@]}" device=cpu
  steps "1B parameters" 60 "${one_b[@]}"
  one_b_ms=$took
  steps "1B parameters, fast" 60 "${one_b[@]}" comm.reduce=fast
  steps "1B parameters, fast, one micro-batch" 60 "${one_b[@]}" comm.reduce=fast comm.shards=1
  steps "bf16 again: the digest of bf16" 30 "${small[@]}" device=cuda
  steps "without a graph: the digest of bf16" 30 "${small[@]}" device=cuda cuda.graph=off
  steps "two ranks: the digest of bf16" 40 "${two[@]}"
  steps "NCCL on one rank: the digest of bf16" 40 "${run[@]}" "$mpirun" -n 1 "$bin/orrery-rank" --task step-bench \
    --config "$scratch/steps.yaml" device=cuda comm.backend=nccl
  step 5_steps.log "1B parameters, PyTorch compiled" 100 python3 "$here/peer_step.py" 2048 24 128 256 32 259 4 192 1536 4 4 10 ${one_b_ms:+"$one_b_ms"}
  grep -aE "^(PyTorch|BAR)" "$OUT/5_steps.log" | cut -c1-160 | tee -a "$OUT/summary.txt"
  steps fp32 40 "${small[@]}" device=cuda cuda.precision=fp32
  steps "two ranks, fast" 40 "${two[@]}" comm.reduce=fast comm.shards=2
  steps "two ranks, fast, ZeRO-2: the digest of the one before" 40 "${two[@]}" comm.reduce=fast comm.shards=2 comm.zero=2
fi
if wanted sanitizer; then
  if command -v compute-sanitizer >/dev/null; then
    for op in attention attention_backward; do
      step 4_ops.log "memcheck $op" 60 env ORRERY_TEST_SEED=1 ORRERY_TEST_LARGEST=80 "${run[@]}" \
        compute-sanitizer --error-exitcode 9 "$tests/test_ops" "$op"
    done
    grep -E "ERROR SUMMARY" "$OUT/4_ops.log" | tee -a "$OUT/summary.txt"
  else
    say "sanitizer: skipped: no compute-sanitizer here"
  fi
fi
if wanted kernels; then
  # The task itself: `orrery bench` shows rows only when all are there. 33 k rows: beyond what the L2 holds.
  step 7_kernels.csv "bench kernels" 60 "${run[@]}" "$bin/orrery-rank" --task kernels-bench --config "$scratch/one_b.yaml" \
    train.batch=16 device=cuda
  grep -a ",[0-9.]*$" "$OUT/7_kernels.csv" | cut -c1-100 | tee -a "$OUT/summary.txt"
  step 7_kernels.csv "PyTorch's copy, products, norm, AdamW" 40 python3 "$here/peers.py" rest
  grep -aE "^(copy|product|rms_norm|adamw fused)" "$OUT/7_kernels.csv" | cut -c1-100 | tee -a "$OUT/summary.txt"
  if command -v ncu >/dev/null; then
    profile=("${run[@]}" ncu --clock-control none)
    for kernel in forward90 backward90; do
      step 7_kernels.csv "ncu $kernel" 40 "${profile[@]}" --set full -k "regex:$kernel" -c 1 --kill yes \
        "$attention/bench_attention" time full 8192
    done
    step 7_kernels.csv "ncu a step of two layers" 60 "${profile[@]}" --csv --metrics gpu__time_duration.sum,dram__bytes.sum \
      --launch-skip 330 -c 130 --kill yes "$bin/orrery-rank" --task step-bench --config "$scratch/one_b.yaml" device=cuda \
      model.layers=2 train.batch=1 comm.shards=1 train.steps=1 cuda.graph=off
  fi
fi
say "ended with $(left) s left"
