/* seeds.h: the program that makes the seeds of the corpus: for each target a few small valid files
   of every form that its reader knows. `build/tests/fuzz --seeds` writes them to
   tests/fuzz/corpus/TARGET/; files there whose names begin with "found" are not from here, but
   inputs that a search has found worth keeping.                                                  */

#ifndef FUZZ_SEEDS_H
#define FUZZ_SEEDS_H

typedef void seeds_keep(const char *target, const char *name, const void *data, size_t size);

static void seeds_text(paper *b, const char *text) { paper_write(b, text, strlen(text)); }

static void seeds_put(seeds_keep *keep, const char *target, const char *name, paper *b)
{
  keep(target, name, b->data, b->size);
  b->size = 0;
}

/* ---- safetensors ---------------------------------------------------------------------------- */

static igpt_model *seeds_model(int width, int classes, igpt_objective objective, int biases)
{
  igpt_model_desc desc;
  igpt_model *model;
  igpt_palette palette;
  size_t i;
  memset(&desc, 0, sizeof desc);
  memset(&palette, 0, sizeof palette);
  desc.config.layers = 1;
  desc.config.heads = width;
  desc.config.width = width;
  desc.config.rows = 1;
  desc.config.columns = 2;
  desc.config.vocabulary = 3;
  desc.config.classes = classes;
  desc.config.objective = objective;
  desc.config.biases = biases;
  if (igpt_model_create(&model, &desc)) exit(2);
  for (i = 0; i < igpt_model_parameters(model); i++)
    model->scalars[i] = (float)(i % 17) / 16 - 0.5f;
  palette.colours = 3;
  strcpy(palette.name, "three \"colours\"");
  for (i = 0; i < 9; i++) palette.centre[i / 3][i % 3] = (float)i / 4 - 1;
  if (classes && igpt_model_set_palette(model, &palette)) exit(2);
  return model;
}

/* As others write it: two heads of width 1, two bytes a number, no igpt keys, no biases. */
static void seeds_foreign(paper *b, const char *dtype)
{
  igpt_model *model = seeds_model(2, 0, IGPT_AR, 0);
  igpt_tensor tensor;
  size_t i, at = 0, length;
  char text[200];
  seeds_text(b, "12345678{");
  for (i = 0; igpt_model_tensor_at(model, &tensor, i) == IGPT_OK; i++) {
    sprintf(text, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%u", i ? "," : "", tensor.name, dtype,
            (unsigned)tensor.shape[0]);
    seeds_text(b, text);
    sprintf(text, ",%u", (unsigned)tensor.shape[1]);
    if (tensor.rank == 2) seeds_text(b, text);
    sprintf(text, "],\"data_offsets\":[%u,%u]}", (unsigned)at, (unsigned)(at + 2 * tensor.count));
    seeds_text(b, text);
    at += 2 * tensor.count;
  }
  seeds_text(b, "}");
  length = b->size - 8;
  for (i = 0; i < 8; i++) b->data[i] = (char)(i < 4 ? length >> 8 * i & 255 : 0);
  for (i = 0; i < at; i++) paper_write(b, i & 1 ? "\x3c" : "", 1);
  igpt_model_destroy(model);
}

static void seeds_of_models(seeds_keep *keep)
{
  paper b = { 0 };
  igpt_sink sink = paper_sink(&b);
  int objective;
  for (objective = 0; objective < 2; objective++) {
    igpt_model *model = seeds_model(2, objective ? 2 : 0, (igpt_objective)objective, 0);
    if (igpt_model_write(model, &sink)) exit(2);
    seeds_put(keep, "model", objective ? "bert" : "ar", &b);
    if (objective) {
      paper_write(&b, "\3", 1);                 /* FOLDER_MODEL */
      if (igpt_model_write(model, &sink)) exit(2);
      seeds_put(keep, "folder", "safetensors", &b);
    }
    igpt_model_destroy(model);
  }
  {
    igpt_model *model = seeds_model(2, 2, IGPT_AR, 1);
    if (igpt_model_write_hf(model, &sink, 1)) exit(2);
    seeds_put(keep, "model", "classifier_biases", &b);
    igpt_model_destroy(model);
  }
  seeds_foreign(&b, "F16");
  seeds_put(keep, "model", "foreign_f16", &b);
  seeds_foreign(&b, "BF16");
  seeds_put(keep, "model", "foreign_bf16", &b);
#ifndef IGPT_NO_TRAIN
  {
    checkpoint_run r;
    igpt_progress progress;
    memset(&progress, 0, sizeof progress);
    progress.step = 12;
    progress.picture = UINT64_MAX;
    progress.seconds = 0.5;
    checkpoint_open(&r);
    checkpoint_write(&b, &r, &progress);
    checkpoint_close(&r);
    seeds_put(keep, "checkpoint", "classes", &b);
  }
#endif
  free(b.data);
}

