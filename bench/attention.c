/* Attention of the paper's S (T = 1024, 8 heads of width 64, causal) and of other widths and
   lengths: forward and backward in float32, beside the time that the multiply-adds below the
   diagonal take when one operand of each comes from the first cache. Forward 2, backward 5 products
   of T x T x E numbers a head, half of each being skipped.

   cc -O2 -I. bench/attention.c -o build/bench/attention -lm -pthread
   build/bench/attention [-q]        -q: quick, 5 repetitions instead of 11                       */

#define _POSIX_C_SOURCE 200809L
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "bench.h"

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

int main(int argc, char **argv)
{
  const int repeats = argc > 1 && !strcmp(argv[1], "-q") ? 5 : 11;
  size_t most = 4096 * 3 * 1024, s;
  float *qkv = numbers(most, 1), *dout = numbers(most / 3, 2), *out = numbers(most / 3, 3);
  float *dqkv = numbers(most, 4), *lse = numbers(1 << 16, 5);
  igpt_pool *pool = NULL;
  int isa, i;
  if (igpt_pool_create(&pool, 2, NULL)) return 2;
  bench_machine();
  printf("float32, causal; %d repetitions, alternating; median and (quartile range)\n", repeats);
  for (isa = IGPT_ISA_AVX2; isa < IGPT_ISA_COUNT; isa++) {
    const igpt_kernels *k = igpt_kernels_for((igpt_isa)isa);
    igpt__math math;
    double operations;
    if (!k) continue;
    memset(&math, 0, sizeof math);
    math.kernels = k;
    math.worker_floats = igpt__attention_worker(k, 4096, 96);
    math.worker = (float *)aligned_alloc(64, 2 * math.worker_floats * 4);
    if (!math.worker) return 2;
    printf("\n%s\n  %5s %3s %3s   %22s %9s %6s   %22s %9s %6s   %s\n", igpt_isa_name((igpt_isa)isa),
           "T", "H", "E", "forward ms", "GFLOP/s", "floor", "forward, backward ms", "GFLOP/s",
           "floor", "two workers ms, times faster");
    for (s = 0; s < sizeof shapes / sizeof *shapes; s++) {
      const size_t T = shapes[s].T, H = shapes[s].H, E = shapes[s].E;
      const double product = (double)H * (double)T * (double)T * (double)E;    /* its causal half */
      bench_times floor_now = { { 0 }, 0 }, forward = { { 0 }, 0 }, step = { { 0 }, 0 };
      bench_times both = { { 0 }, 0 };
      double f, one, all, two;
      for (i = 0; i < repeats; i++) {
        double start, middle;
        if (bench_floor_loop((igpt_isa)isa, 1, &operations))
          bench_note(&floor_now, bench_floor((igpt_isa)isa, 1, 0, 2000));
        memset(&math.runner, 0, sizeof math.runner);
        start = bench_clock(0);
        igpt__attention_forward(&math, out, lse, qkv, 1, T, H, E, 1);
        middle = bench_clock(0);
        igpt__attention_backward(&math, dqkv, dout, out, qkv, lse, 1, T, H, E, 1);
        bench_note(&step, bench_clock(0) - start);
        bench_note(&forward, middle - start);
        math.runner = igpt_pool_runner(pool);
        start = bench_clock(0);
        igpt__attention_forward(&math, out, lse, qkv, 1, T, H, E, 1);
        igpt__attention_backward(&math, dqkv, dout, out, qkv, lse, 1, T, H, E, 1);
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
  igpt_pool_destroy(pool);
  free(qkv);
  free(dout);
  free(out);
  free(dqkv);
  free(lse);
  return 0;
}
