/* Results of candidates over a serial line. Lines as in serial_line.h; p is the number of the program:
 *   START p i                      run i begins: a board that falls silent died of the last that began
 *   RUN p i intact crc cycles      it ended; crc is the CRC-32 of its output
 *   END p runs                     all of them, and then their lines again and again, so that a damaged one is not lost */
#ifndef TRIAL_SERIAL_H
#define TRIAL_SERIAL_H

#include <stdint.h>

extern const uint32_t trial_program;

void serial_begin(void);
void serial_run_begins(void);
void serial_run_ends(void);
void serial_result(uint8_t intact, const void *output, uint32_t bytes);
void serial_repeat(void);

#endif
