/* dataset.c: examples/image.h, dataset.h and plot.h on files that this program makes itself, and
   on real photographs where they are at hand.  With arguments, `dataset --fetch FOLDER URL MD5`
   runs dataset_fetch_cifar10 for tests/fetch.sh. */

#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include <dirent.h>
#include <errno.h>
#include <stddef.h>

/* A folder that fails after so many entries; less than 0: it does not. */
static int entries_left = -1;

static struct dirent *readdir_for_a_while(DIR *folder)
{
  if (entries_left == 0) {
    errno = EIO;
    return NULL;
  }
  if (entries_left > 0) entries_left--;
  return readdir(folder);
}

#define readdir readdir_for_a_while
#include "igpt.h"
#include "../examples/dataset.h"
#undef readdir
#include "../examples/plot.h"
#include "test.h"

#include <signal.h>
#include <sys/resource.h>

#define HERE "build/tests/dataset-files"

static char error[IMAGE_ERROR];

/* ---- making files --------------------------------------------------------------------------- */

static const char *at(const char *name)
{
  static char path[8][300];
  static int turn;
  turn = (turn + 1) % 8;
  snprintf(path[turn], sizeof path[turn], HERE "/%s", name);
  return path[turn];
}

static void folder(const char *name)
{
  if (dataset__make_folder(at(name)) != 0) {
    printf("cannot make %s\n", at(name));
    exit(2);
  }
}

static void put(const char *name, const void *bytes, size_t count)
{
  FILE *file = fopen(at(name), "wb");
  if (!file || fwrite(bytes, 1, count, file) != count || fclose(file) != 0) {
    printf("cannot write %s\n", at(name));
    exit(2);
  }
}

/* Every pixel of every picture is its own: picture, channel and place all show. */
static uint8_t pixel(size_t picture, int channel, int y, int x)
{
  return (uint8_t)(picture * 37 + (size_t)channel * 91 + (size_t)y * 5 + (size_t)x * 3);
}

static void put_cifar(const char *name, size_t first, size_t count, int label_bytes, int classes)
{
  size_t record = 3072 + (size_t)label_bytes, i;
  uint8_t *bytes = (uint8_t *)malloc(record * count), *to = bytes;
  int c, y, x;
  for (i = first; i < first + count; i++) {
    if (label_bytes == 2) *to++ = 77;                        /* the coarse label is not the label */
    *to++ = (uint8_t)(i % (size_t)classes);
    for (c = 0; c < 3; c++)
      for (y = 0; y < 32; y++)
        for (x = 0; x < 32; x++) *to++ = pixel(i, c, y, x);
  }
  put(name, bytes, record * count);
  free(bytes);
}

/* Numbers as they lie here: "<i4" becomes ">i4" on a big-endian machine. */
static void put_npy(const char *name, const char *type, const char *shape, const void *data,
                    size_t bytes)
{
  const uint16_t one = 1;
  char head[200];
  uint8_t *all = (uint8_t *)malloc(200 + bytes);
  int n = snprintf(head, sizeof head, "{'descr': '%c%s', 'fortran_order': False, 'shape': (%s), }",
                   type[0] == '<' && !*(const uint8_t *)&one ? '>' : type[0], type + 1, shape);
  size_t size = ((size_t)n + 10 + 1 + 63) / 64 * 64 - 10;
  memcpy(all, "\x93NUMPY\1\0", 8);
  all[8] = (uint8_t)size;
  all[9] = (uint8_t)(size >> 8);
  memset(all + 10, ' ', size);
  memcpy(all + 10, head, (size_t)n);
  all[10 + size - 1] = '\n';
  if (bytes) memcpy(all + 10 + size, data, bytes);
  put(name, all, 10 + size + bytes);
  free(all);
}

/* A picture whose pixels are pixel(number, ...), as PNG. */
static void put_png(const char *name, size_t number, int rows, int columns)
{
  uint8_t *rgb = (uint8_t *)malloc((size_t)(rows * columns) * 3);
  int i;
  for (i = 0; i < rows * columns * 3; i++)
    rgb[i] = pixel(number, i % 3, i / 3 / columns, i / 3 % columns);
  if (image_save_png(at(name), rgb, rows, columns, error, sizeof error) != 0) {
    printf("%s\n", error);
    exit(2);
  }
  free(rgb);
}

typedef struct bytes {
  uint8_t data[40000];
  size_t  count;
} bytes;

static void emit(bytes *b, const void *data, size_t count)
{
  if (b->count + count > sizeof b->data) exit(2);
  memcpy(b->data + b->count, data, count);
  b->count += count;
}

/* `width` bits of `code` into the scan, high bit first; a full byte 0xff is followed by a zero. */
static void emit_bits(bytes *b, unsigned *held, int *free_bits, unsigned code, int width)
{
  while (width-- > 0) {
    *held = *held << 1 | (code >> width & 1u);
    if (--*free_bits == 0) {
      uint8_t byte[2];
      byte[0] = (uint8_t)*held;
      byte[1] = 0;
      emit(b, byte, byte[0] == 0xff ? 2 : 1);
      *held = 0;
      *free_bits = 8;
    }
  }
}

/* A JPEG of flat 8 x 8 blocks, (rows, columns, 3) in Y Cb Cr: each block is the difference of its
   level from the one before, in a category of 4 bits and that many bits, and an end-of-block of
   one bit. */
static void make_jpeg(bytes *b, const uint8_t *levels, int rows, int columns)
{
  static const uint8_t head[] = {
    0xff, 0xd8, 0xff, 0xdb, 0, 67, 0};
  static const uint8_t frame[] = {
    0xff, 0xc0, 0, 17, 8, 0, 0, 0, 0, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0,
    0xff, 0xc4, 0, 49, 0x00, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
    0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 63, 0};
  uint8_t ones[64], size[4];
  int last[3] = {0, 0, 0}, i, c, free_bits = 8;
  unsigned held = 0;
  b->count = 0;
  memset(ones, 1, sizeof ones);
  emit(b, head, sizeof head);
  emit(b, ones, 64);
  emit(b, frame, sizeof frame);
  size[0] = 0;
  size[1] = (uint8_t)(8 * rows);
  size[2] = 0;
  size[3] = (uint8_t)(8 * columns);
  memcpy(b->data + 71 + 5, size, 4);
  for (i = 0; i < rows * columns; i++)
    for (c = 0; c < 3; c++) {
      int level = 8 * (levels[3 * i + c] - 128), d = level - last[c], category = 0;
      last[c] = level;
      while (abs(d) >> category) category++;
      emit_bits(b, &held, &free_bits, (unsigned)category, 4);
      emit_bits(b, &held, &free_bits, (unsigned)(d < 0 ? d + (1 << category) - 1 : d), category);
      emit_bits(b, &held, &free_bits, 0, 1);
    }
  while (free_bits != 8) emit_bits(b, &held, &free_bits, 1, 1);
  emit(b, "\xff\xd9", 2);
}

static dataset_desc load_desc(const char *path, dataset_split split)
{
  dataset_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.path = path;
  desc.split = split;
  return desc;
}

/* Loads or fails the running test; the set is zeroed then. */
static dataset load(const char *path, dataset_split split, int side)
{
  dataset data;
  dataset_desc desc = load_desc(path, split);
  desc.rows = side;
  if (dataset_load(&data, &desc, error, sizeof error) != 0) {
    test_errors++;
    printf("%s\n", error);
  }
  return data;
}

/* The load must fail, and the sentence hold all the words, which end with a null. */
static void refused(const dataset_desc *desc, ...)
{
  dataset data;
  va_list words;
  const char *word;
  error[0] = 0;
  if (dataset_load(&data, desc, error, sizeof error) == 0) {
    test_errors++;
    printf("%s was loaded, and should not have been\n", desc->path);
  }
  CHECK(data.pictures == NULL && data.count == 0);
  va_start(words, desc);
  while ((word = va_arg(words, const char *)) != NULL)
    if (!strstr(error, word)) {
      test_errors++;
      printf("\"%s\" is not in \"%s\"\n", word, error);
    }
  va_end(words);
}

/* Whether picture `index` of the set is the picture of that number, of the set's own size. */
static int is_picture(const dataset *data, size_t index, size_t number, int grey)
{
  const uint8_t *rgb = data->pictures + index * (size_t)(data->rows * data->columns) * 3;
  int i;
  for (i = 0; i < data->rows * data->columns * 3; i++)
    if (rgb[i] != pixel(number, grey ? 0 : i % 3, i / 3 / data->columns, i / 3 % data->columns))
      return 0;
  return 1;
}

/* ---- CIFAR ---------------------------------------------------------------------------------- */

static void make_cifar10(void)
{
  folder("c10");
  put_cifar("c10/data_batch_1.bin", 0, 50, 1, 10);
  put_cifar("c10/data_batch_2.first30.bin", 50, 30, 1, 10);
  put_cifar("c10/test_batch.bin", 80, 12, 1, 10);
}

TEST(cifar10_pixels_labels_parts)
{
  dataset data;
  size_t i;
  make_cifar10();
  data = load(at("c10"), DATASET_TRAIN_ALL, 0);
  CHECK_INT(data.kind, DATASET_CIFAR10);
  CHECK_INT(data.count, 80);
  CHECK_INT(data.rows, 32);
  CHECK_INT(data.columns, 32);
  CHECK_INT(data.classes, 10);
  for (i = 0; i < data.count; i++) {
    CHECK(is_picture(&data, i, i, 0));
    CHECK_INT(data.labels[i], i % 10);
  }
  CHECK(data.names && strcmp(data.names[3], "cat") == 0);
  dataset_free(&data);
  CHECK(data.names == NULL);
  data = load(at("c10"), DATASET_TEST, 0);
  CHECK_INT(data.count, 12);
  for (i = 0; i < data.count; i++) CHECK(is_picture(&data, i, 80 + i, 0));
  dataset_free(&data);
  data = load(at("c10"), DATASET_ALL, 0);
  CHECK_INT(data.count, 92);
  dataset_free(&data);
  put("c10/batches.meta.txt", "a\r\nb\nc\nd\ne\n\nf\ng\nh\ni\nj\n", 23);
  data = load(at("c10"), DATASET_TEST, 0);
  CHECK(data.names && strcmp(data.names[0], "a") == 0 && strcmp(data.names[9], "j") == 0);
  dataset_free(&data);
}

/* A part of a set that is missing has a name; what is there is not taken for the whole. */
TEST(a_folder_that_fails_half_way_is_no_shorter_folder)
{
  dataset_desc desc;
  int n;
  folder("half");
  put_png("half/a.png", 0, 8, 8);
  put_png("half/b.png", 1, 8, 8);
  desc = load_desc(at("half"), DATASET_ALL);
  desc.rows = 8;
  for (n = 0; n < 4; n++) {                 /* of ".", ".." and the files */
    entries_left = n;
    refused(&desc, "half", strerror(EIO), NULL);
  }
  entries_left = -1;
  {
    dataset data = load(at("half"), DATASET_ALL, 8);
    CHECK_INT(data.count, 2);
    dataset_free(&data);
  }
}

