/* Training steps of three networks: the paper's iGPT-S with 2 pictures of 1024 pixels a step, 12
   layers of width 256 with 4, 8 layers of width 128 with 8. Forward, loss, backward and AdamW with
   one worker, with two, with two while another process keeps one processor busy, in bfloat16 where
   the machine multiplies it, and with the peers that are named. Then pictures of 64 x 64 beside
   those of 32 x 32: memory must grow with the pixels, not with their square. Only if asked for,
   since they take 8 and 22 GB: the paper's iGPT-M and iGPT-L, a picture a step, with `recompute`.
   Before anything is timed, the first loss has to be ln 512.

   The floor: the step's operations at the rate of multiply-adds with one operand from the first
   cache (in bfloat16: of dot products or tiles in registers), on both processors at once, and then
   the 28 bytes that AdamW reads and writes a weight, at the rate at which both read memory. The
   rates are contestants of the race (race.h). All contestants are in memory at once: those of
   iGPT-S take 13 GB, and 8 more with PyTorch in both precisions.

   cc -O2 -I. bench/train.c -o build/bench/train -lm -pthread
   build/bench/train [steps, default 7] [shape 0..5, default -1: 0..3] [peers' commands ...]

   A peer is started with `--paced NAME` behind its command, NAME being S, medium-cpu or small-cpu:
   bench/peers/torch_step.py is one.                                                              */

#define _GNU_SOURCE               /* sched_setaffinity */
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "bench.h"
#include "race.h"

#ifdef __linux__
#include <sched.h>
#include <sys/prctl.h>
#endif

typedef struct network {
  const char *name, *peers_name;
  int layers, heads, width, batch, side, recompute;
} network;

static const network networks[] = {
  { "iGPT-S (24 x 512), batch 2", "S", 24, 8, 512, 2, 32, 0 },
  { "12 x 256, batch 4", "medium-cpu", 12, 8, 256, 4, 32, 0 },
  { "8 x 128, batch 8", "small-cpu", 8, 4, 128, 8, 32, 0 }
};
static const network sizes[] = {                   /* 1024 and 4096 pixels */
  { "12 x 256, batch 1, 32 x 32", NULL, 12, 8, 256, 1, 32, 0 },
  { "12 x 256, batch 1, 64 x 64", NULL, 12, 8, 256, 1, 64, 0 }
};
static const network large[] = {
  { "iGPT-M (36 x 1024), batch 1", NULL, 36, 8, 1024, 1, 32, 1 },
  { "iGPT-L (48 x 1536), batch 1", NULL, 48, 16, 1536, 1, 32, 1 }
};
enum { NETWORKS = 3, SHAPES = 6 };     /* the networks, the sizes, the two large ones */

#define CHECKED(call)                                                                             \
  do {                                                                                            \
    igpt_result result = (call);                                                                  \
    if (result) {                                                                                 \
      fprintf(stderr, "bench/train: %s: %s\n", #call, igpt_error_string(result));                 \
      exit(1);                                                                                    \
    }                                                                                             \
  } while (0)

static igpt_config config_of(const network *n)
{
  igpt_config config = { 0 };
  config.layers = n->layers;
  config.heads = n->heads;
  config.width = n->width;
  config.rows = config.columns = n->side;
  return config;
}

static igpt_session_desc work_of(const network *n, igpt_precision precision)
{
  igpt_session_desc work = { 0 };
  work.batch = n->batch;
  work.train = 1;
  work.no_cache = 1;
  work.recompute = n->recompute;
  work.precision = precision;
  return work;
}

static void no_run(void *user, igpt_task *task, void *arg, size_t count)
{
  (void)user;
  (void)task;
  (void)arg;
  (void)count;
}

/* With two workers, who have a buffer each */
static igpt_plan plan_of(const network *n, igpt_precision precision)
{
  const igpt_config config = config_of(n);
  igpt_session_desc work = work_of(n, precision);
  igpt_plan plan;
  work.runner.run = no_run;
  work.runner.workers = 2;
  CHECKED(igpt_plan_make(&plan, &config, &work));
  return plan;
}

/* ---- the contestants ------------------------------------------------------------------------- */

typedef struct entry {
  const network *network;
  igpt_precision precision;
  int workers;
  int crowded;                    /* another process is busy on the first processor */
} entry;

typedef struct training {
  igpt_session *session;
  igpt_model *model;
  igpt_batch batch;
  pid_t neighbour;                /* 0: none */
} training;

static void train_once(training *t)
{
  igpt_adam_desc adam = { 0 };
  igpt_losses losses;
  adam.rate = 1e-4f;
  CHECKED(igpt_backward(t->session, &losses, &t->batch, NULL));
  CHECKED(igpt_step(t->session, t->model, NULL, &adam));
}

static void step(void *arg)
{
  training *t = (training *)arg;
  if (t->neighbour) kill(t->neighbour, SIGCONT);
  train_once(t);
  if (t->neighbour) kill(t->neighbour, SIGSTOP);
}

/* A process that multiplies and adds as fast as it can whenever it is not stopped */
static pid_t neighbour_start(void)
{
  const pid_t process = fork();
  int status;
  if (process < 0) exit(1);
  if (process == 0) {
#ifdef __linux__
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof first, &first);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    raise(SIGSTOP);
    for (;;) bench_floor(igpt_isa_best(), 1, 0, 1000);
  }
  waitpid(process, &status, WUNTRACED);
  return process;
}

