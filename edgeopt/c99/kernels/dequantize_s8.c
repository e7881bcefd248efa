/* int8 to floats. */
typedef struct {
    int32_t count, zero;
    float scale;
} dequantize_s8_t;

static void dequantize_s8(const dequantize_s8_t *p, const int8_t *in, float *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->count; ++i) {
        out[i] = (float)(in[i] - p->zero) * p->scale;
    }
}
