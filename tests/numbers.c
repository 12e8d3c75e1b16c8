/* numbers.c: what happens to numbers that nobody should give, and to the host's own.

   Weights that are infinite or NaN, rates that are absurd, pictures of one colour or of one pixel, a
   single class: a code, or the right result, never a number that looks like one. And the host's
   floating-point environment: what it was before a call it is after it, and whatever it is, the
   results are the same bits.                                                                     */

#define _DEFAULT_SOURCE 1         /* part.h: anonymous pages */
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "part.h"

#include <fenv.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const igpt_isa all_isas[] = { IGPT_ISA_GENERIC, IGPT_ISA_AVX2, IGPT_ISA_AVX512,
                                     IGPT_ISA_NEON };

static igpt_model *model_of(const igpt_config *config)
{
  igpt_model_desc desc;
  igpt_model *model = NULL;
  memset(&desc, 0, sizeof desc);
  desc.config = *config;
  CHECK_INT(igpt_model_create(&model, &desc), IGPT_OK);
  if (!model) exit(1);
  part_weights(model);
  return model;
}

static igpt_session *session_of(const igpt_model *model, igpt_isa isa, igpt_precision precision,
                                int batch, int train, heard *log)
{
  igpt_session_desc desc;
  igpt_session *session = NULL;
  memset(&desc, 0, sizeof desc);
  desc.isa = isa;
  desc.precision = precision;
  desc.batch = batch;
  desc.train = train;
  desc.log.line = log ? hear : NULL;
  desc.log.user = log;
  CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
  if (!session) exit(1);
  return session;
}

/* ---- every call of a session ------------------------------------------------------------------ */

/* Pictures, labels and masks for all calls, and what each of them wrote. */
enum { N = 3, MOST = 1 << 16 };

typedef struct world {
  const igpt_config *config;
  size_t T, V, C;
  uint16_t tokens[N * 64], drawn[N * 64];
  uint8_t mask[N * 64];
  int32_t labels[N];
  igpt_batch batch;
  float *out;
  size_t count;                   /* floats written to `out` */
  double mean;                    /* the loss, where there is one */
} world;

static void world_open(world *w, const igpt_config *config)
{
  igpt_rng rng = igpt_rng_seed(5, 5);
  size_t i;
  memset(w, 0, sizeof *w);
  w->config = config;
  w->T = (size_t)(config->rows * config->columns);
  w->V = (size_t)config->vocabulary;
  w->C = (size_t)config->width;
  for (i = 0; i < N * w->T; i++) {
    w->tokens[i] = (uint16_t)igpt_rng_below(&rng, (uint32_t)w->V);
    w->mask[i] = (uint8_t)(i % 3 == 1 || i % w->T == 0);
  }
  for (i = 0; config->classes && i < N; i++) w->labels[i] = (int32_t)(i % (size_t)config->classes);
  w->batch.tokens = w->tokens;
  w->batch.count = N;
  if (config->objective == IGPT_BERT) w->batch.mask = w->mask;
  w->out = part_floats(MOST);
}

enum { CALL_FORWARD, CALL_NLL, CALL_CLASSIFY, CALL_FEATURES, CALL_MAP, CALL_DECODE, CALL_DRAW,
       CALL_BACKWARD, CALLS };

static const char *const call_names[CALLS] = {
  "forward", "nll", "classify", "features", "attention_map", "decode", "sample or fill", "backward"
};

/* One call; what it wrote is in w->out, w->count floats. */
static igpt_result call(world *w, igpt_session *session, int which)
{
  static const int depths[] = { 0, 1, 2 };
  const size_t P = igpt_model_parameters(session->model), nd = w->config->layers < 2 ? 2 : 3;
  igpt_result result = IGPT_OK;
  igpt_losses losses;
  float *block = NULL;
  size_t i;
  w->count = 0;
  w->mean = 0;
  memset(w->out, 0, MOST * sizeof(float));
  switch (which) {
    case CALL_FORWARD:
      w->count = N * w->T * w->V;
      return igpt_forward(session, w->out, &w->batch);
    case CALL_NLL:
      w->count = N * w->T;
      result = igpt_nll(session, w->out, &w->mean, &w->batch);
      if (!result && !(w->mean - w->mean == 0)) return IGPT_BAD_ARGUMENT;
      return result;
    case CALL_CLASSIFY:
      w->count = (size_t)(N * w->config->classes);
      return w->count ? igpt_classify(session, w->out, &w->batch) : IGPT_OK;
    case CALL_FEATURES:
      w->count = N * nd * w->C;
      return igpt_features(session, w->out, &w->batch, depths, nd);
    case CALL_MAP:
      w->count = N * w->T * w->T;
      return igpt_attention_map(session, w->out, &w->batch, w->config->layers - 1, 0);
    case CALL_DECODE:
      if (w->config->objective == IGPT_BERT) return IGPT_OK;
      result = igpt_decode_begin(session, w->tokens, w->T > 1, session->desc.batch);
      for (i = w->T > 1; i < w->T && !result; i++) {
        result = igpt_decode(session, w->out + w->count, w->tokens);
        w->count += (size_t)session->desc.batch * w->V;
      }
      return result;
    case CALL_DRAW:
      w->count = N * w->T;
      memcpy(w->drawn, w->tokens, sizeof w->drawn);
      result = w->config->objective == IGPT_BERT
                 ? igpt_fill(session, w->drawn, w->mask, N, NULL)
                 : igpt_sample(session, w->drawn, N, NULL);
      for (i = 0; i < w->count; i++) w->out[i] = w->drawn[i];
      return result;
    default:
      w->batch.labels = w->config->classes ? w->labels : NULL;
      result = igpt_backward(session, &losses, &w->batch, NULL);
      w->batch.labels = NULL;
      if (result) return result;
      w->count = P;
      igpt_gradients(session, &block, NULL, NULL);
      memcpy(w->out, block, P * sizeof(float));
      w->mean = losses.total;
      return igpt_gradients_zero(session);
  }
}

