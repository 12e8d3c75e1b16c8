/* cc -std=c99 -O2 -I. -o build/tests/files tests/files.c -lm -pthread

   Files: what is written reads back to the same bits, and nothing that is read is believed.
   Sources are blocks of exactly the size they claim, so that a sanitizer sees a byte too many.   */

#define _DEFAULT_SOURCE           /* mmap */
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "part.h"
#if (defined(__unix__) && !defined(__wasm__)) || defined(__APPLE__)
#include <sys/mman.h>
#define PAGES 1
#else
#define PAGES 0
#endif

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

static void *no_null(void *block)
{
  if (!block) {
    printf("out of memory\n");
    exit(1);
  }
  return block;
}

/* All that follows the first 8 bytes is header, so far: they become its length. */
static void put_length(paper *file)
{
  const uint64_t length = file->size - 8;
  int i;
  for (i = 0; i < 8; i++) file->data[i] = (char)(length >> 8 * i & 255);
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

static igpt_result read_bytes(igpt_model **out, const paper *file, const igpt_model_desc *desc)
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

static void write_bytes(paper *file, const igpt_model *model)
{
  igpt_sink sink = paper_sink(file);
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
    for (classes = 0; classes < 4; classes += 3)    /* with biases where there are classes */
      for (palette = 0; palette < 2; palette++) {
        igpt_model_desc desc = small_desc(), none = quiet();
        igpt_model *model, *back;
        paper first = { 0 }, second = { 0 };
        desc.config.objective = (igpt_objective)objective;
        desc.config.classes = classes;
        desc.config.biases = classes > 0;
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
          CHECK(paper_same(&first, &second));
        }
        igpt_model_destroy(back);
        igpt_model_destroy(model);
        paper_clear(&first);
        paper_clear(&second);
      }
}

/* Half the bytes: every weight comes back rounded, all else as it was; and again the same bytes. */
TEST(two_bytes_a_weight)
{
  igpt_model_desc desc = small_desc(), none = quiet();
  igpt_model *model, *back;
  paper whole = { 0 }, first = { 0 }, second = { 0 };
  igpt_sink sink = paper_sink(&first), again = paper_sink(&second);
  size_t i, n, wrong = 0;
  desc.config.classes = 3;
  model = make(&desc);
  n = igpt_model_parameters(model);
  set_palette(model);
  model->step = 7;
  model->scalars[0] = 1.00390625f;          /* a tie, to even: down; and one that goes up */
  model->scalars[1] = 1.01171875f;
  write_bytes(&whole, model);
  CHECK_INT(igpt_model_write_bf16(model, &sink), IGPT_OK);
  CHECK(first.size + 2 * n < whole.size);
  CHECK_INT(read_bytes(&back, &first, &none), IGPT_OK);
  if (back) {
    CHECK(back->scalars[0] == 1.0f && back->scalars[1] == 1.015625f);
    for (i = 0; i < n; i++) wrong += back->scalars[i] != igpt__round_bf16(model->scalars[i]);
    CHECK_INT(wrong, 0);
    CHECK(memcmp(&model->palette, &back->palette, sizeof model->palette) == 0);
    CHECK(memcmp(&model->config, &back->config, sizeof model->config) == 0 && back->step == 7);
    CHECK_INT(igpt_model_write_bf16(back, &again), IGPT_OK);
    CHECK(paper_same(&first, &second));
  }
  model->log = none.log;
  model->scalars[n - 1] = 3.4e38f;          /* finite, and not when it is rounded up */
  CHECK_INT(igpt_model_write_bf16(model, &sink), IGPT_NOT_FINITE);
  CHECK(strstr(last, "3.4e"));
  CHECK_INT(igpt_model_write(model, &sink), IGPT_OK);
  second.size = 0;
  model->scalars[n - 1] = (float)HUGE_VAL;  /* what no reader takes is not written */
  CHECK_INT(igpt_model_write(model, &again), IGPT_NOT_FINITE);
  CHECK(strstr(last, "is inf") && second.size == 0);
  CHECK_INT(igpt_model_write_bf16(NULL, &sink), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_write_bf16(model, NULL), IGPT_BAD_ARGUMENT);
  igpt_model_destroy(back);
  igpt_model_destroy(model);
  paper_clear(&whole);
  paper_clear(&first);
  paper_clear(&second);
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
  paper file = { 0 }, part;
  int accepted = 0;
  set_palette(model);
  write_bytes(&file, model);
  for (part = file, part.size = 0; part.size < file.size; part.size++) {
    accepted += read_bytes(&back, &part, &none) == IGPT_OK;
    igpt_model_destroy(back);
  }
  CHECK_INT(accepted, 0);
  paper_write(&file, "", 1);
  CHECK_INT(read_bytes(&back, &file, &none), IGPT_BAD_FILE);
  igpt_model_destroy(model);
  paper_clear(&file);
}

TEST(every_header_byte_changed)
{
  igpt_model_desc desc = small_desc(), none = quiet();
  igpt_model *model, *back, *again;
  paper file = { 0 }, copy = { 0 };
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
  paper_clear(&file);
  paper_clear(&copy);
}

/* The file with the first `find` of its header (every one, if `all`) replaced, and the length of
   the header mended. 0 if there is none. */
static int edit(paper *out, const paper *file, const char *find, const char *replace, int all)
{
  const size_t header = (size_t)(unsigned char)file->data[0] +
                        256 * (size_t)(unsigned char)file->data[1];
  const size_t n = strlen(find);
  size_t i;
  int found = 0;
  paper_clear(out);
  paper_write(out, "12345678", 8);
  for (i = 0; i < header;) {
    if ((all || !found) && i + n <= header && memcmp(file->data + 8 + i, find, n) == 0) {
      paper_write(out, replace, strlen(replace));
      found = 1;
      i += n;
    } else {
      paper_write(out, file->data + 8 + i++, 1);
    }
  }
  put_length(out);
  paper_write(out, file->data + 8 + header, file->size - 8 - header);
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
  { "[8,32]", "[256]", 0, IGPT_MISMATCH, "[256]" },
  { "[8,32]", "[8,16,2]", 0, IGPT_MISMATCH, "[8, 16, ...]" },
  { "bias\":{\"dtype\":\"F32\",\"shape\":[24]", "bias\":{\"dtype\":\"F32\",\"shape\":[3,8]", 0,
    IGPT_MISMATCH, "[3, 8]" },
  { "\"F32\",\"shape\":[8,32]", "\"F16\",\"shape\":[8,64]", 0, IGPT_MISMATCH, "[8, 64]" },
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
  { "\"shape\":[6,8],", "\"shape\":[6,8],\"dtype\":\"F32\",", 0, IGPT_BAD_FILE, "once each" },
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
  { "transformer.ln_f.weight", "\\u00", 0, IGPT_BAD_FILE, "escape" },
  { "transformer.ln_f.weight", "\\u00g4", 0, IGPT_BAD_FILE, "escape" },
  { "transformer.ln_f.weight", "\\ud83d+ude00", 0, IGPT_BAD_FILE, "escape" },
  { "transformer.ln_f.weight", "\\ud83d\\nde00", 0, IGPT_BAD_FILE, "escape" },
  { "transformer.ln_f.weight", "\\ud83d\\u0041", 0, IGPT_BAD_FILE, "escape" },
  { "transformer.ln_f.weight", "\xff", 0, IGPT_BAD_FILE, "UTF-8" },
  { "transformer.ln_f.weight", "\xe0\xa0\x80", 0, IGPT_MISMATCH, "transformer.ln_f.weight" },
  { "transformer.ln_f.weight", "\xe0\x9f\xbf", 0, IGPT_BAD_FILE, "UTF-8" },
  { "transformer.ln_f.weight", "\xed\x9f\xbf", 0, IGPT_MISMATCH, "transformer.ln_f.weight" },
  { "transformer.ln_f.weight", "\xed\xa0\x80", 0, IGPT_BAD_FILE, "UTF-8" },
  { "transformer.ln_f.weight", "\xf0\x90\x80\x80", 0, IGPT_MISMATCH, "transformer.ln_f.weight" },
  { "transformer.ln_f.weight", "\xf0\x8f\xbf\xbf", 0, IGPT_BAD_FILE, "UTF-8" },
  { "transformer.ln_f.weight", "\xf4\x8f\xbf\xbf", 0, IGPT_MISMATCH, "transformer.ln_f.weight" },
  { "transformer.ln_f.weight", "\xf4\x90\x80\x80", 0, IGPT_BAD_FILE, "UTF-8" },
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
  { "\"__metadata__\"", "\"__metadata__\":{},\"__metadata__\"", 0, IGPT_BAD_FILE, "once" },
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
  paper file = { 0 }, broken = { 0 };
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
  paper_clear(&file);
  paper_clear(&broken);
}

