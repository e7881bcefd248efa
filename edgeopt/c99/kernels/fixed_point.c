/* Fixed-point arithmetic as TensorFlow Lite defines it; a right shift of a negative number is arithmetic. */
static inline int32_t clamp(int32_t value, int32_t low, int32_t high) {
    return value < low ? low : value > high ? high : value;
}

/* The high half of 2 * a * b, rounded. */
static inline int32_t multiply_high(int32_t a, int32_t b) {
    return (int32_t)(((int64_t)a * b + (1 << 30)) >> 31);
}

/* value / 2^exponent, halves away from zero. */
static inline int32_t divide_by_power(int32_t value, int32_t exponent) {
    const int32_t mask = (int32_t)((1u << exponent) - 1u);
    return (value >> exponent) + ((value & mask) > (mask >> 1) + (value < 0));
}

/* value * multiplier / 2^31 * 2^shift, rounded twice. */
static inline int32_t multiply_twice_rounded(int32_t value, int32_t multiplier, int32_t shift) {
    const int32_t left = shift > 0 ? shift : 0;
    const int32_t right = shift > 0 ? 0 : -shift;
    return divide_by_power(multiply_high((int32_t)((uint32_t)value << left), multiplier), right);
}
