/* cc -O2 -I. -o 04_complete examples/04_complete.c -lm -pthread

   Completion, what Image GPT is known for: the upper half is given, the model paints the lower
   one, pixel by pixel. The pictures here are rings around the centre, each of a random colour, so
   what belongs below can be known from what stands above, if you look at the right place; nothing
   tells the model so. It trains for some seconds, with a thread for every processor, and then
   completes pictures that it has not seen. $ marks a wrong pixel.                                */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IGPT_IMPLEMENTATION
#include "igpt.h"

enum { SIDE = 10, T = SIDE * SIDE, HALF = T / 2, COLOURS = 8, RINGS = SIDE / 2 };
enum { BATCH = 32, STEPS = 150, TESTS = 64, SHOWN = 3 };

/* Square rings: a pixel's ring is its distance from the nearest edge. 8 colours and 5 rings are
   32768 pictures. An eighth of them is for the test, those whose colours sum to a multiple of 8; of
   the others training sees less than a sixth. */
static void draw(uint16_t *tokens, igpt_rng *rng, int test)
{
  uint16_t ring[RINGS];
  int i, x, y, sum;
  do {
    for (sum = i = 0; i < RINGS; i++) sum += ring[i] = (uint16_t)igpt_rng_below(rng, COLOURS);
  } while ((sum % COLOURS == 0) != test);
  for (y = 0; y < SIDE; y++)
    for (x = 0; x < SIDE; x++) {
      const int across = x < SIDE - 1 - x ? x : SIDE - 1 - x;
      const int down = y < SIDE - 1 - y ? y : SIDE - 1 - y;
      tokens[y * SIDE + x] = ring[across < down ? across : down];
    }
}

static void must(igpt_result result, const char *call)
{
  if (!result) return;
  fprintf(stderr, "04_complete: %s: %s\n", call, igpt_error_string(result));
  exit(EXIT_FAILURE);
}

static void train(igpt_session *session, igpt_model *model, igpt_rng *rng)
{
  static uint16_t tokens[BATCH * T];
  igpt_schedule_desc schedule = {0};
  igpt_adam_desc adam = {0};
  igpt_batch batch = {0};
  igpt_losses losses = {0};
  int step, i;
  schedule.rate = 4e-3;
  schedule.warmup = 30;
  schedule.steps = STEPS;
  adam.clip = 1;
  batch.tokens = tokens;
  batch.count = BATCH;
  for (step = 0; step < STEPS; step++) {
    for (i = 0; i < BATCH; i++) draw(tokens + i * T, rng, 0);
    must(igpt_backward(session, &losses, &batch, NULL), "igpt_backward");
    adam.rate = (float)igpt_schedule(&schedule, step);
    must(igpt_step(session, model, NULL, &adam), "igpt_step");
    if (step % 25 == 0 || step == STEPS - 1)
      printf("step %3d: %.3f nats a pixel\n", step, losses.generative);
  }
}

/* Completes pictures of the test, always the same; returns the part of the lower pixels that is
   right. */
static double complete(igpt_session *session, uint16_t *truth, uint16_t *tokens)
{
  igpt_rng rng = igpt_rng_seed(2, 0);
  igpt_sample_desc how = {0};
  int i, right = 0;
  for (i = 0; i < TESTS; i++) draw(truth + i * T, &rng, 1);
  memcpy(tokens, truth, TESTS * T * sizeof *tokens);
  how.keep = HALF;                            /* tokens at the front that are given */
  how.top_k = 1;                              /* always the most likely; 0 draws by probability */
  must(igpt_sample(session, tokens, TESTS, &how), "igpt_sample");
  for (i = 0; i < TESTS * T; i++) right += i % T >= HALF && tokens[i] == truth[i];
  return (double)right / (TESTS * HALF);
}

static void print(const uint16_t *truth, const uint16_t *tokens)
{
  static const char glyph[] = " .:-=+*#";
  int i, x, y;
  for (y = 0; y < SIDE; y++) {
    for (i = 0; i < SHOWN; i++) {
      for (x = 0; x < SIDE; x++) {
        const int at = i * T + y * SIDE + x;
        const char c = tokens[at] == truth[at] ? glyph[tokens[at]] : '$';
        printf("%c%c", c, c);
      }
      printf("   ");
    }
    printf("%s\n", y == SIDE / 2 - 1 ? "| given" : y == SIDE / 2 ? "| painted" : "|");
  }
}

int main(void)
{
  static uint16_t truth[TESTS * T], tokens[TESTS * T];
  igpt_model_desc shape = {0};
  igpt_session_desc work = {0};
  igpt_rng rng = igpt_rng_seed(1, 0);
  igpt_model *model;
  igpt_session *session;
  igpt_pool *pool;
  double before, after;

  must(igpt_pool_create(&pool, 0, NULL), "igpt_pool_create");
  shape.config.layers = 2;
  shape.config.heads = 2;
  shape.config.width = 32;
  shape.config.rows = shape.config.columns = SIDE;
  shape.config.vocabulary = COLOURS;
  work.batch = BATCH;
  work.train = 1;
  work.runner = igpt_pool_runner(pool);       /* same bits with any number of threads */
  must(igpt_model_create(&model, &shape), "igpt_model_create");
  must(igpt_session_create(&session, model, &work), "igpt_session_create");

  before = complete(session, truth, tokens);
  train(session, model, &rng);
  after = complete(session, truth, tokens);
  printf("floor:    %.3f (each ring's colour once: %d ln %d / %d)\n\n",
         RINGS * log((double)COLOURS) / T, (int)RINGS, (int)COLOURS, (int)T);
  print(truth, tokens);
  printf("\nlower pixels right: %.1f %% before, %.1f %% after training\n", 100 * before,
         100 * after);

  igpt_session_destroy(session);
  igpt_model_destroy(model);
  igpt_pool_destroy(pool);
  return EXIT_SUCCESS;
}
