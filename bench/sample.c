/* Sampling from iGPT-S with its cache: pictures a second are bounded by the memory, since every
   token reads all weights once (for however many pictures) and the keys and values of what is
   there. The floor is these bytes over the rate at which both workers read a large array.

   cc -O2 -I. bench/sample.c -o build/bench/sample -lm -pthread
   build/bench/sample [tokens, default 256]      the first tokens of a picture of 1024            */

#define _POSIX_C_SOURCE 200809L
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "bench.h"

enum { PIECES = 64, PIECE = 1 << 20 };          /* 256 MiB of floats */

static const float *reading;
static float found[PIECES];

static void read_task(void *arg, size_t index, int worker)
{
  const float *from = reading + index * PIECE;
  float sum[16] = { 0 };
  size_t i, j;
  (void)arg;
  (void)worker;
  for (i = 0; i < PIECE; i += 16)
    for (j = 0; j < 16; j++) sum[j] += from[i + j];
  for (j = 0; j < 16; j++) found[index] += sum[j];
}

int main(int argc, char **argv)
{
  const int tokens = argc > 1 ? atoi(argv[1]) : 256;
  static const int batches[] = { 1, 16 };
  igpt_model_desc shape = { 0 };
  igpt_pool *pool;
  igpt_model *model;
  igpt_runner runner;
  float *large = (float *)malloc(sizeof(float) * PIECES * PIECE);
  size_t i;
  int which, workers;
  if (!large || tokens < 1 || tokens > 1024 || igpt_pool_create(&pool, 2, NULL)) return 2;
  for (i = 0; i < (size_t)PIECES * PIECE; i++) large[i] = 1;
  reading = large;
  runner = igpt_pool_runner(pool);
  igpt_config_preset(&shape.config, "S");
  if (igpt_model_create(&model, &shape)) return 2;
  bench_machine();
  printf("iGPT-S, the first %d tokens; alternating; median of 5 and (quartile range)\n", tokens);
  for (workers = 1; workers <= 2; workers++)
    for (which = 0; which < 2; which++) {
      const int batch = batches[which];
      igpt_session_desc work = { 0 };
      igpt_session *session;
      igpt_sample_desc how = { 0 };
      bench_times ours = { { 0 }, 0 }, memory = { { 0 }, 0 };
      uint16_t *out = (uint16_t *)calloc((size_t)batch * 1024, sizeof *out);
      double weights = 4.0 * (double)igpt_model_parameters(model), cache, floor_time, time;
      int round;
      work.batch = batch;
      if (workers == 2) work.runner = runner;
      if (!out || igpt_session_create(&session, model, &work)) return 2;
      /* on the average half of the keys and values of so many tokens */
      cache = 4.0 * 2 * 24 * 512 * batch * tokens / 2.0;
      for (round = 0; round < 5; round++) {
        float *logits = (float *)malloc(sizeof(float) * 512 * (size_t)batch);
        double start = bench_clock(0);
        if (workers == 2) runner.run(runner.user, read_task, NULL, PIECES);
        else for (i = 0; i < PIECES; i++) read_task(NULL, i, 0);
        bench_note(&memory, (bench_clock(0) - start) / (4.0 * PIECES * PIECE));
        start = bench_clock(0);
        if (!logits || igpt_decode_begin(session, NULL, 0, batch)) return 2;
        for (i = 0; i < (size_t)tokens; i++) {
          size_t b;
          if (igpt_decode(session, logits, out)) return 2;
          for (b = 0; b < (size_t)batch; b++) {
            igpt_rng rng = igpt_rng_seed(1, b);
            rng.index = i;
            out[b] = (uint16_t)igpt_draw(&rng, logits + b * 512, 512, &how);
          }
        }
        bench_note(&ours, (bench_clock(0) - start) / tokens);
        free(logits);
      }
      time = bench_median(&ours);
      floor_time = bench_median(&memory) * (weights + cache);
      printf("%d worker%s batch %2d: memory %.1f GB/s, floor %.2f ms; %.2f ms a token (%.0f%%), "
             "%.1f tokens/s, %.0f%% of the floor's speed\n", workers, workers > 1 ? "s," : ", ",
             batch, 1e-9 / bench_median(&memory), 1e3 * floor_time, 1e3 * time,
             100 * bench_spread(&ours), batch / time, 100 * floor_time / time);
      igpt_session_destroy(session);
      free(out);
    }
  igpt_model_destroy(model);
  igpt_pool_destroy(pool);
  free(large);
  return 0;
}
