/* x, or alpha * x below zero, element by element. */
typedef struct {
    int32_t count;
    float alpha;
} leaky_relu_f32_t;

static void leaky_relu_f32(const leaky_relu_f32_t *p, const float *in, float *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->count; ++i) {
        const float x = in[i];
        out[i] = x < 0.0f ? x * p->alpha : x;
    }
}
