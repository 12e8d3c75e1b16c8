/* probe.c: the linear probe against scikit-learn's optimum, its gradient against differences, and
   what it does with bad input, little memory and impatient callers.                              */

#define _DEFAULT_SOURCE           /* mmap */
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "part.h"
#include "fixtures/probe.h"

/* ---- helpers -------------------------------------------------------------------------------- */

/* A set of n rows in k overlapping classes: an offset of its label in some features, and noise. */
static void blobs(float *x, int32_t *labels, size_t n, size_t d, size_t k)
{
  size_t i, j;
  part_fill(x, n * d, 1.5f, 9);
  for (i = 0; i < n; i++) {
    labels[i] = (int32_t)(i % k);
    for (j = 0; j < d; j++) x[i * d + j] += (j % k == i % k) ? 0.7f : 0.0f;
  }
}

/* (*) of part 15, in double, for weights (K,D) and intercepts (K) on raw features. */
static double objective(const float *x, const int32_t *labels, size_t n, size_t d, size_t k,
                        double inverse_l2, const float *w, const float *b)
{
  double sum = 0, squares = 0;
  size_t i, j, c;
  for (i = 0; i < n; i++) {
    double z[64], top = -1e300, total = 0;
    for (c = 0; c < k; c++) {
      z[c] = (double)b[c];
      for (j = 0; j < d; j++) z[c] += (double)w[c * d + j] * (double)x[i * d + j];
      if (z[c] > top) top = z[c];
    }
    for (c = 0; c < k; c++) total += exp(z[c] - top);
    sum += top + log(total) - z[labels[i]];
  }
  for (j = 0; j < k * d; j++) squares += (double)w[j] * (double)w[j];
  return sum / (double)n + squares / (2 * inverse_l2 * (double)n);
}

/* ---- tests ---------------------------------------------------------------------------------- */

TEST(equals_scikit_learn)
{
  size_t i, j;
  for (i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t d = (size_t)cases[i].features, k = (size_t)cases[i].classes, features = 0;
    size_t rows = (size_t)cases[i].rows;
    double norm = 0, apart = 0, mean = 0, expected_mean = 0;
    int classes = 0;
    igpt_probe_desc desc = {0};
    igpt_probe_report report;
    igpt_probe *probe;
    const float *w, *b;
    desc.inverse_l2 = cases[i].inverse_l2;
    desc.no_intercept = !cases[i].intercept;
    desc.standardise = cases[i].standardise;
    desc.tolerance = 1e-7;
    CHECK_INT(igpt_probe_fit(&probe, &report, cases[i].x, cases[i].labels, rows, d, &desc),
              IGPT_OK);
    if (!probe) continue;
    CHECK(report.converged);
    CHECK(report.iterations <= 45);         /* curvature that is used wrongly takes hundreds */
    CHECK(report.gradient <= 1e-7);
    CHECK_NEAR(report.objective, cases[i].objective, 1e-6 * cases[i].objective);
    w = igpt_probe_weights(probe, &classes, &features);
    b = igpt_probe_intercepts(probe);
    CHECK_INT(classes, k);
    CHECK_INT(features, d);
    for (j = 0; j < k * d; j++) {
      double e = (double)w[j] - cases[i].w[j];
      apart += e * e;
      norm += cases[i].w[j] * cases[i].w[j];
    }
    CHECK(sqrt(apart) <= 1e-3 * sqrt(norm));
    for (j = 0; j < k; j++) {               /* a common part of the intercepts changes nothing */
      mean += (double)b[j] / (double)k;
      expected_mean += cases[i].b[j] / (double)k;
    }
    for (j = 0; j < k; j++)
      CHECK_NEAR((double)b[j] - mean, cases[i].b[j] - expected_mean,
                 1e-3 * (1 + fabs(cases[i].b[j] - expected_mean)));
    if (desc.no_intercept && !desc.standardise)
      for (j = 0; j < k; j++) CHECK(b[j] == 0);
    if (!desc.standardise)                  /* the report is about what comes out */
      CHECK_NEAR(objective(cases[i].x, cases[i].labels, rows, d, k, desc.inverse_l2, w, b),
                 report.objective, 1e-6);
    igpt_probe_destroy(probe);
  }
}

/* Features that lie in a few directions, as a network's do: sums of hidden numbers, of which each
   is 0.7 times as large as the one before. */
static void tangled(float *x, int32_t *labels, size_t n, size_t d, size_t k)
{
  float *hidden = part_floats(n * d), *mixed = part_floats(d * d);
  size_t i, j, l;
  part_fill(mixed, d * d, 1, 3);
  blobs(hidden, labels, n, d, k);
  for (i = 0; i < n; i++)
    for (j = 0; j < d; j++) {
      float size = 1, sum = 0;
      for (l = 0; l < d; l++, size *= 0.7f) sum += hidden[i * d + l] * mixed[l * d + j] * size;
      x[i * d + j] = sum;
    }
  part_free(hidden);
  part_free(mixed);
}

