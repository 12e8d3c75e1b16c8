/* runners.c: whoever does the work, and in whatever order, the bits are those of a plain loop.

   All that takes a runner is done by the library's pool and by runners that keep the contract and
   nothing else: backwards, shuffled, by one worker of seven, by as many workers as there are tasks,
   by threads that know nothing of each other. Then models, palettes and probes are used by several
   threads at once, and nobody can write to them: they lie in memory that may only be read.

   Under -fsanitize=thread it says more: threads here are new for each call and wait for nobody, so
   that any two tasks of a call which touch the same number, one of them writing, are a data race,
   even if they do not meet.                                                                      */

#define _DEFAULT_SOURCE 1         /* part.h: anonymous pages */
#include "igpt.h"
#include "part.h"

#ifndef IGPT_NO_THREADS
#include <pthread.h>
#endif

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- runners --------------------------------------------------------------------------------- */

typedef struct crew {
  const char *name;
  int workers;                    /* that the library is told of */
  int threads;                    /* that have tasks, at most; 0: the caller's alone */
  int backwards;                  /* tasks go from the last to the first; else they are shuffled */
  size_t runs, most;              /* calls, and the most tasks of one */
} crew;

static const crew crews[] = {
#ifndef IGPT_NO_THREADS
  { "a thread a task", 64, 64, 0, 0, 0 },
#endif
#ifndef __SANITIZE_THREAD__       /* which these cannot tell more */
#ifndef IGPT_NO_THREADS
  { "three threads, shuffled", 3, 3, 0, 0, 0 },
  { "one worker of seven", 7, 1, 0, 0, 0 },
#endif
  { "the caller, backwards", 3, 0, 1, 0, 0 },
  { "the caller, shuffled, as any of seven workers", 7, 0, 0, 0, 0 },
#endif
};

/* What a thread has to do: every `step`th task of `order`, beginning at `from`. */
typedef struct share {
  igpt_task *task;
  void *arg;
  const uint32_t *order;
  size_t from, step, count;
  int worker;
} share;

static void *share_main(void *given)
{
  const share *s = (const share *)given;
  size_t i;
  for (i = s->from; i < s->count; i += s->step) s->task(s->arg, s->order[i], s->worker);
  return NULL;
}

#ifndef IGPT_NO_THREADS
/* All of them start before any is waited for. */
static void in_threads(void *(*body)(void *), void *const *args, size_t count)
{
  pthread_t thread[64];
  size_t i;
  for (i = 0; i < count; i++)
    if (pthread_create(&thread[i], NULL, body, args[i])) exit(2);
  for (i = 0; i < count; i++) pthread_join(thread[i], NULL);
}
#endif

/* Worker numbers go on from call to call, so that no thread has one for long. */
static void crew_run(void *user, igpt_task *task, void *arg, size_t count)
{
  crew *c = (crew *)user;
  uint32_t *order = (uint32_t *)malloc(count * sizeof *order);
  igpt_rng rng = igpt_rng_seed(17, c->runs++);
  share shares[64];
  void *args[64];
  size_t i;
  if (!order) exit(2);
  if (count > c->most) c->most = count;
  for (i = 0; i < count; i++) order[i] = (uint32_t)(c->backwards ? count - 1 - i : i);
  if (!c->backwards) igpt_rng_shuffle(&rng, order, count);
  if (c->threads == 0)
    for (i = 0; i < count; i++)
      task(arg, order[i], (int)igpt_rng_below(&rng, (uint32_t)c->workers));
  for (i = 0; i < (size_t)c->threads; i++) {
    shares[i].task = task;
    shares[i].arg = arg;
    shares[i].order = order;
    shares[i].from = i;
    shares[i].step = (size_t)c->threads;
    shares[i].count = count;
    shares[i].worker = (int)((i + c->runs) % (size_t)c->workers);
    args[i] = &shares[i];
  }
#ifndef IGPT_NO_THREADS
  in_threads(share_main, args, i < count ? i : count);
#else
  (void)args;
  (void)share_main;
#endif
  free(order);
}

