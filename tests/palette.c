/* palette.c: k-means on colours, encoding against a search of all centres in exact arithmetic,
   decoding, and what the palette does with bad input, little memory and impatient callers.       */

#define _DEFAULT_SOURCE           /* mmap */
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "part.h"

/* ---- helpers -------------------------------------------------------------------------------- */

/* Pixels around `lumps` places of the cube, with many colours and some of them often. */
static uint8_t *picture(size_t pixels, uint32_t lumps, int spread, uint64_t stream)
{
  uint8_t *rgb = (uint8_t *)malloc(3 * pixels + 1);
  igpt_rng rng = igpt_rng_seed(11, stream);
  size_t i;
  int j;
  if (!rgb) exit(2);
  for (i = 0; i < pixels; i++) {
    igpt_rng lump = igpt_rng_seed(12 + stream, igpt_rng_below(&rng, lumps));
    for (j = 0; j < 3; j++) {
      int v = (int)igpt_rng_below(&lump, 256);
      v += (int)((float)spread * 0.5f * igpt_rng_normal(&rng));
      rgb[3 * i + (size_t)j] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
  }
  return rgb;
}

static igpt_palette palette_of(int colours)
{
  igpt_palette p;
  memset(&p, 0, sizeof p);
  p.colours = colours;
  return p;
}

static double step_of(float c) { return 127.5 * ((double)c + 1); }

/* Squared distance in 8-bit steps, in double. */
static double distance(const igpt_palette *p, int index, const uint8_t *rgb)
{
  double sum = 0;
  int j;
  for (j = 0; j < 3; j++) {
    double d = (double)rgb[j] - step_of(p->centre[index][j]);
    sum += d * d;
  }
  return sum;
}

static int brute_force(const igpt_palette *p, const uint8_t *rgb, double *least, double *second)
{
  int i, best = 0;
  *least = *second = 1e300;
  for (i = 0; i < p->colours; i++) {
    double d = distance(p, i, rgb);
    if (d < *least) { *second = *least; *least = d; best = i; }
    else if (d < *second) *second = d;
  }
  return best;
}

static double luma(const igpt_palette *p, int i)
{
  return 0.299 * step_of(p->centre[i][0]) + 0.587 * step_of(p->centre[i][1]) +
         0.114 * step_of(p->centre[i][2]);
}

/* ---- encode, decode, error ------------------------------------------------------------------- */

/* Random palettes of awkward sizes: the nearest centre in float64. Two centres at the same distance
   but for the rounding of squares in float32 are a tie, and either may come out. */
TEST(encode_is_the_nearest)
{
  const int sizes[] = {1, 2, 3, 63, 64, 65, 127, 500, 511, 512};
  enum { N = 3001 };
  static uint16_t tokens[N + 2];
  uint8_t *rgb = picture(N, 40, 60, 1);
  size_t s, i;
  int j, ties = 0;
  for (s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    igpt_palette p = palette_of(sizes[s]);
    igpt_rng rng = igpt_rng_seed(3, s);
    for (i = 0; i < (size_t)sizes[s]; i++)
      for (j = 0; j < 3; j++) p.centre[i][j] = 2 * igpt_rng_uniform(&rng) - 1;
    tokens[0] = tokens[N + 1] = 0xabcd;
    CHECK_INT(igpt_palette_encode(&p, tokens + 1, rgb, N, NULL), IGPT_OK);
    CHECK(tokens[0] == 0xabcd && tokens[N + 1] == 0xabcd);
    for (i = 0; i < N; i++) {
      double least, second;
      int best = brute_force(&p, rgb + 3 * i, &least, &second);
      if (tokens[i + 1] == best) continue;
      if (tokens[i + 1] >= sizes[s] ||
          distance(&p, tokens[i + 1], rgb + 3 * i) > least * (1 + 1e-6) + 1e-4) {
        CHECK_INT(tokens[i + 1], best);
        break;
      }
      ties++;
    }
  }
  CHECK(ties < 5);
  free(rgb);
}

/* Centres on whole and quarter steps: everything is exact, so ties are ties, and the lowest index
   wins, whatever the order of the centres. */
TEST(encode_ties)
{
  enum { N = 4096 };
  static uint8_t rgb[3 * N];
  static uint16_t tokens[N];
  int turn, i, j, tied = 0;
  for (turn = 0; turn < 20; turn++) {
    static int at[512][3];                  /* in quarters of a step */
    int k = turn < 10 ? 512 : 50 + turn;
    igpt_palette p = palette_of(k);
    igpt_rng rng = igpt_rng_seed(4, (uint64_t)turn);
    for (i = 0; i < k; i++)
      for (j = 0; j < 3; j++) {
        at[i][j] = turn % 2 ? 8 * (int)igpt_rng_below(&rng, 30) : (int)igpt_rng_below(&rng, 250);
        p.centre[i][j] = (float)((double)at[i][j] / 4 / 127.5 - 1);
      }
    for (i = 0; i < 3 * N; i++) rgb[i] = (uint8_t)igpt_rng_below(&rng, 64);
    CHECK_INT(igpt_palette_encode(&p, tokens, rgb, N, NULL), IGPT_OK);
    for (i = 0; i < N; i++) {
      int best = 0, least = 0x7fffffff, c, equal = 0;
      for (c = 0; c < k; c++) {
        int d = 0;
        for (j = 0; j < 3; j++) {
          int e = 4 * rgb[3 * i + j] - at[c][j];
          d += e * e;
        }
        if (d == least) equal = 1;
        if (d < least) { least = d; best = c; equal = 0; }
      }
      tied += equal;
      if (tokens[i] != best) {
        CHECK_INT(tokens[i], best);
        break;
      }
    }
  }
  CHECK(tied > 1000);                       /* or this was not about ties */
}

/* Runs of equal pixels share one search: their place must not matter. */
TEST(encode_runs)
{
  enum { N = 1000 };
  uint8_t *rgb = picture(N, 3, 4, 2);
  uint16_t tokens[N], one;
  igpt_palette p;
  size_t i;
  igpt_kmeans_desc desc = {0};
  desc.colours = 20;
  for (i = 1; i < N; i++)
    if (i % 7 || i % 256 == 0) memcpy(rgb + 3 * i, rgb + 3 * i - 3, 3);
  CHECK_INT(igpt_palette_fit(&p, NULL, rgb, N, &desc), IGPT_OK);
  CHECK_INT(igpt_palette_encode(&p, tokens, rgb, N, NULL), IGPT_OK);
  for (i = 0; i < N; i++) {
    CHECK_INT(igpt_palette_encode(&p, &one, rgb + 3 * i, 1, NULL), IGPT_OK);
    CHECK_INT(tokens[i], one);
  }
  free(rgb);
}

/* ---- encode by the table -------------------------------------------------------------------- */

enum { SLICE = 1 << 20 };

/* Tokens without the table: the allocator has nothing. */
static void encode_plainly(const igpt_palette *p, uint16_t *tokens, const uint8_t *rgb, size_t n,
                           igpt_isa isa)
{
  igpt_encode_desc desc = {0};
  purse memory;
  desc.isa = isa;
  desc.allocator = purse_allocator(&memory);
  memory.fail_at = 0;
  CHECK_INT(igpt_palette_encode(p, tokens, rgb, n, &desc), IGPT_OK);
  CHECK_INT(memory.held, 0);
}

/* Some palettes that are hard on the table. */
static igpt_palette hard_palette(int number)
{
  const int colours[] = {512, 256, 200, 300, 130, 1};
  igpt_palette p = palette_of(colours[number]);
  igpt_rng rng = igpt_rng_seed(31, (uint64_t)number);
  int i, j;
  for (i = 0; i < p.colours; i++)
    for (j = 0; j < 3; j++) {
      float u = 2 * igpt_rng_uniform(&rng) - 1, *c = &p.centre[i][j];
      switch (number) {
        case 0: *c = u; break;                              /* anywhere, off the grid of bytes */
        case 1: *c = (float)(i / 127.5 - 1); break;         /* greys, all of them */
        case 2: *c = 0.02f * u; break;                      /* many in a few steps: deep nodes */
        case 3:                                             /* each a dozen times, and far away */
          *c = (float)((int)(igpt_rng_below(&rng, 3) * 60) / 127.5 - 1);
          if (i % 100 == 0) *c *= 4000;
          break;
        case 4:                                             /* on bytes: many true ties */
          *c = (float)((int)(igpt_rng_below(&rng, 32) * 8) / 127.5 - 1);
          break;
        default: *c = 0.3f;
      }
    }
  return p;
}
enum { HARD_PALETTES = 6 };

/* All 2^24 colours, by the table and by looking at all centres. Where only the generic kernels are,
   that would take minutes: there one in 127 of them, which differ in all bits. */
TEST(table_knows_all_colours)
{
  const size_t step = TEST_AMOUNT(igpt_isa_best() == IGPT_ISA_GENERIC ? 127 : 1, 1009);
  const size_t all = ((size_t)1 << 24) / step, n = all < SLICE ? all : SLICE;
  uint8_t *rgb = (uint8_t *)malloc(3 * SLICE);
  uint16_t *fast = (uint16_t *)malloc(2 * SLICE), *plain = (uint16_t *)malloc(2 * SLICE);
  int number;
  size_t first, i;
  if (!rgb || !fast || !plain) exit(2);
  for (number = 0; number < HARD_PALETTES; number++) {
    igpt_palette p = hard_palette(number);
    for (first = 0; first + n <= all; first += n) {
      for (i = 0; i < n; i++) {
        const size_t colour = (first + i) * step;
        rgb[3 * i] = (uint8_t)(colour >> 16);
        rgb[3 * i + 1] = (uint8_t)(colour >> 8);
        rgb[3 * i + 2] = (uint8_t)colour;
      }
      encode_plainly(&p, plain, rgb, n, IGPT_ISA_AUTO);
      memset(fast, 255, 2 * n);
      CHECK_INT(igpt_palette_encode(&p, fast, rgb, n, NULL), IGPT_OK);
      if (memcmp(fast, plain, 2 * n) == 0) continue;
      for (i = 0; fast[i] == plain[i]; i++) {}
      printf("  palette %d, colour %d %d %d\n", number, rgb[3 * i], rgb[3 * i + 1],
             rgb[3 * i + 2]);
      CHECK_INT(fast[i], plain[i]);
    }
  }
  free(rgb);
  free(fast);
  free(plain);
}

/* Every instruction set, any number of workers, pixels in no order, with and without a part of a
   block at the end; and the allocator gets everything back. */
TEST(table_everywhere)
{
  enum { N = 140001 };
  const int workers[] = {1, 2, 7};
  uint8_t *rgb = (uint8_t *)part_new(3 * N);
  uint16_t *fast = (uint16_t *)part_new(2 * N), *plain = (uint16_t *)malloc(2 * N);
  igpt_rng rng = igpt_rng_seed(32, 0);
  int isa, number, i;
  if (!plain) exit(2);
  for (i = 0; i < 3 * N; i++) rgb[i] = (uint8_t)(igpt_rng_next(&rng) >> (i % 2 ? 24 : 26));
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++) {
    if (!igpt_isa_supported((igpt_isa)isa)) continue;
    for (number = 0; number < HARD_PALETTES; number += TEST_AMOUNT(1, 4)) {
      igpt_palette p = hard_palette(number);
      encode_plainly(&p, plain, rgb, N, (igpt_isa)isa);
      for (i = 0; i < 3; i++) {
        igpt_encode_desc desc = {0};
        part_runner runner;
        purse memory;
        runner.workers = workers[i];
        runner.order = i;
        desc.isa = (igpt_isa)isa;
        desc.runner.run = part_run;
        desc.runner.user = &runner;
        desc.runner.workers = workers[i];
        desc.allocator = purse_allocator(&memory);
        memset(fast, 255, 2 * N);
        CHECK_INT(igpt_palette_encode(&p, fast, rgb, N, &desc), IGPT_OK);
        CHECK_INT(memory.calls, number < 5);      /* one colour is not worth a table */
        CHECK_INT(memory.held, 0);
        CHECK(memcmp(fast, plain, 2 * N) == 0);
      }
    }
  }
  part_free(rgb);
  part_free(fast);
  free(plain);
}

