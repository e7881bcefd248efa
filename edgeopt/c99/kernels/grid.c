/* needs: simd packed */
/* Weights that lie on a grid are never looked up: the table of a row holds `low` and `step`, and the sum of
   x * (low + step * index) is low * (sum of x) + step * (sum of x * index). Indices fill whole words, so x is read up to
   the end of a word, on Helium of four: what stands there is multiplied by 0. GRID_BITS are the bits in use, added. */
static inline int32_t grid_sum(const packed_t *p, int32_t row, int32_t bias, int32_t total, int32_t products) {
    const int8_t *table = p->tables + row * p->table_step;
    const uint32_t low = (uint32_t)table[0], step = (uint8_t)table[1];
    return (int32_t)((uint32_t)bias + low * (uint32_t)total + step * (uint32_t)products);
}

static inline int32_t grid_total(const int8_t *x, int32_t depth) {
    int32_t total = 0;
#if defined(USE_MVE)
    for (; depth > 0; depth -= 16, x += 16) {
        total = vaddvaq_s8(total, vldrbq_z_s8(x, vctp8q((uint32_t)depth)));
    }
#else
    for (int32_t i = 0; i < depth; ++i) {
        total += x[i];
    }
#endif
    return total;
}

#if defined(USE_MVE)
/* Those of both rows times what stands `ahead` bytes behind the lanes' addresses of one column; of two. */
#define GRID_BY_1(place, ahead, shift) \
    "vldrw.u32 %q[x], [%q[a], #" ahead "]\n" \
    INDEX_##place("u", shift) "vmlava.s8 %[s0], %q[i], %q[x]\n" \
    INDEX_##place("v", shift) "vmlava.s8 %[s1], %q[i], %q[x]\n"
#define GRID_BY_2(place, ahead, shift) \
    "vldrw.u32 %q[x], [%q[a], #" ahead "]\n" \
    "vldrw.u32 %q[y], [%q[b], #" ahead "]\n" \
    INDEX_##place("u", shift) "vmlava.s8 %[s0], %q[i], %q[x]\n vmlava.s8 %[s2], %q[i], %q[y]\n" \
    INDEX_##place("v", shift) "vmlava.s8 %[s1], %q[i], %q[x]\n vmlava.s8 %[s3], %q[i], %q[y]\n"
#define GRID_FIELDS_4(by) by(FIRST, "0", "0") by(LAST, "4", "4")
#define GRID_FIELDS_2(by) by(FIRST, "0", "0") by(NEXT, "4", "2") by(NEXT, "8", "4") by(LAST, "12", "6")
#define GRID_FIELDS_1(by) \
    by(FIRST, "0", "0") by(NEXT, "4", "1") by(NEXT, "8", "2") by(NEXT, "12", "3") \
    by(NEXT, "16", "4") by(NEXT, "20", "5") by(NEXT, "24", "6") by(LAST, "28", "7")
/* 16 bytes of each row. Compilers would run out of registers. */
#define GRID_BYTES(bits) \
    if (two) { \
        __asm__ volatile( \
            GRID_FIELDS_##bits(GRID_BY_2) \
            : [s0] "+&Te"(s0), [s1] "+&Te"(s1), [s2] "+&Te"(s2), [s3] "+&Te"(s3), [x] "=&w"(x), [y] "=&w"(y), [i] "=&w"(i) \
            : [u] "w"(u), [v] "w"(v), [a] "w"(from_a), [b] "w"(from_b), [m] "w"(mask) \
            : "memory" \
        ); \
    } else { \
        __asm__ volatile( \
            GRID_FIELDS_##bits(GRID_BY_1) \
            : [s0] "+&Te"(s0), [s1] "+&Te"(s1), [x] "=&w"(x), [i] "=&w"(i) \
            : [u] "w"(u), [v] "w"(v), [a] "w"(from_a), [m] "w"(mask) \
            : "memory" \
        ); \
    }
