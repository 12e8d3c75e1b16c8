/* Attention, its gradients, its map and its cache against float64 arithmetic that stores
   everything.

   cc -std=c99 -O2 -I. -o build/tests/attention tests/attention.c -lm -pthread                    */

#define _DEFAULT_SOURCE           /* mmap */
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "part.h"

typedef struct shape {
  size_t B, T, H, E;
} shape;

/* T around blocks of 96, 192 and 256; E around tiles and beyond */
static const shape shapes[] = {
  { 1, 1, 1, 1 }, { 2, 5, 3, 4 }, { 1, 33, 2, 20 }, { 1, 96, 1, 16 }, { 1, 97, 1, 33 },
  { 1, 128, 2, 8 }, { 2, 129, 1, 32 }, { 1, 130, 2, 7 }, { 1, 193, 1, 64 }, { 1, 50, 1, 256 },
  { 1, 290, 1, 1 }, { 1, 257, 1, 9 }, { 1, 520, 1, 3 }
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* ---- float64 -------------------------------------------------------------------------------- */

/* All of one head of one picture: p (T,T), out (T,E), lse (T); qkv points at the head's queries. */
static void plain_forward(double *p, double *out, double *lse, const double *qkv, shape s,
                          int causal)
{
  size_t C = s.H * s.E, i, j, e;
  for (i = 0; i < s.T; i++) {
    size_t n = causal ? i + 1 : s.T;
    double most = -HUGE_VAL, total = 0;
    for (j = 0; j < s.T; j++) p[i * s.T + j] = 0;
    for (j = 0; j < n; j++) {
      double sum = 0;
      for (e = 0; e < s.E; e++) sum += qkv[i * 3 * C + e] * qkv[j * 3 * C + C + e];
      p[i * s.T + j] = sum / sqrt((double)s.E);
      if (p[i * s.T + j] > most) most = p[i * s.T + j];
    }
    for (j = 0; j < n; j++) total += p[i * s.T + j] = exp(p[i * s.T + j] - most);
    for (j = 0; j < n; j++) p[i * s.T + j] /= total;
    for (e = 0; e < s.E; e++) {
      double sum = 0;
      for (j = 0; j < n; j++) sum += p[i * s.T + j] * qkv[j * 3 * C + 2 * C + e];
      out[i * s.E + e] = sum;
    }
    if (lse) lse[i] = most + log(total);
  }
}

/* dqkv (T,3C) of the head, given dout (T,C) at the head's columns */
static void plain_backward(double *dqkv, const double *dout, const double *p, const double *qkv,
                           shape s)
{
  size_t C = s.H * s.E, i, j, e;
  double *dp = (double *)malloc(s.T * sizeof *dp);
  for (i = 0; i < s.T; i++)
    for (e = 0; e < s.E; e++)
      dqkv[i * 3 * C + e] = dqkv[i * 3 * C + C + e] = dqkv[i * 3 * C + 2 * C + e] = 0;
  for (i = 0; i < s.T; i++) {
    double mean = 0;
    for (j = 0; j < s.T; j++) {
      dp[j] = 0;
      for (e = 0; e < s.E; e++) dp[j] += dout[i * C + e] * qkv[j * 3 * C + 2 * C + e];
      mean += dp[j] * p[i * s.T + j];
    }
    for (j = 0; j < s.T; j++) {
      double ds = p[i * s.T + j] * (dp[j] - mean) / sqrt((double)s.E);
      for (e = 0; e < s.E; e++) {
        dqkv[i * 3 * C + e] += ds * qkv[j * 3 * C + C + e];
        dqkv[j * 3 * C + C + e] += ds * qkv[i * 3 * C + e];
        dqkv[j * 3 * C + 2 * C + e] += p[i * s.T + j] * dout[i * C + e];
      }
    }
  }
  free(dp);
}

static double *wide(const float *x, size_t n)
{
  double *y = (double *)malloc((n + 1) * sizeof *y);
  size_t i;
  for (i = 0; i < n; i++) y[i] = x[i];
  return y;
}

/* ---- the library's side --------------------------------------------------------------------- */

static void open_math(part_math *m, igpt_isa isa, shape s, int workers, int order, int round)
{
  part_math_open(m, isa, 0, igpt__attention_worker(igpt_kernels_for(isa), s.T, s.E), workers, order,
                 round);
}

static void forward(igpt_isa isa, float *out, float *lse, const float *qkv, shape s, int causal,
                    int workers, int order, int round)
{
  part_math m;
  open_math(&m, isa, s, workers, order, round);
  igpt__attention_forward(&m.math, out, lse, qkv, s.B, s.T, s.H, s.E, causal);
  part_math_close(&m);
}

#define EACH_ISA(isa)                                                                             \
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++)                                       \
    if (igpt_isa_supported((igpt_isa)isa))

