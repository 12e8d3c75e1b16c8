/* npy.c: igpt_npy_open and the reading of elements, on any bytes. What is opened lies wholly in the
   file; what is read can be written and read again.                                              */

#include "fuzz.h"

/* All of the elements as float or int64; the whole numbers written as <i8 come back. */
static void npy_elements(const igpt_npy *npy, const igpt_source *source)
{
  const size_t count = (size_t)npy->count, some = count < 5 ? count : 5;
  float *floats = (float *)malloc(count * sizeof(float)), few[5];
  int64_t *wholes = (int64_t *)malloc(count * sizeof(int64_t)), value;
  paper copy = { 0 };
  igpt_sink sink = paper_sink(&copy);
  igpt_result result;
  igpt_npy again;
  size_t i;
  CHECK_INT(igpt_npy_read_f32(npy, floats, 0, count, source), IGPT_OK);
  CHECK_INT(igpt_npy_read_f32(npy, few, npy->count - some, some, source), IGPT_OK);
  CHECK(some == 0 || memcmp(few, floats + count - some, some * sizeof *few) == 0);
  CHECK_INT(igpt_npy_read_f32(npy, few, npy->count, 1, source), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_npy_read_f32(npy, few, UINT64_MAX, 1, source), IGPT_BAD_ARGUMENT);
  CHECK_INT(igpt_npy_read_f32(npy, few, 1, SIZE_MAX, source), IGPT_BAD_ARGUMENT);
  result = igpt_npy_read_i64(npy, wholes, 0, count, source);
  CHECK(result == IGPT_OK || result == IGPT_MISMATCH);
  if (result == IGPT_OK) {
    CHECK_INT(igpt_npy_write(&sink, IGPT_NPY_I64, wholes, npy->rank, npy->shape), IGPT_OK);
    if (copy.size) {
      igpt_source written = fuzz_source(&copy, 1);
      CHECK_INT(igpt_npy_open(&again, &written, NULL), IGPT_OK);
      CHECK(again.rank == npy->rank && again.count == npy->count);
      CHECK(memcmp(again.shape, npy->shape, sizeof npy->shape) == 0);
      for (i = 0; i < count; i += 1 + count / 16) {
        CHECK_INT(igpt_npy_read_i64(&again, &value, i, 1, &written), IGPT_OK);
        CHECK(value == wholes[i]);
      }
    }
  }
  free(floats);
  free(wholes);
  free(copy.data);
}

static void fuzz_npy(const uint8_t *data, size_t size)
{
  paper bytes = { 0 };
  igpt_result results[2];
  int way, i;
  bytes.data = (char *)fuzz_exact(data, size);
  bytes.size = size;
  for (way = 0; way < 2; way++) {
    igpt_source source = fuzz_source(&bytes, way);
    igpt_npy npy;
    uint64_t product = 1;
    size_t held = fuzz_live;
    heard h;
    igpt_log log = fuzz_log(&h);
    memset(&npy, 0x55, sizeof npy);
    fuzz_start();
    results[way] = igpt_npy_open(&npy, &source, &log);
    CHECK_INT(fuzz_peak, held);                /* a header needs no memory */
    fuzz_sentence(results[way], &h);
    if (results[way]) {
      CHECK(npy.rank == 0x55555555);           /* left alone */
      continue;
    }
    CHECK(npy.rank >= 0 && npy.rank <= 8 && npy.offset <= size && npy.bytes == size - npy.offset);
    for (i = 0; i < npy.rank; i++) product *= npy.shape[i];
    CHECK(product == npy.count && npy.count <= npy.bytes);
    npy_elements(&npy, &source);
  }
  CHECK_INT(results[0], results[1]);
  fuzz_accepted = results[0] == IGPT_OK;
  free(bytes.data);
  fuzz_end(0);
}

FUZZ_TARGET(fuzz_npy)
