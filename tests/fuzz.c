/* fuzz.c: the targets of tests/fuzz without libFuzzer: over the corpus, over every prefix of its
   files, every byte more, every byte of their headers set to 0x00, 0xff, one more and one less,
   every number in them replaced by those that overflow and by brackets in brackets, names by those
   of others, and over some thousands of random changes, the same in every run. What is promised is
   in the targets; here is what may be accepted.

   cc -std=c99 -O2 -I. -o build/tests/fuzz tests/fuzz.c -lm -pthread

     build/tests/fuzz                  all of it
     build/tests/fuzz TARGET           one target, naming each input before it is run
     build/tests/fuzz TARGET FILE...   these inputs alone
     build/tests/fuzz --seeds          makes the seeds of the corpus                              */

#define FUZZ_TOGETHER
#include "fuzz/model.c"
#include "fuzz/checkpoint.c"
#include "fuzz/npy.c"
#include "fuzz/dataset.c"           /* and ../examples/dataset.h */
#include "fuzz/exif.c"
#include "fuzz/folder.c"
#include "fuzz/kernels.c"
#include "fuzz/seeds.h"

#define CORPUS "tests/fuzz/corpus/"

enum {                            /* what a target's files are like */
  SEALED = 1,                     /* no prefix of a valid one is valid */
  CLOSED = 2,                     /* no byte can follow a valid one */
  BLANKS = 4,                     /* but white space can */
  SHAPES = 8                      /* no files, but choices: random changes alone */
};

typedef struct target {
  const char *name;
  void (*run)(const uint8_t *data, size_t size);
  int files;
  int changes;                    /* how many random ones */
} target;

static const target targets[] = {
  { "model", fuzz_model, SEALED | CLOSED, 4000 },
#ifndef IGPT_NO_TRAIN
  { "checkpoint", fuzz_checkpoint, SEALED | CLOSED, 3000 },
#endif
  { "npy", fuzz_npy, SEALED | CLOSED, 8000 },
  { "dataset", fuzz_dataset, SEALED | CLOSED, 3000 },
  { "exif", fuzz_exif, SEALED, 20000 },
  { "folder", fuzz_folder, SEALED | CLOSED | BLANKS, 3000 },
  { "kernels", fuzz_kernels, SHAPES, 1500 }
};
enum { TARGETS = sizeof targets / sizeof *targets };

/* ---- one input ------------------------------------------------------------------------------ */

static int naming;                /* 1: each input is named before it runs */
static long inputs;
static char source_name[300];     /* the file that is damaged */

/* Runs it; 1 if it was accepted. `what`, at `place`, has been done to the file. */
static int try_input(const target *t, const uint8_t *data, size_t size, const char *what,
                     size_t place)
{
  const int errors = test_errors;
  inputs++;
  if (naming) {
    printf("%s: %.60s, %lu\n", source_name, what, (unsigned long)place);
    fflush(stdout);
  }
  t->run(data, size);
  if (test_errors != errors) {
    char path[100];
    snprintf(path, sizeof path, FUZZ_FOLDER "/failed-%s", t->name);
    fuzz_make_folder("build");
    fuzz_make_folder(FUZZ_FOLDER);
    fuzz_put(path, data, size);
    printf("%s: %.60s, %lu: kept as %s\n", source_name, what, (unsigned long)place, path);
  }
  return fuzz_accepted;
}

/* ---- the corpus ----------------------------------------------------------------------------- */

typedef struct corpus {
  char name[64][80];
  uint8_t *data[64];
  size_t size[64];
  size_t count;
} corpus;

static int by_name(const void *a, const void *b)
{
  return strcmp((const char *)a, (const char *)b);
}

/* In the order of names, so that every run is the same. */
static void corpus_open(corpus *c, const target *t)
{
  char path[300];
  DIR *folder;
  struct dirent *entry;
  size_t i, n;
  memset(c, 0, sizeof *c);
  snprintf(path, sizeof path, CORPUS "%s", t->name);
  folder = opendir(path);
  CHECK(folder != NULL);
  while (folder && c->count < 64 && (entry = readdir(folder)) != NULL)
    if (entry->d_name[0] != '.')
      snprintf(c->name[c->count++], sizeof c->name[0], "%.79s", entry->d_name);
  if (folder) closedir(folder);
  qsort(c->name, c->count, sizeof c->name[0], by_name);
  for (i = 0; i < c->count; i++) {
    static uint8_t buffer[1 << 16];
    FILE *file;
    snprintf(path, sizeof path, CORPUS "%s/%s", t->name, c->name[i]);
    file = fopen(path, "rb");
    n = file ? fread(buffer, 1, sizeof buffer, file) : 0;
    if (file) fclose(file);
    CHECK(n > 0);
    c->data[i] = (uint8_t *)part_new(n);    /* not counted as the target's */
    c->size[i] = n;
    memcpy(c->data[i], buffer, n);
  }
}

