#!/usr/bin/env python3
"""The same network and step in PyTorch, for bench/train to set beside igpt.h's own:

    build/bench/train 7 -1 'python3 bench/peers/torch_step.py [--bf16] [--compile]'

What a PyTorch user would write: F.scaled_dot_product_attention, F.rms_norm, fused AdamW where it is
available, float32 (or bfloat16 autocast with --bf16, torch.compile with --compile). A step is
forward, loss, backward, AdamW without clipping, on one batch of random pictures of 32 x 32 tokens
out of 512 colours. Before it says that it is ready the first loss has to be ln 512, as the output
matrix starts at zero, and training on the one batch has to lower it. Then it takes a step for each
line of its input and prints the seconds, and in the end the bytes of its largest resident size.
"""

import argparse
import math
import resource
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


def make_step(name, options):
    """A function that takes a step and gives (loss, seconds), and what it is."""
    import torch
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    layers, heads, width, batch = MODELS[name]
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
    return step, "PyTorch %s, %s%s, %s, %d threads" % (
        torch.__version__, "bfloat16" if options.bf16 else "float32",
        ", compiled" if options.compile else "", optimizer, options.threads)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=2, help="untimed steps, at least 2")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--paced", required=True, choices=MODELS, help="the network")
    options = parser.parse_args()
    step, name = make_step(options.paced, options)
    print("ready", name, flush=True)
    for _ in sys.stdin:
        print("%.9g" % step()[1], flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return 0


if __name__ == "__main__":
    sys.exit(main())
