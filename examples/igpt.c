/* igpt.c: Image GPT from the command line.

     cc -O2 -I. -Iexamples -o build/igpt examples/igpt.c -lm -pthread

   Each verb below is a function that reads its options from the table in cli_options.h, opens what
   it needs through cli_tool.h, and writes results to standard output and progress to standard
   error. They stand in the order in which one uses them: colours, pre-training, a look at what was
   learned, a classifier, and what is inside a file. See `build/igpt --help`.                     */

#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#define IGPT_IMPLEMENTATION
#include "igpt.h"

#include "cli_train.h"

static int json(const tool *t) { return given(&t->o, OPT_JSON); }

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* ---- palette -------------------------------------------------------------------------------- */

#define STRIP_PICTURES 8          /* shown before and after */

typedef struct npy_job {
  igpt_npy_type type;
  const void *data;
  int rank;
  const uint64_t *shape;
} npy_job;

static igpt_result npy_body(void *user, const igpt_sink *sink)
{
  const npy_job *job = user;
  return igpt_npy_write(sink, job->type, job->data, job->rank, job->shape);
}

static void save_npy(const char *path, igpt_npy_type type, const void *data, int rank,
                     const uint64_t *shape)
{
  npy_job job;
  job.type = type;
  job.data = data;
  job.rank = rank;
  job.shape = shape;
  need(igpt_file_replace(path, &sentences, npy_body, &job), path);
}

/* Before k-means: a picture can be written as show_in_colours draws it, whose canvas has margins
   and a line above. */
static void check_photo(const image *photo, const char *path)
{
  const double wide = 2.0 * photo->columns + 28, high = photo->rows + 47.0;
  if (photo->columns > 1e6 || photo->rows > 1e6 || wide * high > IMAGE_MAX_PIXELS)
    die("--show is '%s', whose %d x %d pixels are more than can be drawn twice, side by side", path,
        photo->columns, photo->rows);
}

/* A picture of any size, and the same in the palette's colours, side by side */
static void show_in_colours(tool *t, const image *photo, const char *to)
{
  const char *headings[2] = { "as it was", NULL };
  const size_t pixels = (size_t)photo->rows * (size_t)photo->columns;
  uint8_t *both = need_memory(2 * pixels, 3);
  uint16_t *tokens = need_memory(pixels, sizeof *tokens);
  plot_grid_desc d;
  char own[40];
  memcpy(both, photo->rgb, 3 * pixels);
  need(igpt_palette_encode(&t->palette, tokens, both, pixels, NULL), "palette");
  need(igpt_palette_decode(&t->palette, both + 3 * pixels, tokens, pixels), "palette");
  snprintf(own, sizeof own, "in %d colours", t->palette.colours);
  headings[1] = own;
  memset(&d, 0, sizeof d);
  d.across = 2;
  d.scale = 1;
  d.headings = headings;
  need_file(plot_grid(to, both, 2, photo->rows, photo->columns, &d, file_error,
                      sizeof file_error));
  free(tokens);
  free(both);
}

static void run_palette(tool *t)
{
  const char *out = text(&t->o, OPT_OUT);
  const char *show = given(&t->o, OPT_SHOW) ? text(&t->o, OPT_SHOW) : NULL;
  char *strip = beside(out, ".png"), *both = beside(out, ".show.png"), title[100];
  uint64_t shape[2];
  uint16_t all[IGPT_PALETTE_MAX], *tokens;
  uint8_t colours[3 * IGPT_PALETTE_MAX], *after;
  igpt_kmeans_report report;
  pictures p, val;
  const char *looked = "validation";
  double mse, psnr;
  image photo = { 0 };
  size_t shown, T;
  int i, converged;
  check_output(t, out);
  if (!strcmp(strip, out))
    die("--out is '%s', and the picture of the colours has that name: call the palette .npy", out);
  check_output(t, strip);
  if (show) check_output(t, both);
  if (show) need_file(image_load(&photo, show, file_error, sizeof file_error));
  if (show) check_photo(&photo, show);
  t->config.rows = t->config.columns = whole(&t->o, OPT_SIDE);
  T = tokens_of(t);
  read_pictures(t, &p, DATASET_TRAIN, 0, DATASET_PLAIN);
  fit_palette(t, &p, &report);
  if (try_pictures(t, &val, DATASET_VALIDATION, 0, DATASET_PLAIN) == 0) {
    dataset_free(&p.set);
  } else {
    note("%s: the PSNR is that of the training pictures", file_error);
    looked = "training";
    val = p;
  }
  need(igpt_palette_error(&t->palette, &mse, &psnr, val.set.pictures, val.count * T), "palette");

  shown = least(val.count, STRIP_PICTURES);
  tokens = need_memory(shown * T, sizeof *tokens);
  after = need_memory(shown * T, 3);
  need(igpt_palette_encode(&t->palette, tokens, val.set.pictures, shown * T, NULL), "palette");
  decode_tokens(t, after, tokens, shown);
  for (i = 0; i < t->palette.colours; i++) all[i] = (uint16_t)i;
  need(igpt_palette_decode(&t->palette, colours, all, (size_t)t->palette.colours), "palette");
  snprintf(title, sizeof title, "%d colours, PSNR %.2f dB", t->palette.colours, psnr);
  need_file(plot_palette(strip, colours, t->palette.colours, val.set.pictures, after, shown,
                         t->config.rows, t->config.columns, title, file_error, sizeof file_error));
  shape[0] = (uint64_t)t->palette.colours;
  shape[1] = 3;
  save_npy(out, IGPT_NPY_F32, t->palette.centre, 2, shape);
  converged = report.iterations < whole(&t->o, OPT_ITERATIONS);
  if (json(t)) {
    char decibels[32];
    snprintf(decibels, sizeof decibels, psnr < HUGE_VAL ? "%.4f" : "null", psnr);
    result_line("{\"colours\": %d, \"psnr\": %s, \"mse\": %.5f, \"iterations\": %d, "
                "\"converged\": %s, \"distinct\": %zu}",
                t->palette.colours, decibels, mse, report.iterations, converged ? "true" : "false",
                report.distinct);
  } else {
    result_line("%d colours after %d iterations of k-means, %s (%zu different colours, %d "
                "repaired)", t->palette.colours, report.iterations,
                converged ? "converged" : "not converged: --iterations allows no more",
                report.distinct, report.repaired);
    result_line("PSNR %.2f dB on %zu %s pictures (mean squared error %.2f)", psnr, val.count,
                looked, mse);
    result_line(show ? "%s, %s, %s" : "%s, %s", out, strip, both);
  }
  if (show) show_in_colours(t, &photo, both);
  image_free(&photo);
}

/* ---- pretrain ------------------------------------------------------------------------------- */

/* Batch and rate for each preset: Table 5 of the paper for its models (it has no BERT of XL: that
   rate is a guess). The small ones have an hour, not a million steps, and learn more from more of
   them: small-cpu, 4.5 minutes on one core of CIFAR-10 at 32 x 32, ended at 5.68 and 5.21
   nats/pixel with batch 8 at the rates 0.003 and 0.006, 4.83 and 4.52 with batch 4, and 4.70 and
   4.57 with batch 2 at 0.002 and 0.004. BERT wants less: small-cpu on such pictures with batch 4
   was after 300, 600 and 900 steps at 5.33, 4.78 and 4.55 nats with the rate 0.001, at 5.56, 5.09
   and 4.85 with 0.002, and at 5.63, 5.45 and 5.34 with 0.003; with 0.005 it stayed at 5.6. */
static const struct recipe { const char *preset; int batch; double ar, bert;
} recipes[] = {{"tiny", 4, 0.005, 0.001},       {"small-cpu", 4, 0.005, 0.001},
               {"medium-cpu", 4, 0.003, 0.001}, {"S", 128, 0.003, 0.01},
               {"M", 128, 0.003, 0.003},        {"L", 128, 0.001, 0.001},
               {"XL", 64, 0.0003, 0.0003}};

/* That of the preset with the model's layers and width, or where none has these, of --preset. */
static const struct recipe *find_recipe(const tool *t)
{
  size_t i;
  for (i = 0; i < COUNT_OF(recipes); i++) {
    igpt_config c;
    memset(&c, 0, sizeof c);
    need(igpt_config_preset(&c, recipes[i].preset), "--preset");
    if (c.layers == t->config.layers && c.width == t->config.width) return &recipes[i];
  }
  return &recipes[whole(&t->o, OPT_PRESET)];
}

/* The shape that --preset, --layers, --heads, --width, --side, --colours, --objective ask for. */
static igpt_config asked_config(const tool *t)
{
  const options *o = &t->o;
  igpt_config c;
  memset(&c, 0, sizeof c);
  need(igpt_config_preset(&c, text(o, OPT_PRESET)), "--preset");
  if (given(o, OPT_LAYERS)) c.layers = whole(o, OPT_LAYERS);
  if (given(o, OPT_WIDTH)) {
    c.width = whole(o, OPT_WIDTH);
    c.heads = 0;
  }
  if (given(o, OPT_HEADS)) c.heads = whole(o, OPT_HEADS);
  if (c.heads && c.width % c.heads)
    die("--heads is %d, which does not divide --width, which is %d", c.heads, c.width);
  if (given(o, OPT_SIDE) || !c.rows) c.rows = whole(o, OPT_SIDE);
  c.columns = c.rows;
  c.vocabulary = whole(o, OPT_COLOURS);
  c.objective = (igpt_objective)whole(o, OPT_OBJECTIVE);
  c.classes = whole(o, OPT_CLASSES);
  need(igpt_config_resolve(&c, &sentences), NULL);
  return c;
}

static double pretrain_evaluate(run *r)
{
  return mean_nats(r->t, r->val, r->val->count);
}

static void pretrain_evaluated(run *r, const double *row)
{
  if (given(&r->t->o, OPT_SNAPSHOTS)) {
    char end[60], *path;
    snprintf(end, sizeof end, ".%.0f.safetensors", row[ROW_STEP]);
    path = beside(r->out, end);
    save_model(r, path);
    free(path);
  }
  const char *line = json(r->t)
    ? "{\"step\": %.0f, \"train_nats\": %s, \"val_nats\": %.5f, \"tokens_per_s\": %.0f, "
      "\"seconds\": %.1f}"
    : "step %7.0f   train %8s   val %.5f nats/pixel   %7.0f tokens/s   %6.0f s";
  char train[30];
  if (row[ROW_TRAIN] == row[ROW_TRAIN]) snprintf(train, sizeof train, "%.5f", row[ROW_TRAIN]);
  else snprintf(train, sizeof train, "%s", json(r->t) ? "null" : "-");
  result_line(line, row[ROW_STEP], train, row[ROW_VAL], row[ROW_SPEED], row[ROW_SECONDS]);
}

