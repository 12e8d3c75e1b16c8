/* dataset.h: sets of pictures from the files that people have, for the programs in this folder.

   dataset_load looks at a path, finds out what it is, and gives one split of it as bytes:

     a folder with data_batch_*.bin, test_batch*.bin    CIFAR-10, binary version
     a folder with train*.bin, test*.bin                CIFAR-100, binary version; fine labels
     a folder with train_X.bin, train_y.bin, test_X...  STL-10, binary version
     a folder with *images*idx3*                        MNIST and its kin; grey becomes RGB
     a folder with *_trX.npy, *_vaX.npy, *_teX.npy      the arrays of openai/image-gpt
     a folder with train/, and val/ or test/            folders as below, one for each part
     a folder with a folder per class                   classes are the folders, sorted by name
     a folder with pictures                             no labels
     one file of any of these (.bin, idx, .npy)         that file alone
     one picture                                        every split is that picture
     "shapes:" or "shapes:N"                            N (5000) pictures that the program draws
                                                        itself: ten classes of simple shapes

   A folder of CIFAR or STL-10 holds both parts, and one with data_batch_1.bin, ... all five of
   them: a missing file is an error. Parts that are named as such are fine:
   data_batch_1.first4000.bin counts as a data batch, and then the others may be missing. One file
   may be given by itself. A class folder may keep its pictures in a folder `images` of its own
   (Tiny ImageNet). Names of classes come from
   batches.meta.txt, fine_label_names.txt, class_names.txt or words.txt where there is one.

   .npy: bytes (uint8) of shape [N,H,W,3], [N,3,H,W], [N,H,W,1] or [N,H,W] are pictures; any integer
   type of shape [N,T] is tokens. Labels of X.npy are in X.labels.npy beside it, those of ..X.npy
   also in ..Y.npy: [N] integers, or [N,K] one-hot numbers of any type.

   Splits. The official test part is the test split. Of the training part a tenth is held out as the
   validation split: drawn with `seed`, the same share of every class to within one picture. Where a
   set has no test part, a tenth of the whole is drawn first, in the same way, as the test split. A
   folder with train/, val/ and a labelled test/ is taken at its word, as are _tr, _va and _te; with
   train/ and val/ only, val/ is the test split, as ImageNet's is in the paper. A single file whose
   name starts with "test" or "t10k" is test split as a whole. DATASET_LOOK is for looking at
   pictures: such a part where there is one, and else every picture; then nothing is drawn, and a
   folder may hold a single picture. Drawn shapes are split as any set without parts: for
   DATASET_LOOK all of them. Which split a picture is in depends
   on the list of pictures, on `hold_out` and on `seed`, and on nothing else.

   Order. As stored; but folders per class take turns (the first picture of every class, then the
   second of every class, ...), so that the first pictures of any set are a mixture.

   Sizes. A larger picture is reduced: the largest centred window of the wanted shape, averaged over
   areas. A smaller one is not enlarged unless `enlarge` is set: a folder skips it and counts it,
   other sets refuse. MNIST's kin are the exception: smaller digits are placed on a black ground.

   Needs POSIX: see image.h. Include igpt.h first (for igpt_rng, igpt_runner, igpt_watch, .npy).  */

#ifndef DATASET_H
#define DATASET_H

#ifndef IGPT_H
#error "include igpt.h before dataset.h"
#endif

#include "image.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>

typedef enum dataset_kind {
  DATASET_CIFAR10 = 1, DATASET_CIFAR100, DATASET_STL10, DATASET_IDX, DATASET_FOLDER, DATASET_NPY,
  DATASET_SHAPES
} dataset_kind;

typedef enum dataset_split {
  DATASET_TRAIN = 0,              /* the training part without what is held out */
  DATASET_VALIDATION,             /* what is held out */
  DATASET_TEST,
  DATASET_TRAIN_ALL,              /* train and validation: the paper's last fit uses both */
  DATASET_ALL,                    /* every picture there is */
  DATASET_LOOK                    /* the test part that the set has of its own; without one, all */
} dataset_split;

typedef enum dataset_augment {
  DATASET_PLAIN = 0,              /* the picture itself; draws nothing */
  DATASET_PAD_CROP_MIRROR,        /* CIFAR: reflect 4 pixels (of 32) outward on every side; a random
                                     crop of the padded picture or of its mirror image */
  DATASET_RESIZE_CROP             /* ImageNet: the shorter side to a random length in [256, 384] /
                                     224 of the side, then a random crop; no mirror */
} dataset_augment;

typedef struct dataset_desc {
  const char     *path;
  dataset_split   split;
  int             rows, columns;  /* of the pictures given. rows 0: the own size of CIFAR, idx and
                                     .npy, else 32. columns 0: as many as rows */
  size_t          limit;          /* at most this many of the split, the first ones; 0: all */
  uint64_t        seed;           /* of the splits */
  double          hold_out;       /* part of the training part; 0: 0.1; at most 0.5 */
  int             enlarge;        /* 1: pictures smaller than asked for are enlarged */
  dataset_augment augment;        /* DATASET_RESIZE_CROP keeps larger pictures for it as well (4 or
                                     more times the memory); the others need nothing and stay
                                     possible */
  igpt_runner     runner;         /* decodes a folder's pictures; zero: the caller's thread */
  igpt_watch      watch;          /* progress of long loads; anything but 0 stops them */
  void          (*warn)(void *user, const char *sentence);   /* a picture was skipped, and why */
  void           *warn_user;
} dataset_desc;

typedef struct dataset {
  dataset_kind  kind;
  dataset_split split;
  size_t    count;                /* N, pictures given; never 0 */
  size_t    available;            /* pictures of the split before `limit` */
  int       rows, columns;
  uint8_t  *pictures;             /* (N, rows, columns, 3); null for tokens */
  uint16_t *tokens;               /* (N, rows * columns); null for pictures */
  int       vocabulary;           /* largest token given + 1; 0 for pictures */
  int32_t  *labels;               /* (N), 0..classes-1; null where the set has none */
  int       classes;              /* 0 where the set has no labels */
  char    **names;                /* (classes), never null where classes > 0: "7" if not known */
  char    **paths;                /* (N) files of a folder's pictures; else null */
  size_t    broken, small;        /* skipped: cannot be decoded; smaller than asked for */
  char      title[160];           /* "CIFAR-10, train: 45000 pictures of 32x32, 10 classes" */
  /* private: the larger pictures kept for DATASET_RESIZE_CROP; null: `pictures` serve */
  uint8_t  *large;
  size_t   *large_at;             /* (N) */
  int      *large_size;           /* (N, 2): rows, columns */
} dataset;

/* Loads one split. On failure *out is zeroed and error[capacity] (IMAGE_ERROR is enough) holds one
   sentence. A split without pictures and a folder with no readable picture are failures. */
IMAGE_API int dataset_load(dataset *out, const dataset_desc *desc, char *error, size_t capacity);

IMAGE_API void dataset_free(dataset *data);                  /* zeroes it; null is fine */

/* "train", "validation", "test", "train and validation", "all" */
IMAGE_API const char *dataset_split_name(dataset_split split);

/* Picture `index` into to (rows, columns, 3), augmented with numbers drawn from `rng` only (null
   for DATASET_PLAIN, which copies). -1: out of memory, or the set holds tokens, or index >=
   count. */
IMAGE_API int dataset_picture(const dataset *data, uint8_t *to, size_t index,
                              dataset_augment augment, igpt_rng *rng);

/* The CIFAR recipe on any picture; to and from are (rows, columns, 3) and do not overlap. It pads
   by an eighth of the size, rounded (4 of 32). */
IMAGE_API void dataset_pad_crop_mirror(uint8_t *to, const uint8_t *from, int rows, int columns,
                                       igpt_rng *rng);

/* Its fixed part: the crop whose corner is at (row, column) of the picture padded by reflection
   (the edge pixel is not repeated), 0 <= row <= 2 * pad_rows; mirror 1: of the padded picture's
   mirror image. A pad is less than the size it pads. */
IMAGE_API void dataset_crop(uint8_t *to, const uint8_t *from, int rows, int columns, int pad_rows,
                            int pad_columns, int row, int column, int mirror);

/* ---- downloading CIFAR-10 ------------------------------------------------------------------- */

#define DATASET_CIFAR10_URL "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
#define DATASET_CIFAR10_MD5 "c32a1d4ab5d03f1284b67883e8d87530"      /* as published on its page */

typedef struct dataset_fetch_desc {
  const char *folder;             /* holds or will hold cifar-10-batches-bin; made if missing */
  const char *url;                /* http or https; null: DATASET_CIFAR10_URL */
  const char *md5;                /* of the archive; null: DATASET_CIFAR10_MD5 */
  int         offline;            /* 1: never download */
  void      (*note)(void *user, const char *sentence);      /* "downloading ..."; may be null */
  void       *note_user;
} dataset_fetch_desc;

/* Gives in path[path_capacity] a folder with the six batch files: `folder` itself or the
   cifar-10-batches-bin in it, if whole; else unpacked from cifar-10-binary.tar.gz in `folder`;
   else downloaded first, by `curl` or `wget`, run without a shell. The archive is used only if
   its MD5 is right, and cifar-10-batches-bin appears only when all of it is there. Unpacking runs
   `tar`. What a killed process left of either is removed by the next one. */
IMAGE_API int dataset_fetch_cifar10(char *path, size_t path_capacity,
                                    const dataset_fetch_desc *desc, char *error, size_t capacity);

/* MD5 (RFC 1321) of a file as 32 hexadecimal digits. It finds broken downloads; it is no
   signature. */
IMAGE_API int dataset_md5(char digits[33], const char *path, char *error, size_t capacity);

/* ---- pictures that the program draws -------------------------------------------------------- */

#define DATASET_SHAPE_CLASSES 10

/* Draws picture `index` of the "shapes:" set into to (rows, columns, 3) and returns its class,
   index % 10. A pure function of its arguments. */
IMAGE_API int dataset_draw_shape(uint8_t *to, int rows, int columns, uint64_t index);
IMAGE_API const char *dataset_shape_name(int label);         /* "disc", ... */

/* ---- the set behind a path ------------------------------------------------------------------ */

/* First the path becomes a list of items (where a picture is, its label, the part it belongs to),
   then the list is split, and only what was asked for is read. */

enum { DATASET__PART_TRAIN, DATASET__PART_VALIDATION, DATASET__PART_TEST, DATASET__PART_ANY };

enum {                            /* layouts of a record's pixels */
  DATASET__PLANES,                /* (3, rows, columns) */
  DATASET__PLANES_BY_COLUMN,      /* (3, columns, rows) */
  DATASET__PIXELS,                /* (rows, columns, 3) */
  DATASET__GREY                   /* (rows, columns) */
};

typedef struct dataset__item {
  char    *path;                  /* a picture file, or null: a record of ... */
  uint64_t record;                /* ... number `record` in ... */
  int32_t  file;                  /* ... this file; or the number of a shape */
  int32_t  label;                 /* -1: none */
  int      part;
} dataset__item;

typedef struct dataset__file {
  char    *path;
  uint64_t offset;                /* of record 0's pixels */
  uint64_t stride;                /* bytes from record to record */
  size_t   bytes;                 /* of the pixels of a record */
  int      layout;
} dataset__file;

typedef struct dataset__set {
  const dataset_desc *desc;
  char          *error;
  size_t         capacity;
  dataset_kind   kind;
  const char    *title;
  int            rows, columns;   /* of all records; 0: pictures of any size */
  int            tokens;          /* 1: .npy of tokens, rows * columns of them (0: not known) */
  size_t         token_count;     /* T */
  int            whole;           /* 1: every split is everything (one picture) */
  dataset__item *items;
  size_t         count, room;
  dataset__file *files;
  int            file_count;
  int            classes;
  char         **names;
} dataset__set;

static char *dataset__copy(const char *text, size_t length)
{
  char *copy = (char *)malloc(length + 1);
  if (copy) {
    memcpy(copy, text, length);
    copy[length] = 0;
  }
  return copy;
}

/* folder/name, from malloc */
static char *dataset__join(const char *folder, const char *name)
{
  size_t a = strlen(folder), b = strlen(name);
  char *path = (char *)malloc(a + b + 2);
  if (!path) return NULL;
  while (a > 1 && folder[a - 1] == '/') a--;
  memcpy(path, folder, a);
  path[a] = '/';
  memcpy(path + a + 1, name, b + 1);
  return path;
}