TEST(a_missing_file_of_a_set_is_named)
{
  dataset_desc desc;
  char name[40];
  int n;
  folder("gap");
  for (n = 1; n <= 5; n++) {
    snprintf(name, sizeof name, "gap/data_batch_%d.bin", n);
    put_cifar(name, 10 * (size_t)n, 10, 1, 10);
  }
  desc = load_desc(at("gap"), DATASET_TEST);
  refused(&desc, "gap/test_batch.bin", "missing", NULL);
  put_cifar("gap/test_batch.bin", 60, 10, 1, 10);
  {
    dataset data = load(at("gap"), DATASET_TEST, 0);
    CHECK_INT(data.count, 10);
    dataset_free(&data);
  }
  remove(at("gap/data_batch_3.bin"));
  refused(&desc, "gap/data_batch_3.bin", "missing", NULL);
  folder("gap100");
  put_cifar("gap100/train.bin", 0, 10, 2, 100);
  desc = load_desc(at("gap100"), DATASET_TRAIN);
  refused(&desc, "gap100/test.bin", "missing", NULL);
}

TEST(looking_takes_the_own_test_part_or_all)
{
  dataset data;
  make_cifar10();
  data = load(at("c10"), DATASET_LOOK, 0);
  CHECK_INT(data.count, 12);
  CHECK_INT(data.split, DATASET_TEST);
  dataset_free(&data);
  data = load(at("c10/data_batch_1.bin"), DATASET_LOOK, 0);
  CHECK_INT(data.count, 50);
  CHECK_INT(data.split, DATASET_ALL);
  CHECK(strstr(data.title, ", all: 50 pictures") != NULL);
  dataset_free(&data);
  folder("one");
  put_png("one/1.png", 3, 8, 8);
  data = load(at("one"), DATASET_LOOK, 8);
  CHECK_INT(data.count, 1);
  dataset_free(&data);
}

TEST(cifar_reduced_is_area_mean)
{
  dataset data;
  int y, x, c, worst = 0;
  make_cifar10();
  data = load(at("c10"), DATASET_TEST, 16);
  for (y = 0; y < 16; y++)
    for (x = 0; x < 16; x++)
      for (c = 0; c < 3; c++) {
        int sum = pixel(80, c, 2 * y, 2 * x) + pixel(80, c, 2 * y, 2 * x + 1) +
                  pixel(80, c, 2 * y + 1, 2 * x) + pixel(80, c, 2 * y + 1, 2 * x + 1);
        int off = abs(4 * data.pictures[(y * 16 + x) * 3 + c] - sum);
        if (off > worst) worst = off;
      }
  CHECK(worst <= 2);                         /* of 4: rounded to nearest */
  dataset_free(&data);
}

TEST(cifar100_takes_the_fine_label)
{
  dataset data;
  size_t i;
  folder("c100");
  put_cifar("c100/train.first130.bin", 0, 130, 2, 100);
  put_cifar("c100/test.bin", 130, 7, 2, 100);
  data = load(at("c100"), DATASET_TRAIN_ALL, 0);
  CHECK_INT(data.kind, DATASET_CIFAR100);
  CHECK_INT(data.count, 130);
  CHECK_INT(data.classes, 100);
  for (i = 0; i < data.count; i++) {
    CHECK(is_picture(&data, i, i, 0));
    CHECK_INT(data.labels[i], i % 100);
  }
  CHECK(data.names && strcmp(data.names[42], "42") == 0);    /* no file of names */
  dataset_free(&data);
  data = load(at("c100/test.bin"), DATASET_TEST, 0);         /* one file, all of it */
  CHECK_INT(data.count, 7);
  CHECK(is_picture(&data, 6, 136, 0));
  dataset_free(&data);
}

/* ---- splits --------------------------------------------------------------------------------- */

/* Number of the picture at `index`, of 0..255: 37 is odd, so the first byte tells. */
static int number_of(const dataset *data, size_t index)
{
  int byte = data->pictures[index * (size_t)(data->rows * data->columns) * 3], n;
  for (n = 0; n < 256; n++)
    if (pixel((size_t)n, 0, 0, 0) == byte) return n;
  return -1;
}

TEST(split_is_stratified_seeded_and_complete)
{
  dataset train, validation, other, few;
  dataset_desc desc;
  int seen[92] = {0}, of_class[10] = {0}, same = 1;
  size_t i;
  make_cifar10();
  train = load(at("c10"), DATASET_TRAIN, 0);
  validation = load(at("c10"), DATASET_VALIDATION, 0);
  CHECK_INT(train.count, 72);
  CHECK_INT(validation.count, 8);
  for (i = 0; i < train.count; i++) seen[number_of(&train, i)]++;
  for (i = 0; i < validation.count; i++) seen[number_of(&validation, i)]++;
  for (i = 0; i < 92; i++) CHECK_INT(seen[i], i < 80);       /* each once, none of the test part */
  for (i = 0; i < validation.count; i++) of_class[validation.labels[i]]++;
  for (i = 0; i < 10; i++) CHECK(of_class[i] <= 1);          /* 0.8 a class, 8 in all */
  for (i = 1; i < train.count; i++) CHECK(number_of(&train, i) > number_of(&train, i - 1));
  dataset_free(&train);

  desc = load_desc(at("c10"), DATASET_VALIDATION);
  desc.seed = 1;
  CHECK_INT(dataset_load(&other, &desc, error, sizeof error), 0);
  for (i = 0; i < 8 && i < other.count; i++)
    if (number_of(&other, i) != number_of(&validation, i)) same = 0;
  CHECK(!same);
  dataset_free(&other);

  desc.seed = 0;
  desc.limit = 3;
  CHECK_INT(dataset_load(&few, &desc, error, sizeof error), 0);
  CHECK_INT(few.count, 3);
  CHECK_INT(few.available, 8);
  for (i = 0; i < 3 && i < few.count; i++)
    CHECK_INT(number_of(&few, i), number_of(&validation, i));
  dataset_free(&few);
  dataset_free(&validation);

  desc.limit = 0;
  desc.hold_out = 0.25;
  CHECK_INT(dataset_load(&other, &desc, error, sizeof error), 0);
  CHECK_INT(other.count, 20);
  for (i = 0; i < 10; i++) of_class[i] = 0;
  for (i = 0; i < other.count; i++) of_class[other.labels[i]]++;
  for (i = 0; i < 10; i++) CHECK_INT(of_class[i], 2);
  dataset_free(&other);
}

TEST(a_set_without_test_part_is_split_in_three)
{
  dataset part[3];
  int seen[50] = {0}, s;
  size_t i, total = 0;
  make_cifar10();
  for (s = 0; s < 3; s++) {
    part[s] = load(at("c10/data_batch_1.bin"), (dataset_split)s, 0);
    for (i = 0; i < part[s].count; i++) seen[number_of(&part[s], i)]++;
    total += part[s].count;
  }
  CHECK_INT(total, 50);
  CHECK_INT(part[DATASET_TEST].count, 5);
  CHECK_INT(part[DATASET_VALIDATION].count, 5);              /* 4.5, rounded */
  for (i = 0; i < 50; i++) CHECK_INT(seen[i], 1);
  for (s = 0; s < 3; s++) dataset_free(&part[s]);
}

/* ---- STL-10 and idx ------------------------------------------------------------------------- */

TEST(stl10_planes_are_stored_by_columns)
{
  uint8_t *all = (uint8_t *)malloc(27648 * 3), *to = all, labels[3] = {1, 10, 4};
  dataset data;
  int c, y, x, worst = 0;
  size_t i;
  folder("stl");
  for (i = 0; i < 3; i++)
    for (c = 0; c < 3; c++)
      for (x = 0; x < 96; x++)
        for (y = 0; y < 96; y++) *to++ = pixel(i, c, y, x);
  put("stl/train_X.bin", all, 27648 * 3);
  put("stl/train_y.bin", labels, 3);
  put("stl/test_X.bin", all + 27648, 27648);
  put("stl/test_y.bin", labels + 1, 1);
  data = load(at("stl"), DATASET_TRAIN_ALL, 96);
  CHECK_INT(data.kind, DATASET_STL10);
  CHECK_INT(data.count, 3);
  for (i = 0; i < data.count; i++) {
    CHECK(is_picture(&data, i, i, 0));
    CHECK_INT(data.labels[i], labels[i] - 1);
  }
  CHECK(data.names && strcmp(data.names[9], "truck") == 0);
  dataset_free(&data);
  data = load(at("stl"), DATASET_TEST, 0);                   /* 32 x 32, as in the paper */
  CHECK_INT(data.rows, 32);
  for (y = 0; y < 32; y++)
    for (x = 0; x < 32; x++) {
      int sum = 0, dy, dx, off;
      for (dy = 0; dy < 3; dy++)
        for (dx = 0; dx < 3; dx++) sum += pixel(1, 2, 3 * y + dy, 3 * x + dx);
      off = abs(9 * data.pictures[(y * 32 + x) * 3 + 2] - sum);
      if (off > worst) worst = off;
    }
  CHECK(worst <= 6);
  dataset_free(&data);
  free(all);
}

static void make_idx(void)
{
  static uint8_t images[16 + 20 * 784], labels[8 + 20];
  size_t i;
  folder("idx");
  memcpy(images, "\0\0\10\3\0\0\0\24\0\0\0\34\0\0\0\34", 16);
  memcpy(labels, "\0\0\10\1\0\0\0\24", 8);
  for (i = 0; i < 20 * 784; i++)
    images[16 + i] = pixel(i / 784, 0, (int)(i % 784) / 28, (int)(i % 28));
  for (i = 0; i < 20; i++) labels[8 + i] = (uint8_t)(i % 4);
  put("idx/train-images-idx3-ubyte", images, sizeof images);
  put("idx/train-labels-idx1-ubyte", labels, sizeof labels);
  images[7] = labels[7] = 5;
  put("idx/t10k-images-idx3-ubyte", images, 16 + 5 * 784);
  put("idx/t10k-labels-idx1-ubyte", labels, 8 + 5);
}

TEST(idx_grey_and_padding)
{
  dataset data;
  size_t i;
  int y, x, bad = 0;
  make_idx();
  data = load(at("idx"), DATASET_TRAIN_ALL, 0);
  CHECK_INT(data.kind, DATASET_IDX);
  CHECK_INT(data.count, 20);
  CHECK_INT(data.rows, 28);
  CHECK_INT(data.classes, 4);
  for (i = 0; i < data.count; i++) {
    CHECK(is_picture(&data, i, i, 1));
    CHECK_INT(data.labels[i], i % 4);
  }
  dataset_free(&data);
  data = load(at("idx"), DATASET_TEST, 32);                  /* on black, two pixels all round */
  CHECK_INT(data.count, 5);
  for (y = 0; y < 32; y++)
    for (x = 0; x < 32; x++) {
      int inside = y >= 2 && y < 30 && x >= 2 && x < 30;
      int want = inside ? pixel(0, 0, y - 2, x - 2) : 0;
      if (data.pictures[(y * 32 + x) * 3 + 1] != want) bad++;
    }
  CHECK_INT(bad, 0);
  dataset_free(&data);
}

