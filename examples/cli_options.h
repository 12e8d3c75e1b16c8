/* cli_options.h: the options of the tool, and how it says what is wrong.

   ONE table describes every option: its name, its kind, the verbs that have it, its range, its
   default and its line of help. The parser, the help pages and the suggestions for misspelt names
   all read that table; a verb reads the values by the option's identifier.                       */

#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

/* ---- one sentence on stderr ----------------------------------------------------------------- */

static int progress_shown;        /* 1: a progress line stands unfinished on the terminal */

static void progress_end(void)
{
  if (progress_shown) fputs("\r\033[K", stderr);
  progress_shown = 0;
}

/* Every failure ends here: one sentence, status 1. Outputs are written beside their final names and
   renamed at the end, so leaving at any moment leaves them as they were. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2), noreturn))
#endif
static void die(const char *format, ...)
{
  va_list args;
  progress_end();
  fflush(stdout);
  fputs("igpt: ", stderr);
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fputc('\n', stderr);
  exit(1);
}

static void *need_memory(size_t count, size_t size)
{
  void *block = calloc(count ? count : 1, size);
  if (!block) die("no memory: %zu things of %zu bytes each", count, size);
  return block;
}

/* ---- verbs ---------------------------------------------------------------------------------- */

enum {
  ON_PALETTE = 1 << 0, ON_PRETRAIN = 1 << 1, ON_EVAL = 1 << 2, ON_SAMPLE = 1 << 3,
  ON_PROBE = 1 << 4, ON_FINETUNE = 1 << 5, ON_CLASSIFY = 1 << 6, ON_FEATURES = 1 << 7,
  ON_MAP = 1 << 8, ON_PLAN = 1 << 9, ON_INFO = 1 << 10, ON_EXPORT = 1 << 11
};

#define ON_TRAINING (ON_PRETRAIN | ON_FINETUNE)
#define ON_SPLIT (ON_EVAL | ON_SAMPLE | ON_CLASSIFY | ON_FEATURES | ON_MAP)
#define ON_MODEL (ON_SPLIT | ON_PROBE | ON_FINETUNE)          /* what runs a finished model */
#define ON_DATA (ON_MODEL | ON_PALETTE | ON_PRETRAIN)
#define ON_SESSION (ON_MODEL | ON_PRETRAIN)
#define ON_MASKED (ON_TRAINING | ON_EVAL | ON_PROBE | ON_CLASSIFY | ON_FEATURES)
#define ON_FILE (ON_INFO | ON_EXPORT)                         /* what reads a model alone */
#define ON_ALL (ON_DATA | ON_PLAN | ON_FILE)

struct tool;
typedef struct verb {
  const char *name;
  unsigned    bit;
  const char *summary;            /* one line of the overview */
  const char *text;               /* what it does, what it writes */
  const char *example;
  void      (*run)(struct tool *tool);
} verb;

static const verb *verb_table(size_t *count); /* igpt.c: the verbs in order of use */

/* ---- the table ------------------------------------------------------------------------------ */

typedef enum option_id {
  OPT_DATA, OPT_SPLIT, OPT_COUNT, OPT_SIDE, OPT_AUGMENT, OPT_MODEL, OPT_PALETTE, OPT_OUT, OPT_HF,
  OPT_HEAD,
  OPT_OBJECTIVE, OPT_PRESET, OPT_LAYERS, OPT_HEADS, OPT_WIDTH, OPT_COLOURS, OPT_CLASSES, OPT_PIXELS,
  OPT_BATCH, OPT_MICRO, OPT_STEPS, OPT_EPOCHS, OPT_MINUTES, OPT_RATE, OPT_SCHEDULE, OPT_WARMUP,
  OPT_WEIGHT_DECAY, OPT_CLIP, OPT_GENERATIVE, OPT_EVALUATIONS, OPT_EVAL_COUNT, OPT_PATIENCE,
  OPT_SAVE_MINUTES, OPT_SNAPSHOTS, OPT_RESUME,
  OPT_MASK, OPT_SCORE, OPT_KEEP, OPT_COMPLETIONS, OPT_TEMPERATURE, OPT_TOP_K, OPT_TOP_P, OPT_ROUNDS,
  OPT_NEAREST,
  OPT_SHOW,
  OPT_SCALE,
  OPT_LAYER, OPT_TOGETHER, OPT_LABELS, OPT_VOTES, OPT_METHOD, OPT_INVERSE_L2, OPT_STANDARDISE,
  OPT_ITERATIONS,
  OPT_SEED, OPT_WORKERS, OPT_ISA, OPT_PRECISION, OPT_RECOMPUTE, OPT_JSON, OPT_HELP,
  OPTION_COUNT
} option_id;

