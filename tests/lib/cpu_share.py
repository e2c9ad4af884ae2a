# SPDX-License-Identifier: Apache-2.0
"""CPU seconds of a job's processes by what they are: rank, guard, mpirun, supervisor, keeper."""
import os
import pathlib
import time

from fake_run import family

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """None when it is gone. One thread's time is known to the nanosecond, that of several to the clock's tick."""
    try:
        if len(os.listdir(f"/proc/{pid}/task")) == 1:
            return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0]) * 1e-9
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK
    except (OSError, IndexError):
        return None


def sample(child, seen):
    """Into {(kind, pid): seconds}: as far as each living process has come."""
    for kind, pids in family(child.pid).items():
        for pid in pids:
            seconds = cpu_seconds(pid)
            if seconds is not None:
                seen[kind, pid] = max(seconds, seen.get((kind, pid), 0))


def watch(child, every_s=0.1):
    """Until it ends: the CPU seconds of each kind."""
    seen = {}
    while child.poll() is None:
        sample(child, seen)
        time.sleep(every_s)
    if child.returncode:
        raise SystemExit(f"the run ended with {child.returncode}")
    return {kind: sum(s for (k, _), s in seen.items() if k == kind) for kind in ("rank", "guard", "mpirun", "supervisor", "keeper")}