/* A crowded place is divided, as deep as it takes, and nodes that run out are no harm. */
TEST(table_divides)
{
  const uint8_t black[3] = {96, 96, 96};
  const igpt_kernels *kernels = igpt_kernels_for(IGPT_ISA_AUTO);
  igpt__cells *cells = (igpt__cells *)malloc(sizeof *cells);
  igpt__nearby all;
  igpt_palette p = hard_palette(2);
  int full, i, kinds[4] = {0, 0, 0, 0};
  if (!cells) exit(2);
  igpt__palette_nearby(&all, &p);
  for (full = 0; full < 2; full++) {
    memset(kinds, 0, sizeof kinds);
    memset(cells->kind, IGPT__NODE_NEW, sizeof cells->kind);
    cells->nodes = full ? IGPT__NODES : IGPT__CELLS;
    igpt__cells_grow(cells, igpt__cell_of(black), black, 0, &all, kernels);
    for (i = 0; i < IGPT__NODES; i++) kinds[cells->kind[i]]++;
    CHECK_INT(kinds[IGPT__NODE_SPLIT] * 8 + 64, IGPT__NODES - kinds[IGPT__NODE_NEW]);
    CHECK_INT(cells->nodes, full ? IGPT__NODES : IGPT__CELLS + 8 * kinds[IGPT__NODE_SPLIT]);
    CHECK((kinds[IGPT__NODE_SPLIT] > 9) == !full);
    CHECK((kinds[IGPT__NODE_CROWDED] > 0) == full);
  }
  free(cells);
}

