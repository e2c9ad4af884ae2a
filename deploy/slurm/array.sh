#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# An array of runs: one per line of a file, overrides of one config. Each has its own run folder.
# From the top of the repository: sbatch --array=1-3 deploy/slurm/array.sh
# ORRERY, CONFIG and OVERRIDES in the environment choose others.
#SBATCH --job-name=orrery
#SBATCH --output=slurm-%A-%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@120
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=4:00:00

source "${ORRERY_DEPLOY:-$SLURM_SUBMIT_DIR/deploy/slurm}/go.sh" || exit 66
read -ra overrides <<<"${OVERRIDES:-}"

# RUNS: a file with a line per run, e.g. "optim.lr=0.003 run.seed=2"; line N is for element N.
: "${RUNS:?a file with a line of overrides per run: RUNS=runs.txt}"
read -ra own <<<"$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$RUNS")"
if [ ${#own[@]} = 0 ]; then # the plain config is nobody's run
    echo "$RUNS: no line $SLURM_ARRAY_TASK_ID; submit with --array=1-N for N lines" >&2
    exit 64
fi
go "${ORRERY:-build/bin/orrery}" run "${CONFIG:-configs/demo.yaml}" "run.dir=${RUN_DIR:-runs/array}-$SLURM_ARRAY_TASK_ID" \
    "${overrides[@]}" "${own[@]}"