typedef enum option_kind { IS_FLAG, IS_WHOLE, IS_REAL, IS_WORD, IS_TEXT } option_kind;

typedef struct option {
  option_id   id;
  const char *name;
  option_kind kind;
  unsigned    verbs;
  double      low, high;          /* IS_WHOLE and IS_REAL: the range, both ends included */
  const char *normal;             /* the default as it would be typed; null: see the help line */
  const char *value;              /* IS_WORD: the choices, "a|b|c"; else what the value is */
  const char *help;
} option;

#define MOST 2147483647.0

/* An identifier may have several rows, for verbs with different defaults. */
static const option option_table[] = {
  /* what to read and write */
  { OPT_DATA, "data", IS_TEXT, ON_DATA, 0, 0, NULL, "PATH",
    "a CIFAR-10, CIFAR-100 or STL-10 binary folder, MNIST idx files, a folder of pictures or a "
    "folder per class (JPEG, PNG, BMP, TGA), .npy of uint8 pictures or of tokens, or shapes:N, N "
    "pictures that it draws itself; default: CIFAR-10 if a copy is found in data/, in build/data/ "
    "or beside them" },
  { OPT_SPLIT, "split", IS_WORD, ON_SPLIT, 0, 0, NULL, "train|val|test|all",
    "which pictures; val is the tenth of the train set that the paper holds out; default: the test "
    "part of a set that has one, else all pictures (training holds out a tenth of those as test)" },
  { OPT_COUNT, "count", IS_WHOLE, ON_DATA & ~(ON_SAMPLE | ON_MAP), 1, MOST, NULL, "N",
    "read at most N pictures of each split; default: all" },
  { OPT_COUNT, "count", IS_WHOLE, ON_SAMPLE, 1, 10000, "8", "N",
    "how many pictures; of a set with fewer the default takes all, and a number that is typed is "
    "an error" },
  { OPT_COUNT, "count", IS_WHOLE, ON_MAP, 1, 10000, "8", "N",
    "how many pictures, if there are so many; --score: how many of each end are drawn" },
  { OPT_SIDE, "side", IS_WHOLE, ON_PALETTE, 1, 1024, "32", "N",
    "pictures become N x N: the shorter side is resized to N by area, then cropped" },
  { OPT_SIDE, "side", IS_WHOLE, ON_PRETRAIN | ON_PLAN, 1, 1024, "32", "N",
    "pictures become N x N: the shorter side is resized to N by area, then cropped; of preset XL: "
    "64" },
  { OPT_SIDE, "side", IS_WHOLE, ON_MODEL | ON_FILE, 1, 1024, NULL, "N",
    "side of the pictures, where the model's file does not say; default: what it says" },
  { OPT_MODEL, "model", IS_TEXT, ON_MODEL | ON_FILE, 0, 0, NULL, "PATH",
    "a model of this tool, or a Hugging Face folder (config.json, model.safetensors, "
    "preprocessor_config.json)" },
  { OPT_MODEL, "model", IS_TEXT, ON_PRETRAIN, 0, 0, NULL, "PATH",
    "start from these weights instead of new ones; shape and palette come with them, and options "
    "that say something else are errors" },
  { OPT_PALETTE, "palette", IS_TEXT, ON_SESSION | ON_EXPORT, 0, 0, NULL, "FILE",
    "colours: .npy (k, 3), or a model that holds some; default: the model's, and for a new "
    "model k-means on the training pictures" },
  { OPT_OUT, "out", IS_TEXT, ON_PALETTE, 0, 0, "palette.npy", "FILE",
    "the palette; a strip of its colours goes beside it as .png" },
  { OPT_OUT, "out", IS_TEXT, ON_PRETRAIN, 0, 0, "model.safetensors", "FILE",
    "the model; checkpoint (.checkpoint) and loss curve (.svg, .csv) go beside it" },
  { OPT_OUT, "out", IS_TEXT, ON_FINETUNE, 0, 0, "finetuned.safetensors", "FILE",
    "the model with its class head; checkpoint and curve (.svg, .csv) go beside it" },
  { OPT_OUT, "out", IS_TEXT, ON_EXPORT, 0, 0, "small.safetensors", "FILE",
    "the model in half the bytes, or ..." },
  { OPT_HF, "hf", IS_TEXT, ON_EXPORT, 0, 0, NULL, "DIR",
    "... a folder for Hugging Face's ImageGPT, made where there is none: config.json, "
    "model.safetensors, preprocessor_config.json with the palette" },
  { OPT_HEAD, "head", IS_WORD, ON_EXPORT, 0, 0, NULL, "pixels|classes",
    "what --hf takes along, as each of their classes knows one: pixels is for "
    "ImageGPTForCausalImageModeling, classes for ImageGPTForImageClassification; default: classes "
    "if the model has a class head" },
  { OPT_OUT, "out", IS_TEXT, ON_SAMPLE, 0, 0, "samples.png", "FILE",
    "the picture" },
  { OPT_OUT, "out", IS_TEXT, ON_MAP, 0, 0, "map.png", "FILE",
    "the picture; the table of --score goes beside it as .csv" },
  { OPT_OUT, "out", IS_TEXT, ON_FEATURES, 0, 0, "features.npy", "FILE",
    "(pictures, layers, width) float32; labels go beside it as .labels.npy" },

  /* the network */
  { OPT_OBJECTIVE, "objective", IS_WORD, ON_PRETRAIN | ON_PLAN, 0, 0, "ar", "ar|bert",
    "predict the next pixel, or hidden pixels from all the others" },
  { OPT_OBJECTIVE, "objective", IS_WORD, ON_MODEL, 0, 0, NULL, "ar|bert",
    "refuse a model of the other objective; default: take what the model is" },
  { OPT_MASK, "mask", IS_TEXT, ON_PRETRAIN, 0, 0, NULL, "pixel|block:K|jigsaw:K",
    "what BERT hides of a picture, 15 % of it: pixels one by one, as in the paper; squares of "
    "K x K, as many as hide that much; or patches of K x K, which change places with each other "
    "instead of being hidden, and the model tells what belongs there; default: pixel" },
  { OPT_MASK, "mask", IS_TEXT, ON_EVAL, 0, 0, NULL, "pixel|block:K|jigsaw:K",
    "BERT models: what is hidden of a picture (see pretrain --help); default: what the model was "
    "trained with" },
  { OPT_MASK, "mask", IS_TEXT, ON_MASKED & ~(ON_PRETRAIN | ON_EVAL), 0, 0, NULL,
    "pixel|block:K|jigsaw:K|none",
    "BERT models: what is hidden of a picture (see pretrain --help), or nothing; default: what the "
    "model was trained with" },
  { OPT_PRESET, "preset", IS_WORD, ON_PRETRAIN | ON_PLAN, 0, 0, "small-cpu",
    "tiny|small-cpu|medium-cpu|S|M|L|XL",
    "shape of the network: S to XL are the paper's; tiny is 4 layers of width 64, small-cpu 8 "
    "of 128, medium-cpu 12 of 256" },
  { OPT_LAYERS, "layers", IS_WHOLE, ON_PRETRAIN | ON_PLAN, 1, 1000, NULL, "N",
    "blocks; default: the preset's" },
  { OPT_HEADS, "heads", IS_WHOLE, ON_PRETRAIN | ON_PLAN, 1, 1024, NULL, "N",
    "attention heads, a divisor of the width; default: the preset's, or width / 32" },
  { OPT_HEADS, "heads", IS_WHOLE, ON_MODEL | ON_FILE, 1, 1024, NULL, "N",
    "attention heads, where the model's file does not say" },
  { OPT_WIDTH, "width", IS_WHOLE, ON_PRETRAIN | ON_PLAN, 1, 65536, NULL, "N",
    "numbers in a token's vector; default: the preset's" },
  { OPT_COLOURS, "colours", IS_WHOLE, ON_PALETTE | ON_PRETRAIN | ON_PLAN, 2, IGPT_PALETTE_MAX,
    "512", "N", "colours of the palette: 9 bits in the paper" },
  { OPT_CLASSES, "classes", IS_WHOLE, ON_PLAN, 0, 100000, "0", "N",
    "outputs of a class head" },
  { OPT_PIXELS, "pixels", IS_WHOLE, ON_PALETTE | ON_PRETRAIN, 1, 1e9, "2000000", "N",
    "pixels that k-means looks at, drawn from the training pictures (the paper does not say)" },

  /* training */
  { OPT_BATCH, "batch", IS_WHOLE, ON_PRETRAIN, 1, 65536, NULL, "N",
    "pictures a step; default, by the model's shape: the paper's 128 (XL: 64) for S to XL, and 4 "
    "for the small presets, which learn more from more steps in the hour that a CPU has; for a "
    "shape that no preset has, that of --preset" },
  { OPT_BATCH, "batch", IS_WHOLE, ON_FINETUNE, 1, 65536, "32", "N",
    "pictures a step (the paper: 128; see pretrain --help)" },
  { OPT_BATCH, "batch", IS_WHOLE, ON_SPLIT | ON_PROBE, 1, 65536, "8", "N",
    "pictures computed at once; no result depends on it" },
  { OPT_BATCH, "batch", IS_WHOLE, ON_PLAN, 1, 65536, "8", "N", "pictures computed at once" },
  { OPT_MICRO, "micro", IS_WHOLE, ON_TRAINING, 1, 65536, NULL, "N",
    "pictures computed at once, gradients being added up to a batch; default: 8192 pixels' worth, "
    "and what fits in a quarter of the memory" },
  { OPT_STEPS, "steps", IS_WHOLE, ON_TRAINING, 1, 1e9, NULL, "N",
    "length of the run in steps, or ..." },
  { OPT_EPOCHS, "epochs", IS_REAL, ON_PRETRAIN, 1e-6, 1e6, NULL, "X",
    "... in passes over the data, or ..." },
  { OPT_EPOCHS, "epochs", IS_REAL, ON_FINETUNE, 1e-6, 1e6, NULL, "X",
    "... in passes over the data (default: 10), or ..." },
  { OPT_MINUTES, "minutes", IS_REAL, ON_PRETRAIN, 0.001, 1e6, NULL, "X",
    "... by the wall clock, which then drives the schedule; default: 60 minutes (the paper's "
    "million steps are about 100 passes over ImageNet)" },
  { OPT_MINUTES, "minutes", IS_REAL, ON_FINETUNE, 0.001, 1e6, NULL, "X", "... by the wall clock" },
  { OPT_RATE, "rate", IS_REAL, ON_PRETRAIN, 1e-9, 10, NULL, "X",
    "learning rate; default, as for --batch: the paper's for S to XL (Table 5), 0.005 for tiny and "
    "small-cpu, 0.003 for medium-cpu, 0.001 for these with BERT" },
  { OPT_RATE, "rate", IS_REAL, ON_FINETUNE, 1e-9, 10, "0.0003", "X",
    "learning rate, about a tenth of pre-training's as the paper advises" },
  { OPT_SCHEDULE, "schedule", IS_WORD, ON_PRETRAIN, 0, 0, "cosine", "cosine|constant|linear",
    "how the rate falls to 0 after the warm-up" },
  { OPT_SCHEDULE, "schedule", IS_WORD, ON_FINETUNE, 0, 0, "constant", "cosine|constant|linear",
    "how the rate falls; the paper keeps it when fine-tuning" },
  { OPT_WARMUP, "warmup", IS_WHOLE, ON_PRETRAIN, 0, 1e9, NULL, "N",
    "steps until the rate is reached; default: one epoch as in the paper, but at most a tenth "
    "of the run" },
  { OPT_WARMUP, "warmup", IS_WHOLE, ON_FINETUNE, 0, 1e9, "0", "N",
    "steps until the rate is reached" },
  { OPT_WEIGHT_DECAY, "weight-decay", IS_REAL, ON_TRAINING, 0, 10, "0", "X",
    "of AdamW (0.9, 0.95, 1e-8); the paper uses none" },
  { OPT_CLIP, "clip", IS_REAL, ON_TRAINING, 0, 1e9, "1", "X",
    "longest gradient; 0: no clipping (the paper does not say)" },
  { OPT_AUGMENT, "augment", IS_WORD, ON_PRETRAIN, 0, 0, NULL, "none|cifar|crop",
    "cifar: mirror, and shift by up to 4 pixels with reflected borders; crop: resize at random, "
    "then crop, as the paper does with ImageNet; default: crop for folders of larger pictures, "
    "else none" },
  { OPT_AUGMENT, "augment", IS_WORD, ON_FINETUNE, 0, 0, "cifar", "none|cifar|crop",
    "cifar: mirror, and shift by up to 4 pixels with reflected borders; crop: as in pretrain" },
  { OPT_GENERATIVE, "generative", IS_REAL, ON_FINETUNE, 0, 1000, "1", "X",
    "weight of the pixel loss beside the class loss, 1:1 in the paper; 0 switches it off" },
  { OPT_EVALUATIONS, "evaluations", IS_WHOLE, ON_TRAINING, 1, 100000, "10", "N",
    "how often validation pictures are looked at during the run" },
  { OPT_EVAL_COUNT, "eval-count", IS_WHOLE, ON_TRAINING, 1, MOST, NULL, "N",
    "how many validation pictures each time; default: 500, and fewer (25 a minute, at least 50) "
    "in a short run by the clock" },
  { OPT_PATIENCE, "patience", IS_WHOLE, ON_FINETUNE, 1, 100000, "3", "N",
    "stop early after N evaluations without a better validation accuracy" },
  { OPT_SAVE_MINUTES, "save-minutes", IS_REAL, ON_TRAINING, 0.001, 1e6, "5", "X",
    "write the checkpoint every X minutes" },
  { OPT_SNAPSHOTS, "snapshots", IS_FLAG, ON_PRETRAIN, 0, 0, NULL, NULL,
    "keep the model of every evaluation, beside --out as NAME.STEP.safetensors" },
  { OPT_RESUME, "resume", IS_TEXT, ON_TRAINING, 0, 0, NULL, "FILE",
    "go on from this checkpoint, bit for bit, in the files beside it; it holds the options of the "
    "run, and others are errors, but for --data, --count, --evaluations, --snapshots, "
    "--save-minutes and, of finetune, --model: give those again" },

  /* sampling */
  { OPT_KEEP, "keep", IS_REAL, ON_SAMPLE, 0, 1, "0.5", "X",
    "part of the rows that is given, at least one; 0 draws whole pictures" },
  { OPT_COMPLETIONS, "completions", IS_WHOLE, ON_SAMPLE, 1, 100, "4", "N",
    "completions of each picture; not with --keep 0" },
  { OPT_TEMPERATURE, "temperature", IS_REAL, ON_SAMPLE, 0.001, 1000, "1", "X",
    "divides the logits; the official sampler has 1" },
  { OPT_TOP_K, "top-k", IS_WHOLE, ON_SAMPLE, 0, 65535, "0", "N",
    "draw among the N most likely colours; 0: all, as the official sampler does" },
  { OPT_TOP_P, "top-p", IS_REAL, ON_SAMPLE, 0.0001, 1, "1", "X",
    "draw among the fewest colours whose probabilities sum to X" },
  { OPT_ROUNDS, "rounds", IS_WHOLE, ON_SAMPLE, 1, 100000, "16", "N",
    "BERT models: passes in which the hidden pixels are filled, the most certain first" },
  { OPT_NEAREST, "nearest", IS_FLAG, ON_SAMPLE, 0, 0, NULL, NULL,
    "with --keep 0: beside each picture the training picture that is nearest to it, and how far "
    "that is; as a measure, the same of as many held-out pictures" },
  { OPT_SCALE, "scale", IS_WHOLE, ON_SAMPLE | ON_MAP, 1, 64, "3", "N",
    "PNG pixels a picture pixel" },

  { OPT_SCORE, "score", IS_FLAG, ON_MAP, 0, 0, NULL, NULL,
    "rank all pictures of the split by nats a pixel, the most likely first: a table, and a picture "
    "of both ends" },

  /* probing */
  { OPT_LAYER, "layer", IS_TEXT, ON_PROBE, 0, 0, "all", "N|all|a,b,c",
    "depths: l is the input of block l after its norm, the last is after the final norm; "
    "`pixels` is the raw-pixel baseline, part of `all`; `histogram` another, how often each colour "
    "of the palette is there" },
  { OPT_TOGETHER, "together", IS_WHOLE, ON_PROBE, 2, 100, NULL, "N",
    "at the end, one probe on the features of N neighbouring depths side by side, the best one in "
    "their middle (the paper: 5)" },
  { OPT_LABELS, "labels", IS_WHOLE, ON_PROBE, 1, 1e9, NULL, "N",
    "fit on N pictures of each class, drawn by --seed; the best depth is not fitted again with the "
    "validation pictures" },
  { OPT_LAYER, "layer", IS_TEXT, ON_FEATURES, 0, 0, "all", "N|all|a,b,c",
    "depths: l is the input of block l after its norm, the last is after the final norm" },
  { OPT_VOTES, "votes", IS_WHOLE, ON_PROBE | ON_FINETUNE | ON_CLASSIFY, 1, 101, "5", "N",
    "BERT models: masks a test picture, of whose answers the most frequent counts" },
  { OPT_METHOD, "method", IS_WORD, ON_PROBE, 0, 0, "lbfgs", "lbfgs|sgd",
    "how the logistic regression is fitted" },
  { OPT_INVERSE_L2, "inverse-l2", IS_REAL, ON_PROBE, 1e-9, 1e9, "1", "X",
    "scikit-learn's C (the paper does not say)" },
  { OPT_STANDARDISE, "standardise", IS_WORD, ON_PROBE, 0, 0, "yes", "no|yes",
    "features to mean 0 and variance 1 first, so that C means the same at every depth" },
  { OPT_SHOW, "show", IS_TEXT, ON_PALETTE, 0, 0, NULL, "FILE",
    "a picture file, which is drawn beside what the palette leaves of it, as .show.png beside the "
    "palette" },
  { OPT_ITERATIONS, "iterations", IS_WHOLE, ON_PALETTE, 1, 1000000, "100", "N",
    "most rounds of k-means, which ends when no colour moves" },
  { OPT_ITERATIONS, "iterations", IS_WHOLE, ON_PROBE, 1, 1000000, NULL, "N",
    "most iterations of L-BFGS (default: 1000), or epochs of SGD (default: 30)" },

  /* everywhere */
  { OPT_SEED, "seed", IS_WHOLE, ON_DATA, 0, 9007199254740992.0, "0", "N",
    "of everything that is drawn: same seed, same bits. Pictures that a model's training held out "
    "stay held out for it, whatever the seed" },
  { OPT_WORKERS, "workers", IS_WHOLE, ON_DATA, 0, IGPT_MAX_WORKERS, "0", "N",
    "threads; 0: one a processor; no result depends on it" },
  { OPT_ISA, "isa", IS_WORD, ON_DATA | ON_PLAN, 0, 0, "auto",
    "auto|generic|avx2|avx512|avx512bf16|amx|neon",
    "instruction set; avx512bf16 and amx multiply in bf16 alone, and auto takes them for that" },
  { OPT_PRECISION, "precision", IS_WORD, ON_SESSION | ON_PLAN, 0, 0, "f32",
    "f32|bf16|int8|auto",
    "of the operands of matrix products; sums, weights and moments are float32. int8: the matrices "
    "in a byte a weight, to use a model, not to train it" },
  { OPT_RECOMPUTE, "recompute", IS_WORD, ON_PRETRAIN | ON_FINETUNE | ON_PLAN, 0, 0, "no", "no|yes",
    "yes: training keeps the activations of one layer and computes the others again: a quarter "
    "slower, much less memory, the same bits" },
  { OPT_JSON, "json", IS_FLAG, ON_ALL, 0, 0, NULL, NULL,
    "one JSON object a line on standard output" },
  { OPT_HELP, "help", IS_FLAG, ON_ALL, 0, 0, NULL, NULL, "this page" }
};

