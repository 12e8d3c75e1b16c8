/* kernels.c: the generic row of kernels, which is the definition of each, against the row of every
   instruction set of this machine, on shapes, strides and numbers that the input chooses; and the
   matrix product and attention that stand on them. Arrays end at pages that cannot be touched.

   Rows other than GENERIC have fused multiply-add and agree with each other to the bit, but for
   sums over the lanes of a vector; with GENERIC they agree to its rounding.                      */

#include "fuzz.h"

/* Bytes of the input, zeros behind its end. */
typedef struct kernels_in {
  const uint8_t *data;
  size_t size, at;
} kernels_in;

static unsigned kernels_byte(kernels_in *in)
{
  return in->at < in->size ? in->data[in->at++] : 0;
}

static size_t kernels_upto(kernels_in *in, size_t most)
{
  const size_t value = kernels_byte(in);
  return (value | (size_t)kernels_byte(in) << 8) % (most + 1);
}

/* Numbers up to `size`: most of them uniform, some zero, some much smaller. */
static float *kernels_numbers(kernels_in *in, size_t n, float size)
{
  igpt_rng rng = igpt_rng_seed(kernels_byte(in), in->at);
  const unsigned odd = kernels_byte(in);
  float *x = part_floats(n);
  size_t i;
  for (i = 0; i < n; i++) {
    const uint32_t draw = igpt_rng_below(&rng, 16);
    x[i] = size * (2 * igpt_rng_uniform(&rng) - 1);
    if (odd & 1 && draw == 0) x[i] = 0;
    if (odd & 2 && draw == 1) x[i] *= 1e-12f;
    if (odd & 4 && draw == 2) x[i] = x[i] < 0 ? -size : size;
    if (odd & 8) x[i] = fabsf(x[i]);
  }
  return x;
}

static double kernels_size(const float *x, const float *y, size_t n)
{
  double sum = 0;
  size_t i;
  for (i = 0; i < n; i++) sum += fabs((double)x[i] * (double)y[i]);
  return sum;
}

/* Every row but the generic one. */
#define EACH_ROW(k)                                                                               \
  int isa_;                                                                                       \
  const igpt_kernels *k, *generic = igpt_kernels_for(IGPT_ISA_GENERIC);                           \
  for (isa_ = IGPT_ISA_GENERIC + 1; isa_ < IGPT_ISA_COUNT; isa_++)                                \
    if ((k = igpt_kernels_for((igpt_isa)isa_)) != NULL && k->isa == (igpt_isa)isa_)

/* The first of these rows leaves its bits here, the others must have the same. */
typedef struct kernels_bits {
  float *first;
} kernels_bits;

static void kernels_agree(kernels_bits *bits, const float *y, size_t n)
{
  if (!bits->first) bits->first = part_copy(y, n);
  else CHECK(part_same(bits->first, y, n));
}

static void kernels_end(kernels_bits *bits)
{
  if (bits->first) part_free(bits->first);
}

/* ---- elements ------------------------------------------------------------------------------- */

static const double tiny = 3e-38; /* where a number may be a denormal in one row and zero in another */

static void kernels_sums(kernels_in *in)
{
  const size_t n = kernels_upto(in, 700);
  float *x = kernels_numbers(in, n, 50), *y = kernels_numbers(in, n, 2);
  const double tolerance = 0.2 * (double)(n + 10) * FLT_EPSILON * kernels_size(x, y, n);
  const double squares = kernels_size(x, x, n);
  EACH_ROW(k) {
    CHECK_NEAR(k->dot(x, y, n), generic->dot(x, y, n), tolerance + tiny);
    CHECK_NEAR(k->sum_squares(x, n), generic->sum_squares(x, n), 1e-13 * squares);
    CHECK(k->maximum(x, n) == generic->maximum(x, n));
  }
  part_free(x);
  part_free(y);
}

