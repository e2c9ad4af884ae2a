#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Our kernels beside PyTorch's on one GPU. Calls of all sides take turns in one process, the L2 is overwritten before
each, medians are compared. Rows as CSV while it runs: what, shape, ms, rate, unit; then the bars: pass or MISS.

    peers.py attention LIBRARY [SECONDS]   LIBRARY: libbench_attention.so of attention.sh; SDPA (cuDNN, FlashAttention) and
                                           FlexAttention compiled, FlashAttention-3 where libpeer_fa3.so lies beside LIBRARY;
                                           most valuable shapes first, none begun after SECONDS (170)
    peers.py fa3 PEER                      PEER: libpeer_fa3.so of peer_fa3.sh; its results against SDPA's: good or wrong
    peers.py rest                          copy, products, RMSNorm compiled, fused AdamW: beside `orrery bench kernels`"""
import ctypes
import os
import statistics
import subprocess
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("skipped: no PyTorch")
    sys.exit(77)
if not torch.cuda.is_available():
    print("skipped: no GPU")
    sys.exit(77)

WIDTH, HEAD, FRAME = 2048, 128, 256
HEADS = WIDTH // HEAD
ROUNDS = 7
PASSES = {"forward": 0, "backward": 1, "backward free": 2, "forward no pairs": 3}
SDPA = ("cudnn", "flash")
FA3_WAYS = {"fa3 forward": 0, "fa3 backward": 1, "fa3 backward fixed": 2}
FA3_WRONG, FA3_SECONDS = 0.03, 60  # largest difference over the largest value (bf16 rounds by 0.004); of its trial
# name, ship, stretch; what is compared is in judge(). A ratio without a bar is printed too.
BARS = {"forward full": (0.90, 1.00), "backward full": (0.85, 1.00), "backward fixed / free": (0.88, 0.95),
        "block-causal / full, per FLOP": (0.90, 0.95), "block-causal / flex": (1.8, 2.5)}


def medians(ways, most_s=12.0):
    """{name: median ms or None} of functions that queue work, called in turn."""
    flush = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    times, rounds = {}, ROUNDS
    for name, run in ways.items():
        try:
            run()
            torch.cuda.synchronize()
            begun = time.monotonic()
            run()
            torch.cuda.synchronize()
            rounds = min(rounds, max(3, int(most_s / len(ways) / (time.monotonic() - begun + 1e-3))))
            times[name] = []
        except Exception as why:  # a back end that does not take the shape is a row too
            print(f"# {name}: {type(why).__name__}: {str(why).splitlines()[0][:90] if str(why) else ''}", flush=True)
    for _ in range(rounds):
        for name, each in times.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            flush.zero_()
            torch.cuda._sleep(4_000_000)  # about 2 ms: the host is ahead, its time is not measured
            begin.record()
            ways[name]()
            end.record()
            torch.cuda.synchronize()
            each.append(begin.elapsed_time(end))
    return {name: statistics.median(times[name]) if name in times else None for name in ways}


def row(what, shape, ms, flops=0, bytes_moved=0):
    if ms is None:
        print(f"{what},{shape},,,")
        return
    rate, unit = (flops / ms * 1e-9, "TFLOP/s") if flops else (bytes_moved / ms * 1e-6, "GB/s")
    print(f"{what},{shape},{ms:.4f},{rate:.1f},{unit}", flush=True)


def randn(*shape, dtype=torch.bfloat16, grad=False):
    return torch.randn(*shape, device="cuda", dtype=dtype, requires_grad=grad)


class Ours:
    """One problem of libbench_attention.so."""

    def __init__(self, library, mask, tokens, batch):
        self.lib = ctypes.CDLL(library)
        self.lib.bench_open.restype = ctypes.c_void_p
        self.lib.bench_flops.restype = ctypes.c_double
        self.lib.bench_flops.argtypes = self.lib.bench_close.argtypes = [ctypes.c_void_p]
        self.lib.bench_run.argtypes = [ctypes.c_void_p, ctypes.c_int]
        frame = tokens if mask == "full" else 1 if mask == "causal" else FRAME
        self.session = self.lib.bench_open(mask.encode(), tokens, frame, HEADS, HEAD, batch)
        self.flops = self.lib.bench_flops(self.session)
        self.run("forward")

    def run(self, name):
        if self.lib.bench_run(self.session, PASSES[name]):
            raise RuntimeError("our kernel was refused")

    def close(self):
        self.lib.bench_close(self.session)


class Fa3:
    """One problem of libpeer_fa3.so, on PyTorch's tensors (batch x tokens x heads x dim) and stream."""

    def __init__(self, library, causal, tokens, batch):
        self.lib = ctypes.CDLL(library)
        self.lib.fa3_open.restype = ctypes.c_void_p
        self.lib.fa3_close.argtypes = [ctypes.c_void_p]
        self.lib.fa3_forward.argtypes = [ctypes.c_void_p] * 3
        self.lib.fa3_backward.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
        self.q, self.k, self.v, self.g = (randn(batch, tokens, HEADS, HEAD) for _ in range(4))
        self.o, self.dq, self.dk, self.dv = (torch.empty_like(self.q) for _ in range(4))
        self.lse = torch.empty(batch, HEADS, tokens, dtype=torch.float32, device="cuda")
        each = (self.q, self.k, self.v, self.o, self.lse, self.g, self.dq, self.dk, self.dv)
        self.tensors = (ctypes.c_void_p * len(each))(*(t.data_ptr() for t in each))
        self.session = self.lib.fa3_open(batch, tokens, HEADS, int(causal))
        if not self.session:
            raise RuntimeError("FlashAttention-3 was refused")
        self.run("fa3 forward")

    def run(self, name):
        stream, way = torch.cuda.current_stream().cuda_stream, FA3_WAYS[name]
        if way == 0:
            rc = self.lib.fa3_forward(self.session, self.tensors, stream)
        else:
            rc = self.lib.fa3_backward(self.session, self.tensors, way - 1, stream)
        if rc:
            raise RuntimeError("FlashAttention-3 was refused")

    def close(self):
        self.lib.fa3_close(self.session)


