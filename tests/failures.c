/* cc -std=c99 -O2 -I. -o build/tests/failures tests/failures.c -lm -pthread

   The host fails at every point. Whatever asks it for memory, bytes, files or threads is called
   again and again, so that its first, its second, its third ... request fails, that one alone or
   all from then on, until the call gets to its end. Each time there is a code and a sentence, what
   was taken has been given back, model and session are to the bit what they were and go on to
   compute the same, and a file is the old one or the new one. A run that is killed at any of these
   points goes on from its checkpoint to the same bits.                                           */

#define _DEFAULT_SOURCE

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__unix__) || defined(__APPLE__)
#define POSIX 1
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#ifndef IGPT_NO_THREADS
#include <pthread.h>
#endif
#else
#define POSIX 0
#endif

/* ---- the system's calls, any of which may fail ----------------------------------------------- */

enum { MEMORY = 1, READING = 2, WRITING = 4, STARTING = 8 };

/* Asked before each of them: 1 if it fails. */
static int refused(int kind);
static int files_open;

static int with_reason(int reason) { errno = reason; return -1; }

static FILE *host_fopen(const char *path, const char *mode)
{
  FILE *file = NULL;
  if (refused(mode[0] == 'w' ? WRITING : READING)) with_reason(EACCES);
  else file = fopen(path, mode);
  files_open += file != NULL;
  return file;
}

/* Which of these the library calls is a matter of the system. */
#if defined(_WIN32)
typedef __int64 host_offset;
#define HOST_SEEK _fseeki64
#define HOST_TELL _ftelli64
#elif POSIX
typedef off_t host_offset;
#define HOST_SEEK fseeko
#define HOST_TELL ftello
#else
typedef long host_offset;
#define HOST_SEEK fseek
#define HOST_TELL ftell
#endif

static int host_fseek(FILE *file, host_offset offset, int whence)
{
  return refused(READING) ? with_reason(EIO) : HOST_SEEK(file, offset, whence);
}

static host_offset host_ftell(FILE *file)
{
  return refused(READING) ? with_reason(EIO) : HOST_TELL(file);
}

static size_t host_fread(void *to, size_t size, size_t count, FILE *file)
{
  const size_t had = fread(to, size, count, file);
  return refused(READING) ? (with_reason(EIO), had / 2) : had;
}

/* A full disk takes a part. */
static FILE *written_last;
static int write_failed;
static int flushed;               /* to the disk, all that was written ... */
static int renamed_unflushed;     /* ... before it took its name */
static size_t disk_room = SIZE_MAX;
static size_t host_fwrite(const void *from, size_t size, size_t count, FILE *file)
{
  size_t fit = size && disk_room / size < count ? disk_room / size : count, done;
  if (file != written_last) write_failed = 0;
  flushed = 0;
  written_last = file;
  if (refused(WRITING)) fit /= 2;
  done = fwrite(from, size, fit, file);
  disk_room -= disk_room == SIZE_MAX ? 0 : size * done;
  if (done < count) write_failed = done < fit ? -1 : with_reason(ENOSPC);
  return done;
}

static int host_ferror(FILE *file) { return ferror(file) || write_failed; }

static int host_fflush(FILE *file) { return refused(WRITING) ? with_reason(ENOSPC) : fflush(file); }

/* Whatever it returns, the file is closed. Files that were read are closed in peace. */
static int host_fclose(FILE *file)
{
  const int wrong = file == written_last && refused(WRITING);
  files_open--;
  written_last = NULL;
  return (fclose(file) != 0) | wrong ? with_reason(EIO) : 0;
}

static int host_remove(const char *path);

#if POSIX
static int host_open(const char *path, int flags)
{
  const int file = refused(WRITING) ? with_reason(EMFILE) : open(path, flags);
  files_open += file >= 0;
  return file;
}

/* The disk itself is not in question here, and would take its time. */
static int host_fsync(int file)
{
  if (refused(WRITING)) return with_reason(EIO);
  flushed = file >= 0;
  return 0;
}

static int host_close(int file)
{
  const int wrong = refused(WRITING);
  files_open--;
  return (close(file) != 0) | wrong ? with_reason(EIO) : 0;
}

static int host_rename(const char *from, const char *to)
{
  if (!flushed) renamed_unflushed++;
  return refused(WRITING) ? with_reason(EROFS) : rename(from, to);
}

#define open host_open
#define close host_close
#define fsync host_fsync
#define rename host_rename

#ifndef IGPT_NO_THREADS
static int things_open;           /* threads, mutexes, conditions */

static int host_start(pthread_t *thread, const pthread_attr_t *how, void *(*body)(void *),
                      void *arg)
{
  const int wrong = refused(STARTING) ? EAGAIN : pthread_create(thread, how, body, arg);
  things_open += !wrong;
  return wrong;
}

static int host_join(pthread_t thread, void **result)
{
  things_open--;
  return pthread_join(thread, result);
}

static int host_mutex(pthread_mutex_t *mutex, const pthread_mutexattr_t *how)
{
  const int wrong = refused(STARTING) ? ENOMEM : pthread_mutex_init(mutex, how);
  things_open += !wrong;
  return wrong;
}

static int host_mutex_end(pthread_mutex_t *mutex)
{
  things_open--;
  return pthread_mutex_destroy(mutex);
}

static int host_condition(pthread_cond_t *condition, const pthread_condattr_t *how)
{
  const int wrong = refused(STARTING) ? EAGAIN : pthread_cond_init(condition, how);
  things_open += !wrong;
  return wrong;
}