static void kernels_simple(kernels_in *in)
{
  const size_t n = kernels_upto(in, 400);
  float *x = kernels_numbers(in, n, 50), *y = kernels_numbers(in, n, 2), *a, *b;
  const float scale = ((float)kernels_byte(in) - 128) / 37;
  kernels_bits bits = { NULL };
  size_t i;
  EACH_ROW(k) {
    a = part_copy(y, n);
    b = part_copy(y, n);
    generic->add(a, x, n);
    k->add(b, x, n);
    CHECK(part_same(a, b, n));
    generic->scale(a, scale, n);
    k->scale(b, scale, n);
    CHECK(part_same(a, b, n));
    generic->axpy(a, scale, x, n);
    k->axpy(b, scale, x, n);
    for (i = 0; i < n; i++)
      CHECK_NEAR(b[i], a[i], FLT_EPSILON * (fabs((double)scale) * (fabs((double)x[i]) * 2 +
                                                                   fabs((double)y[i]))) + tiny);
    kernels_agree(&bits, b, n);
    part_free(a);
    part_free(b);
  }
  kernels_end(&bits);
  part_free(x);
  part_free(y);
}

static void kernels_exp_sum(kernels_in *in)
{
  const size_t n = kernels_upto(in, 400);
  const float scale = (float)(kernels_byte(in) + 1) / 128;
  const float size = (float)(1 << kernels_byte(in) % 7);
  float *x = kernels_numbers(in, n, size), *a = part_floats(n), *b = part_floats(n);
  const float shift = n ? scale * igpt_kernels_for(IGPT_ISA_GENERIC)->maximum(x, n) : 0;
  kernels_bits bits = { NULL };
  size_t i;
  EACH_ROW(k) {
    const double p = generic->exp_sum(a, x, scale, shift, n), q = k->exp_sum(b, x, scale, shift, n);
    const double off = 2e-6 + 5e-7 * fabs((double)scale * (double)size);
    for (i = 0; i < n; i++) CHECK_NEAR(b[i], a[i], off * (double)a[i] + tiny);
    CHECK_NEAR(q, p, (off + (double)n * FLT_EPSILON) * p + tiny);
    CHECK(k->exp_sum(NULL, x, scale, shift, n) == (float)q);
    kernels_agree(&bits, b, n);
  }
  kernels_end(&bits);
  part_free(x);
  part_free(a);
  part_free(b);
}

static void kernels_softmax_block(kernels_in *in)
{
  const size_t n = 1 + kernels_upto(in, 40), E = kernels_upto(in, 9);
  const int round = (int)kernels_byte(in) & 1;
  const float scale = (float)(kernels_byte(in) + 1) / 128, size = (float)(1 << in->at % 5);
  float *all = kernels_numbers(in, 2 * n * 64, size), *rows = kernels_numbers(in, E * 64, 2);
  float results[2][64 * 3 + 64 * 9];
  int which;
  size_t i, block, j;
  EACH_ROW(k) {
    const double off = (round ? 1.7e-2 : 4e-6) + 1e-6 * (double)scale * (double)size;
    for (which = 0; which < 2; which++) {          /* the first columns of 64: rows are narrower */
      const igpt_kernels *row = which ? k : generic;
      const size_t N = (size_t)row->tile_columns;
      float *s = part_floats(n * N), *most = part_floats(N), *total = part_floats(N);
      float *o = part_floats(E * N), *to = results[which];
      for (j = 0; j < N; j++) {
        most[j] = -HUGE_VALF;
        total[j] = 0;
      }
      for (i = 0; i < E; i++) memcpy(o + i * N, rows + i * 64, N * sizeof(float));
      for (block = 0; block < 2; block++) {
        for (i = 0; i < n; i++)
          memcpy(s + i * N, all + (block * n + i) * 64, N * sizeof(float));
        row->softmax_block(s, n, scale, most, total, o, block ? E : 0, round);
      }
      for (j = 0; j < 4; j++) {                    /* no row has fewer columns */
        *to++ = most[j];
        *to++ = total[j];
        *to++ = s[(n - 1) * N + j];
        for (i = 0; i < E; i++) *to++ = o[i * N + j];
      }
      part_free(s);
      part_free(most);
      part_free(total);
      part_free(o);
    }
    for (i = 0; i < 4 * (3 + E); i++) {
      const double a = (double)results[0][i];
      CHECK_NEAR(results[1][i], a, (i % (3 + E) == 0 ? 1e-6 : off) * fabs(a) + tiny);
    }
  }
  part_free(all);
  part_free(rows);
}