/* Headers that are nothing but depth, or long, or of a length that lies. */
TEST(depth_and_length)
{
  static const char *const units[] = { "[", "{\"a\":", "{\"a\":{\"shape\":[", "\"", "{\"\\",
                                       "{\"__metadata__\":" };
  static const uint64_t lengths[] = { 0, 1, 2, 3, 100000000, 100000001, INT32_MAX,
                                      (uint64_t)1 << 31, UINT32_MAX, (uint64_t)1 << 32,
                                      ((uint64_t)1 << 32) + 2, (uint64_t)1 << 63, UINT64_MAX,
                                      UINT64_MAX - 7 };
  static const char *const ends[] = { "{", "{\"", "{\"a", "{\"\\", "{\"\\u", "{\"\\u004",
                                      "{\"\\ud83d", "{\"\\ud83d\\", "{\"\\ud83d\\ude0",
                                      "{\"\xe2\x82", "{\"a\":" };
  igpt_model_desc none = quiet();
  igpt_model *back;
  igpt_source source;
  paper file = { 0 };
  purse m;
  size_t i, j;
  for (i = 0; i < COUNT(ends); i++) {           /* a header that ends within a name, or behind it */
    paper_clear(&file);
    paper_write(&file, "\0\0\0\0\0\0\0\0", 8);
    paper_write(&file, ends[i], strlen(ends[i]));
    put_length(&file);
    CHECK_INT(read_bytes(&back, &file, &none), IGPT_BAD_FILE);
  }
  for (i = 0; i < COUNT(units); i++) {
    paper_clear(&file);
    paper_write(&file, "\0\0\0\0\0\0\0\0", 8);
    for (j = 0; j < 100000; j++) paper_write(&file, units[i], strlen(units[i]));
    put_length(&file);
    CHECK_INT(read_bytes(&back, &file, &none), IGPT_BAD_FILE);
  }
  for (i = 0; i < COUNT(lengths); i++) {
    paper_clear(&file);
    for (j = 0; j < 8; j++) {
      const char byte = (char)(lengths[i] >> 8 * j & 255);
      paper_write(&file, &byte, 1);
    }
    paper_write(&file, "{}  ", 4);
    CHECK(read_bytes(&back, &file, &none) != IGPT_OK);
    /* of a file that is said to be long enough: what is too long takes no memory, the rest gives
       it back */
    none.allocator = purse_allocator(&m);
    source = paper_source(&file);
    source.size = UINT64_MAX;
    CHECK(igpt_model_read(&back, &source, &none) != IGPT_OK);
    CHECK_INT(m.calls, lengths[i] >= 2 && lengths[i] <= 100000000);
    CHECK_INT(m.held, 0);
    memset(&none.allocator, 0, sizeof none.allocator);
  }
  paper_clear(&file);
}

/* ---- values -------------------------------------------------------------------------------- */

/* Where the numbers of a tensor are in the file. */
static size_t place_of(const paper *file, const char *name)
{
  igpt__file *header = NULL;
  igpt_allocator allocator;
  igpt_source source;
  paper copy = *file;
  size_t place = 0;
  memset(&allocator, 0, sizeof allocator);
  igpt__allocator_resolve(&allocator, NULL);
  source = paper_source(&copy);
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
  igpt_model_desc desc = small_desc(), none = quiet(), ask = quiet();
  igpt_model *model = make(&desc), *back;
  paper file = { 0 };
  size_t i, at;
  char old[4];
  write_bytes(&file, model);
  for (i = 0; i < 4; i++) {
    char name[64];
    sprintf(name, "transformer.h.1.%s.bias", biases[i]);
    at = place_of(&file, name) + 4 * 7;
    memcpy(file.data + at, one, 4);             /* one bias that is not zero makes it have all */
    CHECK_INT(read_bytes(&back, &file, &none), IGPT_OK);
    if (back) {
      igpt_tensor tensor;
      CHECK_INT(back->config.biases, 1);
      CHECK_INT(igpt_model_tensor(back, &tensor, name), IGPT_OK);
      CHECK(tensor.data[6] == 0 && tensor.data[7] == 1);
      CHECK_INT(igpt_model_tensor(back, &tensor, "transformer.h.0.mlp.c_fc.bias"), IGPT_OK);
      CHECK(tensor.count == 32 && tensor.data[31] == 0);
    }
    igpt_model_destroy(back);
    memcpy(file.data + at, nan_bits, 4);
    CHECK_INT(read_bytes(&back, &file, &none), IGPT_NOT_FINITE);
    CHECK(strstr(last, name) != NULL);
    memcpy(file.data + at, minus_zero, 4);
    CHECK_INT(read_bytes(&back, &file, &none), IGPT_OK);
    if (back) CHECK_INT(back->config.biases, 0);
    igpt_model_destroy(back);
    ask.config.biases = 1;
    CHECK_INT(read_bytes(&back, &file, &ask), IGPT_OK);
    if (back) CHECK_INT(back->config.biases, 1);
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
  paper_clear(&file);
}

/* A file as others write it: no igpt keys, no biases, any of three types, tensors backwards. */
static void write_foreign(paper *out, const igpt_model *model, const char *dtype, const char *skip)
{
  char text[256];
  size_t i, at = 0;
  const size_t size = strcmp(dtype, "F32") == 0 ? 4 : 2, n = igpt_model_tensors(model);
  int j;
  igpt_tensor tensor;
  paper_clear(out);
  paper_write(out, "12345678{", 9);
  for (i = n; i-- > 0;) {
    igpt_model_tensor_at(model, &tensor, i);
    if (skip && strcmp(tensor.name, skip) == 0) continue;
    sprintf(text, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%lu", at ? "," : "", tensor.name, dtype,
            (unsigned long)tensor.shape[0]);
    paper_write(out, text, strlen(text));
    sprintf(text, ",%lu", (unsigned long)tensor.shape[1]);
    if (tensor.rank == 2) paper_write(out, text, strlen(text));
    sprintf(text, "],\"data_offsets\":[%lu,%lu]}", (unsigned long)at,
            (unsigned long)(at + tensor.count * size));
    paper_write(out, text, strlen(text));
    at += tensor.count * size;
  }
  paper_write(out, "}", 1);
  put_length(out);
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
      paper_write(out, four, size);
    }
  }
}

TEST(files_of_others)
{
  static const char *const dtypes[] = { "F32", "F16", "BF16" };
  igpt_model_desc desc = small_desc(), ask = quiet();
  igpt_model *model, *back;
  paper file = { 0 };
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
  ask.config.rows = ask.config.columns = -1;    /* what is asked for is not the file's fault */
  CHECK_INT(read_bytes(&back, &file, &ask), IGPT_BAD_ARGUMENT);
  ask.config.rows = 2;
  ask.config.columns = 3;
  ask.config.heads = -2;
  CHECK_INT(read_bytes(&back, &file, &ask), IGPT_BAD_ARGUMENT);
  CHECK(strstr(last, "config.heads is -2") != NULL);
  ask.config.heads = 3;
  CHECK_INT(read_bytes(&back, &file, &ask), IGPT_MISMATCH);
  CHECK(strstr(last, "config.heads is 3, which does not divide the file's width 8") != NULL);
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
  paper_clear(&file);
}

