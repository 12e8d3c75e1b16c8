/* folder.c: what the tool reads of a Hugging Face folder (config.json, preprocessor_config.json),
   palettes (.npy, .safetensors), and the tool's notes in the header of a model. Byte 0 says which of
   the five; the rest is the file. The tool either goes on with a valid configuration or palette, or
   leaves with one sentence and status 1; a header without a note is no error.                    */

#include "fuzz.h"
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"          /* the tool uses them all */
#pragma GCC diagnostic ignored "-Wunused-variable"
#endif
#include "../../examples/cli_tool.h"
static const verb *verb_table(size_t *count) { *count = 0; return NULL; }
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

enum { FOLDER_CONFIG, FOLDER_CLUSTERS, FOLDER_NPY, FOLDER_MODEL, FOLDER_NOTE, FOLDER_KINDS };

static const char *const folder_names[FOLDER_KINDS] = {
  FUZZ_FOLDER "/hf/config.json", FUZZ_FOLDER "/hf/preprocessor_config.json",
  FUZZ_FOLDER "/hf/palette.npy", FUZZ_FOLDER "/hf/palette.safetensors",
  FUZZ_FOLDER "/hf/noted.safetensors"
};

static void folder_config_is_valid(const igpt_config *c)
{
  igpt_config resolved = *c;
  igpt_result result = igpt_config_resolve(&resolved, NULL);
  CHECK(result == IGPT_OK || c->width % c->heads != 0);     /* that is said when it is loaded */
  CHECK(c->layers >= 1 && c->heads >= 1 && c->width >= 1 && c->vocabulary >= 1);
  CHECK(c->rows >= 0 && c->rows == c->columns && c->rows <= 4096);
  if (c->rows == 0) resolved.rows = resolved.columns = 0;   /* no square: the model's file may say */
  if (result == IGPT_OK) CHECK(memcmp(&resolved, c, sizeof resolved) == 0);
}

static void folder_palette_is_valid(const igpt_palette *palette)
{
  int i;
  CHECK(palette->colours >= 1 && palette->colours <= IGPT_PALETTE_MAX && palette->name[0] != 0);
  CHECK(memchr(palette->name, 0, sizeof palette->name) != NULL);
  for (i = 0; i < 3 * palette->colours; i++)
    if (!(fabsf(palette->centre[i / 3][i % 3]) <= 1.01f)) break;
  CHECK_INT(i, 3 * palette->colours);
}

/* 1 if the header has a string "note". */
static int folder_note(void)
{
  char *header = file_header(folder_names[FOLDER_NOTE]), *note = header_note(header, "note");
  const int there = note != NULL;
  if (note) CHECK(strlen(note) <= strlen(header));
  free(note);
  free(header);
  return there;
}

static void fuzz_folder(const uint8_t *data, size_t size)
{
  static tool t;
  static igpt_palette palette;
  static igpt_config config;
  const int kind = size ? data[0] % FOLDER_KINDS : 0;
  volatile int left = 1, noted = 1;
  fuzz_make_folder("build");
  fuzz_make_folder(FUZZ_FOLDER);
  fuzz_make_folder(FUZZ_FOLDER "/hf");
  fuzz_put(folder_names[kind], data + (size ? 1 : 0), size ? size - 1 : 0);
  rewind(stderr);
  memset(fuzz_said, 0, sizeof fuzz_said);
  last_sentence[0] = 0;
  memset(&config, 0, sizeof config);
  memset(&palette, 0, sizeof palette);
  fuzz_start();
  fuzz_may_exit = 1;
  if (setjmp(fuzz_back) == 0) {
    if (kind == FOLDER_CONFIG) hugging_face_config(&t, &config, FUZZ_FOLDER "/hf");
    else if (kind == FOLDER_CLUSTERS) read_palette(&palette, FUZZ_FOLDER "/hf/");
    else if (kind != FOLDER_NOTE) read_palette(&palette, folder_names[kind]);
    else noted = folder_note();
    left = 0;
  }
  fuzz_may_exit = 0;
  fuzz_bound(size, 16, 100000);
  fuzz_accepted = !left && noted;
  fflush(stderr);
  if (left) {
    CHECK(strncmp(fuzz_said, "igpt: " FUZZ_FOLDER "/hf", strlen("igpt: " FUZZ_FOLDER "/hf")) == 0);
    CHECK(strchr(fuzz_said, '\n') != NULL || strlen(fuzz_said) > sizeof fuzz_said - 4);
  } else if (kind == FOLDER_CONFIG) {
    folder_config_is_valid(&config);
  } else if (kind < FOLDER_MODEL) {
    folder_palette_is_valid(&palette);
  }
  fuzz_end(left);
}

FUZZ_TARGET(fuzz_folder)
