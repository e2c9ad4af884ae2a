#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The model's equations in PyTorch, in double precision, against the C program's loss and gradients: same weights,
same batch. Needs PyTorch and safetensors: this interpreter's, or that of $ORRERY_TORCH_PYTHON. Skipped without."""
import math, os, subprocess, sys, tempfile

try:
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file
except ImportError:
    other = os.environ.get("ORRERY_TORCH_PYTHON")
    if other and other != sys.executable:
        os.execv(other, [other] + sys.argv)
    print("skipped: no PyTorch with safetensors (set ORRERY_TORCH_PYTHON)")
    sys.exit(77)

SENSES = ["action", "touch", "audio", "video"]
CASES = {
    "demo": {"data.frames": 10, "train.batch": 6},
    "odd": {"model.width": 48, "model.head_dim": 16, "model.layers": 2, "data.frames": 5, "video.height": 16,
            "video.width": 8, "video.channels": 3, "video.patch": 4, "video.margin": 1, "audio.bins": 2,
            "audio.mels": 3, "model.cond_width": 12, "loss.weighting": "ramp", "train.batch": 4},
    "window": {"model.width": 64, "data.frames": 7, "model.window": 3, "model.history": 1, "loss.weighting": "v",
               "model.hidden": 80, "train.batch": 4},
}
DEFAULTS = {"model.width": 96, "model.head_dim": 32, "model.layers": 3, "model.history": 2, "model.window": 0,
            "video.height": 32, "video.width": 32, "video.channels": 2, "video.patch": 8, "video.margin": 4,
            "audio.bins": 1, "audio.mels": 8, "loss.weighting": "one"}
# What 32-bit sums over this many terms may lose, as a share of a tensor's length.
TOLERANCE = 2e-5


