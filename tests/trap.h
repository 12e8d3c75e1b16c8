/* trap.h: AMX's instructions on a machine without them. Each stops the program with SIGILL; the
   handler reads it as the processor would (Intel, "Software Developer's Manual", volume 2), does
   its work on tiles that it keeps for the thread, and goes on behind it. So the very code that a
   compiler made for AMX runs, with its registers, addresses and shapes. What the processor would
   refuse, or the library never means to do, ends the program with a sentence. Include after igpt.h,
   with its emulated tiles (IGPT__TILES).                                                         */

#ifndef TRAP_H
#define TRAP_H

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

typedef struct trap_state {
  igpt__tile tile[8];
  int        shaped;              /* between ldtilecfg and tilerelease */
} trap_state;

static __thread trap_state trap;

static void trap_refuse(const char *why)
{
  if (write(2, why, strlen(why)) < 0 || write(2, "\n", 1) < 0) _exit(3);
  _exit(2);
}

/* A VEX instruction of three bytes of prefix, an opcode, and ModRM */
typedef struct trap_code {
  int opcode, prefix;             /* prefix: 0, 1: 66, 2: F3, 3: F2 */
  int reg, rm, third;             /* tiles; rm only where there is no address */
  int is_memory;
  char  *at;                      /* the address; of tiles, of row 0 */
  size_t step;                    /* bytes between rows */
  size_t bytes;                   /* of the whole instruction */
} trap_code;

static size_t trap_register(const mcontext_t *m, int number)
{
  static const int order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                 REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                 REG_R12, REG_R13, REG_R14, REG_R15 };
  return (size_t)m->gregs[order[number]];
}

/* Returns 0 if it is no instruction of AMX's kind: 64 bits, map 0F38, W0, 128. */
static int trap_read(trap_code *code, const mcontext_t *m)
{
  const unsigned char *start = (const unsigned char *)m->gregs[REG_RIP], *p = start;
  int more_index, more_base, mod;
  memset(code, 0, sizeof *code);
  if (p[0] != 0xc4 || (p[1] & 0x1f) != 2 || p[2] & 0x84) return 0;
  more_index = p[1] & 0x40 ? 0 : 8;
  more_base = p[1] & 0x20 ? 0 : 8;
  code->third = ~p[2] >> 3 & 15;
  code->prefix = p[2] & 3;
  code->opcode = p[3];
  mod = p[4] >> 6;
  code->reg = (p[4] >> 3 & 7) | (p[1] & 0x80 ? 0 : 8);
  code->rm = p[4] & 7;
  code->is_memory = mod != 3;
  p += 5;
  if (code->is_memory) {
    int base = code->rm, index = 4, scale = 0, shift = 0;
    int32_t far = 0;
    size_t address = 0;
    if (code->rm == 4) {                                    /* SIB */
      base = *p & 7;
      index = (*p >> 3 & 7) | more_index;
      scale = *p++ >> 6;
    }
    if (mod == 1) shift = 1;
    else if (mod == 2 || base == 5) shift = 4;
    if (shift == 1) far = (signed char)*p;
    else if (shift == 4) memcpy(&far, p, 4);
    p += shift;
    if (mod || base != 5) address = trap_register(m, base | more_base);
    else if (code->rm != 4) address = (size_t)p;            /* from the next instruction */
    if (index != 4) code->step = trap_register(m, index) << scale;
    if (code->opcode == 0x49) address += code->step;
    code->at = (char *)(address + (size_t)(ptrdiff_t)far);
  }
  code->bytes = (size_t)(p - start);
  return 1;
}

/* Palette 1, first row 0, 14 bytes that are reserved; then bytes a row (16 bits each) and rows (8
   bits) of 16 tiles, of which there are eight */
static void trap_shapes(const unsigned char *shapes)
{
  int i;
  if (shapes[0] != 1) trap_refuse("ldtilecfg: the palette is not 1");
  for (i = 1; i < 16; i++) if (shapes[i]) trap_refuse("ldtilecfg: a first row, or a reserved byte");
  for (i = 0; i < 16; i++)
    if (shapes[16 + 2 * i] != (i < 8 ? 64 : 0) || shapes[17 + 2 * i] ||
        shapes[48 + i] != (i < 8 ? 16 : 0))
      trap_refuse("ldtilecfg: a tile is not 16 rows of 64 bytes");
  memset(trap.tile, 0, sizeof trap.tile);
  trap.shaped = 1;
}

/* Returns 0 if it is none of AMX's instructions. */
static int trap_execute(const trap_code *code)
{
  igpt__tile *tile = trap.tile;
  const int kind = code->opcode << 4 | code->prefix << 1 | code->is_memory;
  const int shaped = trap.shaped;
  if (code->opcode != 0x5c && code->third) return 0;
  switch (kind) {
    case 0x491:                                             /* ldtilecfg m512 */
      if (code->reg) return 0;
      trap_shapes((const unsigned char *)code->at);
      return 1;
    case 0x490:                                             /* tilerelease */
      if (code->reg || code->rm) return 0;
      memset(&trap, 0xff, sizeof trap);
      trap.shaped = 0;
      return 1;
    case 0x496:                                             /* tilezero */
      if (code->rm || code->reg > 7) return 0;
      memset(&tile[code->reg], 0, sizeof *tile);
      break;
    case 0x4b7:                                             /* tileloadd */
    case 0x4b3:                                             /* tileloaddt1 */
      if (code->rm != 4 || code->reg > 7) return 0;
      igpt__tile_load(&tile[code->reg], code->at, code->step);
      break;
    case 0x4b5:                                             /* tilestored */
      if (code->rm != 4 || code->reg > 7) return 0;
      igpt__tile_store(&tile[code->reg], code->at, code->step);
      break;
    case 0x5c4:                                             /* tdpbf16ps */
      if (code->reg > 7 || code->third > 7) return 0;
      if (code->reg == code->rm || code->reg == code->third || code->rm == code->third)
        trap_refuse("tdpbf16ps: a tile twice");
      igpt__tile_dot(&tile[code->reg], &tile[code->rm], &tile[code->third]);
      break;
    default: return 0;
  }
  if (!shaped) trap_refuse("a tile outside of ldtilecfg and tilerelease");
  return 1;
}

static void trap_handle(int number, siginfo_t *info, void *context)
{
  mcontext_t *m = &((ucontext_t *)context)->uc_mcontext;
  trap_code code;
  (void)number;
  (void)info;
  if (!trap_read(&code, m) || !trap_execute(&code))
    trap_refuse("an illegal instruction that is none of AMX's");
  m->gregs[REG_RIP] += (greg_t)code.bytes;
}

static int trap_install(void)
{
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = trap_handle;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  return sigaction(SIGILL, &action, NULL);
}

#endif
