/* needs: conv_2d_s8_columns grid_turns */
/* Convolution with weights on a grid. */
typedef struct {
    conv_2d_s8_t conv;
    packed_t weights;
    int32_t backward;
} conv_2d_s8_grid_t;

static inline int32_t conv_2d_s8_grid_total(const COLUMN *column, int32_t depth) {
#if defined(USE_DSP)
    int32_t total = 0;
    for (; depth > 0; depth -= 4, column += PIECE) {
        total = add_products(total, load_word(column), 0x00010001u);
        total = add_products(total, load_word(column + PAIR), 0x00010001u);
    }
    return total;
#else
    return grid_total(column, depth);
#endif
}

/* All output channels of one pixel, or of two where `b` is given. */
static NOINLINE void conv_2d_s8_grid_pixels(
    const conv_2d_s8_grid_t *p, const COLUMN *a, const COLUMN *b, int8_t *to
) {
    const conv_2d_s8_t *c = &p->conv;
    const int32_t depth = c->filter_h * c->filter_w * c->in_c, row_bytes = p->weights.row_bytes;
    const int32_t total_a = conv_2d_s8_grid_total(a, depth), total_b = b ? conv_2d_s8_grid_total(b, depth) : 0;
    const uint8_t *indices = p->weights.indices;
    for (int32_t o = 0; o < c->out_c; o += 4) {
        const int32_t count = c->out_c - o < 4 ? c->out_c - o : 4;
        int32_t first[4], second[4];
        for (int32_t i = 0; i < count; i += 2, indices += 2 * row_bytes) {
            const int32_t next = i + 1 < count ? 1 : 0;
            const uint8_t *beside = indices + next * row_bytes;
            int32_t sums[4];
#if defined(USE_DSP)
            grid_turns(p->weights.bits, indices, beside, a, row_bytes / 4, sums);
#else
            grid_dot(p->weights.bits, indices, beside, a, b ? b : a, 1, row_bytes / 4, sums);
#endif
            first[i] = grid_sum(&p->weights, o + i, c->bias[o + i], total_a, sums[0]);
            first[i + next] = grid_sum(&p->weights, o + i + next, c->bias[o + i + next], total_a, sums[1]);
            second[i] = grid_sum(&p->weights, o + i, c->bias[o + i], total_b, sums[2]);
            second[i + next] = grid_sum(&p->weights, o + i + next, c->bias[o + i + next], total_b, sums[3]);
        }
        requantize_channels(&c->scales, o, first, count, c->out_zero, c->low, c->high, to + o);
        if (b) {
            requantize_channels(&c->scales, o, second, count, c->out_zero, c->low, c->high, to + c->out_c + o);
        }
    }
}

static void conv_2d_s8_grid(const conv_2d_s8_grid_t *p, const int8_t *in, int8_t *out, void *scratch) {
    const conv_2d_s8_t *c = &p->conv;
    for (int32_t row = 0; row < c->out_h; ++row) {
        const int32_t oy = p->backward ? c->out_h - 1 - row : row;
        int8_t *to = out + oy * c->out_w * c->out_c;
        for (int32_t ox = 0; ox < c->out_w; ox += 2, to += 2 * c->out_c) {
            const COLUMN *a = conv_2d_s8_column(c, in, oy, ox, scratch, 0);
            const COLUMN *b = ox + 1 < c->out_w ? conv_2d_s8_column(c, in, oy, ox + 1, scratch, 1) : NULL;
            conv_2d_s8_grid_pixels(p, a, b, to);
        }
    }
}
