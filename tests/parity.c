/* parity.c: the library against tests/fixtures/make.py, an independent PyTorch program in float64.

   Logits, class logits, nats, losses, pooled features, an attention map, ALL gradients, and ten
   AdamW steps in three settings; AR, BERT and the joint loss; every instruction set of this
   machine, one and three workers, and micro-batches of one picture and of all. Every array has to
   agree in two ways: the length of the difference relative to the length of the array, and the
   largest difference relative to the largest element; both within 1e-5 in float32.               */

#include "igpt.h"
#include "test.h"

#define TOLERANCE 1e-5
#define STEPS 10

/* ---- fixtures -------------------------------------------------------------------------------- */

typedef struct record {
  char name[32];
  uint32_t type;
  uint64_t count;
  const unsigned char *data;
} record;

typedef struct fixture {
  unsigned char *bytes;
  record records[64];
  int count;
} fixture;

/* Fixtures are little-endian; `count` numbers of `size` bytes become the machine's own. */
static void to_native(unsigned char *at, size_t size, uint64_t count)
{
  const uint16_t one = 1;
  size_t i;
  if (*(const unsigned char *)&one == 1) return;
  for (; count > 0; count--, at += size)
    for (i = 0; i < size / 2; i++) {
      unsigned char byte = at[i];
      at[i] = at[size - 1 - i];
      at[size - 1 - i] = byte;
    }
}

static fixture fixture_open(const char *name)
{
  static const size_t widths[] = { 4, 8, 4, 2, 1 };
  fixture f;
  char path[100];
  FILE *file;
  long size;
  size_t at = 8;
  memset(&f, 0, sizeof f);
  snprintf(path, sizeof path, "tests/fixtures/%s.fix", name);
  file = fopen(path, "rb");
  if (!file) {
    printf("cannot open %s: run this from the root of the repository\n", path);
    exit(1);
  }
  fseek(file, 0, SEEK_END);
  size = ftell(file);
  rewind(file);
  f.bytes = (unsigned char *)malloc((size_t)size);
  if (!f.bytes || fread(f.bytes, 1, (size_t)size, file) != (size_t)size
      || memcmp(f.bytes, "IGPTFIX1", 8)) {
    printf("%s is not a fixture\n", path);
    exit(1);
  }
  fclose(file);
  while (at + 48 <= (size_t)size && f.count < 64) {
    record *r = &f.records[f.count++];
    memcpy(r->name, f.bytes + at, 32);
    to_native(f.bytes + at + 32, 4, 1);
    to_native(f.bytes + at + 40, 8, 1);
    memcpy(&r->type, f.bytes + at + 32, 4);
    memcpy(&r->count, f.bytes + at + 40, 8);
    r->data = f.bytes + at + 48;
    to_native(f.bytes + at + 48, widths[r->type], r->count);
    at += 48 + ((size_t)r->count * widths[r->type] + 7) / 8 * 8;
  }
  return f;
}

static const record *fixture_find(const fixture *f, const char *name, int index)
{
  char full[32];
  int i;
  if (index < 0)
    snprintf(full, sizeof full, "%s", name);
  else
    snprintf(full, sizeof full, "%s_%d", name, index);
  for (i = 0; i < f->count; i++)
    if (strcmp(f->records[i].name, full) == 0) return &f->records[i];
  return NULL;
}

/* The data of a record, of which the test knows the type; null if the fixture has none. Records are
   padded to 8 bytes, so the pointers are aligned. */
static const void *fixture_data(const fixture *f, const char *name, int index)
{
  const record *r = fixture_find(f, name, index);
  return r ? (const void *)r->data : NULL;
}

/* ---- comparing ------------------------------------------------------------------------------- */

static double worst;                       /* of the running test */
static char worst_what[100], context[100];

static void same(const char *what, const char *of, const float *got, const float *expected,
                 size_t count, double divide, double tolerance)
{
  double difference = 0, length = 0, most = 0, largest = 0, error;
  size_t i, at = 0;
  for (i = 0; i < count; i++) {
    double a = (double)got[i] / divide, b = (double)expected[i], d = fabs(a - b);
    difference += d * d;
    length += b * b;
    if (!(d <= most)) { most = d; at = i; }
    if (fabs(b) > largest) largest = fabs(b);
  }
  error = sqrt(difference / length);
  if (!(most / largest <= error)) error = most / largest;
  if (!(error <= worst)) {
    worst = error;
    snprintf(worst_what, sizeof worst_what, "%s %s", what, of);
  }
  if (error <= tolerance) return;                          /* a NaN fails */
  test_errors++;
  printf("%s: %s %s: error %.3g, allowed %.3g; at %lu: %.9g, expected %.9g\n", context, what, of,
         error, tolerance, (unsigned long)at, (double)got[at] / divide, (double)expected[at]);
}

