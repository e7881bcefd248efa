/* needs: simd fixed_point */
/* A sum of products to int8, rounded once, to even, as XNNPACK does. */
typedef struct {
    const float *scale;
} scales_t;

static inline int32_t round_to_even(float value) {
    /* The sum's low bits hold the integer as long as |value| < 2^22. */
    const float magic = value + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &magic, sizeof bits);
    return bits - 0x4B400000;
}

static inline int8_t requantize(
    const scales_t *scales, int32_t channel, int32_t sum, int32_t zero, int32_t low, int32_t high
) {
    float value = (float)sum * scales->scale[channel];
    if (value < (float)(low - zero)) {
        value = (float)(low - zero);
    }
    if (value > (float)(high - zero)) {
        value = (float)(high - zero);
    }
    return (int8_t)(round_to_even(value) + zero);
}

/* Of `count` channels from `channel` on. */
static inline void requantize_channels(
    const scales_t *scales, int32_t channel, const int32_t *sums, int32_t count, int32_t zero, int32_t low, int32_t high,
    int8_t *to
) {
#if defined(USE_MVE) && (__ARM_FEATURE_MVE & 2)
    for (; count > 0; count -= 4, channel += 4, sums += 4, to += 4) {
        const mve_pred16_t some = vctp32q((uint32_t)count);
        float32x4_t values = vcvtq_f32_s32(vldrwq_z_s32(sums, some));
        values = vmulq_f32(values, vldrwq_z_f32(scales->scale + channel, some));
        values = vmaxnmq_f32(values, vdupq_n_f32((float)(low - zero)));
        values = vminnmq_f32(values, vdupq_n_f32((float)(high - zero)));
        vstrbq_p_s32(to, vaddq_n_s32(vcvtnq_s32_f32(values), zero), some);
    }
#else
    for (int32_t i = 0; i < count; ++i) {
        to[i] = requantize(scales, channel + i, sums[i], zero, low, high);
    }
#endif
}
