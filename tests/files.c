/* cc -std=c99 -O2 -I. -o build/tests/files tests/files.c -lm -pthread

   Files: what is written reads back to the same bits, and nothing that is read is believed.
   Sources are blocks of exactly the size they claim, so that a sanitizer sees a byte too many.   */

#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "test.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- what the host lends ------------------------------------------------------------------- */

static char last[512];            /* the latest sentence in the log */

static void log_line(void *user, igpt_result result, const char *sentence)
{
  (void)user;
  (void)result;
  strncpy(last, sentence, sizeof last - 1);
}

static igpt_log test_log(void)
{
  igpt_log log;
  log.line = log_line;
  log.user = NULL;
  return log;
}

typedef struct meter {
  int calls, fail_at;             /* the call that fails, from 1; 0: none */
  long live;                      /* blocks not given back */
} meter;

static void *meter_alloc(void *user, size_t bytes)
{
  meter *m = (meter *)user;
  if (++m->calls == m->fail_at) return NULL;
  m->live++;
  return malloc(bytes);
}

static void meter_free(void *user, void *block, size_t bytes)
{
  (void)bytes;
  ((meter *)user)->live--;
  free(block);
}

static igpt_allocator metered(meter *m)
{
  igpt_allocator allocator;
  allocator.alloc = meter_alloc;
  allocator.free = meter_free;
  allocator.user = m;
  return allocator;
}

/* Bytes of a file; also a sink that appends and a source that reads through a callback. */
typedef struct bytes {
  char *data;
  size_t size, room;
  int calls, fail_at;
} bytes;

static void *no_null(void *block)
{
  if (!block) {
    printf("out of memory\n");
    exit(1);
  }
  return block;
}

static int append(void *user, const void *from, size_t count)
{
  bytes *b = (bytes *)user;
  if (++b->calls == b->fail_at) return 1;
  if (b->size + count > b->room) {
    b->room = 2 * (b->size + count);
    b->data = (char *)no_null(realloc(b->data, b->room));
  }
  if (count) memcpy(b->data + b->size, from, count);
  b->size += count;
  return 0;
}

static int read_back(void *user, uint64_t offset, void *to, size_t count)
{
  bytes *b = (bytes *)user;
  if (++b->calls == b->fail_at) return 1;
  if (offset > b->size || count > b->size - offset) return 1;
  memcpy(to, b->data + offset, count);
  return 0;
}

static igpt_sink sink_of(bytes *b)
{
  igpt_sink sink;
  sink.write = append;
  sink.user = b;
  return sink;
}

static igpt_source source_of(bytes *b)
{
  igpt_source source;
  memset(&source, 0, sizeof source);
  source.read = read_back;
  source.user = b;
  source.size = b->size;
  return source;
}

static void clear(bytes *b)
{
  free(b->data);
  memset(b, 0, sizeof *b);
}