static int host_condition_end(pthread_cond_t *condition)
{
  things_open--;
  return pthread_cond_destroy(condition);
}

#define pthread_create host_start
#define pthread_join host_join
#define pthread_mutex_init host_mutex
#define pthread_mutex_destroy host_mutex_end
#define pthread_cond_init host_condition
#define pthread_cond_destroy host_condition_end
#endif
#endif /* POSIX */

#define fopen host_fopen
#define fseek host_fseek
#define fseeko host_fseek
#define _fseeki64 host_fseek
#define ftell host_ftell
#define ftello host_ftell
#define _ftelli64 host_ftell
#define fread host_fread
#define fwrite host_fwrite
#define fflush host_fflush
#define ferror host_ferror
#define fclose host_fclose
#define remove host_remove
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#undef fopen
#undef fseek
#undef fseeko
#undef _fseeki64
#undef ftell
#undef ftello
#undef _ftelli64
#undef fread
#undef fwrite
#undef fflush
#undef ferror
#undef fclose
#undef remove
#undef open
#undef close
#undef fsync
#undef rename
#include "part.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- the host -------------------------------------------------------------------------------- */

/* One count for requests of all kinds. */
static struct {
  purse purse;
  int failed;                     /* the kind of the first that failed; 0: none has */
  int late;                       /* writes after one that failed */
  int killed_at;                  /* the request at which the program ends; -1: none */
  heard heard;
} host = { { 0, -1, 0, 0 }, 0, 0, -1, { IGPT_OK, 0, "" } };

static int refused(int kind)
{
#if POSIX
  if (host.purse.calls == host.killed_at) {
    if (written_last) fflush(written_last);     /* as much as there is may have reached the disk */
    kill(getpid(), SIGKILL);
  }
#endif
  if (!purse_refuses(&host.purse)) return 0;
  if (!host.failed) host.failed = kind;
  return 1;
}

/* Cleaning up is no request; but where nothing works any more, it does not either. */
static int host_remove(const char *path)
{
  return host.failed && host.purse.lasting ? with_reason(EROFS) : remove(path);
}

static void host_fails(int at, int lasting)
{
  host.purse.calls = 0;
  host.purse.fail_at = at;
  host.purse.lasting = lasting;
  host.failed = host.late = 0;
  memset(&host.heard, 0, sizeof host.heard);
}

static void *host_alloc(void *user, size_t bytes)
{
  void *block = purse_alloc(user, bytes);
  if (!block && !host.failed) host.failed = MEMORY;
  return block;
}

static igpt_allocator host_memory(void)
{
  igpt_allocator allocator;
  allocator.alloc = host_alloc;
  allocator.free = purse_free;
  allocator.user = &host.purse;
  return allocator;
}

static igpt_log host_log(void)
{
  igpt_log log;
  log.line = hear;
  log.user = &host.heard;
  return log;
}

/* Files in memory, of which each write and read is a request. */
static int host_write(void *user, const void *from, size_t count)
{
  if (host.failed) host.late++;
  return refused(WRITING) ? 1 : paper_write(user, from, count);
}

static int host_read(void *user, uint64_t offset, void *to, size_t count)
{
  return refused(READING) ? 1 : paper_read(user, offset, to, count);
}

static igpt_sink host_sink(paper *p)
{
  igpt_sink sink = paper_sink(p);
  sink.write = host_write;
  return sink;
}

static igpt_source host_source(paper *p)
{
  igpt_source source = paper_source(p);
  source.read = host_read;
  return source;
}

/* ---- a small world --------------------------------------------------------------------------- */

enum { T = 16, V = 5, K = 2, C = 8, N = 3, PIXELS = 2200, ROWS = 40, D = 3 };

#define PATH "build/tests/failures.file"
#define TEMPORARY PATH ".tmp"

typedef struct world {
  igpt_model *model;
  igpt_session *session;
} world;

static uint16_t tokens[N * T];
static uint8_t rgb[3 * PIXELS];
static float x[ROWS * D];
static int32_t labels[ROWS];
static igpt_palette palette;
static paper model_file, checkpoint_file, npy_file, old_file;

static igpt_model_desc model_desc(void)
{
  igpt_model_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.config.layers = 1;
  desc.config.heads = 2;
  desc.config.width = C;
  desc.config.rows = desc.config.columns = 4;
  desc.config.vocabulary = V;
  desc.config.classes = K;
  desc.seed = 3;
  desc.allocator = host_memory();
  desc.log = host_log();
  return desc;
}

static igpt_session_desc session_desc(void)
{
  igpt_session_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.batch = 2;
  desc.train = 1;
  desc.allocator = host_memory();
  desc.log = host_log();
  return desc;
}

static igpt_batch batch_of(void)
{
  igpt_batch batch;
  memset(&batch, 0, sizeof batch);
  batch.tokens = tokens;
  batch.labels = labels;
  batch.count = N;
  return batch;
}

static igpt_result step(world *w, paper *out)
{
  const igpt_batch batch = batch_of();
  igpt_adam_desc adam;
  igpt_losses losses;
  double norm = 0;
  igpt_result result = igpt_backward(w->session, &losses, &batch, NULL);
  memset(&adam, 0, sizeof adam);
  adam.rate = 0.01f;
  if (!result) result = igpt_step(w->session, w->model, &norm, &adam);
  if (!result) paper_write(out, &losses.total, sizeof losses.total);
  if (!result) paper_write(out, &norm, sizeof norm);
  return result;
}

