/* image.h: pictures from and to files, for the programs in this folder.  Reads JPEG, PNG, BMP and
   TGA of any size as RGB bytes, turns them upright as their EXIF orientation says, resizes with a
   filter that averages areas, and writes files as a whole or not at all. The decoders are those
   of the system's stb headers (Debian, Ubuntu: libstb-dev).  Everything is static: include it in
   as many files as you like. It needs POSIX (fsync, stat): with -std=c99, write `#define
   _POSIX_C_SOURCE 200809L` before the first #include of the file; and `#define _FILE_OFFSET_BITS
   64`, or 32-bit systems cannot see files of large disks.  Functions return 0, or -1 with one
   sentence in error[capacity] that names the file, the field and both values. Nothing here prints
   or exits. */

#ifndef IMAGE_H
#define IMAGE_H

#if defined(__STRICT_ANSI__) && !defined(_POSIX_C_SOURCE) && !defined(_XOPEN_SOURCE) && \
    !defined(_GNU_SOURCE) && !defined(_DEFAULT_SOURCE)
#error "image.h needs POSIX: #define _POSIX_C_SOURCE 200809L before the first #include"
#endif

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#if defined(__GNUC__)
#define IMAGE_API static __attribute__((unused))
#define IMAGE_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define IMAGE_API static
#define IMAGE_PRINTF(text, first)
#endif

/* Room that every sentence fits into: char error[IMAGE_ERROR]. Longer ones are cut. */
#define IMAGE_ERROR 600

/* Larger pictures are refused before they are decoded. */
#define IMAGE_MAX_PIXELS (1 << 27)

/* rgb: (rows, columns, 3) bytes of malloc. */
typedef struct image {
  int      rows, columns;
  uint8_t *rgb;
} image;

/* Reads a file, upright. Grey becomes RGB, 16 bits become 8, transparency is laid over white. A
   JPEG that stops before its end-of-image marker is refused, and so is a BMP or TGA that stops
   before its last pixel. On failure *out is zeroed. */
IMAGE_API int image_load(image *out, const char *path, char *error, size_t capacity);

/* The same from memory. `name` is what the sentence calls the file; TGA has no signature and is
   only tried when the name ends in .tga. */
IMAGE_API int image_decode(image *out, const uint8_t *bytes, size_t count, const char *name,
                           char *error, size_t capacity);

IMAGE_API void image_free(image *picture);                   /* zeroes it; null is fine */

/* 1 if the name ends like a picture that image_load reads: .jpg .jpeg .png .bmp .tga, any case. */
IMAGE_API int image_is_name(const char *path);

/* EXIF orientation of a JPEG's bytes, 1..8; 1 where there is none or it makes no sense. */
IMAGE_API int image_orientation(const uint8_t *bytes, size_t count);

/* Turns and mirrors a picture that was stored with this orientation so that it stands upright.
   -1: out of memory. */
IMAGE_API int image_orient(image *picture, int orientation);

/* to: (rows, columns, 3). from: from_rows rows of from_columns pixels, `stride` bytes apart.
   Reducing averages areas; enlarging interpolates linearly; equal sizes copy. -1: out of memory. */
IMAGE_API int image_resize(uint8_t *to, int rows, int columns, const uint8_t *from, int from_rows,
                           int from_columns, size_t stride);

/* The largest window of the shape rows : columns that fits into from_rows x from_columns. */
IMAGE_API void image_window(int *window_rows, int *window_columns, int rows, int columns,
                            int from_rows, int from_columns);

/* That window from the centre, resized to rows x columns: the same as resizing the shorter side and
   then cropping the centre. -1: out of memory. */
IMAGE_API int image_fit(uint8_t *to, int rows, int columns, const uint8_t *from, int from_rows,
                        int from_columns);

/* A whole file of at most `limit` bytes, from malloc; on failure *out is null. */
IMAGE_API int image_read_file(uint8_t **out, size_t *count, const char *path, size_t limit,
                              char *error, size_t capacity);

