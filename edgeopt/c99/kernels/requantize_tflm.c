/* needs: simd fixed_point */
/* A sum of products to int8, rounded twice, as TensorFlow Lite Micro and CMSIS-NN do. */
typedef struct {
    const int32_t *multiplier;
    const int8_t *shift;
} scales_t;

static inline int8_t requantize(
    const scales_t *scales, int32_t channel, int32_t sum, int32_t zero, int32_t low, int32_t high
) {
    const int32_t value = multiply_twice_rounded(sum, scales->multiplier[channel], scales->shift[channel]);
    return (int8_t)(clamp(value, low - zero, high - zero) + zero);
}

/* Of `count` channels from `channel` on. */
static inline void requantize_channels(
    const scales_t *scales, int32_t channel, const int32_t *sums, int32_t count, int32_t zero, int32_t low, int32_t high,
    int8_t *to
) {
#if defined(USE_MVE)
    for (; count > 0; count -= 4, channel += 4, sums += 4, to += 4) {
        const mve_pred16_t some = vctp32q((uint32_t)count);
        const int32x4_t shifts = vldrbq_z_s32(scales->shift + channel, some);
        const int32x4_t left = vmaxq_s32(shifts, vdupq_n_s32(0));
        const int32x4_t right = vminq_s32(shifts, vdupq_n_s32(0));
        int32x4_t values = vshlq_s32(vldrwq_z_s32(sums, some), left);
        values = vqrdmulhq_s32(values, vldrwq_z_s32(scales->multiplier + channel, some));
        values = vaddq_n_s32(divide_by_powers(values, right), zero);
        values = vminq_s32(vmaxq_s32(values, vdupq_n_s32(low)), vdupq_n_s32(high));
        vstrbq_p_s32(to, values, some);
    }
#else
    for (int32_t i = 0; i < count; ++i) {
        to[i] = requantize(scales, channel + i, sums[i], zero, low, high);
    }
#endif
}
