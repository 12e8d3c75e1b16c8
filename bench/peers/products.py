#!/usr/bin/env python3
"""The products of bench/matmul and the attention of bench/attention by other libraries:

    build/bench/matmul --race 'python3 bench/peers/products.py torch' \\
                              'python3 bench/peers/products.py torch --bf16' \\
                              'python3 bench/peers/products.py scipy'
    build/bench/attention --race 'python3 bench/peers/products.py torch'

torch multiplies with oneDNN or MKL, SciPy with OpenBLAS. A turn is, with `--paced products`, the
three products of training of iGPT-S's four linear layers with 1024 rows: Y = X W, dX = dY W^T and
dW += X^T dY. With `--paced attention` (torch) it is scaled_dot_product_attention, causal, of 8
heads of width 64 and 1024 positions, forward and backward. Products and attention's forward pass
are checked before the first turn. With --bf16 operands are bfloat16.
"""

import argparse
import os
import resource
import sys
import time

LAYERS = ((512, 1536), (512, 512), (512, 2048), (2048, 512))
ROWS = 1024


def torch_products(options):
    import torch
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    kind = torch.bfloat16 if options.bf16 else torch.float32
    work = []
    for inside, outside in LAYERS:
        x, dy = torch.rand(ROWS, inside) - 0.5, torch.rand(ROWS, outside) - 0.5
        w, dw = torch.rand(inside, outside) - 0.5, torch.zeros(inside, outside)
        work.append([z.to(kind) for z in (x, dy, w, dw)] +
                    [torch.empty(ROWS, outside, dtype=kind), torch.empty(ROWS, inside, dtype=kind)])

    def turn():
        for x, dy, w, dw, y, dx in work:
            torch.mm(x, w, out=y)
            torch.mm(dy, w.t(), out=dx)
            dw.addmm_(x.t(), dy)

    turn()
    for x, dy, w, dw, y, dx in work:
        for got, want in ((y, x.double() @ w.double()), (dx, dy.double() @ w.double().t()),
                          (dw, x.double().t() @ dy.double())):
            assert (got.double() - want).norm() < (1e-2 if options.bf16 else 1e-5) * want.norm()
    return turn, "PyTorch %s's products, %s" % (torch.__version__, str(kind)[6:])


def scipy_products(options):
    import numpy
    import scipy
    from scipy.linalg.blas import sgemm       # columns first, and sums inside the product
    from threadpoolctl import threadpool_info, threadpool_limits
    threadpool_limits(options.threads)
    random = numpy.random.default_rng(1)
    work = []
    for inside, outside in LAYERS:
        x, dy, w = (random.random(shape, numpy.float32) - 0.5 for shape in (
            (ROWS, inside), (ROWS, outside), (inside, outside)))
        work.append((x, dy, w, numpy.zeros_like(w), numpy.empty_like(dy), numpy.empty_like(x)))

    def turn():
        for x, dy, w, dw, y, dx in work:
            sgemm(1, w.T, x.T, c=y.T, overwrite_c=1)
            sgemm(1, w.T, dy.T, c=dx.T, trans_a=1, overwrite_c=1)
            sgemm(1, dy.T, x.T, beta=1, c=dw.T, trans_b=1, overwrite_c=1)

    turn()
    for x, dy, w, dw, y, dx in work:
        x, dy, w = (z.astype(float) for z in (x, dy, w))
        for got, want in ((y, x @ w), (dx, dy @ w.T), (dw, x.T @ dy)):
            assert numpy.linalg.norm(got - want) < 1e-5 * numpy.linalg.norm(want)
    kernels = {i.get("architecture", "?") for i in threadpool_info()
               if i["internal_api"] == "openblas"}
    return turn, "SciPy %s, OpenBLAS for %s" % (scipy.__version__, "/".join(sorted(kernels)))


def torch_attention(options):
    import torch
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    kind = torch.bfloat16 if options.bf16 else torch.float32
    q, k, v = (torch.randn(1, 8, 1024, 64).to(kind).requires_grad_() for _ in range(3))
    dout = torch.randn(1, 8, 1024, 64).to(kind)

    def turn():
        q.grad = k.grad = v.grad = None
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out.backward(dout)
        return out

    out = turn()
    mask = torch.full((1024, 1024), float("-inf"), dtype=torch.float64).triu(1)
    scores = q.detach().double() @ k.detach().double().transpose(2, 3) / 8 + mask
    want = scores.softmax(3) @ v.detach().double()
    assert (out.detach().double() - want).norm() < (1e-2 if options.bf16 else 1e-5) * want.norm()
    return turn, "PyTorch %s's scaled_dot_product_attention, %s" % (torch.__version__,
                                                                     str(kind)[6:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=("torch", "scipy"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="torch: operands in bfloat16")
    parser.add_argument("--paced", required=True, choices=("products", "attention"))
    options = parser.parse_args()
    if options.library == "scipy":
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):      # they hold it back
            if os.environ.pop(name, None):
                os.execv(sys.executable, [sys.executable] + sys.argv)
    make = {("torch", "products"): torch_products, ("scipy", "products"): scipy_products,
            ("torch", "attention"): torch_attention}.get((options.library, options.paced))
    if not make:
        parser.error("%s has no %s" % (options.library, options.paced))
    turn, name = make(options)
    for _ in range(3):
        turn()
    print("ready %s, %d threads" % (name, options.threads), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        turn()
        print("%.9g" % (time.perf_counter() - began), flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return 0


if __name__ == "__main__":
    sys.exit(main())
