#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""orrery run with the real orrery-rank: fresh start, a killed rank, going on, changed configs, nothing left to do."""
import json
import pathlib
import re
import shutil
import signal
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import box_folders, check_ledger, events, output, wait_for  # noqa: E402
from orrery_run import check, digest, folder, orrery, start  # noqa: E402

CONFIG = "configs/tiny.yaml"


def words(tmp, steps=40, **keys):
    keys = {"run.dir": f"{tmp}/run", "data.train": f"{tmp}/data", "data.eval": f"{tmp}/data", "train.steps": steps,
            "checkpoint.every": 10, **{k.replace("__", "."): v for k, v in keys.items()}}
    return [f"{k}={v}" for k, v in keys.items()]


def run(tmp, status, *more, ranks=2, **keys):
    done = orrery("run", CONFIG, "-n", ranks, *more, *words(tmp, **keys), check=False)
    check(done.returncode == status, f"exit {done.returncode}, wanted {status}: {done.stderr.strip()[-300:]}")
    return done


def last_step(tmp):
    rows = [json.loads(line) for line in (pathlib.Path(tmp) / "run" / "metrics.jsonl").read_text().splitlines()]
    return max(r["step"] for r in rows if "step" in r)


def killed_rank_and_resume(tmp):
    done = run(tmp, 137, fault__inject="kill:rank=1,step=25", launch__attempts=1)
    line = done.stderr.split("cause: ")[1].splitlines()[0]
    for text in ("rank 1", f"host {socket.gethostname()}", "pid ", "signal 9 (SIGKILL)", "step 25", "phase "):
        check(text in line, f"the verdict says '{text}': {line}")
    check(not box_folders(f"{tmp}/run"), "nothing stays in /dev/shm")
    check(events(f"{tmp}/run", "verdict")[-1]["rank"] == 1, "rank 1 in the record")
    done = run(tmp, 0, fault__inject="kill:rank=1,step=25", ranks=3)
    # Checkpoints are written behind the steps: the one of step 20 may not have been complete.
    check(done.stderr.startswith(("resume from step 10 of ", "resume from step 20 of ")), done.stderr.splitlines()[0])
    check(last_step(tmp) == 40, "it reached its end on another number of ranks")
    check_ledger(f"{tmp}/run")


def nothing_left_to_do(tmp):
    done = run(tmp, 0)
    check(done.stderr.startswith("complete: ") and "step 40 of 40" in done.stderr, done.stderr.splitlines()[0])


def changed_configs(tmp):
    done = run(tmp, 78, steps=50, model__width=64)
    check("model.width (32 -> 64)" in done.stderr, "a change of the model is refused by name")
    done = run(tmp, 78, steps=50, run__seed=9)
    check("run.seed" in done.stderr and "--force" in done.stderr, "a change of the numbers needs --force")
    done = run(tmp, 0, steps=50, optim__lr=0.001)
    check("optim.lr: 0.006 -> 0.001" in done.stderr, "a change of the learning rate is told")
    check(done.stderr.startswith("resume from step 40 of "), "behind the first line")


def forced(tmp):
    """Keys of data and numbers pass with --force, on every rank, and the run can be replayed across the change; a refusal leaves no trace."""
    keys = {"run__dir": f"{tmp}/forced", "data__eval": "", "checkpoint__every": 10}
    record = pathlib.Path(tmp) / "forced" / "config.yaml"
    run(tmp, 0, steps=15, **keys)
    before = record.read_text()
    done = run(tmp, 78, steps=25, train__batch=8, **keys)
    check("train.batch (4 -> 8)" in done.stderr and "--force" in done.stderr, "a change of the batch needs --force")
    done = run(tmp, 78, "--force", steps=25, train__batch=8, model__width=64, **keys)
    check("model.width (32 -> 64)" in done.stderr and "train.batch (" not in done.stderr, "what --force does not help is refused alone")
    check(record.read_text() == before, "refused before the record is written")
    done = run(tmp, 0, "--force", steps=25, train__batch=8, run__seed=9, **keys)
    check("train.batch: 4 -> 8" in done.stderr and "resume from step 15" in done.stderr, done.stderr.splitlines()[0])
    log = (pathlib.Path(tmp) / "forced" / "logs" / "attempt-2" / "rank-0.log").read_text()
    check("train.batch was 4 when the checkpoint was saved and is 8 now" in log, "the rank tells of it too")
    done = orrery("replay", f"{tmp}/forced", "--step", 18, "--json", check=False)
    check(done.returncode == 0 and json.loads(done.stdout)["first_sample"] == 17 * 8, f"replay: exit {done.returncode}: {done.stderr.strip()[-200:]}")
    done = run(tmp, 78, steps=30, **keys)
    check("train.batch (8 -> 4)" in done.stderr, "and back again only with --force")
    run(tmp, 0, "--force", steps=30, **keys)


