# SPDX-License-Identifier: Apache-2.0
"""One rank of the demo's training step in eager PyTorch, float32, one thread: the peer that peer_step.py times.

Same shapes and work as `orrery-rank --task step-bench`: noise, forward, masked losses, backward, gradient all-reduce
(gloo), clipping, Muon on the blocks' matrices, AdamW on the rest. Prints milliseconds per step.
Usage: RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=P torch_step.py STEPS BATCH"""
import math
import os
import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F

WIDTH, LAYERS, HEAD, FRAMES, PATCH, MARGIN, GRID = 96, 3, 32, 10, 8, 4, 4
VALUES = [2, 4, 8, 2 * PATCH * PATCH]
SEEN = [0, 4, 8, 2 * (PATCH + 2 * MARGIN) ** 2]
TOKENS = [1, 1, 1, GRID * GRID]
PER_FRAME = sum(TOKENS)
N = FRAMES * PER_FRAME


def normal(*shape, fan):
    return torch.nn.Parameter(torch.randn(*shape) / math.sqrt(fan))


def zeros(*shape):
    return torch.nn.Parameter(torch.zeros(*shape))


def rms(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def levels(tau):
    u = tau[..., None] * (torch.tensor([0.5, 1.0, 2.0, 4.0]) * math.pi)
    return torch.cat([u.cos(), u.sin()], -1)


def patches(frames, margin):
    b, f = frames.shape[:2]
    padded = F.pad(frames.flatten(0, 1), (margin,) * 4)
    return F.unfold(padded, PATCH + 2 * margin, stride=PATCH).transpose(1, 2).reshape(b, f, GRID * GRID, -1)


def attend(q, k, v, mask):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    return (q @ k.transpose(-1, -2)).masked_fill(~mask, -math.inf).softmax(-1) @ v


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        hidden = 256
        self.qkv, self.out = normal(3 * WIDTH, WIDTH, fan=WIDTH), zeros(WIDTH, WIDTH)
        self.up, self.down = normal(2 * hidden, WIDTH, fan=WIDTH), zeros(WIDTH, hidden)
        self.mod = zeros(6, WIDTH)
        self.gamma = torch.nn.Parameter(torch.full((WIDTH // HEAD, 1, 1), 8.0))

    def forward(self, x, cond, mask, cos, sin):
        s1, k1, g1, s2, k2, g2 = (c + m for c, m in zip(cond, self.mod))
        b = x.shape[0]
        qkv = F.linear(rms(x) * (1 + k1) + s1, self.qkv).view(b, N, 3, WIDTH // HEAD, HEAD)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)

        def turn(z):
            left, right = rms(z).chunk(2, -1)
            return torch.cat([left * cos - right * sin, left * sin + right * cos], -1)
        y = attend(turn(q) * (self.gamma / HEAD), turn(k), v, mask)
        x = x + (1 + g1) * F.linear(y.transpose(1, 2).reshape(b, N, WIDTH), self.out)
        u, w = F.linear(rms(x) * (1 + k2) + s2, self.up).chunk(2, -1)
        return x + (1 + g2) * F.linear(F.silu(u) * w, self.down)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.ParameterList([normal(WIDTH, v + 2 * s, fan=v + 2 * s) for v, s in zip(VALUES, SEEN)])
        self.head = torch.nn.ParameterList([zeros(v, WIDTH) for v in VALUES])
        self.bias = torch.nn.ParameterList([zeros(v) for v in VALUES])
        self.slot, self.action = normal(PER_FRAME, WIDTH, fan=10), zeros(WIDTH, 2)
        self.c1, self.b1 = normal(64, 28, fan=28), zeros(64)
        self.c2, self.b2 = zeros(6 * WIDTH, 64), zeros(6 * WIDTH)
        self.blocks = torch.nn.ModuleList([Block() for _ in range(LAYERS)])
        frame = torch.arange(FRAMES).repeat_interleave(PER_FRAME)
        self.register_buffer("mask", frame[:, None] >= frame)
        angle = torch.rand(N, HEAD // 2)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def rows(self, m, z, past, scale):
        if m < 3:
            value = (z * scale).unsqueeze(2)
            seen = past.unsqueeze(2)
        else:
            value, seen = patches(z, 0) * scale[..., None], patches(past, MARGIN)
        if m == 0:
            return value
        shift = [F.pad(seen, (0, 0, 0, 0, i, 0))[:, :FRAMES] for i in (1, 2)]
        return torch.cat([value, *shift], -1)

    def forward(self, z, past, tau, tau_past):
        b = tau.shape[0]
        scale = tau / (tau * tau + (1 - tau) ** 2)
        rows = [self.rows(m, z[m], past[m], scale[..., m:m + 1]) for m in range(4)]
        x = torch.cat([F.linear(r, w) for r, w in zip(rows, self.embed)], 2) + self.slot
        x = x + F.linear(rows[0], self.action)
        known = [levels(tau), levels(tau[..., :1]).expand(-1, -1, 4, -1),
                 levels(tau_past)[:, :, None].expand(-1, -1, 4, -1), torch.eye(4).expand(b, FRAMES, 4, 4)]
        c = F.linear(F.silu(F.linear(torch.cat(known, -1), self.c1, self.b1)), self.c2, self.b2)
        c = torch.cat([c[:, :, :3], c[:, :, 3:].expand(-1, -1, GRID * GRID, -1)], 2).reshape(b, N, 6 * WIDTH)
        cond, x = c.chunk(6, -1), x.reshape(b, N, WIDTH)
        for block in self.blocks:
            x = block(x, cond, self.mask, self.cos, self.sin)
        x = rms(x).view(b, FRAMES, PER_FRAME, WIDTH).split(TOKENS, 2)
        return [F.linear(x[m], self.head[m], self.bias[m]) for m in range(4)]


def mixed(x, tau):
    t = tau.view(*tau.shape, *[1] * (x.dim() - 2))
    return t * x + (1 - t) * torch.randn_like(x)


def loss_of(model, data):
    b = data[0].shape[0]
    tau = torch.sigmoid(torch.randn(b, FRAMES, 4) - 0.4)
    tau_past = 1 - 0.2 * torch.rand(b, FRAMES)
    z = [mixed(x, tau[..., m]) for m, x in enumerate(data)]
    past = [mixed(x, tau_past) for x in data]
    total = 0.0
    for m, pred in enumerate(model(z, past, tau, tau_past)):
        want = patches(data[3], 0) if m == 3 else data[m].unsqueeze(2)
        total = total + (1.0 if m == 3 else 0.02) * (pred - want).pow(2).mean()
    return total


@torch.no_grad()
def muon(w, momentum, lr):
    momentum.mul_(0.95).add_(w.grad)
    update = w.grad + 0.95 * momentum
    parts = update.chunk(3, 0) if w.shape[0] == 3 * WIDTH else update.chunk(2, 0) if w.shape[0] > 3 * WIDTH else [update]
    done = []
    for part in parts:
        x = part.T if part.shape[0] > part.shape[1] else part
        x = x / (x.norm() + 1e-7)
        for _ in range(5):
            s = x @ x.T
            x = 3.4445 * x + (-4.775 * s + 2.0315 * (s @ s)) @ x
        done.append((x.T if part.shape[0] > part.shape[1] else x) * 0.2 * math.sqrt(max(part.shape)))
    w.mul_(1 - lr * 0.01).add_(torch.cat(done, 0), alpha=-lr)


def main():
    steps, batch = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    torch.manual_seed(1)
    world = int(os.environ["WORLD_SIZE"])
    if world > 1:
        dist.init_process_group("gloo")
    model = Model()
    matrices = [p for blk in model.blocks for p in (blk.qkv, blk.out, blk.up, blk.down)]
    own = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in own]
    momenta = [torch.zeros_like(p) for p in matrices]
    adam = torch.optim.AdamW(rest, 6e-3, (0.9, 0.95), weight_decay=0.0)
    data = [torch.rand(batch, FRAMES, 2), torch.rand(batch, FRAMES, 4), torch.rand(batch, FRAMES, 8),
            torch.rand(batch, FRAMES, 2, 32, 32)]
    times = []
    for _ in range(steps + 3):
        begun = time.perf_counter()
        model.zero_grad(set_to_none=True)
        loss_of(model, data).backward()
        if world > 1:
            flat = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
            dist.all_reduce(flat)
            flat /= world
            at = 0
            for p in model.parameters():
                p.grad = flat[at:at + p.numel()].view_as(p)
                at += p.numel()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        adam.step()
        for w, m in zip(matrices, momenta):
            muon(w, m, 6e-3)
        times.append(1e3 * (time.perf_counter() - begun))
    if int(os.environ["RANK"]) == 0:
        print(f"{statistics.median(times[3:]):.3f}")


main()
