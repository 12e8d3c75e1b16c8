/* cc -O2 -I. -o fetch_cifar10 examples/fetch_cifar10.c -lm -pthread

   Prints a folder that holds CIFAR-10, binary version: the one given, if the six files are in it;
   else unpacked there from cifar-10-binary.tar.gz, which is downloaded from its authors' site if it
   is not there either, and used only if its MD5 is right:  ./fetch_cifar10 data                 */

#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include <stdio.h>
#include <stdlib.h>

#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "dataset.h"

static void note(void *user, const char *sentence)
{
  (void)user;
  fprintf(stderr, "%s\n", sentence);
}

int main(int argc, char **argv)
{
  char path[4096], error[IMAGE_ERROR];
  dataset_fetch_desc desc = {0};
  desc.folder = argc > 1 ? argv[1] : "data";
  desc.note = note;
  if (dataset_fetch_cifar10(path, sizeof path, &desc, error, sizeof error)) {
    fprintf(stderr, "fetch_cifar10: %s\n", error);
    return EXIT_FAILURE;
  }
  printf("%s\n", path);
  return EXIT_SUCCESS;
}