/* ---- what there is to do ---------------------------------------------------------------------- */

/* Blocks end where a page does that cannot be touched, and are full of NaN. */
static void *guarded_alloc(void *user, size_t bytes)
{
  (void)user;
  return memset(part_new(bytes), 0xff, bytes);
}

static void guarded_free(void *user, void *block, size_t bytes)
{
  (void)user;
  (void)bytes;
  part_free(block);
}

static const igpt_allocator guarded = { guarded_alloc, guarded_free, NULL };

/* All jobs are large enough for several tasks in each call of the runner, and of no round number. */
enum { N = 4, SIDE = 7, T = SIDE * SIDE, V = 67, K = 3, PIXELS = 7 * 16384 - 100, ROWS = 600,
       FEATURES = 45 };

/* What is given another instruction set than AUTO shares all but the kernels with what is not, and
   is left to one crew. */
typedef struct job {
  const char *name;
  void (*body)(const struct job *job, const igpt_runner *runner, paper *out);
  igpt_objective objective;
  igpt_precision precision;
  igpt_isa isa;
  int recompute;
  size_t most;                    /* some call has at least so many tasks */
} job;

static uint16_t tokens[N * T];
static uint8_t mask[N * T];
static uint8_t rgb[3 * PIXELS];
static float features[ROWS * FEATURES];
static int32_t labels[ROWS];

static void materials(void)
{
  igpt_rng rng = igpt_rng_seed(2, 0);
  size_t i;
  for (i = 0; i < N * T; i++) tokens[i] = (uint16_t)igpt_rng_below(&rng, V);
  for (i = 0; i < N * T; i++) mask[i] = i % 3 == 1 || i % T == 0;
  for (i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)(igpt_rng_next(&rng) >> 26 << 2);
  part_fill(features, ROWS * FEATURES, 1, 3);
  for (i = 0; i < ROWS; i++) labels[i] = (int32_t)(i % K);
  for (i = 0; i < ROWS; i++) features[i * FEATURES + i % K] += 0.5f;
}

static igpt_model *model_of(igpt_objective objective, void *memory, size_t bytes)
{
  igpt_model *model = NULL;
  igpt_model_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.config = config_of(2, 3, 96, SIDE, SIDE, V);
  desc.config.objective = objective;
  desc.config.classes = K;
  desc.memory = memory;
  desc.memory_bytes = bytes;
  CHECK_INT(igpt_model_create(&model, &desc), IGPT_OK);
  if (!model) exit(2);
  part_weights(model);
  return model;
}

static igpt_session *session_of(const igpt_model *model, const job *j, int train,
                                const igpt_runner *runner)
{
  igpt_session *session = NULL;
  igpt_session_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.batch = 3;                             /* 4 pictures are two passes, the second one short */
  desc.train = train;
  desc.recompute = j->recompute;
  desc.precision = j->precision;
  desc.isa = j->isa;
  desc.runner = *runner;
  desc.allocator = guarded;
  CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
  if (!session) exit(2);
  return session;
}

static igpt_batch pictures(igpt_objective objective)
{
  igpt_batch batch;
  memset(&batch, 0, sizeof batch);
  batch.tokens = tokens;
  batch.count = N;
  batch.labels = labels;
  if (objective == IGPT_BERT) batch.mask = mask;
  return batch;
}

