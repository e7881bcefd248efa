/* needs: clamp */
/* Rows [rows, depth] times weights [units, depth]. */
typedef struct {
    int32_t rows, depth, units;
    float low, high;
    const float *weights;
    const float *bias;
} fully_connected_f32_t;

static void fully_connected_f32(const fully_connected_f32_t *p, const float *in, float *out, void *scratch) {
    (void)scratch;
    for (int32_t row = 0; row < p->rows; ++row, in += p->depth) {
        const float *weights = p->weights;
        for (int32_t o = 0; o < p->units; ++o, weights += p->depth) {
            float sum = 0.0f;
            for (int32_t i = 0; i < p->depth; ++i) {
                sum += in[i] * weights[i];
            }
            *out++ = clamp_float(sum + p->bias[o], p->low, p->high);
        }
    }
}
