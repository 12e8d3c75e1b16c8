/* tests/cortex-m/board.c: complete.c on Arm's MPS2 boards, a Cortex-M3 (AN385) or a Cortex-M7
   (AN500), from reset to exit, without an operating system. The four megabytes at address 0, which
   hold code and weights, are closed for writing as flash is. Output and exit go through
   semihosting: a breakpoint that the debugger, here QEMU, answers.                               */

#include "complete.h"
#include <stdint.h>

/* The model's file, from the folder that -Wa,-I names. */
__asm__(".section .rodata.weights\n"
        ".balign 8\n"
        "weights: .incbin \"model.safetensors\"\n"
        "weights_end:\n"
        ".previous\n");
extern const unsigned char weights[], weights_end[];

/* Of the linker script. */
extern unsigned char ld_data[], ld_data_end[], ld_data_from[], ld_bss[], ld_bss_end[];
extern unsigned char ld_stack[], ld_stack_top[];

static int host(int operation, const void *argument)
{
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

void machine_put(const char *text) { host(0x04, text); }

static void leave(int status)
{
  uint32_t why[2];
  why[0] = 0x20026;               /* the application has ended */
  why[1] = (uint32_t)status;
  for (;;) host(0x20, why);
}

static void fault(void)
{
  machine_put("the processor stopped at a fault\n");
  leave(1);
}

static void write_register(uint32_t address, uint32_t value)
{
  *(volatile uint32_t *)(uintptr_t)address = value;
}

/* Region 0, the four megabytes at 0: read and execute; everything else as it was. */
static void protect_flash(void)
{
  write_register(0xe000ed98, 0);                            /* region number */
  write_register(0xe000ed9c, 0);                            /* base */
  write_register(0xe000eda0, 6u << 24 | 1u << 17 | 21u << 1 | 1);   /* read only, 2^22 bytes */
  write_register(0xe000ed94, 5);                            /* on, the rest by default */
  __asm__ volatile("dsb\n\tisb" : : : "memory");
}

void start(void);
void start(void)
{
  const unsigned char *from = ld_data_from;
  unsigned char *p;
#ifdef __ARM_FP
  write_register(0xe000ed88, 0xfu << 20);                   /* the floating-point unit is off */
  __asm__ volatile("dsb\n\tisb" : : : "memory");
#endif
  for (p = ld_data; p < ld_data_end; p++) *p = *from++;
  for (p = ld_bss; p < ld_bss_end; p++) *p = 0;
  protect_flash();
#ifdef WRITE_TO_FLASH
  *(volatile unsigned char *)(uintptr_t)weights = 0;        /* must not come back */
#endif
  {
    unsigned char here;
    unsigned char *volatile top = &here;
    int failed;
    for (p = ld_stack; p < top - 64; p++) *(volatile unsigned char *)p = STACK_UNUSED;
    failed = complete(weights, (size_t)(weights_end - weights));
    put_stack(ld_stack, ld_stack_top);
    leave(failed);
  }
}

/* What the processor reads at address 0: the first stack pointer, then where to go on reset and at
   each exception. */
__attribute__((section(".vectors"), used)) static const struct {
  void *stack;
  void (*go[15])(void);
} vectors = {
  ld_stack_top,
  { start, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, fault }
};
