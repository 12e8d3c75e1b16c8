/* tests/cortex-m/make.c: make MODEL STEPS trains a small network on the pictures of picture.h and
   writes it to MODEL. Then it completes one of them with the whole library and prints that: what
   complete.c must print wherever it runs.                                                        */

#define IGPT_STATIC
#define IGPT_NO_THREADS
#define IGPT_NO_AVX512            /* compiles in half the time */
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "picture.h"
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 8 };

static void put(const char *text) { fputs(text, stdout); }

static void put_line(void *user, igpt_result result, const char *sentence)
{
  (void)user;
  fprintf(stderr, "make: %s: %s\n", igpt_error_string(result), sentence);
}

/* Sixteen colours: cold ones for what stands in front, warm ones for what is behind. */
static igpt_palette sixteen(void)
{
  igpt_palette palette;
  int i, half = COLOURS / 2;
  memset(&palette, 0, sizeof palette);
  palette.colours = COLOURS;
  strcpy(palette.name, "sixteen");
  for (i = 0; i < COLOURS; i++) {
    const float shade = (float)(i % half) / (float)(half - 1) * 2 - 1;
    palette.centre[i][0] = i < half ? -1 : 1;
    palette.centre[i][1] = shade;
    palette.centre[i][2] = i < half ? 1 : -shade;
  }
  return palette;
}

static int train(igpt_model *model, int steps)
{
  static uint16_t tokens[BATCH * T];
  const igpt_schedule_desc plan = { IGPT_COSINE, 1e-2, 20, (double)steps, 0 };
  igpt_session_desc work = { 0 };
  igpt_adam_desc adam = { 0 };
  igpt_batch batch = { 0 };
  igpt_losses losses = { 0 };
  igpt_session *session;
  int step, i;
  work.train = 1;
  work.batch = BATCH;
  work.log.line = put_line;
  if (igpt_session_create(&session, model, &work)) return 1;
  adam.clip = 1;
  batch.tokens = tokens;
  batch.count = BATCH;
  for (step = 0; step < steps; step++) {
    for (i = 0; i < BATCH; i++) picture(tokens + i * T, (uint64_t)step * BATCH + (uint64_t)i);
    adam.rate = (float)igpt_schedule(&plan, step);
    if (igpt_backward(session, &losses, &batch, NULL)) return 1;
    if (igpt_step(session, model, NULL, &adam)) return 1;
  }
  fprintf(stderr, "%d steps, %.3f nats a pixel\n", steps, losses.generative);
  igpt_session_destroy(session);
  return 0;
}

int main(int argc, char **argv)
{
  const int steps = argc > 2 ? atoi(argv[2]) : 0;
  const igpt_palette palette = sixteen();
  static uint16_t tokens[T];
  igpt_model_desc shape = { 0 };
  igpt_session_desc work = { 0 };
  igpt_sample_desc how = { 0 };
  igpt_model *model;
  igpt_session *session;
  if (steps < 1) return EXIT_FAILURE;
  shape.config.layers = 2;
  shape.config.width = 32;
  shape.config.heads = 2;
  shape.config.rows = SIDE;
  shape.config.vocabulary = COLOURS;
  shape.log.line = put_line;
  if (igpt_model_create(&model, &shape) || igpt_model_set_palette(model, &palette) ||
      train(model, steps) || igpt_model_save(model, argv[1]))
    return EXIT_FAILURE;
  work.log.line = put_line;
  if (igpt_session_create(&session, model, &work)) return EXIT_FAILURE;
  picture(tokens, HIDDEN);
  how.keep = GIVEN;
  how.seed = SEED;
  if (igpt_sample(session, tokens, 1, &how)) return EXIT_FAILURE;
  print_picture(put, igpt_model_palette(model), tokens);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  return EXIT_SUCCESS;
}
