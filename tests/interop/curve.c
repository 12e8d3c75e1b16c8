/* cc -O2 -I. -o build/curve tests/interop/curve.c -lm -pthread

   The C half of curve.py: makes a model, and trains one on tokens in the order in which they lie.

     curve make MODEL layers heads width
     curve train MODEL TOKENS.npy LOSSES.npy batch rate warmup f32|auto

   The rate falls as a cosine to a tenth, gradients are clipped at 1. LOSSES: a step each.         */

#define IGPT_IMPLEMENTATION
#include "igpt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECKED(call) if (call) exit(1)

static void say(void *user, igpt_result result, const char *sentence)
{
  (void)user;
  fprintf(stderr, "curve: %s (%s)\n", sentence, igpt_error_string(result));
}

static const igpt_log out_loud = { say, NULL };

static int make(char **argument)
{
  igpt_model_desc desc = { 0 };
  igpt_model *model;
  desc.log = out_loud;
  desc.config.layers = atoi(argument[1]);
  desc.config.heads = atoi(argument[2]);
  desc.config.width = atoi(argument[3]);
  CHECKED(igpt_model_create(&model, &desc));
  CHECKED(igpt_model_save(model, argument[0]));
  igpt_model_destroy(model);
  return 0;
}

typedef struct losses {
  float *each;
  uint64_t steps;
} losses;

static igpt_result write_losses(void *user, const igpt_sink *sink)
{
  const losses *l = (const losses *)user;
  return igpt_npy_write(sink, IGPT_NPY_F32, l->each, 1, &l->steps);
}

static int train(char **argument)
{
  igpt_model_desc desc = { 0 };
  igpt_session_desc work = { 0 };
  igpt_schedule_desc plan = { IGPT_COSINE, 0, 0, 0, 0.1 };
  igpt_adam_desc adam = { 0 };
  igpt_batch batch = { 0 };
  igpt_model *model;
  igpt_session *session;
  igpt_pool *pool;
  igpt_source source;
  igpt_npy npy;
  losses curve;
  int64_t *wide;
  uint16_t *tokens;
  size_t i, step, positions;
  desc.log = work.log = out_loud;
  batch.count = (size_t)atoi(argument[3]);
  work.batch = (int)batch.count;
  work.train = work.no_cache = 1;
  work.precision = !strcmp(argument[6], "f32") ? IGPT_F32 : IGPT_PRECISION_AUTO;
  adam.clip = 1;
  CHECKED(igpt_pool_create(&pool, 0, NULL));
  work.runner = igpt_pool_runner(pool);
  CHECKED(igpt_model_load(&model, argument[0], &desc));
  CHECKED(igpt_session_create(&session, model, &work));
  positions = (size_t)igpt_model_config(model)->rows * (size_t)igpt_model_config(model)->columns;

  CHECKED(igpt_file_open(&source, argument[1], &out_loud));
  CHECKED(igpt_npy_open(&npy, &source, &out_loud));
  if (npy.rank != 2 || npy.shape[1] != positions || npy.shape[0] % batch.count != 0) {
    fprintf(stderr, "curve: tokens must be (steps x %u,%u)\n", (unsigned)batch.count,
            (unsigned)positions);
    return 1;
  }
  curve.steps = npy.shape[0] / batch.count;
  curve.each = (float *)calloc((size_t)curve.steps, sizeof *curve.each);
  wide = (int64_t *)malloc((size_t)npy.count * sizeof *wide);
  tokens = (uint16_t *)malloc((size_t)npy.count * sizeof *tokens);
  CHECKED(!curve.each || !wide || !tokens);
  CHECKED(igpt_npy_read_i64(&npy, wide, 0, (size_t)npy.count, &source));
  igpt_file_close(&source);
  for (i = 0; i < npy.count; i++) tokens[i] = (uint16_t)wide[i];

  plan.rate = atof(argument[4]);
  plan.warmup = atof(argument[5]);
  plan.steps = (double)curve.steps;
  for (step = 0; step < curve.steps; step++) {
    igpt_losses loss;
    batch.tokens = tokens + step * batch.count * positions;
    adam.rate = (float)igpt_schedule(&plan, (double)step);
    CHECKED(igpt_backward(session, &loss, &batch, NULL));
    CHECKED(igpt_step(session, model, NULL, &adam));
    curve.each[step] = (float)loss.generative;
  }
  CHECKED(igpt_file_replace(argument[2], &out_loud, write_losses, &curve));
  free(curve.each);
  free(tokens);
  free(wide);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  igpt_pool_destroy(pool);
  return 0;
}

int main(int count, char **argument)
{
  if (count == 6 && !strcmp(argument[1], "make")) return make(argument + 2);
  if (count == 9 && !strcmp(argument[1], "train")) return train(argument + 2);
  fprintf(stderr, "usage: see the head of tests/interop/curve.c\n");
  return 2;
}