static int all_finite(const float *x, size_t count)
{
  size_t i;
  for (i = 0; i < count; i++)
    if (!(x[i] - x[i] == 0)) return 0;
  return 1;
}

/* ---- weights that are not numbers -------------------------------------------------------------- */

/* One weight of one tensor is spoiled. A call that says OK wrote only numbers, and, if the weight
   was NaN, the numbers that it writes when the weight is sound: it had nothing to do with them.
   Sessions that do not train may read copies of the weights, in fewer bits. */
static void spoil(igpt_isa isa, igpt_precision precision, igpt_objective objective, int train)
{
  const int calls = train ? CALLS : CALL_BACKWARD;
  igpt_config config = config_of(2, 2, 24, 3, 5, 19);
  igpt_model *model;
  igpt_session *session;
  float *sound[CALLS];
  size_t counts[CALLS], t;
  int which, kind, noticed[CALLS] = { 0 };
  heard log;
  world w;
  config.classes = 3;
  config.objective = objective;
  world_open(&w, &config);
  model = model_of(&config);
  memset(&log, 0, sizeof log);
  session = session_of(model, isa, precision, 2, train, &log);
  for (which = 0; which < calls; which++) {
    CHECK_INT(call(&w, session, which), IGPT_OK);
    CHECK(all_finite(w.out, w.count));
    sound[which] = part_copy(w.out, w.count);
    counts[which] = w.count;
  }
  for (t = 0; t < igpt_model_tensors(model); t++)
    for (kind = 0; kind < 5; kind++) {
      static const float bad[] = { NAN, INFINITY, -INFINITY, 3e38f, -3e38f };
      igpt_tensor tensor;
      float *place, kept;
      igpt_model_tensor_at(model, &tensor, t);
      place = tensor.data + (7 * tensor.count / 11);
      kept = *place;
      *place = bad[kind];
      for (which = 0; which < calls; which++) {
        igpt_result result;
        log.lines = 0;
        result = call(&w, session, which);
        if (result == IGPT_NOT_FINITE) {
          noticed[which]++;
          CHECK_INT(log.lines, 1);
          CHECK_INT(log.result, IGPT_NOT_FINITE);
          continue;
        }
        CHECK_INT(result, IGPT_OK);
        if (!all_finite(w.out, w.count) ||
            (kind < 3 && !part_same(w.out, sound[which], counts[which]))) {
          test_errors++;
          printf("%s %d %s: %s[%d] = %g: igpt_%s says ok\n", igpt_isa_name(isa), (int)precision,
                 objective ? "bert" : "ar", tensor.name, (int)(place - tensor.data),
                 (double)bad[kind], call_names[which]);
        }
      }
      *place = kept;
    }
  for (which = 0; which < calls; which++) {     /* and all of it leaves no trace */
    if (which != CALL_DECODE || objective == IGPT_AR) CHECK(noticed[which] > 20);
    CHECK_INT(call(&w, session, which), IGPT_OK);
    CHECK(w.count == counts[which] && part_same(w.out, sound[which], w.count));
    part_free(sound[which]);
  }
  part_free(w.out);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
}

TEST(weights_that_are_not_finite)
{
  size_t i;
  int objective, train;
  for (i = 0; i < COUNT(all_isas); i++)
    for (objective = 0; objective < 2; objective++) {
      if (!igpt_isa_supported(all_isas[i])) continue;
      spoil(all_isas[i], IGPT_F32, (igpt_objective)objective, 1);
      spoil(all_isas[i], IGPT_INT8, (igpt_objective)objective, 0);
      if (igpt_isa_best() == all_isas[i])
        for (train = 0; train < 2; train++)
          spoil(IGPT_ISA_AUTO, IGPT_BF16, (igpt_objective)objective, train);
    }
}

/* ---- steps --------------------------------------------------------------------------------------- */

typedef struct steps {
  igpt_model *model;
  igpt_session *session;
  igpt_tensor first;              /* all weights begin with it */
  size_t P;
  world w;
} steps;

static void steps_open(steps *s, igpt_isa isa, const igpt_config *config)
{
  world_open(&s->w, config);
  s->model = model_of(config);
  s->session = session_of(s->model, isa, IGPT_F32, 2, 1, NULL);
  s->P = igpt_model_parameters(s->model);
  igpt_model_tensor_at(s->model, &s->first, 0);
}

