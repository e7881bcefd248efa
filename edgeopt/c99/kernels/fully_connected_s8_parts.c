/* needs: simd requantize */
/* Rows [rows, depth] times weights [units, depth], which have a zero point too; `bias` already holds
   -zero point of the input * sum of (weights - their zero point). */
typedef struct {
    int32_t rows, depth, units;
    int32_t weights_zero, out_zero, low, high;
    const int8_t *weights;
    const int32_t *bias;
    scales_t scales;
} fully_connected_s8_t;

static inline void fully_connected_s8_dot(
    const int8_t *x, const int8_t *w0, const int8_t *w1, int32_t depth, int32_t sums[2]
) {
    int32_t s0 = sums[0], s1 = sums[1];
#if defined(USE_DSP)
    for (; depth >= 4; depth -= 4, x += 4, w0 += 4, w1 += 4) {
        const uint32_t word = load_word(x), word0 = load_word(w0), word1 = load_word(w1);
        const uint32_t even = even_bytes(word), odd = odd_bytes(word);
        s0 = add_products(s0, even, even_bytes(word0));
        s1 = add_products(s1, even, even_bytes(word1));
        s0 = add_products(s0, odd, odd_bytes(word0));
        s1 = add_products(s1, odd, odd_bytes(word1));
    }
#elif defined(USE_MVE)
    dot_2_by_1(w0, w1, x, depth, &s0, &s1);
    depth = 0;
#endif
    for (int32_t i = 0; i < depth; ++i) {
        s0 += x[i] * w0[i];
        s1 += x[i] * w1[i];
    }
    sums[0] = s0;
    sums[1] = s1;
}

/* What the weights' zero point takes from every sum of a row. */
static inline int32_t fully_connected_s8_shared(const fully_connected_s8_t *p, const int8_t *x) {
    int32_t sum = 0;
    for (int32_t i = 0; p->weights_zero != 0 && i < p->depth; ++i) {
        sum += x[i];
    }
    return p->weights_zero * sum;
}