static int same_bytes(const bytes *a, const bytes *b)
{
  return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

/* ---- small models -------------------------------------------------------------------------- */

static igpt_model_desc small_desc(void)
{
  igpt_model_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.config.layers = 2;
  desc.config.heads = 2;
  desc.config.width = 8;
  desc.config.rows = 2;
  desc.config.columns = 3;
  desc.config.vocabulary = 4;
  desc.seed = 7;
  desc.log = test_log();
  return desc;
}

static igpt_model *make(const igpt_model_desc *desc)
{
  igpt_model *model = NULL;
  size_t i;
  CHECK_INT(igpt_model_create(&model, desc), IGPT_OK);
  if (!model) exit(1);
  for (i = 0; i < igpt_model_parameters(model); i++)        /* no zeros, exact in 8 bits */
    model->scalars[i] = (float)((int)(i * 37 % 251) - 125) / 64 + 1.0f / 128;
  for (i = 0; i < igpt_model_parameters(model); i++)
    model->scalars[i] = igpt__round_bf16(model->scalars[i]);
  return model;
}

static void set_palette(igpt_model *model)
{
  igpt_palette palette;
  int i;
  memset(&palette, 0, sizeof palette);
  palette.colours = model->config.vocabulary;
  strcpy(palette.name, "test \"512\" \\ \xc3\xa9");
  for (i = 0; i < 3 * palette.colours; i++)
    palette.centre[i / 3][i % 3] = (float)sin((double)i) * (i == 4 ? 1e-20f : 1);
  palette.centre[0][0] = -1;
  palette.centre[0][1] = 1.0f / 3;
  palette.centre[0][2] = 0.99999994f;
  CHECK_INT(igpt_model_set_palette(model, &palette), IGPT_OK);
}

static igpt_result read_bytes(igpt_model **out, const bytes *file, const igpt_model_desc *desc)
{
  igpt_source source;
  igpt_result result;
  char *exact = (char *)no_null(malloc(file->size ? file->size : 1));
  if (file->size) memcpy(exact, file->data, file->size);
  memset(&source, 0, sizeof source);
  source.memory = exact;
  source.size = file->size;
  *out = (igpt_model *)exact;     /* must be overwritten */
  last[0] = 0;
  result = igpt_model_read(out, &source, desc);
  free(exact);
  CHECK((result == IGPT_OK) == (*out != NULL));
  if (result != IGPT_OK && desc && desc->log.line) CHECK(last[0] != 0);
  return result;
}

static void write_bytes(bytes *file, const igpt_model *model)
{
  igpt_sink sink = sink_of(file);
  CHECK_INT(igpt_model_write(model, &sink), IGPT_OK);
}

static int same_weights(const igpt_model *a, const igpt_model *b)
{
  return igpt_model_parameters(a) == igpt_model_parameters(b) &&
         memcmp(a->scalars, b->scalars, igpt_model_parameters(a) * sizeof(float)) == 0;
}

static igpt_model_desc quiet(void)
{
  igpt_model_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.log = test_log();
  return desc;
}

/* ---- round trips --------------------------------------------------------------------------- */

TEST(round_trip_is_byte_equal)
{
  int objective, classes, palette;
  for (objective = 0; objective < 2; objective++)
    for (classes = 0; classes < 4; classes += 3)
      for (palette = 0; palette < 2; palette++) {
        igpt_model_desc desc = small_desc(), none = quiet();
        igpt_model *model, *back;
        bytes first = { 0 }, second = { 0 };
        desc.config.objective = (igpt_objective)objective;
        desc.config.classes = classes;
        desc.config.norm_epsilon = 3.3333333e-6f;
        model = make(&desc);
        model->step = UINT64_MAX - 3;
        if (palette) set_palette(model);
        write_bytes(&first, model);
        CHECK_INT(read_bytes(&back, &first, &none), IGPT_OK);
        if (back) {
          CHECK(same_weights(model, back));
          CHECK(memcmp(&model->config, &back->config, sizeof model->config) == 0);
          CHECK(memcmp(&model->palette, &back->palette, sizeof model->palette) == 0);
          CHECK(back->step == UINT64_MAX - 3);
          write_bytes(&second, back);
          CHECK(same_bytes(&first, &second));
        }
        igpt_model_destroy(back);
        igpt_model_destroy(model);
        clear(&first);
        clear(&second);
      }
}

/* Decimals of floats: shortest, and the same bits back, over all magnitudes. */
TEST(reals_round_trip)
{
  static const struct { float value; const char *text; } known[] = {
    { 0, "0" }, { 1, "1" }, { -0.5f, "-0.5" }, { 1e-5f, "1e-5" }, { 0.0001f, "0.0001" },
    { 0.1f, "0.1" }, { 123456, "123456" }, { 1e20f, "1e20" }, { 16777216, "16777216" },
    { 0.33333334f, "0.33333334" }, { 3.4028235e38f, "3.4028235e38" }, { 1.5e-45f, "1e-45" }
  };
  static const char *const wrong[] = { "", "-", ".", "e5", "1e", "1e+", "x", " 1", "1e39", "nan",
                                       "inf", "4e38", "-1e99999999999" };
  igpt_rng rng = igpt_rng_seed(1, 0);
  size_t i;
  int bad = 0;
  char text[32];
  for (i = 0; i < COUNT(known); i++) {
    igpt__print_real(text, known[i].value);
    if (strcmp(text, known[i].text) != 0) printf("%s, expected %s\n", text, known[i].text);
    CHECK(strcmp(text, known[i].text) == 0);
  }
  for (i = 0; i < COUNT(wrong); i++) {
    const char *p = wrong[i];
    float value;
    CHECK(igpt__parse_real(&p, &value) != 0);
  }
  for (i = 0; i < 20000; i++) {
    uint32_t bits = igpt_rng_next(&rng);
    float value, back = 0;
    const char *p = text;
    memcpy(&value, &bits, sizeof value);
    if (!(value - value == 0)) continue;
    igpt__print_real(text, value);
    if (igpt__parse_real(&p, &back) || *p || back != value) bad++;
  }
  CHECK_INT(bad, 0);
}

/* ---- damaged files ------------------------------------------------------------------------- */

TEST(every_prefix_and_one_more_byte)
{
  igpt_model_desc desc = small_desc(), none = quiet();
  igpt_model *model = make(&desc), *back;
  bytes file = { 0 }, part;
  int accepted = 0;
  set_palette(model);
  write_bytes(&file, model);
  for (part = file, part.size = 0; part.size < file.size; part.size++) {
    accepted += read_bytes(&back, &part, &none) == IGPT_OK;
    igpt_model_destroy(back);
  }
  CHECK_INT(accepted, 0);
  append(&file, "", 1);
  CHECK_INT(read_bytes(&back, &file, &none), IGPT_BAD_FILE);
  igpt_model_destroy(model);
  clear(&file);
}

TEST(every_header_byte_changed)
{
  igpt_model_desc desc = small_desc(), none = quiet();
  igpt_model *model, *back, *again;
  bytes file = { 0 }, copy = { 0 };
  size_t header, i;
  int how, accepted = 0;
  desc.config.layers = 1;
  desc.config.classes = 2;
  model = make(&desc);
  set_palette(model);
  write_bytes(&file, model);
  header = 8 + (size_t)(unsigned char)file.data[0] + 256 * (size_t)(unsigned char)file.data[1];
  for (i = 0; i < header; i++)
    for (how = 0; how < 4; how++) {
      const char old = file.data[i];
      file.data[i] = (char)(how == 0 ? 0 : how == 1 ? 0xff : how == 2 ? old + 1 : old - 1);
      if (read_bytes(&back, &file, &none) == IGPT_OK) {
        /* a digit of the palette, the step, ...: the weights are what they were, and whatever has
           been read can be written and read again */
        accepted++;
        CHECK(same_weights(model, back));
        copy.size = 0;
        write_bytes(&copy, back);
        CHECK_INT(read_bytes(&again, &copy, &none), IGPT_OK);
        if (again) CHECK(memcmp(&again->palette, &back->palette, sizeof back->palette) == 0);
        igpt_model_destroy(again);
      }
      igpt_model_destroy(back);
      file.data[i] = old;
    }
  CHECK(accepted > 0 && accepted < (int)header);
  igpt_model_destroy(model);
  clear(&file);
  clear(&copy);
}

/* The file with the first `find` of its header (every one, if `all`) replaced, and the length of
   the header mended. 0 if there is none. */
static int edit(bytes *out, const bytes *file, const char *find, const char *replace, int all)
{
  const size_t header = (size_t)(unsigned char)file->data[0] +
                        256 * (size_t)(unsigned char)file->data[1];
  const size_t n = strlen(find);
  size_t i, length;
  int found = 0, j;
  clear(out);
  append(out, "12345678", 8);
  for (i = 0; i < header;) {
    if ((all || !found) && i + n <= header && memcmp(file->data + 8 + i, find, n) == 0) {
      append(out, replace, strlen(replace));
      found = 1;
      i += n;
    } else {
      append(out, file->data + 8 + i++, 1);
    }
  }
  length = out->size - 8;
  for (j = 0; j < 8; j++) out->data[j] = (char)(length >> 8 * j & 255);
  append(out, file->data + 8 + header, file->size - 8 - header);
  return found;
}

typedef struct damage {
  const char *find, *replace;
  int all;
  igpt_result expected;
  const char *sentence;           /* part of the sentence; null: none */
} damage;

static const damage damages[] = {
  /* shapes: overflow, and a product that comes back to the right value when it wraps */
  { "[6,8]", "[18446744073709551616,8]", 0, IGPT_BAD_FILE, "whole number" },
  { "[6,8]", "[18446744073709551615,8]", 0, IGPT_BAD_FILE, "transformer.wpe.weight" },
  { "[6,8]", "[4611686018427387910,8]", 0, IGPT_BAD_FILE, "transformer.wpe.weight" },
  { "[6,8]", "[8,6]", 0, IGPT_MISMATCH, "" },
  { "[6,8]", "[48]", 0, IGPT_MISMATCH, "transformer.wpe.weight" },
  { "[6,8]", "[1,6,8]", 0, IGPT_MISMATCH, "transformer.wpe.weight" },
  { "[6,8]", "[1,1,1,1,1,1,1,6,8]", 0, IGPT_BAD_FILE, "at most 8" },
  { "[6,8]", "[-6,-8]", 0, IGPT_BAD_FILE, NULL },
  { "[6,8]", "[6.0,8]", 0, IGPT_BAD_FILE, NULL },
  { "[6,8]", "[6e0,8]", 0, IGPT_BAD_FILE, NULL },
  { "[6,8]", "[06,8]", 0, IGPT_BAD_FILE, NULL },
  { "[6,8]", "[6,8,]", 0, IGPT_BAD_FILE, NULL },
  { "[6,8]", "[ 6 ,\n8\t]", 0, IGPT_OK, NULL },
  { "[6,8]", "[6,8", 0, IGPT_BAD_FILE, NULL },
  { "[6,8]", "\"6\"", 0, IGPT_BAD_FILE, NULL },
  { "[6,8]", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[6,8]", 0, IGPT_BAD_FILE, NULL },
  { "\"shape\":[6,8],", "", 0, IGPT_BAD_FILE, "once each" },
  { "\"shape\":[6,8],", "\"shape\":[6,8],\"shape\":[6,8],", 0, IGPT_BAD_FILE, "once each" },
  { "\"shape\":[6,8],", "\"shape\":[6,8],\"more\":{\"a\":[1]},", 0, IGPT_BAD_FILE, "once each" },
  /* ranges; wte takes bytes 0..160, wpe 160..352 */
  { "[160,352]", "[159,351]", 0, IGPT_BAD_FILE, "starts at byte 159" },
  { "[160,352]", "[0,192]", 0, IGPT_BAD_FILE, "starts at byte 0" },
  { "[160,352]", "[352,160]", 0, IGPT_BAD_FILE, "transformer.wpe.weight" },
  { "[160,352]", "[160,356]", 0, IGPT_BAD_FILE, "192 bytes" },
  { "[160,352]", "[100000,100192]", 0, IGPT_BAD_FILE, "starts at byte" },
  { "[160,352]", "[18446744073709551424,18446744073709551616]", 0, IGPT_BAD_FILE, NULL },
  { "[160,352]", "[18446744073709551423,18446744073709551615]", 0, IGPT_BAD_FILE, NULL },
  { "[160,352]", "[160]", 0, IGPT_BAD_FILE, NULL },
  { "[160,352]", "[160,352,352]", 0, IGPT_BAD_FILE, NULL },
  /* names */
  { "transformer.ln_f.weight", "transformer.h.0.ln_1.weight", 0, IGPT_BAD_FILE, "two tensors" },
  { "transformer.ln_f.weight", "h.0.ln_1.weight", 0, IGPT_MISMATCH, "transformer.ln_f.weight" },
  { "transformer.ln_f.weight", "transformer.ln_g.weight", 0, IGPT_MISMATCH, "transformer.ln_f" },
  { "transformer.ln_f.weight", "transformer.ln_f.\\u0077eight", 0, IGPT_OK, NULL },
  { "transformer.ln_f.weight", "transformer.ln_f.\\u0000eight", 0, IGPT_BAD_FILE, "escape" },
  { "transformer.ln_f.weight", "transformer.ln_f.weigh\\t", 0, IGPT_BAD_FILE, "printable" },
  { "transformer.ln_f.weight", "transformer.ln_f.\\x77eight", 0, IGPT_BAD_FILE, "escape" },
  { "transformer.ln_f.weight", "\\ud83d\\ude00", 0, IGPT_MISMATCH, NULL },
  { "transformer.ln_f.weight", "\\ud83d", 0, IGPT_BAD_FILE, "escape" },
  { "transformer.ln_f.weight", "\\ude00\\ud83d", 0, IGPT_BAD_FILE, "escape" },
  { "transformer.ln_f.weight", "\xff", 0, IGPT_BAD_FILE, "UTF-8" },
  { "transformer.ln_f.weight", "\xed\xa0\x80", 0, IGPT_BAD_FILE, "UTF-8" },
  { "transformer.ln_f.weight", "\xc0\xaf", 0, IGPT_BAD_FILE, "UTF-8" },
  { "transformer.ln_f.weight", "a\nb", 0, IGPT_BAD_FILE, "UTF-8" },
  { "transformer.", "", 1, IGPT_OK, NULL },
  { "lm_head.weight", "lm_tail.weight", 0, IGPT_MISMATCH, "lm_head.weight" },
  { "\"lm_head.weight\"", "\"x\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
    "\"lm_head.weight\"", 0, IGPT_MISMATCH, "tensor x has no place" },
  { "\"lm_head.weight\"", "\"transformer.h.1.attn.bias\":{\"dtype\":\"BOOL\",\"shape\":[1,1,0,6],"
    "\"data_offsets\":[0,0]},\"lm_head.weight\"", 0, IGPT_OK, NULL },
  { "\"lm_head.weight\"", "\"transformer.h.1.attn.masked_bias\":{\"dtype\":\"F32\",\"shape\":[0],"
    "\"data_offsets\":[0,0]},\"lm_head.weight\"", 0, IGPT_OK, NULL },
  { "transformer.h.1.", "transformer.h.2.", 1, IGPT_MISMATCH, "has no place in a network of 1" },
  { "h.1.mlp.c_fc.weight", "h.1.mlp.c_fd.weight", 0, IGPT_MISMATCH, "h.1.mlp.c_fc.weight" },
  /* types */
  { "F32", "F64", 0, IGPT_BAD_FILE, NULL },
  { "F32", "I32", 0, IGPT_MISMATCH, "I32" },
  { "F32", "F33", 0, IGPT_MISMATCH, "F33" },
  { "F32", "", 0, IGPT_MISMATCH, NULL },
  { "\"F32\"", "32", 0, IGPT_BAD_FILE, NULL },
  /* __metadata__ */
  { "__metadata__", "__metadata_", 0, IGPT_BAD_FILE, NULL },
  { "\"igpt.rows\":\"2\"", "\"igpt.rows\":2", 0, IGPT_BAD_FILE, "a string" },
  { "\"igpt.rows\":\"2\"", "\"igpt.rows\":\"0\"", 0, IGPT_BAD_FILE, "igpt.rows" },
  { "\"igpt.rows\":\"2\"", "\"igpt.rows\":\"2x\"", 0, IGPT_BAD_FILE, "igpt.rows" },
  { "\"igpt.rows\":\"2\"", "\"igpt.rows\":\"4\"", 0, IGPT_MISMATCH, "6 positions" },
  { "\"igpt.rows\":\"2\"", "\"igpt.rows\":\"2\",\"igpt.rows\":\"2\"", 0, IGPT_BAD_FILE, "once" },
  { "\"igpt.rows\":\"2\",", "", 0, IGPT_BAD_FILE, "igpt.rows" },
  { "\"igpt.rows\":\"2\"", "\"igpt.rows\":\"2147483648\"", 0, IGPT_BAD_FILE, "igpt.rows" },
  { "\"igpt.heads\":\"2\"", "\"igpt.heads\":\"3\"", 0, IGPT_BAD_FILE, "heads" },
  { "\"igpt.version\":\"1\"", "\"igpt.version\":\"2\"", 0, IGPT_UNSUPPORTED, "igpt.version is 2" },
  { "\"ar\"", "\"bert\"", 0, IGPT_MISMATCH, "transformer.wte.weight" },
  { "\"ar\"", "\"art\"", 0, IGPT_BAD_FILE, "igpt.objective" },
  { "quick_gelu", "relu", 0, IGPT_MISMATCH, "igpt.activation is \"relu\"" },
  { "raster", "hilbert", 0, IGPT_MISMATCH, "igpt.order" },
  { "\"1e-5\"", "\"nan\"", 0, IGPT_BAD_FILE, "norm_epsilon" },
  { "\"1e-5\"", "\"2\"", 0, IGPT_BAD_FILE, "norm_epsilon" },
  { "\"igpt.step\":\"0\"", "\"igpt.step\":\"-1\"", 0, IGPT_BAD_FILE, "igpt.step" },
  { "\"igpt.step\":\"0\"", "\"igpt.step\":\"18446744073709551616\"", 0, IGPT_BAD_FILE,
    "igpt.step" },
  { "\"igpt.centres\":\"-1", "\"igpt.centres\":\"", 0, IGPT_BAD_FILE, "igpt.centres: number 1" },
  { "\"igpt.centres\":\"-1", "\"igpt.centres\":\"-1 0", 0, IGPT_BAD_FILE, "number 13 of 12" },
  { "\"igpt.palette\"", "\"igpt.paletto\"", 0, IGPT_BAD_FILE, "igpt.palette" },
  { "\"format\":\"pt\"", "\"unknown\":\"key\"", 0, IGPT_OK, NULL },
  /* the whole */
  { "{", "[", 0, IGPT_BAD_FILE, "'{'" },
  { "{", " \n{", 0, IGPT_OK, NULL },
  { "{", "{,", 0, IGPT_BAD_FILE, NULL },
  { "{", "{}{", 0, IGPT_BAD_FILE, "the end of the header" },
  { "{", "\xef\xbb\xbf{", 0, IGPT_BAD_FILE, NULL }
};

TEST(damages_and_their_sentences)
{
  igpt_model_desc desc = small_desc(), none = quiet();
  igpt_model *model = make(&desc), *back;
  bytes file = { 0 }, broken = { 0 };
  size_t i;
  set_palette(model);
  write_bytes(&file, model);
  for (i = 0; i < COUNT(damages); i++) {
    const damage *d = &damages[i];
    igpt_result result;
    CHECK(edit(&broken, &file, d->find, d->replace, d->all));
    result = read_bytes(&back, &broken, &none);
    if (result != d->expected || (d->sentence && !strstr(last, d->sentence)))
      printf("%s -> %s: %d, \"%s\"\n", d->find, d->replace, (int)result, last);
    CHECK_INT(result, d->expected);
    if (d->sentence) CHECK(strstr(last, d->sentence) != NULL);
    if (back) CHECK(same_weights(model, back));
    igpt_model_destroy(back);
  }
  igpt_model_destroy(model);
  clear(&file);
  clear(&broken);
}

/* Headers that are nothing but depth, or long, or of a length that lies. */
TEST(depth_and_length)
{
  static const char *const units[] = { "[", "{\"a\":", "{\"a\":{\"shape\":[", "\"", "{\"\\",
                                       "{\"__metadata__\":" };
  static const uint64_t lengths[] = { 0, 1, 2, 3, 100000000, 100000001, (uint64_t)1 << 63,
                                      UINT64_MAX, UINT64_MAX - 7 };
  igpt_model_desc none = quiet();
  igpt_model *back;
  bytes file = { 0 };
  size_t i, j;
  for (i = 0; i < COUNT(units); i++) {
    size_t length;
    clear(&file);
    append(&file, "\0\0\0\0\0\0\0\0", 8);
    for (j = 0; j < 100000; j++) append(&file, units[i], strlen(units[i]));
    length = file.size - 8;
    for (j = 0; j < 8; j++) file.data[j] = (char)(length >> 8 * j & 255);
    CHECK_INT(read_bytes(&back, &file, &none), IGPT_BAD_FILE);
  }
  for (i = 0; i < COUNT(lengths); i++) {
    clear(&file);
    for (j = 0; j < 8; j++) {
      const char byte = (char)(lengths[i] >> 8 * j & 255);
      append(&file, &byte, 1);
    }
    append(&file, "{}  ", 4);
    CHECK(read_bytes(&back, &file, &none) != IGPT_OK);
  }
  clear(&file);
}

/* ---- values -------------------------------------------------------------------------------- */

/* Where the numbers of a tensor are in the file. */
static size_t place_of(const bytes *file, const char *name)
{
  igpt__file *header = NULL;
  igpt_allocator allocator;
  igpt_source source;
  bytes copy = *file;
  size_t place = 0;
  memset(&allocator, 0, sizeof allocator);
  igpt__allocator_resolve(&allocator, NULL);
  source = source_of(&copy);
  CHECK_INT(igpt__file_begin(&header, &source, &allocator, NULL), IGPT_OK);
  if (header) {
    const igpt__entry *entry = igpt__find(header, name);
    CHECK(entry != NULL);
    if (entry) place = (size_t)(header->data + entry->begin);
    igpt__file_end(header);
  }
  return place;
}

TEST(numbers_that_are_refused)
{
  static const unsigned char nan_bits[] = { 0, 0, 0xc0, 0x7f }, inf_bits[] = { 0, 0, 0x80, 0xff };
  static const unsigned char one[] = { 0, 0, 0x80, 0x3f }, minus_zero[] = { 0, 0, 0, 0x80 };
  static const char *const biases[] = { "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj" };
  igpt_model_desc desc = small_desc(), none = quiet();
  igpt_model *model = make(&desc), *back;
  bytes file = { 0 };
  size_t i, at;
  char old[4];
  write_bytes(&file, model);
  for (i = 0; i < 4; i++) {
    char name[64];
    sprintf(name, "transformer.h.1.%s.bias", biases[i]);
    at = place_of(&file, name) + 4 * 7;
    memcpy(file.data + at, one, 4);
    CHECK_INT(read_bytes(&back, &file, &none), IGPT_MISMATCH);
    CHECK(strstr(last, name) != NULL);
    memcpy(file.data + at, nan_bits, 4);
    CHECK_INT(read_bytes(&back, &file, &none), IGPT_MISMATCH);
    memcpy(file.data + at, minus_zero, 4);
    CHECK_INT(read_bytes(&back, &file, &none), IGPT_OK);
    igpt_model_destroy(back);
    memset(file.data + at, 0, 4);
  }
  at = place_of(&file, "transformer.h.0.mlp.c_proj.weight") + 4 * 255;
  memcpy(old, file.data + at, 4);
  memcpy(file.data + at, nan_bits, 4);
  CHECK_INT(read_bytes(&back, &file, &none), IGPT_NOT_FINITE);
  CHECK(strstr(last, "transformer.h.0.mlp.c_proj.weight: number 255") != NULL);
  memcpy(file.data + at, inf_bits, 4);
  CHECK_INT(read_bytes(&back, &file, &none), IGPT_NOT_FINITE);
  memcpy(file.data + at, old, 4);
  CHECK_INT(read_bytes(&back, &file, &none), IGPT_OK);
  igpt_model_destroy(back);
  igpt_model_destroy(model);
  clear(&file);
}

/* A file as others write it: no igpt keys, no biases, any of three types, tensors backwards. */
static void write_foreign(bytes *out, const igpt_model *model, const char *dtype, const char *skip)
{
  char text[256];
  size_t i, length, at = 0;
  const size_t size = strcmp(dtype, "F32") == 0 ? 4 : 2, n = igpt_model_tensors(model);
  int j;
  igpt_tensor tensor;
  clear(out);
  append(out, "12345678{", 9);
  for (i = n; i-- > 0;) {
    igpt_model_tensor_at(model, &tensor, i);
    if (skip && strcmp(tensor.name, skip) == 0) continue;
    sprintf(text, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%lu", at ? "," : "", tensor.name, dtype,
            (unsigned long)tensor.shape[0]);
    append(out, text, strlen(text));
    sprintf(text, ",%lu", (unsigned long)tensor.shape[1]);
    if (tensor.rank == 2) append(out, text, strlen(text));
    sprintf(text, "],\"data_offsets\":[%lu,%lu]}", (unsigned long)at,
            (unsigned long)(at + tensor.count * size));
    append(out, text, strlen(text));
    at += tensor.count * size;
  }
  append(out, "}", 1);
  length = out->size - 8;
  for (j = 0; j < 8; j++) out->data[j] = (char)(length >> 8 * j & 255);
  for (i = n; i-- > 0;) {
    size_t k;
    igpt_model_tensor_at(model, &tensor, i);
    if (skip && strcmp(tensor.name, skip) == 0) continue;
    for (k = 0; k < tensor.count; k++) {
      uint32_t bits;
      unsigned char four[4];
      memcpy(&bits, &tensor.data[k], 4);
      if (strcmp(dtype, "BF16") == 0) bits >>= 16;
      if (strcmp(dtype, "F16") == 0)                        /* normal halves, by construction */
        bits = (bits >> 16 & 0x8000u) | ((bits >> 23 & 255u) - 112) << 10 | (bits >> 13 & 0x3ffu);
      for (j = 0; j < 4; j++) four[j] = (unsigned char)(bits >> 8 * j & 255);
      append(out, four, size);
    }
  }
}

TEST(files_of_others)
{
  static const char *const dtypes[] = { "F32", "F16", "BF16" };
  igpt_model_desc desc = small_desc(), ask = quiet();
  igpt_model *model, *back;
  bytes file = { 0 };
  size_t i;
  desc.config.classes = 3;
  model = make(&desc);
  for (i = 0; i < 3; i++) {
    write_foreign(&file, model, dtypes[i], NULL);
    ask.config = desc.config;
    CHECK_INT(read_bytes(&back, &file, &ask), IGPT_OK);
    if (back) CHECK(same_weights(model, back));
    igpt_model_destroy(back);
  }
  memset(&ask.config, 0, sizeof ask.config);
  CHECK_INT(read_bytes(&back, &file, &ask), IGPT_MISMATCH);
  CHECK(strstr(last, "config.heads") != NULL);
  ask.config.heads = 2;                         /* 6 positions are no square */
  CHECK_INT(read_bytes(&back, &file, &ask), IGPT_MISMATCH);
  CHECK(strstr(last, "6 positions") != NULL);
  ask.config.columns = 3;                       /* one side is enough */
  CHECK_INT(read_bytes(&back, &file, &ask), IGPT_OK);
  if (back) {
    CHECK_INT(back->config.rows, 2);
    CHECK_INT(back->config.layers, 2);
    CHECK_INT(back->config.vocabulary, 4);
    CHECK_INT(back->config.classes, 3);
    CHECK_INT(back->config.objective, IGPT_AR);
    CHECK_NEAR(back->config.norm_epsilon, 1e-5, 1e-12);
    CHECK(igpt_model_palette(back) == NULL);
  }
  igpt_model_destroy(back);
  ask.config.rows = ask.config.columns = -1;
  CHECK(read_bytes(&back, &file, &ask) != IGPT_OK);
  ask.config.rows = ask.config.columns = 0;
  ask.config.heads = -2;
  CHECK(read_bytes(&back, &file, &ask) != IGPT_OK);
  igpt_model_destroy(model);

  /* square pictures need no sides; a classifier without lm_head gets the initial one, zero */
  desc.config.columns = 2;
  model = make(&desc);
  write_foreign(&file, model, "F32", "lm_head.weight");
  ask = quiet();
  ask.config.heads = 2;
  CHECK_INT(read_bytes(&back, &file, &ask), IGPT_OK);
  if (back) {
    CHECK_INT(back->config.rows, 2);
    CHECK_INT(back->config.columns, 2);
    CHECK_INT(back->config.vocabulary, 4);
    CHECK(back->weights.lm_head[0] == 0 && back->weights.lm_head[31] == 0);
    CHECK(memcmp(back->weights.score, model->weights.score, 24 * sizeof(float)) == 0);
  }
  igpt_model_destroy(back);
  igpt_model_destroy(model);

  desc.config.objective = IGPT_BERT;
  model = make(&desc);
  write_foreign(&file, model, "F32", NULL);
  CHECK_INT(read_bytes(&back, &file, &ask), IGPT_OK);
  if (back) {
    CHECK_INT(back->config.objective, IGPT_BERT);
    CHECK(same_weights(model, back));
  }
  igpt_model_destroy(back);
  igpt_model_destroy(model);
  clear(&file);
}

TEST(halves)
{
  static const struct { uint16_t half; float value; } known[] = {
    { 0x0000, 0 }, { 0x3c00, 1 }, { 0xc000, -2 }, { 0x7bff, 65504 }, { 0x0400, 6.103515625e-5f },
    { 0x0001, 5.9604644775390625e-8f }, { 0x83ff, -6.097555160522461e-5f },
    { 0x3555, 0.333251953125f }
  };
  size_t i;
  float value;
  for (i = 0; i < COUNT(known); i++) CHECK(igpt__half_to_float(known[i].half) == known[i].value);
  value = igpt__half_to_float(0x7c00);
  CHECK(value > 3.4e38f);
  value = igpt__half_to_float(0x7e00);
  CHECK(value != value);
}

TEST(what_is_asked_must_agree)
{
  static const char *const names[] = { "layers", "heads", "width", "rows", "columns", "vocabulary",
                                       "classes" };
  igpt_model_desc desc = small_desc(), ask;
  igpt_model *model, *back;
  bytes file = { 0 };
  int i;
  desc.config.classes = 3;
  model = make(&desc);
  write_bytes(&file, model);
  for (i = 0; i < 9; i++) {
    int *field[7];
    ask = desc;
    field[0] = &ask.config.layers;
    field[1] = &ask.config.heads;
    field[2] = &ask.config.width;
    field[3] = &ask.config.rows;
    field[4] = &ask.config.columns;
    field[5] = &ask.config.vocabulary;
    field[6] = &ask.config.classes;
    if (i < 7) *field[i] += 1;
    if (i == 7) ask.config.objective = IGPT_BERT;
    if (i == 8) ask.config.norm_epsilon = 1e-6f;
    CHECK_INT(read_bytes(&back, &file, &ask), IGPT_MISMATCH);
    CHECK(strstr(last, i < 7 ? names[i] : i == 7 ? "objective" : "norm_epsilon") != NULL);
  }
  CHECK_INT(read_bytes(&back, &file, &desc), IGPT_OK);      /* all of it asked, and right */
  igpt_model_destroy(back);
  CHECK_INT(read_bytes(&back, &file, NULL), IGPT_OK);
  if (back) CHECK_INT(back->config.classes, 3);
  igpt_model_destroy(back);
  igpt_model_destroy(model);

  desc.config.classes = 0;                      /* a new class head */
  model = make(&desc);
  file.size = 0;
  write_bytes(&file, model);
  ask = quiet();
  ask.config.classes = 4;
  CHECK_INT(read_bytes(&back, &file, &ask), IGPT_OK);
  if (back) {
    CHECK_INT(back->config.classes, 4);
    for (i = 0; i < 32; i++) CHECK(back->weights.score[i] == 0);
    CHECK(memcmp(back->weights.block[1].m_proj, model->weights.block[1].m_proj,
                 256 * sizeof(float)) == 0);
  }
  igpt_model_destroy(back);
  igpt_model_destroy(model);
  clear(&file);
}

/* A palette name that was cut inside a character must not spoil the file. */
TEST(palette_names)
{
  igpt_model_desc desc = small_desc(), none = quiet();
  igpt_model *model = make(&desc), *back;
  bytes file = { 0 }, again = { 0 };
  int i;
  set_palette(model);
  for (i = 0; i < 58; i++) model->palette.name[i] = (char)(i + 1);
  model->palette.name[58] = (char)0xc3;
  model->palette.name[59] = 'x';                /* no end either */
  write_bytes(&file, model);
  CHECK_INT(read_bytes(&back, &file, &none), IGPT_OK);
  if (back) {
    CHECK(memcmp(back->palette.name, model->palette.name, 58) == 0);
    CHECK(back->palette.name[58] == '?' && back->palette.name[59] == 0);
    model->palette = back->palette;
    file.size = 0;
    write_bytes(&file, model);
    write_bytes(&again, back);
    CHECK(same_bytes(&file, &again));
  }
  igpt_model_destroy(back);
  model->palette.centre[2][1] = (float)HUGE_VAL;
  {
    igpt_sink sink = sink_of(&file);
    CHECK_INT(igpt_model_write(model, &sink), IGPT_NOT_FINITE);
  }
  igpt_model_destroy(model);
  clear(&file);
  clear(&again);
}

/* ---- when the host fails ------------------------------------------------------------------- */

TEST(every_allocation_fails_once)
{
  igpt_model_desc desc = small_desc(), ask = quiet();
  igpt_model *model = make(&desc), *back;
  bytes file = { 0 };
  meter m;
  int n, needed = 0;
  write_bytes(&file, model);
  for (n = 0; n < 10; n++) {
    igpt_result result;
    memset(&m, 0, sizeof m);
    m.fail_at = n;
    ask.allocator = metered(&m);
    result = read_bytes(&back, &file, &ask);
    if (n == 0) needed = m.calls;
    CHECK_INT(result, n >= 1 && n <= needed ? IGPT_OUT_OF_MEMORY : IGPT_OK);
    igpt_model_destroy(back);
    CHECK_INT(m.live, 0);
  }
  CHECK_INT(needed, 2);                         /* the header's block and the model */

  /* the caller's memory: enough, and one byte too little */
  {
    size_t size = 0;
    char *memory;
    CHECK_INT(igpt_model_bytes(&size, &desc), IGPT_OK);
    memory = (char *)no_null(malloc(size));
    ask.memory = memory;
    ask.memory_bytes = size;
    memset(&m, 0, sizeof m);
    CHECK_INT(read_bytes(&back, &file, &ask), IGPT_OK);
    if (back) CHECK(same_weights(model, back));
    igpt_model_destroy(back);
    CHECK_INT(m.live, 0);
    CHECK_INT(m.calls, 1);
    ask.memory_bytes = size - 1;
    CHECK_INT(read_bytes(&back, &file, &ask), IGPT_OUT_OF_MEMORY);
    CHECK_INT(m.live, 0);
    free(memory);
  }
  igpt_model_destroy(model);
  clear(&file);
}

TEST(every_read_and_write_fails_once)
{
  igpt_model_desc desc = small_desc(), ask = quiet();
  igpt_model *model = make(&desc), *back;
  bytes file = { 0 }, whole = { 0 };
  igpt_source source;
  igpt_sink sink = sink_of(&file);
  meter m;
  int n, needed;
  set_palette(model);
  CHECK_INT(igpt_model_write(model, &sink), IGPT_OK);
  needed = file.calls;
  CHECK(needed > 10);
  append(&whole, file.data, file.size);
  for (n = 1; n <= needed; n++) {
    file.size = 0;
    file.calls = 0;
    file.fail_at = n;
    CHECK_INT(igpt_model_write(model, &sink), IGPT_WRITE_ERROR);
    CHECK_INT(file.calls, n);                   /* none after the failure */
    CHECK(strstr(last, "writing failed") != NULL);
  }
  memset(&m, 0, sizeof m);
  ask.allocator = metered(&m);
  whole.calls = whole.fail_at = 0;
  source = source_of(&whole);
  CHECK_INT(igpt_model_read(&back, &source, &ask), IGPT_OK);
  igpt_model_destroy(back);
  needed = whole.calls;
  for (n = 1; n <= needed; n++) {
    whole.calls = 0;
    whole.fail_at = n;
    back = model;
    CHECK_INT(igpt_model_read(&back, &source, &ask), IGPT_READ_ERROR);
    CHECK(back == NULL);
    CHECK_INT(whole.calls, n);
    CHECK_INT(m.live, 0);
  }
  memset(&source, 0, sizeof source);
  CHECK_INT(igpt_model_read(&back, &source, &ask), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_read(&back, NULL, &ask), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_read(NULL, &source, &ask), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_write(model, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_write(NULL, &sink), IGPT_BAD_ARGUMENT);
  igpt_model_destroy(model);
  clear(&file);
  clear(&whole);
}

/* ---- checkpoints --------------------------------------------------------------------------- */
#ifndef IGPT_NO_TRAIN

typedef struct run {
  igpt_model *model;
  igpt_session *session;
} run;

static run run_open(const igpt_model_desc *desc)
{
  igpt_session_desc session;
  run r;
  memset(&r, 0, sizeof r);
  memset(&session, 0, sizeof session);
  session.train = 1;
  session.batch = 2;
  session.log = test_log();
  CHECK_INT(igpt_model_create(&r.model, desc), IGPT_OK);
  CHECK_INT(igpt_session_create(&r.session, r.model, &session), IGPT_OK);
  if (!r.session) exit(1);
  return r;
}

static void run_close(run *r)
{
  igpt_session_destroy(r->session);
  igpt_model_destroy(r->model);
}

static void run_steps(run *r, int first, int steps)
{
  const size_t T = r->session->T, V = r->session->V;
  uint16_t tokens[64];
  uint8_t mask[64];
  int32_t labels[3];
  igpt_adam_desc adam;
  igpt_batch batch;
  size_t i;
  int n;
  memset(&adam, 0, sizeof adam);
  memset(&batch, 0, sizeof batch);
  adam.rate = 0.01f;
  batch.tokens = tokens;
  batch.mask = mask;
  batch.labels = r->session->K ? labels : NULL;
  batch.count = 3;
  for (n = first; n < first + steps; n++) {
    for (i = 0; i < 3 * T; i++) {
      tokens[i] = (uint16_t)((i * 7 + (size_t)n * 3) % V);
      mask[i] = (uint8_t)((i + (size_t)n) % 3 == 0);
    }
    for (i = 0; i < 3; i++) labels[i] = (int32_t)((i + (size_t)n) % 2);
    CHECK_INT(igpt_backward(r->session, NULL, &batch, NULL), IGPT_OK);
    CHECK_INT(igpt_step(r->session, r->model, NULL, &adam), IGPT_OK);
  }
}

static igpt_progress odd_progress(void)
{
  igpt_progress p;
  uint64_t bits[5] = { 0x3fb999999999999aU, 0x8000000000000000U, 1, 0x7ff8000000001234U,
                       0xffefffffffffffffU };
  memset(&p, 0, sizeof p);
  p.step = UINT64_MAX;
  p.picture = (uint64_t)1 << 63;
  p.rng.seed = 12345678901234567890U;
  p.rng.stream = 3;
  p.rng.index = UINT64_MAX - 1;
  memcpy(&p.seconds, &bits[0], 8);
  memcpy(p.user, bits + 1, 32);
  return p;
}

static int same_run(const run *a, const run *b)
{
  const size_t P = igpt_model_parameters(a->model) * sizeof(float);
  return same_weights(a->model, b->model) && a->session->steps == b->session->steps &&
         a->model->step == b->model->step &&
         memcmp(a->session->moment1, b->session->moment1, P) == 0 &&
         memcmp(a->session->moment2, b->session->moment2, P) == 0;
}

static igpt_result write_checkpoint(bytes *file, const run *r, const igpt_progress *progress)
{
  igpt_sink sink = sink_of(file);
  file->size = 0;
  file->calls = 0;
  return igpt_checkpoint_write(r->session, r->model, progress, &sink);
}

TEST(a_resumed_run_goes_on_with_the_same_bits)
{
  int objective, classes;
  for (objective = 0; objective < 2; objective++)
    for (classes = 0; classes < 3; classes += 2) {
      igpt_model_desc desc = small_desc(), none = quiet();
      igpt_progress progress = odd_progress(), back;
      bytes file = { 0 }, again = { 0 }, plain = { 0 }, from_checkpoint = { 0 };
      igpt_source source;
      igpt_model *model;
      run a, b;
      size_t i, P;
      desc.config.objective = (igpt_objective)objective;
      desc.config.classes = classes;
      a = run_open(&desc);
      P = igpt_model_parameters(a.model);
      set_palette(a.model);
      run_steps(&a, 0, 3);
      CHECK_INT(write_checkpoint(&file, &a, &progress), IGPT_OK);
      desc.seed = 99;
      b = run_open(&desc);
      run_steps(&b, 5, 1);
      b.session->gradient[1] = 3;               /* left behind by a call that was cancelled */
      memset(&back, 0x55, sizeof back);
      source = source_of(&file);
      CHECK_INT(igpt_checkpoint_read(b.session, b.model, &back, &source), IGPT_OK);
      CHECK(same_run(&a, &b));
      CHECK(memcmp(&progress, &back, sizeof back) == 0);
      CHECK(memcmp(&a.model->palette, &b.model->palette, sizeof a.model->palette) == 0);
      for (i = 0; i < P; i++)
        if (b.session->gradient[i] != 0) break;
      CHECK(i == P);
      CHECK_INT(write_checkpoint(&again, &b, &back), IGPT_OK);
      CHECK(same_bytes(&file, &again));
      run_steps(&a, 3, 3);
      run_steps(&b, 3, 3);
      CHECK(same_run(&a, &b));

      /* a checkpoint is a model too, and the same one */
      CHECK_INT(igpt_checkpoint_read(a.session, a.model, NULL, &source), IGPT_OK);
      write_bytes(&plain, a.model);
      CHECK_INT(read_bytes(&model, &file, &none), IGPT_OK);
      if (model) write_bytes(&from_checkpoint, model);
      CHECK(same_bytes(&plain, &from_checkpoint));
      igpt_model_destroy(model);

      /* but a model is no checkpoint */
      source = source_of(&plain);
      CHECK_INT(igpt_checkpoint_read(a.session, a.model, NULL, &source), IGPT_BAD_FILE);
      run_close(&a);
      run_close(&b);
      clear(&file);
      clear(&again);
      clear(&plain);
      clear(&from_checkpoint);
    }
}

/* Whatever is wrong with a checkpoint, it is found before anything has been changed. */
TEST(a_bad_checkpoint_changes_nothing)
{
  static const struct { const char *tensor; unsigned char bits[4]; } wrong[] = {
    { "adam.v.transformer.h.1.mlp.c_proj.weight", { 0, 0, 0x80, 0xbf } },     /* -1 */
    { "adam.v.lm_head.weight", { 0, 0, 0xc0, 0x7f } },
    { "adam.m.transformer.wte.weight", { 0, 0, 0x80, 0x7f } },
    { "transformer.h.1.mlp.c_proj.weight", { 0, 0, 0xc0, 0xff } }
  };
  static const damage edits[] = {
    { "adam.m.lm_head.weight", "adam.m.lm_tail.weight", 0, IGPT_MISMATCH, "adam.m.lm_head.weight" },
    { "adam.v.lm_head.weight", "adam.m.lm_head.weight", 0, IGPT_BAD_FILE, "two tensors" },
    { "\"progress\"", "\"progres\"", 0, IGPT_MISMATCH, "progres" },
    { "igpt.adam_step", "igpt.adam_stop", 0, IGPT_BAD_FILE, "igpt.adam_step" },
    { "\"igpt.progress\":\"", "\"igpt.progress\":\"1 ", 0, IGPT_BAD_FILE, "igpt.progress" },
    { "\"igpt.version\":\"1\",", "", 0, IGPT_MISMATCH, "igpt.version" },
    { "F64", "I64", 0, IGPT_MISMATCH, "progress" }
  };
  igpt_model_desc desc = small_desc();
  igpt_progress progress = odd_progress(), untouched;
  bytes file = { 0 }, before = { 0 }, after = { 0 }, broken = { 0 };
  igpt_source source;
  size_t i;
  run a = run_open(&desc), b;
  run_steps(&a, 0, 2);
  CHECK_INT(write_checkpoint(&file, &a, &progress), IGPT_OK);
  desc.seed = 1;
  b = run_open(&desc);
  run_steps(&b, 0, 1);
  CHECK_INT(write_checkpoint(&before, &b, NULL), IGPT_OK);
  memset(&untouched, 0x77, sizeof untouched);
  progress = untouched;
  for (i = 0; i < COUNT(wrong); i++) {
    const size_t at = place_of(&file, wrong[i].tensor) + 4;
    char old[4];
    memcpy(old, file.data + at, 4);
    memcpy(file.data + at, wrong[i].bits, 4);
    source = source_of(&file);
    CHECK_INT(igpt_checkpoint_read(b.session, b.model, &progress, &source), IGPT_NOT_FINITE);
    CHECK(strstr(last, wrong[i].tensor) != NULL);
    memcpy(file.data + at, old, 4);
    CHECK_INT(write_checkpoint(&after, &b, NULL), IGPT_OK);
    CHECK(same_bytes(&before, &after));
  }
  for (i = 0; i < COUNT(edits); i++) {
    igpt_result result;
    CHECK(edit(&broken, &file, edits[i].find, edits[i].replace, 0));
    source = source_of(&broken);
    last[0] = 0;
    result = igpt_checkpoint_read(b.session, b.model, &progress, &source);
    if (result != edits[i].expected) printf("%s: %d, \"%s\"\n", edits[i].find, (int)result, last);
    CHECK_INT(result, edits[i].expected);
    CHECK(strstr(last, edits[i].sentence) != NULL);
    CHECK_INT(write_checkpoint(&after, &b, NULL), IGPT_OK);
    CHECK(same_bytes(&before, &after));
  }
  CHECK(memcmp(&progress, &untouched, sizeof progress) == 0);

  /* other shapes, other objective, other classes, other pairs */
  for (i = 0; i < 5; i++) {
    igpt_model_desc other = small_desc();
    run c;
    if (i == 0) other.config.layers = 1;
    if (i == 1) other.config.objective = IGPT_BERT;
    if (i == 2) other.config.classes = 2;
    if (i == 3) other.config.rows = 3, other.config.columns = 2;
    if (i == 4) other.config.heads = 4;
    c = run_open(&other);
    source = source_of(&file);
    last[0] = 0;
    CHECK_INT(igpt_checkpoint_read(c.session, c.model, &progress, &source), IGPT_MISMATCH);
    CHECK(last[0] != 0);
    CHECK_INT(igpt_checkpoint_read(c.session, b.model, &progress, &source), IGPT_BAD_ARGUMENT);
    run_close(&c);
  }
  {
    igpt_session *session = NULL;               /* no room for moments */
    CHECK_INT(igpt_session_create(&session, a.model, NULL), IGPT_OK);
    CHECK_INT(igpt_checkpoint_read(session, a.model, &progress, &source), IGPT_BAD_ARGUMENT);
    igpt_session_destroy(session);
  }
  CHECK_INT(igpt_checkpoint_read(NULL, a.model, &progress, &source), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_checkpoint_read(a.session, a.model, &progress, NULL), IGPT_BAD_ARGUMENT);
  run_close(&a);
  run_close(&b);
  clear(&file);
  clear(&before);
  clear(&after);
  clear(&broken);
}

TEST(checkpoints_when_the_host_fails)
{
  igpt_model_desc desc = small_desc();
  igpt_session_desc session;
  bytes file = { 0 }, whole = { 0 };
  igpt_source source;
  meter m;
  run a = run_open(&desc), b;
  int n, needed;
  run_steps(&a, 0, 2);
  CHECK_INT(write_checkpoint(&file, &a, NULL), IGPT_OK);
  append(&whole, file.data, file.size);
  needed = file.calls;
  for (n = 1; n <= needed; n++) {
    file.fail_at = n;
    CHECK_INT(write_checkpoint(&file, &a, NULL), IGPT_WRITE_ERROR);
  }
  whole.calls = whole.fail_at = 0;
  source = source_of(&whole);
  b = run_open(&desc);
  igpt_session_destroy(b.session);
  memset(&m, 0, sizeof m);
  memset(&session, 0, sizeof session);
  session.train = 1;
  session.batch = 2;
  session.log = test_log();
  session.allocator = metered(&m);
  CHECK_INT(igpt_session_create(&b.session, b.model, &session), IGPT_OK);
  CHECK_INT(igpt_checkpoint_read(b.session, b.model, NULL, &source), IGPT_OK);
  needed = whole.calls;
  for (n = 1; n <= needed; n++) {
    whole.calls = 0;
    whole.fail_at = n;
    CHECK_INT(igpt_checkpoint_read(b.session, b.model, NULL, &source), IGPT_READ_ERROR);
    CHECK_INT(m.live, 1);                       /* the session itself */
  }
  m.calls = 0;
  m.fail_at = 1;
  whole.fail_at = 0;
  CHECK_INT(igpt_checkpoint_read(b.session, b.model, NULL, &source), IGPT_OUT_OF_MEMORY);
  CHECK_INT(igpt_checkpoint_read(b.session, b.model, NULL, &source), IGPT_OK);    /* still usable */
  run_steps(&a, 2, 1);
  run_steps(&b, 2, 1);
  CHECK(same_run(&a, &b));
  run_close(&a);
  run_close(&b);
  CHECK_INT(m.live, 0);
  clear(&file);
  clear(&whole);
}
#endif /* IGPT_NO_TRAIN */

/* ---- paths --------------------------------------------------------------------------------- */
#ifndef IGPT_NO_STDIO

#define PATH "build/tests/files_test.safetensors"

static int on_disk(const char *path, bytes *out)
{
  char buffer[4096];
  size_t n;
  FILE *file = fopen(path, "rb");
  clear(out);
  if (!file) return 0;
  while ((n = fread(buffer, 1, sizeof buffer, file)) > 0) append(out, buffer, n);
  fclose(file);
  return 1;
}

static igpt_result half_a_file(void *user, const igpt_sink *sink)
{
  CHECK_INT(sink->write(sink->user, "half", 4), 0);
  return *(igpt_result *)user;
}

TEST(a_failed_save_leaves_the_old_file)
{
  igpt_model_desc desc = small_desc();
  igpt_model *model = make(&desc), *back = NULL;
  igpt_log log = test_log();
  bytes file = { 0 }, disk = { 0 };
  igpt_result results[] = { IGPT_WRITE_ERROR, IGPT_CANCELLED, IGPT_BAD_ARGUMENT }, fine = IGPT_OK;
  igpt_source source;
  size_t i;
  FILE *probe = fopen(PATH, "wb");
  char *path;
  if (!probe) {
    igpt_model_destroy(model);
    SKIP("cannot write to build/tests: run from the root of the repository");
  }
  fclose(probe);

  write_bytes(&file, model);
  CHECK_INT(igpt_model_save(model, PATH), IGPT_OK);
  CHECK(on_disk(PATH, &disk) && same_bytes(&file, &disk));
  CHECK(!on_disk(PATH ".tmp", &disk));
  CHECK_INT(igpt_model_load(&back, PATH, NULL), IGPT_OK);
  if (back) CHECK(same_weights(model, back) && back->log.line == NULL);
  igpt_model_destroy(back);
  CHECK_INT(igpt_model_load(&back, PATH, &desc), IGPT_OK);
  if (back) CHECK(back->log.line == log_line);
  igpt_model_destroy(back);

  for (i = 0; i < COUNT(results); i++) {
    CHECK_INT(igpt_file_replace(PATH, &log, half_a_file, &results[i]), results[i]);
    CHECK(on_disk(PATH, &disk) && same_bytes(&file, &disk));
    CHECK(!on_disk(PATH ".tmp", &disk));
  }
  set_palette(model);                           /* refused after the temporary file was opened */
  model->palette.centre[0][0] = (float)HUGE_VAL;
  CHECK_INT(igpt_model_save(model, PATH), IGPT_NOT_FINITE);
  CHECK(strstr(last, PATH) != NULL);
  CHECK(on_disk(PATH, &disk) && same_bytes(&file, &disk));
  CHECK(!on_disk(PATH ".tmp", &disk));
  CHECK_INT(igpt_file_replace(PATH, &log, half_a_file, &fine), IGPT_OK);
  CHECK(on_disk(PATH, &disk) && disk.size == 4);

  last[0] = 0;
  CHECK_INT(igpt_model_load(&back, PATH, &desc), IGPT_BAD_FILE);
  CHECK(back == NULL && strstr(last, PATH ": ") != NULL);
  CHECK_INT(igpt_model_save(model, "build/tests/nowhere/x"), IGPT_WRITE_ERROR);
  CHECK(strstr(last, "build/tests/nowhere/x") != NULL);
  CHECK_INT(igpt_model_save(model, "build/tests"), IGPT_NOT_FINITE);
  model->palette.colours = 0;
  CHECK_INT(igpt_model_save(model, "build/tests"), IGPT_WRITE_ERROR);     /* a directory */
  CHECK(!on_disk("build/tests.tmp", &disk));
  CHECK_INT(igpt_model_load(&back, "build/tests/nowhere", &desc), IGPT_READ_ERROR);
  CHECK(strstr(last, "build/tests/nowhere") != NULL);
  CHECK(igpt_model_load(&back, "build/tests", &desc) != IGPT_OK);
  CHECK(back == NULL);
  CHECK_INT(igpt_model_load(&back, NULL, &desc), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_save(model, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_file_replace(PATH, &log, NULL, NULL), IGPT_BAD_ARGUMENT);
  path = (char *)no_null(malloc(10001));
  memset(path, 'x', 10000);
  path[10000] = 0;
  CHECK_INT(igpt_model_save(model, path), IGPT_BAD_ARGUMENT);
  free(path);

  CHECK_INT(igpt_file_open(&source, "build/tests/nowhere", &log), IGPT_READ_ERROR);
  CHECK(source.user == NULL);
  igpt_file_close(&source);                     /* harmless */
  CHECK_INT(igpt_file_open(&source, PATH, &log), IGPT_OK);
  if (source.user) {
    char four[5] = { 0 };
    CHECK_INT(source.size, 4);
    CHECK_INT(source.read(source.user, 1, four, 3), 0);
    CHECK(strcmp(four, "alf") == 0);
    CHECK(source.read(source.user, 1, four, 4) != 0);
    CHECK_INT(source.read(source.user, 0, four, 2), 0);
    CHECK(memcmp(four, "ha", 2) == 0);
    CHECK(source.read(source.user, UINT64_MAX, four, 1) != 0);
  }
  igpt_file_close(&source);
  igpt_file_close(&source);
#ifndef IGPT_NO_TRAIN
  {
    igpt_progress progress = odd_progress(), again;
    run a = run_open(&desc), b = run_open(&desc);
    run_steps(&a, 0, 2);
    CHECK_INT(igpt_checkpoint_save(a.session, a.model, &progress, PATH), IGPT_OK);
    CHECK_INT(igpt_checkpoint_load(b.session, b.model, &again, PATH), IGPT_OK);
    CHECK(same_run(&a, &b) && memcmp(&progress, &again, sizeof again) == 0);
    CHECK_INT(igpt_model_save(model, PATH), IGPT_OK);
    CHECK_INT(igpt_checkpoint_load(b.session, b.model, &again, PATH), IGPT_BAD_FILE);
    CHECK(strstr(last, PATH ": ") != NULL && same_run(&a, &b));
    run_close(&a);
    run_close(&b);
  }
#endif
  remove(PATH);
  igpt_model_destroy(model);
  clear(&file);
  clear(&disk);
}
#endif

/* ---- .npy ---------------------------------------------------------------------------------- */

/* A file of the given version, header text and data. */
static void npy_file(bytes *out, int version, const char *header, const void *data, size_t size)
{
  char start[] = { (char)0x93, 'N', 'U', 'M', 'P', 'Y', 0, 0, 0, 0, 0, 0 };
  start[6] = (char)version;
  start[8] = (char)(strlen(header) & 255);
  start[9] = (char)(strlen(header) >> 8);
  clear(out);
  append(out, start, version == 1 ? 10 : 12);
  append(out, header, strlen(header));
  append(out, data, size);
}

static igpt_result npy_open(igpt_npy *npy, const bytes *file)
{
  igpt_log log = test_log();
  igpt_source source;
  igpt_result result;
  char *exact = (char *)no_null(malloc(file->size ? file->size : 1));
  if (file->size) memcpy(exact, file->data, file->size);
  memset(&source, 0, sizeof source);
  source.memory = exact;
  source.size = file->size;
  result = igpt_npy_open(npy, &source, &log);
  free(exact);
  return result;
}

TEST(npy_types)
{
  static const unsigned char data[] = { 0x3f, 0x80, 0, 0, 0xc0, 0x20, 0, 0 };   /* >f4 1, -2.5 */
  static const unsigned char i8[] = { 254, 255, 255, 255, 255, 255, 255, 255,
                                      0, 0, 0, 0, 0, 0, 0, 128 };
  static const unsigned char small[] = { 0, 1, 127, 128, 255, 2 };
  static const struct { const char *descr; int size; int64_t first, fourth; } kinds[] = {
    { "|u1", 1, 0, 128 }, { "<u1", 1, 0, 128 }, { "|i1", 1, 0, -128 }, { "|b1", 1, 0, 1 },
    { "<u2", 2, 0x100, 0 }, { "<i2", 2, 0x100, 0 }, { ">u2", 2, 1, 0 }, { ">i2", 2, 1, 0 }
  };
  bytes file = { 0 };
  igpt_source source;
  igpt_npy npy;
  float f[4];
  int64_t n[4];
  uint64_t shape[3] = { 2, 3, 4 };
  char header[200];
  size_t i;
  int version;

  for (version = 1; version <= 3; version++) {
    npy_file(&file, version, "{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }\n", data,
             8);
    CHECK_INT(npy_open(&npy, &file), IGPT_OK);
    CHECK(npy.type == IGPT_NPY_F32 && npy.big_endian == 1 && npy.rank == 1 && npy.shape[0] == 2);
    CHECK(npy.count == 2 && npy.bytes == 8);
    source = source_of(&file);
    CHECK_INT(igpt_npy_read_f32(&npy, f, 0, 2, &source), IGPT_OK);
    CHECK(f[0] == 1 && f[1] == -2.5f);
    CHECK_INT(igpt_npy_read_f32(&npy, f, 1, 1, &source), IGPT_OK);
    CHECK(f[0] == -2.5f);
    CHECK_INT(igpt_npy_read_f32(&npy, f, 1, 2, &source), IGPT_BAD_ARGUMENT);
    CHECK_INT(igpt_npy_read_f32(&npy, f, 3, 0, &source), IGPT_BAD_ARGUMENT);
    CHECK_INT(igpt_npy_read_f32(&npy, f, 2, 0, &source), IGPT_OK);
    CHECK_INT(igpt_npy_read_i64(&npy, n, 0, 2, &source), IGPT_MISMATCH);
    file.calls = 0;
    file.fail_at = 1;
    CHECK_INT(igpt_npy_read_f32(&npy, f, 0, 2, &source), IGPT_READ_ERROR);
  }
  npy_file(&file, 1, "{\"shape\": (2, 1), \"fortran_order\": False, \"descr\": \"<i8\"}", i8, 16);
  CHECK_INT(npy_open(&npy, &file), IGPT_OK);
  source = source_of(&file);
  CHECK_INT(igpt_npy_read_i64(&npy, n, 0, 2, &source), IGPT_OK);
  CHECK(n[0] == -2 && n[1] == INT64_MIN);
  npy_file(&file, 1, "{'descr': '<u8', 'fortran_order': False, 'shape': (2,)}", i8, 16);
  CHECK_INT(npy_open(&npy, &file), IGPT_OK);
  source = source_of(&file);
  CHECK_INT(igpt_npy_read_i64(&npy, n, 1, 1, &source), IGPT_MISMATCH);    /* 2^63 is too much */
  CHECK_INT(igpt_npy_read_f32(&npy, f, 1, 1, &source), IGPT_OK);
  CHECK(f[0] == 9223372036854775808.0f);

  for (i = 0; i < COUNT(kinds); i++) {
    const int count = 6 / kinds[i].size;
    sprintf(header, "{'descr': '%s', 'fortran_order': False, 'shape': (%d,), }", kinds[i].descr,
            count);
    npy_file(&file, 1, header, small, 6);
    CHECK_INT(npy_open(&npy, &file), IGPT_OK);
    source = source_of(&file);
    CHECK_INT(igpt_npy_read_i64(&npy, n, 0, 1, &source), IGPT_OK);
    CHECK_INT(n[0], kinds[i].first);
    if (count == 6) {
      CHECK_INT(igpt_npy_read_i64(&npy, n, 3, 1, &source), IGPT_OK);
      CHECK_INT(n[0], kinds[i].fourth);
    }
  }
  npy_file(&file, 1, "{'descr': '|u1', 'fortran_order': False, 'shape': ()}", small, 1);
  CHECK_INT(npy_open(&npy, &file), IGPT_OK);    /* a scalar */
  CHECK(npy.rank == 0 && npy.count == 1);

  /* writing, as numpy does it */
  {
    uint16_t values[24];
    igpt_sink sink = sink_of(&file);
    const char expected[] = "\x93NUMPY\1\0v\0{'descr': '<u2', 'fortran_order': False, "
                            "'shape': (2, 3, 4), }";
    for (i = 0; i < 24; i++) values[i] = (uint16_t)(i * 2731);
    clear(&file);
    CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_U16, values, 3, shape), IGPT_OK);
    CHECK_INT(file.size, 128 + 48);
    CHECK(memcmp(file.data, expected, sizeof expected - 1) == 0 && file.data[127] == '\n');
    CHECK_INT(npy_open(&npy, &file), IGPT_OK);
    CHECK(npy.rank == 3 && npy.shape[2] == 4 && npy.count == 24);
    source = source_of(&file);
    CHECK_INT(igpt_npy_read_i64(&npy, n, 22, 2, &source), IGPT_OK);
    CHECK(n[0] == values[22] && n[1] == values[23]);
    clear(&file);
    CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, f, 1, shape), IGPT_OK);
    CHECK(strstr(file.data + 10, "'shape': (2,), }") != NULL);
    for (version = 1; version <= 2; version++) {
      file.calls = 0;
      file.fail_at = version;
      CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, f, 1, shape), IGPT_WRITE_ERROR);
    }
    shape[0] = shape[1] = (uint64_t)1 << 33;
    CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, f, 3, shape), IGPT_TOO_LARGE);
    CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, f, 9, shape), IGPT_BAD_ARGUMENT);
    CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, NULL, 1, shape), IGPT_BAD_ARGUMENT);
  }
  clear(&file);
}

