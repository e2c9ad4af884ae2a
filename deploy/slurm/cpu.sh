#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A partition of CPU nodes: one rank per node, its threads on all cores that the job has there.
# From the top of the repository: sbatch --nodes=4 deploy/slurm/cpu.sh
# ORRERY, CONFIG and OVERRIDES in the environment choose others.
#SBATCH --job-name=orrery
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@120
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --time=4:00:00

source "${ORRERY_DEPLOY:-$SLURM_SUBMIT_DIR/deploy/slurm}/go.sh" || exit 66
read -ra overrides <<<"${OVERRIDES:-}"

go "${ORRERY:-build/bin/orrery}" run "${CONFIG:-configs/demo.yaml}" launch.min_ranks=1 "${overrides[@]}"
