/* complete.h: between complete.c and the machine that runs it, host.c or board.c. */

#ifndef COMPLETE_H
#define COMPLETE_H

#include <stddef.h>

/* Completes a picture by the model whose file lies in `file`, prints it and what memory that took;
   0, or 1 after a sentence. */
int complete(const void *file, size_t bytes);

/* The machine prints, and fills the stack with STACK_UNUSED before it calls complete. */
void machine_put(const char *text);
enum { STACK_UNUSED = 0xa5 };

/* Prints how far the stack was used that began at `top` and has room down to `bottom`. */
void put_stack(const unsigned char *bottom, const unsigned char *top);

#endif
