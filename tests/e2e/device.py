#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""device: cuda without a GPU, or without the plug-in: one line with the cure, exit 69, at once and once only."""
import os
import subprocess
import sys
import time

sys.path.insert(0, "tests/lib")
from orrery_run import BIN, SKIP, check, environment, folder, orrery  # noqa: E402

RANK = str(BIN / "orrery-rank")


def rank(*args, **env):
    return subprocess.run([RANK, *args], env=environment(**env), text=True, capture_output=True, timeout=120)


def one_line(done, what):
    lines = [l for l in done.stderr.splitlines() if l]
    check(done.returncode == 69 and len(lines) == 1, f"{what}: exit {done.returncode}, {lines}")
    check("device=cpu" in lines[0], "the line has a cure")


def main():
    if os.path.exists("/dev/nvidiactl"):
        print("skipped: this machine has a GPU")
        sys.exit(SKIP)
    with folder() as tmp:
        config = tmp / "c.yaml"
        config.write_text(f"run: {{dir: {tmp}/run}}\n")
        one_line(rank("--config", str(config), "--device", "cuda"), "no GPU")
        one_line(rank("--config", str(config), "--device", "cuda", ORRERY_CUDA_PLUGIN=tmp / "none.so"), "no plug-in")
        (tmp / "text.so").write_text("not a library")
        one_line(rank("--config", str(config), "--device", "cuda", ORRERY_CUDA_PLUGIN=tmp / "text.so"), "no library")
        begun = time.monotonic()
        for ranks in (1, 2):
            done = orrery("run", config, "-n", ranks, "device=cuda", check=False)
            check(done.returncode == 69, f"run with {ranks} ranks: exit {done.returncode}")
            check("restarting" not in done.stderr and "next attempt" not in done.stderr, "no second attempt")
            check("device=cpu" in done.stderr, "the verdict has the cure")
        print(f"two runs took {time.monotonic() - begun:.1f} s")
    print("all good")


main()
