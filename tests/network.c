/* network.c: what has to hold for every network, whatever its numbers are.

   The first loss, who may see whom, cached decoding, drawing, learning, batches of any size, memory,
   defaults, sizes, and every way of asking for something wrong.                                  */

#define _DEFAULT_SOURCE 1         /* part.h: anonymous pages */
#include "igpt.h"
#include "part.h"

#ifndef HEADER
#define HEADER "igpt.h"                      /* whose comments are compared with the defaults */
#endif

/* ---- small models and pictures --------------------------------------------------------------- */

static igpt_model *model_official(const igpt_config *config, uint64_t seed)
{
  igpt_model_desc desc;
  igpt_model *model = NULL;
  memset(&desc, 0, sizeof desc);
  desc.config = *config;
  desc.seed = seed;
  CHECK_INT(igpt_model_create(&model, &desc), IGPT_OK);
  return model;
}

/* Large random weights everywhere: heads that say something, gains that are not one. */
static igpt_model *model_random(const igpt_config *config, uint64_t seed)
{
  igpt_model *model = model_official(config, seed);
  igpt_rng rng = igpt_rng_seed(seed, 99);
  size_t t, i;
  for (t = 0; t < igpt_model_tensors(model); t++) {
    igpt_tensor tensor;
    igpt_model_tensor_at(model, &tensor, t);
    for (i = 0; i < tensor.count; i++)
      tensor.data[i] = (tensor.rank == 1 ? 1 : 0) + 0.2f * igpt_rng_normal(&rng);
  }
  return model;
}

static igpt_session *session_of(const igpt_model *model, int batch, int train)
{
  igpt_session_desc desc;
  igpt_session *session = NULL;
  memset(&desc, 0, sizeof desc);
  desc.batch = batch;
  desc.train = train;
  CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
  return session;
}

static void *bytes_of(size_t count)
{
  void *block = malloc(count ? count : 1);
  if (!block) exit(1);
  memset(block, 0x5a, count);
  return block;
}

static float *floats_of(size_t count) { return (float *)bytes_of(count * sizeof(float)); }

static uint16_t *tokens_of(size_t count, int vocabulary, uint64_t seed)
{
  uint16_t *tokens = (uint16_t *)bytes_of(count * sizeof *tokens);
  igpt_rng rng = igpt_rng_seed(seed, 5);
  size_t i;
  for (i = 0; i < count; i++) tokens[i] = (uint16_t)igpt_rng_below(&rng, (uint32_t)vocabulary);
  return tokens;
}

static igpt_batch batch_of(const uint16_t *tokens, size_t count)
{
  igpt_batch batch;
  memset(&batch, 0, sizeof batch);
  batch.tokens = tokens;
  batch.count = count;
  return batch;
}

static int same_bits(const void *a, const void *b, size_t bytes)
{
  return memcmp(a, b, bytes) == 0;
}

static int all_bytes(const void *block, int value, size_t bytes)
{
  const unsigned char *at = (const unsigned char *)block;
  size_t i;
  for (i = 0; i < bytes && at[i] == value; i++) {}
  return i == bytes;
}

static int all_zero(const float *x, size_t count)
{
  size_t i;
  for (i = 0; i < count && x[i] == 0; i++) {}
  return i == count;
}

static float *weights_of(const igpt_model *model)      /* the first of them; they lie in one run */
{
  igpt_tensor tensor;
  memset(&tensor, 0, sizeof tensor);
  igpt_model_tensor_at(model, &tensor, 0);
  return tensor.data;
}

/* The last sentence that the library said. */
static char said[400];
static int said_count;
static igpt_result said_result;
static void listen(void *user, igpt_result result, const char *sentence)
{
  (void)user;
  said_count++;
  said_result = result;
  snprintf(said, sizeof said, "%s", sentence);
}

/* The call fails with this code and says all these words; null words are not asked for. */
#define CHECK_FAILS(call, code, word1, word2)                                                     \
  do {                                                                                            \
    said[0] = 0;                                                                                  \
    said_count = 0;                                                                               \
    CHECK_INT(call, code);                                                                        \
    CHECK_INT(said_count, 1);                                                                     \
    if (said_count) CHECK_INT(said_result, code);                                                 \
    says(__LINE__, word1);                                                                        \
    says(__LINE__, word2);                                                                        \
  } while (0)

static void says(int line, const char *word)
{
  if (!word || strstr(said, word)) return;
  test_errors++;
  printf("%s:%d: \"%s\" does not say \"%s\"\n", __FILE__, line, said, word);
}

/* ---- the beginning --------------------------------------------------------------------------- */

/* The output matrix starts at zero: the first loss is ln V, and only that matrix has a gradient. */
TEST(first_loss)
{
  int mode;
  for (mode = 0; mode < 3; mode++) {
    static const int vocabularies[] = { 512, 512, 7 };
    igpt_config config = config_of(3, 4, 64, 8, 8, vocabularies[mode]);
    igpt_rng rng = igpt_rng_seed(3, 0);
    uint16_t *tokens = tokens_of(2 * 64, config.vocabulary, 1);
    uint8_t mask[128];
    float nats[128];
    igpt_batch batch = batch_of(tokens, 2);
    igpt_model *model;
    igpt_session *session;
    igpt_losses losses;
    double mean = 0;
    size_t t, i;
    igpt_mask_random(&rng, mask, sizeof mask, 0);
    if (mode == 1) config.objective = IGPT_BERT;
    if (mode == 1) batch.mask = mask;
    model = model_official(&config, 42);
    session = session_of(model, 2, 1);
    CHECK_INT(igpt_nll(session, nats, &mean, &batch), IGPT_OK);
    CHECK_NEAR(mean, log((double)config.vocabulary), 5e-7);
    for (i = 0; i < 128; i++)
      CHECK_NEAR(nats[i], mode == 1 && !mask[i] ? 0 : log((double)config.vocabulary), 5e-7);
    CHECK_INT(igpt_backward(session, &losses, &batch, NULL), IGPT_OK);
    CHECK_NEAR(losses.generative, log((double)config.vocabulary), 5e-7);
    CHECK_NEAR(losses.total, log((double)config.vocabulary), 5e-7);
    for (t = 0; t < igpt_model_tensors(model); t++) {
      igpt_tensor gradient;
      double sum = 0;
      igpt_gradient_at(session, &gradient, t);
      for (i = 0; i < gradient.count; i++) sum += fabs((double)gradient.data[i]);
      CHECK((sum > 0) == (strcmp(gradient.name, "lm_head.weight") == 0));
    }
    igpt_session_destroy(session);
    igpt_model_destroy(model);
    free(tokens);
  }
}

/* Means and deviations of the official initial weights, within five standard errors. */
TEST(initial_weights)
{
  igpt_config config = config_of(6, 4, 64, 16, 16, 300);
  igpt_model *model, *again, *other;
  size_t t, i;
  config.classes = 5;
  model = model_official(&config, 7);
  again = model_official(&config, 7);
  other = model_official(&config, 8);
  CHECK(same_bits(weights_of(model), weights_of(again), igpt_model_parameters(model) * 4));
  for (t = 0; t < igpt_model_tensors(model); t++) {
    double expected, sum = 0, squares = 0, n;
    igpt_tensor tensor, elsewhere;
    const char *name = tensor.name;
    igpt_model_tensor_at(model, &tensor, t);
    igpt_model_tensor_at(other, &elsewhere, t);
    n = (double)tensor.count;
    if (strstr(name, "ln_")) {
      for (i = 0; i < tensor.count; i++) CHECK(tensor.data[i] == 1);
      continue;
    }
    if (strstr(name, "lm_head") || strstr(name, "score")) {
      CHECK(all_zero(tensor.data, tensor.count));
      continue;
    }
    expected = strstr(name, "wpe") ? 0.01 : strstr(name, "c_attn") ? 1 / sqrt(64.0)
             : strstr(name, "attn.c_proj") ? 1 / sqrt(64.0 * 6) : 0.02;
    for (i = 0; i < tensor.count; i++) {
      sum += (double)tensor.data[i];
      squares += (double)tensor.data[i] * tensor.data[i];
    }
    CHECK_NEAR(sum / n, 0, 5 * expected / sqrt(n));
    CHECK_NEAR(sqrt(squares / n) / expected, 1, 5 / sqrt(2 * n));
    CHECK(!same_bits(tensor.data, elsewhere.data, 64));
    if (t) {                                   /* and no two tensors are the same draws */
      igpt_tensor before;
      igpt_model_tensor_at(model, &before, t - 1);
      CHECK(tensor.data[0] / expected != before.data[0] / 0.02);
    }
  }
  igpt_model_destroy(other);
  igpt_model_destroy(again);
  igpt_model_destroy(model);
}

/* ---- who sees whom --------------------------------------------------------------------------- */

TEST(causality)
{
  enum { T = 30, V = 9, C = 32 };
  const igpt_config config = config_of(2, 4, C, 5, 6, V);
  igpt_model *model = model_random(&config, 1);
  igpt_session *session = session_of(model, 1, 0);
  uint16_t *tokens = tokens_of(T, V, 2);
  igpt_batch batch = batch_of(tokens, 1);
  float *before = floats_of(T * V), *after = floats_of(T * V);
  int j;
  CHECK_INT(igpt_forward(session, before, &batch), IGPT_OK);
  for (j = 0; j < T; j++) {
    const uint16_t was = tokens[j];
    tokens[j] = (uint16_t)((was + 1) % V);
    CHECK_INT(igpt_forward(session, after, &batch), IGPT_OK);
    CHECK(same_bits(before, after, (size_t)(j + 1) * V * 4));     /* logits[0..j] see tokens < j */
    if (j + 1 < T) {
      CHECK(!same_bits(before + (j + 1) * V, after + (j + 1) * V, V * 4));
      CHECK(!same_bits(before + (T - 1) * V, after + (T - 1) * V, V * 4));
    }
    tokens[j] = was;
  }
  free(after);
  free(before);
  free(tokens);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
}

TEST(hidden_pixels)
{
  enum { T = 30, V = 9, C = 32 };
  igpt_config config = config_of(2, 4, C, 5, 6, V);
  igpt_model *model;
  igpt_session *session;
  uint16_t *tokens = tokens_of(T, V, 2);
  uint8_t mask[T];
  igpt_batch batch = batch_of(tokens, 1);
  static const int layers[] = { 0, 1, 2 };
  float before[T * V], after[T * V], features[3 * C], features_after[3 * C];
  float *gradient = NULL;
  size_t i;
  int j;
  config.objective = IGPT_BERT;
  model = model_random(&config, 1);
  session = session_of(model, 1, 1);
  for (j = 0; j < T; j++) mask[j] = j % 3 == 1;
  batch.mask = mask;
  CHECK_INT(igpt_forward(session, before, &batch), IGPT_OK);
  CHECK_INT(igpt_features(session, features, &batch, layers, 3), IGPT_OK);
  for (j = 0; j < T; j++) {
    const uint16_t was = tokens[j];
    tokens[j] = (uint16_t)((was + 1) % V);
    CHECK_INT(igpt_forward(session, after, &batch), IGPT_OK);
    CHECK_INT(igpt_features(session, features_after, &batch, layers, 3), IGPT_OK);
    CHECK(same_bits(before, after, sizeof before) == mask[j]);
    CHECK(same_bits(features, features_after, sizeof features) == mask[j]);
    if (!mask[j])                                       /* everyone sees it, also those before */
      for (i = 0; i < T; i++) CHECK(!same_bits(before + i * V, after + i * V, V * 4));
    tokens[j] = was;
  }
  /* And nothing flows back: the content of a hidden pixel has no gradient beside the head's. Give
     the hidden pixels a colour that is seen nowhere else: its row of wte stays without gradient. */
  for (j = 0; j < T; j++) tokens[j] = (uint16_t)(mask[j] ? 8 : j % 8);
  CHECK_INT(igpt_backward(session, NULL, &batch, NULL), IGPT_OK);
  igpt_gradients(session, &gradient, NULL, NULL);
  CHECK(all_zero(gradient + 8 * C, C));
  CHECK(!all_zero(gradient + 7 * C, C));
  free(tokens);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
}

/* ---- decoding -------------------------------------------------------------------------------- */

static void check_decoding(const igpt_config *config, igpt_isa isa, igpt_precision precision,
                           int train, int batch)
{
  const size_t T = (size_t)(config->rows * config->columns), V = (size_t)config->vocabulary;
  const size_t N = (size_t)batch;
  igpt_model *model = model_random(config, 4);
  uint16_t *tokens = tokens_of(N * T, config->vocabulary, 6);
  uint16_t *column = (uint16_t *)bytes_of(N * sizeof *column);
  igpt_batch all = batch_of(tokens, N);
  float *full = floats_of(N * T * V), *step = floats_of(N * V);
  igpt_session_desc desc;
  igpt_session *session = NULL;
  size_t b, i, keep, errors = 0;
  memset(&desc, 0, sizeof desc);
  desc.batch = batch;
  desc.train = train;
  desc.isa = isa;
  desc.precision = precision;
  CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
  CHECK_INT(igpt_forward(session, full, &all), IGPT_OK);
  for (keep = 0; keep < T; keep = keep < 3 ? keep + 1 : keep * 2) {
    uint16_t *prefix = (uint16_t *)bytes_of(N * keep * sizeof *prefix);
    for (b = 0; b < N; b++) memcpy(prefix + b * keep, tokens + b * T, keep * sizeof *prefix);
    CHECK_INT(igpt_decode_begin(session, keep ? prefix : NULL, (int)keep, batch), IGPT_OK);
    for (i = keep; i < T; i++) {
      for (b = 0; b < N && i; b++) column[b] = tokens[b * T + i - 1];
      CHECK_INT(igpt_decode(session, step, i == keep ? NULL : column), IGPT_OK);
      for (b = 0; b < N; b++)
        if (!same_bits(step + b * V, full + (b * T + i) * V, V * 4)) {
          if (errors++ == 0)
            printf("%s, precision %d, train %d, batch %d, keep %lu: logits of position %lu, "
                   "picture %lu differ\n", igpt_isa_name(isa), (int)precision, train, batch,
                   (unsigned long)keep, (unsigned long)i, (unsigned long)b);
        }
    }
    CHECK_INT(igpt_decode(session, step, column), IGPT_BAD_ARGUMENT);      /* all are decoded */
    free(prefix);
  }
  CHECK_INT(errors, 0);
  free(step);
  free(full);
  free(column);
  free(tokens);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
}

/* Position by position with the cache gives the bits of the full pass, from any prefix, in every
   precision. (BF16 on tiles and by dot products does not: tests/amx.c. All else there is AVX-512.) */
