#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""orrery replay: one step again to the same bits on other numbers of ranks; orrery diff: where two runs part."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import check, folder, orrery, refused  # noqa: E402

CONFIG = "configs/tiny.yaml"


def train(tmp, run, steps, *more, ranks=2, status=0):
    done = orrery("run", CONFIG, "-n", ranks, f"run.dir={tmp}/{run}", f"data.train={tmp}/data", "data.eval=", f"train.steps={steps}",
                  "train.log_every=3", "train.decay=0", "checkpoint.every=6", "checkpoint.keep=9", *more, check=False)
    check(done.returncode == status, f"run {run}: exit {done.returncode}, wanted {status}: {done.stderr.strip()[-200:]}")


def replay(tmp, run, step, *more, status=0):
    done = orrery("replay", f"{tmp}/{run}", "--step", step, *more, check=False)
    check(done.returncode == status, f"replay {step} {' '.join(more)}: exit {done.returncode}, wanted {status}: {done.stderr.strip()[-300:]}")
    return done.stdout


def diff(tmp, a, b, status):
    done = orrery("diff", f"{tmp}/{a}", f"{tmp}/{b}", "--json", check=False)
    check(done.returncode == status, f"diff {a} {b}: exit {done.returncode}, wanted {status}: {done.stderr.strip()[-300:]}")
    text = orrery("diff", f"{tmp}/{a}", f"{tmp}/{b}", check=False).stdout
    return json.loads(done.stdout), text


def same_bits(tmp):
    """A logged step; one with a checkpoint; one with neither: on one, two and three ranks."""
    for step, texts in ((9, ("as recorded", "no checkpoint of this step")), (12, ("as recorded", "equal to checkpoint")),
                        (11, ("not recorded",))):
        seen = set()
        for ranks in ("1", "3"):
            text = replay(tmp, "a", step, "-n", ranks)
            check(all(t in text for t in texts) and "DIFFER" not in text, f"step {step} on {ranks} ranks: {texts}")
            result = json.loads(replay(tmp, "a", step, "-n", ranks, "--json"))
            check(result["ranks"] == int(ranks) and result["from_step"] == 6, f"from step {result['from_step']}")
            seen.add(json.dumps([result[k] for k in ("loss", "losses", "grad_norm", "weights_sha256", "samples")]))
        check(len(seen) == 1, f"step {step}: one answer on 1 and 3 ranks")
    parts = json.loads(replay(tmp, "a", 9, "--json"))
    total = sum(s["losses"]["video"] for s in parts["shards"])
    check(abs(total - parts["losses"]["video"]) <= 1e-12 * abs(total), "the shards' shares add up to the loss")
    check(parts["samples"][0]["sample"] == parts["first_sample"] == 8 * (parts["last_sample"] - parts["first_sample"] + 1), "the very samples")


def before_the_first_checkpoint(tmp):
    text = replay(tmp, "a", 3)
    check("from step 0" in text and "as recorded" in text, "from the start")


def the_config_of_its_time(tmp):
    """Run c went on with another rate: step 9 still replays with the rate that it had then."""
    text = replay(tmp, "c", 9)
    check("DIFFER" not in text and text.count("as recorded") == 7, "step 9 of run c, as recorded")


def a_tampered_record_is_noticed(tmp):
    path = pathlib.Path(tmp) / "a" / "metrics.jsonl"
    kept = path.read_text()
    rows = [json.loads(line) for line in kept.splitlines()]
    for row in rows:
        if row["step"] == 9:
            row["losses"]["touch"] *= 1 + 1e-15
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    text = replay(tmp, "a", 9, status=65)
    check(text.count("DIFFERS") == 1, "one number in its last bit")
    path.write_text(kept)


def a_nan_is_found(tmp):
    """The run ends at a NaN; the replay shows in which shard it is."""
    train(tmp, "nan", 18, "fault.inject=nan:rank=1,step=13", "launch.attempts=1", ranks=2, status=65)
    text = replay(tmp, "nan", 14, "fault.inject=nan:rank=1,step=13", "-n", "2")
    bad = [line for line in text.splitlines() if "NOT FINITE" in line]
    check(len(bad) == 1 and "(rank 1," in bad[0], f"the shard is named: {bad}")
    check("not finite" not in replay(tmp, "nan", 14), "without the fault the step is sound")


def runs_that_agree(tmp):
    found, text = diff(tmp, "a", "b", 0)
    check(found["first_different_step"] == -1 and found["metrics_equal"] == 6 and found["checkpoints_equal"] == 3, "2 and 3 ranks: the same")
    check("the same in all that both have" in text, text.splitlines()[-1])


def runs_that_part(tmp):
    found, text = diff(tmp, "a", "c", 1)
    check(found["last_equal_step"] == 9 and found["first_different_step"] == 12, f"they part after 9 and by 12: {text}")
    check(found["checkpoints_part_at"] == 12 and found["checkpoints_equal"] == 1, "in the checkpoint of step 12")
    check(found["tensors"] and all(t["file"].startswith("rank-") and t["largest"] > 0 for t in found["tensors"]), "tensors, ranks, sizes")
    check([k["key"] for k in found["config"]] == ["optim.lr"], "and the key that differs")
    check("orrery replay" in text and "--step 10" in text, "what to do next")


def other_samples(tmp):
    train(tmp, "d", 6, "run.seed=5")
    found, text = diff(tmp, "a", "d", 1)
    check(found["samples_part"] and found["first_different_step"] == 3, "another seed: other samples")


def bad_words(tmp):
    refused(["replay", f"{tmp}/a"], 64, "--step N")
    refused(["replay", f"{tmp}/none", "--step", "3"], 66, "no run folder")
    refused(["replay", tmp, "--step", "3"], 66, "config.yaml")
    refused(["replay", f"{tmp}/a", "--step", "19"], 64, "steps 1 to 18")
    refused(["diff", f"{tmp}/a"], 64, "RUN_B")
    refused(["diff", f"{tmp}/a", tmp], 66, "nothing to compare")


def main():
    with folder() as tmp:
        orrery("simulate", "table", "--out", f"{tmp}/data", "--episodes", 8, "--frames", 40)
        train(tmp, "a", 18)
        train(tmp, "b", 18, ranks=3)
        # The same until step 9, then another rate.
        train(tmp, "c", 9)
        train(tmp, "c", 18, "optim.lr=0.001")
        for test in (same_bits, before_the_first_checkpoint, the_config_of_its_time, a_tampered_record_is_noticed, a_nan_is_found, runs_that_agree,
                     runs_that_part, other_samples, bad_words):
            print("--", test.__name__)
            test(tmp)


main()