static void same_value(const char *what, double got, double expected, double tolerance)
{
  double error = fabs(got - expected) / fabs(expected);
  if (expected == 0) error = fabs(got);
  if (!(error <= worst)) {
    worst = error;
    snprintf(worst_what, sizeof worst_what, "%s", what);
  }
  if (error <= tolerance) return;
  test_errors++;
  printf("%s: %s is %.12g, expected %.12g (%.3g)\n", context, what, got, expected, error);
}

/* ---- a model with the weights of a fixture --------------------------------------------------- */

static float draw(uint64_t seed, uint64_t stream, uint64_t i, double centre, double spread)
{
  uint64_t z = ((seed * 1000 + stream) << 32) + i + 1;
  z *= 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return (float)(centre + spread * (((double)(z >> 40) - 8388608.0) / 8388608.0));
}

static igpt_config fixture_config(const fixture *f)
{
  const int32_t *c = (const int32_t *)fixture_data(f, "config", -1);
  igpt_config config;
  memset(&config, 0, sizeof config);
  config.layers = c[0];
  config.heads = c[1];
  config.width = c[2];
  config.rows = c[3];
  config.columns = c[4];
  config.vocabulary = c[5];
  config.classes = c[6];
  config.objective = c[7] ? IGPT_BERT : IGPT_AR;
  config.biases = fixture_find(f, "config", -1)->count > 9 ? c[9] : 0;
  config.norm_epsilon = (float)*(const double *)fixture_data(f, "epsilon", -1);
  return config;
}

/* The weights go in by name, so that a wrong name, shape or order cannot hide. */
static igpt_model *fixture_model(const fixture *f, const igpt_config *config)
{
  const char *names = (const char *)fixture_data(f, "names", -1);
  const char *end = names + fixture_find(f, "names", -1)->count;
  const double *scale = (const double *)fixture_data(f, "draw", -1);
  const int32_t *seed = (const int32_t *)fixture_data(f, "seed", -1);
  igpt_model *model = NULL;
  igpt_model_desc desc;
  size_t t;
  memset(&desc, 0, sizeof desc);
  desc.config = *config;
  CHECK_INT(igpt_model_create(&model, &desc), IGPT_OK);
  if (!model) return NULL;
  for (t = 0; names < end; t++) {
    const char *line = strchr(names, '\n');
    char name[48];
    igpt_tensor by_name, by_index;
    size_t i;
    memset(&by_name, 0, sizeof by_name);
    memset(&by_index, 0, sizeof by_index);
    snprintf(name, sizeof name, "%.*s", (int)(line - names), names);
    names = line + 1;
    CHECK_INT(igpt_model_tensor(model, &by_name, name), IGPT_OK);
    CHECK_INT(igpt_model_tensor_at(model, &by_index, t), IGPT_OK);
    CHECK(by_name.data != NULL && by_name.data == by_index.data);
    CHECK(strcmp(by_index.name, name) == 0);
    for (i = 0; i < by_name.count; i++)
      by_name.data[i] = draw((uint64_t)*seed, t, i, scale[2 * t], scale[2 * t + 1]);
  }
  CHECK_INT(t, igpt_model_tensors(model));
  return model;
}

/* ---- a runner without threads: indices backwards, workers in turn ---------------------------- */

static void run_backwards(void *user, igpt_task *task, void *arg, size_t count)
{
  size_t i;
  for (i = count; i-- > 0;) task(arg, i, (int)(i % 3));
  (void)user;
}

typedef struct setting {
  igpt_isa isa;
  int workers, batch;
  igpt_precision precision;
  double tolerance;
} setting;

