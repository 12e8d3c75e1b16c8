/* Linear layers of iGPT-S (1024 positions of width 512): the three products of training, in
   float32, beside the time that the same multiply-adds take when one operand of each comes from the
   first cache; and in bfloat16 on AMX, beside what its tiles do in registers.

   cc -O2 -I. bench/matmul.c -o build/bench/matmul -lm -pthread
   build/bench/matmul [-p] [-q]      -p: time of the process instead of the wall (one worker only)
                                     -q: quick, 5 repetitions instead of 15                       */

#define _POSIX_C_SOURCE 200809L
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "bench.h"

enum { ROWS = 1024 };
static const struct { size_t in, out; } layers[] = {
  { 512, 1536 }, { 512, 512 }, { 512, 2048 }, { 2048, 512 }
};
static const char *const products[] = { "X W", "dY W^T", "X^T dY +=" };

static float *numbers(size_t n, uint64_t stream)
{
  float *x = (float *)malloc(n * sizeof *x);
  igpt_rng rng = igpt_rng_seed(1, stream);
  size_t i;
  if (!x) exit(2);
  for (i = 0; i < n; i++) x[i] = 2 * igpt_rng_uniform(&rng) - 1;
  return x;
}

typedef struct job {
  size_t m, n, k, a_row, a_column, b_row, b_column;
  const float *a, *b;
  float *c;
  int accumulate;
} job;

/* The three products of a layer: Y (m,out) = X (m,in) W (in,out), dX (m,in) = dY (m,out) W^T, and
   dW (in,out) += X^T dY */
static job job_of(int product, size_t in, size_t out, const float *x, const float *dy,
                  const float *w, float *c)
{
  job j;
  memset(&j, 0, sizeof j);
  j.c = c;
  if (product == 0) {
    j.m = ROWS, j.n = out, j.k = in;
    j.a = x, j.a_row = in, j.a_column = 1, j.b = w, j.b_row = out, j.b_column = 1;
  } else if (product == 1) {
    j.m = ROWS, j.n = in, j.k = out;
    j.a = dy, j.a_row = out, j.a_column = 1, j.b = w, j.b_row = 1, j.b_column = out;
  } else {
    j.m = in, j.n = out, j.k = ROWS, j.accumulate = 1;
    j.a = x, j.a_row = 1, j.a_column = in, j.b = dy, j.b_row = out, j.b_column = 1;
  }
  return j;
}

static void run(const igpt__math *math, const job *j)
{
  igpt__matmul(math, j->c, j->n, j->a, j->a_row, j->a_column, j->b, j->b_row, j->b_column, j->m,
               j->n, j->k, j->accumulate);
}

/* 1 if 500 elements agree with float64 */
static int check(const igpt__math *math, const job *j)
{
  igpt_rng rng = igpt_rng_seed(2, 0);
  int i, right = 1;
  memset(j->c, 0, j->m * j->n * sizeof(float));
  run(math, j);
  for (i = 0; i < 500; i++) {
    size_t r = igpt_rng_below(&rng, (uint32_t)j->m), c = igpt_rng_below(&rng, (uint32_t)j->n), p;
    double sum = 0;
    for (p = 0; p < j->k; p++)
      {
      float a = j->a[r * j->a_row + p * j->a_column], b = j->b[p * j->b_row + c * j->b_column];
      sum += math->round ? (double)igpt__round_bf16(a) * igpt__round_bf16(b) : (double)a * b;
    }
    if (!(fabs(j->c[r * j->n + c] - sum) < 1e-3)) right = 0;
  }
  return right;
}

/* The floor of two workers at once: where a machine's two processors share a core, or a neighbour
   takes half of one, it is not twice that of one. */
/* Waking a worker takes time too, hence the longer loop. */
enum { FLOOR_ROUNDS = 1000, FLOOR_OF_TWO = 8 * FLOOR_ROUNDS };
static void floor_task(void *isa, size_t index, int worker)
{
  (void)index;
  (void)worker;
  bench_floor(*(const igpt_isa *)isa, 1, 0, FLOOR_OF_TWO);
}

static double floor_of_two(igpt_pool *pool, igpt_isa isa)
{
  const igpt_runner runner = igpt_pool_runner(pool);
  double operations = 0, start = bench_clock(0);
  runner.run(runner.user, floor_task, &isa, 2);
  if (!bench_floor_loop(isa, 1, &operations)) return 0;
  return (bench_clock(0) - start) / (2 * operations * FLOOR_OF_TWO);
}

