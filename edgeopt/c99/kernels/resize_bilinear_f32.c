/* Bilinear interpolation. */
typedef struct {
    int32_t in_w, channels, out_h, out_w;
    const int32_t *top, *bottom, *left, *right;
    const float *y_fraction, *x_fraction;
} resize_bilinear_f32_t;

static void resize_bilinear_f32(const resize_bilinear_f32_t *p, const float *in, float *out, void *scratch) {
    (void)scratch;
    for (int32_t y = 0; y < p->out_h; ++y) {
        const float *upper = in + p->top[y] * p->in_w * p->channels;
        const float *lower = in + p->bottom[y] * p->in_w * p->channels;
        for (int32_t x = 0; x < p->out_w; ++x) {
            const int32_t left = p->left[x] * p->channels;
            const int32_t right = p->right[x] * p->channels;
            for (int32_t c = 0; c < p->channels; ++c) {
                const float a = upper[left + c] + (upper[right + c] - upper[left + c]) * p->x_fraction[x];
                const float b = lower[left + c] + (lower[right + c] - lower[left + c]) * p->x_fraction[x];
                *out++ = a + (b - a) * p->y_fraction[y];
            }
        }
    }
}