static igpt_session *session_for(const igpt_model *model, const setting *how)
{
  igpt_session_desc desc;
  igpt_session *session = NULL;
  memset(&desc, 0, sizeof desc);
  desc.batch = how->batch;
  desc.train = 1;
  desc.isa = how->isa;
  desc.precision = how->precision;
  desc.runner.workers = how->workers;
  if (how->workers > 1) desc.runner.run = run_backwards;
  CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
  return session;
}

/* ---- what a case is compared in -------------------------------------------------------------- */

static float *floats(size_t count)
{
  float *block = (float *)malloc((count ? count : 1) * sizeof *block);
  size_t i;
  if (!block) exit(1);
  for (i = 0; i < count; i++) block[i] = -1e30f;           /* what is not written shows */
  return block;
}

static void check_forward(const fixture *f, const igpt_config *config, igpt_session *session,
                          const igpt_batch *batch, double tolerance)
{
  const size_t N = batch->count, T = (size_t)(config->rows * config->columns);
  const size_t V = (size_t)config->vocabulary, K = (size_t)config->classes;
  const size_t C = (size_t)config->width, D = (size_t)config->layers + 1;
  const int32_t *map_at = (const int32_t *)fixture_data(f, "map_at", -1);
  const double *losses = (const double *)fixture_data(f, "losses", -1);
  float *logits = floats(N * T * V), *nats = floats(N * T), *map = floats(N * T * T);
  float *classes = floats(N * K), *features = floats(N * D * C), *expected = floats(N * D * C);
  const float *pooled = (const float *)fixture_data(f, "features", -1);
  int *layers = (int *)malloc(D * sizeof *layers);
  double mean = 0;
  size_t n, d, c;

  CHECK_INT(igpt_forward(session, logits, batch), IGPT_OK);
  same("logits", "", logits, (const float *)fixture_data(f, "logits", -1), N * T * V, 1, tolerance);
  CHECK_INT(igpt_nll(session, nats, &mean, batch), IGPT_OK);
  same("nats", "", nats, (const float *)fixture_data(f, "nats", -1), N * T, 1, tolerance);
  same_value("mean nats", mean, losses[0], tolerance);
  if (K) {
    CHECK_INT(igpt_classify(session, classes, batch), IGPT_OK);
    same("class logits", "", classes, (const float *)fixture_data(f, "classes", -1), N * K, 1,
         tolerance);
  }
  for (d = 0; d < D; d++) layers[d] = (int)((d * 2 + 1) % D);          /* in no order */
  for (n = 0; n < N; n++)
    for (d = 0; d < D; d++)
      for (c = 0; c < C; c++)
        expected[(n * D + d) * C + c] = pooled[(n * D + (size_t)layers[d]) * C + c];
  CHECK_INT(igpt_features(session, features, batch, layers, D), IGPT_OK);
  same("features", "", features, expected, N * D * C, 1, tolerance);
  for (d = 0; d < D; d++) {                                /* and each depth alone */
    int layer = (int)d;
    for (n = 0; n < N; n++)
      for (c = 0; c < C; c++) expected[n * C + c] = pooled[(n * D + d) * C + c];
    CHECK_INT(igpt_features(session, features, batch, &layer, 1), IGPT_OK);
    same("features", "of one depth", features, expected, N * C, 1, tolerance);
  }
  CHECK_INT(igpt_attention_map(session, map, batch, map_at[0], map_at[1]), IGPT_OK);
  same("attention map", "", map, (const float *)fixture_data(f, "map", -1), N * T * T, 1,
       tolerance);

  free(layers);
  free(expected);
  free(features);
  free(classes);
  free(map);
  free(nats);
  free(logits);
}

static void check_gradients(const fixture *f, const igpt_model *model, igpt_session *session,
                            const igpt_batch *batch, double tolerance)
{
  const double *expected = (const double *)fixture_data(f, "losses", -1);
  const float *gradient = (const float *)fixture_data(f, "gradients", -1);
  float *block = NULL;
  size_t count = 0, pictures = 0, t, at = 0;
  igpt_losses losses;
  memset(&losses, 0, sizeof losses);
  CHECK_INT(igpt_backward(session, &losses, batch, NULL), IGPT_OK);
  same_value("generative loss", losses.generative, expected[0], tolerance);
  same_value("class loss", losses.classification, expected[1], tolerance);
  same_value("total loss", losses.total, expected[2], tolerance);
  CHECK_INT(igpt_gradients(session, &block, &count, &pictures), IGPT_OK);
  CHECK_INT(pictures, batch->count);
  CHECK_INT(count, igpt_model_parameters(model));
  CHECK_INT(count, fixture_find(f, "gradients", -1)->count);
  for (t = 0; t < igpt_model_tensors(model); t++) {
    igpt_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    CHECK_INT(igpt_gradient_at(session, &tensor, t), IGPT_OK);
    CHECK(tensor.data == block + at);                      /* one block, in this order */
    same("gradient of", tensor.name, tensor.data, gradient + at, tensor.count, (double)pictures,
         tolerance);
    at += tensor.count;
  }
  CHECK_INT(at, count);
  CHECK_INT(igpt_gradients_zero(session), IGPT_OK);
}

