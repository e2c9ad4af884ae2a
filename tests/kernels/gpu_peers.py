#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""peers.py without a GPU, under a stand-in for PyTorch: its bars with and without FlashAttention-3, and that a peer which
is missing, refused, wrong or stuck is left out and said so."""
import contextlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile

PEERS = "tests/bench/gpu/peers.py"
TORCH = """
import types
cuda = types.SimpleNamespace(is_available=lambda: True)
bfloat16 = float32 = None
def randn(*shape, **kind): return types.SimpleNamespace(data_ptr=lambda: 4096)
def empty(*shape, **kind): return randn()
empty_like = empty
"""
REFUSED = """#include <stddef.h>
void *fa3_open(int batch, int tokens, int heads, int causal) { return NULL; }
int fa3_forward(void *p, void *t, void *stream) { return 1; }
int fa3_backward(void *p, void *t, int fixed, void *stream) { return 1; }
void fa3_close(void *p) {}
"""
OURS = {"ours forward": 10.0, "ours backward": 30.0, "ours backward free": 28.0, "flops": 1e12}
SDPA = {"cudnn forward": 9.5, "flash forward": None, "cudnn backward": 27.0, "flash backward": 40.0}
FA3 = {"fa3 forward": 8.0, "fa3 backward": 24.0, "fa3 backward fixed": 36.0}


def said(run, *arguments):
    """What a call returned and its lines."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        result = run(*arguments)
    return result, out.getvalue().splitlines()


def check(seen, right):
    if seen != right:
        sys.exit(f"seen:  {seen}\nright: {right}")


def bars(peers):
    alone = ["BAR pass      full 8192: backward fixed / free = 0.933 (ship 0.88, stretch 0.95)",
             "BAR pass      full 8192: forward full = 0.950 (ship 0.9, stretch 1.0, beside cudnn)",
             "BAR pass      full 8192: backward full = 0.900 (ship 0.85, stretch 1.0, beside cudnn)"]
    check(said(peers.judge, {("full", 8192): OURS | SDPA}, "full", 8192)[1], alone)
    beside = [alone[0], "BAR MISS      full 8192: forward full = 0.800 (ship 0.9, stretch 1.0, beside fa3)",
              "BAR MISS      full 8192: backward full = 0.800 (ship 0.85, stretch 1.0, beside fa3)",
              "BAR none      full 8192: backward fixed / FlashAttention-3's = 1.200"]
    check(said(peers.judge, {("full", 8192): OURS | SDPA | FA3}, "full", 8192)[1], beside)
    lines = said(peers.judge, {("causal", 8192): OURS | {"ours forward no pairs": 11.0}}, "causal", 8192)[1]
    check(lines[1:], ["BAR none      causal 8192: forward, no pairs / pairs = 1.100"])
    failed = dict.fromkeys(FA3)
    lines = said(peers.judge, {("full", 8192): OURS | SDPA | failed}, "full", 8192)[1]
    check(lines, alone + ["BAR none      full 8192: backward fixed / FlashAttention-3's"])
    lines = said(peers.judge, {("causal", 8192): OURS | SDPA | FA3}, "causal", 8192)[1]
    check(lines, [alone[0].replace("full", "causal"), beside[3].replace("full", "causal")])


def trial(peers):
    right = {"o": 0.004, "dq": 0.01, "dq fixed": 0.01}
    for errors, same, verdict in ((right, True, 0), (right | {"dq": 0.2}, True, 1), (right | {"o": float("inf")}, True, 1),
                                  (right, False, 1)):
        peers.fa3_errors = lambda *shape, found=(errors, same): found
        rc, lines = said(peers.fa3_trial, "")
        check((rc, len(lines), all("# fa3 good" in line for line in lines)), (verdict, 4, verdict == 0))


def beside(peers, folder):
    library, peer = os.path.join(folder, "libbench_attention.so"), os.path.join(folder, "libpeer_fa3.so")
    check(said(peers.fa3_beside, library), (None, []))
    source = os.path.join(folder, "refused.c")
    with open(source, "w", encoding="ascii") as f:
        f.write(REFUSED)
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", peer], check=True)
    result, lines = said(peers.fa3_beside, library)
    check((result, lines[-2:]), (None, ["# fa3 said: RuntimeError: FlashAttention-3 was refused",
                                        "# fa3 left out: its trial ended with 1"]))
    check(said(peers.fa3_opened, peer, "full", 8192, 4), (None, ["# fa3 left out of full 8192: FlashAttention-3 was refused"]))
    check(said(peers.fa3_opened, peer, "block", 8192, 4), (None, []))
    with open(source, "a", encoding="ascii") as f:
        f.write("#include <unistd.h>\n__attribute__((constructor)) static void stuck(void) { sleep(100); }\n")
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", peer], check=True)
    peers.FA3_SECONDS = 1
    check(said(peers.fa3_beside, library), (None, ["# fa3 left out: its trial did not end in 1 s"]))


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(os.path.join(folder, "torch/nn"))
        for name, text in (("__init__", TORCH), ("nn/__init__", ""), ("nn/functional", "")):
            with open(os.path.join(folder, f"torch/{name}.py"), "w", encoding="ascii") as f:
                f.write(text)
        sys.path.insert(0, folder)
        os.environ["PYTHONPATH"] = folder  # of the trial's own process
        spec = importlib.util.spec_from_file_location("peers", PEERS)
        peers = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(peers)
        bars(peers)
        beside(peers, folder)
        trial(peers)


main()