/* Each of their classes knows one head: the file for it has that one alone, and is one of ours. */
TEST(files_for_others)
{
  static const char *const heads[] = { "lm_head.weight", "score.weight" };
  igpt_model_desc desc = small_desc(), none = quiet();
  igpt_model *model, *back;
  paper file = { 0 }, first = { 0 };
  igpt_sink sink = paper_sink(&file);
  size_t i;
  int classifier;
  desc.config.classes = 3;
  model = make(&desc);
  set_palette(model);
  for (classifier = 0; classifier < 2; classifier++) {
    paper_clear(&file);
    CHECK_INT(igpt_model_write_hf(model, &sink, classifier), IGPT_OK);
    CHECK(edit(&first, &file, heads[classifier], "", 0));
    CHECK(!edit(&first, &file, heads[!classifier], "", 0));
    CHECK(edit(&first, &file, "\"transformer.h.1.mlp.c_proj.bias\"", "", 0));
    CHECK_INT(read_bytes(&back, &file, &none), IGPT_OK);
    if (!back) continue;
    CHECK_INT(back->config.vocabulary, 4);
    CHECK_INT(back->config.columns, 3);
    CHECK_INT(back->config.classes, classifier ? 3 : 0);
    CHECK(memcmp(&model->palette, &back->palette, sizeof model->palette) == 0);
    CHECK(memcmp(back->weights.wte, model->weights.wte, 5 * 8 * sizeof(float)) == 0);
    CHECK(memcmp(back->weights.block[1].m_proj, model->weights.block[1].m_proj, 256 * 4) == 0);
    if (classifier) CHECK(memcmp(back->weights.score, model->weights.score, 24 * 4) == 0);
    else CHECK(memcmp(back->weights.lm_head, model->weights.lm_head, 32 * 4) == 0);
    for (i = 0; classifier && i < 32; i++) CHECK(back->weights.lm_head[i] == 0);
    igpt_model_destroy(back);
  }
  CHECK_INT(igpt_model_write_hf(NULL, &sink, 0), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_write_hf(model, NULL, 0), IGPT_BAD_ARGUMENT);
  igpt_model_destroy(model);
  desc.config.classes = 0;
  model = make(&desc);
  CHECK_INT(igpt_model_write_hf(model, &sink, 1), IGPT_UNTRAINED_HEAD);
  paper_clear(&file);                   /* what has no class head is the usual file */
  CHECK_INT(igpt_model_write_hf(model, &sink, 0), IGPT_OK);
  paper_clear(&first);
  write_bytes(&first, model);
  CHECK(paper_same(&file, &first));
  igpt_model_destroy(model);
  desc.config.objective = IGPT_BERT;
  model = make(&desc);
  CHECK_INT(igpt_model_write_hf(model, &sink, 0), IGPT_WRONG_OBJECTIVE);
  CHECK(strstr(last, "BERT") != NULL);
  igpt_model_destroy(model);
  paper_clear(&file);
  paper_clear(&first);
}

/* What others trained: biases in any order, or some of them, which the rest follows as zeros. */
TEST(biases_of_others)
{
  igpt_model_desc desc = small_desc(), ask = quiet(), none = quiet();
  igpt_model *model, *back;
  igpt_tensor tensor;
  paper file = { 0 }, edited = { 0 };
  desc.config.biases = 1;
  model = make(&desc);
  ask.config.heads = 2;
  ask.config.columns = 3;
  write_foreign(&file, model, "BF16", NULL);
  CHECK_INT(read_bytes(&back, &file, &ask), IGPT_OK);
  if (back) CHECK(back->config.biases == 1 && same_weights(model, back));
  igpt_model_destroy(back);
  write_foreign(&file, model, "F32", "transformer.h.1.mlp.c_proj.bias");
  CHECK_INT(read_bytes(&back, &file, &ask), IGPT_OK);
  if (back) {
    CHECK_INT(igpt_model_tensor(back, &tensor, "transformer.h.1.mlp.c_proj.bias"), IGPT_OK);
    CHECK(tensor.data[0] == 0 && tensor.data[7] == 0);
    CHECK_INT(igpt_model_tensor(back, &tensor, "transformer.h.0.mlp.c_proj.bias"), IGPT_OK);
    CHECK(tensor.data[0] != 0);
  }
  igpt_model_destroy(back);
  write_foreign(&file, model, "F32", NULL);
  CHECK(edit(&edited, &file, "h.1.mlp.c_proj.bias", "h.2.mlp.c_proj.bias", 0));
  CHECK_INT(read_bytes(&back, &edited, &ask), IGPT_MISMATCH);
  CHECK(edit(&edited, &file, "\"shape\":[32],", "\"shape\":[8,4],", 0));
  CHECK_INT(read_bytes(&back, &edited, &ask), IGPT_MISMATCH);
  CHECK(strstr(last, "mlp.c_fc.bias has shape [8, 4]") != NULL);
  paper_clear(&file);
  write_bytes(&file, model);
  CHECK(edit(&edited, &file, "\"igpt.biases\":\"1\"", "\"igpt.biases\":\"2\"", 0));
  CHECK_INT(read_bytes(&back, &edited, &none), IGPT_MISMATCH);
  CHECK(strstr(last, "igpt.biases") != NULL);
  igpt_model_destroy(model);
  paper_clear(&file);
  paper_clear(&edited);
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
  paper file = { 0 };
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
  paper_clear(&file);
}

/* A palette name that was cut inside a character must not spoil the file. */
TEST(palette_names)
{
  igpt_model_desc desc = small_desc(), none = quiet();
  igpt_model *model = make(&desc), *back;
  paper file = { 0 }, again = { 0 };
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
    CHECK(paper_same(&file, &again));
  }
  igpt_model_destroy(back);
  model->palette.centre[2][1] = (float)HUGE_VAL;
  {
    igpt_sink sink = paper_sink(&file);
    CHECK_INT(igpt_model_write(model, &sink), IGPT_NOT_FINITE);
  }
  igpt_model_destroy(model);
  paper_clear(&file);
  paper_clear(&again);
}

/* ---- borrowed weights ---------------------------------------------------------------------- */

/* A copy of a file in memory that nobody can write, `shift` bytes past the start of a page. */
typedef struct constant {
  char *base;
  size_t size;
} constant;

static igpt_source constant_of(constant *to, const paper *file, size_t shift)
{
  igpt_source source;
  memset(&source, 0, sizeof source);
  to->size = file->size + shift;
#if PAGES
  to->base = (char *)mmap(NULL, to->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                          0);
  if (to->base == (char *)MAP_FAILED) to->base = NULL;
#else
  to->base = (char *)malloc(to->size);
#endif
  no_null(to->base);
  memcpy(to->base + shift, file->data, file->size);
#if PAGES
  if (mprotect(to->base, to->size, PROT_READ)) exit(1);
#endif
  source.memory = to->base + shift;
  source.size = file->size;
  return source;
}

static void constant_free(constant *of)
{
#if PAGES
  munmap(of->base, of->size);
#else
  free(of->base);
#endif
}

/* All that a model computes, to compare. */
typedef struct answers {
  float logits[2 * 6 * 4], nats[2 * 6], classes[2 * 3], features[2 * 3 * 8];
  uint16_t tokens[2 * 6];
} answers;

static void ask_all(answers *to, const igpt_model *model, igpt_precision precision)
{
  static const uint16_t tokens[12] = { 0, 1, 2, 3, 2, 1, 3, 3, 0, 0, 2, 1 };
  static const int depths[] = { 0, 1, 2 };
  igpt_session *session = NULL;
  igpt_session_desc work;
  igpt_batch batch;
  memset(to, 0, sizeof *to);
  memset(&work, 0, sizeof work);
  memset(&batch, 0, sizeof batch);
  work.batch = 2;
  work.precision = precision;
  batch.tokens = tokens;
  batch.count = 2;
  CHECK_INT(igpt_session_create(&session, model, &work), IGPT_OK);
  if (!session) return;
  CHECK_INT(igpt_forward(session, to->logits, &batch), IGPT_OK);
  CHECK_INT(igpt_nll(session, to->nats, NULL, &batch), IGPT_OK);
  CHECK_INT(igpt_features(session, to->features, &batch, depths, 3), IGPT_OK);
  if (model->config.classes) CHECK_INT(igpt_classify(session, to->classes, &batch), IGPT_OK);
  if (model->config.objective == IGPT_AR)
    CHECK_INT(igpt_sample(session, to->tokens, 2, NULL), IGPT_OK);
  igpt_session_destroy(session);
}