/* Whether a folder's pictures can be cropped at random without being enlarged first. */
static int larger_pictures(const dataset *set)
{
  size_t i, large = 0;
  for (i = 0; set->large_at && i < set->count; i++)
    large += set->large_size[2 * i] * 7 >= set->rows * 8 &&
             set->large_size[2 * i + 1] * 7 >= set->columns * 8;
  return 2 * large > set->count;
}

/* What is asked for must be what a file holds; --colours of a run that goes on may be more than
   k-means found. */
static void check_shape(const tool *t, const char *path)
{
  const igpt_config *c = &t->config;
  const options *o = &t->o;
  igpt_config p;
  if (given(o, OPT_LAYERS) && whole(o, OPT_LAYERS) != c->layers)
    die("%s: the model has %d layers, and --layers is %d", path, c->layers, whole(o, OPT_LAYERS));
  if (given(o, OPT_WIDTH) && whole(o, OPT_WIDTH) != c->width)
    die("%s: the model's width is %d, and --width is %d", path, c->width, whole(o, OPT_WIDTH));
  if (given(o, OPT_HEADS) && whole(o, OPT_HEADS) != c->heads)
    die("%s: the model has %d heads, and --heads is %d", path, c->heads, whole(o, OPT_HEADS));
  if (given(o, OPT_SIDE) && whole(o, OPT_SIDE) != c->rows)
    die("%s: the model's pictures have the side %d, and --side is %d", path, c->rows,
        whole(o, OPT_SIDE));
  if (given(o, OPT_COLOURS) && whole(o, OPT_COLOURS) != c->vocabulary &&
      !(given(o, OPT_RESUME) && whole(o, OPT_COLOURS) > c->vocabulary))
    die("%s: the model has %d colours, and --colours is %d", path, c->vocabulary,
        whole(o, OPT_COLOURS));
  if (given(o, OPT_OBJECTIVE) && (int)c->objective != whole(o, OPT_OBJECTIVE))
    die("%s: the objective is %s, and --objective is %s", path, objective_name(c->objective),
        text(o, OPT_OBJECTIVE));
  if (!given(o, OPT_PRESET)) return;
  memset(&p, 0, sizeof p);
  need(igpt_config_preset(&p, text(o, OPT_PRESET)), "--preset");
  if ((p.layers != c->layers && !given(o, OPT_LAYERS)) ||
      (p.width != c->width && !given(o, OPT_WIDTH)))
    die("%s: the model has %d layers of width %d, and --preset %s has %d of %d", path, c->layers,
        c->width, text(o, OPT_PRESET), p.layers, p.width);
}

/* --pixels is for k-means. Where the colours are known without, it is no option of the run; beside
   --palette, which scripts add to the options of other runs, it is passed over, but said. */
static void check_pixels(tool *t)
{
  const options *o = &t->o;
  if (!given(o, OPT_PIXELS)) t->o.value[OPT_PIXELS].text = NULL;
  else if (given(o, OPT_RESUME)) return;
  else if (given(o, OPT_MODEL))
    die("--pixels is %d, and the colours are those of --model, '%s'", whole(o, OPT_PIXELS),
        text(o, OPT_MODEL));
  else if (given(o, OPT_PALETTE))
    note("--pixels is %d, and changes nothing: the colours are those of --palette, '%s'",
         whole(o, OPT_PIXELS), text(o, OPT_PALETTE));
  else die("--pixels is %d, and %s holds tokens, which are colours already", whole(o, OPT_PIXELS),
           data_path(t));
}

/* Model and palette from --resume or --model, or new ones; then the pictures as tokens. */
static void open_pretraining(tool *t, pictures *train_set, pictures *val, dataset_augment *augment)
{
  const char *from = given(&t->o, OPT_RESUME) ? text(&t->o, OPT_RESUME) : text(&t->o, OPT_MODEL);
  if (given(&t->o, OPT_RESUME) && given(&t->o, OPT_MODEL))
    die("--resume is '%s', which has its own weights, and --model is '%s': give one of them", from,
        text(&t->o, OPT_MODEL));
  if (from) {
    load_model(t, from, 0);
    check_shape(t, from);
    find_palette(t, from);
    t->held = model_note(from, SEED_NOTE);
  } else {
    t->config = asked_config(t);
    if (given(&t->o, OPT_PALETTE)) read_palette(&t->palette, text(&t->o, OPT_PALETTE));
  }
  read_pictures(t, val, DATASET_VALIDATION, look_count(t), DATASET_PLAIN);
  if (from || t->palette.colours || val->set.tokens) check_pixels(t);
  *augment = (dataset_augment)whole(&t->o, OPT_AUGMENT);
  if (!text(&t->o, OPT_AUGMENT) && val->set.kind == DATASET_FOLDER) *augment = DATASET_RESIZE_CROP;
  read_pictures(t, train_set, DATASET_TRAIN, 0, *augment);
  if (!text(&t->o, OPT_AUGMENT) && !larger_pictures(&train_set->set)) *augment = DATASET_PLAIN;
  settle(t, OPT_AUGMENT, "%s", *augment == DATASET_PLAIN ? "none" : "crop");
  if (!from) {
    igpt_model_desc d;
    if (!t->palette.colours && !val->set.tokens) fit_palette(t, train_set, NULL);
    if (given(&t->o, OPT_COLOURS) && given(&t->o, OPT_PALETTE) &&
        t->palette.colours != whole(&t->o, OPT_COLOURS))
      die("%s: the palette has %d colours, and --colours is %d", text(&t->o, OPT_PALETTE),
          t->palette.colours, whole(&t->o, OPT_COLOURS));
    memset(&d, 0, sizeof d);
    d.config = t->config;
    if (t->palette.colours) d.config.vocabulary = t->palette.colours;
    d.seed = seed_of(t);
    d.log = sentences;
    need(igpt_model_create(&t->model, &d), NULL);
    t->config = *igpt_model_config(t->model);
    if (t->palette.colours) need(igpt_model_set_palette(t->model, &t->palette), "palette");
  }
  settle_mask(t, from);
  encode_pictures(t, val);
  encode_pictures(t, train_set);
}

static void run_pretrain(tool *t)
{
  const struct recipe *recipe;
  pictures train_set, val;
  char title[200];
  run r;
  memset(&r, 0, sizeof r);
  restore_options(t);
  check_run(t);
  if (!given(&t->o, OPT_STEPS) && !given(&t->o, OPT_EPOCHS)) settle(t, OPT_MINUTES, "60");
  open_pretraining(t, &train_set, &val, &r.augment);
  recipe = find_recipe(t);
  settle(t, OPT_RATE, "%g", t->config.objective == IGPT_BERT ? recipe->bert : recipe->ar);
  settle(t, OPT_BATCH, "%d", recipe->batch);
  snprintf(title, sizeof title, "%s, %d layers of %d, %.*s", objective_name(t->config.objective),
           t->config.layers, t->config.width, (int)least(strcspn(train_set.set.title, ":"), 40),
           train_set.set.title);                            /* without the number of pictures */
  r.t = t;
  r.train = &train_set;
  r.val = &val;
  r.title = title;
  r.val_name = "validation";
  r.csv_header = "step,train_nats,val_nats,tokens_per_s,seconds";
  r.evaluate = pretrain_evaluate;
  r.evaluated = pretrain_evaluated;
  r.batch = (size_t)whole(&t->o, OPT_BATCH);
  r.loss.generative = 1;
  open_run(&r);
  if (!json(t))
    result_line("%s: %zu parameters, %s; palette %s; batch %zu (%g at once), rate %g",
                objective_name(t->config.objective), igpt_model_parameters(t->model),
                train_set.set.title, t->palette.colours ? t->palette.name : "unknown", r.batch,
                r.at.user[1], real(&t->o, OPT_RATE));
  if (!train(&r)) exit(128 + (int)stop_signal);
  save_run(&r, 1);
  on_signals(SIG_DFL);
  if (!json(t)) result_line("%s, %s, %s, %s", r.out, r.svg, r.csv, r.checkpoint);
}

/* ---- eval ----------------------------------------------------------------------------------- */

/* --model, a session, and the tokens of --split. */
static void open_looking(tool *t, pictures *p, int cache)
{
  open_model(t);
  read_pictures(t, p, asked_split(t), 0, DATASET_PLAIN);
  encode_pictures(t, p);
  open_session(t, whole(&t->o, OPT_BATCH), 0, cache);
}

static void run_eval(tool *t)
{
  pictures p;
  double nats;
  open_looking(t, &p, 0);
  nats = mean_nats(t, &p, p.count);
  if (json(t))
    result_line("{\"nats_per_pixel\": %.6f, \"bits_per_pixel\": %.6f, \"images\": %zu}", nats,
                nats / log(2.0), p.count);
  else
    result_line("%.4f nats/pixel, %.4f bits/pixel: %zu pictures of %s; palette %s", nats,
                nats / log(2.0), p.count, p.set.title,
                t->palette.colours ? t->palette.name : "unknown");
}

/* ---- sample --------------------------------------------------------------------------------- */

/* Completes tokens (count,T), of which the first `keep` are given. A BERT model fills the rest of a
   picture of which something is given; without anything it is asked what only AR models can do. */
static void complete(tool *t, uint16_t *tokens, size_t count, int keep)
{
  const size_t T = tokens_of(t);
  igpt_sample_desc d;
  memset(&d, 0, sizeof d);
  d.keep = keep;
  d.temperature = (float)real(&t->o, OPT_TEMPERATURE);
  d.top_k = whole(&t->o, OPT_TOP_K);
  d.top_p = (float)real(&t->o, OPT_TOP_P);
  d.rounds = whole(&t->o, OPT_ROUNDS);
  d.seed = seed_of(t);
  if (t->config.objective == IGPT_BERT && keep > 0) {
    uint8_t *mask = need_memory(count * T, 1);
    size_t i;
    for (i = 0; i < count; i++) memset(mask + i * T + keep, 1, T - (size_t)keep);
    need(igpt_fill(t->session, tokens, mask, count, &d), text(&t->o, OPT_MODEL));
    free(mask);
  } else {
    need(igpt_sample(t->session, tokens, count, &d), text(&t->o, OPT_MODEL));
  }
}

#define UNKNOWN_GREY 48           /* of pixels that the prompt does not give */

