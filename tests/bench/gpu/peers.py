#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Our kernels beside PyTorch's on one GPU. Calls of all sides take turns in one process, the L2 is overwritten before
each, medians are compared. Rows as CSV while it runs: what, shape, ms, rate, unit; then the bars: pass or MISS.

    peers.py attention LIBRARY [SECONDS]   LIBRARY: libbench_attention.so of attention.sh; SDPA (cuDNN, FlashAttention) and
                                           FlexAttention compiled; most valuable shapes first, none begun after SECONDS (170)
    peers.py rest                          copy, products, RMSNorm compiled, fused AdamW: beside `orrery bench kernels`"""
import ctypes
import statistics
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
PASSES = {"forward": 0, "backward": 1, "backward free": 2}
# name, ship, stretch; what is compared is in judge().
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
            torch.cuda._sleep(1_000_000)  # about 0.5 ms: the host is ahead, its time is not measured
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
    for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
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


def measure(library, mask, tokens):
    """{(side, pass): ms, "flops": ...} of one mask and length; rows on the way."""
    batch = 32768 // tokens
    ours = Ours(library, mask, tokens, batch)
    ways = {f"ours {name}": (lambda name=name: ours.run(name)) for name in PASSES}
    ways.update(flex_ways(tokens, batch) if mask == "block" else sdpa_ways(tokens, batch, mask == "causal"))
    found = medians(ways)
    for name, ms in found.items():
        row(f"{mask} {name}", f"{batch}x{HEADS}x{tokens}x{HEAD}", ms, ours.flops * (2.5 if "backward" in name else 1))
    found["flops"] = ours.flops
    ours.close()
    return found


def over(a, b):
    return a / b if a and b else None


def both(found, side):
    forward, backward = found.get(f"{side} forward"), found.get(f"{side} backward")
    return forward + backward if forward and backward else None


def judge(found, mask, tokens):
    """Ratios of one shape against the bars; above is better."""
    f, full, ratios = found[mask, tokens], found.get(("full", tokens)), {}
    ratios["backward fixed / free"] = over(f["ours backward free"], f["ours backward"])
    if mask == "full":
        for way in ("forward", "backward"):
            peers = [f[f"{side} {way}"] for side in ("cudnn", "flash") if f[f"{side} {way}"]]
            ratios[f"{way} full"] = over(min(peers, default=None), f[f"ours {way}"])
    if mask == "block":
        ratios["block-causal / flex"] = over(both(f, "flex"), both(f, "ours"))
        if full and both(full, "ours") and both(f, "ours"):
            ratios["block-causal / full, per FLOP"] = both(full, "ours") / full["flops"] * f["flops"] / both(f, "ours")
    for name, ratio in ratios.items():
        ship, stretch = BARS[name]
        word = "no figure" if ratio is None else "stretch" if ratio >= stretch else "pass" if ratio >= ship else "MISS"
        value = "" if ratio is None else f" = {ratio:.3f}"
        print(f"BAR {word:9} {mask} {tokens}: {name}{value} (ship {ship}, stretch {stretch})", flush=True)


def attention(library, seconds):
    begun, found = time.monotonic(), {}
    for mask, tokens in (("full", 8192), ("block", 8192), ("full", 32768), ("block", 32768), ("causal", 8192), ("full", 16384),
                         ("causal", 32768), ("block", 16384)):
        if time.monotonic() - begun > seconds:
            print(f"# no time left for {mask} {tokens}")
            continue
        try:
            found[mask, tokens] = measure(library, mask, tokens)
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
    print(f"# {torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    print("what,shape,ms,rate,unit", flush=True)
    if sys.argv[1:2] == ["attention"] and len(sys.argv) > 2:
        attention(sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 170.0)
    elif sys.argv[1:] == ["rest"]:
        rest()
    else:
        sys.exit(__doc__)


main()