/* All that a session computes, which asks for nothing. */
static igpt_result look(world *w, paper *out)
{
  static const int depths[] = { 1, 0 };
  const igpt_batch batch = batch_of();
  float logits[N * T * V], nats[N * T], classes[N * K], features[N * 2 * C], map[N * T * T];
  uint16_t drawn[N * T];
  igpt_result result = igpt_forward(w->session, logits, &batch);
  memcpy(drawn, tokens, sizeof drawn);
  if (!result) result = igpt_nll(w->session, nats, NULL, &batch);
  if (!result) result = igpt_classify(w->session, classes, &batch);
  if (!result) result = igpt_features(w->session, features, &batch, depths, 2);
  if (!result) result = igpt_attention_map(w->session, map, &batch, 0, 1);
  if (!result) result = igpt_sample(w->session, drawn, N, NULL);
  if (result) return result;
  paper_write(out, logits, sizeof logits);
  paper_write(out, nats, sizeof nats);
  paper_write(out, classes, sizeof classes);
  paper_write(out, features, sizeof features);
  paper_write(out, map, sizeof map);
  paper_write(out, drawn, sizeof drawn);
  return result;
}

/* Everything that a later call could depend on. */
static void state_of(paper *out, const world *w)
{
  const igpt_sink sink = paper_sink(out);
  float *gradient = NULL;
  size_t count = 0, pictures = 0;
  CHECK_INT(igpt_checkpoint_write(w->session, w->model, NULL, &sink), IGPT_OK);
  CHECK_INT(igpt_gradients(w->session, &gradient, &count, &pictures), IGPT_OK);
  paper_write(out, gradient, count * sizeof *gradient);
  paper_write(out, &pictures, sizeof pictures);
}

static world world_open(int steps)
{
  igpt_model_desc model = model_desc();
  igpt_session_desc session = session_desc();
  paper losses = { 0 };
  world w;
  CHECK_INT(igpt_model_create(&w.model, &model), IGPT_OK);
  CHECK_INT(igpt_session_create(&w.session, w.model, &session), IGPT_OK);
  if (!w.session) exit(2);
  while (steps--) CHECK_INT(step(&w, &losses), IGPT_OK);
  paper_clear(&losses);
  return w;
}

static void world_close(world *w)
{
  igpt_session_destroy(w->session);
  igpt_model_destroy(w->model);
}

static void write_file(const char *path, const paper *b)
{
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(b->data, 1, b->size, file) != b->size || fclose(file)) exit(2);
}

static void prepare(void)
{
  igpt_rng rng = igpt_rng_seed(1, 1);
  igpt_kmeans_desc few;
  paper losses = { 0 };
  const uint64_t shape[] = { ROWS, D };
  igpt_sink sink;
  world w;
  size_t i;
  remove(PATH);                                 /* what a run that was stopped left */
  remove(TEMPORARY);
  for (i = 0; i < N * T; i++) tokens[i] = (uint16_t)igpt_rng_below(&rng, V);
  for (i = 0; i < 3 * PIXELS; i++) rgb[i] = (uint8_t)igpt_rng_below(&rng, 256);
  for (i = 0; i < ROWS * D; i++) x[i] = igpt_rng_normal(&rng);
  for (i = 0; i < ROWS; i++) labels[i] = (int32_t)(i % K);
  memset(&few, 0, sizeof few);
  few.colours = V;
  few.max_iterations = 3;
  CHECK_INT(igpt_palette_fit(&palette, NULL, rgb, PIXELS, &few), IGPT_OK);
  w = world_open(5);
  sink = paper_sink(&model_file);
  CHECK_INT(igpt_model_write(w.model, &sink), IGPT_OK);
  sink = paper_sink(&checkpoint_file);
  CHECK_INT(igpt_checkpoint_write(w.session, w.model, NULL, &sink), IGPT_OK);
  sink = paper_sink(&npy_file);
  CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, x, 2, shape), IGPT_OK);
  paper_write(&old_file, "an older file", 13);
  world_close(&w);
  paper_clear(&losses);
}

/* ---- what asks the host ---------------------------------------------------------------------- */

/* Each does its work once and adds what came out to `out`, if it succeeded. */

static igpt_result create_model(world *w, paper *out)
{
  igpt_model_desc desc = model_desc();
  igpt_model *model = w->model;
  const igpt_result result = igpt_model_create(&model, &desc);
  igpt_sink sink = paper_sink(out);
  CHECK((model == NULL) == (result != IGPT_OK));
  if (model) CHECK_INT(igpt_model_write(model, &sink), IGPT_OK);
  igpt_model_destroy(model);
  return result;
}

static igpt_result create_session(world *w, paper *out)
{
  igpt_session_desc desc = session_desc();
  world other = *w;
  const igpt_result result = igpt_session_create(&other.session, w->model, &desc);
  CHECK((other.session == NULL) == (result != IGPT_OK));
  if (other.session) CHECK_INT(look(&other, out), IGPT_OK);
  igpt_session_destroy(other.session);
  return result;
}

static igpt_result read_model(world *w, paper *out)
{
  igpt_model_desc desc = model_desc();
  igpt_source source = host_source(&model_file);
  igpt_sink sink = paper_sink(out);
  igpt_model *model = w->model;
  igpt_result result;
  memset(&desc.config, 0, sizeof desc.config);
  result = igpt_model_read(&model, &source, &desc);
  CHECK((model == NULL) == (result != IGPT_OK));
  if (model) CHECK_INT(igpt_model_write(model, &sink), IGPT_OK);
  igpt_model_destroy(model);
  return result;
}

