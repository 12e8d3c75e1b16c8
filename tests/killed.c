/* cc -std=c99 -O2 -I. -o build/tests/killed tests/killed.c -lm -pthread

   killed [KILLS [SEED]]: training runs of the tool that are killed KILLS times (12) by SIGKILL, at
   random moments and within their saving, and go on each time from what is on the disk. In the end
   there are the bits of a run that nobody disturbed: model and checkpoint, but for the seconds
   that the latter counts, and the curve. The same if they are killed before any file takes its
   name, and if the disk is full for a while.

   The tool is a part of this program: a child process runs its main.                             */

#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include <stdio.h>
#include <stdlib.h>

#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The tool renames files by this function, which may be the end of its process; it reads the clock
   and flushes to the disk by the other two, which may be quicker than those. */
static int tool_rename(const char *from, const char *to);
static int tool_clock(clockid_t which, struct timespec *to);
static int tool_fsync(int file);
#define rename tool_rename
#define clock_gettime tool_clock
#define fsync tool_fsync
#define main tool_main
#include "../examples/igpt.c"
#undef main
#undef fsync
#undef clock_gettime
#undef rename
#include "test.h"

/* ---- a process of the tool ------------------------------------------------------------------- */

#define FOLDER "build/tests/killed.files/"
#define LOG FOLDER "log"

static int renamings, killed_at = -1;
static int in_haste;              /* 1: a tenth of a second passes from one look at the clock to
                                     the next, so that every step is saved; and no disk is slow */
static int tool_rename(const char *from, const char *to)
{
  if (renamings++ == killed_at) kill(getpid(), SIGKILL);
  return rename(from, to);
}

static int tool_clock(clockid_t which, struct timespec *to)
{
  static int looks;
  if (!in_haste) return clock_gettime(which, to);
  to->tv_sec = ++looks / 10;
  to->tv_nsec = looks % 10 * 100000000L;
  return 0;
}

static int tool_fsync(int file) { return in_haste ? 0 : fsync(file); }

/* A tool's memory goes back to the system when it ends: that is no leak. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0"; }

static const char *const common[] = {
  "--data", "shapes:120", "--batch", "4", "--eval-count", "10", "--seed", "3", "--workers", "1",
  "--rate", "0.003", "--augment", "cifar", NULL
};
static const char *const pretrain[] = {
  "pretrain", "--side", "8", "--colours", "16", "--pixels", "500", "--layers", "2", "--width", "48",
  "--heads", "2", "--steps", "250", "--evaluations", "8", "--save-minutes", "0.001", NULL
};
static const char *const pretrain_briefly[] = {
  "pretrain", "--side", "8", "--colours", "16", "--pixels", "500", "--layers", "1", "--width", "16",
  "--heads", "2", "--steps", "8", "--evaluations", "3", "--save-minutes", "0.001", NULL
};
static const char *const finetune[] = {
  "finetune", "--model", FOLDER "pretrained.safetensors", "--steps", "8", "--evaluations", "3",
  "--save-minutes", "0.001", NULL
};

static const char *path_of(const char *name, const char *end)
{
  static char paths[4][200];
  static int next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], FOLDER "%s%s", name, end);
  return path;
}

static int is_there(const char *path)
{
  struct stat found;
  return stat(path, &found) == 0;
}

/* Calls `with` for every file that a run can leave, those of broken saving too, with its count. */
static int each_file(const char *name, int (*with)(const char *path))
{
  static const char *const ends[] = { ".safetensors", ".checkpoint", ".csv", ".svg" };
  static const char *const states[] = { "", ".new", ".new.tmp" };
  size_t i, j;
  int count = 0;
  for (i = 0; i < COUNT_OF(ends); i++)
    for (j = 0; j < COUNT_OF(states); j++) {
      char end[40];
      snprintf(end, sizeof end, "%s%s", ends[i], states[j]);
      count += with(path_of(name, end));
    }
  return count;
}

