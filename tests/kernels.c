/* Every kernel of every instruction set against float64 arithmetic written here, at lengths around
   the edges of vectors, in arrays with an inaccessible page behind them.

   cc -std=c99 -O2 -I. -o build/tests/kernels tests/kernels.c -lm -pthread                        */

#define _DEFAULT_SOURCE           /* mmap */
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "part.h"

static const size_t lengths[] = { 0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 16, 17, 23, 31, 32, 33,
                                  47, 48, 49, 61, 63, 64, 65, 97, 127, 128, 129, 251, 509, 1031 };
enum { LENGTHS = sizeof lengths / sizeof *lengths };

/* for every length n and every instruction set k of this machine */
#define EACH                                                                                      \
  int isa_;                                                                                       \
  size_t at_;                                                                                     \
  for (isa_ = IGPT_ISA_GENERIC; isa_ < IGPT_ISA_COUNT; isa_++)                                    \
    if (igpt_isa_supported((igpt_isa)isa_))                                                       \
      for (at_ = 0; at_ < LENGTHS; at_++)
#define START                                                                                     \
  const igpt_kernels *k = igpt_kernels_for((igpt_isa)isa_);                                       \
  size_t n = lengths[at_], i

static double size_of_sum(const float *x, const float *y, size_t n)
{
  double sum = 0;
  size_t i;
  for (i = 0; i < n; i++) sum += fabs((double)x[i] * y[i]);
  return sum;
}

TEST(sums)
{
  EACH {
    START;
    float *x = part_random(n, 3, 1), *y = part_random(n, 2, 2), most = -HUGE_VALF;
    double dot = 0, squares = 0;
    for (i = 0; i < n; i++) {
      dot += (double)x[i] * y[i];
      squares += (double)x[i] * x[i];
      if (x[i] > most) most = x[i];
    }
    CHECK_NEAR(k->dot(x, y, n), dot, 0.1 * (double)(n + 10) * FLT_EPSILON * size_of_sum(x, y, n));
    CHECK_NEAR(k->sum_squares(x, n), squares, 1e-14 * squares);
    CHECK(k->maximum(x, n) == most);
    for (i = 0; i < n; i++) x[i] = -1 - fabsf(x[i]);       /* an absent lane must not win as a 0 */
    for (most = -HUGE_VALF, i = 0; i < n; i++) if (x[i] > most) most = x[i];
    CHECK(k->maximum(x, n) == most);
    part_free(x);
    part_free(y);
  }
}

/* the largest element, wherever it is */
TEST(max_everywhere)
{
  EACH {
    START;
    if (n < 200) {
      float *x = part_random(n, 1, 3);
      for (i = 0; i < n; i++) {
        float kept = x[i];
        x[i] = 5;
        CHECK(k->maximum(x, n) == 5);
        x[i] = kept;
      }
      part_free(x);
    }
  }
}

TEST(simple_elements)
{
  EACH {
    START;
    float *x = part_random(n, 3, 1), *y = part_random(n, 2, 2), *z = part_copy(y, n);
    k->axpy(z, 0.7f, x, n);
    for (i = 0; i < n; i++)
      CHECK_NEAR(z[i], (double)y[i] + (double)0.7f * x[i],
                 FLT_EPSILON * (fabs(y[i]) + fabs(x[i])));
    memcpy(z, y, n * sizeof(float));
    k->add(z, x, n);
    for (i = 0; i < n; i++) CHECK(z[i] == (float)(y[i] + x[i]));
    memcpy(z, y, n * sizeof(float));
    k->scale(z, 0.7f, n);
    for (i = 0; i < n; i++) CHECK(z[i] == (float)(y[i] * (float)0.7f));
    part_free(x);
    part_free(y);
    part_free(z);
  }
}

static double ulps(float value, double exact)
{
  int exponent;
  frexp(exact, &exponent);
  return fabs(value - exact) / ldexp(1, exponent - FLT_MANT_DIG);
}

/* exp over all of its range, two ulps; and where there is no range */
TEST(exponential)
{
  EACH {
    START;
    if (n == 33) {
      double worst = 0;
      uint32_t step;
      float x[33], y[33];
      for (step = 0; step < 40000; step++) {
        for (i = 0; i < n; i++)
          x[i] = -87.33f + (float)((double)(step * 33 + i) * (175.69 / (40000 * 33.0)));
        k->exp_sum(y, x, 1, 0, n);
        for (i = 0; i < n; i++) {
          double error = ulps(y[i], exp((double)x[i]));
          if (!(error <= worst)) worst = error;
        }
      }
      CHECK(worst <= 2);
      for (i = 0; i < n; i++) x[i] = 0;
      x[0] = x[16] = x[32] = -HUGE_VALF;
      x[1] = x[17] = -88;
      x[2] = x[18] = -3e38f;
      x[3] = HUGE_VALF;
      x[4] = 89;
      x[5] = 3e38f;
      x[6] = NAN;
      x[7] = -87.4f;
      k->exp_sum(y, x, 1, 0, n);
      CHECK(y[0] == 0 && y[16] == 0 && y[32] == 0 && y[1] == 0 && y[17] == 0 && y[2] == 0);
      CHECK(y[18] == 0 && y[7] == 0 && y[8] == 1 && y[31] == 1);
      CHECK(y[3] == HUGE_VALF && y[4] == HUGE_VALF && y[5] == HUGE_VALF && y[6] != y[6]);
    }
  }
}

