/* bench.h: what the benchmarks share: a clock, medians, and the fastest that a core can multiply
   and add. Include after igpt.h (implementation).                                                */

#ifndef BENCH_H
#define BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __linux__
#include <sys/mman.h>
#endif
#if !defined(IGPT_NO_SIMD) && defined(__x86_64__)      /* igpt.h undefines its own name for this */
#define BENCH_X86 1
#include <immintrin.h>
#else
#define BENCH_X86 0
#endif
#if BENCH_X86 && !defined(IGPT_NO_AVX512) && !defined(IGPT_NO_AMX) && defined(__linux__) && \
    ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11))
#define BENCH_AMX 1
#else
#define BENCH_AMX 0
#endif

/* Seconds on the wall; or of this process on its processors (all threads together), which other
   programs do not disturb much: for one worker on a shared machine. */
static double bench_clock(int processor)
{
  struct timespec t;
  clock_gettime(processor ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { BENCH_MOST = 64 };

typedef struct bench_times {
  double second[BENCH_MOST];
  int count;
} bench_times;

static void bench_note(bench_times *times, double second)
{
  if (times->count < BENCH_MOST) times->second[times->count++] = second;
}

static int bench_order(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double bench_median(bench_times *times)
{
  qsort(times->second, (size_t)times->count, sizeof *times->second, bench_order);
  return times->second[times->count / 2];
}

/* (third quartile - first quartile) / median */
static double bench_spread(bench_times *times)
{
  double median = bench_median(times);
  return (times->second[times->count * 3 / 4] - times->second[times->count / 4]) / median;
}

static void bench_machine(void)
{
  char line[256];
  FILE *f = fopen("/proc/cpuinfo", "r");
  while (f && fgets(line, sizeof line, f))
    if (!strncmp(line, "model name", 10)) {
      printf("machine: %s", strchr(line, ':') + 2);
      break;
    }
  if (f) fclose(f);
#ifdef __clang__
  printf("compiler: clang %s\n", __clang_version__);
#elif defined(__GNUC__)
  printf("compiler: gcc %s\n", __VERSION__);
#endif
}

/* ---- the floor: multiply-adds with nothing in their way ------------------------------------- */

/* Each function does 64 * rounds vector multiply-adds on each of 12 accumulators (AVX2) or 24
   (AVX-512), either on registers alone or with one operand broadcast from an array in the first
   cache. */
typedef float bench_loop(const float *from, size_t rounds);

#if BENCH_X86
#define BENCH_8(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define BENCH_12(X) BENCH_8(X) X(8) X(9) X(10) X(11)
#define BENCH_24(X) BENCH_12(X) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21)     \
                    X(22) X(23)

#define BENCH_DECLARE(i) v##i = SPLAT(from[i]),
#define BENCH_SUM(i) z = ADD(z, v##i);
#define BENCH_REGISTER(i) v##i = FMA(f, b, v##i);
#define BENCH_MEMORY(i) v##i = FMA(SPLAT(from[p * STEP + i]), b, v##i);

#define BENCH_LOOP(name, isa, V, list, step, body)                                                \
  __attribute__((target(isa))) static float name(const float *from, size_t rounds)             \
  {                                                                                               \
    enum { STEP = step };                                                                         \
    V z = SPLAT(0.0f), b = SPLAT(from[0]), f = SPLAT(from[1]), list(BENCH_DECLARE) last = z;      \
    float out[16];                                                                                \
    size_t r, p;                                                                                  \
    for (r = 0; r < rounds; r++)                                                                  \
      for (p = 0; p < 64; p++) {                                                                  \
        list(body)                                                                                \
        __asm__ volatile("" : "+x"(b), "+x"(f));   /* keeps compilers from merging rounds */      \
      }                                                                                           \
    list(BENCH_SUM)                                                                               \
    STORE(out, ADD(z, last));                                                                     \
    return out[0];                                                                                \
  }

#define ADD(a, b) _mm256_add_ps(a, b)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define SPLAT(x) _mm256_set1_ps(x)
#define STORE(p, v) _mm256_storeu_ps(p, v)
BENCH_LOOP(bench_avx2_registers, "avx2,fma", __m256, BENCH_12, 12, BENCH_REGISTER)
BENCH_LOOP(bench_avx2_memory, "avx2,fma", __m256, BENCH_12, 12, BENCH_MEMORY)
#undef ADD
#undef FMA
#undef SPLAT
#undef STORE
#ifndef IGPT_NO_AVX512
#define ADD(a, b) _mm512_add_ps(a, b)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define SPLAT(x) _mm512_set1_ps(x)
#define STORE(p, v) _mm512_storeu_ps(p, v)
BENCH_LOOP(bench_avx512_registers, "avx512f", __m512, BENCH_24, 24, BENCH_REGISTER)
BENCH_LOOP(bench_avx512_memory, "avx512f", __m512, BENCH_24, 24, BENCH_MEMORY)
#undef FMA
#if BENCH_AMX                     /* a compiler that knows AVX512_BF16 */
#define FMA(a, b, c) _mm512_dpbf16_ps(c, (__m512bh)(a), (__m512bh)(b))
BENCH_LOOP(bench_dots_registers, "avx512f,avx512bf16", __m512, BENCH_24, 24, BENCH_REGISTER)
BENCH_LOOP(bench_dots_memory, "avx512f,avx512bf16", __m512, BENCH_24, 24, BENCH_MEMORY)
#undef FMA
#endif
#undef ADD
#undef SPLAT
#undef STORE
#endif
#endif

/* The loop of an instruction set and its operations a round; null where this file has none. */
static bench_loop *bench_floor_loop(igpt_isa isa, int memory, double *operations)
{
#if BENCH_X86
  if (isa == IGPT_ISA_AVX2) {
    *operations = 2.0 * 64 * 12 * 8;
    return memory ? bench_avx2_memory : bench_avx2_registers;
  }
#ifndef IGPT_NO_AVX512
  if (isa == IGPT_ISA_AVX512) {
    *operations = 2.0 * 64 * 24 * 16;
    return memory ? bench_avx512_memory : bench_avx512_registers;
  }
#if BENCH_AMX
  if (isa == IGPT_ISA_AVX512_BF16) {
    *operations = 4.0 * 64 * 24 * 16;
    return memory ? bench_dots_memory : bench_dots_registers;
  }
#endif
#endif
#endif
  (void)isa;
  (void)memory;
  *operations = 0;
  return NULL;
}

/* Ordinary bfloat16, of size 2^-7 to 2, of both signs, all bits in use: on zeros processors run
   faster. Two of them side by side are such a float. */
static void bench_numbers(uint16_t *to, size_t count)
{
  igpt_rng rng = igpt_rng_seed(5, 0);
  size_t i;
  for (i = 0; i < count; i++) to[i] = (uint16_t)((igpt_rng_next(&rng) & 0x83ffu) + 0x3c00u);
}

/* Seconds of one operation of AMX, measured once over four products of tiles in registers, `rounds`
   times 64 of them. Call it only where AMX is permitted. */
#if BENCH_AMX
typedef struct bench_shape {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} bench_shape;

__attribute__((target("amx-tile,amx-bf16"))) static double bench_tiles(int processor, size_t rounds)
{
  bench_shape shape;
  uint16_t from[4 * 512];
  double start, second;
  size_t i;
  bench_numbers(from, 4 * 512);
  memset(&shape, 0, sizeof shape);
  shape.palette = 1;
  for (i = 0; i < 8; i++) shape.rows[i] = 16, shape.row_bytes[i] = 64;
  __asm__ volatile("" : : "r"(&shape), "r"(from) : "memory");
  _tile_loadconfig(&shape);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, from, 64);
  _tile_loadd(5, from + 512, 64);
  _tile_loadd(6, from + 1024, 64);
  _tile_loadd(7, from + 1536, 64);
  start = bench_clock(processor);
  for (i = 0; i < 64 * rounds; i++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  second = bench_clock(processor) - start;
  _tile_release();
  return second / (4.0 * 2 * 16 * 16 * 32 * 64 * (double)rounds);
}
#else
static double bench_tiles(int processor, size_t rounds)
{
  (void)processor;
  (void)rounds;
  return 0;
}
#endif

static volatile float bench_sink;

/* Seconds of one operation, measured once over about `rounds` rounds. */
static double bench_floor(igpt_isa isa, int memory, int processor, size_t rounds)
{
  uint16_t numbers[2 * 64 * 24];
  float from[64 * 24];
  double operations, start;
  bench_loop *loop = bench_floor_loop(isa, memory, &operations);
  if (!loop) return 0;
  bench_numbers(numbers, 2 * 64 * 24);
  memcpy(from, numbers, sizeof from);
  start = bench_clock(processor);
  bench_sink = loop(from, rounds);
  return (bench_clock(processor) - start) / (operations * (double)rounds);
}

/* What multiplies bfloat16 here; AUTO: nothing does. */
static igpt_isa bench_bf16(void)
{
  return igpt_isa_supported(IGPT_ISA_AMX) ? IGPT_ISA_AMX
         : igpt_isa_supported(IGPT_ISA_AVX512_BF16) ? IGPT_ISA_AVX512_BF16 : IGPT_ISA_AUTO;
}

#define BENCH_NO_BF16 "bfloat16: skipped: the processor, the system or the compiler has neither " \
                      "AMX nor fast dot products, or does not permit them\n"

/* Seconds of one operation: of tiles or dot products in registers, or of multiply-adds with one
   operand from the first cache. */
static double bench_operation(igpt_isa isa, int processor, size_t rounds)
{
  return isa == IGPT_ISA_AMX ? bench_tiles(processor, rounds / 5)
                             : bench_floor(isa, isa != IGPT_ISA_AVX512_BF16, processor, rounds);
}

/* ---- both processors at once ----------------------------------------------------------------- */

/* Where a machine's two processors share a core, or a neighbour takes half of one, two workers are
   not twice as fast as one. Rounds enough, 40 ms, that waking a worker does not count, nor that
   systems begin both on one processor. */
enum { BENCH_PAIR_ROUNDS = 100000 };

static void bench_pair_task(void *isa, size_t index, int worker)
{
  (void)index;
  (void)worker;
  bench_operation(*(const igpt_isa *)isa, 0, BENCH_PAIR_ROUNDS);
}

/* Two workers do the operations below, each half of them. */
static void bench_pair(igpt_pool *pool, igpt_isa isa)
{
  const igpt_runner runner = igpt_pool_runner(pool);
  runner.run(runner.user, bench_pair_task, &isa, 2);
}

static double bench_pair_operations(igpt_isa isa)
{
  double operations = 4.0 * 2 * 16 * 16 * 32 * 64 / 5;      /* of bench_tiles, a fifth of a round */
  if (isa != IGPT_ISA_AMX && !bench_floor_loop(isa, 1, &operations)) return 0;
  return 2 * operations * BENCH_PAIR_ROUNDS;
}

/* ---- reading memory -------------------------------------------------------------------------- */

/* The rate at which memory can be read depends on how it is asked for, and on how much of it: what
   fits into the last cache comes faster. So an array has the size of what the floor is about, lies
   in huge pages where the system gives them, and is read in the fastest of some ways. */
typedef struct bench_array {
  char  *from;
  size_t bytes;
  igpt_runner runner;
  int    way;
} bench_array;

/* runs side by side in a task, and bytes that each is asked for ahead */
static const struct { size_t runs, ahead; } bench_ways[] = {
  { 1, 0 }, { 1, 4096 }, { 2, 2048 }, { 4, 0 }, { 4, 2048 }, { 8, 1024 }
};
#define BENCH_LARGE ((size_t)512 << 20)        /* bytes that no cache holds */
enum { BENCH_WAYS = 6, BENCH_PIECES = 64, BENCH_LINE = 64, BENCH_HUGE = 1 << 21 };

static void bench_read_task(void *arg, size_t index, int worker)
{
  const bench_array *array = (const bench_array *)arg;
  const size_t runs = bench_ways[array->way].runs, ahead = bench_ways[array->way].ahead;
  const size_t run = array->bytes / (BENCH_PIECES * runs) / (4 * BENCH_LINE) * (4 * BENCH_LINE);
  const char *from = array->from + index * run * runs;
  uint64_t sum[4] = { 0 };
  size_t at, r, i;
  (void)worker;
  for (at = 0; at < run; at += 4 * BENCH_LINE)             /* a word a line brings the line */
    for (r = 0; r < runs; r++)
      for (i = 0; i < 4; i++) {
        const char *line = from + r * run + at + i * BENCH_LINE;
        if (ahead) __builtin_prefetch(line + ahead);
        sum[i] += *(const uint64_t *)(const void *)line;
      }
  bench_sink = (float)(sum[0] + sum[1] + sum[2] + sum[3]);
}

/* Reads it once. */
static void bench_read(bench_array *array)
{
  size_t i;
  if (array->runner.run) array->runner.run(array->runner.user, bench_read_task, array, BENCH_PIECES);
  else for (i = 0; i < BENCH_PIECES; i++) bench_read_task(array, i, 0);
}

static bench_array bench_array_of(size_t bytes, igpt_runner runner)
{
  bench_array array;
  double best = 1e30;
  int way, fastest = 0, i;
  array.bytes = bytes;
  array.runner = runner;
  array.from = (char *)aligned_alloc(BENCH_HUGE, (bytes + 8192 + BENCH_HUGE - 1) / BENCH_HUGE *
                                     BENCH_HUGE);
  if (!array.from) exit(2);
#ifdef MADV_HUGEPAGE
  madvise(array.from, bytes, MADV_HUGEPAGE);
#endif
  memset(array.from, 1, bytes);
  for (way = 0; way < BENCH_WAYS; way++)
    for (i = 0; i < 3; i++) {
      double start = bench_clock(0), time;
      array.way = way;
      bench_read(&array);
      time = bench_clock(0) - start;
      if (time < best) best = time, fastest = way;
    }
  array.way = fastest;
  return array;
}

#endif