/* ---- forward -------------------------------------------------------------------------------- */

/* size: of queries and keys. With 30 the scores reach hundreds and the softmax is nearly one-hot.
   */
static void check_forward(float size, int round, double tolerance)
{
  int isa, causal;
  size_t at;
  EACH_ISA(isa)
    for (at = 0; at < SHAPES; at++)
      for (causal = 0; causal < 2; causal++) {
        shape s = shapes[at];
        size_t C = s.H * s.E, b, h, i, e;
        float *qkv = part_random(s.B * s.T * 3 * C, size, at), *out, *lse;
        double *q, *p = (double *)malloc(s.T * s.T * sizeof *p);
        double *o = (double *)malloc(s.T * s.E * sizeof *o), *l = (double *)malloc(s.T * sizeof *l);
        for (i = 0; i < s.B * s.T; i++)           /* values of size one whatever the scores */
          for (e = 2 * C; e < 3 * C; e++) qkv[i * 3 * C + e] /= size;
        out = part_floats(s.B * s.T * C);
        lse = part_floats(s.B * s.H * s.T);
        q = wide(qkv, s.B * s.T * 3 * C);
        if (round)
          for (i = 0; i < s.B * s.T * 3 * C; i++) q[i] = igpt__round_bf16(qkv[i]);
        forward((igpt_isa)isa, out, lse, qkv, s, causal, 1, 0, round);
        for (b = 0; b < s.B; b++)
          for (h = 0; h < s.H; h++) {
            plain_forward(p, o, l, q + b * s.T * 3 * C + h * s.E, s, causal);
            for (i = 0; i < s.T; i++) {
              CHECK_NEAR(lse[(b * s.H + h) * s.T + i], l[i],
                         1e-6 * (1 + size * size) * (1 + fabs(l[i])));
              for (e = 0; e < s.E; e++)
                CHECK_NEAR(out[(b * s.T + i) * C + h * s.E + e], o[i * s.E + e], tolerance);
            }
          }
        forward((igpt_isa)isa, out, NULL, qkv, s, causal, 1, 0, round);        /* lse is optional */
        part_free(qkv);
        part_free(out);
        part_free(lse);
        free(q);
        free(p);
        free(o);
        free(l);
      }
}

TEST(forward_small_scores) { check_forward(1.5f, 0, 3e-6); }
TEST(forward_large_scores) { check_forward(20, 0, 2e-3); }
TEST(forward_bf16) { check_forward(1.5f, 1, 1e-2); }

/* What comes later in the picture changes nothing, to the bit. */
TEST(causality)
{
  int isa;
  EACH_ISA(isa) {
    shape s = { 1, 140, 1, 12 };
    size_t C = 12, cut, step;
    float *qkv = part_random(s.T * 3 * C, 2, 1), *out = part_floats(s.T * C);
    float *again = part_floats(s.T * C);
    forward((igpt_isa)isa, out, NULL, qkv, s, 1, 1, 0, 0);
    for (step = 6; step > 0; step--) {              /* from the back: what is before stays */
      cut = 23 * step + 1;
      part_fill(qkv + cut * 3 * C, (s.T - cut) * 3 * C, 9, cut);
      forward((igpt_isa)isa, again, NULL, qkv, s, 1, 1, 0, 0);
      CHECK(part_same(out, again, cut * C));
      CHECK(!part_same(out + cut * C, again + cut * C, C));
    }
    part_free(qkv);
    part_free(out);
    part_free(again);
  }
}

