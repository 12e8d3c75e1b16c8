/* cli_train.h: the loop behind `pretrain` and `finetune`.

   The whole state of a run is a step, a place in the data, weights and moments. Nothing else is
   kept, because nothing else is needed: the order of the pictures is a shuffle that depends on
   (seed, epoch), and what is drawn for a picture (its crop, its mirror image, its mask) depends on
   (seed, number of the picture since the start). So a run that goes on from a checkpoint takes the
   same steps, to the bit, as one that never stopped: options that change them are kept in the
   checkpoint, and hold when it is resumed. A run by the clock goes on with the seconds that are
   left, and ends on time (resumed, at most one look at validation pictures later); its steps depend
   on the speed of the machine.

   The library asks a watch during every step and every look at validation pictures. Ctrl-C stops
   both at once, and the end of the time a step; what was begun is thrown away, so that the state is
   always that after a whole step.                                                                */

#ifndef CLI_TRAIN_H
#define CLI_TRAIN_H

#include <signal.h>

#include "cli_tool.h"

/* ---- Ctrl-C --------------------------------------------------------------------------------- */

/* A signal asks the loop to stop and save. Further ones change nothing: saving takes a moment, and
   it replaces whole files, so that SIGKILL is not a danger either. */
static volatile sig_atomic_t stop_signal;

static void on_signal(int number) { stop_signal = number; }

static void on_signals(void (*handler)(int))
{
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;               /* what is being written is written */
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
  /* After an evaluation: prints it, keeps the best. */
  void (*evaluated)(struct run *run, const double *row);
  size_t patience;                /* evaluations without a better one that end the run; 0: any */

  size_t batch;                   /* pictures a step */
  double steps, seconds;          /* the length; one of them is 0 */
  double warmup;                  /* steps; < 0: an epoch, at most a tenth of the run */
  igpt_progress at;               /* rng: the seed, and as stream the number of training pictures;
                                     user: batch, micro, sum of losses since the last row, steps */
  double before, started;         /* seconds of earlier sessions; when this one began */
  double reserve;                 /* seconds that the last evaluation needs */
  double step_seconds;            /* and a step */
  double deadline;                /* the watch stops what runs at this second; 0: only a signal */
  int    cancelled, late;         /* the watch has stopped something; a step, for its time */
  double looked;                  /* evaluations that were due so far */

  double *rows;                   /* (row_count, ROW_COLUMNS) the curve */
  size_t  row_count;
  double  busy;                   /* seconds of training since the last row */
  size_t  busy_pictures;

  uint16_t *tokens;               /* (batch, T) */
  uint8_t  *mask;                 /* (batch, T), BERT */
  uint16_t *shown;                /* (batch, T), BERT's jigsaws */
  int32_t  *labels;               /* (batch) */
  uint8_t  *rgb;                  /* two pictures */
  uint32_t *order;                /* of the pictures in epoch `order_epoch` */
  uint64_t  order_epoch;

  const char *out;
  char *checkpoint, *csv, *svg;   /* beside it */
  char *options, *names;          /* notes in the checkpoint and in the model; may be null */
  uint64_t saved_step;            /* of the last checkpoint of this session; UINT64_MAX: none */
  double saved;                   /* when */
} run;

static int classifies(const run *r) { return r->loss.classification > 0; }

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
  memset(&batch, 0, sizeof batch);
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
    if (hidden && draw_mask(t, &rng, r->mask + i * T, r->shown + i * T, tokens))
      batch.shown = r->shown;
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

/* Part of the run that is done after `step` steps, `seconds` after its beginning. */
static double part_at(const run *r, double step, double seconds)
{
  double length;
  if (r->steps > 0) return step / r->steps;
  length = r->seconds - r->reserve;
  return length > 0 ? seconds / length : 1;
}

static double part_done(const run *r, double step) { return part_at(r, step, elapsed(r)); }

/* The place of the best row for a classifier: the first of the largest validation accuracy, in the
   nine digits that the curve's file keeps of it. */
