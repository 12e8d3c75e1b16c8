/* cc -O2 -I. -o 08_own_memory examples/08_own_memory.c -lm

   For small machines: no malloc, no files, no threads. The plan says what a network will cost
   before anything exists; model and session live in two blocks that the program owns (here they
   are static, on a board they are what the linker leaves), and IGPT_MALLOC is a null pointer, so
   that nothing could be allocated in secret. The program also lends its own runner, which does
   the work in the wrong order on purpose (the results are the same bits), and a watch that stops
   a call.                                                                                        */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IGPT_NO_STDIO
#define IGPT_NO_THREADS
#define IGPT_MALLOC(bytes) ((void)(bytes), (void *)0)
#define IGPT_FREE(block) ((void)(block))
#define IGPT_IMPLEMENTATION
#include "igpt.h"

enum { T = 16 * 16, STEPS = 5 };

static unsigned char model_block[256 << 10], session_block[3 << 20];
static uint16_t picture[T];

/* Sentences go where the board has a place for them. */
static void put_line(void *user, igpt_result result, const char *sentence)
{
  (void)user;
  printf("  [%d] %s\n", (int)result, sentence);
}

/* The contract: every index once, in any order. A dozen lines wrap any scheduler in this way. */
static void run_backwards(void *user, igpt_task *task, void *arg, size_t count)
{
  ++*(long *)user;
  while (count-- > 0) task(arg, count, (int)(count % 2));
}

/* Asked after nearly every product of the network; anything but 0 stops the call. */
static int poll(void *user, double done)
{
  int *left = (int *)user;
  (void)done;
  return *left > 0 && --*left == 0;
}

/* Trains on one picture and returns a fingerprint of all the weights, or 0. */
static uint32_t train(igpt_session_desc work, igpt_model_desc desc, const igpt_batch *batch)
{
  igpt_adam_desc adam = {0};
  igpt_losses losses = {0};
  igpt_model *model;
  igpt_session *session;
  igpt_tensor tensor;
  uint32_t print = 2166136261u;
  size_t i, j;
  adam.rate = 0.01f;
  if (igpt_model_create(&model, &desc)) return 0;
  if (igpt_session_create(&session, model, &work)) return 0;
  for (i = 0; i < STEPS; i++) {
    if (igpt_backward(session, &losses, batch, NULL)) return 0;
    if (igpt_step(session, model, NULL, &adam)) return 0;
  }
  for (i = 0; i < igpt_model_tensors(model); i++) {
    if (igpt_model_tensor_at(model, &tensor, i)) return 0;
    for (j = 0; j < tensor.count * sizeof(float); j++)
      print = (print ^ ((const unsigned char *)tensor.data)[j]) * 16777619u;
  }
  printf("  %.3f nats a pixel after %d steps, fingerprint %08x\n", losses.generative, (int)STEPS,
         (unsigned)print);
  igpt_session_destroy(session);              /* gives nothing back: the blocks are ours */
  igpt_model_destroy(model);
  return print;
}

int main(void)
{
  igpt_model_desc desc = {0};
  igpt_session_desc work = {0};
  igpt_batch batch = {0};
  igpt_plan plan;
  uint32_t plain, backwards;
  long calls = 0;
  int i, left = 0;

  for (i = 0; i < T; i++) picture[i] = (uint16_t)((i / 16 + i % 16) / 4 % 16);
  batch.tokens = picture;
  batch.count = 1;
  desc.config.layers = 2;
  desc.config.heads = 2;
  desc.config.width = 32;
  desc.config.rows = 16;
  desc.config.vocabulary = 16;
  desc.memory = model_block;
  desc.memory_bytes = sizeof model_block;
  work.memory = session_block;
  work.memory_bytes = sizeof session_block;
  work.log.line = desc.log.line = put_line;

  for (i = 0; i < 2; i++) {
    work.train = i;
    if (igpt_plan_make(&plan, &desc.config, &work)) return EXIT_FAILURE;
    printf("%s\n  weights %zu in %zu bytes, session %zu bytes (gradients %zu, moments %zu,\n"
           "  activations %zu, keys and values %zu, scratch %zu), %.0f million operations\n",
           i ? "to train on a picture:" : "to sample a picture:", plan.parameters, plan.model_bytes,
           plan.session_bytes, plan.gradient_bytes, plan.moment_bytes, plan.activation_bytes,
           plan.cache_bytes, plan.scratch_bytes, (i ? plan.train_flops : plan.decode_flops) / 1e6);
  }

  printf("a block that is a byte too small is refused, and the sentence names both sizes:\n");
  work.memory_bytes = plan.session_bytes - 1;
  if (train(work, desc, &batch)) return EXIT_FAILURE;
  work.memory_bytes = sizeof session_block;

  printf("in one row, then from the end with two workers:\n");
  plain = train(work, desc, &batch);
  work.runner.run = run_backwards;
  work.runner.user = &calls;
  work.runner.workers = 2;
  backwards = train(work, desc, &batch);
  printf("  the runner was called %ld times; the bits are %s\n", calls,
         plain && plain == backwards ? "the same" : "DIFFERENT");

  printf("a watch that stops the call when it is asked the tenth time:\n");
  left = 10;
  work.watch.poll = poll;
  work.watch.user = &left;
  printf("  %s\n", train(work, desc, &batch) ? "NOT stopped" : "stopped");
  return plain && plain == backwards && left == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