/* The curvature at W = 0 sorts the directions out, of features of any size. Where it is left out,
   as there are too many features, of which all but the first say nothing, the way is long and its
   end the same. */
TEST(tangled_features)
{
  enum { N = 1500, D = 24, K = 3, WIDE = 4097 };      /* IGPT__PROBE_WIDEST + 1 */
  float *x = part_floats(N * D), *wide = TEST_AMOUNT(part_floats((size_t)N * WIDE), NULL);
  int32_t labels[N];
  igpt_probe_desc desc = {0};
  igpt_probe_report quick, other;
  igpt_probe *probe;
  size_t i;
  tangled(x, labels, N, D, K);
  CHECK_INT(igpt_probe_fit(&probe, &quick, x, labels, N, D, &desc), IGPT_OK);
  igpt_probe_destroy(probe);
  CHECK(quick.converged && quick.iterations <= 20);
  desc.standardise = 1;
  CHECK_INT(igpt_probe_fit(&probe, &quick, x, labels, N, D, &desc), IGPT_OK);
  igpt_probe_destroy(probe);
  CHECK(quick.converged && quick.iterations <= 20);
  if (wide) {
    memset(wide, 0, (size_t)N * WIDE * sizeof *wide);
    for (i = 0; i < N; i++) memcpy(wide + i * WIDE, x + i * D, D * sizeof *x);
    CHECK_INT(igpt_probe_fit(&probe, &other, wide, labels, N, WIDE, &desc), IGPT_OK);
    igpt_probe_destroy(probe);
    CHECK(other.converged && other.iterations >= 3 * quick.iterations);
    CHECK_NEAR(other.objective, quick.objective, 1e-5);
    printf("        %d and %d iterations\n", quick.iterations, other.iterations);
    part_free(wide);
  }
  for (i = 0; i < N * D; i++) x[i] *= 1e25f;
  CHECK_INT(igpt_probe_fit(&probe, &other, x, labels, N, D, &desc), IGPT_OK);
  igpt_probe_destroy(probe);
  CHECK(other.converged && other.iterations <= 20);
  CHECK_NEAR(other.objective, quick.objective, 1e-5);
  for (i = 0; i < N * D; i++) x[i] = i % D == 5 ? 0 : x[i] * 1e-25f;
  desc.standardise = 0;           /* a feature of zeros, and hardly any decay */
  desc.inverse_l2 = 1e100;
  desc.max_iterations = 30;
  CHECK_INT(igpt_probe_fit(&probe, &other, x, labels, N, D, &desc), IGPT_OK);
  CHECK(other.objective < 0.3);   /* 0.285; without M 0.541 */
  CHECK_NEAR(igpt_probe_weights(probe, NULL, NULL)[5], 0, 0);
  igpt_probe_destroy(probe);
  part_free(x);
}

/* The default tolerance is good for the objective, too. */
TEST(defaults)
{
  igpt_probe_desc zero = {0}, same = {0};
  igpt_probe *a, *b;
  igpt_probe_report report;
  same.inverse_l2 = 1;
  same.max_iterations = 1000;
  same.tolerance = 1e-6;
  same.classes = 4;
  CHECK_INT(igpt_probe_fit(&a, &report, plain_x, plain_labels, 150, 6, NULL), IGPT_OK);
  CHECK_NEAR(report.objective, cases[4].objective, 1e-6 * cases[4].objective);
  CHECK_INT(igpt_probe_fit(&b, NULL, plain_x, plain_labels, 150, 6, &same), IGPT_OK);
  CHECK(part_same(igpt_probe_weights(a, NULL, NULL), igpt_probe_weights(b, NULL, NULL), 24));
  igpt_probe_destroy(a);
  igpt_probe_destroy(b);
  zero.method = same.method = IGPT_SGD;
  same.rate = 0.1;
  same.momentum = 0.9;
  same.epochs = 30;
  same.batch = 256;
  CHECK_INT(igpt_probe_fit(&a, NULL, plain_x, plain_labels, 150, 6, &zero), IGPT_OK);
  CHECK_INT(igpt_probe_fit(&b, NULL, plain_x, plain_labels, 150, 6, &same), IGPT_OK);
  CHECK(part_same(igpt_probe_weights(a, NULL, NULL), igpt_probe_weights(b, NULL, NULL), 24));
  igpt_probe_destroy(a);
  igpt_probe_destroy(b);
}

