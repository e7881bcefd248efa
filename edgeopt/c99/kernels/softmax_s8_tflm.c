/* needs: fixed_point */
/* Softmax over rows of int8 to int8 of scale 1/256 and zero point -128; `exps[d]` is exp of a difference of -d to the
   row's maximum, as 0.31 fixed point. */
typedef struct {
    int32_t rows, depth;
    const int32_t *exps;
} softmax_s8_tflm_t;

/* 1 / (1 + x) for x in [0, 1), both as 0.31 fixed point: three Newton steps. */
static int32_t softmax_s8_reciprocal(int32_t x) {
    /* 48/17 and -32/17 as 2.29 fixed point. */
    const int32_t half = (int32_t)(((int64_t)x + INT32_MAX + 1) >> 1);
    int32_t r = 1515870810 + multiply_high(half, -1010580540);
    for (int i = 0; i < 3; ++i) {
        const int32_t error = (1 << 29) - multiply_high(half, r);
        const int32_t step = multiply_high(r, error);
        r += step > INT32_MAX / 4 ? INT32_MAX : step < INT32_MIN / 4 ? INT32_MIN : step * 4;
    }
    return r > INT32_MAX / 2 ? INT32_MAX : r * 2;
}

static void softmax_s8_tflm(const softmax_s8_tflm_t *p, const int8_t *in, int8_t *out, void *scratch) {
    (void)scratch;
    for (int32_t row = 0; row < p->rows; ++row, in += p->depth, out += p->depth) {
        int32_t most = -128;
        for (int32_t c = 0; c < p->depth; ++c) {
            most = in[c] > most ? in[c] : most;
        }
        /* 12 integer bits; with 4,096 classes and more they may be too few for 32. */
        uint64_t sum = 0;
        for (int32_t c = 0; c < p->depth; ++c) {
            sum += (uint32_t)divide_by_power(p->exps[most - in[c]], 12);
        }
        int32_t zeros = 0;
        for (; sum >> 32; sum >>= 1) {
            --zeros;
        }
        for (; !(sum >> 31); sum <<= 1) {
            ++zeros;
        }
        const int32_t scale = softmax_s8_reciprocal((int32_t)((uint32_t)sum - 0x80000000u));
        const int32_t exponent = 12 - zeros + 31 - 8;
        for (int32_t c = 0; c < p->depth; ++c) {
            const int32_t product = multiply_high(scale, p->exps[most - in[c]]);
            const int32_t value = exponent > 31 ? 0 : divide_by_power(product, exponent);
            out[c] = (int8_t)clamp(value - 128, -128, 127);
        }
    }
}
