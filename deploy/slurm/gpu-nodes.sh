#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Many nodes with eight GPUs each, one rank per GPU. A node that is lost is left out: the run goes on with the rest, down to half.
# From the top of the repository: sbatch --partition=gpu --nodes=16 deploy/slurm/gpu-nodes.sh
# ORRERY, CONFIG and OVERRIDES in the environment choose others.
#SBATCH --job-name=orrery
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@120
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=12:00:00

source "${ORRERY_DEPLOY:-$SLURM_SUBMIT_DIR/deploy/slurm}/go.sh" || exit 66
read -ra overrides <<<"${OVERRIDES:-}"

# The network that MPI and the guards use, when the way between the nodes' names is not the fast one: INTERFACE=ib0.
go "${ORRERY:-build/bin/orrery}" run "${CONFIG:-configs/demo.yaml}" device=cuda launch.bind=numa \
    "launch.interface=${INTERFACE:-}" "launch.min_ranks=$((SLURM_NTASKS / 2))" "${overrides[@]}"