static void kernels_norm(kernels_in *in)
{
  const size_t n = 1 + kernels_upto(in, 400);
  float *x = kernels_numbers(in, n, 3), *g = kernels_numbers(in, n, 2);
  float *a = part_floats(n), *b = part_floats(n);
  const float epsilon = kernels_byte(in) & 1 ? 1e-5f : 0.125f;
  size_t i;
  EACH_ROW(k) {
    const double p = generic->norm(a, x, g, epsilon, n), q = k->norm(b, x, g, epsilon, n);
    CHECK_NEAR(q, p, 1e-6 * p);
    for (i = 0; i < n; i++) CHECK_NEAR(b[i], a[i], 2e-6 * fabs((double)a[i]) + tiny);
  }
  part_free(x);
  part_free(g);
  part_free(a);
  part_free(b);
}

static void kernels_gelu(kernels_in *in)
{
  const size_t n = kernels_upto(in, 400);
  const float size = (float)(1 << kernels_byte(in) % 8);
  float *x = kernels_numbers(in, n, size), *a = part_floats(n), *b = part_floats(n);
  kernels_bits bits = { NULL };
  size_t i;
  EACH_ROW(k) {
    generic->gelu(a, x, n);
    k->gelu(b, x, n);
    for (i = 0; i < n; i++)
      CHECK_NEAR(b[i], a[i], (2e-6 + 5e-7 * fabs((double)x[i])) * fabs((double)a[i]) +
                             tiny * (1 + fabs((double)x[i])));
    kernels_agree(&bits, b, n);
  }
  kernels_end(&bits);
  part_free(x);
  part_free(a);
  part_free(b);
}

#ifndef IGPT_NO_TRAIN

static void kernels_gelu_backward(kernels_in *in)
{
  const size_t n = kernels_upto(in, 400);
  const float size = (float)(1 << kernels_byte(in) % 7);
  float *x = kernels_numbers(in, n, size), *dy = kernels_numbers(in, n, 2);
  float *a = part_floats(n), *b = part_floats(n);
  kernels_bits bits = { NULL };
  size_t i;
  EACH_ROW(k) {
    generic->gelu_backward(a, dy, x, n);
    k->gelu_backward(b, dy, x, n);
    for (i = 0; i < n; i++)
      CHECK_NEAR(b[i], a[i], 2e-6 * (1 + fabs((double)x[i])) * fabs((double)dy[i]) + tiny);
    kernels_agree(&bits, b, n);
  }
  kernels_end(&bits);
  part_free(x);
  part_free(dy);
  part_free(a);
  part_free(b);
}

static void kernels_norm_backward(kernels_in *in)
{
  const size_t n = 1 + kernels_upto(in, 300);
  float *x = kernels_numbers(in, n, 3), *g = kernels_numbers(in, n, 2);
  float *dy = kernels_numbers(in, n, 1), *dx0 = kernels_numbers(in, n, 1), *dx[2], *dg[2];
  const float r = igpt_kernels_for(IGPT_ISA_GENERIC)->norm(NULL, x, g, 0.01f, n);
  double sum = 0;
  size_t i;
  int j;
  for (i = 0; i < n; i++) sum += fabs((double)x[i] * (double)g[i] * (double)dy[i]);
  EACH_ROW(k) {
    for (j = 0; j < 2; j++) {
      dx[j] = part_copy(dx0, n);
      dg[j] = part_copy(dy, n);
      (j ? k : generic)->norm_backward(dx[j], dg[j], dy, x, g, r, n);
    }
    for (i = 0; i < n; i++) {
      const double rr = (double)r, size = fabs((double)dx0[i]) + rr * fabs((double)g[i] * dy[i]) +
                                          fabs((double)x[i]) * rr * rr * rr / (double)n * sum;
      CHECK_NEAR(dx[1][i], dx[0][i], (2e-6 + 1e-8 * (double)n) * size + tiny);
      CHECK_NEAR(dg[1][i], dg[0][i], 1e-6 * fabs((double)dy[i]) * (1 + fabs((double)x[i]) * rr) +
                                     tiny);
    }
    for (j = 0; j < 2; j++) {
      part_free(dx[j]);
      part_free(dg[j]);
    }
  }
  part_free(x);
  part_free(g);
  part_free(dy);
  part_free(dx0);
}