/* One row a picture: prompt | completions | truth. */
static void plot_completions(tool *t, const pictures *p, const uint32_t *chosen,
                             const uint16_t *tokens, size_t count, int completions, int keep)
{
  const size_t T = tokens_of(t), across = (size_t)completions + 2;
  uint8_t *rgb = need_memory(count * across * T, 3);
  const char **headings = need_memory(across, sizeof *headings);
  plot_grid_desc d;
  size_t i, j;
  headings[0] = "given";
  headings[1] = completions > 1 ? "completions" : "completed";
  headings[across - 1] = "truth";
  for (i = 0; i < count; i++) {
    uint8_t *row = rgb + i * across * 3 * T;
    decode_tokens(t, row, tokens + i * (size_t)completions * T, 1);
    memset(row + 3 * keep, UNKNOWN_GREY, 3 * (T - (size_t)keep));
    for (j = 0; j < (size_t)completions; j++)
      decode_tokens(t, row + (j + 1) * 3 * T, tokens + (i * (size_t)completions + j) * T, 1);
    original_picture(t, p, row + (across - 1) * 3 * T, chosen[i]);
  }
  memset(&d, 0, sizeof d);
  d.across = (int)across;
  d.scale = whole(&t->o, OPT_SCALE);
  d.lone_first = d.lone_last = 1;
  d.headings = headings;
  need_file(plot_grid(text(&t->o, OPT_OUT), rgb, count * across, t->config.rows, t->config.columns,
                      &d, file_error, sizeof file_error));
  free(headings);
  free(rgb);
}

/* --keep in rows: only 0 keeps none, and only 1 keeps all. */
static int kept_rows(const tool *t)
{
  const double keep = real(&t->o, OPT_KEEP);
  const int rows = t->config.rows, kept = (int)(keep * rows + 0.5);
  if (keep > 0 && kept == 0) return 1;
  return keep < 1 && kept == rows && rows > 1 ? rows - 1 : kept;
}

typedef struct neighbour {
  size_t index;                   /* of the training picture */
  double distance;                /* root of the mean squared difference, 0..255 */
} neighbour;

/* The nearest of p for each of `count` pictures. apart: (V,V) squared distances of colours */
static void find_nearest(const tool *t, neighbour *nearest, const uint16_t *tokens, size_t count,
                         const pictures *p, const float *apart)
{
  const size_t T = tokens_of(t), V = (size_t)t->config.vocabulary;
  size_t n, i, j;
  for (n = 0; n < count; n++) {
    const uint16_t *mine = tokens + n * T;
    double least = HUGE_VAL;
    for (i = 0; i < p->count; i++) {
      const uint16_t *other = p->tokens + i * T;
      double sum = 0;
      for (j = 0; j < T && sum < least; j++) sum += (double)apart[mine[j] * V + other[j]];
      if (sum >= least) continue;
      least = sum;
      nearest[n].index = i;
    }
    nearest[n].distance = sqrt(least / (3 * (double)T));
  }
}

static double median_distance(const neighbour *nearest, size_t count)
{
  double *sorted = need_memory(count, sizeof *sorted), median;
  size_t i, j;
  for (i = 0; i < count; i++) {
    for (j = i; j > 0 && sorted[j - 1] > nearest[i].distance; j--) sorted[j] = sorted[j - 1];
    sorted[j] = nearest[i].distance;
  }
  median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
  free(sorted);
  return median;
}

#define PAIRS 4                   /* in a row */

/* Does the model know its training pictures by heart? Its own pictures would then lie nearer to
   them than pictures that it never saw. */
static void show_nearest(tool *t, const uint16_t *tokens, size_t count, const pictures *train,
                         const pictures *held)
{
  const size_t T = tokens_of(t), V = (size_t)t->config.vocabulary;
  uint8_t *rgb = need_memory(2 * count * T, 3), *colours = need_memory(V, 3);
  uint16_t *all = need_memory(V, sizeof *all);
  float *apart = need_memory(V * V, sizeof *apart);
  neighbour *nearest = need_memory(count, sizeof *nearest);
  neighbour *usual = need_memory(count, sizeof *usual);
  const char *headings[2 * PAIRS];
  plot_grid_desc d;
  size_t i, j, c;
  for (i = 0; i < V; i++) all[i] = (uint16_t)i;
  need(igpt_palette_decode(&t->palette, colours, all, V), "palette");
  for (i = 0; i < V; i++)
    for (j = 0; j < V; j++)
      for (apart[i * V + j] = 0, c = 0; c < 3; c++) {
        const float difference = (float)colours[3 * i + c] - (float)colours[3 * j + c];
        apart[i * V + j] += difference * difference;
      }
  find_nearest(t, nearest, tokens, count, train, apart);
  find_nearest(t, usual, held->tokens, least(count, held->count), train, apart);
  for (i = 0; i < count; i++) {
    decode_tokens(t, rgb + 2 * i * 3 * T, tokens + i * T, 1);
    decode_tokens(t, rgb + (2 * i + 1) * 3 * T, train->tokens + nearest[i].index * T, 1);
    result_line(json(t) ? "{\"picture\": %zu, \"nearest\": %zu, \"distance\": %.3f}"
                        : "picture %zu: the nearest training picture is %zu, %.1f of 255 away",
                i, nearest[i].index, nearest[i].distance);
  }
  result_line(json(t) ? "{\"drawn\": %.3f, \"held_out\": %.3f}"
                      : "median: %.1f; of held-out pictures: %.1f",
              median_distance(nearest, count), median_distance(usual, least(count, held->count)));
  memset(&d, 0, sizeof d);
  for (i = 0; i < 2 * PAIRS; i++) headings[i] = i % 2 ? "nearest" : "drawn";
  d.across = 2 * (int)least(count, PAIRS);
  d.scale = whole(&t->o, OPT_SCALE);
  d.headings = headings;
  need_file(plot_grid(text(&t->o, OPT_OUT), rgb, 2 * count, t->config.rows, t->config.columns, &d,
                      file_error, sizeof file_error));
  free(usual);
  free(nearest);
  free(apart);
  free(all);
  free(colours);
  free(rgb);
}

/* As many pictures in a row as there are rows, or one more. */
static size_t square(size_t count) { return (size_t)ceil(sqrt((double)count)); }

/* Before an hour of work: so many pictures, `across` of them in a row, can be written. With the
   most that stands between them and around them. */
static void check_size(const tool *t, size_t count, size_t across, int captions)
{
  const int scale = whole(&t->o, OPT_SCALE);
  const double wide = t->config.columns * scale + 8;
  const double high = t->config.rows * scale + 8 + (captions ? 24 : 0);
  const double down = ceil((double)count / (double)across);
  if (((double)across * wide + 92) * (down * high + 72) > IMAGE_MAX_PIXELS)
    die("%zu pictures of %d x %d at --scale %d are more than the %d pixels that can be written",
        count, t->config.columns, t->config.rows, scale, IMAGE_MAX_PIXELS);
}

static void run_sample(tool *t)
{
  const char *out = text(&t->o, OPT_OUT);
  size_t count = (size_t)whole(&t->o, OPT_COUNT), T, i, j;
  size_t completions = (size_t)whole(&t->o, OPT_COMPLETIONS);
  const int nearest = given(&t->o, OPT_NEAREST);
  uint16_t *tokens;
  double began;
  int keep;
  check_output(t, out);
  open_model(t);
  need_palette(t);
  T = tokens_of(t);
  keep = kept_rows(t) * t->config.columns;
  if (keep == 0 && given(&t->o, OPT_COMPLETIONS))
    die("--completions is %zu, and with --keep 0 there is nothing to complete: --count says how "
        "many pictures are drawn", completions);
  if (keep == 0 && t->config.objective == IGPT_BERT)
    die("--keep is 0, and %s is a BERT model, which fills pictures of which something is given",
        text(&t->o, OPT_MODEL));
  if (keep && nearest)
    die("--nearest is for whole pictures: --keep is %g, and must be 0", real(&t->o, OPT_KEEP));
  if (keep == 0 && given(&t->o, OPT_SPLIT))
    die("--split is '%s', and with --keep 0 there is nothing to complete", text(&t->o, OPT_SPLIT));
  if (keep == 0 && given(&t->o, OPT_DATA) && !nearest)
    die("--data is '%s', and with --keep 0 there is nothing to complete: --nearest compares with "
        "it", text(&t->o, OPT_DATA));
  if (nearest) check_size(t, 2 * count, 2 * least(count, PAIRS), 0);
  else if (keep == 0) check_size(t, count, square(count), 0);
  open_session(t, whole(&t->o, OPT_BATCH), 0, 1);
  began = now();
  if (keep == 0) {
    uint8_t *rgb = need_memory(count * T, 3);
    pictures train, held;
    plot_grid_desc d;
    completions = 1;
    tokens = need_memory(count * T, sizeof *tokens);
    if (nearest) {
      t->o.value[OPT_COUNT].whole = 0;                      /* all training pictures */
      read_pictures(t, &train, DATASET_TRAIN, 0, DATASET_PLAIN);
      read_pictures(t, &held, DATASET_VALIDATION, count, DATASET_PLAIN);
      encode_pictures(t, &train);
      encode_pictures(t, &held);
      began = now();
    }
    complete(t, tokens, count, 0);
    decode_tokens(t, rgb, tokens, count);
    memset(&d, 0, sizeof d);
    d.across = (int)square(count);
    d.scale = whole(&t->o, OPT_SCALE);
    if (nearest) show_nearest(t, tokens, count, &train, &held);
    else
      need_file(plot_grid(out, rgb, count, t->config.rows, t->config.columns, &d, file_error,
                          sizeof file_error));
    free(rgb);
  } else {
    pictures p;
    uint32_t *chosen;
    igpt_rng rng = stream(t, STREAM_PROMPTS, 0);
    t->o.value[OPT_COUNT].whole = 0;                        /* draw from the whole split */
    read_pictures(t, &p, asked_split(t), 0, DATASET_PLAIN);
    if (p.count < count && given(&t->o, OPT_COUNT))
      die("--count is %zu, and %s", count, p.set.title);
    count = least(count, p.count);
    check_size(t, count * (completions + 2), completions + 2, 0);
    encode_pictures(t, &p);
    chosen = need_memory(p.count, sizeof *chosen);
    for (i = 0; i < p.count; i++) chosen[i] = (uint32_t)i;
    igpt_rng_shuffle(&rng, chosen, p.count);
    tokens = need_memory(count * completions * T, sizeof *tokens);
    for (i = 0; i < count; i++)
      for (j = 0; j < completions; j++)
        memcpy(tokens + (i * completions + j) * T, p.tokens + chosen[i] * T, T * sizeof *tokens);
    began = now();
    complete(t, tokens, count * completions, keep);
    plot_completions(t, &p, chosen, tokens, count, (int)completions, keep);
    free(chosen);
  }
  if (json(t)) {
    progress_end();
    printf("{\"out\": ");
    print_json_text(out);
    result_line(", \"pictures\": %zu, \"seconds\": %.2f}", count * completions, now() - began);
  } else {
    result_line("%s: %zu pictures in %.1f s", out, count * completions, now() - began);
  }
}