static size_t best_row(const run *r)
{
  size_t i, best = 0;
  for (i = 1; i < r->row_count; i++)
    if (r->rows[i * ROW_COLUMNS + ROW_VAL] > r->rows[best * ROW_COLUMNS + ROW_VAL] + 1e-8) best = i;
  return best;
}

/* By the clock, a run is over when another step and the last evaluation would not end in time. */
static int run_over(const run *r)
{
  if (r->patience && r->row_count && r->row_count - 1 - best_row(r) >= r->patience) return 1;
  if (r->steps > 0) return (double)r->at.step >= r->steps;
  return r->late || elapsed(r) + r->step_seconds >= r->seconds - r->reserve;
}

/* What the library asks while it computes. */
static int watch_run(void *user, double done)
{
  run *r = user;
  (void)done;
  if (stop_signal || (r->deadline > 0 && elapsed(r) > r->deadline)) r->cancelled = 1;
  return r->cancelled;
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
  d.warmup = step > 0 ? d.warmup * part / step : d.warmup > 0 ? parts / 10 : 0;
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

/* The rows that an interrupted run left, up to the step of its checkpoint; 0 if there is no such
   file. A row of that very step belongs to the checkpoint if that one adds up anew. */
static int read_curve(run *r)
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
    /* neither the header, nor the guess for step 0 that class heads once began with */
    if (row[ROW_STEP] < (double)r->at.step + (r->at.user[3] == 0) &&
        (row[ROW_STEP] > 0 || !classifies(r))) add_row(r, row);
  }
  if (file) fclose(file);
  return file != NULL;
}

static void write_curve(run *r, const char *csv, const char *svg)
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
  d.y_label = classifies(r) ? "accuracy" : "nats per pixel";
  d.whole_x = 1;
  d.best = r->row_count == 0 ? 0 : classifies(r) ? 1 : -1;
  need_file(plot_csv(csv, r->csv_header, r->rows, r->row_count, ROW_COLUMNS, file_error,
                     sizeof file_error));
  need_file(plot_curves(svg, series, 2, &d, file_error, sizeof file_error));
  free(columns);
}

/* ---- saving --------------------------------------------------------------------------------- */

static igpt_result checkpoint_body(void *user, const igpt_sink *sink)
{
  const run *r = user;
  return igpt_checkpoint_write(r->t->session, r->t->model, &r->at, sink);
}

static igpt_result model_body(void *user, const igpt_sink *sink)
{
  return igpt_model_write(((const run *)user)->t->model, sink);
}

#define OPTIONS_NOTE "igpt.tool.options"
#define CLASSES_NOTE "igpt.tool.classes"

static void save_model(run *r, const char *path)
{
  const file_note used[] = { { CLASSES_NOTE, r->names }, mask_note(r->t), seed_note(r->t) };
  save_noted(path, used, 3, model_body, r);
}

static void write_weights(run *r, int with_model)
{
  const file_note resumed[] = { { OPTIONS_NOTE, r->options }, seed_note(r->t) };
  r->at.seconds = elapsed(r);
  save_noted(fresh_output(r->checkpoint), resumed, 2, checkpoint_body, r);
  if (with_model) save_model(r, fresh_output(r->out));
}

/* Curve and checkpoint, and the model on request, all of them or none. That is their order: if the
   process is killed when only some have their names, the curve has rows that its checkpoint does
   not know of, which are passed over, or the checkpoint holds the weights that the model lacks. */
static void save_run(run *r, int with_model)
{
  write_curve(r, fresh_output(r->csv), fresh_output(r->svg));
  write_weights(r, with_model);
  keep_outputs();
  r->saved_step = r->at.step;
  r->saved = now();
}

/* Whether there is a place for what will be saved, asked before the work and not after it. */
static void try_saving(run *r)
{
  write_weights(r, 1);
  drop_outputs();
}