/* Central differences of the objective, in a random direction, at a random place. */
TEST(gradient)
{
  int standardise, intercept;
  for (standardise = 0; standardise < 2; standardise++)
    for (intercept = 0; intercept < 2; intercept++) {
      enum { N = 75, D = 131, K = 19 };     /* more than a block of columns, and of classes */
      static float x[N * D];
      static int32_t labels[N];
      size_t p = (size_t)K * (D + (size_t)intercept), j;
      double *at = (double *)malloc(5 * p * sizeof(double)), *u = at + p, *g = at + 2 * p;
      double *moved = at + 3 * p, *other = at + 4 * p, slope = 0, values[2], step = 1e-3;
      igpt__fit fit;
      igpt__arena arena;
      purse memory;
      char *block;
      int side;
      if (!at) exit(2);
      blobs(x, labels, N, D, K);
      memset(&fit, 0, sizeof fit);
      memset(&arena, 0, sizeof arena);
      fit.desc.standardise = standardise;
      fit.desc.no_intercept = !intercept;
      fit.desc.inverse_l2 = 0.3;
      fit.desc.allocator = purse_allocator(&memory);
      fit.kernels = igpt_kernels_for(IGPT_ISA_AUTO);
      fit.x = x;
      fit.labels = labels;
      fit.rows = N;
      fit.features = D;
      fit.classes = K;
      fit.parameters = p;
      fit.chunk = 32;                       /* two spans, the last with a part of its rows */
      fit.slots = 2;
      igpt__fit_layout(&fit, &arena);
      block = (char *)malloc(arena.used + 64);
      if (!block) exit(2);
      arena.base = block + (64 - (uintptr_t)block % 64) % 64;
      arena.used = 0;
      igpt__fit_layout(&fit, &arena);
      if (standardise) CHECK_INT(igpt__probe_standardise(&fit), IGPT_OK);
      for (j = 0; j < p; j++) {
        igpt_rng rng = igpt_rng_seed(5, j);
        at[j] = 0.2 * (double)igpt_rng_normal(&rng);
        u[j] = (double)igpt_rng_normal(&rng);
      }
      CHECK_INT(igpt__probe_evaluate(&fit, &values[0], g, at, 0), IGPT_OK);
      for (j = 0; j < p; j++) slope += g[j] * u[j];
      for (side = 0; side < 2; side++) {
        for (j = 0; j < p; j++) moved[j] = at[j] + (side ? step : -step) * u[j];
        CHECK_INT(igpt__probe_evaluate(&fit, &values[side], other, moved, 0), IGPT_OK);
      }
      CHECK_NEAR((values[1] - values[0]) / (2 * step), slope, 1e-3 * (1 + fabs(slope)));
      CHECK(fabs(slope) > 0.05);            /* or the line above says nothing */
      free(block);
      free(at);
    }
}

/* Two classes whose optimum can be had by hand: x = +-1 in equal numbers, without errors, so W is
   (-w, w) with w / (C N) = p of the wrong class, p = 1 / (1 + exp(2 w)). */
TEST(two_classes_by_hand)
{
  const float x[4] = {-1, 1, -1, 1};
  const int32_t labels[4] = {0, 1, 0, 1};
  double w = 0.5;
  igpt_probe_desc desc = {0};
  igpt_probe *probe;
  igpt_probe_report report;
  const float *found;
  int i;
  for (i = 0; i < 100; i++)                 /* Newton on w / 4 - p(w), C = 1 */ {
    double p = 1 / (1 + exp(2 * w));
    w -= (w / 4 - p) / (0.25 + 2 * p * (1 - p));
  }
  desc.tolerance = 1e-7;
  CHECK_INT(igpt_probe_fit(&probe, &report, x, labels, 4, 1, &desc), IGPT_OK);
  found = igpt_probe_weights(probe, NULL, NULL);
  CHECK_NEAR(found[0], -w, 1e-5);
  CHECK_NEAR(found[1], w, 1e-5);
  CHECK_NEAR(report.objective, log(1 + exp(-2 * w)) + w * w / 4, 1e-6);
  igpt_probe_destroy(probe);
}

/* Standardised features do not see where zero is, even a million deviations away. */
TEST(standardise_far_from_zero)
{
  enum { N = 200, D = 3 };
  float around[N * D], away[N * D];
  int32_t labels[N];
  igpt_probe_desc desc = {0};
  igpt_probe_report a, b;
  igpt_probe *p, *q;
  igpt_rng rng = igpt_rng_seed(17, 0);
  size_t i;
  for (i = 0; i < N; i++) labels[i] = (int32_t)(i % 3);
  for (i = 0; i < N * D; i++) {
    around[i] = (float)(igpt_rng_below(&rng, 12) + (i % D == i / D % 3 ? 3 : 0)) / 8;
    away[i] = around[i] + 1048576.0f;        /* exact: eighths have room above 2^20 */
  }
  desc.standardise = 1;
  desc.tolerance = 1e-7;
  CHECK_INT(igpt_probe_fit(&p, &a, around, labels, N, D, &desc), IGPT_OK);
  CHECK_INT(igpt_probe_fit(&q, &b, away, labels, N, D, &desc), IGPT_OK);
  CHECK_NEAR(a.objective, b.objective, 1e-6 * a.objective);
  for (i = 0; i < 9; i++)
    CHECK_NEAR(igpt_probe_weights(q, NULL, NULL)[i], igpt_probe_weights(p, NULL, NULL)[i], 1e-4);
  igpt_probe_destroy(p);
  igpt_probe_destroy(q);
}