/* Every call that computes without changing the model */
static void ask(igpt_session *session, igpt_objective objective, paper *out)
{
  static const int depths[] = { 1, 0, 2 };
  const igpt_batch batch = pictures(objective);
  float *x = part_floats(N * T * (V > T ? V : T));
  uint16_t drawn[N * T];
  igpt_sample_desc how;
  double mean = 0;
  memset(&how, 0, sizeof how);
  how.rounds = 3;
  how.keep = objective == IGPT_AR ? T / 2 : 0;
  CHECK_INT(igpt_forward(session, x, &batch), IGPT_OK);
  paper_write(out, x, N * T * V * sizeof *x);
  CHECK_INT(igpt_nll(session, x, &mean, &batch), IGPT_OK);
  paper_write(out, x, N * T * sizeof *x);
  paper_write(out, &mean, sizeof mean);
  CHECK_INT(igpt_classify(session, x, &batch), IGPT_OK);
  paper_write(out, x, N * K * sizeof *x);
  CHECK_INT(igpt_features(session, x, &batch, depths, 3), IGPT_OK);
  paper_write(out, x, N * 3 * 96 * sizeof *x);
  CHECK_INT(igpt_attention_map(session, x, &batch, 1, 2), IGPT_OK);
  paper_write(out, x, N * T * T * sizeof *x);
  memcpy(drawn, tokens, sizeof drawn);
  if (objective == IGPT_AR) CHECK_INT(igpt_sample(session, drawn, N, &how), IGPT_OK);
  else CHECK_INT(igpt_fill(session, drawn, mask, N, &how), IGPT_OK);
  CHECK(memcmp(drawn, tokens, sizeof drawn) != 0);
  paper_write(out, drawn, sizeof drawn);
  part_free(x);
}

static void use(const job *j, const igpt_runner *runner, paper *out)
{
  igpt_model *model = model_of(j->objective, NULL, 0);
  igpt_session *session = session_of(model, j, 0, runner);
  ask(session, j->objective, out);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
}

/* Field by field: behind the last there may be bytes without a meaning. */
static void write_losses(paper *out, const igpt_losses *losses)
{
  paper_write(out, &losses->generative, sizeof losses->generative);
  paper_write(out, &losses->classification, sizeof losses->classification);
  paper_write(out, &losses->total, sizeof losses->total);
  paper_write(out, &losses->correct, sizeof losses->correct);
}

static void train(const job *j, const igpt_runner *runner, paper *out)
{
  igpt_model *model = model_of(j->objective, NULL, 0);
  igpt_session *session = session_of(model, j, 1, runner);
  const igpt_batch batch = pictures(j->objective);
  igpt_adam_desc adam;
  igpt_tensor first;
  int step;
  memset(&adam, 0, sizeof adam);
  adam.rate = 1e-3f;
  adam.weight_decay = 0.1f;
  adam.clip = 0.5f;
  for (step = 0; step < 2; step++) {
    igpt_losses losses;
    double norm = 0;
    CHECK_INT(igpt_backward(session, &losses, &batch, NULL), IGPT_OK);
    CHECK_INT(igpt_step(session, model, &norm, &adam), IGPT_OK);
    write_losses(out, &losses);
    paper_write(out, &norm, sizeof norm);
  }
  igpt_model_tensor_at(model, &first, 0);     /* they lie in one run */
  paper_write(out, first.data, igpt_model_parameters(model) * sizeof *first.data);
  ask(session, j->objective, out);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
}

static void palette(const job *j, const igpt_runner *runner, paper *out)
{
  igpt_palette p;
  igpt_kmeans_desc means;
  igpt_kmeans_report report;
  igpt_encode_desc encode;
  uint16_t *found = (uint16_t *)part_new(PIXELS * sizeof *found);
  memset(&means, 0, sizeof means);
  memset(&encode, 0, sizeof encode);
  memset(&report, 0, sizeof report);
  memset(&p, 0, sizeof p);
  means.colours = V;
  means.max_iterations = 4;
  means.isa = encode.isa = j->isa;
  means.runner = encode.runner = *runner;
  means.allocator = encode.allocator = guarded;
  CHECK_INT(igpt_palette_fit(&p, &report, rgb, PIXELS, &means), IGPT_OK);
  paper_write(out, &p, sizeof p);
  paper_write(out, &report, sizeof report);
  CHECK_INT(igpt_palette_encode(&p, found, rgb, PIXELS, &encode), IGPT_OK);
  paper_write(out, found, PIXELS * sizeof *found);
  part_free(found);
}

