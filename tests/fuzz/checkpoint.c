/* checkpoint.c: igpt_checkpoint_read on any bytes. A bad file changes neither model nor session; a
   good one is written again and read to the same bits.                                           */

#include "fuzz.h"

#ifndef IGPT_NO_TRAIN

typedef struct checkpoint_run {
  igpt_model *model;
  igpt_session *session;
  heard h;
} checkpoint_run;

/* One layer of width 2, two positions: a file of 5 KB. */
static void checkpoint_open(checkpoint_run *r)
{
  igpt_model_desc desc;
  igpt_session_desc session;
  size_t i;
  memset(&desc, 0, sizeof desc);
  memset(&session, 0, sizeof session);
  desc.config.layers = 1;
  desc.config.heads = 1;
  desc.config.width = 2;
  desc.config.rows = 1;
  desc.config.columns = 2;
  desc.config.vocabulary = 3;
  desc.config.classes = 2;
  session.train = 1;
  session.isa = IGPT_ISA_GENERIC;
  session.log = fuzz_log(&r->h);
  CHECK_INT(igpt_model_create(&r->model, &desc), IGPT_OK);
  CHECK_INT(igpt_session_create(&r->session, r->model, &session), IGPT_OK);
  if (!r->model || !r->session) exit(2);
  for (i = 0; i < igpt_model_parameters(r->model); i++) {
    r->model->scalars[i] = (float)(i % 17) / 16 - 0.5f;
    r->session->moment1[i] = (float)(i % 5) / 64 - 0.03125f;
    r->session->moment2[i] = (float)(i % 7) / 64;
  }
  r->model->step = r->session->steps = 12;
}

static void checkpoint_close(checkpoint_run *r)
{
  igpt_session_destroy(r->session);
  igpt_model_destroy(r->model);
}

static void checkpoint_write(paper *to, const checkpoint_run *r, const igpt_progress *progress)
{
  igpt_sink sink = paper_sink(to);
  CHECK_INT(igpt_checkpoint_write(r->session, r->model, progress, &sink), IGPT_OK);
}

static void fuzz_checkpoint(const uint8_t *data, size_t size)
{
  checkpoint_run r;
  paper bytes = { 0 }, before = { 0 }, after = { 0 }, again = { 0 };
  igpt_progress progress, untouched;
  igpt_source source;
  igpt_result result;
  size_t held;
  checkpoint_open(&r);
  checkpoint_write(&before, &r, NULL);
  memset(&progress, 0x55, sizeof progress);
  untouched = progress;
  bytes.data = (char *)fuzz_exact(data, size);
  bytes.size = size;
  source = fuzz_source(&bytes, size & 1);
  held = fuzz_live;
  fuzz_start();
  result = igpt_checkpoint_read(r.session, r.model, &progress, &source);
  fuzz_bound(size, 4, held + 40000);
  CHECK_INT(fuzz_live, held);
  fuzz_sentence(result, &r.h);
  fuzz_accepted = result == IGPT_OK;
  checkpoint_write(&after, &r, result ? NULL : &progress);
  if (result) {
    CHECK(paper_same(&before, &after));
    CHECK(memcmp(&progress, &untouched, sizeof progress) == 0);
  } else {
    source = fuzz_source(&after, 1);
    CHECK_INT(igpt_checkpoint_read(r.session, r.model, &progress, &source), IGPT_OK);
    checkpoint_write(&again, &r, &progress);
    CHECK(paper_same(&after, &again));
  }
  checkpoint_close(&r);
  free(bytes.data);
  free(before.data);
  free(after.data);
  free(again.data);
  fuzz_end(0);
}

FUZZ_TARGET(fuzz_checkpoint)

#endif
