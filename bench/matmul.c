/* Linear layers of iGPT-S (1024 positions of width 512): the three products of training, in
   float32, beside the time that the same multiply-adds take when one operand of each comes from the
   first cache; and in bfloat16, beside what AMX's tiles do in registers, or dot products.

   cc -O2 -I. bench/matmul.c -o build/bench/matmul -lm -pthread
   build/bench/matmul [-p] [-q]      -p: time of the process instead of the wall (one worker only)
                                     -q: quick, 5 repetitions instead of 15
   build/bench/matmul --race [peers' commands ...]      all twelve products, two workers, in turn
                                     with peers such as bench/peers/products.py (see race.h)

   In float32 operands are plain matrices, which peers get too, and packing them is timed. In
   bfloat16 ours are packed before, as a training step has them: weights by AdamW, rows by whoever
   made them. Peers get plain matrices of bfloat16, and may do with them what they like.          */

#define _POSIX_C_SOURCE 200809L
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "bench.h"
#include "race.h"

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
    for (p = 0; p < j->k; p++) {
      float a = j->a[r * j->a_row + p * j->a_column], b = j->b[p * j->b_row + c * j->b_column];
      sum += math->round ? (double)igpt__round_bf16(a) * igpt__round_bf16(b) : (double)a * b;
    }
    if (!(fabs(j->c[r * j->n + c] - sum) < 1e-3)) right = 0;
  }
  return right;
}

enum { FLOOR_ROUNDS = 1000 };

/* Seconds of an operation while two workers do them */
static double floor_of_two(igpt_pool *pool, igpt_isa isa)
{
  const double start = bench_clock(0);
  bench_pair(pool, isa);
  return (bench_clock(0) - start) / bench_pair_operations(isa);
}

/* ---- bfloat16 on tiles ----------------------------------------------------------------------- */

/* A layer as training sessions have it when the tasks between two attentions begin: rows of
   bfloat16, weights packed, X turned by whoever made it. */
typedef struct tile_layer {
  const igpt__math *math;
  size_t in, out;
  uint16_t *x, *dy, *y, *dx, *w, *wt, *xt;
  float *dw;
  int product;                    /* whose turn it is */
} tile_layer;

enum { SHARE = 128 };             /* rows of a task */

static uint16_t *halves(size_t n)
{
  uint16_t *h = (uint16_t *)aligned_alloc(64, (2 * n + 63) / 64 * 64);
  if (!h) exit(2);
  memset(h, 0, 2 * n);
  return h;
}

static uint16_t *rows_of(const float *x, size_t columns)
{
  uint16_t *h = halves(ROWS * igpt__row(columns));
  size_t i;
  for (i = 0; x && i < ROWS; i++)
    igpt_kernels_for(IGPT_ISA_GENERIC)->halve(h + i * igpt__row(columns), x + i * columns, columns);
  return h;
}

static tile_layer tile_layer_of(const igpt__math *math, size_t in, size_t out, const float *x,
                                const float *dy, const float *w)
{
  tile_layer l;
  memset(&l, 0, sizeof l);
  l.math = math;
  l.in = in;
  l.out = out;
  l.x = rows_of(x, in);
  l.dy = rows_of(dy, out);
  l.y = rows_of(NULL, out);
  l.dx = rows_of(NULL, in);
  l.w = halves(in * out);
  l.wt = halves(in * out);
  l.xt = halves(in * ROWS);
  l.dw = (float *)aligned_alloc(64, in * out * sizeof(float));
  if (!l.dw) exit(2);
  math->tiles->pack(l.w, w, 1, out, out, in, 1);
  math->tiles->pack(l.wt, w, out, 1, in, out, 1);
  math->tiles->fold(l.xt, l.x, 1, igpt__row(in), in, ROWS, 0);
  return l;
}

static void tile_layer_free(tile_layer *l)
{
  free(l->x);
  free(l->dy);
  free(l->y);
  free(l->dx);
  free(l->w);
  free(l->wt);
  free(l->xt);
  free(l->dw);
}

static void tile_task(void *arg, size_t index, int worker)
{
  const tile_layer *l = (const tile_layer *)arg;
  const size_t from = l->product ? l->out : l->in, to = l->product ? l->in : l->out;
  if (l->product == 2)
    igpt__tile_gradient(l->math, l->dw, l->xt, ROWS, l->dy, l->in, l->out, ROWS, index, worker);
  else {
    igpt__tiled product = igpt__tiled_of(SHARE, to, from, (l->product ? l->dy : l->x) +
                                         index * SHARE * igpt__row(from), igpt__row(from),
                                         l->product ? l->wt : l->w, IGPT__TO_HALVES);
    product.ldh = igpt__row(to);
    product.h = (l->product ? l->dx : l->y) + index * SHARE * product.ldh;
    l->math->tiles->multiply(&product);
  }
}

static void run_layer(tile_layer *l, int product)
{
  l->product = product;
  igpt__run(&l->math->runner, tile_task, l,
            product == 2 ? igpt__tile_blocks(l->in, l->out) : ROWS / SHARE);
}

