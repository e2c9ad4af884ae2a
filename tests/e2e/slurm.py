#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""On a real Slurm of four nodes: submit, run, time limit, preemption, requeue, resume at the exact step under the same
run id, a node killed, and the same bits at the end as the undisturbed run; scancel leaves no process.
ORRERY_SLURM_FULL=1: a time limit that Slurm itself enforces, more preemptions, a ready script."""
import json
import os
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import check_ledger, events, wait_for  # noqa: E402
from orrery_run import ORRERY, ROOT, check, digest, folder, orrery  # noqa: E402
from testbed_slurm import slurm  # noqa: E402

FULL = bool(os.environ.get("ORRERY_SLURM_FULL"))
STEPS = 3000 if FULL else 300
WAIT = 180


def words(tmp, run, steps=STEPS):
    return ["configs/tiny.yaml", f"run.dir={tmp}/{run}", f"data.train={tmp}/data", "data.eval=", f"train.steps={steps}",
            "checkpoint.every=20", "train.log_every=1", "train.threads=1"]


def last_step(run):
    try:
        return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    except (OSError, ValueError, KeyError, IndexError):
        return 0


def said(run):
    return "".join(p.read_text(errors="replace") for p in sorted(run.glob("slurm-*.out")))


def record(run):
    try:
        return json.loads((run / "run.json").read_text())
    except (OSError, ValueError):
        return {}


def until(what, ok, seconds=WAIT, run=None):
    begin = time.monotonic()
    value = wait_for(ok, seconds, 0.05)
    if not value and run:
        print(said(run)[-3000:])
        for log in sorted(run.glob("logs/attempt-*/launch.log"))[-2:]:
            print(log, log.read_text(errors="replace")[-2000:])
    check(value, f"{what}, after {time.monotonic() - begin:.1f} s")
    return value


def submit(bed, tmp, run, *more):
    done = orrery("submit", *words(tmp, run), "--slurm", "slurm.nodes=4", f"launch.interface={bed.address}", "launch.min_ranks=2",
                  "launch.lost_s=3", "launch.attempts=10", "fault.inject=slow=25ms:attempt=any,rank=0", *more, env=bed.env)
    return done.stdout.strip()


def resumed(run):
    """Steps that commands of this run went on from."""
    return [int(s) for s in re.findall(r"resume from step (\d+) of", said(run))]


def stop_and_go(bed, run, job, what, stop):
    """`stop` makes Slurm want its nodes back: the run saves, and the same job goes on at that very step."""
    times, before = len(resumed(run)), last_step(run)
    asked = stop()
    until(f"{what}: saved", lambda: record(run).get("state") == "saved" or len(resumed(run)) > times, run=run)
    until(f"{what}: the same job runs again", lambda: len(resumed(run)) > times, run=run)
    rows = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    step = resumed(run)[-1]
    saves = [r["step"] for r in events(run, "checkpoint")]
    check(step >= before and step in saves, f"{what}: asked at step {before} or later, it went on from step {step}")
    until(f"{what}: step {step + 3}", lambda: last_step(run) >= step + 3, run=run)
    rows = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    check(len(rows) == len(set(rows)), f"{what}: no step was made twice")
    return asked


def preempt(bed):
    return lambda: bed.call("sbatch", "--parsable", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null",
                            "--wrap=sleep 1")


def lose_node(bed, run, node):
    restarts = len(events(run, "attempt-start"))
    bed.testbed("lose", node)
    until(f"{node} is killed: the run goes on with three ranks", lambda: [r["ranks"] for r in events(run, "attempt-start")][restarts:][-1:] == [3], run=run)
    step = last_step(run)
    until("and makes steps", lambda: last_step(run) > step + 3, run=run)


def life_of_a_job(bed, tmp, want):
    run = pathlib.Path(tmp) / "stormy"
    # Slurm's shortest limit is a minute, and it looks twice a minute.
    job = submit(bed, tmp, "stormy", *(["slurm.time=1:00", "slurm.warn_s=50"] if FULL else ["slurm.time=10:00"]))
    check(job.isdigit(), f"submitted as job {job}")
    until("four nodes run it", lambda: last_step(run) >= 3, run=run)
    check(record(run)["ranks"] == 4 and "4 ranks on Slurm job" in said(run), "as four ranks")
    name = record(run)["id"]
    if FULL:
        stop_and_go(bed, run, job, "time limit", lambda: None)
        bed.call("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    else: # what Slurm does then, at once
        stop_and_go(bed, run, job, "the time limit's signal", lambda: bed.call("scancel", "--batch", "--signal=USR1", job))
    for _ in range(4 if FULL else 1):
        stop_and_go(bed, run, job, "preemption", preempt(bed))
    lose_node(bed, run, "n2")
    until("done", lambda: record(run).get("state") == "done", run=run)
    check(record(run)["id"] == name, f"all of it as run {name}, job {job}")
    got = digest(f"{tmp}/stormy")
    check(got == want, f"step {got[2]}: {got[0][:16]} equals {want[0][:16]} of the undisturbed run, samples {got[1][:16]}")
    check_ledger(run)
    bed.testbed("revive", "n2")
    until("the job is over, its processes are gone", lambda: not bed.pids(), 60)


def cancelled(bed, tmp):
    run = pathlib.Path(tmp) / "cancelled"
    until("all nodes are up", lambda: bed.call("sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D") == "4")
    job = submit(bed, tmp, "cancelled")
    until("a job to cancel runs", lambda: last_step(run) >= 3, run=run)
    begin = time.monotonic()
    check(len(bed.pids()) >= 8, f"it has {len(bed.pids())} processes")
    bed.call("scancel", job)
    until("scancel: no process is left", lambda: not bed.pids(), 60)
    until("and no job", lambda: bed.state(job) in ("GONE", "CANCELLED"), 60)
    return time.monotonic() - begin


def ready_scripts(bed, tmp):
    """deploy/slurm/cpu.sh and array.sh as they stand."""
    pathlib.Path(tmp, "runs.txt").write_text("run.seed=1\nrun.seed=2\n")
    env = {**bed.env, "ORRERY": ORRERY, "CONFIG": str(ROOT / "configs/tiny.yaml"), "RUN_DIR": f"{tmp}/array", "RUNS": f"{tmp}/runs.txt",
           "OVERRIDES": f"data.train={tmp}/data data.eval= train.steps=20 launch.interface={bed.address}"}

    def batch(*words):
        done = subprocess.run(["sbatch", "--parsable", "--time=10", f"--output={tmp}/ready-%a.out", *words], env=env, cwd=ROOT, text=True,
                              capture_output=True)
        check(done.returncode == 0, f"sbatch {' '.join(words)} {done.stderr}")

    def state(run):
        return record(pathlib.Path(tmp) / run).get("state")
    batch("--array=1-2", "deploy/slurm/array.sh")
    until("deploy/slurm/array.sh: two runs", lambda: state("array-1") == state("array-2") == "done")
    check(digest(f"{tmp}/array-1")[0] != digest(f"{tmp}/array-2")[0], "of different seeds")
    env["OVERRIDES"] += f" run.dir={tmp}/ready"
    batch("--nodes=2", "deploy/slurm/cpu.sh")
    until("deploy/slurm/cpu.sh", lambda: state("ready") == "done")


def main():
    with slurm() as bed, folder() as tmp:
        tmp = os.path.realpath(tmp)
        orrery("simulate", "table", "--out", f"{tmp}/data", "--episodes", 8, "--frames", 40)
        orrery("run", *words(tmp, "calm"), "-n", 2)
        want = digest(f"{tmp}/calm")
        life_of_a_job(bed, tmp, want)
        cancelled(bed, tmp)
        if FULL:
            ready_scripts(bed, tmp)


main()