static const char *dataset__base(const char *path)
{
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static int dataset__starts(const char *text, const char *start)
{
  return strncmp(text, start, strlen(start)) == 0;
}

static int dataset__no_memory(dataset__set *set)
{
  return image_fail(set->error, set->capacity, "%s: no memory for the list of its pictures",
                    set->desc->path);
}

static void dataset__warn(const dataset_desc *desc, const char *sentence)
{
  if (desc->warn) desc->warn(desc->warn_user, sentence);
}

static void dataset__free_names(char **names, int count)
{
  int i;
  if (names)
    for (i = 0; i < count; i++) free(names[i]);
  free(names);
}

static void dataset__close(dataset__set *set)
{
  size_t i;
  int f;
  for (i = 0; i < set->count; i++) free(set->items[i].path);
  free(set->items);
  for (f = 0; f < set->file_count; f++) free(set->files[f].path);
  free(set->files);
  dataset__free_names(set->names, set->classes);
}

/* Takes ownership of path, also when it fails. */
static int dataset__add(dataset__set *set, char *path, int file, uint64_t record, int label,
                        int part)
{
  dataset__item *item;
  if (set->count == set->room) {
    size_t room = set->room ? set->room * 2 : 1024;
    dataset__item *grown =
      room < SIZE_MAX / sizeof *grown && room < UINT32_MAX
        ? (dataset__item *)realloc(set->items, room * sizeof *grown) : NULL;
    if (!grown) {
      free(path);
      return dataset__no_memory(set);
    }
    set->items = grown;
    set->room = room;
  }
  item = &set->items[set->count++];
  item->path = path;
  item->record = record;
  item->file = file;
  item->label = label;
  item->part = part;
  return 0;
}

/* Copies path. Returns the file's number, or -1. */
static int dataset__add_file(dataset__set *set, const char *path, uint64_t offset, uint64_t stride,
                             size_t bytes, int layout)
{
  dataset__file *grown = (dataset__file *)realloc(
    set->files, ((size_t)set->file_count + 1) * sizeof *grown);
  dataset__file *file;
  if (!grown) return dataset__no_memory(set);
  set->files = grown;
  file = &grown[set->file_count];
  file->path = dataset__copy(path, strlen(path));
  if (!file->path) return dataset__no_memory(set);
  file->offset = offset;
  file->stride = stride;
  file->bytes = bytes;
  file->layout = layout;
  return set->file_count++;
}

/* Names of the classes: "0", "1", ... where names is null. Takes over `names`. */
static int dataset__set_classes(dataset__set *set, int classes, char **names)
{
  int i;
  if (!names) {
    names = (char **)calloc(classes ? (size_t)classes : 1, sizeof *names);
    if (!names) return dataset__no_memory(set);
    for (i = 0; i < classes; i++) {
      char digits[16];
      snprintf(digits, sizeof digits, "%d", i);
      names[i] = dataset__copy(digits, strlen(digits));
      if (!names[i]) {
        dataset__free_names(names, i);
        return dataset__no_memory(set);
      }
    }
  }
  set->names = names;
  set->classes = classes;
  return 0;
}

/* The classes of the sets that have ten, for folders without a file of names. */
static const char *const dataset__cifar10_names[10] = {
  "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};
static const char *const dataset__stl10_names[10] = {
  "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"};

static char **dataset__copy_names(const char *const *known, int classes)
{
  char **names = known ? (char **)calloc((size_t)classes, sizeof *names) : NULL;
  int i;
  for (i = 0; names && i < classes; i++) {
    names[i] = dataset__copy(known[i], strlen(known[i]));
    if (!names[i]) {
      dataset__free_names(names, i);
      return NULL;
    }
  }
  return names;
}

/* Class names, a line each, if folder/file has at least `classes` of them; else the known ones,
   which may be null: then numbers. */
static int dataset__read_classes(dataset__set *set, const char *folder, const char *file,
                                 int classes, const char *const *known)
{
  char *path = dataset__join(folder, file), ignored[IMAGE_ERROR];
  uint8_t *text = NULL;
  size_t size = 0, at = 0;
  char **names = NULL;
  int n = 0;
  if (path && image_read_file(&text, &size, path, 1 << 20, ignored, sizeof ignored) == 0) {
    names = (char **)calloc((size_t)classes, sizeof *names);
    while (names && at < size && n < classes) {
      size_t start = at, end;
      while (at < size && text[at] != '\n') at++;
      end = at++;
      while (end > start && text[end - 1] <= ' ') end--;
      if (end == start) continue;
      names[n] = dataset__copy((const char *)text + start, end - start);
      if (!names[n]) break;
      n++;
    }
    if (names && n < classes) {
      dataset__free_names(names, n);
      names = NULL;
    }
  }
  free(text);
  free(path);
  return dataset__set_classes(set, classes, names ? names : dataset__copy_names(known, classes));
}

/* ---- lists of names ------------------------------------------------------------------------- */

typedef struct dataset__names {
  char **name;
  size_t count, room;
} dataset__names;

static void dataset__names_free(dataset__names *list)
{
  size_t i;
  for (i = 0; i < list->count; i++) free(list->name[i]);
  free(list->name);
  memset(list, 0, sizeof *list);
}

static int dataset__compare(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All entries of a folder but the hidden ones, sorted by byte value. */
static int dataset__list(dataset__set *set, dataset__names *list, const char *folder)
{
  DIR *handle = opendir(folder);
  struct dirent *entry;
  int why;
  memset(list, 0, sizeof *list);
  if (!handle)
    return image_fail(set->error, set->capacity, "%s: %s", folder, strerror(errno));
  while (errno = 0, (entry = readdir(handle)) != NULL) {
    if (entry->d_name[0] == '.') continue;
    if (list->count == list->room) {
      size_t room = list->room ? list->room * 2 : 64;
      char **grown = (char **)realloc(list->name, room * sizeof *grown);
      if (!grown) break;
      list->name = grown;
      list->room = room;
    }
    list->name[list->count] = dataset__copy(entry->d_name, strlen(entry->d_name));
    if (!list->name[list->count]) break;
    list->count++;
  }
  why = errno;
  closedir(handle);
  if (entry || why) {
    dataset__names_free(list);
    return entry ? dataset__no_memory(set)
                 : image_fail(set->error, set->capacity, "%s: %s", folder, strerror(why));
  }
  if (list->count) qsort(list->name, list->count, sizeof *list->name, dataset__compare);
  return 0;
}

static int dataset__is_folder(const char *folder, const char *name)
{
  char *path = dataset__join(folder, name);
  struct stat status;
  int yes = path && stat(path, &status) == 0 && S_ISDIR(status.st_mode);
  free(path);
  return yes;
}

static int dataset__is_file(const char *folder, const char *name)
{
  char *path = dataset__join(folder, name);
  struct stat status;
  int yes = path && stat(path, &status) == 0 && S_ISREG(status.st_mode);
  free(path);
  return yes;
}

/* ---- files of records: CIFAR, STL-10, idx --------------------------------------------------- */

/* Size of a file; -1 with a sentence. */
static int64_t dataset__size(dataset__set *set, const char *path)
{
  struct stat status;
  if (stat(path, &status) != 0)
    return image_fail(set->error, set->capacity, "%s: %s", path, strerror(errno));
  if (!S_ISREG(status.st_mode))
    return image_fail(set->error, set->capacity, "%s: not a file", path);
  return (int64_t)status.st_size;
}

/* Number of whole records in a file that must hold nothing else; -1 with a sentence. */
static int64_t dataset__records(dataset__set *set, const char *path, int64_t record,
                                const char *what)
{
  int64_t size = dataset__size(set, path);
  if (size < 0) return -1;
  if (size == 0 || size % record != 0)
    return image_fail(set->error, set->capacity,
                      "%s: the file has %jd bytes, and %s comes in records of %jd (%jd bytes are "
                      "%s)", path, (intmax_t)size, what, (intmax_t)record,
                      (intmax_t)(size ? size % record : record), size ? "left over" : "missing");
  return size / record;
}

/* CIFAR: records of one or two label bytes and three planes of 32x32. The last label byte is
   read. */
static int dataset__add_cifar(dataset__set *set, const char *path, int labels, int part)
{
  size_t record = 3072 + (size_t)labels;
  const char *what = labels == 1 ? "CIFAR-10" : "CIFAR-100";
  int classes = labels == 1 ? 10 : 100, f;
  int64_t count = dataset__records(set, path, (int64_t)record, what), i;
  uint8_t bytes[3074];
  FILE *file;
  if (count < 0) return -1;
  f = dataset__add_file(set, path, (uint64_t)labels, record, 3072, DATASET__PLANES);
  if (f < 0) return -1;
  file = fopen(path, "rb");
  if (!file) return image_fail(set->error, set->capacity, "%s: %s", path, strerror(errno));
  for (i = 0; i < count; i++) {
    int label, result = 0;
    if (fread(bytes, 1, record, file) != record)
      result = image_fail(set->error, set->capacity, "%s: reading stopped at record %jd of %jd",
                          path, (intmax_t)i, (intmax_t)count);
    label = bytes[labels - 1];
    if (!result && label >= classes)
      result = image_fail(set->error, set->capacity,
                          "%s: record %jd has the label %d, and %s has %d classes", path,
                          (intmax_t)i, label, what, classes);
    if (result || dataset__add(set, NULL, f, (uint64_t)i, label, part) != 0) {
      fclose(file);
      return -1;
    }
  }
  fclose(file);
  return 0;
}

/* STL-10: pictures of three 96x96 planes, column after column; labels 1..10 in a file of their own.
   labels null: none (the unlabeled part). */
static int dataset__add_stl(dataset__set *set, const char *path, const char *labels, int part)
{
  int64_t count = dataset__records(set, path, 27648, "STL-10"), i;
  uint8_t *label = NULL;
  size_t label_count = 0;
  int f, result = 0;
  if (count < 0) return -1;
  f = dataset__add_file(set, path, 0, 27648, 27648, DATASET__PLANES_BY_COLUMN);
  if (f < 0) return -1;
  if (labels) {
    if (image_read_file(&label, &label_count, labels, 1 << 24, set->error, set->capacity) != 0)
      return -1;
    if (label_count != (size_t)count)
      result = image_fail(set->error, set->capacity, "%s: %zu labels, and %s has %jd pictures",
                          labels, label_count, dataset__base(path), (intmax_t)count);
  }
  for (i = 0; i < count && !result; i++) {
    if (label && (label[i] < 1 || label[i] > 10))
      result = image_fail(set->error, set->capacity,
                          "%s: label %jd is %d, and STL-10 has classes 1 to 10", labels,
                          (intmax_t)i, label[i]);
    else
      result = dataset__add(set, NULL, f, (uint64_t)i, label ? label[i] - 1 : -1, part);
  }
  free(label);
  return result;
}

/* The labels' file of an idx images' file: "images" becomes "labels", "idx3" becomes "idx1". Null
   if the name has no such words or there is no memory. */
static char *dataset__idx_labels(const char *path)
{
  char *name = dataset__copy(path, strlen(path));
  char *base = name ? name + (dataset__base(path) - path) : NULL;
  char *images = base ? strstr(base, "images") : NULL, *idx = base ? strstr(base, "idx3") : NULL;
  if (!images || !idx) {
    free(name);
    return NULL;
  }
  memcpy(images, "labels", 6);
  idx[3] = '1';
  return name;
}

/* idx: magic 00 00 08 rank, then rank big-endian sizes, then bytes. */
static int dataset__add_idx(dataset__set *set, const char *path, int part)
{
  uint8_t head[16];
  char *labels = dataset__idx_labels(path);
  int64_t size = dataset__size(set, path), need;
  uint32_t count = 0, rows = 0, columns = 0, i;
  uint8_t *label = NULL;
  size_t label_count = 0, got;
  FILE *file;
  int result = 0, f = -1;
  struct stat status;
  if (size < 0) {
    free(labels);
    return -1;
  }
  file = fopen(path, "rb");
  got = file ? fread(head, 1, 16, file) : 0;
  if (!file || ferror(file)) {
    result = image_fail(set->error, set->capacity, "%s: %s", path, strerror(errno));
  } else if (got != 16 || memcmp(head, "\0\0\10\3", 4) != 0) {
    result = image_fail(set->error, set->capacity,
                        "%s: not an idx file of pictures (%jd bytes; it must start 00 00 08 03)",
                        path, (intmax_t)size);
  } else {
    count = image__number(head + 4, 4, 1);
    rows = image__number(head + 8, 4, 1);
    columns = image__number(head + 12, 4, 1);
  }
  if (file) fclose(file);
  if (!result && (rows < 1 || rows > 4096 || columns < 1 || columns > 4096))
    result = image_fail(set->error, set->capacity,
                        "%s: pictures of %u x %u, and sides of 1 to 4096 are read", path,
                        (unsigned)columns, (unsigned)rows);
  need = result ? 0 : 16 + (int64_t)count * (int64_t)rows * (int64_t)columns;    /* below 2^57 */
  if (!result && size != need)
    result = image_fail(set->error, set->capacity,
                        "%s: the file has %jd bytes, and %u pictures of %u x %u need %jd", path,
                        (intmax_t)size, (unsigned)count, (unsigned)columns, (unsigned)rows,
                        (intmax_t)need);
  if (!result && set->rows && (set->rows != (int)rows || set->columns != (int)columns))
    result = image_fail(set->error, set->capacity,
                        "%s: pictures of %u x %u, and the other file has %d x %d", path,
                        (unsigned)columns, (unsigned)rows, set->columns, set->rows);
  if (!result && labels && stat(labels, &status) == 0) {
    result = image_read_file(&label, &label_count, labels, INT_MAX, set->error, set->capacity);
    if (!result && (label_count < 8 || memcmp(label, "\0\0\10\1", 4) != 0 ||
                    label_count - 8 != image__number(label + 4, 4, 1)))
      result = image_fail(set->error, set->capacity, "%s: not an idx file of labels (%zu bytes)",
                          labels, label_count);
    if (!result && label_count - 8 != count)
      result = image_fail(set->error, set->capacity, "%s: %zu labels, and %s has %u pictures",
                          labels, label_count - 8, dataset__base(path), (unsigned)count);
  }
  set->rows = (int)rows;
  set->columns = (int)columns;
  if (!result) {
    f = dataset__add_file(set, path, 16, (uint64_t)rows * columns, (size_t)rows * columns,
                          DATASET__GREY);
    result = f < 0 ? -1 : 0;
  }
  for (i = 0; i < count && !result; i++)
    result = dataset__add(set, NULL, f, i, label ? label[8 + i] : -1, part);
  free(label);
  free(labels);
  return result;
}

/* ---- .npy ----------------------------------------------------------------------------------- */

typedef struct dataset__line {
  char text[IMAGE_ERROR];
} dataset__line;

static void dataset__keep_line(void *user, igpt_result result, const char *sentence)
{
  dataset__line *line = (dataset__line *)user;
  (void)result;
  snprintf(line->text, sizeof line->text, "%s", sentence);
}

static int dataset__npy_fail(dataset__set *set, const char *path, const dataset__line *line,
                             igpt_result result)
{
  const char *text = line->text[0] ? line->text : igpt_error_string(result);
  if (dataset__starts(text, path)) return image_fail(set->error, set->capacity, "%s", text);
  return image_fail(set->error, set->capacity, "%s: %s", path, text);
}

/* "[60000,28,28]" */
static const char *dataset__shape(char text[200], const igpt_npy *npy)
{
  size_t used = 0;
  int i;
  text[used++] = '[';
  for (i = 0; i < npy->rank && used < 170; i++)
    used += (size_t)snprintf(text + used, 200 - used, "%s%ju", i ? "," : "",
                             (uintmax_t)npy->shape[i]);
  text[used++] = ']';
  text[used] = 0;
  return text;
}

/* Labels (count) into *out, from malloc: [N] integers or [N,K] one-hot; *classes grows to fit. */
static int dataset__npy_labels(dataset__set *set, int32_t **out, const char *path, size_t count,
                               int *classes)
{
  igpt_source source;
  igpt_npy npy;
  dataset__line line = {{0}};
  igpt_log log = {0};
  char shape[200];
  igpt_result result;
  int failed = 0;
  size_t i;
  log.line = dataset__keep_line;
  log.user = &line;
  if (dataset__size(set, path) < 0) return -1;               /* opening a pipe would wait */
  result = igpt_file_open(&source, path, &log);
  if (result) return dataset__npy_fail(set, path, &line, result);
  result = igpt_npy_open(&npy, &source, &log);
  if (!result && ((npy.rank != 1 && npy.rank != 2) || npy.shape[0] != count ||
                  (npy.rank == 2 && (npy.shape[1] < 1 || npy.shape[1] > 65536)))) {
    failed = image_fail(set->error, set->capacity,
                        "%s: labels of shape %s, and [%zu] or [%zu,classes] is needed", path,
                        dataset__shape(shape, &npy), count, count);
  } else if (!result && npy.rank == 1 && (npy.type == IGPT_NPY_F32 || npy.type == IGPT_NPY_F64)) {
    failed = image_fail(set->error, set->capacity,
                        "%s: labels that are real numbers (float%d) of shape %s, and integers of "
                        "that shape or one-hot numbers of shape [%zu,classes] are needed", path,
                        npy.type == IGPT_NPY_F32 ? 32 : 64, dataset__shape(shape, &npy), count);
  } else if (!result) {
    size_t across = npy.rank == 2 ? (size_t)npy.shape[1] : 1, k;
    float *row = (float *)malloc(across * sizeof *row);
    *out = (int32_t *)malloc((count ? count : 1) * sizeof **out);
    if (!row || !*out) failed = dataset__no_memory(set);
    for (i = 0; i < count && !failed && !result; i++) {
      if (npy.rank == 1) {
        int64_t value = -1;
        result = igpt_npy_read_i64(&npy, &value, i, 1, &source);
        if (!result && (value < 0 || value > 65535))
          failed = image_fail(set->error, set->capacity,
                              "%s: label %zu is %jd, and 0 to 65535 are read", path, i,
                              (intmax_t)value);
        (*out)[i] = (int32_t)value;
      } else {
        int32_t best = 0;
        result = igpt_npy_read_f32(&npy, row, (uint64_t)i * across, across, &source);
        if (result) break;
        for (k = 1; k < across; k++)
          if (row[k] > row[best]) best = (int32_t)k;
        (*out)[i] = best;
        if (*classes < (int)across) *classes = (int)across;
      }
      if (!failed && (*out)[i] >= *classes) *classes = (*out)[i] + 1;
    }
    free(row);
  }
  igpt_file_close(&source);
  if (result) failed = dataset__npy_fail(set, path, &line, result);
  if (failed) {
    free(*out);
    *out = NULL;
  }
  return failed;
}

/* The file of labels beside an array, if there is one; from malloc. */
static char *dataset__npy_labels_path(const char *path)
{
  size_t length = strlen(path);             /* ends in .npy */
  char *name = (char *)malloc(length + 8);
  struct stat status;
  if (!name) return NULL;
  snprintf(name, length + 8, "%.*s.labels.npy", (int)(length - 4), path);
  if (stat(name, &status) == 0) return name;
  if (length >= 5 && path[length - 5] == 'X') {
    memcpy(name, path, length + 1);
    name[length - 5] = 'Y';
    if (stat(name, &status) == 0) return name;
  }
  free(name);
  return NULL;
}

static int dataset__add_npy(dataset__set *set, const char *path, int part, int *classes)
{
  igpt_source source;
  igpt_npy npy;
  dataset__line line = {{0}};
  igpt_log log = {0};
  igpt_result result;
  char shape[200], *labels_path;
  int32_t *labels = NULL;
  uint64_t rows = 0, columns = 0, i;
  size_t pixels;
  int layout = -1, failed = 0, f, integer, tokens = 0;
  log.line = dataset__keep_line;
  log.user = &line;
  if (dataset__size(set, path) < 0) return -1;               /* opening a pipe would wait */
  result = igpt_file_open(&source, path, &log);
  if (result) return dataset__npy_fail(set, path, &line, result);
  result = igpt_npy_open(&npy, &source, &log);
  igpt_file_close(&source);
  if (result) return dataset__npy_fail(set, path, &line, result);
  integer = npy.type != IGPT_NPY_F32 && npy.type != IGPT_NPY_F64 && npy.type != IGPT_NPY_BOOL;
  if (npy.type == IGPT_NPY_U8 && npy.rank == 4 && npy.shape[3] == 3) {
    layout = DATASET__PIXELS;
    rows = npy.shape[1];
    columns = npy.shape[2];
  } else if (npy.type == IGPT_NPY_U8 && npy.rank == 4 && npy.shape[1] == 3) {
    layout = DATASET__PLANES;
    rows = npy.shape[2];
    columns = npy.shape[3];
  } else if (npy.type == IGPT_NPY_U8 &&
             (npy.rank == 3 || (npy.rank == 4 && npy.shape[3] == 1))) {
    layout = DATASET__GREY;
    rows = npy.shape[1];
    columns = npy.shape[2];
  } else if (integer && npy.rank == 2) {
    tokens = 1;
    rows = 1;
    columns = npy.shape[1];
  }
  if (rows < 1 || columns < 1 || (!tokens && (rows > 4096 || columns > 4096)) ||
      columns > 1 << 24)
    return image_fail(set->error, set->capacity,
                      "%s: an array of %s numbers of shape %s; pictures are uint8 [N,H,W,3], "
                      "[N,3,H,W] or [N,H,W], tokens are integers [N,T]", path,
                      npy.type == IGPT_NPY_U8 ? "uint8" : integer ? "other integer" : "real",
                      dataset__shape(shape, &npy));
  if (set->file_count && (set->tokens != tokens ||
                          (tokens ? set->token_count != (size_t)columns
                                  : set->rows != (int)rows || set->columns != (int)columns)))
    return image_fail(set->error, set->capacity,
                      "%s: shape %s does not go with that of %s", path,
                      dataset__shape(shape, &npy), dataset__base(set->files[0].path));
  set->tokens = tokens;
  if (tokens) {
    set->token_count = (size_t)columns;
  } else {
    set->rows = (int)rows;
    set->columns = (int)columns;
  }
  pixels = (size_t)rows * (size_t)columns * (layout == DATASET__GREY || tokens ? 1 : 3);
  f = dataset__add_file(set, path, npy.offset, pixels, pixels, layout);
  if (f < 0) return -1;
  labels_path = dataset__npy_labels_path(path);
  if (labels_path)
    failed = dataset__npy_labels(set, &labels, labels_path, (size_t)npy.shape[0], classes);
  for (i = 0; i < npy.shape[0] && !failed; i++)
    failed = dataset__add(set, NULL, f, i, labels ? labels[i] : -1, part);
  free(labels);
  free(labels_path);
  return failed;
}

/* ---- folders of pictures -------------------------------------------------------------------- */

/* Pictures of one folder, or of its folder `images` if it has none itself. *found counts them; they
   are added only if `add` is set. */
static int dataset__add_pictures(dataset__set *set, const char *folder, int label, int part,
                                 int add, size_t *found)
{
  dataset__names list;
  size_t i;
  int result = dataset__list(set, &list, folder), images = 0;
  *found = 0;
  if (result) return result;
  for (i = 0; i < list.count && !result; i++) {
    if (strcmp(list.name[i], "images") == 0) images = dataset__is_folder(folder, list.name[i]);
    if (!image_is_name(list.name[i])) continue;
    ++*found;
    if (add) {
      char *path = dataset__join(folder, list.name[i]);
      result = path ? dataset__add(set, path, 0, 0, label, part) : dataset__no_memory(set);
    }
  }
  dataset__names_free(&list);
  if (!result && !*found && images) {
    char *inner = dataset__join(folder, "images");
    if (!inner) return dataset__no_memory(set);
    result = dataset__add_pictures(set, inner, label, part, add, found);
    free(inner);
  }
  return result;
}

/* The items from `first` on, whose classes come one after the other, take turns: by their number
   within the class, then by class. A counting sort by that number. */
static int dataset__interleave(dataset__set *set, size_t first)
{
  size_t n = set->count - first, i, within = 0, most = 0, *place;
  dataset__item *items = set->items + first, *sorted;
  if (n == 0) return 0;
  place = (size_t *)calloc(n + 1, sizeof *place);
  sorted = (dataset__item *)malloc(n * sizeof *sorted);
  if (!place || !sorted) {
    free(place);
    free(sorted);
    return dataset__no_memory(set);
  }
  for (i = 0; i < n; i++) {
    within = i && items[i].label == items[i - 1].label ? within + 1 : 0;
    items[i].record = within;
    place[within + 1]++;
    if (within > most) most = within;
  }
  for (i = 1; i <= most; i++) place[i] += place[i - 1];
  for (i = 0; i < n; i++) sorted[place[items[i].record]++] = items[i];
  memcpy(items, sorted, n * sizeof *sorted);
  free(place);
  free(sorted);
  return 0;
}

static int dataset__class(const dataset__set *set, const char *name)
{
  int i;
  for (i = 0; i < set->classes; i++)
    if (strcmp(set->names[i], name) == 0) return i;
  return -1;
}

/* One part: a folder with a folder per class, or with pictures. The first part that has classes
   says which; labels of later ones refer to these. *labelled: whether this part has classes. */
static int dataset__add_part(dataset__set *set, const char *folder, int part, int *labelled)
{
  dataset__names list;
  size_t i, found = 0, direct = 0, first = set->count;
  char **names = NULL;
  int classes = 0, result, define = set->classes == 0;
  *labelled = 0;
  result = dataset__list(set, &list, folder);
  if (result) return result;
  for (i = 0; i < list.count && !result; i++) {              /* the class folders */
    char *path;
    int label = classes;
    if (image_is_name(list.name[i])) direct++;
    if (image_is_name(list.name[i]) || !dataset__is_folder(folder, list.name[i])) continue;
    if (strcmp(list.name[i], "images") == 0) continue;
    path = dataset__join(folder, list.name[i]);
    result = path ? dataset__add_pictures(set, path, 0, part, 0, &found)
                  : dataset__no_memory(set);
    if (!result && found) {
      if (!define) label = dataset__class(set, list.name[i]);
      if (label < 0)
        result = image_fail(set->error, set->capacity,
                            "%s: the class \"%s\" is not among the %d classes of the training part",
                            path, list.name[i], set->classes);
      else result = dataset__add_pictures(set, path, label, part, 1, &found);
      if (!result && define) {
        char **grown = (char **)realloc(names, ((size_t)classes + 1) * sizeof *grown);
        if (grown) names = grown;
        if (grown) names[classes] = dataset__copy(list.name[i], strlen(list.name[i]));
        if (!grown || !names[classes]) result = dataset__no_memory(set);
        else classes++;
      }
      *labelled = 1;
    }
    free(path);
  }
  dataset__names_free(&list);
  if (!result && *labelled) {
    if (direct) {
      char text[IMAGE_ERROR];
      image_say(text, sizeof text, "%s: %zu pictures beside the class folders are left out",
                folder, direct);
      dataset__warn(set->desc, text);
    }
    if (define) result = dataset__set_classes(set, classes, names);
    if (define && !result) names = NULL;
    if (!result) result = dataset__interleave(set, first);
  } else if (!result) {
    result = dataset__add_pictures(set, folder, -1, part, 1, &found);
  }
  if (names) dataset__free_names(names, classes);
  return result;
}

/* words.txt: "n01443537<tab>goldfish, Carassius auratus". The first word names the class. */
static void dataset__read_words(dataset__set *set, const char *folder)
{
  char *path = dataset__join(folder, "words.txt"), ignored[IMAGE_ERROR];
  char **words = (char **)calloc((size_t)set->classes + 1, sizeof *words);
  uint8_t *text = NULL;
  size_t size = 0, at = 0;
  int i;
  if (words && path &&
      image_read_file(&text, &size, path, 1 << 26, ignored, sizeof ignored) == 0)
    while (at < size) {
      size_t key = at, tab, end;
      int low = 0, high = set->classes - 1;                  /* the names are sorted */
      while (at < size && text[at] != '\n') at++;
      for (tab = key; tab < at && text[tab] != '\t'; tab++) {}
      for (end = tab; end < at && text[end] != ',' && text[end] != '\r'; end++) {}
      at++;
      while (end > tab + 1 && low <= high) {
        int middle = low + (high - low) / 2;
        size_t length = strlen(set->names[middle]), n = tab - key;
        int order = memcmp(text + key, set->names[middle], n < length ? n : length);
        if (order == 0 && n == length) {
          if (!words[middle])
            words[middle] = dataset__copy((const char *)text + tab + 1, end - tab - 1);
          break;
        }
        if (order < 0 || (order == 0 && n < length)) high = middle - 1;
        else low = middle + 1;
      }
    }
  for (i = 0; words && i < set->classes; i++)
    if (words[i]) {
      free(set->names[i]);
      set->names[i] = words[i];
    }
  free(words);
  free(text);
  free(path);
}

/* ---- what a path is ------------------------------------------------------------------------- */

static int dataset__matches(const char *name, const char *start, const char *end)
{
  size_t length = strlen(name);
  return dataset__starts(name, start) && length >= strlen(start) + strlen(end) &&
         strcmp(name + length - strlen(end), end) == 0;
}

/* A name that says "test": the whole file is test split. */
static int dataset__says_test(const char *path)
{
  const char *name = dataset__base(path);
  return dataset__starts(name, "test") || dataset__starts(name, "t10k") ||
         dataset__matches(name, "", "_teX.npy");
}

static int dataset__is_idx(const char *name)
{
  return strstr(name, "images") && strstr(name, "idx3") && !dataset__matches(name, "", ".gz");
}

static void dataset__begin(dataset__set *set, dataset_kind kind, const char *title, int side)
{
  set->kind = kind;
  set->title = title;
  set->rows = set->columns = side;
}

static int dataset__all_labelled(const dataset__set *set)
{
  size_t i;
  for (i = 0; i < set->count; i++)
    if (set->items[i].label < 0) return 0;
  return set->count > 0;
}

/* Classes of a set whose labels came as numbers: the largest + 1. */
static int dataset__number_classes(dataset__set *set, int classes)
{
  size_t i;
  if (!dataset__all_labelled(set)) return 0;
  for (i = 0; i < set->count; i++)
    if (set->items[i].label >= classes) classes = set->items[i].label + 1;
  return dataset__set_classes(set, classes, NULL);
}

static int dataset__open_file(dataset__set *set, const char *path)
{
  const char *name = dataset__base(path);
  int part = dataset__says_test(path) ? DATASET__PART_TEST : DATASET__PART_ANY, result, classes = 0;
  int64_t size = dataset__size(set, path);
  size_t folder_length = (size_t)(name - path);
  char *folder = folder_length ? dataset__copy(path, folder_length) : dataset__copy(".", 1);
  if (!folder) return dataset__no_memory(set);
  if (size < 0) {
    result = -1;
  } else if (image_is_name(name)) {
    char *copy = dataset__copy(path, strlen(path));
    dataset__begin(set, DATASET_FOLDER, "one picture", 0);
    set->whole = 1;
    result = copy ? dataset__add(set, copy, 0, 0, -1, DATASET__PART_ANY) : dataset__no_memory(set);
  } else if (dataset__matches(name, "", ".npy")) {
    dataset__begin(set, DATASET_NPY, name, 0);
    result = dataset__add_npy(set, path, part, &classes);
    if (!result) result = dataset__number_classes(set, classes);
  } else if (dataset__is_idx(name)) {
    dataset__begin(set, DATASET_IDX, name, 0);
    result = dataset__add_idx(set, path, part);
    if (!result) result = dataset__number_classes(set, 0);
  } else if (!dataset__matches(name, "", ".bin")) {
    result = image_fail(set->error, set->capacity,
                        "%s: not a data set that is known (%jd bytes): .bin of CIFAR or STL-10, "
                        "idx, .npy, or a picture%s", path, (intmax_t)size,
                        strstr(name, ".gz") || strstr(name, ".tar") || strstr(name, ".zip")
                          ? "; this looks packed: unpack it first" : "");
  } else if (strstr(name, "_X")) {
    dataset__begin(set, DATASET_STL10, name, 96);
    result = dataset__add_stl(set, path, NULL, part);
  } else if (strstr(name, "_batch") ||
             (!dataset__matches(name, "train", ".bin") && !dataset__matches(name, "test", ".bin") &&
              size % 3073 == 0 && size % 3074 != 0)) {      /* no name of a set says which it is */
    dataset__begin(set, DATASET_CIFAR10, name, 32);
    result = dataset__add_cifar(set, path, 1, part);
    if (!result)
      result = dataset__read_classes(set, folder, "batches.meta.txt", 10, dataset__cifar10_names);
  } else {
    dataset__begin(set, DATASET_CIFAR100, name, 32);
    result = dataset__add_cifar(set, path, 2, part);
    if (!result) result = dataset__read_classes(set, folder, "fine_label_names.txt", 100, NULL);
  }
  free(folder);
  return result;
}

static int dataset__missing(dataset__set *set, const char *folder, const char *name)
{
  return image_fail(set->error, set->capacity, "%s/%s: is missing, and %s has it; one file of a "
                    "set can also be given by itself", folder, name, set->title);
}

/* Adds every name of the list that fits the pattern start*.bin; there must be one. */
static int dataset__add_matching(dataset__set *set, const char *folder, const dataset__names *list,
                                 const char *start, int labels, int part)
{
  size_t i, before = set->count;
  int result = 0;
  for (i = 0; i < list->count && !result; i++)
    if (dataset__matches(list->name[i], start, ".bin")) {
      char *path = dataset__join(folder, list->name[i]);
      result = path ? dataset__add_cifar(set, path, labels, part) : dataset__no_memory(set);
      free(path);
    }
  if (!result && set->count == before) {
    char name[32];
    snprintf(name, sizeof name, "%s%s.bin", start, start[strlen(start) - 1] == '_' ? "1" : "");
    result = dataset__missing(set, folder, name);
  }
  return result;
}

/* Five data batches, of which none is named as a part, or any that are. */
static int dataset__check_batches(dataset__set *set, const char *folder, const dataset__names *list)
{
  size_t i;
  int n;
  for (i = 0; i < list->count; i++)
    if (dataset__matches(list->name[i], "data_batch_", ".bin") &&
        strlen(list->name[i]) != strlen("data_batch_1.bin")) return 0;
  for (n = 1; n <= 5; n++) {
    char name[32];
    snprintf(name, sizeof name, "data_batch_%d.bin", n);
    if (!dataset__is_file(folder, name)) return dataset__missing(set, folder, name);
  }
  return 0;
}

static int dataset__open_stl(dataset__set *set, const char *folder, const char *start, int part)
{
  char name[32], *pictures, *labels;
  int result;
  snprintf(name, sizeof name, "%s_X.bin", start);
  if (!dataset__is_file(folder, name)) return dataset__missing(set, folder, name);
  pictures = dataset__join(folder, name);
  snprintf(name, sizeof name, "%s_y.bin", start);
  labels = dataset__join(folder, name);
  result = pictures && labels ? dataset__add_stl(set, pictures, labels, part)
                              : dataset__no_memory(set);
  free(pictures);
  free(labels);
  return result;
}

/* train/, val/ and test/ below `folder`. */
static int dataset__open_parts(dataset__set *set, const char *folder)
{
  static const char *const names[] = {"train", "val", "valid", "validation", "test"};
  int labelled[5] = {0}, result = 0, i, has_test = 0, has_validation = 0;
  size_t first[6] = {0}, n;
  for (i = 0; i < 5 && !result; i++) {
    first[i] = set->count;
    if (dataset__is_folder(folder, names[i])) {
      char *path = dataset__join(folder, names[i]);
      result = path ? dataset__add_part(set, path, i == 0 ? DATASET__PART_TRAIN
                                        : i == 4 ? DATASET__PART_TEST : DATASET__PART_VALIDATION,
                                        &labelled[i])
                    : dataset__no_memory(set);
      free(path);
    }
    if (i > 0 && !result && set->count > first[i] && labelled[i] != labelled[0]) {
      char text[IMAGE_ERROR];                 /* such as Tiny ImageNet's test pictures */
      image_say(text, sizeof text, "%s/%s: left out: its %zu pictures have %s, those of %s/%s have "
                "%s", folder, names[i], set->count - first[i],
                labelled[i] ? "classes" : "no classes", folder, names[0],
                labelled[0] ? "some" : "none");
      dataset__warn(set->desc, text);
      for (n = first[i]; n < set->count; n++) free(set->items[n].path);
      set->count = first[i];
    }
  }
  for (n = 0; n < set->count; n++) {
    if (set->items[n].part == DATASET__PART_TEST) has_test = 1;
    if (set->items[n].part == DATASET__PART_VALIDATION) has_validation = 1;
  }
  if (has_validation && !has_test)
    for (n = 0; n < set->count; n++)
      if (set->items[n].part == DATASET__PART_VALIDATION) set->items[n].part = DATASET__PART_TEST;
  if (!has_validation && !has_test)
    for (n = 0; n < set->count; n++) set->items[n].part = DATASET__PART_ANY;
  return result;
}

static int dataset__open_folder(dataset__set *set, const char *folder)
{
  dataset__names list;
  size_t i, cifar10 = 0, cifar100 = 0, stl = 0, idx = 0, npy = 0, packed = 0, pickled = 0;
  int result = dataset__list(set, &list, folder), classes = 0, labelled = 0;
  int taken[DATASET__PART_ANY + 1] = { 0 };
  if (result) return result;
  for (i = 0; i < list.count; i++) {
    const char *name = list.name[i];
    if (dataset__matches(name, "data_batch_", ".bin") ||
        dataset__matches(name, "test_batch", ".bin"))
      cifar10++;
    else if (strcmp(name, "train_X.bin") == 0 || strcmp(name, "test_X.bin") == 0) stl++;
    else if ((dataset__matches(name, "train", ".bin") || dataset__matches(name, "test", ".bin")) &&
             !dataset__matches(name, "", "_y.bin"))
      cifar100++;
    else if (dataset__is_idx(name)) idx++;
    else if (dataset__matches(name, "", "_trX.npy") || dataset__matches(name, "", "_teX.npy"))
      npy++;
    else if (strstr(name, "idx3") || strstr(name, "-binary.tar")) packed++;
    else if (strcmp(name, "data_batch_1") == 0) pickled++;
  }
  if (cifar10) {
    dataset__begin(set, DATASET_CIFAR10, "CIFAR-10", 32);
    result = dataset__add_matching(set, folder, &list, "data_batch_", 1, DATASET__PART_TRAIN);
    if (!result)
      result = dataset__add_matching(set, folder, &list, "test_batch", 1, DATASET__PART_TEST);
    if (!result) result = dataset__check_batches(set, folder, &list);
    if (!result)
      result = dataset__read_classes(set, folder, "batches.meta.txt", 10, dataset__cifar10_names);
  } else if (stl) {
    dataset__begin(set, DATASET_STL10, "STL-10", 96);
    result = dataset__open_stl(set, folder, "train", DATASET__PART_TRAIN);
    if (!result) result = dataset__open_stl(set, folder, "test", DATASET__PART_TEST);
    if (!result)
      result = dataset__read_classes(set, folder, "class_names.txt", 10, dataset__stl10_names);
  } else if (cifar100) {
    dataset__begin(set, DATASET_CIFAR100, "CIFAR-100", 32);
    result = dataset__add_matching(set, folder, &list, "train", 2, DATASET__PART_TRAIN);
    if (!result) result = dataset__add_matching(set, folder, &list, "test", 2, DATASET__PART_TEST);
    if (!result) result = dataset__read_classes(set, folder, "fine_label_names.txt", 100, NULL);
  } else if (idx || npy) {
    dataset__begin(set, idx ? DATASET_IDX : DATASET_NPY, dataset__base(folder), 0);
    for (i = 0; i < list.count && !result; i++) {
      const char *name = list.name[i];
      char *path;
      int part = DATASET__PART_TRAIN;
      if (idx ? !dataset__is_idx(name) : !dataset__matches(name, "", "X.npy")) continue;
      if (strstr(name, idx ? "t10k" : "_teX") || (idx && strstr(name, "test")))
        part = DATASET__PART_TEST;
      else if (strstr(name, idx ? "valid" : "_vaX"))
        part = DATASET__PART_VALIDATION;
      if (taken[part]++) {
        result = image_fail(set->error, set->capacity, "%s: %s is a second file of the same part: "
                            "give each set a folder", folder, name);
        break;
      }
      path = dataset__join(folder, name);
      if (!path) result = dataset__no_memory(set);
      else if (idx) result = dataset__add_idx(set, path, part);
      else result = dataset__add_npy(set, path, part, &classes);
      free(path);
    }
    if (!result) result = dataset__number_classes(set, classes);
  } else if (dataset__is_folder(folder, "train")) {
    dataset__begin(set, DATASET_FOLDER, dataset__base(folder), 0);
    result = dataset__open_parts(set, folder);
    if (!result) dataset__read_words(set, folder);
  } else {
    dataset__begin(set, DATASET_FOLDER, dataset__base(folder), 0);
    result = dataset__add_part(set, folder, DATASET__PART_ANY, &labelled);
    if (!result) dataset__read_words(set, folder);
  }
  dataset__names_free(&list);
  if (!result && set->count == 0)
    result = image_fail(set->error, set->capacity,
                        "%s: no pictures (.jpg .jpeg .png .bmp .tga) and no data set that is known"
                        "%s", folder, packed ? "; it holds packed files: unpack them first"
                        : pickled ? "; this is the Python version of CIFAR: take the binary version"
                        : "");
  return result;
}

static int dataset__open_shapes(dataset__set *set, const char *path)
{
  const char *digits = path + strlen("shapes:");
  size_t count = 0, i;
  int result = 0, label;
  const char *names[DATASET_SHAPE_CLASSES];
  for (i = 0; digits[i] >= '0' && digits[i] <= '9' && i < 8; i++)
    count = count * 10 + (size_t)(digits[i] - '0');
  if (digits[i] || (i && count < 1))
    return image_fail(set->error, set->capacity,
                      "%s: \"%s\" is no number of pictures, and 1 to 99999999 can be drawn", path,
                      digits);
  if (i == 0) count = 5000;
  dataset__begin(set, DATASET_SHAPES, "drawn shapes", 0);
  for (i = 0; i < count && !result; i++)
    result = dataset__add(set, NULL, 0, i, (int)(i % DATASET_SHAPE_CLASSES), DATASET__PART_ANY);
  for (label = 0; label < DATASET_SHAPE_CLASSES; label++) names[label] = dataset_shape_name(label);
  if (result) return result;
  return dataset__set_classes(set, DATASET_SHAPE_CLASSES,
                              dataset__copy_names(names, DATASET_SHAPE_CLASSES));
}

static int dataset__open(dataset__set *set)
{
  const char *path = set->desc->path;
  struct stat status;
  if (!path || !path[0])
    return image_fail(set->error, set->capacity, "path: none is given, and a data set has one");
  if (dataset__starts(path, "shapes:")) return dataset__open_shapes(set, path);
  if (stat(path, &status) != 0)
    return image_fail(set->error, set->capacity, "%s: %s", path, strerror(errno));
  return S_ISDIR(status.st_mode) ? dataset__open_folder(set, path) : dataset__open_file(set, path);
}

/* ---- splits --------------------------------------------------------------------------------- */

/* Moves `fraction` of the items of part `from` to part `to`: the same share of every class, rounded
   so that the whole comes out right (the running total of the shares is rounded). */
static int dataset__draw(dataset__set *set, int from, int to, double fraction, uint64_t stream)
{
  igpt_rng rng = igpt_rng_seed(set->desc->seed, stream);
  size_t classes = (size_t)set->classes + 1, *start, n = 0, i, c, taken = 0;
  uint32_t *order;
  start = (size_t *)calloc(classes + 2, sizeof *start);
  order = (uint32_t *)malloc((set->count ? set->count : 1) * sizeof *order);
  if (!start || !order) {
    free(start);
    free(order);
    return dataset__no_memory(set);
  }
  for (i = 0; i < set->count; i++)           /* group by class; class -1 comes first */
    if (set->items[i].part == from) start[set->items[i].label + 2]++;
  for (c = 1; c <= classes; c++) start[c + 1] += start[c];
  for (i = 0; i < set->count; i++)
    if (set->items[i].part == from) {
      order[start[set->items[i].label + 1]++] = (uint32_t)i;
      n++;
    }
  for (c = 0; c < classes; c++) {            /* start[c] is now the end of class c - 1 */
    size_t begin = c ? start[c - 1] : 0, end = start[c];
    size_t target = (size_t)((double)end * fraction + 0.5);
    if (end == n && target == 0 && n > 1) target = 1;
    if (begin == end) continue;
    igpt_rng_shuffle(&rng, order + begin, end - begin);
    for (i = begin; i < end && taken < target; i++, taken++) set->items[order[i]].part = to;
  }
  free(start);
  free(order);
  return 0;
}

static int dataset__assign(dataset__set *set)
{
  int part[4] = {0, 0, 0, 0};
  double fraction = set->desc->hold_out > 0 ? set->desc->hold_out : 0.1;
  size_t i;
  if (!(set->desc->hold_out >= 0 && set->desc->hold_out <= 0.5))
    return image_fail(set->error, set->capacity, "%s: hold_out is %g, and must be in 0..0.5",
                      set->desc->path, set->desc->hold_out);
  if (set->whole) return 0;
  for (i = 0; i < set->count; i++) part[set->items[i].part] = 1;
  if (part[DATASET__PART_ANY] || (part[DATASET__PART_TRAIN] && !part[DATASET__PART_TEST])) {
    int from = part[DATASET__PART_ANY] ? DATASET__PART_ANY : DATASET__PART_TRAIN;
    if (dataset__draw(set, from, DATASET__PART_TEST, 0.1, 1) != 0) return -1;
  }
  for (i = 0; i < set->count; i++)
    if (set->items[i].part == DATASET__PART_ANY) set->items[i].part = DATASET__PART_TRAIN;
  if (!part[DATASET__PART_VALIDATION])
    return dataset__draw(set, DATASET__PART_TRAIN, DATASET__PART_VALIDATION, fraction, 2);
  return 0;
}

IMAGE_API const char *dataset_split_name(dataset_split split)
{
  switch (split) {
    case DATASET_TRAIN: return "train";
    case DATASET_VALIDATION: return "validation";
    case DATASET_TEST: return "test";
    case DATASET_TRAIN_ALL: return "train and validation";
    case DATASET_ALL: return "all";
    case DATASET_LOOK: return "test or all";
  }
  return "unknown split";
}

/* What DATASET_LOOK means for this set, whose parts are not drawn yet. */
static dataset_split dataset__resolve(const dataset__set *set)
{
  size_t i;
  if (set->desc->split != DATASET_LOOK) return set->desc->split;
  for (i = 0; i < set->count; i++)
    if (set->items[i].part == DATASET__PART_TEST) return DATASET_TEST;
  return DATASET_ALL;
}

/* Keeps the items of the split, in order, and the first `limit` of them; *available before that. */
static int dataset__choose(dataset__set *set, dataset_split split, size_t *available)
{
  size_t i, kept = 0;
  for (i = 0; i < set->count; i++) {
    int part = set->items[i].part, wanted = set->whole || split == DATASET_ALL;
    if (split == DATASET_TRAIN) wanted |= part == DATASET__PART_TRAIN;
    if (split == DATASET_VALIDATION) wanted |= part == DATASET__PART_VALIDATION;
    if (split == DATASET_TEST) wanted |= part == DATASET__PART_TEST;
    if (split == DATASET_TRAIN_ALL)
      wanted |= part == DATASET__PART_TRAIN || part == DATASET__PART_VALIDATION;
    if (wanted && (!set->desc->limit || kept < set->desc->limit)) {
      dataset__item moved = set->items[i];
      set->items[i].path = NULL;
      set->items[kept++] = moved;
      *available += 1;
    } else {
      *available += wanted ? 1 : 0;
      free(set->items[i].path);
      set->items[i].path = NULL;
    }
  }
  i = set->count;
  set->count = kept;
  if (kept == 0)
    return image_fail(set->error, set->capacity,
                      "%s: the %s split is empty, of %zu pictures in all", set->desc->path,
                      dataset_split_name(split), i);
  return 0;
}

/* ---- reading -------------------------------------------------------------------------------- */

/* A record's pixels to (rows, columns, 3). */
static void dataset__unpack(uint8_t *to, const uint8_t *from, int layout, int rows, int columns)
{
  size_t plane = (size_t)rows * (size_t)columns, at, c;
  for (at = 0; at < plane; at++)
    for (c = 0; c < 3; c++) {
      size_t y = at / (size_t)columns, x = at % (size_t)columns;
      *to++ = layout == DATASET__PLANES             ? from[c * plane + at]
              : layout == DATASET__PLANES_BY_COLUMN ? from[c * plane + x * (size_t)rows + y]
              : layout == DATASET__PIXELS           ? from[3 * at + c]
                                                    : from[at];
    }
}

/* Whether a picture is smaller than what is asked for. */
static int dataset__small(const dataset *out, int rows, int columns)
{
  return rows < out->rows || columns < out->columns;
}

/* Keeps a copy for DATASET_RESIZE_CROP that is just large enough for its largest "shorter side",
   384 / 224 of the side, and at most three windows long. *room: bytes of out->large. */
static int dataset__keep_large(dataset *out, size_t index, const uint8_t *rgb, int rows,
                               int columns, size_t *used, size_t *room)
{
  int need_rows = (out->rows * 384 + 223) / 224, need_columns = (out->columns * 384 + 223) / 224;
  int window_rows, window_columns, to_rows, to_columns;
  size_t stride = (size_t)columns * 3, bytes;
  image_window(&window_rows, &window_columns, out->rows, out->columns, rows, columns);
  if (rows > 3 * window_rows) {
    rgb += (size_t)((rows - 3 * window_rows) / 2) * stride;
    rows = 3 * window_rows;
  }
  if (columns > 3 * window_columns) {
    rgb += (size_t)((columns - 3 * window_columns) / 2) * 3;
    columns = 3 * window_columns;
  }
  to_rows = rows;
  to_columns = columns;
  if (window_rows > need_rows && window_columns > need_columns) {
    to_rows = image__ratio(rows, need_rows, window_rows, rows);
    to_columns = image__ratio(columns, need_columns, window_columns, columns);
  }
  bytes = (size_t)to_rows * (size_t)to_columns * 3;
  if (*used + bytes > *room) {
    size_t grown_room = *room + *room / 2 + bytes;
    uint8_t *grown = (uint8_t *)realloc(out->large, grown_room);
    if (!grown) return -1;
    out->large = grown;
    *room = grown_room;
  }
  if (image_resize(out->large + *used, to_rows, to_columns, rgb, rows, columns, stride) != 0)
    return -1;
  out->large_at[index] = *used;
  out->large_size[2 * index] = to_rows;
  out->large_size[2 * index + 1] = to_columns;
  *used += bytes;
  return 0;
}

static int dataset__poll(dataset__set *set, size_t done)
{
  const igpt_watch *watch = &set->desc->watch;
  if (watch->poll && watch->poll(watch->user, (double)done / (double)set->count) != 0)
    return image_fail(set->error, set->capacity, "%s: stopped after %zu of %zu pictures",
                      set->desc->path, done, set->count);
  return 0;
}

/* A record of the set's own size into the picture that is given. -1: out of memory. */
static int dataset__place(uint8_t *to, const dataset *out, const uint8_t *rgb, int rows,
                          int columns)
{
  int y, top = (out->rows - rows) / 2, left = (out->columns - columns) / 2;
  if (out->kind != DATASET_IDX || rows > out->rows || columns > out->columns)
    return image_fit(to, out->rows, out->columns, rgb, rows, columns);
  memset(to, 0, (size_t)out->rows * (size_t)out->columns * 3);
  for (y = 0; y < rows; y++)
    memcpy(to + 3 * ((size_t)(top + y) * (size_t)out->columns + (size_t)left),
           rgb + 3 * (size_t)y * (size_t)columns, 3 * (size_t)columns);
  return 0;
}

static int dataset__read_records(dataset__set *set, dataset *out)
{
  int rows = set->rows, columns = set->columns, open = -1, result = 0;
  size_t picture = (size_t)out->rows * (size_t)out->columns * 3, i, used = 0, room = 0;
  size_t plain = (size_t)rows * (size_t)columns * 3;
  uint8_t *record = (uint8_t *)malloc(plain), *rgb = (uint8_t *)malloc(plain);
  uint64_t at = 0;
  FILE *file = NULL;
  if (!record || !rgb) result = dataset__no_memory(set);
  for (i = 0; i < set->count && !result; i++) {
    const dataset__item *item = &set->items[i];
    const dataset__file *from = &set->files[item->file];
    uint64_t offset = from->offset + item->record * from->stride;
    if (item->file != open) {
      if (file) fclose(file);
      file = fopen(from->path, "rb");
      open = item->file;
      at = 0;
    }
    if (!file || (offset != at && fseeko(file, (off_t)offset, SEEK_SET) != 0) ||
        fread(record, 1, from->bytes, file) != from->bytes) {
      result = image_fail(set->error, set->capacity, "%s: reading record %ju failed: %s",
                          from->path, (uintmax_t)item->record,
                          !file || ferror(file) ? strerror(errno) : "the file ends before it");
      break;
    }
    at = offset + from->bytes;
    dataset__unpack(rgb, record, from->layout, rows, columns);
    if (dataset__place(out->pictures + i * picture, out, rgb, rows, columns) != 0 ||
        (out->large_at &&
         dataset__keep_large(out, i, rgb, rows, columns, &used, &room) != 0))
      result = dataset__no_memory(set);
    if (!result && i % 1000 == 999) result = dataset__poll(set, i + 1);
  }
  if (file) fclose(file);
  free(record);
  free(rgb);
  return result;
}

/* What the tasks share: pictures first .. first + count of the list, each into its own place. */
typedef struct dataset__work {
  const dataset__set *set;
  dataset            *out;
  size_t              first;
  image              *large;      /* (chunk) decoded pictures, where larger ones are kept */
  char              **reason;     /* (chunk) null: decoded */
  char               *small;      /* (chunk) */
} dataset__work;

static void dataset__decode(void *arg, size_t index, int worker)
{
  dataset__work *work = (dataset__work *)arg;
  const dataset *out = work->out;
  size_t picture = (size_t)out->rows * (size_t)out->columns * 3;
  uint8_t *to = out->pictures + (work->first + index) * picture;
  const char *path = work->set->items[work->first + index].path;
  char text[IMAGE_ERROR] = "";
  image got;
  (void)worker;
  if (image_load(&got, path, text, sizeof text) == 0) {
    if (dataset__small(out, got.rows, got.columns) && !work->set->desc->enlarge) {
      work->small[index] = 1;
      image_say(text, sizeof text, "%s: %d x %d pixels, smaller than the %d x %d asked for", path,
                got.columns, got.rows, out->columns, out->rows);
    } else if (image_fit(to, out->rows, out->columns, got.rgb, got.rows, got.columns) != 0) {
      image_say(text, sizeof text, "%s: no memory to resize %d x %d pixels", path, got.columns,
                got.rows);
    }
  }
  if (text[0]) {
    work->reason[index] = dataset__copy(text, strlen(text));
    if (!work->reason[index]) work->reason[index] = dataset__copy("", 0);
  }
  if (text[0] || !out->large_at) image_free(&got);
  else work->large[index] = got;
}

/* Both stay in the list, whose paths are freed in the end. */
static void dataset__swap_items(dataset__item *a, dataset__item *b)
{
  dataset__item other = *a;
  *a = *b;
  *b = other;
}

static int dataset__read_files(dataset__set *set, dataset *out)
{
  const igpt_runner *runner = &set->desc->runner;
  int workers = runner->run && runner->workers > 1 ? runner->workers : 1;
  size_t chunk = 4 * (size_t)workers, i, j, kept = 0, used = 0, room = 0;
  size_t picture = (size_t)out->rows * (size_t)out->columns * 3;
  dataset__work work;
  char last[IMAGE_ERROR] = "";
  int result = 0;
  work.set = set;
  work.out = out;
  work.large = (image *)calloc(chunk, sizeof *work.large);
  work.reason = (char **)calloc(chunk, sizeof *work.reason);
  work.small = (char *)calloc(chunk, 1);
  if (!work.large || !work.reason || !work.small) result = dataset__no_memory(set);
  for (i = 0; i < set->count && !result; i += chunk) {
    size_t n = set->count - i < chunk ? set->count - i : chunk;
    work.first = i;
    memset(work.small, 0, chunk);
    if (workers > 1) runner->run(runner->user, dataset__decode, &work, n);
    else
      for (j = 0; j < n; j++) dataset__decode(&work, j, 0);
    for (j = 0; j < n; j++) {                /* close the gaps that skipped pictures leave */
      if (work.reason[j]) {
        out->small += work.small[j] != 0;
        out->broken += work.small[j] == 0;
        dataset__warn(set->desc, work.reason[j]);
        snprintf(last, sizeof last, "%s", work.reason[j]);
        free(work.reason[j]);
        work.reason[j] = NULL;
        continue;
      }
      if (kept != i + j)
        memmove(out->pictures + kept * picture, out->pictures + (i + j) * picture, picture);
      dataset__swap_items(&set->items[kept], &set->items[i + j]);
      if (out->large_at && !result &&
          dataset__keep_large(out, kept, work.large[j].rgb, work.large[j].rows,
                              work.large[j].columns, &used, &room) != 0)
        result = dataset__no_memory(set);
      if (work.large) image_free(&work.large[j]);
      kept++;
    }
    if (!result && i + n < set->count) result = dataset__poll(set, i + n);
  }
  free(work.large);
  free(work.reason);
  free(work.small);
  out->count = kept;
  if (!result && kept == 0)
    result = image_fail(set->error, set->capacity,
                        "%s: none of %zu pictures can be used (%zu corrupt, %zu too small): %s",
                        set->desc->path, set->count, out->broken, out->small, last);
  return result;
}

static int dataset__read_tokens(dataset__set *set, dataset *out)
{
  size_t length = set->token_count, i, t;
  int64_t *row = (int64_t *)malloc(length * sizeof *row);
  igpt_source source;
  igpt_npy npy;
  igpt_log log = {0};
  dataset__line line = {{0}};
  igpt_result got = IGPT_OK;
  int open = -1, result = row ? 0 : dataset__no_memory(set);
  log.line = dataset__keep_line;
  log.user = &line;
  for (i = 0; i < set->count && !result; i++) {
    const dataset__item *item = &set->items[i];
    const char *path = set->files[item->file].path;
    if (item->file != open) {
      if (open >= 0) igpt_file_close(&source);
      open = -1;
      got = igpt_file_open(&source, path, &log);
      if (!got) {
        open = item->file;
        got = igpt_npy_open(&npy, &source, &log);
      }
    }
    if (!got) got = igpt_npy_read_i64(&npy, row, item->record * length, length, &source);
    if (got) {
      result = dataset__npy_fail(set, path, &line, got);
      break;
    }
    for (t = 0; t < length; t++) {
      if (row[t] < 0 || row[t] > 65534) {
        result = image_fail(set->error, set->capacity,
                            "%s: token %zu of row %ju is %jd, and 0 to 65534 are read", path, t,
                            (uintmax_t)item->record, (intmax_t)row[t]);
        break;
      }
      out->tokens[i * length + t] = (uint16_t)row[t];
      if (row[t] >= out->vocabulary) out->vocabulary = (int)row[t] + 1;
    }
  }
  if (open >= 0) igpt_file_close(&source);
  free(row);
  return result;
}

/* rows and columns of what is given out */
static int dataset__sides(dataset__set *set, dataset *out)
{
  const dataset_desc *desc = set->desc;
  int rows = desc->rows, columns = desc->columns, own = 0;
  size_t side = 1;
  if (rows < 0 || columns < 0 || rows > 4096 || columns > 4096 || (columns && !rows))
    return image_fail(set->error, set->capacity,
                      "%s: rows and columns are %d and %d, and must be in 1..4096 (or 0 for the "
                      "set's own)", desc->path, rows, columns);
  if (rows && !columns) columns = rows;
  if (set->tokens) {
    while ((side + 1) * (side + 1) <= set->token_count) side++;
    if (!rows && side * side == set->token_count && side <= 4096) rows = columns = (int)side;
    if ((size_t)rows * (size_t)columns != set->token_count)
      return image_fail(set->error, set->capacity,
                        rows ? "%s: %zu tokens a row, and rows x columns is %d x %d"
                             : "%s: %zu tokens a row are no square, and rows x columns is %d x %d",
                        desc->path, set->token_count, rows, columns);
  } else if (!rows) {
    own = set->rows && set->kind != DATASET_STL10;
    rows = own ? set->rows : 32;
    columns = own ? set->columns : 32;
  }
  out->rows = rows;
  out->columns = columns;
  if (set->rows && !desc->enlarge && dataset__small(out, set->rows, set->columns) &&
      !(set->kind == DATASET_IDX && set->rows <= rows && set->columns <= columns))
    return image_fail(set->error, set->capacity,
                      "%s: the pictures have %d x %d pixels, smaller than the %d x %d asked for",
                      desc->path, set->columns, set->rows, columns, rows);
  return 0;
}

/* Room for set->count pictures or rows of tokens. */
static int dataset__room(dataset__set *set, dataset *out)
{
  size_t one = (size_t)out->rows * (size_t)out->columns * (set->tokens ? sizeof(uint16_t) : 3);
  void *block = set->count <= SIZE_MAX / one ? malloc(set->count * one) : NULL;
  if (!block)
    return image_fail(set->error, set->capacity, "%s: no memory for %zu pictures of %zu bytes",
                      set->desc->path, set->count, one);
  if (set->tokens) out->tokens = (uint16_t *)block;
  else out->pictures = (uint8_t *)block;
  if (!set->tokens && set->kind != DATASET_SHAPES && set->desc->augment == DATASET_RESIZE_CROP &&
      (!set->rows || set->rows > out->rows || set->columns > out->columns)) {
    out->large_at = (size_t *)malloc(set->count * sizeof *out->large_at);
    out->large_size = (int *)malloc(set->count * 2 * sizeof *out->large_size);
    if (!out->large_at || !out->large_size) return dataset__no_memory(set);
  }
  return 0;
}

static int dataset__finish(dataset__set *set, dataset *out)
{
  size_t i;
  char part[64] = "";
  const char *name = set->title && set->title[0] ? set->title : set->desc->path;
  if (set->classes && dataset__all_labelled(set)) {
    out->labels = (int32_t *)malloc(out->count * sizeof *out->labels);
    if (!out->labels) return dataset__no_memory(set);
    for (i = 0; i < out->count; i++) out->labels[i] = set->items[i].label;
    out->names = set->names;
    out->classes = set->classes;
    set->names = NULL;
  }
  if (set->kind == DATASET_FOLDER) {
    out->paths = (char **)malloc(out->count * sizeof *out->paths);
    if (!out->paths) return dataset__no_memory(set);
    for (i = 0; i < out->count; i++) {
      out->paths[i] = set->items[i].path;
      set->items[i].path = NULL;
    }
  }
  if (out->count != out->available) snprintf(part, sizeof part, " of %zu", out->available);
  snprintf(out->title, sizeof out->title, "%.60s, %s: %zu%s %s of %dx%d", name,
           set->whole ? "all" : dataset_split_name(out->split), out->count, part,
           set->tokens ? "rows of tokens" : out->available == 1 ? "picture" : "pictures",
           out->columns, out->rows);
  if (out->classes) {
    size_t used = strlen(out->title);
    snprintf(out->title + used, sizeof out->title - used, ", %d classes", out->classes);
  }
  return 0;
}

IMAGE_API int dataset_load(dataset *out, const dataset_desc *desc, char *error, size_t capacity)
{
  dataset__set set;
  int result;
  size_t i;
  memset(out, 0, sizeof *out);
  memset(&set, 0, sizeof set);
  set.desc = desc;
  set.error = error;
  set.capacity = capacity;
  result = dataset__open(&set);
  out->split = dataset__resolve(&set);
  if (!result) result = dataset__assign(&set);
  if (!result) result = dataset__choose(&set, out->split, &out->available);
  if (!result) result = dataset__sides(&set, out);
  if (!result) result = dataset__room(&set, out);
  out->kind = set.kind;
  out->count = set.count;
  if (!result && set.tokens) {
    result = dataset__read_tokens(&set, out);
  } else if (!result && set.kind == DATASET_FOLDER) {
    result = dataset__read_files(&set, out);
  } else if (!result && set.kind == DATASET_SHAPES) {
    size_t picture = (size_t)out->rows * (size_t)out->columns * 3;
    for (i = 0; i < set.count && !result; i++) {
      dataset_draw_shape(out->pictures + i * picture, out->rows, out->columns, set.items[i].record);
      if (i % 100 == 99) result = dataset__poll(&set, i + 1);
    }
  } else if (!result) {
    result = dataset__read_records(&set, out);
  }
  if (!result) result = dataset__finish(&set, out);
  dataset__close(&set);
  if (result) dataset_free(out);
  return result;
}

IMAGE_API void dataset_free(dataset *data)
{
  if (!data) return;
  free(data->pictures);
  free(data->tokens);
  free(data->labels);
  dataset__free_names(data->names, data->classes);
  dataset__free_names(data->paths, (int)data->count);
  free(data->large);
  free(data->large_at);
  free(data->large_size);
  memset(data, 0, sizeof *data);
}

/* ---- augmentation --------------------------------------------------------------------------- */

/* Position `at` of a row of `size` that is continued by reflection: -1 is 1, size is size - 2. */
static int dataset__reflect(int at, int size)
{
  if (at < 0) at = -at;
  return at >= size ? 2 * (size - 1) - at : at;
}

IMAGE_API void dataset_crop(uint8_t *to, const uint8_t *from, int rows, int columns, int pad_rows,
                            int pad_columns, int row, int column, int mirror)
{
  int y, x;
  for (y = 0; y < rows; y++)
    for (x = 0; x < columns; x++) {
      int from_y = dataset__reflect(row - pad_rows + y, rows);
      int from_x = dataset__reflect(column - pad_columns + x, columns);
      if (mirror) from_x = columns - 1 - from_x;             /* the padding is symmetric */
      memcpy(to, from + 3 * ((size_t)from_y * (size_t)columns + (size_t)from_x), 3);
      to += 3;
    }
}

IMAGE_API void dataset_pad_crop_mirror(uint8_t *to, const uint8_t *from, int rows, int columns,
                                       igpt_rng *rng)
{
  int pad_rows = (rows + 4) / 8, pad_columns = (columns + 4) / 8;
  int mirror = (int)igpt_rng_below(rng, 2);
  int row = (int)igpt_rng_below(rng, (uint32_t)(2 * pad_rows + 1));
  int column = (int)igpt_rng_below(rng, (uint32_t)(2 * pad_columns + 1));
  dataset_crop(to, from, rows, columns, pad_rows, pad_columns, row, column, mirror);
}

/* Resizing to a shorter side of s and cropping n is cropping n / s of the shorter side and
   resizing. */
static int dataset__resize_crop(uint8_t *to, const dataset *data, size_t index, igpt_rng *rng)
{
  const uint8_t *from = data->large_at ? data->large + data->large_at[index]
                        : data->pictures +
                            index * (size_t)data->rows * (size_t)data->columns * 3;
  int rows = data->large_at ? data->large_size[2 * index] : data->rows;
  int columns = data->large_at ? data->large_size[2 * index + 1] : data->columns;
  int shorter = 256 + (int)igpt_rng_below(rng, 384 - 256 + 1), crop_rows, crop_columns, row, column;
  image_window(&crop_rows, &crop_columns, data->rows, data->columns, rows, columns);
  crop_rows = image__ratio(crop_rows, 224, shorter, crop_rows);
  crop_columns = image__ratio(crop_columns, 224, shorter, crop_columns);
  row = (int)igpt_rng_below(rng, (uint32_t)(rows - crop_rows + 1));
  column = (int)igpt_rng_below(rng, (uint32_t)(columns - crop_columns + 1));
  return image_resize(to, data->rows, data->columns,
                      from + 3 * ((size_t)row * (size_t)columns + (size_t)column), crop_rows,
                      crop_columns, (size_t)columns * 3);
}

IMAGE_API int dataset_picture(const dataset *data, uint8_t *to, size_t index,
                              dataset_augment augment, igpt_rng *rng)
{
  size_t picture = (size_t)data->rows * (size_t)data->columns * 3;
  if (!data->pictures || index >= data->count || (augment != DATASET_PLAIN && !rng)) return -1;
  if (augment == DATASET_RESIZE_CROP) return dataset__resize_crop(to, data, index, rng);
  if (augment == DATASET_PAD_CROP_MIRROR)
    dataset_pad_crop_mirror(to, data->pictures + index * picture, data->rows, data->columns, rng);
  else
    memcpy(to, data->pictures + index * picture, picture);
  return 0;
}

/* ---- MD5 ------------------------------------------------------------------------------------ */

/* One block of 64 bytes: 64 steps, four rounds of 16, each with its own function and word order. */
static void dataset__md5_block(uint32_t state[4], const uint8_t *block, const uint32_t table[64])
{
  static const int turns[4][4] = {
    {7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
  static const int factor[4] = {1, 5, 3, 7}, shift[4] = {0, 1, 5, 0};
  uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
  int i;
  for (i = 0; i < 64; i++) {
    int round = i / 16, word = (factor[round] * i + shift[round]) % 16, turn = turns[round][i % 4];
    uint32_t f = round == 0 ? (b & c) | (~b & d) : round == 1 ? (b & d) | (c & ~d)
                 : round == 2 ? b ^ c ^ d : c ^ (b | ~d);
    uint32_t sum = a + f + image__number(block + 4 * word, 4, 0) + table[i];
    a = d;
    d = c;
    c = b;
    b += sum << turn | sum >> (32 - turn);
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
}

IMAGE_API int dataset_md5(char digits[33], const char *path, char *error, size_t capacity)
{
  uint32_t state[4] = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u}, table[64];
  uint8_t bytes[128];
  uint64_t length = 0;
  size_t n, blocks, i;
  FILE *file = fopen(path, "rb");
  digits[0] = 0;
  if (!file) return image_fail(error, capacity, "%s: %s", path, strerror(errno));
  for (i = 0; i < 64; i++)
    table[i] = (uint32_t)(uint64_t)(fabs(sin((double)i + 1)) * 4294967296.0);
  while ((n = fread(bytes, 1, 64, file)) == 64) {
    dataset__md5_block(state, bytes, table);
    length += 64;
  }
  if (ferror(file)) {
    fclose(file);
    return image_fail(error, capacity, "%s: reading failed after %ju bytes", path,
                      (uintmax_t)length);
  }
  fclose(file);
  length = (length + n) * 8;                 /* a one bit, zeros, the length in bits */
  blocks = n < 56 ? 1 : 2;
  memset(bytes + n, 0, sizeof bytes - n);
  bytes[n] = 0x80;
  for (i = 0; i < 8; i++) bytes[64 * blocks - 8 + i] = (uint8_t)(length >> (8 * i));
  for (i = 0; i < blocks; i++) dataset__md5_block(state, bytes + 64 * i, table);
  for (i = 0; i < 16; i++)
    snprintf(digits + 2 * i, 3, "%02x", (unsigned)(state[i / 4] >> (8 * (i % 4)) & 255u));
  return 0;
}

/* ---- downloading ---------------------------------------------------------------------------- */

/* Runs a program with these arguments, without a shell, its output thrown away. Returns its exit
   status; 127 if there is no such program; -1 if it could not be run or was killed. */
static int dataset__run(const char *const *arguments)
{
  int status = 0;
  pid_t child = fork(), got;
  if (child < 0) return -1;
  if (child == 0) {
    int null = open("/dev/null", O_WRONLY);
    if (null >= 0) dup2(null, 1);
    execvp(arguments[0], (char *const *)(uintptr_t)arguments);
    _exit(127);
  }
  do got = waitpid(child, &status, 0); while (got < 0 && errno == EINTR);
  return got == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void dataset__note(const dataset_fetch_desc *desc, const char *format, const char *a,
                          const char *b)
{
  char text[IMAGE_ERROR];
  if (!desc->note) return;
  snprintf(text, sizeof text, format, a, b);
  desc->note(desc->note_user, text);
}

/* 1: the six files are there, each of whole records; 0: none of them; -1: some, with a sentence. */
static int dataset__cifar10_state(const char *folder, char *error, size_t capacity)
{
  static const char *const names[6] = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                       "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"};
  int i, present = 0, bad = -1;
  intmax_t size = 0;
  for (i = 0; i < 6; i++) {
    char *path = dataset__join(folder, names[i]);
    struct stat status;
    int found = path && stat(path, &status) == 0 && S_ISREG(status.st_mode);
    int whole = found && status.st_size > 0 && status.st_size % 3073 == 0;
    present += found;
    if (!whole && bad < 0) {
      bad = i;
      size = found ? (intmax_t)status.st_size : -1;
    }
    free(path);
  }
  if (bad < 0) return 1;
  if (!present) return 0;
  if (size < 0)
    return image_fail(error, capacity, "%s: %s is missing, and %d of 6 files are there", folder,
                      names[bad], present);
  return image_fail(error, capacity, "%s/%s: the file has %jd bytes, and CIFAR-10 comes in records "
                    "of 3073", folder, names[bad], size);
}

/* mkdir -p */
static int dataset__make_folder(const char *folder)
{
  char *path = dataset__copy(folder, strlen(folder)), *at;
  int result = -1;
  if (!path) return -1;
  for (at = path + 1; *path && *at; at++)
    if (*at == '/') {
      *at = 0;
      mkdir(path, 0777);
      *at = '/';
    }
  if (*path && (mkdir(path, 0777) == 0 || errno == EEXIST)) result = 0;
  free(path);
  return result;
}

/* Removes a folder that this program made, with what tar put there. Links are not followed. */
static void dataset__remove(const char *path)
{
  struct stat status;
  if (lstat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
    DIR *handle = opendir(path);
    struct dirent *entry;
    while (handle && (entry = readdir(handle)) != NULL) {
      char *inner;
      if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
      inner = dataset__join(path, entry->d_name);
      if (inner) dataset__remove(inner);
      free(inner);
    }
    if (handle) closedir(handle);
    rmdir(path);
  } else {
    unlink(path);
  }
}

/* Removes what killed processes left in the folder: parts of the archive, and half unpacked ones. A
   process has its number in the names of its own, so that two may work at once. */
static void dataset__remove_stale(const char *folder)
{
  DIR *handle = opendir(folder);
  struct dirent *entry;
  while (handle && (entry = readdir(handle)) != NULL) {
    static const char *const starts[2] = {"cifar-10-binary.tar.gz.", ".unpack."};
    static const char *const ends[2] = {".part", ""};
    int i;
    for (i = 0; i < 2; i++)
      if (dataset__starts(entry->d_name, starts[i])) {
        char *end, *path;
        const long process = strtol(entry->d_name + strlen(starts[i]), &end, 10);
        if (process < 1 || process > INT_MAX || strcmp(end, ends[i]) != 0) continue;
        if (process != (long)getpid() && (kill((pid_t)process, 0) == 0 || errno != ESRCH)) continue;
        path = dataset__join(folder, entry->d_name);
        if (path) dataset__remove(path);
        free(path);
      }
  }
  if (handle) closedir(handle);
}

static int dataset__check_md5(const char *path, const char *md5, char *error, size_t capacity)
{
  char digits[33];
  size_t i;
  if (dataset_md5(digits, path, error, capacity) != 0) return -1;
  for (i = 0; i < 33; i++) {
    int c = (unsigned char)md5[i];
    if (c >= 'A' && c <= 'F') c += 'a' - 'A';
    if (c != digits[i])
      return image_fail(error, capacity, "%s: its MD5 is %s, and %.40s is expected", path, digits,
                        md5);
  }
  return 0;
}

/* Downloads to path as a whole or not at all. */
static int dataset__download(const char *path, const dataset_fetch_desc *desc, const char *url,
                             const char *md5, char *error, size_t capacity)
{
  size_t room = strlen(path) + 32;
  char *part = (char *)malloc(room);
  const char *show = isatty(2) ? "-#" : "-sS";
  /* three tries; one ends when nothing has come for twenty seconds */
  const char *curl[] = {"curl", "-f", "-L", "--connect-timeout", "20", "--speed-limit", "1",
                        "--speed-time", "20", "--retry", "2", show, "-o", part, "--", url, NULL};
  const char *wget[] = {"wget", "-q", "-T", "20", "-t", "3", "-O", part, "--", url, NULL};
  const char *tool = "curl";
  int status, result = 0;
  if (!part) return image_fail(error, capacity, "%s: no memory for %zu bytes", path, room);
  if (!dataset__starts(url, "https://") && !dataset__starts(url, "http://")) {
    free(part);
    return image_fail(error, capacity, "url: \"%s\" starts with neither https:// nor http://", url);
  }
  snprintf(part, room, "%s.%ld.part", path, (long)getpid());
  dataset__note(desc, "downloading %s to %s", url, path);
  status = dataset__run(curl);
  if (status == 127) {
    tool = "wget";
    status = dataset__run(wget);
  }
  if (status == 127)
    result = image_fail(error, capacity, "%s: neither curl nor wget is installed to download it",
                        url);
  else if (status != 0)
    result = image_fail(error, capacity, "%s: the download failed (%s ended with %d, not 0)", url,
                        tool, status);
  if (!result) result = dataset__check_md5(part, md5, error, capacity);
  if (!result && rename(part, path) != 0)
    result = image_fail(error, capacity, "%s: cannot be made: %s", path, strerror(errno));
  if (result) unlink(part);
  free(part);
  return result;
}

/* Unpacks into a folder of its own first, so that `target` is whole or not there. */
static int dataset__unpack_archive(const char *archive, const char *folder, const char *target,
                                   char *error, size_t capacity)
{
  char name[48], *temporary, *inner = NULL;
  const char *tar[] = {"tar", "-xzf", NULL, "-C", NULL, NULL};
  int status, result = 0;
  snprintf(name, sizeof name, ".unpack.%ld", (long)getpid());
  temporary = dataset__join(folder, name);
  if (temporary) inner = dataset__join(temporary, "cifar-10-batches-bin");
  if (!temporary || !inner) {
    result = image_fail(error, capacity, "%s: no memory to unpack it", archive);
  } else if (mkdir(temporary, 0777) != 0) {
    result = image_fail(error, capacity, "%s: cannot be made: %s", temporary, strerror(errno));
  } else {
    tar[2] = archive;
    tar[4] = temporary;
    status = dataset__run(tar);
    if (status != 0)
      result = image_fail(error, capacity, "%s: unpacking failed (tar ended with %d, not 0)",
                          archive, status);
    if (!result) {
      status = dataset__cifar10_state(inner, error, capacity);
      if (status < 0) result = -1;
      if (status == 0)
        result = image_fail(error, capacity, "%s: holds no cifar-10-batches-bin with 6 batch files",
                            archive);
    }
    if (!result && rename(inner, target) != 0)
      result = image_fail(error, capacity, "%s: cannot be made: %s", target, strerror(errno));
    dataset__remove(temporary);
  }
  free(temporary);
  free(inner);
  return result;
}

IMAGE_API int dataset_fetch_cifar10(char *path, size_t path_capacity,
                                    const dataset_fetch_desc *desc, char *error, size_t capacity)
{
  const char *url = desc->url ? desc->url : DATASET_CIFAR10_URL;
  const char *md5 = desc->md5 ? desc->md5 : DATASET_CIFAR10_MD5;
  const char *folder = desc->folder && desc->folder[0] ? desc->folder : ".", *found = NULL;
  char *target = dataset__join(folder, "cifar-10-batches-bin");
  char *archive = dataset__join(folder, "cifar-10-binary.tar.gz");
  struct stat status;
  int state, result = 0, downloaded = 0;
  if (!target || !archive) {
    result = image_fail(error, capacity, "%s: no memory for its name", folder);
  } else if (dataset__cifar10_state(folder, error, capacity) == 1) {
    found = folder;
  } else if ((state = dataset__cifar10_state(target, error, capacity)) != 0) {
    result = state < 0 ? -1 : 0;
    found = target;
  } else {
    found = target;
    dataset__remove_stale(folder);
    if (stat(archive, &status) == 0) {
      result = dataset__check_md5(archive, md5, error, capacity);
    } else if (desc->offline) {
      result = image_fail(error, capacity, "%s: holds neither cifar-10-batches-bin nor "
                          "cifar-10-binary.tar.gz, and nothing is downloaded", folder);
    } else if (dataset__make_folder(folder) != 0) {
      result = image_fail(error, capacity, "%s: cannot be made: %s", folder, strerror(errno));
    } else {
      result = dataset__download(archive, desc, url, md5, error, capacity);
      downloaded = !result;
    }
    if (!result) {
      dataset__note(desc, "unpacking %s to %s", archive, target);
      result = dataset__unpack_archive(archive, folder, target, error, capacity);
    }
    if (downloaded && !result) unlink(archive);
  }
  if (!result && strlen(found) + 1 > path_capacity)
    result = image_fail(error, capacity, "%s: the path has %zu bytes, and there is room for %zu",
                        found, strlen(found) + 1, path_capacity);
  if (!result) memcpy(path, found, strlen(found) + 1);
  free(target);
  free(archive);
  return result;
}

/* ---- drawn pictures ------------------------------------------------------------------------- */

IMAGE_API const char *dataset_shape_name(int label)
{
  static const char *const names[DATASET_SHAPE_CLASSES] = {
    "disc", "ring", "square", "triangle", "plus", "star", "crescent", "heart", "stripes", "checks"};
  return label >= 0 && label < DATASET_SHAPE_CLASSES ? names[label] : "?";
}

/* 1 inside the shape, whose outermost points are at distance 1 of the origin or a little more. */
static int dataset__inside(int shape, double x, double y)
{
  const double pi = 3.14159265358979;
  double r2 = x * x + y * y, a, b;
  switch (shape) {
    case 0: return r2 < 0.81;
    case 1: return r2 < 1 && r2 > 0.3;
    case 2: return fabs(x) < 0.78 && fabs(y) < 0.78;
    case 3: return y > -0.55 && y < 1.1 - 1.9 * fabs(x);
    case 4: return fabs(x) < (fabs(y) < 0.32 ? 1 : 0.32) && fabs(y) < 1;
    case 5:                                  /* a tenth of the star: a triangle from tip to notch */
      a = fabs(fmod(atan2(x, y) + 2 * pi, 2 * pi / 5));
      if (a > pi / 5) a = 2 * pi / 5 - a;
      x = sqrt(r2) * cos(a);
      y = sqrt(r2) * sin(a);
      a = 0.45 * cos(pi / 5) - 1.1;
      b = 0.45 * sin(pi / 5);
      return b * (x - 1.1) - a * y < 0;
    case 6: return r2 < 1 && (x - 0.45) * (x - 0.45) + y * y > 0.65;
    case 7:
      x *= 1.2;
      y = 1.2 * y + 0.1;
      a = x * x + y * y - 1;
      return a * a * a - x * x * y * y * y < 0;
    case 8: return x - 0.55 * floor(x / 0.55) < 0.275;
    default: return (((int)floor(x / 0.45) + (int)floor(y / 0.45)) & 1) == 0;
  }
}

static void dataset__hsv(double rgb[3], double hue, double saturation, double value)
{
  int c;
  hue -= floor(hue);
  for (c = 0; c < 3; c++) {                  /* red, green, blue peak at 0, 1/3, 2/3 */
    double d = fabs(hue - c / 3.0), ramp;
    if (d > 0.5) d = 1 - d;
    ramp = 2 - 6 * d;
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    rgb[c] = value * (1 - saturation * (1 - ramp));
  }
}

static double dataset__between(igpt_rng *rng, double low, double high)
{
  return low + (high - low) * (double)igpt_rng_uniform(rng);
}

IMAGE_API int dataset_draw_shape(uint8_t *to, int rows, int columns, uint64_t index)
{
  igpt_rng rng = igpt_rng_seed(UINT64_C(0x736861706573), index);
  int shape = (int)(index % DATASET_SHAPE_CLASSES), texture = shape >= 8, y, x, c, s;
  double unit = (rows < columns ? rows : columns) / 2.0, hue = dataset__between(&rng, 0, 1);
  double other = hue + dataset__between(&rng, 0.3, 0.7), ground[2][3], ink[2][3];
  double value = dataset__between(&rng, 0.25, 1), tone = dataset__between(&rng, 0.2, 0.55);
  double radius = texture ? dataset__between(&rng, 0.6, 1.1) : dataset__between(&rng, 0.45, 0.75);
  double turn = dataset__between(&rng, -0.35, 0.35) + (texture ? dataset__between(&rng, 0, 3) : 0);
  double sway = 0.95 - radius > 0 ? 0.95 - radius : 0;
  double centre_x = dataset__between(&rng, -sway, sway);
  double centre_y = dataset__between(&rng, -sway, sway);
  double lean = dataset__between(&rng, -1, 1), cosine = cos(turn), sine = sin(turn);
  double shadow = texture ? 0 : 0.12;
  dataset__hsv(ground[0], hue, tone, value);       /* a ground that fades over the picture */
  dataset__hsv(ground[1], hue + 0.06, tone * 0.8, value * 0.72);
  value = value > 0.62 ? dataset__between(&rng, 0.2, 0.55) : dataset__between(&rng, 0.85, 1);
  dataset__hsv(ink[0], other, dataset__between(&rng, 0.6, 0.95), value);
  dataset__hsv(ink[1], other + 0.04, 0.8, value * 0.85);
  for (y = 0; y < rows; y++)
    for (x = 0; x < columns; x++) {
      double covered = 0, shaded = 0, down = (y + 0.5) / rows, fade, u, v;
      uint32_t grain;
      int near;
      fade = down + lean * ((x + 0.5) / columns - 0.5) * 0.6;
      fade = fade < 0 ? 0 : fade > 1 ? 1 : fade;
      grain = igpt_rng_next(&rng);
      u = (x + 0.5 - columns / 2.0) / unit - centre_x;
      v = (rows / 2.0 - y - 0.5) / unit - centre_y;
      near = texture || u * u + v * v < (1.5 * radius + 1 / unit) * (1.5 * radius + 1 / unit);
      for (s = 0; near && s < 9; s++) {      /* 3 x 3 samples of the pixel */
        double du = u + (s % 3 - 1) / (3 * unit), dv = v + (1 - s / 3) / (3 * unit);
        double p = (cosine * du + sine * dv) / radius, q = (cosine * dv - sine * du) / radius;
        covered += dataset__inside(shape, p, q);
        if (shadow > 0) shaded += dataset__inside(shape, p - shadow, q + shadow);
      }
      covered /= 9;
      shaded /= 9;
      for (c = 0; c < 3; c++) {
        double back = ground[0][c] + (ground[1][c] - ground[0][c]) * fade;
        double front = ink[0][c] + (ink[1][c] - ink[0][c]) * down;
        double noise = ((grain >> (8 * c) & 255u) / 127.5 - 1) * 0.012;
        double light = back * (1 - 0.35 * shaded) * (1 - covered) + front * covered + noise;
        light = light < 0 ? 0 : light > 1 ? 1 : light;
        *to++ = (uint8_t)(light * 255 + 0.5);
      }
    }
  return shape;
}

#endif