TEST(exp_sum)
{
  EACH {
    START;
    float *x = part_random(n, 5, 1), *y = part_floats(n), sum;
    double exact = 0;
    sum = k->exp_sum(y, x, 1.5f, 0.25f, n);
    for (i = 0; i < n; i++) {
      double e = exp(1.5 * x[i] - 0.25);
      CHECK_NEAR(y[i], e, 1e-6 * e);
      exact += e;
    }
    CHECK_NEAR(sum, exact, 2e-6 * exact);
    CHECK(k->exp_sum(NULL, x, 1.5f, 0.25f, n) == sum);
    CHECK(k->exp_sum(x, x, 1.5f, 0.25f, n) == sum);
    CHECK(part_same(x, y, n));
    part_free(x);
    part_free(y);
  }
}

/* Three blocks, the second with larger scores, the third with masked ones; E rows of o */
TEST(softmax_block)
{
  int isa, round;
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++)
    for (round = 0; round < 2 && igpt_isa_supported((igpt_isa)isa); round++) {
      const igpt_kernels *k = igpt_kernels_for((igpt_isa)isa);
      const size_t columns = (size_t)k->tile_columns, rows[] = { 7, 1, 40 }, E = 5;
      float *most = part_floats(columns), *total = part_floats(columns);
      float *o = part_random(E * columns, 2, 9);
      double exact_most[64], exact_total[64], exact_o[5 * 64];
      size_t block, i, j;
      for (j = 0; j < columns; j++) {
        exact_most[j] = most[j] = -HUGE_VALF;
        exact_total[j] = total[j] = 0;
      }
      for (block = 0; block < 3; block++) {
        const size_t n = rows[block];
        float *s = part_random(n * columns, block == 1 ? 9 : 4, block);
        double *exact = (double *)malloc(n * columns * sizeof *exact);
        if (block == 2)
          for (j = 0; j < columns; j++) s[(j % n) * columns + j] = -HUGE_VALF;
        for (j = 0; j < columns; j++) {
          double before = exact_most[j], change;
          for (i = 0; i < n; i++)
            if (1.5 * s[i * columns + j] > exact_most[j]) exact_most[j] = 1.5 * s[i * columns + j];
          change = exp(before - exact_most[j]);
          exact_total[j] *= change;
          for (i = 0; i < n; i++) {
            exact[i * columns + j] = exp(1.5 * s[i * columns + j] - exact_most[j]);
            exact_total[j] += exact[i * columns + j];
          }
          for (i = 0; i < E; i++)
            exact_o[i * columns + j] = block ? exact_o[i * columns + j] * change
                                             : o[i * columns + j];
        }
        k->softmax_block(s, n, 1.5f, most, total, o, block ? E : 0, round);
        for (i = 0; i < n * columns; i++) {
          CHECK_NEAR(s[i], exact[i], (round ? 4e-3 : 2e-6) * exact[i]);
          if (round) CHECK(s[i] == igpt__round_bf16(s[i]));
        }
        for (j = 0; j < columns; j++) {
          CHECK_NEAR(most[j], exact_most[j], 1e-6 * fabs(exact_most[j]));
          CHECK_NEAR(total[j], exact_total[j], 4e-6 * exact_total[j]);
        }
        for (i = 0; i < E * columns; i++)
          CHECK_NEAR(o[i], exact_o[i], 4e-6 * fabs(exact_o[i]));
        part_free(s);
        free(exact);
      }
      part_free(most);
      part_free(total);
      part_free(o);
    }
}

/* Losses and their gradients by float64, for labels that are the largest logit and that are not, by
   little and by so much that nothing else is left: digits of small numbers are there too. Rows with
   fused multiply-add agree to the bit. */
TEST(class_loss)
{
  static const size_t counts[] = { 1, 2, 9, 10, 101 };
  static const float sizes[] = { 1, 12, 60 };
  EACH {
    const igpt_kernels *k = igpt_kernels_for((igpt_isa)isa_), *other;
    const size_t n = counts[at_ % 5], lanes = at_ < 5 ? 16 : 48;
    size_t size, i, j;
    if (at_ >= 10) break;
    other = igpt_kernels_for(isa_ == IGPT_ISA_AVX512 ? IGPT_ISA_AVX2 : (igpt_isa)isa_);
    for (size = 0; other && size < 3; size++) {
      float *z = part_random(n * lanes, sizes[size], size), *own = part_random(lanes, 1, 5);
      float *gap = part_floats(lanes), *excess = part_floats(lanes), *z2, *own2, *given, *label;
      double *exact = (double *)malloc(n * sizeof *exact);
      for (j = 0; j < lanes; j++) {
        own[j] += sizes[size] * (float)((int)(j % 3) - 1);
        if (j == 1) own[j] = z[(n - 1) * lanes + j];       /* a tie */
        if (n > 1) z[j % (n - 1) * lanes + j] = -HUGE_VALF;
      }
      given = part_copy(z, n * lanes);
      label = part_copy(own, lanes);
      z2 = part_copy(z, n * lanes);
      own2 = part_copy(own, lanes);
      k->class_loss(z, own, gap, excess, n, lanes);
      for (j = 0; j < lanes; j++) {
        double top = label[j], others = 0, total, loss;
        for (i = 0; i < n; i++)
          if (given[i * lanes + j] > top) top = given[i * lanes + j];
        for (i = 0; i < n; i++) others += exact[i] = exp(given[i * lanes + j] - top);
        total = others + exp(label[j] - top);
        loss = label[j] >= top ? log1p(others) : top - label[j] + log(total);
        for (i = 0; i < n; i++)
          CHECK_NEAR(z[i * lanes + j], exact[i] / total, 1e-5 * exact[i] / total + 1e-37);
        CHECK_NEAR(own[j], -others / total, 1e-5 * others / total + 1e-37);
        CHECK_NEAR(gap[j] + log1p(excess[j]), loss, 2e-6 * loss + 1e-37);
      }
      other->class_loss(z2, own2, gap, excess, n, lanes);
      CHECK(part_same(z, z2, n * lanes) && part_same(own, own2, lanes));
      part_free(z);
      part_free(own);
      part_free(gap);
      part_free(excess);
      part_free(given);
      part_free(label);
      part_free(z2);
      part_free(own2);
      free(exact);
    }
  }
}

