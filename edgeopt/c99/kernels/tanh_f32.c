/* Hyperbolic tangent, element by element. */
typedef struct {
    int32_t count;
} tanh_f32_t;

static void tanh_f32(const tanh_f32_t *p, const float *in, float *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->count; ++i) {
        const float x = in[i];
        out[i] = tanhf(x);
    }
}