/* ---- values --------------------------------------------------------------------------------- */

typedef struct option_value {
  int         given;              /* 1: typed, 0: the default */
  long long   whole;              /* of a word: its place among the choices */
  double      real;
  const char *text;               /* null: not given and no default */
} option_value;

typedef struct options {
  const verb  *verb;
  option_value value[OPTION_COUNT];
} options;

static int given(const options *o, option_id id) { return o->value[id].given; }
static int whole(const options *o, option_id id) { return (int)o->value[id].whole; }
static double real(const options *o, option_id id) { return o->value[id].real; }
static const char *text(const options *o, option_id id) { return o->value[id].text; }

/* ---- names that are nearly right ------------------------------------------------------------ */

/* Edit distance, by the rows of the usual table; names longer than 30 are simply far. */
static int distance(const char *a, const char *b)
{
  int row[32], i, j, n = (int)strlen(b);
  if (strlen(a) > 30 || n > 30) return 99;
  for (j = 0; j <= n; j++) row[j] = j;
  for (i = 0; a[i]; i++) {
    int corner = row[0];
    row[0] = i + 1;
    for (j = 0; j < n; j++) {
      int change = corner + (a[i] != b[j]),
          best = row[j] < row[j + 1] ? row[j] + 1 : row[j + 1] + 1;
      corner = row[j + 1];
      row[j + 1] = change < best ? change : best;
    }
  }
  return row[n];
}

