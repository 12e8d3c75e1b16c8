/* Sampling iGPT-S with its cache, token after token, with weights of float32, bfloat16 and int8,
   one worker and two, beside the peers that are named. The speed of sampling is that of memory:
   every token reads all weights once, for however many pictures, and the keys and values of what is
   there. The floor is the time to read as many bytes again and again, with as many workers; where
   the last cache holds them, memory alone would take longer, which is printed too. All take turns
   (race.h), a turn being an eighth of the tokens. Before anything is timed, logits decoded must be
   those of the full pass.

   cc -O2 -I. bench/sample.c -o build/bench/sample -lm -pthread
   build/bench/sample [batch, default 1] [tokens, default 1024: all] [peers' commands ...]

   A peer is started with `--paced BATCH:TOKENS` behind its command: bench/peers/torch_sample.py is
   one. A step of its is an eighth of the tokens.                                                 */

#define _GNU_SOURCE               /* huge pages */
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "bench.h"
#include "race.h"

enum { TURNS = 8, POSITIONS = 1024, PRECISIONS = 3, WORKERS = 2, MOST_LANES = 32 };

static const char *const precision_name[] = { "float32", "bfloat16", "int8" };

typedef struct entry {
  int batch, tokens;
  igpt_precision precision;
  int workers;
  size_t bytes;                   /* lanes that read */
} entry;

