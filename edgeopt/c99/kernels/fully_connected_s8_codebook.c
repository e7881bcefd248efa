/* needs: fully_connected_s8_parts packed */
/* The same with weights of 2 or 4 bits that are looked up. The scratch holds a row of the input, filled with zeros to the
   end of 16 bytes of indices; where all units have one codebook two of them, and a table behind. */
typedef struct {
    fully_connected_s8_t dense;
    packed_t weights;
    int32_t filled;
} fully_connected_s8_codebook_t;

#if defined(USE_MVE)
/* The indices of a field of both rows, looked up, times four taps a word of x, whose addresses the first field moves on. */
#define CODEBOOK_FIELD(place, ahead, shift) \
    "vldrw.u32 %q[x], [%q[a], #" ahead "\n" \
    INDEX_##place("u", shift) "vldrb.u8 %q[j], [%[t0], %q[i]]\n vmlava.s8 %[s0], %q[j], %q[x]\n" \
    INDEX_##place("v", shift) "vldrb.u8 %q[j], [%[t1], %q[i]]\n vmlava.s8 %[s1], %q[j], %q[x]\n"
#define CODEBOOK_FIELDS_4 CODEBOOK_FIELD(FIRST, "32]!", "0") CODEBOOK_FIELD(LAST, "4]", "4")
#define CODEBOOK_FIELDS_2 \
    CODEBOOK_FIELD(FIRST, "64]!", "0") CODEBOOK_FIELD(NEXT, "4]", "2") CODEBOOK_FIELD(NEXT, "8]", "4") \
    CODEBOOK_FIELD(LAST, "12]", "6")
#define CODEBOOK_ASM(text, ...) \
    __asm__ volatile( \
        text \
        : [s0] "+&Te"(s0), [s1] "+&Te"(s1), [a] "+&w"(from), [x] "=&w"(taps), [i] "=&w"(i), [j] "=&w"(j), __VA_ARGS__ \
          [m] "w"(mask), [t0] "r"(t0), [t1] "r"(t1) \
        : "lr", "cc", "memory" \
    );
#define CODEBOOK_LOOP(bits) \
    const uint8x16_t mask = vdupq_n_u8((1 << bits) - 1); \
    uint32x4_t from = vaddq_n_u32(vmulq_n_u32(vidupq_n_u32(0, 1), 32 / bits), (uint32_t)x - 128 / bits); \
    uint8x16_t u, v; \
    int8x16_t taps, i, j; \
    if (bytes >= 16) { \
        CODEBOOK_ASM( \
            "dls lr, %[left]\n" \
            "1:\n" \
            "vldrb.u8 %q[u], [%[w0]], #16\n" \
            "vldrb.u8 %q[v], [%[w1]], #16\n" CODEBOOK_FIELDS_##bits \
            "le lr, 1b\n", \
            [u] "=&w"(u), [v] "=&w"(v), [w0] "+&r"(w0), [w1] "+&r"(w1) : [left] "r"(bytes / 16), \
        ) \
    } \
    if (bytes % 16) { \
        const mve_pred16_t some = vctp8q((uint32_t)bytes % 16); \
        u = vldrbq_z_u8(w0, some); \
        v = vldrbq_z_u8(w1, some); \
        CODEBOOK_ASM(CODEBOOK_FIELDS_##bits, [u] "+&w"(u), [v] "+&w"(v) :) \
    }
#else
#define CODEBOOK_TAP(bits, k) \
    s0 += x[k] * t0[u >> (k) * 8 & ((1u << bits) - 1u)]; \
    s1 += x[k] * t1[v >> (k) * 8 & ((1u << bits) - 1u)];
#define CODEBOOK_LOOP(bits) \
    for (; bytes > 0; bytes -= 4, w0 += 4, w1 += 4) { \
        uint32_t u = load_indices(w0), v = load_indices(w1); \
        for (int32_t f = 0; f < 8 / bits; ++f, x += 4, u >>= bits, v >>= bits) { \
            CODEBOOK_TAP(bits, 0) CODEBOOK_TAP(bits, 1) CODEBOOK_TAP(bits, 2) CODEBOOK_TAP(bits, 3) \
        } \
    }
#endif
/* Two rows of indices into codebooks times one of the input. */
#define CODEBOOK_DOT(bits) \
    static inline void codebook_dot_##bits( \
        const uint8_t *w0, const uint8_t *w1, int32_t bytes, const int8_t *t0, const int8_t *t1, const int8_t *x, \
        int32_t sums[2] \
    ) { \
        int32_t s0 = sums[0], s1 = sums[1]; \
        CODEBOOK_LOOP(bits) \
        sums[0] = s0; \
        sums[1] = s1; \
    }
CODEBOOK_DOT(4)
CODEBOOK_DOT(2)

#if defined(USE_DSP)
/* Where all units have one codebook, a half of a byte or a byte of indices stands for two taps, four apart, and a table
   holds what the codebook says of both as two int16. */
static inline void pairs_table(int32_t count, const int8_t *codebook, uint32_t *table) {
    for (int32_t high = 0; high < count; ++high) {
        const uint32_t upper = (uint32_t)codebook[high] << 16;
        for (int32_t low = 0; low < count; ++low) {
            *table++ = (uint16_t)codebook[low] | upper;
        }
    }
}

