/* What startup.c gives to programs of a simulated board: files on the host, a clock, the end. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

#define READ_BINARY 1
#define WRITE_BINARY 5

/* Files of the host, by semihosting; open gives -1 where there is none, read and write 0 on failure. */
intptr_t file_open(const char *name, int mode);
void file_close(intptr_t file);
int file_read(intptr_t file, void *bytes, uint32_t count);
int file_write(intptr_t file, const void *bytes, uint32_t count);

/* Cycles of SysTick since ticks_start. */
void ticks_start(void);
uint64_t ticks(void);

__attribute__((noreturn)) void semihosting_exit(int status);

#endif
