/* cli_tool.h: what the verbs share: the machine, the pictures, the palette, the model, the session.

   Everything here either succeeds or leaves through die() with one sentence.                     */

#ifndef CLI_TOOL_H
#define CLI_TOOL_H

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli_options.h"
#include "dataset.h"
#include "plot.h"

/* How pictures are hidden from BERT models. */
typedef enum mask_kind { MASK_PIXEL, MASK_BLOCK, MASK_JIGSAW, MASK_NONE } mask_kind;

typedef struct tool {
  options      o;
  int          argc;              /* of the whole command, to say how it is resumed */
  char       **argv;
  igpt_pool   *pool;
  igpt_runner  runner;
  igpt_model  *model;
  igpt_config  config;            /* the model's; before there is one, what is asked for */
  igpt_palette palette;           /* colours is 0 as long as there is none */
  igpt_session *session;
  igpt_watch   watch;             /* of the sessions that are opened; zero: none */
  mask_kind    mask;              /* --mask, or that of the model */
  int          mask_side;
  char        *held;              /* the seed that held pictures out when the model was trained, as
                                     text; null: --seed */
} tool;

/* ---- results of the library ----------------------------------------------------------------- */

/* The library's sentence about its last failure: need() prints it. */
static char last_sentence[500];

static void keep_sentence(void *user, igpt_result result, const char *sentence)
{
  (void)user;
  (void)result;
  snprintf(last_sentence, sizeof last_sentence, "%s", sentence);
}

static const igpt_log sentences = { keep_sentence, NULL };

/* Goes on if `result` is IGPT_OK; else the sentence, after the file it is about (may be null). */
static void need(igpt_result result, const char *file)
{
  const char *sentence = *last_sentence ? last_sentence : igpt_error_string(result);
  if (result == IGPT_OK) {
    *last_sentence = 0;
    return;
  }
  if (file && strncmp(sentence, file, strlen(file)) != 0) die("%s: %s", file, sentence);
  die("%s", sentence);
}

/* The same for the functions that fill a buffer of their own. */
static char file_error[IMAGE_ERROR];

static void need_file(int status) { if (status) die("%s", file_error); }

/* ---- time and progress ---------------------------------------------------------------------- */

static double now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One line on stderr: rewritten in place on a terminal, now and then a new one elsewhere. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
static void progress(const char *format, ...)
{
  static double last;
  const int terminal = isatty(2);
  const double t = now();
  va_list args;
  if (t - last < (terminal ? 0.1 : 15)) return;
  if (!terminal && last == 0) {             /* short work needs no line */
    last = t;
    return;
  }
  last = t;
  if (terminal) fputs("\r\033[K", stderr);
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  if (!terminal) fputc('\n', stderr);
  progress_shown = terminal;
  fflush(stderr);
}

/* A watch that reports what part of a long call is done; `user` says what the call does. */
static int watch_progress(void *user, double done)
{
  progress("%s %3.0f %%", (const char *)user, 100 * done);
  return 0;
}

static igpt_watch watch_for(const char *doing)
{
  igpt_watch watch;
  watch.poll = watch_progress;
  watch.user = (void *)(uintptr_t)doing;
  return watch;
}

/* A line for people on stderr: what was skipped, what was chosen. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
static void note(const char *format, ...)
{
  va_list args;
  progress_end();
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fputc('\n', stderr);
}

/* What was printed must have arrived: on a full disk stdout fails when it is flushed. */
static void check_stdout(void)
{
  errno = 0;
  if (fflush(stdout) || ferror(stdout))
    die("standard output: writing failed: %s", strerror(errno ? errno : EIO));
}

/* A result line on stdout. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
static void result_line(const char *format, ...)
{
  va_list args;
  progress_end();
  va_start(args, format);
  vprintf(format, args);
  va_end(args);
  putchar('\n');
  check_stdout();
}

/* ---- names of files ------------------------------------------------------------------------- */

/* `path` with its extension replaced: model.safetensors -> model.svg. */
static char *beside(const char *path, const char *extension)
{
  const char *name = strrchr(path, '/'), *dot = strrchr(path, '.');
  size_t stem = dot && dot > (name ? name + 1 : path) ? (size_t)(dot - path) : strlen(path);
  char *made = need_memory(stem + strlen(extension) + 1, 1);
  memcpy(made, path, stem);
  memcpy(made + stem, extension, strlen(extension));          /* into zeros */
  return made;
}

static int ends_with(const char *path, const char *end)
{
  size_t n = strlen(path), m = strlen(end);
  return n >= m && !strcmp(path + n - m, end);
}

