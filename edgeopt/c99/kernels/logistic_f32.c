/* 1 / (1 + exp(-x)), element by element. */
typedef struct {
    int32_t count;
} logistic_f32_t;

static void logistic_f32(const logistic_f32_t *p, const float *in, float *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->count; ++i) {
        const float x = in[i];
        out[i] = 1.0f / (1.0f + expf(-x));
    }
}
