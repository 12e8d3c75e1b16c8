/* The same in C++: c99.c is a C++ program, too, and so is all of the library. */

#include "c99.c"

/* Declarations have C linkage, whoever includes them: this type cannot be had otherwise. */
extern "C" typedef igpt_result creator(igpt_model **, const igpt_model_desc *);
creator *use_c_linkage();
creator *use_c_linkage() { return &igpt_model_create; }
