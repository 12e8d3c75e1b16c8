/* cc -O2 -I. -o 01_hello examples/01_hello.c -lm

   The three calls: a model (weights), a session (everything that changes while it works), a
   sample. Options are structs in which zero is the default. Without an argument the model is new:
   it gives every colour the same chance, paints noise, and is charged ln 512 = 6.238 nats for
   every pixel, which is where all learning starts. With one, a file that build/igpt has trained,
   it paints what it has learned: ./01_hello model.safetensors                                    */

#include <stdio.h>
#include <stdlib.h>

#define IGPT_IMPLEMENTATION
#include "igpt.h"

/* The library never prints. It hands its sentences to whoever asked for them. */
static void print_line(void *user, igpt_result result, const char *sentence)
{
  (void)result;
  fprintf(stderr, "%s: %s\n", (const char *)user, sentence);
}

/* A character as bright as the pixel; by its number if the model has no palette. */
static char shade(const igpt_palette *palette, int token, int vocabulary)
{
  static const char ramp[] = " .:-=+*#%@";
  double light = (double)token / vocabulary;
  if (palette) {
    const float *c = palette->centre[token];
    light = (0.30 * (double)c[0] + 0.59 * (double)c[1] + 0.11 * (double)c[2] + 1) / 2;
  }
  return ramp[light < 0 ? 0 : light < 1 ? (int)(light * 10) : 9];
}

int main(int argc, char **argv)
{
  igpt_model_desc desc = {0};                 /* 8 layers of width 128, 32 x 32, 512 colours */
  igpt_session_desc work = {0};
  igpt_sample_desc how = {0};
  igpt_batch batch = {0};
  igpt_model *model = NULL;
  igpt_session *session = NULL;
  const igpt_config *config;
  uint16_t *picture = NULL;
  double nats = 0;
  igpt_result result;

  desc.log.line = work.log.line = print_line;
  desc.log.user = work.log.user = argv[0];
  result = argc > 1 ? igpt_model_load(&model, argv[1], &desc) : igpt_model_create(&model, &desc);
  if (result) return EXIT_FAILURE;            /* the log has said why */
  config = igpt_model_config(model);
  picture = (uint16_t *)malloc((size_t)config->rows * (size_t)config->columns * sizeof *picture);
  batch.tokens = picture;
  batch.count = 1;

  result = picture ? igpt_session_create(&session, model, &work) : IGPT_OUT_OF_MEMORY;
  if (!result) result = igpt_sample(session, picture, 1, &how);
  if (!result) result = igpt_nll(session, NULL, &nats, &batch);
  if (!result) {
    int row, column;
    for (row = 0; row < config->rows; row++) {
      for (column = 0; column < config->columns; column++) {
        char c = shade(igpt_model_palette(model), picture[row * config->columns + column],
                       config->vocabulary);
        printf("%c%c", c, c);                 /* twice: a character is twice as high as wide */
      }
      printf("\n");
    }
    printf("%d layers of width %d, %.1f million weights: %.3f nats a pixel\n", config->layers,
           config->width, (double)igpt_model_parameters(model) / 1e6, nats);
  }
  igpt_session_destroy(session);              /* in this order: a session points to its model */
  igpt_model_destroy(model);
  free(picture);
  return result ? EXIT_FAILURE : EXIT_SUCCESS;
}