/* 1 if 500 elements agree with float64 of what was rounded */
static int check_layer(tile_layer *l, int product, const float *w)
{
  igpt_rng rng = igpt_rng_seed(2, 0);
  const size_t m = product == 2 ? l->in : ROWS, n = product == 1 ? l->in : l->out;
  int i, right = 1;
  memset(l->dw, 0, l->in * l->out * sizeof(float));
  run_layer(l, product);
  for (i = 0; i < 500; i++) {
    const size_t r = igpt_rng_below(&rng, (uint32_t)m), c = igpt_rng_below(&rng, (uint32_t)n);
    const size_t in = igpt__row(l->in), out = igpt__row(l->out);
    double sum = 0, got;
    size_t p;
    if (product == 0) {
      for (p = 0; p < l->in; p++)
        sum += (double)igpt__widen(l->x[r * in + p]) * igpt__round_bf16(w[p * l->out + c]);
      got = igpt__widen(l->y[r * out + c]);
    } else if (product == 1) {
      for (p = 0; p < l->out; p++)
        sum += (double)igpt__widen(l->dy[r * out + p]) * igpt__round_bf16(w[c * l->out + p]);
      got = igpt__widen(l->dx[r * in + c]);
    } else {
      for (p = 0; p < ROWS; p++)
        sum += (double)igpt__widen(l->x[p * in + r]) * igpt__widen(l->dy[p * out + c]);
      got = l->dw[r * l->out + c];
    }
    if (!(fabs(got - sum) < 4e-3 * fabs(sum) + 1e-3)) right = 0;
  }
  return right;
}

static void math_of_tiles(igpt__math *math, int workers)
{
  memset(math, 0, sizeof *math);
  math->kernels = igpt_kernels_for(bench_bf16());
  math->tiles = igpt__tiles_of(bench_bf16());
  math->round = 1;
  math->worker_floats = igpt__tile_floats(512);
  math->worker = (float *)aligned_alloc(64, (size_t)workers * math->worker_floats * 4);
  if (!math->worker) exit(2);
}

/* A table like that of float32, and the sum of all products */
static int on_tiles(igpt_pool *pool, int processor, int repeats, const float *x, const float *dy,
                    const float *w)
{
  igpt__math math;
  double sum_one = 0, sum_two = 0, sum_flops = 0, sum_floor = 0, sum_both = 0;
  size_t l;
  int product, i, right = 1;
  if (bench_bf16() == IGPT_ISA_AUTO) {
    printf("\n" BENCH_NO_BF16);
    return 1;
  }
  printf("\n%s, bfloat16; the floor: %s, in turn with the others\n", igpt_isa_name(bench_bf16()),
         bench_bf16() == IGPT_ISA_AMX ? "products of tiles in registers"
                                      : "dot products in registers");
  printf("  %-9s %5s %5s %5s  %8s %5s  %7s  %5s   %s\n", "product", "m", "n", "k", "ms", "",
         "GFLOP/s", "floor", pool ? "two workers ms, GFLOP/s, floor" : "");
  math_of_tiles(&math, 2);
  for (l = 0; l < sizeof layers / sizeof *layers; l++) {
    tile_layer t = tile_layer_of(&math, layers[l].in, layers[l].out, x, dy, w);
    for (product = 0; product < 3; product++) {
      const job j = job_of(product, t.in, t.out, x, dy, w, NULL);
      const double flops = 2.0 * (double)j.m * (double)j.n * (double)j.k;
      bench_times one = { { 0 }, 0 }, both = { { 0 }, 0 };
      bench_times floor_now = { { 0 }, 0 }, floor_both = { { 0 }, 0 };
      double start, t1, t2, f;
      memset(&math.runner, 0, sizeof math.runner);
      if (!check_layer(&t, product, w)) {
        printf("wrong result\n");
        right = 0;
      }
      for (i = 0; i < repeats; i++) {
        memset(&math.runner, 0, sizeof math.runner);
        bench_note(&floor_now, bench_operation(bench_bf16(), processor, 2000));
        start = bench_clock(processor);
        run_layer(&t, product);
        bench_note(&one, bench_clock(processor) - start);
        if (!pool) continue;
        math.runner = igpt_pool_runner(pool);
        start = bench_clock(processor);
        run_layer(&t, product);
        bench_note(&both, bench_clock(processor) - start);
        bench_note(&floor_both, floor_of_two(pool, bench_bf16()));
      }
      t1 = bench_median(&one);
      f = bench_median(&floor_now) * flops;
      printf("  %-9s %5d %5d %5d  %8.3f (%2.0f%%) %7.0f  %4.0f%%", products[product], (int)j.m,
             (int)j.n, (int)j.k, 1e3 * t1, 100 * bench_spread(&one), flops / t1 * 1e-9,
             100 * f / t1);
      if (pool) {
        t2 = bench_median(&both);
        printf("   %8.3f (%2.0f%%) %5.0f %4.0f%%", 1e3 * t2, 100 * bench_spread(&both),
               flops / t2 * 1e-9, 100 * bench_median(&floor_both) * flops / t2);
        sum_two += t2;
        sum_both += bench_median(&floor_both) * flops;
      }
      printf("\n");
      sum_one += t1;
      sum_floor += f;
      sum_flops += flops;
    }
    tile_layer_free(&t);
  }
  printf("  all: %.2f ms, %.0f GFLOP/s, %.0f%% of the floor's speed", 1e3 * sum_one,
         sum_flops / sum_one * 1e-9, 100 * sum_floor / sum_one);
  if (pool)
    printf("; two workers %.2f ms, %.0f GFLOP/s, %.0f%% of two floors", 1e3 * sum_two,
           sum_flops / sum_two * 1e-9, 100 * sum_both / sum_two);
  printf("\n");
  free(math.worker);
  return right;
}

