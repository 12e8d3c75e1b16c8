/* picture.h: pictures that a small network can learn, and how they are printed. make.c trains on
   them, complete.c is given the upper half of one. Whole numbers alone make them: they are the same
   everywhere. Include after igpt.h.                                                              */

#ifndef PICTURE_H
#define PICTURE_H

enum {
  SIDE = 16, T = SIDE * SIDE,
  COLOURS = 16,
  GIVEN = T / 2,                  /* tokens of the upper half */
  HIDDEN = 1 << 20,               /* number of the picture to complete: never trained on */
  SEED = 7                        /* of the completion */
};

/* Picture `number`: a disc or a diamond of one colour, with a rim of the next, before stripes of
   two others. */
static void picture(uint16_t tokens[T], uint64_t number)
{
  igpt_rng rng = igpt_rng_seed(2020, number);
  const int x0 = 5 + (int)igpt_rng_below(&rng, 6), y0 = 5 + (int)igpt_rng_below(&rng, 6);
  const int size = 4 + (int)igpt_rng_below(&rng, 3), disc = (int)igpt_rng_below(&rng, 2);
  const int colour = (int)igpt_rng_below(&rng, COLOURS / 2 - 1);
  const int back = COLOURS / 2 + (int)igpt_rng_below(&rng, COLOURS / 2 - 1);
  const int down = (int)igpt_rng_below(&rng, 2);
  int x, y;
  for (y = 0; y < SIDE; y++)
    for (x = 0; x < SIDE; x++) {
      const int dx = x < x0 ? x0 - x : x - x0, dy = y < y0 ? y0 - y : y - y0;
      const int far = disc ? dx * dx + dy * dy : (dx + dy) * (dx + dy);
      int token = back + (down ? x : y) / 2 % 2;
      if (far <= size * size) token = colour + 1;
      if (far <= (size - 1) * (size - 1)) token = colour;
      tokens[y * SIDE + x] = (uint16_t)token;
    }
}

/* A picture as SIDE lines of SIDE hexadecimal digits, and a sum of its pixels: what all machines
   must agree about. */
static void print_picture(void (*put)(const char *text), const igpt_palette *palette,
                          const uint16_t tokens[T])
{
  static const char digit[] = "0123456789abcdef";
  static uint8_t rgb[3 * T];
  uint32_t sum = 2166136261u;     /* FNV-1a of the bytes */
  char line[SIDE + 2];
  int x, y, i;
  for (y = 0; y < SIDE; y++) {
    for (x = 0; x < SIDE; x++) line[x] = digit[tokens[y * SIDE + x] % COLOURS];
    line[SIDE] = '\n';
    line[SIDE + 1] = 0;
    put(line);
  }
  if (igpt_palette_decode(palette, rgb, tokens, T)) put("the palette does not decode them\n");
  for (i = 0; i < 3 * T; i++) sum = (sum ^ rgb[i]) * 16777619u;
  for (i = 0; i < 8; i++) line[i] = digit[sum >> (28 - 4 * i) & 15];
  line[8] = '\n';
  line[9] = 0;
  put("rgb ");
  put(line);
}

#endif
