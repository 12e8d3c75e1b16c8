#!/usr/bin/env python3
"""scikit-learn on the data of bench/palette_probe.c, which starts it as its peer:

    build/bench/palette_probe --dump build/peers --peer "python3 bench/peers/palette_probe.py"

KMeans: Lloyd, k-means++ seeds, one run, 10 rounds, once on all pixels and once on the distinct ones
with their numbers as weights; encode is its predict. LogisticRegression: its L-BFGS, C = 1, on
float32, with the largest tolerance out of 1e-4, 1e-5, 1e-6 that brings the objective within 1e-6 of
the optimum, which is found before. As many threads as the other program, or OMP_NUM_THREADS, or 2.
"""
import os
import sys
import time
import warnings

if len(sys.argv) != 2:
    sys.exit("usage: palette_probe.py FOLDER: what `build/bench/palette_probe --dump FOLDER` wrote; "
             "that program can start this one: --peer \"python3 bench/peers/palette_probe.py\"")

os.environ.setdefault("OMP_NUM_THREADS", "2")
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):              # they hold it back
    os.environ.pop(name, None)

import numpy as np
import sklearn
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

warnings.simplefilter("ignore")
directory = sys.argv[1]
bytes_of = np.fromfile(directory + "/pixels.u8", np.uint8).reshape(-1, 3)
rgb = bytes_of.astype(np.float32)
labels = np.fromfile(directory + "/labels.i32", np.int32)
x = np.fromfile(directory + "/features.f32", np.float32).reshape(len(labels), -1)


def timed(call):
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began


def fit_probe(tolerance):
    model = LogisticRegression(C=1.0, tol=tolerance, max_iter=1000)
    _, seconds = timed(lambda: model.fit(x, labels))
    return model, seconds


def objective(model):
    w = model.coef_.astype(np.float64)
    z = x.astype(np.float64) @ w.T + model.intercept_
    top = z.max(axis=1)
    loss = np.log(np.exp(z - top[:, None]).sum(axis=1)) + top - z[np.arange(len(z)), labels]
    return loss.mean() + (w * w).sum() / (2 * len(z))


def fit_colours(distinct):
    model = KMeans(512, init="k-means++", n_init=1, max_iter=10, tol=0, algorithm="lloyd",
                   random_state=0)
    began = time.perf_counter()
    if distinct:
        packed = (bytes_of[:, 0].astype(np.uint32) << 16 | bytes_of[:, 1].astype(np.uint32) << 8 |
                  bytes_of[:, 2])
        packed, weights = np.unique(packed, return_counts=True)
        colours = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1).astype(np.float32)
        model.fit(colours, sample_weight=weights)
    else:
        model.fit(rgb)
    return model, time.perf_counter() - began


best = objective(fit_probe(1e-7)[0])
for tolerance in (1e-4, 1e-5, 1e-6):
    if objective(fit_probe(tolerance)[0]) <= best * (1 + 1e-6):
        break
print("ready scikit-learn %s, numpy %s, %s threads, probe to %g" %
      (sklearn.__version__, np.__version__, os.environ["OMP_NUM_THREADS"], tolerance), flush=True)
for line in sys.stdin:
    if line.strip() in ("kmeans", "distinct"):
        kmeans, seconds = fit_colours(line.strip() == "distinct")
        print(seconds, kmeans.inertia_ / rgb.size, kmeans.n_iter_, flush=True)
    elif line.strip() == "encode":
        tokens, seconds = timed(lambda: kmeans.predict(rgb))
        error = (rgb - kmeans.cluster_centers_[tokens]) ** 2
        print(seconds, error.mean(dtype=np.float64), 0, flush=True)
    else:
        model, seconds = fit_probe(tolerance)
        print(seconds, objective(model), model.n_iter_[0], flush=True)