static int is_folder(const char *path)
{
  struct stat s;
  return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

static int is_file(const char *path)
{
  struct stat s;
  return stat(path, &s) == 0 && !S_ISDIR(s.st_mode);
}

static int same_file(const char *a, const char *b)
{
  struct stat x, y;
  return !strcmp(a, b) ||
         (stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

static char *join(const char *folder, const char *name)
{
  size_t room = strlen(folder) + strlen(name) + 2;
  char *made = need_memory(room, 1);
  snprintf(made, room, "%s%s%s", folder, ends_with(folder, "/") ? "" : "/", name);
  return made;
}

/* What is read must not be replaced by `result`, which is --out or goes beside it. A resumed run
   goes on in its own files, and may read them. */
static void spare_inputs(const tool *t, const char *result)
{
  static const struct { option_id id; const char *name, *inside; } inputs[] = {
    { OPT_MODEL, "model", "model.safetensors" },
    { OPT_PALETTE, "palette", "preprocessor_config.json" },
    { OPT_DATA, "data", "" },
    { OPT_SHOW, "show", "" }
  };
  const char *out = text(&t->o, OPT_OUT);
  size_t i;
  for (i = 0; i < COUNT_OF(inputs) && !given(&t->o, OPT_RESUME); i++) {
    const char *path = text(&t->o, inputs[i].id);
    char *inside = path && is_folder(path) ? join(path, inputs[i].inside) : NULL;
    if (path && same_file(result, inside ? inside : path)) {
      if (!strcmp(result, out))
        die("--%s is '%s', which would be written over: --out is '%s'", inputs[i].name, path, out);
      die("--%s is '%s', which would be written over: --out is '%s', and '%s' goes beside it",
          inputs[i].name, path, out, result);
    }
    free(inside);
  }
}

/* Says before an hour of work, not after it, that the result cannot be written. Files are replaced
   by new ones, which would be the end of a device. */
static void check_output(const tool *t, const char *path)
{
  const char *slash = strrchr(path, '/');
  char folder[1000] = ".";
  struct stat what;
  if (slash) snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path);
  if (is_folder(path)) die("--out: '%s' is a folder and not a file", path);
  if (stat(path, &what) == 0 && !S_ISREG(what.st_mode))
    die("--out: '%s' is not a plain file", path);
  if (!is_folder(folder)) die("--out: of '%s' there is no folder '%s'", path, folder);
  if (access(folder, W_OK)) die("--out: of '%s' folder '%s': %s", path, folder, strerror(errno));
  spare_inputs(t, path);
}

/* ---- JSON: as much as two configuration files need ------------------------------------------ */

static const char *json_space(const char *p) { return p + strspn(p, " \t\r\n"); }

/* Past the value at p; null if it is not one. */
static const char *json_end(const char *p, int depth)
{
  size_t plain;
  char close;
  p = json_space(p);
  if (*p == '"') {
    for (p++; *p != '"'; p++) {
      if (*p == '\\') p++;
      if (!*p) return NULL;
    }
    return p + 1;
  }
  if (*p != '{' && *p != '[') return (plain = strcspn(p, ",:]}[{\" \t\r\n")) ? p + plain : NULL;
  if (depth > 60) return NULL;
  close = *p == '{' ? '}' : ']';
  p = json_space(p + 1);
  if (*p == close) return p + 1;
  for (;;) {
    if (close == '}') {                       /* "key": */
      p = *p == '"' ? json_end(p, depth + 1) : NULL;
      if (!p || *(p = json_space(p)) != ':') return NULL;
      p++;
    }
    p = json_end(p, depth + 1);
    if (!p) return NULL;
    p = json_space(p);
    if (*p == close) return p + 1;
    if (*p++ != ',') return NULL;
    p = json_space(p);
  }
}

/* The value of a key of the object at p (which json_end has accepted); null if it has none. `times`
   (may be null): how often it is there. */
static const char *json_find(const char *p, const char *key, int *times)
{
  const size_t length = strlen(key);
  const char *found = NULL;
  if (times) *times = 0;
  p = json_space(p);
  if (*p != '{') return NULL;
  for (p = json_space(p + 1); *p && *p != '}'; p = json_space(p)) {
    const char *name = p + 1, *end = json_end(p, 1), *value;
    value = end ? json_space(end) : NULL;
    if (!value || *value != ':') break;
    value = json_space(value + 1);
    if (*p == '"' && (size_t)(end - name) == length + 1 && !memcmp(name, key, length)) {
      if (!found) found = value;
      if (!times) break;
      ++*times;
    }
    p = json_end(value, 1);
    if (!p) break;
    p = json_space(p);
    if (*p == ',') p++;
  }
  return found;
}

/* The same in the file `path`, which must not say it twice. */
static const char *json_value(const char *path, const char *object, const char *key)
{
  int times;
  const char *p = json_find(object, key, &times);
  if (times > 1) die("%s: has \"%s\" %d times", path, key, times);
  return p;
}

/* A whole file as a string that holds one JSON object. */
static char *json_file(const char *path)
{
  uint8_t *bytes;
  const char *end;
  size_t count;
  char *made;
  need_file(image_read_file(&bytes, &count, path, (size_t)1 << 26, file_error, sizeof file_error));
  made = need_memory(count + 1, 1);
  memcpy(made, bytes, count);
  free(bytes);
  end = strlen(made) == count && *json_space(made) == '{' ? json_end(made, 0) : NULL;
  if (!end || *json_space(end)) die("%s: not a JSON object", path);
  return made;
}

/* Past the number at p, all of which is one; null if it is something else. */
static const char *json_real(const char *p, double *value)
{
  char *end;
  *value = strtod(p, &end);                 /* reads more than JSON has: "0x1p3", "nan" */
  return end > p && strspn(p, "+-.0123456789eE") >= (size_t)(end - p) && end == json_end(p, 0)
           ? end : NULL;
}

static double json_number(const char *path, const char *object, const char *key, double low,
                          double high)
{
  const char *p = json_value(path, object, key);
  double value;
  if (!p) die("%s: has no \"%s\"", path, key);
  if (!json_real(p, &value) || !(value >= low && value <= high))
    die("%s: \"%s\" is %.*s, and must be a number from %g to %g", path, key,
        (int)strcspn(p, ",}\n"), p, low, high);
  return value;
}

static int json_whole(const char *path, const char *object, const char *key, int low, int high)
{
  const double value = json_number(path, object, key, low, high);
  if (value != floor(value)) die("%s: \"%s\" is %g, and must be a whole number", path, key, value);
  return (int)value;
}

/* Bytes of the UTF-8 character at s; 0 if there is none. */
static size_t utf8_length(const unsigned char *s)
{
  const size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3
                                               : s[0] < 0xf5 ? 4 : 0;
  size_t i;
  for (i = 1; i < n; i++)
    if ((s[i] & 0xc0) != 0x80) return 0;
  if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) ||
      (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90)) return 0;
  return n;
}

/* The inside of a JSON string, from malloc. Bytes that are not UTF-8, which names of files may
   hold, become U+FFFD. */
static char *json_escape(const char *s)
{
  char *made = need_memory(6 * strlen(s) + 1, 1), *to = made;
  while (*s) {
    const size_t n = utf8_length((const unsigned char *)s);
    if (n == 0) to += sprintf(to, "\\ufffd");
    else if ((unsigned char)*s < 32) to += sprintf(to, "\\u%04x", (unsigned)*s);
    else if (*s == '"' || *s == '\\') to += sprintf(to, "\\%c", *s);
    else to += sprintf(to, "%.*s", (int)n, s);
    s += n ? n : 1;
  }
  return made;
}

/* A string for a JSON line on stdout. */
static void print_json_text(const char *s)
{
  char *inside = json_escape(s);
  printf("\"%s\"", inside);
  free(inside);
}

/* ---- notes in the header of a safetensors file ---------------------------------------------- */

/* The library writes what a model needs to be read. The tool adds what people want to know: names
   of classes, options of a run. They go into "__metadata__" as more strings while the file is
   written; readers that do not know them, the library among them, pass them over. */
typedef struct file_note {
  const char *key, *value;        /* null value: no such note */
} file_note;

