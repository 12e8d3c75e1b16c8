/* test.h: the few words that every test program here uses.

   A program is a list of TEST(name) { ... } and a main that RUNs them and returns test_done(). A failed
   CHECK prints where and what, marks the test as failed and goes on. The last line of every program
   is "N passed, N failed[, N skipped]".                                                           */

#ifndef TEST_H
#define TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int test_passed, test_failed, test_skipped;   /* tests */
static int test_errors;                              /* failed checks of the running test */
static const char *test_skip_reason;

#define TEST(name) static void name(void)

#define CHECK(condition)                                                                          \
  ((condition) ? (void)0                                                                          \
               : (void)(test_errors++, printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition)))

#define CHECK_INT(value, expected) test_int(__FILE__, __LINE__, #value, (long long)(value), \
                                            (long long)(expected))
#define CHECK_NEAR(value, expected, tolerance) \
  test_near(__FILE__, __LINE__, #value, (double)(value), (double)(expected), (double)(tolerance))

/* How much of something a test does: `full`, or `less` where a processor is emulated, some fifty
   times slower than this one. A program that may have done less says so in front of its last line. */
#ifdef TEST_EMULATED
#define TEST_AMOUNT(full, less) (less)
#else
#define TEST_AMOUNT(full, less) (full)
#endif

/* Ends the running test without a verdict; the reason is printed. */
#define SKIP(reason) do { test_skip_reason = (reason); return; } while (0)

#define RUN(name) test_run(#name, name)

static void test_int(const char *file, int line, const char *what, long long value, long long expected)
{
  if (value == expected) return;
  test_errors++;
  printf("%s:%d: %s is %lld, expected %lld\n", file, line, what, value, expected);
}

static void test_near(const char *file, int line, const char *what, double value, double expected,
                      double tolerance)
{
  if (fabs(value - expected) <= tolerance) return;       /* a NaN fails */
  test_errors++;
  printf("%s:%d: %s is %.9g, expected %.9g within %.3g\n", file, line, what, value, expected,
         tolerance);
}

static void test_run(const char *name, void (*test)(void))
{
  test_errors = 0;
  test_skip_reason = NULL;
  test();
  if (test_errors) {
    test_failed++;
    printf("FAILED  %s\n", name);
  } else if (test_skip_reason) {
    test_skipped++;
    printf("skipped %s: %s\n", name, test_skip_reason);
  } else {
    test_passed++;
    printf("ok      %s\n", name);
  }
  fflush(stdout);
}

static int test_done(void)
{
#ifdef TEST_EMULATED
  printf("emulated: the largest cases were made smaller\n");
#endif
  printf("%d passed, %d failed", test_passed, test_failed);
  if (test_skipped) printf(", %d skipped", test_skipped);
  printf("\n");
  (void)test_int;
  (void)test_near;
  return test_failed != 0;
}

#endif