/* ---- .npy ----------------------------------------------------------------------------------- */

TEST(npy_pictures_in_three_layouts)
{
  enum { N = 4, H = 6, W = 10 };
  static uint8_t pixels[N * H * W * 3], planes[N * 3 * H * W], grey[N * H * W];
  dataset data;
  const char *names[3] = {"npy/pixels.npy", "npy/planes.npy", "npy/grey.npy"};
  int n, c, y, x, i;
  folder("npy");
  for (n = 0; n < N; n++)
    for (y = 0; y < H; y++)
      for (x = 0; x < W; x++) {
        for (c = 0; c < 3; c++) {
          pixels[((n * H + y) * W + x) * 3 + c] = pixel((size_t)n, c, y, x);
          planes[((n * 3 + c) * H + y) * W + x] = pixel((size_t)n, c, y, x);
        }
        grey[(n * H + y) * W + x] = pixel((size_t)n, 0, y, x);
      }
  put_npy(names[0], "|u1", "4, 6, 10, 3", pixels, sizeof pixels);
  put_npy(names[1], "|u1", "4, 3, 6, 10", planes, sizeof planes);
  put_npy(names[2], "|u1", "4, 6, 10", grey, sizeof grey);
  for (i = 0; i < 3; i++) {
    data = load(at(names[i]), DATASET_ALL, 0);
    CHECK_INT(data.kind, DATASET_NPY);
    CHECK_INT(data.count, N);
    CHECK_INT(data.rows, H);
    CHECK_INT(data.columns, W);
    CHECK(data.labels == NULL && data.classes == 0);
    for (n = 0; n < N && data.pictures; n++) CHECK(is_picture(&data, (size_t)n, (size_t)n, i == 2));
    dataset_free(&data);
  }
}

TEST(npy_tokens_and_labels)
{
  static int64_t wide[5 * 9];
  static uint16_t narrow[5 * 9];
  static float one_hot[5 * 4];
  int32_t labels[5] = {2, 0, 6, 1, 1};
  dataset data;
  dataset_desc desc;
  int i, r;
  folder("tok");
  folder("tok/paper");
  for (i = 0; i < 45; i++) {
    wide[i] = i * 11;
    narrow[i] = (uint16_t)(i * 11);
  }
  for (i = 0; i < 5; i++) one_hot[4 * i + (i * 3) % 4] = 1;
  put_npy("tok/a.npy", "<i8", "5, 9", wide, sizeof wide);
  put_npy("tok/b.npy", "<u2", "5, 9", narrow, sizeof narrow);
  put_npy("tok/a.labels.npy", "<i4", "5,", labels, sizeof labels);
  for (r = 0; r < 2; r++) {
    data = load(at(r ? "tok/b.npy" : "tok/a.npy"), DATASET_ALL, 0);
    CHECK_INT(data.count, 5);
    CHECK_INT(data.rows, 3);
    CHECK_INT(data.columns, 3);
    CHECK_INT(data.vocabulary, 44 * 11 + 1);
    CHECK(data.pictures == NULL && data.tokens != NULL);
    for (i = 0; data.tokens && i < 45; i++) CHECK_INT(data.tokens[i], i * 11);
    CHECK((data.labels != NULL) == (r == 0));
    for (i = 0; data.labels && i < 5; i++) CHECK_INT(data.labels[i], labels[i]);
    if (r == 0) CHECK_INT(data.classes, 7);
    dataset_free(&data);
  }
  put_npy("tok/paper/toy_trX.npy", "<i8", "5, 9", wide, sizeof wide);
  put_npy("tok/paper/toy_trY.npy", "<f4", "5, 4", one_hot, sizeof one_hot);
  put_npy("tok/paper/toy_teX.npy", "<i8", "2, 9", wide + 9, 2 * 9 * sizeof *wide);
  put_npy("tok/paper/toy_teY.npy", "<f4", "2, 4", one_hot + 4, 2 * 4 * sizeof *one_hot);
  data = load(at("tok/paper"), DATASET_TEST, 0);
  CHECK_INT(data.count, 2);
  CHECK_INT(data.classes, 4);
  CHECK(data.labels && data.labels[0] == 3 && data.labels[1] == 2);
  CHECK(data.tokens && data.tokens[0] == 99);
  dataset_free(&data);

  desc = load_desc(at("tok/a.npy"), DATASET_ALL);
  desc.rows = 2;
  desc.columns = 4;
  refused(&desc, "a.npy", "9", "2 x 4", NULL);
  wide[20] = 70000;
  put_npy("tok/a.npy", "<i8", "5, 9", wide, sizeof wide);
  desc.rows = desc.columns = 0;
  refused(&desc, "a.npy", "70000", "65534", NULL);
  put_npy("tok/c.npy", "<i8", "9, 5", wide, sizeof wide);
  desc.path = at("tok/c.npy");
  refused(&desc, "c.npy", "5", "square", NULL);
  put_npy("tok/d.npy", "<f4", "5, 4", one_hot, sizeof one_hot);
  desc.path = at("tok/d.npy");
  refused(&desc, "d.npy", "[5,4]", "[N,T]", NULL);
  put_npy("tok/b.labels.npy", "<i4", "4,", labels, 16);
  desc.path = at("tok/b.npy");
  refused(&desc, "b.labels.npy", "[4]", "[5]", NULL);
  put_npy("tok/b.labels.npy", "<f4", "5,", one_hot, 20);
  refused(&desc, "b.labels.npy", "real numbers (float32)", "[5]", "integers", "[5,classes]", NULL);
}

/* ---- folders -------------------------------------------------------------------------------- */

typedef struct warnings {
  int  count;
  char all[4000];
} warnings;

static void keep_warning(void *user, const char *sentence)
{
  warnings *w = (warnings *)user;
  w->count++;
  strncat(w->all, sentence, sizeof w->all - strlen(w->all) - 2);
  strcat(w->all, "\n");
}

static void make_folder(void)
{
  bytes jpeg;
  uint8_t levels[6 * 3];
  int i;
  folder("classes");
  folder("classes/bee");
  folder("classes/ant");
  folder("classes/cow");
  folder("classes/cow/images");              /* as in Tiny ImageNet */
  folder("classes/empty");
  put_png("classes/bee/1.png", 0, 8, 8);
  put_png("classes/bee/2.PNG", 1, 8, 8);
  put_png("classes/ant/1.png", 2, 8, 8);
  put_png("classes/ant/2.png", 3, 8, 8);
  put_png("classes/ant/3.png", 4, 8, 8);
  put_png("classes/cow/images/1.png", 5, 8, 8);
  put("classes/ant/note.txt", "no picture", 10);
  put("classes/ant/.hidden.png", "no picture", 10);
  for (i = 0; i < 18; i++) levels[i] = (uint8_t)(i * 57);
  make_jpeg(&jpeg, levels, 2, 3);
  folder("bad");
  put_png("bad/good.png", 6, 8, 8);
  put("bad/empty.jpg", "", 0);
  put("bad/half.jpg", jpeg.data, jpeg.count / 2);
  put("bad/words.jpeg", "these are words, not a picture", 30);
  put_png("bad/small.png", 7, 8, 7);
  put("bad/whole.jpg", jpeg.data, jpeg.count);
}

TEST(folder_per_class)
{
  dataset data;
  static const int order[6] = {2, 0, 5, 3, 1, 4}, labels[6] = {0, 1, 2, 0, 1, 0};
  size_t i;
  make_folder();
  data = load(at("classes"), DATASET_ALL, 8);
  CHECK_INT(data.kind, DATASET_FOLDER);
  CHECK_INT(data.count, 6);
  CHECK_INT(data.classes, 3);
  CHECK(data.names && strcmp(data.names[0], "ant") == 0 && strcmp(data.names[2], "cow") == 0);
  for (i = 0; i < data.count; i++) {         /* classes take turns */
    CHECK(is_picture(&data, i, (size_t)order[i], 0));
    CHECK_INT(data.labels[i], labels[i]);
  }
  dataset_free(&data);
  data = load(at("classes/ant"), DATASET_ALL, 8);
  CHECK_INT(data.count, 3);
  CHECK(data.labels == NULL);
  dataset_free(&data);
  data = load(at("classes/bee/1.png"), DATASET_TEST, 8);
  CHECK_INT(data.count, 1);
  CHECK(is_picture(&data, 0, 0, 0));
  dataset_free(&data);
}

TEST(folder_with_train_and_val)
{
  dataset data;
  dataset_desc desc;
  warnings w;
  int n;
  char name[64];
  folder("parts");
  folder("parts/train");
  folder("parts/val");
  folder("parts/test");
  for (n = 0; n < 20; n++) {
    snprintf(name, sizeof name, "parts/train/n0%d", 1 + n % 2);
    folder(name);
    snprintf(name, sizeof name, "parts/train/n0%d/%02d.png", 1 + n % 2, n);
    put_png(name, (size_t)n, 4, 4);
  }
  folder("parts/val/n02");
  put_png("parts/val/n02/a.png", 50, 4, 4);
  put_png("parts/test/unlabelled.png", 60, 4, 4);
  put("parts/words.txt", "n00\tnothing\nn02\tgoldfish, Carassius auratus\nn03\tx\n", 51);
  memset(&w, 0, sizeof w);
  desc = load_desc(at("parts"), DATASET_TEST);
  desc.rows = 4;
  desc.warn = keep_warning;
  desc.warn_user = &w;
  CHECK_INT(dataset_load(&data, &desc, error, sizeof error), 0);
  CHECK_INT(w.count, 1);                     /* test/ has no classes */
  CHECK(strstr(w.all, "parts/test") != NULL);
  CHECK_INT(data.count, 1);
  CHECK(is_picture(&data, 0, 50, 0));
  CHECK_INT(data.labels ? data.labels[0] : -1, 1);
  CHECK(data.names && strcmp(data.names[0], "n01") == 0 && strcmp(data.names[1], "goldfish") == 0);
  dataset_free(&data);
  data = load(at("parts"), DATASET_TRAIN, 4);
  CHECK_INT(data.count, 18);
  dataset_free(&data);
  data = load(at("parts"), DATASET_VALIDATION, 4);
  CHECK_INT(data.count, 2);                  /* one of each class */
  CHECK_INT(data.labels[0] + data.labels[1], 1);
  dataset_free(&data);
  folder("parts/val/n09");
  put_png("parts/val/n09/b.png", 51, 4, 4);
  refused(&desc, "n09", "2 classes", NULL);
  dataset__remove(at("parts/val/n09"));
  folder("parts/test/n01");                  /* all three parts: taken at their word */
  put_png("parts/test/n01/c.png", 70, 4, 4);
  data = load(at("parts"), DATASET_TEST, 4);
  CHECK(data.count == 1 && is_picture(&data, 0, 70, 0));
  dataset_free(&data);
  data = load(at("parts"), DATASET_VALIDATION, 4);
  CHECK(data.count == 1 && is_picture(&data, 0, 50, 0));
  dataset_free(&data);
}

