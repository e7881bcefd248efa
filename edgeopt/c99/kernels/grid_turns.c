/* needs: grid */
#if defined(USE_DSP)
/* Two taps of both rows, their indices shifted by `by`, times those of two columns whose pairs take turns. */
#define TURNS_PAIR(by) \
    "ldrd %[x], %[y], [%[c]], #8\n" \
    "and %[t], %[m], %[u]" by "\n" \
    "smlad %[s0], %[t], %[x], %[s0]\n" \
    "smlad %[s2], %[t], %[y], %[s2]\n" \
    "and %[t], %[m], %[v]" by "\n" \
    "smlad %[s1], %[t], %[x], %[s1]\n" \
    "smlad %[s3], %[t], %[y], %[s3]\n"
#define TURNS_FIELD(f) TURNS_PAIR(", lsr #" #f) TURNS_PAIR(", lsr #8+" #f)
#define TURNS_FIELDS_4 TURNS_PAIR("") TURNS_PAIR(", lsr #8") TURNS_FIELD(4)
#define TURNS_FIELDS_2 TURNS_PAIR("") TURNS_PAIR(", lsr #8") TURNS_FIELD(2) TURNS_FIELD(4) TURNS_FIELD(6)
#define TURNS_FIELDS_1 \
    TURNS_PAIR("") TURNS_PAIR(", lsr #8") TURNS_FIELD(1) TURNS_FIELD(2) TURNS_FIELD(3) TURNS_FIELD(4) TURNS_FIELD(5) \
    TURNS_FIELD(6) TURNS_FIELD(7)
/* All 13 registers are in use, as in dot_2_by_2_turns. */
#define GRID_TURNS(bits) \
    static inline void grid_turns_##bits( \
        const uint8_t *w0, const uint8_t *w1, const int16_t *columns, int32_t words, int32_t sums[4] \
    ) { \
        const uint8_t *end = w0 + words * 4; \
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0; \
        uint32_t x, y, u, v, t; \
        __asm__ volatile( \
            "1:\n" \
            "ldr %[u], [%[w0]], #4\n" \
            "ldr %[v], [%[w1]], #4\n" TURNS_FIELDS_##bits \
            "ldr %[x], %[end]\n" \
            "cmp %[w0], %[x]\n" \
            "bne 1b\n" \
            : [w0] "+&r"(w0), [w1] "+&r"(w1), [c] "+&r"(columns), [s0] "+&r"(s0), [s1] "+&r"(s1), \
              [s2] "+&r"(s2), [s3] "+&r"(s3), [x] "=&r"(x), [y] "=&r"(y), [u] "=&r"(u), [v] "=&r"(v), [t] "=&r"(t) \
            : [end] "m"(end), [m] "r"(((1u << bits) - 1u) * 0x00010001u) \
            : "cc", "memory" \
        ); \
        sums[0] = s0; \
        sums[1] = s1; \
        sums[2] = s2; \
        sums[3] = s3; \
    }
#if GRID_BITS & 4
GRID_TURNS(4)
#endif
#if GRID_BITS & 2
GRID_TURNS(2)
#endif
#if GRID_BITS & 1
GRID_TURNS(1)
#endif

/* As grid_dot with two columns. */
static inline void grid_turns(
    int32_t bits, const uint8_t *w0, const uint8_t *w1, const int16_t *columns, int32_t words, int32_t sums[4]
) {
#if GRID_BITS & 4
    if (GRID_BITS == 4 || bits == 4) {
        grid_turns_4(w0, w1, columns, words, sums);
        return;
    }
#endif
#if GRID_BITS & 2
    if (GRID_BITS == 2 || bits == 2) {
        grid_turns_2(w0, w1, columns, words, sums);
        return;
    }
#endif
#if GRID_BITS & 1
    grid_turns_1(w0, w1, columns, words, sums);
#endif
    (void)bits;
}
#endif