static void kernels_softmax_backward(kernels_in *in)
{
  const size_t n = kernels_upto(in, 400);
  const int round = (int)kernels_byte(in) & 1;
  float *p = kernels_numbers(in, n, 1), *dp = kernels_numbers(in, n, 2), *ds[2], *q[2];
  kernels_bits bits = { NULL };
  const float d = (float)kernels_byte(in) / 200;
  size_t i;
  int j;
  EACH_ROW(k) {
    for (j = 0; j < 2; j++) {
      ds[j] = part_copy(dp, n);
      q[j] = part_copy(p, n);
      (j ? k : generic)->softmax_backward(ds[j], q[j], d, 0.125f, n, round);
    }
    CHECK(part_same(q[0], q[1], n));
    for (i = 0; i < n; i++)
      CHECK_NEAR(ds[1][i], ds[0][i], (round ? 8e-3 * fabs((double)ds[0][i]) : 0) + 5e-7 *
                 fabs((double)p[i]) * (fabs((double)dp[i]) + (double)d) * 0.125 + tiny);
    kernels_agree(&bits, ds[1], n);
    for (j = 0; j < 2; j++) {
      part_free(ds[j]);
      part_free(q[j]);
    }
  }
  kernels_end(&bits);
  part_free(p);
  part_free(dp);
}

static void kernels_adam(kernels_in *in)
{
  const size_t n = kernels_upto(in, 400);
  float *first[4], *x[2][4];
  kernels_bits bits[3] = { { NULL }, { NULL }, { NULL } };
  igpt__adam c;
  size_t i;
  int j, t;
  for (t = 0; t < 4; t++) first[t] = kernels_numbers(in, n, 1);
  for (i = 0; i < n; i++) first[2][i] *= first[2][i];
  c.scale = (float)(kernels_byte(in) + 1) / 64;
  c.beta1 = 0.9f;
  c.beta2 = 0.95f;
  c.rate = 0.02f;
  c.root = 1.7f;
  c.epsilon = kernels_byte(in) & 1 ? 1e-3f : 1e-8f;
  c.decay = (float)(kernels_byte(in) % 8) / 100;
  EACH_ROW(k) {
    for (j = 0; j < 2; j++) {
      for (t = 0; t < 4; t++) x[j][t] = part_copy(first[t], n);
      (j ? k : generic)->adam(x[j][0], x[j][1], x[j][2], x[j][3], &c, n);
    }
    for (i = 0; i < n; i++) {
      const double g = fabs((double)first[3][i] * (double)c.scale), m = fabs((double)first[1][i]) + g;
      const double v = fabs((double)x[0][2][i]), w = fabs((double)first[0][i]);
      const double divisor = sqrt(v) * (double)c.root + (double)c.epsilon;
      CHECK_NEAR(x[1][1][i], x[0][1][i], 4 * FLT_EPSILON * m + tiny);
      CHECK_NEAR(x[1][2][i], x[0][2][i], 4 * FLT_EPSILON * v + tiny);
      CHECK_NEAR(x[1][0][i], x[0][0][i], 4 * FLT_EPSILON * w +
                 (double)c.rate * (8 * FLT_EPSILON * m + tiny) / divisor);
      CHECK(x[0][3][i] == 0 && x[1][3][i] == 0);
    }
    for (t = 0; t < 3; t++) kernels_agree(&bits[t], x[1][t], n);
    for (t = 0; t < 8; t++) part_free(x[t / 4][t % 4]);
  }
  for (t = 0; t < 3; t++) kernels_end(&bits[t]);
  for (t = 0; t < 4; t++) part_free(first[t]);
}

#endif /* IGPT_NO_TRAIN */

/* ---- products ------------------------------------------------------------------------------- */

