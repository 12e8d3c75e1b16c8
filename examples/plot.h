/* plot.h: results as pictures and tables, for the programs in this folder.  PNG grids of
   pictures, heat maps and palettes; SVG curves that any browser shows; CSV. Files appear as a
   whole or not at all. Functions return 0, or -1 with one sentence in error[capacity]
   (IMAGE_ERROR is enough). Text in PNGs is ASCII in a small bitmap font; anything else becomes
   '?'.  Descs are zeroed by the caller, may be null, and a zero field means the default that its
   comment names. Needs POSIX: see image.h. */

#ifndef PLOT_H
#define PLOT_H

#include "image.h"

#include <math.h>

/* ---- grids of pictures (PNG) ---------------------------------------------------------------- */

typedef struct plot_grid_desc {
  int   across;                   /* pictures in a row; 0: about as many as there are rows */
  int   scale;                    /* screen pixels a pixel; 0: so that a picture is about 96 high */
  int   gap;                      /* between pictures, screen pixels; 0: 4; negative: none */
  int   lone_first, lone_last;    /* 1: a wider gap after the first, before the last of every row */
  const char *title;              /* above everything; null: none */
  const char *const *headings;    /* (across) above the columns; null: none; entries may be null */
  const char *const *captions;    /* (count) below each picture; null: none; entries may be null */
} plot_grid_desc;

/* pictures: (count, rows, columns, 3), row after row of the grid. */
IMAGE_API int plot_grid(const char *path, const uint8_t *pictures, size_t count, int rows,
                        int columns, const plot_grid_desc *desc, char *error, size_t capacity);

/* ---- heat maps (PNG) ------------------------------------------------------------------------ */

/* Colour of `value` in 0..1 (clamped; NaN is grey): from near black through violet, red and
   orange to pale yellow, evenly spaced in perceived lightness, so that it also reads in grey. */
IMAGE_API void plot_heat_colour(uint8_t rgb[3], double value);

typedef struct plot_heat_desc {
  double low, high;               /* ends of the colour scale; both 0: smallest and largest value */
  const uint8_t *pictures;        /* (count, rows, columns, 3) beside each map; null: none */
  const int32_t *marks;           /* (count) a pixel to frame on picture and map; null, < 0: none */
  int   across;                   /* maps (with their pictures) in a row; 0: chosen */
  int   scale;                    /* as in plot_grid_desc */
  const char *title;
  const char *unit;               /* below the colour bar: "nats" */
  const char *const *captions;    /* (count) below each map */
} plot_heat_desc;

/* values: (count, rows, columns). */
IMAGE_API int plot_heat(const char *path, const float *values, size_t count, int rows, int columns,
                        const plot_heat_desc *desc, char *error, size_t capacity);

/* ---- palettes (PNG) ------------------------------------------------------------------------- */

/* Swatches of all colours (ordered by hue and lightness for the eye, not by index), below them
   pictures before and after. colours: (count, 3). before, after: (pictures, rows, columns, 3),
   both or neither null. title such as "512 colours, PSNR 33.1 dB"; may be null. */
IMAGE_API int plot_palette(const char *path, const uint8_t *colours, int count,
                           const uint8_t *before, const uint8_t *after, size_t pictures, int rows,
                           int columns, const char *title, char *error, size_t capacity);

/* ---- curves (SVG) --------------------------------------------------------------------------- */

typedef enum plot_style {
  PLOT_LINE = 0,
  PLOT_DOTS,                      /* a line with dots */
  PLOT_LEVEL                      /* a dashed level across the plot at y[0]; x is not read */
} plot_style;

typedef struct plot_series {
  const char   *name;             /* for the legend; null: not in it */
  const double *x, *y;            /* (count); an infinite or NaN value makes a gap */
  size_t        count;
  plot_style    style;
} plot_series;

typedef struct plot_curves_desc {
  const char *title, *x_label, *y_label;
  int   whole_x;                  /* 1: ticks at whole numbers only (layers, epochs) */
  int   best;                     /* 1: mark the largest y of the first series, -1: the smallest */
  int   logarithmic_x;            /* 1: needs x > 0; others make a gap */
} plot_curves_desc;

/* A loss curve: {steps, train} and {steps, validation}, best -1. A depth plot: {layers, accuracy}
   with PLOT_DOTS and the raw-pixel baseline as PLOT_LEVEL, whole_x 1, best 1. */
IMAGE_API int plot_curves(const char *path, const plot_series *series, int count,
                          const plot_curves_desc *desc, char *error, size_t capacity);

/* ---- tables --------------------------------------------------------------------------------- */

/* header: the first line ("step,train,validation"); null: none. values: (rows, columns), written
   with nine significant digits; NaN becomes an empty field. */
IMAGE_API int plot_csv(const char *path, const char *header, const double *values, size_t rows,
                       size_t columns, char *error, size_t capacity);

/* ---- the bodies ----------------------------------------------------------------------------- */

/* ---- a canvas and its letters --------------------------------------------------------------- */

typedef struct plot__canvas {
  int      rows, columns;
  uint8_t *rgb;
} plot__canvas;

static const uint8_t plot__ink[3] = {38, 43, 51}, plot__faint[3] = {120, 126, 135};

/* White; -1 with a sentence. */
static int plot__canvas_open(plot__canvas *canvas, const char *path, double rows, double columns,
                             char *error, size_t capacity)
{
  canvas->rgb = NULL;
  if (rows < 1 || columns < 1 || rows * columns > IMAGE_MAX_PIXELS)
    return image_fail(error, capacity, "%s: a picture of %.0f x %.0f pixels, and at most %d can be "
                      "written", path, columns, rows, IMAGE_MAX_PIXELS);
  canvas->rows = (int)rows;
  canvas->columns = (int)columns;
  canvas->rgb = (uint8_t *)malloc((size_t)canvas->rows * (size_t)canvas->columns * 3);
  if (!canvas->rgb)
    return image_fail(error, capacity, "%s: no memory for %.0f x %.0f pixels", path, columns, rows);
  memset(canvas->rgb, 255, (size_t)canvas->rows * (size_t)canvas->columns * 3);
  return 0;
}

