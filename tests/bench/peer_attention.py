#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Our attention beside PyTorch's scaled_dot_product_attention: same shapes and inputs, calls interleaved in one process.

    PYTHON tests/bench/peer_attention.py BUILD/tests/libpeer_attention.so [THREADS]

Prints medians in milliseconds and their ratio (above 1: ours is faster), and the largest difference of results."""
import ctypes
import statistics
import sys
import time

import torch
import torch.nn.functional as functional

SHAPES = [  # sequences, heads, length, head_dim, tokens of a frame
    (12, 3, 190, 32, 19),
    (1, 4, 2048, 64, 256),
    (1, 2, 2048, 128, 256),
    (1, 4, 8192, 64, 256),
    (1, 2, 8192, 128, 256),
]


class Peer(ctypes.Structure):
    _fields_ = [(n, ctypes.c_void_p) for n in "q k v o lse d_o dq dk dv".split()] + [
        (n, ctypes.c_int64) for n in "sequences length block".split()] + [("heads", ctypes.c_int32), ("head_dim", ctypes.c_int32)]


def block_mask(length, block):
    frame = torch.arange(length) // block
    return torch.where(frame[:, None] >= frame[None, :], 0.0, float("-inf"))


class Torch:
    """PyTorch's side, in the layout it likes best: [sequences, heads, S, hd], contiguous."""

    def __init__(self, q, k, v, g, mask, backward):
        self.x = [t.transpose(1, 2).contiguous().requires_grad_(backward) for t in (q, k, v)]
        self.g, self.mask, self.backward = g.transpose(1, 2).contiguous(), mask, backward

    def run(self):
        for t in self.x:
            t.grad = None
        self.o = functional.scaled_dot_product_attention(*self.x, attn_mask=self.mask, scale=1.0)
        if self.backward:
            self.o.backward(self.g)

    def results(self):
        out = [self.o.detach()] + ([t.grad for t in self.x] if self.backward else [])
        return [t.transpose(1, 2) for t in out]


class Ours:
    def __init__(self, lib, device, q, k, v, g, block, backward):
        sequences, length, heads, head_dim = q.shape
        self.lib, self.device, self.backward = lib, device, backward
        self.keep = [q, k, v, torch.empty_like(q), torch.empty(sequences, length, heads), g] + [torch.empty_like(q) for _ in range(3)]
        self.peer = Peer(*[t.data_ptr() for t in self.keep], sequences, length, block, heads, head_dim)

    def run(self):
        if self.lib.peer_run(self.device, ctypes.byref(self.peer), int(self.backward)) != 0:
            raise SystemExit("attention failed")

    def results(self):
        return [self.keep[3]] + (self.keep[6:] if self.backward else [])


def seconds(side, clock):
    side.run()  # wakes the side's threads
    start = clock()
    side.run()
    return clock() - start


def compare(lib, device, threads, shape, masked, backward):
    sequences, heads, length, head_dim, block = shape
    torch.manual_seed(1)
    q, k, v, g = [torch.randn(sequences, length, heads, head_dim) for _ in range(4)]
    q *= head_dim ** -0.5
    mask = block_mask(length, block) if masked else None
    sides = [Ours(lib, device, q, k, v, g, block if masked else 0, backward), Torch(q, k, v, g, mask, backward)]
    times = ([], [])
    clock = time.perf_counter if threads > 1 else time.process_time  # processor time: a busy machine shows less
    start = time.perf_counter()
    while len(times[0]) < 5 or (time.perf_counter() - start < 3 and len(times[0]) < 200):
        for i, side in enumerate(sides):
            times[i].append(seconds(side, clock))
    worst = max((a - b).abs().max().item() for a, b in zip(sides[0].results(), sides[1].results()))
    ours, torchs = [statistics.median(t) * 1e3 for t in times]
    print(f"{sequences}x{heads}x{length}x{head_dim:<4} {'blocks' if masked else 'full':7} "
          f"{'fwd+bwd' if backward else 'fwd':8} {ours:10.3f} {torchs:10.3f} {torchs / ours:7.2f} {worst:9.1e}", flush=True)


def main():
    lib = ctypes.CDLL(sys.argv[1])
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    lib.peer_open.restype = ctypes.c_void_p
    lib.peer_run.argtypes = [ctypes.c_void_p, ctypes.POINTER(Peer), ctypes.c_int]
    torch.set_num_threads(threads)
    device = lib.peer_open(threads)
    print(f"torch {torch.__version__}, {threads} thread(s)\n{'shape':18} {'mask':7} {'pass':8} {'ours ms':>10} {'torch ms':>10} {'ratio':>7} {'worst':>9}")
    for shape in SHAPES:
        for masked in (False, True):
            for backward in (False, True):
                compare(lib, device, threads, shape, masked, backward)


main()
