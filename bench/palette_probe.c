/* cc -O2 -I. -o palette_probe bench/palette_probe.c -lm -pthread && ./palette_probe [--help]

   Times the palette (k-means on 1,000,000 pixels, encoding) and the linear probe (50,000 rows of
   512 features in 10 classes). Each result is checked before its time is printed: Lloyd's error
   against one that is computed from the tokens, every 997th token against a search in float64, and
   the probe's gradient against its tolerance. With --dump DIR the same pixels, features and labels
   are written as raw files, for bench/peers/palette_probe.py.                                    */

#define _POSIX_C_SOURCE 200809L
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds(clockid_t clock)
{
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Wall and processor seconds since `start`, the best of the repetitions, and the spread. */
typedef struct timing { double start, start_cpu, best, best_cpu, worst; int count; } timing;

static void begin(timing *t)
{
  t->start = seconds(CLOCK_MONOTONIC);
  t->start_cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
}

static void end(timing *t)
{
  double wall = seconds(CLOCK_MONOTONIC) - t->start;
  double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - t->start_cpu;
  if (t->count == 0 || wall < t->best) t->best = wall;
  if (t->count == 0 || cpu < t->best_cpu) t->best_cpu = cpu;
  if (t->count == 0 || wall > t->worst) t->worst = wall;
  t->count++;
}

static void show(const char *what, const timing *t)
{
  printf("%-36s %8.3f s   processor %8.3f s   slowest of %d: %.3f s\n", what, t->best, t->best_cpu,
         t->count, t->worst);
}

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

static void dump(const char *directory, const char *name, const void *data, size_t bytes)
{
  char path[1000];
  FILE *file;
  snprintf(path, sizeof path, "%s/%s", directory, name);
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

/* Rows of noise, labelled by a random linear map with some more noise: classes overlap. */
static void features(float *x, int32_t *labels, size_t rows, size_t d, size_t k)
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
}

int main(int argc, char **argv)
{
  size_t count = 1000000, rows = 50000, d = 512, k = 10;
  const char *cifar = NULL, *directory = NULL;
  int workers = 1, repetitions = 3, rounds = 10, i, r;
  igpt_pool *pool;
  for (i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--cifar") && i + 1 < argc) cifar = argv[++i];
    else if (!strcmp(argv[i], "--dump") && i + 1 < argc) directory = argv[++i];
    else if (!strcmp(argv[i], "--workers") && i + 1 < argc) workers = atoi(argv[++i]);
    else if (!strcmp(argv[i], "--repetitions") && i + 1 < argc) repetitions = atoi(argv[++i]);
    else if (!strcmp(argv[i], "--pixels") && i + 1 < argc) count = strtoul(argv[++i], NULL, 10);
    else if (!strcmp(argv[i], "--rows") && i + 1 < argc) rows = strtoul(argv[++i], NULL, 10);
    else {
      printf("usage: palette_probe [--cifar data_batch_1.bin] [--dump DIR] [--workers N]\n"
             "                     [--repetitions N] [--pixels N] [--rows N]\n");
      return strcmp(argv[i], "--help") != 0;
    }
  }
  if (igpt_pool_create(&pool, workers, NULL)) fail("no threads");
  printf("igpt.h, %s, %d worker(s)\n", igpt_isa_name(igpt_isa_best()), workers);
  {
    uint8_t *rgb = (uint8_t *)need(3 * count);
    uint16_t *tokens = (uint16_t *)need(2 * count);
    igpt_kmeans_desc desc = {0};
    igpt_kmeans_report report;
    igpt_palette palette;
    timing fit = {0}, encode = {0};
    pixels(rgb, count, cifar);
    if (directory) dump(directory, "pixels.u8", rgb, 3 * count);
    desc.max_iterations = rounds;
    desc.runner = igpt_pool_runner(pool);
    for (r = 0; r < repetitions; r++) {
      begin(&fit);
      if (igpt_palette_fit(&palette, &report, rgb, count, &desc)) fail("igpt_palette_fit");
      end(&fit);
      begin(&encode);
      if (igpt_palette_encode(&palette, tokens, rgb, count)) fail("igpt_palette_encode");
      end(&encode);
    }
    check_tokens(&palette, tokens, rgb, count, report.mse);
    printf("%zu pixels, %zu colours, k = %d, %d rounds: mean squared error %.5f\n", count,
           report.distinct, palette.colours, report.iterations, report.mse);
    show("  fit, seeds and rounds", &fit);
    show("  encode, one thread", &encode);
    printf("  encode: %.1f million pixels a second\n", 1e-6 * (double)count / encode.best);
    free(tokens);
    free(rgb);
  }
  {
    float *x = (float *)need(rows * d * sizeof *x);
    int32_t *labels = (int32_t *)need(rows * sizeof *labels);
    igpt_probe_desc desc = {0};
    igpt_probe_report report;
    igpt_probe *probe;
    timing fit = {0};
    features(x, labels, rows, d, k);
    if (directory) {
      dump(directory, "features.f32", x, rows * d * sizeof *x);
      dump(directory, "labels.i32", labels, rows * sizeof *labels);
    }
    desc.runner = igpt_pool_runner(pool);
    for (r = 0; r < repetitions; r++) {
      begin(&fit);
      if (igpt_probe_fit(&probe, &report, x, labels, rows, d, &desc)) fail("igpt_probe_fit");
      end(&fit);
      igpt_probe_destroy(probe);
    }
    if (!report.converged || !(report.gradient <= 1e-6)) fail("the probe has not converged");
    printf("%zu x %zu, %zu classes, C = 1: objective %.9f, gradient %.2g, %d iterations\n", rows, d,
           k, report.objective, report.gradient, report.iterations);
    show("  L-BFGS", &fit);
    free(labels);
    free(x);
  }
  igpt_pool_destroy(pool);
  return 0;
}