static void kernels_pack(kernels_in *in)
{
  const size_t count = 1 + kernels_upto(in, 70), depth = kernels_upto(in, 40);
  const size_t lanes = 1 + kernels_upto(in, 63);
  const int layout = (int)kernels_byte(in) % 3, round = (int)kernels_byte(in) & 1;
  const size_t ls = layout == 0 ? 1 : layout == 1 ? depth + 3 : 2;
  const size_t ks = layout == 0 ? count + 2 : layout == 1 ? 1 : 2 * count + 1;
  const size_t need = depth ? (count - 1) * ls + (depth - 1) * ks + 1 : 1;
  float *from = kernels_numbers(in, need, 2);
  EACH_ROW(k) {
    /* lanes are those of the row's tiles, or a multiple of 4: what attention asks for */
    const size_t own = lanes % 3 == 0 ? (size_t)k->tile_rows : lanes % 3 == 1
                     ? (size_t)k->tile_columns : (lanes + 3) / 4 * 4;
    const size_t floats = ((count + own - 1) / own) * own * depth;
    float *a = part_floats(floats), *b = part_floats(floats);
    generic->pack(a, own, from, ls, ks, count, depth, round);
    k->pack(b, own, from, ls, ks, count, depth, round);
    CHECK(part_same(a, b, floats));
    part_free(a);
    part_free(b);
  }
  part_free(from);
}

/* thin; and tile, which must make the same bits */
static void kernels_thin(kernels_in *in)
{
  const size_t m = 1 + kernels_upto(in, 35), n = kernels_upto(in, 130), depth = kernels_upto(in, 80);
  const size_t ldx = depth + kernels_byte(in) % 4, ldw = n + kernels_byte(in) % 4;
  const size_t ldy = n + kernels_byte(in) % 4;
  const int accumulate = (int)kernels_byte(in) & 1, round = (int)kernels_byte(in) & 1;
  float *x = kernels_numbers(in, (m - 1) * ldx + depth, 2);
  float *w = kernels_numbers(in, depth ? (depth - 1) * ldw + n : 0, 2);
  float *y0 = kernels_numbers(in, (m - 1) * ldy + n, 2), *a, *b;
  kernels_bits bits = { NULL };
  size_t i, j, p;
  EACH_ROW(k) {
    const size_t mr = (size_t)k->tile_rows, nr = (size_t)k->tile_columns;
    a = part_copy(y0, (m - 1) * ldy + n);
    b = part_copy(y0, (m - 1) * ldy + n);
    generic->thin(a, ldy, x, ldx, w, ldw, m, n, depth, accumulate, round);
    k->thin(b, ldy, x, ldx, w, ldw, m, n, depth, accumulate, round);
    for (i = 0; i < m; i++) {
      for (j = 0; j < n; j++) {
        double size = accumulate ? fabs((double)y0[i * ldy + j]) : 0;
        for (p = 0; p < depth; p++)
          size += fabs((double)x[i * ldx + p] * (double)w[p * ldw + j]) * (round ? 1.01 : 1);
        CHECK_NEAR(b[i * ldy + j], a[i * ldy + j],
                   0.5 * (double)(depth + 4) * FLT_EPSILON * size + tiny);
      }
      if (i + 1 < m) CHECK(part_same(b + i * ldy + n, y0 + i * ldy + n, ldy - n));
    }
    kernels_agree(&bits, b, (m - 1) * ldy + n);
    if (m <= mr && n >= nr && !round) {
      float *packed = part_floats(mr * depth), *c = part_copy(y0, (m - 1) * ldy + n);
      k->pack(packed, mr, x, ldx, 1, m, depth, 0);
      k->tile(c, ldy, packed, w, ldw, m, depth, accumulate);
      for (i = 0; i < m; i++) CHECK(part_same(c + i * ldy, b + i * ldy, nr));
      part_free(packed);
      part_free(c);
    }
    part_free(a);
    part_free(b);
  }
  kernels_end(&bits);
  part_free(x);
  part_free(w);
  part_free(y0);
}

