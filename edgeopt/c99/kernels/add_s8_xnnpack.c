/* needs: fixed_point */
/* a + b or a - b of int8 tensors with scales of their own; a stride of 0 repeats an operand along a dimension. */
typedef struct {
    int32_t shape[4], a_stride[4], b_stride[4];
    int32_t offset, a_multiplier, b_multiplier, shift;
    int32_t out_zero, low, high;
} add_s8_xnnpack_t;

static inline int8_t add_s8_xnnpack_one(const add_s8_xnnpack_t *p, int32_t a, int32_t b) {
    /* `offset` holds both zero points and the half that rounds. */
    const int32_t sum = (p->offset + a * p->a_multiplier + b * p->b_multiplier) >> p->shift;
    return (int8_t)(clamp(sum, p->low - p->out_zero, p->high - p->out_zero) + p->out_zero);
}

static void add_s8_xnnpack(const add_s8_xnnpack_t *p, const int8_t *a, const int8_t *b, int8_t *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->shape[0]; ++i) {
        for (int32_t j = 0; j < p->shape[1]; ++j) {
            for (int32_t k = 0; k < p->shape[2]; ++k) {
                const int8_t *x = a + i * p->a_stride[0] + j * p->a_stride[1] + k * p->a_stride[2];
                const int8_t *y = b + i * p->b_stride[0] + j * p->b_stride[1] + k * p->b_stride[2];
                for (int32_t l = 0; l < p->shape[3]; ++l, x += p->a_stride[3], y += p->b_stride[3]) {
                    *out++ = add_s8_xnnpack_one(p, *x, *y);
                }
            }
        }
    }
}
