/* needs: requantize */
/* Mean over the middle of [outer, count, inner]; `offset` is -count * zero point of the input. */
typedef struct {
    int32_t outer, count, inner;
    int32_t offset, out_zero, low, high;
    scales_t scales;
} mean_s8_t;

static void mean_s8(const mean_s8_t *p, const int8_t *in, int8_t *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->outer; ++i, in += p->count * p->inner, out += p->inner) {
        for (int32_t c = 0; c < p->inner; ++c) {
            int32_t sum = p->offset;
            for (int32_t k = 0; k < p->count; ++k) {
                sum += in[k * p->inner + c];
            }
            out[c] = requantize(&p->scales, 0, sum, p->out_zero, p->low, p->high);
        }
    }
}