def damaged_records(tmp):
    copy, record = f"{tmp}/copy", pathlib.Path(tmp) / "copy" / "config.yaml"
    shutil.copytree(f"{tmp}/run", copy)
    whole = record.read_text()
    for text, why in ((whole[:whole.rindex('"')], "not valid YAML"), (whole.replace("  steps:", "  stepz:"), "unknown key 'stepz'")):
        record.write_text(text)
        done = run(tmp, 65, run__dir=copy, steps=60)
        check(str(record) in done.stderr and why in done.stderr and "remove it to go on" in done.stderr, done.stderr.strip()[-200:])
    metrics = pathlib.Path(copy) / "metrics.jsonl"
    metrics.write_text("nonsense\n" + metrics.read_text())
    record.write_text(whole)
    done = orrery("diff", f"{tmp}/run", copy, check=False)
    check(done.returncode == 0 and "copy/metrics.jsonl: 1 lines are no metrics" in done.stderr, f"diff: exit {done.returncode}: {done.stderr.strip()}")
    record.write_text("")
    done = run(tmp, 0, run__dir=copy, steps=60)
    check("is gone or empty" in done.stderr and last_step(tmp) < 60, "an empty record is told of, and the run goes on")


def interrupt_saves(tmp):
    child = start("run", CONFIG, "-n", 2, *words(tmp, steps=100000, checkpoint__every=100000))
    metrics = pathlib.Path(tmp) / "run" / "metrics.jsonl"
    before = last_step(tmp)
    check(wait_for(lambda: metrics.exists() and last_step(tmp) >= before + 10, 60), "it trains on")
    child.send_signal(signal.SIGINT)
    begin = time.monotonic()
    code = child.wait(60)
    check(code == 75, f"Ctrl-C: exit {code} after {time.monotonic() - begin:.2f} s")
    check("the same command goes on" in output(child), "and says so")
    steps = [row["step"] for row in json.loads(orrery("ckpt", "list", f"{tmp}/run", "--json").stdout)]
    check(max(steps) >= before + 10, f"saved at step {max(steps)}")
    child.output.close()


def bad_step(tmp):
    """A NaN is skipped, or rolled back: a glitch leaves no trace, a batch that is always bad is left out."""
    keys = {"data__eval": "", "checkpoint__every": 10}
    run(tmp, 0, run__dir=f"{tmp}/calm", **keys)
    done = run(tmp, 0, run__dir=f"{tmp}/rolled", train__on_nan="rollback", fault__inject="nan:rank=1,step=25", ranks=2, **keys)
    log = (pathlib.Path(tmp) / "rolled" / "logs" / "attempt-1" / "rank-0.log").read_text()
    told = re.search(r"step (\d+) skipped: .*; samples (\d+) to (\d+): episodes ", log)
    step, first, last = map(int, told.groups()) if told else (0, 0, 0)
    check(step == 26 and 100 <= first <= last < 104, f"the bad step, as metrics.jsonl counts, and its samples: {step}, {first} to {last}")
    check(re.search(r"rolled back to step \d+; step 26 is skipped", log), "and the run goes back to a checkpoint")
    check(digest(f"{tmp}/calm") == digest(f"{tmp}/rolled"), "a glitch that was rolled back leaves no trace in the weights")
    steps = [json.loads(line).get("step") for line in (pathlib.Path(tmp) / "rolled" / "metrics.jsonl").read_text().splitlines()]
    check(steps == sorted(steps), "metrics read as if nothing had happened")
    run(tmp, 0, run__dir=f"{tmp}/spiky", train__on_nan="rollback", train__spike=1e-9, train__steps=12, **keys)
    log = (pathlib.Path(tmp) / "spiky" / "logs" / "attempt-1" / "rank-0.log").read_text()
    check(log.count(" skipped: ") >= 12, "steps that are bad every time are left out, and the run reaches its end")