TEST(bad_pictures_are_named_and_counted)
{
  dataset data;
  dataset_desc desc;
  warnings w;
  make_folder();
  memset(&w, 0, sizeof w);
  desc = load_desc(at("bad"), DATASET_ALL);
  desc.rows = 8;
  desc.warn = keep_warning;
  desc.warn_user = &w;
  CHECK_INT(dataset_load(&data, &desc, error, sizeof error), 0);
  CHECK_INT(data.count, 2);
  CHECK_INT(data.broken, 3);
  CHECK_INT(data.small, 1);
  CHECK_INT(w.count, 4);
  CHECK(is_picture(&data, 0, 6, 0));
  CHECK(data.paths && strstr(data.paths[0], "good.png") && strstr(data.paths[1], "whole.jpg"));
  CHECK(strstr(w.all, "empty.jpg: the file has 0 bytes") != NULL);
  CHECK(strstr(w.all, "half.jpg: the JPEG stops after") != NULL);
  CHECK(strstr(w.all, "words.jpeg: not a JPEG") != NULL);
  CHECK(strstr(w.all, "small.png: 7 x 8 pixels, smaller than the 8 x 8") != NULL);
  dataset_free(&data);
  desc.enlarge = 1;
  CHECK_INT(dataset_load(&data, &desc, error, sizeof error), 0);
  CHECK_INT(data.count, 3);
  dataset_free(&data);
  desc.enlarge = 0;
  remove(at("bad/good.png"));
  remove(at("bad/whole.jpg"));
  refused(&desc, "bad", "none of 4", "3 corrupt", "1 too small", NULL);
}

/* A pipe is no file: whoever opens one waits for a writer. The alarm ends a test that does. */
TEST(pipes_are_not_waited_for)
{
  static const uint8_t grey[4];
  dataset data;
  dataset_desc desc;
  warnings w;
  uint8_t *all;
  size_t count;
  folder("pipes");
  folder("pipes/paper");
  put_png("pipes/a.png", 1, 8, 8);
  put_npy("pipes/paper/x_teX.npy", "|u1", "1, 2, 2", grey, sizeof grey);
  put_npy("pipes/paper/y.npy", "|u1", "1, 2, 2", grey, sizeof grey);
  CHECK_INT(mkfifo(at("pipes/b.png"), 0600), 0);
  CHECK_INT(mkfifo(at("pipes/paper/x_trX.npy"), 0600), 0);
  CHECK_INT(mkfifo(at("pipes/paper/y.labels.npy"), 0600), 0);
  alarm(10);
  CHECK_INT(image_read_file(&all, &count, at("pipes/b.png"), 100, error, sizeof error), -1);
  CHECK(strstr(error, "pipes/b.png: not a file") != NULL);
  memset(&w, 0, sizeof w);
  desc = load_desc(at("pipes"), DATASET_ALL);
  desc.rows = 8;
  desc.warn = keep_warning;
  desc.warn_user = &w;
  CHECK_INT(dataset_load(&data, &desc, error, sizeof error), 0);
  CHECK(data.count == 1 && data.broken == 1);
  CHECK(w.count == 1 && strstr(w.all, "pipes/b.png: not a file") != NULL);
  dataset_free(&data);
  desc = load_desc(at("pipes/paper"), DATASET_ALL);
  refused(&desc, "x_trX.npy: not a file", NULL);
  desc.path = at("pipes/paper/y.npy");
  refused(&desc, "y.labels.npy: not a file", NULL);
  alarm(0);
}

/* Tasks in the wrong order, with many worker numbers. */
static void backwards(void *user, igpt_task *task, void *arg, size_t count)
{
  (void)user;
  while (count-- > 0) task(arg, count, (int)(count % 7));
}

static int stop_late(void *user, double done)
{
  *(double *)user = done;
  return done > 0.5;
}

TEST(runner_and_watch)
{
  dataset a, b;
  dataset_desc desc;
  double done = 0;
  make_folder();
  desc = load_desc(at("bad"), DATASET_ALL);
  desc.rows = 8;
  CHECK_INT(dataset_load(&a, &desc, error, sizeof error), 0);
  desc.runner.run = backwards;
  desc.runner.workers = 7;
  CHECK_INT(dataset_load(&b, &desc, error, sizeof error), 0);
  CHECK(a.count == b.count && memcmp(a.pictures, b.pictures, a.count * 8 * 8 * 3) == 0);
  dataset_free(&a);
  dataset_free(&b);
  memset(&desc.runner, 0, sizeof desc.runner);
  desc.watch.poll = stop_late;
  desc.watch.user = &done;
  refused(&desc, "stopped", NULL);
  CHECK(done > 0.5 && done < 1);
}

/* ---- EXIF ----------------------------------------------------------------------------------- */

/* EXIF says which side of the upright picture row 0 and column 0 of the stored one are at. */
static void stored_position(int orientation, int rows, int columns, int r, int c, int *y, int *x)
{
  switch (orientation) {
    case 2: *y = r, *x = columns - 1 - c; break;             /* top, right */
    case 3: *y = rows - 1 - r, *x = columns - 1 - c; break;  /* bottom, right */
    case 4: *y = rows - 1 - r, *x = c; break;                /* bottom, left */
    case 5: *y = c, *x = r; break;                           /* left, top */
    case 6: *y = c, *x = columns - 1 - r; break;             /* right, top */
    case 7: *y = rows - 1 - c, *x = columns - 1 - r; break;  /* right, bottom */
    case 8: *y = rows - 1 - c, *x = r; break;                /* left, bottom */
    default: *y = r, *x = c; break;                          /* top, left */
  }
}

/* Levels of the upright picture: 2 x 3 blocks. */
static uint8_t block(int y, int x, int channel)
{
  return (uint8_t)(channel == 0 ? 60 + 25 * (3 * y + x) : 128 + (channel == 1 ? 9 : -7) * (x + y));
}

/* The level of a channel as RGB (JFIF). */
static double block_rgb(int y, int x, int channel)
{
  double l = block(y, x, 0), cb = block(y, x, 1) - 128.0, cr = block(y, x, 2) - 128.0;
  return channel == 0 ? l + 1.402 * cr : channel == 1 ? l - 0.344136 * cb - 0.714136 * cr
                                                      : l + 1.772 * cb;
}

static void with_exif(bytes *out, const bytes *jpeg, int orientation, int big_endian)
{
  static const uint8_t little[32] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0, 'I', 'I', 42, 0,
                                     8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0};
  static const uint8_t big[32] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, 42,
                                  0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0};
  memcpy(out->data, jpeg->data, 2);
  memcpy(out->data + 2, big_endian ? big : little, 32);
  out->data[2 + 28 + (big_endian ? 1 : 0)] = (uint8_t)orientation;
  memset(out->data + 34, 0, 4);              /* no further directory */
  memcpy(out->data + 38, jpeg->data + 2, jpeg->count - 2);
  out->count = jpeg->count + 36;
}

TEST(exif_orientations_stand_upright)
{
  enum { ROWS = 2, COLUMNS = 3 };            /* in blocks */
  static bytes jpeg, exif;
  uint8_t levels[ROWS * COLUMNS * 3];
  int o, r, c, k, y, x;
  for (o = 1; o <= 8; o++) {
    int rows = o >= 5 ? COLUMNS : ROWS, columns = o >= 5 ? ROWS : COLUMNS;
    double worst = 0;
    image picture;
    for (r = 0; r < rows; r++)
      for (c = 0; c < columns; c++) {
        stored_position(o, ROWS, COLUMNS, r, c, &y, &x);
        for (k = 0; k < 3; k++) levels[(r * columns + c) * 3 + k] = block(y, x, k);
      }
    make_jpeg(&jpeg, levels, rows, columns);
    with_exif(&exif, &jpeg, o, o & 1);
    CHECK_INT(image_orientation(exif.data, exif.count), o);
    CHECK_INT(image_decode(&picture, exif.data, exif.count, "x.jpg", error, sizeof error), 0);
    CHECK_INT(picture.rows, 8 * ROWS);
    CHECK_INT(picture.columns, 8 * COLUMNS);
    for (r = 0; picture.rows == 8 * ROWS && r < 64 * ROWS * COLUMNS * 3; r++) {
      double want = block_rgb(r / 3 / (8 * COLUMNS) / 8, r / 3 % (8 * COLUMNS) / 8, r % 3);
      double off = fabs(picture.rgb[r] - want);
      if (off > worst) worst = off;
    }
    CHECK_NEAR(worst, 0, 1.5);
    image_free(&picture);
  }
}

TEST(broken_exif_is_ignored)
{
  static bytes jpeg, exif;
  static const uint8_t levels[3] = {90, 100, 110};
  uint8_t *copy;
  size_t n, i;
  igpt_rng rng = igpt_rng_seed(5, 0);
  make_jpeg(&jpeg, levels, 1, 1);
  with_exif(&exif, &jpeg, 6, 0);
  for (n = 0; n < 80; n++) {                 /* every prefix, in a block of exactly that size */
    copy = (uint8_t *)malloc(n ? n : 1);
    memcpy(copy, exif.data, n);
    CHECK_INT(image_orientation(copy, n), n < 38 ? 1 : 6);
    free(copy);
  }
  copy = (uint8_t *)malloc(60);
  for (n = 0; n < 20000; n++) {              /* damage: any answer of 1..8, no access outside */
    int o;
    memcpy(copy, exif.data, 60);
    for (i = 0; i < 3; i++)
      copy[igpt_rng_below(&rng, 40)] = (uint8_t)igpt_rng_below(&rng, 256);
    o = image_orientation(copy, 60);
    if (o < 1 || o > 8) CHECK_INT(o, 1);
  }
  free(copy);
  with_exif(&exif, &jpeg, 9, 0);
  CHECK_INT(image_orientation(exif.data, exif.count), 1);
  with_exif(&exif, &jpeg, 0, 1);
  CHECK_INT(image_orientation(exif.data, exif.count), 1);
}

