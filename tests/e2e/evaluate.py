#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a small run: the same numbers on 1, 2 and 3 ranks and on any number of threads, pictures that others can
read, a report, and clear errors."""
import json
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import check, environment, folder, orrery  # noqa: E402


def numbers(tmp, ranks, threads):
    """eval.json without what may differ: when, how long, on how many ranks."""
    env = environment(OMP_NUM_THREADS=threads)
    out = orrery("eval", f"{tmp}/run", "-n", ranks, "--json", f"train.threads={threads}", env=env).stdout
    result = json.loads(out)
    check(result["format"] == "orrery-eval" and result["version"] == 1, f"{ranks} ranks: eval.json has its version")
    for key in ("made", "seconds", "ranks"):
        del result[key]
    return result


def main():
    with folder() as tmp:
        orrery("simulate", "table", "--out", tmp / "data", "--episodes", 6, "--frames", 40)
        orrery("run", "configs/tiny.yaml", "-n", 2, f"run.dir={tmp}/run", f"data.train={tmp}/data", f"data.eval={tmp}/data",
               "train.steps=12", "optim.ema=0.9", "eval.sequences=21", "rollout.sequences=3")
        run = tmp / "run"
        after_training = json.loads((run / "eval.json").read_text())
        check(after_training["step"] == 12 and after_training["weights"] == "average",
              "training ends with an evaluation of its last step's averaged weights")
        want = numbers(tmp, 1, 1)
        for ranks, threads in ((2, 1), (3, 1), (1, 2)):
            check(numbers(tmp, ranks, threads) == want, f"{ranks} ranks, {threads} threads: the same numbers")
        for key in ("made", "seconds", "ranks"):
            del after_training[key]
        check(after_training == want, "the evaluation at the end of training is the one of the checkpoint")
        names = [r["name"] for r in want["rows"]]
        check(names == ["copy_last", "training_mean", "constant_velocity", "model", "wrong_action", "sampled"],
              "every row is there")
        check(not want["bars"] and want["pass"] is None, "no bars: the config asks for none")
        check("no bars: they belong to configs/demo.yaml's table world" in (run / "eval.txt").read_text(), "and the table says so")
        asked = json.loads(orrery("eval", run, "--json", "eval.bars=demo").stdout)
        check(len(asked["bars"]) == 10 and asked["pass"] is False and len(want["rows"][3]["metrics"]["psnr"]["horizon"]) == 6, "bars and horizons")

        own = [(run / name).read_bytes() for name in ("eval.json", "eval.txt")]
        done = orrery("eval", run, "eval.horizon=12", "eval.samples=1")
        check("constant velocity" in done.stdout and "12 predicted" in done.stdout, "a longer horizon than the model's window")
        named = done.stderr.splitlines()[-1].split()[1]
        check(pathlib.Path(named).name.startswith("eval-") and json.loads(pathlib.Path(named).read_text())["horizon"] == 12,
              f"other values than the run's: the result has a name of its own, {named}")
        again = orrery("eval", run, "eval.samples=1", "eval.horizon=12", "eval.context=4")
        check(again.stderr.splitlines()[-1].split()[1] == named, "the same values, said otherwise: the same name")
        orrery("eval", run, "eval.horizon=2", "eval.name=eval-short")
        check(json.loads((run / "eval-short.json").read_text())["horizon"] == 2, "eval.name gives it another")
        check([(run / name).read_bytes() for name in ("eval.json", "eval.txt")] == own, "the run's own result stays")
        for name in ("run", "eval/../../x", "evaluation."):
            bad = orrery("eval", run, f"eval.name={name}", check=False)
            check(bad.returncode == 78 and "eval.name" in bad.stderr, f"eval.name={name} is refused")
        drawn = [(run / "rollouts" / name).read_bytes() for name in ("strip.png", "rollout.gif")]
        orrery("rollout", run)
        check([(run / "rollouts" / name).read_bytes() for name in ("strip.png", "rollout.gif")] == drawn,
              "two ranks chose and drew the pictures that one does")
        if shutil.which("identify"):
            for name, frames in (("strip.png", 1), ("rollout.gif", 24)):
                seen = subprocess.run(["identify", str(run / "rollouts" / name)], check=True, text=True,
                                      capture_output=True).stdout
                check(len(seen.splitlines()) == frames, f"{name} has {frames} frames for ImageMagick")
        said = orrery("report", run).stdout
        paths = dict(line.split(None, 1) for line in said.splitlines()[-4:])
        check(list(paths) == ["report", "animation", "strip", "checkpoints"] and "6 predicted" in said,
              "report tells the table and where things are")
        check(all(pathlib.Path(p).exists() for p in paths.values()), "and they are there")
        text = pathlib.Path(paths["report"]).read_text()
        check("data:image/gif;base64," in text and "Model against baselines" in text and "Loss by modality" in text,
              "the report holds pictures, table and curves")
        check("http" not in text and "<script" not in text, "the report needs nothing else")

        shutil.copytree(tmp / "data", tmp / "scaled")
        index = json.loads((tmp / "data" / "dataset.json").read_text())
        for stream in index["streams"]:
            stream["scale"] = 7 if stream["modality"] == "touch" else stream["scale"]
        (tmp / "scaled" / "dataset.json").write_text(json.dumps(index))
        scaled = f"data.eval={tmp}/scaled"
        for done in (orrery("eval", run, scaled, check=False),
                     orrery("run", "configs/tiny.yaml", f"run.dir={tmp}/scaled-run", f"data.train={tmp}/data", scaled, check=False)):
            check(done.returncode == 78 and "touch has scale" in done.stderr and "and 7 in data.eval" in done.stderr,
                  "held-out data of another scale are refused")
        check(not (tmp / "scaled-run" / "metrics.jsonl").exists(), "before the first step")

        missing = orrery("eval", tmp / "nothing", check=False)
        check(missing.returncode == 66, f"no run folder: exit 66, said {missing.stderr.strip()!r}")
        unset = orrery("eval", run, "data.eval=", check=False)
        check(unset.returncode == 78 and "data.eval" in unset.stderr, "no held-out data: exit 78 and the key's name")
        words = ["run", "configs/tiny.yaml", f"run.dir={tmp}/never", f"data.train={tmp}/data", f"data.eval={tmp}/data"]
        for key, code in (("eval.horizon=100", 65), ("eval.sequences=400000", 78), ("eval.context=10", 78), ("model.modalities=video,video", 78)):
            done = orrery(*words, key, check=False)
            told = done.stderr.strip().splitlines()[-1]
            check(done.returncode == code and key.split("=")[0] in told, f"training with {key}: exit {done.returncode}: {told}")
            check(not (tmp / "never" / "metrics.jsonl").exists(), "before its first step")
        long = orrery("eval", run, "eval.horizon=100", check=False)
        check(long.returncode == 65 and "eval.horizon" in long.stderr, "episodes too short: exit 65 and the key's name")


main()
