#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Ranks in an Apptainer container, IMAGE=FILE.sif with orrery, orrery-rank and an Open MPI of the host's series.
# From the top of the repository: sbatch --partition=gpu deploy/slurm/apptainer.sh
# ORRERY, CONFIG and OVERRIDES in the environment choose others.
#SBATCH --job-name=orrery
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@120
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --time=4:00:00

source "${ORRERY_DEPLOY:-$SLURM_SUBMIT_DIR/deploy/slurm}/go.sh" || exit 66
read -ra overrides <<<"${OVERRIDES:-}"

go "${ORRERY:-build/bin/orrery}" run "${CONFIG:-configs/demo.yaml}" "launch.container=${IMAGE:?a file: IMAGE=orrery.sif}" \
    "launch.mounts=${MOUNTS:-$SLURM_SUBMIT_DIR}" "${overrides[@]}"