static void corpus_close(corpus *c)
{
  while (c->count) part_free(c->data[--c->count]);
}

/* ---- damage --------------------------------------------------------------------------------- */

static uint8_t work[1 << 18];     /* the damaged file */

static size_t replace(const uint8_t *data, size_t size, size_t at, size_t gone, const char *put)
{
  const size_t n = strlen(put);
  memcpy(work, data, at);
  memcpy(work + at, put, n);
  memcpy(work + at + n, data + at + gone, size - at - gone);
  return size - gone + n;
}

static void put_number(uint8_t *to, size_t bytes, uint64_t value, int big_endian)
{
  size_t i;
  for (i = 0; i < bytes; i++)
    to[i] = (uint8_t)(value >> 8 * (big_endian ? bytes - 1 - i : i) & 255);
}

/* The length of a header that has grown by `more`, in the first bytes: safetensors or .npy. */
static void mend_length(const target *t, int more)
{
  const size_t at = t->run == fuzz_folder ? 1 : 0;
  if (work[at] == 0x93) {
    put_number(work + at + 8, 2, (uint64_t)(work[at + 8] + 256 * work[at + 9] + more), 0);
  } else if (t->run == fuzz_model || (at && work[0] >= FOLDER_MODEL)
#ifndef IGPT_NO_TRAIN
             || t->run == fuzz_checkpoint
#endif
             ) {
    put_number(work + at, 3, (uint64_t)(work[at] + 256 * work[at + 1] + 65536 * work[at + 2] +
                                        more), 0);
  }
}

/* Bytes of the part of a file that says what the rest is. */
static size_t header_of(const target *t, const uint8_t *data, size_t size)
{
  size_t header = size;
  if (t->run == fuzz_model
#ifndef IGPT_NO_TRAIN
      || t->run == fuzz_checkpoint
#endif
      )
    header = 8 + data[0] + 256 * (size_t)data[1];
  return header < size ? header : size;
}

/* Padded files, and lists of words, are good at any length. */
static int files_of(const target *t, const uint8_t *data)
{
  if (t->run == fuzz_dataset && (data[0] & DATASET_PAD || (data[0] & DATASET_KIND) == 5)) return 0;
  if (t->run == fuzz_folder && data[0] == FOLDER_NOTE) return 0;
  if (t->run == fuzz_folder && data[0] > FOLDER_CLUSTERS) return SEALED | CLOSED;
  return t->files;
}

static void damage_ends(const target *t, const uint8_t *data, size_t size)
{
  const int files = files_of(t, data);
  size_t n;
  int taken = 0, byte;
  for (n = 0; n < size; n++) taken += try_input(t, data, n, "prefix", n);
  if (files & SEALED) CHECK_INT(taken, 0);
  memcpy(work, data, size);
  for (taken = byte = 0; byte < 256; byte++) {
    work[size] = (uint8_t)byte;
    if (files & BLANKS && strchr(" \t\r\n", byte) && byte)
      CHECK(try_input(t, work, size + 1, "one more byte", (size_t)byte));
    else taken += try_input(t, work, size + 1, "one more byte", (size_t)byte);
  }
  if (files & CLOSED) CHECK_INT(taken, 0);
}

static void damage_header(const target *t, const uint8_t *data, size_t size)
{
  const size_t header = header_of(t, data, size);
  size_t i;
  memcpy(work, data, size);
  for (i = 0; i < header && i < 8000; i++) {
    work[i] = 0;
    try_input(t, work, size, "byte is 0x00", i);
    work[i] = 0xff;
    try_input(t, work, size, "byte is 0xff", i);
    work[i] = (uint8_t)(data[i] + 1);
    try_input(t, work, size, "byte is one more", i);
    work[i] = (uint8_t)(data[i] - 1);
    try_input(t, work, size, "byte is one less", i);
    work[i] = data[i];
  }
}

/* Ten thousand of them, one in the other */
enum { DEPTH = 10000 };
static char lists[DEPTH + 1], tuples[DEPTH + 1], objects[5 * DEPTH + 1];