/* bfloat16 on tiles: a table like that of float32, and the sum of all products */
static int on_tiles(igpt_pool *pool, int processor, int repeats, const float *x, const float *dy,
                    const float *w, float *c)
{
  const igpt__amx *amx = igpt__amx_real();
  igpt__math math;
  bench_times floor_now = { { 0 }, 0 };
  double registers = 0, sum_one = 0, sum_two = 0, sum_flops = 0;
  size_t l;
  int product, i, right = 1;
  if (!amx) {
    printf("\namx: skipped: the processor, the system or the compiler has none, or does not permit "
           "it\n");
    return 1;
  }
  for (i = 0; i < 15; i++) bench_note(&floor_now, bench_tiles(processor, 4000));
  registers = bench_median(&floor_now);
  printf("\namx, bfloat16: products of tiles in registers %.0f GFLOP/s (%.0f%%)\n",
         1e-9 / registers, 100 * bench_spread(&floor_now));
  printf("  %-9s %5s %5s %5s  %8s %5s  %7s  %5s   %s\n", "product", "m", "n", "k", "ms", "",
         "GFLOP/s", "floor", pool ? "two workers ms, GFLOP/s" : "");
  memset(&math, 0, sizeof math);
  math.kernels = igpt_kernels_for(IGPT_ISA_AMX);
  math.amx = amx;
  math.round = 1;
  math.worker_floats = igpt__matmul_worker(math.kernels);
  math.shared = (float *)aligned_alloc(64, igpt__amx_shared(2048, 2048, 2048) * 4);
  math.worker = (float *)aligned_alloc(64, 2 * math.worker_floats * 4);
  if (!math.shared || !math.worker) exit(2);
  for (l = 0; l < sizeof layers / sizeof *layers; l++)
    for (product = 0; product < 3; product++) {
      job j = job_of(product, layers[l].in, layers[l].out, x, dy, w, c);
      const double flops = 2.0 * (double)j.m * (double)j.n * (double)j.k;
      bench_times one = { { 0 }, 0 }, both = { { 0 }, 0 };
      double start, t1, t2;
      memset(&math.runner, 0, sizeof math.runner);
      if (!check(&math, &j)) {
        printf("wrong result\n");
        right = 0;
      }
      for (i = 0; i < repeats; i++) {
        memset(&math.runner, 0, sizeof math.runner);
        start = bench_clock(processor);
        run(&math, &j);
        bench_note(&one, bench_clock(processor) - start);
        if (!pool) continue;
        math.runner = igpt_pool_runner(pool);
        start = bench_clock(processor);
        run(&math, &j);
        bench_note(&both, bench_clock(processor) - start);
      }
      t1 = bench_median(&one);
      printf("  %-9s %5d %5d %5d  %8.3f (%2.0f%%) %7.0f  %4.0f%%", products[product], (int)j.m,
             (int)j.n, (int)j.k, 1e3 * t1, 100 * bench_spread(&one), flops / t1 * 1e-9,
             100 * registers * flops / t1);
      if (pool) {
        t2 = bench_median(&both);
        printf("   %8.3f (%2.0f%%) %5.0f", 1e3 * t2, 100 * bench_spread(&both), flops / t2 * 1e-9);
        sum_two += t2;
      }
      printf("\n");
      sum_one += t1;
      sum_flops += flops;
    }
  printf("  all: %.2f ms, %.0f GFLOP/s", 1e3 * sum_one, sum_flops / sum_one * 1e-9);
  if (pool)
    printf("; two workers %.2f ms, %.0f GFLOP/s", 1e3 * sum_two, sum_flops / sum_two * 1e-9);
  printf("\n");
  free(math.shared);
  free(math.worker);
  return right;
}

