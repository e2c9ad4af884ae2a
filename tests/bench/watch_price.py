#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What guard, black box and watch cost a training run, in ways that other load spoils least.

1. CPU seconds of `orrery run`, its keeper and the guards beside those of the ranks, over one run.
2. Instructions of a rank inside black box functions, of all in a step (valgrind's callgrind; its kernels are AVX2).
3. The same ranks watched and bare (mpirun alone: no guard, no black box), in turn: the ratios of a step's phases that
   wait for nobody and of the whole step, by their tenth percentiles: the steps that nobody disturbed.

Usage: watch_price.py BIN DATA [--config configs/demo.yaml] [--steps 1500] [--pairs 6] [--pair-steps 60]
DATA is a data set: orrery simulate table --out DATA --episodes 60"""
import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
from cpu_share import watch  # noqa: E402
from orrery_run import environment  # noqa: E402

RANKS = 2


def settings(a, run, steps):
    return [f"run.dir={run}", f"data.train={a.data}", "data.eval=", f"train.steps={steps}", "train.log_every=1", "train.threads=1",
            "checkpoint.every=1000000000"]


def watched(a, run, steps):
    child = subprocess.Popen([f"{a.bin}/orrery", "run", a.config, "-n", str(RANKS), *settings(a, run, steps)], cwd=ROOT,
                             env=environment(), stderr=subprocess.DEVNULL)
    return watch(child)


def bare(a, run, steps, tool=(), ranks=RANKS, **env):
    os.makedirs(run)
    config = f"{run}/config.yaml"
    with open(config, "w", encoding="utf-8") as f:
        subprocess.run([f"{a.bin}/orrery", "config", "show", a.config, *settings(a, run, steps)], cwd=ROOT, env=environment(), check=True, stdout=f)
    subprocess.run(["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), "--mca", "pml", "ob1", *tool,
                    f"{a.bin}/orrery-rank", "--config", config, "--task", "train"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True,
                   stderr=subprocess.DEVNULL, env=environment(ORRERY_RUN_DIR=run, OMP_NUM_THREADS=1, OMP_WAIT_POLICY="passive", **env))


def steps_ms(run):
    """Tenth percentiles: of what waits for nobody, of the whole."""
    rows = [json.loads(line)["seconds"] for line in pathlib.Path(run, "metrics.jsonl").read_text().splitlines()][2:]
    alone = sorted(sum(row[p] for p in ("noise", "forward", "backward", "update")) for row in rows)
    return 1e3 * alone[len(rows) // 10], 1e3 * sorted(sum(row.values()) for row in rows)[len(rows) // 10]


def instructions(a, tmp, steps):
    """(in black box functions, in all) of one rank that has a black box."""
    out = f"{tmp}/callgrind-{steps}"
    tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
    bare(a, f"{tmp}/counted-{steps}", steps, tool, 1, ORRERY_BLACKBOX=f"{tmp}/rank-{steps}.box")
    text = subprocess.run(["callgrind_annotate", "--threshold=100", out], text=True, capture_output=True, check=True).stdout
    counts = [(int(m[1].replace(",", "")), m[2]) for m in re.finditer(r"^ *([0-9,]+) \([ 0-9.]+%\)  (.*)$", text, re.M)]
    return sum(n for n, where in counts if ":blackbox_" in where), next(n for n, where in counts if "PROGRAM TOTALS" in where)


def show_cpu(a, tmp):
    cpu = watched(a, f"{tmp}/long", a.steps)
    print(f"{a.steps} steps of {a.config}, {RANKS} ranks, load {os.getloadavg()[0]:.0f}")
    print(f"{'who':<34} {'CPU s':>8} {'share':>8}")
    cpu["supervisor + keeper + guards"] = cpu["supervisor"] + cpu["keeper"] + cpu["guard"]
    for who, seconds in cpu.items():
        print(f"{who:<34} {seconds:>8.2f} {100 * seconds / cpu['rank']:>7.2f}%")


def show_instructions(a, tmp):
    if not shutil.which("callgrind_annotate"):
        return print("no valgrind: instructions are not counted")
    few, many = instructions(a, tmp, 2), instructions(a, tmp, 5)
    box, whole = ((m - f) / 3 for f, m in zip(few, many))
    print(f"{'instructions of a step (millions)':<34} {1e-6 * whole:>8.1f}")
    print(f"{'... in the black box':<34} {1e-6 * box:>8.4f} {100 * box / whole:>7.4f}%")


def show_pairs(a, tmp):
    ratios = []
    for pair in range(a.pairs):
        seen = {}
        for name, run in ([("watched", watched), ("bare", bare)])[:: 1 if pair % 2 else -1]:
            run(a, f"{tmp}/{name}-{pair}", a.pair_steps)
            seen[name] = steps_ms(f"{tmp}/{name}-{pair}")
        ratios.append([w / b for w, b in zip(seen["watched"], seen["bare"])])
    print(f"watched / bare, {a.pairs} pairs of {a.pair_steps} steps in turn, load {os.getloadavg()[0]:.0f}")
    for name, values in zip(("phases that wait for nobody", "whole step"), zip(*ratios)):
        print(f"{name:<34} {statistics.median(values):>8.3f}  least {min(values):.3f}, most {max(values):.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=lambda p: str(pathlib.Path(p).resolve()))
    parser.add_argument("data", type=lambda p: str(pathlib.Path(p).resolve()))
    parser.add_argument("--config", default="configs/demo.yaml")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--pair-steps", type=int, default=60)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orrery-price-") as tmp:
        for show in (show_cpu, show_instructions, show_pairs):
            show(a, tmp)


if __name__ == "__main__":
    main()