static void steps_close(steps *s)
{
  igpt_session_destroy(s->session);
  igpt_model_destroy(s->model);
  part_free(s->w.out);
}

static int all_zero(const float *x, size_t count)
{
  size_t i;
  for (i = 0; i < count && x[i] == 0; i++) {}
  return i == count;
}

/* A step of any rate is taken with numbers, or not at all. */
TEST(absurd_rates)
{
  static const float rates[] = { 1e6f, 1e20f, 3e38f, 1e6f, 1, 1e6f, 0 };
  static const float decays[] = { 0, 0, 0, 0.1f, 1e30f, 1e38f, HUGE_VALF };
  igpt_config config = config_of(2, 2, 24, 3, 5, 19);
  size_t i, kind;
  for (i = 0; i < COUNT(all_isas); i++)
    for (kind = 0; igpt_isa_supported(all_isas[i]) && kind < COUNT(rates); kind++) {
      igpt_result result = IGPT_OK;
      igpt_adam_desc adam;
      steps s;
      int step;
      steps_open(&s, all_isas[i], &config);
      memset(&adam, 0, sizeof adam);
      adam.rate = rates[kind];
      adam.weight_decay = decays[kind];
      for (step = 0; step < 50 && !result; step++) {
        float *weights = part_copy(s.first.data, s.P);
        float *m = part_copy(s.session->moment1, s.P), *v = part_copy(s.session->moment2, s.P);
        igpt_losses losses;
        result = igpt_backward(s.session, &losses, &s.w.batch, NULL);
        if (!result) {
          CHECK(losses.total - losses.total == 0);
          result = igpt_step(s.session, s.model, NULL, &adam);
        }
        if (result) {
          CHECK_INT(result, IGPT_NOT_FINITE);
          CHECK(part_same(s.first.data, weights, s.P));
          CHECK(part_same(s.session->moment1, m, s.P) && part_same(s.session->moment2, v, s.P));
          CHECK(all_zero(s.session->gradient, s.P));
        }
        CHECK(all_finite(s.first.data, s.P));
        CHECK(all_finite(s.session->moment1, s.P) && all_finite(s.session->moment2, s.P));
        part_free(weights);
        part_free(m);
        part_free(v);
      }
      printf("        %s, rate %g, weight_decay %g: %s at step %d\n", igpt_isa_name(all_isas[i]),
             (double)adam.rate, (double)adam.weight_decay, igpt_error_string(result), step);
      CHECK_INT(result, IGPT_NOT_FINITE);
      steps_close(&s);
    }
}

/* The square of every component must be a number too: an infinite mean of squares would never let
   its weight move again, and no checkpoint would hold it. Clipping brings it back, unless the factor
   itself is too small for a number. */
TEST(long_gradients)
{
  static const float planted[] = { 1e18f, 1e20f, 3e38f, 1e20f, 1e37f, 3e38f };
  static const float clips[] = { 0, 0, 0, 1, 1, 1 };
  static const int taken[] = { 1, 0, 0, 1, 1, 0 };
  igpt_config config = config_of(2, 2, 24, 3, 5, 19);
  size_t i, kind;
  for (i = 0; i < COUNT(all_isas); i++)
    for (kind = 0; igpt_isa_supported(all_isas[i]) && kind < COUNT(planted); kind++) {
      igpt_adam_desc adam;
      float *block = NULL, *weights;
      igpt_result result;
      steps s;
      steps_open(&s, all_isas[i], &config);
      memset(&adam, 0, sizeof adam);
      adam.rate = 1e-3f;
      adam.clip = clips[kind];
      adam.pictures = 1;
      CHECK_INT(igpt_backward(s.session, NULL, &s.w.batch, NULL), IGPT_OK);
      CHECK_INT(igpt_gradients(s.session, &block, NULL, NULL), IGPT_OK);
      block[5] = planted[kind];
      weights = part_copy(s.first.data, s.P);
      result = igpt_step(s.session, s.model, NULL, &adam);
      CHECK_INT(result, taken[kind] ? IGPT_OK : IGPT_NOT_FINITE);
      CHECK_INT(part_same(weights, s.first.data, s.P), !taken[kind]);
      CHECK(all_finite(s.first.data, s.P));
      CHECK(all_finite(s.session->moment1, s.P) && all_finite(s.session->moment2, s.P));
      part_free(weights);
      steps_close(&s);
    }
}

/* ---- denormals ----------------------------------------------------------------------------------- */

static size_t denormals(const float *x, size_t count)
{
  size_t i, found = 0;
  for (i = 0; i < count; i++) found += fpclassify(x[i]) == FP_SUBNORMAL;
  return found;
}

/* Where weights, gains or moments lie in their range, there are none in what is computed; the same
   calls in the host's state have them. bench/denormals has what they would cost. */
