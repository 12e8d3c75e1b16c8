"""The same training run by igpt.h and by PyTorch: same weights, same pictures, same steps.

    python3 tests/interop/curve.py DATA [--steps 300] [--batch 4] [--shape 4 4 64] [--out CSV]

Run by hand from the root of the repository; needs cc, torch, safetensors and numpy. DATA is the
folder of CIFAR-10's binary files; pictures are drawn from its training part, in the palette of the
model in the box. The network is written down a second time in bench/peers/torch_step.py, for
PyTorch and float32. AdamW (0.9, 0.95), rate 0.0005 after a tenth of the steps, from there a cosine
to a tenth of it, gradients clipped at 1. A run amplifies what rounding leaves, so of single losses
only the first tenth must agree, to 1e-4 in float32; the curves, means of 30 steps, within 1 % to
their ends, in float32 and, if the machine has it, in bfloat16. Where single steps decide when a run
leaves the frequency of colours behind, no two runs do: 8 4 128 with a rate of 0.003 and 2 pictures a
step is one.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import load_file

sys.path.insert(0, os.path.join("bench", "peers"))
from torch_step import make_network  # noqa: E402

TOLERANCE, FIRST, WINDOW = 0.01, 1e-4, 30
RATE, END = 0.0005, 0.1


def pictures(folder, count, rng):
    """Tokens (count,1024) of pictures of the training part, the nearest of 512 colours a pixel."""
    with safe_open(os.path.join("examples", "models", "cifar10.safetensors"), "pt") as file:
        centres = numpy.float32(file.metadata()["igpt.centres"].split()).reshape(512, 3)
    files = [numpy.fromfile(os.path.join(folder, f"data_batch_{i}.bin"), numpy.uint8)
             for i in range(1, 6)]
    records = numpy.concatenate(files).reshape(-1, 3073)
    chosen = records[rng.permutation(len(records))[:count], 1:].reshape(count, 3, 1024)
    tokens = numpy.empty((count, 1024), numpy.uint16)
    for i, picture in enumerate(chosen):
        colours = picture.T.astype(numpy.float32) / 127.5 - 1
        distances = (centres ** 2).sum(1) - 2 * colours @ centres.T
        tokens[i] = distances.argmin(1)
    return tokens


def load(network, path):
    """Our file has the names of Hugging Face, and matrices of blocks as (in, out)."""
    theirs = {"wte": "transformer.wte", "wpe": "transformer.wpe", "ln_f": "transformer.ln_f",
              "lm_head": "lm_head"}
    inside = {"ln_1": "ln_1", "ln_2": "ln_2", "c_attn": "attn.c_attn", "c_proj": "attn.c_proj",
              "c_fc": "mlp.c_fc", "m_proj": "mlp.c_proj"}
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in theirs:
                value = tensors[theirs[name] + ".weight"]
            else:
                _, layer, part = name.split(".")
                value = tensors[f"transformer.h.{layer}.{inside[part]}.weight"]
                value = value.T if value.dim() == 2 else value
            assert parameter.shape == value.shape, name
            parameter.copy_(value)


def train(path, shape, tokens, batch, warmup):
    network = make_network(torch, *shape)
    load(network, path)
    adam = torch.optim.AdamW(network.parameters(), lr=0, betas=(0.9, 0.95), eps=1e-8,
                             weight_decay=0)
    steps, losses = len(tokens) // batch, []
    for step in range(steps):
        if step < warmup:
            rate = RATE * (step + 1) / warmup
        else:
            place = (step - warmup) / (steps - warmup)
            rate = RATE * (END + (1 - END) * 0.5 * (1 + math.cos(math.pi * place)))
        for group in adam.param_groups:
            group["lr"] = rate
        loss = network(torch.from_numpy(tokens[step * batch:(step + 1) * batch].astype("int64")))
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        losses.append(loss.item())
    return numpy.array(losses)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--shape", type=int, nargs=3, default=[4, 4, 64])
    parser.add_argument("--out", help="a table of the losses")
    options = parser.parse_args()
    work = tempfile.mkdtemp(prefix="igpt-curve-")
    half, model, file, result = (os.path.join(work, name) for name in
                                 ("curve", "model.safetensors", "tokens.npy", "losses.npy"))
    subprocess.run(["cc", "-O2", "-I.", "-o", half, "tests/interop/curve.c", "-lm", "-pthread"],
                   check=True)
    tokens = pictures(options.data, options.steps * options.batch, numpy.random.default_rng(1))
    numpy.save(file, tokens)
    subprocess.run([half, "make", model, *map(str, options.shape)], check=True)
    warmup = max(1, options.steps // 10)
    columns, failed = {}, 0
    for precision in ("f32", "auto"):
        start = time.time()
        subprocess.run([half, "train", model, file, result, str(options.batch), str(RATE),
                        str(warmup), precision], check=True)
        columns[precision] = numpy.load(result).astype(float)
        print(f"igpt.h, {precision}: {time.time() - start:.0f} s", flush=True)
    start = time.time()
    theirs = train(model, options.shape, tokens, options.batch, warmup)
    print(f"PyTorch {torch.__version__}, f32: {time.time() - start:.0f} s; "
          f"loss {theirs[0]:.4f} to {theirs[-1]:.4f}")
    window = numpy.ones(min(WINDOW, options.steps)) / min(WINDOW, options.steps)
    for precision, ours in columns.items():
        first = (numpy.abs(ours - theirs) / theirs)[:warmup].max()
        smooth = [numpy.convolve(losses, window, "valid") for losses in (ours, theirs)]
        apart = numpy.abs(smooth[0] - smooth[1]) / smooth[1]
        good = bool(apart.max() <= TOLERANCE and (first <= FIRST or precision != "f32"))
        failed += not good
        print(f"{'ok      ' if good else 'FAILED  '}{precision}: first {warmup} losses within "
              f"{first:.1g}; means of {len(window)} within {100 * apart.max():.3f} % "
              f"(at the end {100 * apart[-1]:.3f} %)")
    if options.out:
        steps = numpy.arange(1, len(theirs) + 1)
        numpy.savetxt(options.out, numpy.column_stack([steps, *columns.values(), theirs]),
                      fmt=["%d", "%.5f", "%.5f", "%.5f"], delimiter=",", comments="",
                      header="step," + ",".join(columns) + ",pytorch")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