int main(int argc, char **argv)
{
  int processor = 0, repeats = 15, i, isa, two = 0;
  float *x = numbers((size_t)ROWS * 2048, 1), *dy = numbers((size_t)ROWS * 2048, 2);
  float *w = numbers(512 * 2048, 3), *c = numbers((size_t)ROWS * 2048, 4);
  igpt_pool *pool = NULL;
  for (i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "-p")) processor = 1;
    if (!strcmp(argv[i], "-q")) repeats = 5;
  }
  two = !processor && igpt_pool_create(&pool, 2, NULL) == IGPT_OK;
  bench_machine();
  printf("clock: %s; %d repetitions, alternating; median and (quartile range)\n",
         processor ? "process time" : "wall", repeats);
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++) {
    const igpt_kernels *k = igpt_kernels_for((igpt_isa)isa);
    igpt__math math;
    size_t l;
    int product, slow = isa == IGPT_ISA_GENERIC ? 3 : repeats;
    double registers = 0, memory = 0, operations;
    double sum_floor = 0, sum_one = 0, sum_two = 0, sum_both = 0;
    if (!k || isa == IGPT_ISA_AMX) continue;
    memset(&math, 0, sizeof math);
    math.kernels = k;
    math.worker_floats = igpt__matmul_worker(k);
    math.shared = (float *)aligned_alloc(64, igpt__matmul_shared(k, 2048, 2048) * 4);
    math.worker = (float *)aligned_alloc(64, 2 * math.worker_floats * 4);
    if (!math.shared || !math.worker) return 2;
    if (bench_floor_loop((igpt_isa)isa, 0, &operations)) {
      bench_times r = { { 0 }, 0 }, m = { { 0 }, 0 };
      for (i = 0; i < 15; i++) {
        bench_note(&r, bench_floor((igpt_isa)isa, 0, processor, 4000));
        bench_note(&m, bench_floor((igpt_isa)isa, 1, processor, 4000));
      }
      registers = bench_median(&r);
      memory = bench_median(&m);
      printf("\n%s: multiply-adds in registers %.1f GFLOP/s (%.0f%%), ",
             igpt_isa_name((igpt_isa)isa), 1e-9 / registers, 100 * bench_spread(&r));
      printf("one operand from memory %.1f (%.0f%%)\n", 1e-9 / memory, 100 * bench_spread(&m));
    } else printf("\n%s: no floor is known\n", igpt_isa_name((igpt_isa)isa));
    printf("  %-9s %5s %5s %5s  %8s  %8s %5s  %7s  %5s   %s\n", "product", "m", "n", "k",
           "floor ms", "ms", "", "GFLOP/s", "floor", "two workers ms, times faster, floor");
    for (l = 0; l < sizeof layers / sizeof *layers; l++)
      for (product = 0; product < 3; product++) {
        size_t in = layers[l].in, out = layers[l].out;
        bench_times one = { { 0 }, 0 }, both = { { 0 }, 0 }, floor_now = { { 0 }, 0 };
        bench_times floor_both = { { 0 }, 0 };
        double flops, start, t1, t2 = 0, f, f2 = 0;
        job j = job_of(product, in, out, x, dy, w, c);
        math.runner.run = NULL;
        if (!check(&math, &j)) {
          printf("wrong result\n");
          return 1;
        }
        for (i = 0; i < slow; i++) {
          if (memory > 0)
            bench_note(&floor_now, bench_floor((igpt_isa)isa, 1, processor, FLOOR_ROUNDS));
          memset(&math.runner, 0, sizeof math.runner);
          start = bench_clock(processor);
          run(&math, &j);
          bench_note(&one, bench_clock(processor) - start);
          if (two) {
            math.runner = igpt_pool_runner(pool);
            start = bench_clock(processor);
            run(&math, &j);
            bench_note(&both, bench_clock(processor) - start);
            if (memory > 0) bench_note(&floor_both, floor_of_two(pool, (igpt_isa)isa));
          }
        }
        flops = 2.0 * (double)j.m * (double)j.n * (double)j.k;
        t1 = bench_median(&one);
        f = memory > 0 ? bench_median(&floor_now) * flops : 0;
        if (two) t2 = bench_median(&both);
        if (two && memory > 0) f2 = bench_median(&floor_both) * flops;
        printf("  %-9s %5d %5d %5d  %8.3f  %8.3f (%2.0f%%) %7.1f  %4.0f%%", products[product],
               (int)j.m, (int)j.n, (int)j.k, 1e3 * f, 1e3 * t1, 100 * bench_spread(&one),
               flops / t1 * 1e-9, 100 * f / t1);
        if (two)
          printf("   %8.3f (%2.0f%%) %.2f %4.0f%%", 1e3 * t2, 100 * bench_spread(&both), t1 / t2,
                 100 * f2 / t2);
        printf("\n");
        sum_floor += f;
        sum_one += t1;
        sum_two += t2;
        sum_both += f2;
      }
    printf("  all: %.1f ms, %.0f%% of the floor's speed", 1e3 * sum_one, 100 * sum_floor / sum_one);
    if (two)
      printf("; two workers %.2f times faster, %.0f%% of the speed of two floors",
             sum_one / sum_two, 100 * sum_both / sum_two);
    printf("\n");
    free(math.shared);
    free(math.worker);
  }
  if (!on_tiles(two ? pool : NULL, processor, repeats, x, dy, w, c)) return 1;
  igpt_pool_destroy(pool);
  free(x);
  free(dy);
  free(w);
  free(c);
  return 0;
}
