/* fuzz.h: what the targets in this folder share.

   A target is a function that gets any bytes, hands them to one reader (or kernel), and checks
   what that reader promises: an error code and a sentence, or a whole and valid result; memory in
   proportion to the input, all of it given back. It is run in two ways:

     tests/fuzz.c             all of them, over the corpus and over systematic and random damage to
                              it, without libFuzzer, as one of the tests
     make fuzz                each by itself, searched by libFuzzer under two sanitizers

   malloc, fopen and exit are ours here, from the include of igpt.h on: blocks are counted, what
   is left over is found, and the tool's die() comes back.                                        */

#ifndef FUZZ_H
#define FUZZ_H

#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE           /* mmap, and POSIX for image.h */
#endif
#define _FILE_OFFSET_BITS 64

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>            /* calls the real malloc */
#endif

/* ---- memory --------------------------------------------------------------------------------- */

/* In front of every block; the end of the block is the end of malloc's, for the sanitizer. */
typedef union fuzz_block {
  struct { union fuzz_block *next, *previous; size_t bytes; } of;
  long double align[2];
} fuzz_block;

static fuzz_block fuzz_blocks;    /* the head of a ring; next null: it is empty */
static size_t fuzz_live, fuzz_peak, fuzz_largest;           /* bytes */

static void *fuzz_malloc(size_t bytes)
{
  fuzz_block *block = bytes < SIZE_MAX / 2 ? (fuzz_block *)malloc(sizeof *block + bytes) : NULL;
  if (bytes > fuzz_largest) fuzz_largest = bytes;
  if (!block) return NULL;
  if (!fuzz_blocks.of.next) fuzz_blocks.of.next = fuzz_blocks.of.previous = &fuzz_blocks;
  block->of.bytes = bytes;
  block->of.next = fuzz_blocks.of.next;
  block->of.previous = &fuzz_blocks;
  block->of.next->of.previous = fuzz_blocks.of.next = block;
  fuzz_live += bytes;
  if (fuzz_live > fuzz_peak) fuzz_peak = fuzz_live;
  return block + 1;
}

static void fuzz_free(void *data)
{
  fuzz_block *block = data ? (fuzz_block *)data - 1 : NULL;
  if (!block) return;
  block->of.next->of.previous = block->of.previous;
  block->of.previous->of.next = block->of.next;
  fuzz_live -= block->of.bytes;
  free(block);
}

static void *fuzz_calloc(size_t count, size_t size)
{
  void *block = size && count > SIZE_MAX / size ? NULL : fuzz_malloc(count * size);
  if (block) memset(block, 0, count * size);
  return block;
}

static void *fuzz_realloc(void *old, size_t bytes)
{
  void *block = fuzz_malloc(bytes);
  size_t before = old ? ((fuzz_block *)old - 1)->of.bytes : 0;
  if (block && old) memcpy(block, old, before < bytes ? before : bytes);
  if (block) fuzz_free(old);
  return block;
}

/* ---- files that are open -------------------------------------------------------------------- */

static FILE *fuzz_files[8];

static FILE *fuzz_fopen(const char *path, const char *mode)
{
  FILE *file = fopen(path, mode);
  size_t i;
  for (i = 0; file && i < sizeof fuzz_files / sizeof *fuzz_files; i++)
    if (!fuzz_files[i]) {
      fuzz_files[i] = file;
      return file;
    }
  return file;
}

static int fuzz_fclose(FILE *file)
{
  size_t i;
  for (i = 0; i < sizeof fuzz_files / sizeof *fuzz_files; i++)
    if (fuzz_files[i] == file) fuzz_files[i] = NULL;
  return fclose(file);
}

/* ---- leaving -------------------------------------------------------------------------------- */

static jmp_buf fuzz_back;         /* where exit() goes */
static int fuzz_may_exit;         /* 0: exit() is exit() */
static char fuzz_said[2001];      /* what stood on stderr, and a 0 that stays */
static FILE *fuzz_stderr_file;

#if defined(__GNUC__)
__attribute__((noreturn))
#endif
static void fuzz_exit(int status)
{
  if (fuzz_may_exit) longjmp(fuzz_back, 1);
  exit(status);
}