/* A word as a shell takes it. */
static void print_word(const char *word)
{
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "_./=:,+@%-";
  if (*word && strspn(word, plain) == strlen(word)) {
    fprintf(stderr, " %s", word);
    return;
  }
  fputs(" '", stderr);
  for (; *word; word++)
    if (*word == '\'') fputs("'\\''", stderr);
    else fputc(*word, stderr);
  fputc('\'', stderr);
}

/* The command that goes on: the one that was typed, with --resume. The weights that pretrain's
   --model gave it have been trained since. */
static void say_how_to_resume(const run *r)
{
  const tool *t = r->t;
  const int tuning = t->o.verb->bit == ON_FINETUNE;
  int a;
  progress_end();
  fprintf(stderr, "stopped after step %llu; go on with:\n ", (unsigned long long)r->at.step);
  for (a = 0; a < t->argc; a++) {
    if (!strcmp(t->argv[a], "--resume") || (!tuning && !strcmp(t->argv[a], "--model"))) a++;
    else if (strncmp(t->argv[a], "--resume=", 9) != 0 &&
             (tuning || strncmp(t->argv[a], "--model=", 8) != 0)) print_word(t->argv[a]);
  }
  fputs(" --resume", stderr);
  print_word(r->checkpoint);
  fputc('\n', stderr);
}

/* ---- going on ------------------------------------------------------------------------------- */

/* The options that decide what the steps of a run do. They are in its checkpoint, a line each,
   "rate=0.005". */
static const option_id run_options[] = {
  OPT_SEED, OPT_BATCH, OPT_MICRO, OPT_STEPS, OPT_EPOCHS, OPT_MINUTES, OPT_RATE, OPT_SCHEDULE,
  OPT_WARMUP, OPT_WEIGHT_DECAY, OPT_CLIP, OPT_AUGMENT, OPT_GENERATIVE, OPT_MASK, OPT_EVAL_COUNT,
  OPT_PATIENCE, OPT_VOTES, OPT_ISA, OPT_PRECISION, OPT_PIXELS
};

static const option *option_of(const tool *t, option_id id)
{
  size_t i;
  for (i = 0; i < COUNT_OF(option_table); i++)
    if (option_table[i].id == id && (option_table[i].verbs & t->o.verb->bit))
      return &option_table[i];
  return NULL;
}

/* The value of an option that was not typed, once it is known. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static void settle(tool *t, option_id id, const char *format, ...)
{
  char *typed;
  va_list args;
  if (given(&t->o, id)) return;
  typed = need_memory(40, 1);
  va_start(args, format);
  vsnprintf(typed, 40, format, args);
  va_end(args);
  set_option(&t->o, option_of(t, id), typed, 0);
}

/* The shortest decimal that reads as x again, and a line's end. */
static int put_real(char *to, double x)
{
  int digits = 1, length = sprintf(to, "%.1g", x);
  while (strtod(to, NULL) != x && digits < 17) length = sprintf(to, "%.*g", ++digits, x);
  return length + sprintf(to + length, "\n");
}

static char *options_text(const tool *t)
{
  char *made = need_memory(COUNT_OF(run_options) * 60, 1), *to = made;
  size_t i;
  for (i = 0; i < COUNT_OF(run_options); i++) {
    const option *row = option_of(t, run_options[i]);
    const option_value *value = &t->o.value[run_options[i]];
    if (!row || !value->text) continue;
    to += sprintf(to, "%s=", row->name);
    if (row->kind == IS_WHOLE) to += sprintf(to, "%lld\n", value->whole);
    else if (row->kind == IS_REAL) to += put_real(to, value->real);
    else if (row->id == OPT_ISA)
      to += sprintf(to, "%s\n", igpt_isa_name(igpt_session_resolved(t->session)->isa));
    else if (row->id == OPT_PRECISION)
      to += sprintf(to, "%s\n",
                    igpt_session_resolved(t->session)->precision == IGPT_BF16 ? "bf16" : "f32");
    else to += sprintf(to, "%.20s\n", value->text);
  }
  return made;
}