/* A NaN or an infinity among the inputs shows in the output: training must notice. */
TEST(not_a_number)
{
  int isa, where, kind;
  EACH_ISA(isa)
    for (where = 0; where < 3; where++)
      for (kind = 0; kind < 2; kind++) {
        shape s = { 1, 40, 1, 8 };
        float *qkv = part_random(40 * 24, 1, 1), *out = part_floats(40 * 8), sum = 0;
        size_t i;
        qkv[5 * 24 + where * 8 + 3] = kind ? NAN : HUGE_VALF;
        forward((igpt_isa)isa, out, NULL, qkv, s, 1, 1, 0, 0);
        for (i = 0; i < 40 * 8; i++) sum += out[i] - out[i];
        CHECK(sum != sum);
        part_free(qkv);
        part_free(out);
      }
}

/* ---- map ------------------------------------------------------------------------------------ */

TEST(map)
{
  int isa, causal;
  size_t at;
  EACH_ISA(isa)
    for (at = 0; at < SHAPES; at++)
      for (causal = 0; causal < 2; causal++) {
        shape s = shapes[at];
        size_t C = s.H * s.E, b, i, head = s.H - 1;
        float *qkv = part_random(s.B * s.T * 3 * C, 1.5f, at), *map = part_floats(s.B * s.T * s.T);
        double *q = wide(qkv, s.B * s.T * 3 * C), *p = (double *)malloc(s.T * s.T * sizeof *p);
        double *o = (double *)malloc(s.T * s.E * sizeof *o);
        part_math m;
        open_math(&m, (igpt_isa)isa, s, 3, 2, 0);
        igpt__attention_map(&m.math, map, qkv, s.B, s.T, s.H, s.E, causal, head);
        part_math_close(&m);
        for (b = 0; b < s.B; b++) {
          plain_forward(p, o, NULL, q + b * s.T * 3 * C + head * s.E, s, causal);
          for (i = 0; i < s.T * s.T; i++) CHECK_NEAR(map[b * s.T * s.T + i], p[i], 3e-6);
        }
        part_free(qkv);
        part_free(map);
        free(q);
        free(p);
        free(o);
      }
}

/* ---- decoding ------------------------------------------------------------------------------- */

/* Position by position, after a prefix: the bits of the full pass, rounded or not. */
TEST(decode_equals_forward)
{
  static const shape cases[] = { { 2, 150, 2, 5 }, { 1, 270, 1, 64 }, { 2, 20, 3, 32 },
                                 { 1, 130, 1, 1 } };
  int isa, round;
  size_t at, prefix, b, i;
  EACH_ISA(isa)
    for (at = 0; at < 4; at++)
      for (round = 0; round < 2; round++)
        for (prefix = 0; prefix <= 7; prefix += 7) {
          shape s = cases[at];
          size_t C = s.H * s.E, bytes = igpt__cache_bytes(s.T, s.H, s.E, round);
          float *qkv = part_random(s.B * s.T * 3 * C, 2, at), *out = part_floats(s.B * s.T * C);
          char *cache = (char *)part_new(s.B * bytes);
          float *one = part_floats(s.B * 3 * C);
          float *got = part_floats(s.B * C), *front = part_floats(s.B * prefix * 3 * C);
          part_math m;
          memset(cache, 0xff, s.B * bytes);
          forward((igpt_isa)isa, out, NULL, qkv, s, 1, 1, 0, round);
          open_math(&m, (igpt_isa)isa, s, 3, 1, round);
          for (b = 0; b < s.B; b++)
            memcpy(front + b * prefix * 3 * C, qkv + b * s.T * 3 * C,
                   prefix * 3 * C * sizeof(float));
          igpt__cache_store(&m.math, cache, front, s.B, prefix, s.T, s.H, s.E);
          for (i = prefix; i < s.T; i++) {
            for (b = 0; b < s.B; b++)
              memcpy(one + b * 3 * C, qkv + (b * s.T + i) * 3 * C, 3 * C * sizeof(float));
            igpt__attention_decode(&m.math, got, one, cache, s.B, i, s.T, s.H, s.E);
            for (b = 0; b < s.B; b++)
              CHECK(part_same(got + b * C, out + (b * s.T + i) * C, C));
          }
          part_math_close(&m);
          part_free(qkv);
          part_free(out);
          part_free(cache);
          part_free(one);
          part_free(got);
          part_free(front);
        }
}

