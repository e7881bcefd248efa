/* needs: clamp */
/* Depthwise convolution with weights [filter_h, filter_w, out_c]; rows in order, last one first if `backward`. */
typedef struct {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t filter_h, filter_w, stride_h, stride_w, dilation_h, dilation_w, pad_h, pad_w, backward;
    float low, high;
    const float *weights;
    const float *bias;
} depthwise_conv_2d_f32_t;

static void depthwise_conv_2d_f32(const depthwise_conv_2d_f32_t *p, const float *in, float *out, void *scratch) {
    const int32_t multiplier = p->out_c / p->in_c;
    (void)scratch;
    for (int32_t row = 0; row < p->out_h; ++row) {
        const int32_t oy = p->backward ? p->out_h - 1 - row : row;
        float *to = out + oy * p->out_w * p->out_c;
        for (int32_t ox = 0; ox < p->out_w; ++ox) {
            for (int32_t o = 0; o < p->out_c; ++o) {
                float sum = p->bias[o];
                for (int32_t fy = 0; fy < p->filter_h; ++fy) {
                    const int32_t y = oy * p->stride_h - p->pad_h + fy * p->dilation_h;
                    if (y < 0 || y >= p->in_h) {
                        continue;
                    }
                    for (int32_t fx = 0; fx < p->filter_w; ++fx) {
                        const int32_t x = ox * p->stride_w - p->pad_w + fx * p->dilation_w;
                        if (x < 0 || x >= p->in_w) {
                            continue;
                        }
                        sum += in[(y * p->in_w + x) * p->in_c + o / multiplier] *
                               p->weights[(fy * p->filter_w + fx) * p->out_c + o];
                    }
                }
                *to++ = clamp_float(sum, p->low, p->high);
            }
        }
    }
}
