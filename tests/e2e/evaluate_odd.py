#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs that do not go smoothly to their evaluation's end: of damaged data, of short episodes, stopped on their way."""
import json
import pathlib
import shutil
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import output, wait_for  # noqa: E402
from orrery_run import check, folder, orrery, start  # noqa: E402


def words(tmp, name, **keys):
    keys = {"data.train": f"{tmp}/data", "data.eval": f"{tmp}/data", "train.steps": 6, "rollout.sequences": 2, **keys}
    return ["run", "configs/tiny.yaml", f"run.dir={tmp}/{name}", *(f"{k}={v}" for k, v in keys.items())]


def result(run, name="eval.json"):
    made = json.loads((run / name).read_text())
    for key in ("made", "seconds", "ranks"):
        del made[key]
    return made


def broken_samples(tmp):
    """Sample 0 is damaged: in the training data alone, and in both."""
    shutil.copytree(tmp / "data", tmp / "damaged")
    with open(tmp / "damaged" / "table-000000.tar", "r+b") as f:
        f.seek(40000)
        f.write(b"XX")
    bad = {"data.train": f"{tmp}/damaged"}
    stopped = orrery(*words(tmp, "stop", **{"data.eval": f"{tmp}/damaged"}), "-n", 2, check=False)
    check(stopped.returncode == 65 and "in phase evaluate" in stopped.stderr and "ep00000000" in stopped.stderr,
          "data.on_error=stop: exit 65, and the phase is told as it is")
    orrery(*words(tmp, "skip", **bad, **{"data.on_error": "skip"}), "-n", 2)
    made = result(tmp / "skip")
    check(len(made["skipped"]) == 1 and made["skipped"][0]["data"] == "data.train" and made["skipped"][0]["episodes"] == [0],
          f"skip: the run ends well, and tells what is left out: {made['skipped']}")
    check(made["sequences"] == 8 and "of data.train are left out" in (tmp / "skip" / "eval.txt").read_text(), "in eval.txt too")
    orrery("eval", tmp / "skip", "-n", 1)
    check(result(tmp / "skip") == made, "orrery eval, on one rank: the same")
    check(made["weights"] == "raw", "without optim.ema the raw weights are measured")
    both = {**bad, "data.eval": f"{tmp}/damaged", "data.on_error": "skip"}
    orrery(*words(tmp, "both", **both), "-n", 2)
    made = result(tmp / "both")
    check(made["sequences"] == 7 and [s["windows"] for s in made["skipped"]][1] == 1, "a held-out sequence is left out as well")
    check((tmp / "both" / "rollouts" / "strip.png").exists(), "and the pictures are of others")


def short_episodes(tmp):
    """One of 8 frames among eight of 40: a window has ten."""
    for name, frames, first in (("mixed", 40, 0), ("short", 8, 100)):
        orrery("simulate", "table", "--out", tmp / name, "--episodes", 8 if name == "mixed" else 1, "--frames", frames, "--first", first)
    tar = next((tmp / "short").glob("*.tar"))
    shutil.copy(tar, tmp / "mixed" / "short.tar")
    (tmp / "mixed" / "dataset.json").unlink()
    orrery("data", "index", tmp / "mixed")
    orrery(*words(tmp, "mixed-run", **{"data.train": f"{tmp}/mixed", "data.eval": f"{tmp}/mixed"}), "-n", 2)
    log = (tmp / "mixed-run" / "logs" / "attempt-1" / "rank-0.log").read_text()
    check("1 of 9 episodes of data.train is shorter than data.frames (10) and is left out" in log, "a short episode is left out, and told")
    check(result(tmp / "mixed-run")["sequences"] == 8, "and the run is evaluated")
    alone = orrery(*words(tmp, "short-run", **{"data.train": f"{tmp}/short"}), check=False)
    check(alone.returncode == 65 and "the longest has 8; lower data.frames" in alone.stderr, "none is long enough: exit 65 and the cure")


def without_video(tmp):
    run = tmp / "blind"
    orrery(*words(tmp, "blind", **{"model.modalities": "action,touch"}), "-n", 2)
    log = (run / "logs" / "attempt-1" / "rank-0.log").read_text()
    check("no pictures: the model has no video" in log and "pictures are in" not in log, "a model without video: the log promises no pictures")
    check("left out: the model has no video." in (run / "eval.txt").read_text(), "and the table says what is left out")
    drawn = orrery("rollout", run, check=False)
    check(drawn.returncode == 78 and "no video" in drawn.stderr and "strip.png" not in drawn.stdout, "orrery rollout: exit 78 and why")


def stopped(tmp, number):
    run, name = tmp / f"run-{number}", f"run-{number}"
    child = start(*words(tmp, name, **{"eval.sequences": 20000}), "-n", 2)
    def measures():
        looked = orrery("top", run, "--json", check=False)
        seen = json.loads(looked.stdout) if looked.returncode == 0 else {}
        return seen.get("part_of") == "sequences" and seen["part_done"] > 0 and seen["part_total"] == 20000
    check(wait_for(measures, 60), "orrery top counts sequences")
    child.send_signal(number)
    code = child.wait(60)
    text = output(child)
    check(code == 75 and "the same command goes on" in text, f"{signal.Signals(number).name} while it evaluates: exit {code}")
    check(not (run / "eval.json").exists() and json.loads((run / "run.json").read_text())["state"] == "saved", "nothing half made")
    done = orrery(*words(tmp, name), "-n", 2)
    check("evaluation alone" in done.stderr and (run / "eval.json").exists(), "the same command goes on with the evaluation")
    child.output.close()


def main():
    with folder() as tmp:
        orrery("simulate", "table", "--out", tmp / "data", "--episodes", 8)
        broken_samples(tmp)
        short_episodes(tmp)
        without_video(tmp)
        for number in (signal.SIGINT, signal.SIGTERM):
            stopped(tmp, number)


main()