static void train(const void *arg)
{
  const entry *e = (const entry *)arg;
  const size_t pixels = (size_t)(e->network->batch * e->network->side * e->network->side);
  igpt_model_desc desc = { 0 };
  igpt_session_desc work = work_of(e->network, e->precision);
  igpt_rng rng = igpt_rng_seed(1, 0);
  igpt_pool *pool;
  igpt_losses losses;
  training t;
  char name[100];
  size_t i;
  uint16_t *tokens = (uint16_t *)malloc(pixels * sizeof *tokens);
  if (!tokens) exit(1);
  for (i = 0; i < pixels; i++) tokens[i] = (uint16_t)igpt_rng_below(&rng, 512);
  memset(&t, 0, sizeof t);
  t.neighbour = e->crowded ? neighbour_start() : 0;
  t.batch.tokens = tokens;
  t.batch.count = (size_t)e->network->batch;
  desc.config = config_of(e->network);
  CHECKED(igpt_model_create(&t.model, &desc));
  CHECKED(igpt_pool_create(&pool, e->workers, NULL));
  work.runner = igpt_pool_runner(pool);
  CHECKED(igpt_session_create(&t.session, t.model, &work));
  CHECKED(igpt_nll(t.session, NULL, &losses.generative, &t.batch));
  if (losses.generative < 6.2383 || losses.generative > 6.2384) {
    fprintf(stderr, "bench/train: the first loss is %g, not ln 512\n", losses.generative);
    exit(1);
  }
  train_once(&t);
  snprintf(name, sizeof name, "igpt.h, %s, %s, %d worker%s%s",
           e->precision == IGPT_BF16 ? "bfloat16" : "float32",
           igpt_isa_name(igpt_session_resolved(t.session)->isa), e->workers,
           e->workers > 1 ? "s" : "", e->crowded ? ", a busy neighbour" : "");
  race_run(name, step, &t);
  if (t.neighbour) kill(t.neighbour, SIGKILL);
  igpt_session_destroy(t.session);
  igpt_model_destroy(t.model);
  igpt_pool_destroy(pool);
  free(tokens);
}

/* ---- the machine's rates --------------------------------------------------------------------- */

typedef enum rate { MULTIPLY_ADDS, READING, HALVES } rate;

static void multiply_adds(void *pool) { bench_pair((igpt_pool *)pool, igpt_isa_best()); }
static void reading(void *array) { bench_read((bench_array *)array); }
static void halves(void *pool) { bench_pair((igpt_pool *)pool, bench_bf16()); }

static void measure(const void *which)
{
  static void (*const steps[])(void *arg) = { multiply_adds, reading, halves };
  igpt_pool *pool;
  bench_array array;
  void *arg;
  CHECKED(igpt_pool_create(&pool, 2, NULL));
  arg = pool;
  if (*(const rate *)which == READING) {
    array = bench_array_of(BENCH_LARGE, igpt_pool_runner(pool));
    arg = &array;
  }
  steps[*(const rate *)which](arg);
  race_run("a rate of the machine", steps[*(const rate *)which], arg);
  igpt_pool_destroy(pool);
}

/* Seconds of the floor, by the times of the lanes that measured the rates; 0 if bench.h has no loop
   for this processor */
static double floor_of(const network *n, race_lane *rates, igpt_precision precision)
{
  const igpt_plan plan = plan_of(n, precision);
  const int bf16 = precision == IGPT_BF16;
  const double operations = bench_pair_operations(bf16 ? bench_bf16() : igpt_isa_best());
  const double operation = bench_median(&rates[bf16 ? HALVES : MULTIPLY_ADDS].times) / operations;
  const double byte = bench_median(&rates[READING].times) / BENCH_LARGE;
  const double products = plan.train_flops * n->batch * operation;
  const double adam = 28 * (double)plan.parameters * byte;
  printf("  %s: planned %.2f GB; ", bf16 ? "bfloat16" : "float32",
         (double)(plan.model_bytes + plan.session_bytes) * 1e-9);
  if (!(operations > 0)) {
    printf("no floor is known\n");
    return 0;
  }
  printf("floor %.0f ms at %.0f GFLOP/s + %.0f ms at %.1f GB/s\n", 1e3 * products,
         1e-9 / operation, 1e3 * adam, 1e-9 / byte);
  return products + adam;
}

/* ---- the races ------------------------------------------------------------------------------- */

static double show(const network *n, race_lane *lane)
{
  const double pixels = (double)(n->batch * n->side * n->side), median = bench_median(&lane->times);
  printf("  %-52s %6.0f tokens/s (%.0f to %.0f) %6.1f GFLOP/s, peak %.2f GB", lane->name,
         pixels / median, pixels / lane->times.second[lane->times.count - 1],
         pixels / lane->times.second[0],
         1e-9 * plan_of(n, IGPT_F32).train_flops * n->batch / median, lane->peak * 1e-9);
  return median;
}