TEST(damaged_pictures_are_refused_or_decoded)
{
  static bytes jpeg;
  static uint8_t rgb[24 * 16 * 3];
  uint8_t *copy, *png, levels[18];
  int size = 0, round, i;
  size_t n;
  image picture;
  igpt_rng rng = igpt_rng_seed(6, 0);
  for (i = 0; i < 24 * 16 * 3; i++) rgb[i] = (uint8_t)(i * 7);
  for (i = 0; i < 18; i++) levels[i] = (uint8_t)(i * 91);
  make_jpeg(&jpeg, levels, 2, 3);
  png = stbi_write_png_to_mem(rgb, 72, 24, 16, 3, &size);
  for (n = 0; n < jpeg.count; n++) {         /* no prefix of a JPEG is a picture */
    CHECK(image_decode(&picture, jpeg.data, n, "x.jpg", error, sizeof error) != 0);
    CHECK(strncmp(error, "x.jpg: ", 7) == 0);
    CHECK(n < 2 || strstr(error, "the JPEG stops after") != NULL);
  }
  for (n = 0; n + 12 < (size_t)size; n += 7) {
    CHECK(image_decode(&picture, png, n, "x.png", error, sizeof error) != 0);
    image_free(&picture);
  }
  for (round = 0; round < 4000; round++) {
    size_t count = round & 1 ? jpeg.count : (size_t)size;
    copy = (uint8_t *)malloc(count);
    memcpy(copy, round & 1 ? jpeg.data : png, count);
    for (i = 0; i < 2; i++)
      copy[igpt_rng_below(&rng, (uint32_t)count)] = (uint8_t)igpt_rng_below(&rng, 256);
    if (image_decode(&picture, copy, count, "x.jpg", error, sizeof error) == 0)
      CHECK(picture.rgb != NULL && picture.rows > 0 && picture.columns > 0);
    else
      CHECK(picture.rgb == NULL);
    image_free(&picture);
    free(copy);
  }
  jpeg.data[71 + 19 + 5] = 255;              /* a Huffman table of 267 codes, which stb believes */
  CHECK(image_decode(&picture, jpeg.data, jpeg.count, "x.jpg", error, sizeof error) != 0);
  CHECK(strstr(error, "x.jpg: corrupt picture") != NULL);
  STBIW_FREE(png);
}

/* Two flat blocks, then a level of 11 bits whose eight in the middle are ff. Fill bytes may stand
   in front of that; if they are taken for the end of the scan, 00 is a segment of 4101 bytes, in
   which there is a Huffman table of 4080 codes, and that is what the decoder meets next. */
TEST(a_table_hidden_in_a_scan_is_found)
{
  static const uint8_t scan[] = {0x00, 0x2f, 0xff, 0xff, 0x00, 0x10, 0x07,
                                 0xff, 0xc4, 0x10, 0x03, 0x00};
  static bytes plain, hidden;
  uint8_t levels[18];
  size_t start, i;
  image picture;
  memset(levels, 128, sizeof levels);
  make_jpeg(&plain, levels, 2, 3);
  for (start = 0; memcmp(plain.data + start, "\xff\xda", 2) != 0;) start++;
  start += 2 + 12;
  emit(&hidden, plain.data, start);
  emit(&hidden, scan, sizeof scan);
  for (i = 0; i < 16 + 4080; i++) emit(&hidden, i < 16 ? "\xff" : "", 1);
  emit(&hidden, "\xff\xd9", 2);
  CHECK_INT(image__jpeg_check(hidden.data, hidden.count), 0);
  if (image__jpeg_check(hidden.data, hidden.count) == 0) {
    CHECK_INT(image_decode(&picture, hidden.data, hidden.count, "x.jpg", error, sizeof error), -1);
    CHECK(strstr(error, "x.jpg: corrupt picture") != NULL);
  }
  hidden.count = 0;                          /* fill is fine, also in front of a file's end */
  emit(&hidden, plain.data, plain.count - 2);
  emit(&hidden, "\xff\xff\xff\xd9", 4);
  CHECK_INT(image_decode(&picture, hidden.data, hidden.count, "x.jpg", error, sizeof error), 0);
  CHECK(picture.rows == 16 && picture.columns == 24);
  image_free(&picture);
  hidden.count = 0;                          /* a JPEG that no one walked over */
  emit(&hidden, "\xff", 1);
  emit(&hidden, plain.data, plain.count);
  CHECK_INT(image_decode(&picture, hidden.data, hidden.count, "x.tga", error, sizeof error), -1);
  CHECK(strstr(error, "x.tga: not a JPEG") != NULL);
  image_free(&picture);
}

static void emit_to(void *user, void *data, int count)
{
  emit((bytes *)user, data, (size_t)count);
}

/* No part of a BMP or TGA is a picture: the rest would be black, or what was in memory. */
TEST(bmp_and_tga_are_whole_or_refused)
{
  static const uint8_t map_bmp[] = {        /* 5 x 2 of four bits, of a palette of two colours */
    'B', 'M', 0, 0, 0, 0, 0, 0, 0, 0, 62, 0, 0, 0, 40, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 1, 0, 4, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    1, 2, 3, 0, 4, 5, 6, 0, 0x01, 0x01, 0x00, 0, 0x11, 0x00, 0x10};
  static const uint8_t map_tga[] = {        /* 4 x 2, of a palette of two colours; a name of two */
    2, 1, 1, 0, 0, 2, 0, 24, 0, 0, 0, 0, 4, 0, 2, 0, 8, 32,
    'i', 'd', 1, 2, 3, 4, 5, 6, 0, 1, 0, 1, 1, 1, 0, 0};
  static const uint8_t map[2][10] = {{1, 1, 0, 0, 1, 0, 1, 0, 1, 0}, {0, 1, 0, 1, 1, 1, 0, 0}};
  static const char *const names[7] = {"24.bmp", "32.bmp", "24.tga", "8.tga", "runs.tga", "map.bmp",
                                       "map.tga"};
  uint8_t huge[18] = {0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0x2d, 0x41, 0x2d, 24, 0};
  static uint8_t rgba[5 * 3 * 4];
  static bytes file;
  char words[3][80];
  size_t n, need;
  int i, k;
  image picture;
  for (k = 0; k < 7; k++) {
    const int columns = k == 6 ? 4 : 5, rows = k > 4 ? 2 : 3, size = k == 1 ? 4 : k == 3 ? 1 : 3;
    int wrong = 0;
    file.count = 0;
    for (i = 0; i < rows * columns * size; i++)              /* with runs, and without */
      rgba[i] = (uint8_t)(size == 4 && i % 4 == 3 ? 255 : i < 9 * size ? 9 + i % size : i * 7);
    stbi_write_tga_with_rle = k == 4;
    if (k < 2) stbi_write_bmp_to_func(emit_to, &file, columns, rows, size, rgba);
    else if (k < 5) stbi_write_tga_to_func(emit_to, &file, columns, rows, size, rgba);
    else emit(&file, k == 5 ? map_bmp : map_tga, k == 5 ? sizeof map_bmp : sizeof map_tga);
    need = file.count - (k == 0);            /* one byte fills the last row up */
    for (n = 1; n < need; n++) {
      uint8_t *copy = (uint8_t *)malloc(n);
      memcpy(copy, file.data, n);
      wrong += image_decode(&picture, copy, n, names[k], error, sizeof error) == 0;
      snprintf(words[0], sizeof words[0], "%s: the file has %zu bytes", names[k], n);
      snprintf(words[1], sizeof words[1], "%d x %d pixels need at least ", columns, rows);
      snprintf(words[2], sizeof words[2], "need at least %zu", need);
      for (i = 0; n >= 30 && i < (k == 4 ? 2 : 3); i++) wrong += !strstr(error, words[i]);
      image_free(&picture);
      free(copy);
    }
    CHECK_INT(wrong, 0);
    CHECK_INT(image_decode(&picture, file.data, need, names[k], error, sizeof error), 0);
    CHECK(picture.rows == rows && picture.columns == columns);
    wrong = 0;
    for (i = 0; picture.rgb && i < rows * columns * 3; i++)
      wrong += picture.rgb[i] != (k == 5   ? 3 * map[0][i / 3] + 3 - i % 3
                                  : k == 6 ? 3 * map[1][i / 3] + 3 - i % 3
                                  : size == 1 ? rgba[i / 3] : rgba[i / 3 * size + i % 3]);
    CHECK_INT(wrong, 0);
    image_free(&picture);
  }
  file.count = 0;                            /* a colour behind the palette: the last one's */
  emit(&file, map_bmp, sizeof map_bmp);
  file.data[file.count - 1] = 0xf0;
  CHECK_INT(image_decode(&picture, file.data, file.count, "x.bmp", error, sizeof error), -1);
  CHECK(strstr(error, "x.bmp: a pixel has the colour 15, and the palette has 2 of them") != NULL);
  image_free(&picture);
  for (i = 0; i < 2; i++) {                  /* a head alone takes no memory for its pixels */
    huge[2] = i ? 10 : 2;
    CHECK_INT(image_decode(&picture, huge, sizeof huge, "x.tga", error, sizeof error), -1);
    CHECK(strstr(error, "x.tga: the file has 18 bytes") != NULL);
    CHECK(strstr(error, i ? "at least 4194154" : "at least 402636693") != NULL);
    image_free(&picture);
  }
}

/* A JPEG for whose failure stb_image gives no reason is not said to be a bad PNG. */
TEST(a_decoder_that_says_nothing_is_not_quoted)
{
  static const uint8_t tables[12] = {0xff, 0xdb, 0, 10};     /* too short for one */
  static const uint8_t grey[3] = {128, 128, 128};
  static bytes jpeg, bad;
  size_t start;
  image picture;
  make_jpeg(&jpeg, grey, 1, 1);
  for (start = 0; memcmp(jpeg.data + start, "\xff\xda", 2) != 0;) start++;
  emit(&bad, jpeg.data, start);
  emit(&bad, tables, sizeof tables);
  emit(&bad, jpeg.data + start, jpeg.count - start);
  for (start = 0; start < 64; start++) emit(&bad, "", 1);
  emit(&bad, "\xff\xd9", 2);
  CHECK_INT(image_decode(&picture, bad.data, bad.count, "x.jpg", error, sizeof error), -1);
  CHECK(strstr(error, "x.jpg: corrupt picture (the decoder does not say why)") != NULL);
}

TEST(transparency_is_laid_over_white)
{
  uint8_t rgba[4 * 4] = {10, 20, 30, 255, 10, 20, 30, 0, 0, 0, 0, 128, 200, 100, 0, 64};
  uint8_t grey[2 * 2] = {40, 255, 40, 0};
  int size = 0;
  uint8_t *png = stbi_write_png_to_mem(rgba, 16, 4, 1, 4, &size);
  image picture;
  CHECK_INT(image_decode(&picture, png, (size_t)size, "x.png", error, sizeof error), 0);
  CHECK_INT(picture.rgb[2], 30);
  CHECK_INT(picture.rgb[3], 255);
  CHECK_INT(picture.rgb[6], 127);
  CHECK_INT(picture.rgb[9], 241);            /* (200 * 64 + 255 * 191) / 255 = 241.2 */
  image_free(&picture);
  STBIW_FREE(png);
  png = stbi_write_png_to_mem(grey, 4, 2, 1, 2, &size);
  CHECK_INT(image_decode(&picture, png, (size_t)size, "x.png", error, sizeof error), 0);
  CHECK(picture.rgb[0] == 40 && picture.rgb[2] == 40 && picture.rgb[3] == 255);
  image_free(&picture);
  STBIW_FREE(png);
}