TEST(no_denormals)
{
  enum { MOMENTS, WEIGHTS, STREAM, AREAS };
  igpt_config config = config_of(2, 2, 24, 3, 5, 19);
  size_t i, t, k, without = 0;
  int area, flush;
#if !defined(__x86_64__) && !defined(__aarch64__)
  SKIP("here the library computes in the host's state");
#endif
  for (i = 0; i < COUNT(all_isas); i++)
    for (area = 0; igpt_isa_supported(all_isas[i]) && area < AREAS; area++)
      for (flush = 0; flush < 2; flush++) {
        igpt_adam_desc adam;
        igpt_result result;
        float *block = NULL;
        size_t found;
        steps s;
        steps_open(&s, all_isas[i], &config);
        memset(&adam, 0, sizeof adam);
        adam.rate = 1e-9f;
        for (t = 0; t < igpt_model_tensors(s.model); t++) {
          igpt_tensor tensor;
          igpt_model_tensor_at(s.model, &tensor, t);
          for (k = 0; k < tensor.count; k++)
            if (area == (tensor.rank == 2 ? WEIGHTS : STREAM)) tensor.data[k] *= 1e-38f;
        }
        result = flush ? igpt_backward(s.session, NULL, &s.w.batch, NULL)
                       : igpt_backward_inside(s.session, NULL, &s.w.batch, NULL);
        CHECK_INT(result, IGPT_OK);
        CHECK_INT(igpt_gradients(s.session, &block, NULL, NULL), IGPT_OK);
        found = denormals(block, s.P);
        if (area == MOMENTS) {
          memset(block, 0, s.P * sizeof *block);
          for (k = 0; k < s.P; k++) s.session->moment1[k] = s.session->moment2[k] = 2e-39f;
        }
        result = flush ? igpt_step(s.session, s.model, NULL, &adam)
                       : igpt_step_inside(s.session, s.model, NULL, &adam);
        CHECK_INT(result, IGPT_OK);
        found += denormals(s.session->moment1, s.P) + denormals(s.session->moment2, s.P) +
                 denormals(s.first.data, s.P);
        CHECK(flush ? found == 0 : found > 0);
        without += flush ? 0 : found;
        steps_close(&s);
      }
  printf("        %lu of them in the host's state\n", (unsigned long)without);
}

/* ---- small things ------------------------------------------------------------------------------ */

/* The colder the surer, down to the smallest number above zero, which is not the default. */
TEST(cold_temperatures)
{
  static const float cold[] = { 1e-3f, 1e-30f, 1.2e-38f, 1e-39f, 1e-45f };
  size_t i, turn;
  for (i = 0; i < COUNT(cold); i++) {
    igpt_sample_desc desc;
    igpt_rng rng = igpt_rng_seed(1, i);
    memset(&desc, 0, sizeof desc);
    desc.temperature = cold[i];
    for (turn = 0; turn < 50; turn++) {
      float logits[] = { 0.5f, 2.0f, 2.25f, -7, 1.0f };
      CHECK_INT(igpt_draw(&rng, logits, 5, &desc), 2);
      CHECK(logits[2] == 1 && logits[1] == 0);
    }
  }
  {
    float up[] = { 0, INFINITY }, down[] = { -INFINITY, 1 }, none[] = { NAN, 1 };
    igpt_rng rng = igpt_rng_seed(1, 1);
    CHECK_INT(igpt_draw(&rng, up, 2, NULL), -1);
    CHECK_INT(igpt_draw(&rng, down, 2, NULL), 1);
    CHECK_INT(igpt_draw(&rng, none, 2, NULL), -1);
  }
}

/* Shapes at the lower end: one pixel, one colour, one class, one picture. Every call answers, with
   numbers; of one colour there is nothing to learn. */
TEST(smallest_shapes)
{
  static const struct { int rows, columns, vocabulary, classes; } shapes[] = {
    { 1, 1, 19, 3 }, { 1, 1, 1, 1 }, { 2, 3, 1, 0 }, { 1, 2, 7, 1 }, { 3, 1, 2, 40 }
  };
  size_t i, k;
  int objective, which, batch;
  for (k = 0; k < COUNT(shapes); k++)
    for (i = 0; i < COUNT(all_isas); i++)
      for (objective = 0; objective < 2; objective++)
        for (batch = 1; batch < 5; batch += 2) {
          igpt_config config = config_of(2, 1, 8, shapes[k].rows, shapes[k].columns,
                                         shapes[k].vocabulary);
          igpt_adam_desc adam;
          igpt_losses losses;
          igpt_session *session;
          igpt_model *model;
          double mean = 1;
          world w;
          if (!igpt_isa_supported(all_isas[i])) continue;
          config.classes = shapes[k].classes;
          config.objective = (igpt_objective)objective;
          world_open(&w, &config);
          model = model_of(&config);
          session = session_of(model, all_isas[i], IGPT_F32, batch, 1, NULL);
          for (which = 0; which < CALLS; which++) {
            CHECK_INT(call(&w, session, which), IGPT_OK);
            CHECK(all_finite(w.out, w.count));
          }
          memset(&adam, 0, sizeof adam);
          adam.rate = 1e-3f;
          w.batch.count = 1;
          if (config.classes) w.batch.labels = w.labels;
          CHECK_INT(igpt_backward(session, &losses, &w.batch, NULL), IGPT_OK);
          CHECK_INT(igpt_step(session, model, NULL, &adam), IGPT_OK);
          CHECK_INT(igpt_nll(session, NULL, &mean, &w.batch), IGPT_OK);
          if (config.vocabulary == 1) CHECK(mean == 0 && losses.generative == 0);
          else CHECK(mean > 0 && mean - mean == 0);
          if (config.classes == 1) CHECK(losses.classification == 0 && losses.correct == 1);
          w.batch.count = 0;
          CHECK_INT(igpt_backward(session, &losses, &w.batch, NULL), IGPT_OK);
          CHECK(losses.total == 0);
          part_free(w.out);
          igpt_session_destroy(session);
          igpt_model_destroy(model);
        }
}

