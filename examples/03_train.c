/* cc -O2 -I. -o 03_train examples/03_train.c -lm

   Training, and how to know what a loss means. The pictures are drawn: one square on a ground, so
   that their number N is known, and no model on earth can say a random one of them in fewer than
   ln N nats. The loss starts at ln 4 nats a pixel (four colours, no idea) and falls towards that
   floor. An eighth of the pictures is never trained on; their loss falls as well: what is learned
   is the rule, and not the list.                                                                 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define IGPT_IMPLEMENTATION
#include "igpt.h"

enum { SIDE = 8, T = SIDE * SIDE, COLOURS = 4, BATCH = 32, STEPS = 400, UNSEEN = 8 };

/* Squares of side 2, 3, 4 fit in 49, 36, 25 places; 4 colours of the ground, 3 of the square. */
enum { PLACES = 49 + 36 + 25, PICTURES = PLACES * COLOURS * (COLOURS - 1) };

static void draw(uint16_t *tokens, uint32_t number)
{
  const uint32_t ground = number % COLOURS, other = number / COLOURS % (COLOURS - 1);
  const uint32_t colour = (ground + 1 + other) % COLOURS;
  uint32_t place = number / (COLOURS * (COLOURS - 1)), side = 2, fits, x, y;
  while (place >= (fits = (SIDE - side + 1) * (SIDE - side + 1))) {
    place -= fits;
    side++;
  }
  for (y = 0; y < SIDE; y++)
    for (x = 0; x < SIDE; x++) {
      const uint32_t left = place % (SIDE - side + 1), top = place / (SIDE - side + 1);
      const int inside = x - left < side && y - top < side;      /* unsigned: below 0 is far away */
      tokens[y * SIDE + x] = (uint16_t)(inside ? colour : ground);
    }
}

/* A random picture that belongs to the unseen ones, or does not. */
static uint32_t choose(igpt_rng *rng, int unseen)
{
  uint32_t number;
  do number = igpt_rng_below(rng, PICTURES); while ((number % UNSEEN == 0) != unseen);
  return number;
}

static void must(igpt_result result, const char *call)
{
  if (!result) return;
  fprintf(stderr, "03_train: %s: %s\n", call, igpt_error_string(result));
  exit(EXIT_FAILURE);
}

int main(void)
{
  static uint16_t tokens[BATCH * T], unseen[64 * T];
  igpt_model_desc shape = {0};
  igpt_session_desc work = {0};
  igpt_schedule_desc schedule = {0};
  igpt_adam_desc adam = {0};
  igpt_batch batch = {0}, check = {0};
  igpt_rng rng = igpt_rng_seed(1, 0);
  igpt_losses losses = {0};
  igpt_model *model;
  igpt_session *session;
  double nats, norm = 0;
  uint32_t i;
  int step;

  shape.config.layers = 2;
  shape.config.heads = 2;
  shape.config.width = 32;
  shape.config.rows = shape.config.columns = SIDE;
  shape.config.vocabulary = COLOURS;
  work.batch = BATCH;
  work.train = 1;
  must(igpt_model_create(&model, &shape), "igpt_model_create");
  must(igpt_session_create(&session, model, &work), "igpt_session_create");

  schedule.rate = 4e-3;                       /* rises over 20 steps, then falls as a cosine */
  schedule.warmup = 20;
  schedule.steps = STEPS;
  adam.clip = 1;
  batch.tokens = tokens;
  batch.count = BATCH;
  check.tokens = unseen;
  check.count = 64;
  for (i = 0; i < 64; i++) draw(unseen + i * T, choose(&rng, 1));

  printf("%d weights, %d pictures; nats a pixel, and the step's gradient and rate\n\n",
         (int)igpt_model_parameters(model), (int)PICTURES);
  printf("  step   trained   unseen   gradient     rate\n");
  for (step = 0;; step++) {
    const int last = step == STEPS;
    for (i = 0; i < BATCH; i++) draw(tokens + i * T, choose(&rng, 0));
    must(igpt_backward(session, &losses, &batch, NULL), "igpt_backward");    /* loss and gradient */
    if (step % 50 == 0) {
      must(igpt_nll(session, NULL, &nats, &check), "igpt_nll");
      must(igpt_gradient_norm(session, &norm), "igpt_gradient_norm");
      printf("%6d %9.4f %8.4f %10.4f %8.5f\n", step, losses.generative, nats, norm,
             last ? 0.0 : igpt_schedule(&schedule, step));
    }
    if (last) break;
    adam.rate = (float)igpt_schedule(&schedule, step);
    must(igpt_step(session, model, NULL, &adam), "igpt_step");               /* moves the weights */
  }
  printf("\nfloor %11.4f (ln %d / %d)\n", log((double)PICTURES) / T, (int)PICTURES, (int)T);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  return EXIT_SUCCESS;
}