TEST(fit_takes_the_centre)
{
  static uint8_t wide[4 * 10 * 3], to[4 * 4 * 3], odd[2 * 3 * 3];
  int i, rows, columns;
  for (i = 0; i < 4 * 10 * 3; i++) wide[i] = (uint8_t)(i / 3 % 10);
  CHECK_INT(image_fit(to, 4, 4, wide, 4, 10), 0);
  for (i = 0; i < 16; i++) CHECK_INT(to[3 * i], 3 + i % 4);
  CHECK_INT(image_fit(odd, 2, 3, wide, 4, 10), 0);           /* the window is 4 x 6, at column 2 */
  for (i = 0; i < 3; i++) CHECK_NEAR(odd[3 * i], 2.5 + 2 * i, 0.51);
  image_window(&rows, &columns, 32, 32, 375, 500);
  CHECK(rows == 375 && columns == 375);
  image_window(&rows, &columns, 16, 32, 375, 500);
  CHECK(rows == 250 && columns == 500);
}

/* Four photographs that were turned in the camera's four ways; where they are not at hand, no
   verdict. */
TEST(real_photographs_agree)
{
  static const char *const names[2][4] = {
    {"Landscape_1.jpg", "Landscape_3.jpg", "Landscape_6.jpg", "Landscape_8.jpg"},
    {"Portrait_1.jpg", "Portrait_3.jpg", "Portrait_6.jpg", "Portrait_8.jpg"}};
  static uint8_t rgb[4][32 * 32 * 3];
  int set, i, p;
  for (set = 0; set < 2; set++) {
    for (i = 0; i < 4; i++) {
      char path[200];
      image picture;
      struct stat status;
      snprintf(path, sizeof path, "../shared/data/photos/exif/%s", names[set][i]);
      if (stat(path, &status) != 0) SKIP("../shared/data/photos/exif is not there");
      CHECK_INT(image_load(&picture, path, error, sizeof error), 0);
      CHECK((picture.columns > picture.rows) == (set == 0));
      CHECK_INT(image_fit(rgb[i], 32, 32, picture.rgb, picture.rows, picture.columns), 0);
      image_free(&picture);
    }
    for (i = 1; i < 4; i++) {
      double sum = 0;
      for (p = 0; p < 32 * 32 * 3; p++) sum += abs(rgb[i][p] - rgb[0][p]);
      CHECK(sum / (32 * 32 * 3) < 3);
    }
  }
}

/* ---- augmentation --------------------------------------------------------------------------- */

TEST(reflection_by_hand)
{
  /* 0 1 2 3 / 4 5 6 7 / 8 9 10 11 padded by one all round is
     5 4 5 6 7 6 / 1 0 1 2 3 2 / 5 4 5 6 7 6 / 9 8 9 10 11 10 / 5 4 5 6 7 6 */
  static const uint8_t corner[12] = {5, 4, 5, 6, 1, 0, 1, 2, 5, 4, 5, 6};
  static const uint8_t end[12] = {5, 6, 7, 6, 9, 10, 11, 10, 5, 6, 7, 6};
  static const uint8_t mirrored[12] = {6, 7, 6, 5, 2, 3, 2, 1, 6, 7, 6, 5};
  uint8_t from[36], to[36];
  int i;
  for (i = 0; i < 36; i++) from[i] = (uint8_t)(i / 3);
  dataset_crop(to, from, 3, 4, 1, 1, 0, 0, 0);
  for (i = 0; i < 36; i++) CHECK_INT(to[i], corner[i / 3]);
  dataset_crop(to, from, 3, 4, 1, 1, 2, 2, 0);
  for (i = 0; i < 36; i++) CHECK_INT(to[i], end[i / 3]);
  dataset_crop(to, from, 3, 4, 1, 1, 0, 0, 1);
  for (i = 0; i < 36; i++) CHECK_INT(to[i], mirrored[i / 3]);
  dataset_crop(to, from, 3, 4, 1, 1, 1, 1, 0);
  CHECK(memcmp(to, from, 36) == 0);
}

TEST(pad_crop_mirror_draws_all_crops)
{
  static uint8_t from[32 * 32 * 3], to[32 * 32 * 3], again[32 * 32 * 3];
  int seen[2][9][9], i, mirror, row, column, kinds = 0;
  igpt_rng rng = igpt_rng_seed(3, 1), copy;
  memset(seen, 0, sizeof seen);
  for (i = 0; i < 32 * 32 * 3; i++)          /* the row and the column of every pixel */
    from[i] = (uint8_t)(i % 3 == 0 ? i / 96 : i / 3 % 32);
  for (i = 0; i < 3000; i++) {
    copy = rng;
    dataset_pad_crop_mirror(to, from, 32, 32, &rng);
    if (i == 100) {                            /* from the generator's state alone */
      dataset_pad_crop_mirror(again, from, 32, 32, &copy);
      CHECK(memcmp(to, again, sizeof to) == 0);
    }
    row = to[(16 * 32 + 16) * 3] - 16 + 4;
    mirror = to[(16 * 32 + 17) * 3 + 1] < to[(16 * 32 + 16) * 3 + 1];
    column = to[(16 * 32 + 16) * 3 + 1];
    column = (mirror ? 31 - column : column) - 16 + 4;
    if (row < 0 || row > 8 || column < 0 || column > 8) {
      CHECK(0);
      return;
    }
    seen[mirror][row][column]++;
  }
  for (i = 0; i < 162; i++) kinds += seen[i / 81][i / 9 % 9][i % 9] > 0;
  CHECK_INT(kinds, 162);                     /* 18 draws each on average */
}

TEST(resize_crop_zooms_between_256_and_384)
{
  enum { ROWS = 96, COLUMNS = 160, SIDE = 16 };
  static uint8_t rgb[ROWS * COLUMNS * 3], to[SIDE * SIDE * 3], again[SIDE * SIDE * 3];
  dataset data;
  dataset_desc desc;
  igpt_rng rng = igpt_rng_seed(9, 9), copy;
  double narrow = 1e9, wide = 0, first = 1e9, last = 0;
  int i;
  folder("zoom");
  for (i = 0; i < ROWS * COLUMNS * 3; i++) rgb[i] = (uint8_t)(i / 3 % COLUMNS);
  CHECK_INT(image_save_png(at("zoom/a.png"), rgb, ROWS, COLUMNS, error, sizeof error), 0);
  desc = load_desc(at("zoom"), DATASET_ALL);
  desc.rows = SIDE;
  desc.augment = DATASET_RESIZE_CROP;
  CHECK_INT(dataset_load(&data, &desc, error, sizeof error), 0);
  CHECK_INT(data.large_size[0], 28);         /* 16 * 384 / 224, up */
  CHECK_INT(data.large_size[1], 47);
  for (i = 0; i < 600; i++) {
    double across;
    copy = rng;
    CHECK_INT(dataset_picture(&data, to, 0, DATASET_RESIZE_CROP, &rng), 0);
    if (i == 50) {
      CHECK_INT(dataset_picture(&data, again, 0, DATASET_RESIZE_CROP, &copy), 0);
      CHECK(memcmp(to, again, sizeof to) == 0);
    }
    across = (to[3 * (SIDE - 1)] - to[0]) * (double)SIDE / (SIDE - 1);    /* columns of the file */
    if (across < narrow) narrow = across;
    if (across > wide) wide = across;
    if (to[0] < first) first = to[0];
    if (to[3 * (SIDE - 1)] > last) last = to[3 * (SIDE - 1)];
  }
  CHECK_NEAR(narrow, 96 * 224 / 384.0, 5);
  CHECK_NEAR(wide, 96 * 224 / 256.0, 5);
  CHECK(first < 8 && last > 151);            /* crops come from the whole picture, not its centre */
  CHECK_INT(dataset_picture(&data, to, 0, DATASET_PLAIN, NULL), 0);
  CHECK(memcmp(to, data.pictures, sizeof to) == 0);
  CHECK_NEAR(to[0], 32 + 2.5, 1);            /* the centre: columns 32 to 128 */
  CHECK_INT(dataset_picture(&data, to, 1, DATASET_PLAIN, NULL), -1);
  CHECK_INT(dataset_picture(&data, to, 0, DATASET_RESIZE_CROP, NULL), -1);
  dataset_free(&data);
}

/* ---- bad input ------------------------------------------------------------------------------ */

TEST(refusals_name_file_and_values)
{
  dataset_desc desc;
  static uint8_t zeros[3073 * 3];
  make_cifar10();
  make_idx();
  desc = load_desc(at("nowhere"), DATASET_TRAIN);
  refused(&desc, HERE "/nowhere", "No such file", NULL);
  desc.path = NULL;
  refused(&desc, "path", NULL);
  folder("cut");
  put("cut/data_batch_1.bin", zeros, 3073 * 3 - 100);
  desc.path = at("cut");
  refused(&desc, "cut/data_batch_1.bin", "9119", "3073", "2973", NULL);
  put("cut/data_batch_1.bin", zeros, 0);
  refused(&desc, "cut/data_batch_1.bin", "0 bytes", "3073", NULL);
  zeros[3073 * 2] = 10;
  put("cut/data_batch_1.bin", zeros, sizeof zeros);
  refused(&desc, "cut/data_batch_1.bin", "record 2", "label 10", "10 classes", NULL);
  desc.path = at("c10");
  desc.rows = 48;
  refused(&desc, "c10", "32 x 32", "48 x 48", NULL);
  desc.rows = 5000;
  refused(&desc, "rows", "5000", "4096", NULL);
  desc.rows = 0;
  desc.columns = 32;
  refused(&desc, "columns", "32", NULL);
  desc.columns = 0;
  desc.hold_out = 0.75;
  refused(&desc, "hold_out", "0.75", "0.5", NULL);
  desc.hold_out = 0;
  desc.path = at("c10/test_batch.bin");
  refused(&desc, "test_batch.bin", "train split is empty", "12", NULL);
  desc.path = at("idx");
  put("idx/t10k-labels-idx1-ubyte", "\0\0\10\1\0\0\0\2\0\1", 10);
  refused(&desc, "t10k-labels-idx1-ubyte", "2 labels", "5 pictures", NULL);
  put("idx/t10k-images-idx3-ubyte", "\0\0\10\3\0\0\0\5\0\0\0\34\0\0\0\34", 16);
  refused(&desc, "t10k-images-idx3-ubyte", "16 bytes", "3936", NULL);
  folder("nothing");
  desc.path = at("nothing");
  refused(&desc, "nothing", "no pictures", NULL);
  put("nothing/a.zip", "PK", 2);
  desc.path = at("nothing/a.zip");
  refused(&desc, "a.zip", "2 bytes", "unpack", NULL);
  desc.path = "shapes:0";
  refused(&desc, "shapes:0", NULL);
}

