/* Do denormals slow a step? For numbers below 1.2e-38 some processors take many times as long, and
   training makes them: moments of colours that never come decay into that range, and so does what a
   saturated softmax passes on. Four states of a network take a step each, alternating: one as it is
   in training, and three with one part of it scaled into that range. The last two columns are the
   same steps without what keeps denormals away (the processor's state as the host has it).

   cc -O2 -I. bench/denormals.c -o build/bench/denormals -lm -pthread
   build/bench/denormals [rounds, default 7]                                                      */

#define _POSIX_C_SOURCE 200809L
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "bench.h"

enum { N = 2, T = 256, ORDINARY = 0, MOMENTS, WEIGHTS, STREAM, STATES };
static const char *const names[STATES] = { "ordinary", "moments", "weights", "the stream" };

static igpt_model *model;
static igpt_session *session;
static float *ordinary;           /* weights */

static void fill(float *x, size_t n, float size, uint64_t stream)
{
  igpt_rng rng = igpt_rng_seed(1, stream);
  size_t i;
  for (i = 0; i < n; i++) x[i] = size * (2 * igpt_rng_uniform(&rng) - 1);
}

static void prepare(int state)
{
  const size_t P = igpt_model_parameters(model);
  size_t i, t;
  memcpy(model->scalars, ordinary, P * sizeof(float));
  fill(session->moment1, P, state == MOMENTS ? 1e-39f : 1e-3f, 1);
  fill(session->moment2, P, state == MOMENTS ? 1e-39f : 1e-6f, 2);
  for (i = 0; i < P; i++) session->moment2[i] = fabsf(session->moment2[i]);
  for (t = 0; t < igpt_model_tensors(model); t++) {
    igpt_tensor tensor;
    igpt_model_tensor_at(model, &tensor, t);
    for (i = 0; i < tensor.count; i++) {
      if (state == WEIGHTS && tensor.rank == 2) tensor.data[i] *= 1e-38f;
      if (state == STREAM && tensor.rank == 1) tensor.data[i] *= 1e-38f;
    }
  }
}

/* Seconds of forward and backward, and of the step of AdamW. */
static void measure(double second[2], int state, int flush, const igpt_batch *batch)
{
  igpt_adam_desc adam = { 0 };
  double begun, half;
  igpt_result result;
  prepare(state);
  adam.rate = 1e-9f;
  begun = bench_clock(1);
  result = flush ? igpt_backward(session, NULL, batch, NULL)
                 : igpt_backward_inside(session, NULL, batch, NULL);
  half = bench_clock(1);
  if (state == MOMENTS) memset(session->gradient, 0, igpt_model_parameters(model) * sizeof(float));
  if (!result)
    result = flush ? igpt_step(session, model, NULL, &adam)
                   : igpt_step_inside(session, model, NULL, &adam);
  second[1] = bench_clock(1) - half;
  second[0] = half - begun;
  if (result) {
    printf("%s: %s\n", names[state], igpt_error_string(result));
    exit(1);
  }
}

static double change_and_back(void)            /* nanoseconds */
{
  const int turns = 1000000;
  const double begun = bench_clock(1);
  int i;
  for (i = 0; i < turns; i++) igpt__floats_back(igpt__floats_own(IGPT__FLUSH));
  return 1e9 * (bench_clock(1) - begun) / turns;
}

int main(int argc, char **argv)
{
  const int rounds = argc > 1 ? atoi(argv[1]) : 7;
  static bench_times times[2][STATES][2];
  static uint16_t tokens[N * T];
  igpt_model_desc shape = { 0 };
  igpt_session_desc work = { 0 };
  igpt_batch batch = { 0 };
  igpt_rng rng = igpt_rng_seed(1, 0);
  int round, state, flush, part, i;
  if (rounds < 1 || rounds > BENCH_MOST) return 2;
  shape.config.layers = 4;
  shape.config.rows = 16;
  work.train = 1;
  work.batch = N;
  if (igpt_model_create(&model, &shape) || igpt_session_create(&session, model, &work)) return 2;
  fill(model->weights.lm_head, 512 * 128, 0.1f, 3);        /* it begins with zeros */
  ordinary = (float *)malloc(igpt_model_parameters(model) * sizeof(float));
  if (!ordinary) return 2;
  memcpy(ordinary, model->scalars, igpt_model_parameters(model) * sizeof(float));
  for (i = 0; i < N * T; i++) tokens[i] = (uint16_t)igpt_rng_below(&rng, 512);
  batch.tokens = tokens;
  batch.count = N;
  bench_machine();
  printf("4 layers of 128, %d pictures of 16 x 16, one worker, %s, processor time\n", N,
         igpt_isa_name(igpt_session_resolved(session)->isa));
  printf("alternating; median of %d and (quartile range), milliseconds\n", rounds);
  for (round = -1; round < rounds; round++)                 /* the first is a warm-up */
    for (state = 0; state < STATES; state++)
      for (flush = 0; flush < 2; flush++) {
        double second[2];
        measure(second, state, flush, &batch);
        for (part = 0; part < 2 && round >= 0; part++)
          bench_note(&times[flush][state][part], second[part]);
      }
  printf("%-14s%-26s%-26s%s\n", "tiny:", "backward      as ordinary", "step of AdamW",
         "unguarded: backward, step");
  for (state = 0; state < STATES; state++) {
    printf("%-12s", names[state]);
    for (flush = 1; flush >= 0; flush--)
      for (part = 0; part < 2; part++) {
        const double median = bench_median(&times[flush][state][part]);
        if (flush)
          printf("%8.2f (%3.0f%%)  x %5.2f   ", 1e3 * median,
                 100 * bench_spread(&times[flush][state][part]),
                 median / bench_median(&times[flush][ORDINARY][part]));
        else printf("  x %6.2f", median / bench_median(&times[1][ORDINARY][part]));
      }
    printf("\n");
  }
  printf("putting the host's state aside and back: %.1f ns a call, and a task\n",
         change_and_back());
  free(ordinary);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  return 0;
}
