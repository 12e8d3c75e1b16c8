#!/usr/bin/env python3
"""Training speed and peak memory of the same network in PyTorch, to set beside igpt.h's own.

    python3 bench/peers/torch_step.py [--models S,medium-cpu,small-cpu] [--threads 2] [--bf16]
                                      [--compile] [--repeats 5] [--warmup 2] [--json]

What a PyTorch user would write: F.scaled_dot_product_attention, F.rms_norm, fused AdamW where it is
available, float32 (or bfloat16 autocast with --bf16, torch.compile with --compile). A step is
forward, loss, backward, AdamW without clipping, on one batch of random pictures of 32 x 32 tokens
out of 512 colours. Every model runs in a process of its own, so that its peak memory is its own.

Before anything is timed the result is checked: the first loss has to be ln 512, as the output
matrix starts at zero, and training on the one batch has to lower it. Printed are the median of the
steps' times, the fastest and the slowest, tokens a second of the median, and the largest resident
size of the process, with the size before the model was made beside it.
"""

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

#          layers, heads, width, batch
MODELS = {"S": (24, 8, 512, 2), "medium-cpu": (12, 8, 256, 4), "small-cpu": (8, 4, 128, 8)}
TOKENS, COLOURS = 1024, 512


def make_network(torch, layers, heads, width):
    nn, F = torch.nn, torch.nn.functional

    def matrix(rows, columns, deviation):
        return nn.Parameter(torch.randn(rows, columns) * deviation)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1 = nn.Parameter(torch.ones(width))
            self.c_attn = matrix(3 * width, width, width ** -0.5)
            self.c_proj = matrix(width, width, (width * layers) ** -0.5)
            self.ln_2 = nn.Parameter(torch.ones(width))
            self.c_fc = matrix(4 * width, width, 0.02)
            self.m_proj = matrix(width, 4 * width, 0.02)

        def forward(self, x):
            B, T, C = x.shape
            a = F.linear(F.rms_norm(x, (C,), self.ln_1, 1e-5), self.c_attn)
            q, k, v = (z.view(B, T, heads, C // heads).transpose(1, 2) for z in a.split(C, 2))
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + F.linear(a.transpose(1, 2).reshape(B, T, C), self.c_proj)
            f = F.linear(F.rms_norm(x, (C,), self.ln_2, 1e-5), self.c_fc)
            return x + F.linear(f * torch.sigmoid(1.702 * f), self.m_proj)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = matrix(COLOURS + 1, width, 0.02)          # the last row starts a picture
            self.wpe = matrix(TOKENS, width, 0.01)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.ln_f = nn.Parameter(torch.ones(width))
            self.lm_head = matrix(COLOURS, width, 0.0)

        def forward(self, tokens):
            start = torch.full_like(tokens[:, :1], COLOURS)
            x = F.embedding(torch.cat([start, tokens[:, :-1]], 1), self.wte) + self.wpe
            for block in self.blocks:
                x = block(x)
            logits = F.linear(F.rms_norm(x, (width,), self.ln_f, 1e-5), self.lm_head)
            return F.cross_entropy(logits.view(-1, COLOURS).float(), tokens.reshape(-1))

    return Network()


def resident_peak():
    """bytes"""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name, options):
    import torch
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    layers, heads, width, batch = MODELS[name]
    before = resident_peak()
    network = make_network(torch, layers, heads, width)
    tokens = torch.randint(COLOURS, (batch, TOKENS))
    try:
        adam = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0,
                                 fused=True)
        optimizer = "fused AdamW"
    except (RuntimeError, TypeError):
        adam = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0)
        optimizer = "AdamW"
    run = torch.compile(network) if options.compile else network

    def step():
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            loss = run(tokens)
        loss.backward()
        adam.step()
        adam.zero_grad()
        return loss.item(), time.perf_counter() - began

    first, _ = step()
    assert abs(first - math.log(COLOURS)) < 1e-4, first
    for _ in range(max(options.warmup, 2) - 1):
        last, _ = step()
    assert last < first - 1e-3, (first, last)
    times = [step()[1] for _ in range(options.repeats)]
    median = statistics.median(times)
    return {"model": name, "layers": layers, "width": width, "heads": heads, "batch": batch,
            "parameters": sum(p.numel() for p in network.parameters()), "optimizer": optimizer,
            "seconds": median, "fastest": min(times), "slowest": max(times),
            "tokens_per_s": batch * TOKENS / median, "peak_bytes": resident_peak(),
            "bytes_before": before, "first_loss": first}


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2, help="untimed steps, at least 2")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--json", action="store_true", help="one JSON object a model")
    parser.add_argument("--one", help=argparse.SUPPRESS)         # a model in this process
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return 0
    names = options.models.split(",")
    for name in names:
        if name not in MODELS:
            parser.error("unknown model %s: one of %s" % (name, ", ".join(MODELS)))
    head = True
    for name in names:
        command = [sys.executable, os.path.abspath(__file__), "--one", name]
        for flag in ("threads", "repeats", "warmup"):
            command += ["--" + flag, str(getattr(options, flag))]
        command += [flag for flag, wanted in (("--bf16", options.bf16),
                                              ("--compile", options.compile)) if wanted]
        out = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        result = json.loads(out.splitlines()[-1])
        if options.json:
            print(json.dumps(result), flush=True)
            continue
        if head:
            import importlib.metadata
            print("PyTorch %s, %s, %d threads, %s%s, %s, %d warm-up steps, median of %d" % (
                importlib.metadata.version("torch"), processor(), options.threads,
                "bfloat16 autocast" if options.bf16 else "float32",
                ", torch.compile" if options.compile else "", result["optimizer"],
                max(options.warmup, 2), options.repeats))
            print("%-12s %6s %5s %5s %11s %9s %19s %9s %18s" % (
                "model", "layers", "width", "batch", "parameters", "s/step", "fastest..slowest",
                "tokens/s", "peak (before) MB"))
            head = False
        print("%-12s %6d %5d %5d %11d %9.3f %19s %9.0f %18s" % (
            name, result["layers"], result["width"], result["batch"], result["parameters"],
            result["seconds"], "%.3f..%.3f" % (result["fastest"], result["slowest"]),
            result["tokens_per_s"], "%.0f (%.0f)" % (result["peak_bytes"] / 1e6,
                                                     result["bytes_before"] / 1e6)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