/* A row of the input as such pairs, in the order of the indices. */
static inline void pairs_of(const int8_t *in, int32_t depth, int32_t word_taps, uint32_t *pairs) {
    for (int32_t word = 0; word < depth; word += word_taps) {
        for (int32_t k = word; k < word + 4; ++k) {
            for (int32_t tap = k; tap < k + word_taps; tap += 8) {
                const int32_t low = tap < depth ? in[tap] : 0, high = tap + 4 < depth ? in[tap + 4] : 0;
                *pairs++ = (uint16_t)low | (uint32_t)high << 16;
            }
        }
    }
}

/* Two bytes of indices of both rows. */
#define PAIRS_STEP_4 \
    "ldrd %[x], %[y], [%[p]], #8\n" PAIRS_BYTE_4("w0", "s0", "x") PAIRS_BYTE_4("w1", "s1", "x") \
    PAIRS_BYTE_4("w0", "s0", "y") PAIRS_BYTE_4("w1", "s1", "y")
#define PAIRS_BYTE_4(w, s, x) \
    "ldrb %[u], [%[" w "]], #1\n ldr %[u], [%[t], %[u], lsl #2]\n smlad %[" s "], %[u], %[" x "], %[" s "]\n"
#define PAIRS_STEP_2 PAIRS_BYTES_2 PAIRS_BYTES_2
#define PAIRS_BYTES_2 "ldrd %[x], %[y], [%[p]], #8\n" PAIRS_BYTE_2("w0", "s0") PAIRS_BYTE_2("w1", "s1")
#define PAIRS_BYTE_2(w, s) \
    "ldrb %[u], [%[" w "]], #1\n and %[v], %[u], #15\n ldr %[v], [%[t], %[v], lsl #2]\n" \
    "smlad %[" s "], %[v], %[x], %[" s "]\n lsr %[u], %[u], #4\n ldr %[u], [%[t], %[u], lsl #2]\n" \
    "smlad %[" s "], %[u], %[y], %[" s "]\n"
#define PAIRS_DOT(bits) \
    static inline void pairs_dot_##bits( \
        const uint8_t *w0, const uint8_t *w1, int32_t bytes, const uint32_t *table, const uint32_t *pairs, \
        int32_t sums[2] \
    ) { \
        int32_t s0 = sums[0], s1 = sums[1]; \
        uint32_t x, y, u, v; \
        __asm__ volatile( \
            "1:\n" PAIRS_STEP_##bits PAIRS_STEP_##bits \
            "cmp %[w0], %[end]\n" \
            "bne 1b\n" \
            : [w0] "+&r"(w0), [w1] "+&r"(w1), [p] "+&r"(pairs), [s0] "+&r"(s0), [s1] "+&r"(s1), [x] "=&r"(x), \
              [y] "=&r"(y), [u] "=&r"(u), [v] "=&r"(v) \
            : [t] "r"(table), [end] "r"(w0 + bytes) \
            : "cc", "memory" \
        ); \
        sums[0] = s0; \
        sums[1] = s1; \
    }
PAIRS_DOT(4)
PAIRS_DOT(2)
#endif

static void fully_connected_s8_codebook(
    const fully_connected_s8_codebook_t *p, const int8_t *in, int8_t *out, void *scratch
) {
    const fully_connected_s8_t *d = &p->dense;
    const int32_t bits = p->weights.bits, row_bytes = p->weights.row_bytes, table_step = p->weights.table_step;
    int8_t *x = (int8_t *)scratch;
#if defined(USE_DSP)
    uint32_t *pairs = (uint32_t *)scratch, *table = pairs + p->filled / 2;
    if (table_step == 0) {
        pairs_table(1 << bits, p->weights.tables, table);
    }
#endif
    for (int32_t row = 0; row < d->rows; ++row, in += d->depth, out += d->units) {
        const int32_t shared = fully_connected_s8_shared(d, in);
#if defined(USE_DSP)
        if (table_step == 0) {
            pairs_of(in, d->depth, 32 / bits, pairs);
        } else
#endif
        {
            copy_bytes(x, in, d->depth);
            memset(x + d->depth, 0, (size_t)(p->filled - d->depth));
        }
        for (int32_t o = 0; o < d->units; o += 2) {
            const int32_t next = o + 1 < d->units ? 1 : 0;
            const uint8_t *w[2] = {p->weights.indices + o * row_bytes, p->weights.indices + (o + next) * row_bytes};
            const int8_t *t[2] = {p->weights.tables + o * table_step, p->weights.tables + (o + next) * table_step};
            int32_t sums[2] = {d->bias[o] - shared, d->bias[o + next] - shared};
#if defined(USE_DSP)
            if (table_step == 0 && bits == 4) {
                pairs_dot_4(w[0], w[1], row_bytes, table, pairs, sums);
            } else if (table_step == 0) {
                pairs_dot_2(w[0], w[1], row_bytes, table, pairs, sums);
            } else
#endif
            if (bits == 4) {
                codebook_dot_4(w[0], w[1], row_bytes, t[0], t[1], x, sums);
            } else {
                codebook_dot_2(w[0], w[1], row_bytes, t[0], t[1], x, sums);
            }
            out[o] = requantize(&d->scales, o, sums[0], d->out_zero, d->low, d->high);
            out[o + next] = requantize(&d->scales, o + next, sums[next], d->out_zero, d->low, d->high);
        }
    }
}