static void kernels_dots(kernels_in *in)
{
  const size_t m = 1 + kernels_upto(in, 11), n = 1 + kernels_upto(in, 11);
  const size_t depth = kernels_upto(in, 300), ld = depth + kernels_byte(in) % 4, ldy = n + 2;
  float *x = kernels_numbers(in, (m - 1) * ld + depth, 2);
  float *w = kernels_numbers(in, (n - 1) * ld + depth, 2);
  float *a = part_floats((m - 1) * ldy + n), *b = part_floats((m - 1) * ldy + n);
  size_t i, j;
  EACH_ROW(k) {
    generic->dots(a, ldy, x, ld, w, ld, m, n, depth);
    k->dots(b, ldy, x, ld, w, ld, m, n, depth);
    for (i = 0; i < m; i++)
      for (j = 0; j < n; j++)
        CHECK_NEAR(b[i * ldy + j], a[i * ldy + j], 0.2 * (double)(depth + 10) * FLT_EPSILON *
                   kernels_size(x + i * ld, w + j * ld, depth) + tiny);
  }
  part_free(x);
  part_free(w);
  part_free(a);
  part_free(b);
}

/* The whole product: transposed or not, added or not, any number of workers. */
static void kernels_matmul(kernels_in *in)
{
  const size_t m = kernels_upto(in, 60), n = kernels_upto(in, 150), depth = kernels_upto(in, 90);
  const unsigned how = kernels_byte(in);
  const size_t a_row = how & 1 ? 1 : depth + 1, a_column = how & 1 ? m + 3 : 1;
  const size_t b_row = how & 2 ? 1 : n, b_column = how & 2 ? depth + 2 : 1, ldc = n + (how >> 6);
  const int accumulate = how >> 2 & 1, round = how >> 3 & 1, workers = 1 + (int)(how >> 4 & 3);
  const size_t floats = m ? (m - 1) * ldc + n : 0;
  float *a = kernels_numbers(in, m && depth ? (m - 1) * a_row + (depth - 1) * a_column + 1 : 0, 2);
  float *b = kernels_numbers(in, n && depth ? (n - 1) * b_column + (depth - 1) * b_row + 1 : 0, 2);
  float *c0 = kernels_numbers(in, floats, 2), *c[2];
  kernels_bits bits = { NULL };
  size_t i, j, p;
  int which;
  EACH_ROW(k) {
    for (which = 0; which < 2; which++) {
      const igpt_kernels *row = which ? k : generic;
      part_math math;
      c[which] = part_copy(c0, floats);
      part_math_open(&math, row->isa, igpt__matmul_shared(row, n, depth),
                     igpt__matmul_worker(row, n, depth), which ? workers : 1,
                     which ? workers % 3 : 0, round);
      igpt__matmul(&math.math, c[which], ldc, a, a_row, a_column, b, b_row, b_column, m, n, depth,
                   accumulate);
      part_math_close(&math);
    }
    for (i = 0; i < m; i++) {
      for (j = 0; j < n; j++) {
        double size = accumulate ? fabs((double)c0[i * ldc + j]) : 0;
        for (p = 0; p < depth; p++)
          size += fabs((double)a[i * a_row + p * a_column] * (double)b[p * b_row + j * b_column]) *
                  (round ? 1.01 : 1);
        CHECK_NEAR(c[1][i * ldc + j], c[0][i * ldc + j],
                   0.5 * (double)(depth + 5) * FLT_EPSILON * size + tiny);
      }
      if (i + 1 < m) CHECK(part_same(c[1] + i * ldc + n, c0 + i * ldc + n, ldc - n));
    }
    if (!(m <= IGPT__FEW_ROWS && a_column == 1 && b_column == 1 && m > IGPT__THIN_ROWS))
      kernels_agree(&bits, c[1], floats);
    part_free(c[0]);
    part_free(c[1]);
  }
  kernels_end(&bits);
  part_free(a);
  part_free(b);
  part_free(c0);
}

/* ---- attention ------------------------------------------------------------------------------ */

static double kernels_largest(const float *x, size_t n)
{
  double most = 0;
  size_t i;
  for (i = 0; i < n; i++)
    if (fabs((double)x[i]) > most) most = fabs((double)x[i]);
  return most;
}