/* Keeps the nearest of the names that it is shown, if one is near enough to be meant. */
typedef struct nearest_name { const char *typed, *name; int distance; } nearest_name;

static void consider(nearest_name *best, const char *name)
{
  int d = distance(best->typed, name), most = (int)strlen(best->typed) / 3 + 1;
  if (d <= most && d < best->distance) {
    best->distance = d;
    best->name = name;
  }
}

/* ---- parsing -------------------------------------------------------------------------------- */

static const option *find_option(const char *name, size_t length, unsigned verbs)
{
  size_t i;
  for (i = 0; i < COUNT_OF(option_table); i++) {
    const option *row = &option_table[i];
    if ((row->verbs & verbs) && strlen(row->name) == length && !memcmp(row->name, name, length))
      return row;
  }
  return NULL;
}

/* The place of a word in "a|b|c"; -1 if it is not there. */
static int choice_of(const char *choices, const char *word)
{
  size_t length = strlen(word);
  int place = 0;
  for (;; place++, choices++) {
    size_t n = strcspn(choices, "|");
    if (n == length && !memcmp(choices, word, n)) return place;
    choices += n;
    if (!*choices) return -1;
  }
}

static void set_number(option_value *value, const option *row, const char *typed)
{
  int is_whole = row->kind == IS_WHOLE,
      plain = *typed && strspn(typed, "+-.0123456789eE") == strlen(typed);
  char *end = NULL;
  errno = 0;
  if (plain && is_whole) value->real = (double)(value->whole = strtoll(typed, &end, 10));
  if (plain && !is_whole) value->real = strtod(typed, &end);
  if (!plain || end == typed || *end || errno ||
      !(value->real >= row->low && value->real <= row->high))
    die("--%s is '%s', and must be a %snumber from %.*g to %.*g", row->name, typed,
        is_whole ? "whole " : "", is_whole ? 17 : 10, row->low, is_whole ? 17 : 10, row->high);
}

