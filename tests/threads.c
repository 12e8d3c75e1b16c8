/* cc -std=c99 -O2 -I. -o build/tests/threads tests/threads.c -lm -pthread

   The pool keeps the runner's contract: every index once, a worker number in range and never in use
   twice at a time, all done before `run` returns. Run it under -fsanitize=thread now and then: the
   counters below are plain integers on purpose, so that any call that overlaps another one with
   the same index or the same worker is a data race that the sanitizer sees.                      */

#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "test.h"

#ifdef IGPT_NO_THREADS

TEST(pool) { SKIP("built with IGPT_NO_THREADS"); }
int main(void) { RUN(pool); return test_done(); }

#else

#define MOST 4096
#define COUNT(array) (sizeof(array) / sizeof *(array))

typedef struct job {
  int seen[MOST];                 /* calls of each index */
  int inside[IGPT_MAX_WORKERS];   /* calls running under each worker number */
  long calls[IGPT_MAX_WORKERS];
  int wrong[IGPT_MAX_WORKERS];
  int workers;
  size_t count;
  int labour;                     /* turns of a loop in each task */
} job;

static void task(void *arg, size_t index, int worker)
{
  job *j = (job *)arg;
  volatile int labour;
  if (worker < 0 || worker >= j->workers || index >= j->count) {
    j->wrong[0]++;
    return;
  }
  if (j->inside[worker]++) j->wrong[worker]++;
  j->seen[index]++;
  j->calls[worker]++;
  for (labour = 0; labour < j->labour; labour++) {}
  if (--j->inside[worker]) j->wrong[worker]++;
}

static int every_index_once(const job *j)
{
  size_t i;
  long calls = 0;
  int w;
  for (i = 0; i < MOST; i++)
    if (j->seen[i] != (i < j->count)) return 0;
  for (w = 0; w < j->workers; w++) {
    if (j->wrong[w]) return 0;
    calls += j->calls[w];
  }
  return calls == (long)j->count;
}

static job shared_job;

TEST(every_index_exactly_once)
{
  static const int workers[] = { 1, 2, 3, 4, 7, 16, 64 };
  static const size_t counts[] = { 0, 1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 100, 1000, 4096 };
  size_t w, c, labour;
  for (w = 0; w < COUNT(workers); w++) {
    igpt_pool *pool = NULL;
    igpt_runner runner;
    CHECK_INT(igpt_pool_create(&pool, workers[w], NULL), IGPT_OK);
    if (!pool) continue;
    runner = igpt_pool_runner(pool);
    CHECK_INT(igpt__workers(&runner), workers[w]);
    for (c = 0; c < COUNT(counts); c++)
      for (labour = 0; labour < 2; labour++) {
        job *j = &shared_job;
        memset(j, 0, sizeof *j);
        j->workers = workers[w];
        j->count = counts[c];
        j->labour = labour ? 300 : 0;
        if (runner.run) runner.run(runner.user, task, j, j->count);
        else igpt__run(&runner, task, j, j->count);
        CHECK(every_index_once(j));
      }
    igpt_pool_destroy(pool);
  }
}

/* Runs so short that threads wake up for one and find the next: nobody may join a closed one. */
TEST(ten_thousand_tiny_runs)
{
  static const int workers[] = { 2, 3, 8 };
  size_t w;
  for (w = 0; w < COUNT(workers); w++) {
    igpt_pool *pool = NULL;
    igpt_runner runner;
    int turn, wrong = 0;
    CHECK_INT(igpt_pool_create(&pool, workers[w], NULL), IGPT_OK);
    if (!pool) continue;
    runner = igpt_pool_runner(pool);
    for (turn = 0; turn < 10000; turn++) {
      job *j = &shared_job;
      size_t i, count = (size_t)(turn % 9);
      for (i = 0; i < 9; i++) j->seen[i] = 0;
      j->workers = workers[w];
      j->count = count;
      j->labour = turn % 50;
      runner.run(runner.user, task, j, count);
      for (i = 0; i < 9; i++) wrong += j->seen[i] != (i < count);
    }
    for (turn = 0; turn < workers[w]; turn++) wrong += shared_job.wrong[turn];
    CHECK_INT(wrong, 0);
    igpt_pool_destroy(pool);
  }
}

/* A slow first task holds back nothing but itself: the other one of two workers takes the rest. */
typedef struct slow_job {
  igpt__shared others;            /* tasks done besides the first */
  size_t count;
  int ended;                      /* the first task saw all the others done */
} slow_job;

static void slow_task(void *arg, size_t index, int worker)
{
  slow_job *j = (slow_job *)arg;
  (void)worker;
  if (index) igpt__shared_next(&j->others);
  else {
    while (igpt__shared_get(&j->others) + 1 < j->count) {}       /* hangs if they were dealt out */
    j->ended = 1;
  }
}

