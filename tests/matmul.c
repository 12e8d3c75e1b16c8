/* Matrix products of every shape, transposition, worker count and instruction set against float64.

   cc -std=c99 -O2 -I. -o build/tests/matmul tests/matmul.c -lm -pthread                          */

#define _DEFAULT_SOURCE           /* mmap */
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "part.h"

typedef struct shape {
  size_t m, n, k;
} shape;

/* around the edges of tiles (4, 6, 8, 12 rows; 4, 8, 16, 32 columns), of blocks (96 rows, 128 and
   2048 columns, depth 512), of few rows (16; 64 deep, 256 columns) and of `thin` (4), and nothing
   at all */
static const shape shapes[] = {
  { 0, 5, 5 }, { 5, 0, 5 }, { 5, 5, 0 }, { 1, 1, 1 }, { 2, 3, 5 }, { 6, 16, 7 }, { 12, 32, 9 },
  { 13, 33, 8 }, { 16, 40, 70 }, { 17, 31, 33 }, { 47, 15, 1 }, { 48, 64, 256 }, { 49, 65, 257 },
  { 97, 101, 103 }, { 1, 513, 300 }, { 20, 1025, 19 }, { 101, 7, 530 }, { 16, 1100, 5 },
  { 50, 2, 512 }, { 18, 35, 1025 }, { 17, 2051, 3 }, { 4, 257, 65 },
  { 5, 300, 129 }, { 9, 511, 64 }
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* A (m,k) and B (k,n) with the strides that `transpose` (bit 0: A, bit 1: B) and padding give */
typedef struct operands {
  float *a, *b;
  size_t a_row, a_column, b_row, b_column, a_floats, b_floats;
} operands;

static operands operands_make(shape s, int transpose)
{
  operands o;
  if (transpose & 1) {
    o.a_row = 1;
    o.a_column = s.m + 3;
    o.a_floats = s.m && s.k ? (s.k - 1) * o.a_column + s.m : 0;
  } else {
    o.a_row = s.k + 1;
    o.a_column = 1;
    o.a_floats = s.m && s.k ? (s.m - 1) * o.a_row + s.k : 0;
  }
  if (transpose & 2) {
    o.b_row = 1;
    o.b_column = s.k + 2;
    o.b_floats = s.n && s.k ? (s.n - 1) * o.b_column + s.k : 0;
  } else {
    o.b_row = s.n;
    o.b_column = 1;
    o.b_floats = s.n * s.k;
  }
  o.a = part_random(o.a_floats, 1, 1);
  o.b = part_random(o.b_floats, 1, 2);
  return o;
}

static void operands_free(operands *o)
{
  part_free(o->a);
  part_free(o->b);
}

static void product(igpt_isa isa, float *c, size_t ldc, const operands *o, shape s, int accumulate,
                    int workers, int order, int round)
{
  const igpt_kernels *k = igpt_kernels_for(isa);
  part_math m;
  part_math_open(&m, isa, igpt__matmul_shared(k, s.n, s.k), igpt__matmul_worker(k, s.n, s.k),
                 workers, order, round);
  igpt__matmul(&m.math, c, ldc, o->a, o->a_row, o->a_column, o->b, o->b_row, o->b_column, s.m,
               s.n, s.k, accumulate);
  part_math_close(&m);
}

static double rounded(float x, int round) { return round ? igpt__round_bf16(x) : x; }

TEST(against_float64)
{
  int isa, transpose, mode;
  size_t at, i, j, p;
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++) {
    if (!igpt_isa_supported((igpt_isa)isa)) continue;
    for (at = 0; at < SHAPES; at++)
      for (transpose = 0; transpose < 4; transpose++)
        for (mode = 0; mode < 4; mode++) {
          shape s = shapes[at];
          int accumulate = mode & 1, round = mode >> 1;
          operands o = operands_make(s, transpose);
          size_t ldc = s.n + 3, floats = s.m ? (s.m - 1) * ldc + s.n : 0;
          float *c = part_random(floats, 1, 3), *c0 = part_copy(c, floats);
          if (!accumulate)
            for (i = 0; i < s.m; i++)
              for (j = 0; j < s.n; j++) c[i * ldc + j] = NAN;
          product((igpt_isa)isa, c, ldc, &o, s, accumulate, 1, 0, round);
          for (i = 0; i < s.m; i++) {
            for (j = 0; j < s.n; j++) {
              double want = accumulate ? c0[i * ldc + j] : 0, size = fabs(want);
              for (p = 0; p < s.k; p++) {
                double term = rounded(o.a[i * o.a_row + p * o.a_column], round) *
                              rounded(o.b[p * o.b_row + j * o.b_column], round);
                want += term;
                size += fabs(term);
              }
              CHECK_NEAR(c[i * ldc + j], want, 0.2 * (double)(s.k + 5) * FLT_EPSILON * size);
            }
            if (i + 1 < s.m) CHECK(part_same(c + i * ldc + s.n, c0 + i * ldc + s.n, 3));
          }
          part_free(c);
          part_free(c0);
          operands_free(&o);
        }
  }
}

