/* needs: conv_2d_s8_columns */
/* Two output channels of two pixels: sums[0] and [1] of the first pixel, [2] and [3] of the second. */
static inline void conv_2d_s8_dot_2(
    const int8_t *w0, const int8_t *w1, const COLUMN *a, const COLUMN *b, int32_t depth, int32_t sums[4]
) {
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
#if defined(USE_DSP)
    dot_2_by_2_turns(&w0, &w1, &a, depth / 4, &s0, &s1, &s2, &s3);
    depth %= 4;
    b = a + 2;
#elif defined(USE_MVE)
    dot_2_by_2(w0, w1, a, b, depth, &s0, &s1, &s2, &s3);
    depth = 0;
#endif
    for (int32_t i = 0; i < depth; ++i) {
        s0 += w0[i] * a[TAP(i)];
        s1 += w1[i] * a[TAP(i)];
        s2 += w0[i] * b[TAP(i)];
        s3 += w1[i] * b[TAP(i)];
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

static inline void conv_2d_s8_dot_1(
    const int8_t *w0, const int8_t *w1, const COLUMN *a, int32_t depth, int32_t sums[2]
) {
    int32_t s0 = sums[0], s1 = sums[1];
#if defined(USE_DSP)
    for (; depth >= 4; depth -= 4, w0 += 4, w1 += 4, a += PIECE) {
        const uint32_t word0 = load_word(w0), word1 = load_word(w1);
        const uint32_t even = load_word(a), odd = load_word(a + PAIR);
        s0 = add_products(s0, even_bytes(word0), even);
        s1 = add_products(s1, even_bytes(word1), even);
        s0 = add_products(s0, odd_bytes(word0), odd);
        s1 = add_products(s1, odd_bytes(word1), odd);
    }
#elif defined(USE_MVE)
    dot_2_by_1(w0, w1, a, depth, &s0, &s1);
    depth = 0;
#endif
    for (int32_t i = 0; i < depth; ++i) {
        s0 += w0[i] * a[TAP(i)];
        s1 += w1[i] * a[TAP(i)];
    }
    sums[0] = s0;
    sums[1] = s1;
}

/* The output channels from `begin` to `end` of one pixel, or of two where `b` is given; `weights` are theirs. */
static NOINLINE void conv_2d_s8_pixels(
    const conv_2d_s8_t *p, const int8_t *weights, int32_t begin, int32_t end, const COLUMN *a, const COLUMN *b, int8_t *to
) {
    const int32_t depth = p->filter_h * p->filter_w * p->in_c;
#if defined(USE_MVE)
    for (int32_t o = begin; o < end; o += 4) {
        const int32_t count = end - o < 4 ? end - o : 4;
        int32_t first[4], second[4];
        for (int32_t i = 0; i < count; i += 2, weights += 2 * depth) {
            const int32_t next = i + 1 < count ? 1 : 0;
            int32_t sums[4] = {p->bias[o + i], p->bias[o + i + next], p->bias[o + i], p->bias[o + i + next]};
            if (b) {
                conv_2d_s8_dot_2(weights, weights + next * depth, a, b, depth, sums);
            } else {
                conv_2d_s8_dot_1(weights, weights + next * depth, a, depth, sums);
            }
            first[i] = sums[0];
            first[i + next] = sums[next];
            second[i] = sums[2];
            second[i + next] = sums[2 + next];
        }
        requantize_channels(&p->scales, o, first, count, p->out_zero, p->low, p->high, to + o);
        if (b) {
            requantize_channels(&p->scales, o, second, count, p->out_zero, p->low, p->high, to + p->out_c + o);
        }
    }
#else
    for (int32_t o = begin; o < end; o += 2, weights += 2 * depth) {
        const int32_t next = o + 1 < end ? 1 : 0;
        int32_t sums[4] = {p->bias[o], p->bias[o + next], p->bias[o], p->bias[o + next]};
        if (b) {
            int8_t *beside = to + p->out_c;
            conv_2d_s8_dot_2(weights, weights + next * depth, a, b, depth, sums);
            beside[o] = requantize(&p->scales, o, sums[2], p->out_zero, p->low, p->high);
            beside[o + next] = requantize(&p->scales, o + next, sums[2 + next], p->out_zero, p->low, p->high);
        } else {
            conv_2d_s8_dot_1(weights, weights + next * depth, a, depth, sums);
        }
        to[o] = requantize(&p->scales, o, sums[0], p->out_zero, p->low, p->high);
        to[o + next] = requantize(&p->scales, o + next, sums[next], p->out_zero, p->low, p->high);
    }
#endif
}

/* The output channels from `begin` to `end` of row `oy`. */
static void conv_2d_s8_row(
    const conv_2d_s8_t *p, const int8_t *weights, int32_t begin, int32_t end, int32_t oy, const int8_t *in, int8_t *out,
    void *scratch
) {
    int8_t *to = out + oy * p->out_w * p->out_c;
    for (int32_t ox = 0; ox < p->out_w; ox += 2, to += 2 * p->out_c) {
        const COLUMN *a = conv_2d_s8_column(p, in, oy, ox, scratch, 0);
        const COLUMN *b = ox + 1 < p->out_w ? conv_2d_s8_column(p, in, oy, ox + 1, scratch, 1) : NULL;
        conv_2d_s8_pixels(p, weights, begin, end, a, b, to);
    }
}