TEST(decode_rounds_half_to_even)
{
  igpt_palette p = palette_of(6);
  uint16_t tokens[6] = {0, 1, 2, 3, 4, 5};
  uint8_t rgb[18];
  float half = 0, odd = 0, x;
  int i;
  /* Centres whose 127.5 (c + 1) is k + 1/2 in float32: 0 gives 127.5, others are looked for. */
  for (x = -0.999f; x < 0.999f && (half == 0 || odd == 0); x += 3e-6f) {
    float v = 127.5f * (x + 1.0f);
    if (v - floorf(v) == 0.5f) {
      if (fmodf(floorf(v), 2) == 0) half = x;
      else odd = x;
    }
  }
  CHECK(half != 0 && odd != 0);
  p.centre[0][0] = 0;
  p.centre[0][1] = half;                    /* even + 1/2: down */
  p.centre[0][2] = odd;                     /* odd + 1/2: up */
  p.centre[1][0] = -1;
  p.centre[1][1] = 1;
  p.centre[1][2] = -0.999f;
  p.centre[2][0] = -3;                      /* outside: clamped */
  p.centre[2][1] = 2;
  p.centre[2][2] = 1.0001f;
  CHECK_INT(igpt_palette_decode(&p, rgb, tokens, 6), IGPT_OK);
  CHECK_INT(rgb[0], 128);
  CHECK_INT(rgb[1], (int)floorf(127.5f * (half + 1.0f)));
  CHECK_INT(rgb[2], (int)floorf(127.5f * (odd + 1.0f)) + 1);
  CHECK(rgb[1] % 2 == 0 && rgb[2] % 2 == 0);
  CHECK_INT(rgb[3], 0);
  CHECK_INT(rgb[4], 255);
  CHECK_INT(rgb[5], 0);
  CHECK_INT(rgb[6], 0);
  CHECK_INT(rgb[7], 255);
  CHECK_INT(rgb[8], 255);
  for (i = 0; i < 256; i++) {               /* every byte survives its way to [-1, 1] and back */
    p.centre[0][0] = (float)((double)i / 127.5 - 1);
    CHECK_INT(igpt_palette_decode(&p, rgb, tokens, 1), IGPT_OK);
    CHECK_INT(rgb[0], i);
    CHECK(igpt__palette_step_of(p.centre[0][0]) == (float)i);
  }
}

TEST(decode_refuses_strange_tokens)
{
  igpt_palette p = palette_of(5);
  uint16_t tokens[3] = {4, 0, 5};
  uint8_t rgb[9];
  memset(rgb, 9, sizeof rgb);
  CHECK_INT(igpt_palette_decode(&p, rgb, tokens, 3), IGPT_BAD_ARGUMENT);
  CHECK(rgb[0] == 9 && rgb[8] == 9);
  CHECK_INT(igpt_palette_decode(&p, rgb, tokens, 2), IGPT_OK);
  CHECK_INT(rgb[0], 128);
  CHECK_INT(rgb[6], 9);
}

TEST(error_by_hand)
{
  enum { N = 777 };
  uint8_t *rgb = picture(N, 30, 50, 5), back[3 * N];
  uint16_t tokens[N];
  igpt_palette p;
  igpt_kmeans_desc desc = {0};
  double mse = -1, psnr = -1, sum = 0;
  size_t i;
  desc.colours = 17;
  CHECK_INT(igpt_palette_fit(&p, NULL, rgb, N, &desc), IGPT_OK);
  CHECK_INT(igpt_palette_encode(&p, tokens, rgb, N, NULL), IGPT_OK);
  CHECK_INT(igpt_palette_decode(&p, back, tokens, N), IGPT_OK);
  for (i = 0; i < 3 * N; i++) sum += ((double)rgb[i] - back[i]) * ((double)rgb[i] - back[i]);
  CHECK_INT(igpt_palette_error(&p, &mse, &psnr, rgb, N), IGPT_OK);
  CHECK_NEAR(mse, sum / (3 * N), 0);
  CHECK_NEAR(psnr, 10 * log10(255.0 * 255.0 / mse), 1e-12);
  CHECK_INT(igpt_palette_error(&p, NULL, NULL, rgb, N), IGPT_OK);
  CHECK_INT(igpt_palette_error(&p, &mse, NULL, rgb, 0), IGPT_BAD_ARGUMENT);
  free(rgb);
}

