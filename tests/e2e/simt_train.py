#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training steps of the real orrery-rank with device=cuda on the emulated GPU: the same bits twice and on two ranks
that share it, with recorded steps and without, losses beside the CPU's; two ranks on one GPU only when asked; a GPU that is too old; bench."""
import json
import os
import subprocess
import sys

sys.path.insert(0, "tests/lib")
from orrery_run import BIN, ORRERY, check, environment, folder  # noqa: E402

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


def ranges(config, graph):
    text = rank("--config", config, "--task", "step-bench", "device=cuda", f"cuda.graph={graph}", ORRERY_SIMT_RANGES="1").stderr
    return [line[6:] for line in text.splitlines() if line.startswith("range ")]


def check_ranges(config):
    parts = ["noise", "forward", "  layer 0", "backward", "  layer 0"]
    step = parts * 2 + ["reduce", "update", "gather"]  # two shards
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
        both = rank("--config", config, "--task", "step-bench", "device=cuda", "comm.backend=mpi", ranks=2,
                    check_exit=False)
        check(both.returncode == 78 and "cuda.share" in both.stderr, "two ranks on one GPU are refused")
        old = rank("--config", config, "--task", "step-bench", "device=cuda", check_exit=False, ORRERY_SIMT_COMPUTE="75")
        check(old.returncode == 69 and "too old" in old.stderr, "an old GPU is refused in one line")
        for what, ranks in (("comm", 2), ("step", 1)):
            done = subprocess.run([ORRERY, "bench", what, str(config), "-n", str(ranks), "device=cpu"],
                                  env=environment(), text=True, capture_output=True, timeout=600)
            check(done.returncode == 0 and ("GB/s" in done.stdout or "TFLOP/s" in done.stdout), f"bench {what}")
    print("all good")


main()