/* A feature of any size is as good as one around 1: its square may be more than a float holds. */
TEST(standardise_large_and_small)
{
  static const float sizes[] = { 1e-15f, 1e10f, 1e20f };
  enum { N = 200, D = 3 };
  float x[N * D];
  int32_t labels[N], guessed[N];
  igpt_rng rng = igpt_rng_seed(18, 0);
  size_t s, i;
  for (i = 0; i < N; i++) labels[i] = (int32_t)(i % 2);
  for (s = 0; s < 3; s++) {
    igpt_probe_desc desc = {0};
    igpt_probe_report report;
    igpt_probe *probe = NULL;
    int right = 0;
    for (i = 0; i < N * D; i++) {
      x[i] = 2 * igpt_rng_uniform(&rng) - 1;
      if (i % D == 1) x[i] = sizes[s] * ((float)labels[i / D] + 0.4f * x[i]);
    }
    desc.standardise = 1;
    CHECK_INT(igpt_probe_fit(&probe, &report, x, labels, N, D, &desc), IGPT_OK);
    CHECK(report.converged && report.objective < 0.1);
    CHECK_INT(igpt_probe_predict(probe, guessed, NULL, x, N), IGPT_OK);
    for (i = 0; i < N; i++) right += guessed[i] == labels[i];
    CHECK(right >= N - 2);
    igpt_probe_destroy(probe);
  }
}

/* More features than its matrix of second moments takes: found without one. */
TEST(wide_features)
{
  enum { N = 12, D = 4128 };                  /* whole tiles of every kernel */
  float *x = part_random(N * D, 1, 18);
  int32_t labels[N], guessed[N];
  igpt_probe_desc desc = {0};
  igpt_probe_report report;
  igpt_probe *probe = NULL;
  int i;
  for (i = 0; i < N; i++) labels[i] = i % 3;
  CHECK_INT(igpt_probe_fit(&probe, &report, x, labels, N, D, &desc), IGPT_OK);
  CHECK(report.converged);
  CHECK_INT(igpt_probe_predict(probe, guessed, NULL, x, N), IGPT_OK);
  for (i = 0; i < N; i++) CHECK_INT(guessed[i], labels[i]);
  igpt_probe_destroy(probe);
  part_free(x);
}

/* Rows that are certain: the loss is far below the rounding of 1, and must not be lost in it. And
   rows that are as wrong as can be. Label 1 of three classes, in columns by turns. */
TEST(small_losses_are_exact)
{
  enum { N = 16 };
  const igpt_kernels *kernels = igpt_kernels_for(IGPT_ISA_AUTO);
  const double others = exp(-21.0) + exp(-20.0);
  float z[3 * N], own[N], gap[N], excess[N];
  int i;
  for (i = 0; i < N; i++) {
    z[i] = i % 2 ? 100.0f : -20.0f;
    z[N + i] = -HUGE_VALF;
    own[i] = i % 2 ? -100.0f : 1.0f;
    z[2 * N + i] = i % 2 ? 100.0f : -19.0f;
  }
  kernels->class_loss(z, own, gap, excess, 3, N);
  for (i = 0; i < N; i += 2) {
    CHECK_NEAR((gap[i] + log1p(excess[i])) / others, 1, 1e-6);
    CHECK_NEAR(own[i] / others, -1, 1e-6);
    CHECK_NEAR(z[i] / exp(-21.0), 1, 1e-6);
    CHECK_NEAR(gap[i + 1] + log1p(excess[i + 1]), 200 + log(2.0), 1e-4);
    CHECK_NEAR(z[i + 1], 0.5, 1e-6);
    CHECK_NEAR(own[i + 1], -1, 1e-6);
  }
}

TEST(sgd_comes_near)
{
  enum { N = 1500, D = 20, K = 5 };
  static float x[N * D];
  static int32_t labels[N];
  igpt_probe_desc desc = {0};
  igpt_probe_report best, report;
  igpt_probe *probe;
  int standardise;
  blobs(x, labels, N, D, K);
  for (standardise = 0; standardise < 2; standardise++) {
    memset(&desc, 0, sizeof desc);
    desc.standardise = standardise;
    CHECK_INT(igpt_probe_fit(&probe, &best, x, labels, N, D, &desc), IGPT_OK);
    igpt_probe_destroy(probe);
    desc.method = IGPT_SGD;
    desc.batch = 100;
    CHECK_INT(igpt_probe_fit(&probe, &report, x, labels, N, D, &desc), IGPT_OK);
    CHECK_INT(report.iterations, 30 * 15);
    CHECK(report.objective >= best.objective - 1e-6);
    CHECK(report.objective <= best.objective * 1.0005);
    CHECK(best.objective < 1.3);            /* less than ln 5: there is something to be learnt */
    igpt_probe_destroy(probe);
    desc.seed = 1;                          /* another order of rows */
    CHECK_INT(igpt_probe_fit(&probe, &best, x, labels, N, D, &desc), IGPT_OK);
    CHECK(best.objective != report.objective);
    igpt_probe_destroy(probe);
  }
}

