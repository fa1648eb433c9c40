/* Files of the host, for programs under an emulator (Arm, "Semihosting for AArch32 and AArch64"). */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stdint.h>

enum { SEMIHOSTING_READ = 1, SEMIHOSTING_WRITE = 5 }; /* fopen's "rb" and "wb" */

int semihosting_open(const char *path, int mode);                    /* a file, or -1 */
int semihosting_read(int file, void *data, uint32_t bytes);          /* bytes not read */
int semihosting_write(int file, const void *data, uint32_t bytes);   /* bytes not written */
void semihosting_close(int file);
void semihosting_exit(int code) __attribute__((noreturn));
uint32_t stack_used(void); /* bytes of stack touched since reset */

#endif
