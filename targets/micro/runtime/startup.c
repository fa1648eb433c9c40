/* Start-up of a bare-metal Armv7-M or Armv8-M program under an emulator: vectors, memory, stack painting, semihosting. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "semihosting.h"

extern uint32_t _stack_top, _stack_bottom, _data_start, _data_end, _data_load, _bss_start, _bss_end;
int main(void);

#define PAINT 0xA5A5A5A5u

static int semihosting_call(int operation, const void *argument) {
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

int semihosting_open(const char *path, int mode) {
  const uint32_t block[3] = {(uint32_t)path, (uint32_t)mode, (uint32_t)strlen(path)};
  return semihosting_call(0x01, block);
}

int semihosting_read(int file, void *data, uint32_t bytes) {
  const uint32_t block[3] = {(uint32_t)file, (uint32_t)data, bytes};
  return semihosting_call(0x06, block); /* bytes not read */
}

int semihosting_write(int file, const void *data, uint32_t bytes) {
  const uint32_t block[3] = {(uint32_t)file, (uint32_t)data, bytes};
  return semihosting_call(0x05, block); /* bytes not written */
}

void semihosting_close(int file) {
  const uint32_t block[1] = {(uint32_t)file};
  semihosting_call(0x02, block);
}

void semihosting_exit(int code) {
  const uint32_t block[2] = {0x20026u, (uint32_t)code}; /* ADP_Stopped_ApplicationExit */
  semihosting_call(0x20, block);
  for (;;) {
  }
}

uint32_t stack_used(void) {
  const uint32_t *p = &_stack_bottom;
  while (p < &_stack_top && *p == PAINT) p++;
  return (uint32_t)((const char *)&_stack_top - (const char *)p);
}

static void fault(void) { semihosting_exit(99); }

void start(void);

__attribute__((naked, noreturn)) void Reset_Handler(void) {
  __asm__ volatile(
      "ldr r0, =_stack_bottom\n"
      "ldr r1, =_stack_top\n"
      "ldr r2, =0xA5A5A5A5\n"
      "1: cmp r0, r1\n"
      "bhs 2f\n"
      "str r2, [r0]\n"
      "add r0, #4\n"
      "b 1b\n"
      "2: bl start\n"
      ".ltorg");
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &_stack_top, Reset_Handler, fault, fault, fault, fault, fault, fault, 0, 0, 0, fault, fault, 0, fault, fault};

void start(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: allow the FPU and Helium */
  __asm__ volatile("dsb\nisb" ::: "memory");
#endif
  for (uint32_t *d = &_data_start, *s = &_data_load; d < &_data_end;) *d++ = *s++;
  for (uint32_t *d = &_bss_start; d < &_bss_end;) *d++ = 0;
  semihosting_exit(main());
}
