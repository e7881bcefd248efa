/* needs: requantize */
/* a * b of int8 tensors with scales of their own; a stride of 0 repeats an operand along a dimension. */
typedef struct {
    int32_t shape[4], a_stride[4], b_stride[4];
    int32_t a_zero, b_zero, out_zero, low, high;
    scales_t scales;
} mul_s8_t;

static inline int8_t mul_s8_one(const mul_s8_t *p, int32_t a, int32_t b) {
    return requantize(&p->scales, 0, (a - p->a_zero) * (b - p->b_zero), p->out_zero, p->low, p->high);
}

static void mul_s8(const mul_s8_t *p, const int8_t *a, const int8_t *b, int8_t *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->shape[0]; ++i) {
        for (int32_t j = 0; j < p->shape[1]; ++j) {
            for (int32_t k = 0; k < p->shape[2]; ++k) {
                const int8_t *x = a + i * p->a_stride[0] + j * p->a_stride[1] + k * p->a_stride[2];
                const int8_t *y = b + i * p->b_stride[0] + j * p->b_stride[1] + k * p->b_stride[2];
                for (int32_t l = 0; l < p->shape[3]; ++l, x += p->a_stride[3], y += p->b_stride[3]) {
                    *out++ = mul_s8_one(p, *x, *y);
                }
            }
        }
    }
}
