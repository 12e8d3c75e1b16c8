/* Training steps of three networks: the paper's iGPT-S with 2 pictures of 1024 pixels a step, 12
   layers of width 256 with 4, 8 layers of width 128 with 8; with one worker, with two, and with a
   peer if one is named. Each contestant is a process of its own, so that its peak memory is its
   own; they wait in turn for their next step, so that all see the same machine. Before anything is
   timed, the first loss has to be ln 512.

   cc -O2 -I. bench/train.c -o build/bench/train -lm -pthread
   build/bench/train [steps, default 7] [shape 0..2] [peer's command]

   A peer is started as `command --paced NAME`, says "ready" and what it is, takes a step for each
   line that it reads, answers with the seconds, and at the end of the input with the bytes of its
   peak: bench/peers/torch_step.py is one.                                                        */

#define _POSIX_C_SOURCE 200809L
#define IGPT_IMPLEMENTATION
#include "igpt.h"
#include "bench.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct { const char *name, *peers_name; int layers, heads, width, batch; } shapes[] = {
  { "iGPT-S (24 x 512), batch 2", "S", 24, 8, 512, 2 },
  { "12 x 256, batch 4", "medium-cpu", 12, 8, 256, 4 },
  { "8 x 128, batch 8", "small-cpu", 8, 4, 128, 8 }
};

#define CHECKED(call)                                                                             \
  do {                                                                                            \
    igpt_result result = (call);                                                                  \
    if (result) {                                                                                 \
      fprintf(stderr, "bench/train: %s: %s\n", #call, igpt_error_string(result));                 \
      exit(1);                                                                                    \
    }                                                                                             \
  } while (0)

static igpt_config config_of(int shape)
{
  igpt_config config = { 0 };
  config.layers = shapes[shape].layers;
  config.heads = shapes[shape].heads;
  config.width = shapes[shape].width;
  return config;
}

static igpt_session_desc work_of(int shape)
{
  igpt_session_desc work = { 0 };
  work.batch = shapes[shape].batch;
  work.train = 1;
  work.no_cache = 1;
  return work;
}

/* ---- a contestant: its own process, paced through standard input and output ------------------ */

static void take_steps(int shape, int workers)
{
  igpt_model_desc desc = { 0 };
  igpt_session_desc work = work_of(shape);
  igpt_batch batch = { 0 };
  igpt_adam_desc adam = { 0 };
  igpt_rng rng = igpt_rng_seed(1, 0);
  igpt_model *model;
  igpt_session *session;
  igpt_pool *pool;
  igpt_losses losses;
  struct rusage usage;
  char line[16];
  size_t i, positions = (size_t)shapes[shape].batch * 1024;
  uint16_t *tokens = (uint16_t *)malloc(positions * sizeof *tokens);
  if (!tokens) exit(1);
  for (i = 0; i < positions; i++) tokens[i] = (uint16_t)igpt_rng_below(&rng, 512);
  batch.tokens = tokens;
  batch.count = (size_t)shapes[shape].batch;
  adam.rate = 1e-4f;
  desc.config = config_of(shape);
  CHECKED(igpt_model_create(&model, &desc));
  CHECKED(igpt_pool_create(&pool, workers, NULL));
  work.runner = igpt_pool_runner(pool);
  CHECKED(igpt_session_create(&session, model, &work));
  CHECKED(igpt_backward(session, &losses, &batch, NULL));
  if (losses.generative < 6.2383 || losses.generative > 6.2384) {
    fprintf(stderr, "bench/train: the first loss is %g, not ln 512\n", losses.generative);
    exit(1);
  }
  CHECKED(igpt_step(session, model, NULL, &adam));
  printf("ready igpt.h, %s, %d worker%s\n", igpt_isa_name(igpt_isa_best()), workers,
         workers > 1 ? "s" : "");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    const double start = bench_clock(0);
    CHECKED(igpt_backward(session, &losses, &batch, NULL));
    CHECKED(igpt_step(session, model, NULL, &adam));
    printf("%.9g\n", bench_clock(0) - start);
    fflush(stdout);
  }
  getrusage(RUSAGE_SELF, &usage);
  printf("%.0f\n", (double)usage.ru_maxrss * 1024);
  igpt_session_destroy(session);
  igpt_model_destroy(model);
  igpt_pool_destroy(pool);
  free(tokens);
}

/* ---- the race -------------------------------------------------------------------------------- */

typedef struct lane {
  pid_t process;
  FILE *to, *from;
  char  name[100];
  bench_times times;
  double peak;
} lane;