static igpt_result write_by(igpt_result (*write)(const igpt_model *, const igpt_sink *), world *w,
                            paper *out)
{
  paper part = { 0 };
  igpt_sink sink = host_sink(&part);
  const igpt_result result = write(w->model, &sink);
  if (!result) paper_write(out, part.data, part.size);
  CHECK_INT(host.late, 0);
  paper_clear(&part);
  return result;
}

static igpt_result write_model(world *w, paper *out) { return write_by(igpt_model_write, w, out); }

static igpt_result write_model_bf16(world *w, paper *out)
{
  return write_by(igpt_model_write_bf16, w, out);
}

static igpt_result read_checkpoint(world *w, paper *out)
{
  igpt_source source = host_source(&checkpoint_file);
  igpt_progress progress, untouched;
  igpt_result result;
  memset(&untouched, 0x5a, sizeof untouched);
  progress = untouched;
  result = igpt_checkpoint_read(w->session, w->model, &progress, &source);
  if (result) CHECK(memcmp(&progress, &untouched, sizeof progress) == 0);
  else paper_write(out, &progress, sizeof progress);
  return result;
}

static igpt_result write_checkpoint(world *w, paper *out)
{
  paper part = { 0 };
  igpt_sink sink = host_sink(&part);
  const igpt_result result = igpt_checkpoint_write(w->session, w->model, NULL, &sink);
  if (!result) paper_write(out, part.data, part.size);
  CHECK_INT(host.late, 0);
  paper_clear(&part);
  return result;
}

static igpt_result fit_palette(world *w, paper *out)
{
  igpt_kmeans_desc desc;
  igpt_palette fitted, untouched;
  igpt_result result;
  (void)w;
  memset(&desc, 0, sizeof desc);
  memset(&untouched, 0x5a, sizeof untouched);
  fitted = untouched;
  desc.colours = 9;
  desc.max_iterations = 2;
  desc.allocator = host_memory();
  desc.log = host_log();
  result = igpt_palette_fit(&fitted, NULL, rgb, PIXELS, &desc);
  if (result) CHECK(memcmp(&fitted, &untouched, sizeof fitted) == 0);
  else paper_write(out, &fitted, sizeof fitted);
  return result;
}

/* So many pixels that a table is wanted. */
static igpt_result encode(world *w, paper *out)
{
  enum { MANY = 260 };
  igpt_encode_desc desc;
  uint8_t *many = (uint8_t *)malloc(MANY * sizeof rgb);
  uint16_t *encoded = (uint16_t *)malloc(MANY * PIXELS * sizeof *encoded);
  igpt_result result;
  size_t i;
  (void)w;
  if (!many || !encoded) exit(2);
  for (i = 0; i < MANY * sizeof rgb; i++) many[i] = (uint8_t)(rgb[i % sizeof rgb] + i / 7);
  memset(&desc, 0, sizeof desc);
  desc.allocator = host_memory();
  desc.log = host_log();
  result = igpt_palette_encode(&palette, encoded, many, MANY * PIXELS, &desc);
  if (!result) paper_write(out, encoded, MANY * PIXELS * sizeof *encoded);
  free(encoded);
  free(many);
  return result;
}

static igpt_result fit_probe(paper *out, igpt_probe_method method)
{
  igpt_probe_desc desc;
  igpt_probe *probe = (igpt_probe *)&desc;
  igpt_probe_report report, untouched;
  igpt_result result;
  memset(&desc, 0, sizeof desc);
  memset(&untouched, 0x5a, sizeof untouched);
  report = untouched;
  desc.method = method;
  desc.max_iterations = 5;
  desc.epochs = 2;
  desc.standardise = 1;
  desc.allocator = host_memory();
  desc.log = host_log();
  result = igpt_probe_fit(&probe, &report, x, labels, ROWS, D, &desc);
  CHECK((probe == NULL) == (result != IGPT_OK));
  if (result) {
    CHECK(memcmp(&report, &untouched, sizeof report) == 0);
  } else {
    float probability[ROWS * K];
    CHECK_INT(igpt_probe_predict(probe, NULL, probability, x, ROWS), IGPT_OK);
    paper_write(out, probability, sizeof probability);
  }
  igpt_probe_destroy(probe);
  return result;
}

static igpt_result fit_by_lbfgs(world *w, paper *out)
{
  (void)w;
  return fit_probe(out, IGPT_LBFGS);
}

static igpt_result fit_by_sgd(world *w, paper *out)
{
  (void)w;
  return fit_probe(out, IGPT_SGD);
}

static igpt_result open_npy(world *w, paper *out)
{
  igpt_source source = host_source(&npy_file);
  igpt_log log = host_log();
  igpt_npy npy, untouched;
  igpt_result result;
  (void)w;
  memset(&untouched, 0x5a, sizeof untouched);
  npy = untouched;
  result = igpt_npy_open(&npy, &source, &log);
  if (result) CHECK(memcmp(&npy, &untouched, sizeof npy) == 0);
  else paper_write(out, &npy.count, sizeof npy.count);
  return result;
}

static igpt_result read_npy(world *w, paper *out)
{
  igpt_source source = host_source(&npy_file);
  igpt_npy npy;
  float values[ROWS * D];
  igpt_result result;
  (void)w;
  source.memory = npy_file.data;                /* the header is not in question here */
  CHECK_INT(igpt_npy_open(&npy, &source, NULL), IGPT_OK);
  source.memory = NULL;
  result = igpt_npy_read_f32(&npy, values, 0, ROWS * D, &source);
  if (!result) paper_write(out, values, sizeof values);
  return result;
}