/* Where no file can be opened, the sentence says that, and not what is wrong with the file. */
TEST(a_file_that_cannot_be_opened_is_not_called_wrong)
{
  static const char *const names[] = {"idx/train-images-idx3-ubyte", "c10/data_batch_1.bin",
                                      "npy/grey.npy", "half/a.png"};
  struct rlimit old, none;
  size_t i;
  make_cifar10();
  make_idx();
  CHECK_INT(getrlimit(RLIMIT_NOFILE, &old), 0);
  none = old;
  none.rlim_cur = 0;
  for (i = 0; i < sizeof names / sizeof *names; i++) {
    const dataset_desc desc = load_desc(at(names[i]), DATASET_ALL);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    refused(&desc, names[i], strerror(EMFILE), NULL);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &old), 0);
  }
}

/* Every prefix, and a byte more: a set of whole records that all have labels is there, or none. */
TEST(files_of_every_length)
{
  static const struct { const char *load, *file; size_t size, record; } files[] = {
    { "length/data_batch_1.bin", "length/data_batch_1.bin", 2 * 3073, 3073 },
    { "length/train.bin", "length/train.bin", 2 * 3074, 3074 },
    { "length/stl", "length/stl/train_X.bin", 27648, 27648 },
    { "length/stl", "length/stl/train_y.bin", 1, 1 },
    { "length/a-images-idx3-ubyte", "length/a-images-idx3-ubyte", 16 + 2 * 784, 16 + 2 * 784 },
    { "length/a-images-idx3-ubyte", "length/a-labels-idx1-ubyte", 8 + 2, 8 + 2 }
  };
  static const uint8_t head[16] = { 0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28 };
  static const uint8_t labels[10] = { 0, 0, 8, 1, 0, 0, 0, 2, 1, 0 };
  static uint8_t zeros[27648];
  size_t i, n;
  folder("length");
  folder("length/stl");
  put("length/a-labels-idx1-ubyte", labels, sizeof labels);
  put("length/stl/train_y.bin", labels + 3, 1);
  put("length/stl/test_X.bin", zeros, sizeof zeros);
  put("length/stl/test_y.bin", labels + 3, 1);
  for (i = 0; i < sizeof files / sizeof *files; i++) {
    const dataset_desc desc = load_desc(at(files[i].load), DATASET_ALL);
    int wrong = 0;
    memset(zeros, 0, sizeof zeros);
    if (strstr(files[i].file, "idx3")) memcpy(zeros, head, sizeof head);
    if (strstr(files[i].file, "idx1")) memcpy(zeros, labels, sizeof labels);
    if (strstr(files[i].file, "_y")) zeros[0] = 1;
    put(files[i].file, zeros, files[i].size);
    for (n = files[i].size + 2; n-- > 0;) {
      dataset data;
      int result, before = wrong;
      if (truncate(at(files[i].file), (off_t)n)) exit(2);
      error[0] = 0;
      result = dataset_load(&data, &desc, error, sizeof error);
      wrong += result != (n && n % files[i].record == 0 && n <= files[i].size ? 0 : -1);
      wrong += result ? strncmp(error, HERE "/length", strlen(HERE "/length")) != 0 : !data.count;
      if (before == 0 && wrong)
        printf("  %s of %lu bytes: %s\n", files[i].file, (unsigned long)n, error);
      dataset_free(&data);
    }
    CHECK_INT(wrong, 0);
    put(files[i].file, zeros, files[i].size);
  }
}

/* ---- drawn pictures ------------------------------------------------------------------------- */

TEST(shapes_are_drawn)
{
  dataset data;
  static uint8_t again[32 * 32 * 3];
  size_t i, j;
  data = load("shapes:60", DATASET_ALL, 0);
  CHECK_INT(data.kind, DATASET_SHAPES);
  CHECK_INT(data.count, 60);
  CHECK_INT(data.classes, 10);
  for (i = 0; i < data.count; i++) CHECK_INT(data.labels[i], i % 10);
  for (i = 0; i < data.count; i++)
    for (j = 0; j < i; j++)
      CHECK(memcmp(data.pictures + i * 3072, data.pictures + j * 3072, 3072) != 0);
  CHECK_INT(dataset_draw_shape(again, 32, 32, 37), 7);
  CHECK(memcmp(again, data.pictures + 37 * 3072, 3072) == 0);
  CHECK(data.names && strcmp(data.names[7], "heart") == 0);
  dataset_free(&data);
  data = load("shapes:200", DATASET_VALIDATION, 12);
  CHECK_INT(data.count, 18);
  CHECK_INT(data.columns, 12);
  dataset_free(&data);
}

/* ---- MD5 ------------------------------------------------------------------------------------ */

TEST(md5_of_the_rfc)
{
  static const char *const text[] = {
    "", "abc", "message digest", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
    "12345678901234567890123456789012345678901234567890123456789012345678901234567890"};
  static const char *const digits[] = {
    "d41d8cd98f00b204e9800998ecf8427e", "900150983cd24fb0d6963f7d28e17f72",
    "f96b697d7cb7938d525a2f31aaf161d0", "d174ab98d277d9f5a5611c2c9f419d9f",
    "57edf4a22be3c955ac49da2e2107b67a"};
  char got[33];
  int i;
  for (i = 0; i < 5; i++) {
    put("md5", text[i], strlen(text[i]));
    CHECK_INT(dataset_md5(got, at("md5"), error, sizeof error), 0);
    CHECK(strcmp(got, digits[i]) == 0);
  }
  CHECK_INT(dataset_md5(got, at("no-such-file"), error, sizeof error), -1);
}

/* ---- writing -------------------------------------------------------------------------------- */

static int entries(const char *path)
{
  DIR *handle = opendir(path);
  int n = 0;
  while (handle && readdir(handle)) n++;
  if (handle) closedir(handle);
  return n - 2;
}

TEST(a_full_disk_leaves_the_old_file)
{
  static uint8_t big[300000];
  struct rlimit old, few;
  uint8_t *back;
  size_t count;
  folder("full");
  put("full/out.bin", "old", 3);
  CHECK_INT(getrlimit(RLIMIT_FSIZE, &old), 0);
  few = old;
  few.rlim_cur = 100000;
  signal(SIGXFSZ, SIG_IGN);
  fflush(stdout);
  CHECK_INT(setrlimit(RLIMIT_FSIZE, &few), 0);
  CHECK_INT(image_write_file(at("full/out.bin"), big, sizeof big, error, sizeof error), -1);
  setrlimit(RLIMIT_FSIZE, &old);
  CHECK(strstr(error, "full/out.bin") != NULL && strstr(error, "300000") != NULL);
  CHECK_INT(entries(at("full")), 1);         /* no temporary file is left */
  CHECK_INT(image_read_file(&back, &count, at("full/out.bin"), 1000, error, sizeof error), 0);
  CHECK(count == 3 && memcmp(back, "old", 3) == 0);
  free(back);
  CHECK_INT(image_write_file(at("full/none/out.bin"), big, 10, error, sizeof error), -1);
  CHECK(strstr(error, "full/none/out.bin") != NULL);
  CHECK_INT(image_write_file(at("full/out.bin"), big, sizeof big, error, sizeof error), 0);
  CHECK_INT(image_read_file(&back, &count, at("full/out.bin"), 1000, error, sizeof error), -1);
  CHECK(strstr(error, "300000") != NULL && strstr(error, "1000") != NULL);
  CHECK_INT(entries(at("full")), 1);
}

TEST(a_link_is_not_written_through)
{
  uint8_t *back;
  size_t count;
  folder("link");
  put("link/other", "other", 5);
  CHECK_INT(symlink("other", at("link/out.bin.tmp")), 0);
  CHECK_INT(image_write_file(at("link/out.bin"), "new", 3, error, sizeof error), 0);
  CHECK_INT(image_read_file(&back, &count, at("link/other"), 100, error, sizeof error), 0);
  CHECK(count == 5 && memcmp(back, "other", 5) == 0);
  free(back);
  CHECK_INT(image_read_file(&back, &count, at("link/out.bin"), 100, error, sizeof error), 0);
  CHECK(count == 3 && memcmp(back, "new", 3) == 0);
  free(back);
  CHECK_INT(entries(at("link")), 2);
}

/* ---- plots ---------------------------------------------------------------------------------- */

/* A whole small file as text. */
static char *text_of(const char *path)
{
  uint8_t *all;
  size_t count;
  char *text;
  if (image_read_file(&all, &count, path, 1 << 20, error, sizeof error) != 0) return NULL;
  text = dataset__copy((const char *)all, count);
  free(all);
  return text;
}

TEST(grid_shows_the_pictures)
{
  static uint8_t pictures[5 * 4 * 6 * 3];
  static const char *const headings[3] = {"prompt", NULL, "truth"};
  plot_grid_desc desc;
  image back;
  int i, y, x, bad = 0;
  memset(&desc, 0, sizeof desc);
  for (i = 0; i < 5 * 4 * 6 * 3; i++) pictures[i] = (uint8_t)(i * 29);
  desc.across = 3;
  desc.scale = 3;
  desc.gap = 5;
  CHECK_INT(plot_grid(at("grid.png"), pictures, 5, 4, 6, &desc, error, sizeof error), 0);
  CHECK_INT(image_load(&back, at("grid.png"), error, sizeof error), 0);
  CHECK_INT(back.columns, 2 * PLOT__MARGIN + 3 * 18 + 2 * 5);
  CHECK_INT(back.rows, 2 * PLOT__MARGIN + 2 * 12 + 5);
  for (i = 0; i < 5; i++)
    for (y = 0; y < 12; y++)
      for (x = 0; x < 18; x++)
        if (memcmp(back.rgb + 3 * ((PLOT__MARGIN + i / 3 * 17 + y) * back.columns + PLOT__MARGIN +
                                   i % 3 * 23 + x),
                   pictures + 3 * ((i * 4 + y / 3) * 6 + x / 3), 3) != 0)
          bad++;
  CHECK_INT(bad, 0);
  image_free(&back);
  desc.headings = headings;
  desc.title = "A title that is much wider than the pictures";
  desc.lone_first = desc.lone_last = 1;
  CHECK_INT(plot_grid(at("grid.png"), pictures, 5, 4, 6, &desc, error, sizeof error), 0);
  CHECK_INT(plot_grid(at("grid.png"), pictures, 0, 4, 6, NULL, error, sizeof error), -1);
  CHECK(strstr(error, "grid.png") != NULL);
}

