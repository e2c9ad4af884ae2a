#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How many instructions a kernel takes for each byte of device memory, counted: a training step runs on the emulator as
PTX, and every instruction that a thread runs and every byte that it loads or stores is counted. A kernel that is to be
bound by memory must stay well below what the GPU can issue while a byte arrives. Counts, not times; ptxas makes of some
instructions (divisions, roots) more.

usage: tests/ptx/budget.py BUILD [key.path=value ...]"""
import collections
import os
import subprocess
import sys
import tempfile

# 4.8 TB/s over 132 multiprocessors at 1.98 GHz, each issuing four warps' instructions a clock (H200, datasheet).
ISSUED_PER_BYTE = 4 * 32 * 132 * 1.98e9 / 4.8e12
MODEL = ["train.steps=1", "train.batch=1", "comm.shards=1", "data.frames=2", "model.width=512", "model.layers=1", "model.head_dim=128",
         "optim.kind=adamw", "video.height=64", "video.width=64", "video.channels=3", "video.patch=8", "video.margin=8"]


def counted(folder):
    kernels, instructions = {}, collections.Counter()
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), encoding="utf-8") as f:
            for line in f:
                word = line.rstrip("\n").split("\t")
                if len(word) == 4:
                    kernels[word[0]] = [int(n) for n in word[1:]]
                else:
                    instructions[word[0]] += int(word[4])
    return [(name, *numbers, instructions[name]) for name, numbers in kernels.items() if numbers[0] > 0]


def short(name):
    return name.split("(anonymous namespace)::")[-1].removeprefix("void ").split("(")[0].replace("__nv_bfloat16", "bf16")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    build, words = os.path.abspath(sys.argv[1]), sys.argv[2:]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "ran"))
        environment = dict(os.environ, ORRERY_PTX=f"{build}/tests/ptx", ORRERY_PTX_RAN=f"{folder}/ran", ORRERY_SIMT_COMPUTE="90",
                           ORRERY_CUDA_PLUGIN=f"{build}/tests/liborrery_simt.so")
        subprocess.run([f"{build}/bin/orrery-rank", "--config", f"{root}/configs/demo.yaml", "--task", "step-bench", "device=cuda",
                        f"run.dir={folder}/run", *MODEL, *words], check=True, env=environment, stdout=subprocess.DEVNULL)
        rows = counted(os.path.join(folder, "ran"))
    print(f"An H200 issues {ISSUED_PER_BYTE:.1f} instructions of a thread while a byte arrives.")
    print(f"{'kernel':<44}{'launches':>9}{'KiB':>9}{'instructions':>14}{'per byte':>9}")
    for name, launches, read, written, ran in sorted(rows, key=lambda r: -(r[2] + r[3])):
        print(f"{short(name):<44}{launches:>9}{(read + written) / 1024:>9.0f}{ran:>14}{ran / (read + written):>9.2f}")


if __name__ == "__main__":
    main()