/* ---- features and probe --------------------------------------------------------------------- */

enum { HISTOGRAM_LAYER = -2, PIXELS_LAYER };  /* what needs no network, as depths of their own */

static const char *layer_name(int layer)
{
  static char name[20];
  if (layer < 0) return layer == PIXELS_LAYER ? "pixels" : "histogram";
  snprintf(name, sizeof name, "%d", layer);
  return name;
}

/* The depths of --layer, in order: numbers in 0..L, or `all`, or (probe only) the others; room is
   for L + 3. */
static size_t asked_layers(const tool *t, int *layers, int others)
{
  const char *p = text(&t->o, OPT_LAYER);
  size_t count = 0;
  int l;
  if (!strcmp(p, "all")) {
    if (others) layers[count++] = PIXELS_LAYER;
    for (l = 0; l <= t->config.layers; l++) layers[count++] = l;
    return count;
  }
  for (;;) {
    const size_t length = strcspn(p, ",");
    char *end = NULL;
    long value;
    for (value = HISTOGRAM_LAYER; value < 0; value++)
      if (others && length == strlen(layer_name((int)value)) &&
          !memcmp(p, layer_name((int)value), length)) break;
    if (value == 0) {
      value = *p >= '0' && *p <= '9' ? strtol(p, &end, 10) : -1;
      if (value < 0 || value > t->config.layers || end != p + length)
        die("--layer is '%.*s', and must be a number from 0 to %d, %s", (int)length, p,
            t->config.layers, others ? "'pixels', 'histogram' or 'all'" : "or 'all'");
    }
    if (count == (size_t)t->config.layers + 3) die("--layer names more depths than there are");
    layers[count++] = (int)value;
    p += length;
    if (!*p++) return count;
  }
}

typedef struct feature_look {
  const int *layers;
  size_t     count;
  float     *features;            /* (N,count,C) */
} feature_look;

static igpt_result look_features(tool *t, void *user, const igpt_batch *batch, size_t first)
{
  feature_look *look = user;
  float *to = look->features + first * look->count * (size_t)t->config.width;
  return igpt_features(t->session, to, batch, look->layers, look->count);
}

/* Features of pictures [0, count): (count, layers, C). */
static void features_of(tool *t, const pictures *p, int vote, const int *layers, size_t layer_count,
                        float *features)
{
  feature_look look;
  look.layers = layers;
  look.count = layer_count;
  look.features = features;
  for_each_batch(t, p, p->count, vote, "features of picture", look_features, &look);
}

/* One probe's inputs: x holds train, then validation, then `votes` times test, each (rows, D). */
typedef struct probe_data {
  const int32_t *labels;          /* of train and validation */
  const int32_t *test_labels;
  size_t train, val, test, D;
  int votes, classes;
} probe_data;

static size_t probe_rows(const probe_data *d)
{
  return d->train + d->val + d->test * (size_t)d->votes;
}

static igpt_probe *fit_probe(const tool *t, const probe_data *d, const float *x, size_t rows)
{
  igpt_probe_desc desc;
  igpt_probe *probe;
  igpt_probe_report report;
  memset(&desc, 0, sizeof desc);
  desc.method = (igpt_probe_method)whole(&t->o, OPT_METHOD);
  desc.classes = d->classes;
  desc.inverse_l2 = real(&t->o, OPT_INVERSE_L2);
  desc.standardise = whole(&t->o, OPT_STANDARDISE);
  desc.max_iterations = whole(&t->o, OPT_ITERATIONS);
  desc.epochs = whole(&t->o, OPT_ITERATIONS);
  desc.seed = seed_of(t);
  desc.isa = (igpt_isa)whole(&t->o, OPT_ISA);
  desc.runner = t->runner;
  desc.watch = watch_for("fitting the probe");
  desc.log = sentences;
  need(igpt_probe_fit(&probe, &report, x, d->labels, rows, d->D, &desc), "probe");
  return probe;
}

static double probe_val(const probe_data *d, const igpt_probe *probe, const float *x)
{
  int32_t *labels = need_memory(d->val, sizeof *labels);
  double part;
  need(igpt_probe_predict(probe, labels, NULL, x + d->train * d->D, d->val), "probe");
  part = part_equal(labels, d->labels + d->train, d->val);
  free(labels);
  return part;
}

/* By majority of the votes. */
static double probe_test(const tool *t, const probe_data *d, const igpt_probe *probe,
                         const float *x)
{
  const size_t K = (size_t)d->classes;
  int32_t *labels = need_memory(d->test, sizeof *labels);
  int *votes = need_memory(d->test * K, sizeof *votes), vote;
  double part;
  size_t i;
  x += (d->train + d->val) * d->D;
  for (vote = 0; vote < d->votes; vote++, x += d->test * d->D) {
    need(igpt_probe_predict(probe, labels, NULL, x, d->test), "probe");
    for (i = 0; i < d->test; i++) votes[i * K + (size_t)labels[i]]++;
  }
  for (i = 0; i < d->test; i++) labels[i] = majority(t, votes + i * K, d->classes, i);
  part = part_equal(labels, d->test_labels, d->test);
  free(votes);
  free(labels);
  return part;
}

typedef struct probe_best {
  int    layer;
  double val, test;
  int    others;                  /* 1: what needs no network may be it */
} probe_best;

/* Fits on train, chooses by validation, and for the best depth so far fits again on both, but with
   --labels, which says how many labels there are. */
static void probe_layer(const tool *t, const probe_data *d, int layer, const float *x,
                        probe_best *best)
{
  igpt_probe *probe = fit_probe(t, d, x, d->train);
  const double val = probe_val(d, probe, x), test = probe_test(t, d, probe, x);
  const char *quote = layer < 0 ? "\"" : "";
  igpt_probe_destroy(probe);
  if (json(t))
    result_line("{\"layer\": %s%s%s, \"val\": %.4f, \"test\": %.4f}", quote, layer_name(layer),
                quote, val, test);
  else
    result_line("layer %6s   val %6.2f %%   test %6.2f %%", layer_name(layer), 100 * val,
                100 * test);
  if ((layer < 0 && !best->others) || val <= best->val) return;
  best->layer = layer;
  best->val = val;
  best->test = test;
  if (given(&t->o, OPT_LABELS)) return;
  probe = fit_probe(t, d, x, d->train + d->val);
  best->test = probe_test(t, d, probe, x);
  igpt_probe_destroy(probe);
}

/* Raw pixels as floats in -1..1: (N, 3 T) into x. */
static void pixel_features(const tool *t, const pictures *p, float *x)
{
  const size_t D = 3 * tokens_of(t);
  uint8_t *rgb = need_memory(D, 1);
  size_t i, j;
  for (i = 0; i < p->count; i++) {
    original_picture(t, p, rgb, i);
    for (j = 0; j < D; j++) x[i * D + j] = (float)rgb[j] / 127.5f - 1;
  }
  free(rgb);
}

/* Parts of the pixels that have each colour: (N, V) into x. */
static void histogram_features(const tool *t, const pictures *p, float *x)
{
  const size_t T = tokens_of(t), V = (size_t)t->config.vocabulary;
  size_t i, j;
  for (i = 0; i < p->count; i++)
    for (j = 0; j < T; j++) x[i * V + p->tokens[i * T + j]] += 1 / (float)T;
}

static void probe_others(tool *t, probe_data *d, const pictures *sets, int layer, probe_best *best)
{
  void (*const features)(const tool *t, const pictures *p, float *x) =
      layer == PIXELS_LAYER ? pixel_features : histogram_features;
  const int votes = d->votes;
  float *x;
  d->D = layer == PIXELS_LAYER ? 3 * tokens_of(t) : (size_t)t->config.vocabulary;
  d->votes = 1;                   /* nothing is hidden */
  x = need_memory(probe_rows(d) * d->D, sizeof *x);
  features(t, &sets[0], x);
  features(t, &sets[1], x + d->train * d->D);
  features(t, &sets[2], x + (d->train + d->val) * d->D);
  probe_layer(t, d, layer, x, best);
  d->votes = votes;
  free(x);
}

/* All features of some depths at once: (count, rows, D). */
static void probe_group(tool *t, probe_data *d, const pictures *sets, const int *layers,
                        size_t count, probe_best *best)
{
  const size_t rows = probe_rows(d), C = d->D;
  const size_t most = d->train > d->test ? d->train : d->test;
  float *x = need_memory(count * rows * C, sizeof *x);
  float *part = need_memory((most > d->val ? most : d->val) * count * C, sizeof *part);
  size_t row = 0, i, j;
  int pass;
  for (pass = 0; pass < 2 + d->votes; pass++) {
    const pictures *set = &sets[pass < 2 ? pass : 2];
    features_of(t, set, pass < 2 ? 0 : pass - 2, layers, count, part);
    for (i = 0; i < set->count; i++)
      for (j = 0; j < count; j++)
        memcpy(x + (j * rows + row + i) * C, part + (i * count + j) * C, C * sizeof *x);
    row += set->count;
  }
  free(part);
  for (j = 0; j < count; j++) probe_layer(t, d, layers[j], x + j * rows * C, best);
  free(x);
}

/* --labels N pictures of each class, drawn; the others are dropped. */
static void keep_labels(tool *t, pictures *p)
{
  const size_t T = tokens_of(t), each = (size_t)whole(&t->o, OPT_LABELS);
  const size_t bytes = p->set.pictures ? 3 * T : 0;
  uint32_t *order = need_memory(p->count, sizeof *order);
  size_t *taken = need_memory((size_t)p->set.classes, sizeof *taken), i, kept = 0;
  igpt_rng rng = stream(t, STREAM_LABELS, 0);
  char *keep = need_memory(p->count, 1);
  for (i = 0; i < p->count; i++) order[i] = (uint32_t)i;
  igpt_rng_shuffle(&rng, order, p->count);
  for (i = 0; i < p->count; i++) keep[order[i]] = taken[p->set.labels[order[i]]]++ < each;
  for (i = 0; i < (size_t)p->set.classes; i++)
    if (taken[i] < each)
      die("--labels is %zu, and %s has %zu training pictures of %s", each, p->set.title, taken[i],
          p->set.names[i]);
  for (i = 0; i < p->count; i++) {
    if (!keep[i]) continue;
    memmove(p->tokens + kept * T, p->tokens + i * T, T * sizeof *p->tokens);
    if (bytes) memmove(p->set.pictures + kept * bytes, p->set.pictures + i * bytes, bytes);
    p->set.labels[kept++] = p->set.labels[i];
  }
  p->count = kept;
  free(keep);
  free(taken);
  free(order);
}

