#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hosts come and go, 4 -> 2 -> 3 -> 4 ranks, and the weights are those of the undisturbed run, bit for bit."""
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import check_ledger, events, output, wait_for  # noqa: E402
from orrery_run import check, digest, environment, folder, orrery  # noqa: E402
from testbed_hosts import hosts  # noqa: E402

STEPS = 450


def words(tmp, run, *more):
    return ["run", "configs/tiny.yaml", f"run.dir={tmp}/{run}", f"data.train={tmp}/data", "data.eval=", f"train.steps={STEPS}",
            "checkpoint.every=10", "train.log_every=1", "train.threads=1", *more]


def worlds(tmp):
    """Ranks of the attempts so far."""
    try:
        return [r["ranks"] for r in events(f"{tmp}/stormy", "attempt-start")]
    except (OSError, ValueError):
        return []


def step_of(tmp):
    """The newest step of the newest attempt."""
    try:
        lines = (pathlib.Path(tmp) / "stormy" / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"]
    except (OSError, ValueError, KeyError, IndexError):
        return -1


def until(tmp, child, ranks, what):
    """Until an attempt of that many ranks has made twelve steps of its own, and so a checkpoint."""
    begin, first = time.monotonic(), []

    def there():
        if child.poll() is not None:
            return True
        if worlds(tmp)[-1:] != [ranks]:
            return False
        began = len(events(f"{tmp}/stormy", "attempt-start"))
        log = pathlib.Path(tmp) / "stormy" / "logs" / f"attempt-{began}" / "rank-0.log"
        steps = log.read_text(errors="replace").count(": step ") if log.exists() else 0
        if steps and not first:
            first.append(time.monotonic() - begin)
        return steps >= 12
    wait_for(there, 120, 0.02)
    check(worlds(tmp)[-1:] == [ranks] and child.poll() is None, f"{what}: ranks {worlds(tmp)}, first step after "
          f"{first[0] if first else -1:.1f} s" + (output(child)[-1500:] if child.poll() is not None else ""))


def main():
    with hosts() as h, folder() as tmp:
        orrery("simulate", "table", "--out", f"{tmp}/data", "--episodes", 8, "--frames", 40)
        orrery(*words(tmp, "calm", "-n", 2))
        want = digest(f"{tmp}/calm")
        child = h.start(*words(tmp, "stormy", "--hosts", "h1:2,h2:1,h3:1", f"launch.agent={h.path}/agent", "launch.min_ranks=2",
                               "launch.lost_s=2", "launch.attempts=10", "fault.inject=slow=25ms:attempt=any,rank=0"),
                        env=environment(OMP_NUM_THREADS=1))
        until(tmp, child, 4, "four ranks on three hosts")
        h.do("off", "h2")
        h.do("off", "h3")
        until(tmp, child, 2, "two hosts are switched off")
        h.do("boot", "h2")
        until(tmp, child, 3, "one is back")
        h.do("boot", "h3")
        until(tmp, child, 4, "both are back")
        code = child.wait(300)
        text = output(child)
        check(code == 0, f"it reached its end: exit {code} {text[-1500:] if code else ''}")
        for line in ("host h2 is left out", "host h3 is left out", "host h2 is back", "host h3 is back"):
            check(line in text, f"it says: {line}")
        got = digest(f"{tmp}/stormy")
        check(got == want, f"ranks {worlds(tmp)}: {got[0][:16]} equals {want[0][:16]}, step {got[2]}, samples {got[1][:16]}")
        check_ledger(f"{tmp}/stormy")


main()