#define GRID_WHOLE(bits) \
    const uint8x16_t mask = vdupq_n_u8((1 << bits) - 1); \
    const uint32x4_t lanes = vmulq_n_u32(vidupq_n_u32(0, 1), 32 / bits); \
    uint32x4_t from_a = vaddq_n_u32(lanes, (uint32_t)a), from_b = vaddq_n_u32(lanes, (uint32_t)b); \
    int8x16_t x, y, i; \
    for (int32_t left = words / 4; left > 0; --left, w0 += 16, w1 += 16) { \
        const uint8x16_t u = vldrbq_u8(w0), v = vldrbq_u8(w1); \
        GRID_BYTES(bits) \
        from_a = vaddq_n_u32(from_a, 128 / bits); \
        from_b = vaddq_n_u32(from_b, 128 / bits); \
    }
#define GRID_LOOP(bits) \
    GRID_WHOLE(bits) \
    if (words % 4) { \
        const mve_pred16_t some = vctp8q((uint32_t)words % 4 * 4); \
        const uint8x16_t u = vldrbq_z_u8(w0, some), v = vldrbq_z_u8(w1, some); \
        GRID_BYTES(bits) \
    }
/* Of one bit, 16 bytes are more than most rows have left: those word by word, half of the bits first. */
#define GRID_HALF(down, from) \
    { \
        const int8x16_t i0 = vreinterpretq_s8_u8(vandq_u8(vshlq_u8(u, down), mask)); \
        const int8x16_t i1 = vreinterpretq_s8_u8(vandq_u8(vshlq_u8(v, down), mask)); \
        x = vldrbq_s8(a + (from)); \
        s0 = vmladavaq_s8(s0, i0, x); \
        s1 = vmladavaq_s8(s1, i1, x); \
        if (two) { \
            y = vldrbq_s8(b + (from)); \
            s2 = vmladavaq_s8(s2, i0, y); \
            s3 = vmladavaq_s8(s3, i1, y); \
        } \
    }
#define GRID_BIT \
    GRID_WHOLE(1) \
    const int8x16_t low = vnegq_s8(vreinterpretq_s8_u8(vshrq_n_u8(vidupq_n_u8(0, 1), 2))), high = vsubq_n_s8(low, 4); \
    a += words / 4 * 128; \
    b += words / 4 * 128; \
    for (int32_t left = words % 4; left > 0; --left, w0 += 4, w1 += 4, a += 32, b += 32) { \
        const uint8x16_t u = vreinterpretq_u8_u32(vdupq_n_u32(load_indices(w0))); \
        const uint8x16_t v = vreinterpretq_u8_u32(vdupq_n_u32(load_indices(w1))); \
        GRID_HALF(low, 0) \
        GRID_HALF(high, 16) \
    }
#elif defined(USE_DSP)
/* Four bytes times the indices of both rows, shifted by `even` and `odd`. Compilers run out of registers. */
#define GRID_BYTES(even, odd) \
    "ldr %[x], [%[a]], #4\n" \
    "sxtb16 %[y], %[x], ror #8\n" \
    "sxtb16 %[x], %[x]\n" \
    "and %[t], %[m], %[u]" even "\n" \
    "smlad %[s0], %[t], %[x], %[s0]\n" \
    "and %[t], %[m], %[v]" even "\n" \
    "smlad %[s1], %[t], %[x], %[s1]\n" \
    "and %[t], %[m], %[u]" odd "\n" \
    "smlad %[s0], %[t], %[y], %[s0]\n" \
    "and %[t], %[m], %[v]" odd "\n" \
    "smlad %[s1], %[t], %[y], %[s1]\n"
#define GRID_FIELD(f, bits) GRID_BYTES(", lsr #" #f "*" #bits, ", lsr #8+" #f "*" #bits)
#define GRID_FIRST GRID_BYTES("", ", lsr #8")
#define GRID_FIELDS_4 GRID_FIRST GRID_FIELD(1, 4)
#define GRID_FIELDS_2 GRID_FIRST GRID_FIELD(1, 2) GRID_FIELD(2, 2) GRID_FIELD(3, 2)
#define GRID_FIELDS_1 \
    GRID_FIRST GRID_FIELD(1, 1) GRID_FIELD(2, 1) GRID_FIELD(3, 1) GRID_FIELD(4, 1) GRID_FIELD(5, 1) GRID_FIELD(6, 1) \
    GRID_FIELD(7, 1)