/* ---- fit ------------------------------------------------------------------------------------- */

/* Three lumps of three greys, of unequal weight: the optimum can be had by hand. */
TEST(known_optimum)
{
  const int greys[9] = {0, 1, 2, 100, 101, 102, 200, 201, 202};
  const int times[9] = {1, 2, 1, 3, 1, 1, 1, 1, 1};
  uint8_t rgb[3 * 16];
  int i, t, n = 0;
  uint64_t seed;
  for (i = 0; i < 9; i++)
    for (t = 0; t < times[i]; t++, n++) memset(rgb + 3 * n, greys[i], 3);
  CHECK_INT(n, 12);
  for (seed = 0; seed < 10; seed++) {
    igpt_kmeans_desc desc = {0};
    igpt_kmeans_report report;
    igpt_palette p;
    desc.colours = 3;
    desc.seed = seed;
    CHECK_INT(igpt_palette_fit(&p, &report, rgb, 12, &desc), IGPT_OK);
    CHECK_INT(p.colours, 3);
    CHECK_INT(report.distinct, 9);
    for (i = 0; i < 3; i++) {
      CHECK_NEAR(step_of(p.centre[0][i]), 1, 1e-5);
      CHECK_NEAR(step_of(p.centre[1][i]), 100.6, 1e-5);
      CHECK_NEAR(step_of(p.centre[2][i]), 201, 1e-5);
    }
    CHECK_NEAR(report.mse, (2 + (3 * 0.36 + 0.16 + 1.96) + 2) / 12, 1e-6);
  }
}

/* The centres that a box leaves are all that matter for its places: corners, edges, and inside. */
TEST(boxes_lose_nothing)
{
  igpt__nearby *all = (igpt__nearby *)malloc(2 * sizeof *all), *left = all + 1;
  igpt_rng rng = igpt_rng_seed(16, 0);
  int turn, k, i, j, lost = 0;
  size_t kept = 0;
  if (!all) exit(2);
  for (turn = 0; turn < 300; turn++) {
    igpt_isa isa = (igpt_isa)(turn % IGPT_ISA_COUNT);
    igpt__colour_box box;
    if (!igpt_isa_supported(isa)) isa = IGPT_ISA_AUTO;
    k = turn % 3 ? 512 : 1 + turn;
    all->count = (size_t)k;
    all->padded = igpt__size_round((size_t)k, 16);
    for (i = 0; i < (int)(3 * all->padded); i++) all->planes[i] = 1e18f;
    for (i = 0; i < k; i++) {
      all->which[i] = (uint16_t)(i + 1000); /* names, not places */
      for (j = 0; j < 3; j++)
        all->planes[(size_t)j * all->padded + (size_t)i] =
          igpt__palette_step((double)igpt_rng_uniform(&rng) * 255);
    }
    for (j = 0; j < 3; j++) {
      uint32_t size = (uint32_t)(turn % 5) * 8;            /* also boxes of one place */
      box.low[j] = (uint8_t)igpt_rng_below(&rng, 200);
      box.high[j] = (uint8_t)(box.low[j] + igpt_rng_below(&rng, size + 1));
    }
    igpt__palette_filter(left, all, &box, igpt_kernels_for(isa));
    CHECK_INT(left->padded % 16, 0);
    CHECK(left->count <= left->padded);
    kept += turn % 3 ? left->count : 0;
    for (i = 0; i < 27; i++) {
      double least = 1e300;
      int best = 0, c, there = 0;
      for (c = 0; c < k; c++) {
        double d = 0;
        int rest = i;
        for (j = 0; j < 3; j++, rest /= 3) {
          double at = rest % 3 == 0 ? box.low[j] : rest % 3 == 1 ? box.high[j]
                                                                 : (box.low[j] + box.high[j]) / 2;
          at -= (double)all->planes[(size_t)j * all->padded + (size_t)c];
          d += at * at;
        }
        if (d < least) { least = d; best = c; }
      }
      for (c = 0; c < (int)left->count; c++) {
        if (left->which[c] != best + 1000) continue;
        there = 1;
        for (j = 0; j < 3; j++)
          CHECK(left->planes[(size_t)j * left->padded + (size_t)c] ==
                all->planes[(size_t)j * all->padded + (size_t)best]);
      }
      lost += !there;
    }
    for (i = 1; i < (int)left->count; i++) CHECK(left->which[i] > left->which[i - 1]);
  }
  CHECK_INT(lost, 0);
  CHECK(kept < 200 * 80);                   /* and most are gone */
  free(all);
}

