/* part.h: what the tests of single parts share: arrays with an inaccessible page behind them,
   runners that call tasks in unkind orders, numbers to compute with, small models, a log, a
   counting allocator and paper. Include after igpt.h.                                            */

#ifndef PART_H
#define PART_H

#include "test.h"
#include <float.h>
#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#define PART_PAGES 1
#else
#define PART_PAGES 0
#endif

/* ---- arrays --------------------------------------------------------------------------------- */

/* The last byte of the array is the last of a page, and the page behind it cannot be touched:
   reading or writing too far stops the program. In front there are canaries. Since the end is what
   is aligned, the start has any alignment, depending on the length. */
typedef struct part_head {
  char  *base;
  size_t bytes, front;
} part_head;

static inline void *part_new(size_t bytes)
{
  const size_t canaries = 128;
  part_head head;
  char *data;
#if PART_PAGES
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t body = (bytes + canaries + sizeof head + page - 1) / page * page;
  head.bytes = body + page;
  head.base = (char *)mmap(NULL, head.bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (head.base == (char *)MAP_FAILED || mprotect(head.base + body, page, PROT_NONE)) exit(2);
  head.front = body - bytes;
#else
  head.bytes = sizeof head + canaries + bytes;
  head.base = (char *)malloc(head.bytes);
  if (!head.base) exit(2);
  head.front = sizeof head + canaries;
#endif
  data = head.base + head.front;
  memset(data - canaries, 0xa5, canaries);
  memcpy(data - canaries - sizeof head, &head, sizeof head);
  return data;
}

static inline float *part_floats(size_t count) { return (float *)part_new(count * sizeof(float)); }

/* Checks the canaries and gives the memory back. */
static inline void part_free(void *array)
{
  const size_t canaries = 128;
  char *data = (char *)array;
  part_head head;
  size_t i;
  memcpy(&head, data - canaries - sizeof head, sizeof head);
  for (i = 1; i <= canaries; i++) CHECK((unsigned char)data[-(ptrdiff_t)i] == 0xa5);
#if PART_PAGES
  munmap(head.base, head.bytes);
#else
  free(head.base);
#endif
}

/* ---- numbers -------------------------------------------------------------------------------- */

/* n numbers uniform in [-size, size), the same for the same stream */
static inline void part_fill(float *x, size_t n, float size, uint64_t stream)
{
  igpt_rng rng = igpt_rng_seed(2024, stream);
  size_t i;
  for (i = 0; i < n; i++) x[i] = size * (2 * igpt_rng_uniform(&rng) - 1);
}

static inline float *part_random(size_t n, float size, uint64_t stream)
{
  float *x = part_floats(n);
  part_fill(x, n, size, stream);
  return x;
}

static inline float *part_copy(const float *x, size_t n)
{
  float *y = part_floats(n);
  memcpy(y, x, n * sizeof(float));
  return y;
}

static inline int part_same(const void *a, const void *b, size_t floats)
{
  return memcmp(a, b, floats * sizeof(float)) == 0;
}

/* ---- runners -------------------------------------------------------------------------------- */

/* One thread in the guise of many: tasks in ascending (0), descending (1) or shuffled (2) order,
   each with a worker number that has nothing to do with its index. */
typedef struct part_runner {
  int workers, order;
} part_runner;

static inline void part_run(void *user, igpt_task *task, void *arg, size_t count)
{
  const part_runner *r = (const part_runner *)user;
  uint32_t *order = (uint32_t *)malloc(count * sizeof *order);
  igpt_rng rng = igpt_rng_seed(7, count);
  size_t i;
  if (!order) exit(2);
  for (i = 0; i < count; i++) order[i] = (uint32_t)(r->order == 1 ? count - 1 - i : i);
  if (r->order == 2) igpt_rng_shuffle(&rng, order, count);
  for (i = 0; i < count; i++)
    task(arg, order[i], (int)(igpt_rng_next(&rng) % (uint32_t)r->workers));
  free(order);
}

/* ---- what matmul and attention need --------------------------------------------------------- */

#ifdef IGPT_IMPLEMENTATION

typedef struct part_math {
  igpt__math math;
  part_runner runner;
  float *shared, *worker;
  size_t shared_floats, worker_floats;
} part_math;

/* Memory of exactly the sizes that the parts ask for, all of it NaN: whatever is read before it is
   written shows. */
static inline void part_math_open(part_math *m, igpt_isa isa, size_t shared, size_t worker,
                                  int workers, int order, int round)
{
  memset(m, 0, sizeof *m);
  m->runner.workers = workers;
  m->runner.order = order;
  m->math.kernels = igpt_kernels_for(isa);
  m->math.runner.run = part_run;
  m->math.runner.user = &m->runner;
  m->math.runner.workers = workers;
  m->math.round = round;
  m->math.worker_floats = (worker + 15) / 16 * 16;
  m->math.shared = m->shared = part_floats((shared + 15) / 16 * 16);
  m->math.worker = m->worker = part_floats(m->math.worker_floats * (size_t)workers);
  memset(m->shared, 0xff, (shared + 15) / 16 * 16 * sizeof(float));
  memset(m->worker, 0xff, m->math.worker_floats * (size_t)workers * sizeof(float));
}

static inline void part_math_close(part_math *m)
{
  part_free(m->shared);
  part_free(m->worker);
}

#endif /* IGPT_IMPLEMENTATION */

/* ---- small models ---------------------------------------------------------------------------- */

static inline igpt_config config_of(int layers, int heads, int width, int rows, int columns,
                                    int vocabulary)
{
  igpt_config config;
  memset(&config, 0, sizeof config);
  config.layers = layers;
  config.heads = heads;
  config.width = width;
  config.rows = rows;
  config.columns = columns;
  config.vocabulary = vocabulary;
  return config;
}

/* Weights that say something, the class head's too. */
static inline void part_weights(igpt_model *model)
{
  size_t t, i;
  for (t = 0; t < igpt_model_tensors(model); t++) {
    igpt_tensor tensor;
    igpt_model_tensor_at(model, &tensor, t);
    part_fill(tensor.data, tensor.count, 0.3f, t);
    for (i = 0; tensor.rank == 1 && i < tensor.count; i++) tensor.data[i] += 1;
  }
}

/* ---- what the library tells and takes -------------------------------------------------------- */

/* Products in bfloat16 on tiles or by dot products, whose bits are their own */
static inline int part_tiles(igpt_isa isa)
{
  return isa == IGPT_ISA_AMX || isa == IGPT_ISA_AVX512_BF16;
}

/* The last sentence of the log. */
typedef struct heard {
  igpt_result result;
  int lines;
  char text[400];
} heard;

static inline void hear(void *user, igpt_result result, const char *sentence)
{
  heard *h = (heard *)user;
  h->result = result;
  h->lines++;
  strncpy(h->text, sentence, sizeof h->text - 1);
}

/* A poll that says stop when it is asked for the `enough`-th time; what is done never goes back,
   and its longest leap is kept. A new call begins with asked = 0. */
typedef struct patience {
  int asked, enough;
  double last, leap;
} patience;

static inline int poll_patience(void *user, double done)
{
  patience *p = (patience *)user;
  const double before = p->asked ? p->last : 0;
  CHECK(done >= before - 1e-9 && done <= 1);
  p->leap = !p->asked || done - before > p->leap ? done - before : p->leap;
  p->last = done;
  return ++p->asked >= p->enough;
}

/* An allocator that counts, and that fails at call number `fail_at`, or from then on. Sizes that
   come back are those that went out. */
typedef struct purse {
  int calls, fail_at, lasting;
  size_t held;
} purse;

/* Whether the call that is made now fails. */
static inline int purse_refuses(purse *p)
{
  const int call = p->calls++;
  return call == p->fail_at || (p->lasting && p->fail_at >= 0 && call > p->fail_at);
}

static inline void *purse_alloc(void *user, size_t bytes)
{
  purse *p = (purse *)user;
  const size_t head = 16;                   /* the size, which `free` must know */
  char *block;
  if (purse_refuses(p)) return NULL;
  block = (char *)malloc(head + bytes);
  if (!block) return NULL;
  memcpy(block, &bytes, sizeof bytes);
  memset(block + head, 0xff, bytes);        /* NaN: what is read before it is written shows */
  p->held += bytes;
  return block + head;
}

static inline void purse_free(void *user, void *block, size_t bytes)
{
  const size_t head = 16;
  size_t given;
  memcpy(&given, (char *)block - head, sizeof given);
  CHECK_INT(bytes, given);
  ((purse *)user)->held -= bytes;
  free((char *)block - head);
}

static inline igpt_allocator purse_allocator(purse *p)
{
  igpt_allocator a;
  memset(p, 0, sizeof *p);
  p->fail_at = -1;
  a.alloc = purse_alloc;
  a.free = purse_free;
  a.user = p;
  return a;
}

/* ---- paper ----------------------------------------------------------------------------------- */

/* A file in memory: a sink that appends and a source that reads, of whose calls number `fail_at`
   fails. */
typedef struct paper {
  char *data;
  size_t size, room;
  int calls, fail_at;             /* from 1; 0: none */
} paper;

static inline int paper_write(void *user, const void *from, size_t bytes)
{
  paper *p = (paper *)user;
  if (++p->calls == p->fail_at) return 1;
  if (p->size + bytes > p->room) {
    p->room = 2 * (p->size + bytes);
    p->data = (char *)realloc(p->data, p->room);
    if (!p->data) exit(2);
  }
  if (bytes) memcpy(p->data + p->size, from, bytes);
  p->size += bytes;
  return 0;
}

static inline int paper_read(void *user, uint64_t offset, void *to, size_t bytes)
{
  paper *p = (paper *)user;
  if (++p->calls == p->fail_at) return 1;
  if (offset > p->size || bytes > p->size - offset) return 1;
  memcpy(to, p->data + offset, bytes);
  return 0;
}

static inline igpt_sink paper_sink(paper *p)
{
  igpt_sink sink;
  sink.write = paper_write;
  sink.user = p;
  return sink;
}

static inline igpt_source paper_source(paper *p)
{
  igpt_source source;
  memset(&source, 0, sizeof source);
  source.read = paper_read;
  source.user = p;
  source.size = p->size;
  return source;
}

static inline int paper_same(const paper *a, const paper *b)
{
  return a->size == b->size && (a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

static inline void paper_clear(paper *p)
{
  free(p->data);
  memset(p, 0, sizeof *p);
}

/* The file at `path`; 0 if there is none. A device that never ends is cut short. */
static inline int paper_load(paper *p, const char *path)
{
  char buffer[4096];
  size_t n;
  FILE *file = fopen(path, "rb");
  paper_clear(p);
  if (!file) return 0;
  while (p->size < 1000000 && (n = fread(buffer, 1, sizeof buffer, file)) > 0)
    paper_write(p, buffer, n);
  fclose(file);
  return 1;
}

#endif
