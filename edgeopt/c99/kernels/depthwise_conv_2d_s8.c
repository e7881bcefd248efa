/* needs: simd requantize */
/* Depthwise convolution with weights [filter_h, filter_w, out_c], out_c = in_c * multiplier. Rows are written in
   order, last one first if `backward`. */
typedef struct {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t filter_h, filter_w, stride_h, stride_w, dilation_h, dilation_w, pad_h, pad_w;
    int32_t in_zero, out_zero, low, high, backward;
    const int8_t *weights;
    const int32_t *bias;
    scales_t scales;
} depthwise_conv_2d_s8_t;

/* The first filter tap inside the image, and the one after the last. */
static inline int32_t depthwise_conv_2d_s8_first(int32_t start, int32_t dilation) {
    return start < 0 ? (dilation - 1 - start) / dilation : 0;
}

static inline int32_t depthwise_conv_2d_s8_end(int32_t start, int32_t dilation, int32_t taps, int32_t size) {
    const int32_t inside = start < size ? (size - start + dilation - 1) / dilation : 0;
    return inside < taps ? inside : taps;
}

static void depthwise_conv_2d_s8(const depthwise_conv_2d_s8_t *p, const int8_t *in, int8_t *out, void *scratch) {
    const int32_t step = p->dilation_w * p->in_c;
    const int32_t multiplier = p->out_c / p->in_c;
#if defined(USE_DSP)
    const uint32_t offsets = ((uint32_t)-p->in_zero & 0xFFFFu) | (uint32_t)-p->in_zero << 16;
#endif
    (void)scratch;
    for (int32_t row = 0; row < p->out_h; ++row) {
        const int32_t oy = p->backward ? p->out_h - 1 - row : row;
        const int32_t y0 = oy * p->stride_h - p->pad_h;
        const int32_t top = depthwise_conv_2d_s8_first(y0, p->dilation_h);
        const int32_t bottom = depthwise_conv_2d_s8_end(y0, p->dilation_h, p->filter_h, p->in_h);
        int8_t *to = out + oy * p->out_w * p->out_c;
        for (int32_t ox = 0; ox < p->out_w; ++ox, to += p->out_c) {
            const int32_t x0 = ox * p->stride_w - p->pad_w;
            const int32_t left = depthwise_conv_2d_s8_first(x0, p->dilation_w);
            const int32_t right = depthwise_conv_2d_s8_end(x0, p->dilation_w, p->filter_w, p->in_w);
            const int8_t *origin = in + ((y0 + top * p->dilation_h) * p->in_w + x0 + left * p->dilation_w) * p->in_c;
            const int8_t *taps = p->weights + (top * p->filter_w + left) * p->out_c;
            int32_t c = 0;
#if defined(USE_MVE)
            for (; multiplier == 1 && c + 8 <= p->out_c; c += 8) {
                int32x4x2_t sums = vld2q_s32(p->bias + c);
                int32_t results[8];
                const int8_t *from_row = origin + c;
                const int8_t *weight_row = taps + c;
                for (int32_t fy = top; fy < bottom; ++fy) {
                    const int8_t *x = from_row;
                    const int8_t *w = weight_row;
                    for (int32_t fx = left; fx < right; ++fx, x += step, w += p->out_c) {
                        const int16x8_t xs = vsubq_n_s16(vldrbq_s16(x), (int16_t)p->in_zero), ws = vldrbq_s16(w);
                        sums.val[0] = vaddq_s32(sums.val[0], vmullbq_int_s16(xs, ws));
                        sums.val[1] = vaddq_s32(sums.val[1], vmulltq_int_s16(xs, ws));
                    }
                    from_row += p->dilation_h * p->in_w * p->in_c;
                    weight_row += p->filter_w * p->out_c;
                }
                vst2q_s32(results, sums);
                requantize_channels(&p->scales, c, results, 8, p->out_zero, p->low, p->high, to + c);
            }
#endif
            for (; multiplier == 1 && c + 4 <= p->out_c; c += 4) {
                int32_t s0 = p->bias[c], s1 = p->bias[c + 1], s2 = p->bias[c + 2], s3 = p->bias[c + 3];
                const int8_t *from_row = origin + c;
                const int8_t *weight_row = taps + c;
                for (int32_t fy = top; fy < bottom; ++fy) {
                    const int8_t *x = from_row;
                    const int8_t *w = weight_row;
                    for (int32_t fx = left; fx < right; ++fx, x += step, w += p->out_c) {
#if defined(USE_DSP)
                        const uint32_t xs = load_word(x), ws = load_word(w);
                        const uint32_t even = even_bytes_plus(offsets, xs), odd = odd_bytes_plus(offsets, xs);
                        const uint32_t even_w = even_bytes(ws), odd_w = odd_bytes(ws);
                        s0 = add_low_product(s0, even, even_w);
                        s1 = add_low_product(s1, odd, odd_w);
                        s2 = add_high_product(s2, even, even_w);
                        s3 = add_high_product(s3, odd, odd_w);
#else
                        s0 += (x[0] - p->in_zero) * w[0];
                        s1 += (x[1] - p->in_zero) * w[1];
                        s2 += (x[2] - p->in_zero) * w[2];
                        s3 += (x[3] - p->in_zero) * w[3];
#endif
                    }
                    from_row += p->dilation_h * p->in_w * p->in_c;
                    weight_row += p->filter_w * p->out_c;
                }
                to[c] = requantize(&p->scales, c, s0, p->out_zero, p->low, p->high);
                to[c + 1] = requantize(&p->scales, c + 1, s1, p->out_zero, p->low, p->high);
                to[c + 2] = requantize(&p->scales, c + 2, s2, p->out_zero, p->low, p->high);
                to[c + 3] = requantize(&p->scales, c + 3, s3, p->out_zero, p->low, p->high);
            }
            for (int32_t rest = p->out_c - c; rest > 0; --rest, ++c) {
                int32_t sum = p->bias[c];
                const int8_t *from_row = origin + c / multiplier;
                const int8_t *weight_row = taps + c;
                for (int32_t fy = top; fy < bottom; ++fy) {
                    const int8_t *x = from_row;
                    const int8_t *w = weight_row;
                    for (int32_t fx = left; fx < right; ++fx, x += step, w += p->out_c) {
                        sum += (*x - p->in_zero) * *w;
                    }
                    from_row += p->dilation_h * p->in_w * p->in_c;
                    weight_row += p->filter_w * p->out_c;
                }
                to[c] = requantize(&p->scales, c, sum, p->out_zero, p->low, p->high);
            }
        }
    }
}