/* The contestant's next line */
static const char *answer(lane *l, char *line, int size)
{
  if (!fgets(line, size, l->from)) {
    fprintf(stderr, "bench/train: %s has stopped\n", l->name[0] ? l->name : "a contestant");
    exit(1);
  }
  line[strcspn(line, "\n")] = 0;
  return line;
}

/* command null: igpt.h with so many workers. Earlier lanes' ends are closed in the new process, so
   that they see the end of their input when it comes. */
static void start(lane *lanes, int index, int shape, int workers, const char *command)
{
  lane *l = &lanes[index];
  int to[2], from[2], i;
  char line[200];
  memset(l, 0, sizeof *l);
  if (pipe(to) || pipe(from)) exit(1);
  fflush(stdout);
  l->process = fork();
  if (l->process < 0) exit(1);
  if (l->process == 0) {
    for (i = 0; i < index; i++) {
      fclose(lanes[i].to);
      fclose(lanes[i].from);
    }
    if (dup2(to[0], 0) < 0 || dup2(from[1], 1) < 0) _exit(1);
    close(to[0]);
    close(to[1]);
    close(from[0]);
    close(from[1]);
    if (command) {
      char text[1000];
      snprintf(text, sizeof text, "exec %s --paced %s", command, shapes[shape].peers_name);
      execl("/bin/sh", "sh", "-c", text, (char *)NULL);
      _exit(1);
    }
    take_steps(shape, workers);
    exit(0);
  }
  close(to[0]);
  close(from[1]);
  l->to = fdopen(to[1], "w");
  l->from = fdopen(from[0], "r");
  if (!l->to || !l->from) exit(1);
  answer(l, line, sizeof line);
  snprintf(l->name, sizeof l->name, "%.90s", strncmp(line, "ready ", 6) ? line : line + 6);
}

static void race(int shape, int steps, const char *command)
{
  const struct timespec rest = { 0, 300000000 };      /* others' threads may spin for a while */
  const igpt_config config = config_of(shape);
  const igpt_session_desc work = work_of(shape);
  const double positions = 1024.0 * shapes[shape].batch;
  igpt_plan plan;
  lane lanes[3];
  char line[200];
  int count = command ? 3 : 2, i, step, status;
  CHECKED(igpt_plan_make(&plan, &config, &work));
  for (i = 0; i < count; i++) start(lanes, i, shape, i + 1, i == 2 ? command : NULL);
  for (step = 0; step < steps; step++)
    for (i = 0; i < count; i++) {
      nanosleep(&rest, NULL);
      fputs("step\n", lanes[i].to);
      fflush(lanes[i].to);
      bench_note(&lanes[i].times, atof(answer(&lanes[i], line, sizeof line)));
    }
  printf("%s; memory planned %.2f GB\n", shapes[shape].name,
         (double)(plan.model_bytes + plan.session_bytes) * 1e-9);
  for (i = 0; i < count; i++) {
    const double median = bench_median(&lanes[i].times);
    fclose(lanes[i].to);
    lanes[i].peak = atof(answer(&lanes[i], line, sizeof line));
    fclose(lanes[i].from);
    if (waitpid(lanes[i].process, &status, 0) < 0 || status) exit(1);
    printf("  %-44s %6.0f tokens/s (%.0f to %.0f) %6.1f GFLOP/s  peak %.2f GB", lanes[i].name,
           positions / median, positions / lanes[i].times.second[steps - 1],
           positions / lanes[i].times.second[0],
           1e-9 * plan.train_flops * shapes[shape].batch / median, lanes[i].peak * 1e-9);
    if (i == 1) printf("  x%.2f of one worker", bench_median(&lanes[0].times) / median);
    if (i == 2) printf("  igpt.h x%.2f", median / bench_median(&lanes[1].times));
    printf("\n");
  }
}

int main(int argc, char **argv)
{
  const int steps = argc > 1 ? atoi(argv[1]) : 7, only = argc > 2 ? atoi(argv[2]) : -1;
  int i;
  if (steps < 1 || steps > BENCH_MOST || only > 2) {
    fprintf(stderr, "bench/train [steps 1..%d] [shape 0..2, -1: all] [peer's command]\n",
            (int)BENCH_MOST);
    return 1;
  }
  bench_machine();
  printf("float32; median of %d steps in turn (slowest to fastest)\n", steps);
  for (i = 0; i < 3; i++)
    if (only < 0 || i == only) race(i, steps, argc > 3 ? argv[3] : NULL);
  return 0;
}