/* --together: the depths around the best, or as many of them as there are, as one. */
static void probe_together(tool *t, probe_data *d, const pictures *sets, probe_best best)
{
  const int last = t->config.layers, asked = whole(&t->o, OPT_TOGETHER);
  const int count = asked > last + 1 ? last + 1 : asked;
  int first = best.layer - (count - 1) / 2, l, pass;
  int *layers = need_memory((size_t)count, sizeof *layers);
  igpt_probe *probe;
  double val, test;
  float *x, *at;
  if (first > last + 1 - count) first = last + 1 - count;
  if (first < 0) first = 0;
  for (l = 0; l < count; l++) layers[l] = first + l;
  d->D = (size_t)count * (size_t)t->config.width;
  x = at = need_memory(probe_rows(d) * d->D, sizeof *x);
  for (pass = 0; pass < 2 + d->votes; pass++) {     /* (count, layers, C) is what it takes */
    const pictures *set = &sets[pass < 2 ? pass : 2];
    features_of(t, set, pass < 2 ? 0 : pass - 2, layers, (size_t)count, at);
    at += set->count * d->D;
  }
  probe = fit_probe(t, d, x, d->train);
  val = probe_val(d, probe, x);
  if (!given(&t->o, OPT_LABELS)) {
    igpt_probe_destroy(probe);
    probe = fit_probe(t, d, x, d->train + d->val);
  }
  test = probe_test(t, d, probe, x);
  igpt_probe_destroy(probe);
  if (json(t))
    result_line("{\"first_layer\": %d, \"last_layer\": %d, \"val\": %.4f, \"test_accuracy\": %.4f}",
                first, first + count - 1, val, test);
  else
    result_line("layers %d to %d together: val %.2f %%, test %.2f %%", first, first + count - 1,
                100 * val, 100 * test);
  free(x);
  free(layers);
}

static void run_probe(tool *t)
{
  static const dataset_split splits[] = { DATASET_TRAIN, DATASET_VALIDATION, DATASET_TEST };
  pictures sets[3];
  probe_data d;
  probe_best best = { 0, -1, 0, 1 };
  int *layers;
  int32_t *labels;
  size_t layer_count, group, i, j;
  open_model(t);
  memset(&d, 0, sizeof d);
  for (i = 0; i < 3; i++) {
    read_pictures(t, &sets[i], splits[i], 0, DATASET_PLAIN);
    if (!sets[i].set.labels) die("%s: has no labels, and a probe needs them", data_path(t));
    encode_pictures(t, &sets[i]);
    if (sets[i].set.classes > d.classes) d.classes = sets[i].set.classes;
  }
  if (given(&t->o, OPT_LABELS)) keep_labels(t, &sets[0]);
  open_session(t, whole(&t->o, OPT_BATCH), 0, 0);
  d.train = sets[0].count;
  d.val = sets[1].count;
  d.test = sets[2].count;
  d.votes = votes_of(t);
  d.labels = labels = need_memory(d.train + d.val, sizeof *labels);
  memcpy(labels, sets[0].set.labels, d.train * sizeof *labels);
  memcpy(labels + d.train, sets[1].set.labels, d.val * sizeof *labels);
  d.test_labels = sets[2].set.labels;

  layers = need_memory((size_t)t->config.layers + 3, sizeof *layers);
  layer_count = asked_layers(t, layers, 1);
  for (i = 0; i < layer_count; i++) best.others &= layers[i] < 0;
  if (best.others && given(&t->o, OPT_TOGETHER))
    die("--together is %d, and --layer is '%s', without a depth", whole(&t->o, OPT_TOGETHER),
        text(&t->o, OPT_LAYER));
  for (i = 0; i < layer_count; i += group) {
    if (layers[i] < 0) {
      probe_others(t, &d, sets, layers[i], &best);
      group = 1;
      continue;
    }
    d.D = (size_t)t->config.width;
    group = (size_t)(physical_memory() / 8 / (double)(probe_rows(&d) * d.D * sizeof(float))) + 1;
    group = least(group, layer_count - i);
    for (j = 1; j < group; j++) if (layers[i + j] < 0) group = j;
    probe_group(t, &d, sets, layers + i, group, &best);
  }
  if (json(t))
    result_line(best.others ? "{\"best_layer\": \"%s\", \"test_accuracy\": %.4f}"
                            : "{\"best_layer\": %s, \"test_accuracy\": %.4f}",
                layer_name(best.layer), best.test);
  else
    result_line("best layer by validation: %s of %d; %s: test %.2f %%", layer_name(best.layer),
                t->config.layers, given(&t->o, OPT_LABELS) ? "fitted on --labels alone"
                : "fitted again on train and validation", 100 * best.test);
  if (given(&t->o, OPT_TOGETHER)) probe_together(t, &d, sets, best);
}

static void run_features(tool *t)
{
  const char *out = text(&t->o, OPT_OUT);
  char *labels = beside(out, ".labels.npy");
  int *layers;
  uint64_t shape[3];
  float *features;
  pictures p;
  size_t count;
  check_output(t, out);
  check_output(t, labels);
  open_looking(t, &p, 0);
  layers = need_memory((size_t)t->config.layers + 3, sizeof *layers);
  count = asked_layers(t, layers, 0);
  features = need_memory(p.count * count * (size_t)t->config.width, sizeof *features);
  features_of(t, &p, 0, layers, count, features);
  shape[0] = p.count;
  shape[1] = count;
  shape[2] = (uint64_t)t->config.width;
  save_npy(out, IGPT_NPY_F32, features, 3, shape);
  if (p.set.labels) save_npy(labels, IGPT_NPY_I32, p.set.labels, 1, shape);
  if (json(t))
    result_line("{\"images\": %zu, \"layers\": %zu, \"width\": %d}", p.count, count,
                t->config.width);
  else
    result_line("%s: %zu pictures, %zu depths, %d features", out, p.count, count, t->config.width);
}

/* ---- finetune and classify ------------------------------------------------------------------ */

static double finetune_evaluate(run *r)
{
  return accuracy(r->t, r->val, r->val->count, 1);
}

/* Keeps the best model on disk, with the checkpoint that knows of it. */
static void finetune_evaluated(run *r, const double *row)
{
  char train[30] = "-";
  if (row[ROW_TRAIN] == row[ROW_TRAIN])
    snprintf(train, sizeof train, "%.2f %%", 100 * row[ROW_TRAIN]);
  if (!json(r->t))
    result_line("step %6.0f   train %9s   val %6.2f %%   %7.0f tokens/s   %5.0f s", row[ROW_STEP],
                train, 100 * row[ROW_VAL], row[ROW_SPEED], row[ROW_SECONDS]);
  if (best_row(r) == r->row_count - 1) save_run(r, 1);
}

/* The optimiser's steps in a model's file; -1 if it is not there or does not say. */
static double file_step(const char *path)
{
  char *header = file_header(path), *step = header_note(header, "igpt.step");
  const double value = step ? atof(step) : -1;
  free(step);
  free(header);
  return value;
}

/* A resumed run whose best model lies behind it finds that model, and not another, as --out. If its
   checkpoint is the best, it has the weights, and a kill may have come between the two files. */
static void check_best(run *r)
{
  const double best = r->rows[best_row(r) * ROW_COLUMNS + ROW_STEP];
  const double want = file_step(text(&r->t->o, OPT_RESUME)) - (double)r->at.step + best;
  const double found = file_step(r->out);
  if (best == (double)r->at.step && found != want) save_run(r, 1);
  else if (found < 0)
    die("%s: is not there, and held the best model of the run, of step %.0f", r->out, best);
  else if (found != want)
    die("%s: has taken %.0f steps, and the best model of the run %.0f: it is another one", r->out,
        found, want);
}

/* Names of classes for the model's file, a line each. */
static char *class_list(const dataset *set)
{
  size_t room = 1;
  char *made, *to;
  int i;
  for (i = 0; i < set->classes; i++) room += strlen(set->names[i]) + 1;
  made = to = need_memory(room, 1);
  for (i = 0; i < set->classes; i++) to += sprintf(to, i ? "\n%s" : "%s", set->names[i]);
  return made;
}

/* What config.json of a Hugging Face folder calls class n, from malloc; null if it does not. */
static char *hf_class(const tool *t, int n)
{
  const char *folder = text(&t->o, OPT_MODEL), *names;
  char *path, *config, *name, number[20];
  if (!is_folder(folder)) return NULL;
  path = join(folder, "config.json");
  config = json_file(path);
  names = json_find(config, "id2label", NULL);
  snprintf(number, sizeof number, "%d", n);
  name = json_text(names ? json_find(names, number, NULL) : NULL);
  free(config);
  free(path);
  return name;
}

/* The names in --model, if there are as many as it has classes; else null. */
static const char **model_classes(const tool *t)
{
  char *list = model_note(text(&t->o, OPT_MODEL), CLASSES_NOTE);
  const char **names = need_memory((size_t)t->config.classes, sizeof *names);
  int n = 0;
  if (!list) {
    while (n < t->config.classes && (names[n] = hf_class(t, n)) != NULL) n++;
    return n == t->config.classes ? names : NULL;
  }
  for (; list && n < t->config.classes; n++) {
    names[n] = list;
    list = strchr(list, '\n');
    if (list) *list++ = 0;
  }
  return n == t->config.classes && !list ? names : NULL;
}

/* A class head of zeros on the weights of --model (or the run of --resume). */
static void open_finetuning(tool *t, pictures *train_set, pictures *val)
{
  const char *path = text(&t->o, OPT_MODEL);
  igpt_tensor score;
  open_model(t);
  read_pictures(t, val, DATASET_VALIDATION, look_count(t), DATASET_PLAIN);
  read_pictures(t, train_set, DATASET_TRAIN, 0, (dataset_augment)whole(&t->o, OPT_AUGMENT));
  if (!train_set->set.labels || !val->set.labels)
    die("%s: has no labels, and fine-tuning needs them", data_path(t));
  encode_pictures(t, val);
  encode_pictures(t, train_set);
  load_model(t, path, train_set->set.classes);
  find_palette(t, path);
  need(igpt_model_tensor(t->model, &score, "score.weight"), path);
  memset(score.data, 0, score.count * sizeof *score.data);
}