static void set_option(options *o, const option *row, const char *typed, int is_given)
{
  option_value *value = &o->value[row->id];
  value->given = is_given;
  value->text = typed;
  switch (row->kind) {
    case IS_WHOLE: case IS_REAL: set_number(value, row, typed); break;
    case IS_WORD:
      value->whole = choice_of(row->value, typed);
      if (value->whole < 0)
        die("--%s is '%s', and must be one of %s", row->name, typed, row->value);
      break;
    case IS_TEXT:
      if (!*typed) die("--%s is empty, and must be a %s", row->name, row->value);
      break;
    case IS_FLAG: break;
  }
}

#if defined(__GNUC__)
__attribute__((noreturn))
#endif
static void unknown_option(const verb *v, const char *name, size_t length)
{
  char typed[64];
  nearest_name best = { typed, NULL, 99 };
  const option *elsewhere = find_option(name, length, ON_ALL);
  size_t i, verbs;
  const verb *all = verb_table(&verbs);
  snprintf(typed, sizeof typed, "%.*s", (int)(length < 60 ? length : 60), name);
  for (i = 0; elsewhere && i < verbs; i++)
    if (all[i].bit & elsewhere->verbs)
      die("%s has no option --%s (%s has: see 'igpt %s --help')", v->name, typed, all[i].name,
          v->name);
  for (i = 0; i < COUNT_OF(option_table); i++)
    if (option_table[i].verbs & v->bit) consider(&best, option_table[i].name);
  if (best.name) die("%s has no option --%s: did you mean --%s?", v->name, typed, best.name);
  die("%s has no option --%s: see 'igpt %s --help'", v->name, typed, v->name);
}