/* Nobody can write where the weights lie, so that whoever tried would end this program. */
TEST(borrowed_weights_give_the_same_bits)
{
  int objective, classes, precision;
  for (objective = 0; objective < 2; objective++)
    for (classes = 0; classes < 4; classes += 3) {
      igpt_model_desc desc = small_desc(), ask = quiet();
      igpt_model *model, *copy, *lent = NULL;
      paper file = { 0 }, again = { 0 }, half = { 0 }, half_again = { 0 };
      igpt_sink sink = paper_sink(&half), sink_again = paper_sink(&half_again);
      igpt_source source;
      constant array;
      purse m;
      size_t whole, needed, i;
      char *memory;
      desc.config.objective = (igpt_objective)objective;
      desc.config.classes = classes;
      model = make(&desc);
      set_palette(model);
      write_bytes(&file, model);
      CHECK_INT(read_bytes(&copy, &file, &ask), IGPT_OK);

      /* the model's own block has no weights, and is all that is kept */
      CHECK_INT(igpt_model_bytes(&whole, &desc), IGPT_OK);
      desc.borrow = 1;
      CHECK_INT(igpt_model_bytes(&needed, &desc), IGPT_OK);
      CHECK_INT((whole - needed) / 64, (4 * igpt_model_parameters(model) + 63) / 64);
      memory = (char *)no_null(malloc(needed));
      ask.allocator = purse_allocator(&m);
      ask.borrow = 1;
      ask.memory = memory;
      ask.memory_bytes = needed - 1;
      source = constant_of(&array, &file, 0);
      CHECK_INT(igpt_model_read(&lent, &source, &ask), IGPT_OUT_OF_MEMORY);
      ask.memory_bytes = needed;
      CHECK_INT(igpt_model_read(&lent, &source, &ask),
                igpt__big_endian() ? IGPT_UNSUPPORTED : IGPT_OK);
      CHECK_INT(m.held, 0);
      if (lent) {
        for (i = 0; i < igpt_model_tensors(lent); i++) {
          igpt_tensor of_copy, of_lent;
          const char *data;
          igpt_model_tensor_at(copy, &of_copy, i);
          igpt_model_tensor_at(lent, &of_lent, i);
          data = (const char *)of_lent.data;
          CHECK(strcmp(of_copy.name, of_lent.name) == 0 && of_copy.count == of_lent.count);
          CHECK(data >= array.base && data + 4 * of_lent.count <= array.base + array.size);
          CHECK(memcmp(of_copy.data, data, 4 * of_lent.count) == 0);
        }
        for (precision = IGPT_F32; precision < IGPT_PRECISION_AUTO; precision++) {
          answers by_copy, by_lent;
          ask_all(&by_copy, copy, (igpt_precision)precision);
          ask_all(&by_lent, lent, (igpt_precision)precision);
          CHECK(by_copy.logits[0] != 0);
          CHECK(memcmp(&by_copy, &by_lent, sizeof by_copy) == 0);
        }
        write_bytes(&again, lent);
        CHECK(paper_same(&file, &again));
        CHECK_INT(igpt_model_write_bf16(copy, &sink), IGPT_OK);
        CHECK_INT(igpt_model_write_bf16(lent, &sink_again), IGPT_OK);
        CHECK(paper_same(&half, &half_again));
      }
      igpt_model_destroy(lent);
      igpt_model_destroy(copy);
      igpt_model_destroy(model);
      CHECK(memcmp(array.base, file.data, file.size) == 0);
      constant_free(&array);
      free(memory);
      paper_clear(&file);
      paper_clear(&again);
      paper_clear(&half);
      paper_clear(&half_again);
    }
}

TEST(what_cannot_be_borrowed)
{
  igpt_model_desc desc = small_desc(), ask = quiet();
  igpt_session_desc work;
  igpt_session *session;
  igpt_model *model = make(&desc), *back;
  paper file = { 0 }, half = { 0 };
  igpt_sink sink = paper_sink(&half);
  igpt_source source;
  constant array;
  purse m;
  size_t shift;
  write_bytes(&file, model);
  CHECK_INT(igpt_model_write_bf16(model, &sink), IGPT_OK);
  desc.borrow = 1;
  CHECK_INT(igpt_model_create(&back, &desc), IGPT_BAD_ARGUMENT);
  CHECK(back == NULL && strstr(last, "igpt_model_create has nothing to borrow") != NULL);

  ask.allocator = purse_allocator(&m);
  ask.borrow = 1;
  source = paper_source(&file);                    /* through a callback */
  CHECK_INT(igpt_model_read(&back, &source, &ask), IGPT_BAD_ARGUMENT);
  CHECK(back == NULL && strstr(last, "the source is not in memory") != NULL);
  if (igpt__big_endian()) {
    source = constant_of(&array, &file, 0);
    CHECK_INT(igpt_model_read(&back, &source, &ask), IGPT_UNSUPPORTED);
    CHECK(back == NULL && strstr(last, "big-endian") != NULL);
    constant_free(&array);
  } else {
    for (shift = 0; shift < 9; shift++) {
      source = constant_of(&array, &file, shift);
      CHECK_INT(igpt_model_read(&back, &source, &ask), shift % 4 ? IGPT_MISMATCH : IGPT_OK);
      if (shift % 4 == 3)
        CHECK(strcmp(last, "tensor transformer.wte.weight lies 3 bytes past a multiple of 4, and "
                           "must lie at one to be borrowed") == 0);
      memset(&work, 0, sizeof work);
      work.train = 1;
      work.log = test_log();
      if (back) {
        CHECK(igpt_session_create(&session, back, &work) != IGPT_OK);
        CHECK(session == NULL && strstr(last, "session.train is 1, and") != NULL);
#ifndef IGPT_NO_TRAIN
        CHECK(strstr(last, "borrowed") != NULL);
#endif
      }
      igpt_model_destroy(back);
      constant_free(&array);
    }
    source = constant_of(&array, &half, 0);
    CHECK_INT(igpt_model_read(&back, &source, &ask), IGPT_MISMATCH);
    CHECK(strcmp(last, "tensor transformer.wte.weight has dtype BF16, and must be F32 to be "
                       "borrowed") == 0);
    constant_free(&array);
    source = constant_of(&array, &file, 0);
    ask.config.classes = 3;
    CHECK_INT(igpt_model_read(&back, &source, &ask), IGPT_MISMATCH);
    CHECK(back == NULL && strstr(last, "no tensor score.weight to borrow") != NULL);
    ask.config.classes = 0;
    constant_free(&array);
    shift = place_of(&file, "transformer.h.1.mlp.c_proj.weight") + 4 * 5;
    memcpy(file.data + shift, "\0\0\x80\x7f", 4);         /* infinite */
    source = constant_of(&array, &file, 0);
    CHECK_INT(igpt_model_read(&back, &source, &ask), IGPT_NOT_FINITE);
    CHECK(back == NULL && strstr(last, "h.1.mlp.c_proj.weight: number 5 is inf") != NULL);
    constant_free(&array);
  }
  CHECK_INT(m.held, 0);
  igpt_model_destroy(model);
  paper_clear(&file);
  paper_clear(&half);
}

/* ---- when the host fails ------------------------------------------------------------------- */

TEST(every_allocation_fails_once)
{
  igpt_model_desc desc = small_desc(), ask = quiet();
  igpt_model *model = make(&desc), *back;
  paper file = { 0 };
  purse m;
  int n, needed = 0;
  write_bytes(&file, model);
  for (n = 0; n < 10; n++) {
    igpt_result result;
    ask.allocator = purse_allocator(&m);
    m.fail_at = n - 1;
    result = read_bytes(&back, &file, &ask);
    if (n == 0) needed = m.calls;
    CHECK_INT(result, n >= 1 && n <= needed ? IGPT_OUT_OF_MEMORY : IGPT_OK);
    igpt_model_destroy(back);
    CHECK_INT(m.held, 0);
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
    ask.allocator = purse_allocator(&m);
    CHECK_INT(read_bytes(&back, &file, &ask), IGPT_OK);
    if (back) CHECK(same_weights(model, back));
    igpt_model_destroy(back);
    CHECK_INT(m.held, 0);
    CHECK_INT(m.calls, 1);
    ask.memory_bytes = size - 1;
    CHECK_INT(read_bytes(&back, &file, &ask), IGPT_OUT_OF_MEMORY);
    CHECK_INT(m.held, 0);
    free(memory);
  }
  igpt_model_destroy(model);
  paper_clear(&file);
}

TEST(every_read_and_write_fails_once)
{
  igpt_model_desc desc = small_desc(), ask = quiet();
  igpt_model *model = make(&desc), *back;
  paper file = { 0 }, whole = { 0 };
  igpt_source source;
  igpt_sink sink = paper_sink(&file);
  purse m;
  int n, needed, half;
  set_palette(model);
  CHECK_INT(igpt_model_write(model, &sink), IGPT_OK);
  needed = file.calls;
  CHECK(needed > 10);
  paper_write(&whole, file.data, file.size);
  for (n = 1; n <= needed; n++) {
    file.size = 0;
    file.calls = 0;
    file.fail_at = n;
    CHECK_INT(igpt_model_write(model, &sink), IGPT_WRITE_ERROR);
    CHECK_INT(file.calls, n);                   /* none after the failure */
    CHECK(strstr(last, "writing failed") != NULL);
  }
  ask.allocator = purse_allocator(&m);
  for (half = 0; half < 2; half++) {            /* four bytes a weight, and two */
    if (half) {
      paper_clear(&whole);
      sink = paper_sink(&whole);
      CHECK_INT(igpt_model_write_bf16(model, &sink), IGPT_OK);
    }
    whole.calls = whole.fail_at = 0;
    source = paper_source(&whole);
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
      CHECK_INT(m.held, 0);
    }
  }
  memset(&source, 0, sizeof source);
  CHECK_INT(igpt_model_read(&back, &source, &ask), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_read(&back, NULL, &ask), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_read(NULL, &source, &ask), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_write(model, NULL), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_model_write(NULL, &sink), IGPT_BAD_ARGUMENT);
  igpt_model_destroy(model);
  paper_clear(&file);
  paper_clear(&whole);
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