TEST(cached_is_full)
{
  const int rows = TEST_AMOUNT(9, 2);
  const igpt_config small = config_of(3, 5, 40, 7, 5, 11);
  const igpt_config large = config_of(2, 2, 64, rows + 3, rows + 2, 33);
  const igpt_config wide = config_of(1, 3, 144, rows, 8, 70);    /* panels of copies are 64 wide */
  igpt_config biased = small;
  int isa, precision;
  biased.biases = 1;
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++)
    for (precision = IGPT_F32; precision <= IGPT_INT8; precision++) {
      const igpt_precision p = (igpt_precision)precision;
      if (!igpt_isa_supported((igpt_isa)isa)) continue;
      if (part_tiles((igpt_isa)isa)) continue;
      check_decoding(&small, (igpt_isa)isa, p, 0, 1);
      check_decoding(&small, (igpt_isa)isa, p, 0, 3);
      check_decoding(&biased, (igpt_isa)isa, p, 0, 3);
      check_decoding(&large, (igpt_isa)isa, p, 0, 2);
      check_decoding(&wide, (igpt_isa)isa, p, 0, 15);
      if (p == IGPT_INT8) continue;
      check_decoding(&small, (igpt_isa)isa, p, 1, 3);     /* keys lie among the activations there */
      check_decoding(&large, (igpt_isa)isa, p, 1, 18);    /* more rows than a thin product takes */
    }
}

/* Two bytes a weight, and one: what a learned model says of its pictures stays nearly what it was.
   And bytes are what is promised: rounding the model's matrices to them beforehand changes nothing
   but the rounding of 127 * (max / 127). */
TEST(precisions)
{
  enum { N = 8, V = 16, T = 16 };
  const igpt_config config = config_of(2, 2, 32, 4, 4, V);
  igpt_model *model = model_official(&config, 3);
  igpt_session *training = session_of(model, N, 1);
  uint16_t *tokens = tokens_of(N * T, V, 21);
  igpt_batch batch = batch_of(tokens, N);
  igpt_session_desc desc;
  igpt_adam_desc adam;
  double mean[3], again = 0, apart = 0, size = 0;
  static float of_bytes[N * T * V], of_rounded[N * T * V];
  int step, precision;
  size_t t, i, j;
  memset(&desc, 0, sizeof desc);
  memset(&adam, 0, sizeof adam);
  adam.rate = 0.01f;
  for (step = 0; step < 60; step++) {
    CHECK_INT(igpt_backward(training, NULL, &batch, NULL), IGPT_OK);
    CHECK_INT(igpt_step(training, model, NULL, &adam), IGPT_OK);
  }
  for (precision = IGPT_F32; precision <= IGPT_INT8; precision++) {
    igpt_session *session = NULL;
    desc.precision = (igpt_precision)precision;
    desc.batch = 3;
    CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
    CHECK_INT(igpt_session_resolved(session)->precision, precision);
    CHECK_INT(igpt_nll(session, NULL, &mean[precision], &batch), IGPT_OK);
    CHECK_INT(igpt_forward(session, of_bytes, &batch), IGPT_OK);       /* the last is INT8 */
    igpt_session_destroy(session);
  }
  CHECK(mean[IGPT_F32] < 1);                  /* it has learned something, which could be lost */
  CHECK(mean[IGPT_BF16] != mean[IGPT_F32] && mean[IGPT_INT8] != mean[IGPT_BF16]);
  CHECK_NEAR(mean[IGPT_BF16], mean[IGPT_F32], 0.005 * mean[IGPT_F32]);
  CHECK_NEAR(mean[IGPT_INT8], mean[IGPT_F32], 0.02 * mean[IGPT_F32]);
  for (t = 0; t < igpt_model_tensors(model); t++) {
    igpt_tensor w;
    int head;
    igpt_model_tensor_at(model, &w, t);
    head = strcmp(w.name, "lm_head.weight") == 0;           /* (out, in), the others (in, out) */
    if (!head && !strstr(w.name, "attn.") && !strstr(w.name, "mlp.")) continue;
    for (j = 0; j < w.shape[head ? 0 : 1]; j++) {
      const size_t step_in = head ? 1 : w.shape[1], in = head ? w.shape[1] : w.shape[0];
      float *column = w.data + (head ? j * w.shape[1] : j), most = 0;
      for (i = 0; i < in; i++)
        if (fabsf(column[i * step_in]) > most) most = fabsf(column[i * step_in]);
      for (i = 0; i < in; i++)
        column[i * step_in] = (float)rint((double)(column[i * step_in] * (127 / most))) *
                              (most / 127);
    }
  }
  CHECK_INT(igpt_nll(training, NULL, &again, &batch), IGPT_OK);       /* float32, of bytes */
  CHECK_NEAR(again, mean[IGPT_INT8], 0.005 * mean[IGPT_F32]);
  CHECK_INT(igpt_forward(training, of_rounded, &batch), IGPT_OK);
  for (i = 0; i < N * T * V; i++) {
    apart += pow((double)of_bytes[i] - (double)of_rounded[i], 2);
    size += pow((double)of_rounded[i], 2);
  }
  CHECK(sqrt(apart / size) < 0.01);           /* bfloat16 of 8 bits, in two blocks */
  desc.precision = IGPT_INT8;
  {
    igpt_session *session = NULL;
    CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
    CHECK_INT(igpt_nll(session, NULL, &again, &batch), IGPT_OK);
    CHECK_NEAR(again, mean[IGPT_INT8], 1e-5);
    igpt_session_destroy(session);
  }
  igpt_session_destroy(training);
  igpt_model_destroy(model);
  free(tokens);
}

/* A picture with a colour whose vector is spoiled, behind one without it */
TEST(features_of_a_broken_colour)
{
  enum { T = 9, V = 5, C = 16 };
  const igpt_config config = config_of(1, 1, C, 3, 3, V);
  static const int layers[] = { 0, 1 };
  igpt_model *model = model_random(&config, 4);
  igpt_session *session = session_of(model, 2, 0);
  uint16_t tokens[2 * T] = { 0 };
  float features[2 * 2 * C];
  igpt_batch batch = batch_of(tokens, 2);
  igpt_tensor colours;
  size_t i;
  for (i = 0; i < 2 * T; i++) tokens[i] = (uint16_t)(i % 3);
  CHECK_INT(igpt_model_tensor(model, &colours, "transformer.wte.weight"), IGPT_OK);
  colours.data[3 * C] = HUGE_VALF;
  CHECK_INT(igpt_features(session, features, &batch, layers, 2), IGPT_OK);
  tokens[T + 2] = 3;
  CHECK_INT(igpt_features(session, features, &batch, layers, 2), IGPT_NOT_FINITE);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
}

/* Of equal logits the first class is the one that is guessed. */
TEST(classes_that_tie)
{
  igpt_config config = config_of(1, 1, 16, 3, 3, 5);
  static const int32_t labels[3] = { 0, 0, 3 };
  uint16_t tokens[3 * 9] = { 0 };
  igpt_batch batch = batch_of(tokens, 3);
  igpt_losses losses;
  igpt_model *model;
  igpt_session *session;
  config.classes = 4;
  batch.labels = labels;
  model = model_official(&config, 3);
  session = session_of(model, 3, 1);
  CHECK_INT(igpt_backward(session, &losses, &batch, NULL), IGPT_OK);
  CHECK_INT(losses.correct, 2);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
}

/* Copies of weights are those of the present, whoever trains the model, and whoever writes to it:
   each call by itself gives what a new session gives. */
TEST(fresh_copies)
{
  igpt_config config = config_of(2, 2, 32, 4, 4, 9);
  const int middle = 1;
  uint8_t mask[32];
  int precision, call;
  config.classes = 3;
  memset(mask, 1, sizeof mask);
  for (precision = IGPT_BF16; precision <= IGPT_INT8; precision++)
    for (call = 0; call < 7; call++) {
      igpt_model *model;
      igpt_session *training, *old = NULL, *made = NULL;
      uint16_t *tokens = tokens_of(32, 9, 6);
      igpt_batch batch = batch_of(tokens, 2);
      float before[2 * 16 * 16], after[2 * 16 * 16], expected[2 * 16 * 16];
      float other[2 * 16 * 9];
      igpt_session_desc desc;
      igpt_adam_desc adam;
      float *out[3];
      int turn;
      config.objective = call < 6 ? IGPT_AR : IGPT_BERT;
      model = model_random(&config, 4);
      training = session_of(model, 2, 1);
      if (call == 6) batch.mask = mask;
      out[0] = before;
      out[1] = after;
      out[2] = expected;
      memset(before, 0, sizeof before);
      memset(after, 0, sizeof after);
      memset(expected, 0, sizeof expected);
      memset(&desc, 0, sizeof desc);
      memset(&adam, 0, sizeof adam);
      desc.precision = (igpt_precision)precision;
      desc.batch = 2;
      adam.rate = 0.1f;
      CHECK_INT(igpt_session_create(&old, model, &desc), IGPT_OK);
      for (turn = 0; turn < 3; turn++) {
        igpt_session *s = turn < 2 ? old : made;
        if (turn != 1) CHECK_INT(igpt_forward(s, other, &batch), IGPT_OK);
        if (call == 0) {
          CHECK_INT(igpt_decode_begin(s, tokens, 3, 2), IGPT_OK);
          CHECK_INT(igpt_decode(s, out[turn], NULL), IGPT_OK);
        }
        if (call == 1) CHECK_INT(igpt_forward(s, out[turn], &batch), IGPT_OK);
        if (call == 2) CHECK_INT(igpt_nll(s, out[turn], NULL, &batch), IGPT_OK);
        if (call == 3) CHECK_INT(igpt_features(s, out[turn], &batch, &middle, 1), IGPT_OK);
        if (call == 4) CHECK_INT(igpt_attention_map(s, out[turn], &batch, 1, 0), IGPT_OK);
        if (call == 5) CHECK_INT(igpt_classify(s, out[turn], &batch), IGPT_OK);
        if (call == 6) {
          CHECK_INT(igpt_fill(s, tokens, mask, 2, NULL), IGPT_OK);
          memcpy(out[turn], tokens, 32 * sizeof *tokens);
        }
        if (turn == 0) {
          CHECK_INT(igpt_backward(training, NULL, &batch, NULL), IGPT_OK);
          CHECK_INT(igpt_step(training, model, NULL, &adam), IGPT_OK);
          weights_of(model)[igpt_model_parameters(model) - 1] += 1;
          CHECK_INT(igpt_session_create(&made, model, &desc), IGPT_OK);
        }
      }
      CHECK(!same_bits(before, after, sizeof before));
      CHECK(same_bits(after, expected, sizeof after));
      igpt_session_destroy(made);
      igpt_session_destroy(old);
      igpt_session_destroy(training);
      igpt_model_destroy(model);
      free(tokens);
    }
}

/* Weights of no size, and those that are not numbers */
TEST(odd_weights)
{
  const igpt_config config = config_of(2, 2, 32, 4, 4, 9);
  igpt_session_desc desc;
  int precision, kind;
  memset(&desc, 0, sizeof desc);
  for (precision = IGPT_BF16; precision <= IGPT_INT8; precision++)
    for (kind = 0; kind < 4; kind++) {
      static const float odd[] = { 0, 1e-38f, HUGE_VALF, NAN };
      igpt_model *model = model_random(&config, 4);
      igpt_session *session = NULL;
      igpt_tensor w;
      uint16_t tokens[16];
      size_t i;
      memset(&w, 0, sizeof w);
      CHECK_INT(igpt_model_tensor(model, &w, "transformer.h.1.mlp.c_fc.weight"), IGPT_OK);
      if (kind < 2) for (i = 0; i < w.count; i++) w.data[i] = odd[kind];
      else w.data[37] = odd[kind];
      desc.precision = (igpt_precision)precision;
      CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
      CHECK_INT(igpt_sample(session, tokens, 1, NULL), kind < 2 ? IGPT_OK : IGPT_NOT_FINITE);
      igpt_session_destroy(session);
      igpt_model_destroy(model);
    }
}

/* In a training session the keys share their memory: what overwrites it has to end the decoding. */
TEST(decoding_ends)
{
  const igpt_config config = config_of(2, 2, 32, 4, 4, 9);
  igpt_model *model = model_random(&config, 4);
  igpt_session *session = session_of(model, 2, 1);
  uint16_t *tokens = tokens_of(32, 9, 6), column[2] = { 1, 2 };
  igpt_batch batch = batch_of(tokens, 2);
  float full[2 * 16 * 9], step[2 * 9];
  int call;
  for (call = 0; call < 4; call++) {
    static const int layers[] = { 2 };
    igpt_result result;
    CHECK_INT(igpt_decode_begin(session, NULL, 0, 2), IGPT_OK);
    CHECK_INT(igpt_decode(session, step, NULL), IGPT_OK);
    if (call == 0) CHECK_INT(igpt_forward(session, full, &batch), IGPT_OK);
    if (call == 1) CHECK_INT(igpt_nll(session, NULL, NULL, &batch), IGPT_OK);
    if (call == 2) CHECK_INT(igpt_features(session, full, &batch, layers, 1), IGPT_OK);
    if (call == 3) CHECK_INT(igpt_backward(session, NULL, &batch, NULL), IGPT_OK);
    result = igpt_decode(session, step, column);
    if (result == IGPT_OK) {                            /* or else it is right, as if undisturbed */
      uint16_t two[32];
      memcpy(two, tokens, sizeof two);
      two[0] = column[0];
      two[16] = column[1];
      batch = batch_of(two, 2);
      CHECK_INT(igpt_forward(session, full, &batch), IGPT_OK);
      CHECK(same_bits(step, full + 9, 9 * 4) && same_bits(step + 9, full + 16 * 9 + 9, 9 * 4));
      batch = batch_of(tokens, 2);
    } else {
      CHECK_INT(result, IGPT_BAD_ARGUMENT);
    }
  }
  free(tokens);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
}

/* ---- sampling -------------------------------------------------------------------------------- */