static int plot__canvas_save(plot__canvas *canvas, const char *path, char *error, size_t capacity)
{
  int result = image_save_png(path, canvas->rgb, canvas->rows, canvas->columns, error, capacity);
  free(canvas->rgb);
  return result;
}

/* A rectangle, cut at the canvas. */
static void plot__fill(plot__canvas *canvas, int left, int top, int width, int height,
                       const uint8_t rgb[3])
{
  int y, x;
  for (y = top < 0 ? 0 : top; y < top + height && y < canvas->rows; y++)
    for (x = left < 0 ? 0 : left; x < left + width && x < canvas->columns; x++)
      memcpy(canvas->rgb + 3 * ((size_t)y * (size_t)canvas->columns + (size_t)x), rgb, 3);
}

/* The outline of a rectangle, `thick` pixels wide, outward. */
static void plot__frame(plot__canvas *canvas, int left, int top, int width, int height, int thick,
                        const uint8_t rgb[3])
{
  plot__fill(canvas, left - thick, top - thick, width + 2 * thick, thick, rgb);
  plot__fill(canvas, left - thick, top + height, width + 2 * thick, thick, rgb);
  plot__fill(canvas, left - thick, top, thick, height, rgb);
  plot__fill(canvas, left + width, top, thick, height, rgb);
}

static void plot__picture(plot__canvas *canvas, int left, int top, const uint8_t *rgb, int rows,
                          int columns, int scale)
{
  int y, x;
  for (y = 0; y < rows; y++)
    for (x = 0; x < columns; x++, rgb += 3)
      plot__fill(canvas, left + x * scale, top + y * scale, scale, scale, rgb);
}

/* Letters of 5 x 9 dots (capitals 7 high, descenders below), one string each from ' ' to '~': a
   digit in base 32 a row, its high bit on the left. */
static int plot__letter(int letter, int row)
{
  static const char *const letters[95] = {
    "000000000", "444440400", "AA0000000", "AAVAVAA00", "4FKE5U400", "PP248JJ00", "CIK8LID00",
    "440000000", "248884200", "842224800", "04LEL4000", "044V44000", "000004480", "000E00000",
    "000000400", "11248GG00", "EHJLPHE00", "4C4444E00", "EH168GV00", "EH161HE00", "26AIV2200",
    "VGU11HE00", "EGGUHHE00", "V12448800", "EHHEHHE00", "EHHF11E00", "004000400", "004004480",
    "248G84200", "00V0V0000", "842124800", "EH1240400", "EHNLNGE00", "EHHVHHH00", "UHHUHHU00",
    "EHGGGHE00", "UHHHHHU00", "VGGUGGV00", "VGGUGGG00", "EHGNHHE00", "HHHVHHH00", "E44444E00",
    "1111HHE00", "HIKOKIH00", "GGGGGGV00", "HRLLHHH00", "HPLLJHH00", "EHHHHHE00", "UHHUGGG00",
    "EHHHLID00", "UHHUKIH00", "FGGE11U00", "V44444400", "HHHHHHE00", "HHHHAA400", "HHHLLRH00",
    "HHA4AHH00", "HHA444400", "V1248GV00", "E88888E00", "GG8421100", "E22222E00", "4AH000000",
    "0000000V0", "840000000", "00E1FHF00", "GGUHHHU00", "00FGGGF00", "11FHHHF00", "00EHVGF00",
    "68U888800", "00FHHHF1E", "GGUHHHH00", "40C444E00", "20622222C", "GGIKOKI00", "C44444E00",
    "00QLLLL00", "00UHHHH00", "00EHHHE00", "00UHHHUGG", "00FHHHF11", "00MOGGG00", "00FGE1U00",
    "88U888600", "00HHHHF00", "00HHAA400", "00HLLLA00", "00HA4AH00", "00HHHHF1E", "00V248V00",
    "644844600", "444444400", "C44244C00", "008L20000"
  };
  int digit = letters[letter < 32 || letter > 126 ? '?' - 32 : letter - 32][row];
  return digit >= 'A' ? digit - 'A' + 10 : digit - '0';
}

#define PLOT__LINE 9              /* dots a line of text is high */

static int plot__text_width(const char *text, int scale)
{
  int length = (int)strlen(text);
  return length ? (6 * length - 1) * scale : 0;
}

/* `width` > 0 cuts what is wider, with two dots for the rest. Returns the width. */
static int plot__text(plot__canvas *canvas, int left, int top, int width, const char *text,
                      int scale, const uint8_t rgb[3])
{
  int length = (int)strlen(text), fits = width > 0 ? (width + scale) / (6 * scale) : length;
  int i, row, column;
  if (fits > length) fits = length;
  for (i = 0; i < fits; i++) {
    int letter = fits < length && i >= fits - 2 ? '.' : (unsigned char)text[i];
    for (row = 0; row < PLOT__LINE; row++)
      for (column = 0; column < 5; column++)
        if (plot__letter(letter, row) >> (4 - column) & 1)
          plot__fill(canvas, left + (6 * i + column) * scale, top + row * scale, scale, scale, rgb);
  }
  return fits ? (6 * fits - 1) * scale : 0;
}

/* Centred in [left, left + width). */
static void plot__centred(plot__canvas *canvas, int left, int top, int width, const char *text,
                          int scale, const uint8_t rgb[3])
{
  int wide = plot__text_width(text, scale);
  plot__text(canvas, wide < width ? left + (width - wide) / 2 : left, top, width, text, scale, rgb);
}

/* 2 if all texts fit into the width at that size, else 1. */
static int plot__text_scale(const char *const *texts, size_t count, int width)
{
  size_t i;
  for (i = 0; texts && i < count; i++)
    if (texts[i] && plot__text_width(texts[i], 2) > width) return 1;
  return 2;
}