TEST(a_slow_task_does_not_hold_back_the_rest)
{
  igpt_pool *pool = NULL;
  igpt_runner runner;
  slow_job j;
  CHECK_INT(igpt_pool_create(&pool, 2, NULL), IGPT_OK);
  if (!pool) return;
  runner = igpt_pool_runner(pool);
  memset(&j, 0, sizeof j);
  j.count = 500;
  runner.run(runner.user, slow_task, &j, j.count);
  CHECK_INT(j.ended, 1);
  CHECK_INT(igpt__shared_get(&j.others), 499);
  igpt_pool_destroy(pool);
}

/* Two callers with one pool take turns: the outer pool's workers are the callers. */
typedef struct both {
  igpt_runner runner;
  job jobs[2];
} both;

static both shared_both;

static void caller(void *arg, size_t index, int worker)
{
  both *b = (both *)arg;
  job *j = &b->jobs[index];
  int turn;
  (void)worker;
  for (turn = 0; turn < 300; turn++) {
    memset(j, 0, sizeof *j);
    j->workers = 3;
    j->count = 40;
    b->runner.run(b->runner.user, task, j, j->count);
    if (!every_index_once(j)) return;
  }
  j->labour = -1;                 /* all was well */
}

TEST(two_callers_take_turns)
{
  igpt_pool *inner = NULL, *outer = NULL;
  igpt_runner runner;
  CHECK_INT(igpt_pool_create(&inner, 3, NULL), IGPT_OK);
  CHECK_INT(igpt_pool_create(&outer, 2, NULL), IGPT_OK);
  if (inner && outer) {
    shared_both.runner = igpt_pool_runner(inner);
    runner = igpt_pool_runner(outer);
    runner.run(runner.user, caller, &shared_both, 2);
    CHECK_INT(shared_both.jobs[0].labour, -1);
    CHECK_INT(shared_both.jobs[1].labour, -1);
  }
  igpt_pool_destroy(outer);
  igpt_pool_destroy(inner);
}

/* ---- create and destroy --------------------------------------------------------------------- */

typedef struct meter {
  int calls, fail_at;             /* the call that fails, from 1; 0: none */
  size_t given, taken;
} meter;

static void *meter_alloc(void *user, size_t bytes)
{
  meter *m = (meter *)user;
  if (++m->calls == m->fail_at) return NULL;
  m->given += bytes;
  return malloc(bytes);
}

static void meter_free(void *user, void *block, size_t bytes)
{
  ((meter *)user)->taken += bytes;
  free(block);
}

TEST(create_and_destroy)
{
  igpt_pool *pool;
  igpt_allocator allocator;
  igpt_runner runner;
  meter m;
  int turn;
  memset(&m, 0, sizeof m);
  allocator.alloc = meter_alloc;
  allocator.free = meter_free;
  allocator.user = &m;

  for (turn = 0; turn < 50; turn++) {           /* threads that never saw any work end too */
    CHECK_INT(igpt_pool_create(&pool, 4, &allocator), IGPT_OK);
    igpt_pool_destroy(pool);
  }
  CHECK_INT(m.calls, 50);
  CHECK(m.given == m.taken && m.given > 0);

  m.calls = 0;
  m.fail_at = 1;
  pool = (igpt_pool *)&m;
  CHECK_INT(igpt_pool_create(&pool, 4, &allocator), IGPT_OUT_OF_MEMORY);
  CHECK(pool == NULL);
  CHECK(m.given == m.taken);

  CHECK_INT(igpt_pool_create(NULL, 4, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_pool_create(&pool, -1, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_pool_create(&pool, IGPT_MAX_WORKERS + 1, NULL), IGPT_BAD_ARGUMENT);
  CHECK(pool == NULL);
  allocator.free = NULL;
  CHECK_INT(igpt_pool_create(&pool, 2, &allocator), IGPT_BAD_ARGUMENT);
  CHECK(pool == NULL);

  CHECK_INT(igpt_pool_create(&pool, 0, NULL), IGPT_OK);     /* one a processor */
  runner = igpt_pool_runner(pool);
  CHECK(igpt__workers(&runner) >= 1 && igpt__workers(&runner) <= IGPT_MAX_WORKERS);
  CHECK_INT(igpt__workers(&runner), igpt__processors());
  igpt_pool_destroy(pool);

  igpt_pool_destroy(NULL);
  runner = igpt_pool_runner(NULL);              /* the plain loop */
  CHECK(runner.run == NULL);
  memset(&shared_job, 0, sizeof shared_job);
  shared_job.workers = 1;
  shared_job.count = 10;
  igpt__run(&runner, task, &shared_job, 10);
  CHECK(every_index_once(&shared_job));
}

int main(void)
{
  RUN(every_index_exactly_once);
  RUN(ten_thousand_tiny_runs);
  RUN(a_slow_task_does_not_hold_back_the_rest);
  RUN(two_callers_take_turns);
  RUN(create_and_destroy);
  return test_done();
}

#endif