static void race(const network *n, int steps, char **peers, int peer_count)
{
  static const rate rates[] = { MULTIPLY_ADDS, READING, HALVES };
  static const struct { int workers, crowded; } ways[] = { { 1, 0 }, { 2, 0 }, { 2, 1 } };
  enum { WAYS = 3, MOST_LANES = 16 };
  const int bf16 = bench_bf16() != IGPT_ISA_AUTO, precisions = bf16 ? 2 : 1;
  const int measured = bf16 ? 3 : 2;
  race_lane lanes[MOST_LANES];
  int count = 0, p, i;
  for (i = 0; i < measured; i++) race_enter(lanes, count++, measure, &rates[i], NULL);
  for (p = 0; p < precisions; p++)
    for (i = 0; i < WAYS; i++) {
      entry e;
      e.network = n;
      e.precision = (igpt_precision)p;
      e.workers = ways[i].workers;
      e.crowded = ways[i].crowded;
      race_enter(lanes, count++, train, &e, NULL);
    }
  for (i = 0; i < peer_count && count < MOST_LANES; i++) {
    char command[1000];
    snprintf(command, sizeof command, "exec %s --paced %s", peers[i], n->peers_name);
    race_enter(lanes, count++, NULL, NULL, command);
  }
  race_turns(lanes, count, steps);
  race_end(lanes, count);

  printf("%s\n", n->name);
  for (p = 0; p < precisions; p++) {
    race_lane *ours = &lanes[measured + p * WAYS];
    const double floor_time = floor_of(n, lanes, (igpt_precision)p);
    const double one = show(n, &ours[0]);
    double two, crowded;
    printf("\n");
    two = show(n, &ours[1]);
    if (floor_time > 0) printf(", %.0f%% of the floor", 100 * floor_time / two);
    printf(", x%.2f of one worker\n", one / two);
    crowded = show(n, &ours[2]);
    printf(", %.2f times slower than alone\n", crowded / two);
  }
  if (!bf16) printf("  " BENCH_NO_BF16);
  for (i = measured + precisions * WAYS; i < count; i++) {
    show(n, &lanes[i]);
    race_compare(&lanes[i], &lanes[measured + 1], bf16 ? &lanes[measured + WAYS + 1] : NULL);
  }
}

/* `count` networks with two workers, in bfloat16 if the machine multiplies it; speed[i] in FLOPs
   a second, planned[i] in bytes */
static void race_of_ours(const network *n, int count, int steps, race_lane *lanes, double *speed,
                         double *planned)
{
  const igpt_precision precision = bench_bf16() != IGPT_ISA_AUTO ? IGPT_BF16 : IGPT_F32;
  int i;
  for (i = 0; i < count; i++) {
    entry e;
    e.network = &n[i];
    e.precision = precision;
    e.workers = 2;
    e.crowded = 0;
    race_enter(lanes, i, train, &e, NULL);
  }
  race_turns(lanes, count, steps);
  race_end(lanes, count);
  for (i = 0; i < count; i++) {
    const igpt_plan plan = plan_of(&n[i], precision);
    planned[i] = (double)(plan.model_bytes + plan.session_bytes);
    printf("%s\n", n[i].name);
    speed[i] = plan.train_flops / show(&n[i], &lanes[i]);
    printf(", planned %.2f GB\n", planned[i] * 1e-9);
  }
}

/* Pictures of 64 x 64 beside those of 32 x 32 */
static void race_of_sizes(int steps)
{
  race_lane lanes[2];
  double planned[2], speed[2];
  race_of_ours(sizes, 2, steps, lanes, speed, planned);
  printf("  4 times the pixels: memory x%.2f planned, x%.2f at the peak; GFLOP/s x%.2f\n",
         planned[1] / planned[0], lanes[1].peak / lanes[0].peak, speed[1] / speed[0]);
}

static void race_of_one(const network *n, int steps)
{
  race_lane lane;
  double planned, speed;
  race_of_ours(n, 1, steps, &lane, &speed, &planned);
}

int main(int argc, char **argv)
{
  const int steps = argc > 1 ? atoi(argv[1]) : 7, only = argc > 2 ? atoi(argv[2]) : -1;
  int i;
  if (steps < 1 || steps > BENCH_MOST || only >= SHAPES) {
    fprintf(stderr, "bench/train [steps 1..%d] [shape 0..%d, -1: 0..%d] [peers' commands ...]\n",
            (int)BENCH_MOST, SHAPES - 1, (int)NETWORKS);
    return 1;
  }
  bench_machine();
  printf("median of %d steps in turn (slowest to fastest)\n", steps);
  for (i = 0; i < NETWORKS; i++)
    if (only < 0 || i == only) race(&networks[i], steps, argv + 3, argc > 3 ? argc - 3 : 0);
  if (only < 0 || only == NETWORKS) race_of_sizes(steps);
  if (only > NETWORKS) race_of_one(&large[only - NETWORKS - 1], steps);
  return 0;
}