static void probe(const job *j, const igpt_runner *runner, paper *out)
{
  int way;
  for (way = 0; way < 4; way++) {
    igpt_probe *fitted = NULL;
    igpt_probe_desc desc;
    igpt_probe_report report;
    int32_t guessed[ROWS];
    float p[ROWS * K];
    memset(&desc, 0, sizeof desc);
    memset(&report, 0, sizeof report);
    desc.method = (igpt_probe_method)(way % 2);
    desc.standardise = way / 2;
    desc.epochs = 3;
    desc.isa = j->isa;
    desc.runner = *runner;
    desc.allocator = guarded;
    CHECK_INT(igpt_probe_fit(&fitted, &report, features, labels, ROWS, FEATURES, &desc), IGPT_OK);
    if (!fitted) return;
    paper_write(out, &report, sizeof report);
    paper_write(out, igpt_probe_weights(fitted, NULL, NULL), K * FEATURES * sizeof(float));
    paper_write(out, igpt_probe_intercepts(fitted), K * sizeof(float));
    CHECK_INT(igpt_probe_predict(fitted, guessed, p, features, ROWS), IGPT_OK);
    paper_write(out, guessed, sizeof guessed);
    paper_write(out, p, sizeof p);
    igpt_probe_destroy(fitted);
  }
}

static const job jobs[] = {
  { "train AR",               train,   IGPT_AR,   IGPT_F32,  IGPT_ISA_AUTO,    0, 10 },
  { "train AR, generic",      train,   IGPT_AR,   IGPT_F32,  IGPT_ISA_GENERIC, 0, 10 },
  { "train AR, bfloat16",     train,   IGPT_AR,   IGPT_BF16, IGPT_ISA_AUTO,    0, 10 },
  { "train BERT, recomputed", train,   IGPT_BERT, IGPT_F32,  IGPT_ISA_AUTO,    1, 10 },
  { "train BERT, bfloat16, generic",
                              train,   IGPT_BERT, IGPT_BF16, IGPT_ISA_GENERIC, 0, 10 },
  { "use AR",                 use,     IGPT_AR,   IGPT_F32,  IGPT_ISA_AUTO,    0, 10 },
  { "use AR, bfloat16",       use,     IGPT_AR,   IGPT_BF16, IGPT_ISA_AUTO,    0, 10 },
  { "use AR, int8",           use,     IGPT_AR,   IGPT_INT8, IGPT_ISA_AUTO,    0, 10 },
  { "use AR, int8, generic",  use,     IGPT_AR,   IGPT_INT8, IGPT_ISA_GENERIC, 0, 10 },
  { "use BERT",               use,     IGPT_BERT, IGPT_F32,  IGPT_ISA_AUTO,    0, 10 },
  { "use BERT, bfloat16",     use,     IGPT_BERT, IGPT_BF16, IGPT_ISA_AUTO,    0, 10 },
  { "palette",                palette, IGPT_AR,   IGPT_F32,  IGPT_ISA_AUTO,    0, 7 },
  { "palette, generic",       palette, IGPT_AR,   IGPT_F32,  IGPT_ISA_GENERIC, 0, 7 },
  { "probe",                  probe,   IGPT_AR,   IGPT_F32,  IGPT_ISA_AUTO,    0, 10 },
  { "probe, generic",         probe,   IGPT_AR,   IGPT_F32,  IGPT_ISA_GENERIC, 0, 10 }
};

/* ---- the same bits --------------------------------------------------------------------------- */

static void compare(const job *j, const char *who, const igpt_runner *runner, const paper *expected)
{
  paper got = { 0 };
  int is_same;
  j->body(j, runner, &got);
  is_same = got.size == expected->size && memcmp(got.data, expected->data, got.size) == 0;
  CHECK(is_same);
  if (!is_same) printf("  %s, %s\n", j->name, who);
  free(got.data);
}

