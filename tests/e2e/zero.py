#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""comm.zero=2 under real mpirun. fast: with a shard on each rank the bits of comm.zero=1, with more of them the same bits each
time and the same numbers to rounding. exact: the bits of comm.zero=1 and of one rank, always. NaN, clipping, average and both
optimisers in a whole run; a run that goes on with the other setting; what is refused; what `orrery plan` says."""
import json
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import BIN, ROOT, SKIP, check, digest, environment, folder, orrery  # noqa: E402

CONFIG = "configs/tiny.yaml"
SMALL = "comm.bucket_mb=0.001"  # a bucket for each layer


def rank(ranks, *words):
    return subprocess.run(["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), str(BIN / "orrery-rank"), "--config", CONFIG, *words],
                          cwd=ROOT, env=environment(OMP_NUM_THREADS=1), text=True, capture_output=True, timeout=120)


def steps(ranks, shards, zero, *words, reduce="fast"):
    done = rank(ranks, "--task", "step-bench", "train.steps=6", "train.batch=24", "data.frames=3", "model.layers=3", f"comm.shards={shards}",
                f"comm.reduce={reduce}", f"comm.zero={zero}", *words)
    if done.returncode:
        print(done.stdout, done.stderr)
        raise SystemExit(1)
    got = json.loads(done.stdout)
    return got["weights_sha256"], got["loss"]


def one_shard_each():
    for ranks in 2, 3, 4:
        for cut in SMALL, "comm.bucket_mb=0.02", "comm.bucket_mb=0":
            check(steps(ranks, ranks, 2, cut) == steps(ranks, ranks, 1, cut), f"{ranks} ranks, {cut}: the bits of comm.zero=1")
    want = steps(2, 2, 1, SMALL, "optim.kind=adamw")
    check(steps(2, 2, 2, SMALL, "optim.kind=adamw") == want, "AdamW alone: the same bits")
    check(steps(2, 2, 2, SMALL, "optim.kind=adamw", "comm.overlap=false") == want, "without overlap: the same bits")
    check(steps(2, 2, 1, SMALL, "run.seed=2")[0] != steps(2, 2, 1, SMALL)[0], "another seed gives others")


def several_shards():
    other_order = 0
    for ranks, shards in (2, 4), (3, 4), (2, 3), (3, 8):
        exact, one = steps(ranks, shards, 1, reduce="exact"), steps(ranks, shards, 1, SMALL)
        two = steps(ranks, shards, 2, SMALL)
        for name, (_, loss) in (("exact", exact), ("comm.zero=1", one)):
            check(abs(two[1] - loss) <= 1e-5 * loss, f"{shards} shards on {ranks} ranks: loss {two[1]:.9g}, {name} {loss:.9g}")
        check(steps(ranks, shards, 2, SMALL) == two, "twice the same bits")
        check(steps(ranks, shards, 2, SMALL, "comm.overlap=false") == two, "without overlap too")
        other_order += two[0] != one[0]
    check(other_order > 0, "another order than that of comm.zero=1")


def exact_bits():
    for shards, worlds in (4, (1, 2, 3, 4)), (6, (2, 4)):
        want = steps(1, shards, 1, reduce="exact")
        for ranks in worlds:
            check(steps(ranks, shards, 2, SMALL, reduce="exact") == want, f"exact, {shards} shards on {ranks} ranks: the bits of comm.zero=1 on one")
    want = steps(3, 4, 1, "optim.kind=adamw", reduce="exact")
    for words in [SMALL], ["comm.bucket_mb=0"], ["comm.overlap=false", SMALL]:
        check(steps(3, 4, 2, "optim.kind=adamw", *words, reduce="exact") == want, f"exact, AdamW, {', '.join(words)}: the same bits")


def one_rank():
    for words in [SMALL], ["comm.overlap=false"]:
        check(steps(1, 4, 2, *words) == steps(1, 4, 1, *words), f"one rank, {words[0]}: the bits of comm.zero=1")


def train(tmp, name, zero, *words, status=0, ranks=2):
    done = orrery("run", CONFIG, "-n", ranks, f"run.dir={tmp}/{name}", f"data.train={tmp}/data", "data.eval=", "train.steps=20", "checkpoint.every=6",
                  "model.layers=2", "comm.reduce=fast", "comm.shards=2", SMALL, "optim.ema=0.9", "optim.clip=0.05", "launch.attempts=1",
                  f"comm.zero={zero}", *words, check=False)
    check(done.returncode == status, f"{name}, comm.zero={zero}: exit {done.returncode}" + (f": {done.stderr[-400:]}" if done.returncode != status else ""))
    return done


def whole_runs(tmp):
    """Clipped, averaged, with a bad step that is skipped; then with a rank that is killed, and the other setting."""
    orrery("simulate", "table", "--out", f"{tmp}/data", "--episodes", 6, "--frames", 40)
    for zero in 1, 2:
        train(tmp, f"bad-{zero}", zero, "train.on_nan=skip", "fault.inject=nan:rank=1,step=5")
        train(tmp, f"whole-{zero}", zero)
    check(digest(f"{tmp}/bad-1") == digest(f"{tmp}/bad-2"), "a skipped step: the same bits")
    check(digest(f"{tmp}/bad-1")[0] != digest(f"{tmp}/whole-1")[0], "which the skipped step changed")
    want = digest(f"{tmp}/whole-1")
    check(digest(f"{tmp}/whole-2") == want, "a whole run: the same bits, optimiser and average too")
    rows = [json.loads(line) for line in (tmp / "whole-2" / "metrics.jsonl").read_text().splitlines()]
    check(any(r.get("grad_norm", 0) > 0.05 for r in rows), "whose gradients were clipped")
    for first, then in (1, 2), (2, 1):
        train(tmp, f"from-{first}", first, "fault.inject=kill:rank=1,step=15", status=137)
        done = train(tmp, f"from-{first}", then)
        check(done.stderr.startswith(("resume from step 6 of ", "resume from step 12 of ")), done.stderr.splitlines()[0])
        check(digest(f"{tmp}/from-{first}") == want, f"killed with comm.zero={first}, ended with {then}: the same bits")
    exact = ["comm.reduce=exact", "comm.shards=4"]
    train(tmp, "exact", 1, *exact)
    train(tmp, "exact-on", 2, *exact, "fault.inject=kill:rank=1,step=15", status=137)
    train(tmp, "exact-on", 2, *exact, ranks=3)
    check(digest(f"{tmp}/exact-on") == digest(f"{tmp}/exact"), "exact: killed on 2 ranks, ended on 3, comm.zero=2: the bits of 2 ranks and comm.zero=1")


def refused():
    done = rank(3, "--task", "step-bench", "train.batch=4", "comm.shards=2", "comm.zero=2")
    line = [text for text in done.stderr.splitlines() if "error:" in text]
    check(done.returncode == 78 and line and "comm.shards" in line[0], f"exit {done.returncode}: {line}")
    check(orrery("config", "show", CONFIG, "comm.zero=3", check=False).returncode == 78, "there is no third stage")


def plans():
    def plan(zero, reduce="fast", shards=8):
        return json.loads(orrery("plan", CONFIG, "--ranks", "4", "--json", "model.width=128", "model.layers=24", f"comm.reduce={reduce}", f"comm.shards={shards}",
                                 "train.batch=8", f"comm.zero={zero}", "comm.bucket_mb=1").stdout)
    one, two = plan(1, "exact", 4), plan(2, "exact", 4)
    for a, b in zip(one["gpu_memory"][0]["ranks"], two["gpu_memory"][0]["ranks"]):
        check(b["gradients"] < a["gradients"] / 2 and a["gradients"] > a["weights"], f"exact, rank {a['rank']} of a GPU: {a['gradients']}, then {b['gradients']}")
    check(two["bytes_sent_per_step_and_rank"] == one["bytes_sent_per_step_and_rank"], "exact, a shard on each rank: as much is sent")
    one, two = plan(1), plan(2)
    for a, b in zip(one["memory"], two["memory"]):
        check(b["total"] - a["total"] == b["step_buffers"] - a["step_buffers"] < 0, f"rank {a['rank']}: {a['step_buffers']} bytes, then {b['step_buffers']}")
    for a, b in zip(one["gpu_memory"][0]["ranks"], two["gpu_memory"][0]["ranks"]):
        check(b["gradients"] < a["gradients"] / 2 and a["gradients"] == a["weights"], f"rank {a['rank']} of a GPU: {a['gradients']}, then {b['gradients']}")
    check(two["bytes_sent_per_step_and_rank"] > 1.4 * one["bytes_sent_per_step_and_rank"], "two shards on each rank: more is sent")


def main():
    if not shutil.which("mpirun"):
        print("skipped: no mpirun")
        sys.exit(SKIP)
    with folder() as tmp:
        for test in (one_shard_each, several_shards, exact_bits, one_rank, refused, plans):
            print("--", test.__name__)
            test()
        whole_runs(tmp)
    print("all good")


main()