static igpt_result write_npy(world *w, paper *out)
{
  const uint64_t shape[] = { ROWS, D };
  paper part = { 0 };
  igpt_sink sink = host_sink(&part);
  const igpt_result result = igpt_npy_write(&sink, IGPT_NPY_F32, x, 2, shape);
  (void)w;
  if (!result) paper_write(out, part.data, part.size);
  CHECK_INT(host.late, 0);
  paper_clear(&part);
  return result;
}

static igpt_result load_model(world *w, paper *out)
{
  igpt_model_desc desc = model_desc();
  igpt_sink sink = paper_sink(out);
  igpt_model *model = w->model;
  igpt_result result;
  memset(&desc.config, 0, sizeof desc.config);
  result = igpt_model_load(&model, PATH, &desc);
  CHECK((model == NULL) == (result != IGPT_OK));
  if (model) CHECK_INT(igpt_model_write(model, &sink), IGPT_OK);
  igpt_model_destroy(model);
  return result;
}

static igpt_result save_model(world *w, paper *out)
{
  const igpt_result result = igpt_model_save(w->model, PATH);
  if (!result) CHECK(paper_load(out, PATH));
  return result;
}

static igpt_result load_checkpoint(world *w, paper *out)
{
  igpt_progress progress, untouched;
  igpt_result result;
  memset(&untouched, 0x5a, sizeof untouched);
  progress = untouched;
  result = igpt_checkpoint_load(w->session, w->model, &progress, PATH);
  if (result) CHECK(memcmp(&progress, &untouched, sizeof progress) == 0);
  else paper_write(out, &progress, sizeof progress);
  return result;
}

static igpt_result save_checkpoint(world *w, paper *out)
{
  const igpt_result result = igpt_checkpoint_save(w->session, w->model, NULL, PATH);
  if (!result) CHECK(paper_load(out, PATH));
  return result;
}

/* A body that does not mind: the file must not take its name all the same. */
static igpt_result careless(void *user, const igpt_sink *sink)
{
  int i;
  for (i = 0; i < 3; i++) sink->write(sink->user, user, 10);
  return IGPT_OK;
}

static igpt_result replace(world *w, paper *out)
{
  char line[] = "0123456789";
  const igpt_log log = host_log();
  const igpt_result result = igpt_file_replace(PATH, &log, careless, line);
  (void)w;
  if (!result) CHECK(paper_load(out, PATH));
  return result;
}

#if POSIX && !defined(IGPT_NO_THREADS)
static void count_task(void *arg, size_t index, int worker)
{
  (void)worker;
  ((unsigned char *)arg)[index]++;
}

static igpt_result create_pool(world *w, paper *out)
{
  const igpt_allocator allocator = host_memory();
  unsigned char seen[100] = { 0 };
  igpt_pool *pool = (igpt_pool *)w;
  const igpt_result result = igpt_pool_create(&pool, 4, &allocator);
  CHECK((pool == NULL) == (result != IGPT_OK));
  if (pool) {
    igpt_runner runner = igpt_pool_runner(pool);
    runner.run(runner.user, count_task, seen, sizeof seen);
    paper_write(out, seen, sizeof seen);
  }
  igpt_pool_destroy(pool);
  CHECK_INT(things_open, 0);
  return result;
}
#endif

/* What a call may find on the disk. */
enum { NO_FILE, AN_OLD_FILE, A_MODEL, A_CHECKPOINT };

typedef struct operation {
  const char *name;
  igpt_result (*call)(world *w, paper *out);
  int kinds;                      /* of requests that it makes, all of them */
  int least;                      /* requests */
  int does_without;               /* kinds whose failure it survives */
  int silent;                     /* it has no log */
  int file;
} operation;

static const operation operations[] = {
  { "igpt_model_create", create_model, MEMORY, 1, 0, 0, NO_FILE },
  { "igpt_session_create", create_session, MEMORY, 1, 0, 0, NO_FILE },
  { "igpt_backward, igpt_step", step, 0, 0, 0, 0, NO_FILE },
  { "igpt_forward .. igpt_sample", look, 0, 0, 0, 0, NO_FILE },
  { "igpt_model_read", read_model, MEMORY | READING, 15, 0, 0, NO_FILE },
  { "igpt_model_write", write_model, WRITING, 10, 0, 0, NO_FILE },
  { "igpt_model_write_bf16", write_model_bf16, WRITING, 4, 0, 0, NO_FILE },
  { "igpt_checkpoint_read", read_checkpoint, MEMORY | READING, 50, 0, 0, NO_FILE },
  { "igpt_checkpoint_write", write_checkpoint, WRITING, 15, 0, 0, NO_FILE },
  { "igpt_palette_fit", fit_palette, MEMORY, 2, 0, 0, NO_FILE },
  { "igpt_palette_encode", encode, MEMORY, 1, MEMORY, 0, NO_FILE },
  { "igpt_probe_fit, L-BFGS", fit_by_lbfgs, MEMORY, 2, 0, 0, NO_FILE },
  { "igpt_probe_fit, SGD", fit_by_sgd, MEMORY, 2, 0, 0, NO_FILE },
  { "igpt_npy_open", open_npy, READING, 2, 0, 0, NO_FILE },
  { "igpt_npy_read_f32", read_npy, READING, 1, 0, 1, NO_FILE },
  { "igpt_npy_write", write_npy, WRITING, 2, 0, 1, NO_FILE },
  { "igpt_model_load", load_model, MEMORY | READING, 30, 0, 0, A_MODEL },
  { "igpt_model_save", save_model, WRITING, 10, 0, 0, AN_OLD_FILE },
  { "igpt_checkpoint_load", load_checkpoint, MEMORY | READING, 100, 0, 0, A_CHECKPOINT },
  { "igpt_checkpoint_save", save_checkpoint, WRITING, 20, 0, 0, AN_OLD_FILE },
  { "igpt_file_replace", replace, WRITING, 6, 0, 0, AN_OLD_FILE },
#if POSIX && !defined(IGPT_NO_THREADS)
  { "igpt_pool_create", create_pool, MEMORY | STARTING, 8, 0, 1, NO_FILE },
#endif
};

