#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A whole run with device=cuda on the emulated GPU, as a person starts it: training with grouped queries, checkpoints,
evaluation and pictures; two ranks on one GPU, one of them killed, with the same bits; then the same weights evaluated on
the CPU, and the run gone on with there."""
import json
import os
import sys

sys.path.insert(0, "tests/lib")
from orrery_run import BIN, check, environment, folder, orrery, skip  # noqa: E402

PLUGIN = BIN.parent / "tests" / "liborrery_simt.so"
CONFIG = """
run: {dir: %s/run}
data: {train: %s/data, eval: %s/data, frames: 4}
model: {width: 64, layers: 1, head_dim: 32, kv_heads: 1, hidden: 32, cond_width: 8}
video: {patch: 16, margin: 2}
train: {steps: 2, batch: 2, warmup: 1}
comm: {shards: 2}
checkpoint: {every: 1}
eval: {sequences: 2, context: 2, horizon: 2, samples: 2}
rollout: {sequences: 1, frames: 4}
"""


def scores(run):
    rows = {row["name"]: row["metrics"] for row in json.loads((run / "eval.json").read_text())["rows"]}
    return {(name, metric): rows[name][metric]["value"] for name in rows for metric in ("psnr", "ssim")}


def main():
    if not os.path.exists(PLUGIN):
        skip("the emulated GPU is not built")
    env = environment(ORRERY_CUDA_PLUGIN=PLUGIN)
    with folder() as tmp:
        run, config = tmp / "run", tmp / "c.yaml"
        config.write_text(CONFIG % (tmp, tmp, tmp))
        orrery("simulate", "table", "--out", tmp / "data", "--episodes", 4, "sim.frames=12")
        done = orrery("run", config, "-n", 1, "device=cuda", env=env)
        check("step 2/2" in done.stderr, "two steps, saved, evaluated")
        check((run / "rollouts" / "rollout.gif").stat().st_size > 0, "pictures are drawn")
        there = scores(run)
        two = tmp / "two"
        done = orrery("run", config, "-n", 2, "--one-gpu", "device=cuda", f"run.dir={two}",
                      "fault.inject=kill:rank=1,step=2", env=env)
        check("killed by signal 9" in done.stderr and "restarting" in done.stderr, "a rank is killed, the run goes on")
        digests = [orrery("ckpt", "digest", r).stdout for r in (run, two)]
        check(digests[0] == digests[1], "two ranks on one GPU, one killed on the way: the same bits")
        orrery("eval", run, "-n", 1, "device=cpu")
        here = scores(run)
        check(len(there) >= 10 and there.keys() == here.keys(), f"{len(there)} scores on both devices")
        worst = max(abs(there[k] - here[k]) / max(1, abs(here[k])) for k in here)
        check(worst <= 0.02, f"bf16 beside the CPU's fp32: scores differ by {worst:.2g} at most")
        check("step 3/3" in orrery("run", config, "-n", 1, "device=cpu", "train.steps=3").stderr, "goes on on the CPU")


main()
