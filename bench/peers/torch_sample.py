#!/usr/bin/env python3
"""Sampling the same network in PyTorch, for bench/sample to set beside igpt.h's own:

    build/bench/sample 1 1024 'python3 bench/peers/torch_sample.py [--bf16] [--compile]'

What a PyTorch user would write: keys and values in a cache that is allocated once, a position
appended at each step, F.scaled_dot_product_attention of the one query over what is there,
F.rms_norm, torch.multinomial, all under inference_mode; weights and cache in float32, or bfloat16
with --bf16. --compile lets torch.compile make a step of it: with the cache always seen whole, behind
a mask, so that no shape changes. Before it says that it is ready, logits of the cached steps have to
be those of the full causal pass. Then it takes an eighth of the tokens for each line of its input
and prints the seconds, and in the end the bytes of its largest resident size.
"""

import argparse
import resource
import sys
import time

LAYERS, HEADS, WIDTH, POSITIONS, COLOURS, TURNS = 24, 8, 512, 1024, 512, 8


def make_sampler(options, batch):
    """A function that samples one more token, another that forgets all, and what it is."""
    import torch
    F = torch.nn.functional
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    kind = torch.bfloat16 if options.bf16 else torch.float32
    size = WIDTH // HEADS

    def matrix(rows, columns, deviation):
        return (torch.randn(rows, columns) * deviation).to(kind)

    wte, wpe = matrix(COLOURS + 1, WIDTH, 0.02), matrix(POSITIONS, WIDTH, 0.01)
    blocks = [(torch.ones(WIDTH, dtype=kind), matrix(3 * WIDTH, WIDTH, WIDTH ** -0.5),
               matrix(WIDTH, WIDTH, (WIDTH * LAYERS) ** -0.5), torch.ones(WIDTH, dtype=kind),
               matrix(4 * WIDTH, WIDTH, 0.02), matrix(WIDTH, 4 * WIDTH, 0.02))
              for _ in range(LAYERS)]
    ln_f, lm_head = torch.ones(WIDTH, dtype=kind), matrix(COLOURS, WIDTH, 0.02)
    caches = [torch.zeros(2, batch, HEADS, POSITIONS, size, dtype=kind) for _ in range(LAYERS)]
    places = torch.arange(POSITIONS)

    def network(x, attend):
        """(batch, n, WIDTH) to logits (batch, COLOURS) of the last; attend(layer, q, k, v)"""
        n = x.shape[1]
        for layer, (ln_1, c_attn, c_proj, ln_2, c_fc, m_proj) in enumerate(blocks):
            a = F.linear(F.rms_norm(x, (WIDTH,), ln_1, 1e-5), c_attn)
            a = attend(layer, *(z.view(batch, n, HEADS, size).transpose(1, 2)
                                for z in a.split(WIDTH, 2)))
            x = x + F.linear(a.transpose(1, 2).reshape(batch, n, WIDTH), c_proj)
            f = F.linear(F.rms_norm(x, (WIDTH,), ln_2, 1e-5), c_fc)
            x = x + F.linear(f * torch.sigmoid(1.702 * f), m_proj)
        return F.linear(F.rms_norm(x[:, -1], (WIDTH,), ln_f, 1e-5), lm_head).float()

    def step_seen(tokens, position):
        def attend(layer, q, k, v):
            cache = caches[layer]
            cache[0, :, :, position:position + 1] = k
            cache[1, :, :, position:position + 1] = v
            return F.scaled_dot_product_attention(q, cache[0, :, :, :position + 1],
                                                  cache[1, :, :, :position + 1])
        return network((wte[tokens] + wpe[position]).unsqueeze(1), attend)

    def step_masked(tokens, place):
        mask = (places <= place).view(1, 1, 1, POSITIONS)

        def attend(layer, q, k, v):
            cache = caches[layer]
            cache[0].index_copy_(2, place, k)
            cache[1].index_copy_(2, place, v)
            return F.scaled_dot_product_attention(q, cache[0], cache[1], attn_mask=mask)
        return network((wte[tokens] + wpe[place]).unsqueeze(1), attend)

    def full(tokens):
        def attend(_, q, k, v):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return network(wte[tokens] + wpe[:tokens.shape[1]], attend)

    compiled = torch.compile(step_masked) if options.compile else None
    state = {"position": 0, "tokens": torch.full((batch,), COLOURS)}

    @torch.inference_mode()
    def step(tokens=None):
        seen = state["tokens"] if tokens is None else tokens
        position = state["position"]
        logits = compiled(seen, places[position:position + 1]) if compiled \
            else step_seen(seen, position)
        state["tokens"] = torch.multinomial(torch.softmax(logits, 1), 1)[:, 0]
        state["position"] += 1
        return logits

    def forget():
        state.update(position=0, tokens=torch.full((batch,), COLOURS))

    @torch.inference_mode()
    def check():
        tokens = torch.randint(COLOURS, (batch, 40))
        tokens[:, 0] = COLOURS
        for i in range(tokens.shape[1]):
            got = step(tokens[:, i])
        want = full(tokens)
        assert (got - want).norm() < (3e-2 if options.bf16 else 1e-4) * want.norm()
        forget()

    check()
    return step, "PyTorch %s, %s%s, %d threads" % (
        torch.__version__, "bfloat16" if options.bf16 else "float32",
        ", compiled" if options.compile else "", options.threads)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="weights and cache in bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--paced", required=True, metavar="BATCH:TOKENS")
    options = parser.parse_args()
    batch, tokens = (int(x) for x in options.paced.split(":"))
    step, name = make_sampler(options, batch)
    print("ready", name, flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for _ in range(tokens // TURNS):
            step()
        print("%.9g" % (time.perf_counter() - began), flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return 0


if __name__ == "__main__":
    sys.exit(main())