static void run_finetune(tool *t)
{
  pictures train_set, val, test;
  char title[200];
  double val_accuracy, test_accuracy;
  run r;
  memset(&r, 0, sizeof r);
  restore_options(t);
  check_run(t);
  if (!given(&t->o, OPT_STEPS) && !given(&t->o, OPT_MINUTES)) settle(t, OPT_EPOCHS, "10");
  open_finetuning(t, &train_set, &val);
  snprintf(title, sizeof title, "fine-tuning, %.*s",
           (int)least(strcspn(train_set.set.title, ":"), 60), train_set.set.title);
  r.t = t;
  r.train = &train_set;
  r.val = &val;
  r.augment = (dataset_augment)whole(&t->o, OPT_AUGMENT);
  r.title = title;
  r.val_name = "validation";
  r.csv_header = "step,train_accuracy,val_accuracy,tokens_per_s,seconds";
  r.evaluate = finetune_evaluate;
  r.evaluated = finetune_evaluated;
  r.batch = (size_t)whole(&t->o, OPT_BATCH);
  r.patience = (size_t)whole(&t->o, OPT_PATIENCE);
  r.names = class_list(&train_set.set);
  r.loss.generative = (float)real(&t->o, OPT_GENERATIVE);
  r.loss.classification = 1;
  open_run(&r);
  if (r.row_count) check_best(&r);
  if (!train(&r)) exit(128 + (int)stop_signal);
  if (r.saved_step != r.at.step) save_run(&r, 0);
  on_signals(SIG_DFL);

  val_accuracy = r.rows[best_row(&r) * ROW_COLUMNS + ROW_VAL];
  load_model(t, r.out, 0);        /* the best of the run */
  open_session(t, 8, 0, 0);
  read_pictures(t, &test, DATASET_TEST, 0, DATASET_PLAIN);
  encode_pictures(t, &test);
  test_accuracy = accuracy(t, &test, test.count, votes_of(t));
  if (json(t)) {
    result_line("{\"val\": %.4f, \"test_accuracy\": %.4f}", val_accuracy, test_accuracy);
  } else {
    result_line("best validation accuracy %.2f %% (step %.0f); test %.2f %% of %zu pictures",
                100 * val_accuracy, r.rows[best_row(&r) * ROW_COLUMNS + ROW_STEP],
                100 * test_accuracy, test.count);
    result_line("%s, %s, %s, %s", r.out, r.svg, r.csv, r.checkpoint);
  }
}

static void run_classify(tool *t)
{
  pictures p;
  int32_t *labels;
  float *probability;
  const char **names;
  int same, k;
  size_t i;
  open_looking(t, &p, 0);
  labels = need_memory(p.count, sizeof *labels);
  probability = need_memory(p.count, sizeof *probability);
  if (t->config.classes < 1)
    die("%s: has no class head; igpt finetune makes one", text(&t->o, OPT_MODEL));
  classify_pictures(t, &p, p.count, votes_of(t), labels, probability);
  progress_end();
  names = model_classes(t);
  same = p.set.classes == t->config.classes;                /* are the data's classes its own? */
  for (k = 0; names && same && k < p.set.classes; k++) same = !strcmp(names[k], p.set.names[k]);
  if (!names && same) names = (const char **)p.set.names;
  for (i = 0; i < p.count; i++) {
    char number[20];
    const char *name = names ? names[labels[i]] : number;
    snprintf(number, sizeof number, "%d", (int)labels[i]);
    if (json(t)) {
      printf("{\"picture\": %zu, ", i);
      if (p.set.paths) {
        printf("\"file\": ");
        print_json_text(p.set.paths[i]);
        printf(", ");
      }
      printf("\"class\": ");
      print_json_text(name);
      printf(", \"probability\": %.4f}\n", (double)probability[i]);
    } else if (p.set.paths) {
      printf("%-16s %.4f  %s\n", name, (double)probability[i], p.set.paths[i]);
    } else {
      printf("%6zu  %-16s %.4f\n", i, name, (double)probability[i]);
    }
  }
  if (p.set.labels && !same && !json(t))
    result_line("the classes of the pictures are not those of the model: no accuracy");
  else if (p.set.labels && !json(t))
    result_line("%.2f %% of %zu are right", 100 * part_equal(labels, p.set.labels, p.count),
                p.count);
}

/* ---- map ------------------------------------------------------------------------------------ */

#define BERT_GROUPS 7             /* every pixel is hidden once, with a seventh of the others */

/* Nats of every pixel of pictures [first, first + number): (number,T). */
static void pixel_nats(tool *t, const pictures *p, size_t first, size_t number, float *nats)
{
  const size_t T = tokens_of(t), count = number * T;
  igpt_batch batch;
  uint8_t *group, *mask;
  float *part;
  size_t i;
  int g;
  memset(&batch, 0, sizeof batch);
  batch.tokens = p->tokens + first * T;
  batch.count = number;
  if (t->config.objective == IGPT_AR) {
    need(igpt_nll(t->session, nats, NULL, &batch), NULL);
    return;
  }
  group = need_memory(count, 1);
  batch.mask = mask = need_memory(count, 1);
  part = need_memory(count, sizeof *part);
  for (i = 0; i < number; i++) {
    igpt_rng rng = stream(t, STREAM_EVALUATION, first + i);
    size_t j;
    for (j = 0; j < T; j++) group[i * T + j] = (uint8_t)igpt_rng_below(&rng, BERT_GROUPS);
  }
  for (g = 0; g < BERT_GROUPS; g++) {
    for (i = 0; i < count; i++) mask[i] = group[i] == g;
    need(igpt_nll(t->session, part, NULL, &batch), NULL);
    for (i = 0; i < count; i++) if (mask[i]) nats[i] = part[i];
  }
  free(part);
  free(mask);
  free(group);
}

/* ---- map --score ---------------------------------------------------------------------------- */

typedef struct score {
  size_t picture;
  double nats;                    /* a pixel, mean */
  double flat;                    /* part of the pixels that look like the one on their left */
} score;

static int by_nats(const void *a, const void *b)
{
  const score *x = a, *y = b;
  if (x->nats != y->nats) return x->nats < y->nats ? -1 : 1;
  return x->picture < y->picture ? -1 : x->picture > y->picture;
}

static void score_pictures(tool *t, const pictures *p, score *scores)
{
  const size_t T = tokens_of(t), columns = (size_t)t->config.columns;
  float *nats = need_memory(AT_ONCE * T, sizeof *nats);
  size_t first, i, j;
  for (first = 0; first < p->count; first += AT_ONCE) {
    const size_t number = least(AT_ONCE, p->count - first);
    progress("scoring picture %zu of %zu", first, p->count);
    pixel_nats(t, p, first, number, nats);
    for (i = 0; i < number; i++) {
      const uint16_t *tokens = p->tokens + (first + i) * T;
      score *s = &scores[first + i];
      s->picture = first + i;
      for (j = 0; j < T; j++) {
        s->nats += (double)nats[i * T + j] / (double)T;
        s->flat += j % columns && tokens[j] == tokens[j - 1];
      }
      s->flat /= (double)(T - T / columns ? T - T / columns : 1);
    }
  }
  free(nats);
}

/* Pearson's, of nats and flat; 0 where one of them does not vary. */
static double score_correlation(const score *s, size_t count)
{
  double x = 0, y = 0, xx = 0, yy = 0, xy = 0;
  size_t i;
  for (i = 0; i < count; i++) {
    x += s[i].nats / (double)count;
    y += s[i].flat / (double)count;
  }
  for (i = 0; i < count; i++) {
    xx += (s[i].nats - x) * (s[i].nats - x);
    yy += (s[i].flat - y) * (s[i].flat - y);
    xy += (s[i].nats - x) * (s[i].flat - y);
  }
  return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0;
}

/* A field of a CSV file, in quotes where it needs them. */
static void put_field(FILE *to, const char *field)
{
  if (!strpbrk(field, ",\"\r\n")) {
    fprintf(to, ",%s", field);
    return;
  }
  fputs(",\"", to);
  for (; *field; field++) {
    if (*field == '"') fputc('"', to);
    fputc(*field, to);
  }
  fputc('"', to);
}

static void write_scores(const pictures *p, const score *scores, const char *path)
{
  text_file made;
  FILE *to = begin_text(&made);
  size_t i;
  fprintf(to, "rank,nats_per_pixel,flat,picture,class,file\n");
  for (i = 0; i < p->count; i++) {
    const size_t n = scores[i].picture;
    fprintf(to, "%zu,%.6f,%.4f,%zu", i + 1, scores[i].nats, scores[i].flat, n);
    put_field(to, p->set.labels ? p->set.names[p->set.labels[n]] : "");
    put_field(to, p->set.paths ? p->set.paths[n] : "");
    fputc('\n', to);
  }
  save_text(&made, path);
}

/* Two rows: the most likely pictures, and the least likely, the last of all at the end. */
static void plot_scores(tool *t, const pictures *p, const score *scores, const char *path)
{
  const size_t T = tokens_of(t), each = least((size_t)whole(&t->o, OPT_COUNT), p->count);
  uint8_t *rgb = need_memory(2 * each * T, 3);
  char **captions = need_memory(2 * each, sizeof *captions);
  plot_grid_desc d;
  size_t i;
  for (i = 0; i < 2 * each; i++) {
    const score *s = &scores[i < each ? i : p->count - 2 * each + i];
    original_picture(t, p, rgb + i * 3 * T, s->picture);
    captions[i] = need_memory(40, 1);
    snprintf(captions[i], 40, "%.3f", s->nats);
  }
  memset(&d, 0, sizeof d);
  d.across = (int)each;
  d.scale = whole(&t->o, OPT_SCALE);
  d.title = "nats a pixel: most likely, least likely";
  d.captions = (const char *const *)captions;
  need_file(plot_grid(path, rgb, 2 * each, t->config.rows, t->config.columns, &d, file_error,
                      sizeof file_error));
  for (i = 0; i < 2 * each; i++) free(captions[i]);
  free(captions);
  free(rgb);
}

static void print_score(const tool *t, const pictures *p, const score *scores, size_t rank)
{
  const score *s = &scores[rank];
  const char *path = p->set.paths ? p->set.paths[s->picture] : NULL;
  if (!json(t)) {
    result_line("%6zu  %.4f nats/pixel   flat %.2f   %6zu  %s", rank + 1, s->nats, s->flat,
                s->picture, path ? path : "");
    return;
  }
  progress_end();
  printf("{\"rank\": %zu, \"picture\": %zu, \"nats_per_pixel\": %.6f, \"flat\": %.4f", rank + 1,
         s->picture, s->nats, s->flat);
  if (path) printf(", \"file\": ");
  if (path) print_json_text(path);
  result_line("}");
}

