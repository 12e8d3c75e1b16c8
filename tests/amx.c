/* Matrix products and attention in bfloat16, on AMX's tiles and by AVX-512's dot products: packing,
   products of every shape, heads of every shape, the self-test that guards them, whole steps of
   training. Both are emulated, so that all of it is tested on every machine; where the processor
   has one, the same tests run on it too. AMX's instructions are trapped (trap.h) where it has but
   the vectors that go with them.

   cc -std=c99 -O2 -I. -o build/tests/amx tests/amx.c -lm -pthread                                */

#define _GNU_SOURCE               /* mmap; the registers in a signal's context */
struct igpt__tiles;
static const struct igpt__tiles *present;     /* what the library finds on this "machine" */
#define IGPT__TILES present
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "part.h"
#if defined(__x86_64__) && defined(__linux__)
#include "trap.h"
#else
static int trap_install(void) { return -1; }
#endif

/* ---- the tiles there are --------------------------------------------------------------------- */

typedef struct unit {
  const char *name;
  const igpt__tiles *tiles;
  size_t like;                    /* the unit that has the same bits */
} unit;

enum { UNITS = 5, DOTS = 3 };
static unit units[UNITS];         /* tiles: emulated; emulated and packed by vectors; real or
                                     trapped; dot products: emulated; real */

#define EACH_UNIT(u) for (u = units; u < units + UNITS; u++) if (u->tiles)

/* Without dot products where a processor is emulated, on which all is in plain C. */
#define EACH_UNIT_OF_LONG_TESTS(u) \
  for (u = units; u < units + TEST_AMOUNT(UNITS, DOTS); u++) if (u->tiles)

static int trapped;               /* units[2] are instructions that the processor does not have */

TEST(emulated_vectors)
{
  if (!units[1].tiles) SKIP("the processor has no AVX512_BF16, whose packing this is");
  CHECK(units[0].tiles->pack != units[1].tiles->pack);
}

TEST(real_tiles)
{
  if (!units[2].tiles) SKIP("the processor, the system or the compiler has no AMX: emulated only");
  CHECK(units[2].tiles->multiply != units[0].tiles->multiply);
  if (trapped) SKIP("the processor or the system has no AMX: its instructions are trapped");
}

TEST(real_dots)
{
  if (!units[4].tiles) SKIP("the processor has no AVX512_BF16: emulated only");
  CHECK(units[4].tiles->multiply != units[DOTS].tiles->multiply);
}

/* ---- packing --------------------------------------------------------------------------------- */