TEST(norm)
{
  EACH {
    START;
    float *x = part_random(n, 3, 1), *g = part_random(n, 2, 2), *y = part_floats(n), r;
    double mean = 0;
    for (i = 0; i < n; i++) mean += (double)x[i] * x[i] / (double)n;
    r = k->norm(y, x, g, 0.125f, n);
    CHECK_NEAR(r, 1 / sqrt(mean + 0.125), 1e-6 / sqrt(mean + 0.125));
    for (i = 0; i < n; i++) CHECK_NEAR(y[i], (double)x[i] * r * g[i], 3 * FLT_EPSILON * fabs(y[i]));
    CHECK(k->norm(NULL, x, g, 0.125f, n) == r);
    k->norm(x, x, g, 0.125f, n);
    CHECK(part_same(x, y, n));
    part_free(x);
    part_free(g);
    part_free(y);
  }
}

static double sigmoid(double z) { return 1 / (1 + exp(-z)); }

TEST(gelu)
{
  EACH {
    START;
    float *x = part_random(n, 6, 1), *y = part_floats(n);
    if (n > 3) {
      x[0] = -200;
      x[1] = 200;
      x[2] = 0;
    }
    k->gelu(y, x, n);
    for (i = 0; i < n; i++) {
      double want = x[i] * sigmoid(1.702 * x[i]);
      CHECK_NEAR(y[i], want, 1e-6 * fabs(want) + 1e-37);
    }
    k->gelu(x, x, n);
    CHECK(part_same(x, y, n));
    part_free(x);
    part_free(y);
  }
}

#ifndef IGPT_NO_TRAIN

static double gelu_slope(double x)
{
  double s = sigmoid(1.702 * x);
  return s + 1.702 * x * s * (1 - s);
}

TEST(gelu_backward)
{
  EACH {
    START;
    float *x = part_random(n, 6, 1), *dy = part_random(n, 2, 2), *dx = part_floats(n);
    k->gelu_backward(dx, dy, x, n);
    for (i = 0; i < n; i++) {
      double h = 1e-5, z = x[i];                  /* the slope written here is checked as well */
      double up = (z + h) * sigmoid(1.702 * (z + h)), down = (z - h) * sigmoid(1.702 * (z - h));
      CHECK_NEAR(gelu_slope(z), (up - down) / (2 * h), 1e-9);
      CHECK_NEAR(dx[i], dy[i] * gelu_slope(z), 1e-6 * fabs(dy[i]));
    }
    k->gelu_backward(dy, dy, x, n);
    CHECK(part_same(dy, dx, n));
    part_free(x);
    part_free(dy);
    part_free(dx);
  }
}

TEST(norm_backward)
{
  EACH {
    START;
    float *x = part_random(n, 3, 1), *g = part_random(n, 2, 2), *dy = part_random(n, 1, 3);
    float *dx = part_random(n, 1, 4), *dg = part_random(n, 1, 5), *dx0 = part_copy(dx, n);
    float *dg0 = part_copy(dg, n), r = k->norm(NULL, x, g, 1e-5f, n);
    double sum = 0;
    for (i = 0; i < n; i++) sum += (double)x[i] * g[i] * dy[i];
    k->norm_backward(dx, dg, dy, x, g, r, n);
    for (i = 0; i < n; i++) {
      double rr = r, d = rr * g[i] * dy[i] - x[i] * rr * rr * rr / (double)n * sum;
      CHECK_NEAR(dx[i], dx0[i] + d, 2e-6 * (1 + fabs(d)));
      CHECK_NEAR(dg[i], dg0[i] + (double)x[i] * rr * dy[i], 1e-6);
    }
    part_free(x);
    part_free(g);
    part_free(dy);
    part_free(dx);
    part_free(dg);
    part_free(dx0);
    part_free(dg0);
  }
}

TEST(softmax_backward)
{
  EACH {
    START;
    float *p = part_random(n, 1, 1), *ds = part_random(n, 2, 2), *dp = part_copy(ds, n), *rounded;
    k->softmax_backward(ds, p, 0.3f, 0.125f, n, 0);
    for (i = 0; i < n; i++)
      CHECK_NEAR(ds[i], (double)p[i] * ((double)dp[i] - (double)0.3f) * 0.125, 1e-7);
    rounded = part_copy(dp, n);
    memcpy(dp, p, n * sizeof *p);
    k->softmax_backward(rounded, p, 0.3f, 0.125f, n, 1);
    for (i = 0; i < n; i++) {
      CHECK(rounded[i] == igpt__round_bf16(ds[i]));
      CHECK(p[i] == igpt__round_bf16(dp[i]));
    }
    part_free(rounded);
    part_free(p);
    part_free(ds);
    part_free(dp);
  }
}