static igpt_result write_checkpoint(paper *file, const run *r, const igpt_progress *progress)
{
  igpt_sink sink = paper_sink(file);
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
      paper file = { 0 }, again = { 0 }, plain = { 0 }, from_checkpoint = { 0 };
      igpt_source source;
      igpt_model *model;
      run a, b;
      float logits[4];
      size_t i, P;
      desc.config.objective = (igpt_objective)objective;
      desc.config.classes = classes;
      desc.config.biases = classes > 0;
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
      source = paper_source(&file);
      if (!objective) CHECK_INT(igpt_decode_begin(b.session, NULL, 0, 1), IGPT_OK);
      CHECK_INT(igpt_checkpoint_read(b.session, b.model, &back, &source), IGPT_OK);
      CHECK_INT(igpt_decode(b.session, logits, NULL), IGPT_BAD_ARGUMENT);     /* begun before */
      CHECK(same_run(&a, &b));
      CHECK(memcmp(&progress, &back, sizeof back) == 0);
      CHECK(memcmp(&a.model->palette, &b.model->palette, sizeof a.model->palette) == 0);
      for (i = 0; i < P; i++)
        if (b.session->gradient[i] != 0) break;
      CHECK(i == P);
      CHECK_INT(write_checkpoint(&again, &b, &back), IGPT_OK);
      CHECK(paper_same(&file, &again));
      run_steps(&a, 3, 3);
      run_steps(&b, 3, 3);
      CHECK(same_run(&a, &b));

      /* a checkpoint is a model too, and the same one */
      CHECK_INT(igpt_checkpoint_read(a.session, a.model, NULL, &source), IGPT_OK);
      write_bytes(&plain, a.model);
      CHECK_INT(read_bytes(&model, &file, &none), IGPT_OK);
      if (model) write_bytes(&from_checkpoint, model);
      CHECK(paper_same(&plain, &from_checkpoint));
      igpt_model_destroy(model);

      /* without a palette it leaves the one that is there */
      a.model->palette.colours = 0;
      CHECK_INT(write_checkpoint(&file, &a, NULL), IGPT_OK);
      source = paper_source(&file);
      CHECK_INT(igpt_checkpoint_read(b.session, b.model, NULL, &source), IGPT_OK);
      CHECK(b.model->palette.colours > 0);

      /* but a model is no checkpoint */
      source = paper_source(&plain);
      CHECK_INT(igpt_checkpoint_read(a.session, a.model, NULL, &source), IGPT_MISMATCH);

      /* a model counts its steps in whatever session they are taken */
      igpt_session_destroy(a.session);
      CHECK_INT(igpt_session_create(&a.session, a.model, igpt_session_resolved(b.session)), IGPT_OK);
      run_steps(&a, 3, 2);
      CHECK(a.session->steps == 2 && a.model->step == 3 + 2);
      run_close(&a);
      run_close(&b);
      paper_clear(&file);
      paper_clear(&again);
      paper_clear(&plain);
      paper_clear(&from_checkpoint);
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
    { "igpt.adam_step", "igpt.adam_stop", 0, IGPT_MISMATCH, "igpt.adam_step" },
    { "\"igpt.progress\":\"", "\"igpt.progress\":\"1 ", 0, IGPT_BAD_FILE, "igpt.progress" },
    { "\"igpt.version\":\"1\",", "", 0, IGPT_MISMATCH, "igpt.version" },
    { "F64", "I64", 0, IGPT_MISMATCH, "progress" },
    { "\"F64\",\"shape\":[5]", "\"F64\",\"shape\":[1,5]", 0, IGPT_MISMATCH, "progress" },
    { "\"progress\":{\"dtype\":\"F64\",\"shape\":[5],\"data_offsets\":[0,40]}",
      "\"h.1.attn.bias\":{\"dtype\":\"BOOL\",\"shape\":[40],\"data_offsets\":[0,40]}", 0,
      IGPT_MISMATCH, "no tensor progress" },
    { "\"progress\":{\"dtype\":\"F64\",\"shape\":[5],\"data_offsets\":[0,40]}",
      "\"progress\":{\"dtype\":\"F64\",\"shape\":[4],\"data_offsets\":[0,32]},"
      "\"h.1.attn.bias\":{\"dtype\":\"BOOL\",\"shape\":[8],\"data_offsets\":[32,40]}", 0,
      IGPT_MISMATCH, "of 5 F64" },
    { "\"adam.m.transformer.ln_f.weight\":{\"dtype\":\"F32\",\"shape\":[8]",
      "\"adam.m.transformer.ln_f.weight\":{\"dtype\":\"F32\",\"shape\":[2,4]", 0, IGPT_MISMATCH,
      "[2, 4]" }
  };
  igpt_model_desc desc = small_desc();
  igpt_progress progress = odd_progress(), untouched;
  paper file = { 0 }, before = { 0 }, after = { 0 }, broken = { 0 };
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
    source = paper_source(&file);
    CHECK_INT(igpt_checkpoint_read(b.session, b.model, &progress, &source), IGPT_NOT_FINITE);
    CHECK(strstr(last, wrong[i].tensor) != NULL);
    memcpy(file.data + at, old, 4);
    CHECK_INT(write_checkpoint(&after, &b, NULL), IGPT_OK);
    CHECK(paper_same(&before, &after));
  }
  for (i = 0; i < COUNT(edits); i++) {
    igpt_result result;
    CHECK(edit(&broken, &file, edits[i].find, edits[i].replace, 0));
    source = paper_source(&broken);
    last[0] = 0;
    result = igpt_checkpoint_read(b.session, b.model, &progress, &source);
    if (result != edits[i].expected) printf("%s: %d, \"%s\"\n", edits[i].find, (int)result, last);
    CHECK_INT(result, edits[i].expected);
    CHECK(strstr(last, edits[i].sentence) != NULL);
    CHECK_INT(write_checkpoint(&after, &b, NULL), IGPT_OK);
    CHECK(paper_same(&before, &after));
  }
  CHECK(memcmp(&progress, &untouched, sizeof progress) == 0);
  {                               /* one whose biases are not what it says */
    const size_t at = place_of(&file, "transformer.h.1.mlp.c_fc.bias") + 4;
    file.data[at + 3] = 0x3f;
    source = paper_source(&file);
    CHECK_INT(igpt_checkpoint_read(b.session, b.model, &progress, &source), IGPT_MISMATCH);
    CHECK(strstr(last, "config.biases is 0, and the file has 1") != NULL);
    file.data[at + 3] = 0;
  }

  /* other shapes, other objective, other classes, other pairs */
  for (i = 0; i < 6; i++) {
    igpt_model_desc other = small_desc();
    run c;
    if (i == 5) other.config.biases = 1;
    if (i == 0) other.config.layers = 1;
    if (i == 1) other.config.objective = IGPT_BERT;
    if (i == 2) other.config.classes = 2;
    if (i == 3) other.config.rows = 3, other.config.columns = 2;
    if (i == 4) other.config.heads = 4;
    c = run_open(&other);
    source = paper_source(&file);
    last[0] = 0;
    CHECK_INT(igpt_checkpoint_read(c.session, c.model, &progress, &source), IGPT_MISMATCH);
    CHECK(last[0] != 0);
    if (i == 5) {                 /* and a file with biases where there are none */
      CHECK(strstr(last, "config.biases is 1, and the file has 0") != NULL);
      CHECK_INT(write_checkpoint(&broken, &c, NULL), IGPT_OK);
      source = paper_source(&broken);
      CHECK_INT(igpt_checkpoint_read(b.session, b.model, &progress, &source), IGPT_MISMATCH);
      CHECK(strstr(last, "config.biases is 0, and the file has 1") != NULL);
    }
    CHECK_INT(igpt_checkpoint_read(c.session, b.model, &progress, &source), IGPT_BAD_ARGUMENT);
    run_close(&c);
  }
  {
    igpt_model_desc other = small_desc();       /* where AR, which is 0, is asked for */
    run c;
    other.config.objective = IGPT_BERT;
    c = run_open(&other);
    CHECK_INT(write_checkpoint(&broken, &c, NULL), IGPT_OK);
    source = paper_source(&broken);
    CHECK_INT(igpt_checkpoint_read(b.session, b.model, &progress, &source), IGPT_MISMATCH);
    CHECK(strstr(last, "config.objective is 0, and the file has 1") != NULL);
    CHECK_INT(write_checkpoint(&after, &b, NULL), IGPT_OK);
    CHECK(paper_same(&before, &after));
    run_close(&c);
  }
  {
    igpt_model_desc other = small_desc();       /* a head that a model may lack, and no checkpoint */
    run c;
    other.config.classes = 2;
    c = run_open(&other);
    CHECK_INT(write_checkpoint(&file, &c, NULL), IGPT_OK);
    CHECK(edit(&broken, &file, "\"lm_head.weight\"", "\"adam.x.lm_head\"", 0));
    source = paper_source(&broken);
    CHECK_INT(igpt_checkpoint_read(c.session, c.model, &progress, &source), IGPT_MISMATCH);
    CHECK(strstr(last, "lm_head.weight") != NULL);
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
  paper_clear(&file);
  paper_clear(&before);
  paper_clear(&after);
  paper_clear(&broken);
}