/* Pictures that are all the same, of one colour, with one label: they are learned to the end, and
   on from there nothing becomes of it but a loss of nothing. */
TEST(pictures_all_the_same)
{
  igpt_config config = config_of(1, 2, 16, 3, 5, 19);
  size_t i;
  int objective, step;
  config.classes = 5;
  for (i = 0; i < COUNT(all_isas); i++)
    for (objective = 0; igpt_isa_supported(all_isas[i]) && objective < 2; objective++) {
      igpt_adam_desc adam;
      igpt_losses losses;
      igpt_result result = IGPT_OK;
      steps s;
      config.objective = (igpt_objective)objective;
      steps_open(&s, all_isas[i], &config);
      memset(&adam, 0, sizeof adam);
      memset(&losses, 0, sizeof losses);
      memset(s.w.labels, 0, sizeof s.w.labels);
      for (step = 0; step < (int)(N * s.w.T); step++) s.w.tokens[step] = 7;
      s.w.batch.labels = s.w.labels;
      adam.rate = 0.02f;
      for (step = 0; step < 400 && !result; step++) {
        result = igpt_backward(s.session, &losses, &s.w.batch, NULL);
        if (!result) result = igpt_step(s.session, s.model, NULL, &adam);
      }
      CHECK_INT(result, IGPT_OK);
      CHECK(losses.generative >= 0 && losses.generative < 1e-3);
      CHECK(losses.classification >= 0 && losses.classification < 1e-3);
      CHECK_INT(losses.correct, N);
      CHECK(all_finite(s.first.data, s.P));
      CHECK(all_finite(s.session->moment1, s.P) && all_finite(s.session->moment2, s.P));
      for (step = 0; step < CALLS; step++) {
        CHECK_INT(call(&s.w, s.session, step), IGPT_OK);
        CHECK(all_finite(s.w.out, s.w.count));
      }
      steps_close(&s);
    }
}

/* Pictures of one colour make a palette of one, and a vocabulary of one. */
TEST(one_colour)
{
  enum { PIXELS = 40000 };
  uint8_t *rgb = (uint8_t *)malloc(3 * PIXELS), back[3];
  uint16_t *tokens = (uint16_t *)malloc(2 * PIXELS);
  igpt_kmeans_report report;
  igpt_palette palette;
  double mse = 1, psnr = 0;
  size_t i;
  if (!rgb || !tokens) exit(2);
  for (i = 0; i < PIXELS; i++) rgb[3 * i] = 7, rgb[3 * i + 1] = 255, rgb[3 * i + 2] = 0;
  CHECK_INT(igpt_palette_fit(&palette, &report, rgb, PIXELS, NULL), IGPT_OK);
  CHECK_INT(palette.colours, 1);
  CHECK_INT(report.distinct, 1);
  CHECK(report.mse == 0);
  CHECK_INT(igpt_palette_encode(&palette, tokens, rgb, PIXELS, NULL), IGPT_OK);
  for (i = 0; i < PIXELS; i++) CHECK(tokens[i] == 0);
  CHECK_INT(igpt_palette_decode(&palette, back, tokens, 1), IGPT_OK);
  CHECK(memcmp(back, rgb, 3) == 0);
  CHECK_INT(igpt_palette_error(&palette, &mse, &psnr, rgb, PIXELS), IGPT_OK);
  CHECK(mse == 0 && psnr == INFINITY);
  CHECK_INT(igpt_palette_fit(&palette, &report, rgb, 1, NULL), IGPT_OK);
  CHECK_INT(palette.colours, 1);
  palette.centre[0][1] = NAN;
  CHECK_INT(igpt_palette_encode(&palette, tokens, rgb, 1, NULL), IGPT_NOT_FINITE);
  CHECK_INT(igpt_palette_decode(&palette, back, tokens, 1), IGPT_NOT_FINITE);
  CHECK_INT(igpt_palette_error(&palette, &mse, &psnr, rgb, 1), IGPT_NOT_FINITE);
  free(rgb);
  free(tokens);
}

/* ---- probes ------------------------------------------------------------------------------------ */