TEST(adam)
{
  EACH {
    START;
    float *w = part_random(n, 1, 1), *m = part_random(n, 1, 2), *v = part_random(n, 1, 3);
    float *g = part_random(n, 1, 4), *w0, *m0, *v0, *g0;
    igpt__adam c;
    c.scale = 0.3f;
    c.beta1 = 0.9f;
    c.beta2 = 0.95f;
    c.rate = 0.02f;
    c.root = 1.7f;
    c.epsilon = 1e-3f;
    c.decay = 0.01f;
    for (i = 0; i < n; i++) v[i] *= v[i];
    w0 = part_copy(w, n);
    m0 = part_copy(m, n);
    v0 = part_copy(v, n);
    g0 = part_copy(g, n);
    k->adam(w, m, v, g, &c, n);
    for (i = 0; i < n; i++) {
      double gs = (double)g0[i] * c.scale, mi, vi, wi;
      mi = (double)c.beta1 * m0[i] + (1 - (double)c.beta1) * gs;
      vi = (double)c.beta2 * v0[i] + (1 - (double)c.beta2) * gs * gs;
      wi = w0[i] - (double)c.decay * w0[i] - (double)c.rate * mi / (sqrt(vi) * c.root + c.epsilon);
      CHECK_NEAR(m[i], mi, 3e-7);
      CHECK_NEAR(v[i], vi, 3e-7);
      CHECK_NEAR(w[i], wi, 3e-7);
      CHECK(g[i] == 0);
    }
    part_free(w);
    part_free(m);
    part_free(v);
    part_free(g);
    part_free(w0);
    part_free(m0);
    part_free(v0);
    part_free(g0);
  }
}

#endif /* IGPT_NO_TRAIN */

/* Any place of an element in an array gives it the same bits. */
TEST(places)
{
  EACH {
    START;
    if (n == 97) {
      float x[97 + 40], y[97 + 40], z[97 + 40];
      size_t shift;
      part_fill(x, n + 40, 4, 9);
      k->exp_sum(y, x, 1, 1, n + 40);
      for (shift = 0; shift < 40; shift++) {
        k->exp_sum(z, x + shift, 1, 1, n);
        CHECK(part_same(z, y + shift, n));
      }
      k->gelu(y, x, n + 40);
      for (shift = 0; shift < 40; shift++) {
        k->gelu(z, x + shift, n);
        CHECK(part_same(z, y + shift, n));
      }
      for (i = 0; i < n; i++) {
        k->gelu(z, x + i, 1);
        CHECK(part_same(z, y + i, 1));
      }
    }
  }
}

/* Where there is no sum over lanes, rows with fused multiply-add agree bit for bit; and WASM, which
   has none, with GENERIC. */
TEST(rows_agree)
{
  static const igpt_isa pairs[][2] = { { IGPT_ISA_AVX2, IGPT_ISA_AVX512 },
                                       { IGPT_ISA_GENERIC, IGPT_ISA_WASM } };
  size_t at, pair, compared = 0;
  for (pair = 0; pair < 2; pair++) {
    const igpt_kernels *a = igpt_kernels_for(pairs[pair][0]);
    const igpt_kernels *b = igpt_kernels_for(pairs[pair][1]);
    if (!a || !b) continue;
    compared++;
    for (at = 0; at < LENGTHS; at++) {
      size_t n = lengths[at];
      float *x = part_random(n, 4, 1), *y = part_random(n, 4, 2);
      float *p = part_floats(n), *q = part_floats(n);
      a->exp_sum(p, x, 1, 0, n);
      b->exp_sum(q, x, 1, 0, n);
      CHECK(part_same(p, q, n));
      a->gelu(p, x, n);
      b->gelu(q, x, n);
      CHECK(part_same(p, q, n));
#ifndef IGPT_NO_TRAIN
      a->gelu_backward(p, y, x, n);
      b->gelu_backward(q, y, x, n);
      CHECK(part_same(p, q, n));
#endif
      a->axpy(p, 0.3f, x, n);
      b->axpy(q, 0.3f, x, n);
      CHECK(part_same(p, q, n));
      part_free(x);
      part_free(y);
      part_free(p);
      part_free(q);
    }
  }
  if (!compared) SKIP("needs both AVX2 and AVX-512, or WebAssembly's SIMD128");
}

/* ---- products ------------------------------------------------------------------------------- */

static double rounded(float x, int round) { return round ? igpt__round_bf16(x) : x; }