static igpt_result code_of(int kind)
{
  return kind == READING ? IGPT_READ_ERROR : kind == WRITING ? IGPT_WRITE_ERROR
       : kind ? IGPT_OUT_OF_MEMORY : IGPT_OK;
}

/* One operation with request `at` failing. 1: it got to its end, since there is no such request. */
static int attempt(const operation *o, world *w, int at, int lasting, const paper *expected,
                   const paper *before)
{
  paper out = { 0 }, after = { 0 }, disk = { 0 };
  const size_t held = host.purse.held;
  igpt_result result;
  int failed, calls;
  heard said;
  if (o->file != NO_FILE)
    write_file(PATH, o->file == A_MODEL ? &model_file : o->file == A_CHECKPOINT ? &checkpoint_file
                                                      : &old_file);
  host_fails(at, lasting);
  result = o->call(w, &out);
  failed = host.failed;
  calls = host.purse.calls;
  said = host.heard;
  host_fails(-1, 0);

  if (failed && !(failed & o->does_without)) {
    CHECK(failed & o->kinds);
    CHECK_INT(result, code_of(failed));
    CHECK_INT(out.size, 0);
    if (!o->silent) CHECK_INT(said.result, result);
    if (!o->silent) CHECK(said.lines >= 1 && strlen(said.text) > 10);
    if (!o->silent && o->file != NO_FILE) CHECK(strstr(said.text, PATH) != NULL);
    state_of(&after, w);
    CHECK(paper_same(&after, before));
    if (o->file == AN_OLD_FILE) CHECK(paper_load(&disk, PATH) && paper_same(&disk, &old_file));
    if (!lasting) CHECK(!paper_load(&disk, TEMPORARY));
  } else {
    CHECK_INT(result, IGPT_OK);
    CHECK_INT(said.lines, 0);
    CHECK(paper_same(&out, expected));
    if (!failed) CHECK(calls >= o->least);
    CHECK(!paper_load(&disk, TEMPORARY));
  }
  CHECK_INT(host.purse.held, held);
  CHECK_INT(files_open, 0);
  CHECK_INT(renamed_unflushed, 0);
  remove(TEMPORARY);
  paper_clear(&out);
  paper_clear(&after);
  paper_clear(&disk);
  return !failed;
}

TEST(every_request_fails)
{
  size_t i;
  for (i = 0; i < COUNT(operations); i++) {
    const operation *o = &operations[i];
    const int errors = test_errors;
    int lasting, at = 0;
    for (lasting = 0; lasting < 2; lasting++) {
      world w = world_open(2), undisturbed = world_open(2);
      paper before = { 0 }, expected = { 0 }, a = { 0 }, b = { 0 };
      state_of(&before, &w);
      if (o->file != NO_FILE)
        write_file(PATH, o->file == A_MODEL ? &model_file : &checkpoint_file);
      host_fails(-1, 0);
      CHECK_INT(o->call(&undisturbed, &expected), IGPT_OK);
      CHECK(o->kinds == 0 || expected.size > 0);
      for (at = 0; at < 2000; at++)
        if (attempt(o, &w, at, lasting, &expected, &before) || test_errors - errors > 10) break;
      CHECK(at >= o->least && at < 2000);

      /* both have done the same, and go on alike */
      CHECK_INT(step(&w, &a), IGPT_OK);
      CHECK_INT(look(&w, &a), IGPT_OK);
      state_of(&a, &w);
      CHECK_INT(step(&undisturbed, &b), IGPT_OK);
      CHECK_INT(look(&undisturbed, &b), IGPT_OK);
      state_of(&b, &undisturbed);
      CHECK(paper_same(&a, &b));
      world_close(&w);
      world_close(&undisturbed);
      CHECK_INT(host.purse.held, 0);
      paper_clear(&before);
      paper_clear(&expected);
      paper_clear(&a);
      paper_clear(&b);
    }
    printf("        %3d requests: %s\n", at, o->name);
    if (test_errors > errors) printf("        ... where something failed\n");
  }
  remove(PATH);
}

/* ---- a disk that fills up -------------------------------------------------------------------- */

/* A sink, and a file system, with room for so many bytes. */
typedef struct quota {
  size_t left;
  int failed, late;
} quota;

static int write_within(void *user, const void *from, size_t count)
{
  quota *q = (quota *)user;
  (void)from;
  if (q->failed) q->late++;
  if (count > q->left) q->failed = 1;
  else q->left -= count;
  return q->failed;
}

typedef igpt_result written(const world *w, const igpt_sink *sink);

static igpt_result a_model(const world *w, const igpt_sink *sink)
{
  return igpt_model_write(w->model, sink);
}

static igpt_result a_checkpoint(const world *w, const igpt_sink *sink)
{
  return igpt_checkpoint_write(w->session, w->model, NULL, sink);
}