TEST(few_colours)
{
  enum { N = 500 };
  uint8_t rgb[3 * N], back[3 * N];
  uint16_t tokens[N];
  size_t i;
  double mse, psnr;
  igpt_palette p;
  igpt_kmeans_report report;
  memset(rgb, 77, sizeof rgb);              /* one */
  CHECK_INT(igpt_palette_fit(&p, &report, rgb, N, NULL), IGPT_OK);
  CHECK_INT(p.colours, 1);
  CHECK_INT(report.distinct, 1);
  CHECK(report.mse == 0);
  CHECK_NEAR(step_of(p.centre[0][0]), 77, 1e-5);
  CHECK(strcmp(p.name, "k-means") == 0);
  for (i = 0; i < N; i++) {                 /* 30, for 30 and for 512 */
    rgb[3 * i] = (uint8_t)(i % 2 ? 255 : 0);
    rgb[3 * i + 1] = (uint8_t)(i % 3 * 127);
    rgb[3 * i + 2] = (uint8_t)(i % 5 * 60);
  }
  for (i = 0; i < 2; i++) {
    igpt_kmeans_desc desc = {0};
    desc.colours = i ? 30 : 0;
    CHECK_INT(igpt_palette_fit(&p, &report, rgb, N, &desc), IGPT_OK);
    CHECK_INT(p.colours, 30);
    CHECK_INT(report.distinct, 30);
    CHECK_INT(report.iterations, 0);
    CHECK(report.mse == 0);
    CHECK_INT(igpt_palette_encode(&p, tokens, rgb, N, NULL), IGPT_OK);
    CHECK_INT(igpt_palette_decode(&p, back, tokens, N), IGPT_OK);
    CHECK(memcmp(rgb, back, sizeof rgb) == 0);
    CHECK_INT(igpt_palette_error(&p, &mse, &psnr, rgb, N), IGPT_OK);
    CHECK(mse == 0 && psnr == HUGE_VAL);
  }
  memcpy(rgb, "\7\13\26\0\0\141", 6);      /* 11.058 of luma, both: the one with less red first */
  CHECK_INT(igpt_palette_fit(&p, NULL, rgb, 2, NULL), IGPT_OK);
  CHECK_NEAR(step_of(p.centre[0][2]), 97, 1e-5);
  CHECK_NEAR(step_of(p.centre[1][2]), 22, 1e-5);
}

/* Counting is exact: against a table of all 2^24 colours. */
TEST(counts_are_exact)
{
  enum { N = 60000 };
  uint8_t *rgb = picture(N, 1, 3, 6), *seen = (uint8_t *)calloc(1 << 24, 1);
  size_t i, distinct = 0;
  igpt_palette p;
  igpt_kmeans_report report;
  igpt_kmeans_desc desc = {0};
  double mean[3] = {0, 0, 0};
  if (!seen) exit(2);
  memset(rgb, 0, 3);
  memset(rgb + 3, 255, 3);
  for (i = 0; i < N; i++) {
    uint32_t code = (uint32_t)rgb[3 * i] << 16 | (uint32_t)rgb[3 * i + 1] << 8 | rgb[3 * i + 2];
    distinct += !seen[code];
    seen[code] = 1;
    mean[0] += rgb[3 * i];
    mean[1] += rgb[3 * i + 1];
    mean[2] += rgb[3 * i + 2];
  }
  desc.colours = 1;                         /* one centre is the mean of all pixels */
  CHECK_INT(igpt_palette_fit(&p, &report, rgb, N, &desc), IGPT_OK);
  CHECK_INT(report.distinct, distinct);
  for (i = 0; i < 3; i++) CHECK_NEAR(step_of(p.centre[0][i]), mean[i] / N, 2e-5);
  free(seen);
  free(rgb);
}

/* The error never rises from round to round; in the end nothing moves: each centre is the mean of
   the pixels that encode gives it, all centres are used, the reported error is theirs, and they are
   in the order of their luma. Encode compares with all centres, k-means with those that its boxes
   leave: they must agree. */
TEST(lloyd)
{
  enum { N = TEST_AMOUNT(30000, 4000) };
  uint8_t *rgb = picture(N, 60, 30, 7);
  uint16_t *tokens = (uint16_t *)malloc(N * sizeof *tokens);
  static double sum[512][4];
  igpt_kmeans_desc desc = {0};
  igpt_kmeans_report report = {0, 0, 0, 0};
  igpt_palette p;
  double last = 1e300, error = 0;
  size_t i;
  int rounds, j;
  if (!tokens) exit(2);
  desc.colours = 200;
  for (rounds = 1; rounds < 1000; rounds += 1 + rounds / 4) {
    desc.max_iterations = rounds;
    CHECK_INT(igpt_palette_fit(&p, &report, rgb, N, &desc), IGPT_OK);
    CHECK(report.mse <= last * (1 + 1e-12));
    last = report.mse;
    if (report.iterations < rounds) break;
  }
  CHECK(rounds > 10 && report.iterations < rounds);
  CHECK_INT(igpt_palette_encode(&p, tokens, rgb, N, NULL), IGPT_OK);
  for (i = 0; i < N; i++) {
    for (j = 0; j < 3; j++) sum[tokens[i]][j] += rgb[3 * i + (size_t)j];
    sum[tokens[i]][3] += 1;
    error += distance(&p, tokens[i], rgb + 3 * i);
  }
  for (i = 0; i < 200; i++) {
    CHECK(sum[i][3] > 0);
    for (j = 0; j < 3; j++)
      CHECK_NEAR(step_of(p.centre[i][j]), sum[i][j] / sum[i][3], 2e-5);
    if (i) CHECK(luma(&p, (int)i - 1) <= luma(&p, (int)i) + 1e-4);
  }
  CHECK_NEAR(report.mse / (error / (3.0 * N)), 1, 1e-7);
  free(tokens);
  free(rgb);
}

/* The tolerance stops it while something still moves. */
TEST(tolerance)
{
  enum { N = 20000 };
  uint8_t *rgb = picture(N, 60, 30, 8);
  igpt_kmeans_desc desc = {0};
  igpt_kmeans_report all, some;
  igpt_palette p;
  desc.colours = 100;
  CHECK_INT(igpt_palette_fit(&p, &all, rgb, N, &desc), IGPT_OK);
  desc.tolerance = 0.01f;
  CHECK_INT(igpt_palette_fit(&p, &some, rgb, N, &desc), IGPT_OK);
  CHECK(some.iterations < all.iterations / 2);
  CHECK(some.mse > all.mse && some.mse < 1.2 * all.mse);
  free(rgb);
}

