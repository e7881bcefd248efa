/* needs: simd fixed_point */
/* A sum of products to int8, rounded twice, halves upward both times, as LiteRT's own matrix products do. */
typedef struct {
    const int32_t *multiplier;
    const int8_t *shift;
} scales_t;

static inline int8_t requantize(
    const scales_t *scales, int32_t channel, int32_t sum, int32_t zero, int32_t low, int32_t high
) {
    const int32_t shift = scales->shift[channel];
    const int32_t left = shift > 0 ? shift : 0;
    int32_t value = multiply_high((int32_t)((uint32_t)sum << left), scales->multiplier[channel]);
    if (shift < 0) {
        value = (value >> -shift) + (value >> (-shift - 1) & 1);
    }
    return (int8_t)(clamp(value, low - zero, high - zero) + zero);
}

/* Of `count` channels from `channel` on. */
static inline void requantize_channels(
    const scales_t *scales, int32_t channel, const int32_t *sums, int32_t count, int32_t zero, int32_t low, int32_t high,
    int8_t *to
) {
    for (int32_t i = 0; i < count; ++i) {
        to[i] = requantize(scales, channel + i, sums[i], zero, low, high);
    }
}