static void run_score(tool *t)
{
  const char *out = text(&t->o, OPT_OUT);
  char *csv = beside(out, ".csv");
  const size_t each = (size_t)whole(&t->o, OPT_COUNT);
  pictures p;
  score *scores;
  double mean = 0, median, correlation;
  size_t i;
  if (!strcmp(csv, out))
    die("--out is '%s', and the table has that name: call the picture .png", out);
  check_output(t, csv);
  open_model(t);
  t->o.value[OPT_COUNT].whole = 0;                          /* all pictures are ranked */
  read_pictures(t, &p, asked_split(t), 0, DATASET_PLAIN);
  t->o.value[OPT_COUNT].whole = (long long)each;
  check_size(t, 2 * least(each, p.count), least(each, p.count), 1);
  encode_pictures(t, &p);
  open_session(t, whole(&t->o, OPT_BATCH), 0, 0);
  scores = need_memory(p.count, sizeof *scores);
  score_pictures(t, &p, scores);
  for (i = 0; i < p.count; i++) mean += scores[i].nats / (double)p.count;
  correlation = score_correlation(scores, p.count);
  qsort(scores, p.count, sizeof *scores, by_nats);
  median = (scores[(p.count - 1) / 2].nats + scores[p.count / 2].nats) / 2;
  write_scores(&p, scores, csv);
  plot_scores(t, &p, scores, fresh_output(out));
  keep_outputs();
  for (i = 0; i < p.count; i++)
    if (json(t) || i < each || i + each >= p.count) print_score(t, &p, scores, i);
  if (json(t)) {
    result_line("{\"images\": %zu, \"mean\": %.6f, \"median\": %.6f, \"flat_correlation\": %.4f}",
                p.count, mean, median, correlation);
    return;
  }
  result_line("%zu pictures of %s: mean %.4f, median %.4f nats/pixel; correlation with flat %.2f",
              p.count, p.set.title, mean, median, correlation);
  result_line("%s, %s", out, csv);
}

static void run_map(tool *t)
{
  const char *out = text(&t->o, OPT_OUT);
  plot_heat_desc d;
  pictures p;
  uint8_t *rgb;
  float *nats;
  char **captions;
  size_t T, across, i, j;
  check_output(t, out);
  if (given(&t->o, OPT_SCORE)) {
    run_score(t);
    return;
  }
  open_looking(t, &p, 0);
  T = tokens_of(t);
  across = square((p.count + 1) / 2);                       /* maps, each beside its picture */
  check_size(t, 2 * p.count, 2 * across, 1);
  nats = need_memory(p.count * T, sizeof *nats);
  rgb = need_memory(p.count * T, 3);
  captions = need_memory(p.count, sizeof *captions);
  pixel_nats(t, &p, 0, p.count, nats);
  decode_tokens(t, rgb, p.tokens, p.count);
  for (i = 0; i < p.count; i++) {
    double sum = 0;
    for (j = 0; j < T; j++) sum += (double)nats[i * T + j];
    captions[i] = need_memory(40, 1);
    snprintf(captions[i], 40, "%.3f nats", sum / (double)T);
    if (json(t)) result_line("{\"picture\": %zu, \"nats_per_pixel\": %.6f}", i, sum / (double)T);
  }
  memset(&d, 0, sizeof d);
  d.high = log((double)t->config.vocabulary);               /* a blind guess is the brightest */
  d.pictures = rgb;
  d.across = (int)across;
  d.scale = whole(&t->o, OPT_SCALE);
  d.unit = "nats";
  d.captions = (const char *const *)captions;
  need_file(plot_heat(out, nats, p.count, t->config.rows, t->config.columns, &d, file_error,
                      sizeof file_error));
  if (!json(t)) result_line("%s: %zu pictures", out, p.count);
}

/* ---- plan and info -------------------------------------------------------------------------- */

/* One line a kind of memory, for a session that runs (a) and one that trains (b). */
static void print_plan(const igpt_plan *a, const igpt_plan *b, int batch)
{
  const struct { const char *name; size_t run, train; } memory[] = {
    { "model", a->model_bytes, b->model_bytes },
    { "gradients", a->gradient_bytes, b->gradient_bytes },
    { "moments", a->moment_bytes, b->moment_bytes },
    { "activations", a->activation_bytes, b->activation_bytes },
    { "keys and values", a->cache_bytes, b->cache_bytes },
    { "copied weights", a->copy_bytes, b->copy_bytes },
    { "scratch", a->scratch_bytes, b->scratch_bytes },
    { "session, in all", a->session_bytes, b->session_bytes }
  };
  const struct { const char *name; double flops; } work[] = {
    { "forward", a->forward_flops }, { "train", a->train_flops }, { "sample", a->decode_flops }
  };
  size_t i;
  result_line("%-16s %14s %14s   %d pictures at once", "", "to run", "to train", batch);
  for (i = 0; i < COUNT_OF(memory); i++)
    result_line("%-16s %11.2f MB %11.2f MB", memory[i].name, (double)memory[i].run / 1e6,
                (double)memory[i].train / 1e6);
  for (i = 0; i < COUNT_OF(work); i++)
    result_line("%-16s %11.3f GFLOP a picture", work[i].name, work[i].flops / 1e9);
}

static void run_plan(tool *t)
{
  const igpt_config c = asked_config(t);
  const int batch = whole(&t->o, OPT_BATCH);
  const igpt_session_desc use = session_desc(t, batch, 0, 1);
  igpt_session_desc learn = session_desc(t, batch, 1, 0);
  const int free_shape = given(&t->o, OPT_LAYERS) || given(&t->o, OPT_WIDTH);
  igpt_plan a, b;
  if (learn.precision == IGPT_INT8) learn.precision = IGPT_BF16;     /* what then runs in int8 */
  need(igpt_plan_make(&a, &c, &use), NULL);
  need(igpt_plan_make(&b, &c, &learn), NULL);
  if (json(t)) {
    result_line("{\"parameters\": %zu, \"model_bytes\": %zu, \"run_session_bytes\": %zu, "
                "\"train_session_bytes\": %zu, \"forward_flops\": %.6g, \"train_flops\": %.6g, "
                "\"decode_flops\": %.6g}",
                a.parameters, a.model_bytes, a.session_bytes, b.session_bytes, a.forward_flops,
                a.train_flops, a.decode_flops);
    return;
  }
  result_line("%s: %d layers, %d heads, width %d, %d x %d pixels, %d colours, %s; %zu parameters",
              free_shape ? "free shape" : text(&t->o, OPT_PRESET), c.layers, c.heads, c.width,
              c.columns, c.rows, c.vocabulary, objective_name(c.objective), a.parameters);
  print_plan(&a, &b, batch);
}

/* The strings of "__metadata__" in the header of a safetensors file. */
static void print_metadata(const char *path)
{
  char *header = file_header(path);
  const char *p, *end;
  int length;
  if (!header) die("%s: not a safetensors file", path);
  p = json_find(header, "__metadata__", NULL);
  for (end = p ? json_end(p, 1) : NULL; end && ++p < end;) {
    const char *name = p = json_space(p), *value;
    p = json_end(p, 1);
    if (!p || p >= end) break;
    value = json_space(json_space(p) + 1);
    length = (int)(json_end(value, 1) - value) - 2;         /* the colours themselves are long */
    printf("  %-20.*s %.*s%s\n", (int)(p - name) - 2, name + 1, length > 60 ? 60 : length,
           value + 1, length > 60 ? " ..." : "");
    p = json_space(json_end(value, 1));
  }
  free(header);
}

static double root_mean_square(const igpt_tensor *tensor)
{
  double sum = 0;
  size_t i;
  for (i = 0; i < tensor->count; i++) sum += (double)tensor->data[i] * (double)tensor->data[i];
  return tensor->count ? sqrt(sum / (double)tensor->count) : 0;
}

static void run_info(tool *t)
{
  const char *path = text(&t->o, OPT_MODEL);
  const igpt_config *c = &t->config;
  char *inside;
  size_t i;
  open_model(t);
  inside = model_file(path);
  if (json(t)) {
    printf("{\"objective\": \"%s\", \"layers\": %d, \"heads\": %d, \"width\": %d, \"rows\": %d, "
           "\"columns\": %d, \"colours\": %d, \"classes\": %d, \"parameters\": %zu, \"palette\": ",
           objective_name(c->objective), c->layers, c->heads, c->width, c->rows, c->columns,
           c->vocabulary, c->classes, igpt_model_parameters(t->model));
    if (t->palette.colours) print_json_text(t->palette.name);
    else printf("null");
    result_line("}");
    return;
  }
  result_line("%s: %s, %d layers, %d heads, width %d, %d x %d pixels, %d colours, %d classes", path,
              objective_name(c->objective), c->layers, c->heads, c->width, c->columns, c->rows,
              c->vocabulary, c->classes);
  result_line("%zu parameters; palette: %s", igpt_model_parameters(t->model),
              t->palette.colours ? t->palette.name : "none");
  result_line("metadata:");
  print_metadata(inside);
  result_line("tensors:                                  shape            root mean square");
  for (i = 0; i < igpt_model_tensors(t->model); i++) {
    igpt_tensor tensor;
    char shape[40];
    need(igpt_model_tensor_at(t->model, &tensor, i), path);
    snprintf(shape, sizeof shape, tensor.rank == 2 ? "%zu x %zu" : "%zu", tensor.shape[0],
             tensor.shape[1]);
    result_line("  %-38s  %-14s %10.5f", tensor.name, shape, root_mean_square(&tensor));
  }
  free(inside);
}

/* ---- export --------------------------------------------------------------------------------- */

static igpt_result export_body(void *user, const igpt_sink *sink)
{
  return igpt_model_write_bf16(((const tool *)user)->model, sink);
}

typedef struct hf_job { const igpt_model *model; int classifier; } hf_job;

static igpt_result hf_body(void *user, const igpt_sink *sink)
{
  const hf_job *job = user;
  return igpt_model_write_hf(job->model, sink, job->classifier);
}

