#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Verdicts on injected faults: the right rank, host, pid, signal or code, step, phase and words; restarts by class."""
import json
import os
import pathlib
import shutil
import signal
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import (box_folders, check_ledger, config, events, fake_environment, family, output, settings,  # noqa: E402
                      wait_for, wait_step)
from orrery_run import check, folder, orrery, start  # noqa: E402

HOST = socket.gethostname()


def faulty(tmp, fault, ranks=2, env=None, **keys):
    keys = {"launch__attempts": 1, **keys}
    words = settings(tmp, **keys) + [f"fault.inject={fault}"]
    return orrery("run", config(tmp), "-n", ranks, *words, check=False, env=env or fake_environment())


def cause(done):
    check("cause: " in done.stderr, "there is a verdict")
    return done.stderr.split("cause: ")[1].splitlines()[0]


def crash(fault, status, *wanted, ranks=2, **keys):
    with folder() as tmp:
        done = faulty(tmp, fault, ranks, **keys)
        line = cause(done)
        check(done.returncode == status, f"{fault}: exit {done.returncode}, wanted {status}")
        for text in wanted:
            check(text in line, f"{fault}: the cause says '{text}': {line}")
        verdict = events(f"{tmp}/run", "verdict")[-1]
        check(verdict["host"] == HOST and verdict["pid"] > 0, "host and pid are recorded")
        check_ledger(f"{tmp}/run")
        why = json.loads(orrery("why", f"{tmp}/run", "--json").stdout)
        check(why["verdict"]["rank"] == verdict["rank"] and not why["live"], "orrery why tells the same")
        told = orrery("why", f"{tmp}/run").stdout
        check(line in told, "in words too")
        error = why["verdict"]["error"]
        check(not error or told.count(error) == done.stderr.count(error) == 1, f"the error stands there once: {done.stderr}")
        check(not box_folders(f"{tmp}/run"), "nothing stays in /dev/shm")
        return done, verdict


def crashes():
    _, verdict = crash("kill:rank=1,step=25,phase=backward", 137, "rank 1", f"host {HOST}", "signal 9 (SIGKILL)",
                       "step 25", "backward", ranks=3)
    check((verdict["rank"], verdict["signal"], verdict["step"], verdict["phase"]) == (1, 9, 25, "backward"), "as numbers")
    crash("segv:rank=0,step=12", 139, "rank 0", "signal 11 (SIGSEGV)", "step 12")
    crash("exit=7:rank=1,step=12", 7, "rank 1", "exit code 7", "step 12")
    done, _ = crash("enospc:rank=0,step=20", 74, "rank 0", "checkpoint", "No space left on device")
    check("last lines of" in done.stderr and "rank 0 step 20" in done.stderr, "the log's last lines are shown")
    check(done.stderr.rstrip().splitlines()[-1].startswith("cause: "), "the cause comes last")
    done, _ = crash("nan:rank=1,step=5", 65, "rank 1", "not a number", launch__attempts=5)
    check(done.stderr.count("cause: ") == 1, "a USER failure is not tried again")


def single_rank():
    with folder() as tmp:
        done = faulty(tmp, "kill:step=9", ranks=1)
        check(done.returncode == 137 and "rank 0" in cause(done) and "step 9" in cause(done), "one rank, without mpirun")
    with folder() as tmp:
        child = start("run", config(tmp), "-n", 1, *settings(tmp, steps=1000000, launch__attempts=1), env=fake_environment())
        check(wait_step(f"{tmp}/run", 3, 60), "it runs")
        guard = family(child.pid)["guard"][0]
        os.kill(guard, signal.SIGKILL)
        child.wait(30)
        said = output(child)
        check("cause: rank 0" in said and f"its guard (pid {guard}) vanished" in said, f"and its guard is killed: {said[-300:]}")