static float bf16_of_bits(uint32_t bits)
{
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

TEST(pack)
{
  static const size_t counts[] = { 1, 3, 6, 12, 13, 32, 37, 70 };
  static const size_t depths[] = { 0, 1, 2, 7, 8, 9, 16, 17, 33, 40 };
  EACH {
    const igpt_kernels *k = igpt_kernels_for((igpt_isa)isa_);
    size_t c = at_ % 8, d, side, layout;
    int round;
    if (at_ >= 8) break;
    for (d = 0; d < sizeof depths / sizeof *depths; d++)
      for (side = 0; side < 2; side++)
        for (layout = 0; layout < 3; layout++)
          for (round = 0; round < 2; round++) {
            size_t count = counts[c], depth = depths[d], panel, p, lane;
            size_t lanes = (size_t)(side ? k->tile_columns : k->tile_rows);
            size_t panels = (count + lanes - 1) / lanes;
            size_t ls = layout == 0 ? 1 : layout == 1 ? depth + 3 : 2;
            size_t ks = layout == 0 ? count + 2 : layout == 1 ? 1 : 2 * count + 1;
            size_t need = depth ? (count - 1) * ls + (depth - 1) * ks + 1 : 1;
            float *from = part_random(need, 2, 1), *to = part_floats(panels * lanes * depth);
            k->pack(to, lanes, from, ls, ks, count, depth, round);
            for (panel = 0; panel < panels; panel++)
              for (p = 0; p < depth; p++)
                for (lane = 0; lane < lanes; lane++) {
                  size_t row = panel * lanes + lane;
                  double want = row < count ? rounded(from[row * ls + p * ks], round) : 0;
                  CHECK(to[(panel * depth + p) * lanes + lane] == want);
                }
            part_free(from);
            part_free(to);
          }
  }
}

/* bfloat16 to nearest even: ties, the carry into the exponent, the largest, infinity, NaN */
TEST(rounding)
{
  static const uint32_t from[] = { 0x3f808000u, 0x3f818000u, 0x3f808001u, 0x3f807fffu,
                                   0x3fffffffu, 0x7f7fffffu, 0x7f800000u, 0xff800000u,
                                   0x80000000u, 0x7fc00000u };
  static const uint32_t want[] = { 0x3f800000u, 0x3f820000u, 0x3f810000u, 0x3f800000u,
                                   0x40000000u, 0x7f800000u, 0x7f800000u, 0xff800000u,
                                   0x80000000u, 0x7fc00000u };
  int isa;
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++)
    if (igpt_isa_supported((igpt_isa)isa)) {
      float x[32], y[32];
      size_t i;
      for (i = 0; i < 32; i++) x[i] = bf16_of_bits(from[i % 10]);
      igpt_kernels_for((igpt_isa)isa)->pack(y, 32, x, 1, 32, 32, 1, 1);
      for (i = 0; i < 32; i++) {
        uint32_t bits;
        memcpy(&bits, &y[i], sizeof bits);
        CHECK_INT(bits, want[i % 10]);
      }
    }
}

/* tile: every m, k from 0, strides, both starts; and thin makes the same bits */
TEST(tile_and_thin)
{
  static const size_t depths[] = { 0, 1, 2, 3, 5, 8, 9, 31, 64, 100 };
  EACH {
    const igpt_kernels *k = igpt_kernels_for((igpt_isa)isa_);
    size_t mr = (size_t)k->tile_rows, nr = (size_t)k->tile_columns, m, i, j, p;
    int mode;
    if (at_ >= sizeof depths / sizeof *depths) break;
    for (m = 1; m <= mr; m++)
      for (mode = 0; mode < 4; mode++) {
        size_t depth = depths[at_], ldc = nr + 5, ldb = nr + 3;
        size_t b_floats = depth ? (depth - 1) * ldb + nr : 0, c_floats = (m - 1) * ldc + nr;
        int accumulate = mode & 1, round = mode >> 1;
        float *x = part_random(m * depth, 1, 1), *b = part_random(b_floats, 1, 2);
        float *a = part_floats(mr * depth), *c = part_random(c_floats, 1, 3);
        float *c0 = part_copy(c, c_floats), *thin = part_copy(c0, c_floats);
        float *rb = part_copy(b, b_floats);
        if (!accumulate)          /* what is there before must not matter */
          for (i = 0; i < m; i++)
            for (j = 0; j < nr; j++) c[i * ldc + j] = NAN;
        k->pack(a, mr, x, depth, 1, m, depth, round);
        for (p = 0; round && p < depth; p++)
          for (j = 0; j < nr; j++) rb[p * ldb + j] = igpt__round_bf16(b[p * ldb + j]);
        k->tile(c, ldc, a, rb, ldb, m, depth, accumulate);
        k->thin(thin, ldc, x, depth, b, ldb, m, nr, depth, accumulate, round);
        for (i = 0; i < m; i++) {
          for (j = 0; j < nr; j++) {
            double want = accumulate ? c0[i * ldc + j] : 0, size = fabs(want);
            for (p = 0; p < depth; p++) {
              double term = rounded(x[i * depth + p], round) * rounded(b[p * ldb + j], round);
              want += term;
              size += fabs(term);
            }
            CHECK_NEAR(c[i * ldc + j], want, 0.25 * (double)(depth + 4) * FLT_EPSILON * size);
          }
          CHECK(part_same(c + i * ldc, thin + i * ldc, nr));
          if (i + 1 < m) CHECK(part_same(c + i * ldc + nr, c0 + i * ldc + nr, ldc - nr));
        }
        part_free(x);
        part_free(b);
        part_free(a);
        part_free(c);
        part_free(c0);
        part_free(thin);
        part_free(rb);
      }
  }
}

/* Weights of 4, 2 and 1 bytes, every number of lanes and of rows, odd columns, strides, both starts:
   against float64, and the bits of thin, or of thin and then the scale. */