#define CHECKED(call)                                                                             \
  do {                                                                                            \
    igpt_result result = (call);                                                                  \
    if (result) {                                                                                 \
      fprintf(stderr, "bench/sample: %s: %s\n", #call, igpt_error_string(result));                \
      exit(1);                                                                                    \
    }                                                                                             \
  } while (0)

static void *need(size_t bytes)
{
  void *block = calloc(bytes, 1);
  if (!block) exit(2);
  return block;
}

static igpt_pool *pool_of(int workers)
{
  igpt_pool *pool;
  CHECKED(igpt_pool_create(&pool, workers, NULL));
  return pool;
}

/* ---- ours ------------------------------------------------------------------------------------ */

typedef struct sampling {
  igpt_session *session;
  uint16_t *chosen;               /* at the position before */
  float *logits;
  int batch, tokens, position;
} sampling;

static void next_token(sampling *s)
{
  igpt_sample_desc how = { 0 };
  int b;
  CHECKED(igpt_decode(s->session, s->logits, s->chosen));
  for (b = 0; b < s->batch; b++) {
    igpt_rng rng = igpt_rng_seed(1, (uint64_t)b);
    rng.index = (uint64_t)s->position;
    s->chosen[b] = (uint16_t)igpt_draw(&rng, s->logits + b * 512, 512, &how);
  }
  s->position++;
}

static void sample_turn(void *arg)
{
  sampling *s = (sampling *)arg;
  int i;
  for (i = 0; i < s->tokens / TURNS; i++) next_token(s);
}

/* The logits of a picture's first tokens by decoding and by the full pass, which goes through tiles
   where the machine has them: those round once more. */
static void check(igpt_session *session, float tolerance)
{
  enum { FIRST = 70 };            /* into the second block of keys */
  uint16_t *tokens = (uint16_t *)need(POSITIONS * sizeof *tokens);
  float *all = (float *)need(POSITIONS * 512 * sizeof *all), one[512];
  igpt_batch batch = { 0 };
  igpt_rng rng = igpt_rng_seed(2, 0);
  int i, j;
  for (i = 0; i < POSITIONS; i++) tokens[i] = (uint16_t)igpt_rng_below(&rng, 512);
  batch.tokens = tokens;
  batch.count = 1;
  CHECKED(igpt_forward(session, all, &batch));
  CHECKED(igpt_decode_begin(session, NULL, 0, 1));
  for (i = 0; i < FIRST; i++) {
    double error = 0, size = 0;
    CHECKED(igpt_decode(session, one, i ? tokens + i - 1 : NULL));
    for (j = 0; j < 512; j++) {
      const double d = (double)one[j] - (double)all[i * 512 + j];
      error += d * d;
      size += (double)one[j] * (double)one[j];
    }
    if (!(sqrt(error) <= (double)tolerance * sqrt(size)) || !(size > 1)) {
      fprintf(stderr, "bench/sample: position %d differs from the full pass: %g of %g\n", i,
              sqrt(error), sqrt(size));
      exit(1);
    }
  }
  free(tokens);
  free(all);
}

static void sample(const void *arg)
{
  const entry *e = (const entry *)arg;
  igpt_model_desc shape = { 0 };
  igpt_session_desc work = { 0 };
  igpt_model *model;
  igpt_tensor head;
  igpt_rng rng = igpt_rng_seed(3, 0);
  igpt_pool *pool = pool_of(e->workers);
  sampling s;
  char name[100];
  size_t i;
  CHECKED(igpt_config_preset(&shape.config, "S"));
  CHECKED(igpt_model_create(&model, &shape));
  CHECKED(igpt_model_tensor(model, &head, "lm_head.weight"));
  for (i = 0; i < head.count; i++) head.data[i] = 0.02f * igpt_rng_normal(&rng);
  work.batch = e->batch;
  work.precision = e->precision;
  work.runner = igpt_pool_runner(pool);
  memset(&s, 0, sizeof s);
  s.batch = e->batch;
  s.tokens = e->tokens;
  s.chosen = (uint16_t *)need((size_t)e->batch * sizeof *s.chosen);
  s.logits = (float *)need((size_t)e->batch * 512 * sizeof *s.logits);
  CHECKED(igpt_session_create(&s.session, model, &work));
  check(s.session, e->precision == IGPT_F32 ? 1e-6f : 2e-2f);
  CHECKED(igpt_decode_begin(s.session, NULL, 0, s.batch));
  snprintf(name, sizeof name, "igpt.h, %s, %s, %d worker%s", precision_name[e->precision],
           igpt_isa_name(igpt_session_resolved(s.session)->isa), e->workers,
           e->workers > 1 ? "s" : "");
  race_run(name, sample_turn, &s);
}

/* ---- the floor ------------------------------------------------------------------------------- */

/* Bytes of the weights that a token reads, and of keys and values on the average over the tokens */
static size_t bytes_of(const entry *e)
{
  static const size_t weight[] = { 4, 2, 1 }, cached[] = { 4, 2, 2 };
  const size_t matrices = 24 * 12 * 512 * 512 + 512 * 512;
  return weight[e->precision] * matrices +
         cached[e->precision] * 24 * 2 * 512 * (size_t)(e->batch * (e->tokens + 1)) / 2;
}

/* So many times that a turn reads 1 GB */
typedef struct reader { bench_array array; int times; } reader;

static int times_of(size_t bytes) { return (int)(((size_t)1 << 30) / bytes) + 1; }

static void read_turn(void *arg)
{
  reader *r = (reader *)arg;
  int i;
  for (i = 0; i < r->times; i++) bench_read(&r->array);
}

static void measure(const void *arg)
{
  const entry *e = (const entry *)arg;
  reader r;
  r.array = bench_array_of(e->bytes, igpt_pool_runner(pool_of(e->workers)));
  r.times = times_of(e->bytes);
  race_run("reading", read_turn, &r);
}

/* Seconds a byte */
static double rate_of(race_lane *lane, size_t bytes)
{
  return bench_median(&lane->times) / ((double)bytes * times_of(bytes));
}

/* ---- the race -------------------------------------------------------------------------------- */

/* Seconds of all turns of a lane together */
static double whole(const race_lane *lane)
{
  double sum = 0;
  int i;
  for (i = 0; i < lane->times.count; i++) sum += lane->times.second[i];
  return sum;
}

int main(int argc, char **argv)
{
  const int batch = argc > 1 ? atoi(argv[1]) : 1, tokens = argc > 2 ? atoi(argv[2]) : POSITIONS;
  race_lane lanes[MOST_LANES];
  entry e;
  double ours[PRECISIONS] = { 0, 0, 0 }, memory[WORKERS], one = 0;
  int count = 0, own, i, p, w;
  if (batch < 1 || batch > 1024 || tokens < TURNS || tokens > POSITIONS || tokens % TURNS) {
    fprintf(stderr, "bench/sample [batch 1..1024] [tokens %d..%d, a multiple of %d] "
            "[peers' commands ...]\n", (int)TURNS, (int)POSITIONS, (int)TURNS);
    return 1;
  }
  memset(&e, 0, sizeof e);
  e.batch = batch;
  e.tokens = tokens;
  for (w = 0; w < WORKERS; w++) {
    e.workers = w + 1;
    e.bytes = BENCH_LARGE;
    race_enter(lanes, count++, measure, &e, NULL);
    for (p = 0; p < PRECISIONS; p++) {
      e.precision = (igpt_precision)p;
      e.bytes = bytes_of(&e);
      race_enter(lanes, count++, measure, &e, NULL);
      race_enter(lanes, count++, sample, &e, NULL);
    }
  }
  own = count;
  for (i = 3; i < argc && count < MOST_LANES; i++) {
    char command[1000];
    snprintf(command, sizeof command, "exec %s --paced %d:%d", argv[i], batch, tokens);
    race_enter(lanes, count++, NULL, NULL, command);
  }
  race_turns(lanes, count, TURNS);
  race_end(lanes, count);

  bench_machine();
  printf("iGPT-S, %d picture%s, the first %d tokens\n", batch, batch > 1 ? "s" : "", tokens);
  for (w = 0; w < WORKERS; w++) {
    race_lane *first = &lanes[w * (1 + 2 * PRECISIONS)];
    memory[w] = rate_of(first, BENCH_LARGE);
    for (p = 0; p < PRECISIONS; p++) {
      race_lane *reading = first + 1 + 2 * p, *lane = reading + 1;
      const double time = whole(lane) / tokens;
      double bytes, floor_time;
      e.precision = (igpt_precision)p;
      bytes = (double)bytes_of(&e);
      floor_time = bytes * rate_of(reading, bytes_of(&e));
      printf("  %-36s %7.2f ms a token, %6.1f tokens/s; %4.0f MB: %3.0f%% of the floor "
             "(%.1f GB/s), of memory's %3.0f%% (%.1f)", lane->name, 1e3 * time, batch / time,
             1e-6 * bytes, 100 * floor_time / time, 1e-9 * bytes / floor_time,
             100 * bytes * memory[w] / time, 1e-9 / memory[w]);
      if (w == 0) ours[p] = time;
      else printf("; x%.2f of one worker", ours[p] / time);
      if (w == WORKERS - 1) ours[p] = time;
      if (p > 0) printf(", x%.2f of float32", one / time);
      else one = time;
      printf("\n");
    }
  }
  for (i = own; i < count; i++) {
    const double time = whole(&lanes[i]) / tokens;
    printf("  %-70s %7.2f ms a token, %6.1f tokens/s; igpt.h", lanes[i].name, 1e3 * time,
           batch / time);
    for (p = 0; p < PRECISIONS; p++) printf(" x%.2f in %s", time / ours[p], precision_name[p]);
    printf("\n");
  }
  return 0;
}
