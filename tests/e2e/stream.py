#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Data and checkpoints on a real Ceph radosgw: the same digest as from files."""
import json
import os
import pathlib
import shlex
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import ROOT, check, environment, folder, orrery, skip  # noqa: E402

STEPS = 50


def server(tmp):
    """Starts radosgw in tmp/rgw; the environment that its users need. Skips where it is not installed."""
    up = subprocess.run([ROOT / "tests/testbed/radosgw", "up", tmp / "rgw"], text=True, capture_output=True)
    if up.returncode == 77:
        skip(up.stderr.strip() or up.stdout.strip())
    check(up.returncode == 0, "radosgw is up" + up.stderr[-2000:] * (up.returncode != 0))
    subprocess.run([ROOT / "tests/testbed/radosgw", "bucket", tmp / "rgw", "orrery-test"], check=True)
    lines = (tmp / "rgw/env").read_text().splitlines()
    return {name: shlex.split(value)[0] for name, value in
            (line.removeprefix("export ").split("=", 1) for line in lines if "=" in line) if value}


def train(run, data, checkpoints, extra, env):
    orrery("run", "configs/tiny.yaml", "-n", 2, f"run.dir={run}", f"data.train={data}", f"data.eval={data}",
           f"train.steps={STEPS}", "eval.sequences=4", "eval.samples=1", "rollout.sequences=1", "rollout.frames=2",
           f"checkpoint.url={checkpoints}", *extra, env=env)
    out = orrery("ckpt", "digest", run, "--json", env=env)
    found = json.loads(out.stdout)
    return found["digest"], found["sample_sha256"], found["step"]


def main():
    with folder() as tmp:
        env = environment(**server(tmp))
        try:
            local = f"file://{tmp}/data"
            remote = "s3://orrery-test/data"
            extra = []
            for url in (local, remote):
                orrery("simulate", "table", "--out", url, "--episodes", 8, "--frames", 40, env=env)
            want = train(tmp / "local", local, "", extra, env)
            got = train(tmp / "remote", remote, "s3://orrery-test/ckpt", extra, env)
            check(got == want, f"from S3 {got[0][:16]} equals from files {want[0][:16]} at step {got[2]}")
        finally:
            subprocess.run([ROOT / "tests/testbed/radosgw", "down", tmp / "rgw"], check=False)


if os.geteuid() != 0:
    skip("Ceph's daemons want root")
main()