/* A source that fails in the second pass, when the copying has begun, leaves the old state; where
   there is no room for keeping it, no call takes what is left for a model. */
TEST(a_read_that_fails_late_leaves_the_old_state)
{
  igpt_model_desc desc = small_desc();
  int n, needed = 0, large, kept[2] = { 0 }, gone[2] = { 0 };
  const int every = TEST_AMOUNT(1, 5);
  for (large = 0; large < 2; large++) {
    igpt_session_desc session;
    igpt_source source;
    paper whole = { 0 }, lost = { 0 };
    run a, b, c;
    if (large) desc.config.width = 96;          /* of which two pixels are little */
    if (large) desc.config.rows = 1, desc.config.columns = 2;
    a = run_open(&desc);
    b = run_open(&desc);
    c = run_open(&desc);
    run_steps(&a, 0, 2);
    CHECK_INT(write_checkpoint(&whole, &a, NULL), IGPT_OK);
    igpt_session_destroy(b.session);
    memset(&session, 0, sizeof session);
    session.train = session.batch = session.no_cache = 1;
    session.log = test_log();
    CHECK_INT(igpt_session_create(&b.session, b.model, &session), IGPT_OK);
    igpt_session_destroy(c.session);
    CHECK_INT(igpt_session_create(&c.session, c.model, &session), IGPT_OK);
    run_steps(&b, 5, 2);
    run_steps(&c, 5, 2);
    source = paper_source(&whole);
    whole.calls = whole.fail_at = 0;
    CHECK_INT(igpt_checkpoint_read(a.session, a.model, NULL, &source), IGPT_OK);
    needed = whole.calls;
    for (n = 1; n <= needed; n += every) {
      uint16_t tokens[64] = { 0 };
      igpt_batch look;
      whole.calls = 0;
      whole.fail_at = n;
      CHECK_INT(igpt_checkpoint_read(b.session, b.model, NULL, &source), IGPT_READ_ERROR);
      memset(&look, 0, sizeof look);
      look.tokens = tokens;
      look.count = 1;
      if (same_run(&b, &c)) {
        kept[large]++;
        run_steps(&b, 5 + n, 1);                /* and goes on */
        run_steps(&c, 5 + n, 1);
        CHECK(same_run(&b, &c));
      } else {
        gone[large]++;
        CHECK(strstr(last, "NaN until a checkpoint is read") != NULL);
        CHECK_INT(igpt_nll(b.session, NULL, NULL, &look), IGPT_NOT_FINITE);
        lost.size = 0;
        CHECK_INT(write_checkpoint(&lost, &b, NULL), IGPT_NOT_FINITE);
        CHECK(lost.size == 0);
        CHECK_INT(igpt_backward(b.session, NULL, &look, NULL), IGPT_NOT_FINITE);
        whole.fail_at = 0;
        CHECK_INT(igpt_checkpoint_read(b.session, b.model, NULL, &source), IGPT_OK);
        CHECK(same_run(&b, &a));
        CHECK_INT(igpt_checkpoint_read(c.session, c.model, NULL, &source), IGPT_OK);
      }
    }
    whole.fail_at = 0;
    run_close(&a);
    run_close(&b);
    run_close(&c);
    paper_clear(&whole);
    paper_clear(&lost);
    CHECK(large ? gone[1] > 10 / every : kept[0] == (needed - 1) / every + 1);
  }
}

TEST(checkpoints_when_the_host_fails)
{
  igpt_model_desc desc = small_desc();
  igpt_session_desc session;
  paper file = { 0 }, whole = { 0 };
  igpt_source source;
  purse m;
  run a = run_open(&desc), b;
  size_t held;
  int n, needed;
  run_steps(&a, 0, 2);
  CHECK_INT(write_checkpoint(&file, &a, NULL), IGPT_OK);
  paper_write(&whole, file.data, file.size);
  needed = file.calls;
  for (n = 1; n <= needed; n++) {
    file.fail_at = n;
    CHECK_INT(write_checkpoint(&file, &a, NULL), IGPT_WRITE_ERROR);
  }
  whole.calls = whole.fail_at = 0;
  source = paper_source(&whole);
  b = run_open(&desc);
  igpt_session_destroy(b.session);
  memset(&session, 0, sizeof session);
  session.train = 1;
  session.batch = 2;
  session.log = test_log();
  session.allocator = purse_allocator(&m);
  CHECK_INT(igpt_session_create(&b.session, b.model, &session), IGPT_OK);
  held = m.held;                                /* the session itself */
  CHECK_INT(igpt_checkpoint_read(b.session, b.model, NULL, &source), IGPT_OK);
  needed = whole.calls;
  for (n = 1; n <= needed; n++) {
    whole.calls = 0;
    whole.fail_at = n;
    CHECK_INT(igpt_checkpoint_read(b.session, b.model, NULL, &source), IGPT_READ_ERROR);
    CHECK_INT(m.held, held);
  }
  m.calls = m.fail_at = 0;
  whole.fail_at = 0;
  CHECK_INT(igpt_checkpoint_read(b.session, b.model, NULL, &source), IGPT_OUT_OF_MEMORY);
  CHECK_INT(igpt_checkpoint_read(b.session, b.model, NULL, &source), IGPT_OK);    /* still usable */
  run_steps(&a, 2, 1);
  run_steps(&b, 2, 1);
  CHECK(same_run(&a, &b));
  file.size = 0;
  a.session->moment2[9] = (float)HUGE_VAL;
  CHECK_INT(write_checkpoint(&file, &a, NULL), IGPT_NOT_FINITE);
  CHECK(file.size == 0 && strstr(last, "tensor adam.v.transformer.") != NULL);
  a.session->moment1[2] = (float)HUGE_VAL;
  CHECK_INT(write_checkpoint(&file, &a, NULL), IGPT_NOT_FINITE);
  CHECK(file.size == 0 && strstr(last, "tensor adam.m.transformer.") != NULL);
  CHECK(strstr(last, ": number 2 is inf") != NULL);
  run_close(&a);
  run_close(&b);
  CHECK_INT(m.held, 0);
  paper_clear(&file);
  paper_clear(&whole);
}
#endif /* IGPT_NO_TRAIN */

/* ---- paths --------------------------------------------------------------------------------- */
#ifndef IGPT_NO_STDIO