/* ---- beside other libraries ------------------------------------------------------------------ */

enum { PRODUCTS = 12 };

typedef struct turn {
  igpt__math math;
  job jobs[PRODUCTS];
  tile_layer layers[PRODUCTS / 3];
} turn;

static void take_turn(void *arg)
{
  turn *t = (turn *)arg;
  int i;
  for (i = 0; i < PRODUCTS; i++)
    if (t->math.tiles) run_layer(&t->layers[i / 3], i % 3);
    else run(&t->math, &t->jobs[i]);
}

static void contestant(int tiles)
{
  const igpt_isa isa = tiles ? bench_bf16() : igpt_isa_best();
  igpt_pool *pool;
  char name[60];
  const float *x = NULL, *dy = NULL, *w = NULL;
  turn t;
  int i;
  memset(&t, 0, sizeof t);
  if (igpt_pool_create(&pool, 2, NULL)) exit(1);
  if (tiles) math_of_tiles(&t.math, 2);
  else {
    t.math.kernels = igpt_kernels_for(isa);
    t.math.worker_floats = igpt__matmul_worker(t.math.kernels, 2048, 2048);
    t.math.shared = (float *)aligned_alloc(
      64, igpt__matmul_shared(t.math.kernels, 2048, 2048) * sizeof(float));
    t.math.worker = (float *)aligned_alloc(64, 2 * t.math.worker_floats * sizeof(float));
    if (!t.math.shared || !t.math.worker) exit(1);
  }
  t.math.runner = igpt_pool_runner(pool);
  for (i = 0; i < PRODUCTS; i++) {              /* each layer has its own operands, as in training */
    const size_t in = layers[i / 3].in, out = layers[i / 3].out;
    const size_t results[] = { ROWS * out, ROWS * in, in * out };
    if (i % 3 == 0) {
      x = numbers(ROWS * in, 1);
      dy = numbers(ROWS * out, 2);
      w = numbers(in * out, 3);
      if (tiles) t.layers[i / 3] = tile_layer_of(&t.math, in, out, x, dy, w);
    }
    if (tiles) {
      if (!check_layer(&t.layers[i / 3], i % 3, w)) exit(1);
    } else {
      t.jobs[i] = job_of(i % 3, in, out, x, dy, w, numbers(results[i % 3], 4));
      if (!check(&t.math, &t.jobs[i])) exit(1);
    }
  }
  snprintf(name, sizeof name, "igpt.h, %s, %s, 2 workers", igpt_isa_name(isa),
           tiles ? "bfloat16 (packed already)" : "float32");
  race_run(name, take_turn, &t);
}

static void in_float32(const void *arg) { (void)arg; contestant(0); }
static void in_bfloat16(const void *arg) { (void)arg; contestant(1); }

static void race(char **peers, int count)
{
  static void (*const own[])(const void *arg) = { in_float32, in_bfloat16 };
  double operations = 0;
  size_t l;
  for (l = 0; l < sizeof layers / sizeof *layers; l++)
    operations += 3.0 * 2 * ROWS * (double)layers[l].in * (double)layers[l].out;
  bench_machine();
  race_peers(own, bench_bf16() != IGPT_ISA_AUTO ? 2 : 1, peers, count, "products", 15, operations);
}

int main(int argc, char **argv)
{
  int processor = 0, repeats = 15, i, isa, two = 0;
  float *x = numbers((size_t)ROWS * 2048, 1), *dy = numbers((size_t)ROWS * 2048, 2);
  float *w = numbers(512 * 2048, 3), *c = numbers((size_t)ROWS * 2048, 4);
  igpt_pool *pool = NULL;
  if (argc > 1 && !strcmp(argv[1], "--race")) {
    race(argv + 2, argc - 2);
    return 0;
  }
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
    if (!k || igpt__tiles_isa((igpt_isa)isa)) continue;
    memset(&math, 0, sizeof math);
    math.kernels = k;
    math.worker_floats = igpt__matmul_worker(k, 2048, 2048);
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
  if (!on_tiles(two ? pool : NULL, processor, repeats, x, dy, w)) return 1;
  igpt_pool_destroy(pool);
  free(x);
  free(dy);
  free(w);
  free(c);
  return 0;
}
