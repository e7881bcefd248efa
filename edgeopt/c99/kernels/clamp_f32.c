/* min(max(x, low), high), element by element. */
typedef struct {
    int32_t count;
    float low, high;
} clamp_f32_t;

static void clamp_f32(const clamp_f32_t *p, const float *in, float *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->count; ++i) {
        const float x = in[i];
        out[i] = x < p->low ? p->low : x > p->high ? p->high : x;
    }
}
