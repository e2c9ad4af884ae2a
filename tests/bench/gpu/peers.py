#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's times for what `orrery bench kernels` times, on the same GPU: copy, products, attention (SDPA with each
of its back ends; FlexAttention compiled, block-causal), RMSNorm compiled, fused AdamW. CSV: what, shape, ms, rate, unit.
Usage: peers.py [TOKENS [WIDTH [HEAD_DIM [TOKENS_PER_FRAME]]]]"""
import statistics
import sys

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("skipped: no PyTorch")
    sys.exit(77)
if not torch.cuda.is_available():
    print("skipped: no GPU")
    sys.exit(77)

TOKENS, WIDTH, HEAD, FRAME = (list(map(int, sys.argv[1:])) + [8192, 2048, 128, 256][len(sys.argv) - 1:])[:4]
HEADS = WIDTH // HEAD


def seconds(run):
    for _ in range(3):
        run()
    times = []
    for _ in range(15):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(5):
            run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 5e3)
    return statistics.median(times)


def row(what, shape, run, flops=0, bytes_moved=0):
    try:
        t = seconds(run)
    except Exception as why:  # a back end that does not take the shape is a row too
        print(f"{what},{shape},,,{str(why).splitlines()[0][:60].replace(',', ';')}")
        return
    rate, unit = (flops / t * 1e-12, "TFLOP/s") if flops else (bytes_moved / t * 1e-9, "GB/s")
    print(f"{what},{shape},{1e3 * t:.4f},{rate:.3f},{unit}", flush=True)


def randn(*shape, dtype=torch.bfloat16, grad=False):
    return torch.randn(*shape, device="cuda", dtype=dtype, requires_grad=grad)


def attention():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    q, k, v = (randn(1, HEADS, TOKENS, HEAD, grad=True) for _ in range(3))
    g = randn(1, HEADS, TOKENS, HEAD)
    full = 4 * TOKENS * TOKENS * WIDTH
    frames = -(-TOKENS // FRAME)
    causal = full * (frames + 1) / (2 * frames)
    flex = torch.compile(flex_attention)
    mask = create_block_mask(lambda b, h, i, j: j // FRAME <= i // FRAME, None, None, TOKENS, TOKENS, device="cuda")
    ways = [("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)]

    def both(name, forward, flops):
        shape = f"{TOKENS}x{HEADS}x{HEAD}"
        row(name, shape, lambda: forward(), flops)
        try:
            out = forward()
        except Exception:
            return
        row(name + " backward", shape, lambda: torch.autograd.grad(out, (q, k, v), g, retain_graph=True), 2.5 * flops)

    for name, way in ways:
        def sdpa(way=way):
            with sdpa_kernel(way):
                return F.scaled_dot_product_attention(q, k, v)
        both(f"full {name}", sdpa, full)
    both("block-causal flex", lambda: flex(q, k, v, block_mask=mask), causal)


def main():
    print("what,shape,ms,rate,unit")
    x = randn(1 << 28, dtype=torch.float32)
    y = torch.empty_like(x)
    row("copy", "1 GiB", lambda: y.copy_(x), bytes_moved=8 * x.numel())
    del x, y
    for m, n, k in ((8192, 8192, 8192), (TOKENS, 3 * WIDTH, WIDTH), (TOKENS, WIDTH, WIDTH)):
        a, b = randn(m, k), randn(n, k)
        row("product", f"{m}x{n}x{k}", lambda a=a, b=b: a @ b.T, flops=2 * m * n * k)
    attention()
    x = randn(TOKENS, WIDTH, dtype=torch.float32)
    norm = torch.compile(lambda t: (t * torch.rsqrt(t.square().mean(-1, keepdim=True) + 1e-6)).bfloat16())
    row("rms_norm compiled", f"{TOKENS}x{WIDTH}", lambda: norm(x), bytes_moved=6 * x.numel())
    w = torch.nn.Parameter(randn(1 << 26, dtype=torch.float32))
    w.grad = torch.randn_like(w)
    adam = torch.optim.AdamW([w], fused=True)
    row("adamw fused", "64 Mi", adam.step, bytes_moved=28 * w.numel())


main()