/* Panels of weights side by side, and one behind the other */
TEST(narrow)
{
  static const size_t depths[] = { 0, 1, 2, 3, 8, 31, 100 };
  EACH {
    START;
    size_t kind, at, m, j, p;
    const size_t mr = (size_t)k->tile_rows, wide = (n + 15) / 16 * 16;
    const size_t kinds[4] = { 1, mr / 3, 2 * mr / 3, mr };
    if (n > 530) continue;
    for (kind = 0; kind < 8; kind++)
      for (at = 0; at < sizeof depths / sizeof *depths; at++)
        for (m = kinds[kind % 4]; m > 0 && m + 2 > kinds[kind % 4]; m--) {
          const size_t lanes = kinds[kind % 4], depth = depths[at], ldy = n + 3, ldx = depth + 1;
          const size_t ldw = kind < 4 ? wide + 16 : 64, apart = kind < 4 ? 64 : 64 * depth + 16;
          const size_t last = n ? (n - 1) / 64 : 0;        /* panel, and what it has of a row */
          const size_t weights = depth && n ? last * apart + (depth - 1) * ldw + wide - 64 * last
                                            : 0;
          const size_t floats = (m - 1) * ldy + n;
          float *x = part_random(m * ldx, 1, 1), *packed = part_floats(lanes * depth);
          float *w = part_random(weights, 1, 2), *y0 = part_random(floats, 1, 3), *y, *thin;
          float *scale = part_random(n, 1, 4), *exact = part_floats(n * depth);
          int bytes, accumulate;
          k->pack(packed, lanes, x, ldx, 1, m, depth, 0);
          for (p = 0; p < depth; p++)
            for (i = 0; i < lanes; i++)
              CHECK(packed[p * lanes + i] == (i < m ? x[i * ldx + p] : 0));
          for (bytes = 1; bytes <= 4; bytes *= 2)
            for (accumulate = 0; accumulate < 2; accumulate++) {
              char *few = (char *)part_new(weights * (size_t)bytes);
              for (i = 0; i < weights; i++) {
                const uint16_t half = igpt__half(w[i]);
                const int8_t byte = (int8_t)(127 * w[i]);
                if (bytes == 4) memcpy(few + 4 * i, w + i, 4);
                if (bytes == 2) memcpy(few + 2 * i, &half, 2);
                if (bytes == 1) memcpy(few + i, &byte, 1);
              }
              for (p = 0; p < depth; p++)
                for (j = 0; j < n; j++) {
                  const float one = w[p * ldw + j / 64 * apart + j % 64];
                  exact[p * n + j] = bytes == 4 ? one : bytes == 2 ? igpt__round_bf16(one)
                                     : (float)(int8_t)(127 * one);
                }
              y = part_copy(y0, floats);
              thin = part_copy(y0, floats);
              if (!accumulate)
                for (i = 0; i < m; i++)
                  for (j = 0; j < n; j++) y[i * ldy + j] = NAN;
              k->narrow(y, ldy, packed, lanes, few, ldw, apart, bytes, bytes == 1 ? scale : NULL, m,
                        n, depth, accumulate);
              k->thin(thin, ldy, x, ldx, exact, n, m, n, depth, accumulate && bytes > 1, 0);
              for (i = 0; i < m; i++)
                for (j = 0; j < (i + 1 < m ? ldy : n); j++) {
                  double start, factor, want = 0, size;
                  float chain = thin[i * ldy + j];
                  if (j >= n) {
                    CHECK(y[i * ldy + j] == y0[i * ldy + j]);
                    continue;
                  }
                  start = accumulate ? y0[i * ldy + j] : 0;
                  factor = bytes == 1 ? scale[j] : 1;
                  size = fabs(start);
                  for (p = 0; p < depth; p++) {
                    double term = (double)x[i * ldx + p] * exact[p * n + j] * factor;
                    want += term;
                    size += fabs(term);
                  }
                  CHECK_NEAR(y[i * ldy + j], want + start,
                             0.25 * (double)(depth + 5) * FLT_EPSILON * size);
                  if (bytes == 1 && !accumulate) chain *= scale[j];
                  if (bytes > 1 || !accumulate) CHECK(y[i * ldy + j] == chain);
                }
              part_free(few);
              part_free(y);
              part_free(thin);
            }
          part_free(x);
          part_free(packed);
          part_free(w);
          part_free(y0);
          part_free(scale);
          part_free(exact);
        }
  }
}

/* A float in 16 bits is what rounding says, and a NaN whose upper bits are zero stays one. */
TEST(halve)
{
  EACH {
    START;
    float *x = part_random(n, 3, 1);
    uint16_t *to = (uint16_t *)part_new(n * sizeof *to);
    for (i = 3; i < n; i += 7) x[i] = bf16_of_bits(i % 2 ? 0x7f800001u : 0xffc00000u);
    for (i = 4; i < n; i += 5) x[i] = bf16_of_bits(i % 2 ? 0x3f808000u : 0x3f818000u);
    if (n > 9) x[9] = 3.4e38f;
    k->halve(to, x, n);
    for (i = 0; i < n; i++) {
      float back = bf16_of_bits((uint32_t)to[i] << 16);
      CHECK(x[i] != x[i] ? back != back : back == igpt__round_bf16(x[i]));
    }
    part_free(x);
    part_free(to);
  }
}

/* Peaks of columns, wherever they are, NaN for what is not finite; and bytes, ties to even. */
TEST(quantise)
{
  EACH {
    START;
    const size_t lanes = 48;
    float *x, *most, factor[48];
    int8_t *to;
    size_t p;
    if (n > 130) continue;
    x = part_random(n * lanes, 90, 1);
    most = part_random(lanes, 95, 2);
    to = (int8_t *)part_new(n * lanes);
    for (i = 0; i < lanes; i++) {
      factor[i] = i % 3 ? 1.0f : 0.5f;
      most[i] = fabsf(most[i]);
      if (n) x[i % n * lanes + i] = i % 2 ? 100.0f : -100.0f;
    }
    for (p = 0; p + 4 < n; p += 5) x[p * lanes + 7] = (float)p - 0.5f;
    if (n > 2) {
      x[2 * lanes + 17] = NAN;
      x[1 * lanes + 33] = -HUGE_VALF;
    }
    k->quantise(to, x, factor, lanes, n);
    for (p = 0; p < n; p++)
      for (i = 0; i < lanes; i++)
        if (fabsf(x[p * lanes + i]) <= 127)
          CHECK_INT(to[p * lanes + i], rint((double)(x[p * lanes + i] * factor[i])));
    {
      float *before = part_copy(most, lanes);
      k->peaks(most, x, lanes, n);
      for (i = 0; i < lanes; i++) {
        float top = before[i];
        for (p = 0; p < n; p++) if (fabsf(x[p * lanes + i]) > top) top = fabsf(x[p * lanes + i]);
        if (n > 2 && (i == 17 || i == 33)) CHECK(most[i] != most[i]);
        else CHECK(most[i] == top);
      }
      part_free(before);
    }
    part_free(x);
    part_free(most);
    part_free(to);
  }
}