/* Writes `path` as a whole or not at all: to path.tmp, flushed to disk, renamed, so a path has one
   writer at a time. A failure (no folder, full disk) leaves what was at `path` as it was. */
IMAGE_API int image_write_file(const char *path, const void *bytes, size_t count, char *error,
                               size_t capacity);

/* rgb: (rows, columns, 3), as a PNG through image_write_file. */
IMAGE_API int image_save_png(const char *path, const uint8_t *rgb, int rows, int columns,
                             char *error, size_t capacity);

/* Puts a sentence into error[capacity]; image_fail is -1 besides. */
IMAGE_API void image_say(char *error, size_t capacity, const char *format, ...)
  IMAGE_PRINTF(3, 4);
#define image_fail(...) (image_say(__VA_ARGS__), -1)

/* ---- the system's stb headers --------------------------------------------------------------- */

/* Debian keeps them in /usr/include/stb, which is on the compiler's path as stb/; others have them
   flat, or in a folder given with -I. */
#if defined(__has_include)
#if __has_include(<stb/stb_image.h>)
#define IMAGE__STB_FOLDER 1
#elif !__has_include("stb_image.h")
#error "image.h needs the stb headers: apt-get install libstb-dev (or -I the folder that has them)"
#endif
#if __has_include(<stb/stb_image_resize2.h>) || __has_include("stb_image_resize2.h")
#define IMAGE__RESIZE2 1
#endif
#else
#define IMAGE__STB_FOLDER 1
#endif

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBIDEF IMAGE_API
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_ONLY_TGA
#define STBI_ONLY_GIF             /* unused; gcc warns of a declaration without its function */
#define STBI_NO_STDIO
/* Version 2.27 declares the one name and defines the other. */
#define stbi__unpremultiply_on_load_thread stbi_set_unpremultiply_on_load_thread
#define STBI_ASSERT(condition) ((void)0)
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBIWDEF IMAGE_API
#define STBIW_ASSERT(condition) ((void)0)
#define STB_IMAGE_RESIZE_IMPLEMENTATION
#define STB_IMAGE_RESIZE_STATIC
#define STBIRDEF IMAGE_API
#define STBIR_ASSERT(condition) ((void)0)

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wunknown-warning-option"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wunused-value"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wundef"
#pragma GCC diagnostic ignored "-Wcast-qual"
#pragma GCC diagnostic ignored "-Wcast-align"
#pragma GCC diagnostic ignored "-Wdouble-promotion"
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wimplicit-fallthrough"
#pragma GCC diagnostic ignored "-Woverflow"
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#endif
#ifdef IMAGE__STB_FOLDER
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>
#else
#include "stb_image.h"
#include "stb_image_write.h"
#endif
#if defined(IMAGE__RESIZE2) && defined(IMAGE__STB_FOLDER)
#include <stb/stb_image_resize2.h>
#elif defined(IMAGE__RESIZE2)
#include "stb_image_resize2.h"
#elif defined(IMAGE__STB_FOLDER)
#include <stb/stb_image_resize.h>
#else
#include "stb_image_resize.h"
#endif
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

/* ---- sentences ------------------------------------------------------------------------------ */

IMAGE_API void image_say(char *error, size_t capacity, const char *format, ...)
{
  va_list args;
  if (!error || !capacity) return;
  va_start(args, format);
  vsnprintf(error, capacity, format, args);
  va_end(args);
}

/* ---- files ---------------------------------------------------------------------------------- */

