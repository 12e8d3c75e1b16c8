"""Exchanges models with Hugging Face transformers, both ways, and compares what they compute.

    python3 tests/interop/hf.py [compiler flags ...]

Run by hand from the root of the repository; needs cc, build/igpt, torch, transformers, pillow,
safetensors and numpy. A model of ours must load there without a missing, unexpected or
mismatched tensor and without a warning, and give the same logits within 1e-4; so must a model of
theirs here.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile

import numpy
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (AutoImageProcessor, ImageGPTConfig, ImageGPTForCausalImageModeling,
                          ImageGPTForImageClassification)

TOLERANCE = 1e-4
work = tempfile.mkdtemp(prefix="igpt-hf-")
half = os.path.join(work, "hf")
tool = os.path.join("build", "igpt")
failures = []


class Lines(logging.Handler):
    """Everything transformers has to say while it loads."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def check(name, good, note=""):
    print(("ok      " if good else "FAILED  ") + name + (": " + note if note else ""), flush=True)
    if not good:
        failures.append(name)


def close(name, ours, theirs):
    difference = float(numpy.abs(ours - theirs).max())
    check(name, ours.shape == theirs.shape and difference <= TOLERANCE,
          f"largest difference {difference:.2g}, logits {theirs.min():.2f} to {theirs.max():.2f}")


def run(*arguments):
    return subprocess.run([half, *map(str, arguments)], capture_output=True, text=True)


def igpt(*arguments):
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True)


def ours(command, model, tokens, *more):
    token_file, logit_file = (os.path.join(work, n) for n in ("tokens.npy", "logits.npy"))
    numpy.save(token_file, tokens)
    done = run(command, model, token_file, logit_file, *more)
    if done.returncode:
        raise SystemExit(done.stderr)
    return numpy.load(logit_file)


def theirs(model, tokens):
    """Their caller puts the start token in front; the last pixel is never an input."""
    start = numpy.full((len(tokens), 1), model.config.vocab_size - 1)
    inputs = torch.tensor(numpy.concatenate([start, tokens[:, :-1]], 1).astype(numpy.int64))
    with torch.no_grad():
        return model.eval()(input_ids=inputs).logits.float().numpy()


def config_of(layers, heads, width, positions, vocabulary, **more):
    return ImageGPTConfig(vocab_size=vocabulary + 1, n_positions=positions, n_embd=width,
                          n_layer=layers, n_head=heads, resid_pdrop=0.0, embd_pdrop=0.0,
                          attn_pdrop=0.0, **more)


def load_there(kind, folder):
    heard = Lines()
    logger = logging.getLogger("transformers")
    logger.addHandler(heard)
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    logger.removeHandler(heard)
    return model, info, heard.lines


def ours_to_theirs(name, layers, heads, width, rows, columns, vocabulary, rng):
    folder = os.path.join(work, name)
    os.mkdir(folder)
    path = os.path.join(folder, "model.safetensors")
    made = run("make", path, layers, heads, width, rows, columns, vocabulary, 0, 5)
    check(f"{name}: saved", made.returncode == 0, made.stderr)
    with safe_open(path, "pt") as file:
        meta, names = file.metadata(), sorted(file.keys())
    config = config_of(layers, int(meta["igpt.heads"]), width, rows * columns, vocabulary)
    config.save_pretrained(folder)
    model, info, lines = load_there(ImageGPTForCausalImageModeling, folder)
    check(f"{name}: loads there, {len(names)} tensors", not any(info.values()), str(info))
    check(f"{name}: without a warning", not lines, " ".join(lines))
    check(f"{name}: the same tensors", names == sorted(model.state_dict().keys()))
    centres = [float(x) for x in meta["igpt.centres"].split()]
    check(f"{name}: palette \"{meta['igpt.palette']}\"",
          meta["igpt.palette"] == "random \u221e \"colours\"" and len(centres) == 3 * vocabulary and
          all(-1 <= x <= 1 for x in centres))
    tokens = rng.integers(0, vocabulary, (3, rows * columns)).astype(numpy.uint16)
    close(f"{name}: logits", ours("run", path, tokens), theirs(model, tokens))


def fresh(kind, config):
    """Their model with norms, output matrix and embeddings that are not what they start as."""
    torch.manual_seed(3)
    model = kind(config)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "ln_" in key:
                value.add_(0.2 * torch.randn_like(value))
            elif not key.endswith("bias"):
                deviation = 0.5 if "wte" in key or "wpe" in key else 0.15
                value.copy_(deviation * torch.randn_like(value))
    return model


