/* Softmax over rows. */
typedef struct {
    int32_t rows, depth;
    float beta;
} softmax_f32_t;

static void softmax_f32(const softmax_f32_t *p, const float *in, float *out, void *scratch) {
    (void)scratch;
    for (int32_t row = 0; row < p->rows; ++row, in += p->depth, out += p->depth) {
        float most = in[0];
        for (int32_t c = 1; c < p->depth; ++c) {
            most = in[c] > most ? in[c] : most;
        }
        float sum = 0.0f;
        for (int32_t c = 0; c < p->depth; ++c) {
            out[c] = expf((in[c] - most) * p->beta);
            sum += out[c];
        }
        for (int32_t c = 0; c < p->depth; ++c) {
            out[c] /= sum;
        }
    }
}