/* thin with more than 16 rows and odd numbers of columns */
TEST(thin_shapes)
{
  static const size_t rows[] = { 1, 2, 16, 17, 35 };
  EACH {
    START;
    size_t at, m, j, p, depth = 21;
    if (n > 130) continue;
    for (at = 0; at < 5; at++) {
      float *x, *w, *y, *y0;
      m = rows[at];
      x = part_random(m * depth, 1, 1);
      w = part_random(depth * n, 1, 2);
      y = part_random(m * n, 1, 3);
      y0 = part_copy(y, m * n);
      k->thin(y, n, x, depth, w, n, m, n, depth, 1, 0);
      for (i = 0; i < m; i++)
        for (j = 0; j < n; j++) {
          double want = y0[i * n + j];
          for (p = 0; p < depth; p++) want += (double)x[i * depth + p] * w[p * n + j];
          CHECK_NEAR(y[i * n + j], want, 1e-5);
        }
      part_free(x);
      part_free(w);
      part_free(y);
      part_free(y0);
    }
  }
}

/* Few columns, long rows; strides; each element the same whatever m and n are */
TEST(dots)
{
  EACH {
    const igpt_kernels *k = igpt_kernels_for((igpt_isa)isa_);
    size_t n = lengths[at_], rows, columns, i, j, p;
    if (n > 130) continue;
    for (rows = 1; rows <= 9; rows++)
      for (columns = 1; columns <= 9; columns += rows % 2 + 1) {
        size_t ldx = n + 3, ldw = n + 1, ldy = columns + 2;
        float *x = part_random((rows - 1) * ldx + n, 2, 1), one;
        float *w = part_random((columns - 1) * ldw + n, 2, 2);
        float *y = part_random((rows - 1) * ldy + columns, 1, 3);
        float *before = part_copy(y, (rows - 1) * ldy + columns);
        k->dots(y, ldy, x, ldx, w, ldw, rows, columns, n);
        for (i = 0; i < rows; i++)
          for (j = 0; j < (i + 1 < rows ? ldy : columns); j++) {
            double sum = 0;
            if (j >= columns) {
              CHECK(y[i * ldy + j] == before[i * ldy + j]);
              continue;
            }
            for (p = 0; p < n; p++) sum += (double)x[i * ldx + p] * w[j * ldw + p];
            CHECK_NEAR(y[i * ldy + j], sum, 0.1 * (double)(n + 10) * FLT_EPSILON *
                       size_of_sum(x + i * ldx, w + j * ldw, n));
            k->dots(&one, 1, x + i * ldx, ldx, w + j * ldw, ldw, 1, 1, n);
            CHECK(one == y[i * ldy + j]);
          }
        part_free(x);
        part_free(w);
        part_free(y);
        part_free(before);
      }
  }
}

/* ---- palette -------------------------------------------------------------------------------- */

TEST(nearest)
{
  EACH {
    START;
    size_t padded, c;
    if (n > 130) continue;
    for (padded = 64; padded <= 192; padded += 64) {
      size_t used = padded - 5;
      float *points = part_random(3 * n, 1, 1), *centres = part_random(3 * padded, 1, 2);
      uint16_t *index = (uint16_t *)part_new(n * sizeof(uint16_t));
      for (c = used; c < padded; c++)
        centres[c] = centres[padded + c] = centres[2 * padded + c] = 1e18f;
      for (i = 0; i < 3; i++)     /* the same centre at 9, 50 and 58: 9 must win */
        centres[i * padded + 50] = centres[i * padded + 58] = centres[i * padded + 9];
      for (i = 0; n > 2 && i < 3; i++) points[3 * 2 + i] = centres[i * padded + 9];
      k->nearest(index, points, centres, n, padded);
      for (i = 0; i < n; i++) {
        double best = HUGE_VAL, got = 0;
        for (c = 0; c < used; c++) {
          double r = (double)points[3 * i] - centres[c];
          double g = (double)points[3 * i + 1] - centres[padded + c];
          double b = (double)points[3 * i + 2] - centres[2 * padded + c], d = r * r + g * g + b * b;
          if (d < best) best = d;
          if (c == index[i]) got = d;
        }
        CHECK(index[i] < used);
        CHECK_NEAR(got, best, 1e-6 * best);
        CHECK(index[i] != 50 && index[i] != 58);
      }
      if (n > 2) CHECK_INT(index[2], 9);
      part_free(points);
      part_free(centres);
      part_free(index);
    }
  }
}