/* ---- .npy ----------------------------------------------------------------------------------- */

static void seeds_npy(paper *b, int version, const char *type, const char *shape,
                      const void *data, size_t bytes)
{
  uint8_t start[12] = { 0x93, 'N', 'U', 'M', 'P', 'Y', 0, 0, 0, 0, 0, 0 };
  char header[120];
  const int n = snprintf(header, sizeof header,
                         "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }\n", type, shape);
  start[6] = (uint8_t)version;
  start[8] = (uint8_t)n;
  paper_write(b, start, version == 1 ? 10 : 12);
  paper_write(b, header, (size_t)n);
  paper_write(b, data, bytes);
}

static void seeds_of_npy(seeds_keep *keep)
{
  static const struct { const char *name; int version; const char *type, *shape; size_t bytes; }
  list[] = {
    { "bytes", 1, "|u1", "2, 3, 4", 24 }, { "big_f4", 1, ">f4", "3,", 12 },
    { "i8_v2", 2, "<i8", "2, 2", 32 }, { "bool_v3", 3, "|b1", "", 1 },
    { "u8", 1, ">u8", "2", 16 }, { "f8", 1, "<f8", "1, 1, 1, 1, 1, 1, 1, 2", 16 },
    { "empty", 1, "<i2", "0, 7", 0 }
  };
  uint8_t data[32];
  paper b = { 0 };
  size_t i;
  for (i = 0; i < 32; i++) data[i] = (uint8_t)(i * 37 & 0x7f);
  for (i = 0; i < sizeof list / sizeof *list; i++) {
    seeds_npy(&b, list[i].version, list[i].type, list[i].shape, data, list[i].bytes);
    seeds_put(keep, "npy", list[i].name, &b);
  }
  free(b.data);
}

/* ---- data sets ------------------------------------------------------------------------------ */

/* Kind and flags, then the second file, whose length comes first. */
static void seeds_set(paper *b, int kind, const void *second, size_t count)
{
  uint8_t start[3];
  start[0] = (uint8_t)kind;
  start[1] = (uint8_t)(count & 255);
  start[2] = (uint8_t)(count >> 8);
  paper_write(b, start, 3);
  paper_write(b, second, count);
}

static void seeds_of_sets(seeds_keep *keep)
{
  static const char names[] = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";
  static const uint8_t images[16] = { 0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4 };
  static const uint8_t labels[10] = { 0, 0, 8, 1, 0, 0, 0, 2, 7, 1 };
  static const uint8_t one_hot[8] = { 0, 1, 0, 0, 0, 0, 0, 1 };
  static uint8_t pixels[3074];
  paper b = { 0 }, second = { 0 };
  size_t i;
  for (i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i % 10);

  seeds_set(&b, 0, NULL, 0);
  paper_write(&b, pixels, 3073);
  seeds_put(keep, "dataset", "cifar10", &b);
  seeds_set(&b, 0 + DATASET_PAD + 8 + DATASET_CROP, names, sizeof names - 1);
  paper_write(&b, pixels + 3, 40);
  seeds_put(keep, "dataset", "cifar10_names_crop", &b);
  seeds_set(&b, 1 + DATASET_PAD, NULL, 0);
  paper_write(&b, pixels + 5, 3);
  seeds_put(keep, "dataset", "cifar100", &b);
  seeds_set(&b, 2 + DATASET_PAD, "\12", 1);
  paper_write(&b, pixels + 5, 30);
  seeds_put(keep, "dataset", "stl10", &b);
  seeds_set(&b, 3, labels, sizeof labels);
  paper_write(&b, images, sizeof images);
  paper_write(&b, pixels, 24);
  seeds_put(keep, "dataset", "idx", &b);
  seeds_set(&b, 3 + 8, NULL, 0);
  paper_write(&b, images, sizeof images);
  paper_write(&b, pixels, 24);
  seeds_put(keep, "dataset", "idx_on_black", &b);

  seeds_npy(&second, 1, "<i2", "2,", "\1\0\0\0", 4);
  seeds_set(&b, 4, second.data, second.size);
  seeds_npy(&b, 1, "|u1", "2, 3, 2, 4", pixels, 48);
  seeds_put(keep, "dataset", "npy_planes", &b);
  second.size = 0;
  seeds_npy(&second, 1, "|u1", "2, 4", one_hot, 8);
  seeds_set(&b, 4 + 8 + DATASET_ENLARGE, second.data, second.size);
  seeds_npy(&b, 1, "|u1", "2, 2, 3, 3", pixels, 36);
  seeds_put(keep, "dataset", "npy_pixels_one_hot", &b);
  seeds_set(&b, 4 + 8 + DATASET_CROP, NULL, 0);
  seeds_npy(&b, 1, "|u1", "1, 20, 30", pixels, 600);
  seeds_put(keep, "dataset", "npy_grey_crop", &b);
  seeds_set(&b, 4, NULL, 0);
  seeds_npy(&b, 2, ">u2", "2, 4", pixels, 16);
  seeds_put(keep, "dataset", "npy_tokens", &b);
  seeds_set(&b, 5, NULL, 0);
  seeds_text(&b, "n00\tnothing\nn01\tgoldfish, Carassius\r\nn02\ttench\n");
  seeds_put(keep, "dataset", "words", &b);
  free(b.data);
  free(second.data);
}

