/* gradients.c: igpt_backward against central differences, for whole tiny networks.

   For a direction d in the space of the weights, dL(w + h d)/dh at 0 is gradient . d. The left side
   comes from four losses,  (8 (L(h) - L(-h)) - (L(2h) - L(-2h))) / 12h,  with an error that falls
   as h^4, so that h may be large enough for float32: the losses, of order 2, are good to about
   1e-7, the differences are of order 1e-2, and three digits of the derivative are real. This is
   done for all weights together and for every tensor alone, so that one wrong tensor cannot hide
   behind the others.

   A direction is a random one plus a part along the gradient: the first finds what is wrong in any
   way, the second makes the difference large.                                                    */

#include "igpt.h"
#include "test.h"

#define TOLERANCE 2e-3
enum { PICTURES = 4 };

typedef struct example {
  igpt_model *model;
  igpt_session *session;
  igpt_batch batch;
  igpt_loss_desc loss;
  uint16_t tokens[PICTURES * 64], shown[PICTURES * 64];
  uint8_t mask[PICTURES * 64];
  int32_t labels[PICTURES];
  float *weights, *gradient, *direction;
  size_t parameters;
  double step;
} example;

/* The usual shape, or a narrow one: many more rows than any matrix has columns, and heads of 1. */
static void example_open(example *e, igpt_objective objective, int classes, igpt_isa isa,
                         int narrow)
{
  igpt_model_desc desc;
  igpt_session_desc how;
  igpt_tensor tensor;
  igpt_rng rng = igpt_rng_seed(12, 0);
  size_t i, t, T;
  memset(e, 0, sizeof *e);
  memset(&desc, 0, sizeof desc);
  memset(&tensor, 0, sizeof tensor);
  desc.config.layers = 2;
  desc.config.heads = narrow ? 8 : 3;
  desc.config.width = narrow ? 8 : 24;
  desc.config.rows = narrow ? 21 : 5;
  desc.config.columns = 3;
  desc.config.vocabulary = 13;
  desc.config.classes = classes;
  desc.config.objective = objective;
  e->step = narrow ? 0.002 : 0.02;                  /* few columns in a norm bend it more */
  T = (size_t)(desc.config.rows * desc.config.columns);
  CHECK_INT(igpt_model_create(&e->model, &desc), IGPT_OK);
  e->parameters = igpt_model_parameters(e->model);
  igpt_model_tensor_at(e->model, &tensor, 0);
  e->weights = tensor.data;                         /* all of them: the tensors lie in one run */
  for (t = 0; t < igpt_model_tensors(e->model); t++) {
    igpt_model_tensor_at(e->model, &tensor, t);
    CHECK(tensor.data >= e->weights && tensor.data + tensor.count <= e->weights + e->parameters);
    for (i = 0; i < tensor.count; i++)              /* nothing is zero, no gain is one */
      tensor.data[i] = (tensor.rank == 1 ? 1 : 0) + 0.3f * igpt_rng_normal(&rng);
  }
  memset(&how, 0, sizeof how);
  how.batch = 3;                                    /* 3 + 1 pictures */
  how.train = 1;
  how.isa = isa;
  CHECK_INT(igpt_session_create(&e->session, e->model, &how), IGPT_OK);
  for (i = 0; i < PICTURES * T; i++) e->tokens[i] = (uint16_t)igpt_rng_below(&rng, 13);
  for (i = 0; i < PICTURES * T; i++) e->mask[i] = (uint8_t)(igpt_rng_below(&rng, 3) == 0);
  for (i = 0; i < PICTURES * T; i++) e->shown[i] = (uint16_t)igpt_rng_below(&rng, 13);
  for (i = 0; i < PICTURES; i++) e->labels[i] = (int32_t)(i % 3);
  e->batch.tokens = e->tokens;
  e->batch.count = PICTURES;
  if (objective == IGPT_BERT) e->batch.mask = e->mask;
  if (objective == IGPT_BERT && classes) e->batch.shown = e->shown;
  if (classes) e->batch.labels = e->labels;
  e->gradient = (float *)malloc(e->parameters * sizeof(float));
  e->direction = (float *)malloc(e->parameters * sizeof(float));
}

static void example_close(example *e)
{
  free(e->gradient);
  free(e->direction);
  igpt_session_destroy(e->session);
  igpt_model_destroy(e->model);
}

static double example_loss(example *e, double h, size_t first, size_t count)
{
  float *was = (float *)malloc(count * sizeof *was);
  igpt_losses losses;
  size_t i;
  memset(&losses, 0, sizeof losses);
  memcpy(was, e->weights + first, count * sizeof *was);
  for (i = 0; i < count; i++)
    e->weights[first + i] = (float)((double)was[i] + h * (double)e->direction[first + i]);
  CHECK_INT(igpt_backward(e->session, &losses, &e->batch, &e->loss), IGPT_OK);
  CHECK_INT(igpt_gradients_zero(e->session), IGPT_OK);
  memcpy(e->weights + first, was, count * sizeof *was);
  free(was);
  return losses.total;
}

