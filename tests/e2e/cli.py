#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a person types: help, bad usage, bad configs, exit codes; stdout is data, stderr is talk."""
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import config, fake_environment, settings  # noqa: E402
from orrery_run import BIN, ORRERY, check, environment, folder, orrery  # noqa: E402


def expect(status, words, *texts, env=None):
    done = orrery(*words, check=False, env=env)
    check(done.returncode == status, f"orrery {' '.join(map(str, words))}: exit {done.returncode}, wanted {status}: {done.stderr.strip()[:200]}")
    for text in texts:
        check(text in done.stderr + done.stdout, f"it says '{text}'")
    return done


def help_everywhere():
    overview = expect(0, ["--help"]).stdout
    verbs = [line.split()[0] for line in overview.splitlines() if line.startswith("  ")]
    check(len(verbs) >= 10, f"verbs: {' '.join(verbs)}")
    for verb in verbs:
        done = expect(0, [verb, "--help"], f"usage: orrery {verb}")
        check(done.stderr == "", "help goes to stdout")
    check("guard" not in verbs, "the guard is not for people")
    check(expect(0, ["help", "run"]).stdout == expect(0, ["run", "--help"]).stdout, "help VERB is VERB --help")
    expect(64, ["help", "rnu"], "did you mean 'run'")
    expect(0, ["simulate", "--help"], "worlds:", "friction", "0 .. 4")


def bad_usage():
    expect(64, [], "a verb is missing")
    expect(64, ["rnu"], "did you mean 'run'")
    for other, verb in (("train", "run"), ("resume", "run"), ("status", "top")):
        expect(64, [other], f"did you mean '{verb}'")
    check("did you mean" not in expect(64, ["pan4"]).stderr, "no guess at a short word with two slips")
    expect(64, ["run"], "usage: orrery run CONFIG")
    expect(64, ["run", "a", "b"], "unexpected argument 'b'")
    expect(64, ["run", "a", "train.steps"], "train.steps=VALUE")
    expect(64, ["--json", "ps"], "a verb comes first")
    expect(64, ["run", "a", "--rank", "2"], "did you mean '--ranks'")
    expect(64, ["run", "a", "-n", "0"], "between 1 and")
    expect(64, ["run", "a", "-n", "two"], "whole number")
    expect(64, ["config", "shwo"], "one of show, explain, schema")
    expect(64, ["simulate", "table"], "--out")
    expect(64, ["guard"], "")
    expect(64, ["guard", "true"], "not by hand")
    expect(64, ["logs", ".", "--task", "../../etc"], "is no task")


def rank_usage():
    for word in ("--config", "--task", "--device"):
        done = subprocess.run([BIN / "orrery-rank", word], env=environment(), text=True, capture_output=True, timeout=60)
        check(done.returncode == 64 and f"{word} needs a value" in done.stderr, f"orrery-rank {word}: exit {done.returncode}: {done.stderr.strip()}")


def not_there_yet():
    with folder() as tmp:
        expect(78, ["run", config(tmp), "--hosts", "a b"], "no host name")


def bad_configs():
    with folder() as tmp:
        path = pathlib.Path(tmp) / "bad.yaml"
        path.write_text("trian:\n  steps: 5\ntrain:\n  steps: many\n  batch: -1\n")
        done = expect(78, ["run", path], "did you mean 'train'", f"{path}:4:", f"{path}:5:", "3 errors")
        check(done.stdout == "", "nothing on stdout")
        expect(66, ["run", f"{tmp}/none.yaml"], "No such file")
        path.write_text("train:\n\tsteps: 5\n")
        expect(78, ["run", path], f"{path}:2:1:", "(YAML takes no tabs)")
        path.write_text("train: [\n  steps\n")
        check("tabs" not in expect(78, ["run", path]).stderr, "no word of tabs where there are none")
        expect(64, ["run", tmp], f"{tmp} is a folder; the config is wanted")
        (pathlib.Path(tmp) / "config.yaml").write_text("train:\n  steps: 5\n")
        expect(64, ["plan", tmp], f"{tmp} is a run folder; the config is wanted: {tmp}/config.yaml")
        done = expect(78, ["run", config(tmp), "train.step=5"], "did you mean 'train.steps'")
        check(done.stderr.startswith("command line: error: ") and done.stderr.count("error:") == 1, "one prefix")
        deep = pathlib.Path(tmp) / "deep.yaml"
        deep.write_text("a: " + "[" * 200000)
        expect(78, ["config", "show", deep])
        expect(78, ["run", config(tmp), "-n", 5, *settings(tmp)], "comm.shards 4 is less than the 5 ranks")
        expect(78, ["run", config(tmp), "-n", 2, *settings(tmp, comm__backend="self")], "comm.backend=self is for one rank")
        expect(78, ["run", config(tmp), *settings(tmp, comm__cp=2, comm__tp=2)], "comm.cp is 2", "comm.tp is 2", "2 errors")
        check(not (pathlib.Path(tmp) / "run").exists(), "nothing was started")