#define GRID_LOOP(bits) \
    uint32_t x, y, u, v, t; \
    (void)b; \
    (void)two; \
    __asm__ volatile( \
        "1:\n" \
        "ldr %[u], [%[w0]], #4\n" \
        "ldr %[v], [%[w1]], #4\n" GRID_FIELDS_##bits \
        "cmp %[w0], %[end]\n" \
        "bne 1b\n" \
        : [w0] "+&r"(w0), [w1] "+&r"(w1), [a] "+&r"(a), [s0] "+&r"(s0), [s1] "+&r"(s1), [x] "=&r"(x), [y] "=&r"(y), \
          [u] "=&r"(u), [v] "=&r"(v), [t] "=&r"(t) \
        : [end] "r"(w0 + words * 4), [m] "r"(((1u << bits) - 1u) * 0x00010001u) \
        : "cc", "memory" \
    );
#else
#define GRID_TAP(f, bits, k) \
    { \
        const int32_t mask = (1 << bits) - 1; \
        const int32_t i0 = (int32_t)(u >> ((f) * (bits) + (k) * 8)) & mask; \
        const int32_t i1 = (int32_t)(v >> ((f) * (bits) + (k) * 8)) & mask; \
        s0 += a[(f) * 4 + (k)] * i0; \
        s1 += a[(f) * 4 + (k)] * i1; \
        s2 += two ? b[(f) * 4 + (k)] * i0 : 0; \
        s3 += two ? b[(f) * 4 + (k)] * i1 : 0; \
    }
#define GRID_FIELD(f, bits) GRID_TAP(f, bits, 0) GRID_TAP(f, bits, 1) GRID_TAP(f, bits, 2) GRID_TAP(f, bits, 3)
#define GRID_FIELDS_4 GRID_FIELD(0, 4) GRID_FIELD(1, 4)
#define GRID_FIELDS_2 GRID_FIELD(0, 2) GRID_FIELD(1, 2) GRID_FIELD(2, 2) GRID_FIELD(3, 2)
#define GRID_FIELDS_1 \
    GRID_FIELD(0, 1) GRID_FIELD(1, 1) GRID_FIELD(2, 1) GRID_FIELD(3, 1) \
    GRID_FIELD(4, 1) GRID_FIELD(5, 1) GRID_FIELD(6, 1) GRID_FIELD(7, 1)
#define GRID_LOOP(bits) \
    for (int32_t i = words; i > 0; --i, w0 += 4, w1 += 4, a += 32 / bits, b += 32 / bits) { \
        const uint32_t u = load_indices(w0), v = load_indices(w1); \
        GRID_FIELDS_##bits \
    }
#endif
#define GRID_LOOP_4 GRID_LOOP(4)
#define GRID_LOOP_2 GRID_LOOP(2)
#if defined(USE_MVE)
#define GRID_LOOP_1 GRID_BIT
#else
#define GRID_LOOP_1 GRID_LOOP(1)
#endif
/* Two rows of indices, `words` long, times one column of bytes or, where `two` is 1, two (not with DSP, see
   grid_turns): sums[0] and [1] are of the first, [2] and [3] of the second. */
#define GRID_DOT(bits) \
    static inline void grid_dot_##bits( \
        const uint8_t *w0, const uint8_t *w1, const int8_t *a, const int8_t *b, int two, int32_t words, int32_t sums[4] \
    ) { \
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0; \
        GRID_LOOP_##bits \
        sums[0] = s0; \
        sums[1] = s1; \
        sums[2] = s2; \
        sums[3] = s3; \
    }
#if GRID_BITS & 4
GRID_DOT(4)
#endif
#if GRID_BITS & 2
GRID_DOT(2)
#endif
#if GRID_BITS & 1
GRID_DOT(1)
#endif

static inline void grid_dot(
    int32_t bits, const uint8_t *w0, const uint8_t *w1, const int8_t *a, const int8_t *b, int two, int32_t words,
    int32_t sums[4]
) {
#if GRID_BITS & 4
    if (GRID_BITS == 4 || bits == 4) {
        grid_dot_4(w0, w1, a, b, two, words, sums);
        return;
    }
#endif
#if GRID_BITS & 2
    if (GRID_BITS == 2 || bits == 2) {
        grid_dot_2(w0, w1, a, b, two, words, sums);
        return;
    }
#endif
#if GRID_BITS & 1
    grid_dot_1(w0, w1, a, b, two, words, sums);
#endif
    (void)bits;
}
