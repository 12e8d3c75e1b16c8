/* A program in one file. HEADER and the build macros come from matrix.sh. */

#include <stdio.h>
#include <stdlib.h>

#ifdef COUNTED                    /* IGPT_MALLOC(bytes)=counted_malloc(bytes) and so on */
static int living, made;
static void *counted_malloc(size_t bytes)
{
  living++;
  made++;
  return malloc(bytes);
}
static void counted_free(void *block)
{
  living -= block != NULL;
  free(block);
}
#endif

#ifdef ASSERTED                   /* IGPT_ASSERT(c)=asserted((c) != 0) */
static void asserted(int holds)
{
  if (!holds) abort();
}
#endif

#ifndef HEADER
#define HEADER "igpt.h"
#endif
#define IGPT_IMPLEMENTATION
#include HEADER
#include "calls.h"

int main(void)
{
  const int line = calls();
  if (line) printf("calls.h:%d does not hold\n", line);
#ifdef COUNTED
  if (!made || living) {
    printf("%d blocks from IGPT_MALLOC, %d not given to IGPT_FREE\n", made, living);
    return 1;
  }
#endif
#ifdef ASSERTED
  asserted(1);
#endif
  return line != 0;
}
