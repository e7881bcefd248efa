/* needs: simd requantize */
/* Convolutions with weights [out_c, filter_h, filter_w, in_c]: what a filter sees of one or two output pixels is laid out
   as columns, then multiplied with every output channel. Outside of the image stands the input's zero point, and `bias`
   already holds -in_zero * sum of the weights. `copies`: no column is read where it stands in the input. */
typedef struct {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t filter_h, filter_w, stride_h, stride_w, dilation_h, dilation_w, pad_h, pad_w;
    int32_t in_zero, out_zero, low, high, copies, backward;
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
/* Pairs of two columns take turns, so that one pointer walks through both: four taps of each are a piece. */
#define PIECE 8
#define PAIR 4
/* Where tap `i` of a piece stands. */
#define TAP(i) ((i) % 2 * PAIR + (i) / 2)

/* Four bytes become the pairs 0, 2 and 1, 3, in which even_bytes and odd_bytes take weights apart. */
static inline int16_t *conv_2d_s8_widen(const int8_t *from, int32_t count, int16_t *to) {
    for (; count > 0; count -= 4, from += 4, to += PIECE) {
        const uint32_t word = load_word(from);
        store_word(to, even_bytes(word));
        store_word(to + PAIR, odd_bytes(word));
    }
    return to;
}

static inline int16_t *conv_2d_s8_fill(int32_t zero, int32_t count, int16_t *to) {
    const uint32_t pair = ((uint32_t)zero & 0xFFFFu) | (uint32_t)zero << 16;
    for (; count > 0; count -= 4, to += PIECE) {
        store_word(to, pair);
        store_word(to + PAIR, pair);
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
    int16_t *column = (int16_t *)scratch + index * 2;
    if (p->in_c % 4 == 0) {
        conv_2d_s8_words(p, in, oy, ox, column);
    } else {
        int8_t *bytes = (int8_t *)((int16_t *)scratch + 2 * ((depth + 3) & ~3));
        memset(bytes + depth, 0, (size_t)(-depth & 3));
        conv_2d_s8_bytes(p, in, oy, ox, bytes);
        conv_2d_s8_widen(bytes, depth, column);
    }
    return column;
}
#else
#define COLUMN int8_t
#define TAP(i) (i)

static const int8_t *conv_2d_s8_column(
    const conv_2d_s8_t *p, const int8_t *in, int32_t oy, int32_t ox, void *scratch, int32_t index
) {
    const int32_t depth = p->filter_h * p->filter_w * p->in_c;
    int8_t *column = (int8_t *)scratch + index * ((depth + 3) & ~3);
    if (p->filter_h * p->filter_w == 1 && p->pad_h + p->pad_w == 0 && !p->copies) {
        return in + (oy * p->stride_h * p->in_w + ox * p->stride_w) * p->in_c;
    }
    conv_2d_s8_bytes(p, in, oy, ox, column);
    return column;
}
#endif