IMAGE_API int image_read_file(uint8_t **out, size_t *count, const char *path, size_t limit,
                              char *error, size_t capacity)
{
  struct stat status;
  FILE *file;
  size_t size;
  *out = NULL;
  *count = 0;
  if (stat(path, &status) != 0)
    return image_fail(error, capacity, "%s: %s", path, strerror(errno));
  if (!S_ISREG(status.st_mode))              /* asked first: opening a pipe waits for a writer */
    return image_fail(error, capacity, "%s: not a file", path);
  if ((uintmax_t)status.st_size > limit)
    return image_fail(error, capacity, "%s: the file has %jd bytes, and at most %zu are read", path,
                      (intmax_t)status.st_size, limit);
  file = fopen(path, "rb");
  if (!file) return image_fail(error, capacity, "%s: %s", path, strerror(errno));
  size = (size_t)status.st_size;
  *out = (uint8_t *)malloc(size ? size : 1);
  if (*out) *count = fread(*out, 1, size, file);
  fclose(file);
  if (!*out) return image_fail(error, capacity, "%s: no memory for %zu bytes", path, size);
  if (*count != size) {
    int result = image_fail(error, capacity, "%s: read %zu bytes of %zu", path, *count, size);
    free(*out);
    *out = NULL;
    *count = 0;
    return result;
  }
  return 0;
}

/* Flushes the folder's entry of `path`, so that the rename outlives a power cut. Not all file
   systems can; the file itself is whole either way. */
static void image__flush_folder(const char *path)
{
  const char *slash = strrchr(path, '/');
  size_t length = slash ? (size_t)(slash - path) : 0;
  char *folder = (char *)malloc(length + 2);
  int handle;
  if (!folder) return;
  memcpy(folder, slash && length ? path : slash ? "/" : ".", length ? length : 1);
  folder[length ? length : 1] = 0;
  handle = open(folder, O_RDONLY);
  if (handle >= 0) {
    fsync(handle);
    close(handle);
  }
  free(folder);
}

IMAGE_API int image_write_file(const char *path, const void *bytes, size_t count, char *error,
                               size_t capacity)
{
  size_t room = strlen(path) + sizeof ".tmp", written;
  char *name = (char *)malloc(room);
  FILE *file;
  int result = 0, number;
  if (!name) return image_fail(error, capacity, "%s: no memory for %zu bytes", path, room);
  snprintf(name, room, "%s.tmp", path);
  unlink(name);                   /* what is there is not written through, if it is a link */
  file = fopen(name, "wb");
  if (!file) {
    result = image_fail(error, capacity, "%s: cannot be written: %s", path, strerror(errno));
    free(name);
    return result;
  }
  errno = 0;
  written = fwrite(bytes, 1, count, file);
  if (written != count || fflush(file) != 0 || fsync(fileno(file)) != 0) result = -1;
  number = errno;
  if (fclose(file) != 0 && !result) {
    number = errno;
    result = -1;
  }
  if (result) {
    image_say(error, capacity, "%s: writing %zu bytes failed: %s", path, count,
              number ? strerror(number) : "too few were written");
  } else if (rename(name, path) != 0) {
    result = image_fail(error, capacity, "%s: cannot be replaced: %s", path, strerror(errno));
  } else {
    image__flush_folder(path);
  }
  if (result) remove(name);
  free(name);
  return result;
}

IMAGE_API int image_save_png(const char *path, const uint8_t *rgb, int rows, int columns,
                             char *error, size_t capacity)
{
  int bytes = 0, result;
  unsigned char *png;
  if (rows < 1 || columns < 1 || rows > IMAGE_MAX_PIXELS / columns)
    return image_fail(error, capacity, "%s: a picture of %d x %d pixels, and 1 to %d can be "
                      "written", path, columns, rows, IMAGE_MAX_PIXELS);
  png = stbi_write_png_to_mem(rgb, columns * 3, columns, rows, 3, &bytes);
  if (!png)
    return image_fail(error, capacity, "%s: no memory for a picture of %d x %d", path, columns,
                      rows);
  result = image_write_file(path, png, (size_t)bytes, error, capacity);
  STBIW_FREE(png);
  return result;
}

/* ---- what stb_image does not look at in a JPEG ---------------------------------------------- */

/* A JPEG is a chain of segments, FF marker length(2) payload, up to the first scan (marker DA). The
   walk gives the place of the payload of the next segment, 0 when there is none. */