typedef struct noted_file {
  igpt_result (*body)(void *user, const igpt_sink *sink);
  void *user;
  const char *note;               /* "key":"value", ... with as many spaces as make 8 bytes of 8 */
  const igpt_sink *sink;
  uint8_t head[25];               /* the header's length, and {"__metadata__":{ */
  size_t held;
} noted_file;

static int noted_write(void *user, const void *from, size_t bytes)
{
  noted_file *file = user;
  const igpt_sink *sink = file->sink;
  const uint8_t *p = from;
  const int begun = file->held == sizeof file->head;
  while (bytes && file->held < sizeof file->head) {
    file->head[file->held++] = *p++;
    bytes--;
  }
  if (!begun && file->held == sizeof file->head) {
    uint64_t length = strlen(file->note);
    int i;
    for (i = 0; i < 8; i++) length += (uint64_t)file->head[i] << 8 * i;
    for (i = 0; i < 8; i++) file->head[i] = (uint8_t)(length >> 8 * i & 255);
    if (sink->write(sink->user, file->head, sizeof file->head) ||
        sink->write(sink->user, file->note, strlen(file->note))) return -1;
  }
  return bytes ? sink->write(sink->user, p, bytes) : 0;
}

static igpt_result noted_body(void *user, const igpt_sink *sink)
{
  noted_file *file = user;
  igpt_sink through;
  igpt_result result;
  file->sink = sink;
  through.write = noted_write;
  through.user = file;
  result = file->body(file->user, &through);
  file->sink = NULL;
  return result;
}

/* Writes what `body` does as `path`, with notes as metadata. */
static void save_noted(const char *path, const file_note *notes, size_t count,
                       igpt_result (*body)(void *user, const igpt_sink *sink), void *user)
{
  noted_file file;
  char *text = need_memory(1, 1);
  size_t i;
  for (i = 0; i < count; i++) {
    char *inside, *longer;
    size_t room, n;
    if (!notes[i].value) continue;
    inside = json_escape(notes[i].value);
    room = strlen(text) + strlen(notes[i].key) + strlen(inside) + 20;
    longer = need_memory(room, 1);
    snprintf(longer, room, "%s\"%s\":\"%s\",", text, notes[i].key, inside);
    for (n = strlen(longer); n % 8; n++) longer[n] = ' ';
    free(inside);
    free(text);
    text = longer;
  }
  memset(&file, 0, sizeof file);
  file.note = text;
  file.body = body;
  file.user = user;
  need(igpt_file_replace(path, &sentences, noted_body, &file), path);
  free(text);
}

/* The JSON header of a safetensors file, from malloc; null if `path` is no such file. */
static char *file_header(const char *path)
{
  igpt_source source;
  uint8_t size[8];
  uint64_t length = 0;
  char *header = NULL;
  int i;
  if (igpt_file_open(&source, path, NULL)) return NULL;
  if (source.size >= 8 && !source.read(source.user, 0, size, 8))
    for (i = 7; i >= 0; i--) length = length << 8 | size[i];
  if (length && length <= source.size - 8 && length < (uint64_t)1 << 28) {
    header = need_memory((size_t)length + 1, 1);
    if (source.read(source.user, 8, header, (size_t)length) || *json_space(header) != '{' ||
        !json_end(header, 0)) {
      free(header);
      header = NULL;
    }
  }
  igpt_file_close(&source);
  return header;
}

/* The JSON string at p, from malloc; null if there is none. */
static char *json_text(const char *p)
{
  char *made, *to;
  if (!p || *p++ != '"') return NULL;
  made = to = need_memory(strlen(p) + 1, 1);
  while (*p != '"') {
    unsigned code = (unsigned char)*p++;
    if (code == '\\') {
      code = (unsigned char)*p++;
      if (code == 'n') code = '\n';
      if (code == 't') code = '\t';
      if (code == 'u' && strspn(p, "0123456789abcdefABCDEF") >= 4 && sscanf(p, "%4x", &code) == 1) {
        p += 4;
        if (code >= 0x800) {
          *to++ = (char)(0xe0 | code >> 12);
          *to++ = (char)(0x80 | (code >> 6 & 63));
          code = 0x80 | (code & 63);
        } else if (code >= 0x80) {
          *to++ = (char)(0xc0 | code >> 6);
          code = 0x80 | (code & 63);
        }
      }
    }
    *to++ = (char)code;
  }
  return made;
}

/* The string `key` of a header's "__metadata__", from malloc; null if there is none. */
static char *header_note(const char *header, const char *key)
{
  const char *metadata = header ? json_find(header, "__metadata__", NULL) : NULL;
  return json_text(metadata ? json_find(metadata, key, NULL) : NULL);
}

/* ---- files that belong together ------------------------------------------------------------- */

/* All of them are written as NAME.new, and only then do they take their names: a disk that fills up
   leaves the old ones, which fit each other. */
#define OUTPUTS 4
static struct { char *fresh, *name; } outputs[OUTPUTS];
static int output_count;

static void drop_outputs(void)
{
  while (output_count > 0) {
    remove(outputs[--output_count].fresh);
    free(outputs[output_count].fresh);
    free(outputs[output_count].name);
  }
}

static const char *fresh_output(const char *name)
{
  static int registered;
  const size_t room = strlen(name) + 5;
  if (!registered) registered = atexit(drop_outputs) == 0;
  outputs[output_count].fresh = need_memory(room, 1);
  snprintf(outputs[output_count].fresh, room, "%s.new", name);
  outputs[output_count].name = need_memory(room, 1);
  snprintf(outputs[output_count].name, room, "%s", name);
  return outputs[output_count++].fresh;
}

static void keep_outputs(void)
{
  int i;
  for (i = 0; i < output_count; i++)
    if (rename(outputs[i].fresh, outputs[i].name))
      die("%s: cannot be renamed to %s: %s", outputs[i].fresh, outputs[i].name, strerror(errno));
  if (output_count) image__flush_folder(outputs[0].name);
  drop_outputs();                 /* frees the names: the files have gone */
}

typedef struct text_file { FILE *file; char *text; size_t length; } text_file;

static igpt_result text_body(void *user, const igpt_sink *sink)
{
  const text_file *made = user;
  return sink->write(sink->user, made->text, made->length) ? IGPT_WRITE_ERROR : IGPT_OK;
}

/* A stream to write text to, and its end: the text becomes an output of that name. */
static FILE *begin_text(text_file *made)
{
  made->file = open_memstream(&made->text, &made->length);
  if (!made->file) die("no memory for a text");
  return made->file;
}

