/* igpt.h - Image GPT in one C header. A network learns to predict pixels, and by that to complete
   pictures and to tell what is on them: "Generative Pretraining from Pixels" (Chen et al., 2020),
   with everything it needs, for training and for use, on CPUs, in plain C.

   No warranty. Your choice of MIT or public domain; the texts are in LICENSE and at the end.

   DO THIS in one C or C++ file, and include it as usual in the others:

    | #define IGPT_IMPLEMENTATION
    | #include "igpt.h"

   and compile with nothing special:  cc -O2 app.c -lm

   A whole program, which draws a picture from a trained model:

    | #define IGPT_IMPLEMENTATION
    | #include "igpt.h"
    | #include <stdio.h>
    |
    | int main(int argc, char **argv)
    | {
    |   static uint16_t tokens[32 * 32];
    |   static uint8_t rgb[32 * 32 * 3];
    |   igpt_model *model;
    |   igpt_session *session;
    |   if (argc < 2 || igpt_model_load(&model, argv[1], NULL)) return 1;
    |   if (igpt_session_create(&session, model, NULL)) return 1;
    |   if (igpt_sample(session, tokens, 1, NULL)) return 1;
    |   if (igpt_palette_decode(igpt_model_palette(model), rgb, tokens, 32 * 32)) return 1;
    |   printf("P6 32 32 255\n");
    |   fwrite(rgb, 3, 32 * 32, stdout);
    | }
                                                                                                  */
/* ==== 1. manual ===============================================================================

   Contents. Search for "==== 9." to go to part 9.

      1  manual           this                       10  attention       without a T x T matrix
      2  declarations     all that you can call      11  the network     forward and backward
      3  compiler glue                               12  training        AdamW, schedules
      4  small tools      sizes, memory, sentences   13  sampling        decoding with a cache
      5  random numbers   Philox; table of kernels   14  palette         k-means, encode, decode
      6  the kernels      once an instruction set    15  linear probe    logistic regression
      7  bfloat16         AMX's tiles, dot products  16  files           safetensors, npy
      8  detection        which processor is this    17  paths, threads  the optional parts
      9  matmul           packing and blocking       18  the end         licence

   To understand the model read 11, then 12 and 13; for speed 6, 7, 9 and 10; for safety 4 and 16.

   ---- what it does, and what it does not ------------------------------------------------------

   DOES       find AVX2, AVX-512, AMX or NEON when it runs, from the plain compile line; train with
              both objectives of the paper (AR and BERT), fine-tune with a class head, probe every
              depth, sample and complete; make the palette; read and write files that Hugging Face's
              ImageGPT reads and writes; tell its memory beforehand and live in yours, if you like;
              give the same bits for any number of threads.
   DOES NOT   decode JPEG or PNG (see examples/image.h), use a GPU, start threads by itself,
              allocate while a session computes, print, exit, read environment variables, or keep
              mutable global state.

   ---- sample: the three calls ------------------------------------------------------------------

   A model is weights; a session is everything that changes while it works. Options are structs
   whose zero means the default.

    | igpt_model *model;
    | igpt_session *session;
    | igpt_sample_desc how = { 0 };
    | uint16_t tokens[1024];                       // the upper half is given ...
    | how.keep = 512;
    | how.temperature = 0.9f;
    | how.seed = 7;
    | if (igpt_model_load(&model, "model.safetensors", NULL)) return;
    | if (igpt_session_create(&session, model, NULL)) return;
    | memset(tokens, 0, sizeof tokens);
    | igpt_sample(session, tokens, 1, &how);       // ... and the lower one is drawn
    | igpt_session_destroy(session);
    | igpt_model_destroy(model);

   ---- train ------------------------------------------------------------------------------------

    | igpt_model_desc shape = { 0 };               // 8 layers of width 128, 32 x 32, 512 colours
    | igpt_session_desc work = { 0 };
    | igpt_schedule_desc plan = { IGPT_COSINE, 3e-3, 100, 1000, 0 };
    | igpt_palette palette;
    | igpt_pool *pool;
    | igpt_model *model;
    | igpt_session *session;
    | static uint8_t rgb[64 * 1024 * 3];           // 64 pictures
    | static uint16_t tokens[64 * 1024];
    | int step;
    | igpt_palette_fit(&palette, NULL, rgb, 64 * 1024, NULL);
    | igpt_palette_encode(&palette, tokens, rgb, 64 * 1024, NULL);
    | shape.config.vocabulary = palette.colours;
    | igpt_pool_create(&pool, 0, NULL);            // a thread for every processor
    | work.train = 1;
    | work.batch = 8;
    | work.runner = igpt_pool_runner(pool);
    | igpt_model_create(&model, &shape);
    | igpt_model_set_palette(model, &palette);
    | igpt_session_create(&session, model, &work);
    | for (step = 0; step < 1000; step++) {
    |   igpt_batch batch = { 0 };
    |   igpt_losses losses;
    |   igpt_adam_desc adam = { 0 };
    |   batch.tokens = tokens + (step % 2) * 32 * 1024;
    |   batch.count = 32;                          // four passes of 8, one gradient
    |   igpt_backward(session, &losses, &batch, NULL);
    |   adam.rate = (float)igpt_schedule(&plan, step);
    |   igpt_step(session, model, NULL, &adam);
    | }
    | igpt_model_save(model, "model.safetensors");

   BERT: shape.config.objective = IGPT_BERT, and a batch.mask drawn by igpt_mask_random, or in two
   dimensions by igpt_mask_blocks or igpt_mask_jigsaw.
   Fine-tuning: load with desc.config.classes set, give batch.labels; the loss is then pixels plus
   classes, 1 : 1, as in the official code. Checkpoints that continue with the same bits:
   igpt_checkpoint_save and igpt_checkpoint_load.

   ---- probe ------------------------------------------------------------------------------------

   How much has it learned about what is on the pictures? Take the mean over positions of the stream
   at some depth, and fit a linear classifier on it. The best depth is in the middle, not at the
   end.

    | int depths[] = { 0, 4, 8 };
    | static float features[64 * 3 * 128], one[64 * 128];
    | int32_t labels[64] = { 0 }, guessed[64];
    | igpt_batch batch = { 0 };
    | igpt_probe *probe;
    | int i;
    | batch.tokens = tokens;
    | batch.count = 64;
    | igpt_features(session, features, &batch, depths, 3);            // (64, 3, 128)
    | for (i = 0; i < 64; i++) memcpy(one + i * 128, features + (i * 3 + 1) * 128, 128 * 4);
    | labels[1] = 1;
    | if (igpt_probe_fit(&probe, NULL, one, labels, 64, 128, NULL)) return;
    | igpt_probe_predict(probe, guessed, NULL, one, 64);
    | igpt_probe_destroy(probe);

   ---- defaults ---------------------------------------------------------------------------------

      config    layers 8, width 128, heads width / 32, rows 32, columns = rows, vocabulary 512,
                classes 0, objective AR, norm_epsilon 1e-5, biases 0
      session   batch 1, train 0, recompute 0, precision F32, isa the best, one worker
      adam      beta1 0.9, beta2 0.95, epsilon 1e-8, weight_decay 0, clip none
      sample    keep 0, temperature 1, top_k all, top_p 1, rounds 16
      kmeans    colours 512, max_iterations 100, tolerance 0
      probe     L-BFGS, inverse_l2 1, max_iterations 1000, tolerance 1e-6

   ---- memory -----------------------------------------------------------------------------------

   igpt_model_create and igpt_session_create each take one block: from the desc's allocator, from
   malloc (IGPT_MALLOC) or from `memory` that you give; igpt_model_bytes, igpt_session_bytes and
   igpt_plan_make say how much before. Nothing is allocated while a session computes. Fitting a
   palette or a probe, encoding many pixels and reading a file (a checkpoint: from the session's
   allocator) take scratch and give it back.

   A model takes 4 bytes a weight; none if igpt_model_read may borrow them from the file's bytes in
   memory (desc.borrow). A session without training takes about 40 bytes a position and unit of
   width; with training 12 bytes a weight, about 40 bytes a position, unit of width and layer, and
   some 35 a position and unit of width once (24 and 52 where activations are bfloat16, see below).
   Of the 40 `recompute` leaves 4, beside one block's: that trains iGPT-L, a picture at a time, in
   24 GB.

   What decodes also keeps keys and values: 8 bytes a position, unit of width and layer, in BF16 and
   INT8 4. Its speed is that of reading weights, whole once a pixel for all pictures of the batch:
   sessions that do not train read copies of them in BF16 (2 bytes a weight) and INT8 (1).
   igpt_plan_make says what each of these takes; `no_cache` saves all but the copies of INT8.

   ---- small machines ---------------------------------------------------------------------------

   With IGPT_STATIC, NO_STDIO, NO_THREADS, NO_TRAIN, NO_SIMD and a null IGPT_MALLOC, what reads a
   model and samples is 63 KB on a Cortex-M3, soft floating point and the C library's mathematics
   included, 57 KB on a Cortex-M7; it has no variables, and takes 2.6 KB of stack. The weights stay
   in flash (desc.borrow); the model is 7 KB beside them, mostly its palette. Such a program, for a
   board and for the host, is tests/cortex-m/complete.c; `make cortex-m` runs it.

   ---- threads ----------------------------------------------------------------------------------

   The library starts none. It asks a runner to "run this task for every index", and a desc without
   a runner means a plain loop. igpt_pool (part 17) is one you may use; a dozen lines wrap any
   other. Work is split by what is written, never along a sum, so results do not depend on the
   number of workers or on who does what. Any number of sessions may read one model at the same
   time; a session is used by one thread at a time; igpt_step writes the model, so nobody else may
   use it meanwhile.

   ---- instruction sets and determinism ---------------------------------------------------------

   The kernels are compiled for each instruction set in the same file, and a session picks its row
   of them when it is created (desc.isa). Same build, instruction set, precision and batch: the same
   bits. Matrix products are even the same on AVX2, AVX-512 and NEON (but for sums that round to the
   smallest normal number), and sampling with the cache gives the bits of the full pass; on 32-bit
   x86 without SSE's arithmetic, where clang and gcc's own dialects keep more than a float, only
   with gcc -std=c99. GENERIC is plain C and the definition of all others; the tests compare. WASM
   is the one row that is chosen when compiling, with -msimd128.

   AMX and AVX512_BF16 are no rows of kernels: they multiply bfloat16. BF16 sessions alone use one
   of them, for products and attention, with activations in bfloat16, beside the row of AVX-512, if
   desc.isa is AUTO or names it, the system is Linux (and permits AMX), a first product and a first
   head agree with GENERIC, and the model has no biases, which they do not add. AUTO prefers AMX;
   AVX512_BF16 is supported on AMD's processors, where it is twice as fast as float32: Intel's take
   longer for it than for float32. igpt_session_resolved says what it is. Sums have an order of
   their own: bits still do not depend on threads, but positions decoded one at a time, too few
   rows for tiles, equal the full pass only to rounding.

   ---- the host's floating point ----------------------------------------------------------------

   On x86-64, AArch64 and systems with <fenv.h>, calls and tasks compute in a state of their own,
   rounding to nearest, whatever the host has set, and leave rounding mode, exception flags and
   traps of every thread as they were. Callbacks see the library's state. On x86-64, and on AArch64
   but with MSVC, what a session or a probe computes has no denormals, so that they never slow it;
   files keep them.

   ---- errors -----------------------------------------------------------------------------------

   Functions return igpt_result: 0, or a negative code. igpt_error_string has a sentence for a code;
   desc.log gets one that names the call, the field and both values. A failed create leaves *out
   null; a failed call leaves the session usable. Tokens and labels are checked before they are
   used.

   ---- files ------------------------------------------------------------------------------------

   Weights are safetensors, with the names, shapes and layouts of Hugging Face's ImageGPT, the
   palette and all that a reader needs inside; igpt_model_write_hf leaves out the head that one of
   its classes does not know. Checkpoints are the same file with the optimiser's state. Files are
   replaced whole: a new one is written beside the old, flushed to the disk, and renamed. Nothing
   that a file says is believed before it is checked.

   ---- build macros, before the include that has IGPT_IMPLEMENTATION ----------------------------

      IGPT_STATIC             every function is static: a private copy for one file
      IGPTDEF                 what stands before public functions; default extern
      IGPT_NO_STDIO           no paths: read and write through igpt_source and igpt_sink
      IGPT_NO_THREADS         no igpt_pool; wanted where there is no <pthread.h>, as in WASI
      IGPT_NO_TRAIN           no backward, no optimiser, no checkpoints
      IGPT_NO_SIMD            the generic kernels alone
      IGPT_NO_AVX512          not that one, nor AMX or AVX512_BF16
      IGPT_NO_AMX             no tiles, nor dot products of bfloat16 instead
      IGPT_MALLOC, IGPT_FREE  instead of malloc and free; both or neither
      IGPT_ASSERT(c)          checks of the library's own state; default nothing
      IGPT_ALLOW_FAST_MATH    compile under -ffast-math all the same (results are then undefined)
      IGPT__SELF              the header's name in quotes, if you rename it

   The declarations bear whatever macros their host has. The implementation uses letters (T, K) and
   short words in capitals (LOAD) for names of its own: include it where nothing has taken them,
   windows.h's min, max and the like and complex.h's I excepted.

   ---- releases ---------------------------------------------------------------------------------

      0.1.0   the first; what came after it: CHANGES.md
                                                                                                  */

#ifndef IGPT__PASS

/* ==== 2. declarations ========================================================================

   Letters used for shapes, here and below:

     B  pictures in a batch           T  tokens a picture = rows * columns   V  colours (vocabulary)
     L  layers (blocks)               C  width of a token's vector           H  heads, of E = C / H
     N  pictures or rows of a call    D  features of a probe                 K  classes

   Conventions: the object comes first, then what is written, then what is read, the desc last.
   Descs are zeroed by the caller (`igpt_sample_desc d = {0};`); a zero field means the default that
   its comment names, and a null desc is a zeroed one, but for igpt_step and igpt_schedule.
   Functions return igpt_result. A call that is refused for its arguments writes nothing; one that
   ends later (IGPT_NOT_FINITE, IGPT_CANCELLED) may have written a part of its output.            */

#ifndef IGPT_H
#define IGPT_H

#include <stddef.h>
#include <stdint.h>

#define IGPT_VERSION_MAJOR 0
#define IGPT_VERSION_MINOR 1
#define IGPT_VERSION_PATCH 0

#ifndef IGPTDEF
#if defined(IGPT_STATIC) && defined(__GNUC__)
#define IGPTDEF static __attribute__((unused))
#elif defined(IGPT_STATIC)
#define IGPTDEF static
#else
#define IGPTDEF extern
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- results ------------------------------------------------------------------------------- */

/* One list makes the codes and their sentences. */
#define IGPT_RESULTS(X)                                                                           \
  X(IGPT_OK,                0, "success")                                                         \
  X(IGPT_BAD_ARGUMENT,     -1, "an argument is out of its range")                                 \
  X(IGPT_OUT_OF_MEMORY,    -2, "the allocator returned null, or the given block is too small")    \
  X(IGPT_TOO_LARGE,        -3, "a size does not fit in size_t")                                   \
  X(IGPT_UNSUPPORTED,      -4, "not built in, or not supported by this processor")                \
  X(IGPT_WRONG_OBJECTIVE,  -5, "the model was made for the other objective")                      \
  X(IGPT_UNTRAINED_HEAD,   -6, "the class head has never been trained: all of it is zero")        \
  X(IGPT_NOT_FINITE,       -7, "a number is infinite or not a number")                            \
  X(IGPT_CANCELLED,        -8, "the caller's watch asked to stop")                                \
  X(IGPT_BAD_FILE,         -9, "the bytes are not a file of the expected format")                 \
  X(IGPT_MISMATCH,        -10, "the file is valid but does not fit what was asked for")           \
  X(IGPT_READ_ERROR,      -11, "reading failed or ended too early")                               \
  X(IGPT_WRITE_ERROR,     -12, "writing failed")                                                  \
  X(IGPT_SELFTEST_FAILED, -13, "a kernel disagrees with its plain twin")

typedef enum igpt_result {
#define IGPT__ENUM(name, value, text) name = value,
  IGPT_RESULTS(IGPT__ENUM)
#undef IGPT__ENUM
  IGPT__RESULT_FORCE_INT = 0x7fffffff
} igpt_result;

/* The sentence of a code; "unknown result" for any other number. Never null. */
IGPTDEF const char *igpt_error_string(igpt_result result);

/* ---- hooks: what the host lends to the library --------------------------------------------- */

/* Memory. Null functions (both or neither) mean IGPT_MALLOC and IGPT_FREE. `alloc` may return any
   alignment; the library aligns inside. `free` gets the size that was asked for. */
typedef struct igpt_allocator {
  void *(*alloc)(void *user, size_t bytes);
  void  (*free)(void *user, void *block, size_t bytes);
  void  *user;
} igpt_allocator;

/* Sentences about failures: which call, which field, both values. Null: silence. */
typedef struct igpt_log {
  void (*line)(void *user, igpt_result result, const char *sentence);
  void  *user;
} igpt_log;

/* Work. `run` must call task(arg, index, worker) exactly once for every index in [0, count), in any
   order, on any threads, with 0 <= worker < workers and no worker number in use twice at a time;
   it returns when all are done. Tasks never call `run`. Null: a plain loop on the caller's thread.
   Results do not depend on the runner, on the number of workers or on the order. */
typedef void igpt_task(void *arg, size_t index, int worker);
typedef struct igpt_runner {
  void (*run)(void *user, igpt_task *task, void *arg, size_t count);
  void  *user;
  int    workers;                 /* at most IGPT_MAX_WORKERS; 0 means 1 */
} igpt_runner;
#define IGPT_MAX_WORKERS 256

/* Patience. Long calls call `poll` from the caller's thread after nearly every product of the
   network (of a wide one and a large batch one may take more than 50 ms), with the part of the call
   that is done (0..1, never less than before); anything but 0 stops the call with IGPT_CANCELLED.
   Null: never asked. */
typedef struct igpt_watch {
  int (*poll)(void *user, double done);
  void *user;
} igpt_watch;

/* Bytes in: `read` copies [offset, offset + bytes) to `to` and returns 0, or anything else when it
   cannot. `size` is the length of the whole. Bytes out: `write` appends, and returns 0 for success.
   If `memory` is not null, the source is that block and `read` is not called. */
typedef struct igpt_source {
  int (*read)(void *user, uint64_t offset, void *to, size_t bytes);
  void *user;
  uint64_t size;
  const void *memory;
} igpt_source;
typedef struct igpt_sink {
  int (*write)(void *user, const void *from, size_t bytes);
  void *user;
} igpt_sink;

/* ---- instruction sets ---------------------------------------------------------------------- */

typedef enum igpt_isa {
  IGPT_ISA_AUTO = 0,              /* the best that this processor and system support */
  IGPT_ISA_GENERIC,               /* plain C: the definition of every kernel */
  IGPT_ISA_AVX2,                  /* with FMA */
  IGPT_ISA_AVX512,                /* the F subset */
  IGPT_ISA_AVX512_BF16,           /* AVX512, and dot products for matrices and attention in BF16 */
  IGPT_ISA_AMX,                   /* AVX512, and tiles for these */
  IGPT_ISA_NEON,
  IGPT_ISA_WASM,                  /* SIMD128, in programs compiled for it (-msimd128) */
  IGPT_ISA_COUNT
} igpt_isa;

/* F32: float32 throughout. BF16: bfloat16 operands (rounded to nearest even) in every matrix
   product and in attention, with float32 sums, weights, gradients and moments; the key/value
   cache is bfloat16. INT8, for sessions that do not train: the same, but the matrices of the
   blocks and lm_head are rounded to whole numbers in -127..127 times a float32 scale for each
   output, max |w| / 127; all else (embeddings, gains, the class head, sums) is as it is.
   Sessions of INT8, and those of BF16 that can decode and do not train, hold copies of the
   matrices of one byte or two a weight, which they make anew whenever a call begins that reads
   them; igpt_decode is part of the call to igpt_decode_begin before it, and no weight may change
   between the two. */
typedef enum igpt_precision {
  IGPT_F32 = 0,
  IGPT_BF16,
  IGPT_INT8,
  IGPT_PRECISION_AUTO             /* BF16 where the session has AMX or AVX512_BF16, else F32 */
} igpt_precision;

/* 1 or 0; AUTO and GENERIC are always 1. Asking for AMX asks Linux to permit it to the process. */
IGPTDEF int         igpt_isa_supported(igpt_isa isa);
IGPTDEF igpt_isa    igpt_isa_best(void);               /* what AUTO means here; in BF16 sessions
                                                          AMX or AVX512_BF16, if supported and
                                                          right */
IGPTDEF const char *igpt_isa_name(igpt_isa isa);       /* "auto", "generic", "avx2", ... */

/* Runs every kernel of `isa` against the generic row on small odd shapes (a few milliseconds, no
   allocation). IGPT_UNSUPPORTED, IGPT_SELFTEST_FAILED or IGPT_OK. */
IGPTDEF igpt_result igpt_selftest(igpt_isa isa);

/* The kernels themselves, for tests, benchmarks and the curious; described in part 5.
   Null if `isa` is not supported; AMX and AVX512_BF16 have those of AVX512. */
typedef struct igpt_kernels igpt_kernels;
IGPTDEF const igpt_kernels *igpt_kernels_for(igpt_isa isa);

/* ---- random numbers ------------------------------------------------------------------------ */

/* Philox4x32-10 (Salmon et al., 2011): draw number `index` of stream `stream` under `seed` is a
   pure function of the three, so the whole state is these numbers and any draw can be had
   directly. */
typedef struct igpt_rng {
  uint64_t seed, stream, index;
} igpt_rng;

IGPTDEF igpt_rng igpt_rng_seed(uint64_t seed, uint64_t stream);
IGPTDEF uint32_t igpt_rng_next(igpt_rng *rng);                   /* 32 random bits */
IGPTDEF float    igpt_rng_uniform(igpt_rng *rng);                /* [0, 1), a multiple of 2^-24 */
IGPTDEF uint32_t igpt_rng_below(igpt_rng *rng, uint32_t bound);  /* [0, bound), unbiased */
IGPTDEF float    igpt_rng_normal(igpt_rng *rng);                 /* mean 0, variance 1 */
IGPTDEF void     igpt_rng_shuffle(igpt_rng *rng, uint32_t *order, size_t count);

/* ---- palette ------------------------------------------------------------------------------- */

#define IGPT_PALETTE_MAX 512      /* 9 bits, as in the paper */

/* A value type: copy it freely. `centre` is RGB in [-1, 1], where u8 / 127.5 - 1 is the scale. */
typedef struct igpt_palette {
  int   colours;                  /* 1..IGPT_PALETTE_MAX */
  char  name[60];                 /* losses of different palettes do not compare: name it */
  float centre[IGPT_PALETTE_MAX][3];
} igpt_palette;

typedef struct igpt_kmeans_desc {
  int            colours;         /* 0: 512. Fewer come out if there are fewer distinct colours */
  int            max_iterations;  /* 0: 100 rounds of Lloyd; it stops earlier when nothing moves */
  float          tolerance;       /* stop when the error falls by less than this part; 0: never */
  uint64_t       seed;
  const char    *name;            /* copied into the palette, cut to fit; null: "k-means" */
  igpt_isa       isa;
  igpt_runner    runner;
  igpt_allocator allocator;       /* scratch, all given back before the call returns */
  igpt_watch     watch;
  igpt_log       log;
} igpt_kmeans_desc;

typedef struct igpt_kmeans_report {
  int    iterations;
  int    repaired;                /* empty clusters that were given a new centre */
  size_t distinct;                /* different colours among the pixels */
  double mse;                     /* mean squared error a channel, in 8-bit steps, before the
                                     centres are rounded to bytes (igpt_palette_error: after) */
} igpt_kmeans_report;

/* k-means++ seeding, then Lloyd, on the distinct colours weighted by their counts. Centres come out
   in the order of their luma, the darkest first. rgb: (pixels, 3) bytes, fewer than 2^32 pixels.
   report may be null, desc may be null. */
IGPTDEF igpt_result igpt_palette_fit(igpt_palette *out, igpt_kmeans_report *report,
                                     const uint8_t *rgb, size_t pixels,
                                     const igpt_kmeans_desc *desc);

typedef struct igpt_encode_desc {
  igpt_isa       isa;
  igpt_runner    runner;
  igpt_allocator allocator;       /* scratch, given back before the call returns */
  igpt_log       log;
} igpt_encode_desc;

/* Nearest centre in squared Euclidean distance, the lowest index where float32 sees no difference.
   tokens: (pixels). From some 16,384 pixels on (more for small palettes) 700 KB of scratch a worker
   make it many times faster; if the allocator has none, the tokens are the same. desc may be
   null. */
IGPTDEF igpt_result igpt_palette_encode(const igpt_palette *palette, uint16_t *tokens,
                                        const uint8_t *rgb, size_t pixels,
                                        const igpt_encode_desc *desc);

/* rgb = rint(127.5 * (centre + 1)), half to even, as the official sampler does.
   IGPT_BAD_ARGUMENT, and nothing written, if a token is not below `colours`. */
IGPTDEF igpt_result igpt_palette_decode(const igpt_palette *palette, uint8_t *rgb,
                                        const uint16_t *tokens, size_t pixels);

/* What the palette costs: mean squared error a channel in 8-bit steps, and the PSNR in dB
   (infinite for no error), of decode(encode(rgb)). Either may be null. */
IGPTDEF igpt_result igpt_palette_error(const igpt_palette *palette, double *mse, double *psnr,
                                       const uint8_t *rgb, size_t pixels);

/* ---- the model: weights -------------------------------------------------------------------- */

typedef enum igpt_objective {
  IGPT_AR = 0,                    /* predict each pixel from those before it, in raster order */
  IGPT_BERT                       /* predict hidden pixels from all the others */
} igpt_objective;

/* The shape of a network. Zero fields take the default. */
typedef struct igpt_config {
  int            layers;          /* L; 0: 8 */
  int            heads;           /* H, divides width; 0: width / 32, at least 1 */
  int            width;           /* C; 0: 128 */
  int            rows, columns;   /* of a picture; T = rows * columns; 0: 32, and columns = rows */
  int            vocabulary;      /* V, colours; 0: 512; at most 65535 */
  int            classes;         /* K outputs of the class head; 0: no class head */
  igpt_objective objective;
  float          norm_epsilon;    /* inside the root of the norm, 1e-20 or more; 0: 1e-5 */
  int            biases;          /* 1: matrices of blocks have biases, which start at zero; 0: none
                                     as in the official code. Files whose biases are not zero: 1 */
} igpt_config;

/* "S", "M", "L", "XL" of the paper, and "tiny" (4 x 64), "small-cpu" (8 x 128), "medium-cpu"
   (12 x 256). The paper does not say how many heads XL has: 24 of 128 is this library's guess.
   Any other name: IGPT_BAD_ARGUMENT. Sets layers, heads, width and, for XL, 64 x 64 pictures; all
   other fields stay as they are, so zero the struct before. */
IGPTDEF igpt_result igpt_config_preset(igpt_config *out, const char *name);

/* Fills the defaults in and checks the rest. The sentence goes to `log` (may be null). */
IGPTDEF igpt_result igpt_config_resolve(igpt_config *config, const igpt_log *log);

/* A view of one tensor. Names, shapes and layouts are those of Hugging Face's ImageGPT. */
typedef struct igpt_tensor {
  char   name[48];                /* "transformer.h.3.attn.c_attn.weight" */
  float *data;                    /* row-major */
  int    rank;                    /* 1 or 2 */
  size_t shape[2];
  size_t count;                   /* product of the shape */
} igpt_tensor;

typedef struct igpt_model igpt_model;

typedef struct igpt_model_desc {
  igpt_config    config;
  uint64_t       seed;            /* of the initial weights */
  igpt_allocator allocator;
  void          *memory;          /* null: from the allocator; else a block of ... */
  size_t         memory_bytes;    /* ... at least igpt_model_bytes(); outlives the model */
  int            borrow;          /* igpt_model_read: 1: the weights stay in the source's memory */
  igpt_log       log;             /* kept: sessions of this model have their own */
} igpt_model_desc;

/* Bytes that a model takes for this desc: once from the allocator, or from `memory`. */
IGPTDEF igpt_result igpt_model_bytes(size_t *bytes, const igpt_model_desc *desc);

/* A model with the official initial weights. On failure *out is null. */
IGPTDEF igpt_result igpt_model_create(igpt_model **out, const igpt_model_desc *desc);
IGPTDEF void        igpt_model_destroy(igpt_model *model);         /* null is fine */

IGPTDEF const igpt_config  *igpt_model_config(const igpt_model *model);    /* resolved */
IGPTDEF const igpt_palette *igpt_model_palette(const igpt_model *model);   /* null: has none */

/* Copies a palette into the model, to be saved with it. Its colours must be the vocabulary. */
IGPTDEF igpt_result igpt_model_set_palette(igpt_model *model, const igpt_palette *palette);

/* Number of scalars trained, and the tensors: tensor `index` of igpt_model_tensors(model). */
IGPTDEF size_t      igpt_model_parameters(const igpt_model *model);
IGPTDEF size_t      igpt_model_tensors(const igpt_model *model);
IGPTDEF igpt_result igpt_model_tensor_at(const igpt_model *model, igpt_tensor *out, size_t index);
IGPTDEF igpt_result igpt_model_tensor(const igpt_model *model, igpt_tensor *out, const char *name);

/* safetensors (part 16). The shape comes from the file; fields of desc->config that are not zero
   must agree with it (IGPT_MISMATCH), except `classes`, which may ask for a new, zero class head
   where the file has none, and `biases`, which may ask for zero ones. Files of Hugging Face's
   ImageGPT load too; they do not say their heads, so give them, and rows too if the picture is not
   a square. A tensor that is infinite or NaN somewhere: IGPT_NOT_FINITE. On failure *out is null.

   With desc->borrow no weight is copied: the model points into source->memory (a constant array in
   flash, a file mapped into memory), which is never written and outlives it, and igpt_model_bytes
   is what it takes beside that. Such a model cannot be trained, nor written to through igpt_tensor.
   Every weight must be there, be F32 and lie at a multiple of four bytes, else IGPT_MISMATCH; a
   big-endian machine, whose numbers are not the file's: IGPT_UNSUPPORTED. */
IGPTDEF igpt_result igpt_model_read(igpt_model **out, const igpt_source *source,
                                    const igpt_model_desc *desc);

/* What igpt_model_read would refuse is not written: IGPT_NOT_FINITE if a weight or a colour of the
   palette is infinite or NaN. */
IGPTDEF igpt_result igpt_model_write(const igpt_model *model, const igpt_sink *sink);

/* The same file in half the bytes, to be shipped: weights are rounded to bfloat16, ties to even.
   IGPT_NOT_FINITE also if one of them is too large for that. */
IGPTDEF igpt_result igpt_model_write_bf16(const igpt_model *model, const igpt_sink *sink);

/* The file for Hugging Face's classes, each of which knows one head and reports the other: without
   the class head for ImageGPTForCausalImageModeling, or (classifier 1) without lm_head, which reads
   as zero, for ImageGPTForImageClassification. Their network is causal: IGPT_WRONG_OBJECTIVE for a
   BERT model. IGPT_UNTRAINED_HEAD for a classifier without a class head. */
IGPTDEF igpt_result igpt_model_write_hf(const igpt_model *model, const igpt_sink *sink,
                                        int classifier);

/* ---- the session: everything that changes --------------------------------------------------- */

typedef struct igpt_session igpt_session;

typedef struct igpt_session_desc {
  int            batch;           /* B, pictures computed at once; 0: 1. Calls take any number */
  int            train;           /* 1: room for gradients, moments and activations */
  int            recompute;       /* 1: training keeps activations of one block, and computes those
                                     of the others again: a quarter slower, the same bits */
  int            no_cache;        /* 1: no key/value cache: such a session cannot sample */
  igpt_precision precision;
  igpt_isa       isa;
  igpt_runner    runner;
  igpt_allocator allocator;
  void          *memory;          /* as in igpt_model_desc */
  size_t         memory_bytes;
  igpt_watch     watch;           /* asked while the network runs: igpt_step and files do not ask */
  igpt_log       log;
} igpt_session_desc;

/* A model may serve any number of sessions, on any threads, as long as no one trains it meanwhile;
   a session belongs to one caller at a time. The model must outlive its sessions. */
IGPTDEF igpt_result igpt_session_bytes(size_t *bytes, const igpt_config *config,
                                       const igpt_session_desc *desc);
IGPTDEF igpt_result igpt_session_create(igpt_session **out, const igpt_model *model,
                                        const igpt_session_desc *desc);
IGPTDEF void        igpt_session_destroy(igpt_session *session);   /* null is fine */
IGPTDEF const igpt_session_desc *igpt_session_resolved(const igpt_session *session);

/* What a configuration will cost, before anything is allocated. */
typedef struct igpt_plan {
  size_t parameters;              /* scalars */
  size_t model_bytes;             /* igpt_model_bytes */
  size_t session_bytes;           /* igpt_session_bytes, the sum of the next six */
  size_t gradient_bytes;
  size_t moment_bytes;
  size_t activation_bytes;
  size_t cache_bytes;             /* keys and values; in training, what lies beyond the above */
  size_t copy_bytes;              /* weights in fewer bits, for decoding and INT8 */
  size_t scratch_bytes;
  double forward_flops;           /* a picture: multiply and add count as two */
  double train_flops;             /* a picture, forward and backward, nothing computed again */
  double decode_flops;            /* a picture sampled with the cache */
} igpt_plan;
IGPTDEF igpt_result igpt_plan_make(igpt_plan *out, const igpt_config *config,
                                   const igpt_session_desc *desc);

/* ---- run ------------------------------------------------------------------------------------ */

typedef struct igpt_batch {
  const uint16_t *tokens;         /* (N,T), below V, also where they are hidden */
  const uint8_t  *mask;           /* (N,T), BERT: 1 hides a pixel; null: none is hidden */
  const int32_t  *labels;         /* (N), for the class loss; null: there is none */
  size_t          count;          /* N, any number: it is computed B at a time */
  const uint16_t *shown;          /* (N,T), BERT: what is seen where mask is 1; null: nothing */
} igpt_batch;

/* logits: (N,T,V). logits[.,i,.] predicts token i: in AR mode from tokens before i alone. */
IGPTDEF igpt_result igpt_forward(igpt_session *session, float *logits, const igpt_batch *batch);

/* Nats (negative log likelihood) of every pixel, (N,T), may be null; and their mean as the official
   code takes it: over all positions (AR); over the hidden positions of each picture, then over
   pictures (BERT, where other positions get 0, and a picture that hides none counts as 0). mean may
   be null. */
IGPTDEF igpt_result igpt_nll(igpt_session *session, float *nats, double *mean,
                             const igpt_batch *batch);

/* Class logits, (N,K). IGPT_UNTRAINED_HEAD if the model's class head is absent or all zero. */
IGPTDEF igpt_result igpt_classify(igpt_session *session, float *logits, const igpt_batch *batch);

/* Pooled features of `count` depths in one pass: features[n, j, .] is the mean over positions of
   norm(h^l) for l = layers[j] in 0..L: after ln_1 of block l, after ln_f for l = L. (N,count,C). */
IGPTDEF igpt_result igpt_features(igpt_session *session, float *features, const igpt_batch *batch,
                                  const int *layers, size_t count);

/* Attention probabilities of one head: map[n, i, j] is what position i takes from j. (N,T,T). */
IGPTDEF igpt_result igpt_attention_map(igpt_session *session, float *map, const igpt_batch *batch,
                                       int layer, int head);

/* Cached decoding, one position a call, for `count` <= B pictures in step. After `begin` (which
   computes the first `keep` < T tokens of each picture, (count,keep), as one forward pass), each
   call of igpt_decode writes the logits (count,V) of the next position; from the second call on,
   `tokens` (count) are those chosen at the position before. AR models only. */
IGPTDEF igpt_result igpt_decode_begin(igpt_session *session, const uint16_t *prefix, int keep,
                                      int count);
IGPTDEF igpt_result igpt_decode(igpt_session *session, float *logits, const uint16_t *tokens);

typedef struct igpt_sample_desc {
  int      keep;                  /* igpt_sample only: tokens at the front of every picture that are
                                     given, up to T; 0: none */
  float    temperature;           /* 0: 1 */
  int      top_k;                 /* draw among the k most likely; 0: all; 1: the most likely */
  float    top_p;                 /* draw among the fewest whose probabilities sum to p; 0: 1 */
  int      rounds;                /* igpt_fill only: forward passes; 0: 16 */
  uint64_t seed;
  uint64_t first;                 /* number of the first picture: picture n draws from stream ... */
} igpt_sample_desc;               /* ... first + n, whatever the batch */

/* Completes `count` pictures in place: tokens (count,T), of which the first `keep` are read. */
IGPTDEF igpt_result igpt_sample(igpt_session *session, uint16_t *tokens, size_t count,
                                const igpt_sample_desc *desc);

/* BERT models: fills the positions where mask (count,T) is 1, the most certain first, in `rounds`
   passes. mask is only read. */
IGPTDEF igpt_result igpt_fill(igpt_session *session, uint16_t *tokens, const uint8_t *mask,
                              size_t count, const igpt_sample_desc *desc);

/* Draws a BERT mask: 1 where uniform() <= part (0: 0.15), as the official code does. */
IGPTDEF void igpt_mask_random(igpt_rng *rng, uint8_t *mask, size_t count, float part);

/* The mask of one picture (rows,columns) from squares of side x side pixels, which may overlap and
   reach over the border, so that every pixel is as likely to be hidden: one square at least, then
   as many as hide `part` (0: 0.15) of the pixels on the average. */
IGPTDEF igpt_result igpt_mask_blocks(igpt_rng *rng, uint8_t *mask, int rows, int columns, int side,
                                     float part);

/* A jigsaw: of the picture's grid of side x side patches, `part` (0: 0.15; two at least) get a mask
   of 1, and change places in a random circle. `shown` (rows,columns) is `tokens` as it looks then,
   for igpt_batch.shown: the model has to tell what belongs there, and is not told where.
   Both: IGPT_BAD_ARGUMENT if part is not in 0..1, or a side is below 1, or, here, does not divide
   rows and columns into two patches at least; nothing is written then. */
IGPTDEF igpt_result igpt_mask_jigsaw(igpt_rng *rng, uint8_t *mask, uint16_t *shown,
                                     const uint16_t *tokens, int rows, int columns, int side,
                                     float part);

/* One draw, by the rules of igpt_sample, from `logits` (vocabulary), which become the probabilities
   drawn from: 0 for tokens that top_k or top_p excluded. -1 if a logit is NaN or the largest is
   infinite, and for a temperature, top_k or top_p that igpt_sample refuses: logits are as they were
   then. */
IGPTDEF int igpt_draw(igpt_rng *rng, float *logits, int vocabulary, const igpt_sample_desc *desc);

/* ---- train ---------------------------------------------------------------------------------- */
#ifndef IGPT_NO_TRAIN

typedef struct igpt_loss_desc {
  float generative;               /* weight of the pixel loss; 0 with classification 0: 1 */
  float classification;           /* weight of the class loss; both zero: 1 if labels are given */
} igpt_loss_desc;

typedef struct igpt_losses {
  double generative;              /* nats a pixel, mean as in igpt_nll */
  double classification;          /* nats a picture */
  double total;                   /* the weighted sum, which is differentiated */
  size_t correct;                 /* pictures whose label got the largest class logit */
} igpt_losses;

/* Forward and backward. Adds the gradients of the loss SUMMED over the batch's pictures to what
   earlier calls left, and counts the pictures; igpt_step divides by the count. So micro-batches of
   any sizes accumulate to the gradient of one large batch. losses, desc may be null. A call that
   ends with IGPT_NOT_FINITE (the loss) or IGPT_CANCELLED leaves gradients and count at zero. An
   infinite weight may spoil gradients of a loss that is finite: igpt_step refuses those. */
IGPTDEF igpt_result igpt_backward(igpt_session *session, igpt_losses *losses,
                                  const igpt_batch *batch, const igpt_loss_desc *desc);

/* The gradients as ONE block, in the order of igpt_model_tensor_at, so that any all-reduce can take
   it; *pictures is the count they are summed over. Gradient of one tensor: igpt_gradient_at. */
IGPTDEF igpt_result igpt_gradients(igpt_session *session, float **block, size_t *count,
                                   size_t *pictures);
IGPTDEF igpt_result igpt_gradient_at(igpt_session *session, igpt_tensor *out, size_t index);
IGPTDEF igpt_result igpt_gradients_zero(igpt_session *session);

/* Euclidean length of the mean gradient, summed in float64 in a fixed order. */
IGPTDEF igpt_result igpt_gradient_norm(igpt_session *session, double *norm);

typedef struct igpt_adam_desc {
  float  rate;                    /* 0 moves nothing */
  float  beta1, beta2;            /* 0: 0.9, 0.95 */
  float  epsilon;                 /* 0: 1e-8 */
  float  weight_decay;            /* decoupled, on matrices of the blocks and heads; 0: none */
  float  clip;                    /* longest mean gradient allowed; 0: no clipping */
  size_t pictures;                /* 0: those counted; with an all-reduce, those of all sessions */
} igpt_adam_desc;

/* One AdamW step on `model` (the session's own), then the gradients are zero again. If the norm is
   not finite, or 1.8e19 or more after clipping, if clipping would scale gradients by less than the
   smallest float, or if a weight would become infinite: IGPT_NOT_FINITE, weights and moments
   untouched, gradients zero. norm may be null. */
IGPTDEF igpt_result igpt_step(igpt_session *session, igpt_model *model, double *norm,
                              const igpt_adam_desc *desc);

typedef enum igpt_schedule_shape {
  IGPT_COSINE = 0, IGPT_CONSTANT, IGPT_LINEAR
} igpt_schedule_shape;

typedef struct igpt_schedule_desc {
  igpt_schedule_shape shape;
  double rate;                    /* at the end of the warm-up */
  double warmup;                  /* linear from 0 over this many steps */
  double steps;                   /* the whole run, warm-up included */
  double end;                     /* final rate as a part of `rate`; 0: down to zero */
} igpt_schedule_desc;

/* The rate for step number `step`, 0-based: (step + 1) / warmup of it while warming up. Fractional
   steps let a wall clock drive it. */
IGPTDEF double igpt_schedule(const igpt_schedule_desc *desc, double step);

/* Where a run stands: what a checkpoint holds besides weights and moments. */
typedef struct igpt_progress {
  uint64_t step;                  /* optimiser steps taken */
  uint64_t picture;               /* place in the data: pictures consumed since the start */
  igpt_rng rng;                   /* the caller's stream (order, augmentation, masks) */
  double   seconds;               /* wall clock spent */
  double   user[4];               /* the caller's */
} igpt_progress;

/* Exact checkpoints: a run resumed from one goes on with the same bits. Reading needs a model of
   the same shape (IGPT_MISMATCH names what differs) and verifies the whole file before it writes.
   If the source fails only after that, the old weights and moments are put back; they were kept
   where activations lie, and where these take less than 8 bytes a weight (batch * T below about
   2 C; 4 C where activations are bfloat16; up to 24 C with `recompute`), the weights are NaN
   instead, until a checkpoint is read, and the log says so. Gradients are then zero. Infinite or
   NaN weights and moments are not written: IGPT_NOT_FINITE. */
IGPTDEF igpt_result igpt_checkpoint_write(const igpt_session *session, const igpt_model *model,
                                          const igpt_progress *progress, const igpt_sink *sink);
IGPTDEF igpt_result igpt_checkpoint_read(igpt_session *session, igpt_model *model,
                                         igpt_progress *progress, const igpt_source *source);

#endif /* IGPT_NO_TRAIN */

/* ---- linear probe --------------------------------------------------------------------------- */

typedef enum igpt_probe_method { IGPT_LBFGS = 0, IGPT_SGD } igpt_probe_method;

typedef struct igpt_probe_desc {
  igpt_probe_method method;
  int            classes;         /* K; 0: the largest label + 1 */
  double         inverse_l2;      /* scikit-learn's C; 0: 1. Minimises C sum(loss) + |W|^2/2 */
  int            no_intercept;
  int            standardise;     /* 1: features to mean 0, variance 1 (folded into W after) */
  int            max_iterations;  /* L-BFGS; 0: 1000 */
  double         tolerance;       /* L-BFGS: largest gradient component / N; 0: 1e-6 */
  double         rate, momentum;  /* SGD; 0: 0.1 and 0.9; the rate follows a cosine to 0 */
  int            epochs, batch;   /* SGD; 0: 30 and 256 */
  uint64_t       seed;            /* SGD: order of the rows */
  igpt_isa       isa;
  igpt_runner    runner;
  igpt_allocator allocator;
  igpt_watch     watch;
  igpt_log       log;
} igpt_probe_desc;

typedef struct igpt_probe_report {
  int    iterations;
  int    converged;               /* 1: the tolerance was met */
  double objective;               /* mean loss + |W|^2 / (2 C N), in nats */
  double gradient;                /* largest component of the gradient of the mean */
} igpt_probe_report;

typedef struct igpt_probe igpt_probe;

/* Multinomial logistic regression. x: (N,D) row-major, labels: (N) in 0..K-1, each class at least
   once. Standardised features have intercepts even with no_intercept: those of the means. report
   may be null. */
IGPTDEF igpt_result igpt_probe_fit(igpt_probe **out, igpt_probe_report *report, const float *x,
                                   const int32_t *labels, size_t rows, size_t features,
                                   const igpt_probe_desc *desc);
IGPTDEF void        igpt_probe_destroy(igpt_probe *probe);

/* labels (N) and probabilities (N,K); either may be null. */
IGPTDEF igpt_result igpt_probe_predict(const igpt_probe *probe, int32_t *labels,
                                       float *probabilities, const float *x, size_t rows);

/* Weights (K,D) and intercepts (K), for raw features; they live as long as the probe. */
IGPTDEF const float *igpt_probe_weights(const igpt_probe *probe, int *classes, size_t *features);
IGPTDEF const float *igpt_probe_intercepts(const igpt_probe *probe);

/* ---- .npy arrays ---------------------------------------------------------------------------- */

typedef enum igpt_npy_type {
  IGPT_NPY_U8, IGPT_NPY_I8, IGPT_NPY_U16, IGPT_NPY_I16, IGPT_NPY_U32, IGPT_NPY_I32, IGPT_NPY_U64,
  IGPT_NPY_I64, IGPT_NPY_F32, IGPT_NPY_F64, IGPT_NPY_BOOL
} igpt_npy_type;

typedef struct igpt_npy {
  igpt_npy_type type;
  int           big_endian;       /* of the file; readers convert */
  int           rank;             /* 0..8, C order only */
  uint64_t      shape[8];
  uint64_t      count;            /* product of the shape */
  uint64_t      offset, bytes;    /* of the data in the file */
} igpt_npy;

/* Header of a version 1, 2 or 3 file, checked against the source's size. */
IGPTDEF igpt_result igpt_npy_open(igpt_npy *out, const igpt_source *source, const igpt_log *log);
/* Elements [first, first + count) as the machine's own numbers: float or int64. */
IGPTDEF igpt_result igpt_npy_read_f32(const igpt_npy *npy, float *to, uint64_t first, size_t count,
                                      const igpt_source *source);
IGPTDEF igpt_result igpt_npy_read_i64(const igpt_npy *npy, int64_t *to, uint64_t first,
                                      size_t count, const igpt_source *source);
/* Writes a whole array of any type, always little-endian. */
IGPTDEF igpt_result igpt_npy_write(const igpt_sink *sink, igpt_npy_type type, const void *data,
                                   int rank, const uint64_t *shape);

/* ---- optional: paths ------------------------------------------------------------------------ */
#ifndef IGPT_NO_STDIO

/* A source over a file opened for reading, and its end. */
IGPTDEF igpt_result igpt_file_open(igpt_source *out, const char *path, const igpt_log *log);
IGPTDEF void        igpt_file_close(igpt_source *source);

/* Writes `path` as a whole or not at all: `body` writes to path.tmp, which is flushed to disk and
   renamed, so a path has one writer at a time. What has that name before (on POSIX systems either
   name), be it a link or a device, is replaced by the file. Returns what body returns, or
   IGPT_WRITE_ERROR. */
IGPTDEF igpt_result igpt_file_replace(const char *path, const igpt_log *log,
                                      igpt_result (*body)(void *user, const igpt_sink *sink),
                                      void *user);

IGPTDEF igpt_result igpt_model_load(igpt_model **out, const char *path,
                                    const igpt_model_desc *desc);            /* desc may be null */
IGPTDEF igpt_result igpt_model_save(const igpt_model *model, const char *path);
#ifndef IGPT_NO_TRAIN
IGPTDEF igpt_result igpt_checkpoint_load(igpt_session *session, igpt_model *model,
                                         igpt_progress *progress, const char *path);
IGPTDEF igpt_result igpt_checkpoint_save(const igpt_session *session, const igpt_model *model,
                                         const igpt_progress *progress, const char *path);
#endif
#endif /* IGPT_NO_STDIO */

/* ---- optional: threads ---------------------------------------------------------------------- */
#ifndef IGPT_NO_THREADS

typedef struct igpt_pool igpt_pool;

/* workers counts the caller's thread too: workers - 1 threads are started; 0: one a processor. They
   sleep when there is no work. allocator may be null. On failure *out is null. */
IGPTDEF igpt_result igpt_pool_create(igpt_pool **out, int workers, const igpt_allocator *allocator);
IGPTDEF igpt_runner igpt_pool_runner(igpt_pool *pool);   /* null pool: the plain loop */
IGPTDEF void        igpt_pool_destroy(igpt_pool *pool);  /* null is fine */
#endif

#ifdef __cplusplus
}
#endif
#endif /* IGPT_H */
#ifdef IGPT_IMPLEMENTATION
#ifndef IGPT__IMPLEMENTED
#define IGPT__IMPLEMENTED

/* ==== 3. compiler glue =======================================================================

   Everything that depends on compiler or processor is named here once; the rest of the file is
   plain C99 that is also C++11.                                                                  */

#include <math.h>
#include <stdarg.h>
#include <string.h>

#if !defined(IGPT_MALLOC) && !defined(IGPT_FREE)
#include <stdlib.h>
#define IGPT_MALLOC(bytes) malloc(bytes)
#define IGPT_FREE(block) free(block)
#if defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
#define IGPT__HUGE_PAGES 1        /* can be asked for where malloc is the system's */
#endif
#elif !defined(IGPT_MALLOC) || !defined(IGPT_FREE)
#error "igpt.h: define both IGPT_MALLOC and IGPT_FREE, or neither"
#endif

/* -ffast-math lets the compiler assume that there is no infinity and no NaN, and reorder sums:
   masks, softmax and the determinism of the whole file would be gone. */
#if defined(__FAST_MATH__) && !defined(IGPT_ALLOW_FAST_MATH)
#error "igpt.h: compile without -ffast-math and -Ofast (or define IGPT_ALLOW_FAST_MATH, knowingly)"
#endif

/* Parts 6 and 7 are compiled once per instruction set: the file includes itself by this name.
   __FILE__ would fail where the header is not in the compiler's working directory. */
#ifndef IGPT__SELF
#define IGPT__SELF "igpt.h"
#endif

/* The host's assertion, if it gives one, of what the code itself guarantees. */
#ifndef IGPT_ASSERT
#define IGPT_ASSERT(condition) ((void)0)
#endif

#if !defined(IGPT_NO_SIMD) && (defined(__x86_64__) || defined(_M_X64)) && !defined(__MINGW32__)
#define IGPT__X86 1               /* MinGW's gcc does not align the stack for 32-byte spills */
#include <immintrin.h>            /* once, outside every pass */
#ifdef _MSC_VER
#include <intrin.h>
#endif
#else
#define IGPT__X86 0
#endif

#if IGPT__X86 && !defined(IGPT_NO_AVX512)
#define IGPT__AVX512 1
#else
#define IGPT__AVX512 0
#endif

/* Tiles need a compiler that knows them, and a system that is asked for them as Linux is. */
#if IGPT__AVX512 && !defined(IGPT_NO_AMX) && defined(__linux__) && !defined(__ILP32__) && \
    !defined(__INTEL_COMPILER) && \
    ((defined(__clang__) && __clang_major__ >= 12) || \
     (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11))
#define IGPT__AMX 1
#else
#define IGPT__AMX 0
#endif

#if !defined(IGPT_NO_SIMD) && !defined(__AARCH64EB__) && \
    (defined(__aarch64__) || defined(_M_ARM64))
#define IGPT__NEON 1              /* part of the 64-bit baseline: nothing to detect */
#include <arm_neon.h>
#else
#define IGPT__NEON 0
#endif

#if !defined(IGPT_NO_SIMD) && defined(__wasm_simd128__)
#define IGPT__WASM 1              /* WebAssembly cannot ask either: a module has it or not */
#include <wasm_simd128.h>
#else
#define IGPT__WASM 0
#endif

/* Where a thread keeps how it rounds, and its exceptions. */
#if defined(__x86_64__) || defined(_M_X64)
#define IGPT__FLOATS_X86 1
#include <xmmintrin.h>
#elif defined(__aarch64__) && defined(__GNUC__)
#define IGPT__FLOATS_ARM 1
#elif (defined(__unix__) && !defined(__wasm__)) || defined(__APPLE__)
#define IGPT__FLOATS_C99 1
#include <fenv.h>
#endif

#if defined(__GNUC__) || defined(__clang__)
#define IGPT__TARGET(isa) __attribute__((target(isa)))
#define IGPT__UNUSED __attribute__((unused))
#define IGPT__NOINLINE __attribute__((noinline))
#define IGPT__PREFETCH(p) __builtin_prefetch(p)
#define IGPT__PREFETCH_L2(p) __builtin_prefetch(p, 0, 2)
#define IGPT__INLINE static inline __attribute__((always_inline))   /* inside one pass only */
#else
#define IGPT__TARGET(isa)         /* MSVC accepts any intrinsic anywhere */
#define IGPT__UNUSED
#define IGPT__NOINLINE
#define IGPT__PREFETCH(p) ((void)(p))
#define IGPT__PREFETCH_L2(p) ((void)(p))
#define IGPT__INLINE static inline
#endif

/* The address `bytes` beyond p, to be asked for. Nothing need be there, which a pointer minds. */
#define IGPT__BEYOND(p, bytes) ((const void *)((uintptr_t)(p) + (bytes)))

/* Without this pragma gcc -O2 falls from 103 to 36 GFLOP/s on AVX2: the accumulators leave
   the registers. */
#if defined(__clang__)
#define IGPT__UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define IGPT__UNROLL _Pragma("GCC unroll 16")
#else
#define IGPT__UNROLL
#endif

/* x as a float and no more. The x87 computes in 80 bits (a method of 2; of -1: here and there), and
   compilers keep them across a cast that should drop them: clang always, gcc without -std=c99.
   Memory does drop them. */
#if defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 2 || __FLT_EVAL_METHOD__ == -1)
IGPT__INLINE float igpt__single(float x)
{
  volatile float stored = x;
  return stored;
}
#define IGPT__SINGLE(x) igpt__single(x)
#else
#define IGPT__SINGLE(x) ((float)(x))
#endif

#define IGPT__CAT_(a, b) a##b
#define IGPT__CAT(a, b) IGPT__CAT_(a, b)

#define IGPT__LARGEST 3.40282347e38f   /* of float32 */
#define IGPT__MAGIC 12582912.0f   /* 1.5 * 2^23: floats of this size are whole numbers */
#define IGPT__COUNT(array) (sizeof(array) / sizeof *(array))

/* ==== 4. small tools =========================================================================

   What everything else stands on: the error table, one formatter for the sentences in the log,
   size arithmetic that cannot wrap, an arena, the processor's state, the loop over tasks, and
   bfloat16.                                                                                      */

const char *igpt_error_string(igpt_result result)
{
  switch (result) {
#define IGPT__CASE(name, value, text) case name: return text;
    IGPT_RESULTS(IGPT__CASE)
#undef IGPT__CASE
    case IGPT__RESULT_FORCE_INT: break;
  }
  return "unknown result";
}

/* ---- sentences ------------------------------------------------------------------------------ */

/* Appends to a string in text[capacity], cutting what does not fit; returns the new length. */
static size_t igpt__put_text(char *text, size_t capacity, size_t used, const char *s)
{
  while (*s && used + 1 < capacity) text[used++] = *s++;
  text[used] = 0;
  return used;
}

static size_t igpt__put_integer(char *text, size_t capacity, size_t used, uint64_t value)
{
  char digits[24];
  int n = (int)sizeof digits - 1;
  digits[n] = 0;
  do digits[--n] = (char)('0' + (int)(value % 10)); while (value /= 10);
  return igpt__put_text(text, capacity, used, digits + n);
}

/* Six decimals, of the number or, below 1e-4 and from 1e9 on, of what stands before its exponent:
   good enough for a sentence. */
static size_t igpt__put_real(char *text, size_t capacity, size_t used, double value)
{
  int exponent = 0, i;
  double scaled;
  if (!(value == value)) return igpt__put_text(text, capacity, used, "nan");
  if (value < 0) { used = igpt__put_text(text, capacity, used, "-"); value = -value; }
  if (value - value != 0) return igpt__put_text(text, capacity, used, "inf");
  if (value > 0 && (value < 1e-4 || value >= 1e9)) {
    while (value >= 10) { value /= 10; exponent++; }
    while (value < 1) { value *= 10; exponent--; }
    if (value >= 9.9999995) { value = 1; exponent++; }
  }
  scaled = value + 0.5e-6;
  used = igpt__put_integer(text, capacity, used, (uint64_t)scaled);
  scaled -= (double)(uint64_t)scaled;
  if (scaled >= 1e-6) {
    char fraction[8];
    fraction[0] = '.';
    for (i = 1; i <= 6; i++) {
      scaled *= 10;
      fraction[i] = (char)('0' + (int)scaled);
      scaled -= (int)scaled;
    }
    while (fraction[--i] == '0') {}
    fraction[i + 1] = 0;
    used = igpt__put_text(text, capacity, used, fraction);
  }
  if (exponent) {
    used = igpt__put_text(text, capacity, used, exponent < 0 ? "e-" : "e");
    used = igpt__put_integer(text, capacity, used, (uint64_t)(exponent < 0 ? -exponent : exponent));
  }
  return used;
}

/* The last 150 bytes: what is wrong with a long path has to find room behind it. */
static const char *igpt__end_of(const char *text)
{
  const size_t length = strlen(text);
  return length > 150 ? text + length - 150 : text;
}

/* A formatter of six words, so that the library needs no stdio:
   %s const char *, %p its end, %d int, %z size_t, %u uint64_t, %g double. */
static void igpt__format(char *text, size_t capacity, const char *format, va_list args)
{
  size_t used = 0;
  text[0] = 0;
  for (; *format; format++) {
    if (*format != '%') {
      char one[2];
      one[0] = *format;
      one[1] = 0;
      used = igpt__put_text(text, capacity, used, one);
      continue;
    }
    switch (*++format) {
      case 's': used = igpt__put_text(text, capacity, used, va_arg(args, const char *)); break;
      case 'p':
        used = igpt__put_text(text, capacity, used, igpt__end_of(va_arg(args, const char *)));
        break;
      /* NOLINTNEXTLINE: size_t is not uint64_t everywhere */
      case 'z': used = igpt__put_integer(text, capacity, used, va_arg(args, size_t)); break;
      case 'u': used = igpt__put_integer(text, capacity, used, va_arg(args, uint64_t)); break;
      case 'g': used = igpt__put_real(text, capacity, used, va_arg(args, double)); break;
      case 'd': {
        int value = va_arg(args, int);
        if (value < 0) used = igpt__put_text(text, capacity, used, "-");
        used = igpt__put_integer(text, capacity, used,
                                 value < 0 ? (uint64_t)0 - (uint64_t)value : (uint64_t)value);
        break;
      }
      default: return;
    }
  }
}

/* Hands a sentence to the log, if there is one, and returns the result it was given. */
static igpt_result igpt__fail(const igpt_log *log, igpt_result result, const char *format, ...)
{
  if (log && log->line) {
    char text[400];
    va_list args;
    va_start(args, format);
    igpt__format(text, sizeof text, format, args);
    va_end(args);
    log->line(log->user, result, text);
  }
  return result;
}

#ifdef __clang_analyzer__         /* it does not look into functions that end with "..." */
#define igpt__fail(log, result, ...) (igpt__fail(log, result, __VA_ARGS__), result)
#endif

/* ---- sizes ---------------------------------------------------------------------------------- */

/* Sizes that stay at SIZE_MAX once they have passed it, so that a chain of them is checked once, at
   the end, by comparing with SIZE_MAX. */
static size_t igpt__size_mul(size_t a, size_t b)
{
  return a && b > SIZE_MAX / a ? SIZE_MAX : a * b;
}

static size_t igpt__size_add(size_t a, size_t b) { return b > SIZE_MAX - a ? SIZE_MAX : a + b; }

static size_t igpt__size_round(size_t a, size_t multiple)      /* up */
{
  size_t rest = a % multiple;
  return rest ? igpt__size_add(a, multiple - rest) : a;
}

static size_t igpt__min_size(size_t a, size_t b) { return a < b ? a : b; }
static size_t igpt__max_size(size_t a, size_t b) { return a > b ? a : b; }
static size_t igpt__divide_up(size_t a, size_t b) { return a / b + (a % b != 0); }

/* ---- memory --------------------------------------------------------------------------------- */

#define IGPT__ALIGN 64            /* a cache line, and the widest vector */

/* Linux gives a program pages of 4 KB. A model has more of them than a processor can keep the
   addresses of, so larger ones are asked for. <sys/mman.h> declares the call only to those who
   asked before the first include. */
#ifdef IGPT__HUGE_PAGES
extern int igpt__madvise(void *from, size_t bytes, int advice) __asm__("madvise");
#endif

static void *igpt__default_alloc(void *user, size_t bytes)
{
  void *block = IGPT_MALLOC(bytes);
  (void)user;
#ifdef IGPT__HUGE_PAGES
  if (block && bytes >= (size_t)8 << 20) {
    const size_t page = 65536;                /* any system's */
    const size_t before = (page - (uintptr_t)block % page) % page;
    igpt__madvise((char *)block + before, (bytes - before) / page * page, 14 /* MADV_HUGEPAGE */);
  }
#endif
  return block;
}

static void igpt__default_free(void *user, void *block, size_t bytes)
{
  (void)user;
  (void)bytes;
  IGPT_FREE(block);
}

/* IGPT_BAD_ARGUMENT if only one of the two functions is given. */
static igpt_result igpt__allocator_resolve(igpt_allocator *allocator, const igpt_log *log)
{
  if (!allocator->alloc && !allocator->free) {
    allocator->alloc = igpt__default_alloc;
    allocator->free = igpt__default_free;
  }
  if (!allocator->alloc || !allocator->free)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "allocator: alloc and free, both or neither");
  return IGPT_OK;
}

/* An arena is one block that a layout function walks over, taking aligned pieces in a fixed order.
   With base null it only counts: the same walk gives the size and the pointers. */
typedef struct igpt__arena {
  char  *base;
  size_t used;                    /* SIZE_MAX: does not fit in size_t */
} igpt__arena;

static void *igpt__take(igpt__arena *arena, size_t count, size_t size)
{
  size_t at = arena->used, bytes = igpt__size_round(igpt__size_mul(count, size), IGPT__ALIGN);
  arena->used = igpt__size_add(at, bytes);
  return arena->base && arena->used != SIZE_MAX ? arena->base + at : NULL;
}

static float *igpt__take_floats(igpt__arena *arena, size_t count)
{
  return (float *)igpt__take(arena, count, sizeof(float));
}

/* A block that may come from anywhere: aligned up, and remembered for its release. */
typedef struct igpt__block {
  void  *raw;                     /* what the allocator gave; null: the caller's memory */
  size_t bytes;                   /* what was asked for */
  char  *aligned;
} igpt__block;

/* What to ask for, so that `bytes` are left after aligning */
static size_t igpt__with_alignment(size_t bytes) { return igpt__size_add(bytes, IGPT__ALIGN - 1); }

/* `bytes` already has room for aligning. memory may be null. */
static igpt_result igpt__block_open(igpt__block *block, size_t bytes, void *memory,
                                    size_t memory_bytes, const igpt_allocator *allocator,
                                    const igpt_log *log)
{
  void *start = memory;
  memset(block, 0, sizeof *block);
  if (bytes == SIZE_MAX)
    return igpt__fail(log, IGPT_TOO_LARGE, "the sizes asked for do not fit in size_t");
  if (memory && memory_bytes < bytes)
    return igpt__fail(log, IGPT_OUT_OF_MEMORY, "memory_bytes is %z, and %z are needed",
                      memory_bytes, bytes);
  if (!memory) {
    start = block->raw = allocator->alloc(allocator->user, bytes);
    if (!start) return igpt__fail(log, IGPT_OUT_OF_MEMORY, "no memory: %z bytes", bytes);
  }
  block->bytes = bytes;
  block->aligned = (char *)start + (IGPT__ALIGN - (uintptr_t)start % IGPT__ALIGN) % IGPT__ALIGN;
  return IGPT_OK;
}

static void igpt__block_close(const igpt__block *block, const igpt_allocator *allocator)
{
  if (block->raw) allocator->free(allocator->user, block->raw, block->bytes);
}

/* ---- the processor's state ------------------------------------------------------------------ */

/* How a thread rounds, what it does with denormals (numbers below 1.2e-38), which exceptions stop
   the program and which have occurred is a state of the processor, and it is the host's. Every
   entry that computes, and every task on a thread of the runner, puts it aside, computes with a
   state of its own, and puts it back as it was: to nearest, nothing stops, and, where the processor
   can, denormals are zero: some processors take many times as long for them, and to a network they
   mean nothing. It costs ten nanoseconds, see bench/denormals.c. */
#if defined(IGPT__FLOATS_X86)
typedef struct igpt__floats {
  unsigned sse;
#ifdef __MINGW32__                /* its log and cos are the x87's, which has a state of its own */
  char x87[28];
#endif
} igpt__floats;
enum { IGPT__EXACT = 0x1f80, IGPT__FLUSH = 0x9fc0 };       /* all masked; FTZ and DAZ */
static igpt__floats igpt__floats_own(unsigned how)
{
  igpt__floats host;
#ifdef __MINGW32__
  const unsigned short usual = 0x37f;
  __asm__ __volatile__("fnstenv %0\n\tfldcw %1" : "=m"(host.x87) : "m"(usual));
#endif
  host.sse = _mm_getcsr();
  _mm_setcsr(how);
  return host;
}
static void igpt__floats_back(igpt__floats host)
{
#ifdef __MINGW32__
  __asm__ __volatile__("fldenv %0" : : "m"(host.x87));
#endif
  _mm_setcsr(host.sse);
}
#elif defined(IGPT__FLOATS_ARM)
typedef struct igpt__floats {
  uint64_t control, status;
} igpt__floats;
enum { IGPT__EXACT = 0, IGPT__FLUSH = 1 << 24 };            /* FZ */
static igpt__floats igpt__floats_own(uint64_t how)
{
  igpt__floats host;
  __asm__ __volatile__("mrs %0, fpcr\n\tmrs %1, fpsr\n\tmsr fpcr, %2"
                       : "=&r"(host.control), "=&r"(host.status) : "r"(how) : "memory");
  return host;
}
static void igpt__floats_back(igpt__floats host)
{
  __asm__ __volatile__("msr fpcr, %0\n\tmsr fpsr, %1"
                       : : "r"(host.control), "r"(host.status) : "memory");
}
#elif defined(IGPT__FLOATS_C99)
typedef fenv_t igpt__floats;
enum { IGPT__EXACT, IGPT__FLUSH };                          /* C knows nothing of denormals */
static igpt__floats igpt__floats_own(int how)
{
  igpt__floats host;
  (void)how;
  fegetenv(&host);
  fesetenv(FE_DFL_ENV);
  return host;
}
static void igpt__floats_back(igpt__floats host) { fesetenv(&host); }
#else
typedef int igpt__floats;                                   /* the host's state is used */
enum { IGPT__EXACT, IGPT__FLUSH };
static igpt__floats igpt__floats_own(int how) { return how; }
static void igpt__floats_back(igpt__floats host) { (void)host; }
#endif

/* IGPT__ENTRY(igpt_f, (parameters), (their names)) { ... } defines igpt_f with its body inside of
   that. The body is a function of its own, so that no arithmetic moves out. Files and what is
   decided once are EXACT: they keep denormals. */
#define IGPT__ENTRY_OF(type, how, name, parameters, names)                                        \
  static IGPT__NOINLINE type IGPT__CAT(name, _inside) parameters;                                 \
  type name parameters                                                                            \
  {                                                                                               \
    const igpt__floats host = igpt__floats_own(how);                                              \
    const type result = IGPT__CAT(name, _inside) names;                                           \
    igpt__floats_back(host);                                                                      \
    return result;                                                                                \
  }                                                                                               \
  static type IGPT__CAT(name, _inside) parameters
#define IGPT__ENTRY(name, parameters, names)                                                      \
  IGPT__ENTRY_OF(igpt_result, IGPT__FLUSH, name, parameters, names)
#define IGPT__EXACT_ENTRY(name, parameters, names)                                                \
  IGPT__ENTRY_OF(igpt_result, IGPT__EXACT, name, parameters, names)

/* ---- tasks ---------------------------------------------------------------------------------- */

static int igpt__workers(const igpt_runner *runner)
{
  return runner && runner->run && runner->workers > 0 ? runner->workers : 1;
}

static igpt_result igpt__runner_check(const igpt_runner *runner, const igpt_log *log)
{
  if (runner->workers < 0 || runner->workers > IGPT_MAX_WORKERS)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "runner.workers is %d, and must be 0..%d",
                      runner->workers, IGPT_MAX_WORKERS);
  return IGPT_OK;
}

/* What the runner is given: a task, in the library's own state of whichever thread it is on. */
typedef struct igpt__lent {
  igpt_task *task;
  void *arg;
} igpt__lent;

static void igpt__lent_task(void *arg, size_t index, int worker)
{
  const igpt__lent *lent = (const igpt__lent *)arg;
  const igpt__floats host = igpt__floats_own(IGPT__FLUSH);
  lent->task(lent->arg, index, worker);
  igpt__floats_back(host);
}

/* task(arg, 0..count-1, worker). A single task is not worth waking anyone. */
static void igpt__run(const igpt_runner *runner, igpt_task *task, void *arg, size_t count)
{
  igpt__lent lent;
  size_t i;
  lent.task = task;
  lent.arg = arg;
  if (count > 1 && runner && runner->run && runner->workers > 1)
    runner->run(runner->user, igpt__lent_task, &lent, count);
  else
    for (i = 0; i < count; i++) task(arg, i, 0);
}

static int igpt__stopped(const igpt_watch *watch, double done)
{
  return watch && watch->poll && watch->poll(watch->user, done) != 0;
}

/* ---- numbers -------------------------------------------------------------------------------- */

static int igpt__finite(double x) { return x - x == 0; }

static float igpt__round_bf16(float x)     /* to nearest even; a NaN stays what it is */
{
  uint32_t bits;
  if (x != x) return x;
  memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
  memcpy(&x, &bits, sizeof bits);
  return x;
}

static float igpt__widen(uint16_t half)    /* bfloat16 */
{
  const uint32_t bits = (uint32_t)half << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static uint16_t igpt__half(float x)        /* the same in 16 bits; a NaN stays a NaN */
{
  uint32_t bits;
  x = igpt__round_bf16(x);
  memcpy(&bits, &x, sizeof bits);
  return (uint16_t)(x != x ? bits >> 16 | 0x40u : bits >> 16);
}

/* ==== 5. random numbers ======================================================================

   Philox4x32-10 is ten rounds of a multiply-and-swap network that turns a 128-bit counter and a
   64-bit key into 128 random bits. There is no hidden state to save, to share or to race on: number
   `index` of stream `stream` under `seed` is the same in every thread, batch and resumed run.
   Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.            */

/* counter = (index / 4, stream), key = seed: four numbers at a time */
static void igpt__philox(uint32_t out[4], uint64_t block, uint64_t stream, uint64_t seed)
{
  uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32);
  uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  int round;
  for (round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

igpt_rng igpt_rng_seed(uint64_t seed, uint64_t stream)
{
  igpt_rng rng;
  rng.seed = seed;
  rng.stream = stream;
  rng.index = 0;
  return rng;
}

uint32_t igpt_rng_next(igpt_rng *rng)
{
  uint32_t four[4];
  igpt__philox(four, rng->index / 4, rng->stream, rng->seed);
  return four[rng->index++ % 4];
}

float igpt_rng_uniform(igpt_rng *rng)
{
  return (float)(igpt_rng_next(rng) >> 8) * 5.9604644775390625e-8f;           /* 2^-24 */
}

/* Lemire's multiplication, with the rejection that removes the bias. */
uint32_t igpt_rng_below(igpt_rng *rng, uint32_t bound)
{
  uint32_t least;
  uint64_t product;
  if (bound == 0) return 0;
  least = (uint32_t)(0u - bound) % bound;
  do product = (uint64_t)igpt_rng_next(rng) * bound; while ((uint32_t)product < least);
  return (uint32_t)(product >> 32);
}

/* Box and Muller: two uniform words make two normal deviates. */
static void igpt__normal_pair(float out[2], uint32_t a, uint32_t b)
{
  const double step = 2.3283064365386963e-10;                                 /* 2^-32 */
  double radius = sqrt(-2 * log(((double)a + 0.5) * step));
  double angle = 6.283185307179586 * ((double)b * step);
  out[0] = (float)(radius * cos(angle));
  out[1] = (float)(radius * sin(angle));
}

/* The second deviate would be a state to keep: it is dropped. */
IGPT__ENTRY_OF(float, IGPT__EXACT, igpt_rng_normal, (igpt_rng *rng), (rng))
{
  uint32_t a = igpt_rng_next(rng), b = igpt_rng_next(rng);
  float pair[2];
  igpt__normal_pair(pair, a, b);
  return pair[0];
}

void igpt_rng_shuffle(igpt_rng *rng, uint32_t *order, size_t count)
{
  size_t i;
  for (i = count; i > 1; i--) {
    uint32_t j = igpt_rng_below(rng, (uint32_t)i), swap = order[j];
    order[j] = order[i - 1];
    order[i - 1] = swap;
  }
}

/* ---- the table of kernels: what part 6 provides, once per instruction set -------------------- */

/* Constants of one AdamW step, all float32. See `adam` below. */
typedef struct igpt__adam {
  float scale;                    /* of the gradient: 1 / pictures, times the clip */
  float beta1, beta2;
  float rate;                     /* rate / (1 - beta1^t) */
  float root;                     /* 1 / sqrt(1 - beta2^t) */
  float epsilon;
  float decay;                    /* rate * weight_decay */
} igpt__adam;

enum {
  IGPT__NARROW_COLUMNS = 64,      /* of a panel of weights of few bits */
  IGPT__NARROW_AHEAD   = 4096,    /* bytes from what is read to what is asked for */
  IGPT__TILE_AHEAD     = 16       /* steps, likewise */
};

/* One constant instance per instruction set. Vectors are runs of floats at any alignment; any
   length, zero included; nothing outside is touched. An element's result depends on its own inputs
   alone and not on its place, and, if these are finite, is the same bit for bit in all rows but
   WASM, which has no fused multiply-add, and GENERIC, where the compiler decides. Only sums over a
   vector depend on W. Pointers do not overlap unless said. */
struct igpt_kernels {
  igpt_isa isa;
  int tile_rows;                  /* MR */
  int tile_columns;               /* NR * W, called N below */

  /* c[i][j] = (accumulate ? c[i][j] : 0) + sum over p of a[p][i] * b[p][j], i < m <= MR, j < N.
     a is packed, (k, MR), with all MR columns present; row p of b starts at b + p * ldb. Each
     element is ONE chain of multiply-adds in ascending p that starts from c: cutting k, or moving
     rows and columns to other tiles, never changes a bit. */
  void (*tile)(float *c, size_t ldc, const float *a, const float *b, size_t ldb, size_t m,
               size_t k, int accumulate);

  /* The same chains, so the same bits, with nothing packed: y (m,n) = (accumulate ? y : 0) +
     x (m,k) w (k,n). Reads w once for every 16 rows of x. round: operands to bfloat16 first. */
  void (*thin)(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
               size_t m, size_t n, size_t k, int accumulate, int round);

  /* Panels of `lanes` rows, each stored with k outside: to[panel][p][lane] =
     from[(panel * lanes + lane) * lane_stride + p * k_stride], p < k, and zero for rows from
     `count` on. round: to bfloat16. With lanes and k_stride 1 `to` may be `from`. */
  void (*pack)(float *to, size_t lanes, const float *from, size_t lane_stride, size_t k_stride,
               size_t count, size_t k, int round);

  /* The chains of tile and thin again, with numbers of `bytes` bytes in w: y (m,n) = (accumulate ?
     y : 0) + x (m,k) w (k,n). x is packed, (k, lanes), m <= lanes = 1, MR / 3, 2 MR / 3 or MR.
     w lies in panels of 64 columns, `apart` numbers from one to the next, whose rows are ldw apart,
     and may be read up to the next multiple of 16 columns. bytes 4: floats; 2: bfloat16; 1: int8_t,
     where column j times scale[j] is meant: its chain starts from zero, and y = chain * scale
     [+ y], rounded once, comes after it. */
  void (*narrow)(float *y, size_t ldy, const float *x, size_t lanes, const void *w, size_t ldw,
                 size_t apart, int bytes, const float *scale, size_t m, size_t n, size_t k,
                 int accumulate);

  void (*halve)(uint16_t *to, const float *from, size_t n); /* bfloat16, to nearest even */

  /* most[lane] = max(most[lane], |x[p][lane]| for all p < k), or NaN where some x is not finite; x
     is (k, lanes), lanes a multiple of 16. */
  void (*peaks)(float *most, const float *x, size_t lanes, size_t k);

  /* to[p][lane] = x[p][lane] * factor[lane], rounded to nearest even; must be in -127..127 */
  void (*quantise)(int8_t *to, const float *x, const float *factor, size_t lanes, size_t k);

  float  (*dot)(const float *x, const float *y, size_t n);

  /* y (m,n) = x (m,k) times the transpose of w (n,k), for few n and long k */
  void   (*dots)(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                 size_t m, size_t n, size_t k);

  double (*sum_squares)(const float *x, size_t n);          /* in float64 */
  float  (*maximum)(const float *x, size_t n);    /* minus infinity for n = 0; a NaN may be lost */
  void   (*axpy)(float *y, float a, const float *x, size_t n);           /* y += a x */
  void   (*add)(float *y, const float *x, size_t n);                     /* y += x */
  void   (*scale)(float *y, float a, size_t n);                          /* y *= a */

  /* y = exp(scale * x - shift), and the sum of it. y may be x, or null (the sum alone).
     exp of minus infinity is exactly 0. */
  float  (*exp_sum)(float *y, const float *x, float scale, float shift, size_t n);

  /* One more block of a softmax, a query a column: n rows s (n,tile_columns) of scores become
     exp(scale * s - most), where most, a query, is the largest scaled score so far. What earlier
     blocks left, total and the rows of o (E,tile_columns), is multiplied by exp(old most - most),
     and the block's sum, in the order of its rows, is added to total. round: s to bfloat16. */
  void   (*softmax_block)(float *s, size_t n, float scale, float *most, float *total, float *o,
                          size_t E, int round);

  /* A column an example, `lanes` of them, a multiple of 16: z (n,lanes) holds the logits, but minus
     infinity for the label's, which is in own. With p = softmax: z becomes p, own becomes
     p[label] - 1, and -log p[label] = gap + log(1 + excess), where nothing that is small has been
     added to what is large. */
  void   (*class_loss)(float *z, float *own, float *gap, float *excess, size_t n, size_t lanes);

  /* y = x * r * g with r = 1 / sqrt(mean(x^2) + epsilon), which is returned. y may be x, or null.
     If the mean is infinite, r is NaN: zero would look like a number. */
  float  (*norm)(float *y, const float *x, const float *g, float epsilon, size_t n);

  void   (*gelu)(float *y, const float *x, size_t n);       /* y = x sigmoid(1.702 x); y may be x */

  /* index[i] = the c with the smallest |points[i] - centres[c]|^2, the lowest on ties. points:
     (count,3); centres: planar (3,padded), padded a multiple of 16, 1e18f where there is none. */
  void   (*nearest)(uint16_t *index, const float *points, const float *centres, size_t count,
                    size_t padded);

  /* The same distances, to eight centres only, of each pixel's own choice: index[i] = the c with
     the smallest |rgb[i] - centres[c]|^2, where 4 c is in lists[which[i]]; on ties the one that is
     first in the list. centres: (.,4), lists: (.,8). */
  void   (*among)(uint16_t *index, const uint8_t *rgb, const float *centres,
                  const uint16_t *lists, const uint16_t *which, size_t count);

  /* beyond[i] > 0 only if some other centre is nearer than centre i to every place of the box from
     box[0..2] to box[3..5], by more than rounding could change. centres as in nearest. */
  void   (*beyond)(float *beyond, const float *centres, const float *box, size_t padded);

#ifndef IGPT_NO_TRAIN
  /* dx += and dg += the gradients of norm, from dy, x, g and the r that norm returned */
  void   (*norm_backward)(float *dx, float *dg, const float *dy, const float *x, const float *g,
                          float r, size_t n);

  void   (*gelu_backward)(float *dx, const float *dy, const float *x, size_t n); /* dx may be dy */

  /* of softmax, one row: ds = p * (ds - d) * scale, where ds comes in as dp and d = sum(p * dp).
     round: then ds and p to bfloat16. */
  void   (*softmax_backward)(float *ds, float *p, float d, float scale, size_t n, int round);

  /* One pass of AdamW over weights, both moments and the gradient, which becomes zero:
     g' = scale g;  m = beta1 m + (1 - beta1) g';  v = beta2 v + (1 - beta2) g'^2;
     w = w - decay w;  w = w - rate m / (sqrt(v) root + epsilon) */
  void   (*adam)(float *w, float *m, float *v, float *g, const igpt__adam *c, size_t n);
#endif
};

/* ---- tiles, or dot products: what part 7 provides, once for each way to run them ------------- */

enum { IGPT__PANEL = 32 };        /* lanes of a panel, and the step in which its k goes */

/* One head of one picture: T rows of E bfloat16, `stride` numbers apart in q, k, v and their
   gradients, `width` in out and its gradient. */
typedef struct igpt__head {
  size_t T, E, stride, width;
  const uint16_t *q, *k, *v;
  uint16_t *out;
  float *lse;                     /* (T) log of the sum of exp, or null */
  const uint16_t *dout;
  uint16_t *dq, *dk, *dv;
  float  scale;                   /* of scores */
  int    causal;
} igpt__head;

typedef enum igpt__to {           /* what becomes of a product's sums (m,n) */
  IGPT__TO_FLOATS,                /* c = sums + plus; plus may be c, or null: zeros */
  IGPT__TO_HALVES,                /* h = sums, and zeros up to a whole panel */
  IGPT__TO_GELU,                  /* h = sums and g = gelu(h), likewise; h may be g */
  IGPT__FROM_GELU                 /* h = sums times the derivative of gelu at g; turned = gelu(g) */
} igpt__to;

/* A product on tiles. A is packed, or rows of bfloat16 as they are. */
typedef struct igpt__tiled {
  size_t m, n, k;
  const uint16_t *a;              /* (m,k): the next row, the next 32 of k and the next 32 rows */
  size_t a_row, a_step, a_panel;  /* ... are so many numbers on; whole panels and steps exist */
  const uint16_t *b;              /* (k,n), packed */
  igpt__to to;
  float *c;
  const float *plus;
  uint16_t *h, *g;
  size_t ldc, ldh, ldg;           /* of c and plus; of h; of g */
  uint16_t *turned;               /* packed, with the rows as k ... */
  size_t turned_panel;            /* ... in panels of so many numbers */
} igpt__tiled;

/* Products of matrices of bfloat16, packed into panels of 32 lanes: a lane is a row of A or a
   column of B. Beyond the last lane and the last k there are zeros, up to whole panels and
   steps. */
typedef struct igpt__tiles {
  /* igpt__panels(count, k) numbers from from[lane * lane_stride + p * k_stride], rounded to nearest
     even (denormals to zero, as tiles take them): rows of tiles are lanes, as A's, or pairs of k,
     as B's. */
  void (*pack)(uint16_t *to, const float *from, size_t lane_stride, size_t k_stride, size_t count,
               size_t k, int pairs);

  /* The same from bfloat16, of which one stride is 1. */
  void (*fold)(uint16_t *to, const uint16_t *from, size_t lane_stride, size_t k_stride,
               size_t count, size_t k, int pairs);

  void (*multiply)(const igpt__tiled *product);

  /* Rows [first, end) of the head's out, and of its lse if that is not null; first is a multiple of
     32. scratch: igpt__attend_floats(T, E), 64-byte aligned, here and below. */
  void (*attend)(const igpt__head *head, size_t first, size_t end, float *scratch);

#ifndef IGPT_NO_TRAIN
  /* Over queries [query, query_end) and keys [key, key_end), each from a multiple of 32: dq, if not
     null, of these queries, to which all keys must belong that they see; dk and dv, if not null, of
     these keys, with all queries that see them. Every sum has one order, however this is cut. */
  void (*attend_backward)(const igpt__head *head, size_t query, size_t query_end, size_t key,
                          size_t key_end, float *scratch);
#endif
} igpt__tiles;

enum {
  IGPT__ATTEND_KEYS = 64,         /* whose scores for 32 queries are in the first cache */
  IGPT__ATTEND_WAIT = 256,        /* keys (a multiple of ATTEND_KEYS) whose P waits for V */
  IGPT__BACK_TALL   = 128,        /* keys of a block of the backward pass, ... */
  IGPT__BACK_WIDE   = 256         /* ... and its queries */
};

/* Numbers, not panels: `count` lanes by k, both rounded up to whole panels and steps */
static size_t igpt__panels(size_t count, size_t k)
{
  return igpt__size_mul(igpt__size_round(count, IGPT__PANEL), igpt__size_round(k, IGPT__PANEL));
}

/* A product but for its results; lda 0: A is packed in panels of its k */
static igpt__tiled igpt__tiled_of(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda,
                                  const uint16_t *b, igpt__to to)
{
  const size_t panel = IGPT__PANEL;
  igpt__tiled product;
  memset(&product, 0, sizeof product);
  product.m = m;
  product.n = n;
  product.k = k;
  product.a = a;
  product.a_row = lda ? lda : panel;
  product.a_step = lda ? panel : panel * panel;
  product.a_panel = panel * (lda ? lda : igpt__size_round(k, panel));
  product.b = b;
  product.to = to;
  return product;
}

/* Floats of scratch that attention on tiles takes: whole heads, packed for all products, and
   blocks. */
static size_t igpt__attend_floats(size_t T, size_t E)
{
  const size_t tall = igpt__size_round(T, IGPT__PANEL), wide = igpt__size_round(E, IGPT__PANEL);
  const size_t keys = igpt__min_size(tall, IGPT__BACK_TALL), head = igpt__panels(T, E);
  size_t forward = igpt__size_add(head, (32 + 16) * wide + 16 * IGPT__ATTEND_WAIT +
                                  32 * IGPT__ATTEND_KEYS), backward = 0;
#ifndef IGPT_NO_TRAIN
  backward = igpt__size_add(igpt__size_mul(head, 9) / 2, 2 * tall);
  backward = igpt__size_add(backward, 2 * keys * wide + 2 * 1024 +
                            keys * igpt__min_size(tall, IGPT__BACK_WIDE) * 3 / 2);
#else
  (void)keys;
#endif
  return igpt__max_size(forward, backward);
}

/* One instance of part 6 for each instruction set: the file includes itself for that part alone,
   with IGPT__PASS 1 for plain C, 2 AVX2, 3 AVX-512, 4 NEON, 0 WebAssembly. */
#define IGPT__PASS 1
#include IGPT__SELF
#if IGPT__X86
#define IGPT__PASS 2
#include IGPT__SELF
#if IGPT__AVX512
#define IGPT__PASS 3
#include IGPT__SELF
#endif
#endif
#if IGPT__NEON
#define IGPT__PASS 4
#include IGPT__SELF
#endif
#if IGPT__WASM
#define IGPT__PASS 0
#include IGPT__SELF
#endif

/* And of part 7: 7 on AMX's tiles or by dot products. Tests define IGPT__TILES, the igpt__tiles
   that sessions shall find, and have two more, on emulated tiles: 5 all in plain C, 6 with the
   vectors of the first. */
#ifdef IGPT__TILES
#define IGPT__PASS 5
#include IGPT__SELF
#if IGPT__AMX
#define IGPT__PASS 6
#include IGPT__SELF
#endif
#endif
#if IGPT__AMX
#define IGPT__PASS 7
#include IGPT__SELF
#endif

#endif /* IGPT__IMPLEMENTED */
#endif /* IGPT_IMPLEMENTATION */
#else  /* IGPT__PASS: from here to its #endif, part 6 or 7 for one instruction set */
#if IGPT__PASS <= 4

/* ==== 6. the kernels =========================================================================

   All arithmetic on long runs of numbers is here, each kernel once. The text below is compiled once
   per instruction set, each time with another meaning of the same twenty-odd vector words: one
   float at a time in plain C (the definition, and the oracle of the tests), eight with AVX2,
   sixteen with AVX-512, four with NEON and with WebAssembly's SIMD128. The words name registers, so
   that speed does not hang on a compiler's wish to vectorise, and every one of them rounds once,
   but for FMA in plain C and WebAssembly, which have to round the product too. Where a product
   feeds a sum the word is FMA, so that nothing else is left for a compiler to fuse. What each
   kernel has to do is said in the table at the end of part 5.

     V, W                 a vector, and its floats    MR, NR           rows and vectors of a tile
     LOAD STORE           W floats, any alignment     TR, DR           rows of `thin`, of `dots`
     NARROW               vectors of `narrow`, most
     LOADN STOREN         the first n, 0 < n < W      SPLAT            one float in every lane
     ADD SUB MUL DIV MAX  lane by lane                SQRT             correctly rounded
     FMA(a,b,c)           a * b + c, as said above    BELOW(x,y,a,b)   x < y ? a : b
     ZERO()               0 in every lane
     WHOLE(t) POWER(t)    n and 2^n for t = n + IGPT__MAGIC
     BF16                 rounds to bfloat16, ties to even
     LOADH STOREH         W bfloat16, which STOREH rounds to
     LOADB STOREB         W int8_t, likewise
     QUADS(a,b,c,d)       transposes the 4 by 4 blocks that four vectors hold side by side
     STOREQ(p,step,v)     the runs of four floats of v, `step` floats apart
     ROWS(p,m,n)          four floats from p + m, with AVX2 four more from p + n
     D DZERO SQUARES TOTAL   float64 sums of squares

   Fog, "Optimizing software in C++", 2004-2023, explains the hardware side.                      */

#if IGPT__PASS == 1
  #define K(name) IGPT__CAT(igpt__##name, _generic)
  #define ISA IGPT_ISA_GENERIC
  #define TARGET
  #define V float
  #define W 1
  #define MR 4
  #define NR 4
  #define NARROW 4
  #define TR 4
  #define DR 4
  #define ZERO() 0.0f
  #define SPLAT(x) IGPT__SINGLE(x)   /* C may keep more precision than float has, otherwise */
  #define LOAD(p) (*(p))
  #define STORE(p, v) (*(p) = (v))
  #define LOADN(p, n) ((void)(n), *(p))
  #define STOREN(p, v, n) ((void)(n), *(p) = (v))
  #define ADD(a, b) IGPT__SINGLE((a) + (b))
  #define SUB(a, b) IGPT__SINGLE((a) - (b))
  #define MUL(a, b) IGPT__SINGLE((a) * (b))
  #define DIV(a, b) IGPT__SINGLE((a) / (b))
  #define FMA(a, b, c) ADD(MUL(a, b), c)
  #define MAX(a, b) ((a) > (b) ? (a) : (b))
  #define SQRT(a) sqrtf(a)
  #define BELOW(x, y, a, b) ((x) < (y) ? (a) : (b))
  #define WHOLE(t) K(whole)(t)
  #define POWER(t) K(power)(t)
  #define BF16(v) igpt__round_bf16(v)
  #define LOADH(p) igpt__widen(*(p))
  #define STOREH(p, v) (*(p) = igpt__half(v))
  #define LOADB(p) ((float)*(p))
  #define STOREB(p, v) (*(p) = K(byte)(v))
  #define D double
  #define DZERO() 0.0
  #define SQUARES(d, v) ((d) + (double)(v) * (double)(v))
  #define TOTAL(d) (d)
#elif IGPT__PASS == 2
  #define K(name) IGPT__CAT(igpt__##name, _avx2)
  #define ISA IGPT_ISA_AVX2
  #define TARGET IGPT__TARGET("avx2,fma")
  #define V __m256
  #define W 8
  #define MR 6
  #define NR 2
  #define NARROW 8
  #define TR 4
  #define DR 2
  #define ZERO() _mm256_setzero_ps()
  #define SPLAT(x) _mm256_set1_ps(x)
  #define LOAD(p) _mm256_loadu_ps(p)
  #define STORE(p, v) _mm256_storeu_ps(p, v)
  #define LANES(n) _mm256_loadu_si256((const __m256i *)(const void *)(K(lanes) + W - (n)))
  #define LOADN(p, n) _mm256_maskload_ps(p, LANES(n))
  #define STOREN(p, v, n) _mm256_maskstore_ps(p, LANES(n), v)
  #define ADD(a, b) _mm256_add_ps(a, b)
  #define SUB(a, b) _mm256_sub_ps(a, b)
  #define MUL(a, b) _mm256_mul_ps(a, b)
  #define DIV(a, b) _mm256_div_ps(a, b)
  #define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
  #define MAX(a, b) _mm256_max_ps(a, b)
  #define SQRT(a) _mm256_sqrt_ps(a)
  #define BELOW(x, y, a, b) _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, y, _CMP_LT_OQ))
  #define WHOLE(t) _mm256_sub_ps(t, SPLAT(IGPT__MAGIC))
  #define POWER(t) K(power)(t)
  #define BF16(v) K(bf16)(v)
  #define LOADH(p) K(loadh)(p)
  #define STOREH(p, v) K(storeh)(p, v)
  #define LOADB(p) K(loadb)(p)
  #define STOREB(p, v) K(storeb)(p, v)
  #define STOREQ(p, step, v) K(storeq)(p, step, v)
  #define ROWS(p, m, n) K(rows)((p) + (m), (p) + (n))
  #define D __m256d
  #define DZERO() _mm256_setzero_pd()
  #define SQUARES(d, v) K(squares)(d, v)
  #define TOTAL(d) K(total)(d)
#elif IGPT__PASS == 3
  #define K(name) IGPT__CAT(igpt__##name, _avx512)
  #define ISA IGPT_ISA_AVX512
  #define TARGET IGPT__TARGET("avx512f,avx2,fma")
  #define V __m512
  #define W 16
  #define MR 12
  #define NR 2
  #define NARROW 16
  #define TR 8
  #define DR 4
  #define ZERO() _mm512_setzero_ps()
  #define SPLAT(x) _mm512_set1_ps(x)
  #define LOAD(p) _mm512_loadu_ps(p)
  #define STORE(p, v) _mm512_storeu_ps(p, v)
  #define LANES(n) ((__mmask16)((1u << (n)) - 1u))
  #define LOADN(p, n) _mm512_maskz_loadu_ps(LANES(n), p)
  #define STOREN(p, v, n) _mm512_mask_storeu_ps(p, LANES(n), v)
  #define ADD(a, b) _mm512_add_ps(a, b)
  #define SUB(a, b) _mm512_sub_ps(a, b)
  #define MUL(a, b) _mm512_mul_ps(a, b)
  #define DIV(a, b) _mm512_div_ps(a, b)
  #define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
  #define MAX(a, b) _mm512_maskz_max_ps(0xffff, a, b)       /* g++ 12 warns about the plain one */
  #define SQRT(a) _mm512_maskz_sqrt_ps(0xffff, a)
  #define BELOW(x, y, a, b) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), b, a)
  #define WHOLE(t) _mm512_sub_ps(t, SPLAT(IGPT__MAGIC))
  #define POWER(t) K(power)(t)
  #define BF16(v) K(bf16)(v)
  #define LOADH(p) K(loadh)(p)
  #define STOREH(p, v) K(storeh)(p, v)
  #define LOADB(p) K(loadb)(p)
  #define STOREB(p, v) K(storeb)(p, v)
  #define STOREQ(p, step, v) K(storeq)(p, step, v)
  #define D __m512d
  #define DZERO() _mm512_setzero_pd()
  #define SQUARES(d, v) K(squares)(d, v)
  #define TOTAL(d) K(total)(d)
#elif IGPT__PASS == 4
  #define K(name) IGPT__CAT(igpt__##name, _neon)
  #define ISA IGPT_ISA_NEON
  #define TARGET
  #define V float32x4_t
  #define W 4
  #define MR 8
  #define NR 2
  #define NARROW 8
  #define TR 8
  #define DR 4
  #define ZERO() vdupq_n_f32(0.0f)
  #define SPLAT(x) vdupq_n_f32(x)
  #define LOAD(p) vld1q_f32(p)
  #define STORE(p, v) vst1q_f32(p, v)
  #define LOADN(p, n) K(loadn)(p, n)
  #define STOREN(p, v, n) K(storen)(p, v, n)
  #define ADD(a, b) vaddq_f32(a, b)
  #define SUB(a, b) vsubq_f32(a, b)
  #define MUL(a, b) vmulq_f32(a, b)
  #define DIV(a, b) vdivq_f32(a, b)
  #define FMA(a, b, c) vfmaq_f32(c, a, b)
  #define MAX(a, b) vmaxq_f32(a, b)
  #define SQRT(a) vsqrtq_f32(a)
  #define BELOW(x, y, a, b) vbslq_f32(vcltq_f32(x, y), a, b)
  #define WHOLE(t) vsubq_f32(t, SPLAT(IGPT__MAGIC))
  #define POWER(t) K(power)(t)
  #define BF16(v) K(bf16)(v)
  #define LOADH(p) K(loadh)(p)
  #define STOREH(p, v) K(storeh)(p, v)
  #define LOADB(p) K(loadb)(p)
  #define STOREB(p, v) K(storeb)(p, v)
  #define STOREQ(p, step, v) ((void)(step), vst1q_f32(p, v))
  #define ROWS(p, m, n) ((void)(n), vld1q_f32((p) + (m)))
  #define D float64x2_t
  #define DZERO() vdupq_n_f64(0.0)
  #define SQUARES(d, v) K(squares)(d, v)
  #define TOTAL(d) K(total)(d)
#elif IGPT__PASS == 0
  #define K(name) IGPT__CAT(igpt__##name, _wasm)
  #define ISA IGPT_ISA_WASM
  #define TARGET
  #define V v128_t
  #define W 4
  #define MR 6
  #define NR 2
  #define NARROW 8
  #define TR 4
  #define DR 2
  #define ZERO() wasm_f32x4_splat(0.0f)
  #define SPLAT(x) wasm_f32x4_splat(x)
  #define LOAD(p) wasm_v128_load(p)
  #define STORE(p, v) wasm_v128_store(p, v)
  #define LOADN(p, n) K(loadn)(p, n)
  #define STOREN(p, v, n) K(storen)(p, v, n)
  #define ADD(a, b) wasm_f32x4_add(a, b)
  #define SUB(a, b) wasm_f32x4_sub(a, b)
  #define MUL(a, b) wasm_f32x4_mul(a, b)
  #define DIV(a, b) wasm_f32x4_div(a, b)
  #define FMA(a, b, c) wasm_f32x4_add(wasm_f32x4_mul(a, b), c)       /* rounded twice */
  #define MAX(a, b) wasm_f32x4_pmax(b, a)
  #define SQRT(a) wasm_f32x4_sqrt(a)
  #define BELOW(x, y, a, b) wasm_v128_bitselect(a, b, wasm_f32x4_lt(x, y))
  #define WHOLE(t) wasm_f32x4_sub(t, SPLAT(IGPT__MAGIC))
  #define POWER(t) K(power)(t)
  #define BF16(v) K(bf16)(v)
  #define LOADH(p) wasm_i32x4_shl(wasm_u32x4_load16x4(p), 16)
  #define STOREH(p, v) K(storeh)(p, v)
  #define LOADB(p) K(loadb)(p)
  #define STOREB(p, v) K(storeb)(p, v)
  #define STOREQ(p, step, v) ((void)(step), wasm_v128_store(p, v))
  #define ROWS(p, m, n) ((void)(n), wasm_v128_load((p) + (m)))
  #define D v128_t
  #define DZERO() wasm_f64x2_splat(0.0)
  #define SQUARES(d, v) K(squares)(d, v)
  #define TOTAL(d) K(total)(d)
#endif

/* ---- words that are more than one instruction ------------------------------------------------ */

#if IGPT__PASS == 1
static float K(whole)(float t)
{
  uint32_t bits;                  /* through memory: t - magic could keep excess precision */
  memcpy(&bits, &t, sizeof bits);
  return (float)(int32_t)(bits - 0x4b400000u);
}

static float K(power)(float t)
{
  uint32_t bits;
  float power;
  memcpy(&bits, &t, sizeof bits);
  bits = (bits << 23) + 0x3f800000u;
  memcpy(&power, &bits, sizeof power);
  return power;
}

static int8_t K(byte)(float x)     /* out of range, or NaN: to an end of it */
{
  return (int8_t)K(whole)((x > -128 ? x < 127 ? x : 127.0f : -128.0f) + IGPT__MAGIC);
}
#elif IGPT__PASS == 2
static const int32_t K(lanes)[2 * W] = { -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0 };

TARGET IGPT__INLINE V K(power)(V t)
{
  __m256i bits = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_set1_epi32(0x3f800000)));
}

TARGET IGPT__INLINE V K(bf16)(V v)
{
  __m256i bits = _mm256_castps_si256(v);
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  __m256i cut = _mm256_and_si256(up, _mm256_set1_epi32(-65536));
  return _mm256_blendv_ps(_mm256_castsi256_ps(cut), v, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
}

TARGET IGPT__INLINE V K(loadh)(const uint16_t *p)
{
  __m128i half = _mm_loadu_si128((const __m128i *)(const void *)p);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

TARGET IGPT__INLINE void K(storeh)(uint16_t *p, V v)
{
  V quiet = _mm256_and_ps(_mm256_cmp_ps(v, v, _CMP_UNORD_Q),
                          _mm256_castsi256_ps(_mm256_set1_epi32(0x400000)));
  __m256i half = _mm256_srli_epi32(_mm256_castps_si256(_mm256_or_ps(K(bf16)(v), quiet)), 16);
  half = _mm256_permute4x64_epi64(_mm256_packus_epi32(half, half), 0x08);
  _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(half));
}

TARGET IGPT__INLINE V K(loadb)(const int8_t *p)
{
  __m128i byte = _mm_loadl_epi64((const __m128i *)(const void *)p);
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(byte));
}

TARGET IGPT__INLINE void K(storeb)(int8_t *p, V v)
{
  __m256i whole = _mm256_cvtps_epi32(v);
  __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(half, half));
}

#define QUADS(a, b, c, d)                                                                         \
  do {                                                                                            \
    V ab = _mm256_unpacklo_ps(a, b), ab2 = _mm256_unpackhi_ps(a, b);                              \
    V cd = _mm256_unpacklo_ps(c, d), cd2 = _mm256_unpackhi_ps(c, d);                              \
    a = _mm256_shuffle_ps(ab, cd, 0x44);                                                          \
    b = _mm256_shuffle_ps(ab, cd, 0xee);                                                          \
    c = _mm256_shuffle_ps(ab2, cd2, 0x44);                                                        \
    d = _mm256_shuffle_ps(ab2, cd2, 0xee);                                                        \
  } while (0)

TARGET IGPT__INLINE void K(storeq)(float *p, size_t step, V v)
{
  _mm_storeu_ps(p, _mm256_castps256_ps128(v));
  _mm_storeu_ps(p + step, _mm256_extractf128_ps(v, 1));
}

TARGET IGPT__INLINE V K(rows)(const float *p, const float *q)
{
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(q), 1);
}

TARGET IGPT__INLINE D K(squares)(D d, V v)
{
  D lo = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
  D hi = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
  return _mm256_fmadd_pd(hi, hi, _mm256_fmadd_pd(lo, lo, d));
}

TARGET static double K(total)(D d)
{
  double lane[W / 2];
  _mm256_storeu_pd(lane, d);
  return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}
#elif IGPT__PASS == 3
TARGET IGPT__INLINE V K(power)(V t)
{
  __m512i bits = _mm512_maskz_slli_epi32(0xffff, _mm512_castps_si512(t), 23);
  return _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(0x3f800000)));
}

TARGET IGPT__INLINE V K(bf16)(V v)
{
  __m512i bits = _mm512_castps_si512(v);
  __m512i odd = _mm512_and_si512(_mm512_maskz_srli_epi32(0xffff, bits, 16), _mm512_set1_epi32(1));
  __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  __m512i cut = _mm512_and_si512(up, _mm512_set1_epi32(-65536));
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), _mm512_castsi512_ps(cut), v);
}

TARGET IGPT__INLINE V K(loadh)(const uint16_t *p)
{
  __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)p);
  return _mm512_castsi512_ps(
    _mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, half), 16));
}

TARGET IGPT__INLINE void K(storeh)(uint16_t *p, V v)
{
  __m512i half = _mm512_castps_si512(K(bf16)(v));
  half = _mm512_mask_or_epi32(half, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), half,
                              _mm512_set1_epi32(0x400000));
  half = _mm512_maskz_srli_epi32(0xffff, half, 16);
  _mm256_storeu_si256((__m256i *)(void *)p, _mm512_maskz_cvtepi32_epi16(0xffff, half));
}

TARGET IGPT__INLINE V K(loadb)(const int8_t *p)
{
  __m128i byte = _mm_loadu_si128((const __m128i *)(const void *)p);
  return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, byte));
}

TARGET IGPT__INLINE void K(storeb)(int8_t *p, V v)
{
  __m512i whole = _mm512_maskz_cvtps_epi32(0xffff, v);
  _mm_storeu_si128((__m128i *)(void *)p, _mm512_maskz_cvtsepi32_epi8(0xffff, whole));
}

#define QUADS(a, b, c, d)                                                                         \
  do {                                                                                            \
    V ab = _mm512_maskz_unpacklo_ps(0xffff, a, b), ab2 = _mm512_maskz_unpackhi_ps(0xffff, a, b);  \
    V cd = _mm512_maskz_unpacklo_ps(0xffff, c, d), cd2 = _mm512_maskz_unpackhi_ps(0xffff, c, d);  \
    a = _mm512_maskz_shuffle_ps(0xffff, ab, cd, 0x44);                                            \
    b = _mm512_maskz_shuffle_ps(0xffff, ab, cd, 0xee);                                            \
    c = _mm512_maskz_shuffle_ps(0xffff, ab2, cd2, 0x44);                                          \
    d = _mm512_maskz_shuffle_ps(0xffff, ab2, cd2, 0xee);                                          \
  } while (0)

TARGET IGPT__INLINE void K(storeq)(float *p, size_t step, V v)
{
  _mm_storeu_ps(p, _mm512_maskz_extractf32x4_ps(0xf, v, 0));
  _mm_storeu_ps(p + step, _mm512_maskz_extractf32x4_ps(0xf, v, 1));
  _mm_storeu_ps(p + 2 * step, _mm512_maskz_extractf32x4_ps(0xf, v, 2));
  _mm_storeu_ps(p + 3 * step, _mm512_maskz_extractf32x4_ps(0xf, v, 3));
}

TARGET IGPT__INLINE D K(squares)(D d, V v)
{
  __m256 low = _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xff, _mm512_castps_pd(v), 0));
  __m256 high = _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xff, _mm512_castps_pd(v), 1));
  D lo = _mm512_maskz_cvtps_pd(0xff, low), hi = _mm512_maskz_cvtps_pd(0xff, high);
  return _mm512_fmadd_pd(hi, hi, _mm512_fmadd_pd(lo, lo, d));
}

TARGET static double K(total)(D d)
{
  double lane[W / 2];
  int i;
  _mm512_storeu_pd(lane, d);
  for (i = 0; i < 4; i++) lane[i] += lane[i + 4];
  return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}
#elif IGPT__PASS == 4
static V K(loadn)(const float *p, size_t n)
{
  float lane[W] = { 0, 0, 0, 0 };
  memcpy(lane, p, n * sizeof(float));
  return vld1q_f32(lane);
}

static void K(storen)(float *p, V v, size_t n)
{
  float lane[W];
  vst1q_f32(lane, v);
  memcpy(p, lane, n * sizeof(float));
}

IGPT__INLINE V K(power)(V t)
{
  uint32x4_t bits = vshlq_n_u32(vreinterpretq_u32_f32(t), 23);
  return vreinterpretq_f32_u32(vaddq_u32(bits, vdupq_n_u32(0x3f800000u)));
}

IGPT__INLINE V K(bf16)(V v)
{
  uint32x4_t bits = vreinterpretq_u32_f32(v);
  uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1u));
  uint32x4_t up = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fffu)), odd);
  return vbslq_f32(vceqq_f32(v, v), vreinterpretq_f32_u32(vandq_u32(up, vdupq_n_u32(0xffff0000u))),
                   v);
}

IGPT__INLINE V K(loadh)(const uint16_t *p)
{
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

IGPT__INLINE void K(storeh)(uint16_t *p, V v)
{
  uint32x4_t quiet = vbicq_u32(vdupq_n_u32(0x400000u), vceqq_f32(v, v));
  vst1_u16(p, vshrn_n_u32(vorrq_u32(vreinterpretq_u32_f32(K(bf16)(v)), quiet), 16));
}

IGPT__INLINE V K(loadb)(const int8_t *p)
{
  int32_t four;
  memcpy(&four, p, sizeof four);
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
}

IGPT__INLINE void K(storeb)(int8_t *p, V v)
{
  int16x4_t half = vqmovn_s32(vcvtnq_s32_f32(v));
  int32_t four = vget_lane_s32(vreinterpret_s32_s8(vqmovn_s16(vcombine_s16(half, half))), 0);
  memcpy(p, &four, sizeof four);
}

#define QUADS(a, b, c, d)                                                                         \
  do {                                                                                            \
    V ac = vzip1q_f32(a, c), ac2 = vzip2q_f32(a, c);                                              \
    V bd = vzip1q_f32(b, d), bd2 = vzip2q_f32(b, d);                                              \
    a = vzip1q_f32(ac, bd);                                                                       \
    b = vzip2q_f32(ac, bd);                                                                       \
    c = vzip1q_f32(ac2, bd2);                                                                     \
    d = vzip2q_f32(ac2, bd2);                                                                     \
  } while (0)

IGPT__INLINE D K(squares)(D d, V v)
{
  D lo = vcvt_f64_f32(vget_low_f32(v)), hi = vcvt_f64_f32(vget_high_f32(v));
  return vfmaq_f64(vfmaq_f64(d, lo, lo), hi, hi);
}

static double K(total)(D d) { return vgetq_lane_f64(d, 0) + vgetq_lane_f64(d, 1); }
#elif IGPT__PASS == 0
IGPT__INLINE V K(loadn)(const float *p, size_t n)
{
  V v;
  if (n == 1) return wasm_v128_load32_zero(p);
  v = wasm_v128_load64_zero(p);
  return n == 2 ? v : wasm_v128_load32_lane(p + 2, v, 2);
}

IGPT__INLINE void K(storen)(float *p, V v, size_t n)
{
  if (n == 1) {
    wasm_v128_store32_lane(p, v, 0);
    return;
  }
  wasm_v128_store64_lane(p, v, 0);
  if (n == 3) wasm_v128_store32_lane(p + 2, v, 2);
}

IGPT__INLINE V K(power)(V t)
{
  return wasm_i32x4_add(wasm_i32x4_shl(t, 23), wasm_i32x4_splat(0x3f800000));
}

IGPT__INLINE V K(bf16)(V v)
{
  V odd = wasm_v128_and(wasm_u32x4_shr(v, 16), wasm_i32x4_splat(1));
  V up = wasm_i32x4_add(wasm_i32x4_add(v, wasm_i32x4_splat(0x7fff)), odd);
  return wasm_v128_bitselect(wasm_v128_and(up, wasm_i32x4_splat(-65536)), v, wasm_f32x4_eq(v, v));
}

IGPT__INLINE void K(storeh)(uint16_t *p, V v)
{
  V quiet = wasm_v128_andnot(wasm_i32x4_splat(0x400000), wasm_f32x4_eq(v, v));
  V half = wasm_u32x4_shr(wasm_v128_or(K(bf16)(v), quiet), 16);
  wasm_v128_store64_lane(p, wasm_u16x8_narrow_i32x4(half, half), 0);
}

IGPT__INLINE V K(loadb)(const int8_t *p)
{
  V half = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(p));
  return wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(half));
}

IGPT__INLINE void K(storeb)(int8_t *p, V v)
{
  V whole = wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(v));
  V half = wasm_i16x8_narrow_i32x4(whole, whole);
  wasm_v128_store32_lane(p, wasm_i8x16_narrow_i16x8(half, half), 0);
}

#define QUADS(a, b, c, d)                                                                         \
  do {                                                                                            \
    V ac = wasm_i32x4_shuffle(a, c, 0, 4, 1, 5), ac2 = wasm_i32x4_shuffle(a, c, 2, 6, 3, 7);      \
    V bd = wasm_i32x4_shuffle(b, d, 0, 4, 1, 5), bd2 = wasm_i32x4_shuffle(b, d, 2, 6, 3, 7);      \
    a = wasm_i32x4_shuffle(ac, bd, 0, 4, 1, 5);                                                   \
    b = wasm_i32x4_shuffle(ac, bd, 2, 6, 3, 7);                                                   \
    c = wasm_i32x4_shuffle(ac2, bd2, 0, 4, 1, 5);                                                 \
    d = wasm_i32x4_shuffle(ac2, bd2, 2, 6, 3, 7);                                                 \
  } while (0)

IGPT__INLINE D K(squares)(D d, V v)
{
  D lo = wasm_f64x2_promote_low_f32x4(v);
  D hi = wasm_f64x2_promote_low_f32x4(wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
  return wasm_f64x2_add(wasm_f64x2_add(d, wasm_f64x2_mul(lo, lo)), wasm_f64x2_mul(hi, hi));
}

static double K(total)(D d)
{
  return wasm_f64x2_extract_lane(d, 0) + wasm_f64x2_extract_lane(d, 1);
}
#endif

/* the sum of the lanes, pairwise, so that its rounding error grows with log2(W) */
TARGET static float K(sum)(V v)
{
  float lane[W];
  size_t i, half;
  STORE(lane, v);
  for (half = W / 2; half > 0; half /= 2)
    for (i = 0; i < half; i++) lane[i] += lane[i + half];
  return lane[0];
}

/* ---- matrix products ------------------------------------------------------------------------- */

/* c = a b [+ c]. The whole tile stays in registers while p runs: each step loads NR vectors of b
   and MR single floats of a for MR * NR multiply-adds, so that the loads hide behind the
   arithmetic. Rows of b that fill lines of the cache come from the second one, or from further off,
   and are asked for some steps ahead; beyond the last there is mostly the next panel. Inlined with
   a constant for `rows`, of which m are stored. */
TARGET IGPT__INLINE void K(tile_rows)(float *c, size_t ldc, const float *a, const float *b,
                                      size_t ldb, size_t rows, size_t m, size_t k, int accumulate)
{
  V sum[MR][NR];
  size_t p, i, j;
  IGPT__UNROLL
  for (i = 0; i < MR; i++) {
    IGPT__UNROLL
    for (j = 0; j < NR; j++)
      sum[i][j] = accumulate && i < m ? LOAD(c + i * ldc + j * W) : ZERO();
  }
  for (p = 0; p < k; p++, a += MR, b += ldb) {
    V row[NR];
    IGPT__UNROLL
    for (j = 0; j + 16 <= NR * W; j += 16)
      IGPT__PREFETCH(IGPT__BEYOND(b + j, IGPT__TILE_AHEAD * ldb * sizeof *b));
    IGPT__UNROLL
    for (j = 0; j < NR; j++) row[j] = LOAD(b + j * W);
    IGPT__UNROLL
    for (i = 0; i < MR; i++)
      if (i < rows) {
        V factor = SPLAT(a[i]);
        IGPT__UNROLL
        for (j = 0; j < NR; j++) sum[i][j] = FMA(factor, row[j], sum[i][j]);
      }
  }
  IGPT__UNROLL
  for (i = 0; i < MR; i++)
    if (i < m) {
      IGPT__UNROLL
      for (j = 0; j < NR; j++) STORE(c + i * ldc + j * W, sum[i][j]);
    }
}

/* About a third or two of the tile, where no more rows are left: AVX-512 has 64 = 5 * 12 + 4. */
TARGET static void K(tile)(float *c, size_t ldc, const float *a, const float *b, size_t ldb,
                           size_t m, size_t k, int accumulate)
{
  if (m > 2 * MR / 3) K(tile_rows)(c, ldc, a, b, ldb, MR, m, k, accumulate);
  else if (m > MR / 3) K(tile_rows)(c, ldc, a, b, ldb, 2 * MR / 3, m, k, accumulate);
  else K(tile_rows)(c, ldc, a, b, ldb, MR / 3, m, k, accumulate);
}

/* `rows` <= TR rows of w by `vectors` vectors, or by `lanes` < W floats of one, added to m rows of
   y: each piece of w is loaded once and used m times. Inlined with constants for both. */
TARGET IGPT__INLINE void K(thin_piece)(float *y, size_t ldy, const float *x, const float *w,
                                       size_t ldw, size_t m, size_t rows, size_t vectors,
                                       size_t lanes, int start, int round)
{
  V piece[TR][2];
  size_t p, i, j;
  IGPT__UNROLL
  for (p = 0; p < TR; p++) {
    IGPT__UNROLL
    for (j = 0; j < 2; j++)
      if (p < rows && j < vectors) {
        const float *from = w + p * ldw + j * W;
        piece[p][j] = lanes < W ? LOADN(from, lanes) : LOAD(from);
        if (W > 1) IGPT__PREFETCH(IGPT__BEYOND(from, rows * ldw * sizeof *from));
        if (round) piece[p][j] = BF16(piece[p][j]);
      }
  }
  for (i = 0; i < m; i++, x += TR, y += ldy) {
    V sum[2];
    IGPT__UNROLL
    for (j = 0; j < 2; j++)
      if (j < vectors)
        sum[j] = start ? ZERO() : lanes < W ? LOADN(y + j * W, lanes) : LOAD(y + j * W);
    IGPT__UNROLL
    for (p = 0; p < TR; p++)
      if (p < rows) {
        V factor = SPLAT(x[p]);
        IGPT__UNROLL
        for (j = 0; j < 2; j++)
          if (j < vectors) sum[j] = FMA(factor, piece[p][j], sum[j]);
      }
    IGPT__UNROLL
    for (j = 0; j < 2; j++)
      if (j < vectors) {
        if (lanes < W) STOREN(y + j * W, sum[j], lanes);
        else STORE(y + j * W, sum[j]);
      }
  }
}

/* `rows` rows of w against m <= 16 rows of y */
TARGET IGPT__INLINE void K(thin_rows)(float *y, size_t ldy, const float *x, size_t ldx,
                                      const float *w, size_t ldw, size_t m, size_t n, size_t rows,
                                      int start, int round)
{
  float corner[16 * TR];          /* of x */
  size_t i, j;
  for (i = 0; i < m; i++)
    for (j = 0; j < rows; j++)
      corner[i * TR + j] = round ? igpt__round_bf16(x[i * ldx + j]) : x[i * ldx + j];
  for (j = 0; j + 2 * W <= n; j += 2 * W)
    K(thin_piece)(y + j, ldy, corner, w + j, ldw, m, rows, 2, W, start, round);
  for (; j + W <= n; j += W)
    K(thin_piece)(y + j, ldy, corner, w + j, ldw, m, rows, 1, W, start, round);
  if (j < n)
    K(thin_piece)(y + j, ldy, corner, w + j, ldw, m, rows, 1, n - j, start, round);
}

/* y = x w [+ y] for so few rows that packing w would cost more than the product */
TARGET static void K(thin)(float *y, size_t ldy, const float *x, size_t ldx, const float *w,
                           size_t ldw, size_t m, size_t n, size_t k, int accumulate, int round)
{
  size_t i, p, rows;
  for (i = 0; i < m; i += rows, x += rows * ldx, y += rows * ldy) {
    rows = m - i < 16 ? m - i : 16;
    if (k == 0 && !accumulate)
      for (p = 0; p < rows; p++) memset(y + p * ldy, 0, n * sizeof(float));
    for (p = 0; p + TR <= k; p += TR)
      K(thin_rows)(y, ldy, x + p, ldx, w + p * ldw, ldw, rows, n, TR, !p && !accumulate, round);
    for (; p < k; p++)
      K(thin_rows)(y, ldy, x + p, ldx, w + p * ldw, ldw, rows, n, 1, !p && !accumulate, round);
  }
}

/* ---- with weights of few bits ---------------------------------------------------------------- */

/* W numbers of w, of which each is exact in float32 */
TARGET IGPT__INLINE V K(widen)(const void *w, size_t at, int bytes)
{
  if (bytes == 4) return LOAD((const float *)w + at);
  return bytes == 2 ? LOADH((const uint16_t *)w + at) : LOADB((const int8_t *)w + at);
}

/* Memory comes faster where it is asked for some time before it is used, and faster from several
   places at a time than from one: the rows of a few panels, side by side, some rows ahead. `whole`:
   these columns begin their panel; otherwise those before them have asked for its lines. */
TARGET IGPT__INLINE void K(ahead)(const void *w, size_t at, size_t apart, int bytes, size_t vectors,
                                  int whole)
{
#if W > 1
  const size_t row = IGPT__NARROW_COLUMNS * (size_t)bytes;
  size_t j, line;
  IGPT__UNROLL
  for (j = 0; j < vectors; j += IGPT__NARROW_COLUMNS / W)
    if (whole) {                  /* not by pointers, which may not go where there is no array */
      const uintptr_t from = (uintptr_t)w + IGPT__NARROW_AHEAD +
                             (at + j * W / IGPT__NARROW_COLUMNS * apart) * (size_t)bytes;
      IGPT__UNROLL
      for (line = 0; line < row; line += 64) IGPT__PREFETCH((const void *)(from + line));
    }
#else
  (void)w, (void)at, (void)apart, (void)bytes, (void)vectors, (void)whole;
#endif
}

/* `rows` rows of x, of which m are stored, by `vectors` vectors of each row of w, the last with
   `last` columns. The sums stay in registers for all of k, so that w is read once, y written once.
   Inlined with constants for rows, vectors, bytes. */
TARGET IGPT__INLINE void K(narrow_piece)(float *y, size_t ldy, const float *x, const void *w,
                                         size_t at, size_t ldw, size_t apart, int bytes,
                                         const float *scale, size_t m, size_t k, int accumulate,
                                         size_t rows, size_t vectors, size_t last, int whole)
{
  V sum[MR][NARROW];
  size_t p, i, j;
  IGPT__UNROLL
  for (i = 0; i < MR; i++) {
    IGPT__UNROLL
    for (j = 0; j < NARROW; j++)
      if (i < rows && j < vectors) {
        const float *from = y + (i < m ? i : 0) * ldy + j * W;
        sum[i][j] = bytes == 1 || !accumulate || i >= m ? ZERO()
                    : j + 1 < vectors || last == W ? LOAD(from) : LOADN(from, last);
      }
  }
  for (p = 0; p < k; p++, x += rows, at += ldw) {
    K(ahead)(w, at, apart, bytes, vectors, whole);
    if (rows == 1) {
      V factor = SPLAT(x[0]);
      IGPT__UNROLL
      for (j = 0; j < NARROW; j++)
        if (j < vectors)
          sum[0][j] = FMA(factor, K(widen)(w, at + j * W / IGPT__NARROW_COLUMNS * apart +
                                              j * W % IGPT__NARROW_COLUMNS, bytes), sum[0][j]);
    } else {
      V row[NARROW];
      IGPT__UNROLL
      for (j = 0; j < NARROW; j++)
        if (j < vectors) row[j] = K(widen)(w, at + j * W, bytes);
      IGPT__UNROLL
      for (i = 0; i < MR; i++)
        if (i < rows) {
          V factor = SPLAT(x[i]);
          IGPT__UNROLL
          for (j = 0; j < NARROW; j++)
            if (j < vectors) sum[i][j] = FMA(factor, row[j], sum[i][j]);
        }
    }
  }
  IGPT__UNROLL
  for (i = 0; i < MR; i++)
    if (i < rows && i < m) {
      IGPT__UNROLL
      for (j = 0; j < NARROW; j++)
        if (j < vectors) {
          const int full = j + 1 < vectors || last == W;
          float *to = y + i * ldy + j * W;
          V v = sum[i][j];
          if (bytes == 1) {
            V s = full ? LOAD(scale + j * W) : LOADN(scale + j * W, last);
            if (!accumulate) v = MUL(v, s);
            else v = FMA(v, s, full ? LOAD(to) : LOADN(to, last));
          }
          if (full) STORE(to, v);
          else STOREN(to, v, last);
        }
    }
}

/* The columns from j on that make whole runs of `vectors`. Returns where the rest begins. */
TARGET IGPT__INLINE size_t K(narrow_runs)(float *y, size_t ldy, const float *x, const void *w,
                                          size_t ldw, size_t apart, int bytes, const float *scale,
                                          size_t m, size_t n, size_t k, int accumulate, size_t rows,
                                          size_t vectors, size_t j)
{
  for (; j + vectors * W <= n; j += vectors * W) {
    const size_t inside = j % IGPT__NARROW_COLUMNS;
    K(narrow_piece)(y + j, ldy, x, w, j / IGPT__NARROW_COLUMNS * apart + inside, ldw, apart, bytes,
                    scale + j, m, k, accumulate, rows, vectors, W, inside == 0);
  }
  return j;
}

/* The fewer rows, the more vectors side by side, since a sum waits for its own last addition. */
TARGET IGPT__INLINE void K(narrow_rows)(float *y, size_t ldy, const float *x, const void *w,
                                        size_t ldw, size_t apart, int bytes, const float *scale,
                                        size_t m, size_t n, size_t k, int accumulate, size_t rows,
                                        size_t vectors)
{
  size_t j = K(narrow_runs)(y, ldy, x, w, ldw, apart, bytes, scale, m, n, k, accumulate, rows,
                            vectors, 0);
  if (vectors / 2 * W >= IGPT__NARROW_COLUMNS)
    j = K(narrow_runs)(y, ldy, x, w, ldw, apart, bytes, scale, m, n, k, accumulate, rows,
                       vectors / 2, j);
  if (vectors / 4 * W >= IGPT__NARROW_COLUMNS)
    j = K(narrow_runs)(y, ldy, x, w, ldw, apart, bytes, scale, m, n, k, accumulate, rows,
                       vectors / 4, j);
  for (; j < n; j += W) {
    const size_t inside = j % IGPT__NARROW_COLUMNS;
    K(narrow_piece)(y + j, ldy, x, w, j / IGPT__NARROW_COLUMNS * apart + inside, ldw, apart, bytes,
                    scale + j, m, k, accumulate, rows, 1, n - j < W ? n - j : W, inside == 0);
  }
}

TARGET IGPT__INLINE void K(narrow_bytes)(float *y, size_t ldy, const float *x, size_t lanes,
                                         const void *w, size_t ldw, size_t apart, int bytes,
                                         const float *scale, size_t m, size_t n, size_t k,
                                         int accumulate)
{
  if (lanes == 1)
    K(narrow_rows)(y, ldy, x, w, ldw, apart, bytes, scale, m, n, k, accumulate, 1, NARROW);
  else if (lanes == MR / 3)
    K(narrow_rows)(y, ldy, x, w, ldw, apart, bytes, scale, m, n, k, accumulate, MR / 3, 4);
  else if (lanes == 2 * MR / 3)
    K(narrow_rows)(y, ldy, x, w, ldw, apart, bytes, scale, m, n, k, accumulate, 2 * MR / 3, NR);
  else
    K(narrow_rows)(y, ldy, x, w, ldw, apart, bytes, scale, m, n, k, accumulate, MR, NR);
}

TARGET static void K(narrow)(float *y, size_t ldy, const float *x, size_t lanes, const void *w,
                             size_t ldw, size_t apart, int bytes, const float *scale, size_t m,
                             size_t n, size_t k, int accumulate)
{
  if (bytes == 4) K(narrow_bytes)(y, ldy, x, lanes, w, ldw, apart, 4, y, m, n, k, accumulate);
  else if (bytes == 2) K(narrow_bytes)(y, ldy, x, lanes, w, ldw, apart, 2, y, m, n, k, accumulate);
  else K(narrow_bytes)(y, ldy, x, lanes, w, ldw, apart, 1, scale, m, n, k, accumulate);
}

TARGET static void K(halve)(uint16_t *to, const float *from, size_t n)
{
  size_t i = 0;
  for (; i + W <= n; i += W) STOREH(to + i, LOAD(from + i));
  for (; i < n; i++) to[i] = igpt__half(from[i]);
}

/* What is not finite becomes a NaN when multiplied by zero, and stays in the sum. */
TARGET static void K(peaks)(float *most, const float *x, size_t lanes, size_t k)
{
  size_t p, i;
  for (i = 0; i < lanes; i += W) {
    V top = LOAD(most + i), odd = ZERO();
    for (p = 0; p < k; p++) {
      V v = LOAD(x + p * lanes + i);
      odd = FMA(v, ZERO(), odd);
      top = MAX(MAX(v, SUB(ZERO(), v)), top);
    }
    STORE(most + i, ADD(top, odd));
  }
}

TARGET static void K(quantise)(int8_t *to, const float *x, const float *factor, size_t lanes,
                               size_t k)
{
  size_t p, i;
  for (p = 0; p < k; p++)
    for (i = 0; i < lanes; i += W)
      STOREB(to + p * lanes + i, MUL(LOAD(x + p * lanes + i), LOAD(factor + i)));
}

/* ---- packing --------------------------------------------------------------------------------- */

/* Rows lie in memory one after the other: four of them are taken at a time and transposed, in
   pieces of 64 p, so that what is written stays in the first cache until its lines are full. Runs
   of four floats are written even where fewer lanes are left, as long as they stay in the panel:
   what they spill belongs to the next p, whose turn comes later, since the last lanes come first.
   Strides defeat the processor's own prefetching, hence ours: of the next piece, and with the last
   one of the first of the next panel. */
TARGET IGPT__INLINE void K(pack_rows)(float *to, size_t lanes, const float *from,
                                      size_t lane_stride, size_t have, size_t k, int round)
{
  size_t start, r, p, i;
  for (start = 0; start < k; start += 64) {
    const size_t stop = k - start < 64 ? k : start + 64;
    for (r = (lanes + 3) / 4 * 4; r > 0;) {
      const size_t end = lanes - (r -= 4) < 4 ? lanes : r + 4;
      p = start;
#if W > 1
      if (r < have && lanes > 3) {
        const float *row = from + r * lane_stride;
        const size_t ahead = stop < k ? 64 : lanes * lane_stride - start;
        for (; p + W <= stop && (p + W - 1) * lanes + r + 4 <= lanes * k; p += W) {
          V a = LOAD(row + p), b = ZERO(), c = ZERO(), d = ZERO();
          if (r + 1 < have) b = LOAD(row + lane_stride + p);
          if (r + 2 < have) c = LOAD(row + 2 * lane_stride + p);
          if (r + 3 < have) d = LOAD(row + 3 * lane_stride + p);
          if (round) {
            a = BF16(a);
            b = BF16(b);
            c = BF16(c);
            d = BF16(d);
          }
          QUADS(a, b, c, d);
          STOREQ(to + p * lanes + r, 4 * lanes, a);
          STOREQ(to + (p + 1) * lanes + r, 4 * lanes, b);
          STOREQ(to + (p + 2) * lanes + r, 4 * lanes, c);
          STOREQ(to + (p + 3) * lanes + r, 4 * lanes, d);
          for (i = r; i < r + 4 && i < have; i++)
            IGPT__PREFETCH(IGPT__BEYOND(from + i * lane_stride + p, ahead * sizeof *from));
        }
      }
#endif
      for (; p < stop; p++)
        for (i = r; i < end; i++) {
          float x = i < have ? from[i * lane_stride + p] : 0.0f;
          to[p * lanes + i] = round ? igpt__round_bf16(x) : x;
        }
    }
  }
}

/* Columns lie side by side: rows of k are cut up, for a few panels at a time, so that what is read
   and what is written both run along memory. Whole vectors may spill into the next p here too. */
TARGET IGPT__INLINE void K(pack_columns)(float *to, size_t lanes, const float *from,
                                         size_t k_stride, size_t count, size_t k, int round)
{
  const size_t wide = (lanes + W - 1) / W * W;
  size_t p, first, i;
  for (p = 0; p < k; p++, from += k_stride, to += lanes) {
    const size_t whole = (k - p) * lanes >= wide && count >= wide ? count - wide + 1 : 0;
    float *out = to;
    if (p + 8 < k)                /* strides beyond what the processor foresees */
      for (i = 0; i < count; i += 16) IGPT__PREFETCH(from + 8 * k_stride + i);
    for (first = 0; first < whole; first += lanes, out += lanes * k)
      for (i = 0; i < lanes; i += W) {
        V v = LOAD(from + first + i);
        if (round) v = BF16(v);
        STORE(out + i, v);
      }
    for (; first < count; first += lanes, out += lanes * k)
      for (i = 0; i < lanes; i += W) {
        size_t at = first + i;
        V v = ZERO();
        if (at + W <= count) v = LOAD(from + at);
        else if (at < count) v = LOADN(from + at, count - at);
        if (round) v = BF16(v);
        if (i + W <= lanes) STORE(out + i, v);
        else STOREN(out + i, v, lanes - i);
      }
  }
}

TARGET IGPT__INLINE void K(pack_panels)(float *to, size_t lanes, const float *from,
                                        size_t lane_stride, size_t k_stride, size_t count,
                                        size_t k, int round)
{
  size_t p, i, have, step = lanes;
  if (lanes == 1 && k_stride == 1) {                       /* nothing to turn */
    for (i = 0; i < count; i++, from += lane_stride, to += k) {
      for (p = 0; p + W <= k; p += W) STORE(to + p, round ? BF16(LOAD(from + p)) : LOAD(from + p));
      for (; p < k; p++) to[p] = round ? igpt__round_bf16(from[p]) : from[p];
    }
    return;
  }
  if (lane_stride == 1 && lanes < 128) step = 128 / lanes * lanes;
  for (; count > 0; count -= have, from += have * lane_stride, to += step * k) {
    have = count < step ? count : step;
    if (lane_stride == 1) K(pack_columns)(to, lanes, from, k_stride, have, k, round);
    else if (k_stride == 1) K(pack_rows)(to, lanes, from, lane_stride, have, k, round);
    else
      for (p = 0; p < k; p++)
        for (i = 0; i < lanes; i++) {
          float x = i < have ? from[i * lane_stride + p * k_stride] : 0.0f;
          to[p * lanes + i] = round ? igpt__round_bf16(x) : x;
        }
  }
}

/* The tile's two widths as constants: inner loops of a few steps are only fast when unrolled. */
TARGET static void K(pack)(float *to, size_t lanes, const float *from, size_t lane_stride,
                           size_t k_stride, size_t count, size_t k, int round)
{
  if (lanes == MR) K(pack_panels)(to, MR, from, lane_stride, k_stride, count, k, round);
  else if (lanes == NR * W)
    K(pack_panels)(to, NR * W, from, lane_stride, k_stride, count, k, round);
  else K(pack_panels)(to, lanes, from, lane_stride, k_stride, count, k, round);
}

/* ---- sums over a vector ---------------------------------------------------------------------- */

TARGET static float K(dot)(const float *x, const float *y, size_t n)
{
  V s0 = ZERO(), s1 = ZERO(), s2 = ZERO(), s3 = ZERO();
  size_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W) {
    s0 = FMA(LOAD(x + i), LOAD(y + i), s0);
    s1 = FMA(LOAD(x + i + W), LOAD(y + i + W), s1);
    s2 = FMA(LOAD(x + i + 2 * W), LOAD(y + i + 2 * W), s2);
    s3 = FMA(LOAD(x + i + 3 * W), LOAD(y + i + 3 * W), s3);
  }
  for (; i + W <= n; i += W) s0 = FMA(LOAD(x + i), LOAD(y + i), s0);
  if (i < n) s1 = FMA(LOADN(x + i, n - i), LOADN(y + i, n - i), s1);
  return K(sum)(ADD(ADD(s0, s2), ADD(s1, s3)));
}

/* `rows` of x with `columns` <= 4 of w, so that what is loaded is used several times; inlined with
   constants for both. Four sums are added up together, by a transposition. */
TARGET IGPT__INLINE void K(dots_piece)(float *y, size_t ldy, const float *x, size_t ldx,
                                       const float *w, size_t ldw, size_t rows, size_t columns,
                                       size_t k)
{
  V sum[DR][4], a[DR], b;
  size_t p, i, j;
  IGPT__UNROLL
  for (i = 0; i < DR; i++) {
    IGPT__UNROLL
    for (j = 0; j < 4; j++) sum[i][j] = ZERO();
  }
  for (p = 0; p + W <= k; p += W) {
    IGPT__UNROLL
    for (i = 0; i < DR; i++)
      if (i < rows) a[i] = LOAD(x + i * ldx + p);
    IGPT__UNROLL
    for (j = 0; j < 4; j++)
      if (j < columns) {
        b = LOAD(w + j * ldw + p);
        IGPT__UNROLL
        for (i = 0; i < DR; i++)
          if (i < rows) sum[i][j] = FMA(a[i], b, sum[i][j]);
      }
  }
  if (p < k) {
    IGPT__UNROLL
    for (j = 0; j < 4; j++)
      if (j < columns) {
        b = LOADN(w + j * ldw + p, k - p);
        IGPT__UNROLL
        for (i = 0; i < DR; i++)
          if (i < rows) sum[i][j] = FMA(LOADN(x + i * ldx + p, k - p), b, sum[i][j]);
      }
  }
  IGPT__UNROLL
  for (i = 0; i < DR; i++)
    if (i < rows) {
#if W > 1
      float lane[W];
      QUADS(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
      STORE(lane, ADD(ADD(sum[i][0], sum[i][1]), ADD(sum[i][2], sum[i][3])));
      for (j = 0; j < columns; j++) {
        float total = lane[j];
        for (p = 4; p < W; p += 4) total += lane[p + j];
        y[i * ldy + j] = total;
      }
#else
      for (j = 0; j < columns; j++) y[i * ldy + j] = sum[i][j];
#endif
    }
}

TARGET IGPT__INLINE void K(dots_rows)(float *y, size_t ldy, const float *x, size_t ldx,
                                      const float *w, size_t ldw, size_t rows, size_t n, size_t k)
{
  size_t j;
  for (j = 0; j + 4 <= n; j += 4)
    K(dots_piece)(y + j, ldy, x, ldx, w + j * ldw, ldw, rows, 4, k);
  if (n - j == 3) K(dots_piece)(y + j, ldy, x, ldx, w + j * ldw, ldw, rows, 3, k);
  if (n - j == 2) K(dots_piece)(y + j, ldy, x, ldx, w + j * ldw, ldw, rows, 2, k);
  if (n - j == 1) K(dots_piece)(y + j, ldy, x, ldx, w + j * ldw, ldw, rows, 1, k);
}

TARGET static void K(dots)(float *y, size_t ldy, const float *x, size_t ldx, const float *w,
                           size_t ldw, size_t m, size_t n, size_t k)
{
  size_t i;
  for (i = 0; i + DR <= m; i += DR)
    K(dots_rows)(y + i * ldy, ldy, x + i * ldx, ldx, w, ldw, DR, n, k);
  for (; i < m; i++) K(dots_rows)(y + i * ldy, ldy, x + i * ldx, ldx, w, ldw, 1, n, k);
}

TARGET static double K(sum_squares)(const float *x, size_t n)
{
  D s0 = DZERO(), s1 = DZERO(), s2 = DZERO(), s3 = DZERO();
  size_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W) {
    s0 = SQUARES(s0, LOAD(x + i));
    s1 = SQUARES(s1, LOAD(x + i + W));
    s2 = SQUARES(s2, LOAD(x + i + 2 * W));
    s3 = SQUARES(s3, LOAD(x + i + 3 * W));
  }
  for (; i + W <= n; i += W) s0 = SQUARES(s0, LOAD(x + i));
  if (i < n) s1 = SQUARES(s1, LOADN(x + i, n - i));
  return (TOTAL(s0) + TOTAL(s2)) + (TOTAL(s1) + TOTAL(s3));
}

TARGET static float K(maximum)(const float *x, size_t n)
{
  V most = SPLAT(-HUGE_VALF), next = most;
  float lane[W], best;
  size_t i = 0;
  if (n < W) {                    /* an absent lane must not count as a zero */
    best = -HUGE_VALF;
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    return best;
  }
  for (; i + 2 * W <= n; i += 2 * W) {
    most = MAX(most, LOAD(x + i));
    next = MAX(next, LOAD(x + i + W));
  }
  for (; i + W <= n; i += W) most = MAX(most, LOAD(x + i));
  most = MAX(most, LOAD(x + n - W));      /* the rest, and some once more */
  STORE(lane, MAX(most, next));
  best = lane[0];
  for (i = 1; i < W; i++) best = lane[i] > best ? lane[i] : best;
  return best;
}

/* ---- element by element ---------------------------------------------------------------------- */

TARGET static void K(axpy)(float *y, float a, const float *x, size_t n)
{
  size_t i = 0;
  for (; i + W <= n; i += W) STORE(y + i, FMA(SPLAT(a), LOAD(x + i), LOAD(y + i)));
  if (i < n) STOREN(y + i, FMA(SPLAT(a), LOADN(x + i, n - i), LOADN(y + i, n - i)), n - i);
}

TARGET static void K(add)(float *y, const float *x, size_t n)
{
  size_t i = 0;
  for (; i + W <= n; i += W) STORE(y + i, ADD(LOAD(y + i), LOAD(x + i)));
  if (i < n) STOREN(y + i, ADD(LOADN(y + i, n - i), LOADN(x + i, n - i)), n - i);
}

TARGET static void K(scale)(float *y, float a, size_t n)
{
  size_t i = 0;
  for (; i + W <= n; i += W) STORE(y + i, MUL(LOAD(y + i), SPLAT(a)));
  if (i < n) STOREN(y + i, MUL(LOADN(y + i, n - i), SPLAT(a)), n - i);
}

/* exp(x) = 2^n exp(f), n = x / ln 2 to the nearest whole number, |f| <= ln(2) / 2. Adding 1.5 2^23
   to a float leaves no bits for a fraction, which is how n is found. ln 2 is taken away in two
   pieces, the first so short that its multiples are exact. exp(f) = 1 + f + f^2 q(f), where q is
   the minimax fit to 4e-9. One ulp or two in [-87.33, 88.37]; below it 0, above it infinity; NaN is
   NaN. */
TARGET IGPT__INLINE V K(exp)(V x)
{
  V t = FMA(x, SPLAT(1.44269504f), SPLAT(IGPT__MAGIC)), n = WHOLE(t);
  V f = FMA(n, SPLAT(2.12194440e-4f), FMA(n, SPLAT(-0.693359375f), x));
  V y = FMA(SPLAT(1.38145126e-3f), f, SPLAT(8.36874545e-3f));
  y = FMA(y, f, SPLAT(4.16683927e-2f));
  y = FMA(y, f, SPLAT(0.166665211f));
  y = FMA(y, f, SPLAT(0.49999994f));
  y = FMA(y, f, SPLAT(1.0f));
  y = FMA(y, f, SPLAT(1.0f));
  y = MUL(y, POWER(t));
  y = BELOW(x, SPLAT(-87.33f), ZERO(), y);
  return BELOW(SPLAT(88.37f), x, SPLAT(HUGE_VALF), y);
}

TARGET static float K(exp_sum)(float *y, const float *x, float scale, float shift, size_t n)
{
  V sum = ZERO(), factor = SPLAT(scale), minus = SPLAT(-shift);
  size_t i = 0;
  for (; i + W <= n; i += W) {
    V e = K(exp)(FMA(LOAD(x + i), factor, minus));
    if (y) STORE(y + i, e);
    sum = ADD(sum, e);
  }
  if (i < n) {                    /* lanes that are absent add exp(-infinity) = 0 */
    float lane[W];
    V e;
    size_t j;
    STORE(lane, SPLAT(-HUGE_VALF));
    STOREN(lane, FMA(LOADN(x + i, n - i), factor, minus), n - i);
    e = K(exp)(LOAD(lane));
    if (y) {
      STORE(lane, e);
      for (j = 0; i + j < n; j++) y[i + j] = lane[j];
    }
    sum = ADD(sum, e);
  }
  return K(sum)(sum);
}

TARGET static void K(softmax_block)(float *s, size_t n, float scale, float *most, float *total,
                                    float *o, size_t E, int round)
{
  V top[NR], minus[NR], sum[NR], change[NR], factor = SPLAT(scale);
  size_t i, j;
  IGPT__UNROLL
  for (j = 0; j < NR; j++) top[j] = SPLAT(-HUGE_VALF);
  for (i = 0; i < n; i++) {
    IGPT__UNROLL
    for (j = 0; j < NR; j++) top[j] = MAX(LOAD(s + (i * NR + j) * W), top[j]);
  }
  IGPT__UNROLL
  for (j = 0; j < NR; j++) {
    V old = LOAD(most + j * W);
    top[j] = MAX(MUL(top[j], factor), old);
    change[j] = K(exp)(SUB(old, top[j]));
    minus[j] = SUB(ZERO(), top[j]);
    sum[j] = ZERO();
  }
  for (i = 0; i < n; i++) {
    IGPT__UNROLL
    for (j = 0; j < NR; j++) {
      float *at = s + (i * NR + j) * W;
      V e = K(exp)(FMA(LOAD(at), factor, minus[j]));
      sum[j] = ADD(sum[j], e);
      if (round) e = BF16(e);
      STORE(at, e);
    }
  }
  IGPT__UNROLL
  for (j = 0; j < NR; j++) {
    STORE(most + j * W, top[j]);
    STORE(total + j * W, FMA(change[j], LOAD(total + j * W), sum[j]));
  }
  for (i = 0; i < E; i++) {
    IGPT__UNROLL
    for (j = 0; j < NR; j++)
      STORE(o + (i * NR + j) * W, MUL(LOAD(o + (i * NR + j) * W), change[j]));
  }
}

/* total = others + self = 1 + excess, after the largest logit, `top`, has become 1. If that is the
   label's, excess is `others` as they are. */
TARGET static void K(class_loss)(float *z, float *own, float *gap, float *excess, size_t n,
                                 size_t lanes)
{
  size_t i, j;
  for (j = 0; j < lanes; j += W, z += W) {
    V logit = LOAD(own + j), top = logit, others = ZERO(), self, part;
    for (i = 0; i < n; i++) top = MAX(LOAD(z + i * lanes), top);
    for (i = 0; i < n; i++) {
      V e = K(exp)(SUB(LOAD(z + i * lanes), top));
      others = ADD(others, e);
      STORE(z + i * lanes, e);
    }
    self = K(exp)(SUB(logit, top));
    part = DIV(SPLAT(1.0f), ADD(others, self));
    for (i = 0; i < n; i++) STORE(z + i * lanes, MUL(LOAD(z + i * lanes), part));
    STORE(own + j, MUL(SUB(ZERO(), others), part));
    STORE(gap + j, SUB(top, logit));
    STORE(excess + j, BELOW(logit, top, ADD(SUB(others, SPLAT(1.0f)), self), others));
  }
}

TARGET static float K(norm)(float *y, const float *x, const float *g, float epsilon, size_t n)
{
  const float mean = K(dot)(x, x, n) / (float)(n > 0 ? n : 1) + epsilon;
  const float r = 1.0f / sqrtf(mean) + (mean - mean);       /* infinity - infinity is NaN */
  V factor = SPLAT(r);
  size_t i = 0;
  if (!y) return r;
  for (; i + W <= n; i += W) STORE(y + i, MUL(MUL(LOAD(x + i), factor), LOAD(g + i)));
  if (i < n)
    STOREN(y + i, MUL(MUL(LOADN(x + i, n - i), factor), LOADN(g + i, n - i)), n - i);
  return r;
}

/* sigmoid(z) = 1 / (1 + exp(-z)), z = 1.702 x */
TARGET IGPT__INLINE V K(sigmoid)(V x)
{
  return DIV(SPLAT(1.0f), ADD(SPLAT(1.0f), K(exp)(MUL(x, SPLAT(-1.702f)))));
}

TARGET static void K(gelu)(float *y, const float *x, size_t n)
{
  size_t i = 0;
  for (; i + W <= n; i += W) {
    V v = LOAD(x + i);
    STORE(y + i, MUL(v, K(sigmoid)(v)));
  }
  if (i < n) {
    V v = LOADN(x + i, n - i);
    STOREN(y + i, MUL(v, K(sigmoid)(v)), n - i);
  }
}

/* ---- palette --------------------------------------------------------------------------------- */

/* |p - c|^2 for W centres at once and four points at a time; each lane keeps its best and the
   number of it (whole numbers are exact in float32 up to 2^24). A later centre must be nearer to
   win. */
TARGET static void K(nearest)(uint16_t *index, const float *points, const float *centres,
                              size_t count, size_t padded)
{
  float lane[W], at[W];
  size_t i, j, q, w;
  for (w = 0; w < W; w++) lane[w] = (float)w;
  for (i = 0; i < count; i += 4) {
    V best[4], which[4], number = LOAD(lane);
    const float *p[4];
    IGPT__UNROLL
    for (q = 0; q < 4; q++) {
      p[q] = points + 3 * (i + q < count ? i + q : count - 1);
      best[q] = SPLAT(HUGE_VALF);
      which[q] = ZERO();
    }
    for (j = 0; j < padded; j += W, number = ADD(number, SPLAT((float)W))) {
      V red = LOAD(centres + j), green = LOAD(centres + padded + j);
      V blue = LOAD(centres + 2 * padded + j);
      IGPT__UNROLL
      for (q = 0; q < 4; q++) {
        V r = SUB(SPLAT(p[q][0]), red), g = SUB(SPLAT(p[q][1]), green);
        V b = SUB(SPLAT(p[q][2]), blue), d = FMA(b, b, FMA(g, g, MUL(r, r)));
        which[q] = BELOW(d, best[q], number, which[q]);
        best[q] = BELOW(d, best[q], d, best[q]);
      }
    }
    for (q = 0; q < 4 && i + q < count; q++) {
      float least[W];
      STORE(least, best[q]);
      STORE(at, which[q]);
      for (w = 1; w < W; w++)
        if (least[w] < least[0] || (!(least[0] < least[w]) && at[w] < at[0])) {
          least[0] = least[w];
          at[0] = at[w];
        }
      index[i + q] = (uint16_t)at[0];
    }
  }
}

/* Four pixels at a time. Rows of four floats are transposed to planes, and then four pixels'
   distances, so that a lane sees those of half a list one after the other; a later one must be
   nearer to win. A list is one vector of AVX2, which AVX-512 borrows, and two of NEON or
   WebAssembly. */
#if IGPT__PASS == 1
static void K(among)(uint16_t *index, const uint8_t *rgb, const float *centres,
                     const uint16_t *lists, const uint16_t *which, size_t count)
{
  size_t i, j;
  for (i = 0; i < count; i++, rgb += 3) {
    const uint16_t *list = lists + 8 * (size_t)which[i];
    float best = HUGE_VALF;
    for (j = 0; j < 8; j++) {
      const float *c = centres + list[j];
      float r = SUB((float)rgb[0], c[0]), g = SUB((float)rgb[1], c[1]);
      float b = SUB((float)rgb[2], c[2]), d = FMA(b, b, FMA(g, g, MUL(r, r)));
      if (d < best) { best = d; index[i] = list[j] / 4; }
    }
  }
}
#elif IGPT__PASS != 3
TARGET static void K(among)(uint16_t *index, const uint8_t *rgb, const float *centres,
                            const uint16_t *lists, const uint16_t *which, size_t count)
{
  size_t i, h, q;
  for (i = 0; i < count; i += 4) {
    const uint16_t *list[4];
    float least[8], at[8];
    V number[4];
    IGPT__UNROLL
    for (q = 0; q < 4; q++) {
      list[q] = lists + 8 * (size_t)which[i + q < count ? i + q : count - 1];
      number[q] = SPLAT((float)q);
    }
    IGPT__UNROLL
    for (h = 0; h < 8 / W; h++) {
      V d[4], best, place = ZERO();
      IGPT__UNROLL
      for (q = 0; q < 4; q++) {
        const uint8_t *p = rgb + 3 * (i + q < count ? i + q : count - 1);
        const uint16_t *n = list[q] + 4 * h;
        V red = ROWS(centres, n[0], n[4 % W]), green = ROWS(centres, n[1], n[1 + 4 % W]);
        V blue = ROWS(centres, n[2], n[2 + 4 % W]), rest = ROWS(centres, n[3], n[3 + 4 % W]);
        QUADS(red, green, blue, rest);
        (void)rest;
        red = SUB(SPLAT((float)p[0]), red);
        green = SUB(SPLAT((float)p[1]), green);
        blue = SUB(SPLAT((float)p[2]), blue);
        d[q] = FMA(blue, blue, FMA(green, green, MUL(red, red)));
      }
      QUADS(d[0], d[1], d[2], d[3]);
      best = d[0];
      IGPT__UNROLL
      for (q = 1; q < 4; q++) {
        place = BELOW(d[q], best, number[q], place);
        best = BELOW(d[q], best, d[q], best);
      }
      STORE(least + h * W, best);
      STORE(at + h * W, place);
    }
    for (q = 0; q < 4 && i + q < count; q++) {
      size_t second = least[q + 4] < least[q];
      index[i + q] = list[q][(size_t)(int)at[q + 4 * second] + 4 * second] / 4;
    }
  }
}
#endif

/* z is the centre nearest to the middle of the box. Another centre y has its best case at the
   corner v of the box in the direction y - z: |y - p|^2 - |z - p|^2 is linear in p, and least
   there. The margin is 1e-5 of the largest |z - p|^2, many times what rounding does. */
TARGET static void K(beyond)(float *beyond, const float *centres, const float *box, size_t padded)
{
  float lane[W], least[W], at[W];
  double bound = 0;
  V best = SPLAT(HUGE_VALF), which = ZERO(), number, margin, low[3], high[3], z[3];
  size_t i, j, w;
  for (w = 0; w < W; w++) lane[w] = (float)w;
  number = LOAD(lane);
  for (j = 0; j < 3; j++) {
    low[j] = SPLAT(box[j]);
    high[j] = SPLAT(box[3 + j]);
    z[j] = SPLAT(0.5f * (box[j] + box[3 + j]));
  }
  for (i = 0; i < padded; i += W, number = ADD(number, SPLAT((float)W))) {
    V d = ZERO();
    IGPT__UNROLL
    for (j = 0; j < 3; j++) {
      V e = SUB(LOAD(centres + j * padded + i), z[j]);
      d = FMA(e, e, d);
    }
    which = BELOW(d, best, number, which);
    best = BELOW(d, best, d, best);
  }
  STORE(least, best);
  STORE(at, which);
  for (w = 1; w < W; w++)
    if (least[w] < least[0]) { least[0] = least[w]; at[0] = at[w]; }
  for (j = 0; j < 3; j++) {
    float c = centres[j * padded + (size_t)at[0]], below = c - box[j], above = box[3 + j] - c;
    float far_side = below > above ? below : above;
    bound += (double)far_side * (double)far_side;
    z[j] = SPLAT(c);
  }
  margin = SPLAT(1e-5f * (float)bound);
  for (i = 0; i < padded; i += W) {
    V own = ZERO(), other = margin;
    IGPT__UNROLL
    for (j = 0; j < 3; j++) {
      V y = LOAD(centres + j * padded + i), v = BELOW(z[j], y, high[j], low[j]);
      V a = SUB(y, v), b = SUB(z[j], v);
      own = FMA(a, a, own);
      other = FMA(b, b, other);
    }
    STORE(beyond + i, SUB(own, other));
  }
}

/* ---- training -------------------------------------------------------------------------------- */
#ifndef IGPT_NO_TRAIN

/* y_i = x_i r g_i,  r = (mean(x^2) + epsilon)^(-1/2),  dr / dx_i = -r^3 x_i / n, hence
   dx_i += r g_i dy_i - x_i (r^3 / n) sum_j x_j g_j dy_j     and     dg_i += x_i r dy_i */
TARGET static void K(norm_backward)(float *dx, float *dg, const float *dy, const float *x,
                                    const float *g, float r, size_t n)
{
  V s0 = ZERO(), s1 = ZERO(), factor = SPLAT(r), minus;
  size_t i = 0;
  for (; i + W <= n; i += W) s0 = FMA(MUL(LOAD(dy + i), LOAD(g + i)), LOAD(x + i), s0);
  if (i < n) s1 = FMA(MUL(LOADN(dy + i, n - i), LOADN(g + i, n - i)), LOADN(x + i, n - i), s1);
  minus = SPLAT(-(r * r * r / (float)(n > 0 ? n : 1) * K(sum)(ADD(s0, s1))));
  for (i = 0; i + W <= n; i += W) {
    V xi = LOAD(x + i), dyi = LOAD(dy + i);
    STORE(dx + i, FMA(MUL(dyi, LOAD(g + i)), factor, FMA(xi, minus, LOAD(dx + i))));
    STORE(dg + i, FMA(MUL(xi, factor), dyi, LOAD(dg + i)));
  }
  if (i < n) {
    V xi = LOADN(x + i, n - i), dyi = LOADN(dy + i, n - i);
    V gi = LOADN(g + i, n - i), dxi = LOADN(dx + i, n - i), dgi = LOADN(dg + i, n - i);
    STOREN(dx + i, FMA(MUL(dyi, gi), factor, FMA(xi, minus, dxi)), n - i);
    STOREN(dg + i, FMA(MUL(xi, factor), dyi, dgi), n - i);
  }
}

/* y = x s,  s = sigmoid(1.702 x),  ds / dx = 1.702 s (1 - s), hence
   dx = dy (s + 1.702 x s (1 - s)) */
TARGET IGPT__INLINE V K(gelu_slope)(V x)
{
  V s = K(sigmoid)(x), rest = SUB(SPLAT(1.0f), s);
  return FMA(MUL(MUL(x, s), SPLAT(1.702f)), rest, s);
}

TARGET static void K(gelu_backward)(float *dx, const float *dy, const float *x, size_t n)
{
  size_t i = 0;
  for (; i + W <= n; i += W) STORE(dx + i, MUL(LOAD(dy + i), K(gelu_slope)(LOAD(x + i))));
  if (i < n)
    STOREN(dx + i, MUL(LOADN(dy + i, n - i), K(gelu_slope)(LOADN(x + i, n - i))), n - i);
}

/* p_i = exp(scale s_i) / sum_j exp(scale s_j),  dp_i / ds_j = scale p_i ([i = j] - p_j), hence
   ds_i = scale p_i (dp_i - sum_j p_j dp_j) */
TARGET static void K(softmax_backward)(float *ds, float *p, float d, float scale, size_t n,
                                       int round)
{
  V shift = SPLAT(d), factor = SPLAT(scale);
  size_t i = 0;
  for (; i + W <= n; i += W) {
    V pi = LOAD(p + i), result = MUL(MUL(SUB(LOAD(ds + i), shift), pi), factor);
    STORE(ds + i, round ? BF16(result) : result);
    if (round) STORE(p + i, BF16(pi));
  }
  if (i < n) {
    V pi = LOADN(p + i, n - i), dp = SUB(LOADN(ds + i, n - i), shift);
    V result = MUL(MUL(dp, pi), factor);
    STOREN(ds + i, round ? BF16(result) : result, n - i);
    if (round) STOREN(p + i, BF16(pi), n - i);
  }
}

TARGET IGPT__INLINE V K(adam_weight)(V w, V m, V v, const igpt__adam *c)
{
  V step = DIV(m, FMA(SQRT(v), SPLAT(c->root), SPLAT(c->epsilon)));
  return FMA(SPLAT(-c->rate), step, FMA(SPLAT(-c->decay), w, w));
}

TARGET static void K(adam)(float *w, float *m, float *v, float *g, const igpt__adam *c, size_t n)
{
  V keep1 = SPLAT(c->beta1), take1 = SPLAT(1.0f - c->beta1), scale = SPLAT(c->scale);
  V keep2 = SPLAT(c->beta2), take2 = SPLAT(1.0f - c->beta2);
  size_t i = 0;
  for (; i + W <= n; i += W) {
    V gi = MUL(LOAD(g + i), scale);
    V mi = FMA(keep1, LOAD(m + i), MUL(take1, gi));
    V vi = FMA(keep2, LOAD(v + i), MUL(take2, MUL(gi, gi)));
    STORE(w + i, K(adam_weight)(LOAD(w + i), mi, vi, c));
    STORE(m + i, mi);
    STORE(v + i, vi);
    STORE(g + i, ZERO());
  }
  if (i < n) {
    size_t r = n - i;
    V gi = MUL(LOADN(g + i, r), scale);
    V mi = FMA(keep1, LOADN(m + i, r), MUL(take1, gi));
    V vi = FMA(keep2, LOADN(v + i, r), MUL(take2, MUL(gi, gi)));
    STOREN(w + i, K(adam_weight)(LOADN(w + i, r), mi, vi, c), r);
    STOREN(m + i, mi, r);
    STOREN(v + i, vi, r);
    STOREN(g + i, ZERO(), r);
  }
}
#endif /* IGPT_NO_TRAIN */

static const igpt_kernels K(kernels) = {
  ISA, MR, NR * W, K(tile), K(thin), K(pack), K(narrow), K(halve), K(peaks), K(quantise), K(dot),
  K(dots), K(sum_squares), K(maximum), K(axpy), K(add), K(scale), K(exp_sum), K(softmax_block),
  K(class_loss), K(norm), K(gelu), K(nearest),
#if IGPT__PASS == 3
  igpt__among_avx2,
#else
  K(among),
#endif
  K(beyond)
#ifndef IGPT_NO_TRAIN
  , K(norm_backward), K(gelu_backward), K(softmax_backward), K(adam)
#endif
};

#undef K
#undef ISA
#undef TARGET
#undef V
#undef W
#undef MR
#undef NR
#undef NARROW
#undef TR
#undef DR
#undef ZERO
#undef SPLAT
#undef LOAD
#undef STORE
#undef LANES
#undef LOADN
#undef STOREN
#undef ADD
#undef SUB
#undef MUL
#undef DIV
#undef FMA
#undef MAX
#undef SQRT
#undef BELOW
#undef WHOLE
#undef POWER
#undef BF16
#undef LOADH
#undef STOREH
#undef LOADB
#undef STOREB
#undef QUADS
#undef STOREQ
#undef ROWS
#undef D
#undef DZERO
#undef SQUARES
#undef TOTAL

#else /* IGPT__PASS >= 5 */

/* ==== 7. bfloat16: AMX, AVX512_BF16 ==========================================================

   From 2023 on Intel's servers have eight registers of 16 rows by 64 bytes, "tiles", and one
   instruction that multiplies two of them: 16 x 32 by 32 x 16 numbers in bfloat16, added to 16 x 16
   sums in float32, about fifteen times the multiply-adds of AVX-512 in the same time. The rest is
   feeding it. Four tiles of sums make a block of 32 x 32 outputs, so that each step of 32 k loads
   four tiles for four products; a step of a panel is two tiles that lie whole in memory, 2 KiB in a
   run, so that no stride sends their rows to the same places of the cache; and the sums leave
   through a small buffer, whence vectors bring them to C, whatever its edges.

   The instruction takes its second operand in pairs of k: row q of the tile has the elements 2q and
   2q + 1 of column 0, then those of column 1, and so on. So packing is two motions, from float32 or
   from bfloat16: numbers that lie along k become rows of A as they are, those across k, two rows at
   a time, become rows of B; where it is the other way round, pairs are transposed as if they were
   32-bit numbers, in registers. Nothing is transposed through memory.

   AMD's processors since 2022 have no tiles, but the vectors that go with them: VDPBF16PS adds the
   products of 16 pairs to 16 sums, twice the multiply-adds of float32 in the same time. A row of a
   tile of B is one operand of it and a pair from a row of A, repeated, the other. So a block of
   32 x 32 is done eight rows at a time, whose sums fill 16 registers (K(dots)), and all else here
   stays as it is.

   What the instructions compute is written down to the bit in TDPBF16PS and VDPBF16PS of Intel's
   "Software Developer's Manual", volume 2. So they can be emulated, and the tests run all of this
   on any machine; only the words below differ, and the bits are the same:

     TILES                the tiles of a task, or that it goes by dot products
     ENTER LEAVE          what precedes and follows their use
     FENCE                the compiler has stored what came before, and loads what comes next anew
     TILE_ZERO(t)         tile t becomes zero
     TILE_LOAD(t,p,step)  ... 16 rows of 64 bytes, `step` bytes apart
     TILE_STORE(t,p,step) the same way back
     TILE_DOT(c,a,b)      tile c += a b

     V, H                 16 floats; 16 pairs of bfloat16
     LANES(n)             a mask of the first n of 16, n of any size
     LOAD STORE SPLAT ADD SUB MUL DIV FMA MAX   as in part 6; LOADM STOREM those of a mask
     ONLY(m,v,w)          v in the lanes of the mask, w in the others
     ABOVE(v,w)           the mask of the lanes where v > w
     REST(v)              v - floor(v), rounded downwards
     SCALE(v,w)           v 2^floor(w)
     EXPONENT(v)          floor(log2 v), v > 0
     BITS(v) FLOATS(h)    the same 64 bytes as the other type
     HALVES(v,w)          v and w rounded to nearest even, as 16 and 16 bfloat16
     DOT(v,g,h)           v + products of the second of each pair + of the first, no denormals
     EACH(p)              the pair at p, 16 times
     LOADH(n,p)           the first n of 32 bfloat16, n of any size
     WIDEN(m,p)           16 bfloat16 as floats, those of a mask
     NARROW(p,m,v)        the same way back, rounded
     PAIR(l,p,m,q)        the pairs (p[i], q[i]), each where its mask has it
     GUESS(v)             -1 / v to 5 %, v < 0
     ZIP(h)               the pairs (h[i], h[16 + i])
     LOW(g,h) HIGH(g,h)   the pairs (g[i], h[i]) for i = 0..3, 8..11, 16..19, 24..27; for the others
     STOREH(p,h)          64 bytes
     TRANSPOSE(t)         16 by 16 pairs, or floats

   Guide: Intel, "64 and IA-32 Architectures Optimization Reference Manual", chapter 20.          */

#if IGPT__PASS == 5
  #define K(name) IGPT__CAT(igpt__tiles_##name, _plain)
  #define TARGET
  #define V igpt__lanes
  #define H igpt__lanes
  #define LOAD(p) igpt__lanes_load(p, 0xffff)
  #define STORE(p, v) igpt__lanes_store(p, 0xffff, v)
  #define LOADM(m, p) igpt__lanes_load(p, m)
  #define STOREM(p, m, v) igpt__lanes_store(p, m, v)
  #define SPLAT(x) igpt__lanes_splat(x)
  #define ADD(a, b) igpt__lanes_add(a, b)
  #define SUB(a, b) igpt__lanes_sub(a, b)
  #define MUL(a, b) igpt__lanes_mul(a, b)
  #define DIV(a, b) igpt__lanes_div(a, b)
  #define FMA(a, b, c) igpt__lanes_fma(a, b, c)
  #define MAX(a, b) igpt__lanes_max(a, b)
  #define ONLY(m, v, w) igpt__lanes_only(m, v, w)
  #define ABOVE(v, w) igpt__lanes_above(v, w)
  #define REST(v) igpt__lanes_rest(v)
  #define SCALE(v, w) igpt__lanes_scale(v, w)
  #define EXPONENT(v) igpt__lanes_exponent(v)
  #define BITS(v) (v)
  #define FLOATS(h) (h)
  #define HALVES(v, w) igpt__lanes_halves(v, w)
  #define DOT(v, g, h) igpt__lanes_dot(v, g, h)
  #define EACH(p) igpt__lanes_each(p)
  #define ZIP(h) igpt__lanes_zip(h)
  #define LOW(g, h) igpt__lanes_weave(g, h, 0)
  #define HIGH(g, h) igpt__lanes_weave(g, h, 4)
  #define STOREH(p, h) memcpy(p, (h).half, 64)
  #define LOADH(n, p) igpt__lanes_loadh(n, p)
  #define WIDEN(m, p) igpt__lanes_widen(m, p)
  #define NARROW(p, m, v) igpt__lanes_narrow(p, m, v)
  #define PAIR(l, p, m, q) igpt__lanes_pair(l, p, m, q)
  #define GUESS(v) igpt__lanes_guess(v)
  #define TRANSPOSE(t) igpt__lanes_transpose(t)
#else
#if IGPT__PASS == 6
  #define K(name) IGPT__CAT(igpt__tiles_##name, _vectors)
  #define TARGET IGPT__TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#else
  #define K(name) IGPT__CAT(igpt__tiles_##name, _amx)
  #define TARGET                                                                                  \
    IGPT__TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")
#endif
  #define V __m512
  #define H __m512i
  #define LOAD(p) _mm512_loadu_ps(p)
  #define STORE(p, v) _mm512_storeu_ps(p, v)
  #define LOADM(m, p) _mm512_maskz_loadu_ps(m, p)
  #define STOREM(p, m, v) _mm512_mask_storeu_ps(p, m, v)
  #define SPLAT(x) _mm512_set1_ps(x)
  #define ADD(a, b) _mm512_add_ps(a, b)
  #define SUB(a, b) _mm512_sub_ps(a, b)
  #define MUL(a, b) _mm512_mul_ps(a, b)
  #define DIV(a, b) _mm512_div_ps(a, b)
  #define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
  #define MAX(a, b) _mm512_maskz_max_ps(0xffff, a, b)
  #define ONLY(m, v, w) _mm512_mask_blend_ps(m, w, v)
  #define ABOVE(v, w) ((uint16_t)_mm512_cmp_ps_mask(v, w, _CMP_GT_OQ))
  #define REST(v) _mm512_maskz_reduce_ps(0xffff, v, 0x09)
  #define SCALE(v, w) _mm512_maskz_scalef_ps(0xffff, v, w)
  #define EXPONENT(v) _mm512_maskz_cvtepi32_ps(0xffff, _mm512_sub_epi32(                          \
    _mm512_maskz_srli_epi32(0xffff, BITS(v), 23), _mm512_set1_epi32(127)))
  #define BITS(v) _mm512_castps_si512(v)
  #define FLOATS(h) _mm512_castsi512_ps(h)
  #define HALVES(v, w) ((__m512i)_mm512_cvtne2ps_pbh(w, v))
  #define DOT(v, g, h) _mm512_dpbf16_ps(v, (__m512bh)(g), (__m512bh)(h))
  #define EACH(p) K(each)(p)
  #define ZIP(h) K(zip)(h)
  #define LOW(g, h) _mm512_unpacklo_epi16(g, h)
  #define HIGH(g, h) _mm512_unpackhi_epi16(g, h)
  #define STOREH(p, h) _mm512_storeu_si512(p, h)
  #define LOADH(n, p) _mm512_maskz_loadu_epi16((n) < 32 ? (1u << (n)) - 1u : 0xffffffffu, p)
  #define WIDEN(m, p) FLOATS(_mm512_maskz_slli_epi32(0xffff, K(widen)(m, p), 16))
  #define NARROW(p, m, v) _mm256_mask_storeu_epi16(p, m, (__m256i)_mm512_cvtneps_pbh(v))
  #define PAIR(l, p, m, q) _mm512_or_si512(K(widen)(l, p), BITS(WIDEN(m, q)))
  #define GUESS(v) FLOATS(_mm512_sub_epi32(_mm512_set1_epi32((int)0xfef311c7), BITS(v)))
  #define TRANSPOSE(t) K(transpose)(t)
#endif
  #define LANES(n) ((uint16_t)((n) < 16 ? (1u << (n)) - 1u : 0xffffu))
#if IGPT__PASS == 7
  #define TILES igpt__tile_shapes
  #define ENTER(tiles, how) K(enter)(tiles, how)
  #define LEAVE(tiles) ((tiles)->dots ? (void)0 : _tile_release())
  #define FENCE(tiles) __asm__ volatile("" : : "r"(tiles) : "memory")
  #define TILE_ZERO(t) _tile_zero(t)
  #define TILE_LOAD(t, p, step) _tile_loadd(t, p, step)
  #define TILE_STORE(t, p, step) _tile_stored(t, p, step)
  #define TILE_DOT(c, a, b) _tile_dpbf16ps(c, a, b)
#else
  #define TILES igpt__tile_set
  #define ENTER(tiles, how) (memset(tiles, 0xff, sizeof *tiles), (void)((tiles)->dots = (how)))
  #define LEAVE(tiles) memset(tiles, 0xff, sizeof *tiles)
  #define FENCE(tiles) ((void)0)
  #define TILE_ZERO(t) memset(&tiles->tile[t], 0, sizeof *tiles->tile)
  #define TILE_LOAD(t, p, step) igpt__tile_load(&tiles->tile[t], p, step)
  #define TILE_STORE(t, p, step) igpt__tile_store(&tiles->tile[t], p, step)
  #define TILE_DOT(c, a, b) igpt__tile_dot(&tiles->tile[c], &tiles->tile[a], &tiles->tile[b])
#endif

/* ---- emulated tiles and vectors -------------------------------------------------------------- */

#if IGPT__PASS == 5
typedef union igpt__tile {
  uint16_t half[16][32];
  float whole[16][16];
} igpt__tile;

typedef struct igpt__tile_set {
  igpt__tile tile[8];
  int dots;
} igpt__tile_set;

static void igpt__tile_load(igpt__tile *tile, const void *from, size_t step)
{
  size_t i;
  for (i = 0; i < 16; i++) memcpy(tile->half[i], (const char *)from + i * step, 64);
}

static void igpt__tile_store(const igpt__tile *tile, void *to, size_t step)
{
  size_t i;
  for (i = 0; i < 16; i++) memcpy((char *)to + i * step, tile->half[i], 64);
}

/* A denormal becomes a zero of its sign. */
static float igpt__tile_flush(float x)
{
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (!(bits & 0x7f800000u)) bits &= 0x80000000u;
  memcpy(&x, &bits, sizeof bits);
  return x;
}

static float igpt__tile_float(uint16_t half) { return igpt__tile_flush(igpt__widen(half)); }

static uint16_t igpt__tile_half(float x) { return igpt__half(igpt__tile_flush(x)); }

/* c[i][j] += (sum over even k) + (sum over odd k), each in ascending order from zero. A product of
   two bfloat16 is exact in float32, every sum is rounded to nearest even, and denormals are zero
   wherever they come up. */
static void igpt__tile_dot(igpt__tile *c, const igpt__tile *a, const igpt__tile *b)
{
  size_t i, j, q;
  for (i = 0; i < 16; i++) {
    float even[16], odd[16];
    for (j = 0; j < 16; j++) even[j] = odd[j] = 0;
    for (q = 0; q < 16; q++) {
      const float a0 = igpt__tile_float(a->half[i][2 * q]);
      const float a1 = igpt__tile_float(a->half[i][2 * q + 1]);
      for (j = 0; j < 16; j++) {
        even[j] = igpt__tile_flush(even[j] + a0 * igpt__tile_float(b->half[q][2 * j]));
        odd[j] = igpt__tile_flush(odd[j] + a1 * igpt__tile_float(b->half[q][2 * j + 1]));
      }
    }
    for (j = 0; j < 16; j++)
      c->whole[i][j] = igpt__tile_flush(igpt__tile_flush(c->whole[i][j]) +
                                        igpt__tile_flush(even[j] + odd[j]));
  }
}

typedef union igpt__lanes {
  float    whole[16];
  uint32_t pair[16];
  uint16_t half[32];
} igpt__lanes;

static igpt__lanes igpt__lanes_load(const float *from, uint16_t mask)
{
  igpt__lanes v;
  size_t i;
  for (i = 0; i < 16; i++) v.whole[i] = mask >> i & 1 ? from[i] : 0;
  return v;
}

static void igpt__lanes_store(float *to, uint16_t mask, igpt__lanes v)
{
  size_t i;
  for (i = 0; i < 16; i++)
    if (mask >> i & 1) to[i] = v.whole[i];
}

static igpt__lanes igpt__lanes_splat(float x)
{
  igpt__lanes v;
  size_t i;
  for (i = 0; i < 16; i++) v.whole[i] = x;
  return v;
}

/* Rounded downwards as the instruction does it, which is below 1 for any v < 0. */
static float igpt__lane_rest(float x)
{
  const double exact = (double)x - floor((double)x);
  float rest = (float)exact;
  if (x - x != 0) return x == x ? 0 : x;
  if ((double)rest > exact || rest >= 1) rest = nextafterf(rest, 0);
  return exact > 0 ? rest : -0.0f;
}

static float igpt__lane_scale(float x, float power)
{
  if (power != power) return power;
  return ldexpf(x, power < -400 ? -400 : power > 400 ? 400 : (int)floorf(power));
}

static float igpt__lane_exponent(float x)
{
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (float)((int32_t)(bits >> 23) - 127);
}

#define LANE_BY_LANE(name, arguments, what)                                                       \
  static igpt__lanes IGPT__CAT(igpt__lanes_, name) arguments                                      \
  {                                                                                               \
    size_t i;                                                                                     \
    for (i = 0; i < 16; i++) a.whole[i] = what;                                                   \
    return a;                                                                                     \
  }
LANE_BY_LANE(add, (igpt__lanes a, igpt__lanes b), a.whole[i] + b.whole[i])
LANE_BY_LANE(sub, (igpt__lanes a, igpt__lanes b), a.whole[i] - b.whole[i])
LANE_BY_LANE(mul, (igpt__lanes a, igpt__lanes b), a.whole[i] * b.whole[i])
LANE_BY_LANE(div, (igpt__lanes a, igpt__lanes b), a.whole[i] / b.whole[i])
LANE_BY_LANE(fma, (igpt__lanes a, igpt__lanes b, igpt__lanes c),
             fmaf(a.whole[i], b.whole[i], c.whole[i]))
LANE_BY_LANE(max, (igpt__lanes a, igpt__lanes b),
             a.whole[i] > b.whole[i] ? a.whole[i] : b.whole[i])
LANE_BY_LANE(only, (uint16_t mask, igpt__lanes a, igpt__lanes b),
             mask >> i & 1 ? a.whole[i] : b.whole[i])
LANE_BY_LANE(rest, (igpt__lanes a), igpt__lane_rest(a.whole[i]))
LANE_BY_LANE(scale, (igpt__lanes a, igpt__lanes b), igpt__lane_scale(a.whole[i], b.whole[i]))
LANE_BY_LANE(exponent, (igpt__lanes a), igpt__lane_exponent(a.whole[i]))
#undef LANE_BY_LANE

static uint16_t igpt__lanes_above(igpt__lanes a, igpt__lanes b)
{
  uint16_t mask = 0;
  size_t i;
  for (i = 0; i < 16; i++) mask = (uint16_t)(mask | (a.whole[i] > b.whole[i]) << i);
  return mask;
}

static igpt__lanes igpt__lanes_halves(igpt__lanes a, igpt__lanes b)
{
  igpt__lanes h;
  size_t i;
  for (i = 0; i < 32; i++) h.half[i] = igpt__tile_half(i < 16 ? a.whole[i] : b.whole[i - 16]);
  return h;
}

static igpt__lanes igpt__lanes_dot(igpt__lanes c, igpt__lanes a, igpt__lanes b)
{
  size_t i;
  for (i = 0; i < 16; i++) {
    const float first = igpt__tile_float(a.half[2 * i]) * igpt__tile_float(b.half[2 * i]);
    const float second = igpt__tile_float(a.half[2 * i + 1]) * igpt__tile_float(b.half[2 * i + 1]);
    c.whole[i] = igpt__tile_flush(igpt__tile_flush(c.whole[i]) + second);
    c.whole[i] = igpt__tile_flush(c.whole[i] + first);
  }
  return c;
}

static igpt__lanes igpt__lanes_each(const uint16_t *pair)
{
  igpt__lanes h;
  size_t i;
  for (i = 0; i < 32; i++) h.half[i] = pair[i % 2];
  return h;
}

static igpt__lanes igpt__lanes_loadh(size_t n, const uint16_t *from)
{
  igpt__lanes h;
  size_t i;
  for (i = 0; i < 32; i++) h.half[i] = (uint16_t)(i < n ? from[i] : 0);
  return h;
}

static igpt__lanes igpt__lanes_pair(uint16_t low, const uint16_t *from, uint16_t high,
                                    const uint16_t *next)
{
  igpt__lanes h;
  size_t i;
  for (i = 0; i < 16; i++) {
    h.half[2 * i] = (uint16_t)(low >> i & 1 ? from[i] : 0);
    h.half[2 * i + 1] = (uint16_t)(high >> i & 1 ? next[i] : 0);
  }
  return h;
}

static igpt__lanes igpt__lanes_widen(uint16_t mask, const uint16_t *from)
{
  igpt__lanes v;
  size_t i;
  for (i = 0; i < 16; i++) v.pair[i] = mask >> i & 1 ? (uint32_t)from[i] << 16 : 0;
  return v;
}

static void igpt__lanes_narrow(uint16_t *to, uint16_t mask, igpt__lanes v)
{
  size_t i;
  for (i = 0; i < 16; i++)
    if (mask >> i & 1) to[i] = igpt__tile_half(v.whole[i]);
}

static igpt__lanes igpt__lanes_guess(igpt__lanes v)
{
  size_t i;
  for (i = 0; i < 16; i++) v.pair[i] = 0xfef311c7u - v.pair[i];
  return v;
}

static igpt__lanes igpt__lanes_zip(igpt__lanes a)
{
  igpt__lanes h;
  size_t i;
  for (i = 0; i < 32; i++) h.half[i] = a.half[i % 2 * 16 + i / 2];
  return h;
}

static igpt__lanes igpt__lanes_weave(igpt__lanes a, igpt__lanes b, size_t first)
{
  igpt__lanes h;
  size_t i;
  for (i = 0; i < 16; i++) {
    h.half[2 * i] = a.half[i / 4 * 8 + i % 4 + first];
    h.half[2 * i + 1] = b.half[i / 4 * 8 + i % 4 + first];
  }
  return h;
}

static void igpt__lanes_transpose(igpt__lanes t[16])
{
  size_t i, j;
  for (i = 0; i < 16; i++)
    for (j = 0; j < i; j++) {
      uint32_t pair = t[i].pair[j];
      t[i].pair[j] = t[j].pair[i];
      t[j].pair[i] = pair;
    }
}
#else

/* 16 x 16 numbers of 32 bits: pairs within each quarter of a register, then the quarters */
TARGET IGPT__INLINE void K(transpose)(__m512i t[16])
{
  __m512i u[16];
  size_t i;
  IGPT__UNROLL
  for (i = 0; i < 16; i += 2) {
    u[i] = _mm512_maskz_unpacklo_epi32(0xffff, t[i], t[i + 1]);
    u[i + 1] = _mm512_maskz_unpackhi_epi32(0xffff, t[i], t[i + 1]);
  }
  IGPT__UNROLL
  for (i = 0; i < 16; i += 4) {
    t[i] = _mm512_maskz_unpacklo_epi64(0xff, u[i], u[i + 2]);
    t[i + 1] = _mm512_maskz_unpackhi_epi64(0xff, u[i], u[i + 2]);
    t[i + 2] = _mm512_maskz_unpacklo_epi64(0xff, u[i + 1], u[i + 3]);
    t[i + 3] = _mm512_maskz_unpackhi_epi64(0xff, u[i + 1], u[i + 3]);
  }
  IGPT__UNROLL
  for (i = 0; i < 4; i++) {
    u[i] = _mm512_maskz_shuffle_i32x4(0xffff, t[i], t[4 + i], 0x88);
    u[4 + i] = _mm512_maskz_shuffle_i32x4(0xffff, t[i], t[4 + i], 0xdd);
    u[8 + i] = _mm512_maskz_shuffle_i32x4(0xffff, t[8 + i], t[12 + i], 0x88);
    u[12 + i] = _mm512_maskz_shuffle_i32x4(0xffff, t[8 + i], t[12 + i], 0xdd);
  }
  IGPT__UNROLL
  for (i = 0; i < 4; i++) {
    t[i] = _mm512_maskz_shuffle_i32x4(0xffff, u[i], u[8 + i], 0x88);
    t[4 + i] = _mm512_maskz_shuffle_i32x4(0xffff, u[4 + i], u[12 + i], 0x88);
    t[8 + i] = _mm512_maskz_shuffle_i32x4(0xffff, u[i], u[8 + i], 0xdd);
    t[12 + i] = _mm512_maskz_shuffle_i32x4(0xffff, u[4 + i], u[12 + i], 0xdd);
  }
}

TARGET IGPT__INLINE __m512i K(widen)(uint16_t mask, const uint16_t *from)
{
  return _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_maskz_loadu_epi16(mask, from));
}

TARGET IGPT__INLINE __m512i K(each)(const uint16_t *from)
{
  int pair;
  memcpy(&pair, from, sizeof pair);
  return _mm512_set1_epi32(pair);
}

TARGET IGPT__INLINE __m512i K(zip)(__m512i h)
{
  static const uint16_t order[32] = { 0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,  21,
                                      6,  22, 7,  23, 8,  24, 9,  25, 10, 26, 11, 27,
                                      12, 28, 13, 29, 14, 30, 15, 31 };
  return _mm512_maskz_permutexvar_epi16(0xffffffffu, _mm512_loadu_si512(order), h);
}
#endif

/* ---- the scope in which tiles may be used ---------------------------------------------------- */

#if IGPT__PASS == 7
/* What ldtilecfg reads. Eight tiles of 16 rows by 64 bytes; unused ones are described too. */
typedef struct igpt__tile_shapes {
  uint8_t  palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t  rows[16];              /* 64 bytes; from here on it is ours */
  int      dots;
} igpt__tile_shapes;

/* gcc 12 believes that _tile_loadconfig reads 8 bytes of the 64, and drops the stores of the
   others; and that _tile_loadd reads no memory at all. The empty statement of FENCE says better. */
TARGET static void K(enter)(igpt__tile_shapes *tiles, int dots)
{
  int i;
  memset(tiles, 0, sizeof *tiles);
  tiles->dots = dots;
  if (dots) return;
  tiles->palette = 1;
  for (i = 0; i < 8; i++) {
    tiles->rows[i] = 16;
    tiles->row_bytes[i] = 64;
  }
  FENCE(tiles);
  _tile_loadconfig(tiles);
}
#endif

/* ---- packing --------------------------------------------------------------------------------- */

/* One tile whose k lie in a run: a register is a lane. half: of bfloat16, or of floats. */
TARGET IGPT__INLINE void K(pack_along)(uint16_t *to, const void *from, int half, size_t lane_stride,
                                       size_t lanes, size_t k, int pairs)
{
  const uint16_t low = LANES(k), high = LANES(k > 16 ? k - 16 : 0);
  const uint16_t *halves = (const uint16_t *)from;
  const float *floats = (const float *)from;
  H t[16];
  size_t i;
  IGPT__UNROLL
  for (i = 0; i < 16; i++) {
    const size_t row = i < lanes ? i * lane_stride : 0;
    const uint16_t mine = (uint16_t)(i < lanes ? low : 0), more = (uint16_t)(i < lanes ? high : 0);
    if (half) t[i] = LOADH(i < lanes ? k : 0, halves + row);
    else t[i] = HALVES(LOADM(mine, floats + row), LOADM(more, floats + row + (k > 16 ? 16 : 0)));
  }
  if (pairs) TRANSPOSE(t);
  IGPT__UNROLL
  for (i = 0; i < 16; i++) STOREH(to + 32 * i, t[i]);
}

/* One tile whose lanes lie in a run: a register is a pair of k. */
TARGET IGPT__INLINE void K(pack_across)(uint16_t *to, const void *from, int half, size_t k_stride,
                                        size_t lanes, size_t k, int pairs)
{
  const uint16_t mask = LANES(lanes);
  const uint16_t *halves = (const uint16_t *)from;
  const float *floats = (const float *)from;
  H t[16];
  size_t i;
  IGPT__UNROLL
  for (i = 0; i < 16; i++) {
    const uint16_t even = (uint16_t)(2 * i < k ? mask : 0);
    const uint16_t odd = (uint16_t)(2 * i + 1 < k ? mask : 0);
    const size_t row = even ? 2 * i * k_stride : 0, next = odd ? row + k_stride : row;
    if (half) t[i] = PAIR(even, halves + row, odd, halves + next);
    else t[i] = ZIP(HALVES(LOADM(even, floats + row), LOADM(odd, floats + next)));
  }
  if (!pairs) TRANSPOSE(t);
  IGPT__UNROLL
  for (i = 0; i < 16; i++) STOREH(to + 32 * i, t[i]);
}

/* One tile from up to 16 lanes and 32 k, and zeros */
TARGET static void K(pack_tile)(uint16_t *to, const float *from, size_t lane_stride,
                                size_t k_stride, size_t lanes, size_t k, int pairs)
{
  if (k_stride == 1) K(pack_along)(to, from, 0, lane_stride, lanes, k, pairs);
  else if (lane_stride == 1) K(pack_across)(to, from, 0, k_stride, lanes, k, pairs);
  else {                          /* no operand of the network has two strides */
    float copy[16 * 32] = { 0 };
    size_t i, p;
    for (i = 0; i < lanes; i++)
      for (p = 0; p < k; p++) copy[i * 32 + p] = from[i * lane_stride + p * k_stride];
    K(pack_along)(to, copy, 0, 32, lanes, k, pairs);
  }
}

TARGET static void K(fold_tile)(uint16_t *to, const uint16_t *from, size_t lane_stride,
                                size_t k_stride, size_t lanes, size_t k, int pairs)
{
  if (k_stride == 1) K(pack_along)(to, from, 1, lane_stride, lanes, k, pairs);
  else K(pack_across)(to, from, 1, k_stride, lanes, k, pairs);
}

/* Both tiles of a panel, whole ones, whose lanes lie in a run */
TARGET static IGPT__NOINLINE void K(turn_panel)(uint16_t *to, const uint16_t *from, size_t k_stride)
{
  H t[16];
  size_t part, i;
  for (part = 0; part < 2; part++, to += 4 * 32) {
    IGPT__UNROLL
    for (i = 0; i < 16; i++) {
      const uint16_t *pair = from + 2 * i * k_stride;
      const H even = LOADH(32, pair), odd = LOADH(32, pair + k_stride);
      t[i] = part ? HIGH(even, odd) : LOW(even, odd);
    }
    TRANSPOSE(t);
    IGPT__UNROLL
    for (i = 0; i < 16; i++) STOREH(to + (i + (i & 12)) * 32, t[i]);
  }
}

/* The same in pairs. The next rows of k are far from these: they are asked for. */
TARGET static IGPT__NOINLINE void K(weave_panel)(uint16_t *to, const uint16_t *from,
                                                 size_t k_stride)
{
  const uint16_t *even = from, *odd = from + k_stride;
  size_t i;
  for (i = 0; i < 16; i++, to += 32, even += 2 * k_stride, odd += 2 * k_stride) {
    IGPT__PREFETCH(IGPT__BEYOND(even, 64 * k_stride));
    IGPT__PREFETCH(IGPT__BEYOND(odd, 64 * k_stride));
    STOREH(to, PAIR(0xffff, even, 0xffff, odd));
    STOREH(to + 512, PAIR(0xffff, even + 16, 0xffff, odd + 16));
  }
}

/* Panel by panel, but where lanes lie in a run first all lanes of one step: memory is read in the
   order in which it lies. */
TARGET IGPT__INLINE void K(pack_panels)(uint16_t *to, const void *from, int half,
                                        size_t lane_stride, size_t k_stride, size_t count, size_t k,
                                        int pairs)
{
  const size_t panel = IGPT__PANEL * igpt__size_round(k, IGPT__PANEL);
  const size_t all = k_stride == 1 ? 32 : count;
  size_t first, lane, p, i;
  for (first = 0; first < count; first += all)
    for (p = 0; p < k; p += 32)
      for (lane = first; lane < count && lane < first + all; lane += 32)
        for (i = 0; i < 32; i += 16) {
          uint16_t *tile = to + lane / 32 * panel + p * 32 + 32 * i;
          const size_t corner = (lane + i) * lane_stride + p * k_stride;
          const size_t lanes = igpt__min_size(16, count - lane - i);
          const size_t depth = igpt__min_size(32, k - p);
          if (half && k_stride != 1 && count - lane >= 32 && depth == 32) {
            if (pairs) K(weave_panel)(tile, (const uint16_t *)from + corner, k_stride);
            else K(turn_panel)(tile, (const uint16_t *)from + corner, k_stride);
            break;                             /* that was both */
          }
          if (lane + i >= count) memset(tile, 0, 512 * sizeof *tile);
          else if (half)
            K(fold_tile)(tile, (const uint16_t *)from + corner, lane_stride, k_stride, lanes, depth,
                         pairs);
          else
            K(pack_tile)(tile, (const float *)from + corner, lane_stride, k_stride, lanes, depth,
                         pairs);
        }
}

TARGET static void K(pack)(uint16_t *to, const float *from, size_t lane_stride, size_t k_stride,
                           size_t count, size_t k, int pairs)
{
  K(pack_panels)(to, from, 0, lane_stride, k_stride, count, k, pairs);
}

TARGET static void K(fold)(uint16_t *to, const uint16_t *from, size_t lane_stride, size_t k_stride,
                           size_t count, size_t k, int pairs)
{
  K(pack_panels)(to, from, 1, lane_stride, k_stride, count, k, pairs);
}

/* ---- the product ----------------------------------------------------------------------------- */

/* y = 2^x to 8e-5, a twentieth of what rounding to bfloat16 may do; 0 for minus infinity. Four at
   once, step by step: an eighth faster than one after the other where the core is shared. */
TARGET IGPT__INLINE void K(powers)(V y[4], const V x[4])
{
  V rest[4];
  size_t q;
  IGPT__UNROLL
  for (q = 0; q < 4; q++) rest[q] = REST(x[q]);
  IGPT__UNROLL
  for (q = 0; q < 4; q++) y[q] = FMA(SPLAT(0.0780245215f), rest[q], SPLAT(0.226067156f));
  IGPT__UNROLL
  for (q = 0; q < 4; q++) y[q] = FMA(y[q], rest[q], SPLAT(0.695833564f));
  IGPT__UNROLL
  for (q = 0; q < 4; q++) y[q] = FMA(y[q], rest[q], SPLAT(0.999925196f));
  IGPT__UNROLL
  for (q = 0; q < 4; q++) y[q] = SCALE(y[q], x[q]);
}

/* s = 1 / (1 + exp(-1.702 x)) to 2e-4: of the guess, with r its error of up to 5 %, r^3 is left.
   Where s would be below 2^-64 it is 2^-64. */
TARGET IGPT__INLINE void K(sigmoids)(V s[4], const V x[4])
{
  V power[4], minus[4], r[4];
  size_t q;
  IGPT__UNROLL
  for (q = 0; q < 4; q++) power[q] = MUL(MAX(x[q], SPLAT(-26.0642f)), SPLAT(-2.45546699f));
  K(powers)(minus, power);
  IGPT__UNROLL
  for (q = 0; q < 4; q++) minus[q] = SUB(SPLAT(-1.0f), minus[q]);
  IGPT__UNROLL
  for (q = 0; q < 4; q++) s[q] = GUESS(minus[q]);
  IGPT__UNROLL
  for (q = 0; q < 4; q++) r[q] = FMA(minus[q], s[q], SPLAT(1.0f));
  IGPT__UNROLL
  for (q = 0; q < 4; q++) s[q] = FMA(s[q], FMA(r[q], r[q], r[q]), s[q]);
}

/* K(block_of) without tiles: sums of 8 rows stay in registers while k goes by in pairs. */
TARGET static void K(dots)(float *sums, const uint16_t *a, size_t row, size_t step,
                           const uint16_t *b, size_t m, size_t depth, int accumulate, int once)
{
  size_t i, r, p, q;
  for (i = 0; i < m; i += 8, a += 8 * row, sums += 8 * 32) {
    const uint16_t *rows = a;
    V low[8], high[8];
    IGPT__UNROLL
    for (r = 0; r < 8; r++) {
      low[r] = accumulate ? LOAD(sums + r * 32) : SPLAT(0.0f);
      high[r] = accumulate ? LOAD(sums + r * 32 + 16) : SPLAT(0.0f);
    }
    for (p = 0; p < 32 * depth; p += 1024, rows += step)
      for (q = 0; q < 32; q += 2) {
        const uint16_t *const pairs = b + p + 16 * q;
        const H left = LOADH(32, pairs), right = LOADH(32, pairs + 512);
        if (once && i == 0) {
          IGPT__PREFETCH_L2(IGPT__BEYOND(pairs, 4096));
          IGPT__PREFETCH_L2(IGPT__BEYOND(pairs + 512, 4096));
        }
        IGPT__UNROLL
        for (r = 0; r < 8; r++) {
          const H pair = EACH(rows + r * row + q);
          low[r] = DOT(low[r], pair, left);
          high[r] = DOT(high[r], pair, right);
        }
      }
    IGPT__UNROLL
    for (r = 0; r < 8; r++) {
      STORE(sums + r * 32, low[r]);
      STORE(sums + r * 32 + 16, high[r]);
    }
  }
}

/* sums (32,32) [+]= a b over `depth` of k, a multiple of 32, a panel each; m rows of them at least.
   Of a, the next row is `row` and the next step `step` numbers on. once: b comes from memory, and
   is asked for two steps ahead. */
TARGET IGPT__INLINE void K(block_of)(TILES *tiles, float *sums, const uint16_t *a, size_t row,
                                     size_t step, const uint16_t *b, size_t m, size_t depth,
                                     int accumulate, int once)
{
  size_t p, line;
  if (tiles->dots) {
    K(dots)(sums, a, row, step, b, m, depth, accumulate, once);
    return;
  }
  FENCE(tiles);
  if (accumulate) {
    TILE_LOAD(0, sums, 128);
    TILE_LOAD(1, sums + 16, 128);
    TILE_LOAD(2, sums + 16 * 32, 128);
    TILE_LOAD(3, sums + 16 * 32 + 16, 128);
  } else {
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
  }
  for (p = 0; p < 32 * depth; p += 1024, a += step) {
    for (line = 0; once && line < 2048; line += 64)
      IGPT__PREFETCH_L2(IGPT__BEYOND(b + p, 4096 + line));
    TILE_LOAD(6, b + p, 64);
    TILE_LOAD(4, a, 2 * row);
    TILE_LOAD(7, b + p + 512, 64);
    TILE_LOAD(5, a + 16 * row, 2 * row);
    TILE_DOT(0, 4, 6);
    TILE_DOT(1, 4, 7);
    TILE_DOT(2, 5, 6);
    TILE_DOT(3, 5, 7);
  }
  TILE_STORE(0, sums, 128);
  TILE_STORE(1, sums + 16, 128);
  TILE_STORE(2, sums + 16 * 32, 128);
  TILE_STORE(3, sums + 16 * 32 + 16, 128);
  FENCE(tiles);
}

TARGET IGPT__INLINE void K(block)(TILES *tiles, float *sums, const uint16_t *a, size_t row,
                                  size_t step, const uint16_t *b, size_t depth, int accumulate)
{
  K(block_of)(tiles, sums, a, row, step, b, 32, depth, accumulate, 0);
}

/* What becomes of the sums (32,32) of outputs (i..,j..), m rows and n columns of them */
TARGET IGPT__INLINE void K(to_floats)(const igpt__tiled *o, const float *sums, size_t i, size_t j,
                                      size_t m, size_t n)
{
  const uint16_t low = LANES(n), high = LANES(n > 16 ? n - 16 : 0);
  const size_t second = n > 16 ? 16 : 0;
  float *c = o->c + i * o->ldc + j;
  const float *plus = o->plus ? o->plus + i * o->ldc + j : NULL;
  for (i = 0; i < m; i++, c += o->ldc, sums += 32) {
    V u = LOAD(sums), v = LOAD(sums + 16);
    if (plus) {
      u = ADD(LOADM(low, plus), u);
      v = ADD(LOADM(high, plus + second), v);
      plus += o->ldc;
    }
    STOREM(c, low, u);
    STOREM(c + second, high, v);
  }
}

TARGET IGPT__INLINE void K(to_halves)(const igpt__tiled *o, const float *sums, size_t i, size_t j,
                                      size_t m)
{
  uint16_t *h = o->h + i * o->ldh + j;
  for (i = 0; i < m; i++, h += o->ldh, sums += 32) STOREH(h, HALVES(LOAD(sums), LOAD(sums + 16)));
}

TARGET IGPT__INLINE void K(to_gelu)(const igpt__tiled *o, const float *sums, size_t i, size_t j,
                                    size_t m)
{
  uint16_t *h = o->h + i * o->ldh + j, *g = o->g + i * o->ldg + j;
  for (i = 0; i < m; i += 2, sums += 64) {
    const size_t one = i + 1 < m ? 1 : 0;           /* whether there is a second row */
    uint16_t *const to = h + i * o->ldh, *const next = to + one * o->ldh;
    uint16_t *const gelu = g + i * o->ldg, *const more = gelu + one * o->ldg;
    const H high = HALVES(LOAD(sums + 32 * one), LOAD(sums + 32 * one + 16));
    V x[4], s[4];
    STOREH(to, HALVES(LOAD(sums), LOAD(sums + 16)));
    STOREH(next, high);
    x[0] = WIDEN(0xffff, to);
    x[1] = WIDEN(0xffff, to + 16);
    x[2] = WIDEN(0xffff, next);
    x[3] = WIDEN(0xffff, next + 16);
    K(sigmoids)(s, x);
    STOREH(gelu, HALVES(MUL(x[0], s[0]), MUL(x[1], s[1])));
    STOREH(more, HALVES(MUL(x[2], s[2]), MUL(x[3], s[3])));
  }
}

#ifndef IGPT_NO_TRAIN
/* With s = sigmoid(1.702 x), gelu = x s and its derivative is s + 1.702 x s (1 - s). Rows of gelu
   take the place of sums that were read: they are half as long. */
TARGET IGPT__INLINE void K(from_gelu)(const igpt__tiled *o, float *sums, size_t i, size_t j,
                                      size_t m, size_t n)
{
  uint16_t *rows = (uint16_t *)(void *)sums, *h = o->h + i * o->ldh + j;
  uint16_t *turned = o->turned + j / 32 * o->turned_panel + i * 32;
  const uint16_t *g = o->g + i * o->ldg + j;
  size_t r, q;
  for (r = 0; r < m; r += 2) {
    const size_t one = r + 1 < m ? 1 : 0;           /* whether there is a second row */
    const uint16_t *const from = g + r * o->ldg, *const next = from + one * o->ldg;
    uint16_t *const to = h + r * o->ldh;
    const float *const dy[2] = { sums + 32 * r, sums + 32 * (r + one) };
    V x[4], s[4], dx[4];
    x[0] = WIDEN(0xffff, from);
    x[1] = WIDEN(0xffff, from + 16);
    x[2] = WIDEN(0xffff, next);
    x[3] = WIDEN(0xffff, next + 16);
    K(sigmoids)(s, x);
    IGPT__UNROLL
    for (q = 0; q < 4; q++) x[q] = MUL(x[q], s[q]);
    IGPT__UNROLL
    for (q = 0; q < 4; q++)
      dx[q] = FMA(MUL(x[q], SPLAT(1.702f)), SUB(SPLAT(1.0f), s[q]), s[q]);
    IGPT__UNROLL
    for (q = 0; q < 4; q++) dx[q] = MUL(dx[q], LOAD(dy[q / 2] + 16 * (q % 2)));
    STOREH(to + one * o->ldh, HALVES(dx[2], dx[3]));
    STOREH(to, HALVES(dx[0], dx[1]));
    STOREH(rows + 32 * (r + one), HALVES(x[2], x[3]));
    STOREH(rows + 32 * r, HALVES(x[0], x[1]));
  }
  if (m == 32 && n == 32) {
    K(turn_panel)(turned, rows, 32);
    return;
  }
  K(fold_tile)(turned, rows, 1, 32, igpt__min_size(16, n), m, 0);
  K(fold_tile)(turned + 512, rows + 16, 1, 32, n > 16 ? n - 16 : 0, m, 0);
}
#endif

/* What comes next: the rows that a block's halves go to, or those that its sums are added to, which
   lie too far apart for the processor to guess; and a part of the next panel of B, as great as the
   block is among the rows. */
TARGET IGPT__INLINE void K(ahead)(const igpt__tiled *o, size_t i, size_t j, size_t depth)
{
  const size_t part = depth * IGPT__PANEL / igpt__divide_up(o->m, IGPT__PANEL);
  const size_t next = (j + 32) * depth + i / IGPT__PANEL * part;
  size_t p;
  for (p = i; o->h && p < i + 32 && p < o->m; p++) IGPT__PREFETCH(o->h + p * o->ldh + j);
  for (p = i; o->plus && p < i + 32 && p < o->m; p++) {
    IGPT__PREFETCH_L2(o->plus + p * o->ldc + j);
    IGPT__PREFETCH_L2(IGPT__BEYOND(o->plus + p * o->ldc + j, 64));
  }
  for (p = 0; j + 32 < o->n && p < part; p += 32) IGPT__PREFETCH_L2(o->b + next + p);
}

/* Each element is the sum, in ascending order, of what tiles make of 32 k at a time, or of what dot
   products make of two; then comes what it is added to. So its bits depend on k alone, not on m, n
   or its place. */
TARGET static void K(multiply_by)(const igpt__tiled *o, int dots)
{
  const size_t depth = igpt__size_round(o->k, IGPT__PANEL);
  float space[1024 + 16], *sums = space + (64 - (uintptr_t)space % 64) / sizeof(float) % 16;
  TILES set, *const tiles = &set;
  size_t i, j;
  ENTER(tiles, dots);
  for (j = 0; j < o->n; j += 32)
    for (i = 0; i < o->m; i += 32) {
      const size_t m = igpt__min_size(32, o->m - i), n = igpt__min_size(32, o->n - j);
      if (o->m > 32) {
        K(ahead)(o, i, j, depth);
        K(block)(tiles, sums, o->a + i / 32 * o->a_panel, o->a_row, o->a_step, o->b + j * depth,
                 depth, 0);
      } else K(block_of)(tiles, sums, o->a, o->a_row, o->a_step, o->b + j * depth, m, depth, 0, 1);
      switch (o->to) {
        case IGPT__TO_FLOATS: K(to_floats)(o, sums, i, j, m, n); break;
        case IGPT__TO_HALVES: K(to_halves)(o, sums, i, j, m); break;
        case IGPT__TO_GELU: K(to_gelu)(o, sums, i, j, m); break;
#ifndef IGPT_NO_TRAIN
        case IGPT__FROM_GELU: K(from_gelu)(o, sums, i, j, m, n); break;
#else
        case IGPT__FROM_GELU: break;
#endif
      }
    }
  LEAVE(tiles);
}

/* ---- attention -------------------------------------------------------------------------------

   Part 10 tells what is computed. Here scores are transposed: 32 queries lie across, keys go down.
   So the largest, the sum and whatever else softmax keeps of a query never leave its lane, and what
   vectors make of the scores leaves them as operands of the products that follow: a row of P, 32
   queries of one key, is a row of the first operand of dV = P^T dout, and two such rows, zipped,
   are one of the second operand of out^T = V^T P^T.

   Tiles and vectors share the processor's ports: their times add up, in whatever order they come,
   so nothing is interleaved. What counts is that a block of scores stays in the first cache, the
   rest in the second, and that sums go to memory and back as seldom as possible.                 */

/* log2(x) for positive x, to 2e-6: its exponent, plus z times a polynomial, where 1 + z is the
   fraction */
TARGET IGPT__INLINE V K(log2)(V x)
{
  V whole = EXPONENT(x), z = SUB(SCALE(x, SUB(SPLAT(0.0f), whole)), SPLAT(1.0f));
  V y = FMA(SPLAT(-0.02645745f), z, SPLAT(0.123451486f));
  y = FMA(y, z, SPLAT(-0.27953815f));
  y = FMA(y, z, SPLAT(0.45827082f));
  y = FMA(y, z, SPLAT(-0.7182819f));
  y = FMA(y, z, SPLAT(1.4425532f));
  return FMA(y, z, whole);
}

/* Scores (keys,32) become minus infinity where a query does not see a key. */
TARGET static void K(hide)(float *s, size_t keys, size_t key, size_t query, size_t T, int causal)
{
  size_t i;
  for (i = 0; i < keys; i++, key++, s += 32) {
    const size_t hidden = key >= T ? 32 : causal && key > query ? key - query : 0;
    const uint16_t low = LANES(hidden), high = LANES(hidden > 16 ? hidden - 16 : 0);
    STOREM(s, low, SPLAT(-HUGE_VALF));
    STOREM(s + 16, high, SPLAT(-HUGE_VALF));
  }
}

/* Rows `to` (., up to 16), of which `rows` are written, from as many columns of 16 rows of `from`,
   32 floats apart, times a factor a column. Of columns that LOW or HIGH chose (weave 12)
   the next four are eight rows on. */
TARGET static void K(turn)(uint16_t *to, size_t ld, const float *from, V factor, size_t rows,
                           size_t width, size_t weave)
{
  const uint16_t mask = LANES(width);
  H t[16];
  size_t i;
  IGPT__UNROLL
  for (i = 0; i < 16; i++) t[i] = BITS(MUL(LOAD(from + i * 32), factor));
  TRANSPOSE(t);
  IGPT__UNROLL
  for (i = 0; i < 16; i++) {
    const size_t row = i + (i & weave);
    if (row < rows) NARROW(to + row * ld, mask, FLOATS(t[i]));
  }
}

/* o (E,32) [+]= V^T P^T, keys [key, end) of the `tall` that v has; p begins with `key`. */
TARGET static void K(weigh)(TILES *tiles, float *o, size_t E, const uint16_t *v, size_t tall,
                            const uint16_t *p, size_t key, size_t end)
{
  size_t e;
  for (e = 0; e < E; e += 32)
    K(block)(tiles, o + e * 32, v + e * tall + key * 32, 32, 1024, p, end - key, key > 0);
}

/* A panel of 32 queries takes keys 64 at a time, whose P waits until there are 256 of them. A
   larger score is no reason to scale down what has been summed up so far, before it is 2^8 times
   larger: 2^8 is nothing to a float. */
TARGET static void K(attend_by)(const igpt__head *head, size_t first, size_t end, float *scratch,
                                int dots)
{
  const size_t E = head->E, wide = igpt__size_round(E, IGPT__PANEL);
  const size_t all = head->causal ? end : head->T, tall = igpt__size_round(all, IGPT__PANEL);
  uint16_t *k = (uint16_t *)(void *)scratch, *v = k + tall * wide, *q = v + tall * wide;
  uint16_t *p = q + 32 * wide;
  float *s = (float *)(void *)(p + 32 * IGPT__ATTEND_WAIT), *o = s + 32 * IGPT__ATTEND_KEYS;
  const V scale = SPLAT(head->scale * 1.44269504f);        /* exp(x) = 2^(x / ln 2) */
  static const uint16_t one[2] = { 0x3f80, 0x3f80 };
  const H ones = EACH(one);
  TILES set, *const tiles = &set;
  size_t query, key, keys, i, h;
  K(fold)(k, head->k, head->stride, 1, all, E, 0);
  K(fold)(v, head->v, 1, head->stride, E, all, 0);
  ENTER(tiles, dots);
  for (query = first; query < end; query += 32) {
    const size_t queries = igpt__min_size(32, end - query);
    const size_t last = head->causal ? query + queries : head->T;
    size_t done = 0;              /* keys before are in o, those from there on in p */
    V most[2], total[2];
    most[0] = most[1] = SPLAT(-HUGE_VALF);
    total[0] = total[1] = SPLAT(0.0f);
    K(fold)(q, head->q + query * head->stride, head->stride, 1, queries, E, 1);
    for (key = 0; key < last; key += keys) {
      uint16_t *to = p + (key - done) * 32, above[2];
      V top[2];
      keys = igpt__min_size(IGPT__ATTEND_KEYS, igpt__size_round(last - key, 32));
      for (i = 0; i < keys; i += 32)
        K(block)(tiles, s + i * 32, k + (key + i) * wide, 32, 1024, q, wide, 0);
      if (key + keys > (head->causal ? query + 1 : last))
        K(hide)(s, keys, key, query, head->T, head->causal);
      top[0] = LOAD(s);
      top[1] = LOAD(s + 16);
      for (i = 1; i < keys; i++) {
        top[0] = MAX(LOAD(s + i * 32), top[0]);
        top[1] = MAX(LOAD(s + i * 32 + 16), top[1]);
      }
      IGPT__UNROLL
      for (h = 0; h < 2; h++) {
        top[h] = MUL(top[h], scale);
        above[h] = ABOVE(top[h], ADD(most[h], SPLAT(8.0f)));
      }
      if (above[0] | above[1]) {
        V fall[4], shrunk[4];
        if (done < key) K(weigh)(tiles, o, E, v, tall, p, done, key);
        done = key;
        to = p;
        IGPT__UNROLL
        for (h = 0; h < 4; h++) fall[h] = SUB(most[h % 2], top[h % 2]);
        K(powers)(shrunk, fall);
        IGPT__UNROLL
        for (h = 0; h < 2; h++) {
          V change = ONLY(above[h], shrunk[h], SPLAT(1.0f));
          most[h] = ONLY(above[h], top[h], most[h]);
          total[h] = MUL(total[h], change);
          for (i = 0; key > 0 && i < E; i++)
            STORE(o + i * 32 + 16 * h, MUL(LOAD(o + i * 32 + 16 * h), change));
        }
      }
      for (i = 0; i < keys; i += 2) {
        V power[4], w[4];
        IGPT__UNROLL
        for (h = 0; h < 4; h++)
          power[h] = FMA(LOAD(s + i * 32 + 16 * h), scale, SUB(SPLAT(0.0f), most[h % 2]));
        K(powers)(w, power);
        IGPT__UNROLL
        for (h = 0; h < 2; h++) {
          H pair = ZIP(HALVES(w[h], w[2 + h]));
          total[h] = DOT(total[h], pair, ones);
          STOREH(to + i / 32 * 1024 + h * 512 + i % 32 * 16, pair);
        }
      }
      if (key + keys - done == IGPT__ATTEND_WAIT || key + keys >= last) {
        K(weigh)(tiles, o, E, v, tall, p, done, key + keys);
        done = key + keys;
      }
    }
    for (h = 0; h < 2 && 16 * h < queries; h++) {
      const size_t rows = igpt__min_size(16, queries - 16 * h), row = query + 16 * h;
      const V inverse = DIV(SPLAT(1.0f), total[h]);
      for (i = 0; i < E; i += 16)
        K(turn)(head->out + row * head->width + i, head->width, o + i * 32 + 16 * h, inverse, rows,
                E - i, 0);
      if (head->lse)
        STOREM(head->lse + row, LANES(rows),
               MUL(ADD(most[h], K(log2)(total[h])), SPLAT(0.693147181f)));
    }
  }
  LEAVE(tiles);
}

#ifndef IGPT_NO_TRAIN
/* d (count, and zeros up to a multiple of 32) = the sums of a[i] b[i] over each row */
TARGET static void K(row_dots)(float *d, const uint16_t *a, const uint16_t *b, size_t ld,
                               size_t count, size_t n)
{
  size_t row, i, r;
  for (row = 0; row < igpt__size_round(count, 32); row += 16) {
    H t[16];
    V sum = SPLAT(0.0f);
    for (r = 0; r < 16; r++) {
      V dot = SPLAT(0.0f);
      for (i = 0; row + r < count && i < n; i += 16) {
        const uint16_t mask = LANES(n - i);
        const size_t at = (row + r) * ld + i;
        dot = FMA(WIDEN(mask, a + at), WIDEN(mask, b + at), dot);
      }
      t[r] = BITS(dot);
    }
    TRANSPOSE(t);
    for (r = 0; r < 16; r++) sum = ADD(sum, FLOATS(t[r]));
    STORE(d + row, sum);
  }
}

/* From 32 keys by 32 queries of scores s and of dp = dout V^T, transposed: P and dS / scale as
   first operands, a key a row, and dS / scale once more as second operand, two keys woven. */
TARGET static void K(weights)(uint16_t *p, uint16_t *ds, uint16_t *woven, const float *s,
                           const float *dp, V scale, const float *minus, const float *d)
{
  V shift[2], mean[2];
  size_t i, h;
  IGPT__UNROLL
  for (h = 0; h < 2; h++) {
    shift[h] = LOAD(minus + 16 * h);
    mean[h] = LOAD(d + 16 * h);
  }
  for (i = 0; i < 32; i += 2) {
    V power[4], w[4];
    H row, next;
    IGPT__UNROLL
    for (h = 0; h < 4; h++) power[h] = FMA(LOAD(s + i * 32 + 16 * h), scale, shift[h % 2]);
    K(powers)(w, power);
    STOREH(p + i * 32, HALVES(w[0], w[1]));
    STOREH(p + i * 32 + 32, HALVES(w[2], w[3]));
    IGPT__UNROLL
    for (h = 0; h < 4; h++) w[h] = MUL(w[h], SUB(LOAD(dp + i * 32 + 16 * h), mean[h % 2]));
    row = HALVES(w[0], w[1]);
    next = HALVES(w[2], w[3]);
    STOREH(ds + i * 32, row);
    STOREH(ds + i * 32 + 32, next);
    STOREH(woven + i * 16, LOW(row, next));
    STOREH(woven + 512 + i * 16, HIGH(row, next));
  }
}

/* All pairs of a query of [query, query_end) and a key of [key, key_end), in blocks: dk and dv are
   complete after all queries of a block of keys, dq after all blocks. If causal, units of 32 by 32
   above the diagonal are neither computed nor added. */
TARGET static void K(attend_backward_by)(const igpt__head *head, size_t query, size_t query_end,
                                         size_t key, size_t key_end, float *scratch, int dots)
{
  const size_t E = head->E, wide = igpt__size_round(E, 32), count = query_end - query;
  const size_t stride = head->stride, width = head->width;
  const size_t nq = igpt__size_round(count, 32), nk = igpt__size_round(key_end - key, 32);
  const size_t area = igpt__min_size(nk, IGPT__BACK_TALL) * igpt__min_size(nq, IGPT__BACK_WIDE);
  uint16_t *q = (uint16_t *)(void *)scratch, *d = q + nq * wide, *q_across = d + nq * wide;
  uint16_t *d_across = q_across + nq * wide, *k = d_across + nq * wide, *v = k + nk * wide;
  uint16_t *k_across = v + nk * wide, *p = k_across + nk * wide, *ds = p + area;
  uint16_t *woven = ds + area;
  float *s = (float *)(void *)(woven + area), *dp = s + 1024, *minus = dp + 1024;
  float *mean = minus + nq, *dk = mean + nq, *dv = dk + igpt__min_size(nk, IGPT__BACK_TALL) * wide;
  float *dq = dv + igpt__min_size(nk, IGPT__BACK_TALL) * wide;
  const V scale = SPLAT(head->scale), power = SPLAT(head->scale * 1.44269504f);
  TILES set, *const tiles = &set;
  size_t i0, i, j0, j, e, r, h, keys, queries;

  K(fold)(q, head->q + query * stride, stride, 1, count, E, 1);
  K(fold)(q_across, head->q + query * stride, 1, stride, E, count, 1);
  K(fold)(d, head->dout + query * width, width, 1, count, E, 1);
  K(fold)(d_across, head->dout + query * width, 1, width, E, count, 1);
  K(row_dots)(mean, head->dout + query * width, head->out + query * width, width, count, E);
  for (i = 0; i < nq; i += 16)    /* zero where there is no query: whose dS is 1 (0 - 0) */
    STORE(minus + i, MUL(LOADM(LANES(i < count ? count - i : 0),
                               head->lse + query + (i < count ? i : 0)), SPLAT(-1.44269504f)));
  K(fold)(k, head->k + key * stride, stride, 1, key_end - key, E, 0);
  K(fold)(k_across, head->k + key * stride, 1, stride, E, key_end - key, 0);
  K(fold)(v, head->v + key * stride, stride, 1, key_end - key, E, 0);
  ENTER(tiles, dots);
  for (j0 = 0; j0 < nk; j0 += keys) {
    const size_t row = key + j0;
    keys = igpt__min_size(nk - j0, IGPT__BACK_TALL);
    i0 = head->causal && row > query ? (row - query) / IGPT__BACK_WIDE * IGPT__BACK_WIDE : 0;
    for (; i0 < nq; i0 += queries) {
      queries = igpt__min_size(nq - i0, IGPT__BACK_WIDE);
      for (j = 0; j < keys; j += 32)
        for (i = 0; i < queries; i += 32) {
          const size_t at = query + i0 + i;
          if (head->causal && at < row + j) continue;
          K(block)(tiles, s, k + (j0 + j) * wide, 32, 1024, q + (i0 + i) * wide, wide, 0);
          K(block)(tiles, dp, v + (j0 + j) * wide, 32, 1024, d + (i0 + i) * wide, wide, 0);
          if (row + j + 32 > (head->causal ? at + 1 : head->T))
            K(hide)(s, 32, row + j, at, head->T, head->causal);
          K(weights)(p + j * queries + i * 32, ds + j * queries + i * 32,
                     woven + i * keys + j * 32, s, dp, power, minus + i0 + i, mean + i0 + i);
        }
      for (j = 0; head->dk && j < keys; j += 32) {
        const size_t begin = head->causal && row + j > query ? row + j - query : 0;
        const size_t from = igpt__max_size(begin, i0), to = i0 + queries;
        for (e = 0; from < to && e < E; e += 32) {
          const size_t a = j * queries + (from - i0) * 32, b = e * nq + from * 32;
          K(block)(tiles, dv + j * wide + e * 32, p + a, 32, 1024, d_across + b, to - from,
                   from > begin);
          K(block)(tiles, dk + j * wide + e * 32, ds + a, 32, 1024, q_across + b, to - from,
                   from > begin);
        }
      }
      for (i = 0; head->dq && i < queries; i += 32) {
        const size_t at = query + i0 + i;
        const size_t below = at < row ? 0 : igpt__min_size(keys, at + 32 - row);
        const size_t seen = head->causal ? below : keys;
        for (e = 0; seen > 0 && e < E; e += 32)
          K(block)(tiles, dq + (i0 + i) * wide + e * 32, k_across + e * nk + j0 * 32, 32, 1024,
                   woven + i * keys, seen, j0 > 0);
      }
    }
    for (r = 0; head->dk && r < keys && row + r < key_end; r++)
      for (e = 0; e < E; e += 16) {
        const size_t from = r / 32 * 32 * wide + e / 32 * 1024 + r % 32 * 32 + e % 32;
        const size_t to = (row + r) * stride + e;
        NARROW(head->dk + to, LANES(E - e), MUL(LOAD(dk + from), scale));
        NARROW(head->dv + to, LANES(E - e), LOAD(dv + from));
      }
  }
  for (i = 0; head->dq && i < count; i += 32)
    for (h = 0; h < 2 && i + 4 * h < count; h++)
      for (e = 0; e < E; e += 16)
        K(turn)(head->dq + (query + i + 4 * h) * stride + e, stride,
                dq + i * wide + e * 32 + 16 * h, scale, count - i - 4 * h, E - e, 12);
  LEAVE(tiles);
}
#endif

/* ---- the units ------------------------------------------------------------------------------- */

static void K(multiply)(const igpt__tiled *product) { K(multiply_by)(product, 0); }
static void K(multiply_dots)(const igpt__tiled *product) { K(multiply_by)(product, 1); }

static void K(attend)(const igpt__head *head, size_t first, size_t end, float *scratch)
{
  K(attend_by)(head, first, end, scratch, 0);
}

static void K(attend_dots)(const igpt__head *head, size_t first, size_t end, float *scratch)
{
  K(attend_by)(head, first, end, scratch, 1);
}

#ifndef IGPT_NO_TRAIN
static void K(attend_backward)(const igpt__head *head, size_t query, size_t query_end, size_t key,
                               size_t key_end, float *scratch)
{
  K(attend_backward_by)(head, query, query_end, key, key_end, scratch, 0);
}

static void K(attend_backward_dots)(const igpt__head *head, size_t query, size_t query_end,
                                    size_t key, size_t key_end, float *scratch)
{
  K(attend_backward_by)(head, query, query_end, key, key_end, scratch, 1);
}
#endif

IGPT__UNUSED static const igpt__tiles K(unit) = {
  K(pack), K(fold), K(multiply), K(attend)
#ifndef IGPT_NO_TRAIN
  , K(attend_backward)
#endif
};

IGPT__UNUSED static const igpt__tiles K(unit_dots) = {
  K(pack), K(fold), K(multiply_dots), K(attend_dots)
#ifndef IGPT_NO_TRAIN
  , K(attend_backward_dots)
#endif
};

#undef K
#undef TARGET
#undef V
#undef H
#undef LOAD
#undef STORE
#undef LOADM
#undef STOREM
#undef SPLAT
#undef ADD
#undef SUB
#undef MUL
#undef DIV
#undef FMA
#undef MAX
#undef LANES
#undef ONLY
#undef ABOVE
#undef REST
#undef SCALE
#undef EXPONENT
#undef BITS
#undef FLOATS
#undef HALVES
#undef DOT
#undef EACH
#undef ZIP
#undef LOW
#undef HIGH
#undef STOREH
#undef LOADH
#undef WIDEN
#undef NARROW
#undef PAIR
#undef GUESS
#undef TRANSPOSE
#undef TILES
#undef ENTER
#undef LEAVE
#undef FENCE
#undef TILE_ZERO
#undef TILE_LOAD
#undef TILE_STORE
#undef TILE_DOT
#endif /* IGPT__PASS */
#undef IGPT__PASS
#define IGPT__IN_PASS             /* hides the rest of the file from this inclusion */
#endif /* IGPT__PASS */

#if defined(IGPT_IMPLEMENTATION) && !defined(IGPT__IN_PASS) && !defined(IGPT__IMPLEMENTED_REST)
#define IGPT__IMPLEMENTED_REST

/* ==== 8. detection ===========================================================================

   Which rows of the table may run here? On x86 two parties must agree: the processor has the
   instructions (cpuid), and the system saves the wider registers when it switches threads (xgetbv).
   The compiler's own builtins answer the first question alone on some versions, so both are asked
   here. NEON belongs to every 64-bit ARM, and a WebAssembly module with SIMD128 starts only where
   that is supported. Nothing is remembered: there is no global to race on.
   Intel, "Software Developer's Manual", volume 1, 14.3 and 15.2.                                 */

#if IGPT__X86
static void igpt__cpuid(uint32_t r[4], uint32_t leaf, uint32_t part)
{
#ifdef _MSC_VER
  int v[4];
  __cpuidex(v, (int)leaf, (int)part);
  r[0] = (uint32_t)v[0];
  r[1] = (uint32_t)v[1];
  r[2] = (uint32_t)v[2];
  r[3] = (uint32_t)v[3];
#else
  __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(part));
#endif
}

/* the registers that the operating system saves: bit 1 XMM, 2 YMM, 5 to 7 the AVX-512 state, 17
   the shapes of tiles, 18 the tiles */
static uint64_t igpt__saved_registers(void)
{
#ifdef _MSC_VER
  return _xgetbv(0);
#else
  uint32_t low, high;             /* as bytes: the name of xgetbv would need -mxsave */
  __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
#endif
}
#endif

igpt_isa igpt_isa_best(void)
{
#if IGPT__X86
  uint32_t r[4];
  uint64_t saved;
  igpt__cpuid(r, 0, 0);
  if (r[0] < 7) return IGPT_ISA_GENERIC;
  igpt__cpuid(r, 1, 0);              /* FMA, OSXSAVE (xgetbv may be asked), AVX */
  if (!(r[2] >> 12 & 1) || !(r[2] >> 27 & 1) || !(r[2] >> 28 & 1)) return IGPT_ISA_GENERIC;
  saved = igpt__saved_registers();
  igpt__cpuid(r, 7, 0);
  if ((saved & 0x06) != 0x06 || !(r[1] >> 5 & 1)) return IGPT_ISA_GENERIC;
  if (IGPT__AVX512 && (saved & 0xe6) == 0xe6 && (r[1] >> 16 & 1)) return IGPT_ISA_AVX512;
  return IGPT_ISA_AVX2;
#elif IGPT__NEON
  return IGPT_ISA_NEON;
#elif IGPT__WASM
  return IGPT_ISA_WASM;
#else
  return IGPT_ISA_GENERIC;
#endif
}

/* Tiles are 8 KiB of registers that few programs use: Linux wants each process to ask before it
   saves them at every switch of threads. Asking again is harmless. AVX512_BF16, BW, DQ and VL,
   which the vectors of part 7 need, come with every AMX so far, and are asked for all the same. */
#if IGPT__AMX
static int igpt__amx_vectors(void)
{
  uint32_t r[4];
  if (igpt_isa_best() != IGPT_ISA_AVX512) return 0;
  igpt__cpuid(r, 7, 0);
  if (r[0] < 1 || !(r[1] >> 17 & 1) || !(r[1] >> 30 & 1) || !(r[1] >> 31))
    return 0;                                               /* there is a part 1; DQ, BW, VL */
  igpt__cpuid(r, 7, 1);
  return r[0] >> 5 & 1;                                     /* AVX512_BF16 */
}

static int igpt__amx_permission(void)
{
  long result;                    /* arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) */
  __asm__ volatile("syscall" : "=a"(result) : "0"(158L), "D"(0x1023L), "S"(18L)
                   : "rcx", "r11", "memory");
  return result == 0;
}
#endif

static const igpt__tiles *igpt__amx_real(void)
{
#if IGPT__AMX
  uint32_t r[4];
  if (!igpt__amx_vectors() || (igpt__saved_registers() & 0x60000u) != 0x60000u) return NULL;
  igpt__cpuid(r, 7, 0);                                     /* AMX-BF16, AMX-TILE */
  return (r[3] >> 22 & 1) && (r[3] >> 24 & 1) && igpt__amx_permission() ? &igpt__tiles_unit_amx
                                                                        : NULL;
#else
  return NULL;
#endif
}

#ifdef IGPT__TILES
/* Emulated tiles, packed by the vectors that AMX's have, where these can run */
static const igpt__tiles *igpt__amx_emulated(void)
{
#if IGPT__AMX
  return igpt__amx_vectors() ? &igpt__tiles_unit_vectors : NULL;
#else
  return NULL;
#endif
}

/* AMX's where all but its own instructions can run, for those who trap these */
IGPT__UNUSED static const igpt__tiles *igpt__amx_trapped(void)
{
#if IGPT__AMX
  return igpt__amx_vectors() ? &igpt__tiles_unit_amx : NULL;
#else
  return NULL;
#endif
}
#endif

/* Dot products of AVX512_BF16, where this processor has them */
IGPT__UNUSED static const igpt__tiles *igpt__dots_any(void)
{
#if IGPT__AMX
  return igpt__amx_vectors() ? &igpt__tiles_unit_dots_amx : NULL;
#else
  return NULL;
#endif
}

/* Where they are worth having: AMD's do 64 operations a cycle, 32 in float32; those of Intel that
   have no tiles either are no faster, and the others half as fast. */
IGPT__UNUSED static const igpt__tiles *igpt__dots_fast(void)
{
#if IGPT__AMX
  uint32_t r[4];
  igpt__cpuid(r, 0, 0);                                     /* AuthenticAMD */
  if (r[1] == 0x68747541u && r[3] == 0x69746e65u && r[2] == 0x444d4163u) return igpt__dots_any();
#endif
  return NULL;
}

/* What multiplies bfloat16 in sessions of this set, null if this process may not have it. */
static const igpt__tiles *igpt__tiles_of(igpt_isa isa)
{
#ifdef IGPT__TILES
  return isa == IGPT_ISA_AMX ? IGPT__TILES : NULL;
#else
  return isa == IGPT_ISA_AMX ? igpt__amx_real()
         : isa == IGPT_ISA_AVX512_BF16 ? igpt__dots_fast() : NULL;
#endif
}

static int igpt__tiles_isa(igpt_isa isa)
{
  return isa == IGPT_ISA_AMX || isa == IGPT_ISA_AVX512_BF16;
}

int igpt_isa_supported(igpt_isa isa)
{
  igpt_isa best = igpt_isa_best();
  if (igpt__tiles_isa(isa)) return igpt__tiles_of(isa) != NULL;
  if (isa == IGPT_ISA_AUTO || isa == IGPT_ISA_GENERIC || isa == best) return 1;
  return isa == IGPT_ISA_AVX2 && best == IGPT_ISA_AVX512;
}

const char *igpt_isa_name(igpt_isa isa)
{
  switch (isa) {
    case IGPT_ISA_AUTO: return "auto";
    case IGPT_ISA_GENERIC: return "generic";
    case IGPT_ISA_AVX2: return "avx2";
    case IGPT_ISA_AVX512: return "avx512";
    case IGPT_ISA_AVX512_BF16: return "avx512bf16";
    case IGPT_ISA_AMX: return "amx";
    case IGPT_ISA_NEON: return "neon";
    case IGPT_ISA_WASM: return "wasm";
    case IGPT_ISA_COUNT: break;
  }
  return "unknown";
}

const igpt_kernels *igpt_kernels_for(igpt_isa isa)
{
  if (!igpt_isa_supported(isa)) return NULL;
  if (isa == IGPT_ISA_AUTO || igpt__tiles_isa(isa)) isa = igpt_isa_best();
#if IGPT__X86
  if (isa == IGPT_ISA_AVX2) return &igpt__kernels_avx2;
#endif
#if IGPT__AVX512
  if (isa == IGPT_ISA_AVX512) return &igpt__kernels_avx512;
#endif
#if IGPT__NEON
  if (isa == IGPT_ISA_NEON) return &igpt__kernels_neon;
#endif
#if IGPT__WASM
  if (isa == IGPT_ISA_WASM) return &igpt__kernels_wasm;
#endif
  return isa == IGPT_ISA_GENERIC ? &igpt__kernels_generic : NULL;
}

/* ---- the self-test ---------------------------------------------------------------------------

   A compiler, an emulator or a virtual machine may be wrong about an instruction set. Every kernel
   runs on short, odd shapes next to its generic twin; all inputs are of size one, so that one bound
   does. It is not a proof: tests/kernels.c compares with float64, and at every edge.             */

enum { IGPT__TEST_N = 75, IGPT__TEST_TILE = 1024 };

typedef struct igpt__trial {
  float x[IGPT__TEST_N], y[IGPT__TEST_N], z[IGPT__TEST_N], w[IGPT__TEST_N];
} igpt__trial;

static void igpt__trial_fill(float *x, size_t n, uint64_t stream)
{
  igpt_rng rng = igpt_rng_seed(1, stream);
  size_t i;
  for (i = 0; i < n; i++) x[i] = 2 * igpt_rng_uniform(&rng) - 1;
}

static void igpt__trial_start(igpt__trial *t)
{
  igpt__trial_fill(t->x, IGPT__TEST_N, 0);
  igpt__trial_fill(t->y, IGPT__TEST_N, 1);
  igpt__trial_fill(t->z, IGPT__TEST_N, 2);
  igpt__trial_fill(t->w, IGPT__TEST_N, 3);
}

/* 1 if all of a and b agree to within rounding; a NaN does not */
static int igpt__alike(const float *a, const float *b, size_t n)
{
  size_t i;
  for (i = 0; i < n; i++)
    if (!(fabsf(a[i] - b[i]) <= 2e-5f * (1 + fabsf(b[i])))) return 0;
  return 1;
}

/* Every vector kernel on length n; what they return goes to sums. */
static void igpt__trial_run(igpt__trial *t, float sums[8], const igpt_kernels *k, size_t n)
{
  igpt__trial_start(t);
  memset(sums, 0, 8 * sizeof *sums);
  sums[0] = k->dot(t->x, t->y, n);
  k->dots(sums + 5, 3, t->x, n, t->y, n / 3, 1, 3, n / 3);
  sums[1] = (float)k->sum_squares(t->x, n);
  sums[2] = n ? k->maximum(t->x, n) : 0;
  k->axpy(t->x, 0.75f, t->y, n);
  k->add(t->y, t->z, n);
  k->scale(t->z, 1.25f, n);
  sums[3] = k->norm(t->w, t->x, t->y, 1e-5f, n);
  k->gelu(t->w, t->w, n);
#ifndef IGPT_NO_TRAIN
  k->norm_backward(t->x, t->y, t->z, t->w, t->z, 0.5f, n);
  k->gelu_backward(t->z, t->z, t->x, n);
  k->softmax_backward(t->x, t->w, 0.25f, 0.5f, n, 0);
  {
    igpt__adam c = { 0.5f, 0.875f, 0.75f, 0.0625f, 2.0f, 0.125f, 0.03125f };
    k->scale(t->y, 0.0f, n);
    k->axpy(t->y, 1.0f, t->w, n);
    k->gelu(t->y, t->y, n);
    k->exp_sum(t->y, t->y, 1.0f, 0.0f, n);                 /* second moments are not negative */
    k->adam(t->x, t->w, t->y, t->z, &c, n);
    k->axpy(t->z, 1.0f, t->x, n);
  }
#endif
  sums[4] = k->exp_sum(t->w, t->w, 3.0f, 0.5f, n);
}

/* The products, on a 13-deep sum; tile and thin must agree with each other to the bit. */
static int igpt__trial_products(const igpt_kernels *k, int round)
{
  float a[IGPT__TEST_N], b[13 * 64], packed_a[IGPT__TEST_TILE], packed_b[IGPT__TEST_TILE];
  float c[IGPT__TEST_TILE], thin[IGPT__TEST_TILE], plain[IGPT__TEST_TILE];
  const size_t depth = 13, rows = 3, columns = (size_t)k->tile_columns;
  igpt__trial_fill(a, IGPT__TEST_N, 4);
  igpt__trial_fill(b, 13 * 64, 5);
  igpt__trial_fill(c, IGPT__TEST_TILE, 6);
  memcpy(thin, c, sizeof c);
  memcpy(plain, c, sizeof c);
  k->pack(packed_a, (size_t)k->tile_rows, a, depth, 1, rows, depth, round);
  k->pack(packed_b, columns, b, 1, 64, columns, depth, round);
  k->tile(c, columns, packed_a, packed_b, columns, rows, depth, 1);
  k->thin(thin, columns, a, depth, b, 64, rows, columns, depth, 1, round);
  igpt__kernels_generic.thin(plain, columns, a, depth, b, 64, rows, columns, depth, 1, round);
  if (memcmp(c, thin, rows * columns * sizeof(float))) return 0;
  if (!igpt__alike(c, plain, rows * columns)) return 0;
  k->pack(packed_b, columns, b, 13, 1, columns, depth, round);      /* b transposed */
  igpt__kernels_generic.pack(packed_a, columns, b, 13, 1, columns, depth, round);
  return memcmp(packed_a, packed_b, depth * columns * sizeof(float)) == 0;
}

/* Two blocks of a softmax; the columns that the generic tile has are compared. */
static int igpt__trial_softmax(const igpt_kernels *k, int round)
{
  const igpt_kernels *const by[2] = { k, &igpt__kernels_generic };
  const size_t rows = 5, E = 3, compared = (size_t)igpt__kernels_generic.tile_columns;
  float block[5 * 64], s[2][5 * 64], o[2][3 * 64], most[2][64], total[2][64];
  size_t which, turn, i, j;
  for (which = 0; which < 2; which++) {
    const size_t columns = (size_t)by[which]->tile_columns;
    for (j = 0; j < columns; j++) {
      most[which][j] = -HUGE_VALF;
      total[which][j] = 0;
      for (i = 0; i < E; i++) o[which][i * columns + j] = 1;
    }
    for (turn = 0; turn < 2; turn++) {
      igpt__trial_fill(block, 5 * 64, 9 + turn);
      for (i = 0; i < rows; i++)
        memcpy(s[which] + i * columns, block + i * 64, columns * sizeof(float));
      by[which]->softmax_block(s[which], rows, 2.5f, most[which], total[which], o[which],
                               turn ? E : 0, round);
    }
  }
  for (i = 0; i < rows; i++)
    if (!igpt__alike(s[0] + i * (size_t)k->tile_columns, s[1] + i * compared, compared)) return 0;
  for (i = 0; i < E; i++)
    if (!igpt__alike(o[0] + i * (size_t)k->tile_columns, o[1] + i * compared, compared)) return 0;
  return igpt__alike(most[0], most[1], compared) && igpt__alike(total[0], total[1], compared);
}

/* Losses of 7 classes: in every second column the label's logit is the largest. */
static int igpt__trial_losses(const igpt_kernels *k)
{
  enum { N = 7, LANES = 16 };
  float z[2][N * LANES], own[2][LANES], gap[2][LANES], excess[2][LANES];
  size_t i, which;
  for (which = 0; which < 2; which++) {
    igpt__trial_fill(z[which], N * LANES, 15);
    igpt__trial_fill(own[which], LANES, 16);
    for (i = 0; i < LANES; i++) {
      own[which][i] += i % 2 ? 2.0f : 0.0f;
      z[which][i % N * LANES + i] = -HUGE_VALF;
    }
    (which ? &igpt__kernels_generic : k)->class_loss(z[which], own[which], gap[which],
                                                     excess[which], N, LANES);
  }
  return igpt__alike(z[0], z[1], N * LANES) && igpt__alike(own[0], own[1], LANES) &&
         igpt__alike(gap[0], gap[1], LANES) && igpt__alike(excess[0], excess[1], LANES);
}

/* Weights of every kind, made by k, and products with them: panels that begin a row apart. */
static int igpt__trial_narrow(const igpt_kernels *k)
{
  enum { DEPTH = 13, WIDE = IGPT__NARROW_COLUMNS, PANELS = 7, N = PANELS * WIDE - 5 };
  const igpt_kernels *plain = &igpt__kernels_generic;
  float x[DEPTH], w[DEPTH * WIDE], most[2][WIDE], factor[WIDE], scale[N], y[2][N];
  uint16_t half[2][DEPTH * WIDE];
  int8_t byte[2][DEPTH * WIDE];
  size_t i, which;
  int bytes;
  igpt__trial_fill(x, DEPTH, 12);
  igpt__trial_fill(w, DEPTH * WIDE, 13);
  for (which = 0; which < 2; which++) {
    memset(most[which], 0, sizeof most[which]);
    (which ? plain : k)->peaks(most[which], w, WIDE, DEPTH);
    (which ? plain : k)->halve(half[which], w, DEPTH * WIDE);
    for (i = 0; i < WIDE; i++) factor[i] = 127 / most[which][i];
    (which ? plain : k)->quantise(byte[which], w, factor, WIDE, DEPTH);
  }
  if (memcmp(most[0], most[1], sizeof most[0]) || memcmp(half[0], half[1], sizeof half[0]) ||
      memcmp(byte[0], byte[1], sizeof byte[0]))
    return 0;
  for (i = 0; i < N; i++) scale[i] = most[0][i % WIDE] / 127;
  for (bytes = 4; bytes > 0; bytes /= 2) {
    const void *from = bytes == 4 ? (void *)w : bytes == 2 ? (void *)half[0] : (void *)byte[0];
    for (which = 0; which < 2; which++) {
      igpt__trial_fill(y[which], N, 14);
      (which ? plain : k)->narrow(y[which], N, x, 1, from, WIDE, WIDE, bytes, scale, 1, N,
                                  DEPTH - PANELS + 1, 1);
    }
    if (!igpt__alike(y[0], y[1], N)) return 0;
  }
  return 1;
}

static int igpt__trial_nearest(const igpt_kernels *k)
{
  float points[3 * 25], centres[3 * 64];
  uint16_t fast[25], plain[25];
  igpt__trial_fill(points, 3 * 25, 7);
  igpt__trial_fill(centres, 3 * 64, 8);
  centres[40] = centres[7];                                         /* a tie, and an unused one */
  centres[64 + 40] = centres[64 + 7];
  centres[128 + 40] = centres[128 + 7];
  centres[63] = centres[64 + 63] = centres[128 + 63] = 1e18f;
  memcpy(points, centres + 7, sizeof(float));
  memcpy(points + 1, centres + 64 + 7, sizeof(float));
  memcpy(points + 2, centres + 128 + 7, sizeof(float));
  k->nearest(fast, points, centres, 25, 64);
  igpt__kernels_generic.nearest(plain, points, centres, 25, 64);
  return fast[0] == 7 && memcmp(fast, plain, sizeof fast) == 0;
}

/* Pixels that choose between two lists, of which one holds a tie; and the centres beyond a box. */
static int igpt__trial_lists(const igpt_kernels *k)
{
  const uint16_t lists[16] = { 0, 4, 8, 60, 12, 56, 16, 20, 24, 60, 36, 40, 28, 32, 44, 28 };
  const float box[6] = { -0.5f, 0, 0.25f, 0.125f, 0.5f, 0.5f };
  uint8_t rgb[3 * 25];
  uint16_t which[25], fast[25], plain[25];
  float centres[4 * 16], beyond[16], plainly[16];
  size_t i;
  igpt__trial_fill(centres, 4 * 16, 9);
  k->beyond(beyond, centres, box, 16);
  igpt__kernels_generic.beyond(plainly, centres, box, 16);
  for (i = 0; i < 4 * 16; i++) centres[i] = 128 + 100 * centres[i];
  memcpy(centres + 56, centres, 4 * sizeof(float));
  for (i = 0; i < 3 * 25; i++) rgb[i] = (uint8_t)(i * 89);
  for (i = 0; i < 25; i++) which[i] = (uint16_t)(i % 3 == 1);
  k->among(fast, rgb, centres, lists, which, 25);
  igpt__kernels_generic.among(plain, rgb, centres, lists, which, 25);
  return memcmp(fast, plain, sizeof fast) == 0 && igpt__alike(beyond, plainly, 16);
}

/* A product whose every side ends within a tile, with operands of both layouts: 1 if it agrees with
   the generic row. */
static int igpt__tiles_multiplies(const igpt__tiles *tiles)
{
  enum { M = 21, N = 18, DEPTH = 37, PACKED = 32 * 64 };
  float a[M * DEPTH], b[DEPTH * N], c[M * N], plain[M * N], turned[M * DEPTH];
  uint16_t packed_a[PACKED], packed_b[PACKED], again[PACKED];
  igpt__tiled product;
  size_t i, p;
  igpt__trial_fill(a, M * DEPTH, 9);
  igpt__trial_fill(b, DEPTH * N, 10);
  igpt__trial_fill(c, M * N, 11);
  memcpy(plain, c, sizeof c);
  igpt__kernels_generic.thin(plain, N, a, DEPTH, b, N, M, N, DEPTH, 1, 1);
  tiles->pack(packed_a, a, DEPTH, 1, M, DEPTH, 0);
  tiles->pack(packed_b, b, 1, N, N, DEPTH, 1);
  product = igpt__tiled_of(M, N, DEPTH, packed_a, 0, packed_b, IGPT__TO_FLOATS);
  product.c = c;
  product.plus = c;
  product.ldc = N;
  tiles->multiply(&product);
  if (!igpt__alike(c, plain, M * N)) return 0;
  for (i = 0; i < M; i++)
    for (p = 0; p < DEPTH; p++) turned[p * M + i] = a[i * DEPTH + p];
  tiles->pack(again, turned, 1, M, M, DEPTH, 0);
  if (memcmp(again, packed_a, sizeof again)) return 0;
  for (i = 0; i < N; i++)
    for (p = 0; p < DEPTH; p++) turned[i * DEPTH + p] = b[p * N + i];
  tiles->pack(again, turned, DEPTH, 1, N, DEPTH, 1);
  return memcmp(again, packed_b, sizeof again) == 0;
}

/* Rows of one causal head, E floats each, and what becomes of them */
enum { IGPT__TEST_ROWS = 35, IGPT__TEST_E = 10 };

typedef struct igpt__trial_head {
  float qkv[IGPT__TEST_ROWS * 3 * IGPT__TEST_E], dqkv[IGPT__TEST_ROWS * 3 * IGPT__TEST_E];
  float dout[IGPT__TEST_ROWS * IGPT__TEST_E], out[IGPT__TEST_ROWS * IGPT__TEST_E];
  float lse[IGPT__TEST_ROWS];
} igpt__trial_head;

/* The same in bfloat16, and what it is afterwards */
typedef struct igpt__trial_halves {
  uint16_t qkv[IGPT__TEST_ROWS * 3 * IGPT__TEST_E], dqkv[IGPT__TEST_ROWS * 3 * IGPT__TEST_E];
  uint16_t dout[IGPT__TEST_ROWS * IGPT__TEST_E], out[IGPT__TEST_ROWS * IGPT__TEST_E];
  float lse[IGPT__TEST_ROWS];
} igpt__trial_halves;

/* Part 10's formulas, row by row */
static void igpt__trial_attention(igpt__trial_head *t, size_t T, float scale)
{
  const igpt_kernels *k = &igpt__kernels_generic;
  const size_t E = IGPT__TEST_E;
  float p[IGPT__TEST_ROWS], dp[IGPT__TEST_ROWS];
  size_t i, j;
  memset(t->out, 0, sizeof t->out);
  memset(t->dqkv, 0, sizeof t->dqkv);
  for (i = 0; i < T; i++) {
    const float *q = t->qkv + i * 3 * E, *dout = t->dout + i * E;
    float most, total, mean = 0;
    for (j = 0; j <= i; j++) p[j] = k->dot(q, t->qkv + j * 3 * E + E, E);
    most = scale * k->maximum(p, i + 1);
    total = k->exp_sum(p, p, scale, most, i + 1);
    t->lse[i] = most + (float)log((double)total);
    for (j = 0; j <= i; j++) {
      const float *v = t->qkv + j * 3 * E + 2 * E;
      p[j] /= total;
      dp[j] = k->dot(dout, v, E);
      mean += p[j] * dp[j];
      k->axpy(t->out + i * E, p[j], v, E);
    }
    for (j = 0; j <= i; j++) {
      const float ds = scale * p[j] * (dp[j] - mean);
      float *dk = t->dqkv + j * 3 * E + E;
      k->axpy(t->dqkv + i * 3 * E, ds, t->qkv + j * 3 * E + E, E);
      k->axpy(dk, ds, q, E);
      k->axpy(dk + E, p[j], dout, E);
    }
  }
}

/* Farther from b than a hundredth of its length? So is whatever has a NaN. */
static int igpt__far(const uint16_t *a, const float *b, size_t n)
{
  double distance = 0, length = 0;
  size_t i;
  for (i = 0; i < n; i++) {
    const double x = (double)igpt__widen(a[i]), y = (double)b[i];
    distance += (x - y) * (x - y);
    length += y * y;
  }
  return !(distance <= 1e-4 * length);
}

/* The same on tiles: a head that ends within the second panel, and forward and backward (which
   takes more scratch) one that ends within the first. bfloat16 makes 0.3 % of difference. */
static IGPT__NOINLINE int igpt__tiles_attends(const igpt__tiles *tiles)
{
  const size_t E = IGPT__TEST_E;
  igpt__trial_head plain;
  igpt__trial_halves halves;
  float space[10304 + 16], *scratch = space;
  igpt__head head;
  size_t T, i;
  while ((uintptr_t)scratch % IGPT__ALIGN) scratch++;
  igpt__trial_fill(plain.qkv, IGPT__COUNT(plain.qkv), 12);
  igpt__trial_fill(plain.dout, IGPT__COUNT(plain.dout), 13);
  for (i = 0; i < IGPT__COUNT(plain.qkv); i++)
    plain.qkv[i] = igpt__round_bf16(3 * plain.qkv[i]);
  for (i = 0; i < IGPT__COUNT(plain.dout); i++) plain.dout[i] = igpt__round_bf16(plain.dout[i]);
  igpt__kernels_generic.halve(halves.qkv, plain.qkv, IGPT__COUNT(plain.qkv));
  igpt__kernels_generic.halve(halves.dout, plain.dout, IGPT__COUNT(plain.dout));
  memset(&head, 0, sizeof head);
  head.E = E;
  head.stride = 3 * E;
  head.width = E;
  head.q = halves.qkv;
  head.k = halves.qkv + E;
  head.v = halves.qkv + 2 * E;
  head.out = halves.out;
  head.lse = halves.lse;
  head.dout = halves.dout;
  head.dq = halves.dqkv;
  head.dk = halves.dqkv + E;
  head.dv = halves.dqkv + 2 * E;
  head.scale = 0.5f;
  head.causal = 1;
  for (T = IGPT__TEST_ROWS; T > 20; T -= 10) {
    igpt__trial_attention(&plain, T, head.scale);
    head.T = T;
    tiles->attend(&head, 0, T, scratch);
    if (igpt__far(halves.out, plain.out, T * E)) return 0;
    for (i = 0; i < T; i++)
      if (!(fabsf(halves.lse[i] - plain.lse[i]) < 0.01f)) return 0;
#ifndef IGPT_NO_TRAIN
    if (igpt__attend_floats(T, E) > 10304) continue;
    tiles->attend_backward(&head, 0, T, 0, T, scratch);
    if (igpt__far(halves.dqkv, plain.dqkv, T * 3 * E)) return 0;
#endif
  }
  return 1;
}

/* 1 if these tiles may be used. */
static int igpt__tiles_right(const igpt__tiles *tiles)
{
  return tiles && igpt__tiles_multiplies(tiles) && igpt__tiles_attends(tiles);
}

IGPT__EXACT_ENTRY(igpt_selftest, (igpt_isa isa), (isa))
{
  const igpt_kernels *k = igpt_kernels_for(isa);
  igpt__trial fast, plain;
  float fast_sums[8], plain_sums[8];
  size_t n;
  if (!k) return IGPT_UNSUPPORTED;
  if (igpt__tiles_isa(isa) && !igpt__tiles_right(igpt__tiles_of(isa))) return IGPT_SELFTEST_FAILED;
  for (n = 0; n <= IGPT__TEST_N; n++) {
    igpt__trial_run(&fast, fast_sums, k, n);
    igpt__trial_run(&plain, plain_sums, &igpt__kernels_generic, n);
    if (!igpt__alike(fast.x, plain.x, IGPT__TEST_N) ||
        !igpt__alike(fast.y, plain.y, IGPT__TEST_N) ||
        !igpt__alike(fast.z, plain.z, IGPT__TEST_N) ||
        !igpt__alike(fast.w, plain.w, IGPT__TEST_N) || !igpt__alike(fast_sums, plain_sums, 8))
      return IGPT_SELFTEST_FAILED;
  }
  if (!igpt__trial_products(k, 0) || !igpt__trial_products(k, 1) || !igpt__trial_softmax(k, 0) ||
      !igpt__trial_losses(k) || !igpt__trial_narrow(k) || !igpt__trial_nearest(k) ||
      !igpt__trial_lists(k))
    return IGPT_SELFTEST_FAILED;
  return IGPT_OK;
}

/* ==== 9. matmul ==============================================================================

   C = A B is where a transformer spends its time: the linear layers take 2 m n k operations each.
   A processor reaches its speed only if each number fetched is used many times, so the matrices
   are cut: B into slabs that are packed once, shared by all workers and stay in the cache; A into
   strips that one worker packs for itself; both into the panels that `tile` wants. Transposed
   operands are other strides to the packing, and cost nothing after it. Packing moves k n numbers,
   and m k for each block of columns, for m n k multiply-adds: about one in a hundred. Goto, van de
   Geijn: "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3), 2008.

   The sum over k has one order, however C is cut, so that no bit depends on the workers.         */

enum {
  IGPT__BLOCK_DEPTH   = 512,      /* of k: a strip of A and columns of B stay in the second cache */
  IGPT__BLOCK_ROWS    = 96,       /* of A: a strip, at most */
  IGPT__WORKER_TASKS  = 8,        /* a worker, at least: so that all end at about the same time */
  IGPT__PACK_COLUMNS  = 128,      /* of B, at a time, a multiple of every tile's columns */
  IGPT__SLAB_COLUMNS  = 2048,     /* of B, packed at a time */
  IGPT__THIN_ROWS     = 4,        /* up to so many rows nothing is packed */
  IGPT__FEW_ROWS      = 16,       /* up to so many rows B is packed a piece at a time, of */
  IGPT__FEW_DEPTH     = 64,       /*   so many rows */
  IGPT__FEW_COLUMNS   = 256,      /*   and so many columns, a task, a multiple of every tile's */
  IGPT__TILE_FLOATS   = 512,      /* room for the largest tile, 12 x 32 */
  IGPT__AMX_DEPTH     = 1024,     /* of k, packed at a time for AMX */
  IGPT__AMX_ROWS      = 1024,     /* of A, packed at a time */
  IGPT__AMX_STRIP     = 64,       /* rows of a task, two panels */
  IGPT__AMX_BLOCK     = 393216,   /* packed numbers of B that a task takes: 768 KiB */
  IGPT__AMX_SHARE     = 128       /* rows or columns packed by a task */
};

/* What every parallel operation needs. */
typedef struct igpt__math {
  const igpt_kernels *kernels;
  igpt_runner runner;
  int    round;                   /* 1: operands of products are rounded to bfloat16 */
  const igpt__tiles *tiles;           /* and multiplied on these tiles; null: by kernels */
  float *shared;                  /* igpt__matmul_shared() or tiles_shared, 64-byte aligned */
  float *worker;                  /* igpt__workers() pieces of worker_floats, 64-byte aligned */
  size_t worker_floats;           /* a multiple of 16 */
} igpt__math;

typedef struct igpt__product {
  const igpt__math *math;
  float *c;
  const float *a, *b;
  size_t ldc, a_row, a_column, b_row, b_column, m, n, k;
  size_t strip, strips;           /* rows of a task; tasks down */
  size_t block, across;           /* columns of a task; tasks across */
  size_t column, columns;         /* the slab: columns [column, column + columns) of B */
  size_t deep, depth;             /* and its rows [deep, deep + depth) */
  size_t row, rows;               /* AMX: rows [row, row + rows) of A are packed too, ... */
  size_t packs;                   /* ... after so many tasks that pack B */
  int accumulate;
} igpt__product;

/* Floats of math.shared for any product with up to n columns and sums of up to k. */
static size_t igpt__matmul_shared(const igpt_kernels *kernels, size_t n, size_t k)
{
  size_t columns = igpt__min_size(n, IGPT__SLAB_COLUMNS);
  columns = igpt__size_round(columns, (size_t)kernels->tile_columns);
  return igpt__size_round(igpt__size_mul(columns, igpt__min_size(k, IGPT__BLOCK_DEPTH)), 16);
}

/* Floats a worker, for the same: a strip of A, or a few rows of it and a piece of B. */
static size_t igpt__matmul_worker(const igpt_kernels *kernels, size_t n, size_t k)
{
  const size_t columns = igpt__size_round(igpt__min_size(n, IGPT__FEW_COLUMNS),
                                          (size_t)kernels->tile_columns);
  const size_t rows = IGPT__FEW_ROWS + (size_t)kernels->tile_rows;
  return igpt__max_size(IGPT__BLOCK_ROWS * igpt__min_size(k, IGPT__BLOCK_DEPTH),
                        IGPT__FEW_DEPTH * (rows + columns));
}

static float *igpt__worker(const igpt__math *math, int worker)
{
  return math->worker + (size_t)worker * math->worker_floats;
}

/* A few panels of B */
static void igpt__matmul_pack_task(void *arg, size_t index, int worker)
{
  const igpt__product *p = (const igpt__product *)arg;
  const igpt_kernels *kernels = p->math->kernels;
  size_t first = index * IGPT__PACK_COLUMNS;
  size_t count = igpt__min_size(p->columns - first, IGPT__PACK_COLUMNS);
  (void)worker;
  kernels->pack(p->math->shared + first * p->depth, (size_t)kernels->tile_columns,
                p->b + p->deep * p->b_row + (p->column + first) * p->b_column, p->b_column,
                p->b_row, count, p->depth, p->math->round);
}

/* A tile at the right edge of C goes through a copy, since `tile` writes all its columns. */
static void igpt__tile_edge(const igpt_kernels *kernels, float *c, size_t ldc, const float *a,
                            const float *b, size_t m, size_t n, size_t k, int accumulate)
{
  float copy[IGPT__TILE_FLOATS];
  size_t full = (size_t)kernels->tile_columns, i;
  memset(copy, 0, sizeof copy);
  for (i = 0; accumulate && i < m; i++) memcpy(copy + i * full, c + i * ldc, n * sizeof(float));
  kernels->tile(copy, full, a, b, full, m, k, accumulate);
  for (i = 0; i < m; i++) memcpy(c + i * ldc, copy + i * full, n * sizeof(float));
}

/* One strip of A times a block of packed columns of B. Of these a few at a time, which stay in the
   second cache for all panels of the strip, and a panel of A stays in the first for them. The next
   tile of C is asked for meanwhile. */
static void igpt__matmul_task(void *arg, size_t index, int worker)
{
  const igpt__product *p = (const igpt__product *)arg;
  const igpt_kernels *kernels = p->math->kernels;
  const size_t mr = (size_t)kernels->tile_rows, nr = (size_t)kernels->tile_columns;
  size_t row = index % p->strips * p->strip, first = index / p->strips * p->block;
  size_t rows = igpt__min_size(p->m - row, p->strip);
  size_t end = igpt__min_size(p->columns, first + p->block), stop, i, j;
  float *a = igpt__worker(p->math, worker);
  int accumulate = p->accumulate || p->deep > 0;
  kernels->pack(a, mr, p->a + row * p->a_row + p->deep * p->a_column, p->a_row, p->a_column, rows,
                p->depth, p->math->round);
  for (; first < end; first = stop) {
    stop = igpt__min_size(end, first + IGPT__PACK_COLUMNS);
    for (i = 0; i < rows; i += mr)
      for (j = first; j < stop; j += nr) {
        const float *b = p->math->shared + j * p->depth;
        float *c = p->c + (row + i) * p->ldc + p->column + j;
        const size_t ahead = j + nr < stop ? nr : mr * p->ldc + first - j;
        size_t m = igpt__min_size(mr, rows - i), r, l;
        for (r = 0; r < m; r++)
          for (l = ahead; l < ahead + nr; l += 16)
            IGPT__PREFETCH(IGPT__BEYOND(c, (r * p->ldc + l) * sizeof *c));
        if (end - j < nr)
          igpt__tile_edge(kernels, c, p->ldc, a + i * p->depth, b, m, end - j, p->depth,
                          accumulate);
        else
          kernels->tile(c, p->ldc, a + i * p->depth, b, nr, m, p->depth, accumulate);
      }
  }
}

static void igpt__matmul_thin_task(void *arg, size_t index, int worker)
{
  const igpt__product *p = (const igpt__product *)arg;
  size_t first = index * IGPT__FEW_COLUMNS;
  size_t count = igpt__min_size(p->n - first, IGPT__FEW_COLUMNS);
  (void)worker;
  p->math->kernels->thin(p->c + first, p->ldc, p->a, p->a_row, p->b + first, p->b_row, p->m, count,
                         p->k, p->accumulate, p->math->round);
}

/* With a few rows of A the time goes into fetching B, which is why a piece of it is packed just
   before it is used, and the next one is asked for meanwhile. */
static void igpt__matmul_few_task(void *arg, size_t index, int worker)
{
  const igpt__product *p = (const igpt__product *)arg;
  const igpt_kernels *kernels = p->math->kernels;
  const size_t mr = (size_t)kernels->tile_rows, nr = (size_t)kernels->tile_columns;
  size_t first = index * IGPT__FEW_COLUMNS, count = igpt__min_size(p->n - first, IGPT__FEW_COLUMNS);
  size_t deep, depth, i, j, r, l;
  float *a = igpt__worker(p->math, worker), *b = a + IGPT__FEW_DEPTH * (IGPT__FEW_ROWS + mr);
  for (deep = 0; deep < p->k; deep += depth) {
    const float *from = p->b + deep * p->b_row + first;
    const int accumulate = p->accumulate || deep > 0;
    depth = igpt__min_size(p->k - deep, IGPT__FEW_DEPTH);
    kernels->pack(a, mr, p->a + deep, p->a_row, 1, p->m, depth, p->math->round);
    kernels->pack(b, nr, from, 1, p->b_row, count, depth, p->math->round);
    for (j = 0; j < count; j += nr) {
      for (r = j * depth / count; r < (j + nr) * depth / count; r++)
        for (l = 0; l < count && deep + depth + r < p->k; l += 16)
          IGPT__PREFETCH(from + (depth + r) * p->b_row + l);
      for (i = 0; i < p->m; i += mr) {
        float *c = p->c + i * p->ldc + first + j;
        size_t m = igpt__min_size(mr, p->m - i);
        if (count - j < nr)
          igpt__tile_edge(kernels, c, p->ldc, a + i * depth, b + j * depth, m, count - j, depth,
                          accumulate);
        else kernels->tile(c, p->ldc, a + i * depth, b + j * depth, nr, m, depth, accumulate);
      }
    }
  }
}

/* ---- the same on tiles ------------------------------------------------------------------------

   AMX multiplies so fast that fetching and packing count for more: A too is packed once and shared,
   up to 1024 rows of 1024, and a worker goes down the rows with a block of B that stays in its
   second cache. The sum over k is again in one order for each element: 32 at a time by the tiles,
   then 1024 at a time in C.                                                                      */

/* Floats of math.shared for any product of up to (m,k) by (k,n). */
static size_t igpt__tiles_shared(size_t m, size_t n, size_t k)
{
  const size_t depth = igpt__min_size(k, IGPT__AMX_DEPTH);
  return igpt__size_round(igpt__panels(igpt__min_size(m, IGPT__AMX_ROWS), depth) / 2 +
                          igpt__panels(igpt__min_size(n, IGPT__SLAB_COLUMNS), depth) / 2, 16);
}

/* Where packed B begins, and where packed A does behind it */
static uint16_t *igpt__tiles_b(const igpt__product *p)
{
  return (uint16_t *)(void *)p->math->shared;
}

static uint16_t *igpt__tiles_a(const igpt__product *p)
{
  return igpt__tiles_b(p) + igpt__panels(p->columns, p->depth);
}

/* A few panels of B, or of A */
static void igpt__tiles_pack_task(void *arg, size_t index, int worker)
{
  const igpt__product *p = (const igpt__product *)arg;
  size_t first;
  (void)worker;
  if (index < p->packs) {
    first = index * IGPT__AMX_SHARE;
    p->math->tiles->pack(igpt__tiles_b(p) + igpt__panels(first, p->depth),
                       p->b + p->deep * p->b_row + (p->column + first) * p->b_column, p->b_column,
                       p->b_row, igpt__min_size(p->columns - first, IGPT__AMX_SHARE), p->depth, 1);
  } else {
    first = (index - p->packs) * IGPT__AMX_SHARE;
    p->math->tiles->pack(igpt__tiles_a(p) + igpt__panels(first, p->depth),
                       p->a + (p->row + first) * p->a_row + p->deep * p->a_column, p->a_row,
                       p->a_column, igpt__min_size(p->rows - first, IGPT__AMX_SHARE), p->depth, 0);
  }
}

/* A strip of A times a block of B */
static void igpt__tiles_task(void *arg, size_t index, int worker)
{
  const igpt__product *p = (const igpt__product *)arg;
  size_t row = index % p->strips * p->strip, first = index / p->strips * p->block;
  igpt__tiled part;
  (void)worker;
  part = igpt__tiled_of(igpt__min_size(p->rows - row, p->strip),
                        igpt__min_size(p->columns - first, p->block), p->depth,
                        igpt__tiles_a(p) + igpt__panels(row, p->depth), 0,
                        igpt__tiles_b(p) + igpt__panels(first, p->depth), IGPT__TO_FLOATS);
  part.c = p->c + (p->row + row) * p->ldc + p->column + first;
  part.plus = p->accumulate || p->deep > 0 ? part.c : NULL;
  part.ldc = p->ldc;
  p->math->tiles->multiply(&part);
}

static void igpt__tiles_matmul(igpt__product *p)
{
  const igpt_runner *runner = &p->math->runner;
  const size_t tasks = IGPT__WORKER_TASKS * (size_t)igpt__workers(runner);
  p->strip = IGPT__AMX_STRIP;
  for (p->column = 0; p->column < p->n; p->column += p->columns) {
    p->columns = igpt__min_size(p->n - p->column, IGPT__SLAB_COLUMNS);
    for (p->deep = 0; p->deep < p->k; p->deep += p->depth) {
      p->depth = igpt__min_size(p->k - p->deep, IGPT__AMX_DEPTH);
      p->packs = igpt__divide_up(p->columns, IGPT__AMX_SHARE);
      for (p->row = 0; p->row < p->m; p->row += p->rows) {
        p->rows = igpt__min_size(p->m - p->row, IGPT__AMX_ROWS);
        p->strips = igpt__divide_up(p->rows, p->strip);
        p->across = igpt__divide_up(igpt__panels(p->columns, p->depth), IGPT__AMX_BLOCK);
        p->across = igpt__max_size(p->across, igpt__divide_up(tasks, p->strips));
        p->across = igpt__min_size(p->across, igpt__divide_up(p->columns, IGPT__AMX_STRIP));
        IGPT_ASSERT(p->strips > 0 && p->across > 0);
        p->block = igpt__size_round(igpt__divide_up(p->columns, p->across), IGPT__PANEL);
        p->across = igpt__divide_up(p->columns, p->block);
        igpt__run(runner, igpt__tiles_pack_task, p,
                  p->packs + igpt__divide_up(p->rows, IGPT__AMX_SHARE));
        igpt__run(runner, igpt__tiles_task, p, p->across * p->strips);
        p->packs = 0;             /* B stays */
      }
    }
  }
}

/* C (m,n) = A (m,k) B (k,n) [+ C]. Element (i,p) of A is a[i * a_row + p * a_column], likewise B; C
   is row-major with ldc floats a row and overlaps neither. Every element of C is one chain of
   multiply-adds with p ascending; on tiles a sum of sums, in one order too. */
static void igpt__matmul(const igpt__math *math, float *c, size_t ldc, const float *a, size_t a_row,
                         size_t a_column, const float *b, size_t b_row, size_t b_column, size_t m,
                         size_t n, size_t k, int accumulate)
{
  igpt__product p;
  size_t mr = (size_t)math->kernels->tile_rows, nr = (size_t)math->kernels->tile_columns, i;
  size_t workers = (size_t)igpt__workers(&math->runner);
  if (m == 0 || n == 0) return;
  if (k == 0) {
    for (i = 0; !accumulate && i < m; i++) memset(c + i * ldc, 0, n * sizeof(float));
    return;
  }
  p.math = math;
  p.c = c;
  p.a = a;
  p.b = b;
  p.ldc = ldc;
  p.a_row = a_row;
  p.a_column = a_column;
  p.b_row = b_row;
  p.b_column = b_column;
  p.m = m;
  p.n = n;
  p.k = k;
  p.accumulate = accumulate;
  if (m <= IGPT__FEW_ROWS && a_column == 1 && b_column == 1) {
    const int thin = m <= IGPT__THIN_ROWS;
    igpt__run(&math->runner, thin ? igpt__matmul_thin_task : igpt__matmul_few_task, &p,
              igpt__divide_up(n, IGPT__FEW_COLUMNS));
    return;
  }
  if (math->tiles) {
    igpt__tiles_matmul(&p);
    return;
  }
  p.strip = IGPT__BLOCK_ROWS / mr * mr;
  p.strips = igpt__divide_up(m, p.strip);
  for (p.column = 0; p.column < n; p.column += p.columns) {
    p.columns = igpt__min_size(n - p.column, IGPT__SLAB_COLUMNS);
    /* A strip is packed once for each block of columns: as few as give everyone work. */
    p.across = workers == 1 ? 1 : igpt__divide_up(IGPT__WORKER_TASKS * workers, p.strips);
    p.across = igpt__min_size(p.across, igpt__divide_up(p.columns, IGPT__PACK_COLUMNS));
    p.block = igpt__size_round(igpt__divide_up(p.columns, p.across), nr);
    p.across = igpt__divide_up(p.columns, p.block);
    for (p.deep = 0; p.deep < k; p.deep += p.depth) {
      size_t packs = igpt__divide_up(p.columns, IGPT__PACK_COLUMNS);
      p.depth = igpt__min_size(k - p.deep, IGPT__BLOCK_DEPTH);
      igpt__run(&math->runner, igpt__matmul_pack_task, &p, packs);
      igpt__run(&math->runner, igpt__matmul_task, &p, p.across * p.strips);
    }
  }
}

/* ---- with copies of few bits ------------------------------------------------------------------

   A product of a few rows takes as long as its weights take to come from memory. Sessions that
   decode therefore keep copies of them in two bytes or in one, in panels of 64 columns, each a run
   of memory that one task reads from its beginning to its end, once for all rows; of a few of them
   at a time if there is one row alone. Bytes are whole numbers in -127..127 with a factor for each
   column, an output of the layer: q = w / scale, scale = max |w| / 127. Where a batch has more rows
   than a few and there are tiles, bfloat16 lies as these want it.                                */

enum {
  IGPT__NARROW_DEPTH   = 512,     /* of its rows, copied at a time */
  IGPT__NARROW_SIDE    = 4,       /* panels that a row goes through together, at most */
  IGPT__NARROW_ROWS    = 96,      /* of x: a strip; a multiple of every MR, as is: */
  IGPT__NARROW_SLAB    = 960,     /* of x, packed at a time */
  IGPT__NARROW_TILED   = 5,       /* rows from which on tiles are faster */
  IGPT__NARROW_BLOCK   = 256      /* columns of a task on tiles, at most */
};

/* The copy of a matrix (k,n). */
typedef struct igpt__narrow {
  void  *w;                       /* panels (k,64), zeros beyond column n */
  float *scale;                   /* (n) of bytes; null: bfloat16 */
  size_t k, n;
  int    tiled;                   /* 1: w is packed for tiles */
} igpt__narrow;

typedef struct igpt__narrow_job {
  const igpt__math *math;
  const igpt__narrow *narrow;
  float *y;
  const float *x, *w;
  size_t column_stride, row_stride;     /* of w */
  size_t row, rows, lanes;        /* the slab of x, and its rows in a panel */
  size_t side;                    /* panels of w that a task takes */
  size_t strip, strips;
  int accumulate;
} igpt__narrow_job;

static char *igpt__narrow_panel(const igpt__narrow *narrow, size_t panel)
{
  return (char *)narrow->w + panel * narrow->k * IGPT__NARROW_COLUMNS * (narrow->scale ? 1 : 2);
}

static void igpt__narrow_take(igpt__arena *arena, igpt__narrow *narrow, size_t k, size_t n,
                              int bytes, int tiled)
{
  const size_t columns = igpt__size_round(n, IGPT__NARROW_COLUMNS);
  narrow->k = k;
  narrow->n = n;
  narrow->tiled = tiled;
  narrow->w = igpt__take(arena, tiled ? igpt__panels(n, k) : igpt__size_mul(columns, k),
                         (size_t)bytes);
  narrow->scale = bytes == 1 ? igpt__take_floats(arena, columns) : NULL;
}

/* One panel, through floats in the worker's scratch; for bytes twice, since the largest comes
   first. */
static void igpt__narrow_fill_task(void *arg, size_t index, int worker)
{
  const igpt__narrow_job *job = (const igpt__narrow_job *)arg;
  const igpt__narrow *narrow = job->narrow;
  const igpt_kernels *kernels = job->math->kernels;
  const size_t first = index * IGPT__NARROW_COLUMNS, k = narrow->k;
  const size_t count = igpt__min_size(narrow->n - first, IGPT__NARROW_COLUMNS);
  float *floats = igpt__worker(job->math, worker), *scale = narrow->scale;
  float most[IGPT__NARROW_COLUMNS], factor[IGPT__NARROW_COLUMNS];
  char *panel = igpt__narrow_panel(narrow, index);
  size_t p, depth, i;
  int pass;
  if (narrow->tiled) {
    job->math->tiles->pack((uint16_t *)narrow->w + igpt__panels(first, k),
                         job->w + first * job->column_stride, job->column_stride, job->row_stride,
                         count, k, 1);
    return;
  }
  memset(most, 0, sizeof most);
  for (pass = scale ? 0 : 1; pass < 2; pass++) {
    for (p = 0; p < k; p += depth) {
      depth = igpt__min_size(k - p, IGPT__NARROW_DEPTH);
      kernels->pack(floats, IGPT__NARROW_COLUMNS,
                    job->w + first * job->column_stride + p * job->row_stride, job->column_stride,
                    job->row_stride, count, depth, 0);
      if (!scale)
        kernels->halve((uint16_t *)(void *)panel + p * IGPT__NARROW_COLUMNS, floats,
                       depth * IGPT__NARROW_COLUMNS);
      else if (pass == 0)
        kernels->peaks(most, floats, IGPT__NARROW_COLUMNS, depth);
      else
        kernels->quantise((int8_t *)panel + p * IGPT__NARROW_COLUMNS, floats, factor,
                          IGPT__NARROW_COLUMNS, depth);
    }
    for (i = 0; pass == 0 && i < IGPT__NARROW_COLUMNS; i++) {
      const int none = most[i] <= 1e-30f;     /* a NaN is something, and stays in the scale */
      factor[i] = none ? 0 : 127 / most[i];
      scale[first + i] = none ? 0 : most[i] / 127;
    }
  }
}

/* The copy of w, whose element (p,j) is w[p * row_stride + j * column_stride]. */
static void igpt__narrow_fill(const igpt__math *math, const igpt__narrow *narrow, const float *w,
                              size_t row_stride, size_t column_stride)
{
  igpt__narrow_job job;
  memset(&job, 0, sizeof job);
  job.math = math;
  job.narrow = narrow;
  job.w = w;
  job.row_stride = row_stride;
  job.column_stride = column_stride;
  igpt__run(&math->runner, igpt__narrow_fill_task, &job,
            igpt__divide_up(narrow->n, IGPT__NARROW_COLUMNS));
}

/* Rows of x that go through a panel together: one of the numbers that the kernel knows */
static size_t igpt__narrow_lanes(const igpt_kernels *kernels, size_t m)
{
  const size_t mr = (size_t)kernels->tile_rows;
  const size_t each = igpt__divide_up(m, igpt__divide_up(m, mr));
  return each <= 1 ? 1 : each <= mr / 3 ? mr / 3 : each <= 2 * mr / 3 ? 2 * mr / 3 : mr;
}

/* Floats of math.shared for products with up to m rows of up to k. */
static size_t igpt__narrow_shared(size_t m, size_t k)
{
  return igpt__panels(igpt__min_size(m, IGPT__NARROW_SLAB) + 16, k);
}

/* A strip of x into panels of `lanes` rows, (k,lanes) each */
static void igpt__narrow_pack_task(void *arg, size_t index, int worker)
{
  const igpt__narrow_job *job = (const igpt__narrow_job *)arg;
  const size_t k = job->narrow->k, row = index * job->strip;
  (void)worker;
  job->math->kernels->pack(job->math->shared + row * k, job->lanes, job->x + (job->row + row) * k,
                           k, 1, igpt__min_size(job->rows - row, job->strip), k, job->math->round);
}

static void igpt__narrow_task(void *arg, size_t index, int worker)
{
  const igpt__narrow_job *job = (const igpt__narrow_job *)arg;
  const igpt__narrow *narrow = job->narrow;
  const size_t k = narrow->k, panel = index / job->strips * job->side;
  const size_t first = panel * IGPT__NARROW_COLUMNS;
  const size_t count = igpt__min_size(narrow->n - first, job->side * IGPT__NARROW_COLUMNS);
  size_t row = index % job->strips * job->strip;
  const size_t end = igpt__min_size(job->rows, row + job->strip);
  (void)worker;
  for (; row < end; row += job->lanes)
    job->math->kernels->narrow(job->y + (job->row + row) * narrow->n + first, narrow->n,
                               job->math->shared + row * k, job->lanes,
                               igpt__narrow_panel(narrow, panel), IGPT__NARROW_COLUMNS,
                               IGPT__NARROW_COLUMNS * k, narrow->scale ? 1 : 2,
                               narrow->scale ? narrow->scale + first : NULL,
                               igpt__min_size(job->lanes, end - row), count, k, job->accumulate);
}

/* A part of a panel of rows of x, for tiles */
static void igpt__narrow_tiled_pack_task(void *arg, size_t index, int worker)
{
  const igpt__narrow_job *job = (const igpt__narrow_job *)arg;
  const size_t k = job->narrow->k, row = index / job->strips * IGPT__PANEL;
  const size_t p = index % job->strips * IGPT__NARROW_DEPTH;
  uint16_t *to = (uint16_t *)(void *)job->math->shared + igpt__panels(row, k);
  (void)worker;
  job->math->tiles->pack(to + p * IGPT__PANEL, job->x + (job->row + row) * k + p, k, 1,
                       igpt__min_size(job->rows - row, IGPT__PANEL),
                       igpt__min_size(k - p, IGPT__NARROW_DEPTH), 0);
}

static void igpt__narrow_tiled_task(void *arg, size_t index, int worker)
{
  const igpt__narrow_job *job = (const igpt__narrow_job *)arg;
  const igpt__narrow *narrow = job->narrow;
  const size_t first = index * job->side;
  const size_t count = igpt__min_size(narrow->n - first, job->side);
  igpt__tiled part = igpt__tiled_of(job->rows, count, narrow->k,
                                    (const uint16_t *)(const void *)job->math->shared, 0,
                                    (const uint16_t *)narrow->w + igpt__panels(first, narrow->k),
                                    IGPT__TO_FLOATS);
  (void)worker;
  part.c = job->y + job->row * narrow->n + first;
  part.ldc = narrow->n;
  part.plus = job->accumulate ? part.c : NULL;
  job->math->tiles->multiply(&part);
}

/* A slab of x times w, on tiles. */
static void igpt__narrow_tiled(igpt__narrow_job *job)
{
  const igpt_runner *runner = &job->math->runner;
  const size_t n = job->narrow->n, k = job->narrow->k;
  const size_t share = igpt__divide_up(n, IGPT__WORKER_TASKS / 2 * (size_t)igpt__workers(runner));
  job->side = igpt__size_round(igpt__min_size(share, IGPT__NARROW_BLOCK), IGPT__PANEL);
  job->strips = igpt__divide_up(k, IGPT__NARROW_DEPTH);
  igpt__run(runner, igpt__narrow_tiled_pack_task, job,
            igpt__divide_up(job->rows, IGPT__PANEL) * job->strips);
  igpt__run(runner, igpt__narrow_tiled_task, job, igpt__divide_up(n, job->side));
}

/* y (m,n) = x (m,k) w [+ y]. From a bfloat16 copy that is not packed for tiles the bits are those
   of igpt__matmul without tiles. */
static void igpt__narrow_product(const igpt__math *math, float *y, const float *x,
                                 const igpt__narrow *narrow, size_t m, int accumulate)
{
  const size_t panels = igpt__divide_up(narrow->n, IGPT__NARROW_COLUMNS);
  igpt__narrow_job job;
  memset(&job, 0, sizeof job);
  job.math = math;
  job.narrow = narrow;
  job.y = y;
  job.x = x;
  job.accumulate = accumulate;
  job.side = igpt__divide_up(panels, (size_t)igpt__workers(&math->runner));
  job.side = m > 1 ? 1 : igpt__min_size(IGPT__NARROW_SIDE, job.side);
  for (job.row = 0; job.row < m; job.row += job.rows) {
    job.rows = igpt__min_size(m - job.row, IGPT__NARROW_SLAB);
    if (narrow->tiled) {
      igpt__narrow_tiled(&job);
      continue;
    }
    job.lanes = igpt__narrow_lanes(math->kernels, job.rows);
    job.strip = IGPT__NARROW_ROWS / job.lanes * job.lanes;
    job.strips = igpt__divide_up(job.rows, job.strip);
    igpt__run(&math->runner, igpt__narrow_pack_task, &job, job.strips);
    igpt__run(&math->runner, igpt__narrow_task, &job,
              job.strips * igpt__divide_up(panels, job.side));
  }
}

/* ==== 10. attention ==========================================================================

   out_i = sum_j p_ij v_j,  p_ij = exp(s_ij) / sum_j' exp(s_ij'),  s_ij = q_i . k_j / sqrt(E), with
   j <= i if causal. The T x T matrix of p is the only thing in a transformer that grows with T
   squared, so it is never stored: keys are taken in blocks, and each row keeps the largest score so
   far, the sum of exp(s - largest) and the weighted sum of values; when a later block raises the
   largest, the other two are scaled down. The backward pass computes p again from the one number a
   row that the forward pass keeps, log sum exp. Blocks that lie wholly above the diagonal are
   skipped. Work is 2 T T E multiply-adds a head forward and 5 T T E backward, half of it if causal;
   memory a few blocks a worker, and backward what the queries of a head have gathered. Milakov,
   Gimelshein: "Online normalizer calculation for softmax", 2018; Dao and others: "FlashAttention",
   NeurIPS 2022.

   The forward pass computes transposed scores, a query a column: softmax then never leaves its
   lane, and the result is, as it stands, the second operand of out^T = V^T P^T.

   qkv is (B,T,3C): q, k and v side by side, head h in columns h * E of each third; out is
   (B,T,C). */

enum {
  IGPT__BLOCK_QUERIES = 192,      /* of a forward task, a multiple of every tile's columns */
  IGPT__BLOCK_KEYS    = 192,      /* of a block: as many, and a multiple of every MR */
  IGPT__BACK_KEYS     = 256,      /* of a block in the backward pass */
  IGPT__BACK_QUERIES  = 96        /* taken at once there */
};

typedef struct igpt__attention {
  const igpt__math *math;
  const float *qkv;
  float *out, *lse;
  char *cache;                    /* of B pictures */
  const float *gradient, *past;   /* backward: dout and out */
  size_t T, H, E;
  size_t blocks;                  /* of queries, a head */
  size_t position;                /* decoding: keys 0..position are seen */
  size_t given;                   /* a prefix: positions of each picture in qkv */
  size_t head;                    /* of the map */
  int causal;
  float scale;                    /* 1 / sqrt(E) */
} igpt__attention;

static float *igpt__carve(float **scratch, size_t floats)
{
  float *piece = *scratch;
  *scratch += igpt__size_round(floats, 16);
  return piece;
}

static size_t igpt__least(size_t a, size_t b, size_t multiple)       /* rounded up */
{
  return igpt__size_round(igpt__min_size(a, b), multiple);
}

/* Rows of E columns, `quad` floats apart, from columns of E rows, ldt floats apart: packing turns
   them, in panels that are as wide as a row (a multiple of 4). */
static size_t igpt__quad(size_t E) { return (E + 3) / 4 * 4; }

static void igpt__turn(const igpt_kernels *kernels, float *rows, const float *columns, size_t ldt,
                       size_t E, size_t count)
{
  kernels->pack(rows, igpt__quad(E), columns, ldt, 1, E, count, 0);
}

#ifndef IGPT_NO_TRAIN
/* Floats of a row of scores in the backward pass: not a power of two, which would send a column to
   the same few places of the cache. */
static size_t igpt__back_stride(const igpt_kernels *kernels, size_t T)
{
  return igpt__least(T, IGPT__BACK_KEYS, (size_t)kernels->tile_columns) + 16;
}
#endif

/* Floats a worker: the larger of the forward and the backward pass. */
static size_t igpt__attention_worker(const igpt_kernels *kernels, size_t T, size_t E)
{
  const size_t mr = (size_t)kernels->tile_rows, nr = (size_t)kernels->tile_columns;
  size_t queries = igpt__least(T, IGPT__BLOCK_QUERIES, nr);
  size_t keys = igpt__least(T, IGPT__BLOCK_KEYS, mr);
  size_t tall = igpt__size_round(E, mr), forward, backward = 0;
  forward = queries * E * 2 + keys * E + keys * tall + keys * nr + queries * 2 +
            nr * igpt__quad(E);
#ifndef IGPT_NO_TRAIN
  {
    size_t rows = igpt__least(T, IGPT__BACK_QUERIES, mr), wide = igpt__size_round(E, nr);
    size_t lds = igpt__back_stride(kernels, T);
    backward = lds * E * 4 + lds * igpt__quad(E) + lds * wide + rows * E * 2 + rows * tall * 2 +
               rows * lds * 2 + mr * lds;
    backward = igpt__size_add(backward, igpt__size_mul(T, igpt__size_add(wide, 1)));
  }
#endif
  /* 16 floats for each of up to 15 pieces that igpt__carve rounds up */
  return igpt__size_round(igpt__size_add(igpt__max_size(forward, backward), 15 * 16), 16);
}

static igpt__attention igpt__attention_of(const igpt__math *math, const float *qkv, size_t T,
                                          size_t H, size_t E, int causal)
{
  igpt__attention a;
  memset(&a, 0, sizeof a);
  a.math = math;
  a.qkv = qkv;
  a.T = T;
  a.H = H;
  a.E = E;
  a.causal = causal;
  a.blocks = igpt__divide_up(T, IGPT__BLOCK_QUERIES);
  a.scale = 1.0f / sqrtf((float)E);
  return a;
}

/* out = o / total; lse = log(total exp(most)), may be null. The full pass and the decoder both come
   here. */
static void igpt__row_finish(float *out, const float *o, size_t E, const igpt_kernels *kernels,
                             float *lse, float most, float total)
{
  memcpy(out, o, E * sizeof(float));
  kernels->scale(out, 1.0f / total, E);
  if (lse) *lse = most + (float)log((double)total);
}

/* c (m <= MR, panels of columns) = a b, where b's panels follow each other, depth rows each */
static void igpt__tiles_across(const igpt_kernels *kernels, float *c, size_t ldc, const float *a,
                               const float *b, size_t m, size_t n, size_t k, size_t depth,
                               int accumulate)
{
  const size_t nr = (size_t)kernels->tile_columns;
  size_t j;
  for (j = 0; j < n; j += nr)
    kernels->tile(c + j, ldc, a, b + j * depth, nr, m, k, accumulate);
}

/* c (m, a tile's columns) = a b, where a's panels follow each other, depth columns each */
static void igpt__tiles_down(const igpt_kernels *kernels, float *c, size_t ldc, const float *a,
                             const float *b, size_t ldb, size_t m, size_t k, size_t depth,
                             int accumulate)
{
  const size_t mr = (size_t)kernels->tile_rows;
  size_t i;
  for (i = 0; i < m; i += mr)
    kernels->tile(c + i * ldc, ldc, a + i * depth, b, ldb, igpt__min_size(mr, m - i), k,
                  accumulate);
}

/* ---- forward --------------------------------------------------------------------------------- */

/* A block of queries of one head, in panels of as many as a tile has columns */
static void igpt__attention_forward_task(void *arg, size_t index, int worker)
{
  const igpt__attention *a = (const igpt__attention *)arg;
  const igpt_kernels *kernels = a->math->kernels;
  const size_t mr = (size_t)kernels->tile_rows, nr = (size_t)kernels->tile_columns;
  const size_t E = a->E, T = a->T, C = a->H * E, deepest = igpt__least(T, IGPT__BLOCK_KEYS, mr);
  size_t block = a->blocks - 1 - index % a->blocks;        /* the longest first */
  size_t head = index / a->blocks % a->H, picture = index / a->blocks / a->H;
  size_t start = block * IGPT__BLOCK_QUERIES, rows = igpt__min_size(T - start, IGPT__BLOCK_QUERIES);
  size_t end = a->causal ? start + rows : T, columns = igpt__size_round(rows, nr), key, i, j, r;
  const float *q = a->qkv + picture * T * 3 * C + head * E, *k = q + C, *v = k + C;
  float *scratch = igpt__worker(a->math, worker);
  float *packed_q = igpt__carve(&scratch, columns * E);
  float *packed_k = igpt__carve(&scratch, deepest * E);
  float *packed_v = igpt__carve(&scratch, deepest * igpt__size_round(E, mr));
  float *scores = igpt__carve(&scratch, deepest * nr);
  float *turned = igpt__carve(&scratch, nr * igpt__quad(E));
  float *o = igpt__carve(&scratch, columns * E);           /* of a panel (E,nr) */
  float *most = igpt__carve(&scratch, columns), *total = igpt__carve(&scratch, columns);
  int round = a->math->round;

  for (j = 0; j < columns; j++) {
    most[j] = -HUGE_VALF;
    total[j] = 0;
  }
  kernels->pack(packed_q, nr, q + start * 3 * C, 3 * C, 1, rows, E, round);
  for (key = 0; key < end; key += IGPT__BLOCK_KEYS) {
    size_t keys = igpt__min_size(end - key, IGPT__BLOCK_KEYS);
    kernels->pack(packed_k, mr, k + key * 3 * C, 3 * C, 1, keys, E, round);
    kernels->pack(packed_v, mr, v + key * 3 * C, 1, 3 * C, E, keys, round);
    for (j = 0; j < rows; j += nr) {
      const size_t first = start + j;                      /* not before key: blocks are equal */
      const size_t seen = a->causal ? igpt__min_size(keys, first + nr - key) : keys;
      igpt__tiles_down(kernels, scores, nr, packed_k, packed_q + j * E, nr, seen, E, E, 0);
      for (i = first - key; a->causal && i < seen; i++)
        for (r = 0; r < key + i - first && r < nr; r++) scores[i * nr + r] = -HUGE_VALF;
      kernels->softmax_block(scores, seen, a->scale, most + j, total + j, o + j * E,
                             key > 0 ? E : 0, round);
      igpt__tiles_down(kernels, o + j * E, nr, packed_v, scores, nr, E, seen, keys, key > 0);
    }
  }
  for (j = 0; j < rows; j += nr) {
    igpt__turn(kernels, turned, o + j * E, nr, E, nr);
    for (r = 0; r < nr && j + r < rows; r++) {
      size_t row = start + j + r;
      float *to = a->out + (picture * T + row) * C + head * E;
      igpt__row_finish(to, turned + r * igpt__quad(E), E, kernels,
                       a->lse ? a->lse + (picture * a->H + head) * T + row : NULL, most[j + r],
                       total[j + r]);
    }
  }
}

/* ---- the same on tiles ------------------------------------------------------------------------

   A task packs the head whose rows it computes. That is a small part of the work if the task is the
   whole head, so heads are cut only where there are too few of them for the workers: the forward
   pass into rows, which costs packing K and V again. The backward pass would have to add up parts
   of dq, in an order that depends on the cut. Instead some tasks compute dk and dv of their keys
   and the others dq of their queries, each with a P and a dS of its own: seven products instead of
   five, to the same bits.                                                                        */

enum {
  IGPT__SHARE_ROWS = 128,         /* of a head that is cut, at least and a multiple of */
  IGPT__CUT_TENTHS = 16           /* what seven products cost, where five cost 10 */
};

typedef struct igpt__heads {
  const igpt__math *math;
  const uint16_t *qkv, *dout;     /* (B,T,3C), rows ld3 apart; (B,T,C), rows ld apart */
  uint16_t *out, *dqkv;           /* (B,T,C); (B,T,3C) */
  float *lse;                     /* (B,H,T), or null */
  size_t B, T, H, E, ld, ld3;
  int    causal;
  size_t blocks, share;           /* of a head, or 0; rows of one */
} igpt__heads;

static igpt__head igpt__head_of(const igpt__heads *a, size_t index)
{
  const size_t C = a->H * a->E, row = index / a->H * a->T, column = index % a->H * a->E;
  igpt__head head;
  memset(&head, 0, sizeof head);
  head.T = a->T;
  head.E = a->E;
  head.stride = a->ld3;
  head.width = a->ld;
  head.q = a->qkv + row * a->ld3 + column;
  head.k = head.q + C;
  head.v = head.k + C;
  head.out = a->out + row * a->ld + column;
  head.lse = a->lse ? a->lse + index * a->T : NULL;
  head.scale = 1 / sqrtf((float)a->E);
  head.causal = a->causal;
  return head;
}

/* Heads in so many blocks that every worker gets some tasks */
static void igpt__heads_cut(igpt__heads *a, size_t tasks)
{
  const size_t most = igpt__divide_up(a->T, IGPT__SHARE_ROWS);
  a->blocks = igpt__min_size(igpt__divide_up(tasks, a->B * a->H), most);
  a->share = igpt__size_round(igpt__divide_up(a->T, a->blocks), IGPT__SHARE_ROWS);
  a->blocks = igpt__divide_up(a->T, a->share);
}

static void igpt__heads_forward_task(void *arg, size_t index, int worker)
{
  const igpt__heads *a = (const igpt__heads *)arg;
  const size_t heads = a->B * a->H;
  const size_t first = (a->blocks - 1 - index / heads) * a->share;      /* the longest first */
  const igpt__head head = igpt__head_of(a, index % heads);
  a->math->tiles->attend(&head, first, igpt__min_size(a->T, first + a->share),
                       igpt__worker(a->math, worker));
}

/* out and, if not null, lse from qkv */
static void igpt__heads_forward(igpt__heads *a)
{
  const size_t workers = (size_t)igpt__workers(&a->math->runner);
  igpt__heads_cut(a, workers == 1 ? 1 : workers * IGPT__WORKER_TASKS);
  igpt__run(&a->math->runner, igpt__heads_forward_task, a, a->B * a->H * a->blocks);
}

#ifndef IGPT_NO_TRAIN
/* With blocks 0 the whole head; else rows of dk and dv, and after those of all heads rows of dq */
static void igpt__heads_backward_task(void *arg, size_t index, int worker)
{
  const igpt__heads *a = (const igpt__heads *)arg;
  const size_t heads = a->B * a->H, at = index % heads, turn = index / heads;
  const size_t C = a->H * a->E, column = at % a->H * a->E, row = at / a->H * a->T;
  float *scratch = igpt__worker(a->math, worker);
  uint16_t *dqkv = a->dqkv + row * a->ld3 + column;
  igpt__head head = igpt__head_of(a, at);
  head.dout = a->dout + row * a->ld + column;
  head.dq = turn < a->blocks ? NULL : dqkv;
  head.dk = turn < a->blocks || !a->blocks ? dqkv + C : NULL;
  head.dv = turn < a->blocks || !a->blocks ? dqkv + 2 * C : NULL;
  if (!a->blocks)
    a->math->tiles->attend_backward(&head, 0, a->T, 0, a->T, scratch);
  else if (turn < a->blocks) {
    const size_t first = turn * a->share, end = igpt__min_size(a->T, first + a->share);
    a->math->tiles->attend_backward(&head, a->causal ? first : 0, a->T, first, end, scratch);
  } else {
    const size_t first = (2 * a->blocks - 1 - turn) * a->share;
    const size_t end = igpt__min_size(a->T, first + a->share);
    a->math->tiles->attend_backward(&head, first, end, 0, a->causal ? end : a->T, scratch);
  }
}

/* dqkv from qkv, dout, and the out and lse of the forward pass */
static void igpt__heads_backward(igpt__heads *a)
{
  const size_t heads = a->B * a->H, workers = (size_t)igpt__workers(&a->math->runner);
  const size_t idle_too = igpt__divide_up(heads, workers) * workers;   /* heads in that time */
  a->blocks = 0;
  if (10 * idle_too > IGPT__CUT_TENTHS * heads)
    igpt__heads_cut(a, workers * IGPT__WORKER_TASKS / 2);
  igpt__run(&a->math->runner, igpt__heads_backward_task, a,
            heads * (a->blocks ? 2 * a->blocks : 1));
}
#endif

/* out (B,T,C); lse (B,H,T), the log of each row's sum of exp, may be null. */
static void igpt__attention_forward(const igpt__math *math, float *out, float *lse,
                                    const float *qkv, size_t B, size_t T, size_t H, size_t E,
                                    int causal)
{
  igpt__attention a = igpt__attention_of(math, qkv, T, H, E, causal);
  a.out = out;
  a.lse = lse;
  igpt__run(&math->runner, igpt__attention_forward_task, &a, B * H * a.blocks);
}

/* ---- backward -------------------------------------------------------------------------------- */
#ifndef IGPT_NO_TRAIN

/* One head of one picture. With P (T,T) as above, D_i = dout_i . out_i and everything a matrix:
     out = P V                       dV = P^T dout,   dP = dout V^T
     P = softmax(Q K^T / sqrt(E))    dS = P * (dP - D) / sqrt(E)
     S = Q K^T                       dQ = dS K,       dK = dS^T Q
   in blocks of IGPT__BACK_QUERIES queries by IGPT__BACK_KEYS keys: dK and dV are complete after all
   queries of a block of keys, dQ after all blocks. P and dS lie here with a key a column, ready to
   be second operands of dV^T = dout^T P and dK^T = Q^T dS. If causal, rows of P end at their query
   and are zero from there to the end of a panel; what is zero in a whole panel is skipped. */
static void igpt__attention_backward_task(void *arg, size_t index, int worker)
{
  const igpt__attention *a = (const igpt__attention *)arg;
  const igpt_kernels *kernels = a->math->kernels;
  const size_t mr = (size_t)kernels->tile_rows, nr = (size_t)kernels->tile_columns;
  const size_t E = a->E, T = a->T, C = a->H * E, wide = igpt__size_round(E, nr);
  const size_t tall = igpt__size_round(E, mr), lds = igpt__back_stride(kernels, T);
  const size_t most = igpt__least(T, IGPT__BACK_QUERIES, mr);
  size_t head = index % a->H, picture = index / a->H, key, start, i, j, r;
  const float *q = a->qkv + picture * T * 3 * C + head * E, *k = q + C, *v = k + C;
  const float *dout = a->gradient + picture * T * C + head * E;
  const float *out = a->past + picture * T * C + head * E;
  const float *lse = a->lse + (picture * a->H + head) * T;
  float *dq_out = a->out + picture * T * 3 * C + head * E;
  float *scratch = igpt__worker(a->math, worker);
  float *lanes_k = igpt__carve(&scratch, lds * E), *lanes_v = igpt__carve(&scratch, lds * E);
  float *packed_k = igpt__carve(&scratch, lds * wide);
  float *dk = igpt__carve(&scratch, E * lds), *dv = igpt__carve(&scratch, E * lds);
  float *rows_q = igpt__carve(&scratch, most * E), *rows_d = igpt__carve(&scratch, most * E);
  float *packed_q = igpt__carve(&scratch, most * tall);
  float *packed_d = igpt__carve(&scratch, most * tall);
  float *p = igpt__carve(&scratch, most * lds), *ds = igpt__carve(&scratch, most * lds);
  float *packed_ds = igpt__carve(&scratch, mr * lds);
  float *turned = igpt__carve(&scratch, lds * igpt__quad(E));
  float *dq = igpt__carve(&scratch, T * wide), *D = igpt__carve(&scratch, T);
  int round = a->math->round;

  for (i = 0; i < T; i++) D[i] = kernels->dot(dout + i * C, out + i * C, E);
  for (key = 0; key < T; key += IGPT__BACK_KEYS) {
    size_t keys = igpt__min_size(T - key, IGPT__BACK_KEYS);
    kernels->pack(lanes_k, nr, k + key * 3 * C, 3 * C, 1, keys, E, round);
    kernels->pack(lanes_v, nr, v + key * 3 * C, 3 * C, 1, keys, E, round);
    kernels->pack(packed_k, nr, k + key * 3 * C, 1, 3 * C, E, keys, round);
    memset(dk, 0, E * lds * sizeof(float));
    memset(dv, 0, E * lds * sizeof(float));
    for (start = a->causal ? key : 0; start < T; start += IGPT__BACK_QUERIES) {
      size_t rows = igpt__min_size(T - start, IGPT__BACK_QUERIES), seen;
      kernels->pack(rows_q, mr, q + start * 3 * C, 3 * C, 1, rows, E, round);
      kernels->pack(rows_d, mr, dout + start * C, C, 1, rows, E, round);
      kernels->pack(packed_q, mr, q + start * 3 * C, 1, 3 * C, E, rows, round);
      kernels->pack(packed_d, mr, dout + start * C, 1, C, E, rows, round);
      for (i = 0; i < rows; i += mr) {
        size_t m = igpt__min_size(mr, rows - i), padded;
        seen = a->causal ? igpt__min_size(keys, start + i + m - key) : keys;
        padded = igpt__size_round(seen, nr);
        igpt__tiles_across(kernels, p + i * lds, lds, rows_q + i * E, lanes_k, m, seen, E, E, 0);
        igpt__tiles_across(kernels, ds + i * lds, lds, rows_d + i * E, lanes_v, m, seen, E, E, 0);
        for (r = i; r < i + m; r++) {
          size_t row = start + r, n = a->causal ? igpt__min_size(seen, row + 1 - key) : seen;
          float *pr = p + r * lds, *dsr = ds + r * lds;
          kernels->exp_sum(pr, pr, a->scale, lse[row], n);
          kernels->softmax_backward(dsr, pr, D[row], a->scale, n, round);
          memset(pr + n, 0, (padded - n) * sizeof(float));
          memset(dsr + n, 0, (padded - n) * sizeof(float));
        }
        kernels->pack(packed_ds, mr, ds + i * lds, lds, 1, m, seen, 0);
        igpt__tiles_across(kernels, dq + (start + i) * wide, wide, packed_ds, packed_k, m, E, seen,
                           keys, key > 0);
      }
      seen = a->causal ? igpt__min_size(keys, start + rows - key) : keys;
      for (j = 0; j < seen; j += nr) {
        i = a->causal && key + j > start ? key + j - start : 0;        /* the first that sees j */
        igpt__tiles_down(kernels, dv + j, lds, packed_d + i * mr, p + i * lds + j, lds, E,
                         rows - i, rows, 1);
        igpt__tiles_down(kernels, dk + j, lds, packed_q + i * mr, ds + i * lds + j, lds, E,
                         rows - i, rows, 1);
      }
    }
    igpt__turn(kernels, turned, dk, lds, E, keys);
    for (i = 0; i < keys; i++)
      memcpy(dq_out + (key + i) * 3 * C + C, turned + i * igpt__quad(E), E * sizeof(float));
    igpt__turn(kernels, turned, dv, lds, E, keys);
    for (i = 0; i < keys; i++)
      memcpy(dq_out + (key + i) * 3 * C + 2 * C, turned + i * igpt__quad(E), E * sizeof(float));
  }
  for (i = 0; i < T; i++) memcpy(dq_out + i * 3 * C, dq + i * wide, E * sizeof(float));
}

/* dqkv (B,T,3C) is overwritten; dout and out are (B,T,C), lse is what the forward pass left. */
static void igpt__attention_backward(const igpt__math *math, float *dqkv, const float *dout,
                                     const float *out, const float *qkv, const float *lse, size_t B,
                                     size_t T, size_t H, size_t E, int causal)
{
  igpt__attention a = igpt__attention_of(math, qkv, T, H, E, causal);
  a.out = dqkv;
  a.gradient = dout;
  a.past = out;
  a.lse = (float *)lse;
  igpt__run(&math->runner, igpt__attention_backward_task, &a, B * H);
}

#endif /* IGPT_NO_TRAIN */

/* ---- the map -------------------------------------------------------------------------------- */

/* Rows of p themselves, for one block of queries of the chosen head */
static void igpt__attention_map_task(void *arg, size_t index, int worker)
{
  const igpt__attention *a = (const igpt__attention *)arg;
  const igpt_kernels *kernels = a->math->kernels;
  const size_t mr = (size_t)kernels->tile_rows, nr = (size_t)kernels->tile_columns;
  const size_t E = a->E, T = a->T, C = a->H * E;
  size_t picture = index / a->blocks, start = index % a->blocks * IGPT__BLOCK_QUERIES;
  size_t rows = igpt__min_size(T - start, IGPT__BLOCK_QUERIES), key, i, r;
  const float *q = a->qkv + picture * T * 3 * C + a->head * E, *k = q + C;
  float *map = a->out + (picture * T + start) * T;
  size_t lds = igpt__least(T, IGPT__BLOCK_KEYS, nr);
  float *scratch = igpt__worker(a->math, worker);
  float *packed_q = igpt__carve(&scratch, igpt__size_round(rows, mr) * E);
  float *packed_k = igpt__carve(&scratch, lds * E);
  float *scores = igpt__carve(&scratch, mr * lds);
  kernels->pack(packed_q, mr, q + start * 3 * C, 3 * C, 1, rows, E, a->math->round);
  for (key = 0; key < T; key += IGPT__BLOCK_KEYS) {
    size_t keys = igpt__min_size(T - key, IGPT__BLOCK_KEYS);
    kernels->pack(packed_k, nr, k + key * 3 * C, 3 * C, 1, keys, E, a->math->round);
    for (i = 0; i < rows; i += mr) {
      size_t m = igpt__min_size(mr, rows - i);
      igpt__tiles_across(kernels, scores, lds, packed_q + i * E, packed_k, m, keys, E, E, 0);
      for (r = 0; r < m; r++)
        memcpy(map + (i + r) * T + key, scores + r * lds, keys * sizeof(float));
    }
  }
  for (r = 0; r < rows; r++) {
    size_t n = a->causal ? start + r + 1 : T;
    float *row = map + r * T, most = a->scale * kernels->maximum(row, n);
    float total = kernels->exp_sum(row, row, a->scale, most, n);
    kernels->scale(row, 1.0f / total, n);
    memset(row + n, 0, (T - n) * sizeof(float));
  }
}

/* map (B,T,T): the probabilities p of one head */
static void igpt__attention_map(const igpt__math *math, float *map, const float *qkv, size_t B,
                                size_t T, size_t H, size_t E, int causal, size_t head)
{
  igpt__attention a = igpt__attention_of(math, qkv, T, H, E, causal);
  a.out = map;
  a.head = head;
  igpt__run(&math->runner, igpt__attention_map_task, &a, B * a.blocks);
}

/* ---- decoding with a cache --------------------------------------------------------------------

   A picture that grows pixel by pixel needs the keys and values of all earlier pixels again at
   every step: the cache keeps them, for each head keys in blocks of 64 positions, (E,64) each, and
   then values (T, E rounded up), so that both products of a single query run along memory; where
   products take bfloat16, it is that. Chains, blocks of keys and softmax are those of the full
   pass: so are the bits.                                                                         */

enum { IGPT__CACHE_KEYS = IGPT__NARROW_COLUMNS };   /* of a block, a divisor of BLOCK_KEYS */

/* Numbers of a head in one layer: its keys, and all */
static size_t igpt__cache_keys(size_t T, size_t E)
{
  return igpt__size_mul(igpt__size_round(T, IGPT__CACHE_KEYS), E);
}

static size_t igpt__cache_head(size_t T, size_t E)
{
  return igpt__size_add(igpt__cache_keys(T, E), igpt__size_mul(T, igpt__size_round(E, 16)));
}

/* Bytes of one picture in one layer */
static size_t igpt__cache_bytes(size_t T, size_t H, size_t E, int round)
{
  return igpt__size_round(igpt__size_mul(igpt__size_mul(H, igpt__cache_head(T, E)), round ? 2 : 4),
                          IGPT__ALIGN);
}

static char *igpt__cache_at(const igpt__attention *a, size_t picture, size_t head)
{
  const int round = a->math->round;
  return a->cache + picture * igpt__cache_bytes(a->T, a->H, a->E, round) +
         head * igpt__cache_head(a->T, a->E) * (round ? 2 : 4);
}

/* Key and value of one head at `position`. row: E numbers of scratch. */
static void igpt__cache_put(const igpt__attention *a, char *cache, const float *k, const float *v,
                            size_t position, void *row)
{
  const size_t E = a->E, wide = igpt__size_round(E, 16), keys = igpt__cache_keys(a->T, E);
  const size_t lane = position % IGPT__CACHE_KEYS, at = (position - lane) * E + lane;
  size_t e;
  if (a->math->round) {
    uint16_t *half = (uint16_t *)row, *to = (uint16_t *)(void *)cache;
    a->math->kernels->halve(half, k, E);
    for (e = 0; e < E; e++) to[at + e * IGPT__CACHE_KEYS] = half[e];
    a->math->kernels->halve(to + keys + position * wide, v, E);
  } else {
    float *to = (float *)(void *)cache;
    for (e = 0; e < E; e++) to[at + e * IGPT__CACHE_KEYS] = k[e];
    memcpy(to + keys + position * wide, v, E * sizeof *to);
  }
}

static void igpt__cache_task(void *arg, size_t index, int worker)
{
  const igpt__attention *a = (const igpt__attention *)arg;
  const size_t head = index % a->H, picture = index / a->H, C = a->H * a->E;
  const float *k = a->qkv + picture * a->given * 3 * C + C + head * a->E;
  char *cache = igpt__cache_at(a, picture, head);
  size_t i;
  for (i = 0; i < a->given; i++, k += 3 * C)
    igpt__cache_put(a, cache, k, k + C, i, igpt__worker(a->math, worker));
}

/* Keys and values of the first n positions, from qkv (B,n,3C), into the cache. */
static void igpt__cache_store(const igpt__math *math, char *cache, const float *qkv, size_t B,
                              size_t n, size_t T, size_t H, size_t E)
{
  igpt__attention a = igpt__attention_of(math, qkv, T, H, E, 1);
  a.cache = cache;
  a.given = n;
  igpt__run(&math->runner, igpt__cache_task, &a, B * H);
}

/* softmax_block for a single query, to the same bits */
static void igpt__row_extend(float *most, float *total, const igpt_kernels *kernels, float *s,
                             size_t n, float *o, size_t E, float scale)
{
  float top = scale * kernels->maximum(s, n), change, sum = 0;
  size_t i;
  if (top < *most) top = *most;
  change = kernels->exp_sum(NULL, most, 1.0f, top, 1);
  kernels->scale(o, change, E);
  kernels->exp_sum(s, s, scale, top, n);
  for (i = 0; i < n; i++) sum += s[i];
  kernels->axpy(&sum, change, total, 1);
  *most = top;
  *total = sum;
}

/* One head of one picture */
static void igpt__attention_decode_task(void *arg, size_t index, int worker)
{
  const igpt__attention *a = (const igpt__attention *)arg;
  const igpt_kernels *kernels = a->math->kernels;
  const size_t E = a->E, T = a->T, C = a->H * E, n = a->position + 1;
  const size_t wide = igpt__size_round(E, 16), head = index % a->H, picture = index / a->H;
  const int round = a->math->round, bytes = round ? 2 : 4;
  const float *row = a->qkv + picture * 3 * C + head * E;
  char *keys = igpt__cache_at(a, picture, head);
  const char *values = keys + igpt__cache_keys(T, E) * (size_t)bytes;
  float *scratch = igpt__worker(a->math, worker), *scores, *q, *o;
  float most = -HUGE_VALF, total = 0;
  size_t key, seen;
  scores = igpt__carve(&scratch, IGPT__BLOCK_KEYS);
  q = igpt__carve(&scratch, E);
  o = igpt__carve(&scratch, E);
  igpt__cache_put(a, keys, row + C, row + 2 * C, a->position, q);
  kernels->pack(q, 1, row, E, 1, 1, E, round);
  for (key = 0; key < n; key += IGPT__BLOCK_KEYS) {
    seen = igpt__min_size(n - key, IGPT__BLOCK_KEYS);
    kernels->narrow(scores, seen, q, 1, keys + key * E * (size_t)bytes, IGPT__CACHE_KEYS,
                    IGPT__CACHE_KEYS * E, bytes, NULL, 1, igpt__size_round(seen, IGPT__CACHE_KEYS),
                    E, 0);
    igpt__row_extend(&most, &total, kernels, scores, seen, o, key > 0 ? E : 0, a->scale);
    kernels->pack(scores, 1, scores, seen, 1, 1, seen, round);
    kernels->narrow(o, E, scores, 1, values + key * wide * (size_t)bytes, wide,
                    IGPT__NARROW_COLUMNS, bytes, NULL, 1, E, seen, key > 0);
  }
  igpt__row_finish(a->out + picture * C + head * E, o, E, kernels, NULL, most, total);
}

/* out (B,C) of position `position`, whose qkv (B,3C) is given and whose keys and values go to the
   cache. Equal to row `position` of the causal forward pass, bit for bit. */
static void igpt__attention_decode(const igpt__math *math, float *out, const float *qkv,
                                   char *cache, size_t B, size_t position, size_t T, size_t H,
                                   size_t E)
{
  igpt__attention a = igpt__attention_of(math, qkv, T, H, E, 1);
  a.out = out;
  a.cache = cache;
  a.position = position;
  igpt__run(&math->runner, igpt__attention_decode_task, &a, B * H);
}

/* ==== 11. the network ========================================================================

   A picture is a row of T tokens, and the network turns each position into a guess about one of
   them. Every position has a vector of width C, its place on the "residual stream" x. The stream
   begins as the sum of what is seen (a row of wte) and where (a row of wpe); L blocks each add two
   corrections to it; a last norm and one matrix turn it into logits over the V colours.

     embed   AR:    x[0] = sos + wpe[0],  x[i] = wte[token[i-1]] + wpe[i]      (shifted by one;
                                                         sos: a vector that starts the sequence)
             BERT:  x[i] = (hidden[i] ? 0 or wte[shown[i]] : wte[token[i]]) + wpe[i]
     block   a = norm(x; ln_1)      q|k|v = a c_attn      x = x + attention(q, k, v) c_proj
             a = norm(x; ln_2)      f = a c_fc            x = x + gelu(f) m_proj
                                    (each product plus its bias, if config.biases)
     head    f = norm(x; ln_f)      logits = f lm_head^T  classes = mean over i of f[i] score^T

   In a block only attention moves information between positions; the second half (the MLP) thinks
   about each position alone. AR positions attend to themselves and those before, so that logits[i]
   sees tokens 0..i-1 only; BERT positions attend everywhere, and the hidden ones have to be
   guessed.

   Where paper and official code differ we follow the code: "layer norm" has no mean and no bias,
   GELU is x sigmoid(1.702 x), no matrix has a bias unless asked for, only attn.c_proj starts
   smaller in deeper networks, losses are means over pixels and not sums, and AR models have a
   learned sos. A BERT model hides a pixel by zeroing its wte row. The output matrix starts at zero,
   in the paper too, so that the first loss is exactly ln V.

   A training pass costs about 6 FLOPs a parameter and token; two thirds of it are the backward
   pass. Norm, GELU, linear layers and attention have theirs next to the forward step; that of the
   block comes after both, that of the class loss in part 12. Chen et al.:
   "Generative Pretraining from Pixels", ICML 2020.                                               */

/* ---- the tensors ---------------------------------------------------------------------------- */

/* ONE list of all that is learned: field, name in files, rows, columns (0: it is a vector),
   standard deviation of the initial values (-1: all ones), 1 where weight decay applies. Letters as
   in part 2; S is 1 in AR models: the start vector is the last row of wte; D is config.biases.
   Tensors of the whole model ... */
#define IGPT__HEAD_TENSORS(X)                                                                     \
  X(wte,     "transformer.wte.weight",  V + S, C, 0.02, 0)                                        \
  X(wpe,     "transformer.wpe.weight",  T,     C, 0.01, 0)                                        \
  X(ln_f,    "transformer.ln_f.weight", C,     0, -1.0, 0)                                        \
  X(lm_head, "lm_head.weight",          V,     C, 0.0,  1)                                        \
  X(score,   "score.weight",            K,     C, 0.0,  1)

/* ... (score only where there are classes), and of each block, "transformer.h.<block>.<name>",
   whose matrices are (in, out). Depth enters once: attn.c_proj shrinks with it. The last four are
   there only with biases. */
#define IGPT__BLOCK_TENSORS(X)                                                                    \
  X(ln_1,   "ln_1.weight",        C,     0,     -1.0,                      0)                     \
  X(c_attn, "attn.c_attn.weight", C,     3 * C, 1 / sqrt((double)C),       1)                     \
  X(c_proj, "attn.c_proj.weight", C,     C,     1 / sqrt((double)C * (double)L), 1)               \
  X(ln_2,   "ln_2.weight",        C,     0,     -1.0,                      0)                     \
  X(c_fc,   "mlp.c_fc.weight",    C,     4 * C, 0.02,                      1)                     \
  X(m_proj, "mlp.c_proj.weight",  4 * C, C,     0.02,                      1)                     \
  X(c_attn_b, "attn.c_attn.bias", 3 * C * D, 0, 0.0,                       0)                     \
  X(c_proj_b, "attn.c_proj.bias", C * D,     0, 0.0,                       0)                     \
  X(c_fc_b,   "mlp.c_fc.bias",    4 * C * D, 0, 0.0,                       0)                     \
  X(m_proj_b, "mlp.c_proj.bias",  C * D,     0, 0.0,                       0)

enum {
#define IGPT__COUNT_ONE(field, name, rows, columns, deviation, decay) +1
  IGPT__HEAD_COUNT = 0 IGPT__HEAD_TENSORS(IGPT__COUNT_ONE),
  IGPT__BLOCK_COUNT = 0 IGPT__BLOCK_TENSORS(IGPT__COUNT_ONE),
  IGPT__BIAS_COUNT = 4            /* of them */
#undef IGPT__COUNT_ONE
};

/* The list as pointers: one such set for the weights, one for their gradients. */
typedef struct igpt__block_tensors {
#define IGPT__FIELD(field, name, rows, columns, deviation, decay) float *field;
  IGPT__BLOCK_TENSORS(IGPT__FIELD)
} igpt__block_tensors;
typedef struct igpt__tensors {
  IGPT__HEAD_TENSORS(IGPT__FIELD)
#undef IGPT__FIELD
  igpt__block_tensors *block;     /* (L) */
} igpt__tensors;

/* The list as data: what a configuration makes of it. */
typedef struct igpt__spec {
  const char *name;
  size_t rows, columns, count;
  size_t offset;                  /* scalars before it: in the model, or in its block */
  double deviation;
  int    decay;
} igpt__spec;
typedef struct igpt__specs {
  igpt__spec head[IGPT__HEAD_COUNT], block[IGPT__BLOCK_COUNT];
  int    head_count;              /* without score: one less */
  int    block_count;             /* without biases: four less */
  size_t head_scalars;            /* in all head tensors */
  size_t block_scalars;           /* in the tensors of one block */
  size_t scalars;                 /* in all; SIZE_MAX: too many */
} igpt__specs;

static size_t igpt__positions(const igpt_config *config)
{
  return igpt__size_mul((size_t)config->rows, (size_t)config->columns);
}

static void igpt__specs_make(igpt__specs *specs, const igpt_config *config)
{
  const size_t C = (size_t)config->width, V = (size_t)config->vocabulary;
  const size_t L = (size_t)config->layers, K = (size_t)config->classes;
  const size_t T = igpt__positions(config), S = config->objective == IGPT_AR ? 1 : 0;
  const size_t D = config->biases ? 1 : 0;
  igpt__spec *spec = specs->head;
  size_t at = 0;
  int i;
  memset(specs, 0, sizeof *specs);
#define IGPT__SPEC(field, text, r, c, d, w)                                                       \
  spec->name = text; spec->rows = r; spec->columns = c; spec->deviation = d; spec->decay = w;     \
  spec++;
  IGPT__HEAD_TENSORS(IGPT__SPEC)
  spec = specs->block;
  IGPT__BLOCK_TENSORS(IGPT__SPEC)
#undef IGPT__SPEC
  specs->head_count = K ? IGPT__HEAD_COUNT : IGPT__HEAD_COUNT - 1;
  specs->block_count = D ? IGPT__BLOCK_COUNT : IGPT__BLOCK_COUNT - IGPT__BIAS_COUNT;
  for (i = 0; i < IGPT__HEAD_COUNT; i++) {   /* score has no rows where there are no classes */
    spec = &specs->head[i];
    spec->count = igpt__size_mul(spec->rows, spec->columns ? spec->columns : 1);
    spec->offset = at;
    at = igpt__size_add(at, spec->count);
  }
  specs->head_scalars = at;
  for (at = 0, i = 0; i < IGPT__BLOCK_COUNT; i++) {
    spec = &specs->block[i];
    spec->count = igpt__size_mul(spec->rows, spec->columns ? spec->columns : 1);
    spec->offset = at;
    at = igpt__size_add(at, spec->count);
  }
  specs->block_scalars = at;
  specs->scalars = igpt__size_add(specs->head_scalars, igpt__size_mul(L, at));
}

/* Tensor `index` of a model that may not exist yet: its name (at most 48 bytes) and what it is. */
static const igpt__spec *igpt__slot(const igpt__specs *specs, size_t index, char name[48])
{
  const size_t heads = (size_t)specs->head_count, each = (size_t)specs->block_count;
  const igpt__spec *spec;
  size_t used = 0;
  if (index < heads) {
    spec = &specs->head[index];
  } else {
    spec = &specs->block[(index - heads) % each];
    used = igpt__put_text(name, 48, used, "transformer.h.");
    used = igpt__put_integer(name, 48, used, (index - heads) / each);
    used = igpt__put_text(name, 48, used, ".");
  }
  igpt__put_text(name, 48, used, spec->name);
  return spec;
}

static size_t igpt__slots(const igpt__specs *specs, const igpt_config *config)
{
  return (size_t)specs->head_count + (size_t)config->layers * (size_t)specs->block_count;
}

/* The field of tensor `index` in a set (whose block array exists). */
static float **igpt__field(igpt__tensors *tensors, const igpt__specs *specs, size_t index)
{
  const size_t heads = (size_t)specs->head_count, each = (size_t)specs->block_count;
  float **field[IGPT__HEAD_COUNT + IGPT__BLOCK_COUNT];
  int i = 0;
#define IGPT__FIELD(name, text, rows, columns, deviation, decay) field[i++] = &set->name;
  if (index < heads) {
    igpt__tensors *set = tensors;
    IGPT__HEAD_TENSORS(IGPT__FIELD)
    return field[index];
  } else {
    igpt__block_tensors *set = &tensors->block[(index - heads) / each];
    IGPT__BLOCK_TENSORS(IGPT__FIELD)
    return field[(index - heads) % each];
  }
#undef IGPT__FIELD
}

/* Points the fields of a set into one run of scalars. */
static void igpt__tensors_place(igpt__tensors *tensors, float *scalars, const igpt__specs *specs,
                                const igpt_config *config)
{
  char name[48];
  size_t index;
  for (index = 0; index < igpt__slots(specs, config); index++) {
    *igpt__field(tensors, specs, index) = scalars;
    scalars += igpt__slot(specs, index, name)->count;
  }
}

/* ---- configurations ------------------------------------------------------------------------- */

igpt_result igpt_config_preset(igpt_config *out, const char *name)
{
  static const struct { const char *name; int layers, heads, width, side; } presets[] = {
    { "S", 24, 8, 512, 0 }, { "M", 36, 8, 1024, 0 }, { "L", 48, 16, 1536, 0 },
    { "XL", 60, 24, 3072, 64 },
    { "tiny", 4, 2, 64, 0 }, { "small-cpu", 8, 4, 128, 0 }, { "medium-cpu", 12, 8, 256, 0 }
  };
  size_t i;
  if (!out || !name) return IGPT_BAD_ARGUMENT;
  for (i = 0; i < IGPT__COUNT(presets); i++)
    if (strcmp(presets[i].name, name) == 0) {
      out->layers = presets[i].layers;
      out->heads = presets[i].heads;
      out->width = presets[i].width;
      if (presets[i].side) out->rows = out->columns = presets[i].side;
      return IGPT_OK;
    }
  return IGPT_BAD_ARGUMENT;
}

/* Whether the fields are in range, each by itself. */
static igpt_result igpt__config_check(const igpt_config *config, const igpt_log *log)
{
  static const char *const names[] = { "layers", "heads", "width", "rows", "columns",
                                       "vocabulary", "classes", "biases" };
  const int most[] = { 4096, 4096, 1 << 20, 1 << 15, 1 << 15, 65535, 1 << 20, 1 };
  int field[8], i;
  field[0] = config->layers;
  field[1] = config->heads;
  field[2] = config->width;
  field[3] = config->rows;
  field[4] = config->columns;
  field[5] = config->vocabulary;
  field[6] = config->classes;
  field[7] = config->biases;
  for (i = 0; i < 8; i++)
    if (field[i] < 0 || field[i] > most[i])
      return igpt__fail(log, IGPT_BAD_ARGUMENT, "config.%s is %d, and must be 0..%d", names[i],
                        field[i], most[i]);
  if (config->objective != IGPT_AR && config->objective != IGPT_BERT)
    return igpt__fail(log, IGPT_BAD_ARGUMENT,
                      "config.objective is %d, and must be 0 (AR) or 1 (BERT)",
                      (int)config->objective);
  /* of a row of zeros, the cube of 1 / sqrt(epsilon) must be a float */
  if (config->norm_epsilon != 0 && !(config->norm_epsilon >= 1e-20f && config->norm_epsilon < 1))
    return igpt__fail(log, IGPT_BAD_ARGUMENT,
                      "config.norm_epsilon is %g, and must be in [1e-20, 1), or 0",
                      (double)config->norm_epsilon);
  return IGPT_OK;
}

IGPT__EXACT_ENTRY(igpt_config_resolve, (igpt_config *config, const igpt_log *log), (config, log))
{
  igpt__specs specs;
  igpt_config c;
  igpt_result result;
  if (!config) return igpt__fail(log, IGPT_BAD_ARGUMENT, "config is null");
  c = *config;
  result = igpt__config_check(&c, log);
  if (result) return result;
  if (!c.layers) c.layers = 8;
  if (!c.width) c.width = 128;
  if (!c.heads) c.heads = c.width < 64 ? 1 : c.width / 32;
  if (!c.rows) c.rows = 32;
  if (!c.columns) c.columns = c.rows;
  if (!c.vocabulary) c.vocabulary = 512;
  if (c.norm_epsilon == 0) c.norm_epsilon = 1e-5f;
  if (c.width % c.heads)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "config.heads is %d, which does not divide width %d",
                      c.heads, c.width);
  igpt__specs_make(&specs, &c);
  if (specs.scalars > SIZE_MAX / sizeof(float))
    return igpt__fail(log, IGPT_TOO_LARGE, "%d layers of width %d do not fit in size_t", c.layers,
                      c.width);
  *config = c;
  return IGPT_OK;
}

/* ---- the model ------------------------------------------------------------------------------ */

struct igpt_model {
  igpt_config    config;          /* resolved */
  igpt__specs    specs;
  igpt__tensors  weights;
  float         *scalars;         /* all weights in one run, in the order of igpt_model_tensor_at;
                                     null: they are borrowed */
  igpt_palette   palette;         /* colours is 0 if there is none */
  uint64_t       step;            /* optimiser steps behind these weights */
  igpt_allocator allocator;
  igpt_log       log;
  igpt__block    memory;
};

static igpt_model *igpt__model_layout(igpt__arena *arena, const igpt_config *config, int borrow)
{
  igpt__specs specs;
  igpt_model *model = (igpt_model *)igpt__take(arena, 1, sizeof *model);
  igpt__block_tensors *block = (igpt__block_tensors *)
    igpt__take(arena, (size_t)config->layers, sizeof *block);
  float *scalars = NULL;
  igpt__specs_make(&specs, config);
  if (!borrow) scalars = igpt__take_floats(arena, specs.scalars);
  if (!arena->base) return NULL;
  memset(model, 0, sizeof *model);
  memset(block, 0, (size_t)config->layers * sizeof *block);
  model->config = *config;
  model->specs = specs;
  model->scalars = scalars;
  model->weights.block = block;
  if (scalars) igpt__tensors_place(&model->weights, scalars, &specs, config);
  return model;
}

igpt_result igpt_model_bytes(size_t *bytes, const igpt_model_desc *desc)
{
  igpt_model_desc d;
  igpt__arena arena = { NULL, 0 };
  igpt_result result;
  size_t all;
  if (!bytes) return IGPT_BAD_ARGUMENT;
  memset(&d, 0, sizeof d);
  if (desc) d = *desc;
  result = igpt_config_resolve(&d.config, &d.log);
  if (result) return result;
  igpt__model_layout(&arena, &d.config, d.borrow);
  all = igpt__with_alignment(arena.used);
  if (all == SIZE_MAX) return IGPT_TOO_LARGE;
  *bytes = all;
  return IGPT_OK;
}

/* A model whose weights are not set yet; if they are to be borrowed, neither are the pointers. */
static igpt_result igpt__model_open(igpt_model **out, const igpt_model_desc *desc)
{
  igpt_config config = desc->config;
  igpt_allocator allocator = desc->allocator;
  igpt__arena arena = { NULL, 0 };
  igpt__block memory;
  igpt_result result;
  *out = NULL;
  result = igpt_config_resolve(&config, &desc->log);
  if (!result) result = igpt__allocator_resolve(&allocator, &desc->log);
  if (result) return result;
  igpt__model_layout(&arena, &config, desc->borrow);
  result = igpt__block_open(&memory, igpt__with_alignment(arena.used), desc->memory,
                            desc->memory_bytes, &allocator, &desc->log);
  if (result) return result;
  arena.base = memory.aligned;
  arena.used = 0;
  *out = igpt__model_layout(&arena, &config, desc->borrow);
  (*out)->memory = memory;
  (*out)->allocator = allocator;
  (*out)->log = desc->log;
  return IGPT_OK;
}

/* Two pairs of deviates from every four random words: the values of one tensor. */
static void igpt__fill_normal(float *to, size_t count, double deviation, uint64_t seed,
                              uint64_t stream)
{
  size_t i, j;
  for (i = 0; i < count; i += 4) {
    uint32_t bits[4];
    float four[4];
    igpt__philox(bits, i / 4, stream, seed);
    igpt__normal_pair(four, bits[0], bits[1]);
    igpt__normal_pair(four + 2, bits[2], bits[3]);
    for (j = 0; j < 4 && i + j < count; j++) to[i + j] = (float)(deviation * (double)four[j]);
  }
}

IGPT__EXACT_ENTRY(igpt_model_create, (igpt_model **out, const igpt_model_desc *desc), (out, desc))
{
  igpt_model_desc zero;
  igpt_model *model;
  igpt_result result;
  size_t index, i;
  if (!out) return IGPT_BAD_ARGUMENT;
  memset(&zero, 0, sizeof zero);
  if (!desc) desc = &zero;
  *out = NULL;
  if (desc->borrow)
    return igpt__fail(&desc->log, IGPT_BAD_ARGUMENT,
                      "model.borrow is 1, and igpt_model_create has nothing to borrow");
  result = igpt__model_open(out, desc);
  if (result) return result;
  model = *out;
  for (index = 0; index < igpt_model_tensors(model); index++) {
    igpt_tensor tensor;
    const igpt__spec *spec = igpt__slot(&model->specs, index, tensor.name);
    igpt_model_tensor_at(model, &tensor, index);
    if (spec->deviation > 0)
      igpt__fill_normal(tensor.data, tensor.count, spec->deviation, desc->seed, index);
    else
      for (i = 0; i < tensor.count; i++) tensor.data[i] = spec->deviation < 0 ? 1.0f : 0.0f;
  }
  return IGPT_OK;
}

void igpt_model_destroy(igpt_model *model)
{
  if (model) {
    igpt__block memory = model->memory;
    igpt_allocator allocator = model->allocator;
    igpt__block_close(&memory, &allocator);
  }
}

const igpt_config *igpt_model_config(const igpt_model *model)
{
  return model ? &model->config : NULL;
}

const igpt_palette *igpt_model_palette(const igpt_model *model)
{
  return model && model->palette.colours ? &model->palette : NULL;
}

IGPT__EXACT_ENTRY(igpt_model_set_palette, (igpt_model *model, const igpt_palette *palette),
                  (model, palette))
{
  if (!model || !palette) return IGPT_BAD_ARGUMENT;
  if (palette->colours != model->config.vocabulary || palette->colours > IGPT_PALETTE_MAX)
    return igpt__fail(&model->log, IGPT_MISMATCH,
                      "palette \"%s\" has %d colours, and the model's vocabulary is %d",
                      palette->name, palette->colours, model->config.vocabulary);
  model->palette = *palette;
  return IGPT_OK;
}

size_t igpt_model_parameters(const igpt_model *model) { return model ? model->specs.scalars : 0; }

size_t igpt_model_tensors(const igpt_model *model)
{
  return model ? igpt__slots(&model->specs, &model->config) : 0;
}

/* Tensor `index` of the model's weights, or of a set like them. */
static igpt_result igpt__tensor_at(const igpt_model *model, igpt__tensors set, igpt_tensor *out,
                                   size_t index)
{
  const igpt__spec *spec;
  if (!out || index >= igpt_model_tensors(model)) return IGPT_BAD_ARGUMENT;
  spec = igpt__slot(&model->specs, index, out->name);
  out->data = *igpt__field(&set, &model->specs, index);
  out->rank = spec->columns ? 2 : 1;
  out->shape[0] = spec->rows;
  out->shape[1] = spec->columns ? spec->columns : 1;
  out->count = spec->count;
  return IGPT_OK;
}

igpt_result igpt_model_tensor_at(const igpt_model *model, igpt_tensor *out, size_t index)
{
  return model ? igpt__tensor_at(model, model->weights, out, index) : IGPT_BAD_ARGUMENT;
}

igpt_result igpt_model_tensor(const igpt_model *model, igpt_tensor *out, const char *name)
{
  igpt_tensor tensor;
  size_t i;
  if (!model || !out || !name) return IGPT_BAD_ARGUMENT;
  for (i = 0; i < igpt_model_tensors(model); i++) {
    igpt_model_tensor_at(model, &tensor, i);
    if (strcmp(tensor.name, name) == 0) {
      *out = tensor;
      return IGPT_OK;
    }
  }
  return igpt__fail(&model->log, IGPT_BAD_ARGUMENT, "the model has no tensor \"%s\"", name);
}

/* ---- the session ---------------------------------------------------------------------------- */

enum {
  IGPT__ROWS = 64,                /* rows (positions) in one task of row-wise work */
  IGPT__FLAT = 16384,             /* scalars in one task of element-wise work */
  IGPT__LOGIT_ROWS = 512,         /* rows whose logits exist at one time */
  IGPT__TILE_ROWS  = 256,         /* on tiles: rows that go through a block's layers together */
  IGPT__TILE_DEPTH = 1024,        /* rows behind a gradient, packed and added at a time */
  IGPT__TILE_LANES = 128          /* columns of weights, or of such rows, packed at a time */
};

/* What a block leaves behind for its backward; R = B T rows. Passes without a backward use the
   first set for all blocks, with middle = x and no lse. If desc.recompute, all sets are the first
   but for x. */
typedef struct igpt__activations {
  float *x;                       /* (R,C)   the stream that enters the block */
  float *r_1;                     /* (R)     1 / rms of it */
  float *qkv;                     /* (R,3C) */
  float *attended;                /* (R,C)   what the heads took, side by side */
  float *lse;                     /* (B,H,T) log of each attention row's sum */
  float *middle;                  /* (R,C)   the stream between the two halves */
  float *r_2;                     /* (R) */
  float *f;                       /* (R,4C)  before GELU */
  uint16_t *qkv_h, *attended_h, *f_h;   /* on tiles instead of these: bfloat16 */
} igpt__activations;

/* On tiles: rows of bfloat16, igpt__row(columns) apart, zeros beyond the columns; and the first
   operands of the gradients of a block's four matrices: their inputs, packed with rows as k. */
typedef struct igpt__tile_rows {
  igpt__activations few;          /* of decoding: B rows of floats */
  uint16_t *dx[3];                /* (R,C) rounded: what enters a block, lies within, leaves it */
  uint16_t *dattended, *dqkv, *df;      /* (R,C), (R,3C), (R,4C) */
  uint16_t *turned[4];
} igpt__tile_rows;

struct igpt_session {
  const igpt_model *model;
  igpt_session_desc desc;         /* resolved */
  size_t B, T, C, V, H, L, K, R;  /* as in part 2; R = B T rows */
  igpt__math     math;
  igpt__activations *layer;       /* (L + 1), the last with x alone; without training one for all */
  igpt__tile_rows tile;
  float         *normed;          /* (R,C)   what a norm gave */
  float         *wide;            /* (R,4C)  GELU's result; gradients of f and of qkv; on tiles
                                     (B,4C), for decoding */
  float         *logits;          /* (igpt__logit_rows(B,T),V) */
  float         *nats;            /* (R)     loss of every position; igpt_fill: how certain it is */
  float         *pooled;          /* (B,C)   mean of the normed stream */
  float         *classes;         /* (B,K) */
  uint16_t      *draft;           /* (R)     tokens that igpt_fill considers; igpt_sample: the
                                     prefix, then those just drawn */
  uint8_t       *hidden;          /* (R)     positions that igpt_fill has not filled */
  char          *cache;           /* (L,B) caches of part 10; null: none */
  size_t         cache_bytes;     /* of one picture in one layer */
  double         stage, share;    /* the pass at work begins when this part of its call is done, and
                                     is this part of it */
  double         done;            /* what the watch is told */
  igpt__narrow  *narrow;          /* (4 L + 1) copies of the matrices, lm_head's last; or null */
  size_t         decode_count;    /* pictures being decoded; 0: igpt_decode_begin was not called */
  size_t         decode_position; /* whose logits come next */
  int            decode_started;  /* the next call brings the tokens of the position before */
  uint16_t      *decode_tokens;   /* (B)     chosen at the position before */
#ifndef IGPT_NO_TRAIN
  igpt__tensors  gradients;
  float         *gradient;        /* (P)     of all P weights, summed over pictures */
  float         *moment1, *moment2;   /* (P) each, Adam's */
  double        *partial;         /* sums of squares, one a task */
  float         *dx, *dy;         /* (R,C)   gradients on the stream and beside it */
  float         *dgain;           /* (R / ROWS, C) gains' gradients, one row a task */
  float         *weight;          /* (R)     of each position in the loss */
  size_t         pictures;        /* behind the gradients */
  uint64_t       steps;           /* optimiser steps taken */
#endif
  igpt__block    memory;
};

/* Rows of the logits that exist at one time: a chunk of a pass, or one position of B pictures. */
static size_t igpt__logit_rows(size_t B, size_t T)
{
  return igpt__max_size(B, igpt__min_size(igpt__size_mul(B, T), IGPT__LOGIT_ROWS));
}

/* Numbers from one row of bfloat16 to the next: an odd number of cache lines, so that the 16 rows
   of a tile do not meet in the same places of the cache. */
static size_t igpt__row(size_t columns)
{
  return igpt__size_round(columns, IGPT__PANEL) | IGPT__PANEL;
}

static uint16_t *igpt__take_rows(igpt__arena *arena, size_t rows, size_t columns)
{
  return (uint16_t *)igpt__take(arena, igpt__size_mul(igpt__size_round(rows, IGPT__PANEL),
                                                      igpt__row(columns)), sizeof(uint16_t));
}

/* Packed numbers of the four matrices of a block */
static size_t igpt__tile_weights(size_t C)
{
  const size_t wide = igpt__panels(igpt__size_mul(4, C), C);
  return igpt__size_add(igpt__panels(igpt__size_mul(3, C), C),
                        igpt__size_add(igpt__panels(C, C), igpt__size_mul(2, wide)));
}

/* Floats of a worker's scratch for the tasks of a block: normed rows, GELU's rows or the gradient
   beside the stream, one row of floats; or rows packed for a gradient. */
static size_t igpt__tile_floats(size_t C)
{
  const size_t wide = igpt__row(igpt__size_mul(4, C));
  const size_t rows = igpt__size_mul(IGPT__TILE_ROWS / 2, igpt__size_add(igpt__row(C), wide));
  return igpt__max_size(igpt__size_add(rows, igpt__size_round(C, 16)),
                        (size_t)IGPT__TILE_LANES * IGPT__TILE_DEPTH / 2);
}

/* The session's memory, walked in one order: with a null base it counts, and fills `plan` in. */
static igpt_session *igpt__session_layout(igpt__arena *arena, igpt_plan *plan,
                                          const igpt_config *config, const igpt_session_desc *desc)
{
  const igpt_kernels *kernels = igpt_kernels_for(desc->isa);
  const size_t B = (size_t)desc->batch, T = igpt__positions(config), C = (size_t)config->width;
  const size_t V = (size_t)config->vocabulary, H = (size_t)config->heads;
  const size_t L = (size_t)config->layers, K = (size_t)config->classes;
  const size_t R = igpt__size_mul(B, T), RC = igpt__size_mul(R, C), R3C = igpt__size_mul(3, RC);
  const size_t R4C = igpt__size_mul(4, RC), workers = (size_t)igpt__workers(&desc->runner);
  const size_t most = igpt__max_size(V, igpt__size_mul(4, C));
  const igpt__tiles *tiles = igpt__tiles_of(desc->isa);
  const size_t tile_floats = igpt__max_size(igpt__attend_floats(T, C / H), igpt__tile_floats(C));
  const size_t attention = igpt__max_size(igpt__attention_worker(kernels, T, C / H),
                                          tiles ? tile_floats : 0);
  const int own = desc->train;    /* every block has activations of its own */
  const size_t deepest = own ? igpt__max_size(most, R) : most;    /* gradients are sums over R */
  const size_t worker_floats = igpt__size_round(
    igpt__max_size(igpt__matmul_worker(kernels, most, deepest), attention), 16);
  const size_t sets = own ? L : 1;
  igpt__activations nowhere;
  igpt__specs specs;
  igpt_session zero, *s, *place;
  size_t start, end, kept = 0, l;
  igpt__specs_make(&specs, config);
  place = (igpt_session *)igpt__take(arena, 1, sizeof *place);
  s = &zero;                      /* when counting, the pointers go nowhere */
  if (place) s = place;
  memset(s, 0, sizeof *s);
  s->B = B; s->T = T; s->C = C; s->V = V; s->H = H; s->L = L; s->K = K; s->R = R;
  s->math.round = desc->precision != IGPT_F32;
  s->layer = (igpt__activations *)igpt__take(arena, sets + 1, sizeof *s->layer);

#ifndef IGPT_NO_TRAIN
  if (desc->train) {
    const size_t P = specs.scalars;
    s->gradients.block = (igpt__block_tensors *)igpt__take(arena, L, sizeof *s->gradients.block);
    start = arena->used;
    s->gradient = igpt__take_floats(arena, P);
    plan->gradient_bytes = arena->used - start;
    start = arena->used;
    s->moment1 = igpt__take_floats(arena, P);
    s->moment2 = igpt__take_floats(arena, P);
    plan->moment_bytes = arena->used - start;
    if (s->gradient) igpt__tensors_place(&s->gradients, s->gradient, &specs, config);
  }
#endif

  /* One set of activations serves every pass that is not kept; a backward needs one a block, or
     else the x of every block. */
  start = arena->used;
  for (l = 0; l <= sets; l++) {
    igpt__activations *layer = &nowhere;
    if (s->layer) layer = &s->layer[l];
    if (l == 1) kept = arena->used;
    if (l < sets || own) layer->x = igpt__take_floats(arena, RC);
    if (l == sets) break;
    if (l > 0 && desc->recompute) {
      float *x = layer->x;
      if (s->layer) *layer = s->layer[0];
      layer->x = x;
      continue;
    }
    layer->r_1 = igpt__take_floats(arena, R);
    layer->r_2 = igpt__take_floats(arena, R);
    if (tiles) {
      layer->qkv_h = igpt__take_rows(arena, R, 3 * C);
      layer->attended_h = igpt__take_rows(arena, R, C);
      layer->f_h = own ? igpt__take_rows(arena, R, 4 * C) : NULL;
    } else {
      layer->qkv = igpt__take_floats(arena, R3C);
      layer->attended = igpt__take_floats(arena, RC);
      layer->f = igpt__take_floats(arena, R4C);
    }
    layer->lse = own ? igpt__take_floats(arena, igpt__size_mul(R, H)) : NULL;
    layer->middle = own ? igpt__take_floats(arena, RC) : NULL;
  }
  end = arena->used;
  plan->activation_bytes = end - start;

  /* Keys and values. Nobody decodes in the middle of a backward pass: in a training session they
     lie where the activations of block 1 and the later ones lie. */
  if (!desc->no_cache && config->objective == IGPT_AR) {
    s->cache_bytes = igpt__cache_bytes(T, H, C / H, s->math.round);
    if (own) arena->used = kept;
    start = arena->used;
    s->cache = (char *)igpt__take(arena, igpt__size_mul(L, B), s->cache_bytes);
    plan->cache_bytes = arena->used - start;
    if (own) {
      plan->cache_bytes = arena->used > end ? arena->used - end : 0;
      arena->used = igpt__max_size(arena->used, end);
    }
  }

  /* Decoding reads copies of the matrices, as everything does in INT8; in training, where weights
     change at every step, it rounds the weights themselves. */
  if (desc->precision == IGPT_INT8 ||
      (desc->precision == IGPT_BF16 && !own && !desc->no_cache && config->objective == IGPT_AR)) {
    const size_t in[4] = { C, C, C, igpt__size_mul(4, C) };
    const size_t out[4] = { igpt__size_mul(3, C), C, igpt__size_mul(4, C), C };
    const int bytes = desc->precision == IGPT_INT8 ? 1 : 2;
    const int tiled = tiles && B >= IGPT__NARROW_TILED;
    igpt__narrow none;
    start = arena->used;
    s->narrow = (igpt__narrow *)igpt__take(arena, 4 * L + 1, sizeof *s->narrow);
    for (l = 0; l < 4 * L; l++)
      igpt__narrow_take(arena, s->narrow ? &s->narrow[l] : &none, in[l % 4], out[l % 4], bytes,
                        tiled);
    igpt__narrow_take(arena, s->narrow ? &s->narrow[4 * L] : &none, C, V, bytes, tiled);
    plan->copy_bytes = arena->used - start;
  }

  s->normed = igpt__take_floats(arena, RC);
  if (tiles) {
    const size_t BC = igpt__size_mul(B, C);
    s->tile.few.x = s->tile.few.middle = igpt__take_floats(arena, BC);
    s->tile.few.r_1 = s->tile.few.r_2 = igpt__take_floats(arena, B);
    s->tile.few.qkv = igpt__take_floats(arena, igpt__size_mul(3, igpt__max_size(B, T) * C));
    s->tile.few.attended = igpt__take_floats(arena, BC);
    s->wide = s->tile.few.f = igpt__take_floats(arena, igpt__size_mul(4, BC));
  } else s->wide = own ? igpt__take_floats(arena, R4C) : (s->layer ? s->layer[0].f : NULL);
  s->logits = igpt__take_floats(arena, igpt__size_mul(igpt__logit_rows(B, T), V));
  s->nats = igpt__take_floats(arena, R);
  s->pooled = igpt__take_floats(arena, igpt__size_mul(B, C));
  s->classes = igpt__take_floats(arena, igpt__size_mul(B, K));
  s->draft = (uint16_t *)igpt__take(arena, R, sizeof *s->draft);
  s->hidden = (uint8_t *)igpt__take(arena, R, sizeof *s->hidden);
  s->decode_tokens = (uint16_t *)igpt__take(arena, B, sizeof *s->decode_tokens);
#ifndef IGPT_NO_TRAIN
  if (desc->train) {
    s->dx = igpt__take_floats(arena, RC);
    s->dy = igpt__take_floats(arena, RC);
    s->dgain = igpt__take_floats(arena, igpt__size_mul(igpt__divide_up(R, IGPT__ROWS), C));
    for (l = 0; tiles && l < 3; l++) s->tile.dx[l] = igpt__take_rows(arena, R, C);
    for (l = 0; tiles && l < 4; l++)
      s->tile.turned[l] = (uint16_t *)igpt__take(arena, igpt__panels(l < 3 ? C : 4 * C, R), 2);
    if (tiles) {
      s->tile.dattended = igpt__take_rows(arena, R, C);
      s->tile.dqkv = igpt__take_rows(arena, R, 3 * C);
      s->tile.df = igpt__take_rows(arena, R, 4 * C);
    }
    s->weight = igpt__take_floats(arena, R);
    s->partial = (double *)igpt__take(arena, igpt__divide_up(specs.scalars, IGPT__FLAT),
                                      sizeof *s->partial);
  }
#endif
  {
    const size_t copies = desc->precision == IGPT_F32 || own ? 0
      : igpt__narrow_shared(desc->precision == IGPT_INT8 ? R : B, igpt__size_mul(4, C));
    s->math.shared = igpt__take_floats(
      arena, igpt__max_size(copies,
                            tiles ? igpt__max_size(igpt__tiles_shared(igpt__max_size(most, R), most,
                                                                  deepest),
                                                 igpt__size_round(igpt__tile_weights(C) / 2, 16))
                                : igpt__matmul_shared(kernels, most, deepest)));
  }
  s->math.tiles = tiles;
  s->math.worker = igpt__take_floats(arena, igpt__size_mul(workers, worker_floats));
  s->math.worker_floats = worker_floats;
  s->math.kernels = kernels;
  s->math.runner = desc->runner;
  return place;
}

static igpt_result igpt__session_resolve(igpt_session_desc *desc, const igpt_config *config)
{
  const igpt_log *log = &desc->log;
  igpt_result result;
  if (desc->batch < 0 || desc->batch > 1 << 20)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "session.batch is %d, and must be 0..%d", desc->batch,
                      1 << 20);
  if (!desc->batch) desc->batch = 1;
  if (!igpt_kernels_for(desc->isa))
    return igpt__fail(log, IGPT_UNSUPPORTED, "session.isa is %s, and this processor's best is %s",
                      igpt_isa_name(desc->isa), igpt_isa_name(igpt_isa_best()));
  if ((unsigned)desc->precision > (unsigned)IGPT_PRECISION_AUTO)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "session.precision is %d, and must be 0..%d",
                      (int)desc->precision, (int)IGPT_PRECISION_AUTO);
  /* Tiles and dot products only ever multiply bfloat16, and do not add biases. AUTO may have them,
     and does without if they are not right. */
  if (desc->isa == IGPT_ISA_AUTO || igpt__tiles_isa(desc->isa)) {
    const int none = desc->precision == IGPT_F32 || desc->precision == IGPT_INT8 || config->biases;
    igpt_isa isa = IGPT_ISA_AMX;
    if (desc->isa != IGPT_ISA_AUTO) isa = desc->isa;
    else if (!igpt__tiles_of(isa)) isa = IGPT_ISA_AVX512_BF16;
    if (none || !igpt__tiles_of(isa)) isa = igpt_isa_best();
    else if (!igpt__tiles_right(igpt__tiles_of(isa))) {
      if (desc->isa == isa)
        return igpt__fail(log, IGPT_SELFTEST_FAILED, "session.isa is %s, whose products are wrong "
                          "on this machine: generic C disagrees", igpt_isa_name(isa));
      isa = igpt_isa_best();
    }
    desc->isa = isa;
  }
  if (desc->precision == IGPT_PRECISION_AUTO)
    desc->precision = igpt__tiles_isa(desc->isa) ? IGPT_BF16 : IGPT_F32;
#ifdef IGPT_NO_TRAIN
  if (desc->train)
    return igpt__fail(log, IGPT_UNSUPPORTED, "session.train is 1, and IGPT_NO_TRAIN is defined");
#endif
  if (desc->train && desc->precision == IGPT_INT8)
    return igpt__fail(log, IGPT_BAD_ARGUMENT,
                      "session.train is 1, and precision INT8: weights of a byte cannot be "
                      "trained");
  desc->train = desc->train != 0;
  desc->recompute = desc->recompute != 0;
  result = igpt__runner_check(&desc->runner, log);
  return result ? result : igpt__allocator_resolve(&desc->allocator, log);
}

IGPT__EXACT_ENTRY(igpt_plan_make,
                  (igpt_plan *out, const igpt_config *config, const igpt_session_desc *desc),
                  (out, config, desc))
{
  igpt_config c;
  igpt_session_desc d;
  igpt__arena arena = { NULL, 0 };
  igpt__specs specs;
  igpt_plan plan;
  igpt_result result;
  double T, C, L, linear, attention;
  if (!out) return IGPT_BAD_ARGUMENT;
  memset(&c, 0, sizeof c);
  memset(&d, 0, sizeof d);
  memset(&plan, 0, sizeof plan);
  if (config) c = *config;
  if (desc) d = *desc;
  result = igpt_config_resolve(&c, &d.log);
  if (!result) result = igpt__session_resolve(&d, &c);
  if (result) return result;
  igpt__specs_make(&specs, &c);
  igpt__model_layout(&arena, &c, 0);
  plan.parameters = specs.scalars;
  plan.model_bytes = igpt__with_alignment(arena.used);
  arena.used = 0;
  igpt__session_layout(&arena, &plan, &c, &d);
  plan.session_bytes = igpt__with_alignment(arena.used);
  plan.scratch_bytes = plan.session_bytes - plan.gradient_bytes - plan.moment_bytes -
                       plan.activation_bytes - plan.cache_bytes - plan.copy_bytes;
  if (plan.model_bytes == SIZE_MAX || plan.session_bytes == SIZE_MAX)
    return igpt__fail(&d.log, IGPT_TOO_LARGE, "a batch of %d does not fit in size_t", d.batch);

  /* Products of a picture: the linear layers are 2 FLOPs a weight and position, attention has two
     products of T x T x C (of which AR models skip half, above the diagonal), its backward five. */
  T = (double)igpt__positions(&c);
  C = c.width;
  L = c.layers;
  linear = 2 * T * (L * 12 * C * C + (double)c.vocabulary * C);
  attention = 4 * T * T * C * L * (c.objective == IGPT_AR ? 0.5 : 1);
  plan.forward_flops = linear + attention;
  plan.train_flops = 3 * linear + 3.5 * attention;
  plan.decode_flops = c.objective == IGPT_AR ? linear + attention : 0;
  *out = plan;
  return IGPT_OK;
}

igpt_result igpt_session_bytes(size_t *bytes, const igpt_config *config,
                               const igpt_session_desc *desc)
{
  igpt_plan plan;
  igpt_result result;
  if (!bytes) return IGPT_BAD_ARGUMENT;
  result = igpt_plan_make(&plan, config, desc);
  if (!result) *bytes = plan.session_bytes;
  return result;
}

IGPT__EXACT_ENTRY(igpt_session_create,
                  (igpt_session **out, const igpt_model *model, const igpt_session_desc *desc),
                  (out, model, desc))
{
  igpt_session_desc d;
  igpt__arena arena = { NULL, 0 };
  igpt__block memory;
  igpt_plan plan;
  igpt_session *s;
  igpt_result result;
  if (!out) return IGPT_BAD_ARGUMENT;
  *out = NULL;
  memset(&d, 0, sizeof d);
  if (desc) d = *desc;
  if (!model) return igpt__fail(&d.log, IGPT_BAD_ARGUMENT, "session: the model is null");
  result = igpt__session_resolve(&d, &model->config);
  if (result) return result;
  if (d.train && !model->scalars)
    return igpt__fail(&d.log, IGPT_BAD_ARGUMENT,
                      "session.train is 1, and the model's weights are borrowed: never written");
  igpt__session_layout(&arena, &plan, &model->config, &d);
  result = igpt__block_open(&memory, igpt__with_alignment(arena.used), d.memory, d.memory_bytes,
                            &d.allocator, &d.log);
  if (result) return result;
  memset(memory.aligned, 0, arena.used);
  arena.base = memory.aligned;
  arena.used = 0;
  s = igpt__session_layout(&arena, &plan, &model->config, &d);
  s->model = model;
  s->desc = d;
  s->memory = memory;
  *out = s;
  return IGPT_OK;
}

void igpt_session_destroy(igpt_session *session)
{
  if (session) {
    igpt__block memory = session->memory;
    igpt_allocator allocator = session->desc.allocator;
    igpt__block_close(&memory, &allocator);
  }
}

const igpt_session_desc *igpt_session_resolved(const igpt_session *session)
{
  return session ? &session->desc : NULL;
}

/* ---- row-wise work in tasks ----------------------------------------------------------------- */

/* One description serves all of it; each task takes its rows or scalars of the arrays. */
typedef struct igpt__rows_job {
  const igpt_kernels *kernels;
  size_t rows, n, task_rows;      /* n: scalars in a row */
  float *y;
  const float *x, *dy, *gain;
  float *r, *dgain;
  float epsilon;
} igpt__rows_job;

static size_t igpt__task_end(const igpt__rows_job *job, size_t index)
{
  return igpt__min_size(job->rows, (index + 1) * job->task_rows);
}

static igpt__rows_job igpt__job(const igpt_session *s, float *y, const float *x, size_t rows)
{
  igpt__rows_job job;
  memset(&job, 0, sizeof job);
  job.kernels = s->math.kernels;
  job.rows = rows;
  job.n = s->C;
  job.task_rows = IGPT__ROWS;
  job.y = y;
  job.x = x;
  job.epsilon = s->model->config.norm_epsilon;
  return job;
}

static void igpt__run_rows(const igpt_session *s, igpt_task *task, igpt__rows_job *job)
{
  igpt__run(&s->math.runner, task, job, igpt__divide_up(job->rows, job->task_rows));
}

/* norm:  y[i,c] = x[i,c] r[i] g[c],  r[i] = 1 / sqrt(mean over c of x[i,c]^2 + epsilon) */
static void igpt__norm_task(void *arg, size_t index, int worker)
{
  igpt__rows_job *job = (igpt__rows_job *)arg;
  size_t i;
  (void)worker;
  for (i = index * job->task_rows; i < igpt__task_end(job, index); i++) {
    float r = job->kernels->norm(job->y + i * job->n, job->x + i * job->n, job->gain, job->epsilon,
                                 job->n);
    if (job->r) job->r[i] = r;
  }
}

static void igpt__norm(igpt_session *s, float *y, float *r, const float *x, const float *gain,
                       size_t rows)                                      /* (rows,C) -> (rows,C) */
{
  igpt__rows_job job = igpt__job(s, y, x, rows);
  job.r = r;
  job.gain = gain;
  igpt__run_rows(s, igpt__norm_task, &job);
}

#ifndef IGPT_NO_TRAIN
/* With y = x r g:  dx[c] += r g[c] dy[c] - x[c] r^3 / C * sum over j of g[j] dy[j] x[j]
                    dg[c] += dy[c] x[c] r, first in a row of sums a task, then those in order */
static void igpt__norm_backward_task(void *arg, size_t index, int worker)
{
  igpt__rows_job *job = (igpt__rows_job *)arg;
  float *dgain = job->dgain + index * job->n;
  size_t i;
  (void)worker;
  memset(dgain, 0, job->n * sizeof *dgain);
  for (i = index * job->task_rows; i < igpt__task_end(job, index); i++)
    job->kernels->norm_backward(job->y + i * job->n, dgain, job->dy + i * job->n,
                                job->x + i * job->n, job->gain, job->r[i], job->n);
}

static void igpt__norm_backward(igpt_session *s, float *dx, float *dgain, const float *dy,
                                const float *x, float *r, const float *gain, size_t rows)
{
  igpt__rows_job job = igpt__job(s, dx, x, rows);
  size_t i;
  job.dy = dy;
  job.r = r;
  job.gain = gain;
  job.dgain = s->dgain;
  igpt__run_rows(s, igpt__norm_backward_task, &job);
  for (i = 0; i < igpt__divide_up(rows, IGPT__ROWS); i++)
    s->math.kernels->add(dgain, s->dgain + i * s->C, s->C);
}
#endif

/* GELU:  y = x sigmoid(1.702 x)     dx = dy (s + 1.702 x s (1 - s)),  s = sigmoid(1.702 x) */
static void igpt__gelu_task(void *arg, size_t index, int worker)
{
  igpt__rows_job *job = (igpt__rows_job *)arg;
  size_t at = index * job->task_rows, n = igpt__task_end(job, index) - at;
  (void)worker;
#ifndef IGPT_NO_TRAIN
  if (job->dy) {
    job->kernels->gelu_backward(job->y + at, job->dy + at, job->x + at, n);
    return;
  }
#endif
  job->kernels->gelu(job->y + at, job->x + at, n);
}

/* Forward with dy null, else backward; element by element, y may be x or dy. */
static void igpt__gelu(igpt_session *s, float *y, const float *dy, const float *x, size_t scalars)
{
  igpt__rows_job job = igpt__job(s, y, x, scalars);
  job.task_rows = IGPT__FLAT;
  job.dy = dy;
  igpt__run_rows(s, igpt__gelu_task, &job);
}

/* ---- linear layers -------------------------------------------------------------------------- */

/* The matrices of block l, or with l = L lm_head, in the copies that decoding (1) or a full pass
   (0) reads; null: the weights themselves are read. */
static const igpt__narrow *igpt__copies(const igpt_session *s, int decode, size_t l)
{
  return s->narrow && (decode || s->desc.precision == IGPT_INT8) ? s->narrow + 4 * l : NULL;
}

static void igpt__bias_task(void *arg, size_t index, int worker)
{
  const igpt__rows_job *job = (const igpt__rows_job *)arg;
  size_t i;
  (void)worker;
  for (i = index * job->task_rows; i < igpt__task_end(job, index); i++)
    job->kernels->add(job->y + i * job->n, job->x, job->n);
}

/* y (rows,out) = x (rows,in) w (in,out) [+ bias (out)] [+ y]. bias may be null; narrow: a copy of
   w, or null */
static void igpt__linear(igpt_session *s, float *y, const float *x, const float *w,
                         const float *bias, const igpt__narrow *narrow, size_t rows, size_t in,
                         size_t out, int accumulate)
{
  if (narrow) igpt__narrow_product(&s->math, y, x, narrow, rows, accumulate);
  else igpt__matmul(&s->math, y, out, x, in, 1, w, out, 1, rows, out, in, accumulate);
  if (bias) {
    igpt__rows_job job = igpt__job(s, y, bias, rows);
    job.n = out;
    igpt__run_rows(s, igpt__bias_task, &job);
  }
}

/* logits (rows,V) = x (rows,C) lm_head^T, lm_head (V,C) */
static void igpt__logits(igpt_session *s, float *logits, const float *x, size_t rows, int decode)
{
  const igpt__narrow *narrow = igpt__copies(s, decode, s->L);
  if (narrow) igpt__narrow_product(&s->math, logits, x, narrow, rows, 0);
  else
    igpt__matmul(&s->math, logits, s->V, x, s->C, 1, s->model->weights.lm_head, 1, s->C, rows, s->V,
                 s->C, 0);
}

/* What is done of a call: `first` of `total` before the pass that begins, which is `count` of them,
   and then n of its m layers. */
static void igpt__stage(igpt_session *s, size_t first, size_t count, size_t total)
{
  s->done = s->stage = (double)first / (double)total;
  s->share = (double)count / (double)total;
}

static void igpt__reach(igpt_session *s, size_t n, size_t m)
{
  s->done = s->stage + s->share * ((double)n / (double)m);
}

static int igpt__poll(const igpt_session *s) { return igpt__stopped(&s->desc.watch, s->done); }

/* Copies what the model's weights are now. Where a call begins, since they may have been trained
   meanwhile; a picture that is being decoded goes on with those of its beginning. */
static igpt_result igpt__refresh(igpt_session *s, int decode)
{
  const igpt__math *math = &s->math;
  size_t l;
  if (!decode) s->done = 0;
  if (!igpt__copies(s, decode, 0)) return IGPT_OK;
  for (l = 0; l < s->L; l++) {
    const igpt__block_tensors *w = &s->model->weights.block[l];
    const igpt__narrow *to = s->narrow + 4 * l;
    igpt__narrow_fill(math, &to[0], w->c_attn, 3 * s->C, 1);
    igpt__narrow_fill(math, &to[1], w->c_proj, s->C, 1);
    igpt__narrow_fill(math, &to[2], w->c_fc, 4 * s->C, 1);
    igpt__narrow_fill(math, &to[3], w->m_proj, s->C, 1);
    if (igpt__poll(s)) return IGPT_CANCELLED;
  }
  igpt__narrow_fill(math, &s->narrow[4 * s->L], s->model->weights.lm_head, 1, s->C);
  return IGPT_OK;
}

#ifndef IGPT_NO_TRAIN
/* A task takes 64 columns of all rows, in the order of the rows. */
static void igpt__bias_backward_task(void *arg, size_t index, int worker)
{
  const igpt__rows_job *job = (const igpt__rows_job *)arg;
  const size_t first = index * 64, columns = igpt__min_size(64, job->n - first);
  size_t i;
  (void)worker;
  for (i = 0; i < job->rows; i++)
    job->kernels->add(job->y + first, job->dy + i * job->n + first, columns);
}

/* With y = x w + bias:  dx (rows,in) = dy (rows,out) w^T,   dw (in,out) += x^T dy,
   dbias (out) += sum over rows of dy, if there is one */
static void igpt__linear_backward(igpt_session *s, float *dx, float *dw, float *dbias,
                                  const float *dy, const float *x, const float *w, size_t rows,
                                  size_t in, size_t out)
{
  if (dbias) {
    igpt__rows_job job = igpt__job(s, dbias, NULL, rows);
    job.n = out;
    job.dy = dy;
    igpt__run(&s->math.runner, igpt__bias_backward_task, &job, igpt__divide_up(out, 64));
  }
  igpt__matmul(&s->math, dw, out, x, 1, in, dy, out, 1, in, out, rows, 1);
  if (dx) igpt__matmul(&s->math, dx, in, dy, out, 1, w, 1, out, rows, in, out, 0);
}

/* With y = x w^T:  dx (rows,in) = dy w,   dw (out,in) += dy^T x */
static void igpt__linear_transposed_backward(igpt_session *s, float *dx, float *dw, const float *dy,
                                             const float *x, const float *w, size_t rows, size_t in,
                                             size_t out)
{
  igpt__matmul(&s->math, dw, in, dy, 1, out, x, in, 1, out, in, rows, 1);
  igpt__matmul(&s->math, dx, in, dy, out, 1, w, in, 1, rows, in, out, 0);
}
#endif

/* ---- a pass ---------------------------------------------------------------------------------- */

/* What a pass over at most B pictures looks at, and what it is asked to note on its way. */
typedef struct igpt__pass {
  const uint16_t *tokens;         /* (count,stride) */
  const uint8_t  *mask;           /* (count,T), or null */
  const uint16_t *shown;          /* (count,T), or null */
  size_t count, stride;           /* pictures; tokens from one picture to the next */
  size_t first, positions;        /* computes positions [first, first + positions) of each */
  int    keep;                    /* activations are kept for a backward */
  int    decode;                  /* one position, attending to the cache */
  int    cache;                   /* keys and values go to the cache */
  const int *depths;              /* features wanted (igpt_features) ... */
  size_t depth_count;
  float *features;                /* ... (count, depth_count, C) */
  float *map;                     /* attention map wanted, (count,T,T), of ... */
  int    map_layer, map_head;
} igpt__pass;

static igpt__pass igpt__whole_pass(igpt_session *s, const igpt_batch *batch, size_t first)
{
  igpt__pass pass;
  memset(&pass, 0, sizeof pass);
  pass.tokens = batch->tokens + first * s->T;
  pass.mask = batch->mask ? batch->mask + first * s->T : NULL;
  pass.shown = batch->shown ? batch->shown + first * s->T : NULL;
  pass.count = igpt__min_size(s->B, batch->count - first);
  pass.stride = pass.positions = s->T;
  pass.map_layer = -1;
  igpt__stage(s, first, pass.count, batch->count);
  return pass;
}

/* The activations that block l of a pass writes. */
static igpt__activations igpt__set(const igpt_session *s, const igpt__pass *pass, size_t l)
{
  igpt__activations set;
  if (pass->keep) return s->layer[l];
  if (s->math.tiles && pass->decode) return s->tile.few;
  set = s->layer[0];
  set.middle = set.x;
  set.lse = NULL;
  return set;
}

/* BERT: what is seen at position i of a picture; null: nothing */
static const uint16_t *igpt__seen(const igpt_session *s, const igpt__pass *pass, size_t picture,
                                  size_t i)
{
  const size_t at = picture * s->T + i;
  if (!pass->mask || !pass->mask[at]) return pass->tokens + picture * pass->stride + i;
  return pass->shown ? pass->shown + at : NULL;
}

typedef struct igpt__embed_job {
  const igpt_session *s;
  const igpt__pass *pass;
  float *x;
} igpt__embed_job;

static void igpt__embed_task(void *arg, size_t index, int worker)
{
  const igpt__embed_job *job = (const igpt__embed_job *)arg;
  const igpt_session *s = job->s;
  const igpt__pass *pass = job->pass;
  const igpt__tensors *w = &s->model->weights;
  const size_t C = s->C, rows = pass->count * pass->positions;
  size_t row;
  (void)worker;
  for (row = index * IGPT__ROWS; row < rows && row < (index + 1) * IGPT__ROWS; row++) {
    const size_t picture = row / pass->positions, i = pass->first + row % pass->positions;
    const uint16_t *tokens = pass->tokens + picture * pass->stride;
    float *x = job->x + row * C;
    memcpy(x, w->wpe + i * C, C * sizeof *x);
    if (s->model->config.objective == IGPT_BERT) {
      const uint16_t *seen = igpt__seen(s, pass, picture, i);
      if (seen) s->math.kernels->add(x, w->wte + *seen * C, C);
    } else {
      const size_t seen = i == 0 ? s->V : pass->decode ? tokens[0] : tokens[i - 1];
      s->math.kernels->add(x, w->wte + seen * C, C);
    }
  }
}

/* x (rows,C), by the formula at the head of this part */
static void igpt__embed(const igpt_session *s, float *x, const igpt__pass *pass)
{
  igpt__embed_job job;
  job.s = s;
  job.pass = pass;
  job.x = x;
  igpt__run(&s->math.runner, igpt__embed_task, &job,
            igpt__divide_up(pass->count * pass->positions, IGPT__ROWS));
}

/* pooled[b,c] = mean over i of y[b,i,c]; pictures lie `stride` floats apart in `pooled` */
static void igpt__pool_positions(const igpt_session *s, float *pooled, size_t stride,
                                 const float *y, size_t count)
{
  size_t b, i;
  for (b = 0; b < count; b++) {
    float *to = pooled + b * stride;
    memset(to, 0, s->C * sizeof *to);
    for (i = 0; i < s->T; i++) s->math.kernels->add(to, y + (b * s->T + i) * s->C, s->C);
    s->math.kernels->scale(to, 1 / (float)s->T, s->C);
  }
}

/* The normed stream of depth l goes to every place where it was asked for. */
static void igpt__note_features(const igpt_session *s, const igpt__pass *pass, size_t l)
{
  size_t j;
  for (j = 0; j < pass->depth_count; j++)
    if (pass->depths[j] == (int)l)
      igpt__pool_positions(s, pass->features + j * s->C, pass->depth_count * s->C, s->normed,
                           pass->count);
}

/* Block l, from the stream x of its set to f: all that its backward asks for. 1: the watch asked to
   stop. */
static int igpt__block_activations(igpt_session *s, const igpt__pass *pass, size_t l)
{
  const igpt__block_tensors *w = &s->model->weights.block[l];
  const igpt__activations a = igpt__set(s, pass, l);
  const size_t C = s->C, H = s->H, E = C / H, n = pass->positions, rows = pass->count * n;
  const int causal = s->model->config.objective == IGPT_AR;
  const igpt__narrow *copy = igpt__copies(s, pass->decode, l);
  char *cache = s->cache ? s->cache + l * s->B * s->cache_bytes : NULL;

  igpt__norm(s, s->normed, a.r_1, a.x, w->ln_1, rows);                          /* (R,C) */
  if (pass->depths) igpt__note_features(s, pass, l);
  igpt__linear(s, a.qkv, s->normed, w->c_attn, w->c_attn_b, copy, rows, C, 3 * C,
               0);                                                              /* (R,3C) */
  if (igpt__poll(s)) return 1;
  if (pass->map_layer == (int)l)
    igpt__attention_map(&s->math, pass->map, a.qkv, pass->count, n, H, E, causal,
                        (size_t)pass->map_head);
  if (pass->cache && !pass->decode)
    igpt__cache_store(&s->math, cache, a.qkv, pass->count, n, s->T, H, E);
  if (pass->decode)
    igpt__attention_decode(&s->math, a.attended, a.qkv, cache, pass->count, pass->first, s->T, H,
                           E);
  else
    igpt__attention_forward(&s->math, a.attended, a.lse, a.qkv, pass->count, n, H, E, causal);
  if (igpt__poll(s)) return 1;
  if (a.middle != a.x) memcpy(a.middle, a.x, rows * C * sizeof(float));
  igpt__linear(s, a.middle, a.attended, w->c_proj, w->c_proj_b, copy ? copy + 1 : NULL, rows, C, C,
               1);                                                              /* (R,C) */

  igpt__norm(s, s->normed, a.r_2, a.middle, w->ln_2, rows);                     /* (R,C) */
  igpt__linear(s, a.f, s->normed, w->c_fc, w->c_fc_b, copy ? copy + 2 : NULL, rows, C, 4 * C,
               0);                                                              /* (R,4C) */
  return igpt__poll(s);
}

/* The whole block, to the stream of the next set. */
static int igpt__block_forward(igpt_session *s, const igpt__pass *pass, size_t l)
{
  const igpt__activations a = igpt__set(s, pass, l), next = igpt__set(s, pass, l + 1);
  const igpt__block_tensors *w = &s->model->weights.block[l];
  const igpt__narrow *copy = igpt__copies(s, pass->decode, l);
  const size_t C = s->C, rows = pass->count * pass->positions;
  if (igpt__block_activations(s, pass, l)) return 1;
  igpt__gelu(s, s->wide, NULL, a.f, rows * 4 * C);
  if (next.x != a.middle) memcpy(next.x, a.middle, rows * C * sizeof(float));
  igpt__linear(s, next.x, s->wide, w->m_proj, w->m_proj_b, copy ? copy + 3 : NULL, rows, 4 * C, C,
               1);                                                              /* (R,C) */
  return igpt__poll(s);
}

/* ---- a block on tiles -------------------------------------------------------------------------

   The formulas are those of igpt__block_forward and igpt__block_backward, the order is another.
   Activations are bfloat16, in rows that tiles read where they lie. Up to 256 rows go in one task
   from attention to the end of the block, and in another from there to the next q, k and v: what a
   norm, GELU or a product leaves for the next product stays in the second cache, and elements are
   worked on where their sums come out of the tiles.
   A block's weights are packed once a pass for all rows, ever again into the same place, which is
   no slower than reading them from a copy that is kept.

   The gradient of a matrix needs its input turned, rows along k: whoever has such rows at hand
   leaves them so packed. Of the gradients on the other side, pairs of rows are woven as they are
   read.                                                                                         */

typedef struct igpt__tile_job {
  igpt_session *s;
  const igpt__pass *pass;
  const igpt__block_tensors *w, *g;
  igpt__activations a;            /* of the block */
  float *x;                       /* the stream that leaves it */
  size_t rows, share;             /* in all; of a task */
  uint16_t *packed[4];            /* c_attn, c_proj, c_fc, m_proj, or these transposed */
  int    transposed;
} igpt__tile_job;

/* One of the four matrices, (in,out) */
static float *igpt__matrix(const igpt__block_tensors *of, size_t q, size_t C, size_t *in,
                           size_t *out)
{
  *in = q == 3 ? 4 * C : C;
  *out = q == 0 ? 3 * C : q == 2 ? 4 * C : C;
  return q == 0 ? of->c_attn : q == 1 ? of->c_proj : q == 2 ? of->c_fc : of->m_proj;
}

static void igpt__tile_pack_task(void *arg, size_t index, int worker)
{
  const igpt__tile_job *job = (const igpt__tile_job *)arg;
  size_t q = 0, in, out, lanes, k, first;
  const float *w;
  (void)worker;
  for (;; q++) {
    w = igpt__matrix(job->w, q, job->s->C, &in, &out);
    lanes = job->transposed ? in : out;
    if (index < igpt__divide_up(lanes, IGPT__TILE_LANES)) break;
    index -= igpt__divide_up(lanes, IGPT__TILE_LANES);
  }
  k = job->transposed ? out : in;
  first = index * IGPT__TILE_LANES;
  job->s->math.tiles->pack(job->packed[q] + igpt__panels(first, k),
                         w + first * (job->transposed ? out : 1), job->transposed ? out : 1,
                         job->transposed ? 1 : out, igpt__min_size(IGPT__TILE_LANES, lanes - first),
                         k, 1);
}

/* Rows of a task: as many as give every worker some, in whole tasks of row-wise work */
static size_t igpt__tile_share(size_t rows, size_t workers)
{
  const size_t each = igpt__divide_up(rows, workers == 1 ? 1 : 4 * workers);
  return igpt__min_size(igpt__size_round(each, IGPT__ROWS), IGPT__TILE_ROWS);
}

/* A job whose weights are packed */
static igpt__tile_job igpt__tile_begin(igpt_session *s, const igpt__pass *pass, size_t l,
                                       int transposed)
{
  igpt__tile_job job;
  uint16_t *to = (uint16_t *)(void *)s->math.shared;
  size_t q, in, out, tasks = 0;
  memset(&job, 0, sizeof job);
  job.s = s;
  job.pass = pass;
  job.w = &s->model->weights.block[l];
  job.a = igpt__set(s, pass, l);
  job.x = igpt__set(s, pass, l + 1).x;
  job.rows = pass->count * pass->positions;
  job.share = igpt__tile_share(job.rows, (size_t)igpt__workers(&s->math.runner));
  job.transposed = transposed;
  for (q = 0; q < 4; q++) {
    igpt__matrix(job.w, q, s->C, &in, &out);
    job.packed[q] = to;
    to += transposed ? igpt__panels(in, out) : igpt__panels(out, in);
    tasks += igpt__divide_up(transposed ? in : out, IGPT__TILE_LANES);
  }
  igpt__run(&s->math.runner, igpt__tile_pack_task, &job, tasks);
  return job;
}

static void igpt__tile_run(igpt__tile_job *job, igpt_task *task)
{
  igpt__run(&job->s->math.runner, task, job, igpt__divide_up(job->rows, job->share));
}

/* Normed rows in bfloat16, through one row of floats */
static void igpt__tile_norm(const igpt_session *s, uint16_t *to, float *row, float *r,
                            const float *x, const float *gain, size_t rows)
{
  const size_t C = s->C, ld = igpt__row(C);
  size_t i;
  for (i = 0; i < rows; i++, to += ld) {
    const float one = s->math.kernels->norm(row, x + i * C, gain, s->model->config.norm_epsilon, C);
    if (r) r[i] = one;
    s->math.kernels->halve(to, row, C);
    memset(to + C, 0, (igpt__size_round(C, IGPT__PANEL) - C) * sizeof *to);
  }
}

/* qkv = norm(x; ln_1) c_attn */
static void igpt__tile_qkv_task(void *arg, size_t index, int worker)
{
  const igpt__tile_job *job = (const igpt__tile_job *)arg;
  const igpt_session *s = job->s;
  const size_t first = index * job->share, C = s->C;
  const size_t rows = igpt__min_size(job->share, job->rows - first);
  uint16_t *n = (uint16_t *)(void *)igpt__worker(&s->math, worker);
  float *row = (float *)(void *)(n + IGPT__TILE_ROWS * igpt__row(C));
  igpt__tiled product = igpt__tiled_of(rows, 3 * C, C, n, igpt__row(C), job->packed[0],
                                       IGPT__TO_HALVES);
  igpt__tile_norm(s, n, row, job->a.r_1 + first, job->a.x + first * C, job->w->ln_1, rows);
  product.ldh = igpt__row(3 * C);
  product.h = job->a.qkv_h + first * product.ldh;
  s->math.tiles->multiply(&product);
}

/* middle = x + attended c_proj, f = norm(middle; ln_2) c_fc, and, if there is a place for the
   stream, x = middle + gelu(f) m_proj */
static void igpt__tile_mlp_task(void *arg, size_t index, int worker)
{
  const igpt__tile_job *job = (const igpt__tile_job *)arg;
  const igpt_session *s = job->s;
  const size_t first = index * job->share, C = s->C, ld = igpt__row(C), wide = igpt__row(4 * C);
  const size_t rows = igpt__min_size(job->share, job->rows - first);
  uint16_t *n = (uint16_t *)(void *)igpt__worker(&s->math, worker), *g = n + IGPT__TILE_ROWS * ld;
  float *row = (float *)(void *)(g + IGPT__TILE_ROWS * wide), *middle = job->a.middle + first * C;
  igpt__tiled product = igpt__tiled_of(rows, C, C, job->a.attended_h + first * ld, ld,
                                       job->packed[1], IGPT__TO_FLOATS);
  size_t i;
  for (i = 0; i < rows; i++)      /* keys and values may have lain there, and NaN times 0 is NaN */
    memset(job->a.attended_h + (first + i) * ld + C, 0, 2 * (igpt__size_round(C, IGPT__PANEL) - C));
  product.c = middle;
  product.plus = job->a.x + first * C;
  product.ldc = C;
  s->math.tiles->multiply(&product);
  igpt__tile_norm(s, n, row, job->a.r_2 + first, middle, job->w->ln_2, rows);
  product = igpt__tiled_of(rows, 4 * C, C, n, ld, job->packed[2], IGPT__TO_GELU);
  product.h = job->a.f_h ? job->a.f_h + first * wide : g;
  product.g = g;
  product.ldh = product.ldg = wide;
  s->math.tiles->multiply(&product);
  if (!job->x) return;
  product = igpt__tiled_of(rows, C, 4 * C, g, wide, job->packed[3], IGPT__TO_FLOATS);
  product.c = job->x + first * C;
  product.plus = middle;
  product.ldc = C;
  s->math.tiles->multiply(&product);
}

static igpt__heads igpt__heads_of(const igpt_session *s, const igpt__pass *pass,
                                  const igpt__activations *a)
{
  igpt__heads heads;
  memset(&heads, 0, sizeof heads);
  heads.math = &s->math;
  heads.qkv = a->qkv_h;
  heads.out = a->attended_h;
  heads.lse = a->lse;
  heads.B = pass->count;
  heads.T = pass->positions;
  heads.H = s->H;
  heads.E = s->C / s->H;
  heads.ld = igpt__row(s->C);
  heads.ld3 = igpt__row(3 * s->C);
  heads.causal = s->model->config.objective == IGPT_AR;
  return heads;
}

/* Queries, keys and values as floats, of one picture at a time, for those who take them so */
static void igpt__tile_note(igpt_session *s, const igpt__pass *pass, size_t l,
                            const igpt__activations *a)
{
  const size_t n = pass->positions, C3 = 3 * s->C, E = s->C / s->H;
  float *qkv = s->tile.few.qkv;
  size_t b, i, c;
  for (b = 0; b < pass->count; b++) {
    for (i = 0; i < n; i++)
      for (c = 0; c < C3; c++)
        qkv[i * C3 + c] = igpt__widen(a->qkv_h[(b * n + i) * igpt__row(C3) + c]);
    if (pass->map_layer == (int)l)
      igpt__attention_map(&s->math, pass->map + b * n * n, qkv, 1, n, s->H, E,
                          s->model->config.objective == IGPT_AR, (size_t)pass->map_head);
    if (pass->cache)
      igpt__cache_store(&s->math, s->cache + (l * s->B + b) * s->cache_bytes, qkv, 1, n, s->T,
                        s->H, E);
  }
}

/* With stream 0 no further than f */
static int igpt__tile_forward(igpt_session *s, const igpt__pass *pass, size_t l, int stream)
{
  igpt__tile_job job = igpt__tile_begin(s, pass, l, 0);
  igpt__heads heads = igpt__heads_of(s, pass, &job.a);
  if (!stream) job.x = NULL;
  if (pass->depths) {
    igpt__norm(s, s->normed, NULL, job.a.x, job.w->ln_1, job.rows);
    igpt__note_features(s, pass, l);
  }
  igpt__tile_run(&job, igpt__tile_qkv_task);
  if (igpt__poll(s)) return 1;
  if (pass->cache || pass->map_layer == (int)l) igpt__tile_note(s, pass, l, &job.a);
  igpt__heads_forward(&heads);
  if (igpt__poll(s)) return 1;
  igpt__tile_run(&job, igpt__tile_mlp_task);
  return igpt__poll(s);
}

/* Embedding and all blocks, then the last norm: s->normed (rows,C). Ends early when the features
   wanted are all noted. */
static igpt_result igpt__forward_stream(igpt_session *s, const igpt__pass *pass)
{
  size_t l, deepest = s->L, j;
  if (pass->depths)
    for (deepest = 0, j = 0; j < pass->depth_count; j++)
      deepest = igpt__max_size(deepest, (size_t)pass->depths[j]);
  igpt__embed(s, igpt__set(s, pass, 0).x, pass);
  for (l = 0; l < s->L; l++) {
    igpt__reach(s, l, s->L + 1);
    if (pass->depths && l == deepest) {
      igpt__norm(s, s->normed, NULL, igpt__set(s, pass, l).x, s->model->weights.block[l].ln_1,
                 pass->count * pass->positions);
      igpt__note_features(s, pass, l);
      return igpt__poll(s) ? IGPT_CANCELLED : IGPT_OK;
    }
    if (s->math.tiles && !pass->decode ? igpt__tile_forward(s, pass, l, 1)
                                     : igpt__block_forward(s, pass, l)) return IGPT_CANCELLED;
  }
  igpt__reach(s, s->L, s->L + 1);
  igpt__norm(s, s->normed, NULL, igpt__set(s, pass, s->L).x, s->model->weights.ln_f,
             pass->count * pass->positions);
  if (pass->depths) igpt__note_features(s, pass, s->L);
  return IGPT_OK;
}

#ifndef IGPT_NO_TRAIN
/* Given dx = dL/d layer[l + 1].x in s->dx, adds the gradients of block l's weights, and turns s->dx
   into dL/d layer[l].x. Read igpt__block_forward from its end to its beginning: */
static int igpt__block_backward(igpt_session *s, const igpt__pass *pass, size_t l)
{
  const igpt__block_tensors *w = &s->model->weights.block[l], *g = &s->gradients.block[l];
  const igpt__activations *a = &s->layer[l];
  const size_t C = s->C, H = s->H, count = pass->count, rows = count * s->T;
  const int causal = s->model->config.objective == IGPT_AR;
  float *dx = s->dx, *dy = s->dy, *wide = s->wide;

  /* the last block's activations are still there */
  if (s->desc.recompute && l + 1 < s->L && igpt__block_activations(s, pass, l)) return 1;

  /* out = middle + gelu(f) m_proj; gelu(f) was not kept: it is cheaper to compute again */
  igpt__gelu(s, wide, NULL, a->f, rows * 4 * C);
  igpt__linear_backward(s, NULL, g->m_proj, g->m_proj_b, dx, wide, w->m_proj, rows, 4 * C, C);
  if (igpt__poll(s)) return 1;
  igpt__matmul(&s->math, wide, 4 * C, dx, C, 1, w->m_proj, 1, C, rows, 4 * C, C, 0);  /* d gelu */
  if (igpt__poll(s)) return 1;
  igpt__gelu(s, wide, wide, a->f, rows * 4 * C);                                      /* d f */

  /* f = norm(middle; ln_2) c_fc */
  igpt__norm(s, s->normed, NULL, a->middle, w->ln_2, rows);
  igpt__linear_backward(s, dy, g->c_fc, g->c_fc_b, wide, s->normed, w->c_fc, rows, C, 4 * C);
  igpt__norm_backward(s, dx, g->ln_2, dy, a->middle, a->r_2, w->ln_2, rows);
  if (igpt__poll(s)) return 1;

  /* middle = x + attended c_proj */
  igpt__linear_backward(s, dy, g->c_proj, g->c_proj_b, dx, a->attended, w->c_proj, rows, C, C);
  igpt__attention_backward(&s->math, wide, dy, a->attended, a->qkv, a->lse, count, s->T, H, C / H,
                           causal);                                                   /* d qkv */
  if (igpt__poll(s)) return 1;

  /* qkv = norm(x; ln_1) c_attn */
  igpt__norm(s, s->normed, NULL, a->x, w->ln_1, rows);
  igpt__linear_backward(s, dy, g->c_attn, g->c_attn_b, wide, s->normed, w->c_attn, rows, C, 3 * C);
  igpt__norm_backward(s, dx, g->ln_1, dy, a->x, a->r_1, w->ln_1, rows);
  return igpt__poll(s);
}

/* The same on tiles. The gradients on the stream are floats, in s->dx, and rounded for products in
   tile.dx: [0] what enters the block from above, [1] between its halves, [2] what leaves it. */

/* Rows (rows,C) packed as lanes, to their place among all rows */
static void igpt__tile_turn(const igpt_session *s, size_t q, const uint16_t *from, size_t first,
                            size_t rows)
{
  const size_t all = igpt__size_round(s->R, IGPT__PANEL), ld = igpt__row(s->C);
  size_t c;
  for (c = 0; c < s->C; c += IGPT__PANEL)
    s->math.tiles->fold(s->tile.turned[q] + c * all + first * IGPT__PANEL, from + c, 1, ld,
                      igpt__min_size(IGPT__PANEL, s->C - c), rows, 0);
}

/* The backward of norm for rows from `first`, whose gradient is dy (rows,C); their new dx is
   rounded to `to`. */
static void igpt__tile_norm_backward(const igpt_session *s, uint16_t *to, const float *dy,
                                     const float *x, const float *r, const float *gain,
                                     size_t first, size_t rows)
{
  const size_t C = s->C, ld = igpt__row(C);
  size_t i, row;
  for (i = 0; i < rows; i++) {
    float *dgain = s->dgain + (first + i) / IGPT__ROWS * C;
    row = first + i;
    if (row % IGPT__ROWS == 0) memset(dgain, 0, C * sizeof *dgain);
    s->math.kernels->norm_backward(s->dx + row * C, dgain, dy + i * C, x + row * C, gain, r[row],
                                   C);
    s->math.kernels->halve(to + row * ld, s->dx + row * C, C);
  }
}

/* From the gradient above the block to that of what attention gave */
static void igpt__tile_mlp_backward_task(void *arg, size_t index, int worker)
{
  const igpt__tile_job *job = (const igpt__tile_job *)arg;
  const igpt_session *s = job->s;
  const size_t first = index * job->share, C = s->C, ld = igpt__row(C), wide = igpt__row(4 * C);
  const size_t rows = igpt__min_size(job->share, job->rows - first);
  const size_t all = igpt__size_round(s->R, IGPT__PANEL);
  uint16_t *n = (uint16_t *)(void *)igpt__worker(&s->math, worker);
  float *dy = (float *)(void *)(n + IGPT__TILE_ROWS * ld), *row = dy + IGPT__TILE_ROWS * C;
  igpt__tiled product = igpt__tiled_of(rows, 4 * C, C, s->tile.dx[0] + first * ld, ld,
                                       job->packed[3], IGPT__FROM_GELU);
  product.h = s->tile.df + first * wide;                                                /* d f */
  product.g = job->a.f_h + first * wide;
  product.ldh = product.ldg = wide;
  product.turned = s->tile.turned[3] + first * IGPT__PANEL;
  product.turned_panel = IGPT__PANEL * all;
  s->math.tiles->multiply(&product);
  igpt__tile_norm(s, n, row, NULL, job->a.middle + first * C, job->w->ln_2, rows);
  igpt__tile_turn(s, 2, n, first, rows);
  igpt__tile_turn(s, 1, job->a.attended_h + first * ld, first, rows);
  product = igpt__tiled_of(rows, C, 4 * C, s->tile.df + first * wide, wide, job->packed[2],
                           IGPT__TO_FLOATS);
  product.c = dy;
  product.ldc = C;
  s->math.tiles->multiply(&product);
  igpt__tile_norm_backward(s, s->tile.dx[1], dy, job->a.middle, job->a.r_2, job->w->ln_2, first,
                           rows);
  product = igpt__tiled_of(rows, C, C, s->tile.dx[1] + first * ld, ld, job->packed[1],
                           IGPT__TO_HALVES);
  product.h = s->tile.dattended + first * ld;
  product.ldh = ld;
  s->math.tiles->multiply(&product);
}

/* From the gradient of queries, keys and values to that below the block */
static void igpt__tile_qkv_backward_task(void *arg, size_t index, int worker)
{
  const igpt__tile_job *job = (const igpt__tile_job *)arg;
  const igpt_session *s = job->s;
  const size_t first = index * job->share, C = s->C, ld = igpt__row(C);
  const size_t rows = igpt__min_size(job->share, job->rows - first), ld3 = igpt__row(3 * C);
  uint16_t *n = (uint16_t *)(void *)igpt__worker(&s->math, worker);
  float *dy = (float *)(void *)(n + IGPT__TILE_ROWS * ld), *row = dy + IGPT__TILE_ROWS * C;
  igpt__tiled product = igpt__tiled_of(rows, C, 3 * C, s->tile.dqkv + first * ld3, ld3,
                                       job->packed[0], IGPT__TO_FLOATS);
  product.c = dy;
  product.ldc = C;
  s->math.tiles->multiply(&product);
  igpt__tile_norm(s, n, row, NULL, job->a.x + first * C, job->w->ln_1, rows);
  igpt__tile_turn(s, 0, n, first, rows);
  igpt__tile_norm_backward(s, s->tile.dx[2], dy, job->a.x, job->a.r_1, job->w->ln_1, first, rows);
}

/* A gradient (in,out) is cut into blocks of up to 512 lanes of X by 128 columns of dY: a block's
   lanes, ... */
static size_t igpt__tile_tall(size_t in) { return igpt__min_size(in, 512); }

/* ... and their number */
static size_t igpt__tile_blocks(size_t in, size_t out)
{
  return igpt__divide_up(in, igpt__tile_tall(in)) * igpt__divide_up(out, IGPT__TILE_LANES);
}

/* g (in,out) += X^T dY, a block of it: X is turned and packed, with `all` rows as k; rows of dY are
   woven here, in the order in which they lie. */
static void igpt__tile_gradient(const igpt__math *math, float *g, const uint16_t *turned,
                                size_t all, const uint16_t *dy, size_t in, size_t out, size_t rows,
                                size_t block, int worker)
{
  const size_t tall = igpt__tile_tall(in), across = igpt__divide_up(out, IGPT__TILE_LANES);
  const size_t i = block / across * tall, j = block % across * IGPT__TILE_LANES;
  const size_t columns = igpt__min_size(IGPT__TILE_LANES, out - j), ld = igpt__row(out);
  uint16_t *b = (uint16_t *)(void *)igpt__worker(math, worker);
  size_t row;
  for (row = 0; row < rows; row += IGPT__TILE_DEPTH) {
    const size_t depth = igpt__min_size(IGPT__TILE_DEPTH, rows - row);
    igpt__tiled product = igpt__tiled_of(igpt__min_size(tall, in - i), columns, depth,
                                         turned + i * all + row * IGPT__PANEL, 0, b,
                                         IGPT__TO_FLOATS);
    math->tiles->fold(b, dy + row * ld + j, 1, ld, columns, depth, 1);
    product.a_panel = IGPT__PANEL * all;
    product.c = g + i * out + j;
    product.plus = product.c;
    product.ldc = out;
    math->tiles->multiply(&product);
  }
}

static void igpt__tile_gradient_task(void *arg, size_t index, int worker)
{
  const igpt__tile_job *job = (const igpt__tile_job *)arg;
  const igpt_session *s = job->s;
  const uint16_t *const from[4] = { s->tile.dqkv, s->tile.dx[1], s->tile.df, s->tile.dx[0] };
  size_t q, in, out;
  float *g;
  for (q = 0;; q++) {
    g = igpt__matrix(job->g, q, s->C, &in, &out);
    if (index < igpt__tile_blocks(in, out)) break;
    index -= igpt__tile_blocks(in, out);
  }
  igpt__tile_gradient(&s->math, g, s->tile.turned[q], igpt__size_round(s->R, IGPT__PANEL), from[q],
                      in, out, job->rows, index, worker);
}

static int igpt__tile_backward(igpt_session *s, const igpt__pass *pass, size_t l)
{
  const igpt__block_tensors *g = &s->gradients.block[l];
  igpt__tile_job job;
  igpt__heads heads;
  uint16_t *below;
  size_t q, in, out, tasks = 0, i;
  if (s->desc.recompute && l + 1 < s->L && igpt__tile_forward(s, pass, l, 0)) return 1;
  job = igpt__tile_begin(s, pass, l, 1);
  job.g = g;
  igpt__tile_run(&job, igpt__tile_mlp_backward_task);
  for (i = 0; i < job.rows; i += IGPT__ROWS)
    s->math.kernels->add(g->ln_2, s->dgain + i / IGPT__ROWS * s->C, s->C);
  if (igpt__poll(s)) return 1;
  heads = igpt__heads_of(s, pass, &job.a);
  heads.dout = s->tile.dattended;
  heads.dqkv = s->tile.dqkv;
  igpt__heads_backward(&heads);
  if (igpt__poll(s)) return 1;
  igpt__tile_run(&job, igpt__tile_qkv_backward_task);
  for (i = 0; i < job.rows; i += IGPT__ROWS)
    s->math.kernels->add(g->ln_1, s->dgain + i / IGPT__ROWS * s->C, s->C);
  if (igpt__poll(s)) return 1;
  for (q = 0; q < 4; q++) {
    igpt__matrix(g, q, s->C, &in, &out);
    tasks += igpt__tile_blocks(in, out);
  }
  igpt__run(&s->math.runner, igpt__tile_gradient_task, &job, tasks);
  below = s->tile.dx[2];
  s->tile.dx[2] = s->tile.dx[0];
  s->tile.dx[0] = below;
  return igpt__poll(s);
}

static void igpt__tile_round_task(void *arg, size_t index, int worker)
{
  igpt_session *s = (igpt_session *)arg;
  size_t row;
  (void)worker;
  for (row = index * IGPT__ROWS; row < s->R && row < (index + 1) * IGPT__ROWS; row++)
    s->math.kernels->halve(s->tile.dx[0] + row * igpt__row(s->C), s->dx + row * s->C, s->C);
}

/* A task takes 64 columns of all rows, in the order of the rows: many rows add to one row of
   wte. */
static void igpt__embed_backward_task(void *arg, size_t index, int worker)
{
  const igpt__embed_job *job = (const igpt__embed_job *)arg;
  const igpt_session *s = job->s;
  const igpt__pass *pass = job->pass;
  const size_t C = s->C, first = index * 64, n = igpt__min_size(64, C - first);
  size_t b, i;
  (void)worker;
  for (b = 0; b < pass->count; b++)
    for (i = 0; i < s->T; i++) {
      const float *dx = job->x + (b * s->T + i) * C + first;
      const uint16_t *tokens = pass->tokens + b * s->T;
      s->math.kernels->add(s->gradients.wpe + i * C + first, dx, n);
      if (s->model->config.objective == IGPT_AR) {
        const size_t seen = i == 0 ? s->V : tokens[i - 1];
        s->math.kernels->add(s->gradients.wte + seen * C + first, dx, n);
      } else {
        const uint16_t *seen = igpt__seen(s, pass, b, i);
        if (seen) s->math.kernels->add(s->gradients.wte + *seen * C + first, dx, n);
      }
    }
}

/* x[i] = wte[seen] + wpe[i], so both rows get dx[i] */
static void igpt__embed_backward(const igpt_session *s, float *dx, const igpt__pass *pass)
{
  igpt__embed_job job;
  job.s = s;
  job.pass = pass;
  job.x = dx;
  igpt__run(&s->math.runner, igpt__embed_backward_task, &job, igpt__divide_up(s->C, 64));
}
#endif

/* ---- the pixel loss -------------------------------------------------------------------------- */

/* nats[i] = log(sum over v of exp(z[i,v])) - z[i,target],  and then, where a gradient is wanted,
   dz[i,v] = weight[i] (softmax(z[i])[v] - (v == target)),  which replaces z. */
typedef struct igpt__loss_job {
  const igpt_kernels *kernels;
  float *logits;                  /* (rows,V) */
  const uint16_t *targets;        /* (rows) */
  const float *weight;            /* (rows), or null: no gradient */
  float *nats;                    /* (rows) */
  size_t rows, V;
} igpt__loss_job;

static void igpt__loss_task(void *arg, size_t index, int worker)
{
  const igpt__loss_job *job = (const igpt__loss_job *)arg;
  const size_t V = job->V;
  size_t i;
  (void)worker;
  for (i = index * 16; i < job->rows && i < (index + 1) * 16; i++) {
    float *z = job->logits + i * V;
    const float target = z[job->targets[i]], most = job->kernels->maximum(z, V);
    const float sum = job->kernels->exp_sum(job->weight ? z : NULL, z, 1, most, V);
    job->nats[i] = (float)(log((double)sum) + (double)most - (double)target);
    if (job->weight) {
      job->kernels->scale(z, job->weight[i] / sum, V);
      z[job->targets[i]] -= job->weight[i];
    }
  }
}

/* s->nats (rows) from s->normed (rows,C), a chunk of rows at a time, so that the logits of a whole
   batch never exist. With weight (rows): also dL/d normed into s->dy, and lm_head's gradient. */
static igpt_result igpt__head_loss(igpt_session *s, const uint16_t *targets, const float *weight,
                                   size_t rows)
{
  size_t first;
  for (first = 0; first < rows; first += IGPT__LOGIT_ROWS) {
    const float *normed = s->normed + first * s->C;
    igpt__loss_job job;
    job.kernels = s->math.kernels;
    job.logits = s->logits;
    job.targets = targets + first;
    job.weight = weight ? weight + first : NULL;
    job.nats = s->nats + first;
    job.rows = igpt__min_size(IGPT__LOGIT_ROWS, rows - first);
    job.V = s->V;
    igpt__logits(s, s->logits, normed, job.rows, 0);
    igpt__run(&s->math.runner, igpt__loss_task, &job, igpt__divide_up(job.rows, 16));
#ifndef IGPT_NO_TRAIN
    if (weight)
      igpt__linear_transposed_backward(s, s->dy + first * s->C, s->gradients.lm_head, s->logits,
                                       normed, s->model->weights.lm_head, job.rows, s->C, s->V);
#endif
    if (igpt__poll(s)) return IGPT_CANCELLED;
  }
  return IGPT_OK;
}

/* Positions of one picture that count: all of them, or the hidden ones. */
static size_t igpt__counted(const igpt_session *s, const uint8_t *mask)
{
  size_t i, counted = 0;
  if (s->model->config.objective == IGPT_AR) return s->T;
  for (i = 0; mask && i < s->T; i++) counted += mask[i] != 0;
  return counted;
}

/* Sum over pictures of each one's mean over its counted positions. A picture without a hidden
   position adds nothing. Clears the nats of positions that do not count. */
static double igpt__sum_nats(const igpt_session *s, const igpt__pass *pass)
{
  double sum = 0;
  size_t b, i;
  for (b = 0; b < pass->count; b++) {
    const uint8_t *mask = pass->mask ? pass->mask + b * s->T : NULL;
    const size_t counted = igpt__counted(s, mask);
    double picture = 0;
    for (i = 0; i < s->T; i++) {
      float *nats = s->nats + b * s->T + i;
      if (s->model->config.objective == IGPT_BERT && !(mask && mask[i])) *nats = 0;
      picture += (double)*nats;
    }
    if (counted) sum += picture / (double)counted;
  }
  return sum;
}

/* ---- what callers run ------------------------------------------------------------------------ */

static igpt_result igpt__check_batch(const igpt_session *s, const igpt_batch *batch)
{
  const igpt_log *log;
  size_t i, n;
  if (!s) return IGPT_BAD_ARGUMENT;
  log = &s->desc.log;
  if (!batch || (batch->count && !batch->tokens))
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "batch.tokens is null");
  n = igpt__size_mul(batch->count, s->T);
  for (i = 0; i < n; i++)
    if (batch->tokens[i] >= s->V)
      return igpt__fail(log, IGPT_BAD_ARGUMENT,
                        "batch.tokens: picture %z, position %z is %d, and the vocabulary is %z",
                        i / s->T, i % s->T, (int)batch->tokens[i], s->V);
  for (i = 0; batch->shown && batch->mask && i < n; i++)
    if (batch->mask[i] && batch->shown[i] >= s->V)
      return igpt__fail(log, IGPT_BAD_ARGUMENT,
                        "batch.shown: picture %z, position %z is %d, and the vocabulary is %z",
                        i / s->T, i % s->T, (int)batch->shown[i], s->V);
  return IGPT_OK;
}

/* Weights that are infinite, NaN or huge make such numbers on their way, and none of the kernels
   loses them: it is enough to look at what comes out. In float64 no square overflows. */
static igpt_result igpt__check_finite(const igpt_session *s, const float *x, size_t count,
                                      const char *call)
{
  if (igpt__finite(s->math.kernels->sum_squares(x, count))) return IGPT_OK;
  return igpt__fail(&s->desc.log, IGPT_NOT_FINITE,
                    "%s: the model's weights make numbers that are infinite or NaN", call);
}

IGPT__ENTRY(igpt_forward, (igpt_session *session, float *logits, const igpt_batch *batch),
            (session, logits, batch))
{
  igpt_session *s = session;
  igpt_result result = igpt__check_batch(s, batch);
  size_t first;
  if (result || batch->count == 0) return result;
  if (!logits) return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_forward: logits is null");
  result = igpt__refresh(s, 0);
  for (first = 0; first < batch->count && !result; first += s->B) {
    igpt__pass pass = igpt__whole_pass(s, batch, first);
    result = igpt__forward_stream(s, &pass);
    if (result) break;
    igpt__logits(s, logits + first * s->T * s->V, s->normed, pass.count * s->T, 0);
    result = igpt__check_finite(s, logits + first * s->T * s->V, pass.count * s->T * s->V,
                                "igpt_forward");
  }
  return result;
}

IGPT__ENTRY(igpt_nll, (igpt_session *session, float *nats, double *mean, const igpt_batch *batch),
            (session, nats, mean, batch))
{
  igpt_session *s = session;
  igpt_result result = igpt__check_batch(s, batch);
  double sum = 0;
  size_t first;
  if (!result && batch->count) result = igpt__refresh(s, 0);
  if (result) return result;
  for (first = 0; first < batch->count; first += s->B) {
    igpt__pass pass = igpt__whole_pass(s, batch, first);
    result = igpt__forward_stream(s, &pass);
    if (!result) result = igpt__head_loss(s, pass.tokens, NULL, pass.count * s->T);
    if (!result) result = igpt__check_finite(s, s->nats, pass.count * s->T, "igpt_nll");
    if (result) return result;
    sum += igpt__sum_nats(s, &pass);
    if (nats) memcpy(nats + first * s->T, s->nats, pass.count * s->T * sizeof *nats);
  }
  if (mean) *mean = batch->count ? sum / (double)batch->count : 0;
  return IGPT_OK;
}

/* classes (count,K) = pooled (count,C) score^T, on one thread: it is small */
static void igpt__class_logits(igpt_session *s, float *classes, size_t count)
{
  size_t b, k;
  igpt__pool_positions(s, s->pooled, s->C, s->normed, count);
  for (b = 0; b < count; b++)
    for (k = 0; k < s->K; k++)
      classes[b * s->K + k] = s->math.kernels->dot(s->pooled + b * s->C,
                                                   s->model->weights.score + k * s->C, s->C);
}

IGPT__ENTRY(igpt_classify, (igpt_session *session, float *logits, const igpt_batch *batch),
            (session, logits, batch))
{
  igpt_session *s = session;
  igpt_result result = igpt__check_batch(s, batch);
  size_t first, i;
  if (result || batch->count == 0) return result;
  if (!logits) return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_classify: logits is null");
  for (i = 0; i < s->K * s->C && s->model->weights.score[i] == 0; i++) {}
  if (i == s->K * s->C)
    return igpt__fail(&s->desc.log, IGPT_UNTRAINED_HEAD,
                      s->K ? "igpt_classify: the class head is all zero: fine-tune it first"
                           : "igpt_classify: the model has no class head (config.classes is 0)");
  result = igpt__refresh(s, 0);
  for (first = 0; first < batch->count && !result; first += s->B) {
    igpt__pass pass = igpt__whole_pass(s, batch, first);
    result = igpt__forward_stream(s, &pass);
    if (result) break;
    igpt__class_logits(s, logits + first * s->K, pass.count);
    result = igpt__check_finite(s, logits + first * s->K, pass.count * s->K, "igpt_classify");
  }
  return result;
}

IGPT__ENTRY(igpt_features,
            (igpt_session *session, float *features, const igpt_batch *batch, const int *layers,
             size_t count), (session, features, batch, layers, count))
{
  igpt_session *s = session;
  igpt_result result = igpt__check_batch(s, batch);
  size_t first, j;
  if (result || batch->count == 0 || count == 0) return result;
  if (!features || !layers)
    return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_features: features or layers is null");
  for (j = 0; j < count; j++)
    if (layers[j] < 0 || (size_t)layers[j] > s->L)
      return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT,
                        "igpt_features: layers[%z] is %d, and must be 0..%z", j, layers[j], s->L);
  result = igpt__refresh(s, 0);
  for (first = 0; first < batch->count && !result; first += s->B) {
    igpt__pass pass = igpt__whole_pass(s, batch, first);
    pass.depths = layers;
    pass.depth_count = count;
    pass.features = features + first * count * s->C;
    result = igpt__forward_stream(s, &pass);
    if (!result)
      result = igpt__check_finite(s, pass.features, pass.count * count * s->C, "igpt_features");
  }
  return result;
}

IGPT__ENTRY(igpt_attention_map,
            (igpt_session *session, float *map, const igpt_batch *batch, int layer, int head),
            (session, map, batch, layer, head))
{
  igpt_session *s = session;
  igpt_result result = igpt__check_batch(s, batch);
  size_t first;
  if (result || batch->count == 0) return result;
  if (!map) return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_attention_map: map is null");
  if (layer < 0 || (size_t)layer >= s->L || head < 0 || (size_t)head >= s->H)
    return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT,
                      "igpt_attention_map: layer %d, head %d of %z layers, %z heads", layer, head,
                      s->L, s->H);
  result = igpt__refresh(s, 0);
  for (first = 0; first < batch->count && !result; first += s->B) {
    igpt__pass pass = igpt__whole_pass(s, batch, first);
    pass.map = map + first * s->T * s->T;
    pass.map_layer = layer;
    pass.map_head = head;
    result = igpt__forward_stream(s, &pass);
    if (!result)
      result = igpt__check_finite(s, pass.map, pass.count * s->T * s->T, "igpt_attention_map");
  }
  return result;
}

#ifndef IGPT_NO_TRAIN
/* ==== 12. training ===========================================================================

   A step is: forward, loss, backward (igpt_backward, as often as the batch needs), then one pass
   over all weights that moves each against its gradient. Gradients are kept summed over pictures,
   with their number, so that a batch may come in pieces of any size. AdamW keeps two running means
   for each weight, of the gradient and of its square, and moves by the ratio of the first to the
   root of the second: 16 bytes read and 16 written a weight (the gradient becomes zero), after the
   4 read for the gradient's length, which is all that a step costs beside the backward. Kingma, Ba:
   "Adam", ICLR 2015; Loshchilov, Hutter: "Decoupled weight decay", ICLR 2019.                    */

static igpt_result igpt__check_training(const igpt_session *s, const char *call)
{
  if (!s) return IGPT_BAD_ARGUMENT;
  if (!s->desc.train)
    return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT,
                      "%s: the session was created with train 0", call);
  return IGPT_OK;
}

igpt_result igpt_gradients_zero(igpt_session *session)
{
  igpt_result result = igpt__check_training(session, "igpt_gradients_zero");
  if (result) return result;
  memset(session->gradient, 0, session->model->specs.scalars * sizeof(float));
  session->pictures = 0;
  return IGPT_OK;
}

/* Class loss of `count` pictures from s->normed: adds the sums to `losses`, and `weight` times the
   gradient to score and to s->dy = dL/d normed.
     z[k] = pooled . score[k]     loss = log(sum of exp(z)) - z[label]
     dz[k] = weight (softmax(z)[k] - (k == label))
     dscore[k] += dz[k] pooled    dnormed[i] += (sum over k of dz[k] score[k]) / T, for every i */
static void igpt__class_loss(igpt_session *s, igpt_losses *losses, const int32_t *labels,
                             size_t count, float weight)
{
  const igpt_kernels *kernels = s->math.kernels;
  const float *score = s->model->weights.score;
  size_t b, k, i;
  igpt__class_logits(s, s->classes, count);
  for (b = 0; b < count; b++) {
    const size_t label = (size_t)labels[b];
    float *z = s->classes + b * s->K, *pooled = s->pooled + b * s->C, most, sum;
    size_t best = 0;
    for (k = 1; k < s->K; k++)
      if (z[k] > z[best]) best = k;
    losses->correct += best == label;
    most = z[best];
    losses->classification += (double)most - (double)z[label];
    sum = kernels->exp_sum(z, z, 1, most, s->K);
    losses->classification += log((double)sum);
    kernels->scale(z, weight / sum, s->K);
    z[label] -= weight;
    for (k = 0; k < s->K; k++)
      kernels->axpy(s->gradients.score + k * s->C, z[k], pooled, s->C);
    memset(pooled, 0, s->C * sizeof *pooled);               /* from here: its own gradient, / T */
    for (k = 0; k < s->K; k++) kernels->axpy(pooled, z[k] / (float)s->T, score + k * s->C, s->C);
    for (i = 0; i < s->T; i++) kernels->add(s->dy + (b * s->T + i) * s->C, pooled, s->C);
  }
}

/* Weight of every position in the sum over pictures of each one's mean. */
static void igpt__position_weights(igpt_session *s, const igpt__pass *pass, float generative)
{
  size_t b, i;
  for (b = 0; b < pass->count; b++) {
    const uint8_t *mask = pass->mask ? pass->mask + b * s->T : NULL;
    const size_t counted = igpt__counted(s, mask);
    for (i = 0; i < s->T; i++) {
      const int counts = s->model->config.objective == IGPT_AR || (mask && mask[i]);
      s->weight[b * s->T + i] = counts && counted ? generative / (float)counted : 0;
    }
  }
}

/* Forward and backward of at most B pictures; adds to the sums in `losses`. */
static igpt_result igpt__backward_pass(igpt_session *s, igpt_losses *losses, const igpt__pass *pass,
                                       const int32_t *labels, const igpt_loss_desc *weights)
{
  const size_t rows = pass->count * s->T;
  float *r_f = s->nats;           /* 1 / rms of the last norm, once the losses are added up */
  double generative;
  igpt_result result;
  size_t l;
  s->share /= 3;                  /* forward is a third of the work */
  result = igpt__forward_stream(s, pass);
  if (result) return result;
  igpt__position_weights(s, pass, weights->generative);
  result = igpt__head_loss(s, pass->tokens, s->weight, rows);            /* s->dy = dL/d normed */
  if (result) return result;
  generative = igpt__sum_nats(s, pass);
  losses->generative += generative;
  if (labels) igpt__class_loss(s, losses, labels, pass->count, weights->classification);
  if (!igpt__finite(generative) || !igpt__finite(losses->classification))
    return igpt__fail(&s->desc.log, IGPT_NOT_FINITE, "igpt_backward: the loss is %g",
                      losses->generative + losses->classification);

  /* normed = norm(x; ln_f), then the blocks from the last to the first */
  igpt__norm(s, s->normed, r_f, s->layer[s->L].x, s->model->weights.ln_f, rows);
  memset(s->dx, 0, rows * s->C * sizeof(float));
  igpt__norm_backward(s, s->dx, s->gradients.ln_f, s->dy, s->layer[s->L].x, r_f,
                      s->model->weights.ln_f, rows);
  if (s->math.tiles)
    igpt__run(&s->math.runner, igpt__tile_round_task, s, igpt__divide_up(s->R, IGPT__ROWS));
  s->stage += s->share;
  s->share *= 2;
  for (l = s->L; l-- > 0;) {
    igpt__reach(s, s->L - 1 - l, s->L);
    if (s->math.tiles ? igpt__tile_backward(s, pass, l) : igpt__block_backward(s, pass, l))
      return IGPT_CANCELLED;
  }
  igpt__embed_backward(s, s->dx, pass);
  return IGPT_OK;
}

IGPT__ENTRY(igpt_backward,
            (igpt_session *session, igpt_losses *losses, const igpt_batch *batch,
             const igpt_loss_desc *desc), (session, losses, batch, desc))
{
  igpt_session *s = session;
  igpt_loss_desc weights = { 0, 0 };
  igpt_losses sum;
  igpt_result result = igpt__check_training(s, "igpt_backward");
  size_t first, i;
  if (!result) result = igpt__check_batch(s, batch);
  if (result) return result;
  if (desc) weights = *desc;
  if (!igpt__finite((double)weights.generative) || !igpt__finite((double)weights.classification))
    return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_backward: the losses' weights are %g"
                      " and %g", (double)weights.generative, (double)weights.classification);
  if (weights.generative == 0 && weights.classification == 0) {
    weights.generative = 1;
    weights.classification = batch->labels ? 1.0f : 0.0f;
  }
  if (weights.classification != 0) {
    if (!batch->labels || !s->K)
      return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_backward: a class loss needs labels,"
                        " and a class head (classes is %z)", s->K);
    for (i = 0; i < batch->count; i++)
      if (batch->labels[i] < 0 || (size_t)batch->labels[i] >= s->K)
        return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT,
                          "batch.labels[%z] is %d, and the class head has %z classes", i,
                          (int)batch->labels[i], s->K);
  }
  s->decode_count = 0;            /* the cache lies where the activations go */
  memset(&sum, 0, sizeof sum);
  for (first = 0; first < batch->count; first += s->B) {
    igpt__pass pass = igpt__whole_pass(s, batch, first);
    pass.keep = 1;
    result = igpt__backward_pass(s, &sum, &pass,
                                 weights.classification != 0 ? batch->labels + first : NULL,
                                 &weights);
    if (result) {
      igpt_gradients_zero(s);
      return result;
    }
  }
  s->pictures += batch->count;
  if (losses) {
    const double count = batch->count ? (double)batch->count : 1;
    losses->generative = sum.generative / count;
    losses->classification = sum.classification / count;
    losses->total = (double)weights.generative * losses->generative +
                    (double)weights.classification * losses->classification;
    losses->correct = sum.correct;
  }
  return IGPT_OK;
}

igpt_result igpt_gradients(igpt_session *session, float **block, size_t *count, size_t *pictures)
{
  igpt_result result = igpt__check_training(session, "igpt_gradients");
  if (result) return result;
  if (block) *block = session->gradient;
  if (count) *count = session->model->specs.scalars;
  if (pictures) *pictures = session->pictures;
  return IGPT_OK;
}

igpt_result igpt_gradient_at(igpt_session *session, igpt_tensor *out, size_t index)
{
  igpt_result result = igpt__check_training(session, "igpt_gradient_at");
  return result ? result : igpt__tensor_at(session->model, session->gradients, out, index);
}

static void igpt__squares_task(void *arg, size_t index, int worker)
{
  igpt_session *s = (igpt_session *)arg;
  const size_t at = index * IGPT__FLAT;
  const size_t n = igpt__min_size(IGPT__FLAT, s->model->specs.scalars - at);
  (void)worker;
  s->partial[index] = s->math.kernels->sum_squares(s->gradient + at, n);
}

/* |sum of gradients|: every task its part, the parts in order */
static double igpt__gradient_length(igpt_session *s)
{
  const size_t tasks = igpt__divide_up(s->model->specs.scalars, IGPT__FLAT);
  double sum = 0;
  size_t i;
  igpt__run(&s->math.runner, igpt__squares_task, s, tasks);
  for (i = 0; i < tasks; i++) sum += s->partial[i];
  return sqrt(sum);
}

IGPT__ENTRY(igpt_gradient_norm, (igpt_session *session, double *norm), (session, norm))
{
  igpt_result result = igpt__check_training(session, "igpt_gradient_norm");
  if (result || !norm) return result ? result : IGPT_BAD_ARGUMENT;
  *norm = session->pictures ? igpt__gradient_length(session) / (double)session->pictures : 0;
  return IGPT_OK;
}

typedef struct igpt__step_job {
  igpt_session *s;
  float *weights;
  igpt__adam adam;                /* with the decay of tensors that decay */
} igpt__step_job;

/* The longest gradient whose components all have a square that is a float32. */
#define IGPT__LONGEST 1.8e19f

/* How large a weight of a task's run could become, as if all of them decayed; a NaN stays. */
static void igpt__reach_task(void *arg, size_t index, int worker)
{
  const igpt__step_job *job = (const igpt__step_job *)arg;
  const igpt__adam *c = &job->adam;
  const igpt_session *s = job->s;
  size_t i, end = igpt__min_size((index + 1) * IGPT__FLAT, s->model->specs.scalars);
  const double grows = c->decay <= 1 ? 1 : (double)c->decay;     /* w (1 - decay) and w decay */
  double most = 0;
  (void)worker;
  for (i = index * IGPT__FLAT; i < end; i++) {
    const double g = (double)(s->gradient[i] * c->scale);
    const double m = (double)c->beta1 * (double)s->moment1[i] + (1 - (double)c->beta1) * g;
    const double v = (double)c->beta2 * (double)s->moment2[i] + (1 - (double)c->beta2) * g * g;
    const double move = (double)c->rate * fabs(m) /
                        (sqrt(v) * (double)c->root + (double)c->epsilon);
    const double reach = fabs((double)job->weights[i]) * grows + move;
    if (!(reach <= most)) most = reach;
    if (reach != reach) break;
  }
  s->partial[index] = most;
}

/* One task's run of scalars, cut where tensors end, as decay is a matter of the tensor. */
static void igpt__step_task(void *arg, size_t index, int worker)
{
  const igpt__step_job *job = (const igpt__step_job *)arg;
  const igpt_session *s = job->s;
  const igpt__specs *specs = &s->model->specs;
  size_t at = index * IGPT__FLAT, end = igpt__min_size(at + IGPT__FLAT, specs->scalars);
  (void)worker;
  while (at < end) {
    const int head = at < specs->head_scalars;
    const size_t base = head ? 0 : at - (at - specs->head_scalars) % specs->block_scalars;
    const igpt__spec *spec = head ? specs->head : specs->block;
    igpt__adam adam = job->adam;
    size_t n;
    while (base + spec->offset + spec->count <= at) spec++;
    n = igpt__min_size(end, base + spec->offset + spec->count) - at;
    if (!spec->decay) adam.decay = 0;
    s->math.kernels->adam(job->weights + at, s->moment1 + at, s->moment2 + at, s->gradient + at,
                          &adam, n);
    at += n;
  }
}

IGPT__ENTRY(igpt_step,
            (igpt_session *session, igpt_model *model, double *norm, const igpt_adam_desc *desc),
            (session, model, norm, desc))
{
  igpt_session *s = session;
  igpt__step_job job;
  igpt_adam_desc d;
  double length, clipped, scale, steps;
  size_t i;
  igpt_result result = igpt__check_training(s, "igpt_step");
  if (result) return result;
  if (!model || model != s->model || !desc)
    return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT,
                      "igpt_step: %s", desc ? "the model is not the session's" : "desc is null");
  d = *desc;
  if (d.beta1 == 0) d.beta1 = 0.9f;
  if (d.beta2 == 0) d.beta2 = 0.95f;
  if (d.epsilon == 0) d.epsilon = 1e-8f;
  if (!d.pictures) d.pictures = s->pictures;
  if (!(d.rate >= 0 && d.beta1 >= 0 && d.beta1 < 1 && d.beta2 >= 0 && d.beta2 < 1 &&
        d.epsilon > 0 && d.weight_decay >= 0 && d.clip >= 0 && igpt__finite((double)d.rate)))
    return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT,
                      "igpt_step: rate %g, beta1 %g, beta2 %g, epsilon %g, weight_decay %g, "
                      "clip %g",
                      (double)d.rate, (double)d.beta1, (double)d.beta2, (double)d.epsilon,
                      (double)d.weight_decay, (double)d.clip);
  if (!d.pictures)
    return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_step: no igpt_backward came before");
  length = igpt__gradient_length(s) / (double)d.pictures;
  if (norm) *norm = length;
  clipped = 1;
  if (d.clip > 0 && length > (double)d.clip) clipped = (double)d.clip / length;
  scale = clipped / (double)d.pictures;
  if (!(length * clipped < (double)IGPT__LONGEST && scale > 1.2e-38)) {     /* or NaN */
    igpt_gradients_zero(s);
    return igpt__fail(&s->desc.log, IGPT_NOT_FINITE, "igpt_step: the gradient's norm is %g",
                      length);
  }
  steps = (double)s->steps + 1;
  job.s = s;
  job.weights = model->scalars;
  job.adam.scale = (float)scale;
  job.adam.beta1 = d.beta1;
  job.adam.beta2 = d.beta2;
  job.adam.rate = (float)((double)d.rate / (1 - pow((double)d.beta1, steps)));
  job.adam.root = (float)(1 / sqrt(1 - pow((double)d.beta2, steps)));
  job.adam.epsilon = d.epsilon;
  job.adam.decay = d.rate * d.weight_decay;
  /* A move is at most rate * IGPT__LONGEST / epsilon. Only if that is not lost in the rounding of
     the largest float, a weight may become infinite. */
  if (!(job.adam.rate / d.epsilon < 5e10f && job.adam.decay <= 1)) {
    const size_t tasks = igpt__divide_up(s->model->specs.scalars, IGPT__FLAT);
    igpt__run(&s->math.runner, igpt__reach_task, &job, tasks);
    for (i = 0; i < tasks && s->partial[i] < 3.4e38; i++) {}
    if (i < tasks) {
      igpt_gradients_zero(s);
      return igpt__fail(&s->desc.log, IGPT_NOT_FINITE, "igpt_step: rate %g and weight_decay %g "
                        "make a weight infinite", (double)d.rate, (double)d.weight_decay);
    }
  }
  igpt__run(&s->math.runner, igpt__step_task, &job,
            igpt__divide_up(s->model->specs.scalars, IGPT__FLAT));
  s->pictures = 0;                /* igpt__step_task has cleared the gradients */
  s->steps++;
  model->step++;
  return IGPT_OK;
}

IGPT__ENTRY_OF(double, IGPT__EXACT, igpt_schedule, (const igpt_schedule_desc *desc, double step),
               (desc, step))
{
  double part;
  if (!desc) return 0;
  if (step < desc->warmup) {
    part = (step + 1) / desc->warmup;
    return desc->rate * (part < 1 ? part : 1);
  }
  if (desc->shape == IGPT_CONSTANT) return desc->rate;
  part = desc->steps > desc->warmup ? (step - desc->warmup) / (desc->steps - desc->warmup) : 1;
  if (part > 1) part = 1;
  part = desc->shape == IGPT_LINEAR ? 1 - part : 0.5 * (1 + cos(3.141592653589793 * part));
  return desc->rate * (desc->end + (1 - desc->end) * part);
}

#endif /* IGPT_NO_TRAIN */

/* ==== 13. sampling ===========================================================================

   An AR model writes a picture pixel by pixel: the logits of position i, one draw, and that token
   is what position i + 1 sees. Done naively each pixel costs a whole forward pass. But the keys and
   values of earlier positions never change, so they are kept: with that cache a pixel costs one row
   of every matrix product, and a look back over the keys. All chains of additions are the same as
   in the full pass, and so are the bits, but for sessions on tiles, whose full pass adds otherwise.

   A BERT model knows no order: it fills many hidden pixels at once, first those it is most certain
   of, and looks again at the rest with these in place. Chang et al.: "MaskGIT", CVPR 2022, for the
   order of filling.                                                                              */

/* ---- one draw -------------------------------------------------------------------------------- */

/* Floats that are not negative are ordered as their bits are. */
static float igpt__from_bits(uint32_t bits)
{
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* The largest threshold t for which what `p` holds at or above t is enough: at least `k` values,
   and a sum of at least `mass`. Bisection over the bits of t needs no sorted copy. */
static float igpt__threshold(const float *p, int n, int k, double mass)
{
  uint32_t low = 0, high = 0x7f800000u;          /* enough at low, not enough at high */
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    const float t = igpt__from_bits(middle);
    double sum = 0;
    int i, count = 0;
    for (i = 0; i < n; i++)
      if (p[i] >= t) {
        count++;
        sum += (double)p[i];
      }
    if (count >= k && sum >= mass) low = middle;
    else high = middle;
  }
  return igpt__from_bits(low);
}

/* Keeps what lies above the threshold, and of its equals the first, until it is enough so. */
static void igpt__keep(float *p, int n, int k, double mass)
{
  const float t = igpt__threshold(p, n, k, mass);
  double sum = 0;
  int i, count = 0;
  for (i = 0; i < n; i++)
    if (p[i] > t) {
      count++;
      sum += (double)p[i];
    }
  for (i = 0; i < n; i++) {
    if (p[i] > t) continue;
    if (p[i] == t && (count < k || sum < mass)) {
      count++;
      sum += (double)p[i];
    } else {
      p[i] = 0;
    }
  }
}

/* By its bits: a denormal is no zero here, though it may compute as one. */
static int igpt__is_zero(float x)
{
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits << 1 == 0;
}

static int igpt__can_draw(const igpt_sample_desc *desc)
{
  return desc->temperature >= 0 && igpt__finite((double)desc->temperature) && desc->top_k >= 0 &&
         desc->top_p >= 0 && desc->top_p <= 1;
}

IGPT__ENTRY_OF(int, IGPT__FLUSH, igpt_draw,
               (igpt_rng *rng, float *logits, int vocabulary, const igpt_sample_desc *desc),
               (rng, logits, vocabulary, desc))
{
  const igpt_kernels *kernels = igpt_kernels_for(IGPT_ISA_GENERIC);   /* the same draw for all */
  const float smallest = 1.17549435e-38f;       /* that is no denormal */
  float sharpness = 1, top_p = 0, most, *p = logits;    /* sharpness: 1 / temperature */
  const int top_k = desc ? desc->top_k : 0;
  double sum = 0, point;
  int v, last = -1;
  if (!rng || !logits || vocabulary < 1 || (desc && !igpt__can_draw(desc))) return -1;
  for (v = 0; v < vocabulary; v++)
    if (p[v] != p[v]) return -1;
  most = kernels->maximum(p, (size_t)vocabulary);
  if (!igpt__finite((double)most)) return -1;
  if (desc) {
    if (!igpt__is_zero(desc->temperature))
      sharpness = desc->temperature < smallest ? 8.50705917e37f : 1 / desc->temperature;
    if (sharpness < smallest) sharpness = smallest;
    if (!igpt__is_zero(desc->top_p)) top_p = desc->top_p < smallest ? smallest : desc->top_p;
  }
  /* p = exp((z - max) / temperature): at least one of them is 1 */
  for (v = 0; v < vocabulary; v++) p[v] -= most;
  kernels->exp_sum(p, p, sharpness, 0, (size_t)vocabulary);
  if (top_k > 0 && top_k < vocabulary) igpt__keep(p, vocabulary, top_k, 0);
  for (v = 0; v < vocabulary; v++) sum += (double)p[v];
  if (top_p > 0 && top_p < 1) {
    igpt__keep(p, vocabulary, 1, (double)top_p * sum);
    for (sum = 0, v = 0; v < vocabulary; v++) sum += (double)p[v];
  }
  for (v = 0; v < vocabulary; v++) p[v] = (float)((double)p[v] / sum);

  for (sum = 0, v = 0; v < vocabulary; v++) sum += (double)p[v];
  point = (double)igpt_rng_uniform(rng) * sum;
  for (sum = 0, v = 0; v < vocabulary; v++)
    if (p[v] > 0) {
      last = v;
      sum += (double)p[v];
      if (point < sum) break;
    }
  return last;
}

static igpt_result igpt__check_sample(const igpt_session *s, const igpt_sample_desc *desc,
                                      const char *call)
{
  if (desc->keep < 0 || (size_t)desc->keep > s->T)
    return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "%s: keep is %d, and must be 0..%z", call,
                      desc->keep, s->T);
  if (!igpt__can_draw(desc) || desc->rounds < 0)
    return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT,
                      "%s: temperature %g, top_k %d, top_p %g, rounds %d", call,
                      (double)desc->temperature, desc->top_k, (double)desc->top_p, desc->rounds);
  return IGPT_OK;
}

/* ---- position by position -------------------------------------------------------------------- */

static igpt_result igpt__check_decode(const igpt_session *s)
{
  if (s->model->config.objective != IGPT_AR)
    return igpt__fail(&s->desc.log, IGPT_WRONG_OBJECTIVE, "sampling pixel by pixel needs an AR"
                      " model, and this one is BERT (igpt_fill)");
  if (!s->cache)
    return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT,
                      "the session was created with no_cache 1");
  return IGPT_OK;
}

static igpt_result igpt__decode_begin(igpt_session *s, const uint16_t *prefix, int keep, int count)
{
  const igpt_log *log = &s->desc.log;
  const igpt_result result = igpt__check_decode(s);
  igpt__pass pass;
  size_t n, i;
  s->decode_count = 0;
  if (result) return result;
  if (count < 1 || (size_t)count > s->B || keep < 0 || (size_t)keep >= s->T || (keep && !prefix))
    return igpt__fail(log, IGPT_BAD_ARGUMENT,
                      "igpt_decode_begin: count %d, keep %d of %z pictures, %z positions%s", count,
                      keep, s->B, s->T, keep && !prefix ? "; prefix is null" : "");
  n = (size_t)keep;
  for (i = 0; i < n * (size_t)count; i++)
    if (prefix[i] >= s->V)
      return igpt__fail(log, IGPT_BAD_ARGUMENT,
                        "igpt_decode_begin: prefix[%z] is %d, and the vocabulary is %z", i,
                        (int)prefix[i], s->V);
  if (igpt__refresh(s, 1)) return IGPT_CANCELLED;
  if (n) {                        /* positions 0..keep-1 see the start and tokens 0..keep-2 */
    memset(&pass, 0, sizeof pass);
    pass.tokens = prefix;
    pass.count = (size_t)count;
    pass.stride = pass.positions = n;
    pass.cache = 1;
    pass.map_layer = -1;
    if (igpt__forward_stream(s, &pass)) return IGPT_CANCELLED;
    for (i = 0; i < pass.count; i++) s->decode_tokens[i] = prefix[i * n + n - 1];
  }
  s->decode_count = (size_t)count;
  s->decode_position = n;
  s->decode_started = 0;
  return IGPT_OK;
}

static igpt_result igpt__decode(igpt_session *s, float *logits, const uint16_t *tokens)
{
  igpt__pass pass;
  size_t b;
  if (!s->decode_count || !logits || s->decode_position >= s->T)
    return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_decode: %s",
                      !s->decode_count ? "igpt_decode_begin comes first"
                      : !logits ? "logits is null" : "all positions are decoded");
  if (s->decode_started) {
    for (b = 0; tokens && b < s->decode_count; b++)
      if (tokens[b] >= s->V)
        return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT,
                          "igpt_decode: tokens[%z] is %d, and the vocabulary is %z", b,
                          (int)tokens[b], s->V);
    if (!tokens) return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_decode: tokens is null");
    memcpy(s->decode_tokens, tokens, s->decode_count * sizeof *tokens);
  }
  memset(&pass, 0, sizeof pass);
  pass.tokens = s->decode_tokens;
  pass.count = s->decode_count;
  pass.stride = pass.positions = 1;
  pass.first = s->decode_position;
  pass.decode = pass.cache = 1;
  pass.map_layer = -1;
  if (igpt__forward_stream(s, &pass)) return IGPT_CANCELLED;
  igpt__logits(s, logits, s->normed, pass.count, 1);
  if (igpt__check_finite(s, logits, pass.count * s->V, "igpt_decode")) return IGPT_NOT_FINITE;
  s->decode_position++;
  s->decode_started = 1;
  return IGPT_OK;
}

IGPT__ENTRY(igpt_decode_begin, (igpt_session *session, const uint16_t *prefix, int keep, int count),
            (session, prefix, keep, count))
{
  if (!session) return IGPT_BAD_ARGUMENT;
  igpt__stage(session, 0, 1, 1);
  return igpt__decode_begin(session, prefix, keep, count);
}

IGPT__ENTRY(igpt_decode, (igpt_session *session, float *logits, const uint16_t *tokens),
            (session, logits, tokens))
{
  if (!session) return IGPT_BAD_ARGUMENT;
  igpt__stage(session, 0, 1, 1);
  return igpt__decode(session, logits, tokens);
}

IGPT__ENTRY(igpt_sample,
            (igpt_session *session, uint16_t *tokens, size_t count, const igpt_sample_desc *desc),
            (session, tokens, count, desc))
{
  igpt_session *s = session;
  igpt_sample_desc d;
  igpt_result result;
  size_t first, keep, b, i;
  if (!s) return IGPT_BAD_ARGUMENT;
  memset(&d, 0, sizeof d);
  if (desc) d = *desc;
  result = igpt__check_sample(s, &d, "igpt_sample");
  if (result || !count || (size_t)d.keep == s->T) return result;
  if (!tokens) return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_sample: tokens is null");
  result = igpt__check_decode(s);
  if (result) return result;
  keep = (size_t)d.keep;
  for (b = 0; b < count; b++)
    for (i = 0; i < keep; i++)
      if (tokens[b * s->T + i] >= s->V)
        return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_sample: picture %z, position %z is"
                          " %d, and the vocabulary is %z", b, i, (int)tokens[b * s->T + i], s->V);
  for (first = 0; first < count; first += s->B) {
    const size_t n = igpt__min_size(s->B, count - first);
    uint16_t *row = tokens + first * s->T;
    for (b = 0; b < n; b++) memcpy(s->draft + b * keep, row + b * s->T, keep * sizeof *row);
    igpt__stage(s, first * s->T, n * keep, count * s->T);
    result = igpt__decode_begin(s, s->draft, d.keep, (int)n);
    for (i = keep; i < s->T && !result; i++) {
      igpt__stage(s, first * s->T + n * i, n, count * s->T);
      result = igpt__decode(s, s->logits, s->draft);
      for (b = 0; b < n && !result; b++) {
        igpt_rng rng = igpt_rng_seed(d.seed, d.first + first + b);
        int token;
        rng.index = i;
        token = igpt_draw(&rng, s->logits + b * s->V, (int)s->V, &d);
        row[b * s->T + i] = s->draft[b] = (uint16_t)token;
      }
    }
    if (result) return result;
  }
  return IGPT_OK;
}

/* ---- the most certain first ------------------------------------------------------------------ */

void igpt_mask_random(igpt_rng *rng, uint8_t *mask, size_t count, float part)
{
  size_t i;
  if (!rng || !mask) return;
  if (part == 0) part = 0.15f;
  for (i = 0; i < count; i++) mask[i] = igpt_rng_uniform(rng) <= part;
}

/* What the two-dimensional masks ask of their sides and part; in *part what 0 stands for. */
static igpt_result igpt__check_mask(int rows, int columns, int side, float *part)
{
  if (rows < 1 || columns < 1 || rows > 1 << 15 || columns > 1 << 15 || side < 1 ||
      side > 1 << 15 || !(*part >= 0 && *part <= 1)) return IGPT_BAD_ARGUMENT;
  if (*part == 0) *part = 0.15f;
  return IGPT_OK;
}

IGPT__EXACT_ENTRY(igpt_mask_blocks,
                  (igpt_rng *rng, uint8_t *mask, int rows, int columns, int side, float part),
                  (rng, mask, rows, columns, side, part))
{
  double covers, shown = 1;       /* a square hides a pixel; those so far hide it not */
  int first = 1;
  if (!rng || !mask || igpt__check_mask(rows, columns, side, &part)) return IGPT_BAD_ARGUMENT;
  covers = (double)side * side / ((double)(rows + side - 1) * (double)(columns + side - 1));
  memset(mask, 0, (size_t)rows * (size_t)columns);
  for (; first || 1 - shown < (double)part; first = 0, shown *= 1 - covers) {
    const int top = (int)igpt_rng_below(rng, (uint32_t)(rows + side - 1)) - side + 1;
    const int left = (int)igpt_rng_below(rng, (uint32_t)(columns + side - 1)) - side + 1;
    const int end = top + side < rows ? top + side : rows, from = left < 0 ? 0 : left;
    const int right = left + side < columns ? left + side : columns;
    /* the last square comes with the chance that makes the average right, wherever it is */
    const double chance = ((double)part - (1 - shown)) / (shown * covers);
    int i;
    if ((double)igpt_rng_uniform(rng) >= chance && !first) return IGPT_OK;
    for (i = top < 0 ? 0 : top; i < end; i++)
      memset(mask + (size_t)i * (size_t)columns + from, 1, (size_t)(right - from));
  }
  return IGPT_OK;
}

/* Patch `to` of a picture's grid looks like patch `from`, and is masked. */
static void igpt__jigsaw_piece(uint8_t *mask, uint16_t *shown, const uint16_t *tokens,
                               size_t columns, size_t side, size_t to, size_t from)
{
  const size_t across = columns / side;
  const size_t a = to / across * side * columns + to % across * side;
  const size_t b = from / across * side * columns + from % across * side;
  size_t i;
  for (i = 0; i < side * columns; i += columns) {
    memset(mask + a + i, 1, side);
    memcpy(shown + a + i, tokens + b + i, side * sizeof *shown);
  }
}

IGPT__EXACT_ENTRY(igpt_mask_jigsaw,
                  (igpt_rng *rng, uint8_t *mask, uint16_t *shown, const uint16_t *tokens, int rows,
                   int columns, int side, float part),
                  (rng, mask, shown, tokens, rows, columns, side, part))
{
  const size_t T = (size_t)rows * (size_t)columns, S = (size_t)side;
  size_t patches, across, left, first, at, next;
  if (!rng || !mask || !shown || !tokens || igpt__check_mask(rows, columns, side, &part) ||
      rows % side || columns % side || T / S / S < 2) return IGPT_BAD_ARGUMENT;
  patches = T / S / S;
  across = (size_t)columns / S;
  memset(mask, 0, T);
  memcpy(shown, tokens, T * sizeof *shown);
  left = (size_t)((double)part * (double)patches + 0.5);
  first = at = igpt_rng_below(rng, (uint32_t)patches);
  for (left = left < 2 ? 1 : left - 1; left > 0; left--, at = next) {
    igpt__jigsaw_piece(mask, shown, tokens, (size_t)columns, S, at, at);    /* is taken */
    do next = igpt_rng_below(rng, (uint32_t)patches);
    while (mask[next / across * S * (size_t)columns + next % across * S]);
    igpt__jigsaw_piece(mask, shown, tokens, (size_t)columns, S, at, next);
  }
  igpt__jigsaw_piece(mask, shown, tokens, (size_t)columns, S, at, first);
  return IGPT_OK;
}

/* For every hidden row of a pass: a draft of its token, and, in s->nats, how certain the model is:
   the probability of its favourite colour. */
static igpt_result igpt__draft(igpt_session *s, const igpt__pass *pass,
                               const igpt_sample_desc *desc, uint64_t picture, int round)
{
  const size_t rows = pass->count * s->T;
  size_t first, i;
  for (first = 0; first < rows; first += IGPT__LOGIT_ROWS) {
    const size_t n = igpt__min_size(IGPT__LOGIT_ROWS, rows - first);
    igpt__logits(s, s->logits, s->normed + first * s->C, n, 0);
    if (igpt__check_finite(s, s->logits, n * s->V, "igpt_fill")) return IGPT_NOT_FINITE;
    for (i = 0; i < n; i++) {
      const size_t row = first + i;
      float *z = s->logits + i * s->V, most;
      igpt_rng rng = igpt_rng_seed(desc->seed, picture + row / s->T);
      if (!s->hidden[row]) continue;
      most = s->math.kernels->maximum(z, s->V);
      s->nats[row] = 1 / s->math.kernels->exp_sum(NULL, z, 1, most, s->V);
      rng.index = (uint64_t)round * s->T + row % s->T;
      s->draft[row] = (uint16_t)igpt_draw(&rng, z, (int)s->V, desc);
    }
    if (igpt__poll(s)) return IGPT_CANCELLED;
  }
  return IGPT_OK;
}

IGPT__ENTRY(igpt_fill,
            (igpt_session *session, uint16_t *tokens, const uint8_t *mask, size_t count,
             const igpt_sample_desc *desc), (session, tokens, mask, count, desc))
{
  igpt_session *s = session;
  igpt_sample_desc d;
  igpt_batch batch;
  igpt_result result;
  size_t first, b, i;
  if (!s) return IGPT_BAD_ARGUMENT;
  memset(&d, 0, sizeof d);
  if (desc) d = *desc;
  if (!d.rounds) d.rounds = 16;
  result = igpt__check_sample(s, &d, "igpt_fill");
  if (result || !count) return result;
  if (s->model->config.objective != IGPT_BERT)
    return igpt__fail(&s->desc.log, IGPT_WRONG_OBJECTIVE,
                      "filling in any order needs a BERT model, and this one is AR (igpt_sample)");
  if (!tokens || !mask)
    return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_fill: tokens or mask is null");
  for (i = 0; i < count * s->T; i++)     /* what is hidden need not be valid yet */
    if (!mask[i] && tokens[i] >= s->V)
      return igpt__fail(&s->desc.log, IGPT_BAD_ARGUMENT, "igpt_fill: picture %z, position %z is %d,"
                        " and the vocabulary is %z", i / s->T, i % s->T, (int)tokens[i], s->V);
  for (i = 0; i < count * s->T; i++)
    if (mask[i]) tokens[i] = 0;
  memset(&batch, 0, sizeof batch);
  batch.tokens = tokens;
  batch.count = count;
  result = igpt__refresh(s, 0);
  for (first = 0; first < count && !result; first += s->B) {
    igpt__pass pass = igpt__whole_pass(s, &batch, first);
    const size_t rows = pass.count * s->T;
    const size_t rounds = (size_t)d.rounds;
    uint16_t *row = tokens + first * s->T;
    int round;
    for (i = 0; i < rows; i++) s->hidden[i] = mask[first * s->T + i] != 0;
    pass.mask = s->hidden;
    for (round = 0; round < d.rounds && !result; round++) {
      igpt__stage(s, first * rounds + pass.count * (size_t)round, pass.count, count * rounds);
      result = igpt__forward_stream(s, &pass);
      if (!result) result = igpt__draft(s, &pass, &d, d.first + first, round);
      for (b = 0; b < pass.count && !result; b++) {
        uint8_t *hidden = s->hidden + b * s->T;
        const size_t at = b * s->T;
        size_t total = 0, left = 0, stay;
        float least;
        for (i = 0; i < s->T; i++) {
          total += mask[(first + b) * s->T + i] != 0;
          left += hidden[i] != 0;
          if (!hidden[i]) s->nats[at + i] = -1;         /* below any probability */
        }
        /* hidden after this round: a quarter of a cosine, all of it gone in the last */
        stay = (size_t)((double)total * cos(1.5707963267948966 * (round + 1) / d.rounds));
        if (round + 1 == d.rounds) stay = 0;
        if (left <= stay) continue;
        left -= stay;                                   /* to be filled now */
        least = igpt__threshold(s->nats + at, (int)s->T, (int)left, 0);
        for (i = 0; i < s->T; i++)                      /* above the threshold, then its equals */
          if (hidden[i] && s->nats[at + i] > least) left--;
        for (i = 0; i < s->T; i++) {
          if (!hidden[i] || s->nats[at + i] < least) continue;
          if (s->nats[at + i] == least && left == 0) continue;
          if (s->nats[at + i] == least) left--;
          row[at + i] = s->draft[at + i];
          hidden[i] = 0;
        }
      }
    }
  }
  return result;
}

/* ==== 14. palette ============================================================================

   A pixel of three bytes becomes one token: the index of the nearest of at most 512 colours. The
   sequence is then three times shorter than with a token a channel, for a loss of a few grey steps.
   The colours are found by k-means: seeds are drawn far from each other (k-means++), then Lloyd's
   rounds alternate between giving every colour to its nearest centre and moving every centre to the
   mean of its colours.

   Three ideas make it exact and quick. (1) Only distinct colours matter, weighted by their
   counts. A map of 2^24 bits, numbered along a Morton curve (the bits of R, G and B interleaved),
   finds them: a colour's number is the count of bits set before its own. 3 MB of map, 13 bytes a
   distinct colour and 32 KB a worker are all the scratch there is, for any number of pixels; a
   table of counts would take 64 MB for the smallest picture. (2) Neighbours on the Morton curve
   are neighbours in the cube, so a run of 128 colours fits in a small box, and only the few
   centres that can be nearest to anything in this box are compared (Kanungo et al. filter the
   cells of a tree in the same way). The result is what the comparison with all centres gives, bit
   for bit. (3) All sums are sums of integers: no order of adding, and so no number of workers,
   changes anything.

   Encoding filters in the same way: a table of small cells of the cube holds the few centres that
   can be nearest to anything in the cell.

   Cost of a round: distinct colours x (about 24 distances), instead of pixels x 512.

   Arthur, Vassilvitskii: "k-means++: the advantages of careful seeding", SODA 2007.
   Kanungo et al.: "An efficient k-means clustering algorithm", PAMI 2002.                        */

/* ---- centres as distances see them ---------------------------------------------------------- */

/* Distances are taken in 8-bit steps, v = 127.5 (c + 1), where pixels are whole numbers, with
   centres on a grid of 2^-16 steps. That undoes the rounding of c to float32 (at most 4e-6 steps),
   so a palette of whole numbers is one again and its ties are true ties; and pixel minus centre has
   at most 24 bits, so that only squares and their sum are rounded. */
static float igpt__palette_step(double v)
{
  v = floor(v * 65536 + 0.5) / 65536;
  return (float)v;
}

static float igpt__palette_step_of(float c) { return igpt__palette_step(127.5 * ((double)c + 1)); }
static float igpt__palette_unit_of(float v) { return (float)((double)v / 127.5 - 1); }

#define IGPT__PALETTE_FAR 1e18f   /* where unused places of the kernel's centres are */
#define IGPT__PALETTE_REACH 1e4f  /* centres further out than this, in units, are refused */

static igpt_result igpt__palette_check(const igpt_palette *palette, const igpt_log *log)
{
  int i, j;
  if (!palette) return igpt__fail(log, IGPT_BAD_ARGUMENT, "palette is null");
  if (palette->colours < 1 || palette->colours > IGPT_PALETTE_MAX)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "palette->colours is %d, and must be 1..%d",
                      palette->colours, IGPT_PALETTE_MAX);
  for (i = 0; i < palette->colours; i++)
    for (j = 0; j < 3; j++) {
      float c = palette->centre[i][j];
      if (igpt__finite((double)c) && c <= IGPT__PALETTE_REACH && c >= -IGPT__PALETTE_REACH)
        continue;
      return igpt__fail(log, igpt__finite((double)c) ? IGPT_BAD_ARGUMENT : IGPT_NOT_FINITE,
                        "palette->centre[%d][%d] is %g, and must be within +-%g", i, j, (double)c,
                        (double)IGPT__PALETTE_REACH);
    }
  return IGPT_OK;
}

/* Places of the cube, both corners included. */
typedef struct igpt__colour_box { uint8_t low[3], high[3]; } igpt__colour_box;

/* Centres that are compared: (3,padded), and which they are, ascending: lowest index on ties. */
typedef struct igpt__nearby {
  float    planes[3 * IGPT_PALETTE_MAX];
  uint16_t which[IGPT_PALETTE_MAX];
  size_t   count, padded;
} igpt__nearby;

static void igpt__palette_nearby(igpt__nearby *to, const igpt_palette *palette)
{
  size_t i, j, n = (size_t)palette->colours, padded = igpt__size_round(n, 16);
  for (j = 0; j < 3; j++)
    for (i = 0; i < padded; i++)
      to->planes[j * padded + i] =
        i < n ? igpt__palette_step_of(palette->centre[i][j]) : IGPT__PALETTE_FAR;
  for (i = 0; i < n; i++) to->which[i] = (uint16_t)i;
  to->count = n;
  to->padded = padded;
}

/* to = those of `from` that can be nearest to a colour in the box. Nothing that the kernel could
   choose is lost. */
static void igpt__palette_filter(igpt__nearby *to, const igpt__nearby *from,
                                 const igpt__colour_box *box, const igpt_kernels *kernels)
{
  float beyond[IGPT_PALETTE_MAX], sides[6];
  size_t i, j, count = 0, padded;
  for (j = 0; j < 3; j++) {
    sides[j] = (float)box->low[j];
    sides[3 + j] = (float)box->high[j];
  }
  kernels->beyond(beyond, from->planes, sides, from->padded);
  for (i = 0; i < from->count; i++) {
    to->which[count] = (uint16_t)i;
    count += !(beyond[i] > 0);
  }
  padded = igpt__size_round(count, 16);
  for (j = 0; j < 3; j++) {
    float *plane = to->planes + j * padded;
    const float *source = from->planes + j * from->padded;
    for (i = 0; i < count; i++) plane[i] = source[to->which[i]];
    for (; i < padded; i++) plane[i] = IGPT__PALETTE_FAR;
  }
  for (i = 0; i < count; i++) to->which[i] = from->which[to->which[i]];
  to->count = count;
  to->padded = padded;
}

/* ---- encode, decode, error ------------------------------------------------------------------ */

#define IGPT__PALETTE_BLOCK 256   /* pixels at a time: 4 KB of the stack, the centres 7 KB */

/* index_i = argmin over j of |pixel_i - centre_j|^2, by looking at all centres. A pixel equal to
   the one before it shares its answer: drawings and digits are mostly such runs. */
static void igpt__palette_block(uint16_t *tokens, const uint8_t *rgb, size_t count,
                                const igpt__nearby *all, const igpt_kernels *kernels)
{
  float points[IGPT__PALETTE_BLOCK * 3];
  uint16_t found[IGPT__PALETTE_BLOCK], slot[IGPT__PALETTE_BLOCK];
  size_t i, used = 0;
  points[0] = points[1] = points[2] = 0;
  for (i = 0; i < count; i++, rgb += 3) {
    if (i == 0 || rgb[0] != rgb[-3] || rgb[1] != rgb[-2] || rgb[2] != rgb[-1]) {
      points[3 * used] = rgb[0];
      points[3 * used + 1] = rgb[1];
      points[3 * used + 2] = rgb[2];
      used++;
    }
    slot[i] = (uint16_t)(used - 1);
  }
  kernels->nearest(found, points, all->planes, used, all->padded);
  for (i = 0; i < count; i++) tokens[i] = found[slot[i]];
}

/* Many pixels are worth a table. The cube is cut into 32^3 cells, 8 steps wide, and each has a list
   of the centres that can be nearest to one of its places: 2 of 512 in the mean over the cells of a
   palette of photographs, 4 over their pixels. Lists are made when a pixel asks for one, for a cube
   of 4^3 cells together, from the few centres that can be nearest to the cube, then to its eighths,
   then to theirs. A cell with more than 8 centres is divided further, down to single places; where
   that does not help (many equal centres) or the nodes are used up, all centres are looked at. */
enum {
  IGPT__CELLS = 1 << 15,
  IGPT__NODES = IGPT__CELLS + 8 * 512,
  IGPT__LIST = 8
};

enum { IGPT__NODE_NEW, IGPT__NODE_LIST, IGPT__NODE_SPLIT, IGPT__NODE_CROWDED };

/* The table of one worker. list: 4 times an index, as the kernel wants it; the last is repeated
   where there are fewer. For a divided cell list[.][0] is an eighth of its first child's node. */
typedef struct igpt__cells {
  size_t       nodes;             /* in use */
  igpt__nearby depth[6];          /* of the box of 32, 16, ... 1 steps that is worked on */
  uint16_t     list[IGPT__NODES][IGPT__LIST];
  uint8_t      kind[IGPT__NODES];
} igpt__cells;

static size_t igpt__cell_of(const uint8_t *rgb)
{
  return (size_t)(rgb[0] >> 3 << 10 | rgb[1] >> 3 << 5 | rgb[2] >> 3);
}

/* Lists for all cells of a box of 32 >> depth steps, whose first (or only) node is `node`, out of
   the centres `from`. */
static void igpt__cells_grow(igpt__cells *cells, size_t node, const uint8_t *low, int depth,
                             const igpt__nearby *from, const igpt_kernels *kernels)
{
  igpt__nearby *left = &cells->depth[depth];
  igpt__colour_box box;
  size_t i, j, children = 0, wide = depth < 2 ? (size_t)4 >> depth : 1;
  int size = 32 >> depth;
  for (j = 0; j < 3; j++) {
    box.low[j] = low[j];
    box.high[j] = (uint8_t)(low[j] + size - 1);
  }
  igpt__palette_filter(left, from, &box, kernels);
  if (left->count > IGPT__LIST && depth >= 2 && size > 1 && cells->nodes < IGPT__NODES) {
    children = cells->nodes;
    cells->nodes += 8;
    cells->kind[node] = IGPT__NODE_SPLIT;
    cells->list[node][0] = (uint16_t)(children / 8);
  }
  if (left->count > IGPT__LIST && (depth < 2 || children)) {
    for (i = 0; i < 8; i++) {
      uint8_t corner[3];
      for (j = 0; j < 3; j++) corner[j] = (uint8_t)(low[j] + (i >> (2 - j) & 1) * (size_t)size / 2);
      igpt__cells_grow(cells, depth < 2 ? igpt__cell_of(corner) : children + i, corner, depth + 1,
                       left, kernels);
    }
    return;
  }
  for (i = 0; i < wide * wide * wide; i++) {
    size_t at = node + (i / wide / wide << 10) + (i / wide % wide << 5) + i % wide;
    for (j = 0; j < IGPT__LIST; j++)
      cells->list[at][j] = (uint16_t)(4 * left->which[igpt__min_size(j, left->count - 1)]);
    cells->kind[at] = left->count > IGPT__LIST ? IGPT__NODE_CROWDED : IGPT__NODE_LIST;
  }
}

/* The node of a pixel whose cell has no list of its own, or none yet. */
static size_t igpt__cells_find(igpt__cells *cells, const uint8_t *rgb, const igpt__nearby *all,
                               const igpt_kernels *kernels)
{
  size_t node = igpt__cell_of(rgb);
  int bit;
  if (cells->kind[node] == IGPT__NODE_NEW) {
    uint8_t low[3];
    int j;
    for (j = 0; j < 3; j++) low[j] = (uint8_t)(rgb[j] & 0xe0);
    igpt__cells_grow(cells, igpt__cell_of(low), low, 0, all, kernels);
  }
  for (bit = 2; cells->kind[node] == IGPT__NODE_SPLIT; bit--)
    node = 8 * (size_t)cells->list[node][0] + (size_t)((rgb[0] >> bit & 1) << 2 |
                                                       (rgb[1] >> bit & 1) << 1 |
                                                       (rgb[2] >> bit & 1));
  return node;
}

/* What igpt__palette_block does, by the table. */
static void igpt__cells_block(igpt__cells *cells, uint16_t *tokens, const uint8_t *rgb,
                              size_t count, const float *centres, const igpt__nearby *all,
                              const igpt_kernels *kernels)
{
  uint16_t which[IGPT__PALETTE_BLOCK] = { 0 }, crowded[IGPT__PALETTE_BLOCK];
  uint8_t pixels[3 * IGPT__PALETTE_BLOCK];
  size_t i, late = 0;
  for (i = 0; i < count; i++) {
    size_t node = igpt__cell_of(rgb + 3 * i);
    if (cells->kind[node] != IGPT__NODE_LIST) {
      node = igpt__cells_find(cells, rgb + 3 * i, all, kernels);
      if (cells->kind[node] == IGPT__NODE_CROWDED) {
        memcpy(pixels + 3 * late, rgb + 3 * i, 3);
        crowded[late++] = (uint16_t)i;
      }
    }
    which[i] = (uint16_t)node;
  }
  kernels->among(tokens, rgb, centres, cells->list[0], which, count);
  if (late) {
    igpt__palette_block(which, pixels, late, all, kernels);
    for (i = 0; i < late; i++) tokens[crowded[i]] = which[i];
  }
}

#define IGPT__ENCODE_CHUNK 16384  /* pixels of a task */

typedef struct igpt__encode {
  const igpt_kernels *kernels;
  igpt__nearby   all;
  float         *centres;         /* (512,4) */
  igpt__cells   *cells;           /* (workers), or null: all centres are looked at */
  uint16_t      *tokens;
  const uint8_t *rgb;
  size_t         pixels;
} igpt__encode;

static void igpt__encode_chunk(void *arg, size_t index, int worker)
{
  const igpt__encode *job = (const igpt__encode *)arg;
  size_t at = index * IGPT__ENCODE_CHUNK;
  size_t end = igpt__min_size(at + IGPT__ENCODE_CHUNK, job->pixels);
  for (; at < end; at += IGPT__PALETTE_BLOCK) {
    size_t count = igpt__min_size(end - at, IGPT__PALETTE_BLOCK);
    if (job->cells)
      igpt__cells_block(&job->cells[worker], job->tokens + at, job->rgb + 3 * at, count,
                        job->centres, &job->all, job->kernels);
    else
      igpt__palette_block(job->tokens + at, job->rgb + 3 * at, count, &job->all, job->kernels);
  }
}

/* A table for each worker, and the centres as the kernel wants them. */
static void igpt__encode_open(igpt__encode *job, igpt__block *block,
                              const igpt_encode_desc *desc)
{
  igpt__arena arena;
  size_t i, j, workers = (size_t)igpt__workers(&desc->runner);
  int pass;
  memset(&arena, 0, sizeof arena);
  for (pass = 0; pass < 2; pass++) {
    igpt__cells *cells = (igpt__cells *)igpt__take(&arena, workers, sizeof *cells);
    job->centres = igpt__take_floats(&arena, 4 * IGPT_PALETTE_MAX);
    if (pass) {
      job->cells = cells;
      break;
    }
    if (igpt__block_open(block, igpt__with_alignment(arena.used), NULL, 0, &desc->allocator, NULL))
      return;
    arena.base = block->aligned;
    arena.used = 0;
  }
  for (i = 0; i < job->all.count; i++)
    for (j = 0; j < 4; j++)
      job->centres[4 * i + j] = j < 3 ? job->all.planes[j * job->all.padded + i] : 0;
  for (i = 0; i < workers; i++) {
    job->cells[i].nodes = IGPT__CELLS;
    memset(job->cells[i].kind, IGPT__NODE_NEW, sizeof job->cells[i].kind);
  }
}

IGPT__ENTRY(igpt_palette_encode,
            (const igpt_palette *palette, uint16_t *tokens, const uint8_t *rgb, size_t pixels,
             const igpt_encode_desc *given), (palette, tokens, rgb, pixels, given))
{
  igpt_encode_desc desc;
  igpt__encode job;
  igpt__block block;
  igpt_result result;
  memset(&desc, 0, sizeof desc);
  memset(&block, 0, sizeof block);
  if (given) desc = *given;
  result = igpt__runner_check(&desc.runner, &desc.log);
  if (result == IGPT_OK) result = igpt__allocator_resolve(&desc.allocator, &desc.log);
  if (result == IGPT_OK) result = igpt__palette_check(palette, &desc.log);
  if (result) return result;
  if (pixels == 0) return IGPT_OK;
  if (!tokens || !rgb)
    return igpt__fail(&desc.log, IGPT_BAD_ARGUMENT, "igpt_palette_encode: %s is null",
                      rgb ? "tokens" : "rgb");
  job.kernels = igpt_kernels_for(desc.isa);
  if (!job.kernels)
    return igpt__fail(&desc.log, IGPT_UNSUPPORTED, "isa %s is not supported here",
                      igpt_isa_name(desc.isa));
  igpt__palette_nearby(&job.all, palette);
  job.cells = NULL;
  job.tokens = tokens;
  job.rgb = rgb;
  job.pixels = pixels;
  /* A table costs about 2^22 distances. Without memory for one it goes slower, and that is all. */
  if (pixels >= ((size_t)1 << 23) / job.all.padded) igpt__encode_open(&job, &block, &desc);
  igpt__run(&desc.runner, igpt__encode_chunk, &job, igpt__divide_up(pixels, IGPT__ENCODE_CHUNK));
  igpt__block_close(&block, &desc.allocator);
  return IGPT_OK;
}

/* rgb = rint(127.5 * (centre + 1)) in float32, half to even, and within a byte. */
static void igpt__palette_bytes(uint8_t (*to)[3], const igpt_palette *palette)
{
  int i, j;
  for (i = 0; i < palette->colours; i++)
    for (j = 0; j < 3; j++) {
      const float v = IGPT__SINGLE(127.5f * IGPT__SINGLE(palette->centre[i][j] + 1.0f));
      float whole = floorf(v), rest = v - whole;
      if (rest > 0.5f || (rest == 0.5f && fmodf(whole, 2.0f) != 0)) whole += 1.0f;
      to[i][j] = (uint8_t)(whole < 0 ? 0 : whole > 255 ? 255 : whole);
    }
}

IGPT__ENTRY(igpt_palette_decode,
            (const igpt_palette *palette, uint8_t *rgb, const uint16_t *tokens, size_t pixels),
            (palette, rgb, tokens, pixels))
{
  uint8_t bytes[IGPT_PALETTE_MAX][3];
  size_t i;
  igpt_result result = igpt__palette_check(palette, NULL);
  if (result) return result;
  if (pixels == 0) return IGPT_OK;
  if (!tokens || !rgb) return IGPT_BAD_ARGUMENT;
  for (i = 0; i < pixels; i++)
    if (tokens[i] >= palette->colours) return IGPT_BAD_ARGUMENT;
  igpt__palette_bytes(bytes, palette);
  for (i = 0; i < pixels; i++) memcpy(rgb + 3 * i, bytes[tokens[i]], 3);
  return IGPT_OK;
}

/* mse = mean over pixels and channels of (rgb - decode(encode(rgb)))^2,
   psnr = 10 log10(255^2 / mse) */
IGPT__ENTRY(igpt_palette_error,
            (const igpt_palette *palette, double *mse, double *psnr, const uint8_t *rgb,
             size_t pixels), (palette, mse, psnr, rgb, pixels))
{
  igpt__nearby all;
  uint8_t bytes[IGPT_PALETTE_MAX][3];
  uint16_t tokens[IGPT__PALETTE_BLOCK];
  size_t at, i, j;
  uint64_t sum = 0;
  double mean;
  const igpt_kernels *kernels;
  igpt_result result = igpt__palette_check(palette, NULL);
  if (result) return result;
  if (!rgb || pixels == 0) return IGPT_BAD_ARGUMENT;
  kernels = igpt_kernels_for(IGPT_ISA_AUTO);
  igpt__palette_nearby(&all, palette);
  igpt__palette_bytes(bytes, palette);
  for (at = 0; at < pixels; at += IGPT__PALETTE_BLOCK) {
    size_t count = igpt__min_size(pixels - at, IGPT__PALETTE_BLOCK);
    const uint8_t *from = rgb + 3 * at;
    igpt__palette_block(tokens, from, count, &all, kernels);
    for (i = 0; i < count; i++)
      for (j = 0; j < 3; j++) {
        int d = (int)from[3 * i + j] - (int)bytes[tokens[i]][j];
        sum += (uint64_t)(d * d);
      }
  }
  mean = (double)sum / ((double)pixels * 3);
  if (mse) *mse = mean;
  if (psnr) *psnr = sum ? 10 * log10(255.0 * 255.0 / mean) : HUGE_VAL;
  return IGPT_OK;
}

/* ---- distinct colours ----------------------------------------------------------------------- */

/* The map: 2^24 bits in words of 64, and how many bits are set in the words before each. */
enum { IGPT__MAP_WORDS = 1 << 18 };

typedef struct igpt__colour_map {
  uint64_t *bits;                 /* (IGPT__MAP_WORDS) */
  uint32_t *before;               /* (IGPT__MAP_WORDS) */
  uint32_t  spread[256];          /* bit b of a byte to bit 3 b */
} igpt__colour_map;

static uint32_t igpt__colour_code(const igpt__colour_map *map, const uint8_t *rgb)
{
  return map->spread[rgb[0]] << 2 | map->spread[rgb[1]] << 1 | map->spread[rgb[2]];
}

static uint32_t igpt__count_bits(uint64_t x)
{
  x -= x >> 1 & 0x5555555555555555u;
  x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  return (uint32_t)(x * 0x0101010101010101u >> 56);
}

/* The number of a colour that is in the map. */
static size_t igpt__colour_number(const igpt__colour_map *map, uint32_t code)
{
  uint64_t below = ((uint64_t)1 << (code & 63)) - 1;
  return map->before[code >> 6] + igpt__count_bits(map->bits[code >> 6] & below);
}

/* ---- k-means -------------------------------------------------------------------------------- */

enum { IGPT__RUN = 128 };         /* colours in a box */
#define IGPT__GROUP 16            /* boxes in a task: centres are filtered for all, then for each */
#define IGPT__SPAN 64             /* tasks between two looks at the watch: 131,072 colours */
#define IGPT__TRIALS 16           /* most candidates for a seed; 8 are drawn for 512 colours */

/* Colours given to a centre: their weight, and their sum. */
typedef struct igpt__cluster { uint64_t weight, sum[3]; } igpt__cluster;

typedef struct igpt__kmeans_worker {
  igpt__nearby  group, run;
  float         points[3 * IGPT__RUN];
  uint16_t      found[IGPT__RUN];
  uint64_t      moved;                       /* colours whose centre changed */
  uint64_t      gain[IGPT__TRIALS];          /* what each candidate would take off the error */
  igpt__cluster cluster[IGPT_PALETTE_MAX];
} igpt__kmeans_worker;

typedef struct igpt__kmeans {
  const igpt_kmeans_desc *desc;
  const igpt_kernels *kernels;
  size_t            distinct;     /* n */
  size_t            runs;         /* boxes: n / IGPT__RUN, rounded up */
  uint8_t         (*colour)[3];   /* (n), in Morton order */
  uint32_t         *weight;       /* (n), pixels of this colour */
  uint32_t         *gap;          /* (n), seeding: squared distance to the nearest seed */
  uint16_t         *owner;        /* (n), index of the nearest centre; 65535: none yet */
  igpt__colour_box *box;          /* (runs) */
  uint64_t         *mass;         /* (runs), seeding: sum of weight * gap ... */
  uint32_t         *reach;        /* (runs), ... and the largest gap */
  igpt__kmeans_worker *worker;    /* (workers) */
  int               workers;
  int               colours;      /* k */
  float             centre[IGPT_PALETTE_MAX][3];    /* in 8-bit steps, on the grid */
  uint16_t          rank[IGPT_PALETTE_MAX];         /* where sorting has put a centre */
  igpt__cluster     cluster[IGPT_PALETTE_MAX];      /* of the last assignment */
  igpt__nearby      all;
  uint64_t          squares;      /* sum of weight * |colour|^2 */
  size_t            trial[IGPT__TRIALS];            /* candidates for the next seed */
  int               trials;
  size_t            first;        /* task 0 of the present span */
  double            done, share;  /* progress before this sweep, and the part that it is */
} igpt__kmeans;

/* One layout for size and pointers. */
static void igpt__kmeans_layout(igpt__kmeans *km, igpt__arena *arena)
{
  size_t n = km->distinct, runs = km->runs;
  km->worker = (igpt__kmeans_worker *)igpt__take(arena, (size_t)km->workers, sizeof *km->worker);
  km->mass = (uint64_t *)igpt__take(arena, runs, sizeof *km->mass);
  km->reach = (uint32_t *)igpt__take(arena, runs, sizeof *km->reach);
  km->box = (igpt__colour_box *)igpt__take(arena, runs, sizeof *km->box);
  km->weight = (uint32_t *)igpt__take(arena, n, sizeof *km->weight);
  km->gap = (uint32_t *)igpt__take(arena, n, sizeof *km->gap);
  km->owner = (uint16_t *)igpt__take(arena, n, sizeof *km->owner);
  km->colour = (uint8_t (*)[3])igpt__take(arena, n, 3);
}

/* task(km, .) over all groups of runs, with a look at the watch between spans. */
static igpt_result igpt__kmeans_sweep(igpt__kmeans *km, igpt_task *task)
{
  size_t groups = igpt__divide_up(km->runs, IGPT__GROUP);
  for (km->first = 0; km->first < groups; km->first += IGPT__SPAN) {
    double part = (double)km->first / (double)groups;
    if (igpt__stopped(&km->desc->watch, km->done + km->share * part)) return IGPT_CANCELLED;
    igpt__run(&km->desc->runner, task, km, igpt__min_size(groups - km->first, IGPT__SPAN));
  }
  return IGPT_OK;
}

/* Runs [*from, *to) of a task. */
static void igpt__kmeans_group(const igpt__kmeans *km, size_t index, size_t *from, size_t *to)
{
  *from = (km->first + index) * IGPT__GROUP;
  *to = igpt__min_size(*from + IGPT__GROUP, km->runs);
}

static uint32_t igpt__colour_distance(const uint8_t *a, const uint8_t *b)
{
  int r = (int)a[0] - (int)b[0], g = (int)a[1] - (int)b[1], c = (int)a[2] - (int)b[2];
  return (uint32_t)(r * r + g * g + c * c);
}

/* Squared distance from a colour to the nearest place of a box. */
static uint32_t igpt__box_distance(const igpt__colour_box *box, const uint8_t *a)
{
  uint8_t b[3];
  int j;
  for (j = 0; j < 3; j++)
    b[j] = a[j] < box->low[j] ? box->low[j] : a[j] > box->high[j] ? box->high[j] : a[j];
  return igpt__colour_distance(a, b);
}

/* ---- seeding: k-means++ --------------------------------------------------------------------- */

/* A colour becomes a seed with a probability proportional to weight * gap, its part of the present
   error. Of 2 + ln k candidates drawn so, the one that lowers the error most is taken. */

/* gain_t += sum over the colours that candidate t is nearer to of weight * (gap - distance) */
static void igpt__kmeans_try(void *arg, size_t index, int worker)
{
  const igpt__kmeans *km = (const igpt__kmeans *)arg;
  igpt__kmeans_worker *own = &km->worker[worker];
  size_t run, from, to, i;
  int t;
  igpt__kmeans_group(km, index, &from, &to);
  for (run = from; run < to; run++) {
    size_t begin = run * IGPT__RUN, end = igpt__min_size(begin + IGPT__RUN, km->distinct);
    for (t = 0; t < km->trials; t++) {
      const uint8_t *candidate = km->colour[km->trial[t]];
      uint64_t gain = 0;
      if (igpt__box_distance(&km->box[run], candidate) >= km->reach[run]) continue;
      for (i = begin; i < end; i++) {
        uint32_t distance = igpt__colour_distance(km->colour[i], candidate);
        if (distance < km->gap[i]) gain += (uint64_t)km->weight[i] * (km->gap[i] - distance);
      }
      own->gain[t] += gain;
    }
  }
}

/* gap = min(gap, distance to the seed trial[0]), with the sums and maxima of the runs */
static void igpt__kmeans_take(void *arg, size_t index, int worker)
{
  const igpt__kmeans *km = (const igpt__kmeans *)arg;
  const uint8_t *seed = km->colour[km->trial[0]];
  size_t run, from, to, i;
  (void)worker;
  igpt__kmeans_group(km, index, &from, &to);
  for (run = from; run < to; run++) {
    size_t begin = run * IGPT__RUN, end = igpt__min_size(begin + IGPT__RUN, km->distinct);
    uint64_t mass = 0;
    uint32_t reach = 0;
    if (igpt__box_distance(&km->box[run], seed) >= km->reach[run]) continue;
    for (i = begin; i < end; i++) {
      uint32_t distance = igpt__colour_distance(km->colour[i], seed);
      if (distance < km->gap[i]) km->gap[i] = distance;
      if (km->gap[i] > reach) reach = km->gap[i];
      mass += (uint64_t)km->weight[i] * km->gap[i];
    }
    km->mass[run] = mass;
    km->reach[run] = reach;
  }
}

/* [0, bound) without bias, for bounds beyond 32 bits. */
static uint64_t igpt__rng_below64(igpt_rng *rng, uint64_t bound)
{
  uint64_t least = (0 - bound) % bound, draw;
  do {
    draw = (uint64_t)igpt_rng_next(rng) << 32;
    draw |= igpt_rng_next(rng);
  } while (draw < least);
  return draw % bound;
}

/* The colour at place `at` of the line on which each takes weight * gap (gap null: weight). */
static size_t igpt__kmeans_pick(const igpt__kmeans *km, uint64_t at, const uint32_t *gap)
{
  size_t run = 0, i, end;
  if (gap)
    while (run + 1 < km->runs && at >= km->mass[run]) at -= km->mass[run++];
  end = gap ? igpt__min_size((run + 1) * IGPT__RUN, km->distinct) : km->distinct;
  for (i = run * IGPT__RUN; i + 1 < end; i++) {
    uint64_t part = (uint64_t)km->weight[i] * (gap ? gap[i] : 1);
    if (at < part) break;
    at -= part;
  }
  return i;
}

static igpt_result igpt__kmeans_seed(igpt__kmeans *km, uint64_t pixels)
{
  igpt_rng rng = igpt_rng_seed(km->desc->seed, 0);
  igpt_result result;
  size_t i;
  int seed, t, w, j, trials = 2 + (int)log((double)km->colours);
  double share = km->share / km->colours;
  if (trials > IGPT__TRIALS) trials = IGPT__TRIALS;
  for (i = 0; i < km->distinct; i++) km->gap[i] = 0xffffffffu;
  for (i = 0; i < km->runs; i++) km->reach[i] = 0xffffffffu;
  for (seed = 0; seed < km->colours; seed++) {
    if (seed == 0) {
      km->trial[0] = igpt__kmeans_pick(km, igpt__rng_below64(&rng, pixels), NULL);
    } else {
      uint64_t error = 0, best = 0;
      for (i = 0; i < km->runs; i++) error += km->mass[i];
      for (t = 0; t < trials; t++)
        km->trial[t] = igpt__kmeans_pick(km, igpt__rng_below64(&rng, error), km->gap);
      for (w = 0; w < km->workers; w++) memset(km->worker[w].gain, 0, sizeof km->worker[w].gain);
      km->trials = trials;
      km->share = 0;
      result = igpt__kmeans_sweep(km, igpt__kmeans_try);
      if (result) return result;
      for (t = 0; t < trials; t++) {
        uint64_t gain = 0;
        for (w = 0; w < km->workers; w++) gain += km->worker[w].gain[t];
        if (gain > best) { best = gain; km->trial[0] = km->trial[t]; }
      }
    }
    km->share = share;
    result = igpt__kmeans_sweep(km, igpt__kmeans_take);
    if (result) return result;
    km->done += share;
    for (j = 0; j < 3; j++) km->centre[seed][j] = (float)km->colour[km->trial[0]][j];
  }
  return IGPT_OK;
}

/* ---- Lloyd ---------------------------------------------------------------------------------- */

static void igpt__box_join(igpt__colour_box *box, const igpt__colour_box *other)
{
  int j;
  for (j = 0; j < 3; j++) {
    if (other->low[j] < box->low[j]) box->low[j] = other->low[j];
    if (other->high[j] > box->high[j]) box->high[j] = other->high[j];
  }
}

/* owner = nearest centre; sums of its colours */
static void igpt__kmeans_assign(void *arg, size_t index, int worker)
{
  const igpt__kmeans *km = (const igpt__kmeans *)arg;
  igpt__kmeans_worker *own = &km->worker[worker];
  igpt__colour_box box;
  size_t run, from, to, i, j;
  igpt__kmeans_group(km, index, &from, &to);
  box = km->box[from];
  for (run = from + 1; run < to; run++) igpt__box_join(&box, &km->box[run]);
  igpt__palette_filter(&own->group, &km->all, &box, km->kernels);
  for (run = from; run < to; run++) {
    size_t begin = run * IGPT__RUN, count = igpt__min_size(IGPT__RUN, km->distinct - begin);
    igpt__palette_filter(&own->run, &own->group, &km->box[run], km->kernels);
    for (i = 0; i < count; i++)
      for (j = 0; j < 3; j++) own->points[3 * i + j] = km->colour[begin + i][j];
    km->kernels->nearest(own->found, own->points, own->run.planes, count, own->run.padded);
    for (i = 0; i < count; i++) {
      uint16_t next = own->run.which[own->found[i]], *owner = &km->owner[begin + i];
      const uint8_t *colour = km->colour[begin + i];
      uint64_t weight = km->weight[begin + i];
      igpt__cluster *cluster = &own->cluster[next];
      own->moved += *owner == 0xffff || km->rank[*owner] != next;
      *owner = next;
      cluster->weight += weight;
      for (j = 0; j < 3; j++) cluster->sum[j] += weight * colour[j];
    }
  }
}

/* Centres are kept in the order of their luma (then R, G, B), so that neighbouring tokens look
   alike and a strip of the palette runs from dark to light. rank[i] is the new place of centre i.
   It is done before every assignment, not once at the end, so that ties are settled by the final
   order and a palette that has converged is a fixed point. */
static void igpt__kmeans_sort(igpt__kmeans *km)
{
  double key[IGPT_PALETTE_MAX];
  uint16_t order[IGPT_PALETTE_MAX];
  float centre[IGPT_PALETTE_MAX][3];
  int i, j, k = km->colours;
  memcpy(centre, km->centre, sizeof centre);
  for (i = 0; i < k; i++) {
    const float *v = centre[i];
    double luma = 0.299 * (double)v[0] + 0.587 * (double)v[1] + 0.114 * (double)v[2];
    key[i] = luma;
    for (j = i; j > 0; j--) {
      const float *u = centre[order[j - 1]];
      double other = key[order[j - 1]];
      if (other < luma) break;
      if (other == luma && (u[0] < v[0] || (u[0] == v[0] && u[1] <= v[1]))) break;
      order[j] = order[j - 1];
    }
    order[j] = (uint16_t)i;
  }
  for (i = 0; i < k; i++) {
    km->rank[order[i]] = (uint16_t)i;
    memcpy(km->centre[i], centre[order[i]], sizeof km->centre[i]);
  }
}

/* One assignment: sorts the centres, gives the colours to them, adds up clusters. *moved is how
   many colours have changed their centre, *error = sum of weight * |colour - centre|^2, as
   sum weight |colour|^2 + sum over centres of (weight |centre|^2 - 2 centre . sum). */
static igpt_result igpt__kmeans_round(igpt__kmeans *km, uint64_t *moved, double *error)
{
  igpt_result result;
  int i, j, w;
  igpt__kmeans_sort(km);
  km->all.count = (size_t)km->colours;
  km->all.padded = igpt__size_round(km->all.count, 16);
  for (i = 0; i < km->colours; i++) {
    km->all.which[i] = (uint16_t)i;
    for (j = 0; j < 3; j++)
      km->all.planes[(size_t)j * km->all.padded + (size_t)i] = km->centre[i][j];
  }
  for (w = 0; w < km->workers; w++) {
    km->worker[w].moved = 0;
    memset(km->worker[w].cluster, 0, sizeof km->worker[w].cluster);
  }
  result = igpt__kmeans_sweep(km, igpt__kmeans_assign);
  if (result) return result;
  *moved = 0;
  *error = (double)km->squares;
  memset(km->cluster, 0, sizeof km->cluster);
  for (w = 0; w < km->workers; w++) *moved += km->worker[w].moved;
  for (i = 0; i < km->colours; i++) {
    igpt__cluster *cluster = &km->cluster[i];
    double change = 0;
    for (w = 0; w < km->workers; w++) {
      cluster->weight += km->worker[w].cluster[i].weight;
      for (j = 0; j < 3; j++) cluster->sum[j] += km->worker[w].cluster[i].sum[j];
    }
    for (j = 0; j < 3; j++) {
      double v = (double)km->centre[i][j];
      change += v * ((double)cluster->weight * v - 2 * (double)cluster->sum[j]);
    }
    *error += change;
  }
  if (*error < 0) *error = 0;     /* all colours are centres, and the sum was rounded */
  return IGPT_OK;
}

/* A centre that no colour is nearest to takes the colour that has the largest part of the error,
   weight * |colour - centre|^2 (the first of equals), out of a cluster of more than one colour. */
static igpt_result igpt__kmeans_repair(igpt__kmeans *km, int empty)
{
  size_t i, best = 0;
  double most = -1;
  igpt__cluster *from;
  int j;
  for (i = 0; i < km->distinct; i++) {
    const igpt__cluster *cluster = &km->cluster[km->owner[i]];
    double distance = 0;
    if (i % (IGPT__RUN * IGPT__GROUP * IGPT__SPAN) == 0 &&
        igpt__stopped(&km->desc->watch, km->done)) return IGPT_CANCELLED;
    if (cluster->weight == km->weight[i]) continue;
    for (j = 0; j < 3; j++) {
      double d = (double)km->colour[i][j] - (double)km->centre[km->owner[i]][j];
      distance += d * d;
    }
    distance *= (double)km->weight[i];
    if (distance > most) { most = distance; best = i; }
  }
  from = &km->cluster[km->owner[best]];
  from->weight -= km->weight[best];
  km->cluster[empty].weight = km->weight[best];
  for (j = 0; j < 3; j++) {
    km->cluster[empty].sum[j] = (uint64_t)km->weight[best] * km->colour[best][j];
    from->sum[j] -= km->cluster[empty].sum[j];
  }
  km->owner[best] = (uint16_t)empty;
  return IGPT_OK;
}

/* Rounds from the centres that are there, until no colour changes its centre. */
static igpt_result igpt__kmeans_lloyd(igpt__kmeans *km, igpt_kmeans_report *report, uint64_t pixels)
{
  const igpt_kmeans_desc *desc = km->desc;
  int rounds = desc->max_iterations ? desc->max_iterations : 100, i, j;
  double error = 0, previous;
  uint64_t moved = 0;
  igpt_result result;
  km->done = 0.3;                 /* of the time, about: the seeds */
  km->share = 0.7 / (rounds + 1.0);
  for (i = 0; i < km->colours; i++) km->rank[i] = (uint16_t)i;
  memset(km->owner, 255, km->distinct * sizeof *km->owner);
  result = igpt__kmeans_round(km, &moved, &error);
  while (result == IGPT_OK && moved && report->iterations < rounds) {
    km->done += km->share;
    for (i = 0; i < km->colours; i++)
      if (km->cluster[i].weight == 0) {
        result = igpt__kmeans_repair(km, i);
        if (result) return result;
        report->repaired++;
      }
    for (i = 0; i < km->colours; i++)
      for (j = 0; j < 3; j++)
        km->centre[i][j] = igpt__palette_step((double)km->cluster[i].sum[j] /
                                              (double)km->cluster[i].weight);
    report->iterations++;
    previous = error;
    result = igpt__kmeans_round(km, &moved, &error);
    if (desc->tolerance > 0 && previous - error < (double)desc->tolerance * previous) break;
  }
  report->mse = error / (3 * (double)pixels);
  return result;
}

/* The name, cut to fit at the end of a whole UTF-8 character; it may be the palette's own. */
static void igpt__palette_name(igpt_palette *palette, const char *name)
{
  size_t n = 0;
  while (name[n] && n + 1 < sizeof palette->name) n++;
  if (name[n])
    while (n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80) n--;
  memmove(palette->name, name, n);
  memset(palette->name + n, 0, sizeof palette->name - n);
}

/* Pixels into the map, then the numbers of its bits. */
static igpt_result igpt__colour_mark(igpt__colour_map *map, size_t *distinct, const uint8_t *rgb,
                                     size_t pixels, const igpt_watch *watch)
{
  size_t i, count = 0;
  uint32_t b, value;
  for (value = 0; value < 256; value++) {
    map->spread[value] = 0;
    for (b = 0; b < 8; b++) map->spread[value] |= (value >> b & 1) << 3 * b;
  }
  memset(map->bits, 0, IGPT__MAP_WORDS * sizeof *map->bits);
  for (i = 0; i < pixels; i++) {
    uint32_t code = igpt__colour_code(map, rgb + 3 * i);
    if ((i & 0xfffff) == 0 && igpt__stopped(watch, 0)) return IGPT_CANCELLED;
    map->bits[code >> 6] |= (uint64_t)1 << (code & 63);
  }
  for (i = 0; i < IGPT__MAP_WORDS; i++) {
    map->before[i] = (uint32_t)count;
    count += igpt__count_bits(map->bits[i]);
  }
  *distinct = count;
  return IGPT_OK;
}

/* Colours, their weights and the boxes of their runs. */
static igpt_result igpt__kmeans_colours(igpt__kmeans *km, const igpt__colour_map *map,
                                        const uint8_t *rgb, size_t pixels)
{
  const uint8_t black[3] = {0, 0, 0};
  size_t i, at = 0, run;
  uint32_t b;
  memset(km->weight, 0, km->distinct * sizeof *km->weight);
  for (i = 0; i < pixels; i++) {
    if ((i & 0xfffff) == 0 && igpt__stopped(&km->desc->watch, 0)) return IGPT_CANCELLED;
    km->weight[igpt__colour_number(map, igpt__colour_code(map, rgb + 3 * i))]++;
  }
  for (i = 0; i < IGPT__MAP_WORDS; i++) {
    uint64_t word;
    uint32_t code = (uint32_t)i << 6;
    for (word = map->bits[i]; word; word >>= 1, code++)
      if (word & 1) {
        uint8_t *colour = km->colour[at];
        memset(colour, 0, 3);
        for (b = 0; b < 24; b++)
          colour[2 - b % 3] = (uint8_t)(colour[2 - b % 3] | (code >> b & 1) << b / 3);
        km->squares += km->weight[at] * (uint64_t)igpt__colour_distance(colour, black);
        at++;
      }
  }
  for (run = 0; run < km->runs; run++) {
    size_t end = igpt__min_size((run + 1) * IGPT__RUN, km->distinct);
    for (i = run * IGPT__RUN; i < end; i++) {
      igpt__colour_box one;
      memcpy(one.low, km->colour[i], 3);
      memcpy(one.high, km->colour[i], 3);
      if (i == run * IGPT__RUN) km->box[run] = one;
      igpt__box_join(&km->box[run], &one);
    }
  }
  return IGPT_OK;
}

static igpt_result igpt__kmeans_check(igpt_kmeans_desc *desc, const igpt_palette *out,
                                      const uint8_t *rgb, size_t pixels)
{
  const igpt_log *log = &desc->log;
  igpt_result result = igpt__runner_check(&desc->runner, log);
  if (result == IGPT_OK) result = igpt__allocator_resolve(&desc->allocator, log);
  if (result) return result;
  if (!out || !rgb)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "igpt_palette_fit: %s is null", out ? "rgb" : "out");
  if (pixels == 0)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "igpt_palette_fit: pixels is 0, and must be >= 1");
  if (pixels >> 31 > 1)             /* so that 32-bit compilers see nothing always false */
    return igpt__fail(log, IGPT_TOO_LARGE, "igpt_palette_fit: pixels is %z, and at most %z are"
                      " counted: fit on a part of them", pixels, (size_t)0xffffffffu);
  if (desc->colours < 0 || desc->colours > IGPT_PALETTE_MAX)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "colours is %d, and must be 0..%d", desc->colours,
                      IGPT_PALETTE_MAX);
  if (desc->max_iterations < 0)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "max_iterations is %d, and must be >= 0",
                      desc->max_iterations);
  if (!(desc->tolerance >= 0 && desc->tolerance < 1))
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "tolerance is %g, and must be >= 0 and < 1",
                      (double)desc->tolerance);
  if (!igpt_kernels_for(desc->isa))
    return igpt__fail(log, IGPT_UNSUPPORTED, "isa %s is not supported here",
                      igpt_isa_name(desc->isa));
  return IGPT_OK;
}

IGPT__ENTRY(igpt_palette_fit,
            (igpt_palette *out, igpt_kmeans_report *report, const uint8_t *rgb, size_t pixels,
             const igpt_kmeans_desc *given), (out, report, rgb, pixels, given))
{
  igpt_kmeans_desc desc;
  igpt_kmeans_report written;
  igpt__block map_block, block;
  igpt__arena arena;
  igpt__colour_map *map;
  igpt__kmeans *km;
  igpt_result result;
  int pass, i, j;
  memset(&desc, 0, sizeof desc);
  memset(&written, 0, sizeof written);
  memset(&block, 0, sizeof block);
  if (given) desc = *given;
  result = igpt__kmeans_check(&desc, out, rgb, pixels);
  if (result) return result;

  /* The first block: the map, and the state, which is too large for some stacks. */
  memset(&arena, 0, sizeof arena);
  for (pass = 0;; pass++) {
    uint64_t *bits = (uint64_t *)igpt__take(&arena, IGPT__MAP_WORDS, sizeof *bits);
    uint32_t *before = (uint32_t *)igpt__take(&arena, IGPT__MAP_WORDS, sizeof *before);
    map = (igpt__colour_map *)igpt__take(&arena, 1, sizeof *map);
    km = (igpt__kmeans *)igpt__take(&arena, 1, sizeof *km);
    if (pass) {
      map->bits = bits;
      map->before = before;
      break;
    }
    result = igpt__block_open(&map_block, igpt__with_alignment(arena.used), NULL, 0,
                              &desc.allocator, &desc.log);
    if (result) return result;
    arena.base = map_block.aligned;
    arena.used = 0;
  }
  memset(km, 0, sizeof *km);
  km->desc = &desc;
  km->kernels = igpt_kernels_for(desc.isa);
  km->workers = igpt__workers(&desc.runner);
  result = igpt__colour_mark(map, &km->distinct, rgb, pixels, &desc.watch);

  /* The second: all that has a size of the number of distinct colours. */
  if (result == IGPT_OK) {
    km->runs = igpt__divide_up(km->distinct, IGPT__RUN);
    memset(&arena, 0, sizeof arena);
    igpt__kmeans_layout(km, &arena);
    result = igpt__block_open(&block, igpt__with_alignment(arena.used), NULL, 0, &desc.allocator,
                              &desc.log);
  }
  if (result == IGPT_OK) {
    arena.base = block.aligned;
    arena.used = 0;
    igpt__kmeans_layout(km, &arena);
    result = igpt__kmeans_colours(km, map, rgb, pixels);
  }
  if (result == IGPT_OK) {
    km->colours = desc.colours ? desc.colours : IGPT_PALETTE_MAX;
    written.distinct = km->distinct;
    if (km->distinct <= (size_t)km->colours) {       /* every colour is its own centre */
      km->colours = (int)km->distinct;
      for (i = 0; i < km->colours; i++)
        for (j = 0; j < 3; j++) km->centre[i][j] = (float)km->colour[i][j];
      igpt__kmeans_sort(km);
    } else {
      km->share = 0.3;
      result = igpt__kmeans_seed(km, (uint64_t)pixels);
      if (result == IGPT_OK) result = igpt__kmeans_lloyd(km, &written, (uint64_t)pixels);
    }
  }
  if (result == IGPT_OK) {
    memset(out->centre, 0, sizeof out->centre);
    out->colours = km->colours;
    igpt__palette_name(out, desc.name ? desc.name : "k-means");
    for (i = 0; i < km->colours; i++)
      for (j = 0; j < 3; j++) out->centre[i][j] = igpt__palette_unit_of(km->centre[i][j]);
    if (report) *report = written;
  }
  igpt__block_close(&block, &desc.allocator);
  igpt__block_close(&map_block, &desc.allocator);
  return result;
}

/* ==== 15. linear probe =======================================================================

   How good are the features of a layer? Fit the simplest classifier to them and count its errors.
   The classifier is multinomial logistic regression: z = W x + b, p = softmax(z), with W (K,D) and
   b (K), and it is the minimum of

     f(W, b) = 1/N sum over rows of -log p[label] + |W|^2 / (2 C N)                              (*)

   which is scikit-learn's objective divided by C N, with one row of W for each class, also where
   there are only two. f is convex: there is one minimum, and the way to it is a matter of taste.
   L-BFGS (limited memory) takes steps d = -H g, where H is the inverse of the curvature as the last
   10 changes of the gradient show it; SGD takes many cheap steps on batches of rows, for data that
   are too many for whole passes.

   Features of a network lie in a few directions, and to sort those out takes L-BFGS hundreds of
   steps. But at W = 0, where p = 1/K, the curvature is known: M / K for every class, with M the
   mean of x x^T, (D+1,D+1), where x ends with a 1 for b. M, of 16 D rows, is what H begins with:
   the first step is Newton's, and those after it only follow p as it departs from 1/K. The features
   of tests/probe.c take 14 steps instead of 229. M costs 16 D^3 operations, as much as two
   evaluations if D is 512, K is 10 and N 50,000.

   Rows are read once an evaluation: 32 of them stay in the cache between the two products, W x and
   (p - onehot) x^T, the softmax of all 32 is taken side by side, and the next ones are asked for
   meanwhile. A task is a chunk of rows, of a size that only depends on the problem's, and
   adds to the sums of its slot; slots are added up in their order, so that results do not depend on
   who did what. Products are float32 within a chunk, sums over chunks and the optimiser float64. An
   evaluation costs 4 N D K operations.

   Liu, Nocedal: "On the limited memory BFGS method for large scale optimization", 1989. Hager and
   Zhang: "A new conjugate gradient method with guaranteed descent", 2005.                        */

struct igpt_probe {
  const igpt_kernels *kernels;
  size_t         features;        /* D */
  int            classes;         /* K */
  float         *weights;         /* (K,D) */
  float         *intercepts;      /* (K) */
  igpt_allocator allocator;
  igpt__block    memory;
};

#define IGPT__PROBE_MEMORY 10     /* pairs of L-BFGS */
#define IGPT__PROBE_ROWS 32       /* rows between the two products */
#define IGPT__PROBE_SLOTS 16      /* chunks of a span: of the rows between two looks at the watch */
#define IGPT__PROBE_BLOCK 1024    /* parameters of a task that adds up slots */
#define IGPT__PROBE_COLUMNS 128   /* features of a task that finds means */
#define IGPT__PROBE_MOMENTS 256   /* rows that M grows by */
#define IGPT__PROBE_TURN 64       /* classes that H turns between two looks at the watch */
#define IGPT__PROBE_WIDEST 4096   /* more features, and M is left out */

/* Everything of one fit. Parameters are one vector of P float64: W (K,D), then b (K) if any. */
typedef struct igpt__fit {
  igpt_probe_desc desc;           /* resolved */
  const igpt_kernels *kernels;
  const float   *x;               /* (N,D), the caller's */
  const int32_t *labels;          /* (N) */
  size_t   rows, features;        /* N, D */
  size_t   classes;               /* K */
  size_t   parameters;            /* P */
  size_t   chunk;                 /* rows of a task, a multiple of IGPT__PROBE_ROWS */
  size_t   slots;                 /* tasks of a span, at most IGPT__PROBE_SLOTS */
  float   *w;                     /* (K,D), W / deviation in float32 */
  float   *b;                     /* (K) */
  float   *minus_mean;            /* (D), standardise only */
  double  *inverse;               /* (D), 1 / deviation, standardise only */
  double  *sums;                  /* (slots,P): gradients of the loss's sum */
  double  *losses;                /* (slots) */
  float   *scratch;               /* a worker: logits (ROWS,K), later delta packed, delta (K,ROWS),
                                     product (K,D), and rows (ROWS,D) that are not used as they lie
                                     in x */
  size_t   scratch_floats;
  uint32_t *order;                /* (N), SGD: the rows of an epoch */
  size_t   side;                  /* of M: D + 1, D without intercepts; 0: no M */
  size_t   ldm;                   /* its stride, whole panels of tiles */
  float   *m;                     /* (side,ldm): M of unit diagonal, then its Cholesky factor */
  float   *size;                  /* (side), what that took out: M[i][j] size[i] size[j] */
  float   *some;                  /* (MOMENTS,ldm) rows of x with a 1 */
  double  *vectors[6 + 2 * IGPT__PROBE_MEMORY];     /* (P) each */
  double  *gradient;              /* what slots or moments add up to */
  size_t   first, count;          /* the present span */
  size_t   used;                  /* slots that hold something; others start anew */
  const uint32_t *chosen;         /* row i of the pass is chosen[i], or i where this is null */
} igpt__fit;

/* One layout for size and pointers. */
static void igpt__fit_layout(igpt__fit *fit, igpt__arena *arena)
{
  size_t k = fit->classes, d = fit->features;
  int i, sgd = fit->desc.method == IGPT_SGD;
  fit->w = igpt__take_floats(arena, igpt__size_mul(k, d));
  fit->b = igpt__take_floats(arena, k);
  if (fit->desc.standardise) {
    fit->minus_mean = igpt__take_floats(arena, d);
    fit->inverse = (double *)igpt__take(arena, d, sizeof(double));
  }
  fit->sums = (double *)igpt__take(arena, igpt__size_mul(fit->slots, fit->parameters),
                                   sizeof(double));
  fit->losses = (double *)igpt__take(arena, fit->slots, sizeof(double));
  fit->scratch_floats = IGPT__PROBE_ROWS * (size_t)fit->kernels->tile_rows;
  fit->scratch_floats = igpt__size_add(fit->scratch_floats,
                                       igpt__size_mul(k, igpt__size_add(2 * IGPT__PROBE_ROWS, d)));
  if (sgd || fit->desc.standardise)
    fit->scratch_floats = igpt__size_add(fit->scratch_floats, igpt__size_mul(IGPT__PROBE_ROWS, d));
  if (sgd) fit->order = (uint32_t *)igpt__take(arena, fit->rows, sizeof(uint32_t));
  fit->side = sgd || d > IGPT__PROBE_WIDEST ? 0 : d + (fit->desc.no_intercept ? 0 : 1);
  if (fit->side) {
    fit->ldm = igpt__size_round(fit->side, (size_t)fit->kernels->tile_columns);
    fit->m = igpt__take_floats(arena, fit->side * fit->ldm);
    fit->size = igpt__take_floats(arena, fit->side);
    fit->some = igpt__take_floats(arena, IGPT__PROBE_MOMENTS * fit->ldm);
    fit->scratch_floats = igpt__max_size(
      fit->scratch_floats, IGPT__PROBE_MOMENTS * (size_t)fit->kernels->tile_rows);
  }
  fit->scratch_floats = igpt__size_round(igpt__max_size(fit->scratch_floats, d + 1), 16);
  fit->scratch = igpt__take_floats(arena, igpt__size_mul((size_t)igpt__workers(&fit->desc.runner),
                                                         fit->scratch_floats));
  for (i = 0; i < (sgd ? 3 : 6 + 2 * IGPT__PROBE_MEMORY); i++)
    fit->vectors[i] = (double *)igpt__take(arena, fit->parameters, sizeof(double));
}

/* ---- the objective and its gradient --------------------------------------------------------- */

/* Rows from number `at` of the pass on, centred and in a row: x itself where they are so. */
static const float *igpt__probe_rows(const igpt__fit *fit, float *copy, size_t at, size_t rows)
{
  size_t d = fit->features, r;
  if (!fit->chosen && !fit->minus_mean) return fit->x + at * d;
  for (r = 0; r < rows; r++) {
    size_t row = fit->chosen ? fit->chosen[at + r] : at + r;
    memcpy(copy + r * d, fit->x + row * d, d * sizeof *copy);
    if (fit->minus_mean) fit->kernels->add(copy + r * d, fit->minus_mean, d);
  }
  return copy;
}

/* A chunk: its loss, and the gradient of its sum, delta (K,rows) x (rows,D), to its slot. */
static void igpt__probe_chunk(void *arg, size_t index, int worker)
{
  const igpt__fit *fit = (const igpt__fit *)arg;
  const igpt_kernels *kernels = fit->kernels;
  size_t d = fit->features, classes = fit->classes, i, k, r;
  const size_t mr = (size_t)kernels->tile_rows, nr = (size_t)kernels->tile_columns;
  float *z = fit->scratch + (size_t)worker * fit->scratch_floats;
  float *delta = z + IGPT__PROBE_ROWS * (classes + mr);
  float *product = delta + IGPT__PROBE_ROWS * classes;
  float own[IGPT__PROBE_ROWS], gap[IGPT__PROBE_ROWS], excess[IGPT__PROBE_ROWS];
  size_t label[IGPT__PROBE_ROWS];
  double *sums = fit->sums + index * fit->parameters, loss = 0;
  size_t from = fit->first + index * fit->chunk;
  size_t to = igpt__min_size(from + fit->chunk, fit->first + fit->count), at;
  float spoiled = 0;              /* NaN once a logit is not finite */
  memset(own, 0, sizeof own);     /* where fewer rows are left, the other columns are finite too */
  memset(delta, 0, IGPT__PROBE_ROWS * classes * sizeof *delta);
  if (index >= fit->used) {
    memset(sums, 0, fit->parameters * sizeof *sums);
    fit->losses[index] = 0;
  }
  for (at = from; at < to; at += IGPT__PROBE_ROWS) {
    size_t rows = igpt__min_size(to - at, IGPT__PROBE_ROWS);
    const float *x = igpt__probe_rows(fit, product + classes * d, at, rows);
    const size_t coming = igpt__min_size(to - at - rows, IGPT__PROBE_ROWS);
    double others = 0;            /* log(1 + a) + log(1 + b) = log(1 + (a + b + a b)) */
    kernels->dots(z, classes, x, d, fit->w, d, rows, classes, d);
    for (r = 0; r < rows; r++) {
      label[r] = (size_t)fit->labels[fit->chosen ? fit->chosen[at + r] : at + r];
      for (k = 0; k < classes; k++) {
        const float logit = z[r * classes + k] + fit->b[k];
        spoiled += 0 * logit;
        delta[k * IGPT__PROBE_ROWS + r] = logit;
      }
      own[r] = delta[label[r] * IGPT__PROBE_ROWS + r];
      delta[label[r] * IGPT__PROBE_ROWS + r] = -HUGE_VALF;
    }
    kernels->class_loss(delta, own, gap, excess, classes, IGPT__PROBE_ROWS);
    for (r = 0; r < rows; r++) {
      delta[label[r] * IGPT__PROBE_ROWS + r] = own[r];
      others += (double)excess[r] + others * (double)excess[r];
      loss += (double)gap[r];
    }
    loss += log1p(others);
    kernels->pack(z, mr, delta, IGPT__PROBE_ROWS, 1, classes, rows, 0);
    for (i = 0; i + nr <= d; i += nr) {
      for (r = i * coming / d; r < (i + nr) * coming / d; r++) {
        const size_t next = at + IGPT__PROBE_ROWS + r;
        const float *row = fit->x + (fit->chosen ? fit->chosen[next] : next) * d;
        for (k = 0; k < d; k += 16) IGPT__PREFETCH_L2(row + k);
      }
      for (k = 0; k < classes; k += mr)
        kernels->tile(product + k * d + i, d, z + k * rows, x + i, d,
                      igpt__min_size(mr, classes - k), rows, at > from);
    }
    if (i < d)
      kernels->thin(product + i, d, delta, IGPT__PROBE_ROWS, x + i, d, classes, d - i, rows,
                    at > from, 0);
    if (!fit->desc.no_intercept)
      for (k = 0; k < classes; k++)
        for (r = 0; r < rows; r++)
          sums[classes * d + k] += (double)delta[k * IGPT__PROBE_ROWS + r];
  }
  for (i = 0; i < classes * d; i++) sums[i] += (double)product[i];
  fit->losses[index] += loss + (double)spoiled;
}

/* gradient = the sum over slots, in their order: a block of parameters */
static void igpt__probe_reduce(void *arg, size_t index, int worker)
{
  const igpt__fit *fit = (const igpt__fit *)arg;
  size_t from = index * IGPT__PROBE_BLOCK, i, slot;
  size_t count = igpt__min_size(fit->parameters - from, IGPT__PROBE_BLOCK);
  double *to = fit->gradient + from;
  (void)worker;
  memcpy(to, fit->sums + from, count * sizeof *to);
  for (slot = 1; slot < fit->used; slot++) {
    const double *add = fit->sums + slot * fit->parameters + from;
    for (i = 0; i < count; i++) to[i] += add[i];
  }
}

/* *loss and gradient (P) of the sum over rows `from` to `to` of the pass */
static igpt_result igpt__probe_sum(igpt__fit *fit, double *loss, double *gradient, size_t from,
                                   size_t to, double done)
{
  size_t slot;
  fit->used = 0;
  for (fit->first = from; fit->first < to; fit->first += fit->count) {
    size_t tasks;
    if (igpt__stopped(&fit->desc.watch, done)) return IGPT_CANCELLED;
    fit->count = igpt__min_size(to - fit->first, fit->slots * fit->chunk);
    tasks = igpt__divide_up(fit->count, fit->chunk);
    igpt__run(&fit->desc.runner, igpt__probe_chunk, fit, tasks);
    fit->used = igpt__max_size(fit->used, tasks);
  }
  fit->gradient = gradient;
  igpt__run(&fit->desc.runner, igpt__probe_reduce, fit,
            igpt__divide_up(fit->parameters, IGPT__PROBE_BLOCK));
  *loss = 0;
  for (slot = 0; slot < fit->used; slot++) *loss += fit->losses[slot];
  return IGPT_OK;
}

/* w, b = the parameters as the rows want them: scaled, in float32. */
static void igpt__probe_set(igpt__fit *fit, const double *parameters)
{
  size_t d = fit->features, j, k;
  for (k = 0; k < fit->classes; k++) {
    for (j = 0; j < d; j++)
      fit->w[k * d + j] =
        (float)(parameters[k * d + j] * (fit->inverse ? fit->inverse[j] : 1));
    fit->b[k] = fit->desc.no_intercept ? 0 : (float)parameters[fit->classes * d + k];
  }
}

/* gradient = (sum over `rows` rows) / rows + W / (C N); returns |W|^2 / (2 C N). */
static double igpt__probe_mean(igpt__fit *fit, const double *parameters, double *gradient,
                               size_t rows)
{
  double decay = 1 / (fit->desc.inverse_l2 * (double)fit->rows), part = 1 / (double)rows;
  double squares = 0;
  size_t d = fit->features, j, k;
  for (k = 0; k < fit->classes; k++)
    for (j = 0; j < d; j++) {
      double w = parameters[k * d + j], *g = &gradient[k * d + j];
      *g = *g * part * (fit->inverse ? fit->inverse[j] : 1) + decay * w;
      squares += w * w;
    }
  for (j = fit->classes * d; j < fit->parameters; j++) gradient[j] *= part;
  return 0.5 * decay * squares;
}

/* *value and gradient (P) of (*) at `parameters` (P). */
static igpt_result igpt__probe_evaluate(igpt__fit *fit, double *value, double *gradient,
                                        const double *parameters, double done)
{
  double loss;
  igpt_result result;
  igpt__probe_set(fit, parameters);
  fit->chosen = NULL;
  result = igpt__probe_sum(fit, &loss, gradient, 0, fit->rows, done);
  if (result) return result;
  *value = loss / (double)fit->rows + igpt__probe_mean(fit, parameters, gradient, fit->rows);
  return IGPT_OK;
}

/* ---- the curvature at W = 0 ----------------------------------------------------------------- */

/* A panel of M's rows, up to the diagonal, += some^T some over the rows that are gathered */
static void igpt__probe_moment(void *arg, size_t index, int worker)
{
  const igpt__fit *fit = (const igpt__fit *)arg;
  const igpt_kernels *kernels = fit->kernels;
  const size_t mr = (size_t)kernels->tile_rows, nr = (size_t)kernels->tile_columns;
  const size_t at = index * mr, rows = igpt__min_size(mr, fit->side - at);
  float *panel = fit->scratch + (size_t)worker * fit->scratch_floats;
  size_t j;
  kernels->pack(panel, mr, fit->some + at, 1, fit->ldm, rows, fit->count, 0);
  for (j = 0; j < at + rows; j += nr)
    kernels->tile(fit->m + at * fit->ldm + j, fit->ldm, panel, fit->some + j, fit->ldm, rows,
                  fit->count, 1);
}

/* M from 16 D rows, evenly chosen. */
static igpt_result igpt__probe_gather(igpt__fit *fit)
{
  size_t d = fit->features, total = igpt__min_size(fit->rows, 16 * d), i, j;
  memset(fit->m, 0, fit->side * fit->ldm * sizeof(float));
  memset(fit->some, 0, IGPT__PROBE_MOMENTS * fit->ldm * sizeof(float));
  for (fit->first = 0; fit->first < total; fit->first += fit->count) {
    fit->count = igpt__min_size(total - fit->first, IGPT__PROBE_MOMENTS);
    if (igpt__stopped(&fit->desc.watch, 0)) return IGPT_CANCELLED;
    for (i = 0; i < fit->count; i++) {
      size_t row = (size_t)((double)(fit->first + i) * (double)fit->rows / (double)total);
      float *to = fit->some + i * fit->ldm;
      memcpy(to, fit->x + row * d, d * sizeof *to);
      if (fit->minus_mean) fit->kernels->add(to, fit->minus_mean, d);
      for (j = 0; fit->inverse && j < d; j++) to[j] = (float)((double)to[j] * fit->inverse[j]);
      if (fit->side > d) to[d] = 1;
    }
    igpt__run(&fit->desc.runner, igpt__probe_moment, fit,
              igpt__divide_up(fit->side, (size_t)fit->kernels->tile_rows));
  }
  fit->count = total;
  return IGPT_OK;
}

/* M, a sum until here, is divided by its rows, and gets K / (C N) on the diagonal of W: the
   curvature times K. It becomes a lower triangle L with L L^T equal to it but for `size`, and for
   the part of 1e-4 that keeps float32 from losing the smallest directions. If it is not positive
   nevertheless, or a feature's squares are beyond float32, there is no M. */
static igpt_result igpt__probe_factor(igpt__fit *fit)
{
  const igpt_kernels *kernels = fit->kernels;
  size_t ldm = fit->ldm, d = fit->features, i, j;
  double decay = (double)fit->classes / (fit->desc.inverse_l2 * (double)fit->rows);
  for (i = 0; i < fit->side; i++) {
    float *row = fit->m + i * ldm;
    const double own = (double)row[i] / (double)fit->count + (i < d ? decay : 0);
    if (!igpt__finite(own)) {
      fit->side = 0;
      return IGPT_OK;
    }
    fit->size[i] = (float)sqrt(own);
    if (!(fit->size[i] > 0)) fit->size[i] = 1;     /* a feature of zeros, and hardly any decay */
    for (j = 0; j < i; j++)
      row[j] = (float)((double)row[j] / (double)fit->count /
                       ((double)fit->size[i] * (double)fit->size[j]));
    row[i] = 1.0001f;
  }
  for (i = 0; i < fit->side; i++) {
    float *row = fit->m + i * ldm;
    if (i % 64 == 0 && igpt__stopped(&fit->desc.watch, 0)) return IGPT_CANCELLED;
    for (j = 0; j < i; j++)
      row[j] = (row[j] - kernels->dot(row, fit->m + j * ldm, j)) / fit->m[j * ldm + j];
    row[i] -= kernels->dot(row, row, i);
    if (!(row[i] > 0)) {
      fit->side = 0;
      break;
    }
    row[i] = sqrtf(row[i]);
  }
  return IGPT_OK;
}

typedef struct igpt__turn_by {
  const igpt__fit *fit;
  double          *to;            /* (P), may be from */
  const double    *from;
  size_t           first;         /* class */
} igpt__turn_by;

/* A class: to = K M^-1 from, by L and then by L^T */
static void igpt__probe_solve(void *arg, size_t index, int worker)
{
  const igpt__turn_by *job = (const igpt__turn_by *)arg;
  const igpt__fit *fit = job->fit;
  const size_t k = job->first + index;
  size_t d = fit->features, base = fit->classes * d, ldm = fit->ldm, i;
  float *z = fit->scratch + (size_t)worker * fit->scratch_floats;
  for (i = 0; i < fit->side; i++) {
    const float *row = fit->m + i * ldm;
    z[i] = (float)job->from[i < d ? k * d + i : base + k] / fit->size[i];
    z[i] = (z[i] - fit->kernels->dot(row, z, i)) / row[i];
  }
  for (i = fit->side; i-- > 0;) {
    const float *row = fit->m + i * ldm;
    z[i] /= row[i];
    fit->kernels->axpy(z, -z[i], row, i);
    job->to[i < d ? k * d + i : base + k] =
      (double)fit->classes * (double)(z[i] / fit->size[i]);
  }
}

/* to = H from, with H as it is before any change of the gradient is known. */
static igpt_result igpt__probe_turn(const igpt__fit *fit, double *to, const double *from,
                                    double done)
{
  igpt__turn_by job;
  job.fit = fit;
  job.to = to;
  job.from = from;
  if (!fit->side) memmove(to, from, fit->parameters * sizeof *to);
  for (job.first = 0; fit->side && job.first < fit->classes; job.first += IGPT__PROBE_TURN) {
    if (igpt__stopped(&fit->desc.watch, done)) return IGPT_CANCELLED;
    igpt__run(&fit->desc.runner, igpt__probe_solve, &job,
              igpt__min_size(fit->classes - job.first, IGPT__PROBE_TURN));
  }
  return IGPT_OK;
}

/* ---- L-BFGS --------------------------------------------------------------------------------- */

static double igpt__dot64(const double *x, const double *y, size_t n)
{
  double sum = 0;
  size_t i;
  for (i = 0; i < n; i++) sum += x[i] * y[i];
  return sum;
}

static void igpt__axpy64(double *y, double a, const double *x, size_t n)
{
  size_t i;
  for (i = 0; i < n; i++) y[i] += a * x[i];
}

static double igpt__largest64(const double *x, size_t n)
{
  double largest = 0;
  size_t i;
  for (i = 0; i < n; i++) {
    if (!(fabs(x[i]) <= largest)) largest = fabs(x[i]);
    if (!igpt__finite(x[i])) return x[i];
  }
  return largest;
}

/* direction = -H gradient, by the two loops over the last `pairs` pairs (s, y), of which the newest
   is number `newest` of the ring. */
static igpt_result igpt__lbfgs_direction(igpt__fit *fit, double *direction, const double *gradient,
                                         double *const *s, double *const *y, int pairs, int newest,
                                         double done)
{
  double a[IGPT__PROBE_MEMORY], rho[IGPT__PROBE_MEMORY], *turned = fit->vectors[5];
  size_t n = fit->parameters, j;
  int i, at;
  igpt_result result;
  for (j = 0; j < n; j++) direction[j] = -gradient[j];
  for (i = 0; i < pairs; i++) {
    at = (newest + IGPT__PROBE_MEMORY - i) % IGPT__PROBE_MEMORY;
    rho[at] = 1 / igpt__dot64(s[at], y[at], n);
    a[at] = rho[at] * igpt__dot64(s[at], direction, n);
    igpt__axpy64(direction, -a[at], y[at], n);
  }
  result = igpt__probe_turn(fit, direction, direction, done);
  if (result) return result;
  if (pairs) {                    /* the size of the newest curvature stands for the rest */
    double scale;
    result = igpt__probe_turn(fit, turned, y[newest], done);
    if (result) return result;
    scale = 1 / (rho[newest] * igpt__dot64(y[newest], turned, n));
    for (j = 0; j < n; j++) direction[j] *= scale;
  }
  for (i = pairs - 1; i >= 0; i--) {
    at = (newest + IGPT__PROBE_MEMORY - i) % IGPT__PROBE_MEMORY;
    igpt__axpy64(direction, a[at] - rho[at] * igpt__dot64(y[at], direction, n), s[at], n);
  }
  return IGPT_OK;
}

/* Finds t with phi(t) = f(x + t direction) low enough and its slope flat enough (the conditions of
   Wolfe). Where the differences of f are lost in float32's rounding, slopes still tell: the second
   form of "low enough" is that of Hager and Zhang. An interval [low, high] is kept, low where the
   slope is still steep, high where f is too high, and divided where the line through both slopes
   vanishes, or in the middle if f does not rise at high. Writes the new point, value and gradient;
   *found is 0 if there is no such t. */
static igpt_result igpt__lbfgs_search(igpt__fit *fit, int *found, double *value, double *point,
                                      double *gradient, const double *from,
                                      const double *direction, double value0, double slope0,
                                      double t, double done)
{
  double low = 0, low_slope = slope0, high = 0, high_slope = 0;
  size_t n = fit->parameters, j;
  int trial;
  *found = 0;
  for (trial = 0; trial < 30; trial++) {
    double slope, least, most;
    int fine, low_enough;
    igpt_result result;
    for (j = 0; j < n; j++) point[j] = from[j] + t * direction[j];
    result = igpt__probe_evaluate(fit, value, gradient, point, done);
    if (result) return result;
    slope = igpt__dot64(gradient, direction, n);
    fine = igpt__finite(*value) && igpt__finite(slope);
    low_enough = fine && (*value <= value0 + 1e-4 * t * slope0 ||
                          (*value <= value0 + 1e-7 * fabs(value0) && slope <= -0.8 * slope0));
    if (low_enough && slope >= 0.9 * slope0) {
      *found = 1;
      return IGPT_OK;
    }
    if (low_enough) {
      low = t;
      low_slope = slope;
    } else {
      high = t;
      high_slope = fine ? slope : 0;
    }
    if (high == 0) {
      t *= 4;
      continue;
    }
    least = low + 0.1 * (high - low);
    most = high - 0.1 * (high - low);
    t = high_slope > 0 ? low - low_slope * (high - low) / (high_slope - low_slope)
                       : 0.5 * (low + high);
    t = t < least ? least : t > most ? most : t;
  }
  return IGPT_OK;
}

/* Why a loss is not finite: a feature, or else what the sentence says. At W = 0 a finite feature
   gives a logit of 0, and any other one a NaN: the first evaluation finds them, and only then are
   they looked for, here. */
static igpt_result igpt__probe_spoiled(const igpt__fit *fit, const char *sentence, double a,
                                       double b)
{
  size_t d = fit->features, i, j;
  for (i = 0; i < fit->rows; i++)
    for (j = 0; j < d; j++)
      if (!igpt__finite((double)fit->x[i * d + j]))
        return igpt__fail(&fit->desc.log, IGPT_NOT_FINITE, "x[%z][%z] is %g", i, j,
                          (double)fit->x[i * d + j]);
  return igpt__fail(&fit->desc.log, IGPT_NOT_FINITE, sentence, a, b);
}

static igpt_result igpt__probe_lbfgs(igpt__fit *fit, igpt_probe_report *report)
{
  double *x = fit->vectors[0], *g = fit->vectors[1], *next = fit->vectors[2];
  double *next_g = fit->vectors[3], *direction = fit->vectors[4], *swap;
  double *const *s = fit->vectors + 6, *const *y = s + IGPT__PROBE_MEMORY;
  double value, next_value, slope, done = 0;
  size_t n = fit->parameters, j;
  int pairs = 0, newest = -1, found;
  igpt_result result;
  memset(x, 0, n * sizeof *x);
  result = igpt__probe_evaluate(fit, &value, g, x, 0);
  if (result == IGPT_OK && fit->side) result = igpt__probe_gather(fit);
  if (result == IGPT_OK && fit->side) result = igpt__probe_factor(fit);
  if (result) return result;
  for (;;) {
    report->objective = value;
    report->gradient = igpt__largest64(g, n);
    if (!igpt__finite(value) || !igpt__finite(report->gradient))
      return igpt__probe_spoiled(fit, "igpt_probe_fit: the objective is %g, its gradient %g: the"
                                 " features are too large", value, report->gradient);
    report->converged = report->gradient <= fit->desc.tolerance;
    if (report->converged || report->iterations == fit->desc.max_iterations) break;
    result = igpt__lbfgs_direction(fit, direction, g, s, y, pairs, newest, done);
    if (result) return result;
    slope = igpt__dot64(g, direction, n);
    found = 0;
    if (slope < 0) {
      double t = pairs || fit->side ? 1 : 1 / sqrt(igpt__dot64(g, g, n));
      result = igpt__lbfgs_search(fit, &found, &next_value, next, next_g, x, direction, value,
                                  slope, t, done);
      if (result) return result;
    }
    if (!found) {                 /* forget the changes and try once with the first H, then stop */
      if (pairs == 0) break;
      pairs = 0;
      continue;
    }
    newest = (newest + 1) % IGPT__PROBE_MEMORY;
    for (j = 0; j < n; j++) {
      s[newest][j] = next[j] - x[j];
      y[newest][j] = next_g[j] - g[j];
    }
    if (igpt__dot64(s[newest], y[newest], n) > 0) {
      if (pairs < IGPT__PROBE_MEMORY) pairs++;
    } else {                      /* rounding: not a curvature */
      pairs = 0;
    }
    swap = x; x = next; next = swap;
    swap = g; g = next_g; next_g = swap;
    value = next_value;
    report->iterations++;
    done = (double)report->iterations / fit->desc.max_iterations;
  }
  fit->vectors[0] = x;
  return IGPT_OK;
}

/* ---- SGD ------------------------------------------------------------------------------------ */

static igpt_result igpt__probe_diverged(const igpt__fit *fit, double value)
{
  return igpt__probe_spoiled(fit, "igpt_probe_fit: the loss became %g: rate %g is too large for"
                             " these features", value, fit->desc.rate);
}

/* v = momentum v + gradient of a batch's mean; x -= rate v */
static igpt_result igpt__probe_sgd(igpt__fit *fit, igpt_probe_report *report)
{
  double *x = fit->vectors[0], *g = fit->vectors[1], *v = fit->vectors[2], value;
  size_t n = fit->parameters, batch = (size_t)fit->desc.batch, i;
  size_t steps = igpt__divide_up(fit->rows, batch), step;
  double total = (double)steps * fit->desc.epochs;
  int epoch;
  igpt_result result;
  memset(x, 0, n * sizeof *x);
  memset(v, 0, n * sizeof *v);
  for (epoch = 0; epoch < fit->desc.epochs; epoch++) {
    igpt_rng rng = igpt_rng_seed(fit->desc.seed, (uint64_t)epoch);
    for (i = 0; i < fit->rows; i++) fit->order[i] = (uint32_t)i;
    igpt_rng_shuffle(&rng, fit->order, fit->rows);
    for (step = 0; step < steps; step++) {
      double done = ((double)steps * epoch + (double)step) / total, rate;
      size_t begin = step * batch, end = igpt__min_size(begin + batch, fit->rows);
      igpt__probe_set(fit, x);
      fit->chosen = fit->order;
      result = igpt__probe_sum(fit, &value, g, begin, end, done);
      if (result) return result;
      value += igpt__probe_mean(fit, x, g, end - begin);
      if (!igpt__finite(value)) return igpt__probe_diverged(fit, value);
      rate = 0.5 * fit->desc.rate * (1 + cos(3.141592653589793 * done));
      for (i = 0; i < n; i++) {
        v[i] = fit->desc.momentum * v[i] + g[i];
        x[i] -= rate * v[i];
      }
      if (report->iterations < 0x7fffffff) report->iterations++;
    }
  }
  result = igpt__probe_evaluate(fit, &value, g, x, 1);
  if (result) return result;
  report->objective = value;
  report->gradient = igpt__largest64(g, n);
  report->converged = report->gradient <= fit->desc.tolerance;
  if (!igpt__finite(value) || !igpt__finite(report->gradient))
    return igpt__probe_diverged(fit, value);
  return IGPT_OK;
}

/* ---- standardising -------------------------------------------------------------------------- */

/* gradient (D) += sum over the span's rows of x - mean, gradient (D..2D) += that of its square:
   a block of columns. The mean is zero while the means are being found. */
static void igpt__probe_moments(void *arg, size_t index, int worker)
{
  const igpt__fit *fit = (const igpt__fit *)arg;
  size_t d = fit->features, from = index * IGPT__PROBE_COLUMNS, at, i, j, q;
  size_t to = igpt__min_size(from + IGPT__PROBE_COLUMNS, d), end = fit->first + fit->count;
  (void)worker;
  for (at = fit->first; at < end; at += IGPT__PROBE_ROWS)
    for (j = from; j < to; j += 4) {              /* in registers; the last columns again */
      double sum[4] = { 0, 0, 0, 0 }, squares[4] = { 0, 0, 0, 0 };
      size_t column[4], stop = igpt__min_size(at + IGPT__PROBE_ROWS, end);
      for (q = 0; q < 4; q++) column[q] = igpt__min_size(j + q, to - 1);
      for (i = at; i < stop; i++) {
        const float *row = fit->x + i * d;
        IGPT__UNROLL
        for (q = 0; q < 4; q++) {
          double v = (double)row[column[q]] + (double)fit->minus_mean[column[q]];
          sum[q] += v;
          squares[q] += v * v;
        }
      }
      for (q = 0; q < 4 && j + q < to; q++) {
        fit->gradient[j + q] += sum[q];
        fit->gradient[d + j + q] += squares[q];
      }
    }
}

/* Centring is done to the rows, because a mean that is large against the deviation would cancel in
   products; scaling is done to W, where nothing is lost. A feature that never changes gets the
   deviation 1. */
static igpt_result igpt__probe_standardise(igpt__fit *fit)
{
  size_t d = fit->features, j;
  double *sums = fit->vectors[0];             /* (D) sums, (D) squares: K >= 2, so P >= 2 D */
  int pass;
  memset(fit->minus_mean, 0, d * sizeof *fit->minus_mean);
  for (pass = 0; pass < 2; pass++) {
    memset(sums, 0, 2 * d * sizeof *sums);
    fit->gradient = sums;
    for (fit->first = 0; fit->first < fit->rows; fit->first += fit->count) {
      if (igpt__stopped(&fit->desc.watch, 0)) return IGPT_CANCELLED;
      fit->count = igpt__min_size(fit->rows - fit->first, fit->slots * fit->chunk);
      igpt__run(&fit->desc.runner, igpt__probe_moments, fit,
                igpt__divide_up(d, IGPT__PROBE_COLUMNS));
    }
    for (j = 0; j < d; j++) {
      double mean = sums[j] / (double)fit->rows;
      double variance = sums[d + j] / (double)fit->rows - mean * mean;
      if (pass == 0) fit->minus_mean[j] = (float)-mean;
      else fit->inverse[j] = variance > 0 ? 1 / sqrt(variance) : 1;
    }
  }
  return IGPT_OK;
}

/* ---- fit and predict ------------------------------------------------------------------------ */

/* Labels, and the number of classes. */
static igpt_result igpt__probe_labels(igpt_probe_desc *desc, const int32_t *labels, size_t rows)
{
  size_t i;
  int32_t most = 0;
  for (i = 0; i < rows; i++) {
    if (labels[i] < 0 || (desc->classes && labels[i] >= desc->classes)) {
      if (desc->classes)
        return igpt__fail(&desc->log, IGPT_BAD_ARGUMENT, "labels[%z] is %d, and must be 0..%d", i,
                          (int)labels[i], desc->classes - 1);
      return igpt__fail(&desc->log, IGPT_BAD_ARGUMENT, "labels[%z] is %d, and must be >= 0", i,
                        (int)labels[i]);
    }
    if (labels[i] > most) most = labels[i];
  }
  if (!desc->classes) {
    if (most == 0)
      return igpt__fail(&desc->log, IGPT_BAD_ARGUMENT, "all %z labels are 0, and a probe tells two"
                        " classes or more apart", rows);
    if ((size_t)most >= rows || most == 0x7fffffff)
      return igpt__fail(&desc->log, IGPT_BAD_ARGUMENT, "the largest label is %d, and %z rows cannot"
                        " hold every class up to it", (int)most, rows);
    desc->classes = (int)most + 1;
  }
  if ((size_t)desc->classes > rows)
    return igpt__fail(&desc->log, IGPT_BAD_ARGUMENT, "classes is %d, and there are only %z rows",
                      desc->classes, rows);
  return IGPT_OK;
}

/* Defaults and ranges. */
static igpt_result igpt__probe_resolve(igpt_probe_desc *desc)
{
  const igpt_log *log = &desc->log;
  igpt_result result = igpt__runner_check(&desc->runner, log);
  if (result == IGPT_OK) result = igpt__allocator_resolve(&desc->allocator, log);
  if (result) return result;
  if (desc->inverse_l2 == 0) desc->inverse_l2 = 1;
  if (desc->max_iterations == 0) desc->max_iterations = 1000;
  if (desc->tolerance == 0) desc->tolerance = 1e-6;
  if (desc->rate == 0) desc->rate = 0.1;
  if (desc->momentum == 0) desc->momentum = 0.9;
  if (desc->epochs == 0) desc->epochs = 30;
  if (desc->batch == 0) desc->batch = 256;
  if (desc->method != IGPT_LBFGS && desc->method != IGPT_SGD)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "method is %d, and must be %d or %d",
                      (int)desc->method, (int)IGPT_LBFGS, (int)IGPT_SGD);
  if (desc->classes < 0 || desc->classes == 1)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "classes is %d, and must be 0 or >= 2",
                      desc->classes);
  if (!(desc->inverse_l2 > 0) || !igpt__finite(desc->inverse_l2))
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "inverse_l2 is %g, and must be > 0 and finite",
                      desc->inverse_l2);
  if (!(desc->tolerance > 0))
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "tolerance is %g, and must be > 0", desc->tolerance);
  if (!(desc->rate > 0) || !igpt__finite(desc->rate))
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "rate is %g, and must be > 0 and finite", desc->rate);
  if (!(desc->momentum > 0 && desc->momentum < 1))
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "momentum is %g, and must be > 0 and < 1",
                      desc->momentum);
  if (desc->max_iterations < 0 || desc->epochs < 0 || desc->batch < 0)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "max_iterations is %d, epochs is %d and batch is %d,"
                      " and none may be negative", desc->max_iterations, desc->epochs, desc->batch);
  if (!igpt_kernels_for(desc->isa))
    return igpt__fail(log, IGPT_UNSUPPORTED, "isa %s is not supported here",
                      igpt_isa_name(desc->isa));
  return IGPT_OK;
}

/* A span takes a few ms; chunks are of one size, and not so small that adding up their sums would
   show. */
static void igpt__probe_chunks(igpt__fit *fit)
{
  size_t pass = fit->desc.method == IGPT_SGD ? (size_t)fit->desc.batch : fit->rows, spans;
  size_t quick;
  IGPT_ASSERT(fit->features > 0 && fit->classes > 0);
  quick = ((size_t)1 << 26) / igpt__size_mul(fit->features, fit->classes);
  pass = igpt__min_size(pass, fit->rows);
  spans = igpt__divide_up(pass, igpt__max_size(igpt__min_size(quick, 16384), 1));
  fit->chunk = igpt__size_round(igpt__divide_up(igpt__divide_up(pass, spans), IGPT__PROBE_SLOTS),
                                2 * IGPT__PROBE_ROWS);
  fit->slots = igpt__min_size(igpt__divide_up(pass, fit->chunk), IGPT__PROBE_SLOTS);
}

/* Every class has a row. `seen` has room for K floats. */
static igpt_result igpt__probe_verify(const igpt__fit *fit, float *seen)
{
  size_t i;
  memset(seen, 0, fit->classes * sizeof *seen);
  for (i = 0; i < fit->rows; i++) seen[fit->labels[i]] = 1;
  for (i = 0; i < fit->classes; i++)
    if (seen[i] == 0)
      return igpt__fail(&fit->desc.log, IGPT_BAD_ARGUMENT, "class %d of %d has no row, and its"
                        " intercept no optimum", (int)i, (int)fit->classes);
  return IGPT_OK;
}

/* W and b for raw features: W x_hat + b = (W / deviation) x + (b - (W / deviation) mean). */
static void igpt__probe_fold(const igpt__fit *fit, igpt_probe *probe)
{
  const double *parameters = fit->vectors[0];
  size_t d = fit->features, j, k;
  for (k = 0; k < fit->classes; k++) {
    double b = fit->desc.no_intercept ? 0 : parameters[fit->classes * d + k];
    for (j = 0; j < d; j++) {
      double w = parameters[k * d + j] * (fit->inverse ? fit->inverse[j] : 1);
      if (fit->minus_mean) b += w * (double)fit->minus_mean[j];
      probe->weights[k * d + j] = (float)w;
    }
    probe->intercepts[k] = (float)b;
  }
}

/* The probe and its arrays are one block. */
static igpt_result igpt__probe_create(igpt_probe **out, const igpt__fit *fit)
{
  igpt__block block;
  igpt__arena arena;
  igpt_result result;
  size_t count = igpt__size_mul(fit->classes, fit->features);
  memset(&arena, 0, sizeof arena);
  igpt__take(&arena, 1, sizeof(igpt_probe));
  igpt__take_floats(&arena, count);
  igpt__take_floats(&arena, fit->classes);
  result = igpt__block_open(&block, igpt__with_alignment(arena.used), NULL, 0,
                            &fit->desc.allocator, &fit->desc.log);
  if (result) return result;
  arena.base = block.aligned;
  arena.used = 0;
  *out = (igpt_probe *)igpt__take(&arena, 1, sizeof(igpt_probe));
  (*out)->kernels = fit->kernels;
  (*out)->features = fit->features;
  (*out)->classes = (int)fit->classes;
  (*out)->weights = igpt__take_floats(&arena, count);
  (*out)->intercepts = igpt__take_floats(&arena, fit->classes);
  (*out)->allocator = fit->desc.allocator;
  (*out)->memory = block;
  return IGPT_OK;
}

IGPT__ENTRY(igpt_probe_fit,
            (igpt_probe **out, igpt_probe_report *report, const float *x, const int32_t *labels,
             size_t rows, size_t features, const igpt_probe_desc *desc),
            (out, report, x, labels, rows, features, desc))
{
  igpt__fit fit;
  igpt_probe_report written;
  igpt__block block;
  igpt__arena arena;
  igpt_probe *probe = NULL;
  igpt_result result;
  if (out) *out = NULL;
  memset(&fit, 0, sizeof fit);
  memset(&written, 0, sizeof written);
  memset(&arena, 0, sizeof arena);
  if (desc) fit.desc = *desc;
  result = igpt__probe_resolve(&fit.desc);
  if (result) return result;
  if (!out || !x || !labels)
    return igpt__fail(&fit.desc.log, IGPT_BAD_ARGUMENT, "igpt_probe_fit: %s is null",
                      !out ? "out" : !x ? "x" : "labels");
  if (rows == 0 || features == 0)
    return igpt__fail(&fit.desc.log, IGPT_BAD_ARGUMENT, "igpt_probe_fit: rows is %z and features is"
                      " %z, and both must be >= 1", rows, features);
  if (fit.desc.method == IGPT_SGD && rows >> 31 > 1)
    return igpt__fail(&fit.desc.log, IGPT_TOO_LARGE, "igpt_probe_fit: rows is %z, and SGD shuffles"
                      " at most %z", rows, (size_t)0xffffffffu);
  result = igpt__probe_labels(&fit.desc, labels, rows);
  if (result) return result;

  fit.kernels = igpt_kernels_for(fit.desc.isa);
  fit.x = x;
  fit.labels = labels;
  fit.rows = rows;
  fit.features = features;
  fit.classes = (size_t)fit.desc.classes;
  fit.parameters = igpt__size_mul(fit.classes,
                                  igpt__size_add(features, fit.desc.no_intercept ? 0 : 1));
  igpt__probe_chunks(&fit);
  igpt__fit_layout(&fit, &arena);
  result = igpt__block_open(&block, igpt__with_alignment(arena.used), NULL, 0, &fit.desc.allocator,
                            &fit.desc.log);
  if (result) return result;
  arena.base = block.aligned;
  arena.used = 0;
  igpt__fit_layout(&fit, &arena);

  result = igpt__probe_create(&probe, &fit);
  if (result == IGPT_OK) result = igpt__probe_verify(&fit, fit.b);
  if (result == IGPT_OK && fit.desc.standardise) result = igpt__probe_standardise(&fit);
  if (result == IGPT_OK)
    result = fit.desc.method == IGPT_SGD ? igpt__probe_sgd(&fit, &written)
                                         : igpt__probe_lbfgs(&fit, &written);
  if (result == IGPT_OK) {
    igpt__probe_fold(&fit, probe);
    if (report) *report = written;
    *out = probe;
  } else {
    igpt_probe_destroy(probe);
  }
  igpt__block_close(&block, &fit.desc.allocator);
  return result;
}

void igpt_probe_destroy(igpt_probe *probe)
{
  if (probe) {
    igpt_allocator allocator = probe->allocator;
    igpt__block memory = probe->memory;
    igpt__block_close(&memory, &allocator);
  }
}

/* label = argmax of z, the lowest of equals; probabilities = softmax(z) */
IGPT__ENTRY(igpt_probe_predict,
            (const igpt_probe *probe, int32_t *labels, float *probabilities, const float *x,
             size_t rows), (probe, labels, probabilities, x, rows))
{
  size_t i, k, d, classes;
  if (!probe || (rows && !x)) return IGPT_BAD_ARGUMENT;
  d = probe->features;
  classes = (size_t)probe->classes;
  for (i = 0; i < rows; i++, x += d) {
    float *p = probabilities ? probabilities + i * classes : NULL, top = 0, spoiled = 0;
    size_t best = 0;
    for (k = 0; k < classes; k++) {
      float z = probe->kernels->dot(x, probe->weights + k * d, d) + probe->intercepts[k];
      spoiled += 0 * z;
      if (k == 0 || z > top) { top = z; best = k; }
      if (p) p[k] = z;
    }
    if (spoiled != 0) return IGPT_NOT_FINITE;             /* NaN */
    if (p) {
      float sum = probe->kernels->exp_sum(p, p, 1.0f, top, classes);
      probe->kernels->scale(p, 1 / sum, classes);
    }
    if (labels) labels[i] = (int32_t)best;
  }
  return IGPT_OK;
}

const float *igpt_probe_weights(const igpt_probe *probe, int *classes, size_t *features)
{
  if (!probe) return NULL;
  if (classes) *classes = probe->classes;
  if (features) *features = probe->features;
  return probe->weights;
}

const float *igpt_probe_intercepts(const igpt_probe *probe)
{
  return probe ? probe->intercepts : NULL;
}

/* ==== 16. files ==============================================================================

   Weights live in safetensors files: eight bytes that give the length of a JSON header, the header
   (name, type, shape and place of every tensor), then the raw numbers, little-endian. Names and
   shapes are those of Hugging Face's ImageGPT, with the zero biases it expects where the model has
   none, so that a saved model loads there as it is. What those tensors do not say (objective,
   heads, sides of the picture, ...) stands in __metadata__ under "igpt.", as strings. The palette
   stands there too, as decimal numbers: as a tensor it would be reported as unexpected by every
   loader that knows ImageGPT. A training checkpoint is the same file with Adam's moments and the
   run's progress.

   Nothing read is believed. The header is parsed without recursion by a reader that knows only the
   one form that is allowed; every tensor must have a place in the network, the right shape, and a
   range of its own; ranges must cover the file exactly. Only then is a model created, which is
   therefore at most twice as large as the file it comes from, but for heads or biases that the file
   has not. Reading costs one block of about twice the header and 16 KB, given back at the end;
   writing allocates nothing.
   huggingface.co/docs/safetensors; for .npy: numpy.lib.format.                                   */

enum {
  IGPT__FILE_VERSION = 1,
  IGPT__CHUNK = 16384,            /* bytes looked at or converted at a time */
  IGPT__HEADER_MOST = 100000000   /* as in the reference implementation */
};

/* ---- bytes --------------------------------------------------------------------------------- */

static int igpt__big_endian(void)
{
  const uint16_t one = 1;
  unsigned char first;
  memcpy(&first, &one, 1);
  return first == 0;
}

/* From the file's order of bytes to the machine's, or back; size is 1, 2, 4 or 8. */
static void igpt__swap(void *data, size_t count, size_t size)
{
  unsigned char *p = (unsigned char *)data;
  size_t i, j;
  for (i = 0; i < count; i++, p += size)
    for (j = 0; j < size / 2; j++) {
      unsigned char byte = p[j];
      p[j] = p[size - 1 - j];
      p[size - 1 - j] = byte;
    }
}

/* Bytes [offset, offset + bytes) of a source; 0, or not 0. */
static int igpt__fetch(const igpt_source *source, uint64_t offset, void *to, size_t bytes)
{
  if (offset > source->size || bytes > source->size - offset) return -1;
  if (bytes == 0) return 0;
  if (source->memory) {
    memcpy(to, (const char *)source->memory + (size_t)offset, bytes);
    return 0;
  }
  return source->read ? source->read(source->user, offset, to, bytes) : -1;
}

static igpt_result igpt__source_check(const igpt_source *source, const igpt_log *log)
{
  if (!source || (!source->read && !source->memory))
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "the source has neither read nor memory");
  return IGPT_OK;
}

static uint64_t igpt__u64_mul(uint64_t a, uint64_t b)          /* stays at UINT64_MAX */
{
  return a && b > UINT64_MAX / a ? UINT64_MAX : a * b;
}

/* ---- numbers as text ----------------------------------------------------------------------- */

/* 10^n by repeated squaring, exact enough (1e-14) for the nine digits that matter here. */
static double igpt__power_of_ten(int n)
{
  double power = 1, square = 10;
  int left = n < 0 ? -n : n;
  for (; left; left >>= 1, square *= square)
    if (left & 1) power *= square;
  return n < 0 ? 1 / power : power;
}

/* The whole number that `text` is; 0, or -1 if it is none or does not fit. Stops at a space. */
static int igpt__parse_u64(const char **text, uint64_t *value)
{
  const char *p = *text;
  uint64_t sum = 0;
  if (*p < '0' || *p > '9') return -1;
  for (; *p >= '0' && *p <= '9'; p++) {
    const uint64_t digit = (uint64_t)(*p - '0');
    if (sum > (UINT64_MAX - digit) / 10) return -1;
    sum = sum * 10 + digit;
  }
  *text = p;
  *value = sum;
  return 0;
}

/* [-]digits[.digits][e[-]digits], finite as a float. */
static int igpt__parse_real(const char **text, float *value)
{
  const char *p = *text;
  double sum = 0;
  int sign = 1, digits = 0, exponent = 0, after = 0;
  if (*p == '-') { sign = -1; p++; }
  for (; (*p >= '0' && *p <= '9') || (*p == '.' && !after); p++) {
    if (*p == '.') {
      after = 1;
      continue;
    }
    if (++digits > 40) return -1;
    sum = sum * 10 + (*p - '0');
    exponent -= after;
  }
  if (digits == 0) return -1;
  if (*p == 'e') {
    int power = 0, down = *++p == '-';
    if (*p == '-' || *p == '+') p++;
    if (*p < '0' || *p > '9') return -1;
    for (; *p >= '0' && *p <= '9'; p++)
      if (power < 1000) power = power * 10 + (*p - '0');
    exponent += down ? -power : power;
  }
  if (sum > 0 && exponent > 100) return -1;
  if (exponent < -200) sum = 0;
  sum *= igpt__power_of_ten(exponent < -200 ? -200 : exponent > 100 ? 100 : exponent);
  if (!(sum < 3.40282356e38)) return -1;                    /* rounds to infinity */
  *text = p;
  *value = (float)(sign * sum);
  return 0;
}

/* The fewest digits that read back as the same float: nine always do. `text` has 32 bytes. */
static void igpt__print_real(char text[32], float value)
{
  double scaled = value < 0 ? -(double)value : (double)value;
  int exponent = 0, digits, negative, i;
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  negative = bits >> 31 != 0;     /* minus zero is one too */
  for (; scaled >= 10; exponent++) scaled /= 10;
  for (; scaled > 0 && scaled < 1; exponent--) scaled *= 10;
  for (digits = 1; digits <= 9; digits++) {
    const char *back = text;
    char mantissa[24];
    size_t used = 0, length;
    int point = exponent;
    float same;
    igpt__put_integer(mantissa, sizeof mantissa, 0,
                      (uint64_t)(scaled * igpt__power_of_ten(digits - 1) + 0.5));
    length = strlen(mantissa);
    if (length > (size_t)digits) point++;                   /* 9.99.. became 10 */
    while (length > 1 && mantissa[length - 1] == '0') mantissa[--length] = 0;
    if (negative) used = igpt__put_text(text, 32, used, "-");
    if (point < -4 || point > 8) {                          /* d.ddde-7 */
      char rest[24];
      memcpy(rest, mantissa + 1, length);
      mantissa[1] = 0;
      used = igpt__put_text(text, 32, used, mantissa);
      if (rest[0]) used = igpt__put_text(text, 32, used, ".");
      used = igpt__put_text(text, 32, used, rest);
      used = igpt__put_text(text, 32, used, point < 0 ? "e-" : "e");
      igpt__put_integer(text, 32, used, (uint64_t)(point < 0 ? -point : point));
    } else {                                                /* 0.0ddd, d.ddd or ddd00 */
      if (point < 0) used = igpt__put_text(text, 32, used, "0.");
      for (i = -1; i > point; i--) used = igpt__put_text(text, 32, used, "0");
      for (i = 0; (size_t)i < length || i <= point; i++) {
        text[used++] = (size_t)i < length ? mantissa[i] : '0';
        if (i == point && (size_t)i + 1 < length) text[used++] = '.';
      }
      text[used] = 0;
    }
    if (igpt__parse_real(&back, &same) == 0 && same == value) return;
  }
}

/* ---- JSON ---------------------------------------------------------------------------------- */

/* A cursor over the header. The first thing that is wrong ends everything. */
typedef struct igpt__json {
  char  *text;                    /* strings are unescaped in place, and ended by a zero */
  size_t size, at;
  const char *wrong;              /* what was expected; null: all is well so far */
} igpt__json;

static int igpt__json_fail(igpt__json *json, const char *wrong)
{
  if (!json->wrong) json->wrong = wrong;
  return 0;
}

/* Skips white space; 1 and past it if the next character is c. */
static int igpt__json_next(igpt__json *json, char c)
{
  while (json->at < json->size && (json->text[json->at] == ' ' || json->text[json->at] == '\n' ||
                                   json->text[json->at] == '\r' || json->text[json->at] == '\t'))
    json->at++;
  if (json->wrong || json->at >= json->size || json->text[json->at] != c) return 0;
  json->at++;
  return 1;
}

/* Bytes of the UTF-8 sequence at p: 1..4; 0 if it is not a valid one. */
static size_t igpt__utf8(const char *text, size_t left)
{
  const unsigned char *p = (const unsigned char *)text;
  size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
           : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0, i;
  if (n == 0 || n > left) return 0;
  for (i = 1; i < n; i++)
    if ((p[i] & 0xc0) != 0x80) return 0;
  if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) ||        /* too long, or a */
      (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90)) return 0;     /* surrogate */
  return n;
}

/* The four digits of \uXXXX; -1 if they are not hexadecimal. */
static int32_t igpt__json_hex(igpt__json *json)
{
  int32_t value = 0;
  int i;
  if (json->size - json->at < 4) return -1;
  for (i = 0; i < 4; i++) {
    const char c = json->text[json->at++];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/* After a backslash: writes what it stands for to `to`, at most as long, and returns the length. */
static size_t igpt__json_escape(igpt__json *json, char *to)
{
  static const char from[] = "\"\\/bfnrt", plain[] = "\"\\/\b\f\n\r\t";
  const char c = json->at < json->size ? json->text[json->at++] : 0;
  const char *found = c ? strchr(from, c) : NULL;
  int32_t code, low;
  if (found) {
    *to = plain[found - from];
    return 1;
  }
  code = c == 'u' ? igpt__json_hex(json) : -1;
  if (code >= 0xd800 && code < 0xdc00) {                    /* the first half of a pair */
    low = json->size - json->at >= 6 && json->text[json->at] == '\\' &&
          json->text[json->at + 1] == 'u' ? (json->at += 2, igpt__json_hex(json)) : -1;
    code = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : -1;
  } else if (code >= 0xdc00 && code < 0xe000) {
    code = -1;
  }
  if (code <= 0) return (size_t)igpt__json_fail(json, "a valid escape in a string");
  if (code < 0x80) {
    to[0] = (char)code;
    return 1;
  }
  if (code < 0x800) {
    to[0] = (char)(0xc0 | code >> 6);
    to[1] = (char)(0x80 | (code & 0x3f));
    return 2;
  }
  if (code < 0x10000) {
    to[0] = (char)(0xe0 | code >> 12);
    to[1] = (char)(0x80 | (code >> 6 & 0x3f));
    to[2] = (char)(0x80 | (code & 0x3f));
    return 3;
  }
  to[0] = (char)(0xf0 | code >> 18);
  to[1] = (char)(0x80 | (code >> 12 & 0x3f));
  to[2] = (char)(0x80 | (code >> 6 & 0x3f));
  to[3] = (char)(0x80 | (code & 0x3f));
  return 4;
}

/* 1 and a C string inside the text, or 0. */
static int igpt__json_string(igpt__json *json, const char **string)
{
  char *start, *to;
  if (!igpt__json_next(json, '"')) return igpt__json_fail(json, "a string");
  start = to = json->text + json->at;
  while (json->at < json->size) {
    const char c = json->text[json->at];
    size_t n;
    if (c == '"') {
      json->at++;
      *to = 0;
      *string = start;
      return 1;
    }
    if (c == '\\') {
      json->at++;
      n = igpt__json_escape(json, to);
    } else {
      n = (unsigned char)c < 0x20 ? 0 : igpt__utf8(json->text + json->at, json->size - json->at);
      memmove(to, json->text + json->at, n);
      json->at += n;
    }
    if (n == 0) return igpt__json_fail(json, "valid UTF-8 in a string");
    to += n;
  }
  return igpt__json_fail(json, "the end of a string");
}

/* A whole number that is not negative; the only kind a header has. */
static int igpt__json_u64(igpt__json *json, uint64_t *value)
{
  const char *p;
  igpt__json_next(json, ' ');
  p = json->text + json->at;      /* the text ends with a zero */
  if (json->wrong || igpt__parse_u64(&p, value) || (json->text[json->at] == '0' &&
                                                   p > json->text + json->at + 1))
    return igpt__json_fail(json, "a whole number below 2^64");
  json->at = (size_t)(p - json->text);
  return 1;
}

/* After an element of a list or object: 1 if another one follows, 0 at its end. */
static int igpt__json_more(igpt__json *json, char end)
{
  if (igpt__json_next(json, ',')) return 1;
  if (!igpt__json_next(json, end)) igpt__json_fail(json, end == '}' ? "',' or '}'" : "',' or ']'");
  return 0;
}

/* ---- the header of a safetensors file ------------------------------------------------------ */

typedef struct igpt__dtype {
  const char *name;
  uint64_t size;
} igpt__dtype;

static const igpt__dtype igpt__dtypes[] = {
  { "F32", 4 }, { "F16", 2 }, { "BF16", 2 }, { "F64", 8 }, { "BOOL", 1 }, { "U8", 1 }, { "I8", 1 },
  { "U16", 2 }, { "I16", 2 }, { "U32", 4 }, { "I32", 4 }, { "U64", 8 }, { "I64", 8 },
  { "F8_E4M3", 1 }, { "F8_E5M2", 1 }
};
enum { IGPT__F32, IGPT__F16, IGPT__BF16, IGPT__F64 };       /* places in the table */

typedef struct igpt__entry {
  const char *name;
  uint64_t begin, end;            /* bytes, from the end of the header */
  uint64_t shape[2];              /* the first two sides */
  int      rank;
  int      dtype;                 /* place in igpt__dtypes */
  int      used;                  /* 1: it has found its place */
} igpt__entry;

/* What __metadata__ says: the values of the keys below, null where there is none. */
#define IGPT__KEYS(X)                                                                             \
  X(version) X(objective) X(rows) X(columns) X(heads) X(norm_epsilon) X(activation) X(order)      \
  X(step) X(biases) X(palette) X(centres) X(adam_step) X(progress)
enum {
#define IGPT__KEY(name) IGPT__KEY_##name,
  IGPT__KEYS(IGPT__KEY)
#undef IGPT__KEY
  IGPT__KEY_COUNT
};
static const char *const igpt__keys[IGPT__KEY_COUNT] = {
#define IGPT__KEY(name) "igpt." #name,
  IGPT__KEYS(IGPT__KEY)
#undef IGPT__KEY
};

/* An open file: its header, and what it makes of a model. */
typedef struct igpt__file {
  const igpt_source *source;
  const igpt_log *log;
  igpt_allocator  allocator;
  igpt__block     memory;
  igpt__entry    *entry;          /* (count), by name once the header is verified */
  size_t          count, capacity;
  uint64_t        data;           /* offset of the first number in the file */
  char           *chunk;          /* IGPT__CHUNK bytes */
  igpt__json      json;
  const char     *meta[IGPT__KEY_COUNT];
  igpt_config     config;
  igpt__specs     specs;
  igpt_palette    palette;
  uint64_t        step;
} igpt__file;

/* {"dtype":"F32","shape":[512,64],"data_offsets":[0,131072]}, in any order and nothing else */
static igpt_result igpt__parse_entry(igpt__file *file, igpt__entry *entry)
{
  igpt__json *json = &file->json;
  const char *key, *dtype = NULL;
  uint64_t side, bytes = 1;
  int seen_shape = 0, seen_range = 0;
  size_t i;
  if (!igpt__json_next(json, '{')) igpt__json_fail(json, "'{'");
  if (!json->wrong) do {
    if (!igpt__json_string(json, &key)) break;
    if (!igpt__json_next(json, ':')) igpt__json_fail(json, "':'");
    if (strcmp(key, "dtype") == 0 && !dtype) {
      igpt__json_string(json, &dtype);
    } else if (strcmp(key, "shape") == 0 && !seen_shape) {
      seen_shape = 1;
      if (!igpt__json_next(json, '[')) igpt__json_fail(json, "'['");
      if (!igpt__json_next(json, ']')) do {
        if (!igpt__json_u64(json, &side)) break;
        if (entry->rank == 8) igpt__json_fail(json, "at most 8 sides");
        if (entry->rank < 2) entry->shape[entry->rank] = side;
        entry->rank++;
        bytes = igpt__u64_mul(bytes, side);
      } while (igpt__json_more(json, ']'));
    } else if (strcmp(key, "data_offsets") == 0 && !seen_range) {
      seen_range = 1;
      if (!igpt__json_next(json, '[')) igpt__json_fail(json, "'['");
      igpt__json_u64(json, &entry->begin);
      if (!igpt__json_next(json, ',')) igpt__json_fail(json, "','");
      igpt__json_u64(json, &entry->end);
      if (!igpt__json_next(json, ']')) igpt__json_fail(json, "']'");
    } else {
      igpt__json_fail(json, "dtype, shape and data_offsets, once each");
    }
  } while (!json->wrong && igpt__json_more(json, '}'));
  if (!json->wrong && !(dtype && seen_shape && seen_range))
    igpt__json_fail(json, "dtype, shape and data_offsets, once each");
  if (json->wrong) return IGPT_BAD_FILE;      /* the caller says where */

  for (i = 0; i < IGPT__COUNT(igpt__dtypes); i++)
    if (strcmp(dtype, igpt__dtypes[i].name) == 0) break;
  if (i == IGPT__COUNT(igpt__dtypes))
    return igpt__fail(file->log, IGPT_MISMATCH, "tensor %s has the unknown dtype %s", entry->name,
                      dtype);
  entry->dtype = (int)i;
  bytes = igpt__u64_mul(bytes, igpt__dtypes[i].size);
  if (entry->end < entry->begin || entry->end - entry->begin != bytes || bytes == UINT64_MAX)
    return igpt__fail(file->log, IGPT_BAD_FILE,
                      "tensor %s has data_offsets [%u, %u], and its shape takes %u bytes",
                      entry->name, entry->begin, entry->end, bytes);
  return IGPT_OK;
}

/* {"format":"pt","igpt.rows":"32",...}: strings only. Keys of others are nobody's business here. */
static void igpt__parse_metadata(igpt__file *file)
{
  igpt__json *json = &file->json;
  const char *key, *value;
  size_t i;
  if (!igpt__json_next(json, '{')) igpt__json_fail(json, "'{'");
  if (igpt__json_next(json, '}')) return;
  if (!json->wrong) do {
    if (!igpt__json_string(json, &key)) return;
    if (!igpt__json_next(json, ':')) igpt__json_fail(json, "':'");
    if (!igpt__json_string(json, &value)) return;
    for (i = 0; i < IGPT__KEY_COUNT; i++)
      if (strcmp(key, igpt__keys[i]) == 0) {
        if (file->meta[i]) igpt__json_fail(json, "each igpt key once");
        file->meta[i] = value;
      }
  } while (igpt__json_more(json, '}'));
}

static igpt_result igpt__parse_header(igpt__file *file)
{
  igpt__json *json = &file->json;
  igpt_result result = IGPT_OK;
  const char *name, *p;
  int metadata = 0;
  if (!igpt__json_next(json, '{')) igpt__json_fail(json, "'{'");
  if (!igpt__json_next(json, '}') && !json->wrong) do {
    if (!igpt__json_string(json, &name)) break;
    if (!igpt__json_next(json, ':')) igpt__json_fail(json, "':'");
    if (strcmp(name, "__metadata__") == 0) {
      if (metadata++) igpt__json_fail(json, "__metadata__ once");
      igpt__parse_metadata(file);
      continue;
    }
    for (p = name; *p; p++)
      if ((unsigned char)*p < 0x20 || *p == 0x7f) igpt__json_fail(json, "a printable name");
    if (json->wrong || file->count == file->capacity) break;
    file->entry[file->count].name = name;
    result = igpt__parse_entry(file, &file->entry[file->count++]);
  } while (!result && !json->wrong && igpt__json_more(json, '}'));
  if (result && !json->wrong) return result;
  igpt__json_next(json, ' ');
  if (json->at < json->size) igpt__json_fail(json, "the end of the header");
  if (json->wrong)
    return igpt__fail(file->log, IGPT_BAD_FILE, "header, byte %z of %z: expected %s", json->at,
                      json->size, json->wrong);
  return IGPT_OK;
}

static int igpt__by_place(const igpt__entry *a, const igpt__entry *b)
{
  if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
  return a->end < b->end ? -1 : a->end > b->end;
}

static int igpt__by_name(const igpt__entry *a, const igpt__entry *b)
{
  return strcmp(a->name, b->name);
}

/* Heapsort: no recursion, no memory, and no input that makes it slow. */
static void igpt__sort_entries(igpt__entry *entry, size_t count,
                               int (*order)(const igpt__entry *, const igpt__entry *))
{
  size_t start = count / 2, end = count;
  while (end > 1) {
    igpt__entry moved;
    size_t hole, child;
    if (start > 0) {
      moved = entry[--start];
    } else {
      moved = entry[--end];
      entry[end] = entry[0];
    }
    for (hole = start; (child = 2 * hole + 1) < end; hole = child) {
      if (child + 1 < end && order(&entry[child], &entry[child + 1]) < 0) child++;
      if (order(&moved, &entry[child]) >= 0) break;
      entry[hole] = entry[child];
    }
    entry[hole] = moved;
  }
}

/* Ranges follow each other from the end of the header to the end of the file; names differ. */
static igpt_result igpt__verify_ranges(igpt__file *file)
{
  const uint64_t size = file->source->size - file->data;
  uint64_t place = 0;
  size_t i;
  igpt__sort_entries(file->entry, file->count, igpt__by_place);
  for (i = 0; i < file->count; i++) {
    const igpt__entry *entry = &file->entry[i];
    if (entry->begin != place)
      return igpt__fail(file->log, IGPT_BAD_FILE,
                        "tensor %s starts at byte %u, and the one before it ends at %u",
                        entry->name, entry->begin, place);
    place = entry->end;
  }
  if (place != size)
    return igpt__fail(file->log, IGPT_BAD_FILE, "the tensors take %u bytes, and the file has %u",
                      place, size);
  igpt__sort_entries(file->entry, file->count, igpt__by_name);
  for (i = 1; i < file->count; i++)
    if (strcmp(file->entry[i - 1].name, file->entry[i].name) == 0)
      return igpt__fail(file->log, IGPT_BAD_FILE, "there are two tensors %s", file->entry[i].name);
  return IGPT_OK;
}

static void igpt__file_end(igpt__file *file)
{
  const igpt__block memory = file->memory;
  const igpt_allocator allocator = file->allocator;
  igpt__block_close(&memory, &allocator);     /* `file` lies in it */
}

static igpt__file *igpt__file_layout(igpt__arena *arena, size_t capacity, size_t size)
{
  igpt__file *file = (igpt__file *)igpt__take(arena, 1, sizeof *file);
  igpt__entry *entry = (igpt__entry *)igpt__take(arena, capacity, sizeof *entry);
  char *text = (char *)igpt__take(arena, size + 1, 1);
  char *chunk = (char *)igpt__take(arena, IGPT__CHUNK, 1);
  if (!chunk) return NULL;
  memset(file, 0, sizeof *file);
  memset(entry, 0, capacity * sizeof *entry);
  file->entry = entry;
  file->capacity = capacity;
  file->chunk = chunk;
  file->data = 8 + (uint64_t)size;
  file->json.text = text;
  file->json.size = size;
  text[size] = 0;
  return file;
}

/* Reads and verifies the header of `source`. *out lives in a block of `allocator`. */
static igpt_result igpt__file_begin(igpt__file **out, const igpt_source *source,
                                    const igpt_allocator *allocator, const igpt_log *log)
{
  igpt__arena arena = { NULL, 0 };
  igpt__block memory;
  igpt__file *file;
  unsigned char length[8];
  uint64_t size = 0;
  size_t capacity, i;
  igpt_result result = igpt__source_check(source, log);
  *out = NULL;
  if (result) return result;
  if (source->size < 10)
    return igpt__fail(log, IGPT_BAD_FILE, "%u bytes are too few for a safetensors file",
                      source->size);
  if (igpt__fetch(source, 0, length, 8))
    return igpt__fail(log, IGPT_READ_ERROR, "reading the first 8 bytes failed");
  for (i = 0; i < 8; i++) size |= (uint64_t)length[i] << 8 * i;
  if (size > IGPT__HEADER_MOST || size > source->size - 8 || size < 2)
    return igpt__fail(log, IGPT_BAD_FILE,
                      "not a safetensors file, or cut off: it begins with a header of %u bytes, of "
                      "a file of %u (and %d at most)", size, source->size, (int)IGPT__HEADER_MOST);

  /* "":{"dtype":"U8","shape":[],"data_offsets":[0,0]}, has 50 bytes: there are not more entries */
  capacity = (size_t)size / 50 + 1;
  igpt__file_layout(&arena, capacity, (size_t)size);
  result = igpt__block_open(&memory, igpt__with_alignment(arena.used), NULL, 0, allocator, log);
  if (result) return result;
  arena.base = memory.aligned;
  arena.used = 0;
  file = igpt__file_layout(&arena, capacity, (size_t)size);
  file->memory = memory;
  file->source = source;
  file->log = log;
  file->allocator = *allocator;
  if (igpt__fetch(source, 8, file->json.text, (size_t)size))
    result = igpt__fail(log, IGPT_READ_ERROR, "reading the header of %u bytes failed", size);
  if (!result) result = igpt__parse_header(file);
  if (!result) result = igpt__verify_ranges(file);
  if (result) igpt__file_end(file);
  else *out = file;
  return result;
}

/* ---- from a header to a model -------------------------------------------------------------- */

/* "x.c_fc.weight" -> "x.c_fc.bias"; 1 if Hugging Face's network has such a tensor and ours has not:
   where we have no biases, the matrices of the blocks have zero ones there, and nothing else. */
static int igpt__bias_name(const igpt__specs *specs, size_t index, const igpt__spec *spec,
                           char *name)
{
  if (index < (size_t)specs->head_count || !spec->columns ||
      specs->block_count == IGPT__BLOCK_COUNT) return 0;
  memcpy(name + strlen(name) - strlen("weight"), "bias", sizeof "bias");
  return 1;
}

/* The entry of that name, with "transformer." or without; null if there is none. */
static igpt__entry *igpt__find(const igpt__file *file, const char *name)
{
  static const char prefix[] = "transformer.";
  size_t low = 0, high = file->count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const int order = strcmp(name, file->entry[middle].name);
    if (order == 0) return &file->entry[middle];
    if (order < 0) high = middle;
    else low = middle + 1;
  }
  return strncmp(name, prefix, sizeof prefix - 1) == 0 ? igpt__find(file, name + sizeof prefix - 1)
                                                       : NULL;
}

/* A number in __metadata__ that counts something: 1 or more. */
static igpt_result igpt__meta_int(const igpt__file *file, int key, int *value)
{
  const char *text = file->meta[key];
  uint64_t number = 0;
  if (!text) return igpt__fail(file->log, IGPT_BAD_FILE, "__metadata__ has no %s", igpt__keys[key]);
  if (igpt__parse_u64(&text, &number) || *text || number < 1 || number > 0x7fffffff)
    return igpt__fail(file->log, IGPT_BAD_FILE, "%s is \"%p\", and must be 1..2147483647",
                      igpt__keys[key], file->meta[key]);
  *value = (int)number;
  return IGPT_OK;
}

/* `count` whole numbers, one space between them. */
static igpt_result igpt__meta_u64(const igpt__file *file, int key, uint64_t *value, size_t count)
{
  const char *text = file->meta[key];
  size_t i;
  if (!text) return igpt__fail(file->log, IGPT_BAD_FILE, "__metadata__ has no %s", igpt__keys[key]);
  for (i = 0; i < count; i++)
    if ((i && *text++ != ' ') || igpt__parse_u64(&text, &value[i])) break;
  if (i < count || *text)
    return igpt__fail(file->log, IGPT_BAD_FILE, "%s is \"%p\", and must be %z whole numbers",
                      igpt__keys[key], file->meta[key], count);
  return IGPT_OK;
}

static igpt_result igpt__meta_word(const igpt__file *file, int key, const char *word)
{
  if (!file->meta[key])
    return igpt__fail(file->log, IGPT_BAD_FILE, "__metadata__ has no %s", igpt__keys[key]);
  if (strcmp(file->meta[key], word) != 0)
    return igpt__fail(file->log, IGPT_MISMATCH, "%s is \"%p\", and this library has only \"%s\"",
                      igpt__keys[key], file->meta[key], word);
  return IGPT_OK;
}

static igpt_result igpt__meta_palette(igpt__file *file)
{
  const char *text = file->meta[IGPT__KEY_centres], *name = file->meta[IGPT__KEY_palette];
  const int colours = file->config.vocabulary;
  igpt_palette *palette = &file->palette;
  size_t used = 0, n;
  int i;
  if (!text && !name) return IGPT_OK;
  if (!text || !name || colours > IGPT_PALETTE_MAX)
    return igpt__fail(file->log, IGPT_BAD_FILE,
                      "a palette has igpt.palette, igpt.centres and at most %d colours, of %d",
                      IGPT_PALETTE_MAX, colours);
  for (i = 0; i < 3 * colours; i++)
    if ((i && *text++ != ' ') || igpt__parse_real(&text, &palette->centre[i / 3][i % 3])) break;
  if (i < 3 * colours || *text)
    return igpt__fail(file->log, IGPT_BAD_FILE, "igpt.centres: number %d of %d is not one", i + 1,
                      3 * colours);
  for (; *name && (n = igpt__utf8(name, strlen(name))) > 0; name += n, used += n) {
    if (used + n >= sizeof palette->name) break;            /* cut between characters */
    memcpy(palette->name + used, name, n);
  }
  palette->colours = colours;
  return IGPT_OK;
}

/* What only __metadata__ knows, in a file of this library. */
static igpt_result igpt__read_own(igpt__file *file)
{
  igpt_config *config = &file->config;
  const char *const epsilon = file->meta[IGPT__KEY_norm_epsilon], *text = epsilon;
  const char *const objective = file->meta[IGPT__KEY_objective];
  int version = 0;
  igpt_result result = igpt__meta_int(file, IGPT__KEY_version, &version);
  if (!result && version > IGPT__FILE_VERSION)
    return igpt__fail(file->log, IGPT_UNSUPPORTED, "igpt.version is %d, and %d is the latest known",
                      version, (int)IGPT__FILE_VERSION);
  if (!result) result = igpt__meta_int(file, IGPT__KEY_rows, &config->rows);
  if (!result) result = igpt__meta_int(file, IGPT__KEY_columns, &config->columns);
  if (!result) result = igpt__meta_int(file, IGPT__KEY_heads, &config->heads);
  if (!result) result = igpt__meta_u64(file, IGPT__KEY_step, &file->step, 1);
  if (!result) result = igpt__meta_word(file, IGPT__KEY_activation, "quick_gelu");
  if (!result) result = igpt__meta_word(file, IGPT__KEY_order, "raster");
  if (result) return result;
  if (!text || igpt__parse_real(&text, &config->norm_epsilon) || *text ||
      !(config->norm_epsilon > 0))
    return igpt__fail(file->log, IGPT_BAD_FILE, "igpt.norm_epsilon is %s, and no number above 0",
                      epsilon ? epsilon : "absent");
  if (file->meta[IGPT__KEY_biases]) {
    config->biases = 1;
    result = igpt__meta_word(file, IGPT__KEY_biases, "1");
    if (result) return result;
  }
  if (!objective || (strcmp(objective, "ar") != 0 && strcmp(objective, "bert") != 0))
    return igpt__fail(file->log, IGPT_BAD_FILE, "igpt.objective is %s, and neither ar nor bert",
                      objective ? objective : "absent");
  config->objective = strcmp(objective, "ar") == 0 ? IGPT_AR : IGPT_BERT;
  return IGPT_OK;
}

/* What a file of Hugging Face does not say comes from the caller. */
static igpt_result igpt__read_foreign(igpt__file *file, const igpt_config *want, int positions,
                                      int inputs)
{
  igpt_config *config = &file->config;
  if (!want->heads)
    return igpt__fail(file->log, IGPT_MISMATCH,
                      "config.heads is 0, and the file does not say it either: give it");
  if (config->width % want->heads)
    return igpt__fail(file->log, IGPT_MISMATCH, "config.heads is %d, which does not divide the"
                      " file's width %d", want->heads, config->width);
  config->heads = want->heads;
  config->norm_epsilon = want->norm_epsilon;
  config->objective = config->vocabulary ? inputs == config->vocabulary ? IGPT_BERT : IGPT_AR
                                         : want->objective;
  config->rows = want->rows;
  config->columns = want->columns;
  if (!config->rows && !config->columns) {
    for (config->rows = 1; config->rows < 1 << 15 && config->rows * config->rows < positions;)
      config->rows++;
    config->columns = config->rows;
  }
  if (!config->rows) config->rows = positions / config->columns;
  if (!config->columns) config->columns = positions / config->rows;
  return IGPT_OK;
}

/* A side of a tensor that the shape of the network is taken from. */
static igpt_result igpt__read_side(const igpt__file *file, const char *name, int side, int *value)
{
  const igpt__entry *entry = igpt__find(file, name);
  *value = 0;
  if (!entry) return IGPT_OK;
  if (entry->rank != 2 || entry->shape[side] < 1 || entry->shape[side] > 0x7fffffff)
    return igpt__fail(file->log, IGPT_MISMATCH,
                      "tensor %s of rank %d with a side of %u is no matrix of this network", name,
                      entry->rank, entry->shape[side]);
  *value = (int)entry->shape[side];
  return IGPT_OK;
}

static float igpt__half_to_float(uint16_t half)
{
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u;
  const uint32_t fraction = half & 0x3ffu;
  uint32_t bits = sign | (exponent + 112) << 23 | fraction << 13;
  float value;
  if (exponent == 0) {            /* zero, and numbers below 2^-14: fraction 2^-24 */
    value = (float)fraction * 5.9604644775390625e-8f;
    return sign ? -value : value;
  }
  if (exponent == 31) bits = sign | 0x7f800000u | fraction << 13;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Numbers [first, first + count) of an entry as floats. `to` may be the chunk. */
static igpt_result igpt__read_floats(const igpt__file *file, const igpt__entry *entry, float *to,
                                     size_t first, size_t count)
{
  const size_t size = (size_t)igpt__dtypes[entry->dtype].size, step = IGPT__CHUNK / sizeof(float);
  const uint64_t offset = file->data + entry->begin;
  size_t i, j, n;
  if (entry->dtype == IGPT__F32) {
    if (igpt__fetch(file->source, offset + (uint64_t)first * size, to, count * size))
      return igpt__fail(file->log, IGPT_READ_ERROR, "reading tensor %s failed", entry->name);
    if (igpt__big_endian()) igpt__swap(to, count, size);
    return IGPT_OK;
  }
  for (i = 0; i < count; i += n) {
    uint16_t *halves = (uint16_t *)(void *)file->chunk;
    n = igpt__min_size(step, count - i);
    if (igpt__fetch(file->source, offset + (uint64_t)(first + i) * size, halves, n * size))
      return igpt__fail(file->log, IGPT_READ_ERROR, "reading tensor %s failed", entry->name);
    if (igpt__big_endian()) igpt__swap(halves, n, size);
    for (j = n; j-- > 0;) {       /* backwards: `to` may be the chunk, and a float is wider */
      uint16_t half;
      uint32_t bits;
      memcpy(&half, file->chunk + j * size, sizeof half);
      bits = (uint32_t)half << 16;
      if (entry->dtype == IGPT__BF16) memcpy(to + i + j, &bits, sizeof bits);
      else to[i + j] = igpt__half_to_float(half);
    }
  }
  return IGPT_OK;
}

static int igpt__ends(const char *name, const char *end)
{
  const size_t length = strlen(name), n = strlen(end);
  return length > n && strcmp(name + length - n, end) == 0;
}

/* config.biases is 1 if there is a bias that is not zero. What else is wrong with them shows when
   tensors find their places. */
static igpt_result igpt__read_biases(igpt__file *file)
{
  float *values = (float *)(void *)file->chunk;
  size_t e, i, n, first;
  for (e = 0; e < file->count && !file->config.biases; e++) {
    const igpt__entry *entry = &file->entry[e];
    if (entry->dtype > IGPT__BF16 || entry->rank != 1 || entry->shape[0] > SIZE_MAX / 2 ||
        strncmp(entry->name, "adam.", 5) == 0 ||
        !(igpt__ends(entry->name, ".c_attn.bias") || igpt__ends(entry->name, ".c_proj.bias") ||
          igpt__ends(entry->name, ".c_fc.bias"))) continue;
    for (first = 0; first < entry->shape[0]; first += n) {
      igpt_result result;
      n = (size_t)entry->shape[0] - first;
      n = igpt__min_size(IGPT__CHUNK / sizeof(float), n);
      result = igpt__read_floats(file, entry, values, first, n);
      if (result) return result;
      for (i = 0; i < n; i++) file->config.biases |= !(values[i] == 0);
    }
  }
  return IGPT_OK;
}

/* What is wrong with the configuration of a file is wrong with the file, in the log too. */
static void igpt__file_line(void *user, igpt_result result, const char *sentence)
{
  igpt__fail((const igpt_log *)user, result == IGPT_BAD_ARGUMENT ? IGPT_BAD_FILE : result, "%s",
             sentence);
}

/* The configuration, from tensors, __metadata__ and the caller; they must agree. */
static igpt_result igpt__read_config(igpt__file *file, const igpt_config *want)
{
  static const char *const names[] = { "layers", "heads", "width", "rows", "columns",
                                       "vocabulary", "classes", "objective" };
  const int own = file->meta[IGPT__KEY_version] != NULL;
  igpt_config *config = &file->config;
  igpt_log log;
  int have[8], wanted[8], positions, inputs, i;
  igpt_result result = igpt__read_side(file, "transformer.wte.weight", 1, &config->width);
  if (!result) result = igpt__read_side(file, "transformer.wte.weight", 0, &inputs);
  if (!result) result = igpt__read_side(file, "transformer.wpe.weight", 0, &positions);
  if (!result) result = igpt__read_side(file, "lm_head.weight", 0, &config->vocabulary);
  if (!result) result = igpt__read_side(file, "score.weight", 0, &config->classes);
  if (result) return result;
  if (!config->width || !positions || (own && !config->vocabulary && !config->classes))
    return igpt__fail(file->log, IGPT_MISMATCH, "the file has no tensor %s",
                      !config->width ? "transformer.wte.weight" : !positions
                                     ? "transformer.wpe.weight" : "lm_head.weight");
  for (;;) {                      /* blocks, as long as they are there */
    char name[48];
    size_t used = igpt__put_text(name, sizeof name, 0, "transformer.h.");
    used = igpt__put_integer(name, sizeof name, used, (uint64_t)config->layers);
    igpt__put_text(name, sizeof name, used, ".ln_1.weight");
    if (!igpt__find(file, name)) break;
    config->layers++;
  }
  if (!config->layers)
    return igpt__fail(file->log, IGPT_MISMATCH, "the file has no tensor %s",
                      "transformer.h.0.ln_1.weight");
  result = own ? igpt__read_own(file) : igpt__read_foreign(file, want, positions, inputs);
  if (result) return result;
  if (!config->vocabulary) config->vocabulary = inputs - (config->objective == IGPT_AR);
  result = igpt__read_biases(file);
  if (result) return result;
  if (want->biases) config->biases = 1;
  if ((uint64_t)config->rows * (uint64_t)config->columns != (uint64_t)positions)
    return igpt__fail(file->log, IGPT_MISMATCH,
                      "config: %d rows of %d are not the %d positions of transformer.wpe.weight",
                      config->rows, config->columns, positions);

  if (!config->classes) config->classes = want->classes;
  have[0] = config->layers;     wanted[0] = want->layers;
  have[1] = config->heads;      wanted[1] = want->heads;
  have[2] = config->width;      wanted[2] = want->width;
  have[3] = config->rows;       wanted[3] = want->rows;
  have[4] = config->columns;    wanted[4] = want->columns;
  have[5] = config->vocabulary; wanted[5] = want->vocabulary;
  have[6] = config->classes;    wanted[6] = want->classes;
  have[7] = (int)config->objective;
  wanted[7] = (int)want->objective;
  for (i = 0; i < 8; i++)
    if (wanted[i] && wanted[i] != have[i])
      return igpt__fail(file->log, IGPT_MISMATCH, "config.%s is %d, and the file has %d", names[i],
                        wanted[i], have[i]);
  if (want->norm_epsilon != 0 && !(want->norm_epsilon == config->norm_epsilon))
    return igpt__fail(file->log, IGPT_MISMATCH, "config.norm_epsilon is %g, and the file has %g",
                      (double)want->norm_epsilon, (double)config->norm_epsilon);
  log.line = igpt__file_line;
  log.user = (void *)(uintptr_t)file->log;
  result = igpt_config_resolve(config, &log);
  if (result) return result == IGPT_BAD_ARGUMENT ? IGPT_BAD_FILE : result;
  igpt__specs_make(&file->specs, config);
  return igpt__meta_palette(file);
}

static size_t igpt__put_shape(char text[64], int rank, const uint64_t *shape)
{
  size_t used = igpt__put_text(text, 64, 0, "[");
  int i;
  for (i = 0; i < rank && i < 2; i++) {
    if (i) used = igpt__put_text(text, 64, used, ", ");
    used = igpt__put_integer(text, 64, used, shape[i]);
  }
  if (rank > 2) used = igpt__put_text(text, 64, used, ", ...");
  return igpt__put_text(text, 64, used, "]");
}

/* Finds a tensor of rows x columns (0: a vector) numbers and takes it. *out is null without one. */
static igpt_result igpt__take_entry(igpt__file *file, igpt__entry **out, const char *name,
                                    size_t rows, size_t columns)
{
  igpt__entry *entry = *out = igpt__find(file, name);
  const int rank = columns ? 2 : 1;
  uint64_t shape[2];
  if (!entry) return IGPT_OK;
  shape[0] = rows;
  shape[1] = columns;
  if (entry->dtype > IGPT__BF16)
    return igpt__fail(file->log, IGPT_MISMATCH,
                      "tensor %s has dtype %s, and must be F32, F16 or BF16", name,
                      igpt__dtypes[entry->dtype].name);
  if (entry->rank != rank || entry->shape[0] != rows || (rank == 2 && entry->shape[1] != columns)) {
    char found[64], expected[64];
    igpt__put_shape(found, entry->rank, entry->shape);
    igpt__put_shape(expected, rank, shape);
    return igpt__fail(file->log, IGPT_MISMATCH, "tensor %s has shape %s, and must be %s", name,
                      found, expected);
  }
  entry->used = 1;
  return IGPT_OK;
}

/* Tensors that belong to no network but are welcome in a file: the masks of old ImageGPT files, and
   what a checkpoint adds for training. */
static int igpt__ignored(const char *name)
{
  return igpt__ends(name, ".attn.bias") || igpt__ends(name, ".attn.masked_bias") ||
         strncmp(name, "adam.", 5) == 0 || strcmp(name, "progress") == 0;
}

/* Every tensor of the network is there, in the right shape, but for a head or a bias, which is then
   zero; no other is there, but for zero biases that the network does not have. */
static igpt_result igpt__verify_tensors(igpt__file *file)
{
  igpt__entry *entry;
  char name[48];
  size_t index, i;
  igpt_result result;
  for (index = 0; index < igpt__slots(&file->specs, &file->config); index++) {
    const igpt__spec *spec = igpt__slot(&file->specs, index, name);
    result = igpt__take_entry(file, &entry, name, spec->rows, spec->columns);
    if (result) return result;
    if (!entry && strcmp(name, "score.weight") != 0 && strcmp(name, "lm_head.weight") != 0 &&
        !igpt__ends(name, ".bias"))
      return igpt__fail(file->log, IGPT_MISMATCH, "the file has no tensor %s", name);
    if (!igpt__bias_name(&file->specs, index, spec, name)) continue;
    result = igpt__take_entry(file, &entry, name, spec->columns, 0);
    if (result) return result;
  }
  for (i = 0; i < file->count; i++)
    if (!file->entry[i].used && !igpt__ignored(file->entry[i].name))
      return igpt__fail(file->log, IGPT_MISMATCH,
                        "tensor %s has no place in a network of %d blocks", file->entry[i].name,
                        file->config.layers);
  return IGPT_OK;
}

/* The first number that is not finite, or below `least`: its place, or count. */
static size_t igpt__first_bad(const float *x, size_t count, float least, float most)
{
  size_t i;
  for (i = 0; i < count && x[i] >= least && x[i] <= most; i++) {}
  return i;
}

static igpt_result igpt__bad_number(const igpt_log *log, const char *name, size_t place,
                                    float value)
{
  return igpt__fail(log, IGPT_NOT_FINITE, "tensor %s: number %z is %g", name, place, (double)value);
}

/* Points a tensor to the numbers of its entry (null: there is none) in the source's memory. */
static igpt_result igpt__borrow(const igpt__file *file, const igpt__entry *entry,
                                igpt_tensor *tensor)
{
  const char *memory = (const char *)file->source->memory;
  int rest;
  if (!memory)
    return igpt__fail(file->log, IGPT_BAD_ARGUMENT,
                      "model.borrow is 1, and the source is not in memory");
  if (igpt__big_endian())
    return igpt__fail(file->log, IGPT_UNSUPPORTED,
                      "model.borrow is 1, and this machine is big-endian, as no file is");
  if (!entry)
    return igpt__fail(file->log, IGPT_MISMATCH, "the file has no tensor %s to borrow",
                      tensor->name);
  if (entry->dtype != IGPT__F32)
    return igpt__fail(file->log, IGPT_MISMATCH,
                      "tensor %s has dtype %s, and must be F32 to be borrowed", tensor->name,
                      igpt__dtypes[entry->dtype].name);
  memory += (size_t)(file->data + entry->begin);
  rest = (int)((uintptr_t)memory % sizeof(float));
  if (rest)
    return igpt__fail(file->log, IGPT_MISMATCH, "tensor %s lies %d bytes past a multiple of %d, and"
                      " must lie at one to be borrowed", tensor->name, rest, (int)sizeof(float));
  tensor->data = (float *)(uintptr_t)memory;  /* no longer const, but only read */
  return IGPT_OK;
}

IGPT__EXACT_ENTRY(igpt_model_read,
                  (igpt_model **out, const igpt_source *source, const igpt_model_desc *desc),
                  (out, source, desc))
{
  igpt_model_desc d;
  igpt_allocator allocator;
  igpt__file *file;
  igpt_model *model = NULL;
  igpt_result result;
  size_t index;
  if (!out) return IGPT_BAD_ARGUMENT;
  *out = NULL;
  memset(&d, 0, sizeof d);
  if (desc) d = *desc;
  allocator = d.allocator;
  result = igpt__allocator_resolve(&allocator, &d.log);
  if (!result) result = igpt__file_begin(&file, source, &allocator, &d.log);
  if (result) return result;
  result = igpt__config_check(&d.config, &d.log);
  if (!result) result = igpt__read_config(file, &d.config);
  if (!result) result = igpt__verify_tensors(file);
  if (!result) {
    d.config = file->config;
    result = igpt__model_open(&model, &d);
  }
  for (index = 0; !result && index < igpt_model_tensors(model); index++) {
    const igpt__entry *entry;
    igpt_tensor tensor;
    size_t bad;
    igpt_model_tensor_at(model, &tensor, index);
    entry = igpt__find(file, tensor.name);
    if (d.borrow) result = igpt__borrow(file, entry, &tensor);
    else if (entry) result = igpt__read_floats(file, entry, tensor.data, 0, tensor.count);
    else memset(tensor.data, 0, tensor.count * sizeof *tensor.data);
    if (result) break;
    *igpt__field(&model->weights, &model->specs, index) = tensor.data;
    bad = igpt__first_bad(tensor.data, tensor.count, -IGPT__LARGEST, IGPT__LARGEST);
    if (bad < tensor.count)
      result = igpt__bad_number(&d.log, tensor.name, bad, tensor.data[bad]);
  }
  if (!result) {
    model->palette = file->palette;
    model->step = file->step;
    *out = model;
  } else {
    igpt_model_destroy(model);
  }
  igpt__file_end(file);
  return result;
}

/* ---- writing ------------------------------------------------------------------------------- */

/* Collects small pieces; with a null sink it only counts, which is how the header's length is known
   before the header is written. */
typedef struct igpt__writer {
  const igpt_sink *sink;
  uint64_t count;
  size_t used;
  int failed;
  char buffer[1024];
} igpt__writer;

static void igpt__flush(igpt__writer *w)
{
  if (w->sink && w->used && !w->failed)
    w->failed = w->sink->write(w->sink->user, w->buffer, w->used) != 0;
  w->used = 0;
}

static void igpt__emit(igpt__writer *w, const void *bytes, size_t count)
{
  const char *from = (const char *)bytes;
  w->count += count;
  if (!w->sink) return;
  while (count) {
    const size_t n = igpt__min_size(count, sizeof w->buffer - w->used);
    memcpy(w->buffer + w->used, from, n);
    w->used += n;
    from += n;
    count -= n;
    if (w->used == sizeof w->buffer) igpt__flush(w);
  }
}

static void igpt__emit_text(igpt__writer *w, const char *text)
{
  igpt__emit(w, text, strlen(text));
}

static void igpt__emit_u64(igpt__writer *w, uint64_t value)
{
  char text[24];
  igpt__put_integer(text, sizeof text, 0, value);
  igpt__emit_text(w, text);
}

static void igpt__emit_real(igpt__writer *w, float value)
{
  char text[32];
  igpt__print_real(text, value);
  igpt__emit_text(w, text);
}

/* The inside of a JSON string; bytes that are not UTF-8 become question marks. */
static void igpt__emit_string(igpt__writer *w, const char *text, size_t most)
{
  static const char hex[] = "0123456789abcdef";
  size_t i = 0, n;
  while (i < most && text[i]) {
    const unsigned char c = (unsigned char)text[i];
    if (c < 0x20 || c == '"' || c == '\\') {
      char escape[] = "\\u00xx";
      escape[4] = hex[c >> 4];
      escape[5] = hex[c & 15];
      igpt__emit_text(w, escape);
      n = 1;
    } else {
      n = igpt__utf8(text + i, most - i);
      igpt__emit(w, n ? text + i : "?", n ? n : 1);
      if (!n) n = 1;
    }
    i += n;
  }
}

/* ,"key":"  ... and the caller goes on with the value and the closing quote */
static void igpt__emit_key(igpt__writer *w, int key)
{
  igpt__emit_text(w, ",\"");
  igpt__emit_text(w, igpt__keys[key]);
  igpt__emit_text(w, "\":\"");
}

static void igpt__emit_meta_u64(igpt__writer *w, int key, uint64_t value)
{
  igpt__emit_key(w, key);
  igpt__emit_u64(w, value);
  igpt__emit_text(w, "\"");
}

static void igpt__emit_meta_text(igpt__writer *w, int key, const char *text, size_t most)
{
  igpt__emit_key(w, key);
  igpt__emit_string(w, text, most);
  igpt__emit_text(w, "\"");
}

static void igpt__emit_entry(igpt__writer *w, const char *prefix, const char *name, int dtype,
                             size_t rows, size_t columns, uint64_t *place)
{
  const uint64_t bytes = (uint64_t)rows * (columns ? columns : 1) * igpt__dtypes[dtype].size;
  igpt__emit_text(w, ",\"");
  igpt__emit_text(w, prefix);
  igpt__emit_text(w, name);
  igpt__emit_text(w, "\":{\"dtype\":\"");
  igpt__emit_text(w, igpt__dtypes[dtype].name);
  igpt__emit_text(w, "\",\"shape\":[");
  igpt__emit_u64(w, rows);
  if (columns) {
    igpt__emit_text(w, ",");
    igpt__emit_u64(w, columns);
  }
  igpt__emit_text(w, "],\"data_offsets\":[");
  igpt__emit_u64(w, *place);
  igpt__emit_text(w, ",");
  igpt__emit_u64(w, *place += bytes);
  igpt__emit_text(w, "]}");
}

static void igpt__emit_bf16(igpt__writer *w, const float *x, size_t count)
{
  size_t i;
  for (i = 0; i < count; i++) {
    const float rounded = igpt__round_bf16(x[i]);
    unsigned char bytes[2];
    uint32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    bytes[0] = (unsigned char)(bits >> 16 & 255);
    bytes[1] = (unsigned char)(bits >> 24);
    igpt__emit(w, bytes, 2);
  }
}

static void igpt__emit_floats(igpt__writer *w, const float *x, size_t count)
{
  igpt__flush(w);
  w->count += (uint64_t)count * sizeof *x;
  if (!igpt__big_endian()) {
    if (count && !w->failed) w->failed = w->sink->write(w->sink->user, x, count * sizeof *x) != 0;
    return;
  }
  while (count && !w->failed) {
    const size_t n = igpt__min_size(count, sizeof w->buffer / sizeof *x);
    memcpy(w->buffer, x, n * sizeof *x);
    igpt__swap(w->buffer, n, sizeof *x);
    w->used = n * sizeof *x;
    igpt__flush(w);
    x += n;
    count -= n;
  }
}

/* A file's content: a model, and for a checkpoint what training adds. */
typedef struct igpt__content {
  const igpt_model *model;
  int      dtype;                 /* of its tensors: IGPT__F32 or IGPT__BF16 */
  const char *without;            /* name of a tensor that is left out; null: of none */
  const float *moment1, *moment2; /* (parameters); null: no checkpoint */
  uint64_t adam_step;
  uint64_t numbers[5];            /* step, picture, the generator's seed, stream and index */
  double   reals[5];              /* seconds, user[4] */
} igpt__content;

static const char *const igpt__moments[] = { "adam.m.", "adam.v." };

static int igpt__left_out(const igpt__content *content, const char *name)
{
  return content->without && strcmp(name, content->without) == 0;
}

static void igpt__write_header(igpt__writer *w, const igpt__content *content)
{
  const igpt_model *model = content->model;
  const igpt_config *config = &model->config;
  const igpt_palette *palette = &model->palette;
  const igpt__specs *specs = &model->specs;
  const size_t slots = igpt_model_tensors(model);
  uint64_t place = 0;
  char name[48];
  size_t index;
  int i;
  igpt__emit_text(w, "{\"__metadata__\":{\"format\":\"pt\"");
  igpt__emit_meta_u64(w, IGPT__KEY_version, IGPT__FILE_VERSION);
  igpt__emit_meta_text(w, IGPT__KEY_objective, config->objective == IGPT_AR ? "ar" : "bert", 8);
  igpt__emit_meta_u64(w, IGPT__KEY_rows, (uint64_t)config->rows);
  igpt__emit_meta_u64(w, IGPT__KEY_columns, (uint64_t)config->columns);
  igpt__emit_meta_u64(w, IGPT__KEY_heads, (uint64_t)config->heads);
  igpt__emit_key(w, IGPT__KEY_norm_epsilon);
  igpt__emit_real(w, config->norm_epsilon);
  igpt__emit_text(w, "\"");
  igpt__emit_meta_text(w, IGPT__KEY_activation, "quick_gelu", 16);
  igpt__emit_meta_text(w, IGPT__KEY_order, "raster", 16);
  igpt__emit_meta_u64(w, IGPT__KEY_step, model->step);
  if (config->biases) igpt__emit_meta_u64(w, IGPT__KEY_biases, 1);
  if (palette->colours) {
    igpt__emit_meta_text(w, IGPT__KEY_palette, palette->name, sizeof palette->name);
    igpt__emit_key(w, IGPT__KEY_centres);
    for (i = 0; i < 3 * palette->colours; i++) {
      if (i) igpt__emit_text(w, " ");
      igpt__emit_real(w, palette->centre[i / 3][i % 3]);
    }
    igpt__emit_text(w, "\"");
  }
  if (content->moment1) {
    igpt__emit_meta_u64(w, IGPT__KEY_adam_step, content->adam_step);
    igpt__emit_key(w, IGPT__KEY_progress);
    for (i = 0; i < 5; i++) {
      if (i) igpt__emit_text(w, " ");
      igpt__emit_u64(w, content->numbers[i]);
    }
    igpt__emit_text(w, "\"");
  }
  igpt__emit_text(w, "}");
  if (content->moment1) igpt__emit_entry(w, "", "progress", IGPT__F64, 5, 0, &place);
  for (index = 0; index < slots; index++) {
    const igpt__spec *spec = igpt__slot(specs, index, name);
    if (igpt__left_out(content, name)) continue;
    igpt__emit_entry(w, "", name, content->dtype, spec->rows, spec->columns, &place);
    if (igpt__bias_name(specs, index, spec, name))
      igpt__emit_entry(w, "", name, content->dtype, spec->columns, 0, &place);
  }
  for (i = 0; i < 2 && content->moment1; i++)
    for (index = 0; index < slots; index++) {
      const igpt__spec *spec = igpt__slot(specs, index, name);
      igpt__emit_entry(w, igpt__moments[i], name, IGPT__F32, spec->rows, spec->columns, &place);
    }
  igpt__emit_text(w, "}");
  while (w->count % 8) igpt__emit_text(w, " ");             /* numbers start on a multiple of 8 */
}

/* Whether a reader takes the numbers of a tensor, and its moments. */
static igpt_result igpt__writable(const igpt__content *content, const igpt_tensor *tensor,
                                  const igpt_log *log)
{
  const float *const x = tensor->data;
  const size_t n = tensor->count;
  size_t bad = igpt__first_bad(x, n, -IGPT__LARGEST, IGPT__LARGEST), i, used;
  if (bad < n) return igpt__bad_number(log, tensor->name, bad, x[bad]);
  for (i = 0; content->dtype == IGPT__BF16 && i < n; i++)
    if (!igpt__finite((double)igpt__round_bf16(x[i])))
      return igpt__fail(log, IGPT_NOT_FINITE, "tensor %s: number %z is %g, which bfloat16 cannot"
                        " hold", tensor->name, i, (double)x[i]);
  for (i = 0; content->moment1 && i < 2; i++) {
    const float *moment = i ? content->moment2 : content->moment1;
    char name[64];
    moment += x - content->model->scalars;
    bad = igpt__first_bad(moment, n, -IGPT__LARGEST, IGPT__LARGEST);
    if (bad == n) continue;
    used = igpt__put_text(name, sizeof name, 0, igpt__moments[i]);
    igpt__put_text(name, sizeof name, used, tensor->name);
    return igpt__bad_number(log, name, bad, moment[bad]);
  }
  return IGPT_OK;
}

static igpt_result igpt__write_content(const igpt__content *content, const igpt_sink *sink,
                                       const igpt_log *log)
{
  const igpt_model *model = content->model;
  const igpt_palette *palette = &model->palette;
  const size_t size = (size_t)igpt__dtypes[content->dtype].size;
  static const float zeros[64] = { 0 };
  unsigned char length[8];
  igpt__writer w;
  size_t index, i;
  if (!sink || !sink->write) return igpt__fail(log, IGPT_BAD_ARGUMENT, "sink.write is null");
  for (i = 0; i < 3 * (size_t)palette->colours; i++)
    if (!igpt__finite((double)palette->centre[i / 3][i % 3]))
      return igpt__fail(log, IGPT_NOT_FINITE, "palette: centre %z is %g", i / 3,
                        (double)palette->centre[i / 3][i % 3]);
  for (index = 0; index < igpt_model_tensors(model); index++) {
    igpt_result result;
    igpt_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    igpt_model_tensor_at(model, &tensor, index);
    result = igpt__writable(content, &tensor, log);
    if (result) return result;
  }
  memset(&w, 0, sizeof w);
  igpt__write_header(&w, content);
  for (i = 0; i < 8; i++) length[i] = (unsigned char)(w.count >> 8 * i & 255);
  w.count = 0;
  w.sink = sink;
  igpt__emit(&w, length, 8);
  igpt__write_header(&w, content);
  if (content->moment1) {
    double reals[5];
    memcpy(reals, content->reals, sizeof reals);
    if (igpt__big_endian()) igpt__swap(reals, 5, sizeof *reals);
    igpt__emit(&w, reals, sizeof reals);
  }
  for (index = 0; index < igpt_model_tensors(model) && !w.failed; index++) {
    char name[48];
    const igpt__spec *spec = igpt__slot(&model->specs, index, name);
    igpt_tensor tensor;
    igpt_model_tensor_at(model, &tensor, index);
    if (igpt__left_out(content, name)) continue;
    if (content->dtype == IGPT__BF16) igpt__emit_bf16(&w, tensor.data, tensor.count);
    else igpt__emit_floats(&w, tensor.data, tensor.count);
    if (igpt__bias_name(&model->specs, index, spec, name))
      for (i = 0; i < spec->columns; i += 64)
        igpt__emit(&w, zeros, igpt__min_size(64, spec->columns - i) * size);
  }
  if (content->moment1) {
    igpt__emit_floats(&w, content->moment1, model->specs.scalars);
    igpt__emit_floats(&w, content->moment2, model->specs.scalars);
  }
  igpt__flush(&w);
  if (w.failed)
    return igpt__fail(log, IGPT_WRITE_ERROR, "writing failed before byte %u", w.count);
  return IGPT_OK;
}

static igpt_result igpt__model_write(const igpt_model *model, int dtype, const char *without,
                                     const igpt_sink *sink, const igpt_log *log)
{
  igpt__content content;
  memset(&content, 0, sizeof content);
  content.model = model;
  content.dtype = dtype;
  content.without = without;
  return igpt__write_content(&content, sink, log);
}

IGPT__EXACT_ENTRY(igpt_model_write, (const igpt_model *model, const igpt_sink *sink), (model, sink))
{
  return model ? igpt__model_write(model, IGPT__F32, NULL, sink, &model->log) : IGPT_BAD_ARGUMENT;
}

IGPT__EXACT_ENTRY(igpt_model_write_bf16, (const igpt_model *model, const igpt_sink *sink),
                  (model, sink))
{
  return model ? igpt__model_write(model, IGPT__BF16, NULL, sink, &model->log) : IGPT_BAD_ARGUMENT;
}

IGPT__EXACT_ENTRY(igpt_model_write_hf,
                  (const igpt_model *model, const igpt_sink *sink, int classifier),
                  (model, sink, classifier))
{
  if (!model) return IGPT_BAD_ARGUMENT;
  if (model->config.objective != IGPT_AR)
    return igpt__fail(&model->log, IGPT_WRONG_OBJECTIVE, "the model's objective is BERT, and "
                      "Hugging Face's ImageGPT has only AR: each pixel sees those before it alone");
  if (classifier && !model->config.classes)
    return igpt__fail(&model->log, IGPT_UNTRAINED_HEAD,
                      "the model has 0 classes, and a classifier has a class head");
  return igpt__model_write(model, IGPT__F32, classifier ? "lm_head.weight" : "score.weight", sink,
                           &model->log);
}

/* ---- checkpoints --------------------------------------------------------------------------- */
#ifndef IGPT_NO_TRAIN

/* The pair of a training session and the model it trains. */
static igpt_result igpt__checkpoint_check(const igpt_session *session, const igpt_model *model,
                                          const igpt_log *log)
{
  if (!session->desc.train)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "a checkpoint needs a session with train = 1");
  if (session->model != model)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "the checkpoint's model is not the session's");
  return IGPT_OK;
}

static igpt_result igpt__checkpoint_write(const igpt_session *session, const igpt_model *model,
                                          const igpt_progress *progress, const igpt_sink *sink,
                                          const igpt_log *log)
{
  igpt__content content;
  igpt_result result = igpt__checkpoint_check(session, model, log);
  if (result) return result;
  memset(&content, 0, sizeof content);
  content.model = model;
  content.moment1 = session->moment1;
  content.moment2 = session->moment2;
  content.adam_step = session->steps;
  if (progress) {
    content.numbers[0] = progress->step;
    content.numbers[1] = progress->picture;
    content.numbers[2] = progress->rng.seed;
    content.numbers[3] = progress->rng.stream;
    content.numbers[4] = progress->rng.index;
    content.reals[0] = progress->seconds;
    memcpy(content.reals + 1, progress->user, sizeof progress->user);
  }
  return igpt__write_content(&content, sink, log);
}

IGPT__EXACT_ENTRY(igpt_checkpoint_write,
                  (const igpt_session *session, const igpt_model *model,
                   const igpt_progress *progress, const igpt_sink *sink),
                  (session, model, progress, sink))
{
  if (!session || !model) return IGPT_BAD_ARGUMENT;
  return igpt__checkpoint_write(session, model, progress, sink, &session->desc.log);
}

/* The entry of a moment of tensor `name`, which must be there and be F32. */
static igpt_result igpt__take_moment(igpt__file *file, igpt__entry **out, int moment,
                                     const char *name, const igpt__spec *spec)
{
  char full[64];
  igpt_result result;
  size_t used = igpt__put_text(full, sizeof full, 0, igpt__moments[moment]);
  igpt__put_text(full, sizeof full, used, name);
  result = igpt__take_entry(file, out, full, spec->rows, spec->columns);
  if (result) return result;
  if (!*out || (*out)->dtype != IGPT__F32)
    return igpt__fail(file->log, IGPT_MISMATCH, "the file has no tensor %s of dtype F32: it is no"
                      " checkpoint", full);
  return IGPT_OK;
}

/* Looks at every number of an entry without keeping it. */
static igpt_result igpt__verify_numbers(const igpt__file *file, const igpt__entry *entry,
                                        size_t count, float least, float most)
{
  float *values = (float *)(void *)file->chunk;
  size_t first, n, bad;
  for (first = 0; first < count; first += n) {
    igpt_result result;
    n = igpt__min_size(IGPT__CHUNK / sizeof(float), count - first);
    result = igpt__read_floats(file, entry, values, first, n);
    if (result) return result;
    bad = igpt__first_bad(values, n, least, most);
    if (bad < n) return igpt__bad_number(file->log, entry->name, first + bad, values[bad]);
  }
  return IGPT_OK;
}

/* The old state stays until the new one is complete: weights in the place of the gradients, which
   end as zeros, moments where activations and scratch are; null if these are too small for them. */
static float *igpt__old_moments(const igpt_session *s)
{
  const size_t P = s->model->specs.scalars;
  const char *end = s->memory.aligned + (s->memory.bytes - (IGPT__ALIGN - 1));
  float *room = s->moment2 + P;
  return (size_t)(end - (const char *)room) / sizeof *room / 2 >= P ? room : NULL;
}

/* Arrays of bfloat16 lie there too, with zeros behind the columns that nobody writes again. */
static void igpt__forget_state(igpt_session *s)
{
  float *room = igpt__old_moments(s);
  if (room) memset(room, 0, 2 * s->model->specs.scalars * sizeof *room);
}

static void igpt__exchange_state(igpt_session *s, igpt_model *model, int back, const igpt_log *log)
{
  const size_t P = model->specs.scalars, bytes = P * sizeof(float);
  float *room = igpt__old_moments(s);
  if (room) {
    memcpy(back ? model->scalars : s->gradient, back ? s->gradient : model->scalars, bytes);
    memcpy(back ? s->moment1 : room, back ? room : s->moment1, bytes);
    memcpy(back ? s->moment2 : room + P, back ? room + P : s->moment2, bytes);
  } else if (back) {
    memset(model->scalars, 0xff, bytes);        /* NaN */
    igpt__fail(log, IGPT_READ_ERROR, "there was no place for the old weights: they are NaN until a"
               " checkpoint is read");
  }
  s->decode_count = 0;            /* cached keys and values lie there, or belong to old weights */
  if (!back) return;
  igpt__forget_state(s);
  igpt_gradients_zero(s);
}

static igpt_result igpt__checkpoint_copy(igpt__file *file, igpt_session *session, igpt_model *model,
                                         igpt_progress *progress)
{
  igpt__entry *entry, *reals_entry = igpt__find(file, "progress");
  uint64_t numbers[5], adam_step = 0;
  double reals[5];
  char name[48];
  size_t index;
  int moment, copying;
  igpt_result result = igpt__read_config(file, &model->config);
  if (result) return result;
  if (model->config.objective != file->config.objective)
    return igpt__fail(file->log, IGPT_MISMATCH, "config.objective is %d, and the file has %d",
                      (int)model->config.objective, (int)file->config.objective);
  if (!igpt__find(file, "score.weight")) file->config.classes = 0;
  if (file->config.classes != model->config.classes)
    return igpt__fail(file->log, IGPT_MISMATCH, "config.classes is %d, and the file has %d",
                      model->config.classes, file->config.classes);
  if ((file->meta[IGPT__KEY_biases] != NULL) != model->config.biases ||
      file->config.biases != model->config.biases)
    return igpt__fail(file->log, IGPT_MISMATCH, "config.biases is %d, and the file has %d",
                      model->config.biases, !model->config.biases);
  result = igpt__verify_tensors(file);
  if (!result) result = igpt__meta_u64(file, IGPT__KEY_adam_step, &adam_step, 1);
  if (!result) result = igpt__meta_u64(file, IGPT__KEY_progress, numbers, 5);
  if (result) return result;
  if (!reals_entry || reals_entry->dtype != IGPT__F64 || reals_entry->rank != 1 ||
      reals_entry->shape[0] != 5)
    return igpt__fail(file->log, IGPT_MISMATCH, "the file has no tensor progress of 5 F64 numbers");
  if (igpt__fetch(file->source, file->data + reals_entry->begin, reals, sizeof reals))
    return igpt__fail(file->log, IGPT_READ_ERROR, "reading tensor progress failed");
  if (igpt__big_endian()) igpt__swap(reals, 5, sizeof *reals);

  /* All of the file is looked at before any of it is kept. */
  for (copying = 0; copying < 2; copying++) {
    if (copying) igpt__exchange_state(session, model, 0, file->log);
    for (index = 0; index < igpt_model_tensors(model); index++) {
      const igpt__spec *spec = igpt__slot(&file->specs, index, name);
      float *const weights = *igpt__field(&model->weights, &model->specs, index);
      const size_t at = (size_t)(weights - model->scalars);
      entry = igpt__find(file, name);
      if (!entry)
        return igpt__fail(file->log, IGPT_MISMATCH, "the file has no tensor %s: it is no "
                          "checkpoint", name);
      result = copying ? igpt__read_floats(file, entry, weights, 0, spec->count)
                       : igpt__verify_numbers(file, entry, spec->count, -IGPT__LARGEST,
                                              IGPT__LARGEST);
      for (moment = 0; moment < 2 && !result; moment++) {
        float *to = (moment ? session->moment2 : session->moment1) + at;
        result = igpt__take_moment(file, &entry, moment, name, spec);
        if (!result && copying) result = igpt__read_floats(file, entry, to, 0, spec->count);
        else if (!result)         /* means of squares, or of what igpt_step takes */
          result = igpt__verify_numbers(file, entry, spec->count,
                                        moment ? 0 : -1.01f * IGPT__LONGEST,
                                        moment ? IGPT__LARGEST : 1.01f * IGPT__LONGEST);
      }
      if (result && copying) igpt__exchange_state(session, model, 1, file->log);
      if (result) return result;
    }
  }

  igpt__forget_state(session);
  model->step = file->step;
  if (file->palette.colours) model->palette = file->palette;
  session->steps = adam_step;
  result = igpt_gradients_zero(session);
  if (progress) {
    progress->step = numbers[0];
    progress->picture = numbers[1];
    progress->rng.seed = numbers[2];
    progress->rng.stream = numbers[3];
    progress->rng.index = numbers[4];
    progress->seconds = reals[0];
    memcpy(progress->user, reals + 1, sizeof progress->user);
  }
  return result;
}

static igpt_result igpt__checkpoint_read(igpt_session *session, igpt_model *model,
                                         igpt_progress *progress, const igpt_source *source,
                                         const igpt_log *log)
{
  igpt__file *file;
  igpt_result result = igpt__checkpoint_check(session, model, log);
  if (!result) result = igpt__file_begin(&file, source, &session->desc.allocator, log);
  if (result) return result;
  if (!file->meta[IGPT__KEY_version] || !file->meta[IGPT__KEY_adam_step])
    result = igpt__fail(log, IGPT_MISMATCH, "__metadata__ has no %s: the file is no checkpoint",
                        igpt__keys[file->meta[IGPT__KEY_version] ? IGPT__KEY_adam_step
                                                                 : IGPT__KEY_version]);
  if (!result) result = igpt__checkpoint_copy(file, session, model, progress);
  igpt__file_end(file);
  return result;
}

IGPT__EXACT_ENTRY(igpt_checkpoint_read,
                  (igpt_session *session, igpt_model *model, igpt_progress *progress,
                   const igpt_source *source), (session, model, progress, source))
{
  if (!session || !model) return IGPT_BAD_ARGUMENT;
  return igpt__checkpoint_read(session, model, progress, source, &session->desc.log);
}

#endif /* IGPT_NO_TRAIN */

/* ---- .npy ---------------------------------------------------------------------------------- */

/* Bytes of an element and the name of its type, by igpt_npy_type. */
static const struct { int size; char name[3]; } igpt__npy_types[] = {
  { 1, "u1" }, { 1, "i1" }, { 2, "u2" }, { 2, "i2" }, { 4, "u4" }, { 4, "i4" }, { 8, "u8" },
  { 8, "i8" }, { 4, "f4" }, { 8, "f8" }, { 1, "b1" }
};

/* 'text' or "text" of a Python literal, as a C string inside the header. */
static int igpt__npy_string(igpt__json *header, const char **string)
{
  char quote, *start;
  if (!igpt__json_next(header, quote = '\'') && !igpt__json_next(header, quote = '"'))
    return igpt__json_fail(header, "a string");
  start = header->text + header->at;
  while (header->at < header->size && header->text[header->at] != quote) header->at++;
  if (header->at == header->size) return igpt__json_fail(header, "the end of a string");
  header->text[header->at++] = 0;
  *string = start;
  return 1;
}

static int igpt__npy_word(igpt__json *header, const char *word)
{
  igpt__json_next(header, ' ');
  if (header->wrong || strncmp(header->text + header->at, word, strlen(word)) != 0) return 0;
  header->at += strlen(word);
  return 1;
}

/* {'descr': '<f4', 'fortran_order': False, 'shape': (512, 3), } */
static void igpt__npy_header(igpt_npy *npy, igpt__json *header, const char **descr, int *fortran)
{
  const char *key;
  int seen_shape = 0;
  *fortran = -1;
  if (!igpt__json_next(header, '{')) igpt__json_fail(header, "'{'");
  while (!header->wrong && !igpt__json_next(header, '}')) {
    if (!igpt__npy_string(header, &key)) break;
    if (!igpt__json_next(header, ':')) igpt__json_fail(header, "':'");
    if (strcmp(key, "descr") == 0 && !*descr) {
      igpt__npy_string(header, descr);
    } else if (strcmp(key, "fortran_order") == 0 && *fortran < 0) {
      *fortran = igpt__npy_word(header, "True");
      if (!*fortran && !igpt__npy_word(header, "False")) igpt__json_fail(header, "True or False");
    } else if (strcmp(key, "shape") == 0 && !seen_shape) {
      seen_shape = 1;
      if (!igpt__json_next(header, '(')) igpt__json_fail(header, "'('");
      while (!header->wrong && !igpt__json_next(header, ')')) {
        if (npy->rank == 8) igpt__json_fail(header, "at most 8 sides");
        else igpt__json_u64(header, &npy->shape[npy->rank++]);
        if (!igpt__json_next(header, ',')) {
          if (!igpt__json_next(header, ')')) igpt__json_fail(header, "',' or ')'");
          break;
        }
      }
    } else {
      igpt__json_fail(header, "descr, fortran_order and shape, once each");
    }
    if (!igpt__json_next(header, ',')) {
      if (!igpt__json_next(header, '}')) igpt__json_fail(header, "',' or '}'");
      break;
    }
  }
  igpt__json_next(header, ' ');
  if (header->at < header->size) igpt__json_fail(header, "the end of the header");
  if (!*descr || *fortran < 0 || !seen_shape)
    igpt__json_fail(header, "descr, fortran_order and shape, once each");
}

igpt_result igpt_npy_open(igpt_npy *out, const igpt_source *source, const igpt_log *log)
{
  const char *descr = NULL;
  unsigned char start[12];
  char text[1024 + 1];
  igpt__json header;
  igpt_npy npy;
  uint64_t size;
  int fortran, i;
  igpt_result result = igpt__source_check(source, log);
  if (!result && !out) result = igpt__fail(log, IGPT_BAD_ARGUMENT, "igpt_npy_open: out is null");
  if (result) return result;
  memset(&npy, 0, sizeof npy);
  if (source->size < 12)
    return igpt__fail(log, IGPT_BAD_FILE, "%u bytes are too few for a .npy file", source->size);
  if (igpt__fetch(source, 0, start, 12))
    return igpt__fail(log, IGPT_READ_ERROR, "reading the first 12 bytes failed");
  if (memcmp(start, "\x93NUMPY", 6) != 0 || start[6] < 1 || start[6] > 3)
    return igpt__fail(log, IGPT_BAD_FILE, "not a .npy file of version 1, 2 or 3");
  size = start[8] | (uint64_t)start[9] << 8;
  npy.offset = 10;
  if (start[6] > 1) {
    size |= (uint64_t)start[10] << 16 | (uint64_t)start[11] << 24;
    npy.offset = 12;
  }
  if (size > sizeof text - 1 || size > source->size - npy.offset)
    return igpt__fail(log, IGPT_BAD_FILE,
                      "the header has %u bytes, of a file of %u (and %z at most)", size,
                      source->size, sizeof text - 1);
  if (igpt__fetch(source, npy.offset, text, (size_t)size))
    return igpt__fail(log, IGPT_READ_ERROR, "reading the header of %u bytes failed", size);
  npy.offset += size;
  text[size] = 0;
  memset(&header, 0, sizeof header);
  header.text = text;
  header.size = (size_t)size;
  if (strlen(text) != (size_t)size) igpt__json_fail(&header, "text without zeros");
  igpt__npy_header(&npy, &header, &descr, &fortran);
  if (header.wrong)
    return igpt__fail(log, IGPT_BAD_FILE, "header, byte %z of %z: expected %s", header.at,
                      header.size, header.wrong);
  if (fortran)
    return igpt__fail(log, IGPT_MISMATCH, "fortran_order is True, and only C order is read here");

  for (i = 0; i < (int)IGPT__COUNT(igpt__npy_types); i++)
    if (descr[0] && strcmp(descr + 1, igpt__npy_types[i].name) == 0) break;
  if (i == (int)IGPT__COUNT(igpt__npy_types) || !strchr("<>|=", descr[0]) ||
      (descr[0] == '|' && igpt__npy_types[i].size > 1))
    return igpt__fail(log, IGPT_MISMATCH, "descr is '%s', and must be u1, i1, u2, i2, u4, i4, u8,"
                      " i8, f4, f8 or b1 after <, > or = (of one byte, after | too)", descr);
  npy.type = (igpt_npy_type)i;
  npy.big_endian = descr[0] == '>' || (descr[0] == '=' && igpt__big_endian());
  for (npy.count = 1, i = 0; i < npy.rank; i++)
    npy.count = igpt__u64_mul(npy.count, npy.shape[i]);
  npy.bytes = igpt__u64_mul(npy.count, (uint64_t)igpt__npy_types[npy.type].size);
  if (npy.bytes != source->size - npy.offset)
    return igpt__fail(log, IGPT_BAD_FILE, "the shape takes %u bytes, and the file has %u",
                      npy.bytes, source->size - npy.offset);
  *out = npy;
  return IGPT_OK;
}

/* One element, already in the machine's order, as the widest of its kind. */
static void igpt__npy_element(igpt_npy_type type, const unsigned char *from, double *real,
                              int64_t *whole, int *fits)
{
  uint8_t u8; int8_t i8; uint16_t u16; int16_t i16; uint32_t u32; int32_t i32; uint64_t u64;
  float f32;
  *fits = 1;
  *whole = 0;
  switch (type) {
    case IGPT_NPY_U8:   memcpy(&u8, from, 1);  *whole = u8;  break;
    case IGPT_NPY_BOOL: memcpy(&u8, from, 1);  *whole = u8 != 0; break;
    case IGPT_NPY_I8:   memcpy(&i8, from, 1);  *whole = i8;  break;   /* NOLINT: no character */
    case IGPT_NPY_U16:  memcpy(&u16, from, 2); *whole = u16; break;
    case IGPT_NPY_I16:  memcpy(&i16, from, 2); *whole = i16; break;
    case IGPT_NPY_U32:  memcpy(&u32, from, 4); *whole = u32; break;
    case IGPT_NPY_I32:  memcpy(&i32, from, 4); *whole = i32; break;
    case IGPT_NPY_I64:  memcpy(whole, from, 8); break;
    case IGPT_NPY_U64:
      memcpy(&u64, from, 8);
      *fits = u64 <= INT64_MAX;
      *whole = *fits ? (int64_t)u64 : 0;
      *real = (double)(float)u64;
      return;
    case IGPT_NPY_F32:
      memcpy(&f32, from, 4);
      *real = (double)f32;
      *fits = 0;
      return;
    case IGPT_NPY_F64:
      memcpy(real, from, 8);
      *fits = 0;
      return;
  }
  *real = (double)(float)*whole;  /* rounded once */
}

/* Either `floats` or `wholes` is wanted. */
static igpt_result igpt__npy_read(const igpt_npy *npy, float *floats, int64_t *wholes,
                                  uint64_t first, size_t count, const igpt_source *source)
{
  unsigned char chunk[1024];
  size_t size, i, j, n;
  if (!npy || igpt__source_check(source, NULL) || (count && !floats && !wholes) ||
      (unsigned)npy->type > (unsigned)IGPT_NPY_BOOL || first > npy->count ||
      count > npy->count - first)
    return IGPT_BAD_ARGUMENT;
  if (wholes && (npy->type == IGPT_NPY_F32 || npy->type == IGPT_NPY_F64)) return IGPT_MISMATCH;
  size = (size_t)igpt__npy_types[npy->type].size;
  for (i = 0; i < count; i += n) {
    n = igpt__min_size(count - i, sizeof chunk / size);
    if (igpt__fetch(source, npy->offset + (first + i) * size, chunk, n * size))
      return IGPT_READ_ERROR;
    if (npy->big_endian != igpt__big_endian()) igpt__swap(chunk, n, size);
    for (j = 0; j < n; j++) {
      double real;
      int64_t whole;
      int fits;
      igpt__npy_element(npy->type, chunk + j * size, &real, &whole, &fits);
      if (floats) floats[i + j] = (float)real;
      else if (fits) wholes[i + j] = whole;
      else return IGPT_MISMATCH;
    }
  }
  return IGPT_OK;
}

IGPT__EXACT_ENTRY(igpt_npy_read_f32,
                  (const igpt_npy *npy, float *to, uint64_t first, size_t count,
                   const igpt_source *source), (npy, to, first, count, source))
{
  return igpt__npy_read(npy, to, NULL, first, count, source);
}

IGPT__EXACT_ENTRY(igpt_npy_read_i64,
                  (const igpt_npy *npy, int64_t *to, uint64_t first, size_t count,
                   const igpt_source *source), (npy, to, first, count, source))
{
  return igpt__npy_read(npy, NULL, to, first, count, source);
}

igpt_result igpt_npy_write(const igpt_sink *sink, igpt_npy_type type, const void *data, int rank,
                           const uint64_t *shape)
{
  static const unsigned char start[] = { 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0 };
  const char *from = (const char *)data;
  char text[384];
  unsigned char length[2];
  size_t used, size, padded, n;
  uint64_t count = 1;
  igpt__writer w;
  int i;
  if (!sink || !sink->write || (unsigned)type > (unsigned)IGPT_NPY_BOOL || rank < 0 || rank > 8 ||
      (rank && !shape))
    return IGPT_BAD_ARGUMENT;
  size = (size_t)igpt__npy_types[type].size;
  used = igpt__put_text(text, sizeof text, 0, "{'descr': '");
  used = igpt__put_text(text, sizeof text, used, size == 1 ? "|" : "<");
  used = igpt__put_text(text, sizeof text, used, igpt__npy_types[type].name);
  used = igpt__put_text(text, sizeof text, used, "', 'fortran_order': False, 'shape': (");
  for (i = 0; i < rank; i++) {
    if (i) used = igpt__put_text(text, sizeof text, used, " ");
    used = igpt__put_integer(text, sizeof text, used, shape[i]);
    if (rank == 1 || i + 1 < rank) used = igpt__put_text(text, sizeof text, used, ",");
    count = igpt__u64_mul(count, shape[i]);
  }
  used = igpt__put_text(text, sizeof text, used, "), }");
  if (igpt__u64_mul(count, size) >= SIZE_MAX) return IGPT_TOO_LARGE;
  if (count && !data) return IGPT_BAD_ARGUMENT;
  padded = igpt__size_round(10 + used + 1, 64) - 10;        /* data on a multiple of 64 */
  while (used + 1 < padded) used = igpt__put_text(text, sizeof text, used, " ");
  used = igpt__put_text(text, sizeof text, used, "\n");
  length[0] = (unsigned char)(used & 255);
  length[1] = (unsigned char)(used >> 8);
  memset(&w, 0, sizeof w);
  w.sink = sink;
  igpt__emit(&w, start, sizeof start);
  igpt__emit(&w, length, sizeof length);
  igpt__emit(&w, text, used);
  igpt__flush(&w);
  for (; count && !w.failed; count -= n, from += n * size) {
    if (!igpt__big_endian() || size == 1) {
      n = (size_t)count;
      w.failed = sink->write(sink->user, from, n * size) != 0;
      continue;
    }
    n = igpt__min_size((size_t)count, sizeof w.buffer / size);
    memcpy(w.buffer, from, n * size);
    igpt__swap(w.buffer, n, size);
    w.used = n * size;
    igpt__flush(&w);
  }
  return w.failed ? IGPT_WRITE_ERROR : IGPT_OK;
}

/* ==== 17. stdio and threads ==================================================================

   The two conveniences that need an operating system, each of which a macro removes: paths
   (IGPT_NO_STDIO) and a pool of threads (IGPT_NO_THREADS). The rest of the file never calls them:
   it knows sources, sinks and runners, which a host can supply in its own way. Both cost nothing
   while they are not used. POSIX.1-2008 and the Windows API, and plain C where there is neither. */

#if defined(_WIN32) && !(defined(IGPT_NO_STDIO) && defined(IGPT_NO_THREADS))
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#elif defined(__unix__) || defined(__unix) || defined(__APPLE__)
#define IGPT__POSIX 1
#endif
#ifndef IGPT__POSIX
#define IGPT__POSIX 0
#endif

/* ---- paths ---------------------------------------------------------------------------------- */
#ifndef IGPT_NO_STDIO

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#if IGPT__POSIX
#include <fcntl.h>
#include <unistd.h>
#elif defined(_WIN32)
#include <io.h>
#endif

#ifdef _MSC_VER
#pragma warning(push)
#pragma warning(disable : 4996)   /* fopen and strerror are the portable names */
#endif

static const char *igpt__errno_text(void)
{
  return errno ? strerror(errno) : "no reason given";
}

/* Offsets beyond LONG_MAX matter where long has 32 bits. A header cannot ask for fseeko with a
   macro once <stdio.h> has been seen, and -std=c99 hides it: then such files are refused. */
static int igpt__seek(FILE *file, uint64_t offset)
{
#if defined(_WIN32)
  return offset > INT64_MAX ? -1 : _fseeki64(file, (__int64)offset, SEEK_SET);
#elif IGPT__POSIX && LONG_MAX < 0x7fffffffffffffff && defined(_POSIX_C_SOURCE) && \
      _POSIX_C_SOURCE >= 200112L
  off_t place = (off_t)offset;
  return place < 0 || (uint64_t)place != offset ? -1 : fseeko(file, place, SEEK_SET);
#else
  return offset > (uint64_t)LONG_MAX ? -1 : fseek(file, (long)offset, SEEK_SET);
#endif
}

static int igpt__file_read(void *user, uint64_t offset, void *to, size_t bytes)
{
  FILE *file = (FILE *)user;
  return igpt__seek(file, offset) || fread(to, 1, bytes, file) != bytes;
}

static int igpt__file_write(void *user, const void *from, size_t bytes)
{
  return fwrite(from, 1, bytes, (FILE *)user) != bytes;
}

/* The length of an open file; 0, or not 0 if it has none (a pipe, a terminal). */
static int igpt__file_size(FILE *file, uint64_t *size)
{
#if defined(_WIN32)
  __int64 end;
  if (_fseeki64(file, 0, SEEK_END)) return -1;
  end = _ftelli64(file);
#elif IGPT__POSIX && LONG_MAX < 0x7fffffffffffffff && defined(_POSIX_C_SOURCE) && \
      _POSIX_C_SOURCE >= 200112L
  off_t end;
  if (fseeko(file, 0, SEEK_END)) return -1;
  end = ftello(file);
#else
  long end;
  if (fseek(file, 0, SEEK_END)) return -1;
  end = ftell(file);
#endif
  if (end < 0) return -1;
  *size = (uint64_t)end;
  return 0;
}

igpt_result igpt_file_open(igpt_source *out, const char *path, const igpt_log *log)
{
  FILE *file;
  if (!out) return igpt__fail(log, IGPT_BAD_ARGUMENT, "igpt_file_open: out is null");
  memset(out, 0, sizeof *out);
  if (!path) return igpt__fail(log, IGPT_BAD_ARGUMENT, "igpt_file_open: path is null");
  errno = 0;
  file = fopen(path, "rb");
  if (!file)
    return igpt__fail(log, IGPT_READ_ERROR, "%p: cannot open: %s", path, igpt__errno_text());
  if (igpt__file_size(file, &out->size)) {
    igpt__fail(log, IGPT_READ_ERROR, "%p: has no size: %s", path, igpt__errno_text());
    (void)fclose(file);
    memset(out, 0, sizeof *out);
    return IGPT_READ_ERROR;
  }
  if (out->size && (igpt__seek(file, 0) || fgetc(file) == EOF)) {       /* a folder */
    igpt__fail(log, IGPT_READ_ERROR, "%p: cannot be read: %s", path, igpt__errno_text());
    (void)fclose(file);
    memset(out, 0, sizeof *out);
    return IGPT_READ_ERROR;
  }
  out->read = igpt__file_read;
  out->user = file;
  return IGPT_OK;
}

void igpt_file_close(igpt_source *source)
{
  if (!source) return;
  if (source->user && source->read == igpt__file_read) (void)fclose((FILE *)source->user);
  memset(source, 0, sizeof *source);
}

/* Everything of a closed file to the disk itself: any descriptor of the file will do, and this one
   needs no fileno, which -std=c99 hides. */
static int igpt__file_sync(const char *path)
{
#if IGPT__POSIX
  int descriptor = open(path, O_WRONLY), failed;
  if (descriptor < 0) return -1;
#ifdef F_FULLFSYNC
  failed = fcntl(descriptor, F_FULLFSYNC) < 0 && fsync(descriptor) != 0;
#else
  failed = fsync(descriptor) != 0;
#endif
  return (close(descriptor) != 0) | failed;
#else
  (void)path;
  return 0;                       /* Windows: before closing, below */
#endif
}

/* What is there is not written through, if it is a link. */
static void igpt__file_unlink(const char *path)
{
#if IGPT__POSIX
  (void)unlink(path);
#else
  (void)path;
#endif
}

static int igpt__file_rename(const char *from, const char *to)
{
#if defined(_WIN32)
  return MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH) ? 0 : -1;
#else
  return rename(from, to);
#endif
}

igpt_result igpt_file_replace(const char *path, const igpt_log *log,
                              igpt_result (*body)(void *user, const igpt_sink *sink), void *user)
{
  char name[4096];
  size_t length = path ? strlen(path) : 0;
  igpt_result result;
  igpt_sink sink;
  FILE *file;
  int failed;
  if (!path || !body)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "igpt_file_replace: %s is null",
                      path ? "body" : "path");
  if (length + sizeof ".tmp" > sizeof name)
    return igpt__fail(log, IGPT_BAD_ARGUMENT, "the path has %z bytes, and %z are the limit", length,
                      sizeof name - sizeof ".tmp");
  memcpy(name, path, length + 1);
  memcpy(name + length, ".tmp", sizeof ".tmp");
  igpt__file_unlink(name);
  errno = 0;
  file = fopen(name, "wb");
  if (!file)
    return igpt__fail(log, IGPT_WRITE_ERROR, "%p: cannot write: %s", name, igpt__errno_text());
  sink.write = igpt__file_write;
  sink.user = file;
  result = body(user, &sink);
  if (result == IGPT_WRITE_ERROR)
    igpt__fail(log, result, "%p: writing failed: %s", name, igpt__errno_text());
  failed = fflush(file) != 0;
  failed |= ferror(file) != 0;    /* a body may not have looked */
#if defined(_WIN32)
  failed |= _commit(_fileno(file)) != 0;
#endif
  failed |= fclose(file) != 0;
  if (result == IGPT_OK && (failed || igpt__file_sync(name)))
    result = igpt__fail(log, IGPT_WRITE_ERROR, "%p: writing failed: %s", name, igpt__errno_text());
  if (result == IGPT_OK && igpt__file_rename(name, path))
    result = igpt__fail(log, IGPT_WRITE_ERROR, "%p: cannot be renamed to %p: %s", name, path,
                        igpt__errno_text());
  if (result != IGPT_OK) (void)remove(name);
  return result;
}

/* Puts the path in front of what part 16 has to say. */
typedef struct igpt__path_log {
  const char *path;
  const igpt_log *log;
} igpt__path_log;

static void igpt__path_line(void *user, igpt_result result, const char *sentence)
{
  const igpt__path_log *prefix = (const igpt__path_log *)user;
  igpt__fail(prefix->log, result, "%p: %s", prefix->path, sentence);
}

static igpt_log igpt__log_of_path(igpt__path_log *prefix, const char *path, const igpt_log *log)
{
  igpt_log out;
  prefix->path = path;
  prefix->log = log;
  out.line = igpt__path_line;
  out.user = prefix;
  return out;
}

igpt_result igpt_model_load(igpt_model **out, const char *path, const igpt_model_desc *desc)
{
  igpt_model_desc d;
  igpt__path_log prefix;
  igpt_source source;
  igpt_result result;
  if (!out) return IGPT_BAD_ARGUMENT;
  *out = NULL;
  memset(&d, 0, sizeof d);
  if (desc) d = *desc;
  result = igpt_file_open(&source, path, desc ? &desc->log : NULL);
  if (result) return result;
  d.log = igpt__log_of_path(&prefix, path, desc ? &desc->log : NULL);
  result = igpt_model_read(out, &source, &d);
  igpt_file_close(&source);
  if (*out) {                     /* the prefix ends with this call */
    memset(&(*out)->log, 0, sizeof (*out)->log);
    if (desc) (*out)->log = desc->log;
  }
  return result;
}

/* What the bodies of igpt_file_replace get. */
typedef struct igpt__saving {
  const igpt_model *model;
  igpt_log log;
#ifndef IGPT_NO_TRAIN
  const igpt_session *session;
  const igpt_progress *progress;
#endif
} igpt__saving;

static igpt_result igpt__save_model(void *user, const igpt_sink *sink)
{
  const igpt__saving *saving = (const igpt__saving *)user;
  return igpt__model_write(saving->model, IGPT__F32, NULL, sink, &saving->log);
}

IGPT__EXACT_ENTRY(igpt_model_save, (const igpt_model *model, const char *path), (model, path))
{
  igpt__path_log prefix;
  igpt__saving saving;
  if (!model) return IGPT_BAD_ARGUMENT;
  memset(&saving, 0, sizeof saving);
  saving.model = model;
  saving.log = igpt__log_of_path(&prefix, path, &model->log);
  return igpt_file_replace(path, &model->log, igpt__save_model, &saving);
}

#ifndef IGPT_NO_TRAIN

IGPT__EXACT_ENTRY(igpt_checkpoint_load,
                  (igpt_session *session, igpt_model *model, igpt_progress *progress,
                   const char *path), (session, model, progress, path))
{
  igpt__path_log prefix;
  igpt_source source;
  igpt_result result;
  igpt_log log;
  if (!session || !model) return IGPT_BAD_ARGUMENT;
  result = igpt_file_open(&source, path, &session->desc.log);
  if (result) return result;
  log = igpt__log_of_path(&prefix, path, &session->desc.log);
  result = igpt__checkpoint_read(session, model, progress, &source, &log);
  igpt_file_close(&source);
  return result;
}

static igpt_result igpt__save_checkpoint(void *user, const igpt_sink *sink)
{
  const igpt__saving *saving = (const igpt__saving *)user;
  return igpt__checkpoint_write(saving->session, saving->model, saving->progress, sink,
                                &saving->log);
}

IGPT__EXACT_ENTRY(igpt_checkpoint_save,
                  (const igpt_session *session, const igpt_model *model,
                   const igpt_progress *progress, const char *path),
                  (session, model, progress, path))
{
  igpt__path_log prefix;
  igpt__saving saving;
  if (!session || !model) return IGPT_BAD_ARGUMENT;
  memset(&saving, 0, sizeof saving);
  saving.model = model;
  saving.session = session;
  saving.progress = progress;
  saving.log = igpt__log_of_path(&prefix, path, &session->desc.log);
  return igpt_file_replace(path, &session->desc.log, igpt__save_checkpoint, &saving);
}

#endif /* IGPT_NO_TRAIN */

#ifdef _MSC_VER
#pragma warning(pop)
#endif

#endif /* IGPT_NO_STDIO */

/* ---- threads -------------------------------------------------------------------------------- */
#ifndef IGPT_NO_THREADS

/* A network calls its runner some hundred times a pass, so what counts is the time from one call to
   the next. Three decisions keep it short and honest:

     - Tasks are taken one at a time from a shared counter, so that a slow worker (another program
       has its processor) holds back nothing but the task it is at.
     - The caller works too, and waits only for threads that have joined: one that wakes up when all
       tasks are taken finds the door closed and goes back to sleep.
     - A thread that runs out of work looks for more for some microseconds before it sleeps, since
       waking it through the system takes longer than most gaps between two calls. */

#if defined(_WIN32)
#include <process.h>
typedef SRWLOCK            igpt__mutex;
typedef CONDITION_VARIABLE igpt__condition;
typedef HANDLE             igpt__thread;
static int  igpt__mutex_open(igpt__mutex *m) { InitializeSRWLock(m); return 0; }
static void igpt__mutex_close(igpt__mutex *m) { (void)m; }
static void igpt__lock(igpt__mutex *m) { AcquireSRWLockExclusive(m); }
static void igpt__unlock(igpt__mutex *m) { ReleaseSRWLockExclusive(m); }
static int  igpt__condition_open(igpt__condition *c) { InitializeConditionVariable(c); return 0; }
static void igpt__condition_close(igpt__condition *c) { (void)c; }
static void igpt__wait(igpt__condition *c, igpt__mutex *m)
{
  SleepConditionVariableSRW(c, m, INFINITE, 0);
}
static void igpt__wake_one(igpt__condition *c) { WakeConditionVariable(c); }
static void igpt__wake_all(igpt__condition *c) { WakeAllConditionVariable(c); }
#else
#include <pthread.h>
#if IGPT__POSIX
#include <unistd.h>
#endif
typedef pthread_mutex_t igpt__mutex;
typedef pthread_cond_t  igpt__condition;
typedef pthread_t       igpt__thread;
static int  igpt__mutex_open(igpt__mutex *m) { return pthread_mutex_init(m, NULL); }
static void igpt__mutex_close(igpt__mutex *m) { pthread_mutex_destroy(m); }
static void igpt__lock(igpt__mutex *m) { pthread_mutex_lock(m); }
static void igpt__unlock(igpt__mutex *m) { pthread_mutex_unlock(m); }
static int  igpt__condition_open(igpt__condition *c) { return pthread_cond_init(c, NULL); }
static void igpt__condition_close(igpt__condition *c) { pthread_cond_destroy(c); }
static void igpt__wait(igpt__condition *c, igpt__mutex *m) { pthread_cond_wait(c, m); }
static void igpt__wake_one(igpt__condition *c) { pthread_cond_signal(c); }
static void igpt__wake_all(igpt__condition *c) { pthread_cond_broadcast(c); }
#endif

/* Three atomic words: take a number, look at a number, change a number. C99 has none of its own. */
#if defined(__GNUC__) || defined(__clang__)
typedef size_t igpt__shared;
static size_t igpt__shared_next(igpt__shared *s)
{
  return __atomic_fetch_add(s, 1, __ATOMIC_RELAXED);
}
static size_t igpt__shared_get(igpt__shared *s) { return __atomic_load_n(s, __ATOMIC_ACQUIRE); }
static void igpt__shared_set(igpt__shared *s, size_t value)
{
  __atomic_store_n(s, value, __ATOMIC_RELEASE);
}
#elif defined(_WIN64)
typedef volatile LONG64 igpt__shared;
static size_t igpt__shared_next(igpt__shared *s) { return (size_t)InterlockedExchangeAdd64(s, 1); }
static size_t igpt__shared_get(igpt__shared *s) { return (size_t)InterlockedExchangeAdd64(s, 0); }
static void igpt__shared_set(igpt__shared *s, size_t v) { InterlockedExchange64(s, (LONG64)v); }
#elif defined(_WIN32)
typedef volatile LONG igpt__shared;
static size_t igpt__shared_next(igpt__shared *s) { return (size_t)InterlockedExchangeAdd(s, 1); }
static size_t igpt__shared_get(igpt__shared *s) { return (size_t)InterlockedExchangeAdd(s, 0); }
static void igpt__shared_set(igpt__shared *s, size_t v) { InterlockedExchange(s, (LONG)v); }
#else
#error "igpt.h: no atomic operations known for this compiler; define IGPT_NO_THREADS"
#endif

/* A breath between two looks, which leaves the core to its other hardware thread. */
static void igpt__breathe(void)
{
#if (defined(__GNUC__) || defined(__clang__)) && (defined(__x86_64__) || defined(__i386__))
  __builtin_ia32_pause();
#elif (defined(__GNUC__) || defined(__clang__)) && defined(__aarch64__)
  __asm__ __volatile__("yield");
#elif defined(_WIN32)
  YieldProcessor();
#endif
}

#define IGPT__SPIN 1000           /* looks before sleeping: some 25 microseconds */

typedef struct igpt__helper {
  struct igpt_pool *pool;
  igpt__thread thread;
  int worker;
} igpt__helper;

struct igpt_pool {
  igpt__shared next;              /* the next index to take; a cache line of its own */
  char apart[IGPT__ALIGN - sizeof(igpt__shared)];
  igpt__shared round;             /* odd while a run is open for joining; changes wake spinners */
  igpt__shared joined;            /* threads inside the run (written under `mutex`) */
  igpt_task *task;                /* of the open run; written under `mutex`, as are the rest */
  void *arg;
  size_t count;
  int sleeping;                   /* threads waiting for `work` */
  int waiting;                    /* 1: the caller waits for `done` */
  int quit;
  int spin;                       /* looks before sleeping; 0 where threads outnumber processors */
  int workers;
  int started;                    /* threads to stop in the end */
  igpt__mutex turn;               /* held for a whole run: callers take turns */
  igpt__mutex mutex;
  igpt__condition work, done;
  igpt_allocator allocator;
  igpt__block memory;
  igpt__helper *helper;           /* (workers - 1) */
};

/* Takes indices until there are none. */
static void igpt__pool_work(igpt_pool *pool, igpt_task *task, void *arg, size_t count, int worker)
{
  size_t index;
  while ((index = igpt__shared_next(&pool->next)) < count) task(arg, index, worker);
}

static void igpt__pool_main(igpt__helper *helper)
{
  igpt_pool *pool = helper->pool;
  size_t seen = 0, left;
  igpt__lock(&pool->mutex);
  for (;;) {
    igpt_task *task;
    void *arg;
    size_t count;
    if (pool->round == seen || pool->round % 2 == 0) {      /* nothing new: look, then sleep */
      int look;
      igpt__unlock(&pool->mutex);
      for (look = 0; look < pool->spin; look++) {
        size_t round = igpt__shared_get(&pool->round);
        if (round != seen && round % 2 == 1) break;
        igpt__breathe();
      }
      igpt__lock(&pool->mutex);
      while (!pool->quit && (pool->round == seen || pool->round % 2 == 0)) {
        pool->sleeping++;
        igpt__wait(&pool->work, &pool->mutex);
        pool->sleeping--;
      }
    }
    if (pool->quit) break;
    seen = pool->round;
    task = pool->task;
    arg = pool->arg;
    count = pool->count;
    igpt__shared_set(&pool->joined, pool->joined + 1);
    igpt__unlock(&pool->mutex);
    igpt__pool_work(pool, task, arg, count, helper->worker);
    igpt__lock(&pool->mutex);
    left = pool->joined - 1;
    igpt__shared_set(&pool->joined, left);
    if (left == 0 && pool->waiting) igpt__wake_all(&pool->done);
  }
  igpt__unlock(&pool->mutex);
}

static void igpt__pool_run(void *user, igpt_task *task, void *arg, size_t count)
{
  igpt_pool *pool = (igpt_pool *)user;
  size_t wake;
  int look;
  igpt__lock(&pool->turn);
  igpt__lock(&pool->mutex);
  pool->task = task;
  pool->arg = arg;
  pool->count = count;
  igpt__shared_set(&pool->next, 0);
  igpt__shared_set(&pool->round, pool->round + 1);          /* open */
  if (count > (size_t)pool->sleeping) {
    if (pool->sleeping) igpt__wake_all(&pool->work);
  } else {
    for (wake = 1; wake < count; wake++) igpt__wake_one(&pool->work);
  }
  igpt__unlock(&pool->mutex);

  igpt__pool_work(pool, task, arg, count, 0);

  igpt__lock(&pool->mutex);
  igpt__shared_set(&pool->round, pool->round + 1);          /* closed: nobody joins any more */
  if (pool->joined) {
    igpt__unlock(&pool->mutex);
    for (look = 0; look < pool->spin && igpt__shared_get(&pool->joined); look++) igpt__breathe();
    igpt__lock(&pool->mutex);
    pool->waiting = 1;
    while (pool->joined) igpt__wait(&pool->done, &pool->mutex);
    pool->waiting = 0;
  }
  igpt__unlock(&pool->mutex);
  igpt__unlock(&pool->turn);
}

#if defined(_WIN32)
static unsigned __stdcall igpt__pool_entry(void *helper)
{
  igpt__pool_main((igpt__helper *)helper);
  return 0;
}
static int igpt__thread_start(igpt__helper *helper)
{
  helper->thread = (HANDLE)_beginthreadex(NULL, 0, igpt__pool_entry, helper, 0, NULL);
  return helper->thread == NULL;
}
static void igpt__thread_join(igpt__helper *helper)
{
  WaitForSingleObject(helper->thread, INFINITE);
  CloseHandle(helper->thread);
}
#else
static void *igpt__pool_entry(void *helper)
{
  igpt__pool_main((igpt__helper *)helper);
  return NULL;
}
static int igpt__thread_start(igpt__helper *helper)
{
  return pthread_create(&helper->thread, NULL, igpt__pool_entry, helper);
}
static void igpt__thread_join(igpt__helper *helper) { pthread_join(helper->thread, NULL); }
#endif

/* On Linux the processors that this process may use: a container or taskset often allows fewer than
   the machine has. <sched.h> declares the call only to those who asked before the first include. */
#if defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
extern int igpt__sched_getaffinity(int process, size_t bytes, unsigned long *mask)
    __asm__("sched_getaffinity");
#endif

static int igpt__processors(void)
{
  long count = 0;
#if defined(_WIN32)
  SYSTEM_INFO info;
  GetSystemInfo(&info);
  count = (long)info.dwNumberOfProcessors;
#else
#if defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
  unsigned long mask[32];
  size_t i;
  memset(mask, 0, sizeof mask);
  if (igpt__sched_getaffinity(0, sizeof mask, mask) >= 0)
    for (i = 0; i < IGPT__COUNT(mask); i++)
      for (; mask[i]; mask[i] &= mask[i] - 1) count++;
#endif
#ifdef _SC_NPROCESSORS_ONLN
  if (count < 1) count = sysconf(_SC_NPROCESSORS_ONLN);
#endif
#endif
  return count < 1 ? 1 : count > IGPT_MAX_WORKERS ? IGPT_MAX_WORKERS : (int)count;
}

igpt_result igpt_pool_create(igpt_pool **out, int workers, const igpt_allocator *allocator)
{
  igpt_allocator source;
  igpt__block memory;
  igpt_pool *pool;
  igpt__arena arena;
  igpt_result result;
  int processors, i, opened = 0;
  if (!out) return IGPT_BAD_ARGUMENT;
  *out = NULL;
  if (workers < 0 || workers > IGPT_MAX_WORKERS) return IGPT_BAD_ARGUMENT;
  memset(&source, 0, sizeof source);
  if (allocator) source = *allocator;
  result = igpt__allocator_resolve(&source, NULL);
  if (result != IGPT_OK) return result;
  processors = igpt__processors();
  if (workers == 0) workers = processors;

  memset(&arena, 0, sizeof arena);
  igpt__take(&arena, 1, sizeof(igpt_pool));
  igpt__take(&arena, (size_t)workers, sizeof(igpt__helper));
  result = igpt__block_open(&memory, igpt__with_alignment(arena.used), NULL, 0, &source, NULL);
  if (result != IGPT_OK) return result;
  arena.base = memory.aligned;
  arena.used = 0;
  pool = (igpt_pool *)igpt__take(&arena, 1, sizeof(igpt_pool));
  memset(pool, 0, sizeof *pool);
  pool->helper = (igpt__helper *)igpt__take(&arena, (size_t)workers, sizeof(igpt__helper));
  pool->allocator = source;
  pool->memory = memory;
  pool->workers = workers;
  pool->spin = workers <= processors ? IGPT__SPIN : 0;

  if (igpt__mutex_open(&pool->turn) == 0) opened = 1;
  if (opened == 1 && igpt__mutex_open(&pool->mutex) == 0) opened = 2;
  if (opened == 2 && igpt__condition_open(&pool->work) == 0) opened = 3;
  if (opened == 3 && igpt__condition_open(&pool->done) == 0) opened = 4;
  if (opened < 4) {
    if (opened > 2) igpt__condition_close(&pool->work);
    if (opened > 1) igpt__mutex_close(&pool->mutex);
    if (opened > 0) igpt__mutex_close(&pool->turn);
    igpt__block_close(&memory, &source);
    return IGPT_OUT_OF_MEMORY;
  }
  for (i = 0; i + 1 < workers; i++) {
    pool->helper[i].pool = pool;
    pool->helper[i].worker = i + 1;
    if (igpt__thread_start(&pool->helper[i])) {
      igpt_pool_destroy(pool);
      return IGPT_OUT_OF_MEMORY;
    }
    pool->started++;
  }
  *out = pool;
  return IGPT_OK;
}

igpt_runner igpt_pool_runner(igpt_pool *pool)
{
  igpt_runner runner;
  memset(&runner, 0, sizeof runner);
  if (pool && pool->workers > 1) {
    runner.run = igpt__pool_run;
    runner.user = pool;
    runner.workers = pool->workers;
  }
  return runner;
}

void igpt_pool_destroy(igpt_pool *pool)
{
  igpt_allocator allocator;
  igpt__block memory;
  int i;
  if (!pool) return;
  igpt__lock(&pool->mutex);
  pool->quit = 1;
  igpt__wake_all(&pool->work);
  igpt__unlock(&pool->mutex);
  for (i = 0; i < pool->started; i++) igpt__thread_join(&pool->helper[i]);
  igpt__condition_close(&pool->done);
  igpt__condition_close(&pool->work);
  igpt__mutex_close(&pool->mutex);
  igpt__mutex_close(&pool->turn);
  allocator = pool->allocator;
  memory = pool->memory;
  igpt__block_close(&memory, &allocator);
}

#endif /* IGPT_NO_THREADS */
/* ==== 18. the end ============================================================================

   Private macros go no further than this file, but for IGPT__SELF.                               */

#undef IGPT__ALIGN
#undef IGPT__AMX
#undef IGPT__AVX512
#undef IGPT__BEYOND
#undef IGPT__BLOCK_TENSORS
#undef IGPT__CAT
#undef IGPT__CAT_
#undef IGPT__COUNT
#undef IGPT__ENCODE_CHUNK
#undef IGPT__ENTRY
#undef IGPT__ENTRY_OF
#undef IGPT__EXACT_ENTRY
#undef IGPT__FLOATS_ARM
#undef IGPT__FLOATS_C99
#undef IGPT__FLOATS_X86
#undef IGPT__GROUP
#undef IGPT__HUGE_PAGES
#undef IGPT__HEAD_TENSORS
#undef IGPT__INLINE
#undef IGPT__KEYS
#undef IGPT__LARGEST
#undef IGPT__LONGEST
#undef IGPT__MAGIC
#undef IGPT__NEON
#undef IGPT__NOINLINE
#undef IGPT__PALETTE_BLOCK
#undef IGPT__PALETTE_FAR
#undef IGPT__PALETTE_REACH
#undef IGPT__POSIX
#undef IGPT__PREFETCH
#undef IGPT__PREFETCH_L2
#undef IGPT__PROBE_BLOCK
#undef IGPT__PROBE_COLUMNS
#undef IGPT__PROBE_MEMORY
#undef IGPT__PROBE_MOMENTS
#undef IGPT__PROBE_ROWS
#undef IGPT__PROBE_SLOTS
#undef IGPT__PROBE_WIDEST
#undef IGPT__SINGLE
#undef IGPT__SPAN
#undef IGPT__SPIN
#undef IGPT__TARGET
#undef IGPT__TRIALS
#undef IGPT__UNROLL
#undef IGPT__UNUSED
#undef IGPT__WASM
#undef IGPT__X86

#endif /* IGPT__IMPLEMENTED_REST */
#undef IGPT__IN_PASS

/* Choose whichever of these two you prefer.

   ------------------------------------------------------------------------------
   ALTERNATIVE A - MIT License

   Copyright (c) 2026 the igpt.h authors

   Permission is hereby granted, free of charge, to any person obtaining a copy
   of this software and associated documentation files (the "Software"), to deal
   in the Software without restriction, including without limitation the rights
   to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
   copies of the Software, and to permit persons to whom the Software is
   furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all
   copies or substantial portions of the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
   IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
   FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
   AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
   LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
   OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
   SOFTWARE.

   ------------------------------------------------------------------------------
   ALTERNATIVE B - Public Domain (Unlicense)

   This is free and unencumbered software released into the public domain.

   Anyone is free to copy, modify, publish, use, compile, sell, or distribute
   this software, either in source code form or as a compiled binary, for any
   purpose, commercial or non-commercial, and by any means.

   In jurisdictions that recognize copyright laws, the author or authors of this
   software dedicate any and all copyright interest in the software to the public
   domain. We make this dedication for the benefit of the public at large and to
   the detriment of our heirs and successors. We intend this dedication to be an
   overt act of relinquishment in perpetuity of all present and future rights to
   this software under copyright law.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
   IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
   FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
   AUTHORS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN
   ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION
   WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

   For more information, please refer to <https://unlicense.org/> */