def rms(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def features(tau):
    u = tau[..., None] * torch.tensor([0.5, 1, 2, 4], dtype=tau.dtype) * math.pi
    return torch.cat([u.cos(), u.sin()], -1)


class Model:
    def __init__(self, case, data):
        self.c = {**DEFAULTS, **case}
        self.data = data
        self.w = {k[7:]: v.double().requires_grad_() for k, v in data.items() if k.startswith("weight.")}
        self.b, self.f = data["tau"].shape[:2]

    def grid(self, m):
        """tokens down, tokens across, patch, margin, channels"""
        c = self.c
        if m == "video":
            p = c["video.patch"]
            return c["video.height"] // p, c["video.width"] // p, p, c["video.margin"], c["video.channels"]
        if m == "audio":
            return 1, c["audio.bins"], 1, 0, c["audio.mels"]
        return 1, 1, 1, 0, self.data["x." + m].shape[-1]

    def cut(self, m, frames, margin):
        """[B, F, E] channels last -> [B, F, tokens, values], a token's values row by row, channels last"""
        down, across, p, _, ch = self.grid(m)
        picture = frames.reshape(self.b * self.f, down * p, across * p, ch).permute(0, 3, 1, 2)
        picture = F.pad(picture, (margin,) * 4)
        edge = p + 2 * margin
        cols = F.unfold(picture, edge, stride=p).reshape(self.b, self.f, ch, edge * edge, down * across)
        return cols.permute(0, 1, 4, 3, 2).reshape(self.b, self.f, down * across, edge * edge * ch)

    def embed(self, m, tau):
        scale = tau / (tau * tau + (1 - tau) ** 2)
        rows = [self.cut(m, self.data["z." + m].double(), 0) * scale[..., None, None]]
        if m != "action":
            seen = self.cut(m, self.data["history." + m].double(), self.grid(m)[3])
            for back in range(1, self.c["model.history"] + 1):
                rows.append(F.pad(seen, (0, 0, 0, 0, back, 0))[:, :self.f])
        return torch.cat(rows, -1)

    def angles(self, owner):
        pairs = self.c["model.head_dim"] // 2
        space = pairs // 3
        time = pairs - 2 * space
        ft = 1.5 * (1 / 12) ** (torch.arange(time).double() / max(1, time - 1))
        fs = 1.5 * (1 / 6) ** (torch.arange(space).double() / max(1, space - 1))
        y, x = [], []
        for m in SENSES:
            down, across = self.grid(m)[:2]
            visual = m == "video"
            for i in range(down):
                for j in range(across):
                    y.append((i + 1) * 4 / down if visual else 0.0)
                    x.append((j + 1) * 4 / across if visual else 0.0)
        n = len(y)
        t = torch.arange(self.f).double().repeat_interleave(n)
        y, x = torch.tensor(y).double().repeat(self.f), torch.tensor(x).double().repeat(self.f)
        a = torch.cat([t[:, None] * ft, y[:, None] * fs, x[:, None] * fs], 1)
        return a.cos(), a.sin()

    def block(self, i, x, cond, mask, turn):
        w, d, h = self.w, self.c["model.width"], self.c["model.head_dim"]
        n = x.shape[1]
        s1, k1, g1, s2, k2, g2 = [a + o for a, o in zip(cond, w[f"blocks.{i}.mod"])]
        qkv = (rms(x) * (1 + k1) + s1) @ w[f"blocks.{i}.qkv.weight"].T
        q, k, v = [part.view(self.b, n, d // h, h).transpose(1, 2) for part in qkv.chunk(3, -1)]

        def rotate(z):
            a, b = z[..., :h // 2], z[..., h // 2:]
            return torch.cat([a * turn[0] - b * turn[1], a * turn[1] + b * turn[0]], -1)
        q, k = rotate(rms(q)), rotate(rms(k))
        logits = q @ k.transpose(-1, -2) * (w[f"blocks.{i}.gamma"] / h)[:, None, None]
        att = logits.masked_fill(~mask, -math.inf).softmax(-1) @ v
        x = x + (1 + g1) * (att.transpose(1, 2).reshape(self.b, n, d) @ w[f"blocks.{i}.out.weight"].T)
        u, v = ((rms(x) * (1 + k2) + s2) @ w[f"blocks.{i}.up.weight"].T).chunk(2, -1)
        return x + (1 + g2) * ((F.silu(u) * v) @ w[f"blocks.{i}.down.weight"].T)

    def forward(self):
        w, tau, d = self.w, self.data["tau"].double(), self.c["model.width"]
        rows = [self.embed(m, tau[..., i]) for i, m in enumerate(SENSES)]
        owner = [i for i, r in enumerate(rows) for _ in range(r.shape[2])]
        x = torch.cat([r @ w[f"embed.{m}.weight"].T for r, m in zip(rows, SENSES)], 2) + w["slot"]
        x = x + (rows[0].flatten(2) @ w["action_map.weight"].T)[:, :, None]
        past = features(self.data["tau_history"].double())[:, :, None].expand(-1, -1, 4, -1)
        act = features(tau[..., :1]).expand(-1, -1, 4, -1)
        level = torch.cat([features(tau), act, past, torch.eye(4).double().expand(self.b, self.f, 4, 4)], -1)
        level = F.silu(level @ w["cond.1.weight"].T + w["cond.1.bias"]) @ w["cond.2.weight"].T + w["cond.2.bias"]
        n = self.f * len(owner)
        cond = [c.reshape(self.b, n, d) for c in level[:, :, owner].chunk(6, -1)]
        frame = torch.arange(self.f).repeat_interleave(len(owner))
        mask = frame[:, None] >= frame
        if self.c["model.window"]:
            mask &= frame[:, None] - frame < self.c["model.window"]
        turn = self.angles(owner)
        x = x.reshape(self.b, n, d)
        for i in range(self.c["model.layers"]):
            x = self.block(i, x, cond, mask, turn)
        x = rms(x).view(self.b, self.f, len(owner), d)
        own = torch.tensor(owner)
        return [x[:, :, own == i] @ w[f"head.{m}.weight"].T + w[f"head.{m}.bias"] for i, m in enumerate(SENSES)]

    def losses(self):
        weights, out = [0.02, 0.02, 0.02, 1.0], []
        for i, (m, y) in enumerate(zip(SENSES, self.forward())):
            tau, active = self.data["tau"][..., i].double(), self.data["active." + m].double()
            w = {"one": torch.ones_like(tau), "ramp": 0.9 * tau + 0.1,
                 "v": 1 / (1 - tau).clamp(min=0.05) ** 2}[self.c["loss.weighting"]]
            error = (y - self.cut(m, self.data["x." + m].double(), 0)).pow(2).flatten(2).mean(-1)
            out.append(weights[i] * (error * w * active).sum() / active.sum().clamp(min=1))
        return out


def compare(name, case, path):
    dump = os.path.join(os.environ["ORRERY_BUILD"], "tests", "parity_dump")
    subprocess.run([dump, path] + [f"{k}={v}" for k, v in case.items()] + ["comm.shards=1"], check=True)
    data = load_file(path)
    model = Model(case, data)
    losses = model.losses()
    sum(losses).backward()
    worst, bad = 0.0, 0
    for i, m in enumerate(SENSES):
        share = abs(losses[i].item() - data["losses"][i].item()) / max(abs(losses[i].item()), 1e-12)
        if not share <= TOLERANCE:
            bad += 1
            print(f"{name}: loss of {m}: {data['losses'][i].item():.8g}, PyTorch {losses[i].item():.8g}")
    for k, w in model.w.items():
        got, want = data["grad." + k].double(), w.grad
        share = ((got - want).norm() / want.norm().clamp(min=1e-12)).item()
        worst = max(worst, share) if share == share else math.inf
        if not share <= TOLERANCE:
            bad += 1
            print(f"{name}: gradient of {k}: off by {share:.3g} of its length {want.norm().item():.3g}")
    print(f"{name}: {len(model.w)} gradients, worst off by {worst:.2g} of its length; loss {sum(losses).item():.6g}")
    return bad


with tempfile.TemporaryDirectory() as folder:
    wrong = sum(compare(n, c, os.path.join(folder, n + ".safetensors")) for n, c in CASES.items())
sys.exit(1 if wrong else 0)