static void check_direction(example *e, const char *name, size_t first, size_t count, igpt_rng *rng)
{
  double length = 0, size = 0, along = 0, h, difference;
  size_t i;
  for (i = first; i < first + count; i++) length += (double)e->gradient[i] * e->gradient[i];
  length = sqrt(length);
  CHECK(length > 1e-4);                             /* a gradient of zero would prove nothing */
  for (i = first; i < first + count; i++) {
    e->direction[i] = (float)(2 * (double)e->gradient[i] / length
                              + igpt_rng_normal(rng) / sqrt((double)count));
    size += (double)e->direction[i] * e->direction[i];
    along += (double)e->direction[i] * e->gradient[i];
  }
  h = e->step / fabs(along);                        /* the loss changes by about this much, */
  if (h > 12 * e->step / sqrt(size)) h = 12 * e->step / sqrt(size);     /* the weights by little */
  difference = (8 * (example_loss(e, h, first, count) - example_loss(e, -h, first, count))
                - (example_loss(e, 2 * h, first, count) - example_loss(e, -2 * h, first, count)))
               / (12 * h);
  if (fabs(difference - along) <= TOLERANCE * fabs(along)) return;
  test_errors++;
  printf("%s: %.7g, and by differences %.7g (%.2g)\n", name, along, difference,
         fabs(difference - along) / fabs(along));
}

static void check_all(igpt_objective objective, int classes, float generative, float classification,
                      int narrow)
{
  int isa;
  for (isa = IGPT_ISA_GENERIC; isa < IGPT_ISA_COUNT; isa++) {
    igpt_rng rng = igpt_rng_seed(77, (uint64_t)isa);
    example e;
    float *block = NULL;
    size_t t, i, pictures = 0;
    if (!igpt_isa_supported((igpt_isa)isa)) continue;
    example_open(&e, objective, classes, (igpt_isa)isa, narrow);
    e.loss.generative = generative;
    e.loss.classification = classification;
    CHECK_INT(igpt_backward(e.session, NULL, &e.batch, &e.loss), IGPT_OK);
    CHECK_INT(igpt_gradients(e.session, &block, NULL, &pictures), IGPT_OK);
    CHECK_INT(pictures, PICTURES);
    for (i = 0; i < e.parameters; i++) e.gradient[i] = block[i] / PICTURES;
    CHECK_INT(igpt_gradients_zero(e.session), IGPT_OK);
    check_direction(&e, "all weights", 0, e.parameters, &rng);
    for (t = 0; t < igpt_model_tensors(e.model); t++) {
      igpt_tensor tensor;
      igpt_model_tensor_at(e.model, &tensor, t);
      if (generative == 0 && classes && strcmp(tensor.name, "lm_head.weight") == 0) continue;
      check_direction(&e, tensor.name, (size_t)(tensor.data - e.weights), tensor.count, &rng);
    }
    example_close(&e);
  }
}

TEST(ar) { check_all(IGPT_AR, 0, 0, 0, 0); }
TEST(bert) { check_all(IGPT_BERT, 0, 0, 0, 0); }
TEST(joint_ar) { check_all(IGPT_AR, 3, 0, 0, 0); }
TEST(joint_bert) { check_all(IGPT_BERT, 3, 0, 0, 0); }
TEST(class_alone) { check_all(IGPT_AR, 3, 0, 1, 0); }
TEST(narrow) { check_all(IGPT_AR, 3, 0, 0, 1); }
TEST(uneven_weights) { check_all(IGPT_AR, 3, 0.5f, 2, 0); }

/* The gradient is linear in the weights of the losses, and so are the sums over pictures: two calls
   leave what one call leaves, zero losses leave zero. */
TEST(linear)
{
  float *sum, *block = NULL;
  size_t i, count = 0, pictures = 0;
  double difference = 0, length = 0;
  igpt_batch one;
  example e;
  example_open(&e, IGPT_AR, 3, IGPT_ISA_AUTO, 0);
  sum = (float *)malloc(e.parameters * sizeof *sum);
  CHECK_INT(igpt_backward(e.session, NULL, &e.batch, NULL), IGPT_OK);
  igpt_gradients(e.session, &block, &count, &pictures);
  memcpy(sum, block, count * sizeof *sum);
  igpt_gradients_zero(e.session);
  for (i = 0; i < count; i++) CHECK(block[i] == 0);
  for (i = 0; i < PICTURES; i++) {                  /* picture by picture, loss by loss */
    one = e.batch;
    one.tokens += i * 15;
    one.labels += i;
    one.count = 1;
    e.loss.generative = 1;
    e.loss.classification = 0;
    CHECK_INT(igpt_backward(e.session, NULL, &one, &e.loss), IGPT_OK);
    e.loss.generative = 0;
    e.loss.classification = 1;
    CHECK_INT(igpt_backward(e.session, NULL, &one, &e.loss), IGPT_OK);
  }
  igpt_gradients(e.session, &block, &count, &pictures);
  CHECK_INT(pictures, 2 * PICTURES);
  for (i = 0; i < count; i++) {
    difference += ((double)block[i] - sum[i]) * ((double)block[i] - sum[i]);
    length += (double)sum[i] * sum[i];
  }
  CHECK(sqrt(difference) <= 1e-6 * sqrt(length));
  free(sum);
  example_close(&e);
}

int main(void)
{
  RUN(ar);
  RUN(bert);
  RUN(joint_ar);
  RUN(joint_bert);
  RUN(class_alone);
  RUN(narrow);
  RUN(uneven_weights);
  RUN(linear);
  return test_done();
}
