#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A training step of the model in PyTorch, its blocks compiled, beside `orrery-rank --task step-bench` with the same numbers: blocks with
adaLN, QK-norm, rotation, block-causal attention (FlexAttention, the one that knows such masks), SwiGLU; fp32 weights under bf16
autocast, gradients added up over micro-batches, clipped, fused AdamW. Prints the median and what compiling took.

usage: peer_step.py WIDTH LAYERS HEAD_DIM COND FRAMES TOKENS_PER_FRAME MODALITIES VALUES SEEN BATCH SHARDS STEPS [OURS_MS]
VALUES, SEEN: numbers of a token that are predicted, and that are read besides. ORRERY_PEER_CPU=1: on a CPU, with SDPA."""
import math
import os
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("skipped: no PyTorch")
    sys.exit(77)
ON_CPU = "ORRERY_PEER_CPU" in os.environ
if not ON_CPU and not torch.cuda.is_available():
    print("skipped: no GPU")
    sys.exit(77)

WIDTH, LAYERS, HEAD, COND, FRAMES, PER_FRAME, MODALITIES, VALUES, SEEN, BATCH, SHARDS, STEPS = map(int, sys.argv[1:13])
N, HEADS, HIDDEN = FRAMES * PER_FRAME, WIDTH // HEAD, int(WIDTH * 8 / 3 / 32 + 0.5) * 32
SHIP, STRETCH = 1.10, 1.30


def weight(*shape):
    return torch.nn.Parameter(torch.randn(*shape) / math.sqrt(shape[-1]))


def rms(x):
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


def block_causal(device):
    if ON_CPU:
        frame = torch.arange(N) // PER_FRAME
        mask = frame[:, None] >= frame
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    mask = create_block_mask(lambda b, h, q, k: q // PER_FRAME >= k // PER_FRAME, None, None, N, N, device=device)
    return lambda q, k, v: flex_attention(q, k, v, block_mask=mask, scale=1.0)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = weight(3 * WIDTH, WIDTH), weight(WIDTH, WIDTH)
        self.up, self.down = weight(2 * HIDDEN, WIDTH), weight(WIDTH, HIDDEN)
        self.mod = torch.nn.Parameter(torch.zeros(6, WIDTH))
        self.gamma = torch.nn.Parameter(torch.full((HEADS, 1, 1), 8.0))

    def forward(self, x, cond, attend, cos, sin):
        s1, k1, g1, s2, k2, g2 = (c + m for c, m in zip(cond, self.mod))
        b = x.shape[0]
        q, k, v = F.linear(rms(x) * (1 + k1) + s1, self.qkv).view(b, N, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)

        def turn(z):
            left, right = rms(z).chunk(2, -1)
            return torch.cat([left * cos - right * sin, left * sin + right * cos], -1)
        y = attend((turn(q) * (self.gamma / HEAD)).to(v.dtype), turn(k).to(v.dtype), v)
        x = x + (1 + g1) * F.linear(y.transpose(1, 2).reshape(b, N, WIDTH), self.out)
        u, w = F.linear(rms(x) * (1 + k2) + s2, self.up).chunk(2, -1)
        return x + (1 + g2) * F.linear(F.silu(u) * w, self.down)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = weight(WIDTH, VALUES + SEEN), weight(VALUES, WIDTH)
        self.slot = weight(PER_FRAME, WIDTH)
        self.c1, self.c2 = weight(COND, 28), weight(6 * WIDTH, COND)
        self.blocks = torch.nn.ModuleList([Block() for _ in range(LAYERS)])
        angle = torch.rand(N, HEAD // 2)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, tokens, levels, attend):
        b = tokens.shape[0]
        x = (F.linear(tokens, self.embed).view(b, FRAMES, PER_FRAME, WIDTH) + self.slot).view(b, N, WIDTH).float()
        c = F.linear(F.silu(F.linear(levels, self.c1)), self.c2).float()  # [b, frames, modalities, 6 width]
        few, many = c[:, :, :-1], c[:, :, -1:].expand(-1, -1, PER_FRAME - MODALITIES + 1, -1)
        cond = torch.cat([few, many], 2).reshape(b, N, 6 * WIDTH).chunk(6, -1)
        for block in self.blocks:
            x = block(x, cond, attend, self.cos, self.sin)
        return F.linear(rms(x), self.head)


def main():
    device = "cpu" if ON_CPU else "cuda"
    torch.manual_seed(1)
    model = Model().to(device)
    attend = block_causal(device)
    micro = BATCH // SHARDS
    tokens = torch.rand(micro, N, VALUES + SEEN, device=device)
    levels = torch.rand(micro, FRAMES, MODALITIES, 28, device=device)
    adam = torch.optim.AdamW(model.parameters(), 3e-4, (0.9, 0.95), fused=not ON_CPU)

    def loss_of(tokens, levels):
        with torch.autocast(device, torch.bfloat16):
            return (model(tokens, levels, attend).float() - tokens[..., :VALUES]).square().mean() / SHARDS
    for block in model.blocks:  # one graph for all: a whole model of 24 would be compiled for minutes
        if not ON_CPU:
            block.compile(fullgraph=True)

    def step():
        for _ in range(SHARDS):
            loss_of(tokens, levels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        if not ON_CPU:
            torch.cuda.synchronize()
    begun = time.monotonic()
    step()
    first, times = time.monotonic() - begun, []
    for _ in range(STEPS):
        begun = time.monotonic()
        step()
        times.append(1e3 * (time.monotonic() - begun))
    theirs = statistics.median(times)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    memory = "" if ON_CPU else f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    print(f"PyTorch {torch.__version__}, {millions:.0f} M parameters: step {theirs:.1f} ms, first {first:.1f} s{memory}")
    if len(sys.argv) > 13:
        ratio = theirs / float(sys.argv[13])
        word = "stretch" if ratio >= STRETCH else "pass" if ratio >= SHIP else "MISS"
        print(f"BAR {word:9} step, compiled / ours = {ratio:.3f} (ship {SHIP}, stretch {STRETCH})")


main()
