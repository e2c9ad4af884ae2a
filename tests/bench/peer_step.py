#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The demo's training step, Orrery against eager PyTorch: two ranks of one thread each, interleaved, medians.

Usage: peer_step.py BIN PYTHON [PYTHON ...]   e.g. peer_step.py build/demo/bin /usr/bin/python3
Each PYTHON is an interpreter that has PyTorch."""
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys

ROUNDS, STEPS, RANKS, BATCH = 5, 30, 2, 12
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def torch_ms(python):
    port = free_port()
    ranks = []
    for rank in range(RANKS):
        env = dict(os.environ, RANK=str(rank), WORLD_SIZE=str(RANKS), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                   OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
        ranks.append(subprocess.Popen([python, HERE / "torch_step.py", str(STEPS), str(BATCH // RANKS)], env=env,
                                      text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    outs = [r.communicate(timeout=600) for r in ranks]
    if any(r.returncode for r in ranks):
        sys.exit(f"{python}: {outs[0][1][-500:]}{outs[1][1][-500:]}")
    return float(outs[0][0])


def orrery_ms(bin_dir):
    env = dict(os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    out = subprocess.run(["mpirun", "-n", str(RANKS), "--oversubscribe", f"{bin_dir}/orrery-rank", "--config",
                          ROOT / "configs/demo.yaml", "--task", "step-bench", f"train.steps={STEPS}",
                          "train.threads=1", "run.dir=/tmp/orrery-step-bench"],
                         env=env, text=True, capture_output=True, check=True).stdout
    line = json.loads([text for text in out.splitlines() if text.startswith("{")][-1])
    return line["ms_median"], line["gflop_per_s"]


def main():
    bin_dir, pythons = sys.argv[1], sys.argv[2:]
    ours, speed, theirs = [], [], {p: [] for p in pythons}
    for _ in range(ROUNDS):
        ms, gflops = orrery_ms(bin_dir)
        ours.append(ms)
        speed.append(gflops)
        for python in pythons:
            theirs[python].append(torch_ms(python))
    mine = statistics.median(ours)
    print(f"{'step of 12 sequences, 2 ranks x 1 thread':44} {'ms':>8}  {'ratio':>6}")
    print(f"{'orrery':44} {mine:8.1f}  {'':>6}  {statistics.median(speed):.0f} GFLOP/s, min {min(ours):.1f}, max {max(ours):.1f}")
    for python in pythons:
        version = subprocess.run([python, "-c", "import torch; print(torch.__version__)"], text=True,
                                 capture_output=True, check=True).stdout.strip()
        t = theirs[python]
        ratio = statistics.median(b / a for a, b in zip(ours, t))
        print(f"{'PyTorch ' + version:44} {statistics.median(t):8.1f}  {ratio:6.2f}  min {min(t):.1f}, max {max(t):.1f}")


main()