def theirs_to_ours(name, dtype, layers, heads, width, side, vocabulary, rng):
    folder = os.path.join(work, name)
    model = fresh(ImageGPTForCausalImageModeling,
                  config_of(layers, heads, width, side * side, vocabulary)).to(dtype)
    model.save_pretrained(folder)
    tokens = rng.integers(0, vocabulary, (3, side * side))
    path = os.path.join(folder, "model.safetensors")
    close(f"{name}: logits", ours("run", path, tokens, heads), theirs(model.float(), tokens))
    refused = run("run", path, os.path.join(work, "tokens.npy"), os.path.join(work, "x.npy"))
    check(f"{name}: asks for heads", refused.returncode == 1 and "config.heads" in refused.stderr)


def classifiers(rng):
    folder = os.path.join(work, "theirs-classes")
    model = fresh(ImageGPTForImageClassification, config_of(2, 2, 32, 64, 16, num_labels=7))
    model.save_pretrained(folder)
    tokens = rng.integers(0, 16, (4, 64))
    path = os.path.join(folder, "model.safetensors")
    close("theirs-classes: class logits", ours("classify", path, tokens, 2), theirs(model, tokens))

    folder = os.path.join(work, "ours-classes")
    os.mkdir(folder)
    path = os.path.join(folder, "model.safetensors")
    run("make", path, 2, 2, 32, 8, 8, 16, 7, 9)
    config_of(2, 2, 32, 64, 16, num_labels=7).save_pretrained(folder)
    model, info, lines = load_there(ImageGPTForImageClassification, folder)
    # One file holds both heads, and each of their classes knows one: it reports the other. That
    # report also shows that a warning would be heard.
    check("ours-classes: loads as a classifier, all but lm_head",
          not info["missing_keys"] and set(info["unexpected_keys"]) == {"lm_head.weight"} and
          "lm_head.weight" in " ".join(lines), str(info))
    close("ours-classes: class logits", ours("classify", path, tokens), theirs(model, tokens))


def exported(name, classes, rng):
    """`igpt export --hf`: the folder as it is, with its configuration and its processor."""
    path, folder = (os.path.join(work, name + end) for end in (".safetensors", ".hf"))
    run("make", path, 3, 4, 64, 8, 8, 512, classes, 11)
    done = igpt("export", path, "--hf", folder)
    check(f"{name}: exported", done.returncode == 0, done.stderr)
    kind = ImageGPTForImageClassification if classes else ImageGPTForCausalImageModeling
    model, info, lines = load_there(kind, folder)
    check(f"{name}: {kind.__name__}.from_pretrained", not any(info.values()), str(info))
    check(f"{name}: without a warning", not lines, " ".join(lines))
    check(f"{name}: no dropout, the same start token", model.config.resid_pdrop == 0 and
          model.config.embd_pdrop == 0 and model.config.attn_pdrop == 0 and
          model.config.vocab_size == 513 and model.config.n_inner is None)
    tokens = rng.integers(0, 512, (3, 64)).astype(numpy.uint16)
    close(f"{name}: logits", ours("classify" if classes else "run", path, tokens),
          theirs(model, tokens))
    heard = Lines()
    logging.getLogger("transformers").addHandler(heard)
    processor = AutoImageProcessor.from_pretrained(folder)
    logging.getLogger("transformers").removeHandler(heard)
    with safe_open(path, "pt") as file:
        centres = numpy.array([float(x) for x in file.metadata()["igpt.centres"].split()])
    centres = centres.reshape(512, 3)
    check(f"{name}: colours, to the last digit", not heard.lines and numpy.array_equal(
        numpy.float32(centres), numpy.float32(processor.clusters)), " ".join(heard.lines))
    picture = rng.integers(0, 256, (8, 8, 3)).astype(numpy.uint8)
    theirs_tokens = numpy.array(processor(images=[picture])["input_ids"]).reshape(-1)
    distance = ((picture.reshape(-1, 1, 3) / 127.5 - 1 - centres) ** 2).sum(2)
    check(f"{name}: a picture's tokens", numpy.array_equal(theirs_tokens, distance.argmin(1)))
    if not classes:
        return
    shutil.rmtree(folder)
    done = igpt("export", path, "--hf", folder, "--head", "pixels")
    model, info, lines = load_there(ImageGPTForCausalImageModeling, folder)
    check(f"{name}: its other head loads there", done.returncode == 0 and not lines and
          not any(info.values()), str(info))
    close(f"{name}: logits of pixels", ours("run", path, tokens), theirs(model, tokens))