static int is_length(option_id id)
{
  return id == OPT_STEPS || id == OPT_EPOCHS || id == OPT_MINUTES;
}

/* One option of the checkpoint's run: what was typed must agree, what was not takes its value. */
static void restore_option(tool *t, const char *path, const option *row, char *kept)
{
  static options old;
  option_value *value = &t->o.value[row->id];
  size_t i;
  for (i = 0; is_length(row->id) && i < COUNT_OF(run_options); i++)
    if (is_length(run_options[i]) && run_options[i] != row->id && given(&t->o, run_options[i]))
      die("%s: the run's length is --%s %s, and here it is --%s %s", path, row->name, kept,
          option_of(t, run_options[i])->name, text(&t->o, run_options[i]));
  if (row->id == OPT_ISA && !given(&t->o, OPT_ISA) &&
      !igpt_isa_supported((igpt_isa)choice_of(row->value, kept))) {
    note("%s: the run's --isa is %s, which this processor has not: it goes on with %s, and not "
         "bit for bit", path, kept, igpt_isa_name(igpt_isa_best()));
    return;
  }
  set_option(&old, row, kept, 1);
  if (value->given && !(row->kind == IS_WORD && !strcmp(value->text, "auto")) &&
      (row->kind == IS_TEXT ? strcmp(kept, value->text) != 0
       : row->kind == IS_REAL ? old.value[row->id].real != value->real
                            : old.value[row->id].whole != value->whole))
    die("%s: the run's --%s is %s, and here it is %s", path, row->name, kept, value->text);
  *value = old.value[row->id];
}

/* Whether the kept options have a line "name=...". */
static int kept_line(const char *kept, const char *name)
{
  for (; *kept; kept += strcspn(kept, "\n"), kept += *kept == '\n')
    if (!strncmp(kept, name, strlen(name)) && kept[strlen(name)] == '=') return 1;
  return 0;
}

/* With --resume: options as the run had them, and its own files. Before anything else is read. A
   checkpoint without notes keeps the options that were typed. */
static void restore_options(tool *t)
{
  const char *path = text(&t->o, OPT_RESUME);
  const int tuning = t->o.verb->bit == ON_FINETUNE;
  char *header, *kept, *line, *end;
  size_t i;
  if (!path) return;
  header = file_header(path);
  kept = header_note(header, OPTIONS_NOTE);
  if (header && tuning != (kept ? kept_line(kept, "generative")
                                : json_find(header, "score.weight", NULL) != NULL))
    die("%s: is a checkpoint of %s, and the verb is %s", path, tuning ? "pretrain" : "finetune",
        t->o.verb->name);
  for (i = 0; kept && i < COUNT_OF(run_options); i++)
    if (given(&t->o, run_options[i]) && !is_length(run_options[i]) &&
        !kept_line(kept, option_of(t, run_options[i])->name))
      die("%s: the run has no --%s, and here it is %s", path, option_of(t, run_options[i])->name,
          text(&t->o, run_options[i]));
  for (line = kept; line && *line; line = end + 1) {
    char *equals = strchr(line, '=');
    const option *row;
    end = strchr(line, '\n');
    if (!end || !equals || equals > end) break;
    *end = 0;
    row = find_option(line, (size_t)(equals - line), t->o.verb->bit);
    if (row) restore_option(t, path, row, equals + 1);
  }
  free(header);
  if (!given(&t->o, OPT_OUT)) {
    set_option(&t->o, option_of(t, OPT_OUT), beside(path, ".safetensors"), 0);
  } else {
    char *own = beside(text(&t->o, OPT_OUT), ".checkpoint");
    if (!same_file(own, path))
      die("--resume is '%s', and --out is '%s', whose checkpoint is '%s': a run goes on in its own "
          "files, and needs no --out", path, text(&t->o, OPT_OUT), own);
    free(own);
  }
}