static void save_text(text_file *made, const char *name)
{
  const char *fresh = fresh_output(name);
  if (fclose(made->file)) die("no memory for %s", name);
  need(igpt_file_replace(fresh, &sentences, text_body, made), fresh);
  free(made->text);
}

/* ---- the machine ---------------------------------------------------------------------------- */

static void open_machine(tool *t)
{
  const igpt_isa isa = (igpt_isa)whole(&t->o, OPT_ISA);
  if (!igpt_isa_supported(isa))
    die("--isa is %s, which is not built in or not supported by this processor (it has %s)",
        igpt_isa_name(isa), igpt_isa_name(igpt_isa_best()));
  need(igpt_pool_create(&t->pool, whole(&t->o, OPT_WORKERS), NULL), "--workers");
  t->runner = igpt_pool_runner(t->pool);
}

static double physical_memory(void)
{
#if defined(_SC_PHYS_PAGES) && defined(_SC_PAGESIZE)
  const long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
  if (pages > 0 && bytes > 0) return (double)pages * (double)bytes;
#endif
  return 4e9;
}

/* Streams of random numbers: a kind, and which picture or epoch. Sampling has the kind 0. */
enum { STREAM_ORDER = 1, STREAM_PICTURE, STREAM_EVALUATION, STREAM_PIXELS, STREAM_PROMPTS,
       STREAM_TIES, STREAM_LABELS };

static uint64_t seed_of(const tool *t) { return (uint64_t)t->o.value[OPT_SEED].whole; }

static igpt_rng stream(const tool *t, int kind, uint64_t number)
{
  return igpt_rng_seed(seed_of(t), (uint64_t)kind << 56 | number);
}

/* ---- pictures ------------------------------------------------------------------------------- */

typedef struct pictures {
  dataset   set;
  size_t    count;                /* N */
  uint16_t *tokens;               /* (N,T); null until encode_pictures */
} pictures;

static size_t tokens_of(const tool *t)
{
  return (size_t)t->config.rows * (size_t)t->config.columns;
}

/* Where --data points, or a copy of CIFAR-10 in one of the usual places. */
static const char *data_path(const tool *t)
{
  static const char *const usual[] = {
    "data/cifar-10-batches-bin", "data", "build/data/cifar-10-batches-bin", "cifar-10-batches-bin",
    "../data/cifar-10-batches-bin", "../shared/data/cifar-10-batches-bin"
  };
  size_t i;
  if (given(&t->o, OPT_DATA)) return text(&t->o, OPT_DATA);
  for (i = 0; i < COUNT_OF(usual); i++) {
    char *batch = join(usual[i], "test_batch.bin");
    const int found = is_file(batch);
    free(batch);
    if (found) return usual[i];
  }
  die("--data is not given, and there is no CIFAR-10 in data/, build/data/, cifar-10-batches-bin/, "
      "../data/ or ../shared/data/: unpack cifar-10-binary.tar.gz (www.cs.toronto.edu/~kriz) in "
      "data/, or take --data shapes:");
}

static void note_skipped(void *user, const char *sentence)
{
  (void)user;
  note("skipped: %s", sentence);
}

/* What --split asks for. */
static dataset_split asked_split(const tool *t)
{
  static const dataset_split splits[] = { DATASET_TRAIN, DATASET_VALIDATION, DATASET_TEST,
                                          DATASET_ALL };
  return given(&t->o, OPT_SPLIT) ? splits[whole(&t->o, OPT_SPLIT)] : DATASET_LOOK;
}

/* Loads a split as the model's (rows, columns). limit 0: what --count says. Returns 0, or -1 with a
   sentence in file_error. */
static int try_pictures(tool *t, pictures *p, dataset_split split, size_t limit,
                        dataset_augment augment)
{
  dataset_desc d;
  memset(&d, 0, sizeof d);
  memset(p, 0, sizeof *p);
  d.path = data_path(t);
  d.split = split;
  d.rows = t->config.rows;
  d.columns = t->config.columns;
  d.limit = limit ? limit : (size_t)whole(&t->o, OPT_COUNT);
  d.seed = t->held ? strtoull(t->held, NULL, 10) : seed_of(t);
  d.augment = augment;
  d.runner = t->runner;
  d.watch = watch_for("reading pictures");
  d.warn = note_skipped;
  if (dataset_load(&p->set, &d, file_error, sizeof file_error)) return -1;
  progress_end();
  p->count = p->set.count;
  if (p->set.broken || p->set.small)
    note("skipped %zu pictures that cannot be read and %zu that are smaller than %d x %d",
         p->set.broken, p->set.small, d.columns, d.rows);
  return 0;
}

static void read_pictures(tool *t, pictures *p, dataset_split split, size_t limit,
                          dataset_augment augment)
{
  need_file(try_pictures(t, p, split, limit, augment));
}

static void need_palette(const tool *t)
{
  if (!t->palette.colours)
    die("%s holds no palette: say with --palette which colours its %d tokens are",
        text(&t->o, OPT_MODEL), t->config.vocabulary);
}

static void encode_pictures(tool *t, pictures *p)
{
  igpt_encode_desc desc = {0};
  const size_t pixels = p->count * tokens_of(t);
  if (p->set.vocabulary > t->config.vocabulary)
    die("%s: token %d is the largest, and the model has %d colours", data_path(t),
        p->set.vocabulary - 1, t->config.vocabulary);
  p->tokens = p->set.tokens;
  if (p->tokens) return;
  need_palette(t);
  p->tokens = need_memory(pixels, sizeof *p->tokens);
  desc.runner = t->runner;
  need(igpt_palette_encode(&t->palette, p->tokens, p->set.pictures, pixels, &desc), "palette");
}

static void decode_tokens(const tool *t, uint8_t *rgb, const uint16_t *tokens,
                          size_t pictures_count)
{
  need_palette(t);
  need(igpt_palette_decode(&t->palette, rgb, tokens, pictures_count * tokens_of(t)), "palette");
}

/* Picture `index` as it was read: (rows, columns, 3). */
static void original_picture(const tool *t, const pictures *p, uint8_t *rgb, size_t index)
{
  const size_t T = tokens_of(t);
  if (p->set.pictures) memcpy(rgb, p->set.pictures + index * 3 * T, 3 * T);
  else decode_tokens(t, rgb, p->tokens + index * T, 1);
}