/* What their ImageGPTConfig says, where its defaults are not ours: dropout, for one. */
static void write_hf_config(const tool *t, const char *path, int classifier)
{
  const igpt_config *c = &t->config;
  const char **names = classifier ? model_classes(t) : NULL;
  text_file made;
  FILE *to = begin_text(&made);
  int i, turn;
  fprintf(to, "{\n  \"architectures\": [\"ImageGPTFor%s\"],\n  \"model_type\": \"imagegpt\",\n",
          classifier ? "ImageClassification" : "CausalImageModeling");
  fprintf(to, "  \"vocab_size\": %d,\n  \"n_positions\": %zu,\n  \"n_embd\": %d,\n",
          c->vocabulary + 1, tokens_of(t), c->width);
  fprintf(to, "  \"n_layer\": %d,\n  \"n_head\": %d,\n  \"n_inner\": null,\n", c->layers, c->heads);
  fprintf(to, "  \"layer_norm_epsilon\": %.9g,\n  \"activation_function\": \"quick_gelu\",\n",
          (double)c->norm_epsilon);
  fprintf(to, "  \"resid_pdrop\": 0.0,\n  \"embd_pdrop\": 0.0,\n  \"attn_pdrop\": 0.0,\n"
          "  \"scale_attn_weights\": true,\n  \"scale_attn_by_inverse_layer_idx\": false,\n"
          "  \"tie_word_embeddings\": false");
  for (turn = 0; turn < 2 && classifier; turn++) {          /* from number to name, and back */
    fprintf(to, ",\n  \"%s\": {", turn ? "label2id" : "id2label");
    for (i = 0; i < c->classes; i++) {
      char number[20], *name;
      snprintf(number, sizeof number, "%d", i);
      name = json_escape(names ? names[i] : number);
      if (turn) fprintf(to, "%s\n    \"%s\": %d", i ? "," : "", name, i);
      else fprintf(to, "%s\n    \"%d\": \"%s\"", i ? "," : "", i, name);
      free(name);
    }
    fprintf(to, "\n  }");
  }
  fprintf(to, "\n}\n");
  save_text(&made, path);
}

/* And their ImageGPTImageProcessor: pictures of the model's size, -1..1, the nearest colour. */
static void write_hf_processor(const tool *t, const char *path)
{
  text_file made;
  FILE *to = begin_text(&made);
  int i;
  fprintf(to, "{\n  \"image_processor_type\": \"ImageGPTImageProcessor\",\n  \"do_resize\": true,\n"
          "  \"size\": {\"height\": %d, \"width\": %d},\n  \"resample\": 2,\n", t->config.rows,
          t->config.columns);
  fprintf(to, "  \"do_normalize\": true,\n  \"do_color_quantize\": true,\n  \"clusters\": [");
  for (i = 0; i < t->palette.colours; i++) {
    const float *x = t->palette.centre[i];
    fprintf(to, "%s\n    [%.9g, %.9g, %.9g]", i ? "," : "", (double)x[0], (double)x[1],
            (double)x[2]);
  }
  fprintf(to, "\n  ]\n}\n");
  save_text(&made, path);
}

static void export_hf(tool *t, const char *folder)
{
  const int classifier = given(&t->o, OPT_HEAD) ? whole(&t->o, OPT_HEAD) : t->config.classes > 0;
  char *weights = join(folder, "model.safetensors"), *config = join(folder, "config.json");
  char *processor = join(folder, "preprocessor_config.json");
  const char *path = text(&t->o, OPT_MODEL);
  char *inside = model_file(path);
  file_note names = { CLASSES_NOTE, NULL };
  hf_job job;
  if (t->config.objective != IGPT_AR)
    die("%s: the model's objective is BERT, and Hugging Face's ImageGPT has only AR", path);
  if (classifier && !t->config.classes)
    die("%s: has no class head, and --head is classes", path);
  need_palette(t);
  if (same_file(weights, inside))
    die("--hf is '%s', whose model.safetensors is the model itself, which would lose a head",
        folder);
  if (given(&t->o, OPT_PALETTE) && same_file(weights, text(&t->o, OPT_PALETTE)))
    die("--palette is '%s', which would be written over: --hf is '%s'", text(&t->o, OPT_PALETTE),
        folder);
  if (!is_folder(folder) && mkdir(folder, 0777))
    die("--hf is '%s', which cannot be made: %s", folder, strerror(errno));
  job.model = t->model;
  job.classifier = classifier;
  names.value = classifier ? model_note(text(&t->o, OPT_MODEL), CLASSES_NOTE) : NULL;
  save_noted(fresh_output(weights), &names, 1, hf_body, &job);
  write_hf_config(t, config, classifier);
  write_hf_processor(t, processor);
  keep_outputs();
  free(inside);
  free(processor);
  free(config);
  free(weights);
}

static void run_export(tool *t)
{
  const char *folder = text(&t->o, OPT_HF), *out = folder ? folder : text(&t->o, OPT_OUT);
  file_note notes[3];
  if (folder && given(&t->o, OPT_OUT))
    die("--out is '%s', and --hf is '%s': give one of them", text(&t->o, OPT_OUT), folder);
  if (!folder && given(&t->o, OPT_HEAD))
    die("--head is '%s', and belongs to --hf, which is not given", text(&t->o, OPT_HEAD));
  if (!folder) check_output(t, out);
  open_model(t);
  notes[0].key = CLASSES_NOTE;
  notes[0].value = model_note(text(&t->o, OPT_MODEL), CLASSES_NOTE);
  notes[1] = mask_note(t);
  notes[2] = seed_note(t);
  if (folder) export_hf(t, folder);
  else save_noted(out, notes, 3, export_body, t);
  if (json(t)) {
    printf("{\"out\": ");
    print_json_text(out);
    result_line("}");
  } else result_line("%s", out);
}

/* ---- main ----------------------------------------------------------------------------------- */

static const verb *verb_table(size_t *count)
{
  static const verb verbs[] = {
    { "palette", ON_PALETTE, "find the colours that pixels are rounded to",
      "fits a palette to the training pictures by k-means and says what the rounding costs "
      "(PSNR on the validation pictures). Writes the colours (.npy, k x 3, -1..1) and a picture "
      "of them.",
      "igpt palette --data data/cifar-10-batches-bin --out palette.npy", run_palette },
    { "pretrain", ON_PRETRAIN, "learn to predict pixels",
      "trains a model on the training split (of a set without parts: without the tenths that are "
      "held out for validation and for test) without labels: AdamW(0.9, 0.95), a linear warm-up, "
      "then a cosine to 0, no dropout and no weight decay, as in the paper; augmentation for "
      "folders of larger pictures alone. "
      "Validation pictures are looked at on the way. Ctrl-C saves the state after the last "
      "whole step, and says how to go on. With --json the line of step 0 has train_nats null.",
      "igpt pretrain --data data/cifar-10-batches-bin --minutes 60 --out model.safetensors",
      run_pretrain },
    { "eval", ON_EVAL, "nats per pixel of a split",
      "the mean negative log-likelihood of a pixel, of hidden pixels with a BERT model (15 %, "
      "drawn from --seed). It depends on the palette: compare models with the same colours only. "
      "After training on a folder without a test part, --split test is what training never saw.",
      "igpt eval --model model.safetensors --split test", run_eval },
    { "sample", ON_SAMPLE, "complete pictures, or draw new ones",
      "gives the model the upper rows of pictures and lets it draw the rest: a row of the grid "
      "is what was given, the completions, the truth. A BERT model fills the hidden part in "
      "rounds.",
      "igpt sample --model model.safetensors --keep 0.5 --count 8 --out samples.png", run_sample },
    { "probe", ON_PROBE, "how well each depth separates classes",
      "fits a linear classifier on the pooled features of each depth: on the training pictures "
      "without the held-out tenth, chooses the depth on that tenth, fits the best again on "
      "both, and reports the test accuracy. BERT models look at masked pictures, as in the "
      "paper. With --json a layer is a number, or \"pixels\" or \"histogram\".",
      "igpt probe --model model.safetensors --layer all", run_probe },
    { "finetune", ON_FINETUNE, "train the whole model to classify",
      "puts a class head of zeros on the model and trains everything on class loss + pixel loss "
      "at a constant rate, and keeps the weights of the best validation accuracy. The paper "
      "then trains again with the held-out tenth: too dear here.",
      "igpt finetune --model model.safetensors --epochs 5 --out finetuned.safetensors",
      run_finetune },
    { "classify", ON_CLASSIFY, "name the class of pictures",
      "prints each picture's class, probability and number or file, by a fine-tuned model, which "
      "has the names of the classes it was trained on.",
      "igpt classify --model finetuned.safetensors --data pictures/", run_classify },
    { "features", ON_FEATURES, "pooled features as .npy",
      "writes the mean over positions of each depth's normalised vectors, what the probe is "
      "fitted on.",
      "igpt features --model model.safetensors --layer 4 --out features.npy", run_features },
    { "map", ON_MAP, "which pixels surprise the model",
      "draws pictures beside the nats that each of their pixels costs. --score ranks pictures by "
      "their mean instead. Low nats mean that pixels follow from those before them, which they do "
      "in smooth pictures, whatever these show: a plain grey square is ranked before real "
      "pictures. The column `flat` (pixels equal to the one on their left) says how "
      "smooth a picture is, and the correlation how far that explains the ranking. So compare "
      "pictures that are about as flat. What is noisy, broken or of another kind stands out at the "
      "end; that a picture is ranked first does not mean that it is like the training data.",
      "igpt map --model model.safetensors --count 8 --out map.png", run_map },
    { "plan", ON_PLAN, "what a shape will cost",
      "bytes of every kind and arithmetic for a shape of network, before anything is allocated.",
      "igpt plan --preset S --batch 8", run_plan },
    { "info", ON_INFO, "what a model file holds",
      "prints shape, palette, metadata and tensors of a model.",
      "igpt info model.safetensors", run_info },
    { "export", ON_EXPORT, "a model's file to be shipped",
      "writes the model with its weights rounded to bfloat16, two bytes each instead of four, and "
      "palette, metadata and names of classes as they are. Every verb reads it. With --hf, a "
      "folder that Hugging Face's from_pretrained reads, with the same logits; a BERT model has "
      "no counterpart there. Their processor resizes without cropping, and not by area: give it "
      "pictures of the model's size for the same tokens.",
      "igpt export model.safetensors --out small.safetensors", run_export }
  };
  *count = COUNT_OF(verbs);
  return verbs;
}

int main(int argc, char **argv)
{
  static tool t;
  const verb *v;
  if (argc < 2) {
    help_tool();
    return 1;
  }
  if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
    help_tool();
    check_stdout();
    return 0;
  }
  v = find_verb(argv[1]);
  parse_options(&t.o, v, argc - 2, argv + 2);
  if (given(&t.o, OPT_HELP)) {
    help_verb(v);
    check_stdout();
    return 0;
  }
  t.argc = argc;
  t.argv = argv;
  if (v->bit & ON_DATA) open_machine(&t);
  v->run(&t);
  igpt_session_destroy(t.session);
  igpt_model_destroy(t.model);
  igpt_pool_destroy(t.pool);
  check_stdout();
  return 0;
}
