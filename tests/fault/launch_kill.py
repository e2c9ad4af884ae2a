#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kills rank, guard, mpirun and supervisor at random moments: no process is left, nothing stays in /dev/shm, the
supervisor (where it lives) ends with a verdict, and the same command goes on. ORRERY_KILLS: rounds per target.
With TARGET SEED: that one kill (kill_campaign.py makes a thousand)."""
import os
import pathlib
import random
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import (alive, box_folders, config, fake_environment, family, output, settings, wait_dead,  # noqa: E402
                      wait_for, wait_step)
from orrery_run import check, descendants, folder, orrery, start  # noqa: E402

ROUNDS = int(os.environ.get("ORRERY_KILLS", "3"))
TARGETS = ("rank", "guard", "mpirun", "supervisor")


def strays(run):
    """Living processes that were started for this run, wherever they hang now."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"ORRERY_RUN_DIR={run}\0".encode() in (entry / "environ").read_bytes() + b"\0":
                found.append(int(entry.name))
        except OSError:
            continue
    return alive(found)


def children(pid):
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def one(tmp, rng, target):
    """The time until the last process was gone."""
    run = f"{os.path.realpath(tmp)}/run"
    ranks = rng.choice([2, 3, 4])
    env = fake_environment(FAKE_STEP_MS=5, FAKE_CHILD=1)
    words = ["run", config(tmp), "-n", ranks, *settings(tmp, steps=100000, launch__attempts=1)]
    child = start(*words, env=env)
    tree = wait_for(lambda: (lambda f: f if len(f["rank"]) == ranks else None)(family(child.pid)), 60)
    check(tree is not None, f"{ranks} ranks came up")
    time.sleep(rng.uniform(0, 0.3))
    tree = family(child.pid)
    everybody = sorted({p for pids in tree.values() for p in pids} | {p for p, _ in descendants(child.pid)})
    # A rank's child is called as the rank is until it becomes another program.
    ranks_alone = {p for guard in tree["guard"] for p in children(guard)}
    victim = rng.choice([p for p in tree[target] if target != "rank" or p in ranks_alone])
    os.kill(victim, signal.SIGKILL)
    others = [p for p in everybody if p != child.pid]
    begin = time.monotonic()
    # Those that had been seen, then those that came in the meantime.
    gone = wait_dead(others, 10) is not None and wait_for(lambda: not strays(run), 10)
    took = time.monotonic() - begin
    left = sorted(set(alive(others)) | set(strays(run)))
    check(gone and not left, f"{target} {victim} killed: {len(others)} processes gone after {took:.3f} s; survivors: {left}")
    child.wait(20)
    check(wait_for(lambda: not box_folders(run), 5), "nothing of it in /dev/shm")
    if target == "supervisor":
        check(child.returncode == -signal.SIGKILL, "the supervisor was killed")
    else:
        text = output(child)
        check(child.returncode not in (0, 75), f"exit code {child.returncode}")
        check("cause: " in text, "there is a verdict")
        want = {"rank": "signal 9 (SIGKILL)", "guard": "vanished", "mpirun": "mpirun was killed by signal 9"}[target]
        check(want in text.split("cause: ")[1], f"the cause is right: {text.split('cause: ')[1].splitlines()[0]}")
        if target != "mpirun":
            check(f"pid {victim}" in text or f"(pid {victim})" in text, "the verdict names the pid")
    child.output.close()
    return took


def goes_on(tmp):
    done = orrery("run", config(tmp), "-n", 2, *settings(tmp, steps=20), env=fake_environment(), check=False)
    check(done.returncode == 0, "the same folder can be used again at once")


def killed_supervisor_frees_the_lock(tmp):
    """A new run right behind a kill -9 waits for the keeper instead of failing."""
    child = start("run", config(tmp), "-n", 2, *settings(tmp, steps=100000), env=fake_environment())
    check(wait_step(f"{tmp}/run", 5), "it runs")
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    goes_on(tmp)
    boxes = list(pathlib.Path(f"{tmp}/run/blackbox").glob("rank-*.box"))
    check(len(boxes) == 2, "black boxes are saved")


def buried_guard(tmp):
    """A guard that cannot act any more is buried: what its rank had started goes too."""
    run = f"{os.path.realpath(tmp)}/run"
    child = start("run", config(tmp), "-n", 2, *settings(tmp, steps=100000, launch__attempts=1), env=fake_environment(FAKE_CHILD=1))
    check(wait_step(run, 5), "it runs")
    tree = family(child.pid)
    os.kill(tree["guard"][0], signal.SIGSTOP)
    os.kill(tree["mpirun"][0], signal.SIGKILL)
    child.wait(20)
    check(wait_for(lambda: not strays(run), 2), f"a stopped guard: nothing is left {strays(run)}")


def only(target, seed):
    """One kill for the campaign; the last line is its time."""
    with folder() as tmp:
        print(one(tmp, random.Random(seed), target))


def main():
    if len(sys.argv) == 3:
        return only(sys.argv[1], sys.argv[2])
    seed = int(os.environ.get("ORRERY_SEED", time.time_ns() % 1000000))
    print("seed", seed)
    rng = random.Random(seed)
    times = []
    for round_number in range(ROUNDS):
        for target in TARGETS:
            with folder() as tmp:
                times.append(one(tmp, rng, target))
    for test in (killed_supervisor_frees_the_lock, buried_guard):
        with folder() as tmp:
            test(tmp)
    times.sort()
    print(f"{len(times)} kills; all gone after {times[len(times) // 2]:.3f} s (median), {times[-1]:.3f} s (worst)")


main()