TEST(sampling)
{
  enum { T = 20, V = 11, N = 7 };
  const igpt_config config = config_of(2, 2, 32, 4, 5, V);
  igpt_model *model = model_random(&config, 4);
  igpt_session *one = session_of(model, 1, 0), *three = session_of(model, 3, 0);
  igpt_session *training = session_of(model, 4, 1);
  uint16_t *prompt = tokens_of(N * T, V, 6);
  uint16_t a[N * T], b[N * T];
  float logits[T * V];
  igpt_sample_desc desc;
  igpt_batch batch;
  size_t i, n;
  memset(&desc, 0, sizeof desc);
  desc.seed = 5;

  /* the same seed, the same pictures, in batches of 1, 3 and 4, and from any number on */
  memset(a, 0xff, sizeof a);                 /* what is not given is not read: not even valid */
  memset(b, 0xff, sizeof b);
  CHECK_INT(igpt_sample(one, a, N, &desc), IGPT_OK);
  CHECK_INT(igpt_sample(three, b, N, &desc), IGPT_OK);
  CHECK(same_bits(a, b, sizeof a));
  for (i = 0; i < N * T; i++) CHECK(a[i] < V);
  memset(b, 0xff, sizeof b);
  CHECK_INT(igpt_sample(training, b, N, &desc), IGPT_OK);
  CHECK(same_bits(a, b, sizeof a));
  desc.first = 4;
  memset(b, 0xff, sizeof b);
  CHECK_INT(igpt_sample(three, b, 3, &desc), IGPT_OK);
  CHECK(same_bits(a + 4 * T, b, 3 * T * sizeof *a));
  desc.first = 0;
  for (n = 1; n < N; n++) CHECK(!same_bits(a, a + n * T, T * sizeof *a));
  desc.seed = 6;
  CHECK_INT(igpt_sample(three, b, N, &desc), IGPT_OK);
  CHECK(!same_bits(a, b, sizeof a));

  /* a prompt stays, and what follows depends on it */
  desc.keep = 8;
  memcpy(a, prompt, sizeof a);
  CHECK_INT(igpt_sample(three, a, N, &desc), IGPT_OK);
  for (n = 0; n < N; n++) {
    CHECK(same_bits(a + n * T, prompt + n * T, 8 * sizeof *a));
    CHECK(!same_bits(a + n * T + 8, b + n * T + 8, 12 * sizeof *a));
  }
  desc.keep = T;
  memcpy(b, prompt, sizeof b);
  CHECK_INT(igpt_sample(three, b, N, &desc), IGPT_OK);
  CHECK(same_bits(b, prompt, sizeof b));

  /* top_k 1 takes the largest logit at every position */
  desc.keep = 3;
  desc.top_k = 1;
  memcpy(a, prompt, sizeof a);
  CHECK_INT(igpt_sample(three, a, 1, &desc), IGPT_OK);
  batch = batch_of(a, 1);
  CHECK_INT(igpt_forward(one, logits, &batch), IGPT_OK);
  for (i = 3; i < T; i++) {
    size_t v, best = 0;
    for (v = 1; v < V; v++)
      if (logits[i * V + v] > logits[i * V + best]) best = v;
    CHECK_INT(a[i], best);
  }

  /* the defaults of the desc: temperature 1, all colours, no nucleus; a null desc is a zero desc */
  memset(&desc, 0, sizeof desc);
  CHECK_INT(igpt_sample(three, a, N, NULL), IGPT_OK);
  desc.temperature = 1;
  desc.top_k = V;
  desc.top_p = 1;
  CHECK_INT(igpt_sample(three, b, N, &desc), IGPT_OK);
  CHECK(same_bits(a, b, sizeof a));

  /* a prompt that is refused, be it the last one, is refused before anything is drawn */
  desc.keep = 2;
  memcpy(a, prompt, sizeof a);
  a[(N - 1) * T + 1] = V;
  memcpy(b, a, sizeof a);
  CHECK_INT(igpt_sample(one, a, N, &desc), IGPT_BAD_ARGUMENT);
  CHECK(same_bits(a, b, sizeof a));

  free(prompt);
  igpt_session_destroy(training);
  igpt_session_destroy(three);
  igpt_session_destroy(one);
  igpt_model_destroy(model);
}

/* What is sampled is what the model says: first pixels are as frequent as softmax(logits[0]). */
TEST(sampling_frequencies)
{
  enum { V = 5, N = 6000 };
  const igpt_config config = config_of(1, 1, 16, 1, 2, V);
  igpt_model *model = model_random(&config, 11);
  igpt_session *session = session_of(model, 600, 0);      /* more pictures than rows of logits */
  uint16_t *tokens = tokens_of(N * 2, V, 1);
  igpt_batch batch = batch_of(tokens, 1);
  float logits[2 * V];
  double p[V], sum = 0, chi = 0;
  int seen[V] = { 0 };
  size_t i;
  CHECK_INT(igpt_forward(session, logits, &batch), IGPT_OK);
  for (i = 0; i < V; i++) sum += p[i] = exp((double)logits[i]);
  CHECK_INT(igpt_sample(session, tokens, N, NULL), IGPT_OK);
  for (i = 0; i < N; i++) seen[tokens[2 * i]]++;
  for (i = 0; i < V; i++) {
    const double expected = N * p[i] / sum;
    chi += (seen[i] - expected) * (seen[i] - expected) / expected;
  }
  CHECK(chi < 18.5);                          /* 4 degrees of freedom: one seed in a thousand */
  free(tokens);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
}

static void draw_many(double *part, const float *logits, int vocabulary,
                      const igpt_sample_desc *desc)
{
  enum { N = TEST_AMOUNT(20000, 8000) };
  igpt_rng rng = igpt_rng_seed(8, 0);
  float z[64];
  int i, v;
  for (v = 0; v < vocabulary; v++) part[v] = 0;
  for (i = 0; i < N; i++) {
    memcpy(z, logits, (size_t)vocabulary * sizeof *z);
    v = igpt_draw(&rng, z, vocabulary, desc);
    CHECK(v >= 0 && v < vocabulary);
    if (v >= 0 && v < vocabulary) part[v]++;
  }
  for (v = 0; v < vocabulary; v++) part[v] /= N;
}

TEST(draw)
{
  /* probabilities 0.4 0.3 0.1 0.1 0.1; two equal logits with a draw among them are told apart by
     their place */
  static const float logits[] = { 1.3862944f, 1.0986123f, 0, 0, 0 };
  static const float ties[] = { 0, 2, 2, 2, 1 };
  igpt_sample_desc desc;
  igpt_rng rng = igpt_rng_seed(1, 0), copy;
  double part[5];
  float z[5];
  int i;
  memset(&desc, 0, sizeof desc);
  draw_many(part, logits, 5, NULL);
  CHECK_NEAR(part[0], 0.4, 0.015);
  CHECK_NEAR(part[1], 0.3, 0.015);
  for (i = 2; i < 5; i++) CHECK_NEAR(part[i], 0.1, 0.01);

  desc.temperature = 0.5f;                    /* squares: 16 9 1 1 1, of 28 */
  draw_many(part, logits, 5, &desc);
  CHECK_NEAR(part[0], 16.0 / 28, 0.015);
  CHECK_NEAR(part[1], 9.0 / 28, 0.015);
  CHECK_NEAR(part[4], 1.0 / 28, 0.01);
  desc.temperature = 2;                       /* roots: 2 1.732 1 1 1, of 6.732 */
  draw_many(part, logits, 5, &desc);
  CHECK_NEAR(part[0], 2 / 6.732, 0.015);
  CHECK_NEAR(part[3], 1 / 6.732, 0.015);
  desc.temperature = 0.01f;
  draw_many(part, logits, 5, &desc);
  CHECK(part[0] == 1);

  memset(&desc, 0, sizeof desc);
  desc.top_k = 2;                             /* 4 3 of 7 */
  draw_many(part, logits, 5, &desc);
  CHECK_NEAR(part[0], 4.0 / 7, 0.015);
  CHECK(part[2] == 0 && part[3] == 0 && part[4] == 0);
  desc.top_k = 1;
  draw_many(part, logits, 5, &desc);
  CHECK(part[0] == 1);
  desc.top_k = 2;                             /* of three equals the first two */
  draw_many(part, ties, 5, &desc);
  CHECK_NEAR(part[1], 0.5, 0.015);
  CHECK_NEAR(part[2], 0.5, 0.015);
  CHECK(part[3] == 0);
  desc.top_k = 99;                            /* more than there are: all */
  draw_many(part, logits, 5, &desc);
  CHECK_NEAR(part[0], 0.4, 0.015);

  memset(&desc, 0, sizeof desc);
  desc.top_p = 0.65f;                         /* 0.4 is too little, 0.7 is enough */
  draw_many(part, logits, 5, &desc);
  CHECK_NEAR(part[0], 4.0 / 7, 0.015);
  CHECK_NEAR(part[1], 3.0 / 7, 0.015);
  CHECK(part[2] == 0 && part[3] == 0 && part[4] == 0);
  desc.top_p = 0.35f;
  draw_many(part, logits, 5, &desc);
  CHECK(part[0] == 1);
  desc.top_p = 0.75f;                         /* one of the three equals, the first */
  draw_many(part, logits, 5, &desc);
  CHECK_NEAR(part[2], 0.1 / 0.8, 0.015);
  CHECK(part[3] == 0 && part[4] == 0);

  /* the logits become the probabilities; one draw takes one number; shifts change nothing */
  memset(&desc, 0, sizeof desc);
  desc.top_k = 2;
  memcpy(z, logits, sizeof z);
  copy = rng;
  i = igpt_draw(&rng, z, 5, &desc);
  CHECK_INT(rng.index, copy.index + 1);
  CHECK_NEAR(z[0], 4.0 / 7, 1e-6);
  CHECK_NEAR(z[1], 3.0 / 7, 1e-6);
  CHECK(z[2] == 0 && z[3] == 0 && z[4] == 0);
  rng = copy;
  for (i = 0; i < 5; i++) z[i] = logits[i] + 300;
  igpt_draw(&rng, z, 5, &desc);
  CHECK_NEAR(z[0], 4.0 / 7, 1e-4);
  memcpy(z, logits, sizeof z);
  z[3] = (float)sqrt(-1.0);
  CHECK_INT(igpt_draw(&rng, z, 5, &desc), -1);
  memcpy(z, logits, sizeof z);
  for (i = 0; i < 7; i++) {                   /* what igpt_sample refuses */
    igpt_sample_desc wrong;
    memset(&wrong, 0, sizeof wrong);
    if (i < 3) wrong.temperature = i == 0 ? -1 : i == 1 ? (float)HUGE_VAL : (float)sqrt(-1.0);
    else if (i < 6) wrong.top_p = i == 3 ? -1 : i == 4 ? 1.5f : (float)sqrt(-1.0);
    else wrong.top_k = -1;
    CHECK_INT(igpt_draw(&rng, z, 5, &wrong), -1);
  }
  CHECK(memcmp(z, logits, sizeof z) == 0);
  memset(&desc, 0, sizeof desc);
  desc.top_p = 1e-40f;                        /* a denormal is no zero: the most likely */
  CHECK_INT(igpt_draw(&rng, z, 5, &desc), 0);
  CHECK(z[0] == 1);
  desc.top_p = 0;
  desc.temperature = 3e38f;                   /* whose reciprocal is a denormal */
  memcpy(z, logits, sizeof z);
  z[2] = -(float)HUGE_VAL;
  CHECK(igpt_draw(&rng, z, 5, &desc) >= 0);
  CHECK(z[2] == 0);
  CHECK_NEAR(z[0], 0.25, 1e-6);
  memcpy(z, logits, sizeof z);
  z[0] = z[1] = -(float)HUGE_VAL;             /* impossible, which is fine */
  for (i = 0; i < 100; i++) {
    float w[5];
    memcpy(w, z, sizeof w);
    CHECK(igpt_draw(&rng, w, 5, NULL) >= 2);
  }
}

TEST(masks)
{
  enum { N = 200000 };
  uint8_t *mask = (uint8_t *)bytes_of(N), *same = (uint8_t *)bytes_of(N);
  igpt_rng a = igpt_rng_seed(3, 1), b = a;
  size_t i, hidden = 0;
  igpt_mask_random(&a, mask, N, 0);
  igpt_mask_random(&b, same, N, 0.15f);
  CHECK(same_bits(mask, same, N));
  CHECK(a.index == b.index && a.index > 0);
  for (i = 0; i < N; i++) {
    CHECK(mask[i] <= 1);
    hidden += mask[i];
  }
  CHECK_NEAR((double)hidden / N, 0.15, 0.004);
  igpt_mask_random(&a, same, N, 0.15f);       /* the stream goes on */
  CHECK(!same_bits(mask, same, N));
  b = a;
  igpt_mask_random(&a, same, 1, igpt_rng_uniform(&b));       /* exactly as much is enough */
  CHECK_INT(same[0], 1);
  igpt_mask_random(&a, same, N, 0.5f);
  for (hidden = 0, i = 0; i < N; i++) hidden += same[i];
  CHECK_NEAR((double)hidden / N, 0.5, 0.006);
  free(same);
  free(mask);
}

/* Squares: as many pixels as asked for on the average, each as likely as any other, and nothing but
   squares. */