/* Centres that no colour is nearest to. Good seeds leave none, so bad ones are set by hand: two at
   one place, and three in a corner far from all colours. Each takes the colour with the largest
   part of the error, in the end all are used, and the error has only fallen. */
TEST(repaired)
{
  enum { N = 2000, K = 9 };
  uint8_t *rgb = picture(N, 12, 20, 15), *scratch[2];
  uint16_t tokens[N];
  igpt__colour_map map;
  igpt__kmeans *km = (igpt__kmeans *)calloc(1, sizeof *km);
  igpt__arena arena;
  igpt_kmeans_desc desc = {0};
  igpt_kmeans_report report = {0, 0, 0, 0};
  igpt_palette p = palette_of(K);
  igpt_result result = IGPT_CANCELLED;
  patience patient = {0};
  float centre[K][3];
  int used[K] = {0}, i, j;
  uint64_t moved;
  double before = 0, after = 0, most = 0;
  size_t n, worst = 0;
  for (i = 0; i < 3 * N; i++) rgb[i] = (uint8_t)(rgb[i] / 2);
  for (i = 0; i < 600; i += 3) {            /* a heavy colour, far from its centre, and alone */
    rgb[i] = rgb[i + 2] = 255;
    rgb[i + 1] = 0;
  }
  scratch[0] = (uint8_t *)malloc(IGPT__MAP_WORDS * 12);
  if (!scratch[0] || !km) exit(2);
  map.bits = (uint64_t *)(void *)scratch[0];
  map.before = (uint32_t *)(void *)(scratch[0] + IGPT__MAP_WORDS * 8);
  km->desc = &desc;
  km->kernels = igpt_kernels_for(IGPT_ISA_AUTO);
  km->workers = 1;
  km->colours = K;
  CHECK_INT(igpt__colour_mark(&map, &km->distinct, rgb, N, NULL), IGPT_OK);
  km->runs = igpt__divide_up(km->distinct, IGPT__RUN);
  memset(&arena, 0, sizeof arena);
  igpt__kmeans_layout(km, &arena);
  scratch[1] = (uint8_t *)malloc(arena.used + 64);
  if (!scratch[1]) exit(2);
  arena.base = (char *)scratch[1] + (64 - (uintptr_t)scratch[1] % 64) % 64;
  arena.used = 0;
  igpt__kmeans_layout(km, &arena);
  CHECK_INT(igpt__kmeans_colours(km, &map, rgb, N), IGPT_OK);
  for (i = 0; i < K; i++)
    for (j = 0; j < 3; j++)
      km->centre[i][j] = i < 3 ? (float)(250 + i) : i < 5 ? 60.0f : (float)(15 * i * (j + 1) % 128);
  km->centre[8][0] = km->centre[8][2] = 200;
  km->centre[8][1] = 0;
  for (i = 0; i < K; i++) km->rank[i] = (uint16_t)i;
  memset(km->owner, 255, km->distinct * sizeof *km->owner);

  /* One repair: the colour is the one that it should be, and its cluster has lost it. */
  CHECK_INT(igpt__kmeans_round(km, &moved, &before), IGPT_OK);
  for (i = 0; i < K && km->cluster[i].weight; i++) {}
  CHECK(i < K);
  for (n = 0; n < km->distinct; n++) {
    double d = 0;
    for (j = 0; j < 3; j++) {
      double e = (double)km->colour[n][j] - (double)km->centre[km->owner[n]][j];
      d += e * e;
    }
    if (km->colour[n][0] == 255) CHECK(d * km->weight[n] > 5e5);
    else if (d * km->weight[n] > most) { most = d * km->weight[n]; worst = n; }
  }
  CHECK_INT(igpt__kmeans_repair(km, i), IGPT_OK);
  CHECK_INT(km->owner[worst], i);
  CHECK_INT(km->cluster[i].weight, km->weight[worst]);
  for (j = 0; j < 3; j++)
    CHECK_INT(km->cluster[i].sum[j], km->cluster[i].weight * km->colour[worst][j]);
  for (n = 0, i = 0; i < K; i++) n += (size_t)km->cluster[i].weight;
  CHECK_INT(n, N);

  /* And all of them, from the start; stopped wherever it asks, until it asks no more. */
  desc.watch.poll = poll_patience;
  desc.watch.user = &patient;
  memcpy(centre, km->centre, sizeof centre);
  for (patient.enough = 1; result == IGPT_CANCELLED; patient.enough++) {
    memset(&report, 0, sizeof report);
    patient.asked = 0;
    memcpy(km->centre, centre, sizeof centre);
    for (i = 0; i < K; i++) km->rank[i] = (uint16_t)i;
    memset(km->owner, 255, km->distinct * sizeof *km->owner);
    result = igpt__kmeans_lloyd(km, &report, N);
  }
  CHECK_INT(result, IGPT_OK);
  CHECK(patient.enough > 6);
  CHECK(report.repaired >= 4);
  for (i = 0; i < K; i++)
    for (j = 0; j < 3; j++) p.centre[i][j] = igpt__palette_unit_of(km->centre[i][j]);
  CHECK_INT(igpt_palette_encode(&p, tokens, rgb, N, NULL), IGPT_OK);
  for (i = 0; i < N; i++) {
    used[tokens[i]] = 1;
    after += distance(&p, tokens[i], rgb + 3 * i);
  }
  for (i = 0; i < K; i++) CHECK(used[i]);
  CHECK(after < 0.7 * before);
  CHECK_NEAR(report.mse / (after / (3.0 * N)), 1, 1e-7);
  free(scratch[0]);
  free(scratch[1]);
  free(km);
  free(rgb);
}

/* Rounds end when nothing moves: with one less the palette is another, also where centres have
   changed places in the order. */