TEST(probes_of_nothing)
{
  enum { ROWS = 6, D = 5 };
  static const int32_t zeros[ROWS] = { 0 }, six[ROWS] = { 0, 1, 2, 3, 4, 5 };
  int method, standardise;
  for (method = 0; method < 2; method++)
    for (standardise = 0; standardise < 2; standardise++) {
      float *x = part_random(ROWS * D, 1, 3), p[ROWS * 6];
      int32_t labels[ROWS];
      igpt_probe_desc desc;
      igpt_probe_report report;
      igpt_probe *probe = NULL;
      heard log;
      size_t i;
      memset(&desc, 0, sizeof desc);
      memset(&log, 0, sizeof log);
      desc.method = (igpt_probe_method)method;
      desc.standardise = standardise;
      desc.log.line = hear;
      desc.log.user = &log;
      /* one class, and one sample: there is nothing to tell apart */
      CHECK_INT(igpt_probe_fit(&probe, &report, x, zeros, ROWS, D, &desc), IGPT_BAD_ARGUMENT);
      CHECK(probe == NULL && strstr(log.text, "classes"));
      CHECK_INT(igpt_probe_fit(&probe, &report, x, zeros, 1, D, &desc), IGPT_BAD_ARGUMENT);
      /* a class a sample */
      CHECK_INT(igpt_probe_fit(&probe, &report, x, six, ROWS, D, &desc), IGPT_OK);
      CHECK_INT(igpt_probe_predict(probe, labels, p, x, ROWS), IGPT_OK);
      CHECK(all_finite(p, ROWS * 6));
      igpt_probe_destroy(probe);
      /* more classes than samples */
      desc.classes = 7;
      CHECK_INT(igpt_probe_fit(&probe, &report, x, six, ROWS, D, &desc), IGPT_BAD_ARGUMENT);
      CHECK(probe == NULL && strstr(log.text, "7"));
      desc.classes = 0;
      /* all features the same, and huge or tiny ones */
      for (i = 0; i < ROWS * D; i++) x[i] = 2.5f;
      CHECK_INT(igpt_probe_fit(&probe, &report, x, six, ROWS, D, &desc), IGPT_OK);
      CHECK_INT(igpt_probe_predict(probe, labels, p, x, ROWS), IGPT_OK);
      CHECK(all_finite(p, ROWS * 6));
      igpt_probe_destroy(probe);
      for (i = 0; i < 5; i++) {
        static const float odd[] = { NAN, INFINITY, -INFINITY, 3e38f, 1e-44f };
        igpt_result result;
        part_fill(x, ROWS * D, 1, 3);
        x[17] = odd[i];
        log.lines = 0;
        result = igpt_probe_fit(&probe, &report, x, six, ROWS, D, &desc);
        if (i < 3) CHECK_INT(result, IGPT_NOT_FINITE);
        if (i == 4) CHECK_INT(result, IGPT_OK);
        if (result) CHECK(probe == NULL && log.lines == 1 && result == IGPT_NOT_FINITE);
        else {
          int classes = 0;
          size_t features = 0;
          CHECK(all_finite(igpt_probe_weights(probe, &classes, &features), 6 * D));
          CHECK(all_finite(igpt_probe_intercepts(probe), 6));
          CHECK(report.objective - report.objective == 0);
          result = igpt_probe_predict(probe, labels, p, x, ROWS);
          if (result) CHECK_INT(result, IGPT_NOT_FINITE);
          else CHECK(all_finite(p, ROWS * 6));
        }
        igpt_probe_destroy(probe);
      }
      part_free(x);
    }
}

/* ---- the host's state -------------------------------------------------------------------------- */

/* What the processor says of this thread: rounding, flags, traps, denormals. */
typedef struct state {
  int rounding, flags;
  uint64_t control;
} state;

static state state_now(void)
{
  state s;
  memset(&s, 0, sizeof s);
  s.rounding = fegetround();
  s.flags = fetestexcept(FE_ALL_EXCEPT);
#if defined(__x86_64__)
  s.control = _mm_getcsr();
#elif defined(__aarch64__)
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(s.control));
#endif
  return s;
}

/* The states that a host may be in. */
enum { AS_USUAL, UPWARD, DOWNWARD, TOWARD_ZERO, FLAGS_RAISED, DENORMALS_ZERO, TRAPS, STATES };

static void state_set(int which)
{
  (void)which;
  fesetenv(FE_DFL_ENV);
#ifdef FE_UPWARD                  /* WebAssembly rounds to nearest, and has no flags */
  if (which == UPWARD) fesetround(FE_UPWARD);
  if (which == DOWNWARD) fesetround(FE_DOWNWARD);
  if (which == TOWARD_ZERO) fesetround(FE_TOWARDZERO);
  if (which == FLAGS_RAISED) feraiseexcept(FE_OVERFLOW | FE_DIVBYZERO);
#endif
#if defined(__x86_64__)
  if (which == DENORMALS_ZERO) _mm_setcsr(_mm_getcsr() | 0x8040);
  if (which == TRAPS) _mm_setcsr(_mm_getcsr() & ~0x0e80u);  /* invalid, by zero, overflow: SIGFPE */
#endif
}

/* Tasks on a thread that is in a state of its own, and must be left in it. */
typedef struct stubborn {
  int which, wrong;
} stubborn;

