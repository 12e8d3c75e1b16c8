/* One of two files: the one with the implementation. Declarations first, and all of it twice, as
   happens when other headers include igpt.h, must do no harm. */

#include "igpt.h"
#include <math.h>
#include "igpt.h"

#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "igpt.h"

int two_units_a(void);
int two_units_a(void) { return igpt_error_string(IGPT_OK) != NULL; }
