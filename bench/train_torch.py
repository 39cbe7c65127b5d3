#!/usr/bin/python3
"""train_torch.py - bench_train's training step in PyTorch: the same shapes, tokens and optimiser.

    bench/train_torch.py -m nano-gpt2 -n 20 -t 2 [--json]
    bench/train_torch.py -m nano-gpt2 -n 2000 -t 2 --data shakespeare.txt [--json]

With --data it learns that text's characters as `train --preset tiny --vocab 0` does (nanoGPT's
recipe for processors: the last tenth is for validation, cosine rate from 1e-3 to 1e-4 after 100
steps of warm-up) and says the loss on all of the held-out part, and the time of everything.
Plain operations: linear, scaled_dot_product_attention where PyTorch has it, and AdamW, fused or
over all tensors at once where it can. The first step is not counted.
"""
import argparse
import json
import math
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

# arch, layers, heads, dim, ff, vocabulary, tied, length, batch: as in bench_train.c
SHAPES = {
    "nano-llama": ("llama", 4, 4, 128, 352, 65, False, 64, 12),
    "nano-gpt2": ("gpt2", 4, 4, 128, 512, 65, True, 64, 12),
    "gpt2-124m": ("gpt2", 12, 12, 768, 3072, 50257, True, 64, 4),
    "small-llama": ("llama", 6, 6, 192, 512, 2048, True, 128, 16),
}


def attend(q, k, v, mask):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = torch.matmul(q, k.transpose(-2, -1)) * (1.0 / math.sqrt(q.shape[-1]))
    return torch.matmul(F.softmax(scores.masked_fill(mask, -math.inf), dim=-1), v)


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class Block(nn.Module):
    def __init__(self, arch, heads, dim, ff):
        super().__init__()
        self.heads, self.gpt2 = heads, arch == "gpt2"
        bias, norm = self.gpt2, nn.LayerNorm if self.gpt2 else RMSNorm
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)
        self.up = nn.Linear(dim, ff, bias=bias)
        self.gate = None if self.gpt2 else nn.Linear(dim, ff, bias=False)
        self.down = nn.Linear(ff, dim, bias=bias)

    def forward(self, x, cosines, sines, mask):
        batch, length, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(dim, dim=2)
        q, k, v = (y.view(batch, length, self.heads, -1).transpose(1, 2) for y in (q, k, v))
        if not self.gpt2:
            q, k = (self.rotate(y, cosines, sines) for y in (q, k))
        y = attend(q, k, v, mask).transpose(1, 2).reshape(batch, length, dim)
        x = x + self.out(y)
        h = self.norm2(x)
        if self.gpt2:  # the tanh form; PyTorch has it as one operation since 1.12
            h = F.gelu(self.up(h), approximate="tanh")
        else:
            h = F.silu(self.gate(h)) * self.up(h)
        return x + self.down(h)

    @staticmethod
    def rotate(x, cosines, sines):
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cosines - b * sines, a * sines + b * cosines), dim=-1)


class Model(nn.Module):
    def __init__(self, arch, layers, heads, dim, ff, vocab, tied, length):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.position = nn.Embedding(length, dim) if arch == "gpt2" else None
        self.blocks = nn.ModuleList(Block(arch, heads, dim, ff) for _ in range(layers))
        self.norm = nn.LayerNorm(dim) if arch == "gpt2" else RMSNorm(dim)
        self.head = nn.Linear(dim, vocab, bias=False)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                deviation = 0.02
                if name.endswith(("out.weight", "down.weight")):
                    deviation /= math.sqrt(2 * layers)
                nn.init.normal_(p, std=deviation)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        if tied:
            self.head.weight = self.embed.weight
        half = dim // heads // 2
        angles = torch.outer(torch.arange(length), 10000.0 ** (-torch.arange(half) / half))
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        for name, value in (("cosines", angles.cos()), ("sines", angles.sin()), ("mask", mask)):
            self.register_buffer(name, value)

    def forward(self, tokens):
        x = self.embed(tokens)
        if self.position is not None:
            x = x + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, self.cosines, self.sines, self.mask)
        return self.head(self.norm(x))


