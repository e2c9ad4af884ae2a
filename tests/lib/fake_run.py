# SPDX-License-Identifier: Apache-2.0
"""What the launcher's tests share: runs of the stand-in rank, what they leave behind, and who is still alive."""
import json
import os
import pathlib
import signal
import time

from orrery_run import ORRERY, check, descendants, environment

BUILD = pathlib.Path(os.environ.get("ORRERY_BUILD", "build")).resolve()
FAKE = BUILD / "tests" / "fake_rank"


def fake_environment(**extra):
    return environment(**{"ORRERY_RANK_PROGRAM": FAKE, **extra})


def settings(tmp, steps=60, **keys):
    """key=value words for a short run in tmp/run; double underscores stand for dots."""
    words = {"run.dir": f"{tmp}/run", "train.steps": steps, "checkpoint.every": 10}
    words.update({k.replace("__", "."): v for k, v in keys.items()})
    return [f"{k}={v}" for k, v in words.items()]


def config(tmp):
    path = pathlib.Path(tmp) / "c.yaml"
    path.write_text("train:\n  batch: 12\n")
    return path


def state_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


def alive(pids):
    return [p for p in pids if state_of(p) not in ("gone", "Z", "X")]


def wait_for(what, seconds=20, pause=0.01):
    """The first true value of what(), or None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = what()
        if value:
            return value
        time.sleep(pause)
    return None


def wait_dead(pids, seconds=5):
    """How long it took until none of pids was alive; None if some are still."""
    begin = time.monotonic()
    return time.monotonic() - begin if wait_for(lambda: not alive(pids), seconds, 0.002) else None


def family(supervisor):
    """{"rank": [...], "guard": [...], "mpirun": [...], "supervisor": [pid], "keeper": [...]}"""
    kinds = {"rank": [], "guard": [], "mpirun": [], "supervisor": [supervisor], "keeper": []}
    for pid, command in descendants(supervisor):
        words = command.split(" ")
        name = pathlib.Path(words[0]).name
        if name in ("fake_rank", "orrery-rank"):
            kinds["rank"].append(pid)
        elif name in ("mpirun", "prterun"):  # the one becomes the other in Open MPI 5
            kinds["mpirun"].append(pid)
        elif len(words) > 1 and words[1] == "guard":
            kinds["guard"].append(pid)
        elif name == "orrery":
            kinds["keeper"].append(pid)
    return kinds


def box_folders(run):
    """Private folders in /dev/shm that belong to this run, whatever state they are in."""
    found = []
    for folder in pathlib.Path("/dev/shm").glob("orrery-*"):
        try:
            if json.loads((folder / "job.json").read_text())["run"] == os.path.realpath(run):
                found.append(str(folder))
        except (OSError, ValueError):
            continue
    return found


def wait_step(run, step, seconds=30):
    """Until rank 0's log shows the step."""
    def reached():
        for log in pathlib.Path(run).glob("logs/attempt-*/rank-0.log"):
            for line in log.read_text(errors="replace").splitlines():
                words = line.split()
                if words[:3] == ["rank", "0", "step"] and int(words[3]) >= step:
                    return True
        return False
    return wait_for(reached, seconds)


def events(run, name=None):
    rows = [json.loads(line) for line in (pathlib.Path(run) / "events.jsonl").read_text().splitlines()]
    return [r for r in rows if name is None or r["event"] == name]


def check_ledger(run):
    """The categories of every account add up to its wall time."""
    for row in events(run, "ledger"):
        parts = sum(v for k, v in row.items() if k not in ("time", "seconds", "event", "total"))
        check(abs(parts - row["total"]) <= 0.001 * row["total"] and abs(row["total"] - row["seconds"]) <= 0.001 * row["seconds"] + 0.002,
              f"the ledger adds up: {row['total']:.3f} s")


def output(child):
    child.output.seek(0)
    return child.output.read()


def interrupt(child, number=signal.SIGINT):
    os.kill(child.pid, number)