/* Reads `--name value`, `--name=value` and `--flag`; `info` and `export` also take their file
   without a name. */
static void parse_options(options *o, const verb *v, int argc, char **argv)
{
  size_t i;
  int a;
  o->verb = v;
  for (i = 0; i < COUNT_OF(option_table); i++)
    if ((option_table[i].verbs & v->bit) && option_table[i].normal)
      set_option(o, &option_table[i], option_table[i].normal, 0);
  for (a = 0; a < argc; a++) {
    const char *name = argv[a] + 2, *value;
    size_t length;
    const option *row;
    if (strncmp(argv[a], "--", 2) != 0) {
      if (!(v->bit & ON_FILE) || given(o, OPT_MODEL))
        die("%s does not take the argument '%s': options begin with --", v->name, argv[a]);
      set_option(o, find_option("model", 5, v->bit), argv[a], 1);
      continue;
    }
    length = strcspn(name, "=");
    row = find_option(name, length, v->bit);
    if (!row) unknown_option(v, name, length);
    if (given(o, row->id)) die("--%s is given twice", row->name);
    value = name[length] ? name + length + 1 : NULL;
    if (row->kind == IS_FLAG) {
      if (value) die("--%s is '%s', and takes no value", row->name, value);
      value = "";
    } else if (!value && a + 1 < argc) {
      value = argv[++a];
    } else if (!value) {
      die("--%s needs a value: %s", row->name, row->value);
    }
    set_option(o, row, value, 1);
  }
}