static float float_of(uint32_t bits)
{
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* Where element (lane, p) of packed numbers with k columns lies, written down once more. */
static size_t place(size_t lane, size_t p, size_t k, int pairs)
{
  size_t panel = lane / 32, half = lane % 32 / 16, row = lane % 16, step = p / 32, at = p % 32;
  size_t tile = (panel * ((k + 31) / 32) + step) * 2 + half;
  return tile * 512 + (pairs ? at / 2 * 32 + row * 2 + at % 2 : row * 32 + at);
}

/* Every kind of stride and every edge: each number has its place, zeros fill the rest, and nothing
   outside is touched. */
TEST(packing)
{
  static const size_t counts[] = { 1, 2, 15, 16, 17, 31, 32, 33, 48, 65 };
  static const size_t depths[] = { 1, 2, 3, 15, 16, 17, 31, 32, 33, 50, 64, 67 };
  const unit *u;
  size_t c, d, lane, p;
  int layout, pairs, half;
  EACH_UNIT(u)
    for (c = 0; c < sizeof counts / sizeof *counts; c++)
      for (d = 0; d < sizeof depths / sizeof *depths; d++)
        for (layout = 0; layout < 3; layout++)
          for (pairs = 0; pairs < 2; pairs++) {
            const size_t count = counts[c], k = depths[d], size = igpt__panels(count, k);
            const size_t lane_stride = layout == 0 ? k + 3 : layout == 1 ? 1 : 2;
            const size_t k_stride = layout == 0 ? 1 : layout == 1 ? count + 1 : 2 * count;
            const size_t floats = (count - 1) * lane_stride + (k - 1) * k_stride + 1;
            float *from = part_random(floats, 1, 1);
            uint16_t *to = (uint16_t *)part_new(size * sizeof *to);
            uint16_t *want = (uint16_t *)part_new(size * sizeof *to);
            uint16_t *halves = (uint16_t *)part_new(floats * sizeof *to);
            CHECK_INT(size, (count + 31) / 32 * 32 * ((k + 31) / 32 * 32));
            memset(want, 0, size * sizeof *to);
            for (lane = 0; lane < count; lane++)
              for (p = 0; p < k; p++) {
                const float x = igpt__round_bf16(from[lane * lane_stride + p * k_stride]);
                uint32_t bits;
                memcpy(&bits, &x, sizeof bits);
                want[place(lane, p, k, pairs)] = (uint16_t)(bits >> 16);
              }
            for (half = 0; half < (layout == 2 ? 1 : 2); half++) {
              memset(to, 0xff, size * sizeof *to);
              if (half) {
                igpt_kernels_for(IGPT_ISA_GENERIC)->halve(halves, from, floats);
                u->tiles->fold(to, halves, lane_stride, k_stride, count, k, pairs);
              } else u->tiles->pack(to, from, lane_stride, k_stride, count, k, pairs);
              if (memcmp(to, want, size * sizeof *to)) {
                printf("  %s, %d lanes of %d, layout %d, pairs %d, half %d\n", u->name, (int)count,
                       (int)k, layout, pairs, half);
                test_errors++;
              }
            }
            part_free(halves);
            part_free(from);
            part_free(to);
            part_free(want);
          }
}

/* Ties to even, overflow to infinity, NaN that stays one, denormals that become zeros */
TEST(rounding)
{
  static const struct { uint32_t from; uint16_t to; } cases[] = {
    { 0x3f800000, 0x3f80 }, { 0x3f808000, 0x3f80 }, { 0x3f808001, 0x3f81 }, { 0x3f818000, 0x3f82 },
    { 0xbf818000, 0xbf82 }, { 0x3f817fff, 0x3f81 }, { 0x3fff8000, 0x4000 }, { 0x7f7fffff, 0x7f80 },
    { 0x7f800000, 0x7f80 }, { 0xff800000, 0xff80 }, { 0x7fc00000, 0x7fc0 }, { 0x7f800001, 0x7fc0 },
    { 0xffc12345, 0xffc1 }, { 0x00000000, 0x0000 }, { 0x80000000, 0x8000 }, { 0x00000001, 0x0000 },
    { 0x007fffff, 0x0000 }, { 0x807fffff, 0x8000 }, { 0x00800000, 0x0080 }, { 0x00ffffff, 0x0100 }
  };
  enum { CASES = sizeof cases / sizeof *cases };
  const unit *u;
  int i;
  EACH_UNIT(u) {
    float from[CASES];
    uint16_t to[32 * 32];
    for (i = 0; i < CASES; i++) from[i] = float_of(cases[i].from);
    u->tiles->pack(to, from, CASES, 1, 1, CASES, 0);
    for (i = 0; i < CASES; i++) CHECK_INT(to[i], cases[i].to);
    u->tiles->pack(to, from, 1, CASES, CASES, 1, 1);
    for (i = 0; i < CASES; i++) CHECK_INT(to[place((size_t)i, 0, 1, 1)], cases[i].to);
  }
}

/* ---- what one instruction computes ----------------------------------------------------------- */

/* c + sum over p of a[p] b[p], p < k <= 32, in output (17,18) of a block, which is in its last
   tile */
static float dot_of(const igpt__tiles *tiles, float c, const float *a, const float *b, size_t k)
{
  static float x[18 * 32], w[19 * 32], y[18 * 19];
  uint16_t px[1024], pw[1024];
  igpt__tiled product;
  memset(x, 0, sizeof x);
  memset(w, 0, sizeof w);
  memset(y, 0, sizeof y);
  memcpy(x + 17 * 32, a, k * sizeof *a);
  memcpy(w + 18 * 32, b, k * sizeof *b);
  y[17 * 19 + 18] = c;
  tiles->pack(px, x, 32, 1, 18, 32, 0);
  tiles->pack(pw, w, 32, 1, 19, 32, 1);
  product = igpt__tiled_of(18, 19, 32, px, 0, pw, IGPT__TO_FLOATS);
  product.c = y;
  product.plus = y;
  product.ldc = 19;
  tiles->multiply(&product);
  return y[17 * 19 + 18];
}

/* Sums of the even and of the odd products, each rounded at every step, and their sum: numbers that
   every other order would round differently. Denormals count as zero, coming and going. */
TEST(one_tile)
{
  const float big = 16777216.0f, tiny = float_of(0x00400000), least = float_of(0x00800000);
  const unit *u;
  EACH_UNIT(u) if (u->like == 0) {
    float a[8], ones[8];
    int i;
    for (i = 0; i < 8; i++) ones[i] = 1;
    a[0] = big, a[1] = 1, a[2] = 1, a[3] = 1;
    CHECK(dot_of(u->tiles, 0, a, ones, 4) == big + 2);       /* 2^24 + 1 is lost, 1 + 1 is not */
    a[0] = 1, a[1] = big, a[2] = 1, a[3] = 1;
    CHECK(dot_of(u->tiles, 0, a, ones, 4) == big + 2);
    a[0] = 1, a[1] = 1, a[2] = big, a[3] = 1;
    CHECK(dot_of(u->tiles, 0, a, ones, 4) == big + 2);
    a[0] = 3, a[1] = big;
    CHECK(dot_of(u->tiles, 0, a, ones, 2) == big + 4);       /* a tie, to even */
    a[0] = tiny;
    ones[0] = big;
    CHECK(dot_of(u->tiles, 0, a, ones, 1) == 0);
    CHECK(dot_of(u->tiles, 2, a, ones, 1) == 2);
    a[0] = least;
    CHECK(dot_of(u->tiles, 0, a, ones, 1) == least * big);
    ones[0] = ones[2] = 0.5f;
    CHECK(dot_of(u->tiles, 0, a, ones, 1) == 0);
    a[1] = 0, a[2] = least;                                 /* two halves are not a whole then */
    CHECK(dot_of(u->tiles, 0, a, ones, 3) == 0);
    a[0] = INFINITY;
    CHECK(dot_of(u->tiles, 1, a, ones, 1) == INFINITY);
    ones[0] = 0;
    CHECK(isnan(dot_of(u->tiles, 1, a, ones, 1)));
  }
}

/* The second of a pair is added before the first, one after the other. */
TEST(one_dot)
{
  const float big = 16777216.0f, tiny = float_of(0x00400000);
  const unit *u;
  EACH_UNIT(u) if (u->like == DOTS) {
    float a[8], ones[8];
    int i;
    for (i = 0; i < 8; i++) ones[i] = 1;
    a[0] = 1, a[1] = 1, a[2] = big, a[3] = 1;
    CHECK(dot_of(u->tiles, 0, a, ones, 4) == big + 4);       /* 2, 2 + 1, then a tie, to even */
    a[0] = big, a[1] = 1, a[2] = 1, a[3] = 1;
    CHECK(dot_of(u->tiles, 0, a, ones, 4) == big);           /* a tie to even, and two lost */
    a[0] = tiny;
    ones[0] = big;
    CHECK(dot_of(u->tiles, 0, a, ones, 1) == 0);
    CHECK(dot_of(u->tiles, 2, a, ones, 1) == 2);
    a[0] = INFINITY;
    CHECK(dot_of(u->tiles, 1, a, ones, 1) == INFINITY);
    ones[0] = 0;
    CHECK(isnan(dot_of(u->tiles, 1, a, ones, 1)));
  }
}

/* ---- products -------------------------------------------------------------------------------- */

typedef struct shape {
  size_t m, n, k;
} shape;

/* Around the edges of tiles (16), panels (32) and strips (64 rows); a sum and rows beyond 1024 and
   columns beyond 2048, which are packed in two parts; a slab of B that is several blocks */
static const shape shapes[] = {
  { 17, 1, 1 }, { 17, 2, 3 }, { 18, 16, 31 }, { 31, 17, 32 }, { 32, 32, 32 }, { 33, 31, 33 },
  { 48, 33, 63 }, { 49, 15, 64 }, { 64, 64, 65 }, { 65, 47, 97 }, { 95, 100, 101 },
  { 130, 129, 70 }, { 20, 21, 1025 }, { 1030, 33, 40 }, { 34, 2051, 35 }, { 40, 900, 1030 }
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* A (m,k) and B (k,n), transposed as bits 0 and 1 of `turn` say */
typedef struct operands {
  float *a, *b;
  size_t a_row, a_column, b_row, b_column;
} operands;

static operands operands_make(shape s, int turn)
{
  operands o;
  o.a_row = turn & 1 ? 1 : s.k + 1;
  o.a_column = turn & 1 ? s.m + 3 : 1;
  o.b_row = turn & 2 ? 1 : s.n;
  o.b_column = turn & 2 ? s.k + 2 : 1;
  o.a = part_random((s.m - 1) * o.a_row + (s.k - 1) * o.a_column + 1, 1, 1);
  o.b = part_random((s.k - 1) * o.b_row + (s.n - 1) * o.b_column + 1, 1, 2);
  return o;
}

static void operands_free(operands *o)
{
  part_free(o->a);
  part_free(o->b);
}

static void product(const igpt__tiles *tiles, float *c, size_t ldc, const operands *o, shape s,
                    int accumulate, int workers, int order)
{
  part_math m;
  part_math_open(&m, IGPT_ISA_AUTO, igpt__tiles_shared(s.m, s.n, s.k),
                 igpt__matmul_worker(igpt_kernels_for(IGPT_ISA_AUTO), s.n, s.k), workers, order,
                 1);
  m.math.tiles = tiles;
  igpt__matmul(&m.math, c, ldc, o->a, o->a_row, o->a_column, o->b, o->b_row, o->b_column, s.m,
               s.n, s.k, accumulate);
  part_math_close(&m);
}

TEST(against_float64)
{
  const unit *u;
  size_t at, i, j, p;
  int turn, accumulate;
  EACH_UNIT_OF_LONG_TESTS(u)
    for (at = 0; at < SHAPES; at++)
      for (turn = 0; turn < 4; turn++)
        for (accumulate = 0; accumulate < 2; accumulate++) {
          const shape s = shapes[at];
          const size_t ldc = s.n + 3, floats = (s.m - 1) * ldc + s.n;
          const int large = s.m * s.n * s.k > 500000;
          operands o;
          float *c, *c0;
          if (large && turn != (int)(at & 3) && turn != 2) continue;
          o = operands_make(s, turn);
          c = part_random(floats, 1, 3);
          c0 = part_copy(c, floats);
          if (!accumulate)
            for (i = 0; i < s.m; i++)
              for (j = 0; j < s.n; j++) c[i * ldc + j] = NAN;
          product(u->tiles, c, ldc, &o, s, accumulate, 1, 0);
          for (i = 0; i < s.m; i++) {
            for (j = i % 3; j < s.n; j += large ? 7 : 1) {
              double want = accumulate ? c0[i * ldc + j] : 0, size = fabs(want);
              for (p = 0; p < s.k; p++) {
                double term = (double)igpt__round_bf16(o.a[i * o.a_row + p * o.a_column]) *
                              (double)igpt__round_bf16(o.b[p * o.b_row + j * o.b_column]);
                want += term;
                size += fabs(term);
              }
              CHECK_NEAR(c[i * ldc + j], want, 0.1 * (double)(s.k + 10) * FLT_EPSILON * size);
            }
            if (i + 1 < s.m) CHECK(part_same(c + i * ldc + s.n, c0 + i * ldc + s.n, 3));
          }
          part_free(c);
          part_free(c0);
          operands_free(&o);
        }
}

/* 1, 2 and 7 workers in three orders, and units that are alike: the same bits */
TEST(workers)
{
  static const int workers[] = { 1, 2, 7 };
  const unit *u;
  size_t at;
  int w;
  for (at = 0; at < SHAPES; at++) {
    const shape s = shapes[at];
    operands o = operands_make(s, (int)at & 3);
    float *c = part_random(s.m * s.n, 1, 4), *start = part_copy(c, s.m * s.n);
    EACH_UNIT_OF_LONG_TESTS(u) {
      if (u == units + u->like) {
        memcpy(c, start, s.m * s.n * sizeof *c);
        product(u->tiles, c, s.n, &o, s, 1, 1, 0);
      }
      for (w = 0; w < 3; w++) {
        float *d = part_copy(start, s.m * s.n);
        product(u->tiles, d, s.n, &o, s, 1, workers[w], w);
        CHECK(part_same(c, d, s.m * s.n));
        part_free(d);
      }
    }
    part_free(c);
    part_free(start);
    operands_free(&o);
  }
}

/* An element's bits depend on its own row, column and k alone. */
TEST(alone)
{
  const shape s = { 83, 101, 1100 }, part = { 33, 40, 1100 };
  const unit *u;
  EACH_UNIT(u) {
    operands o = operands_make(s, 0), inner = o;
    float *c = part_floats(s.m * s.n), *d = part_floats(part.m * part.n);
    size_t i;
    product(u->tiles, c, s.n, &o, s, 0, 1, 0);
    inner.a = o.a + 19 * o.a_row;
    inner.b = o.b + 37 * o.b_column;
    product(u->tiles, d, part.n, &inner, part, 0, 1, 0);
    for (i = 0; i < part.m; i++) CHECK(part_same(c + (19 + i) * s.n + 37, d + i * part.n, part.n));
    part_free(c);
    part_free(d);
    operands_free(&o);
  }
}

/* ---- what becomes of a product's sums -------------------------------------------------------- */

static double sigmoid(double x) { return 1 / (1 + exp(-1.702 * x)); }

/* |got - want| within what rounding to bfloat16 and exp2 may do to it */
static int near_half(uint16_t got, double want, double size)
{
  const double x = igpt__widen(got);
  if (want != want) return x != x;                  /* NaN */
  return fabs(x - want) <= 0.0045 * size + 1e-13;   /* 2^-64 of 400, squared */
}

/* Rows as they are for A, at every edge: halves of the sums, GELU of them, what its backward makes
   of them, and gelu turned; from small numbers to such that exp overflows, and NaN. Zeros up to
   whole panels, and nothing is written elsewhere. Units that are alike: the same bits. */
TEST(endings)
{
  static const shape cases[] = { { 1, 1, 1 }, { 17, 5, 33 }, { 32, 32, 32 }, { 70, 83, 50 } };
  static const float scales[] = { 0.3f, 3, 40 };
  enum { SIDE = 96, HALVES = SIDE * (SIDE + 7) };
  static uint16_t a[SIDE * 128], b[SIDE * SIDE], h[UNITS][HALVES], g[UNITS][HALVES];
  static uint16_t dx[UNITS][HALVES], turned[UNITS][SIDE * SIDE];
  static float sums[SIDE * SIDE], w[SIDE * SIDE], x[SIDE * SIDE];
  const size_t ld = SIDE + 7, lda = 128;
  size_t at, i, j, which, size;
  for (at = 0; at < sizeof cases / sizeof *cases; at++)
    for (size = 0; size < 3; size++) {
      const shape s = cases[at];
      const size_t wide = (s.n + 31) / 32 * 32, tall = (s.m + 31) / 32 * 32;
      const unit *u;
      EACH_UNIT(u) {
        igpt__tiled product;
        which = (size_t)(u - units);
        memset(a, 0, sizeof a);
        part_fill(x, s.m * s.k, scales[size], at);
        part_fill(w, s.k * s.n, 1, at + 9);
        if (s.m > 60) x[3 * s.k] = NAN;
        for (i = 0; i < s.m; i++)
          igpt_kernels_for(IGPT_ISA_GENERIC)->halve(a + i * lda, x + i * s.k, s.k);
        u->tiles->pack(b, w, 1, s.n, s.n, s.k, 1);
        product = igpt__tiled_of(s.m, s.n, s.k, a, lda, b, IGPT__TO_FLOATS);
        product.c = sums;
        product.ldc = s.n;
        u->tiles->multiply(&product);

        memset(h[which], 0xee, sizeof h[which]);
        product.to = IGPT__TO_HALVES;
        product.h = h[which];
        product.ldh = product.ldg = ld;
        u->tiles->multiply(&product);
        for (i = 0; i < HALVES; i++)
          if (i / ld >= s.m || i % ld >= wide) CHECK_INT(h[which][i], 0xeeee);
          else if (i % ld >= s.n) CHECK_INT(h[which][i], i / ld == 3 && s.m > 60 ? 0x7fc0 : 0);
          else CHECK(near_half(h[which][i], sums[i / ld * s.n + i % ld],
                               fabs((double)sums[i / ld * s.n + i % ld])));

        memset(g[which], 0xee, sizeof g[which]);
        memcpy(dx[which], h[which], sizeof h[which]);
        memset(h[which], 0x11, sizeof h[which]);
        product.to = IGPT__TO_GELU;
        product.g = g[which];
        u->tiles->multiply(&product);
        for (i = 0; i < s.m; i++)
          for (j = 0; j < s.n; j++) {
            const double f = igpt__widen(h[which][i * ld + j]), want = f * sigmoid(f);
            CHECK_INT(h[which][i * ld + j], dx[which][i * ld + j]);
            CHECK(near_half(g[which][i * ld + j], want, fabs(want)));
          }
        CHECK_INT(g[which][s.m * ld - 1], 0xeeee);

        memcpy(dx[which], h[which], sizeof h[which]);
        memset(turned[which], 0xee, sizeof turned[which]);
        product.to = IGPT__FROM_GELU;
        product.g = h[which];
        product.h = dx[which];
        product.turned = turned[which];
        product.turned_panel = 32 * SIDE;
        u->tiles->multiply(&product);
        for (i = 0; i < s.m; i++)
          for (j = 0; j < s.n; j++) {
            const double f = igpt__widen(h[which][i * ld + j]), y = sigmoid(f);
            const double sum = sums[i * s.n + j], slope = y + 1.702 * f * y * (1 - y);
            CHECK(near_half(dx[which][i * ld + j], sum * slope, fabs(sum) * (y + 2 * fabs(f * y))));
            CHECK(near_half(turned[which][place(j, i, SIDE, 0)], f * y, fabs(f * y)));
          }
        for (i = s.m; i < tall; i++)
          for (j = 0; j < s.n; j++) CHECK_INT(turned[which][place(j, i, SIDE, 0)], 0);
        if (tall < SIDE) CHECK_INT(turned[which][place(0, tall, SIDE, 0)], 0xeeee);
        CHECK(!memcmp(h[u->like], h[which], sizeof *h));
        CHECK(!memcmp(g[u->like], g[which], sizeof *g));
        CHECK(!memcmp(dx[u->like], dx[which], sizeof *dx));
        CHECK(!memcmp(turned[u->like], turned[which], sizeof *turned));
      }
    }
}

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct heads {
  size_t B, T, H, E;
} heads;

/* T around panels (32), blocks of 64, 128 and 256, and beyond two of them; every kind of E */
static const heads cases[] = {
  { 1, 1, 1, 1 }, { 2, 2, 3, 4 }, { 1, 31, 2, 16 }, { 1, 32, 1, 33 }, { 1, 33, 2, 20 },
  { 1, 63, 1, 96 }, { 1, 65, 1, 64 }, { 2, 97, 2, 8 }, { 1, 128, 1, 32 }, { 1, 129, 1, 128 },
  { 1, 161, 1, 48 }, { 1, 257, 1, 17 }, { 1, 321, 1, 64 }, { 1, 545, 1, 3 }
};
enum { CASES = sizeof cases / sizeof *cases };

/* One case on tiles, forward and backward */
typedef struct result {
  float *out, *lse, *dqkv;
} result;

static uint16_t *halves_of(const float *x, size_t rows, size_t columns)
{
  uint16_t *h = (uint16_t *)part_new(rows * igpt__row(columns) * sizeof *h);
  size_t i;
  memset(h, 0xff, rows * igpt__row(columns) * sizeof *h);
  for (i = 0; x && i < rows; i++)
    igpt_kernels_for(IGPT_ISA_GENERIC)->halve(h + i * igpt__row(columns), x + i * columns, columns);
  return h;
}

/* What was written, as floats; nothing is written beyond the columns. */
static float *floats_of(uint16_t *h, size_t rows, size_t columns)
{
  const size_t ld = igpt__row(columns);
  float *x = part_floats(rows * columns);
  size_t i, c;
  int touched = 0;
  for (i = 0; i < rows; i++) {
    for (c = 0; c < columns; c++) x[i * columns + c] = igpt__widen(h[i * ld + c]);
    for (; c < ld; c++) touched |= h[i * ld + c] != 0xffff;
  }
  CHECK(!touched);
  part_free(h);
  return x;
}

static void attend(result *r, const igpt__tiles *tiles, heads s, const float *qkv,
                   const float *dout, int causal, int workers, int order)
{
  const size_t rows = s.B * s.T, C = s.H * s.E;
  part_math m;
  igpt__heads all;
  uint16_t *qkv_h = halves_of(qkv, rows, 3 * C), *dout_h = halves_of(dout, rows, C);
  part_math_open(&m, IGPT_ISA_AUTO, 0, igpt__attend_floats(s.T, s.E), workers, order, 1);
  m.math.tiles = tiles;
  memset(&all, 0, sizeof all);
  all.math = &m.math;
  all.qkv = qkv_h;
  all.dout = dout_h;
  all.out = halves_of(NULL, rows, C);
  all.dqkv = halves_of(NULL, rows, 3 * C);
  all.lse = r->lse = part_floats(rows * s.H);
  all.B = s.B;
  all.T = s.T;
  all.H = s.H;
  all.E = s.E;
  all.ld = igpt__row(C);
  all.ld3 = igpt__row(3 * C);
  all.causal = causal;
  memset(r->lse, 0xff, rows * s.H * sizeof(float));
  igpt__heads_forward(&all);
  memset(m.worker, 0xff, m.math.worker_floats * (size_t)workers * sizeof(float));
  igpt__heads_backward(&all);
  r->out = floats_of(all.out, rows, C);
  r->dqkv = floats_of(all.dqkv, rows, 3 * C);
  part_free(qkv_h);
  part_free(dout_h);
  part_math_close(&m);
}

static void result_free(result *r)
{
  part_free(r->out);
  part_free(r->lse);
  part_free(r->dqkv);
}

/* Attention of one head in float64, and everything stored: (T,E) each, lse (T). The backward starts
   from `past`, an out that was rounded: what matters is its product with dout, which is subtracted
   from numbers of the same size. */
typedef struct exactly {
  double *q, *k, *v, *dout, *out, *lse, *dq, *dk, *dv;
} exactly;

static void attend_exactly(exactly *x, const float *past, size_t ld, size_t T, size_t E,
                           int causal)
{
  double *p = (double *)malloc(2 * T * sizeof *p), *dp = p + T, scale = 1 / sqrt((double)E);
  size_t i, j, e;
  memset(x->out, 0, T * E * sizeof(double));
  memset(x->dq, 0, T * E * sizeof(double));
  memset(x->dk, 0, T * E * sizeof(double));
  memset(x->dv, 0, T * E * sizeof(double));
  for (i = 0; i < T; i++) {
    const size_t n = causal ? i + 1 : T;
    double most = -HUGE_VAL, total = 0, mean = 0;
    for (j = 0; j < n; j++) {
      for (p[j] = dp[j] = 0, e = 0; e < E; e++) {
        p[j] += scale * x->q[i * E + e] * x->k[j * E + e];
        dp[j] += x->dout[i * E + e] * x->v[j * E + e];
      }
      if (p[j] > most) most = p[j];
    }
    for (j = 0; j < n; j++) total += p[j] = exp(p[j] - most);
    x->lse[i] = most + log(total);
    for (j = 0; j < n; j++) p[j] /= total;
    for (e = 0; e < E; e++) mean += x->dout[i * E + e] * past[i * ld + e];
    for (j = 0; j < n; j++)
      for (e = 0; e < E; e++) {
        x->out[i * E + e] += p[j] * x->v[j * E + e];
        x->dq[i * E + e] += scale * p[j] * (dp[j] - mean) * x->k[j * E + e];
        x->dk[j * E + e] += scale * p[j] * (dp[j] - mean) * x->q[i * E + e];
        x->dv[j * E + e] += p[j] * x->dout[i * E + e];
      }
  }
  free(p);
}

/* Rows of E floats, `ld` apart, against what they should be: the length of all differences, and of
   the worst row, each in lengths of the whole or of an average row. */
typedef struct distance {
  double all, row;
} distance;

static void compare(distance *worst, const float *got, size_t ld, const double *want, size_t T,
                    size_t E)
{
  double length = 1e-4 * (double)(T * E), all = 0, row = 0;      /* some gradients are all zero */
  size_t i, e;
  for (i = 0; i < T; i++) {
    double here = 0, size = 0;
    for (e = 0; e < E; e++) {
      here += pow((double)got[i * ld + e] - want[i * E + e], 2);
      size += pow(want[i * E + e], 2);
    }
    all += here;
    length += size;
    if (!(here <= row)) row = here;
  }
  all = sqrt(all / length);
  row = sqrt(row / length * (double)T);
  if (!(all <= worst->all)) worst->all = all;
  if (!(row <= worst->row)) worst->row = row;
}

/* size: of queries and keys. With 6 a few keys have most of the weight, and each of them counts. */
static void check_attention(float size)
{
  distance out = { 0, 0 }, gradient[3] = { { 0, 0 }, { 0, 0 }, { 0, 0 } };
  double lse = 0;
  const unit *u;
  size_t at, b, h, i, e;
  int causal;
  EACH_UNIT_OF_LONG_TESTS(u)
    for (at = 0; at < CASES - TEST_AMOUNT(0, 2); at++)
      for (causal = 0; causal < 2; causal++) {
        const heads s = cases[at];
        const size_t T = s.T, E = s.E, C = s.H * E, n = T * E;
        float *qkv = part_random(s.B * T * 3 * C, size, at);
        float *dout = part_random(s.B * T * C, 1, at + 50);
        double *memory = (double *)malloc((8 * n + T) * sizeof(double));
        exactly x;
        result r;
        double **piece[8];
        piece[0] = &x.q, piece[1] = &x.k, piece[2] = &x.v, piece[3] = &x.dout;
        piece[4] = &x.out, piece[5] = &x.dq, piece[6] = &x.dk, piece[7] = &x.dv;
        for (i = 0; i < 8; i++) *piece[i] = memory + i * n;
        x.lse = memory + 8 * n;
        for (i = 0; i < s.B * T; i++)
          for (e = 2 * C; e < 3 * C; e++) qkv[i * 3 * C + e] /= size;
        for (i = 0; i < s.B * T * C; i++) dout[i] = igpt__round_bf16(dout[i]);
        attend(&r, u->tiles, s, qkv, dout, causal, 1, 0);
        for (b = 0; b < s.B; b++)
          for (h = 0; h < s.H; h++) {
            const size_t first = b * T * 3 * C + h * E, narrow = b * T * C + h * E;
            for (i = 0; i < T; i++) {
              for (e = 0; e < E; e++) {
                const float *from = qkv + first + i * 3 * C + e;
                x.q[i * E + e] = igpt__round_bf16(from[0]);
                x.k[i * E + e] = igpt__round_bf16(from[C]);
                x.v[i * E + e] = igpt__round_bf16(from[2 * C]);
                x.dout[i * E + e] = dout[narrow + i * C + e];
              }
            }
            attend_exactly(&x, r.out + narrow, C, T, E, causal);
            compare(&out, r.out + narrow, C, x.out, T, E);
            compare(&gradient[0], r.dqkv + first, 3 * C, x.dq, T, E);
            compare(&gradient[1], r.dqkv + first + C, 3 * C, x.dk, T, E);
            compare(&gradient[2], r.dqkv + first + 2 * C, 3 * C, x.dv, T, E);
            for (i = 0; i < T; i++) {
              const double d = fabs(r.lse[(b * s.H + h) * T + i] - x.lse[i]);
              if (!(d / (1 + fabs(x.lse[i])) <= lse)) lse = d / (1 + fabs(x.lse[i]));
            }
          }
        result_free(&r);
        part_free(qkv);
        part_free(dout);
        free(memory);
      }
  printf("  out %.2g, row %.2g; lse %.2g; dq %.2g, row %.2g; dk %.2g, row %.2g; dv %.2g, row "
         "%.2g\n", out.all, out.row, lse, gradient[0].all, gradient[0].row, gradient[1].all,
         gradient[1].row, gradient[2].all, gradient[2].row);
  CHECK(lse < 2e-3);                /* half a step of bfloat16 */
  CHECK(out.all < 3.5e-3 && out.row < 1e-2);
  for (i = 0; i < 3; i++) {         /* with large scores, differences of large numbers */
    CHECK(gradient[i].all < (size > 2 ? 1.5e-2 : 5e-3));
    CHECK(gradient[i].row < (size > 2 ? 0.1 : 0.025));
  }
}

TEST(attention_small_scores) { check_attention(1.5f); }
TEST(attention_large_scores) { check_attention(6); }

/* 2, 5 and 16 workers, which cut heads into more and more blocks, in three orders, as one of the
   unit that is alike: the same bits. Emulated dot products, which take their time, by 16 alone. */
TEST(attention_workers)
{
  static const heads several[] = { { 1, 545, 1, 20 }, { 1, 300, 2, 33 }, { 2, 130, 3, 8 } };
  static const int workers[] = { 2, 5, 16 };
  const unit *u;
  size_t at;
  int w, causal;
  for (at = TEST_AMOUNT(0, 1); at < 3; at++)
    for (causal = 0; causal < 2; causal++) {
      const heads s = several[at];
      const size_t rows = s.B * s.T, C = s.H * s.E;
      float *qkv = part_random(rows * 3 * C, 2, 1), *dout = part_random(rows * C, 1, 2);
      result first[UNITS], again;
      EACH_UNIT_OF_LONG_TESTS(u) {
        const result *want = &first[u->like];
        if (u == units + u->like) attend(&first[u->like], u->tiles, s, qkv, dout, causal, 1, 0);
        for (w = u == units + DOTS ? 2 : 0; w < 3; w++) {
          attend(&again, u->tiles, s, qkv, dout, causal, workers[w], w);
          CHECK(part_same(want->out, again.out, rows * C));
          CHECK(part_same(want->lse, again.lse, rows * s.H));
          CHECK(part_same(want->dqkv, again.dqkv, rows * 3 * C));
          result_free(&again);
        }
      }
      result_free(&first[0]);
      if (TEST_AMOUNT(1, 0)) result_free(&first[DOTS]);
      part_free(qkv);
      part_free(dout);
    }
}

/* What comes later in a picture changes no bit of what comes before, however large it is; and a
   picture that ends earlier has the same bits as far as it goes. */
TEST(attention_causality)
{
  const heads s = { 1, 330, 1, 12 };
  const unit *u;
  EACH_UNIT(u) {
    const size_t C = 12;
    size_t cut, step;
    float *qkv = part_random(s.T * 3 * C, 2, 1), *dout = part_random(s.T * C, 1, 2);
    result first, again;
    attend(&first, u->tiles, s, qkv, dout, 1, 1, 0);
    for (step = 7; step > 0; step--) {             /* from the back: what is before stays */
      heads shorter = s;
      cut = 45 * step + 1;
      part_fill(qkv + cut * 3 * C, (s.T - cut) * 3 * C, 30, cut);
      attend(&again, u->tiles, s, qkv, dout, 1, 1, 0);
      CHECK(part_same(first.out, again.out, cut * C) && part_same(first.lse, again.lse, cut));
      CHECK(!part_same(first.out + cut * C, again.out + cut * C, C));
      result_free(&again);
      shorter.T = cut;
      attend(&again, u->tiles, shorter, qkv, dout, 1, 3, 2);
      CHECK(part_same(first.out, again.out, cut * C) && part_same(first.lse, again.lse, cut));
      result_free(&again);
    }
    result_free(&first);
    part_free(qkv);
    part_free(dout);
  }
}

/* Where all scores are far below zero, exp(-lse) overflows: what pads the last panel must not. */
TEST(attention_far_below_zero)
{
  const heads s = { 1, 40, 1, 16 };
  const unit *u;
  int causal;
  EACH_UNIT(u)
    for (causal = 0; causal < 2; causal++) {
      float *qkv = part_random(40 * 48, 1, 1), *dout = part_random(40 * 16, 1, 2);
      size_t i, e;
      result r;
      for (i = 0; i < 40; i++)
        for (e = 0; e < 16; e++) {
          qkv[i * 48 + e] += 20;
          qkv[i * 48 + 16 + e] -= 20;
        }
      attend(&r, u->tiles, s, qkv, dout, causal, 1, 0);
      for (i = 0; i < 40; i++) CHECK(r.lse[i] < -1000);
      for (i = 0; i < 40 * 48; i++) CHECK(fabsf(r.dqkv[i]) < 1000);
      result_free(&r);
      part_free(qkv);
      part_free(dout);
    }
}

/* A NaN or an infinity among the inputs shows in the output. */
TEST(attention_not_a_number)
{
  const heads s = { 1, 40, 1, 8 };
  const unit *u;
  int where, kind, causal;
  EACH_UNIT(u)
    for (where = 0; where < 3; where++)
      for (kind = 0; kind < 2; kind++)
        for (causal = 0; causal < 2; causal++) {
          float *qkv = part_random(40 * 24, 1, 1), *dout = part_random(40 * 8, 1, 2), sum = 0;
          size_t i;
          result r;
          qkv[5 * 24 + where * 8 + 3] = kind ? NAN : INFINITY;
          attend(&r, u->tiles, s, qkv, dout, causal, 1, 0);
          for (i = 0; i < 40 * 8; i++) sum += r.out[i] - r.out[i];
          CHECK(sum != sum);
          result_free(&r);
          part_free(qkv);
          part_free(dout);
        }
}

/* ---- sessions -------------------------------------------------------------------------------- */

/* The first tiles, counted. What the library calls has no user pointer, hence the globals. */
static int multiplied, attended;

static void pack_first(uint16_t *to, const float *from, size_t lane_stride, size_t k_stride,
                       size_t count, size_t k, int pairs)
{
  units[0].tiles->pack(to, from, lane_stride, k_stride, count, k, pairs);
}

static void fold_first(uint16_t *to, const uint16_t *from, size_t lane_stride, size_t k_stride,
                       size_t count, size_t k, int pairs)
{
  units[0].tiles->fold(to, from, lane_stride, k_stride, count, k, pairs);
}

static void multiply_counted(const igpt__tiled *product)
{
  multiplied++;
  units[0].tiles->multiply(product);
}

static void attend_counted(const igpt__head *head, size_t first, size_t end, float *scratch)
{
  attended++;
  units[0].tiles->attend(head, first, end, scratch);
}

static void backward_counted(const igpt__head *head, size_t query, size_t query_end, size_t key,
                             size_t key_end, float *scratch)
{
  attended++;
  units[0].tiles->attend_backward(head, query, query_end, key, key_end, scratch);
}

/* One whose dk is a little off, as if a block had been added once more */
static void backward_wrong(const igpt__head *head, size_t query, size_t query_end, size_t key,
                           size_t key_end, float *scratch)
{
  units[0].tiles->attend_backward(head, query, query_end, key, key_end, scratch);
  head->dk[5 * head->stride] = (uint16_t)(head->dk[5 * head->stride] + 0x80);
}

/* One that lets the second query see one key less */
static void attend_wrong(const igpt__head *head, size_t first, size_t end, float *scratch)
{
  size_t e;
  units[0].tiles->attend(head, first, end, scratch);
  for (e = 0; e < head->E; e++) head->out[head->width + e] = head->v[e];
}

/* One that forgets the last k, and one that confuses the halves of a pair of A */
static void multiply_short(const igpt__tiled *product)
{
  igpt__tiled other = *product;
  uint16_t cut[2048];
  size_t i;
  memcpy(cut, product->a, sizeof cut);
  for (i = 0; i < 32; i++) cut[place(i, product->k - 1, product->k, 0)] = 0;
  other.a = cut;
  units[0].tiles->multiply(&other);
}

static void pack_swapped(uint16_t *to, const float *from, size_t lane_stride, size_t k_stride,
                         size_t count, size_t k, int pairs)
{
  size_t i;
  units[0].tiles->pack(to, from, lane_stride, k_stride, count, k, pairs);
  if (!pairs && lane_stride == 1)
    for (i = 0; i < igpt__panels(count, k); i += 2) {
      uint16_t first = to[i];
      to[i] = to[i + 1];
      to[i + 1] = first;
    }
}

/* the first, with these in it */
static igpt__tiles counted, short_sums, swapped, blind, doubled;

static igpt_model *model_open(igpt_objective objective)
{
  igpt_model_desc desc;
  igpt_model *model = NULL;
  size_t i;
  memset(&desc, 0, sizeof desc);
  desc.config.layers = 2;
  desc.config.heads = 3;
  desc.config.width = 42;
  desc.config.rows = 5;
  desc.config.columns = 7;
  desc.config.vocabulary = 37;
  desc.config.objective = objective;
  CHECK_INT(igpt_model_create(&model, &desc), IGPT_OK);
  part_fill(model->weights.lm_head, 37 * 42, 0.3f, 9);    /* they start at zero */
  for (i = 0; i < 2; i++) part_fill(model->weights.block[i].ln_1, 42, 1.5f, 10 + i);
  return model;
}

static igpt_result create(igpt_session **session, const igpt_model *model, igpt_isa isa,
                          igpt_precision precision, heard *ear)
{
  igpt_session_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.isa = isa;
  desc.precision = precision;
  desc.log.line = hear;
  desc.log.user = ear;
  return igpt_session_create(session, model, &desc);
}

#define CHECK_SESSION(wanted_isa, wanted_precision, isa_got, precision_got)                       \
  do {                                                                                            \
    CHECK_INT(create(&session, model, wanted_isa, wanted_precision, &ear), IGPT_OK);              \
    CHECK_INT(igpt_session_resolved(session)->isa, isa_got);                                      \
    CHECK_INT(igpt_session_resolved(session)->precision, precision_got);                          \
    CHECK(session->math.tiles == (isa_got == IGPT_ISA_AMX ? present : NULL));                     \
    CHECK_INT(session->math.round, precision_got == IGPT_BF16);                                   \
    igpt_session_destroy(session);                                                                \
  } while (0)

/* Who gets tiles, and what happens where there are none, or wrong ones */
TEST(refused)
{
  const igpt_isa best = igpt_isa_best();
  const igpt__tiles *const wrong[] = { &short_sums, &swapped, &blind, &doubled };
  igpt_model *model = model_open(IGPT_AR);
  igpt_session *session;
  heard ear;
  int i;
  memset(&ear, 0, sizeof ear);

  present = NULL;
  CHECK(!igpt_isa_supported(IGPT_ISA_AMX) && !igpt_kernels_for(IGPT_ISA_AMX));
  CHECK_INT(igpt_selftest(IGPT_ISA_AMX), IGPT_UNSUPPORTED);
  CHECK_SESSION(IGPT_ISA_AUTO, IGPT_BF16, best, IGPT_BF16);
  CHECK_SESSION(IGPT_ISA_AUTO, IGPT_PRECISION_AUTO, best, IGPT_F32);
  CHECK_INT(create(&session, model, IGPT_ISA_AMX, IGPT_BF16, &ear), IGPT_UNSUPPORTED);
  CHECK(session == NULL && strstr(ear.text, "amx"));

  present = &counted;
  CHECK(igpt_isa_supported(IGPT_ISA_AMX) && igpt_isa_best() == best);
  CHECK(igpt_kernels_for(IGPT_ISA_AMX) == igpt_kernels_for(best));
  CHECK_INT(igpt_selftest(IGPT_ISA_AMX), IGPT_OK);
  CHECK_SESSION(IGPT_ISA_AUTO, IGPT_BF16, IGPT_ISA_AMX, IGPT_BF16);
  CHECK_SESSION(IGPT_ISA_AMX, IGPT_BF16, IGPT_ISA_AMX, IGPT_BF16);
  CHECK_SESSION(IGPT_ISA_AUTO, IGPT_PRECISION_AUTO, IGPT_ISA_AMX, IGPT_BF16);
  CHECK_SESSION(IGPT_ISA_AUTO, IGPT_F32, best, IGPT_F32);
  CHECK_SESSION(IGPT_ISA_AMX, IGPT_F32, best, IGPT_F32);
  CHECK_SESSION(best, IGPT_BF16, best, IGPT_BF16);
  CHECK_SESSION(IGPT_ISA_GENERIC, IGPT_BF16, IGPT_ISA_GENERIC, IGPT_BF16);

  for (i = 0; i < 4; i++) {
    present = wrong[i];
    ear.lines = 0;
    CHECK_INT(igpt_selftest(IGPT_ISA_AMX), IGPT_SELFTEST_FAILED);
    CHECK_SESSION(IGPT_ISA_AUTO, IGPT_BF16, best, IGPT_BF16);
    CHECK_SESSION(IGPT_ISA_AUTO, IGPT_PRECISION_AUTO, best, IGPT_F32);
    CHECK_INT(ear.lines, 0);
    CHECK_INT(create(&session, model, IGPT_ISA_AMX, IGPT_BF16, &ear), IGPT_SELFTEST_FAILED);
    CHECK(session == NULL && strstr(ear.text, "amx"));
  }
  igpt_model_destroy(model);
}

/* ---- training and decoding ------------------------------------------------------------------- */

enum { PICTURES = 5, T = 35, V = 37 };

/* The gradients of a batch (malloc), its loss, and how often tiles multiplied */
static float *gradients(igpt_objective objective, igpt_isa isa, igpt_precision precision,
                        int workers, double *loss)
{
  igpt_model *model = model_open(objective);
  igpt_session *session = NULL;
  igpt_session_desc desc;
  igpt_batch batch;
  igpt_losses losses;
  igpt_rng rng = igpt_rng_seed(3, 0);
  part_runner runner;
  uint16_t tokens[PICTURES * T];
  uint8_t mask[PICTURES * T];
  float *block = NULL, *copy;
  size_t i, count = 0, pictures;
  for (i = 0; i < PICTURES * T; i++) tokens[i] = (uint16_t)igpt_rng_below(&rng, V);
  igpt_mask_random(&rng, mask, PICTURES * T, 0.3f);
  memset(&desc, 0, sizeof desc);
  memset(&batch, 0, sizeof batch);
  runner.workers = workers;
  runner.order = 2;
  desc.train = 1;
  desc.batch = 3;
  desc.isa = isa;
  desc.precision = precision;
  desc.runner.run = part_run;
  desc.runner.user = &runner;
  desc.runner.workers = workers;
  batch.tokens = tokens;
  batch.mask = objective == IGPT_BERT ? mask : NULL;
  batch.count = PICTURES;
  CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
  if (!session) exit(2);
  CHECK_INT(igpt_backward(session, &losses, &batch, NULL), IGPT_OK);
  CHECK_INT(igpt_gradients(session, &block, &count, &pictures), IGPT_OK);
  CHECK_INT(count, igpt_model_parameters(model));
  *loss = losses.generative;
  copy = (float *)malloc((count + 1) * sizeof *copy);
  if (!copy) exit(2);
  memcpy(copy, block, count * sizeof *copy);
  copy[count] = (float)losses.generative;
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  return copy;
}

/* |a - b| / |b| */
static double apart(const float *a, const float *b, size_t n)
{
  double error = 0, size = 0;
  size_t i;
  for (i = 0; i < n; i++) {
    error += pow((double)a[i] - (double)b[i], 2);
    size += pow((double)b[i], 2);
  }
  return sqrt(error / size);
}

/* Loss and gradients as the generic row has them in the same precision: both round operands to
   eight bits, so a sum that differs in its last bit now and then sends an operand the other way.
   And not farther than that row is from float32. */
TEST(training)
{
  int objective;
  for (objective = IGPT_AR; objective <= IGPT_BERT; objective++) {
    const igpt_objective o = (igpt_objective)objective;
    igpt_model *model = model_open(o);
    const size_t n = igpt_model_parameters(model);
    double loss, generic_loss, exact_loss, rounding;
    float *generic = gradients(o, IGPT_ISA_GENERIC, IGPT_BF16, 1, &generic_loss), *first = NULL;
    float *exact = gradients(o, IGPT_ISA_GENERIC, IGPT_F32, 1, &exact_loss);
    const unit *u;
    rounding = apart(generic, exact, n);
    EACH_UNIT(u) {
      float *tiles, *again;
      double error, whole;
      present = u == units ? &counted : u->tiles;
      multiplied = attended = 0;
      tiles = gradients(o, IGPT_ISA_AMX, IGPT_BF16, 1, &loss);
      if (u == units) {             /* passes x products, and layers x heads x pictures, twice */
        CHECK(multiplied >= 2 * (13 * 2 + 3));
        CHECK_INT(attended, 2 * 2 * 3 * PICTURES + 3);      /* and the self-test's three */
      }
      error = apart(tiles, generic, n);
      whole = apart(tiles, exact, n);
      printf("  %s: loss %.6f, generic %.6f, float32 %.6f; gradients differ by %.2g and %.2g "
             "(generic %.2g)\n", u->name, loss, generic_loss, exact_loss, error, whole, rounding);
      CHECK_NEAR(loss, generic_loss, 2e-4 * generic_loss);
      CHECK(error < 6e-3 && error > 1e-8);
      CHECK(whole < 1.1 * rounding);
      again = gradients(o, IGPT_ISA_AMX, IGPT_BF16, 7, &loss);
      CHECK(part_same(tiles, again, n + 1));
      if (u == units + u->like) {
        free(first);
        first = tiles;
      } else {
        CHECK(part_same(tiles, first, n + 1));
        free(tiles);
      }
      free(again);
    }
    free(first);
    free(generic);
    free(exact);
    igpt_model_destroy(model);
  }
}

/* Decodes positions from 20 on of `batch` pictures, of which `count` are given: logits
   (count,T,V). */
static void decode(igpt_session *session, float *logits, const uint16_t *tokens, int count)
{
  uint16_t prefix[2 * PICTURES * 20], column[2 * PICTURES];
  static float step[2 * PICTURES * V];
  int b, i;
  for (b = 0; b < count; b++) memcpy(prefix + b * 20, tokens + b * T, 20 * sizeof *prefix);
  CHECK_INT(igpt_decode_begin(session, prefix, 20, count), IGPT_OK);
  multiplied = 0;
  for (i = 20; i < T; i++) {
    for (b = 0; b < count; b++) column[b] = tokens[b * T + i - 1];
    CHECK_INT(igpt_decode(session, step, i == 20 ? NULL : column), IGPT_OK);
    for (b = 0; b < count; b++)
      memcpy(logits + (b * T + i) * V, step + b * V, V * sizeof *step);
  }
}

/* Decoding few pictures takes the products of the kernels, decoding more of them copies of weights
   that are packed for tiles: both equal the full pass to rounding, where without AMX it does to the
   bit. Most operands of the next product even round to the same eight bits. */
TEST(decoding)
{
  enum { MOST = 2 * PICTURES };
  static const struct { int batch, count; } calls[] = { { 1, 1 }, { MOST, MOST }, { MOST, 1 } };
  static float logits[MOST * T * V], one[MOST * T * V], again[MOST * T * V];
  static uint16_t tokens[MOST * T];
  part_runner runner;
  const unit *u;
  igpt_rng rng = igpt_rng_seed(4, 0);
  int i, c;
  runner.workers = 7;
  runner.order = 2;
  for (i = 0; i < MOST * T; i++) tokens[i] = (uint16_t)igpt_rng_below(&rng, V);
  EACH_UNIT(u) {
    igpt_model *model = model_open(IGPT_AR);
    for (c = 0; c < 3; c++) {
      const int count = calls[c].count;
      igpt_session *session = NULL;
      igpt_session_desc desc;
      igpt_batch batch;
      double error = 0, size = 0;
      memset(&desc, 0, sizeof desc);
      memset(&batch, 0, sizeof batch);
      desc.isa = IGPT_ISA_AMX;
      desc.precision = IGPT_BF16;
      desc.batch = calls[c].batch;
      batch.tokens = tokens;
      batch.count = (size_t)count;
      present = u == units ? &counted : u->tiles;
      CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
      if (!session) exit(2);
      CHECK_INT(igpt_forward(session, logits, &batch), IGPT_OK);
      decode(session, one, tokens, count);
      if (u == units) CHECK((multiplied > 0) == (calls[c].batch > 1));
      for (i = 0; i < count * T * V; i++)
        if (i / V % T >= 20) {
          error += pow((double)one[i] - (double)logits[i], 2);
          size += pow((double)logits[i], 2);
        }
      printf("  %s, %d of %d: cached logits differ by %.2g\n", u->name, count, desc.batch,
             sqrt(error / size));
      CHECK(sqrt(error / size) < 3e-3 && size > 1);
      igpt_session_destroy(session);
      desc.runner.run = part_run;
      desc.runner.user = &runner;
      desc.runner.workers = runner.workers;
      CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
      if (!session) exit(2);
      decode(session, again, tokens, count);
      for (i = 0; i < count * T; i++)
        if (i % T >= 20) CHECK(part_same(one + i * V, again + i * V, V));
      igpt_session_destroy(session);
    }
    igpt_model_destroy(model);
  }
}

/* A pass over `pictures` gives the same bits again after `spoil` has used the session for something
   else, on every unit. */
static void undisturbed(igpt_config config, int pictures,
                        void (*spoil)(igpt_session *session, igpt_model *model))
{
  uint16_t tokens[PICTURES * 64];
  igpt_rng rng = igpt_rng_seed(5, 0);
  const unit *u;
  size_t i;
  for (i = 0; i < sizeof tokens / sizeof *tokens; i++)
    tokens[i] = (uint16_t)igpt_rng_below(&rng, (uint32_t)config.vocabulary);
  EACH_UNIT(u) {
    igpt_model_desc model_desc;
    igpt_session_desc desc;
    igpt_model *model = NULL;
    igpt_session *session = NULL;
    igpt_batch batch;
    igpt_losses losses;
    float *block = NULL, *before;
    size_t count = 0, counted_pictures;
    present = u->tiles;
    memset(&model_desc, 0, sizeof model_desc);
    memset(&desc, 0, sizeof desc);
    memset(&batch, 0, sizeof batch);
    model_desc.config = config;
    CHECK_INT(igpt_model_create(&model, &model_desc), IGPT_OK);
    part_weights(model);
    desc.train = 1;
    desc.batch = pictures;
    desc.isa = IGPT_ISA_AMX;
    desc.precision = IGPT_BF16;
    batch.tokens = tokens;
    batch.count = (size_t)pictures;
    CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
    if (!session) exit(2);
    CHECK_INT(igpt_backward(session, &losses, &batch, NULL), IGPT_OK);
    CHECK_INT(igpt_gradients(session, &block, &count, &counted_pictures), IGPT_OK);
    before = part_copy(block, count);
    CHECK_INT(igpt_gradients_zero(session), IGPT_OK);
    spoil(session, model);
    CHECK_INT(igpt_backward(session, &losses, &batch, NULL), IGPT_OK);
    CHECK(part_same(block, before, count));
    part_free(before);
    igpt_session_destroy(session);
    igpt_model_destroy(model);
  }
}

static void spoil_the_cache(igpt_session *session, igpt_model *model)
{
  const igpt_config *config = igpt_model_config(model);
  memset(session->cache, 0xff, (size_t)config->layers * PICTURES * session->cache_bytes); /* NaN */
}

/* In a training session keys and values lie where activations do: whatever they leave there, also
   behind the columns of a width that fills no panel, does not matter. */
TEST(training_after_decoding)
{
  undisturbed(config_of(5, 3, 42, 5, 7, V), PICTURES, spoil_the_cache);
}

/* Moments whose bits are NaN as bfloat16 */
static void read_checkpoint(igpt_session *session, igpt_model *model)
{
  const size_t count = igpt_model_parameters(model);
  const uint32_t bits = 0x3c007fc0u;
  paper file = { 0 };
  igpt_sink sink = paper_sink(&file);
  igpt_source source;
  size_t i;
  for (i = 0; i < count; i++) {
    memcpy(&session->moment1[i], &bits, sizeof bits);
    memcpy(&session->moment2[i], &bits, sizeof bits);
  }
  CHECK(igpt__old_moments(session) != NULL);
  CHECK_INT(igpt_checkpoint_write(session, model, NULL, &sink), IGPT_OK);
  source = paper_source(&file);
  CHECK_INT(igpt_checkpoint_read(session, model, NULL, &source), IGPT_OK);
  paper_clear(&file);
}

/* A checkpoint is read with the old moments where activations are. */
TEST(training_after_reading)
{
  undisturbed(config_of(2, 1, 48, 8, 8, 16), 1, read_checkpoint);
}

int main(void)
{
  units[0].name = "emulated";
  units[0].tiles = &igpt__tiles_unit_plain;
  units[1].name = "emulated, packed by vectors";
  units[1].tiles = igpt__amx_emulated();
  units[2].name = "AMX";
  units[2].tiles = igpt__amx_real();
  if (!units[2].tiles && igpt__amx_trapped() && !trap_install()) {
    units[2].name = "AMX, trapped";
    units[2].tiles = igpt__amx_trapped();
    trapped = 1;
  }
  units[DOTS].name = "dot products, emulated";
  units[DOTS].tiles = &igpt__tiles_unit_dots_plain;
  units[4].name = "AVX512_BF16";
  units[4].tiles = igpt__dots_any();
  units[DOTS].like = units[4].like = DOTS;
  counted = *units[0].tiles;
  counted.pack = pack_first;
  counted.fold = fold_first;
  counted.multiply = multiply_counted;
  counted.attend = attend_counted;
  counted.attend_backward = backward_counted;
  short_sums = swapped = blind = doubled = counted;
  blind.attend = attend_wrong;
  doubled.attend_backward = backward_wrong;
  short_sums.multiply = multiply_short;
  swapped.pack = pack_swapped;
  RUN(emulated_vectors);
  RUN(real_tiles);
  RUN(real_dots);
  RUN(packing);
  RUN(rounding);
  RUN(one_tile);
  RUN(one_dot);
  RUN(against_float64);
  RUN(workers);
  RUN(alone);
  RUN(endings);
  RUN(attention_small_scores);
  RUN(attention_large_scores);
  RUN(attention_workers);
  RUN(attention_causality);
  RUN(attention_far_below_zero);
  RUN(attention_not_a_number);
  RUN(refused);
  RUN(training);
  RUN(decoding);
  RUN(training_after_decoding);
  RUN(training_after_reading);
  return test_done();
}
