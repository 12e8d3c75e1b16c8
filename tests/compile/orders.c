/* The header in a host that is not tidy: macros with the names that windows.h, complex.h and
   careless headers take, declarations first and again after the implementation, and in C++ (this is
   a C++ program, too) inside the host's own extern "C". With BORROWED the host also has some of the
   one-letter and short names that the implementation uses, and then it sees declarations alone. */

#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define I (42)
#define IN
#define OUT
#define near
#define far
#define small char
#define interface struct
#define CONST const
#define ERROR 0
#define TRUE 1
#define FALSE 0
#ifdef BORROWED
#define B (1)
#define C (2)
#define D (3)
#define E (4)
#define H (5)
#define K (6)
#define L (7)
#define N (8)
#define T (9)
#define V (10)
#define W (11)
#define ADD (12)
#define LOAD (13)
#define MAX(a, b) max(a, b)
#define ZERO (0)
#endif

#ifdef __cplusplus
extern "C" {
#endif
#include "igpt.h"
#ifdef __cplusplus
}
#endif

#ifndef BORROWED
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#undef IGPT_IMPLEMENTATION
#ifdef __cplusplus
extern "C" {
#endif
#include "igpt.h"
#ifdef __cplusplus
}
#endif
#endif

/* What the host had it still has (libstdc++'s <cmath> takes min and max from everyone). */
#if I != 42 || ERROR || FALSE
#error "igpt.h took a macro of its host"
#endif
#ifndef __cplusplus
#if max(min(3, 4), TRUE) != 3
#error "igpt.h took a macro of its host"
#endif
#endif
#ifdef BORROWED
#if B != 1 || C != 2 || D != 3 || E != 4 || H != 5 || K != 6 || L != 7 || N != 8 || T != 9 || \
    V != 10 || W != 11 || ADD != 12 || LOAD != 13 || ZERO
#error "igpt.h took a macro of its host"
#endif
#endif

/* calls.h and what it includes have not deserved this. */
#undef I
#undef small
#undef interface
#undef B
#undef C
#undef D
#undef E
#undef H
#undef K
#undef L
#undef N
#undef T
#undef V
#undef W
#include "calls.h"

int main(void)
{
  const int line = calls();
  if (line) printf("calls.h:%d does not hold\n", line);
  return line != 0;
}
