#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Data and checkpoints on a real Ceph radosgw: the same digest as from files; so too behind faults at 5 % each, and when
the server is killed in mid-run and comes back after a while (3 s; ORRERY_FAULT_FULL=1: 60 s). ORRERY_STREAM_STEPS=6000: the demo's own config and data, without the faults."""
import os
import pathlib
import shlex
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import ROOT, check, digest, environment, folder, orrery, skip, start  # noqa: E402

DEMO_STEPS = int(os.environ.get("ORRERY_STREAM_STEPS", "0"))
STEPS = DEMO_STEPS or 50
OUTAGE_S = 60 if os.environ.get("ORRERY_FAULT_FULL") else 3
WEATHER = "store=503:5%;store=reset:5%;store=lost:5%;store=flip:5%;store=short:5%;store=delay:20ms@5%"


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


def simulate(url, env):
    size = ["--episodes", 1500] if DEMO_STEPS else ["--episodes", 8, "--frames", 40]
    orrery("simulate", "table", "--out", url, *size, env=env)


def arguments(run, data, checkpoints, extra):
    config = ["configs/demo.yaml"] if DEMO_STEPS else [
        "configs/tiny.yaml", "checkpoint.every=10", "eval.sequences=4", "eval.samples=1", "rollout.sequences=1",
        "rollout.frames=2"]
    return ["run", *config, "-n", 2, f"run.dir={run}", f"data.train={data}", f"data.eval={data}",
            f"train.steps={STEPS}", f"checkpoint.url={checkpoints}", *extra]


def train(run, data, checkpoints, extra, env):
    orrery(*arguments(run, data, checkpoints, extra), env=env, timeout=3600)
    return digest(run, env)


def steps_done(run):
    metrics = run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def train_through_outage(tmp, data, env):
    """The server dies once training has begun, and lives again OUTAGE_S later."""
    run = tmp / "outage"
    child = start(*map(str, arguments(run, data, "s3://orrery-test/outage", ["fault.inject=slow=60ms", "train.log_every=1"])),
                  env=env)
    until = time.monotonic() + 120
    while steps_done(run) < 5 and child.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    check(child.poll() is None, "the server is killed while the run is at work")
    subprocess.run([ROOT / "tests/testbed/radosgw", "crash", tmp / "rgw"], check=True)
    time.sleep(OUTAGE_S)
    waited = child.poll() is None
    subprocess.run([ROOT / "tests/testbed/radosgw", "revive", tmp / "rgw"], check=True)
    code = child.wait(timeout=300)
    child.output.seek(0)
    check(waited and code == 0, f"a run survives an outage of {OUTAGE_S} s" + (child.output.read()[-3000:] if code else ""))
    attempts = len(list((run / "logs").glob("attempt-*")))
    check(attempts == 1, f"in one attempt, not {attempts}")
    return digest(run, env)


def main():
    with folder() as tmp:
        env = environment(**server(tmp))
        try:
            local = f"file://{tmp}/data"
            remote = "s3://orrery-test/data"
            extra = []
            for url in (local, remote):
                simulate(url, env)
            want = train(tmp / "local", local, "", extra, env)
            got = train(tmp / "remote", remote, "s3://orrery-test/ckpt", extra, env)
            check(got == want, f"from S3 {got[0][:16]} equals from files {want[0][:16]} at step {got[2]}")
            if DEMO_STEPS:
                return
            got = train(tmp / "weather", remote, "s3://orrery-test/weather", [f"fault.inject={WEATHER}"], env)
            check(got == want, "so does a run behind faults")
            check(train_through_outage(tmp, remote, env) == want, "so does a run through an outage")
        finally:
            subprocess.run([ROOT / "tests/testbed/radosgw", "down", tmp / "rgw"], check=False)


if os.geteuid() != 0:
    skip("Ceph's daemons want root")
main()