/* The batch of step `step`, pictures [first, first + count) of it. */
static igpt_batch step_batch(const fixture *f, const igpt_config *config, size_t pictures, int step,
                             size_t first, size_t count)
{
  const size_t T = (size_t)(config->rows * config->columns);
  const size_t at = (size_t)step * pictures + first;
  const uint8_t *mask = (const uint8_t *)fixture_data(f, "step_mask", -1);
  const int32_t *labels = (const int32_t *)fixture_data(f, "step_labels", -1);
  igpt_batch batch;
  memset(&batch, 0, sizeof batch);
  batch.tokens = (const uint16_t *)fixture_data(f, "step_tokens", -1) + at * T;
  batch.mask = mask ? mask + at * T : NULL;
  batch.labels = labels ? labels + at : NULL;
  batch.count = count;
  return batch;
}

/* Setting 0 is plain Adam, 1 has decay and clipping, 2 also a large epsilon. The weights have to
   agree within the tolerance. In setting 2 the way that they went has to agree too, but for the
   roundings of ten sums to the weight's last bit; with the usual epsilon a step is about the sign
   of the gradient, and where a gradient is nearly zero no two computations agree on that. */
static void check_steps(const fixture *f, const igpt_config *config, const setting *how, int x)
{
  const double *adam = (const double *)fixture_data(f, "adam", x);
  const double *run = (const double *)fixture_data(f, "run", x);
  const float *change = (const float *)fixture_data(f, "change", x);
  const double *after = (const double *)fixture_data(f, "after", x);
  const size_t N = (size_t)((const int32_t *)fixture_data(f, "config", -1))[8];
  const size_t T = (size_t)(config->rows * config->columns);
  igpt_model *model = fixture_model(f, config);
  igpt_session *session = session_for(model, how);
  const size_t P = igpt_model_parameters(model);
  float *before = floats(P), *moved = floats(P), *ours = floats(P), *theirs = floats(P);
  float *nats = floats(N * T);
  igpt_tensor tensor;
  igpt_adam_desc desc;
  igpt_batch batch;
  size_t t, i, at = 0;
  double way = 0;                 /* as far as the rates reach */
  int step;

  igpt_model_tensor_at(model, &tensor, 0);
  memcpy(before, tensor.data, P * sizeof *before);
  memset(&desc, 0, sizeof desc);
  desc.epsilon = x == 0 ? 0 : (float)adam[0];              /* 0 is the default, 1e-8 */
  desc.weight_decay = (float)adam[1];
  desc.clip = (float)adam[2];
  for (step = 0; step < STEPS; step++) {
    igpt_losses losses;
    double total = 0, norm = 0, asked = 0;
    const size_t first = x == 1 && N > 1 ? 1 : N;          /* setting 1 accumulates two calls */
    batch = step_batch(f, config, N, step, 0, first);
    CHECK_INT(igpt_backward(session, &losses, &batch, NULL), IGPT_OK);
    total = losses.total * (double)first;
    if (first < N) {
      batch = step_batch(f, config, N, step, first, N - first);
      CHECK_INT(igpt_backward(session, &losses, &batch, NULL), IGPT_OK);
      total += losses.total * (double)(N - first);
    }
    same_value("loss of a step", total / (double)N, run[step], how->tolerance);
    CHECK_INT(igpt_gradient_norm(session, &asked), IGPT_OK);
    desc.rate = (float)adam[3 + step];
    way += adam[3 + step];
    CHECK_INT(igpt_step(session, model, &norm, &desc), IGPT_OK);
    same_value("length of the gradient", norm, run[STEPS + step], 2 * how->tolerance);
    CHECK(asked == norm);
  }
  for (t = 0; t < igpt_model_tensors(model); t++) {
    const float *was = before + at;
    size_t n = 0;
    int idle;
    igpt_model_tensor_at(model, &tensor, t);
    idle = strstr(tensor.name, "c_attn.bias") != NULL;
    for (i = t % 8; i < tensor.count; i += 8, n++) {
      moved[n] = tensor.data[i] - was[i];
      theirs[n] = was[i] + change[n];
      ours[n] = tensor.data[i];
      /* A bias of keys adds the same to all that a query compares: its gradient is zero, and Adam
         makes steps of what rounding leaves of that. */
      if (idle && i / (tensor.count / 3) == 1) {
        CHECK(fabs((double)moved[n]) < 2 * way);
        moved[n] = change[n];
        ours[n] = theirs[n];
      }
    }
    same("weights after ten steps,", tensor.name, ours, theirs, n, 1, how->tolerance);
    if (x == 2) {
      double far = 0, long_way = 0;
      for (i = 0; i < n; i++) {
        far += (double)theirs[i] * theirs[i];
        long_way += (double)change[i] * change[i];
      }
      same("change in ten steps,", tensor.name, moved, change, n, 1,
           2 * how->tolerance + 4 * 5.96e-8 * sqrt(far / long_way));
    }
    change += n;
    at += tensor.count;
  }
  batch.tokens = (const uint16_t *)fixture_data(f, "tokens", -1);
  batch.mask = (const uint8_t *)fixture_data(f, "mask", -1);
  batch.labels = NULL;
  batch.count = N;
  CHECK_INT(igpt_nll(session, nats, NULL, &batch), IGPT_OK);
  for (i = 0; i < N * T; i++) theirs[i] = (float)after[i];
  same("nats after ten steps", "", nats, theirs, N * T, 1, how->tolerance);

  free(nats);
  free(theirs);
  free(ours);
  free(moved);
  free(before);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
}

