/* cli_train.h: the loop behind `pretrain` and `finetune`.

   The whole state of a run is a step, a place in the data, weights and moments. Nothing else is
   kept, because nothing else is needed: the order of the pictures is a shuffle that depends on
   (seed, epoch), and what is drawn for a picture (its crop, its mirror image, its mask) depends on
   (seed, number of the picture since the start). So a run that goes on from a checkpoint takes the
   same steps, to the bit, as one that never stopped. A run by the clock goes on with the seconds
   that are left, and ends on time; its steps depend on the speed of the machine.                 */

#ifndef CLI_TRAIN_H
#define CLI_TRAIN_H

#include <signal.h>

#include "cli_tool.h"

/* ---- Ctrl-C --------------------------------------------------------------------------------- */

/* The first signal asks the loop to finish its step and save; the second ends the program at
   once. */
static volatile sig_atomic_t stop_signal;

static void on_signal(int number)
{
  if (stop_signal) _exit(128 + number);
  stop_signal = number;
}

static void on_signals(void (*handler)(int))
{
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

/* ---- the run -------------------------------------------------------------------------------- */

enum { ROW_STEP, ROW_TRAIN, ROW_VAL, ROW_SPEED, ROW_SECONDS, ROW_COLUMNS };

typedef struct run {
  tool           *t;
  const pictures *train, *val;
  dataset_augment augment;
  igpt_loss_desc  loss;
  const char     *title, *val_name, *csv_header;

  /* Looks at validation pictures and gives the number for the curve. */
  double (*evaluate)(struct run *run);
  /* After an evaluation: prints it, keeps the best; anything but 0 ends the run. */
  int (*evaluated)(struct run *run, const double *row);

  size_t batch;                   /* pictures a step */
  double epochs, minutes;         /* the length where no option gives one; one of them is 0 */
  double steps, seconds;          /* the length; one of them is 0 */
  double warmup;                  /* steps; < 0: an epoch, at most a tenth of the run */
  igpt_progress at;               /* rng: the seed, and as stream the number of training pictures;
                                     user: batch, micro, sum of losses since the last row, steps */
  double before, started;         /* seconds of earlier sessions; when this one began */
  double reserve;                 /* seconds that the last evaluation needs */
  double looked;                  /* evaluations that were due so far */

  double *rows;                   /* (row_count, ROW_COLUMNS) the curve */
  size_t  row_count;
  double  busy;                   /* seconds of training since the last row */
  size_t  busy_pictures;

  uint16_t *tokens;               /* (batch, T) */
  uint8_t  *mask;                 /* (batch, T), BERT */
  int32_t  *labels;               /* (batch) */
  uint8_t  *rgb;                  /* two pictures */
  uint32_t *order;                /* of the pictures in epoch `order_epoch` */
  uint64_t  order_epoch;

  char *checkpoint, *csv, *svg;   /* beside --out */
} run;

/* ---- the data ------------------------------------------------------------------------------- */

/* Picture number p since the start is picture order[p % N] of epoch p / N. */
static size_t picture_at(run *r, uint64_t p)
{
  const size_t N = r->train->count;
  const uint64_t epoch = p / N;
  if (epoch != r->order_epoch) {
    igpt_rng rng = stream(r->t, STREAM_ORDER, epoch);
    size_t i;
    for (i = 0; i < N; i++) r->order[i] = (uint32_t)i;
    igpt_rng_shuffle(&rng, r->order, N);
    r->order_epoch = epoch;
  }
  return r->order[p % N];
}

/* The CIFAR recipe only moves pixels, so a token can travel as the first two bytes of one. */
static void augment_tokens(run *r, uint16_t *to, const uint16_t *from, igpt_rng *rng)
{
  const size_t T = tokens_of(r->t);
  uint8_t *moved = r->rgb + 3 * T;
  size_t i;
  for (i = 0; i < T; i++) {
    r->rgb[3 * i] = (uint8_t)(from[i] & 255);
    r->rgb[3 * i + 1] = (uint8_t)(from[i] >> 8);
  }
  dataset_pad_crop_mirror(moved, r->rgb, r->t->config.rows, r->t->config.columns, rng);
  for (i = 0; i < T; i++) to[i] = (uint16_t)(moved[3 * i] | moved[3 * i + 1] << 8);
}

/* The batch that begins at r->at.picture. */
static igpt_batch next_batch(run *r)
{
  const tool *t = r->t;
  const size_t T = tokens_of(t);
  const int hidden = t->config.objective == IGPT_BERT;
  igpt_batch batch;
  size_t i;
  for (i = 0; i < r->batch; i++) {
    const uint64_t p = r->at.picture + i;
    const size_t index = picture_at(r, p);
    igpt_rng rng = stream(t, STREAM_PICTURE, p);
    uint16_t *tokens = r->tokens + i * T;
    if (r->augment == DATASET_RESIZE_CROP) {
      if (dataset_picture(&r->train->set, r->rgb, index, r->augment, &rng))
        die("%s: holds tokens, and --augment crop needs pictures", data_path(t));
      need(igpt_palette_encode(&t->palette, tokens, r->rgb, T, NULL), "palette");
    } else if (r->augment == DATASET_PAD_CROP_MIRROR) {
      augment_tokens(r, tokens, r->train->tokens + index * T, &rng);
    } else {
      memcpy(tokens, r->train->tokens + index * T, T * sizeof *tokens);
    }
    if (hidden) igpt_mask_random(&rng, r->mask + i * T, T, 0);
    if (r->train->set.labels) r->labels[i] = r->train->set.labels[index];
  }
  batch.count = r->batch;
  batch.tokens = r->tokens;
  batch.mask = hidden ? r->mask : NULL;
  batch.labels = r->loss.classification > 0 ? r->labels : NULL;
  return batch;
}

/* ---- the schedule --------------------------------------------------------------------------- */

static double elapsed(const run *r) { return r->before + now() - r->started; }

/* Part of the run that is done after `step` steps. */
static double part_done(const run *r, double step)
{
  double length;
  if (r->steps > 0) return step / r->steps;
  length = r->seconds - r->reserve;
  return length > 0 ? elapsed(r) / length : 1;
}

/* By steps: the library's schedule. By the clock: the same curve over a run of 10,000 parts, of
   which the time that has passed says the number. */
static double rate_now(const run *r)
{
  const double epoch = (double)r->train->count / (double)r->batch, step = (double)r->at.step;
  const double parts = 10000, part = part_done(r, step) * parts;
  igpt_schedule_desc d;
  d.shape = (igpt_schedule_shape)whole(&r->t->o, OPT_SCHEDULE);
  d.rate = real(&r->t->o, OPT_RATE);
  d.end = 0;
  if (r->steps > 0) {
    d.steps = r->steps;
    d.warmup = r->warmup >= 0 ? r->warmup : epoch < r->steps / 10 ? epoch : r->steps / 10;
    return igpt_schedule(&d, step);
  }
  d.steps = parts;
  d.warmup = r->warmup >= 0 ? r->warmup : epoch; /* steps; as parts, at the speed so far: */
  d.warmup = step > 0 ? d.warmup * part / step : parts / 10;
  if (r->warmup < 0 && d.warmup > parts / 10) d.warmup = parts / 10;
  return igpt_schedule(&d, part);
}

/* ---- the curve ------------------------------------------------------------------------------ */

static void add_row(run *r, const double *row)
{
  r->rows = realloc(r->rows, (r->row_count + 1) * ROW_COLUMNS * sizeof *r->rows);
  if (!r->rows) die("no memory for the curve");
  memcpy(r->rows + r->row_count++ * ROW_COLUMNS, row, ROW_COLUMNS * sizeof *row);
}

/* The rows that an interrupted run left, up to the step of its checkpoint. */
static void read_curve(run *r)
{
  FILE *file = fopen(r->csv, "r");
  char line[400];
  while (file && fgets(line, sizeof line, file)) {
    double row[ROW_COLUMNS];
    char *p = line, *end = line;
    int i;
    for (i = 0; i < ROW_COLUMNS; i++, p = end + (*end == ',')) {
      row[i] = strtod(p, &end);
      if (end == p) row[i] = NAN;                           /* an empty field */
    }
    if (row[ROW_STEP] <= (double)r->at.step) add_row(r, row);         /* not the header */
  }
  if (file) fclose(file);
}

static void write_curve(run *r)
{
  double *columns = need_memory(r->row_count * ROW_COLUMNS, sizeof *columns);
  plot_series series[2];
  plot_curves_desc d;
  size_t i, j;
  for (i = 0; i < r->row_count; i++)
    for (j = 0; j < ROW_COLUMNS; j++)
      columns[j * r->row_count + i] = r->rows[i * ROW_COLUMNS + j];
  memset(series, 0, sizeof series);
  memset(&d, 0, sizeof d);
  for (i = 0; i < 2; i++) {
    series[i].x = columns + ROW_STEP * r->row_count;
    series[i].y = columns + (ROW_TRAIN + i) * r->row_count;
    series[i].count = r->row_count;
    series[i].style = PLOT_DOTS;
  }
  series[0].name = r->val_name;
  series[0].y = columns + ROW_VAL * r->row_count;
  series[1].name = "training";
  series[1].y = columns + ROW_TRAIN * r->row_count;
  d.title = r->title;
  d.x_label = "step";
  d.y_label = r->loss.classification > 0 ? "accuracy" : "nats per pixel";
  d.whole_x = 1;
  d.best = r->loss.classification > 0 ? 1 : -1;
  need_file(plot_csv(r->csv, r->csv_header, r->rows, r->row_count, ROW_COLUMNS, file_error,
                     sizeof file_error));
  need_file(plot_curves(r->svg, series, 2, &d, file_error, sizeof file_error));
  free(columns);
}

/* ---- saving --------------------------------------------------------------------------------- */

static void save_checkpoint(run *r)
{
  r->at.seconds = elapsed(r);
  need(igpt_checkpoint_save(r->t->session, r->t->model, &r->at, r->checkpoint), r->checkpoint);
}

/* The command that goes on: the one that was typed, with --resume. */
static void say_how_to_resume(const run *r)
{
  const tool *t = r->t;
  int a;
  progress_end();
  fprintf(stderr, "stopped after step %llu; go on with:\n ", (unsigned long long)r->at.step);
  for (a = 0; a < t->argc; a++) {
    if (!strncmp(t->argv[a], "--resume", 8)) {
      a += !strchr(t->argv[a], '=');
      continue;
    }
    fprintf(stderr, strpbrk(t->argv[a], " '\"$\\*?&;()<>|") ? " '%s'" : " %s", t->argv[a]);
  }
  fprintf(stderr, " --resume %s\n", r->checkpoint);
}

/* Weights, moments and place of an interrupted run. */
static void resume(run *r)
{
  const char *path = text(&r->t->o, OPT_RESUME);
  const double micro = r->at.user[1];
  need(igpt_checkpoint_load(r->t->session, r->t->model, &r->at, path), path);
  if (r->at.user[1] != micro && r->at.user[1] >= 1 && r->at.user[1] <= 65536) {
    open_session(r->t, (int)r->at.user[1], 1, 0); /* chosen on a machine with other memory */
    need(igpt_checkpoint_load(r->t->session, r->t->model, &r->at, path), path);
  }
  if (r->at.rng.seed != seed_of(r->t))
    die("%s: the run's seed is %llu, and --seed is %llu", path, (unsigned long long)r->at.rng.seed,
        (unsigned long long)seed_of(r->t));
  if (r->at.rng.stream != r->train->count)
    die("%s: the run has %llu training pictures, and --data gives %zu", path,
        (unsigned long long)r->at.rng.stream, r->train->count);
  if (r->at.user[0] != (double)r->batch)
    die("%s: the run has batches of %g, and --batch is %zu", path, r->at.user[0], r->batch);
  r->before = r->at.seconds;
  read_curve(r);
}

/* ---- the loop ------------------------------------------------------------------------------- */

static void time_left(char *words, size_t room, const run *r)
{
  const double part = part_done(r, (double)r->at.step);
  const double spent = elapsed(r), left = part > 0 ? spent / part - spent : 0;
  if (left >= 3600)
    snprintf(words, room, "%.0f h %02.0f min", floor(left / 3600), fmod(left / 60, 60));
  else if (left >= 60) snprintf(words, room, "%.0f min %02.0f s", floor(left / 60), fmod(left, 60));
  else snprintf(words, room, "%.0f s", left > 0 ? left : 0);
}

/* One batch forward and backward, one step of AdamW. */
static void take_step(run *r)
{
  tool *t = r->t;
  const igpt_batch batch = next_batch(r);
  const double began = now(), rate = rate_now(r);
  double speed;
  igpt_losses losses;
  igpt_adam_desc adam;
  igpt_result result;
  char left[40];
  memset(&adam, 0, sizeof adam);
  adam.rate = (float)rate;
  adam.weight_decay = (float)real(&t->o, OPT_WEIGHT_DECAY);
  adam.clip = (float)real(&t->o, OPT_CLIP);
  result = igpt_backward(t->session, &losses, &batch, &r->loss);
  if (!result) result = igpt_step(t->session, t->model, NULL, &adam);
  if (result == IGPT_NOT_FINITE)
    die("step %llu: the loss or its gradient is not finite with --rate %g: try a third of it",
        (unsigned long long)r->at.step, real(&t->o, OPT_RATE));
  need(result, NULL);
  r->at.step++;
  r->at.picture += r->batch;
  r->at.user[2] += batch.labels ? (double)losses.correct / (double)r->batch : losses.generative;
  r->at.user[3]++;
  r->busy += now() - began;
  r->busy_pictures += r->batch;
  time_left(left, sizeof left, r);
  speed = (double)(r->busy_pictures * tokens_of(t)) / r->busy;
  if (batch.labels)
    progress("step %llu  %.3f nats/pixel  class loss %.3f  %.0f tokens/s  %s left",
             (unsigned long long)r->at.step, losses.generative, losses.classification, speed, left);
  else
    progress("step %llu  %.3f nats/pixel  %.0f tokens/s  %s left", (unsigned long long)r->at.step,
             losses.generative, speed, left);
}

/* A look at the validation pictures and a row of the curve; anything but 0 ends the run. */
static int evaluate_run(run *r)
{
  const double began = now();
  double row[ROW_COLUMNS];
  int stop;
  row[ROW_STEP] = (double)r->at.step;
  row[ROW_TRAIN] = r->at.user[3] > 0 ? r->at.user[2] / r->at.user[3] : NAN;
  row[ROW_VAL] = r->evaluate(r);
  row[ROW_SPEED] = r->busy > 0 ? (double)(r->busy_pictures * tokens_of(r->t)) / r->busy : 0;
  row[ROW_SECONDS] = elapsed(r);
  add_row(r, row);
  stop = r->evaluated(r, row);
  write_curve(r);
  r->at.user[2] = r->at.user[3] = 0;
  r->busy = 0;
  r->busy_pictures = 0;
  r->reserve = now() - began;
  return stop;
}

/* How many validation pictures a look takes: --eval-count, within --count. */
static size_t look_count(const tool *t)
{
  double count = 500;
  if (given(&t->o, OPT_MINUTES)) count = fmin(count, fmax(50, 25 * real(&t->o, OPT_MINUTES)));
  if (given(&t->o, OPT_EVAL_COUNT)) count = (double)whole(&t->o, OPT_EVAL_COUNT);
  if (given(&t->o, OPT_COUNT)) count = fmin(count, (double)whole(&t->o, OPT_COUNT));
  return (size_t)count;
}

static void open_run(run *r)
{
  tool *t = r->t;
  const size_t T = tokens_of(t);
  const char *out = text(&t->o, OPT_OUT);
  int micro = given(&t->o, OPT_MICRO) ? whole(&t->o, OPT_MICRO) : 0;
  r->checkpoint = beside(out, ".checkpoint");
  r->csv = beside(out, ".csv");
  r->svg = beside(out, ".svg");
  r->tokens = need_memory(r->batch * T, sizeof *r->tokens);
  r->mask = need_memory(r->batch * T, 1);
  r->labels = need_memory(r->batch, sizeof *r->labels);
  r->rgb = need_memory(2 * T, 3);
  r->order = need_memory(r->train->count, sizeof *r->order);
  r->order_epoch = UINT64_MAX;
  if (given(&t->o, OPT_EPOCHS) + given(&t->o, OPT_STEPS) + given(&t->o, OPT_MINUTES) > 1)
    die("--steps, --epochs and --minutes each say how long the run is: give one of them");
  if (given(&t->o, OPT_EPOCHS)) r->epochs = real(&t->o, OPT_EPOCHS);
  if (given(&t->o, OPT_MINUTES)) r->minutes = real(&t->o, OPT_MINUTES);
  if (given(&t->o, OPT_STEPS)) r->steps = (double)whole(&t->o, OPT_STEPS);
  else if (given(&t->o, OPT_EPOCHS) || (!given(&t->o, OPT_MINUTES) && r->epochs > 0))
    r->steps = ceil(r->epochs * (double)r->train->count / (double)r->batch);
  else r->seconds = 60 * r->minutes;
  r->warmup = text(&t->o, OPT_WARMUP) ? (double)whole(&t->o, OPT_WARMUP) : -1;
  if (!micro) micro = choose_micro(t, r->batch);
  if ((size_t)micro > r->batch) micro = (int)r->batch;
  open_session(t, micro, 1, 0);
  r->at.rng = igpt_rng_seed(seed_of(t), r->train->count);
  r->at.user[0] = (double)r->batch;
  r->at.user[1] = (double)micro;
  r->started = now();
  if (given(&t->o, OPT_RESUME)) resume(r);
}

/* Whether another of the run's --evaluations has become due. */
static int evaluation_due(run *r)
{
  const double part = part_done(r, (double)r->at.step);
  const double due = floor(part * (double)whole(&r->t->o, OPT_EVALUATIONS));
  if (due <= r->looked && part < 1) return 0;
  r->looked = due;
  return 1;
}

/* Trains until the run is over; returns 0 if a signal ended it before. */
static int train(run *r)
{
  const double save_every = 60 * real(&r->t->o, OPT_SAVE_MINUTES);
  double saved = now();
  int stop = 0;
  on_signals(on_signal);
  evaluation_due(r);                                        /* where a resumed run stands */
  if (r->row_count == 0) stop = evaluate_run(r);
  while (!stop && !stop_signal && part_done(r, (double)r->at.step) < 1) {
    take_step(r);
    if (evaluation_due(r)) stop = evaluate_run(r);
    if (now() - saved >= save_every) {
      save_checkpoint(r);
      saved = now();
    }
  }
  progress_end();
  save_checkpoint(r);
  on_signals(SIG_DFL);
  if (!stop_signal || stop || part_done(r, (double)r->at.step) >= 1) return 1;
  write_curve(r);
  say_how_to_resume(r);
  return 0;
}

#endif
