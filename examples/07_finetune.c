/* cc -O2 -I. -o 07_finetune examples/07_finetune.c -lm -pthread

   Many pictures, few labels. A model is pre-trained on pictures without labels, written to
   memory, and read back with a class head, which is new and zero. Then all of it is fine-tuned on
   a few labelled pictures with the joint loss of the paper, pixels plus classes, 1 : 1. A model
   that starts from nothing gets the same labels and steps: what differs is what it has seen
   before.                                                                                        */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define IGPT_IMPLEMENTATION
#include "igpt.h"

enum { SIDE = 8, T = SIDE * SIDE, COLOURS = 2, CLASSES = 4 };
enum { BATCH = 32, PRETRAIN = 300, TUNE = 100, LABELLED = 128, TEST = 400 };

/* A fabric of rows, columns, squares or diagonals, shifted at random, with noise. Returns which. */
static int32_t draw(uint16_t *tokens, igpt_rng *rng)
{
  static const char *const tiles[CLASSES] = { "########        ", "##  ##  ##  ##  ",
                                              "##  ##    ##  ##", "##   ##   ###  #" };
  const uint32_t which = igpt_rng_below(rng, CLASSES);
  const uint32_t left = igpt_rng_below(rng, 4), top = igpt_rng_below(rng, 4);
  uint32_t i;
  for (i = 0; i < T; i++) {
    const int ink = tiles[which][(i / SIDE + top) % 4 * 4 + (i % SIDE + left) % 4] == '#';
    tokens[i] = (uint16_t)(ink != (igpt_rng_below(rng, 20) == 0));
  }
  return (int32_t)which;
}

static void must(igpt_result result, const char *call)
{
  if (!result) return;
  fprintf(stderr, "07_finetune: %s: %s\n", call, igpt_error_string(result));
  exit(EXIT_FAILURE);
}

/* A file in memory: what igpt_model_write appends to, and igpt_model_read reads from. */
static unsigned char file[1 << 19];
static size_t file_bytes;

static int append(void *user, const void *from, size_t bytes)
{
  (void)user;
  if (bytes > sizeof file - file_bytes) return 1;
  memcpy(file + file_bytes, from, bytes);
  file_bytes += bytes;
  return 0;
}

/* Steps on fresh pictures without labels; or on a few, again and again, with their labels. */
static void train(igpt_session *session, igpt_model *model, int steps, const uint16_t *few,
                  const int32_t *few_labels)
{
  static uint16_t tokens[BATCH * T];
  int32_t labels[BATCH];
  igpt_rng rng = igpt_rng_seed(1, 0);
  igpt_schedule_desc schedule = {0};
  igpt_adam_desc adam = {0};
  igpt_batch batch = {0};
  int step, i;
  schedule.rate = 6e-3;
  schedule.warmup = 10;
  schedule.steps = steps;
  adam.clip = 1;
  batch.tokens = tokens;
  batch.labels = few ? labels : NULL;         /* null: the loss of the pixels alone */
  batch.count = BATCH;
  for (step = 0; step < steps; step++) {
    for (i = 0; i < BATCH; i++) {
      const uint32_t k = few ? igpt_rng_below(&rng, LABELLED) : 0;
      labels[i] = few ? few_labels[k] : draw(tokens + i * T, &rng);
      if (few) memcpy(tokens + i * T, few + k * T, T * sizeof *tokens);
    }
    must(igpt_backward(session, NULL, &batch, NULL), "igpt_backward");
    adam.rate = (float)igpt_schedule(&schedule, step);
    must(igpt_step(session, model, NULL, &adam), "igpt_step");
  }
}

static double finetune(igpt_session *session, igpt_model *model)
{
  static uint16_t tokens[LABELLED * T], tests[TEST * T];
  static float logits[TEST * CLASSES];
  igpt_rng rng = igpt_rng_seed(2, 0);
  int32_t labels[LABELLED], truth[TEST];
  igpt_batch batch = {0};
  int i, k, best, right = 0;
  for (i = 0; i < LABELLED; i++) labels[i] = draw(tokens + i * T, &rng);
  for (i = 0; i < TEST; i++) truth[i] = draw(tests + i * T, &rng);
  batch.tokens = tests;
  batch.count = TEST;
  if (igpt_classify(session, logits, &batch) != IGPT_UNTRAINED_HEAD) return 0;    /* it refuses */
  train(session, model, TUNE, tokens, labels);
  must(igpt_classify(session, logits, &batch), "igpt_classify");
  for (i = 0; i < TEST; i++) {
    for (best = 0, k = 1; k < CLASSES; k++)
      if (logits[i * CLASSES + k] > logits[i * CLASSES + best]) best = k;
    right += best == truth[i];
  }
  return (double)right / TEST;
}

int main(void)
{
  igpt_model_desc shape = {0};
  igpt_session_desc work = {0};
  igpt_source source = {0};
  igpt_sink sink = {0};
  igpt_model *model;
  igpt_session *session;
  igpt_pool *pool;
  double accuracy[2];
  int start;

  must(igpt_pool_create(&pool, 0, NULL), "igpt_pool_create");
  shape.config.layers = 3;
  shape.config.heads = 2;
  shape.config.width = 32;
  shape.config.rows = shape.config.columns = SIDE;
  shape.config.vocabulary = COLOURS;
  work.batch = BATCH;
  work.train = 1;
  work.runner = igpt_pool_runner(pool);
  must(igpt_model_create(&model, &shape), "igpt_model_create");
  must(igpt_session_create(&session, model, &work), "igpt_session_create");
  train(session, model, PRETRAIN, NULL, NULL);
  sink.write = append;
  must(igpt_model_write(model, &sink), "igpt_model_write");
  igpt_session_destroy(session);
  igpt_model_destroy(model);

  source.memory = file;
  source.size = file_bytes;
  shape.config.classes = CLASSES;
  for (start = 0; start < 2; start++) {       /* from nothing, then from the file */
    if (start) must(igpt_model_read(&model, &source, &shape), "igpt_model_read");
    else must(igpt_model_create(&model, &shape), "igpt_model_create");
    must(igpt_session_create(&session, model, &work), "igpt_session_create");
    accuracy[start] = finetune(session, model);
    igpt_session_destroy(session);
    igpt_model_destroy(model);
  }
  printf("%d labels, %d classes, %d new pictures: %.1f %% from nothing, %.1f %% pre-trained\n",
         (int)LABELLED, (int)CLASSES, (int)TEST, 100 * accuracy[0], 100 * accuracy[1]);
  igpt_pool_destroy(pool);
  return EXIT_SUCCESS;
}