static igpt_batch fixture_batch(const fixture *f)
{
  igpt_batch batch;
  memset(&batch, 0, sizeof batch);
  batch.tokens = (const uint16_t *)fixture_data(f, "tokens", -1);
  batch.mask = (const uint8_t *)fixture_data(f, "mask", -1);
  batch.labels = (const int32_t *)fixture_data(f, "labels", -1);
  batch.count = (size_t)((const int32_t *)fixture_data(f, "config", -1))[8];
  return batch;
}

static void check_case(const char *name)
{
  fixture f = fixture_open(name);
  const igpt_config config = fixture_config(&f);
  const igpt_batch batch = fixture_batch(&f);
  igpt_model *model = fixture_model(&f, &config);
  int isa, plan;
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++)
    for (plan = 0; plan < 3; plan++) {
      setting how;
      igpt_session *session;
      int x;
      if (!igpt_isa_supported((igpt_isa)isa)) continue;
      how.isa = (igpt_isa)isa;
      how.workers = plan == 1 ? 3 : 1;
      how.batch = plan == 2 ? 1 : 3;
      how.precision = IGPT_F32;
      how.tolerance = TOLERANCE;
      snprintf(context, sizeof context, "%s, %s, %d workers, batch %d", name,
               igpt_isa_name(how.isa), how.workers, how.batch);
      worst = 0;
      session = session_for(model, &how);
      check_forward(&f, &config, session, &batch, how.tolerance);
      check_gradients(&f, model, session, &batch, how.tolerance);
      igpt_session_destroy(session);
      printf("  %s: largest error %.2g (%s)\n", context, worst, worst_what);
      worst = 0;
      for (x = 0; x < 3; x++)
        if (plan == 0 || x == 1) check_steps(&f, &config, &how, x);
      printf("  %s: ten steps: %.2g (%s)\n", context, worst, worst_what);
    }
  igpt_model_destroy(model);
  free(f.bytes);
}

TEST(ar) { check_case("ar"); }
TEST(ar_odd) { check_case("ar_odd"); }
TEST(bert_odd) { check_case("bert_odd"); }
TEST(joint_ar) { check_case("joint_ar"); }
TEST(joint_bert) { check_case("joint_bert"); }
TEST(joint_biases) { check_case("joint_biases"); }

