/* model.c: igpt_model_read on any bytes. What is read can be written, read again to the same bits,
   and computed with.                                                                             */

#include "fuzz.h"

/* What a network computes is a mean loss, or a code: weights that are huge may overflow. */
static void model_runs(const igpt_model *model)
{
  const igpt_config *c = igpt_model_config(model);
  const size_t T = (size_t)c->rows * (size_t)c->columns;
  igpt_session *session;
  igpt_session_desc desc;
  igpt_batch batch;
  igpt_result result;
  uint16_t tokens[64] = { 0 };
  uint8_t mask[64] = { 1 };
  double mean = 0;
  if (T > 64 || c->width > 64) return;
  memset(&desc, 0, sizeof desc);
  memset(&batch, 0, sizeof batch);
  desc.isa = IGPT_ISA_GENERIC;
  CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
  if (!session) return;
  batch.tokens = tokens;
  batch.mask = c->objective == IGPT_BERT ? mask : NULL;
  batch.count = 1;
  result = igpt_nll(session, NULL, &mean, &batch);
  CHECK(result == IGPT_OK || result == IGPT_NOT_FINITE);
  if (result == IGPT_OK) CHECK(mean - mean == 0);
  igpt_session_destroy(session);
}

static void model_write_and_read(const igpt_model *model)
{
  paper first = { 0 }, second = { 0 };
  igpt_sink sink = paper_sink(&first);
  igpt_source source;
  igpt_model *again = NULL;
  CHECK_INT(igpt_model_write(model, &sink), IGPT_OK);
  source = fuzz_source(&first, 0);
  CHECK_INT(igpt_model_read(&again, &source, NULL), IGPT_OK);
  sink = paper_sink(&second);
  if (again) CHECK_INT(igpt_model_write(again, &sink), IGPT_OK);
  CHECK(paper_same(&first, &second));
  igpt_model_destroy(again);
  free(first.data);
  free(second.data);
}

static void fuzz_model(const uint8_t *data, size_t size)
{
  paper bytes = { 0 };
  igpt_result results[2];
  int way, hint;
  bytes.data = (char *)fuzz_exact(data, size);
  bytes.size = size;
  fuzz_accepted = 0;
  for (hint = 0; hint < 2 && !fuzz_accepted; hint++) {        /* files of others do not say heads */
    for (way = 0; way < 2; way++) {
      igpt_source source = fuzz_source(&bytes, way);
      igpt_model_desc desc;
      igpt_model *model = (igpt_model *)data;                 /* must be overwritten */
      size_t i, before = fuzz_live;
      heard h;
      memset(&desc, 0, sizeof desc);
      desc.log = fuzz_log(&h);
      desc.config.heads = hint ? 2 : 0;
      desc.config.rows = hint;
      desc.config.classes = hint ? 3 : 0;
      fuzz_start();
      results[way] = igpt_model_read(&model, &source, &desc);
      fuzz_bound(size + before, 16, 100000);
      fuzz_sentence(results[way], &h);
      CHECK((results[way] == IGPT_OK) == (model != NULL));
      if (results[way] != IGPT_OK) {
        CHECK_INT(fuzz_live, before);
        continue;
      }
      fuzz_accepted = 1;
      for (i = 0; i < igpt_model_parameters(model); i++)
        if (!(model->scalars[i] - model->scalars[i] == 0)) break;
      CHECK_INT(i, igpt_model_parameters(model));
      model_write_and_read(model);
      if (way == 0) model_runs(model);
      igpt_model_destroy(model);
    }
    CHECK_INT(results[0], results[1]);
  }
  free(bytes.data);
  fuzz_end(0);
}

FUZZ_TARGET(fuzz_model)
