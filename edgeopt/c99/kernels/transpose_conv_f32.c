/* needs: clamp */
/* Transposed convolution with weights [out_c, filter_h, filter_w, in_c]: every output gathers what reaches it. */
typedef struct {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t filter_h, filter_w, stride_h, stride_w, pad_h, pad_w;
    float low, high;
    const float *weights;
    const float *bias;
} transpose_conv_f32_t;

static void transpose_conv_f32(const transpose_conv_f32_t *p, const float *in, float *out, void *scratch) {
    (void)scratch;
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox) {
            const float *weights = p->weights;
            for (int32_t o = 0; o < p->out_c; ++o) {
                float sum = p->bias[o];
                for (int32_t fy = 0; fy < p->filter_h; ++fy) {
                    const int32_t y = oy + p->pad_h - fy;
                    for (int32_t fx = 0; fx < p->filter_w; ++fx, weights += p->in_c) {
                        const int32_t x = ox + p->pad_w - fx;
                        if (y < 0 || y % p->stride_h || y / p->stride_h >= p->in_h || x < 0 || x % p->stride_w ||
                            x / p->stride_w >= p->in_w) {
                            continue;
                        }
                        const float *from = in + (y / p->stride_h * p->in_w + x / p->stride_w) * p->in_c;
                        for (int32_t c = 0; c < p->in_c; ++c) {
                            sum += from[c] * weights[c];
                        }
                    }
                }
                *out++ = clamp_float(sum, p->low, p->high);
            }
        }
    }
}
