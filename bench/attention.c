/* Attention of the paper's S (T = 1024, 8 heads of width 64, causal) and of other widths and
   lengths: forward and backward in float32, beside the time that the multiply-adds below the
   diagonal take when one operand of each comes from the first cache; and in bfloat16 on AMX, beside
   what its tiles do in registers. Forward 2, backward 5 products of T x T x E numbers a head, half
   of each being skipped.

   cc -O2 -I. bench/attention.c -o build/bench/attention -lm -pthread
   build/bench/attention [-q]        -q: quick, 5 repetitions instead of 11
   build/bench/attention --race [peers' commands ...]      8 heads of 64, two workers, in turn with
                                     peers such as bench/peers/products.py (see race.h)           */

#define _POSIX_C_SOURCE 200809L
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "bench.h"
#include "race.h"

static const struct { size_t T, H, E; } shapes[] = {
  { 1024, 8, 64 }, { 1024, 8, 32 }, { 1024, 8, 96 }, { 4096, 2, 64 }, { 256, 16, 32 }
};

static float *numbers(size_t n, uint64_t stream)
{
  float *x = (float *)malloc(n * sizeof *x);
  igpt_rng rng = igpt_rng_seed(1, stream);
  size_t i;
  if (!x) exit(2);
  for (i = 0; i < n; i++) x[i] = 2 * igpt_rng_uniform(&rng) - 1;
  return x;
}

/* What attention of this instruction set works with, for two workers: tiles' and dot products' in
   bfloat16. */
static igpt__math math_of(igpt_isa isa, size_t T, size_t E)
{
  const int tiles = igpt__tiles_isa(isa);
  igpt__math math;
  memset(&math, 0, sizeof math);
  math.kernels = igpt_kernels_for(isa);
  math.tiles = igpt__tiles_of(isa);
  math.round = tiles;
  math.worker_floats = igpt__max_size(igpt__attention_worker(math.kernels, T, E),
                                      tiles ? igpt__attend_floats(T, E) : 0);
  math.worker = (float *)aligned_alloc(64, 2 * math.worker_floats * sizeof(float));
  if (!math.worker) exit(2);
  return math;
}

/* What is computed from and to; halves, with rows as sessions have them, for tiles */
typedef struct arrays {
  float *qkv, *out, *dout, *dqkv, *lse;
  uint16_t *halves[4];            /* of the first four */
} arrays;

static arrays arrays_of(size_t most)               /* numbers in qkv */
{
  arrays a;
  float *from[4];
  int i;
  a.qkv = from[0] = numbers(most, 1);
  a.out = from[1] = numbers(most / 3, 3);
  a.dout = from[2] = numbers(most / 3, 2);
  a.dqkv = from[3] = numbers(most, 4);
  a.lse = numbers(1 << 16, 5);
  for (i = 0; i < 4; i++) {
    const size_t n = i == 0 || i == 3 ? most : most / 3;
    a.halves[i] = (uint16_t *)aligned_alloc(64, 2 * 4 * n);
    if (!a.halves[i]) exit(2);
    igpt_kernels_for(IGPT_ISA_GENERIC)->halve(a.halves[i], from[i], n);
    igpt_kernels_for(IGPT_ISA_GENERIC)->halve(a.halves[i] + n, from[i], n);
  }
  return a;
}

static void arrays_free(arrays *a)
{
  int i;
  for (i = 0; i < 4; i++) free(a->halves[i]);
  free(a->qkv);
  free(a->out);
  free(a->dout);
  free(a->dqkv);
  free(a->lse);
}

static igpt__heads heads_of(const igpt__math *math, const arrays *a, size_t T, size_t H, size_t E)
{
  igpt__heads heads;
  memset(&heads, 0, sizeof heads);
  heads.math = math;
  heads.qkv = a->halves[0];
  heads.out = a->halves[1];
  heads.dout = a->halves[2];
  heads.dqkv = a->halves[3];
  heads.lse = a->lse;
  heads.B = 1;
  heads.T = T;
  heads.H = H;
  heads.E = E;
  heads.ld = igpt__row(H * E);
  heads.ld3 = igpt__row(3 * H * E);
  heads.causal = 1;
  return heads;
}