static void deep(void)
{
  size_t i;
  memset(lists, '[', DEPTH);
  memset(tuples, '(', DEPTH);
  for (i = 0; i < DEPTH; i++) memcpy(objects + 5 * i, "{\"a\":", 5);
}

/* Numbers in text, and every two, four and eight bytes of the front as binary ones. */
static void damage_numbers(const target *t, const uint8_t *data, size_t size)
{
  static const char *const texts[] = {
    "0", "-1", "1", "255", "256", "65536", "2147483647", "2147483648", "4294967295", "4294967296",
    "4611686018427387904", "9223372036854775807", "9223372036854775808", "18446744073709551615",
    "18446744073709551616", "100000000000000000000000000000000000000000", "1e999", "0x7fffffff",
    "", "1.5", "nan", "\"7\"", lists, tuples, objects
  };
  static const uint64_t values[] = {
    0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000u, 0xffffffffu,
    0x100000000u, (uint64_t)1 << 62, INT64_MAX, (uint64_t)1 << 63, UINT64_MAX - 8, UINT64_MAX
  };
  const size_t header = header_of(t, data, size);
  size_t i, j, n, bytes;
  int order;
  for (i = 0; i < header; i = n + 1) {
    while (i < header && !(data[i] >= '0' && data[i] <= '9')) i++;
    for (n = i; n < header && data[n] >= '0' && data[n] <= '9';) n++;
    for (j = 0; n > i && j < sizeof texts / sizeof *texts; j++) {
      const size_t longer = replace(data, size, i, n - i, texts[j]);
      mend_length(t, (int)longer - (int)size);
      try_input(t, work, longer, texts[j], i);
    }
  }
  memcpy(work, data, size);
  for (i = 0; i < size && i < 60; i++)
    for (bytes = 2; bytes <= 8 && i + bytes <= size; bytes *= 2)
      for (order = 0; order < 2; order++) {
        for (j = 0; j < sizeof values / sizeof *values; j++) {
          put_number(work + i, bytes, values[j], order);
          try_input(t, work, size, "binary number", i);
        }
        memcpy(work, data, size);
      }
}

/* The next string in quotes from *at on, which moves behind it: 1 if there is one. */
static int quoted(const uint8_t *data, size_t header, size_t *at, size_t *begin, size_t *n)
{
  size_t i = *at;
  while (i < header && data[i] != '"' && data[i] != '\'') i++;
  *begin = ++i;
  while (i < header && data[i] != data[*begin - 1]) i++;
  *n = i - *begin;
  *at = i + 1;
  return i < header;
}

/* Names that stand twice: each string becomes each of the six before it. */
static void damage_names(const target *t, const uint8_t *data, size_t size)
{
  enum { KEPT = 6 };
  static char kept[KEPT][100];
  const size_t header = header_of(t, data, size);
  size_t at = 0, begin, n, i, count = 0;
  while (quoted(data, header, &at, &begin, &n)) {
    for (i = 0; i < KEPT && i < count; i++) {
      const size_t longer = replace(data, size, begin, n, kept[i]);
      mend_length(t, (int)longer - (int)size);
      try_input(t, work, longer, kept[i], begin);
    }
    snprintf(kept[count++ % KEPT], sizeof kept[0], "%.*s", (int)n, (const char *)data + begin);
  }
}

/* One to four changes of some kind: a bit, a byte, a piece left out, doubled, moved, or taken from
   another file. */
static size_t change(igpt_rng *rng, const corpus *c, size_t from)
{
  size_t size = c->size[from], times = 1 + igpt_rng_below(rng, 4);
  memcpy(work, c->data[from], size);
  while (times--) {
    const size_t other = igpt_rng_below(rng, (uint32_t)c->count);
    const size_t at = size ? igpt_rng_below(rng, (uint32_t)size) : 0;
    size_t n = 1 + igpt_rng_below(rng, igpt_rng_below(rng, 4) ? 8 : 64), place;
    switch (igpt_rng_below(rng, 7)) {
      case 0: if (size) work[at] ^= (uint8_t)(1 << igpt_rng_below(rng, 8)); break;
      case 1: if (size) work[at] = (uint8_t)igpt_rng_below(rng, 256); break;
      case 2: if (size) work[at] = (uint8_t)(work[at] + igpt_rng_below(rng, 9) - 4); break;
      case 3:
        if (n > size - at) n = size - at;
        memmove(work + at, work + at + n, size - at - n);
        size -= n;
        break;
      case 4:
        if (n > size - at) n = size - at;
        memmove(work + at + n, work + at, size - at);
        size += n;
        break;
      case 5:
        place = igpt_rng_below(rng, (uint32_t)c->size[other]);
        if (n > c->size[other] - place) n = c->size[other] - place;
        if (n > size - at) n = size - at;
        memcpy(work + at, c->data[other] + place, n);
        break;
      default:
        if (size && igpt_rng_below(rng, 8) == 0) size = at;
    }
  }
  return size;
}