def error_of(seen, right):
    """The largest difference, over the largest right value; what is no number counts as infinite."""
    error = ((seen.float() - right.float()).abs().max() / right.float().abs().max()).item()
    return error if error == error else float("inf")


def fa3_errors(library, causal, tokens, batch):
    """{tensor: error} of both backward passes against SDPA, and whether the fixed one repeats its bits."""
    fa3 = Fa3(library, causal, tokens, batch)
    inputs = [t.transpose(1, 2).detach().requires_grad_() for t in (fa3.q, fa3.k, fa3.v)]
    o = F.scaled_dot_product_attention(*inputs, is_causal=causal)
    right = [t.transpose(1, 2) for t in torch.autograd.grad(o, inputs, fa3.g.transpose(1, 2))]
    errors = {"o": error_of(fa3.o, o.detach().transpose(1, 2))}
    for suffix in ("", " fixed"):
        for way in range(2):
            kept = [t.clone() for t in (fa3.dq, fa3.dk, fa3.dv)]
            fa3.run("fa3 backward" + suffix)
        for name, seen, wanted in zip(("dq", "dk", "dv"), (fa3.dq, fa3.dk, fa3.dv), right):
            errors[name + suffix] = error_of(seen, wanted)
    same = all(torch.equal(a, b) for a, b in zip(kept, (fa3.dq, fa3.dk, fa3.dv)))
    fa3.close()
    return errors, same


def fa3_trial(library):
    """Exit status: 0 where its results are right, a line for each shape."""
    wrong = 0
    for causal in (False, True):
        for tokens, batch in ((1024, 2), (8192, 1)):
            errors, same = fa3_errors(library, causal, tokens, batch)
            good = same and max(errors.values()) <= FA3_WRONG
            wrong += not good
            print(f"# fa3 {'good' if good else 'WRONG'} {'causal' if causal else 'full'} {tokens}: "
                  + ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
                  + f", fixed bits {'the same' if same else 'DIFFER'}", flush=True)
    return min(wrong, 1)


