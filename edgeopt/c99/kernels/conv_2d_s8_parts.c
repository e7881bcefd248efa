/* needs: simd requantize */
/* The parts of convolutions with weights [out_c, filter_h, filter_w, in_c]. What a filter sees of one or two output pixels is laid
   out as columns, then multiplied with every output channel. Outside of the image stands the input's zero point, and
   `bias` already holds -in_zero * sum of the weights. */
typedef struct {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t filter_h, filter_w, stride_h, stride_w, dilation_h, dilation_w, pad_h, pad_w;
    int32_t in_zero, out_zero, low, high, backward;
    const int8_t *weights;
    const int32_t *bias;
    scales_t scales;
} conv_2d_s8_t;

static void conv_2d_s8_bytes(const conv_2d_s8_t *p, const int8_t *in, int32_t oy, int32_t ox, int8_t *column) {
    const int32_t y0 = oy * p->stride_h - p->pad_h;
    const int32_t x0 = ox * p->stride_w - p->pad_w;
    for (int32_t fy = 0; fy < p->filter_h; ++fy) {
        const int32_t y = y0 + fy * p->dilation_h;
        const int8_t *row = in + y * p->in_w * p->in_c;
        if (y < 0 || y >= p->in_h) {
            memset(column, p->in_zero, (size_t)(p->filter_w * p->in_c));
            column += p->filter_w * p->in_c;
        } else if (p->dilation_w == 1 && x0 >= 0 && x0 + p->filter_w <= p->in_w) {
            copy_bytes(column, row + x0 * p->in_c, p->filter_w * p->in_c);
            column += p->filter_w * p->in_c;
        } else {
            for (int32_t fx = 0; fx < p->filter_w; ++fx, column += p->in_c) {
                const int32_t x = x0 + fx * p->dilation_w;
                if (x < 0 || x >= p->in_w) {
                    memset(column, p->in_zero, (size_t)p->in_c);
                } else {
                    copy_bytes(column, row + x * p->in_c, p->in_c);
                }
            }
        }
    }
}

#if defined(USE_DSP)
#define COLUMN int16_t
/* Two columns take turns in pieces of four int16, so that one pointer walks through both. */
#define PIECE 8

/* Four bytes become the int16 0, 2, 1, 3, the order in which even_bytes and odd_bytes take weights apart. */
static inline int16_t *conv_2d_s8_widen(const int8_t *from, int32_t count, int16_t *to) {
    for (; count >= 4; count -= 4, from += 4, to += PIECE) {
        const uint32_t word = load_word(from);
        store_pair(to, even_bytes(word), odd_bytes(word));
    }
    for (; count > 0; --count) {
        *to++ = *from++;
    }
    return to;
}

static inline int16_t *conv_2d_s8_fill(int32_t zero, int32_t count, int16_t *to) {
    const uint32_t pair = ((uint32_t)zero & 0xFFFFu) | (uint32_t)zero << 16;
    for (; count > 0; count -= 4, to += PIECE) {
        store_pair(to, pair, pair);
    }
    return to;
}

/* Only where in_c is a multiple of 4: every run then starts at a multiple of 4. */
static void conv_2d_s8_words(const conv_2d_s8_t *p, const int8_t *in, int32_t oy, int32_t ox, int16_t *column) {
    const int32_t y0 = oy * p->stride_h - p->pad_h;
    const int32_t x0 = ox * p->stride_w - p->pad_w;
    const int32_t width = p->filter_w * p->in_c;
    for (int32_t fy = 0; fy < p->filter_h; ++fy) {
        const int32_t y = y0 + fy * p->dilation_h;
        const int8_t *row = in + y * p->in_w * p->in_c;
        if (y < 0 || y >= p->in_h) {
            column = conv_2d_s8_fill(p->in_zero, width, column);
        } else if (p->dilation_w == 1 && x0 >= 0 && x0 + p->filter_w <= p->in_w) {
            column = conv_2d_s8_widen(row + x0 * p->in_c, width, column);
        } else {
            for (int32_t fx = 0; fx < p->filter_w; ++fx) {
                const int32_t x = x0 + fx * p->dilation_w;
                if (x < 0 || x >= p->in_w) {
                    column = conv_2d_s8_fill(p->in_zero, p->in_c, column);
                } else {
                    column = conv_2d_s8_widen(row + x * p->in_c, p->in_c, column);
                }
            }
        }
    }
}

static const int16_t *conv_2d_s8_column(
    const conv_2d_s8_t *p, const int8_t *in, int32_t oy, int32_t ox, void *scratch, int32_t index
) {
    const int32_t depth = p->filter_h * p->filter_w * p->in_c;
    int16_t *column = (int16_t *)scratch + index * 4;
    if (p->in_c % 4 == 0) {
        conv_2d_s8_words(p, in, oy, ox, column);
    } else {
        int8_t *bytes = (int8_t *)((int16_t *)scratch + 2 * ((depth + 3) & ~3));
        conv_2d_s8_bytes(p, in, oy, ox, bytes);
        conv_2d_s8_widen(bytes, depth, column);
    }
    return column;
}
#else
#define COLUMN int8_t

static const int8_t *conv_2d_s8_column(
    const conv_2d_s8_t *p, const int8_t *in, int32_t oy, int32_t ox, void *scratch, int32_t index
) {
    const int32_t depth = p->filter_h * p->filter_w * p->in_c;
    int8_t *column = (int8_t *)scratch + index * depth;
    if (p->filter_h * p->filter_w == 1 && p->pad_h + p->pad_w == 0) {
        return in + (oy * p->stride_h * p->in_w + ox * p->stride_w) * p->in_c;
    }
    conv_2d_s8_bytes(p, in, oy, ox, column);
    return column;
}
#endif

/* Two output channels of two pixels: sums[0] and [1] of the first pixel, [2] and [3] of the second. */
static inline void conv_2d_s8_dot_2(
    const int8_t *w0, const int8_t *w1, const COLUMN *a, const COLUMN *b, int32_t depth, int32_t sums[4]
) {
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
#if defined(USE_DSP)
    dot_2_by_2_turns(&w0, &w1, &a, depth / 4, &s0, &s1, &s2, &s3);
    depth %= 4;
    b = a + 4;
#elif defined(USE_MVE)
    dot_2_by_2(w0, w1, a, b, depth, &s0, &s1, &s2, &s3);
    depth = 0;
#endif
    for (int32_t i = 0; i < depth; ++i) {
        s0 += w0[i] * a[i];
        s1 += w1[i] * a[i];
        s2 += w0[i] * b[i];
        s3 += w1[i] * b[i];
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
        const uint32_t even = load_word(a), odd = load_word(a + 2);
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
        s0 += w0[i] * a[i];
        s1 += w1[i] * a[i];
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