TEST(masks_of_blocks)
{
  enum { ROWS = 9, COLUMNS = 12, T = ROWS * COLUMNS, SIDE = 3, N = 20000 };
  igpt_rng rng = igpt_rng_seed(3, 2), again = rng;
  uint8_t mask[T], same[T];
  double hidden = 0, most = 0, least = N;
  int at[T], n, i, j, k, wrong = 0;
  memset(at, 0, sizeof at);
  CHECK_INT(igpt_mask_blocks(&rng, mask, ROWS, COLUMNS, SIDE, 0.15f), IGPT_OK);
  CHECK_INT(igpt_mask_blocks(&again, same, ROWS, COLUMNS, SIDE, 0), IGPT_OK);
  CHECK(same_bits(mask, same, T) && rng.index == again.index);
  for (n = 0; n < N; n++) {
    int any = 0;
    CHECK_INT(igpt_mask_blocks(&rng, mask, ROWS, COLUMNS, SIDE, 0.15f), IGPT_OK);
    for (i = 0; i < T; i++) {
      int square = !mask[i];                  /* or in one that is hidden as far as it is there */
      hidden += mask[i];
      at[i] += mask[i];
      any |= mask[i];
      for (j = i / COLUMNS - SIDE + 1; j <= i / COLUMNS && !square; j++)
        for (k = i % COLUMNS - SIDE + 1; k <= i % COLUMNS && !square; k++) {
          int y, x, whole = 1;
          for (y = j < 0 ? 0 : j; y < j + SIDE && y < ROWS; y++)
            for (x = k < 0 ? 0 : k; x < k + SIDE && x < COLUMNS; x++)
              whole &= mask[y * COLUMNS + x];
          square = whole;
        }
      wrong += !square || mask[i] > 1;
    }
    wrong += !any;
  }
  CHECK_INT(wrong, 0);
  CHECK_NEAR(hidden / N / T, 0.15, 0.002);
  for (i = 0; i < T; i++) {
    if (at[i] > most) most = at[i];
    if (at[i] < least) least = at[i];
  }
  CHECK(least / most > 0.93);
  for (n = 0; n < 20; n++) {                  /* less than a square: there is one all the same */
    CHECK_INT(igpt_mask_blocks(&rng, mask, ROWS, COLUMNS, SIDE, 1e-6f), IGPT_OK);
    CHECK(!all_bytes(mask, 0, T));
  }
  CHECK_INT(igpt_mask_blocks(&rng, mask, ROWS, COLUMNS, 100, 1), IGPT_OK);
  CHECK(all_bytes(mask, 1, T));
  memset(mask, 7, T);
  CHECK_INT(igpt_mask_blocks(&rng, mask, ROWS, COLUMNS, 0, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_blocks(&rng, mask, ROWS, COLUMNS, 2, 1.5f), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_blocks(&rng, mask, 0, COLUMNS, 2, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_blocks(&rng, mask, ROWS, 0, 2, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_blocks(&rng, mask, (1 << 15) + 1, 1, 2, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_blocks(&rng, mask, 1, (1 << 15) + 1, 2, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_blocks(&rng, mask, ROWS, COLUMNS, (1 << 15) + 1, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_blocks(&rng, NULL, ROWS, COLUMNS, 2, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_blocks(NULL, mask, ROWS, COLUMNS, 2, 0), IGPT_BAD_ARGUMENT);
  CHECK(all_bytes(mask, 7, T));
}

/* Patches change places, all of those that are masked and no other, whole and in one circle. */
TEST(masks_of_jigsaws)
{
  enum { ROWS = 8, COLUMNS = 12, T = ROWS * COLUMNS, SIDE = 4, PATCHES = 6 };
  static const struct { float part; int masked; } parts[] = { { 0, 2 }, { 0.45f, 3 }, { 1, 6 } };
  igpt_rng rng = igpt_rng_seed(3, 3);
  uint16_t tokens[T], shown[T];
  uint8_t mask[T];
  int seen[3][PATCHES][PATCHES], p, n, i, wrong = 0;
  memset(seen, 0, sizeof seen);
  for (i = 0; i < T; i++) tokens[i] = (uint16_t)i;
  for (p = 0; p < 3; p++)
    for (n = 0; n < 2000; n++) {
      int from[PATCHES], masked = 0, circle, j;
      CHECK_INT(igpt_mask_jigsaw(&rng, mask, shown, tokens, ROWS, COLUMNS, SIDE, parts[p].part),
                IGPT_OK);
      for (i = 0; i < T; i++) {
        const int patch = i / COLUMNS / SIDE * 3 + i % COLUMNS / SIDE, s = shown[i];
        const int origin = s / COLUMNS / SIDE * 3 + s % COLUMNS / SIDE;
        const int inside = i / COLUMNS % SIDE * SIDE + i % COLUMNS % SIDE;
        if (inside == 0) from[patch] = origin, masked += mask[i], seen[p][patch][origin]++;
        wrong += s / COLUMNS % SIDE * SIDE + s % COLUMNS % SIDE != inside;
        wrong += from[patch] != origin || mask[i] != (patch != origin);
      }
      wrong += masked != parts[p].masked;
      for (i = 0; i < PATCHES - 1 && from[i] == i; i++) {}
      for (circle = 1, j = from[i]; j != i && circle <= PATCHES; j = from[j]) circle++;
      wrong += circle != masked;
    }
  CHECK_INT(wrong, 0);
  for (i = 0; i < PATCHES * PATCHES; i++)     /* every patch comes to every place */
    if (i / PATCHES != i % PATCHES) CHECK(seen[2][i / PATCHES][i % PATCHES] > 300);
  memset(mask, 7, T);
  CHECK_INT(igpt_mask_jigsaw(&rng, mask, shown, tokens, ROWS, COLUMNS, 3, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_jigsaw(&rng, mask, shown, tokens, ROWS, COLUMNS, 8, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_jigsaw(&rng, mask, shown, tokens, 4, 4, 4, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_jigsaw(&rng, mask, shown, tokens, ROWS, COLUMNS, 4, -1), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_jigsaw(NULL, mask, shown, tokens, ROWS, COLUMNS, 4, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_jigsaw(&rng, NULL, shown, tokens, ROWS, COLUMNS, 4, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_jigsaw(&rng, mask, NULL, tokens, ROWS, COLUMNS, 4, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_mask_jigsaw(&rng, mask, shown, NULL, ROWS, COLUMNS, 4, 0), IGPT_BAD_ARGUMENT);
  CHECK(all_bytes(mask, 7, T));
}

/* With batch.shown the model sees the picture that is shown, to the bit, and is asked for the one
   that is not; what is not masked is as ever. */
TEST(shown_pixels)
{
  enum { T = 24, V = 16, N = 3 };
  igpt_config config = config_of(2, 2, 32, 4, 6, V);
  uint16_t *tokens = tokens_of(N * T, V, 6), *shown = tokens_of(N * T, V, 7), picture[N * T];
  uint8_t mask[N * T];
  igpt_batch batch = batch_of(tokens, N), other = batch_of(picture, N);
  float *a = floats_of(N * T * V), *b = floats_of(N * T * V), *nats = floats_of(N * T);
  igpt_session_desc desc;
  igpt_session *session;
  igpt_model *model;
  size_t i, v;
  config.objective = IGPT_BERT;
  model = model_random(&config, 3);
  memset(&desc, 0, sizeof desc);
  desc.batch = 2;
  desc.log.line = listen;
  CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
  for (i = 0; i < N * T; i++) mask[i] = i % 3 == 0;
  for (i = 0; i < N * T; i++) picture[i] = mask[i] ? shown[i] : tokens[i];
  batch.mask = mask;
  batch.shown = shown;
  CHECK_INT(igpt_forward(session, a, &batch), IGPT_OK);
  CHECK_INT(igpt_forward(session, b, &other), IGPT_OK);
  CHECK(same_bits(a, b, N * T * V * sizeof *a));
  CHECK_INT(igpt_nll(session, nats, NULL, &batch), IGPT_OK);
  for (i = 0; i < N * T; i++) {
    double sum = 0;
    for (v = 0; v < V; v++) sum += exp((double)a[i * V + v]);
    CHECK_NEAR(nats[i], mask[i] ? log(sum) - (double)a[i * V + tokens[i]] : 0, 1e-4);
  }
  for (i = 0; i < N * T; i++) if (!mask[i]) shown[i] = 9999;    /* not looked at */
  CHECK_INT(igpt_forward(session, b, &batch), IGPT_OK);
  CHECK(same_bits(a, b, N * T * V * sizeof *a));
  shown[T + 3] = V;
  CHECK_FAILS(igpt_forward(session, b, &batch), IGPT_BAD_ARGUMENT, "batch.shown: picture 1",
              "position 3 is 16");
  batch.mask = NULL;                          /* which has a say in what is shown */
  other = batch_of(tokens, N);
  CHECK_INT(igpt_forward(session, a, &batch), IGPT_OK);
  CHECK_INT(igpt_forward(session, b, &other), IGPT_OK);
  CHECK(same_bits(a, b, N * T * V * sizeof *a));
  free(a);
  free(b);
  free(nats);
  free(tokens);
  free(shown);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
}

/* One picture filled in `rounds` passes, each keeping the most certain of its draws, and the first
   ones of equals, so that a quarter of a cosine stays hidden. */
static void fill_by_hand(igpt_session *s, uint16_t *tokens, const uint8_t *mask, size_t T, size_t V,
                         const igpt_sample_desc *how, uint64_t picture)
{
  float *logits = floats_of(T * V);
  double *certain = (double *)bytes_of(T * sizeof *certain);
  uint16_t *drawn = (uint16_t *)bytes_of(T * sizeof *drawn);
  uint8_t *hidden = (uint8_t *)bytes_of(T);
  size_t total = 0, left, stay, i, v;
  int round;
  for (i = 0; i < T; i++) {
    hidden[i] = mask[i];
    total += mask[i];
    if (mask[i]) tokens[i] = 0;
  }
  left = total;
  for (round = 0; round < how->rounds; round++) {
    igpt_batch batch = batch_of(tokens, 1);
    batch.mask = hidden;
    CHECK_INT(igpt_forward(s, logits, &batch), IGPT_OK);
    for (i = 0; i < T; i++) {
      float *z = logits + i * V, most = z[0];
      igpt_rng rng = igpt_rng_seed(how->seed, picture);
      double sum = 0;
      for (v = 0; v < V; v++) most = z[v] > most ? z[v] : most;
      for (v = 0; v < V; v++) sum += exp((double)z[v] - (double)most);
      certain[i] = 1 / sum;
      rng.index = (uint64_t)round * T + i;
      drawn[i] = (uint16_t)igpt_draw(&rng, z, (int)V, how);
    }
    stay = (size_t)((double)total * cos(acos(0) * (round + 1) / how->rounds));
    for (stay = round + 1 < how->rounds ? stay : 0; left > stay; left--) {
      size_t best = T;
      for (i = 0; i < T; i++)
        if (hidden[i] && (best == T || certain[i] > certain[best])) best = i;
      tokens[best] = drawn[best];
      hidden[best] = 0;
    }
  }
  free(hidden);
  free(drawn);
  free(certain);
  free(logits);
}

TEST(filling_by_hand)
{
  enum { T = 20, V = 11, N = 5 };
  igpt_config config = config_of(2, 2, 32, 4, 5, V);
  uint16_t *tokens = tokens_of(N * T, V, 6), a[N * T], b[N * T];
  uint8_t mask[N * T];
  igpt_sample_desc how;
  igpt_rng rng = igpt_rng_seed(9, 9);
  int fresh;
  size_t n;
  config.objective = IGPT_BERT;
  igpt_mask_random(&rng, mask, sizeof mask, 0.8f);
  memset(&how, 0, sizeof how);
  how.seed = 5;
  how.first = 3;
  how.temperature = 0.7f;
  for (fresh = 0; fresh < 2; fresh++)         /* a fresh model is as certain of all positions */
    for (how.rounds = 1; how.rounds < 8; how.rounds += 2) {
      igpt_model *model = fresh ? model_official(&config, 4) : model_random(&config, 4);
      igpt_session *one = session_of(model, 1, 0), *three = session_of(model, 3, 0);
      memcpy(a, tokens, sizeof a);
      memcpy(b, tokens, sizeof b);
      CHECK_INT(igpt_fill(three, a, mask, N, &how), IGPT_OK);
      for (n = 0; n < N; n++)
        fill_by_hand(one, b + n * T, mask + n * T, T, V, &how, how.first + n);
      CHECK(same_bits(a, b, sizeof a));
      igpt_session_destroy(three);
      igpt_session_destroy(one);
      igpt_model_destroy(model);
    }
  free(tokens);
}

/* A BERT model fills what is hidden, leaves the rest, and does so the same in any batch. */
TEST(filling)
{
  enum { T = 20, V = 11, N = 5 };
  igpt_config config = config_of(2, 2, 32, 4, 5, V);
  igpt_model *model;
  igpt_session *one, *three;
  uint16_t *tokens = tokens_of(N * T, V, 6), a[N * T], b[N * T];
  uint8_t mask[N * T], seen[N * T];
  float logits[T * V];
  igpt_sample_desc desc;
  igpt_batch batch;
  igpt_rng rng = igpt_rng_seed(9, 9);
  size_t i, n;
  config.objective = IGPT_BERT;
  model = model_random(&config, 4);
  one = session_of(model, 1, 0);
  three = session_of(model, 3, 0);
  igpt_mask_random(&rng, mask, sizeof mask, 0.6f);
  memset(mask + 2 * T, 0, T);                 /* nothing to do, and everything */
  memset(mask + 3 * T, 1, T);
  memcpy(seen, mask, sizeof mask);
  memset(&desc, 0, sizeof desc);
  desc.seed = 5;
  for (i = 0; i < N * T; i++) a[i] = b[i] = mask[i] ? 0xffff : tokens[i];
  CHECK_INT(igpt_fill(one, a, mask, N, &desc), IGPT_OK);
  CHECK_INT(igpt_fill(three, b, mask, N, &desc), IGPT_OK);
  CHECK(same_bits(a, b, sizeof a));
  CHECK(same_bits(mask, seen, sizeof mask));
  for (i = 0; i < N * T; i++) CHECK(mask[i] ? a[i] < V : a[i] == tokens[i]);
  desc.rounds = 16;
  for (i = 0; i < N * T; i++) b[i] = mask[i] ? 0 : tokens[i];
  CHECK_INT(igpt_fill(three, b, mask, N, &desc), IGPT_OK);
  CHECK(same_bits(a, b, sizeof a));           /* 16 is the default */
  desc.rounds = 1;
  desc.top_k = 1;                             /* one round: the favourites of one pass */
  CHECK_INT(igpt_fill(three, b, mask, N, &desc), IGPT_OK);
  for (n = 0; n < N; n++) {
    batch = batch_of(b + n * T, 1);
    batch.mask = mask + n * T;
    CHECK_INT(igpt_forward(one, logits, &batch), IGPT_OK);
    for (i = 0; i < T; i++) {
      size_t v, best = 0;
      for (v = 1; v < V; v++)
        if (logits[i * V + v] > logits[i * V + best]) best = v;
      if (mask[n * T + i]) CHECK_INT(b[n * T + i], best);
    }
  }
  desc.rounds = T;                            /* many rounds: later ones look at earlier ones */
  CHECK_INT(igpt_fill(three, a, mask, N, &desc), IGPT_OK);
  CHECK(!same_bits(a, b, sizeof a));
  igpt_session_destroy(three);
  igpt_session_destroy(one);
  igpt_model_destroy(model);
  free(tokens);
}

/* ---- learning -------------------------------------------------------------------------------- */

/* Eight pictures by heart: all that an AR model cannot know is which of the eight comes, ln 8 nats
   shared by 16 pixels, 0.13. A BERT model with the class head learns labels too. */
TEST(learning)
{
  enum { N = 8, V = 16, T = 16 };
  int mode;
  for (mode = 0; mode < TEST_AMOUNT(2, 1); mode++) {
    igpt_config config = config_of(2, 2, 32, 4, 4, V);
    uint16_t *tokens = tokens_of(N * T, V, 21);
    uint8_t mask[N * T];
    int32_t labels[N];
    igpt_batch batch = batch_of(tokens, N);
    igpt_rng rng = igpt_rng_seed(1, 1);
    igpt_schedule_desc schedule;
    igpt_adam_desc adam;
    igpt_losses losses;
    igpt_model *model;
    igpt_session *session;
    double first = 0, mean = 0;
    const int steps = mode ? 600 : 200;     /* after 400 some seeds are not there yet */
    int step, i;
    config.objective = mode ? IGPT_BERT : IGPT_AR;
    config.classes = mode ? 4 : 0;
    for (i = 0; i < N; i++) labels[i] = i % 4;
    if (mode) batch.mask = mask;
    if (mode) batch.labels = labels;
    model = model_official(&config, 3);
    session = session_of(model, N, 1);
    memset(&schedule, 0, sizeof schedule);
    schedule.rate = 0.01;
    schedule.warmup = 10;
    schedule.steps = steps;
    memset(&adam, 0, sizeof adam);
    adam.clip = 1;
    memset(&losses, 0, sizeof losses);
    for (step = 0; step < steps; step++) {
      igpt_mask_random(&rng, mask, sizeof mask, 0);
      for (i = 0; i < N; i++) mask[i * T + step % T] = 1;       /* never none */
      CHECK_INT(igpt_backward(session, &losses, &batch, NULL), IGPT_OK);
      if (step == 0) first = losses.total;
      adam.rate = (float)igpt_schedule(&schedule, step);
      CHECK_INT(igpt_step(session, model, NULL, &adam), IGPT_OK);
    }
    CHECK_NEAR(first, log(16.0) + (mode ? log(4.0) : 0), 1e-6);
    CHECK_INT(igpt_nll(session, NULL, &mean, &batch), IGPT_OK);
    CHECK(mean < (mode ? 0.3 : 0.15));
    if (!mode) CHECK(mean > log(8.0) / T - 1e-4);    /* less could only be known by looking ahead */
    if (mode) CHECK(losses.classification < 0.1);
    if (mode) CHECK_INT(losses.correct, N);
    igpt_session_destroy(session);
    igpt_model_destroy(model);
    free(tokens);
  }
}

/* ---- two sessions, one model ------------------------------------------------------------------ */

/* Two sessions with half a batch each, their gradients added as an all-reduce would, move the model
   as one session with all of it does. */
TEST(all_reduce)
{
  enum { T = 16, V = 16, N = 6 };
  const igpt_config config = config_of(2, 2, 32, 4, 4, V);
  igpt_model *whole = model_random(&config, 4), *parts = model_random(&config, 4);
  igpt_session *all = session_of(whole, 4, 1), *left = session_of(parts, 4, 1);
  igpt_session *right = session_of(parts, 4, 1);
  uint16_t *tokens = tokens_of(N * T, V, 6);
  igpt_batch batch = batch_of(tokens, N);
  const size_t P = igpt_model_parameters(whole);
  igpt_adam_desc adam;
  float *a = NULL, *b = NULL;
  double one = 0, two = 0, worst = 0;
  size_t i, n = 0, m = 0;
  memset(&adam, 0, sizeof adam);
  adam.rate = 1e-3f;
  adam.epsilon = 0.01f;                       /* smooth: see parity.c */
  CHECK_INT(igpt_backward(all, NULL, &batch, NULL), IGPT_OK);
  CHECK_INT(igpt_step(all, whole, &one, &adam), IGPT_OK);
  batch.count = 2;
  CHECK_INT(igpt_backward(left, NULL, &batch, NULL), IGPT_OK);
  batch.tokens = tokens + 2 * T;
  batch.count = 4;
  CHECK_INT(igpt_backward(right, NULL, &batch, NULL), IGPT_OK);
  CHECK_INT(igpt_gradients(left, &a, &i, &n), IGPT_OK);
  CHECK_INT(igpt_gradients(right, &b, &i, &m), IGPT_OK);
  CHECK_INT(n, 2);
  CHECK_INT(m, 4);
  for (i = 0; i < P; i++) a[i] += b[i];
  adam.pictures = n + m;
  CHECK_INT(igpt_step(left, parts, &two, &adam), IGPT_OK);
  CHECK_NEAR(two / one, 1, 1e-6);
  for (i = 0; i < P; i++) {
    const double d = fabs((double)weights_of(whole)[i] - weights_of(parts)[i]);
    if (d > worst) worst = d;
  }
  CHECK(worst < 1e-6);
  free(tokens);
  igpt_session_destroy(right);
  igpt_session_destroy(left);
  igpt_session_destroy(all);
  igpt_model_destroy(parts);
  igpt_model_destroy(whole);
}

/* A gradient that is not finite moves nothing, and the run goes on as if it had not been. */
TEST(not_finite)
{
  enum { T = 16, V = 16, N = 3 };
  const igpt_config config = config_of(2, 2, 32, 4, 4, V);
  igpt_model *model = model_random(&config, 4), *twin = model_random(&config, 4);
  igpt_session *session = session_of(model, 4, 1), *control = session_of(twin, 4, 1);
  uint16_t *tokens = tokens_of(N * T, V, 6);
  igpt_batch batch = batch_of(tokens, N);
  const size_t P = igpt_model_parameters(model);
  igpt_adam_desc adam;
  igpt_losses losses;
  float *gradient = NULL, saved;
  size_t pictures = 9, i;
  int step;
  memset(&adam, 0, sizeof adam);
  adam.rate = 1e-3f;
  for (step = 0; step < 3; step++) {
    CHECK_INT(igpt_backward(control, NULL, &batch, NULL), IGPT_OK);
    CHECK_INT(igpt_step(control, twin, NULL, &adam), IGPT_OK);
    CHECK_INT(igpt_backward(session, NULL, &batch, NULL), IGPT_OK);
    CHECK_INT(igpt_step(session, model, NULL, &adam), IGPT_OK);
    CHECK_INT(igpt_backward(session, NULL, &batch, NULL), IGPT_OK);
    igpt_gradients(session, &gradient, NULL, NULL);
    gradient[100 * step] = step == 1 ? (float)HUGE_VAL : (float)sqrt(-1.0);
    CHECK_INT(igpt_step(session, model, NULL, &adam), IGPT_NOT_FINITE);
    CHECK(same_bits(weights_of(model), weights_of(twin), P * 4));
    igpt_gradients(session, &gradient, NULL, &pictures);
    CHECK(all_zero(gradient, P));
    CHECK_INT(pictures, 0);
  }
  /* a weight that is not finite is noticed in the loss */
  saved = weights_of(model)[0];
  for (i = 0; i < T * 32; i++) weights_of(model)[(V + 1) * 32 + i] = (float)sqrt(-1.0);
  CHECK_INT(igpt_backward(session, &losses, &batch, NULL), IGPT_NOT_FINITE);
  igpt_gradients(session, &gradient, NULL, &pictures);
  CHECK(all_zero(gradient, P));
  CHECK_INT(pictures, 0);
  memcpy(weights_of(model), weights_of(twin), P * 4);
  CHECK(saved == weights_of(model)[0]);
  CHECK_INT(igpt_backward(session, NULL, &batch, NULL), IGPT_OK);
  CHECK_INT(igpt_backward(control, NULL, &batch, NULL), IGPT_OK);
  CHECK_INT(igpt_step(session, model, NULL, &adam), IGPT_OK);
  CHECK_INT(igpt_step(control, twin, NULL, &adam), IGPT_OK);
  CHECK(same_bits(weights_of(model), weights_of(twin), P * 4));
  free(tokens);
  igpt_session_destroy(control);
  igpt_session_destroy(session);
  igpt_model_destroy(twin);
  igpt_model_destroy(model);
}

/* ---- memory ---------------------------------------------------------------------------------- */

typedef struct meter {
  size_t calls, frees, live, last;
  size_t fail_at;                             /* the call that gets null; 0: none */
  int    wrong;                               /* a free that does not say what was asked for */
} meter;

static void *meter_alloc(void *user, size_t bytes)
{
  meter *m = (meter *)user;
  size_t *block;
  if (++m->calls == m->fail_at) return NULL;
  block = (size_t *)malloc(bytes + 24);       /* 8 past an alignment of 16: the library aligns */
  if (!block) return NULL;
  block[0] = bytes;
  m->live += bytes;
  m->last = bytes;
  return block + 3;
}

static void meter_free(void *user, void *block, size_t bytes)
{
  meter *m = (meter *)user;
  size_t *start = (size_t *)block - 3;
  m->frees++;
  if (start[0] != bytes) m->wrong++;
  m->live -= bytes;
  free(start);
}

static igpt_allocator meter_allocator(meter *m)
{
  igpt_allocator allocator;
  memset(m, 0, sizeof *m);
  allocator.alloc = meter_alloc;
  allocator.free = meter_free;
  allocator.user = m;
  return allocator;
}

TEST(steady_state)
{
  enum { T = 16, V = 16, N = 4 };
  igpt_config config = config_of(2, 2, 32, 4, 4, V);
  uint16_t *tokens = tokens_of(N * T, V, 6);
  static const int32_t labels[N] = { 0, 1, 2, 0 };
  static const int layers[] = { 0, 2 };
  float out[N * T * T > N * T * V ? N * T * T : N * T * V];
  igpt_batch batch = batch_of(tokens, N);
  igpt_model_desc md;
  igpt_session_desc sd;
  igpt_model *model = NULL;
  igpt_session *session = NULL;
  igpt_sample_desc sample;
  igpt_adam_desc adam;
  size_t bytes = 0;
  meter mm, ms;
  int step, train, mode;
  config.classes = 3;
  for (mode = 0; mode < 4; mode++) {
    train = mode == 1;
    memset(&md, 0, sizeof md);
    memset(&sd, 0, sizeof sd);
    memset(&sample, 0, sizeof sample);
    md.config = config;
    md.allocator = meter_allocator(&mm);
    sd.batch = 3;
    sd.train = train;
    sd.precision = mode == 2 ? IGPT_BF16 : mode == 3 ? IGPT_INT8 : IGPT_F32;
    sd.allocator = meter_allocator(&ms);
    CHECK_INT(igpt_model_bytes(&bytes, &md), IGPT_OK);
    CHECK_INT(mm.calls, 0);
    CHECK_INT(igpt_model_create(&model, &md), IGPT_OK);
    CHECK_INT(mm.calls, 1);
    CHECK_INT(mm.last, bytes);
    CHECK_INT(igpt_session_bytes(&bytes, &config, &sd), IGPT_OK);
    CHECK_INT(ms.calls, 0);
    CHECK_INT(igpt_session_create(&session, model, &sd), IGPT_OK);
    CHECK_INT(ms.calls, 1);
    CHECK_INT(ms.last, bytes);
    batch.labels = labels;
    memset(&adam, 0, sizeof adam);
    adam.rate = 1e-3f;
    sample.keep = 5;
    for (step = 0; step < 20; step++) {
      if (train) {
        CHECK_INT(igpt_backward(session, NULL, &batch, NULL), IGPT_OK);
        CHECK_INT(igpt_step(session, model, NULL, &adam), IGPT_OK);
      }
      CHECK_INT(igpt_forward(session, out, &batch), IGPT_OK);
      CHECK_INT(igpt_nll(session, out, NULL, &batch), IGPT_OK);
      CHECK_INT(igpt_features(session, out, &batch, layers, 2), IGPT_OK);
      CHECK_INT(igpt_attention_map(session, out, &batch, 1, 1), IGPT_OK);
      if (train) CHECK_INT(igpt_classify(session, out, &batch), IGPT_OK);
      CHECK_INT(igpt_sample(session, tokens, N, &sample), IGPT_OK);
    }
    CHECK_INT(mm.calls, 1);
    CHECK_INT(ms.calls, 1);
    CHECK_INT(mm.frees + ms.frees, 0);
    igpt_session_destroy(session);
    igpt_model_destroy(model);
    CHECK_INT(mm.live + ms.live, 0);
    CHECK_INT(mm.frees + ms.frees, 2);
    CHECK_INT(mm.wrong + ms.wrong, 0);
  }
  igpt_session_destroy(NULL);
  igpt_model_destroy(NULL);
  free(tokens);
}

/* A block of the caller's, of any alignment, is enough if it has the bytes, and is not overrun. */
TEST(own_memory)
{
  enum { T = 16, V = 16, N = 3, GUARD = 64 };
  const igpt_config config = config_of(2, 2, 32, 4, 4, V);
  uint16_t *tokens = tokens_of(N * T, V, 6);
  igpt_batch batch = batch_of(tokens, N);
  igpt_model *reference = model_official(&config, 3);
  size_t skew;
  for (skew = 0; skew < 70; skew += 23) {
    int train = skew != 23;
    igpt_model_desc md;
    igpt_session_desc sd;
    igpt_model *model = NULL;
    igpt_session *session = NULL;
    size_t model_bytes = 0, session_bytes = 0;
    unsigned char *a, *b;
    igpt_adam_desc adam;
    memset(&md, 0, sizeof md);
    memset(&sd, 0, sizeof sd);
    memset(&adam, 0, sizeof adam);
    md.config = config;
    md.seed = 3;
    md.log.line = listen;
    sd.batch = 2;
    sd.train = train;
    sd.log.line = listen;
    CHECK_INT(igpt_model_bytes(&model_bytes, &md), IGPT_OK);
    CHECK_INT(igpt_session_bytes(&session_bytes, &config, &sd), IGPT_OK);
    a = (unsigned char *)bytes_of(skew + model_bytes + GUARD);
    b = (unsigned char *)bytes_of(skew + session_bytes + GUARD);
    md.memory = a + skew;
    md.memory_bytes = model_bytes - 1;
    CHECK_FAILS(igpt_model_create(&model, &md), IGPT_OUT_OF_MEMORY, "memory_bytes", NULL);
    CHECK(model == NULL);
    md.memory_bytes = model_bytes;
    CHECK_INT(igpt_model_create(&model, &md), IGPT_OK);
    CHECK(same_bits(weights_of(model), weights_of(reference), igpt_model_parameters(model) * 4));
    sd.memory = b + skew;
    sd.memory_bytes = session_bytes - 1;
    CHECK_FAILS(igpt_session_create(&session, model, &sd), IGPT_OUT_OF_MEMORY, "memory_bytes",
                NULL);
    CHECK(session == NULL);
    sd.memory_bytes = session_bytes;
    CHECK_INT(igpt_session_create(&session, model, &sd), IGPT_OK);
    adam.rate = 1e-3f;
    if (train) {
      CHECK_INT(igpt_backward(session, NULL, &batch, NULL), IGPT_OK);
      CHECK_INT(igpt_step(session, model, NULL, &adam), IGPT_OK);
    }
    CHECK_INT(igpt_sample(session, tokens, N, NULL), IGPT_OK);
    igpt_session_destroy(session);            /* gives back what is not the allocator's: nothing */
    igpt_model_destroy(model);
    CHECK(all_bytes(a, 0x5a, skew) && all_bytes(a + skew + model_bytes, 0x5a, GUARD));
    CHECK(all_bytes(b, 0x5a, skew) && all_bytes(b + skew + session_bytes, 0x5a, GUARD));
    free(b);
    free(a);
  }
  igpt_model_destroy(reference);
  free(tokens);
}

/* More pictures at once than one chunk of logits has rows: nothing may run over. */
TEST(large_batches)
{
  enum { T = 2, V = 64, N = 1100 };
  const igpt_config config = config_of(1, 1, 8, 1, T, V);
  igpt_model *model = model_random(&config, 5);
  uint16_t *tokens = tokens_of(N * T, V, 6), *other = tokens_of(N * T, V, 6);
  igpt_session_desc desc;
  igpt_session *small = session_of(model, 7, 0), *large = NULL;
  unsigned char *block;
  size_t bytes = 0;
  memset(&desc, 0, sizeof desc);
  desc.batch = N;
  CHECK_INT(igpt_session_bytes(&bytes, &config, &desc), IGPT_OK);
  block = (unsigned char *)bytes_of(bytes + 65536);
  desc.memory = block;
  desc.memory_bytes = bytes;
  CHECK_INT(igpt_session_create(&large, model, &desc), IGPT_OK);
  CHECK_INT(igpt_sample(large, tokens, N, NULL), IGPT_OK);
  CHECK_INT(igpt_sample(small, other, N, NULL), IGPT_OK);
  CHECK(same_bits(tokens, other, N * T * sizeof *tokens));
  CHECK(all_bytes(block + bytes, 0x5a, 65536));
  igpt_session_destroy(large);
  igpt_session_destroy(small);
  igpt_model_destroy(model);
  free(block);
  free(other);
  free(tokens);
}

TEST(out_of_memory)
{
  const igpt_config config = config_of(2, 2, 32, 4, 4, 16);
  igpt_model_desc md;
  igpt_session_desc sd;
  igpt_model *model = NULL;
  igpt_session *session = NULL;
  meter m, mm;
  size_t n, failures = 0;
  memset(&md, 0, sizeof md);
  md.config = config;
  md.log.line = listen;
  for (n = 1; n < 20; n++) {
    md.allocator = meter_allocator(&mm);
    mm.fail_at = n;
    model = (igpt_model *)1;
    if (igpt_model_create(&model, &md) == IGPT_OK) break;
    failures++;
    CHECK_INT(said_result, IGPT_OUT_OF_MEMORY);
    CHECK(model == NULL);
    CHECK_INT(mm.live, 0);
  }
  CHECK(failures >= 1 && n < 20);
  memset(&sd, 0, sizeof sd);
  sd.train = 1;
  sd.log.line = listen;
  failures = 0;
  for (n = 1; n < 20; n++) {
    sd.allocator = meter_allocator(&m);
    m.fail_at = n;
    session = (igpt_session *)1;
    if (igpt_session_create(&session, model, &sd) == IGPT_OK) break;
    failures++;
    CHECK_INT(said_result, IGPT_OUT_OF_MEMORY);
    CHECK(session == NULL);
    CHECK_INT(m.live, 0);
  }
  CHECK(failures >= 1 && n < 20);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  CHECK_INT(m.live, 0);
  CHECK_INT(mm.live, 0);
  md.allocator.free = NULL;                   /* only one of the two */
  CHECK_FAILS(igpt_model_create(&model, &md), IGPT_BAD_ARGUMENT, "alloc", "free");
  CHECK(model == NULL);
}

/* ---- defaults -------------------------------------------------------------------------------- */

/* The number after "0: " in the comment of a field of a public struct: `code` is the line without
   its spaces, up to the semicolon. */
static double documented(const char *text, const char *structure, const char *code)
{
  char open[80];
  const char *line, *end;
  snprintf(open, sizeof open, "typedef struct %s {", structure);
  line = strstr(text, open);
  end = line ? strstr(line, "\n}") : NULL;
  while (line && (line = strchr(line, '\n')) != NULL && line < end) {
    const char *at = ++line, *want = code, *zero = strstr(line, " 0: ");
    for (; *want; at++) {
      if (*at == ' ') continue;
      if (*at != *want) break;
      want++;
    }
    if (!*want && *at == ';' && zero && zero < strchr(line, '\n')) return strtod(zero + 4, NULL);
  }
  test_errors++;
  printf("%s: no \"0: ...\" beside %s in struct %s\n", HEADER, code, structure);
  return -1;
}

TEST(defaults)
{
  enum { T = 16, V = 16, N = 2 };
  FILE *file = fopen(HEADER, "rb");
  static char text[1 << 21];
  igpt_config config;
  const igpt_session_desc *resolved;
  igpt_model *model, *twin;
  igpt_session *session, *control;
  igpt_adam_desc adam;
  uint16_t *tokens = tokens_of(N * T, V, 6);
  igpt_batch batch = batch_of(tokens, N);
  size_t length;
  int step;
  if (!file) {
    free(tokens);
    SKIP("cannot open igpt.h: run this from the root of the repository");
  }
  length = fread(text, 1, sizeof text - 1, file);
  text[length] = 0;
  fclose(file);

  memset(&config, 0, sizeof config);
  CHECK_INT(igpt_config_resolve(&config, NULL), IGPT_OK);
  CHECK_INT(config.layers, 8);
  CHECK_INT(config.layers, documented(text, "igpt_config", "intlayers"));
  CHECK_INT(config.width, 128);
  CHECK_INT(config.width, documented(text, "igpt_config", "intwidth"));
  CHECK_INT(config.heads, 128 / 32);          /* "0: width / 32, at least 1" */
  CHECK_INT(config.rows, 32);
  CHECK_INT(config.rows, documented(text, "igpt_config", "introws,columns"));
  CHECK_INT(config.columns, 32);
  CHECK_INT(config.vocabulary, 512);
  CHECK_INT(config.vocabulary, documented(text, "igpt_config", "intvocabulary"));
  CHECK_INT(config.classes, 0);
  CHECK_INT(config.objective, IGPT_AR);
  CHECK(config.norm_epsilon == (float)1e-5f);
  CHECK(config.norm_epsilon == (float)documented(text, "igpt_config", "floatnorm_epsilon"));
  config = config_of(0, 0, 96, 7, 0, 0);
  CHECK_INT(igpt_config_resolve(&config, NULL), IGPT_OK);
  CHECK_INT(config.heads, 3);
  CHECK_INT(config.columns, 7);               /* columns = rows */
  config = config_of(0, 0, 64, 0, 0, 0);
  CHECK_INT(igpt_config_resolve(&config, NULL), IGPT_OK);
  CHECK_INT(config.heads, 2);
  config = config_of(0, 0, 40, 0, 0, 0);
  CHECK_INT(igpt_config_resolve(&config, NULL), IGPT_OK);
  CHECK_INT(config.heads, 1);
  config = config_of(0, 0, 8, 0, 0, 0);
  CHECK_INT(igpt_config_resolve(&config, NULL), IGPT_OK);
  CHECK_INT(config.heads, 1);

  /* resolved values can be asked for */
  config = config_of(2, 2, 32, 4, 4, V);
  model = model_random(&config, 4);
  twin = model_random(&config, 4);
  CHECK(igpt_model_config(model)->norm_epsilon == (float)1e-5f);
  session = session_of(model, 0, 1);
  control = session_of(twin, 0, 1);
  resolved = igpt_session_resolved(session);
  CHECK_INT(resolved->batch, 1);
  CHECK_INT(resolved->batch, documented(text, "igpt_session_desc", "intbatch"));
  CHECK_INT(resolved->precision, IGPT_F32);
  CHECK_INT(resolved->isa, igpt_isa_best());
  CHECK(resolved->allocator.alloc != NULL && resolved->allocator.free != NULL);

  /* zero fields of Adam do what the documented numbers do, and other numbers do something else */
  for (step = 0; step < 3; step++) {
    memset(&adam, 0, sizeof adam);
    adam.rate = 1e-3f;
    CHECK_INT(igpt_backward(session, NULL, &batch, NULL), IGPT_OK);
    CHECK_INT(igpt_step(session, model, NULL, &adam), IGPT_OK);
    adam.beta1 = 0.9f;
    adam.beta2 = 0.95f;
    adam.epsilon = 1e-8f;
    adam.pictures = N;
    CHECK(adam.beta1 == (float)documented(text, "igpt_adam_desc", "floatbeta1,beta2"));
    CHECK(strstr(text, "0: 0.9, 0.95") != NULL);
    CHECK(adam.epsilon == (float)documented(text, "igpt_adam_desc", "floatepsilon"));
    CHECK_INT(igpt_backward(control, NULL, &batch, NULL), IGPT_OK);
    CHECK_INT(igpt_step(control, twin, NULL, &adam), IGPT_OK);
    CHECK(same_bits(weights_of(model), weights_of(twin), igpt_model_parameters(model) * 4));
  }
  adam.rate = 0;                              /* allowed, and moves nothing */
  CHECK_INT(igpt_backward(control, NULL, &batch, NULL), IGPT_OK);
  CHECK_INT(igpt_step(control, twin, NULL, &adam), IGPT_OK);
  CHECK(same_bits(weights_of(model), weights_of(twin), igpt_model_parameters(model) * 4));
  igpt_session_destroy(control);
  igpt_session_destroy(session);
  igpt_model_destroy(twin);
  igpt_model_destroy(model);
  free(tokens);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static igpt_plan plan_of(const igpt_config *config, int batch, int train)
{
  igpt_session_desc desc;
  igpt_plan plan;
  memset(&desc, 0, sizeof desc);
  memset(&plan, 0, sizeof plan);
  desc.batch = batch;
  desc.train = train;
  CHECK_INT(igpt_plan_make(&plan, config, &desc), IGPT_OK);
  return plan;
}

TEST(plan)
{
  static const struct { const char *name; int heads, side; uint64_t parameters; } published[] = {
    { "S", 8, 0, 76571648u }, { "M", 8, 0, 455157760u }, { "L", 16, 0, 1362250752u },
    { "XL", 24, 32, 6801438720u }, { "XL", 24, 0, 6810875904u },
    { "tiny", 2, 0, 328320u }, { "small-cpu", 4, 0, 1837312u }, { "medium-cpu", 8, 0, 9968128u }
  };
  static const struct { int layers, width; uint64_t parameters; } items[] = {
    { 4, 64, 328320 }, { 6, 128, 1443584 }, { 8, 128, 1837312 }, { 6, 192, 3050112 },
    { 8, 256, 6820352 }
  };
  size_t i;
  int train;
  for (i = 0; i < sizeof published / sizeof *published; i++) {
    igpt_config config;
    igpt_plan plan;
    memset(&config, 0, sizeof config);
    CHECK_INT(igpt_config_preset(&config, published[i].name), IGPT_OK);
    CHECK_INT(config.heads, published[i].heads);
    if (published[i].side) config.rows = config.columns = published[i].side;
    else {                                    /* the size stays, but XL has its own */
      config.rows = config.columns = 16;
      CHECK_INT(igpt_config_preset(&config, published[i].name), IGPT_OK);
      CHECK_INT(config.rows, strcmp(published[i].name, "XL") ? 16 : 64);
      if (config.rows == 16) config.rows = config.columns = 0;
    }
    if (sizeof(size_t) < 8 && published[i].parameters > 200000000u) continue;
    plan = plan_of(&config, 1, 0);
    CHECK_INT(plan.parameters, published[i].parameters);
    CHECK(plan.model_bytes >= plan.parameters * 4);
    CHECK(plan.model_bytes <= plan.parameters * 4 + (1 << 20));
  }
  for (i = 0; i < sizeof items / sizeof *items; i++) {
    igpt_config config;
    memset(&config, 0, sizeof config);
    config.layers = items[i].layers;
    config.width = items[i].width;
    CHECK_INT(plan_of(&config, 1, 0).parameters, items[i].parameters);
    config.objective = IGPT_BERT;             /* no start vector */
    CHECK_INT(plan_of(&config, 1, 0).parameters, items[i].parameters - (uint64_t)items[i].width);
    config.classes = 10;
    CHECK_INT(plan_of(&config, 1, 0).parameters,
              items[i].parameters + 9 * (uint64_t)items[i].width);
  }
  for (train = 0; train < 2; train++) {       /* the plan is what happens */
    igpt_config config = config_of(3, 4, 64, 8, 8, 50);
    igpt_session_desc sd;
    igpt_model_desc md;
    igpt_plan plan = plan_of(&config, 4, train), twice = plan_of(&config, 8, train);
    igpt_model *model;
    size_t bytes = 0, sum;
    double matrices, attention;
    memset(&sd, 0, sizeof sd);
    memset(&md, 0, sizeof md);
    sd.batch = 4;
    sd.train = train;
    md.config = config;
    CHECK_INT(igpt_session_bytes(&bytes, &config, &sd), IGPT_OK);
    CHECK_INT(plan.session_bytes, bytes);
    CHECK_INT(igpt_model_bytes(&bytes, &md), IGPT_OK);
    CHECK_INT(plan.model_bytes, bytes);
    model = model_official(&config, 0);
    CHECK_INT(plan.parameters, igpt_model_parameters(model));
    igpt_model_destroy(model);
    sum = plan.gradient_bytes + plan.moment_bytes + plan.activation_bytes + plan.cache_bytes
        + plan.copy_bytes + plan.scratch_bytes;
    CHECK_INT(plan.session_bytes, sum);       /* "the sum of the next six" */
    CHECK_INT(plan.copy_bytes, 0);
    if (train) {
      CHECK(plan.gradient_bytes >= plan.parameters * 4);
      CHECK(plan.gradient_bytes < plan.parameters * 4 + 64);
      CHECK(plan.moment_bytes >= plan.parameters * 8);
      CHECK(plan.moment_bytes < plan.parameters * 8 + 128);
      CHECK(plan.activation_bytes >= 3 * 4 * 64 * 10 * 64 * 4u);     /* L B T (10 C) floats */
    } else {
      CHECK_INT(plan.gradient_bytes, 0);
      CHECK_INT(plan.moment_bytes, 0);
      CHECK(plan.cache_bytes >= 3 * 4 * 64 * 2 * 64 * 4u);           /* L B T (2 C) floats */
      sd.no_cache = 1;
      CHECK_INT(igpt_session_bytes(&bytes, &config, &sd), IGPT_OK);
      CHECK_INT(bytes, plan.session_bytes - plan.cache_bytes);
    }
    {                                         /* two bytes a weight, or one and scales */
      const size_t matrices_of = 3 * 12 * 64 * 64 + 64 * 64;           /* 50 colours take 64 */
      int bytes_each;
      for (bytes_each = 2; bytes_each > 0; bytes_each--) {
        igpt_plan less;
        memset(&less, 0, sizeof less);
        sd.no_cache = 0;
        sd.precision = bytes_each == 2 ? IGPT_BF16 : IGPT_INT8;
        if (train && bytes_each == 1) continue;
        CHECK_INT(igpt_plan_make(&less, &config, &sd), IGPT_OK);
        sum = less.gradient_bytes + less.moment_bytes + less.activation_bytes + less.cache_bytes
            + less.copy_bytes + less.scratch_bytes;
        CHECK_INT(less.session_bytes, sum);
        if (train) CHECK_INT(less.copy_bytes, 0);
        else CHECK(less.copy_bytes >= matrices_of * (size_t)bytes_each);
        CHECK(less.copy_bytes <= matrices_of * (size_t)bytes_each + 8192);
        if (!train) CHECK_INT(less.cache_bytes, plan.cache_bytes / 2);
        sd.no_cache = 1;
        CHECK_INT(igpt_plan_make(&less, &config, &sd), IGPT_OK);
        CHECK_INT(less.cache_bytes, 0);
        CHECK((less.copy_bytes > 0) == (bytes_each == 1));
      }
    }
    CHECK(twice.activation_bytes + twice.cache_bytes
          >= 2 * (plan.activation_bytes + plan.cache_bytes) - 8192);
    /* T = 64, C = 64, L = 3, V = 50: 2 FLOPs a multiply-add */
    matrices = 2.0 * 64 * (3 * 12.0 * 64 * 64 + 50 * 64);
    attention = 3 * 2 * 2.0 * 64 * 64 * 64;
    CHECK(plan.forward_flops >= matrices + 0.5 * attention);
    CHECK(plan.forward_flops <= matrices + attention);
    CHECK(plan.train_flops >= 3 * plan.forward_flops - attention);
    CHECK(plan.train_flops <= 3 * matrices + 4 * attention);
    CHECK(plan.decode_flops >= matrices && plan.decode_flops <= matrices + attention);
    config.objective = IGPT_BERT;             /* decodes nothing */
    CHECK(plan_of(&config, 1, 0).decode_flops == 0);
  }
}

/* ---- activations computed again -------------------------------------------------------------- */

TEST(recompute)
{
  int objective, class_head;
  for (objective = IGPT_AR; objective <= IGPT_BERT; objective++)
    for (class_head = 0; class_head < 2; class_head++) {
      igpt_config config = config_of(4, 2, 32, 6, 5, 40);
      igpt_session_desc sd;
      igpt_plan kept, again;
      igpt_model *model;
      float *gradients[2];
      uint16_t tokens[3 * 30];
      uint8_t mask[3 * 30];
      int32_t labels[3] = { 1, 0, 2 };
      size_t i, count = 0;
      int once;
      config.objective = (igpt_objective)objective;
      config.classes = class_head ? 3 : 0;
      model = model_random(&config, 5);
      for (i = 0; i < 90; i++) {
        tokens[i] = (uint16_t)(i * 7 % 40);
        mask[i] = i % 6 == 0;
      }
      memset(&sd, 0, sizeof sd);
      sd.batch = 2;
      sd.train = 1;
      CHECK_INT(igpt_plan_make(&kept, &config, &sd), IGPT_OK);
      sd.recompute = 1;
      CHECK_INT(igpt_plan_make(&again, &config, &sd), IGPT_OK);
      /* of 4 blocks 3 have the stream (R,C) alone, instead of 10 C and some */
      CHECK(kept.activation_bytes - again.activation_bytes >= 3 * 60 * 9 * 32 * 4u);
      CHECK(kept.session_bytes > again.session_bytes);
      for (once = 0; once < 2; once++) {
        igpt_session *session;
        igpt_batch batch;
        float *block = NULL;
        memset(&batch, 0, sizeof batch);
        batch.tokens = tokens;
        batch.mask = objective == IGPT_BERT ? mask : NULL;
        batch.labels = class_head ? labels : NULL;
        batch.count = 3;
        sd.recompute = once;
        CHECK_INT(igpt_session_create(&session, model, &sd), IGPT_OK);
        CHECK_INT(igpt_backward(session, NULL, &batch, NULL), IGPT_OK);
        CHECK_INT(igpt_gradients(session, &block, &count, NULL), IGPT_OK);
        gradients[once] = floats_of(count);
        if (block) memcpy(gradients[once], block, count * sizeof *block);
        igpt_session_destroy(session);
      }
      CHECK(!all_zero(gradients[0], count));
      CHECK(same_bits(gradients[0], gradients[1], count * sizeof(float)));
      free(gradients[0]);
      free(gradients[1]);
      igpt_model_destroy(model);
    }
}

/* ---- asking for what cannot be --------------------------------------------------------------- */

/* Biases of zero change no bit; the session does without tiles for any. */
TEST(biases)
{
  igpt_config config = config_of(2, 2, 24, 5, 3, 13);
  igpt_model *plain = model_random(&config, 3), *biased;
  uint16_t *tokens = tokens_of(30, 13, 6);
  igpt_batch batch = batch_of(tokens, 2);
  float *a = floats_of(30 * 13), *b = floats_of(30 * 13);
  int precision;
  size_t i;
  config.biases = 1;
  biased = model_official(&config, 4);
  CHECK_INT(igpt_model_tensors(biased), igpt_model_tensors(plain) + 2 * 4);
  CHECK_INT(igpt_model_parameters(biased), igpt_model_parameters(plain) + 2 * 9 * 24);
  for (i = 0; i < igpt_model_tensors(biased); i++) {
    igpt_tensor to, from;
    igpt_model_tensor_at(biased, &to, i);
    if (strstr(to.name, ".bias")) {
      CHECK(to.rank == 1 && all_zero(to.data, to.count));
      continue;
    }
    CHECK_INT(igpt_model_tensor(plain, &from, to.name), IGPT_OK);
    memcpy(to.data, from.data, to.count * sizeof *to.data);
  }
  for (precision = IGPT_F32; precision <= IGPT_INT8; precision++) {
    igpt_session_desc desc;
    igpt_session *one, *other;
    igpt_tensor bias;
    memset(&desc, 0, sizeof desc);
    desc.precision = (igpt_precision)precision;
    CHECK_INT(igpt_session_create(&other, biased, &desc), IGPT_OK);
    CHECK(!part_tiles(igpt_session_resolved(other)->isa));
    CHECK_INT(igpt_session_resolved(other)->precision, precision);
    desc.isa = igpt_session_resolved(other)->isa;
    CHECK_INT(igpt_session_create(&one, plain, &desc), IGPT_OK);
    CHECK_INT(igpt_forward(one, a, &batch), IGPT_OK);
    CHECK_INT(igpt_forward(other, b, &batch), IGPT_OK);
    CHECK(same_bits(a, b, 30 * 13 * sizeof *a));
    CHECK_INT(igpt_model_tensor(biased, &bias, "transformer.h.1.mlp.c_proj.bias"), IGPT_OK);
    bias.data[23] = 0.5f;
    CHECK_INT(igpt_forward(other, b, &batch), IGPT_OK);
    CHECK(!same_bits(a, b, 30 * 13 * sizeof *a));
    bias.data[23] = 0;
    igpt_session_destroy(one);
    igpt_session_destroy(other);
  }
  free(a);
  free(b);
  free(tokens);
  igpt_model_destroy(plain);
  igpt_model_destroy(biased);
}

TEST(bad_configurations)
{
  igpt_config config = config_of(2, 3, 128, 4, 4, 16);
  igpt_model_desc desc;
  igpt_model *model = (igpt_model *)1;
  igpt_log log;
  igpt_plan plan;
  size_t bytes = 77;
  memset(&log, 0, sizeof log);
  log.line = listen;
  memset(&desc, 0, sizeof desc);
  desc.log = log;
  desc.config = config;
  CHECK_FAILS(igpt_model_create(&model, &desc), IGPT_BAD_ARGUMENT, "3", "128");
  CHECK(model == NULL && strstr(said, "heads") && strstr(said, "width"));
  CHECK_FAILS(igpt_model_bytes(&bytes, &desc), IGPT_BAD_ARGUMENT, "3", "128");
  CHECK_INT(bytes, 77);                       /* what cannot be written is left alone */
  CHECK_FAILS(igpt_config_resolve(&config, &log), IGPT_BAD_ARGUMENT, "heads is 3", "128");
  config = config_of(-2, 2, 32, 4, 4, 16);
  CHECK_FAILS(igpt_config_resolve(&config, &log), IGPT_BAD_ARGUMENT, "layers", "-2");
  config = config_of(2, 2, -32, 4, 4, 16);
  CHECK_FAILS(igpt_config_resolve(&config, &log), IGPT_BAD_ARGUMENT, "width", "-32");
  config = config_of(2, 2, 32, -4, 4, 16);
  CHECK_FAILS(igpt_config_resolve(&config, &log), IGPT_BAD_ARGUMENT, "rows", "-4");
  config = config_of(2, 2, 32, 4, -5, 16);
  CHECK_FAILS(igpt_config_resolve(&config, &log), IGPT_BAD_ARGUMENT, "columns", "-5");
  config = config_of(2, 2, 32, 4, 4, 65536);
  CHECK_FAILS(igpt_config_resolve(&config, &log), IGPT_BAD_ARGUMENT, "vocabulary", "65536");
  config = config_of(2, 2, 32, 4, 4, 65535);
  CHECK_INT(igpt_config_resolve(&config, &log), IGPT_OK);
  config = config_of(2, 2, 32, 4, 4, 16);
  config.classes = -1;
  CHECK_FAILS(igpt_config_resolve(&config, &log), IGPT_BAD_ARGUMENT, "classes", "-1");
  config.classes = 0;
  config.biases = 2;
  CHECK_FAILS(igpt_config_resolve(&config, &log), IGPT_BAD_ARGUMENT, "biases is 2", "0..1");
  config.biases = 0;
  config.objective = (igpt_objective)2;
  CHECK_FAILS(igpt_config_resolve(&config, &log), IGPT_BAD_ARGUMENT, "objective", "2");
  config.objective = IGPT_AR;
  config.norm_epsilon = -1;
  CHECK_FAILS(igpt_config_resolve(&config, &log), IGPT_BAD_ARGUMENT, "norm_epsilon", "-1");
  config.norm_epsilon = 1e-26f;
  CHECK_FAILS(igpt_config_resolve(&config, &log), IGPT_BAD_ARGUMENT, "norm_epsilon", "1e-26");
  config.norm_epsilon = (float)sqrt(-1.0);
  CHECK_FAILS(igpt_config_resolve(&config, &log), IGPT_BAD_ARGUMENT, "norm_epsilon", "nan");
  CHECK_INT(igpt_config_resolve(NULL, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_config_preset(&config, "XXL"), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_config_preset(&config, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_config_preset(NULL, "S"), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_create(NULL, &desc), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_bytes(NULL, &desc), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_plan_make(NULL, &config, NULL), IGPT_BAD_ARGUMENT);
  /* sizes that do not fit are noticed, not wrapped */
  {
    igpt_session_desc sd;
    memset(&sd, 0, sizeof sd);
    sd.log = log;
    sd.batch = 1 << 20;
    sd.train = 1;
    config = config_of(4096, 1, 1 << 20, 1 << 15, 1 << 15, 65535);
    CHECK_FAILS(igpt_plan_make(&plan, &config, &sd), IGPT_TOO_LARGE, NULL, NULL);
    CHECK_FAILS(igpt_session_bytes(&bytes, &config, &sd), IGPT_TOO_LARGE, NULL, NULL);
    CHECK_INT(bytes, 77);
    sd.train = 0;
    sd.precision = IGPT_INT8;
    CHECK_FAILS(igpt_session_bytes(&bytes, &config, &sd), IGPT_TOO_LARGE, NULL, NULL);
    CHECK_INT(bytes, 77);
    sd.train = 1;
    config = config_of(1, 1, 8, 1, 1, 2);
    CHECK_FAILS(igpt_session_bytes(&bytes, &config, &sd), IGPT_BAD_ARGUMENT, "train", "INT8");
    CHECK_INT(bytes, 77);
    sd.precision = (igpt_precision)(IGPT_PRECISION_AUTO + 1);
    CHECK_FAILS(igpt_plan_make(&plan, &config, &sd), IGPT_BAD_ARGUMENT, "precision", "0..3");
    sd.precision = IGPT_F32;
    sd.batch = -1;
    CHECK_FAILS(igpt_plan_make(&plan, &config, &sd), IGPT_BAD_ARGUMENT, "batch", "-1");
  }
}

TEST(bad_calls)
{
  enum { T = 16, V = 16 };
  igpt_config config = config_of(2, 2, 32, 4, 4, V);
  igpt_model *ar, *bert, *plain;
  igpt_session *s = NULL, *b = NULL, *bare = NULL, *run = NULL;
  igpt_session_desc desc;
  uint16_t *tokens = tokens_of(2 * T, V, 6);
  uint8_t mask[2 * T];
  int32_t labels[2] = { 0, 3 };
  float out[2 * T * V];
  igpt_batch batch = batch_of(tokens, 2), bad;
  igpt_sample_desc sample;
  igpt_adam_desc adam;
  igpt_loss_desc loss;
  igpt_losses losses;
  igpt_tensor tensor;
  double norm;
  int layer = 0;
  memset(mask, 1, sizeof mask);
  memset(&sample, 0, sizeof sample);
  memset(&adam, 0, sizeof adam);
  adam.rate = 1e-3f;
  plain = model_official(&config, 1);
  config.classes = 3;
  ar = model_official(&config, 1);
  config.objective = IGPT_BERT;
  bert = model_official(&config, 1);
  memset(&desc, 0, sizeof desc);
  desc.log.line = listen;
  desc.batch = 2;
  desc.train = 1;
  CHECK_INT(igpt_session_create(&s, ar, &desc), IGPT_OK);
  CHECK_INT(igpt_session_create(&b, bert, &desc), IGPT_OK);
  CHECK_INT(igpt_session_create(&bare, plain, &desc), IGPT_OK);
  desc.train = 0;
  desc.no_cache = 1;
  CHECK_INT(igpt_session_create(&run, ar, &desc), IGPT_OK);

  /* the wrong objective, a head that was never trained */
  CHECK_FAILS(igpt_sample(b, tokens, 2, &sample), IGPT_WRONG_OBJECTIVE, "BERT", NULL);
  CHECK_FAILS(igpt_decode_begin(b, NULL, 0, 1), IGPT_WRONG_OBJECTIVE, "BERT", NULL);
  CHECK_FAILS(igpt_fill(s, tokens, mask, 2, &sample), IGPT_WRONG_OBJECTIVE, "AR", NULL);
  CHECK_FAILS(igpt_classify(s, out, &batch), IGPT_UNTRAINED_HEAD, "head", NULL);
  CHECK_FAILS(igpt_classify(b, out, &batch), IGPT_UNTRAINED_HEAD, "head", NULL);
  CHECK_FAILS(igpt_classify(bare, out, &batch), IGPT_UNTRAINED_HEAD, "head", NULL);
  CHECK_INT(igpt_model_tensor(ar, &tensor, "score.weight"), IGPT_OK);
  tensor.data[95] = 1e-20f;                   /* one scalar, the last, is enough */
  CHECK_INT(igpt_classify(s, out, &batch), IGPT_OK);

  /* tokens and labels out of range, named with both values */
  bad = batch;
  tokens[T + 3] = V;
  CHECK_FAILS(igpt_forward(s, out, &bad), IGPT_BAD_ARGUMENT, "16", "vocabulary");
  CHECK_FAILS(igpt_nll(s, out, &norm, &bad), IGPT_BAD_ARGUMENT, "picture 1", "position 3");
  CHECK_FAILS(igpt_backward(s, NULL, &bad, NULL), IGPT_BAD_ARGUMENT, "16", NULL);
  CHECK_FAILS(igpt_features(s, out, &bad, &layer, 1), IGPT_BAD_ARGUMENT, "16", NULL);
  CHECK_FAILS(igpt_attention_map(s, out, &bad, 0, 0), IGPT_BAD_ARGUMENT, "16", NULL);
  CHECK_FAILS(igpt_classify(s, out, &bad), IGPT_BAD_ARGUMENT, "16", NULL);
  tokens[T + 3] = 2;
  tokens[1] = 999;
  sample.keep = 2;
  CHECK_FAILS(igpt_sample(s, tokens, 2, &sample), IGPT_BAD_ARGUMENT, "999", "16");
  tokens[1] = 1;
  bad.labels = labels;
  CHECK_FAILS(igpt_backward(s, NULL, &bad, NULL), IGPT_BAD_ARGUMENT, "3", "labels");
  labels[1] = -1;
  CHECK_FAILS(igpt_backward(s, NULL, &bad, NULL), IGPT_BAD_ARGUMENT, "-1", "labels");
  labels[1] = 2;
  CHECK_INT(igpt_backward(s, NULL, &bad, NULL), IGPT_OK);
  CHECK_INT(igpt_gradients_zero(s), IGPT_OK);
  CHECK_FAILS(igpt_backward(bare, NULL, &bad, NULL), IGPT_BAD_ARGUMENT, "class", NULL);
  memset(&loss, 0, sizeof loss);
  loss.generative = 1;                        /* labels that nobody asks for are not looked at */
  CHECK_INT(igpt_backward(bare, &losses, &bad, &loss), IGPT_OK);
  CHECK(losses.classification == 0 && losses.correct == 0);
  CHECK(losses.total == losses.generative);

  /* null pointers */
  CHECK_INT(igpt_forward(NULL, out, &batch), IGPT_BAD_ARGUMENT);
  CHECK_FAILS(igpt_forward(s, NULL, &batch), IGPT_BAD_ARGUMENT, "logits", NULL);
  CHECK_FAILS(igpt_forward(s, out, NULL), IGPT_BAD_ARGUMENT, "batch", NULL);
  bad = batch;
  bad.tokens = NULL;
  CHECK_FAILS(igpt_forward(s, out, &bad), IGPT_BAD_ARGUMENT, "tokens", NULL);
  bad.count = 0;
  CHECK_INT(igpt_forward(s, out, &bad), IGPT_OK);          /* nothing to do */
  CHECK_INT(igpt_nll(NULL, out, &norm, &batch), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_nll(s, NULL, NULL, &batch), IGPT_OK);
  CHECK_INT(igpt_classify(NULL, out, &batch), IGPT_BAD_ARGUMENT);
  CHECK_FAILS(igpt_classify(s, NULL, &batch), IGPT_BAD_ARGUMENT, "logits", NULL);
  CHECK_INT(igpt_features(NULL, out, &batch, &layer, 1), IGPT_BAD_ARGUMENT);
  CHECK_FAILS(igpt_features(s, NULL, &batch, &layer, 1), IGPT_BAD_ARGUMENT, "features", NULL);
  CHECK_FAILS(igpt_features(s, out, &batch, NULL, 1), IGPT_BAD_ARGUMENT, "layers", NULL);
  layer = 3;
  CHECK_FAILS(igpt_features(s, out, &batch, &layer, 1), IGPT_BAD_ARGUMENT, "3", "2");
  layer = -1;
  CHECK_FAILS(igpt_features(s, out, &batch, &layer, 1), IGPT_BAD_ARGUMENT, "-1", NULL);
  CHECK_INT(igpt_attention_map(NULL, out, &batch, 0, 0), IGPT_BAD_ARGUMENT);
  CHECK_FAILS(igpt_attention_map(s, NULL, &batch, 0, 0), IGPT_BAD_ARGUMENT, "map", NULL);
  CHECK_FAILS(igpt_attention_map(s, out, &batch, 2, 0), IGPT_BAD_ARGUMENT, "layer 2", NULL);
  CHECK_FAILS(igpt_attention_map(s, out, &batch, 0, 2), IGPT_BAD_ARGUMENT, "head 2", NULL);
  CHECK_INT(igpt_sample(NULL, tokens, 1, &sample), IGPT_BAD_ARGUMENT);
  CHECK_FAILS(igpt_sample(s, NULL, 1, &sample), IGPT_BAD_ARGUMENT, "tokens", NULL);
  sample.keep = T + 1;
  CHECK_FAILS(igpt_sample(s, tokens, 1, &sample), IGPT_BAD_ARGUMENT, "keep", "17");
  sample.keep = -1;
  CHECK_FAILS(igpt_sample(s, tokens, 1, &sample), IGPT_BAD_ARGUMENT, "keep", "-1");
  sample.keep = 0;
  sample.temperature = -1;
  CHECK_FAILS(igpt_sample(s, tokens, 1, &sample), IGPT_BAD_ARGUMENT, "temperature", "-1");
  sample.temperature = 0;
  sample.top_p = 1.5f;
  CHECK_FAILS(igpt_sample(s, tokens, 1, &sample), IGPT_BAD_ARGUMENT, "top_p", "1.5");
  sample.top_p = 0;
  sample.top_k = -3;
  CHECK_FAILS(igpt_sample(s, tokens, 1, &sample), IGPT_BAD_ARGUMENT, "top_k", "-3");
  sample.top_k = 0;
  CHECK_FAILS(igpt_sample(run, tokens, 1, &sample), IGPT_BAD_ARGUMENT, "no_cache", NULL);
  CHECK_INT(igpt_fill(NULL, tokens, mask, 1, NULL), IGPT_BAD_ARGUMENT);
  CHECK_FAILS(igpt_fill(b, NULL, mask, 1, NULL), IGPT_BAD_ARGUMENT, "tokens", NULL);
  CHECK_FAILS(igpt_fill(b, tokens, NULL, 1, NULL), IGPT_BAD_ARGUMENT, "mask", NULL);
  CHECK_INT(igpt_decode_begin(NULL, NULL, 0, 1), IGPT_BAD_ARGUMENT);
  CHECK_FAILS(igpt_decode_begin(s, NULL, 2, 1), IGPT_BAD_ARGUMENT, "prefix", NULL);
  CHECK_FAILS(igpt_decode_begin(s, NULL, 0, 3), IGPT_BAD_ARGUMENT, "count 3", NULL);
  tokens[1] = V;
  CHECK_FAILS(igpt_decode_begin(s, tokens, 1, 2), IGPT_BAD_ARGUMENT, "prefix[1] is 16", NULL);
  tokens[1] = 0;
  CHECK_FAILS(igpt_decode(s, out, NULL), IGPT_BAD_ARGUMENT, "begin", NULL);
  CHECK_INT(igpt_decode(NULL, out, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_decode_begin(s, NULL, 0, 2), IGPT_OK);
  CHECK_INT(igpt_decode(s, out, NULL), IGPT_OK);
  CHECK_FAILS(igpt_decode(s, out, NULL), IGPT_BAD_ARGUMENT, "tokens", NULL);
  tokens[0] = V;
  CHECK_FAILS(igpt_decode(s, out, tokens), IGPT_BAD_ARGUMENT, "16", NULL);
  tokens[0] = 0;
  CHECK_INT(igpt_decode(s, out, tokens), IGPT_OK);         /* the session is still usable */

  /* training */
  CHECK_INT(igpt_backward(NULL, NULL, &batch, NULL), IGPT_BAD_ARGUMENT);
  CHECK_FAILS(igpt_backward(run, NULL, &batch, NULL), IGPT_BAD_ARGUMENT, "train", NULL);
  CHECK_FAILS(igpt_gradients(run, NULL, NULL, NULL), IGPT_BAD_ARGUMENT, "train", NULL);
  CHECK_FAILS(igpt_gradient_at(run, &tensor, 0), IGPT_BAD_ARGUMENT, "train", NULL);
  CHECK_INT(igpt_gradient_at(s, &tensor, 999), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_gradient_norm(s, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_gradient_norm(NULL, &norm), IGPT_BAD_ARGUMENT);
  CHECK_FAILS(igpt_step(run, ar, NULL, &adam), IGPT_BAD_ARGUMENT, "train", NULL);
  CHECK_FAILS(igpt_step(s, ar, NULL, &adam), IGPT_BAD_ARGUMENT, "backward", NULL);
  CHECK_INT(igpt_backward(s, NULL, &batch, NULL), IGPT_OK);
  CHECK_FAILS(igpt_step(s, NULL, NULL, &adam), IGPT_BAD_ARGUMENT, "model", NULL);
  CHECK_FAILS(igpt_step(s, plain, NULL, &adam), IGPT_BAD_ARGUMENT, "model", NULL);
  CHECK_FAILS(igpt_step(s, ar, NULL, NULL), IGPT_BAD_ARGUMENT, "desc", NULL);
  adam.rate = -1;
  CHECK_FAILS(igpt_step(s, ar, NULL, &adam), IGPT_BAD_ARGUMENT, "rate", "-1");
  adam.rate = 1e-3f;
  adam.beta2 = 1;
  CHECK_FAILS(igpt_step(s, ar, NULL, &adam), IGPT_BAD_ARGUMENT, "beta2", "1");
  adam.beta2 = 0;
  CHECK_INT(igpt_step(s, ar, NULL, &adam), IGPT_OK);       /* what was accumulated is still there */

  /* sessions */
  memset(&desc, 0, sizeof desc);
  desc.log.line = listen;
  CHECK_INT(igpt_session_create(NULL, ar, &desc), IGPT_BAD_ARGUMENT);
  igpt_session_destroy(run);
  run = (igpt_session *)1;
  CHECK_FAILS(igpt_session_create(&run, NULL, &desc), IGPT_BAD_ARGUMENT, "model", NULL);
  CHECK(run == NULL);
  desc.batch = -4;
  CHECK_FAILS(igpt_session_create(&run, ar, &desc), IGPT_BAD_ARGUMENT, "batch", "-4");
  desc.batch = 1;
  desc.isa = IGPT_ISA_COUNT;
  CHECK_FAILS(igpt_session_create(&run, ar, &desc), IGPT_UNSUPPORTED, "isa", NULL);
  desc.isa = IGPT_ISA_AUTO;
  desc.runner.workers = 257;
  CHECK_FAILS(igpt_session_create(&run, ar, &desc), IGPT_BAD_ARGUMENT, "workers", "257");
  CHECK(run == NULL);

  /* looking into models */
  CHECK_INT(igpt_model_tensor_at(ar, &tensor, igpt_model_tensors(ar)), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_tensor(ar, &tensor, "transformer.h.2.ln_1.weight"), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_tensor(plain, &tensor, "score.weight"), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_tensor(NULL, &tensor, "lm_head.weight"), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_tensors(NULL), 0);
  CHECK_INT(igpt_model_parameters(NULL), 0);
  CHECK(igpt_model_config(NULL) == NULL && igpt_model_palette(NULL) == NULL);
  CHECK(igpt_model_palette(ar) == NULL);
  igpt_session_destroy(bare);
  igpt_session_destroy(b);
  igpt_session_destroy(s);
  igpt_model_destroy(bert);
  igpt_model_destroy(ar);
  igpt_model_destroy(plain);
  free(tokens);
}

/* ---- patience -------------------------------------------------------------------------------- */

/* Every long call asks, stops when told, and the session is as good as new. */
TEST(watch)
{
  enum { T = 16, V = 16, N = 3 };
  const igpt_config config = config_of(3, 2, 32, 4, 4, V);
  igpt_model *model = model_random(&config, 4);
  uint16_t *tokens = tokens_of(N * T, V, 6), drawn[N * T], again[N * T];
  igpt_batch batch = batch_of(tokens, N);
  float *first = floats_of(N * T * V), *out = floats_of(N * T * V), *block = NULL;
  igpt_session_desc desc;
  igpt_session *session = NULL;
  size_t count = 0, pictures = 0;
  patience p;
  static const int layers[] = { 3 };
  int enough;
  memset(&desc, 0, sizeof desc);
  desc.batch = 2;
  desc.train = 1;
  desc.watch.poll = poll_patience;
  desc.watch.user = &p;
  p.asked = 0;
  p.enough = 1 << 30;
  CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
  CHECK_INT(igpt_forward(session, first, &batch), IGPT_OK);
  CHECK(p.asked >= 3);
  p.asked = 0;
  CHECK_INT(igpt_sample(session, drawn, N, NULL), IGPT_OK);
  for (enough = 1; enough <= 7; enough += 2) {
    p.enough = enough;
    p.asked = 0;
    CHECK_INT(igpt_forward(session, out, &batch), IGPT_CANCELLED);
    CHECK_INT(p.asked, enough);               /* at once, not at the end */
    p.asked = 0;
    CHECK_INT(igpt_nll(session, out, NULL, &batch), IGPT_CANCELLED);
    p.asked = 0;
    CHECK_INT(igpt_features(session, out, &batch, layers, 1), IGPT_CANCELLED);
    p.asked = 0;
    CHECK_INT(igpt_sample(session, again, N, NULL), IGPT_CANCELLED);
    CHECK_INT(p.asked, enough);
    p.asked = 0;
    CHECK_INT(igpt_backward(session, NULL, &batch, NULL), IGPT_CANCELLED);
    igpt_gradients(session, &block, &count, &pictures);
    CHECK_INT(pictures, 0);
    CHECK(all_zero(block, count));
  }
  p.enough = 1 << 30;
  p.asked = 0;
  CHECK_INT(igpt_forward(session, out, &batch), IGPT_OK);
  CHECK(same_bits(out, first, N * T * V * 4));
  p.asked = 0;
  CHECK_INT(igpt_sample(session, again, N, NULL), IGPT_OK);
  CHECK(same_bits(again, drawn, sizeof drawn));
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  {                                           /* a round of filling asks as often as igpt_nll */
    igpt_config other = config;
    igpt_sample_desc once;
    uint8_t mask[2 * T];
    int asked;
    memset(mask, 1, sizeof mask);
    memset(&once, 0, sizeof once);
    once.rounds = 1;
    other.objective = IGPT_BERT;
    model = model_random(&other, 4);
    CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
    p.asked = 0;
    batch.count = 2;
    CHECK_INT(igpt_nll(session, NULL, NULL, &batch), IGPT_OK);
    asked = p.asked;
    p.asked = 0;
    CHECK_INT(igpt_fill(session, tokens, mask, 2, &once), IGPT_OK);
    CHECK_INT(p.asked, asked);
    igpt_session_destroy(session);
    igpt_model_destroy(model);
  }
  free(out);
  free(first);
  free(tokens);
}

int main(void)
{
  RUN(first_loss);
  RUN(initial_weights);
  RUN(causality);
  RUN(hidden_pixels);
  RUN(cached_is_full);
  RUN(precisions);
  RUN(features_of_a_broken_colour);
  RUN(classes_that_tie);
  RUN(fresh_copies);
  RUN(odd_weights);
  RUN(decoding_ends);
  RUN(sampling);
  RUN(sampling_frequencies);
  RUN(draw);
  RUN(masks);
  RUN(masks_of_blocks);
  RUN(masks_of_jigsaws);
  RUN(shown_pixels);
  RUN(filling_by_hand);
  RUN(filling);
  RUN(learning);
  RUN(all_reduce);
  RUN(not_finite);
  RUN(steady_state);
  RUN(own_memory);
  RUN(large_batches);
  RUN(out_of_memory);
  RUN(defaults);
  RUN(plan);
  RUN(recompute);
  RUN(biases);
  RUN(bad_configurations);
  RUN(bad_calls);
  RUN(watch);
  return test_done();
}