static void run_stubborn(void *user, igpt_task *task, void *arg, size_t count)
{
  stubborn *u = (stubborn *)user;
  const state caller = state_now();
  fenv_t kept;
  size_t i;
  fegetenv(&kept);
  state_set(u->which);
  for (i = 0; i < count; i++) {
    const state before = state_now();
    state after;
    task(arg, i, (int)(i % 3));
    after = state_now();
    u->wrong += memcmp(&before, &after, sizeof after) != 0;
  }
  fesetenv(&kept);
#if defined(__x86_64__)
  _mm_setcsr((unsigned)caller.control);
#endif
  (void)caller;
}

/* Checks that a call leaves the state alone. */
#define KEEPS(what)                                                                               \
  do {                                                                                            \
    const state before = state_now();                                                             \
    state after;                                                                                  \
    what;                                                                                         \
    after = state_now();                                                                          \
    if (memcmp(&before, &after, sizeof after)) {                                                  \
      fesetenv(FE_DFL_ENV);                                                                       \
      test_errors++;                                                                              \
      printf("%s:%d: %s changes the state\n", __FILE__, __LINE__, #what);                         \
    }                                                                                             \
    fesetenv(FE_DFL_ENV);                                                                         \
    state_set(which);                                                                             \
  } while (0)

/* Every entry that computes, under one state; what they give goes to `out`. */
static void everything(paper *out, int which, const igpt_runner *runner, igpt_objective objective)
{
  enum { PIXELS = 9000, ROWS = 60 };
  igpt_config config = config_of(2, 2, 24, 3, 5, 19);
  static uint8_t rgb[3 * PIXELS];
  static uint16_t tokens[PIXELS];
  static int32_t labels[ROWS], guessed[ROWS];
  float p[3 * ROWS], logits[19], *x = part_random(ROWS * 7, 1, 8);
  igpt_palette palette;
  igpt_kmeans_desc means;
  igpt_encode_desc encode;
  igpt_model_desc md;
  igpt_session_desc sd;
  igpt_probe_desc pd;
  igpt_adam_desc adam;
  igpt_progress progress;
  const double denormal = 1e-310;
  igpt_plan plan;
  igpt_schedule_desc schedule;
  igpt_rng rng = igpt_rng_seed(4, 4);
  igpt_model *model = NULL, *back = NULL;
  igpt_session *session = NULL;
  igpt_probe *probe = NULL;
  paper file = { 0 };
  igpt_sink sink;
  igpt_source source;
  double mse = 0, psnr = 0, rate = 0;
  uint64_t shape[2] = { ROWS, 7 };
  igpt_npy npy;
  float deviate = 0;
  size_t i;
  int step, drawn = 0;
  world w;
  for (i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)(igpt_rng_next(&rng) >> 26);
  for (i = 0; i < ROWS; i++) labels[i] = (int32_t)(i % 3);
  memset(&means, 0, sizeof means);
  memset(&encode, 0, sizeof encode);
  memset(&md, 0, sizeof md);
  memset(&sd, 0, sizeof sd);
  memset(&pd, 0, sizeof pd);
  memset(&adam, 0, sizeof adam);
  memset(&progress, 0, sizeof progress);
  memset(&schedule, 0, sizeof schedule);
  config.classes = 3;
  config.objective = objective;
  world_open(&w, &config);
  state_set(which);
  means.colours = 19;
  means.runner = encode.runner = sd.runner = pd.runner = *runner;
  KEEPS(CHECK_INT(igpt_palette_fit(&palette, NULL, rgb, PIXELS, &means), IGPT_OK));
  KEEPS(CHECK_INT(igpt_palette_encode(&palette, tokens, rgb, PIXELS, &encode), IGPT_OK));
  KEEPS(CHECK_INT(igpt_palette_decode(&palette, rgb, tokens, PIXELS), IGPT_OK));
  KEEPS(CHECK_INT(igpt_palette_error(&palette, &mse, &psnr, rgb, PIXELS), IGPT_OK));
  md.config = config;
  KEEPS(CHECK_INT(igpt_plan_make(&plan, &config, NULL), IGPT_OK));
  KEEPS(CHECK_INT(igpt_model_create(&model, &md), IGPT_OK));
  KEEPS(CHECK_INT(igpt_model_set_palette(model, &palette), IGPT_OK));
  sd.batch = 2;
  sd.train = 1;
  KEEPS(CHECK_INT(igpt_session_create(&session, model, &sd), IGPT_OK));
  KEEPS(deviate = igpt_rng_normal(&rng));
  KEEPS(CHECK_INT(igpt_selftest(IGPT_ISA_AUTO), IGPT_OK));
  w.batch.labels = w.labels;
  schedule.rate = 3e-3;
  schedule.warmup = 7;
  schedule.steps = 31;
  adam.clip = 0.7f;
  adam.weight_decay = 0.01f;
  for (step = 0; step < 12; step++) {
    igpt_losses losses;
    double norm = 0;
    KEEPS(rate = igpt_schedule(&schedule, step));
    adam.rate = (float)0.001;
    KEEPS(CHECK_INT(igpt_backward(session, &losses, &w.batch, NULL), IGPT_OK));
    KEEPS(CHECK_INT(igpt_gradient_norm(session, &norm), IGPT_OK));
    paper_write(out, &norm, sizeof norm);
    paper_write(out, &rate, sizeof rate);
    paper_write(out, &losses.total, sizeof losses.total);
    KEEPS(CHECK_INT(igpt_step(session, model, &norm, &adam), IGPT_OK));
  }
  w.batch.labels = NULL;
  for (step = 0; step < CALLS; step++) {
    KEEPS(CHECK_INT(call(&w, session, step), IGPT_OK));
    paper_write(out, w.out, w.count * sizeof(float));
    paper_write(out, &w.mean, sizeof w.mean);
  }
  sink.write = paper_write;
  sink.user = out;
  progress.seconds = 0.1;
  progress.user[2] = denormal;
  KEEPS(CHECK_INT(igpt_model_write(model, &sink), IGPT_OK));
  KEEPS(CHECK_INT(igpt_checkpoint_write(session, model, &progress, &sink), IGPT_OK));
  sink.user = &file;
  igpt_checkpoint_write(session, model, &progress, &sink);
  memset(&source, 0, sizeof source);
  source.read = paper_read;
  source.user = &file;
  source.size = file.size;
  KEEPS(CHECK_INT(igpt_model_read(&back, &source, NULL), IGPT_OK));
  KEEPS(CHECK_INT(igpt_checkpoint_read(session, model, &progress, &source), IGPT_OK));
  CHECK(!memcmp(&progress.user[2], &denormal, sizeof denormal));    /* comparing is the host's way */
  paper_write(out, &progress, sizeof progress);
  sink.user = out;
  KEEPS(CHECK_INT(igpt_model_write(back, &sink), IGPT_OK));
  for (step = 0; step < 4; step++) {
    igpt_probe_report report;
    memset(&report, 0, sizeof report);
    pd.method = (igpt_probe_method)(step % 2);
    pd.standardise = step / 2;
    KEEPS(CHECK_INT(igpt_probe_fit(&probe, &report, x, labels, ROWS, 7, &pd), IGPT_OK));
    KEEPS(CHECK_INT(igpt_probe_predict(probe, guessed, p, x, ROWS), IGPT_OK));
    paper_write(out, igpt_probe_weights(probe, NULL, NULL), 21 * sizeof(float));
    paper_write(out, p, sizeof p);
    paper_write(out, guessed, sizeof guessed);
    paper_write(out, &report, sizeof report);
    igpt_probe_destroy(probe);
  }
  file.size = 0;
  sink.user = &file;
  KEEPS(CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, x, 2, shape), IGPT_OK));
  source.size = file.size;
  KEEPS(CHECK_INT(igpt_npy_open(&npy, &source, NULL), IGPT_OK));
  KEEPS(CHECK_INT(igpt_npy_read_f32(&npy, x, 0, ROWS * 7, &source), IGPT_OK));
  memcpy(logits, x, sizeof logits);
  KEEPS(drawn = igpt_draw(&rng, logits, 19, NULL));
  fesetenv(FE_DFL_ENV);
  paper_write(out, &palette, sizeof palette);
  paper_write(out, tokens, sizeof tokens);
  paper_write(out, rgb, sizeof rgb);
  paper_write(out, &mse, sizeof mse);
  paper_write(out, &psnr, sizeof psnr);
  paper_write(out, &plan, sizeof plan);
  paper_write(out, &deviate, sizeof deviate);
  paper_write(out, logits, sizeof logits);
  paper_write(out, &drawn, sizeof drawn);
  igpt_model_destroy(back);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  free(file.data);
  part_free(w.out);
  part_free(x);
}