TEST(npy_that_are_refused)
{
  static const struct { const char *header; int expected; const char *sentence; } wrong[] = {
    { "{'descr': '<f4', 'fortran_order': True, 'shape': (2,)}", IGPT_MISMATCH, "fortran_order" },
    { "{'descr': '<f2', 'fortran_order': False, 'shape': (4,)}", IGPT_MISMATCH, "<f2" },
    { "{'descr': '|f4', 'fortran_order': False, 'shape': (2,)}", IGPT_MISMATCH, "|f4" },
    { "{'descr': 'f4', 'fortran_order': False, 'shape': (2,)}", IGPT_MISMATCH, "f4" },
    { "{'descr': '', 'fortran_order': False, 'shape': (2,)}", IGPT_MISMATCH, "descr" },
    { "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", IGPT_BAD_FILE, "string" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", IGPT_BAD_FILE, "12 bytes" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", IGPT_BAD_FILE, "4 bytes" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387906,)}", IGPT_BAD_FILE,
      NULL },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", IGPT_BAD_FILE,
      NULL },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", IGPT_BAD_FILE, "whole number" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,2)}", IGPT_BAD_FILE,
      "at most 8" },
    { "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}", IGPT_BAD_FILE, "True or False" },
    { "{'descr': '<f4', 'shape': (2,)}", IGPT_BAD_FILE, "once each" },
    { "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", IGPT_BAD_FILE,
      "once each" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x", IGPT_BAD_FILE, "end" },
    { "{'descr': '<f4", IGPT_BAD_FILE, "end of a string" },
    { "", IGPT_BAD_FILE, NULL }
  };
  const float data[2] = { 1, 2 };
  bytes file = { 0 }, part;
  igpt_npy npy;
  size_t i, accepted = 0;
  int how;
  for (i = 0; i < COUNT(wrong); i++) {
    igpt_result result;
    npy_file(&file, 1, wrong[i].header, data, 8);
    result = npy_open(&npy, &file);
    if (result != wrong[i].expected) printf("%s: %d, \"%s\"\n", wrong[i].header, (int)result, last);
    CHECK_INT(result, wrong[i].expected);
    if (wrong[i].sentence) CHECK(strstr(last, wrong[i].sentence) != NULL);
  }
  npy_file(&file, 4, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", data, 8);
  CHECK_INT(npy_open(&npy, &file), IGPT_BAD_FILE);
  npy_file(&file, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", data, 8);
  CHECK_INT(npy_open(&npy, &file), IGPT_OK);
  for (part = file, part.size = 0; part.size < file.size; part.size++)
    accepted += npy_open(&npy, &part) == IGPT_OK;
  CHECK_INT(accepted, 0);
  for (i = 0; i + 8 < file.size; i++)           /* whatever it makes of them, it must not crash */
    for (how = 0; how < 4; how++) {
      const char old = file.data[i];
      file.data[i] = (char)(how == 0 ? 0 : how == 1 ? 0xff : how == 2 ? old + 1 : old - 1);
      if (npy_open(&npy, &file) == IGPT_OK) CHECK(npy.bytes == 8);
      file.data[i] = old;
    }
  append(&file, "", 1);
  CHECK_INT(npy_open(&npy, &file), IGPT_BAD_FILE);
  clear(&file);
}

int main(void)
{
  RUN(round_trip_is_byte_equal);
  RUN(reals_round_trip);
  RUN(every_prefix_and_one_more_byte);
  RUN(every_header_byte_changed);
  RUN(damages_and_their_sentences);
  RUN(depth_and_length);
  RUN(numbers_that_are_refused);
  RUN(files_of_others);
  RUN(halves);
  RUN(what_is_asked_must_agree);
  RUN(palette_names);
  RUN(every_allocation_fails_once);
  RUN(every_read_and_write_fails_once);
#ifndef IGPT_NO_TRAIN
  RUN(a_resumed_run_goes_on_with_the_same_bits);
  RUN(a_bad_checkpoint_changes_nothing);
  RUN(checkpoints_when_the_host_fails);
#endif
#ifndef IGPT_NO_STDIO
  RUN(a_failed_save_leaves_the_old_file);
#endif
  RUN(npy_types);
  RUN(npy_that_are_refused);
  return test_done();
}