/* Where "NAME.STEP.safetensors", as --snapshots calls a model, goes on after NAME; null: no such
   name. */
static const char *snapshot_end(const char *path)
{
  const char *end = strrchr(path, '.');
  if (!end || strcmp(end, ".safetensors") != 0) return NULL;
  while (end > path && end[-1] >= '0' && end[-1] <= '9') end--;
  return *end != '.' && end > path && end[-1] == '.' ? end - 1 : NULL;
}

/* Before anything is read: the length, and outputs that have names of their own. */
static void check_run(const tool *t)
{
  static const char *const taken[] = { ".checkpoint", ".csv", ".svg" };
  static const option_id models[] = { OPT_MODEL, OPT_PALETTE };
  const char *out = text(&t->o, OPT_OUT);
  size_t i;
  if (given(&t->o, OPT_EPOCHS) + given(&t->o, OPT_STEPS) + given(&t->o, OPT_MINUTES) > 1)
    die("--steps, --epochs and --minutes each say how long the run is: give one of them");
  for (i = 0; i < COUNT_OF(taken); i++)
    if (ends_with(out, taken[i]))
      die("--out is '%s', and a file of that name goes beside the model, for the %s", out,
          taken[i] + 1);
  check_output(t, out);
  for (i = 0; i < COUNT_OF(taken); i++) {
    char *other = beside(out, taken[i]);
    check_output(t, other);
    free(other);
  }
  for (i = 0; i < COUNT_OF(models) && given(&t->o, OPT_SNAPSHOTS); i++) {
    const char *path = text(&t->o, models[i]), *end = path ? snapshot_end(path) : NULL;
    char *other = beside(out, end ? end : "");
    if (end) spare_inputs(t, other);
    free(other);
  }
}

/* Weights, moments and place of an interrupted run. */
static void resume(run *r)
{
  const char *path = text(&r->t->o, OPT_RESUME), *held = seed_note(r->t).value;
  const double micro = r->at.user[1];
  char *own = model_note(path, SEED_NOTE);
  if (own && held && strcmp(own, held) != 0)
    die("%s: the run's pictures are held out by the seed %s, and those of --model by %s: give the "
        "run's own model", path, own, held);
  free(own);
  need(igpt_checkpoint_load(r->t->session, r->t->model, &r->at, path), path);
  if (r->at.user[1] != micro && r->at.user[1] >= 1 && r->at.user[1] <= 65536) {
    if (given(&r->t->o, OPT_MICRO))
      die("%s: the run's --micro is %g, and here it is %g", path, r->at.user[1], micro);
    r->t->o.value[OPT_MICRO].whole = (long long)r->at.user[1];
    open_session(r->t, (int)r->at.user[1], 1, 0); /* chosen on a machine with other memory */
    need(igpt_checkpoint_load(r->t->session, r->t->model, &r->at, path), path);
  }
  if (igpt_model_palette(r->t->model) && r->t->palette.colours)
    same_palette(igpt_model_palette(r->t->model), path, &r->t->palette, "that of --model");
  if (r->at.rng.seed != seed_of(r->t))
    die("%s: the run's seed is %llu, and --seed is %llu", path, (unsigned long long)r->at.rng.seed,
        (unsigned long long)seed_of(r->t));
  if (r->at.rng.stream != r->train->count)
    die("%s: the run has %llu training pictures, and --data and --count give %zu: give the run's "
        "own", path, (unsigned long long)r->at.rng.stream, r->train->count);
  if (r->at.user[0] != (double)r->batch)
    die("%s: the run has batches of %g, and --batch is %zu", path, r->at.user[0], r->batch);
  if (r->steps > 0 && (double)r->at.step > r->steps)
    die("%s: the run is at step %llu, and its length here is %.0f steps", path,
        (unsigned long long)r->at.step, r->steps);
  r->before = r->at.seconds;
  if (!read_curve(r)) {
    note("%s: is not there: the curve begins at step %llu", r->csv,
         (unsigned long long)r->at.step);
    r->looked = -1;
  }
}

