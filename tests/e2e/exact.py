#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same bits on 1, 2, 3 and 4 ranks, on 1 and 2 threads, and after kills of any process at random points.

Weights and optimiser state are compared by `orrery ckpt digest`, the order of samples by its SHA-256 in the
checkpoint. ORRERY_KILLS sets how many kills (default 10), ORRERY_SEED their points."""
import os
import pathlib
import random
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import check, descendants, digest, environment, folder, orrery, start  # noqa: E402

STEPS = 50
KILLS = int(os.environ.get("ORRERY_KILLS", "10"))


def settings(tmp, run, steps):
    return [f"run.dir={tmp}/{run}", f"data.train={tmp}/data", f"data.eval={tmp}/data", f"train.steps={steps}",
            "eval.sequences=4", "eval.samples=1", "rollout.sequences=1", "rollout.frames=2", "checkpoint.every=20"]


def train(tmp, run, ranks, threads=1, steps=STEPS):
    env = environment(OMP_NUM_THREADS=threads)
    orrery("run", "configs/tiny.yaml", "-n", ranks, *settings(tmp, run, steps), f"train.threads={threads}", env=env)
    return digest(f"{tmp}/{run}")


def ranks_and_threads(tmp):
    want = train(tmp, "n1", 1)
    check(want[2] == STEPS, f"one rank reached step {want[2]}")
    for ranks, threads in ((2, 1), (3, 1), (4, 1), (1, 2), (2, 2)):
        got = train(tmp, f"n{ranks}t{threads}", ranks, threads)
        check(got == want, f"{ranks} ranks, {threads} threads: {got[0][:16]} equals {want[0][:16]}")


def pick(rng, supervisor):
    """A process of the run: rank, guard, mpirun or the supervisor itself."""
    tree = descendants(supervisor)
    kinds = {"rank": [p for p, c in tree if "orrery-rank" in c.split(" ")[0]],
             "guard": [p for p, c in tree if " guard" in c and "orrery-rank" not in c.split(" ")[0] and "mpirun" not in c.split(" ")[0]],
             "mpirun": [p for p, c in tree if "mpirun" in c.split(" ")[0]],
             "supervisor": [supervisor]}
    kind = rng.choice([k for k, pids in kinds.items() if pids])
    return kind, rng.choice(kinds[kind])


def wait_gone(pids, seconds=20):
    end = time.monotonic() + seconds
    alive = lambda p: os.path.exists(f"/proc/{p}") and open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    while time.monotonic() < end:
        try:
            if not any(alive(p) for p in pids):
                return True
        except OSError:
            pass
        time.sleep(0.05)
    return False


def saved_step(run):
    """The newest step that a manifest was written for; 0 before the first."""
    return max((int(m.stem.split("-")[1]) for m in (run / "ckpt").glob("manifest-*.json")), default=0)


def wait_to_kill(rng, child, run, target):
    """Every other kill hits start-up or the steps just after it; the rest wait for the run to have come to `target`."""
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, 0.6))
        return
    while child.poll() is None and saved_step(run) < target:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.05))


def storm(rng, child, run, family, targets):
    """Kills processes of a running supervisor's family until it ends or all targets were hit; takes those off."""
    while targets and child.poll() is None:
        wait_to_kill(rng, child, run, targets[0])
        family |= {p for p, _ in descendants(child.pid)}
        if child.poll() is not None:
            break
        kind, pid = pick(rng, child.pid)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        print(f"kill: {kind}, saved {saved_step(run)} of the {targets.pop(0)} it was to come to", flush=True)


def kills(tmp):
    steps = 160 * KILLS
    want = train(tmp, "calm", 2, steps=steps)
    seed = int(os.environ.get("ORRERY_SEED", time.time_ns() % 1000000))
    print("seed", seed)
    rng, code, run = random.Random(seed), None, tmp / "stormy"
    targets = [80 * k for k in range(KILLS)]
    while code != 0:
        ranks = rng.choice([1, 2, 3, 4])
        print(f"start on {ranks} ranks", flush=True)
        cut = f"comm.bucket_mb={rng.choice([0, 0.001, 0.02])}"  # of no account for the bits
        child = start("run", "configs/tiny.yaml", "-n", ranks, *settings(tmp, run.name, steps), "launch.attempts=100", cut)
        family = set()
        storm(rng, child, run, family, targets)
        code = child.wait(timeout=300)
        check(wait_gone(family), "no process outlives its run")
        if code not in (0, -signal.SIGKILL):
            child.output.seek(0)
            print(child.output.read()[-8000:])
        check(code in (0, -signal.SIGKILL), f"exit code {code}: done, or the supervisor was killed")
    got = digest(f"{tmp}/stormy")
    check(not targets, f"all {KILLS} kills hit before the run was over")
    check(got == want, f"after {KILLS} kills: {got[0][:16]} equals {want[0][:16]}; samples {got[1][:16]}")


def main():
    with folder() as tmp:
        orrery("simulate", "table", "--out", f"{tmp}/data", "--episodes", 8, "--frames", 40)
        if sys.argv[1] == "ranks":
            ranks_and_threads(tmp)
        else:
            kills(tmp)


main()
