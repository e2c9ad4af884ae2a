#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training steps with and without communication beside the computation, interleaved: medians, and their ratio.

usage: overlap.py BIN CONFIG [--ranks N] [--rounds N] [key=value ...]

A ratio below 1: the step with comm.overlap is the shorter one. `waited` is the part of `under way` that a rank spent
waiting. Without overlap nothing but waiting is possible while something is under way."""
import argparse
import json
import os
import statistics
import subprocess


def step(args, overlap):
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS="1")
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(args.ranks), f"{args.bin}/orrery-rank", "--config", args.config,
               "--task", "step-bench", f"comm.overlap={overlap}", f"train.steps={args.steps}", *args.overrides]
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("bin")
    p.add_argument("config")
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--steps", type=int, default=40)
    p.add_argument("overrides", nargs="*")
    args = p.parse_intermixed_args()
    seen, ratios = {"true": [], "false": []}, []
    for i in range(args.rounds):
        order = sorted(seen, reverse=i % 2 == 0)  # each goes first in turn
        pair = {overlap: step(args, overlap) for overlap in order}
        ratios.append(pair["true"]["ms_median"] / pair["false"]["ms_median"])
        for overlap, line in pair.items():
            seen[overlap].append(line)
    if len({line["weights_sha256"] for lines in seen.values() for line in lines}) != 1:
        print("the weights differ")
    print(f"{'comm.overlap':14}{'step ms':>9}{'under way':>11}{'waited':>9}")
    for overlap, lines in seen.items():
        median = [statistics.median(line[key] for line in lines) for key in ("ms_median", "comm_busy_ms", "comm_wait_ms")]
        print(f"{overlap:14}{median[0]:9.2f}{median[1]:11.2f}{median[2]:9.2f}")
    print(f"ratio {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}, {args.rounds} pairs, {args.ranks} ranks")


main()
