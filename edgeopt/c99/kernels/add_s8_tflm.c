/* needs: simd fixed_point */
/* a + b or a - b of int8 tensors with scales of their own; a stride of 0 repeats an operand along a dimension. */
typedef struct {
    int32_t shape[4], a_stride[4], b_stride[4];
    int32_t a_zero, a_multiplier, a_shift, b_zero, b_multiplier, b_shift;
    int32_t b_sign, out_zero, out_multiplier, out_shift, low, high;
} add_s8_tflm_t;

static inline int8_t add_s8_tflm_one(const add_s8_tflm_t *p, int32_t a, int32_t b) {
    /* The 20 bits of headroom keep what the scales would cut off. */
    const int32_t x = divide_by_power(multiply_high((a - p->a_zero) * (1 << 20), p->a_multiplier), -p->a_shift);
    const int32_t y = divide_by_power(multiply_high((b - p->b_zero) * (1 << 20), p->b_multiplier), -p->b_shift);
    /* The sign comes last: halves are rounded upward before it. */
    const int32_t sum = divide_by_power(multiply_high(x + p->b_sign * y, p->out_multiplier), -p->out_shift);
    return (int8_t)(clamp(sum, p->low - p->out_zero, p->high - p->out_zero) + p->out_zero);
}

static void add_s8_tflm(const add_s8_tflm_t *p, const int8_t *a, const int8_t *b, int8_t *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->shape[0]; ++i) {
        for (int32_t j = 0; j < p->shape[1]; ++j) {
            for (int32_t k = 0; k < p->shape[2]; ++k) {
                const int8_t *x = a + i * p->a_stride[0] + j * p->a_stride[1] + k * p->a_stride[2];
                const int8_t *y = b + i * p->b_stride[0] + j * p->b_stride[1] + k * p->b_stride[2];
                int32_t l = 0;
#if defined(USE_MVE)
                for (; p->a_stride[3] == 1 && p->b_stride[3] == 1 && l + 4 <= p->shape[3]; l += 4, x += 4, y += 4) {
                    int32x4_t u = vshlq_n_s32(vsubq_n_s32(vldrbq_s32(x), p->a_zero), 20);
                    int32x4_t v = vshlq_n_s32(vsubq_n_s32(vldrbq_s32(y), p->b_zero), 20);
                    u = divide_by_powers(vqrdmulhq_n_s32(u, p->a_multiplier), vdupq_n_s32(p->a_shift));
                    v = divide_by_powers(vqrdmulhq_n_s32(v, p->b_multiplier), vdupq_n_s32(p->b_shift));
                    u = vqrdmulhq_n_s32(vmlaq_n_s32(u, v, p->b_sign), p->out_multiplier);
                    u = vaddq_n_s32(divide_by_powers(u, vdupq_n_s32(p->out_shift)), p->out_zero);
                    u = vminq_s32(vmaxq_s32(u, vdupq_n_s32(p->low)), vdupq_n_s32(p->high));
                    vstrbq_s32(out, u);
                    out += 4;
                }
#endif
                for (; l < p->shape[3]; ++l, x += p->a_stride[3], y += p->b_stride[3]) {
                    *out++ = add_s8_tflm_one(p, *x, *y);
                }
            }
        }
    }
}
