/* Cortex-M55 and M85: vectors of 16 bytes (Helium). Cortex-M4, M7 and M33: words of four int8, two products at once. */
#if defined(__ARM_FEATURE_MVE)
#define USE_MVE 1
#include <arm_mve.h>

/* C libraries for microcontrollers often copy byte by byte. */
static inline void copy_bytes(int8_t *to, const int8_t *from, int32_t count) {
    for (int32_t i = count / 16; i > 0; --i, from += 16, to += 16) {
        vstrbq_s8(to, vldrbq_s8(from));
    }
    if (count % 16) {
        const mve_pred16_t some = vctp8q((uint32_t)count % 16);
        vstrbq_p_s8(to, vldrbq_z_s8(from, some), some);
    }
}

/* Adds the products of two rows with one column. */
static inline void dot_2_by_1(
    const int8_t *w0, const int8_t *w1, const int8_t *a, int32_t depth, int32_t *s0, int32_t *s1
) {
    int32_t t0 = *s0, t1 = *s1;
    for (; depth >= 16; depth -= 16, w0 += 16, w1 += 16, a += 16) {
        const int8x16_t x = vldrbq_s8(a);
        t0 = vmladavaq_s8(t0, vldrbq_s8(w0), x);
        t1 = vmladavaq_s8(t1, vldrbq_s8(w1), x);
    }
    if (depth > 0) {
        const mve_pred16_t some = vctp8q((uint32_t)depth);
        const int8x16_t x = vldrbq_z_s8(a, some);
        t0 = vmladavaq_s8(t0, vldrbq_z_s8(w0, some), x);
        t1 = vmladavaq_s8(t1, vldrbq_z_s8(w1, some), x);
    }
    *s0 = t0;
    *s1 = t1;
}

/* The same with two columns. */
static inline void dot_2_by_2(
    const int8_t *w0, const int8_t *w1, const int8_t *a, const int8_t *b, int32_t depth,
    int32_t *s0, int32_t *s1, int32_t *s2, int32_t *s3
) {
    int32_t t0 = *s0, t1 = *s1, t2 = *s2, t3 = *s3;
    for (; depth >= 16; depth -= 16, w0 += 16, w1 += 16, a += 16, b += 16) {
        const int8x16_t x = vldrbq_s8(a), y = vldrbq_s8(b), u = vldrbq_s8(w0), v = vldrbq_s8(w1);
        t0 = vmladavaq_s8(t0, u, x);
        t1 = vmladavaq_s8(t1, v, x);
        t2 = vmladavaq_s8(t2, u, y);
        t3 = vmladavaq_s8(t3, v, y);
    }
    if (depth > 0) {
        const mve_pred16_t some = vctp8q((uint32_t)depth);
        const int8x16_t x = vldrbq_z_s8(a, some), y = vldrbq_z_s8(b, some);
        const int8x16_t u = vldrbq_z_s8(w0, some), v = vldrbq_z_s8(w1, some);
        t0 = vmladavaq_s8(t0, u, x);
        t1 = vmladavaq_s8(t1, v, x);
        t2 = vmladavaq_s8(t2, u, y);
        t3 = vmladavaq_s8(t3, v, y);
    }
    *s0 = t0;
    *s1 = t1;
    *s2 = t2;
    *s3 = t3;
}

/* Four of fixed_point.c's divide_by_power; the exponents come negative. */
static inline int32x4_t divide_by_powers(int32x4_t values, int32x4_t exponents) {
    const int32x4_t away = vshrq_n_s32(vandq_s32(values, exponents), 31);
    return vrshlq_s32(vqaddq_s32(values, away), exponents);
}
#elif defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_UNALIGNED) && __ARM_ARCH_PROFILE == 'M' && defined(__GNUC__)
#define USE_DSP 1

static inline uint32_t load_word(const void *from) {
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/* Bytes 0 and 2 as two int16; bytes 1 and 3. */
static inline uint32_t even_bytes(uint32_t word) {
    uint32_t pair;
    __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(word));
    return pair;
}

static inline uint32_t odd_bytes(uint32_t word) {
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}

