/* Bilinear interpolation; fractions have `bits` bits. */
typedef struct {
    int32_t in_w, channels, out_h, out_w, bits, is_upward;
    const int32_t *top, *bottom, *y_fraction, *left, *right, *x_fraction;
} resize_bilinear_s8_t;

static void resize_bilinear_s8(const resize_bilinear_s8_t *p, const int8_t *in, int8_t *out, void *scratch) {
    const int32_t half = 1 << (2 * p->bits - 1);
    (void)scratch;
    for (int32_t y = 0; y < p->out_h; ++y) {
        const int8_t *upper = in + p->top[y] * p->in_w * p->channels;
        const int8_t *lower = in + p->bottom[y] * p->in_w * p->channels;
        for (int32_t x = 0; x < p->out_w; ++x) {
            const int32_t left = p->left[x] * p->channels;
            const int32_t right = p->right[x] * p->channels;
            for (int32_t c = 0; c < p->channels; ++c) {
                const int32_t a = upper[left + c] * (1 << p->bits) + (upper[right + c] - upper[left + c]) * p->x_fraction[x];
                const int32_t b = lower[left + c] * (1 << p->bits) + (lower[right + c] - lower[left + c]) * p->x_fraction[x];
                const int32_t sum = a * (1 << p->bits) + (b - a) * p->y_fraction[y];
                /* Halves upward, or away from zero. */
                *out++ = (int8_t)(p->is_upward ? (sum + half) >> (2 * p->bits)
                                               : (sum > 0 ? sum + half : sum - half) / (2 * half));
            }
        }
    }
}