def pickled():
    """The hub's first uploads: the tool says how they are converted, and what it says works."""
    folder = os.path.join(work, "pickle")
    shutil.copytree(os.path.join(work, "exported.hf"), folder)
    os.remove(os.path.join(folder, "model.safetensors"))
    state = load_file(os.path.join(work, "exported.hf", "model.safetensors"))
    torch.save(state, os.path.join(folder, "pytorch_model.bin"))
    done = igpt("info", folder)
    command = done.stderr[done.stderr.find("python3 -c"):]
    check("pickle: a command", done.returncode == 1 and command.startswith("python3"), done.stderr)
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    told, before = igpt("info", folder, "--json"), igpt("info", work + "/exported.hf", "--json")
    check("pickle: converted by it", told.returncode == 0 and
          told.stdout.split('"palette"')[0] == before.stdout.split('"palette"')[0],
          done.stderr[-300:] + told.stderr)


def palette_as_tensor():
    """Why the palette stands in __metadata__: as a tensor it would be reported."""
    folder = os.path.join(work, "palette")
    shutil.copytree(os.path.join(work, "ours-small"), folder)
    path = os.path.join(folder, "model.safetensors")
    tensors = load_file(path)
    tensors["palette"] = torch.zeros(16, 3)
    save_file(tensors, path, metadata={"format": "pt"})
    _, info, lines = load_there(ImageGPTForCausalImageModeling, folder)
    check("a palette tensor would be reported",
          set(info["unexpected_keys"]) == {"palette"} and "palette" in " ".join(lines))


def biases(rng):
    """Biases as training leaves them, from theirs to ours and back."""
    colours = os.path.join(work, "colours.npy")
    numpy.save(colours, rng.uniform(-1, 1, (16, 3)).astype(numpy.float32))
    for name, kind in (("biases", ImageGPTForCausalImageModeling),
                       ("biases-classes", ImageGPTForImageClassification)):
        folder, back = os.path.join(work, name), os.path.join(work, name + "-back")
        more = {} if name == "biases" else {"num_labels": 7}
        model = fresh(kind, config_of(3, 4, 64, 64, 16, **more))
        tokens = rng.integers(0, 16, (4, 64))
        before = theirs(model, tokens)
        with torch.no_grad():
            for key, value in model.named_parameters():
                if key.endswith("bias"):
                    value.copy_(0.3 * torch.randn_like(value))
        model.save_pretrained(folder)
        path, command = os.path.join(folder, "model.safetensors"), "classify" if more else "run"
        close(f"{name}: logits", ours(command, path, tokens, 4), theirs(model, tokens))
        check(f"{name}: the biases matter", abs(before - theirs(model, tokens)).max() > 0.1)
        done = igpt("export", folder, "--hf", back, "--palette", colours)
        there, info, lines = load_there(kind, back)
        check(f"{name}: and back", done.returncode == 0 and not lines and not any(info.values()),
              done.stderr + str(info))
        mine, yours = model.state_dict(), there.state_dict()
        check(f"{name}: every tensor to the bit", set(mine) == set(yours) and
              all(torch.equal(mine[key], yours[key]) for key in mine))


def main():
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {work}")
    subprocess.run(["cc", "-O2", "-I.", *sys.argv[1:], "-o", half, "tests/interop/hf.c", "-lm",
                    "-pthread"], check=True)
    rng = numpy.random.default_rng(1)
    ours_to_theirs("ours-small", 2, 2, 32, 8, 8, 16, rng)
    ours_to_theirs("ours-wide", 3, 4, 64, 4, 12, 512, rng)
    ours_to_theirs("ours-deep", 12, 8, 64, 16, 16, 100, rng)
    theirs_to_ours("theirs-small", torch.float32, 2, 2, 32, 8, 16, rng)
    theirs_to_ours("theirs-large", torch.float32, 4, 8, 128, 16, 512, rng)
    theirs_to_ours("theirs-half", torch.float16, 2, 2, 32, 8, 16, rng)
    theirs_to_ours("theirs-bfloat16", torch.bfloat16, 2, 2, 32, 8, 16, rng)
    classifiers(rng)
    exported("exported", 0, rng)
    exported("exported-classes", 7, rng)
    pickled()
    palette_as_tensor()
    biases(rng)
    print(f"{len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
