/* The other of two files: it sees declarations alone. (IGPT_STATIC wants a whole library in each
   file, and for that matrix.sh defines IGPT_IMPLEMENTATION for this one, too.) */

#include "igpt.h"
#include "calls.h"

int two_units_a(void);

int main(void)
{
  const int line = calls();
  if (line) printf("calls.h:%d does not hold\n", line);
  return line != 0 || !two_units_a();
}