static igpt_result an_array(const world *w, const igpt_sink *sink)
{
  const uint64_t shape[] = { ROWS, D };
  (void)w;
  return igpt_npy_write(sink, IGPT_NPY_F32, x, 2, shape);
}

/* Room for no byte, for one, for two ... and at last for all. */
TEST(room_for_any_number_of_bytes)
{
  static written *const writers[] = { a_model, a_checkpoint, an_array };
  world w = world_open(2);
  paper before = { 0 }, after = { 0 };
  size_t i, room;
  state_of(&before, &w);
  for (i = 0; i < COUNT(writers); i++) {
    paper whole = { 0 };
    igpt_sink sink = paper_sink(&whole);
    int wrong = 0;
    CHECK_INT(writers[i](&w, &sink), IGPT_OK);
    CHECK(whole.size > 500);
    for (room = 0; room <= whole.size; room++) {
      quota q;
      memset(&q, 0, sizeof q);
      q.left = room;
      sink.write = write_within;
      sink.user = &q;
      wrong += writers[i](&w, &sink) != (room < whole.size ? IGPT_WRITE_ERROR : IGPT_OK);
      wrong += q.late != 0;
    }
    CHECK_INT(wrong, 0);
    paper_clear(&whole);
  }
  state_of(&after, &w);
  CHECK(paper_same(&before, &after));
  world_close(&w);
  paper_clear(&before);
  paper_clear(&after);
}

TEST(a_disk_with_room_for_any_number_of_bytes)
{
  world w = world_open(2);
  paper disk = { 0 }, whole = { 0 };
  igpt_sink sink = paper_sink(&whole);
  size_t room;
  int wrong = 0;
  CHECK_INT(igpt_model_write(w.model, &sink), IGPT_OK);
  write_file(PATH, &old_file);
  for (room = 0; room <= whole.size; room++) {
    igpt_result result;
    disk_room = room;
    result = igpt_model_save(w.model, PATH);
    disk_room = SIZE_MAX;
    wrong += result != (room < whole.size ? IGPT_WRITE_ERROR : IGPT_OK);
    wrong += !paper_load(&disk, PATH) || !paper_same(&disk, room < whole.size ? &old_file : &whole);
    wrong += paper_load(&disk, TEMPORARY);
  }
  CHECK_INT(wrong, 0);
  CHECK_INT(files_open, 0);
  remove(PATH);
  world_close(&w);
  paper_clear(&whole);
  paper_clear(&disk);
}

/* ---- places where nothing can be written ----------------------------------------------------- */
#if POSIX

/* A save to `path` fails with a sentence that holds `words`. */
static void fails_at(const world *w, const char *path, const char *words)
{
  host_fails(-1, 0);
  CHECK_INT(igpt_checkpoint_save(w->session, w->model, NULL, path), IGPT_WRITE_ERROR);
  CHECK_INT(host.heard.result, IGPT_WRITE_ERROR);
  if (!strstr(host.heard.text, words)) {
    test_errors++;
    printf("  the sentence \"%s\" does not hold \"%s\"\n", host.heard.text, words);
  }
}

TEST(places_that_cannot_be_written)
{
  world w = world_open(1);
  paper disk = { 0 };
  struct stat there;
  write_file(PATH, &old_file);
  fails_at(&w, "build/tests/nowhere/file", "build/tests/nowhere/file.tmp: cannot write");
  fails_at(&w, PATH "/file", PATH "/file.tmp: cannot write");      /* a folder that is a file */
  fails_at(&w, "/proc/file", "/proc/file.tmp: cannot write");
  fails_at(&w, "", ".tmp: cannot be renamed");

  /* the temporary name is taken by a folder: it stays, and so does the old file */
  CHECK_INT(mkdir(TEMPORARY, 0755), 0);
  fails_at(&w, PATH, TEMPORARY ": cannot write");
  CHECK(stat(TEMPORARY, &there) == 0 && S_ISDIR(there.st_mode));
  rmdir(TEMPORARY);
  CHECK(paper_load(&disk, PATH) && paper_same(&disk, &old_file));

  /* the name itself is one: nothing is left beside it */
  remove(PATH);
  CHECK_INT(mkdir(PATH, 0755), 0);
  fails_at(&w, PATH, "cannot be renamed to " PATH);
  CHECK(!paper_load(&disk, TEMPORARY));
  rmdir(PATH);

  /* a link there is not followed */
  write_file(PATH ".other", &checkpoint_file);
  CHECK_INT(symlink("failures.file.other", TEMPORARY), 0);
  CHECK_INT(igpt_model_save(w.model, PATH), IGPT_OK);
  CHECK(lstat(PATH, &there) == 0 && S_ISREG(there.st_mode));
  CHECK(paper_load(&disk, PATH ".other") && paper_same(&disk, &checkpoint_file));
  remove(PATH ".other");

  /* what a killed run left is written over, if it is the longer one, too */
  write_file(PATH, &old_file);
  write_file(TEMPORARY, &checkpoint_file);
  CHECK_INT(igpt_model_save(w.model, PATH), IGPT_OK);
  CHECK(paper_load(&disk, PATH) && disk.size < checkpoint_file.size);
  CHECK(!paper_load(&disk, TEMPORARY));
  remove(PATH);
  world_close(&w);
  paper_clear(&disk);
}