TEST(heat_colours_grow_lighter_evenly)
{
  uint8_t rgb[3];
  double before = -1, lab[3], least = 1, most = 0;
  int i;
  for (i = 0; i <= 64; i++) {
    plot_heat_colour(rgb, i / 64.0);
    plot__to_lab(lab, rgb);
    if (i) {
      if (lab[0] - before < least) least = lab[0] - before;
      if (lab[0] - before > most) most = lab[0] - before;
    }
    before = lab[0];
  }
  CHECK_NEAR(least, 0.85 / 64, 0.004);
  CHECK_NEAR(most, 0.85 / 64, 0.004);
  plot_heat_colour(rgb, (double)NAN);
  CHECK(rgb[0] == rgb[1] && rgb[1] == rgb[2]);
}

TEST(heat_palette_and_curves_are_written)
{
  static float values[3 * 16] = {1, 2, 3};
  static uint8_t pictures[3 * 16 * 3], colours[7 * 3] = {255, 0, 0, 0, 255};
  double x[5] = {0, 1, 2, 3, 4}, y[5] = {3, 2, 1, 2, 4}, level = 2.5;
  plot_series series[2];
  plot_curves_desc desc;
  plot_heat_desc heat;
  int32_t marks[3] = {0, -1, 15};
  char *text;
  memset(series, 0, sizeof series);
  memset(&desc, 0, sizeof desc);
  memset(&heat, 0, sizeof heat);
  CHECK_INT(plot_heat(at("heat.png"), values, 3, 4, 4, NULL, error, sizeof error), 0);
  heat.pictures = pictures;
  heat.marks = marks;
  heat.unit = "nats";
  values[5] = (float)NAN;
  CHECK_INT(plot_heat(at("heat.png"), values, 3, 4, 4, &heat, error, sizeof error), 0);
  memset(values, 0, sizeof values);
  CHECK_INT(plot_heat(at("heat.png"), values, 3, 4, 4, &heat, error, sizeof error), 0);
  CHECK_INT(plot_palette(at("palette.png"), colours, 7, NULL, NULL, 0, 0, 0, "7 colours", error,
                         sizeof error), 0);
  CHECK_INT(plot_palette(at("palette.png"), colours, 7, pictures, pictures, 3, 4, 4, NULL, error,
                         sizeof error), 0);
  CHECK_INT(plot_palette(at("palette.png"), colours, 7, pictures, NULL, 3, 4, 4, NULL, error,
                         sizeof error), -1);
  series[0].name = "a < b & \"c\"";
  series[0].x = x;
  series[0].y = y;
  series[0].count = 5;
  series[0].style = PLOT_DOTS;
  series[1].style = PLOT_LEVEL;
  series[1].y = &level;
  series[1].count = 1;
  desc.whole_x = 1;
  desc.best = -1;
  CHECK_INT(plot_curves(at("curve.svg"), series, 2, &desc, error, sizeof error), 0);
  text = text_of(at("curve.svg"));
  CHECK(text && strstr(text, "a &lt; b &amp; &quot;c&quot;") != NULL);
  CHECK(text && strstr(text, "1.00 at 2<") != NULL);
  CHECK(text && strstr(text, "nan") == NULL && strstr(text, "</svg>") != NULL);
  free(text);
  y[1] = (double)INFINITY;
  y[2] = (double)NAN;
  desc.logarithmic_x = 1;
  CHECK_INT(plot_curves(at("curve.svg"), series, 2, &desc, error, sizeof error), 0);
  text = text_of(at("curve.svg"));
  CHECK(text && strstr(text, "nan") == NULL && strstr(text, "inf") == NULL);
  free(text);
  series[0].count = 0;
  CHECK_INT(plot_curves(at("curve.svg"), series, 2, NULL, error, sizeof error), 0);
  CHECK_INT(plot_curves(at("curve.svg"), series, 0, NULL, error, sizeof error), -1);
  CHECK(strstr(error, "curve.svg: 0 curves, and at least 1") != NULL);
}

/* Names as they are on disk: whatever its bytes, a page that is read as UTF-8 has letters only. */
TEST(text_of_curves_is_utf8)
{
  static const struct { const char *text, *want; } cases[] = {
    { "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\x7f", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\x7f" },
    { "cut \xc3", "cut ?" },
    { "cut \xf0\x9f\x98", "cut ???" },
    { "\xc3<\xe2\x82&", "?&lt;??&amp;" },
    { "\x80 \xc0\x80 \xc1\xbf \xfe\xff", "? ?? ?? ??" },
    { "\xe0\x9f\xbf \xe0\xa0\x80 \xf0\x8f\xbf\xbf \xf0\x90\x80\x80",
      "??? \xe0\xa0\x80 ???? \xf0\x90\x80\x80" },
    { "\xed\x9f\xbf \xed\xa0\x80 \xed\xbf\xbf \xee\x80\x80",
      "\xed\x9f\xbf ??? ??? \xee\x80\x80" },
    { "\xef\xbf\xbd \xef\xbf\xbe \xef\xbf\xbf", "\xef\xbf\xbd ??? ???" },
    { "\xf4\x8f\xbf\xbd \xf4\x90\x80\x80 \xf5\x80\x80\x80", "\xf4\x8f\xbf\xbd ???? ????" },
    { "a\1b\tc", "abc" }
  };
  const double level = 1;
  plot_series series;
  plot_curves_desc desc;
  size_t i;
  memset(&series, 0, sizeof series);
  memset(&desc, 0, sizeof desc);
  series.style = PLOT_LEVEL;
  series.y = &level;
  series.count = 1;
  for (i = 0; i < sizeof cases / sizeof *cases; i++) {
    char want[80], *text;
    snprintf(want, sizeof want, ">%s</text>", cases[i].want);
    desc.title = cases[i].text;
    CHECK_INT(plot_curves(at("text.svg"), &series, 1, &desc, error, sizeof error), 0);
    text = text_of(at("text.svg"));
    CHECK(text && strstr(text, want) != NULL);
    free(text);
  }
}

/* A tick is where its label says, and there are some, each at a place of its own. */
TEST(labels_of_a_logarithmic_axis_are_right)
{
  static const double ends[][2] = {{2, 4}, {1, 10}, {3, 30}, {3, 40}, {0.001, 0.0099}, {1000, 9900},
                                   {1, 60}, {0.01, 500}, {7, 7.5}};
  static const char head[] = "v5\" stroke=\"#8b94a0\"/><text x=\"";
  const double y[2] = {1, 2};
  plot_series series;
  plot_curves_desc desc;
  size_t i;
  memset(&series, 0, sizeof series);
  memset(&desc, 0, sizeof desc);
  series.y = y;
  series.count = 2;
  desc.logarithmic_x = 1;
  for (i = 0; i < sizeof ends / sizeof *ends; i++) {
    double last = -100;
    char *text, *tick;
    int ticks = 0;
    series.x = ends[i];
    CHECK_INT(plot_curves(at("log.svg"), &series, 1, &desc, error, sizeof error), 0);
    text = text_of(at("log.svg"));
    for (tick = text; tick && (tick = strstr(tick, head)) != NULL; ticks++) {
      const double place = strtod(tick + strlen(head), &tick);
      const double label = strtod(strchr(tick, '>') + 1, NULL);
      CHECK_NEAR(place, 72 + 624 * log(label / ends[i][0]) / log(ends[i][1] / ends[i][0]), 0.06);
      CHECK(place > last + 39);
      last = place;
    }
    CHECK(ticks > 1 && ticks < 14);
    free(text);
  }
}

TEST(csv_is_exact)
{
  double values[6] = {1, 6.23832463, 0.001, 2, 0, 0.5};
  char *text;
  values[4] = (double)NAN;
  CHECK_INT(plot_csv(at("a.csv"), "step,train,validation", values, 2, 3, error, sizeof error), 0);
  text = text_of(at("a.csv"));
  CHECK(text && strcmp(text, "step,train,validation\n1,6.23832463,0.001\n2,,0.5\n") == 0);
  free(text);
}

/* ---- main ----------------------------------------------------------------------------------- */

static void say(void *user, const char *sentence)
{
  (void)user;
  printf("%s\n", sentence);
}

static int fetch(char **argv)
{
  dataset_fetch_desc desc;
  char path[500];
  memset(&desc, 0, sizeof desc);
  desc.folder = argv[2];
  desc.url = argv[3];
  desc.md5 = argv[4];
  desc.offline = argv[3][0] == 0;
  desc.note = say;
  if (dataset_fetch_cifar10(path, sizeof path, &desc, error, sizeof error) != 0) {
    printf("error: %s\n", error);
    return 1;
  }
  printf("path: %s\n", path);
  return 0;
}

int main(int argc, char **argv)
{
  if (argc == 5 && strcmp(argv[1], "--fetch") == 0) return fetch(argv);
  dataset__remove(HERE);
  if (dataset__make_folder(HERE) != 0) {
    printf(HERE " cannot be made: run this from the repository's root\n");
    return 2;
  }
  RUN(cifar10_pixels_labels_parts);
  RUN(a_folder_that_fails_half_way_is_no_shorter_folder);
  RUN(a_missing_file_of_a_set_is_named);
  RUN(looking_takes_the_own_test_part_or_all);
  RUN(cifar_reduced_is_area_mean);
  RUN(cifar100_takes_the_fine_label);
  RUN(split_is_stratified_seeded_and_complete);
  RUN(a_set_without_test_part_is_split_in_three);
  RUN(stl10_planes_are_stored_by_columns);
  RUN(idx_grey_and_padding);
  RUN(npy_pictures_in_three_layouts);
  RUN(npy_tokens_and_labels);
  RUN(folder_per_class);
  RUN(folder_with_train_and_val);
  RUN(bad_pictures_are_named_and_counted);
  RUN(pipes_are_not_waited_for);
  RUN(runner_and_watch);
  RUN(exif_orientations_stand_upright);
  RUN(broken_exif_is_ignored);
  RUN(damaged_pictures_are_refused_or_decoded);
  RUN(a_table_hidden_in_a_scan_is_found);
  RUN(bmp_and_tga_are_whole_or_refused);
  RUN(a_decoder_that_says_nothing_is_not_quoted);
  RUN(transparency_is_laid_over_white);
  RUN(fit_takes_the_centre);
  RUN(real_photographs_agree);
  RUN(reflection_by_hand);
  RUN(pad_crop_mirror_draws_all_crops);
  RUN(resize_crop_zooms_between_256_and_384);
  RUN(refusals_name_file_and_values);
  RUN(a_file_that_cannot_be_opened_is_not_called_wrong);
  RUN(files_of_every_length);
  RUN(shapes_are_drawn);
  RUN(md5_of_the_rfc);
  RUN(a_full_disk_leaves_the_old_file);
  RUN(a_link_is_not_written_through);
  RUN(grid_shows_the_pictures);
  RUN(heat_colours_grow_lighter_evenly);
  RUN(heat_palette_and_curves_are_written);
  RUN(text_of_curves_is_utf8);
  RUN(labels_of_a_logarithmic_axis_are_right);
  RUN(csv_is_exact);
  dataset__remove(HERE);
  return test_done();
}
