/* exif.c: what examples/image.h looks at in a JPEG by itself: the segments, the EXIF orientation,
   the sizes of Huffman tables. The pixels are decoded by the system's stb_image, which is not ours
   to search; tests/dataset.c holds it to what image.h promises of damaged pictures.              */

#include "fuzz.h"
#include "../../examples/dataset.h"

static void fuzz_exif(const uint8_t *data, size_t size)
{
  uint8_t *exact = fuzz_exact(data, size);
  const int orientation = image_orientation(exact, size), sound = image__jpeg_check(exact, size);
  image picture;
  int i;
  CHECK(orientation >= 1 && orientation <= 8);
  CHECK(sound >= -1 && sound <= 1);
  CHECK(image__huffman_fits(exact, size) == 0 || image__huffman_fits(exact, size) == 1);
  fuzz_accepted = sound == 1 && orientation > 1;
  picture.rows = 2;
  picture.columns = 3;
  picture.rgb = (uint8_t *)malloc(18);
  for (i = 0; i < 18; i++) picture.rgb[i] = (uint8_t)(i / 3);
  CHECK_INT(image_orient(&picture, orientation), 0);
  CHECK_INT(picture.rows, orientation >= 5 ? 3 : 2);
  for (i = 0; i < 6; i++) {       /* every pixel is somewhere, once */
    int j, times = 0;
    for (j = 0; j < 6; j++) times += picture.rgb[3 * j + 2] == i;
    CHECK_INT(times, 1);
  }
  image_free(&picture);
  free(exact);
  fuzz_end(0);
}

FUZZ_TARGET(fuzz_exif)
