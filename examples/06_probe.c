/* cc -O2 -I. -o 06_probe examples/06_probe.c -lm -pthread

   What does a model know that was only ever asked for the next pixel? The pictures are noisy
   stripes in four directions, shifted at random, and nobody tells the model of directions. Then
   it is frozen, and a linear classifier, the probe, is fitted on the mean of its vectors at every
   depth. On raw pixels a linear classifier can do next to nothing, as any pixel is light as often
   as dark. An untrained network is a fairer rival, as random features help. What lies between the
   two columns was learned by predicting pixels.                                                  */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IGPT_IMPLEMENTATION
#include "igpt.h"

enum { SIDE = 8, T = SIDE * SIDE, COLOURS = 2, CLASSES = 4, LAYERS = 4, WIDTH = 32 };
enum { BATCH = 32, STEPS = 250, TRAIN = 600, TEST = 400, N = TRAIN + TEST, DEPTHS = LAYERS + 1 };

/* Stripes two pixels wide: rows, columns, and both diagonals. Returns the direction. */
static int32_t draw(uint16_t *tokens, igpt_rng *rng)
{
  const uint32_t way = igpt_rng_below(rng, CLASSES), phase = igpt_rng_below(rng, 4);
  uint32_t x, y;
  for (y = 0; y < SIDE; y++)
    for (x = 0; x < SIDE; x++) {
      const uint32_t along[CLASSES] = { y, x, x + y, x + 8 - y };
      const uint32_t stripe = (along[way] + phase) / 2 % 2;
      const int noise = igpt_rng_below(rng, 20) == 0;
      tokens[y * SIDE + x] = (uint16_t)(noise ? igpt_rng_below(rng, COLOURS) : stripe);
    }
  return (int32_t)way;
}

static void must(igpt_result result, const char *call)
{
  if (!result) return;
  fprintf(stderr, "06_probe: %s: %s\n", call, igpt_error_string(result));
  exit(EXIT_FAILURE);
}

/* Fits on the first TRAIN rows, and returns the part of the other rows that it gets right. */
static double probe_accuracy(const float *rows, const int32_t *labels, size_t features)
{
  static int32_t guessed[TEST];
  igpt_probe_desc desc;
  igpt_probe *probe;
  int i, right = 0;
  memset(&desc, 0, sizeof desc);
  desc.standardise = 1;
  must(igpt_probe_fit(&probe, NULL, rows, labels, TRAIN, features, &desc), "fit");
  must(igpt_probe_predict(probe, guessed, NULL, rows + TRAIN * features, TEST), "predict");
  igpt_probe_destroy(probe);
  for (i = 0; i < TEST; i++) right += guessed[i] == labels[TRAIN + i];
  return (double)right / TEST;
}

/* Accuracy at every depth: one pass gives features (N, DEPTHS, WIDTH), a probe takes (N, WIDTH). */
static void probe_depths(double *accuracy, igpt_session *session, const uint16_t *tokens,
                         const int32_t *labels)
{
  static float features[N * DEPTHS * WIDTH], rows[N * WIDTH];
  int depths[DEPTHS], d, i;
  igpt_batch batch = {0};
  batch.tokens = tokens;
  batch.count = N;
  for (d = 0; d < DEPTHS; d++) depths[d] = d;
  must(igpt_features(session, features, &batch, depths, DEPTHS), "igpt_features");
  for (d = 0; d < DEPTHS; d++) {
    for (i = 0; i < N; i++)
      memcpy(rows + i * WIDTH, features + (i * DEPTHS + d) * WIDTH, WIDTH * sizeof *rows);
    accuracy[d] = probe_accuracy(rows, labels, WIDTH);
  }
}

/* The pixels themselves, as a number for each pixel and colour. */
static double probe_pixels(const uint16_t *tokens, const int32_t *labels)
{
  static float rows[N * T * COLOURS];
  int i;
  for (i = 0; i < N * T; i++) rows[i * COLOURS + tokens[i]] = 1;
  return probe_accuracy(rows, labels, T * COLOURS);
}

static double train(igpt_session *session, igpt_model *model, igpt_rng *rng)
{
  static uint16_t tokens[BATCH * T];
  igpt_schedule_desc schedule = {0};
  igpt_adam_desc adam = {0};
  igpt_batch batch = {0};
  igpt_losses losses = {0};
  int step, i;
  schedule.rate = 6e-3;
  schedule.warmup = 25;
  schedule.steps = STEPS;
  adam.clip = 1;
  batch.tokens = tokens;                      /* and no labels */
  batch.count = BATCH;
  for (step = 0; step < STEPS; step++) {
    for (i = 0; i < BATCH; i++) draw(tokens + i * T, rng);
    must(igpt_backward(session, &losses, &batch, NULL), "igpt_backward");
    adam.rate = (float)igpt_schedule(&schedule, step);
    must(igpt_step(session, model, NULL, &adam), "igpt_step");
  }
  return losses.generative;
}

int main(void)
{
  static uint16_t tokens[N * T];
  static int32_t labels[N];
  igpt_model_desc shape = {0};
  igpt_session_desc work = {0};
  igpt_rng rng = igpt_rng_seed(1, 0);
  double fresh[DEPTHS], trained[DEPTHS], loss;
  igpt_model *model;
  igpt_session *session;
  igpt_pool *pool;
  int i;

  must(igpt_pool_create(&pool, 0, NULL), "igpt_pool_create");
  shape.config.layers = LAYERS;
  shape.config.heads = 2;
  shape.config.width = WIDTH;
  shape.config.rows = shape.config.columns = SIDE;
  shape.config.vocabulary = COLOURS;
  work.batch = BATCH;
  work.train = 1;
  work.runner = igpt_pool_runner(pool);
  must(igpt_model_create(&model, &shape), "igpt_model_create");
  must(igpt_session_create(&session, model, &work), "igpt_session_create");

  for (i = 0; i < N; i++) labels[i] = draw(tokens + i * T, &rng);
  probe_depths(fresh, session, tokens, labels);
  loss = train(session, model, &rng);
  probe_depths(trained, session, tokens, labels);

  printf("pre-trained to %.3f nats a pixel; accuracy of a linear probe on %d pictures, in %%\n\n"
         "depth    untrained   trained\n", loss, (int)TEST);
  for (i = 0; i < DEPTHS; i++) printf("%5d %12.1f %9.1f\n", i, 100 * fresh[i], 100 * trained[i]);
  printf("\nraw pixels %7.1f\n", 100 * probe_pixels(tokens, labels));
  printf("by chance  %7.1f\n", 100.0 / CLASSES);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  igpt_pool_destroy(pool);
  return EXIT_SUCCESS;
}
