/* needs: fixed_point */
/* Softmax over rows of int8 to int8; `exps[d]` is exp of a difference of -d to the row's maximum. */
typedef struct {
    int32_t rows, depth, out_zero;
    float out_scale;
    const float *exps;
} softmax_s8_float_t;

static void softmax_s8_float(const softmax_s8_float_t *p, const int8_t *in, int8_t *out, void *scratch) {
    (void)scratch;
    for (int32_t row = 0; row < p->rows; ++row, in += p->depth, out += p->depth) {
        int32_t most = -128;
        for (int32_t c = 0; c < p->depth; ++c) {
            most = in[c] > most ? in[c] : most;
        }
        float sum = 0.0f;
        for (int32_t c = 0; c < p->depth; ++c) {
            sum += p->exps[most - in[c]];
        }
        const float scale = 1.0f / (sum * p->out_scale);
        for (int32_t c = 0; c < p->depth; ++c) {
            /* Halves away from zero; what is rounded is positive. The fraction is exact, value + 0.5f is not. */
            const float value = p->exps[most - in[c]] * scale;
            const int32_t whole = (int32_t)value;
            const int32_t rounded = whole + (value - (float)whole >= 0.5f);
            out[c] = (int8_t)clamp(rounded + p->out_zero, -128, 127);
        }
    }
}