TEST(no_round_for_nothing)
{
  enum { N = 1500 };
  uint8_t rgb[3 * N];
  uint64_t seed;
  size_t i;
  for (seed = 8; seed < 28; seed++) {
    igpt_rng rng = igpt_rng_seed(seed, 1);
    igpt_kmeans_desc desc = {0};
    igpt_kmeans_report report;
    igpt_palette p, q;
    for (i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)igpt_rng_below(&rng, 256);
    desc.colours = 24;
    desc.seed = seed;
    CHECK_INT(igpt_palette_fit(&p, &report, rgb, N, &desc), IGPT_OK);
    desc.max_iterations = report.iterations - 1;
    CHECK_INT(igpt_palette_fit(&q, NULL, rgb, N, &desc), IGPT_OK);
    CHECK(memcmp(&p, &q, sizeof p) != 0);
  }
}

/* Of two colours with the same part of the error the first becomes the centre. */
TEST(repaired_by_the_first)
{
  igpt__kmeans *km = (igpt__kmeans *)calloc(1, sizeof *km);
  uint8_t colour[2][3] = { { 10, 10, 10 }, { 14, 10, 10 } };
  uint32_t weight[2] = { 3, 3 };
  uint16_t owner[2] = { 0, 0 };
  igpt_kmeans_desc desc = {0};
  if (!km) exit(2);
  km->desc = &desc;
  km->distinct = 2;
  km->colour = colour;
  km->weight = weight;
  km->owner = owner;
  km->centre[0][0] = 12;
  km->centre[0][1] = km->centre[0][2] = 10;
  km->cluster[0].weight = 6;
  km->cluster[0].sum[0] = 72;
  km->cluster[0].sum[1] = km->cluster[0].sum[2] = 60;
  CHECK_INT(igpt__kmeans_repair(km, 1), IGPT_OK);
  CHECK(owner[0] == 1 && owner[1] == 0);
  CHECK_INT(km->cluster[0].sum[0], 42);
  free(km);
}

/* 1, 2, 3, 7 workers, tasks in any order: the same bits. So many colours that a sweep has more than
   one span. */
TEST(workers_change_nothing)
{
  enum { N = 400000 };
  const int workers[] = {2, 3, 7};
  uint8_t *rgb = picture(N, 300, 60, 9);
  igpt_kmeans_desc desc = {0};
  igpt_kmeans_report one, many;
  igpt_palette p, q;
  part_runner runner;
  int i;
  desc.colours = 65;
  desc.max_iterations = 3;
  memset(&p, 1, sizeof p);
  memset(&q, 2, sizeof q);
  CHECK_INT(igpt_palette_fit(&p, &one, rgb, N, &desc), IGPT_OK);
  CHECK(one.distinct > 140000);
  for (i = 0; i < TEST_AMOUNT(3, 1); i++) {
    runner.workers = workers[i];
    runner.order = i;
    desc.runner.run = part_run;
    desc.runner.user = &runner;
    desc.runner.workers = workers[i];
    CHECK_INT(igpt_palette_fit(&q, &many, rgb, N, &desc), IGPT_OK);
    CHECK(memcmp(&p, &q, sizeof p) == 0);
    CHECK(one.mse == many.mse && one.iterations == many.iterations);
  }
  desc.seed = 1;
  CHECK_INT(igpt_palette_fit(&q, &many, rgb, N, &desc), IGPT_OK);
  CHECK(memcmp(&p, &q, sizeof p) != 0);
  free(rgb);
}

/* All the way, with a worker that may have nothing to do in a round. */
TEST(order_of_pixels_changes_nothing)
{
  enum { N = 5000 };
  part_runner runner = {7, 2};
  uint8_t *rgb = picture(N, 30, 50, 10), *back = (uint8_t *)malloc(3 * N);
  igpt_kmeans_desc desc = {0};
  igpt_palette p, q;
  size_t i;
  if (!back) exit(2);
  for (i = 0; i < N; i++) memcpy(back + 3 * i, rgb + 3 * (N - 1 - i), 3);
  desc.colours = 40;
  CHECK_INT(igpt_palette_fit(&p, NULL, rgb, N, &desc), IGPT_OK);
  desc.runner.run = part_run;
  desc.runner.user = &runner;
  desc.runner.workers = 7;
  CHECK_INT(igpt_palette_fit(&q, NULL, back, N, &desc), IGPT_OK);
  CHECK(memcmp(&p, &q, sizeof p) == 0);
  free(back);
  free(rgb);
}

/* A name that does not fit is cut, and never within a character. */
TEST(names)
{
  char name[100];
  const uint8_t rgb[3] = {1, 2, 3};
  igpt_kmeans_desc desc = {0};
  igpt_palette p;
  desc.name = name;
  memset(name, 'a', 99);
  name[99] = 0;
  CHECK_INT(igpt_palette_fit(&p, NULL, rgb, 1, &desc), IGPT_OK);
  CHECK_INT(strlen(p.name), sizeof p.name - 1);
  memcpy(name + 57, "\xe2\x82\xac", 3);     /* bytes 57, 58, 59: the last has no room */
  CHECK_INT(igpt_palette_fit(&p, NULL, rgb, 1, &desc), IGPT_OK);
  CHECK_INT(strlen(p.name), 57);
  name[59] = 0;
  strcpy(name, "cifar10-512");
  CHECK_INT(igpt_palette_fit(&p, NULL, rgb, 1, &desc), IGPT_OK);
  CHECK(strcmp(p.name, "cifar10-512") == 0);
  desc.name = p.name;                         /* stays */
  CHECK_INT(igpt_palette_fit(&p, NULL, rgb, 1, &desc), IGPT_OK);
  CHECK(strcmp(p.name, "cifar10-512") == 0);
}