def only_bad_steps(tmp):
    """Skipping forever is no training: twenty in a row end the run, with the cure."""
    done = run(tmp, 65, run__dir=f"{tmp}/bad", data__eval="", train__on_nan="skip", train__spike=1e-9, ranks=2)
    check("step 20 is the 20th in a row that is skipped" in done.stderr and "train.spike" in done.stderr, done.stderr.strip()[-300:])
    done = run(tmp, 78, run__dir=f"{tmp}/bad", optim__eps=0)
    check("optim.eps" in done.stderr and "1e-30" in done.stderr, "an optim.eps of 0, which makes the first update a NaN, is none")


def pace_without_evaluation(tmp):
    """The pace in metrics.jsonl is that of steps, also in the line after an evaluation that takes far longer than they do."""
    run(tmp, 0, ranks=1, run__dir=f"{tmp}/pace", steps=20, checkpoint__every=0, eval__every=10, train__log_every=10, eval__sequences=64)
    rows = [json.loads(line) for line in (pathlib.Path(tmp) / "pace" / "metrics.jsonl").read_text().splitlines()]
    for row in (r for r in rows if "samples_per_s" in r):
        share = sum(row["seconds"].values()) * row["samples_per_s"] / 4
        check(share > 0.5, f"step {row['step']}: the steps take {share:.2f} of the time told")


def long_path(tmp):
    """Every value's origin names the run folder; a checkpoint's copy of the config has room all the same."""
    run(tmp, 0, run__dir=f"{tmp}/{'d' * 200}/{'e' * 150}", steps=6, data__eval="", checkpoint__every=3)


def file_urls(tmp):
    """However a folder is written, the launcher and the ranks look for its checkpoints in the same place."""
    for number, url in enumerate((f"file:{tmp}/ck0", f"file://localhost{tmp}/ck1", f"file://{tmp}/ck2")):
        keys = {"run__dir": f"{tmp}/urls{number}", "checkpoint__url": url, "checkpoint__every": 3, "data__eval": "", "ranks": 1}
        done = run(tmp, 0, steps=6, **keys)
        check(done.stderr.startswith("fresh start"), done.stderr.splitlines()[0])
        check(any((tmp / f"ck{number}").iterdir()), f"{url}: the checkpoints lie in the folder")
        done = run(tmp, 0, steps=9, **keys)
        check(done.stderr.startswith(f"resume from step 6 of {url}"), done.stderr.splitlines()[0])


def bad_data(tmp):
    run(tmp, 66, run__dir=f"{tmp}/other", data__train=f"{tmp}/none", launch__attempts=3)
    done = run(tmp, 78, run__dir=f"{tmp}/other", fault__inject="explode")
    check("fault.inject" in done.stderr, "a fault that is none is named")


def main():
    with folder() as tmp:
        orrery("simulate", "table", "--out", f"{tmp}/data", "--episodes", 8, "--frames", 40)
        for test in (killed_rank_and_resume, nothing_left_to_do, changed_configs, forced, damaged_records, interrupt_saves, bad_step, only_bad_steps, pace_without_evaluation, long_path, file_urls, bad_data):
            print("--", test.__name__)
            test(tmp)


main()