/* ---- the palette ---------------------------------------------------------------------------- */

static void name_palette(igpt_palette *palette, const char *path)
{
  size_t end = strlen(path), begin;
  while (end > 1 && path[end - 1] == '/') end--;            /* the name of a folder */
  for (begin = end; begin > 0 && path[begin - 1] != '/';) begin--;
  snprintf(palette->name, sizeof palette->name, "%.*s", (int)(end - begin < 50 ? end - begin : 50),
           path + begin);
}

/* (k,3) numbers: floats are taken as -1..1, bytes as 0..255. */
static void palette_from_npy(igpt_palette *palette, const char *path)
{
  igpt_source source;
  igpt_npy npy;
  size_t i;
  need(igpt_file_open(&source, path, &sentences), path);
  need(igpt_npy_open(&npy, &source, &sentences), path);
  if (npy.rank != 2 || npy.shape[1] != 3 || npy.shape[0] < 1 || npy.shape[0] > IGPT_PALETTE_MAX)
    die("%s: the shape has rank %d and %llu numbers, and a palette is (1..%d, 3)", path, npy.rank,
        (unsigned long long)npy.count, IGPT_PALETTE_MAX);
  palette->colours = (int)npy.shape[0];
  need(igpt_npy_read_f32(&npy, &palette->centre[0][0], 0, (size_t)npy.count, &source), path);
  igpt_file_close(&source);
  for (i = 0; i < (size_t)npy.count; i++) {
    float *x = &palette->centre[0][0] + i;
    if (npy.type == IGPT_NPY_U8) *x = *x / 127.5f - 1;
    if (!(*x >= -1.01f && *x <= 1.01f))
      die("%s: number %zu is %g, and colours lie in -1..1", path, i, (double)*x);
  }
  name_palette(palette, path);
}

/* "clusters": [[r, g, b], ...] of a Hugging Face folder; returns 0 if there is no such file. */
static int palette_from_folder(igpt_palette *palette, const char *folder)
{
  char *path = join(folder, "preprocessor_config.json"), *json;
  const char *p;
  size_t n = 0;
  if (!is_file(path)) {
    free(path);
    return 0;
  }
  json = json_file(path);
  p = json_value(path, json, "clusters");
  if (!p || *p != '[') die("%s: has no \"clusters\": [[r, g, b], ...]", path);
  for (p = json_space(p + 1); *p != ']'; n += 3) {
    int i;
    if (n == 3 * IGPT_PALETTE_MAX)
      die("%s: \"clusters\" holds more than %d colours", path, IGPT_PALETTE_MAX);
    for (i = 0; i < 3; i++) {
      double value;
      const char *end = *p == (i ? ',' : '[') ? json_real(json_space(p + 1), &value) : NULL;
      if (!end || !(fabs(value) <= 1.01))
        die("%s: number %d of colour %zu of \"clusters\" is no number in -1..1", path, i, n / 3);
      palette->centre[n / 3][i] = (float)value;
      p = json_space(end);
    }
    if (*p != ']') die("%s: colour %zu of \"clusters\" has not three numbers", path, n / 3);
    p = json_space(p + 1);
    if (*p == ',') p = json_space(p + 1);
  }
  if (!n) die("%s: \"clusters\" holds no colours", path);
  palette->colours = (int)(n / 3);
  name_palette(palette, folder);
  free(json);
  free(path);
  return 1;
}

/* From a .npy, a Hugging Face folder, or a model that holds one. */
static void read_palette(igpt_palette *palette, const char *path)
{
  memset(palette, 0, sizeof *palette);
  if (ends_with(path, ".npy")) {
    palette_from_npy(palette, path);
  } else if (is_folder(path)) {
    if (!palette_from_folder(palette, path)) die("%s: has no preprocessor_config.json", path);
  } else {
    igpt_model_desc d;
    igpt_model *model;
    memset(&d, 0, sizeof d);
    d.log = sentences;
    need(igpt_model_load(&model, path, &d), path);
    if (!igpt_model_palette(model)) die("%s: is a model that holds no palette", path);
    *palette = *igpt_model_palette(model);
    igpt_model_destroy(model);
  }
}

/* k-means on --pixels pixels of the pictures; report may be null. */
static void fit_palette(tool *t, const pictures *p, igpt_kmeans_report *report)
{
  const size_t all = p->count * tokens_of(t);
  const size_t most = (size_t)t->o.value[OPT_PIXELS].whole, count = all < most ? all : most;
  igpt_rng rng = stream(t, STREAM_PIXELS, 0);
  igpt_kmeans_desc d;
  uint8_t *drawn = NULL;
  size_t i;
  if (!p->set.pictures) die("%s: holds tokens: their palette is not known", data_path(t));
  if (count < all) {
    drawn = need_memory(count, 3);
    for (i = 0; i < count; i++) {
      const size_t picture = igpt_rng_below(&rng, (uint32_t)p->count);
      const size_t pixel = igpt_rng_below(&rng, (uint32_t)tokens_of(t));
      memcpy(drawn + 3 * i, p->set.pictures + 3 * (picture * tokens_of(t) + pixel), 3);
    }
  }
  memset(&d, 0, sizeof d);
  d.colours = whole(&t->o, OPT_COLOURS);
  d.seed = seed_of(t);
  d.max_iterations = whole(&t->o, OPT_ITERATIONS);          /* 0, the library's, in pretrain */
  d.isa = (igpt_isa)whole(&t->o, OPT_ISA);
  d.runner = t->runner;
  d.watch = watch_for("k-means");
  d.log = sentences;
  need(igpt_palette_fit(&t->palette, report, drawn ? drawn : p->set.pictures, count, &d),
       "palette");
  i = strcspn(p->set.title, ",");
  snprintf(t->palette.name, sizeof t->palette.name, "%.*s, k-means %d, seed %llu",
           (int)(i < 24 ? i : 24), p->set.title, t->palette.colours,
           (unsigned long long)seed_of(t));
  progress_end();
  free(drawn);
}

/* ---- the model ------------------------------------------------------------------------------ */

static int json_says(const char *path, const char *json, const char *name, const char *value)
{
  const char *found = json_value(path, json, name);
  return found && !strncmp(found, value, strlen(value));
}