static size_t image__segment(const uint8_t *bytes, size_t count, size_t *at, int *marker,
                             size_t *length)
{
  size_t p = *at;
  while (p + 1 < count && bytes[p] == 0xff && bytes[p + 1] == 0xff) p++;     /* fill bytes */
  if (count - p < 4 || p >= count || bytes[p] != 0xff) return 0;
  *marker = bytes[p + 1];
  *length = (size_t)bytes[p + 2] << 8 | bytes[p + 3];
  if (*length < 2 || *length > count - p - 2) return 0;
  *length -= 2;
  *at = p + 4 + *length;
  return p + 4;
}

static uint32_t image__number(const uint8_t *bytes, int size, int big_endian)
{
  uint32_t value = 0;
  int i;
  for (i = 0; i < size; i++) value = value << 8 | bytes[big_endian ? i : size - 1 - i];
  return value;
}

/* A TIFF header, then a directory of 12-byte entries: tag(2) type(2) count(4) value(4). */
static int image__tiff_orientation(const uint8_t *tiff, size_t count)
{
  int big_endian;
  size_t directory, entries, i;
  if (count < 8) return 1;
  if (memcmp(tiff, "MM\0*", 4) == 0) big_endian = 1;
  else if (memcmp(tiff, "II*\0", 4) == 0) big_endian = 0;
  else return 1;
  directory = image__number(tiff + 4, 4, big_endian);
  if (directory > count - 2) return 1;
  entries = image__number(tiff + directory, 2, big_endian);
  for (i = 0; i < entries; i++) {
    size_t at = directory + 2 + 12 * i;
    if (at > count || count - at < 12) return 1;
    if (image__number(tiff + at, 2, big_endian) == 0x112 &&
        image__number(tiff + at + 2, 2, big_endian) == 3) {
      uint32_t value = image__number(tiff + at + 8, 2, big_endian);
      return value >= 1 && value <= 8 ? (int)value : 1;
    }
  }
  return 1;
}

IMAGE_API int image_orientation(const uint8_t *bytes, size_t count)
{
  size_t at = 2, payload, length = 0;
  int marker = 0;
  if (count < 4 || bytes[0] != 0xff || bytes[1] != 0xd8) return 1;
  while ((payload = image__segment(bytes, count, &at, &marker, &length)) != 0 && marker != 0xda)
    if (marker == 0xe1 && length >= 6 && memcmp(bytes + payload, "Exif\0\0", 6) == 0)
      return image__tiff_orientation(bytes + payload + 6, length - 6);
  return 1;
}

/* Huffman tables: a kind, 16 counts of codes by length, then one byte a code, at most 256 of them.
   stb_image 2.27 believes the counts and writes behind its table. */
static int image__huffman_fits(const uint8_t *bytes, size_t count)
{
  while (count) {
    size_t codes = 0, i;
    if (count < 17) return 0;
    for (i = 1; i <= 16; i++) codes += bytes[i];
    if (codes > 256 || codes > count - 17) return 0;
    bytes += 17 + codes;
    count -= 17 + codes;
  }
  return 1;
}

/* Walks over all segments and scans: 1 if the file is sound as far as that goes, 0 if a segment
   makes no sense, -1 if there is no end-of-image marker. For a file that breaks off, stb_image
   paints the rest grey and is content; half a picture should not become training data. */
static int image__jpeg_check(const uint8_t *bytes, size_t count)
{
  size_t at = 2, payload, length = 0;
  int marker = 0;
  for (;;) {
    size_t next = at;
    while (next < count && bytes[next] == 0xff) next++;
    if (next >= count) return -1;
    if (next > at && bytes[next] == 0xd9) return 1;
    length = 2;
    payload = image__segment(bytes, count, &at, &marker, &length);
    if (!payload) return bytes[at] == 0xff && length >= 2 ? -1 : 0;
    if (marker == 0xc4 && !image__huffman_fits(bytes + payload, length)) return 0;
    if (marker == 0xda) {         /* the scan ends at a marker that is no restart, after any fill */
      while (at + 1 < count && (bytes[at] != 0xff || bytes[at + 1] == 0 || bytes[at + 1] == 0xff ||
                                (bytes[at + 1] >= 0xd0 && bytes[at + 1] <= 0xd7)))
        at++;
      if (at + 1 >= count) return -1;
    }
  }
}

