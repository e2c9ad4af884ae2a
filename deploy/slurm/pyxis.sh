#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Ranks in a container of Pyxis, IMAGE as its --container-image takes it, with orrery, orrery-rank and Open MPI with PMIx.
# From the top of the repository: sbatch --partition=gpu deploy/slurm/pyxis.sh
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

go "${ORRERY:-build/bin/orrery}" run "${CONFIG:-configs/demo.yaml}" launch.starter=srun \
    "launch.container=${IMAGE:?an image: IMAGE=registry#name:tag, or a file .sqsh}" \
    "launch.mounts=${MOUNTS:-$SLURM_SUBMIT_DIR:$SLURM_SUBMIT_DIR}" "${overrides[@]}"
