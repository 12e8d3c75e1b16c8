/* dataset.c: dataset_load of examples/dataset.h on files of any bytes. The first three say what
   they are: byte 0 the kind and how it is loaded, bytes 1 and 2 the length of the second file
   (labels, names of classes), which comes next; the rest is the first file.

   A set that is loaded is whole: pictures or tokens, labels below classes, every class named.    */

#include "fuzz.h"
#include "../../examples/dataset.h"

enum {                            /* of byte 0 */
  DATASET_KIND = 7,
  DATASET_SIDE = 24,              /* 0: the own one; else 8, 16 or 24 rows and columns */
  DATASET_CROP = 32,              /* keeps larger pictures, and draws crops of them */
  DATASET_ENLARGE = 64,
  DATASET_PAD = 128               /* zeros up to a whole record: large files from small inputs */
};

/* What the kinds are on disk; a second file that is empty is not there. */
static const struct { const char *load, *first, *second; size_t record; } dataset_kinds[] = {
  { "c10/x_batch.bin", "c10/x_batch.bin", "c10/batches.meta.txt", 3073 },
  { "c100/train.bin", "c100/train.bin", "c100/fine_label_names.txt", 3074 },
  { "stl", "stl/train_X.bin", "stl/train_y.bin", 27648 },
  { "idx/a-images-idx3-ubyte", "idx/a-images-idx3-ubyte", "idx/a-labels-idx1-ubyte", 0 },
  { "npy/a.npy", "npy/a.npy", "npy/a.labels.npy", 0 },
  { "words", "words/words.txt", NULL, 0 }
};

static const char *dataset_path(const char *name)
{
  static char path[4][200];
  static int turn;
  turn = (turn + 1) % 4;
  snprintf(path[turn], sizeof path[turn], FUZZ_FOLDER "/%s", name);
  return path[turn];
}

/* The folders, and what stands beside the files that change. */
static void dataset_begin(void)
{
  static const char *const folders[] = { "c10", "c100", "stl", "idx", "npy", "words", "words/n01",
                                         "words/n02" };
  static const uint8_t label = 1, rgb[12] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
  static uint8_t zeros[27648];
  static int begun;
  char error[IMAGE_ERROR];
  size_t i;
  if (begun++) return;
  fuzz_make_folder("build");
  fuzz_make_folder(FUZZ_FOLDER);
  for (i = 0; i < sizeof folders / sizeof *folders; i++) fuzz_make_folder(dataset_path(folders[i]));
  fuzz_put(dataset_path("stl/test_X.bin"), zeros, sizeof zeros);
  fuzz_put(dataset_path("stl/test_y.bin"), &label, 1);
  CHECK_INT(image_save_png(dataset_path("words/n01/a.png"), rgb, 2, 2, error, sizeof error), 0);
  CHECK_INT(image_save_png(dataset_path("words/n02/a.png"), rgb, 2, 2, error, sizeof error), 0);
}

static void dataset_is_whole(const dataset *set, const dataset_desc *desc)
{
  const size_t place = (size_t)set->rows * (size_t)set->columns;
  size_t i, sum = 0;
  CHECK(set->count > 0 && set->count <= set->available && set->title[0] != 0);
  CHECK(set->rows >= 1 && set->rows <= 4096 && set->columns >= 1 && set->columns <= 4096);
  CHECK((set->pictures == NULL) == (set->tokens != NULL));
  CHECK((set->labels != NULL) == (set->classes > 0));
  for (i = 0; set->pictures && i < set->count * place * 3; i++) sum += set->pictures[i];
  for (i = 0; set->tokens && i < set->count * place; i++)
    if (set->tokens[i] >= set->vocabulary) break;
  if (set->tokens) CHECK_INT(i, set->count * place);
  for (i = 0; set->labels && i < set->count; i++)
    if (set->labels[i] < 0 || set->labels[i] >= set->classes) break;
  if (set->labels) CHECK_INT(i, set->count);
  for (i = 0; i < (size_t)set->classes; i++) sum += strlen(set->names[i]);
  CHECK(sum < SIZE_MAX);
  if (desc->augment && set->pictures) {
    igpt_rng rng = igpt_rng_seed(1, 0);
    uint8_t *to = (uint8_t *)malloc(place * 3);
    CHECK_INT(dataset_picture(set, to, set->count - 1, desc->augment, &rng), 0);
    CHECK_INT(dataset_picture(set, to, 0, DATASET_PAD_CROP_MIRROR, &rng), 0);
    CHECK_INT(dataset_picture(set, to, set->count, desc->augment, &rng), -1);
    free(to);
  }
}

static void fuzz_dataset(const uint8_t *data, size_t size)
{
  const size_t kind = size ? (data[0] & DATASET_KIND) % (sizeof dataset_kinds /
                                                         sizeof *dataset_kinds) : 0;
  size_t second, record = dataset_kinds[kind].record, first;
  paper file = { 0 };
  dataset_desc desc;
  dataset set;
  char error[IMAGE_ERROR] = "";
  int result;
  fuzz_accepted = 0;
  dataset_begin();
  if (size < 3) return;
  second = (size_t)data[1] | (size_t)data[2] << 8;
  if (second > size - 3) second = size - 3;
  first = size - 3 - second;
  memset(&desc, 0, sizeof desc);
  paper_write(&file, data + 3 + second, first);
  while (record && data[0] & DATASET_PAD && file.size % record) paper_write(&file, "", 1);
  fuzz_put(dataset_path(dataset_kinds[kind].first), file.data, file.size);
  first = file.size;
  free(file.data);
  if (dataset_kinds[kind].second && second)
    fuzz_put(dataset_path(dataset_kinds[kind].second), data + 3, second);
  else if (dataset_kinds[kind].second)
    unlink(dataset_path(dataset_kinds[kind].second));
  desc.path = dataset_path(dataset_kinds[kind].load);
  desc.split = DATASET_ALL;
  desc.rows = data[0] & DATASET_SIDE;
  desc.enlarge = kind == 5 || data[0] & DATASET_ENLARGE;
  desc.augment = data[0] & DATASET_CROP ? DATASET_RESIZE_CROP : DATASET_PLAIN;
  fuzz_start();
  result = dataset_load(&set, &desc, error, sizeof error);
  /* 24 x 24 bytes of RGB and as many larger ones where a byte was; 65536 names of classes */
  fuzz_bound(first + second, 6000, 6000000);
  fuzz_accepted = result == 0;
  if (result == 0) {
    dataset_is_whole(&set, &desc);
    dataset_free(&set);
  } else {
    CHECK_INT(result, -1);
    CHECK(strstr(error, ": ") != NULL && strncmp(error, FUZZ_FOLDER, strlen(FUZZ_FOLDER)) == 0);
    CHECK(!set.pictures && !set.tokens && !set.labels && !set.names && set.count == 0);
  }
  fuzz_end(0);
}

FUZZ_TARGET(fuzz_dataset)