static void kernels_attention(kernels_in *in)
{
  const size_t B = 1 + kernels_byte(in) % 2, H = 1 + kernels_byte(in) % 3;
  const size_t E = 1 + kernels_upto(in, 39), T = 1 + kernels_upto(in, E > 20 ? 120 : 280);
  const size_t C = H * E, n = B * T * C;
  const unsigned how = kernels_byte(in);
  const int causal = how & 1, round = how >> 1 & 1, workers = 1 + (int)(how >> 2 & 3);
  float *qkv = kernels_numbers(in, 3 * n, 1.5f), *dout = kernels_numbers(in, n, 1);
  float *out[2], *lse[2], *dqkv[2];
  double most;
  size_t i;
  int which;
  EACH_ROW(k) {
    for (which = 0; which < 2; which++) {
      const igpt_kernels *row = which ? k : generic;
      part_math math;
      out[which] = part_floats(n);
      lse[which] = part_floats(B * H * T);
      dqkv[which] = part_floats(3 * n);
      part_math_open(&math, row->isa, 0, igpt__attention_worker(row, T, E), which ? workers : 1,
                     which ? workers % 3 : 0, round);
      igpt__attention_forward(&math.math, out[which], lse[which], qkv, B, T, H, E, causal);
#ifndef IGPT_NO_TRAIN
      memset(dqkv[which], 0xff, 3 * n * sizeof(float));
      igpt__attention_backward(&math.math, dqkv[which], dout, out[which], qkv, lse[which], B, T, H,
                               E, causal);
#endif
      part_math_close(&math);
    }
    for (i = 0; i < n; i++) CHECK_NEAR(out[1][i], out[0][i], round ? 2e-2 : 6e-6);
    for (i = 0; i < B * H * T; i++)
      CHECK_NEAR(lse[1][i], lse[0][i], 6e-6 * (1 + fabs((double)lse[0][i])));
#ifndef IGPT_NO_TRAIN
    most = kernels_largest(dqkv[0], 3 * n);
    for (i = 0; i < 3 * n; i++)
      CHECK_NEAR(dqkv[1][i], dqkv[0][i], (round ? 6e-2 : 6e-6) * (most + 1e-2));
#else
    (void)most;
    (void)dout;
#endif
    for (which = 0; which < 2; which++) {
      part_free(out[which]);
      part_free(lse[which]);
      part_free(dqkv[which]);
    }
  }
  part_free(qkv);
  part_free(dout);
}

/* ---- palette -------------------------------------------------------------------------------- */

/* centres (3,padded), the last of them absent */
static float *kernels_centres(kernels_in *in, size_t padded, size_t used, float size)
{
  float *centres = kernels_numbers(in, 3 * padded, size);
  size_t c;
  for (c = used; c < padded; c++)
    centres[c] = centres[padded + c] = centres[2 * padded + c] = 1e18f;
  return centres;
}

static double kernels_distance(const float *point, const float *centres, size_t padded, size_t c)
{
  double sum = 0;
  size_t j;
  for (j = 0; j < 3; j++) {
    const double d = (double)point[j] - (double)centres[j * padded + c];
    sum += d * d;
  }
  return sum;
}

static void kernels_nearest(kernels_in *in)
{
  const size_t n = kernels_upto(in, 130), padded = 16 + 16 * kernels_upto(in, 7);
  const size_t used = padded - kernels_byte(in) % 16;
  float *centres = kernels_centres(in, padded, used, 1), *points = kernels_numbers(in, 3 * n, 1);
  uint16_t *a = (uint16_t *)part_new(n * sizeof *a), *b = (uint16_t *)part_new(n * sizeof *b);
  size_t i;
  EACH_ROW(k) {
    generic->nearest(a, points, centres, n, padded);
    k->nearest(b, points, centres, n, padded);
    for (i = 0; i < n; i++) {
      const double one = kernels_distance(points + 3 * i, centres, padded, a[i]);
      CHECK(a[i] < used && b[i] < used);
      if (b[i] < padded)
        CHECK_NEAR(kernels_distance(points + 3 * i, centres, padded, b[i]), one, 1e-5 * one + 1e-12);
    }
  }
  part_free(centres);
  part_free(points);
  part_free(a);
  part_free(b);
}

