#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A GPU's memory as planned beside what a step really took of the emulated one, on two ranks too; and what is refused before step 0, in
one line with the cure: no room, others in the way, a head that the kernels do not know, an old GPU, an old driver or none."""
import json
import os
import subprocess
import sys

sys.path.insert(0, "tests/lib")
from orrery_run import BIN, check, environment, folder  # noqa: E402

RANK = str(BIN / "orrery-rank")
PLUGIN = str(BIN.parent / "tests" / "liborrery_simt.so")
CONFIG = """
run: {dir: %s/run}
data: {frames: 3, eval: ""}
model: {width: 32, layers: 2, head_dim: 32, hidden: 32, cond_width: 8}
video: {height: 8, width: 8, channels: 1, patch: 4, margin: 2}
train: {steps: 1, batch: 2}
comm: {shards: 2}
"""


def rank(*words, ranks=1, **env):
    command = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    return subprocess.run([*command, RANK, *map(str, words)], env=environment(ORRERY_CUDA_PLUGIN=PLUGIN, **env),
                          text=True, capture_output=True, timeout=600)


def planned(config, compute, *words, number=0):
    done = rank("--config", config, "--task", "plan", *words)
    plans = {p["compute"]: p for p in json.loads(done.stdout)["gpu_memory"]}
    row = plans[compute]["ranks"][number]
    check(row["total"] == sum(v for k, v in row.items() if k not in ("rank", "total")), "the parts add up")
    return row


def as_planned(tmp, config):
    for compute, words in ((80, []), (90, ["model.head_dim=64", "model.width=64"]), (80, ["optim.kind=adamw", "optim.ema=0.9", "comm.reduce=fast"]),
                           (80, ["cuda.precision=fp32", "model.head_dim=16"]), (80, ["comm.shards=1", "data.frames=5"])):
        peak = tmp / "peak"
        done = rank("--config", config, "--task", "step-bench", "device=cuda", *words, ORRERY_SIMT_COMPUTE=compute, ORRERY_SIMT_PEAK=peak)
        check(done.returncode == 0, f"a step on sm_{compute} {' '.join(words)} {done.stderr[-300:] if done.returncode else ''}")
        row, took = planned(config, compute, *words), int(peak.read_text())
        fixed = row["products"]
        plan, took = row["total"] - row["context"] - fixed, took - fixed
        check(0.97 <= took / plan <= 1.001, f"planned {plan} bytes besides fixed ones, {took} were taken, ratio {took / plan:.5f}")


def with_peers(tmp, config, reduce):
    """Two ranks on one GPU: whole gradients, then each its own run and two buckets."""
    words = ["device=cuda", "cuda.share=true", "comm.backend=mpi", f"comm.reduce={reduce}", "comm.bucket_mb=0.001", "model.layers=8", "model.width=64"]
    saved = {0: [0, 0], 1: [0, 0]}  # by rank: as planned, as seen
    for zero, sign in ((1, 1), (2, -1)):
        command = ["mpirun", "--oversubscribe", "-n", "2", "sh", "-c", 'ORRERY_SIMT_PEAK=$1.$OMPI_COMM_WORLD_RANK && export ORRERY_SIMT_PEAK && shift && exec "$@"',
                   "sh", str(tmp / "peak"), RANK, "--config", str(config), "--task", "step-bench", *words, f"comm.zero={zero}"]
        done = subprocess.run(command, env=environment(ORRERY_CUDA_PLUGIN=PLUGIN, ORRERY_SIMT_COMPUTE=80), text=True, capture_output=True, timeout=600)
        check(done.returncode == 0, f"two ranks, {reduce}, comm.zero={zero} {done.stderr[-300:] if done.returncode else ''}")
        for r in 0, 1:
            row = planned(config, 80, *words, f"comm.zero={zero}", "launch.ranks=2", number=r)
            plan, took = row["total"] - row["context"] - row["products"], int((tmp / f"peak.{r}").read_text()) - row["products"]
            check(0.97 <= took / plan <= 1.001, f"rank {r}: planned {plan} bytes, {took} were taken, ratio {took / plan:.5f}")
            saved[r] = [saved[r][0] + sign * plan, saved[r][1] + sign * took]
    for r, (plan, took) in saved.items():
        check(plan > 0 and abs(took - plan) <= 0.002 * plan, f"rank {r}: comm.zero=2 takes {took} bytes less, as planned ({plan})")


def refused(config, status, *texts, words=(), task="step-bench", **env):
    done = rank("--config", config, "--task", task, "device=cuda", *words, **env)
    line = done.stderr.strip().splitlines()[-1]
    check(done.returncode == status and all(t in line for t in texts), f"exit {done.returncode}: {line}")


def refusals(tmp, config):
    small = {"ORRERY_SIMT_MEMORY": 8 << 20}
    refused(config, 78, "fp32 weights", "gradients", "MiB are free", "model.width", **small)
    refused(config, 78, "activations", "raise comm.shards (now 1: 16 sequences", words=["comm.shards=1", "train.batch=16", "data.frames=8"], **small)
    refused(config, 78, "lower data.frames", words=["comm.shards=1", "train.batch=1", "data.frames=64"], **small)
    refused(config, 71, "others hold", ORRERY_SIMT_MEMORY=1 << 30, ORRERY_SIMT_HELD=(1 << 30) - (20 << 20))
    refused(config, 78, "model.head_dim 16", "32, 64, 128", words=["model.head_dim=16"])
    refused(config, 69, "too old", "sm_80", "device=cpu", ORRERY_SIMT_COMPUTE=75)
    refused(config, 69, "driver is too old (CUDA 11.4, 13.0 needed)", ORRERY_SIMT_DRIVER=11040)
    refused(config, 69, "no GPU here", ORRERY_SIMT_DRIVER=0)
    env = {k: v for k, v in environment().items() if k != "ORRERY_CUDA_PLUGIN"}
    done = subprocess.run([RANK, "--config", str(config), "--task", "step-bench", "device=cuda"], text=True, capture_output=True,
                          env={**env, "ORRERY_CUDA_PLUGIN": f"{tmp}/none.so"}, timeout=60)
    check(done.returncode == 69 and len(done.stderr.strip().splitlines()) == 1, f"no plug-in: {done.stderr.strip()}")


def main():
    if not os.path.exists(PLUGIN):
        print("skipped: the emulated GPU is not built")
        sys.exit(77)
    with folder() as tmp:
        config = tmp / "c.yaml"
        config.write_text(CONFIG % tmp)
        as_planned(tmp, config)
        for reduce in "fast", "exact":
            with_peers(tmp, config, reduce)
        refusals(tmp, config)
    print("all good")


main()
