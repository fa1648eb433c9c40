/* Results of candidates over a serial line, see trial_serial.h. */
#include "trial_serial.h"

#include "serial_line.h"

#define MOST 128 /* of which the lines are said again */

typedef struct {
  uint32_t intact, crc, cycles;
} result_t;

static result_t results[MOST];
static uint32_t runs, cycles;

static size_t put_number(char *at, uint32_t value) {
  char digits[10];
  size_t count = 0, length = 0;
  do digits[count++] = (char)('0' + value % 10);
  while (value /= 10);
  at[length++] = ' ';
  while (count) at[length++] = digits[--count];
  return length;
}

static void say(const char *name, const uint32_t *numbers, unsigned count) {
  char line[80];
  size_t length = 0;
  while (name[length]) line[length] = name[length], length++;
  length += put_number(line + length, trial_program);
  for (unsigned i = 0; i < count; i++) length += put_number(line + length, numbers[i]);
  send(line, length);
}

static void say_result(uint32_t run, const result_t *result) {
  const uint32_t numbers[] = {run, result->intact, result->crc, result->cycles};
  say("RUN", numbers, 4);
}

void serial_begin(void) {
  uart_init();
  serial_cycles_start();
}

void serial_run_begins(void) {
  say("START", &runs, 1);
  cycles = serial_cycles();
}

void serial_run_ends(void) { cycles = serial_cycles() - cycles; }

void serial_result(uint8_t intact, const void *output, uint32_t bytes) {
  const uint8_t *const data = output;
  uint32_t crc = 0xFFFFFFFFu;
  for (uint32_t i = 0; i < bytes; i++) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; bit++) crc = crc & 1u ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
  }
  const result_t result = {intact, ~crc, cycles};
  say_result(runs, &result);
  if (runs < MOST) results[runs] = result;
  runs++;
}

void serial_repeat(void) {
  for (;;) {
    say("END", &runs, 1);
    for (uint32_t i = 0; i < runs && i < MOST; i++) say_result(i, &results[i]);
  }
}