/* Screen pixels a pixel so that a picture is about 96 high. */
static int plot__scale(int scale, int rows)
{
  if (scale > 0) return scale;
  scale = (96 + rows / 2) / rows;
  return scale < 1 ? 1 : scale;
}

/* The smallest n with n * n >= count. */
static int plot__root(size_t count)
{
  int n = 1;
  while ((size_t)n * (size_t)n < count) n++;
  return n;
}

/* ---- grids ---------------------------------------------------------------------------------- */

#define PLOT__MARGIN 12

IMAGE_API int plot_grid(const char *path, const uint8_t *pictures, size_t count, int rows,
                        int columns, const plot_grid_desc *desc, char *error, size_t capacity)
{
  plot_grid_desc d;
  plot__canvas canvas;
  size_t i, picture;
  int gap, scale, across, width, height, lone, head = PLOT__MARGIN, heading, caption, line = 0;
  double down, wide, high;
  memset(&d, 0, sizeof d);
  if (desc) d = *desc;
  if (count < 1 || count > INT_MAX || rows < 1 || columns < 1 || d.across < 0)
    return image_fail(error, capacity, "%s: %zu pictures of %d x %d, %d in a row; none may be "
                      "below 1 (0 in a row: chosen)", path, count, columns, rows, d.across);
  scale = plot__scale(d.scale, rows);
  gap = d.gap ? (d.gap < 0 ? 0 : d.gap) : 4;
  lone = 2 * gap + 6;
  across = d.across ? d.across : plot__root(count);
  if (!d.across && (size_t)across > count) across = (int)count;
  if ((double)columns * scale > 1e6 || (double)rows * scale > 1e6 || gap > 10000)
    return image_fail(error, capacity, "%s: pictures of %d x %d at scale %d, gap %d: too large",
                      path, columns, rows, scale, gap);
  width = columns * scale;
  height = rows * scale;
  heading = plot__text_scale(d.headings, (size_t)across, width + gap);
  caption = plot__text_scale(d.captions, count, width);
  if (d.title) head += PLOT__LINE * 2 + 8;
  if (d.headings) head += PLOT__LINE * heading + 5;
  if (d.captions) line = PLOT__LINE * caption + 6;
  down = ceil((double)count / across);
  wide = 2.0 * PLOT__MARGIN + (double)across * (width + gap) - gap + (d.lone_first ? lone : 0) +
         (d.lone_last ? lone : 0);
  if (d.title && wide < 2 * PLOT__MARGIN + plot__text_width(d.title, 2))
    wide = 2 * PLOT__MARGIN + plot__text_width(d.title, 2);
  high = head + PLOT__MARGIN + down * (height + gap + line) - gap;
  if (plot__canvas_open(&canvas, path, high, wide, error, capacity) != 0) return -1;
  if (d.title) plot__text(&canvas, PLOT__MARGIN, PLOT__MARGIN, 0, d.title, 2, plot__ink);
  picture = (size_t)rows * (size_t)columns * 3;
  for (i = 0; i < count || i < (size_t)across; i++) {
    int column = (int)(i % (size_t)across);
    int left = PLOT__MARGIN + column * (width + gap) + (d.lone_first && column > 0 ? lone : 0) +
               (d.lone_last && column == across - 1 && across > 1 ? lone : 0);
    int top = head + (int)(i / (size_t)across) * (height + gap + line);
    if (i < (size_t)across && d.headings && d.headings[i])
      plot__centred(&canvas, left, head - PLOT__LINE * heading - 3, width + gap / 2, d.headings[i],
                    heading, plot__ink);
    if (i >= count) continue;
    plot__picture(&canvas, left, top, pictures + i * picture, rows, columns, scale);
    if (d.captions && d.captions[i])
      plot__centred(&canvas, left, top + height + 3, width, d.captions[i], caption, plot__faint);
  }
  return plot__canvas_save(&canvas, path, error, capacity);
}

/* ---- colours -------------------------------------------------------------------------------- */

/* Linear light to the stored value and back (IEC 61966-2-1). */
static double plot__encode(double x)
{
  return x <= 0.0031308 ? 12.92 * x : 1.055 * pow(x, 1 / 2.4) - 0.055;
}

static double plot__linear(double x)
{
  return x <= 0.04045 ? x / 12.92 : pow((x + 0.055) / 1.055, 2.4);
}

/* OKLab (Ottosson, 2020), a space where equal steps look equal: lightness, green-red, blue-yellow.
   Returns whether the colour is one that a screen can show. */
static int plot__from_lab(double rgb[3], double lightness, double a, double b)
{
  double l = lightness + 0.3963377774 * a + 0.2158037573 * b;
  double m = lightness - 0.1055613458 * a - 0.0638541728 * b;
  double s = lightness - 0.0894841775 * a - 1.2914855480 * b;
  l = l * l * l;
  m = m * m * m;
  s = s * s * s;
  rgb[0] = 4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s;
  rgb[1] = -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s;
  rgb[2] = -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s;
  return rgb[0] >= 0 && rgb[0] <= 1 && rgb[1] >= 0 && rgb[1] <= 1 && rgb[2] >= 0 && rgb[2] <= 1;
}

static void plot__to_lab(double lab[3], const uint8_t rgb[3])
{
  double r = plot__linear(rgb[0] / 255.0), g = plot__linear(rgb[1] / 255.0);
  double b = plot__linear(rgb[2] / 255.0);
  double l = cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  double m = cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  double s = cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  lab[0] = 0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s;
  lab[1] = 1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s;
  lab[2] = 0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s;
}

/* Lightness grows evenly, the hue turns from violet over red to yellow, and the colourfulness is
   what is wanted or, if a screen cannot show that, the most that it can. */