/* Every byte is one too many; the C library finds out when it flushes. */
TEST(a_full_disk)
{
  world w = world_open(1);
  paper disk = { 0 };
  struct stat there;
  struct rlimit before, none;
  CHECK_INT(getrlimit(RLIMIT_FSIZE, &before), 0);
  none = before;
  none.rlim_cur = 0;
  write_file(PATH, &old_file);
  signal(SIGXFSZ, SIG_IGN);
  CHECK_INT(setrlimit(RLIMIT_FSIZE, &none), 0);
  fails_at(&w, PATH, strerror(EFBIG));
  CHECK_INT(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_DFL);
  CHECK(paper_load(&disk, PATH) && paper_same(&disk, &old_file));
  CHECK(lstat(TEMPORARY, &there) != 0);
  CHECK_INT(igpt_checkpoint_save(w.session, w.model, NULL, PATH), IGPT_OK);
  CHECK(paper_load(&disk, PATH) && disk.size == checkpoint_file.size);
  remove(PATH);
  world_close(&w);
  paper_clear(&disk);
}

/* A folder in which one may look and not write. The superuser may both: a child becomes nobody. */
TEST(a_folder_that_is_read_only)
{
  static const char folder[] = "build/tests/read_only", path[] = "build/tests/read_only/file";
  enum { FINE, NO_ENTRY, NO_CODE, NO_SENTENCE };
  paper disk = { 0 };
  int status = 0;
  pid_t child;
  chmod(folder, 0755);
  remove(path);
  rmdir(folder);
  CHECK_INT(mkdir(folder, 0755), 0);
  write_file(path, &old_file);
  CHECK_INT(chmod(path, 0666), 0);              /* that one may write the file itself helps not */
  CHECK_INT(chmod(folder, 0555), 0);
  fflush(stdout);
  child = fork();
  if (child == 0) {
    world w = world_open(1);
    int wrong = FINE;
    if (getuid() == 0 && setuid(65534)) wrong = NO_ENTRY;
    if (!wrong && !paper_load(&disk, path)) wrong = NO_ENTRY;
    host_fails(-1, 0);
    if (!wrong && igpt_checkpoint_save(w.session, w.model, NULL, path) != IGPT_WRITE_ERROR)
      wrong = NO_CODE;
    if (!wrong && !strstr(host.heard.text, strerror(EACCES))) wrong = NO_SENTENCE;
    _exit(wrong);
  }
  CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
  CHECK(paper_load(&disk, path) && paper_same(&disk, &old_file));
  chmod(folder, 0755);
  CHECK_INT(remove(path), 0);
  CHECK_INT(rmdir(folder), 0);                  /* no temporary file either */
  paper_clear(&disk);
  if (WEXITSTATUS(status) == NO_ENTRY) SKIP("user 65534 may not come here");
  CHECK_INT(WEXITSTATUS(status), FINE);
}

/* ---- a run that is killed -------------------------------------------------------------------- */

enum { STEPS = 4 };

/* A run that saves after every step, or what is left of one. `at`: the request at which the process
   is killed; -1: none. Returns 0, or the signal that ended it. */
static int run_of(int at)
{
  int status = 0;
  pid_t child;
  fflush(stdout);
  child = fork();
  if (child == 0) {
    world w = world_open(0);
    paper losses = { 0 };
    igpt_progress progress;
    FILE *old = fopen(PATH, "rb");
    memset(&progress, 0, sizeof progress);
    if (old) fclose(old);
    host_fails(-1, 0);
    host.killed_at = at;
    if (old && igpt_checkpoint_load(w.session, w.model, &progress, PATH)) _exit(1);
    while (progress.step < STEPS) {
      if (step(&w, &losses)) _exit(2);
      progress.step++;
      if (igpt_checkpoint_save(w.session, w.model, &progress, PATH)) _exit(3);
    }
    _exit(0);
  }
  if (child < 0 || waitpid(child, &status, 0) != child) return -1;
  return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status) ? -1 : 0;
}

/* Killed at its first request, at its second ... a run has left a whole file or none, and goes on
   from there to the same bits. And so does one that is killed again and again. */
TEST(killed_at_every_request)
{
  paper whole = { 0 }, part = { 0 };
  int at, ended = 0, left_over = 0, wrong = 0, lives = 0;
  remove(PATH);
  CHECK_INT(run_of(-1), 0);
  CHECK(paper_load(&whole, PATH));
  for (at = 0; at < 1000 && !ended; at++) {
    remove(PATH);
    ended = run_of(at) != SIGKILL;
    left_over += paper_load(&part, TEMPORARY);
    wrong += run_of(-1) != 0 || !paper_load(&part, PATH) || !paper_same(&part, &whole);
    wrong += paper_load(&part, TEMPORARY);
  }
  CHECK_INT(wrong, 0);
  CHECK(ended && at > 20 * STEPS && left_over > 15 * STEPS);
  remove(PATH);
  for (at = 0; lives < 1000 && run_of(at); lives++) at = 37 + (at + 17) % 170;
  CHECK(lives > STEPS && lives < 1000);
  CHECK(paper_load(&part, PATH) && paper_same(&part, &whole));
  remove(PATH);
  paper_clear(&whole);
  paper_clear(&part);
}
#endif

/* ---- main ------------------------------------------------------------------------------------ */

int main(void)
{
  prepare();
  RUN(every_request_fails);
  RUN(room_for_any_number_of_bytes);
  RUN(a_disk_with_room_for_any_number_of_bytes);
#if POSIX
  RUN(places_that_cannot_be_written);
  RUN(a_full_disk);
  RUN(a_folder_that_is_read_only);
  RUN(killed_at_every_request);
#endif
  return test_done();
}
