#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Uploads of a save that was killed: the next retention pass of its run ends them, and nobody else's; `orrery store rm
--uploads` ends what no run will. Needs S3_BUCKET and the AWS variables: run by e2e/s3.sh."""
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import check, orrery  # noqa: E402

PROGRAM = pathlib.Path(os.environ.get("ORRERY_BUILD", "build")) / "tests" / "ckpt_uploads"
URL = f"s3://{os.environ['S3_BUCKET']}/uploads/run"


def run(*args):
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True)
    check(done.returncode == 0, f"{args[0]}{done.stderr}")
    return done.stdout.split()


def uploads():
    return run("list", URL)


def killed_save(owner, step):
    """kill -9 while parts of an upload are at the server."""
    before = set(uploads())
    child = subprocess.Popen([PROGRAM, "save", f"fault:delay=400ms@100%:{URL}", str(owner), str(step)])
    while not set(uploads()) - before:
        check(child.poll() is None, "the save is under way")
        time.sleep(0.1)
    child.kill()
    child.wait()
    left = set(uploads()) - before
    check(len(left) == 1 and f"-{owner:08x}" in left.copy().pop(), f"a killed save leaves an upload: {left}")


def hold(key):
    child = subprocess.Popen([PROGRAM, "hold", URL, key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    check(child.stdout.readline() == "held\n", f"{key} is under way")
    return child


def main():
    # Another run's save, and something that is no checkpoint, beside ours while it is swept.
    others = [f"000000000002-{9:08x}{'ab' * 8}/rank-0.safetensors", "notes/recording.bin"]
    living = [hold(key) for key in others]
    killed_save(7, 1)
    killed_save(7, 2)
    run("save", URL, 7, 3)
    check(sorted(uploads()) == sorted(others), f"the next save ends its own run's uploads alone: {uploads()}")
    for child in living:
        check(child.communicate("go\n") and child.returncode == 0, "a living upload is completed")
    check(not uploads(), "no upload is left")
    listed = orrery("store", "ls", "-r", URL + "/").stdout
    check(all(key in listed for key in others), "what they uploaded is there")
    killed_save(8, 4)
    done = orrery("store", "rm", "--uploads", "--json", f"s3://{os.environ['S3_BUCKET']}/uploads/ru")
    check('"uploads_removed": 0' in done.stdout, "a part of a folder's name is no folder")
    done = orrery("store", "rm", "--uploads", "--json", URL)
    check('"uploads_removed": 1' in done.stdout and not uploads(), f"rm --uploads: {done.stdout.strip()}")
    orrery("store", "rm", "-r", URL)


if __name__ == "__main__":
    main()