IMAGE_API void plot_heat_colour(uint8_t rgb[3], double value)
{
  double lightness, hue, low = 0, high, linear[3];
  int i;
  if (!(value == value)) {
    memset(rgb, 128, 3);
    return;
  }
  value = value < 0 ? 0 : value > 1 ? 1 : value;
  lightness = 0.13 + 0.85 * value;
  hue = (285 + 183 * value) * 0.017453292519943295;
  high = 0.06 + 0.17 * sin(3.14159265358979 * (0.1 + 0.8 * value));
  if (!plot__from_lab(linear, lightness, high * cos(hue), high * sin(hue)))
    for (i = 0; i < 20; i++) {
      double middle = (low + high) / 2;
      if (plot__from_lab(linear, lightness, middle * cos(hue), middle * sin(hue))) low = middle;
      else high = middle;
    }
  else low = high;
  plot__from_lab(linear, lightness, low * cos(hue), low * sin(hue));
  for (i = 0; i < 3; i++) {
    double x = linear[i] < 0 ? 0 : linear[i] > 1 ? 1 : linear[i];
    rgb[i] = (uint8_t)(plot__encode(x) * 255 + 0.5);
  }
}

/* ---- round numbers -------------------------------------------------------------------------- */

/* 1, 2 or 5 times a power of ten, so that about `count` steps cover the range. */
static double plot__step(double range, int count)
{
  double rough = range / count, power = pow(10, floor(log10(rough))), part = rough / power;
  return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

static double plot__largest(double low, double high)
{
  return fabs(low) > fabs(high) ? fabs(low) : fabs(high);
}

/* A tick's label: as many decimals as the step needs; thousands as k, millions as M on an axis
   whose numbers are `largest` at most. */
static void plot__label(char text[32], double value, double step, double largest)
{
  const char *unit = "";
  int decimals;
  if (fabs(value) < step * 1e-6) value = 0;
  if (largest >= 1e6 && step >= 1e5) {
    unit = "M";
    value /= 1e6;
    step /= 1e6;
  } else if (largest >= 1e4 && step >= 100) {
    unit = "k";
    value /= 1e3;
    step /= 1e3;
  }
  decimals = step < 1 ? (int)ceil(-log10(step) - 1e-9) : 0;
  if (decimals > 6 || largest >= 1e10) snprintf(text, 32, "%.3g%s", value, unit);
  else snprintf(text, 32, "%.*f%s", decimals, value, value == 0 ? "" : unit);
}

/* ---- heat maps ------------------------------------------------------------------------------ */

/* A bar with the colours from low (below) to high, and its ticks. */
static void plot__bar(plot__canvas *canvas, int left, int top, int height, double low, double high,
                      const char *unit)
{
  double step = plot__step(high - low, height > 150 ? 5 : 3), tick;
  uint8_t rgb[3];
  char text[32];
  int y;
  for (y = 0; y < height; y++) {
    plot_heat_colour(rgb, 1 - (y + 0.5) / height);
    plot__fill(canvas, left, top + y, 16, 1, rgb);
  }
  for (tick = ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) {
    y = top + (int)((high - tick) / (high - low) * (height - 1) + 0.5);
    plot__fill(canvas, left + 16, y, 4, 1, plot__faint);
    plot__label(text, tick, step, plot__largest(low, high));
    plot__text(canvas, left + 24, y - 3, 0, text, 1, plot__ink);
  }
  if (unit) plot__text(canvas, left, top + height + 6, 0, unit, 1, plot__ink);
}

IMAGE_API int plot_heat(const char *path, const float *values, size_t count, int rows, int columns,
                        const plot_heat_desc *desc, char *error, size_t capacity)
{
  plot_heat_desc d;
  plot__canvas canvas;
  static const uint8_t white[3] = {255, 255, 255}, black[3] = {0, 0, 0};
  size_t i, pixels, p;
  int scale, across, width, height, gap = 4, head = PLOT__MARGIN, unit_width, line = 0;
  int caption, bar;
  double wide, down, low, high;
  memset(&d, 0, sizeof d);
  if (desc) d = *desc;
  if (count < 1 || count > INT_MAX || rows < 1 || columns < 1 || d.across < 0)
    return image_fail(error, capacity, "%s: %zu maps of %d x %d, %d in a row; none may be below 1 "
                      "(0 in a row: chosen)", path, count, columns, rows, d.across);
  scale = plot__scale(d.scale, rows);
  if ((double)columns * scale > 1e6 || (double)rows * scale > 1e6)
    return image_fail(error, capacity, "%s: maps of %d x %d at scale %d: too large", path, columns,
                      rows, scale);
  pixels = (size_t)rows * (size_t)columns;
  low = d.low;
  high = d.high;
  if (low == 0 && high == 0) {
    low = INFINITY;
    high = -INFINITY;
    for (p = 0; p < count * pixels; p++) {
      double value = (double)values[p];
      if (value < low && value > -INFINITY) low = value;
      if (value > high && value < INFINITY) high = value;
    }
  }
  if (!(high > low)) {                       /* one value everywhere, or none */
    if (!(fabs(low) < INFINITY)) low = 0;
    high = low + (fabs(low) > 1 ? fabs(low) : 1);
  }
  width = columns * scale;
  height = rows * scale;
  unit_width = d.pictures ? 2 * width + gap : width;
  across = d.across ? d.across : plot__root(d.pictures ? (count + 1) / 2 : count);
  if ((size_t)across > count) across = (int)count;
  caption = plot__text_scale(d.captions, count, unit_width);
  if (d.title) head += PLOT__LINE * 2 + 8;
  if (d.captions) line = PLOT__LINE * caption + 6;
  down = ceil((double)count / across);
  wide = PLOT__MARGIN + (double)across * (unit_width + 3 * gap) + 80;
  if (d.title && wide < 2 * PLOT__MARGIN + plot__text_width(d.title, 2))
    wide = 2 * PLOT__MARGIN + plot__text_width(d.title, 2);
  bar = down * (height + 2 * gap + line) - 2 * gap - line > 240
          ? 240 : (int)(down * (height + 2 * gap + line)) - 2 * gap - line;
  if (d.unit && bar > 40) bar -= 16;
  if (plot__canvas_open(&canvas, path,
                        head + PLOT__MARGIN + down * (height + 2 * gap + line) - 2 * gap, wide,
                        error, capacity) != 0)
    return -1;
  if (d.title) plot__text(&canvas, PLOT__MARGIN, PLOT__MARGIN, 0, d.title, 2, plot__ink);
  for (i = 0; i < count; i++) {
    int left = PLOT__MARGIN + (int)(i % (size_t)across) * (unit_width + 3 * gap);
    int top = head + (int)(i / (size_t)across) * (height + 2 * gap + line);
    int map = d.pictures ? left + width + gap : left;
    if (d.pictures)
      plot__picture(&canvas, left, top, d.pictures + i * pixels * 3, rows, columns, scale);
    for (p = 0; p < pixels; p++) {
      uint8_t rgb[3];
      plot_heat_colour(rgb, ((double)values[i * pixels + p] - low) / (high - low));
      plot__fill(&canvas, map + (int)(p % (size_t)columns) * scale,
                 top + (int)(p / (size_t)columns) * scale, scale, scale, rgb);
    }
    if (d.marks && d.marks[i] >= 0 && (size_t)d.marks[i] < pixels) {
      int x = d.marks[i] % columns * scale, y = d.marks[i] / columns * scale;
      plot__frame(&canvas, map + x, top + y, scale, scale, 2, black);
      plot__frame(&canvas, map + x, top + y, scale, scale, 1, white);
      if (d.pictures) plot__frame(&canvas, left + x, top + y, scale, scale, 2, black);
      if (d.pictures) plot__frame(&canvas, left + x, top + y, scale, scale, 1, white);
    }
    if (d.captions && d.captions[i])
      plot__centred(&canvas, left, top + height + 3, unit_width, d.captions[i], caption,
                    plot__faint);
  }
  plot__bar(&canvas, PLOT__MARGIN + across * (unit_width + 3 * gap), head, bar, low, high, d.unit);
  return plot__canvas_save(&canvas, path, error, capacity);
}

/* ---- palettes ------------------------------------------------------------------------------- */

typedef struct plot__swatch {
  double  key, lightness;
  uint8_t rgb[3];
} plot__swatch;

static int plot__by_key(const void *a, const void *b)
{
  const plot__swatch *x = (const plot__swatch *)a, *y = (const plot__swatch *)b;
  if (x->key != y->key) return x->key < y->key ? -1 : 1;
  return x->lightness < y->lightness ? -1 : x->lightness > y->lightness;
}

/* Greys first, then round the circle of hues, cut into columns; within a column by lightness. */
static void plot__arrange(plot__swatch *swatch, int count, int down)
{
  int i;
  for (i = 0; i < count; i++) {
    double lab[3];
    plot__to_lab(lab, swatch[i].rgb);
    swatch[i].lightness = lab[0];
    swatch[i].key = hypot(lab[1], lab[2]) < 0.025 ? -10 : atan2(lab[2], lab[1]);
  }
  qsort(swatch, (size_t)count, sizeof *swatch, plot__by_key);
  for (i = 0; i < count; i++) swatch[i].key = i / down;
  qsort(swatch, (size_t)count, sizeof *swatch, plot__by_key);
}

IMAGE_API int plot_palette(const char *path, const uint8_t *colours, int count,
                           const uint8_t *before, const uint8_t *after, size_t pictures, int rows,
                           int columns, const char *title, char *error, size_t capacity)
{
  plot__canvas canvas;
  plot__swatch *swatch;
  int across, down, size, i, v, head = PLOT__MARGIN, scale = 0, gap = 4, wide;
  int line = PLOT__LINE + 6;
  double high;
  size_t n;
  if (count < 1 || count > 65536 || !before != !after ||
      (before && (pictures < 1 || pictures > 1000 || rows < 1 || columns < 1)))
    return image_fail(error, capacity, "%s: %d colours and %zu pictures of %d x %d; 1 to 65536 and "
                      "1 to 1000 can be shown", path, count, pictures, columns, rows);
  across = plot__root(2 * (size_t)count);
  if (across > count) across = count;
  down = (count + across - 1) / across;
  size = across * 20 <= 720 ? 720 / across : 720 / across > 4 ? 720 / across : 4;
  if (size > 40) size = 40;
  wide = across * size;
  if (title && wide < plot__text_width(title, 2)) wide = plot__text_width(title, 2);
  if (before) {
    if (wide < 480) wide = 480;
    scale = (wide + gap) / (int)pictures - gap;
    scale = scale / columns < 1 ? 1 : scale / columns;
    if (scale > 8) scale = 8;
    if (wide < (int)pictures * (columns * scale + gap) - gap)
      wide = (int)pictures * (columns * scale + gap) - gap;
  }
  if (title) head += PLOT__LINE * 2 + 8;
  high = head + (double)down * size + PLOT__MARGIN;
  if (before) high += 2.0 * ((double)rows * scale + line + 10);
  swatch = (plot__swatch *)malloc((size_t)count * sizeof *swatch);
  if (!swatch) return image_fail(error, capacity, "%s: no memory for %d colours", path, count);
  if (plot__canvas_open(&canvas, path, high, wide + 2 * PLOT__MARGIN, error, capacity) != 0) {
    free(swatch);
    return -1;
  }
  for (i = 0; i < count; i++) memcpy(swatch[i].rgb, colours + 3 * (size_t)i, 3);
  plot__arrange(swatch, count, down);
  if (title) plot__text(&canvas, PLOT__MARGIN, PLOT__MARGIN, 0, title, 2, plot__ink);
  for (i = 0; i < count; i++)
    plot__fill(&canvas, PLOT__MARGIN + i / down * size, head + i % down * size, size, size,
               swatch[i].rgb);
  free(swatch);
  for (v = 0; before && v < 2; v++) {
    int top = head + down * size + 10 + v * (rows * scale + line + 10);
    plot__text(&canvas, PLOT__MARGIN, top, 0, v ? "with the palette" : "original", 1, plot__faint);
    for (n = 0; n < pictures; n++)
      plot__picture(&canvas, PLOT__MARGIN + (int)n * (columns * scale + gap), top + line,
                    (v ? after : before) + n * (size_t)rows * (size_t)columns * 3, rows, columns,
                    scale);
  }
  return plot__canvas_save(&canvas, path, error, capacity);
}

/* ---- text files ----------------------------------------------------------------------------- */

typedef struct plot__page {
  char  *text;
  size_t used, room;
  int    failed;
} plot__page;

static void plot__print(plot__page *page, const char *format, ...) IMAGE_PRINTF(2, 3);
static void plot__print(plot__page *page, const char *format, ...)
{
  va_list args;
  int n;
  if (page->failed) return;
  if (page->room - page->used < 1024) {
    size_t room = page->room ? page->room * 2 : 16384;
    char *grown = (char *)realloc(page->text, room);
    if (!grown) {
      page->failed = 1;
      return;
    }
    page->text = grown;
    page->room = room;
  }
  va_start(args, format);
  n = vsnprintf(page->text + page->used, 1024, format, args);
  va_end(args);
  page->used += n < 0 ? 0 : n > 1023 ? 1023 : (size_t)n;
}

/* Bytes of the letter that the text starts with, in UTF-8; 0 if it is none that XML has. */
static int plot__letter_bytes(const char *text)
{
  const unsigned char *c = (const unsigned char *)text;
  int count = c[0] < 0x80 ? 1 : c[0] >= 0xf0 ? 4 : c[0] >= 0xe0 ? 3 : 2, i;
  unsigned code = count == 1 ? c[0] : c[0] & (0x7fu >> count);
  if ((c[0] >= 0x80 && c[0] < 0xc2) || c[0] > 0xf4) return 0;
  for (i = 1; i < count; i++) {   /* ends at the text's end at the latest */
    if ((c[i] & 0xc0) != 0x80) return 0;
    code = code << 6 | (c[i] & 0x3fu);
  }
  if (count > 2 && (code < (count == 3 ? 0x800u : 0x10000u) || code > 0x10ffff)) return 0;
  return (code >= 0xd800 && code <= 0xdfff) || code == 0xfffe || code == 0xffff ? 0 : count;
}

/* Text of a document: the letters that XML keeps for itself are written as references, and a byte
   that is no UTF-8, such as the first half of a letter that was cut, as '?'. */
static void plot__escape(plot__page *page, const char *text)
{
  int count;
  for (; *text; text += count ? count : 1) {
    unsigned char c = (unsigned char)*text;
    count = plot__letter_bytes(text);
    if (c == '<') plot__print(page, "&lt;");
    else if (c == '>') plot__print(page, "&gt;");
    else if (c == '&') plot__print(page, "&amp;");
    else if (c == '"') plot__print(page, "&quot;");
    else if (!count) plot__print(page, "?");
    else if (c >= ' ') plot__print(page, "%.*s", count, text);
  }
}

static int plot__page_save(plot__page *page, const char *path, char *error, size_t capacity)
{
  int result = page->failed ? image_fail(error, capacity, "%s: no memory for %zu bytes", path,
                                         page->room * 2)
                            : image_write_file(path, page->text, page->used, error, capacity);
  free(page->text);
  return result;
}

/* ---- curves --------------------------------------------------------------------------------- */

typedef struct plot__axes {
  double x_low, x_high, y_low, y_high;       /* in the values' units; x after the logarithm */
  double left, right, top, bottom;           /* in the picture's */
  int    logarithmic;
} plot__axes;

static double plot__x(const plot__axes *axes, double x)
{
  if (axes->logarithmic) x = log10(x);
  return axes->left + (x - axes->x_low) / (axes->x_high - axes->x_low) * (axes->right - axes->left);
}

static double plot__y(const plot__axes *axes, double y)
{
  return axes->bottom -
         (y - axes->y_low) / (axes->y_high - axes->y_low) * (axes->bottom - axes->top);
}

static int plot__shown(const plot_series *series, size_t i, int logarithmic)
{
  return fabs(series->x[i]) < INFINITY && fabs(series->y[i]) < INFINITY &&
         (!logarithmic || series->x[i] > 0);
}

/* Whether the ends of a range are one, but for rounding: no tick lies between such. */
static int plot__one(double low, double high)
{
  return !(high - low > 1e-9 * plot__largest(low, high));
}

/* Ranges from the values, with a little room. */
static void plot__ranges(plot__axes *axes, const plot_series *series, int count,
                         const plot_curves_desc *d)
{
  double room;
  int s;
  size_t i;
  axes->x_low = axes->y_low = INFINITY;
  axes->x_high = axes->y_high = -INFINITY;
  for (s = 0; s < count; s++)
    for (i = 0; i < series[s].count; i++) {
      int level = series[s].style == PLOT_LEVEL;
      double x, y = series[s].y[i];
      if (level ? i > 0 || !(fabs(y) < INFINITY) : !plot__shown(&series[s], i, d->logarithmic_x))
        continue;
      if (y < axes->y_low) axes->y_low = y;
      if (y > axes->y_high) axes->y_high = y;
      if (level) continue;
      x = d->logarithmic_x ? log10(series[s].x[i]) : series[s].x[i];
      if (x < axes->x_low) axes->x_low = x;
      if (x > axes->x_high) axes->x_high = x;
    }
  if (!(axes->x_low <= axes->x_high)) axes->x_low = 0, axes->x_high = 1;
  if (!(axes->y_low <= axes->y_high)) axes->y_low = 0, axes->y_high = 1;
  if (plot__one(axes->x_low, axes->x_high)) {
    room = fmax(0.5, fabs(axes->x_low) * 1e-6);
    axes->x_low -= room;
    axes->x_high += room;
  }
  if (plot__one(axes->y_low, axes->y_high)) {
    room = axes->y_low != 0 ? fabs(axes->y_low) * 0.1 : 1;
    axes->y_low -= room;
    axes->y_high += room;
  }
  if (d->whole_x) {
    axes->x_low -= (axes->x_high - axes->x_low) * 0.02;
    axes->x_high += (axes->x_high - axes->x_low) * 0.02;
  }
  room = (axes->y_high - axes->y_low) * 0.06;
  axes->y_low -= room;
  axes->y_high += room;
}

/* On a logarithmic axis there are powers of ten, but where it has fewer than two of them or is no
   longer than from one to the next, there are round numbers as on any other. */
static void plot__axis_lines(plot__page *page, const plot__axes *axes, const plot_curves_desc *d)
{
  double step = plot__step(axes->y_high - axes->y_low, (int)((axes->bottom - axes->top) / 52) + 1);
  double low = axes->x_low, high = axes->x_high, tick, x, at, last = -INFINITY, x_step;
  const int powers = axes->logarithmic && high - low > 1 &&
                     floor(high + 1e-9) - ceil(low - 1e-9) >= 1;
  char text[32];
  plot__print(page, "<g stroke=\"#e4e7eb\">\n");
  for (tick = ceil(axes->y_low / step) * step; tick <= axes->y_high; tick += step)
    plot__print(page, "<path d=\"M%.1f %.1fH%.1f\"/>\n", axes->left, plot__y(axes, tick),
                axes->right);
  plot__print(page, "</g>\n<g fill=\"#5b6470\" text-anchor=\"end\">\n");
  for (tick = ceil(axes->y_low / step) * step; tick <= axes->y_high; tick += step) {
    plot__label(text, tick, step, plot__largest(axes->y_low, axes->y_high));
    plot__print(page, "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n", axes->left - 8,
                plot__y(axes, tick) + 4, text);
  }
  plot__print(page, "</g>\n<g fill=\"#5b6470\" text-anchor=\"middle\">\n");
  if (axes->logarithmic && !powers) {
    low = pow(10, low);
    high = pow(10, high);
  }
  x_step = plot__step(high - low, (int)((axes->right - axes->left) / 80) + 1);
  if (d->whole_x && high - low < (axes->right - axes->left) / 26) x_step = 1;
  if ((d->whole_x || powers) && x_step < 1) x_step = 1;
  for (tick = ceil(low / x_step - 1e-9) * x_step; tick <= high + x_step * 1e-9; tick += x_step) {
    x = powers ? pow(10, tick) : tick;
    at = plot__x(axes, x);
    if (axes->logarithmic && at < last + 40) continue;       /* round numbers come closer */
    last = at;
    if (powers) plot__label(text, x, pow(10, floor(tick + 1e-9)), x);
    else plot__label(text, x, x_step, plot__largest(low, high));
    plot__print(page, "<path d=\"M%.1f %.1fv5\" stroke=\"#8b94a0\"/>"
                "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n", at, axes->bottom, at, axes->bottom + 19,
                text);
  }
  plot__print(page, "</g>\n<path d=\"M%.1f %.1fH%.1f\" stroke=\"#8b94a0\"/>\n", axes->left,
              axes->bottom, axes->right);
}

static const char *plot__colour(int series)
{
  static const char *const colours[] = {"#1f6fb2", "#d9542b", "#2a9470", "#8b5cb0", "#b8860b",
                                        "#6b7683", "#c2387a", "#17939b"};
  return colours[series % 8];
}

/* The points of a curve. Of very many, each of about 1000 stretches keeps its lowest and its
   highest: the picture is the same. */
static void plot__curve(plot__page *page, const plot__axes *axes, const plot_series *series)
{
  size_t stretch = series->count > 4000 ? series->count / 1000 : 1, i, j;
  int pen = 0;
  for (i = 0; i < series->count; i += stretch) {
    size_t low = i, high = i, end = i + stretch < series->count ? i + stretch : series->count;
    int any = 0;
    for (j = i; j < end; j++) {
      if (!plot__shown(series, j, axes->logarithmic)) continue;
      if (!any || series->y[j] < series->y[low]) low = j;
      if (!any || series->y[j] > series->y[high]) high = j;
      any = 1;
    }
    if (!any) {
      pen = 0;
      continue;
    }
    for (j = 0; j < 2 && (j == 0 || low != high); j++) {
      size_t at = (j == 0) == (low < high) ? low : high;
      plot__print(page, "%c%.1f %.1f", pen ? 'L' : 'M', plot__x(axes, series->x[at]),
                  plot__y(axes, series->y[at]));
      pen = 1;
    }
  }
}

static void plot__series_draw(plot__page *page, const plot__axes *axes, const plot_series *series,
                              int number)
{
  const char *colour = plot__colour(number);
  size_t i;
  if (series->style == PLOT_LEVEL) {
    if (series->count && fabs(series->y[0]) < INFINITY)
      plot__print(page, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"%s\" stroke-width=\"1.5\" "
                  "stroke-dasharray=\"5 4\"/>\n", axes->left, plot__y(axes, series->y[0]),
                  axes->right, colour);
    return;
  }
  plot__print(page, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"%s\" "
              "stroke-linejoin=\"round\" stroke-linecap=\"round\" d=\"", colour,
              series->count > 1000 ? "1\" stroke-opacity=\"0.6" : "2");     /* a noisy band */
  plot__curve(page, axes, series);
  plot__print(page, "\"/>\n");
  for (i = 0; series->style == PLOT_DOTS && i < series->count; i++)
    if (plot__shown(series, i, axes->logarithmic))
      plot__print(page, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.2\" fill=\"%s\"/>\n",
                  plot__x(axes, series->x[i]), plot__y(axes, series->y[i]), colour);
}

/* A ring round the best value of the first series, with its numbers beside it. */
static void plot__best(plot__page *page, const plot__axes *axes, const plot_series *series,
                       int sign)
{
  size_t i, best = series->count;
  char x[32], y[32];
  double at_x, at_y;
  int above;
  if (series->style == PLOT_LEVEL) return;
  for (i = 0; i < series->count; i++)
    if (plot__shown(series, i, axes->logarithmic) &&
        (best == series->count || (series->y[i] - series->y[best]) * sign > 0))
      best = i;
  if (best == series->count) return;
  at_x = plot__x(axes, series->x[best]);
  at_y = plot__y(axes, series->y[best]);
  above = sign > 0 || at_y + 28 > axes->bottom;
  plot__label(y, series->y[best], pow(10, floor(log10((axes->y_high - axes->y_low) / 100))), 0);
  snprintf(x, sizeof x, "%.6g", series->x[best]);
  plot__print(page, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"6\" fill=\"none\" stroke=\"%s\" "
              "stroke-width=\"1.5\"/>\n", at_x, at_y, plot__colour(0));
  plot__print(page, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"#262b33\" "
              "stroke=\"#fff\" stroke-width=\"4\" paint-order=\"stroke\" "
              "stroke-linejoin=\"round\">%s at %s</text>\n", at_x, at_y + (above ? -12 : 22),
              at_x > axes->right - 50 ? "end" : at_x < axes->left + 50 ? "start" : "middle", y, x);
}

IMAGE_API int plot_curves(const char *path, const plot_series *series, int count,
                          const plot_curves_desc *desc, char *error, size_t capacity)
{
  plot_curves_desc d;
  plot__page page;
  plot__axes axes;
  const int width = 720, height = 420;
  int s;
  double top = 16, x;
  memset(&d, 0, sizeof d);
  memset(&page, 0, sizeof page);
  if (desc) d = *desc;
  if (count < 1)
    return image_fail(error, capacity, "%s: %d curves, and at least 1 can be drawn", path, count);
  plot__print(&page, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
              "viewBox=\"0 0 %d %d\" font-family=\"Helvetica, Arial, sans-serif\" "
              "font-size=\"12\">\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", width,
              height, width, height, width, height);
  axes.left = 72;               /* numbers of five places, and the label beside them */
  axes.right = width - 24;
  if (d.title) {
    plot__print(&page, "<text x=\"%.1f\" y=\"30\" font-size=\"16\" font-weight=\"bold\" "
                "fill=\"#262b33\">", axes.left);
    plot__escape(&page, d.title);
    plot__print(&page, "</text>\n");
    top = 42;
  }
  x = axes.left;
  for (s = 0; s < count; s++) {              /* the legend, in as many lines as it takes */
    double wide = series[s].name ? 34 + 6.6 * (double)strlen(series[s].name) + 14 : 0;
    if (!series[s].name) continue;
    if (x > axes.left && x + wide > axes.right) {
      x = axes.left;
      top += 18;
    }
    plot__print(&page, "<path d=\"M%.1f %.1fh22\" stroke=\"%s\" stroke-width=\"2\"%s/>", x, top + 8,
                plot__colour(s), series[s].style == PLOT_LEVEL ? " stroke-dasharray=\"5 4\"" : "");
    if (series[s].style == PLOT_DOTS)
      plot__print(&page, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.2\" fill=\"%s\"/>", x + 11, top + 8,
                  plot__colour(s));
    plot__print(&page, "<text x=\"%.1f\" y=\"%.1f\" fill=\"#262b33\">", x + 28, top + 12);
    plot__escape(&page, series[s].name);
    plot__print(&page, "</text>\n");
    x += wide;
  }
  if (x > axes.left) top += 18;
  axes.top = top + 12;
  axes.bottom = height - (d.x_label ? 52 : 34);
  axes.logarithmic = d.logarithmic_x;
  plot__ranges(&axes, series, count, &d);
  plot__axis_lines(&page, &axes, &d);
  if (d.x_label) {
    plot__print(&page, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" fill=\"#262b33\">",
                (axes.left + axes.right) / 2, height - 12);
    plot__escape(&page, d.x_label);
    plot__print(&page, "</text>\n");
  }
  if (d.y_label) {
    plot__print(&page, "<text transform=\"translate(18 %.1f) rotate(-90)\" text-anchor=\"middle\" "
                "fill=\"#262b33\">", (axes.top + axes.bottom) / 2);
    plot__escape(&page, d.y_label);
    plot__print(&page, "</text>\n");
  }
  plot__print(&page, "<clipPath id=\"plot\"><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
              "height=\"%.1f\"/></clipPath>\n<g clip-path=\"url(#plot)\">\n", axes.left - 4,
              axes.top - 4, axes.right - axes.left + 8, axes.bottom - axes.top + 4);
  for (s = count - 1; s >= 0; s--) plot__series_draw(&page, &axes, &series[s], s);
  plot__print(&page, "</g>\n");
  if (d.best) plot__best(&page, &axes, &series[0], d.best);
  plot__print(&page, "</svg>\n");
  return plot__page_save(&page, path, error, capacity);
}

/* ---- tables --------------------------------------------------------------------------------- */

IMAGE_API int plot_csv(const char *path, const char *header, const double *values, size_t rows,
                       size_t columns, char *error, size_t capacity)
{
  plot__page page;
  size_t r, c;
  memset(&page, 0, sizeof page);
  plot__print(&page, "%s%s", header ? header : "", header ? "\n" : "");
  for (r = 0; r < rows; r++)
    for (c = 0; c < columns; c++) {
      double value = values[r * columns + c];
      if (value == value) plot__print(&page, "%.9g", value);
      plot__print(&page, "%c", c + 1 < columns ? ',' : '\n');
    }
  return plot__page_save(&page, path, error, capacity);
}

#endif