/* ---- EXIF ----------------------------------------------------------------------------------- */

static void seeds_of_exif(seeds_keep *keep)
{
  static const uint8_t little[] = {
    0xff, 0xd8, 0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0, 'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0,
    0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd9 };
  static const uint8_t big[] = {
    0xff, 0xd8, 0xff, 0xe0, 0, 2, 0xff, 0xff, 0xe1, 0, 46, 'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0,
    42, 0, 0, 0, 8, 0, 2, 1, 0, 0, 3, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 3, 0, 0,
    0, 0, 0, 0, 0xff, 0xc4, 0, 21, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 6, 0xff,
    0xda, 0, 3, 0, 1, 2, 0xff, 0, 3, 0xff, 0xd0, 4, 0xff, 0xd9 };
  keep("exif", "little", little, sizeof little);
  keep("exif", "big_and_scan", big, sizeof big);
}

/* ---- the tool's folder ---------------------------------------------------------------------- */

static void seeds_of_folders(seeds_keep *keep)
{
  float centres[6] = { -1, 0, 1, 0.5f, -0.25f, 0 };
  static const uint8_t bytes[6] = { 0, 128, 255, 1, 2, 3 };
  paper b = { 0 };
  paper_write(&b, "", 1);
  seeds_text(&b, "{\"n_embd\": 16, \"n_layer\": 2, \"n_head\": 4, \"n_positions\": 64, "
                 "\"vocab_size\": 17, \"layer_norm_epsilon\": 1e-05, \"n_inner\": 64, "
                 "\"activation_function\": \"quick_gelu\", \"scale_attn_weights\": true, "
                 "\"more\": {\"n_layer\": [1, null, \"\\\"x\"]}}");
  seeds_put(keep, "folder", "config", &b);
  paper_write(&b, "\1", 1);
  seeds_text(&b, "{\"do_resize\": true, \"clusters\": [[-1.0, 0.5, 1], [0, -2.5e-1, 0.125]]}");
  seeds_put(keep, "folder", "clusters", &b);
  paper_write(&b, "\2", 1);
  if (igpt__big_endian()) igpt__swap(centres, 6, 4);
  seeds_npy(&b, 1, "<f4", "2, 3", centres, sizeof centres);
  seeds_put(keep, "folder", "npy_floats", &b);
  paper_write(&b, "\2", 1);
  seeds_npy(&b, 1, "|u1", "2, 3", bytes, sizeof bytes);
  seeds_put(keep, "folder", "npy_bytes", &b);
  paper_write(&b, "\4\74\0\0\0\0\0\0", 9);
  seeds_text(&b, "{\"__metadata__\":{\"a\":\"\",\"note\":\"\\u00e9\\n\\\"\\uffFD x\"}}");
  while (b.size < 9 + 60) seeds_text(&b, " ");
  seeds_put(keep, "folder", "note", &b);
  free(b.data);
}

/* ---- kernels -------------------------------------------------------------------------------- */

/* Each of them, with shapes that are no multiples of anything. */
static void seeds_of_kernels(seeds_keep *keep)
{
  uint8_t data[24];
  char name[16];
  size_t i, j;
  for (i = 0; i < sizeof kernels_all / sizeof *kernels_all; i++) {
    data[0] = (uint8_t)i;
    for (j = 1; j < sizeof data; j++) data[j] = (uint8_t)(j % 2 ? 29 + 11 * i + j : j % 7);
    sprintf(name, "kernel_%02u", (unsigned)i);
    keep("kernels", name, data, sizeof data);
  }
}

static void seeds_make(seeds_keep *keep)
{
  seeds_of_models(keep);
  seeds_of_npy(keep);
  seeds_of_sets(keep);
  seeds_of_exif(keep);
  seeds_of_folders(keep);
  seeds_of_kernels(keep);
}

#endif
