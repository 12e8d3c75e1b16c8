/* cc -std=c99 -O2 -I. -o build/tests/edges tests/edges.c -lm -pthread

   What the other tests have no reason to call: null objects, nothing to do, the ends of ranges;
   calls that are stopped wherever they ask; kernels that are wrong, which the self-test notices. */

#define _DEFAULT_SOURCE 1         /* part.h: anonymous pages */
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "part.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static heard told;

/* The call fails with this code, and says so once, with this word in it. */
#define CHECK_SAYS(call, code, word)                                                              \
  do {                                                                                            \
    memset(&told, 0, sizeof told);                                                                \
    CHECK_INT(call, code);                                                                        \
    CHECK_INT(told.lines, 1);                                                                     \
    CHECK_INT(told.result, code);                                                                 \
    CHECK(strstr(told.text, word) != NULL);                                                       \
  } while (0)

static igpt_log listening(void)
{
  igpt_log log;
  log.line = hear;
  log.user = &told;
  return log;
}

/* ---- small tools ----------------------------------------------------------------------------- */

TEST(sentences_of_codes)
{
#define CHECK_CODE(name, value, text) CHECK(strcmp(igpt_error_string(name), text) == 0);
  IGPT_RESULTS(CHECK_CODE)
#undef CHECK_CODE
  CHECK(strcmp(igpt_error_string((igpt_result)1), "unknown result") == 0);
  CHECK(strcmp(igpt_error_string((igpt_result)-99), "unknown result") == 0);
  CHECK(strcmp(igpt_error_string(IGPT__RESULT_FORCE_INT), "unknown result") == 0);
}

#ifndef IGPT_NO_STDIO
TEST(paths_and_sentences_are_cut)
{
  char path[1000], cut[sizeof told.text];
  const igpt_log log = listening();
  igpt_model_desc desc;
  igpt_model *model = (igpt_model *)1;
  memset(&desc, 0, sizeof desc);
  desc.log = log;
  memset(path, 'x', sizeof path - 1);
  path[sizeof path - 1] = 0;
  memset(cut, 'x', sizeof cut - 1);
  cut[sizeof cut - 1] = 0;
  CHECK_SAYS(igpt_model_load(&model, path, &desc), IGPT_READ_ERROR, "x: cannot open: ");
  CHECK(model == NULL && strspn(told.text, "x") == 150);
  CHECK_SAYS(igpt__fail(&log, IGPT_BAD_FILE, "%s", path), IGPT_BAD_FILE, "xxx");
  CHECK(strcmp(told.text, cut) == 0);         /* 399 characters of it */
}
#endif

/* 2^32 draws fall on 3 * 2^30 numbers: on every third twice, unless some are drawn again. */
TEST(draws_below_a_bound)
{
  enum { DRAWS = 60000 };
  igpt_rng rng = igpt_rng_seed(1, 2);
  int third[3] = { 0, 0, 0 }, wide[3] = { 0, 0, 0 }, i;
  CHECK_INT(igpt_rng_below(&rng, 0), 0);
  CHECK_INT(rng.index, 0);
  for (i = 0; i < DRAWS; i++) {
    const uint32_t drawn = igpt_rng_below(&rng, 3u << 30);
    CHECK(drawn < 3u << 30);
    third[drawn % 3]++;
  }
  CHECK(rng.index > DRAWS * 5 / 4 && rng.index < DRAWS * 3 / 2);      /* a quarter is refused */
  for (i = 0; i < DRAWS; i++) wide[igpt__rng_below64(&rng, (uint64_t)3 << 62) >> 62]++;
  for (i = 0; i < 3; i++) {
    CHECK_NEAR(third[i], DRAWS / 3.0, 5 * sqrt(DRAWS * 2 / 9.0));     /* five deviations */
    CHECK_NEAR(wide[i], DRAWS / 3.0, 5 * sqrt(DRAWS * 2 / 9.0));
  }
}

/* ---- kernels that are wrong ------------------------------------------------------------------ */

static const igpt_kernels *right;

static void wrong_tile(float *c, size_t ldc, const float *a, const float *b, size_t ldb, size_t m,
                       size_t k, int accumulate)
{
  right->tile(c, ldc, a, b, ldb, m, k, accumulate);
  c[(m - 1) * ldc] += 1e-3f;
}

static void wrong_thin(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                       size_t m, size_t n, size_t k, int accumulate, int round)
{
  right->thin(y, ldy, x, ldx, w, ldw, m, n, k, accumulate, round);
  y[n - 1] = -y[n - 1];
}

static void wrong_pack(float *to, size_t lanes, const float *from, size_t lane_stride,
                       size_t k_stride, size_t count, size_t k, int round)
{
  right->pack(to, lanes, from, lane_stride, k_stride, count, k, round);
  if (k_stride == 1 && lanes > 1) to[1] += 1;
}

static void wrong_narrow(float *y, size_t ldy, const float *x, size_t lanes, const void *w,
                         size_t ldw, size_t apart, int bytes, const float *scale, size_t m,
                         size_t n, size_t k, int accumulate)
{
  right->narrow(y, ldy, x, lanes, w, ldw, apart, bytes, scale, m, n, k, accumulate);
  if (bytes == 1) y[n - 1] += 1;
}

static void wrong_halve(uint16_t *to, const float *from, size_t n)
{
  right->halve(to, from, n);
  to[n - 1] ^= 1;
}

static void wrong_peaks(float *most, const float *x, size_t lanes, size_t k)
{
  right->peaks(most, x, lanes, k);
  most[lanes - 1] = nextafterf(most[lanes - 1], 9);
}

static void wrong_quantise(int8_t *to, const float *x, const float *factor, size_t lanes, size_t k)
{
  right->quantise(to, x, factor, lanes, k);
  to[0] ^= 1;
}

static int wrong_part;            /* of what softmax_block writes */

static void wrong_softmax(float *s, size_t n, float scale, float *most, float *total, float *o,
                          size_t E, int round)
{
  right->softmax_block(s, n, scale, most, total, o, E, round);
  *(wrong_part == 0 ? s : wrong_part == 1 ? o : wrong_part == 2 ? most : total) += 1;
}