/* Of classes that are as likely the first one is guessed: nothing is known of features of zeros. */
TEST(ties)
{
  float x[6 * 2] = { 0 };
  static const int32_t labels[6] = { 0, 1, 2, 2, 1, 0 };
  int32_t guessed[6];
  igpt_probe_desc desc = { 0 };
  igpt_probe *probe;
  int i;
  desc.no_intercept = 1;
  CHECK_INT(igpt_probe_fit(&probe, NULL, x, labels, 6, 2, &desc), IGPT_OK);
  CHECK_INT(igpt_probe_predict(probe, guessed, NULL, x, 6), IGPT_OK);
  for (i = 0; i < 6; i++) CHECK_INT(guessed[i], 0);
  igpt_probe_destroy(probe);
}

/* Three epochs in double: an order for each, batches of 5, 5 and 2, the rate along a cosine. */
TEST(sgd_by_hand)
{
  enum { N = 12, D = 2, K = 3, P = K * (D + 1), BATCH = 5, EPOCHS = 3 };
  float x[N * D];
  int32_t labels[N];
  double w[P] = { 0 }, v[P] = { 0 };
  igpt_probe_desc desc = {0};
  igpt_probe *probe;
  size_t i, j, c, begin;
  int epoch;
  blobs(x, labels, N, D, K);
  desc.method = IGPT_SGD;
  desc.inverse_l2 = 0.7;
  desc.rate = 0.5;
  desc.momentum = 0.8;
  desc.epochs = EPOCHS;
  desc.batch = BATCH;
  desc.seed = 4;
  for (epoch = 0; epoch < EPOCHS; epoch++) {
    igpt_rng rng = igpt_rng_seed(desc.seed, (uint64_t)epoch);
    uint32_t order[N];
    for (i = 0; i < N; i++) order[i] = (uint32_t)i;
    igpt_rng_shuffle(&rng, order, N);
    for (begin = 0; begin < N; begin += BATCH) {
      const size_t count = begin + BATCH < N ? BATCH : N - begin;
      const double done = (epoch * 3.0 + (double)(begin / BATCH)) / (3.0 * EPOCHS);
      double g[P] = { 0 };
      for (i = 0; i < count; i++) {
        const size_t row = order[begin + i];
        double z[K], total = 0;
        for (c = 0; c < K; c++) {
          z[c] = w[K * D + c];
          for (j = 0; j < D; j++) z[c] += w[c * D + j] * (double)x[row * D + j];
          total += exp(z[c]);
        }
        for (c = 0; c < K; c++) {
          const double delta = (exp(z[c]) / total - ((size_t)labels[row] == c)) / (double)count;
          for (j = 0; j < D; j++) g[c * D + j] += delta * (double)x[row * D + j];
          g[K * D + c] += delta;
        }
      }
      for (i = 0; i < P; i++) {
        if (i < K * D) g[i] += w[i] / (desc.inverse_l2 * N);
        v[i] = desc.momentum * v[i] + g[i];
        w[i] -= desc.rate * 0.5 * (1 + cos(3.141592653589793 * done)) * v[i];
      }
    }
  }
  CHECK_INT(igpt_probe_fit(&probe, NULL, x, labels, N, D, &desc), IGPT_OK);
  for (i = 0; i < K * D; i++) CHECK_NEAR(igpt_probe_weights(probe, NULL, NULL)[i], w[i], 1e-5);
  for (i = 0; i < K; i++) CHECK_NEAR(igpt_probe_intercepts(probe)[i], w[K * D + i], 1e-5);
  igpt_probe_destroy(probe);
}

TEST(predict)
{
  int32_t labels[150], alone[150];
  float probabilities[150 * 4];
  igpt_probe_desc desc = {0};
  igpt_probe *probe;
  const float *w, *b;
  size_t i, j, c;
  int right = 0;
  float bad[6] = {0};
  desc.standardise = 1;
  CHECK_INT(igpt_probe_fit(&probe, NULL, plain_x, plain_labels, 150, 6, &desc), IGPT_OK);
  w = igpt_probe_weights(probe, NULL, NULL);
  b = igpt_probe_intercepts(probe);
  CHECK_INT(igpt_probe_predict(probe, labels, probabilities, plain_x, 150), IGPT_OK);
  CHECK_INT(igpt_probe_predict(probe, alone, NULL, plain_x, 150), IGPT_OK);
  CHECK(memcmp(labels, alone, sizeof labels) == 0);
  for (i = 0; i < 150; i++) {
    double z[4], total = 0;
    for (c = 0; c < 4; c++) {
      z[c] = (double)b[c];
      for (j = 0; j < 6; j++) z[c] += (double)w[c * 6 + j] * (double)plain_x[i * 6 + j];
      total += exp(z[c]);
    }
    for (c = 0; c < 4; c++) {
      CHECK_NEAR(probabilities[i * 4 + c], exp(z[c]) / total, 1e-5);
      CHECK(probabilities[i * 4 + c] <= probabilities[i * 4 + (size_t)labels[i]]);
    }
    right += labels[i] == plain_labels[i];
  }
  CHECK(right > 105);
  CHECK_INT(igpt_probe_predict(probe, NULL, NULL, NULL, 0), IGPT_OK);
  CHECK_INT(igpt_probe_predict(NULL, labels, NULL, plain_x, 1), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_probe_predict(probe, labels, NULL, NULL, 1), IGPT_BAD_ARGUMENT);
  bad[3] = (float)NAN;
  CHECK_INT(igpt_probe_predict(probe, labels, NULL, bad, 1), IGPT_NOT_FINITE);
  CHECK(igpt_probe_weights(NULL, NULL, NULL) == NULL);
  CHECK(igpt_probe_intercepts(NULL) == NULL);
  igpt_probe_destroy(probe);
  igpt_probe_destroy(NULL);
}

