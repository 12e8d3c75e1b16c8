/* tests/cortex-m/host.c: complete.c on the machine at hand: host MODEL. It runs on a thread whose
   stack is an array of this program, to see how much of it is used.                              */

#define _POSIX_C_SOURCE 200809L
#include "complete.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STACK = 1 << 18 };
static unsigned char *stack;

static union { double align; unsigned char bytes[1 << 20]; } file;
static size_t size;
static char output[1 << 12];

/* Printed by main: stdio would need a stack of its own. */
void machine_put(const char *text)
{
  const size_t used = strlen(output), length = strlen(text);
  if (length < sizeof output - used) memcpy(output + used, text, length + 1);
}

/* Above this thread's first frame lie the C library's own things. */
static void *run(void *failed)
{
  unsigned char here;
  const unsigned char *volatile top = &here;
  *(int *)failed = complete(file.bytes, size);
  put_stack(stack, top);
  return NULL;
}

int main(int argc, char **argv)
{
  FILE *in = argc == 2 ? fopen(argv[1], "rb") : NULL;
  pthread_attr_t attributes;
  pthread_t thread;
  int failed = 1;
  if (!in) return EXIT_FAILURE;
  size = fread(file.bytes, 1, sizeof file.bytes, in);
  fclose(in);
  if (posix_memalign((void **)&stack, 1 << 16, STACK)) return EXIT_FAILURE;
  memset(stack, STACK_UNUSED, STACK);
  if (pthread_attr_init(&attributes) || pthread_attr_setstack(&attributes, stack, STACK) ||
      pthread_create(&thread, &attributes, run, &failed) || pthread_join(thread, NULL))
    return EXIT_FAILURE;
  fputs(output, stdout);
  return failed;
}