static FILE *fuzz_stderr(void)
{
  if (!fuzz_stderr_file) fuzz_stderr_file = fmemopen(fuzz_said, sizeof fuzz_said - 1, "w");
  return fuzz_stderr_file ? fuzz_stderr_file : stderr;
}

#define malloc fuzz_malloc
#define calloc fuzz_calloc
#define realloc fuzz_realloc
#define free fuzz_free
#define fopen fuzz_fopen
#define fclose fuzz_fclose
#define exit fuzz_exit
#undef stderr
#define stderr fuzz_stderr()

#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "../part.h"

/* ---- a run ---------------------------------------------------------------------------------- */

static int fuzz_accepted;         /* 1: the reader took the last input */

/* Before the reader is called: what is allocated from here on is counted. */
static void fuzz_start(void)
{
  fuzz_peak = fuzz_live;
  fuzz_largest = 0;
}

/* After it: no more than `each` bytes for each of the input's, and `base`. */
static void fuzz_bound(size_t size, size_t each, size_t base)
{
  CHECK(fuzz_peak <= base + each * size);
  CHECK(fuzz_largest <= base + each * size);
}

/* At the end of an input: nothing is left, unless the reader has left through exit. */
static void fuzz_end(int left)
{
  size_t i;
  if (!left) CHECK_INT(fuzz_live, 0);
  while (fuzz_blocks.of.next && fuzz_blocks.of.next != &fuzz_blocks)
    fuzz_free(fuzz_blocks.of.next + 1);
  for (i = 0; i < sizeof fuzz_files / sizeof *fuzz_files; i++)
    if (fuzz_files[i]) {
      CHECK(left);                       /* no file is left open */
      fuzz_fclose(fuzz_files[i]);
    }
}

/* The bytes in a block that ends where they end. */
static uint8_t *fuzz_exact(const uint8_t *data, size_t size)
{
  uint8_t *copy = (uint8_t *)malloc(size ? size : 1);
  if (!copy) exit(2);
  if (size) memcpy(copy, data, size);
  return copy;
}

static igpt_log fuzz_log(heard *h)
{
  igpt_log log;
  memset(h, 0, sizeof *h);
  log.line = hear;
  log.user = h;
  return log;
}

/* An error has a sentence, success has none. */
static void fuzz_sentence(igpt_result result, const heard *h)
{
  CHECK(result <= 0 && strcmp(igpt_error_string(result), "unknown result") != 0);
  CHECK((result == IGPT_OK) == (h->lines == 0));
  if (h->lines) CHECK(h->text[0] != 0 && h->result == result);
}

/* memory 1: the block itself; 0: through the callback. */
static igpt_source fuzz_source(paper *p, int memory)
{
  igpt_source source = paper_source(p);
  if (memory) source.read = NULL;
  if (memory) source.memory = p->data;
  return source;
}

/* ---- files on disk -------------------------------------------------------------------------- */

/* Where the targets that read paths put them. */
#ifndef FUZZ_FOLDER
#define FUZZ_FOLDER "build/fuzz-files"
#endif

static void fuzz_make_folder(const char *path)
{
  if (mkdir(path, 0777) != 0 && errno != EEXIST) {
    printf("cannot make %s: run this from the root of the repository\n", path);
    exit(2);
  }
}

/* Cut at the end and not at the start: some file systems flush a file that was emptied first. */
static void fuzz_put(const char *path, const void *bytes, size_t count)
{
  int file = open(path, O_WRONLY | O_CREAT, 0666);
  if (file < 0 || (count && write(file, bytes, count) != (ssize_t)count) ||
      ftruncate(file, (off_t)count) != 0 || close(file) != 0) {
    printf("cannot write %s\n", path);
    exit(2);
  }
}

/* ---- libFuzzer's entry ---------------------------------------------------------------------- */

#ifdef FUZZ_TOGETHER
#define FUZZ_TARGET(name)
#else
#define FUZZ_TARGET(name)                                                                         \
  int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);                                   \
  int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)                                    \
  {                                                                                               \
    name(data, size);                                                                             \
    if (test_errors) fflush(stdout), abort();                                                     \
    return 0;                                                                                     \
  }
#endif

#endif