/* The same, each added to the int16 of `offsets`. */
static inline uint32_t even_bytes_plus(uint32_t offsets, uint32_t word) {
    uint32_t pair;
    __asm__("sxtab16 %0, %1, %2" : "=r"(pair) : "r"(offsets), "r"(word));
    return pair;
}

static inline uint32_t odd_bytes_plus(uint32_t offsets, uint32_t word) {
    uint32_t pair;
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(pair) : "r"(offsets), "r"(word));
    return pair;
}

static inline int32_t add_products(int32_t sum, uint32_t a, uint32_t b) {
    __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}

static inline void store_word(void *to, uint32_t word) {
    memcpy(to, &word, sizeof word);
}

#define DOT_2_BY_2_STEP \
    "ldr %[e0], [%[w0]], #4\n" \
    "ldr %[e1], [%[w1]], #4\n" \
    "ldrd %[x], %[y], [%[c]], #8\n" \
    "sxtb16 %[o0], %[e0], ror #8\n" \
    "sxtb16 %[e0], %[e0]\n" \
    "sxtb16 %[o1], %[e1], ror #8\n" \
    "sxtb16 %[e1], %[e1]\n" \
    "smlad %[s0], %[e0], %[x], %[s0]\n" \
    "smlad %[s1], %[e1], %[x], %[s1]\n" \
    "smlad %[s2], %[e0], %[y], %[s2]\n" \
    "smlad %[s3], %[e1], %[y], %[s3]\n" \
    "ldrd %[x], %[y], [%[c]], #8\n" \
    "smlad %[s0], %[o0], %[x], %[s0]\n" \
    "smlad %[s1], %[o1], %[x], %[s1]\n" \
    "smlad %[s2], %[o0], %[y], %[s2]\n" \
    "smlad %[s3], %[o1], %[y], %[s3]\n"

/* Two rows of weights times two columns whose pairs take turns; `words` of four. All 13 registers are in use, so compilers
   do worse, and the end of the loop stands in memory. */
static inline void dot_2_by_2_turns(
    const int8_t **w0, const int8_t **w1, const int16_t **columns, int32_t words,
    int32_t *s0, int32_t *s1, int32_t *s2, int32_t *s3
) {
    const int8_t *end = *w0 + words / 4 * 16;
    uint32_t x, y, even0, odd0, even1, odd1;
    if (words >= 4) {
        __asm__ volatile(
            "1:\n" DOT_2_BY_2_STEP DOT_2_BY_2_STEP DOT_2_BY_2_STEP DOT_2_BY_2_STEP
            "ldr %[x], %[end]\n"
            "cmp %[w0], %[x]\n"
            "bne 1b\n"
            : [w0] "+r"(*w0), [w1] "+r"(*w1), [c] "+r"(*columns), [s0] "+r"(*s0), [s1] "+r"(*s1), [s2] "+r"(*s2),
              [s3] "+r"(*s3), [x] "=&r"(x), [y] "=&r"(y), [e0] "=&r"(even0), [o0] "=&r"(odd0), [e1] "=&r"(even1),
              [o1] "=&r"(odd1)
            : [end] "m"(end)
            : "cc", "memory"
        );
    }
    for (words %= 4; words > 0; --words) {
        __asm__ volatile(
            DOT_2_BY_2_STEP
            : [w0] "+r"(*w0), [w1] "+r"(*w1), [c] "+r"(*columns), [s0] "+r"(*s0), [s1] "+r"(*s1), [s2] "+r"(*s2),
              [s3] "+r"(*s3), [x] "=&r"(x), [y] "=&r"(y), [e0] "=&r"(even0), [o0] "=&r"(odd0), [e1] "=&r"(even1),
              [o1] "=&r"(odd1)
            :
            : "memory"
        );
    }
}

static inline int32_t add_low_product(int32_t sum, uint32_t a, uint32_t b) {
    __asm__("smlabb %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}

static inline int32_t add_high_product(int32_t sum, uint32_t a, uint32_t b) {
    __asm__("smlatt %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}
#endif

#if !defined(USE_MVE)
static inline void copy_bytes(int8_t *to, const int8_t *from, int32_t count) {
    memcpy(to, from, (size_t)count);
}
#endif

/* Keeps the registers of an inner loop its own. */
#if defined(__GNUC__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE
#endif
