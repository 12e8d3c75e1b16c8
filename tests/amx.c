/* Matrix products on AMX's tiles: packing, products of every shape, the self-test that guards them,
   whole steps of training. The tiles are emulated, so that all of it is tested on every machine;
   where the processor has AMX, the same tests run on it too.

   cc -std=c99 -O2 -I. -o build/tests/amx tests/amx.c -lm -pthread                                */

#define _DEFAULT_SOURCE           /* mmap */
struct igpt__amx;
static const struct igpt__amx *present;     /* what the library finds on this "machine" */
#define IGPT__TILES present
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "part.h"

/* ---- the tiles there are --------------------------------------------------------------------- */

typedef struct unit {
  const char *name;
  const igpt__amx *amx;
} unit;

enum { UNITS = 3 };
static unit units[UNITS];         /* emulated; emulated and packed by vectors; real */

#define EACH_UNIT(u) for (u = units; u < units + UNITS; u++) if (u->amx)

TEST(emulated_vectors)
{
  if (!units[1].amx) SKIP("the processor has no AVX512_BF16, whose packing this is");
  CHECK(units[0].amx->pack != units[1].amx->pack);
}

TEST(real_tiles)
{
  if (!units[2].amx) SKIP("the processor, the system or the compiler has no AMX: emulated only");
  CHECK(units[2].amx->multiply != units[0].amx->multiply);
}

/* ---- packing --------------------------------------------------------------------------------- */

