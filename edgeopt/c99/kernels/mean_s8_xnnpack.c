/* needs: fixed_point requantize_xnnpack */
/* Mean over the middle of [outer, count, inner], rounded once, as XNNPACK does; `offset` holds both zero points. */
typedef struct {
    int32_t outer, count, inner;
    float scale, offset;
} mean_s8_xnnpack_t;

static void mean_s8_xnnpack(const mean_s8_xnnpack_t *p, const int8_t *in, int8_t *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->outer; ++i, in += p->count * p->inner, out += p->inner) {
        for (int32_t c = 0; c < p->inner; ++c) {
            int32_t sum = 0;
            for (int32_t k = 0; k < p->count; ++k) {
                sum += in[k * p->inner + c];
            }
            /* Volatile, so that no compiler makes one operation with one rounding of the two. */
            const volatile float product = (float)sum * p->scale;
            float value = product + p->offset;
            value = value < -128.0f ? -128.0f : value > 127.0f ? 127.0f : value;
            out[c] = (int8_t)round_to_even(value);
        }
    }
}
