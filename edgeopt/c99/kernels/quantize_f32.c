/* Floats to int8: scaled, rounded, saturated. */
typedef struct {
    int32_t count, zero, is_even;
    float scale;
} quantize_f32_t;

static void quantize_f32(const quantize_f32_t *p, const float *in, int8_t *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->count; ++i) {
        /* XNNPACK multiplies and rounds halves to even; TensorFlow Lite divides and rounds them away from zero. */
        float value = p->is_even ? in[i] * (1.0f / p->scale) : in[i] / p->scale;
        /* NaN is no number above -512, and becomes the least integer. */
        value = value > -512.0f ? (value > 512.0f ? 512.0f : value) : -512.0f;
        int32_t whole = (int32_t)value;
        const float rest = value - (float)whole;
        const int32_t odd = whole & 1;
        if (rest > 0.5f || (rest == 0.5f && (odd || !p->is_even))) {
            ++whole;
        } else if (rest < -0.5f || (rest == -0.5f && (odd || !p->is_even))) {
            --whole;
        }
        whole += p->zero;
        out[i] = (int8_t)(whole < -128 ? -128 : whole > 127 ? 127 : whole);
    }
}
