/* The palette and the linear probe: k-means with 512 colours on 1,000,000 pixels (10 rounds),
   encoding them, and multinomial logistic regression on 50,000 rows of 512 features in 10 classes;
   each beside a peer if one is named, and the last two beside the time that their memory traffic
   alone takes here.
   All take turns, so that they see the same machine. Results are checked before they are timed:
   Lloyd's error against one that is computed from the tokens, every 997th token against a search in
   float64, and the probe's objective, which has to be within 1e-6 of the optimum, with the peer's.

   cc -O2 -I. bench/palette_probe.c -o build/bench/palette_probe -lm -pthread
   build/bench/palette_probe [--help]

   A peer is started as `command DIR`, where DIR holds the pixels, features and labels as raw files.
   It says "ready" and what it is, then for each line kmeans, distinct (k-means of weighted distinct
   colours), encode or probe that it reads does this work and answers with seconds, result (mean
   squared error, or objective) and iterations: bench/peers/palette_probe.py is one. It finds the
   number of workers in OMP_NUM_THREADS.                                                          */

#define _POSIX_C_SOURCE 200809L
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "bench.h"

#include <sys/stat.h>
#include <unistd.h>

enum { FIT, ENCODE, PROBE, KINDS, DISTINCT = KINDS, ASKED };      /* DISTINCT: of the peer alone */
static const char *const words[ASKED] = { "kmeans", "encode", "probe", "distinct" };
static const char *const titles[KINDS] = { "k-means", "encode", "probe" };

static void fail(const char *what)
{
  fprintf(stderr, "palette_probe: %s\n", what);
  exit(1);
}

static void *need(size_t bytes)
{
  void *block = malloc(bytes);
  if (!block) fail("no memory");
  return block;
}

/* ---- the data ------------------------------------------------------------------------------- */

static void dump(const char *directory, const char *name, const void *data, size_t bytes)
{
  char path[1000];
  FILE *file;
  snprintf(path, sizeof path, "%s/%s", directory, name);
  mkdir(directory, 0777);                       /* or it is there */
  file = fopen(path, "wb");
  if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file)) fail("cannot write --dump");
}

