/* needs: requantize */
/* Transposed convolution with weights [out_c, filter_h, filter_w, in_c]: every output gathers what reaches it. */
typedef struct {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t filter_h, filter_w, stride_h, stride_w, pad_h, pad_w;
    int32_t in_zero, out_zero, low, high;
    const int8_t *weights;
    const int32_t *bias;
    scales_t scales;
} transpose_conv_s8_t;

static void transpose_conv_s8(const transpose_conv_s8_t *p, const int8_t *in, int8_t *out, void *scratch) {
    (void)scratch;
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox) {
            const int8_t *weights = p->weights;
            for (int32_t o = 0; o < p->out_c; ++o) {
                int32_t sum = p->bias[o];
                for (int32_t fy = 0; fy < p->filter_h; ++fy) {
                    const int32_t y = oy + p->pad_h - fy;
                    for (int32_t fx = 0; fx < p->filter_w; ++fx, weights += p->in_c) {
                        const int32_t x = ox + p->pad_w - fx;
                        if (y < 0 || y % p->stride_h || y / p->stride_h >= p->in_h || x < 0 || x % p->stride_w ||
                            x / p->stride_w >= p->in_w) {
                            continue;
                        }
                        const int8_t *from = in + (y / p->stride_h * p->in_w + x / p->stride_w) * p->in_c;
                        for (int32_t c = 0; c < p->in_c; ++c) {
                            sum += (from[c] - p->in_zero) * weights[c];
                        }
                    }
                }
                *out++ = requantize(&p->scales, o, sum, p->out_zero, p->low, p->high);
            }
        }
    }
}