/* 1, 2, 3, 7 workers, tasks in any order: the same bits, for each method. */
TEST(workers_change_nothing)
{
  enum { N = 600, D = 300, K = 19 };
  static float x[N * D];
  static int32_t labels[N];
  const int workers[] = {2, 3, 7};
  int method, i;
  blobs(x, labels, N, D, K);
  for (method = 0; method < 2; method++) {
    igpt_probe_desc desc = {0};
    igpt_probe_report first, report;
    igpt_probe *one, *many;
    desc.method = method ? IGPT_SGD : IGPT_LBFGS;
    desc.max_iterations = 12;
    desc.epochs = 2;
    desc.standardise = method == 0;
    CHECK_INT(igpt_probe_fit(&one, &first, x, labels, N, D, &desc), IGPT_OK);
    for (i = 0; i < 3; i++) {
      part_runner runner;
      runner.workers = workers[i];
      runner.order = i;
      desc.runner.run = part_run;
      desc.runner.user = &runner;
      desc.runner.workers = workers[i];
      CHECK_INT(igpt_probe_fit(&many, &report, x, labels, N, D, &desc), IGPT_OK);
      CHECK(report.objective == first.objective && report.gradient == first.gradient);
      CHECK(part_same(igpt_probe_weights(one, NULL, NULL), igpt_probe_weights(many, NULL, NULL),
                      (size_t)K * D));
      CHECK(part_same(igpt_probe_intercepts(one), igpt_probe_intercepts(many), K));
      igpt_probe_destroy(many);
    }
    igpt_probe_destroy(one);
  }
}

/* Stopped at the first, the second ... look: always the code, no probe, nothing kept. */
TEST(cancelled)
{
  int method, stop;
  for (method = 0; method < 2; method++)
    for (stop = 0;; stop++) {
      igpt_probe_desc desc = {0};
      igpt_probe *probe = (igpt_probe *)&desc;
      igpt_probe_report report = {77, 0, 0, 0};
      patience p;
      purse memory;
      igpt_result result;
      memset(&p, 0, sizeof p);
      p.enough = stop + 1;
      desc.method = method ? IGPT_SGD : IGPT_LBFGS;
      desc.batch = 40;
      desc.epochs = 2;
      desc.max_iterations = 20;
      desc.standardise = 1;
      desc.allocator = purse_allocator(&memory);
      desc.watch.poll = poll_patience;
      desc.watch.user = &p;
      result = igpt_probe_fit(&probe, &report, plain_x, plain_labels, 150, 6, &desc);
      if (result == IGPT_OK) {
        CHECK(stop > 8);
        CHECK(p.last > (method ? 0.95 : (report.iterations - 1.5) / 20));
        igpt_probe_destroy(probe);
        CHECK_INT(memory.held, 0);
        break;
      }
      CHECK_INT(result, IGPT_CANCELLED);
      CHECK(probe == NULL);
      CHECK_INT(report.iterations, 77);
      CHECK_INT(memory.held, 0);
    }
}

/* Features whose squares overflow a float, but neither their sum nor their products with 1: what H
   begins with cannot have them. */
TEST(squares_overflow)
{
  static const float x[4] = { -1e20f, 1e20f, -1e20f, 1e20f };
  static const int32_t labels[4] = { 0, 1, 0, 1 };
  igpt_probe *probe;
  igpt_probe_report report;
  int32_t guessed[4];
  CHECK_INT(igpt_probe_fit(&probe, &report, x, labels, 4, 1, NULL), IGPT_OK);
  CHECK(report.objective < 1e-6);
  CHECK_INT(igpt_probe_predict(probe, guessed, NULL, x, 4), IGPT_OK);
  CHECK(memcmp(guessed, labels, sizeof labels) == 0);
  igpt_probe_destroy(probe);
}