IMAGE_API int image_orient(image *picture, int orientation)
{
  int rows = picture->rows, columns = picture->columns, y, x;
  int swap = orientation >= 5, to_rows = swap ? columns : rows, to_columns = swap ? rows : columns;
  uint8_t *to;
  if (orientation < 2 || orientation > 8) return 0;
  to = (uint8_t *)malloc((size_t)rows * (size_t)columns * 3);
  if (!to) return -1;
  for (y = 0; y < to_rows; y++)
    for (x = 0; x < to_columns; x++) {
      int from_y = swap ? x : y, from_x = swap ? y : x;      /* 5..8 are transposed */
      if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7)
        from_y = rows - 1 - from_y;
      if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8)
        from_x = columns - 1 - from_x;
      memcpy(to + 3 * ((size_t)y * (size_t)to_columns + (size_t)x),
             picture->rgb + 3 * ((size_t)from_y * (size_t)columns + (size_t)from_x), 3);
    }
  free(picture->rgb);
  picture->rgb = to;
  picture->rows = to_rows;
  picture->columns = to_columns;
  return 0;
}

/* ---- decoding ------------------------------------------------------------------------------- */

static int image__ends_with(const char *path, const char *end)
{
  size_t length = strlen(path), n = strlen(end), i;
  if (length < n) return 0;
  for (i = 0; i < n; i++) {
    int c = (unsigned char)path[length - n + i];
    if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
    if (c != (unsigned char)end[i]) return 0;
  }
  return 1;
}

IMAGE_API int image_is_name(const char *path)
{
  static const char *const ends[] = {".jpg", ".jpeg", ".png", ".bmp", ".tga"};
  size_t i;
  for (i = 0; i < sizeof ends / sizeof ends[0]; i++)
    if (image__ends_with(path, ends[i])) return 1;
  return 0;
}

/* (count) pixels of grey and alpha, or of RGB and alpha, to RGB over white. */
static void image__flatten(uint8_t *to, const uint8_t *from, size_t count, int channels)
{
  size_t i;
  int c;
  for (i = 0; i < count; i++, from += channels)
    for (c = 0; c < 3; c++) {
      int alpha = from[channels - 1], value = from[channels == 2 ? 0 : c];
      *to++ = (uint8_t)((value * alpha + 255 * (255 - alpha) + 127) / 255);
    }
}

/* Bytes that a BMP or TGA of this size has at least, up to its last pixel. What is not there is
   black to stb_image, or what its memory held before. */
static uint64_t image__least_bytes(const uint8_t *bytes, size_t count, int rows, int columns)
{
  uint64_t left = (uint64_t)rows * (uint64_t)columns, at, run, size;
  if (bytes[1] == 'M') {          /* rows are filled up to four bytes, the last one not by all */
    if (count < 30) return 30;
    at = image__number(bytes + 10, 4, 0);
    size = (uint64_t)columns * image__number(bytes + (bytes[14] == 12 ? 24 : 28), 2, 0);
    return at + (uint64_t)(rows - 1) * ((size + 31) / 32 * 4) + (size + 7) / 8;
  }
  if (count < 18) return 18;
  at = 18 + (uint64_t)bytes[0];
  size = (bytes[16] + 7u) / 8;
  if (bytes[1])                   /* a palette, where stb_image looks for it */
    at += image__number(bytes + 3, 2, 0) + image__number(bytes + 5, 2, 0) * ((bytes[7] + 7u) / 8);
  if (bytes[2] < 8) return at + left * size;
  for (; left && at < count; left -= run) {                  /* runs: a pixel that many times, or */
    const uint8_t head = bytes[at];
    run = (head & 127u) + 1;
    if (run > left) run = left;
    at += 1 + (head & 128 ? 1 : run) * size;                 /* that many pixels */
  }
  return at + (left + 127) / 128 * (1 + size);
}