#define PATH "build/tests/files_test.safetensors"

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
  paper file = { 0 }, disk = { 0 };
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
  CHECK(paper_load(&disk, PATH) && paper_same(&file, &disk));
  CHECK(!paper_load(&disk, PATH ".tmp"));
  CHECK_INT(igpt_model_load(&back, PATH, NULL), IGPT_OK);
  if (back) CHECK(same_weights(model, back) && back->log.line == NULL);
  igpt_model_destroy(back);
  CHECK_INT(igpt_model_load(&back, PATH, &desc), IGPT_OK);
  if (back) CHECK(back->log.line == log_line);
  igpt_model_destroy(back);

  for (i = 0; i < COUNT(results); i++) {
    CHECK_INT(igpt_file_replace(PATH, &log, half_a_file, &results[i]), results[i]);
    CHECK(paper_load(&disk, PATH) && paper_same(&file, &disk));
    CHECK(!paper_load(&disk, PATH ".tmp"));
  }
  set_palette(model);                           /* refused after the temporary file was opened */
  model->palette.centre[0][0] = (float)HUGE_VAL;
  CHECK_INT(igpt_model_save(model, PATH), IGPT_NOT_FINITE);
  CHECK(strstr(last, PATH) != NULL);
  CHECK(paper_load(&disk, PATH) && paper_same(&file, &disk));
  CHECK(!paper_load(&disk, PATH ".tmp"));
  CHECK_INT(igpt_file_replace(PATH, &log, half_a_file, &fine), IGPT_OK);
  CHECK(paper_load(&disk, PATH) && disk.size == 4);

  last[0] = 0;
  CHECK_INT(igpt_model_load(&back, PATH, &desc), IGPT_BAD_FILE);
  CHECK(back == NULL && strstr(last, PATH ": ") != NULL);
  CHECK_INT(igpt_model_save(model, "build/tests/nowhere/x"), IGPT_WRITE_ERROR);
  CHECK(strstr(last, "build/tests/nowhere/x") != NULL);
  CHECK_INT(igpt_model_save(model, "build/tests"), IGPT_NOT_FINITE);
  model->palette.colours = 0;
  CHECK_INT(igpt_model_save(model, "build/tests"), IGPT_WRITE_ERROR);     /* a directory */
  CHECK(!paper_load(&disk, "build/tests.tmp"));
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
  path[4092] = 0;                               /* with ".tmp" and a zero: one more than 4096 */
  CHECK_INT(igpt_model_save(model, path), IGPT_BAD_ARGUMENT);
  path[4091] = 0;
  CHECK_INT(igpt_model_save(model, path), IGPT_WRITE_ERROR);    /* no system has such names */
#if PART_PAGES                    /* Windows has no such paths */
  for (i = 0; i < 1000; i += 2) memcpy(path + i, "./", 2);
  strcpy(path + i, PATH);
  CHECK_INT(igpt_model_load(&back, path, &desc), IGPT_BAD_FILE);
  CHECK(strstr(last, PATH ": ") != NULL && strstr(last, "4 bytes") != NULL);
#endif
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
    CHECK_INT(igpt_checkpoint_load(b.session, b.model, &again, PATH), IGPT_MISMATCH);
    CHECK(strstr(last, PATH ": ") != NULL && same_run(&a, &b));
    a.session->moment2[0] = (float)HUGE_VAL;
    CHECK_INT(igpt_checkpoint_save(a.session, a.model, &progress, PATH), IGPT_NOT_FINITE);
    CHECK(strstr(last, PATH ": tensor adam.v.") != NULL);
    run_close(&a);
    run_close(&b);
  }
#endif
  remove(PATH);
  igpt_model_destroy(model);
  paper_clear(&file);
  paper_clear(&disk);
}
#endif

/* ---- .npy ---------------------------------------------------------------------------------- */

/* A file of the given version, header text and data. */
static void npy_file(paper *out, int version, const char *header, const void *data, size_t size)
{
  char start[] = { (char)0x93, 'N', 'U', 'M', 'P', 'Y', 0, 0, 0, 0, 0, 0 };
  start[6] = (char)version;
  start[8] = (char)(strlen(header) & 255);
  start[9] = (char)(strlen(header) >> 8);
  paper_clear(out);
  paper_write(out, start, version == 1 ? 10 : 12);
  paper_write(out, header, strlen(header));
  paper_write(out, data, size);
}

static igpt_result npy_open(igpt_npy *npy, const paper *file)
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
  paper file = { 0 };
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
    source = paper_source(&file);
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
  source = paper_source(&file);
  CHECK_INT(igpt_npy_read_i64(&npy, n, 0, 2, &source), IGPT_OK);
  CHECK(n[0] == -2 && n[1] == INT64_MIN);
  npy_file(&file, 1, "{'descr': '<u8', 'fortran_order': False, 'shape': (2,)}", i8, 16);
  CHECK_INT(npy_open(&npy, &file), IGPT_OK);
  source = paper_source(&file);
  CHECK_INT(igpt_npy_read_i64(&npy, n, 1, 1, &source), IGPT_MISMATCH);    /* 2^63 is too much */
  CHECK_INT(igpt_npy_read_f32(&npy, f, 1, 1, &source), IGPT_OK);
  CHECK(f[0] == 9223372036854775808.0f);
  {                                           /* rounded once: a double between makes it a tie */
    static const unsigned char wide[] = { 1, 0, 0, 0, 0x80, 0, 0, 0x80,       /* 2^63 + 2^39 + 1 */
                                          1, 0, 0, 0, 0x40, 0, 0, 0x40 };     /* 2^62 + 2^38 + 1 */
    npy_file(&file, 1, "{'descr': '<u8', 'fortran_order': False, 'shape': (2,)}", wide, 16);
    CHECK_INT(npy_open(&npy, &file), IGPT_OK);
    source = paper_source(&file);
    CHECK_INT(igpt_npy_read_f32(&npy, f, 0, 2, &source), IGPT_OK);
    CHECK(f[0] == 9223373136366403584.0f && f[1] == 4611686568183201792.0f);
    npy_file(&file, 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", wide + 8, 8);
    CHECK_INT(npy_open(&npy, &file), IGPT_OK);
    source = paper_source(&file);
    CHECK_INT(igpt_npy_read_f32(&npy, f, 0, 1, &source), IGPT_OK);
    CHECK(f[0] == 4611686568183201792.0f);
  }

  for (i = 0; i < COUNT(kinds); i++) {
    const int count = 6 / kinds[i].size;
    sprintf(header, "{'descr': '%s', 'fortran_order': False, 'shape': (%d,), }", kinds[i].descr,
            count);
    npy_file(&file, 1, header, small, 6);
    CHECK_INT(npy_open(&npy, &file), IGPT_OK);
    source = paper_source(&file);
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
    igpt_sink sink = paper_sink(&file);
    const char expected[] = "\x93NUMPY\1\0v\0{'descr': '<u2', 'fortran_order': False, "
                            "'shape': (2, 3, 4), }";
    for (i = 0; i < 24; i++) values[i] = (uint16_t)(i * 2731);
    paper_clear(&file);
    CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_U16, values, 3, shape), IGPT_OK);
    CHECK_INT(file.size, 128 + 48);
    CHECK(memcmp(file.data, expected, sizeof expected - 1) == 0 && file.data[127] == '\n');
    CHECK_INT(npy_open(&npy, &file), IGPT_OK);
    CHECK(npy.rank == 3 && npy.shape[2] == 4 && npy.count == 24);
    source = paper_source(&file);
    CHECK_INT(igpt_npy_read_i64(&npy, n, 22, 2, &source), IGPT_OK);
    CHECK(n[0] == values[22] && n[1] == values[23]);
    paper_clear(&file);
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
    shape[0] = 2;
    CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_F32, NULL, 1, shape), IGPT_BAD_ARGUMENT);
  }
  paper_clear(&file);
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
  paper file = { 0 }, part;
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
  paper_write(&file, "", 1);
  CHECK_INT(npy_open(&npy, &file), IGPT_BAD_FILE);
  paper_clear(&file);
}

/* ---- every machine -------------------------------------------------------------------------- */

/* FNV-1a */
static uint64_t digest_of(const paper *file)
{
  uint64_t digest = 0xcbf29ce484222325u;
  size_t i;
  for (i = 0; i < file->size; i++)
    digest = (digest ^ (unsigned char)file->data[i]) * 0x100000001b3u;
  return digest;
}

/* The digests below are those of x86-64, whatever machine this is. */
static void check_digest(const char *what, const paper *file, uint64_t expected)
{
  const uint64_t digest = digest_of(file);
  if (digest == expected) return;
  test_errors++;
  printf("%s: %lu bytes with the digest %08lx%08lx, expected %08lx%08lx\n", what,
         (unsigned long)file->size, (unsigned long)(digest >> 32),
         (unsigned long)(digest & 0xffffffffu), (unsigned long)(expected >> 32),
         (unsigned long)(expected & 0xffffffffu));
}

/* Finite numbers whose bytes all differ, below 2; no arithmetic that a machine could do its way. */
static void odd_floats(float *x, size_t count, uint64_t stream, uint32_t sign)
{
  igpt_rng rng = igpt_rng_seed(11, stream);
  size_t i;
  for (i = 0; i < count; i++) {
    const uint32_t bits = igpt_rng_next(&rng) & (0x3fffffffu | sign << 31);
    memcpy(x + i, &bits, sizeof bits);
  }
}

