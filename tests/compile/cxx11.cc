/* The same in C++: c99.c is a C++ program, too, and so is all of the library. */

#include "c99.c"

/* Declarations have C linkage, whoever includes them. */
static igpt_result (*const c_linkage)(igpt_model **, const igpt_model_desc *) = igpt_model_create;
int use_c_linkage();
int use_c_linkage() { return c_linkage != nullptr; }