/* What config.json of a Hugging Face ImageGPT says, for a file that cannot say it itself. */
static void hugging_face_config(const tool *t, igpt_config *config, const char *folder)
{
  char *path = join(folder, "config.json"), *json = json_file(path);
  const char *activation = json_value(path, json, "activation_function");
  const char *inner = json_value(path, json, "n_inner");
  const int positions = json_whole(path, json, "n_positions", 1, 1 << 24);
  config->layers = json_whole(path, json, "n_layer", 1, 1000);
  config->heads = json_whole(path, json, "n_head", 1, 1024);
  config->width = json_whole(path, json, "n_embd", 1, 65536);
  config->vocabulary = json_whole(path, json, "vocab_size", 2, 65536) - 1;
  config->norm_epsilon = (float)json_number(path, json, "layer_norm_epsilon", 1e-30, 0.5);
  if (activation && strncmp(activation, "\"quick_gelu\"", 12) != 0)
    die("%s: \"activation_function\" is %.*s, and must be \"quick_gelu\"", path,
        (int)strcspn(activation, ",}\n"), activation);
  if (json_says(path, json, "scale_attn_weights", "false"))
    die("%s: \"scale_attn_weights\" is false, and must be true", path);
  if (json_says(path, json, "scale_attn_by_inverse_layer_idx", "true"))
    die("%s: \"scale_attn_by_inverse_layer_idx\" is true, and must be false", path);
  if (inner && strncmp(inner, "null", 4) != 0) {
    const int middle = json_whole(path, json, "n_inner", 1, 4 * 65536);
    if (middle != 4 * config->width)
      die("%s: \"n_inner\" is %d, and must be 4 times \"n_embd\", which is %d", path, middle,
          config->width);
  }
  if (given(&t->o, OPT_HEADS) && whole(&t->o, OPT_HEADS) != config->heads)
    die("%s: \"n_head\" is %d, and --heads is %d", path, config->heads, whole(&t->o, OPT_HEADS));
  config->rows = config->columns =
      given(&t->o, OPT_SIDE) ? whole(&t->o, OPT_SIDE) : (int)(sqrt((double)positions) + 0.5);
  if (config->rows * config->rows != positions) {
    if (given(&t->o, OPT_SIDE))
      die("%s: \"n_positions\" is %d, which is not %d x %d", path, positions, config->rows,
          config->rows);
    config->rows = config->columns = 0;       /* the model's file may say them */
  }
  free(json);
  free(path);
}

/* The file with the weights: `path` itself, or what a Hugging Face folder calls so. From malloc. */
static char *model_file(const char *path)
{
  const size_t room = strlen(path) + 1;
  if (is_folder(path)) return join(path, "model.safetensors");
  return memcpy(need_memory(room, 1), path, room);
}

/* The first uploads of ImageGPT hold a pickle, which runs what it likes when it is read. */
static void no_safetensors(const char *folder)
{
  char *pickle = join(folder, "pytorch_model.bin");
  if (!is_file(pickle)) die("%s: has no model.safetensors", folder);
  die("%s: is a pickle, which this tool does not read; write it as model.safetensors with: "
      "python3 -c \"from transformers import ImageGPTForCausalImageModeling as M; "
      "M.from_pretrained('%s').save_pretrained('%s')\"", pickle, folder, folder);
}

/* Opens a model: our file, or the folder of a Hugging Face one. classes > 0 asks for a class
   head. */
static void load_model(tool *t, const char *path, int classes)
{
  igpt_model_desc d;
  char *inside = NULL;
  memset(&d, 0, sizeof d);
  d.log = sentences;
  d.config.classes = classes;
  if (is_folder(path)) {
    hugging_face_config(t, &d.config, path);
    inside = model_file(path);
    if (!is_file(inside)) no_safetensors(path);
  } else {
    if (given(&t->o, OPT_SIDE)) d.config.rows = d.config.columns = whole(&t->o, OPT_SIDE);
    if (given(&t->o, OPT_HEADS)) d.config.heads = whole(&t->o, OPT_HEADS);
  }
  igpt_model_destroy(t->model);
  need(igpt_model_load(&t->model, inside ? inside : path, &d), inside ? inside : path);
  t->config = *igpt_model_config(t->model);
  free(inside);
}

static const char *objective_name(igpt_objective objective)
{
  return objective == IGPT_BERT ? "bert" : "ar";
}

/* Palettes of as many colours must be the same; the sentence says whose they are. */
static void same_palette(const igpt_palette *a, const char *whose, const igpt_palette *b,
                         const char *other)
{
  int i;
  for (i = 0; i < 3 * a->colours; i++) {
    const float x = a->centre[i / 3][i % 3], y = b->centre[i / 3][i % 3];
    if (fabsf(x - y) > 1e-4f)
      die("%s: colour %d of its palette '%s' has %g where %s has %g", whose, i / 3, a->name,
          (double)x, other, (double)y);
  }
}

/* The palette of the model in t, from --palette, the model or its folder; none is no error yet. */
static void find_palette(tool *t, const char *path)
{
  const igpt_palette *own = igpt_model_palette(t->model);
  if (given(&t->o, OPT_PALETTE)) read_palette(&t->palette, text(&t->o, OPT_PALETTE));
  else if (own) t->palette = *own;
  else if (is_folder(path)) palette_from_folder(&t->palette, path);
  if (t->palette.colours && t->palette.colours != t->config.vocabulary)
    die("%s: the palette has %d colours, and the model of %s has %d",
        given(&t->o, OPT_PALETTE) ? text(&t->o, OPT_PALETTE) : path, t->palette.colours, path,
        t->config.vocabulary);
  if (own) same_palette(own, path, &t->palette, text(&t->o, OPT_PALETTE));
  if (t->palette.colours) need(igpt_model_set_palette(t->model, &t->palette), path);
}

#define MASK_NOTE "igpt.tool.mask"

/* "block:4" -> MASK_BLOCK, 4; `where` says whose it is in a sentence. */
static void read_mask(tool *t, const char *typed, const char *where)
{
  static const char *const names[] = { "pixel", "block:", "jigsaw:", "none" };
  int kind;
  for (kind = 0; kind < 4; kind++) {
    const size_t n = strlen(names[kind]);
    char *end = NULL;
    long side = 0;
    if (strncmp(typed, names[kind], n) != 0) continue;
    if (names[kind][n - 1] != ':' && typed[n]) continue;
    if (names[kind][n - 1] == ':') {
      side = typed[n] >= '0' && typed[n] <= '9' ? strtol(typed + n, &end, 10) : 0;
      if (side < 1 || side > 1 << 15 || *end) break;
    }
    t->mask = (mask_kind)kind;
    t->mask_side = (int)side;
    return;
  }
  die("%s is '%s', and must be pixel, block:K or jigsaw:K%s, K from 1 to 32768", where, typed,
      t->o.verb->bit & (ON_PRETRAIN | ON_EVAL) ? "" : ", or none");
}