/* bfloat16 operands: close, as eight bits are, and not the float32 path by mistake. */
TEST(bf16)
{
  static const char *const names[] = { "ar", "ar_odd", "bert_odd", "joint_ar", "joint_biases" };
  size_t i;
  int isa;
  for (i = 0; i < sizeof names / sizeof *names; i++)
    for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++) {
      fixture f;
      igpt_config config;
      igpt_batch batch;
      igpt_model *model;
      igpt_session *session;
      setting how;
      if (!igpt_isa_supported((igpt_isa)isa)) continue;
      f = fixture_open(names[i]);
      config = fixture_config(&f);
      batch = fixture_batch(&f);
      model = fixture_model(&f, &config);
      how.isa = (igpt_isa)isa;
      how.workers = 1;
      how.batch = 3;
      how.precision = IGPT_BF16;
      how.tolerance = 5e-2;
      snprintf(context, sizeof context, "%s, %s, bf16", names[i], igpt_isa_name(how.isa));
      session = session_for(model, &how);
      worst = 0;
      check_forward(&f, &config, session, &batch, how.tolerance);
      CHECK(worst > 1e-4);
      check_gradients(&f, model, session, &batch, how.tolerance);
      printf("  %s: largest error %.2g (%s)\n", context, worst, worst_what);
      igpt_session_destroy(session);
      igpt_model_destroy(model);
      free(f.bytes);
    }
}

/* The comparison is only worth something if it can fail: a norm whose epsilon is 1e-3 of the right
   one, that is to say missing, has to be far outside the tolerance. */
TEST(epsilon_shows)
{
  static const char *const names[] = { "ar", "ar_odd", "bert_odd", "joint_ar", "joint_bert" };
  size_t i;
  for (i = 0; i < sizeof names / sizeof *names; i++) {
    fixture f = fixture_open(names[i]);
    igpt_config config = fixture_config(&f);
    const igpt_batch batch = fixture_batch(&f);
    const size_t count = (size_t)fixture_find(&f, "logits", -1)->count;
    const float *expected = (const float *)fixture_data(&f, "logits", -1);
    float *logits = floats(count);
    double difference = 0, length = 0;
    igpt_model *model;
    igpt_session *session;
    setting how;
    size_t j;
    config.norm_epsilon *= 1e-3f;
    model = fixture_model(&f, &config);
    memset(&how, 0, sizeof how);
    how.batch = 3;
    session = session_for(model, &how);
    CHECK_INT(igpt_forward(session, logits, &batch), IGPT_OK);
    for (j = 0; j < count; j++) {
      difference += ((double)logits[j] - expected[j]) * ((double)logits[j] - expected[j]);
      length += (double)expected[j] * expected[j];
    }
    CHECK(sqrt(difference / length) > 100 * TOLERANCE);
    igpt_session_destroy(session);
    igpt_model_destroy(model);
    free(logits);
    free(f.bytes);
  }
}

TEST(schedule)
{
  fixture f = fixture_open("schedule");
  const double *row = (const double *)fixture_data(&f, "rates", -1);
  const uint64_t count = fixture_find(&f, "rates", -1)->count / 7;
  uint64_t i;
  for (i = 0; i < count; i++, row += 7) {
    static const igpt_schedule_shape shapes[] = { IGPT_COSINE, IGPT_CONSTANT, IGPT_LINEAR };
    igpt_schedule_desc desc;
    double got;
    memset(&desc, 0, sizeof desc);
    desc.shape = shapes[(int)row[0]];
    desc.rate = row[1];
    desc.warmup = row[2];
    desc.steps = row[3];
    desc.end = row[4];
    got = igpt_schedule(&desc, row[5]);
    if (!(fabs(got - row[6]) <= 1e-12 * row[1])) {
      test_errors++;
      printf("shape %g rate %g warmup %g steps %g end %g, step %g: %.9g, expected %.9g\n", row[0],
             row[1], row[2], row[3], row[4], row[5], got, row[6]);
    }
  }
  free(f.bytes);
}

int main(void)
{
  RUN(ar);
  RUN(ar_odd);
  RUN(bert_odd);
  RUN(joint_ar);
  RUN(joint_bert);
  RUN(joint_biases);
  RUN(bf16);
  RUN(epsilon_shows);
  RUN(schedule);
  return test_done();
}
