#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How many threads a rank takes: a person's word, else its share of the cores that it may use."""
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, "tests/lib")
from orrery_run import BIN, ROOT, check, environment  # noqa: E402

WORDS = [str(BIN / "orrery-rank"), "--config", "configs/tiny.yaml", "--task", "step-bench", "device=cpu", "train.steps=2"]


def threads(*more, before=(), **env):
    """Of rank 0, without what the surroundings say."""
    clean = {k: v for k, v in environment().items() if k not in ("OMP_NUM_THREADS", "ORRERY_ATTEMPT")}
    done = subprocess.run([*before, *WORDS, *more], cwd=ROOT, env=clean | env, text=True, capture_output=True, timeout=120)
    check(done.returncode == 0, f"{' '.join(before)} exit {done.returncode} {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)["threads"]


def main():
    cores = sorted(os.sched_getaffinity(0))
    one = ["taskset", "-c", str(cores[0])]
    check(1 <= threads() <= len(cores), "no more than there are cores")
    check(threads(before=one) == 1, "one thread on one core")
    check(threads("train.threads=3", before=one) == 3, "train.threads counts as it stands")
    check(threads(before=one, OMP_NUM_THREADS="3") == 3, "so does a person's OMP_NUM_THREADS")
    check(threads(before=one, OMP_NUM_THREADS="3", ORRERY_ATTEMPT="1") == 1, "the launcher's share is no more than the rank is bound to")
    check(threads("train.threads=3", before=one, OMP_NUM_THREADS="3", ORRERY_ATTEMPT="1") == 3, "unless a person wants it")
    if shutil.which("mpirun"):
        for bind in ("none", "core"):
            start = ["mpirun", "--oversubscribe", "--bind-to", bind, "-n", "2"]
            seen = threads(before=start)
            check(1 <= seen <= max(1, len(cores) // 2), f"two ranks bound to {bind}: {seen} threads each")
    print("all good")


main()