def config_verbs():
    with folder() as tmp:
        shown = expect(0, ["config", "show", config(tmp), "train.steps=7"]).stdout
        check("steps: 7  # command line" in shown and "batch: 12" in shown, "values with their origins")
        schema = json.loads(expect(0, ["config", "schema"]).stdout)
        check(isinstance(schema, dict), "the schema is JSON")
        expect(0, ["config", "explain", "train.steps"], "optimiser steps")
        expect(0, ["config", "reference"], "train.steps")
        expect(64, ["config", "explain", "trian"], "did you mean 'train'")
        expect(64, ["config", "explain", "train.stesp"], "did you mean 'train.steps'")
        expect(64, ["config", "explain", "log_every"], "did you mean 'train.log_every'")


def missing_things():
    with folder() as tmp:
        expect(66, ["why", f"{tmp}/none"], "no run folder")
        expect(66, ["why", tmp], "no run.json")
        expect(66, ["logs", tmp], "no logs")
        expect(66, ["data", "index", f"{tmp}/none"], f"there is no folder {tmp}/none")
        (pathlib.Path(tmp) / "x.tar").write_bytes(b"")
        expect(64, ["data", "index", f"{tmp}/x.tar"], "give the folder that holds it")
        os.unlink(f"{tmp}/x.tar")
        expect(66, ["report", tmp], "no run folder")
        check(not os.listdir(tmp), "report leaves no page in a folder that is none of ours")
        expect(66, ["simulate", "table", "--out", f"{tmp}/data", "--episodes", 1], "set TMPDIR", env=fake_environment(TMPDIR=f"{tmp}/none"))
        expect(66, ["run", config(tmp), *settings(tmp)], "is no program", env=fake_environment(ORRERY_RANK_PROGRAM="/nonexistent"))


def a_reader_that_has_enough():
    with folder() as tmp:
        big = pathlib.Path(tmp) / "big"
        big.write_bytes(bytes(20 << 20))
        for words in (["config", "schema"], ["config", "reference"], ["store", "cat", big]):
            child = subprocess.Popen([ORRERY, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            child.stdout.read(10)
            child.stdout.close()
            told = child.stderr.read().decode()
            check(child.wait(20) == 0 and told == "", f"orrery {words[0]} {words[1]} | head: exit {child.returncode}: {told.strip()}")
        with open("/dev/full", "w") as full:
            done = subprocess.run([ORRERY, "store", "cat", str(big)], stdout=full, stderr=subprocess.PIPE, text=True)
        check(done.returncode == 74 and "cannot write" in done.stderr, f"store cat to a full disk: exit {done.returncode}: {done.stderr.strip()}")


def full_output():
    with open("/dev/full", "w") as full:
        done = subprocess.run([ORRERY, "config", "schema"], stdout=full, stderr=subprocess.PIPE, text=True)
    check(done.returncode == 74, f"stdout on a full disk: exit {done.returncode}")



def bench_starts_ranks_as_run_does():
    """The program that stands in for a rank tells of what a rank sees."""
    with folder() as tmp:
        rank = pathlib.Path(tmp) / "rank"
        rank.write_text("#!/bin/sh\necho cores,$(env -u OMP_NUM_THREADS nproc),pml,$OMPI_MCA_pml\n")
        rank.chmod(0o755)
        env = environment(ORRERY_RANK_PROGRAM=rank)
        for ranks, pml in ((1, ""), (2, "ob1"), (3, "ob1")):
            done = expect(0, ["bench", "comm", config(tmp), "-n", ranks, "--csv", *settings(tmp)], env=env)
            seen = f"cores,{len(os.sched_getaffinity(0))},pml,{pml}"
            check(done.stdout.splitlines() == ranks * [seen], f"{ranks} ranks, each: {seen}: {done.stdout!r}")
        expect(78, ["bench", "step", config(tmp), "trian.steps=3"], "did you mean", env=env)


def closed_descriptors():
    done = subprocess.run(["sh", "-c", f"{ORRERY} config schema >&-"], stderr=subprocess.PIPE, text=True)
    check(done.returncode == 74 and "Bad file descriptor" in done.stderr, f"stdout closed: exit {done.returncode}: {done.stderr.strip()}")
    with folder() as tmp:
        words = " ".join(map(str, ["run", config(tmp), "-n", 2, *settings(tmp)]))
        done = subprocess.run(["sh", "-c", f"{ORRERY} {words} <&- >&- 2>&-"], env=fake_environment())
        check(done.returncode == 0, f"a run with all three closed: exit {done.returncode}")
        run = pathlib.Path(tmp) / "run"
        for name in ("lock", "run.json", "events.jsonl"):
            for line in (run / name).read_text().splitlines():
                json.loads(line)
            print(f"ok: {name} holds nothing but its own")


for test in (help_everywhere, bad_usage, rank_usage, not_there_yet, bad_configs, config_verbs, missing_things, a_reader_that_has_enough, full_output, bench_starts_ranks_as_run_does, closed_descriptors):
    print("--", test.__name__)
    test()
