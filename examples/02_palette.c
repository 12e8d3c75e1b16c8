/* cc -O2 -I. -o 02_palette examples/02_palette.c -lm

   Colours. A transformer reads words of a vocabulary, so a picture's 16.7 million possible
   colours become a few hundred: k-means finds the centres, each pixel is replaced by the number
   of the nearest, and three bytes become one token. This program draws an evening sky, fits
   palettes of rising size to it, and shows what each costs, by the library's account and by its
   own. The paper uses 512 colours for all of ImageNet; every doubling gains a few decibels.      */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define IGPT_IMPLEMENTATION
#include "igpt.h"

enum { ROWS = 64, COLUMNS = 96, PIXELS = ROWS * COLUMNS };

static uint8_t byte_of(double x) { return (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : x + 0.5); }

/* Blue above, orange at the horizon, a sun, and the sea that reflects both. */
static void draw_sky(uint8_t *rgb)
{
  int row, column;
  for (row = 0; row < ROWS; row++)
    for (column = 0; column < COLUMNS; column++, rgb += 3) {
      const int sea = row >= 40;
      const double height = sea ? (row - 40) / 24.0 : (40 - row) / 40.0;
      const double x = column - 60, y = (row - 32) * (sea ? 0.4 : 1.0);
      const double glow = exp(-(x * x + y * y) / 500), sun = x * x + y * y < 36 ? 60 : 0;
      const double wave = sea ? 14 * sin(row * 2.1 + 3 * sin(column * 0.13 + row)) - 30 : 0;
      rgb[0] = byte_of(235 - 190 * height + 90 * glow + sun + wave);
      rgb[1] = byte_of(140 - 60 * height + 80 * glow + sun + wave);
      rgb[2] = byte_of(90 + 90 * height - 20 * glow + sun / 2 + wave);
    }
}

/* Peak signal to noise ratio in decibels, by its definition. */
static double psnr_of(const uint8_t *a, const uint8_t *b, size_t count)
{
  double sum = 0;
  size_t i;
  for (i = 0; i < count; i++) sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
  return 10 * log10(255.0 * 255.0 * (double)count / sum);
}

static igpt_result show(int colours, const uint8_t *rgb)
{
  static uint16_t tokens[PIXELS];
  static uint8_t back[PIXELS * 3];
  igpt_kmeans_desc desc = {0};
  igpt_kmeans_report report;
  igpt_palette palette;
  double mse, psnr;
  igpt_result result;

  desc.colours = colours;
  desc.name = "evening sky";
  result = igpt_palette_fit(&palette, &report, rgb, PIXELS, &desc);
  if (!result) result = igpt_palette_encode(&palette, tokens, rgb, PIXELS, NULL);
  if (!result) result = igpt_palette_decode(&palette, back, tokens, PIXELS);
  if (!result) result = igpt_palette_error(&palette, &mse, &psnr, rgb, PIXELS);
  if (result) return result;
  printf("%7d %11d %10.2f %12.2f %12.2f %10.1f\n", palette.colours, report.iterations, mse, psnr,
         psnr_of(rgb, back, sizeof back), log((double)palette.colours) / log(2));
  return IGPT_OK;
}

int main(void)
{
  static const int sizes[] = { 2, 8, 32, 128, 512 };
  static uint8_t rgb[PIXELS * 3];
  size_t i;
  draw_sky(rgb);
  printf("an evening sky of %d x %d pixels, 24 bits each\n\n", COLUMNS, ROWS);
  printf("colours  iterations  MSE/channel  PSNR (dB)  by hand (dB)  bits/pixel\n");
  for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    igpt_result result = show(sizes[i], rgb);
    if (result) {
      fprintf(stderr, "02_palette: %d colours: %s\n", sizes[i], igpt_error_string(result));
      return EXIT_FAILURE;
    }
  }
  return EXIT_SUCCESS;
}