/* ---- help ----------------------------------------------------------------------------------- */

/* Prints `words` from column `at` on, wrapped at column 96, further lines indented by `indent`. */
static void wrap(const char *words, int at, int indent)
{
  int first = 1;
  for (words += strspn(words, " "); *words; words += strspn(words, " ")) {
    const int length = (int)strcspn(words, " ");
    if (first) first = 0;
    else if (at + 1 + length <= 96) at += printf(" ");
    else at = printf("\n%*s", indent, "") - 1;
    at += printf("%.*s", length, words);
    words += length;
  }
  putchar('\n');
}

static void help_verb(const verb *v)
{
  size_t i;
  printf("igpt %s: ", v->name);
  wrap(v->text, (int)strlen(v->name) + 7, 0);
  printf("\n  %s\n\n", v->example);
  for (i = 0; i < COUNT_OF(option_table); i++) {
    const option *row = &option_table[i];
    char line[600];
    int at;
    if (!(row->verbs & v->bit)) continue;
    at = printf("  --%s%s%s", row->name, row->value ? " " : "", row->value ? row->value : "");
    if (at > 25) putchar('\n'), at = 0;
    snprintf(line, sizeof line, "%s%s%s", row->help, row->normal ? "; default: " : "",
             row->normal ? row->normal : "");
    printf("%*s", 26 - at, "");
    wrap(line, 26, 26);
  }
}

static void help_tool(void)
{
  size_t i, count;
  const verb *all = verb_table(&count);
  printf("igpt %d.%d.%d: Image GPT, a transformer that learns from pixels\n\n"
         "  igpt VERB [--option value ...]       igpt VERB --help\n\n",
         IGPT_VERSION_MAJOR, IGPT_VERSION_MINOR, IGPT_VERSION_PATCH);
  for (i = 0; i < count; i++) printf("  %-10s %s\n", all[i].name, all[i].summary);
  printf("\nFor example, an hour on CIFAR-10:\n\n");
  for (i = 0; i < count; i++)
    if (all[i].bit & (ON_PRETRAIN | ON_SAMPLE | ON_PROBE)) printf("  %s\n", all[i].example);
}

static const verb *find_verb(const char *name)
{
  nearest_name best = { name, NULL, 99 };
  size_t i, count;
  const verb *all = verb_table(&count);
  for (i = 0; i < count; i++) {
    if (!strcmp(all[i].name, name)) return &all[i];
    consider(&best, all[i].name);
  }
  if (best.name) die("there is no verb '%s': did you mean '%s'?", name, best.name);
  die("there is no verb '%s': see 'igpt --help'", name);
}

#endif