TEST(cancelled)
{
  enum { N = 3000 };
  uint8_t *rgb = picture(N, 30, 50, 13);
  int stop;
  for (stop = 0;; stop++) {
    igpt_kmeans_desc desc = {0};
    igpt_palette p, q;
    patience patient;
    purse memory;
    igpt_result result;
    memset(&patient, 0, sizeof patient);
    patient.enough = stop + 1;
    memset(&p, 5, sizeof p);
    q = p;
    desc.colours = 6;
    desc.max_iterations = 4;
    desc.allocator = purse_allocator(&memory);
    desc.watch.poll = poll_patience;
    desc.watch.user = &patient;
    result = igpt_palette_fit(&p, NULL, rgb, N, &desc);
    CHECK_INT(memory.held, 0);
    if (result == IGPT_OK) {
      CHECK(patient.last >= 0.8);
      break;
    }
    CHECK_INT(result, IGPT_CANCELLED);
    CHECK(memcmp(&p, &q, sizeof p) == 0);
  }
  CHECK(stop > 10);
  free(rgb);
}

TEST(out_of_memory)
{
  enum { N = 3000 };
  uint8_t *rgb = picture(N, 30, 50, 14);
  int n;
  for (n = 0; n <= 2; n++) {
    igpt_kmeans_desc desc = {0};
    igpt_palette p, q;
    purse memory;
    memset(&p, 5, sizeof p);
    q = p;
    desc.colours = 6;
    desc.allocator = purse_allocator(&memory);
    memory.fail_at = n;
    CHECK_INT(igpt_palette_fit(&p, NULL, rgb, N, &desc), n < 2 ? IGPT_OUT_OF_MEMORY : IGPT_OK);
    CHECK((memcmp(&p, &q, sizeof p) == 0) == (n < 2));
    CHECK_INT(memory.calls, n < 2 ? n + 1 : 2);
    CHECK_INT(memory.held, 0);
  }
  free(rgb);
}

TEST(bad_input)
{
  const uint8_t rgb[6] = {1, 2, 3, 4, 5, 6};
  uint16_t tokens[2] = {0, 0};
  uint8_t back[6];
  const igpt_kmeans_desc zero = {0};
  igpt_kmeans_desc desc;
  igpt_palette p = palette_of(1), q;
  heard h;
#define REFUSED(field, value, words, code)                                                        \
  do {                                                                                            \
    desc = zero;                                                                                  \
    desc.field = value;                                                                           \
    memset(&h, 0, sizeof h);                                                                      \
    desc.log.line = hear;                                                                         \
    desc.log.user = &h;                                                                           \
    CHECK_INT(igpt_palette_fit(&q, NULL, rgb, 2, &desc), code);                                   \
    CHECK_INT(h.result, code);                                                                    \
    CHECK(strstr(h.text, words) != NULL);                                                         \
  } while (0)
  REFUSED(colours, 513, "colours is 513, and must be 0..512", IGPT_BAD_ARGUMENT);
  REFUSED(colours, -1, "colours is -1", IGPT_BAD_ARGUMENT);
  REFUSED(max_iterations, -2, "max_iterations is -2", IGPT_BAD_ARGUMENT);
  REFUSED(tolerance, -0.5f, "tolerance is -0.5", IGPT_BAD_ARGUMENT);
  REFUSED(tolerance, (float)NAN, "tolerance is nan", IGPT_BAD_ARGUMENT);
  REFUSED(isa, (igpt_isa)99, "isa", IGPT_UNSUPPORTED);
  REFUSED(runner.workers, -1, "runner.workers is -1", IGPT_BAD_ARGUMENT);
  REFUSED(allocator.free, purse_free, "both or neither", IGPT_BAD_ARGUMENT);
#undef REFUSED
  CHECK_INT(igpt_palette_fit(NULL, NULL, rgb, 2, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_palette_fit(&q, NULL, NULL, 2, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_palette_fit(&q, NULL, rgb, 0, NULL), IGPT_BAD_ARGUMENT);

  CHECK_INT(igpt_palette_encode(NULL, tokens, rgb, 2, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_palette_encode(&p, NULL, rgb, 2, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_palette_encode(&p, tokens, NULL, 2, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_palette_encode(&p, NULL, NULL, 0, NULL), IGPT_OK);
  CHECK_INT(igpt_palette_decode(&p, back, NULL, 2), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_palette_decode(&p, NULL, tokens, 2), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_palette_decode(&p, NULL, NULL, 0), IGPT_OK);
  CHECK_INT(igpt_palette_error(&p, NULL, NULL, NULL, 2), IGPT_BAD_ARGUMENT);
  p.colours = 0;
  CHECK_INT(igpt_palette_encode(&p, tokens, rgb, 2, NULL), IGPT_BAD_ARGUMENT);
  p.colours = 513;
  CHECK_INT(igpt_palette_decode(&p, back, tokens, 2), IGPT_BAD_ARGUMENT);
  p.colours = 1;
  p.centre[0][2] = (float)NAN;
  CHECK_INT(igpt_palette_encode(&p, tokens, rgb, 2, NULL), IGPT_NOT_FINITE);
  p.centre[0][2] = 1e20f;                   /* beyond what fills the kernel's unused places */
  CHECK_INT(igpt_palette_encode(&p, tokens, rgb, 2, NULL), IGPT_BAD_ARGUMENT);
}

int main(void)
{
  RUN(encode_is_the_nearest);
  RUN(encode_ties);
  RUN(encode_runs);
  RUN(table_knows_all_colours);
  RUN(table_everywhere);
  RUN(table_divides);
  RUN(decode_rounds_half_to_even);
  RUN(decode_refuses_strange_tokens);
  RUN(error_by_hand);
  RUN(known_optimum);
  RUN(boxes_lose_nothing);
  RUN(few_colours);
  RUN(counts_are_exact);
  RUN(lloyd);
  RUN(tolerance);
  RUN(repaired);
  RUN(no_round_for_nothing);
  RUN(repaired_by_the_first);
  RUN(workers_change_nothing);
  RUN(order_of_pixels_changes_nothing);
  RUN(names);
  RUN(cancelled);
  RUN(out_of_memory);
  RUN(bad_input);
  return test_done();
}
