/* calls.h: calls something of every part of the library, so that compiling it compiles, links and
   runs what a user would. Included after igpt.h, in C and in C++. calls() returns 0, or the number
   of the line that does not hold. */

#ifndef CALLS_H
#define CALLS_H

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct calls_memory {
  unsigned char bytes[1 << 17];
  size_t used;
} calls_memory;

static int calls_write(void *user, const void *from, size_t bytes)
{
  calls_memory *memory = (calls_memory *)user;
  if (bytes > sizeof memory->bytes - memory->used) return 1;
  memcpy(memory->bytes + memory->used, from, bytes);
  memory->used += bytes;
  return 0;
}

#define CALLS_NEED(condition) do { if (!(condition)) return __LINE__; } while (0)

static int calls_model(const igpt_palette *palette, const igpt_runner *runner)
{
  static calls_memory file;
  static float logits[2 * 16 * 8], features[2 * 8];
  static uint16_t tokens[2 * 16];
  const int middle = 1;
  igpt_model_desc shape;
  igpt_session_desc work;
  igpt_batch batch;
  igpt_sample_desc how;
  igpt_source source;
  igpt_sink sink;
  igpt_plan plan;
  igpt_model *model, *copy;
  igpt_session *session;
  double nats;
  size_t i, bytes;
  memset(&shape, 0, sizeof shape);
  memset(&work, 0, sizeof work);
  memset(&batch, 0, sizeof batch);
  memset(&how, 0, sizeof how);
  memset(&source, 0, sizeof source);
  shape.config.layers = 2;
  shape.config.heads = 2;
  shape.config.width = 8;
  shape.config.rows = 4;
  shape.config.vocabulary = palette->colours;
  if (runner) work.runner = *runner;
  work.batch = 2;
#ifndef IGPT_NO_TRAIN
  work.train = 1;
#endif
  CALLS_NEED(palette->colours == 8);
  CALLS_NEED(igpt_model_create(&model, &shape) == IGPT_OK);
  CALLS_NEED(igpt_model_set_palette(model, palette) == IGPT_OK);
  CALLS_NEED(igpt_session_create(&session, model, &work) == IGPT_OK);
  CALLS_NEED(igpt_plan_make(&plan, &shape.config, &work) == IGPT_OK);
  CALLS_NEED(igpt_session_bytes(&bytes, &shape.config, &work) == IGPT_OK);
  CALLS_NEED(plan.session_bytes == bytes);

  CALLS_NEED(igpt_sample(session, tokens, 2, &how) == IGPT_OK);
  batch.tokens = tokens;
  batch.count = 2;
  CALLS_NEED(igpt_forward(session, logits, &batch) == IGPT_OK);
  for (i = 0; i < 2 * 16 * 8; i++) CALLS_NEED(logits[i] == 0);
  CALLS_NEED(igpt_features(session, features, &batch, &middle, 1) == IGPT_OK);
  CALLS_NEED(igpt_nll(session, NULL, &nats, &batch) == IGPT_OK);
  CALLS_NEED(fabs(nats - log(8.0)) < 1e-6);
#ifndef IGPT_NO_TRAIN
  {
    double after;
    igpt_adam_desc adam;
    memset(&adam, 0, sizeof adam);
    adam.rate = 0.01f;
    for (i = 0; i < 5; i++) {
      CALLS_NEED(igpt_backward(session, NULL, &batch, NULL) == IGPT_OK);
      CALLS_NEED(igpt_step(session, model, NULL, &adam) == IGPT_OK);
    }
    CALLS_NEED(igpt_nll(session, NULL, &after, &batch) == IGPT_OK);
    CALLS_NEED(after < nats - 0.01);
  }
#endif
  sink.write = calls_write;
  sink.user = &file;
  file.used = 0;
  CALLS_NEED(igpt_model_write_bf16(model, &sink) == IGPT_OK);
  file.used = 0;
  CALLS_NEED(igpt_model_write_hf(model, &sink, 0) == IGPT_OK);
  file.used = 0;
  CALLS_NEED(igpt_model_write(model, &sink) == IGPT_OK);
  source.memory = file.bytes;
  source.size = file.used;
  CALLS_NEED(igpt_model_read(&copy, &source, NULL) == IGPT_OK);
  CALLS_NEED(igpt_model_parameters(copy) == igpt_model_parameters(model));
  CALLS_NEED(igpt_model_palette(copy) && igpt_model_palette(copy)->colours == 8);
#ifndef IGPT_NO_STDIO
  CALLS_NEED(igpt_model_save(model, "nowhere/at/all") == IGPT_WRITE_ERROR);
#endif
  igpt_model_destroy(copy);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  return 0;
}

static int calls(void)
{
  static uint8_t rgb[64 * 3], back[64 * 3];
  static uint16_t tokens[64];
  static float rows[8] = { -3, -2, -2, -1, 1, 2, 2, 3 };
  static const int32_t labels[8] = { 0, 0, 0, 0, 1, 1, 1, 1 };
  int32_t guessed[8];
  igpt_kmeans_desc kmeans;
  igpt_palette palette;
  igpt_probe *probe;
  int i, line;
  CALLS_NEED(igpt_selftest(IGPT_ISA_AUTO) == IGPT_OK);
  CALLS_NEED(igpt_kernels_for(igpt_isa_best()) != NULL);
  CALLS_NEED(strcmp(igpt_error_string(IGPT_OK), "success") == 0);

  for (i = 0; i < 64 * 3; i++) rgb[i] = (uint8_t)(i / 3 % 8 * 30 + i % 3);
  memset(&kmeans, 0, sizeof kmeans);
  kmeans.colours = 8;
  CALLS_NEED(igpt_palette_fit(&palette, NULL, rgb, 64, &kmeans) == IGPT_OK);
  CALLS_NEED(igpt_palette_encode(&palette, tokens, rgb, 64, NULL) == IGPT_OK);
  CALLS_NEED(igpt_palette_decode(&palette, back, tokens, 64) == IGPT_OK);
  CALLS_NEED(memcmp(rgb, back, sizeof rgb) == 0);
  {
    static uint8_t mask[64];
    static uint16_t shown[64];
    igpt_rng rng = igpt_rng_seed(1, 0);
    CALLS_NEED(igpt_mask_blocks(&rng, mask, 8, 8, 2, 0) == IGPT_OK);
    CALLS_NEED(igpt_mask_jigsaw(&rng, mask, shown, tokens, 8, 8, 4, 0) == IGPT_OK);
  }

  CALLS_NEED(igpt_probe_fit(&probe, NULL, rows, labels, 8, 1, NULL) == IGPT_OK);
  CALLS_NEED(igpt_probe_predict(probe, guessed, NULL, rows, 8) == IGPT_OK);
  CALLS_NEED(memcmp(guessed, labels, sizeof labels) == 0);
  igpt_probe_destroy(probe);

  line = calls_model(&palette, NULL);
#ifndef IGPT_NO_THREADS
  if (!line) {
    igpt_pool *pool;
    igpt_runner runner;
    CALLS_NEED(igpt_pool_create(&pool, 2, NULL) == IGPT_OK);
    runner = igpt_pool_runner(pool);
    line = calls_model(&palette, &runner);
    igpt_pool_destroy(pool);
  }
#endif
  return line;
}

#endif