static void wrong_losses(float *z, float *own, float *gap, float *excess, size_t n, size_t lanes)
{
  right->class_loss(z, own, gap, excess, n, lanes);
  *(wrong_part == 0 ? z : wrong_part == 1 ? own : wrong_part == 2 ? gap : excess) += 1;
}

static void wrong_nearest(uint16_t *index, const float *points, const float *centres, size_t count,
                          size_t padded)
{
  right->nearest(index, points, centres, count, padded);
  index[wrong_part] ^= 1;
}

static void wrong_among(uint16_t *index, const uint8_t *rgb, const float *centres,
                        const uint16_t *lists, const uint16_t *which, size_t count)
{
  right->among(index, rgb, centres, lists, which, count);
  index[count - 1] ^= 1;
}

static void wrong_beyond(float *beyond, const float *centres, const float *box, size_t padded)
{
  right->beyond(beyond, centres, box, padded);
  beyond[0] += 1;
}

/* The trials of igpt_selftest, with one kernel after another that is wrong in one number. */
TEST(selftest_notices)
{
  igpt_kernels k;
  right = igpt_kernels_for(IGPT_ISA_AUTO);
  k = *right;
  CHECK(igpt__trial_products(&k, 0) && igpt__trial_products(&k, 1));
  CHECK(igpt__trial_softmax(&k, 0) && igpt__trial_losses(&k) && igpt__trial_narrow(&k));
  CHECK(igpt__trial_nearest(&k) && igpt__trial_lists(&k));
  k.tile = wrong_tile;
  CHECK(!igpt__trial_products(&k, 0));
  k.tile = right->tile;
  k.pack = wrong_pack;
  CHECK(!igpt__trial_products(&k, 0));
  k.pack = right->pack;
  k.thin = wrong_thin;
  CHECK(!igpt__trial_products(&k, 1));
  k.thin = right->thin;
  for (wrong_part = 0; wrong_part < 4; wrong_part++) {
    k.softmax_block = wrong_softmax;
    CHECK(!igpt__trial_softmax(&k, 0));
    k.class_loss = wrong_losses;
    CHECK(!igpt__trial_losses(&k));
  }
  k.halve = wrong_halve;
  CHECK(!igpt__trial_narrow(&k));
  k.halve = right->halve;
  k.peaks = wrong_peaks;
  CHECK(!igpt__trial_narrow(&k));
  k.peaks = right->peaks;
  k.quantise = wrong_quantise;
  CHECK(!igpt__trial_narrow(&k));
  k.quantise = right->quantise;
  k.narrow = wrong_narrow;
  CHECK(!igpt__trial_narrow(&k));
  k.nearest = wrong_nearest;
  for (wrong_part = 0; wrong_part < 2; wrong_part++) CHECK(!igpt__trial_nearest(&k));
  k.among = wrong_among;
  CHECK(!igpt__trial_lists(&k));
  k.among = right->among;
  k.beyond = wrong_beyond;
  CHECK(!igpt__trial_lists(&k));
}

/* ---- null objects, nothing to do, ends of ranges --------------------------------------------- */

enum { T = 12, V = 8, L = 3, N = 3 };

static igpt_model *model_of(igpt_objective objective, int classes)
{
  igpt_model_desc desc;
  igpt_model *model = NULL;
  igpt_rng rng = igpt_rng_seed(3, 4);
  size_t t, i;
  memset(&desc, 0, sizeof desc);
  desc.config.layers = L;
  desc.config.heads = 2;
  desc.config.width = 16;
  desc.config.rows = 3;
  desc.config.columns = 4;
  desc.config.vocabulary = V;
  desc.config.classes = classes;
  desc.config.objective = objective;
  desc.log = listening();
  CHECK_INT(igpt_model_create(&model, &desc), IGPT_OK);
  for (t = 0; t < igpt_model_tensors(model); t++) {
    igpt_tensor tensor;
    CHECK_INT(igpt_model_tensor_at(model, &tensor, t), IGPT_OK);
    for (i = 0; i < tensor.count; i++)
      tensor.data[i] = (tensor.rank == 1 ? 1 : 0) + 0.2f * igpt_rng_normal(&rng);
  }
  return model;
}

static igpt_session_desc session_desc(void)
{
  igpt_session_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.batch = 2;
  desc.log = listening();
  return desc;
}