/* ---- the tests ------------------------------------------------------------------------------ */

static const target *testing;

TEST(test_target)
{
  const target *t = testing;
  static corpus c;
  igpt_rng rng = igpt_rng_seed(1, (uint64_t)(t - targets));
  size_t i;
  int n, seeds = 0;
  corpus_open(&c, t);
  for (i = 0; i < c.count; i++) {
    const int found = strncmp(c.name[i], "found", 5) == 0, errors = test_errors;
    int taken;
    snprintf(source_name, sizeof source_name, CORPUS "%s/%s", t->name, c.name[i]);
    taken = try_input(t, c.data[i], c.size[i], "as it is", 0);
    if (found) continue;
    seeds++;
    CHECK(taken);
    if (!taken || test_errors != errors) printf("the seed %s is refused\n", source_name);
    if (t->files & SHAPES) continue;
    damage_ends(t, c.data[i], c.size[i]);
    damage_header(t, c.data[i], c.size[i]);
    damage_numbers(t, c.data[i], c.size[i]);
    damage_names(t, c.data[i], c.size[i]);
  }
  CHECK(seeds > 0);
  for (n = 0; n < t->changes / TEST_AMOUNT(1, 4) && c.count; n++) {
    const size_t from = igpt_rng_below(&rng, (uint32_t)c.count);
    snprintf(source_name, sizeof source_name, CORPUS "%s/%s", t->name, c.name[from]);
    try_input(t, work, change(&rng, &c, from), "random change", (size_t)n);
  }
  corpus_close(&c);
}

static void seed_path(char *path, size_t room, const char *target_name, const char *name)
{
  snprintf(path, room, CORPUS "%s/%s", target_name, name);
}

static void write_seed(const char *target_name, const char *name, const void *data, size_t size)
{
  char path[300];
  seed_path(path, sizeof path, target_name, "");
  path[strlen(path) - 1] = 0;
  fuzz_make_folder(path);
  seed_path(path, sizeof path, target_name, name);
  fuzz_put(path, data, size);
}

static void compare_seed(const char *target_name, const char *name, const void *data, size_t size)
{
  static uint8_t there[1 << 16];
  char path[300];
  size_t n;
  FILE *file;
  seed_path(path, sizeof path, target_name, name);
  file = fopen(path, "rb");
  n = file ? fread(there, 1, sizeof there, file) : 0;
  if (file) fclose(file);
  if (n != size || memcmp(there, data, n) != 0) {
    printf("%s is not what --seeds makes\n", path);
    test_errors++;
  }
}

TEST(seeds_are_what_the_program_makes) { seeds_make(compare_seed); }

int main(int argc, char **argv)
{
  int i, a;
  deep();
  if (argc == 2 && strcmp(argv[1], "--seeds") == 0) {
    fuzz_make_folder("tests/fuzz/corpus");
    seeds_make(write_seed);
    return 0;
  }
  if (argc == 1) RUN(seeds_are_what_the_program_makes);
  naming = argc == 2;
  for (i = 0; i < TARGETS; i++) {
    testing = &targets[i];
    if (argc > 1 && strcmp(argv[1], testing->name) != 0) continue;
    for (a = 2; a < argc; a++) {
      static uint8_t buffer[1 << 20];
      FILE *file = fopen(argv[a], "rb");
      const size_t n = file ? fread(buffer, 1, sizeof buffer, file) : 0;
      if (file) fclose(file);
      snprintf(source_name, sizeof source_name, "%s", argv[a]);
      try_input(testing, buffer, n, "as it is", 0);
      printf("%s: %s\n", argv[a], fuzz_accepted ? "accepted" : "refused");
    }
    if (argc > 2) return test_errors != 0;
    inputs = 0;
    test_run(testing->name, test_target);
    printf("        %ld inputs\n", inputs);
  }
  return test_done();
}