/* ---- backward ------------------------------------------------------------------------------- */
#ifndef IGPT_NO_TRAIN

static void backward(igpt_isa isa, float *dqkv, const float *dout, const float *qkv, shape s,
                     int causal, int workers, int order, int round)
{
  size_t C = s.H * s.E;
  float *out = part_floats(s.B * s.T * C), *lse = part_floats(s.B * s.H * s.T);
  part_math m;
  open_math(&m, isa, s, workers, order, round);
  igpt__attention_forward(&m.math, out, lse, qkv, s.B, s.T, s.H, s.E, causal);
  memset(m.worker, 0xff, m.math.worker_floats * (size_t)workers * sizeof(float));
  igpt__attention_backward(&m.math, dqkv, dout, out, qkv, lse, s.B, s.T, s.H, s.E, causal);
  part_math_close(&m);
  part_free(out);
  part_free(lse);
}

static void check_backward(int round, double tolerance)
{
  int isa, causal;
  size_t at;
  EACH_ISA(isa)
    for (at = 0; at < SHAPES; at++)
      for (causal = 0; causal < 2; causal++) {
        shape s = shapes[at];
        size_t C = s.H * s.E, n = s.B * s.T * 3 * C, b, h, i;
        float *qkv = part_random(n, 1.5f, at), *dout = part_random(s.B * s.T * C, 1, 99);
        float *dqkv = part_floats(n);
        double *q = wide(qkv, n), *d = wide(dout, s.B * s.T * C), *want = wide(qkv, n);
        double *p = (double *)malloc(s.T * s.T * sizeof *p);
        double *o = (double *)malloc(s.T * s.E * sizeof *o);
        double largest = 0;
        memset(dqkv, 0xff, n * sizeof(float));
        backward((igpt_isa)isa, dqkv, dout, qkv, s, causal, 1, 0, round);
        for (b = 0; b < s.B; b++)
          for (h = 0; h < s.H; h++) {
            size_t place = b * s.T * 3 * C + h * s.E;
            plain_forward(p, o, NULL, q + place, s, causal);
            plain_backward(want + place, d + b * s.T * C + h * s.E, p, q + place, s);
          }
        for (i = 0; i < n; i++) if (fabs(want[i]) > largest) largest = fabs(want[i]);
        for (i = 0; i < n; i++) CHECK_NEAR(dqkv[i], want[i], tolerance * largest);
        part_free(qkv);
        part_free(dout);
        part_free(dqkv);
        free(q);
        free(d);
        free(want);
        free(p);
        free(o);
      }
}

TEST(backward_against_float64) { check_backward(0, 3e-6); }
TEST(backward_bf16) { check_backward(1, 3e-2); }

static double plain_loss(const double *qkv, const double *dout, double *p, double *o, shape s,
                         int causal)
{
  size_t C = s.H * s.E, b, h, i, e;
  double loss = 0;
  for (b = 0; b < s.B; b++)
    for (h = 0; h < s.H; h++) {
      plain_forward(p, o, NULL, qkv + b * s.T * 3 * C + h * s.E, s, causal);
      for (i = 0; i < s.T; i++)
        for (e = 0; e < s.E; e++) loss += o[i * s.E + e] * dout[(b * s.T + i) * C + h * s.E + e];
    }
  return loss;
}