static igpt_model *odd_model(void)
{
  igpt_model_desc desc = small_desc();
  igpt_palette palette;
  igpt_model *model;
  int i;
  desc.config.classes = 3;
  desc.config.norm_epsilon = 3.3333333e-6f;
  model = make(&desc);
  odd_floats(model->scalars, igpt_model_parameters(model), 0, 1);
  memset(&palette, 0, sizeof palette);
  palette.colours = model->config.vocabulary;
  strcpy(palette.name, "odd");
  for (i = 0; i < palette.colours; i++) {
    palette.centre[i][0] = -1;
    palette.centre[i][1] = 0.1f;
    palette.centre[i][2] = 0.99999994f;
  }
  CHECK_INT(igpt_model_set_palette(model, &palette), IGPT_OK);
  model->step = 0x0102030405060708u;
  return model;
}

TEST(models_are_the_same_bytes_everywhere)
{
  igpt_model *model = odd_model(), *back = NULL;
  igpt_model_desc none = quiet();
  paper whole = { 0 }, halves = { 0 };
  igpt_sink sink = paper_sink(&halves);
  size_t i, wrong = 0;
  write_bytes(&whole, model);
  check_digest("a model", &whole, 0x9e1dc96bec278a70u);
  CHECK_INT(read_bytes(&back, &whole, &none), IGPT_OK);
  if (back) {
    CHECK(same_weights(model, back) && back->step == model->step);
    CHECK(memcmp(&model->config, &back->config, sizeof model->config) == 0);
    CHECK(memcmp(&model->palette, &back->palette, sizeof model->palette) == 0);
  }
  igpt_model_destroy(back);
  CHECK_INT(igpt_model_write_bf16(model, &sink), IGPT_OK);
  check_digest("a model in two bytes a weight", &halves, 0xc2eafdc2973317fbu);
  CHECK_INT(read_bytes(&back, &halves, &none), IGPT_OK);
  for (i = 0; back && i < igpt_model_parameters(model); i++)
    wrong += back->scalars[i] != igpt__round_bf16(model->scalars[i]);
  CHECK_INT(wrong, 0);
  igpt_model_destroy(back);
  igpt_model_destroy(model);
  paper_clear(&whole);
  paper_clear(&halves);
}

#ifndef IGPT_NO_TRAIN
TEST(checkpoints_are_the_same_bytes_everywhere)
{
  igpt_model *odd = odd_model();
  igpt_model_desc desc = small_desc();
  igpt_progress progress = odd_progress(), back;
  paper file = { 0 };
  igpt_source source;
  run a, b;
  size_t P;
  desc.config = odd->config;
  a = run_open(&desc);
  b = run_open(&desc);
  P = igpt_model_parameters(a.model);
  memcpy(a.model->scalars, odd->scalars, P * sizeof(float));
  odd_floats(a.session->moment1, P, 1, 1);
  odd_floats(a.session->moment2, P, 2, 0);
  a.session->steps = 0x0807060504030201u;
  CHECK_INT(write_checkpoint(&file, &a, &progress), IGPT_OK);
  check_digest("a checkpoint", &file, 0x79fc67eaed793880u);
  memset(&back, 0x55, sizeof back);
  source = paper_source(&file);
  CHECK_INT(igpt_checkpoint_read(b.session, b.model, &back, &source), IGPT_OK);
  CHECK(same_run(&a, &b));
  CHECK(memcmp(&progress, &back, sizeof back) == 0);
  run_close(&a);
  run_close(&b);
  igpt_model_destroy(odd);
  paper_clear(&file);
}
#endif

/* More numbers of every type than the buffers of the writer and the reader hold. */
TEST(arrays_are_the_same_bytes_everywhere)
{
  enum { MANY = 2500 };
  static const struct { const char *name; int bytes; uint64_t digest; } types[] = {
    { "u1", 1, 0x86615ce101f50556u }, { "i1", 1, 0x9f04bc9ad1e39c62u },
    { "u2", 2, 0x68b4db85a8b19468u }, { "i2", 2, 0xb98d2a8f8e24804cu },
    { "u4", 4, 0x157de36fdb3d7336u }, { "i4", 4, 0x357130b44d4459cau },
    { "u8", 8, 0xf068149d056050e8u }, { "i8", 8, 0x9dedef1ff410af74u },
    { "f4", 4, 0x3d19bb07b6284e8fu }, { "f8", 8, 0x30f00eefdac52624u },
    { "b1", 1, 0xa18371c448a13faau }
  };
  static union {
    uint8_t u8[MANY]; uint16_t u16[MANY]; uint32_t u32[MANY]; uint64_t u64[MANY];
    float f32[MANY]; double f64[MANY];
  } data;
  static int64_t wholes[MANY], wholes_back[MANY];
  static float reals[MANY], reals_back[MANY];
  const uint64_t shape = MANY;
  size_t i, t;
  odd_floats(reals, MANY, 3, 1);
  for (t = 0; t < COUNT(types); t++) {
    const char kind = types[t].name[0];
    const int bits = kind == 'b' ? 1 : kind == 'u' && types[t].bytes == 8 ? 63 : 8 * types[t].bytes;
    igpt_rng rng = igpt_rng_seed(11, 4);
    paper file = { 0 };
    igpt_sink sink = paper_sink(&file);
    igpt_source source;
    igpt_npy npy;
    for (i = 0; i < MANY; i++) {
      const uint64_t high = igpt_rng_next(&rng);
      const uint64_t number = (high << 32 | igpt_rng_next(&rng)) >> (64 - bits);
      wholes[i] = (int64_t)number;
      if (kind == 'i' && bits < 64 && number >> (bits - 1)) wholes[i] -= (int64_t)1 << bits;
      if (kind == 'f' && types[t].bytes == 4) data.f32[i] = reals[i];
      else if (kind == 'f') data.f64[i] = (double)reals[i];
      else if (types[t].bytes == 1) data.u8[i] = (uint8_t)number;
      else if (types[t].bytes == 2) data.u16[i] = (uint16_t)number;
      else if (types[t].bytes == 4) data.u32[i] = (uint32_t)number;
      else data.u64[i] = number;
    }
    CHECK_INT(igpt_npy_write(&sink, (igpt_npy_type)t, &data, 1, &shape), IGPT_OK);
    check_digest(types[t].name, &file, types[t].digest);
    CHECK_INT(npy_open(&npy, &file), IGPT_OK);
    CHECK(npy.type == (igpt_npy_type)t && npy.count == MANY);
    source = paper_source(&file);
    if (kind == 'f') {
      CHECK_INT(igpt_npy_read_f32(&npy, reals_back, 0, MANY, &source), IGPT_OK);
      CHECK(memcmp(reals, reals_back, sizeof reals) == 0);
    } else {
      CHECK_INT(igpt_npy_read_i64(&npy, wholes_back, 0, MANY, &source), IGPT_OK);
      CHECK(memcmp(wholes, wholes_back, sizeof wholes) == 0);
      CHECK_INT(igpt_npy_read_f32(&npy, reals_back, 0, MANY, &source), IGPT_OK);
      for (i = 0; i < MANY; i++) CHECK(reals_back[i] == (float)wholes[i]);    /* rounded once */
    }
    paper_clear(&file);
  }
}

int main(void)
{
  RUN(round_trip_is_byte_equal);
  RUN(two_bytes_a_weight);
  RUN(reals_round_trip);
  RUN(every_prefix_and_one_more_byte);
  RUN(every_header_byte_changed);
  RUN(damages_and_their_sentences);
  RUN(depth_and_length);
  RUN(numbers_that_are_refused);
  RUN(files_of_others);
  RUN(files_for_others);
  RUN(biases_of_others);
  RUN(halves);
  RUN(what_is_asked_must_agree);
  RUN(palette_names);
  RUN(borrowed_weights_give_the_same_bits);
  RUN(what_cannot_be_borrowed);
  RUN(every_allocation_fails_once);
  RUN(every_read_and_write_fails_once);
#ifndef IGPT_NO_TRAIN
  RUN(a_resumed_run_goes_on_with_the_same_bits);
  RUN(a_bad_checkpoint_changes_nothing);
  RUN(a_read_that_fails_late_leaves_the_old_state);
  RUN(checkpoints_when_the_host_fails);
#endif
#ifndef IGPT_NO_STDIO
  RUN(a_failed_save_leaves_the_old_file);
#endif
  RUN(npy_types);
  RUN(npy_that_are_refused);
  RUN(models_are_the_same_bytes_everywhere);
#ifndef IGPT_NO_TRAIN
  RUN(checkpoints_are_the_same_bytes_everywhere);
#endif
  RUN(arrays_are_the_same_bytes_everywhere);
  return test_done();
}