static int poll_count(void *user, double done)
{
  (void)done;
  ++*(int *)user;
  return 0;
}

/* The watch is asked between classes too where H is turned: as often again for every 64 of them. */
TEST(patience_with_many_classes)
{
  enum { CLASSES = 200 };
  static float x[CLASSES][2];
  static int32_t labels[CLASSES];
  igpt_probe_desc desc = { 0 };
  igpt_probe_report report = { 0 };
  igpt_probe *probe;
  int polls = 0, i;
  for (i = 0; i < CLASSES; i++) {
    labels[i] = i;
    x[i][0] = (float)i / CLASSES;
    x[i][1] = (float)(i * 7 % 31) / 31;
  }
  desc.watch.poll = poll_count;
  desc.watch.user = &polls;
  desc.max_iterations = 1;
  CHECK_INT(igpt_probe_fit(&probe, &report, x[0], labels, CLASSES, 2, &desc), IGPT_OK);
  CHECK_INT(report.iterations, 1);
  CHECK(polls >= 4 + 4);          /* two evaluations, M twice; four spans of classes */
  igpt_probe_destroy(probe);
}

/* Two allocations, and each of them may fail. */
TEST(out_of_memory)
{
  int method, n;
  for (method = 0; method < 2; method++)
    for (n = 0; n <= 2; n++) {
      igpt_probe_desc desc = {0};
      igpt_probe *probe = (igpt_probe *)&desc;
      purse memory;
      igpt_result result;
      desc.method = method ? IGPT_SGD : IGPT_LBFGS;
      desc.epochs = 1;
      desc.allocator = purse_allocator(&memory);
      memory.fail_at = n;
      result = igpt_probe_fit(&probe, NULL, plain_x, plain_labels, 150, 6, &desc);
      CHECK_INT(result, n < 2 ? IGPT_OUT_OF_MEMORY : IGPT_OK);
      CHECK((probe == NULL) == (n < 2));
      CHECK_INT(memory.calls, n < 2 ? n + 1 : 2);
      igpt_probe_destroy(probe);
      CHECK_INT(memory.held, 0);
    }
}

/* One call that must fail with `code` and a sentence that holds `words`. */
static void refused(const char *words, igpt_result code, const float *x, const int32_t *labels,
                    size_t rows, size_t features, igpt_probe_desc desc)
{
  igpt_probe *probe = (igpt_probe *)&desc;
  heard h;
  purse memory;
  igpt_result result;
  memset(&h, 0, sizeof h);
  desc.log.line = hear;
  desc.log.user = &h;
  if (!desc.allocator.alloc) desc.allocator = purse_allocator(&memory);
  else memset(&memory, 0, sizeof memory);
  result = igpt_probe_fit(&probe, NULL, x, labels, rows, features, &desc);
  CHECK_INT(result, code);
  CHECK(probe == NULL);
  CHECK_INT(h.lines, 1);
  CHECK_INT(h.result, code);
  CHECK_INT(memory.held, 0);
  if (!strstr(h.text, words)) {
    test_errors++;
    printf("  the sentence \"%s\" does not hold \"%s\"\n", h.text, words);
  }
}