static void kernels_among(kernels_in *in)
{
  const size_t n = kernels_upto(in, 130), lists = 1 + kernels_byte(in) % 12;
  float *centres = kernels_numbers(in, 4 * 40, 140);
  uint16_t *list = (uint16_t *)part_new(8 * lists * sizeof *list);
  uint16_t *which = (uint16_t *)part_new(n * sizeof *which);
  uint16_t *a = (uint16_t *)part_new(n * sizeof *a), *b = (uint16_t *)part_new(n * sizeof *b);
  uint8_t *rgb = (uint8_t *)part_new(3 * n);
  igpt_rng rng = igpt_rng_seed(kernels_byte(in), 3);
  size_t i, j;
  for (i = 0; i < 8 * lists; i++) list[i] = (uint16_t)(4 * igpt_rng_below(&rng, 40));
  for (i = 0; i < n; i++) which[i] = (uint16_t)igpt_rng_below(&rng, (uint32_t)lists);
  for (i = 0; i < 3 * n; i++) rgb[i] = (uint8_t)igpt_rng_below(&rng, 256);
  EACH_ROW(k) {
    generic->among(a, rgb, centres, list, which, n);
    k->among(b, rgb, centres, list, which, n);
    for (i = 0; i < n; i++) {
      double d[2] = { 0, 0 };
      for (j = 0; j < 3; j++) {
        const double x = (double)rgb[3 * i + j] - (double)centres[4 * (size_t)a[i] + j];
        const double y = (double)rgb[3 * i + j] - (double)centres[4 * (size_t)b[i] + j];
        d[0] += x * x;
        d[1] += y * y;
      }
      CHECK(a[i] < 40 && b[i] < 40);
      CHECK_NEAR(d[1], d[0], 1e-6 * d[0]);
    }
  }
  part_free(centres);
  part_free(list);
  part_free(which);
  part_free(a);
  part_free(b);
  part_free(rgb);
}

/* What any row calls beyond is beyond: another centre is nearer at all corners of the box. */
static void kernels_beyond(kernels_in *in)
{
  const size_t padded = 16 + 16 * kernels_upto(in, 3), used = padded - kernels_byte(in) % 16;
  float *centres = kernels_centres(in, padded, used, 128), *ends = kernels_numbers(in, 6, 128);
  float *out = part_floats(padded), box[6];
  size_t c, z, j;
  int isa;
  for (j = 0; j < 3; j++) {
    box[j] = ends[j] < ends[j + 3] ? ends[j] : ends[j + 3];
    box[j + 3] = ends[j] < ends[j + 3] ? ends[j + 3] : ends[j];
  }
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++) {
    if (!igpt_isa_supported((igpt_isa)isa)) continue;
    igpt_kernels_for((igpt_isa)isa)->beyond(out, centres, box, padded);
    for (c = 0; c < padded; c++) {
      int any = !(out[c] > 0), corner;
      for (z = 0; z < padded && !any; z++) {
        any = z != c;
        for (corner = 0; corner < 8 && any; corner++) {
          float at[3];
          for (j = 0; j < 3; j++) at[j] = box[j + (corner >> j & 1 ? 3 : 0)];
          any = kernels_distance(at, centres, padded, z) < kernels_distance(at, centres, padded, c);
        }
      }
      CHECK(any);
    }
  }
  part_free(centres);
  part_free(ends);
  part_free(out);
}

/* ---- the target ----------------------------------------------------------------------------- */

static void (*const kernels_all[])(kernels_in *in) = {
  kernels_sums, kernels_simple, kernels_exp_sum, kernels_softmax_block, kernels_norm, kernels_gelu,
  kernels_pack, kernels_thin, kernels_dots, kernels_matmul, kernels_attention, kernels_nearest,
  kernels_among, kernels_beyond,
#ifndef IGPT_NO_TRAIN
  kernels_gelu_backward, kernels_norm_backward, kernels_softmax_backward, kernels_adam
#endif
};

static void fuzz_kernels(const uint8_t *data, size_t size)
{
  kernels_in in;
  in.data = data;
  in.size = size;
  in.at = 0;
  kernels_all[kernels_byte(&in) % (sizeof kernels_all / sizeof *kernels_all)](&in);
  fuzz_accepted = 1;
  fuzz_end(0);
}

FUZZ_TARGET(fuzz_kernels)
