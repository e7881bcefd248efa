/* From reset to main on a bare Cortex-M: vectors, memory, FPU and vector unit. */
#include <stdint.h>

#include "board.h"

extern uint32_t data_start[], data_end[], data_source[], bss_start[], bss_end[], stack_top[];

int main(void);
void reset(void);

#define SYSTICK_CONTROL (*(volatile uint32_t *)0xE000E010u)
#define SYSTICK_RELOAD (*(volatile uint32_t *)0xE000E014u)
#define SYSTICK_CURRENT (*(volatile uint32_t *)0xE000E018u)
#define INTERRUPT_STATE (*(volatile uint32_t *)0xE000ED04u)
#define COPROCESSOR_ACCESS (*(volatile uint32_t *)0xE000ED88u)
#define SYSTICK_BITS 24

static volatile uint32_t wraps;

static void fault(void) { semihosting_exit(70); }

static void systick(void) { wraps++; }

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
    0, 0, 0, (void *)fault, (void *)fault, 0, (void *)fault, (void *)systick,
};

void reset(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    COPROCESSOR_ACCESS |= 0xFu << 20; /* CP10 and CP11, in full */
    __asm volatile("dsb\n isb");
#endif
    for (uint32_t *to = data_start, *from = data_source; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0;
    semihosting_exit(main());
}

void ticks_start(void) {
    SYSTICK_CONTROL = 0;
    SYSTICK_RELOAD = (1u << SYSTICK_BITS) - 1;
    SYSTICK_CURRENT = 0;
    wraps = 0;
    SYSTICK_CONTROL = 7; /* the core's clock, with an interrupt at each wrap */
}

uint64_t ticks(void) {
    uint32_t before, now;
    do {
        before = wraps;
        now = SYSTICK_CURRENT;
    } while (before != wraps);
    return ((uint64_t)before << SYSTICK_BITS) + (((1u << SYSTICK_BITS) - 1) - now);
}

/* The debugger's call: the operation in r0, its arguments in r1. */
static intptr_t semihosting(int operation, const void *arguments) {
    register intptr_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = arguments;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

intptr_t file_open(const char *name, int mode) {
    uint32_t length = 0;
    while (name[length]) length++;
    const uintptr_t arguments[3] = {(uintptr_t)name, (uintptr_t)mode, length};
    return semihosting(0x01, arguments);
}

void file_close(intptr_t file) {
    const uintptr_t arguments[1] = {(uintptr_t)file};
    semihosting(0x02, arguments);
}

int file_write(intptr_t file, const void *bytes, uint32_t count) {
    const uintptr_t arguments[3] = {(uintptr_t)file, (uintptr_t)bytes, count};
    return semihosting(0x05, arguments) == 0;
}

int file_read(intptr_t file, void *bytes, uint32_t count) {
    const uintptr_t arguments[3] = {(uintptr_t)file, (uintptr_t)bytes, count};
    return semihosting(0x06, arguments) == 0;
}

void semihosting_exit(int status) {
    const uintptr_t arguments[2] = {0x20026u, (uintptr_t)status}; /* ADP_Stopped_ApplicationExit */
    semihosting(0x20, arguments);
    for (;;) {
    }
}

/* newlib's exit, abort and stdio of a program that prints. */
void _exit(int status) { semihosting_exit(status); }

int _write(int file, const char *bytes, int count) {
    (void)file;
    for (int i = 0; i < count; i++) semihosting(0x03, &bytes[i]);
    return count;
}