/* The note `key` in the model or checkpoint `from`, from malloc; null if there is none. */
static char *model_note(const char *from, const char *key)
{
  char *path = model_file(from), *header = file_header(path);
  char *note = header_note(header, key);
  free(header);
  free(path);
  return note;
}

/* What is hidden of pictures: what --mask says, else what the model of `path` (null: a new one) was
   trained with. */
static void settle_mask(tool *t, const char *path)
{
  const char *typed = text(&t->o, OPT_MASK);
  char *kept = path ? model_note(path, MASK_NOTE) : NULL;
  if (typed && t->config.objective != IGPT_BERT)
    die("--mask is '%s', and belongs to BERT models: this one is AR", typed);
  if (typed) read_mask(t, typed, "--mask");
  else if (kept) read_mask(t, kept, path);
  if (t->mask == MASK_JIGSAW &&
      (t->config.rows % t->mask_side || t->config.columns % t->mask_side ||
       t->config.rows * t->config.columns / t->mask_side / t->mask_side < 2))
    die("the mask is jigsaw:%d, and %d does not divide pictures of %d x %d into two patches at "
        "least", t->mask_side, t->mask_side, t->config.columns, t->config.rows);
  if (t->mask == MASK_NONE && t->o.verb->bit & (ON_PRETRAIN | ON_EVAL)) {
    if (typed) die("--mask is 'none', and %s is about what is hidden", t->o.verb->name);
    t->mask = MASK_PIXEL;
  }
  free(kept);
}

/* The seed of a model's first training: the pictures that it held out stay so, whatever --seed
   says here. */
#define SEED_NOTE "igpt.tool.seed"

static file_note seed_note(const tool *t)
{
  static char typed[24];
  file_note note = { SEED_NOTE, t->held };
  snprintf(typed, sizeof typed, "%llu", (unsigned long long)seed_of(t));
  if (!t->held && t->o.verb->bit & ON_TRAINING) note.value = typed;
  return note;
}

/* What read_mask would read. */
static const char *mask_text(const tool *t)
{
  static char sided[20];
  if (t->mask == MASK_PIXEL || t->mask == MASK_NONE) return t->mask ? "none" : "pixel";
  snprintf(sided, sizeof sided, "%s:%d", t->mask == MASK_BLOCK ? "block" : "jigsaw", t->mask_side);
  return sided;
}

/* The note about the mask for a model's file: none for pixels, the usual ones. */
static file_note mask_note(const tool *t)
{
  file_note note = { MASK_NOTE, NULL };
  if (t->config.objective == IGPT_BERT && t->mask != MASK_PIXEL) note.value = mask_text(t);
  return note;
}

/* Hides part of a picture: its mask (T), and what is shown where the mask is 1. Returns what
   igpt_batch.shown must be for that: `shown`, or null. */
static const uint16_t *draw_mask(const tool *t, igpt_rng *rng, uint8_t *mask, uint16_t *shown,
                                 const uint16_t *tokens)
{
  const int rows = t->config.rows, columns = t->config.columns;
  switch (t->mask) {
    case MASK_PIXEL: igpt_mask_random(rng, mask, (size_t)rows * (size_t)columns, 0); break;
    case MASK_BLOCK: need(igpt_mask_blocks(rng, mask, rows, columns, t->mask_side, 0), NULL); break;
    case MASK_JIGSAW:
      need(igpt_mask_jigsaw(rng, mask, shown, tokens, rows, columns, t->mask_side, 0), NULL);
      return shown;
    case MASK_NONE: memset(mask, 0, (size_t)rows * (size_t)columns); break;
  }
  return NULL;
}

/* What only BERT models have a use for: AR models have no masks, and one vote. The options of a
   resumed run are its own. */
static void check_bert_options(const tool *t)
{
  if (t->config.objective == IGPT_BERT || given(&t->o, OPT_RESUME)) return;
  if (given(&t->o, OPT_ROUNDS))
    die("--rounds is %d, and belongs to BERT models: this one is AR", whole(&t->o, OPT_ROUNDS));
  if (given(&t->o, OPT_VOTES) && whole(&t->o, OPT_VOTES) > 1)
    die("--votes is %d, and belongs to BERT models: this one is AR", whole(&t->o, OPT_VOTES));
}

/* --model with its palette. */
static void open_model(tool *t)
{
  const char *path = text(&t->o, OPT_MODEL);
  if (!path) die("%s needs --model: see 'igpt %s --help'", t->o.verb->name, t->o.verb->name);
  load_model(t, path, 0);
  find_palette(t, path);
  if (given(&t->o, OPT_OBJECTIVE) && (int)t->config.objective != whole(&t->o, OPT_OBJECTIVE))
    die("%s: the objective is %s, and --objective is %s", path, objective_name(t->config.objective),
        text(&t->o, OPT_OBJECTIVE));
  check_bert_options(t);
  settle_mask(t, path);
  t->held = model_note(path, SEED_NOTE);
}

/* ---- the session ---------------------------------------------------------------------------- */

static igpt_session_desc session_desc(const tool *t, int batch, int train, int cache)
{
  igpt_session_desc d;
  memset(&d, 0, sizeof d);
  d.batch = batch;
  d.train = train;
  d.recompute = train && whole(&t->o, OPT_RECOMPUTE);
  d.no_cache = !cache;
  d.precision = (igpt_precision)whole(&t->o, OPT_PRECISION);
  d.isa = (igpt_isa)whole(&t->o, OPT_ISA);
  d.runner = t->runner;
  d.watch = t->watch;
  d.log = sentences;
  return d;
}

static void open_session(tool *t, int batch, int train, int cache)
{
  const igpt_session_desc d = session_desc(t, batch, train, cache);
  igpt_session_destroy(t->session);
  need(igpt_session_create(&t->session, t->model, &d), NULL);
}

