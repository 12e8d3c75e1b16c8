/* cc -O2 -I. -o build/bench/train bench/train.c -lm

   Training steps a second, of three shapes: the paper's iGPT-S with 2 pictures a step, 12 layers of width
   256 with 4, 8 layers of width 128 with 8. Each shape runs in a process of its own, so that its peak memory
   is its own; workers alternate within a run. Before the clock starts, the first loss is checked
   against ln 512.

     build/bench/train [shape 0..2] [steps, default 5]                                             */

#define _POSIX_C_SOURCE 200809L
#define IGPT_IMPLEMENTATION
#include "igpt.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static const struct { const char *name; int layers, heads, width, batch; } shapes[] = {
  { "iGPT-S (24 x 512), batch 2", 24, 8, 512, 2 },
  { "12 x 256, batch 4", 12, 8, 256, 4 },
  { "8 x 128, batch 8", 8, 4, 128, 8 }
};

#define CHECKED(call)                                                                             \
  do {                                                                                            \
    igpt_result result = (call);                                                                  \
    if (result) {                                                                                 \
      fprintf(stderr, "bench/train: %s: %s\n", #call, igpt_error_string(result));                 \
      exit(1);                                                                                    \
    }                                                                                             \
  } while (0)

static void run(int index, int steps)
{
  const int most = 64;
  double seconds[2][64];
  igpt_model_desc shape = { 0 };
  igpt_plan plan;
  igpt_model *model;
  igpt_session *session[2];
  igpt_pool *pool;
  igpt_batch batch = { 0 };
  igpt_adam_desc adam = { 0 };
  igpt_losses losses;
  igpt_rng rng = igpt_rng_seed(1, 0);
  struct rusage usage;
  uint16_t *tokens;
  size_t i, positions = (size_t)shapes[index].batch * 1024;
  int w, step;
  if (steps > most) steps = most;
  shape.config.layers = shapes[index].layers;
  shape.config.heads = shapes[index].heads;
  shape.config.width = shapes[index].width;
  tokens = (uint16_t *)malloc(positions * sizeof *tokens);
  if (!tokens) exit(1);
  for (i = 0; i < positions; i++) tokens[i] = (uint16_t)igpt_rng_below(&rng, 512);
  batch.tokens = tokens;
  batch.count = (size_t)shapes[index].batch;
  adam.rate = 1e-4f;
  CHECKED(igpt_model_create(&model, &shape));
  CHECKED(igpt_pool_create(&pool, 2, NULL));
  for (w = 0; w < 2; w++) {
    igpt_session_desc work = { 0 };
    work.batch = shapes[index].batch;
    work.train = 1;
    work.no_cache = 1;
    if (w == 1) work.runner = igpt_pool_runner(pool);
    if (w == 1) CHECKED(igpt_plan_make(&plan, &shape.config, &work));
    CHECKED(igpt_session_create(&session[w], model, &work));
    CHECKED(igpt_backward(session[w], &losses, &batch, NULL));
    if (losses.generative < 6.2383 || losses.generative > 6.2384) {
      fprintf(stderr, "bench/train: the first loss is %g, not ln 512\n", losses.generative);
      exit(1);
    }
    CHECKED(igpt_gradients_zero(session[w]));
    if (w == 0) {                 /* one session at a time counts for the peak */
      for (step = -1; step < steps; step++) {
        const double start = now();
        CHECKED(igpt_backward(session[w], &losses, &batch, NULL));
        CHECKED(igpt_step(session[w], model, NULL, &adam));
        if (step >= 0) seconds[w][step] = now() - start;
      }
      igpt_session_destroy(session[w]);
      igpt_model_destroy(model);
      CHECKED(igpt_model_create(&model, &shape));
    }
  }
  for (step = -1; step < steps; step++) {
    const double start = now();
    CHECKED(igpt_backward(session[1], &losses, &batch, NULL));
    CHECKED(igpt_step(session[1], model, NULL, &adam));
    if (step >= 0) seconds[1][step] = now() - start;
  }
  getrusage(RUSAGE_SELF, &usage);
  for (w = 0; w < 2; w++) {
    qsort(seconds[w], (size_t)steps, sizeof **seconds, ascending);
    printf("%-28s %d worker%s %8.0f tokens/s  (%.0f to %.0f)  %6.1f GFLOP/s", shapes[index].name,
           w + 1, w ? "s" : " ", (double)positions / seconds[w][steps / 2],
           (double)positions / seconds[w][steps - 1], (double)positions / seconds[w][0],
           1e-9 * plan.train_flops * shapes[index].batch / seconds[w][steps / 2]);
    if (w == 1)
      printf("  x%.2f  peak %.2f GB (planned %.2f)", seconds[0][steps / 2] / seconds[1][steps / 2],
             (double)usage.ru_maxrss * 1024e-9,
             (double)(plan.model_bytes + plan.session_bytes) * 1e-9);
    printf("\n");
  }
  fflush(stdout);
  igpt_session_destroy(session[1]);
  igpt_model_destroy(model);
  igpt_pool_destroy(pool);
  free(tokens);
}

int main(int argc, char **argv)
{
  const int steps = argc > 2 ? atoi(argv[2]) : 5;
  int i, status = 0;
  if (argc > 1) {
    const int shape = atoi(argv[1]);
    if (shape < 0 || shape > 2 || steps < 1) return 1;
    run(shape, steps);
    return 0;
  }
  printf("float32, %s kernels, %s\n", igpt_isa_name(igpt_isa_best()), __VERSION__);
  fflush(stdout);
  for (i = 0; i < 3; i++) {
    const pid_t child = fork();
    if (child == 0) {
      run(i, steps);
      return 0;
    }
    if (child < 0 || waitpid(child, &status, 0) < 0 || status) return 1;
  }
  return 0;
}