static int files_of(const char *name) { return each_file(name, is_there); }
static void remove_run(const char *name) { each_file(name, remove); }

/* The run begins, or goes on if it has got as far as a checkpoint. */
static pid_t start(const char *const *what, const char *name)
{
  char out[200], checkpoint[200];
  const char *words[60] = { "igpt" };
  int count = 1;
  pid_t child;
  while (*what) words[count++] = *what++;
  for (what = common; *what; what++) words[count++] = *what;
  strcpy(out, path_of(name, ".safetensors"));
  strcpy(checkpoint, path_of(name, ".checkpoint"));
  words[count++] = "--out";
  words[count++] = out;
  if (is_there(checkpoint)) words[count++] = "--resume";
  if (is_there(checkpoint)) words[count++] = checkpoint;
  fflush(stdout);
  child = fork();
  if (child == 0) {
    if (!freopen(LOG, "w", stdout) || dup2(fileno(stdout), 2) < 0) exit(3);
    exit(tool_main(count, (char **)words));
  }
  if (child < 0) exit(2);
  return child;
}

/* How it ended: 0, its status, or minus the signal. */
static int end_of(pid_t child)
{
  int status = 0;
  if (waitpid(child, &status, 0) != child) exit(2);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void show_log(void)
{
  char line[300];
  FILE *log = fopen(LOG, "r");
  while (log && fgets(line, sizeof line, log)) printf("    | %s", line);
  if (log) fclose(log);
}

/* To its end. */
static int finish(const char *const *what, const char *name)
{
  const int status = end_of(start(what, name));
  if (status) show_log();
  return status;
}

/* ---- what a run leaves ----------------------------------------------------------------------- */

static char *whole_file(const char *path, size_t *size)
{
  uint8_t *bytes = NULL;
  char error[200];
  *size = 0;
  image_read_file(&bytes, size, path, 1 << 24, error, sizeof error);
  return (char *)bytes;
}

/* The seconds of a run, which nobody can repeat, become 0. */
static void forget_seconds(char *file, size_t size)
{
  uint64_t length = 0;
  unsigned long from = 0;
  const char *entry;
  char *header;
  int i;
  for (i = 7; size > 8 && i >= 0; i--) length = length << 8 | (uint8_t)file[i];
  if (length == 0 || length > size - 8) return;
  header = need_memory((size_t)length + 1, 1);
  memcpy(header, file + 8, (size_t)length);
  entry = strstr(header, "\"progress\":{");
  entry = entry ? strstr(entry, "\"data_offsets\":[") : NULL;
  CHECK(entry && sscanf(entry, "\"data_offsets\":[%lu,", &from) == 1);
  CHECK(8 + length + from + 40 <= size);
  if (entry && 8 + length + from + 40 <= size) memset(file + 8 + length + from, 0, 8);
  free(header);
}

/* The curve without its last two columns, tokens a second and seconds. */
static void forget_speed(char *text, size_t *size)
{
  char *to = text;
  size_t i;
  int column = 0;
  for (i = 0; i < *size; i++) {
    column += text[i] == ',';
    if (text[i] == '\n') column = 0;
    if (column < 3) *to++ = text[i];
  }
  *size = (size_t)(to - text);
}

static int same_end(const char *name, const char *other, const char *end)
{
  size_t a_size, b_size;
  char *a = whole_file(path_of(name, end), &a_size), *b = whole_file(path_of(other, end), &b_size);
  int same;
  if (a && b && !strcmp(end, ".checkpoint")) {
    forget_seconds(a, a_size);
    forget_seconds(b, b_size);
  }
  if (a && b && !strcmp(end, ".csv")) {
    forget_speed(a, &a_size);
    forget_speed(b, &b_size);
  }
  same = a && b && a_size > 40 && a_size == b_size && !memcmp(a, b, a_size);
  if (!same) printf("  %s%s is not that of the whole run\n", name, end);
  free(a);
  free(b);
  return same;
}

/* Whether a run has ended as the undisturbed one did, and left nothing but its four files. */
static int same_run(const char *name, const char *other)
{
  if (files_of(name) != 4) printf("  %d files of %s are there\n", files_of(name), name);
  return same_end(name, other, ".safetensors") & same_end(name, other, ".checkpoint") &
         same_end(name, other, ".csv") & (files_of(name) == 4);
}

/* ---- at random moments ----------------------------------------------------------------------- */

static int kills = 12;
static uint64_t seed = 1;

static void nap(double seconds)
{
  struct timespec time;
  time.tv_sec = (time_t)seconds;
  time.tv_nsec = (long)((seconds - floor(seconds)) * 1e9);
  nanosleep(&time, NULL);
}

/* Which file it is and when it was written last; zeros if there is none. */
static struct timespec written(const char *path)
{
  struct stat found;
  memset(&found, 0, sizeof found);
  if (stat(path, &found)) memset(&found, 0, sizeof found);
  return found.st_mtim;
}

static int newer(const char *path, struct timespec than)
{
  const struct timespec now_is = written(path);
  return now_is.tv_sec != than.tv_sec || now_is.tv_nsec != than.tv_nsec;
}

/* Every second kill aims at a moment within saving: it waits for a temporary file. */
TEST(killed_at_random_moments)
{
  igpt_rng rng = igpt_rng_seed(seed, 0);
  int done = 0, inside = 0, runs = 0, wrong = 0;
  remove_run("whole");
  remove_run("cut");
  CHECK_INT(finish(pretrain, "whole"), 0);
  while ((done < kills || (inside < kills / 6 && done < 3 * kills)) && !test_errors) {
    const int aimed = done % 2;
    const double wait = 0.35 * (double)igpt_rng_uniform(&rng);
    const double after = 0.003 * pow((double)igpt_rng_uniform(&rng), 3);
    char temporary[200];
    struct timespec before;
    double began;
    pid_t child;
    int status;
    strcpy(temporary, path_of("cut", ".checkpoint.new.tmp"));
    before = written(temporary);
    began = now();
    child = start(pretrain, "cut");
    nap(wait);
    if (aimed) {
      const struct timespec there = written(temporary);
      while (!newer(temporary, there) && now() - began < wait + 0.3) {}
      nap(after);
    }
    kill(child, SIGKILL);
    status = end_of(child);
    if (status == -SIGKILL) {
      const int within = is_there(temporary) && newer(temporary, before);
      done++;
      inside += within;
      printf("        kill %3d after %6.1f ms%s%s\n", done, 1000 * (now() - began),
             is_there(path_of("cut", ".checkpoint")) ? ", with a checkpoint" : "",
             within ? ", within its saving" : "");
    } else {
      runs++;                                   /* it was faster; and begins anew */
      if (status) show_log();
      CHECK_INT(status, 0);
      wrong += !same_run("cut", "whole");
      remove_run("cut");
    }
  }
  CHECK_INT(finish(pretrain, "cut"), 0);
  wrong += !same_run("cut", "whole");
  CHECK_INT(wrong, 0);
  printf("        %d kills (seed %llu), %d of them within saving, over %d runs\n", done,
         (unsigned long long)seed, inside, runs + 1);
  CHECK(inside >= kills / 6);
  remove_run("cut");
}

/* ---- before any file takes its name ---------------------------------------------------------- */

/* A run's files are renamed one after the other; whichever of them are new, it goes on. */
static void killed_between(const char *const *what, const char *whole)
{
  int at, status = -SIGKILL, wrong = 0;
  for (at = 0; at < 500 && status == -SIGKILL && wrong < 10; at++) {
    remove_run("cut");
    killed_at = at;
    status = end_of(start(what, "cut"));
    killed_at = -1;
    if (finish(what, "cut") || !same_run("cut", whole)) {
      wrong++;
      printf("  so it is after a kill before renaming number %d\n", at);
    }
  }
  CHECK_INT(status, 0);
  CHECK(at > 50);
  CHECK_INT(wrong, 0);
}

TEST(killed_between_the_files_of_a_run)
{
  remove_run("pretrained");
  remove_run("tuned");
  in_haste = 1;
  CHECK_INT(finish(pretrain_briefly, "pretrained"), 0);
  CHECK_INT(finish(finetune, "tuned"), 0);
  killed_between(pretrain_briefly, "pretrained");
  killed_between(finetune, "tuned");
  in_haste = 0;
}

/* ---- a full disk ----------------------------------------------------------------------------- */

#define DISK FOLDER "disk"

/* Leaves so much of the disk, and takes the rest. */
static void fill_disk(size_t room)
{
  static const char block[1 << 12];
  FILE *file;
  if (room) {
    file = fopen(DISK "/room", "wb");
    while (file && room > sizeof block && fwrite(block, sizeof block, 1, file) == 1)
      room -= sizeof block;
    if (file) fclose(file);
  }
  file = fopen(DISK "/filler", "wb");
  if (file) setvbuf(file, NULL, _IONBF, 0);
  while (file && fwrite(block, sizeof block, 1, file) == 1) {}
  if (file) fclose(file);
  remove(DISK "/room");
}

/* Sentences of the tool, and whether the last speaks of space. */
static int sentences_of_log(int *of_space)
{
  char line[600];
  int count = 0;
  FILE *log = fopen(LOG, "r");
  while (log && fgets(line, sizeof line, log))
    if (!strncmp(line, "igpt: ", 6)) {
      count++;
      *of_space = strstr(line, strerror(ENOSPC)) != NULL;
    }
  if (log) fclose(log);
  return count;
}

/* Somebody else fills the disk during a run, more of it or less; the run ends with a sentence and
   whole files, and goes on when there is room again. */
TEST(a_disk_that_is_full_for_a_while)
{
  igpt_rng rng = igpt_rng_seed(seed, 1);
  int turn, full = 0, wrong = 0, status;
  mkdir(DISK, 0755);
  if (system("umount " DISK " 2>/dev/null; mount -t tmpfs -o size=3m none " DISK " 2>/dev/null"))
    SKIP("mount is not permitted here");
  if (!is_there(path_of("whole", ".svg"))) CHECK_INT(finish(pretrain, "whole"), 0);
  for (turn = 0; turn < 6; turn++) {
    const pid_t child = start(pretrain, "disk/cut");
    int of_space = 0;
    nap(0.05 + 0.1 * (double)igpt_rng_uniform(&rng));
    fill_disk(igpt_rng_below(&rng, 5) * 150000);
    status = end_of(child);
    remove(DISK "/filler");
    if (status == 0) break;                     /* that was too late */
    full++;
    wrong += status != 1 || sentences_of_log(&of_space) != 1 || !of_space;
    wrong += files_of("disk/cut") > 4;
    if (wrong) show_log();
  }
  CHECK_INT(finish(pretrain, "disk/cut"), 0);
  wrong += !same_run("disk/cut", "whole");
  CHECK_INT(wrong, 0);
  CHECK(full >= 2);
  printf("        the disk was full %d times\n", full);
  CHECK_INT(system("umount " DISK), 0);
}

int main(int argc, char **argv)
{
  if (argc > 1) kills = atoi(argv[1]);
  if (argc > 2) seed = strtoull(argv[2], NULL, 10);
  if (mkdir("build/tests/killed.files", 0755) && errno != EEXIST) {
    printf("cannot write to build/tests: run from the root of the repository\n");
    return 1;
  }
  RUN(killed_at_random_moments);
  RUN(killed_between_the_files_of_a_run);
  RUN(a_disk_that_is_full_for_a_while);
  return test_done();
}