def restarts():
    with folder() as tmp:
        done = faulty(tmp, "kill:rank=1,step=35", launch__attempts=3, checkpoint__every=40)
        check(done.returncode == 0 and "restarting: attempt 2" in done.stderr, "a killed rank is started again")
        told = orrery("why", f"{tmp}/run").stdout
        check("before it recovered:\nattempt 1 failed\n" in told and f"cause: {cause(done)}\n" in told, "and afterwards why still tells of it")
        starts = [r["attempt"] for r in events(f"{tmp}/run", "attempt-start")]
        check(starts == [1, 2], f"attempts {starts}")
        ledger = events(f"{tmp}/run", "ledger")[-1]
        check(ledger["lost_work"] > 0 and ledger["restart"] > 0, "lost work and restart are on the account")
        check_ledger(f"{tmp}/run")
    with folder() as tmp:
        done = faulty(tmp, "kill:rank=1,step=5,attempt=any", launch__attempts=3)
        check(done.returncode == 137 and done.stderr.count("cause: ") == 3, "three attempts without progress, then no more")
        check("3 attempts without progress" in done.stderr, "and it says so")
    with folder() as tmp:
        # Ten steps of progress each time: never without progress, so it reaches its end.
        fault = ";".join(f"kill:rank=1,step={10 * a + 5},attempt={a}" for a in range(1, 5))
        done = faulty(tmp, fault, launch__attempts=2)
        check(done.returncode == 0 and done.stderr.count("cause: ") == 4, "progress resets the count")


def hangs():
    for fault, word in (("stop:rank=1,step=25", "is stopped by a signal"), ("spin:rank=1,step=25", "no sign of life")):
        with folder() as tmp:
            begin = time.monotonic()
            done = faulty(tmp, fault, ranks=3, launch__hang_s=2)
            line = cause(done)
            check(done.returncode == 76, f"{fault}: exit {done.returncode}")
            check("ranks 0, 2 wait in all-reduce gradients" in line and "rank 1" in line and word in line, line)
            print(f"{fault}: whole run {time.monotonic() - begin:.1f} s with launch.hang_s=2")
            verdict = events(f"{tmp}/run", "verdict")[-1]
            check(verdict["rank"] == 1 and verdict["kind"] == "hang", "as numbers")
    with folder() as tmp:
        done = faulty(tmp, "slow=150ms", steps=8, launch__hang_s=1)
        check(done.returncode == 0, "slow steps are no hang")


def quick():
    """How fast the verdict is: printed, not judged."""
    took = []
    for _ in range(5):
        with folder() as tmp:
            child = start("run", config(tmp), "-n", 3, *settings(tmp, steps=100000, launch__attempts=1),
                          env=fake_environment())
            check(wait_step(f"{tmp}/run", 5), "it runs")
            victim = family(child.pid)["rank"][1]
            begin = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: "cause: " in output(child), 5, 0.002)
            took.append(time.monotonic() - begin)
            child.wait(10)
            check(f"pid {victim}" in output(child), "the right pid")
            child.output.close()
    print(f"verdict after SIGKILL: median {1e3 * sorted(took)[2]:.0f} ms, worst {1e3 * max(took):.0f} ms")


def fake_mpirun(tmp, body, asked="echo 'mpirun (Open MPI) 4.1.4'"):
    """An environment in which mpirun is a shell script: asked for its version, else `body`, and the real one where that falls through."""
    script = pathlib.Path(tmp) / "bin" / "mpirun"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && {{ {asked}; exit 0; }}\n"
                      f"cd {tmp} && echo >>starts && n=$(wc -l <starts) && cd - >/dev/null\n{body}\nexec {shutil.which('mpirun')} \"$@\"\n")
    script.chmod(0o755)
    return fake_environment(PATH=f"{script.parent}:{os.environ['PATH']}")


def mpirun_is_unfit():
    """What mpirun is asked before anything starts: another MPI's, one that does not run, one that was killed when asked."""
    for body, text in (("echo HYDRA build details:", "is not Open MPI's"),
                       ("echo 'mpirun: error while loading shared libraries: libpmix.so.2' >&2; exit 127",
                        "mpirun --version ended with exit code 127: mpirun: error while loading shared libraries: libpmix.so.2")):
        with folder() as tmp:
            done = faulty(tmp, "", env=fake_mpirun(tmp, "", asked=body))
            check(done.returncode == 69 and text in done.stderr, done.stderr.strip())
    with folder() as tmp:
        asked = f"[ -e {tmp}/once ] || {{ touch {tmp}/once; kill -9 $$; }}; echo 'mpirun (Open MPI) 4.1.4'"
        done = faulty(tmp, "", env=fake_mpirun(tmp, "", asked=asked))
        check(done.returncode == 0, f"killed when asked, asked again: exit {done.returncode} {done.stderr.strip()[-300:]}")