/* A colour that a whole BMP's pixels have and its palette has not, as stb_image reads that: what
   its memory held would be seen. -1: there is none. *colours: the palette's. */
static int image__bmp_beyond(const uint8_t *bytes, int rows, int columns, int *colours)
{
  const int header = bytes[14], first = (int)image__number(bytes + 10, 4, 0);
  const int bits = (int)image__number(bytes + (header == 12 ? 24 : 28), 2, 0);
  const size_t stride = ((size_t)columns * (size_t)bits + 31) / 32 * 4;
  int y, x;
  *colours = header == 12 ? (first - 38) / 3 : (first - 14 - header) / 4;
  for (y = 0; y < rows && (bits == 1 || bits == 4 || bits == 8); y++)
    for (x = 0; x < columns; x++) {
      const int byte = bytes[(size_t)first + (size_t)y * stride + (size_t)(x * bits / 8)];
      const int colour = byte >> (8 - bits - x * bits % 8) & ((1 << bits) - 1);
      if (colour >= *colours) return colour;
    }
  return -1;
}

IMAGE_API int image_decode(image *out, const uint8_t *bytes, size_t count, const char *name,
                           char *error, size_t capacity)
{
  int columns = 0, rows = 0, channels = 0, got = 0, jpeg, png, bmp, tga;
  int colour, colours;
  uint64_t least;
  uint8_t *decoded;
  memset(out, 0, sizeof *out);
  if (count == 0) return image_fail(error, capacity, "%s: the file has 0 bytes", name);
  jpeg = count >= 2 && bytes[0] == 0xff && bytes[1] == 0xd8;
  png = count >= 4 && memcmp(bytes, "\x89PNG", 4) == 0;
  bmp = count >= 2 && memcmp(bytes, "BM", 2) == 0;
  /* Byte 1 is 0 or 1: no JPEG behind fill bytes, which was not walked over, and no GIF. */
  tga = image__ends_with(name, ".tga") && count >= 2 && bytes[1] <= 1;
  if (jpeg && image__jpeg_check(bytes, count) < 0)
    return image_fail(error, capacity,
                      "%s: the JPEG stops after %zu bytes, before its end-of-image marker", name,
                      count);
  if (jpeg && image__jpeg_check(bytes, count) == 0)
    return image_fail(error, capacity, "%s: corrupt picture (a JPEG segment makes no sense)", name);
  if (!(jpeg || png || bmp || tga) || count > INT_MAX ||
      !stbi_info_from_memory(bytes, (int)count, &columns, &rows, &channels))
    return image_fail(error, capacity, "%s: not a JPEG, PNG, BMP or TGA picture (%zu bytes)", name,
                      count);
  if (columns < 1 || rows < 1 || rows > IMAGE_MAX_PIXELS / columns)
    return image_fail(error, capacity, "%s: a picture of %d x %d pixels, and at most %d are read",
                      name, columns, rows, IMAGE_MAX_PIXELS);
  least = jpeg || png ? 0 : image__least_bytes(bytes, count, rows, columns);
  if (count < least)
    return image_fail(error, capacity, "%s: the file has %zu bytes, and its %d x %d pixels need at "
                      "least %ju", name, count, columns, rows, (uintmax_t)least);
  if (bmp && (colour = image__bmp_beyond(bytes, rows, columns, &colours)) >= 0)
    return image_fail(error, capacity, "%s: a pixel has the colour %d, and the palette has %d of "
                      "them", name, colour, colours < 0 ? 0 : colours);
  channels = channels == 2 ? 2 : channels == 4 || png ? 4 : 3;    /* a PNG: a colour may be clear */
  decoded = stbi_load_from_memory(bytes, (int)count, &columns, &rows, &got, channels);
  if (!decoded) {                 /* of a JPEG, maybe without a reason but that it is no PNG */
    const char *reason = stbi_failure_reason();
    if (!reason || strcmp(reason, "bad png sig") == 0) reason = "the decoder does not say why";
    return image_fail(error, capacity, "%s: corrupt picture (%s)", name, reason);
  }
  out->rows = rows;
  out->columns = columns;
  out->rgb = (uint8_t *)malloc((size_t)rows * (size_t)columns * 3);
  if (out->rgb && channels != 3)
    image__flatten(out->rgb, decoded, (size_t)rows * (size_t)columns, channels);
  else if (out->rgb)
    memcpy(out->rgb, decoded, (size_t)rows * (size_t)columns * 3);
  stbi_image_free(decoded);
  if (!out->rgb || image_orient(out, jpeg ? image_orientation(bytes, count) : 1) != 0) {
    image_free(out);
    return image_fail(error, capacity, "%s: no memory for %d x %d pixels", name, columns, rows);
  }
  return 0;
}