TEST(any_runner_gives_the_bits_of_a_plain_loop)
{
#ifndef IGPT_NO_THREADS
  igpt_pool *pool = NULL;
#endif
  const size_t each = TEST_AMOUNT(COUNT(crews), 1);
  size_t i, k;
#ifndef IGPT_NO_THREADS
  CHECK_INT(igpt_pool_create(&pool, 3, NULL), IGPT_OK);
#endif
  for (i = 0; i < COUNT(jobs); i += TEST_AMOUNT(1, 3)) {
    const job *j = &jobs[i];
    igpt_runner runner;
    paper expected = { 0 };
    memset(&runner, 0, sizeof runner);
    j->body(j, &runner, &expected);
    CHECK(expected.size > 1000);
    for (k = 0; k < (j->isa == IGPT_ISA_AUTO ? each : 1); k++) {
      crew c = crews[k];
      runner.run = crew_run;
      runner.user = &c;
      runner.workers = c.workers;
      compare(j, c.name, &runner, &expected);
      CHECK(c.most >= j->most);
      CHECK(c.threads != 64 || c.most <= 64);           /* a thread for each */
      if (k == 0) printf("        %s: %lu calls, at most %lu tasks\n", j->name,
                         (unsigned long)c.runs, (unsigned long)c.most);
    }
#ifndef IGPT_NO_THREADS
    runner = igpt_pool_runner(pool);
    compare(j, "the pool", &runner, &expected);
#endif
    free(expected.data);
  }
#ifndef IGPT_NO_THREADS
  igpt_pool_destroy(pool);
#endif
}

/* ---- several threads, and what they share ------------------------------------------------------ */

#if PART_PAGES && !defined(IGPT_NO_THREADS)

/* All that may be shared, in pages of its own; when it is there, they may only be read. */
typedef struct shared {
  igpt_model *model[2];           /* AR, BERT */
  igpt_palette *palette;
  igpt_probe *probe;
  char *pages;
  size_t bytes, used;
} shared;

static void *shared_take(void *user, size_t bytes)
{
  shared *s = (shared *)user;
  char *block = s->pages + s->used;
  s->used += (bytes + 63) / 64 * 64;
  if (s->used > s->bytes) exit(2);
  return block;
}

static void shared_give(void *user, void *block, size_t bytes)
{
  (void)user;
  (void)block;
  (void)bytes;
}

static void shared_open(shared *s)
{
  igpt_probe_desc desc;
  size_t i;
  memset(s, 0, sizeof *s);
  s->bytes = 16 << 20;
  s->pages = (char *)mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                          0);
  if (s->pages == (char *)MAP_FAILED) exit(2);
  s->palette = (igpt_palette *)shared_take(s, sizeof *s->palette);
  s->palette->colours = V;
  part_fill(&s->palette->centre[0][0], 3 * V, 1, 9);
  for (i = 0; i < 2; i++) {
    size_t bytes = 0;
    igpt_model_desc md;
    memset(&md, 0, sizeof md);
    md.config = config_of(2, 3, 96, SIDE, SIDE, V);
    md.config.classes = K;
    CHECK_INT(igpt_model_bytes(&bytes, &md), IGPT_OK);
    s->model[i] = model_of(i ? IGPT_BERT : IGPT_AR, shared_take(s, bytes), bytes);
    CHECK_INT(igpt_model_set_palette(s->model[i], s->palette), IGPT_OK);
  }
  memset(&desc, 0, sizeof desc);
  desc.allocator.alloc = shared_take;
  desc.allocator.free = shared_give;
  desc.allocator.user = s;
  CHECK_INT(igpt_probe_fit(&s->probe, NULL, features, labels, ROWS, FEATURES, &desc), IGPT_OK);
  if (!s->probe || mprotect(s->pages, s->bytes, PROT_READ)) exit(2);
}

static void shared_close(shared *s)
{
  munmap(s->pages, s->bytes);     /* owners that have nothing to give back */
}

/* What a thread does with it. */
typedef struct user {
  const shared *of;
  const job *job;
  igpt_runner runner;
  paper out;
} user;

