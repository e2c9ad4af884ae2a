#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A random rank of a running job is killed by a random signal: does the verdict name it, and how soon after the kill?

ORRERY_CRASHES: kills (default 8); ORRERY_SEED."""
import os
import pathlib
import random
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import alive, config, events, fake_environment, family, output, settings, wait_dead, wait_for  # noqa: E402
from orrery_run import check, descendants, folder, start  # noqa: E402

CRASHES = int(os.environ.get("ORRERY_CRASHES", "8"))
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE)


def one(tmp, rng, run):
    """(right, seconds to the verdict, seconds until everybody is gone, what it said)"""
    ranks = rng.choice([2, 3, 4])
    child = start("run", config(tmp), "-n", ranks, *settings(tmp, steps=1000000, run__dir=f"{tmp}/{run}", launch__attempts=1),
                  env=fake_environment(FAKE_STEP_MS=rng.choice([1, 5, 20])))
    tree = wait_for(lambda: (lambda f: f if len(f["rank"]) == ranks else None)(family(child.pid)), 60)
    check(tree is not None, f"{ranks} ranks came up")
    time.sleep(rng.uniform(0.2, 0.8))
    tree, number = family(child.pid), rng.choice(SIGNALS)
    others = [p for p, _ in descendants(child.pid)]
    victim = rng.choice(tree["rank"])
    begin = time.monotonic()
    os.kill(victim, number)
    said = wait_for(lambda: "cause: " in output(child), 20, 0.002)
    took = time.monotonic() - begin
    gone = wait_dead(others, 20)
    total = time.monotonic() - begin
    child.wait(30)
    text = output(child)
    child.output.close()
    verdict = events(f"{tmp}/{run}", "verdict")[-1]
    right = bool(said) and verdict["pid"] == victim and verdict["signal"] == number and verdict["kind"] == "crash"
    check(gone is not None, f"nobody is left {alive(others)}")
    return right, took, total, text.split("cause: ")[-1].splitlines()[0]


def main():
    seed = int(os.environ.get("ORRERY_SEED", time.time_ns() % 1000000))
    print("seed", seed)
    rng, right, times, ends = random.Random(seed), 0, [], []
    with folder() as tmp:
        for i in range(CRASHES):
            ok, took, total, text = one(tmp, rng, f"run-{i}")
            right += ok
            times.append(took)
            ends.append(total)
            if not ok:
                print("WRONG", text, flush=True)
    times.sort()
    ends.sort()
    middle = len(times) // 2
    print(f"crashes: {right} of {CRASHES} right; verdict after {1e3 * times[middle]:.0f} ms (median), {1e3 * times[-1]:.0f} ms (worst); "
          f"all gone after {1e3 * ends[middle]:.0f} ms (median), {1e3 * ends[-1]:.0f} ms (worst)")
    check(right == CRASHES, "every verdict names the rank that was killed")


main()
