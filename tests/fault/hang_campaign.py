#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hangs of the real rank, injected at random: is the right rank named, and how soon? And no alarm in runs without one.

ORRERY_HANGS: injections (default 6); ORRERY_HANG_S: launch.hang_s (default 3; the campaign takes the product's 8);
ORRERY_SEED; ORRERY_QUIET_S: seconds of runs without a fault, with slow saves, evaluations and steps (default 6)."""
import concurrent.futures
import os
import pathlib
import random
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import events  # noqa: E402
from orrery_run import check, environment, folder, orrery  # noqa: E402

HANGS = int(os.environ.get("ORRERY_HANGS", "6"))
HANG_S = int(os.environ.get("ORRERY_HANG_S", "3"))
QUIET_S = float(os.environ.get("ORRERY_QUIET_S", "6"))
KINDS = ("spin", "stop", "skip-collective", "mismatch")
PHASES = ("data", "forward", "backward", "collective", "optimiser")
RANKS = 3


def words(tmp, name, *more):
    return ["run", "configs/tiny.yaml", "-n", RANKS, f"run.dir={tmp}/{name}", f"data.train={tmp}/data", "data.eval=",
            "train.threads=1", "launch.attempts=1", f"launch.hang_s={HANG_S}", *more]



def one(tmp, number, kind, phase, rank, step):
    fault = f"{kind}:rank={rank},step={step},phase={phase}"
    done = orrery(*words(tmp, f"run-{number}", "train.steps=100000", "checkpoint.every=0", "comm.bucket_mb=0.001", f"fault.inject={fault}"), check=False,
                  timeout=400, env=environment(OMP_NUM_THREADS=1))
    verdicts = events(f"{tmp}/run-{number}", "verdict")
    if not verdicts:
        return fault, False, 0.0, f"no verdict: {done.stderr[-300:]}"
    v = verdicts[-1]
    silent = re.search(r"for ([0-9.]+) s", v["cause"])
    took = float(silent.group(1)) if silent and v["kind"] == "hang" else 0.0
    right = v["rank"] == rank and v["kind"] in ("hang", "discord")
    return fault, right, took, f"{v['kind']}: {v['cause']}"


def campaign(tmp):
    seed = int(os.environ.get("ORRERY_SEED", time.time_ns() % 1000000))
    print("seed", seed)
    rng = random.Random(seed)
    plan = [(tmp, i, KINDS[i % len(KINDS)], PHASES[i // len(KINDS) % len(PHASES)], rng.randrange(RANKS), rng.randrange(30, 60))
            for i in range(HANGS)]
    right, times = 0, []
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("ORRERY_JOBS", "2"))) as pool:
        for fault, ok, took, text in pool.map(lambda p: one(*p), plan):
            right += ok
            times += [took] if ok else []
            print("right" if ok else "WRONG", f"{took:.1f} s", fault, "->", text, flush=True)
    times.sort()
    print(f"hangs: {right} of {HANGS} right; silence at the verdict: median {times[len(times) // 2]:.1f} s, worst {times[-1]:.1f} s, "
          f"launch.hang_s={HANG_S}")
    check(right >= 0.95 * HANGS, "at least 95 of 100 right")


def quiet(tmp):
    """Slow steps, and saves and evaluations between them, are no hang."""
    end, runs, seconds = time.monotonic() + QUIET_S, 0, 0.0
    while time.monotonic() < end or not runs:
        begin = time.monotonic()
        done = orrery(*words(tmp, f"quiet-{runs}", "train.steps=60", "checkpoint.every=20", "launch.hang_s=1", "fault.inject=slow=30ms"),
                      check=False, timeout=400, env=environment(OMP_NUM_THREADS=1))
        check(done.returncode == 0 and "cause: " not in done.stderr, f"no alarm: {done.stderr[-300:] if done.returncode else ''}")
        runs += 1
        seconds += time.monotonic() - begin
    print(f"quiet: {runs} runs, {seconds:.0f} s without a false alarm, launch.hang_s=1")


def main():
    with folder() as tmp:
        orrery("simulate", "table", "--out", f"{tmp}/data", "--episodes", 8, "--frames", 40)
        quiet(tmp)
        campaign(tmp)


main()
