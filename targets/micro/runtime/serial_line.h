/* A board's serial line and cycle counter, and lines with checksums.
 *
 * The board supplies uart_putc, and uart_getc where it is spoken to; it may supply the other hooks: functions of these names in a
 * file of its own. C99 with weak symbols. */
#ifndef SERIAL_LINE_H
#define SERIAL_LINE_H

#include <stddef.h>
#include <stdint.h>

#ifndef SERIAL_CLOCK_HZ
#define SERIAL_CLOCK_HZ 0u
#endif

#define WEAK __attribute__((weak))

/* Hooks of the board. */
void uart_init(void);           /* clocks and pins; called once */
int uart_getc(void);            /* the next byte, or -1 while there is none */
void uart_putc(uint8_t byte);   /* waits until there is room */
uint32_t serial_clock_hz(void); /* of what serial_cycles counts */
void serial_cycles_start(void);
uint32_t serial_cycles(void);   /* counts up, from anywhere; all zero where there is no counter */
uint32_t stack_used(void);      /* startup.c has one */

WEAK void uart_init(void) {}
WEAK int uart_getc(void) { return -1; }
WEAK void uart_putc(uint8_t byte) { (void)byte; }
WEAK uint32_t serial_clock_hz(void) { return SERIAL_CLOCK_HZ; }
WEAK uint32_t stack_used(void) { return 0; }

#if defined(__ARM_ARCH) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH >= 7 && __ARM_ARCH_PROFILE == 'M'
/* The cycle counter of the Data Watchpoint and Trace unit (Arm DDI 0403, C1.8). */
#define DEMCR (*(volatile uint32_t *)0xE000EDFCu)
#define DWT_CTRL (*(volatile uint32_t *)0xE0001000u)
#define DWT_CYCCNT (*(volatile uint32_t *)0xE0001004u)
WEAK void serial_cycles_start(void) {
  DEMCR |= 1u << 24;
  DWT_CYCCNT = 0;
  DWT_CTRL |= 1u;
}
WEAK uint32_t serial_cycles(void) { return DWT_CYCCNT; }
#else
WEAK void serial_cycles_start(void) {}
WEAK uint32_t serial_cycles(void) { return 0; }
#endif

static uint16_t crc16(const char *data, size_t length) {
  uint32_t crc = 0xFFFF;
  for (size_t i = 0; i < length; i++) {
    crc ^= (uint32_t)(uint8_t)data[i] << 8;
    for (int bit = 0; bit < 8; bit++) crc = crc & 0x8000u ? (crc << 1) ^ 0x1021u : crc << 1;
  }
  return (uint16_t)crc;
}

static void send(const char *payload, size_t length) {
  static const char hex[] = "0123456789ABCDEF";
  const uint16_t crc = crc16(payload, length);
  uart_putc(':');
  for (size_t i = 0; i < length; i++) uart_putc((uint8_t)payload[i]);
  uart_putc('*');
  for (int shift = 12; shift >= 0; shift -= 4) uart_putc((uint8_t)hex[crc >> shift & 15]);
  uart_putc('\n');
}

#endif