/* The first pixels of a CIFAR-10 binary batch; without one, lumps of colours. */
static void pixels(uint8_t *rgb, size_t count, const char *path)
{
  size_t at = 0, i;
  if (path) {
    static uint8_t record[3073];
    FILE *file = fopen(path, "rb");
    if (!file) fail("cannot open the CIFAR-10 batch");
    while (at < count && fread(record, 1, sizeof record, file) == sizeof record)
      for (i = 0; i < 1024 && at < count; i++, at++) {
        rgb[3 * at] = record[1 + i];
        rgb[3 * at + 1] = record[1025 + i];
        rgb[3 * at + 2] = record[2049 + i];
      }
    fclose(file);
    if (at < count) fail("the CIFAR-10 batch is too short: --pixels");
  } else {
    igpt_rng rng = igpt_rng_seed(1, 0);
    for (; at < count; at++) {
      igpt_rng lump = igpt_rng_seed(2, igpt_rng_below(&rng, 300));
      for (i = 0; i < 3; i++) {
        int v = (int)igpt_rng_below(&lump, 256) + (int)(20 * igpt_rng_normal(&rng));
        rgb[3 * at + i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
      }
    }
  }
}

/* Features of a network are no noise: they lie in a few directions. Row = the sum over l of its
   number l, which gets 1 to 1/100 as large, times a random vector. */
static void tangle(float *x, size_t rows, size_t d)
{
  float *vectors = (float *)need(d * d * sizeof *vectors), *row = (float *)need(d * sizeof *row);
  igpt_rng rng = igpt_rng_seed(1, 2);
  size_t i, j, l;
  for (l = 0; l < d; l++)
    for (j = 0; j < d; j++)
      vectors[l * d + j] =
        igpt_rng_normal(&rng) * (float)pow(100, -(double)l / (double)d) / sqrtf((float)d);
  for (i = 0; i < rows; i++, x += d) {
    memset(row, 0, d * sizeof *row);
    for (l = 0; l < d; l++)
      for (j = 0; j < d; j++) row[j] += x[l] * vectors[l * d + j];
    memcpy(x, row, d * sizeof *x);
  }
  free(vectors);
  free(row);
}

/* Rows of noise, labelled by a random linear map with some more noise: classes overlap. */
static void features(float *x, int32_t *labels, size_t rows, size_t d, size_t k, int tangled)
{
  float *w = (float *)need(k * d * sizeof *w);
  igpt_rng rng = igpt_rng_seed(1, 1);
  size_t i, j, c;
  for (i = 0; i < k * d; i++) w[i] = igpt_rng_normal(&rng) / sqrtf((float)d);
  for (i = 0; i < rows * d; i++) x[i] = 3.4641016f * (igpt_rng_uniform(&rng) - 0.5f);
  for (i = 0; i < rows; i++) {
    float best = -1e30f;
    for (c = 0; c < k; c++) {
      float z = 0.7f * igpt_rng_normal(&rng);
      for (j = 0; j < d; j++) z += x[i * d + j] * w[c * d + j];
      if (z > best) { best = z; labels[i] = (int32_t)c; }
    }
  }
  free(w);
  if (tangled) tangle(x, rows, d);
}

static void check_tokens(const igpt_palette *p, const uint16_t *tokens, const uint8_t *rgb,
                         size_t count, double mse)
{
  double error = 0;
  size_t n;
  int i, j;
  for (n = 0; n < count; n++) {
    double least = 1e300, own = 0;
    for (i = 0; i < p->colours; i++) {
      double d = 0;
      if (n % 997 && i != tokens[n]) continue;
      for (j = 0; j < 3; j++) {
        double e = (double)rgb[3 * n + (size_t)j] - 127.5 * ((double)p->centre[i][j] + 1);
        d += e * e;
      }
      if (i == tokens[n]) own = d;
      if (d < least) least = d;
    }
    if (own > least * (1 + 1e-6) + 1e-4) fail("a token is not the nearest centre");
    error += own;
  }
  error /= 3 * (double)count;
  if (fabs(error - mse) > 1e-6 * mse) fail("the reported error is not that of the tokens");
}

/* ---- the floor: bytes through memory -------------------------------------------------------- */

typedef struct stream {
  const igpt_kernels *kernels;
  const float *x;
  size_t floats;                  /* of a task */
  float sums[64];
} stream;

static void read_stream(void *arg, size_t index, int worker)
{
  stream *s = (stream *)arg;
  (void)worker;
  s->sums[index] = s->kernels->maximum(s->x + index * s->floats, s->floats);
}

/* Seconds to read n floats once. */
static double read_once(const igpt_runner *runner, const float *x, size_t n)
{
  stream s;
  double start = bench_clock(0);
  s.kernels = igpt_kernels_for(IGPT_ISA_AUTO);
  s.x = x;
  s.floats = n / 64;
  igpt__run(runner, read_stream, &s, 64);
  bench_sink = s.sums[0];
  return bench_clock(0) - start;
}

/* Seconds on the wall and of all processors together. */
typedef struct watch { double wall, processor; } watch;

static watch now(void)
{
  watch w;
  w.wall = bench_clock(0);
  w.processor = bench_clock(1);
  return w;
}

static watch since(watch start)
{
  watch w = now();
  w.wall -= start.wall;
  w.processor -= start.processor;
  return w;
}

/* ---- the peer ------------------------------------------------------------------------------- */

typedef struct peer { FILE *to, *from; char name[100]; } peer;

static void start_peer(peer *p, const char *command, const char *directory, int workers)
{
  char text[1000], threads[20];
  int to[2], from[2];
  pid_t process;
  if (pipe(to) || pipe(from)) fail("no pipe");
  fflush(stdout);
  process = fork();
  if (process < 0) fail("no process");
  if (process == 0) {
    if (dup2(to[0], 0) < 0 || dup2(from[1], 1) < 0) _exit(1);
    close(to[0]);
    close(to[1]);
    close(from[0]);
    close(from[1]);
    snprintf(text, sizeof text, "exec %s %s", command, directory);
    snprintf(threads, sizeof threads, "%d", workers);
    setenv("OMP_NUM_THREADS", threads, 1);
    execl("/bin/sh", "sh", "-c", text, (char *)NULL);
    _exit(1);
  }
  close(to[0]);
  close(from[1]);
  p->to = fdopen(to[1], "w");
  p->from = fdopen(from[0], "r");
  if (!p->to || !p->from || fscanf(p->from, "ready %99[^\n]", p->name) != 1)
    fail("the peer does not start");
}

static double ask_peer(peer *p, const char *word, double *result, int *iterations)
{
  double seconds;
  fprintf(p->to, "%s\n", word);
  fflush(p->to);
  if (fscanf(p->from, "%lf %lf %d", &seconds, result, iterations) != 3)
    fail("the peer has stopped");
  return seconds;
}

/* The largest tolerance that brings the objective within 1e-6 of the optimum. */
static double tolerance_of(const float *x, const int32_t *labels, size_t rows, size_t d,
                           igpt_probe_desc desc)
{
  double best = 0, tolerance;
  for (tolerance = 1e-7; tolerance < 2e-4; tolerance *= 10) {
    igpt_probe_report report;
    igpt_probe *probe;
    desc.tolerance = tolerance;
    if (igpt_probe_fit(&probe, &report, x, labels, rows, d, &desc)) fail("igpt_probe_fit");
    igpt_probe_destroy(probe);
    if (!report.converged) fail("the probe has not converged");
    if (best == 0) best = report.objective;
    if (!(report.objective <= best * (1 + 1e-6))) break;
  }
  return tolerance / 10;
}

/* ---- the race ------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
  size_t count = 1000000, rows = 50000, d = 512, k = 10;
  const char *cifar = NULL, *directory = NULL, *command = NULL;
  const struct timespec rest = { 0, 100000000 };      /* others' threads may spin for a while */
  int workers = 2, repetitions = 5, tangled = 0, i, r, iterations[2] = { 0, 0 };
  bench_times own[KINDS], busy[KINDS], theirs[ASKED], alone, stream_times;
  double results[KINDS] = { 0, 0, 0 }, values[ASKED] = { 0, 0, 0, 0 }, gigabytes;
  double bytes[KINDS], tolerance = 0;
  peer other;
  igpt_pool *pool;
  uint8_t *rgb;
  uint16_t *tokens;
  float *x;
  int32_t *labels;
  for (i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--cifar") && i + 1 < argc) cifar = argv[++i];
    else if (!strcmp(argv[i], "--dump") && i + 1 < argc) directory = argv[++i];
    else if (!strcmp(argv[i], "--peer") && i + 1 < argc) command = argv[++i];
    else if (!strcmp(argv[i], "--workers") && i + 1 < argc) workers = atoi(argv[++i]);
    else if (!strcmp(argv[i], "--repetitions") && i + 1 < argc) repetitions = atoi(argv[++i]);
    else if (!strcmp(argv[i], "--pixels") && i + 1 < argc) count = strtoul(argv[++i], NULL, 10);
    else if (!strcmp(argv[i], "--tangled")) tangled = 1;
    else if (!strcmp(argv[i], "--rows") && i + 1 < argc) rows = strtoul(argv[++i], NULL, 10);
    else {
      printf("usage: palette_probe [--cifar data_batch_1.bin] [--workers N, default 2]\n"
             "                     [--repetitions N, default 5] [--pixels N] [--rows N]\n"
             "                     [--tangled: features that lie in a few directions]\n"
             "                     [--dump DIR] [--peer COMMAND, needs --dump]\n");
      return strcmp(argv[i], "--help") != 0;
    }
  }
  if (repetitions < 1 || repetitions > BENCH_MOST) fail("--repetitions: 1 to 64");
  if (command && !directory) fail("--peer needs --dump");
  if (igpt_pool_create(&pool, workers, NULL)) fail("no threads");
  memset(own, 0, sizeof own);
  memset(busy, 0, sizeof busy);
  memset(theirs, 0, sizeof theirs);
  memset(&alone, 0, sizeof alone);
  memset(&stream_times, 0, sizeof stream_times);
  rgb = (uint8_t *)need(3 * count);
  tokens = (uint16_t *)need(2 * count);
  x = (float *)need(rows * d * sizeof *x);
  labels = (int32_t *)need(rows * sizeof *labels);
  pixels(rgb, count, cifar);
  features(x, labels, rows, d, k, tangled);
  if (directory) {
    dump(directory, "pixels.u8", rgb, 3 * count);
    dump(directory, "features.f32", x, rows * d * sizeof *x);
    dump(directory, "labels.i32", labels, rows * sizeof *labels);
  }
  if (command) start_peer(&other, command, directory, workers);
  for (r = -1; r < repetitions; r++) {                /* the first time is to warm up */
    igpt_runner runner = igpt_pool_runner(pool);
    igpt_kmeans_desc how = { 0 };
    igpt_encode_desc encode = { 0 };
    igpt_probe_desc desc = { 0 };
    igpt_kmeans_report fitted;
    igpt_probe_report report;
    igpt_palette palette;
    igpt_probe *probe;
    watch start, times[KINDS], single;
    int ignored;
    how.max_iterations = 10;
    how.runner = encode.runner = desc.runner = runner;
    if (r < 0) tolerance = tolerance_of(x, labels, rows, d, desc);
    desc.tolerance = tolerance;
    start = now();
    if (igpt_palette_fit(&palette, &fitted, rgb, count, &how)) fail("igpt_palette_fit");
    times[FIT] = since(start);
    start = now();
    if (igpt_palette_encode(&palette, tokens, rgb, count, NULL)) fail("igpt_palette_encode");
    single = since(start);
    start = now();
    if (igpt_palette_encode(&palette, tokens, rgb, count, &encode)) fail("igpt_palette_encode");
    times[ENCODE] = since(start);
    if (r < 0) check_tokens(&palette, tokens, rgb, count, fitted.mse);
    start = now();
    if (igpt_probe_fit(&probe, &report, x, labels, rows, d, &desc)) fail("igpt_probe_fit");
    times[PROBE] = since(start);
    igpt_probe_destroy(probe);
    results[FIT] = results[ENCODE] = fitted.mse;
    results[PROBE] = report.objective;
    iterations[0] = report.iterations;
    for (i = 0; i < KINDS && r >= 0; i++) {
      bench_note(&own[i], times[i].wall);
      bench_note(&busy[i], times[i].processor);
    }
    if (r >= 0) bench_note(&alone, single.wall);
    if (r >= 0) bench_note(&stream_times, read_once(&runner, x, rows * d));
    for (i = 0; i < ASKED && command; i++) {
      double second = ask_peer(&other, words[i], &values[i],
                               i == PROBE ? &iterations[1] : &ignored);
      if (r >= 0) bench_note(&theirs[i], second);
      nanosleep(&rest, NULL);
    }
  }
  if (command && fabs(values[PROBE] / results[PROBE] - 1) > 2e-6) fail("the objectives differ");
  gigabytes = 1e-9 * 4 * (double)(rows * d) / bench_median(&stream_times);
  bytes[FIT] = 0;
  bytes[ENCODE] = 5.0 * (double)count;
  bytes[PROBE] = 4.0 * (double)(rows * d) * (iterations[0] + 1);
  bench_machine();
  printf("igpt.h, %s, %d workers; median of %d in turn (fastest to slowest)\n",
         igpt_isa_name(igpt_isa_best()), workers, repetitions);
  if (command) printf("peer: %s\n", other.name);
  printf("memory is read at %.1f GB/s\n", gigabytes);
  for (i = 0; i < KINDS; i++) {
    double median = bench_median(&own[i]), floor_time = 1e-9 * bytes[i] / gigabytes;
    printf("%-8s %9.2f ms (%.2f to %.2f; processors %.2f)", titles[i], 1e3 * median,
           1e3 * own[i].second[0], 1e3 * own[i].second[repetitions - 1],
           1e3 * bench_median(&busy[i]));
    if (i == FIT) printf("  mean squared error %.3f", results[i]);
    if (i == ENCODE)
      printf("  %.0f million pixels/s (one worker %.0f)", 1e-6 * (double)count / median,
             1e-6 * (double)count / bench_median(&alone));
    if (i == PROBE) printf("  objective %.9f, %d iterations (to %g)", results[i], iterations[0],
                           tolerance);
    if (bytes[i] > 0) printf("; its %.0f MB take %.2f ms: x%.1f", 1e-6 * bytes[i], 1e3 * floor_time,
                             median / floor_time);
    printf("\n");
    if (command) {
      double peers = bench_median(&theirs[i]);
      printf("    peer %9.2f ms (%.2f to %.2f)", 1e3 * peers, 1e3 * theirs[i].second[0],
             1e3 * theirs[i].second[repetitions - 1]);
      if (i == PROBE) printf("  objective %.9f, %d iterations", values[i], iterations[1]);
      else printf("  mean squared error %.3f", values[i]);
      printf("; igpt.h x%.1f\n", peers / median);
      if (i == FIT)
        printf("    peer %9.2f ms, of weighted distinct colours  mean squared error %.3f; "
               "igpt.h x%.1f\n", 1e3 * bench_median(&theirs[DISTINCT]), values[DISTINCT],
               bench_median(&theirs[DISTINCT]) / median);
    }
  }
  free(rgb);
  free(tokens);
  free(x);
  free(labels);
  igpt_pool_destroy(pool);
  return 0;
}
