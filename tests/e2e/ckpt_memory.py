#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A restart within a job reads the checkpoint from the node's memory, ends in the same weights, and leaves nothing
behind."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import box_folders  # noqa: E402
from orrery_run import check, folder, orrery  # noqa: E402


def train(tmp, name, *more):
    run = tmp / name
    done = orrery("run", "configs/tiny.yaml", "-n", 2, f"run.dir={run}", f"data.train={tmp}/data", f"data.eval={tmp}/data",
                  "train.steps=40", "checkpoint.every=10", *more)
    check(not box_folders(str(run)), f"{name}: nothing stays in /dev/shm")
    logs = "".join(p.read_text(errors="replace") for p in sorted((run / "logs").rglob("*.log"))) + done.stderr
    return orrery("ckpt", "digest", run).stdout.strip(), logs


def main():
    with folder() as tmp:
        orrery("simulate", "table", "--out", tmp / "data", "--episodes", 8)
        plain, logs = train(tmp, "plain", "checkpoint.memory=off")
        check("node's memory" not in logs, "no copy where none is asked for")
        killed, logs = train(tmp, "killed", "checkpoint.memory=on", "fault.inject=kill:rank=1,step=35")
        check("2 of its files are read from this node's memory" in logs, "the restart read both files from memory")
        check(killed == plain, "the same weights")


if __name__ == "__main__":
    main()