TEST(defaults_of_null)
{
  igpt_model *model = NULL;
  igpt_plan plan, given;
  igpt_config config;
  size_t bytes = 7;
  memset(&config, 0, sizeof config);
  CHECK_INT(igpt_model_create(&model, NULL), IGPT_OK);
  CHECK_INT(igpt_model_config(model)->width, 128);
  CHECK_INT(igpt_plan_make(&plan, NULL, NULL), IGPT_OK);
  CHECK_INT(igpt_plan_make(&given, &config, NULL), IGPT_OK);
  CHECK(plan.session_bytes == given.session_bytes && plan.model_bytes == given.model_bytes);
  CHECK_INT(plan.parameters, igpt_model_parameters(model));
  CHECK_INT(igpt_session_bytes(NULL, &config, NULL), IGPT_BAD_ARGUMENT);
  config.layers = -1;
  CHECK_INT(igpt_session_bytes(&bytes, &config, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_plan_make(&given, &config, NULL), IGPT_BAD_ARGUMENT);
  CHECK(bytes == 7 && given.session_bytes == plan.session_bytes);     /* left alone */
  CHECK(igpt_session_resolved(NULL) == NULL);
  CHECK_INT(igpt_model_bytes(&bytes, NULL), IGPT_OK);
  CHECK(bytes > 4 * igpt_model_parameters(model));
  memset(&config, 0, sizeof config);
  config.heads = 3;
  CHECK_INT(igpt_config_resolve(&config, NULL), IGPT_BAD_ARGUMENT);   /* of width 128 */
  CHECK(config.heads == 3 && config.layers == 0 && config.width == 0 && config.rows == 0);
  CHECK_INT(igpt_kernels_for(IGPT_ISA_COUNT) == NULL, 1);
  CHECK(strcmp(igpt_isa_name(IGPT_ISA_COUNT), igpt_isa_name((igpt_isa)-1)) == 0);
  igpt_model_destroy(model);
  igpt_model_destroy(NULL);
  igpt_session_destroy(NULL);
}

TEST(null_models)
{
  igpt_model *model = model_of(IGPT_AR, 0), *wide = NULL;
  igpt_model_desc desc;
  igpt_palette palette;
  igpt_tensor tensor;
  memset(&palette, 0, sizeof palette);
  memset(&tensor, 0, sizeof tensor);
  CHECK_INT(igpt_model_tensor_at(NULL, &tensor, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_tensor_at(model, NULL, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_tensor(model, NULL, "lm_head.weight"), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_tensor(model, &tensor, NULL), IGPT_BAD_ARGUMENT);
  CHECK(tensor.data == NULL);
  CHECK_INT(igpt_model_set_palette(NULL, &palette), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_set_palette(model, NULL), IGPT_BAD_ARGUMENT);
  strcpy(palette.name, "seven");
  palette.colours = V - 1;
  CHECK_SAYS(igpt_model_set_palette(model, &palette), IGPT_MISMATCH, "\"seven\" has 7 colours");
  memset(&desc, 0, sizeof desc);
  desc.config = *igpt_model_config(model);
  desc.config.vocabulary = IGPT_PALETTE_MAX + 1;
  desc.log = listening();
  CHECK_INT(igpt_model_create(&wide, &desc), IGPT_OK);
  palette.colours = IGPT_PALETTE_MAX + 1;     /* more than a palette can hold */
  CHECK_SAYS(igpt_model_set_palette(wide, &palette), IGPT_MISMATCH, "513");
  CHECK(igpt_model_palette(model) == NULL && igpt_model_palette(wide) == NULL);
  igpt_model_destroy(wide);
  igpt_model_destroy(model);
}

/* An empty batch is no error, and nothing is written. */
TEST(nothing_to_do)
{
  igpt_model *ar = model_of(IGPT_AR, 2), *bert = model_of(IGPT_BERT, 2);
  igpt_session_desc desc = session_desc();
  igpt_session *s = NULL, *b = NULL;
  igpt_sample_desc how;
  igpt_batch none, one;
  uint16_t tokens[T] = { 0 };
  uint8_t mask[T] = { 0 };
  float out = 5;
  double mean = 5;
  const int layer = 0;
  memset(&none, 0, sizeof none);
  memset(&how, 0, sizeof how);
  one = none;
  one.tokens = tokens;
  one.count = 1;
  CHECK_INT(igpt_session_create(&s, ar, &desc), IGPT_OK);
  CHECK_INT(igpt_session_create(&b, bert, &desc), IGPT_OK);
  CHECK_INT(igpt_forward(s, &out, &none), IGPT_OK);
  CHECK_INT(igpt_classify(s, &out, &none), IGPT_OK);
  CHECK_INT(igpt_features(s, &out, &none, &layer, 1), IGPT_OK);
  CHECK_INT(igpt_features(s, &out, &one, &layer, 0), IGPT_OK);
  CHECK_INT(igpt_attention_map(s, &out, &none, 0, 0), IGPT_OK);
  CHECK_INT(igpt_sample(s, tokens, 0, &how), IGPT_OK);
  CHECK_INT(igpt_fill(b, tokens, mask, 0, &how), IGPT_OK);
  CHECK_INT(igpt_fill(b, tokens, mask, 1, &how), IGPT_OK);            /* nothing is hidden */
  CHECK(memcmp(tokens, mask, sizeof mask) == 0);                      /* both zero */
  CHECK(out == 5);
  CHECK_INT(igpt_nll(s, &out, &mean, &none), IGPT_OK);
  CHECK(out == 5 && mean == 0);
  mean = 5;
  CHECK_INT(igpt_nll(b, NULL, &mean, &one), IGPT_OK);                 /* no mask: nothing counts */
  CHECK(mean == 0);
  igpt_session_destroy(b);
  igpt_session_destroy(s);
  igpt_model_destroy(bert);
  igpt_model_destroy(ar);
}

TEST(ends_of_ranges)
{
  igpt_model *ar = model_of(IGPT_AR, 2), *bert = model_of(IGPT_BERT, 0);
  igpt_session_desc desc = session_desc();
  igpt_session *s = NULL, *b = NULL;
  igpt_sample_desc how;
  igpt_batch batch;
  igpt_rng rng = igpt_rng_seed(1, 1);
  uint16_t tokens[2 * T] = { 0 };
  uint8_t mask[4] = { 9, 9, 9, 9 }, hidden[T] = { 0 };
  float logits[2 * V], map[T * T], same[V] = { 0 };
  int i;
  memset(&how, 0, sizeof how);
  memset(&batch, 0, sizeof batch);
  batch.tokens = tokens;
  batch.count = 1;
  desc.runner.run = part_run;     /* with no workers, which is none: it is never called */
  CHECK_INT(igpt_session_create(&s, ar, &desc), IGPT_OK);
  CHECK_SAYS(igpt_attention_map(s, map, &batch, -1, 0), IGPT_BAD_ARGUMENT, "layer -1");
  CHECK_SAYS(igpt_attention_map(s, map, &batch, 0, -1), IGPT_BAD_ARGUMENT, "head -1");
  CHECK_INT(igpt_attention_map(s, map, &batch, L - 1, 1), IGPT_OK);
  CHECK_SAYS(igpt_decode_begin(s, tokens, 0, 0), IGPT_BAD_ARGUMENT, "count 0");
  CHECK_SAYS(igpt_decode_begin(s, tokens, -1, 1), IGPT_BAD_ARGUMENT, "keep -1");
  CHECK_INT(igpt_decode_begin(s, tokens, 0, 1), IGPT_OK);     /* which the next one ends */
  CHECK_SAYS(igpt_decode_begin(s, tokens, T, 1), IGPT_BAD_ARGUMENT, "keep 12");
  CHECK_SAYS(igpt_decode(s, logits, NULL), IGPT_BAD_ARGUMENT, "igpt_decode_begin comes first");
  CHECK_INT(igpt_decode_begin(s, tokens, T - 1, 2), IGPT_OK);
  CHECK_SAYS(igpt_decode(s, NULL, tokens), IGPT_BAD_ARGUMENT, "logits is null");
  CHECK_INT(igpt_decode(s, logits, NULL), IGPT_OK);                   /* the last position */
  CHECK_SAYS(igpt_decode(s, logits, tokens), IGPT_BAD_ARGUMENT, "all positions");
  how.temperature = HUGE_VALF;
  CHECK_SAYS(igpt_sample(s, tokens, 1, &how), IGPT_BAD_ARGUMENT, "temperature inf");
  how.temperature = 1;
  how.top_p = -0.5f;
  CHECK_SAYS(igpt_sample(s, tokens, 1, &how), IGPT_BAD_ARGUMENT, "top_p -0.5");
  how.top_p = 1;
  how.rounds = -1;
  CHECK_SAYS(igpt_sample(s, tokens, 1, &how), IGPT_BAD_ARGUMENT, "rounds -1");
  CHECK_SAYS(igpt_fill(s, tokens, mask, 1, &how), IGPT_BAD_ARGUMENT, "rounds -1");
  how.rounds = 0;
  CHECK_SAYS(igpt_fill(s, tokens, mask, 1, &how), IGPT_WRONG_OBJECTIVE, "BERT");
  CHECK_INT(igpt_session_create(&b, bert, &desc), IGPT_OK);
  tokens[T - 1] = V;
  tokens[0] = V - 1;
  CHECK_SAYS(igpt_fill(b, tokens, hidden, 1, &how), IGPT_BAD_ARGUMENT, "8");
  CHECK(tokens[0] == V - 1);                  /* hidden, and not touched yet */
  tokens[0] = tokens[T - 1] = 0;
  igpt_session_destroy(b);
  CHECK_INT(igpt_draw(NULL, same, V, NULL), -1);
  CHECK_INT(igpt_draw(&rng, NULL, V, NULL), -1);
  CHECK_INT(igpt_draw(&rng, same, 0, NULL), -1);
  for (i = 0; i < V; i++) CHECK(same[i] == 0);
  igpt_mask_random(NULL, mask, 4, 0);
  igpt_mask_random(&rng, NULL, 4, 0);
  for (i = 0; i < 4; i++) CHECK_INT(mask[i], 9);
  igpt_session_destroy(s);
  igpt_model_destroy(bert);
  igpt_model_destroy(ar);
}

/* ---- calls that are stopped wherever they ask ------------------------------------------------ */

typedef struct work {
  igpt_session *session;
  igpt_batch batch;
  uint16_t *tokens;
  uint8_t *mask;
  float *out;                     /* (N, T, T) floats at most, or V or classes instead of one T */
  patience *watch;
} work;

static igpt_result work_forward(work *w) { return igpt_forward(w->session, w->out, &w->batch); }
static igpt_result work_nll(work *w) { return igpt_nll(w->session, w->out, NULL, &w->batch); }
static igpt_result work_classify(work *w) { return igpt_classify(w->session, w->out, &w->batch); }

static igpt_result work_features(work *w)
{
  static const int layers[] = { 0, L };
  return igpt_features(w->session, w->out, &w->batch, layers, 2);
}

static igpt_result work_first_features(work *w)
{
  static const int layers[] = { 0 };
  return igpt_features(w->session, w->out, &w->batch, layers, 1);
}

static igpt_result work_map(work *w)
{
  return igpt_attention_map(w->session, w->out, &w->batch, L - 1, 1);
}

static igpt_result work_decode(work *w)
{
  igpt_result result = igpt_decode_begin(w->session, w->batch.tokens, 3, 2);
  w->watch->last = 0;             /* two calls */
  return result ? result : igpt_decode(w->session, w->out, NULL);
}

static igpt_result work_sample(work *w)
{
  memcpy(w->tokens, w->batch.tokens, N * T * sizeof *w->tokens);
  return igpt_sample(w->session, w->tokens, N, NULL);
}

static igpt_result work_fill(work *w)
{
  memcpy(w->tokens, w->batch.tokens, N * T * sizeof *w->tokens);
  return igpt_fill(w->session, w->tokens, w->mask, N, NULL);
}

#ifndef IGPT_NO_TRAIN
static igpt_result work_backward(work *w)
{
  float *block = NULL;
  size_t count = 0, pictures = 0, i;
  igpt_result result = igpt_backward(w->session, NULL, &w->batch, NULL);
  CHECK_INT(igpt_gradients(w->session, &block, &count, &pictures), IGPT_OK);
  CHECK_INT(pictures, result ? 0 : N);
  for (i = 0; i < count && block[i] == 0; i++) {}
  CHECK_INT(i == count, result != IGPT_OK);   /* all gone, or not all of them */
  memset(w->out, 0, N * T * T * sizeof *w->out);
  for (i = 0; i < count; i++) w->out[i % (N * T * T)] += block[i];
  CHECK_INT(igpt_gradients_zero(w->session), IGPT_OK);
  return result;
}
#endif

static const struct {
  const char *name;
  igpt_result (*call)(work *w);
  int ar, bert, train;            /* what can do it; 1 in train: needs a session that trains */
} works[] = {
  { "forward", work_forward, 1, 1, 0 },
  { "nll", work_nll, 1, 1, 0 },
  { "classify", work_classify, 1, 1, 0 },
  { "features", work_features, 1, 1, 0 },
  { "features of depth 0", work_first_features, 1, 1, 0 },
  { "attention_map", work_map, 1, 1, 0 },
  { "decode", work_decode, 1, 0, 0 },
  { "sample", work_sample, 1, 0, 0 },
#ifndef IGPT_NO_TRAIN
  { "backward", work_backward, 1, 1, 1 },
#endif
  { "fill", work_fill, 0, 1, 0 }
};

/* Every call of a session is stopped at its first question, at its second, and so on until it comes
   to its end, where it has the bits of one that nobody stopped. */
static void stop_everywhere(igpt_objective objective, igpt_session_desc desc)
{
  igpt_model *model = model_of(objective, 2);
  uint16_t given[N * T], tokens[N * T], drawn[N * T];
  uint8_t mask[N * T];
  int32_t labels[N] = { 0, 1, 1 };
  float out[N * T * T], first[N * T * T];
  igpt_rng rng = igpt_rng_seed(5, 6);
  patience p = { 0, 0, 0, 0 };
  work w;
  size_t i, kind;
  for (i = 0; i < N * T; i++) given[i] = (uint16_t)igpt_rng_below(&rng, V);
  for (i = 0; i < N * T; i++) mask[i] = i % 3 != 1;
  memset(&w, 0, sizeof w);
  w.batch.tokens = given;
  w.batch.mask = objective == IGPT_BERT ? mask : NULL;
  w.batch.labels = labels;
  w.batch.count = N;
  w.tokens = tokens;
  w.mask = mask;
  w.out = out;
  w.watch = &p;
  desc.watch.poll = poll_patience;
  desc.watch.user = &p;
  CHECK_INT(igpt_session_create(&w.session, model, &desc), IGPT_OK);
  for (kind = 0; kind < COUNT(works); kind++) {
    igpt_result result = IGPT_CANCELLED;
    if (!(objective == IGPT_AR ? works[kind].ar : works[kind].bert)) continue;
    if (works[kind].train && !desc.train) continue;
    memset(out, 0, sizeof out);
    memset(tokens, 0, sizeof tokens);
    p.asked = 0;
    p.enough = 1 << 30;
    CHECK_INT(works[kind].call(&w), IGPT_OK);
    CHECK(p.last + 2 * p.leap >= 0.99 && p.leap * p.asked <= 12);      /* done in even steps */
    memcpy(first, out, sizeof out);
    memcpy(drawn, tokens, sizeof tokens);
    for (p.enough = 1; p.enough < 10000; p.enough += 1 + p.enough / TEST_AMOUNT(16, 2)) {
      p.asked = 0;
      result = works[kind].call(&w);
      if (result == IGPT_OK) break;
      CHECK_INT(result, IGPT_CANCELLED);
      CHECK_INT(p.asked, p.enough);
    }
    if (result || p.enough < 3) printf("%s asked %d times\n", works[kind].name, p.enough);
    CHECK(result == IGPT_OK && p.enough > 2);
    CHECK(memcmp(out, first, sizeof out) == 0 && memcmp(tokens, drawn, sizeof tokens) == 0);
  }
  igpt_session_destroy(w.session);
  igpt_model_destroy(model);
}

TEST(stopped_everywhere)
{
  int objective;
  for (objective = 0; objective < 2; objective++) {
    igpt_session_desc desc = session_desc();
    stop_everywhere((igpt_objective)objective, desc);
    desc.precision = IGPT_BF16;               /* makes copies of the weights first */
    stop_everywhere((igpt_objective)objective, desc);
    desc.precision = IGPT_INT8;
    stop_everywhere((igpt_objective)objective, desc);
#ifndef IGPT_NO_TRAIN
    desc = session_desc();
    desc.train = 1;
    stop_everywhere((igpt_objective)objective, desc);
    desc.recompute = 1;
    stop_everywhere((igpt_objective)objective, desc);
    desc.precision = IGPT_BF16;
    stop_everywhere((igpt_objective)objective, desc);
#endif
  }
}

/* ---- training -------------------------------------------------------------------------------- */
#ifndef IGPT_NO_TRAIN

TEST(steps_that_are_refused)
{
  static const float nan_and_more[] = { -1e-9f, -1, -HUGE_VALF };
  igpt_model *model = model_of(IGPT_AR, 0);
  igpt_session_desc desc = session_desc();
  igpt_session *s = NULL;
  igpt_adam_desc adam, good;
  igpt_batch batch;
  uint16_t tokens[T] = { 0 };
  float *block = NULL, *const fields[] = { &adam.rate, &adam.beta1, &adam.beta2, &adam.epsilon,
                                           &adam.weight_decay, &adam.clip };
  double norm = 0;
  size_t count = 7, pictures = 7, i, j;
  desc.train = 1;
  memset(&good, 0, sizeof good);
  memset(&batch, 0, sizeof batch);
  good.rate = 0.1f;
  batch.tokens = tokens;
  batch.count = 1;
  CHECK_INT(igpt_session_create(&s, model, &desc), IGPT_OK);
  CHECK_INT(igpt_gradient_norm(s, &norm), IGPT_OK);                   /* of no picture */
  CHECK(norm == 0);
  CHECK_INT(igpt_backward(s, NULL, &batch, NULL), IGPT_OK);
  for (i = 0; i < COUNT(fields); i++) {
    for (j = 0; j < COUNT(nan_and_more); j++) {
      adam = good;
      *fields[i] = nan_and_more[j];
      CHECK_SAYS(igpt_step(s, model, NULL, &adam), IGPT_BAD_ARGUMENT, "-");
    }
    adam = good;
    *fields[i] = (float)NAN;
    CHECK_SAYS(igpt_step(s, model, NULL, &adam), IGPT_BAD_ARGUMENT, "nan");
  }
  adam = good;
  adam.rate = HUGE_VALF;
  CHECK_SAYS(igpt_step(s, model, NULL, &adam), IGPT_BAD_ARGUMENT, "rate inf");
  adam = good;
  adam.beta1 = 1;
  CHECK_SAYS(igpt_step(s, model, NULL, &adam), IGPT_BAD_ARGUMENT, "beta1 1");
  CHECK_INT(igpt_gradients(s, NULL, &count, &pictures), IGPT_OK);
  CHECK_INT(count, igpt_model_parameters(model));
  CHECK_INT(pictures, 1);                     /* still there */
  CHECK_INT(igpt_gradients(s, &block, NULL, NULL), IGPT_OK);
  CHECK(block != NULL);
  CHECK_INT(igpt_step(s, model, NULL, &good), IGPT_OK);
  CHECK_INT(igpt_gradients_zero(NULL), IGPT_BAD_ARGUMENT);
  igpt_session_destroy(s);
  igpt_model_destroy(model);
}

/* What a loss lacks: labels, where classes weigh something; in BERT a mask, without which nothing
   is to be guessed. */
TEST(losses_of_nothing)
{
  igpt_model *model = model_of(IGPT_BERT, 2);
  igpt_session_desc desc = session_desc();
  igpt_session *s = NULL;
  igpt_loss_desc weights;
  igpt_losses losses;
  igpt_batch batch;
  uint16_t tokens[T] = { 0 };
  double norm = 5;
  desc.train = 1;
  memset(&batch, 0, sizeof batch);
  memset(&losses, 0, sizeof losses);
  batch.tokens = tokens;
  batch.count = 1;
  weights.generative = weights.classification = 1;
  CHECK_INT(igpt_session_create(&s, model, &desc), IGPT_OK);
  CHECK_SAYS(igpt_backward(s, &losses, &batch, &weights), IGPT_BAD_ARGUMENT, "needs labels");
  weights.classification = (float)HUGE_VAL;
  CHECK_SAYS(igpt_backward(s, &losses, &batch, &weights), IGPT_BAD_ARGUMENT, "inf");
  weights.classification = 0;
  weights.generative = (float)sqrt(-1.0);
  CHECK_SAYS(igpt_backward(s, &losses, &batch, &weights), IGPT_BAD_ARGUMENT, "nan");
  CHECK_INT(igpt_backward(s, &losses, &batch, NULL), IGPT_OK);
  CHECK(losses.total == 0 && losses.generative == 0);
  CHECK_INT(igpt_gradient_norm(s, &norm), IGPT_OK);
  CHECK(norm == 0);
  igpt_session_destroy(s);
  igpt_model_destroy(model);
}

TEST(schedules_that_end_at_once)
{
  igpt_schedule_desc plan = { IGPT_LINEAR, 2, 10, 10, 0.25 };
  CHECK(igpt_schedule(NULL, 3) == 0);
  CHECK(igpt_schedule(&plan, 9) == 2);        /* the last step of the warm-up */
  CHECK(igpt_schedule(&plan, 10) == 0.5);     /* and nothing after it */
  plan.steps = 4;
  CHECK(igpt_schedule(&plan, 10) == 0.5);
  CHECK(igpt_schedule(&plan, 1e9) == 0.5);
}

TEST(checkpoints_of_nothing)
{
  igpt_model *model = model_of(IGPT_AR, 0), *other = model_of(IGPT_AR, 0);
  igpt_session_desc desc = session_desc();
  igpt_session *s = NULL;
  igpt_progress progress;
  desc.train = 1;
  memset(&progress, 0, sizeof progress);
  CHECK_INT(igpt_session_create(&s, model, &desc), IGPT_OK);
  CHECK_INT(igpt_checkpoint_write(NULL, model, &progress, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_checkpoint_write(s, NULL, &progress, NULL), IGPT_BAD_ARGUMENT);
  CHECK_SAYS(igpt_checkpoint_write(s, other, &progress, NULL), IGPT_BAD_ARGUMENT, "the session's");
  CHECK_INT(igpt_checkpoint_read(s, NULL, &progress, NULL), IGPT_BAD_ARGUMENT);
#ifndef IGPT_NO_STDIO
  CHECK_INT(igpt_checkpoint_save(NULL, model, &progress, "x"), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_checkpoint_save(s, NULL, &progress, "x"), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_checkpoint_load(NULL, model, &progress, "x"), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_checkpoint_load(s, NULL, &progress, "x"), IGPT_BAD_ARGUMENT);
#endif
  igpt_session_destroy(s);
  igpt_model_destroy(other);
  igpt_model_destroy(model);
}
#endif

/* ---- palette and probe ----------------------------------------------------------------------- */

TEST(palettes_that_are_refused)
{
  static const float far_off[] = { 1e30f, -1e30f };
  igpt_palette palette;
  igpt_kmeans_desc fit;
  igpt_encode_desc encode;
  uint8_t rgb[6] = { 0, 0, 0, 255, 255, 255 };
  uint16_t tokens[2] = { 7, 7 };
  char name[80];
  size_t i;
  memset(&fit, 0, sizeof fit);
  memset(&encode, 0, sizeof encode);
  memset(&palette, 0, sizeof palette);
  fit.log = encode.log = listening();
  fit.tolerance = 1;
  CHECK_SAYS(igpt_palette_fit(&palette, NULL, rgb, 2, &fit), IGPT_BAD_ARGUMENT, "tolerance is 1");
  fit.tolerance = (float)NAN;
  CHECK_SAYS(igpt_palette_fit(&palette, NULL, rgb, 2, &fit), IGPT_BAD_ARGUMENT, "tolerance is nan");
  fit.tolerance = 0;
  fit.isa = IGPT_ISA_COUNT;
  CHECK_SAYS(igpt_palette_fit(&palette, NULL, rgb, 2, &fit), IGPT_UNSUPPORTED, "isa");
  fit.isa = IGPT_ISA_AUTO;
  CHECK_INT(palette.colours, 0);

  /* a name without a place to cut it becomes empty */
  memset(name, '\x80', sizeof name - 1);
  name[sizeof name - 1] = 0;
  fit.name = name;
  CHECK_INT(igpt_palette_fit(&palette, NULL, rgb, 2, &fit), IGPT_OK);
  CHECK_INT(palette.colours, 2);
  CHECK(palette.name[0] == 0);

  encode.isa = IGPT_ISA_COUNT;
  CHECK_SAYS(igpt_palette_encode(&palette, tokens, rgb, 2, &encode), IGPT_UNSUPPORTED, "isa");
  encode.isa = IGPT_ISA_AUTO;
  encode.runner.workers = -1;
  CHECK_SAYS(igpt_palette_encode(&palette, tokens, rgb, 2, &encode), IGPT_BAD_ARGUMENT, "workers");
  encode.runner.workers = 0;
  encode.allocator.alloc = purse_alloc;
  CHECK_SAYS(igpt_palette_encode(&palette, tokens, rgb, 2, &encode), IGPT_BAD_ARGUMENT, "alloc");
  encode.allocator.alloc = NULL;
  for (i = 0; i < 2; i++) {
    palette.centre[1][2] = far_off[i];
    CHECK_SAYS(igpt_palette_encode(&palette, tokens, rgb, 2, &encode), IGPT_BAD_ARGUMENT,
               "centre[1][2]");
  }
  CHECK(tokens[0] == 7 && tokens[1] == 7);
}

TEST(probes_that_are_refused)
{
  float x[8] = { 0, 1, 0, 2, 1, 0, 1, 3 };
  int32_t labels[4] = { 0, 0, 1, 1 };
  igpt_probe *probe = (igpt_probe *)1;
  igpt_probe_desc desc, good;
  memset(&good, 0, sizeof good);
  good.log = listening();
  good.method = IGPT_SGD;
#define REFUSED(field, value, word)                                                               \
  desc = good;                                                                                    \
  desc.field = value;                                                                             \
  CHECK_SAYS(igpt_probe_fit(&probe, NULL, x, labels, 4, 2, &desc), IGPT_BAD_ARGUMENT, word)
  REFUSED(rate, HUGE_VAL, "rate is inf");
  REFUSED(rate, -1, "rate is -1");
  REFUSED(momentum, -0.5, "momentum is -0.5");
  REFUSED(momentum, 1, "momentum is 1");
  REFUSED(inverse_l2, HUGE_VAL, "inverse_l2 is inf");
  REFUSED(tolerance, -1, "tolerance is -1");
  REFUSED(epochs, -1, "epochs is -1");
  REFUSED(batch, -1, "batch is -1");
  REFUSED(runner.workers, -1, "workers");
#undef REFUSED
  CHECK(probe == NULL);
  desc = good;                                /* so fast that the last step of all overflows */
  desc.rate = 1e300;
  desc.epochs = 1;
  x[0] = 1e30f;
  CHECK_SAYS(igpt_probe_fit(&probe, NULL, x, labels, 4, 2, &desc), IGPT_NOT_FINITE, "too large");
  CHECK(probe == NULL);
}

/* ---- sources, sinks, npy --------------------------------------------------------------------- */

static int take_nothing(void *user, const void *from, size_t bytes)
{
  (void)user;
  (void)from;
  (void)bytes;
  return 0;
}

static int give_header(void *user, uint64_t offset, void *to, size_t bytes)
{
  const char *header = (const char *)user;    /* and zeros after it, as many as one likes */
  const size_t length = strlen(header);
  char *out = (char *)to;
  size_t i;
  for (i = 0; i < bytes; i++, offset++)
    out[i] = (char)(offset < 8 ? (uint64_t)length >> 8 * offset & 255
                    : offset - 8 < length ? (unsigned char)header[offset - 8] : 0);
  return 0;
}

/* A model read from a header, and as many bytes after it. */
static igpt_result read_header(const char *header, uint64_t more, int heads)
{
  igpt_source source;
  igpt_model_desc desc;
  igpt_model *model = (igpt_model *)1;
  char text[1000];
  igpt_result result;
  memset(&source, 0, sizeof source);
  memset(&desc, 0, sizeof desc);
  strcpy(text, header);
  source.read = give_header;
  source.user = text;
  source.size = 8 + strlen(header) + more;
  desc.config.heads = heads;
  desc.log = listening();
  result = igpt_model_read(&model, &source, &desc);
  CHECK((result == IGPT_OK) == (model != NULL));
  igpt_model_destroy(model);
  return result;
}

#define ENTRY(name, shape, from, to) \
  "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"

TEST(headers_of_large_files)
{
  /* sides that are no int, of tensors that the file has room for */
  CHECK_SAYS(read_header("{" ENTRY("transformer.wte.weight", "[2147483648,1]", "0", "8589934592")
                         "}", (uint64_t)1 << 33, 1), IGPT_MISMATCH, "a side of 2147483648");
  CHECK_SAYS(read_header("{" ENTRY("transformer.wte.weight", "[1,2147483648]", "0", "8589934592")
                         "}", (uint64_t)1 << 33, 1), IGPT_MISMATCH, "a side of 2147483648");
  CHECK_SAYS(read_header("{" ENTRY("transformer.wte.weight", "[1,1]", "0", "4") ","
                         ENTRY("transformer.wpe.weight", "[2147483648,1]", "4", "8589934596") "}",
                         ((uint64_t)1 << 33) + 4, 1), IGPT_MISMATCH, "transformer.wpe.weight");
  CHECK_SAYS(read_header("{" ENTRY("transformer.wte.weight", "[1,0]", "0", "0") "}", 0, 1),
             IGPT_MISMATCH, "a side of 0");
  CHECK_SAYS(read_header("{" ENTRY("transformer.wte.weight", "[2,1]", "0", "8") ","
                         ENTRY("transformer.wpe.weight", "[1,1]", "8", "12") ","
                         ENTRY("lm_head.weight", "[1]", "12", "16") "}", 16, 1),
             IGPT_MISMATCH, "lm_head.weight of rank 1");
  /* all the bytes that 64 bits can count */
  CHECK_SAYS(read_header("{" ENTRY("transformer.wte.weight", "[4294967296,4294967296]", "0",
                                   "18446744073709551615") "}", UINT64_MAX - 1000, 1),
             IGPT_BAD_FILE, "transformer.wte.weight");
  /* more positions than there can be, in a square and in none: 2^31 - 1 is prime */
  CHECK_SAYS(read_header("{" ENTRY("transformer.wte.weight", "[2,1]", "0", "8") ","
                         ENTRY("transformer.wpe.weight", "[2147483647,1]", "8", "8589934596") ","
                         ENTRY("transformer.h.0.ln_1.weight", "[1]", "8589934596", "8589934600")
                         "}", 8589934600u, 1), IGPT_MISMATCH, "2147483647 positions");
  /* more colours than a palette can have */
  CHECK_SAYS(read_header("{\"__metadata__\":{\"igpt.palette\":\"x\",\"igpt.centres\":\"0\"},"
                         ENTRY("transformer.wte.weight", "[514,1]", "0", "2056") ","
                         ENTRY("transformer.wpe.weight", "[1,1]", "2056", "2060") ","
                         ENTRY("transformer.h.0.ln_1.weight", "[1]", "2060", "2064")
                         "}", 2064, 1), IGPT_BAD_FILE, "at most 512 colours, of 513");
}

TEST(sources_and_sinks_of_nothing)
{
  igpt_source source;
  igpt_sink sink;
  igpt_npy npy;
  igpt_model *model = model_of(IGPT_AR, 0), *back = model;
  igpt_model_desc half;
  igpt_log log = listening();
  uint64_t shape[9] = { 1, 1, 1, 1, 1, 1, 1, 1, 1 };
  float one = 1;
  int64_t whole = 7;
  char bytes[4] = { 0 };
  purse memory;
  memset(&npy, 0, sizeof npy);
  memset(&source, 0, sizeof source);
  memset(&sink, 0, sizeof sink);
  CHECK_SAYS(igpt_npy_open(&npy, NULL, &log), IGPT_BAD_ARGUMENT, "neither read nor memory");
  source.memory = bytes;
  source.size = sizeof bytes;
  CHECK_SAYS(igpt_npy_open(NULL, &source, &log), IGPT_BAD_ARGUMENT, "out is null");
  CHECK_SAYS(igpt_npy_open(&npy, &source, &log), IGPT_BAD_FILE, "4 bytes");
  npy.count = 1;
  npy.bytes = 4;
  npy.type = IGPT_NPY_F32;
  CHECK_INT(igpt_npy_read_f32(NULL, &one, 0, 1, &source), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_npy_read_f32(&npy, &one, 0, 1, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_npy_read_f32(&npy, NULL, 0, 1, &source), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_npy_read_f32(&npy, NULL, 0, 0, &source), IGPT_OK);
  CHECK_INT(igpt_npy_read_f32(&npy, &one, 2, 0, &source), IGPT_BAD_ARGUMENT);
  npy.type = (igpt_npy_type)(IGPT_NPY_BOOL + 1);
  CHECK_INT(igpt_npy_read_f32(&npy, &one, 0, 1, &source), IGPT_BAD_ARGUMENT);
  CHECK(one == 1);
  npy.type = IGPT_NPY_U32;
  memcpy(bytes, "\xff\xff\xff\xff", 4);
  CHECK_INT(igpt_npy_read_i64(&npy, &whole, 0, 1, &source), IGPT_OK);
  CHECK(whole == 4294967295);
  CHECK_INT(igpt_npy_read_f32(&npy, &one, 0, 1, &source), IGPT_OK);
  CHECK(one == 4294967296.0f);

  CHECK_INT(igpt_npy_write(NULL, IGPT_NPY_F32, &one, 1, shape), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, &one, 1, shape), IGPT_BAD_ARGUMENT);
  sink.write = take_nothing;
  CHECK_INT(igpt_npy_write(&sink, (igpt_npy_type)(IGPT_NPY_BOOL + 1), &one, 1, shape),
            IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, &one, -1, shape), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, &one, 9, shape), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, &one, 1, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, NULL, 1, shape), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_U8, &one, 0, NULL), IGPT_OK);

  memset(&sink, 0, sizeof sink);
  CHECK_SAYS(igpt_model_write(model, &sink), IGPT_BAD_ARGUMENT, "sink.write is null");
  memset(&half, 0, sizeof half);
  half.allocator = purse_allocator(&memory);
  half.allocator.free = NULL;
  half.log = log;
  CHECK_SAYS(igpt_model_read(&back, &source, &half), IGPT_BAD_ARGUMENT, "both or neither");
  CHECK(back == NULL && memory.calls == 0);
  igpt_model_destroy(model);
}