def adamw(model, rate=3e-4, beta2=0.95):
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    for extra in ({"fused": True}, {"foreach": True}, {}):
        try:
            return torch.optim.AdamW(groups, lr=rate, betas=(0.9, beta2), eps=1e-8, **extra)
        except (TypeError, RuntimeError):  # not in this version, or not on this device
            pass
    raise SystemExit("train_torch.py: no AdamW")


def data(vocab, length, batch):
    state, rows = 12345, []
    for _ in range(batch):
        row = []
        for _ in range(length + 1):
            state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
            row.append((state >> 8) % vocab)
        rows.append(row)
    ids = torch.tensor(rows)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


class Text:
    """The characters of a file as ids: random windows of the first nine tenths, and the rest."""

    def __init__(self, path, length, batch):
        text = open(path, encoding="utf-8").read()
        ids = {c: i for i, c in enumerate(sorted(set(text)))}
        all_ids = torch.tensor([ids[c] for c in text])
        cut = len(text) * 9 // 10
        self.train, self.held = all_ids[:cut], all_ids[cut:]
        self.vocab, self.length, self.batch = len(ids), length, batch

    def draw(self):
        at = torch.randint(len(self.train) - self.length - 1, (self.batch,))
        rows = torch.stack([self.train[i : i + self.length + 1] for i in at])
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    @torch.no_grad()
    def loss(self, model):
        n = (len(self.held) - 1) // self.length * self.length
        x, y = (self.held[i : i + n].view(-1, self.length) for i in (0, 1))
        total = sum(
            F.cross_entropy(model(a).view(-1, self.vocab), b.reshape(-1), reduction="sum").item()
            for a, b in zip(x.split(self.batch), y.split(self.batch))
        )
        return total / n


def cosine(step, steps, most=1e-3, least=1e-4, warmup=100):
    if step < warmup:
        return most * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return least + 0.5 * (most - least) * (1 + math.cos(math.pi * done))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", default="nano-llama", choices=SHAPES)
    parser.add_argument("-n", type=int, default=10)
    parser.add_argument("-t", type=int, default=2)
    parser.add_argument("--data")
    parser.add_argument("--json", action="store_true")
    o = parser.parse_args()
    begun = time.perf_counter()
    torch.manual_seed(1)
    torch.set_num_threads(o.t)
    arch, layers, heads, dim, ff, vocab, tied, length, batch = SHAPES[o.m]
    text = Text(o.data, length, batch) if o.data else None
    vocab = text.vocab if text else vocab
    model = Model(arch, layers, heads, dim, ff, vocab, tied, length)
    optimiser = adamw(model, beta2=0.99) if text else adamw(model)
    tokens, targets = text.draw() if text else data(vocab, length, batch)
    times, first, cpu = [], 0.0, 0.0
    for step in range(o.n + 1):
        start = time.perf_counter()
        if text:
            tokens, targets = text.draw()
            for group in optimiser.param_groups:
                group["lr"] = cosine(step, o.n)
        optimiser.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(tokens).view(-1, vocab), targets.view(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        value = loss.item()
        if step:
            times.append(time.perf_counter() - start)
        else:
            first, cpu = value, time.process_time()
    cpu = (time.process_time() - cpu) / o.n
    median, n = statistics.median(times), length * batch
    result = {
        "shape": o.m,
        "torch": torch.__version__,
        "threads": o.t,
        "params": sum(p.numel() for p in model.parameters()),
        "steps": o.n,
        "min_ms": round(min(times) * 1e3, 3),
        "median_ms": round(median * 1e3, 3),
        "cpu_ms": round(cpu * 1e3, 3),
        "tok_s": round(n / median, 1),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "first_loss": round(first, 5),
        "loss": round(value, 5),
    }
    if text:
        result["held_out_loss"] = round(text.loss(model), 4)
        result["all_s"] = round(time.perf_counter() - begun, 1)
    if o.json:
        print(json.dumps(result, separators=(",", ":")))
    else:
        print("\n".join(f"{key:10} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