TEST(bad_input)
{
  float x[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  int32_t labels[6] = {0, 1, 2, 0, 1, 2}, bad[6];
  const igpt_probe_desc zero = {0};
  igpt_probe_desc desc = zero;
  igpt_probe_report report;
  igpt_probe *probe = NULL;
  refused("x is null", IGPT_BAD_ARGUMENT, NULL, labels, 6, 2, zero);
  refused("labels is null", IGPT_BAD_ARGUMENT, x, NULL, 6, 2, zero);
  CHECK_INT(igpt_probe_fit(NULL, NULL, x, labels, 6, 2, NULL), IGPT_BAD_ARGUMENT);
  refused("rows is 0 and features is 2", IGPT_BAD_ARGUMENT, x, labels, 0, 2, zero);
  refused("rows is 6 and features is 0", IGPT_BAD_ARGUMENT, x, labels, 6, 0, zero);

  memcpy(bad, labels, sizeof bad);
  bad[4] = 3;
  desc.classes = 3;
  refused("labels[4] is 3, and must be 0..2", IGPT_BAD_ARGUMENT, x, bad, 6, 2, desc);
  bad[4] = -1;
  refused("labels[4] is -1, and must be 0..2", IGPT_BAD_ARGUMENT, x, bad, 6, 2, desc);
  refused("labels[4] is -1, and must be >= 0", IGPT_BAD_ARGUMENT, x, bad, 6, 2, zero);
  bad[4] = 0x7fffffff;
  refused("2147483647", IGPT_BAD_ARGUMENT, x, bad, 6, 2, zero);
  bad[4] = 4;
  refused("class 3 of 5 has no row", IGPT_BAD_ARGUMENT, x, bad, 6, 2, zero);
  desc.classes = 4;
  refused("class 3 of 4 has no row", IGPT_BAD_ARGUMENT, x, labels, 6, 2, desc);
  desc.classes = 7;
  refused("classes is 7, and there are only 6 rows", IGPT_BAD_ARGUMENT, x, labels, 6, 2, desc);
  desc.classes = 1;
  refused("classes is 1", IGPT_BAD_ARGUMENT, x, labels, 6, 2, desc);
  memset(bad, 0, sizeof bad);
  refused("all 6 labels are 0", IGPT_BAD_ARGUMENT, x, bad, 6, 2, zero);

  x[7] = (float)NAN;
  refused("x[3][1] is nan", IGPT_NOT_FINITE, x, labels, 6, 2, zero);
  x[7] = -HUGE_VALF;
  refused("x[3][1] is -inf", IGPT_NOT_FINITE, x, labels, 6, 2, zero);
  x[7] = 3e38f;                             /* logits overflow at first; the search steps back */
  x[6] = -3e38f;
  CHECK_INT(igpt_probe_fit(&probe, &report, x, labels, 6, 2, NULL), IGPT_OK);
  CHECK(report.objective < log(3.0) && report.objective >= 0);
  CHECK(isfinite(igpt_probe_weights(probe, NULL, NULL)[1]));
  igpt_probe_destroy(probe);
  x[7] = 7;
  x[6] = 6;

#define REFUSED(field, value, words, code)                                                        \
  do { desc = zero; desc.field = value; refused(words, code, x, labels, 6, 2, desc); } while (0)
  REFUSED(method, (igpt_probe_method)2, "method is 2", IGPT_BAD_ARGUMENT);
  REFUSED(classes, -3, "classes is -3", IGPT_BAD_ARGUMENT);
  REFUSED(inverse_l2, -1, "inverse_l2 is -1", IGPT_BAD_ARGUMENT);
  REFUSED(inverse_l2, HUGE_VAL, "inverse_l2 is inf", IGPT_BAD_ARGUMENT);
  REFUSED(tolerance, (double)NAN, "tolerance is nan", IGPT_BAD_ARGUMENT);
  REFUSED(rate, -0.5, "rate is -0.5", IGPT_BAD_ARGUMENT);
  REFUSED(momentum, 1, "momentum is 1", IGPT_BAD_ARGUMENT);
  REFUSED(max_iterations, -1, "max_iterations is -1", IGPT_BAD_ARGUMENT);
  REFUSED(epochs, -1, "epochs is -1", IGPT_BAD_ARGUMENT);
  REFUSED(batch, -1, "batch is -1", IGPT_BAD_ARGUMENT);
  REFUSED(isa, (igpt_isa)99, "isa", IGPT_UNSUPPORTED);
  REFUSED(runner.workers, 257, "runner.workers is 257", IGPT_BAD_ARGUMENT);
  REFUSED(allocator.alloc, purse_alloc, "both or neither", IGPT_BAD_ARGUMENT);
#undef REFUSED
  desc = zero;
  desc.classes = 3;
  refused("do not fit in size_t", IGPT_TOO_LARGE, x, labels, 6, SIZE_MAX / 4, desc);

  desc = zero;                              /* steps that are far too long */
  desc.method = IGPT_SGD;
  desc.rate = 1e30;
  desc.inverse_l2 = 1e-3;
  refused("rate 1", IGPT_NOT_FINITE, x, labels, 6, 2, desc);
  desc = zero;
  desc.classes = 3;                         /* and after all that, it still works */
  CHECK_INT(igpt_probe_fit(&probe, NULL, x, labels, 6, 2, &desc), IGPT_OK);
  igpt_probe_destroy(probe);
}

/* Iterations are counted, and the limit is one. */
TEST(iteration_limit)
{
  igpt_probe_desc desc = {0};
  igpt_probe_report report;
  igpt_probe *probe;
  double last = log(4.0);                   /* all zero */
  int limit;
  for (limit = 1; limit < 6; limit++) {
    desc.max_iterations = limit;
    CHECK_INT(igpt_probe_fit(&probe, &report, plain_x, plain_labels, 150, 6, &desc), IGPT_OK);
    CHECK_INT(report.iterations, limit);
    CHECK(!report.converged);
    CHECK(report.objective < last);
    last = report.objective;
    igpt_probe_destroy(probe);
  }
}

int main(void)
{
  RUN(equals_scikit_learn);
  RUN(tangled_features);
  RUN(defaults);
  RUN(gradient);
  RUN(two_classes_by_hand);
  RUN(standardise_far_from_zero);
  RUN(standardise_large_and_small);
  RUN(wide_features);
  RUN(small_losses_are_exact);
  RUN(sgd_comes_near);
  RUN(sgd_by_hand);
  RUN(ties);
  RUN(predict);
  RUN(workers_change_nothing);
  RUN(cancelled);
  RUN(patience_with_many_classes);
  RUN(squares_overflow);
  RUN(out_of_memory);
  RUN(bad_input);
  RUN(iteration_limit);
  return test_done();
}