def launch_fails():
    with folder() as tmp:
        done = faulty(tmp, "", env=fake_mpirun(tmp, "echo 'There are not enough slots available in the system' >&2; exit 1"),
                      launch__attempts=3)
        check(len(events(f"{tmp}/run", "verdict")) == 1, "a first start that fails is not tried again")
        check(done.returncode == 69 and "too few slots" in cause(done), cause(done))
        check("not enough slots available" in done.stderr, "mpirun's own words are shown")
    with folder() as tmp:
        done = faulty(tmp, "", env=fake_environment(PATH=str(tmp)))
        check(done.returncode == 66 and "apt-get install openmpi-bin" in done.stderr, "no mpirun: the cure is named")
    with folder() as tmp:
        done = faulty(tmp, "", env=fake_environment(PMIX_RANK="0"))
        check(done.returncode == 78 and "PMIX_RANK" in done.stderr, "a stale variable is refused")


def start_fails_by_chance():
    """A start in which a process was killed, and one that fails where an earlier one did not, are tried again."""
    with folder() as tmp:
        done = faulty(tmp, "", env=fake_mpirun(tmp, '[ "$n" = 1 ] && exit 137'), launch__attempts=2)
        check(done.returncode == 0 and "restarting: attempt 2" in done.stderr, f"exit {done.returncode}")
        check(cause(done) == "a process was killed by signal 9 (SIGKILL) before all 2 ranks were there", cause(done))
    with folder() as tmp:
        done = faulty(tmp, "kill:rank=1,step=25", env=fake_mpirun(tmp, '[ "$n" = 2 ] && exit 1'), launch__attempts=3)
        causes = [v["cause"] for v in events(f"{tmp}/run", "verdict")]
        check(done.returncode == 0 and len(causes) == 2, f"exit {done.returncode}: {causes}")
        check(causes[1] == "mpirun ended with exit code 1 before all 2 ranks were there", causes[1])


def late_start():
    """mpirun runs, but nothing comes of it in time: said so, and tried again."""
    with folder() as tmp:
        env = fake_mpirun(tmp, '[ "$n" = 1 ] && exec sleep 60')
        done = faulty(tmp, "", ranks=3, env=env, launch__attempts=2, launch__start_s=5)
        check(done.returncode == 0 and "restarting: attempt 2" in done.stderr, f"exit {done.returncode}")
        check("3 of 3 guards were not there after 5 s (ranks 0-2), and mpirun still runs" in cause(done), cause(done))


def stopped_between_attempts():
    """A wish to stop while a retry is waited for: what is saved is saved, and a scheduler may go on."""
    for every, code in ((10, 75), (1000, 69)):
        with folder() as tmp:
            words = settings(tmp, checkpoint__every=every, launch__attempts=9) + ["fault.inject=exit=69:step=25,attempt=any"]
            child = start("run", config(tmp), "-n", 1, *words, env=fake_environment())
            check(wait_for(lambda: "next attempt in 2 s" in output(child), 30), "it waits before it tries again")
            os.kill(child.pid, signal.SIGUSR1)
            status = child.wait(20)
            check(status == code, f"USR1 in the meantime, a checkpoint every {every} steps: exit {status}")
            check(("step 20 is saved" in output(child)) == (code == 75), "and it says what is saved")
            state = json.loads((pathlib.Path(tmp) / "run" / "run.json").read_text())["state"]
            check(state == ("saved" if code == 75 else "failed"), f"the record says {state}")
            child.output.close()


def two_versions():
    """mpirun of another series than the rank's library: one line says so, and the run is tried."""
    with folder() as tmp:
        done = faulty(tmp, "", env=fake_mpirun(tmp, "", asked="echo 'mpirun (Open MPI) 4.7.1'"))
        told = [line for line in done.stderr.splitlines() if "mpirun is Open MPI 4.7.1, orrery-rank is linked with" in line]
        check(done.returncode == 0 and len(told) == 1 and "mpicc" in told[0], f"exit {done.returncode}: {told}")


def main():
    crashes()
    single_rank()
    restarts()
    hangs()
    mpirun_is_unfit()
    launch_fails()
    start_fails_by_chance()
    late_start()
    stopped_between_attempts()
    two_versions()
    quick()


main()
