/* tests/cortex-m/complete.c: a whole program for a small machine. It completes a picture of 16 x 16
   pixels with no malloc, no stdio and no threads: the weights stay in the constant array that holds
   their file, and all memory is the three arrays below. The same source runs on the host (host.c)
   and on a board (board.c).                                                                      */

#define IGPT_STATIC
#define IGPT_NO_STDIO
#define IGPT_NO_THREADS
#define IGPT_NO_TRAIN
#define IGPT_NO_SIMD
#define IGPT_MALLOC(bytes) ((void)(bytes), (void *)0)
#define IGPT_FREE(block) ((void)(block))
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "complete.h"
#include "picture.h"

static unsigned char model_block[16 << 10], session_block[1 << 20];
static uint16_t tokens[T];

static void put_line(void *user, igpt_result result, const char *sentence)
{
  (void)user;
  machine_put(igpt_error_string(result));
  machine_put(": ");
  machine_put(sentence);
  machine_put("\n");
}

static void put_number(const char *what, uint64_t number)
{
  char digits[24];
  int n = (int)sizeof digits - 1;
  digits[n] = 0;
  digits[--n] = '\n';
  do digits[--n] = (char)('0' + (int)(number % 10)); while (number /= 10);
  machine_put(what);
  machine_put(" ");
  machine_put(digits + n);
}

void put_stack(const unsigned char *bottom, const unsigned char *top)
{
  while (bottom < top && *bottom == STACK_UNUSED) bottom++;
  put_number("stack", (uint64_t)(top - bottom));
}

/* igpt_model_read takes scratch once and gives it back: it may have the session's memory, as there
   is no session yet. */
static void *lend(void *user, size_t bytes)
{
  *(size_t *)user = bytes;
  return bytes <= sizeof session_block ? session_block : NULL;
}

static void take_back(void *user, void *block, size_t bytes)
{
  (void)user;
  (void)block;
  (void)bytes;
}

int complete(const void *file, size_t bytes)
{
  igpt_source source = { 0 };
  igpt_model_desc desc = { 0 };
  igpt_session_desc work = { 0 };
  igpt_sample_desc how = { 0 };
  igpt_batch batch = { 0 };
  igpt_model *model;
  igpt_session *session;
  size_t scratch = 0, model_bytes, session_bytes;
  double nats;
  source.memory = file;
  source.size = bytes;
  desc.borrow = 1;
  desc.memory = model_block;
  desc.memory_bytes = sizeof model_block;
  desc.allocator.alloc = lend;
  desc.allocator.free = take_back;
  desc.allocator.user = &scratch;
  desc.log.line = put_line;
  if (igpt_model_read(&model, &source, &desc)) return 1;

  work.memory = session_block;
  work.memory_bytes = sizeof session_block;
  work.log.line = put_line;
  if (igpt_session_create(&session, model, &work)) return 1;
  picture(tokens, HIDDEN);
  how.keep = GIVEN;
  how.seed = SEED;
  if (igpt_sample(session, tokens, 1, &how)) return 1;
  batch.tokens = tokens;
  batch.count = 1;
  if (igpt_nll(session, NULL, &nats, &batch)) return 1;

  print_picture(machine_put, igpt_model_palette(model), tokens);
  put_number("micronats", (uint64_t)(nats * 1e6 + 0.5));
  desc.config = *igpt_model_config(model);
  if (igpt_model_bytes(&model_bytes, &desc)) return 1;
  if (igpt_session_bytes(&session_bytes, &desc.config, &work)) return 1;
  put_number("weights", bytes);
  put_number("model", model_bytes);
  put_number("session", session_bytes);
  put_number("scratch", scratch);
  return 0;
}