/* Every slot of a list can win, from any list, and the first of equals does. */
TEST(among)
{
  EACH {
    START;
    uint16_t lists[8 * 9], *which, *index;
    uint8_t *rgb;
    float *centres;
    size_t c, j;
    if (n > 130) continue;
    which = (uint16_t *)part_new(n * sizeof *which);
    index = (uint16_t *)part_new(n * sizeof *index);
    rgb = (uint8_t *)part_new(3 * n);
    centres = part_random(4 * 40, 140, 1);
    for (i = 0; i < 3 * n; i++) rgb[i] = (uint8_t)(i * i * 37 + 11 * i);
    for (i = 0; i < 8 * 9; i++) lists[i] = (uint16_t)(4 * (i * 7 % 40));
    for (j = 0; j < 4; j++) centres[4 * 39 + j] = centres[4 * 7 + j];     /* 7 is 39's twin */
    lists[8 * 8 + 1] = lists[8 * 8 + 6] = 4 * 7;
    lists[8 * 8 + 2] = lists[8 * 8 + 5] = 4 * 39;
    for (i = 0; i < n; i++) which[i] = (uint16_t)(i % 9);
    k->among(index, rgb, centres, lists, which, n);
    for (i = 0; i < n; i++) {
      double best = HUGE_VAL;
      int at_best = 0;
      for (j = 0; j < 8; j++) {
        const float *at = centres + lists[8 * which[i] + j];
        double d = 0;
        for (c = 0; c < 3; c++) {
          double e = (double)rgb[3 * i + c] - (double)at[c];
          d += e * e;
        }
        if (d < best * (1 - 1e-7)) { best = d; at_best = lists[8 * which[i] + j] / 4; }
      }
      CHECK_INT(index[i], at_best);
    }
    part_free(which);
    part_free(index);
    part_free(rgb);
    part_free(centres);
  }
}

/* What is called beyond a box is beaten everywhere in it, by one and the same centre; and most of
   what is beaten so is called beyond. */
TEST(beyond)
{
  EACH {
    const igpt_kernels *k = igpt_kernels_for((igpt_isa)isa_);
    size_t padded = 16 + 16 * at_, c, z, j, called = 0, beaten = 0;
    float *centres = part_random(3 * padded, 128, 3), *out = part_floats(padded);
    float box[6] = {-20, 7, 3, -13, 20, 3};
    if (at_ > 6) { part_free(centres); part_free(out); break; }
    for (j = 0; j < 3; j++) centres[j * padded + padded - 1] = 1e18f;
    for (j = 0; j < 3; j++) centres[j * padded + 3] = centres[j * padded + 5];    /* twins */
    k->beyond(out, centres, box, padded);
    CHECK(out[padded - 1] > 0);
    for (c = 0; c < padded; c++) {
      int any = 0, corner;
      for (z = 0; z < padded && !any; z++) {
        any = z != c;
        for (corner = 0; corner < 8; corner++) {
          double own = 0, other = 0;
          for (j = 0; j < 3; j++) {
            double v = box[j + (corner >> j & 1 ? 3 : 0)];
            double a = (double)centres[j * padded + c] - v, b = (double)centres[j * padded + z] - v;
            own += a * a;
            other += b * b;
          }
          if (own <= other * (1 + 1e-6)) any = 0;
        }
      }
      CHECK(any || !(out[c] > 0));
      called += out[c] > 0;
      beaten += (size_t)any;
    }
    CHECK(3 * called >= 2 * beaten);
    CHECK(beaten > 0);
    part_free(centres);
    part_free(out);
  }
}

/* ---- the table ------------------------------------------------------------------------------ */

TEST(table)
{
  int isa;
#ifdef TEST_KERNELS
  CHECK_INT(igpt_isa_best(), TEST_KERNELS);        /* as tests/machines.sh knows this machine */
#endif
  CHECK(igpt_isa_supported(IGPT_ISA_AUTO) && igpt_isa_supported(IGPT_ISA_GENERIC));
  CHECK(igpt_isa_supported(igpt_isa_best()) && igpt_isa_best() != IGPT_ISA_AUTO);
  CHECK(igpt_kernels_for(IGPT_ISA_AUTO) == igpt_kernels_for(igpt_isa_best()));
  CHECK(!igpt_isa_supported(IGPT_ISA_COUNT) && !igpt_kernels_for(IGPT_ISA_COUNT));
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++) {
    const igpt_kernels *k = igpt_kernels_for((igpt_isa)isa);
    CHECK(!k == !igpt_isa_supported((igpt_isa)isa));
    CHECK_INT(igpt_selftest((igpt_isa)isa), k ? IGPT_OK : IGPT_UNSUPPORTED);
    CHECK(strcmp(igpt_isa_name((igpt_isa)isa), "unknown") != 0);
    if (k && !part_tiles((igpt_isa)isa)) CHECK(k->isa == (igpt_isa)isa);   /* these have no row */
    if (k) CHECK(k->tile_rows * k->tile_columns <= IGPT__TILE_FLOATS);
  }
}

int main(void)
{
  RUN(table);
  RUN(sums);
  RUN(max_everywhere);
  RUN(simple_elements);
  RUN(exponential);
  RUN(exp_sum);
  RUN(softmax_block);
  RUN(class_loss);
  RUN(norm);
  RUN(gelu);
#ifndef IGPT_NO_TRAIN
  RUN(gelu_backward);
  RUN(norm_backward);
  RUN(softmax_backward);
  RUN(adam);
#endif
  RUN(places);
  RUN(rows_agree);
  RUN(pack);
  RUN(rounding);
  RUN(tile_and_thin);
  RUN(thin_shapes);
  RUN(narrow);
  RUN(halve);
  RUN(quantise);
  RUN(dots);
  RUN(nearest);
  RUN(among);
  RUN(beyond);
  return test_done();
}