/* Pictures at once: 8192 pixels keep some cores busy; less if a quarter of the memory asks so. */
static int choose_micro(const tool *t, size_t batch)
{
  const size_t T = tokens_of(t), most = T < 8192 ? 8192 / T : 1;
  int micro = (int)(batch < most ? batch : most);
  for (; micro > 1; micro--) {
    const igpt_session_desc d = session_desc(t, micro, 1, 0);
    size_t bytes;
    if (igpt_session_bytes(&bytes, &t->config, &d) == IGPT_OK &&
        (double)bytes <= physical_memory() / 4) break;
  }
  return micro;
}

/* ---- looking at pictures with a model ------------------------------------------------------- */

#define AT_ONCE 64                /* pictures a call, so that progress shows */

/* A BERT model looks at masked pictures in evaluation too. The mask of picture n is a function of
   the seed, n and the vote alone. AR models see all. */
static void hide_pixels(const tool *t, igpt_batch *batch, uint8_t *mask, uint16_t *shown,
                        size_t first, int vote)
{
  const size_t T = tokens_of(t);
  size_t i;
  for (i = 0; i < batch->count && t->config.objective == IGPT_BERT; i++) {
    igpt_rng rng = stream(t, STREAM_EVALUATION, (uint64_t)vote << 40 | (first + i));
    batch->mask = mask;
    batch->shown = draw_mask(t, &rng, mask + i * T, shown + i * T, batch->tokens + i * T) ? shown
                                                                                          : NULL;
  }
}

typedef igpt_result look_function(tool *t, void *user, const igpt_batch *batch, size_t first);

/* Calls `look` with batch after batch of the pictures, in order, of at most AT_ONCE. The session's
   watch may end it: -1. */
static int for_each_batch(tool *t, const pictures *p, size_t count, int vote, const char *doing,
                          look_function *look, void *user)
{
  const size_t T = tokens_of(t);
  uint8_t *mask = need_memory(AT_ONCE * T, 1);
  uint16_t *shown = need_memory(AT_ONCE * T, sizeof *shown);
  igpt_result result = IGPT_OK;
  size_t first;
  for (first = 0; first < count && !result; first += AT_ONCE) {
    igpt_batch batch;
    memset(&batch, 0, sizeof batch);
    batch.count = count - first < AT_ONCE ? count - first : AT_ONCE;
    batch.tokens = p->tokens + first * T;
    hide_pixels(t, &batch, mask, shown, first, vote);
    progress("%s %zu of %zu", doing, first, count);
    result = look(t, user, &batch, first);
  }
  free(shown);
  free(mask);
  if (result != IGPT_CANCELLED) need(result, text(&t->o, OPT_MODEL));
  *last_sentence = 0;
  return result ? -1 : 0;
}

static igpt_result look_nats(tool *t, void *user, const igpt_batch *batch, size_t first)
{
  double mean = 0;
  const igpt_result result = igpt_nll(t->session, NULL, &mean, batch);
  (void)first;
  *(double *)user += mean * (double)batch->count;
  return result;
}

/* Mean nats a pixel of the first `count` pictures. */
static double mean_nats(tool *t, const pictures *p, size_t count)
{
  double sum = 0;
  for_each_batch(t, p, count, 0, "evaluating picture", look_nats, &sum);
  return sum / (double)count;
}

/* The class with most votes; ties are broken at random, as in the paper. votes: (K). */
static int32_t majority(const tool *t, const int *votes, int classes, size_t picture)
{
  igpt_rng rng = stream(t, STREAM_TIES, picture);
  int k, best = 0, tied = 0;
  for (k = 0; k < classes; k++) {
    if (votes[k] < votes[best]) continue;
    if (votes[k] > votes[best]) tied = 0;
    if (tied == 0 || igpt_rng_below(&rng, (uint32_t)tied + 1) == 0) best = k;
    tied++;
  }
  return best;
}

typedef struct class_look {
  int   *votes;                   /* (N,K) */
  float *probability;             /* (N,K) summed over the votes */
  float *logits;                  /* (AT_ONCE,K) */
} class_look;

static igpt_result look_classes(tool *t, void *user, const igpt_batch *batch, size_t first)
{
  class_look *look = user;
  const size_t K = (size_t)t->config.classes;
  const igpt_result result = igpt_classify(t->session, look->logits, batch);
  size_t i, k;
  if (result) return result;
  for (i = 0; i < batch->count; i++) {
    const float *z = look->logits + i * K;
    float *probability = look->probability + (first + i) * K;
    size_t best = 0;
    double sum = 0;
    for (k = 1; k < K; k++) if (z[k] > z[best]) best = k;
    for (k = 0; k < K; k++) sum += exp((double)z[k] - (double)z[best]);
    for (k = 0; k < K; k++)
      probability[k] += (float)(exp((double)z[k] - (double)z[best]) / sum);
    look->votes[(first + i) * K + best]++;
  }
  return IGPT_OK;
}

/* How many masks a test picture gets: --votes, and 1 for AR models, which have no masks. */
static int votes_of(const tool *t)
{
  return t->config.objective == IGPT_BERT ? whole(&t->o, OPT_VOTES) : 1;
}

/* Classes of the first `count` pictures and their mean probability (may be null). */
static void classify_pictures(tool *t, const pictures *p, size_t count, int votes, int32_t *labels,
                              float *probability)
{
  const size_t K = (size_t)t->config.classes;
  class_look look;
  size_t i;
  int vote;
  look.votes = need_memory(count * K, sizeof *look.votes);
  look.probability = need_memory(count * K, sizeof *look.probability);
  look.logits = need_memory(AT_ONCE * K, sizeof *look.logits);
  for (vote = 0; vote < votes; vote++)
    for_each_batch(t, p, count, vote, "classifying picture", look_classes, &look);
  for (i = 0; i < count; i++) {
    labels[i] = majority(t, look.votes + i * K, t->config.classes, i);
    if (probability)
      probability[i] = look.probability[i * K + (size_t)labels[i]] / (float)votes;
  }
  free(look.logits);
  free(look.probability);
  free(look.votes);
}

static double part_equal(const int32_t *a, const int32_t *b, size_t count)
{
  size_t i, equal = 0;
  for (i = 0; i < count; i++) equal += a[i] == b[i];
  return count ? (double)equal / (double)count : 0;
}

static double accuracy(tool *t, const pictures *p, size_t count, int votes)
{
  int32_t *labels = need_memory(count, sizeof *labels);
  double part;
  classify_pictures(t, p, count, votes, labels, NULL);
  part = part_equal(labels, p->set.labels, count);
  free(labels);
  return part;
}

#endif