def fa3_beside(library):
    """libpeer_fa3.so in the same folder, or None: not there, or not right when tried. A process of its own tries it: a
    fault or a hang on the device ends that one alone."""
    peer = os.path.join(os.path.dirname(os.path.abspath(library)), "libpeer_fa3.so")
    if not os.path.exists(peer):
        return None
    try:
        tried = subprocess.run([sys.executable, os.path.abspath(__file__), "fa3", peer], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, timeout=FA3_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        print(f"# fa3 left out: its trial did not end in {FA3_SECONDS} s", flush=True)
        return None
    for line in tried.stdout.splitlines()[-12:]:
        print(line if line.startswith("# fa3") else f"# fa3 said: {line[:200]}")
    if tried.returncode != 0:
        print(f"# fa3 left out: its trial ended with {tried.returncode}", flush=True)
    return peer if tried.returncode == 0 else None


def gradients(forward, inputs, g):
    """A function that queues the backward of `forward` alone."""
    kept = []

    def run():
        if not kept:
            kept.append(forward())
        torch.autograd.grad(kept[0], inputs, g, retain_graph=True)
    return run


def sdpa_ways(tokens, batch, causal):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    q, k, v = inputs = [randn(batch, HEADS, tokens, HEAD, grad=True) for _ in range(3)]
    g, ways = randn(batch, HEADS, tokens, HEAD), {}
    for name, backend in zip(SDPA, (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION)):
        def forward(backend=backend):
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        ways[f"{name} forward"], ways[f"{name} backward"] = forward, gradients(forward, inputs, g)
    return ways


def flex_ways(tokens, batch):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    q, k, v = inputs = [randn(batch, HEADS, tokens, HEAD, grad=True) for _ in range(3)]
    g, compiled = randn(batch, HEADS, tokens, HEAD), torch.compile(flex_attention, dynamic=False)
    mask = create_block_mask(lambda b, h, i, j: j // FRAME <= i // FRAME, None, None, tokens, tokens, device="cuda")

    def forward():
        return compiled(q, k, v, block_mask=mask)
    return {"flex forward": forward, "flex backward": gradients(forward, inputs, g)}


def fa3_opened(peer, mask, tokens, batch):
    """Its problem, or None: there is no such peer, or it does not do the mask, or it was refused."""
    try:
        return Fa3(peer, mask == "causal", tokens, batch) if peer and mask != "block" else None
    except (RuntimeError, OSError) as why:
        print(f"# fa3 left out of {mask} {tokens}: {str(why).splitlines()[0][:120]}", flush=True)
        return None


def measure(library, peer, mask, tokens):
    """{"side pass": ms, "flops": ...} of one mask and length; rows on the way."""
    batch = 32768 // tokens
    ours = Ours(library, mask, tokens, batch)
    fa3 = fa3_opened(peer, mask, tokens, batch)
    ways = {f"ours {name}": (lambda name=name: ours.run(name)) for name in PASSES}
    ways.update(flex_ways(tokens, batch) if mask == "block" else sdpa_ways(tokens, batch, mask == "causal"))
    if fa3:
        ways.update({name: (lambda name=name: fa3.run(name)) for name in FA3_WAYS})
    found = medians(ways)
    for name, ms in found.items():
        row(f"{mask} {name}", f"{batch}x{HEADS}x{tokens}x{HEAD}", ms, ours.flops * (2.5 if "backward" in name else 1))
    found["flops"] = ours.flops
    ours.close()
    if fa3:
        fa3.close()
    return found


def over(a, b):
    return a / b if a and b else None


def both(found, side):
    forward, backward = found.get(f"{side} forward"), found.get(f"{side} backward")
    return forward + backward if forward and backward else None


def judge(found, mask, tokens):
    """Ratios of one shape against the bars; above is better."""
    f, full, ratios, beside = found[mask, tokens], found.get(("full", tokens)), {}, {}
    ratios["backward fixed / free"] = over(f["ours backward free"], f["ours backward"])
    if mask == "full":
        for way in ("forward", "backward"):
            peers = {side: f[f"{side} {way}"] for side in (*SDPA, "fa3") if f.get(f"{side} {way}")}
            beside[f"{way} full"] = best = min(peers, key=peers.get, default="nobody")
            ratios[f"{way} full"] = over(peers.get(best), f[f"ours {way}"])
    if "ours forward no pairs" in f:
        ratios["forward, no pairs / pairs"] = over(f["ours forward no pairs"], f["ours forward"])
    if "fa3 backward fixed" in f:
        ratios["backward fixed / FlashAttention-3's"] = over(f["fa3 backward fixed"], f["ours backward"])
    if mask == "block":
        ratios["block-causal / flex"] = over(both(f, "flex"), both(f, "ours"))
        if full and both(full, "ours") and both(f, "ours"):
            ratios["block-causal / full, per FLOP"] = both(full, "ours") / full["flops"] * f["flops"] / both(f, "ours")
    for name, ratio in ratios.items():
        value = "" if ratio is None else f" = {ratio:.3f}"
        if name not in BARS:
            print(f"BAR {'none':9} {mask} {tokens}: {name}{value}", flush=True)
            continue
        ship, stretch = BARS[name]
        word = "no figure" if ratio is None else "stretch" if ratio >= stretch else "pass" if ratio >= ship else "MISS"
        peer = f", beside {beside[name]}" if name in beside else ""
        print(f"BAR {word:9} {mask} {tokens}: {name}{value} (ship {ship}, stretch {stretch}{peer})", flush=True)


def attention(library, seconds):
    begun, found = time.monotonic(), {}
    peer = fa3_beside(library)
    for mask, tokens in (("full", 8192), ("block", 8192), ("full", 32768), ("block", 32768), ("causal", 8192), ("full", 16384),
                         ("causal", 32768), ("block", 16384)):
        if time.monotonic() - begun > seconds:
            print(f"# no time left for {mask} {tokens}")
            continue
        try:
            found[mask, tokens] = measure(library, peer, mask, tokens)
            judge(found, mask, tokens)
        except Exception as why:  # the other shapes still count
            print(f"# {mask} {tokens}: {type(why).__name__}: {str(why)[:200]}", flush=True)
        torch.cuda.empty_cache()


def rest():
    x = randn(1 << 28, dtype=torch.float32)
    y = torch.empty_like(x)
    row("copy", "1 GiB", medians({"copy": lambda: y.copy_(x)})["copy"], bytes_moved=8 * x.numel())
    del x, y
    for m, n, k in ((8192, 8192, 8192), (8192, 3 * WIDTH, WIDTH), (8192, WIDTH, WIDTH)):
        a, b = randn(m, k), randn(n, k)
        row("product", f"{m}x{n}x{k}", medians({"product": lambda a=a, b=b: a @ b.T})["product"], flops=2 * m * n * k)
    x = randn(32768, WIDTH, dtype=torch.float32)
    norm = torch.compile(lambda t: (t * torch.rsqrt(t.square().mean(-1, keepdim=True) + 1e-6)).bfloat16())
    row("rms_norm compiled", f"32768x{WIDTH}", medians({"norm": lambda: norm(x)})["norm"], bytes_moved=6 * x.numel())
    w = torch.nn.Parameter(randn(1 << 26, dtype=torch.float32))
    w.grad = torch.randn_like(w)
    adam = torch.optim.AdamW([w], fused=True)
    row("adamw fused", "64 Mi", medians({"adamw": adam.step})["adamw"], bytes_moved=28 * w.numel())


def main():
    if sys.argv[1:2] == ["fa3"] and len(sys.argv) == 3:
        sys.exit(fa3_trial(sys.argv[2]))
    print(f"# {torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    print("what,shape,ms,rate,unit", flush=True)
    if sys.argv[1:2] == ["attention"] and len(sys.argv) > 2:
        attention(sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 170.0)
    elif sys.argv[1:] == ["rest"]:
        rest()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
