/* x * min(max(x + 3, 0), 6) / 6, element by element. */
typedef struct {
    int32_t count;
} hard_swish_f32_t;

static void hard_swish_f32(const hard_swish_f32_t *p, const float *in, float *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->count; ++i) {
        const float x = in[i];
        out[i] = x * (x < -3.0f ? 0.0f : x > 3.0f ? 6.0f : x + 3.0f) / 6.0f;
    }
}