/* ---- the loop ------------------------------------------------------------------------------- */

static void time_left(char *words, size_t room, const run *r)
{
  const double part = part_done(r, (double)r->at.step);
  const double spent = elapsed(r), left = part > 0 ? spent / part - spent : 0;
  if (left >= 3600)
    snprintf(words, room, "%.0f h %02.0f min", floor(left / 3600), floor(fmod(left / 60, 60)));
  else if (left >= 60)
    snprintf(words, room, "%.0f min %02.0f s", floor(left / 60), floor(fmod(left, 60)));
  else snprintf(words, room, "%.0f s", left > 0 ? left : 0);
}

/* One batch forward and backward, one step of AdamW. -1: the watch has stopped it, and nothing has
   changed. */
static int take_step(run *r)
{
  tool *t = r->t;
  const double began = now(), rate = rate_now(r);
  const igpt_batch batch = next_batch(r);
  double speed;
  igpt_losses losses;
  igpt_adam_desc adam;
  igpt_result result;
  char left[40];
  memset(&adam, 0, sizeof adam);
  adam.rate = (float)rate;
  adam.weight_decay = (float)real(&t->o, OPT_WEIGHT_DECAY);
  adam.clip = (float)real(&t->o, OPT_CLIP);
  r->deadline = r->seconds > 0 ? r->seconds - r->reserve : 0;
  result = igpt_backward(t->session, &losses, &batch, &r->loss);
  if (result == IGPT_CANCELLED) {
    *last_sentence = 0;
    r->cancelled = 0;
    r->late = !stop_signal;
    return -1;
  }
  if (!result) result = igpt_step(t->session, t->model, NULL, &adam);
  if (result == IGPT_NOT_FINITE)
    die("step %llu: the loss or its gradient is not finite with --rate %g: try a third of it",
        (unsigned long long)r->at.step, real(&t->o, OPT_RATE));
  need(result, NULL);
  r->at.step++;
  r->at.picture += r->batch;
  r->at.user[2] += batch.labels ? (double)losses.correct / (double)r->batch : losses.generative;
  r->at.user[3]++;
  r->step_seconds = now() - began;
  r->busy += r->step_seconds;
  r->busy_pictures += r->batch;
  time_left(left, sizeof left, r);
  speed = (double)(r->busy_pictures * tokens_of(t)) / r->busy;
  if (batch.labels)
    progress("step %llu  %.3f nats/pixel  class loss %.3f  %.0f tokens/s  %s left",
             (unsigned long long)r->at.step, losses.generative, losses.classification, speed, left);
  else
    progress("step %llu  %.3f nats/pixel  %.0f tokens/s  %s left", (unsigned long long)r->at.step,
             losses.generative, speed, left);
  return 0;
}