/* <gradient, direction> against central differences of the float64 forward pass */
TEST(backward_central_differences)
{
  int isa, causal;
  size_t at;
  EACH_ISA(isa)
    for (at = 0; at < SHAPES; at++)
      for (causal = 0; causal < 2; causal++) {
        shape s = shapes[at];
        size_t C = s.H * s.E, n = s.B * s.T * 3 * C, i;
        float *qkv = part_random(n, 1.5f, at), *dout = part_random(s.B * s.T * C, 1, 99);
        float *dqkv = part_floats(n), *way = part_random(n, 1, 5);
        double *q = wide(qkv, n), *d = wide(dout, s.B * s.T * C);
        double h = 1e-5, up, down, slope = 0, size = 0;
        double *p = (double *)malloc(s.T * s.T * sizeof *p);
        double *o = (double *)malloc(s.T * s.E * sizeof *o);
        backward((igpt_isa)isa, dqkv, dout, qkv, s, causal, 2, 1, 0);
        for (i = 0; i < n; i++) {
          slope += (double)dqkv[i] * way[i];
          size += fabs((double)dqkv[i] * way[i]);
        }
        for (i = 0; i < n; i++) q[i] = qkv[i] + h * way[i];
        up = plain_loss(q, d, p, o, s, causal);
        for (i = 0; i < n; i++) q[i] = qkv[i] - h * way[i];
        down = plain_loss(q, d, p, o, s, causal);
        CHECK_NEAR(slope, (up - down) / (2 * h), 1e-6 * size + 1e-8);
        part_free(qkv);
        part_free(dout);
        part_free(dqkv);
        part_free(way);
        free(q);
        free(d);
        free(p);
        free(o);
      }
}
#endif

/* 1, 2, 3 and 7 workers in three orders: the same bits */
TEST(workers)
{
  static const int workers[] = { 1, 2, 3, 7 };
  int isa, order, w;
  EACH_ISA(isa) {
    shape s = { 2, 210, 3, 11 };
    size_t C = 33, n = s.B * s.T * C;
    float *qkv = part_random(3 * n, 2, 1), *dout = part_random(n, 1, 2), *out = part_floats(n);
    float *again = part_floats(n), *dqkv = part_floats(3 * n), *dagain = part_floats(3 * n);
    forward((igpt_isa)isa, out, NULL, qkv, s, 1, 1, 0, 0);
#ifndef IGPT_NO_TRAIN
    backward((igpt_isa)isa, dqkv, dout, qkv, s, 1, 1, 0, 0);
#endif
    for (w = 0; w < 4; w++)
      for (order = 0; order < 3; order++) {
        memset(again, 0xff, n * sizeof(float));
        memset(dagain, 0xff, 3 * n * sizeof(float));
        forward((igpt_isa)isa, again, NULL, qkv, s, 1, workers[w], order, 0);
        CHECK(part_same(out, again, n));
#ifndef IGPT_NO_TRAIN
        backward((igpt_isa)isa, dagain, dout, qkv, s, 1, workers[w], order, 0);
        CHECK(part_same(dqkv, dagain, 3 * n));
#endif
      }
    part_free(qkv);
    part_free(dout);
    part_free(out);
    part_free(again);
    part_free(dqkv);
    part_free(dagain);
  }
}

int main(void)
{
  RUN(forward_small_scores);
  RUN(forward_large_scores);
  RUN(forward_bf16);
  RUN(causality);
  RUN(not_a_number);
  RUN(map);
  RUN(decode_equals_forward);
#ifndef IGPT_NO_TRAIN
  RUN(backward_against_float64);
  RUN(backward_bf16);
  RUN(backward_central_differences);
#endif
  RUN(workers);
  return test_done();
}
