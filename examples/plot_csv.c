/* plot_csv.c: draws a table as curves, for the scripts in examples/paper.

     cc -O2 -I. -o build/plot_csv examples/plot_csv.c -lm

     plot_csv [--log] TABLE.csv CURVES.svg TITLE "X LABEL" "Y LABEL"

   The first column is x, every other one a curve, called as its header says. An empty field is a
   gap; a column with a value in its first row alone is a level across the plot.                  */

#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include "plot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 12, ROWS = 5000 };

static double value[COLUMNS][ROWS];

/* The next field of a line, which ends there; *line moves past it. Null after the last one. */
static char *field(char **line)
{
  char *start = *line;
  if (!start) return NULL;
  start[strcspn(start, "\r\n")] = 0;
  *line = strchr(start, ',');
  if (*line) *(*line)++ = 0;
  return start;
}

int main(int argc, char **argv)
{
  const int logarithmic = argc > 1 && strcmp(argv[1], "--log") == 0;
  char line[4000], header[4000], error[IMAGE_ERROR], *at, *cell;
  plot_series series[COLUMNS];
  plot_curves_desc desc;
  int columns = 0, rows = 0, i, j;
  FILE *file;
  argv += logarithmic;
  if (argc - logarithmic != 6) {
    fprintf(stderr, "usage: plot_csv [--log] TABLE.csv CURVES.svg TITLE X-LABEL Y-LABEL\n");
    return 2;
  }
  file = fopen(argv[1], "r");
  if (!file || !fgets(header, sizeof header, file)) {
    const char *why = file && feof(file) ? "it is empty" : strerror(errno);
    fprintf(stderr, "plot_csv: %s cannot be read: %s\n", argv[1], why);
    return 1;
  }
  memset(series, 0, sizeof series);
  for (at = header; (cell = field(&at)) != NULL; columns++) {
    if (columns == COLUMNS) {
      fprintf(stderr, "plot_csv: %s has more than %d columns\n", argv[1], (int)COLUMNS);
      return 1;
    }
    series[columns].name = cell;
  }
  while (fgets(line, sizeof line, file)) {
    if (rows == ROWS) {
      fprintf(stderr, "plot_csv: %s has more than %d rows\n", argv[1], (int)ROWS);
      return 1;
    }
    for (j = 0, at = line; j < columns; j++) {
      char *end = NULL;
      cell = field(&at);
      value[j][rows] = cell ? strtod(cell, &end) : NAN;
      if (!cell || !*cell) value[j][rows] = NAN;
      else if (end == cell || *end) {
        fprintf(stderr, "plot_csv: %s, row %d: '%s' is no number\n", argv[1], rows + 1, cell);
        return 1;
      }
    }
    rows++;
  }
  if (ferror(file)) {
    fprintf(stderr, "plot_csv: %s cannot be read: %s\n", argv[1], strerror(errno));
    return 1;
  }
  fclose(file);
  for (j = 1; j < columns; j++) {
    int filled = 0;
    for (i = 0; i < rows; i++) filled += value[j][i] == value[j][i];
    series[j].x = value[0];
    series[j].y = value[j];
    series[j].count = (size_t)rows;
    series[j].style = PLOT_DOTS;
    if (filled == 1 && rows > 1 && value[j][0] == value[j][0]) series[j].style = PLOT_LEVEL;
  }
  memset(&desc, 0, sizeof desc);
  desc.title = argv[3];
  desc.x_label = argv[4];
  desc.y_label = argv[5];
  desc.logarithmic_x = logarithmic;
  if (columns < 2 || plot_curves(argv[2], series + 1, columns - 1, &desc, error, sizeof error)) {
    fprintf(stderr, "plot_csv: %s\n", columns < 2 ? "a table has two columns at least" : error);
    return 1;
  }
  return 0;
}
