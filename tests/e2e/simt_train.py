#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training steps of the real orrery-rank with device=cuda on the emulated GPU: the same bits twice and on two ranks
that share it, with recorded steps and without, losses beside the CPU's; gradients that no rank holds whole; random rounding of the weights' copy, on two ranks
and after a kill too; two ranks on one GPU only when asked; a GPU that is too old; bench."""
import json
import os
import subprocess
import sys

sys.path.insert(0, "tests/lib")
from orrery_run import BIN, ORRERY, check, digest, environment, folder  # noqa: E402

RANK = str(BIN / "orrery-rank")
PLUGIN = str(BIN.parent / "tests" / "liborrery_simt.so")
CONFIG = """
run: {dir: %s/run}
data: {frames: 2}
model: {width: 32, layers: 1, head_dim: 32, hidden: 32, cond_width: 8}
video: {height: 8, width: 8, channels: 1, patch: 4, margin: 2}
train: {steps: 1, batch: 2}
comm: {shards: 2}
"""


def rank(*args, ranks=1, check_exit=True, **env):
    command = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    done = subprocess.run([*command, RANK, *map(str, args)], env=environment(ORRERY_CUDA_PLUGIN=PLUGIN, **env),
                          text=True, capture_output=True, timeout=600)
    if check_exit and done.returncode:
        print(done.stdout, done.stderr)
        raise SystemExit(1)
    return done


def steps(config, *args, **kw):
    return json.loads(rank("--config", config, "--task", "step-bench", *args, **kw).stdout)


def random_rounding(tmp, config):
    """The bits belong to seed, step and parameter: two ranks and a run that was killed and went on give the same."""
    three = ["device=cuda", "train.steps=3", "optim.stochastic_rounding=true"]
    one = steps(config, *three)
    check(steps(config, *three, "cuda.share=true", ranks=2)["weights_sha256"] == one["weights_sha256"], "random rounding: two ranks, the same bits")
    check(steps(config, *three[:2])["weights_sha256"] != one["weights_sha256"], "random rounding changes them")
    check(steps(config, *three, "run.seed=8")["weights_sha256"] != one["weights_sha256"], "so does the seed")
    subprocess.run([ORRERY, "simulate", "table", "--out", str(tmp / "data"), "--episodes", "2", "--frames", "8"],
                   env=environment(), check=True, capture_output=True)
    words = [f"data.train={tmp}/data", "data.eval=", *three[::2], "train.steps=3", "train.warmup=1", "checkpoint.every=1",
             "video.height=32", "video.width=32", "video.channels=2", "video.patch=16"]
    seen = [f"data.eval={tmp}/data", "eval.context=1", "eval.horizon=1", "eval.samples=1", "eval.sequences=2"]
    whole = rank("--config", config, *words, *seen, f"run.dir={tmp}/whole")
    check("evaluated 2 sequences" in whole.stderr, "evaluates on the GPU")
    killed = rank("--config", config, *words, f"run.dir={tmp}/killed", "fault.inject=kill:step=2", check_exit=False)
    check(killed.returncode == -9, f"killed in step 2 ({killed.returncode})")
    again = rank("--config", config, *words, f"run.dir={tmp}/killed")
    check("resuming from step" in again.stderr, "goes on")
    check(digest(tmp / "killed") == digest(tmp / "whole"), "random rounding: after a resume, the same bits")


def share_gradients(config):
    """Gradients leave in the midst of a backward, which the host tells MPI: shards are not recorded then, all else is."""
    for reduce in "fast", "exact":
        words = ["device=cuda", "cuda.share=true", "train.steps=3", f"comm.reduce={reduce}", "comm.bucket_mb=0.001"]
        want = steps(config, *words, ranks=2)
        for graph in "off", "on":
            got = steps(config, *words, "comm.zero=2", f"cuda.graph={graph}", ranks=2)
            check(got["weights_sha256"] == want["weights_sha256"], f"{reduce}, comm.zero=2, cuda.graph={graph}: the bits of comm.zero=1")


def ranges(config, graph):
    text = rank("--config", config, "--task", "step-bench", "device=cuda", f"cuda.graph={graph}", ORRERY_SIMT_RANGES="1").stderr
    return [line[6:] for line in text.splitlines() if line.startswith("range ")]


def check_ranges(config):
    parts = ["noise", "forward", "  layer 0", "backward", "  layer 0"]
    step = ["gather"] + parts * 2 + ["reduce", "update"]  # two shards
    check(ranges(config, "off") == step * 6, "a profiler sees each step's parts, and the layers in them")
    recorded = ["recorded step", *("  " + part for part in step)]
    want = step * 2 + recorded + ["recorded step"] * 3
    check(ranges(config, "on") == want, "two steps as they are, one recorded, three launched")


def main():
    if not os.path.exists(PLUGIN):
        print("skipped: the emulated GPU is not built")
        sys.exit(77)
    with folder() as tmp:
        config = tmp / "c.yaml"
        config.write_text(CONFIG % tmp)
        cpu = steps(config, "device=cpu")
        bf16 = steps(config, "device=cuda")
        check(steps(config, "device=cuda")["weights_sha256"] == bf16["weights_sha256"], "bf16: two runs, the same bits")
        two = steps(config, "device=cuda", "cuda.share=true", ranks=2)
        check(two["weights_sha256"] == bf16["weights_sha256"], "two ranks over MPI and staged memory: the same bits")
        for n in 1, 2:
            plain = steps(config, "device=cuda", "cuda.share=true", "cuda.graph=off", ranks=n)
            check(plain["weights_sha256"] == bf16["weights_sha256"], f"{n} ranks, nothing recorded: the same bits")
        refused = rank("--config", config, "--task", "step-bench", "device=cpu", "cuda.graph=on", check_exit=False)
        check(refused.returncode == 78 and "cuda.graph" in refused.stderr, "a CPU records nothing")
        check_ranges(config)
        fp32 = steps(config, "device=cuda", "cuda.precision=fp32")
        check(abs(fp32["loss"] - cpu["loss"]) <= 1e-4 * cpu["loss"], f"fp32 {fp32['loss']} beside the CPU's {cpu['loss']}")
        check(abs(bf16["loss"] - cpu["loss"]) <= 2e-2 * cpu["loss"], f"bf16 {bf16['loss']} beside the CPU's {cpu['loss']}")
        auto = steps(config, "device=auto")
        check(auto["weights_sha256"] == bf16["weights_sha256"], "auto takes the GPU")
        random_rounding(tmp, config)
        share_gradients(config)
        both = rank("--config", config, "--task", "step-bench", "device=cuda", "comm.backend=mpi", ranks=2,
                    check_exit=False)
        check(both.returncode == 78 and "cuda.share" in both.stderr, "two ranks on one GPU are refused")
        old = rank("--config", config, "--task", "step-bench", "device=cuda", check_exit=False, ORRERY_SIMT_COMPUTE="75")
        check(old.returncode == 69 and "too old" in old.stderr, "an old GPU is refused in one line")
        for what, ranks in (("comm", 2), ("step", 1), ("kernels", 3)):
            done = subprocess.run([ORRERY, "bench", what, str(config), "-n", str(ranks), "device=cpu"],
                                  env=environment(), text=True, capture_output=True, timeout=600)
            check(done.returncode == 0 and ("GB/s" in done.stdout or "TFLOP/s" in done.stdout), f"bench {what}")
    print("all good")


main()
