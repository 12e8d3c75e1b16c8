/* race.h: contestants that take turns, so that all see the same machine, whatever its neighbours do
   meanwhile. Each is a process of its own, so that its peak memory is its own: it says "ready" and
   what it is, takes a step for each line that it reads, answers with the step's seconds, and at the
   end of its input with the bytes of its peak. A peer is any program that does so. Include after
   bench.h; needs fork.                                                                           */

#ifndef RACE_H
#define RACE_H

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct race_lane {
  pid_t process;
  FILE *to, *from;
  char  name[100];
  bench_times times;
  double peak;                    /* bytes, when the race is over */
} race_lane;

/* ---- the contestant's side ------------------------------------------------------------------- */

static void race_run(const char *name, void (*step)(void *arg), void *arg)
{
  struct rusage usage;
  char line[16];
  printf("ready %s\n", name);
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    const double start = bench_clock(0);
    step(arg);
    printf("%.9g\n", bench_clock(0) - start);
    fflush(stdout);
  }
  getrusage(RUSAGE_SELF, &usage);
  printf("%.0f\n", (double)usage.ru_maxrss * 1024);
}

/* ---- the judge's side ------------------------------------------------------------------------ */

static void race_over(const race_lane *lane)
{
  fprintf(stderr, "race: %s has stopped\n", lane->name[0] ? lane->name : "a contestant");
  exit(1);
}

/* The contestant's next line */
static const char *race_answer(race_lane *lane, char *line, int size)
{
  if (!fgets(line, size, lane->from)) race_over(lane);
  line[strcspn(line, "\n")] = 0;
  return line;
}

/* Starts lane `index`: body(arg) in a new process, or a shell's command if that is not null. There
   the ends of earlier lanes are closed: these have to see the end of their input when it comes. */
static void race_enter(race_lane *lanes, int index, void (*body)(const void *arg), const void *arg,
                       const char *command)
{
  race_lane *lane = &lanes[index];
  int to[2], from[2], i;
  char line[200];
  memset(lane, 0, sizeof *lane);
  signal(SIGPIPE, SIG_IGN);                    /* who has stopped does not answer: race_over */
  if (pipe(to) || pipe(from)) exit(1);
  fflush(stdout);
  lane->process = fork();
  if (lane->process < 0) exit(1);
  if (lane->process == 0) {
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
      execl("/bin/sh", "sh", "-c", command, (char *)NULL);
      _exit(1);
    }
    body(arg);
    exit(0);
  }
  close(to[0]);
  close(from[1]);
  lane->to = fdopen(to[1], "w");
  lane->from = fdopen(from[0], "r");
  if (!lane->to || !lane->from) exit(1);
  race_answer(lane, line, sizeof line);
  snprintf(lane->name, sizeof lane->name, "%.90s", strncmp(line, "ready ", 6) ? line : line + 6);
}

/* So many turns of all lanes, each lane's seconds in its times. Every turn begins with the next
   lane, and each comes after a rest: others' threads may spin for a while. */
static void race_turns(race_lane *lanes, int count, int turns)
{
  const struct timespec rest = { 0, 300000000 };
  char line[200];
  int i, turn;
  for (turn = 0; turn < turns; turn++)
    for (i = 0; i < count; i++) {
      race_lane *lane = &lanes[(turn + i) % count];
      nanosleep(&rest, NULL);
      fputs("step\n", lane->to);
      fflush(lane->to);
      bench_note(&lane->times, atof(race_answer(lane, line, sizeof line)));
    }
}

/* Ends all lanes, and learns their peaks. */
static void race_end(race_lane *lanes, int count)
{
  char line[200];
  int i, status;
  for (i = 0; i < count; i++) {
    fclose(lanes[i].to);
    lanes[i].peak = atof(race_answer(&lanes[i], line, sizeof line));
    fclose(lanes[i].from);
    if (waitpid(lanes[i].process, &status, 0) < 0 || status) race_over(&lanes[i]);
  }
}

/* Says how many times as fast as the peer our lane of its precision is: its name tells which. */
static void race_compare(race_lane *peer, race_lane *in_float32, race_lane *in_bfloat16)
{
  const int halves = in_bfloat16 && strstr(peer->name, "bfloat16");
  printf("; igpt.h in %s x%.2f\n", halves ? "bfloat16" : "float32",
         bench_median(&peer->times) / bench_median(halves ? &in_bfloat16->times
                                                          : &in_float32->times));
}

/* igpt.h's contestants, in float32 and perhaps in bfloat16, then the peers, each a command that
   gets --paced and the task. A turn is so many operations. */
static void race_peers(void (*const *own)(const void *arg), int own_count, char **peers,
                       int peer_count, const char *task, int turns, double operations)
{
  enum { MOST = 16 };
  race_lane lanes[MOST];
  int count = 0, i;
  for (i = 0; i < own_count; i++) race_enter(lanes, count++, own[i], NULL, NULL);
  for (i = 0; i < peer_count && count < MOST; i++) {
    char command[1000];
    snprintf(command, sizeof command, "exec %s --paced %s", peers[i], task);
    race_enter(lanes, count++, NULL, NULL, command);
  }
  race_turns(lanes, count, turns);
  race_end(lanes, count);
  printf("%s; median of %d turns (slowest to fastest)\n", task, turns);
  for (i = 0; i < count; i++) {
    const double median = bench_median(&lanes[i].times);
    printf("  %-66s %7.2f ms %7.1f GFLOP/s (%.1f to %.1f)", lanes[i].name, 1e3 * median,
           1e-9 * operations / median, 1e-9 * operations / lanes[i].times.second[turns - 1],
           1e-9 * operations / lanes[i].times.second[0]);
    if (i < own_count) printf("\n");
    else race_compare(&lanes[i], &lanes[0], own_count > 1 ? &lanes[1] : NULL);
  }
}

#endif