IMAGE_API int image_load(image *out, const char *path, char *error, size_t capacity)
{
  uint8_t *bytes;
  size_t count;
  int result;
  memset(out, 0, sizeof *out);
  if (image_read_file(&bytes, &count, path, INT_MAX, error, capacity) != 0) return -1;
  result = image_decode(out, bytes, count, path, error, capacity);
  free(bytes);
  return result;
}

IMAGE_API void image_free(image *picture)
{
  if (!picture) return;
  free(picture->rgb);
  memset(picture, 0, sizeof *picture);
}

/* ---- resizing ------------------------------------------------------------------------------- */

/* Reducing: a pixel is the mean of the area it covers (cv2's INTER_AREA; the paper names no
   filter). Averages are of the stored values, as is usual, not of linear light. */
IMAGE_API int image_resize(uint8_t *to, int rows, int columns, const uint8_t *from, int from_rows,
                           int from_columns, size_t stride)
{
  stbir_filter filter;
  int y;
  if (rows == from_rows && columns == from_columns) {
    for (y = 0; y < rows; y++)
      memcpy(to + (size_t)y * (size_t)columns * 3, from + (size_t)y * stride, (size_t)columns * 3);
    return 0;
  }
  filter = rows <= from_rows && columns <= from_columns ? STBIR_FILTER_BOX : STBIR_FILTER_TRIANGLE;
#ifdef IMAGE__RESIZE2
  return stbir_resize(from, from_columns, from_rows, (int)stride, to, columns, rows, columns * 3,
                      STBIR_RGB, STBIR_TYPE_UINT8, STBIR_EDGE_CLAMP, filter) ? 0 : -1;
#else
  return stbir_resize_uint8_generic(from, from_columns, from_rows, (int)stride, to, columns, rows,
                                    columns * 3, 3, STBIR_ALPHA_CHANNEL_NONE, 0, STBIR_EDGE_CLAMP,
                                    filter, STBIR_COLORSPACE_LINEAR, NULL) ? 0 : -1;
#endif
}

/* a * b / c, rounded to nearest, in 1..most */
static int image__ratio(int a, int b, int c, int most)
{
  int64_t value = ((int64_t)a * b * 2 + c) / ((int64_t)c * 2);
  return value < 1 ? 1 : value > most ? most : (int)value;
}

IMAGE_API void image_window(int *window_rows, int *window_columns, int rows, int columns,
                            int from_rows, int from_columns)
{
  *window_rows = from_rows;
  *window_columns = from_columns;
  if ((int64_t)from_columns * rows >= (int64_t)from_rows * columns)
    *window_columns = image__ratio(from_rows, columns, rows, from_columns);
  else
    *window_rows = image__ratio(from_columns, rows, columns, from_rows);
}

IMAGE_API int image_fit(uint8_t *to, int rows, int columns, const uint8_t *from, int from_rows,
                        int from_columns)
{
  int window_rows, window_columns;
  size_t stride = (size_t)from_columns * 3;
  image_window(&window_rows, &window_columns, rows, columns, from_rows, from_columns);
  from += (size_t)((from_rows - window_rows) / 2) * stride;
  from += (size_t)((from_columns - window_columns) / 2) * 3;
  return image_resize(to, rows, columns, from, window_rows, window_columns, stride);
}

#endif