/* Whatever the host has set, on its own thread and on those that it lends: the same bits, and its
   state as it was, flags included. */
TEST(the_hosts_state)
{
  static const int lent[STATES] = { UPWARD, AS_USUAL, TOWARD_ZERO, FLAGS_RAISED, DENORMALS_ZERO,
                                    TRAPS, DOWNWARD };
  int objective, which;
#if !defined(__x86_64__) && !defined(__aarch64__) && (!defined(__unix__) || defined(__wasm__))
  SKIP("here the library computes in the host's state");
#endif
  for (objective = 0; objective < 2; objective++) {
    paper expected = { 0 }, got = { 0 };
    for (which = 0; which < STATES; which++) {
      paper *out = which ? &got : &expected;
      igpt_runner runner;
      stubborn user;
      user.which = lent[which];
      user.wrong = 0;
      runner.run = run_stubborn;
      runner.user = &user;
      runner.workers = 3;
      got.size = 0;
      everything(out, which, &runner, (igpt_objective)objective);
      CHECK_INT(user.wrong, 0);
      CHECK(out->size > 100000);
      if (which) CHECK(got.size == expected.size && !memcmp(got.data, expected.data, got.size));
    }
    free(expected.data);
    free(got.data);
  }
}

int main(void)
{
  RUN(weights_that_are_not_finite);
  RUN(absurd_rates);
  RUN(long_gradients);
  RUN(no_denormals);
  RUN(cold_temperatures);
  RUN(smallest_shapes);
  RUN(pictures_all_the_same);
  RUN(one_colour);
  RUN(probes_of_nothing);
  RUN(the_hosts_state);
  return test_done();
}