/* 1, 2, 3 and 7 workers in three orders: the same bits */
TEST(workers)
{
  static const int workers[] = { 1, 2, 3, 7 };
  int isa, order, w;
  size_t at;
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++) {
    if (!igpt_isa_supported((igpt_isa)isa)) continue;
    for (at = 0; at < SHAPES; at++) {
      shape s = shapes[at];
      operands o = operands_make(s, (int)at & 3);
      float *c = part_floats(s.m * s.n), *d = part_floats(s.m * s.n);
      product((igpt_isa)isa, c, s.n, &o, s, 0, 1, 0, 0);
      for (w = 0; w < 4; w++)
        for (order = 0; order < 3; order++) {
          memset(d, 0xff, s.m * s.n * sizeof(float));
          product((igpt_isa)isa, d, s.n, &o, s, 0, workers[w], order, 0);
          CHECK(part_same(c, d, s.m * s.n));
        }
      part_free(c);
      part_free(d);
      operands_free(&o);
    }
  }
}

/* A row, and a column, computed alone have the bits that they have in the whole: decoding one
   position (which is not packed) equals the full pass. All rows of the table with fused
   multiply-add agree. */
TEST(alone)
{
  int isa, round;
  shape s = { 61, 83, 530 };
  for (round = 0; round < 2; round++) {
    float *first = NULL;
    for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++) {
      operands o;
      float *c, row[83], column[61];
      size_t i, j;
      if (!igpt_isa_supported((igpt_isa)isa)) continue;
      o = operands_make(s, 0);
      c = part_floats(s.m * s.n);
      product((igpt_isa)isa, c, s.n, &o, s, 0, 1, 0, round);
      for (i = 0; i < s.m; i += 7) {
        operands part = o;
        shape one = { 1, 83, 530 };
        part.a = o.a + i * o.a_row;
        product((igpt_isa)isa, row, s.n, &part, one, 0, 1, 0, round);
        CHECK(part_same(row, c + i * s.n, s.n));
      }
      for (j = 0; j < s.n; j += 9) {
        operands part = o;
        shape one = { 61, 1, 530 };
        part.b = o.b + j * o.b_column;
        product((igpt_isa)isa, column, 1, &part, one, 0, 1, 0, round);
        for (i = 0; i < s.m; i++) CHECK(part_same(column + i, c + i * s.n + j, 1));
      }
      operands_free(&o);
      if (isa == IGPT_ISA_GENERIC) {
        part_free(c);
        continue;
      }
      if (first) {
        CHECK(part_same(first, c, s.m * s.n));
        part_free(c);
      } else first = c;
    }
    if (first) part_free(first);
  }
}

/* the sum over k cut in two calls: the same chain, the same bits */
TEST(cut)
{
  int isa;
  shape s = { 53, 37, 300 }, s1 = { 53, 37, 123 }, s2 = { 53, 37, 177 };
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++) {
    operands o, rest;
    float *c, *d;
    if (!igpt_isa_supported((igpt_isa)isa)) continue;
    o = operands_make(s, 1);
    rest = o;
    c = part_floats(s.m * s.n);
    d = part_floats(s.m * s.n);
    product((igpt_isa)isa, c, s.n, &o, s, 0, 1, 0, 0);
    product((igpt_isa)isa, d, s.n, &o, s1, 0, 1, 0, 0);
    rest.a += 123 * o.a_column;
    rest.b += 123 * o.b_row;
    product((igpt_isa)isa, d, s.n, &rest, s2, 1, 1, 0, 0);
    CHECK(part_same(c, d, s.m * s.n));
    part_free(c);
    part_free(d);
    operands_free(&o);
  }
}

/* The memory that is asked for covers every smaller product too, and grows with the shape alone. */
TEST(sizes)
{
  int isa;
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++) {
    const igpt_kernels *k = igpt_kernels_for((igpt_isa)isa);
    size_t n, last = 0;
    if (!k) continue;
    for (n = 1; n < 9000; n += 117) {
      size_t floats = igpt__matmul_shared(k, n, n / 3 + 1);
      CHECK(floats >= last);
      last = floats;
    }
    CHECK_INT(igpt__matmul_shared(k, 1u << 20, 1u << 20),
              igpt__matmul_shared(k, 1u << 21, 1u << 21));
  }
}

int main(void)
{
  RUN(against_float64);
  RUN(workers);
  RUN(alone);
  RUN(cut);
  RUN(sizes);
  return test_done();
}
