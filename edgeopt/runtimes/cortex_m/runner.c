/* Samples in a file of the host go through the model called "model"; outputs come back in another, and the clock ticks
   and bytes of stack that the first one took in a third. */
#include "board.h"
#include "model.h"

/* INPUT_BYTES and OUTPUT_BYTES, the sizes of all inputs and outputs, are given when this is compiled. */
static const uint32_t input_bytes[] = {INPUT_BYTES}, output_bytes[] = {OUTPUT_BYTES};

#define PAINT 0xC5C5C5C5u
#define STATUS_NO_FILE 65
#define STATUS_CUT_FILE 66

extern uint32_t stack_limit[];

static uintptr_t stack_pointer(void) {
    uintptr_t sp;
    __asm volatile("mov %0, sp" : "=r"(sp));
    return sp;
}

/* Fills the free stack, but for what the caller is about to use of it. */
static void paint(void) {
    for (uint32_t *word = stack_limit; word < (uint32_t *)(stack_pointer() - 64); word++) *word = PAINT;
}

/* The lowest address of the stack that was written since. */
static uintptr_t lowest_written(void) {
    const volatile uint32_t *word = stack_limit;
    while (*word == PAINT) word++;
    return (uintptr_t)word;
}

int main(void) {
    uint32_t samples;
    intptr_t in = file_open("inputs.bin", READ_BINARY), out = file_open("outputs.bin", WRITE_BINARY);
    if (in < 0 || out < 0 || !file_read(in, &samples, sizeof samples)) return STATUS_NO_FILE;
    uint64_t took = 0;
    uintptr_t stack = 0;
    ticks_start();
    for (uint32_t sample = 0; sample < samples; sample++) {
        for (int i = 0; i < MODEL_INPUTS; i++) {
            if (!file_read(in, model_input(i), input_bytes[i])) return STATUS_CUT_FILE;
        }
        if (sample == 0) {
            uintptr_t sp = stack_pointer();
            paint();
            uint64_t start = ticks();
            model_invoke();
            took = ticks() - start;
            stack = sp - lowest_written();
        } else {
            model_invoke();
        }
        for (int i = 0; i < MODEL_OUTPUTS; i++) {
            if (!file_write(out, model_output(i), output_bytes[i])) return STATUS_CUT_FILE;
        }
    }
    file_close(out);
    intptr_t report = file_open("report.bin", WRITE_BINARY);
    const uint64_t numbers[2] = {took, stack};
    if (report < 0 || !file_write(report, numbers, sizeof numbers)) return STATUS_NO_FILE;
    file_close(report);
    return 0;
}