static void forward_of(const igpt__math *math, const arrays *a, size_t T, size_t H, size_t E)
{
  igpt__heads heads = heads_of(math, a, T, H, E);
  if (math->tiles) igpt__heads_forward(&heads);
  else igpt__attention_forward(math, a->out, a->lse, a->qkv, 1, T, H, E, 1);
}

static void backward_of(const igpt__math *math, const arrays *a, size_t T, size_t H, size_t E)
{
  igpt__heads heads = heads_of(math, a, T, H, E);
  if (math->tiles) igpt__heads_backward(&heads);
  else igpt__attention_backward(math, a->dqkv, a->dout, a->out, a->qkv, a->lse, 1, T, H, E, 1);
}

/* ---- beside other libraries ------------------------------------------------------------------ */

enum { LENGTH = 1024, HEADS = 8, WIDTH = 64 };

typedef struct turn {
  igpt__math math;
  arrays a;
} turn;

static void take_turn(void *arg)
{
  const turn *t = (const turn *)arg;
  forward_of(&t->math, &t->a, LENGTH, HEADS, WIDTH);
  backward_of(&t->math, &t->a, LENGTH, HEADS, WIDTH);
}

/* qkv, or out */
static double number(const turn *t, int which, size_t row, size_t column)
{
  const size_t C = HEADS * WIDTH, width = which ? C : 3 * C;
  if (t->math.tiles)
    return igpt__widen(t->a.halves[which][row * igpt__row(width) + column]);
  return (which ? t->a.out : t->a.qkv)[row * width + column];
}

/* 1 if some rows of the last head agree with float64 */
static int right(turn *t)
{
  const size_t C = HEADS * WIDTH, head = (HEADS - 1) * WIDTH;
  const double tolerance = t->math.tiles ? 2e-2 : 1e-4;
  static double p[LENGTH];
  size_t i, j, e;
  take_turn(t);
  for (i = 0; i < LENGTH; i += 93) {
    double total = 0;
    for (j = 0; j <= i; j++) {
      double s = 0;
      for (e = 0; e < WIDTH; e++)
        s += number(t, 0, i, head + e) * number(t, 0, j, C + head + e);
      total += p[j] = exp(s / sqrt((double)WIDTH));
    }
    for (e = 0; e < WIDTH; e++) {
      double want = 0;
      for (j = 0; j <= i; j++) want += p[j] / total * number(t, 0, j, 2 * C + head + e);
      if (!(fabs(number(t, 1, i, head + e) - want) < tolerance)) return 0;
    }
  }
  return 1;
}

static void contestant(int tiles)
{
  const igpt_isa isa = tiles ? bench_bf16() : igpt_isa_best();
  igpt_pool *pool;
  char name[60];
  turn t;
  memset(&t, 0, sizeof t);
  if (igpt_pool_create(&pool, 2, NULL)) exit(1);
  t.math = math_of(isa, LENGTH, WIDTH);
  t.math.runner = igpt_pool_runner(pool);
  t.a = arrays_of(LENGTH * 3 * HEADS * WIDTH);
  if (!right(&t)) exit(1);
  snprintf(name, sizeof name, "igpt.h, %s, %s, 2 workers", tiles ? "bfloat16" : "float32",
           igpt_isa_name(isa));
  race_run(name, take_turn, &t);
}

static void in_float32(const void *arg) { (void)arg; contestant(0); }
static void in_bfloat16(const void *arg) { (void)arg; contestant(1); }

