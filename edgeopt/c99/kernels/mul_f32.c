/* needs: clamp */
/* a * b of float tensors; a stride of 0 repeats an operand along a dimension. */
typedef struct {
    int32_t shape[4], a_stride[4], b_stride[4];
    float low, high;
} mul_f32_t;

static inline float mul_f32_one(const mul_f32_t *p, float a, float b) {
    return clamp_float(a * b, p->low, p->high);
}

static void mul_f32(const mul_f32_t *p, const float *a, const float *b, float *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->shape[0]; ++i) {
        for (int32_t j = 0; j < p->shape[1]; ++j) {
            for (int32_t k = 0; k < p->shape[2]; ++k) {
                const float *x = a + i * p->a_stride[0] + j * p->a_stride[1] + k * p->a_stride[2];
                const float *y = b + i * p->b_stride[0] + j * p->b_stride[1] + k * p->b_stride[2];
                for (int32_t l = 0; l < p->shape[3]; ++l, x += p->a_stride[3], y += p->b_stride[3]) {
                    *out++ = mul_f32_one(p, *x, *y);
                }
            }
        }
    }
}