/* A session that trains reads the model too, until its igpt_step. */
static void *user_main(void *given)
{
  user *u = (user *)given;
  const igpt_model *model = u->of->model[u->job->objective == IGPT_BERT];
  const igpt_batch batch = pictures(u->job->objective);
  const int training = u->job->body == train;
  igpt_session *session = session_of(model, u->job, training, &u->runner);
  uint16_t *found = (uint16_t *)part_new(PIXELS * sizeof *found);
  int32_t guessed[ROWS];
  float p[ROWS * K];
  igpt_encode_desc encode;
  igpt_sink sink;
  memset(&encode, 0, sizeof encode);
  encode.runner = u->runner;
  encode.allocator = guarded;
  sink.write = paper_write;
  sink.user = &u->out;
  u->out.size = 0;
  ask(session, u->job->objective, &u->out);
  if (training) {
    igpt_losses losses;
    float *gradients = NULL;
    double norm = 0;
    size_t count = 0;
    CHECK_INT(igpt_backward(session, &losses, &batch, NULL), IGPT_OK);
    CHECK_INT(igpt_gradient_norm(session, &norm), IGPT_OK);
    CHECK_INT(igpt_gradients(session, &gradients, &count, NULL), IGPT_OK);
    write_losses(&u->out, &losses);
    paper_write(&u->out, &norm, sizeof norm);
    paper_write(&u->out, gradients, count * sizeof *gradients);
  }
  CHECK_INT(igpt_model_write(model, &sink), IGPT_OK);
  CHECK_INT(igpt_palette_encode(igpt_model_palette(model), found, rgb, PIXELS, &encode), IGPT_OK);
  paper_write(&u->out, found, PIXELS * sizeof *found);
  CHECK_INT(igpt_palette_encode(u->of->palette, found, rgb, 1000, &encode), IGPT_OK);
  paper_write(&u->out, found, 1000 * sizeof *found);
  CHECK_INT(igpt_probe_predict(u->of->probe, guessed, p, features, ROWS), IGPT_OK);
  paper_write(&u->out, p, sizeof p);
  part_free(found);
  igpt_session_destroy(session);
  return NULL;
}

/* Each alone, by a plain loop; then all at once, each by itself, and all with one pool. */
TEST(threads_share_what_can_only_be_read)
{
  igpt_pool *pool = NULL;
  shared all;
  user users[COUNT(jobs)];
  paper expected[COUNT(jobs)];
  void *args[COUNT(jobs)];
  size_t i, count = 0;
  int pooled;
  shared_open(&all);
  CHECK_INT(igpt_pool_create(&pool, 3, NULL), IGPT_OK);
  for (i = 0; i < COUNT(jobs); i += TEST_AMOUNT(1, 2))
    if (jobs[i].isa == IGPT_ISA_AUTO && (jobs[i].body == use || jobs[i].body == train)) {
      user *u = &users[count];
      memset(u, 0, sizeof *u);
      u->of = &all;
      u->job = &jobs[i];
      user_main(u);
      expected[count] = u->out;
      memset(&u->out, 0, sizeof u->out);
      args[count++] = u;
    }
  CHECK(count >= 4);
  for (pooled = TEST_AMOUNT(0, 1); pooled < 2; pooled++) {
    for (i = 0; i < count; i++)
      if (pooled) users[i].runner = igpt_pool_runner(pool);
    in_threads(user_main, args, count);
    for (i = 0; i < count; i++) {
      const paper *got = &users[i].out;
      CHECK(got->size == expected[i].size && !memcmp(got->data, expected[i].data, got->size));
    }
  }
  for (i = 0; i < count; i++) {
    free(expected[i].data);
    free(users[i].out.data);
  }
  igpt_pool_destroy(pool);
  shared_close(&all);
}

#else

TEST(threads_share_what_can_only_be_read) { SKIP("here are no threads, or no pages"); }

#endif

int main(void)
{
  materials();
  RUN(any_runner_gives_the_bits_of_a_plain_loop);
  RUN(threads_share_what_can_only_be_read);
  return test_done();
}