static float float_of(uint32_t bits)
{
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* Where element (lane, p) of packed numbers with k columns lies, written down once more. */
static size_t place(size_t lane, size_t p, size_t k, int pairs)
{
  size_t panel = lane / 32, half = lane % 32 / 16, row = lane % 16, step = p / 32, at = p % 32;
  size_t tile = (panel * ((k + 31) / 32) + step) * 2 + half;
  return tile * 512 + (pairs ? at / 2 * 32 + row * 2 + at % 2 : row * 32 + at);
}

/* Every kind of stride and every edge: each number has its place, zeros fill the rest, and nothing
   outside is touched. */
TEST(packing)
{
  static const size_t counts[] = { 1, 2, 15, 16, 17, 31, 32, 33, 48, 65 };
  static const size_t depths[] = { 1, 2, 3, 15, 16, 17, 31, 32, 33, 50, 64, 67 };
  const unit *u;
  size_t c, d, lane, p;
  int layout, pairs;
  EACH_UNIT(u)
    for (c = 0; c < sizeof counts / sizeof *counts; c++)
      for (d = 0; d < sizeof depths / sizeof *depths; d++)
        for (layout = 0; layout < 3; layout++)
          for (pairs = 0; pairs < 2; pairs++) {
            const size_t count = counts[c], k = depths[d], size = igpt__panels(count, k);
            const size_t lane_stride = layout == 0 ? k + 3 : layout == 1 ? 1 : 2;
            const size_t k_stride = layout == 0 ? 1 : layout == 1 ? count + 1 : 2 * count;
            const size_t floats = (count - 1) * lane_stride + (k - 1) * k_stride + 1;
            float *from = part_random(floats, 1, 1);
            uint16_t *to = (uint16_t *)part_new(size * sizeof *to);
            uint16_t *want = (uint16_t *)part_new(size * sizeof *to);
            CHECK_INT(size, (count + 31) / 32 * 32 * ((k + 31) / 32 * 32));
            memset(to, 0xff, size * sizeof *to);
            memset(want, 0, size * sizeof *to);
            for (lane = 0; lane < count; lane++)
              for (p = 0; p < k; p++) {
                const float x = igpt__round_bf16(from[lane * lane_stride + p * k_stride]);
                uint32_t bits;
                memcpy(&bits, &x, sizeof bits);
                want[place(lane, p, k, pairs)] = (uint16_t)(bits >> 16);
              }
            u->amx->pack(to, from, lane_stride, k_stride, count, k, pairs);
            if (memcmp(to, want, size * sizeof *to)) {
              printf("  %s, %d lanes of %d, layout %d, pairs %d\n", u->name, (int)count, (int)k,
                     layout, pairs);
              test_errors++;
            }
            part_free(from);
            part_free(to);
            part_free(want);
          }
}

/* Ties to even, overflow to infinity, NaN that stays one, denormals that become zeros */
TEST(rounding)
{
  static const struct { uint32_t from; uint16_t to; } cases[] = {
    { 0x3f800000, 0x3f80 }, { 0x3f808000, 0x3f80 }, { 0x3f808001, 0x3f81 }, { 0x3f818000, 0x3f82 },
    { 0xbf818000, 0xbf82 }, { 0x3f817fff, 0x3f81 }, { 0x3fff8000, 0x4000 }, { 0x7f7fffff, 0x7f80 },
    { 0x7f800000, 0x7f80 }, { 0xff800000, 0xff80 }, { 0x7fc00000, 0x7fc0 }, { 0x7f800001, 0x7fc0 },
    { 0xffc12345, 0xffc1 }, { 0x00000000, 0x0000 }, { 0x80000000, 0x8000 }, { 0x00000001, 0x0000 },
    { 0x007fffff, 0x0000 }, { 0x807fffff, 0x8000 }, { 0x00800000, 0x0080 }, { 0x00ffffff, 0x0100 }
  };
  enum { CASES = sizeof cases / sizeof *cases };
  const unit *u;
  int i;
  EACH_UNIT(u) {
    float from[CASES];
    uint16_t to[32 * 32];
    for (i = 0; i < CASES; i++) from[i] = float_of(cases[i].from);
    u->amx->pack(to, from, CASES, 1, 1, CASES, 0);
    for (i = 0; i < CASES; i++) CHECK_INT(to[i], cases[i].to);
    u->amx->pack(to, from, 1, CASES, CASES, 1, 1);
    for (i = 0; i < CASES; i++) CHECK_INT(to[place((size_t)i, 0, 1, 1)], cases[i].to);
  }
}

/* ---- what one instruction computes ----------------------------------------------------------- */

/* c + sum over p of a[p] b[p], p < k <= 32, in output (17,18) of a block, which is in its last
   tile */
static float dot_of(const igpt__amx *amx, float c, const float *a, const float *b, size_t k)
{
  static float x[18 * 32], w[19 * 32], y[18 * 19], sums[1024];
  uint16_t px[1024], pw[1024];
  memset(x, 0, sizeof x);
  memset(w, 0, sizeof w);
  memset(y, 0, sizeof y);
  memcpy(x + 17 * 32, a, k * sizeof *a);
  memcpy(w + 18 * 32, b, k * sizeof *b);
  y[17 * 19 + 18] = c;
  amx->pack(px, x, 32, 1, 18, 32, 0);
  amx->pack(pw, w, 32, 1, 19, 32, 1);
  amx->multiply(y, 19, px, pw, 18, 19, 32, 1, sums);
  return y[17 * 19 + 18];
}

/* Sums of the even and of the odd products, each rounded at every step, and their sum: numbers that
   every other order would round differently. Denormals count as zero, coming and going. */
TEST(one_instruction)
{
  const float big = 16777216.0f, tiny = float_of(0x00400000), least = float_of(0x00800000);
  const unit *u;
  EACH_UNIT(u) {
    float a[8], ones[8];
    int i;
    for (i = 0; i < 8; i++) ones[i] = 1;
    a[0] = big, a[1] = 1, a[2] = 1, a[3] = 1;
    CHECK(dot_of(u->amx, 0, a, ones, 4) == big + 2);       /* 2^24 + 1 is lost, 1 + 1 is not */
    a[0] = 1, a[1] = big, a[2] = 1, a[3] = 1;
    CHECK(dot_of(u->amx, 0, a, ones, 4) == big + 2);
    a[0] = 1, a[1] = 1, a[2] = big, a[3] = 1;
    CHECK(dot_of(u->amx, 0, a, ones, 4) == big + 2);
    a[0] = 3, a[1] = big;
    CHECK(dot_of(u->amx, 0, a, ones, 2) == big + 4);       /* a tie, to even */
    a[0] = tiny;
    ones[0] = big;
    CHECK(dot_of(u->amx, 0, a, ones, 1) == 0);
    CHECK(dot_of(u->amx, 2, a, ones, 1) == 2);
    a[0] = least;
    CHECK(dot_of(u->amx, 0, a, ones, 1) == least * big);
    ones[0] = ones[2] = 0.5f;
    CHECK(dot_of(u->amx, 0, a, ones, 1) == 0);
    a[1] = 0, a[2] = least;                                 /* two halves are not a whole then */
    CHECK(dot_of(u->amx, 0, a, ones, 3) == 0);
    a[0] = INFINITY;
    CHECK(dot_of(u->amx, 1, a, ones, 1) == INFINITY);
    ones[0] = 0;
    CHECK(isnan(dot_of(u->amx, 1, a, ones, 1)));
  }
}

/* ---- products -------------------------------------------------------------------------------- */

typedef struct shape {
  size_t m, n, k;
} shape;

/* Around the edges of tiles (16), panels (32) and strips (64 rows); a sum and rows beyond 1024 and
   columns beyond 2048, which are packed in two parts; a slab of B that is several blocks */
static const shape shapes[] = {
  { 17, 1, 1 }, { 17, 2, 3 }, { 18, 16, 31 }, { 31, 17, 32 }, { 32, 32, 32 }, { 33, 31, 33 },
  { 48, 33, 63 }, { 49, 15, 64 }, { 64, 64, 65 }, { 65, 47, 97 }, { 95, 100, 101 },
  { 130, 129, 70 }, { 20, 21, 1025 }, { 1030, 33, 40 }, { 34, 2051, 35 }, { 40, 900, 1030 }
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* A (m,k) and B (k,n), transposed as bits 0 and 1 of `turn` say */
typedef struct operands {
  float *a, *b;
  size_t a_row, a_column, b_row, b_column;
} operands;

static operands operands_make(shape s, int turn)
{
  operands o;
  o.a_row = turn & 1 ? 1 : s.k + 1;
  o.a_column = turn & 1 ? s.m + 3 : 1;
  o.b_row = turn & 2 ? 1 : s.n;
  o.b_column = turn & 2 ? s.k + 2 : 1;
  o.a = part_random((s.m - 1) * o.a_row + (s.k - 1) * o.a_column + 1, 1, 1);
  o.b = part_random((s.k - 1) * o.b_row + (s.n - 1) * o.b_column + 1, 1, 2);
  return o;
}

static void operands_free(operands *o)
{
  part_free(o->a);
  part_free(o->b);
}

static void product(const igpt__amx *amx, float *c, size_t ldc, const operands *o, shape s,
                    int accumulate, int workers, int order)
{
  part_math m;
  part_math_open(&m, IGPT_ISA_AUTO, igpt__amx_shared(s.m, s.n, s.k),
                 igpt__matmul_worker(igpt_kernels_for(IGPT_ISA_AUTO)), workers, order, 1);
  m.math.amx = amx;
  igpt__matmul(&m.math, c, ldc, o->a, o->a_row, o->a_column, o->b, o->b_row, o->b_column, s.m,
               s.n, s.k, accumulate);
  part_math_close(&m);
}

TEST(against_float64)
{
  const unit *u;
  size_t at, i, j, p;
  int turn, accumulate;
  EACH_UNIT(u)
    for (at = 0; at < SHAPES; at++)
      for (turn = 0; turn < 4; turn++)
        for (accumulate = 0; accumulate < 2; accumulate++) {
          const shape s = shapes[at];
          const size_t ldc = s.n + 3, floats = (s.m - 1) * ldc + s.n;
          const int large = s.m * s.n * s.k > 500000;
          operands o;
          float *c, *c0;
          if (large && turn != (int)(at & 3) && turn != 2) continue;
          o = operands_make(s, turn);
          c = part_random(floats, 1, 3);
          c0 = part_copy(c, floats);
          if (!accumulate)
            for (i = 0; i < s.m; i++)
              for (j = 0; j < s.n; j++) c[i * ldc + j] = NAN;
          product(u->amx, c, ldc, &o, s, accumulate, 1, 0);
          for (i = 0; i < s.m; i++) {
            for (j = i % 3; j < s.n; j += large ? 7 : 1) {
              double want = accumulate ? c0[i * ldc + j] : 0, size = fabs(want);
              for (p = 0; p < s.k; p++) {
                double term = (double)igpt__round_bf16(o.a[i * o.a_row + p * o.a_column]) *
                              (double)igpt__round_bf16(o.b[p * o.b_row + j * o.b_column]);
                want += term;
                size += fabs(term);
              }
              CHECK_NEAR(c[i * ldc + j], want, 0.1 * (double)(s.k + 10) * FLT_EPSILON * size);
            }
            if (i + 1 < s.m) CHECK(part_same(c + i * ldc + s.n, c0 + i * ldc + s.n, 3));
          }
          part_free(c);
          part_free(c0);
          operands_free(&o);
        }
}

/* 1, 2 and 7 workers in three orders, and all tiles: the same bits */
TEST(workers)
{
  static const int workers[] = { 1, 2, 7 };
  const unit *u;
  size_t at;
  int w;
  for (at = 0; at < SHAPES; at++) {
    const shape s = shapes[at];
    operands o = operands_make(s, (int)at & 3);
    float *c = part_random(s.m * s.n, 1, 4), *start = part_copy(c, s.m * s.n);
    product(units[0].amx, c, s.n, &o, s, 1, 1, 0);
    EACH_UNIT(u)
      for (w = 0; w < 3; w++) {
        float *d = part_copy(start, s.m * s.n);
        product(u->amx, d, s.n, &o, s, 1, workers[w], w);
        CHECK(part_same(c, d, s.m * s.n));
        part_free(d);
      }
    part_free(c);
    part_free(start);
    operands_free(&o);
  }
}

/* An element's bits depend on its own row, column and k alone. */
TEST(alone)
{
  const shape s = { 83, 101, 1100 }, part = { 33, 40, 1100 };
  const unit *u;
  EACH_UNIT(u) {
    operands o = operands_make(s, 0), inner = o;
    float *c = part_floats(s.m * s.n), *d = part_floats(part.m * part.n);
    size_t i;
    product(u->amx, c, s.n, &o, s, 0, 1, 0);
    inner.a = o.a + 19 * o.a_row;
    inner.b = o.b + 37 * o.b_column;
    product(u->amx, d, part.n, &inner, part, 0, 1, 0);
    for (i = 0; i < part.m; i++) CHECK(part_same(c + (19 + i) * s.n + 37, d + i * part.n, part.n));
    part_free(c);
    part_free(d);
    operands_free(&o);
  }
}

/* ---- sessions -------------------------------------------------------------------------------- */

/* The first tiles, counted. What the library calls has no user pointer, hence the globals. */
static int multiplied;

static void pack_first(uint16_t *to, const float *from, size_t lane_stride, size_t k_stride,
                       size_t count, size_t k, int pairs)
{
  units[0].amx->pack(to, from, lane_stride, k_stride, count, k, pairs);
}

static void multiply_counted(float *c, size_t ldc, const uint16_t *a, const uint16_t *b, size_t m,
                             size_t n, size_t k, int accumulate, float *sums)
{
  multiplied++;
  units[0].amx->multiply(c, ldc, a, b, m, n, k, accumulate, sums);
}

/* One that forgets the last k, and one that confuses the halves of a pair of A */
static void multiply_short(float *c, size_t ldc, const uint16_t *a, const uint16_t *b, size_t m,
                           size_t n, size_t k, int accumulate, float *sums)
{
  uint16_t cut[2048];
  size_t i;
  memcpy(cut, a, sizeof cut);
  for (i = 0; i < 32; i++) cut[place(i, k - 1, k, 0)] = 0;
  units[0].amx->multiply(c, ldc, cut, b, m, n, k, accumulate, sums);
}

static void pack_swapped(uint16_t *to, const float *from, size_t lane_stride, size_t k_stride,
                         size_t count, size_t k, int pairs)
{
  size_t i;
  units[0].amx->pack(to, from, lane_stride, k_stride, count, k, pairs);
  if (!pairs && lane_stride == 1)
    for (i = 0; i < igpt__panels(count, k); i += 2) {
      uint16_t first = to[i];
      to[i] = to[i + 1];
      to[i + 1] = first;
    }
}

static const igpt__amx counted = { pack_first, multiply_counted };
static const igpt__amx short_sums = { pack_first, multiply_short };
static const igpt__amx swapped = { pack_swapped, multiply_counted };

static igpt_model *model_open(igpt_objective objective)
{
  igpt_model_desc desc;
  igpt_model *model = NULL;
  size_t i;
  memset(&desc, 0, sizeof desc);
  desc.config.layers = 2;
  desc.config.heads = 3;
  desc.config.width = 42;
  desc.config.rows = 5;
  desc.config.columns = 7;
  desc.config.vocabulary = 37;
  desc.config.objective = objective;
  CHECK_INT(igpt_model_create(&model, &desc), IGPT_OK);
  part_fill(model->weights.lm_head, 37 * 42, 0.3f, 9);    /* they start at zero */
  for (i = 0; i < 2; i++) part_fill(model->weights.block[i].ln_1, 42, 1.5f, 10 + i);
  return model;
}

static igpt_result create(igpt_session **session, const igpt_model *model, igpt_isa isa,
                          igpt_precision precision, heard *ear)
{
  igpt_session_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.isa = isa;
  desc.precision = precision;
  desc.log.line = hear;
  desc.log.user = ear;
  return igpt_session_create(session, model, &desc);
}

#define CHECK_SESSION(wanted_isa, wanted_precision, isa_got, precision_got)                       \
  do {                                                                                            \
    CHECK_INT(create(&session, model, wanted_isa, wanted_precision, &ear), IGPT_OK);              \
    CHECK_INT(igpt_session_resolved(session)->isa, isa_got);                                      \
    CHECK_INT(igpt_session_resolved(session)->precision, precision_got);                          \
    CHECK(session->math.amx == (isa_got == IGPT_ISA_AMX ? present : NULL));                       \
    CHECK_INT(session->math.round, precision_got == IGPT_BF16);                                   \
    igpt_session_destroy(session);                                                                \
  } while (0)

/* Who gets tiles, and what happens where there are none, or wrong ones */
TEST(refused)
{
  const igpt_isa best = igpt_isa_best();
  const igpt__amx *const wrong[] = { &short_sums, &swapped };
  igpt_model *model = model_open(IGPT_AR);
  igpt_session *session;
  heard ear;
  int i;
  memset(&ear, 0, sizeof ear);

  present = NULL;
  CHECK(!igpt_isa_supported(IGPT_ISA_AMX) && !igpt_kernels_for(IGPT_ISA_AMX));
  CHECK_INT(igpt_selftest(IGPT_ISA_AMX), IGPT_UNSUPPORTED);
  CHECK_SESSION(IGPT_ISA_AUTO, IGPT_BF16, best, IGPT_BF16);
  CHECK_SESSION(IGPT_ISA_AUTO, IGPT_PRECISION_AUTO, best, IGPT_F32);
  CHECK_INT(create(&session, model, IGPT_ISA_AMX, IGPT_BF16, &ear), IGPT_UNSUPPORTED);
  CHECK(session == NULL && strstr(ear.text, "amx"));

  present = &counted;
  CHECK(igpt_isa_supported(IGPT_ISA_AMX) && igpt_isa_best() == best);
  CHECK(igpt_kernels_for(IGPT_ISA_AMX) == igpt_kernels_for(best));
  CHECK_INT(igpt_selftest(IGPT_ISA_AMX), IGPT_OK);
  CHECK_SESSION(IGPT_ISA_AUTO, IGPT_BF16, IGPT_ISA_AMX, IGPT_BF16);
  CHECK_SESSION(IGPT_ISA_AMX, IGPT_BF16, IGPT_ISA_AMX, IGPT_BF16);
  CHECK_SESSION(IGPT_ISA_AUTO, IGPT_PRECISION_AUTO, IGPT_ISA_AMX, IGPT_BF16);
  CHECK_SESSION(IGPT_ISA_AUTO, IGPT_F32, best, IGPT_F32);
  CHECK_SESSION(IGPT_ISA_AMX, IGPT_F32, best, IGPT_F32);
  CHECK_SESSION(best, IGPT_BF16, best, IGPT_BF16);
  CHECK_SESSION(IGPT_ISA_GENERIC, IGPT_BF16, IGPT_ISA_GENERIC, IGPT_BF16);

  for (i = 0; i < 2; i++) {
    present = wrong[i];
    ear.lines = 0;
    CHECK_INT(igpt_selftest(IGPT_ISA_AMX), IGPT_SELFTEST_FAILED);
    CHECK_SESSION(IGPT_ISA_AUTO, IGPT_BF16, best, IGPT_BF16);
    CHECK_SESSION(IGPT_ISA_AUTO, IGPT_PRECISION_AUTO, best, IGPT_F32);
    CHECK_INT(ear.lines, 0);
    CHECK_INT(create(&session, model, IGPT_ISA_AMX, IGPT_BF16, &ear), IGPT_SELFTEST_FAILED);
    CHECK(session == NULL && strstr(ear.text, "amx"));
  }
  igpt_model_destroy(model);
}

/* ---- training and decoding ------------------------------------------------------------------- */

enum { PICTURES = 5, T = 35, V = 37 };

/* The gradients of a batch in BF16 (malloc), its loss, and how often tiles multiplied */
static float *gradients(igpt_objective objective, igpt_isa isa, int workers, double *loss)
{
  igpt_model *model = model_open(objective);
  igpt_session *session = NULL;
  igpt_session_desc desc;
  igpt_batch batch;
  igpt_losses losses;
  igpt_rng rng = igpt_rng_seed(3, 0);
  part_runner runner;
  uint16_t tokens[PICTURES * T];
  uint8_t mask[PICTURES * T];
  float *block = NULL, *copy;
  size_t i, count = 0, pictures;
  for (i = 0; i < PICTURES * T; i++) tokens[i] = (uint16_t)igpt_rng_below(&rng, V);
  igpt_mask_random(&rng, mask, PICTURES * T, 0.3f);
  memset(&desc, 0, sizeof desc);
  memset(&batch, 0, sizeof batch);
  runner.workers = workers;
  runner.order = 2;
  desc.train = 1;
  desc.batch = 3;
  desc.isa = isa;
  desc.precision = IGPT_BF16;
  desc.runner.run = part_run;
  desc.runner.user = &runner;
  desc.runner.workers = workers;
  batch.tokens = tokens;
  batch.mask = objective == IGPT_BERT ? mask : NULL;
  batch.count = PICTURES;
  CHECK_INT(igpt_session_create(&session, model, &desc), IGPT_OK);
  if (!session) exit(2);
  CHECK_INT(igpt_backward(session, &losses, &batch, NULL), IGPT_OK);
  CHECK_INT(igpt_gradients(session, &block, &count, &pictures), IGPT_OK);
  CHECK_INT(count, igpt_model_parameters(model));
  *loss = losses.generative;
  copy = (float *)malloc((count + 1) * sizeof *copy);
  if (!copy) exit(2);
  memcpy(copy, block, count * sizeof *copy);
  copy[count] = (float)losses.generative;
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  return copy;
}

/* Loss and gradients as the generic row has them in the same precision: both round operands to
   eight bits, so a sum that differs in its last bit now and then sends an operand the other way. */
TEST(training)
{
  int objective;
  for (objective = IGPT_AR; objective <= IGPT_BERT; objective++) {
    const igpt_objective o = (igpt_objective)objective;
    igpt_model *model = model_open(o);
    const size_t n = igpt_model_parameters(model);
    double loss, generic_loss, error = 0, size = 0;
    float *generic = gradients(o, IGPT_ISA_GENERIC, 1, &generic_loss), *first = NULL;
    const unit *u;
    size_t i;
    EACH_UNIT(u) {
      float *tiles, *again;
      present = u == units ? &counted : u->amx;
      multiplied = 0;
      tiles = gradients(o, IGPT_ISA_AMX, 1, &loss);
      if (u == units) CHECK(multiplied >= 2 * (13 * 2 + 3));    /* passes x products, at least */
      for (error = size = 0, i = 0; i < n; i++) {
        error += pow((double)tiles[i] - (double)generic[i], 2);
        size += pow((double)generic[i], 2);
      }
      printf("  %s: loss %.6f, generic %.6f; gradients differ by %.2g\n", u->name, loss,
             generic_loss, sqrt(error / size));
      CHECK_NEAR(loss, generic_loss, 2e-4 * generic_loss);
      CHECK(sqrt(error / size) < 3e-3 && sqrt(error / size) > 1e-8);
      again = gradients(o, IGPT_ISA_AMX, 7, &loss);
      CHECK(part_same(tiles, again, n + 1));
      if (first) CHECK(part_same(tiles, first, n + 1));
      free(again);
      if (first) free(tiles);
      else first = tiles;
    }
    free(first);
    free(generic);
    igpt_model_destroy(model);
  }
}

/* Decoding a position has few rows and takes the products of the kernels: it equals the full pass
   to rounding, where without AMX it does to the bit. Most operands of the next product even round
   to the same eight bits. */
TEST(decoding)
{
  const unit *u;
  EACH_UNIT(u) {
    igpt_model *model = model_open(IGPT_AR);
    igpt_session *session = NULL;
    static float logits[T * V], one[V];
    uint16_t tokens[T];
    igpt_rng rng = igpt_rng_seed(4, 0);
    igpt_batch batch;
    double error = 0, size = 0;
    heard ear;
    int i, j;
    for (i = 0; i < T; i++) tokens[i] = (uint16_t)igpt_rng_below(&rng, V);
    memset(&batch, 0, sizeof batch);
    batch.tokens = tokens;
    batch.count = 1;
    present = u->amx;
    CHECK_INT(create(&session, model, IGPT_ISA_AMX, IGPT_BF16, &ear), IGPT_OK);
    if (!session) exit(2);
    CHECK_INT(igpt_forward(session, logits, &batch), IGPT_OK);
    CHECK_INT(igpt_decode_begin(session, tokens, 20, 1), IGPT_OK);
    for (i = 20; i < T; i++) {
      CHECK_INT(igpt_decode(session, one, i == 20 ? NULL : &tokens[i - 1]), IGPT_OK);
      for (j = 0; j < V; j++) {
        error += pow((double)one[j] - (double)logits[i * V + j], 2);
        size += pow((double)logits[i * V + j], 2);
      }
    }
    printf("  %s: cached logits differ by %.2g\n", u->name, sqrt(error / size));
    CHECK(sqrt(error / size) < 3e-3);
    igpt_session_destroy(session);
    igpt_model_destroy(model);
  }
}

int main(void)
{
  units[0].name = "emulated";
  units[0].amx = &igpt__tiles_unit_plain;
  units[1].name = "emulated, packed by vectors";
  units[1].amx = igpt__amx_emulated();
  units[2].name = "AMX";
  units[2].amx = igpt__amx_real();
  RUN(emulated_vectors);
  RUN(real_tiles);
  RUN(packing);
  RUN(rounding);
  RUN(one_instruction);
  RUN(against_float64);
  RUN(workers);
  RUN(alone);
  RUN(refused);
  RUN(training);
  RUN(decoding);
  return test_done();
}