/* A look at the validation pictures and a row of the curve. -1: the watch has stopped it. */
static int evaluate_run(run *r)
{
  const double began = now();
  double row[ROW_COLUMNS];
  r->deadline = r->at.step == 0 ? r->seconds : 0;
  row[ROW_STEP] = (double)r->at.step;
  row[ROW_TRAIN] = r->at.user[3] > 0 ? r->at.user[2] / r->at.user[3] : NAN;
  row[ROW_VAL] = r->evaluate(r);
  row[ROW_SPEED] = r->busy > 0 ? (double)(r->busy_pictures * tokens_of(r->t)) / r->busy : 0;
  row[ROW_SECONDS] = elapsed(r);
  if (r->cancelled) {
    r->cancelled = 0;
    r->late = !stop_signal;
    return -1;
  }
  add_row(r, row);
  r->at.user[2] = r->at.user[3] = 0;
  r->saved_step = UINT64_MAX;     /* a checkpoint of this step was one before the row */
  r->busy = 0;
  r->busy_pictures = 0;
  r->reserve = now() - began;
  r->evaluated(r, row);
  return 0;
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
  int micro;
  r->out = text(&t->o, OPT_OUT);
  r->checkpoint = beside(r->out, ".checkpoint");
  r->csv = beside(r->out, ".csv");
  r->svg = beside(r->out, ".svg");
  r->tokens = need_memory(r->batch * T, sizeof *r->tokens);
  r->mask = need_memory(r->batch * T, 1);
  r->shown = need_memory(r->batch * T, sizeof *r->shown);
  r->labels = need_memory(r->batch, sizeof *r->labels);
  r->rgb = need_memory(2 * T, 3);
  r->order = need_memory(r->train->count, sizeof *r->order);
  r->order_epoch = UINT64_MAX;
  if (text(&t->o, OPT_STEPS)) r->steps = (double)whole(&t->o, OPT_STEPS);
  else if (text(&t->o, OPT_MINUTES)) r->seconds = 60 * real(&t->o, OPT_MINUTES);
  else r->steps = ceil(real(&t->o, OPT_EPOCHS) * (double)r->train->count / (double)r->batch);
  r->warmup = text(&t->o, OPT_WARMUP) ? (double)whole(&t->o, OPT_WARMUP) : -1;
  settle(t, OPT_MICRO, "%d", choose_micro(t, r->batch));
  if (t->config.objective == IGPT_BERT) settle(t, OPT_MASK, "%s", mask_text(t));
  micro = whole(&t->o, OPT_MICRO);
  if ((size_t)micro > r->batch) micro = (int)r->batch;
  t->watch.poll = watch_run;
  t->watch.user = r;
  open_session(t, micro, 1, 0);
  r->at.rng = igpt_rng_seed(seed_of(t), r->train->count);
  r->at.user[0] = (double)r->batch;
  r->at.user[1] = (double)micro;
  r->saved_step = UINT64_MAX;
  r->looked = classifies(r) ? 0 : -1;       /* a new class head has nothing to show */
  if (given(&t->o, OPT_RESUME)) resume(r);
  r->options = options_text(t);
  r->started = now();
  try_saving(r);
  r->started = r->saved = now();
}

/* How many of the run's --evaluations are due. */
static double evaluations_due(const run *r, double part)
{
  return floor(fmin(part, 1) * (double)whole(&r->t->o, OPT_EVALUATIONS) + 1e-9);
}

/* Whether the curve has a row of this very step. */
static int seen(const run *r)
{
  return r->row_count && r->rows[(r->row_count - 1) * ROW_COLUMNS] == (double)r->at.step;
}

/* Trains until the run is over; returns 0 if a signal ended it before. Signals are still held back
   then: the caller saves what there is first. */
static int train(run *r)
{
  const double save_every = 60 * real(&r->t->o, OPT_SAVE_MINUTES);
  const double *last = r->row_count ? r->rows + (r->row_count - 1) * ROW_COLUMNS : NULL;
  int over = 0;
  on_signals(on_signal);
  if (last) r->looked = evaluations_due(r, part_at(r, last[ROW_STEP], last[ROW_SECONDS]));
  while (!stop_signal) {
    double due;
    over = run_over(r);
    due = evaluations_due(r, over ? 1 : part_done(r, (double)r->at.step));
    if (over && r->at.step == 0)
      die("--minutes is %g, too short for looking at %zu validation pictures and one step of "
          "%zu pictures: more minutes, a smaller --batch or --eval-count", r->seconds / 60,
          r->val->count, r->batch);
    if (due > r->looked && !seen(r)) {
      if (evaluate_run(r) == 0) r->looked = due;
    } else if (over) {
      break;
    } else if (take_step(r) == 0 && now() - r->saved >= save_every) {
      save_run(r, 0);
    }
  }
  progress_end();
  memset(&r->t->watch, 0, sizeof r->t->watch);
  if (!stop_signal) return 1;
  save_run(r, 0);
  say_how_to_resume(r);
  return 0;
}

#endif
