/* Mean over the middle of [outer, count, inner]. */
typedef struct {
    int32_t outer, count, inner;
} mean_f32_t;

static void mean_f32(const mean_f32_t *p, const float *in, float *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->outer; ++i, in += p->count * p->inner, out += p->inner) {
        for (int32_t c = 0; c < p->inner; ++c) {
            float sum = 0.0f;
            for (int32_t k = 0; k < p->count; ++k) {
                sum += in[k * p->inner + c];
            }
            out[c] = sum / (float)p->count;
        }
    }
}
