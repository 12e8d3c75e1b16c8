/* cc -O2 -I. -o 05_bert examples/05_bert.c -lm -pthread

   The other objective, BERT: hide pixels anywhere, guess them from all the others. Such a model
   has no first pixel and no last, so it cannot paint row by row; igpt_fill hides, guesses, keeps
   what it is most certain of, and looks again. The pictures are wallpapers: a random 3 x 3 motif,
   nine times. Seven pixels in ten are hidden; nearly all of them can be found in another copy. $
   marks a wrong pixel.                                                                           */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IGPT_IMPLEMENTATION
#include "igpt.h"

enum { MOTIF = 3, SIDE = 3 * MOTIF, T = SIDE * SIDE, COLOURS = 4 };
enum { BATCH = 32, STEPS = 200, TESTS = 64 };

static const float HIDDEN = 0.7f;

static void draw(uint16_t *tokens, igpt_rng *rng)
{
  uint16_t motif[MOTIF * MOTIF];
  int i;
  for (i = 0; i < MOTIF * MOTIF; i++) motif[i] = (uint16_t)igpt_rng_below(rng, COLOURS);
  for (i = 0; i < T; i++) tokens[i] = motif[i / SIDE % MOTIF * MOTIF + i % MOTIF];
}

static void must(igpt_result result, const char *call)
{
  if (!result) return;
  fprintf(stderr, "05_bert: %s: %s\n", call, igpt_error_string(result));
  exit(EXIT_FAILURE);
}

static void train(igpt_session *session, igpt_model *model)
{
  static uint16_t tokens[BATCH * T];
  static uint8_t mask[BATCH * T];
  igpt_rng rng = igpt_rng_seed(1, 0), hide = igpt_rng_seed(1, 1);     /* two streams of one seed */
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
  batch.mask = mask;
  batch.count = BATCH;
  for (step = 0; step < STEPS; step++) {
    for (i = 0; i < BATCH; i++) draw(tokens + i * T, &rng);
    igpt_mask_random(&hide, mask, BATCH * T, HIDDEN);
    must(igpt_backward(session, &losses, &batch, NULL), "igpt_backward");
    adam.rate = (float)igpt_schedule(&schedule, step);
    must(igpt_step(session, model, NULL, &adam), "igpt_step");
    if (step % 50 == 0 || step == STEPS - 1)
      printf("step %3d: %.3f nats a hidden pixel\n", step, losses.generative);
  }
}

/* Fills hidden pixels of fresh wallpapers; returns the part of them that is right. */
static double fill(igpt_session *session, uint16_t *truth, uint16_t *tokens, uint8_t *mask)
{
  igpt_rng rng = igpt_rng_seed(2, 0), hide = igpt_rng_seed(2, 1);
  igpt_sample_desc how = {0};
  int i, right = 0, hidden = 0;
  for (i = 0; i < TESTS; i++) draw(truth + i * T, &rng);
  igpt_mask_random(&hide, mask, TESTS * T, HIDDEN);
  memcpy(tokens, truth, TESTS * T * sizeof *tokens);
  for (i = 0; i < TESTS * T; i++)
    if (mask[i]) tokens[i] = 0;               /* so that no one can say it peeped */
  how.rounds = 8;                             /* forward passes; 1 would guess all at once */
  how.top_k = 1;
  must(igpt_fill(session, tokens, mask, TESTS, &how), "igpt_fill");
  for (i = 0; i < TESTS * T; i++) {
    hidden += mask[i];
    right += mask[i] && tokens[i] == truth[i];
  }
  return (double)right / hidden;
}

static void print(const uint16_t *truth, const uint16_t *tokens, const uint8_t *mask)
{
  static const char glyph[] = ".+o@";
  int picture, stage, x, y;
  for (picture = 0; picture < 2; picture++)
    for (y = 0; y < SIDE; y++) {
      for (stage = 0; stage < 3; stage++) {   /* seen | filled | truth */
        for (x = 0; x < SIDE; x++) {
          const int at = picture * T + y * SIDE + x;
          char c = glyph[truth[at]];
          if (stage == 0 && mask[at]) c = '?';
          if (stage == 1 && tokens[at] != truth[at]) c = '$';
          printf("%c%c", c, c);
        }
        printf(stage < 2 ? "   |   " : "\n");
      }
      if (y == SIDE - 1) printf("\n");
    }
}

int main(void)
{
  static uint16_t truth[TESTS * T], tokens[TESTS * T];
  static uint8_t mask[TESTS * T];
  const double lost = pow((double)HIDDEN, 8);     /* hidden in the other eight copies, too: guess */
  igpt_model_desc shape = {0};
  igpt_session_desc work = {0};
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
  shape.config.objective = IGPT_BERT;
  work.batch = BATCH;
  work.train = 1;
  work.runner = igpt_pool_runner(pool);
  must(igpt_model_create(&model, &shape), "igpt_model_create");
  must(igpt_session_create(&session, model, &work), "igpt_session_create");

  before = fill(session, truth, tokens, mask);
  train(session, model);
  after = fill(session, truth, tokens, mask);
  printf("\nseen                 |   filled               |   truth\n\n");
  print(truth, tokens, mask);
  printf("hidden pixels right: %.1f %% before, %.1f %% after training, %.1f %% at best\n",
         100 * before, 100 * after, 100 * (1 - lost + lost / COLOURS));

  igpt_session_destroy(session);
  igpt_model_destroy(model);
  igpt_pool_destroy(pool);
  return EXIT_SUCCESS;
}
