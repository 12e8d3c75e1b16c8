"""scikit-learn on the data of bench/palette_probe.c, in the same quantities.

    mkdir -p build/pp && build/bench/palette_probe --dump build/pp && python3 bench/peers/palette_probe.py build/pp

KMeans: Lloyd, k-means++ seeds, one run, 10 rounds. LogisticRegression: L-BFGS, C = 1, to a tolerance
that gives at least as small a gradient as the probe's. Threads: OMP_NUM_THREADS.
"""
import sys
import time
import warnings

import numpy as np
import sklearn
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

warnings.simplefilter("ignore")
directory, only = sys.argv[1], sys.argv[2:]
print("scikit-learn", sklearn.__version__, "numpy", np.__version__)


def timed(call):
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, "%.3f s   processor %.3f s" % (time.perf_counter() - wall,
                                                  time.process_time() - cpu)


if not only or "kmeans" in only:
    rgb = np.fromfile(directory + "/pixels.u8", np.uint8).reshape(-1, 3).astype(np.float32)
    model = KMeans(512, init="k-means++", n_init=1, max_iter=10, tol=0, algorithm="lloyd",
                   random_state=0)
    _, text = timed(lambda: model.fit(rgb))
    print("KMeans fit, %d rounds: mean squared error %.5f   %s" %
          (model.n_iter_, model.inertia_ / rgb.size, text))
    _, text = timed(lambda: model.predict(rgb))
    print("KMeans predict  ", text)

if not only or "probe" in only:
    labels = np.fromfile(directory + "/labels.i32", np.int32)
    x = np.fromfile(directory + "/features.f32", np.float32).reshape(len(labels), -1)
    for tolerance in (1e-4, 1e-6):
        model = LogisticRegression(C=1.0, tol=tolerance, max_iter=1000)
        _, text = timed(lambda: model.fit(x, labels))
        w, b = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
        z = x.astype(np.float64) @ w.T + b
        top = z.max(axis=1)
        p = np.exp(z - top[:, None])
        loss = np.log(p.sum(axis=1)) + top - z[np.arange(len(z)), labels]
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(z)), labels] -= 1
        g = p.T @ x / len(z) + w / len(z)
        print("LogisticRegression, tol %g: objective %.9f, gradient %.2g, %d iterations   %s" %
              (tolerance, loss.mean() + (w * w).sum() / (2 * len(z)), np.abs(g).max(),
               model.n_iter_[0], text))