static void race(char **peers, int count)
{
  static void (*const own[])(const void *arg) = { in_float32, in_bfloat16 };
  bench_machine();
  race_peers(own, bench_bf16() != IGPT_ISA_AUTO ? 2 : 1, peers, count, "attention", 25,
             7.0 * HEADS * LENGTH * LENGTH * WIDTH);
}

int main(int argc, char **argv)
{
  const int repeats = argc > 1 && !strcmp(argv[1], "-q") ? 5 : 11;
  arrays a;
  size_t s;
  igpt_pool *pool = NULL;
  int isa, i;
  if (argc > 1 && !strcmp(argv[1], "--race")) {
    race(argv + 2, argc - 2);
    return 0;
  }
  if (igpt_pool_create(&pool, 2, NULL)) return 2;
  a = arrays_of(4096 * 3 * 1024);
  bench_machine();
  printf("causal; %d repetitions, alternating; median and (quartile range)\n", repeats);
  for (isa = IGPT_ISA_AVX2; isa < IGPT_ISA_COUNT; isa++) {
    const int tiles = igpt__tiles_isa((igpt_isa)isa);
    igpt__math math;
    double operations;
    if (!igpt_kernels_for((igpt_isa)isa)) continue;
    math = math_of((igpt_isa)isa, 4096, 96);
    printf("\n%s, %s\n  %5s %3s %3s   %22s %9s %6s   %22s %9s %6s   %s\n",
           igpt_isa_name((igpt_isa)isa), tiles ? "bfloat16" : "float32", "T", "H", "E",
           "forward ms", "GFLOP/s", "floor", "forward, backward ms", "GFLOP/s", "floor",
           "two workers ms, times faster");
    for (s = 0; s < sizeof shapes / sizeof *shapes; s++) {
      const size_t T = shapes[s].T, H = shapes[s].H, E = shapes[s].E;
      const double product = (double)H * (double)T * (double)T * (double)E;    /* its causal half */
      bench_times floor_now = { { 0 }, 0 }, forward = { { 0 }, 0 }, step = { { 0 }, 0 };
      bench_times both = { { 0 }, 0 };
      double f, one, all, two;
      for (i = 0; i < repeats; i++) {
        double start, middle;
        if (tiles) bench_note(&floor_now, bench_operation((igpt_isa)isa, 0, 10000));
        else if (bench_floor_loop((igpt_isa)isa, 1, &operations))
          bench_note(&floor_now, bench_floor((igpt_isa)isa, 1, 0, 2000));
        memset(&math.runner, 0, sizeof math.runner);
        start = bench_clock(0);
        forward_of(&math, &a, T, H, E);
        middle = bench_clock(0);
        backward_of(&math, &a, T, H, E);
        bench_note(&step, bench_clock(0) - start);
        bench_note(&forward, middle - start);
        math.runner = igpt_pool_runner(pool);
        start = bench_clock(0);
        forward_of(&math, &a, T, H, E);
        backward_of(&math, &a, T, H, E);
        bench_note(&both, bench_clock(0) - start);
      }
      f = floor_now.count ? bench_median(&floor_now) : 0;
      one = bench_median(&forward);
      all = bench_median(&step);
      two = bench_median(&both);
      printf("  %5d %3d %3d   %16.2f (%2.0f%%) %9.1f %5.0f%%   %16.2f (%2.0f%%) %9.1f %5.0f%%"
             "   %8.2f (%2.0f%%) %.2f\n", (int)T, (int)H, (int)E, 1e3 * one,
             100 * bench_spread(&forward), 2 * product / one * 1e-9, 100 * 2 * product * f / one,
             1e3 * all, 100 * bench_spread(&step), 7 * product / all * 1e-9,
             100 * 7 * product * f / all, 1e3 * two, 100 * bench_spread(&both), all / two);
    }
    free(math.worker);
  }
  if (bench_bf16() == IGPT_ISA_AUTO) printf("\n" BENCH_NO_BF16);
  igpt_pool_destroy(pool);
  arrays_free(&a);
  return 0;
}
