#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Is a kernel's every barrier, wait and fence needed, and would a missing one be found? Leaves out one after another in
what nvcc made of the kernels, and runs the tests on the emulator, which watches every access (tests/ptx). What is
missed is not needed (a hand-over that is only for speed, a wait that another one implies, the last wait of a kernel), or
the tests do not run it.

usage: tests/ptx/mutants.py BUILD sums|loss|judge|norm|sm80|forward|pairs|backward|short|all
short: sums and loss, of which none may be missed (ctest simt.ptx_mutants); the others take from a minute to ten."""
import os
import re
import subprocess
import sys
import tempfile

KINDS = re.compile(r"(@!?%p\d+\s+)?(bar\.sync|bar\.arrive|bar\.warp\.sync|mbarrier\.arrive|mbarrier\.try_wait|barrier\.cluster\.wait|cp\.async\.wait_group|"
                   r"wgmma\.wait_group|cp\.async\.bulk\.wait_group|fence\.proxy\.async\.shared|ld\.acquire|red\.release)")
# What stands in for some: a wait that is over at once, an order that is none.
INSTEAD = [(r"mbarrier\.try_wait\S+ (\w+),.*;", r"mov.pred \1, 1;"), (r"ld\.acquire\.gpu", "ld.volatile"), (r"red\.release", "red.relaxed")]
# PTX, kernels, and the tests that run them.
CAMPAIGNS = {
    "sums": [("sums", "squares", ["test_ops", "sum_squares"]), ("sums", "col_sum", ["test_ops", "col_sum"])],
    "loss": [("loss", "loss", ["test_ops", "loss"])],
    "judge": [("judge", "judge", ["test_ops", "judge"])],
    "norm": [("norm", "norm_backward", ["test_ops", "norm_mod_backward"])],
    "sm80": [("attention_sm80", "ILi64E", ["test_cuda_attention", "sm80_dim64"])],
    "forward": [("attention_sm90_forward", "ILi128ELb0E", ["test_cuda_attention", t]) for t in ("sm90_dim128", "holes")],
    "pairs": [("attention_sm90_forward", "ILi128ELb1E", ["test_cuda_attention", "pairs_have_the_same_bits"])],
    "backward": [("attention_sm90_backward", "ILi128E", ["test_cuda_attention", t]) for t in ("sm90_dim128", "holes")] +
                [("attention_sm90_backward", "backward90ILi64E", ["test_cuda_attention", "any_pace_the_same_bits"])],
}
CAMPAIGNS["short"] = CAMPAIGNS["sums"] + CAMPAIGNS["loss"]
CAMPAIGNS["all"] = [c for name in ("sums", "loss", "judge", "norm", "sm80", "forward", "pairs", "backward") for c in CAMPAIGNS[name]]


def places(text):
    """(line number, kernel, where in the source) of each instruction that holds something back."""
    lines, kernel, where = text.split("\n"), "", ""
    files = dict(re.findall(r'\.file\s+(\d+) "([^"]*)"', text))
    for i, line in enumerate(lines):
        entry, loc = re.search(r"\.entry (\S+)\(", line), re.match(r"\s*\.loc\s+(\d+) (\d+)", line)
        outer = re.match(r"\s*\.loc\s+\d+ \d+.*inlined_at (\d+) (\d+)", line)
        kernel = entry.group(1) if entry else kernel
        if loc:
            where = f"{os.path.basename(files[(outer or loc).group(1)])}:{(outer or loc).group(2)}"
        if KINDS.match(line.strip()):
            yield i, kernel, where


def without(lines, i):
    for pattern, instead in INSTEAD:
        if re.search(pattern, lines[i]):
            return [*lines[:i], re.sub(pattern, instead, lines[i]), *lines[i + 1:]]
    return [*lines[:i], "", *lines[i + 1:]]


def said_of(build, name, text, test):
    ptx = f"{build}/tests/ptx"
    with tempfile.TemporaryDirectory() as folder:
        for other in os.listdir(ptx):
            if other.endswith(".ptx") and other != f"{name}.ptx":
                os.symlink(f"{ptx}/{other}", f"{folder}/{other}")
        with open(f"{folder}/{name}.ptx", "w", encoding="utf-8") as f:
            f.write(text)
        environment = dict(os.environ, ORRERY_PTX=folder, ORRERY_TEST_DEVICE="cuda", ORRERY_TEST_LARGEST="80", ORRERY_TEST_SEED="5",
                           ORRERY_CUDA_PLUGIN=f"{build}/tests/liborrery_simt.so")
        try:
            done = subprocess.run([f"{build}/tests/{test[0]}", *test[1:]], env=environment, capture_output=True, text=True, timeout=600, check=False)
        except subprocess.TimeoutExpired:
            return "does not end"
    words = done.stdout + done.stderr
    found = re.search(r"^simt: (.*)$", words, re.M) or re.search(r"^ERROR: (.*)$", words, re.M)
    return None if done.returncode == 0 else found.group(1) if found else f"exit {done.returncode}"


def campaign(build, name, pattern, test):
    missed = total = 0
    with open(f"{build}/tests/ptx/{name}.ptx", encoding="utf-8") as f:
        text = f.read()
    lines = text.split("\n")
    for i, kernel, where in places(text):
        if not re.search(pattern, kernel):
            continue
        said = said_of(build, name, "\n".join(without(lines, i)), test)
        total, missed = total + 1, missed + (said is None)
        print(f"{'missed' if said is None else 'found '} {where} {lines[i].strip()[:60]} | {' '.join(test)}: {(said or '')[:160]}", flush=True)
    return missed, total


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in CAMPAIGNS:
        sys.exit(__doc__)
    results = [campaign(os.path.abspath(sys.argv[1]), *c) for c in CAMPAIGNS[sys.argv[2]]]
    missed, total = (sum(column) for column in zip(*results))
    print(f"{total - missed} of {total} found")
    sys.exit(1 if total == 0 or (sys.argv[2] == "short" and missed) else 0)


if __name__ == "__main__":
    main()