#ifndef IGPT_NO_STDIO
TEST(paths_of_nothing)
{
  igpt_model *model = model_of(IGPT_AR, 0);
  igpt_source source;
  igpt_log log = listening();
  CHECK_SAYS(igpt_file_open(NULL, "x", &log), IGPT_BAD_ARGUMENT, "out is null");
  CHECK_SAYS(igpt_file_open(&source, NULL, &log), IGPT_BAD_ARGUMENT, "path is null");
  CHECK(source.read == NULL);
  CHECK_SAYS(igpt_file_open(&source, ".", &log), IGPT_READ_ERROR, ".: ");     /* a folder */
  CHECK(source.read == NULL && source.size == 0);
  igpt_file_close(NULL);
  source.read = give_header;                  /* somebody else's: not a FILE to be closed */
  source.user = &log;
  igpt_file_close(&source);
  CHECK(source.read == NULL && source.user == NULL);
  CHECK_INT(igpt_model_load(NULL, "x", NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_save(NULL, "x"), IGPT_BAD_ARGUMENT);
  CHECK_SAYS(igpt_model_save(model, NULL), IGPT_BAD_ARGUMENT, "path is null");
  igpt_model_destroy(model);
}
#endif

int main(void)
{
  RUN(sentences_of_codes);
#ifndef IGPT_NO_STDIO
  RUN(paths_and_sentences_are_cut);
#endif
  RUN(draws_below_a_bound);
  RUN(selftest_notices);
  RUN(defaults_of_null);
  RUN(null_models);
  RUN(nothing_to_do);
  RUN(ends_of_ranges);
  RUN(stopped_everywhere);
#ifndef IGPT_NO_TRAIN
  RUN(steps_that_are_refused);
  RUN(losses_of_nothing);
  RUN(schedules_that_end_at_once);
  RUN(checkpoints_of_nothing);
#endif
  RUN(palettes_that_are_refused);
  RUN(probes_that_are_refused);
  RUN(headers_of_large_files);
  RUN(sources_and_sinks_of_nothing);
#ifndef IGPT_NO_STDIO
  RUN(paths_of_nothing);
#endif
  return test_done();
}
