/* cc -O2 -I. -o build/hf tests/interop/hf.c -lm -pthread

   The C half of hf.py: makes model files, and runs model files on tokens.

     hf make MODEL layers heads width rows columns vocabulary classes seed
     hf run MODEL TOKENS.npy LOGITS.npy [heads]         logits (N,T,V) of tokens (N,T)
     hf classify MODEL TOKENS.npy LOGITS.npy [heads]    class logits (N,K)                        */

#define IGPT_IMPLEMENTATION
#include "igpt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say(void *user, igpt_result result, const char *sentence)
{
  (void)user;
  fprintf(stderr, "hf: %s (%s)\n", sentence, igpt_error_string(result));
}

static igpt_log log_to_stderr(void)
{
  igpt_log log;
  log.line = say;
  log.user = NULL;
  return log;
}

/* Random numbers everywhere, the output matrices included, so that no mistake cancels out. */
static int make(char **argument)
{
  igpt_model_desc desc;
  igpt_palette palette;
  igpt_model *model;
  igpt_rng rng;
  size_t i, j;
  int failed;
  memset(&desc, 0, sizeof desc);
  memset(&palette, 0, sizeof palette);
  desc.log = log_to_stderr();
  desc.config.layers = atoi(argument[1]);
  desc.config.heads = atoi(argument[2]);
  desc.config.width = atoi(argument[3]);
  desc.config.rows = atoi(argument[4]);
  desc.config.columns = atoi(argument[5]);
  desc.config.vocabulary = atoi(argument[6]);
  desc.config.classes = atoi(argument[7]);
  desc.seed = (uint64_t)atoi(argument[8]);
  if (igpt_model_create(&model, &desc)) return 1;
  rng = igpt_rng_seed(desc.seed, 1000);
  for (i = 0; i < igpt_model_tensors(model); i++) {
    igpt_tensor tensor;
    igpt_model_tensor_at(model, &tensor, i);
    for (j = 0; j < tensor.count; j++) {
      const float x = igpt_rng_normal(&rng);
      if (tensor.rank == 1) tensor.data[j] = 1 + 0.2f * x;
      else tensor.data[j] = x * (i < 2 ? 0.5f : 0.15f);
    }
  }
  palette.colours = desc.config.vocabulary;
  strcpy(palette.name, "random \xe2\x88\x9e \"colours\"");
  for (i = 0; i < (size_t)palette.colours; i++)
    for (j = 0; j < 3; j++) palette.centre[i][j] = 2 * igpt_rng_uniform(&rng) - 1;
  failed = igpt_model_set_palette(model, &palette) || igpt_model_save(model, argument[0]);
  igpt_model_destroy(model);
  return failed;
}

typedef struct array {
  float *data;
  int rank;
  uint64_t shape[3];
} array;

static igpt_result write_array(void *user, const igpt_sink *sink)
{
  const array *a = (const array *)user;
  return igpt_npy_write(sink, IGPT_NPY_F32, a->data, a->rank, a->shape);
}

static int run(char **argument, int heads, int classify)
{
  igpt_log log = log_to_stderr();
  igpt_model_desc desc;
  igpt_session_desc session_desc;
  igpt_model *model;
  igpt_session *session;
  igpt_source source;
  igpt_batch batch;
  igpt_npy npy;
  igpt_result result;
  const igpt_config *config;
  uint16_t *tokens;
  int64_t *wide;
  array out;
  size_t i, positions;
  memset(&desc, 0, sizeof desc);
  memset(&session_desc, 0, sizeof session_desc);
  memset(&batch, 0, sizeof batch);
  desc.log = session_desc.log = log;
  desc.config.heads = heads;
  if (igpt_model_load(&model, argument[0], &desc)) return 1;
  config = igpt_model_config(model);
  positions = (size_t)config->rows * (size_t)config->columns;
  if (igpt_session_create(&session, model, &session_desc)) return 1;

  if (igpt_file_open(&source, argument[1], &log) || igpt_npy_open(&npy, &source, &log)) return 1;
  if (npy.rank != 2 || npy.shape[1] != positions) {
    fprintf(stderr, "hf: tokens must be (N,%u)\n", (unsigned)positions);
    return 1;
  }
  wide = (int64_t *)malloc((size_t)npy.count * sizeof *wide);
  tokens = (uint16_t *)malloc((size_t)npy.count * sizeof *tokens);
  if (!wide || !tokens || igpt_npy_read_i64(&npy, wide, 0, (size_t)npy.count, &source)) return 1;
  igpt_file_close(&source);
  for (i = 0; i < npy.count; i++) tokens[i] = (uint16_t)wide[i];

  batch.tokens = tokens;
  batch.count = (size_t)npy.shape[0];
  out.shape[0] = npy.shape[0];
  out.rank = classify ? 2 : 3;
  out.shape[1] = classify ? (uint64_t)config->classes : positions;
  out.shape[2] = classify ? 1 : (uint64_t)config->vocabulary;
  out.data = (float *)malloc((size_t)(out.shape[0] * out.shape[1] * out.shape[2]) * sizeof(float));
  if (!out.data) return 1;
  result = classify ? igpt_classify(session, out.data, &batch)
                    : igpt_forward(session, out.data, &batch);
  if (!result) result = igpt_file_replace(argument[2], &log, write_array, &out);
  free(out.data);
  free(tokens);
  free(wide);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  return result != IGPT_OK;
}

int main(int count, char **argument)
{
  if (count == 11 && strcmp(argument[1], "make") == 0) return make(argument + 2);
  if ((count == 5 || count == 6) && strcmp(argument[1], "run") == 0)
    return run(argument + 2, count == 6 ? atoi(argument[5]) : 0, 0);
  if ((count == 5 || count == 6) && strcmp(argument[1], "classify") == 0)
    return run(argument + 2, count == 6 ? atoi(argument[5]) : 0, 1);
  fprintf(stderr, "usage: see the head of tests/interop/hf.c\n");
  return 2;
}
